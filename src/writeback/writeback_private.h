/* SPDX-License-Identifier: MIT */
/*
 * What the files of writeback share: the queue, the I/O slots, a pass.
 *
 *	queue.c		which inodes have dirty pages, and who has one in hand
 *	pass.c		one walk over the dirty pages of one inode
 *	writeback.c	threads, start and end, the public calls
 */
#ifndef SLU_WRITEBACK_PRIVATE_H
#define SLU_WRITEBACK_PRIVATE_H

#include "sluice/writeback.h"

#define MAX_THREADS  8u
#define THREAD_SLOTS 4u /* of each thread */
#define CALLER_SLOTS 8u /* of all callers of slu_writeback_range together */
#define FAILED_PAGES \
	16u /* a run that failed is tried again in pieces of this, to save what can be */
#define RETRY_MIN_NS (100 * SLU_NS_PER_MS)
#define RETRY_MAX_NS (30 * SLU_NS_PER_SEC)
#define DIRTY_AGE_NS (5 * SLU_NS_PER_SEC)

struct wb_pass;

/* A slot: a run of pages under writeback and its I/O. Belongs to one pass from get to put. */
struct wb_run {
	struct slu_io io;
	struct wb_pass *pass;
	struct wb_run *next; /* free, or done */
	struct slu_iomap map;
	bool mapped; /* complete() has to be told */
	uint64_t pgidx;
	uint32_t n;
	uint64_t size; /* of the file when the pages were marked */
	struct slu_page *pages[SLU_IOMAP_MAX_PAGES];
	uint32_t frames[SLU_IOMAP_MAX_PAGES];
	struct iovec iov[SLU_IOMAP_MAX_PAGES];
};

/* A pool of slots. */
struct wb_slots {
	struct slu_mutex lock; /* leaf: free */
	struct slu_cond cond;
	struct wb_run *free;
	struct wb_run *all;
};

struct wb_queue {
	struct slu_aspace *first, *last;
};

struct wb_thread {
	struct slu_thread thread;
	struct slu_writeback *wb;
	struct wb_slots slots;
};

struct slu_writeback {
	struct slu_cache *cache;
	struct slu_blockio *bio;
	struct slu_event_sink events;
	struct slu_writeback_stats stats;
	uint64_t age_ns;
	uint32_t background; /* dirty pages from which on the oldest inode is written at any age */
	unsigned int nthreads;
	struct wb_thread threads[MAX_THREADS];
	struct wb_slots callers;

	/* leaf, order SLU_LEAF_WRITEBACK: all below, and in each aspace what cache.h says */
	struct slu_mutex lock;
	struct slu_cond work;   /* for the threads */
	struct slu_cond idle;   /* holds or recording of some inode ended, or slu_writeback_all */
	struct wb_queue queue;  /* in the order of dirtied_ns */
	struct wb_queue failed; /* those that wait for their next try; few, as a rule */
	uint64_t wake_ns;       /* when the thread that went to sleep last looks again */
	uint64_t kick_ns;       /* what was dirty then is wanted on disk at once */
	uint64_t round;         /* of slu_writeback_all: what it has been at is marked with it */
	bool all_busy;          /* one at a time: another's mark does not say that it is done */
	bool stop;
};

/* ------------------------------------------------------------------ queue.c; wb->lock held */

/* The inode a thread should work on now, or NULL with wb->wake_ns: when to look again. */
struct slu_aspace *queue_pick(struct slu_writeback *wb, uint64_t now);
/* The first inode in either queue that was there at `now` and has not been seen in this round. */
struct slu_aspace *queue_next(struct slu_writeback *wb, uint64_t now, uint64_t round);
void queue_hold(struct slu_aspace *as);
/*
 * Ends a hold: off the queue if nothing is dirty any more. Else back to its end if the pass has gone
 * over the whole file; what a pass over a part left out is as old as it was. Gives the lock up; as
 * may be gone afterwards.
 */
void queue_release(struct slu_writeback *wb, struct slu_aspace *as, bool whole);
void queue_detach(void *ctx, struct slu_aspace *as);
void queue_kick(void *ctx);
/*
 * Of one inode only one thread at a time works out disk_size and tells the backend. No lock held.
 */
void queue_record_begin(struct slu_writeback *wb, struct slu_aspace *as);
void queue_record_end(struct slu_writeback *wb, struct slu_aspace *as);
/* The next attempt for an inode whose write failed, or that all is well again. */
void queue_failed(struct slu_writeback *wb, struct slu_aspace *as);
/* A pass of a thread has found nothing that is not being written already: not again at once. */
void queue_put_off(struct slu_writeback *wb, struct slu_aspace *as);
void queue_healed(struct slu_writeback *wb, struct slu_aspace *as);

/* ------------------------------------------------------------------ pass.c */

int slots_init(struct wb_slots *s, unsigned int n);
void slots_fini(struct wb_slots *s);
/*
 * Writes the dirty pages of [first, end). wait: those too that are under writeback at this moment
 * (again, after that). Returns when its own I/O is done and recorded; the first error.
 */
int pass_run(struct slu_writeback *wb, struct wb_slots *slots, struct slu_aspace *as,
	     uint64_t first, uint64_t end, bool wait);

#endif
