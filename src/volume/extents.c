/* SPDX-License-Identifier: MIT */
/*
 * Extent records: read, judged, and changed a window at a time.
 *
 * Owns nothing. Called by the verbs with iomap.lock held (rank EXTENTS); the store takes its own
 * locks inside. Never waits: -EAGAIN goes up. Whatever a record says is checked here, so that the
 * code above meets extents in order, without overlap, within the volume, and nothing else.
 */
#include "volume_private.h"
#include <string.h>

/* ------------------------------------------------------------------ records */

static struct slu_key extent_key(const struct slu_volume_inode *vi, uint64_t off)
{
	return SLU_KEY(vi->iomap.ino, SLU_REC_EXTENT, off);
}

int volume_bad_extent(struct slu_volume_inode *vi, uint64_t off, const char *text)
{
	struct slu_event ev = {
		.kind = SLU_EVENT_NODE_CORRUPT,
		.error = -EIO,
		.ino = vi->iomap.ino,
		.pos = off << SLU_BLOCK_SHIFT,
		.text = text,
	};

	volume_count(vi->vol, bad_records, 1);
	slu_event_post(&vi->vol->events, &ev);
	return -EIO;
}

/* Whether the volume has these blocks, which it may since it has grown. */
static bool blocks_exist(struct slu_volume *vol, uint64_t blkno, uint64_t nblocks)
{
	struct slu_store_info info;

	if (blkno < 2 || blkno >= SLU_MAX_BLOCKS)
		return false;
	if (blkno + nblocks <= atomic_load_explicit(&vol->nblocks, memory_order_relaxed))
		return true;
	slu_store_info(vol->store, &info);
	atomic_store_explicit(&vol->nblocks, info.nblocks, memory_order_relaxed);
	return blkno + nblocks <= info.nblocks;
}

/* len: what the store returned for the value. */
static int extent_parse(struct slu_volume_inode *vi, uint64_t off, const struct slu_disk_extent *d,
			int len, struct extent *ret)
{
	if (len != (int)sizeof(*d))
		return volume_bad_extent(vi, off, "an extent record has a wrong length");
	*ret = (struct extent){
		.off = off,
		.blkno = slu_get_le64(d->blkno.b),
		.nblocks = slu_get_le32(d->nblocks.b),
		.flags = slu_get_le32(d->flags.b),
	};
	if (ret->nblocks == 0 || ret->nblocks > SLU_EXTENT_MAX)
		return volume_bad_extent(vi, off, "an extent record has a wrong number of blocks");
	if (off >= FILE_BLOCKS_END || ret->nblocks > FILE_BLOCKS_END - off)
		return volume_bad_extent(vi, off, "an extent record reaches beyond any file");
	if (ret->flags & ~SLU_EXTENT_UNWRITTEN)
		return volume_bad_extent(vi, off, "an extent record has unknown flags");
	if (!blocks_exist(vi->vol, ret->blkno, ret->nblocks))
		return volume_bad_extent(vi, off, "an extent record points outside the volume");
	return 0;
}

/* What the store says of a lookup: 1 found, 0 not, or an error. */
static int seek_result(struct slu_volume_inode *vi, const struct slu_key *key,
		       const struct slu_disk_extent *d, int len, struct extent *ret)
{
	int err;

	if (len == -ENOENT)
		return 0;
	if (len == -ERANGE)
		return volume_bad_extent(vi, key->off, "an extent record has a wrong length");
	if (len < 0)
		return len;
	err = extent_parse(vi, key->off, d, len, ret);
	return err ? err : 1;
}

/* The last extent that starts at or before file block `off`. */
static int extent_at_or_before(struct slu_volume_inode *vi, uint64_t off, struct extent *ret,
			       struct slu_need *need)
{
	struct slu_key key = extent_key(vi, off), start = extent_key(vi, 0);
	struct slu_disk_extent d;
	int len = slu_store_seek_le(vi->vol->store, &key, &start, &d, sizeof(d), need);

	return seek_result(vi, &key, &d, len, ret);
}

/* The first extent that starts in [off, end). */
static int extent_in(struct slu_volume_inode *vi, uint64_t off, uint64_t end, struct extent *ret,
		     struct slu_need *need)
{
	struct slu_key key = extent_key(vi, off), stop = extent_key(vi, end);
	struct slu_disk_extent d;
	int len;

	if (off >= end)
		return 0;
	len = slu_store_seek_ge(vi->vol->store, &key, &stop, &d, sizeof(d), need);
	return seek_result(vi, &key, &d, len, ret);
}

int extent_lookup(struct slu_volume_inode *vi, uint64_t first, uint64_t most, struct piece *ret,
		  struct slu_need *need)
{
	struct piece piece = {.type = SLU_IOMAP_HOLE, .nblocks = most};
	struct extent e, next;
	int found = extent_at_or_before(vi, first, &e, need);

