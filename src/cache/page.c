/* SPDX-License-Identifier: MIT */
/*
 * Pages: which descriptor is which page, their lock bits, and the swap that publishes a frame.
 *
 * Owns the hash. Called by the write and read paths and by writeback. Takes stripe locks (leaves)
 * and, for the swap, page locks; waits for a page lock or for a read without any stripe lock. Never
 * does I/O, never allocates.
 *
 * A page is found, referenced and its frame looked at under one stripe lock, and every swap of a
 * frame happens under that lock too, so a reader that looks a page up cannot meet a torn pair of
 * page and frame. Only who had to wait for a page (slu_page_wait_read) looks at its frame without
 * the lock, and therefore checks afterwards that it is still the page's: SLU_CACHE's counter
 * torn_retries.
 *
 * A frame's content is written before the swap and read after the look-up; the stripe lock orders
 * the two.
 */
#include "cache_private.h"
#include <limits.h>
#include <string.h>

/* ------------------------------------------------------------------ state word */

void page_change(struct slu_page *page, uint32_t set, uint32_t clear)
{
	uint32_t old = slu_page_state(page), new;

	/* Who sleeps on the word sleeps on its whole value: any change worth a look wakes all. */
	do {
		new = (old | set) & ~(clear | SLU_PAGE_WAITERS);
	} while (!atomic_compare_exchange_weak_explicit(&page->state, &old, new,
							memory_order_acq_rel,
							memory_order_acquire));
	if (old & SLU_PAGE_WAITERS)
		slu_word_wake(&page->state, INT_MAX);
}

/* Sleeps until one of `bits` may have changed; state is what was seen last. */
static void page_sleep(struct slu_page *page, uint32_t state)
{
	uint32_t waits = state | SLU_PAGE_WAITERS;

	if (state == waits ||
	    atomic_compare_exchange_strong_explicit(&page->state, &state, waits,
						    memory_order_relaxed, memory_order_relaxed))
		slu_word_wait(&page->state, waits, SLU_NO_DEADLINE);
}

void slu_page_lock_at(struct slu_page *page, const char *site)
{
	uint32_t state = slu_page_state(page);

	slu_rank_acquire(SLU_RANK_PAGE, slu_page_index(page), page, site);
	for (;;) {
		if (state & SLU_PAGE_LOCKED) {
			page_sleep(page, state);
			state = slu_page_state(page);
		} else if (atomic_compare_exchange_weak_explicit(&page->state, &state,
								 state | SLU_PAGE_LOCKED,
								 memory_order_acquire,
								 memory_order_relaxed)) {
			return;
		}
	}
}

static bool page_trylock(struct slu_page *page)
{
	uint32_t state = slu_page_state(page);

	while (!(state & SLU_PAGE_LOCKED)) {
		if (atomic_compare_exchange_weak_explicit(&page->state, &state,
							  state | SLU_PAGE_LOCKED,
							  memory_order_acquire,
							  memory_order_relaxed))
			return true;
	}
	return false;
}

bool slu_page_trylock(struct slu_page *page)
{
	if (!page_trylock(page))
		return false;
	slu_rank_acquired_try(SLU_RANK_PAGE, slu_page_index(page), page, SLU_HERE);
	return true;
}

void slu_page_unlock(struct slu_page *page)
{
	slu_assert(slu_page_state(page) & SLU_PAGE_LOCKED);
	slu_rank_release(page);
	page_change(page, 0, SLU_PAGE_LOCKED);
}

void slu_page_uptodate(struct slu_page *page)
{
	slu_assert(slu_page_state(page) & SLU_PAGE_LOCKED);
	page_change(page, SLU_PAGE_UPTODATE, 0);
}

/* ------------------------------------------------------------------ hash */

struct slu_page *hash_find(struct slu_cache *c, uint32_t bucket, uint64_t ino, uint64_t pgidx)
{
	uint32_t i = c->buckets[bucket];

	while (i != SLU_PAGE_NONE) {
		struct slu_page *page = page_at(c, i);

		if (slu_page_index(page) == pgidx &&
		    atomic_load_explicit(&page->ino, memory_order_relaxed) == ino)
			return page;
		i = page->hash_next;
	}
	return NULL;
}

