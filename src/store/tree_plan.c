/* SPDX-License-Identifier: MIT */
/*
 * The first pass of a change: finding out whether the second one can fail.
 *
 * tree_plan walks the way of every operation under store->lock and changes nothing. It answers -EAGAIN
 * until all that tree_apply may touch is in memory, -ENOENT if there is nothing to delete, and counts
 * the nodes that the change can make, copy or drop at most. It counts on the tree as it is, not on
 * what a superblock says of it or on how full nodes should be: a volume from a stranger may break
 * those rules, but must not bring us to run out of what tree_make_ready has set aside.
 */
#include "store_private.h"

/* What the operations do to one node, the one on the path of the operation that was looked at last. */
struct plan_level {
	const struct node *node;
	unsigned int count;     /* of its children */
	unsigned int shrinking; /* operations under it that delete or shorten */
	unsigned int growing;   /* those that insert or lengthen */
	bool merges;            /* it may get too empty */
};

struct planner {
	struct slu_store *store;
	struct slu_need *need;
	struct tree_plan *plan;
	struct plan_level levels[SLU_TREE_MAX_DEPTH];
	unsigned int merging; /* levels at which nodes may get too empty */
	unsigned int shrinking, growing;
};

/* Both siblings of path->node[level] are in memory, or cannot be read. */
static int plan_siblings(struct planner *p, const struct tree_path *path, unsigned int level)
{
	const struct node *parent = path->node[level + 1];
	unsigned int slot = path->slot[level + 1];
	struct node_place place;
	struct node *n;
	int err = 0;

	p->merging |= 1u << level;
	if (slot > 0) {
		place = tree_child_place(parent, slot - 1);
		err = node_peek(p->store, &place, &n, p->need);
	}
	if (!err && slot + 1 < disk_count(parent->disk)) {
		place = tree_child_place(parent, slot + 1);
		err = node_peek(p->store, &place, &n, p->need);
	}
	return err;
}

/* No more operations go through the node at this level: what it may cost. */
static void plan_level_end(struct planner *p, unsigned int level)
{
	struct plan_level *l = &p->levels[level];

	if (!l->node)
		return;
	p->plan->nodes++;
	/* It splits when it is full, and after that whenever one of its halves is. */
	if (level && (l->count + l->growing > SLU_INNER_MAX || l->merges))
		p->plan->nodes += 1 + l->growing / (SLU_INNER_MAX / 2);
	*l = (struct plan_level){0};
}

static int plan_path(struct planner *p, const struct tree_path *path, unsigned int shrinking,
		     unsigned int growing)
{
	for (unsigned int level = 0; level <= path->top; level++) {
		struct plan_level *l = &p->levels[level];
		int err;

		if (l->node != path->node[level]) {
			plan_level_end(p, level);
			l->node = path->node[level];
			l->count = disk_count(l->node->disk);
		}
		l->growing += growing;
		l->shrinking += shrinking;
		/* Each shrinking operation can cost an inner node one child. */
		if (level == 0 || level == path->top || !shrinking ||
		    l->count >= INNER_MIN_COUNT + l->shrinking)
			continue;
		l->merges = true;
		err = plan_siblings(p, path, level);
		if (err)
			return err;
	}
	return 0;
}

/* By how much the operation makes the leaf grow. */
static int64_t plan_growth(struct tree_plan *plan, const struct tree_op *op, bool found,
			   unsigned int old_len)
{
	int64_t growth;

	if (op->del)
		growth = -(int64_t)(old_len + SLU_RECORD_OVERHEAD);
	else
		growth = (int64_t)op->len - old_len + (found ? 0 : SLU_RECORD_OVERHEAD);
	if (!op->del && op->len > old_len)
		plan->value_growth += op->len - old_len;
	if (op->key.ino != SLU_INO_VOLUME || op->key.type != SLU_REC_SPACE)
		plan->record_bytes += growth;
	return growth;
}

/* One leaf's operations, from ops[0]; *ret_n: how many they are. */
static int plan_leaf(struct planner *p, const struct tree_path *path, const struct tree_op *ops,
		     unsigned int nops, unsigned int *ret_n)
{
	const struct slu_disk_node *leaf = path->node[0]->disk;
	unsigned int n, removed = 0, shrinking = 0, growing = 0;

	for (n = 0; n < nops && disk_key_cmp(leaf->upper, &ops[n].key) > 0; n++) {
		bool found;
		unsigned int i = leaf_search(leaf, &ops[n].key, &found);
		int64_t growth;

		if (ops[n].del && !found)
			return -ENOENT;
		growth = plan_growth(p->plan, &ops[n], found, found ? leaf_len(leaf, i) : 0);
		if (growth < 0)
			removed += (unsigned int)-growth;
		shrinking += growth < 0;
		growing += growth > 0;
	}
	*ret_n = n;
	p->shrinking += shrinking;
	p->growing += growing;
	if (shrinking && path->top && leaf_fill(leaf) < LEAF_MIN_FILL + removed) {
		int err = plan_siblings(p, path, 0);

		if (err)
			return err;
	}
	return plan_path(p, path, shrinking, growing);
}

int tree_plan(struct slu_store *store, const struct tree_op *ops, unsigned int nops,
	      struct tree_plan *plan, struct slu_need *need)
{
	struct planner p = {.store = store, .need = need, .plan = plan};
	unsigned int n;

	*plan = (struct tree_plan){0};
	for (unsigned int i = 0; i < nops; i += n) {
		struct tree_path path;
		int err = tree_find(store, &ops[i].key, &path, need);

		if (!err)
			err = plan_leaf(&p, &path, ops + i, nops - i, &n);
		if (err)
			return err;
	}
	for (unsigned int level = 0; level < SLU_TREE_MAX_DEPTH; level++)
		plan_level_end(&p, level);
	/* Leaves that split; siblings that are drawn in; a new root, an old one. */
	plan->nodes += p.growing + 2;
	plan->nodes += p.shrinking * (unsigned int)__builtin_popcount(p.merging);
	return 0;
}

int tree_make_ready(struct slu_store *store, const struct tree_plan *plan, unsigned int nodes,
		    size_t freed)
{
	int err = node_cache_fill(store, plan->nodes + nodes);

	return err ? err : freed_list_reserve(&store->open.freed, plan->nodes + freed);
}
