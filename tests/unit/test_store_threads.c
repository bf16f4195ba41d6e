/* SPDX-License-Identifier: MIT */
/*
 * Many at once: readers, writers, those who commit, on a slow disk and a tiny node cache; as
 * ordinary threads, and as tasks of a simulation whose every seed is another order of events.
 */
#include "test_store_util.h"

#define NWRITERS  3u
#define NREADERS  2u
#define KEYS_EACH 3000u
#define NKEYS     (NWRITERS * KEYS_EACH)

struct shared {
	struct vol v;
	uint32_t version[NKEYS]; /* each writer's part is its own */
	unsigned int rounds;
	_Atomic bool stop;
	bool faults; /* writes of nodes fail now and then */
	uint64_t seed;
};

struct worker {
	struct shared *s;
	struct slu_thread thread;
	unsigned int index;
	struct rng rng;
	uint32_t counter; /* of values */
	uint64_t blkno[20], nblocks[20];
};

static void write_records(struct worker *w, struct slu_batch *b)
{
	struct shared *s = w->s;
	uint32_t first = w->index * KEYS_EACH;
	unsigned int n = 1 + (unsigned int)rng_below(&w->rng, 20);

	for (unsigned int i = 0; i < n; i++) {
		uint32_t id = first + (uint32_t)rng_below(&w->rng, KEYS_EACH);
		struct slu_key key = model_key(id);
		uint8_t buf[SLU_VALUE_MAX];
		if (s->version[id] && rng_below(&w->rng, 3) == 0 &&
		    slu_store_get(s->v.store, &key, buf, sizeof(buf), NULL) >= 0) {
			slu_batch_del(b, &key);
			s->version[id] = 0;
		} else {
			s->version[id] = ++w->counter;
			slu_batch_put(b, &key, buf, model_value(id, w->counter, buf));
		}
	}
}

static void write_extent(struct worker *w, struct slu_batch *b)
{
	struct slu_store *store = w->s->v.store;
	unsigned int i = (unsigned int)rng_below(&w->rng, slu_array_size(w->blkno));
	struct slu_key key = SLU_KEY(10, SLU_REC_EXTENT, w->index * 100 + i);
	struct slu_reservation r = {0};
	struct slu_disk_extent e = {0};
	uint64_t want = 1 + rng_below(&w->rng, 40);

	if (w->blkno[i]) {
		slu_batch_del(b, &key);
		slu_batch_free(b, w->blkno[i], w->nblocks[i]);
		w->blkno[i] = 0;
		return;
	}
	assert_int_equal(slu_space_reserve(store, &r, want, 1, NULL), 0);
	assert_int_equal(slu_space_take(store, &r, 0, want, &w->blkno[i], &w->nblocks[i], NULL), 0);
	slu_space_unreserve(store, &r, r.blocks, r.records);
	slu_put_le64(&e.blkno, w->blkno[i]);
	slu_put_le32(&e.nblocks, (uint32_t)w->nblocks[i]);
	slu_batch_put(b, &key, &e, sizeof(e));
	slu_batch_own(b, w->blkno[i], w->nblocks[i]);
}

static void check_own(struct worker *w)
{
	uint32_t id = w->index * KEYS_EACH + (uint32_t)rng_below(&w->rng, KEYS_EACH);
	struct slu_key key = model_key(id);
	uint8_t buf[SLU_VALUE_MAX], want[SLU_VALUE_MAX];
	int len = slu_store_get(w->s->v.store, &key, buf, sizeof(buf), NULL);

	if (!w->s->version[id]) {
		assert_int_equal(len, -ENOENT);
		return;
	}
	assert_int_equal(len, model_value(id, w->s->version[id], want));
	assert_memory_equal(buf, want, (size_t)len);
}

