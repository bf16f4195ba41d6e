/* SPDX-License-Identifier: MIT */
/*
 * store: every record of a volume in one copy-on-write B+tree, and the blocks under it.
 *
 * Small on purpose: get, seek, scan, apply(batch), commit; and the space of the volume, since nodes
 * and file data share one pool of blocks, one transaction and one flush.
 *
 * A transaction collects batches until it is committed: its dirty nodes get free blocks, are
 * written, the disk is flushed, the superblock is written to the slot of txid & 1, the disk is
 * flushed again. One transaction is open and at most one is being committed. A commit never waits
 * for file data.
 *
 * Waiting: every call that takes `struct slu_need *need` may be made under locks (ranks outside
 * SLU_RANK_SPACE) if need is given, and then returns -EAGAIN instead of waiting; with need NULL it
 * waits itself and no lock may be held.
 */
#ifndef SLUICE_STORE_H
#define SLUICE_STORE_H

#include "sluice/base.h"
#include "sluice/blockio.h"
#include "sluice/event.h"
#include "sluice/format.h"
#include "sluice/histogram.h"

struct slu_store;
struct slu_batch;

/* ------------------------------------------------------------------ life */

struct slu_format_params {
	uint64_t nblocks;  /* at least SLU_MIN_BLOCKS */
	const char *label; /* NULL: none; at most SLU_LABEL_MAX bytes */
	uint8_t volume_id[16];
	uint64_t hash_seed;
	/* the first records (the root directory): put into the first transaction as they are */
	const struct slu_batch *records;
	uint64_t ninodes;
	bool no_spare; /* without a spare superblock, as earlier versions made volumes */
};

/*
 * Writes an empty volume: both superblocks, the spare one, one tree. The caller has made sure that the image may
 * be overwritten. 0, -EINVAL (too small), or an I/O error.
 */
int slu_store_format(struct slu_blockio *bio, const struct slu_format_params *params);

struct slu_store_opts {
	bool readonly;
	size_t node_cache_bytes;     /* at least 1 MiB; 0: 16 MiB */
	uint64_t commit_interval_ns; /* 0: 5 s */
	uint64_t give_up_ns;         /* after so long of failed commits: read-only; 0: 30 s */
	bool reserve_host;           /* have the host back blocks before they are promised */
	struct slu_event_sink events;
};

/*
 * Reads the superblocks and starts the commit thread (not if readonly). On an unclean volume the
 * first thing written is a superblock over the older one, so that both reach the same tree.
 * -EINVAL (*why: not a volume), -EPROTONOSUPPORT (version or feature), -ENOSPC (image shorter than
 * the volume), -EIO, -EROFS, -ENOMEM. *why is set to a static line for people whenever an error is
 * returned and why is not NULL. The blockio stays the caller's and must outlive the store.
 */
int slu_store_open(struct slu_blockio *bio, const struct slu_store_opts *opts,
		   struct slu_store **ret, const char **why);
/*
 * Commits what is open, writes both superblocks clean, stops the thread, frees all. Returns the
 * error that kept it from being clean (the store is gone all the same).
 */
int slu_store_close(struct slu_store *store);

struct slu_store_info {
	uint8_t volume_id[16];
	char label[SLU_LABEL_MAX + 1];
	uint64_t hash_seed;
	uint64_t nblocks;
	bool readonly; /* by option, by feature, or turned */
	const char *why_readonly;
	bool was_clean; /* at open */
	bool fell_back; /* the newer superblock was bad */
	uint64_t mkfs_time;
};
void slu_store_info(struct slu_store *store, struct slu_store_info *ret);
/* The same `readonly`, without a lock. */
bool slu_store_readonly(const struct slu_store *store);

struct slu_store_stats {
	_Atomic uint64_t gets, applies, commits, commit_nodes, node_reads, node_hits, corrupt_nodes,
		room_waits, superblock_writes, scrub_retries;
	_Atomic uint64_t cached_nodes;     /* in memory, in any state */
	struct slu_histogram commits_took; /* those that succeeded */
};
const struct slu_store_stats *slu_store_stats(const struct slu_store *store);

/*
 * Turns the volume read-only for good (errors=remount-ro): every apply, ticket and commit fails
 * with -EROFS from now on, reads go on. The first reason is kept (why: static); an event is
 * posted. May be called under locks outside SLU_RANK_STORE.
 */
