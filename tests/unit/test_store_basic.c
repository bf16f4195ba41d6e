/* SPDX-License-Identifier: MIT */
/*
 * The store's everyday: format, open, put, read back, commit, close, and again.
 */
#include "sluice/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NBLOCKS  16384u
#define REC_TEST 40

static struct slu_blockio *open_disk(struct slu_simdisk *disk, bool readonly)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = disk, .readonly = readonly};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("sim", &opts, &bio), 0);
	return bio;
}

static struct slu_store *open_store(struct slu_blockio *bio)
{
	struct slu_store_opts opts = {0};
	struct slu_store *store = NULL;
	const char *why = NULL;
	int err = slu_store_open(bio, &opts, &store, &why);

	if (err)
		fail_msg("open: %d (%s)", err, why);
	return store;
}

static struct slu_simdisk *new_volume(uint64_t nblocks)
{
	struct slu_format_params params = {.nblocks = nblocks,
					   .label = "test",
					   .volume_id = "0123456789abcde",
					   .hash_seed = 7};
	struct slu_simdisk *disk = slu_simdisk_new(nblocks, 1);
	struct slu_blockio *bio;

	assert_non_null(disk);
	bio = open_disk(disk, false);
	assert_int_equal(slu_store_format(bio, &params), 0);
	slu_blockio_close(bio);
	return disk;
}

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
	struct slu_simdisk *disk = new_volume(NBLOCKS);
	char value[600] = "value";

	for (unsigned int round = 0; round < 3; round++) {
		struct slu_blockio *bio = open_disk(disk, false);
		struct slu_store *store = open_store(bio);
		struct slu_store_info info;

		slu_store_info(store, &info);
		assert_true(info.was_clean);
		assert_false(info.readonly);
		for (uint64_t i = 0; i < 3000; i++)
			put(store, 20 + i % 7, round * 10000 + i, value, i % 600);
		assert_int_equal(slu_store_commit(store, slu_store_txid(store), true), 0);
		for (uint64_t i = 0; i < 3000; i++)
			put(store, 30 + i % 5, round * 10000 + i, value, i % 100);
		assert_int_equal(slu_store_close(store), 0);
		slu_blockio_close(bio);

		bio = open_disk(disk, false);
		store = open_store(bio);
		for (uint64_t i = 0; i < 3000; i++) {
			char buf[1024];
			uint64_t off = round * 10000 + i;

			assert_int_equal(slu_store_get(store, &SLU_KEY(20 + i % 7, REC_TEST, off),
						       buf, sizeof(buf), NULL),
					 i % 600);
			assert_memory_equal(buf, value, i % 600);
			assert_int_equal(slu_store_get(store, &SLU_KEY(30 + i % 5, REC_TEST, off),
						       buf, sizeof(buf), NULL),
					 i % 100);
		}
		assert_int_equal(slu_store_close(store), 0);
		slu_blockio_close(bio);
	}
	slu_simdisk_free(disk);
}

static void deleting_everything_gives_all_space_back(void **state)
{
	struct slu_simdisk *disk = new_volume(NBLOCKS);
	struct slu_blockio *bio = open_disk(disk, false);
	struct slu_store *store = open_store(bio);
	struct slu_space_stat before, full, after;
	char value[300] = {0};

	slu_space_stat(store, &before);
	for (uint64_t i = 0; i < 5000; i++)
		put(store, 20, i * 7919 % 5003, value, i % 300);
	slu_space_stat(store, &full);
	assert_true(full.free < before.free);
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(del(store, 20, i * 7919 % 5003), 0);
	assert_int_equal(del(store, 20, 1), -ENOENT);
	assert_int_equal(slu_store_commit(store, slu_store_txid(store), true), 0);
	slu_space_stat(store, &after);
	assert_int_equal(after.free, before.free);
	assert_true(after.node_blocks <= 3);
	assert_int_equal(slu_store_close(store), 0);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_survive_close_and_reopen),
		cmocka_unit_test(deleting_everything_gives_all_space_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
