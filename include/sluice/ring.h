/* SPDX-License-Identifier: MIT */
/*
 * ring: a bounded queue of slots of one size, between threads.
 *
 * The shape is that of Linux's pipe ring (since 5.5, with slots kept back as its watch queues have
 * them): two indices that are never brought back into range, a power-of-two number of slots, and
 * distances by subtraction, so that the wrap at 2^32 needs no care. Some slots can be kept back for
 * what is critical, so that a slow reader makes nobody wait and yet loses no critical slot before
 * the others have filled the ring. What finds no room is counted, and the reader is told how much
 * was lost and where.
 *
 * Nobody waits in here. The reader is woken when the ring stops being empty, and only then: so it
 * takes all that there is before it waits again, and finding nothing means nothing. Any number of
 * threads may write and read. The ring's lock is a leaf, and may be taken under another leaf.
 */
#ifndef SLUICE_RING_H
#define SLUICE_RING_H

#include "sluice/base.h"

static inline uint32_t slu_ring_occupancy(uint32_t head, uint32_t tail)
{
	return head - tail;
}
static inline bool slu_ring_empty(uint32_t head, uint32_t tail)
{
	return head == tail;
}
/* limit: slots that may be used. */
static inline bool slu_ring_full(uint32_t head, uint32_t tail, uint32_t limit)
{
	return slu_ring_occupancy(head, tail) >= limit;
}

struct slu_ring {
	struct slu_mutex lock; /* leaf, order 1: everything below */
	uint32_t head;         /* the slot to be written next */
	uint32_t tail;         /* the slot to be read next */
	uint32_t nslots, nreserved;
	size_t slot_size; /* bytes */
	unsigned char *slots;
	uint64_t *lost_before; /* by slot: what was lost between it and the one before */
	uint64_t lost;         /* since the last slot that was written */
	uint64_t total_lost;
	/* Called with the lock held when the ring stops being empty. Must not block. NULL: none. */
	void (*wake)(void *ctx);
	void *ctx;
};

/*
 * nslots: a power of two; nreserved < nslots of them are for what is critical. wake and ctx as
 * above. -ENOMEM.
 */
int slu_ring_init(struct slu_ring *r, uint32_t nslots, uint32_t nreserved, size_t slot_size,
		  void (*wake)(void *ctx), void *ctx);
/* Nobody uses it any more. What is in it is gone. */
void slu_ring_fini(struct slu_ring *r);

/* Never waits. False: no room, which is counted. May be called under any lock but a ring's. */
bool slu_ring_post(struct slu_ring *r, const void *slot, bool critical);
/*
 * Takes the oldest slot; false: there is none. Never waits. *ret_lost, in either case: how many
 * found no room between the slot taken before and this one (or now); each is told once.
 */
bool slu_ring_take(struct slu_ring *r, void *slot, uint64_t *ret_lost);

/* A moment's view. */
uint32_t slu_ring_used(struct slu_ring *r);
uint64_t slu_ring_total_lost(struct slu_ring *r);

#endif
