/* SPDX-License-Identifier: MIT */
/*
 * The lab as a whole: what lies under the files, and rounds of writes.
 *
 * Called by sluice-selfwrite and by tests, from one thread. Between two rounds no thread runs but
 * the windows' handler, which then has nothing to do.
 */
#include "lab_private.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define CACHE_BYTES (32u << 20)
#define NBLOCKS     (4u * SLU_LAB_MAX_THREADS * SLU_LAB_MAX_PAGES)

uint64_t lab_random(uint64_t *x)
{
	/* splitmix64 (Steele, Lea, Flood 2014) */
	uint64_t z = *x += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

void lab_complain(struct slu_lab *lab, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lab->lock);
	if (!lab->error) {
		lab->error = -EUCLEAN;
		va_start(ap, fmt);
		vsnprintf(lab->complaint, sizeof(lab->complaint), fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&lab->lock);
	atomic_store(&lab->broken, true);
}

void lab_meet(struct lab_thread *t)
{
	struct slu_lab *lab = t->lab;
	bool first;

	pthread_mutex_lock(&lab->lock);
	first = t->s.nwrite == 1;
	pthread_mutex_unlock(&lab->lock);
	if (first && lab->nthreads > 1)
		pthread_barrier_wait(&lab->meet);
}

/* ------------------------------------------------------------------ what lies under the files */

static int under_init(struct slu_lab *lab)
{
	struct slu_blockio_opts bopts = {.lock = SLU_LOCK_NONE};
	struct slu_cache_opts copts = {.bytes = CACHE_BYTES};
	/* Nothing is written out: pages stay where the lab can see them. */
	struct slu_writeback_opts wopts = {.dirty_age_ns = 24ull * 3600 * SLU_NS_PER_SEC};
	int err;

	slu_mem_backend_init(&lab->mem, NBLOCKS);
	lab->disk = slu_simdisk_new(NBLOCKS + 1, 1);
	if (!lab->disk)
		return -ENOMEM;
	bopts.sim = lab->disk;
	err = slu_blockio_open("sim", &bopts, &lab->bio);
	if (!err)
		err = slu_cache_new(&copts, &lab->cache);
	if (!err)
		err = slu_writeback_new(lab->cache, lab->bio, &wopts, &lab->wb);
	return err;
}

static void under_fini(struct slu_lab *lab)
{
	if (lab->wb)
		slu_writeback_free(lab->wb);
	slu_mem_backend_fini(&lab->mem);
	if (lab->cache)
		slu_cache_free(lab->cache);
	if (lab->bio)
		slu_blockio_close(lab->bio);
	if (lab->disk)
		slu_simdisk_free(lab->disk);
}

int slu_lab_new(const struct slu_lab_opts *opts, struct slu_lab **ret, const char **why)
{
	struct slu_lab *lab;
	int err;

	*why = "no such policy, or too many or too few pages, threads or writes";
	if ((unsigned int)opts->policy > SLU_LAB_TAIL_NOFAULT || opts->npages < SLU_LAB_MIN_PAGES ||
	    opts->npages > SLU_LAB_MAX_PAGES || !opts->nthreads ||
	    opts->nthreads > SLU_LAB_MAX_THREADS || !opts->nwrites ||
	    opts->nwrites > SLU_LAB_MAX_WRITES)
		return -EINVAL;
	*why = "out of memory";
	lab = slu_zalloc(sizeof(*lab));
	if (!lab)
		return -ENOMEM;
	lab->opts = *opts;
	lab->uffd = lab->stop_fd = -1;
	pthread_mutex_init(&lab->lock, NULL);
	err = under_init(lab);
	for (uint32_t i = 0; i < opts->nthreads && !err; i++)
		err = lab_file_init(lab, i);
	if (!err)
		err = window_init(lab, why);
	if (err) {
		slu_lab_free(lab);
		return err;
	}
	*ret = lab;
	return 0;
}

void slu_lab_free(struct slu_lab *lab)
{
	if (!lab)
		return;
	window_fini(lab);
	for (uint32_t i = 0; i < lab->opts.nthreads; i++)
		lab_file_fini(lab, i);
	under_fini(lab);
	pthread_mutex_destroy(&lab->lock);
	slu_free(lab);
}

/* ------------------------------------------------------------------ a round */

static void reset(struct slu_lab *lab, uint32_t nthreads, uint64_t seed)
{
	pthread_mutex_lock(&lab->lock);
	lab->nthreads = nthreads;
	lab->error = 0;
	lab->ncycle = 0;
	lab->step = 0;
	for (uint32_t i = 0; i < nthreads; i++) {
		lab->threads[i] = (struct lab_thread){.lab = lab,
						      .id = i,
						      .random = seed * 31 + i,
						      .s = {.id = i,
							    .last_fault = LAB_NO_PAGE,
							    .touching = LAB_NO_PAGE}};
	}
	pthread_mutex_unlock(&lab->lock);
	atomic_store(&lab->broken, false);
	atomic_store(&lab->stop_adversary, false);
}

/* Every page of every window is there before anybody writes. */
static void fill_windows(struct slu_lab *lab)
{
	for (size_t at = 0; at < lab->windows_len; at += LAB_PAGE)
		(void)*(volatile uint8_t *)(lab->windows + at);
}

static int run_threads(struct slu_lab *lab)
{
	pthread_t adversary;
	bool have_adversary = false;
	int err = 0;

	if (lab->opts.adversary) {
		err = -pthread_create(&adversary, NULL, window_adversary, lab);
		have_adversary = !err;
	}
	/* All or none: they wait for each other. */
	for (uint32_t i = 0; i < lab->nthreads && !err; i++) {
		err = -pthread_create(&lab->threads[i].thread, NULL, writer_main, &lab->threads[i]);
		slu_assert(!err || i == 0);
		lab->threads[i].started = !err;
	}
	for (uint32_t i = 0; i < lab->nthreads; i++)
		if (lab->threads[i].started)
			pthread_join(lab->threads[i].thread, NULL);
	atomic_store(&lab->stop_adversary, true);
	if (have_adversary)
		pthread_join(adversary, NULL);
	return err;
}

static int round_of(struct slu_lab *lab, uint32_t nthreads, uint64_t seed)
{
	uint32_t n;
	int err = 0;

	window_drop_all(lab);
	for (n = 0; n < nthreads && !err; n++)
		err = lab_file_begin(lab, n);
	/* Under the lock, which the handler takes for each message: it sees the files as they are. */
	reset(lab, nthreads, seed);
	if (!err && lab->opts.resident)
		fill_windows(lab);
	if (!err) {
		pthread_barrier_init(&lab->meet, NULL, nthreads);
		err = run_threads(lab);
		pthread_barrier_destroy(&lab->meet);
	}
	while (n-- > 0)
		lab_file_end(lab, n);
	return err ? err : lab->error;
}

int slu_lab_round(struct slu_lab *lab, uint64_t seed)
{
	lab->only = NULL;
	return round_of(lab, lab->opts.nthreads, seed);
}

int slu_lab_round_of(struct slu_lab *lab, const struct slu_lab_write *w)
{
	uint64_t size = lab->opts.npages * LAB_PAGE, len = w->len[0] + w->len[1];

	for (int i = 0; i < 2; i++)
		if (w->len[i] > size || w->src[i] > size - w->len[i])
			return -EINVAL;
	if (w->src_file || !w->len[0] || len > size || w->pos > size - len)
		return -EINVAL;
	lab->only = w;
	return round_of(lab, 1, 1);
}

const struct slu_lab_stats *slu_lab_stats(const struct slu_lab *lab)
{
	return &lab->stats;
}

const char *slu_lab_complaint(const struct slu_lab *lab)
{
	return lab->complaint;
}
