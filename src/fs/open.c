/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing. An open handle is an entry of the table in the arena; it pins its inode, so
 * that a file lives on without a name, and carries the cursor of writeback errors.
 */
#include "fs_private.h"
#include <fcntl.h>

static bool for_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

static int open_allowed(struct slu_fs *fs, const struct slu_attr *attr, int flags)
{
	bool writes = for_write(flags) || (flags & O_TRUNC);

	if (writes && fs_readonly(fs))
		return -EROFS;
	if (writes && S_ISDIR(attr->mode))
		return -EISDIR;
	if (!S_ISREG(attr->mode))
		return 0;
	if (writes && (attr->flags & SLU_INODE_IMMUTABLE))
		return -EPERM;
	if ((attr->flags & SLU_INODE_APPEND) &&
	    ((for_write(flags) && !(flags & O_APPEND)) || (flags & O_TRUNC)))
		return -EPERM;
	return 0;
}

static void count_open(struct slu_fs *fs, struct slu_inode *inode, int flags)
{
	if (for_write(flags))
		gate_open_write(fs, inode);
	slu_inode_opened(inode);
}

static void count_close(struct slu_fs *fs, struct slu_inode *inode, int flags)
{
	/* Before the last writer closes the kernel has sent all it has. */
	if (for_write(flags) && gate_close_write(fs, inode))
		slu_aspace_settle(&inode->data);
	slu_inode_closed(inode);
}

int slu_fs_open(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, int flags, uint64_t *ret_fh)
{
	struct slu_handle *handle;
	struct slu_inode *inode;
	struct slu_attr attr;
	uint64_t fh;
	int err = slu_inode_get(fs->ns, ino, &inode);

	if (err)
		return err;
	slu_inode_attr(inode, &attr);
	err = open_allowed(fs, &attr, flags);
	if (err)
		goto put;
	/* Before there is a handle that could be closed: numbers can be guessed. */
	count_open(fs, inode, flags);
	err = slu_handle_new(fs->cache, ino, flags, &fh);
	if (err) {
		count_close(fs, inode, flags);
		goto put;
	}
	handle = slu_handle_get(fs->cache, fh);
	if (handle)
		handle->error_cursor = slu_aspace_error_sample(&inode->data);
	if ((flags & O_TRUNC) && S_ISREG(attr.mode))
		err = slu_fs_truncate(fs, ctx, ino, 0, false, &attr);
	if (err)
		slu_fs_release(fs, ino, fh);
	else
		*ret_fh = fh;
put:
	slu_inode_put(inode);
	return err;
}

int slu_fs_release(struct slu_fs *fs, uint64_t ino, uint64_t fh)
{
	struct slu_handle *handle = slu_handle_get(fs->cache, fh);
	struct slu_inode *inode;
	int flags, err = 0;

	if (!handle || atomic_load(&handle->ino) != ino)
		return -EBADF;
	flags = (int)handle->flags;
	/* The handle pins the inode, so this fails only if it has been closed meanwhile. */
	if (slu_inode_get(fs->ns, ino, &inode))
		return -EBADF;
	if (slu_handle_free(fs->cache, fh, ino))
		count_close(fs, inode, flags);
	else
		err = -EBADF;
	slu_inode_put(inode);
	return err;
}
