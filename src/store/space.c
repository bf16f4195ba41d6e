/* SPDX-License-Identifier: MIT */
/*
 * How many blocks there are to give away, and giving them away: reserve, take, own, untake, statfs.
 *
 * Everything under space_lock; slu_space_stat reads atomics alone.
 *
 * The sum. All sizes in blocks:
 *
 *	capacity = nblocks - superblocks - kept_back
 *	free	 = capacity - data - reserved - taken - records
 *	records	 = record bytes / RECORD_BYTES_PER_NODE, rounded up
 *
 * `free` depends on the contents alone: neither on the shape of the tree (nodes are charged at the
 * fill that they are guaranteed to have, see tree_change.c) nor on the past (what is pending counts
 * as free; one space record for each chunk is kept back from the start, be it there or not).
 *
 * Why the blocks kept back suffice. Let W be the most nodes that the open transaction and the one
 * being committed together make, copy or drop: max_nodes, which tickets keep to, and for the space
 * records as many nodes as these can fill, and a few. Let N be the nodes of the open tree; by the
 * guaranteed fill, N <= records + space_nodes + 2 per level. A commit needs a free block for each
 * node that the transaction made (g) or copied (c). Still in use are the tree that is on disk,
 * which has N - g + f nodes if the transaction dropped f, and what the transaction before it freed,
 * at most W:
 *
 *	(N - g + f) + W + (g + c)  =  N + W + f + c  <=  N + 2 W
 *
 * So besides data, reserved, taken, pending data and records there must be 2 W + space_nodes + 2
 * per level, and what was deferred. If a commit fails, its transaction goes back into the open one;
 * W counts both, so the sum is the same. Data that is pending is neither free nor owned for a
 * while, so a reservation is admitted only if it fits with it too; if not, it waits for a commit.
 *
 * The pool is kept back besides, for growth that must not fail: records that a reservation or a
 * ticket may need at worst, and extents that are split when a write goes into unwritten space.
 * These are counted against capacity + pool, and do not show. However extents are split, there is
 * at most one for each block of data; the pool holds a record for each block of the volume, so it
 * does not run out.
 */
#include "store_private.h"

/* 1/3 of a leaf's body, less 1/40 for the inner nodes above (1/40 + 1/1600 + …  < 1/39). */
#define RECORD_BYTES_PER_NODE 1300u
_Static_assert(RECORD_BYTES_PER_NODE <= LEAF_MIN_FILL * (INNER_MIN_COUNT - 1) / INNER_MIN_COUNT,
	       "what nodes are charged at must be what they are guaranteed to hold");

/* What an extent's record takes. */
#define EXTENT_RECORD_BYTES (SLU_RECORD_OVERHEAD + sizeof(struct slu_disk_extent))
/* Nodes that writing the space records may touch beyond those that they fill. */
#define SPACE_NODES_SLACK 64u
/* Of the pool, for the claims of tickets. */
#define POOL_SLACK 128u

/* How many chunks with space in them are looked at for a run of the wanted length. */
#define TAKE_CHUNKS 16

uint64_t space_record_blocks(uint64_t bytes)
{
	return (bytes + RECORD_BYTES_PER_NODE - 1) / RECORD_BYTES_PER_NODE;
}

/*
 * The most nodes that nops operations make, copy or drop in a tree of nnodes nodes with `top`
 * levels above the leaves. Each copies its leaf, and splits it or draws in a sibling. A level above
 * has at most 1/40 of the nodes below it (and two, see the minimum fill); of these at most 1/121
 * can be full, and each must be for one to split.
 */
uint64_t space_claim_nodes(uint64_t nops, uint64_t nnodes, unsigned int top)
{
	uint64_t width = nnodes, claim = 2 * nops;

	for (unsigned int level = 1; level <= top; level++) {
		uint64_t full = width / SLU_INNER_MAX + 2;

		width = width / INNER_MIN_COUNT + 2;
		claim += slu_min(2 * nops, width) + slu_min(nops, full);
	}
	return claim + 2; /* a new root, and an old one */
}

