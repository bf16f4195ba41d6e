/* SPDX-License-Identifier: MIT */
/*
 * What truncate, punch and fallocate do to extents: remove, punch, prealloc, zero_range.
 *
 * Called with the inode's rwlock held exclusive, so with a need; takes iomap.lock (rank EXTENTS).
 * Each call changes one window of records in one batch, and the caller comes again. A ticket is
 * taken when the window is known, under the lock and hence without waiting.
 */
#include "volume_private.h"

#define CANCEL_RANGES   256u           /* delalloc ranges that one call gives back */
#define REMOVE_BLOCKS   SLU_EXTENT_MAX /* blocks that one call frees */
#define PREALLOC_BLOCKS (16u << 10)    /* and sets aside: 64 MiB */
#define PREALLOC_GAPS   (WINDOW_RUNS / 2)

/* A window's edit: fills w->new. Returns an error, or 0. */
typedef int window_edit_fn(struct window *w);

/*
 * One window of [first, *end), at iomap.lock; *end becomes what was done. A batch only if something
 * changes.
 */
static int change_window(struct slu_volume_inode *vi, uint64_t first, uint64_t *end,
			 uint64_t most_blocks, window_edit_fn *edit, uint64_t disk_size,
			 struct slu_need *need)
{
	struct slu_ticket ticket = {0};
	uint32_t nrecords;
	struct window w;
	int err;

	err = window_load(&w, vi, first, *end, WINDOW_INNER, need);
	if (err)
		goto out;
	window_limit(&w, most_blocks);
	err = edit(&w);
	if (err)
		goto out;
	if (window_changed(&w) || volume_size_moves(vi, disk_size)) {
		nrecords = window_records(&w, 0);
		err = slu_ticket_get(vi->vol->store, &ticket, nrecords, RECORD_BYTES(2),
				     SLU_TICKET_KEPT_BACK, need);
		if (!err)
			err = window_apply(&w, &ticket, disk_size, need);
		slu_ticket_put(&ticket);
	}
	if (!err)
		*end = w.end;
	if (!err && w.dblocks < 0)
		volume_count(vi->vol, removed_blocks, (uint64_t)-w.dblocks);
out:
	window_fini(&w);
	return err;
}

/* ------------------------------------------------------------------ remove */

static int edit_cut(struct window *w)
{
	window_cut(w);
	return 0;
}

int volume_remove(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, uint64_t disk_size,
		  struct slu_need *need)
{
	struct slu_volume_inode *vi = volume_inode(inode);
	uint64_t first = pos >> SLU_BLOCK_SHIFT, end, done;
	struct volume_wait wait;
	bool more = false;
	int err;

	slu_assert(pos % SLU_BLOCK_SIZE == 0 && len <= UINT64_MAX - pos);
	slu_assert(len % SLU_BLOCK_SIZE == 0 || len == UINT64_MAX - pos);
	end = first + slu_bytes_to_blocks(len);
	if (first == end)
		return 0;
	volume_count(vi->vol, removes, 1);
	volume_wait_init(&wait, vi->vol, need);
	do {
		done = end;
		slu_mutex_lock(&inode->lock);
		/*
		 * Reservations go first and by themselves: they need no record, and a volume that
		 * cannot be written any more still has to let go of them.
		 */
		more = volume_cancel(vi, first, end, CANCEL_RANGES);
		err = 0;
		if (!more)
			err = change_window(vi, first, &done, REMOVE_BLOCKS, edit_cut, disk_size,
					    wait.need);
		slu_mutex_unlock(&inode->lock);
	} while (volume_wait(&wait, &err));
	if (err)
		return err;
	return more || done < end;
}

/* ------------------------------------------------------------------ punch, zero_range */

static int edit_unwritten(struct window *w)
{
	window_flip(w, SLU_EXTENT_UNWRITTEN);
	return 0;
}

