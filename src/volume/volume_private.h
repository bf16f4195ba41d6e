/* SPDX-License-Identifier: MIT */
/*
 * What the files of volume share: extents as they are in memory, windows of them, and how a verb
 * waits.
 */
#ifndef SLU_VOLUME_PRIVATE_H
#define SLU_VOLUME_PRIVATE_H

#include "sluice/volume.h"

#define volume_count(vol, counter, n) \
	atomic_fetch_add_explicit(&(vol)->stats.counter, (n), memory_order_relaxed)

/*
 * No position in bytes has a block at or beyond this; an extent that reaches further is nonsense.
 */
#define FILE_BLOCKS_END (1ull << (64 - SLU_BLOCK_SHIFT))

struct extent {
	uint64_t off;   /* first block in the file */
	uint64_t blkno; /* first block on the volume */
	uint32_t nblocks;
	uint32_t flags; /* SLU_EXTENT_* */
};

static inline uint64_t extent_end(const struct extent *e)
{
	return e->off + e->nblocks;
}

/* ------------------------------------------------------------------ windows */

/*
 * The records that touch a range of a file, and what a change makes of them. Loaded, edited in
 * `new`, and put as one batch with the owner's record, all in one section of iomap.lock: start over
 * after -EAGAIN. The neighbours on either side are in it too, so that what the change puts between
 * them can join them.
 */
#define WINDOW_INNER 16u /* records of the range itself, at most */
#define WINDOW_OLD   (WINDOW_INNER + 2u)
#define WINDOW_RUNS  24u /* new extents in one change, at most */
#define WINDOW_NEW   (WINDOW_OLD + WINDOW_RUNS)

struct window {
	struct slu_volume_inode *vi;
	uint64_t first, end; /* file blocks; end moves down to where all records are known */
	struct extent old[WINDOW_OLD], new[WINDOW_NEW];
	unsigned int nold, nnew;
	int64_t dblocks;        /* owned by the file after the change, less those before */
	uint64_t data_end;      /* file blocks: where what becomes MAPPED ends; 0: nothing does */
	struct slu_batch batch; /* what becomes owned or free is added while `new` is made */
};

/*
 * Loads the records of [first, end), at most `inner` of them. 0, -EIO (a record makes no sense),
 * -EAGAIN, -ENOMEM. iomap.lock is held. window_fini after success and failure.
 */
int window_load(struct window *w, struct slu_volume_inode *vi, uint64_t first, uint64_t end,
		unsigned int inner, struct slu_need *need);
void window_fini(struct window *w);
/* A window of a range whose records are not looked at, for a change of the owner's record alone. */
void window_init(struct window *w, struct slu_volume_inode *vi, uint64_t first, uint64_t end);
/* Moves end down so that at most `most` blocks (at least 1) with records lie in the range. */
void window_limit(struct window *w, uint64_t most);
/* Whether records cover all of the range, with the blocks from blkno on in a row. */
bool window_lies_at(const struct window *w, uint64_t blkno);
/* Adds to `new`, in ascending order; joins what runs on from the one before. */
void window_emit(struct window *w, uint64_t off, uint64_t blkno, uint64_t nblocks, uint32_t flags);
/* Everything outside [first, end) stays; inside, each extent gets `flags`. */
void window_flip(struct window *w, uint32_t flags);
/* Everything outside [first, end) stays, what is inside is freed. */
void window_cut(struct window *w);
/*
 * Adds extents where there are none, in ascending order; they become owned. -EIO if one is in the
 * way after all.
 */
int window_insert(struct window *w, const struct extent *runs, unsigned int nruns);
/* Whether `new` differs from `old`. */
bool window_changed(const struct window *w);
/* Most records that a ticket for a change of this window must hold, the owner's included. */
uint32_t window_records(const struct window *w, unsigned int nruns);
#define RECORD_BYTES(n) ((n) * sizeof(struct slu_disk_extent) + SLU_OWNER_BYTES)
/* Applies it with the owner's record. As slu_store_apply; on an error nothing has changed. */
int window_apply(struct window *w, struct slu_ticket *ticket, uint64_t disk_size,
		 struct slu_need *need);
/*
 * Whether the owner's record would change for its size alone. disk_size may be SLU_DISK_SIZE_KEEP.
 */
bool volume_size_moves(struct slu_volume_inode *vi, uint64_t disk_size);

/* ------------------------------------------------------------------ lookup */

struct piece {
	enum slu_iomap_type type;
	uint64_t blkno; /* 0 for HOLE and DELALLOC */
	uint64_t nblocks;
};

/*
 * What lies at file block `first`, for up to `most` blocks. iomap.lock is held. -EIO, -EAGAIN,
 * -ENOMEM.
 */
int volume_lookup(struct slu_volume_inode *vi, uint64_t first, uint64_t most, struct piece *ret,
		  struct slu_need *need);
/* The same from the records alone. */
int extent_lookup(struct slu_volume_inode *vi, uint64_t first, uint64_t most, struct piece *ret,
		  struct slu_need *need);
/*
 * The block after the extent that precedes file block `first`: where the next one would best lie;
 * 0: none.
 */
int extent_goal(struct slu_volume_inode *vi, uint64_t first, uint64_t *ret_blkno,
		struct slu_need *need);

/*
 * Counts and posts that the record at file block `off` makes no sense; returns -EIO. Any lock may
 * be held.
 */
int volume_bad_extent(struct slu_volume_inode *vi, uint64_t off, const char *text);

/* ------------------------------------------------------------------ waiting */

/*
 * A verb's need may be NULL: then it waits itself. It works with `wait->need` and asks wait_again
 * after each round, with no lock of its own held:
 *
 *	do {
 *		lock; err = work(wait.need); unlock;
 *	} while (volume_wait(&wait, &err));
 */
struct volume_wait {
	struct slu_volume *vol;
	struct slu_need *need;
	struct slu_need own;
	bool may_wait;
};

static inline void volume_wait_init(struct volume_wait *wait, struct slu_volume *vol,
				    struct slu_need *need)
{
	wait->vol = vol;
	wait->may_wait = !need;
	wait->need = need ? need : &wait->own;
}

static inline bool volume_wait(struct volume_wait *wait, int *err)
{
	if (*err != -EAGAIN)
		return false;
	volume_count(wait->vol, restarts, 1);
	if (!wait->may_wait)
		return false;
	*err = slu_need_wait(wait->need);
	return *err == 0;
}

/* ------------------------------------------------------------------ verbs in other files */

int volume_remove(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, uint64_t disk_size,
		  struct slu_need *need);
/*
 * DELALLOC → HOLE in [first, end), at most `most` ranges; true if there are more. iomap.lock is
 * held.
 */
bool volume_cancel(struct slu_volume_inode *vi, uint64_t first, uint64_t end, unsigned int most);
/* Asserts the table at the top of volume.h; iomap.lock is held. Debug builds. */
void volume_check(const struct slu_volume_inode *vi);

static inline struct slu_volume_inode *volume_inode(struct slu_iomap_inode *inode)
{
	return slu_container_of(inode, struct slu_volume_inode, iomap);
}

#endif
