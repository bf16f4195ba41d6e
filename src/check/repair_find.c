/* SPDX-License-Identifier: MIT */
/*
 * Which leaves are believed.
 *
 * First those that a walk from the root reaches. Where it cannot go on (a gap: a range of keys under
 * a bad node), the volume is looked through for leaves that lie within the gap. Blocks that belong
 * to an extent or are free, as far as records that were reached say so, are not looked at. Of what
 * is found, newest first, a leaf is taken if
 *
 *	nothing newer that was taken covers part of its keys: such a leaf has replaced it;
 *	no extent in a newer leaf owns its block: that was freed and is a file's now;
 *	no space record as new as the leaf calls its block free.
 *
 * A space record on disk is true for the transaction that wrote it, so an old one disproves what is
 * as old, and says nothing about what is newer. A leaf whose block nothing proves to be in use is
 * taken too, but is `stale`: it may be a predecessor of what was lost. Its extents give way to those
 * of all others, and people are told.
 */
#include "repair_private.h"

#define FIND_READ 256u /* blocks at a time */

void repair_each_record(struct repair_run *run, const struct repair_leaf *leaf,
			const struct slu_disk_node *node, repair_record_fn *fn)
{
	const struct slu_disk_leaf_slot *slots = (const struct slu_disk_leaf_slot *)node->body;
	unsigned int n = slu_get_le16(&node->count);

	for (unsigned int i = 0; i < n; i++) {
		struct slu_key key = slu_key_get(slots[i].key);

		fn(run, leaf, &key, (const uint8_t *)node + slu_get_le16(&slots[i].off),
		   slu_get_le16(&slots[i].len));
	}
}

/* ------------------------------------------------------------------ gaps */

static const struct repair_gap *find_gap(const struct repair_run *run, const struct slu_key *key)
{
	guint lo = 0, hi = run->gaps->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;
		struct repair_gap *g = &g_array_index(run->gaps, struct repair_gap, mid);

		if (slu_key_cmp(key, &g->lower) < 0)
			hi = mid;
		else if (slu_key_cmp(key, &g->upper) >= 0)
			lo = mid + 1;
		else
			return g;
	}
	return NULL;
}

bool repair_in_gap(const struct repair_run *run, const struct slu_key *key)
{
	return find_gap(run, key) != NULL;
}

/* ------------------------------------------------------------------ evidence in a leaf */

static void find_learn_space(struct repair_run *run, const struct repair_leaf *leaf,
			     const struct slu_key *key, const uint8_t *value, size_t len)
{
	/* What was reached from the root is true to this day. */
	if (key->ino == SLU_INO_VOLUME && key->type == SLU_REC_SPACE && len == SLU_CHUNK_BYTES)
		repair_space_record(run, key->off, value, leaf->found ? leaf->txid : UINT64_MAX);
}

static void find_learn_extents(struct repair_run *run, const struct repair_leaf *leaf,
			       const struct slu_key *key, const uint8_t *value, size_t len)
{
	struct slu_disk_extent de;
	uint64_t blkno, n;

	if (key->ino == SLU_INO_VOLUME || key->type != SLU_REC_EXTENT || len != sizeof(de))
		return;
	memcpy(&de, value, sizeof(de));
	blkno = slu_get_le64(&de.blkno);
	n = slu_get_le32(&de.nblocks);
	if (n <= SLU_EXTENT_MAX && blkno < run->nblocks)
		repair_set(run, REPAIR_SOLID, blkno, slu_min(n, run->nblocks - blkno));
}

/* A block that cannot be read, or lost what was in it, is no place for a node of the new tree. */
static void find_avoid(struct repair_run *run, uint64_t blkno)
{
	if (blkno >= 2 && blkno < run->end)
		repair_set(run, REPAIR_SOLID, blkno, 1);
}

/* ------------------------------------------------------------------ the walk */

struct find_place {
	uint64_t blkno, txid;
	int level; /* -1: any */
	struct slu_key lower, upper;
};

