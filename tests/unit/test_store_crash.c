/* SPDX-License-Identifier: MIT */
/*
 * The power fails: after every single write and flush of a random run, with what was not flushed
 * kept, lost or torn. What is found after is exactly one of the states that were committed, never
 * an older one than was acknowledged, and every block is owned once.
 */
#include "test_store_util.h"
#include <xxhash.h>

#define NKEYS         1500u
#define NEXTENTS      200u
#define INO_EXTENTS   10
#define MAX_SNAPSHOTS 64u

struct state {
	uint32_t version[NKEYS];
	uint64_t blkno[NEXTENTS]; /* 0: none */
	uint32_t nblocks[NEXTENTS];
};

struct snapshot {
	uint64_t txid;
	size_t acknowledged; /* log records when its commit returned */
	struct state state;
};

struct run {
	struct vol v;
	struct rng rng;
	struct state now;
	uint32_t counter;
	struct snapshot snapshots[MAX_SNAPSHOTS];
	unsigned int nsnapshots;
	unsigned int found_newer;
};

static struct slu_key extent_key(uint32_t i)
{
	return SLU_KEY(INO_EXTENTS, SLU_REC_EXTENT, i);
}

static void change_records(struct run *r, struct slu_batch *b)
{
	uint32_t first = (uint32_t)rng_below(&r->rng, NKEYS - 60);
	unsigned int n = 1 + (unsigned int)rng_below(&r->rng, 40);

	for (unsigned int i = 0; i < n; i++) {
		uint32_t id = first + i;
		struct slu_key key = model_key(id);
		uint8_t buf[SLU_VALUE_MAX];

		if (r->now.version[id] && rng_below(&r->rng, 2)) {
			slu_batch_del(b, &key);
			r->now.version[id] = 0;
		} else {
			r->now.version[id] = ++r->counter;
			slu_batch_put(b, &key, buf, model_value(id, r->counter, buf));
		}
	}
}

static void change_extent(struct run *r, struct slu_batch *b)
{
	uint32_t i = (uint32_t)rng_below(&r->rng, NEXTENTS);
	struct slu_key key = extent_key(i);
	struct slu_reservation res = {0};
	struct slu_disk_extent e = {0};
	uint64_t want = 1 + rng_below(&r->rng, 30), blkno, n;

	if (r->now.blkno[i]) {
		slu_batch_del(b, &key);
		slu_batch_free(b, r->now.blkno[i], r->now.nblocks[i]);
		r->now.blkno[i] = 0;
		return;
	}
	assert_int_equal(slu_space_reserve(r->v.store, &res, want, 1, NULL), 0);
	assert_int_equal(slu_space_take(r->v.store, &res, 0, want, &blkno, &n, NULL), 0);
	slu_space_unreserve(r->v.store, &res, res.blocks, 1);
	slu_put_le64(&e.blkno, blkno);
	slu_put_le32(&e.nblocks, (uint32_t)n);
	slu_batch_put(b, &key, &e, sizeof(e));
	slu_batch_own(b, blkno, n);
	r->now.blkno[i] = blkno;
	r->now.nblocks[i] = (uint32_t)n;
}