void slu_store_fail(struct slu_store *store, int error, const char *why);
/*
 * Whether the image is still as long as the volume. If somebody has cut it off, the volume turns
 * read-only: -EIO. Asked by every commit and flush, before they promise anything; to be asked too
 * by whoever has read in vain. No lock may be held.
 */
int slu_store_check_image(struct slu_store *store);

/* ------------------------------------------------------------------ reading */

/*
 * All of these see every batch applied so far. The value is copied out (values are at most
 * SLU_VALUE_MAX bytes); `size` too small: -ERANGE. Results: the value's length, -ENOENT, -EIO (a
 * bad node on the way; an event is posted), -EAGAIN (see above), -ENOMEM.
 */
int slu_store_get(struct slu_store *store, const struct slu_key *key, void *buf, size_t size,
		  struct slu_need *need);

/*
 * The first record with *key <= its key < *end (ge) or the last with *start <= its key <= *key
 * (le); *key becomes its key.
 */
int slu_store_seek_ge(struct slu_store *store, struct slu_key *key, const struct slu_key *end,
		      void *buf, size_t size, struct slu_need *need);
int slu_store_seek_le(struct slu_store *store, struct slu_key *key, const struct slu_key *start,
		      void *buf, size_t size, struct slu_need *need);

/*
 * Calls fn for the records in [*from, *end) in order, under the store's lock (fn must not call the
 * store nor wait). fn returns 0 to go on, 1 to stop, negative to stop with that error. *from is
 * moved past the last record that fn was shown and took with 0, so that a scan can go on after
 * -EAGAIN. Without need, the lock is dropped now and then; records may change between.
 * Returns 0, 1, or an error.
 */
typedef int slu_scan_fn(void *ctx, const struct slu_key *key, const void *value, size_t len);
int slu_store_scan(struct slu_store *store, struct slu_key *from, const struct slu_key *end,
		   slu_scan_fn *fn, void *ctx, struct slu_need *need);

/* ------------------------------------------------------------------ changing */

/*
 * A batch: puts (insert or replace) and deletes, block ranges that become owned or free, and the
 * change in the number of inodes. Values are copied. Of several operations on one key the last one
 * counts. A failure to add (-ENOMEM; -E2BIG: too much; -EINVAL: no record may have that key)
 * sticks and is returned by slu_store_apply. Deleting a key that is not there is -ENOENT from
 * apply: callers know what they delete.
 */
#define SLU_BATCH_MAX_RECORDS 128
#define SLU_BATCH_MAX_BYTES   (80u << 10)

struct slu_batch {
	struct slu_batch_op *ops; /* in order of addition; apply sorts its own copy */
	unsigned int nops, cap_ops;
	uint8_t *data;
	size_t ndata, cap_data;
	struct slu_batch_blocks *blocks;
	unsigned int nblocks, cap_blocks;
	int64_t ninodes;
	int error;
};

void slu_batch_init(struct slu_batch *b);
void slu_batch_fini(struct slu_batch *b);
void slu_batch_reset(struct slu_batch *b); /* empty it, keep its memory */
void slu_batch_put(struct slu_batch *b, const struct slu_key *key, const void *value, size_t len);
void slu_batch_del(struct slu_batch *b, const struct slu_key *key);
/* Blocks handed out by slu_space_take that a record of this batch makes reachable. */
void slu_batch_own(struct slu_batch *b, uint64_t blkno, uint64_t nblocks);
/* Blocks that no record reaches any more after this batch. */
void slu_batch_free(struct slu_batch *b, uint64_t blkno, uint64_t nblocks);
void slu_batch_inodes(struct slu_batch *b, int64_t delta);

/*
 * A ticket is room for batches: dirty nodes in a transaction, and space for the records to grow.
 * It is taken before any lock, serves any number of batches within what it was asked for, and may
 * span commits. nrecords: puts and deletes in all; nbytes: the most that values may grow in all (a
 * new record's value grows from nothing; what others shrink does not count against it).
 * SLU_TICKET_KEPT_BACK: for work that frees space or completes accepted writes: draws on the
 * blocks kept back and does not fail for want of space in the volume.
 *
 * Waits while both transactions are full (need: -EAGAIN, slow); who holds a ticket must not wait
 * for another. -ENOSPC, -EROFS; and if room does not come because a commit fails, that commit's
 * error (-ENOSPC: the host is full; -EIO).
 */
