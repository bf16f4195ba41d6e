/* SPDX-License-Identifier: MIT */
/*
 * Tags: which pages of an inode are dirty, which are being written, and how much of the file is on
 * disk.
 *
 * Owns DIRTY, WRITEBACK and ERROR of the pages and the ranges `dirty`, `writeback` and `unsynced`
 * of the address space, which change together here and nowhere else. Called by write (set_dirty,
 * drop) and writeback (start, end). Takes as->tags, a leaf; before it, for disk_size, the backend's
 * lock. Never waits but in slu_pages_wait, never fails: range nodes were made ready beforehand
 * (slu_cache_fill_ranges).
 *
 * Writeback needs no page lock: the mark is set on the whole run in one section, and the frame is
 * taken after DIRTY was cleared. A writer swaps its frame in before it sets DIRTY. So either
 * writeback sees the new frame, or the page is dirty again, and a frame does not change while it is
 * referenced.
 *
 * disk_size. A byte that is new to the file and beyond the size on disk is in `unsynced` from the
 * moment its page is dirty until a frame that holds it has been written. Marking the pages, adding the
 * bytes and moving the size is one step under tags; a run remembers the size at its start, before it
 * takes its frames: what that size covers is in those frames. What was added to the last page later has
 * made that page dirty again. A truncate waits for runs from the page with the new end on, and for the
 * record of a size: what they know of the size would be wrong when the file grows again.
 */
#include "cache_private.h"

#define DROP_BATCH 256u

static uint64_t page_pos(uint64_t pgidx)
{
	return pgidx > UINT64_MAX >> SLU_BLOCK_SHIFT ? UINT64_MAX : pgidx << SLU_BLOCK_SHIFT;
}

static void must_set(struct slu_ranges *s, uint64_t start, uint64_t end, uint64_t value)
{
	int err = slu_ranges_set(s, start, end, value);

	slu_assert(!err);
}

static void must_clear(struct slu_ranges *s, uint64_t start, uint64_t end)
{
	int err = slu_ranges_clear(s, start, end);

	slu_assert(!err);
}

int slu_cache_fill_ranges(struct slu_cache *c)
{
	/*
	 * An operation takes at most eight nodes between two calls of this, so five hundred of them
	 * at once do not run out of what one of them has made sure of.
	 */
	return slu_range_pool_fill(&c->ranges, SLU_CACHE_SPARE_RANGES);
}

/* ------------------------------------------------------------------ the list of pages */

void list_add(struct slu_aspace *as, struct slu_page *page)
{
	struct slu_cache *c = as->cache;

	slu_assert(!page->listed);
	page->listed = 1;
	page->list_prev = SLU_PAGE_NONE;
	page->list_next = as->first_page;
	if (as->first_page != SLU_PAGE_NONE)
		page_at(c, as->first_page)->list_prev = page_number(c, page);
	as->first_page = page_number(c, page);
	as->npages++;
	atomic_fetch_add_explicit(&c->stats.pages, 1, memory_order_relaxed);
}

void list_del(struct slu_aspace *as, struct slu_page *page)
{
	struct slu_cache *c = as->cache;

	/* Eviction, a failed read and drop may meet on one page. */
	if (!page->listed)
		return;
	page->listed = 0;
	if (page->list_next != SLU_PAGE_NONE)
		page_at(c, page->list_next)->list_prev = page->list_prev;
	if (page->list_prev != SLU_PAGE_NONE)
		page_at(c, page->list_prev)->list_next = page->list_next;
	else
		as->first_page = page->list_next;
	as->npages--;
	atomic_fetch_sub_explicit(&c->stats.pages, 1, memory_order_relaxed);
}

static void wake_waiters(struct slu_aspace *as)
{
	if (as->nwaiters)
		slu_cond_broadcast(&as->wait);
}

static uint64_t disk_size_get(struct slu_aspace *as)
{
	uint64_t disk_size;

	slu_mutex_lock(&as->backend->lock);
	disk_size = as->disk_size;
	slu_mutex_unlock(&as->backend->lock);
	return disk_size;
}

/* ------------------------------------------------------------------ awaited */

