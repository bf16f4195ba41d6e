/* SPDX-License-Identifier: MIT */
/*
 * The store's everyday: format, open, put, read back, commit, close, and again.
 */
#include "test_store_util.h"

static void put(struct slu_store *store, uint64_t ino, uint64_t off, const void *value, size_t len)
{
	struct slu_ticket t;
	struct slu_batch b;

	slu_batch_init(&b);
	slu_batch_put(&b, &SLU_KEY(ino, REC_TEST, off), value, len);
	assert_int_equal(slu_ticket_get(store, &t, 1, len, 0, NULL), 0);
	assert_int_equal(slu_store_apply(store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
}

static int del(struct slu_store *store, uint64_t ino, uint64_t off)
{
	struct slu_ticket t;
	struct slu_batch b;
	int err;

	slu_batch_init(&b);
	slu_batch_del(&b, &SLU_KEY(ino, REC_TEST, off));
	assert_int_equal(slu_ticket_get(store, &t, 1, 0, SLU_TICKET_KEPT_BACK, NULL), 0);
	err = slu_store_apply(store, &t, &b, NULL, NULL);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	return err;
}

static void records_survive_close_and_reopen(void **state)
{
	char value[600] = "value";
	struct vol v;

	vol_new(&v, 16384);
	for (unsigned int round = 0; round < 3; round++) {
		struct slu_store_info info;

		vol_open(&v);
		slu_store_info(v.store, &info);
		assert_true(info.was_clean);
		assert_false(info.readonly);
		assert_string_equal(info.label, "test");
		for (uint64_t i = 0; i < 3000; i++)
			put(v.store, 20 + i % 7, round * 10000 + i, value, i % 600);
		vol_commit(&v);
		for (uint64_t i = 0; i < 3000; i++)
			put(v.store, 30 + i % 5, round * 10000 + i, value, i % 100);
		vol_reopen(&v);
		for (uint64_t i = 0; i < 3000; i++) {
			struct slu_key key = SLU_KEY(20 + i % 7, REC_TEST, round * 10000 + i);
			char buf[1024];

			assert_int_equal(slu_store_get(v.store, &key, buf, sizeof(buf), NULL),
					 i % 600);
			assert_memory_equal(buf, value, i % 600);
			key = SLU_KEY(30 + i % 5, REC_TEST, round * 10000 + i);
			assert_int_equal(slu_store_get(v.store, &key, buf, sizeof(buf), NULL),
					 i % 100);
		}
		vol_close(&v);
		disk_check(v.disk, NULL, false);
	}
	vol_free(&v);
}

static void deleting_everything_gives_all_space_back(void **state)
{
	struct slu_space_stat before, full, after;
	char value[300] = {0};
	struct vol v;

	vol_new(&v, 16384);
	vol_open(&v);
	slu_space_stat(v.store, &before);
	for (uint64_t i = 0; i < 5000; i++)
		put(v.store, 20, i * 7919 % 5003, value, i % 300);
	slu_space_stat(v.store, &full);
	assert_true(full.free < before.free);
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(del(v.store, 20, i * 7919 % 5003), 0);
	assert_int_equal(del(v.store, 20, 1), -ENOENT);
	vol_commit(&v);
	slu_space_stat(v.store, &after);
	assert_int_equal(after.free, before.free);
	assert_true(after.node_blocks <= 3);
	vol_close(&v);
	vol_free(&v);
}

static void inode_numbers_are_never_given_out_twice(void **state)
{
	uint64_t last = SLU_INO_FIRST - 1;
	struct vol v;

	vol_new(&v, 8192);
	for (unsigned int round = 0; round < 4; round++) {
		vol_open(&v);
		for (unsigned int i = 0; i < 100; i++) {
			uint64_t ino = slu_store_new_ino(v.store);

			assert_true(ino > last);
			last = ino;
			put(v.store, ino, 0, "x", 1);
		}
		if (round == 2) {
			/* what was committed counts after a crash */
			vol_commit(&v);
			slu_simdisk_power_cut(v.disk, 0);
			vol_drop(&v);
		} else {
			vol_close(&v);
		}
	}
	vol_free(&v);
}

static void the_smallest_volume_works_and_a_smaller_one_is_refused(void **state)
{
	struct slu_format_params params = {.nblocks = SLU_MIN_BLOCKS - 1};
	struct slu_space_stat st;
	struct vol v;

	vol_new(&v, SLU_MIN_BLOCKS);
	vol_open(&v);
	slu_space_stat(v.store, &st);
	assert_true(st.free > SLU_MIN_BLOCKS / 2);
	assert_int_equal(slu_store_format(v.bio, &params), -EINVAL);
	params.nblocks = SLU_MIN_BLOCKS + 1;
	assert_int_equal(slu_store_format(v.bio, &params), -EINVAL);
	for (uint64_t i = 0; i < 2000; i++)
		put(v.store, i, 1, "x", 1);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_survive_close_and_reopen),
		cmocka_unit_test(deleting_everything_gives_all_space_back),
		cmocka_unit_test(inode_numbers_are_never_given_out_twice),
		cmocka_unit_test(the_smallest_volume_works_and_a_smaller_one_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
