/* SPDX-License-Identifier: MIT */
/*
 * From records and patches to blocks: sorts, packs leaves, puts inner nodes over them, marks what is
 * used, makes the checksums.
 */
#include "volume.h"
#include <xxhash.h>

#define FIRST_NODE  5000u
#define BEHIND      (VOLUME_BLOCKS + 5)
#define LEAVES_MAX  RECORDS_MAX
#define NODES_MAX   (LEAVES_MAX + 3)
#define LEAF_FILL   1800u
#define TXID        6u
#define NEXT_INO    64u
#define NINODES     35u
#define DATA_BLOCKS 9u

static const uint8_t volume_id[16] = {1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16};

struct volume {
	struct records rs;
	struct record *order[RECORDS_MAX]; /* by key; those that are there */
	unsigned int norder;
	unsigned int first[LEAVES_MAX + 1]; /* of each leaf, in order[] */
	unsigned int nleaves;
	/* the leaves, the inner nodes of a deep one, the root */
	struct slu_disk_node nodes[NODES_MAX];
	unsigned int nnodes;
	bool damaged[NODES_MAX];
	bool deep;
	struct slu_disk_node behind; /* a node behind the volume, if something leads there */
	struct slu_disk_super super[2];
};

/* ------------------------------------------------------------------ patches */

static bool next_patch(struct fuzz_bytes *in, struct patch *ret, const uint8_t **ret_data)
{
	const uint8_t *p = fuzz_take(in, sizeof(*ret));

	if (!p)
		return false;
	memcpy(ret, p, sizeof(*ret));
	ret->kind %= PATCH_KINDS;
	ret->len = (uint8_t)slu_min((size_t)ret->len, in->left);
	*ret_data = fuzz_take(in, ret->len);
	return true;
}

static void put_bytes(void *dst, size_t size, const struct patch *p, const uint8_t *data)
{
	size_t off = size ? slu_get_le16(&p->off) % size : 0;

	if (size)
		memcpy((uint8_t *)dst + off, data, slu_min(size - off, (size_t)p->len));
}

static void patch_key(struct record *r, const struct patch *p, const uint8_t *data)
{
	uint8_t key[SLU_KEY_SIZE];

	slu_key_put(key, &r->key);
	put_bytes(key, sizeof(key), p, data);
	r->key = slu_key_get(key);
}

static void patch_new(struct records *rs, const struct patch *p, const uint8_t *data)
{
	struct record *r = &rs->r[rs->n];
	size_t len = p->len - SLU_KEY_SIZE;

	if (p->len < SLU_KEY_SIZE || rs->n == RECORDS_MAX)
		return;
	*r = (struct record){.key = slu_key_get(data), .chunk = -1};
	memcpy(r->value, data + SLU_KEY_SIZE, len);
	r->len = (uint16_t)slu_min(len + slu_get_le16(&p->off), (size_t)RECORD_MAX);
	rs->n++;
}

/* What changes the shape: before the nodes are laid out. */
static void patch_shape(struct records *rs, struct fuzz_bytes in)
{
	const uint8_t *data;
	struct patch p;

	while (next_patch(&in, &p, &data)) {
		struct record *r = &rs->r[p.idx % rs->n];

		if (p.kind == PATCH_KEY)
			patch_key(r, &p, data);
		else if (p.kind == PATCH_DELETE)
			r->gone = true;
		else if (p.kind == PATCH_NEW)
			patch_new(rs, &p, data);
		else if (p.kind == PATCH_LEN)
			r->len = (uint16_t)slu_min(slu_get_le16(&p.off), RECORD_MAX);
	}
}

static void patch_values(struct records *rs, struct fuzz_bytes in)
{
	const uint8_t *data;
	struct patch p;

	while (next_patch(&in, &p, &data)) {
		struct record *r = &rs->r[p.idx % rs->n];

		if (p.kind == PATCH_VALUE)
			put_bytes(r->value, r->len, &p, data);
	}
}

static void patch_child(struct volume *v, struct slu_disk_node *node, const struct patch *p,
			const uint8_t *data)
{
	struct slu_disk_inner_slot *slot = (struct slu_disk_inner_slot *)node->body;
	unsigned int count = slu_get_le16(&node->count);

	if (!slu_get_le16(&node->level) || !count || count > SLU_INNER_MAX || !p->len)
		return;
	slot += slu_get_le16(&p->off) % count;
	slu_put_le64(&slot->blkno, FIRST_NODE + data[0] % v->nnodes);
	slu_put_le64(&slot->txid, TXID);
	if (p->len < 2)
		return;
	v->behind = v->nodes[data[1] % v->nnodes];
	slu_put_le64(&v->behind.blkno, BEHIND);
	slu_put_le64(&slot->blkno, BEHIND);
}

