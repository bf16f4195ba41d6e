/* SPDX-License-Identifier: MIT */
/*
 * blockio: blocks of one image, read and written asynchronously.
 *
 * An image is whatever an engine can open by name: a file or block device (engines "uring" and
 * "threads") or a simulated disk ("sim"); later a network volume. Nothing above this header
 * assumes a file descriptor. Positions are in blocks from the start of the volume; where the
 * volume starts inside the image (image_offset) is the engine's business.
 *
 * Engines own their threads and their wait queues. end_io is called from an engine's thread (or
 * from within submit, when submission itself fails), holds no lock of the engine and must not
 * block: it may take leaf locks, wake, and submit further I/O.
 */
#ifndef SLUICE_BLOCKIO_H
#define SLUICE_BLOCKIO_H

#include "sluice/base.h"
#include <sys/uio.h>

struct slu_blockio;

enum slu_io_op {
	SLU_IO_READ,
	SLU_IO_WRITE,
	SLU_IO_FLUSH,	/* all writes completed before it was submitted are on stable storage */
	SLU_IO_DISCARD, /* nblocks at blkno hold nothing any more; contents undefined after */
};

/*
 * One request. The submitter owns it and everything it points to from submit until end_io is
 * called, which is exactly once for every submitted request, also for one that failed at once.
 * Buffers are aligned to 4,096 bytes and each iovec is a multiple of that.
 */
struct slu_io {
	enum slu_io_op op;
	uint64_t blkno;	  /* first block */
	uint32_t nblocks; /* READ, WRITE: the sum of the iovecs; DISCARD: the range */
	struct iovec *iov;
	int niov; /* at most SLU_IO_MAX_IOV */
	void (*end_io)(struct slu_io *io);
	void *private; /* the submitter's */

	/* Result, valid in and after end_io: 0 or -errno. A short transfer is -EIO, or -ENOSPC for
	 * a write the host had no room for. Engines go on after a partial transfer themselves. */
	int result;

	/* The engine's. */
	struct slu_io *next;
	uint64_t engine[4];
};

#define SLU_IO_MAX_IOV 1024
#define SLU_IO_MAX_BLOCKS 1024 /* 4 MiB */

enum slu_blockio_kind { SLU_IMAGE_FILE, SLU_IMAGE_DEVICE, SLU_IMAGE_SIM };

struct slu_blockio_opts {
	const char *engine;	/* "uring", "threads", "sim", or NULL: the best that works */
	bool readonly;
	bool buffered;		/* do not even try O_DIRECT */
	bool create;		/* mkfs: make the file if it is missing */
	uint64_t image_offset;	/* bytes, a multiple of 4,096 */
	uint64_t image_size;	/* bytes from image_offset; 0: all there is */
	struct slu_simdisk *sim; /* engine "sim": the disk to open (not owned) */
	unsigned int queue_depth; /* 0: 64 */
	/*
	 * The lock: SLU_LOCK_NONE only for a look at something that is never believed.
	 * Exclusive for writing, shared for reading (several read-only mounts). A busy image is
	 * waited for until lock_wait_ns have passed; the first time it is found busy, lock_busy is
	 * called with the holder (pid 0 and "" if not known) so that a tool can say whom it waits for.
	 */
	enum slu_image_lock { SLU_LOCK_NONE, SLU_LOCK_SHARED, SLU_LOCK_EXCLUSIVE } lock;
	uint64_t lock_wait_ns;
	void (*lock_busy)(void *ctx, int pid, const char *comm);
	void *lock_busy_ctx;
};

/* Facts of an open image. */
struct slu_blockio_info {
	const char *engine;	    /* the one in use */
	enum slu_blockio_kind kind;
	bool readonly;
	bool direct;		    /* O_DIRECT is in use */
	bool can_reserve;	    /* the host can set blocks aside (fallocate) */
	const char *fallback;	    /* NULL, or one line: why not io_uring, or why not O_DIRECT */
	uint64_t nblocks;	    /* whole blocks from the volume's start to the image's end */
	uint64_t image_offset;	    /* bytes */
};

struct slu_blockio_stats {
	_Atomic uint64_t reads, read_blocks, writes, write_blocks, flushes, discards, errors;
};

/*
 * Opens and locks. Errors: -ENOENT, -EACCES, -EROFS (open for writing denied, try readonly), -EINVAL
 * (offset or size that cannot be), -EBUSY (locked, the wait ran out), -ENOSYS or -EPERM (engine
 * asked for by name is not available), -ENOTBLK (neither file nor block device), other errnos of open(2).
 */
int slu_blockio_open(const char *name, const struct slu_blockio_opts *opts, struct slu_blockio **ret);
/* Waits for all I/O; gives up the lock with the descriptor. NULL is allowed. */
void slu_blockio_close(struct slu_blockio *bio);

const struct slu_blockio_info *slu_blockio_info(const struct slu_blockio *bio);
struct slu_blockio_stats *slu_blockio_stats(struct slu_blockio *bio);

