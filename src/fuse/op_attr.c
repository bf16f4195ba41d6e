/* SPDX-License-Identifier: MIT */
/*
 * Requests about attributes: stat, setattr, statfs, extended attributes, inode flags. Called
 * through the dispatch table, from workers and the park's threads; takes no lock.
 */
#include "fuse_private.h"
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/sysmacros.h>

static struct slu_ns *ns_of(const struct request *req)
{
	return req->s->fs->ns;
}

/* ------------------------------------------------------------------ stat */

static int get_attr(struct request *req, struct slu_attr *ret)
{
	struct slu_inode *inode;
	int err;

	err = slu_inode_get(ns_of(req), request_ino(req), &inode);
	if (err)
		return err;
	slu_inode_attr(inode, ret);
	slu_inode_put(inode);
	return 0;
}

int op_getattr(struct request *req)
{
	struct slu_attr attr;
	int err;

	err = get_attr(req, &attr);
	if (!err)
		reply_attr(req, &attr);
	return err;
}

static struct protocol_sx_time sx_time(struct timespec ts)
{
	return (struct protocol_sx_time){.tv_sec = ts.tv_sec, .tv_nsec = (uint32_t)ts.tv_nsec};
}

/* The kernel asks this way for the birth time, and with GETATTR for everything else. */
int op_statx(struct request *req)
{
	struct protocol_statx_out out = {.attr_valid = CACHE_VALID_SEC};
	struct slu_attr attr;
	int err;

	err = get_attr(req, &attr);
	if (err)
		return err;
	out.stat = (struct protocol_statx){
		.mask = STATX_BASIC_STATS | STATX_BTIME,
		.blksize = SLU_BLOCK_SIZE,
		.nlink = attr.nlink,
		.uid = attr.uid,
		.gid = attr.gid,
		.mode = (uint16_t)attr.mode,
		.ino = attr.ino,
		.size = attr.size,
		.blocks = attr.blocks * (SLU_BLOCK_SIZE / 512),
		.atime = sx_time(attr.atime),
		.btime = sx_time(attr.btime),
		.ctime = sx_time(attr.ctime),
		.mtime = sx_time(attr.mtime),
		.rdev_major = major(attr.rdev),
		.rdev_minor = minor(attr.rdev),
	};
	reply_data(req, &out, sizeof(out));
	return 0;
}

int op_statfs(struct request *req)
{
	struct slu_statfs st;
	struct fuse_statfs_out out = {0};

	slu_fs_statfs(req->s->fs, &st);
	out.st = (struct fuse_kstatfs){
		.blocks = st.blocks,
		.bfree = st.bfree,
		.bavail = st.bavail,
		.files = st.files,
		.ffree = st.ffree,
		.bsize = SLU_BLOCK_SIZE,
		.frsize = SLU_BLOCK_SIZE,
		.namelen = 255,
	};
	reply_data(req, &out, sizeof(out));
	return 0;
}

/* ------------------------------------------------------------------ setattr */

static struct timespec time_of(uint64_t sec, uint32_t nsec)
{
	return (struct timespec){.tv_sec = (time_t)sec, .tv_nsec = nsec < 1000000000 ? nsec : 0};
}

static unsigned int decode_setattr(const struct fuse_setattr_in *in, struct slu_attr *attr)
{
	static const struct {
		uint32_t fattr;
		unsigned int set;
	} map[] = {
		{FATTR_MODE, SLU_SET_MODE},
		{FATTR_UID, SLU_SET_UID},
		{FATTR_GID, SLU_SET_GID},
		{FATTR_ATIME, SLU_SET_ATIME},
		{FATTR_MTIME, SLU_SET_MTIME},
		{FATTR_CTIME, SLU_SET_CTIME},
		{FATTR_ATIME_NOW, SLU_SET_ATIME_NOW},
		{FATTR_MTIME_NOW, SLU_SET_MTIME_NOW},
		{FATTR_KILL_SUIDGID, SLU_SET_KILL_PRIV},
	};
	unsigned int set = 0;

	*attr = (struct slu_attr){
		.mode = in->mode,
		.uid = in->uid,
		.gid = in->gid,
		.atime = time_of(in->atime, in->atimensec),
		.mtime = time_of(in->mtime, in->mtimensec),
		.ctime = time_of(in->ctime, in->ctimensec),
	};
	for (size_t i = 0; i < slu_array_size(map); i++) {
		if (in->valid & map[i].fattr)
			set |= map[i].set;
	}
	/* The kernel sends the time of "now" along as a hint; ours is what counts. */
	if (set & SLU_SET_ATIME_NOW)
		set &= ~SLU_SET_ATIME;
	if (set & SLU_SET_MTIME_NOW)
		set &= ~SLU_SET_MTIME;
	return set;
}

