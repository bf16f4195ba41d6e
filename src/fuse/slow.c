/* SPDX-License-Identifier: MIT */
/*
 * The slowest requests of an interval, for whoever watches: of each inode the one that took
 * longest.
 *
 * Owns the session's list of watches. Called at the end of every request (note), and by those who
 * watch. Takes a leaf lock of its own, and only for a request that may belong in some watch's
 * table: while nobody watches, and for what is faster than all of a full table, a request costs one
 * look at `least_ns`. Until a table is full, every request takes the lock. Allocates nothing.
 */
#include "fuse_private.h"

void slow_init(struct slow_requests *slow)
{
	slu_mutex_init(&slow->lock, SLU_RANK_LEAF, 0, "slow requests");
	atomic_store_explicit(&slow->least_ns, UINT64_MAX, memory_order_relaxed);
}

void slow_fini(struct slow_requests *slow)
{
	slu_assert(!slow->watches);
	slu_mutex_fini(&slow->lock);
}

/* What took no longer than this is in no table. */
static void update_least(struct slow_requests *slow) SLU_REQUIRES(slow->lock)
{
	uint64_t least = UINT64_MAX;

	for (struct slu_slow_watch *w = slow->watches; w; w = w->next)
		least = slu_min(least, w->n < SLU_SLOW_MAX ? 0 : w->requests[w->n - 1].ns);
	atomic_store_explicit(&slow->least_ns, least, memory_order_relaxed);
}

/* Slowest first, each inode once. r->ns is above 0. */
static void insert(struct slu_slow_watch *w, const struct slu_slow_request *r)
{
	unsigned int i = 0;

	while (i < w->n && w->requests[i].ino != r->ino)
		i++;
	if (i == w->n && w->n < SLU_SLOW_MAX)
		w->requests[w->n++].ns = 0;
	else if (i == w->n)
		i--;
	if (r->ns <= w->requests[i].ns)
		return;
	for (; i && w->requests[i - 1].ns < r->ns; i--)
		w->requests[i] = w->requests[i - 1];
	w->requests[i] = *r;
}

void slow_note(struct slow_requests *slow, uint64_t ino, uint32_t opcode, uint64_t ns)
{
	struct slu_slow_request r = {.ino = ino, .ns = ns, .opcode = opcode};

	if (ns <= atomic_load_explicit(&slow->least_ns, memory_order_relaxed) || !ino)
		return;
	slu_mutex_lock(&slow->lock);
	for (struct slu_slow_watch *w = slow->watches; w; w = w->next)
		insert(w, &r);
	update_least(slow);
	slu_mutex_unlock(&slow->lock);
}

void slu_session_slow_watch(struct slu_session *s, struct slu_slow_watch *w)
{
	slu_mutex_lock(&s->slow.lock);
	w->n = 0;
	w->next = s->slow.watches;
	s->slow.watches = w;
	update_least(&s->slow);
	slu_mutex_unlock(&s->slow.lock);
}

void slu_session_slow_unwatch(struct slu_session *s, struct slu_slow_watch *w)
{
	struct slu_slow_watch **p;

	slu_mutex_lock(&s->slow.lock);
	for (p = &s->slow.watches; *p != w; p = &(*p)->next)
		slu_assert(*p);
	*p = w->next;
	update_least(&s->slow);
	slu_mutex_unlock(&s->slow.lock);
}

unsigned int slu_session_slow_take(struct slu_session *s, struct slu_slow_watch *w,
				   struct slu_slow_request ret[SLU_SLOW_MAX])
{
	unsigned int n;

	slu_mutex_lock(&s->slow.lock);
	n = w->n;
	memcpy(ret, w->requests, n * sizeof(*ret));
	w->n = 0;
	update_least(&s->slow);
	slu_mutex_unlock(&s->slow.lock);
	return n;
}
