/* SPDX-License-Identifier: MIT */
/*
 * The new tree, from records in the order of their keys: leaves as they fill up, then the space
 * records, which come first among the keys and can be written only when every block of the tree has
 * been chosen, then the levels above.
 *
 * Leaves keep some room, so that not the first change splits each. All nodes but the last one of
 * each level are filled to a third and more, as the store asks for. The first leaf stays in memory:
 * two space records or less go into it, more get leaves of their own.
 */
#include "repair_private.h"
#include <xxhash.h>

#define BUILD_FILL       3600u /* bytes of a leaf */
#define BUILD_SPACE      (SLU_RECORD_OVERHEAD + SLU_CHUNK_BYTES)
#define BUILD_FIRST_FILL (BUILD_FILL - 2 * BUILD_SPACE)
#define BUILD_PER_LEAF   (BUILD_FILL / BUILD_SPACE) /* space records */
#define BUILD_CHILDREN   110u                       /* of an inner node */
#define BUILD_WRITE      256u                       /* blocks at a time */

struct build_child {
	struct slu_key lower;
	uint64_t blkno;
};

struct repair_build {
	struct repair_run *run;
	uint64_t txid, seed, cursor, nodes;
	int err; /* the first one; nothing is done after it */
	struct slu_disk_node *first, *leaf;
	struct slu_disk_node *out; /* BUILD_WRITE nodes on their way to adjacent blocks */
	uint64_t out_start;
	uint32_t out_count;
	GArray *children; /* of struct build_child: the leaves, in order */
};

struct repair_build *repair_build_new(struct repair_run *run, uint64_t txid)
{
	struct repair_build *b = g_new0(struct repair_build, 1);

	b->run = run;
	b->txid = txid;
	b->cursor = SLU_NODES_FROM;
	b->seed = XXH3_64bits(run->super.volume_id, sizeof(run->super.volume_id));
	b->children = g_array_new(FALSE, FALSE, sizeof(struct build_child));
	b->out = slu_alloc_aligned(SLU_BLOCK_SIZE, (BUILD_WRITE + 2) * sizeof(*b->out));
	if (!b->out)
		b->err = -ENOMEM;
	b->first = b->out + BUILD_WRITE;
	b->leaf = b->first; /* as long as it is the first */
	return b;
}

void repair_build_free(struct repair_build *b)
{
	if (!b)
		return;
	g_array_unref(b->children);
	slu_free(b->out);
	g_free(b);
}

/* ------------------------------------------------------------------ nodes */

static void build_flush(struct repair_build *b)
{
	if (b->out_count && !b->err)
		b->err = slu_blockio_write(b->run->bio, b->out_start, b->out_count, b->out);
	b->out_count = 0;
}

static void build_write(struct repair_build *b, struct slu_disk_node *node, uint64_t blkno)
{
	slu_put_le64(&node->blkno, blkno);
	slu_put_le64(&node->txid, b->txid);
	slu_put_le64(&node->checksum,
		     XXH3_64bits_withSeed((const char *)node + 8, SLU_BLOCK_SIZE - 8, b->seed));
	if (b->out_count == BUILD_WRITE || (b->out_count && b->out_start + b->out_count != blkno))
		build_flush(b);
	if (!b->out_count)
		b->out_start = blkno;
	b->out[b->out_count++] = *node;
	b->nodes++;
}

static uint64_t build_block(struct repair_build *b)
{
	uint64_t blkno = 0;

	if (!b->err)
		b->err = repair_take_block(b->run, &b->cursor, &blkno);
	return blkno;
}

static void build_init(struct repair_build *b, struct slu_disk_node *node, unsigned int level,
		       const struct slu_key *lower)
{
	memset(node, 0, sizeof(*node));
	memcpy(node->volume_id, b->run->super.volume_id, sizeof(node->volume_id));
	slu_put_le16(&node->level, (uint16_t)level);
	slu_put_le16(&node->heap, level ? 0 : SLU_BLOCK_SIZE);
	slu_key_put(node->lower, lower);
}

static unsigned int build_fill(const struct slu_disk_node *leaf)
{
	return slu_get_le16(&leaf->count) * SLU_RECORD_OVERHEAD + SLU_BLOCK_SIZE -
	       slu_get_le16(&leaf->heap);
}

