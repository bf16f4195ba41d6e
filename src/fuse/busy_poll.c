/* SPDX-License-Identifier: MIT */
/*
 * Busy polling: one worker that looks for the next request instead of sleeping until it comes.
 *
 * Owns the session's decision who reads. Called by the workers, before and after a read. Takes the
 * session's leaf lock when the decision changes, and never for a request. Must never leave a
 * request unread because the one worker that reads is held up.
 *
 * A program that creates files asks one thing after the other, and each answer takes a few
 * microseconds; what it waits for are two wake-ups, which take many times that where a processor
 * has to be woken too, most of all on a virtual machine. So while requests follow each other
 * closely and one at a time, one worker polls, as the kernel does for a socket with SO_BUSY_POLL,
 * and the others sit on the bench. In read they would be woken in turn, for nothing: the kernel
 * wakes whoever has waited longest, and the one that polls has taken the request by then.
 *
 * Votes decide, a window of requests at a time. What speaks against: a request that comes while
 * another has not been answered, one that carries much (its copying should go on beside the
 * caller's), one that comes late. It ends at once when somebody else wants the processor, and when
 * nothing was taken from one tick of the bench to the next, whether because no request comes or
 * because the worker that polls is held up in one.
 */
#include "fuse_private.h"
#include <poll.h>
#include <sched.h>
#include <signal.h>

#define WINDOW        64u                   /* requests that are judged together */
#define BEGIN_AGAINST 8u                    /* votes up to which it begins */
#define END_AGAINST   16u                   /* and beyond which it ends */
#define MISS_VOTES    4u                    /* of a poll that found nothing */
#define LATE_LIMITS   4u                    /* since the request before, in limits */
#define MUCH          32768u                /* bytes of data in a request */
#define WANTED_NS     (SLU_NS_PER_MS / 5)   /* off the processor: somebody else needs it */
#define TICK_NS       (2 * SLU_NS_PER_MS)   /* of the bench */
#define PAUSE_NS      (10 * SLU_NS_PER_MS)  /* after an end, until it may begin again */
#define LONG_PAUSE_NS (200 * SLU_NS_PER_MS) /* where somebody else needs the processor */

static bool is_alone(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 2;
}

void busy_poll_init(struct slu_session *s)
{
	slu_cond_init(&s->busy.bench);
	/* With one processor the caller could not ask while we look. */
	s->busy.limit_ns = is_alone() ? 0 : s->opts.busy_poll_ns;
}

void busy_poll_fini(struct slu_session *s)
{
	slu_cond_fini(&s->busy.bench);
}

/* ------------------------------------------------------------------ beginning and end */

static void begin(struct worker *w)
{
	struct slu_session *s = w->s;

	slu_mutex_lock(&s->lock);
	if (!atomic_load(&s->busy.poller) && !atomic_load(&s->stopping)) {
		atomic_store(&s->busy.poller, w);
		/* Out of read. One that this misses reads on, which is as right and not as fast. */
		for (unsigned int i = 0; i < s->nworkers; i++) {
			if (&s->workers[i] != w && atomic_load(&s->workers[i].running))
				pthread_kill(s->workers[i].thread.thread, SESSION_WAKE_SIGNAL);
		}
		atomic_fetch_add_explicit(&s->stats.busy_polls, 1, memory_order_relaxed);
	}
	slu_mutex_unlock(&s->lock);
}

static void end_locked(struct slu_session *s, uint64_t pause_ns) SLU_REQUIRES(s->lock)
{
	atomic_store(&s->busy.not_before_ns, slu_clock_ns() + pause_ns);
	atomic_store(&s->busy.poller, NULL);
	slu_cond_broadcast(&s->busy.bench);
}

static void end(struct slu_session *s, uint64_t pause_ns)
{
	slu_mutex_lock(&s->lock);
	end_locked(s, pause_ns);
	slu_mutex_unlock(&s->lock);
}

void busy_poll_stop(struct slu_session *s)
{
	end(s, 0);
}

/* ------------------------------------------------------------------ before a read */

