/* SPDX-License-Identifier: MIT */
/*
 * The queue of inodes with dirty pages, oldest first, and who has one of them in hand.
 *
 * Owns the queue's members of struct slu_aspace. Called by the write path (dirtied), by threads and
 * callers of writeback, by the end of an inode. Takes wb->lock, a leaf, and under it as->tags.
 *
 * An inode is pinned through its owner from before its first page is dirty until a pass or whoever
 * dropped its pages has seen that nothing is dirty any more. The order that makes this safe: pin,
 * mark the pages dirty, slu_writeback_dirtied; and the look that ends it is made under wb->lock. A
 * look that misses the pages comes before the call of dirtied, which then queues the inode again.
 */
#include "writeback_private.h"

#define PUT_OFF_NS (10 * SLU_NS_PER_MS)

static struct wb_queue *queue_of(struct slu_writeback *wb, struct slu_aspace *as)
{
	return as->wb_failed ? &wb->failed : &wb->queue;
}

static void count(_Atomic uint64_t *gauge, int n)
{
	atomic_fetch_add_explicit(gauge, (uint64_t)n, memory_order_relaxed);
}

static void queue_add(struct slu_writeback *wb, struct slu_aspace *as)
{
	struct wb_queue *q;

	as->queued = true;
	as->wb_failed = as->retry_delay_ns != 0;
	q = queue_of(wb, as);
	as->wb_next = NULL;
	as->wb_prev = q->last;
	if (q->last)
		q->last->wb_next = as;
	else
		q->first = as;
	q->last = as;
	count(&wb->stats.queued, 1);
	count(&wb->stats.retrying, as->wb_failed);
	as->dirtied_ns = slu_clock_ns();
}

static void queue_del(struct slu_writeback *wb, struct slu_aspace *as)
{
	struct wb_queue *q = queue_of(wb, as);

	if (as->wb_next)
		as->wb_next->wb_prev = as->wb_prev;
	else
		q->last = as->wb_prev;
	if (as->wb_prev)
		as->wb_prev->wb_next = as->wb_next;
	else
		q->first = as->wb_next;
	as->queued = false;
	count(&wb->stats.queued, -1);
	count(&wb->stats.retrying, -(int)as->wb_failed);
}

static bool too_many_dirty(struct slu_writeback *wb)
{
	const struct slu_cache_stats *stats = slu_cache_stats(wb->cache);
	uint64_t dirty = atomic_load_explicit(&stats->dirty, memory_order_relaxed);

	return dirty > wb->background;
}

/* ------------------------------------------------------------------ dirtied, cleaned */

void slu_writeback_dirtied(struct slu_writeback *wb, struct slu_aspace *as)
{
	bool unpin = true, wake;

	slu_mutex_lock(&wb->lock);
	if (!as->pinned) {
		as->pinned = true;
		unpin = false;
	}
	if (!as->queued) {
		queue_add(wb, as);
		as->queued_ns = as->dirtied_ns;
	}
	/* A sleeper that looks again before this inode is due need not hear of it. */
	wake = as->dirtied_ns + wb->age_ns < wb->wake_ns ||
	       (!as->busy && !as->wb_failed && too_many_dirty(wb));
	if (wake)
		slu_cond_signal(&wb->work);
	slu_mutex_unlock(&wb->lock);
	if (unpin && as->owner)
		as->owner->unpin(as);
}

/* Off the queue and unpinned if nothing is dirty and nobody has it. Gives the lock up. */
static void queue_settle(struct slu_writeback *wb, struct slu_aspace *as)
	SLU_RELEASE(wb->lock) SLU_NO_TSA
{
	bool unpin = false;

	if (!as->wb_holds && !slu_aspace_dirty(as)) {
		if (as->queued)
			queue_del(wb, as);
		unpin = as->pinned;
		as->pinned = false;
		as->retry_delay_ns = as->retry_ns = 0;
	}
	slu_cond_broadcast(&wb->idle);
	slu_mutex_unlock(&wb->lock);
	if (unpin && as->owner)
		as->owner->unpin(as);
}

void slu_writeback_cleaned(struct slu_writeback *wb, struct slu_aspace *as) SLU_NO_TSA
{
	slu_mutex_lock(&wb->lock);
	queue_settle(wb, as);
}

/* ------------------------------------------------------------------ holds */

void queue_hold(struct slu_aspace *as)
{
	as->wb_holds++;
}

void queue_release(struct slu_writeback *wb, struct slu_aspace *as, bool whole) SLU_NO_TSA
{
	bool moves = as->wb_failed != (as->retry_delay_ns != 0);

	slu_assert(as->wb_holds);
	as->wb_holds--;
	/* After a pass over all of it, what is dirty became so during the pass, or failed. */
	if (as->queued && (whole || moves)) {
		queue_del(wb, as);
		queue_add(wb, as);
	}
	queue_settle(wb, as);
}