static bool is_deep(struct fuzz_bytes in)
{
	const uint8_t *data;
	struct patch p;
	bool deep = false;

	while (next_patch(&in, &p, &data))
		deep |= p.kind == PATCH_DEEP;
	return deep;
}

static void patch_nodes(struct volume *v, struct fuzz_bytes in)
{
	unsigned int n = v->nnodes;
	const uint8_t *data;
	struct patch p;

	while (next_patch(&in, &p, &data)) {
		struct slu_disk_node *node = &v->nodes[p.idx % n];

		if (p.kind == PATCH_NODE || p.kind == PATCH_DAMAGE)
			put_bytes(node, sizeof(*node), &p, data);
		if (p.kind == PATCH_COPY)
			*node = v->nodes[slu_get_le16(&p.off) % n];
		if (p.kind == PATCH_CHILD)
			patch_child(v, node, &p, data);
		if (p.kind == PATCH_DAMAGE)
			v->damaged[p.idx % n] = true;
		for (unsigned int i = 0; p.kind == PATCH_SUPER && i < 2; i++) {
			if (p.idx & 1u << i)
				put_bytes(&v->super[i], sizeof(v->super[i]), &p, data);
		}
	}
}

/* ------------------------------------------------------------------ the tree */

static int compare(const void *a, const void *b)
{
	struct record *const *x = a, *const *y = b;
	int c = slu_key_cmp(&(*x)->key, &(*y)->key);

	return c ? c : (*x > *y) - (*x < *y);
}

static void lay_out(struct volume *v)
{
	unsigned int used = 0;

	for (unsigned int i = 0; i < v->rs.n; i++) {
		if (!v->rs.r[i].gone)
			v->order[v->norder++] = &v->rs.r[i];
	}
	qsort(v->order, v->norder, sizeof(v->order[0]), compare);
	v->nleaves = 1;
	for (unsigned int i = 0; i < v->norder; i++) {
		unsigned int need = SLU_RECORD_OVERHEAD + v->order[i]->len;

		if (used && used + need > LEAF_FILL) {
			slu_assert(v->nleaves < LEAVES_MAX);
			v->first[v->nleaves++] = i;
			used = 0;
		}
		used += need;
	}
	v->first[v->nleaves] = v->norder;
	v->deep = v->deep && v->nleaves > 1;
	v->nnodes = v->nleaves + (v->deep ? 3 : 1);
}

static void fill_space(struct volume *v)
{
	for (unsigned int i = 0; i < v->nnodes; i++)
		v->rs.used[(FIRST_NODE + i) / 8] |= (uint8_t)(1u << (FIRST_NODE + i) % 8);
	for (unsigned int i = 0; i < v->rs.n; i++) {
		struct record *r = &v->rs.r[i];

		if (r->chunk >= 0)
			memcpy(r->value, v->rs.used + (size_t)r->chunk * SLU_CHUNK_BYTES,
			       SLU_CHUNK_BYTES);
	}
}

static struct slu_key lower_key(const struct volume *v, unsigned int leaf)
{
	if (leaf == 0)
		return SLU_KEY_MIN;
	return leaf == v->nleaves ? SLU_KEY_MAX : v->order[v->first[leaf]]->key;
}

static void begin_node(struct slu_disk_node *node, unsigned int idx, unsigned int level,
		       unsigned int count, struct slu_key lower, struct slu_key upper)
{
	memcpy(node->volume_id, volume_id, sizeof(volume_id));
	slu_put_le64(&node->blkno, FIRST_NODE + idx);
	slu_put_le64(&node->txid, TXID);
	slu_put_le16(&node->level, (uint16_t)level);
	slu_put_le16(&node->count, (uint16_t)count);
	slu_key_put(node->lower, &lower);
	slu_key_put(node->upper, &upper);
}

static void write_leaf(struct volume *v, unsigned int leaf)
{
	struct slu_disk_node *node = &v->nodes[leaf];
	struct slu_disk_leaf_slot *slot = (struct slu_disk_leaf_slot *)node->body;
	unsigned int first = v->first[leaf], n = v->first[leaf + 1] - first;
	unsigned int heap = sizeof(*node);

	begin_node(node, leaf, 0, n, lower_key(v, leaf), lower_key(v, leaf + 1));
	for (unsigned int i = 0; i < n; i++) {
		const struct record *r = v->order[first + i];

		heap -= r->len;
		memcpy((uint8_t *)node + heap, r->value, r->len);
		slu_key_put(slot[i].key, &r->key);
		slu_put_le16(&slot[i].off, (uint16_t)heap);
		slu_put_le16(&slot[i].len, r->len);
	}
	slu_put_le16(&node->heap, (uint16_t)heap);
}

