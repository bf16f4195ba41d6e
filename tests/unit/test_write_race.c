/* SPDX-License-Identifier: MIT */
/*
 * Several at once on one file: writers, readers, truncate, punch, fsync and eviction, on threads
 * (for TSan) and in simulations.
 *
 * Every page is written whole, with one 64-bit word all over: the page's number and a version that
 * grows. So a page that a reader sees must be one word (not torn), of that page (not another's),
 * with a version not below what was finished before the read began (not stale); or zeros, where the
 * file is being cut.
 */
#include "pages_rig.h"

#define RACE_PAGES 96u
#define RACE_WORDS (PAGE / 8)

struct race {
	struct rig r;
	_Atomic uint64_t written[RACE_PAGES]; /* version that slu_write has returned for */
	_Atomic uint64_t versions;
	_Atomic bool stop;
	bool cut; /* truncate and punch take part */
	uint64_t nops;
};

struct racer {
	struct race *race;
	struct slu_thread thread;
	uint64_t seed;
	unsigned int writer; /* writes the pages of its residue class */
};

#define NWRITERS 2u

static uint64_t racer_below(struct racer *a, uint64_t n)
{
	a->seed ^= a->seed << 13;
	a->seed ^= a->seed >> 7;
	a->seed ^= a->seed << 17;
	return a->seed % n;
}

/* The first half is one writer's, the second another's, so that versions of a page are in order. */
static void writer_main(void *arg)
{
	struct racer *a = arg;
	struct race *race = a->race;
	uint64_t half = RACE_PAGES / NWRITERS, *buf = malloc(RACE_PAGES * PAGE);

	must(buf);
	for (uint64_t op = 0; op < race->nops; op++) {
		uint64_t first = racer_below(a, half), n = 1 + racer_below(a, half - first);
		uint64_t version = atomic_fetch_add(&race->versions, 1) + 1;

		first += a->writer * half;
		for (uint64_t i = 0; i < n; i++)
			for (uint64_t w = 0; w < RACE_WORDS; w++)
				buf[i * RACE_WORDS + w] = version << 16 | (first + i);
		rig_write(&race->r, first * PAGE, buf, n * PAGE);
		for (uint64_t i = 0; i < n; i++)
			atomic_store(&race->written[first + i], version);
		slu_yield();
	}
	free(buf);
}

static void check_page(struct race *race, uint64_t pgidx, const uint64_t *words, uint64_t nwords,
		       uint64_t at_least)
{
	for (uint64_t w = 1; w < nwords; w++) {
		if (words[w] == words[0])
			continue;
		fprintf(stderr,
			"page %" PRIu64 " is torn at word %" PRIu64 ": %" PRIx64 " %" PRIx64 "\n",
			pgidx, w, words[0], words[w]);
		abort();
	}
	if (!words[0]) {
		/* Nothing written yet, or cut. */
		must(race->cut || !at_least);
		return;
	}
	must_eq(words[0] & 0xffff, pgidx);
	if (words[0] >> 16 < at_least && !race->cut) {
		fprintf(stderr,
			"page %" PRIu64 " is stale: version %" PRIu64 ", had been %" PRIu64 "\n",
			pgidx, words[0] >> 16, at_least);
		abort();
	}
}

static void reader_main(void *arg)
{
	struct racer *a = arg;
	struct race *race = a->race;
	uint64_t *buf = malloc(RACE_PAGES * PAGE);

	must(buf);
	while (!atomic_load(&race->stop)) {
		uint64_t first = racer_below(a, RACE_PAGES);
		uint64_t n = 1 + racer_below(a, RACE_PAGES - first), at_least[RACE_PAGES];
		int64_t got;

		for (uint64_t i = 0; i < n; i++)
			at_least[i] = atomic_load(&race->written[first + i]);
		got = rig_read_ahead(&race->r, first * PAGE, buf, n * PAGE,
				     (unsigned int)racer_below(a, 20));
		must(got >= 0);
		for (uint64_t i = 0; i * PAGE < (uint64_t)got; i++)
			check_page(race, first + i, buf + i * RACE_WORDS,
				   slu_min(PAGE, (uint64_t)got - i * PAGE) / 8, at_least[i]);
		slu_yield();
	}
	free(buf);
}

/* Where nothing is cut, complete() alone has to move the size on disk. */
static int race_sync(struct race *race)
{
	return race->cut ? rig_sync(&race->r)
			 : slu_writeback_range(race->r.wb, &race->r.as, 0, UINT64_MAX);
}

static void syncer_main(void *arg)
{
	struct racer *a = arg;
	struct race *race = a->race;

	while (!atomic_load(&race->stop)) {
		uint64_t pos = racer_below(a, RACE_PAGES) * PAGE;
		int err = racer_below(a, 2) ? race_sync(race)
					    : slu_writeback_range(race->r.wb, &race->r.as, pos,
								  pos + 10 * PAGE);

		must_eq(err, 0);
		slu_sleep_ns(100000);
	}
}

