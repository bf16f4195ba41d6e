/* SPDX-License-Identifier: MIT */
/*
 * One segment of a write.
 *
 * Called by write.c with as->lock exclusive and a ticket for all its pages. Takes page locks (one
 * at a time) and the backend's lock inside its verbs. Never waits and never faults: -EAGAIN says
 * what has to be waited for.
 *
 *	plan	map, look whether partial pages can be filled, reserve; undone whole on failure
 *	copy	page by page into private frames; 16 are published at a time
 *	finish	publish, dirty with the size, give back the rest, unlock the tail
 *
 * A full page is published over whatever is there: uptodate, being read, or nothing. For a partial
 * page the rest of the frame comes from the page's old frame (`base`) or is zeros, where it lies on
 * no data. If it is the segment's last page and not uptodate, its descriptor is inserted locked and
 * keeps its lock to the end of finish; that is the only page lock held across anything.
 *
 * A copy that comes up short ends the segment. A page that it covers in part can be published if
 * the rest of the page is known; otherwise (MAPPED and not in the cache) the bytes are carried: the
 * source cannot take them back, and the page has to be read with no lock held.
 */
#include "write_private.h"
#include <string.h>

#define PAGE_MASK ((uint64_t)SLU_BLOCK_SIZE - 1)

struct segment {
	struct write_op *op;
	struct slu_aspace *as;
	uint64_t pos, end;       /* bytes, planned */
	uint64_t at;             /* bytes before it are copied */
	struct slu_page *locked; /* the tail, or NULL */
	uint32_t nmaps, map;     /* map: that of the page at `at` */
	uint32_t npages;         /* published, and the tail */
	uint32_t nstaged;        /* filled, not published */
	uint32_t staged[STAGE_PAGES];
	struct slu_page *pages[SEGMENT_PAGES];
	struct slu_iomap maps[SEGMENT_PAGES];
};

/* ------------------------------------------------------------------ plan */

/*
 * Whether a page that is not in the cache is MAPPED. It was dirty when the segment was mapped, perhaps,
 * and has been written and evicted since: neither asks for as->lock, but while that is held nobody
 * brings a page in, so it is asked for only when the page was looked for in vain.
 */
static int page_mapped(struct write_op *op, uint64_t pgidx, bool *ret)
{
	struct slu_iomap_inode *backend = op->as->backend;
	struct slu_iomap m;
	int err =
		backend->ops->map(backend, pgidx << SLU_BLOCK_SHIFT, SLU_BLOCK_SIZE, &m, &op->need);

	*ret = !err && m.type == SLU_IOMAP_MAPPED;
	return err;
}

/*
 * Whether bytes [from, to) of a page can be written without reading it first. *ret_base: the page,
 * referenced, if it is uptodate; NULL: the rest of it is zeros. -EAGAIN: not yet.
 */
static int page_base(struct write_op *op, uint64_t pgidx, uint32_t from, uint32_t to,
		     struct slu_page **ret_base)
{
	struct slu_aspace *as = op->as;
	uint64_t pos = pgidx << SLU_BLOCK_SHIFT, size = slu_aspace_size(as);
	struct slu_page *page = slu_page_find(as, pgidx);
	bool kernel = op->flags & SLU_WRITE_KERNEL_CACHE, mapped;
	int err;

	*ret_base = NULL;
	if (page && slu_page_state(page) & SLU_PAGE_UPTODATE) {
		*ret_base = page;
		return 0;
	}
	if (page) {
		slu_page_put(as->cache, page);
		return need_page(&op->need, as, op->bio, pgidx, kernel);
	}
	/* What the block holds beyond the size means nothing. */
	if (from == 0 && pos + to >= size)
		return 0;
	err = page_mapped(op, pgidx, &mapped);
	return err || !mapped ? err : need_page(&op->need, as, op->bio, pgidx, kernel);
}

