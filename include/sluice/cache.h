/* SPDX-License-Identifier: MIT */
/*
 * cache: the pages of inodes, in an arena.
 *
 * The arena is one memfd, mapped once at mount: a header, the page descriptors, the open-handle
 * table and the frames (4 KiB of data each). It can be handed to a successor process, which finds
 * every page from the descriptors alone; all other indices (hash, free lists, ranges) are rebuilt.
 *
 * A *page* (struct slu_page) is a position in a file: (inode, page index) with a state and a lock
 * bit. A *frame* is data. A page's frame never changes while it is published and referenced:
 * whoever wants other bytes fills a free frame in private and swaps it in under the page lock
 * (publish). Readers see the old frame or the new one, whole.
 *
 * Ranks: inode rwlock (as->lock) → page lock → backend's lock → … ; the cache's own locks are
 * leaves.
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
	/*
	 * Keeps the inode in memory while it has dirty pages or pages under writeback. Leaf locks
	 * only.
	 */
	void (*pin)(struct slu_aspace *as);
	void (*unpin)(struct slu_aspace *as);
	/*
	 * Blocks that hold data are about to be written in place: waits until the tree on disk
	 * shows no more of the file than memory does. The zeros behind a new end must not reach a
	 * block of which the tree on disk still shows the old end. No lock held; an error keeps the
	 * pages dirty. NULL: nothing to wait for.
	 */
	int (*before_overwrite)(struct slu_aspace *as);
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
	 * The inode's rwlock; rank INODE, order ino. Exclusive: write segments, truncate, punch,
	 * and every change of the inode by the namespace. Shared: readers. Never held across a
	 * wait.
	 */
	struct slu_rwlock lock;
	/* Bytes, as applications see it. Changed with `lock` exclusive; read without. */
	_Atomic uint64_t size;
	/* Bytes, as the record in the store says. Changed under backend->lock. */
	uint64_t disk_size;

	struct slu_mutex tags;       /* leaf, order SLU_LEAF_TAGS: everything below */
	struct slu_ranges dirty;     /* page indices */
	struct slu_ranges writeback; /* page indices with I/O in flight; value: the run's number */
	uint64_t cut_first; /* no writeback begins here or beyond; UINT64_MAX: it may anywhere */
	/* a size for the disk has been worked out and is being recorded: no truncate in between */
	bool size_moving;
	uint64_t nmoves;  /* so many times */
	uint64_t run_seq; /* number of the newest run */
	/*
	 * Bytes beyond the size on disk that are new to the file and in no block on disk yet. From
	 * the start of a page, the size before, or what is awaited on, so few for each dirty page.
	 */
	struct slu_ranges unsynced;
	/*
	 * Bytes that writes in no order have passed over, beyond the size in memory at that time:
	 * holes, or on their way. Value: when, slu_clock_ns. The size on disk stays below them
	 * until they have come or are settled.
	 */
	struct slu_ranges awaited;
	uint64_t awaited_last;    /* bytes: start of the range added last */
	uint64_t awaited_last_ns; /* and its value */
	uint64_t synced_end;      /* bytes: the greatest end of anything written out */
	uint32_t npages;          /* pages in the list */
	uint32_t first_page;      /* of the list of all pages of this inode; SLU_PAGE_NONE */
	uint32_t nfailed;         /* of them in state ERROR */
	uint32_t nreads;          /* read requests in flight */
	uint32_t nwaiters;        /* threads in wait */
	struct slu_cond wait;     /* the end of writeback, of a read, of an eviction */
	uint64_t wb_error; /* sequence << 32 | errno of the newest writeback error; 0: none yet */

	/* writeback's, under its lock */
	bool queued;       /* on the writeback queue */
	bool pinned;       /* owner->pin was called */
	bool recording;    /* somebody is between working out disk_size and complete()'s return */
	uint32_t wb_holds; /* passes that have it in hand */
	bool busy;         /* a writeback thread works on it */
	bool wb_failed;    /* it is in the queue of those whose write failed */
	struct slu_aspace *wb_next, *wb_prev;
	uint64_t queued_ns;                /* since when it has been on the queue without a break */
	uint64_t wb_round;                 /* the newest slu_writeback_all that has seen it */
	uint64_t dirtied_ns;               /* no page of now became dirty before it */
	uint64_t retry_ns, retry_delay_ns; /* after a failed write: not before */
	uint64_t put_off_ns;               /* a thread has found nothing to start: not before */
};

