/* SPDX-License-Identifier: MIT */
/*
 * What the files of the write path share.
 *
 *	write.c		slu_write: one segment after the other, and every wait between them
 *	segment.c	one segment, under the inode's lock: map, reserve, copy, publish, finish
 *	read.c		slu_read, reading a page in for the others
 *	remove.c	truncate and punch: pages
 *	source.c	where bytes come from
 */
#ifndef SLU_WRITE_PRIVATE_H
#define SLU_WRITE_PRIVATE_H

#include "sluice/write.h"

/*
 * The most pages of one segment: a request of 1 MiB that starts in the middle of a page, and some.
 */
#define SEGMENT_PAGES 260u
#define STAGE_PAGES   16u

/* One call of slu_write. */
struct write_op {
	struct slu_aspace *as;
	struct slu_blockio *bio;
	struct slu_source *src;
	struct slu_write_stats *stats;
	unsigned int flags; /* SLU_WRITE_* */
	uint32_t max_pages; /* of a segment */
	uint64_t pos;       /* the next byte */
	uint64_t left;      /* bytes to go */
	uint64_t done;
	struct slu_frames frames;
	struct slu_need need; /* after -EAGAIN */
	bool short_copy;      /* the source had less ready than was asked for */
	/*
	 * Bytes that the source has handed over and that could not be published, since the rest of
	 * their page has to be read first. They come before whatever the source gives next.
	 */
	uint32_t carry; /* frame, owned; SLU_FRAME_NONE: nothing */
	uint32_t carry_off, carry_len;
	int source_error; /* the source has ended; what is carried is still to be written */
};

/*
 * One segment at op->pos; as->lock is held exclusive. 0 with op->pos, left and done moved on
 * (op->short_copy: up to what was ready); -EAGAIN with op->need; or an error with nothing changed.
 */
int segment_write(struct write_op *op);

/* What a segment needs of the ticket beside its pages: one for a carried page, one to spare. */
#define SEGMENT_SPARE_FRAMES 2u

/*
 * Fills in need: reads the page in, or waits for the read that is under way; no_enomem: waits for
 * memory too. Returns -EAGAIN.
 */
int need_page(struct slu_need *need, struct slu_aspace *as, struct slu_blockio *bio, uint64_t pgidx,
	      bool no_enomem);

/* slu_pages_zero_tail with a ticket that may have the room for it already. */
int zero_tail(struct slu_aspace *as, struct slu_blockio *bio, uint64_t old, struct slu_frames *fr,
	      struct slu_need *need);

/* Marks pages dirty and tells writeback; the arguments of slu_pages_set_dirty. */
void pages_dirty(struct slu_aspace *as, struct slu_frames *fr, struct slu_page **pages, uint32_t n,
		 uint64_t pos, uint64_t end, uint64_t new_size);

#endif
