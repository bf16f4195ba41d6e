/* SPDX-License-Identifier: MIT */
/*
 * Space: what is promised is there, what is freed comes back to the same number, nothing is reused
 * too early, and a full volume can always be emptied.
 */
#include "test_store_util.h"

#define INO 100

/* A "file": extents of one inode, each a record of its own. */
static int extent_put(struct vol *v, uint64_t id, uint64_t blkno, uint64_t n, uint64_t *ret_txid)
{
	struct slu_disk_extent e = {0};
	struct slu_ticket t;
	struct slu_batch b;
	int err;

	slu_put_le64(&e.blkno, blkno);
	slu_put_le32(&e.nblocks, (uint32_t)n);
	slu_batch_init(&b);
	slu_batch_put(&b, &SLU_KEY(INO, SLU_REC_EXTENT, id), &e, sizeof(e));
	slu_batch_own(&b, blkno, n);
	err = slu_ticket_get(v->store, &t, 1, sizeof(e), SLU_TICKET_KEPT_BACK, NULL);
	if (!err)
		err = slu_store_apply(v->store, &t, &b, ret_txid, NULL);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	return err;
}

/* As the volume does it: data is written before a record leads to it. */
static void write_data(struct vol *v, uint64_t blkno, uint64_t n)
{
	static _Alignas(4096) uint8_t data[4096];

	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(slu_blockio_write(v->bio, blkno + i, 1, data), 0);
}

/* Reserves, takes, owns n blocks under the ids from *id on; *id moves on. */
static int extent_make(struct vol *v, uint64_t *id, uint64_t n, bool with_data)
{
	struct slu_reservation r = {0};
	uint64_t goal = 0;
	int err = slu_space_reserve(v->store, &r, n, n, NULL);

	if (err)
		return err;
	while (r.blocks) {
		uint64_t blkno, got;

		assert_int_equal(slu_space_take(v->store, &r, goal, r.blocks, &blkno, &got, NULL),
				 0);
		assert_true(got > 0 && blkno >= 2);
		if (with_data)
			write_data(v, blkno, got);
		assert_int_equal(extent_put(v, (*id)++, blkno, got, NULL), 0);
		goal = blkno + got;
	}
	slu_space_unreserve(v->store, &r, 0, r.records);
	return 0;
}

static int extent_new(struct vol *v, uint64_t *id, uint64_t n)
{
	return extent_make(v, id, n, false);
}

static int extent_del(struct vol *v, uint64_t id, uint64_t *ret_blkno, uint64_t *ret_n)
{
	struct slu_key key = SLU_KEY(INO, SLU_REC_EXTENT, id);
	struct slu_disk_extent e;
	struct slu_ticket t;
	struct slu_batch b;
	int err = slu_store_get(v->store, &key, &e, sizeof(e), NULL);

	if (err < 0)
		return err;
	slu_batch_init(&b);
	slu_batch_del(&b, &key);
	slu_batch_free(&b, slu_get_le64(&e.blkno), slu_get_le32(&e.nblocks));
	err = slu_ticket_get(v->store, &t, 1, 0, SLU_TICKET_KEPT_BACK, NULL);
	if (!err)
		err = slu_store_apply(v->store, &t, &b, NULL, NULL);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	if (ret_blkno)
		*ret_blkno = slu_get_le64(&e.blkno);
	if (ret_n)
		*ret_n = slu_get_le32(&e.nblocks);
	return err;
}

static uint64_t space_free(struct vol *v)
{
	struct slu_space_stat st;

	slu_space_stat(v->store, &st);
	return st.free;
}

