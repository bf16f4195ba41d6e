/* SPDX-License-Identifier: MIT */
/*
 * Which tree it is, where no superblock is left to say so.
 *
 * The spare superblock says whose nodes to look for. A root covers all keys, and every commit writes
 * one. So the newest transaction of which any node is found is the last one that was committed, or
 * one whose commit came to no end, and if its tree is whole, with its root or from leaves that fit
 * together, it does not matter which. If it is not, the tree of the transaction before is looked at
 * as well: the other superblock reached it, and none of its blocks has been given to anybody since.
 * It is taken if it is whole and less is lost with it: an unfinished commit leaves little of itself,
 * damage leaves most. Older trees do not come into question.
 */
#include "repair_private.h"

struct root_found {
	uint64_t blkno, txid; /* blkno 0: none */
};

struct root_scan {
	uint64_t newest, before;    /* transactions of nodes that were found; 0: none */
	struct root_found roots[2]; /* of these two */
};

/* Keeps the two newest transactions. */
static void root_saw(struct root_scan *scan, uint64_t txid)
{
	if (txid > scan->newest) {
		scan->before = scan->newest;
		scan->roots[1] = scan->roots[0];
		scan->newest = txid;
		scan->roots[0] = (struct root_found){0};
	} else if (txid < scan->newest && txid > scan->before) {
		scan->before = txid;
		scan->roots[1] = (struct root_found){0};
	}
}

static void root_look(struct repair_run *run, void *ctx, uint64_t blkno,
		      const struct slu_disk_node *node)
{
	struct slu_key lower = slu_key_get(node->lower), upper = slu_key_get(node->upper);
	struct slu_key min = SLU_KEY_MIN, max = SLU_KEY_MAX;
	uint64_t txid = slu_get_le64(&node->txid);
	struct root_scan *scan = ctx;

	if (memcmp(node->volume_id, run->super.volume_id, sizeof(node->volume_id)) != 0 ||
	    slu_node_check(node, run->super.volume_id, blkno, 0, -1, NULL, NULL) ||
	    txid > REPAIR_NUMBER_MAX)
		return;
	root_saw(scan, txid);
	if (slu_key_cmp(&lower, &min) != 0 || slu_key_cmp(&upper, &max) != 0)
		return;
	if (txid == scan->newest)
		scan->roots[0] = (struct root_found){blkno, txid};
	else if (txid == scan->before)
		scan->roots[1] = (struct root_found){blkno, txid};
}

static int root_scan(struct repair_run *run, struct root_scan *scan)
{
	struct repair_gap all = {SLU_KEY_MIN, SLU_KEY_MAX, false};
	int err;

	g_array_append_val(run->gaps, all);
	err = repair_scan(run, root_look, scan);
	repair_forget_leaves(run);
	run->newest = scan->newest;
	return err;
}

static int root_try(struct repair_run *run, uint64_t txid, const struct root_found *root)
{
	repair_forget_leaves(run);
	slu_put_le64(&run->super.txid, txid);
	slu_put_le64(&run->super.root_blkno, root->blkno);
	slu_put_le64(&run->super.root_txid, root->txid);
	return repair_find_leaves(run);
}

/* Leaves of `before` with keys that no sound leaf of `newest` has: lost, if that is taken. */
static guint root_lost(const GArray *newest, const GArray *before)
{
	guint lost = 0, j = 0;

	for (guint i = 0; i < before->len; i++) {
		const struct repair_leaf *b = &g_array_index(before, struct repair_leaf, i), *n;
		struct slu_key at = b->lower;

		for (; j < newest->len; j++) {
			n = &g_array_index(newest, struct repair_leaf, j);
			if (slu_key_cmp(&n->upper, &at) <= 0)
				continue;
			if (n->stale || slu_key_cmp(&n->lower, &at) > 0)
				break;
			at = n->upper;
			if (slu_key_cmp(&at, &b->upper) >= 0)
				break;
		}
		lost += slu_key_cmp(&at, &b->upper) < 0;
	}
	return lost;
}

/* Leaves of the transaction: lost, if the one before is taken. */
static guint root_leaves_of(const GArray *leaves, uint64_t txid)
{
	guint n = 0;

	for (guint i = 0; i < leaves->len; i++)
		n += g_array_index(leaves, struct repair_leaf, i).txid == txid;
	return n;
}

/* The newest tree is not whole. Leaves that of the transaction before in its place, or it. */
static int root_go_back(struct repair_run *run, const struct root_scan *scan)
{
	g_autoptr(GArray) newest = g_array_copy(run->leaves);
	int err = root_try(run, scan->before, &scan->roots[1]);

	if (err)
		return err;
	if (repair_leaves_whole(run) &&
	    root_lost(newest, run->leaves) >= root_leaves_of(newest, scan->newest))
		return 0;
	return root_try(run, scan->newest, &scan->roots[0]);
}

int repair_find_tree(struct repair_run *run)
{
	struct root_scan scan = {0};
	uint64_t txid;
	int err = root_scan(run, &scan);

	if (!err && !scan.newest)
		err = -EUCLEAN;
	if (!err)
		err = root_try(run, scan.newest, &scan.roots[0]);
	if (!err && scan.before && !repair_leaves_whole(run))
		err = root_go_back(run, &scan);
	if (err)
		return err;
	txid = slu_get_le64(&run->super.txid);
	if (txid == scan.newest)
		repair_did_super(run, "the tree is that of transaction %" PRIu64, txid);
	else
		repair_did_super(run,
				 "the tree is that of transaction %" PRIu64
				 ", for of transaction %" PRIu64 " not enough is there",
				 txid, scan.newest);
	return 0;
}
