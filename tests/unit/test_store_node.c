/* SPDX-License-Identifier: MIT */
/*
 * The check that every node passes before it is believed: every single bit flip of a leaf and of an
 * inner node is found by the checksum, and everything that a right checksum can be put under by.
 */
#include "test_store_util.h"
#include <xxhash.h>

static uint8_t volume_id[16] = "0123456789abcde";

static struct slu_key node_lower, node_upper;

static void seal(struct slu_disk_node *d)
{
	uint64_t seed = XXH3_64bits(d->volume_id, sizeof(d->volume_id));

	slu_put_le64(&d->checksum,
		     XXH3_64bits_withSeed((uint8_t *)d + 8, SLU_BLOCK_SIZE - 8, seed));
}

static struct slu_disk_leaf_slot *leaf(struct slu_disk_node *d, unsigned int i)
{
	return (struct slu_disk_leaf_slot *)d->body + i;
}

static struct slu_disk_inner_slot *inner(struct slu_disk_node *d, unsigned int i)
{
	return (struct slu_disk_inner_slot *)d->body + i;
}

static const char *check(struct slu_disk_node *d)
{
	return slu_node_check(d, volume_id, slu_get_le64(&d->blkno), slu_get_le64(&d->txid), -1,
			      &node_lower, &node_upper);
}

struct found {
	struct slu_disk_node leaf, inner;
	bool have_leaf, have_inner;
};

static int find_nodes(void *ctx, const struct slu_node_visit *v)
{
	struct found *f = ctx;

	assert_null(v->wrong);
	/* neither at the left nor at the right end of the tree */
	if (v->level == 0 && v->node->lower[0] && v->node->upper[0] != 0xff && !f->have_leaf) {
		f->leaf = *v->node;
		f->have_leaf = true;
	}
	if (v->level == 1 && !f->have_inner) {
		f->inner = *v->node;
		f->have_inner = true;
	}
	return 0;
}

