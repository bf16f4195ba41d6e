/* SPDX-License-Identifier: MIT */
/*
 * fuse: what the files of this layer share. A request is the kernel's own message in a buffer; a
 * handler decodes it, and can be run again from the start after it had to wait.
 */
#ifndef SLUICE_FUSE_PRIVATE_H
#define SLUICE_FUSE_PRIVATE_H

#include "protocol.h"
#include "sluice/session.h"
#include <string.h>

/* ------------------------------------------------------------------ park */

/*
 * A bounded queue of work that has to wait for something, and the threads that may wait. Knows
 * nothing of requests.
 */
struct park_item {
	struct park_item *next;
	void (*run)(struct park_item *item); /* once, from a thread of the park; ends the item */
	size_t bytes;                        /* memory it holds, until run returns */
};

struct park_limits {
	unsigned int max_items; /* queued and running */
	size_t max_bytes;       /* the same; one item always fits */
	unsigned int max_threads;
	size_t max_bytes_held; /* instead of max_bytes, while it is held */
};

struct park {
	struct slu_mutex lock; /* leaf: everything below */
	struct slu_cond work;  /* an item was queued, or stopping */
	struct slu_cond room;  /* an item ended */
	struct park_item *head, **tail;
	_Atomic uint32_t nitems; /* queued and running; written under the lock */
	unsigned int nqueued, nidle, nthreads;
	size_t bytes;
	bool held; /* nothing ends for a while, and that is as it should be */
	bool stopping;
	struct park_limits limits;
	struct slu_thread *threads; /* limits.max_threads of them, nthreads started */
};

/* Starts the first thread, so that one item can always be run. -ENOMEM, -EAGAIN. */
int park_init(struct park *p, const struct park_limits *limits);
/* Queues; waits for room, and returns true if it had to. No lock held. Not after park_fini. */
bool park_submit(struct park *p, struct park_item *item);
/*
 * Items will not end until it is said that they do again: more memory may be queued in the meantime,
 * for who waits for room in the park reads no requests.
 */
void park_hold(struct park *p, bool held);
/* Runs what is queued to its end, then stops the threads. */
void park_fini(struct park *p);

/* ------------------------------------------------------------------ requests */

struct request;

enum op_flags {
	OP_POOL = 1,    /* always waits: never run on the thread that reads requests */
	OP_NOREPLY = 2, /* the kernel expects no answer */
	OP_EARLY = 4,   /* allowed before INIT */
};

struct op {
	const char *name;
	uint32_t arg_size; /* bytes that must follow the header */
	unsigned int flags;
	/*
	 * 0: answered. -EAGAIN: has to wait (ctx.need); what has been done so far is in the
	 * request. Else the errno to answer with. With ctx.may_wait it waits itself.
	 */
	int (*run)(struct request *req);
};
const struct op *op_find(uint32_t opcode);

/*
 * One message and what is known about it. Big ones are read into; a small copy is what gets parked
 * where the message is short.
 */
struct request {
	struct park_item item;
	struct slu_session *s;
	const struct op *op;
	int fd;       /* the device it came from, and must be answered on */
	uint32_t len; /* bytes of the message */
	size_t cap;   /* bytes that fit in buf */
	char *buf;    /* the message */
	struct request *next_spare;
	uint64_t start_ns;
	int error;    /* answered with: for statistics */
	bool counted; /* among those that are not answered */

	/* For a handler that is run more than once. */
	struct slu_ctx ctx;
	unsigned int step; /* 0 at first; the handler's */
	uint64_t done;
	struct slu_attr attr;
};

static inline const struct fuse_in_header *request_header(const struct request *req)
{
	return (const struct fuse_in_header *)req->buf;
}
static inline uint64_t request_ino(const struct request *req)
{
	return request_header(req)->nodeid;
}
/* What follows the header; at least op->arg_size bytes. */
static inline const void *request_arg(const struct request *req)
{
	return req->buf + sizeof(struct fuse_in_header);
}
/* Bytes after the header, without extensions. */
uint32_t request_arg_len(const struct request *req);
/*
 * A string at *off (counted from the argument), and moves *off behind its NUL. -EINVAL: not
 * terminated or empty.
 */
int request_string(const struct request *req, uint32_t *off, const char **ret);
/* A name of at most 255 bytes: also -ENAMETOOLONG. */
int request_name(const struct request *req, uint32_t *off, const char **ret);

struct request *request_new(struct slu_session *s);
/* The same message and progress in a buffer of its own size. NULL: no memory. */
struct request *request_copy(const struct request *req);
void request_free(struct request *req);
/* Spare buffers of a session. */
void request_free_spares(struct slu_session *s);

/*
 * The lifetime of kernel caches: nobody but the kernel changes the volume, so as good as for ever
 * (34 years; the kernel turns it into a number of jiffies).
 */
#define CACHE_VALID_SEC (1ull << 30)

/*
 * Answers. 0, or the error of the write: -ENOENT when the kernel no longer waits, and then a
 * handler takes back what only the answer would have handed over. A request is answered once.
 */
int reply_error(struct request *req, int err);
/*
 * Has the kernel write out what it has of an inode and forget the pages. Waits for WRITEs that it
 * sends meanwhile, so never on a thread that reads requests.
 */
int notify_write_out(struct request *req, uint64_t ino);
int reply_data(struct request *req, const void *data, size_t len);
int reply_iov(struct request *req, const struct iovec *iov, int niov, size_t len);
int reply_attr(struct request *req, const struct slu_attr *attr);
void reply_fill_attr(struct fuse_attr *ret, const struct slu_attr *attr);
void reply_fill_entry(struct fuse_entry_out *ret, const struct slu_attr *attr);

