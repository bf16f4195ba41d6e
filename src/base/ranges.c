/* SPDX-License-Identifier: MIT */
/*
 * Sets of disjoint ranges with a value each: a treap ordered by start.
 *
 * Owns the nodes of a pool; a set borrows them. The owner of a set brings the lock for it; the
 * pool's lock is taken here, for the free list alone. It is ordered after every other leaf lock, so
 * a set may also live under one of those. Never waits.
 *
 * A change first works out how many nodes it needs and takes them, then cannot fail. Priorities
 * come from a generator seeded with slu_random, so that nobody outside can choose positions that
 * make the tree deep: the recursions here go as deep as the tree, O(log n).
 */
#include "base_private.h"

struct slu_range_node {
	struct slu_range_node *left, *right; /* in the free list: right is the next */
	struct slu_range range;
	uint64_t priority; /* of a parent: not below its children's */
};

/* Nodes are allocated by the slab and live until the pool's end. */
struct slu_range_slab {
	struct slu_range_slab *next;
	struct slu_range_node nodes[];
};

/* ------------------------------------------------------------------ pool */

int slu_range_pool_init(struct slu_range_pool *p, uint64_t prefill, uint64_t limit)
{
	int err;

	*p = (struct slu_range_pool){.limit = limit, .random = slu_random()};
	slu_mutex_init(&p->lock, SLU_RANK_LEAF, UINT64_MAX, "range pool");
	err = slu_range_pool_fill(p, prefill);
	if (err)
		slu_range_pool_fini(p);
	return err;
}

void slu_range_pool_fini(struct slu_range_pool *p)
{
	struct slu_range_slab *slab;

	/* Every set gave its nodes back. */
	slu_assert(p->nfree == p->ntotal);
	while ((slab = p->slabs)) {
		p->slabs = slab->next;
		slu_free(slab);
	}
	slu_mutex_fini(&p->lock);
	p->free = NULL;
	p->nfree = p->ntotal = 0;
}

/* The output function of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t range_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void pool_put(struct slu_range_pool *p, struct slu_range_node *node)
{
	node->right = p->free;
	p->free = node;
	p->nfree++;
}

#define SLAB_NODES 256u /* at most */

static void pool_add(struct slu_range_pool *p, struct slu_range_slab *slab, uint64_t n)
{
	slab->next = p->slabs;
	p->slabs = slab;
	while (n--)
		pool_put(p, &slab->nodes[n]);
}

int slu_range_pool_fill(struct slu_range_pool *p, uint64_t n)
{
	int err = 0;

	slu_mutex_lock(&p->lock);
	while (p->nfree < n && !err) {
		uint64_t want = slu_min(n - p->nfree, (uint64_t)SLAB_NODES);
		struct slu_range_slab *slab = NULL;

		if (p->limit)
			want = slu_min(want, p->limit - p->ntotal);
		/* Counted before the lock is dropped, so that two of us cannot pass the limit. */
		p->ntotal += want;
		slu_mutex_unlock(&p->lock);
		if (want)
			slab = slu_alloc(sizeof(*slab) + want * sizeof(slab->nodes[0]));
		slu_mutex_lock(&p->lock);
		if (slab) {
			pool_add(p, slab, want);
		} else {
			p->ntotal -= want;
			err = -ENOMEM;
		}
	}
	slu_mutex_unlock(&p->lock);
	return err;
}

/* Takes n nodes, all or none, as a list through `right`; 0 or -ENOMEM. */
static int pool_take(struct slu_range_pool *p, unsigned int n, struct slu_range_node **ret_list)
{
	struct slu_range_node *list = NULL, *node;

	if (n == 0) {
		*ret_list = NULL;
		return 0;
	}
	slu_mutex_lock(&p->lock);
	while (p->nfree < n) {
		slu_mutex_unlock(&p->lock);
		/* Another set may take them before we are back: then try again. */
		if (slu_range_pool_fill(p, n))
			return -ENOMEM;
		slu_mutex_lock(&p->lock);
	}
	while (n--) {
		node = p->free;
		p->free = node->right;
		p->nfree--;
		node->left = NULL;
		node->right = list;
		node->priority = range_mix(p->random += 0x9e3779b97f4a7c15ull);
		list = node;
	}
	slu_mutex_unlock(&p->lock);
	*ret_list = list;
	return 0;
}

static void pool_put_tree(struct slu_range_pool *p, struct slu_range_node *node)
{
	struct slu_range_node *right;

	for (; node; node = right) {
		pool_put_tree(p, node->left);
		right = node->right;
		pool_put(p, node);
	}
}

