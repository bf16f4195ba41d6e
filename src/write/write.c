/* SPDX-License-Identifier: MIT */
/*
 * The write path.
 *
 *	Copy what is ready under the lock; wait for more with no lock held.
 *
 * Called by the layer that has decoded the request, with no lock held. A write is a row of
 * segments. Each has the inode's lock exclusive from its map to its finish (segment.c) and waits
 * for nothing meanwhile; everything that is waited for is waited for here, between two segments:
 * cache pages (the ticket, taken before the lock), a page that has to be read in, what reserve
 * needs, the source. Keeps no state between calls.
 *
 * Who holds what while what happens:
 *
 *	claim frames, range nodes	nothing
 *	map, reserve			as->lock
 *	copy of a full page		as->lock; the frame is private
 *	copy of a partial page		as->lock; uptodate: the frame is private
 *	  of a tail not uptodate	as->lock; its page lock, from the copy to the end of finish
 *	publish				as->lock, and a page lock for the swap alone
 *	finish				as->lock, the tail's page lock: dirty, size, unreserve
 *	fault_in, read in, claim	nothing
 *
 * Every copy is the source's copy_nofault. Which lock is held where is decided in segment.c alone,
 * function by function as in this table.
 *
 * A partial head or tail page that is not uptodate and lies on MAPPED blocks is read in first
 * (with no lock held), at the head as at the tail: a segment of its own for the head would take
 * the lock twice for every unaligned write, and the read has to be waited for all the same.
 *
 * SLU_WRITE_KERNEL_CACHE. Such a request is one segment over as many mappings as it takes: frames
 * are claimed (out of what is kept back) and all mappings are reserved before the first byte is
 * copied, and a mapping that cannot be reserved undoes the others: nothing has changed then but
 * that the zeroed end of the old last page may be dirty. So it succeeds whole or fails whole, as
 * long as it has at most SEGMENT_PAGES pages (a FUSE request has), the cache has eight times as
 * many frames, and the source has everything ready (a request buffer has). Beyond that it is
 * several segments, whole or failed each, and the call fails if one does.
 */
#include "write_private.h"
#include <string.h>

/* pages of a segment that starts at pos with `left` bytes to go */
static uint32_t segment_pages(const struct write_op *op)
{
	uint64_t first = op->pos >> SLU_BLOCK_SHIFT;
	uint64_t end = slu_bytes_to_blocks(op->pos + op->left);

	return (uint32_t)slu_min(end - first, (uint64_t)op->max_pages);
}

static int op_claim(struct write_op *op, struct slu_need *need)
{
	/* Where an append ends up is known under the lock only: one page more. */
	uint32_t n = slu_min(segment_pages(op) + 1, op->max_pages);
	unsigned int flags = op->flags & SLU_WRITE_KERNEL_CACHE ? SLU_FRAMES_KEPT_BACK : 0;
	int err;

	if (slu_cache_fill_ranges(op->as->cache) && !(op->flags & SLU_WRITE_KERNEL_CACHE))
		return -ENOMEM;
	/* And the old last page may become dirty, if the file grows behind it. */
	err = slu_frames_claim(&op->frames, n + SEGMENT_SPARE_FRAMES, n + 1, flags, need);
	if (err == -EAGAIN)
		op->need = *need;
	return err;
}

/* Ticket, lock, segment. -EAGAIN with op->need. */
static int op_segment(struct write_op *op, bool may_wait)
{
	struct slu_aspace *as = op->as;
	struct slu_need need;
	int err = op_claim(op, may_wait ? NULL : &need);

	if (err)
		return err;
	slu_stress_point("write.before_lock");
	slu_rwlock_wrlock(&as->lock);
	err = segment_write(op);
	slu_rwlock_wrunlock(&as->lock);
	return err;
}

/* Memory comes back; the kernel's data would not. */
static int memory_need_wait(struct slu_need *need)
{
	slu_sleep_ns(10 * SLU_NS_PER_MS);
	return 0;
}

