/* SPDX-License-Identifier: MIT */
/*
 * SEEK_DATA and SEEK_HOLE, and where a file lies.
 *
 * Speaks of what has been received. With the kernel's write-back cache the kernel may hold dirty
 * pages, and even a size, that this side has never seen; whoever serves the kernel has them
 * written out first (slu_fs_open_for_write says when).
 */
#include "fs_private.h"

int slu_fs_seek(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t pos, int whence,
		uint64_t *ret)
{
	struct slu_inode *inode;
	bool data = whence == SEEK_DATA;
	int err;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	err = slu_inode_get(fs->ns, ino, &inode);
	if (err)
		return err;
	uint64_t size = slu_aspace_size(&inode->data);
	if (pos >= size) {
		err = -ENXIO;
	} else if (!S_ISREG(inode->type)) {
		*ret = data ? pos : size;
	} else {
		/* Dirty pages are in no record yet: written out first, then the records say all. */
		if (fs->wb && slu_aspace_dirty(&inode->data)) {
			err = fs_may_wait(ctx, "dirty pages before a seek");
			if (!err)
				err = slu_writeback_range(fs->wb, &inode->data, pos, UINT64_MAX);
		}
		if (!err)
			err = slu_volume_seek(&inode->vol, pos, size, data, NULL, ret);
	}
	slu_inode_put(inode);
	return err;
}

int slu_fs_extents(struct slu_fs *fs, uint64_t ino, uint64_t *pos, struct slu_iomap *maps,
		   unsigned int max, uint64_t *ret_size)
{
	struct slu_inode *inode;
	int n = slu_inode_get(fs->ns, ino, &inode);

	if (n)
		return n;
	*ret_size = slu_aspace_size(&inode->data);
	n = S_ISREG(inode->type) ? slu_volume_extents(&inode->vol, pos, maps, max) : -EINVAL;
	slu_inode_put(inode);
	return n;
}

bool slu_fs_open_for_write(struct slu_fs *fs, uint64_t ino)
{
	struct slu_inode *inode;
	bool open;

	if (slu_inode_get(fs->ns, ino, &inode))
		return false;
	open = gate_open_for_write(fs, inode);
	slu_inode_put(inode);
	return open;
}