/*
 * The kernel sends the pages of its write-back cache in the order of the file, several requests at
 * a time, and they get here in any order: one may wait for memory while the next is on disk
 * already. If the size on disk went along, a crash would leave zeros that nobody has written.
 */

#define AWAITED_MOST 64u /* ranges of one inode; then the last one grows, over what has come too */

/* The first range that is not settled and ends after pos. as->tags. */
static bool first_awaited(struct slu_aspace *as, uint64_t pos, struct slu_range *ret)
{
	uint64_t settled = atomic_load(&as->cache->settled_ns);

	while (slu_ranges_at_or_after(&as->awaited, pos, ret)) {
		if (ret->value > settled)
			return true;
		must_clear(&as->awaited, ret->start, ret->end);
	}
	return false;
}

/* Now, and later than all others. */
static uint64_t awaited_stamp(struct slu_cache *c)
{
	uint64_t newest = atomic_load(&c->awaited_ns), stamp;

	do {
		stamp = slu_max(slu_clock_ns(), newest + 1);
	} while (!atomic_compare_exchange_weak(&c->awaited_ns, &newest, stamp));
	return stamp;
}

void slu_aspace_await(struct slu_aspace *as, uint64_t pos)
{
	uint64_t size = slu_aspace_size(as), stamp;

	if (pos <= size || slu_mutant(NO_AWAIT))
		return;
	stamp = awaited_stamp(as->cache);
	slu_mutex_lock(&as->tags);
	if (as->awaited.count < AWAITED_MOST || as->awaited_last > size) {
		as->awaited_last = size;
		as->awaited_last_ns = stamp;
	}
	/* When the last one grows, a sync that settles it has promised the bytes behind it. */
	must_set(&as->awaited, as->awaited_last, pos, as->awaited_last_ns);
	slu_mutex_unlock(&as->tags);
}

void slu_aspace_arrived(struct slu_aspace *as, uint64_t pos, uint64_t end)
{
	slu_mutex_lock(&as->tags);
	if (!slu_ranges_empty(&as->awaited))
		must_clear(&as->awaited, pos, end);
	slu_mutex_unlock(&as->tags);
}

bool slu_aspace_awaits(struct slu_aspace *as)
{
	struct slu_range r;
	bool awaits;

	slu_mutex_lock(&as->tags);
	awaits = first_awaited(as, 0, &r);
	slu_mutex_unlock(&as->tags);
	return awaits;
}

void slu_aspace_settle(struct slu_aspace *as)
{
	slu_mutex_lock(&as->tags);
	must_clear(&as->awaited, 0, UINT64_MAX);
	slu_mutex_unlock(&as->tags);
}

void slu_cache_settle(struct slu_cache *c, uint64_t since)
{
	uint64_t settled = atomic_load(&c->settled_ns);

	while (settled < since && !atomic_compare_exchange_weak(&c->settled_ns, &settled, since))
		;
}

uint64_t slu_cache_awaited_ns(struct slu_cache *c)
{
	return atomic_load(&c->awaited_ns);
}

/* ------------------------------------------------------------------ dirty */

/*
 * The first byte of a write up to `end`, from a page on, that is to be on disk before the size there
 * passes it; end if none is. Not what was in the file before: a sync that is under way has promised
 * what it was, on disk already or a hole. Unless it is awaited: then it belongs to what came before
 * it. as->tags.
 */
static uint64_t first_unsynced(struct slu_aspace *as, uint64_t pgidx, uint64_t end,
			       uint64_t disk_size)
{
	uint64_t from = slu_max(page_pos(pgidx), slu_aspace_size(as));
	struct slu_range r;

	if (first_awaited(as, page_pos(pgidx), &r))
		from = slu_min(from, slu_max(page_pos(pgidx), r.start));
	return slu_min(end, slu_max(from, disk_size));
}

