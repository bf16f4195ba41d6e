/* SPDX-License-Identifier: MIT */
/*
 * The volume as an iomap backend: the way of a block from HOLE to MAPPED.
 *
 * Owns each inode's delalloc set and reservation, both under iomap.lock (rank EXTENTS); the
 * volume's space and store take their locks inside it. Called by the write path (map, reserve,
 * unreserve), by readers (map) and by writeback (map, allocate, complete). Only complete() waits by
 * itself, and only with no lock held; the others wait where their caller gave no need.
 *
 * An extent's record enters a transaction in complete() alone, when its data is on the disk: no
 * record ever leads to a block that was not written for it.
 */
#include "volume_private.h"

/* ------------------------------------------------------------------ delalloc values */

#define VALUE_RESERVED 0ull
#define VALUE_FLIP     (1ull << 63) /* |block number - file block| < 2^53: flipped, it is never 0 */

static uint64_t value_in_flight(uint64_t blkno, uint64_t fileblk)
{
	return (blkno - fileblk) ^ VALUE_FLIP;
}

void volume_check(const struct slu_volume_inode *vi)
{
#ifdef SLU_DEBUG_LOCKS
	uint64_t reserved = 0, in_flight = 0, pos = 0;
	struct slu_range r;

	slu_assert(vi->reservation.records == vi->delalloc.weight);
	slu_assert(vi->reservation.blocks == vi->delalloc.weight - vi->in_flight);
	/* Every range of a large set at every call would make it quadratic. */
	if (vi->delalloc.count > 64)
		return;
	for (; slu_ranges_at_or_after(&vi->delalloc, pos, &r); pos = r.end) {
		if (r.value == VALUE_RESERVED)
			reserved += r.end - r.start;
		else
			in_flight += r.end - r.start;
	}
	slu_assert(reserved == vi->reservation.blocks && in_flight == vi->in_flight);
#endif
}

/*
 * Makes the pool as large as all delalloc sets together can come to need with n blocks more. Under
 * iomap.lock; takes leaf locks. 0 or -ENOMEM.
 */
static int nodes_promise(struct slu_volume *vol, uint64_t n)
{
	uint64_t want = atomic_fetch_add(&vol->ndelalloc, n) + n;
	uint64_t total, nfree;
	int err = 0;

	do {
		slu_mutex_lock(&vol->ranges.lock);
		total = vol->ranges.ntotal;
		nfree = vol->ranges.nfree;
		slu_mutex_unlock(&vol->ranges.lock);
		if (total >= want)
			return 0;
		/* Nodes given back meanwhile count as filled: then it is short, and once more. */
		err = slu_range_pool_fill(&vol->ranges, nfree + (want - total));
	} while (!err);
	atomic_fetch_sub(&vol->ndelalloc, n);
	return err;
}

static void nodes_release(struct slu_volume *vol, uint64_t n)
{
	uint64_t before = atomic_fetch_sub(&vol->ndelalloc, n);

	slu_assert(before >= n);
}

/* Sets and clears that nodes_promise has paid for. */
static void delalloc_set(struct slu_volume_inode *vi, uint64_t first, uint64_t end, uint64_t value)
{
	int err = slu_ranges_set(&vi->delalloc, first, end, value);

	slu_assert(!err);
}

static void delalloc_clear(struct slu_volume_inode *vi, uint64_t first, uint64_t end)
{
	int err = slu_ranges_clear(&vi->delalloc, first, end);

	slu_assert(!err);
	nodes_release(vi->vol, end - first);
}

/* The blocks that a mapping stands for. */
static void mapping_blocks(const struct slu_iomap *m, uint64_t *ret_first, uint64_t *ret_end)
{
	slu_assert(m->len > 0 && m->len <= UINT64_MAX - m->pos);
	*ret_first = m->pos >> SLU_BLOCK_SHIFT;
	*ret_end = ((m->pos + m->len - 1) >> SLU_BLOCK_SHIFT) + 1;
}

/* ------------------------------------------------------------------ map */

int volume_lookup(struct slu_volume_inode *vi, uint64_t first, uint64_t most, struct piece *ret,
		  struct slu_need *need)
{
	struct slu_range r;

