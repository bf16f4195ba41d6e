/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk: shared between its medium (simtree.c), its memory of writes (simlog.c), its
 * public face (simdisk.c) and the engine (sim_engine.c).
 */
#ifndef SLUICE_SIMDISK_H
#define SLUICE_SIMDISK_H

#include "blockio_private.h"

#define SIM_SECTOR   512u
#define SIM_NSECTORS (SLU_BLOCK_SIZE / SIM_SECTOR)
#define SIM_ALL      ((1u << SIM_NSECTORS) - 1)

/* ------------------------------------------------------------------ simtree.c */

/* Contents of one block. Never changes once it is shared; NULL stands for zeros. */
struct simblock {
	_Atomic uint32_t refs;
	unsigned char data[SLU_BLOCK_SIZE];
};

struct simblock *simblock_new(const void *data); /* NULL: left uninitialised */
struct simblock *simblock_get(struct simblock *b);
void simblock_put(struct simblock *b); /* NULL is allowed */
static inline const void *simblock_data(const struct simblock *b)
{
	static const unsigned char zeros[SLU_BLOCK_SIZE];

	return b ? b->data : zeros;
}

/*
 * A sparse array of blocks: a radix tree whose nodes are shared between copies and copied on the
 * way down when one of them is written. Copying a tree costs one reference.
 */
struct simtree {
	struct simnode *root;
	unsigned int depth;
};

void simtree_init(struct simtree *t);
void simtree_fini(struct simtree *t);
void simtree_copy(struct simtree *t, const struct simtree *from);
struct simblock *simtree_get(const struct simtree *t, uint64_t blkno);   /* borrowed */
void simtree_set(struct simtree *t, uint64_t blkno, struct simblock *b); /* takes a reference */
/* Of data, the sectors in mask replace those that are there. */
void simtree_merge(struct simtree *t, uint64_t blkno, const struct simblock *b, unsigned int mask);
/* The first block at or after *blkno that was written; false if there is none. */
bool simtree_next(const struct simtree *t, uint64_t *blkno);

/* ------------------------------------------------------------------ simlog.c */

struct simrng {
	uint64_t state;
};

uint64_t simrng_next(struct simrng *rng);
uint64_t simrng_below(struct simrng *rng, uint64_t n);

/*
 * One write, discard or flush as the disk has done it. Numbers (seq) count the records of a disk
 * in completion order.
 */
struct simrec {
	_Atomic uint32_t refs;
	enum slu_io_op op;
	uint64_t blkno;
	uint32_t nblocks;
	unsigned int mask; /* WRITE: sectors of the last block; all but the last are whole */
	uint64_t seq;
	uint64_t submitted;        /* seq at its submission: those before had completed */
	uint64_t durable;          /* once it is in the log: all before this are durable */
	uint64_t inflight;         /* once it is in the log: writes under way when it completed */
	struct simblock *blocks[]; /* references; DISCARD may hold SIM_KEEP */
};

/* In a discard: this block was left as it is. */
#define SIM_KEEP ((struct simblock *)(uintptr_t)1)

struct simrec *simrec_new(enum slu_io_op op, uint64_t blkno, uint32_t nblocks);
struct simrec *simrec_get(struct simrec *r);
void simrec_put(struct simrec *r);
void simrec_apply(const struct simrec *r, struct simtree *t);

struct simrecs {
	struct simrec **v; /* references */
	size_t n, size;
};

void simrecs_add(struct simrecs *a, struct simrec *r); /* takes over the reference */
void simrecs_drop_first(struct simrecs *a, size_t n);
void simrecs_fini(struct simrecs *a);

/*
 * The end of everything that was not flushed: each of r[0..n) is kept, lost or torn, in any order.
 * Seed 0 keeps all in order, seed 1 loses all.
 */
void simrecs_cut(struct simrec *const *r, size_t n, struct simtree *t, uint64_t seed);

/* The recording: base, then one record after the other; trees at every STRIDE records as found. */
struct simlog {
	struct simrecs recs;
	uint64_t first; /* seq of recs.v[0] */
	bool on;
	/* Of replay: trees with the first i * SIMLOG_STRIDE records applied; [0] is the base. */
	struct simtree *snaps;
	size_t nsnaps;
	struct simtree cursor; /* with the first cursor_at records applied */
	size_t cursor_at;
	bool cursor_set;
};

void simlog_start(struct simlog *log, const struct simtree *base, uint64_t seq);
void simlog_fini(struct simlog *log);
/* The tree as a power cut after n records leaves it. */
void simlog_replay(struct simlog *log, size_t n, uint64_t seed, struct simtree *ret);

/* ------------------------------------------------------------------ simdisk.c */

/* A mount of the disk: the engine's state. */
struct simopen {
	struct slu_simdisk *disk;
	struct simopen *next;  /* disk->opens */
	struct io_queue queue; /* submitted, not done; disk->lock */
	struct slu_cond more;
	struct slu_thread thread;
	enum slu_image_lock lock; /* what it holds of the disk */
	uint64_t offset, limit;   /* blocks */
	bool cut;                 /* the power failed under it */
	bool inline_io;           /* no thread: submit does it */
	bool draining;            /* inline_io: somebody is at it */
	bool stop;
};

struct slu_simdisk {
	struct slu_mutex lock; /* leaf: everything below */
	uint64_t nblocks;
	struct simtree now;     /* what a read sees */
	struct simtree durable; /* what the last flush made sure of */
	struct simrecs pending; /* done after that, oldest first: now is durable and these */
	struct simrecs loose;   /* of a clone: may or may not have reached it */
	uint64_t seq;           /* of the next record */
	uint64_t durable_seq;   /* all before this are durable */
	struct simlog log;
	struct simrng rng;
	struct simopen *opens;
	uint64_t latency_ns;
	bool inline_io;
	bool gone;

	struct slu_simdisk_fault fault;
	bool fault_set;
	uint64_t fault_seen, fault_hits;

	/* The host's room, once it is limited. */
	bool host_limited;
	uint64_t host_free;
	struct slu_range_pool backed_pool;
	struct slu_ranges backed; /* blocks that need no more of it */
};

/* io->engine[] of the sim engine. */
#define SIM_SLOT_DUE       0 /* on slu_clock_ns's scale */
#define SIM_SLOT_FAULT     1 /* 0, or 1 + kind, and -error shifted by 8 */
#define SIM_SLOT_SUBMITTED 2 /* seq at submission */

/*
 * With disk->lock held: what submission does (which fault hits it; 0 or the error with which it
 * fails at once), and what completion does.
 */
int simdisk_begin(struct slu_simdisk *disk, const struct simopen *so, struct slu_io *io)
	SLU_REQUIRES(&disk->lock);
int simdisk_do(struct slu_simdisk *disk, const struct simopen *so, struct slu_io *io)
	SLU_REQUIRES(&disk->lock);

/* Backs [blkno, blkno + nblocks) with host blocks, all or none. 0 or -ENOSPC. */
int simdisk_back(struct slu_simdisk *disk, uint64_t blkno, uint64_t nblocks)
	SLU_REQUIRES(&disk->lock);

#endif
