/* SPDX-License-Identifier: MIT */
/*
 * The walk over all nodes that fsck makes: from the superblock that was opened, straight from the
 * disk, trusting nothing.
 *
 * Takes no lock and leaves the node cache alone; the volume must not change meanwhile (read-only
 * stores, or one that is not handed out yet).
 */
#include "store_private.h"

struct walk {
	struct slu_store *store;
	int (*fn)(void *ctx, const struct slu_node_visit *v);
	void *ctx;
	struct slu_disk_node *nodes; /* one for each level */
};

struct walk_place {
	struct node_ref ref;
	int level; /* -1: any */
	struct slu_key lower, upper;
};

static const char *walk_read(struct walk *w, const struct walk_place *at, struct slu_disk_node *d,
			     bool *ret_read)
{
	struct slu_store *store = w->store;

	*ret_read = false;
	if (at->ref.number < 2 || at->ref.number >= slu_get_le64(&store->super.nblocks))
		return "a child outside the volume";
	if (slu_blockio_read(store->bio, at->ref.number, 1, d))
		return "cannot be read";
	*ret_read = true;
	return slu_node_check(d, store->super.volume_id, at->ref.number, at->ref.txid, at->level,
			      &at->lower, &at->upper);
}

static int walk_node(struct walk *w, const struct walk_place *at, unsigned int depth)
{
	struct slu_disk_node *d = &w->nodes[depth];
	struct slu_node_visit v = {.blkno = at->ref.number};
	bool read;
	int err;

	v.wrong = walk_read(w, at, d, &read);
	v.node = read ? d : NULL;
	v.level = at->level >= 0 ? (unsigned int)at->level : read ? disk_level(d) : 0;
	err = w->fn(w->ctx, &v);
	if (err || v.wrong || !disk_level(d))
		return err;
	for (unsigned int i = 0; i < disk_count(d) && !err; i++) {
		struct walk_place child = {
			.ref = inner_ref(d, i),
			.level = (int)disk_level(d) - 1,
			.lower = slu_key_get(inner_slot(d, i)->key),
			.upper = slu_key_get(inner_child_upper(d, i)),
		};

		err = walk_node(w, &child, depth + 1);
	}
	return err;
}

int slu_store_walk(struct slu_store *store, int (*fn)(void *ctx, const struct slu_node_visit *v),
		   void *ctx)
{
	struct walk w = {.store = store, .fn = fn, .ctx = ctx};
	struct walk_place root = {
		.ref = {slu_get_le64(&store->super.root_blkno),
			slu_get_le64(&store->super.root_txid)},
		.level = -1,
		.lower = slu_key_get(tree_key_min),
		.upper = slu_key_get(tree_key_max),
	};
	int err;

	slu_assert_no_locks("a walk over the nodes");
	/* Levels go down by one at each step, and a root's is below SLU_TREE_MAX_DEPTH. */
	w.nodes = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_TREE_MAX_DEPTH * sizeof(*w.nodes));
	if (!w.nodes)
		return -ENOMEM;
	err = walk_node(&w, &root, 0);
	slu_free(w.nodes);
	return err;
}
