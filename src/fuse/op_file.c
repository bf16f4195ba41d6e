/* SPDX-License-Identifier: MIT */
/*
 * Requests about open files: open, create, read, write and what belongs to them. Called through the
 * dispatch table, from workers and the park's threads; takes no lock.
 *
 * A READ is answered straight from the cache's pages; the data of a WRITE stays where it was read
 * from the device until it is copied into them.
 */
#include "fuse_private.h"
#include <fcntl.h>

#define NO_HANDLE UINT64_MAX
/* A copy may be short, and the caller asks again; so no copy keeps a thread for long. */
#define COPY_MOST (64ull << 20)

static struct slu_fs *fs_of(const struct request *req)
{
	return req->s->fs;
}

/* ------------------------------------------------------------------ open */

/*
 * The kernel's pages are as good as ours, so they outlive the open; and nothing happens at close
 * that could fail, so there need be no FLUSH.
 */
#define OPEN_FLAGS (FOPEN_KEEP_CACHE | FOPEN_NOFLUSH)

/* Counted before there is a handle, and uncounted after it is gone: a RELEASE can come at any time. */
static int open_counted(struct request *req, uint64_t ino, uint32_t flags, uint64_t *ret_fh)
{
	int err;

	atomic_fetch_add_explicit(&req->s->nopen, 1, memory_order_relaxed);
	err = slu_fs_open(fs_of(req), &req->ctx, ino, (int)flags, ret_fh);
	if (err)
		atomic_fetch_sub_explicit(&req->s->nopen, 1, memory_order_relaxed);
	return err;
}

static int close_counted(struct request *req, uint64_t ino, uint64_t fh)
{
	int err = slu_fs_release(fs_of(req), ino, fh);

	if (!err)
		atomic_fetch_sub_explicit(&req->s->nopen, 1, memory_order_relaxed);
	return err;
}

/*
 * The kernel says with O_TRUNC whether setuid and setgid go. They go before the truncation, so that
 * nothing is left with new contents and old privileges. Step 1: they are gone.
 */
static int kill_at_open(struct request *req, uint32_t flags, uint32_t open_flags)
{
	struct slu_attr none = {0}, attr;
	int err;

	if (!(flags & O_TRUNC) || !(open_flags & FUSE_OPEN_KILL_SUIDGID) || req->step >= 1)
		return 0;
	err = slu_ns_setattr(fs_of(req)->ns, &req->ctx, request_ino(req), &none, SLU_SET_KILL_PRIV,
			     &attr);
	if (!err)
		req->step = 1;
	return err;
}

int op_open(struct request *req)
{
	const struct fuse_open_in *in = request_arg(req);
	struct fuse_open_out out = {.open_flags = OPEN_FLAGS};
	int err;

	err = kill_at_open(req, in->flags, in->open_flags);
	if (err)
		return err;
	err = open_counted(req, request_ino(req), in->flags, &out.fh);
	if (err)
		return err;
	if (reply_data(req, &out, sizeof(out)) == -ENOENT)
		close_counted(req, request_ino(req), out.fh);
	return 0;
}

/* Step 1: the file is there (req->attr), counted as looked up, and only has to be opened. */
static int open_new(struct request *req, uint32_t flags)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = {.open = {.open_flags = OPEN_FLAGS}};
	int err;

	err = open_counted(req, req->attr.ino, flags, &out.open.fh);
	if (err) {
		if (err != -EAGAIN)
			slu_ns_forget(fs_of(req)->ns, req->attr.ino, 1);
		return err;
	}
	reply_fill_entry(&out.entry, &req->attr);
	if (reply_data(req, &out, sizeof(out)) == -ENOENT) {
		close_counted(req, req->attr.ino, out.open.fh);
		slu_ns_forget(fs_of(req)->ns, req->attr.ino, 1);
	}
	return 0;
}

/*
 * The kernel looks a name up before it sends CREATE, and holds the directory meanwhile; should the
 * file be there all the same, then it is opened like any other.
 */
