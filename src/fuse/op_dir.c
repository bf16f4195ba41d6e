/* SPDX-License-Identifier: MIT */
/*
 * Requests about open directories. Called through the dispatch table, from workers and the park's
 * threads; takes no lock.
 *
 * A directory has no handle: its cookies mean something by themselves, so there is nothing to keep
 * between two READDIRs.
 */
#include "fuse_private.h"
#include <dirent.h>

struct fill {
	struct request *req;
	char *buf;
	size_t size, used;
	bool plus;
};

int op_opendir(struct request *req)
{
	struct fuse_open_out out = {.fh = UINT64_MAX};

	reply_data(req, &out, sizeof(out));
	return 0;
}

int op_releasedir(struct request *req)
{
	reply_error(req, 0);
	return 0;
}

int op_fsyncdir(struct request *req)
{
	const struct fuse_fsync_in *in = request_arg(req);
	int err;

	err = slu_fs_fsync(req->s->fs, &req->ctx, request_ino(req), UINT64_MAX,
			   in->fsync_flags & FUSE_FSYNC_FDATASYNC);
	if (!err)
		reply_error(req, 0);
	return err;
}

static bool is_dot(const char *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static int fill_entry(void *ctx, const char *name, size_t len, uint64_t cookie,
		      const struct slu_attr *attr)
{
	struct fill *f = ctx;
	size_t head = f->plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	size_t need = FUSE_REC_ALIGN(head + len);
	char *rec = f->buf + f->used;
	struct fuse_dirent *d = (struct fuse_dirent *)rec;

	if (f->size - f->used < need)
		return 1;
	memset(rec, 0, need);
	if (f->plus) {
		struct fuse_direntplus *p = (struct fuse_direntplus *)rec;

		d = &p->dirent;
		/*
		 * A node id of 0: nothing to remember, and nothing to forget. So too where the
		 * attributes cannot be read; a lookup says why, and the next one may not fail.
		 */
		if (!is_dot(name, len) && attr->nlink) {
			reply_fill_entry(&p->entry_out, attr);
			slu_ns_lookup_count(f->req->s->fs->ns, attr->ino, request_ino(f->req), 1);
		}
	}
	d->ino = attr->ino;
	d->off = cookie;
	d->namelen = (uint32_t)len;
	d->type = (attr->mode & S_IFMT) >> 12;
	memcpy(d->name, name, len);
	f->used += need;
	return 0;
}

/* What was counted for an answer that nobody took. */
static void uncount(struct fill *f)
{
	size_t off = 0;

	while (f->plus && off < f->used) {
		struct fuse_direntplus *p = (struct fuse_direntplus *)(f->buf + off);

		if (p->entry_out.nodeid)
			slu_ns_forget(f->req->s->fs->ns, p->entry_out.nodeid, 1);
		off += FUSE_DIRENTPLUS_SIZE(p);
	}
}

static int read_dir(struct request *req, bool plus)
{
	const struct fuse_read_in *in = request_arg(req);
	struct fill f = {.req = req, .plus = plus};
	int err;

	f.size = slu_min(in->size, SESSION_MAX_WRITE);
	f.buf = slu_alloc(slu_max(f.size, (size_t)1));
	if (!f.buf)
		return -ENOMEM;
	err = slu_ns_readdir(req->s->fs->ns, &req->ctx, request_ino(req), in->offset, plus,
			     fill_entry, &f);
	if (err) {
		uncount(&f);
	} else if (reply_data(req, f.buf, f.used) == -ENOENT) {
		uncount(&f);
	}
	slu_free(f.buf);
	return err;
}

int op_readdir(struct request *req)
{
	return read_dir(req, false);
}

int op_readdirplus(struct request *req)
{
	return read_dir(req, true);
}