struct slu_ticket {
	struct slu_store *store; /* NULL: none held */
	uint32_t nodes;
	uint32_t records;
	uint64_t bytes;
	unsigned int flags;
};
#define SLU_TICKET_KEPT_BACK 1u

int slu_ticket_get(struct slu_store *store, struct slu_ticket *t, uint32_t nrecords,
		   uint64_t nbytes, unsigned int flags, struct slu_need *need);
void slu_ticket_put(struct slu_ticket *t); /* no-op on one not held */

/*
 * Applies the batch whole or not at all, within the ticket. May be called under any lock outside
 * SLU_RANK_SPACE; needs every node it touches in memory: -EAGAIN otherwise (slow, if what it frees
 * is more than fits into the open transaction). *ret_txid (may be NULL): the transaction it went
 * into. -ENOENT (delete of nothing), -EROFS, -EIO (also: blocks outside the volume), -ENOMEM, or
 * the batch's own error. Asserts that the batch is within its ticket, and that blocks to be owned
 * were taken.
 */
int slu_store_apply(struct slu_store *store, struct slu_ticket *t, const struct slu_batch *b,
		    uint64_t *ret_txid, struct slu_need *need);

/* A new inode number, never used before. Lock-free. */
uint64_t slu_store_new_ino(struct slu_store *store);

/* ------------------------------------------------------------------ commit */

/* The open transaction's id; everything applied before this call is in it or an earlier one. */
uint64_t slu_store_txid(struct slu_store *store);
/* The newest transaction that is on stable storage. */
uint64_t slu_store_durable_txid(struct slu_store *store);
/*
 * Returns when transaction txid and all before it are on stable storage, with all data whose I/O
 * had completed before the call: it flushes even when nothing is dirty and `flush` is set. No lock
 * held. -EIO, -EROFS, -ENOSPC (the host's disk is full: the commit is tried again later and the
 * volume stays writable).
 */
int slu_store_commit(struct slu_store *store, uint64_t txid, bool flush);
/* Starts a commit of what is open and does not wait. */
void slu_store_commit_soon(struct slu_store *store);

/* ------------------------------------------------------------------ space */

/*
 * A block is free; reserved (counted, not chosen); taken (chosen, I/O in flight, not in any
 * record); owned (reached by a record of the open transaction); or pending (freed, but still
 * reached by a superblock: two commits).
 *
 * Reservation: nblocks of data and what recording them as up to nrecords new extent records may
 * need (which does not show in `free`). Nothing is left behind on failure. -ENOSPC: there is no
 * room even when all that is pending is given back, or the host has none; -EAGAIN (slow): room may
 * come back from a commit or from the host, need waits for it; -EROFS. Records alone (nblocks 0),
 * for a write into blocks that the file owns, are always granted. Rank of the lock inside:
 * SLU_RANK_SPACE.
 */
struct slu_reservation {
	uint64_t blocks;  /* not yet taken */
	uint64_t records; /* worst-case records not yet written */
};
int slu_space_reserve(struct slu_store *store, struct slu_reservation *r, uint64_t nblocks,
		      uint64_t nrecords, struct slu_need *need);
/* Gives back part of it; never fails. */
void slu_space_unreserve(struct slu_store *store, struct slu_reservation *r, uint64_t nblocks,
			 uint64_t nrecords);
/*
 * Chooses up to `want` blocks in one run, near `goal` if it can (0: no wish), out of the
 * reservation. Cannot run out; -EIO only if damage has left no usable free space (then the volume
 * turns read-only); -EAGAIN (need: a chunk must be read).
 */
int slu_space_take(struct slu_store *store, struct slu_reservation *r, uint64_t goal, uint64_t want,
		   uint64_t *ret_blkno, uint64_t *ret_nblocks, struct slu_need *need);
/* Taken blocks whose I/O failed or whose pages are gone: free again; with r, reserved again. */
void slu_space_untake(struct slu_store *store, struct slu_reservation *r, uint64_t blkno,
		      uint64_t nblocks);

