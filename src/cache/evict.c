/* SPDX-License-Identifier: MIT */
/*
 * Eviction: second chance over the descriptors.
 *
 * Called by claims that find too few free frames, by any thread, under any lock but a leaf. Takes
 * stripe locks and as->tags, one at a time. Takes clean pages alone that nobody refers to and
 * nobody has locked; never waits and never starts I/O.
 *
 * A page that was read since the hand passed gets another round (ACCESSED). Publishing does not set
 * the bit: after a sequential write the pages that have been written out are the first to go, since
 * the kernel has its own copy of them.
 */
#include "cache_private.h"

#define EVICT_BATCH 64

/* Taken out of the hash, still in the list of their owner. */
struct evict_batch {
	struct slu_aspace *as;
	struct slu_page *pages[EVICT_BATCH];
	uint32_t n;
};

static void batch_finish(struct slu_cache *c, struct evict_batch *b)
{
	struct slu_aspace *as = b->as;

	if (!b->n)
		return;
	slu_stress_point("evict.in_hand");
	/*
	 * Nobody else takes these pages off the list, and the owner's end (slu_aspace_fini) waits
	 * for an empty one. So as lives until here; after this section it is not touched.
	 */
	slu_mutex_lock(&as->tags);
	for (uint32_t i = 0; i < b->n; i++)
		list_del(as, b->pages[i]);
	if (as->nwaiters)
		slu_cond_broadcast(&as->wait);
	slu_mutex_unlock(&as->tags);
	for (uint32_t i = 0; i < b->n; i++)
		slu_page_put(c, b->pages[i]);
	atomic_fetch_add_explicit(&c->stats.evictions, b->n, memory_order_relaxed);
	b->n = 0;
}

static bool evictable(uint32_t state)
{
	return (state & (SLU_PAGE_LOCKED | SLU_PAGE_READING | SLU_PAGE_DIRTY | SLU_PAGE_WRITEBACK |
			 SLU_PAGE_GONE)) == 0;
}

/* Unhashes the page if it is still what the hand saw. Returns its owner, or NULL. */
static struct slu_aspace *evict_one(struct slu_cache *c, struct slu_page *page, uint64_t ino)
{
	uint64_t pgidx = slu_page_index(page);
	uint32_t bucket = bucket_of(c, ino, pgidx);
	struct slu_mutex *stripe = stripe_of(c, bucket);
	struct slu_aspace *as = NULL;
	uint32_t none = 0;

	slu_mutex_lock(stripe);
	/* In this chain under this lock: then it is that page, whatever was read before. */
	if (hash_find(c, bucket, ino, pgidx) == page && evictable(slu_page_state(page)) &&
	    atomic_compare_exchange_strong_explicit(&page->refs, &none, SLU_PAGE_DEAD | 1,
						    memory_order_acq_rel, memory_order_relaxed)) {
		hash_remove(c, bucket, page);
		page_change(page, SLU_PAGE_GONE, 0);
		as = c->owners[page_number(c, page)];
	}
	slu_mutex_unlock(stripe);
	return as;
}

uint32_t cache_evict(struct slu_cache *c, uint32_t want)
{
	struct evict_batch batch = {.n = 0};
	uint32_t evicted = 0;

	/* Twice round: once for the second chance, once for those that had theirs. */
	for (uint32_t seen = 0; evicted < want && seen < 2 * c->nframes; seen++) {
		uint32_t i = atomic_fetch_add_explicit(&c->hand, 1, memory_order_relaxed);
		struct slu_page *page = page_at(c, i % c->nframes);
		uint64_t ino = atomic_load_explicit(&page->ino, memory_order_acquire);
		uint32_t state = slu_page_state(page);
		struct slu_aspace *as;

		/* Nothing but dirty pages: not worth walking over them. */
		if ((seen & 1023) == 1023 &&
		    atomic_load_explicit(&c->stats.pages, memory_order_relaxed) <=
			    atomic_load_explicit(&c->stats.dirty, memory_order_relaxed))
			break;
		if (!ino || !evictable(state) ||
		    atomic_load_explicit(&page->refs, memory_order_relaxed))
			continue;
		if (state & SLU_PAGE_ACCESSED) {
			atomic_fetch_and_explicit(&page->state, ~(uint32_t)SLU_PAGE_ACCESSED,
						  memory_order_relaxed);
			continue;
		}
		as = evict_one(c, page, ino);
		if (!as)
			continue;
		if (batch.n && (batch.as != as || batch.n == EVICT_BATCH))
			batch_finish(c, &batch);
		batch.as = as;
		batch.pages[batch.n++] = page;
		evicted++;
	}
	batch_finish(c, &batch);
	return evicted;
}
