/* SPDX-License-Identifier: MIT */
/*
 * Writeback: its threads, its beginning and end, and the calls that others wait in.
 *
 * Called by the stack's builder, by fsync and sync, by claims that need pages. Owns the threads and
 * all slots. Takes wb->lock, a leaf; waits for I/O with no lock held. After slu_writeback_new
 * nothing here allocates.
 */
#include "writeback_private.h"
#include <string.h>

static void thread_main(void *arg) SLU_NO_TSA
{
	struct wb_thread *t = arg;
	struct slu_writeback *wb = t->wb;

	slu_mutex_lock(&wb->lock);
	while (!wb->stop) {
		struct slu_aspace *as = queue_pick(wb, slu_clock_ns());

		if (!as) {
			(void)slu_cond_timedwait(&wb->work, &wb->lock, wb->wake_ns);
			continue;
		}
		queue_hold(as);
		as->busy = true;
		slu_mutex_unlock(&wb->lock);
		(void)pass_run(wb, &t->slots, as, 0, UINT64_MAX, false);
		slu_mutex_lock(&wb->lock);
		as->busy = false;
		queue_release(wb, as, true);
		slu_mutex_lock(&wb->lock);
	}
	slu_mutex_unlock(&wb->lock);
}

static void threads_stop(struct slu_writeback *wb)
{
	slu_mutex_lock(&wb->lock);
	wb->stop = true;
	slu_cond_broadcast(&wb->work);
	slu_mutex_unlock(&wb->lock);
	for (unsigned int i = 0; i < wb->nthreads; i++) {
		slu_thread_join(&wb->threads[i].thread);
		slots_fini(&wb->threads[i].slots);
	}
}

static void wb_destroy(struct slu_writeback *wb)
{
	slots_fini(&wb->callers);
	slu_cond_fini(&wb->idle);
	slu_cond_fini(&wb->work);
	slu_mutex_fini(&wb->lock);
	slu_free(wb);
}

int slu_writeback_new(struct slu_cache *cache, struct slu_blockio *bio,
		      const struct slu_writeback_opts *opts, struct slu_writeback **ret)
{
	static const struct slu_cache_hooks hooks = {.kick = queue_kick, .detach = queue_detach};
	unsigned int n = opts->nthreads ? opts->nthreads : 2;
	struct slu_writeback *wb;
	char name[24];
	int err;

	if (n > MAX_THREADS)
		return -EINVAL;
	wb = slu_zalloc(sizeof(*wb));
	if (!wb)
		return -ENOMEM;
	wb->cache = cache;
	wb->bio = bio;
	wb->events = opts->events;
	wb->age_ns = opts->dirty_age_ns ? opts->dirty_age_ns : DIRTY_AGE_NS;
	wb->background = slu_cache_dirty_limit(cache) / 4;
	slu_mutex_init(&wb->lock, SLU_RANK_LEAF, SLU_LEAF_WRITEBACK, "writeback");
	slu_cond_init(&wb->work);
	slu_cond_init(&wb->idle);
	err = slots_init(&wb->callers, CALLER_SLOTS);
	for (unsigned int i = 0; !err && i < n; i++) {
		struct wb_thread *t = &wb->threads[i];

		t->wb = wb;
		err = slots_init(&t->slots, THREAD_SLOTS);
		if (err)
			break;
		snprintf(name, sizeof(name), "writeback%u", i);
		err = slu_thread_start(&t->thread, name, thread_main, t);
		if (err)
			slots_fini(&t->slots);
		else
			wb->nthreads++;
	}
	if (err) {
		threads_stop(wb);
		wb_destroy(wb);
		return err;
	}
	slu_cache_set_hooks(cache, &hooks, wb);
	*ret = wb;
	return 0;
}

/* ------------------------------------------------------------------ the calls that wait */

/* One past the last page of [first, end) that is dirty or under writeback now. */
static uint64_t last_dirty(struct slu_aspace *as, uint64_t first, uint64_t end)
{
	const struct slu_ranges *sets[] = {&as->dirty, &as->writeback};
	uint64_t last = first;

	slu_mutex_lock(&as->tags);
	for (size_t i = 0; i < slu_array_size(sets); i++) {
		struct slu_range r;

		for (uint64_t at = first; slu_ranges_at_or_after(sets[i], at, &r) && r.start < end;
		     at = r.end)
			last = slu_max(last, slu_min(r.end, end));
	}
	slu_mutex_unlock(&as->tags);
	return last;
}

