/* SPDX-License-Identifier: MIT */
/*
 * Many files, many writers, and a cache that is too small for them: nobody is left waiting, the
 * kernel's own pages never fail, a sync ends although it is written on, and afterwards every file
 * holds what it was given.
 */
#include "pages_rig.h"

#define NFILES     4u
#define FILE_PAGES 120u

struct pressure {
	struct rig r;
	struct rig_file files[NFILES];
	uint64_t nops;
	_Atomic bool stop;
};

struct worker {
	struct pressure *p;
	unsigned int file;
	uint64_t seed;
	unsigned char *bytes; /* of the file, whose only writer this is */
	struct slu_thread thread;
};

static uint64_t worker_below(struct worker *w, uint64_t n)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return w->seed % n;
}

static void worker_write(struct worker *w, uint64_t pos, uint64_t len)
{
	struct iovec iov = {.iov_base = w->bytes + pos, .iov_len = len};
	unsigned int flags = worker_below(w, 2) ? SLU_WRITE_KERNEL_CACHE : 0;
	struct slu_aspace *as = &w->p->files[w->file].as;
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct slu_need need;
	uint64_t done = 0;
	int err;

	slu_source_buffer_init(&src, &iov, 1);
	do {
		err = slu_write(as, &src.source, pos + done, len - done, flags, &res,
				worker_below(w, 2) ? &need : NULL);
		done += res.done;
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	must_eq(err, 0);
	must_eq(done, len);
}

static void worker_read(struct worker *w, uint64_t pos, uint64_t len)
{
	struct slu_aspace *as = &w->p->files[w->file].as;
	struct slu_read_vec v;
	uint64_t at = pos;

	must_eq(slu_read(as, w->p->r.bio, pos, len, (unsigned int)worker_below(w, 30), &v), 0);
	for (int i = 0; i < v.niov; i++) {
		must(memcmp(v.iov[i].iov_base, w->bytes + at, v.iov[i].iov_len) == 0);
		at += v.iov[i].iov_len;
	}
	slu_read_done(&v);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;

	for (uint64_t op = 0; op < w->p->nops; op++) {
		uint64_t pos = worker_below(w, (FILE_PAGES - 20) * PAGE);
		uint64_t len = 1 + worker_below(w, 20 * PAGE);

		if (worker_below(w, 3)) {
			rig_pattern(w->bytes + pos, pos, len, (uint32_t)op + 1);
			worker_write(w, pos, len);
		} else {
			worker_read(w, pos, len);
		}
	}
}

/* Ends although the workers go on writing. */
static void syncer_main(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&w->p->stop)) {
		if (worker_below(w, 2))
			must_eq(slu_writeback_all(w->p->r.wb), 0);
		else
			must_eq(slu_writeback_range(w->p->r.wb,
						    &w->p->files[worker_below(w, NFILES)].as, 0,
						    UINT64_MAX),
				0);
		slu_sleep_ns(SLU_NS_PER_MS);
	}
}

static void pressure_run(uint64_t seed, uint64_t nops, const struct rig_opts *o)
{
	struct pressure p = {.nops = nops};
	struct worker w[NFILES + 1];

	rig_init(&p.r, o);
	for (unsigned int i = 0; i < NFILES; i++)
		rig_file_init(&p.r, &p.files[i], 100 + i);
	for (unsigned int i = 0; i <= NFILES; i++) {
		w[i] = (struct worker){.p = &p,
				       .file = i,
				       .seed = (seed + 1) * 0x9e3779b97f4a7c15ull + i};
		w[i].bytes = i < NFILES ? calloc(FILE_PAGES, PAGE) : NULL;
		must_eq(slu_thread_start(&w[i].thread, "worker",
					 i < NFILES ? worker_main : syncer_main, &w[i]),
			0);
	}
	for (unsigned int i = 0; i < NFILES; i++)
		slu_thread_join(&w[i].thread);
	atomic_store(&p.stop, true);
	slu_thread_join(&w[NFILES].thread);
	must_eq(slu_writeback_all(p.r.wb), 0);
	rig_check(&p.r);
	for (unsigned int i = 0; i < NFILES; i++) {
		must(!slu_aspace_dirty(&p.files[i].as));
		must_eq(p.files[i].as.disk_size, slu_aspace_size(&p.files[i].as));
		must_eq(slu_pages_drop(&p.files[i].as, 0, UINT64_MAX), 0);
		for (uint64_t pos = 0; pos < FILE_PAGES * PAGE; pos += 20 * PAGE)
			worker_read(&w[i], pos, 20 * PAGE);
		free(w[i].bytes);
		rig_file_fini(&p.files[i]);
	}
	must_eq(rig_fini(&p.r), 0);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void on_threads_nobody_is_left_waiting(void **state)
{
	pressure_run(1, env_number("SLU_OPS", 400), &(struct rig_opts){.cache_bytes = 1u << 20});
	pressure_run(2, env_number("SLU_OPS", 400) / 4,
		     &(struct rig_opts){.cache_bytes = 1u << 20,
					.latency_ns = 500000,
					.nthreads = 1});
}

static void sim_main(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct rig_opts o = {.cache_bytes = 1u << 20,
			     .latency_ns = seed % 3 * SLU_NS_PER_MS,
			     .age_ns = seed % 2 ? 0 : SLU_NS_PER_MS,
			     .nthreads = 1 + (unsigned int)(seed % 2)};

	pressure_run(seed, 10, &o);
}

static void in_simulations_nobody_is_left_waiting(void **state)
{
	uint64_t only = env_number("SLU_SEED", 0), n = only ? 1 : env_number("SLU_SEEDS", 40);

	for (uint64_t seed = only ? only : 1; n--; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);
		int err;

		must(sim);
		slu_sim_limit(sim, 20000000);
		err = slu_sim_run(sim, sim_main, &seed, stderr);
		if (err)
			fprintf(stderr, "SLU_SEED=%" PRIu64 "\n", seed);
		must_eq(err, 0);
		slu_sim_free(sim);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_threads_nobody_is_left_waiting),
		cmocka_unit_test(in_simulations_nobody_is_left_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
