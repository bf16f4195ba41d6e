/* SPDX-License-Identifier: MIT */
/*
 * cache: the pages of inodes, in an arena.
 *
 * The arena is one memfd, mapped once at mount: a header, the page descriptors, the open-handle table and
 * the frames (4 KiB of data each). It can be handed to a successor process, which finds every
 * page from the descriptors alone; all other indices (hash, free lists, ranges) are rebuilt.
 *
 * A *page* (struct slu_page) is a position in a file: (inode, page index) with a state and a lock bit. A *frame*
 * is data. A page's frame never changes while it is published and referenced: whoever wants other
 * bytes fills a free frame in private and swaps it in under the page lock (publish). Readers see the
 * old frame or the new one, whole.
 *
 * Ranks: inode rwlock (as->lock) → page lock → backend's lock → … ; the cache's own locks are leaves.
 */
#ifndef SLUICE_CACHE_H
#define SLUICE_CACHE_H

#include "sluice/base.h"
#include "sluice/event.h"
#include "sluice/iomap.h"

struct slu_cache;
struct slu_aspace;
struct slu_writeback;

/* What the owner of an address space (the inode) does for the layers below it. */
struct slu_aspace_owner {
	/* Keeps the inode in memory while it has dirty pages or pages under writeback. Leaf locks only. */
	void (*pin)(struct slu_aspace *as);
	void (*unpin)(struct slu_aspace *as);
};

/*
 * The address space of an inode: its pages and its size. Embedded in the inode.
 */
struct slu_aspace {
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_iomap_inode *backend;
	const struct slu_aspace_owner *owner; /* NULL in tests */
	uint64_t ino;
	/*
	 * The inode's rwlock; rank INODE, order ino. Exclusive: write segments, truncate, punch, and
	 * every change of the inode by the namespace. Shared: readers. Never held across a wait.
	 */
	struct slu_rwlock lock;
	/* Bytes, as applications see it. Changed with `lock` exclusive; read without. */
	_Atomic uint64_t size;
	/* Bytes, as the record in the store says. Changed under backend->lock. */
	uint64_t disk_size;

	struct slu_mutex tags; /* leaf: everything below */
	struct slu_ranges dirty;     /* page indices */
	struct slu_ranges writeback; /* page indices with I/O in flight */
	struct slu_ranges unsynced;  /* bytes at or beyond disk_size that are in no block on disk yet */
	uint32_t npages;	     /* pages in the cache */
	uint32_t first_page;	     /* of the list of all pages of this inode */
	bool queued;		     /* on the writeback queue */
	struct slu_aspace *wb_next, *wb_prev;
	uint64_t dirtied_ns;	     /* when the first dirty page of now became dirty */
	uint64_t retry_ns, retry_delay_ns; /* after a failed write: not before */
	uint64_t wb_error;	     /* sequence << 32 | errno of the newest writeback error; 0: none yet */
};

struct slu_cache_opts {
	size_t bytes;	/* for frames; at least 1 MiB */
	struct slu_event_sink events;
};

int slu_cache_new(const struct slu_cache_opts *opts, struct slu_cache **ret);
void slu_cache_free(struct slu_cache *cache); /* asserts that no page is dirty or referenced */

/* backend is initialised and outlives it; wb may be NULL where nothing gets dirty (read-only). */
void slu_aspace_init(struct slu_aspace *as, struct slu_cache *cache, struct slu_writeback *wb,
		     struct slu_iomap_inode *backend, const struct slu_aspace_owner *owner, uint64_t ino,
		     uint64_t size, uint64_t disk_size);
/* Drops clean pages; asserts that none is dirty or under writeback. */
void slu_aspace_fini(struct slu_aspace *as);

static inline uint64_t slu_aspace_size(const struct slu_aspace *as)
{
	return atomic_load_explicit(&as->size, memory_order_acquire);
}
/* as->lock exclusive. */
static inline void slu_aspace_set_size(struct slu_aspace *as, uint64_t size)
{
	atomic_store_explicit(&as->size, size, memory_order_release);
}

bool slu_aspace_dirty(struct slu_aspace *as); /* dirty or under writeback */

/*
 * Errors of writeback: an open description keeps a cursor. sample at open; check at fsync or close returns
 * the error (negative errno) if one was recorded since the cursor, and moves the cursor on.
 */
uint64_t slu_aspace_error_sample(struct slu_aspace *as);
int slu_aspace_error_check(struct slu_aspace *as, uint64_t *cursor);

struct slu_cache_stats {
	_Atomic uint64_t frames, free_frames, pages, dirty, writeback, failed, hits, misses, evictions,
		frame_waits, publishes, tail_locks, torn_retries;
};
const struct slu_cache_stats *slu_cache_stats(const struct slu_cache *cache);

/*
 * The open-handle table lives in the arena too: fixed entries, found by number.
 */
struct slu_handle {
	_Atomic uint64_t ino;	/* 0: free */
	uint64_t error_cursor;
	uint32_t flags;		/* open(2) flags */
	uint32_t generation;
	uint64_t dir_pos;	/* spare for directories */
};
/* A free entry; its number goes out as the FUSE file handle. -ENFILE when the table is full. */
int slu_handle_new(struct slu_cache *cache, uint64_t ino, uint32_t flags, uint64_t *ret_fh);
/* NULL for a number that is not an open handle (requests are not trusted). */
struct slu_handle *slu_handle_get(struct slu_cache *cache, uint64_t fh);
void slu_handle_free(struct slu_cache *cache, uint64_t fh);

/* The rest (frames, tickets for frames, pages, their states) is in the second half, written with the code. */

#endif
