/* SPDX-License-Identifier: MIT */
/*
 * iomap: the contract between file data and what lies under it. Verbs after the 2010
 * multipage-write prototype (Dave Chinner, Christoph Hellwig) that became the kernel's iomap:
 * reserve space before copying, allocate after, give back the rest.
 *
 * Two backends: the volume (volume.h) and one in memory for tests (mem_backend.h).
 *
 * Positions and lengths are in bytes. Space is counted in blocks: a mapping stands for every block
 * that [pos, pos + len) touches.
 */
#ifndef SLUICE_IOMAP_H
#define SLUICE_IOMAP_H

#include "sluice/base.h"

struct slu_batch;
struct slu_iomap_inode;

enum slu_iomap_type {
	SLU_IOMAP_HOLE, /* no blocks; reads as zeros */
	/* space reserved (or blocks taken, I/O in flight), no record yet; reads as zeros */
	SLU_IOMAP_DELALLOC,
	SLU_IOMAP_UNWRITTEN, /* blocks; reads as zeros */
	SLU_IOMAP_MAPPED,    /* blocks with data */
};

#define SLU_IOMAP_MAX_PAGES 1024u /* the most one mapping covers: 4 MiB */

/*
 * As disk_size: the size that the record has at that moment stays. For punch and fallocate, since a
 * complete() elsewhere in the file may move it on until the verb has taken inode->lock.
 */
#define SLU_DISK_SIZE_KEEP UINT64_MAX

struct slu_iomap {
	uint64_t pos, len; /* bytes */
	uint64_t blkno;    /* block of pos's page; 0 for HOLE and for DELALLOC before allocate */
	enum slu_iomap_type type;
	uint32_t reserved; /* blocks that reserve() set aside for this very mapping */
};

/*
 * Who calls what, under which locks:
 *
 *	map		read, write, writeback; inode rwlock shared or exclusive, or no lock
 *	reserve		write; inode rwlock exclusive since map, so the mapping is still true
 *	unreserve	write; the same section as reserve
 *	allocate	writeback, on a DELALLOC mapping; no inode lock held
 *	complete	writeback; after the data I/O; no lock held
 *	remove		truncate, punch, eviction of an unlinked inode; see below
 *	forget		writeback; at the end, when nobody else uses the inode
 *
 * Each verb takes the inode's `lock` itself. Verbs with `need` follow base.h: need given: -EAGAIN
 * instead of waiting; need NULL: may wait, no lock held.
 */