static void writer(void *arg)
{
	struct worker *w = arg;
	struct slu_store *store = w->s->v.store;

	for (unsigned int i = 0; i < w->s->rounds; i++) {
		struct slu_ticket t;
		struct slu_batch b;
		uint64_t txid;
		int err;

		do {
			err = slu_ticket_get(store, &t, 32, 32 * SLU_VALUE_MAX, 0, NULL);
			assert_true(!err || w->s->faults);
		} while (err);
		slu_batch_init(&b);
		write_records(w, &b);
		write_extent(w, &b);
		assert_int_equal(slu_store_apply(store, &t, &b, &txid, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
		check_own(w);
		if (rng_below(&w->rng, 30) == 0) {
			err = slu_store_commit(store, txid, rng_below(&w->rng, 2));
			assert_true(!err || w->s->faults);
			assert_true(err || slu_store_durable_txid(store) >= txid);
		}
	}
}

static int see(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct slu_key *last = ctx;

	assert_true(slu_key_cmp(last, key) < 0);
	*last = *key;
	return 0;
}

static void reader(void *arg)
{
	struct worker *w = arg;
	struct slu_store *store = w->s->v.store;

	while (!w->s->stop) {
		struct slu_key from = model_key((uint32_t)rng_below(&w->rng, NKEYS));
		struct slu_key end = SLU_KEY(from.ino + 2, 0, 0), last = SLU_KEY_MIN;
		struct slu_space_stat st;
		uint8_t buf[SLU_VALUE_MAX];
		int len;

		assert_int_equal(slu_store_scan(store, &from, &end, see, &last, NULL), 0);
		from = model_key((uint32_t)rng_below(&w->rng, NKEYS));
		len = slu_store_seek_le(store, &from, &SLU_KEY_MIN, buf, sizeof(buf), NULL);
		assert_true(len >= 0 || len == -ENOENT);
		slu_space_stat(store, &st);
		assert_true(st.free <= st.nblocks);
		slu_yield();
	}
}

static void breaker(void *arg)
{
	struct worker *w = arg;
	static const int errors[] = {-EIO, -ENOSPC};

	while (!w->s->stop) {
		struct slu_simdisk_fault fault = {
			.op = SLU_IO_WRITE,
			.nth = 1 + rng_below(&w->rng, 20),
			.times = 1 + rng_below(&w->rng, 5),
			.blkno = 2,
			.nblocks = UINT32_MAX,
			.kind = rng_below(&w->rng, 2) ? SLU_FAULT_ERROR : SLU_FAULT_SHORT,
			.error = errors[rng_below(&w->rng, 2)],
		};

		slu_simdisk_fault(w->s->v.disk, &fault);
		slu_sleep_ns(rng_below(&w->rng, 100) * SLU_NS_PER_MS);
	}
	slu_simdisk_fault(w->s->v.disk, NULL);
}

static void run_workers(struct shared *s)
{
	struct worker b = {.s = s, .rng = {s->seed}};
	struct worker w[NWRITERS + NREADERS] = {0};

	for (unsigned int i = 0; i < slu_array_size(w); i++) {
		w[i].s = s;
		w[i].index = i;
		w[i].rng.state = s->seed * 100 + i;
		w[i].counter = 1;
		assert_int_equal(slu_thread_start(&w[i].thread, "worker",
						  i < NWRITERS ? writer : reader, &w[i]),
				 0);
	}
	if (s->faults)
		assert_int_equal(slu_thread_start(&b.thread, "breaker", breaker, &b), 0);
	for (unsigned int i = 0; i < NWRITERS; i++)
		slu_thread_join(&w[i].thread);
	s->stop = true;
	if (s->faults)
		slu_thread_join(&b.thread);
	for (unsigned int i = NWRITERS; i < slu_array_size(w); i++)
		slu_thread_join(&w[i].thread);
}

static void fill(struct shared *s)
{
	uint8_t buf[SLU_VALUE_MAX];

	for (uint32_t id = 0; id < NKEYS; id += 2) {
		struct slu_key key = model_key(id);
		struct slu_ticket t;
		struct slu_batch b;
		size_t len = model_value(id, 1, buf);

		slu_batch_init(&b);
		slu_batch_put(&b, &key, buf, len);
		assert_int_equal(slu_ticket_get(s->v.store, &t, 1, len, 0, NULL), 0);
		assert_int_equal(slu_store_apply(s->v.store, &t, &b, NULL, NULL), 0);
		slu_ticket_put(&t);
		slu_batch_fini(&b);
		s->version[id] = 1;
	}
}

static void run_all(void *arg)
{
	struct shared *s = arg;

	/* from a cold cache that does not hold it all */
	vol_open(&s->v);
	fill(s);
	vol_reopen(&s->v);
	run_workers(s);
	assert_true(slu_store_stats(s->v.store)->node_reads > 100);
	assert_true(s->faults || slu_store_stats(s->v.store)->commits > 1);
	model_check(s->v.store, s->version, NKEYS);
	vol_close(&s->v);
	disk_check(s->v.disk, NULL, false);
	vol_open(&s->v);
	model_check(s->v.store, s->version, NKEYS);
	vol_close(&s->v);
}

static void threads_agree_with_the_model(void **state)
{
	struct shared *s = calloc(1, sizeof(*s));

	s->seed = 1;
	s->rounds = 1500;
	vol_new(&s->v, 32768);
	slu_simdisk_inline(s->v.disk, false);
	s->v.opts.node_cache_bytes = 1 << 20;
	s->v.opts.commit_interval_ns = 5 * SLU_NS_PER_MS;
	run_all(s);
	vol_free(&s->v);
	free(s);
}

static void simulate(uint64_t seed, bool faults)
{
	struct shared *s = calloc(1, sizeof(*s));
	struct slu_sim *sim = slu_sim_new(seed);

	s->seed = seed;
	s->rounds = 40;
	s->faults = faults;
	vol_new(&s->v, 16384);
	slu_simdisk_inline(s->v.disk, false);
	slu_simdisk_latency(s->v.disk, seed % 3 * SLU_NS_PER_MS);
	s->v.opts.node_cache_bytes = 1 << 20;
	s->v.opts.commit_interval_ns = 10 * SLU_NS_PER_MS;
	if (slu_sim_run(sim, run_all, s, stderr))
		fail_msg("deadlock with seed %lu", seed);
	assert_int_equal(s->v.readonly, 0);
	slu_sim_free(sim);
	vol_free(&s->v);
	free(s);
}

static void every_order_of_events_agrees_with_the_model(void **state)
{
	for (uint64_t seed = 1; seed <= 10; seed++)
		simulate(seed, false);
}

static void and_so_it_does_when_writes_fail_now_and_then(void **state)
{
	for (uint64_t seed = 1; seed <= 10; seed++)
		simulate(seed, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_agree_with_the_model),
		cmocka_unit_test(every_order_of_events_agrees_with_the_model),
		cmocka_unit_test(and_so_it_does_when_writes_fail_now_and_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
