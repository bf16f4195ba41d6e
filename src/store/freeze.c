/* SPDX-License-Identifier: MIT */
/*
 * Turning the open transaction into one that can be written, and back if that fails.
 *
 * freeze	open: DIRTY nodes with virtual numbers ──▶ committing: FLUSHING nodes with blocks
 * freeze_durable	committing ──▶ on disk: CLEAN
 * thaw		committing, its writes failed ──▶ part of the open transaction again
 *
 * Called by the thread that commits, with no lock held; takes space_lock and lock. freeze does all
 * that may have to wait first, under the locks in pieces, and starts over when it has waited; from
 * the moment when everything it needs is in memory it holds the locks to the end and does no I/O.
 *
 * A transaction that failed is not lost and not written again as it was: its nodes become dirty
 * again, get other blocks, and it is committed together with what has come since. Its number is
 * skipped, and one more, so that the superblock goes to the same slot as the failed one would have:
 * the other slot holds the last durable transaction.
 */
#include "store_private.h"
#include <limits.h>

/* ------------------------------------------------------------------ blocks for nodes */

/*
 * Gives every dirty node below and including this one its block, children first and in key order,
 * so that neighbours in the tree become neighbours on disk.
 */
static struct node_ref freeze_node(struct slu_store *store, struct node *n)
{
	struct node_cache *nc = &store->cache;
	struct slu_disk_node *d = n->disk;
	uint64_t txid = store->open.id;

	if (disk_level(d)) {
		for (unsigned int i = 0; i < disk_count(d); i++) {
			struct node_ref ref = inner_ref(d, i);

			if (node_ref_virtual(ref))
				inner_set_ref(d, i, freeze_node(store, node_find(store, ref)));
		}
	}
	slu_assert(n->state == NODE_DIRTY);
	node_hash_del(nc, n);
	n->ref = (struct node_ref){space_take_node(store), txid};
	node_hash_add(nc, n);
	slu_put_le64(&d->blkno, n->ref.number);
	slu_put_le64(&d->txid, txid);
	node_list_del(&nc->dirty, n);
	node_list_add(&nc->flushing, n);
	n->state = NODE_FLUSHING;
	node_assert(store, n);
	return n->ref;
}

static void swap_lists(struct freed_list *a, struct freed_list *b)
{
	struct freed_list tmp = *a;

	*a = *b;
	*b = tmp;
}

/* The next transaction begins. The caller has made room for the deferred blocks. */
static void txn_next(struct slu_store *store)
{
	struct txn *txn = &store->open;
	unsigned int ndeferred = txn->ndeferred;

	swap_lists(&store->commit.flushing, &txn->freed); /* commit.flushing was empty */
	store->flushing_nodes = txn->nodes;
	txn->id++;
	txn->nodes = 0;
	txn->first_change_ns = 0;
	txn->freed_done = 0;
	txn->freed_blocks = 0;
	txn->freed_chunks = 0;
	txn->ndeferred = 0;
	for (unsigned int i = 0; i < ndeferred; i++)
		freed_list_add(&txn->freed, txn->deferred[i], 1, true);
	atomic_store(&store->open_txid, txn->id);
}

static void freeze_locked(struct slu_store *store)
{
	if (store->cache.dirty.count) {
		store->root = freeze_node(store, node_find(store, store->root));
		space_write_homes(store);
	}
	slu_assert(!store->cache.dirty.count);
	store->commit.frozen_txid = store->open.id;
	super_fill(store, &store->commit.super);
	txn_next(store);
	store->commit.force = false;
}

bool commit_needed(const struct slu_store *store)
{
	return store->cache.dirty.count || store->open.first_change_ns || store->commit.force;
}

/* Space records written before others get the locks, and how often that is done. */
#define FREEZE_PIECE  64
#define FREEZE_PIECES 256

/*
 * 0: frozen. 1: there is nothing to commit. 2: a piece of the work is done, call again. -EAGAIN
 * with need, or an error.
 */
static int freeze_try(struct slu_store *store, bool in_pieces, struct slu_need *need)
{
	int err;

	if (atomic_load(&store->failed))
		return -EROFS;
	if (!commit_needed(store))
		return 1;
	err = freed_list_reserve(&store->commit.flushing, slu_array_size(store->open.deferred));
	if (err)
		return err;
	if (in_pieces) {
		err = space_flush(store, FREEZE_PIECE, need);
		if (err)
			return err == 1 ? 2 : err;
	}
	do {
		err = space_flush(store, UINT_MAX, need);
		if (!err)
			err = space_prepare_homes(store, need);
	} while (err == 1);
	if (!err)
		freeze_locked(store);
	if (!err && slu_mutant(EARLY_REUSE))
		space_release(store, &store->commit.flushing);
	return err;
}