struct slu_iomap_ops {
	/*
	 * One mapping that starts at pos, of one type, never longer than len nor than
	 * SLU_IOMAP_MAX_PAGES. A range whose pages are dirty or under writeback for the first time
	 * is DELALLOC. -EIO, -ENOMEM, -EAGAIN.
	 */
	int (*map)(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, struct slu_iomap *ret,
		   struct slu_need *need);
	/*
	 * HOLE → DELALLOC: space for the whole mapping is set aside, with the metadata that
	 * recording it may need. Other types: nothing to do (UNWRITTEN splits are paid from what
	 * the volume keeps back). Sets mapping->reserved and the type. Nothing to undo on failure.
	 * -ENOSPC, -EAGAIN, -ENOMEM; -EROFS, whatever the type, once the volume has turned
	 * read-only.
	 */
	int (*reserve)(struct slu_iomap_inode *inode, struct slu_iomap *mapping,
		       struct slu_need *need);
	/*
	 * Gives back the blocks of the last `rest` bytes of a mapping that reserve() was called on
	 * and nobody dirtied: whole blocks only, the one that the copied part ends in stays. Only
	 * what this mapping reserved (they are HOLE again). Never fails.
	 */
	void (*unreserve)(struct slu_iomap_inode *inode, struct slu_iomap *mapping, uint64_t rest);
	/*
	 * Real blocks for the first part of a DELALLOC mapping, at most `copied` bytes: one run;
	 * sets blkno and shortens len to what the run covers. The range stays DELALLOC for map()
	 * until complete(). Out of the reservation: cannot run out of space. -EIO (the volume
	 * turns read-only), -EROFS (it has turned), -EAGAIN.
	 */
	int (*allocate)(struct slu_iomap_inode *inode, struct slu_iomap *mapping, uint64_t copied,
			struct slu_need *need);
	/*
	 * After the data I/O of [pos, pos + len). result 0: DELALLOC and UNWRITTEN become MAPPED,
	 * the owner's record goes along in the same batch with disk_size (bytes; the caller knows
	 * which data below it is on disk). result < 0: blocks that allocate() chose are given back
	 * and the range is DELALLOC with its reservation again; nothing is recorded. Returns 0,
	 * -EIO, -EROFS, -ENOMEM; on an error with result 0 the state is as if result had been that
	 * error. Waits (ticket, node reads).
	 */
	int (*complete)(struct slu_iomap_inode *inode, const struct slu_iomap *mapping, int result,
			uint64_t disk_size);
	/*
	 * [pos, pos + len) becomes HOLE: reservations are returned, blocks freed. pos is a
	 * multiple of 4,096; len too, or up to UINT64_MAX - pos. Pages of the range have been
	 * dropped and none is under writeback. The caller holds the inode rwlock exclusive
	 * throughout, or the inode has no other user. Does a bounded amount of work: returns 1 if
	 * there is more to do (call again, locks may be dropped between, the caller keeps users
	 * out), 0 when done, or -EIO, -EAGAIN, -EROFS, -ENOMEM. The owner's record goes along in
	 * every batch with disk_size. Reservations in the range are given back even if it then
	 * fails.
	 */
	int (*remove)(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, uint64_t disk_size,
		      struct slu_need *need);
	/*
	 * DELALLOC → HOLE in the whole inode, without a look at any record: for dirty pages that
	 * are given up. Nothing is in flight. Never fails.
	 */
	void (*forget)(struct slu_iomap_inode *inode);
};

/*
 * What the owner of an inode does for its backend: every change of extents enters the store in one
 * batch with the inode's record. Called with inode->lock held; may not call the backend.
 */
struct slu_iomap_owner {
	/*
	 * Adds the record as it will be: blocks owned + dblocks, size on disk disk_size. From
	 * complete() disk_size may have been worked out before a truncate: the owner records no
	 * more than the size of the file. dblocks counts what extent records say, which may be
	 * anybody's: it may come to less than none.
	 *
	 * data_end (blocks of the file; 0: none): where the data ends that the batch makes MAPPED.
	 * I/O completes in any order, so that may lie beyond the size on disk: the owner sees to it
	 * that a crash leaves nothing there. The ticket has room for SLU_OWNER_RECORDS (volume.h).
	 */
	void (*put_record)(struct slu_iomap_inode *inode, struct slu_batch *batch, int64_t dblocks,
			   uint64_t disk_size, uint64_t data_end);
	/* The batch has been applied in transaction txid: remember the new values. */
	void (*record_done)(struct slu_iomap_inode *inode, int64_t dblocks, uint64_t disk_size,
			    uint64_t txid);
	/*
	 * The size that the record in the store has. complete() never moves it back, and has
	 * nothing to record for a MAPPED mapping that does not move it forward. NULL: every
	 * complete() records what it was given, and SLU_DISK_SIZE_KEEP reaches the owner as it is.
	 */
	uint64_t (*disk_size)(struct slu_iomap_inode *inode);
};

/* Common head of every backend's inode; the backend embeds it first. */
struct slu_iomap_inode {
	const struct slu_iomap_ops *ops;
	const struct slu_iomap_owner *owner; /* NULL: no record (tests) */
	uint64_t ino;
	/*
	 * Rank SLU_RANK_EXTENTS, order ino. Protects the backend's ranges and, for the owner, the
	 * inode's attributes and the writing of its record.
	 */
	struct slu_mutex lock;
};

static inline const char *slu_iomap_type_name(enum slu_iomap_type t)
{
	switch (t) {
	case SLU_IOMAP_HOLE:
		return "hole";
	case SLU_IOMAP_DELALLOC:
		return "delalloc";
	case SLU_IOMAP_UNWRITTEN:
		return "unwritten";
	case SLU_IOMAP_MAPPED:
		return "mapped";
	}
	return "?";
}

#endif