static int create_or_find(struct request *req, const struct fuse_create_in *in, const char *name,
			  bool *ret_new)
{
	struct slu_ns *ns = fs_of(req)->ns;
	int err;

	req->ctx.umask = in->umask;
	err = slu_ns_mknod(ns, &req->ctx, request_ino(req), name, (in->mode & 07777) | S_IFREG, 0,
			   &req->attr);
	*ret_new = !err;
	if (err != -EEXIST || (in->flags & O_EXCL))
		return err;
	err = slu_ns_lookup(ns, &req->ctx, request_ino(req), name, &req->attr);
	if (!err && !S_ISREG(req->attr.mode)) {
		slu_ns_forget(ns, req->attr.ino, 1);
		err = S_ISDIR(req->attr.mode) ? -EISDIR : -EEXIST;
	}
	return err;
}

int op_create(struct request *req)
{
	const struct fuse_create_in *in = request_arg(req);
	uint32_t off = sizeof(*in);
	const char *name;
	bool is_new;
	int err;

	err = request_name(req, &off, &name);
	if (err)
		return err;
	if (req->step == 0) {
		err = create_or_find(req, in, name, &is_new);
		if (err)
			return err;
		req->step = is_new ? 1 : 2;
	}
	/* A file just made is empty already. */
	return open_new(req, req->step == 1 ? in->flags & ~(uint32_t)O_TRUNC : in->flags);
}

int op_tmpfile(struct request *req)
{
	const struct fuse_create_in *in = request_arg(req);
	int err;

	if (req->step == 0) {
		req->ctx.umask = in->umask;
		err = slu_ns_tmpfile(fs_of(req)->ns, &req->ctx, request_ino(req), in->mode & 07777,
				     &req->attr);
		if (err)
			return err;
		req->step = 1;
	}
	return open_new(req, in->flags);
}

int op_release(struct request *req)
{
	const struct fuse_release_in *in = request_arg(req);
	int err = close_counted(req, request_ino(req), in->fh);

	if (!err)
		reply_error(req, 0);
	return err;
}

/* ------------------------------------------------------------------ read and write */

int op_read(struct request *req)
{
	const struct fuse_read_in *in = request_arg(req);
	struct slu_read_vec vec;
	int err;

	/* More was not agreed on; a shorter answer would look like the end of the file. */
	if (in->size > SESSION_MAX_WRITE || in->offset > INT64_MAX)
		return -EINVAL;
	err = slu_fs_read(fs_of(req), &req->ctx, request_ino(req), in->fh, in->offset, in->size,
			  in->flags & O_NOATIME, &vec);
	if (err)
		return err;
	atomic_fetch_add_explicit(&req->s->stats.read_bytes, vec.len, memory_order_relaxed);
	reply_iov(req, vec.iov, vec.niov, vec.len);
	slu_read_done(&vec);
	return 0;
}

#define WRITE_SYNC 1 /* a WRITE's step: nothing is left to be written, but to be made durable */

/* How far a WRITE got, kept in the request so that it goes on from there. */
static int write_some(struct request *req, const struct fuse_write_in *in)
{
	bool cached = in->write_flags & FUSE_WRITE_CACHE;
	bool kill = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
	struct iovec iov = {(char *)(in + 1) + req->done, in->size - req->done};
	struct slu_write_result res = {0};
	struct slu_source_buffer src;
	unsigned int flags = 0;
	int err;

	/* Only with its write-back cache does the kernel keep times, those of a mapping included. */
	if (cached)
		flags = SLU_WRITE_KERNEL_CACHE |
			(req->s->opts.writeback ? SLU_WRITE_KEEP_TIMES : 0);
	else if (in->flags & O_DIRECT)
		flags = SLU_WRITE_WHOLE;
	if (req->s->opts.writeback)
		flags |= SLU_WRITE_UNORDERED;
	slu_source_buffer_init(&src, &iov, 1);
	/* The kernel does not know whose handle it is that it writes back through. */
	err = slu_fs_write(fs_of(req), &req->ctx, request_ino(req), cached ? NO_HANDLE : in->fh,
			   &src.source, in->offset + req->done, iov.iov_len, flags, kill, &res);
	slu_assert(res.done <= iov.iov_len);
	req->done += res.done;
	/* With -o sync, or a part that was written before and the rest not at all. */
	if (res.unsynced || (fs_of(req)->sync && req->done && !res.done && err != -EAGAIN))
		req->step = WRITE_SYNC;
	return err;
}