/* A request that must not fail for want of memory waits for it. */
static int op_no_memory(struct write_op *op, int err)
{
	if (err != -ENOMEM || !(op->flags & SLU_WRITE_KERNEL_CACHE))
		return err;
	op->need = (struct slu_need){.wait = memory_need_wait,
				     .what = "memory",
				     .owner = op,
				     .slow = true};
	return -EAGAIN;
}

/* Waits for what the segment asked for; the ticket is not kept over a slow wait. */
static int op_wait(struct write_op *op)
{
	if (op->need.slow && op->carry == SLU_FRAME_NONE)
		slu_frames_release(&op->frames);
	return op_no_memory(op, slu_need_wait(&op->need));
}

/* After a short copy: 0 to go on. What is carried is still written, and then that is the end. */
static int op_fault_in(struct write_op *op)
{
	int err;

	atomic_fetch_add_explicit(&op->stats->fault_ins, 1, memory_order_relaxed);
	op->short_copy = false;
	slu_stress_point("write.before_fault_in");
	err = op->src->ops->fault_in(op->src, op->left - op->carry_len);
	if (!err)
		return 0;
	if (op->carry == SLU_FRAME_NONE)
		return err;
	op->left = op->carry_len;
	op->source_error = err;
	return 0;
}

static int op_run(struct write_op *op, struct slu_need *need)
{
	int err = 0;

	while (op->left && !err) {
		/* Bytes that were taken from the source are not left to the caller. */
		bool may_wait = !need || op->carry != SLU_FRAME_NONE;

		err = op_no_memory(op, op_segment(op, may_wait));
		while (err == -EAGAIN && may_wait)
			err = op_wait(op);
		if (err == -EAGAIN) {
			*need = op->need;
			return err;
		}
		if (!err && op->short_copy && op->left)
			err = op_fault_in(op);
	}
	return err ? err : op->source_error;
}

static int op_result(struct write_op *op, int err)
{
	if (err == -ENOSPC)
		atomic_fetch_add_explicit(&op->stats->no_space, 1, memory_order_relaxed);
	if (err == -EAGAIN || !err)
		return err;
	/* The kernel ignores a short count for its own pages. */
	if (op->done && !(op->flags & SLU_WRITE_KERNEL_CACHE))
		return 0;
	return err == -ENODATA ? -EIO : err;
}

int slu_write(struct slu_aspace *as, struct slu_source *src, uint64_t pos, uint64_t len,
	      unsigned int flags, struct slu_write_result *ret, struct slu_need *need)
{
	struct slu_cache *cache = as->cache;
	struct write_op op = {
		.as = as,
		.src = src,
		.stats = slu_cache_write_stats(cache),
		.flags = flags,
		.max_pages = slu_min(SEGMENT_PAGES, slu_cache_max_claim(cache) / 2),
		.pos = pos,
		.left = slu_min(len, (uint64_t)INT64_MAX - slu_min(pos, (uint64_t)INT64_MAX)),
		.frames = SLU_FRAMES_INIT(cache),
		.carry = SLU_FRAME_NONE,
	};
	int err;

	slu_assert_no_locks("a write");
	*ret = (struct slu_write_result){0};
	if (!len)
		return 0;
	if (!as->wb)
		return -EROFS;
	if (pos >= INT64_MAX)
		return -EFBIG;
	err = slu_aspace_failed(as);
	if (err)
		return err;
	op.bio = slu_writeback_blockio(as->wb);

	err = op_run(&op, need);
	if (op.carry != SLU_FRAME_NONE)
		slu_frames_return(&op.frames, op.carry);
	slu_frames_release(&op.frames);
	atomic_fetch_add_explicit(&op.stats->writes, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&op.stats->bytes, op.done, memory_order_relaxed);
	ret->done = op.done;
	return op_result(&op, err);
}
