/* SPDX-License-Identifier: MIT */
/*
 * Changing the tree: copy on write, put, delete, split, merge.
 *
 * Called by apply (txn.c) and by the writing of space records (space_flush.c) with both locks held.
 * A change has two passes. tree_plan walks the way of every operation, and says -EAGAIN until all
 * that tree_apply may touch is in memory; tree_apply then cannot fail.
 *
 * How full nodes are. Every node but the root and the rightmost of each level is at least a third
 * full (LEAF_MIN_FILL, INNER_MIN_COUNT):
 *  - An even split shares out more than a full body, T > 4,008 bytes, in records of at most 1,045:
 * the halves differ by at most 1,045, so the smaller one has at least (4,009 - 1,045) / 2 = 1,482 >
 * 1,336. An inner node splits 122 slots, 61 to each side.
 *  - CUT_RIGHT leaves the right one the least that is allowed and the left one more than that.
 *  - CUT_LAST leaves less on the right, but only in the rightmost node of a level, which may.
 *  - After a record is deleted or gets shorter, a node below the minimum takes a sibling under the
 * same parent: if both fit into one node they are merged, and the result has at least what the
 * sibling had; else they hold more than a full body together and are shared out evenly, as in a
 * split. With n bytes of records there are so at most n / 1,336 + 1 leaves, and 1/40 of that again
 * above them.
 *
 * Every node but the root has a sibling under its parent: no inner node is left with one child
 * (CUT_LAST gives the right one two; one that comes down to one child is below the minimum and
 * merged), and a root with one child is replaced by it.
 *
 * Why a node that gets too empty finds a sibling in memory. tree_plan asks for both siblings of
 * each node that the batch could bring below the minimum if nothing else helped it. A node that did
 * not exist then was made by this batch: a split or a sharing out has left its other half in
 * memory; a merge of A and B has at least what is left of B, so if it is too empty, so was B, and
 * B's sibling on the other side is in memory. Should a sibling still be missing or be damaged, the
 * node stays as it is: free space is then a little less than promised, and nothing else is wrong.
 */
#include "store_private.h"

/* ------------------------------------------------------------------ nodes of the open transaction
 */

static uint64_t next_virtual(struct slu_store *store)
{
	return VIRTUAL_BIT | ++store->cache.next_virtual;
}

/* The block of a node that the open tree does not reach any more. */
static void txn_free_node(struct slu_store *store, uint64_t blkno)
{
	struct txn *txn = &store->open;

	if (txn->flushing_space && txn->ndeferred < slu_array_size(txn->deferred))
		txn->deferred[txn->ndeferred++] = blkno;
	else
		freed_list_add(&txn->freed, blkno, 1, true);
}

static void tree_set_ref(struct slu_store *store, struct node *parent, unsigned int slot,
			 struct node_ref ref)
{
	if (parent)
		inner_set_ref(parent->disk, slot, ref);
	else
		store->root = ref;
}

struct node *node_new(struct slu_store *store, unsigned int level, const uint8_t *lower,
		      const uint8_t *upper)
{
	struct node *n = node_take(store);

	disk_init(n->disk, store->super.volume_id, level, lower, upper);
	n->ref = (struct node_ref){next_virtual(store), 0};
	n->state = NODE_DIRTY;
	n->dead = false;
	node_hash_add(&store->cache, n);
	node_list_add(&store->cache.dirty, n);
	store->open.nodes++;
	stat_add(&store->space.node_blocks, 1);
	node_assert(store, n);
	return n;
}

struct node *node_cow(struct slu_store *store, struct node *n, struct node *parent,
		      unsigned int slot)
{
	struct node_cache *nc = &store->cache;

	if (n->state == NODE_DIRTY)
		return n;
	txn_free_node(store, n->ref.number);
	node_hash_del(nc, n);
	if (n->state == NODE_FLUSHING) {
		struct node *copy = node_take(store);

		disk_copy(copy->disk, n->disk);
		n->dead = true;
		n = copy;
	} else {
		/* Nobody else looks at a clean one: it need not be copied. */
		slu_assert(n->state == NODE_CLEAN);
		node_list_del(&nc->clean, n);
	}
	n->ref = (struct node_ref){next_virtual(store), 0};
	n->state = NODE_DIRTY;
	node_hash_add(nc, n);
	node_list_add(&nc->dirty, n);
	store->open.nodes++;
	tree_set_ref(store, parent, slot, n->ref);
	node_assert(store, n);
	return n;
}

