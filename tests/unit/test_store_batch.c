/* SPDX-License-Identifier: MIT */
/*
 * Batches and tickets: applied whole or not at all, whatever fails; room that is waited for.
 */
#include "test_store_util.h"

static void put_one(struct vol *v, uint32_t id, uint32_t version)
{
	uint8_t buf[SLU_VALUE_MAX];
	struct slu_ticket t;
	struct slu_batch b;
	struct slu_key key = model_key(id);
	size_t len = model_value(id, version, buf);

	slu_batch_init(&b);
	slu_batch_put(&b, &key, buf, len);
	assert_int_equal(slu_ticket_get(v->store, &t, 1, len, 0, NULL), 0);
	assert_int_equal(slu_store_apply(v->store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
}

static void deleting_what_is_not_there_applies_nothing(void **state)
{
	uint32_t version[100] = {0};
	struct slu_ticket t;
	struct slu_batch b;
	struct vol v;

	vol_new(&v, 16384);
	vol_open(&v);
	for (uint32_t id = 0; id < 100; id += 2)
		put_one(&v, id, version[id] = 1);
	slu_batch_init(&b);
	slu_batch_put(&b, &SLU_KEY(5000, REC_TEST, 0), "x", 1);
	for (uint32_t id = 0; id < 100; id += 2) {
		struct slu_key key = model_key(id);

		slu_batch_del(&b, &key);
	}
	slu_batch_del(&b, &SLU_KEY(99999, REC_TEST, 7));
	assert_int_equal(slu_ticket_get(v.store, &t, 128, 10, 0, NULL), 0);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -ENOENT);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	model_check(v.store, version, 100);
	vol_close(&v);
	vol_free(&v);
}

static void the_last_operation_on_a_key_counts(void **state)
{
	struct slu_key key = SLU_KEY(77, REC_TEST, 1);
	struct slu_ticket t;
	struct slu_batch b;
	struct vol v;
	char buf[16];

	vol_new(&v, 16384);
	vol_open(&v);
	slu_batch_init(&b);
	slu_batch_put(&b, &key, "first", 5);
	slu_batch_put(&b, &key, "second", 6);
	assert_int_equal(b.nops, 1);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, 6, 0, NULL), 0);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	assert_int_equal(slu_store_get(v.store, &key, buf, sizeof(buf), NULL), 6);
	assert_memory_equal(buf, "second", 6);
	vol_close(&v);
	vol_free(&v);
}

static void a_failure_to_add_sticks_until_apply(void **state)
{
	struct slu_key max = SLU_KEY_MAX;
	uint8_t buf[SLU_VALUE_MAX + 1] = {0};
	struct slu_ticket t;
	struct slu_batch b;
	struct vol v;

	vol_new(&v, 16384);
	vol_open(&v);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, 6, 0, NULL), 0);
	slu_batch_init(&b);
	slu_batch_put(&b, &SLU_KEY(1, 1, 1), buf, SLU_VALUE_MAX + 1);
	slu_batch_put(&b, &SLU_KEY(1, 1, 2), buf, 1);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -E2BIG);
	slu_batch_reset(&b);
	slu_batch_put(&b, &max, buf, 1);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -EINVAL);
	slu_batch_reset(&b);
	for (unsigned int i = 0; i <= SLU_BATCH_MAX_RECORDS; i++)
		slu_batch_put(&b, &SLU_KEY(1, 1, i), buf, 1);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -E2BIG);
	slu_batch_reset(&b);
	slu_alloc_fail_nth(1);
	slu_batch_own(&b, 5, 1);
	assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), -ENOMEM);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	assert_int_equal(slu_store_get(v.store, &SLU_KEY(1, 1, 2), buf, 1, NULL), -ENOENT);
	vol_close(&v);
	vol_free(&v);
}