static void pool_give_back(struct slu_range_pool *p, struct slu_range_node *tree)
{
	if (!tree)
		return;
	slu_mutex_lock(&p->lock);
	pool_put_tree(p, tree);
	slu_mutex_unlock(&p->lock);
}

/* ------------------------------------------------------------------ treap */

/* Splits into what starts before pos and the rest. */
static void treap_split(struct slu_range_node *t, uint64_t pos, struct slu_range_node **ret_before,
			struct slu_range_node **ret_rest)
{
	struct slu_range_node **before = ret_before, **rest = ret_rest;

	while (t) {
		if (t->range.start < pos) {
			*before = t;
			before = &t->right;
			t = t->right;
		} else {
			*rest = t;
			rest = &t->left;
			t = t->left;
		}
	}
	*before = *rest = NULL;
}

/* Everything in a starts before everything in b. */
static struct slu_range_node *treap_merge(struct slu_range_node *a, struct slu_range_node *b)
{
	struct slu_range_node *root, **link = &root;

	while (a && b) {
		if (a->priority >= b->priority) {
			*link = a;
			link = &a->right;
			a = a->right;
		} else {
			*link = b;
			link = &b->left;
			b = b->left;
		}
	}
	*link = a ? a : b;
	return root;
}

static struct slu_range_node *treap_last(struct slu_range_node *t)
{
	while (t && t->right)
		t = t->right;
	return t;
}

/* The last range that starts before pos, or NULL. */
static struct slu_range_node *treap_before(struct slu_range_node *t, uint64_t pos)
{
	struct slu_range_node *found = NULL;

	while (t) {
		if (t->range.start < pos) {
			found = t;
			t = t->right;
		} else {
			t = t->left;
		}
	}
	return found;
}

/* The first range that ends after pos, or NULL: ends are in the order of starts. */
static struct slu_range_node *treap_ends_after(struct slu_range_node *t, uint64_t pos)
{
	struct slu_range_node *found = NULL;

	while (t) {
		if (t->range.end > pos) {
			found = t;
			t = t->left;
		} else {
			t = t->right;
		}
	}
	return found;
}

/* Ranges and their weight in a tree that is being dropped. */
static void treap_sum(const struct slu_range_node *t, uint64_t *count, uint64_t *weight)
{
	for (; t; t = t->right) {
		treap_sum(t->left, count, weight);
		*count += 1;
		*weight += t->range.end - t->range.start;
	}
}

/* ------------------------------------------------------------------ sets */

void slu_ranges_init(struct slu_ranges *s, struct slu_range_pool *pool, bool join)
{
	*s = (struct slu_ranges){.pool = pool, .join = join};
}

void slu_ranges_fini(struct slu_ranges *s)
{
	pool_give_back(s->pool, s->root);
	s->root = NULL;
	s->count = s->weight = 0;
}

/* Whether one range reaches beyond [start, end) on both sides and would fall in two. */
static bool ranges_splits(const struct slu_ranges *s, uint64_t start, uint64_t end)
{
	const struct slu_range_node *before = treap_before(s->root, start);

	return before && before->range.end > end;
}

/*
 * Cuts [start, end) out: *ret_left and *ret_right are what remains on either side, *ret_cut the
 * nodes that are free now. `spare` is a node if ranges_splits(), else NULL.
 */
static void ranges_cut(struct slu_ranges *s, uint64_t start, uint64_t end,
		       struct slu_range_node *spare, struct slu_range_node **ret_left,
		       struct slu_range_node **ret_cut, struct slu_range_node **ret_right)
{
	struct slu_range_node *left, *cut, *right, *last;
	uint64_t count = 0, weight = 0;

	treap_split(s->root, start, &left, &right);
	treap_split(right, end, &cut, &right);
	s->root = NULL;

	/* The last range before may reach into the cut, or through it. */
	last = treap_last(left);
	if (last && last->range.end > start) {
		uint64_t last_end = last->range.end;

		s->weight -= slu_min(last_end, end) - start;
		last->range.end = start;
		if (last_end > end) {
			slu_assert(spare && !cut);
			spare->left = spare->right = NULL;
			spare->range = (struct slu_range){end, last_end, last->range.value};
			right = treap_merge(spare, right);
			s->count++;
			spare = NULL;
		}
	}
	slu_assert(!spare);