void slu_pages_set_dirty(struct slu_aspace *as, struct slu_frames *fr, struct slu_page **pages,
			 uint32_t n, uint64_t pos, uint64_t end, uint64_t new_size)
{
	struct slu_cache *c = as->cache;
	uint64_t first = slu_page_index(pages[0]), disk_size = disk_size_get(as), from;
	uint32_t room = 0, newly = 0;

	slu_assert(n && pos < end && pos >> SLU_BLOCK_SHIFT == first);
	slu_mutex_lock(&as->tags);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t old = atomic_fetch_or_explicit(&pages[i]->state, SLU_PAGE_DIRTY,
							memory_order_relaxed);

		slu_assert((old & (SLU_PAGE_UPTODATE | SLU_PAGE_GONE)) == SLU_PAGE_UPTODATE);
		if (!pages[i]->listed)
			list_add(as, pages[i]);
		newly += !(old & SLU_PAGE_DIRTY);
		room += !(old & (SLU_PAGE_DIRTY | SLU_PAGE_WRITEBACK));
	}
	must_set(&as->dirty, first, first + n, 0);
	from = first_unsynced(as, first, end, disk_size);
	if (from < end)
		must_set(&as->unsynced, from, end, 0);
	if (new_size > slu_aspace_size(as))
		slu_aspace_set_size(as, new_size);
	atomic_fetch_add_explicit(&c->stats.dirty, newly, memory_order_relaxed);
	slu_mutex_unlock(&as->tags);

	slu_assert(room <= fr->dirty);
	fr->dirty -= room;
	for (uint32_t i = 0; i < n; i++)
		slu_page_put(c, pages[i]);
}

bool slu_aspace_dirty(struct slu_aspace *as)
{
	bool dirty;

	slu_mutex_lock(&as->tags);
	dirty = !slu_ranges_empty(&as->dirty) || !slu_ranges_empty(&as->writeback);
	slu_mutex_unlock(&as->tags);
	return dirty;
}

/* ------------------------------------------------------------------ a cut */

bool slu_aspace_cut_begin(struct slu_aspace *as, uint64_t first, uint64_t end, bool shrinks)
{
	struct slu_range r;
	bool busy;

	slu_mutex_lock(&as->tags);
	busy = (shrinks && as->size_moving) ||
	       (slu_ranges_at_or_after(&as->writeback, first, &r) && r.start < end);
	if (!busy)
		as->cut_first = first;
	slu_mutex_unlock(&as->tags);
	return !busy;
}

void slu_aspace_cut_end(struct slu_aspace *as)
{
	slu_mutex_lock(&as->tags);
	as->cut_first = UINT64_MAX;
	wake_waiters(as);
	slu_mutex_unlock(&as->tags);
}

/* Whoever holds as->lock for it waits for nothing, so this is short. as->tags. */
static void wait_for_cut(struct slu_aspace *as, uint64_t end) SLU_REQUIRES(as->tags)
{
	as->nwaiters++;
	while (as->cut_first < end)
		slu_cond_wait(&as->wait, &as->tags);
	as->nwaiters--;
}

/* ------------------------------------------------------------------ writeback */

/*
 * The first candidates at or after *pgidx: dirty by the ranges and not under writeback. Number of
 * pages; 0 with *pgidx == end: none; 0 with *pgidx < end: that page is both, and `stop` was asked
 * for. as->tags.
 */
static uint64_t find_run(struct slu_aspace *as, uint64_t *pgidx, uint64_t end, uint32_t max,
			 bool stop)
{
	struct slu_range dirty, wb;
	uint64_t at = *pgidx, n;

	for (;;) {
		if (at >= end || !slu_ranges_at_or_after(&as->dirty, at, &dirty) ||
		    dirty.start >= end) {
			*pgidx = end;
			return 0;
		}
		at = slu_max(at, dirty.start);
		n = slu_min(slu_min(dirty.end, end) - at, (uint64_t)max);
		if (!slu_ranges_at_or_after(&as->writeback, at, &wb) || wb.start >= at + n)
			break;
		if (wb.start > at) {
			n = wb.start - at;
			break;
		}
		if (stop) {
			*pgidx = at;
			return 0;
		}
		at = wb.end;
	}
	*pgidx = at;
	return n;
}

