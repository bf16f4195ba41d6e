/* SPDX-License-Identifier: MIT */
/*
 * The bitmaps of free space in memory, one struct per chunk of 4,096 blocks.
 *
 * All under space_lock; loading a chunk reads its record from the tree and so takes store->lock
 * inside. A chunk stays in memory while it knows more than its record: a change not yet written,
 * blocks taken or pending, nodes on their way to it. Others are idle and go, least recently used
 * first, when there are more than the limit. How many blocks are free in a chunk is remembered
 * after it is gone (two bytes each), so that a search for space loads a full chunk once.
 */
#include "store_private.h"

#define CHUNKS_LEAST     64
#define FULL_CHUNK_WORDS (SLU_CHUNK_BLOCKS / 64)
#define COUNT_BACKED     0x8000u /* in a count: the host has backed the chunk */

/* ------------------------------------------------------------------ bits */

/* The bits of [bit, bit + n) that lie in word w. */
static uint64_t word_mask(unsigned int w, unsigned int bit, unsigned int n)
{
	unsigned int lo = bit > w * 64 ? bit - w * 64 : 0;
	unsigned int hi = slu_min(bit + n - w * 64, 64u);

	return (hi == 64 ? ~0ull : (1ull << hi) - 1) & ~((1ull << lo) - 1);
}

#define for_each_word(w, bit, n) for (unsigned int w = (bit) / 64; w < ((bit) + (n) + 63) / 64; w++)

void bitmap_set(uint64_t *map, unsigned int bit, unsigned int n)
{
	for_each_word(w, bit, n) map[w] |= word_mask(w, bit, n);
}

void bitmap_clear(uint64_t *map, unsigned int bit, unsigned int n)
{
	for_each_word(w, bit, n) map[w] &= ~word_mask(w, bit, n);
}

bool bitmap_all_set(const uint64_t *map, unsigned int bit, unsigned int n)
{
	for_each_word(w, bit, n) if (~map[w] & word_mask(w, bit, n)) return false;
	return true;
}

bool bitmap_all_clear(const uint64_t *map, unsigned int bit, unsigned int n)
{
	for_each_word(w, bit, n) if (map[w] & word_mask(w, bit, n)) return false;
	return true;
}

/* The first bit from `bit` on that is set (or clear, with flip ~0); SLU_CHUNK_BLOCKS if none. */
static unsigned int bitmap_next(const uint64_t *map, unsigned int bit, uint64_t flip)
{
	for (unsigned int w = bit / 64; w < FULL_CHUNK_WORDS; w++) {
		uint64_t word = map[w] ^ flip;

		if (w == bit / 64)
			word &= ~0ull << (bit % 64);
		if (word)
			return w * 64 + (unsigned int)__builtin_ctzll(word);
	}
	return SLU_CHUNK_BLOCKS;
}

unsigned int chunk_find_run(const struct chunk *c, unsigned int from, unsigned int want,
			    unsigned int *ret_bit)
{
	unsigned int start = bitmap_next(c->busy, from, ~0ull);
	unsigned int end;

	if (start == SLU_CHUNK_BLOCKS)
		return 0;
	end = bitmap_next(c->busy, start, 0);
	*ret_bit = start;
	return slu_min(end - start, want);
}

void chunk_mark_busy(struct slu_store *store, struct chunk *c, unsigned int bit, unsigned int n)
{
	slu_assert(bitmap_all_clear(c->busy, bit, n) && c->nfree >= n);
	bitmap_set(c->busy, bit, n);
	c->nfree -= n;
	if (c->backed)
		store->space.host.free -= n;
}

void chunk_clear_busy(struct slu_store *store, struct chunk *c, unsigned int bit, unsigned int n)
{
	slu_assert(bitmap_all_set(c->busy, bit, n));
	bitmap_clear(c->busy, bit, n);
	c->nfree += n;
	if (c->backed)
		store->space.host.free += n;
}

/* ------------------------------------------------------------------ counts */

static uint64_t counts_tables(uint64_t nchunks)
{
	return (nchunks + (1u << COUNTS_SHIFT) - 1) >> COUNTS_SHIFT;
}

static uint16_t *count_slot(const struct chunk_cache *cc, uint64_t index)
{
	uint16_t *table = cc->counts[index >> COUNTS_SHIFT];

	return table ? &table[index & ((1u << COUNTS_SHIFT) - 1)] : NULL;
}

uint32_t chunk_known_free(const struct chunk_cache *cc, uint64_t index)
{
	const uint16_t *slot = count_slot(cc, index);

	return slot && (*slot & ~COUNT_BACKED) ? (*slot & ~COUNT_BACKED) - 1u : UINT32_MAX;
}