struct slu_cache_opts {
	size_t bytes; /* for frames; at least 1 MiB */
	struct slu_event_sink events;
};

int slu_cache_new(const struct slu_cache_opts *opts, struct slu_cache **ret);
void slu_cache_free(struct slu_cache *cache); /* asserts that no page is dirty or referenced */

/* backend is initialised and outlives it; wb may be NULL where nothing gets dirty (read-only). */
void slu_aspace_init(struct slu_aspace *as, struct slu_cache *cache, struct slu_writeback *wb,
		     struct slu_iomap_inode *backend, const struct slu_aspace_owner *owner,
		     uint64_t ino, uint64_t size, uint64_t disk_size);
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
 * Errors of writeback: an open description keeps a cursor. sample at open; check at fsync or close
 * returns the error (negative errno) if one was recorded since the cursor, and moves the cursor on.
 */
uint64_t slu_aspace_error_sample(struct slu_aspace *as);
int slu_aspace_error_check(struct slu_aspace *as, uint64_t *cursor);

struct slu_cache_stats {
	_Atomic uint64_t frames, free_frames, pages, dirty, writeback, failed, hits, misses,
		evictions, frame_waits, publishes, tail_locks, torn_retries;
};
const struct slu_cache_stats *slu_cache_stats(const struct slu_cache *cache);

/* Counters of the write path (write.h), which has no object of its own to keep them in. */
struct slu_write_stats {
	_Atomic uint64_t writes, segments, bytes, short_copies, fault_ins, tail_locks,
		partial_reads, carried, no_space;
};
struct slu_write_stats *slu_cache_write_stats(struct slu_cache *cache);

/*
 * The open-handle table lives in the arena too: fixed entries, found by number.
 */
struct slu_handle {
	_Atomic uint64_t ino; /* 0: free */
	uint64_t error_cursor;
	uint32_t flags; /* open(2) flags */
	uint32_t generation;
	uint32_t next_free; /* the table's, under its lock */
};
/* A free entry; its number goes out as the FUSE file handle. -ENFILE when the table is full. */
int slu_handle_new(struct slu_cache *cache, uint64_t ino, uint32_t flags, uint64_t *ret_fh);
/* NULL for a number that is not an open handle (requests are not trusted). */
struct slu_handle *slu_handle_get(struct slu_cache *cache, uint64_t fh);
/*
 * Frees the entry if it is an open handle of that inode; else false. Of several callers at the same
 * time one gets true.
 */
bool slu_handle_free(struct slu_cache *cache, uint64_t fh, uint64_t ino);

/* ------------------------------------------------------------------ for the layers above: pages */

/*
 * Everything from here on is used by writeback and write, and by tests. Frames and pages are known
 * by number (their place in the arena); pages also by pointer.
 */
#define SLU_FRAME_NONE UINT32_MAX
#define SLU_PAGE_NONE  UINT32_MAX

/* The cache's leaf locks, in their order among each other. */
enum slu_cache_leaf {
	SLU_LEAF_WRITEBACK = 1, /* the writeback queue */
	SLU_LEAF_STRIPE = 2,    /* hash buckets: which page is where, and its frame */
	SLU_LEAF_TAGS = 3,      /* as->tags */
	SLU_LEAF_FRAMES = 4,    /* free frames, free descriptors, claims */
};