bool hash_remove(struct slu_cache *c, uint32_t bucket, struct slu_page *page)
{
	uint32_t number = page_number(c, page);
	uint32_t *link = &c->buckets[bucket];

	while (*link != SLU_PAGE_NONE) {
		if (*link == number) {
			*link = page->hash_next;
			return true;
		}
		link = &page_at(c, *link)->hash_next;
	}
	return false;
}

/* A new page with one reference. Its stripe lock is held. */
static struct slu_page *hash_insert(struct slu_aspace *as, struct slu_frames *fr, uint32_t bucket,
				    uint64_t pgidx, uint32_t frame, uint32_t state)
{
	struct slu_cache *c = as->cache;
	struct slu_page *page = ticket_page(fr);
	uint32_t number = page_number(c, page);

	atomic_store_explicit(&page->pgidx, pgidx, memory_order_relaxed);
	atomic_store_explicit(&page->state, state, memory_order_relaxed);
	atomic_store_explicit(&page->frame, frame, memory_order_relaxed);
	atomic_store_explicit(&page->refs, 1, memory_order_relaxed);
	page->listed = 0;
	c->owners[number] = as;
	/* A successor believes what it sees here. */
	atomic_store_explicit(&page->ino, as->ino, memory_order_release);
	page->hash_next = c->buckets[bucket];
	c->buckets[bucket] = number;
	return page;
}

bool page_unhash(struct slu_cache *c, struct slu_page *page, uint32_t set)
{
	uint64_t ino = atomic_load_explicit(&page->ino, memory_order_relaxed);
	uint32_t bucket = bucket_of(c, ino, slu_page_index(page));
	struct slu_mutex *stripe = stripe_of(c, bucket);
	bool was_in;

	slu_mutex_lock(stripe);
	was_in = hash_remove(c, bucket, page);
	if (was_in) {
		atomic_fetch_or_explicit(&page->refs, SLU_PAGE_DEAD, memory_order_relaxed);
		page_change(page, SLU_PAGE_GONE | set, SLU_PAGE_READING);
	}
	slu_mutex_unlock(stripe);
	return was_in;
}

struct slu_page *slu_page_find(struct slu_aspace *as, uint64_t pgidx)
{
	struct slu_cache *c = as->cache;
	uint32_t bucket = bucket_of(c, as->ino, pgidx);
	struct slu_mutex *stripe = stripe_of(c, bucket);
	struct slu_page *page;

	slu_mutex_lock(stripe);
	page = hash_find(c, bucket, as->ino, pgidx);
	if (page)
		atomic_fetch_add_explicit(&page->refs, 1, memory_order_relaxed);
	slu_mutex_unlock(stripe);
	return page;
}

void slu_page_put(struct slu_cache *c, struct slu_page *page)
{
	uint32_t old = atomic_fetch_sub_explicit(&page->refs, 1, memory_order_acq_rel);

	slu_assert(old & ~SLU_PAGE_DEAD);
	if (old != (SLU_PAGE_DEAD | 1))
		return;
	slu_assert(!page->listed);
	atomic_store_explicit(&page->ino, 0, memory_order_release);
	slu_frame_put(c, atomic_load_explicit(&page->frame, memory_order_relaxed));
	pages_push(c, page);
}

/* ------------------------------------------------------------------ readers */

uint32_t slu_pages_lookup(struct slu_aspace *as, uint64_t pgidx, uint32_t n, uint32_t *frames,
			  struct slu_page **pages) SLU_NO_TSA
{
	struct slu_cache *c = as->cache;
	struct slu_mutex *stripe = NULL;
	uint32_t missing = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t bucket = bucket_of(c, as->ino, pgidx + i);
		struct slu_page *page;
		uint32_t state;

