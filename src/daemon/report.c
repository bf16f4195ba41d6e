/* SPDX-License-Identifier: MIT */
/*
 * Everything this program says: to stderr while somebody looks at it, to the system's log after, and
 * to the journal with fields wherever that is what is behind either.
 *
 * Watches the stream of events. report() is called from any thread; events are written by the main
 * thread. A slow log can neither stop the volume nor cost an event that says something was lost.
 */
#include "daemon_private.h"
#include "sluice/units.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_NS (10 * SLU_NS_PER_SEC)

static _Atomic bool use_syslog, debug_on;
/* Set before there are threads that report. */
static const char *log_volume, *log_image; /* where it is mounted, and its image; or NULL */
static bool syslog_is_journal;

void report_debug(bool on)
{
	atomic_store(&debug_on, on);
}

void report_about(const char *mountpoint, const char *image)
{
	log_volume = mountpoint;
	log_image = image;
}

void report_to_syslog(void)
{
	openlog("sluicefs", LOG_PID, LOG_DAEMON);
	syslog_is_journal = journal_has_syslog();
	atomic_store(&use_syslog, true);
}

static void say(int priority, const struct slu_event *ev, const char *path, const char *line)
{
	bool background = atomic_load(&use_syslog);
	bool journal = background ? syslog_is_journal : journal_is(STDERR_FILENO);

	if (journal && journal_send(priority, log_volume, log_image, ev, path, line))
		return;
	if (background)
		syslog(priority, "%s: %s", log_volume, line);
	else if (journal) /* systemd takes the priority from the line */
		fprintf(stderr, "<%d>sluicefs: %s\n", priority, line);
	else
		fprintf(stderr, "sluicefs: %s\n", line);
}

void report(int priority, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (priority == LOG_DEBUG && !atomic_load(&debug_on))
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	say(priority, NULL, NULL, line);
}

/* ------------------------------------------------------------------ events */

/* Called under leaf locks: the eventfd does not block. */
static void wake_main(void *ctx)
{
	const struct report_events *r = ctx;
	uint64_t one = 1;

	if (r->wake_fd >= 0)
		(void)!write(r->wake_fd, &one, sizeof(one));
}

int report_events_init(struct report_events *r, struct slu_event_stream *stream)
{
	*r = (struct report_events){.stream = stream, .wake_fd = -1};
	return slu_event_watch_add(stream, &r->watch, REPORT_RING, 0, wake_main, r);
}

void report_events_fini(struct report_events *r)
{
	slu_event_watch_remove(r->stream, &r->watch);
}

#define SUBJECT_PATH 256u /* bytes of it that a line has room for */
#define SUBJECT_SIZE (SUBJECT_PATH + 64u)

/* "inode 42 (/a/b)" */
static void subject(const struct slu_event *ev, const char *path, char buf[SUBJECT_SIZE])
{
	unsigned long long ino = ev->ino;
	size_t len = path ? strlen(path) : 0;

	if (!path)
		snprintf(buf, SUBJECT_SIZE, "inode %llu", ino);
	else if (len <= SUBJECT_PATH)
		snprintf(buf, SUBJECT_SIZE, "inode %llu (%s)", ino, path);
	else
		snprintf(buf, SUBJECT_SIZE, "inode %llu (...%s)", ino,
			 g_utf8_find_next_char(path + len - SUBJECT_PATH, NULL));
}

