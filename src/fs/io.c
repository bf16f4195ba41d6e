/* SPDX-License-Identifier: MIT */
/*
 * Reading and writing open files: what surrounds the write path. Checks that are the file's
 * (append-only, read-only mounts, privileges to be dropped), times, read-ahead, and the second try
 * when space is on its way back.
 */
#include "fs_private.h"
#include <fcntl.h>

#define READ_AHEAD_PAGES 256u                  /* one request of the kernel's greatest size */
#define FULL_INTERVAL_NS (10 * SLU_NS_PER_SEC) /* between two events that say "full" */

/* Reads that go on where the last one ended are followed by read-ahead. */
static unsigned int read_ahead(struct slu_inode *inode, uint64_t pos, uint64_t len)
{
	uint64_t expected =
		atomic_exchange_explicit(&inode->readahead_pos, pos + len, memory_order_relaxed);

	return expected == pos && len >= SLU_BLOCK_SIZE ? READ_AHEAD_PAGES : 0;
}

/* The reader is told -EIO; who looks after the machine is to hear of it too, and why if it shows. */
static void read_failed(struct slu_fs *fs, uint64_t ino, uint64_t pos, uint64_t len)
{
	slu_event_post(&fs->p->opts.events, &(struct slu_event){.kind = SLU_EVENT_READ_ERROR,
								.error = -EIO,
								.ino = ino,
								.pos = pos,
								.len = len});
	(void)slu_store_check_image(fs->store);
}

int slu_fs_read(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t fh, uint64_t pos,
		uint64_t len, bool keep_atime, struct slu_read_vec *ret)
{
	struct slu_inode *inode;
	int err = slu_inode_get(fs->ns, ino, &inode);

	if (err)
		return err;
	err = slu_read(&inode->data, fs->bio, pos, len, read_ahead(inode, pos, len), ret);
	if (!err && !keep_atime && !fs_readonly(fs))
		slu_inode_touch(inode, SLU_TOUCH_ATIME);
	slu_inode_put(inode);
	if (err == -EIO)
		read_failed(fs, ino, pos, len);
	return err;
}

/* Clears setuid, setgid and file capabilities if the inode has any of them. */
static int drop_privileges(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode)
{
	struct slu_attr attr;

	slu_inode_attr(inode, &attr);
	if (!(attr.mode & (S_ISUID | S_ISGID)) && !attr.nxattr)
		return 0;
	return slu_ns_setattr(fs->ns, ctx, attr.ino, &attr, SLU_SET_KILL_PRIV, &attr);
}

/*
 * The write path as often as it takes: short waits are waited for here. On return ret->done bytes
 * have been written from pos on, whatever the error.
 */
static int write_on(struct slu_ctx *ctx, struct slu_inode *inode, struct slu_source *src,
		    uint64_t pos, uint64_t len, unsigned int flags, struct slu_write_result *ret)
{
	struct slu_write_result part;
	struct slu_need need;
	int err;

	*ret = (struct slu_write_result){0};
	for (;;) {
		err = slu_write(&inode->data, src, pos + ret->done, len - ret->done, flags, &part,
				&need);
		ret->done += part.done;
		if (err != -EAGAIN)
			return err;
		err = fs_wait(ctx, &need);
		if (err)
			return err;
	}
}

/* A descriptor opened before chattr +i; what the kernel has accepted already is not refused. */
static int write_allowed(struct slu_inode *inode, unsigned int flags)
{
	struct slu_attr attr;

	if (inode->type != S_IFREG)
		return -EINVAL;
	if (flags & SLU_WRITE_KERNEL_CACHE)
		return 0;
	slu_inode_attr(inode, &attr);
	return attr.flags & SLU_INODE_IMMUTABLE ? -EPERM : 0;
}

static int write_inode(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode,
		       struct slu_source *src, uint64_t pos, uint64_t len, unsigned int flags,
		       bool kill_priv, struct slu_write_result *ret)
{
	int err = kill_priv ? drop_privileges(fs, ctx, inode) : 0;

	if (err)
		return err;
	err = gate_enter_write(fs, ctx, inode);
	if (err)
		return err;
	err = write_on(ctx, inode, src, pos, len, flags, ret);
	gate_leave_write(fs, inode);
	if (ret->done && !(flags & SLU_WRITE_KEEP_TIMES))
		slu_inode_touch(inode, SLU_TOUCH_MTIME);
	if (ret->done && flags & SLU_WRITE_UNORDERED)
		slu_inode_awaits(inode);
	return err;
}

/*
 * The kernel has let write(2) succeed, and forgets the pages once it has told fsync. Who has filled
 * the volume may not be who loses by it, so the log is told too; other errors have events of their own.
 */
static void note_refused(struct slu_fs *fs, uint64_t ino, uint64_t pos, uint64_t len)
{
	struct slu_event ev = {
		.kind = SLU_EVENT_NO_SPACE,
		.error = -ENOSPC,
		.ino = ino,
		.pos = pos,
		.len = len,
		.text = "pages written through the kernel's cache were refused",
	};

	slu_event_post(&fs->p->opts.events, &ev);
}

/* The application has been told; whoever looks after the volume hears of it now and then. */
static void note_full(struct slu_fs *fs)
{
	struct slu_event ev = {.kind = SLU_EVENT_NO_SPACE, .error = -ENOSPC};
	uint64_t now = slu_clock_ns(), last = atomic_load(&fs->p->full_noted_ns);

	if ((!last || now - last >= FULL_INTERVAL_NS) &&
	    atomic_compare_exchange_strong(&fs->p->full_noted_ns, &last, now))
		slu_event_post(&fs->p->opts.events, &ev);
}

int slu_fs_write(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t fh,
		 struct slu_source *src, uint64_t pos, uint64_t len, unsigned int flags,
		 bool kill_priv, struct slu_write_result *ret)
{
	struct slu_inode *inode;
	int err;

	*ret = (struct slu_write_result){0};
	if (fs_readonly(fs))
		return -EROFS;
	if (pos > INT64_MAX || len > INT64_MAX - pos)
		return -EFBIG;
	err = slu_inode_get(fs->ns, ino, &inode);
	if (err)
		return err;
	err = write_allowed(inode, flags);
	if (err)
		goto put;
	err = write_inode(fs, ctx, inode, src, pos, len, flags, kill_priv, ret);
	if (err == -ENOSPC && !ret->done) {
		err = housekeep_make_room(fs, ctx);
		if (!err)
			err = write_inode(fs, ctx, inode, src, pos, len, flags, false, ret);
	}
	if (err == -ENOSPC && flags & SLU_WRITE_KERNEL_CACHE)
		note_refused(fs, ino, pos, len);
	else if (err == -ENOSPC)
		note_full(fs);
	if (fs->sync && ret->done && err != -EAGAIN) {
		int sync_err = fs_may_wait(ctx, "-o sync");

		if (!sync_err)
			sync_err = fs_sync_inode(fs, inode, true);
		ret->unsynced = sync_err != 0;
		if (sync_err)
			err = sync_err;
	}
put:
	slu_inode_put(inode);
	return err;
}