/* Marks as many of the candidates as still can be; how many. as->tags. */
static uint32_t mark_run(struct slu_aspace *as, uint64_t pgidx, struct slu_page **pages, uint32_t n,
			 uint32_t max_failed)
{
	struct slu_cache *c = as->cache;
	uint32_t failed = 0, marked;
	struct slu_range dirty;

	/* Of what was found without the lock since, truncate may be dropping a part, or about to. */
	if (!slu_ranges_find(&as->dirty, pgidx, &dirty) || as->cut_first <= pgidx)
		return 0;
	n = (uint32_t)slu_min(slu_min(dirty.end, as->cut_first) - pgidx, (uint64_t)n);
	for (marked = 0; marked < n; marked++) {
		struct slu_page *page = pages[marked];
		uint32_t state = page ? slu_page_state(page) : 0;

		/* Dropped meanwhile, or started by another pass. */
		if (!(state & SLU_PAGE_DIRTY) || (state & (SLU_PAGE_WRITEBACK | SLU_PAGE_GONE)))
			break;
		if (marked && !(state & SLU_PAGE_ERROR) != !failed)
			break;
		if (state & SLU_PAGE_ERROR && failed++ >= max_failed)
			break;
	}
	for (uint32_t i = 0; i < marked; i++) {
		atomic_fetch_or_explicit(&pages[i]->state, SLU_PAGE_WRITEBACK,
					 memory_order_relaxed);
		atomic_fetch_and_explicit(&pages[i]->state, ~(uint32_t)SLU_PAGE_DIRTY,
					  memory_order_relaxed);
	}
	if (marked) {
		atomic_fetch_sub_explicit(&c->stats.dirty, marked, memory_order_relaxed);
		atomic_fetch_add_explicit(&c->stats.writeback, marked, memory_order_relaxed);
		must_set(&as->writeback, pgidx, pgidx + marked, ++as->run_seq);
		must_clear(&as->dirty, pgidx, pgidx + marked);
	}
	return marked;
}

/* After DIRTY was cleared: a frame swapped in later makes the page dirty again. */
static void take_frames(struct slu_aspace *as, uint64_t pgidx, struct slu_page **pages, uint32_t n,
			uint32_t *frames)
{
	struct slu_cache *c = as->cache;
	uint32_t i = 0;

	while (i < n) {
		struct slu_mutex *stripe = stripe_of(c, bucket_of(c, as->ino, pgidx + i));

		slu_mutex_lock(stripe);
		do {
			frames[i] = atomic_load_explicit(&pages[i]->frame, memory_order_relaxed);
			slu_frame_get(c, frames[i]);
		} while (++i < n && ((pgidx + i) & (GROUP_PAGES - 1)));
		slu_mutex_unlock(stripe);
	}
}

static void find_pages(struct slu_aspace *as, uint64_t pgidx, uint32_t n, struct slu_page **pages)
{
	struct slu_cache *c = as->cache;
	uint32_t i = 0;

	while (i < n) {
		struct slu_mutex *stripe = stripe_of(c, bucket_of(c, as->ino, pgidx + i));

		slu_mutex_lock(stripe);
		do {
			pages[i] =
				hash_find(c, bucket_of(c, as->ino, pgidx + i), as->ino, pgidx + i);
			if (pages[i])
				atomic_fetch_add_explicit(&pages[i]->refs, 1, memory_order_relaxed);
		} while (++i < n && ((pgidx + i) & (GROUP_PAGES - 1)));
		slu_mutex_unlock(stripe);
	}
}

uint32_t slu_pages_start_writeback(struct slu_aspace *as, uint64_t *pgidx, uint64_t end,
				   uint32_t max, uint32_t max_failed, bool stop,
				   struct slu_page **pages, uint32_t *frames, uint64_t *ret_size)
{
	struct slu_cache *c = as->cache;
	uint32_t n, marked;

