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

struct node_place_disk node_place_root(void)
{
	return (struct node_place_disk){
		.level = -1,
		.lower = slu_key_get(tree_key_min),
		.upper = slu_key_get(tree_key_max),
	};
}

struct node_place_disk node_place_child(const struct slu_disk_node *d, unsigned int i)
{
	return (struct node_place_disk){
		.ref = inner_ref(d, i),
		.level = (int)disk_level(d) - 1,
		.lower = slu_key_get(inner_slot(d, i)->key),
		.upper = slu_key_get(inner_child_upper(d, i)),
	};
}

const char *node_read_disk(struct slu_store *store, const struct node_place_disk *at,
			   uint64_t nblocks, struct slu_disk_node *d, bool *ret_read)
{
	*ret_read = false;
	if (at->ref.number < 2 || at->ref.number >= nblocks)
		return "a child outside the volume";
	if (slu_blockio_read(store->bio, at->ref.number, 1, d))
		return "cannot be read";
	*ret_read = true;
	return slu_node_check(d, store->super.volume_id, at->ref.number, at->ref.txid, at->level,
			      &at->lower, &at->upper);
}

static int walk_node(struct walk *w, const struct node_place_disk *at, unsigned int depth)
{
	struct slu_disk_node *d = &w->nodes[depth];
	struct slu_node_visit v = {.blkno = at->ref.number};
	bool read;
	int err;

	v.wrong = node_read_disk(w->store, at, slu_get_le64(&w->store->super.nblocks), d, &read);
	v.node = read ? d : NULL;
	v.level = at->level >= 0 ? (unsigned int)at->level : read ? disk_level(d) : 0;
	err = w->fn(w->ctx, &v);
	if (err || v.wrong || !disk_level(d))
		return err;
	for (unsigned int i = 0; i < disk_count(d) && !err; i++) {
		struct node_place_disk child = node_place_child(d, i);

		err = walk_node(w, &child, depth + 1);
	}
	return err;
}

int slu_store_walk(struct slu_store *store, int (*fn)(void *ctx, const struct slu_node_visit *v),
		   void *ctx)
{
	struct walk w = {.store = store, .fn = fn, .ctx = ctx};
	struct node_place_disk root = node_place_root();
	int err;

	root.ref = (struct node_ref){slu_get_le64(&store->super.root_blkno),
				     slu_get_le64(&store->super.root_txid)};
	slu_assert_no_locks("a walk over the nodes");
	/* Levels go down by one at each step, and a root's is below SLU_TREE_MAX_DEPTH. */
	w.nodes = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_TREE_MAX_DEPTH * sizeof(*w.nodes));
	if (!w.nodes)
		return -ENOMEM;
	err = walk_node(&w, &root, 0);
	slu_free(w.nodes);
	return err;
}
