/* SPDX-License-Identifier: MIT */
/*
 * Request buffers: made, copied, checked, answered.
 *
 * Owns the session's spare buffers. Called by the workers and the handlers, from any thread. Takes
 * the session's leaf lock for the spares. Must never trust a length or a string of a message: the
 * kernel is a peer like any other.
 */
#include "fuse_private.h"
#include <limits.h>
#include <unistd.h>

/* ------------------------------------------------------------------ buffers */

struct request *request_new(struct slu_session *s)
{
	size_t cap = s->opts.max_write + SESSION_HEADROOM;
	struct request *req;

	slu_mutex_lock(&s->lock);
	req = s->spares;
	if (req) {
		s->spares = req->next_spare;
		s->nspares--;
	}
	slu_mutex_unlock(&s->lock);
	if (req)
		return req;
	/* The struct has a page of its own, so that the message starts on one. */
	req = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE + cap);
	if (!req)
		return NULL;
	memset(req, 0, sizeof(*req));
	req->s = s;
	req->cap = cap;
	req->buf = (char *)req + SLU_BLOCK_SIZE;
	return req;
}

struct request *request_copy(const struct request *req)
{
	struct request *copy = slu_alloc(sizeof(*copy) + req->len);

	if (!copy)
		return NULL;
	*copy = *req;
	copy->cap = req->len;
	copy->buf = (char *)(copy + 1);
	memcpy(copy->buf, req->buf, req->len);
	return copy;
}

void request_free(struct request *req)
{
	struct slu_session *s;

	if (!req)
		return;
	s = req->s;
	if (req->cap == s->opts.max_write + SESSION_HEADROOM) {
		slu_mutex_lock(&s->lock);
		if (s->nspares < SESSION_MAX_SPARES) {
			req->next_spare = s->spares;
			s->spares = req;
			s->nspares++;
			req = NULL;
		}
		slu_mutex_unlock(&s->lock);
	}
	slu_free(req);
}

void request_free_spares(struct slu_session *s)
{
	while (s->spares) {
		struct request *req = s->spares;

		s->spares = req->next_spare;
		slu_free(req);
	}
	s->nspares = 0;
}

/* ------------------------------------------------------------------ what a message holds */

uint32_t request_arg_len(const struct request *req)
{
	uint32_t ext = request_header(req)->total_extlen * 8u;
	uint32_t len = req->len - (uint32_t)sizeof(struct fuse_in_header);

	return ext <= len ? len - ext : 0;
}

int request_string(const struct request *req, uint32_t *off, const char **ret)
{
	const char *arg = request_arg(req);
	uint32_t len = request_arg_len(req);
	const char *end;

	if (*off >= len)
		return -EINVAL;
	end = memchr(arg + *off, '\0', len - *off);
	if (!end || end == arg + *off)
		return -EINVAL;
	*ret = arg + *off;
	*off = (uint32_t)(end - arg) + 1;
	return 0;
}

int request_name(const struct request *req, uint32_t *off, const char **ret)
{
	const char *name;
	int err = request_string(req, off, &name);

	if (err)
		return err;
	if (strlen(name) > NAME_MAX)
		return -ENAMETOOLONG;
	if (strchr(name, '/'))
		return -EINVAL;
	*ret = name;
	return 0;
}

/* ------------------------------------------------------------------ answers */

static int send_reply(struct request *req, int error, const struct iovec *data, int ndata,
		      size_t len)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + len),
		.error = error,
		.unique = request_header(req)->unique,
	};
	/* A READ of 1 MiB is 257 pieces at most. */
	struct iovec iov[SESSION_MAX_WRITE / SLU_BLOCK_SIZE + 8];
	ssize_t n;

	slu_assert((size_t)ndata < slu_array_size(iov));
	iov[0] = (struct iovec){&out, sizeof(out)};
	for (int i = 0; i < ndata; i++)
		iov[i + 1] = data[i];
	req->error = error;
	/* Before the answer: the next request may be here before we are back. */
	if (req->counted) {
		req->counted = false;
		atomic_fetch_sub(&req->s->nunanswered, 1);
	}
	do {
		n = writev(req->fd, iov, ndata + 1);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int notify_write_out(struct request *req, uint64_t ino)
{
	struct fuse_notify_inval_inode_out inval = {.ino = ino}; /* len 0: to the end */
	struct fuse_out_header out = {
		.len = sizeof(out) + sizeof(inval),
		.error = FUSE_NOTIFY_INVAL_INODE,
	};
	struct iovec iov[] = {{&out, sizeof(out)}, {&inval, sizeof(inval)}};
	ssize_t n;

	do {
		n = writev(req->fd, iov, slu_array_size(iov));
	} while (n < 0 && errno == EINTR);
	/* -ENOENT: the kernel does not know the inode, so it has nothing of it. */
	return n < 0 && errno != ENOENT ? -errno : 0;
}

int reply_error(struct request *req, int err)
{
	/* The kernel refuses an answer with an errno that is none. */
	if (err > 0 || err <= -512)
		err = -EIO;
	return send_reply(req, err, NULL, 0, 0);
}

int reply_data(struct request *req, const void *data, size_t len)
{
	struct iovec iov = {(void *)data, len};

	return send_reply(req, 0, &iov, len ? 1 : 0, len);
}

int reply_iov(struct request *req, const struct iovec *iov, int niov, size_t len)
{
	return send_reply(req, 0, iov, niov, len);
}

void reply_fill_attr(struct fuse_attr *ret, const struct slu_attr *attr)
{
	*ret = (struct fuse_attr){
		.ino = attr->ino,
		.size = attr->size,
		.blocks = attr->blocks * (SLU_BLOCK_SIZE / 512),
		.atime = (uint64_t)attr->atime.tv_sec,
		.mtime = (uint64_t)attr->mtime.tv_sec,
		.ctime = (uint64_t)attr->ctime.tv_sec,
		.atimensec = (uint32_t)attr->atime.tv_nsec,
		.mtimensec = (uint32_t)attr->mtime.tv_nsec,
		.ctimensec = (uint32_t)attr->ctime.tv_nsec,
		.mode = attr->mode,
		.nlink = attr->nlink,
		.uid = attr->uid,
		.gid = attr->gid,
		/* glibc's encoding of what fits in 32 bits is the kernel's. */
		.rdev = attr->rdev,
		.blksize = SLU_BLOCK_SIZE,
	};
}

void reply_fill_entry(struct fuse_entry_out *ret, const struct slu_attr *attr)
{
	*ret = (struct fuse_entry_out){
		.nodeid = attr->ino,
		.generation = attr->generation,
		.entry_valid = CACHE_VALID_SEC,
		.attr_valid = CACHE_VALID_SEC,
	};
	reply_fill_attr(&ret->attr, attr);
}

int reply_attr(struct request *req, const struct slu_attr *attr)
{
	struct fuse_attr_out out = {.attr_valid = CACHE_VALID_SEC};

	reply_fill_attr(&out.attr, attr);
	return reply_data(req, &out, sizeof(out));
}

/* An entry is one more lookup that the kernel will forget; it has been counted already. */
int reply_entry(struct request *req, const struct slu_attr *attr)
{
	struct fuse_entry_out out;
	int err;

	reply_fill_entry(&out, attr);
	err = reply_data(req, &out, sizeof(out));
	if (err == -ENOENT)
		slu_ns_forget(req->s->fs->ns, attr->ino, 1);
	return err;
}