static void change(struct run *r)
{
	struct slu_ticket t;
	struct slu_batch b;

	slu_batch_init(&b);
	change_records(r, &b);
	change_extent(r, &b);
	assert_int_equal(slu_ticket_get(r->v.store, &t, 64, 64 * SLU_VALUE_MAX, 0, NULL), 0);
	assert_int_equal(slu_store_apply(r->v.store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
}

static void snapshot(struct run *r, uint64_t txid)
{
	struct snapshot *s = &r->snapshots[r->nsnapshots++];

	assert_true(r->nsnapshots <= MAX_SNAPSHOTS);
	s->txid = txid;
	s->state = r->now;
	s->acknowledged = SIZE_MAX;
}

/* The state that transaction txid, or the last one before it, has left. */
static const struct snapshot *snapshot_of(const struct run *r, uint64_t txid)
{
	for (unsigned int i = r->nsnapshots; i-- > 0;)
		if (r->snapshots[i].txid <= txid)
			return &r->snapshots[i];
	return NULL;
}

static int see_extent(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct state *s = ctx;
	const struct slu_disk_extent *e = value;

	assert_true(key->off < NEXTENTS);
	s->blkno[key->off] = slu_get_le64(&e->blkno);
	s->nblocks[key->off] = slu_get_le32(&e->nblocks);
	return 0;
}

static bool state_equal(struct slu_store *store, const struct state *want)
{
	static struct state have;
	struct slu_key from = extent_key(0), end = SLU_KEY(INO_EXTENTS, SLU_REC_EXTENT + 1, 0);

	memset(&have, 0, sizeof(have));
	assert_int_equal(slu_store_scan(store, &from, &end, see_extent, &have, NULL), 0);
	for (unsigned int i = 0; i < NEXTENTS; i++) {
		if (have.blkno[i] != want->blkno[i])
			return false;
		if (want->blkno[i] && have.nblocks[i] != want->nblocks[i])
			return false;
	}
	return model_equal(store, want->version, NKEYS);
}

static void disk_of_a_cut(struct run *r, size_t k, uint64_t seed, bool go_on)
{
	struct vol v = {.disk = slu_simdisk_replay(r->v.disk, k, seed)};
	const struct snapshot *s, *least = NULL;
	struct slu_store_info info;
	uint64_t txid;

	slu_simdisk_inline(v.disk, true);
	disk_check(v.disk, NULL, false);
	v.opts.readonly = !go_on;
	vol_open(&v);
	slu_store_info(v.store, &info);
	assert_false(info.fell_back);
	txid = slu_get_le64(&slu_store_super(v.store)->txid);
	s = snapshot_of(r, txid);
	assert_non_null(s);
	if (!state_equal(v.store, &s->state))
		fail_msg("cut at %zu, seed %lu: not what transaction %lu had", k, seed, txid);
	for (unsigned int i = 0; i < r->nsnapshots; i++)
		if (r->snapshots[i].acknowledged <= k)
			least = &r->snapshots[i];
	if (least && least->txid > s->txid)
		fail_msg("cut at %zu, seed %lu: transaction %lu was acknowledged, %lu is found", k,
			 seed, least->txid, s->txid);
	r->found_newer += !least || s->txid > least->txid;
	if (go_on) {
		/* It can be used, and the next crash is survived as well. */
		struct run *next = calloc(1, sizeof(*next));
		unsigned int commits;

		next->v = v;
		next->rng.state = seed + k;
		next->now = s->state;
		next->counter = 1000000;
		snapshot(next, txid);
		for (commits = 0; commits < 2; commits++) {
			change(next);
			vol_commit(&next->v);
		}
		change(next);
		slu_simdisk_power_cut(next->v.disk, seed + 1);
		vol_drop(&next->v);
		disk_check(next->v.disk, NULL, false);
		v = next->v;
		free(next);
	} else {
		vol_close(&v);
	}
	vol_free(&v);
}

static void run(uint64_t seed, unsigned int ncommits, unsigned int changes)
{
	struct run *r = calloc(1, sizeof(*r));
	size_t n;

	r->rng.state = seed;
	vol_new(&r->v, 8192);
	vol_open(&r->v);
	slu_simdisk_record(r->v.disk, true);
	snapshot(r, slu_store_durable_txid(r->v.store));
	r->snapshots[0].acknowledged = 0;
	for (unsigned int i = 0; i < ncommits; i++) {
		for (unsigned int k = 1 + (unsigned int)rng_below(&r->rng, changes); k; k--)
			change(r);
		snapshot(r, slu_store_txid(r->v.store));
		vol_commit(&r->v);
		r->snapshots[r->nsnapshots - 1].acknowledged = slu_simdisk_nrecords(r->v.disk);
	}
	vol_close(&r->v);
	n = slu_simdisk_nrecords(r->v.disk);
	assert_true(n > ncommits * 4);
	for (size_t k = 0; k <= n; k++)
		for (uint64_t cut = 0; cut < 16; cut++)
			disk_of_a_cut(r, k, cut < 2 ? cut : (seed << 32) + k * 100 + cut,
				      cut >= 12);
	/*
	 * Ends before the commit was acknowledged have been met as well. (A torn superblock is not
	 * among them: all that changes in it lies in its first 512 bytes.)
	 */
	assert_true(r->found_newer > 0);
	vol_free(&r->v);
	free(r);
}

static void a_power_cut_at_every_write_leaves_a_committed_state(void **state)
{
	run(1, 25, 12);
}

static void so_it_does_with_large_transactions(void **state)
{
	run(2, 8, 80);
}

static void so_it_does_with_many_small_ones(void **state)
{
	run(3, 50, 2);
}

/* The newer superblock is damaged long after it was written. */
static void a_damaged_superblock_falls_back_to_the_other(void **state)
{
	struct run *r = calloc(1, sizeof(*r));
	struct slu_store_info info;
	uint64_t older;
	uint8_t sb[SLU_BLOCK_SIZE];

	r->rng.state = 4;
	vol_new(&r->v, 8192);
	vol_open(&r->v);
	for (unsigned int i = 0; i < 6; i++) {
		change(r);
		snapshot(r, slu_store_txid(r->v.store));
		vol_commit(&r->v);
	}
	older = slu_store_durable_txid(r->v.store) - 1;
	slu_simdisk_power_cut(r->v.disk, 0);
	vol_drop(&r->v);
	slu_simdisk_peek(r->v.disk, (older + 1) & 1, sb);
	sb[300] ^= 1;
	slu_simdisk_poke(r->v.disk, (older + 1) & 1, sb);

	vol_open(&r->v);
	slu_store_info(r->v.store, &info);
	assert_true(info.fell_back);
	assert_false(info.was_clean);
	assert_int_equal(r->v.fallback, 1);
	assert_true(state_equal(r->v.store, &snapshot_of(r, older)->state));
	r->now = snapshot_of(r, older)->state;
	change(r);
	vol_commit(&r->v);
	assert_true(state_equal(r->v.store, &r->now));
	vol_reopen(&r->v);
	slu_store_info(r->v.store, &info);
	assert_true(info.was_clean);
	assert_true(state_equal(r->v.store, &r->now));
	vol_close(&r->v);
	disk_check(r->v.disk, NULL, false);
	vol_free(&r->v);
	free(r);
}

/*
 * One superblock of a clean pair rots, either of them: nothing is lost, and the other is not
 * overwritten.
 */
static void either_superblock_of_a_clean_pair_is_enough(void **state)
{
	for (unsigned int slot = 0; slot < 2; slot++) {
		struct run *r = calloc(1, sizeof(*r));
		uint8_t sb[SLU_BLOCK_SIZE] = {0};

		r->rng.state = 5;
		vol_new(&r->v, 8192);
		vol_open(&r->v);
		for (unsigned int i = 0; i < 3; i++)
			change(r);
		vol_close(&r->v);
		slu_simdisk_poke(r->v.disk, slot, sb);
		slu_simdisk_record(r->v.disk, true);
		vol_open(&r->v);
		assert_true(state_equal(r->v.store, &r->now));
		/* the first thing written is the slot that was lost */
		assert_true(slu_simdisk_nrecords(r->v.disk) > 0);
		for (unsigned int k = 0; k < 2; k++) {
			struct slu_simdisk_record rec;

			slu_simdisk_record_at(r->v.disk, k, &rec);
			if (rec.op == SLU_IO_WRITE) {
				assert_int_equal(rec.blkno, slot);
				break;
			}
		}
		vol_close(&r->v);
		vol_free(&r->v);
		free(r);
	}
}

/* Changes len bytes of both superblocks; with a right checksum, or not. */
static void superblocks_with(struct slu_simdisk *disk, size_t off, uint64_t value, size_t len,
			     bool sealed)
{
	for (unsigned int slot = 0; slot < 2; slot++) {
		struct slu_disk_super sb;
		slu_le64 v;

		slu_simdisk_peek(disk, slot, &sb);
		slu_put_le64(&v, value);
		memcpy((uint8_t *)&sb + off, &v, len);
		if (sealed)
			slu_put_le64(&sb.checksum, XXH3_64bits((uint8_t *)&sb + 8, sizeof(sb) - 8));
		slu_simdisk_poke(disk, slot, &sb);
	}
}

static void nonsense_is_refused_with_a_reason_and_not_written_to(void **state)
{
#define SUPER(field) \
	offsetof(struct slu_disk_super, field), sizeof(((struct slu_disk_super *)0)->field)
	static const struct {
		size_t off, len;
		uint64_t value;
		bool sealed;
		int err;
	} cases[] = {
		{SUPER(magic), 1, true, -EIO},  /* the spare one shows whose image it is */
		{SUPER(txid), 99, false, -EIO}, /* the checksum */
		{SUPER(version), 2, true, -EPROTONOSUPPORT},
		{SUPER(features_incompat), 4, true, -EPROTONOSUPPORT},
		{SUPER(block_size), 512, true, -EIO},
		{SUPER(nblocks), 100, true, -EIO},
		{SUPER(nblocks), 1ull << 60, true, -EIO},
		{SUPER(nblocks), 8193, true, -ENOSPC}, /* the image is shorter */
		{SUPER(txid), 0, true, -EIO},
		{SUPER(txid), 1ull << 63, true, -EIO},
		{SUPER(root_txid), 0, true, -EIO},
		{SUPER(root_txid), 1000, true, -EIO},
		{SUPER(root_blkno), 0, true, -EIO},
		{SUPER(root_blkno), 1, true, -EIO},
		{SUPER(root_blkno), 8192, true, -EIO},
		{SUPER(root_blkno), 8191, true, -EIO}, /* the spare superblock */
		{SUPER(root_blkno), 5000, true, -EIO}, /* within the volume, but no node */
		{SUPER(next_ino), 0, true, -EIO},
		{SUPER(data_blocks), 8193, true, -EIO},
		{SUPER(node_blocks), 8193, true, -EIO},
		{SUPER(record_bytes), 1ull << 40, true, -EIO},
		{SUPER(ndeferred), 257, true, -EIO},
	};
#undef SUPER
	struct slu_simdisk *blank = slu_simdisk_new(8192, 1);
	struct vol v = {.disk = blank};
	const char *why = NULL;

	assert_int_equal(vol_try_open(&v, &why), -EINVAL);
	assert_non_null(why);
	slu_simdisk_free(blank);
	for (unsigned int i = 0; i < slu_array_size(cases); i++) {
		vol_new(&v, 8192);
		superblocks_with(v.disk, cases[i].off, cases[i].value,
				 slu_min(cases[i].len, sizeof(uint64_t)), cases[i].sealed);
		slu_simdisk_record(v.disk, true);
		why = NULL;
		assert_int_equal(vol_try_open(&v, &why), cases[i].err);
		assert_non_null(why);
		assert_int_equal(slu_simdisk_nrecords(v.disk), 0);
		vol_free(&v);
	}
}

/* Which of the ways out a mount names. */
static void both_superblocks_lost_is_refused_with_the_way_out(void **state)
{
	const char *why = NULL;
	struct vol v;

	vol_new(&v, 8192);
	superblocks_with(v.disk, offsetof(struct slu_disk_super, magic), 0, 8, false);
	slu_simdisk_record(v.disk, true);
	assert_int_equal(vol_try_open(&v, &why), -EIO);
	assert_non_null(strstr(why, "fsck.sluicefs -y"));
	assert_int_equal(slu_simdisk_nrecords(v.disk), 0);
	vol_free(&v);

	vol_new_without_spare(&v, 8192);
	superblocks_with(v.disk, offsetof(struct slu_disk_super, magic), 0, 8, false);
	assert_int_equal(vol_try_open(&v, &why), -EINVAL);
	assert_null(strstr(why, "fsck.sluicefs -y"));
	vol_free(&v);
}

static void a_deferred_block_outside_the_volume_is_refused(void **state)
{
	const char *why = NULL;
	struct vol v;

	vol_new(&v, 8192);
	superblocks_with(v.disk, offsetof(struct slu_disk_super, ndeferred), 1, 4, true);
	superblocks_with(v.disk, offsetof(struct slu_disk_super, deferred), 8192, 8, true);
	assert_int_equal(vol_try_open(&v, &why), -EIO);
	assert_non_null(why);
	vol_free(&v);
}

static void an_unknown_feature_for_writers_lets_readers_in(void **state)
{
	struct slu_store_info info;
	struct slu_ticket t;
	struct vol v;

	vol_new(&v, 8192);
	superblocks_with(v.disk, offsetof(struct slu_disk_super, features_ro_compat),
			 SLU_FEATURES_RO_COMPAT | 1ull << 40, 8, true);
	vol_open(&v);
	slu_store_info(v.store, &info);
	assert_true(info.readonly);
	assert_non_null(info.why_readonly);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, 1, 0, NULL), -EROFS);
	vol_close(&v);
	vol_free(&v);

	vol_new(&v, 8192);
	superblocks_with(v.disk, offsetof(struct slu_disk_super, features_compat), 1, 8, true);
	vol_open(&v);
	slu_store_info(v.store, &info);
	assert_false(info.readonly);
	vol_close(&v);
	vol_free(&v);
}