/* As slu_writeback_range, in pages, the inode being held. */
static int range_run(struct slu_writeback *wb, struct slu_aspace *as, uint64_t first, uint64_t end)
{
	uint64_t before = slu_aspace_error_sample(as);
	int err;

	/* What is appended from now on is not waited for. */
	end = last_dirty(as, first, end);
	err = pass_run(wb, &wb->callers, as, first, end, true);
	/* Runs of the threads that had started before. */
	slu_pages_wait(as, first, end);
	if (!err)
		err = slu_aspace_error_check(as, &before);
	return err;
}

int slu_writeback_range(struct slu_writeback *wb, struct slu_aspace *as, uint64_t pos,
			uint64_t end) SLU_NO_TSA
{
	uint64_t last = slu_bytes_to_blocks(end);
	int err;

	slu_assert_no_locks("writeback of a range");
	if (pos >= end)
		return 0;
	slu_mutex_lock(&wb->lock);
	queue_hold(as);
	slu_mutex_unlock(&wb->lock);
	err = range_run(wb, as, pos >> SLU_BLOCK_SHIFT, last);
	slu_mutex_lock(&wb->lock);
	queue_release(wb, as, pos == 0 && end == UINT64_MAX);
	return err;
}

int slu_writeback_all(struct slu_writeback *wb) SLU_NO_TSA
{
	struct slu_aspace *as;
	uint64_t round, now;
	int err, first_err = 0;

	slu_assert_no_locks("writeback of everything");
	slu_mutex_lock(&wb->lock);
	while (wb->all_busy && !slu_mutant(SYNCS_OVERTAKE))
		slu_cond_wait(&wb->idle, &wb->lock);
	wb->all_busy = true;
	round = ++wb->round;
	now = slu_clock_ns();
	while ((as = queue_next(wb, now, round))) {
		as->wb_round = round;
		queue_hold(as);
		slu_mutex_unlock(&wb->lock);
		err = range_run(wb, as, 0, UINT64_MAX >> SLU_BLOCK_SHIFT);
		if (!first_err)
			first_err = err;
		slu_mutex_lock(&wb->lock);
		queue_release(wb, as, true);
		slu_mutex_lock(&wb->lock);
	}
	wb->all_busy = false;
	slu_cond_broadcast(&wb->idle);
	slu_mutex_unlock(&wb->lock);
	return first_err;
}

struct slu_blockio *slu_writeback_blockio(const struct slu_writeback *wb)
{
	return wb->bio;
}

const struct slu_writeback_stats *slu_writeback_stats(const struct slu_writeback *wb)
{
	return &wb->stats;
}

/* ------------------------------------------------------------------ the end */

/* Names what could not be written, range by range, and drops it. Nobody uses the inode any more. */
static void lose(struct slu_writeback *wb, struct slu_aspace *as)
{
	struct slu_range r;

	while (slu_ranges_at_or_after(&as->dirty, 0, &r)) {
		struct slu_event ev = {
			.kind = SLU_EVENT_DATA_LOST,
			.error = -(int)(uint32_t)as->wb_error,
			.ino = as->ino,
			.pos = r.start << SLU_BLOCK_SHIFT,
			.len = (r.end - r.start) << SLU_BLOCK_SHIFT,
		};

		slu_event_post(&wb->events, &ev);
		(void)slu_pages_drop(as, r.start, r.end); /* no run is in flight any more */
	}
	/* What lies under MAPPED and UNWRITTEN stays as it was. */
	as->backend->ops->forget(as->backend);
	slu_aspace_forget(as, 0, UINT64_MAX);
}

int slu_writeback_free(struct slu_writeback *wb) SLU_NO_TSA
{
	struct slu_aspace *as;
	int err;

	if (!wb)
		return 0;
	threads_stop(wb);
	err = slu_writeback_all(wb);
	slu_mutex_lock(&wb->lock);
	while ((as = queue_next(wb, UINT64_MAX, UINT64_MAX))) {
		queue_hold(as);
		slu_mutex_unlock(&wb->lock);
		lose(wb, as);
		slu_mutex_lock(&wb->lock);
		queue_release(wb, as, true);
		slu_mutex_lock(&wb->lock);
	}
	slu_mutex_unlock(&wb->lock);
	slu_cache_set_hooks(wb->cache, NULL, NULL);
	wb_destroy(wb);
	return err;
}
