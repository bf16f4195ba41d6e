/* SPDX-License-Identifier: MIT */
/*
 * The read path: pages that are there, and reading in those that are not.
 *
 * Called by READ with no lock held, and through need_page by the write path and truncate. Takes
 * as->lock shared for look-up and map; waits for frames and I/O with no lock held. Owns the read
 * requests in flight (struct read_io), which need nobody to wait for them: read-ahead is a request
 * without a waiter.
 *
 * A page being read is in state READING with a frame of its own; the request has a reference to
 * both, so that whoever publishes or drops the page meanwhile does not free the frame under the
 * I/O. When the I/O ends, what lies beyond the size is zeroed before the page becomes uptodate: the
 * blocks' bytes there mean nothing.
 *
 * Holes and unwritten ranges take neither frame nor descriptor: they read as the zeros that all
 * caches share.
 */
#include "write_private.h"
#include <string.h>

#define FRAME_ZEROS (SLU_FRAME_NONE - 1)
#define AHEAD_PAGES 64u /* looked at in one go */

struct read_io {
	struct slu_io io;
	struct slu_aspace *as;
	struct read_io *next; /* to be submitted */
	uint64_t pgidx;
	uint32_t n;
	struct slu_page **pages;
	uint32_t *frames;
	struct iovec iov[];
};

struct read_op {
	struct slu_aspace *as;
	struct slu_blockio *bio;
	uint64_t pos, len; /* bytes asked for; len is cut at the size */
	bool clip;         /* at the size */
	uint64_t first;
	uint32_t n; /* pages */
	uint32_t ahead;
	uint32_t cap; /* pages that the arrays are made for */
	uint32_t *frames;
	struct slu_page **pages; /* waited for */
	struct slu_frames ticket;
	struct slu_need need;
	struct read_io *ios;
};

/* ------------------------------------------------------------------ requests */

static struct read_io *io_new(struct slu_aspace *as, uint64_t pgidx, uint64_t blkno, uint32_t max)
{
	struct read_io *rio;
	size_t size = sizeof(*rio) +
		      max * (sizeof(struct iovec) + sizeof(struct slu_page *) + sizeof(uint32_t));

	rio = slu_alloc(size);
	if (!rio)
		return NULL;
	memset(rio, 0, sizeof(*rio));
	rio->as = as;
	rio->pgidx = pgidx;
	rio->io.blkno = blkno;
	rio->io.op = SLU_IO_READ;
	rio->io.iov = rio->iov;
	rio->pages = (struct slu_page **)&rio->iov[max];
	rio->frames = (uint32_t *)&rio->pages[max];
	return rio;
}

/* The bytes beyond the size read as zeros. */
static void zero_beyond(struct read_io *rio)
{
	uint64_t size = slu_aspace_size(rio->as);
	uint64_t pos = rio->pgidx << SLU_BLOCK_SHIFT;

	for (uint32_t i = rio->n; i-- > 0;) {
		uint64_t start = pos + ((uint64_t)i << SLU_BLOCK_SHIFT);
		char *data = slu_frame_data(rio->as->cache, rio->frames[i]);

		if (start + SLU_BLOCK_SIZE <= size)
			break;
		if (start >= size)
			memset(data, 0, SLU_BLOCK_SIZE);
		else
			memset(data + (size - start), 0, SLU_BLOCK_SIZE - (size - start));
	}
}

static void io_end(struct slu_io *io)
{
	struct read_io *rio = slu_container_of(io, struct read_io, io);
	struct slu_aspace *as = rio->as;
	struct slu_cache *c = as->cache;

	if (!io->result)
		zero_beyond(rio);
	slu_stress_point("read.before_uptodate");
	for (uint32_t i = 0; i < rio->n; i++)
		slu_page_read_done(as, rio->pages[i], io->result);
	slu_frames_put(c, rio->frames, rio->n);
	slu_free(rio);
	/* The last: after it the inode may end. */
	slu_aspace_read_end(as);
}