	if (found < 0)
		return found;
	if (found && extent_end(&e) > first) {
		piece.type =
			e.flags & SLU_EXTENT_UNWRITTEN ? SLU_IOMAP_UNWRITTEN : SLU_IOMAP_MAPPED;
		piece.blkno = e.blkno + (first - e.off);
		piece.nblocks = slu_min(most, extent_end(&e) - first);
	}
	found = extent_in(vi, first + 1, first + piece.nblocks, &next, need);
	if (found < 0)
		return found;
	if (found && piece.type != SLU_IOMAP_HOLE)
		return volume_bad_extent(vi, next.off, "extent records overlap");
	if (found)
		piece.nblocks = next.off - first;
	*ret = piece;
	return 0;
}

int extent_goal(struct slu_volume_inode *vi, uint64_t first, uint64_t *ret_blkno,
		struct slu_need *need)
{
	struct extent e;
	int found;

	*ret_blkno = 0;
	if (first == 0)
		return 0;
	found = extent_at_or_before(vi, first - 1, &e, need);
	if (found > 0)
		*ret_blkno = e.blkno + e.nblocks;
	return found < 0 ? found : 0;
}

/* ------------------------------------------------------------------ loading a window */

struct window_scan {
	struct slu_disk_extent records[WINDOW_OLD];
	uint64_t offs[WINDOW_OLD];
	size_t lens[WINDOW_OLD];
	unsigned int n, max;
};

/* Under the store's lock: copies and judges nothing. */
static int window_scan_record(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct window_scan *scan = ctx;

	if (scan->n == scan->max)
		return 1;
	memcpy(&scan->records[scan->n], value, slu_min(len, sizeof(struct slu_disk_extent)));
	scan->offs[scan->n] = key->off;
	scan->lens[scan->n] = len;
	scan->n++;
	return 0;
}

void window_init(struct window *w, struct slu_volume_inode *vi, uint64_t first, uint64_t end)
{
	slu_assert(first < end);
	w->vi = vi;
	w->first = first;
	w->end = end;
	w->nold = w->nnew = 0;
	w->dblocks = 0;
	w->data_end = 0;
	slu_batch_init(&w->batch);
}

int window_load(struct window *w, struct slu_volume_inode *vi, uint64_t first, uint64_t end,
		unsigned int inner, struct slu_need *need)
{
	struct window_scan scan = {.max = inner + 2};
	struct slu_key from = extent_key(vi, first), stop = extent_key(vi, end + 1);
	uint64_t last = 0;
	struct extent e;
	int full, err;

	slu_assert(inner <= WINDOW_INNER);
	window_init(w, vi, first, end);
	if (first) {
		err = extent_at_or_before(vi, first - 1, &e, need);
		if (err < 0)
			return err;
		if (err)
			from.off = e.off;
	}
	full = slu_store_scan(vi->vol->store, &from, &stop, window_scan_record, &scan, need);
	if (full < 0)
		return full;
	for (unsigned int i = 0; i < scan.n; i++) {
		err = extent_parse(vi, scan.offs[i], &scan.records[i], (int)scan.lens[i], &e);
		if (err)
			return err;
		if (e.off < last)
			return volume_bad_extent(vi, e.off, "extent records overlap");
		last = extent_end(&e);
		if (last >= first)
			w->old[w->nold++] = e;
	}
	/* What lies behind the last one that was looked at is not known. */
	if (full)
		w->end = slu_min(end, last);
	return 0;
}

void window_fini(struct window *w)
{
	slu_batch_fini(&w->batch);
}

/* The part of an extent that lies in the window's range; false if none does. */
static bool window_part(const struct window *w, const struct extent *e, uint64_t *ret_from,
			uint64_t *ret_to)
{
	*ret_from = slu_max(w->first, e->off);
	*ret_to = slu_min(w->end, extent_end(e));
	return *ret_from < *ret_to;
}

void window_limit(struct window *w, uint64_t most)
{
	uint64_t from, to;

	for (unsigned int i = 0; i < w->nold; i++) {
		if (!window_part(w, &w->old[i], &from, &to))
			continue;
		if (to - from > most) {
			w->end = from + most;
			return;
		}
		most -= to - from;
	}
}

bool window_lies_at(const struct window *w, uint64_t blkno)
{
	uint64_t covered = w->first, from, to;

	for (unsigned int i = 0; i < w->nold; i++) {
		const struct extent *e = &w->old[i];

		if (!window_part(w, e, &from, &to))
			continue;
		if (from != covered || e->blkno + (from - e->off) != blkno + (from - w->first))
			return false;
		covered = to;
	}
	return covered == w->end;
}

/* ------------------------------------------------------------------ changing it */

void window_emit(struct window *w, uint64_t off, uint64_t blkno, uint64_t nblocks, uint32_t flags)
{
	struct extent *last = w->nnew ? &w->new[w->nnew - 1] : NULL;

	if (nblocks == 0)
		return;
	if (last && extent_end(last) == off && last->blkno + last->nblocks == blkno &&
	    last->flags == flags && last->nblocks + nblocks <= SLU_EXTENT_MAX) {
		last->nblocks += (uint32_t)nblocks;
		return;
	}
	slu_assert(w->nnew < WINDOW_NEW && nblocks <= SLU_EXTENT_MAX);
	w->new[w->nnew++] = (struct extent){off, blkno, (uint32_t)nblocks, flags};
}