	if (slu_ranges_at_or_after(&vi->delalloc, first, &r)) {
		if (r.start <= first) {
			*ret = (struct piece){.type = SLU_IOMAP_DELALLOC,
					      .nblocks = slu_min(most, r.end - first)};
			return 0;
		}
		most = slu_min(most, r.start - first);
	}
	return extent_lookup(vi, first, most, ret, need);
}

static int volume_map(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len,
		      struct slu_iomap *ret, struct slu_need *need)
{
	struct slu_volume_inode *vi = volume_inode(inode);
	uint64_t first = pos >> SLU_BLOCK_SHIFT, most;
	struct volume_wait wait;
	struct piece piece;
	int err;

	slu_assert(len > 0 && len <= UINT64_MAX - pos);
	volume_count(vi->vol, maps, 1);
	most = ((pos + len - 1) >> SLU_BLOCK_SHIFT) - first + 1;
	most = slu_min(most, SLU_IOMAP_MAX_PAGES);
	volume_wait_init(&wait, vi->vol, need);
	do {
		slu_mutex_lock(&inode->lock);
		err = volume_lookup(vi, first, most, &piece, wait.need);
		slu_mutex_unlock(&inode->lock);
	} while (volume_wait(&wait, &err));
	if (err)
		return err;
	*ret = (struct slu_iomap){
		.pos = pos,
		.len = slu_min(len, ((first + piece.nblocks) << SLU_BLOCK_SHIFT) - pos),
		.blkno = piece.blkno,
		.type = piece.type,
	};
	return 0;
}

/* ------------------------------------------------------------------ reserve, unreserve */

static int reserve_locked(struct slu_volume_inode *vi, uint64_t first, uint64_t end,
			  struct slu_need *need)
{
	uint64_t n = end - first;
	int err;

	slu_assert(slu_ranges_covered(&vi->delalloc, first, end) == 0);
	err = nodes_promise(vi->vol, n);
	if (err)
		return err;
	/* Each block may come to need a record of its own. */
	err = slu_space_reserve(vi->vol->store, &vi->reservation, n, n, need);
	if (err) {
		nodes_release(vi->vol, n);
		return err;
	}
	delalloc_set(vi, first, end, VALUE_RESERVED);
	volume_check(vi);
	return 0;
}

static int volume_reserve(struct slu_iomap_inode *inode, struct slu_iomap *mapping,
			  struct slu_need *need)
{
	struct slu_volume_inode *vi = volume_inode(inode);
	struct volume_wait wait;
	uint64_t first, end;
	int err;

	mapping->reserved = 0;
	/* Nor what would be written in place: no commit will ever vouch for it. */
	if (slu_store_readonly(vi->vol->store))
		return -EROFS;
	if (mapping->type != SLU_IOMAP_HOLE)
		return 0;
	mapping_blocks(mapping, &first, &end);
	slu_assert(end - first <= SLU_IOMAP_MAX_PAGES);
	volume_wait_init(&wait, vi->vol, need);
	do {
		slu_mutex_lock(&inode->lock);
		err = reserve_locked(vi, first, end, wait.need);
		slu_mutex_unlock(&inode->lock);
	} while (volume_wait(&wait, &err));
	if (err)
		return err;
	volume_count(vi->vol, reserves, 1);
	mapping->type = SLU_IOMAP_DELALLOC;
	mapping->reserved = (uint32_t)(end - first);
	return 0;
}

/* Reserved → HOLE, all of [first, end). */
static void unreserve_locked(struct slu_volume_inode *vi, uint64_t first, uint64_t end)
{
	struct slu_range r;

	for (uint64_t pos = first; pos < end; pos = r.end) {
		bool found = slu_ranges_find(&vi->delalloc, pos, &r);

		slu_assert(found && r.value == VALUE_RESERVED);
	}
	delalloc_clear(vi, first, end);
	slu_space_unreserve(vi->vol->store, &vi->reservation, end - first, end - first);
	volume_check(vi);
}