/*
 * State of a page.
 *
 *	bit		meaning						changed under
 *	LOCKED		somebody has the page lock			itself
 *	WAITERS		somebody sleeps on the word			itself
 *	UPTODATE	the frame holds what the file holds (*)		stripe lock; page lock (*)
 *	READING		being read in; the reader owns the transition	stripe lock
 *	DIRTY		newer than the disk				as->tags
 *	WRITEBACK	its (older) frame is being written		as->tags
 *	ERROR		its last write failed; kept, DIRTY, tried again	as->tags
 *	GONE		not in the cache any more: look again		stripe lock
 *	READ_FAILED	with GONE: because reading it failed		stripe lock
 *	ACCESSED	read since the clock hand passed		anybody
 *
 * (*) Bytes beyond the size are zero. The page lock is enough before the page is published.
 *
 * Transitions:
 *	(none) → READING			slu_page_insert_reading
 *	READING → UPTODATE			slu_page_read_done, 0
 *	READING → GONE | READ_FAILED		slu_page_read_done, error
 *	(none) → LOCKED				slu_page_insert_locked: the tail of a segment
 *	LOCKED → LOCKED | UPTODATE		slu_page_uptodate
 *	LOCKED → GONE				slu_page_remove_locked: nothing was copied to it
 *	(none), READING, UPTODATE → UPTODATE	slu_pages_publish
 *	UPTODATE → DIRTY			slu_pages_set_dirty
 *	DIRTY → WRITEBACK			slu_pages_start_writeback
 *	WRITEBACK → (clean)			slu_pages_end_writeback, 0
 *	WRITEBACK → DIRTY | ERROR		slu_pages_end_writeback, error
 *	DIRTY → (clean)				slu_pages_drop, before GONE
 *	any without WRITEBACK → GONE		slu_pages_drop
 *	clean and unreferenced → GONE		eviction
 *
 * Invariants (slu_cache_check):
 *	READING excludes UPTODATE, DIRTY, WRITEBACK
 *	DIRTY or WRITEBACK implies UPTODATE
 *	ERROR implies DIRTY or WRITEBACK
 *	neither READING nor UPTODATE implies LOCKED or GONE
 *	DIRTY is in as->dirty, WRITEBACK in as->writeback, and the other way round
 *	a page in the cache has a frame with at least one reference
 */
enum slu_page_bit {
	SLU_PAGE_LOCKED = 1u << 0,
	SLU_PAGE_WAITERS = 1u << 1,
	SLU_PAGE_UPTODATE = 1u << 2,
	SLU_PAGE_READING = 1u << 3,
	SLU_PAGE_DIRTY = 1u << 4,
	SLU_PAGE_WRITEBACK = 1u << 5,
	SLU_PAGE_ERROR = 1u << 6,
	SLU_PAGE_GONE = 1u << 7,
	SLU_PAGE_READ_FAILED = 1u << 8,
	SLU_PAGE_ACCESSED = 1u << 9,
};

/* "uptodate|dirty" into buf, for messages. */
const char *slu_page_state_name(uint32_t state, char *buf, size_t size);

/* A page's descriptor, in the arena. */
struct slu_page {
	_Atomic uint64_t ino; /* 0: free. Stored last, so whoever sees it may believe the rest */
	_Atomic uint64_t pgidx;
	_Atomic uint32_t state; /* enum slu_page_bit */
	_Atomic uint32_t
		frame; /* owns a reference; changed with the page lock and the stripe lock */
	_Atomic uint32_t refs; /* SLU_PAGE_DEAD: not in the cache, free at the last reference */
	uint32_t hash_next;    /* stripe lock; in the free list: the next */
	uint32_t list_next, list_prev; /* all pages of the inode; as->tags */
	uint32_t listed;               /* in that list; as->tags, or not published yet */
	uint32_t spare[5];
};
_Static_assert(sizeof(struct slu_page) == 64, "page descriptors are part of the arena's layout");
#define SLU_PAGE_DEAD (1u << 31)

/*
 * A ticket: frames claimed before any lock was taken, and room for pages that become dirty. Whoever
 * has one cannot run out under a lock. Frames that publishing sets free go to the ticket.
 */