		if (!stripe || ((pgidx + i) & (GROUP_PAGES - 1)) == 0) {
			if (stripe)
				slu_mutex_unlock(stripe);
			stripe = stripe_of(c, bucket);
			slu_mutex_lock(stripe);
		}
		frames[i] = SLU_FRAME_NONE;
		pages[i] = NULL;
		page = hash_find(c, bucket, as->ino, pgidx + i);
		if (!page) {
			missing++;
			continue;
		}
		state = slu_page_state(page);
		if (state & SLU_PAGE_UPTODATE) {
			frames[i] = atomic_load_explicit(&page->frame, memory_order_relaxed);
			slu_frame_get(c, frames[i]);
			if (!(state & SLU_PAGE_ACCESSED))
				atomic_fetch_or_explicit(&page->state, SLU_PAGE_ACCESSED,
							 memory_order_relaxed);
		} else {
			atomic_fetch_add_explicit(&page->refs, 1, memory_order_relaxed);
			pages[i] = page;
		}
	}
	if (stripe)
		slu_mutex_unlock(stripe);
	atomic_fetch_add_explicit(&c->stats.misses, missing, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->stats.hits, n - missing, memory_order_relaxed);
	return missing;
}

int slu_page_wait_read(struct slu_cache *c, struct slu_page *page, uint32_t *ret_frame)
{
	uint32_t state = slu_page_state(page), frame, refs;

	slu_assert_no_locks("a page being read");
	while (!(state & (SLU_PAGE_UPTODATE | SLU_PAGE_GONE))) {
		page_sleep(page, state);
		state = slu_page_state(page);
	}
	if (state & SLU_PAGE_GONE)
		return state & SLU_PAGE_READ_FAILED ? -EIO : -EAGAIN;

	slu_stress_point("read.before_frame");
	frame = atomic_load_explicit(&page->frame, memory_order_acquire);
	refs = atomic_load_explicit(&c->frame_refs[frame], memory_order_relaxed);
	do {
		if (!refs)
			goto torn;
	} while (!atomic_compare_exchange_weak_explicit(&c->frame_refs[frame], &refs, refs + 1,
							memory_order_acquire,
							memory_order_relaxed));
	if (atomic_load_explicit(&page->frame, memory_order_acquire) == frame &&
	    !(slu_page_state(page) & SLU_PAGE_GONE)) {
		*ret_frame = frame;
		return 0;
	}
	slu_frame_put(c, frame);
torn:
	atomic_fetch_add_explicit(&c->stats.torn_retries, 1, memory_order_relaxed);
	return -EAGAIN;
}

/* ------------------------------------------------------------------ reading in */

bool slu_page_insert_reading(struct slu_aspace *as, struct slu_frames *fr, uint64_t pgidx,
			     struct slu_page **ret)
{
	struct slu_cache *c = as->cache;
	uint32_t bucket = bucket_of(c, as->ino, pgidx);
	struct slu_mutex *stripe = stripe_of(c, bucket);
	struct slu_page *page;

	slu_mutex_lock(stripe);
	page = hash_find(c, bucket, as->ino, pgidx);
	if (page) {
		atomic_fetch_add_explicit(&page->refs, 1, memory_order_relaxed);
		slu_mutex_unlock(stripe);
		*ret = page;
		return false;
	}
	page = hash_insert(as, fr, bucket, pgidx, slu_frames_take(fr),
			   SLU_PAGE_READING | SLU_PAGE_ACCESSED);
	slu_mutex_unlock(stripe);

	slu_mutex_lock(&as->tags);
	list_add(as, page);
	slu_mutex_unlock(&as->tags);
	*ret = page;
	return true;
}

void slu_page_read_done(struct slu_aspace *as, struct slu_page *page, int result)
{
	struct slu_cache *c = as->cache;
	uint32_t bucket = bucket_of(c, as->ino, slu_page_index(page));
	struct slu_mutex *stripe = stripe_of(c, bucket);
	bool failed = false;

	slu_mutex_lock(stripe);
	/* Whoever published or removed it meanwhile has cleared READING, and has won. */
	if (slu_page_state(page) & SLU_PAGE_READING) {
		failed = result < 0;
		if (!failed) {
			page_change(page, SLU_PAGE_UPTODATE, SLU_PAGE_READING);
		} else {
			hash_remove(c, bucket, page);
			atomic_fetch_or_explicit(&page->refs, SLU_PAGE_DEAD, memory_order_relaxed);
			page_change(page, SLU_PAGE_GONE | SLU_PAGE_READ_FAILED, SLU_PAGE_READING);
		}
	}
	slu_mutex_unlock(stripe);
	if (failed) {
		slu_mutex_lock(&as->tags);
		list_del(as, page);
		slu_mutex_unlock(&as->tags);
	}
	slu_page_put(c, page);
}

