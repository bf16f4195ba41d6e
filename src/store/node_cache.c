/* SPDX-License-Identifier: MIT */
/*
 * The nodes in memory: a hash by number, lists by state, second-chance eviction of clean ones, and
 * the reading of missing ones.
 *
 * Everything here runs under store->lock except node_read_wait, which is what a need waits for: it
 * reads with no lock held. Threads that miss the same node wait for the first one's read. What a
 * read brings is checked in full before it can be found as CLEAN; otherwise it stays behind as BAD,
 * and the next one who cannot do without it answers -EIO and takes it out, so that a passing error
 * of the disk is asked again. A node enters with (block, transaction) as its name; that pair is
 * never used twice, so a read that comes late, after its block was freed and reused, harms nobody.
 *
 * Nodes come in slabs and are kept for reuse until close. Clean ones are evicted to stay within the
 * limit; dirty ones and those being written cannot be, and may push the total beyond it: tickets
 * bound them.
 */
#include "store_private.h"

#define SLAB_NODES 32

struct node_slab {
	struct node_slab *next;
	struct slu_disk_node *disk;
	struct node nodes[SLAB_NODES];
};

int node_cache_init(struct node_cache *nc, size_t bytes)
{
	size_t size = 256;

	nc->limit = slu_max(bytes, (size_t)1 << 20) / SLU_BLOCK_SIZE;
	while (size < nc->limit * 2)
		size *= 2;
	nc->table = slu_calloc(size, sizeof(*nc->table));
	if (!nc->table)
		return -ENOMEM;
	nc->mask = size - 1;
	slu_cond_init(&nc->read_done);
	return 0;
}

void node_cache_fini(struct node_cache *nc)
{
	struct node_slab *slab;

	if (!nc->table)
		return;
	while ((slab = nc->slabs)) {
		nc->slabs = slab->next;
		slu_free(slab->disk);
		slu_free(slab);
	}
	slu_cond_fini(&nc->read_done);
	slu_free(nc->table);
	nc->table = NULL;
}

/* ------------------------------------------------------------------ lists and hash */

void node_list_add(struct node_list *list, struct node *n)
{
	n->next = NULL;
	n->prev = list->last;
	if (list->last)
		list->last->next = n;
	else
		list->first = n;
	list->last = n;
	list->count++;
}

void node_list_del(struct node_list *list, struct node *n)
{
	if (n->prev)
		n->prev->next = n->next;
	else
		list->first = n->next;
	if (n->next)
		n->next->prev = n->prev;
	else
		list->last = n->prev;
	n->prev = n->next = NULL;
	list->count--;
}

static struct node **node_bucket(struct node_cache *nc, struct node_ref ref)
{
	return &nc->table[(ref.number * 0x9e3779b97f4a7c15ull >> 20) & nc->mask];
}

void node_hash_add(struct node_cache *nc, struct node *n)
{
	struct node **bucket = node_bucket(nc, n->ref);

	n->hash_next = *bucket;
	*bucket = n;
}

void node_hash_del(struct node_cache *nc, struct node *n)
{
	struct node **p = node_bucket(nc, n->ref);

	while (*p != n) {
		slu_assert(*p);
		p = &(*p)->hash_next;
	}
	*p = n->hash_next;
	n->hash_next = NULL;
}

struct node *node_find(struct slu_store *store, struct node_ref ref)
{
	struct node *n = *node_bucket(&store->cache, ref);

	while (n && (n->ref.number != ref.number || n->ref.txid != ref.txid))
		n = n->hash_next;
	return n;
}

/* ------------------------------------------------------------------ memory */

static int slab_add(struct node_cache *nc)
{
	struct node_slab *slab = slu_zalloc(sizeof(*slab));

	if (!slab)
		return -ENOMEM;
	slab->disk = slu_alloc_aligned(SLU_BLOCK_SIZE, SLAB_NODES * sizeof(*slab->disk));
	if (!slab->disk) {
		slu_free(slab);
		return -ENOMEM;
	}
	slab->next = nc->slabs;
	nc->slabs = slab;
	for (unsigned int i = 0; i < SLAB_NODES; i++) {
		slab->nodes[i].disk = &slab->disk[i];
		node_list_add(&nc->free, &slab->nodes[i]);
	}
	nc->ntotal += SLAB_NODES;
	return 0;
}

