/* SPDX-License-Identifier: MIT */
/*
 * Truncate and punch: what they do to pages. And the zeroing before a file grows.
 *
 * Called with as->lock exclusive. Takes page locks for swaps, the backend's lock inside its verbs, and
 * leaf locks. Never waits: -EAGAIN and what to wait for.
 *
 * The order with what is under way:
 *
 *	a write			has as->lock: it is before or after, segment by segment
 *	a read in flight	pages that go: the read finds its page gone when it ends, and the
 *				reader looks again. Pages at the edge: waited for
 *	writeback in flight	pages that go: waited for, since their blocks are freed. Pages at
 *				the edge: waited for by truncate; else their frame is replaced, the
 *				old one goes on to the disk, and the page is dirty again
 *	dirty pages		pages that go: dropped, with their reservation
 *
 * Punch takes blocks and pages in the same section, window by window, the blocks first: a page is
 * dropped when nothing is left under it, and one that stays, because a window failed or has to wait,
 * stays with its reservation and as new as it was.
 *
 * Truncate zeroes its edge in memory alone: the size moves before it, and what a block holds
 * beyond the size means nothing. slu_pages_zero_tail makes up for that when the file grows again.
 */
#include "write_private.h"
#include <string.h>

#define PAGE_MASK ((uint64_t)SLU_BLOCK_SIZE - 1)

static int writeback_need_wait(struct slu_need *need)
{
	slu_aspace_cut_wait(need->owner, need->arg[0], need->arg[1]);
	return 0;
}

static int need_writeback(struct slu_need *need, struct slu_aspace *as, uint64_t first,
			  uint64_t last)
{
	*need = (struct slu_need){
		.wait = writeback_need_wait,
		.what = "the end of writeback",
		.owner = as,
		.arg = {first, last},
	};
	return -EAGAIN;
}

/*
 * Waits for its frames and, for truncate, for nothing else that could need pages: the ticket is
 * short.
 */
static int edge_claim(struct slu_aspace *as, struct slu_frames *fr, struct slu_need *need)
{
	*fr = (struct slu_frames)SLU_FRAMES_INIT(as->cache);
	return slu_frames_claim(fr, 1, 1, SLU_FRAMES_KEPT_BACK, need);
}

/*
 * The page at pgidx, referenced, if it is uptodate; NULL if there is nothing to zero: it reads as
 * zeros, or (not for `on_disk`) its block does not matter. -EAGAIN: it has to be read.
 */
static int edge_page(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pgidx, bool on_disk,
		     struct slu_page **ret, struct slu_need *need)
{
	struct slu_page *page = slu_page_find(as, pgidx);
	struct slu_iomap m;
	int err;

	*ret = NULL;
	if (page && slu_page_state(page) & SLU_PAGE_UPTODATE) {
		*ret = page;
		return 0;
	}
	if (page) {
		slu_page_put(as->cache, page);
		return need_page(need, as, bio, pgidx, true);
	}
	if (!on_disk)
		return 0;
	err = as->backend->ops->map(as->backend, pgidx << SLU_BLOCK_SHIFT, SLU_BLOCK_SIZE, &m,
				    need);
	if (err)
		return err;
	return m.type == SLU_IOMAP_MAPPED ? need_page(need, as, bio, pgidx, true) : 0;
}

/* A page at the edge of what goes, and a frame for what is left of it. */
struct edge {
	struct slu_page *page; /* NULL: there is nothing to zero */
	struct slu_frames fr;
};

static int edge_prepare(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pgidx,
			bool on_disk, struct edge *e, struct slu_need *need)
{
	int err = edge_page(as, bio, pgidx, on_disk, &e->page, need);

	if (err || !e->page)
		return err;
	err = edge_claim(as, &e->fr, need);
	if (err) {
		slu_page_put(as->cache, e->page);
		e->page = NULL;
	}
	return err;
}

static void edge_abandon(struct slu_aspace *as, struct edge *e)
{
	if (!e->page)
		return;
	slu_frames_release(&e->fr);
	slu_page_put(as->cache, e->page);
}

/* Bytes [from, to) are zero. dirty: on disk too. */
static void edge_zero(struct slu_aspace *as, struct edge *e, uint32_t from, uint32_t to, bool dirty)
{
	uint64_t pos = e->page ? slu_page_index(e->page) << SLU_BLOCK_SHIFT : 0;
	struct slu_page *pages[1];
	uint32_t frame, old;
	char *dst;

	if (!e->page)
		return;
	/* as->lock keeps the old frame in the page, the reference the page in the cache. */
	old = atomic_load_explicit(&e->page->frame, memory_order_relaxed);
	frame = slu_frames_take(&e->fr);
	dst = slu_frame_data(as->cache, frame);
	memcpy(dst, slu_frame_data(as->cache, old), SLU_BLOCK_SIZE);
	memset(dst + from, 0, to - from);
	slu_pages_publish(as, &e->fr, pos >> SLU_BLOCK_SHIFT, 1, &frame, pages);
	slu_page_put(as->cache, e->page);
	if (dirty)
		pages_dirty(as, &e->fr, pages, 1, pos, pos + to, 0);
	else
		slu_page_put(as->cache, pages[0]);
	slu_frames_release(&e->fr);
}