/* One of those on the bench watches the worker that polls. */
static void sit_on_bench(struct worker *w)
{
	struct slu_session *s = w->s;

	slu_mutex_lock(&s->lock);
	while (atomic_load(&s->busy.poller) && atomic_load(&s->busy.poller) != w &&
	       !atomic_load(&s->stopping)) {
		uint64_t taken = atomic_load(&s->busy.taken);

		if (s->busy.watched) {
			slu_cond_wait(&s->busy.bench, &s->lock);
			continue;
		}
		s->busy.watched = true;
		(void)slu_cond_timedwait(&s->busy.bench, &s->lock, slu_clock_ns() + TICK_NS);
		s->busy.watched = false;
		if (atomic_load(&s->busy.taken) == taken)
			end_locked(s, PAUSE_NS);
	}
	slu_mutex_unlock(&s->lock);
}

static void look_for_request(struct worker *w)
{
	struct slu_session *s = w->s;
	struct pollfd device = {.fd = w->fd, .events = POLLIN};
	uint64_t start = slu_clock_ns(), last = start, now;

	/* Whatever poll says but "nothing", read says better. */
	while (poll(&device, 1, 0) == 0) {
		slu_yield();
		now = slu_clock_ns();
		if (now - last > WANTED_NS) {
			end(s, LONG_PAUSE_NS);
			return;
		}
		if (now - start > s->busy.limit_ns) {
			atomic_fetch_add_explicit(&s->busy.against, MISS_VOTES,
						  memory_order_relaxed);
			return;
		}
		last = now;
	}
}

void busy_poll_before_read(struct worker *w)
{
	struct worker *poller = atomic_load(&w->s->busy.poller);

	if (poller == w)
		look_for_request(w);
	else if (poller)
		sit_on_bench(w);
}

/* ------------------------------------------------------------------ after a read */

/* Requests that a program does not wait for: they say nothing about it. */
static bool is_waited_for(const struct fuse_in_header *h)
{
	switch (h->opcode) {
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return false;
	default:
		return true;
	}
}

static bool carries_much(const struct fuse_in_header *h, size_t n)
{
	const struct fuse_read_in *in = (const void *)(h + 1);

	if (h->opcode == FUSE_READ && n >= sizeof(*h) + sizeof(*in))
		return in->size > MUCH;
	return n > MUCH;
}

static bool another_waits(const struct worker *w)
{
	struct pollfd device = {.fd = w->fd, .events = POLLIN};

	return poll(&device, 1, 0) > 0;
}

static void count_votes(struct worker *w, uint64_t now)
{
	struct slu_session *s = w->s;
	uint32_t against = atomic_exchange_explicit(&s->busy.against, 0, memory_order_relaxed);

	if (atomic_load(&s->busy.poller)) {
		if (against > END_AGAINST)
			end(s, PAUSE_NS);
	} else if (against <= BEGIN_AGAINST && now >= atomic_load(&s->busy.not_before_ns)) {
		begin(w);
	}
}

void busy_poll_after_read(struct worker *w, size_t n)
{
	struct slu_session *s = w->s;
	const struct fuse_in_header *h = request_header(w->req);
	struct worker *poller = atomic_load(&s->busy.poller);
	uint64_t now, last;
	bool against;

	if (!s->busy.limit_ns || n < sizeof(*h))
		return;
	if (poller == w)
		atomic_fetch_add_explicit(&s->busy.taken, 1, memory_order_relaxed);
	if (!is_waited_for(h))
		return;
	now = slu_clock_ns();
	last = atomic_exchange_explicit(&s->busy.last_ns, now, memory_order_relaxed);
	against = carries_much(h, n) || now - last > LATE_LIMITS * s->busy.limit_ns;
	/* The worker that polls is the only one: what overlaps waits for it. */
	against = against || (poller == w ? another_waits(w) : atomic_load(&s->nunanswered) > 0);
	if (against)
		atomic_fetch_add_explicit(&s->busy.against, 1, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&s->busy.seen, 1, memory_order_relaxed) % WINDOW ==
	    WINDOW - 1)
		count_votes(w, now);
}