struct slu_frames {
	struct slu_cache *cache;
	uint32_t first, last, n; /* free frames, linked */
	uint32_t pages, npages;  /* free descriptors, linked */
	uint32_t dirty;          /* pages that may become dirty */
};
#define SLU_FRAMES_INIT(c)                                                     \
	{                                                                      \
		.cache = (c), .first = SLU_FRAME_NONE, .last = SLU_FRAME_NONE, \
		.pages = SLU_PAGE_NONE                                         \
	}

/* May use what is kept back (writes that must not fail). */
#define SLU_FRAMES_KEPT_BACK 1u

/*
 * Tops the ticket up to n frames and room for `dirty` pages. Evicts clean pages. Where that is not
 * enough: need given: -EAGAIN, the need says what to wait for (slow); need NULL: waits, no lock
 * held. Where every page that could be waited for has failed to be written: the error of that.
 * -ENOMEM if n can never be had. With need it takes leaf locks alone and may be called under any
 * lock but a leaf.
 */
int slu_frames_claim(struct slu_frames *fr, uint32_t n, uint32_t dirty, unsigned int flags,
		     struct slu_need *need);
/* Gives back what is left. Any lock but a leaf may be held. */
void slu_frames_release(struct slu_frames *fr);
/* One frame out of the ticket (asserted), owned by the caller. */
uint32_t slu_frames_take(struct slu_frames *fr);
/* Puts a frame that nobody saw back into the ticket. */
void slu_frames_return(struct slu_frames *fr, uint32_t frame);
/* The most frames that one operation may claim, and the most that may ever be dirty. */
uint32_t slu_cache_max_claim(const struct slu_cache *cache);
uint32_t slu_cache_dirty_limit(const struct slu_cache *cache);

void *slu_frame_data(const struct slu_cache *cache, uint32_t frame);
/* References to frames that hold data. get: of a frame that the caller knows to be referenced. */
void slu_frame_get(struct slu_cache *cache, uint32_t frame);
void slu_frame_put(struct slu_cache *cache, uint32_t frame);
void slu_frames_put(struct slu_cache *cache, const uint32_t *frames,
		    uint32_t n); /* SLU_FRAME_NONE is skipped */
/* SLU_ZERO_BYTES of zeros that nobody can write to. */
#define SLU_ZERO_BYTES (1u << 20)
const void *slu_cache_zeros(const struct slu_cache *cache);

/* The page at pgidx, referenced, or NULL. */
struct slu_page *slu_page_find(struct slu_aspace *as, uint64_t pgidx);
void slu_page_put(struct slu_cache *cache, struct slu_page *page);
/* Of a page that the caller has a reference to. */
static inline void slu_page_get(struct slu_page *page)
{
	atomic_fetch_add_explicit(&page->refs, 1, memory_order_relaxed);
}
static inline uint32_t slu_page_state(const struct slu_page *page)
{
	return atomic_load_explicit(&page->state, memory_order_acquire);
}
static inline uint64_t slu_page_index(const struct slu_page *page)
{
	return atomic_load_explicit(&page->pgidx, memory_order_relaxed);
}

/* The page lock. The page is referenced. A tail keeps its lock to the end of its segment. */
void slu_page_lock_at(struct slu_page *page, const char *site);
#define slu_page_lock(page) slu_page_lock_at(page, SLU_HERE)
/* Does not wait: false if somebody has it. */
bool slu_page_trylock(struct slu_page *page);
void slu_page_unlock(struct slu_page *page);

/*
 * Looks n pages from pgidx up at once, for a reader: frames[i] is a referenced frame where the page
 * is uptodate; else SLU_FRAME_NONE and pages[i] is the referenced page that is being read, or NULL.
 * as->lock shared. Returns how many were neither.
 */
uint32_t slu_pages_lookup(struct slu_aspace *as, uint64_t pgidx, uint32_t n, uint32_t *frames,
			  struct slu_page **pages);
/*
 * Waits until the page is not READING, without a lock. 0 with a referenced frame; -EAGAIN: it is
 * gone, look again; -EIO: reading it failed.
 */
