/* SPDX-License-Identifier: MIT */
/*
 * The ring of ring.h. Takes its own lock and no other; must never wait.
 */
#include "sluice/ring.h"
#include <string.h>

int slu_ring_init(struct slu_ring *r, uint32_t nslots, uint32_t nreserved, size_t slot_size,
		  void (*wake)(void *ctx), void *ctx)
{
	slu_assert(nslots && !(nslots & (nslots - 1)) && nreserved < nslots);
	*r = (struct slu_ring){
		.nslots = nslots,
		.nreserved = nreserved,
		.slot_size = slot_size,
		.slots = slu_calloc(nslots, slot_size),
		.lost_before = slu_calloc(nslots, sizeof(*r->lost_before)),
		.wake = wake,
		.ctx = ctx,
	};
	if (!r->slots || !r->lost_before) {
		slu_free(r->slots);
		slu_free(r->lost_before);
		return -ENOMEM;
	}
	slu_mutex_init(&r->lock, SLU_RANK_LEAF, 1, "ring");
	return 0;
}

void slu_ring_fini(struct slu_ring *r)
{
	slu_mutex_fini(&r->lock);
	slu_free(r->lost_before);
	slu_free(r->slots);
}

/* ------------------------------------------------------------------ one slot, lock held */

static void put(struct slu_ring *r, const void *slot) SLU_REQUIRES(r->lock)
{
	uint32_t i = r->head & (r->nslots - 1);
	bool was_empty = slu_ring_empty(r->head, r->tail);

	memcpy(r->slots + i * r->slot_size, slot, r->slot_size);
	r->lost_before[i] = r->lost;
	r->lost = 0;
	r->head++;
	if (was_empty && r->wake)
		r->wake(r->ctx);
}

static bool get(struct slu_ring *r, void *slot, uint64_t *ret_lost) SLU_REQUIRES(r->lock)
{
	uint32_t i = r->tail & (r->nslots - 1);

	if (slu_ring_empty(r->head, r->tail)) {
		*ret_lost = r->lost;
		r->lost = 0;
		return false;
	}
	memcpy(slot, r->slots + i * r->slot_size, r->slot_size);
	*ret_lost = r->lost_before[i];
	r->tail++;
	return true;
}

/* ------------------------------------------------------------------ writing */

bool slu_ring_post(struct slu_ring *r, const void *slot, bool critical)
{
	bool room;

	slu_mutex_lock(&r->lock);
	room = !slu_ring_full(r->head, r->tail, critical ? r->nslots : r->nslots - r->nreserved);
	if (room) {
		put(r, slot);
	} else {
		r->lost++;
		r->total_lost++;
	}
	slu_mutex_unlock(&r->lock);
	return room;
}

/* ------------------------------------------------------------------ reading */

bool slu_ring_take(struct slu_ring *r, void *slot, uint64_t *ret_lost)
{
	bool got;

	slu_mutex_lock(&r->lock);
	got = get(r, slot, ret_lost);
	slu_mutex_unlock(&r->lock);
	return got;
}

/* ------------------------------------------------------------------ looking */

uint32_t slu_ring_used(struct slu_ring *r)
{
	uint32_t used;

	slu_mutex_lock(&r->lock);
	used = slu_ring_occupancy(r->head, r->tail);
	slu_mutex_unlock(&r->lock);
	return used;
}

uint64_t slu_ring_total_lost(struct slu_ring *r)
{
	uint64_t lost;

	slu_mutex_lock(&r->lock);
	lost = r->total_lost;
	slu_mutex_unlock(&r->lock);
	return lost;
}