void report_event_line(const struct slu_event *ev, const char *path, char *line, size_t size)
{
	unsigned long long pos = ev->pos, len = ev->len;
	const char *err = ev->error ? strerror(-ev->error) : "unknown error";
	const char *text = ev->text ? ev->text : "";
	char from[SLU_SIZE_STR], to[SLU_SIZE_STR], inode[SUBJECT_SIZE];

	subject(ev, path, inode);
	switch (ev->kind) {
	case SLU_EVENT_WRITEBACK_ERROR:
		snprintf(line, size,
			 "%s, bytes %llu+%llu cannot be written: %s; kept, will be retried", inode,
			 pos, len, err);
		break;
	case SLU_EVENT_DATA_LOST:
		snprintf(line, size, "DATA LOST: %s, bytes %llu+%llu: %s", inode, pos, len, err);
		break;
	case SLU_EVENT_READ_ERROR:
		snprintf(line, size, "%s, bytes %llu+%llu cannot be read: %s", inode, pos, len,
			 err);
		break;
	case SLU_EVENT_COMMIT_FAILED:
		snprintf(line, size, "metadata cannot be written: %s; kept, will be retried", err);
		break;
	case SLU_EVENT_NODE_CORRUPT:
		if (ev->ino)
			snprintf(line, size, "the metadata of %s is damaged: %s; run fsck.sluicefs",
				 inode, text);
		else
			snprintf(line, size,
				 "the metadata in block %llu is damaged; run fsck.sluicefs", pos);
		break;
	case SLU_EVENT_READONLY:
		snprintf(line, size, "the volume has turned read-only: %s%s%s", text,
			 *text ? ": " : "", err);
		break;
	case SLU_EVENT_NO_SPACE:
		snprintf(line, size, "no space%s%s", *text ? ": " : " left on the volume", text);
		break;
	case SLU_EVENT_SLOW_COMMIT:
		snprintf(line, size, "a commit took %.1f s", (double)ev->len / 1e9);
		break;
	case SLU_EVENT_FALLBACK:
		snprintf(line, size, "the newest superblock is bad; mounted the older one%s%s",
			 *text ? ": " : "", text);
		break;
	case SLU_EVENT_GROWN:
		slu_format_size(pos, from);
		slu_format_size(len, to);
		snprintf(line, size, "the volume has grown from %s to %s", from, to);
		break;
	case SLU_EVENT_SUPER_CORRUPT:
		snprintf(line, size, "a bad superblock in block %llu (%s); run fsck.sluicefs", pos,
			 text);
		break;
	case SLU_EVENT_SCRUB_STARTED:
		snprintf(line, size, "a scrub of %llu nodes begins", len);
		break;
	case SLU_EVENT_SCRUB_FINISHED:
		snprintf(line, size, "scrubbed %llu nodes%s%s: %llu damaged%s", len,
			 ev->error ? ", not all: " : "", ev->error ? err : "", pos,
			 pos ? "; run fsck.sluicefs" : "");
		break;
	case SLU_EVENT_FROZEN:
		snprintf(line, size,
			 "frozen: nothing changes the image for up to %.0f s; sluicectl thaw ends "
			 "it",
			 (double)ev->len / 1e9);
		break;
	case SLU_EVENT_THAWED:
		snprintf(line, size, "thawed after %.1f s%s", (double)ev->len / 1e9,
			 ev->error ? ", by the time limit: a copy that was not finished is not "
				     "whole; freeze with a longer --timeout"
				   : "");
		break;
	case SLU_EVENT_MOUNTED:
		snprintf(line, size, "mounted from %s%s", text, ev->pos ? ", read-only" : "");
		break;
	case SLU_EVENT_KINDS: /* none */
		*line = '\0';
		break;
	}
}

static int priority_of(const struct slu_event *ev)
{
	if (slu_event_is_critical(ev->kind))
		return LOG_CRIT;
	switch (ev->kind) {
	case SLU_EVENT_SLOW_COMMIT:
	case SLU_EVENT_FROZEN:
	case SLU_EVENT_GROWN:
		return LOG_NOTICE;
	case SLU_EVENT_SCRUB_STARTED:
	case SLU_EVENT_MOUNTED:
		return LOG_INFO;
	case SLU_EVENT_SCRUB_FINISHED:
		return ev->pos ? LOG_ERR : LOG_INFO;
	case SLU_EVENT_THAWED:
		return ev->error ? LOG_WARNING : LOG_NOTICE;
	default:
		return LOG_ERR;
	}
}

bool report_is_error(const struct slu_event *ev)
{
	return priority_of(ev) <= LOG_ERR;
}

/* ev: what the line is about, and the path of its inode; or NULL. */
static void emit(struct report_events *r, int priority, const struct slu_event *ev,
		 const char *path, const char *line)
{
	if (r->write)
		r->write(priority, line);
	else
		say(priority, ev, path, line);
}

static void emit_event(struct report_events *r, const struct slu_event *ev)
{
	g_autofree char *path = r->fs ? path_of(r->fs, ev->ino, r->may_wait) : NULL;
	char line[REPORT_LINE];

	report_event_line(ev, path, line, sizeof(line));
	emit(r, priority_of(ev), ev, path, line);
}

/* A disk that fails does so for every block; ten lines say as much as ten thousand. */
static bool within_rate(struct report_events *r, unsigned int kind)
{
	uint64_t now = slu_clock_ns();
	char line[96];

	if (now - r->window_ns[kind] >= WINDOW_NS) {
		if (r->suppressed[kind]) {
			snprintf(line, sizeof(line), "%llu more lines like that were left out",
				 (unsigned long long)r->suppressed[kind]);
			emit(r, LOG_NOTICE, NULL, NULL, line);
		}
		r->window_ns[kind] = now;
		r->in_window[kind] = 0;
		r->suppressed[kind] = 0;
	}
	if (r->in_window[kind]++ < REPORT_PER_WINDOW)
		return true;
	r->suppressed[kind]++;
	return false;
}

void report_events_flush(struct report_events *r)
{
	struct slu_event ev;
	uint64_t lost;
	char line[REPORT_LINE];
	bool more;

	do {
		more = slu_ring_take(&r->watch.ring, &ev, &lost);
		if (lost) {
			snprintf(line, sizeof(line), "%llu events came too fast to be logged",
				 (unsigned long long)lost);
			emit(r, LOG_WARNING, NULL, NULL, line);
		}
		if (more && (slu_event_is_critical(ev.kind) || within_rate(r, ev.kind)))
			emit_event(r, &ev);
	} while (more);
}