/* Takes a node out of the tree; nothing refers to it any more. */
static void node_drop(struct slu_store *store, struct node *n)
{
	struct node_cache *nc = &store->cache;

	stat_sub(&store->space.node_blocks, 1);
	node_hash_del(nc, n);
	if (n->state == NODE_DIRTY) {
		node_list_del(&nc->dirty, n);
		node_give(store, n);
		return;
	}
	store->open.nodes++;
	txn_free_node(store, n->ref.number);
	if (n->state == NODE_FLUSHING) {
		n->dead = true;
	} else {
		slu_assert(n->state == NODE_CLEAN);
		node_list_del(&nc->clean, n);
		node_give(store, n);
	}
}

/* Makes every node on the path one that may be changed. */
static void path_cow(struct slu_store *store, struct tree_path *path)
{
	struct node *parent = NULL;

	for (int level = (int)path->top; level >= 0; level--) {
		unsigned int slot = parent ? path->slot[level + 1] : 0;

		parent = path->node[level] = node_cow(store, path->node[level], parent, slot);
	}
}

/* ------------------------------------------------------------------ split */

static bool node_is_rightmost(const struct node *n)
{
	return !memcmp(n->disk->upper, tree_key_max, SLU_KEY_SIZE);
}

static enum node_cut split_cut(const struct node *n, unsigned int pos)
{
	if (node_is_rightmost(n))
		return CUT_LAST;
	return pos == disk_count(n->disk) ? CUT_RIGHT : CUT_EVEN;
}

static void tree_new_root(struct slu_store *store, struct tree_path *path, struct node *child)
{
	unsigned int level = path->top + 1;
	struct node *root;

	slu_assert(level < SLU_TREE_MAX_DEPTH);
	root = node_new(store, level, tree_key_min, tree_key_max);
	inner_insert(root->disk, 0, tree_key_min, store->root);
	inner_insert(root->disk, 1, child->disk->lower, child->ref);
	store->root = root->ref;
	store->root_level = level;
}

/* Puts `child`, the new right half of path->node[level - 1], into the tree. */
static void tree_add_child(struct slu_store *store, struct tree_path *path, unsigned int level,
			   struct node *child)
{
	struct inner_extra extra;
	struct node *left, *right;

	if (level > path->top) {
		tree_new_root(store, path, child);
		return;
	}
	left = path->node[level];
	extra = (struct inner_extra){path->slot[level] + 1, child->disk->lower, child->ref};
	if (disk_count(left->disk) < SLU_INNER_MAX) {
		inner_insert(left->disk, extra.pos, extra.key, extra.ref);
		return;
	}
	right = node_new(store, level, left->disk->lower, left->disk->upper);
	inner_share(left->disk, right->disk, &extra, split_cut(left, extra.pos));
	tree_add_child(store, path, level + 1, right);
}

static void leaf_split(struct slu_store *store, struct tree_path *path,
		       const struct leaf_extra *extra)
{
	struct node *left = path->node[0];
	struct node *right = node_new(store, 0, left->disk->lower, left->disk->upper);

	leaf_share(left->disk, right->disk, extra, split_cut(left, extra->pos));
	tree_add_child(store, path, 1, right);
}

/* ------------------------------------------------------------------ merge */

static bool node_too_empty(const struct node *n)
{
	if (disk_level(n->disk))
		return disk_count(n->disk) < INNER_MIN_COUNT;
	return leaf_fill(n->disk) < LEAF_MIN_FILL;
}

static bool nodes_fit_into_one(const struct node *a, const struct node *b)
{
	if (disk_level(a->disk))
		return disk_count(a->disk) + disk_count(b->disk) <= SLU_INNER_MAX;
	return leaf_fill(a->disk) + leaf_fill(b->disk) <= SLU_NODE_BODY;
}

static void nodes_share(struct node *left, struct node *right, enum node_cut cut)
{
	if (disk_level(left->disk))
		inner_share(left->disk, right->disk, NULL, cut);
	else
		leaf_share(left->disk, right->disk, NULL, cut);
}