void node_assert(struct slu_store *store, const struct node *n)
{
	bool found = node_find(store, n->ref) == n;

	switch (n->state) {
	case NODE_FREE:
		slu_assert(!n->ref.number && !n->dead);
		break;
	case NODE_READING:
	case NODE_BAD:
	case NODE_CLEAN:
		slu_assert(found && !n->dead && !n->failed);
		slu_assert(!node_ref_virtual(n->ref) && n->ref.txid);
		break;
	case NODE_DIRTY:
		slu_assert(found && !n->dead && !n->failed);
		slu_assert(node_ref_virtual(n->ref) && !n->ref.txid);
		break;
	case NODE_FLUSHING:
		slu_assert(found != n->dead);
		slu_assert(!node_ref_virtual(n->ref) && n->ref.txid);
		break;
	}
}

void node_give(struct slu_store *store, struct node *n)
{
	n->state = NODE_FREE;
	n->ref = (struct node_ref){0};
	n->dead = n->failed = n->referenced = false;
	node_list_add(&store->cache.free, n);
}

/*
 * An operation that misses a node starts over once it is there, and so would never end if one read
 * threw out what another had brought. A node stays for so many reads after it was last looked at:
 * enough for every thread that has just been waiting to come by and look at its nodes again.
 */
#define EVICT_AGE 128

static void node_used(struct node_cache *nc, struct node *n)
{
	n->referenced = true;
	n->used = nc->reads;
}

/*
 * Second chance: a node that was used since it last came up goes to the back once more. With
 * `force`, one goes in any case.
 */
static bool node_evict_one(struct slu_store *store, bool force)
{
	struct node_cache *nc = &store->cache;

	for (size_t left = nc->clean.count * 2; left; left--) {
		struct node *n = nc->clean.first;
		bool young = nc->reads - n->used < EVICT_AGE && !force;

		node_list_del(&nc->clean, n);
		if (n->referenced || young) {
			n->referenced = false;
			node_list_add(&nc->clean, n);
			continue;
		}
		node_hash_del(nc, n);
		node_give(store, n);
		return true;
	}
	return false;
}

/* However many are dirty, this many clean ones may stay. */
static size_t node_cache_least_clean(const struct node_cache *nc)
{
	return nc->limit / 4;
}

static int cache_fill(struct slu_store *store, size_t n, bool force)
{
	struct node_cache *nc = &store->cache;

	while (nc->free.count < n) {
		int err;

		if (nc->ntotal + SLAB_NODES > nc->limit &&
		    nc->clean.count > node_cache_least_clean(nc) && node_evict_one(store, false))
			continue;
		err = slab_add(nc);
		if (err && force && node_evict_one(store, true))
			continue;
		if (err)
			return err;
		stat_add(&store->stats.cached_nodes, SLAB_NODES);
	}
	return 0;
}

int node_cache_fill(struct slu_store *store, size_t n)
{
	return cache_fill(store, n, false);
}

void node_cache_trim(struct slu_store *store)
{
	struct node_cache *nc = &store->cache;

	while (nc->ntotal - nc->free.count > nc->limit &&
	       nc->clean.count > node_cache_least_clean(nc) && node_evict_one(store, false))
		;
}

struct node *node_take(struct slu_store *store)
{
	struct node *n = store->cache.free.last;

	slu_assert(n);
	node_list_del(&store->cache.free, n);
	return n;
}

/* ------------------------------------------------------------------ reading */

void node_report(struct slu_store *store, uint64_t blkno, const char *wrong)
{
	stat_add(&store->stats.corrupt_nodes, 1);
	slu_event_post(&store->events, &(struct slu_event){.kind = SLU_EVENT_NODE_CORRUPT,
							   .error = -EIO,
							   .pos = blkno,
							   .text = wrong});
}

/*
 * Are all children of a checked node where nodes can be? The image may be longer than the volume. The
 * store's lock is held, since the volume may grow, which makes none of them wrong.
 */
static bool children_inside(const struct slu_store *store, const struct node *n)
{
	const struct space *sp = &store->space;

	if (disk_level(n->disk) == 0)
		return true;
	for (unsigned int i = 0; i < disk_count(n->disk); i++) {
		uint64_t blkno = inner_ref(n->disk, i).number;

		if (blkno < 2 || blkno >= sp->nblocks || blkno == sp->spare)
			return false;
	}
	return true;
}