/* ------------------------------------------------------------------ the locked tail */

struct slu_page *slu_page_insert_locked(struct slu_aspace *as, struct slu_frames *fr,
					uint64_t pgidx)
{
	struct slu_cache *c = as->cache;
	uint32_t bucket = bucket_of(c, as->ino, pgidx);
	struct slu_mutex *stripe = stripe_of(c, bucket);
	struct slu_page *page;

	/* as->lock: nobody else inserts, so it is still not there, and nobody else locks it. */
	slu_mutex_lock(stripe);
	slu_assert(!hash_find(c, bucket, as->ino, pgidx));
	page = hash_insert(as, fr, bucket, pgidx, slu_frames_take(fr), SLU_PAGE_LOCKED);
	slu_mutex_unlock(stripe);
	slu_rank_acquire(SLU_RANK_PAGE, pgidx, page, SLU_HERE);
	atomic_fetch_add_explicit(&c->stats.tail_locks, 1, memory_order_relaxed);
	return page;
}

void slu_page_remove_locked(struct slu_aspace *as, struct slu_page *page)
{
	slu_assert(!page->listed);
	page_unhash(as->cache, page, 0);
	slu_page_unlock(page);
	slu_page_put(as->cache, page);
}

/* ------------------------------------------------------------------ publish */

/* The page lock and the stripe lock are held. */
static void page_swap(struct slu_aspace *as, struct slu_frames *fr, struct slu_page *page,
		      uint32_t frame)
{
	uint32_t old = atomic_exchange_explicit(&page->frame, frame, memory_order_acq_rel);

	page_change(page, SLU_PAGE_UPTODATE, SLU_PAGE_READING | SLU_PAGE_LOCKED);
	if (frame_unref(as->cache, old))
		ticket_add(fr, old);
}

/*
 * Its lock is somebody's: waits for that, with the stripe lock dropped, and swaps if the page is
 * still there. The stripe lock is held on entry and on return.
 */
static bool page_swap_slow(struct slu_aspace *as, struct slu_frames *fr, struct slu_page *page,
			   struct slu_mutex *stripe, uint32_t frame) SLU_NO_TSA
{
	slu_mutex_unlock(stripe);
	slu_page_lock(page);
	slu_rank_release(page);
	slu_mutex_lock(stripe);
	if (slu_page_state(page) & SLU_PAGE_GONE) {
		page_change(page, 0, SLU_PAGE_LOCKED);
		return false;
	}
	page_swap(as, fr, page, frame);
	return true;
}

static struct slu_page *publish_one(struct slu_aspace *as, struct slu_frames *fr,
				    struct slu_mutex *stripe, uint64_t pgidx,
				    uint32_t frame) SLU_NO_TSA
{
	struct slu_cache *c = as->cache;
	uint32_t bucket = bucket_of(c, as->ino, pgidx);

	for (;;) {
		struct slu_page *page = hash_find(c, bucket, as->ino, pgidx);

		if (!page)
			return hash_insert(as, fr, bucket, pgidx, frame, SLU_PAGE_UPTODATE);
		atomic_fetch_add_explicit(&page->refs, 1, memory_order_relaxed);
		if (page_trylock(page)) {
			page_swap(as, fr, page, frame);
			return page;
		}
		if (page_swap_slow(as, fr, page, stripe, frame))
			return page;
		slu_mutex_unlock(stripe);
		slu_page_put(c, page);
		slu_mutex_lock(stripe);
	}
}

void slu_pages_publish(struct slu_aspace *as, struct slu_frames *fr, uint64_t pgidx, uint32_t n,
		       const uint32_t *frames, struct slu_page **pages)
{
	struct slu_cache *c = as->cache;
	uint32_t i = 0;

	slu_stress_point("write.before_publish");
	while (i < n) {
		struct slu_mutex *stripe = stripe_of(c, bucket_of(c, as->ino, pgidx + i));

		slu_mutex_lock(stripe);
		do {
			pages[i] = publish_one(as, fr, stripe, pgidx + i, frames[i]);
		} while (++i < n && ((pgidx + i) & (GROUP_PAGES - 1)));
		slu_mutex_unlock(stripe);
	}
	atomic_fetch_add_explicit(&c->stats.publishes, n, memory_order_relaxed);
}
