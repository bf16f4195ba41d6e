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

#include "sluice/histogram.h"
#include <sys/uio.h>

struct slu_blockio;
struct slu_simdisk;

enum slu_io_op {
	SLU_IO_READ,
	SLU_IO_WRITE,
	/*
	 * All writes completed before it was submitted are on stable storage. A flush that failed
	 * is remembered: the kernel reports a lost page once, so that a second try that "worked"
	 * would prove nothing, and every later flush of this open image fails with the same error.
	 * Flushes submitted while one is under way share the next one.
	 */
	SLU_IO_FLUSH,
	/*
	 * nblocks at blkno hold nothing any more; contents undefined after. Host blocks that were
	 * reserved for the range are given back with it. 0 where the host cannot discard.
	 */
	SLU_IO_DISCARD,
};
#define SLU_IO_OPS (SLU_IO_DISCARD + 1)

/*
 * One request. The submitter owns it and everything it points to from submit until end_io is
 * called, which is exactly once for every submitted request, also for one that failed at once.
 * Buffers are aligned to 4,096 bytes and each iovec is a multiple of that.
 */
struct slu_io {
	enum slu_io_op op;
	uint64_t blkno;   /* first block */
	uint32_t nblocks; /* READ, WRITE: the sum of the iovecs; DISCARD: the range */
	struct iovec *iov;
	int niov; /* at most SLU_IO_MAX_IOV */
	void (*end_io)(struct slu_io *io);
	void *private; /* the submitter's */

	/*
	 * Result, valid in and after end_io: 0 or -errno. A short transfer is -EIO, or -ENOSPC for
	 * a write the host had no room for. Engines go on after a partial transfer themselves.
	 * Refused before anything is done: -EINVAL for a request that is not of the shape above,
	 * -EIO for one that reaches beyond info->nblocks, -EROFS for a change of a read-only image.
	 */
	int result;

	/* blockio's, from submit until end_io; nothing in them need be set or cleared. */
	struct slu_io *next;
	uint64_t engine[4];
	uint64_t start_ns; /* 0: refused */
};

#define SLU_IO_MAX_IOV    1024
#define SLU_IO_MAX_BLOCKS 1024 /* 4 MiB */

enum slu_blockio_kind { SLU_IMAGE_FILE, SLU_IMAGE_DEVICE, SLU_IMAGE_SIM };

struct slu_blockio_opts {
	/* "uring", "threads", "sim", or NULL: sim if `sim` is set, else the best that works */
	const char *engine;
	bool readonly;
	bool buffered;         /* do not even try O_DIRECT */
	bool create;           /* mkfs: make the file if it is missing (it gets its size by grow) */
	uint64_t image_offset; /* bytes, a multiple of 4,096 */
	uint64_t image_size;   /* bytes from image_offset, the most to use; 0: all there is */
	struct slu_simdisk *sim;  /* engine "sim": the disk to open (not owned) */
	unsigned int queue_depth; /* requests in the host's hands at a time; 0: 64 */
	/*
	 * The lock: SLU_LOCK_NONE only for a look at something that is never believed.
	 * Exclusive for writing, shared for reading (several read-only mounts). A busy image is
	 * waited for until lock_wait_ns have passed; where that takes more than a moment, and
	 * before -EBUSY, lock_busy is called once with the holder (pid 0 and "" if not known) so
	 * that a tool can say whom it waits for.
	 */
	enum slu_image_lock { SLU_LOCK_NONE, SLU_LOCK_SHARED, SLU_LOCK_EXCLUSIVE } lock;
	uint64_t lock_wait_ns;
	void (*lock_busy)(void *ctx, int pid, const char *comm);
	void *lock_busy_ctx;
	/* NULL, or where I/Os that went well are counted, for who looks on from elsewhere; outlives
	 * it */
	_Atomic uint64_t *progress;
};