/* ------------------------------------------------------------------ the session */

#define SESSION_MAX_WRITE   (1u << 20)
#define SESSION_MAX_WORKERS 32u
#define SESSION_HEADROOM    4096u /* what the kernel wants beside the data of a WRITE */
#define SESSION_MAX_SPARES  8u
#define SESSION_BACKGROUND  48u   /* requests that the kernel makes on its own, at a time */
#define REQUEST_SMALL       8192u /* a message up to this size is copied to be parked */

#define SESSION_WAKE_SIGNAL SIGUSR1 /* calls a worker out of read */

struct worker {
	struct slu_session *s;
	struct slu_thread thread;
	struct request *req; /* the buffer it reads into */
	int fd;              /* its own clone of the device, or the session's */
	_Atomic bool running;
};

/* Who reads: busy_poll.c. */
struct busy_poll {
	uint64_t limit_ns;               /* how long to look for a request; 0: never */
	_Atomic(struct worker *) poller; /* the only one that reads; NULL: all do */
	_Atomic uint64_t taken;          /* requests it has read */
	_Atomic uint64_t not_before_ns;  /* when it may begin again */
	_Atomic uint64_t last_ns;        /* when the last request was read */
	_Atomic uint32_t seen, against;  /* requests that were judged, and votes */
	struct slu_cond bench;           /* the session's lock: poller has changed */
	bool watched;                    /* the same lock: one on the bench has the watch */
};

/* Who watches the slowest requests: slow.c. */
struct slow_requests {
	_Atomic uint64_t least_ns; /* what took no longer is nobody's concern */
	struct slu_mutex lock;     /* leaf: the watches and their tables */
	struct slu_slow_watch *watches;
};
void slow_init(struct slow_requests *slow);
void slow_fini(struct slow_requests *slow);
/* A request has been answered. */
void slow_note(struct slow_requests *slow, uint64_t ino, uint32_t opcode, uint64_t ns);

struct slu_session {
	struct slu_session_opts opts;
	struct slu_fs *fs;
	int fd;
	uint32_t max_write; /* as negotiated */
	_Atomic bool ready; /* INIT has come: other requests may, too */
	_Atomic bool stopping;
	_Atomic uint32_t nidle;       /* workers that wait for a request */
	_Atomic uint32_t nunanswered; /* requests that were read, and for which somebody waits */
	struct busy_poll busy;
	struct slow_requests slow;
	_Atomic uint64_t nopen;

	struct slu_mutex lock; /* leaf: everything below */
	struct slu_cond changed;
	bool answered; /* INIT has been */
	bool ended;
	int end_error;
	unsigned int nworkers;
	struct worker workers[SESSION_MAX_WORKERS];
	struct request *spares;
	unsigned int nspares;
	bool destroy_waits; /* a DESTROY is to be answered at the very end */
	uint64_t destroy_unique;
	int destroy_fd;

	struct park park;
	struct slu_session_stats stats;
};

void session_log(struct slu_session *s, int priority, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void session_end(struct slu_session *s, int err);
void session_answered(struct slu_session *s);
/* Runs the message of n bytes in req. Returns the buffer to read the next one into. */
struct request *session_dispatch(struct request *req, size_t n);

/* ------------------------------------------------------------------ busy polling */

void busy_poll_init(struct slu_session *s);
void busy_poll_fini(struct slu_session *s);
/* The session is stopping: nobody sits on the bench, or polls, any more. */
void busy_poll_stop(struct slu_session *s);
/* Returns when this worker should read: at once, or when a request has come, or it is needed. */
void busy_poll_before_read(struct worker *w);
/* Of a message of n bytes, before it is dispatched. */
void busy_poll_after_read(struct worker *w, size_t n);

/* ------------------------------------------------------------------ handlers, by file */

int op_init(struct request *req);
int op_destroy(struct request *req);

int op_lookup(struct request *req);
int op_forget(struct request *req);
int op_batch_forget(struct request *req);
int op_readlink(struct request *req);
int op_symlink(struct request *req);
int op_mknod(struct request *req);
int op_mkdir(struct request *req);
int op_unlink(struct request *req);
int op_rmdir(struct request *req);
int op_rename(struct request *req);
int op_rename2(struct request *req);
int op_link(struct request *req);

int op_getattr(struct request *req);
int op_setattr(struct request *req);
int op_statx(struct request *req);
int op_statfs(struct request *req);
int op_setxattr(struct request *req);
int op_getxattr(struct request *req);
int op_listxattr(struct request *req);
int op_removexattr(struct request *req);
int op_ioctl(struct request *req);

int op_open(struct request *req);
int op_create(struct request *req);
int op_tmpfile(struct request *req);
int op_read(struct request *req);
int op_write(struct request *req);
int op_release(struct request *req);
int op_fsync(struct request *req);
int op_syncfs(struct request *req);
int op_fallocate(struct request *req);
int op_lseek(struct request *req);
int op_copy_file_range(struct request *req);

int op_opendir(struct request *req);
int op_readdir(struct request *req);
int op_readdirplus(struct request *req);
int op_releasedir(struct request *req);
int op_fsyncdir(struct request *req);

/* For handlers that create: counts and forgets what the kernel has been told. */
int reply_entry(struct request *req, const struct slu_attr *attr);

#endif
