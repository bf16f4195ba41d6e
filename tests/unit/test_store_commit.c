/* SPDX-License-Identifier: MIT */
/*
 * Commits that fail and heal, commits that end the volume, commits that are shared.
 */
#include "test_store_util.h"

#define NKEYS 4000u

static uint32_t version[NKEYS];
static uint32_t counter;
/* Above two, for tests in which the commit thread changes things as well. */
static pthread_mutex_t model_lock = PTHREAD_MUTEX_INITIALIZER;
static bool changing;

static void put_range(struct vol *v, uint32_t first, uint32_t n)
{
	for (uint32_t id = first; id < first + n; id++) {
		struct slu_key key = model_key(id);
		uint8_t buf[SLU_VALUE_MAX];
		struct slu_ticket t;
		struct slu_batch b;
		size_t len = model_value(id, ++counter, buf);

		slu_batch_init(&b);
		slu_batch_put(&b, &key, buf, len);
		assert_int_equal(slu_ticket_get(v->store, &t, 1, len, 0, NULL), 0);
		assert_int_equal(slu_store_apply(v->store, &t, &b, NULL, NULL), 0);
		version[id] = counter;
		slu_ticket_put(&t);
		slu_batch_fini(&b);
	}
}

static int try_commit(struct vol *v)
{
	return slu_store_commit(v->store, slu_store_txid(v->store), true);
}

static void begin(struct vol *v)
{
	memset(version, 0, sizeof(version));
	vol_new(v, 32768);
	vol_open(v);
	put_range(v, 0, 1000);
	vol_commit(v);
}

/* Everything is there, in memory and on disk, and no block is lost. */
static void end(struct vol *v)
{
	model_check(v->store, version, NKEYS);
	vol_reopen(v);
	model_check(v->store, version, NKEYS);
	vol_close(v);
	disk_check(v->disk, NULL, false);
	vol_free(v);
}

/* Node writes: all that is not a superblock. */
static struct slu_simdisk_fault node_fault(uint64_t nth, uint64_t times, int kind, int error)
{
	return (struct slu_simdisk_fault){.op = SLU_IO_WRITE,
					  .nth = nth,
					  .times = times,
					  .blkno = 2,
					  .nblocks = UINT32_MAX,
					  .kind = kind,
					  .error = error};
}

static void a_failed_node_write(int kind, uint64_t nth, uint64_t times)
{
	struct slu_simdisk_fault fault = node_fault(nth, times, kind, -EIO);
	struct vol v;

	begin(&v);
	/* scattered, for several requests */
	for (uint32_t i = 0; i < 1000; i += 50)
		put_range(&v, i, 1);
	slu_simdisk_fault(v.disk, &fault);
	assert_int_equal(try_commit(&v), 0);
	assert_int_equal(slu_simdisk_fault_hits(v.disk), times);
	slu_simdisk_fault(v.disk, NULL);
	put_range(&v, 500, 100);
	assert_int_equal(try_commit(&v), 0);
	assert_int_equal(v.readonly, 0);
	end(&v);
}

static void a_node_whose_write_fails_goes_elsewhere(void **state)
{
	a_failed_node_write(SLU_FAULT_ERROR, 1, 1);
	a_failed_node_write(SLU_FAULT_ERROR, 1, 2);
}

static void a_node_whose_submission_fails_goes_elsewhere(void **state)
{
	a_failed_node_write(SLU_FAULT_SUBMIT_ERROR, 1, 1);
}

static void a_node_written_in_half_goes_elsewhere(void **state)
{
	a_failed_node_write(SLU_FAULT_SHORT, 1, 1);
}

/* The place that failed is not asked again. */
static void a_bad_place_is_avoided(void **state)
{
	struct slu_simdisk_fault fault = node_fault(1, 1, SLU_FAULT_ERROR, -EIO);
	struct slu_simdisk_record rec;
	uint64_t first = 0, again = 0;
	struct vol v;

	begin(&v);
	put_range(&v, 10, 1);
	slu_simdisk_record(v.disk, true);
	slu_simdisk_fault(v.disk, &fault);
	assert_int_equal(try_commit(&v), 0);
	/* the failed write is not in the log; another commit goes round the chunk's free blocks */
	slu_simdisk_record_at(v.disk, 0, &rec);
	first = rec.blkno;
	assert_true(first > 2);
	for (unsigned int i = 0; i < 40; i++) {
		put_range(&v, i * 20, 3);
		assert_int_equal(try_commit(&v), 0);
	}
	for (size_t i = 0; i < slu_simdisk_nrecords(v.disk); i++) {
		slu_simdisk_record_at(v.disk, i, &rec);
		again += rec.op == SLU_IO_WRITE && rec.blkno <= first - 1 &&
			 rec.blkno + rec.nblocks > first - 1;
	}
	assert_int_equal(again, 0);
	end(&v);
}