/*
 * With its write-back cache the kernel keeps mtime and ctime of files. It sends "now" as a number,
 * the same for both; and what writing has made of them it sends later, on its own, even if the file
 * has become immutable or append-only meanwhile. That looks like utimensat(2) with mtime alone, but
 * it only comes for files that somebody has open for writing.
 */
static unsigned int kernel_times(const struct request *req, const struct fuse_setattr_in *in)
{
	const uint32_t times = FATTR_MTIME | FATTR_CTIME, now = FATTR_MTIME_NOW;
	unsigned int set = 0;

	if (!req->s->opts.writeback || (in->valid & (times | now)) != times)
		return 0;
	if (in->mtime == in->ctime && in->mtimensec == in->ctimensec)
		set |= SLU_SET_MTIME_IS_NOW;
	if (!(in->valid & ~(times | FATTR_FH | FATTR_LOCKOWNER)) &&
	    slu_fs_open_for_write(req->s->fs, request_ino(req)))
		set |= SLU_SET_TIMES_PASSED;
	return set;
}

/*
 * A SETATTR can hold a new size and other things. The size first: it may have to wait, and it moves
 * mtime and ctime, which the rest may then set to what the kernel wants. Step 1: the size is done.
 */
int op_setattr(struct request *req)
{
	const struct fuse_setattr_in *in = request_arg(req);
	struct slu_attr attr;
	unsigned int set = decode_setattr(in, &attr) | kernel_times(req, in);
	int err = 0;

	if ((in->valid & FATTR_SIZE) && req->step == 0) {
		bool kill = in->valid & FATTR_KILL_SUIDGID;

		if (in->size > INT64_MAX)
			return -EFBIG;
		err = slu_fs_truncate(req->s->fs, &req->ctx, request_ino(req), in->size, kill,
				      &req->attr);
		if (err)
			return err;
		req->step = 1;
	}
	if (req->step == 1) {
		set &= ~SLU_SET_KILL_PRIV;
		if (!set) {
			reply_attr(req, &req->attr);
			return 0;
		}
	}
	err = slu_ns_setattr(ns_of(req), &req->ctx, request_ino(req), &attr, set, &req->attr);
	if (!err)
		reply_attr(req, &req->attr);
	return err;
}

/* ------------------------------------------------------------------ extended attributes */

int op_setxattr(struct request *req)
{
	const struct fuse_setxattr_in *in = request_arg(req);
	uint32_t off = sizeof(*in), len = request_arg_len(req);
	const char *name;
	int err;

	if (len < sizeof(*in))
		return -EINVAL;
	err = request_string(req, &off, &name);
	if (err)
		return err;
	if (in->size > len - off)
		return -EINVAL;
	err = slu_ns_setxattr(ns_of(req), &req->ctx, request_ino(req), name,
			      (const char *)request_arg(req) + off, in->size, (int)in->flags,
			      in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID);
	if (!err)
		reply_error(req, 0);
	return err;
}

/* name NULL: the list. Both end the same way: a length, or as many bytes. */
static int xattr_answer(struct request *req, const char *name, uint32_t size)
{
	struct fuse_getxattr_out out = {0};
	char *buf = NULL;
	ssize_t n;

	size = slu_min(size, (uint32_t)XATTR_SIZE_MAX);
	if (size && !(buf = slu_alloc(size)))
		return -ENOMEM;
	if (name)
		n = slu_ns_getxattr(ns_of(req), &req->ctx, request_ino(req), name, buf, size);
	else
		n = slu_ns_listxattr(ns_of(req), &req->ctx, request_ino(req), buf, size);
	if (n >= 0 && size) {
		slu_assert((size_t)n <= size);
		reply_data(req, buf, (size_t)n);
	} else if (n >= 0) {
		out.size = (uint32_t)n;
		reply_data(req, &out, sizeof(out));
	}
	slu_free(buf);
	return n < 0 ? (int)n : 0;
}

int op_getxattr(struct request *req)
{
	const struct fuse_getxattr_in *in = request_arg(req);
	uint32_t off = sizeof(*in);
	const char *name;
	int err;

	err = request_string(req, &off, &name);
	return err ? err : xattr_answer(req, name, in->size);
}

int op_listxattr(struct request *req)
{
	const struct fuse_getxattr_in *in = request_arg(req);

	return xattr_answer(req, NULL, in->size);
}

int op_removexattr(struct request *req)
{
	uint32_t off = 0;
	const char *name;
	int err;

	err = request_string(req, &off, &name);
	if (!err)
		err = slu_ns_removexattr(ns_of(req), &req->ctx, request_ino(req), name);
	if (!err)
		reply_error(req, 0);
	return err;
}

/* ------------------------------------------------------------------ inode flags */

