/* SPDX-License-Identifier: MIT */
/*
 * What is inside one node: search, insert, delete, sharing records out between two siblings, and
 * the check that every node passes before anything believes it.
 *
 * Works on plain memory; takes no lock, allocates nothing, knows neither cache nor tree. A leaf
 * keeps its values packed in slot order from the end of the node down (format.h), so that there is
 * one way only to lay out given records, and the check is one pass.
 */
#include "store_private.h"
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

_Static_assert(sizeof(struct slu_disk_leaf_slot) == 21, "leaf slot");
_Static_assert(sizeof(struct slu_disk_inner_slot) == 33, "inner slot");

uint64_t disk_checksum(const struct slu_disk_node *d)
{
	uint64_t seed = XXH3_64bits(d->volume_id, sizeof(d->volume_id));

	return XXH3_64bits_withSeed((const uint8_t *)d + 8, SLU_BLOCK_SIZE - 8, seed);
}

void disk_init(struct slu_disk_node *d, const uint8_t volume_id[16], unsigned int level,
	       const uint8_t *lower, const uint8_t *upper)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->volume_id, volume_id, sizeof(d->volume_id));
	slu_put_le16(&d->level, level);
	slu_put_le16(&d->heap, level ? 0 : SLU_BLOCK_SIZE);
	memcpy(d->lower, lower, SLU_KEY_SIZE);
	memcpy(d->upper, upper, SLU_KEY_SIZE);
}

/* ------------------------------------------------------------------ search */