/* Queues it; end_io tells the rest. May wait briefly for a queue slot (never for this I/O). */
void slu_blockio_submit(struct slu_blockio *bio, struct slu_io *io);

/* Synchronous helpers for mkfs, fsck, mount and node reads; no lock may be held. 0 or -errno. */
int slu_blockio_read(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks, void *buf);
int slu_blockio_write(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks, const void *buf);
int slu_blockio_flush(struct slu_blockio *bio);

/*
 * Has the host set aside real blocks for [blkno, blkno + nblocks), contents untouched (fallocate).
 * -ENOSPC, -EOPNOTSUPP (then can_reserve turns false), -EIO. Slow: no lock may be held.
 */
int slu_blockio_reserve(struct slu_blockio *bio, uint64_t blkno, uint64_t nblocks);
/* Makes the image longer (files), or learns the device's new size; updates info->nblocks. */
int slu_blockio_grow(struct slu_blockio *bio, uint64_t nblocks);

/* ------------------------------------------------------------------ engines */

/*
 * What an engine must do. `open` fills info and state; every other verb gets the state back.
 * submit must call end_io exactly once per request, from any thread; it may complete requests in
 * any order; it must not hold a lock of its own across end_io.
 */
struct slu_blockio_engine {
	const char *name;
	int (*open)(const char *name, const struct slu_blockio_opts *opts, struct slu_blockio_info *info,
		    void **ret_state);
	void (*submit)(void *state, struct slu_io *io);
	int (*reserve)(void *state, uint64_t blkno, uint64_t nblocks); /* NULL: not supported */
	int (*grow)(void *state, uint64_t nblocks, uint64_t *ret_nblocks);
	void (*close)(void *state);
};

/* ------------------------------------------------------------------ the simulated disk */

/*
 * A disk in memory that remembers every write since the last power cut, so that a test can decide
 * what of it survives. Sparse: blocks never written read as zeros. Survives close, so that a
 * volume can be mounted again on what is left. Use from inside a simulation or from ordinary
 * threads; all calls lock.
 */
struct slu_simdisk;

struct slu_simdisk *slu_simdisk_new(uint64_t nblocks, uint64_t seed);
void slu_simdisk_free(struct slu_simdisk *disk);
/* An independent copy, for trying several ends of one run. */
struct slu_simdisk *slu_simdisk_clone(const struct slu_simdisk *disk);

/* Which requests a fault hits. Counted from the moment it is set, over matching requests only. */
struct slu_simdisk_fault {
	enum slu_io_op op;
	uint64_t nth;	 /* 1 = the next matching one */
	uint64_t times;	 /* how many in a row; UINT64_MAX: from then on */
	uint64_t blkno, nblocks; /* only requests that touch this range; nblocks 0: any */
	enum {
		SLU_FAULT_ERROR,	/* end_io with `error`, nothing done */
		SLU_FAULT_SUBMIT_ERROR, /* the same, from within submit */
		SLU_FAULT_SHORT,	/* half of it is done, then `error` */
		SLU_FAULT_LOST,		/* acknowledged and forgotten (a write) */
		SLU_FAULT_MISDIRECTED,	/* written one block further on */
		SLU_FAULT_BITFLIP,	/* one bit of the data is wrong */
	} kind;
	int error; /* negative errno */
};
void slu_simdisk_fault(struct slu_simdisk *disk, const struct slu_simdisk_fault *fault); /* NULL: none */
/* Every request fails with -EIO from now on (the device is gone), or no longer. */
void slu_simdisk_fail(struct slu_simdisk *disk, bool gone);
/* Delays: each request takes uniform [0, max_ns) of the clock; completion order follows. */
void slu_simdisk_latency(struct slu_simdisk *disk, uint64_t max_ns);

/*
 * Power cut: requests not completed and every write not covered by a completed flush are each kept,
 * lost, or torn at 512 bytes, in any order, as the seed says; then the disk works again. The
 * mount on it must be thrown away: requests in flight end with -EIO.
 */
void slu_simdisk_power_cut(struct slu_simdisk *disk, uint64_t seed);

/*
 * The log of writes and flushes in completion order, for cutting at every boundary without a new
 * run: replay(k) makes a disk as it would be if the power had failed after the first k records,
 * unflushed writes treated as the seed says (seed 0: all kept; seed 1: all lost).
 */
void slu_simdisk_record(struct slu_simdisk *disk, bool on);
size_t slu_simdisk_nrecords(const struct slu_simdisk *disk);
struct slu_simdisk *slu_simdisk_replay(const struct slu_simdisk *disk, size_t nrecords, uint64_t seed);

/* Direct access for tests: read or write the current contents, no faults, no record. */
void slu_simdisk_peek(struct slu_simdisk *disk, uint64_t blkno, void *buf);
void slu_simdisk_poke(struct slu_simdisk *disk, uint64_t blkno, const void *buf);

#endif