/* The part of e in [from, to), which may be empty. */
static void emit_part(struct window *w, const struct extent *e, uint64_t from, uint64_t to,
		      uint32_t flags)
{
	from = slu_max(from, e->off);
	to = slu_min(to, extent_end(e));
	if (from < to)
		window_emit(w, from, e->blkno + (from - e->off), to - from, flags);
}

void window_flip(struct window *w, uint32_t flags)
{
	for (unsigned int i = 0; i < w->nold; i++) {
		const struct extent *e = &w->old[i];

		emit_part(w, e, 0, w->first, e->flags);
		emit_part(w, e, w->first, w->end, flags);
		emit_part(w, e, w->end, UINT64_MAX, e->flags);
	}
}

void window_cut(struct window *w)
{
	for (unsigned int i = 0; i < w->nold; i++) {
		const struct extent *e = &w->old[i];
		uint64_t from, to;

		emit_part(w, e, 0, w->first, e->flags);
		emit_part(w, e, w->end, UINT64_MAX, e->flags);
		if (window_part(w, e, &from, &to)) {
			slu_batch_free(&w->batch, e->blkno + (from - e->off), to - from);
			w->dblocks -= (int64_t)(to - from);
		}
	}
}

int window_insert(struct window *w, const struct extent *runs, unsigned int nruns)
{
	unsigned int i = 0;

	for (unsigned int n = 0; n < nruns; n++) {
		const struct extent *run = &runs[n];

		for (; i < w->nold && w->old[i].off < run->off; i++)
			window_emit(w, w->old[i].off, w->old[i].blkno, w->old[i].nblocks,
				    w->old[i].flags);
		if ((i && extent_end(&w->old[i - 1]) > run->off) ||
		    (i < w->nold && w->old[i].off < extent_end(run)))
			return volume_bad_extent(w->vi, run->off, "extent records overlap");
		window_emit(w, run->off, run->blkno, run->nblocks, run->flags);
		slu_batch_own(&w->batch, run->blkno, run->nblocks);
		w->dblocks += run->nblocks;
	}
	for (; i < w->nold; i++)
		window_emit(w, w->old[i].off, w->old[i].blkno, w->old[i].nblocks, w->old[i].flags);
	return 0;
}

bool window_changed(const struct window *w)
{
	return w->nold != w->nnew || memcmp(w->old, w->new, w->nold * sizeof(w->old[0])) != 0;
}

uint32_t window_records(const struct window *w, unsigned int nruns)
{
	/* Every new key is an old one, an edge of the range, or a run's; and the owner's. */
	return w->nold + 2 + nruns + SLU_OWNER_RECORDS;
}

static void put_extent(struct slu_batch *b, const struct slu_key *key, const struct extent *e)
{
	struct slu_disk_extent d;

	slu_put_le64(d.blkno.b, e->blkno);
	slu_put_le32(d.nblocks.b, e->nblocks);
	slu_put_le32(d.flags.b, e->flags);
	slu_batch_put(b, key, &d, sizeof(d));
}

/* Puts and deletes that make the records of `old` those of `new`. */
static void window_diff(struct window *w)
{
	unsigned int i = 0, j = 0;

	while (i < w->nold || j < w->nnew) {
		const struct extent *old = i < w->nold ? &w->old[i] : NULL;
		const struct extent *new = j < w->nnew ? &w->new[j] : NULL;
		struct slu_key key;

		if (old && (!new || old->off < new->off)) {
			key = extent_key(w->vi, old->off);
			slu_batch_del(&w->batch, &key);
			i++;
			continue;
		}
		if (!old || old->off > new->off || memcmp(old, new, sizeof(*old))) {
			key = extent_key(w->vi, new->off);
			put_extent(&w->batch, &key, new);
		}
		i += old && old->off == new->off;
		j++;
	}
}

static uint64_t keep_size(struct slu_volume_inode *vi, uint64_t disk_size)
{
	const struct slu_iomap_owner *owner = vi->iomap.owner;

	if (disk_size == SLU_DISK_SIZE_KEEP && owner && owner->disk_size)
		return owner->disk_size(&vi->iomap);
	return disk_size;
}

bool volume_size_moves(struct slu_volume_inode *vi, uint64_t disk_size)
{
	const struct slu_iomap_owner *owner = vi->iomap.owner;

	if (!owner || disk_size == SLU_DISK_SIZE_KEEP)
		return false;
	return !owner->disk_size || owner->disk_size(&vi->iomap) != disk_size;
}

int window_apply(struct window *w, struct slu_ticket *ticket, uint64_t disk_size,
		 struct slu_need *need)
{
	struct slu_iomap_inode *inode = &w->vi->iomap;
	uint64_t txid;
	int err;

	disk_size = keep_size(w->vi, disk_size);
	window_diff(w);
	if (inode->owner)
		inode->owner->put_record(inode, &w->batch, w->dblocks, disk_size, w->data_end);
	err = slu_store_apply(w->vi->vol->store, ticket, &w->batch, &txid, need);
	if (err)
		return err;
	if (inode->owner)
		inode->owner->record_done(inode, w->dblocks, disk_size, txid);
	return 0;
}