/* FS_IOC_GETFLAGS has the numbers of SLU_INODE_*; FS_IOC_FSGETXATTR has its own. */
static const struct {
	uint32_t xflag, flag;
} xflags[] = {
	{FS_XFLAG_SYNC, SLU_INODE_SYNC},       {FS_XFLAG_IMMUTABLE, SLU_INODE_IMMUTABLE},
	{FS_XFLAG_APPEND, SLU_INODE_APPEND},   {FS_XFLAG_NODUMP, SLU_INODE_NODUMP},
	{FS_XFLAG_NOATIME, SLU_INODE_NOATIME},
};

static int flags_from_xflags(uint32_t x, uint32_t old, uint32_t *ret)
{
	uint32_t flags = old & SLU_INODE_DIRSYNC; /* which fsxattr cannot say */

	for (size_t i = 0; i < slu_array_size(xflags); i++) {
		if (x & xflags[i].xflag)
			flags |= xflags[i].flag;
		x &= ~xflags[i].xflag;
	}
	*ret = flags;
	return x ? -EOPNOTSUPP : 0;
}

static uint32_t flags_to_xflags(uint32_t flags)
{
	uint32_t x = 0;

	for (size_t i = 0; i < slu_array_size(xflags); i++) {
		if (flags & xflags[i].flag)
			x |= xflags[i].xflag;
	}
	return x;
}

static int reply_ioctl(struct request *req, const void *data, size_t size)
{
	struct fuse_ioctl_out out = {0};
	struct iovec iov[2] = {{&out, sizeof(out)}, {(void *)data, size}};

	reply_iov(req, iov, size ? 2 : 1, sizeof(out) + size);
	return 0;
}

/*
 * The kernel has checked that the caller owns the file and, for immutable and append, has
 * CAP_LINUX_IMMUTABLE; a uid is all that is seen of that here.
 */
static int set_flags(struct request *req, const struct slu_attr *old, uint32_t flags)
{
	const uint32_t privileged = SLU_INODE_IMMUTABLE | SLU_INODE_APPEND;
	struct slu_attr attr = {.flags = flags};

	if (flags & ~SLU_INODE_FLAGS)
		return -EOPNOTSUPP;
	if (((flags ^ old->flags) & privileged) && req->ctx.uid != 0)
		return -EPERM;
	return slu_ns_setattr(ns_of(req), &req->ctx, request_ino(req), &attr, SLU_SET_FLAGS,
			      &req->attr);
}

static int set_flags_ioctl(struct request *req, const struct slu_attr *attr, uint32_t cmd,
			   const void *data, uint32_t size)
{
	uint32_t flags;
	int err = 0;

	if (cmd == FS_IOC_SETFLAGS) {
		if (size < sizeof(flags))
			return -EINVAL;
		memcpy(&flags, data, sizeof(flags));
	} else {
		struct fsxattr fsx;

		if (size < sizeof(fsx))
			return -EINVAL;
		memcpy(&fsx, data, sizeof(fsx));
		if (fsx.fsx_extsize || fsx.fsx_projid || fsx.fsx_cowextsize)
			return -EOPNOTSUPP;
		err = flags_from_xflags(fsx.fsx_xflags, attr->flags, &flags);
	}
	if (!err)
		err = set_flags(req, attr, flags);
	return err ? err : reply_ioctl(req, NULL, 0);
}

/*
 * The numbers of GETFLAGS and SETFLAGS say long, and everybody passes an int. With
 * FUSE_IOCTL_32BIT the number's size is different, so that is compared without it.
 */
static uint32_t plain_cmd(uint32_t cmd)
{
	if (cmd == FS_IOC32_GETFLAGS)
		return FS_IOC_GETFLAGS;
	return cmd == FS_IOC32_SETFLAGS ? FS_IOC_SETFLAGS : cmd;
}

int op_ioctl(struct request *req)
{
	const struct fuse_ioctl_in *in = request_arg(req);
	uint32_t cmd = plain_cmd(in->cmd), flags;
	struct fsxattr fsx = {0};
	struct slu_attr attr;
	int err;

	if (in->in_size > request_arg_len(req) - sizeof(*in))
		return -EINVAL;
	if (cmd != FS_IOC_GETFLAGS && cmd != FS_IOC_SETFLAGS && cmd != FS_IOC_FSGETXATTR &&
	    cmd != FS_IOC_FSSETXATTR)
		return -ENOTTY;
	err = get_attr(req, &attr);
	if (err)
		return err;
	if (cmd == FS_IOC_SETFLAGS || cmd == FS_IOC_FSSETXATTR)
		return set_flags_ioctl(req, &attr, cmd, in + 1, in->in_size);
	flags = attr.flags & SLU_INODE_FLAGS;
	if (cmd == FS_IOC_GETFLAGS)
		return in->out_size < sizeof(flags) ? -EINVAL
						    : reply_ioctl(req, &flags, sizeof(flags));
	fsx.fsx_xflags = flags_to_xflags(flags);
	return in->out_size < sizeof(fsx) ? -EINVAL : reply_ioctl(req, &fsx, sizeof(fsx));
}