/* A real leaf and a real inner node. */
static void find(struct found *f)
{
	struct vol v;
	uint8_t buf[SLU_VALUE_MAX];

	memset(f, 0, sizeof(*f));
	vol_new(&v, 16384);
	vol_open(&v);
	for (uint32_t id = 0; id < 2000; id++) {
		struct slu_ticket t;
		struct slu_batch b;
		struct slu_key key = model_key(id);
		size_t len = model_value(id, 1, buf);

		slu_batch_init(&b);
		slu_batch_put(&b, &key, buf, len);
		assert_int_equal(slu_ticket_get(v.store, &t, 1, len, 0, NULL), 0);
		assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
	vol_close(&v);
	v.opts.readonly = true;
	vol_open(&v);
	assert_int_equal(slu_store_walk(v.store, find_nodes, f), 0);
	assert_true(f->have_leaf && f->have_inner);
	vol_close(&v);
	vol_free(&v);
}

static void use(const struct slu_disk_node *d)
{
	node_lower = slu_key_get(d->lower);
	node_upper = slu_key_get(d->upper);
}

static void flip_every_bit(struct slu_disk_node *d)
{
	uint64_t blkno = slu_get_le64(&d->blkno), txid = slu_get_le64(&d->txid);
	int level = slu_get_le16(&d->level);

	use(d);
	assert_null(slu_node_check(d, volume_id, blkno, txid, level, &node_lower, &node_upper));
	for (unsigned int bit = 0; bit < SLU_BLOCK_SIZE * 8; bit++) {
		uint8_t *byte = (uint8_t *)d + bit / 8;

		*byte ^= 1u << (bit % 8);
		/* also when nothing is known of it but its place */
		assert_non_null(slu_node_check(d, volume_id, blkno, 0, -1, NULL, NULL));
		*byte ^= 1u << (bit % 8);
	}
	assert_null(check(d));
}

static void every_bit_flip_of_a_leaf_is_found(void **state)
{
	struct found f;

	find(&f);
	flip_every_bit(&f.leaf);
}

static void every_bit_flip_of_an_inner_node_is_found(void **state)
{
	struct found f;

	find(&f);
	flip_every_bit(&f.inner);
}

static void a_node_at_the_wrong_place_is_found(void **state)
{
	struct found f;
	uint64_t blkno, txid;
	uint8_t other[16] = "another volume";
	struct slu_key key = SLU_KEY_MIN;

	find(&f);
	use(&f.leaf);
	blkno = slu_get_le64(&f.leaf.blkno);
	txid = slu_get_le64(&f.leaf.txid);
	assert_non_null(slu_node_check(&f.leaf, volume_id, blkno + 1, 0, -1, NULL, NULL));
	assert_non_null(slu_node_check(&f.leaf, volume_id, blkno, txid + 1, -1, NULL, NULL));
	assert_non_null(slu_node_check(&f.leaf, volume_id, blkno, txid, 1, NULL, NULL));
	assert_non_null(slu_node_check(&f.leaf, volume_id, blkno, txid, 0, &key, NULL));
	assert_non_null(slu_node_check(&f.leaf, volume_id, blkno, txid, 0, NULL, &key));
	assert_non_null(slu_node_check(&f.leaf, other, blkno, txid, 0, NULL, NULL));
	assert_null(slu_node_check(&f.leaf, volume_id, blkno, txid, 0, &node_lower, &node_upper));
}

/*
 * Each changes one thing and gets a right checksum; the check must say no and stay within the node.
 */
static void tampered_leaf(void (*tamper)(struct slu_disk_node *d, unsigned int n))
{
	struct found f;

	find(&f);
	use(&f.leaf);
	assert_true(slu_get_le16(&f.leaf.count) > 3);
	tamper(&f.leaf, slu_get_le16(&f.leaf.count));
	seal(&f.leaf);
	assert_non_null(check(&f.leaf));
}

static void leaf_count_0xffff(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->count, 0xffff);
}
static void leaf_count_one_more(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->count, (uint16_t)(n + 1));
}
static void leaf_count_one_less(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->count, (uint16_t)(n - 1));
}
static void leaf_heap_in_slots(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->heap, 90);
}
static void leaf_heap_beyond(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->heap, 4097);
}
static void leaf_off_outside(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&leaf(d, 1)->off, 0xfff0);
}
static void leaf_off_overlap(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&leaf(d, 2)->off, slu_get_le16(&leaf(d, 1)->off));
	slu_put_le16(&leaf(d, 2)->len, slu_get_le16(&leaf(d, 1)->len));
}
static void leaf_off_in_header(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&leaf(d, n - 1)->off, 8);
}
static void leaf_len_too_long(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&leaf(d, 0)->len, SLU_VALUE_MAX + 1);
}
static void leaf_len_0xffff(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&leaf(d, 0)->len, 0xffff);
}
static void leaf_keys_swapped(struct slu_disk_node *d, unsigned int n)
{
	uint8_t key[SLU_KEY_SIZE];

	memcpy(key, leaf(d, 1)->key, SLU_KEY_SIZE);
	memcpy(leaf(d, 1)->key, leaf(d, 2)->key, SLU_KEY_SIZE);
	memcpy(leaf(d, 2)->key, key, SLU_KEY_SIZE);
}
static void leaf_key_twice(struct slu_disk_node *d, unsigned int n)
{
	memcpy(leaf(d, 1)->key, leaf(d, 0)->key, SLU_KEY_SIZE);
}
static void leaf_key_below(struct slu_disk_node *d, unsigned int n)
{
	memset(leaf(d, 0)->key, 0, SLU_KEY_SIZE);
}
static void leaf_key_above(struct slu_disk_node *d, unsigned int n)
{
	memcpy(leaf(d, n - 1)->key, d->upper, SLU_KEY_SIZE);
}
static void bounds_swapped(struct slu_disk_node *d, unsigned int n)
{
	uint8_t key[SLU_KEY_SIZE];

	memcpy(key, d->lower, SLU_KEY_SIZE);
	memcpy(d->lower, d->upper, SLU_KEY_SIZE);
	memcpy(d->upper, key, SLU_KEY_SIZE);
}
static void level_10(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->level, SLU_TREE_MAX_DEPTH);
}
static void level_other_kind(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->level, slu_get_le16(&d->level) ? 0 : 1);
}
static void txid_0(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le64(&d->txid, 0);
}

static void a_tampered_leaf_is_found(void **state)
{
	tampered_leaf(leaf_count_0xffff);
	tampered_leaf(leaf_count_one_more);
	tampered_leaf(leaf_count_one_less);
	tampered_leaf(leaf_heap_in_slots);
	tampered_leaf(leaf_heap_beyond);
	tampered_leaf(leaf_off_outside);
	tampered_leaf(leaf_off_overlap);
	tampered_leaf(leaf_off_in_header);
	tampered_leaf(leaf_len_too_long);
	tampered_leaf(leaf_len_0xffff);
	tampered_leaf(leaf_keys_swapped);
	tampered_leaf(leaf_key_twice);
	tampered_leaf(leaf_key_below);
	tampered_leaf(leaf_key_above);
	tampered_leaf(bounds_swapped);
	tampered_leaf(level_10);
	tampered_leaf(level_other_kind);
	tampered_leaf(txid_0);
}

static void tampered_inner(void (*tamper)(struct slu_disk_node *d, unsigned int n))
{
	struct found f;

	find(&f);
	use(&f.inner);
	assert_true(slu_get_le16(&f.inner.count) > 3);
	tamper(&f.inner, slu_get_le16(&f.inner.count));
	seal(&f.inner);
	assert_non_null(check(&f.inner));
}