uint64_t space_max_nodes(uint64_t nblocks)
{
	unsigned int top = 1;
	uint64_t most;

	for (uint64_t width = nblocks; width > 1; width /= INNER_MIN_COUNT)
		top++;
	most = space_claim_nodes(SLU_BATCH_MAX_RECORDS, nblocks, top);
	return slu_max(most, slu_min(nblocks / 128, 8192u));
}

void space_set_size(struct slu_store *store, uint64_t nblocks)
{
	struct space *sp = &store->space;
	uint64_t max_nodes = space_max_nodes(nblocks), space_nodes, most_space, kept_back, supers;

	sp->nblocks = nblocks;
	sp->spare = slu_super_spare(&store->super, nblocks);
	supers = sp->spare ? 3 : 2;
	sp->nchunks = (nblocks + SLU_CHUNK_BLOCKS - 1) / SLU_CHUNK_BLOCKS;
	sp->pool = space_record_blocks(nblocks * EXTENT_RECORD_BYTES) + POOL_SLACK;
	space_nodes = space_record_blocks(sp->nchunks * (SLU_RECORD_OVERHEAD + SLU_CHUNK_BYTES));
	most_space = space_nodes + SPACE_NODES_SLACK;
	kept_back = 2 * (max_nodes + most_space) + space_nodes + 2 * SLU_TREE_MAX_DEPTH +
		    slu_min(most_space, slu_array_size(store->open.deferred)) + sp->pool;
	slu_assert(kept_back + supers < nblocks);
	sp->capacity = nblocks - supers - kept_back;
	store->max_nodes = max_nodes;
}

int space_init(struct slu_store *store, uint64_t nblocks)
{
	struct space *sp = &store->space;

	space_set_size(store, nblocks);
	/* Nodes begin in the first chunk, data after it, or in its second half if it is the only
	 * one. */
	sp->data_cursor = sp->nchunks > 1 ? SLU_CHUNK_BLOCKS : nblocks / 2;
	return chunk_cache_init(&sp->chunks, sp->nchunks, store->cache.limit * SLU_BLOCK_SIZE / 2);
}

void space_fini(struct slu_store *store)
{
	chunk_cache_fini(&store->space.chunks);
}

/* ------------------------------------------------------------------ admission */

/* Waits until one more commit is through, also if there is nothing to commit: blocks come free
 * then. */
static int space_commit_wait(struct slu_need *need)
{
	struct slu_store *store = need->owner;

	slu_mutex_lock(&store->lock);
	if (store->open.id == need->arg[0] && !store_readonly(store))
		store->commit.force = true;
	slu_mutex_unlock(&store->lock);
	return slu_store_commit(store, need->arg[0], false);
}

void space_need_commit(struct slu_store *store, struct slu_need *need)
{
	need->wait = space_commit_wait;
	need->what = "a commit that gives back blocks";
	need->owner = store;
	need->arg[0] = slu_store_txid(store);
	need->slow = true;
}

static uint64_t space_in_use(const struct space *sp)
{
	return stat_get(&sp->data_blocks) + stat_get(&sp->reserved) + stat_get(&sp->taken) +
	       sp->bad_blocks;
}

int space_admit(struct slu_store *store, uint64_t nblocks, uint64_t bytes, bool kept_back,
		uint64_t hidden_records, struct slu_need *need)
{
	struct space *sp = &store->space;
	uint64_t shown = stat_get(&sp->record_bytes) + bytes, hidden;
	uint64_t in_use = space_in_use(sp) + nblocks;

	if (kept_back)
		return 0;
	if (in_use + space_record_blocks(shown) > sp->capacity)
		return -ENOSPC;
	hidden = sp->ticket_bytes + sp->kept_bytes +
		 (sp->reserved_records + hidden_records) * EXTENT_RECORD_BYTES;
	in_use += space_record_blocks(shown + hidden);
	if (in_use > sp->capacity + sp->pool)
		return -ENOSPC;
	if (in_use + stat_get(&sp->pending_data) > sp->capacity + sp->pool) {
		space_need_commit(store, need);
		return -EAGAIN;
	}
	return host_space_admit(store, nblocks, need);
}

