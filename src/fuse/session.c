/* SPDX-License-Identifier: MIT */
/*
 * The session: workers that read requests, and its beginning and end.
 *
 * Owns the device, the workers and the park. Called by the daemon's main thread; callbacks come
 * from workers. Takes the session's leaf lock, never across a request. Must never let a worker wait
 * for anything but the device, a short read, or room in the park.
 *
 * Workers start by demand: a worker that takes a request while no other waits for one starts the
 * next, up to the limit. Each has a clone of the device where that can be had, so that they do not
 * share the kernel's queue of requests in progress; an answer goes where the request came from.
 */
#include "fuse_private.h"
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <syslog.h>
#include <unistd.h>

#define WORKERS_DEFAULT  10u
#define WORKERS_AT_START 2u
#define PARK_MAX_ITEMS   4096u
#define PARK_MAX_BYTES   (16u << 20)
/* While the volume is frozen: what the kernel writes back at a time, and some who wait for a write. */
#define PARK_HELD_BYTES  ((SESSION_BACKGROUND + 64u) * (SESSION_MAX_WRITE + 2 * SLU_BLOCK_SIZE))
#define PARK_MAX_THREADS 32u
#define KICK_INTERVAL_NS (2 * SLU_NS_PER_MS)
#define MAX_WRITE_LEAST  4096u

void session_log(struct slu_session *s, int priority, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!s->opts.log)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	s->opts.log(s->opts.ctx, priority, line);
}

/* ------------------------------------------------------------------ workers */

/* A descriptor of its own for a worker; the shared one where that is not allowed or not known. */
static int clone_device(int fd)
{
	uint32_t master = (uint32_t)fd;
	int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (clone < 0)
		return fd;
	if (ioctl(clone, FUSE_DEV_IOC_CLONE, &master)) {
		close(clone);
		return fd;
	}
	return clone;
}

static void worker_main(void *arg);

/* Lock held. */
static int start_worker(struct slu_session *s) SLU_REQUIRES(s->lock)
{
	struct worker *w = &s->workers[s->nworkers];
	int err;

	*w = (struct worker){.s = s, .fd = clone_device(s->fd)};
	atomic_store(&w->running, true);
	err = slu_thread_start(&w->thread, "slu-fuse", worker_main, w);
	if (err) {
		if (w->fd != s->fd)
			close(w->fd);
		return err;
	}
	s->nworkers++;
	atomic_fetch_add_explicit(&s->stats.workers, 1, memory_order_relaxed);
	return 0;
}

static void add_worker(struct slu_session *s)
{
	slu_mutex_lock(&s->lock);
	if (!atomic_load(&s->stopping) && s->nworkers < s->opts.max_workers)
		(void)start_worker(s); /* those that run will do */
	slu_mutex_unlock(&s->lock);
}

static void end_of_reading(struct slu_session *s, int err)
{
	if (err == ENODEV) /* unmounted */
		session_end(s, 0);
	else
		session_end(s, -err);
}

/* Out of memory for a buffer: tries again, since giving up would leave requests unread. */
static struct request *worker_buffer(struct slu_session *s)
{
	struct request *req;

	while (!(req = request_new(s)) && !atomic_load(&s->stopping))
		slu_sleep_ns(20 * SLU_NS_PER_MS);
	return req;
}