/* Facts of an open image. */
struct slu_blockio_info {
	const char *engine; /* the one in use */
	enum slu_blockio_kind kind;
	bool readonly;
	bool direct;              /* O_DIRECT is in use */
	_Atomic bool can_reserve; /* the host can set blocks aside (fallocate) */
	const char *fallback;     /* NULL, or one line: why not io_uring, or why not O_DIRECT */
	_Atomic uint64_t nblocks; /* whole blocks from the volume's start to the image's end */
	_Atomic bool cut;         /* it was seen shorter than it was: see slu_blockio_expect */
	uint64_t image_offset;    /* bytes */
	uint64_t image_size;      /* bytes from image_offset, the most to use; 0: all there is */
};

struct slu_blockio_stats {
	_Atomic uint64_t reads, read_blocks, writes, write_blocks, flushes, discards, errors;
	/* From submit to the end, with the wait for a slot or for another's flush, by enum slu_io_op. */
	struct slu_histogram took[SLU_IO_OPS];
};

/*
 * Opens and locks; starts the engine's threads, so a daemon forks before. Errors: -ENOENT, -EACCES,
 * -EROFS (open for writing denied, try readonly), -EINVAL (offset or size that cannot be), -EBUSY
 * (locked, the wait ran out), -ENOSYS or -EPERM (engine asked for by name is not available),
 * -ENOTBLK (neither file nor block device), other errnos of open(2).
 */
int slu_blockio_open(const char *name, const struct slu_blockio_opts *opts,
		     struct slu_blockio **ret);
/* Waits for all I/O; gives up the lock with the descriptor. NULL is allowed. */
void slu_blockio_close(struct slu_blockio *bio);

const struct slu_blockio_info *slu_blockio_info(const struct slu_blockio *bio);
struct slu_blockio_stats *slu_blockio_stats(struct slu_blockio *bio);

/*
 * Queues it; end_io tells the rest. Never waits for I/O or for room (requests are chained through
 * io->next until a slot is free) and takes only leaf locks, so any lock but a leaf may be held.
 * What fails at once is completed from within this call.
 */
void slu_blockio_submit(struct slu_blockio *bio, struct slu_io *io);

/*
 * Synchronous helpers for mkfs, fsck, mount and node reads; no lock may be held. 0 or -errno, as in
 * io->result. buf is aligned to 4,096 bytes (-EINVAL); any number of blocks. Reads and writes go
 * round the queue where the engine can: one system call in the caller's thread.
 */
int slu_blockio_read(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks, void *buf);
int slu_blockio_write(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks, const void *buf);
int slu_blockio_flush(struct slu_blockio *bio);

/*
 * Has the host set aside real blocks for [blkno, blkno + nblocks), contents untouched (fallocate).
 * -ENOSPC, -EOPNOTSUPP (then can_reserve turns false), -EIO. Slow: no lock may be held.
 */
int slu_blockio_reserve(struct slu_blockio *bio, uint64_t blkno, uint64_t nblocks);
/*
 * Makes the image at least nblocks long (files, never shrinks one), or learns the device's new
 * size; updates info->nblocks, and info->direct where an empty file could not tell at open. -ENOSPC
 * if a device (or opts->image_size) stays smaller than asked, or the host has no room for the new
 * last block of a file, which is as long as before then; -EFBIG, -EROFS. One call at a time, before
 * the new blocks are used. Durable with the next flush.
 */
int slu_blockio_grow(struct slu_blockio *bio, uint64_t nblocks);
/*
 * The first block from blkno on that may hold anything but zeros, as far as the host can tell
 * without reading it; UINT64_MAX: none. A file may end with a part of a block, which counts as one
 * (it cannot be read: it is info->nblocks) if it holds anything. -EIO, and the host's own errors.
 */
int slu_blockio_used(struct slu_blockio *bio, uint64_t blkno, uint64_t *ret);

/*
 * For whoever copies the image from outside. From the return of suspend until resume nothing changes
 * it: requests that would (WRITE, DISCARD) wait in a queue, so submit still never waits; the
 * synchronous write, reserve and grow wait. Reads and flushes go on. suspend waits for what is under
 * way; not twice, and not at the same time as resume. No lock held. close needs it resumed.
 */
