/* SPDX-License-Identifier: MIT */
/*
 * Entries in systemd's journal with fields of their own, and a MESSAGE_ID by which journalctl -x
 * finds what they mean (contrib/systemd/sluicefs.catalog).
 *
 * Called by report, from any thread; takes no lock. A build without libsystemd sends none, and
 * report writes lines.
 */
#include "daemon_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef SLU_HAVE_SYSTEMD
#include <systemd/sd-journal.h>
#endif

#define JOURNAL_SOCKET  "/run/systemd/journal/socket"
#define JOURNAL_DEV_LOG "/run/systemd/journal/dev-log"

static const char *const message_ids[SLU_EVENT_KINDS] = {
	[SLU_EVENT_WRITEBACK_ERROR] = "ef7b33f3847e4289966c0b2bf6bdbe52",
	[SLU_EVENT_DATA_LOST] = "d032e9787add4536be6c74012edf67b7",
	[SLU_EVENT_COMMIT_FAILED] = "b18304a013cf441a98a81d62f7aa7f83",
	[SLU_EVENT_NODE_CORRUPT] = "7af63bf8b38d46c7beee5fdc1f496d31",
	[SLU_EVENT_READONLY] = "149c8b63cd3a43b5ba3683d98b31a27e",
	[SLU_EVENT_NO_SPACE] = "8dc2eb27cbe8418b8b56b714758432c9",
	[SLU_EVENT_SLOW_COMMIT] = "a728a9b89155467ebbb7438c794c4e9b",
	[SLU_EVENT_FALLBACK] = "f1fca4de8c2443bea6ba2279e2d663f1",
	[SLU_EVENT_READ_ERROR] = "657e2b2c4d1c49deb71687b94c5a833e",
	[SLU_EVENT_SUPER_CORRUPT] = "6b32cd7a6a074403897409002ac0317b",
	[SLU_EVENT_SCRUB_STARTED] = "e46bd6e4f7d2488b8dc5f803d0d738b8",
	[SLU_EVENT_SCRUB_FINISHED] = "1ddf16d5b79d47d7a87a807f7baf60ba",
	[SLU_EVENT_FROZEN] = "ad2f67b4b63549acbeaf538e75d82877",
	[SLU_EVENT_THAWED] = "7cfb2af246e9445ca9d9d82dca9a8108",
	[SLU_EVENT_GROWN] = "b4f288366b4449f6b845406237bd0f74",
	[SLU_EVENT_MOUNTED] = "12b0e8de914747af8160c40f167b7109",
};

const char *journal_message_id(enum slu_event_kind kind)
{
	return message_ids[kind];
}

bool journal_is(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && !fstat(fd, &st) &&
	       st.st_dev == dev && st.st_ino == ino;
}

bool journal_has_syslog(void)
{
	char target[sizeof(JOURNAL_DEV_LOG)];
	ssize_t n = readlink("/dev/log", target, sizeof(target));

	return n == sizeof(target) - 1 && memcmp(target, JOURNAL_DEV_LOG, (size_t)n) == 0;
}

/* ------------------------------------------------------------------ fields */

static void add(struct journal_fields *f, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void add(struct journal_fields *f, const char *fmt, ...)
{
	va_list ap;

	slu_assert(f->n < JOURNAL_MAX_FIELDS);
	va_start(ap, fmt);
	f->fields[f->n++] = g_strdup_vprintf(fmt, ap);
	va_end(ap);
}

static void add_number(struct journal_fields *f, const char *name, uint64_t value)
{
	add(f, "SLUICEFS_%s=%llu", name, (unsigned long long)value);
}

/* What a kind has in ino, pos and len: see event.h. */
static void add_numbers(struct journal_fields *f, const struct slu_event *ev)
{
	switch (ev->kind) {
	case SLU_EVENT_WRITEBACK_ERROR:
	case SLU_EVENT_DATA_LOST:
	case SLU_EVENT_READ_ERROR:
		add_number(f, "INODE", ev->ino);
		add_number(f, "POSITION", ev->pos);
		add_number(f, "LENGTH", ev->len);
		break;
	case SLU_EVENT_NODE_CORRUPT:
		if (ev->ino)
			add_number(f, "INODE", ev->ino);
		else
			add_number(f, "BLOCK", ev->pos);
		break;
	case SLU_EVENT_SUPER_CORRUPT:
		add_number(f, "BLOCK", ev->pos);
		break;
	case SLU_EVENT_SLOW_COMMIT:
	case SLU_EVENT_FROZEN:
	case SLU_EVENT_THAWED:
		add_number(f, "DURATION_USEC", ev->len / 1000);
		break;
	case SLU_EVENT_SCRUB_FINISHED:
		add_number(f, "DAMAGED", ev->pos);
		add_number(f, "NODES", ev->len);
		break;
	case SLU_EVENT_SCRUB_STARTED:
		add_number(f, "NODES", ev->len);
		break;
	case SLU_EVENT_GROWN:
		add_number(f, "SIZE_BEFORE", ev->pos);
		add_number(f, "SIZE", ev->len);
		break;
	default:
		break;
	}
	if (ev->error)
		add(f, "ERRNO=%d", -ev->error);
}

void journal_fields_init(struct journal_fields *f, int priority, const char *volume,
			 const char *image, const struct slu_event *ev, const char *path,
			 const char *line)
{
	f->n = 0;
	add(f, "MESSAGE=%s%s%s", volume ? volume : "", volume ? ": " : "", line);
	add(f, "PRIORITY=%d", priority);
	add(f, "SYSLOG_IDENTIFIER=sluicefs");
	if (volume)
		add(f, "SLUICEFS_VOLUME=%s", volume);
	if (image)
		add(f, "SLUICEFS_IMAGE=%s", image);
	if (!ev)
		return;
	add(f, "MESSAGE_ID=%s", journal_message_id(ev->kind));
	add(f, "SLUICEFS_EVENT=%s", slu_event_kind_name(ev->kind));
	add_numbers(f, ev);
	if (path)
		add(f, "SLUICEFS_PATH=%s", path);
}

void journal_fields_fini(struct journal_fields *f)
{
	for (unsigned int i = 0; i < f->n; i++)
		g_free(f->fields[i]);
}

/* ------------------------------------------------------------------ sending */

#ifdef SLU_HAVE_SYSTEMD
bool journal_send(int priority, const char *volume, const char *image, const struct slu_event *ev,
		  const char *path, const char *line)
{
	struct iovec iov[JOURNAL_MAX_FIELDS];
	struct journal_fields f;
	int err;

	/* libsystemd says nothing where the journal is not there. */
	if (access(JOURNAL_SOCKET, W_OK))
		return false;
	journal_fields_init(&f, priority, volume, image, ev, path, line);
	for (unsigned int i = 0; i < f.n; i++)
		iov[i] = (struct iovec){f.fields[i], strlen(f.fields[i])};
	err = sd_journal_sendv(iov, (int)f.n);
	journal_fields_fini(&f);
	return err >= 0;
}
#else
bool journal_send(int priority, const char *volume, const char *image, const struct slu_event *ev,
		  const char *path, const char *line)
{
	return false;
}
#endif