int freeze(struct slu_store *store)
{
	unsigned int pieces = 0;
	struct slu_need need;
	int err;

	do {
		need = (struct slu_need){0};
		slu_mutex_lock(&store->space_lock);
		slu_mutex_lock(&store->lock);
		err = freeze_try(store, pieces < FREEZE_PIECES, &need);
		slu_mutex_unlock(&store->lock);
		slu_mutex_unlock(&store->space_lock);
		pieces++;
	} while (err == 2 || (err == -EAGAIN && !(err = slu_need_wait(&need))));
	if (err == -ENOSPC)
		slu_store_fail(store, -EIO, "no free block is left for the tree");
	return err;
}

/* ------------------------------------------------------------------ durable */

void freeze_durable(struct slu_store *store)
{
	struct node_cache *nc = &store->cache;
	struct commit *c = &store->commit;
	struct node *n;

	slu_mutex_lock(&store->space_lock);
	slu_mutex_lock(&store->lock);
	while ((n = nc->flushing.first)) {
		node_list_del(&nc->flushing, n);
		if (n->dead) {
			node_give(store, n);
			continue;
		}
		n->state = NODE_CLEAN;
		node_list_add(&nc->clean, n);
		node_assert(store, n);
	}
	node_cache_trim(store);
	store->flushing_nodes = 0;
	c->frozen_txid = 0;
	space_forget_homes(store);
	/* The superblock that reached what the transaction before had freed is overwritten now. */
	space_release(store, &c->previous);
	swap_lists(&c->previous, &c->flushing);
	atomic_store(&store->durable_txid, slu_get_le64(&c->super.txid));
	store->durable_root = (struct node_ref){slu_get_le64(&c->super.root_blkno),
						slu_get_le64(&c->super.root_txid)};
	store->durable_nblocks = slu_get_le64(&c->super.nblocks);
	slu_cond_broadcast(&c->done);
	slu_mutex_unlock(&store->lock);
	slu_mutex_unlock(&store->space_lock);
}

/* ------------------------------------------------------------------ thaw */

/* The node, if it was being written, and all below it become dirty again. */
static struct node_ref thaw_node(struct slu_store *store, struct node *n)
{
	struct node_cache *nc = &store->cache;
	struct slu_disk_node *d = n->disk;

	if (n->state == NODE_FLUSHING) {
		node_list_del(&nc->flushing, n);
		node_hash_del(nc, n);
		space_untake_node(store, n->ref.number, n->failed);
		n->ref = (struct node_ref){VIRTUAL_BIT | ++nc->next_virtual, 0};
		n->state = NODE_DIRTY;
		n->failed = false;
		node_hash_add(nc, n);
		node_list_add(&nc->dirty, n);
		node_assert(store, n);
	}
	for (unsigned int i = 0; disk_level(d) && i < disk_count(d); i++) {
		struct node *child = node_find(store, inner_ref(d, i));

		if (child && (child->state == NODE_FLUSHING || child->state == NODE_DIRTY))
			inner_set_ref(d, i, thaw_node(store, child));
	}
	return n->ref;
}

/* What the failed transaction freed goes in front of what the open one has freed. */
static int thaw_freed(struct slu_store *store)
{
	struct freed_list *failed = &store->commit.flushing, *open = &store->open.freed;
	size_t nfailed = failed->count;
	int err = freed_list_reserve(failed, open->count);

	if (err)
		return err;
	for (size_t i = 0; i < open->count; i++)
		freed_list_add(failed, open->ranges[i].blkno, open->ranges[i].nblocks,
			       open->ranges[i].is_node);
	open->count = 0;
	open->data_blocks = 0;
	swap_lists(failed, open);
	store->open.freed_done += nfailed;
	return 0;
}

static int thaw_try(struct slu_store *store)
{
	struct node_cache *nc = &store->cache;
	struct node *n;
	int err = thaw_freed(store);

	if (err)
		return err;
	n = node_find(store, store->root);
	if (n)
		store->root = thaw_node(store, n);
	/* What is left was replaced in the meantime; its block is on the open transaction's list.
	 */
	while ((n = nc->flushing.first)) {
		slu_assert(n->dead);
		node_list_del(&nc->flushing, n);
		node_give(store, n);
	}
	store->open.nodes += store->flushing_nodes;
	store->flushing_nodes = 0;
	store->commit.frozen_txid = 0;
	store->open.id++;
	atomic_store(&store->open_txid, store->open.id);
	store->commit.force = true; /* it may have changed nothing but the superblock */
	txn_touch(store);
	space_forget_homes(store);
	return 0;
}

void thaw(struct slu_store *store)
{
	int err;

	do {
		slu_mutex_lock(&store->space_lock);
		slu_mutex_lock(&store->lock);
		err = thaw_try(store);
		slu_mutex_unlock(&store->lock);
		slu_mutex_unlock(&store->space_lock);
		if (err)
			slu_sleep_ns(10 * SLU_NS_PER_MS); /* until there is memory */
	} while (err);
}