/* Any of the allocations on the way of a large batch may fail; then nothing has changed. */
static void a_batch_that_runs_out_of_memory_applies_nothing(void **state)
{
	enum { N = 3000 };
	static uint32_t version[N], next[N];
	uint8_t buf[SLU_VALUE_MAX];
	struct rng rng = {3};
	unsigned int failures = 0;
	struct slu_ticket t;
	struct vol v;

	memset(version, 0, sizeof(version));
	vol_new(&v, 65536);
	v.opts.node_cache_bytes = 1 << 20;
	vol_open(&v);
	for (uint32_t id = 0; id < N; id++)
		put_one(&v, id, version[id] = 1);
	vol_reopen(&v);
	assert_int_equal(slu_ticket_get(v.store, &t, 10000, 4 << 20, 0, NULL), 0);
	for (unsigned int round = 0; round < 20; round++) {
		struct slu_batch b;
		int err;

		memcpy(next, version, sizeof(next));
		slu_batch_init(&b);
		for (unsigned int i = 0; i < 100; i++) {
			uint32_t id = (uint32_t)rng_below(&rng, N);
			struct slu_key key = model_key(id);
			size_t len;

			if (next[id] != version[id]) /* one operation for each */
				continue;
			if (next[id] && rng_below(&rng, 2)) {
				slu_batch_del(&b, &key);
				next[id] = 0;
				continue;
			}
			next[id] = 2 + round * 100 + i;
			len = model_value(id, next[id], buf);
			slu_batch_put(&b, &key, buf, len);
		}
		for (uint64_t nth = 1;; nth++) {
			slu_alloc_fail_nth(nth);
			err = slu_store_apply(v.store, &t, &b, NULL, NULL);
			if (slu_alloc_count() < nth)
				break;
			if (err == -ENOMEM) {
				slu_alloc_fail_nth(0);
				failures++;
				model_check(v.store, version, N);
			} else {
				/* it could do without */
				assert_int_equal(err, 0);
				break;
			}
		}
		slu_alloc_fail_nth(0);
		assert_int_equal(err, 0);
		memcpy(version, next, sizeof(next));
		model_check(v.store, version, N);
		slu_batch_fini(&b);
		if (round % 4 == 3)
			vol_commit(&v);
	}
	slu_ticket_put(&t);
	assert_true(failures > 3);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
}

static void opening_and_formatting_survive_failing_allocations(void **state)
{
	struct slu_format_params params = {.nblocks = 8192, .volume_id = "abc"};
	struct slu_blockio_opts bopts = {.engine = "sim"};
	const char *why;
	struct vol v;
	int err;

	vol_new(&v, 8192);
	bopts.sim = v.disk;
	assert_int_equal(slu_blockio_open("sim", &bopts, &v.bio), 0);
	for (uint64_t nth = 1;; nth++) {
		slu_alloc_fail_nth(nth);
		err = slu_store_format(v.bio, &params);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
	}
	slu_alloc_fail_nth(0);
	for (uint64_t nth = 1;; nth++) {
		slu_alloc_fail_nth(nth);
		err = slu_store_open(v.bio, &v.opts, &v.store, &why);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_non_null(why);
	}
	slu_alloc_fail_nth(0);
	put_one(&v, 1, 1);
	vol_close(&v);
	vol_free(&v);
}

/* ------------------------------------------------------------------ tickets */

struct waiter {
	struct vol *v;
	struct slu_ticket t;
	_Atomic int result;
	_Atomic bool done;
};

static void wait_for_ticket(void *arg)
{
	struct waiter *w = arg;

	w->result = slu_ticket_get(w->v->store, &w->t, SLU_BATCH_MAX_RECORDS, 0, 0, NULL);
	w->done = true;
}

