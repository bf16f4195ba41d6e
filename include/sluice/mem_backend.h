/* SPDX-License-Identifier: MIT */
/*
 * The iomap backend in memory: the same contract over arrays, with faults on demand. For tests of
 * the write path and of writeback, which cannot tell it from the volume.
 *
 * Data I/O goes to a blockio like any other (the tests use the simulated disk): blocks are numbers
 * on it, handed out by a counter and a free list.
 */
#ifndef SLUICE_MEM_BACKEND_H
#define SLUICE_MEM_BACKEND_H

#include "sluice/iomap.h"

struct slu_mem_backend {
	struct slu_mutex lock;
	uint64_t total, used, reserved; /* blocks */
	uint64_t next_blkno;
	/* Faults, 0 = never: the nth call from now fails with `error`; reserve may also succeed up to a page. */
	uint64_t fail_map_nth, fail_reserve_nth, fail_allocate_nth, fail_complete_nth;
	uint64_t reserve_limit_page; /* reserve of a page index >= this fails with -ENOSPC; UINT64_MAX: none */
	int error;
	uint64_t max_run; /* allocate hands out at most this many blocks at once; 0: no limit */
	uint64_t max_map; /* map returns at most this many pages; 0: no limit */
	bool again_once;  /* every verb with need answers -EAGAIN the first time it is asked */
	uint64_t delay_ns; /* allocate and complete take this long */
};

struct slu_mem_inode; /* embeds struct slu_iomap_inode first */

void slu_mem_backend_init(struct slu_mem_backend *mem, uint64_t nblocks);
void slu_mem_backend_fini(struct slu_mem_backend *mem); /* asserts nothing is reserved */
int slu_mem_inode_new(struct slu_mem_backend *mem, uint64_t ino, struct slu_mem_inode **ret);
void slu_mem_inode_free(struct slu_mem_inode *mi);
struct slu_iomap_inode *slu_mem_inode_iomap(struct slu_mem_inode *mi);
/* State of one page, for checks: type and block. */
enum slu_iomap_type slu_mem_inode_type(struct slu_mem_inode *mi, uint64_t pgidx, uint64_t *blkno);
/* Turns pages into MAPPED or UNWRITTEN with fresh blocks, as a test's starting point. */
int slu_mem_inode_set(struct slu_mem_inode *mi, uint64_t pgidx, uint64_t npages, enum slu_iomap_type type);
uint64_t slu_mem_inode_disk_size(struct slu_mem_inode *mi);

#endif
