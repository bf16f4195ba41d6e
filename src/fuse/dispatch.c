/* SPDX-License-Identifier: MIT */
/*
 * From a message to its handler, and what becomes of it: answered, parked, or refused.
 *
 * Called by the workers; the second half by the park's threads. Takes no lock. Must answer every
 * request exactly once, whatever is in it.
 */
#include "fuse_private.h"
#include <syslog.h>
#include <unistd.h>

static const struct op ops[SLU_OP_MAX] = {
	[FUSE_LOOKUP] = {"LOOKUP", 1, 0, op_lookup},
	[FUSE_FORGET] = {"FORGET", sizeof(struct fuse_forget_in), OP_NOREPLY, op_forget},
	[FUSE_GETATTR] = {"GETATTR", 0, 0, op_getattr},
	[FUSE_SETATTR] = {"SETATTR", sizeof(struct fuse_setattr_in), 0, op_setattr},
	[FUSE_READLINK] = {"READLINK", 0, 0, op_readlink},
	[FUSE_SYMLINK] = {"SYMLINK", 1, 0, op_symlink},
	[FUSE_MKNOD] = {"MKNOD", sizeof(struct fuse_mknod_in), 0, op_mknod},
	[FUSE_MKDIR] = {"MKDIR", sizeof(struct fuse_mkdir_in), 0, op_mkdir},
	[FUSE_UNLINK] = {"UNLINK", 1, 0, op_unlink},
	[FUSE_RMDIR] = {"RMDIR", 1, 0, op_rmdir},
	[FUSE_RENAME] = {"RENAME", sizeof(struct fuse_rename_in), 0, op_rename},
	[FUSE_LINK] = {"LINK", sizeof(struct fuse_link_in), 0, op_link},
	[FUSE_OPEN] = {"OPEN", sizeof(struct fuse_open_in), 0, op_open},
	[FUSE_READ] = {"READ", sizeof(struct fuse_read_in), 0, op_read},
	[FUSE_WRITE] = {"WRITE", sizeof(struct fuse_write_in), 0, op_write},
	[FUSE_STATFS] = {"STATFS", 0, 0, op_statfs},
	[FUSE_RELEASE] = {"RELEASE", sizeof(struct fuse_release_in), 0, op_release},
	[FUSE_FSYNC] = {"FSYNC", sizeof(struct fuse_fsync_in), OP_POOL, op_fsync},
	[FUSE_SETXATTR] = {"SETXATTR", FUSE_COMPAT_SETXATTR_IN_SIZE, 0, op_setxattr},
	[FUSE_GETXATTR] = {"GETXATTR", sizeof(struct fuse_getxattr_in), 0, op_getxattr},
	[FUSE_LISTXATTR] = {"LISTXATTR", sizeof(struct fuse_getxattr_in), 0, op_listxattr},
	[FUSE_REMOVEXATTR] = {"REMOVEXATTR", 1, 0, op_removexattr},
	[FUSE_INIT] = {"INIT", 16, OP_EARLY, op_init},
	[FUSE_OPENDIR] = {"OPENDIR", sizeof(struct fuse_open_in), 0, op_opendir},
	[FUSE_READDIR] = {"READDIR", sizeof(struct fuse_read_in), 0, op_readdir},
	[FUSE_RELEASEDIR] = {"RELEASEDIR", sizeof(struct fuse_release_in), 0, op_releasedir},
	[FUSE_FSYNCDIR] = {"FSYNCDIR", sizeof(struct fuse_fsync_in), OP_POOL, op_fsyncdir},
	[FUSE_CREATE] = {"CREATE", sizeof(struct fuse_create_in), 0, op_create},
	[FUSE_DESTROY] = {"DESTROY", 0, OP_EARLY, op_destroy},
	[FUSE_IOCTL] = {"IOCTL", sizeof(struct fuse_ioctl_in), 0, op_ioctl},
	[FUSE_BATCH_FORGET] = {"BATCH_FORGET", sizeof(struct fuse_batch_forget_in), OP_NOREPLY,
			       op_batch_forget},
	[FUSE_FALLOCATE] = {"FALLOCATE", sizeof(struct fuse_fallocate_in), OP_POOL, op_fallocate},
	[FUSE_READDIRPLUS] = {"READDIRPLUS", sizeof(struct fuse_read_in), 0, op_readdirplus},
	[FUSE_RENAME2] = {"RENAME2", sizeof(struct fuse_rename2_in), 0, op_rename2},
	[FUSE_LSEEK] = {"LSEEK", sizeof(struct fuse_lseek_in), 0, op_lseek},
	[FUSE_COPY_FILE_RANGE] = {"COPY_FILE_RANGE", sizeof(struct fuse_copy_file_range_in),
				  OP_POOL, op_copy_file_range},
	[OPCODE_SYNCFS] = {"SYNCFS", sizeof(struct fuse_syncfs_in), OP_POOL, op_syncfs},
	[OPCODE_TMPFILE] = {"TMPFILE", sizeof(struct fuse_create_in), 0, op_tmpfile},
	[OPCODE_STATX] = {"STATX", sizeof(struct protocol_statx_in), 0, op_statx},
};

/*
 * Not there, and so answered with ENOSYS, which the kernel remembers: ACCESS (default_permissions
 * checks), FLUSH (nothing relies on it), GETLK, SETLK and SETLKW (locks are the kernel's),
 * INTERRUPT (what was begun is finished), BMAP, POLL.
 */