static void a_ticket_without_room_waits_until_another_is_put_back(void **state)
{
	struct slu_ticket held[100];
	struct slu_thread thread = {0};
	struct waiter w = {0};
	struct slu_need need = {0};
	unsigned int n = 0;
	struct vol v;
	int err;

	vol_new(&v, 8192);
	vol_open(&v);
	while (!(err = slu_ticket_get(v.store, &held[n], SLU_BATCH_MAX_RECORDS, 0, 0, &need))) {
		n++;
		assert_true(n < 100);
	}
	assert_int_equal(err, -EAGAIN);
	assert_true(need.slow);
	w.v = &v;
	assert_int_equal(slu_thread_start(&thread, "waiter", wait_for_ticket, &w), 0);
	slu_sleep_ns(20 * SLU_NS_PER_MS);
	assert_false(w.done);
	while (n && !w.done) {
		slu_ticket_put(&held[--n]);
		slu_sleep_ns(20 * SLU_NS_PER_MS);
	}
	slu_thread_join(&thread);
	assert_int_equal(w.result, 0);
	slu_ticket_put(&w.t);
	while (n)
		slu_ticket_put(&held[--n]);
	assert_true(slu_store_stats(v.store)->room_waits > 0);
	vol_close(&v);
	vol_free(&v);
}

struct stream {
	struct vol *v;
	struct slu_thread thread;
	_Atomic bool *stop;
};

/* Small tickets, one after the other, so that some are out at any time. */
static void small_tickets(void *arg)
{
	struct stream *s = arg;

	while (!*s->stop) {
		struct slu_ticket t;

		assert_int_equal(slu_ticket_get(s->v->store, &t, 4, 0, 0, NULL), 0);
		slu_sleep_ns(SLU_NS_PER_MS);
		slu_ticket_put(&t);
	}
}

static void a_large_ticket_is_served_among_many_small_ones(void **state)
{
	struct stream s[24] = {0};
	_Atomic bool stop = false;
	struct slu_ticket t;
	struct vol v;

	vol_new(&v, 8192);
	vol_open(&v);
	for (unsigned int i = 0; i < slu_array_size(s); i++) {
		s[i].v = &v;
		s[i].stop = &stop;
		assert_int_equal(slu_thread_start(&s[i].thread, "small", small_tickets, &s[i]), 0);
	}
	for (unsigned int i = 0; i < 5; i++) {
		/* as much as there is: it goes alone */
		assert_int_equal(slu_ticket_get(v.store, &t, 100000, 0, 0, NULL), 0);
		slu_ticket_put(&t);
	}
	stop = true;
	for (unsigned int i = 0; i < slu_array_size(s); i++)
		slu_thread_join(&s[i].thread);
	vol_close(&v);
	vol_free(&v);
}

/* One ticket for more than a transaction holds, and never put back in between. */
static void a_ticket_may_go_through_many_transactions(void **state)
{
	enum { N = 40000 };
	static uint32_t version[N];
	struct slu_ticket t;
	struct slu_batch b;
	struct vol v;

	memset(version, 0, sizeof(version));
	model_longest = 100;
	vol_new(&v, 8192);
	vol_open(&v);
	assert_int_equal(slu_ticket_get(v.store, &t, N, N * 100, 0, NULL), 0);
	slu_batch_init(&b);
	for (uint32_t i = 0; i < N; i++) {
		uint32_t id = (uint32_t)((uint64_t)i * 7919 % N);
		struct slu_key key = model_key(id);
		uint8_t buf[SLU_VALUE_MAX];

		slu_batch_put(&b, &key, buf, model_value(id, version[id] = 1, buf));
		if (i % 50 != 49)
			continue;
		assert_int_equal(slu_store_apply(v.store, &t, &b, NULL, NULL), 0);
		slu_batch_reset(&b);
	}
	slu_batch_fini(&b);
	slu_ticket_put(&t);
	/* More nodes than the open transaction and the one being committed have room for. */
	assert_true(slu_store_stats(v.store)->commits >= 1);
	model_check(v.store, version, N);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
	model_longest = SLU_VALUE_MAX;
}