static int find_walk(struct repair_run *run, struct slu_disk_node *nodes,
		     const struct find_place *at)
{
	const struct slu_disk_inner_slot *slots = (const struct slu_disk_inner_slot *)nodes->body;
	struct repair_leaf leaf = {at->lower, at->upper, at->blkno, at->txid, false, false};
	unsigned int level, count;
	int err = repair_step(run, 1);

	if (err)
		return err;
	if (at->blkno < 2 || at->blkno >= run->end ||
	    slu_blockio_read(run->bio, at->blkno, 1, nodes) ||
	    slu_node_check(nodes, run->super.volume_id, at->blkno, at->txid, at->level, &at->lower,
			   &at->upper)) {
		struct repair_gap gap = {at->lower, at->upper, at->level == 0};

		if (at->level < 0)
			gap.leaf = slu_get_le64(&run->super.node_blocks) == 1;
		g_array_append_val(run->gaps, gap);
		find_avoid(run, at->blkno);
		if (at->blkno)
			repair_detail(run, "block %" PRIu64 ": no node that can be believed",
				      at->blkno);
		return 0;
	}
	repair_set(run, REPAIR_NODE, at->blkno, 1);
	run->walked_nodes++;
	level = slu_get_le16(&nodes->level);
	count = slu_get_le16(&nodes->count);
	if (!level) {
		g_array_append_val(run->leaves, leaf);
		repair_each_record(run, &leaf, nodes, find_learn_space);
		repair_each_record(run, &leaf, nodes, find_learn_extents);
		return 0;
	}
	for (unsigned int i = 0; i < count && !err; i++) {
		struct find_place child = {
			.blkno = slu_get_le64(&slots[i].blkno),
			.txid = slu_get_le64(&slots[i].txid),
			.level = (int)level - 1,
			.lower = slu_key_get(slots[i].key),
			.upper = i + 1 < count ? slu_key_get(slots[i + 1].key) : at->upper,
		};

		err = find_walk(run, nodes + 1, &child);
	}
	return err;
}

/* ------------------------------------------------------------------ the scan */

static void find_candidate(struct repair_run *run, void *ctx, uint64_t blkno,
			   const struct slu_disk_node *node)
{
	GArray *found = ctx;
	struct repair_leaf leaf = {.blkno = blkno, .found = true};
	const struct repair_gap *gap;

	if (memcmp(node->volume_id, run->super.volume_id, sizeof(node->volume_id)) != 0 ||
	    slu_node_check(node, run->super.volume_id, blkno, 0, -1, NULL, NULL))
		return;
	leaf.txid = slu_get_le64(&node->txid);
	if (leaf.txid <= REPAIR_NUMBER_MAX)
		run->newest = slu_max(run->newest, leaf.txid);
	/* Of a commit that came to no end: it counts as little as if it had never begun. */
	if (leaf.txid > slu_get_le64(&run->super.txid))
		return;
	leaf.lower = slu_key_get(node->lower);
	leaf.upper = slu_key_get(node->upper);
	gap = find_gap(run, &leaf.lower);
	if (slu_get_le16(&node->level) || !gap || slu_key_cmp(&leaf.upper, &gap->upper) > 0)
		return;
	g_array_append_val(found, leaf);
}

static bool find_wanted(struct repair_run *run, uint64_t blkno)
{
	return blkno >= 2 && !repair_test(run, REPAIR_NODE, blkno) &&
	       !repair_test(run, REPAIR_SOLID, blkno) && repair_proof(run, blkno, 0) != REPAIR_FREE;
}

struct find_scan {
	repair_scan_fn *fn;
	void *ctx;
	struct slu_disk_node *buf; /* FIND_READ blocks */
};

static int find_read(struct repair_run *run, const struct find_scan *scan, uint64_t blkno,
		     uint32_t n)
{
	struct slu_disk_node *buf = scan->buf;
	int err = slu_blockio_read(run->bio, blkno, n, buf);

	for (uint32_t i = 0; i < n; i++) {
		/* One bad sector does not take the others away. */
		if (err && slu_blockio_read(run->bio, blkno + i, 1, &buf[i]))
			find_avoid(run, blkno + i);
		else
			scan->fn(run, scan->ctx, blkno + i, &buf[i]);
	}
	return repair_step(run, n);
}