static void inner_count_0(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->count, 0);
}
static void inner_count_too_many(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->count, SLU_INNER_MAX + 1);
}
static void inner_count_one_more(struct slu_disk_node *d, unsigned int n)
{
	memset(inner(d, n), 0, sizeof(*inner(d, n)));
	slu_put_le16(&d->count, (uint16_t)(n + 1));
}
static void inner_heap(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le16(&d->heap, 4096);
}
static void inner_first_key(struct slu_disk_node *d, unsigned int n)
{
	inner(d, 0)->key[16] ^= 1;
}
static void inner_keys_swapped(struct slu_disk_node *d, unsigned int n)
{
	uint8_t key[SLU_KEY_SIZE];

	memcpy(key, inner(d, 1)->key, SLU_KEY_SIZE);
	memcpy(inner(d, 1)->key, inner(d, 2)->key, SLU_KEY_SIZE);
	memcpy(inner(d, 2)->key, key, SLU_KEY_SIZE);
}
static void inner_key_above(struct slu_disk_node *d, unsigned int n)
{
	memcpy(inner(d, n - 1)->key, d->upper, SLU_KEY_SIZE);
}
static void inner_child_superblock(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le64(&inner(d, 1)->blkno, 1);
}
static void inner_child_virtual(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le64(&inner(d, 1)->blkno, 1ull << 63 | 1);
}
static void inner_child_txid_0(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le64(&inner(d, 1)->txid, 0);
}
static void inner_child_from_the_future(struct slu_disk_node *d, unsigned int n)
{
	slu_put_le64(&inner(d, 1)->txid, slu_get_le64(&d->txid) + 1);
}

static void a_tampered_inner_node_is_found(void **state)
{
	tampered_inner(inner_count_0);
	tampered_inner(inner_count_too_many);
	tampered_inner(inner_count_one_more);
	tampered_inner(inner_heap);
	tampered_inner(inner_first_key);
	tampered_inner(inner_keys_swapped);
	tampered_inner(inner_key_above);
	tampered_inner(inner_child_superblock);
	tampered_inner(inner_child_virtual);
	tampered_inner(inner_child_txid_0);
	tampered_inner(inner_child_from_the_future);
	tampered_inner(bounds_swapped);
	tampered_inner(level_10);
	tampered_inner(level_other_kind);
	tampered_inner(txid_0);
}

/* Random bytes under a right checksum: whatever the answer, nothing outside the node is touched. */
static void random_damage_never_crashes_the_check(void **state)
{
	struct rng rng = {11};
	struct found f;

	find(&f);
	for (unsigned int i = 0; i < 20000; i++) {
		struct slu_disk_node *d = malloc(sizeof(*d));
		unsigned int n = 1 + (unsigned int)rng_below(&rng, 4);

		*d = i & 1 ? f.leaf : f.inner;
		while (n--)
			((uint8_t *)d)[8 + rng_below(&rng, rng_below(&rng, 2) ? 200 : 4088)] =
				(uint8_t)rng_next(&rng);
		seal(d);
		slu_node_check(d, d->volume_id, slu_get_le64(&d->blkno), 0, -1, NULL, NULL);
		free(d);
	}
}

/* ------------------------------------------------------------------ on a mounted volume */

struct places {
	uint64_t leaf, inner, root;
	struct slu_key in_leaf;
};

static int find_places(void *ctx, const struct slu_node_visit *v)
{
	struct places *p = ctx;

	if (!p->root)
		p->root = v->blkno;
	if (v->level == 0 && v->node->lower[0] >= 16) {
		p->leaf = v->blkno;
		p->in_leaf = slu_key_get(((struct slu_disk_leaf_slot *)v->node->body)->key);
	}
	return 0;
}

