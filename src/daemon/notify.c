/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told (sd_notify(3)): ready, status, that we live, that a stop takes longer.
 *
 * Owns a thread, where NOTIFY_SOCKET asks for one. It proves that the volume works before it says
 * so: a request has to go through the kernel and a worker and back, and what is open has to be
 * committed. A timer would say so of a daemon that hangs. Takes its own lock, never across a probe.
 */
#include "daemon_private.h"
#include "sluice/units.h"
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define STATUS_INTERVAL_NS (10 * SLU_NS_PER_SEC)
#define EXTEND_INTERVAL_NS (5 * SLU_NS_PER_SEC)
#define EXTEND_USEC        60000000u /* asked for each time, while a start or a stop gets on */

bool notify_wanted(void)
{
	return getenv("NOTIFY_SOCKET") != NULL;
}

void notify_send(const char *fmt, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char state[1024];
	socklen_t len;
	va_list ap;
	int fd;

	if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof(addr.sun_path))
		return;
	va_start(ap, fmt);
	vsnprintf(state, sizeof(state), fmt, ap);
	va_end(ap);
	memcpy(addr.sun_path, path, strlen(path));
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (*path == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr, len);
	close(fd);
}

/* ------------------------------------------------------------------ while it serves */

/* The manager's limit, of which a probe may use a third; 0: it has none for us. */
static uint64_t watchdog_ns(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

	if (!usec || (pid && strtol(pid, NULL, 10) != getpid()))
		return 0;
	return strtoull(usec, NULL, 10) * 1000;
}

/* A request that no cache can answer, then a commit of what is open. */
static bool probe(const struct served *v)
{
	struct slu_fs *fs = v->stack->fs;
	struct statx st;

	/* Of a device that somebody else has mounted out of our sight, only the commit is a proof. */
	if (v->visible &&
	    statx(AT_FDCWD, v->mountpoint, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st))
		return false;
	/*
	 * A commit that comes back is a sign of life, whatever it says: a full host is waited out,
	 * what fails for good turns the volume read-only, and either still serves. Who ended the
	 * daemon for it would lose what is kept.
	 */
	(void)slu_fs_probe(fs);
	return true;
}

static void send_status(const struct served *v)
{
	const struct slu_cache_stats *cache = slu_cache_stats(v->stack->fs->cache);
	char available[SLU_SIZE_STR], all[SLU_SIZE_STR], dirty[SLU_SIZE_STR];
	char last[REPORT_LINE] = "";
	g_autofree char *path = NULL;
	struct slu_store_info info;
	struct slu_statfs st;
	struct slu_event ev;
	uint64_t left_ns;

	slu_fs_statfs(v->stack->fs, &st);
	slu_store_info(v->stack->fs->store, &info);
	slu_format_size(st.bavail * SLU_BLOCK_SIZE, available);
	slu_format_size(st.blocks * SLU_BLOCK_SIZE, all);
	slu_format_size((atomic_load(&cache->dirty) + atomic_load(&cache->writeback)) *
				SLU_BLOCK_SIZE,
			dirty);
	if (slu_event_stream_last(v->stream, report_is_error, &ev)) {
		path = path_of(v->stack->fs, ev.ino, false);
		report_event_line(&ev, path, last, sizeof(last));
	}
	notify_send("STATUS=%s%s%s of %s available, %s not yet written%s%s\n",
		    slu_fs_frozen(v->stack->fs, &left_ns) ? "Frozen; " : "",
		    info.readonly || v->stack->fs->readonly ? "Read-only; " : "", available, all,
		    dirty, *last ? "; last: " : "", last);
}

/* True: stopping. */
static bool wait_until(struct notifier *n, uint64_t deadline)
{
	bool stopping;

	slu_mutex_lock(&n->lock);
	while (!n->stopping && !slu_cond_timedwait(&n->changed, &n->lock, deadline))
		;
	stopping = n->stopping;
	slu_mutex_unlock(&n->lock);
	return stopping;
}

static void watch_over(struct notifier *n)
{
	uint64_t limit = watchdog_ns();
	uint64_t interval = limit ? slu_min(limit / 3, STATUS_INTERVAL_NS) : STATUS_INTERVAL_NS;

	do {
		send_status(n->v);
		if (limit && probe(n->v))
			notify_send("WATCHDOG=1\n");
	} while (!wait_until(n, slu_clock_ns() + interval));
}

/* ------------------------------------------------------------------ while it starts and stops */

/*
 * Asks for time as long as I/O gets on, until `until` says that it is over. The volume is not there
 * yet, or may go away under us: nothing of it is looked at.
 */
static void watch_progress(struct notifier *n, bool (*until)(const struct notifier *n),
			   const char *status)
{
	uint64_t before = atomic_load(n->progress), now;
	bool reached = false;

	while (!reached) {
		uint64_t deadline = slu_clock_ns() + EXTEND_INTERVAL_NS;

		slu_mutex_lock(&n->lock);
		while (!until(n) && !slu_cond_timedwait(&n->changed, &n->lock, deadline))
			;
		reached = until(n);
		slu_mutex_unlock(&n->lock);
		now = atomic_load(n->progress);
		if (!reached && now > before)
			notify_send("EXTEND_TIMEOUT_USEC=%u\nSTATUS=%s\n", EXTEND_USEC, status);
		before = now;
	}
}

static bool has_started(const struct notifier *n)
{
	return n->v || n->stopping;
}

static bool has_ended(const struct notifier *n)
{
	return n->ended;
}

/* ------------------------------------------------------------------ its life */

static void notifier_main(void *arg)
{
	struct notifier *n = arg;

	watch_progress(n, has_started, "Reading the volume");
	if (n->v) /* which nobody changes any more */
		watch_over(n);
	slu_mutex_lock(&n->lock);
	n->quiet = true;
	slu_cond_broadcast(&n->changed);
	slu_mutex_unlock(&n->lock);
	watch_progress(n, has_ended, "Writing everything out");
}

void notifier_start(struct notifier *n, const _Atomic uint64_t *progress)
{
	*n = (struct notifier){.progress = progress};
	if (!notify_wanted())
		return;
	slu_mutex_init(&n->lock, SLU_RANK_LEAF, 0, "notifier");
	slu_cond_init(&n->changed);
	n->started = !slu_thread_start(&n->thread, "slu-notify", notifier_main, n);
	if (!n->started) {
		slu_cond_fini(&n->changed);
		slu_mutex_fini(&n->lock);
	}
}

void notifier_serve(struct notifier *n, const struct served *v)
{
	if (!n->started)
		return;
	slu_mutex_lock(&n->lock);
	n->v = v;
	slu_cond_broadcast(&n->changed);
	slu_mutex_unlock(&n->lock);
}

void notifier_stop(struct notifier *n)
{
	if (!n->started)
		return;
	slu_mutex_lock(&n->lock);
	if (n->v && !n->stopping)
		notify_send("STOPPING=1\n");
	n->stopping = true;
	slu_cond_broadcast(&n->changed);
	while (!n->quiet)
		slu_cond_wait(&n->changed, &n->lock);
	slu_mutex_unlock(&n->lock);
}

void notifier_end(struct notifier *n)
{
	if (!n->started)
		return;
	slu_mutex_lock(&n->lock);
	n->stopping = n->ended = true;
	slu_cond_broadcast(&n->changed);
	slu_mutex_unlock(&n->lock);
	slu_thread_join(&n->thread);
	slu_cond_fini(&n->changed);
	slu_mutex_fini(&n->lock);
	n->started = false;
}