/* The need of a missing node: returns 0 when it is CLEAN, or BAD. */
static int node_read_wait(struct slu_need *need)
{
	struct slu_store *store = need->owner;
	struct node_cache *nc = &store->cache;
	struct node_ref ref = {need->arg[0], need->arg[1]};
	struct node *n;
	int err;

	slu_mutex_lock(&store->lock);
	n = node_find(store, ref);
	if (n) {
		while ((n = node_find(store, ref)) && n->state == NODE_READING)
			slu_cond_wait(&nc->read_done, &store->lock);
		slu_mutex_unlock(&store->lock);
		return 0;
	}
	err = cache_fill(store, 1, true); /* reading goes on without memory */
	if (err) {
		slu_mutex_unlock(&store->lock);
		return err;
	}
	n = node_take(store);
	n->state = NODE_READING;
	n->ref = ref;
	node_hash_add(nc, n);
	slu_mutex_unlock(&store->lock);

	slu_stress_point("store-node-read");
	stat_add(&store->stats.node_reads, 1);
	err = slu_blockio_read(store->bio, ref.number, 1, n->disk);
	if (!err &&
	    slu_node_check(n->disk, store->super.volume_id, ref.number, ref.txid, -1, NULL, NULL))
		err = -EIO;
	if (err)
		(void)slu_store_check_image(store);

	slu_mutex_lock(&store->lock);
	if (!err && !children_inside(store, n))
		err = -EIO;
	n->state = err ? NODE_BAD : NODE_CLEAN;
	nc->reads++;
	node_used(nc, n);
	node_list_add(&nc->clean, n);
	node_assert(store, n);
	node_cache_trim(store);
	slu_cond_broadcast(&nc->read_done);
	slu_mutex_unlock(&store->lock);
	return 0;
}

static int node_need(struct slu_store *store, struct node_ref ref, struct slu_need *need)
{
	slu_assert(need); /* tree_plan has seen to it that tree_apply finds everything */
	need->wait = node_read_wait;
	need->what = "a node read";
	need->owner = store;
	need->arg[0] = ref.number;
	need->arg[1] = ref.txid;
	need->slow = false;
	return -EAGAIN;
}

/*
 * Does the node agree with what its parent says of it? Asked each time, and not only of a node that
 * has just been read: two slots of a damaged volume may lead to one node, which fits one of them.
 */
static bool node_fits(const struct node *n, const struct node_place *place)
{
	return (place->level < 0 || disk_level(n->disk) == (unsigned int)place->level) &&
	       !memcmp(n->disk->lower, place->lower, SLU_KEY_SIZE) &&
	       !memcmp(n->disk->upper, place->upper, SLU_KEY_SIZE);
}

int node_load(struct slu_store *store, const struct node_place *place, struct node **ret,
	      struct slu_need *need)
{
	struct node *n = node_find(store, place->ref);

	if (!n || n->state == NODE_READING) {
		/* Numbers below a checked node were checked; what is virtual is in memory. */
		slu_assert(!node_ref_virtual(place->ref));
		return node_need(store, place->ref, need);
	}
	if (n->state == NODE_BAD) {
		const char *wrong = "cannot be read";

		if (slu_get_le64(&n->disk->blkno) == n->ref.number)
			wrong = "damaged";
		node_list_del(&store->cache.clean, n);
		node_hash_del(&store->cache, n);
		node_give(store, n);
		node_report(store, place->ref.number, wrong);
		return -EIO;
	}
	if (!node_fits(n, place)) {
		node_report(store, place->ref.number, "does not fit its parent");
		return -EIO;
	}
	node_used(&store->cache, n);
	stat_add(&store->stats.node_hits, 1);
	*ret = n;
	return 0;
}

int node_peek(struct slu_store *store, const struct node_place *place, struct node **ret,
	      struct slu_need *need)
{
	struct node *n = node_find(store, place->ref);

	*ret = NULL;
	if (!n || n->state == NODE_READING)
		return need ? node_need(store, place->ref, need) : 0;
	if (n->state == NODE_BAD || !node_fits(n, place))
		return 0;
	node_used(&store->cache, n);
	*ret = n;
	return 0;
}