static void build_append(struct slu_disk_node *leaf, const struct slu_key *key, const void *value,
			 size_t len)
{
	struct slu_disk_leaf_slot *slots = (struct slu_disk_leaf_slot *)leaf->body;
	unsigned int n = slu_get_le16(&leaf->count), heap = slu_get_le16(&leaf->heap);

	slu_assert(build_fill(leaf) + SLU_RECORD_OVERHEAD + len <= SLU_NODE_BODY);
	heap -= (unsigned int)len;
	slu_key_put(slots[n].key, key);
	slu_put_le16(&slots[n].off, (uint16_t)heap);
	slu_put_le16(&slots[n].len, (uint16_t)len);
	memcpy((uint8_t *)leaf + heap, value, len);
	slu_put_le16(&leaf->heap, (uint16_t)heap);
	slu_put_le16(&leaf->count, (uint16_t)(n + 1));
}

/* ------------------------------------------------------------------ records */

static void build_end_leaf(struct repair_build *b, const struct slu_key *upper)
{
	slu_key_put(b->leaf->upper, upper);
	if (b->leaf != b->first)
		build_write(
			b, b->leaf,
			g_array_index(b->children, struct build_child, b->children->len - 1).blkno);
	b->leaf = b->first + 1;
}

static void build_add(struct repair_build *b, const struct slu_key *key, const void *value,
		      size_t len)
{
	unsigned int limit = b->leaf == b->first ? BUILD_FIRST_FILL : BUILD_FILL;
	bool begin = !b->children->len;

	if (b->err)
		return;
	if (!begin && build_fill(b->leaf) + SLU_RECORD_OVERHEAD + len > limit) {
		build_end_leaf(b, key);
		begin = true;
	}
	if (begin) {
		struct build_child child = {*key, build_block(b)};

		build_init(b, b->leaf, 0, key);
		g_array_append_val(b->children, child);
	}
	build_append(b->leaf, key, value, len);
}

static void emit_one(struct repair_run *run, const struct slu_key *key, const void *value,
		     size_t len)
{
	run->record_bytes += SLU_RECORD_OVERHEAD + len;
	run->ninodes += key->type == SLU_REC_INODE;
	if (run->build)
		build_add(run->build, key, value, len);
}

static void emit_additions(struct repair_run *run, const struct slu_key *before)
{
	for (; run->next_addition < run->additions->len; run->next_addition++) {
		struct repair_addition *a =
			&g_array_index(run->additions, struct repair_addition, run->next_addition);

		if (before && slu_key_cmp(&a->key, before) >= 0)
			return;
		emit_one(run, &a->key, a->value, a->len);
	}
}

void repair_emit(struct repair_run *run, const struct slu_key *key, const void *value, size_t len)
{
	emit_additions(run, key);
	emit_one(run, key, value, len);
}

void repair_emit_rest(struct repair_run *run)
{
	emit_additions(run, NULL);
}

/* ------------------------------------------------------------------ space records */

static uint64_t build_inner_count(uint64_t children)
{
	uint64_t all = 0;

	while (children > 1) {
		children = (children + BUILD_CHILDREN - 1) / BUILD_CHILDREN;
		all += children;
	}
	return all;
}

static unsigned int build_space_leaves(size_t nchunks)
{
	return nchunks <= 2 ? 0 : (unsigned int)((nchunks + BUILD_PER_LEAF - 1) / BUILD_PER_LEAF);
}

/*
 * Chooses the blocks of all nodes that are still to come: leaves for space records into `space`,
 * inner nodes into `inner`. Choosing may begin a chunk that then needs a record too; it only grows.
 */
static size_t build_choose(struct repair_build *b, GArray *space, GArray *inner)
{
	for (;;) {
		g_autofree struct repair_chunk **chunks = NULL;
		size_t n = repair_used_chunks(b->run, &chunks);
		unsigned int leaves = build_space_leaves(n);
		uint64_t inners = build_inner_count(b->children->len + leaves), blkno;

		if (b->err || (space->len == leaves && inner->len == inners))
			return n;
		while (space->len < leaves && !b->err) {
			blkno = build_block(b);
			g_array_append_val(space, blkno);
		}
		while (inner->len < inners && !b->err) {
			blkno = build_block(b);
			g_array_append_val(inner, blkno);
		}
	}
}

static void build_append_space(struct slu_disk_node *leaf, const struct repair_chunk *c)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE, (uint64_t)c->number);
	uint8_t bits[SLU_CHUNK_BYTES];

	for (unsigned int i = 0; i < REPAIR_WORDS; i++)
		slu_put_le64(bits + 8 * i, c->maps[REPAIR_FINAL][i]);
	build_append(leaf, &key, bits, sizeof(bits));
}