/* Over n nodes from `child` on, whose leaves go from `first` to `end`. */
static void write_inner(struct volume *v, unsigned int idx, unsigned int level, unsigned int child,
			unsigned int n, unsigned int first, unsigned int end)
{
	struct slu_disk_node *node = &v->nodes[idx];
	struct slu_disk_inner_slot *slot = (struct slu_disk_inner_slot *)node->body;

	begin_node(node, idx, level, n, lower_key(v, first), lower_key(v, end));
	for (unsigned int i = 0; i < n; i++) {
		memcpy(slot[i].key, v->nodes[child + i].lower, SLU_KEY_SIZE);
		slu_put_le64(&slot[i].blkno, FIRST_NODE + child + i);
		slu_put_le64(&slot[i].txid, TXID);
	}
}

static void write_nodes(struct volume *v)
{
	unsigned int n = v->nleaves, half = n / 2;

	for (unsigned int i = 0; i < n; i++)
		write_leaf(v, i);
	if (!v->deep) {
		write_inner(v, n, 1, 0, n, 0, n);
		return;
	}
	write_inner(v, n, 1, 0, half, 0, half);
	write_inner(v, n + 1, 1, half, n - half, half, n);
	write_inner(v, n + 2, 2, n, 2, 0, n);
}

static void write_super(struct volume *v)
{
	struct slu_disk_super *s = &v->super[0];
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < v->norder; i++) {
		if (v->order[i]->chunk < 0)
			bytes += SLU_RECORD_OVERHEAD + v->order[i]->len;
	}
	memcpy(s->magic, SLU_MAGIC, sizeof(s->magic));
	slu_put_le32(&s->version, SLU_FORMAT_VERSION);
	slu_put_le32(&s->block_size, SLU_BLOCK_SIZE);
	memcpy(s->volume_id, volume_id, sizeof(volume_id));
	slu_put_le64(&s->hash_seed, VOLUME_HASH_SEED);
	slu_put_le64(&s->nblocks, VOLUME_BLOCKS);
	slu_put_le64(&s->txid, TXID);
	slu_put_le64(&s->root_blkno, FIRST_NODE + v->nnodes - 1);
	slu_put_le64(&s->root_txid, TXID);
	slu_put_le64(&s->next_ino, NEXT_INO);
	slu_put_le64(&s->data_blocks, DATA_BLOCKS);
	slu_put_le64(&s->node_blocks, v->nnodes);
	slu_put_le64(&s->record_bytes, bytes);
	slu_put_le64(&s->ninodes, NINODES);
	slu_put_le32(&s->state, SLU_STATE_CLEAN);
	memcpy(s->label, "fuzz", 4);
	v->super[1] = v->super[0];
}

static void write_node(struct slu_simdisk *disk, uint64_t blkno, struct slu_disk_node *n,
		       bool damaged)
{
	uint64_t seed = XXH3_64bits(volume_id, sizeof(volume_id));

	if (!damaged)
		slu_put_le64(&n->checksum,
			     XXH3_64bits_withSeed((uint8_t *)n + 8, sizeof(*n) - 8, seed));
	slu_simdisk_poke(disk, blkno, n);
}

static void write_blocks(struct volume *v, struct slu_simdisk *disk)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct slu_disk_super *s = &v->super[i];

		slu_put_le64(&s->checksum, XXH3_64bits((uint8_t *)s + 8, sizeof(*s) - 8));
		slu_simdisk_poke(disk, i, s);
	}
	for (unsigned int i = 0; i < v->nnodes; i++)
		write_node(disk, FIRST_NODE + i, &v->nodes[i], v->damaged[i]);
	if (slu_get_le64(&v->behind.blkno))
		write_node(disk, BEHIND, &v->behind, false);
}

void volume_write(struct slu_simdisk *disk, const uint8_t *data, size_t size)
{
	struct volume *v = calloc(1, sizeof(*v));
	struct fuzz_bytes in = {data, size};

	if (!v)
		fuzz_fail("no memory");
	v->rs = *volume_base();
	v->deep = is_deep(in);
	patch_shape(&v->rs, in);
	lay_out(v);
	fill_space(v);
	patch_values(&v->rs, in);
	write_nodes(v);
	write_super(v);
	patch_nodes(v, in);
	write_blocks(v, disk);
	free(v);
}
