/* SPDX-License-Identifier: MIT */
/*
 * Looking a file's extents over: SEEK_DATA, SEEK_HOLE and the list for tools.
 *
 * Called with no lock held; takes iomap.lock (rank EXTENTS) for one lookup at a time and waits
 * between them; for one batch of the list.
 */
#include "volume_private.h"

static int lookup_wait(struct slu_volume_inode *vi, uint64_t first, uint64_t most,
		       struct piece *ret)
{
	struct volume_wait wait;
	int err;

	volume_wait_init(&wait, vi->vol, NULL);
	do {
		slu_mutex_lock(&vi->iomap.lock);
		err = volume_lookup(vi, first, most, ret, wait.need);
		slu_mutex_unlock(&vi->iomap.lock);
	} while (volume_wait(&wait, &err));
	return err;
}

/* Cuts the piece where its pages stop being dirty, or start; whether they are. */
static bool piece_dirty(struct piece *piece, uint64_t first, const struct slu_ranges *dirty_pages)
{
	struct slu_range r;

	if (!dirty_pages || !slu_ranges_at_or_after(dirty_pages, first, &r))
		return false;
	if (r.start > first) {
		piece->nblocks = slu_min(piece->nblocks, r.start - first);
		return false;
	}
	piece->nblocks = slu_min(piece->nblocks, r.end - first);
	return true;
}

int slu_volume_seek(struct slu_volume_inode *vi, uint64_t pos, uint64_t size, bool data,
		    const struct slu_ranges *dirty_pages, uint64_t *ret)
{
	uint64_t blk = pos >> SLU_BLOCK_SHIFT, end = slu_bytes_to_blocks(size);
	struct piece piece;

	if (pos >= size)
		return -ENXIO;
	for (; blk < end; blk += piece.nblocks) {
		bool is_data;
		int err = lookup_wait(vi, blk, end - blk, &piece);

		if (err)
			return err;
		is_data = piece.type == SLU_IOMAP_MAPPED || piece.type == SLU_IOMAP_DELALLOC ||
			  piece_dirty(&piece, blk, dirty_pages);
		if (is_data == data) {
			*ret = slu_max(pos, blk << SLU_BLOCK_SHIFT);
			return 0;
		}
	}
	if (data)
		return -ENXIO;
	*ret = size;
	return 0;
}

/* iomap.lock held. What was found before a node had to be read is worth having. */
static int extents_locked(struct slu_volume_inode *vi, uint64_t *blk, struct slu_iomap *maps,
			  unsigned int max, struct slu_need *need)
{
	unsigned int n = 0;
	struct piece piece;

	while (n < max && *blk < FILE_BLOCKS_END - 1) {
		int err = volume_lookup(vi, *blk, FILE_BLOCKS_END - 1 - *blk, &piece, need);

		if (err)
			return n ? (int)n : err;
		if (piece.type != SLU_IOMAP_HOLE)
			maps[n++] = (struct slu_iomap){.pos = *blk << SLU_BLOCK_SHIFT,
						       .len = piece.nblocks << SLU_BLOCK_SHIFT,
						       .blkno = piece.blkno,
						       .type = piece.type};
		*blk += piece.nblocks;
	}
	return (int)n;
}

int slu_volume_extents(struct slu_volume_inode *vi, uint64_t *pos, struct slu_iomap *maps,
		       unsigned int max)
{
	uint64_t blk = *pos >> SLU_BLOCK_SHIFT;
	struct volume_wait wait;
	int n;

	volume_wait_init(&wait, vi->vol, NULL);
	do {
		slu_mutex_lock(&vi->iomap.lock);
		n = extents_locked(vi, &blk, maps, max, wait.need);
		slu_mutex_unlock(&vi->iomap.lock);
	} while (volume_wait(&wait, &n));
	*pos = blk << SLU_BLOCK_SHIFT;
	return n;
}