/* The first leaf, with the space records before what it has. */
static void build_first_with_space(struct repair_build *b, struct repair_chunk **chunks, size_t n)
{
	const struct slu_disk_node *old = b->first;
	const struct slu_disk_leaf_slot *slots = (const struct slu_disk_leaf_slot *)old->body;
	struct build_child *child = &g_array_index(b->children, struct build_child, 0);
	struct slu_disk_node *leaf = b->first + 1;

	child->lower = SLU_KEY_MIN;
	build_init(b, leaf, 0, &child->lower);
	memcpy(leaf->upper, old->upper, sizeof(leaf->upper));
	for (size_t i = 0; i < n; i++)
		build_append_space(leaf, chunks[i]);
	for (unsigned int i = 0; i < slu_get_le16(&old->count); i++) {
		struct slu_key key = slu_key_get(slots[i].key);

		build_append(leaf, &key, (const uint8_t *)old + slu_get_le16(&slots[i].off),
			     slu_get_le16(&slots[i].len));
	}
	build_write(b, leaf, child->blkno);
}

/* Shared out evenly, so that each leaf gets three records or more. */
static void build_space(struct repair_build *b, const GArray *space, struct repair_chunk **chunks,
			size_t n)
{
	struct slu_disk_node *leaf = b->first + 1;
	struct build_child first = g_array_index(b->children, struct build_child, 0);
	size_t done = 0;

	build_write(b, b->first, first.blkno);
	for (guint i = 0; i < space->len; i++) {
		struct build_child child = {SLU_KEY_MIN, g_array_index(space, uint64_t, i)};
		size_t end = n * (i + 1) / space->len;

		if (i)
			child.lower = SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE,
					      (uint64_t)chunks[done]->number);
		build_init(b, leaf, 0, &child.lower);
		for (; done < end; done++)
			build_append_space(leaf, chunks[done]);
		if (done < n)
			first.lower = SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE,
					      (uint64_t)chunks[done]->number);
		else
			first.lower = g_array_index(b->children, struct build_child, i).lower;
		slu_key_put(leaf->upper, &first.lower);
		build_write(b, leaf, child.blkno);
		g_array_insert_val(b->children, i, child);
	}
}

/* ------------------------------------------------------------------ inner nodes */

/* One level: the children become their parents. */
static void build_level(struct repair_build *b, unsigned int level, const uint64_t *blknos,
			guint nparents)
{
	GArray *children = b->children;
	struct slu_disk_node *node = b->first + 1;
	struct slu_disk_inner_slot *slots = (struct slu_disk_inner_slot *)node->body;
	struct slu_key end = SLU_KEY_MAX;
	guint done = 0;

	for (guint i = 0; i < nparents; i++) {
		struct build_child *c = &g_array_index(children, struct build_child, done);
		guint until = (guint)((uint64_t)children->len * (i + 1) / nparents), n = 0;
		struct build_child parent = {c->lower, blknos[i]};

		build_init(b, node, level, &c->lower);
		for (; done < until; done++, n++) {
			c = &g_array_index(children, struct build_child, done);
			slu_key_put(slots[n].key, &c->lower);
			slu_put_le64(&slots[n].blkno, c->blkno);
			slu_put_le64(&slots[n].txid, b->txid);
		}
		slu_put_le16(&node->count, (uint16_t)n);
		slu_key_put(node->upper,
			    done < children->len
				    ? &g_array_index(children, struct build_child, done).lower
				    : &end);
		build_write(b, node, parent.blkno);
		/* Parents are fewer than children: what is overwritten has been written out. */
		g_array_index(children, struct build_child, i) = parent;
	}
	g_array_set_size(children, nparents);
}

int repair_build_finish(struct repair_build *b, uint64_t *ret_root, uint64_t *ret_nodes)
{
	g_autoptr(GArray) space = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	g_autoptr(GArray) inner = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	g_autofree struct repair_chunk **chunks = NULL;
	struct slu_key end = SLU_KEY_MAX;
	unsigned int level = 0;
	guint used = 0;
	size_t n;

	if (!b->err)
		build_end_leaf(b, &end);
	build_choose(b, space, inner);
	if (b->err)
		return b->err;
	n = repair_used_chunks(b->run, &chunks);
	if (space->len)
		build_space(b, space, chunks, n);
	else
		build_first_with_space(b, chunks, n);
	while (b->children->len > 1) {
		guint parents = (b->children->len + BUILD_CHILDREN - 1) / BUILD_CHILDREN;

		build_level(b, ++level, &g_array_index(inner, uint64_t, used), parents);
		used += parents;
	}
	build_flush(b);
	*ret_root = g_array_index(b->children, struct build_child, 0).blkno;
	*ret_nodes = b->nodes;
	return b->err;
}