	for (;;) {
		slu_mutex_lock(&as->tags);
		wait_for_cut(as, end);
		n = (uint32_t)find_run(as, pgidx, end, max, stop);
		slu_mutex_unlock(&as->tags);
		if (!n)
			return 0;
		slu_stress_point("writeback.before_mark");
		find_pages(as, *pgidx, n, pages);
		slu_mutex_lock(&as->tags);
		/* Before the frames are taken: see at the top. */
		*ret_size = slu_aspace_size(as);
		marked = mark_run(as, *pgidx, pages, n, max_failed);
		slu_mutex_unlock(&as->tags);
		for (uint32_t i = marked; i < n; i++)
			if (pages[i])
				slu_page_put(c, pages[i]);
		if (marked)
			break;
	}
	slu_stress_point("writeback.before_frames");
	take_frames(as, *pgidx, pages, marked, frames);
	return marked;
}

/*
 * The end of the bytes that are on disk with this run, of which `last` is the last page. as->tags.
 */
static uint64_t run_synced_end(uint64_t pgidx, uint32_t n, struct slu_page *last, uint64_t size)
{
	uint64_t end = page_pos(pgidx + n);

	/* Dirty again: what was added to it is not in the frame that was written. */
	if (slu_page_state(last) & SLU_PAGE_DIRTY)
		end = slu_max(slu_min(end, size), page_pos(pgidx));
	return end;
}

/*
 * What the size on disk may be once the bytes [start, end) are there too. Not beyond the first byte
 * that is missing, nor beyond everything that was ever written out: between the two there may be a
 * hole that the application only knows together with what lies behind it. as->tags.
 */
static uint64_t synced_size(struct slu_aspace *as, uint64_t start, uint64_t end)
{
	uint64_t size = slu_aspace_size(as), synced;
	struct slu_range first;
	bool more = slu_ranges_at_or_after(&as->unsynced, 0, &first);

	synced = slu_max(as->synced_end, slu_min(end, size));
	if (more && first.start >= start && first.start < end) {
		if (first.end > end)
			first.start = end;
		else
			more = slu_ranges_at_or_after(&as->unsynced, end, &first);
	}
	size = more ? slu_min(size, slu_min(first.start, synced)) : size;
	if (first_awaited(as, 0, &first))
		size = slu_min(size, first.start);
	return size;
}

uint64_t slu_aspace_synced_size(struct slu_aspace *as, uint64_t pgidx, uint32_t n,
				struct slu_page **pages, uint64_t size)
{
	uint64_t disk_size, synced;

	slu_mutex_lock(&as->tags);
	slu_assert(!as->size_moving);
	wait_for_cut(as, UINT64_MAX);
	as->size_moving = true;
	slu_mutex_unlock(&as->tags);
	disk_size = disk_size_get(as);
	slu_mutex_lock(&as->tags);
	synced = synced_size(as, page_pos(pgidx), run_synced_end(pgidx, n, pages[n - 1], size));
	slu_mutex_unlock(&as->tags);
	if (slu_mutant(SIZE_FIRST))
		synced = size;
	return slu_max(synced, disk_size);
}

uint64_t slu_aspace_synced(struct slu_aspace *as)
{
	uint64_t synced;

	slu_mutex_lock(&as->tags);
	synced = synced_size(as, 0, 0);
	slu_mutex_unlock(&as->tags);
	return slu_max(synced, as->disk_size);
}

/* The pages are clean, unless they are dirty again. as->tags; returns how many are clean. */
static uint32_t run_succeeded(struct slu_aspace *as, uint64_t pgidx, struct slu_page **pages,
			      uint32_t n, uint64_t size)
{
	uint64_t end = run_synced_end(pgidx, n, pages[n - 1], size);
	uint32_t clean = 0, healed = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t old =
			atomic_fetch_and_explicit(&pages[i]->state,
						  ~(uint32_t)(SLU_PAGE_WRITEBACK | SLU_PAGE_ERROR),
						  memory_order_release);

		clean += !(old & SLU_PAGE_DIRTY);
		healed += (old & SLU_PAGE_ERROR) != 0;
	}
	as->nfailed -= healed;
	atomic_fetch_sub_explicit(&as->cache->stats.failed, healed, memory_order_relaxed);
	must_clear(&as->unsynced, page_pos(pgidx), end);
	as->synced_end = slu_max(as->synced_end, slu_min(end, slu_aspace_size(as)));
	return clean;
}

