/* SPDX-License-Identifier: MIT */
/*
 * write: the write path, the read path beside it, and what truncate and punch do to pages.
 *
 *	Copy what is ready under the lock; wait for more with no lock held.
 */
#ifndef SLUICE_WRITE_H
#define SLUICE_WRITE_H

#include "sluice/blockio.h"
#include "sluice/writeback.h"
#include <sys/uio.h>

/* ------------------------------------------------------------------ source */

/*
 * Where the bytes come from: an iterator with two verbs. Nothing else of it is known here.
 */
struct slu_source;
struct slu_source_ops {
	/*
	 * Copies up to len of the next bytes to dst without ever waiting or faulting, and moves on.
	 * Returns how many, 0 to len: fewer means that the rest is not ready.
	 */
	size_t (*copy_nofault)(struct slu_source *src, void *dst, size_t len);
	/*
	 * Called with no lock held after a short copy: makes at least one byte ready that the
	 * source itself holds, so that the next copy_nofault moves at least one byte. May wait. 0
	 * or -errno (-EFAULT, -EIO; end of input is -ENODATA).
	 */
	int (*fault_in)(struct slu_source *src, size_t len);
};
struct slu_source {
	const struct slu_source_ops *ops;
};

/* Bytes in memory that is always ready (a request buffer). */
struct slu_source_buffer {
	struct slu_source source; /* first */
	const struct iovec *iov;
	int niov, i;
	size_t off;
};
void slu_source_buffer_init(struct slu_source_buffer *s, const struct iovec *iov, int niov);

/* A pipe (FUSE splice) or socket: non-blocking reads; a short copy polls in fault_in. */
struct slu_source_fd {
	struct slu_source source; /* first */
	int fd;
	bool is_socket;
	uint8_t held[64]; /* bytes that fault_in read so that progress is certain */
	size_t held_off, held_len;
};
void slu_source_fd_init(struct slu_source_fd *s, int fd);

/* ------------------------------------------------------------------ write */

/*
 * The kernel writes back its own pages: the data is believed written already. Whole or failed,
 * never short, never -ENOMEM; -ENOSPC only after what was pending has been given back (which is
 * reserve's to see to). Everything is reserved before the first byte is copied, for requests of up
 * to 260 pages that a cache of eight times as many frames can hold; larger ones, or those of a
 * source that does not have everything ready, are whole or failed in parts of that size.
 */
#define SLU_WRITE_KERNEL_CACHE 1u
/*
 * Whole or failed in the same way, but without what is kept back: O_DIRECT, where the kernel turns
 * a short answer into EIO and hides that the volume is full.
 */
#define SLU_WRITE_WHOLE 4u
/* For slu_fs_write: the times are not moved, since whoever has the data sets them, too. */
#define SLU_WRITE_KEEP_TIMES 8u
/*
 * What lies before pos may have been written earlier and get here later: the kernel's write-back
 * cache. What the write passes over is awaited (slu_aspace_await).
 */
#define SLU_WRITE_UNORDERED 16u

struct slu_write_result {
	uint64_t done; /* bytes */
	/* slu_fs_write on a mount with -o sync: they are written, and not durable (yet) */
	bool unsynced;
};

/*
 * Writes len bytes of src at pos, in segments; each takes as->lock exclusive and gives it up. No
 * lock held. need given: -EAGAIN with ret->done bytes done so far if it would have to wait (cache
 * full, reservation, a page to be read first); call again for the rest. The need refers to `as`.
 * Waits for the source in any case. 0 when ret->done > 0 or len is 0 (a short write: out of space,
 * or the source ended); else -ENOSPC, -EIO, -EFBIG, -ENOMEM, -EROFS, the source's error (-EIO where
 * it ended at once), or the recorded error when the inode's failed pages are over their limit. The
 * caller has checked permissions, limits and flags and has flagged the times.
 */
int slu_write(struct slu_aspace *as, struct slu_source *src, uint64_t pos, uint64_t len,
	      unsigned int flags, struct slu_write_result *ret, struct slu_need *need);

/* ------------------------------------------------------------------ read */

/* Pages that a reader holds while it hands them on; never change meanwhile. */
struct slu_read_vec {
	struct iovec *iov; /* exactly the bytes read, in order (holes are one shared zero page) */
	int niov;
	uint64_t len;
	uint32_t *frames; /* references, given back by slu_read_done */
	unsigned int nframes;
	struct slu_cache *cache;
};
/*
 * Up to len bytes at pos, cut at the size. Reads missing pages from disk, with read-ahead when
 * `ahead` pages are asked for. No lock held; waits for I/O and for frames. ret is valid on 0 only.
 * -EIO, -ENOMEM (also for more pages than the cache could hold at once).
 */
int slu_read(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pos, uint64_t len,
	     unsigned int ahead, struct slu_read_vec *ret);
void slu_read_done(struct slu_read_vec *v);

/* ------------------------------------------------------------------ truncate and punch: pages */

/*
 * Takes blocks and reservations out of [*pos, end), whole blocks, as many as one change may, and moves
 * *pos behind what was done. 0: all; 1: there is more; an error or -EAGAIN with need: none of it.
 */
typedef int slu_remove_fn(void *arg, uint64_t *pos, uint64_t end, struct slu_need *need);
/*
 * Punch and zero-range, with as->lock exclusive: zeroes the parts of partial pages at the edges of
 * [*pos, *end) (in a fresh frame, published dirty where the block has data), then calls remove for
 * whole blocks and drops the pages of those that it has done. *pos and *end become what is left to do.
 * 1: more of the same. Pages under writeback in the range must end first, partial pages on MAPPED
 * blocks must be read first, and remove may have to wait: -EAGAIN with need, and the lock may be
 * dropped. Zeroed edges inside the size are dirty pages afterwards. frames are taken from the need as
 * well. Other errors: -EIO (an edge cannot be read), -ENOMEM, what remove says.
 */
int slu_pages_remove(struct slu_aspace *as, struct slu_blockio *bio, uint64_t *pos, uint64_t *end,
		     slu_remove_fn *remove, void *arg, struct slu_need *need);
/*
 * Truncate: the same to the end of the file, with set_size (NULL: none) called between all that may
 * fail and all that changes something. If it fails, with -EAGAIN or for good, nothing has changed.
 * What lies behind pos in its page is zeroed in memory alone, for the size moves there.
 */
int slu_pages_truncate(struct slu_aspace *as, struct slu_blockio *bio, uint64_t pos,
		       int (*set_size)(void *arg, struct slu_need *need), void *arg,
		       struct slu_need *need);
/*
 * Before the size grows from `old`: the bytes from old to the end of its page read as zeros (the
 * block's bytes beyond EOF mean nothing on disk): its page is dirty afterwards if it has a block.
 * as->lock exclusive; -EAGAIN with need, -EIO, -ENOMEM. slu_write does this by itself.
 */
int slu_pages_zero_tail(struct slu_aspace *as, struct slu_blockio *bio, uint64_t old,
			struct slu_need *need);

/* Counters: struct slu_write_stats, slu_cache_write_stats() in cache.h. */

#endif
