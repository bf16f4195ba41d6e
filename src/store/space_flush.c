/* SPDX-License-Identifier: MIT */
/*
 * What a commit does with space: bits of freed blocks are cleared, changed bitmaps become records,
 * nodes get their blocks, and blocks that nobody reaches any more come back.
 *
 * Called by freeze.c with both locks held. Writing a record changes nodes, which frees blocks,
 * which changes bitmaps: space_flush and space_prepare_homes are repeated until nothing changes any
 * more. This ends: each round either changes nothing or makes a node dirty that was not, and there
 * are only so many; and it ends soon, since nodes lie close together and the old blocks of the
 * nodes that it changes are put off to the next transaction (the superblock lists them). Then the
 * dirty nodes get blocks in chunks whose records are in dirty leaves already, so the records take
 * the last bits in place.
 */
#include "store_private.h"

/* A chunk that becomes the nodes' next one should have that much room for them. */
#define HOME_FREE 512u
#define HOME_LOOK 64u

static unsigned int home_first_bit(uint64_t chunk)
{
	return chunk ? 0 : SLU_NODES_FROM;
}

static void chunk_record(const struct chunk *c, uint8_t *buf)
{
	for (unsigned int w = 0; w < SLU_CHUNK_BLOCKS / 64; w++)
		slu_put_le64(buf + w * 8, c->used[w]);
}

static struct slu_key chunk_key(const struct chunk *c)
{
	return SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE, c->index);
}

/* ------------------------------------------------------------------ bitmaps to records */

static int flush_freed(struct slu_store *store, struct slu_need *need)
{
	struct txn *txn = &store->open;

	while (txn->freed_done < txn->freed.count) {
		const struct freed_range *r = &txn->freed.ranges[txn->freed_done];
		uint64_t blkno = r->blkno + txn->freed_blocks;
		unsigned int bit = blkno % SLU_CHUNK_BLOCKS;
		uint64_t left = r->nblocks - txn->freed_blocks;
		unsigned int n = (unsigned int)slu_min(left, SLU_CHUNK_BLOCKS - bit);
		struct chunk *c;
		int err;

		if (!left) {
			txn->freed_done++;
			txn->freed_blocks = 0;
			continue;
		}
		err = chunk_load_locked(store, blkno / SLU_CHUNK_BLOCKS, &c, need);
		if (err)
			return err;
		/* What the record of a bad chunk says of these blocks is lost; they stay in use. */
		if (!c->bad) {
			if (!bitmap_all_set(c->used, bit, n)) {
				store_fail_locked(store, -EIO, "a block was freed twice");
				return -EIO;
			}
			bitmap_clear(c->used, bit, n);
			c->npinned += n;
			chunk_changed(store, c);
		}
		txn->freed_blocks += n;
	}
	return 0;
}

static int flush_changed(struct slu_store *store, unsigned int *budget, struct slu_need *need)
{
	struct chunk *c;

	while ((c = store->space.chunks.changed_first)) {
		uint8_t buf[SLU_CHUNK_BYTES];
		struct slu_key key = chunk_key(c);
		int err;

		if (!(*budget)--) {
			*budget = 0;
			return 1;
		}
		chunk_record(c, buf);
		err = tree_put_one(store, &key, buf, sizeof(buf), need);
		if (err == -EIO) /* what is in use must not look free after the next mount */
			store_fail_locked(store, err, "a record of free space cannot be written");
		if (err)
			return err;
		chunk_unchanged(store, c);
	}
	return 0;
}

int space_flush(struct slu_store *store, unsigned int budget, struct slu_need *need)
{
	struct txn *txn = &store->open;
	int err = 0;

	txn->flushing_space = true;
	do {
		err = flush_freed(store, need);
		if (!err)
			err = flush_changed(store, &budget, need);
	} while (!err && txn->freed_done < txn->freed.count);
	txn->flushing_space = false;
	return err;
}

/* ------------------------------------------------------------------ homes for nodes */

static void homes_clear(struct slu_store *store)
{
	struct space *sp = &store->space;
	struct chunk *c;

	while ((c = sp->homes)) {
		sp->homes = c->home_next;
		c->home_next = NULL;
		c->home = false;
		chunk_count(store, c);
	}
	sp->homes_last = NULL;
}

static void homes_add(struct slu_store *store, struct chunk *c)
{
	struct space *sp = &store->space;

	c->home = true;
	c->home_next = NULL;
	if (sp->homes_last)
		sp->homes_last->home_next = c;
	else
		sp->homes = c;
	sp->homes_last = c;
	chunk_count(store, c);
}

/* One chunk that has room for all n nodes: the one used last, or a new one near it. */
static int homes_find_one(struct slu_store *store, uint64_t n, struct slu_need *need)
{
	struct space *sp = &store->space;
	unsigned int looked = 0;

	for (uint64_t i = 0; i < sp->nchunks && looked < HOME_LOOK; i++) {
		uint64_t index = (sp->node_chunk + i) % sp->nchunks;
		uint64_t least = i ? slu_max(n, HOME_FREE) : n;
		struct chunk *c;
		int err;

		if (chunk_known_free(&sp->chunks, index) < least ||
		    !host_space_usable(store, index))
			continue;
		looked++;
		err = chunk_load_locked(store, index, &c, need);
		if (err)
			return err;
		if (c->nfree < least)
			continue;
		if (i)
			sp->node_bit = home_first_bit(index);
		sp->node_chunk = index;
		homes_add(store, c);
		return 0;
	}
	return -ENOSPC;
}