int repair_scan(struct repair_run *run, repair_scan_fn *fn, void *ctx)
{
	struct find_scan scan = {fn, ctx, NULL};
	uint64_t start = 0;
	uint32_t n = 0;
	int err = 0;

	scan.buf = slu_alloc_aligned(SLU_BLOCK_SIZE, FIND_READ * sizeof(*scan.buf));
	if (!scan.buf)
		return -ENOMEM;
	repair_phase(run, SLU_REPAIR_SEARCH, run->end);
	for (uint64_t blkno = 0; blkno < run->end && !err; blkno++) {
		if (!find_wanted(run, blkno)) {
			err = repair_step(run, 1);
			continue;
		}
		if (n == FIND_READ || (n && start + n != blkno)) {
			err = find_read(run, &scan, start, n);
			n = 0;
		}
		if (!n)
			start = blkno;
		n++;
	}
	if (n && !err)
		err = find_read(run, &scan, start, n);
	slu_free(scan.buf);
	return err;
}

/* ------------------------------------------------------------------ which of them */

/* Newest first; of one transaction the space records first. */
static gint find_by_age(gconstpointer a, gconstpointer b)
{
	const struct repair_leaf *x = a, *y = b;

	if (x->txid != y->txid)
		return x->txid > y->txid ? -1 : 1;
	return slu_key_cmp(&x->lower, &y->lower);
}

static gint find_by_key(gconstpointer a, gconstpointer b)
{
	const struct repair_leaf *x = a, *y = b;

	return slu_key_cmp(&x->lower, &y->lower);
}

static gint find_tree_cmp(gconstpointer a, gconstpointer b)
{
	return slu_key_cmp(a, b);
}

/* Whether something that was taken covers part of it. taken: lower → upper key. */
static bool find_covered(GTree *taken, const struct repair_leaf *leaf)
{
	GTreeNode *next = g_tree_lower_bound(taken, &leaf->lower), *prev;

	if (next && slu_key_cmp(g_tree_node_key(next), &leaf->upper) < 0)
		return true;
	prev = next ? g_tree_node_previous(next) : g_tree_node_last(taken);
	return prev && slu_key_cmp(g_tree_node_value(prev), &leaf->lower) > 0;
}

static int find_take(struct repair_run *run, GTree *taken, struct repair_leaf *leaf,
		     struct slu_disk_node *buf)
{
	enum repair_proof proof = repair_proof(run, leaf->blkno, leaf->txid);

	if (proof == REPAIR_FREE || find_covered(taken, leaf) ||
	    repair_test(run, REPAIR_SOLID, leaf->blkno) ||
	    repair_test(run, REPAIR_NODE, leaf->blkno)) {
		repair_detail(run,
			      "block %" PRIu64 ": a leaf of transaction %" PRIu64
			      " that has been replaced",
			      leaf->blkno, leaf->txid);
		return 0;
	}
	if (slu_blockio_read(run->bio, leaf->blkno, 1, buf) ||
	    slu_node_check(buf, run->super.volume_id, leaf->blkno, leaf->txid, 0, &leaf->lower,
			   &leaf->upper))
		return -EIO;
	g_tree_insert(taken, &leaf->lower, &leaf->upper);
	/*
	 * Under a bad inner node the newest space records are those that counted, and may speak for
	 * their own block. Where a leaf is bad, whatever lies in its place is an older one.
	 */
	if (!find_gap(run, &leaf->lower)->leaf) {
		repair_each_record(run, leaf, buf, find_learn_space);
		proof = repair_proof(run, leaf->blkno, leaf->txid);
	}
	leaf->stale = proof != REPAIR_IN_USE;
	if (!leaf->stale)
		repair_each_record(run, leaf, buf, find_learn_extents);
	repair_set(run, REPAIR_NODE, leaf->blkno, 1);
	g_array_append_val(run->leaves, *leaf);
	run->result->found_leaves++;
	repair_detail(run, "block %" PRIu64 ": a leaf of transaction %" PRIu64 " is believed%s",
		      leaf->blkno, leaf->txid, leaf->stale ? ", and may be out of date" : "");
	return 0;
}

static int find_choose(struct repair_run *run, GArray *found)
{
	struct slu_disk_node *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, sizeof(*buf));
	GTree *taken = g_tree_new(find_tree_cmp);
	int err = buf ? 0 : -ENOMEM;

	g_array_sort(found, find_by_age);
	for (guint i = 0; i < found->len && !err; i++)
		err = find_take(run, taken, &g_array_index(found, struct repair_leaf, i), buf);
	g_array_sort(run->leaves, find_by_key);
	g_tree_unref(taken);
	slu_free(buf);
	return err;
}