int slu_page_wait_read(struct slu_cache *cache, struct slu_page *page, uint32_t *ret_frame);

/*
 * A page in state READING with a frame of the ticket; referenced. as->lock shared or exclusive.
 * false: there is one already (*ret is that one, referenced). Every page inserted ends in
 * slu_page_read_done.
 */
bool slu_page_insert_reading(struct slu_aspace *as, struct slu_frames *fr, uint64_t pgidx,
			     struct slu_page **ret);
/*
 * The read into `frame` has ended: fails or publishes it, unless the page has been published or
 * removed meanwhile. Gives the reference to the page back. Leaf locks only: called from end_io.
 */
void slu_page_read_done(struct slu_aspace *as, struct slu_page *page, int result);

/*
 * A page that is not there yet, locked and referenced, with a frame of the ticket. as->lock
 * exclusive.
 */
struct slu_page *slu_page_insert_locked(struct slu_aspace *as, struct slu_frames *fr,
					uint64_t pgidx);
/* Its frame is complete now. The page lock is held. */
void slu_page_uptodate(struct slu_page *page);
/* Takes it out again; the page lock is held and given up, the reference too. */
void slu_page_remove_locked(struct slu_aspace *as, struct slu_page *page);

/*
 * Publishes n filled frames as the pages from pgidx on: each is swapped in under its page lock.
 * as->lock exclusive. The frames come from the ticket (slu_frames_take); those they replace go to
 * it when nobody refers to them. pages[i]: referenced, and so kept from eviction until they are
 * marked dirty.
 */
void slu_pages_publish(struct slu_aspace *as, struct slu_frames *fr, uint64_t pgidx, uint32_t n,
		       const uint32_t *frames, struct slu_page **pages);

/* ------------------------------------------------------------------ for the layers above: tags */

/*
 * The functions that change DIRTY, WRITEBACK and ERROR, each together with the ranges and counters.
 * The range pool keeps SLU_CACHE_SPARE_RANGES nodes for them: slu_cache_fill_ranges, with no lock
 * held, before an operation.
 */
#define SLU_CACHE_SPARE_RANGES 4096u
int slu_cache_fill_ranges(struct slu_cache *cache);

/*
 * The pages are dirty from now on, the bytes [pos, end) of them unsynced as far as they lie beyond
 * disk_size, and the size is at least new_size: all in one step, so that whoever writes a page out
 * knows how much of it the size covers. as->lock exclusive; takes room for dirty pages from the
 * ticket and the references to the pages.
 */
void slu_pages_set_dirty(struct slu_aspace *as, struct slu_frames *fr, struct slu_page **pages,
			 uint32_t n, uint64_t pos, uint64_t end, uint64_t new_size);
/*
 * Before that, for a write of [pos, end) that others may overtake: what it passes over beyond the
 * size is awaited. After it: what has come is awaited no more. as->lock exclusive.
 */
void slu_aspace_await(struct slu_aspace *as, uint64_t pos);
void slu_aspace_arrived(struct slu_aspace *as, uint64_t pos, uint64_t end);
bool slu_aspace_awaits(struct slu_aspace *as);
/* What is awaited is a hole. No lock needed. */
void slu_aspace_settle(struct slu_aspace *as);
/* The same for what any inode has awaited since `since` or longer. */
void slu_cache_settle(struct slu_cache *c, uint64_t since);
/* When a write has last passed over bytes, of any inode; 0: never. Every one has a later time. */
uint64_t slu_cache_awaited_ns(struct slu_cache *c);
/*
 * The first run of pages that are DIRTY and not WRITEBACK in [*pgidx, end), at most max: marks them
 * WRITEBACK and clears DIRTY. pages[] and frames[] are referenced. Returns how many; *pgidx is the
 * first, *ret_size the size they are covered by. 0: there is none; then *pgidx is end. At a page
 * that is DIRTY and WRITEBACK, with stop: 0 and *pgidx is that page; without: it is passed over.
 * Pages in ERROR come in runs of at most max_failed, apart from others.
 */