/* More changes than two transactions hold: commits make room by themselves. */
static void a_full_transaction_commits_by_itself(void **state)
{
	static uint32_t version[20000];
	struct vol v;

	memset(version, 0, sizeof(version));
	vol_new(&v, 32768);
	vol_open(&v);
	model_longest = 200;
	for (uint32_t i = 0; i < 20000; i++) {
		uint32_t id = (uint32_t)((uint64_t)i * 7919 % 20000);

		put_one(&v, id, version[id] = 1 + i);
	}
	/* More nodes than there is room for without; how many more commits is a matter of time. */
	assert_true(slu_store_stats(v.store)->commits >= 1);
	model_check(v.store, version, 20000);
	vol_close(&v);
	disk_check(v.disk, NULL, false);
	vol_free(&v);
	model_longest = SLU_VALUE_MAX;
}

static void a_read_only_store_takes_no_ticket(void **state)
{
	struct slu_reservation r = {0};
	struct slu_ticket t;
	struct vol v;

	vol_new(&v, 8192);
	v.opts.readonly = true;
	vol_open(&v);
	assert_int_equal(slu_ticket_get(v.store, &t, 1, 1, 0, NULL), -EROFS);
	assert_int_equal(slu_space_reserve(v.store, &r, 1, 1, NULL), -EROFS);
	assert_int_equal(slu_store_commit(v.store, slu_store_txid(v.store), true), 0);
	vol_close(&v);
	vol_free(&v);
}

static int count(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	++*(unsigned int *)ctx;
	return 0;
}

/* With need given, nothing is waited for under the caller's lock. */
static void a_missing_node_is_a_need(void **state)
{
	struct slu_key key = model_key(500), from = model_key(0), end = model_key(2000);
	uint8_t buf[SLU_VALUE_MAX];
	struct slu_need need = {0};
	unsigned int needs = 0, seen = 0;
	struct slu_mutex m;
	struct vol v;
	int len;

	slu_mutex_init(&m, SLU_RANK_EXTENTS, 1, "test");
	vol_new(&v, 16384);
	vol_open(&v);
	for (uint32_t id = 0; id < 2000; id++)
		put_one(&v, id, 1);
	vol_reopen(&v);
	do {
		slu_mutex_lock(&m);
		len = slu_store_get(v.store, &key, buf, sizeof(buf), &need);
		slu_mutex_unlock(&m);
		if (len == -EAGAIN) {
			needs++;
			assert_false(need.slow);
			assert_int_equal(slu_need_wait(&need), 0);
		}
	} while (len == -EAGAIN);
	assert_true(len >= 0);
	assert_true(needs >= 1);
	needs = 0;
	while ((len = slu_store_scan(v.store, &from, &end, count, &seen, &need)) == -EAGAIN) {
		needs++;
		assert_int_equal(slu_need_wait(&need), 0);
	}
	assert_int_equal(len, 0);
	assert_int_equal(seen, 2000); /* each once: a scan goes on where it was */
	assert_true(needs > 50);
	vol_close(&v);
	vol_free(&v);
	slu_mutex_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deleting_what_is_not_there_applies_nothing),
		cmocka_unit_test(the_last_operation_on_a_key_counts),
		cmocka_unit_test(a_failure_to_add_sticks_until_apply),
		cmocka_unit_test(a_batch_that_runs_out_of_memory_applies_nothing),
		cmocka_unit_test(opening_and_formatting_survive_failing_allocations),
		cmocka_unit_test(a_ticket_without_room_waits_until_another_is_put_back),
		cmocka_unit_test(a_large_ticket_is_served_among_many_small_ones),
		cmocka_unit_test(a_ticket_may_go_through_many_transactions),
		cmocka_unit_test(a_full_transaction_commits_by_itself),
		cmocka_unit_test(a_read_only_store_takes_no_ticket),
		cmocka_unit_test(a_missing_node_is_a_need),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
