/* SPDX-License-Identifier: MIT */
/*
 * Requests about names: decoded and handed to the namespace. Called through the dispatch table,
 * from workers and the park's threads; takes no lock.
 */
#include "fuse_private.h"
#include <limits.h>

static struct slu_ns *ns_of(const struct request *req)
{
	return req->s->fs->ns;
}

/* A successful creation has been counted as a lookup by the namespace. */
static int entry_or_error(struct request *req, int err, const struct slu_attr *attr)
{
	if (err)
		return err;
	reply_entry(req, attr);
	return 0;
}

int op_lookup(struct request *req)
{
	struct slu_attr attr;
	uint32_t off = 0;
	const char *name;
	int err;

	err = request_name(req, &off, &name);
	if (!err)
		err = slu_ns_lookup(ns_of(req), &req->ctx, request_ino(req), name, &attr);
	if (err == -ENOENT) {
		/* "No such name" is worth keeping, too. */
		struct fuse_entry_out out = {.entry_valid = CACHE_VALID_SEC};

		reply_data(req, &out, sizeof(out));
		return 0;
	}
	return entry_or_error(req, err, &attr);
}

int op_forget(struct request *req)
{
	const struct fuse_forget_in *in = request_arg(req);

	slu_ns_forget(ns_of(req), request_ino(req), in->nlookup);
	return 0;
}

int op_batch_forget(struct request *req)
{
	const struct fuse_batch_forget_in *in = request_arg(req);
	const struct fuse_forget_one *one = (const void *)(in + 1);
	uint64_t room = (request_arg_len(req) - sizeof(*in)) / sizeof(*one);

	for (uint64_t i = 0; i < slu_min((uint64_t)in->count, room); i++)
		slu_ns_forget(ns_of(req), one[i].nodeid, one[i].nlookup);
	return 0;
}

int op_readlink(struct request *req)
{
	char target[PATH_MAX];
	int len;

	len = slu_ns_readlink(ns_of(req), &req->ctx, request_ino(req), target, sizeof(target));
	if (len < 0)
		return len;
	reply_data(req, target, slu_min((size_t)len, sizeof(target) - 1));
	return 0;
}

int op_symlink(struct request *req)
{
	const char *name, *target;
	struct slu_attr attr;
	uint32_t off = 0;
	int err;

	err = request_name(req, &off, &name);
	if (!err)
		err = request_string(req, &off, &target);
	if (!err && strlen(target) >= PATH_MAX)
		err = -ENAMETOOLONG;
	if (!err)
		err = slu_ns_symlink(ns_of(req), &req->ctx, request_ino(req), name, target, &attr);
	return entry_or_error(req, err, &attr);
}

static int make_node(struct request *req, uint32_t off, mode_t mode, uint32_t rdev, mode_t umask)
{
	struct slu_attr attr;
	const char *name;
	int err;

	req->ctx.umask = umask;
	err = request_name(req, &off, &name);
	if (!err)
		err = slu_ns_mknod(ns_of(req), &req->ctx, request_ino(req), name, mode, rdev,
				   &attr);
	return entry_or_error(req, err, &attr);
}

int op_mknod(struct request *req)
{
	const struct fuse_mknod_in *in = request_arg(req);

	return make_node(req, sizeof(*in), in->mode, in->rdev, in->umask);
}

int op_mkdir(struct request *req)
{
	const struct fuse_mkdir_in *in = request_arg(req);

	return make_node(req, sizeof(*in), (in->mode & 07777) | S_IFDIR, 0, in->umask);
}

int op_unlink(struct request *req)
{
	uint32_t off = 0;
	const char *name;
	int err;

	err = request_name(req, &off, &name);
	if (!err)
		err = slu_ns_unlink(ns_of(req), &req->ctx, request_ino(req), name);
	if (!err)
		reply_error(req, 0);
	return err;
}

int op_rmdir(struct request *req)
{
	uint32_t off = 0;
	const char *name;
	int err;

	err = request_name(req, &off, &name);
	if (!err)
		err = slu_ns_rmdir(ns_of(req), &req->ctx, request_ino(req), name);
	if (!err)
		reply_error(req, 0);
	return err;
}

static int rename_names(struct request *req, uint32_t off, uint64_t newdir, unsigned int flags)
{
	const char *name, *newname;
	int err;

	err = request_name(req, &off, &name);
	if (!err)
		err = request_name(req, &off, &newname);
	if (!err)
		err = slu_ns_rename(ns_of(req), &req->ctx, request_ino(req), name, newdir, newname,
				    flags);
	if (!err)
		reply_error(req, 0);
	return err;
}

int op_rename(struct request *req)
{
	const struct fuse_rename_in *in = request_arg(req);

	return rename_names(req, sizeof(*in), in->newdir, 0);
}

int op_rename2(struct request *req)
{
	const struct fuse_rename2_in *in = request_arg(req);

	return rename_names(req, sizeof(*in), in->newdir, in->flags);
}

int op_link(struct request *req)
{
	const struct fuse_link_in *in = request_arg(req);
	uint32_t off = sizeof(*in);
	struct slu_attr attr;
	const char *name;
	int err;

	err = request_name(req, &off, &name);
	if (!err)
		err = slu_ns_link(ns_of(req), &req->ctx, in->oldnodeid, request_ino(req), name,
				  &attr);
	return entry_or_error(req, err, &attr);
}
