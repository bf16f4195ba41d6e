/* SPDX-License-Identifier: MIT */
/*
 * volume: the iomap backend of a real volume. Extents are records of the store (SLU_REC_EXTENT); what
 * is not recorded yet, reserved ranges and blocks with I/O in flight, lives in memory per inode.
 *
 * States of a block of a file, and what moves it on:
 *
 *	HOLE ──reserve──▶ DELALLOC ──allocate──▶ in flight ──complete(0)──▶ MAPPED
 *	  ▲                  │ ▲                     │                        │
 *	  └────unreserve─────┘ └─────complete(-e)────┘                        │
 *	  ▲                                                                   │
 *	  └───────────────────────────remove──────────────────────────────────┤
 *	HOLE ──prealloc──▶ UNWRITTEN ──complete(0)──▶ MAPPED                    │
 *	  ▲                   │  ▲                                             │
 *	  └──────remove───────┘  └─────────────────zero_range──────────────────┘
 *
 * MAPPED and UNWRITTEN blocks are written in place.
 */
#ifndef SLUICE_VOLUME_H
#define SLUICE_VOLUME_H

#include "sluice/iomap.h"
#include "sluice/store.h"

/* Shared by all inodes of a mount. */
struct slu_volume {
	struct slu_store *store;
	struct slu_blockio *bio;
	struct slu_range_pool ranges; /* nodes for delalloc and in-flight ranges; filled for max_dirty_pages */
	_Atomic uint64_t goal;	      /* where the last allocation ended: the next new file starts there */
};

int slu_volume_init(struct slu_volume *vol, struct slu_store *store, struct slu_blockio *bio,
		    uint64_t max_dirty_pages);
void slu_volume_fini(struct slu_volume *vol);

struct slu_volume_inode {
	struct slu_iomap_inode iomap; /* first */
	struct slu_volume *vol;
	/* under iomap.lock */
	struct slu_ranges delalloc;   /* blocks (file), value 0 = reserved, else block number in flight, falling with the offset removed */
	struct slu_reservation reservation; /* what the reserved part of delalloc owns */
	uint64_t goal;		      /* block after the last one allocated to this inode; 0: none */
};

/* No I/O, cannot fail. fini asserts that no reservation is left. */
void slu_volume_inode_init(struct slu_volume_inode *vi, struct slu_volume *vol, uint64_t ino,
			   const struct slu_iomap_owner *owner);
void slu_volume_inode_fini(struct slu_volume_inode *vi);

/*
 * fallocate: HOLE in [pos, pos + len) gets UNWRITTEN extents, out of fresh space; other types stay. Bounded
 * per call like remove: 1 = more to do (*pos moves on). Block-aligned. -ENOSPC with what was done kept in *pos.
 * Caller: inode rwlock exclusive. DELALLOC is left alone.
 */
int slu_volume_prealloc(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end, uint64_t disk_size,
			struct slu_need *need);
/* MAPPED in the block-aligned range becomes UNWRITTEN (pages dropped, none under writeback); bounded; as prealloc. */
int slu_volume_zero_range(struct slu_volume_inode *vi, uint64_t *pos, uint64_t end, uint64_t disk_size,
			  struct slu_need *need);
/*
 * SEEK_DATA / SEEK_HOLE from pos (bytes) below `size`, from the records and delalloc ranges: UNWRITTEN is a
 * hole unless `dirty` says that pages over it are dirty. *ret is the position; -ENXIO.
 */
int slu_volume_seek(struct slu_volume_inode *vi, uint64_t pos, uint64_t size, bool data,
		    const struct slu_ranges *dirty_pages, uint64_t *ret);
/* Calls fn for each extent and delalloc range in order (sluicectl map, fsck of a live volume). */
int slu_volume_extents(struct slu_volume_inode *vi, int (*fn)(void *ctx, const struct slu_iomap *m), void *ctx);

#endif