void slu_blockio_suspend(struct slu_blockio *bio);
void slu_blockio_resume(struct slu_blockio *bio);
/* How long it has been suspended so far, all times together: for who measures how long I/O takes. */
uint64_t slu_blockio_suspended_ns(struct slu_blockio *bio);

/*
 * Somebody may cut a file off behind our back (devices do not shrink). What was there is gone, and
 * a write beyond the end would make the file long again, with zeros in between that read as if they
 * were data. So whoever has a volume in the image says how many blocks it needs (expect), and asks
 * before a series of writes, and before promising that they are there (is_cut: one fstat). Once it
 * was seen, here or by a read in vain, it stays true, and every write fails with -EIO.
 */
void slu_blockio_expect(struct slu_blockio *bio, uint64_t nblocks);
bool slu_blockio_is_cut(struct slu_blockio *bio);

/*
 * Whether somebody else uses a device (mounted, swap, part of a RAID) or a file is attached to a
 * loop device: tools ask before they write. False where it cannot be known.
 */
bool slu_blockio_device_in_use(const char *name);

/* ------------------------------------------------------------------ engines */

/*
 * What an engine must do. `open` opens and locks the image, fills info and state; every other verb
 * gets the state back. info stays where it is until close, so that grow and reserve can update it.
 * An engine that cannot work on this host (as opposed to: this image cannot be opened) says why in
 * info->fallback and fails.
 *
 * submit gets well-formed requests within the image. It ends each exactly once, by
 * blockio_complete(io, result) of blockio_private.h, from any thread and in any order, holding no
 * lock of its own; it never blocks for I/O. io->next and io->engine[0..2] are the engine's
 * meanwhile. There is at most one FLUSH at a time.
 *
 * rw_sync does one READ or WRITE in the caller's thread, whole or an error; NULL: none.
 * close is called when every request has ended; when it returns no thread of the engine runs.
 */
struct slu_blockio_engine {
	const char *name;
	int (*open)(const char *name, const struct slu_blockio_opts *opts,
		    struct slu_blockio_info *info, void **ret_state);
	void (*submit)(void *state, struct slu_io *io);
	int (*rw_sync)(void *state, enum slu_io_op op, uint64_t blkno, uint32_t nblocks, void *buf);
	int (*reserve)(void *state, uint64_t blkno, uint64_t nblocks); /* NULL: not supported */
	int (*grow)(void *state, uint64_t nblocks, uint64_t *ret_nblocks);
	int (*length)(void *state, uint64_t *ret_nblocks); /* NULL: it never changes by itself */
	/* As slu_blockio_used; NULL: the host cannot tell, so every block may. */
	int (*used)(void *state, uint64_t blkno, uint64_t *ret);
	void (*close)(void *state);
};

/* ------------------------------------------------------------------ the simulated disk */

/*
 * A disk in memory that remembers every write since the last flush, so that a test can decide what
 * of it survives. Sparse: blocks never written read as zeros. Survives close, so that a volume can
 * be mounted again on what is left. Use from inside a simulation or from ordinary threads, but not
 * from both at the same time; all calls lock. Test equipment: it aborts when memory runs out.
 */
struct slu_simdisk *slu_simdisk_new(uint64_t nblocks, uint64_t seed);
/* Nothing may have it open any more. */
void slu_simdisk_free(struct slu_simdisk *disk);
/*
 * An independent copy, for trying several ends of one run: contents, unflushed writes, writes in
 * flight (as such that may or may not have reached it). Cheap: blocks are shared until written.
 * Without faults, log, and whoever has the original open.
 */
struct slu_simdisk *slu_simdisk_clone(const struct slu_simdisk *disk);

