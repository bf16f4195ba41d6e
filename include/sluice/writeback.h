/* SPDX-License-Identifier: MIT */
/*
 * writeback: turns runs of dirty pages into few large I/Os: allocate → submit → complete.
 *
 * Threads, frames and I/O slots of its own, set aside at start: it never allocates. One failing
 * inode is retried with growing delays and never holds up another.
 */
#ifndef SLUICE_WRITEBACK_H
#define SLUICE_WRITEBACK_H

#include "sluice/blockio.h"
#include "sluice/cache.h"

struct slu_writeback_opts {
	unsigned int nthreads; /* 0: 2 */
	uint64_t dirty_age_ns; /* written out when this old; 0: 5 s */
	struct slu_event_sink events;
};

int slu_writeback_new(struct slu_cache *cache, struct slu_blockio *bio,
		      const struct slu_writeback_opts *opts, struct slu_writeback **ret);
/*
 * Writes out everything that can be written, tries failed pages once more, names what is lost
 * (SLU_EVENT_DATA_LOST), stops the threads. Returns the first error.
 */
int slu_writeback_free(struct slu_writeback *wb);

/*
 * Writes out the dirty pages of as in [pos, end) bytes (end UINT64_MAX: all) as they are now and
 * returns when they are written and recorded (complete() called): afterwards disk_size covers what
 * was below size. No lock held. 0 or the first error of this pass. Not a flush and not a commit.
 */
int slu_writeback_range(struct slu_writeback *wb, struct slu_aspace *as, uint64_t pos,
			uint64_t end);
/* All inodes, the same; used by sync and remount,ro. */
int slu_writeback_all(struct slu_writeback *wb);
/* Starts on it and does not wait. */
void slu_writeback_kick(struct slu_writeback *wb);

/*
 * For the write path: pages of as have become dirty. owner->pin(as) was called before they were
 * marked; this takes that pin over, or gives it back where there is one already. Leaf locks and
 * owner->unpin.
 */
void slu_writeback_dirtied(struct slu_writeback *wb, struct slu_aspace *as);
/*
 * For truncate: pages were dropped; if nothing is dirty any more the inode leaves the queue and is
 * unpinned. The caller has a reference of its own. Leaf locks and owner->unpin.
 */
void slu_writeback_cleaned(struct slu_writeback *wb, struct slu_aspace *as);
struct slu_blockio *slu_writeback_blockio(const struct slu_writeback *wb);

struct slu_writeback_stats {
	_Atomic uint64_t runs, pages, errors, retries, bytes;
	_Atomic uint64_t queued;   /* inodes with dirty pages at this moment, */
	_Atomic uint64_t retrying; /* and those of them that wait for their next try */
};
const struct slu_writeback_stats *slu_writeback_stats(const struct slu_writeback *wb);

#endif