/* The same, for a look beforehand. */
static int page_ready(struct segment *seg, uint64_t pgidx)
{
	uint64_t pos = pgidx << SLU_BLOCK_SHIFT;
	uint32_t from = (uint32_t)(slu_max(seg->pos, pos) - pos);
	uint32_t to = (uint32_t)(slu_min(seg->end, pos + SLU_BLOCK_SIZE) - pos);
	struct slu_page *base;
	int err;

	if (to - from == SLU_BLOCK_SIZE)
		return 0;
	err = page_base(seg->op, pgidx, from, to, &base);
	if (base)
		slu_page_put(seg->as->cache, base);
	return err;
}

static void unreserve_from(struct segment *seg, uint64_t at)
{
	struct slu_iomap_inode *backend = seg->as->backend;

	for (uint32_t i = seg->nmaps; i-- > 0;) {
		struct slu_iomap *m = &seg->maps[i];
		uint64_t end = m->pos + m->len;

		if (end > at)
			backend->ops->unreserve(backend, m, end - slu_max(at, m->pos));
	}
}

/*
 * Reserves the mapping, or as much of its beginning as there is space for unless it has to be all.
 */
static int reserve_some(struct segment *seg, struct slu_iomap *m)
{
	struct slu_iomap_inode *backend = seg->as->backend;
	bool whole = seg->op->flags & (SLU_WRITE_KERNEL_CACHE | SLU_WRITE_WHOLE);

	for (;;) {
		uint64_t first = m->pos >> SLU_BLOCK_SHIFT;
		uint64_t n = slu_bytes_to_blocks(m->pos + m->len) - first;
		int err;

		m->reserved = 0;
		err = backend->ops->reserve(backend, m, &seg->op->need);
		if (err != -ENOSPC || whole || n == 1)
			return err;
		m->len = ((first + n / 2) << SLU_BLOCK_SHIFT) - m->pos;
	}
}

/*
 * Maps [seg->pos, seg->end): the first mapping, or all of them for a request that is whole or
 * nothing.
 */
static int segment_map(struct segment *seg)
{
	struct slu_iomap_inode *backend = seg->as->backend;
	bool whole = seg->op->flags & (SLU_WRITE_KERNEL_CACHE | SLU_WRITE_WHOLE);
	uint64_t pos = seg->pos;

	do {
		struct slu_iomap *m = &seg->maps[seg->nmaps];
		int err = backend->ops->map(backend, pos, seg->end - pos, m, &seg->op->need);

		if (err)
			return err;
		m->reserved = 0;
		seg->nmaps++;
		pos = m->pos + m->len;
	} while (whole && pos < seg->end);
	seg->end = pos;
	return 0;
}

static int segment_reserve(struct segment *seg)
{
	for (uint32_t i = 0; i < seg->nmaps; i++) {
		struct slu_iomap *m = &seg->maps[i];
		int err = reserve_some(seg, m);

		if (err) {
			unreserve_from(seg, 0);
			return err;
		}
		seg->end = m->pos + m->len;
	}
	return 0;
}

static int segment_plan(struct segment *seg)
{
	struct write_op *op = seg->op;
	uint64_t size = slu_aspace_size(seg->as), first = op->pos >> SLU_BLOCK_SHIFT;
	uint64_t last;
	int err;

	/* The bytes between the old end and the end of its page become part of the file. */
	if (op->pos > size && first != size >> SLU_BLOCK_SHIFT) {
		err = zero_tail(seg->as, op->bio, size, &op->frames, &op->need);
		if (err)
			return err;
	}
	seg->pos = seg->at = op->pos;
	seg->end = slu_min(op->pos + op->left, (first + op->max_pages) << SLU_BLOCK_SHIFT);
	err = segment_map(seg);
	if (err)
		return err;
	last = (seg->end - 1) >> SLU_BLOCK_SHIFT;
	err = page_ready(seg, first);
	if (!err && last != first)
		err = page_ready(seg, last);
	return err ? err : segment_reserve(seg);
}

/* ------------------------------------------------------------------ copy */

