/* SPDX-License-Identifier: MIT */
/*
 * Truncate and fallocate: everything that changes a file's layout other than by writing.
 *
 * Each holds the gate for resize throughout, so no write maps the file meanwhile. The inode rwlock
 * is taken for steps that change pages, size or extents and dropped for every wait.
 *
 * What a crash may show is decided by the order:
 *  - growing: what is dirty between the size on disk and the old end is written out, the rest of
 *    the old last block is zeroed and written out, and only then the size moves;
 *  - shrinking: dirty data below the new size is written out, then one batch sets the size and
 *    leaves a record that says that the extents beyond are to be freed; then they are.
 */
#include "fs_private.h"
#include <linux/falloc.h>

/* A step under the inode rwlock, repeated until it need not wait. */
typedef int resize_step_fn(struct slu_inode *inode, void *arg, struct slu_need *need);

static int with_lock(struct slu_ctx *ctx, struct slu_inode *inode, resize_step_fn *step, void *arg)
{
	struct slu_need need;
	int err;

	for (;;) {
		slu_rwlock_wrlock(&inode->data.lock);
		err = step(inode, arg, &need);
		slu_rwlock_wrunlock(&inode->data.lock);
		if (err == 1) /* more of the same */
			continue;
		if (err != -EAGAIN)
			return err;
		err = fs_wait(ctx, &need);
		if (err)
			return err;
	}
}

struct range {
	struct slu_fs *fs;
	struct slu_inode *inode; /* while the lock is held */
	uint64_t pos, end;
	struct slu_ticket *ticket;
	bool orphan;
};

static int step_zero_tail(struct slu_inode *inode, void *arg, struct slu_need *need)
{
	struct range *r = arg;

	return slu_pages_zero_tail(&inode->data, r->fs->bio, r->pos, need);
}

static int step_set_size(struct slu_inode *inode, void *arg, struct slu_need *need)
{
	struct range *r = arg;

	return slu_inode_set_size(inode, r->ticket, r->end, r->orphan, need);
}

static int shrink_size(void *arg, struct slu_need *need)
{
	struct range *r = arg;

	return slu_inode_set_size(r->inode, r->ticket, r->end, r->orphan, need);
}

/*
 * Shrinking: pages and size in one section, so that no reader sees the old size without its data,
 * and the size first: if it cannot be recorded all the data is still there. The extents beyond are
 * freed after, from the orphan record that goes along with the size.
 */
static int step_shrink(struct slu_inode *inode, void *arg, struct slu_need *need)
{
	struct range *r = arg;

	r->inode = inode;
	return slu_pages_truncate(&inode->data, r->fs->bio, r->end, shrink_size, r, need);
}

static int set_size(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t size,
		    bool orphan, resize_step_fn *step)
{
	struct slu_ticket ticket = {0};
	struct range r = {.fs = fs, .end = size, .ticket = &ticket, .orphan = orphan};
	struct slu_need need;
	int err;

	for (;;) {
		err = slu_ticket_get(fs->store, &ticket, 4, 512, SLU_TICKET_KEPT_BACK, &need);
		if (err != -EAGAIN)
			break;
		err = fs_wait(ctx, &need);
		if (err)
			return err;
	}
	if (err)
		return err;
	err = with_lock(ctx, inode, step, &r);
	slu_ticket_put(&ticket);
	return err;
}

/* Writes out what is dirty from the size on disk to `end`, so that the size may move past it. */
static int settle(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t end)
{
	slu_mutex_lock(&inode->vol.iomap.lock);
	uint64_t disk_size = inode->data.disk_size;
	slu_mutex_unlock(&inode->vol.iomap.lock);
	if (disk_size >= end || slu_mutant(NO_SETTLE))
		return 0;
	int err = fs_may_wait(ctx, "dirty pages before the size moves");

	return err ? err : slu_writeback_range(fs->wb, &inode->data, disk_size, end);
}

static int grow(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t old,
		uint64_t size)
{
	struct range tail = {.fs = fs, .pos = old};
	int err = with_lock(ctx, inode, step_zero_tail, &tail);

	if (err)
		return err;
	if (old % SLU_BLOCK_SIZE && slu_aspace_dirty(&inode->data)) {
		/* the zeroes of the old last block lie below the new size: they go first */
		err = fs_may_wait(ctx, "last block before the size moves");
		if (!err)
			err = slu_writeback_range(fs->wb, &inode->data,
						  slu_round_down(old, SLU_BLOCK_SIZE), old);
	}
	if (!err)
		err = settle(fs, ctx, inode, old);
	return err ? err : set_size(fs, ctx, inode, size, false, step_set_size);
}

static int shrink(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t size)
{
	struct slu_attr attr;
	int err = settle(fs, ctx, inode, size);

	if (err)
		return err;
	slu_inode_attr(inode, &attr);
	bool has_blocks = attr.blocks > 0;
	err = set_size(fs, ctx, inode, size, has_blocks, step_shrink);
	if (!err && has_blocks)
		err = slu_inode_free_extents(inode);
	return err;
}

int resize_to(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t size)
{
	uint64_t old = slu_aspace_size(&inode->data);

	if (size > old)
		return grow(fs, ctx, inode, old, size);
	if (size < old)
		return shrink(fs, ctx, inode, size);
	/* The same size: blocks kept beyond the end go, and the times move. */
	return shrink(fs, ctx, inode, size);
}

