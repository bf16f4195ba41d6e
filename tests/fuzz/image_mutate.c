/* SPDX-License-Identifier: MIT */
/*
 * A mutator that knows what a patch is: most of what it does is one more patch, or a change of one,
 * to a field of a record with a number that might matter there.
 */
#include "image.h"
#include <stddef.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

static uint64_t rng(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

struct field {
	uint8_t type; /* of the record */
	uint16_t off;
	uint8_t size;
};

#define INODE(f)                                                   \
	{                                                          \
		SLU_REC_INODE, offsetof(struct slu_disk_inode, f), \
			sizeof(((struct slu_disk_inode *)0)->f)    \
	}
#define EXTENT(f)                                                    \
	{                                                            \
		SLU_REC_EXTENT, offsetof(struct slu_disk_extent, f), \
			sizeof(((struct slu_disk_extent *)0)->f)     \
	}
#define XATTR(f)                                                   \
	{                                                          \
		SLU_REC_XATTR, offsetof(struct slu_disk_xattr, f), \
			sizeof(((struct slu_disk_xattr *)0)->f)    \
	}
#define SUPER(f)                                         \
	{                                                \
		0, offsetof(struct slu_disk_super, f), 8 \
	}
#define NODE(f)                                                                              \
	{                                                                                    \
		0, offsetof(struct slu_disk_node, f), sizeof(((struct slu_disk_node *)0)->f) \
	}

static const struct field fields[] = {
	INODE(mode),
	INODE(nlink),
	INODE(size),
	INODE(blocks),
	INODE(parent),
	INODE(flags),
	INODE(nxattr),
	INODE(mtime),
	EXTENT(blkno),
	EXTENT(nblocks),
	EXTENT(flags),
	XATTR(flags),
	XATTR(name_len),
	XATTR(value_len),
	XATTR(part_id),
	{SLU_REC_DIRENT, 0, 8},
	{SLU_REC_DIRENT, 8, 1},
	{SLU_REC_DIRENT, 9, 1},
	{SLU_REC_ORPHAN, 0, 1},
	{SLU_REC_ORPHAN, 1, 8},
	{SLU_REC_SPACE, 0, 8},
	{SLU_REC_SPACE, 12, 1},
	{SLU_REC_SPACE, 113, 1},
};

static const struct field super_fields[] = {
	SUPER(version),     SUPER(features_incompat), SUPER(features_ro_compat), SUPER(nblocks),
	SUPER(txid),        SUPER(root_blkno),        SUPER(root_txid),          SUPER(next_ino),
	SUPER(data_blocks), SUPER(node_blocks),       SUPER(record_bytes),       SUPER(ninodes),
	SUPER(state),       SUPER(ndeferred),         SUPER(deferred),           SUPER(hash_seed),
};

static const struct field node_fields[] = {
	NODE(blkno),
	NODE(txid),
	NODE(level),
	NODE(count),
	NODE(heap),
	NODE(lower),
	NODE(upper),
	{0, offsetof(struct slu_disk_node, body), 17},
	{0, offsetof(struct slu_disk_node, body) + 17, 8},
};

static uint64_t number(uint64_t *s)
{
	static const uint64_t some[] = {
		0,
		1,
		2,
		3,
		5,
		16,
		17,
		18,
		20,
		22,
		23,
		32,
		64,
		100,
		102,
		105,
		255,
		256,
		511,
		1024,
		1025,
		4095,
		4096,
		5000,
		5003,
		VOLUME_BLOCKS - 1,
		VOLUME_BLOCKS,
		65535,
		65536,
		1u << 20,
		(1u << 20) + 1,
		INT32_MAX,
		UINT32_MAX,
		1ull << 32,
		1ull << 47,
		1ull << 48,
		INT64_MAX - 4096,
		INT64_MAX,
		UINT64_MAX / 2 + 1,
		UINT64_MAX - 1,
		UINT64_MAX,
		0100644,
		0040755,
		0120777,
		0010600,
		0170000,
	};
	uint64_t n = rng(s);

	switch (n % 4) {
	case 0:
		return (n >> 8) % 64;
	case 1:
		return (n >> 8) % 6000;
	default:
		return some[(n >> 8) % slu_array_size(some)] + (n % 8 == 7 ? (n >> 40) % 3 : 0);
	}
}

static uint8_t record_of_type(uint64_t *s, uint8_t type)
{
	const struct records *rs = volume_base();
	unsigned int start = (unsigned int)(rng(s) % rs->n);

	for (unsigned int i = 0; i < rs->n; i++) {
		if (rs->r[(start + i) % rs->n].key.type == type)
			return (uint8_t)((start + i) % rs->n);
	}
	return (uint8_t)start;
}

static uint8_t put_number(uint64_t *s, uint8_t *data, size_t size)
{
	uint8_t bytes[32] = {0};

	size = slu_min(size, sizeof(bytes));
	slu_put_le64(bytes, number(s));
	memcpy(data, bytes, size);
	return (uint8_t)size;
}

/* Another record as a new one, its key or value a little different: most are believed at first. */
static uint8_t make_record(uint64_t *s, uint8_t *data)
{
	const struct records *rs = volume_base();
	const struct record *r = &rs->r[rng(s) % rs->n];
	struct slu_key key = r->key;
	size_t len = slu_min((size_t)r->len, (size_t)255 - SLU_KEY_SIZE);

	if (rng(s) % 2)
		key.ino = number(s);
	if (rng(s) % 2)
		key.off = key.type == SLU_REC_DIRENT ? key.off + 1 : number(s);
	slu_key_put(data, &key);
	memcpy(data + SLU_KEY_SIZE, r->value, len);
	if (len >= 8 && rng(s) % 2)
		put_number(s, data + SLU_KEY_SIZE, 8);
	return (uint8_t)(SLU_KEY_SIZE + len);
}

/* A patch to `out`, of at most sizeof(struct patch) + 255 bytes. */
static size_t make_patch(uint64_t *s, uint8_t *out)
{
	struct patch p = {.kind = (uint8_t)(rng(s) % 20), .idx = (uint8_t)rng(s)};
	uint8_t *data = out + sizeof(p);
	const struct field *f;
	uint64_t off = 0;

	if (p.kind >= PATCH_KINDS)
		p.kind = PATCH_VALUE;
	switch (p.kind) {
	case PATCH_VALUE:
		f = &fields[rng(s) % slu_array_size(fields)];
		p.idx = record_of_type(s, f->type);
		off = f->off;
		p.len = put_number(s, data, f->size);
		break;
	case PATCH_KEY:
		off = rng(s) % 3 ? 9 : rng(s) % 9;
		p.len = put_number(s, data, off == 9 ? 8 : off == 8 ? 1 : 8 - off);
		break;
	case PATCH_NEW:
		p.len = make_record(s, data);
		break;
	case PATCH_LEN:
		off = number(s) % (SLU_VALUE_MAX + 2);
		break;
	case PATCH_NODE:
	case PATCH_DAMAGE:
		f = &node_fields[rng(s) % slu_array_size(node_fields)];
		off = f->off;
		if (rng(s) % 4 == 0)
			off += rng(s) % 4000;
		else if (off >= offsetof(struct slu_disk_node, body))
			off += rng(s) % 40 * sizeof(struct slu_disk_inner_slot);
		p.len = put_number(s, data, f->size);
		break;
	case PATCH_SUPER:
		f = &super_fields[rng(s) % slu_array_size(super_fields)];
		p.idx |= (uint8_t)(1 + rng(s) % 3);
		off = f->off;
		p.len = put_number(s, data, f->size);
		break;
	case PATCH_CHILD:
		p.idx = (uint8_t)rng(s);
		off = rng(s) % 40;
		p.len = 1 + rng(s) % 4 / 3;
		data[0] = (uint8_t)rng(s);
		data[1] = (uint8_t)rng(s);
		break;
	default:
		off = rng(s) % 32;
	}
	slu_put_le16(&p.off, (uint16_t)off);
	memcpy(out, &p, sizeof(p));
	return sizeof(p) + p.len;
}

/* Where the patches of an input begin; returns how many there are. */
static unsigned int split(const uint8_t *data, size_t size, size_t *starts, unsigned int max)
{
	unsigned int n = 0;
	size_t at = 0;

	while (n < max && at + sizeof(struct patch) <= size) {
		starts[n++] = at;
		at += sizeof(struct patch) + data[at + offsetof(struct patch, len)];
	}
	return n;
}

static size_t add_patch(uint64_t *s, uint8_t *data, size_t size, size_t max_size)
{
	uint8_t patch[sizeof(struct patch) + 256];
	size_t len = make_patch(s, patch);

	if (size + len > max_size)
		return size;
	memcpy(data + size, patch, len);
	return size + len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	uint64_t s = seed * 0x9e3779b97f4a7c15ull + 1;
	size_t starts[64], end;
	unsigned int n, i;

	rng(&s);
	n = split(data, size, starts, slu_array_size(starts));
	if (n < 1 || rng(&s) % 8 < 3)
		return add_patch(&s, data, size, max_size);
	if (rng(&s) % 5 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	/* One goes, and another may come. */
	i = (unsigned int)(rng(&s) % n);
	end = i + 1 < n ? starts[i + 1] : size;
	memmove(data + starts[i], data + end, size - end);
	size -= end - starts[i];
	if (!size || rng(&s) % 3)
		size = add_patch(&s, data, size, max_size);
	return size;
}