static void io_add(struct read_io *rio, struct slu_page *page)
{
	struct slu_cache *c = rio->as->cache;
	uint32_t frame = atomic_load_explicit(&page->frame, memory_order_relaxed);
	int niov = rio->io.niov;

	rio->pages[rio->n] = page;
	rio->frames[rio->n] = frame;
	slu_frame_get(c, frame);
	if (rio->n && frame == rio->frames[rio->n - 1] + 1) {
		rio->iov[niov - 1].iov_len += SLU_BLOCK_SIZE;
	} else {
		rio->iov[niov].iov_base = slu_frame_data(c, frame);
		rio->iov[niov].iov_len = SLU_BLOCK_SIZE;
		rio->io.niov++;
	}
	rio->n++;
}

static void ios_submit(struct read_op *op)
{
	struct read_io *rio;

	while ((rio = op->ios)) {
		op->ios = rio->next;
		rio->io.nblocks = rio->n;
		rio->io.end_io = io_end;
		slu_stress_point("read.before_submit");
		slu_blockio_submit(op->bio, &rio->io);
	}
}

/*
 * Begins to read n missing pages from pgidx on, which one MAPPED mapping covers. The ticket has
 * frames for them. pages[i] becomes the page to wait for. as->lock is held.
 */
static int read_mapped(struct read_op *op, uint64_t pgidx, uint32_t n, uint64_t blkno,
		       struct slu_page **pages)
{
	struct read_io *rio = NULL;

	for (uint32_t i = 0; i < n; i++) {
		struct slu_page *page;

		if (!rio) {
			rio = io_new(op->as, pgidx + i, blkno + i, n - i);
			if (!rio)
				return -ENOMEM;
			rio->next = op->ios;
		}
		if (!slu_page_insert_reading(op->as, &op->ticket, pgidx + i, &page)) {
			/*
			 * Another reader was faster: its page, and a request that ends before it.
			 */
			pages[i] = page;
			if (rio->n) {
				slu_aspace_read_begin(op->as);
				op->ios = rio;
			} else {
				slu_free(rio);
			}
			rio = NULL;
			continue;
		}
		slu_page_get(page);
		pages[i] = page;
		io_add(rio, page);
	}
	if (rio) {
		slu_aspace_read_begin(op->as);
		op->ios = rio;
	}
	return 0;
}

/* ------------------------------------------------------------------ one attempt */

/* Deals with the missing pages among n from `first` on: zeros, or a read. as->lock is held. */
static int read_missing(struct read_op *op, uint64_t first, uint32_t n, uint32_t *frames,
			struct slu_page **pages)
{
	struct slu_iomap_inode *backend = op->as->backend;
	uint32_t i = 0, run, k;

	while (i < n) {
		struct slu_iomap m;
		int err;

		if (frames[i] != SLU_FRAME_NONE || pages[i]) {
			i++;
			continue;
		}
		for (run = 1; i + run < n; run++)
			if (frames[i + run] != SLU_FRAME_NONE || pages[i + run])
				break;
		err = backend->ops->map(backend, (first + i) << SLU_BLOCK_SHIFT,
					(uint64_t)run << SLU_BLOCK_SHIFT, &m, &op->need);
		if (err)
			return err;
		run = (uint32_t)(m.len >> SLU_BLOCK_SHIFT);
		if (m.type == SLU_IOMAP_DELALLOC) {
			/* Its page is dirty and so in the cache, or the two do not agree. */
			return -EIO;
		} else if (m.type == SLU_IOMAP_MAPPED) {
			err = read_mapped(op, first + i, run, m.blkno, pages + i);
			if (err)
				return err;
		} else {
			for (k = 0; k < run; k++)
				frames[i + k] = FRAME_ZEROS;
		}
		i += run;
	}
	return 0;
}

/*
 * Starts on the pages behind the range that are not there yet, as far as frames are at hand.
 * as->lock is held.
 */