/* Both at once, on disk too. */
static int edge_clear(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pgidx, uint32_t from,
		      uint32_t to, struct slu_need *need)
{
	struct edge e;
	int err = edge_prepare(as, bio, pgidx, true, &e, need);

	if (!err)
		edge_zero(as, &e, from, to, true);
	return err;
}

static int clear_edges(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pos, uint64_t end,
		       struct slu_need *need)
{
	uint64_t first = slu_bytes_to_blocks(pos), last = end >> SLU_BLOCK_SHIFT;
	uint32_t head = (uint32_t)(pos & PAGE_MASK), tail = (uint32_t)(end & PAGE_MASK);
	int err = 0;

	if (head && first > last)
		return edge_clear(as, bio, pos >> SLU_BLOCK_SHIFT, head, tail, need);
	/* Zeroing twice does no harm, so an -EAGAIN may come between the two. */
	if (head)
		err = edge_clear(as, bio, pos >> SLU_BLOCK_SHIFT, head, SLU_BLOCK_SIZE, need);
	if (!err && tail)
		err = edge_clear(as, bio, last, 0, tail, need);
	return err;
}

int slu_pages_remove(struct slu_aspace *as, struct slu_blockio *bio, uint64_t *pos, uint64_t *end,
		     slu_remove_fn *remove, void *arg, struct slu_need *need)
{
	uint64_t from, first, last;
	int err;

	if (*pos >= *end)
		return 0;
	if (slu_cache_fill_ranges(as->cache))
		return -ENOMEM;
	err = clear_edges(as, bio, *pos, *end, need);
	if (err)
		return err;
	*pos = from = slu_round_up(*pos, SLU_BLOCK_SIZE);
	*end = slu_round_down(*end, SLU_BLOCK_SIZE);
	if (*pos >= *end)
		return 0;
	first = *pos >> SLU_BLOCK_SHIFT;
	last = *end >> SLU_BLOCK_SHIFT;
	if (!slu_aspace_cut_begin(as, first, last, false))
		return need_writeback(need, as, first, last);
	slu_stress_point("punch.before_remove");
	err = remove(arg, pos, *end, need);
	if (err >= 0) {
		int busy = slu_pages_drop(as, first, *pos >> SLU_BLOCK_SHIFT);

		slu_assert(!busy && *pos <= *end &&
			   (*pos == *end) == !err); /* none has begun there */
		slu_aspace_forget(as, from, *pos);
	}
	slu_aspace_cut_end(as);
	if (as->wb)
		slu_writeback_cleaned(as->wb, as);
	return err;
}

int slu_pages_truncate(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pos,
		       int (*set_size)(void *arg, struct slu_need *need), void *arg,
		       struct slu_need *need)
{
	uint64_t first = slu_bytes_to_blocks(pos), last = UINT64_MAX >> SLU_BLOCK_SHIFT;
	uint64_t cut = pos >> SLU_BLOCK_SHIFT; /* the page with the new end too */
	uint32_t head = (uint32_t)(pos & PAGE_MASK);
	struct edge e = {.page = NULL};
	int err = 0;

	if (slu_cache_fill_ranges(as->cache))
		return -ENOMEM;
	if (head)
		err = edge_prepare(as, bio, pos >> SLU_BLOCK_SHIFT, false, &e, need);
	if (err)
		return err;
	if (!slu_aspace_cut_begin(as, cut, last, true)) {
		edge_abandon(as, &e);
		return need_writeback(need, as, cut, last);
	}
	slu_stress_point("truncate.before_size");
	err = set_size ? set_size(arg, need) : 0;
	if (err) {
		slu_aspace_cut_end(as);
		edge_abandon(as, &e);
		return err;
	}
	edge_zero(as, &e, head, SLU_BLOCK_SIZE, false);
	err = slu_pages_drop(as, first, last);
	slu_assert(!err); /* no writeback has begun there */
	slu_aspace_forget(as, pos, UINT64_MAX);
	slu_aspace_cut_end(as);
	if (as->wb)
		slu_writeback_cleaned(as->wb, as);
	return 0;
}

int zero_tail(struct slu_aspace *as, struct slu_blockio *bio, uint64_t old, struct slu_frames *fr,
	      struct slu_need *need)
{
	uint64_t pgidx = old >> SLU_BLOCK_SHIFT;
	struct slu_page *page;
	int err;

	if (!(old & PAGE_MASK) || slu_mutant(NO_ZERO_TAIL))
		return 0;
	err = edge_page(as, bio, pgidx, true, &page, need);
	if (err || !page)
		return err;
	/*
	 * In memory they are zero already. Also of a page that is dirty: it has to be known that the
	 * size on disk must not pass them before they are there.
	 */
	err = slu_frames_claim(fr, 0, 1, SLU_FRAMES_KEPT_BACK, need);
	if (err) {
		slu_page_put(as->cache, page);
		return err;
	}
	pages_dirty(as, fr, &page, 1, pgidx << SLU_BLOCK_SHIFT, (pgidx + 1) << SLU_BLOCK_SHIFT, 0);
	return 0;
}

int slu_pages_zero_tail(struct slu_aspace *as, struct slu_blockio *bio, uint64_t old,
			struct slu_need *need)
{
	struct slu_frames fr = SLU_FRAMES_INIT(as->cache);
	int err;

	if (slu_cache_fill_ranges(as->cache))
		return -ENOMEM;
	err = zero_tail(as, bio, old, &fr, need);
	slu_frames_release(&fr);
	return err;
}