/* Which requests a fault hits. Counted from the moment it is set, over matching requests only. */
struct slu_simdisk_fault {
	enum slu_io_op op;
	uint64_t nth;            /* 1 = the next matching one */
	uint64_t times;          /* how many in a row (0 is 1); UINT64_MAX: from then on */
	uint64_t blkno, nblocks; /* only requests that touch this range; nblocks 0: any */
	enum {
		SLU_FAULT_ERROR,        /* end_io with `error`, nothing done */
		SLU_FAULT_SUBMIT_ERROR, /* the same, from within submit */
		/* the first half is done (2,048 bytes of one block), then `error` */
		SLU_FAULT_SHORT,
		SLU_FAULT_LOST, /* acknowledged and forgotten; a read leaves its buffer alone */
		SLU_FAULT_MISDIRECTED, /* one block further on; at the end of the disk, one back */
		SLU_FAULT_BITFLIP, /* one bit is wrong: on disk (a write), in the buffer (a read) */
	} kind;
	int error; /* negative errno; 0: -EIO */
};
void slu_simdisk_fault(struct slu_simdisk *disk,
		       const struct slu_simdisk_fault *fault); /* NULL: none */
/* How many requests the fault set last has hit. */
uint64_t slu_simdisk_fault_hits(struct slu_simdisk *disk);
/* Every request fails with -EIO from now on (the device is gone), or no longer. */
void slu_simdisk_fail(struct slu_simdisk *disk, bool gone);
/* Delays: each request takes uniform [0, max_ns) of the clock; completion order follows. */
void slu_simdisk_latency(struct slu_simdisk *disk, uint64_t max_ns);
/*
 * For opens from now on: no completion thread, every request is done and end_io called within
 * submit (one after the other, not nested, if end_io submits more), without delays. For fast tests
 * that mount hundreds of times a second.
 */
void slu_simdisk_inline(struct slu_simdisk *disk, bool on);
/*
 * The host below a sparse image: from now on only nfree more blocks can be backed; writes and
 * reserve that need more fail with -ENOSPC, discard gives back. UINT64_MAX (as in the beginning):
 * no limit. When the limit begins, blocks that have been written are backed; what was only reserved
 * before is not, as on a host that has broken its word. Calling it again sets the number of free
 * blocks anew.
 */
void slu_simdisk_host_space(struct slu_simdisk *disk, uint64_t nfree);

/*
 * Power cut: requests not completed and every write not covered by a completed flush are each kept,
 * lost, or torn at 512 bytes, in any order, as the seed says (seed 0: completed ones all kept; seed
 * 1: all lost); then the disk works again. The mount on it must be thrown away: requests in flight
 * and all that it submits later end with -EIO, and it holds no lock on the disk any more. Ends a
 * recording; the log can still be replayed.
 */
void slu_simdisk_power_cut(struct slu_simdisk *disk, uint64_t seed);

/*
 * The log of writes, discards and flushes in completion order, for cutting at every boundary
 * without a new run: replay(k) makes a disk as it would be if the power had failed after the first
 * k records, unflushed writes treated as the seed says (seed 0: all kept; seed 1: all lost; others:
 * also those in flight then). record(on) empties the log and takes the present contents as its
 * base, all flushed. A replay costs what was written since the last flush, not the volume's size;
 * cuts in ascending order are cheapest. A poke is not in the log.
 */
void slu_simdisk_record(struct slu_simdisk *disk, bool on);
size_t slu_simdisk_nrecords(const struct slu_simdisk *disk);
/* One record, for reports. */
struct slu_simdisk_record {
	enum slu_io_op op;
	uint64_t blkno, nblocks;
	size_t submitted; /* how many records had completed when it was submitted */
	size_t covers;    /* once it has completed, the first `covers` records are durable */
};
void slu_simdisk_record_at(const struct slu_simdisk *disk, size_t i,
			   struct slu_simdisk_record *ret);
struct slu_simdisk *slu_simdisk_replay(const struct slu_simdisk *disk, size_t nrecords,
				       uint64_t seed);

/* Direct access for tests: read or write the current contents, no faults, no record. */
void slu_simdisk_peek(struct slu_simdisk *disk, uint64_t blkno, void *buf);
void slu_simdisk_poke(struct slu_simdisk *disk, uint64_t blkno, const void *buf);
/* Writes not covered by a flush so far. */
size_t slu_simdisk_unflushed(struct slu_simdisk *disk);

#endif