/* A volume of 2,000 records on disk, and where one of its leaves is. */
static void damaged_volume(struct vol *v, struct places *p)
{
	uint8_t buf[SLU_VALUE_MAX];

	vol_new(v, 16384);
	vol_open(v);
	for (uint32_t id = 0; id < 2000; id++) {
		struct slu_ticket t;
		struct slu_batch b;
		struct slu_key key = model_key(id);
		size_t len = model_value(id, 1, buf);

		slu_batch_init(&b);
		slu_batch_put(&b, &key, buf, len);
		assert_int_equal(slu_ticket_get(v->store, &t, 1, len, 0, NULL), 0);
		assert_int_equal(slu_store_apply(v->store, &t, &b, NULL, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
	vol_close(v);
	v->opts.readonly = true;
	vol_open(v);
	memset(p, 0, sizeof(*p));
	assert_int_equal(slu_store_walk(v->store, find_places, p), 0);
	vol_close(v);
	v->opts.readonly = false;
}

static void a_damaged_leaf_is_eio_for_its_records_alone(void **state)
{
	struct vol v;
	struct places p;
	struct slu_disk_node d, whole;
	struct slu_key first = model_key(0);
	uint8_t buf[SLU_VALUE_MAX];
	struct slu_ticket t;
	struct slu_batch b;

	damaged_volume(&v, &p);
	slu_simdisk_peek(v.disk, p.leaf, &whole);
	d = whole;
	d.body[2000] ^= 1;
	slu_simdisk_poke(v.disk, p.leaf, &d);

	vol_open(&v);
	assert_int_equal(slu_store_get(v.store, &p.in_leaf, buf, sizeof(buf), NULL), -EIO);
	assert_int_equal(v.corrupt, 1);
	assert_int_equal(slu_store_stats(v.store)->corrupt_nodes, 1);
	assert_true(slu_store_get(v.store, &first, buf, sizeof(buf), NULL) >= 0);
	slu_batch_init(&b);
	slu_batch_put(&b, &first, "x", 1);
	slu_batch_put(&b, &p.in_leaf, "x", 1);
	assert_int_equal(slu_ticket_get(v.store, &t, 2, 2, 0, NULL), 0);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -EIO);
	slu_ticket_put(&t);
	slu_batch_fini(&b);

	/* an error of the disk that passes is asked again */
	slu_simdisk_poke(v.disk, p.leaf, &whole);
	assert_true(slu_store_get(v.store, &p.in_leaf, buf, sizeof(buf), NULL) >= 0);
	vol_close(&v);
	vol_free(&v);
}

/* A node that is valid in itself, and another one than the parent means. */
static void a_misdirected_node_is_eio(void **state)
{
	struct vol v;
	struct places p;
	struct slu_disk_node d;
	uint8_t buf[SLU_VALUE_MAX];

	damaged_volume(&v, &p);
	slu_simdisk_peek(v.disk, p.leaf, &d);
	slu_key_put(d.lower, &SLU_KEY(16, 0, 0));
	seal(&d);
	slu_simdisk_poke(v.disk, p.leaf, &d);
	vol_open(&v);
	assert_int_equal(slu_store_get(v.store, &p.in_leaf, buf, sizeof(buf), NULL), -EIO);
	assert_int_equal(slu_store_get(v.store, &p.in_leaf, buf, sizeof(buf), NULL), -EIO);
	assert_int_equal(v.corrupt, 2);
	vol_close(&v);
	vol_free(&v);
}

static void a_damaged_root_keeps_the_volume_from_opening(void **state)
{
	struct vol v;
	struct places p;
	struct slu_disk_node d;
	const char *why = NULL;

	damaged_volume(&v, &p);
	slu_simdisk_peek(v.disk, p.root, &d);
	d.body[0] ^= 1;
	slu_simdisk_poke(v.disk, p.root, &d);
	assert_int_equal(vol_try_open(&v, &why), -EIO);
	assert_non_null(why);
	vol_free(&v);
}

/* Deleting next to a damaged sibling works; the node stays as empty as it is. */
static void a_damaged_sibling_does_not_keep_records_from_being_deleted(void **state)
{
	struct vol v;
	struct places p;
	struct slu_disk_node d;
	unsigned int deleted = 0, lost = 0;

	damaged_volume(&v, &p);
	slu_simdisk_peek(v.disk, p.leaf, &d);
	d.body[2000] ^= 1;
	slu_simdisk_poke(v.disk, p.leaf, &d);
	vol_open(&v);
	for (uint32_t id = 0; id < 2000; id++) {
		struct slu_ticket t;
		struct slu_batch b;
		struct slu_key key = model_key(id);
		int err;

		slu_batch_init(&b);
		slu_batch_del(&b, &key);
		assert_int_equal(slu_ticket_get(v.store, &t, 1, 0, SLU_TICKET_KEPT_BACK, NULL), 0);
		err = slu_store_apply(v.store, &t, &b, NULL, NULL);
		assert_true(err == 0 || err == -EIO);
		deleted += !err;
		lost += err == -EIO;
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
	assert_true(lost > 0 && lost < 200);
	assert_int_equal(deleted + lost, 2000);
	vol_close(&v);
	vol_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit_flip_of_a_leaf_is_found),
		cmocka_unit_test(every_bit_flip_of_an_inner_node_is_found),
		cmocka_unit_test(a_node_at_the_wrong_place_is_found),
		cmocka_unit_test(a_tampered_leaf_is_found),
		cmocka_unit_test(a_tampered_inner_node_is_found),
		cmocka_unit_test(random_damage_never_crashes_the_check),
		cmocka_unit_test(a_damaged_leaf_is_eio_for_its_records_alone),
		cmocka_unit_test(a_misdirected_node_is_eio),
		cmocka_unit_test(a_damaged_root_keeps_the_volume_from_opening),
		cmocka_unit_test(a_damaged_sibling_does_not_keep_records_from_being_deleted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