/* As many chunks as it takes. */
static int homes_find_many(struct slu_store *store, uint64_t n, struct slu_need *need)
{
	struct space *sp = &store->space;
	uint64_t have = 0;

	for (uint64_t i = 0; i < sp->nchunks && have < n; i++) {
		uint64_t index = (sp->node_chunk + i) % sp->nchunks;
		struct chunk *c;
		int err;

		if (chunk_known_free(&sp->chunks, index) == 0)
			continue;
		err = chunk_load_locked(store, index, &c, need);
		if (err)
			return err;
		if (!c->nfree)
			continue;
		have += c->nfree;
		homes_add(store, c);
	}
	return have < n ? -ENOSPC : 0;
}

/* 0: the chunk's record is in a dirty leaf. 1: space_flush will see to it. */
static int home_touch(struct slu_store *store, struct chunk *c, struct slu_need *need)
{
	struct slu_key key = chunk_key(c);
	struct tree_path path;
	int err = tree_find(store, &key, &path, need);

	if (err == -EIO)
		store_fail_locked(store, err, "a record of free space cannot be written");
	if (err)
		return err;
	if (path.found && path.node[0]->state == NODE_DIRTY &&
	    leaf_len(path.node[0]->disk, path.slot[0]) == SLU_CHUNK_BYTES)
		return 0;
	chunk_changed(store, c);
	return 1;
}

int space_prepare_homes(struct slu_store *store, struct slu_need *need)
{
	uint64_t n = store->cache.dirty.count;
	int err, again = 0;

	homes_clear(store);
	if (!n)
		return 0;
	err = homes_find_one(store, n, need);
	if (err == -ENOSPC)
		err = homes_find_many(store, n, need);
	for (struct chunk *c = store->space.homes; c && !err; c = c->home_next) {
		err = home_touch(store, c, need);
		if (err > 0) {
			again = 1;
			err = 0;
		}
	}
	return err ? err : again;
}

uint64_t space_take_node(struct slu_store *store)
{
	struct space *sp = &store->space;
	struct chunk *c = sp->homes;
	unsigned int bit;

	while (c && !c->nfree)
		c = c->home_next;
	slu_assert(c); /* space_prepare_homes has counted */
	if (c->index != sp->node_chunk) {
		sp->node_chunk = c->index;
		sp->node_bit = home_first_bit(c->index);
	}
	/* On from the last one, so that a commit is written in few long runs. */
	if (!chunk_find_run(c, slu_max(sp->node_bit, home_first_bit(c->index)), 1, &bit) &&
	    !chunk_find_run(c, home_first_bit(c->index), 1, &bit))
		chunk_find_run(c, 0, 1, &bit);
	chunk_mark_busy(store, c, bit, 1);
	bitmap_set(c->used, bit, 1);
	sp->node_bit = (bit + 1) % SLU_CHUNK_BLOCKS;
	return c->index * SLU_CHUNK_BLOCKS + bit;
}

void space_write_homes(struct slu_store *store)
{
	for (struct chunk *c = store->space.homes; c; c = c->home_next) {
		struct slu_key key = chunk_key(c);
		struct tree_path path;
		int err = tree_find(store, &key, &path, NULL);

		slu_assert(!err && path.found); /* home_touch */
		chunk_record(c, leaf_value(path.node[0]->disk, path.slot[0]));
		chunk_count(store, c);
	}
}

void space_forget_homes(struct slu_store *store)
{
	homes_clear(store);
}

void space_untake_node(struct slu_store *store, uint64_t blkno, bool bad)
{
	struct chunk *c = chunk_find(store, blkno / SLU_CHUNK_BLOCKS);
	unsigned int bit = blkno % SLU_CHUNK_BLOCKS;

	slu_assert(c && c->home);
	bitmap_clear(c->used, bit, 1);
	if (bad) {
		/* Busy and pinned until unmount. */
		c->npinned++;
		store->space.bad_blocks++;
	} else {
		chunk_clear_busy(store, c, bit, 1);
	}
	chunk_changed(store, c);
}

/* ------------------------------------------------------------------ coming back */

static void release_in_chunk(struct slu_store *store, struct chunk *c, unsigned int bit,
			     unsigned int n)
{
	/* A block whose bit is still set was never cleared: its chunk could not be read. */
	for (unsigned int i = bit; i < bit + n; i++) {
		if (bitmap_get(c->used, i) || !bitmap_get(c->busy, i))
			continue;
		chunk_clear_busy(store, c, i, 1);
		c->npinned--;
	}
	chunk_count(store, c);
}

void space_release(struct slu_store *store, struct freed_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		uint64_t blkno = list->ranges[i].blkno, left = list->ranges[i].nblocks;

		while (left) {
			unsigned int bit = blkno % SLU_CHUNK_BLOCKS;
			unsigned int n = (unsigned int)slu_min(left, SLU_CHUNK_BLOCKS - bit);
			struct chunk *c = chunk_find(store, blkno / SLU_CHUNK_BLOCKS);

			if (c && !c->bad)
				release_in_chunk(store, c, bit, n);
			blkno += n;
			left -= n;
		}
	}
	stat_sub(&store->space.pending_data, list->data_blocks);
	list->count = 0;
	list->data_blocks = 0;
}