/* The next bytes: those carried, then the source's. */
static uint32_t op_copy(struct write_op *op, char *dst, uint32_t len)
{
	struct slu_cache *c = op->as->cache;
	uint32_t done = 0, got;

	if (op->carry != SLU_FRAME_NONE) {
		done = slu_min(op->carry_len, len);
		memcpy(dst, (char *)slu_frame_data(c, op->carry) + op->carry_off, done);
		op->carry_off += done;
		op->carry_len -= done;
		if (!op->carry_len) {
			slu_frames_return(&op->frames, op->carry);
			op->carry = SLU_FRAME_NONE;
		}
		/* After the source has ended there are these bytes and no more. */
		if (done == len || op->source_error)
			return done;
	}
	got = (uint32_t)op->src->ops->copy_nofault(op->src, dst + done, len - done);
	slu_assert(got <= len - done);
	if (got < len - done) {
		op->short_copy = true;
		atomic_fetch_add_explicit(&op->stats->short_copies, 1, memory_order_relaxed);
	}
	return done + got;
}

static void stage_flush(struct segment *seg)
{
	uint64_t first = (seg->pos >> SLU_BLOCK_SHIFT) + seg->npages;

	if (!seg->nstaged)
		return;
	slu_pages_publish(seg->as, &seg->op->frames, first, seg->nstaged, seg->staged,
			  &seg->pages[seg->npages]);
	seg->npages += seg->nstaged;
	seg->nstaged = 0;
}

static void stage(struct segment *seg, uint64_t pgidx, uint32_t frame)
{
	seg->staged[seg->nstaged++] = frame;
	if (((pgidx + 1) & (STAGE_PAGES - 1)) == 0)
		stage_flush(seg);
}

/* Bytes of the page outside [from, to): the old ones or zeros. */
static void fill_around(struct slu_cache *c, char *dst, struct slu_page *base, uint32_t from,
			uint32_t to)
{
	if (base) {
		/* as->lock keeps the frame in the page, the reference the page in the cache. */
		uint32_t frame = atomic_load_explicit(&base->frame, memory_order_relaxed);
		const char *old = slu_frame_data(c, frame);

		memcpy(dst, old, from);
		memcpy(dst + to, old + to, SLU_BLOCK_SIZE - to);
	} else {
		memset(dst, 0, from);
		memset(dst + to, 0, SLU_BLOCK_SIZE - to);
	}
}

static void carry(struct write_op *op, uint32_t frame, uint32_t off, uint32_t len)
{
	/* What was carried before has been copied into this frame, or nothing new came. */
	slu_assert(op->carry == SLU_FRAME_NONE);
	op->carry = frame;
	op->carry_off = off;
	op->carry_len = len;
	atomic_fetch_add_explicit(&op->stats->carried, 1, memory_order_relaxed);
}

/*
 * Copies bytes [off, off + len) of a page into a private frame and stages it. Returns how many
 * bytes of the page are in the segment now; fewer than len ends it.
 */
static uint32_t copy_page(struct segment *seg, uint64_t pgidx, uint32_t off, uint32_t len)
{
	struct write_op *op = seg->op;
	struct slu_cache *c = seg->as->cache;
	uint32_t frame = slu_frames_take(&op->frames), got;
	char *dst = slu_frame_data(c, frame);
	struct slu_page *base = NULL;

	got = op_copy(op, dst + off, len);
	if (!got) {
		slu_frames_return(&op->frames, frame);
		return 0;
	}
	if (got < SLU_BLOCK_SIZE) {
		struct slu_need need = op->need;

		/*
		 * -EAGAIN: a short copy of a page that was to be covered whole, or one evicted
		 * since.
		 */
		if (page_base(op, pgidx, off, off + got, &base)) {
			op->need = need;
			carry(op, frame, off, got);
			return 0;
		}
		fill_around(c, dst, base, off, off + got);
		if (base)
			slu_page_put(c, base);
	}
	stage(seg, pgidx, frame);
	return got;
}