/* How far there are no more reservations than one call gives back. */
static uint64_t cancel_reach(struct slu_volume_inode *vi, uint64_t first, uint64_t end)
{
	uint64_t at = first;
	struct slu_range r;

	for (unsigned int n = 0; slu_ranges_at_or_after(&vi->delalloc, at, &r) && r.start < end;
	     n++) {
		if (n == CANCEL_RANGES)
			return r.start;
		at = r.end;
	}
	return end;
}

/* One window, its reservations included, all or nothing. */
static int clear_window(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end,
			uint64_t most_blocks, window_edit_fn *edit, uint64_t disk_size,
			struct slu_need *need)
{
	uint64_t first = *pos >> SLU_BLOCK_SHIFT, done;
	struct volume_wait wait;
	int err;

	slu_assert(*pos % SLU_BLOCK_SIZE == 0 && end % SLU_BLOCK_SIZE == 0);
	if (*pos >= end)
		return 0;
	volume_wait_init(&wait, vi->vol, need);
	do {
		slu_mutex_lock(&vi->iomap.lock);
		done = cancel_reach(vi, first, end >> SLU_BLOCK_SHIFT);
		err = change_window(vi, first, &done, most_blocks, edit, disk_size, wait.need);
		if (!err)
			(void)volume_cancel(vi, first, done, UINT32_MAX);
		slu_mutex_unlock(&vi->iomap.lock);
	} while (volume_wait(&wait, &err));
	if (err)
		return err;
	*pos = done << SLU_BLOCK_SHIFT;
	return *pos < end;
}

int slu_volume_punch(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end, uint64_t disk_size,
		     struct slu_need *need)
{
	volume_count(vi->vol, removes, 1);
	return clear_window(vi, pos, end, REMOVE_BLOCKS, edit_cut, disk_size, need);
}

int slu_volume_zero_range(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end,
			  uint64_t disk_size, struct slu_need *need)
{
	volume_count(vi->vol, zero_ranges, 1);
	return clear_window(vi, pos, end, UINT64_MAX, edit_unwritten, disk_size, need);
}

/* ------------------------------------------------------------------ prealloc */

struct prealloc {
	struct slu_volume_inode *vi;
	struct window w;
	struct extent gaps[PREALLOC_GAPS]; /* off and nblocks */
	unsigned int ngaps;
	uint64_t nblocks; /* of all gaps */
	struct extent runs[WINDOW_RUNS];
	unsigned int nruns;
	struct slu_reservation reservation; /* not yet taken */
	uint64_t goal;
};

/* Adds [from, to), without what is DELALLOC. False when there is no room for more: w.end is set. */
static bool prealloc_gap(struct prealloc *p, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t end = to, next = to;
		struct slu_range r;

		if (slu_ranges_at_or_after(&p->vi->delalloc, from, &r) && r.start < to) {
			end = slu_max(from, r.start);
			next = slu_min(to, r.end);
		}
		if (from < end) {
			uint64_t n = slu_min(end - from, PREALLOC_BLOCKS - p->nblocks);

			if (n == 0 || p->ngaps == PREALLOC_GAPS) {
				p->w.end = from;
				return false;
			}
			p->gaps[p->ngaps++] = (struct extent){.off = from, .nblocks = (uint32_t)n};
			p->nblocks += n;
			if (n < end - from) {
				p->w.end = from + n;
				return false;
			}
		}
		from = next;
	}
	return true;
}

/* The holes of the window, up to the bounds of one call. */
static void prealloc_find(struct prealloc *p)
{
	uint64_t from = p->w.first, end = p->w.end;

	for (unsigned int i = 0; i < p->w.nold; i++) {
		const struct extent *e = &p->w.old[i];

		if (from < slu_min(e->off, end) && !prealloc_gap(p, from, slu_min(e->off, end)))
			return;
		from = slu_max(from, extent_end(e));
	}
	prealloc_gap(p, from, end);
}