/* Takes clean pages away under everybody's feet. */
static void evictor_main(void *arg)
{
	struct racer *a = arg;
	struct race *race = a->race;

	while (!atomic_load(&race->stop)) {
		struct slu_frames fr = SLU_FRAMES_INIT(race->r.cache);
		struct slu_need need;
		uint32_t n = 1 + (uint32_t)racer_below(a, 200);

		(void)slu_frames_claim(&fr, n, 0, 0, &need);
		slu_yield();
		slu_frames_release(&fr);
		slu_sleep_ns(50000);
	}
}

static void cutter_main(void *arg)
{
	struct racer *a = arg;
	struct race *race = a->race;

	while (!atomic_load(&race->stop)) {
		uint64_t pos = racer_below(a, RACE_PAGES) * PAGE;

		if (racer_below(a, 2))
			must_eq(rig_truncate(&race->r, pos), 0);
		else
			must_eq(rig_punch(&race->r, pos, pos + (1 + racer_below(a, 20)) * PAGE), 0);
		slu_sleep_ns(100000);
	}
}

static void race_run(uint64_t seed, uint64_t nops, bool cut, const struct rig_opts *o)
{
	void (*const mains[])(void *) = {writer_main, writer_main,  reader_main, reader_main,
					 syncer_main, evictor_main, cutter_main};
	struct race race = {.cut = cut, .nops = nops};
	struct racer racers[slu_array_size(mains)];
	size_t n = slu_array_size(mains) - !cut;

	rig_init(&race.r, o);
	if (seed & 1)
		race.r.mem.max_run = 1 + seed % 13;
	for (size_t i = 0; i < n; i++) {
		racers[i] = (struct racer){.race = &race,
					   .seed = (seed + 1) * 0x9e3779b97f4a7c15ull + i,
					   .writer = (unsigned int)i % NWRITERS};
		must_eq(slu_thread_start(&racers[i].thread, "racer", mains[i], &racers[i]), 0);
	}
	for (size_t i = 0; i < NWRITERS; i++)
		slu_thread_join(&racers[i].thread);
	atomic_store(&race.stop, true);
	for (size_t i = NWRITERS; i < n; i++)
		slu_thread_join(&racers[i].thread);
	must_eq(race_sync(&race), 0);
	must(!slu_aspace_dirty(&race.r.as));
	must_eq(rig_disk_size(&race.r), slu_aspace_size(&race.r.as));
	must_eq(rig_fini(&race.r), 0);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void on_threads_nobody_sees_a_torn_or_stale_page(void **state)
{
	struct rig_opts o = {.cache_bytes = 1u << 20, .age_ns = SLU_NS_PER_MS};

	race_run(1, env_number("SLU_RACE_OPS", 2000), false, &o);
	o.latency_ns = 300000;
	race_run(2, env_number("SLU_RACE_OPS", 2000) / 10, false, &o);
}

static void on_threads_truncate_and_punch_win(void **state)
{
	struct rig_opts o = {.cache_bytes = 1u << 20, .age_ns = SLU_NS_PER_MS};

	race_run(3, env_number("SLU_RACE_OPS", 2000), true, &o);
	o.latency_ns = 300000;
	race_run(4, env_number("SLU_RACE_OPS", 2000) / 10, true, &o);
}

struct sim_race {
	uint64_t seed;
	bool cut;
};

static void sim_race_main(void *arg)
{
	struct sim_race *s = arg;
	struct rig_opts o = {.cache_bytes = 1u << 20,
			     .age_ns = 1 + s->seed % 5 * 200000,
			     .latency_ns = s->seed % 3 * 300000,
			     .nthreads = 1 + (unsigned int)(s->seed % 3)};

	race_run(s->seed, 12, s->cut, &o);
}

static void run_seeds(uint64_t first, uint64_t n, bool cut)
{
	uint64_t only = env_number("SLU_SEED", 0);

	if (only) {
		first = only;
		n = 1;
	}
	for (uint64_t seed = first; seed < first + n; seed++) {
		struct sim_race s = {.seed = seed, .cut = cut};
		struct slu_sim *sim = slu_sim_new(seed);
		int err;

		must(sim);
		slu_sim_hurry(sim, seed % 2 ? 50 : 0);
		slu_sim_limit(sim, 20000000);
		err = slu_sim_run(sim, sim_race_main, &s, stderr);
		if (err)
			fprintf(stderr, "SLU_SEED=%" PRIu64 ": %d\n", seed, err);
		must_eq(err, 0);
		slu_sim_free(sim);
	}
}

static void in_simulations_nobody_sees_a_torn_or_stale_page(void **state)
{
	run_seeds(1, env_number("SLU_SEEDS", 60), false);
}

static void in_simulations_truncate_and_punch_win(void **state)
{
	run_seeds(5001, env_number("SLU_SEEDS", 60), true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_threads_nobody_sees_a_torn_or_stale_page),
		cmocka_unit_test(on_threads_truncate_and_punch_win),
		cmocka_unit_test(in_simulations_nobody_sees_a_torn_or_stale_page),
		cmocka_unit_test(in_simulations_truncate_and_punch_win),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