/*
 * The error is recorded together with the end of writeback: who samples before it sees the error
 * after the wait, and who samples after it finds dirty pages. as->tags.
 */
static void run_failed(struct slu_aspace *as, uint64_t pgidx, struct slu_page **pages, uint32_t n,
		       int error)
{
	uint32_t newly_failed = 0, newly_dirty = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t old =
			atomic_fetch_or_explicit(&pages[i]->state, SLU_PAGE_DIRTY | SLU_PAGE_ERROR,
						 memory_order_relaxed);

		atomic_fetch_and_explicit(&pages[i]->state, ~(uint32_t)SLU_PAGE_WRITEBACK,
					  memory_order_relaxed);
		newly_failed += !(old & SLU_PAGE_ERROR);
		newly_dirty += !(old & SLU_PAGE_DIRTY);
	}
	as->wb_error = ((as->wb_error >> 32) + 1) << 32 | (uint32_t)-error;
	as->nfailed += newly_failed;
	atomic_fetch_add_explicit(&as->cache->stats.failed, newly_failed, memory_order_relaxed);
	atomic_fetch_add_explicit(&as->cache->stats.dirty, newly_dirty, memory_order_relaxed);
	must_set(&as->dirty, pgidx, pgidx + n, 0);
}

void slu_pages_end_writeback(struct slu_aspace *as, uint64_t pgidx, uint32_t n,
			     struct slu_page **pages, const uint32_t *frames, uint64_t size,
			     int result)
{
	struct slu_cache *c = as->cache;
	uint32_t clean = 0;

	slu_mutex_lock(&as->tags);
	must_clear(&as->writeback, pgidx, pgidx + n);
	if (result < 0)
		run_failed(as, pgidx, pages, n, result);
	else
		clean = run_succeeded(as, pgidx, pages, n, size);
	atomic_fetch_sub_explicit(&c->stats.writeback, n, memory_order_relaxed);
	atomic_fetch_sub(&c->dirty_used, clean);
	as->size_moving = false;
	as->nmoves++;
	wake_waiters(as);
	slu_mutex_unlock(&as->tags);

	if (result < 0)
		atomic_store(&c->last_error, result);
	slu_frames_put(c, frames, n);
	for (uint32_t i = 0; i < n; i++)
		slu_page_put(c, pages[i]);
	frames_wake(c);
}

bool slu_pages_writeback(struct slu_aspace *as, uint64_t first, uint64_t end)
{
	struct slu_range r;
	bool busy;

	slu_mutex_lock(&as->tags);
	busy = slu_ranges_at_or_after(&as->writeback, first, &r) && r.start < end;
	slu_mutex_unlock(&as->tags);
	return busy;
}

/* Whether a run of [first, end) with a number up to seq is in flight. as->tags. */
static bool runs_in_flight(struct slu_aspace *as, uint64_t first, uint64_t end, uint64_t seq)
{
	struct slu_range r;

	for (; slu_ranges_at_or_after(&as->writeback, first, &r) && r.start < end; first = r.end)
		if (r.value <= seq)
			return true;
	return false;
}

void slu_pages_wait(struct slu_aspace *as, uint64_t first, uint64_t end)
{
	uint64_t seq;

	slu_assert_no_locks("the end of writeback");
	slu_mutex_lock(&as->tags);
	seq = as->run_seq;
	as->nwaiters++;
	while (runs_in_flight(as, first, end, seq))
		slu_cond_wait(&as->wait, &as->tags);
	as->nwaiters--;
	slu_mutex_unlock(&as->tags);
}

void slu_aspace_cut_wait(struct slu_aspace *as, uint64_t first, uint64_t end)
{
	uint64_t seq, moves;

	slu_assert_no_locks("writeback before a cut");
	slu_mutex_lock(&as->tags);
	seq = as->run_seq;
	moves = as->nmoves;
	as->nwaiters++;
	while (runs_in_flight(as, first, end, seq) || (as->size_moving && as->nmoves == moves))
		slu_cond_wait(&as->wait, &as->tags);
	as->nwaiters--;
	slu_mutex_unlock(&as->tags);
}

/* ------------------------------------------------------------------ drop */

