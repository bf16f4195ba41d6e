/* SPDX-License-Identifier: MIT */
/*
 * The tree against a plain array: a million random operations in batches, with commits and reopens,
 * over key ranges that make it grow deep and ones that make it shrink to nothing again.
 */
#include "test_store_util.h"

struct run {
	struct vol v;
	struct rng rng;
	uint32_t *version; /* the model */
	uint32_t nkeys, counter;
	uint64_t ops;
};

static void run_batch(struct run *r, uint32_t first, uint32_t range, unsigned int nops,
		      unsigned int put_percent)
{
	struct slu_ticket t;
	struct slu_batch b;
	uint8_t buf[SLU_VALUE_MAX];
	int err;

	slu_batch_init(&b);
	for (unsigned int i = 0; i < nops; i++) {
		uint32_t id = first + (uint32_t)rng_below(&r->rng, range);
		struct slu_key key = model_key(id);

		if (rng_below(&r->rng, 100) < put_percent) {
			uint32_t version = ++r->counter;
			size_t len = model_value(id, version, buf);

			if (b.ndata + len > SLU_BATCH_MAX_BYTES)
				break;
			slu_batch_put(&b, &key, buf, len);
			r->version[id] = version;
		} else if (r->version[id]) {
			/* It may be there only because of this batch; then deleting it is wrong. */
			char dummy[SLU_VALUE_MAX];

			if (slu_store_get(r->v.store, &key, dummy, sizeof(dummy), NULL) < 0)
				continue;
			slu_batch_del(&b, &key);
			r->version[id] = 0;
		}
		r->ops++;
	}
	assert_int_equal(slu_ticket_get(r->v.store, &t, SLU_BATCH_MAX_RECORDS, SLU_BATCH_MAX_BYTES,
					0, NULL),
			 0);
	err = slu_store_apply(r->v.store, &t, &b, NULL, NULL);
	assert_int_equal(err, 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
}

static void run_seeks(struct run *r)
{
	for (unsigned int i = 0; i < 200; i++) {
		uint32_t id = (uint32_t)rng_below(&r->rng, r->nkeys), at;
		struct slu_key key = model_key(id), end = model_key(r->nkeys), start = model_key(0);
		uint8_t buf[SLU_VALUE_MAX], want[SLU_VALUE_MAX];
		int len = slu_store_get(r->v.store, &key, buf, sizeof(buf), NULL);

		if (r->version[id]) {
			assert_int_equal(len, model_value(id, r->version[id], want));
			assert_memory_equal(buf, want, (size_t)len);
		} else {
			assert_int_equal(len, -ENOENT);
		}
		for (at = id; at < r->nkeys && !r->version[at]; at++)
			;
		len = slu_store_seek_ge(r->v.store, &key, &end, buf, sizeof(buf), NULL);
		if (at == r->nkeys) {
			assert_int_equal(len, -ENOENT);
		} else {
			struct slu_key found = model_key(at);

			assert_int_equal(slu_key_cmp(&key, &found), 0);
			assert_int_equal(len, model_value(at, r->version[at], want));
			assert_memory_equal(buf, want, (size_t)len);
		}
		for (at = id + 1; at > 0 && !r->version[at - 1]; at--)
			;
		key = model_key(id);
		len = slu_store_seek_le(r->v.store, &key, &start, buf, sizeof(buf), NULL);
		if (at == 0) {
			assert_int_equal(len, -ENOENT);
		} else {
			struct slu_key found = model_key(at - 1);

			assert_int_equal(slu_key_cmp(&key, &found), 0);
			assert_int_equal(len, model_value(at - 1, r->version[at - 1], want));
		}
	}
}

static void run_check_disk(struct run *r)
{
	struct disk_facts f;

	vol_close(&r->v);
	disk_check(r->v.disk, &f, false);
	assert_int_equal(f.sparse, 0);
	vol_open(&r->v);
	model_check(r->v.store, r->version, r->nkeys);
}

static void run(uint64_t nops, uint32_t nkeys, uint64_t nblocks, size_t cache_bytes, size_t longest,
		uint64_t seed)
{
	struct run r = {.rng = {seed}, .nkeys = nkeys};
	unsigned int phase = 0;

	model_longest = longest;
	r.version = calloc(nkeys, sizeof(*r.version));
	vol_new(&r.v, nblocks);
	r.v.opts.node_cache_bytes = cache_bytes;
	vol_open(&r.v);
	while (r.ops < nops) {
		/* growing, shrinking, and in balance, here and there */
		static const unsigned int percents[] = {90, 50, 10, 60, 0, 50};
		unsigned int percent = percents[phase % slu_array_size(percents)];
		uint64_t until = r.ops + nops / 24;

		while (r.ops < until && r.ops < nops) {
			uint32_t range =
				rng_below(&r.rng, 3) ? nkeys : 1 + (uint32_t)rng_below(&r.rng, 300);
			uint32_t first;
			uint64_t before = r.ops;

			range = slu_min(range, nkeys);
			first = (uint32_t)rng_below(&r.rng, nkeys - range + 1);
			run_batch(&r, first, range, 1 + (unsigned int)rng_below(&r.rng, 128),
				  percent);
			if (r.ops == before) /* nothing left to delete there */
				r.ops += 20;
			if (rng_below(&r.rng, 300) == 0)
				vol_commit(&r.v);
		}
		run_seeks(&r);
		model_check(r.v.store, r.version, nkeys);
		run_check_disk(&r);
		phase++;
	}
	assert_int_equal(r.v.corrupt, 0);
	vol_close(&r.v);
	vol_free(&r.v);
	free(r.version);
	model_longest = SLU_VALUE_MAX;
}

static void a_million_random_operations_agree_with_a_plain_array(void **state)
{
	run(1000000, 40000, 65536, 0, 200, 1);
}

static void a_few_keys_make_it_split_and_merge_all_the_time(void **state)
{
	run(100000, 300, 4096 * 4, 0, SLU_VALUE_MAX, 2);
}

static void short_records_make_wide_nodes(void **state)
{
	run(150000, 60000, 4096 * 8, 0, 3, 3);
}

static void a_tiny_node_cache_is_slow_but_right(void **state)
{
	run(120000, 40000, 65536, 1 << 20, SLU_VALUE_MAX, 4);
}

/* Inode numbers only grow: nodes at the right end stay full. */
static void appending_leaves_full_nodes_behind(void **state)
{
	struct run r = {.rng = {5}, .nkeys = 30000};
	struct disk_facts f;

	r.version = calloc(r.nkeys, sizeof(*r.version));
	model_longest = 90;
	vol_new(&r.v, 65536);
	vol_open(&r.v);
	for (uint32_t id = 0; id < r.nkeys; id++)
		run_batch(&r, id, 1, 1, 100);
	model_check(r.v.store, r.version, r.nkeys);
	vol_close(&r.v);
	disk_check(r.v.disk, &f, false);
	assert_true(f.leaf_bytes / f.leaves > SLU_NODE_BODY * 95 / 100);
	vol_free(&r.v);
	free(r.version);
	model_longest = SLU_VALUE_MAX;
}

static int stop_at_third(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	return ++*(int *)ctx == 3;
}

static void a_scan_can_stop_and_go_on(void **state)
{
	struct run r = {.rng = {6}, .nkeys = 100};
	struct slu_key from = model_key(0), end = model_key(100);
	int seen = 0;

	r.version = calloc(r.nkeys, sizeof(*r.version));
	vol_new(&r.v, 16384);
	vol_open(&r.v);
	for (uint32_t id = 0; id < r.nkeys; id++)
		run_batch(&r, id, 1, 1, 100);
	assert_int_equal(slu_store_scan(r.v.store, &from, &end, stop_at_third, &seen, NULL), 1);
	assert_int_equal(seen, 3);
	/* the record it was stopped at is shown again */
	seen = 10;
	assert_int_equal(slu_store_scan(r.v.store, &from, &end, stop_at_third, &seen, NULL), 0);
	assert_int_equal(seen, 10 + 98);
	vol_close(&r.v);
	vol_free(&r.v);
	free(r.version);
}

static void a_value_that_does_not_fit_the_buffer_is_erange(void **state)
{
	struct run r = {.rng = {7}, .nkeys = 3};
	struct slu_key key = model_key(1);
	uint8_t buf[SLU_VALUE_MAX];
	size_t len;

	r.version = calloc(r.nkeys, sizeof(*r.version));
	vol_new(&r.v, 16384);
	vol_open(&r.v);
	do {
		run_batch(&r, 1, 1, 1, 100);
		len = model_value(1, r.version[1], buf);
	} while (len < 2);
	assert_int_equal(slu_store_get(r.v.store, &key, buf, len - 1, NULL), -ERANGE);
	assert_int_equal(slu_store_get(r.v.store, &key, buf, len, NULL), len);
	vol_close(&r.v);
	vol_free(&r.v);
	free(r.version);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_few_keys_make_it_split_and_merge_all_the_time),
		cmocka_unit_test(short_records_make_wide_nodes),
		cmocka_unit_test(a_tiny_node_cache_is_slow_but_right),
		cmocka_unit_test(appending_leaves_full_nodes_behind),
		cmocka_unit_test(a_scan_can_stop_and_go_on),
		cmocka_unit_test(a_value_that_does_not_fit_the_buffer_is_erange),
		cmocka_unit_test(a_million_random_operations_agree_with_a_plain_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
