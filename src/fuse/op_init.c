/* SPDX-License-Identifier: MIT */
/*
 * INIT and DESTROY: what is agreed with the kernel.
 *
 * The settings follow from having one writer: the kernel may cache whatever it likes without
 * asking. Called once, by the first worker. Takes no lock.
 */
#include "fuse_private.h"
#include <syslog.h>

/*
 * Asked for where the kernel has it. Left out on purpose: AUTO_INVAL_DATA (a read that raced with a
 * write would refill the cache with the old), splice in either direction, locks (local ones are
 * right for one writer), NO_OPEN (an open handle carries the cursor for write errors).
 */
#define WANTED                                                                           \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT | FUSE_BIG_WRITES | \
	 FUSE_DONT_MASK | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | \
	 FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL | FUSE_ABORT_ERROR | FUSE_MAX_PAGES |     \
	 FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT)

/*
 * Without these the answers would be wrong and not merely slow: modes without the parent's default
 * ACL, setuid bits that survive a write.
 */
#define NEEDED (FUSE_DONT_MASK | FUSE_POSIX_ACL | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT)

/* Requests that the kernel sends without anybody waiting: read-ahead and write-back. */
#define CONGESTION_THRESHOLD 36
#define MAX_READAHEAD        (1u << 20)

static int refuse(struct request *req, const char *why)
{
	session_log(req->s, LOG_ERR, "%s", why);
	session_end(req->s, -EPROTO);
	return -EPROTO;
}

static void answer(struct request *req, const struct fuse_init_in *in, uint32_t flags)
{
	struct slu_session *s = req->s;
	uint32_t pages = flags & FUSE_MAX_PAGES ? s->max_write / SLU_BLOCK_SIZE : 32;
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = slu_min(in->minor, PROTOCOL_MINOR),
		.max_readahead = slu_min(in->max_readahead, MAX_READAHEAD),
		.flags = flags,
		.max_background = SESSION_BACKGROUND,
		.congestion_threshold = CONGESTION_THRESHOLD,
		.max_write = slu_min(s->max_write, pages * SLU_BLOCK_SIZE),
		.time_gran = 1,
		/* At least a page, though a WRITE may be smaller. */
		.max_pages = (uint16_t)slu_max(pages, 1u),
	};
	int err;

	s->max_write = out.max_write;
	/* Before the answer: the next request may come, to another worker, before write returns. */
	atomic_store(&s->ready, true);
	err = reply_data(req, &out, sizeof(out));
	if (err) {
		session_log(s, LOG_ERR, "the kernel did not take the answer to INIT: %s",
			    strerror(-err));
		session_end(s, err);
		return;
	}
	session_answered(s);
}

int op_init(struct request *req)
{
	struct slu_session *s = req->s;
	const struct fuse_init_in *in = request_arg(req);
	uint32_t flags = in->flags & WANTED;

	if (in->major > FUSE_KERNEL_VERSION) {
		/* It will ask again, in our version. */
		struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = PROTOCOL_MINOR};

		reply_data(req, &out, sizeof(out));
		return 0;
	}
	if (atomic_load(&s->ready))
		return -EIO;
	if (in->major < FUSE_KERNEL_VERSION || in->minor < PROTOCOL_MINOR_MIN)
		return refuse(req, "this kernel's FUSE is too old: Linux 5.4 is the least");
	if ((in->flags & NEEDED) != NEEDED)
		return refuse(req, "this kernel's FUSE lacks POSIX ACLs, KILLPRIV_V2 or "
				   "SETXATTR_EXT: Linux 5.12 is the least");
	if (s->opts.writeback)
		flags |= in->flags & FUSE_WRITEBACK_CACHE;
	answer(req, in, flags);
	return 0;
}

/*
 * Sent for fuseblk only, and umount waits for the answer: it is given when the volume is on disk,
 * by slu_session_free.
 */
int op_destroy(struct request *req)
{
	struct slu_session *s = req->s;

	slu_mutex_lock(&s->lock);
	s->destroy_waits = true;
	s->destroy_unique = request_header(req)->unique;
	s->destroy_fd = req->fd;
	slu_mutex_unlock(&s->lock);
	session_end(s, 0);
	return 0;
}
