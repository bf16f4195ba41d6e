/* SPDX-License-Identifier: MIT */
/*
 * blockio: the medium of the simulated disk, a sparse array of blocks that can be copied for the
 * price of a reference. Nodes and blocks with more than one reference never change, so copies can
 * be used by several threads; one copy by one thread at a time (simdisk.c's lock sees to that).
 *
 * Test equipment: memory comes from malloc, outside the faults of the data path, and running out
 * of it ends the test.
 */
#include "simdisk.h"
#include <string.h>

#define SIMNODE_SHIFT 6
#define SIMNODE_SLOTS (1u << SIMNODE_SHIFT)

struct simnode {
	_Atomic uint32_t refs;
	void *slot[SIMNODE_SLOTS]; /* nodes; struct simblock at the lowest level */
};

static bool ref_put(_Atomic uint32_t *refs)
{
	return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static void ref_get(_Atomic uint32_t *refs)
{
	atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/* ------------------------------------------------------------------ blocks */

struct simblock *simblock_new(const void *data)
{
	struct simblock *b = malloc(sizeof(*b));

	slu_assert(b);
	atomic_init(&b->refs, 1);
	if (data)
		memcpy(b->data, data, sizeof(b->data));
	return b;
}

struct simblock *simblock_get(struct simblock *b)
{
	if (b)
		ref_get(&b->refs);
	return b;
}

void simblock_put(struct simblock *b)
{
	if (b && ref_put(&b->refs))
		free(b);
}

/* ------------------------------------------------------------------ nodes */

static struct simnode *simnode_new(void)
{
	struct simnode *n = calloc(1, sizeof(*n));

	slu_assert(n);
	atomic_init(&n->refs, 1);
	return n;
}

/* level 0: the slots are blocks. */
static void simnode_put(struct simnode *n, unsigned int level)
{
	if (!n || !ref_put(&n->refs))
		return;
	for (unsigned int i = 0; i < SIMNODE_SLOTS; i++) {
		if (level)
			simnode_put(n->slot[i], level - 1);
		else
			simblock_put(n->slot[i]);
	}
	free(n);
}

/* The node in *slot, made if it is missing, copied if somebody else has it too. */
static struct simnode *simnode_own(struct simnode **slot, unsigned int level)
{
	struct simnode *old = *slot, *n;

	if (old && atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
		return old;
	n = simnode_new();
	for (unsigned int i = 0; old && i < SIMNODE_SLOTS; i++) {
		n->slot[i] = old->slot[i];
		if (n->slot[i] && level)
			ref_get(&((struct simnode *)n->slot[i])->refs);
		else
			(void)simblock_get(n->slot[i]);
	}
	simnode_put(old, level);
	*slot = n;
	return n;
}

/* ------------------------------------------------------------------ the tree */

void simtree_init(struct simtree *t)
{
	t->root = NULL;
	t->depth = 1;
}

void simtree_fini(struct simtree *t)
{
	simnode_put(t->root, t->depth - 1);
	t->root = NULL;
}

void simtree_copy(struct simtree *t, const struct simtree *from)
{
	*t = *from;
	if (t->root)
		ref_get(&t->root->refs);
}

static bool fits(const struct simtree *t, uint64_t blkno)
{
	unsigned int bits = t->depth * SIMNODE_SHIFT;

	return bits >= 64 || !(blkno >> bits);
}

static unsigned int slot_of(uint64_t blkno, unsigned int level)
{
	return (blkno >> (level * SIMNODE_SHIFT)) & (SIMNODE_SLOTS - 1);
}

struct simblock *simtree_get(const struct simtree *t, uint64_t blkno)
{
	const struct simnode *n = t->root;

	if (!fits(t, blkno))
		return NULL;
	for (unsigned int level = t->depth - 1; n && level; level--)
		n = n->slot[slot_of(blkno, level)];
	return n ? n->slot[slot_of(blkno, 0)] : NULL;
}

void simtree_set(struct simtree *t, uint64_t blkno, struct simblock *b)
{
	struct simnode **at, *n;
	struct simblock **slot;

	if (!b && !simtree_get(t, blkno))
		return;
	while (!fits(t, blkno)) {
		if (t->root) {
			n = simnode_new();
			n->slot[0] = t->root;
			t->root = n;
		}
		t->depth++;
	}
	at = &t->root;
	for (unsigned int level = t->depth - 1; level; level--) {
		n = simnode_own(at, level);
		at = (struct simnode **)&n->slot[slot_of(blkno, level)];
	}
	n = simnode_own(at, 0);
	slot = (struct simblock **)&n->slot[slot_of(blkno, 0)];
	(void)simblock_get(b);
	simblock_put(*slot);
	*slot = b;
}

void simtree_merge(struct simtree *t, uint64_t blkno, const struct simblock *b, unsigned int mask)
{
	struct simblock *merged;

	if (!mask)
		return;
	if (mask == SIM_ALL) {
		simtree_set(t, blkno, (struct simblock *)b);
		return;
	}
	merged = simblock_new(simblock_data(simtree_get(t, blkno)));
	for (unsigned int i = 0; i < SIM_NSECTORS; i++)
		if (mask & (1u << i))
			memcpy(merged->data + i * SIM_SECTOR,
			       (const char *)simblock_data(b) + i * SIM_SECTOR, SIM_SECTOR);
	simtree_set(t, blkno, merged);
	simblock_put(merged);
}

static bool simnode_next(const struct simnode *n, unsigned int level, uint64_t base,
			 uint64_t *blkno)
{
	for (unsigned int i = 0; n && i < SIMNODE_SLOTS; i++) {
		uint64_t first = base + ((uint64_t)i << (level * SIMNODE_SHIFT));
		uint64_t last = first + (1ull << (level * SIMNODE_SHIFT)) - 1;

		if (!n->slot[i] || last < *blkno)
			continue;
		if (!level) {
			*blkno = first;
			return true;
		}
		if (simnode_next(n->slot[i], level - 1, first, blkno))
			return true;
	}
	return false;
}

bool simtree_next(const struct simtree *t, uint64_t *blkno)
{
	return simnode_next(t->root, t->depth - 1, 0, blkno);
}