static void read_ahead(struct read_op *op)
{
	uint64_t at = op->first + op->n;
	uint64_t end = slu_min(at + op->ahead, slu_bytes_to_blocks(slu_aspace_size(op->as)));
	uint32_t frames[AHEAD_PAGES];
	struct slu_page *pages[AHEAD_PAGES];
	int err = 0;

	while (at < end && !err) {
		uint32_t n = (uint32_t)slu_min(end - at, (uint64_t)AHEAD_PAGES);
		uint32_t missing = slu_pages_lookup(op->as, at, n, frames, pages);
		struct slu_need need;

		if (missing)
			err = slu_frames_claim(&op->ticket, missing, 0, 0, &need);
		if (missing && !err)
			err = read_missing(op, at, n, frames, pages);
		for (uint32_t i = 0; i < n; i++) {
			if (pages[i])
				slu_page_put(op->as->cache, pages[i]);
			if (frames[i] == FRAME_ZEROS)
				frames[i] = SLU_FRAME_NONE;
		}
		slu_frames_put(op->as->cache, frames, n);
		at += n;
	}
}

static void read_drop(struct read_op *op)
{
	struct slu_cache *c = op->as->cache;

	for (uint32_t i = 0; i < op->n; i++) {
		if (op->pages[i])
			slu_page_put(c, op->pages[i]);
		if (op->frames[i] == FRAME_ZEROS)
			op->frames[i] = SLU_FRAME_NONE;
	}
	slu_frames_put(c, op->frames, op->n);
	op->n = 0;
}

/* How many pages the request has at this moment. as->lock is held. */
static void read_clip(struct read_op *op)
{
	uint64_t size = slu_aspace_size(op->as);

	if (op->clip)
		op->len = op->pos < size ? slu_min(op->len, size - op->pos) : 0;
	op->n = op->len ? (uint32_t)(slu_bytes_to_blocks(op->pos + op->len) - op->first) : 0;
}

/*
 * Look-up and map under the lock. -EAGAIN with op->need, or -ENOBUFS with *ret_want: more frames.
 */
static int read_lookup(struct read_op *op, uint32_t *ret_want)
{
	uint32_t missing;
	int err = 0;

	slu_rwlock_rdlock(&op->as->lock);
	read_clip(op);
	missing = op->n ? slu_pages_lookup(op->as, op->first, op->n, op->frames, op->pages) : 0;
	if (missing > op->ticket.n) {
		*ret_want = missing;
		err = -ENOBUFS;
	} else if (missing) {
		err = read_missing(op, op->first, op->n, op->frames, op->pages);
	}
	if (!err && op->n && op->ahead)
		read_ahead(op);
	slu_rwlock_rdunlock(&op->as->lock);
	/* Pages in state READING have to be read, whatever else went wrong. */
	ios_submit(op);
	return err;
}

static int read_wait(struct read_op *op)
{
	struct slu_cache *c = op->as->cache;

	for (uint32_t i = 0; i < op->n; i++) {
		int err;

		if (!op->pages[i])
			continue;
		err = slu_page_wait_read(c, op->pages[i], &op->frames[i]);
		if (err)
			return err;
		slu_page_put(c, op->pages[i]);
		op->pages[i] = NULL;
	}
	return 0;
}

/* Until every page is there, or one cannot be read. No lock is held. */
static int read_pages(struct read_op *op)
{
	for (;;) {
		uint32_t want = 0;
		int err = read_lookup(op, &want);

		if (!err) {
			err = read_wait(op);
			if (!err)
				return 0;
			/* One is gone: truncated or punched, so look again. */
			read_drop(op);
			if (err != -EAGAIN)
				return err;
			continue;
		}
		read_drop(op);
		if (err == -ENOBUFS)
			err = slu_frames_claim(&op->ticket, want, 0, 0, NULL);
		else if (err == -EAGAIN)
			err = slu_need_wait(&op->need);
		if (err)
			return err;
	}
}

static int read_op_init(struct read_op *op)
{
	op->first = op->pos >> SLU_BLOCK_SHIFT;
	op->cap = (uint32_t)(slu_bytes_to_blocks(op->pos + op->len) - op->first);
	op->ticket = (struct slu_frames)SLU_FRAMES_INIT(op->as->cache);
	op->frames = slu_calloc(op->cap, sizeof(*op->frames));
	op->pages = slu_calloc(op->cap, sizeof(struct slu_page *));
	if (op->frames && op->pages)
		return 0;
	slu_free(op->frames);
	slu_free(op->pages);
	return -ENOMEM;
}