static void a_reservation_shows_and_goes_without_a_trace(void **state)
{
	struct slu_space_stat before, with, after;
	struct slu_reservation r = {0};
	uint64_t blkno, n;
	struct vol v;

	vol_new(&v, 16384);
	vol_open(&v);
	slu_space_stat(v.store, &before);
	assert_int_equal(slu_space_reserve(v.store, &r, 100, 50, NULL), 0);
	slu_space_stat(v.store, &with);
	assert_int_equal(with.free, before.free - 100);
	assert_int_equal(with.reserved, 100);
	assert_int_equal(slu_space_take(v.store, &r, 0, 40, &blkno, &n, NULL), 0);
	assert_int_equal(n, 40);
	slu_space_stat(v.store, &with);
	assert_int_equal(with.free, before.free - 100);
	assert_int_equal(r.blocks, 60);
	slu_space_untake(v.store, &r, blkno, 20);
	assert_int_equal(r.blocks, 80);
	slu_space_untake(v.store, NULL, blkno + 20, 20);
	slu_space_unreserve(v.store, &r, 80, 50);
	slu_space_stat(v.store, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

static void blocks_follow_the_goal(void **state)
{
	struct slu_reservation r = {0};
	uint64_t blkno, n, next;
	struct vol v;

	vol_new(&v, 65536);
	vol_open(&v);
	assert_int_equal(slu_space_reserve(v.store, &r, 9000, 0, NULL), 0);
	assert_int_equal(slu_space_take(v.store, &r, 30000, 50, &blkno, &n, NULL), 0);
	assert_int_equal(blkno, 30000);
	assert_int_equal(n, 50);
	/* over the end of a chunk in two runs */
	assert_int_equal(slu_space_take(v.store, &r, 30050, 4096, &blkno, &n, NULL), 0);
	assert_int_equal(blkno, 30050);
	next = blkno + n;
	assert_int_equal(next % SLU_CHUNK_BLOCKS, 0);
	assert_int_equal(slu_space_take(v.store, &r, next, 100, &blkno, &n, NULL), 0);
	assert_int_equal(blkno, next);
	assert_int_equal(n, 100);
	/* the goal is not free: a run of the whole length somewhere */
	assert_int_equal(slu_space_take(v.store, &r, 30000, 100, &blkno, &n, NULL), 0);
	assert_int_equal(n, 100);
	slu_store_fail(v.store, -EIO, "enough");
	vol_try_close(&v);
	vol_free(&v);
}

static void a_full_volume_can_be_emptied_and_free_comes_back(void **state)
{
	struct slu_space_stat st;
	uint64_t free_at_first, ids = 0, n = 0;
	struct disk_facts f;
	struct vol v;
	int err;

	vol_new(&v, 16384);
	vol_open(&v);
	free_at_first = space_free(&v);
	for (unsigned int round = 0; round < 3; round++) {
		uint64_t id = 0;

		while (!(err = extent_new(&v, &id, 1 + id % 7)))
			;
		assert_int_equal(err, -ENOSPC);
		while (!(err = extent_new(&v, &id, 1)))
			;
		assert_int_equal(err, -ENOSPC);
		slu_space_stat(v.store, &st);
		assert_true(st.free <= 1);
		ids = id;
		if (round == 1) {
			vol_close(&v);
			disk_check(v.disk, &f, false);
			vol_open(&v);
		}
		/* all of it, in an order that frees here and there */
		n = 0;
		for (uint64_t i = 0; i < ids; i++)
			n += !extent_del(&v, i * 7919 % ids, NULL, NULL);
		for (uint64_t i = 0; i < ids; i++)
			n += !extent_del(&v, i, NULL, NULL);
		assert_int_equal(n, ids);
		assert_int_equal(space_free(&v), free_at_first);
		vol_commit(&v);
		assert_int_equal(space_free(&v), free_at_first);
	}
	vol_close(&v);
	disk_check(v.disk, &f, false);
	assert_int_equal(f.data_blocks, 0);
	vol_open(&v);
	assert_int_equal(space_free(&v), free_at_first);
	vol_close(&v);
	vol_free(&v);
}

/* Filled with small records until nothing goes: the nodes that they really need must be there. */
static void a_volume_full_of_records_can_be_emptied(void **state)
{
	uint64_t free_at_first, n = 0;
	uint8_t buf[SLU_VALUE_MAX] = {0};
	struct rng rng = {1};
	struct disk_facts f;
	struct vol v;
	int err = 0;

	vol_new(&v, 8192);
	vol_open(&v);
	free_at_first = space_free(&v);
	while (!err) {
		struct slu_ticket t;
		struct slu_batch b;
		size_t len = (n * 97) % 1025;

		slu_batch_init(&b);
		slu_batch_put(&b, &SLU_KEY(n * 2654435761u % 1000003, REC_TEST, n), buf, len);
		err = slu_ticket_get(v.store, &t, 1, len, 0, NULL);
		if (!err) {
			assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
			n++;
		}
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
	assert_int_equal(err, -ENOSPC);
	assert_true(space_free(&v) <= 1);
	vol_reopen(&v);
	/* at random, so that nodes are merged when they are near empty */
	for (uint64_t i = 0; i < n; i++) {
		uint64_t k = i * 7919 % n;
		struct slu_ticket t;
		struct slu_batch b;

		if (n % 7919 == 0)
			k = i;
		slu_batch_init(&b);
		slu_batch_del(&b, &SLU_KEY(k * 2654435761u % 1000003, REC_TEST, k));
		assert_int_equal(slu_ticket_get(v.store, &t, 1, 0, SLU_TICKET_KEPT_BACK, NULL), 0);
		assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
		if (rng_below(&rng, 1000) == 0)
			vol_commit(&v);
	}
	assert_int_equal(space_free(&v), free_at_first);
	vol_close(&v);
	disk_check(v.disk, &f, false);
	assert_int_equal(f.record_bytes, 0);
	assert_int_equal(v.readonly, 0);
	vol_free(&v);
}

static void record_batch(struct vol *v, uint64_t first, uint64_t step, unsigned int n, bool del)
{
	static const uint8_t value[100];
	struct slu_ticket t;
	struct slu_batch b;

	slu_batch_init(&b);
	for (unsigned int i = 0; i < n; i++) {
		struct slu_key key = SLU_KEY(20, REC_TEST, first + i * step);

		if (del)
			slu_batch_del(&b, &key);
		else
			slu_batch_put(&b, &key, value, sizeof(value));
	}
	assert_int_equal(slu_ticket_get(v->store, &t, n, del ? 0 : n * sizeof(value),
					SLU_TICKET_KEPT_BACK, NULL),
			 0);
	assert_int_equal(slu_store_apply(v->store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
}

/*
 * The worst that can be: nodes as empty as they may be, data in every block that was promised, and then
 * changes all over the tree: they live on the blocks kept back.
 */
static void a_full_volume_of_sparse_nodes_can_be_changed_all_over(void **state)
{
	enum { RECORDS = 60000, PIECE = 120 };
	struct disk_facts f;
	uint64_t id = 0;
	struct vol v;
	int err;

	vol_new(&v, 8192);
	vol_open(&v);
	/* full leaves from appending; then five of eight records of each go */
	for (uint64_t i = 0; i < RECORDS; i += PIECE)
		record_batch(&v, i, 1, PIECE, false);
	for (unsigned int k = 0; k < 5; k++)
		for (uint64_t i = k; i < RECORDS; i += 8 * PIECE)
			record_batch(&v, i, 8, (unsigned int)slu_min(PIECE, (RECORDS - i + 7) / 8),
				     true);
	vol_reopen(&v);
	while (!(err = extent_new(&v, &id, 16)))
		;
	while (!(err = extent_new(&v, &id, 1)))
		;
	assert_int_equal(err, -ENOSPC);
	vol_close(&v);
	disk_check(v.disk, &f, false);
	/* the nodes take what they are charged at, all but */
	assert_true(f.nodes * 100 > (f.record_bytes / 1300) * 85);
	vol_open(&v);
	for (unsigned int round = 0; round < 3; round++) {
		for (uint64_t i = 5; i < RECORDS; i += 8 * PIECE)
			record_batch(&v, i, 8, (unsigned int)slu_min(PIECE, (RECORDS - i + 7) / 8),
				     false);
		vol_commit(&v);
	}
	assert_int_equal(v.readonly, 0);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* The same contents, put there on different ways, show the same free space. */
static void equal_contents_show_equal_free_space(void **state)
{
	uint64_t shown[2];

	for (unsigned int way = 0; way < 2; way++) {
		uint64_t id = 0, other = 100000;
		struct vol v;

		vol_new(&v, 32768);
		vol_open(&v);
		if (way) {
			for (unsigned int i = 0; i < 300; i++)
				assert_int_equal(extent_new(&v, &other, 20), 0);
			vol_commit(&v);
			for (uint64_t i = 100000; i < other; i++)
				assert_int_equal(extent_del(&v, i, NULL, NULL), 0);
		}
		for (unsigned int i = 0; i < 1000; i++) {
			/* in one piece whatever else there is: one record each */
			struct slu_reservation r = {0};
			uint64_t blkno, n;

			assert_int_equal(slu_space_reserve(v.store, &r, 1, 1, NULL), 0);
			assert_int_equal(slu_space_take(v.store, &r, 0, 1, &blkno, &n, NULL), 0);
			id = way ? 999 - i : i;
			assert_int_equal(extent_put(&v, id, blkno, 1, NULL), 0);
			slu_space_unreserve(v.store, &r, 0, 1);
		}
		if (way)
			vol_reopen(&v);
		vol_commit(&v);
		shown[way] = space_free(&v);
		vol_close(&v);
		vol_free(&v);
	}
	assert_int_equal(shown[0], shown[1]);
}

/* What pending blocks hold up is a need that runs commits, not ENOSPC. */
static void room_that_is_pending_is_waited_for(void **state)
{
	struct slu_reservation r = {0};
	struct slu_need need = {0};
	struct slu_space_stat st;
	unsigned int waits = 0;
	uint64_t id = 0, nblocks;
	struct vol v;
	int err;

	vol_new(&v, 16384);
	vol_open(&v);
	nblocks = space_free(&v) - 100;
	assert_int_equal(extent_new(&v, &id, nblocks), 0);
	vol_commit(&v);
	for (uint64_t i = 0; i < id; i++)
		assert_int_equal(extent_del(&v, i, NULL, NULL), 0);
	slu_space_stat(v.store, &st);
	assert_int_equal(st.pending, nblocks);
	while ((err = slu_space_reserve(v.store, &r, nblocks, 1, &need)) == -EAGAIN) {
		assert_true(need.slow);
		assert_int_equal(slu_need_wait(&need), 0);
		waits++;
	}
	assert_int_equal(err, 0);
	assert_true(waits >= 1 && waits <= 2);
	slu_space_unreserve(v.store, &r, r.blocks, r.records);
	vol_close(&v);
	vol_free(&v);
}

/* ------------------------------------------------------------------ reuse */

struct reach {
	uint8_t *a, *b; /* of the two superblocks on disk */
};

/* What both superblocks reach, by opening the disk with one or the other in both slots. */
static void reach_both(struct slu_simdisk *disk, uint64_t nblocks, struct reach *ret)
{
	uint8_t *maps[2];

	for (unsigned int slot = 0; slot < 2; slot++) {
		struct slu_simdisk *copy = slu_simdisk_clone(disk);
		struct disk_facts f;
		uint8_t sb[SLU_BLOCK_SIZE];

		slu_simdisk_peek(copy, slot, sb);
		slu_simdisk_poke(copy, !slot, sb);
		disk_check(copy, &f, true);
		maps[slot] = f.reached;
		slu_simdisk_free(copy);
	}
	ret->a = maps[0];
	ret->b = maps[1];
}

/*
 * Watches every write between two commits: none may go to a block that a superblock on disk
 * reaches.
 */
static void no_block_is_written_while_a_superblock_reaches_it(void **state)
{
	enum { NBLOCKS = 8192 };
	struct rng rng = {21};
	uint64_t next_id = 0, first_id = 0;
	unsigned int checked = 0;
	struct vol v;

	vol_new(&v, NBLOCKS);
	vol_open(&v);
	/*
	 * Full, and what is freed is more in each round than what is kept back: it is wanted at
	 * once.
	 */
	while (!extent_new(&v, &next_id, 30))
		;
	vol_commit(&v);
	for (unsigned int round = 0; round < 30; round++) {
		struct reach reach;
		size_t nrec;

		reach_both(v.disk, NBLOCKS, &reach);
		slu_simdisk_record(v.disk, true);
		for (unsigned int i = 0; i < 160; i++) {
			if (i >= 80) {
				(void)extent_make(&v, &next_id, 1 + rng_below(&rng, 40), true);
				if (i % 7 == 0) /* and the other thread is at it too */
					slu_store_commit_soon(v.store);
			} else if (first_id < next_id) {
				assert_int_equal(extent_del(&v, first_id++, NULL, NULL), 0);
			}
		}
		vol_commit(&v);
		nrec = slu_simdisk_nrecords(v.disk);
		for (size_t i = 0; i < nrec; i++) {
			struct slu_simdisk_record rec;

			slu_simdisk_record_at(v.disk, i, &rec);
			if (rec.op != SLU_IO_WRITE)
				continue;
			if (rec.blkno < 2) {
				/* from here on the older superblock is gone: look anew */
				struct slu_simdisk *now = slu_simdisk_replay(v.disk, i + 1, 0);

				free(reach.a);
				free(reach.b);
				reach_both(now, NBLOCKS, &reach);
				slu_simdisk_free(now);
				continue;
			}
			for (uint64_t b = rec.blkno; b < rec.blkno + rec.nblocks; b++) {
				if (reach.a[b] || reach.b[b])
					fail_msg("block %lu is written while it is reached", b);
				checked++;
			}
		}
		free(reach.a);
		free(reach.b);
		slu_simdisk_record(v.disk, false);
	}
	assert_true(checked > 1000);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

static void a_block_freed_twice_makes_the_volume_read_only(void **state)
{
	struct slu_ticket t;
	struct slu_batch b;
	struct vol v;

	vol_new(&v, 8192);
	vol_open(&v);
	assert_int_equal(slu_ticket_get(v.store, &t, 2, 2, 0, NULL), 0);
	slu_batch_init(&b);
	slu_batch_put(&b, &SLU_KEY(20, REC_TEST, 0), "x", 1);
	slu_batch_free(&b, 1, 1);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -EIO);
	slu_batch_reset(&b);
	slu_batch_put(&b, &SLU_KEY(20, REC_TEST, 0), "x", 1);
	slu_batch_free(&b, 8000, 500);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -EIO);
	slu_batch_reset(&b);
	slu_batch_free(&b, 7000, 1);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	assert_true(slu_store_commit(v.store, slu_store_txid(v.store), true) < 0);
	assert_int_equal(v.readonly, 1);
	assert_int_equal(slu_store_get(v.store, &SLU_KEY(20, REC_TEST, 0), NULL, 0, NULL), -ENOENT);
	slu_batch_fini(&b);
	assert_int_equal(vol_try_close(&v), -EROFS);
	vol_free(&v);
}

/* ------------------------------------------------------------------ a damaged record of space */

static int find_space_leaf(void *ctx, const struct slu_node_visit *v)
{
	struct slu_key lower, upper, key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE, 10);

	if (v->level)
		return 0;
	lower = slu_key_get(v->node->lower);
	upper = slu_key_get(v->node->upper);
	if (slu_key_cmp(&lower, &key) <= 0 && slu_key_cmp(&key, &upper) < 0)
		*(uint64_t *)ctx = v->blkno;
	return 0;
}

static void a_bad_space_record_takes_its_range_out_of_use(void **state)
{
	struct slu_disk_node d;
	uint64_t id = 0, leaf = 0, last;
	struct vol v;

	vol_new(&v, 4096 * 20);
	vol_open(&v);
	while (!extent_new(&v, &id, 1000))
		;
	last = id;
	vol_close(&v);
	v.opts.readonly = true;
	vol_open(&v);
	assert_int_equal(slu_store_walk(v.store, find_space_leaf, &leaf), 0);
	vol_close(&v);
	v.opts.readonly = false;
	slu_simdisk_peek(v.disk, leaf, &d);
	d.body[100] ^= 4;
	slu_simdisk_poke(v.disk, leaf, &d);

	vol_open(&v);
	/* frees in all chunks; what lies in the bad range stays in use */
	for (uint64_t i = 0; i < last; i++)
		assert_int_equal(extent_del(&v, i, NULL, NULL), 0);
	vol_commit(&v);
	vol_commit(&v);
	assert_true(v.corrupt > 0);
	assert_int_equal(v.readonly, 0);
	id = 0;
	for (unsigned int i = 0; i < 20; i++)
		assert_int_equal(extent_new(&v, &id, 1000), 0);
	vol_commit(&v);
	assert_int_equal(v.readonly, 0);
	vol_close(&v);
	vol_free(&v);
}

/* ------------------------------------------------------------------ grow, host */

static void grow(struct vol *v, uint64_t nblocks)
{
	assert_int_equal(slu_blockio_grow(v->bio, nblocks), 0);
	assert_int_equal(slu_space_grow(v->store, nblocks), 0);
}

/* Fills it, makes it longer, to a place in the same chunk and in a later one, and fills it again. */
static void grow_and_fill(struct vol *v)
{
	uint64_t before, id = 0;

	vol_open(v);
	before = space_free(v);
	assert_int_equal(slu_space_grow(v->store, 9000), -EINVAL);
	assert_int_equal(slu_space_grow(v->store, 20000), -EINVAL);
	while (!extent_new(v, &id, 100))
		;
	grow(v, 11000);
	grow(v, 11000);
	while (!extent_new(v, &id, 1))
		;
	grow(v, 30000);
	assert_true(space_free(v) > 15000 && space_free(v) + before < 30000);
	while (!extent_new(v, &id, 100))
		;
	vol_close(v);
	disk_check(v->disk, NULL, false);
	vol_open(v);
	while (!extent_new(v, &id, 1))
		;
	vol_close(v);
	disk_check(v->disk, NULL, false);
	vol_free(v);
}

static void a_grown_volume_has_more_room(void **state)
{
	struct vol v;

	/* ends in the middle of a chunk */
	vol_new(&v, 10000);
	grow_and_fill(&v);
	vol_new_without_spare(&v, 10000);
	grow_and_fill(&v);
}

/* disk_check compares it with the superblock in use. */
static void a_power_cut_while_it_grows_leaves_the_spare_superblock_whole(void **state)
{
	uint64_t id = 0, long_ones = 0;
	struct vol v;
	size_t n;

	vol_new(&v, 10000);
	vol_open(&v);
	while (!extent_new(&v, &id, 100))
		;
	vol_commit(&v);
	assert_int_equal(slu_blockio_grow(v.bio, 10500), 0);
	slu_simdisk_record(v.disk, true);
	assert_int_equal(slu_space_grow(v.store, 10500), 0);
	/* Into the old one's block as well, as soon as it may be used. */
	for (unsigned int i = 0; i < 4; i++) {
		while (!extent_new(&v, &id, 1))
			;
		vol_commit(&v);
	}
	vol_close(&v);
	slu_simdisk_record(v.disk, false);
	n = slu_simdisk_nrecords(v.disk);
	for (size_t k = 0; k <= n; k += k < 200 ? 1 : 7) {
		struct slu_simdisk *cut = slu_simdisk_replay(v.disk, k, k);
		struct slu_disk_super sb[2];

		slu_simdisk_inline(cut, true);
		disk_check(cut, NULL, false);
		slu_simdisk_peek(cut, 0, &sb[0]);
		slu_simdisk_peek(cut, 1, &sb[1]);
		long_ones += slu_get_le64(&sb[0].nblocks) == 10500 &&
			     slu_get_le64(&sb[1].nblocks) == 10500;
		slu_simdisk_free(cut);
	}
	assert_true(long_ones > 0 && long_ones < n);
	vol_free(&v);
}

/* Whatever is asked for, nobody gets the last block; nor does the tree go where it is lost first. */
static void nodes_and_data_keep_off_the_superblocks(void **state)
{
	struct disk_facts f;
	uint64_t id = 0;
	struct vol v;

	vol_new(&v, SLU_MIN_BLOCKS);
	vol_open(&v);
	for (unsigned int i = 0; i < 20; i++) {
		assert_int_equal(extent_new(&v, &id, 1), 0);
		vol_commit(&v);
	}
	vol_close(&v);
	disk_check(v.disk, &f, true);
	for (uint64_t blkno = 2; blkno < 256; blkno++)
		assert_int_equal(f.reached[blkno], 0);
	free(f.reached);
	vol_open(&v);
	while (!extent_new(&v, &id, 1))
		;
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* Their blocks can be written, as was promised. */
static void write_extents(struct vol *v, uint64_t from, uint64_t end)
{
	static _Alignas(4096) uint8_t data[4096];
	struct slu_disk_extent e;

	for (uint64_t i = from; i < end; i++) {
		assert_true(slu_store_get(v->store, &SLU_KEY(INO, SLU_REC_EXTENT, i), &e, sizeof(e),
					  NULL) > 0);
		for (uint32_t k = 0; k < slu_get_le32(&e.nblocks); k++)
			assert_int_equal(slu_blockio_write(v->bio, slu_get_le64(&e.blkno) + k, 1,
							   data),
					 0);
	}
}

static void a_full_host_is_enospc_before_anything_is_promised(void **state)
{
	uint64_t id = 0, n = 0;
	struct vol v;
	int err;

	vol_new(&v, 4096 * 40);
	v.opts.reserve_host = true;
	slu_simdisk_host_space(v.disk, 4096 * 10);
	vol_open(&v);
	while (!(err = extent_new(&v, &id, 500)))
		n += 500;
	assert_int_equal(err, -ENOSPC);
	assert_true(v.no_space > 0);
	/* what was promised can be written, and committed */
	assert_true(n > 4096 * 6 && n <= 4096 * 10);
	write_extents(&v, 0, id);
	vol_commit(&v);
	/* room comes back */
	slu_simdisk_host_space(v.disk, 4096 * 10);
	assert_int_equal(extent_new(&v, &id, 500), 0);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* The host had backed all of the last chunk as it was, and backs nothing more. */
static void what_grows_in_a_backed_chunk_is_not_backed(void **state)
{
	uint64_t id = 0, before;
	struct vol v;
	int err;

	vol_new(&v, 10000);
	v.opts.reserve_host = true;
	slu_simdisk_host_space(v.disk, 100000);
	vol_open(&v);
	while (!(err = extent_new(&v, &id, 1)))
		;
	assert_int_equal(err, -ENOSPC);
	vol_commit(&v);
	before = id;
	/* for the spare superblock and a commit, and not for a whole chunk */
	slu_simdisk_host_space(v.disk, 64);
	grow(&v, 12288);
	vol_commit(&v);
	while (!(err = extent_new(&v, &id, 1)))
		;
	assert_int_equal(err, -ENOSPC);
	write_extents(&v, before, id);
	slu_simdisk_host_space(v.disk, UINT64_MAX);
	while (!extent_new(&v, &id, 1))
		;
	assert_true(id > before + 2000);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* 417,793 is where the levels of a tree that large have one node more. */
static void growing_never_takes_away_from_what_fits(void **state)
{
	struct slu_space_stat st;
	uint64_t holds = 0;
	struct vol v;
	int refused = 0;

	vol_new(&v, 417000);
	vol_open(&v);
	assert_int_equal(slu_blockio_grow(v.bio, 418000), 0);
	for (uint64_t n = 417000; n <= 418000; n++) {
		int err = slu_space_grow(v.store, n);

		assert_true(!err || err == -EINVAL);
		refused += err != 0;
		slu_space_stat(v.store, &st);
		assert_true(st.nblocks >= holds);
		holds = st.nblocks;
	}
	assert_true(refused > 0 && refused < 20);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* A terabyte, sparse: opening does not read it, and chunks come and go. */
static void a_huge_volume_opens_at_once_and_is_used_all_over(void **state)
{
	enum { N = 3000 };
	const uint64_t nblocks = 1ull << 28;
	struct rng rng = {5};
	uint64_t id = 0, reads, reserved;
	struct slu_reservation r = {0};
	struct vol v;

	vol_new(&v, nblocks);
	v.opts.node_cache_bytes = 1 << 20;
	vol_open(&v);
	assert_true(slu_store_stats(v.store)->node_reads <= 1);
	assert_int_equal(slu_space_reserve(v.store, &r, 10 * N, N, NULL), 0);
	for (unsigned int i = 0; i < N; i++) {
		uint64_t goal = 2 + rng_below(&rng, nblocks - 100), blkno, n;

		assert_int_equal(slu_space_take(v.store, &r, goal, 1 + i % 10, &blkno, &n, NULL),
				 0);
		assert_int_equal(extent_put(&v, id++, blkno, n, NULL), 0);
		if (i % 200 == 199)
			vol_commit(&v);
	}
	reserved = r.blocks;
	slu_space_unreserve(v.store, &r, reserved, N);
	vol_reopen(&v);
	reads = slu_store_stats(v.store)->node_reads;
	assert_true(reads <= 1);
	for (uint64_t i = 0; i < id; i++) {
		assert_int_equal(extent_del(&v, i, NULL, NULL), 0);
		if (i % 500 == 499)
			vol_commit(&v);
	}
	vol_close(&v);
	vol_open(&v);
	assert_int_equal(v.corrupt, 0);
	assert_int_equal(v.readonly, 0);
	vol_close(&v);
	vol_free(&v);
}

/* An extent of 4 GiB is freed in one batch: hundreds of chunks. */
static void the_largest_extents_can_be_freed(void **state)
{
	struct slu_disk_extent e = {0};
	struct slu_reservation r = {0};
	uint64_t free_at_first, id = 0, n = 0;
	struct vol v;

	vol_new(&v, 3 * SLU_EXTENT_MAX);
	vol_open(&v);
	free_at_first = space_free(&v);
	assert_int_equal(slu_space_reserve(v.store, &r, 2 * SLU_EXTENT_MAX, 2, NULL), 0);
	while (n < 2 * SLU_EXTENT_MAX) {
		uint64_t blkno, got;

		assert_int_equal(slu_space_take(v.store, &r, SLU_CHUNK_BLOCKS + n, r.blocks, &blkno,
						&got, NULL),
				 0);
		assert_int_equal(blkno, SLU_CHUNK_BLOCKS + n);
		assert_int_equal(extent_put(&v, id++, blkno, got, NULL), 0);
		n += got;
	}
	slu_space_unreserve(v.store, &r, r.blocks, r.records);
	vol_commit(&v);
	/* as one, in one batch */
	{
		struct slu_ticket t;
		struct slu_batch b;

		slu_batch_init(&b);
		slu_batch_put(&b, &SLU_KEY(INO, SLU_REC_EXTENT, 0), &e, 0);
		slu_batch_free(&b, SLU_CHUNK_BLOCKS, 2 * SLU_EXTENT_MAX);
		assert_int_equal(slu_ticket_get(v.store, &t, 1, 16, 0, NULL), 0);
		assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
	vol_commit(&v);
	for (uint64_t i = 0; i < id; i++) {
		struct slu_ticket t;
		struct slu_batch b;

		slu_batch_init(&b);
		slu_batch_del(&b, &SLU_KEY(INO, SLU_REC_EXTENT, i));
		assert_int_equal(slu_ticket_get(v.store, &t, 1, 0, SLU_TICKET_KEPT_BACK, NULL), 0);
		assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
	assert_int_equal(space_free(&v), free_at_first);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reservation_shows_and_goes_without_a_trace),
		cmocka_unit_test(blocks_follow_the_goal),
		cmocka_unit_test(a_full_volume_can_be_emptied_and_free_comes_back),
		cmocka_unit_test(a_volume_full_of_records_can_be_emptied),
		cmocka_unit_test(a_full_volume_of_sparse_nodes_can_be_changed_all_over),
		cmocka_unit_test(equal_contents_show_equal_free_space),
		cmocka_unit_test(room_that_is_pending_is_waited_for),
		cmocka_unit_test(no_block_is_written_while_a_superblock_reaches_it),
		cmocka_unit_test(a_block_freed_twice_makes_the_volume_read_only),
		cmocka_unit_test(a_bad_space_record_takes_its_range_out_of_use),
		cmocka_unit_test(a_grown_volume_has_more_room),
		cmocka_unit_test(a_power_cut_while_it_grows_leaves_the_spare_superblock_whole),
		cmocka_unit_test(nodes_and_data_keep_off_the_superblocks),
		cmocka_unit_test(a_full_host_is_enospc_before_anything_is_promised),
		cmocka_unit_test(what_grows_in_a_backed_chunk_is_not_backed),
		cmocka_unit_test(growing_never_takes_away_from_what_fits),
		cmocka_unit_test(a_huge_volume_opens_at_once_and_is_used_all_over),
		cmocka_unit_test(the_largest_extents_can_be_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