static void volume_unreserve(struct slu_iomap_inode *inode, struct slu_iomap *mapping,
			     uint64_t rest)
{
	struct slu_volume_inode *vi = volume_inode(inode);
	uint64_t first, end, kept;

	slu_assert(rest <= mapping->len);
	if (!mapping->reserved || !rest)
		return;
	mapping_blocks(mapping, &first, &end);
	kept = mapping->len - rest;
	if (kept)
		first = ((mapping->pos + kept - 1) >> SLU_BLOCK_SHIFT) + 1;
	if (first == end)
		return;
	volume_count(vi->vol, unreserves, 1);
	slu_assert(mapping->reserved >= end - first);
	slu_mutex_lock(&inode->lock);
	unreserve_locked(vi, first, end);
	slu_mutex_unlock(&inode->lock);
	mapping->reserved -= (uint32_t)(end - first);
}

bool volume_cancel(struct slu_volume_inode *vi, uint64_t first, uint64_t end, unsigned int most)
{
	struct slu_range r;

	while (slu_ranges_at_or_after(&vi->delalloc, first, &r) && r.start < end) {
		/* Truncate and punch wait for writeback before they come here. */
		slu_assert(r.value == VALUE_RESERVED);
		if (most-- == 0)
			return true;
		unreserve_locked(vi, slu_max(first, r.start), slu_min(end, r.end));
	}
	return false;
}

/* ------------------------------------------------------------------ allocate */

static int allocate_locked(struct slu_volume_inode *vi, uint64_t first, uint64_t end,
			   uint64_t *ret_blkno, uint64_t *ret_n, struct slu_need *need)
{
	struct slu_volume *vol = vi->vol;
	uint64_t goal = vi->goal;
	struct slu_range r;
	bool found = slu_ranges_find(&vi->delalloc, first, &r);
	int err;

	slu_assert(found && r.value == VALUE_RESERVED);
	/* The first since it was opened: on from where its last extent ends. */
	if (!goal) {
		err = extent_goal(vi, first, &goal, need);
		if (err == -EAGAIN)
			return err;
	}
	if (!goal)
		goal = atomic_load_explicit(&vol->goal, memory_order_relaxed);
	err = slu_space_take(vol->store, &vi->reservation, goal, slu_min(end, r.end) - first,
			     ret_blkno, ret_n, need);
	if (err)
		return err;
	slu_assert(*ret_n >= 1 && *ret_n <= slu_min(end, r.end) - first);
	delalloc_set(vi, first, first + *ret_n, value_in_flight(*ret_blkno, first));
	vi->in_flight += *ret_n;
	vi->goal = *ret_blkno + *ret_n;
	atomic_store_explicit(&vol->goal, vi->goal, memory_order_relaxed);
	volume_check(vi);
	return 0;
}

static int volume_allocate(struct slu_iomap_inode *inode, struct slu_iomap *mapping,
			   uint64_t copied, struct slu_need *need)
{
	struct slu_volume_inode *vi = volume_inode(inode);
	struct slu_iomap part = *mapping;
	uint64_t first, end, blkno, n;
	struct volume_wait wait;
	int err;

	slu_assert(mapping->type == SLU_IOMAP_DELALLOC && copied && copied <= mapping->len);
	part.len = copied;
	mapping_blocks(&part, &first, &end);
	volume_wait_init(&wait, vi->vol, need);
	do {
		slu_mutex_lock(&inode->lock);
		err = allocate_locked(vi, first, end, &blkno, &n, wait.need);
		slu_mutex_unlock(&inode->lock);
	} while (volume_wait(&wait, &err));
	if (err)
		return err;
	volume_count(vi->vol, allocates, 1);
	volume_count(vi->vol, allocated_blocks, n);
	mapping->blkno = blkno;
	mapping->len = slu_min(copied, ((first + n) << SLU_BLOCK_SHIFT) - mapping->pos);
	return 0;
}

/* ------------------------------------------------------------------ complete */

/* All of [first, end) is in flight to blkno and on. */
static void check_in_flight(struct slu_volume_inode *vi, uint64_t first, uint64_t end,
			    uint64_t blkno)
{
	struct slu_range r;
	bool found = slu_ranges_find(&vi->delalloc, first, &r);

	slu_assert(found && r.end >= end && r.value == value_in_flight(blkno, first));
}

