/* SPDX-License-Identifier: MIT */
/*
 * volume: the iomap backend of a real volume. Extents are records of the store (SLU_REC_EXTENT);
 * what is not recorded yet, reserved ranges and blocks with I/O in flight, lives in memory per
 * inode.
 *
 * States of a block of a file, and what moves it on:
 *
 *	HOLE ──reserve──▶ DELALLOC ──allocate──▶ in flight ──complete(0)──▶ MAPPED
 *	  ▲                  │ ▲                     │                        │
 *	  └────unreserve─────┘ └─────complete(-e)────┘                        │
 *	  ▲                                                                   │
 *	  └───────────────────────────remove──────────────────────────────────┤
 *	HOLE ──prealloc──▶ UNWRITTEN ──complete(0)──▶ MAPPED                  │
 *	  ▲                   │  ▲                                            │
 *	  └──────remove───────┘  └─────────────────zero_range─────────────────┘
 *	(zero_range takes DELALLOC back to HOLE, as remove does)
 *
 * MAPPED and UNWRITTEN blocks are written in place. Who owns what in each state:
 *
 *	state		`delalloc`	reservation		a record
 *	HOLE		-		-			-
 *	DELALLOC	0		1 block, 1 record	-
 *	in flight	its block	1 record		-
 *	UNWRITTEN	-		-			extent, unwritten
 *	MAPPED		-		-			extent
 *
 * So, at any time that iomap.lock is free: reservation.records = delalloc.weight and
 * reservation.blocks = delalloc.weight - in_flight; no record covers a block of `delalloc`;
 * records do not overlap, and none runs on where the one before it ends (same flags, next block)
 * unless the two are together longer than SLU_EXTENT_MAX or met in separate changes.
 *
 * Records come from an image that may be anybody's: one that makes no sense is -EIO to the
 * operation that meets it, and an event.
 */
#ifndef SLUICE_VOLUME_H
#define SLUICE_VOLUME_H

#include "sluice/iomap.h"
#include "sluice/store.h"

struct slu_volume_stats {
	_Atomic uint64_t maps, reserves, unreserves, allocates, allocated_blocks, completes,
		completes_in_place, complete_errors, removes, removed_blocks, preallocs,
		zero_ranges, restarts, bad_records;
};

/*
 * What the ticket of a change of extents has room for in the owner's put_record: puts and deletes,
 * and bytes of values that did not exist before.
 */
#define SLU_OWNER_RECORDS 2u
#define SLU_OWNER_BYTES   (sizeof(struct slu_disk_inode) + sizeof(struct slu_disk_orphan))

/* Shared by all inodes of a mount. */
struct slu_volume {
	struct slu_store *store;
	struct slu_blockio *bio;
	/*
	 * Nodes of the delalloc sets. A range is at least one block long, so all sets together
	 * never have more ranges than `ndelalloc`; reserve() sees to it that the pool is as large
	 * as that, and whatever comes after it cannot fail for want of a node.
	 */
	struct slu_range_pool ranges;
	_Atomic uint64_t ndelalloc; /* blocks in all delalloc sets, and those about to be */
	_Atomic uint64_t goal; /* where the last allocation ended: the next new file starts there */
	_Atomic uint64_t nblocks;     /* of the volume, as last seen: extents lie below */
	struct slu_event_sink events; /* may be set after init, before any inode is used */
	struct slu_volume_stats stats;
};

/* max_dirty_pages: a hint for how many ranges to make room for now. 0 or -ENOMEM. */
int slu_volume_init(struct slu_volume *vol, struct slu_store *store, struct slu_blockio *bio,
		    uint64_t max_dirty_pages);
void slu_volume_fini(struct slu_volume *vol);

struct slu_volume_inode {
	struct slu_iomap_inode iomap; /* first */
	struct slu_volume *vol;
	/* under iomap.lock */
	/*
	 * In file blocks. Value 0: reserved. Else in flight, with (block number - file block) and
	 * the top bit flipped: one number for a whole run, so that what is allocated piece by
	 * piece joins, and never 0.
	 */
	struct slu_ranges delalloc;
	struct slu_reservation reservation; /* what delalloc owns */
	uint64_t in_flight;                 /* blocks of delalloc that are */
	uint64_t goal; /* block after the last one allocated to this inode; 0: none */
};

/* No I/O, cannot fail. fini asserts that no reservation is left. */
void slu_volume_inode_init(struct slu_volume_inode *vi, struct slu_volume *vol, uint64_t ino,
			   const struct slu_iomap_owner *owner);
void slu_volume_inode_fini(struct slu_volume_inode *vi);

/*
 * fallocate: HOLE in [*pos, end) gets UNWRITTEN extents, out of fresh space; other types stay.
 * Bounded per call like remove: 1 = more to do (*pos moves on). Block-aligned. -ENOSPC with what
 * was done kept in *pos. Caller: inode rwlock exclusive. DELALLOC is left alone. disk_size as in
 * remove.
 */
int slu_volume_prealloc(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end,
			uint64_t disk_size, struct slu_need *need);
/*
 * Punch: the block-aligned range becomes a HOLE, window by window, each with its reservations or not at
 * all: what was done is kept in *pos, and the pages there are to be dropped before as->lock is (none is
 * under writeback). Bounded, and 1 if there is more; as prealloc, but it draws on the blocks kept back
 * and does not fail with -ENOSPC.
 */
int slu_volume_punch(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end, uint64_t disk_size,
		     struct slu_need *need);
/* The same, but MAPPED becomes UNWRITTEN; DELALLOC becomes HOLE here too. */
int slu_volume_zero_range(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end,
			  uint64_t disk_size, struct slu_need *need);
/*
 * SEEK_DATA / SEEK_HOLE from pos (bytes) below `size`, from the records and delalloc ranges:
 * UNWRITTEN is a hole unless `dirty_pages` (page indices; NULL: none) says that pages over it are
 * dirty. *ret is the position; the end of the file is a hole. -ENXIO: pos is at or beyond size, or
 * there is no more data. dirty_pages may not change meanwhile. No lock held; waits.
 */
int slu_volume_seek(struct slu_volume_inode *vi, uint64_t pos, uint64_t size, bool data,
		    const struct slu_ranges *dirty_pages, uint64_t *ret);
/*
 * The next extents and delalloc ranges from *pos on, at most `max`, in order; what lies between them
 * are holes. How many; 0: there are none any more; *pos moves behind the last one. Those of one call
 * are of one moment, those of the next may be of another. Of DELALLOC, blkno is 0. len may be more
 * than SLU_IOMAP_MAX_PAGES. -EIO, -ENOMEM. No lock held; waits.
 */
int slu_volume_extents(struct slu_volume_inode *vi, uint64_t *pos, struct slu_iomap *maps,
		       unsigned int max);

#endif
