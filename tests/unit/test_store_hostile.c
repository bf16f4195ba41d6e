/* SPDX-License-Identifier: MIT */
/*
 * Nodes that are right by themselves and lead to where they must not: a stranger can make any checksum.
 * What needs them is EIO, and nothing else happens.
 */
#include "sluice/format.h"
#include "test_store_util.h"
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define VOLUME_BLOCKS 16384u
#define IMAGE_BLOCKS  (8 * VOLUME_BLOCKS) /* behind the volume there is more */
#define HANG_S        60u

static struct vol v;

static void seal(struct slu_disk_node *d)
{
	uint64_t seed = XXH3_64bits(d->volume_id, sizeof(d->volume_id));

	slu_put_le64(&d->checksum,
		     XXH3_64bits_withSeed((uint8_t *)d + 8, SLU_BLOCK_SIZE - 8, seed));
}

static struct slu_disk_inner_slot *slot(struct slu_disk_node *d, unsigned int i)
{
	return (struct slu_disk_inner_slot *)d->body + i;
}

/* As the disk has them: the root, and the nodes on the way down its first slots. */
struct nodes {
	struct slu_disk_node at[SLU_TREE_MAX_DEPTH]; /* by level */
	unsigned int root;                           /* its level */
	bool seen[SLU_TREE_MAX_DEPTH];
};

static int note_node(void *ctx, const struct slu_node_visit *visit)
{
	struct nodes *n = ctx;

	assert_null(visit->wrong);
	if (n->seen[visit->level])
		return 0;
	n->seen[visit->level] = true;
	n->root = visit->level > n->root ? visit->level : n->root;
	memcpy(&n->at[visit->level], visit->node, SLU_BLOCK_SIZE);
	return 0;
}

static void read_nodes(struct nodes *n)
{
	memset(n, 0, sizeof(*n));
	v.opts.readonly = true;
	vol_open(&v);
	assert_int_equal(slu_store_walk(v.store, note_node, n), 0);
	vol_close(&v);
	v.opts.readonly = false;
}

static void read_block(uint64_t blkno, struct slu_disk_node *d)
{
	void *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE);

	assert_int_equal(slu_blockio_read(v.bio, blkno, 1, buf), 0);
	memcpy(d, buf, SLU_BLOCK_SIZE);
	slu_free(buf);
}

/* Of an open volume that is thrown away at once. */
static void write_node(struct slu_disk_node *d)
{
	void *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE);

	seal(d);
	memcpy(buf, d, SLU_BLOCK_SIZE);
	assert_int_equal(slu_blockio_write(v.bio, slu_get_le64(&d->blkno), 1, buf), 0);
	assert_int_equal(slu_blockio_flush(v.bio), 0);
	slu_free(buf);
}

static int put_record(uint32_t id)
{
	struct slu_key key = model_key(id);
	uint8_t value[SLU_VALUE_MAX];
	size_t len = model_value(id, 1, value);
	struct slu_ticket t;
	struct slu_batch b;
	struct slu_need need;
	int err;

	slu_batch_init(&b);
	slu_batch_put(&b, &key, value, len);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, len, 0, NULL), 0);
	while ((err = slu_store_apply(v.store, &t, &b, NULL, &need)) == -EAGAIN)
		assert_int_equal(slu_need_wait(&need), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	return err;
}

/* A volume of so many records in an image that is longer. */
static void make(uint32_t nrecords)
{
	vol_new_in(&v, VOLUME_BLOCKS, IMAGE_BLOCKS);
	vol_open(&v);
	for (uint32_t id = 0; id < nrecords; id++)
		assert_int_equal(put_record(id), 0);
	vol_close(&v);
}

static void open_again(void)
{
	vol_open(&v);
	atomic_store(&v.corrupt, 0);
	atomic_store(&v.readonly, 0);
}

static int count_record(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	(*(unsigned int *)ctx)++;
	return 0;
}

static const struct slu_key last_key = {.ino = UINT64_MAX, .type = UINT8_MAX, .off = UINT64_MAX};

static int scan(struct slu_key from, unsigned int *n)
{
	*n = 0;
	return slu_store_scan(v.store, &from, &last_key, count_record, n, NULL);
}