/* In flight → reserved. */
static void complete_failed(struct slu_volume_inode *vi, const struct slu_iomap *mapping)
{
	uint64_t first, end;

	if (mapping->type != SLU_IOMAP_DELALLOC)
		return;
	mapping_blocks(mapping, &first, &end);
	slu_mutex_lock(&vi->iomap.lock);
	check_in_flight(vi, first, end, mapping->blkno);
	delalloc_set(vi, first, end, VALUE_RESERVED);
	vi->in_flight -= end - first;
	slu_space_untake(vi->vol->store, &vi->reservation, mapping->blkno, end - first);
	volume_check(vi);
	slu_mutex_unlock(&vi->iomap.lock);
}

/* In flight → MAPPED; one round. */
static int complete_delalloc(struct slu_volume_inode *vi, const struct slu_iomap *mapping,
			     struct slu_ticket *ticket, uint64_t disk_size, struct slu_need *need)
{
	struct extent run = {.blkno = mapping->blkno};
	struct window w;
	uint64_t end;
	int err;

	mapping_blocks(mapping, &run.off, &end);
	run.nblocks = (uint32_t)(end - run.off);
	check_in_flight(vi, run.off, end, run.blkno);
	err = window_load(&w, vi, run.off, end, 1, need);
	if (!err)
		err = window_insert(&w, &run, 1);
	w.data_end = end;
	if (!err)
		err = window_apply(&w, ticket, disk_size, need);
	window_fini(&w);
	if (err)
		return err;
	delalloc_clear(vi, run.off, end);
	vi->in_flight -= run.nblocks;
	/* The record is written: what was set aside for it goes back. */
	slu_space_unreserve(vi->vol->store, &vi->reservation, 0, run.nblocks);
	volume_check(vi);
	return 0;
}

/* UNWRITTEN → MAPPED from *first on; one round, which moves *first on. */
static int complete_unwritten(struct slu_volume_inode *vi, const struct slu_iomap *mapping,
			      uint64_t *first, uint64_t end, struct slu_ticket *ticket,
			      uint64_t disk_size, struct slu_need *need)
{
	uint64_t blkno = mapping->blkno + (*first - (mapping->pos >> SLU_BLOCK_SHIFT));
	struct window w;
	int err = window_load(&w, vi, *first, end, 1, need);

	/* Nobody may take the blocks away while they are written, so the image has changed. */
	if (!err && !window_lies_at(&w, blkno))
		err = volume_bad_extent(vi, *first, "an extent is not what it was");
	if (!err) {
		window_flip(&w, 0);
		w.data_end = w.end;
		if (window_changed(&w) || volume_size_moves(vi, disk_size))
			err = window_apply(&w, ticket, disk_size, need);
	}
	if (!err)
		*first = w.end;
	window_fini(&w);
	return err;
}

/* The owner's record alone, for its size. */
static int complete_size(struct slu_volume_inode *vi, uint64_t first, struct slu_ticket *ticket,
			 uint64_t disk_size, struct slu_need *need)
{
	struct window w;
	int err;

	if (!volume_size_moves(vi, disk_size))
		return 0;
	window_init(&w, vi, first, first + 1);
	err = window_apply(&w, ticket, disk_size, need);
	window_fini(&w);
	return err;
}

/* The size that complete() is to record: never less than what is recorded. iomap.lock is held. */
static uint64_t forward_size(struct slu_volume_inode *vi, uint64_t disk_size)
{
	const struct slu_iomap_owner *owner = vi->iomap.owner;

	if (!owner || !owner->disk_size || disk_size == SLU_DISK_SIZE_KEEP)
		return disk_size;
	return slu_max(disk_size, owner->disk_size(&vi->iomap));
}

/* Nothing to record: overwritten in place, below the size on disk. */
static bool complete_in_place(struct slu_volume_inode *vi, const struct slu_iomap *mapping,
			      uint64_t disk_size)
{
	bool nothing;

	if (mapping->type != SLU_IOMAP_MAPPED)
		return false;
	slu_mutex_lock(&vi->iomap.lock);
	nothing = !volume_size_moves(vi, forward_size(vi, disk_size));
	slu_mutex_unlock(&vi->iomap.lock);
	return nothing;
}

/*
 * The most that one round puts or deletes: the records of a window of one with both its neighbours,
 * two edges, the owner's.
 */
#define COMPLETE_RECORDS (5u + SLU_OWNER_RECORDS)