static struct node *sibling_in_memory(struct slu_store *store, struct node *parent,
				      unsigned int slot)
{
	struct node_place place = tree_child_place(parent, slot);
	struct node *n;

	node_peek(store, &place, &n, NULL);
	return n;
}

/* path->node[level] has got too empty. True if its parent has lost a child. */
static bool node_fill_up(struct slu_store *store, struct tree_path *path, unsigned int level)
{
	struct node *n = path->node[level], *parent = path->node[level + 1];
	unsigned int slot = path->slot[level + 1];
	struct node *left = NULL, *right = NULL;

	if (slot > 0)
		left = sibling_in_memory(store, parent, slot - 1);
	if (slot + 1 < disk_count(parent->disk))
		right = sibling_in_memory(store, parent, slot + 1);
	if (left && (!right || nodes_fit_into_one(left, n))) {
		right = n;
		slot--;
	} else if (right) {
		left = n;
	} else {
		return false;
	}

	left = node_cow(store, left, parent, slot);
	if (nodes_fit_into_one(left, right)) {
		/* The right one's records go through a copy of it: it may be clean or in flight. */
		struct slu_disk_node copy;
		struct node emptied = {.disk = &copy};

		disk_copy(&copy, right->disk);
		nodes_share(left, &emptied, CUT_NONE);
		memcpy(left->disk->upper, right->disk->upper, SLU_KEY_SIZE);
		inner_delete(parent->disk, slot + 1);
		node_drop(store, right);
		return true;
	}
	right = node_cow(store, right, parent, slot + 1);
	nodes_share(left, right, CUT_EVEN);
	memcpy(inner_slot(parent->disk, slot + 1)->key, right->disk->lower, SLU_KEY_SIZE);
	return false;
}

static void tree_fill_up(struct slu_store *store, struct tree_path *path)
{
	struct node *root = path->node[path->top];

	for (unsigned int level = 0; level < path->top; level++)
		if (!node_too_empty(path->node[level]) || !node_fill_up(store, path, level))
			return;
	if (path->top && disk_count(root->disk) == 1) {
		store->root = inner_ref(root->disk, 0);
		store->root_level = path->top - 1;
		node_drop(store, root);
	}
}

/* ------------------------------------------------------------------ one operation */

static void tree_put(struct slu_store *store, struct tree_path *path, const struct tree_op *op)
{
	struct slu_disk_node *leaf = path->node[0]->disk;
	unsigned int i = path->slot[0];

	if (path->found && leaf_len(leaf, i) == op->len) {
		if (op->len)
			memcpy(leaf_value(leaf, i), op->value, op->len);
		return;
	}
	if (path->found)
		leaf_delete(leaf, i);
	if (leaf_fill(leaf) + SLU_RECORD_OVERHEAD + op->len > SLU_NODE_BODY) {
		leaf_split(store, path, &(struct leaf_extra){i, &op->key, op->value, op->len});
		return;
	}
	leaf_insert(leaf, i, &op->key, op->value, op->len);
	if (path->found)
		tree_fill_up(store, path);
}

void tree_apply(struct slu_store *store, const struct tree_op *ops, unsigned int nops)
{
	for (unsigned int i = 0; i < nops; i++) {
		struct tree_path path;
		int err = tree_find(store, &ops[i].key, &path, NULL);

		slu_assert(!err); /* tree_plan */
		path_cow(store, &path);
		if (ops[i].del) {
			slu_assert(path.found);
			leaf_delete(path.node[0]->disk, path.slot[0]);
			tree_fill_up(store, &path);
		} else {
			tree_put(store, &path, &ops[i]);
		}
	}
}

int tree_put_one(struct slu_store *store, const struct slu_key *key, const void *value,
		 unsigned int len, struct slu_need *need)
{
	struct tree_op op = {.key = *key, .value = value, .len = len};
	struct tree_plan plan;
	int err = tree_plan(store, &op, 1, &plan, need);

	if (!err)
		err = tree_make_ready(store, &plan, 0, 0);
	if (err)
		return err;
	tree_apply(store, &op, 1);
	txn_touch(store);
	return 0;
}