/* ------------------------------------------------------------------ what is lost */

static char *find_key_name(const struct slu_key *key)
{
	if (key->ino == UINT64_MAX)
		return g_strdup("the end");
	return key->ino == SLU_INO_VOLUME ? g_strdup("the volume's own")
					  : g_strdup_printf("inode %" PRIu64, key->ino);
}

static void find_lost(struct repair_run *run, const struct slu_key *from, const struct slu_key *to)
{
	g_autofree char *one = find_key_name(from), *two = find_key_name(to);

	run->result->lost_ranges++;
	repair_did(run, "records from %s to %s are lost", one, two);
}

static void find_tell_stale(struct repair_run *run, const struct repair_leaf *l)
{
	g_autofree char *one = find_key_name(&l->lower), *two = find_key_name(&l->upper);

	repair_did(run,
		   "block %" PRIu64 ": records from %s to %s are those of transaction %" PRIu64
		   " and may be out of date",
		   l->blkno, one, two, l->txid);
}

/* Whatever the believed leaves leave open. */
static void find_tell_lost(struct repair_run *run)
{
	struct slu_key at = SLU_KEY_MIN, end = SLU_KEY_MAX;

	for (guint i = 0; i < run->leaves->len; i++) {
		struct repair_leaf *l = &g_array_index(run->leaves, struct repair_leaf, i);

		if (slu_key_cmp(&at, &l->lower) < 0)
			find_lost(run, &at, &l->lower);
		if (l->stale)
			find_tell_stale(run, l);
		at = l->upper;
	}
	if (slu_key_cmp(&at, &end) < 0)
		find_lost(run, &at, &end);
}

bool repair_leaves_whole(const struct repair_run *run)
{
	struct slu_key at = SLU_KEY_MIN, end = SLU_KEY_MAX;

	for (guint i = 0; i < run->leaves->len; i++) {
		const struct repair_leaf *l = &g_array_index(run->leaves, struct repair_leaf, i);

		if (l->stale || slu_key_cmp(&at, &l->lower) < 0)
			return false;
		at = l->upper;
	}
	return slu_key_cmp(&at, &end) == 0;
}

void repair_forget_leaves(struct repair_run *run)
{
	g_array_set_size(run->leaves, 0);
	g_array_set_size(run->gaps, 0);
	g_hash_table_remove_all(run->chunks);
	run->walked_nodes = 0;
	run->result->found_leaves = 0;
	run->change = false;
}

int repair_find_leaves(struct repair_run *run)
{
	struct find_place root = {
		.blkno = slu_get_le64(&run->super.root_blkno),
		.txid = slu_get_le64(&run->super.root_txid),
		.level = -1,
		.lower = SLU_KEY_MIN,
		.upper = SLU_KEY_MAX,
	};
	struct slu_disk_node *nodes =
		slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_TREE_MAX_DEPTH * sizeof(*nodes));
	uint32_t ndeferred = slu_min(slu_get_le32(&run->super.ndeferred),
				     (uint32_t)slu_array_size(run->super.deferred));
	int err = nodes ? find_walk(run, nodes, &root) : -ENOMEM;

	slu_free(nodes);
	for (uint32_t i = 0; i < ndeferred; i++) {
		uint64_t blkno = slu_get_le64(&run->super.deferred[i]);

		if (blkno >= 2 && blkno < run->end)
			repair_set(run, REPAIR_NODE, blkno, 1);
		else
			run->change = true;
	}
	if (!err && run->gaps->len) {
		GArray *found = g_array_new(FALSE, FALSE, sizeof(struct repair_leaf));

		run->change = true;
		err = repair_scan(run, find_candidate, found);
		if (!err)
			err = find_choose(run, found);
		g_array_unref(found);
	}
	return err;
}

int repair_find(struct repair_run *run)
{
	int err = run->from_spare ? repair_find_tree(run) : repair_find_leaves(run);

	if (!err)
		find_tell_lost(run);
	run->result->leaves = run->leaves->len;
	return err;
}