int op_write(struct request *req)
{
	const struct fuse_write_in *in = request_arg(req);
	struct fuse_write_out out = {0};
	int err;

	if (in->size > request_arg_len(req) - sizeof(*in))
		return -EINVAL;
	if (in->offset > INT64_MAX || in->size > INT64_MAX - in->offset)
		return -EFBIG;
	err = req->step == WRITE_SYNC ? 0 : write_some(req, in);
	if (req->step == WRITE_SYNC) {
		/* What has been written is no success before it is durable. */
		err = slu_fs_fsync(fs_of(req), &req->ctx, request_ino(req), NO_HANDLE, true);
		if (err)
			return err;
	}
	if (err == -EAGAIN)
		return err;
	/*
	 * A page of the kernel's that came short would be lost without a word, and a short answer
	 * to O_DIRECT becomes EIO: then all of it fails.
	 */
	if (in->write_flags & FUSE_WRITE_CACHE || in->flags & O_DIRECT) {
		if (!err && req->done < in->size)
			err = -ENOSPC;
		if (err)
			return err;
	}
	if (err && !req->done)
		return err;
	out.size = (uint32_t)req->done;
	reply_data(req, &out, sizeof(out));
	return 0;
}

/* ------------------------------------------------------------------ the rest */

int op_fsync(struct request *req)
{
	const struct fuse_fsync_in *in = request_arg(req);
	int err;

	err = slu_fs_fsync(fs_of(req), &req->ctx, request_ino(req), in->fh,
			   in->fsync_flags & FUSE_FSYNC_FDATASYNC);
	if (!err)
		reply_error(req, 0);
	return err;
}

int op_syncfs(struct request *req)
{
	int err = slu_fs_syncfs_flushed(fs_of(req));

	if (!err)
		reply_error(req, 0);
	return err;
}

/*
 * FALLOCATE and COPY_FILE_RANGE change a file like a write does, but the protocol has no kill flag
 * for them, and the kernel leaves it to us. That the caller lacks CAP_FSETID is seen from its uid.
 */
static int kill_unless_root(struct request *req, uint64_t ino)
{
	struct slu_attr none = {0}, attr;
	struct slu_inode *inode;
	int err;

	if (req->ctx.uid == 0)
		return 0;
	err = slu_inode_get(fs_of(req)->ns, ino, &inode);
	if (err)
		return err;
	slu_inode_attr(inode, &attr);
	slu_inode_put(inode);
	if (!S_ISREG(attr.mode) || !(attr.mode & (S_ISUID | S_ISGID)))
		return 0;
	return slu_ns_setattr(fs_of(req)->ns, &req->ctx, ino, &none, SLU_SET_KILL_PRIV, &attr);
}

int op_fallocate(struct request *req)
{
	const struct fuse_fallocate_in *in = request_arg(req);
	int err;

	if (!in->length || in->offset > INT64_MAX || in->length > INT64_MAX)
		return -EINVAL;
	if (in->length > INT64_MAX - in->offset)
		return -EFBIG;
	err = kill_unless_root(req, request_ino(req));
	if (err)
		return err;
	err = slu_fs_fallocate(fs_of(req), &req->ctx, request_ino(req), (int)in->mode, in->offset,
			       in->length);
	if (!err)
		reply_error(req, 0);
	return err;
}

int op_lseek(struct request *req)
{
	const struct fuse_lseek_in *in = request_arg(req);
	struct fuse_lseek_out out = {0};
	int err;

	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	/* The kernel asks before it has written out its own dirty pages, or told us of its size. */
	if (req->s->opts.writeback && slu_fs_open_for_write(fs_of(req), request_ino(req))) {
		if (!req->ctx.may_wait)
			return -EAGAIN;
		err = notify_write_out(req, request_ino(req));
		if (err)
			return err;
	}
	err = slu_fs_seek(fs_of(req), &req->ctx, request_ino(req), in->offset, (int)in->whence,
			  &out.offset);
	if (!err)
		reply_data(req, &out, sizeof(out));
	return err;
}

int op_copy_file_range(struct request *req)
{
	const struct fuse_copy_file_range_in *in = request_arg(req);
	struct fuse_write_out out = {0};
	uint64_t done = 0;
	int err;

	if (in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX)
		return -EINVAL;
	err = kill_unless_root(req, in->nodeid_out);
	if (err)
		return err;
	err = slu_fs_copy_range(fs_of(req), &req->ctx, request_ino(req), in->off_in, in->nodeid_out,
				in->off_out, slu_min(in->len, COPY_MOST), &done);
	if (err)
		return err;
	out.size = (uint32_t)done;
	reply_data(req, &out, sizeof(out));
	return 0;
}