/*
 * A reference, unless the page has been taken out of the hash: then it is clean, and eviction or a
 * failed read has it in hand and takes it off the list. as->tags, under which a listed page has not
 * been freed.
 */
static bool page_get_live(struct slu_page *page)
{
	uint32_t refs = atomic_load_explicit(&page->refs, memory_order_relaxed);

	do {
		if (refs & SLU_PAGE_DEAD)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&page->refs, &refs, refs + 1,
							memory_order_acquire,
							memory_order_relaxed));
	return true;
}

/* Takes a page, which is referenced, off the list and its tags off it. as->tags. */
static void drop_one(struct slu_aspace *as, struct slu_page *page)
{
	struct slu_cache *c = as->cache;
	uint32_t old;

	list_del(as, page);
	old = atomic_fetch_and_explicit(&page->state, ~(uint32_t)(SLU_PAGE_DIRTY | SLU_PAGE_ERROR),
					memory_order_relaxed);
	slu_assert(!(old & SLU_PAGE_WRITEBACK));
	if (old & SLU_PAGE_DIRTY) {
		atomic_fetch_sub_explicit(&c->stats.dirty, 1, memory_order_relaxed);
		atomic_fetch_sub(&c->dirty_used, 1);
	}
	if (old & SLU_PAGE_ERROR) {
		as->nfailed--;
		atomic_fetch_sub_explicit(&c->stats.failed, 1, memory_order_relaxed);
	}
}

/* Up to DROP_BATCH pages of [*first, end) into pages[]. */
static uint32_t drop_batch(struct slu_aspace *as, uint64_t *first, uint64_t end,
			   struct slu_page **pages)
{
	struct slu_cache *c = as->cache;
	uint32_t n = 0, next;

	if (end - *first <= DROP_BATCH) {
		/* A few: by index. */
		for (; *first < end && n < DROP_BATCH; ++*first) {
			struct slu_page *page = slu_page_find(as, *first);

			if (!page)
				continue;
			slu_mutex_lock(&as->tags);
			drop_one(as, page);
			slu_mutex_unlock(&as->tags);
			pages[n++] = page;
		}
		return n;
	}
	slu_mutex_lock(&as->tags);
	for (uint32_t i = as->first_page; i != SLU_PAGE_NONE && n < DROP_BATCH; i = next) {
		struct slu_page *page = page_at(c, i);
		uint64_t pgidx = slu_page_index(page);

		next = page->list_next;
		if (pgidx >= *first && pgidx < end && page_get_live(page)) {
			drop_one(as, page);
			pages[n++] = page;
		}
	}
	slu_mutex_unlock(&as->tags);
	return n;
}

int slu_pages_drop(struct slu_aspace *as, uint64_t first, uint64_t end)
{
	struct slu_page *pages[DROP_BATCH];
	struct slu_range r;
	uint32_t n;
	bool busy;

	/*
	 * One step: from here on writeback finds nothing to start with in the range (mark_run asks
	 * the ranges too), so the bits of the pages can follow one after the other.
	 */
	slu_mutex_lock(&as->tags);
	busy = slu_ranges_at_or_after(&as->writeback, first, &r) && r.start < end;
	if (!busy)
		must_clear(&as->dirty, first, end);
	slu_mutex_unlock(&as->tags);
	if (busy)
		return -EBUSY;
	slu_stress_point("remove.before_drop");
	while ((n = drop_batch(as, &first, end, pages))) {
		for (uint32_t i = 0; i < n; i++) {
			page_unhash(as->cache, pages[i], 0);
			slu_page_put(as->cache, pages[i]);
		}
		frames_wake(as->cache);
	}
	return 0;
}

void slu_aspace_forget(struct slu_aspace *as, uint64_t pos, uint64_t end)
{
	slu_mutex_lock(&as->tags);
	if (pos < end) {
		must_clear(&as->unsynced, pos, end);
		must_clear(&as->awaited, pos, end);
	}
	if (end == UINT64_MAX)
		as->synced_end = slu_min(as->synced_end, pos);
	slu_mutex_unlock(&as->tags);
}