const struct op *op_find(uint32_t opcode)
{
	return opcode < SLU_OP_MAX && ops[opcode].run ? &ops[opcode] : NULL;
}

/* ------------------------------------------------------------------ one request */

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void log_request(const struct request *req, unsigned int error, uint64_t ns)
{
	const struct fuse_in_header *h = request_header(req);
	const char *name = error ? strerrorname_np((int)error) : "ok";

	session_log(req->s, LOG_DEBUG, "request %llu: %s (%u), inode %llu, %u bytes: %s, %llu µs",
		    (unsigned long long)h->unique, req->op->name, h->opcode,
		    (unsigned long long)request_ino(req), req->len, name ? name : "error",
		    (unsigned long long)(ns / 1000));
}

static void account(struct request *req)
{
	struct slu_session *s = req->s;
	uint32_t opcode = request_header(req)->opcode;
	struct slu_op_stats *st = &s->stats.ops[opcode];

	uint64_t ns = slu_clock_ns() - req->start_ns;
	unsigned int error = (unsigned int)-req->error;

	count(&st->count, 1);
	slu_histogram_add(&st->took, ns);
	slow_note(&s->slow, request_ino(req), opcode, ns);
	if (error)
		count(&st->errors[error < SLU_OP_ERRNOS ? error : 0], 1);
	if (s->opts.debug)
		log_request(req, error, ns);
}

/* False: it has to wait and may not; everything it has done so far is in it. */
static bool run_once(struct request *req, bool may_wait)
{
	int err;

	req->ctx.may_wait = may_wait;
	for (;;) {
		req->ctx.need = (struct slu_need){0};
		err = req->op->run(req);
		if (err != -EAGAIN)
			break;
		if (!may_wait)
			return false;
		/* It should have waited itself. Waiting for what it names is as good. */
		err = req->ctx.need.wait ? slu_need_wait(&req->ctx.need) : -EIO;
		if (err)
			break;
	}
	if (err && !(req->op->flags & OP_NOREPLY))
		reply_error(req, err);
	account(req);
	return true;
}

static void run_parked(struct park_item *item)
{
	struct request *req = slu_container_of(item, struct request, item);

	(void)run_once(req, true);
	request_free(req);
}

/*
 * Takes the request off this worker; the worker gets back a buffer to go on with. Where memory is
 * short the worker waits itself: slow, and never lost.
 */
static struct request *park(struct request *req)
{
	struct slu_session *s = req->s;
	struct request *parked = req, *next = req;

	if (req->len <= REQUEST_SMALL)
		parked = request_copy(req);
	else
		next = request_new(s);
	if (!parked || !next) {
		atomic_fetch_add_explicit(&s->stats.inline_waits, 1, memory_order_relaxed);
		(void)run_once(req, true);
		return req;
	}
	parked->item.run = run_parked;
	parked->item.bytes = sizeof(*parked) + parked->cap;
	atomic_fetch_add_explicit(&s->stats.parked, 1, memory_order_relaxed);
	if (park_submit(&s->park, &parked->item))
		atomic_fetch_add_explicit(&s->stats.park_waits, 1, memory_order_relaxed);
	return next;
}

/* ------------------------------------------------------------------ from the worker */

static int check(const struct request *req, const struct op *op)
{
	if (!op)
		return -ENOSYS;
	if (!(op->flags & OP_EARLY) && !atomic_load(&req->s->ready))
		return -EIO;
	if (request_arg_len(req) < op->arg_size)
		return -EINVAL;
	return 0;
}

static void begin(struct request *req, size_t n)
{
	const struct fuse_in_header *h = request_header(req);

	req->len = (uint32_t)n;
	req->op = NULL;
	req->error = 0;
	req->step = 0;
	req->done = 0;
	req->counted = false;
	req->start_ns = slu_clock_ns();
	req->ctx = (struct slu_ctx){
		.uid = h->uid,
		.gid = h->gid,
		.pid = (pid_t)h->pid,
	};
}

struct request *session_dispatch(struct request *req, size_t n)
{
	const struct fuse_in_header *h = request_header(req);
	const struct op *op;
	int err;

	/* Without a header there is nobody to answer. */
	if (n < sizeof(*h) || h->len != n) {
		session_log(req->s, LOG_ERR, "a message of %zu bytes says that it has %u", n,
			    n < sizeof(*h) ? 0 : h->len);
		return req;
	}
	begin(req, n);
	op = op_find(h->opcode);
	err = check(req, op);
	if (err) {
		if (!op || !(op->flags & OP_NOREPLY))
			reply_error(req, err);
		if (req->s->opts.debug)
			session_log(req->s, LOG_DEBUG,
				    "request %llu: %s (%u), inode %llu, %u bytes: %s, refused",
				    (unsigned long long)h->unique, op ? op->name : "not served",
				    h->opcode, (unsigned long long)h->nodeid, h->len,
				    strerrorname_np(-err));
		return req;
	}
	req->op = op;
	if (!(op->flags & OP_NOREPLY)) {
		req->counted = true;
		atomic_fetch_add(&req->s->nunanswered, 1);
	}
	if ((op->flags & OP_POOL) || !run_once(req, false))
		return park(req);
	return req;
}
