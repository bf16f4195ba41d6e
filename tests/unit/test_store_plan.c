/* SPDX-License-Identifier: MIT */
/*
 * The plan of a change, from inside: that it counts enough, and asks for all that the change will want.
 */
#include "../../src/store/store_private.h"
#include "test_store_util.h"

#define NKEYS 20000u

static uint32_t version[NKEYS];

/* Plans and applies as slu_store_apply does, without its slack. */
static void change(struct slu_store *store, const struct tree_op *ops, unsigned int nops)
{
	struct tree_plan plan;
	struct slu_need need;
	uint64_t before;
	int err;

	do {
		need = (struct slu_need){0};
		slu_mutex_lock(&store->space_lock);
		slu_mutex_lock(&store->lock);
		err = tree_plan(store, ops, nops, &plan, &need);
		if (!err)
			err = tree_make_ready(store, &plan, 0, 0);
		if (!err) {
			before = store->open.nodes;
			tree_apply(store, ops, nops);
			assert_true(store->open.nodes - before <= plan.nodes);
			stat_add(&store->space.record_bytes, (uint64_t)plan.record_bytes);
			txn_touch(store);
		}
		slu_mutex_unlock(&store->lock);
		slu_mutex_unlock(&store->space_lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	assert_int_equal(err, 0);
}

static void random_change(struct slu_store *store, struct rng *rng, unsigned int put_percent)
{
	static uint8_t values[SLU_BATCH_MAX_RECORDS][SLU_VALUE_MAX];
	struct tree_op ops[SLU_BATCH_MAX_RECORDS];
	uint32_t id = (uint32_t)rng_below(rng, NKEYS);
	uint32_t step = rng_below(rng, 3) ? 1 + (uint32_t)rng_below(rng, 3)
					  : 1 + (uint32_t)rng_below(rng, 400);
	unsigned int n = 0;

	for (; n < SLU_BATCH_MAX_RECORDS && id < NKEYS; id += step) {
		struct tree_op *op = &ops[n];

		*op = (struct tree_op){.key = model_key(id)};
		if (rng_below(rng, 100) < put_percent) {
			version[id]++;
			op->value = values[n];
			op->len = (unsigned int)model_value(id, version[id], values[n]);
		} else if (version[id]) {
			version[id] = 0;
			op->del = true;
		} else {
			continue;
		}
		n++;
	}
	if (n)
		change(store, ops, n);
}

static void a_plan_counts_every_node_that_the_change_touches(void **state)
{
	static const unsigned int percents[] = {95, 30, 70, 5, 50, 10};
	static const size_t longest[] = {30, 300, SLU_VALUE_MAX};

	for (unsigned int k = 0; k < slu_array_size(longest); k++) {
		struct rng rng = {k + 1};
		struct vol v;

		memset(version, 0, sizeof(version));
		model_longest = longest[k];
		vol_new(&v, 65536);
		v.opts.node_cache_bytes = 1 << 20;
		vol_open(&v);
		for (unsigned int i = 0; i < 3000; i++) {
			random_change(v.store, &rng, percents[i / 150 % slu_array_size(percents)]);
			if (rng_below(&rng, 40) == 0)
				slu_store_commit_soon(v.store);
		}
		model_check(v.store, version, NKEYS);
		vol_close(&v);
		disk_check(v.disk, NULL, false);
		vol_free(&v);
	}
	model_longest = SLU_VALUE_MAX;
}

/* Inner nodes are merged with siblings that have to be read first. */
static void inner_nodes_find_siblings_that_are_not_in_memory(void **state)
{
	enum { N = 120000 };
	struct disk_facts f;
	struct vol v;

	vol_new(&v, 65536);
	vol_open(&v);
	for (uint64_t i = 0; i < N; i += 100) {
		struct tree_op ops[100];

		for (unsigned int k = 0; k < 100; k++)
			ops[k] = (struct tree_op){.key = SLU_KEY(20, REC_TEST, i + k)};
		change(v.store, ops, 100);
	}
	vol_close(&v);
	disk_check(v.disk, &f, false);
	assert_int_equal(f.depth, 3);
	assert_true(f.leaves > 600);
	/* what lies below one inner node or two, each time from a cold cache */
	for (uint64_t from = 30000; from < 90000; from += 12000) {
		vol_open(&v);
		for (uint64_t i = from; i < from + 12000; i += 60) {
			struct tree_op ops[60];

			for (unsigned int k = 0; k < 60; k++)
				ops[k] = (struct tree_op){.key = SLU_KEY(20, REC_TEST, i + k),
							  .del = true};
			change(v.store, ops, 60);
		}
		vol_close(&v);
		disk_check(v.disk, &f, false);
		assert_int_equal(f.sparse, 0);
	}
	vol_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plan_counts_every_node_that_the_change_touches),
		cmocka_unit_test(inner_nodes_find_siblings_that_are_not_in_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