unsigned int leaf_search(const struct slu_disk_node *d, const struct slu_key *key, bool *ret_found)
{
	unsigned int lo = 0, hi = disk_count(d);

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;
		int cmp = disk_key_cmp(leaf_slot(d, mid)->key, key);

		if (cmp == 0) {
			*ret_found = true;
			return mid;
		}
		if (cmp < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_found = false;
	return lo;
}

unsigned int inner_search(const struct slu_disk_node *d, const struct slu_key *key)
{
	unsigned int lo = 0, hi = disk_count(d);

	/* slot lo's key <= *key < slot hi's key; slot 0's is the node's lower key */
	while (hi - lo > 1) {
		unsigned int mid = (lo + hi) / 2;

		if (disk_key_cmp(inner_slot(d, mid)->key, key) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* ------------------------------------------------------------------ one record or slot */

static unsigned int leaf_off(const struct slu_disk_node *d, unsigned int i)
{
	return slu_get_le16(&leaf_slot(d, i)->off);
}

void leaf_insert(struct slu_disk_node *d, unsigned int i, const struct slu_key *key,
		 const void *value, unsigned int len)
{
	unsigned int count = disk_count(d), heap = slu_get_le16(&d->heap);
	unsigned int end = i ? leaf_off(d, i - 1) : SLU_BLOCK_SIZE;
	uint8_t *base = (uint8_t *)d;

	slu_assert(i <= count && leaf_fill(d) + SLU_RECORD_OVERHEAD + len <= SLU_NODE_BODY);
	memmove(base + heap - len, base + heap, end - heap);
	memmove(leaf_slot(d, i + 1), leaf_slot(d, i), (count - i) * SLU_RECORD_OVERHEAD);
	for (unsigned int j = i + 1; j <= count; j++)
		slu_put_le16(&leaf_slot(d, j)->off, leaf_off(d, j) - len);
	slu_key_put(leaf_slot(d, i)->key, key);
	slu_put_le16(&leaf_slot(d, i)->off, end - len);
	slu_put_le16(&leaf_slot(d, i)->len, len);
	if (len)
		memcpy(base + end - len, value, len);
	slu_put_le16(&d->heap, heap - len);
	slu_put_le16(&d->count, count + 1);
}

void leaf_delete(struct slu_disk_node *d, unsigned int i)
{
	unsigned int count = disk_count(d), heap = slu_get_le16(&d->heap);
	unsigned int off = leaf_off(d, i), len = leaf_len(d, i);
	uint8_t *base = (uint8_t *)d;

	slu_assert(i < count);
	memmove(base + heap + len, base + heap, off - heap);
	memmove(leaf_slot(d, i), leaf_slot(d, i + 1), (count - i - 1) * SLU_RECORD_OVERHEAD);
	for (unsigned int j = i; j < count - 1; j++)
		slu_put_le16(&leaf_slot(d, j)->off, leaf_off(d, j) + len);
	slu_put_le16(&d->heap, heap + len);
	slu_put_le16(&d->count, count - 1);
}

void inner_insert(struct slu_disk_node *d, unsigned int i, const uint8_t *key, struct node_ref ref)
{
	unsigned int count = disk_count(d);

	slu_assert(i <= count && count < SLU_INNER_MAX);
	memmove(inner_slot(d, i + 1), inner_slot(d, i),
		(count - i) * sizeof(struct slu_disk_inner_slot));
	memcpy(inner_slot(d, i)->key, key, SLU_KEY_SIZE);
	inner_set_ref(d, i, ref);
	slu_put_le16(&d->count, count + 1);
}

void inner_delete(struct slu_disk_node *d, unsigned int i)
{
	unsigned int count = disk_count(d);

	slu_assert(i < count && i > 0); /* slot 0 carries the lower key; merges go to the left */
	memmove(inner_slot(d, i), inner_slot(d, i + 1),
		(count - i - 1) * sizeof(struct slu_disk_inner_slot));
	slu_put_le16(&d->count, count - 1);
}

/* ------------------------------------------------------------------ sharing out */

/* A record outside any node. */
struct loose {
	struct slu_key key;
	const void *value;
	unsigned int len;
};

static unsigned int loose_size(const struct loose *r)
{
	return SLU_RECORD_OVERHEAD + r->len;
}

static void leaf_clear(struct slu_disk_node *d)
{
	slu_put_le16(&d->count, 0);
	slu_put_le16(&d->heap, SLU_BLOCK_SIZE);
}

static void leaf_append(struct slu_disk_node *d, const struct loose *r)
{
	leaf_insert(d, disk_count(d), &r->key, r->value, r->len);
}

/* How many of the records go to the left. */
static unsigned int leaf_cut(const struct loose *r, unsigned int n, unsigned int total,
			     enum node_cut cut)
{
	unsigned int left = 0, best = 0, best_diff = UINT32_MAX;

	if (cut == CUT_NONE)
		return n;
	for (unsigned int i = 0; i + 1 < n; i++) {
		unsigned int right, diff;

		left += loose_size(&r[i]);
		right = total - left;
		if (left > SLU_NODE_BODY)
			break;
		if (right > SLU_NODE_BODY)
			continue;
		switch (cut) {
		case CUT_EVEN:
			diff = left > right ? left - right : right - left;
			break;
		case CUT_RIGHT:
			if (right < LEAF_MIN_FILL)
				continue;
			diff = right;
			break;
		default:
			diff = right;
			break;
		}
		if (diff < best_diff) {
			best_diff = diff;
			best = i + 1;
		}
	}
	slu_assert(best);
	return best;
}

static unsigned int leaf_gather(const struct slu_disk_node *d, struct loose *r)
{
	unsigned int n = disk_count(d);

	for (unsigned int i = 0; i < n; i++)
		r[i] = (struct loose){leaf_key(d, i), leaf_value(d, i), leaf_len(d, i)};
	return n;
}

void leaf_share(struct slu_disk_node *left, struct slu_disk_node *right,
		const struct leaf_extra *extra, enum node_cut cut)
{
	struct slu_disk_node copy[2];
	struct loose r[2 * LEAF_MAX_COUNT + 1];
	unsigned int n, nleft, total = 0;

	memcpy(&copy[0], left, sizeof(copy[0]));
	memcpy(&copy[1], right, sizeof(copy[1]));
	n = leaf_gather(&copy[0], r);
	n += leaf_gather(&copy[1], r + n);
	if (extra) {
		memmove(r + extra->pos + 1, r + extra->pos, (n - extra->pos) * sizeof(*r));
		r[extra->pos] = (struct loose){*extra->key, extra->value, extra->len};
		n++;
	}
	for (unsigned int i = 0; i < n; i++)
		total += loose_size(&r[i]);
	nleft = leaf_cut(r, n, total, cut);

	leaf_clear(left);
	leaf_clear(right);
	for (unsigned int i = 0; i < n; i++)
		leaf_append(i < nleft ? left : right, &r[i]);
	if (nleft < n) {
		slu_key_put(right->lower, &r[nleft].key);
		memcpy(left->upper, right->lower, SLU_KEY_SIZE);
	}
}

static unsigned int inner_cut(unsigned int n, enum node_cut cut)
{
	switch (cut) {
	case CUT_NONE:
		return n;
	case CUT_RIGHT:
		return slu_min(n - INNER_MIN_COUNT, SLU_INNER_MAX);
	case CUT_LAST:
		return n - 2; /* a node with one child would have nobody to merge that child with */
	default:
		return n / 2;
	}
}

void inner_share(struct slu_disk_node *left, struct slu_disk_node *right,
		 const struct inner_extra *extra, enum node_cut cut)
{
	struct slu_disk_inner_slot s[2 * SLU_INNER_MAX + 1];
	unsigned int nl = disk_count(left), nr = disk_count(right), n = nl + nr, nleft;

	memcpy(s, inner_slot(left, 0), nl * sizeof(*s));
	memcpy(s + nl, inner_slot(right, 0), nr * sizeof(*s));
	if (extra) {
		memmove(s + extra->pos + 1, s + extra->pos, (n - extra->pos) * sizeof(*s));
		memcpy(s[extra->pos].key, extra->key, SLU_KEY_SIZE);
		slu_put_le64(&s[extra->pos].blkno, extra->ref.number);
		slu_put_le64(&s[extra->pos].txid, extra->ref.txid);
		n++;
	}
	nleft = inner_cut(n, cut);
	slu_assert(nleft > 0 && nleft <= SLU_INNER_MAX && n - nleft <= SLU_INNER_MAX);
	memcpy(inner_slot(left, 0), s, nleft * sizeof(*s));
	memcpy(inner_slot(right, 0), s + nleft, (n - nleft) * sizeof(*s));
	slu_put_le16(&left->count, nleft);
	slu_put_le16(&right->count, n - nleft);
	if (nleft < n) {
		memcpy(right->lower, s[nleft].key, SLU_KEY_SIZE);
		memcpy(left->upper, right->lower, SLU_KEY_SIZE);
	}
}

/* ------------------------------------------------------------------ the check */

static const char *leaf_check(const struct slu_disk_node *d, const struct slu_key *lower,
			      const struct slu_key *upper)
{
	unsigned int count = disk_count(d), end = SLU_BLOCK_SIZE;
	unsigned int heap = slu_get_le16(&d->heap);
	unsigned int slots = offsetof(struct slu_disk_node, body) + count * SLU_RECORD_OVERHEAD;
	struct slu_key prev = *lower;

	if (count > LEAF_MAX_COUNT)
		return "too many records";
	if (heap > SLU_BLOCK_SIZE || heap < slots)
		return "values run into the slots";
	for (unsigned int i = 0; i < count; i++) {
		struct slu_key key = leaf_key(d, i);
		unsigned int len = leaf_len(d, i);
		int cmp = slu_key_cmp(&key, &prev);

		if (cmp < 0 || (cmp == 0 && i > 0))
			return "keys out of order";
		if (len > SLU_VALUE_MAX)
			return "a value is too long";
		if (len > end - heap || leaf_off(d, i) != end - len)
			return "a value is out of place";
		end -= len;
		prev = key;
	}
	if (count && slu_key_cmp(&prev, upper) >= 0)
		return "a key is not below the upper one";
	if (end != heap)
		return "unused bytes among the values";
	return NULL;
}

static const char *inner_check(const struct slu_disk_node *d, const struct slu_key *lower,
			       const struct slu_key *upper)
{
	unsigned int count = disk_count(d);
	uint64_t txid = slu_get_le64(&d->txid);
	struct slu_key prev = *lower;

	if (count < 1 || count > SLU_INNER_MAX)
		return "impossible number of children";
	if (slu_get_le16(&d->heap))
		return "an inner node with values";
	for (unsigned int i = 0; i < count; i++) {
		struct slu_key key = slu_key_get(inner_slot(d, i)->key);
		struct node_ref ref = inner_ref(d, i);
		int cmp = slu_key_cmp(&key, &prev);

		if (i == 0 ? cmp != 0 : cmp <= 0)
			return "keys out of order";
		if (ref.number < 2 || ref.number >= SLU_MAX_BLOCKS)
			return "a child outside the volume";
		if (ref.txid == 0 || ref.txid > txid)
			return "a child from the future";
		prev = key;
	}
	if (slu_key_cmp(&prev, upper) >= 0)
		return "a key is not below the upper one";
	return NULL;
}

const char *slu_node_check(const struct slu_disk_node *node, const uint8_t volume_id[16],
			   uint64_t blkno, uint64_t expect_txid, int expect_level,
			   const struct slu_key *lower, const struct slu_key *upper)
{
	struct slu_key node_lower, node_upper;
	uint64_t txid = slu_get_le64(&node->txid);

	if (memcmp(node->volume_id, volume_id, sizeof(node->volume_id)))
		return "not a node of this volume";
	if (slu_get_le64(&node->checksum) != disk_checksum(node))
		return "wrong checksum";
	if (slu_get_le64(&node->blkno) != blkno)
		return "written for another place";
	if (txid == 0 || (expect_txid && txid != expect_txid))
		return "of another transaction than its parent says";
	if (disk_level(node) >= SLU_TREE_MAX_DEPTH ||
	    (expect_level >= 0 && disk_level(node) != (unsigned int)expect_level))
		return "wrong level";
	node_lower = slu_key_get(node->lower);
	node_upper = slu_key_get(node->upper);
	if (slu_key_cmp(&node_lower, &node_upper) >= 0)
		return "lower key not below the upper one";
	if (lower && slu_key_cmp(&node_lower, lower))
		return "lower key differs from the parent's";
	if (upper && slu_key_cmp(&node_upper, upper))
		return "upper key differs from the parent's";
	return disk_level(node) ? inner_check(node, &node_lower, &node_upper)
				: leaf_check(node, &node_lower, &node_upper);
}
