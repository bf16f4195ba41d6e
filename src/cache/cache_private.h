/* SPDX-License-Identifier: MIT */
/*
 * What the files of the cache share: the layout of the arena and the indices beside it.
 *
 * In the arena is what a successor process needs and nothing else: which descriptor is which page,
 * in which state, in which frame, and the open handles. Hash buckets, reference counts, free lists
 * and owners are this process's own and could be built anew from the descriptors.
 */
#ifndef SLU_CACHE_PRIVATE_H
#define SLU_CACHE_PRIVATE_H

#include "sluice/cache.h"

#define ARENA_MAGIC   0x61637365726175ull
#define ARENA_VERSION 1u

#define HANDLE_MAX (1u << 20)

/* Pages of one inode whose indices differ in these low bits alone share a stripe lock. */
#define GROUP_SHIFT 4
#define GROUP_PAGES (1u << GROUP_SHIFT)
#define NSTRIPES    256u

/* At offset 0 of the arena. Offsets and sizes in bytes. */
struct arena_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size;
	uint64_t size;
	uint64_t nframes; /* and as many descriptors */
	uint64_t handles_offset, nhandles, handle_size;
	uint64_t pages_offset, page_size;
	uint64_t frames_offset;
};

struct arena {
	int fd;
	char *base;
	size_t size;
	struct arena_header *header;
	struct slu_handle *handles;
	struct slu_page *pages;
	char *frames;
};

struct stripe {
	struct slu_mutex lock;
} __attribute__((aligned(64)));

/*
 * Lock order among the leaves: enum slu_cache_leaf. What each protects:
 *	stripes[i].lock		buckets of that stripe, hash_next of the pages in them, their
 *				identity, their frame, UPTODATE, READING, GONE
 *	frames_lock		free frames, free descriptors, claims
 *	handles_lock		free handles
 */
struct slu_cache {
	struct arena arena;
	uint32_t nframes;
	struct slu_event_sink events;
	struct slu_cache_hooks hooks;
	void *hooks_ctx;
	struct slu_cache_stats stats;
	struct slu_write_stats write_stats;
	void *zeros;

	struct stripe stripes[NSTRIPES];
	uint32_t *buckets;          /* first page of each chain */
	uint32_t nbuckets;          /* a power of two, a multiple of GROUP_PAGES * NSTRIPES */
	struct slu_aspace **owners; /* of each page in use; written before it is published */
	struct slu_range_pool ranges;

	struct slu_mutex frames_lock;
	struct slu_cond frames_cond;
	uint32_t *frame_next; /* links of free lists: the cache's and the tickets' */
	_Atomic uint32_t *frame_refs;
	uint32_t free_frames, nfree_frames;
	uint32_t free_pages, nfree_pages;
	uint32_t fresh_pages; /* from here on never used: not in the list, not touched */
	uint32_t kept_back;   /* frames for those that must not fail */
	uint32_t dirty_limit, dirty_max;
	_Atomic uint32_t dirty_used; /* pages DIRTY or WRITEBACK, and room in tickets */
	_Atomic uint32_t nwaiters;
	_Atomic uint32_t wakes;      /* counts what waiters might have waited for */
	_Atomic int last_error;      /* of writeback; negative errno */
	_Atomic uint64_t awaited_ns; /* slu_cache_awaited_ns */
	_Atomic uint64_t settled_ns; /* what has been awaited since then or longer is a hole */

	_Atomic uint32_t hand; /* clock: the next descriptor to look at */

	struct slu_mutex handles_lock;
	uint32_t free_handle, fresh_handle;
};

/* ------------------------------------------------------------------ arena.c */

int arena_new(uint32_t nframes, struct arena *ret);
void arena_free(struct arena *a);
/* Has the kernel set aside memory for the last n frames. */
int arena_back_frames(struct arena *a, uint32_t nframes, uint32_t n);

/* ------------------------------------------------------------------ frame.c */

int frames_init(struct slu_cache *c);
void frames_fini(struct slu_cache *c);
/* Gives a chain of n free frames back. Leaf. */
void frames_push(struct slu_cache *c, uint32_t first, uint32_t last, uint32_t n);
/* A descriptor that nobody refers to goes back to the free list. */
void pages_push(struct slu_cache *c, struct slu_page *page);
/* Something that claims wait for may have happened. */
void frames_wake(struct slu_cache *c);
/* Drops a reference; true: it was the last one, and the frame is the caller's now. */
bool frame_unref(struct slu_cache *c, uint32_t frame);
void ticket_add(struct slu_frames *fr, uint32_t frame);
struct slu_page *ticket_page(struct slu_frames *fr);

/* ------------------------------------------------------------------ page.c */

static inline struct slu_page *page_at(struct slu_cache *c, uint32_t index)
{
	return &c->arena.pages[index];
}

static inline uint32_t page_number(const struct slu_cache *c, const struct slu_page *page)
{
	return (uint32_t)(page - c->arena.pages);
}

static inline uint32_t bucket_of(const struct slu_cache *c, uint64_t ino, uint64_t pgidx)
{
	uint64_t h =
		(ino * 0x9e3779b97f4a7c15ull) ^ ((pgidx >> GROUP_SHIFT) * 0xc2b2ae3d27d4eb4full);

	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9ull;
	h ^= h >> 32;
	return (uint32_t)((h << GROUP_SHIFT | (pgidx & (GROUP_PAGES - 1))) & (c->nbuckets - 1));
}

static inline struct slu_mutex *stripe_of(struct slu_cache *c, uint32_t bucket)
{
	return &c->stripes[(bucket >> GROUP_SHIFT) % NSTRIPES].lock;
}

/* Stripe lock of the bucket. */
struct slu_page *hash_find(struct slu_cache *c, uint32_t bucket, uint64_t ino, uint64_t pgidx);
/* Takes it out of its chain; false if it is not in it. Stripe lock. */
bool hash_remove(struct slu_cache *c, uint32_t bucket, struct slu_page *page);
/* Wakes those who sleep on the word after `clear` has been cleared and `set` set. */
void page_change(struct slu_page *page, uint32_t set, uint32_t clear);
/*
 * Takes a page that the caller refers to out of the hash, unless it is out. Stripe lock not held.
 */
bool page_unhash(struct slu_cache *c, struct slu_page *page, uint32_t set);

/* ------------------------------------------------------------------ tags.c */

/* as->tags. */
void list_add(struct slu_aspace *as, struct slu_page *page);
void list_del(struct slu_aspace *as, struct slu_page *page);

/* ------------------------------------------------------------------ evict.c */

/* Drops up to `want` clean pages that nobody refers to; returns how many. Leaf locks. */
uint32_t cache_evict(struct slu_cache *c, uint32_t want);

#endif