/* The tail that is in no block and not in the cache: locked from before the copy on. */
static uint32_t copy_tail(struct segment *seg, uint64_t pgidx, uint32_t off, uint32_t len)
{
	struct write_op *op = seg->op;
	struct slu_cache *c = seg->as->cache;
	struct slu_page *page;
	uint32_t got;
	char *dst;

	stage_flush(seg);
	page = slu_page_insert_locked(seg->as, &op->frames, pgidx);
	dst = slu_frame_data(c, atomic_load_explicit(&page->frame, memory_order_relaxed));
	slu_stress_point("write.tail_locked");
	got = op_copy(op, dst + off, len);
	if (!got) {
		slu_page_remove_locked(seg->as, page);
		return 0;
	}
	fill_around(c, dst, NULL, off, off + got);
	slu_page_uptodate(page);
	slu_page_get(page);
	seg->pages[seg->npages++] = page;
	seg->locked = page;
	atomic_fetch_add_explicit(&op->stats->tail_locks, 1, memory_order_relaxed);
	return got;
}

/* Whether the page at `at`, partly written and the last one, has to be inserted locked. */
static bool is_locked_tail(struct segment *seg, uint64_t pgidx, uint32_t len)
{
	struct slu_need need = seg->op->need;
	struct slu_page *page;
	bool mapped;
	int err;

	/*
	 * On MAPPED a short copy could leave old bytes to be read: that is for copy_page to find
	 * out.
	 */
	if (len == SLU_BLOCK_SIZE || seg->at + len != seg->end ||
	    seg->maps[seg->map].type == SLU_IOMAP_MAPPED)
		return false;
	page = slu_page_find(seg->as, pgidx);
	if (page) {
		slu_page_put(seg->as->cache, page);
		return false;
	}
	err = page_mapped(seg->op, pgidx, &mapped);
	seg->op->need = need;
	return !err && !mapped;
}

static void segment_copy(struct segment *seg)
{
	while (seg->at < seg->end) {
		uint64_t pgidx = seg->at >> SLU_BLOCK_SHIFT;
		uint32_t off = (uint32_t)(seg->at & PAGE_MASK), got;
		uint32_t len = (uint32_t)slu_min(SLU_BLOCK_SIZE - off, seg->end - seg->at);

		while (seg->at >= seg->maps[seg->map].pos + seg->maps[seg->map].len)
			seg->map++;
		if (is_locked_tail(seg, pgidx, len))
			got = copy_tail(seg, pgidx, off, len);
		else
			got = copy_page(seg, pgidx, off, len);
		seg->at += got;
		/* The source was short, or what it gave is carried. */
		if (got < len)
			break;
	}
	stage_flush(seg);
}

/* ------------------------------------------------------------------ finish */

void pages_dirty(struct slu_aspace *as, struct slu_frames *fr, struct slu_page **pages, uint32_t n,
		 uint64_t pos, uint64_t end, uint64_t new_size)
{
	/* The pin comes first: writeback may be done with the pages before dirtied is called. */
	if (as->owner)
		as->owner->pin(as);
	slu_pages_set_dirty(as, fr, pages, n, pos, end, new_size);
	slu_writeback_dirtied(as->wb, as);
}

static void segment_finish(struct segment *seg)
{
	struct write_op *op = seg->op;
	uint64_t done = seg->at - seg->pos;

	slu_stress_point("write.before_finish");
	if (op->flags & SLU_WRITE_UNORDERED && seg->npages)
		slu_aspace_await(seg->as, seg->pos);
	if (seg->npages)
		pages_dirty(seg->as, &op->frames, seg->pages, seg->npages, seg->pos, seg->at,
			    seg->at);
	if (op->flags & SLU_WRITE_UNORDERED)
		slu_aspace_arrived(seg->as, seg->pos, seg->at);
	unreserve_from(seg, seg->at);
	if (seg->locked) {
		slu_page_unlock(seg->locked);
		slu_page_put(seg->as->cache, seg->locked);
	}
	op->pos += done;
	op->left -= done;
	op->done += done;
	atomic_fetch_add_explicit(&op->stats->segments, 1, memory_order_relaxed);
}

int segment_write(struct write_op *op)
{
	struct segment seg;
	int err;

	/* Not the arrays: they are filled as far as they are used. */
	seg.op = op;
	seg.as = op->as;
	seg.locked = NULL;
	seg.nmaps = seg.map = seg.npages = seg.nstaged = 0;
	err = segment_plan(&seg);
	if (err)
		return err;
	segment_copy(&seg);
	segment_finish(&seg);
	return 0;
}