static int space_reserve(struct slu_store *store, struct slu_reservation *r, uint64_t nblocks,
			 uint64_t nrecords, struct slu_need *need)
{
	struct space *sp = &store->space;
	int err;

	if (store_readonly(store))
		return -EROFS;
	/* Records alone are of a write into blocks that it owns already: it cannot run out. */
	err = space_admit(store, nblocks, 0, nblocks == 0, nrecords, need);
	if (err)
		return err;
	r->blocks += nblocks;
	r->records += nrecords;
	stat_add(&sp->reserved, nblocks);
	sp->reserved_records += nrecords;
	return 0;
}

int slu_space_reserve(struct slu_store *store, struct slu_reservation *r, uint64_t nblocks,
		      uint64_t nrecords, struct slu_need *need)
{
	struct slu_need own = {0};
	int err;

	if (!need)
		slu_assert_no_locks("a reservation");
	do {
		slu_mutex_lock(&store->space_lock);
		err = space_reserve(store, r, nblocks, nrecords, need ? need : &own);
		slu_mutex_unlock(&store->space_lock);
	} while (!need && err == -EAGAIN && !(err = slu_need_wait(&own)));
	return err;
}

void slu_space_unreserve(struct slu_store *store, struct slu_reservation *r, uint64_t nblocks,
			 uint64_t nrecords)
{
	slu_mutex_lock(&store->space_lock);
	slu_assert(nblocks <= r->blocks && nrecords <= r->records);
	r->blocks -= nblocks;
	r->records -= nrecords;
	stat_sub(&store->space.reserved, nblocks);
	store->space.reserved_records -= nrecords;
	slu_mutex_unlock(&store->space_lock);
}

/* ------------------------------------------------------------------ take */

struct take {
	struct chunk *chunk;
	unsigned int bit, n;
};

static uint64_t take_blkno(const struct take *take)
{
	return take->chunk->index * SLU_CHUNK_BLOCKS + take->bit;
}

/* The longest run up to `want` in the chunk, the first of that length from `from` on. */
static void take_look(struct chunk *c, unsigned int from, unsigned int want, struct take *best)
{
	unsigned int bit, n;

	for (unsigned int at = from; (n = chunk_find_run(c, at, want, &bit)); at = bit + n) {
		if (n > best->n)
			*best = (struct take){c, bit, n};
		if (best->n >= want)
			return;
	}
}

enum take_where {
	TAKE_APART,  /* not where the nodes go, so that neither breaks the other's runs */
	TAKE_BACKED, /* wherever the host has backed it */
	TAKE_ANY,
};

/* Looks through the chunks from `goal` on. */
static int take_search(struct slu_store *store, uint64_t goal, unsigned int want,
		       enum take_where where, struct take *best, struct slu_need *need)
{
	struct space *sp = &store->space;
	uint64_t first = goal / SLU_CHUNK_BLOCKS;
	unsigned int looked = 0;

	for (uint64_t i = 0; i < sp->nchunks && looked < TAKE_CHUNKS; i++) {
		uint64_t index = (first + i) % sp->nchunks;
		unsigned int from = i ? 0 : goal % SLU_CHUNK_BLOCKS;
		struct chunk *c;
		int err;

		if (chunk_known_free(&sp->chunks, index) == 0)
			continue;
		if (index == sp->node_chunk && where == TAKE_APART)
			continue;
		if (where != TAKE_ANY && !host_space_usable(store, index))
			continue;
		err = chunk_load(store, index, &c, need);
		if (err)
			return err;
		if (!c->nfree)
			continue;
		looked++;
		if (from && !bitmap_get(c->busy, from)) {
			/* Right at the goal: whatever goes on there is best. */
			best->chunk = c;
			best->n = chunk_find_run(c, from, want, &best->bit);
			return 0;
		}
		take_look(c, from, want, best);
		if (from && best->n < want)
			take_look(c, 0, want, best);
		if (best->n >= want)
			return 0;
	}
	return 0;
}

static int space_take(struct slu_store *store, struct slu_reservation *r, uint64_t goal,
		      unsigned int want, uint64_t *ret_blkno, uint64_t *ret_nblocks,
		      struct slu_need *need)
{
	struct space *sp = &store->space;
	struct take best = {0};
	int err;