static int resize_allowed(struct slu_fs *fs, struct slu_inode *inode, bool append_ok)
{
	struct slu_attr attr;

	if (fs_readonly(fs))
		return -EROFS;
	slu_inode_attr(inode, &attr);
	if (S_ISDIR(attr.mode))
		return -EISDIR;
	if (!S_ISREG(attr.mode))
		return -EINVAL;
	if (attr.flags & SLU_INODE_IMMUTABLE)
		return -EPERM;
	if ((attr.flags & SLU_INODE_APPEND) && !append_ok)
		return -EPERM;
	return 0;
}

int slu_fs_truncate(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t size,
		    bool kill_priv, struct slu_attr *ret)
{
	struct slu_inode *inode;
	int err;

	if (size > INT64_MAX)
		return -EFBIG;
	err = slu_inode_get(fs->ns, ino, &inode);
	if (err)
		return err;
	err = resize_allowed(fs, inode, false);
	if (err)
		goto put;
	if (kill_priv) {
		slu_inode_attr(inode, ret);
		err = slu_ns_setattr(fs->ns, ctx, ino, ret, SLU_SET_KILL_PRIV, ret);
		if (err)
			goto put;
	}
	err = gate_enter_resize(fs, ctx, inode);
	if (err)
		goto put;
	slu_inode_touch(inode, SLU_TOUCH_MTIME);
	err = resize_to(fs, ctx, inode, size);
	gate_leave_resize(fs, inode);
	slu_inode_attr(inode, ret);
put:
	slu_inode_put(inode);
	return err;
}

int resize_grow(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t size)
{
	int err = resize_allowed(fs, inode, true);

	if (err)
		return err;
	err = gate_enter_resize(fs, ctx, inode);
	if (err)
		return err;
	if (size > slu_aspace_size(&inode->data)) {
		slu_inode_touch(inode, SLU_TOUCH_MTIME);
		err = resize_to(fs, ctx, inode, size);
	}
	gate_leave_resize(fs, inode);
	return err;
}

/* ------------------------------------------------------------------ fallocate */

static int step_prealloc(struct slu_inode *inode, void *arg, struct slu_need *need)
{
	struct range *r = arg;

	return slu_volume_prealloc(&inode->vol, &r->pos, r->end, SLU_DISK_SIZE_KEEP, need);
}

static int punch_some(void *arg, uint64_t *pos, uint64_t end, struct slu_need *need)
{
	struct range *r = arg;

	return slu_volume_punch(&r->inode->vol, pos, end, SLU_DISK_SIZE_KEEP, need);
}

static int zero_some(void *arg, uint64_t *pos, uint64_t end, struct slu_need *need)
{
	struct range *r = arg;

	return slu_volume_zero_range(&r->inode->vol, pos, end, SLU_DISK_SIZE_KEEP, need);
}

static int step_punch(struct slu_inode *inode, void *arg, struct slu_need *need)
{
	struct range *r = arg;

	r->inode = inode;
	return slu_pages_remove(&inode->data, r->fs->bio, &r->pos, &r->end, punch_some, r, need);
}

static int step_zero_range(struct slu_inode *inode, void *arg, struct slu_need *need)
{
	struct range *r = arg;

	r->inode = inode;
	return slu_pages_remove(&inode->data, r->fs->bio, &r->pos, &r->end, zero_some, r, need);
}

static int clear_range(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode,
		       uint64_t pos, uint64_t end, resize_step_fn *step)
{
	struct range r = {.fs = fs, .pos = pos, .end = end};

	return with_lock(ctx, inode, step, &r);
}

static int prealloc(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t pos,
		    uint64_t end)
{
	struct range r = {.fs = fs,
			  .pos = slu_round_down(pos, SLU_BLOCK_SIZE),
			  .end = slu_round_up(end, SLU_BLOCK_SIZE)};

	return with_lock(ctx, inode, step_prealloc, &r);
}

static int do_fallocate(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, int mode,
			uint64_t pos, uint64_t end)
{
	int err;

	if (mode & FALLOC_FL_PUNCH_HOLE)
		return clear_range(fs, ctx, inode, pos, end, step_punch);
	if (mode & FALLOC_FL_ZERO_RANGE) {
		err = clear_range(fs, ctx, inode, pos, end, step_zero_range);
		if (err)
			return err;
	}
	err = prealloc(fs, ctx, inode, pos, end);
	if (!err && !(mode & FALLOC_FL_KEEP_SIZE) && end > slu_aspace_size(&inode->data))
		err = resize_to(fs, ctx, inode, end);
	return err;
}

int slu_fs_fallocate(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, int mode, uint64_t pos,
		     uint64_t len)
{
	const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
	struct slu_inode *inode;
	int err;

	if (mode & ~known)
		return -EOPNOTSUPP;
	if ((mode & FALLOC_FL_PUNCH_HOLE) && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (!len)
		return -EINVAL;
	if (pos > INT64_MAX || len > INT64_MAX - pos)
		return -EFBIG;
	err = fs_may_wait(ctx, "fallocate");
	if (err)
		return err;
	err = slu_inode_get(fs->ns, ino, &inode);
	if (err)
		return err;
	err = resize_allowed(fs, inode, !(mode & ~FALLOC_FL_KEEP_SIZE));
	if (err)
		goto put;
	err = gate_enter_resize(fs, ctx, inode);
	if (err)
		goto put;
	err = do_fallocate(fs, ctx, inode, mode, pos, pos + len);
	if (err == -ENOSPC && !housekeep_make_room(fs, ctx))
		err = do_fallocate(fs, ctx, inode, mode, pos, pos + len);
	gate_leave_resize(fs, inode);
	if (!err)
		slu_inode_touch(inode, SLU_TOUCH_MTIME);
put:
	slu_inode_put(inode);
	return err;
}