uint32_t slu_pages_start_writeback(struct slu_aspace *as, uint64_t *pgidx, uint64_t end,
				   uint32_t max, uint32_t max_failed, bool stop,
				   struct slu_page **pages, uint32_t *frames, uint64_t *ret_size);
/*
 * The end of it; takes the references. result < 0: dirty again, ERROR, and in the same moment
 * recorded for the cursors. size: what start_writeback returned.
 */
void slu_pages_end_writeback(struct slu_aspace *as, uint64_t pgidx, uint32_t n,
			     struct slu_page **pages, const uint32_t *frames, uint64_t size,
			     int result);
/*
 * What disk_size may be once this run is on disk: never beyond a byte that is not. It is so until
 * slu_pages_end_writeback of the run: a truncate waits (cut_begin), and this waits for one. One run of
 * an inode at a time. Takes backend->lock.
 */
uint64_t slu_aspace_synced_size(struct slu_aspace *as, uint64_t pgidx, uint32_t n,
				struct slu_page **pages, uint64_t size);
/*
 * What disk_size may be now. More than as->disk_size where the bytes beyond it were taken away
 * again before they were written (a punch): then no complete() will move it, and whoever writes the
 * inode's record next writes this. The caller holds backend->lock.
 */
uint64_t slu_aspace_synced(struct slu_aspace *as);
/* Whether a page of [first, end) is under writeback. */
bool slu_pages_writeback(struct slu_aspace *as, uint64_t first, uint64_t end);
/*
 * Until slu_aspace_cut_end no writeback begins at page `first` or beyond: who wants to waits. False:
 * some is under way in [first, end), or, where the cut moves the size back, a size is just being
 * recorded: then slu_aspace_cut_wait, with no lock held. as->lock exclusive throughout, and nothing is
 * waited for in between.
 */
bool slu_aspace_cut_begin(struct slu_aspace *as, uint64_t first, uint64_t end, bool shrinks);
void slu_aspace_cut_end(struct slu_aspace *as);
void slu_aspace_cut_wait(struct slu_aspace *as, uint64_t first, uint64_t end);
/*
 * Waits for every run in [first, end) that has started by now, not for those that start meanwhile:
 * it ends. No lock held.
 */
void slu_pages_wait(struct slu_aspace *as, uint64_t first, uint64_t end);
/*
 * Removes the pages [first, end), dirty or not. as->lock exclusive, or nobody else uses as. -EBUSY:
 * one is under writeback, nothing was done.
 */
int slu_pages_drop(struct slu_aspace *as, uint64_t first, uint64_t end);
/* Bytes [pos, end) are not waited for any more (truncate, punch). */
void slu_aspace_forget(struct slu_aspace *as, uint64_t pos, uint64_t end);
/*
 * The recorded error if pages of this inode failed and there are too many failed pages in the
 * cache; else 0.
 */
int slu_aspace_failed(struct slu_aspace *as);

/* A read request of as is in flight: as->size and its pages are looked at when it ends. */
void slu_aspace_read_begin(struct slu_aspace *as);
void slu_aspace_read_end(struct slu_aspace *as);

/* What the cache asks of writeback, which lies above it. Leaf locks only in kick. */
struct slu_cache_hooks {
	void (*kick)(void *ctx);                          /* pages are needed */
	void (*detach)(void *ctx, struct slu_aspace *as); /* as ends: may wait */
};
void slu_cache_set_hooks(struct slu_cache *cache, const struct slu_cache_hooks *hooks, void *ctx);

/*
 * Walks all descriptors and compares them with the hash, the lists, the ranges and the counters.
 * Nobody else may use the cache meanwhile. 0, or -EUCLEAN with a line for each thing wrong to
 * `report` (may be NULL).
 */
int slu_cache_check(struct slu_cache *cache, FILE *report);
/* The descriptors in use, a line each. */
void slu_cache_print(struct slu_cache *cache, FILE *out);
#endif