	if (store_readonly(store))
		return -EROFS;
	if (goal < 2 || goal >= sp->nblocks)
		goal = sp->data_cursor < sp->nblocks ? sp->data_cursor : 2;
	for (enum take_where where = TAKE_APART; where <= TAKE_ANY && !best.n; where++) {
		err = take_search(store, goal, want, where, &best, need);
		if (err)
			return err;
	}
	if (!best.n) {
		/* Promised blocks may be pending still; else damage has taken them. */
		if (stat_get(&sp->pending_data) || store->commit.previous.count ||
		    store->commit.flushing.count) {
			space_need_commit(store, need);
			return -EAGAIN;
		}
		slu_store_fail(store, -EIO, "no usable free space is left");
		return -EIO;
	}
	chunk_mark_busy(store, best.chunk, best.bit, best.n);
	best.chunk->npinned += best.n;
	chunk_count(store, best.chunk);
	r->blocks -= best.n;
	stat_sub(&sp->reserved, best.n);
	stat_add(&sp->taken, best.n);
	sp->data_cursor = take_blkno(&best) + best.n;
	*ret_blkno = take_blkno(&best);
	*ret_nblocks = best.n;
	return 0;
}

int slu_space_take(struct slu_store *store, struct slu_reservation *r, uint64_t goal, uint64_t want,
		   uint64_t *ret_blkno, uint64_t *ret_nblocks, struct slu_need *need)
{
	struct slu_need own = {0};
	int err;

	if (!need)
		slu_assert_no_locks("taking blocks");
	do {
		slu_mutex_lock(&store->space_lock);
		slu_assert(want && want <= r->blocks);
		err = space_take(store, r, goal, (unsigned int)slu_min(want, SLU_CHUNK_BLOCKS),
				 ret_blkno, ret_nblocks, need ? need : &own);
		slu_mutex_unlock(&store->space_lock);
	} while (!need && err == -EAGAIN && !(err = slu_need_wait(&own)));
	return err;
}

void slu_space_untake(struct slu_store *store, struct slu_reservation *r, uint64_t blkno,
		      uint64_t nblocks)
{
	struct space *sp = &store->space;

	slu_mutex_lock(&store->space_lock);
	stat_sub(&sp->taken, nblocks);
	if (r) {
		r->blocks += nblocks;
		stat_add(&sp->reserved, nblocks);
	}
	while (nblocks) {
		unsigned int bit = blkno % SLU_CHUNK_BLOCKS;
		unsigned int n = (unsigned int)slu_min(nblocks, SLU_CHUNK_BLOCKS - bit);
		struct chunk *c = chunk_find(store, blkno / SLU_CHUNK_BLOCKS);

		slu_assert(c && c->npinned >= n && bitmap_all_clear(c->used, bit, n));
		chunk_clear_busy(store, c, bit, n);
		c->npinned -= n;
		chunk_count(store, c);
		blkno += n;
		nblocks -= n;
	}
	slu_mutex_unlock(&store->space_lock);
}

void space_own(struct slu_store *store, uint64_t blkno, uint64_t nblocks)
{
	while (nblocks) {
		unsigned int bit = blkno % SLU_CHUNK_BLOCKS;
		unsigned int n = (unsigned int)slu_min(nblocks, SLU_CHUNK_BLOCKS - bit);
		struct chunk *c = chunk_find(store, blkno / SLU_CHUNK_BLOCKS);

		slu_assert(c && c->npinned >= n && bitmap_all_clear(c->used, bit, n) &&
			   bitmap_all_set(c->busy, bit, n));
		bitmap_set(c->used, bit, n);
		c->npinned -= n;
		chunk_changed(store, c);
		blkno += n;
		nblocks -= n;
	}
}

/* ------------------------------------------------------------------ statfs and size */