	/* The last range inside may reach out of it: it stays, from end on. */
	last = treap_last(cut);
	if (last && last->range.end > end) {
		struct slu_range_node *kept;

		treap_split(cut, last->range.start, &cut, &kept);
		slu_assert(kept == last && !kept->left && !kept->right);
		s->weight -= end - last->range.start;
		last->range.start = end;
		right = treap_merge(kept, right);
	}

	treap_sum(cut, &count, &weight);
	s->count -= count;
	s->weight -= weight;
	*ret_left = left;
	*ret_cut = cut;
	*ret_right = right;
}

/* Widens [*start, *end) over neighbours that touch or overlap it and have the same value. */
static void ranges_widen(const struct slu_ranges *s, uint64_t *start, uint64_t *end, uint64_t value)
{
	const struct slu_range_node *left = treap_before(s->root, *start);
	const struct slu_range_node *right = treap_before(s->root, *end);

	if (left && left->range.end >= *start && left->range.value == value)
		*start = left->range.start;
	if (right && right->range.end >= *end && right->range.value == value) {
		*end = right->range.end;
	} else {
		/* Or one that begins just where this ends. */
		right = treap_ends_after(s->root, *end);
		if (right && right->range.start == *end && right->range.value == value)
			*end = right->range.end;
	}
}

/* Nodes that setting [start, end) takes beyond those it frees. */
static unsigned int ranges_set_needs(const struct slu_ranges *s, uint64_t start, uint64_t end)
{
	const struct slu_range_node *before = treap_before(s->root, start);
	const struct slu_range_node *inside;

	if (before && before->range.end > end)
		return 2;
	/* A range that lies in [start, end) whole leaves its node. */
	inside = treap_ends_after(s->root, start);
	if (inside && inside == before)
		inside = treap_ends_after(s->root, before->range.end);
	return inside && inside->range.end <= end ? 0 : 1;
}

int slu_ranges_set(struct slu_ranges *s, uint64_t start, uint64_t end, uint64_t value)
{
	struct slu_range_node *taken, *node, *spare = NULL;
	struct slu_range_node *left, *cut, *right;
	int err;

	slu_assert(start <= end);
	if (start == end)
		return 0;
	if (s->join)
		ranges_widen(s, &start, &end, value);

	err = pool_take(s->pool, ranges_set_needs(s, start, end), &taken);
	if (err)
		return err;
	node = taken;
	if (node && node->right) {
		spare = node->right;
		node->right = NULL;
	}
	ranges_cut(s, start, end, spare, &left, &cut, &right);
	if (!node) {
		/* The root of what was cut; its priority, the greatest of those, is drawn anew. */
		node = cut;
		cut = treap_merge(node->left, node->right);
		node->left = node->right = NULL;
		node->priority = range_mix(node->priority);
	}
	node->range = (struct slu_range){start, end, value};
	s->root = treap_merge(treap_merge(left, node), right);
	s->count++;
	s->weight += end - start;
	pool_give_back(s->pool, cut);
	return 0;
}

int slu_ranges_clear(struct slu_ranges *s, uint64_t start, uint64_t end)
{
	struct slu_range_node *spare, *left, *cut, *right;
	int err;

	slu_assert(start <= end);
	if (start == end || !s->root)
		return 0;
	err = pool_take(s->pool, ranges_splits(s, start, end), &spare);
	if (err)
		return err;
	ranges_cut(s, start, end, spare, &left, &cut, &right);
	s->root = treap_merge(left, right);
	pool_give_back(s->pool, cut);
	return 0;
}

bool slu_ranges_at_or_after(const struct slu_ranges *s, uint64_t pos, struct slu_range *ret)
{
	const struct slu_range_node *found = treap_ends_after(s->root, pos);

	if (!found)
		return false;
	*ret = found->range;
	return true;
}

bool slu_ranges_find(const struct slu_ranges *s, uint64_t pos, struct slu_range *ret)
{
	const struct slu_range_node *found = treap_ends_after(s->root, pos);

	if (!found || found->range.start > pos)
		return false;
	*ret = found->range;
	return true;
}

static uint64_t treap_covered(const struct slu_range_node *t, uint64_t start, uint64_t end)
{
	uint64_t covered = 0;

	while (t) {
		if (t->range.end <= start) {
			t = t->right;
		} else if (t->range.start >= end) {
			t = t->left;
		} else {
			covered += slu_min(t->range.end, end) - slu_max(t->range.start, start);
			covered += treap_covered(t->left, start, end);
			t = t->right;
		}
	}
	return covered;
}

uint64_t slu_ranges_covered(const struct slu_ranges *s, uint64_t start, uint64_t end)
{
	return start < end ? treap_covered(s->root, start, end) : 0;
}