static void errors_that_stay_are_told_and_healed_later(void **state)
{
	struct slu_simdisk_fault fault = node_fault(1, UINT64_MAX, SLU_FAULT_ERROR, -EIO);
	struct vol v;

	begin(&v);
	put_range(&v, 100, 300);
	slu_simdisk_fault(v.disk, &fault);
	assert_int_equal(try_commit(&v), -EIO);
	put_range(&v, 300, 300);
	assert_int_equal(try_commit(&v), -EIO);
	model_check(v.store, version, NKEYS);
	assert_int_equal(v.readonly, 0);
	assert_true(v.commit_failed >= 2);
	slu_simdisk_fault(v.disk, NULL);
	assert_int_equal(try_commit(&v), 0);
	end(&v);
}

static typeof(version) on_disk;

/* Then it is read-only, and still shows what it had on disk and in memory. */
static void a_disk_that_refuses_nodes_for_long_is_given_up(void **state)
{
	struct slu_simdisk_fault fault = node_fault(1, UINT64_MAX, SLU_FAULT_ERROR, -EIO);
	struct slu_need need = {0};
	struct slu_ticket ticket;
	struct vol v;

	memset(version, 0, sizeof(version));
	vol_new(&v, 32768);
	v.opts.commit_interval_ns = 20 * SLU_NS_PER_MS;
	v.opts.give_up_ns = 150 * SLU_NS_PER_MS;
	vol_open(&v);
	put_range(&v, 0, 1000);
	vol_commit(&v);
	memcpy(on_disk, version, sizeof(version));
	slu_simdisk_fault(v.disk, &fault);
	put_range(&v, 100, 300);
	for (unsigned int i = 0; i < 3000 && !v.readonly; i++)
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	assert_int_equal(v.readonly, 1);
	assert_true(v.commit_failed >= 2);
	assert_int_equal(try_commit(&v), -EROFS);
	assert_int_equal(slu_ticket_get(v.store, &ticket, 1, 10, 0, &need), -EROFS);
	model_check(v.store, version, NKEYS);
	assert_int_equal(vol_try_close(&v), -EROFS);
	/* The disk is as after the last commit. */
	slu_simdisk_fault(v.disk, NULL);
	memcpy(version, on_disk, sizeof(version));
	vol_open(&v);
	model_check(v.store, version, NKEYS);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

static void a_full_host_delays_the_commit_and_heals(void **state)
{
	struct vol v;

	begin(&v);
	slu_simdisk_host_space(v.disk, 2);
	put_range(&v, 100, 900);
	assert_int_equal(try_commit(&v), -ENOSPC);
	assert_true(v.no_space > 0);
	put_range(&v, 100, 300);
	assert_int_equal(try_commit(&v), -ENOSPC);
	assert_int_equal(v.readonly, 0);
	model_check(v.store, version, NKEYS);
	slu_simdisk_host_space(v.disk, UINT64_MAX);
	assert_int_equal(try_commit(&v), 0);
	end(&v);
}

/* Changes that come between freezing and the failure of the writes. */
static void change_while_frozen(void *ctx)
{
	struct vol *v = ctx;

	pthread_mutex_lock(&model_lock);
	for (unsigned int i = 0; i < 10 && changing; i++)
		put_range(v, (counter * 37) % 900, 10);
	if (changing)
		put_range(v, 1000 + counter % 2000, 30);
	pthread_mutex_unlock(&model_lock);
}

static void a_failed_commit_joins_what_has_come_since(void **state)
{
	static const int errors[] = {-EIO, -ENOSPC};
	struct vol v;

	if (slu_stress_point_set("store-commit-frozen", NULL, NULL))
		skip();
	for (unsigned int i = 0; i < slu_array_size(errors); i++) {
		begin(&v);
		assert_int_equal(slu_stress_point_set("store-commit-frozen", change_while_frozen,
						      &v),
				 0);
		for (uint64_t nth = 1; nth < 12; nth++) {
			struct slu_simdisk_fault fault = node_fault(nth % 3 + 1, nth % 5 ? 1 : 3,
								    SLU_FAULT_ERROR, errors[i]);
			int err;

			pthread_mutex_lock(&model_lock);
			put_range(&v, (uint32_t)nth * 80, 60);
			changing = true;
			pthread_mutex_unlock(&model_lock);
			slu_simdisk_fault(v.disk, &fault);
			err = try_commit(&v);
			assert_true(err == 0 || err == errors[i]);
			slu_simdisk_fault(v.disk, NULL);
		}
		slu_stress_point_set("store-commit-frozen", NULL, NULL);
		pthread_mutex_lock(&model_lock);
		changing = false;
		pthread_mutex_unlock(&model_lock);
		assert_int_equal(v.readonly, 0);
		end(&v);
	}
}

/* A commit that failed must not have cost the last one that did not. */
static void a_failed_commit_leaves_the_last_one_on_disk(void **state)
{
	struct slu_simdisk_fault fault = node_fault(1, UINT64_MAX, SLU_FAULT_SHORT, -EIO);
	static uint32_t committed[NKEYS];
	struct vol v;

	begin(&v);
	memcpy(committed, version, sizeof(committed));
	/* To the end: the store tries again by itself, and would succeed. */
	slu_simdisk_fault(v.disk, &fault);
	for (unsigned int i = 0; i < 4; i++) {
		put_range(&v, 100 * i, 200);
		assert_int_equal(try_commit(&v), -EIO);
	}
	slu_simdisk_power_cut(v.disk, 0);
	vol_drop(&v);
	slu_simdisk_fault(v.disk, NULL);
	vol_open(&v);
	model_check(v.store, committed, NKEYS);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* However often a commit has to be tried, its superblock never goes over the last durable one. */
static void the_last_durable_superblock_is_never_overwritten(void **state)
{
	uint64_t durable, seen = 0;
	struct vol v;

	begin(&v);
	durable = slu_store_durable_txid(v.store) & 1;
	slu_simdisk_record(v.disk, true);
	for (uint64_t tries = 0; tries < 4; tries++) {
		struct slu_simdisk_fault fault = node_fault(1, tries, SLU_FAULT_ERROR, -EIO);

		put_range(&v, 0, 20);
		slu_simdisk_fault(v.disk, tries ? &fault : NULL);
		assert_int_equal(try_commit(&v), 0);
	}
	for (size_t i = 0; i < slu_simdisk_nrecords(v.disk); i++) {
		struct slu_simdisk_record rec;

		slu_simdisk_record_at(v.disk, i, &rec);
		if (rec.op != SLU_IO_WRITE || rec.blkno > 1)
			continue;
		assert_true(rec.blkno != durable);
		durable = rec.blkno;
		seen++;
	}
	assert_int_equal(seen, 4);
	end(&v);
}

static void ends_readonly(const struct slu_simdisk_fault *fault)
{
	static uint32_t committed[NKEYS];
	struct slu_ticket t;
	struct vol v;
	struct slu_store_info info;
	struct slu_reservation r = {0};
	char buf[SLU_VALUE_MAX];
	struct slu_key key = model_key(5);

	begin(&v);
	memcpy(committed, version, sizeof(committed));
	put_range(&v, 0, 100);
	slu_simdisk_fault(v.disk, fault);
	assert_true(try_commit(&v) < 0);
	slu_simdisk_fault(v.disk, NULL);
	assert_int_equal(v.readonly, 1);
	slu_store_info(v.store, &info);
	assert_true(info.readonly);
	assert_non_null(info.why_readonly);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, 1, 0, NULL), -EROFS);
	assert_int_equal(slu_space_reserve(v.store, &r, 1, 1, NULL), -EROFS);
	assert_int_equal(try_commit(&v), -EROFS);
	/* reading goes on, and sees what was applied */
	assert_true(slu_store_get(v.store, &key, buf, sizeof(buf), NULL) >= 0);
	model_check(v.store, version, NKEYS);
	assert_int_equal(vol_try_close(&v), -EROFS);
	vol_open(&v);
	assert_true(model_equal(v.store, committed, NKEYS) || model_equal(v.store, version, NKEYS));
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

static void a_failed_flush_is_the_end(void **state)
{
	ends_readonly(&(struct slu_simdisk_fault){
		.op = SLU_IO_FLUSH, .nth = 1, .times = 1, .kind = SLU_FAULT_ERROR, .error = -EIO});
	ends_readonly(&(struct slu_simdisk_fault){
		.op = SLU_IO_FLUSH, .nth = 2, .times = 1, .kind = SLU_FAULT_ERROR, .error = -EIO});
}

static void a_failed_superblock_write_is_the_end(void **state)
{
	ends_readonly(&(struct slu_simdisk_fault){.op = SLU_IO_WRITE,
						  .nth = 1,
						  .times = 1,
						  .blkno = 0,
						  .nblocks = 2,
						  .kind = SLU_FAULT_ERROR,
						  .error = -EIO});
}

static void a_dead_disk_is_told_at_close(void **state)
{
	struct vol v;

	begin(&v);
	put_range(&v, 0, 10);
	slu_simdisk_fail(v.disk, true);
	assert_true(vol_try_close(&v) < 0);
	slu_simdisk_fail(v.disk, false);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

/* ------------------------------------------------------------------ when, and for whom */

static void changes_are_committed_after_the_interval(void **state)
{
	uint64_t txid;
	struct vol v;

	memset(version, 0, sizeof(version));
	vol_new(&v, 32768);
	v.opts.commit_interval_ns = 20 * SLU_NS_PER_MS;
	vol_open(&v);
	txid = slu_store_txid(v.store);
	put_range(&v, 0, 10);
	for (unsigned int i = 0; i < 500 && slu_store_durable_txid(v.store) < txid; i++)
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	assert_true(slu_store_durable_txid(v.store) >= txid);
	/* and nothing is written when nothing changes */
	txid = slu_store_stats(v.store)->commits;
	slu_sleep_ns(100 * SLU_NS_PER_MS);
	assert_int_equal(slu_store_stats(v.store)->commits, txid);
	end(&v);
}

static void a_commit_soon_does_not_wait(void **state)
{
	uint64_t txid;
	struct vol v;

	begin(&v);
	txid = slu_store_txid(v.store);
	put_range(&v, 0, 10);
	slu_store_commit_soon(v.store);
	for (unsigned int i = 0; i < 500 && slu_store_durable_txid(v.store) < txid; i++)
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	assert_true(slu_store_durable_txid(v.store) >= txid);
	end(&v);
}

static void an_empty_commit_flushes_if_asked(void **state)
{
	struct slu_blockio_stats *stats;
	uint64_t flushes, writes;
	struct vol v;

	begin(&v);
	stats = slu_blockio_stats(v.bio);
	flushes = stats->flushes;
	writes = stats->writes;
	assert_int_equal(slu_store_commit(v.store, slu_store_txid(v.store), false), 0);
	assert_int_equal(stats->flushes, flushes);
	assert_int_equal(slu_store_commit(v.store, slu_store_txid(v.store), true), 0);
	assert_int_equal(stats->flushes, flushes + 1);
	assert_int_equal(stats->writes, writes);
	end(&v);
}

static void an_untouched_volume_is_not_written_to(void **state)
{
	struct vol v;

	begin(&v);
	vol_close(&v);
	slu_simdisk_record(v.disk, true);
	vol_open(&v);
	model_check(v.store, version, NKEYS);
	vol_close(&v);
	assert_int_equal(slu_simdisk_nrecords(v.disk), 0);
	vol_free(&v);
}

struct syncer {
	struct vol *v;
	struct slu_thread thread;
	_Atomic bool *go;
	int result;
};

static void sync_thread(void *arg)
{
	struct syncer *s = arg;

	while (!*s->go)
		slu_yield();
	s->result = try_commit(s->v);
}

static void commits_are_shared(void **state)
{
	enum { N = 16 };
	struct syncer s[N] = {0};
	_Atomic bool go = false;
	uint64_t commits;
	struct vol v;

	memset(version, 0, sizeof(version));
	vol_new(&v, 32768);
	slu_simdisk_inline(v.disk, false);
	slu_simdisk_latency(v.disk, 5 * SLU_NS_PER_MS);
	vol_open(&v);
	put_range(&v, 0, 100);
	commits = slu_store_stats(v.store)->commits;
	for (unsigned int i = 0; i < N; i++) {
		s[i].v = &v;
		s[i].go = &go;
		assert_int_equal(slu_thread_start(&s[i].thread, "sync", sync_thread, &s[i]), 0);
	}
	go = true;
	for (unsigned int i = 0; i < N; i++) {
		slu_thread_join(&s[i].thread);
		assert_int_equal(s[i].result, 0);
	}
	assert_true(slu_store_stats(v.store)->commits - commits <= 2);
	assert_true(slu_blockio_stats(v.bio)->flushes < N);
	end(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_whose_write_fails_goes_elsewhere),
		cmocka_unit_test(a_node_whose_submission_fails_goes_elsewhere),
		cmocka_unit_test(a_node_written_in_half_goes_elsewhere),
		cmocka_unit_test(a_bad_place_is_avoided),
		cmocka_unit_test(errors_that_stay_are_told_and_healed_later),
		cmocka_unit_test(a_disk_that_refuses_nodes_for_long_is_given_up),
		cmocka_unit_test(a_full_host_delays_the_commit_and_heals),
		cmocka_unit_test(a_failed_commit_joins_what_has_come_since),
		cmocka_unit_test(a_failed_commit_leaves_the_last_one_on_disk),
		cmocka_unit_test(the_last_durable_superblock_is_never_overwritten),
		cmocka_unit_test(a_failed_flush_is_the_end),
		cmocka_unit_test(a_failed_superblock_write_is_the_end),
		cmocka_unit_test(a_dead_disk_is_told_at_close),
		cmocka_unit_test(changes_are_committed_after_the_interval),
		cmocka_unit_test(a_commit_soon_does_not_wait),
		cmocka_unit_test(an_empty_commit_flushes_if_asked),
		cmocka_unit_test(an_untouched_volume_is_not_written_to),
		cmocka_unit_test(commits_are_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