static int complete_record(struct slu_volume_inode *vi, const struct slu_iomap *mapping,
			   uint64_t disk_size)
{
	struct slu_store *store = vi->vol->store;
	struct slu_ticket ticket = {0};
	struct volume_wait wait;
	uint64_t first, end, size;
	int err;

	mapping_blocks(mapping, &first, &end);
	volume_wait_init(&wait, vi->vol, NULL);
	/*
	 * Each round of an unwritten mapping has a ticket of its own; there is nearly always one.
	 */
	do {
		err = slu_ticket_get(store, &ticket, COMPLETE_RECORDS, RECORD_BYTES(3),
				     SLU_TICKET_KEPT_BACK, NULL);
		if (err)
			return err;
		do {
			slu_mutex_lock(&vi->iomap.lock);
			size = forward_size(vi, disk_size);
			if (mapping->type == SLU_IOMAP_UNWRITTEN) {
				err = complete_unwritten(vi, mapping, &first, end, &ticket, size,
							 wait.need);
			} else {
				err = mapping->type == SLU_IOMAP_DELALLOC
					      ? complete_delalloc(vi, mapping, &ticket, size,
								  wait.need)
					      : complete_size(vi, first, &ticket, size, wait.need);
				first = end;
			}
			slu_mutex_unlock(&vi->iomap.lock);
		} while (volume_wait(&wait, &err));
		slu_ticket_put(&ticket);
	} while (!err && first < end);
	return err;
}

static int volume_complete(struct slu_iomap_inode *inode, const struct slu_iomap *mapping,
			   int result, uint64_t disk_size)
{
	struct slu_volume_inode *vi = volume_inode(inode);
	int err = 0;

	slu_assert_no_locks("complete");
	slu_assert(mapping->type != SLU_IOMAP_HOLE && mapping->blkno && result <= 0);
	volume_count(vi->vol, completes, 1);
	if (!result && complete_in_place(vi, mapping, disk_size)) {
		volume_count(vi->vol, completes_in_place, 1);
		return 0;
	}
	if (!result)
		err = result = complete_record(vi, mapping, disk_size);
	if (result) {
		volume_count(vi->vol, complete_errors, 1);
		complete_failed(vi, mapping);
	}
	return err;
}

/* ------------------------------------------------------------------ life */

static void volume_forget(struct slu_iomap_inode *inode)
{
	slu_mutex_lock(&inode->lock);
	volume_cancel(volume_inode(inode), 0, FILE_BLOCKS_END, UINT32_MAX);
	slu_mutex_unlock(&inode->lock);
}

static const struct slu_iomap_ops volume_ops = {
	.map = volume_map,
	.reserve = volume_reserve,
	.unreserve = volume_unreserve,
	.allocate = volume_allocate,
	.complete = volume_complete,
	.remove = volume_remove,
	.forget = volume_forget,
};

#define PREFILL_MAX 4096u

int slu_volume_init(struct slu_volume *vol, struct slu_store *store, struct slu_blockio *bio,
		    uint64_t max_dirty_pages)
{
	struct slu_store_info info;

	*vol = (struct slu_volume){.store = store, .bio = bio};
	slu_store_info(store, &info);
	atomic_store(&vol->nblocks, info.nblocks);
	return slu_range_pool_init(&vol->ranges, slu_min(max_dirty_pages, PREFILL_MAX), 0);
}

void slu_volume_fini(struct slu_volume *vol)
{
	slu_assert(atomic_load(&vol->ndelalloc) == 0);
	slu_range_pool_fini(&vol->ranges);
}

void slu_volume_inode_init(struct slu_volume_inode *vi, struct slu_volume *vol, uint64_t ino,
			   const struct slu_iomap_owner *owner)
{
	*vi = (struct slu_volume_inode){.iomap = {.ops = &volume_ops, .owner = owner, .ino = ino},
					.vol = vol};
	slu_mutex_init(&vi->iomap.lock, SLU_RANK_EXTENTS, ino, "extents");
	slu_ranges_init(&vi->delalloc, &vol->ranges, true);
}

void slu_volume_inode_fini(struct slu_volume_inode *vi)
{
	slu_assert(slu_ranges_empty(&vi->delalloc));
	slu_assert(vi->reservation.blocks == 0 && vi->reservation.records == 0);
	slu_ranges_fini(&vi->delalloc);
	slu_mutex_fini(&vi->iomap.lock);
}
