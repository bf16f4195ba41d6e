/* SPDX-License-Identifier: MIT */
/*
 * The iomap backend in memory: the same contract over arrays, with faults on demand. For tests of
 * the write path and of writeback, which cannot tell it from the volume.
 *
 * Data I/O goes to a blockio like any other (the tests use the simulated disk): blocks are numbers
 * on it, handed out by a counter and, once that has come to the end, from what was freed. The first
 * is 1 (0 means "no block"), so the disk needs nblocks + 1 blocks.
 *
 * There is no store and so no batch: an owner's put_record is not called (it may be NULL);
 * record_done is, with a transaction number that grows by one each time.
 */
#ifndef SLUICE_MEM_BACKEND_H
#define SLUICE_MEM_BACKEND_H

#include "sluice/iomap.h"

/*
 * Shared by all inodes. The members from `fail_map_nth` to `delay_ns` are set by the test while
 * no verb runs, or under `lock`; the counts may be read the same way.
 */
struct slu_mem_backend {
	struct slu_mutex lock;          /* rank SPACE; taken inside an inode's lock */
	uint64_t total, used, reserved; /* blocks; used + reserved <= total */
	uint64_t next_blkno;            /* never handed out so far */
	/*
	 * Faults, 0 = never: the nth call from now fails with `error` (0: -ENOSPC from reserve,
	 * -EIO from the others), once. A complete counts only when its result is 0.
	 */
	uint64_t fail_map_nth, fail_reserve_nth, fail_allocate_nth, fail_complete_nth;
	/* A reserve that reaches a page index >= this fails with -ENOSPC; UINT64_MAX: none. */
	uint64_t reserve_limit_page;
	int error;
	uint64_t max_run; /* allocate hands out at most this many blocks at once; 0: no limit */
	uint64_t max_map; /* map returns at most this many pages; 0: no limit */
	/*
	 * Every verb with need answers -EAGAIN the first time it is asked at a page of an inode, so
	 * that a caller that drops its locks and starts over gets on, however often it asks.
	 */
	bool again_once;
	uint64_t delay_ns; /* allocate and complete take this long */

	/* Its own. */
	uint8_t *in_use; /* a bit for each block below in_use_blocks */
	uint64_t in_use_blocks;
	uint64_t txid;
};

struct slu_mem_inode; /* embeds struct slu_iomap_inode first */

void slu_mem_backend_init(struct slu_mem_backend *mem, uint64_t nblocks);
/* Asserts that nothing is reserved and, all inodes being freed, that no block is in use. */
void slu_mem_backend_fini(struct slu_mem_backend *mem);
/* 0 or -ENOMEM. The owner, if any, is set in the iomap head after it. */
int slu_mem_inode_new(struct slu_mem_backend *mem, uint64_t ino, struct slu_mem_inode **ret);
/* Frees its blocks. Asserts that no page is DELALLOC: reservations are returned by remove. */
void slu_mem_inode_free(struct slu_mem_inode *mi);
/* Gives back every reservation: for pages that are given up. Nothing may be in flight. */
void slu_mem_inode_forget(struct slu_mem_inode *mi);
struct slu_iomap_inode *slu_mem_inode_iomap(struct slu_mem_inode *mi);
/*
 * State of one page, for checks: type and block (0: none; a DELALLOC page with a block is in
 * flight). blkno may be NULL.
 */
enum slu_iomap_type slu_mem_inode_type(struct slu_mem_inode *mi, uint64_t pgidx, uint64_t *blkno);
/*
 * Turns pages into MAPPED or UNWRITTEN with fresh blocks, or into HOLE, as a test's starting point;
 * none of them may be DELALLOC. 0, -ENOSPC or -ENOMEM; nothing is changed on failure.
 */
int slu_mem_inode_set(struct slu_mem_inode *mi, uint64_t pgidx, uint64_t npages,
		      enum slu_iomap_type type);
/* The disk_size of the newest complete or remove. */
uint64_t slu_mem_inode_disk_size(struct slu_mem_inode *mi);

#endif