void queue_detach(void *ctx, struct slu_aspace *as)
{
	struct slu_writeback *wb = ctx;

	if (as->wb != wb)
		return;
	slu_mutex_lock(&wb->lock);
	while (as->wb_holds)
		slu_cond_wait(&wb->idle, &wb->lock);
	if (as->queued)
		queue_del(wb, as);
	as->pinned = false;
	slu_mutex_unlock(&wb->lock);
}

/* ------------------------------------------------------------------ who is next */

/* All that is dirty of it is being written by somebody else: it would only be passed over again. */
static bool put_off(struct slu_writeback *wb, const struct slu_aspace *as, uint64_t now)
{
	if (as->put_off_ns <= now)
		return false;
	wb->wake_ns = slu_min(wb->wake_ns, as->put_off_ns);
	return true;
}

void queue_put_off(struct slu_writeback *wb, struct slu_aspace *as)
{
	slu_mutex_lock(&wb->lock);
	as->put_off_ns = slu_clock_ns() + PUT_OFF_NS;
	slu_mutex_unlock(&wb->lock);
}

/* Failed ones have times of their own, however many pages are wanted. */
static struct slu_aspace *pick_failed(struct slu_writeback *wb, uint64_t now)
{
	for (struct slu_aspace *as = wb->failed.first; as; as = as->wb_next) {
		if (as->busy || put_off(wb, as, now))
			continue;
		if (as->retry_ns <= now)
			return as;
		wb->wake_ns = slu_min(wb->wake_ns, as->retry_ns);
	}
	return NULL;
}

struct slu_aspace *queue_pick(struct slu_writeback *wb, uint64_t now)
{
	struct slu_aspace *as;
	uint64_t due;

	wb->wake_ns = SLU_NO_DEADLINE;
	as = pick_failed(wb, now);
	if (as)
		return as;
	/* Not more than one for each thread: who has it looks again when it is done. */
	for (as = wb->queue.first; as && (as->busy || put_off(wb, as, now)); as = as->wb_next)
		;
	if (!as)
		return NULL;
	due = as->dirtied_ns + wb->age_ns;
	if (due <= now || as->dirtied_ns <= wb->kick_ns || too_many_dirty(wb))
		return as;
	wb->wake_ns = slu_min(wb->wake_ns, due);
	return NULL;
}

struct slu_aspace *queue_next(struct slu_writeback *wb, uint64_t now, uint64_t round)
{
	const struct wb_queue *queues[] = {&wb->queue, &wb->failed};

	for (size_t i = 0; i < slu_array_size(queues); i++)
		for (struct slu_aspace *as = queues[i]->first; as; as = as->wb_next)
			if (as->wb_round < round && as->queued_ns <= now)
				return as;
	return NULL;
}

void queue_kick(void *ctx)
{
	slu_writeback_kick(ctx);
}

void slu_writeback_kick(struct slu_writeback *wb)
{
	slu_mutex_lock(&wb->lock);
	wb->kick_ns = slu_clock_ns();
	slu_cond_broadcast(&wb->work);
	slu_mutex_unlock(&wb->lock);
}

/* ------------------------------------------------------------------ recording */

void queue_record_begin(struct slu_writeback *wb, struct slu_aspace *as)
{
	slu_assert_no_locks("the record of an inode");
	slu_mutex_lock(&wb->lock);
	while (as->recording)
		slu_cond_wait(&wb->idle, &wb->lock);
	as->recording = true;
	slu_mutex_unlock(&wb->lock);
}

void queue_record_end(struct slu_writeback *wb, struct slu_aspace *as)
{
	slu_mutex_lock(&wb->lock);
	as->recording = false;
	slu_cond_broadcast(&wb->idle);
	slu_mutex_unlock(&wb->lock);
}

void queue_failed(struct slu_writeback *wb, struct slu_aspace *as)
{
	slu_mutex_lock(&wb->lock);
	as->retry_delay_ns =
		as->retry_delay_ns ? slu_min(as->retry_delay_ns * 2, RETRY_MAX_NS) : RETRY_MIN_NS;
	as->retry_ns = slu_clock_ns() + as->retry_delay_ns;
	slu_mutex_unlock(&wb->lock);
}

void queue_healed(struct slu_writeback *wb, struct slu_aspace *as)
{
	uint32_t nfailed;

	slu_mutex_lock(&wb->lock);
	if (as->retry_delay_ns) {
		slu_mutex_lock(&as->tags);
		nfailed = as->nfailed;
		slu_mutex_unlock(&as->tags);
		if (!nfailed) {
			as->retry_delay_ns = as->retry_ns = 0;
			atomic_fetch_add_explicit(&wb->stats.retries, 1, memory_order_relaxed);
		}
	}
	slu_mutex_unlock(&wb->lock);
}