/* Blocks for all gaps, or for as many as there is room for runs; w.end moves down then. */
static int prealloc_take(struct prealloc *p, struct slu_need *need)
{
	struct slu_store *store = p->vi->vol->store;
	uint64_t goal = p->goal;
	int err;

	for (unsigned int i = 0; i < p->ngaps; i++) {
		uint64_t from = p->gaps[i].off, end = extent_end(&p->gaps[i]);

		while (from < end) {
			uint64_t blkno, n;

			if (p->nruns == WINDOW_RUNS) {
				p->w.end = from;
				return 0;
			}
			err = slu_space_take(store, &p->reservation, goal, end - from, &blkno, &n,
					     need);
			if (err)
				return err;
			p->runs[p->nruns++] = (struct extent){.off = from,
							      .blkno = blkno,
							      .nblocks = (uint32_t)n,
							      .flags = SLU_EXTENT_UNWRITTEN};
			from += n;
			goal = blkno + n;
		}
	}
	return 0;
}

static int prealloc_apply(struct prealloc *p, uint64_t disk_size, struct slu_need *need)
{
	struct slu_ticket ticket = {0};
	uint32_t nrecords;
	int err;

	err = window_insert(&p->w, p->runs, p->nruns);
	if (err)
		return err;
	nrecords = window_records(&p->w, p->nruns);
	/* Not from the blocks kept back: this is new work, which a full volume may refuse. */
	err = slu_ticket_get(p->vi->vol->store, &ticket, nrecords, RECORD_BYTES(p->nruns), 0, need);
	if (err)
		return err;
	err = window_apply(&p->w, &ticket, disk_size, need);
	slu_ticket_put(&ticket);
	return err;
}

/* One window; iomap.lock is held. */
static int prealloc_locked(struct prealloc *p, uint64_t first, uint64_t *end, uint64_t disk_size,
			   struct slu_need *need)
{
	struct slu_volume_inode *vi = p->vi;
	struct slu_store *store = vi->vol->store;
	int err;

	err = window_load(&p->w, vi, first, *end, WINDOW_INNER, need);
	if (err)
		goto out;
	prealloc_find(p);
	if (!p->ngaps && !volume_size_moves(vi, disk_size))
		goto done;
	p->goal = vi->goal ? vi->goal : atomic_load_explicit(&vi->vol->goal, memory_order_relaxed);
	if (p->nblocks)
		err = slu_space_reserve(store, &p->reservation, p->nblocks, 0, need);
	if (err)
		goto out;
	err = prealloc_take(p, need);
	if (!err)
		err = prealloc_apply(p, disk_size, need);
	for (unsigned int i = 0; err && i < p->nruns; i++)
		slu_space_untake(store, &p->reservation, p->runs[i].blkno, p->runs[i].nblocks);
	slu_space_unreserve(store, &p->reservation, p->reservation.blocks, p->reservation.records);
	if (err)
		goto out;
	if (p->nruns) {
		vi->goal = p->runs[p->nruns - 1].blkno + p->runs[p->nruns - 1].nblocks;
		atomic_store_explicit(&vi->vol->goal, vi->goal, memory_order_relaxed);
	}
done:
	*end = p->w.end;
out:
	window_fini(&p->w);
	return err;
}

int slu_volume_prealloc(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end,
			uint64_t disk_size, struct slu_need *need)
{
	uint64_t first = *pos >> SLU_BLOCK_SHIFT, done;
	struct volume_wait wait;
	int err;

	slu_assert(*pos % SLU_BLOCK_SIZE == 0 && end % SLU_BLOCK_SIZE == 0);
	if (*pos >= end)
		return 0;
	volume_count(vi->vol, preallocs, 1);
	volume_wait_init(&wait, vi->vol, need);
	do {
		struct prealloc p = {.vi = vi};

		done = end >> SLU_BLOCK_SHIFT;
		slu_mutex_lock(&vi->iomap.lock);
		err = prealloc_locked(&p, first, &done, disk_size, wait.need);
		slu_mutex_unlock(&vi->iomap.lock);
	} while (volume_wait(&wait, &err));
	if (err)
		return err;
	*pos = done << SLU_BLOCK_SHIFT;
	return *pos < end;
}
