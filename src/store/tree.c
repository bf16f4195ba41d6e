/* SPDX-License-Identifier: MIT */
/*
 * Reading the tree: the way from the root to a leaf, get, seek, scan.
 *
 * tree_* run under store->lock, wait for nothing, and answer -EAGAIN with a need where a node is
 * not in memory. The public calls take the lock, and with need NULL they wait and start over
 * themselves. Nothing is pinned: pointers into nodes are good only until the lock is dropped.
 */
#include "store_private.h"

const uint8_t tree_key_min[SLU_KEY_SIZE] = {0};
const uint8_t tree_key_max[SLU_KEY_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct node_place tree_child_place(const struct node *parent, unsigned int slot)
{
	return (struct node_place){
		.ref = inner_ref(parent->disk, slot),
		.level = (int)disk_level(parent->disk) - 1,
		.lower = inner_slot(parent->disk, slot)->key,
		.upper = inner_child_upper(parent->disk, slot),
	};
}

int tree_root(struct slu_store *store, struct node **ret, struct slu_need *need)
{
	struct node_place place = {.ref = store->root,
				   .level = -1,
				   .lower = tree_key_min,
				   .upper = tree_key_max};

	return node_load(store, &place, ret, need);
}

int tree_find(struct slu_store *store, const struct slu_key *key, struct tree_path *path,
	      struct slu_need *need)
{
	unsigned int level;
	struct node *n;
	int err;

	err = tree_root(store, &n, need);
	if (err)
		return err;
	path->top = level = disk_level(n->disk);
	path->node[level] = n;
	while (level) {
		struct node_place place;

		path->slot[level] = inner_search(n->disk, key);
		place = tree_child_place(n, path->slot[level]);
		err = node_load(store, &place, &n, need);
		if (err)
			return err;
		path->node[--level] = n;
	}
	path->slot[0] = leaf_search(n->disk, key, &path->found);
	return 0;
}

int tree_get(struct slu_store *store, const struct slu_key *key, const void **ret_value,
	     unsigned int *ret_len, struct slu_need *need)
{
	struct tree_path path;
	int err = tree_find(store, key, &path, need);

	if (err)
		return err;
	if (!path.found)
		return -ENOENT;
	*ret_value = leaf_value(path.node[0]->disk, path.slot[0]);
	*ret_len = leaf_len(path.node[0]->disk, path.slot[0]);
	return 0;
}

/* The key right after *key; false if there is none. */
static bool key_next(struct slu_key *key)
{
	if (++key->off)
		return true;
	if (++key->type)
		return true;
	return ++key->ino != 0;
}

static bool key_prev(struct slu_key *key)
{
	if (key->off--)
		return true;
	if (key->type--)
		return true;
	return key->ino-- != 0;
}

static int copy_record(const struct slu_disk_node *d, unsigned int i, void *buf, size_t size)
{
	unsigned int len = leaf_len(d, i);

	if (len > size)
		return -ERANGE;
	if (len)
		memcpy(buf, leaf_value(d, i), len);
	return (int)len;
}

/* ------------------------------------------------------------------ get and seek */

static int tree_copy(struct slu_store *store, struct slu_key *key, const struct slu_key *bound,
		     void *buf, size_t size, struct slu_need *need)
{
	struct tree_path path;
	int err = tree_find(store, key, &path, need);

	(void)bound;
	if (err)
		return err;
	if (!path.found)
		return -ENOENT;
	return copy_record(path.node[0]->disk, path.slot[0], buf, size);
}

static int tree_seek_ge(struct slu_store *store, struct slu_key *key, const struct slu_key *end,
			void *buf, size_t size, struct slu_need *need)
{
	struct slu_key from = *key;

	/* A leaf may hold nothing at or after the key: then its right neighbour's does. */
	while (slu_key_cmp(&from, end) < 0) {
		struct tree_path path;
		int err = tree_find(store, &from, &path, need);
		const struct slu_disk_node *leaf;

		if (err)
			return err;
		leaf = path.node[0]->disk;
		if (path.slot[0] < disk_count(leaf)) {
			struct slu_key found = leaf_key(leaf, path.slot[0]);

			if (slu_key_cmp(&found, end) >= 0)
				return -ENOENT;
			err = copy_record(leaf, path.slot[0], buf, size);
			*key = found;
			return err;
		}
		from = slu_key_get(leaf->upper);
	}
	return -ENOENT;
}

static int tree_seek_le(struct slu_store *store, struct slu_key *key, const struct slu_key *start,
			void *buf, size_t size, struct slu_need *need)
{
	struct slu_key from = *key;

	while (slu_key_cmp(&from, start) >= 0) {
		struct tree_path path;
		int err = tree_find(store, &from, &path, need);
		const struct slu_disk_node *leaf;

		if (err)
			return err;
		leaf = path.node[0]->disk;
		if (path.found || path.slot[0]) {
			unsigned int i = path.found ? path.slot[0] : path.slot[0] - 1;
			struct slu_key found = leaf_key(leaf, i);

			if (slu_key_cmp(&found, start) < 0)
				return -ENOENT;
			err = copy_record(leaf, i, buf, size);
			*key = found;
			return err;
		}
		from = slu_key_get(leaf->lower);
		if (!key_prev(&from))
			break;
	}
	return -ENOENT;
}

typedef int seek_fn(struct slu_store *store, struct slu_key *key, const struct slu_key *bound,
		    void *buf, size_t size, struct slu_need *need);

static int tree_seek(struct slu_store *store, seek_fn *fn, struct slu_key *key,
		     const struct slu_key *bound, void *buf, size_t size, struct slu_need *need)
{
	struct slu_need own = {0};
	int err;

	stat_add(&store->stats.gets, 1);
	if (!need)
		slu_assert_no_locks("a read of the store");
	do {
		slu_mutex_lock(&store->lock);
		err = fn(store, key, bound, buf, size, need ? need : &own);
		slu_mutex_unlock(&store->lock);
	} while (!need && err == -EAGAIN && !(err = slu_need_wait(&own)));
	return err;
}

int slu_store_get(struct slu_store *store, const struct slu_key *key, void *buf, size_t size,
		  struct slu_need *need)
{
	struct slu_key k = *key;

	return tree_seek(store, tree_copy, &k, NULL, buf, size, need);
}

int slu_store_seek_ge(struct slu_store *store, struct slu_key *key, const struct slu_key *end,
		      void *buf, size_t size, struct slu_need *need)
{
	return tree_seek(store, tree_seek_ge, key, end, buf, size, need);
}

int slu_store_seek_le(struct slu_store *store, struct slu_key *key, const struct slu_key *start,
		      void *buf, size_t size, struct slu_need *need)
{
	return tree_seek(store, tree_seek_le, key, start, buf, size, need);
}

/* ------------------------------------------------------------------ scan */

/* Leaves shown in one go before a scan that may wait lets others have the lock. */
#define SCAN_LEAVES 16

struct scan {
	struct slu_key *from;
	const struct slu_key *end;
	slu_scan_fn *fn;
	void *ctx;
	bool done;
};

/* The records of one leaf from slot i on. */
static int scan_leaf(struct scan *scan, const struct slu_disk_node *leaf, unsigned int i)
{
	unsigned int count = disk_count(leaf);

	for (; i < count; i++) {
		struct slu_key key = leaf_key(leaf, i);
		int err;

		if (slu_key_cmp(&key, scan->end) >= 0) {
			scan->done = true;
			return 0;
		}
		err = scan->fn(scan->ctx, &key, leaf_value(leaf, i), leaf_len(leaf, i));
		if (err)
			return err;
		*scan->from = key;
		key_next(scan->from);
	}
	*scan->from = slu_key_get(leaf->upper);
	return 0;
}

static int scan_some(struct slu_store *store, struct scan *scan, unsigned int nleaves,
		     struct slu_need *need)
{
	for (unsigned int i = 0; i < nleaves && !scan->done; i++) {
		struct tree_path path;
		int err;

		if (slu_key_cmp(scan->from, scan->end) >= 0) {
			scan->done = true;
			break;
		}
		err = tree_find(store, scan->from, &path, need);
		if (!err)
			err = scan_leaf(scan, path.node[0]->disk, path.slot[0]);
		if (err)
			return err;
	}
	return 0;
}

int slu_store_scan(struct slu_store *store, struct slu_key *from, const struct slu_key *end,
		   slu_scan_fn *fn, void *ctx, struct slu_need *need)
{
	struct scan scan = {.from = from, .end = end, .fn = fn, .ctx = ctx};
	struct slu_need own = {0};
	int err;

	stat_add(&store->stats.gets, 1);
	if (!need)
		slu_assert_no_locks("a scan of the store");
	do {
		slu_mutex_lock(&store->lock);
		err = scan_some(store, &scan, need ? UINT32_MAX : SCAN_LEAVES, need ? need : &own);
		slu_mutex_unlock(&store->lock);
		/* fn's own -EAGAIN is an error like any other: it did not fill in a need */
		if (err == -EAGAIN && !need && own.wait)
			err = slu_need_wait(&own);
	} while (!need && !err && !scan.done);
	return err;
}