bool chunk_backed(const struct chunk_cache *cc, uint64_t index)
{
	const uint16_t *slot = count_slot(cc, index);

	return slot && *slot & COUNT_BACKED;
}

static void count_set(struct chunk_cache *cc, uint64_t index, unsigned int nfree)
{
	uint16_t **table = &cc->counts[index >> COUNTS_SHIFT];

	if (!*table)
		*table = slu_calloc(1u << COUNTS_SHIFT, sizeof(**table));
	if (*table) /* else it stays unknown, and is loaded again to be asked */
		*count_slot(cc, index) =
			(uint16_t)((*count_slot(cc, index) & COUNT_BACKED) | (nfree + 1));
}

int chunk_set_backed(struct slu_store *store, struct chunk *c)
{
	uint16_t *slot = count_slot(&store->space.chunks, c->index);

	if (!slot)
		return -ENOMEM;
	if (c->backed)
		return 0;
	*slot |= COUNT_BACKED;
	c->backed = true;
	store->space.host.free += c->nfree;
	store->space.host.backed_chunks++;
	return 0;
}

void chunk_set_not_backed(struct slu_store *store, struct chunk *c)
{
	if (!c->backed)
		return;
	*count_slot(&store->space.chunks, c->index) &= (uint16_t)~COUNT_BACKED;
	c->backed = false;
	store->space.host.free -= c->nfree;
	store->space.host.backed_chunks--;
}

/* ------------------------------------------------------------------ the cache */

int chunk_cache_init(struct chunk_cache *cc, uint64_t nchunks, size_t bytes)
{
	size_t size = 64;

	cc->limit = slu_max(bytes / sizeof(struct chunk), (size_t)CHUNKS_LEAST);
	while (size < cc->limit && size < nchunks)
		size *= 2;
	cc->mask = size - 1;
	cc->table = slu_calloc(size, sizeof(*cc->table));
	cc->ncounts = counts_tables(nchunks);
	cc->counts = slu_calloc(cc->ncounts, sizeof(*cc->counts));
	return cc->table && cc->counts ? 0 : -ENOMEM;
}

void chunk_cache_fini(struct chunk_cache *cc)
{
	for (size_t i = 0; cc->table && i <= cc->mask; i++) {
		struct chunk *c;

		while ((c = cc->table[i])) {
			cc->table[i] = c->hash_next;
			slu_free(c);
		}
	}
	for (uint64_t i = 0; cc->counts && i < cc->ncounts; i++)
		slu_free(cc->counts[i]);
	slu_free(cc->table);
	slu_free(cc->counts);
	memset(cc, 0, sizeof(*cc));
}

