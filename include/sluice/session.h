/* SPDX-License-Identifier: MIT */
/*
 * session: a volume behind /dev/fuse. Mounts through libfuse, then speaks the kernel's protocol
 * itself: decodes requests, calls fs and namespace, answers.
 *
 * libfuse does what it alone knows how to do: the mount, as root or through fusermount3. Requests
 * are read and answered here, raw, because a session needs what libfuse 3.14 does not hand on (the
 * kill flags of WRITE and OPEN, SETXATTR's extension, O_TMPFILE, birth times, SYNCFS), and
 * because a raw request is all that has to be kept to park it, to run it again, or to let another
 * process finish it.
 *
 * The order at mount: start the mounter (it forks), then everything that makes threads or rings,
 * then the mount, then the session's threads.
 */
#ifndef SLUICE_SESSION_H
#define SLUICE_SESSION_H

#include "sluice/fs.h"
#include "sluice/histogram.h"

/* ------------------------------------------------------------------ mounting */

struct slu_mount_opts {
	const char
		*mountpoint; /* absolute; or /dev/fd/N: a device that somebody else has mounted */
	const char *source;  /* shown as the mount's source: the image's absolute path */
	const char *subtype;
	const char *flags; /* "nodev,nosuid,…": the kernel's own words, NULL or "" for none */
	bool allow_other;
	/* fuseblk: source is a block device and we are root; umount then waits for us */
	bool blkdev;
};

/*
 * A small process of its own does the mounting, because fusermount3 is forked for it: fork it
 * before there are threads, let it mount when everything else works. It ends when it has mounted,
 * or with the caller. opts must live until mount returns.
 */
struct slu_mounter;
int slu_mounter_start(const struct slu_mount_opts *opts, struct slu_mounter **ret);
/*
 * *ret_fd: the FUSE device, the caller's. On failure (-EIO) why holds one line, libfuse's or
 * fusermount3's own words.
 */
int slu_mounter_mount(struct slu_mounter *m, bool readonly, int *ret_fd, char *why, size_t size);
/* NULL is allowed. */
void slu_mounter_free(struct slu_mounter *m);

#define SLU_DETACH_LAZY \
	1u /* also when files are open: out of sight now, gone when they are closed */
#define SLU_DETACH_FORCE 2u /* root only */
/*
 * Unmounts: umount2 as root, else fusermount3 -u. Starts a process without forking this one, so
 * any thread may call it. -EBUSY, -EPERM, -EINVAL (not mounted), -EIO; why as above.
 */
int slu_mount_detach(const char *mountpoint, unsigned int flags, char *why, size_t size);

/* ------------------------------------------------------------------ serving */

struct slu_session;

struct slu_session_opts {
	bool writeback;           /* let the kernel keep dirty pages */
	bool debug;               /* log every request */
	uint32_t max_write;       /* bytes per WRITE: 4,096 to 1 MiB; 0: 1 MiB */
	unsigned int max_workers; /* threads that read requests; 0: 10. Started by demand. */
	/* How long a worker looks for the next request before it sleeps; 0: not at all. */
	uint64_t busy_poll_ns;
	/* Called once, from a worker: nobody can use the mount any more. Must not block. */
	void (*ended)(void *ctx);
	/* syslog(3) priorities; any thread. Must not block for long. */
	void (*log)(void *ctx, int priority, const char *line);
	void *ctx;
};

/* fd, a mounted FUSE device, becomes the session's on success. fs stays the caller's. -ENOMEM. */
int slu_session_new(struct slu_fs *fs, int fd, const struct slu_session_opts *opts,
		    struct slu_session **ret);
/*
 * Starts the threads. SIGUSR1 gets a handler that does nothing: it is how a worker is called back
 * from a read. -EAGAIN, -ENOMEM: none runs.
 */
int slu_session_start(struct slu_session *s);
/*
 * Until the kernel has been answered its INIT. 0, -ETIMEDOUT, or the error that ended the session.
 */
int slu_session_wait_ready(struct slu_session *s, uint64_t deadline_ns);
/* Whether the session has ended; *ret_error: 0 after an unmount, -ECONNABORTED, -EPROTO, … */
bool slu_session_ended(struct slu_session *s, int *ret_error);
/*
 * No more requests are read; those that were are finished and answered, the parked ones too. The
 * device stays open, so the kernel waits for us and loses nothing.
 */
void slu_session_stop(struct slu_session *s);
/*
 * After stop, and after the volume is on disk: answers DESTROY, for which umount of a fuseblk mount
 * waits, and closes the device. NULL is allowed.
 */
void slu_session_free(struct slu_session *s);

/* Files the kernel has open at this moment. */
uint64_t slu_session_nopen(struct slu_session *s);

/* Requests that have been read and for which somebody waits. */
uint32_t slu_session_nwaiting(const struct slu_session *s);
/* Of these: those that are parked, or run by a thread that may wait. */
uint32_t slu_session_nparked(const struct slu_session *s);
/* Whether one worker polls for all at this moment. */
bool slu_session_busy_polls(const struct slu_session *s);

#define SLU_OP_ERRNOS 134u /* errors[0] counts errnos beyond */
struct slu_op_stats {
	_Atomic uint64_t count;
	struct slu_histogram took;              /* from reading a request to its answer */
	_Atomic uint64_t errors[SLU_OP_ERRNOS]; /* by errno */
};
#define SLU_OP_MAX 64
struct slu_session_stats {
	struct slu_op_stats ops[SLU_OP_MAX]; /* by opcode */
	_Atomic uint64_t parked;             /* requests that were taken off their worker */
	_Atomic uint64_t park_waits;         /* a worker had to wait for room to park in */
	_Atomic uint64_t inline_waits;       /* no memory to park: the worker did the waiting */
	_Atomic uint64_t workers;
	_Atomic uint64_t busy_polls; /* times that one worker began to poll for all */
	_Atomic uint64_t read_bytes; /* that answers to READ have carried */
};
const struct slu_session_stats *slu_session_stats(const struct slu_session *s);
/* "LOOKUP", …; NULL for numbers that mean nothing here. */
const char *slu_session_op_name(unsigned int opcode);

/* ------------------------------------------------------------------ the slowest requests */

#define SLU_SLOW_MAX 32u
struct slu_slow_request {
	uint64_t ino; /* what the request is about; the directory, for those with a name */
	uint64_t ns;  /* from reading it to its answer */
	uint32_t opcode;
};
/* The session's from watch to unwatch, in memory of the caller's. */
struct slu_slow_watch {
	struct slu_slow_watch *next;
	unsigned int n;
	struct slu_slow_request requests[SLU_SLOW_MAX]; /* slowest first, each inode once */
};
void slu_session_slow_watch(struct slu_session *s, struct slu_slow_watch *w);
void slu_session_slow_unwatch(struct slu_session *s, struct slu_slow_watch *w);
/* What was slowest since watch, or since this was called last; slowest first. How many. */
unsigned int slu_session_slow_take(struct slu_session *s, struct slu_slow_watch *w,
				   struct slu_slow_request ret[SLU_SLOW_MAX]);

#endif