static void worker_main(void *arg)
{
	struct worker *w = arg;
	struct slu_session *s = w->s;
	sigset_t wake;

	sigemptyset(&wake);
	sigaddset(&wake, SESSION_WAKE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
	w->req = worker_buffer(s);
	while (w->req && !atomic_load(&s->stopping)) {
		uint32_t idle;
		ssize_t n;

		busy_poll_before_read(w);
		atomic_fetch_add(&s->nidle, 1);
		n = read(w->fd, w->req->buf, w->req->cap);
		idle = atomic_fetch_sub(&s->nidle, 1) - 1;
		if (n < 0) {
			/* ENOENT: the request was taken back before it was copied to us. */
			if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
				continue;
			end_of_reading(s, errno);
			break;
		}
		if (!n) { /* the end of a socket, where tests have one for a device */
			session_end(s, 0);
			break;
		}
		busy_poll_after_read(w, (size_t)n);
		if (!idle && !atomic_load(&s->busy.poller))
			add_worker(s);
		w->req->fd = w->fd;
		w->req = session_dispatch(w->req, (size_t)n);
		if (!w->req)
			w->req = worker_buffer(s);
	}
	request_free(w->req);
	w->req = NULL;
	atomic_store(&w->running, false);
}

/* ------------------------------------------------------------------ state */

void session_end(struct slu_session *s, int err)
{
	bool first;

	slu_mutex_lock(&s->lock);
	first = !s->ended;
	if (first) {
		s->ended = true;
		s->end_error = err;
	}
	slu_cond_broadcast(&s->changed);
	slu_mutex_unlock(&s->lock);
	if (first && s->opts.ended)
		s->opts.ended(s->opts.ctx);
}

void session_answered(struct slu_session *s)
{
	slu_mutex_lock(&s->lock);
	s->answered = true;
	slu_cond_broadcast(&s->changed);
	slu_mutex_unlock(&s->lock);
}

int slu_session_wait_ready(struct slu_session *s, uint64_t deadline_ns)
{
	int err = 0;

	slu_mutex_lock(&s->lock);
	while (!err && !s->answered) {
		if (s->ended)
			err = s->end_error ? s->end_error : -ENODEV;
		else
			err = slu_cond_timedwait(&s->changed, &s->lock, deadline_ns);
	}
	slu_mutex_unlock(&s->lock);
	return err;
}

bool slu_session_ended(struct slu_session *s, int *ret_error)
{
	bool ended;

	slu_mutex_lock(&s->lock);
	ended = s->ended;
	if (ended)
		*ret_error = s->end_error;
	slu_mutex_unlock(&s->lock);
	return ended;
}

uint64_t slu_session_nopen(struct slu_session *s)
{
	return atomic_load(&s->nopen);
}

uint32_t slu_session_nwaiting(const struct slu_session *s)
{
	return atomic_load(&s->nunanswered);
}

uint32_t slu_session_nparked(const struct slu_session *s)
{
	return atomic_load(&s->park.nitems);
}

bool slu_session_busy_polls(const struct slu_session *s)
{
	return atomic_load(&s->busy.poller) != NULL;
}

const struct slu_session_stats *slu_session_stats(const struct slu_session *s)
{
	return &s->stats;
}

const char *slu_session_op_name(unsigned int opcode)
{
	const struct op *op = op_find(opcode);

	return op ? op->name : NULL;
}

/* ------------------------------------------------------------------ beginning and end */

static void wake_handler(int sig)
{
	(void)sig; /* its arrival is the message */
}

int slu_session_new(struct slu_fs *fs, int fd, const struct slu_session_opts *opts,
		    struct slu_session **ret)
{
	struct slu_session *s = slu_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->opts = *opts;
	if (!s->opts.max_workers)
		s->opts.max_workers = WORKERS_DEFAULT;
	s->opts.max_workers = slu_min(s->opts.max_workers, SESSION_MAX_WORKERS);
	if (!s->opts.max_write)
		s->opts.max_write = SESSION_MAX_WRITE;
	s->opts.max_write = slu_min(s->opts.max_write, SESSION_MAX_WRITE);
	s->opts.max_write = slu_max(s->opts.max_write, MAX_WRITE_LEAST);
	s->max_write = s->opts.max_write;
	s->fs = fs;
	s->fd = fd;
	slu_mutex_init(&s->lock, SLU_RANK_LEAF, 0, "fuse session");
	slu_cond_init(&s->changed);
	busy_poll_init(s);
	slow_init(&s->slow);
	*ret = s;
	return 0;
}

static void on_freeze(void *ctx, bool frozen)
{
	struct slu_session *s = ctx;

	park_hold(&s->park, frozen);
}

int slu_session_start(struct slu_session *s)
{
	struct park_limits limits = {
		.max_items = PARK_MAX_ITEMS,
		.max_bytes = PARK_MAX_BYTES,
		.max_bytes_held = PARK_HELD_BYTES,
		.max_threads = PARK_MAX_THREADS,
	};
	struct sigaction sa = {.sa_handler = wake_handler}; /* no SA_RESTART: read returns */
	int err = 0;

	sigemptyset(&sa.sa_mask);
	if (sigaction(SESSION_WAKE_SIGNAL, &sa, NULL))
		return -errno;
	err = park_init(&s->park, &limits);
	if (err)
		return err;
	slu_mutex_lock(&s->lock);
	while (!err && s->nworkers < slu_min(WORKERS_AT_START, s->opts.max_workers))
		err = start_worker(s);
	if (s->nworkers)
		err = 0;
	slu_mutex_unlock(&s->lock);
	if (err)
		park_fini(&s->park);
	else
		slu_fs_set_freeze_hook(s->fs, on_freeze, s);
	return err;
}

/*
 * A signal that arrives just before the read is lost, so it is sent until the worker has gone. What
 * a worker does between two reads is not disturbed: it does not care for EINTR.
 */
static void call_back(struct slu_session *s, unsigned int n)
{
	bool running;

	do {
		running = false;
		for (unsigned int i = 0; i < n; i++) {
			if (!atomic_load(&s->workers[i].running))
				continue;
			pthread_kill(s->workers[i].thread.thread, SESSION_WAKE_SIGNAL);
			running = true;
		}
		if (running)
			slu_sleep_ns(KICK_INTERVAL_NS);
	} while (running);
	for (unsigned int i = 0; i < n; i++)
		slu_thread_join(&s->workers[i].thread);
}

void slu_session_stop(struct slu_session *s)
{
	unsigned int n;

	slu_mutex_lock(&s->lock);
	n = atomic_load(&s->stopping) ? 0 : s->nworkers;
	atomic_store(&s->stopping, true);
	slu_mutex_unlock(&s->lock);
	if (!n) /* not started, or stopped before */
		return;
	/* What was read is finished. */
	slu_fs_end_freezes(s->fs);
	busy_poll_stop(s);
	call_back(s, n);
	slu_fs_set_freeze_hook(s->fs, NULL, NULL);
	park_fini(&s->park);
}

static void answer_destroy(struct slu_session *s)
{
	struct fuse_out_header out = {.len = sizeof(out), .unique = s->destroy_unique};

	/* Nobody is left to tell of an error. */
	if (write(s->destroy_fd, &out, sizeof(out)) < 0)
		session_log(s, LOG_DEBUG, "DESTROY was not answered: %s", strerror(errno));
}

void slu_session_free(struct slu_session *s)
{
	if (!s)
		return;
	if (s->destroy_waits)
		answer_destroy(s);
	for (unsigned int i = 0; i < s->nworkers; i++) {
		if (s->workers[i].fd != s->fd)
			close(s->workers[i].fd);
	}
	close(s->fd);
	request_free_spares(s);
	slow_fini(&s->slow);
	busy_poll_fini(s);
	slu_cond_fini(&s->changed);
	slu_mutex_fini(&s->lock);
	slu_free(s);
}