static void use_damaged(struct slu_store *store, struct rng *rng, unsigned int k)
{
	uint32_t first = (uint32_t)rng_below(rng, NKEYS - 100);
	struct slu_ticket t;
	struct slu_batch b;

	if (slu_ticket_get(store, &t, 32, 32 * SLU_VALUE_MAX, 0, NULL))
		return;
	slu_batch_init(&b);
	for (unsigned int n = (unsigned int)rng_below(rng, 32); n; n--) {
		struct slu_key key = model_key(first + (uint32_t)rng_below(rng, 100));
		uint8_t buf[SLU_VALUE_MAX] = {0};

		if (slu_store_get(store, &key, buf, sizeof(buf), NULL) >= 0 && rng_below(rng, 2))
			slu_batch_del(&b, &key);
		else
			slu_batch_put(&b, &key, buf, rng_below(rng, 300));
	}
	slu_store_apply(store, &t, &b, NULL, NULL);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	if (k % 10 == 9)
		slu_store_commit(store, slu_store_txid(store), false);
}

/*
 * Random bytes under right checksums: an error or a volume, never a crash, whatever is done with
 * it.
 */
static void random_superblocks_and_nodes_never_crash(void **state)
{
	struct rng rng = {77};
	struct vol v, damaged;
	unsigned int opened = 0;

	vol_new(&v, 8192);
	vol_open(&v);
	{
		struct run *r = calloc(1, sizeof(*r));

		r->v = v;
		for (unsigned int i = 0; i < 20; i++)
			change(r);
		free(r);
	}
	vol_close(&v);
	for (unsigned int i = 0; i < 400; i++) {
		const char *why = NULL;

		damaged = v;
		damaged.disk = slu_simdisk_clone(v.disk);
		slu_simdisk_inline(damaged.disk, true);
		damaged.opts.events = (struct slu_event_sink){0};
		for (unsigned int n = 1 + (unsigned int)rng_below(&rng, 3); n; n--) {
			if (i % 4 == 0) {
				superblocks_with(damaged.disk, 104 + rng_below(&rng, 140),
						 rng_next(&rng) >> rng_below(&rng, 64), 1, true);
			} else {
				uint64_t blkno = 2 + rng_below(&rng, 200);
				struct slu_disk_node d;
				uint64_t seed;

				slu_simdisk_peek(damaged.disk, blkno, &d);
				((uint8_t *)&d)[48 +
						rng_below(&rng, rng_below(&rng, 2) ? 100 : 4048)] =
					(uint8_t)rng_next(&rng);
				seed = XXH3_64bits(d.volume_id, sizeof(d.volume_id));
				slu_put_le64(&d.checksum,
					     XXH3_64bits_withSeed((uint8_t *)&d + 8,
								  SLU_BLOCK_SIZE - 8, seed));
				slu_simdisk_poke(damaged.disk, blkno, &d);
			}
		}
		if (vol_try_open(&damaged, &why)) {
			assert_non_null(why);
			slu_simdisk_free(damaged.disk);
			continue;
		}
		opened++;
		for (unsigned int k = 0; k < 40; k++)
			use_damaged(damaged.store, &rng, k);
		vol_try_close(&damaged);
		slu_simdisk_free(damaged.disk);
	}
	assert_true(opened > 50);
	vol_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_power_cut_at_every_write_leaves_a_committed_state),
		cmocka_unit_test(so_it_does_with_large_transactions),
		cmocka_unit_test(so_it_does_with_many_small_ones),
		cmocka_unit_test(a_damaged_superblock_falls_back_to_the_other),
		cmocka_unit_test(either_superblock_of_a_clean_pair_is_enough),
		cmocka_unit_test(nonsense_is_refused_with_a_reason_and_not_written_to),
		cmocka_unit_test(both_superblocks_lost_is_refused_with_the_way_out),
		cmocka_unit_test(a_deferred_block_outside_the_volume_is_refused),
		cmocka_unit_test(an_unknown_feature_for_writers_lets_readers_in),
		cmocka_unit_test(random_superblocks_and_nodes_never_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