struct slu_space_stat {
	uint64_t nblocks; /* what the volume can hold, in blocks */
	uint64_t free; /* a number that depends on the contents alone, see docs/design.md, Space */
	uint64_t reserved; /* set aside for dirty pages */
	uint64_t pending;  /* freed and waiting for commits */
	uint64_t ninodes;
	uint64_t node_blocks, data_blocks;
};
/* From memory, behind no lock that I/O can hold up. */
void slu_space_stat(struct slu_store *store, struct slu_space_stat *ret);
/*
 * Makes the volume longer, up to what the image now has: new blocks are free. The spare superblock
 * moves to the new end: it is written there before the commit that makes the volume longer, and the
 * old one's block is free when no superblock reaches it any more. One call at a time, no lock held;
 * waits for I/O. -EINVAL (shorter than the volume, longer than the image, or by so few blocks longer
 * that what is kept back for metadata would take more than they are), -EROFS, -ENOMEM, -EIO.
 */
int slu_space_grow(struct slu_store *store, uint64_t nblocks);

/* ------------------------------------------------------------------ the nodes, for fsck */

/*
 * Walks the tree of the superblock that was opened, in key order, without the node cache: fn gets
 * each node with what the check of it says (0 or a static text of what is wrong) before its
 * children; a child of a bad node is not visited. For read-only stores.
 */
struct slu_node_visit {
	uint64_t blkno;
	unsigned int level;
	const struct slu_disk_node *node; /* NULL if it could not be read */
	const char *wrong;                /* NULL: valid */
};
int slu_store_walk(struct slu_store *store, int (*fn)(void *ctx, const struct slu_node_visit *v),
		   void *ctx);
/*
 * Reads every node of a volume in use past the node cache, and all superblocks, and reports what is
 * bad: an event, and `damaged`. It goes by the durable tree of each moment: what is in the tree from
 * beginning to end is read, and what has been replaced meanwhile is not taken for damaged. It may hold
 * back commits, for a few reads at a time and where something looks bad; it never does while it is in
 * `step`. One at a time; no lock held. 0 (whatever the damage), -ECANCELED, -ENOMEM.
 */
struct slu_scrub_result {
	uint64_t nodes, total; /* read, and in the tree about now */
	uint64_t damaged;      /* nodes and superblocks */
};
struct slu_scrub_opts {
	/* Before each leaf, with what has been done: waits as long as it likes; not 0: no more. */
	int (*step)(void *ctx, const struct slu_scrub_result *so_far);
	bool (*cancelled)(void *ctx); /* asked under the store's lock */
	void (*damaged)(void *ctx, uint64_t blkno, const char *wrong); /* wrong: static */
	void *ctx;
};
int slu_store_scrub(struct slu_store *store, const struct slu_scrub_opts *opts,
		    struct slu_scrub_result *ret);
/* The parsed superblock in use (a copy of the block). */
const struct slu_disk_super *slu_store_super(const struct slu_store *store);

/* The spare superblock that belongs to a volume of nblocks blocks with this superblock. */
void slu_spare_make(const struct slu_disk_super *sb, uint64_t nblocks, struct slu_disk_super *ret);
/*
 * Whether the block at blkno is a spare superblock, whole and in its own place; NULL or what is
 * wrong. Whose it is the caller has to see.
 */
const char *slu_spare_check(const struct slu_disk_super *spare, uint64_t blkno);
/*
 * Looks for a spare superblock from the image's last block backwards, through SLU_SPARE_LOOK blocks
 * at most: the image may have become longer than the volume. What lies behind the volume is none of
 * its files', so the last one found is taken; but if another volume's follows, either may be what a
 * file or an older volume has left behind, and neither is. Blocks that cannot be read are passed
 * over. 0: *ret, at *ret_blkno; -ENOENT; -EEXIST (of two volumes); -ENOMEM. No lock held.
 */
#define SLU_SPARE_LOOK (1u << 18) /* 1 GiB */
int slu_spare_find(struct slu_blockio *bio, struct slu_disk_super *ret, uint64_t *ret_blkno);
/*
 * Validation in full of one node; NULL or what is wrong. Not checked: expect_txid 0, expect_level
 * below 0, lower or upper NULL.
 */
const char *slu_node_check(const struct slu_disk_node *node, const uint8_t volume_id[16],
			   uint64_t blkno, uint64_t expect_txid, int expect_level,
			   const struct slu_key *lower, const struct slu_key *upper);

#endif