void slu_space_stat(struct slu_store *store, struct slu_space_stat *ret)
{
	struct space *sp = &store->space;
	uint64_t used = stat_get(&sp->data_blocks) + stat_get(&sp->reserved) +
			stat_get(&sp->taken) + space_record_blocks(stat_get(&sp->record_bytes));
	uint64_t capacity = atomic_load_explicit(&sp->capacity, memory_order_relaxed);

	*ret = (struct slu_space_stat){
		.nblocks = capacity,
		.free = used < capacity ? capacity - used : 0,
		.reserved = stat_get(&sp->reserved),
		.pending = stat_get(&sp->pending_data),
		.ninodes = stat_get(&sp->ninodes),
		.node_blocks = stat_get(&sp->node_blocks),
		.data_blocks = stat_get(&sp->data_blocks),
	};
}

/*
 * c: the last chunk as it was, which the volume's end may have cut short. What it has now is not
 * backed by the host, even if the rest of it was.
 */
static void space_grow_chunk(struct slu_store *store, struct chunk *c, uint64_t old)
{
	uint64_t end = slu_min(store->space.nblocks, (c->index + 1) * SLU_CHUNK_BLOCKS);

	if (end <= old)
		return;
	chunk_set_not_backed(store, c);
	if (c->bad)
		return;
	chunk_clear_busy(store, c, old % SLU_CHUNK_BLOCKS, (unsigned int)(end - old));
	chunk_count(store, c);
}

/*
 * The old spare superblock's block becomes free as any other one does: when two commits have passed.
 * c: its chunk, loaded when the volume still ended there.
 */
static void space_move_spare(struct slu_store *store, struct chunk *c, uint64_t old_spare)
{
	uint64_t spare = store->space.spare;

	if (c->bad)
		return;
	if (spare / SLU_CHUNK_BLOCKS == c->index) {
		chunk_mark_busy(store, c, spare % SLU_CHUNK_BLOCKS, 1);
		bitmap_set(c->used, spare % SLU_CHUNK_BLOCKS, 1);
	}
	chunk_changed(store, c);
	freed_list_add(&store->open.freed, old_spare, 1, true);
}

/* Both locks held. 0, -EAGAIN with need, or an error; nothing has changed then. */
static int space_grow(struct slu_store *store, uint64_t nblocks, struct slu_need *need)
{
	struct space *sp = &store->space;
	uint64_t old = sp->nblocks, old_spare = sp->spare, old_capacity = sp->capacity;
	struct chunk *c;
	int err;

	err = chunk_cache_resize(&sp->chunks, (nblocks + SLU_CHUNK_BLOCKS - 1) / SLU_CHUNK_BLOCKS);
	if (!err)
		err = freed_list_reserve(&store->open.freed, 1);
	if (!err)
		err = chunk_load_locked(store, (old - 1) / SLU_CHUNK_BLOCKS, &c, need);
	if (err)
		return err;
	space_set_size(store, nblocks);
	if (sp->capacity < old_capacity) {
		/* What is kept back grows in steps, and what was promised has to stay. */
		space_set_size(store, old);
		return -EINVAL;
	}
	space_grow_chunk(store, c, old);
	if (old_spare)
		space_move_spare(store, c, old_spare);
	slu_blockio_expect(store->bio, nblocks);
	store->commit.force = true;
	txn_touch(store);
	return 0;
}

/* Whether the volume may get that size. 1: it has it. */
static int space_may_grow(struct slu_store *store, uint64_t nblocks)
{
	uint64_t now;

	slu_mutex_lock(&store->space_lock);
	now = store->space.nblocks;
	slu_mutex_unlock(&store->space_lock);
	if (store_readonly(store))
		return -EROFS;
	if (nblocks < now || nblocks > slu_blockio_info(store->bio)->nblocks ||
	    nblocks > SLU_MAX_BLOCKS)
		return -EINVAL;
	return nblocks == now;
}

int slu_space_grow(struct slu_store *store, uint64_t nblocks)
{
	struct slu_need need;
	int err = space_may_grow(store, nblocks);

	slu_assert_no_locks("growing a volume");
	if (err)
		return slu_min(err, 0);
	err = super_write_spare(store, nblocks);
	if (err)
		return err;
	do {
		need = (struct slu_need){0};
		slu_mutex_lock(&store->space_lock);
		slu_mutex_lock(&store->lock);
		err = space_grow(store, nblocks, &need);
		slu_mutex_unlock(&store->lock);
		slu_mutex_unlock(&store->space_lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}