int chunk_cache_resize(struct chunk_cache *cc, uint64_t nchunks)
{
	uint64_t n = counts_tables(nchunks);
	uint16_t **bigger;

	if (n <= cc->ncounts)
		return 0;
	bigger = slu_calloc(n, sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	memcpy(bigger, cc->counts, cc->ncounts * sizeof(*bigger));
	slu_free(cc->counts);
	cc->counts = bigger;
	cc->ncounts = n;
	return 0;
}

static struct chunk **chunk_bucket(struct chunk_cache *cc, uint64_t index)
{
	return &cc->table[index & cc->mask];
}

static void idle_add(struct chunk_cache *cc, struct chunk *c)
{
	c->idle = true;
	c->next = NULL;
	c->prev = cc->idle_last;
	if (cc->idle_last)
		cc->idle_last->next = c;
	else
		cc->idle_first = c;
	cc->idle_last = c;
}

static void idle_del(struct chunk_cache *cc, struct chunk *c)
{
	c->idle = false;
	if (c->prev)
		c->prev->next = c->next;
	else
		cc->idle_first = c->next;
	if (c->next)
		c->next->prev = c->prev;
	else
		cc->idle_last = c->prev;
	c->prev = c->next = NULL;
}

/* Callers look at a few chunks before they choose one: those just asked for must not go. */
static void chunk_used(struct chunk_cache *cc, struct chunk *c)
{
	if (c->idle) {
		idle_del(cc, c);
		idle_add(cc, c);
	}
}

void chunk_count(struct slu_store *store, struct chunk *c)
{
	struct chunk_cache *cc = &store->space.chunks;
	bool idle = !c->changed && !c->npinned && !c->home;

	count_set(cc, c->index, c->nfree);
	if (c->idle)
		idle_del(cc, c);
	if (idle)
		idle_add(cc, c); /* at the end: just used */
}

void chunk_changed(struct slu_store *store, struct chunk *c)
{
	struct chunk_cache *cc = &store->space.chunks;

	slu_assert(!c->bad);
	if (!c->changed) {
		c->changed = true;
		c->changed_next = NULL;
		c->changed_prev = cc->changed_last;
		if (cc->changed_last)
			cc->changed_last->changed_next = c;
		else
			cc->changed_first = c;
		cc->changed_last = c;
	}
	chunk_count(store, c);
}

void chunk_unchanged(struct slu_store *store, struct chunk *c)
{
	struct chunk_cache *cc = &store->space.chunks;

	if (c->changed) {
		c->changed = false;
		if (c->changed_prev)
			c->changed_prev->changed_next = c->changed_next;
		else
			cc->changed_first = c->changed_next;
		if (c->changed_next)
			c->changed_next->changed_prev = c->changed_prev;
		else
			cc->changed_last = c->changed_prev;
		c->changed_prev = c->changed_next = NULL;
	}
	chunk_count(store, c);
}

struct chunk *chunk_find(struct slu_store *store, uint64_t index)
{
	struct chunk *c = *chunk_bucket(&store->space.chunks, index);

	while (c && c->index != index)
		c = c->hash_next;
	return c;
}

static void chunk_evict(struct chunk_cache *cc)
{
	while (cc->count >= cc->limit && cc->idle_first) {
		struct chunk *c = cc->idle_first, **p = chunk_bucket(cc, c->index);

		idle_del(cc, c);
		while (*p != c)
			p = &(*p)->hash_next;
		*p = c->hash_next;
		cc->count--;
		slu_free(c);
	}
}

/* ------------------------------------------------------------------ loading */

/* Takes the record's bits over; false if they cannot be. */
static bool chunk_parse(const struct space *sp, struct chunk *c, const void *value,
			unsigned int len)
{
	uint64_t past = slu_min(sp->nblocks - c->index * SLU_CHUNK_BLOCKS, SLU_CHUNK_BLOCKS);

	if (value && len != SLU_CHUNK_BYTES)
		return false;
	for (unsigned int w = 0; value && w < FULL_CHUNK_WORDS; w++)
		c->used[w] = slu_get_le64((const uint8_t *)value + w * 8);
	if (!bitmap_all_clear(c->used, (unsigned int)past, SLU_CHUNK_BLOCKS - (unsigned int)past))
		return false;
	/* The superblocks, whatever the record says. */
	if (c->index == 0)
		bitmap_set(c->used, 0, 2);
	if (sp->spare && c->index == sp->spare / SLU_CHUNK_BLOCKS)
		bitmap_set(c->used, sp->spare % SLU_CHUNK_BLOCKS, 1);
	memcpy(c->busy, c->used, sizeof(c->busy));
	bitmap_set(c->busy, (unsigned int)past, SLU_CHUNK_BLOCKS - (unsigned int)past);
	c->nfree = 0;
	for (unsigned int w = 0; w < FULL_CHUNK_WORDS; w++)
		c->nfree += 64 - (unsigned int)__builtin_popcountll(c->busy[w]);
	return true;
}

int chunk_load_locked(struct slu_store *store, uint64_t index, struct chunk **ret,
		      struct slu_need *need)
{
	struct chunk_cache *cc = &store->space.chunks;
	struct chunk *c = chunk_find(store, index);
	const void *value = NULL;
	unsigned int len = 0;
	int err;

	slu_assert(index < store->space.nchunks);
	if (c) {
		chunk_used(cc, c);
		*ret = c;
		return 0;
	}
	err = tree_get(store, &SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE, index), &value, &len, need);
	if (err && err != -ENOENT && err != -EIO)
		return err;
	c = slu_zalloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->index = index;
	c->backed = chunk_backed(cc, index);
	if (err == -EIO || !chunk_parse(&store->space, c, value, len)) {
		/* Out of use, rather than the end of everything. */
		c->bad = true;
		memset(c->used, 0xff, sizeof(c->used));
		memset(c->busy, 0xff, sizeof(c->busy));
		c->nfree = 0;
	}
	chunk_evict(cc);
	c->hash_next = *chunk_bucket(cc, index);
	*chunk_bucket(cc, index) = c;
	cc->count++;
	chunk_count(store, c);
	*ret = c;
	return 0;
}

int chunk_load(struct slu_store *store, uint64_t index, struct chunk **ret, struct slu_need *need)
{
	int err;

	*ret = chunk_find(store, index);
	if (*ret) {
		chunk_used(&store->space.chunks, *ret);
		return 0;
	}
	slu_mutex_lock(&store->lock);
	err = chunk_load_locked(store, index, ret, need);
	slu_mutex_unlock(&store->lock);
	return err;
}
