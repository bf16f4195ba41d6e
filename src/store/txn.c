/* SPDX-License-Identifier: MIT */
/*
 * Tickets and apply: how changes get into the open transaction.
 *
 * Room. The open transaction and the one being committed may together make, copy or drop
 * store->max_nodes nodes; that is what space.c has kept blocks back for and what memory is bounded
 * by. A ticket claims the worst case of what it was asked for until it is put back, and is handed
 * out only if its claim fits on top of what is used and claimed. So a batch within its ticket
 * always has room, also if the transaction has changed since: each transaction has all of the
 * claim. Space records are written by the commit and counted apart.
 *
 * Locks: takes space_lock, then lock. Waits only in needs.
 */
#include "store_batch.h"

/* A commit starts when a transaction is this full, so that room comes before it is waited for. */
static bool txn_getting_full(const struct slu_store *store)
{
	return store->open.nodes * 8 >= store->max_nodes * 3;
}

void txn_touch(struct slu_store *store)
{
	if (store->open.first_change_ns)
		return;
	store->open.first_change_ns = slu_clock_ns();
	slu_cond_signal(&store->commit.wake);
}

/* ------------------------------------------------------------------ freed blocks */

int freed_list_reserve(struct freed_list *list, size_t n)
{
	struct freed_range *bigger;
	size_t cap = slu_max(list->cap, (size_t)64);

	if (list->count + n <= list->cap)
		return 0;
	while (cap < list->count + n)
		cap *= 2;
	bigger = slu_calloc(cap, sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	if (list->count)
		memcpy(bigger, list->ranges, list->count * sizeof(*bigger));
	slu_free(list->ranges);
	list->ranges = bigger;
	list->cap = cap;
	return 0;
}

void freed_list_add(struct freed_list *list, uint64_t blkno, uint64_t nblocks, bool is_node)
{
	slu_assert(list->count < list->cap);
	list->ranges[list->count++] = (struct freed_range){blkno, nblocks, is_node};
	if (!is_node)
		list->data_blocks += nblocks;
}

void freed_list_fini(struct freed_list *list)
{
	slu_free(list->ranges);
	*list = (struct freed_list){0};
}

/* ------------------------------------------------------------------ tickets */

static bool txn_has_room(const struct slu_store *store, uint64_t nodes)
{
	return store->open.nodes + store->flushing_nodes + store->claims + nodes <=
	       store->max_nodes;
}

/*
 * A large ticket could wait for ever while small ones come and go. After BARRIER_AFTER_NS it puts
 * up a barrier: smaller ones wait until it has been served, or has not been heard of for
 * BARRIER_NS.
 */
#define BARRIER_AFTER_NS (20 * SLU_NS_PER_MS)
#define BARRIER_NS       (100 * SLU_NS_PER_MS)

static bool txn_admits(const struct slu_store *store, uint64_t nodes)
{
	if (nodes < store->barrier_nodes && slu_clock_ns() < store->barrier_until_ns)
		return false;
	return txn_has_room(store, nodes);
}

static void txn_barrier(struct slu_store *store, uint64_t nodes)
{
	uint64_t now = slu_clock_ns();

	if (nodes >= store->barrier_nodes || now >= store->barrier_until_ns) {
		store->barrier_nodes = nodes;
		store->barrier_until_ns = now + BARRIER_NS;
	}
}

/* Waits until arg[0] nodes fit. */
static int txn_room_wait(struct slu_need *need)
{
	struct slu_store *store = need->owner;
	uint64_t failures, begin = slu_clock_ns();
	int err = 0;

	slu_mutex_lock(&store->lock);
	stat_add(&store->stats.room_waits, 1);
	failures = store->commit.failures;
	while (!store_readonly(store) && !txn_admits(store, need->arg[0])) {
		if (store->commit.failures != failures) {
			err = store->commit.last_error;
			break;
		}
		if (store->open.nodes)
			commit_soon_locked(store);
		if (slu_clock_ns() - begin >= BARRIER_AFTER_NS)
			txn_barrier(store, need->arg[0]);
		slu_cond_timedwait(&store->commit.done, &store->lock,
				   slu_clock_ns() + BARRIER_AFTER_NS);
	}
	slu_mutex_unlock(&store->lock);
	return err;
}

static int ticket_get(struct slu_store *store, struct slu_ticket *t, uint32_t nrecords,
		      uint64_t nbytes, unsigned int flags, struct slu_need *need)
{
	uint64_t bytes = nbytes + (uint64_t)nrecords * SLU_RECORD_OVERHEAD, nodes;
	bool kept_back = flags & SLU_TICKET_KEPT_BACK;
	int err;

	if (store_readonly(store))
		return -EROFS;
	/* What other tickets may add in the meantime counts too. */
	nodes = space_claim_nodes(nrecords, stat_get(&store->space.node_blocks) + store->claims,
				  store->root_level + 1);
	nodes = slu_min(nodes, store->max_nodes);
	if (!txn_admits(store, nodes)) {
		need->wait = txn_room_wait;
		need->what = "transaction room";
		need->owner = store;
		need->arg[0] = nodes;
		need->slow = true;
		return -EAGAIN;
	}
	err = space_admit(store, 0, bytes, kept_back, 0, need);
	if (err)
		return err;
	*t = (struct slu_ticket){.store = store,
				 .nodes = (uint32_t)nodes,
				 .records = nrecords,
				 .bytes = bytes,
				 .flags = flags};
	if (nodes >= store->barrier_nodes)
		store->barrier_nodes = 0;
	store->claims += nodes;
	store->ntickets++;
	*(kept_back ? &store->space.kept_bytes : &store->space.ticket_bytes) += bytes;
	return 0;
}

int slu_ticket_get(struct slu_store *store, struct slu_ticket *t, uint32_t nrecords,
		   uint64_t nbytes, unsigned int flags, struct slu_need *need)
{
	struct slu_need own = {0};
	int err;

	*t = (struct slu_ticket){0};
	if (!need)
		slu_assert_no_locks("a ticket");
	do {
		slu_mutex_lock(&store->space_lock);
		slu_mutex_lock(&store->lock);
		err = ticket_get(store, t, nrecords, nbytes, flags, need ? need : &own);
		slu_mutex_unlock(&store->lock);
		slu_mutex_unlock(&store->space_lock);
	} while (!need && err == -EAGAIN && !(err = slu_need_wait(&own)));
	return err;
}

void slu_ticket_put(struct slu_ticket *t)
{
	struct slu_store *store = t->store;

	if (!store)
		return;
	slu_mutex_lock(&store->space_lock);
	slu_mutex_lock(&store->lock);
	*(t->flags & SLU_TICKET_KEPT_BACK ? &store->space.kept_bytes
					  : &store->space.ticket_bytes) -= t->bytes;
	store->claims -= t->nodes;
	store->ntickets--;
	slu_cond_broadcast(&store->commit.done);
	slu_mutex_unlock(&store->lock);
	slu_mutex_unlock(&store->space_lock);
	*t = (struct slu_ticket){0};
}

/* ------------------------------------------------------------------ apply */

/*
 * So many chunks may be touched by what a transaction frees: their bitmaps stay in memory until the
 * blocks can be used again. (One batch alone may go beyond it.)
 */
#define TXN_FREED_CHUNKS 4096

static uint64_t range_chunks(uint64_t nblocks)
{
	return nblocks / SLU_CHUNK_BLOCKS + 1;
}

/* The ranges of blocks that a batch names make sense; *ret_chunks: how many chunks are freed in. */
static int apply_check_blocks(const struct slu_store *store, const struct slu_batch *b,
			      uint64_t *ret_chunks)
{
	uint64_t end = store->space.spare ? store->space.spare : store->space.nblocks;

	*ret_chunks = 0;
	for (unsigned int i = 0; i < b->nblocks; i++) {
		const struct slu_batch_blocks *r = &b->blocks[i];

		/* They may come from records, and so from the disk. */
		if (r->blkno < 2 || r->blkno >= end || r->nblocks > end - r->blkno)
			return -EIO;
		if (!r->own)
			*ret_chunks += range_chunks(r->nblocks);
	}
	return 0;
}

static void apply_blocks(struct slu_store *store, const struct slu_batch *b)
{
	struct space *sp = &store->space;

	for (unsigned int i = 0; i < b->nblocks; i++) {
		const struct slu_batch_blocks *r = &b->blocks[i];

		if (r->own) {
			space_own(store, r->blkno, r->nblocks);
			stat_add(&sp->data_blocks, r->nblocks);
			stat_sub(&sp->taken, r->nblocks);
		} else {
			freed_list_add(&store->open.freed, r->blkno, r->nblocks, false);
			stat_add(&sp->pending_data, r->nblocks);
			stat_sub(&sp->data_blocks, r->nblocks);
		}
	}
}

/* The growth that a ticket has paid for becomes the records'. */
static void apply_charge(struct slu_store *store, struct slu_ticket *t, const struct slu_batch *b,
			 const struct tree_plan *plan)
{
	uint64_t charge = plan->value_growth + (uint64_t)b->nops * SLU_RECORD_OVERHEAD;

	slu_assert(b->nops <= t->records && charge <= t->bytes);
	t->records -= b->nops;
	t->bytes -= charge;
	*(t->flags & SLU_TICKET_KEPT_BACK ? &store->space.kept_bytes
					  : &store->space.ticket_bytes) -= charge;
	stat_add(&store->space.record_bytes, (uint64_t)plan->record_bytes);
	stat_add(&store->space.ninodes, (uint64_t)b->ninodes);
}

/* A ticket for more than a transaction holds goes through several. */
static bool apply_has_room(const struct slu_store *store, const struct tree_plan *plan,
			   unsigned int nops, uint64_t chunks)
{
	const struct txn *txn = &store->open;
	uint64_t used = txn->nodes + store->flushing_nodes, nodes;

	if (chunks && txn->freed_chunks && txn->freed_chunks + chunks > TXN_FREED_CHUNKS)
		return false;
	/* In a sound tree it is no more than the ticket has claimed, however the plan has counted. */
	nodes = space_claim_nodes(nops, stat_get(&store->space.node_blocks), store->root_level);
	return !used || used + slu_min(nodes, plan->nodes) <= store->max_nodes;
}

static int apply(struct slu_store *store, struct slu_ticket *t, const struct slu_batch *b,
		 const struct tree_op *ops, uint64_t *ret_txid, struct slu_need *need)
{
	struct txn *txn = &store->open;
	struct tree_plan plan;
	uint64_t chunks;
	int err;

	if (store_readonly(store))
		return -EROFS;
	err = apply_check_blocks(store, b, &chunks);
	if (!err)
		err = tree_plan(store, ops, b->nops, &plan, need);
	if (err)
		return err;
	if (!apply_has_room(store, &plan, b->nops, chunks)) {
		space_need_commit(store, need);
		return -EAGAIN;
	}
	err = tree_make_ready(store, &plan, COMMIT_NODES, b->nblocks + COMMIT_NODES);
	if (err)
		return err;

	tree_apply(store, ops, b->nops);
	apply_blocks(store, b);
	apply_charge(store, t, b, &plan);
	txn->freed_chunks += chunks;
	txn_touch(store);
	if (txn_getting_full(store))
		commit_soon_locked(store);
	stat_add(&store->stats.applies, 1);
	if (ret_txid)
		*ret_txid = txn->id;
	return 0;
}

int slu_store_apply(struct slu_store *store, struct slu_ticket *t, const struct slu_batch *b,
		    uint64_t *ret_txid, struct slu_need *need)
{
	struct tree_op ops[SLU_BATCH_MAX_RECORDS];
	struct slu_need own = {0};
	int err;

	if (b->error)
		return b->error;
	slu_assert(t->store == store);
	if (!need)
		slu_assert_no_locks("applying a batch");
	batch_sort(b, ops);
	do {
		slu_mutex_lock(&store->space_lock);
		slu_mutex_lock(&store->lock);
		err = apply(store, t, b, ops, ret_txid, need ? need : &own);
		slu_mutex_unlock(&store->lock);
		slu_mutex_unlock(&store->space_lock);
	} while (!need && err == -EAGAIN && !(err = slu_need_wait(&own)));
	return err;
}

uint64_t slu_store_new_ino(struct slu_store *store)
{
	return atomic_fetch_add_explicit(&store->next_ino, 1, memory_order_relaxed);
}

uint64_t slu_store_txid(struct slu_store *store)
{
	return atomic_load(&store->open_txid);
}

uint64_t slu_store_durable_txid(struct slu_store *store)
{
	return atomic_load(&store->durable_txid);
}
