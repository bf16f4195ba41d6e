/* SPDX-License-Identifier: MIT */
/*
 * Growing a mounted volume: what may lie behind it, a longer image, a longer volume, a commit.
 *
 * Each step is harmless to have done twice, and what a crash leaves between two of them is a volume
 * of the old size in an image that is longer: zeros behind it, and perhaps the spare superblock of
 * the new size. Takes no lock; the store and blockio allow one at a time.
 */
#include "fs_private.h"
#include <string.h>

#define LOOK_BLOCKS 256u /* at a time */

static bool is_zero(const uint8_t *block)
{
	return !block[0] && !memcmp(block, block + 1, SLU_BLOCK_SIZE - 1);
}

/* A spare superblock of this volume, from before a crash. */
static bool is_our_spare(struct slu_fs *fs, const void *block, uint64_t blkno)
{
	const struct slu_disk_super *spare = block, *sb = slu_store_super(fs->store);

	return !slu_spare_check(spare, blkno) &&
	       !memcmp(spare->volume_id, sb->volume_id, sizeof(sb->volume_id));
}

/* *ret: the first block from blkno on that somebody may want to keep; UINT64_MAX: there is none. */
static int find_occupied(struct slu_fs *fs, uint64_t blkno, uint64_t *ret)
{
	uint64_t end = atomic_load(&slu_blockio_info(fs->bio)->nblocks);
	uint8_t *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, LOOK_BLOCKS * SLU_BLOCK_SIZE);
	int err = buf ? 0 : -ENOMEM;

	*ret = UINT64_MAX;
	while (!err && *ret == UINT64_MAX) {
		uint32_t n;

		err = slu_blockio_used(fs->bio, blkno, &blkno);
		if (err || blkno == UINT64_MAX)
			break;
		if (blkno >= end) { /* a part of a block */
			*ret = blkno;
			break;
		}
		n = (uint32_t)slu_min(end - blkno, LOOK_BLOCKS);
		err = slu_blockio_read(fs->bio, blkno, n, buf);
		for (uint32_t i = 0; i < n && !err && *ret == UINT64_MAX; i++) {
			const uint8_t *block = buf + (size_t)i * SLU_BLOCK_SIZE;

			if (!is_zero(block) && !is_our_spare(fs, block, blkno + i))
				*ret = blkno + i;
		}
		blkno += n;
	}
	slu_free(buf);
	return err;
}

/*
 * What lies behind the volume in a file may be somebody's: mkfs --size leaves it alone, too. A
 * device is the volume's own, unless that begins somewhere in it: then others may follow.
 */
static int check_behind(struct slu_fs *fs, struct slu_fs_growth *g)
{
	const struct slu_blockio_info *info = slu_blockio_info(fs->bio);
	int err;

	if (info->image_size || (info->kind == SLU_IMAGE_DEVICE && !info->image_offset))
		return 0;
	if (info->kind == SLU_IMAGE_DEVICE) {
		g->occupied = g->from;
		return -EEXIST;
	}
	err = find_occupied(fs, g->from, &g->occupied);
	if (err)
		return err;
	return g->occupied == UINT64_MAX ? 0 : -EEXIST;
}

/* Whether it may have that size, before anything is touched. */
static int check_size(struct slu_fs *fs, uint64_t nblocks, const struct slu_fs_growth *g)
{
	const struct slu_blockio_info *info = slu_blockio_info(fs->bio);

	if (nblocks < g->from)
		return -EINVAL;
	if (nblocks > SLU_MAX_BLOCKS)
		return -EFBIG;
	if (nblocks > g->image &&
	    (info->kind == SLU_IMAGE_DEVICE ||
	     (info->image_size && nblocks > info->image_size >> SLU_BLOCK_SHIFT)))
		return -ERANGE;
	return 0;
}

/* How long image and volume are now. */
static int measure(struct slu_fs *fs, struct slu_fs_growth *g)
{
	struct slu_store_info info;
	int err;

	slu_store_info(fs->store, &info);
	*g = (struct slu_fs_growth){.from = info.nblocks, .to = info.nblocks};
	if (info.readonly || fs_readonly(fs))
		return -EROFS;
	/* One that was cut off is not to become long again. */
	err = slu_store_check_image(fs->store);
	if (!err)
		err = slu_blockio_grow(fs->bio, g->from);
	g->image = atomic_load(&slu_blockio_info(fs->bio)->nblocks);
	return err;
}

static int grow(struct slu_fs *fs, uint64_t nblocks, struct slu_fs_growth *ret)
{
	int err = measure(fs, ret);

	if (!err && !nblocks)
		nblocks = slu_min(ret->image, SLU_MAX_BLOCKS);
	if (!err)
		err = check_size(fs, nblocks, ret);
	if (err || nblocks == ret->from)
		return err;
	err = check_behind(fs, ret);
	/* A host without room for a commit would not have any for the new size either. */
	if (!err)
		err = slu_store_commit(fs->store, slu_store_txid(fs->store), false);
	if (!err)
		err = slu_blockio_grow(fs->bio, nblocks);
	if (!err)
		err = slu_space_grow(fs->store, nblocks);
	if (err)
		return err;
	ret->to = nblocks;
	slu_event_post(&fs->p->opts.events, &(struct slu_event){.kind = SLU_EVENT_GROWN,
								.pos = ret->from << SLU_BLOCK_SHIFT,
								.len = nblocks << SLU_BLOCK_SHIFT});
	return slu_store_commit(fs->store, slu_store_txid(fs->store), true);
}

int slu_fs_grow(struct slu_fs *fs, uint64_t nblocks, struct slu_fs_growth *ret)
{
	int err;

	*ret = (struct slu_fs_growth){0};
	if (!freeze_hold_off(fs))
		return -EBUSY;
	err = grow(fs, nblocks, ret);
	freeze_release(fs);
	return err;
}