/* ------------------------------------------------------------------ slu_read */

/* The bytes as vectors; frames that lie next to each other become one. */
static void read_vectors(struct read_op *op, struct slu_read_vec *v)
{
	struct slu_cache *c = op->as->cache;
	uint64_t off = op->pos & (SLU_BLOCK_SIZE - 1), left = op->len;
	uint32_t last = SLU_FRAME_NONE;

	v->len = op->len;
	for (uint32_t i = 0; i < op->n; i++) {
		uint64_t len = slu_min(SLU_BLOCK_SIZE - off, left);
		uint32_t frame = op->frames[i];
		struct iovec *iov = &v->iov[v->niov];
		bool next;

		if (frame == FRAME_ZEROS)
			next = last == FRAME_ZEROS && iov[-1].iov_len + len <= SLU_ZERO_BYTES;
		else
			next = v->niov && last < FRAME_ZEROS && frame == last + 1;
		if (next) {
			iov[-1].iov_len += len;
		} else {
			iov->iov_base = frame == FRAME_ZEROS
						? (void *)slu_cache_zeros(c)
						: (char *)slu_frame_data(c, frame) + off;
			iov->iov_len = len;
			v->niov++;
		}
		if (frame == FRAME_ZEROS)
			op->frames[i] = SLU_FRAME_NONE;
		last = frame;
		left -= len;
		off = 0;
	}
}

int slu_read(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pos, uint64_t len,
	     unsigned int ahead, struct slu_read_vec *ret)
{
	struct read_op op = {
		.as = as, .bio = bio, .pos = pos, .len = len, .clip = true, .ahead = ahead};
	struct slu_read_vec v = {.cache = as->cache};
	uint64_t size = slu_aspace_size(as);
	int err;

	slu_assert_no_locks("a read");
	*ret = v;
	if (pos >= size || !len)
		return 0;
	op.len = slu_min(len, size - pos);
	err = read_op_init(&op);
	if (err)
		return err;
	v.iov = slu_calloc(op.cap, sizeof(*v.iov));
	err = v.iov ? read_pages(&op) : -ENOMEM;
	slu_frames_release(&op.ticket);
	slu_free(op.pages);
	if (err) {
		slu_free(v.iov);
		slu_free(op.frames);
		return err;
	}
	v.frames = op.frames;
	v.nframes = op.n;
	read_vectors(&op, &v);
	*ret = v;
	return 0;
}

void slu_read_done(struct slu_read_vec *v)
{
	if (v->nframes)
		slu_frames_put(v->cache, v->frames, v->nframes);
	slu_free(v->frames);
	slu_free(v->iov);
	*v = (struct slu_read_vec){.cache = v->cache};
}

/* ------------------------------------------------------------------ for partial pages */

static int page_need_wait(struct slu_need *need)
{
	struct slu_aspace *as = need->owner;
	struct read_op op = {
		.as = as,
		.bio = (struct slu_blockio *)(uintptr_t)need->arg[0],
		.pos = need->arg[1] << SLU_BLOCK_SHIFT,
		.len = SLU_BLOCK_SIZE,
	};
	int err = read_op_init(&op);

	if (err)
		return err;
	err = read_pages(&op);
	if (!err)
		read_drop(&op);
	slu_frames_release(&op.ticket);
	slu_free(op.pages);
	slu_free(op.frames);
	atomic_fetch_add_explicit(&slu_cache_write_stats(as->cache)->partial_reads, 1,
				  memory_order_relaxed);
	return err;
}

/* For who must not fail for want of memory. */
static int page_need_wait_memory(struct slu_need *need)
{
	int err;

	while ((err = page_need_wait(need)) == -ENOMEM)
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	return err;
}

int need_page(struct slu_need *need, struct slu_aspace *as, struct slu_blockio *bio, uint64_t pgidx,
	      bool no_enomem)
{
	*need = (struct slu_need){
		.wait = no_enomem ? page_need_wait_memory : page_need_wait,
		.what = "a page to be read",
		.owner = as,
		.arg = {(uint64_t)(uintptr_t)bio, pgidx},
	};
	return -EAGAIN;
}