/* What still works: reading up to the damage, changing what is elsewhere, and a commit. */
static void the_rest_works(const struct slu_key *damaged)
{
	unsigned int n;

	assert_int_equal(scan((struct slu_key){0}, &n), -EIO);
	assert_true(n > 0);
	assert_int_equal(scan(*damaged, &n), -EIO);
	assert_int_equal(n, 0);
	assert_true(atomic_load(&v.corrupt) > 0);
	assert_int_equal(put_record(0), 0);
	vol_commit(&v);
	assert_int_equal(atomic_load(&v.readonly), 0);
}

static void two_slots_lead_to_one_node(void **state)
{
	struct nodes nodes;
	struct slu_disk_node *root;

	make(400);
	read_nodes(&nodes);
	root = &nodes.at[nodes.root];
	assert_true(nodes.root == 1 && slu_get_le16(&root->count) > 3);
	slot(root, 2)->blkno = slot(root, 1)->blkno;
	slot(root, 2)->txid = slot(root, 1)->txid;
	vol_open(&v);
	write_node(root);
	vol_drop(&v);

	open_again();
	alarm(HANG_S);
	struct slu_key damaged = slu_key_get(slot(root, 2)->key);
	the_rest_works(&damaged);
	/* a change there has to look at it as well */
	struct slu_ticket t;
	struct slu_batch b;
	struct slu_need need;
	int err;

	slu_batch_init(&b);
	slu_batch_put(&b, &damaged, "x", 1);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, 1, 0, NULL), 0);
	while ((err = slu_store_apply(v.store, &t, &b, NULL, &need)) == -EAGAIN)
		assert_int_equal(slu_need_wait(&need), 0);
	assert_int_equal(err, -EIO);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	alarm(0);
	vol_close(&v);
	vol_free(&v);
}

static void a_leaf_in_the_place_of_an_inner_node(void **state)
{
	struct nodes nodes;
	struct slu_disk_node *root, *inner;

	make(20000);
	read_nodes(&nodes);
	assert_int_equal(nodes.root, 2);
	root = &nodes.at[2];
	inner = &nodes.at[1];
	slot(root, 1)->blkno = slot(inner, 1)->blkno;
	slot(root, 1)->txid = slot(inner, 1)->txid;
	vol_open(&v);
	write_node(root);
	vol_drop(&v);

	open_again();
	struct slu_key damaged = slu_key_get(slot(root, 1)->key);
	the_rest_works(&damaged);
	vol_close(&v);
	vol_free(&v);
}

static void child_at(uint64_t blkno)
{
	struct slu_disk_node child, inner;
	struct nodes nodes;

	make(20000);
	read_nodes(&nodes);
	assert_int_equal(nodes.root, 2);
	vol_open(&v);
	/* What the volume is made of is in the first one. */
	read_block(slu_get_le64(&slot(&nodes.at[2], 1)->blkno), &inner);
	read_block(slu_get_le64(&slot(&inner, 2)->blkno), &child);
	slu_put_le64(&child.blkno, blkno);
	if (blkno >= 2 && blkno < IMAGE_BLOCKS)
		write_node(&child);
	slu_put_le64(&slot(&inner, 2)->blkno, blkno);
	write_node(&inner);
	vol_drop(&v);

	/* What leads there is not believed either. */
	open_again();
	unsigned int n;
	struct slu_key from = slu_key_get(inner.lower), after = slu_key_get(inner.upper);
	assert_int_equal(scan(from, &n), -EIO);
	assert_int_equal(n, 0);
	assert_int_equal(scan(after, &n), 0);
	assert_true(n > 0);
	assert_true(atomic_load(&v.corrupt) > 0);
	assert_int_equal(put_record((uint32_t)from.off), -EIO);
	assert_int_equal(put_record(19999), 0);
	vol_commit(&v);
	assert_int_equal(atomic_load(&v.readonly), 0);
	vol_close(&v);
	vol_free(&v);
}

static void children_outside_the_volume(void **state)
{
	child_at(0);
	child_at(VOLUME_BLOCKS - 1); /* the spare superblock */
	child_at(VOLUME_BLOCKS);
	child_at(IMAGE_BLOCKS - 1);
	child_at(UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_slots_lead_to_one_node),
		cmocka_unit_test(a_leaf_in_the_place_of_an_inner_node),
		cmocka_unit_test(children_outside_the_volume),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
