/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk: what a power cut may and may not do, the recording and its replay, faults,
 * the host's room, and that one seed tells one story.
 */
#include "sluice/blockio.h"
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define BS      SLU_BLOCK_SIZE
#define SECTOR  512u
#define NBLOCKS 64u

/* ------------------------------------------------------------------ helpers */

static struct slu_blockio *open_disk(struct slu_simdisk *disk)
{
	struct slu_blockio_opts opts = {.sim = disk, .lock = SLU_LOCK_EXCLUSIVE};
	struct slu_blockio *bio = NULL;

	slu_assert(!slu_blockio_open("", &opts, &bio));
	return bio;
}

static void *buffer(uint32_t nblocks)
{
	void *p = aligned_alloc(BS, (size_t)nblocks * BS);

	slu_assert(p);
	memset(p, 0, (size_t)nblocks * BS);
	return p;
}

/* Every word of a block carries the same version. */
static void fill(void *buf, uint32_t nblocks, uint64_t version)
{
	uint64_t *w = buf;

	for (size_t i = 0; i < (size_t)nblocks * BS / 8; i++)
		w[i] = version;
}

/* The version of one sector; a sector that is not of one piece ends the test. */
static uint64_t sector_version(const void *buf, unsigned int sector)
{
	const uint64_t *w = (const uint64_t *)((const char *)buf + (size_t)sector * SECTOR);

	for (unsigned int i = 1; i < SECTOR / 8; i++)
		slu_assert(w[i] == w[0]);
	return w[0];
}

static uint64_t peek_version(struct slu_simdisk *disk, uint64_t blkno)
{
	uint64_t buf[BS / 8];

	slu_simdisk_peek(disk, blkno, buf);
	for (unsigned int s = 1; s < BS / SECTOR; s++)
		slu_assert(sector_version(buf, s) == sector_version(buf, 0));
	return buf[0];
}

static bool same_contents(struct slu_simdisk *a, struct slu_simdisk *b)
{
	char x[BS], y[BS];

	for (uint64_t i = 0; i < NBLOCKS; i++) {
		slu_simdisk_peek(a, i, x);
		slu_simdisk_peek(b, i, y);
		if (memcmp(x, y, BS))
			return false;
	}
	return true;
}

struct request {
	struct slu_io io;
	struct iovec iov;
	_Atomic uint32_t ended;
	pthread_t submitter;
	bool in_submit; /* the submitter's */
	bool ended_in_submit;
};

static void request_end(struct slu_io *io)
{
	struct request *r = slu_container_of(io, struct request, io);
	_Atomic uint32_t *ended = &r->ended;

	r->ended_in_submit = pthread_equal(r->submitter, pthread_self()) && r->in_submit;
	atomic_fetch_add_explicit(ended, 1, memory_order_release);
	slu_word_wake(ended, INT_MAX);
}

static void submit(struct slu_blockio *bio, struct request *r, enum slu_io_op op, uint64_t blkno,
		   uint32_t nblocks, void *buf)
{
	memset(r, 0, sizeof(*r));
	r->iov = (struct iovec){buf, (size_t)nblocks * BS};
	r->io.op = op;
	r->io.blkno = blkno;
	r->io.nblocks = nblocks;
	r->io.iov = &r->iov;
	r->io.niov = 1;
	r->io.end_io = request_end;
	r->submitter = pthread_self();
	r->in_submit = true;
	slu_blockio_submit(bio, &r->io);
	/* Only its own thread may still look: the request may have ended, but is ours to keep. */
	r->in_submit = false;
}

static int finish(struct request *r)
{
	while (!atomic_load_explicit(&r->ended, memory_order_acquire))
		(void)slu_word_wait(&r->ended, 0, SLU_NO_DEADLINE);
	slu_assert(r->ended == 1);
	return r->io.result;
}

static void write_version(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks,
			  uint64_t version)
{
	void *buf = buffer(nblocks);

	fill(buf, nblocks, version);
	slu_assert(!slu_blockio_write(bio, blkno, nblocks, buf));
	free(buf);
}

/* ------------------------------------------------------------------ power cuts against a model */

/*
 * Tasks write ever newer versions to blocks of their own and flush. For each block the model knows
 * the oldest version that a cut may leave (the newest one that had completed when a flush that
 * succeeded was submitted) and the newest (the last one submitted).
 */
#define TASKS      3
#define TASK_SPAN  8u
#define MAX_LENGTH 3u

struct model {
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	uint64_t completed[NBLOCKS], floor[NBLOCKS], ceiling[NBLOCKS];
	unsigned int steps;
	uint64_t completions; /* hash of their order */
};

struct model_task {
	struct model *m;
	struct slu_thread thread;
	uint64_t first;
};

static bool model_write(struct model_task *t, uint64_t version)
{
	struct slu_sim *sim = slu_sim_current();
	uint64_t blkno = t->first + slu_sim_below(sim, TASK_SPAN - MAX_LENGTH);
	uint32_t n = 1 + (uint32_t)slu_sim_below(sim, MAX_LENGTH);
	void *buf = buffer(n);
	int err;

	fill(buf, n, version);
	for (uint32_t i = 0; i < n; i++)
		t->m->ceiling[blkno + i] = version;
	if (slu_sim_below(sim, 2)) {
		struct request r;

		submit(t->m->bio, &r, SLU_IO_WRITE, blkno, n, buf);
		err = finish(&r);
	} else {
		err = slu_blockio_write(t->m->bio, blkno, n, buf);
	}
	for (uint32_t i = 0; !err && i < n; i++)
		t->m->completed[blkno + i] = version;
	t->m->completions = t->m->completions * 31 + blkno * 7 + version;
	free(buf);
	return !err;
}

static bool model_flush(struct model *m)
{
	uint64_t promised[NBLOCKS];

	memcpy(promised, m->completed, sizeof(promised));
	if (slu_blockio_flush(m->bio))
		return false;
	for (unsigned int i = 0; i < NBLOCKS; i++)
		m->floor[i] = slu_max(m->floor[i], promised[i]);
	return true;
}

static void model_task(void *arg)
{
	struct model_task *t = arg;

	for (uint64_t version = 1; version <= t->m->steps; version++) {
		if (!model_write(t, version))
			return;
		if (!slu_sim_below(slu_sim_current(), 4) && !model_flush(t->m))
			return;
	}
}

static void model_main(void *arg)
{
	struct model *m = arg;
	struct model_task t[TASKS];

	m->bio = open_disk(m->disk);
	for (unsigned int i = 0; i < TASKS; i++) {
		t[i].m = m;
		t[i].first = i * TASK_SPAN;
		slu_assert(!slu_thread_start(&t[i].thread, "writer", model_task, &t[i]));
	}
	for (uint64_t n = slu_sim_below(slu_sim_current(), 40); n; n--)
		slu_sleep_ns(100000);
	slu_simdisk_power_cut(m->disk, 2 + slu_random() % 1000000);
	for (unsigned int i = 0; i < TASKS; i++)
		slu_thread_join(&t[i].thread);
	slu_blockio_close(m->bio);
}

static void model_run(struct model *m, uint64_t seed, uint64_t latency_ns)
{
	struct slu_sim *sim = slu_sim_new(seed);

	memset(m, 0, sizeof(*m));
	m->steps = 30;
	m->disk = slu_simdisk_new(NBLOCKS, seed);
	slu_simdisk_latency(m->disk, latency_ns);
	assert_non_null(sim);
	assert_int_equal(slu_sim_run(sim, model_main, m, stderr), 0);
	slu_sim_free(sim);
}

struct outcomes {
	uint64_t lost, kept, torn;
};

static void model_check(struct model *m, struct slu_simdisk *disk, struct outcomes *o)
{
	for (uint64_t b = 0; b < NBLOCKS; b++) {
		uint64_t buf[BS / 8], first;
		bool torn = false;

		slu_simdisk_peek(disk, b, buf);
		first = sector_version(buf, 0);
		for (unsigned int s = 0; s < BS / SECTOR; s++) {
			uint64_t v = sector_version(buf, s);

			assert_in_range(v, m->floor[b], m->ceiling[b]);
			torn |= v != first;
		}
		o->torn += torn;
		o->lost += !torn && first < m->ceiling[b];
		o->kept += !torn && first == m->ceiling[b] && m->floor[b] < first;
	}
}

static void a_power_cut_takes_what_was_not_flushed_and_nothing_else(void **state)
{
	struct outcomes o = {0};

	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct model m;

		model_run(&m, seed, seed % 3 ? 300000 : 0);
		model_check(&m, m.disk, &o);
		slu_simdisk_free(m.disk);
	}
	assert_true(o.lost > 20);
	assert_true(o.kept > 20);
	assert_true(o.torn > 20);
}

static void one_seed_tells_one_story(void **state)
{
	unsigned int differ = 0;

	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct model a, b, c;

		model_run(&a, seed, 300000);
		model_run(&b, seed, 300000);
		model_run(&c, seed + 1000, 300000);
		assert_int_equal(a.completions, b.completions);
		assert_true(same_contents(a.disk, b.disk));
		differ += a.completions != c.completions;
		slu_simdisk_free(a.disk);
		slu_simdisk_free(b.disk);
		slu_simdisk_free(c.disk);
	}
	assert_true(differ >= 6);
}

static void a_flush_covers_only_what_had_completed_before_it(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 5);
	struct slu_blockio *bio;
	bool lost_after = false;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	write_version(bio, 1, 1, 11);
	assert_int_equal(slu_simdisk_unflushed(disk), 1);
	assert_int_equal(slu_blockio_flush(bio), 0);
	assert_int_equal(slu_simdisk_unflushed(disk), 0);
	write_version(bio, 2, 1, 22);
	write_version(bio, 1, 1, 12);
	assert_int_equal(slu_simdisk_unflushed(disk), 2);
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct slu_simdisk *end = slu_simdisk_clone(disk);
		uint64_t buf[BS / 8];

		slu_simdisk_power_cut(end, seed);
		slu_simdisk_peek(end, 1, buf);
		for (unsigned int s = 0; s < BS / SECTOR; s++)
			assert_in_range(sector_version(buf, s), 11, 12);
		if (seed == 0)
			assert_int_equal(peek_version(end, 2), 22);
		if (seed == 1) {
			assert_int_equal(peek_version(end, 1), 11);
			assert_int_equal(peek_version(end, 2), 0);
		}
		slu_simdisk_peek(end, 2, buf);
		lost_after |= !sector_version(buf, 0);
		slu_simdisk_free(end);
	}
	assert_true(lost_after);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

/* A write that completes while a flush is under way is not covered by it. */
static void flush_barrier(void *arg)
{
	struct slu_simdisk *disk = arg;
	struct slu_blockio *bio = open_disk(disk);
	struct request flush, write[8];
	bool seen = false;
	void *buf = buffer(1);

	fill(buf, 1, 5);
	for (int round = 0; round < 40 && !seen; round++) {
		submit(bio, &flush, SLU_IO_FLUSH, 0, 0, NULL);
		for (uint64_t i = 0; i < slu_array_size(write); i++)
			submit(bio, &write[i], SLU_IO_WRITE, i, 1, buf);
		slu_assert(!finish(&flush));
		for (unsigned int i = 0; i < slu_array_size(write); i++)
			slu_assert(!finish(&write[i]));
		/* All eight, also those that completed first. */
		slu_assert(slu_simdisk_unflushed(disk) == 8);
		slu_assert(!slu_blockio_flush(bio));
		slu_assert(slu_simdisk_unflushed(disk) == 0);
	}
	slu_blockio_close(bio);
	free(buf);
}

static void a_flush_under_way_does_not_cover_later_completions(void **state)
{
	for (uint64_t seed = 1; seed < 10; seed++) {
		struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, seed);
		struct slu_sim *sim = slu_sim_new(seed);

		slu_simdisk_latency(disk, 100000);
		assert_int_equal(slu_sim_run(sim, flush_barrier, disk, stderr), 0);
		slu_sim_free(sim);
		slu_simdisk_free(disk);
	}
}

static unsigned int cut_kept_unfinished; /* writes that failed and are on the disk */

static void cut_in_flight(void *arg)
{
	struct slu_simdisk *disk = arg;
	struct slu_blockio *bio = open_disk(disk), *again;
	struct request r[20];
	void *buf = buffer(1);
	unsigned int failed = 0;

	fill(buf, 1, 1);
	for (uint64_t i = 0; i < 20; i++)
		submit(bio, &r[i], SLU_IO_WRITE, i, 1, buf);
	slu_sleep_ns(50000);
	slu_simdisk_power_cut(disk, slu_random());
	for (unsigned int i = 0; i < 20; i++) {
		int err = finish(&r[i]);
		uint64_t block[BS / 8];

		slu_assert(!err || err == -EIO);
		failed += err == -EIO;
		slu_simdisk_peek(disk, i, block);
		if (err && block[0])
			cut_kept_unfinished++;
	}
	slu_assert(failed > 0);
	/* The old mount is dead and holds no lock; the disk works. */
	slu_assert(slu_blockio_write(bio, 0, 1, buf) == -EIO);
	slu_assert(slu_blockio_read(bio, 0, 1, buf) == -EIO);
	slu_assert(slu_blockio_flush(bio) == -EIO);
	slu_assert(slu_blockio_reserve(bio, 0, 1) == -EIO);
	again = open_disk(disk);
	write_version(again, 30, 2, 3);
	slu_assert(peek_version(disk, 31) == 3);
	slu_blockio_close(again);
	slu_blockio_close(bio);
	free(buf);
}

static void requests_in_flight_end_with_EIO_and_the_disk_works_again(void **state)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, seed);
		struct slu_sim *sim = slu_sim_new(seed);

		slu_simdisk_latency(disk, 100000);
		assert_int_equal(slu_sim_run(sim, cut_in_flight, disk, stderr), 0);
		slu_sim_free(sim);
		slu_simdisk_free(disk);
	}
	assert_true(cut_kept_unfinished > 5);
}

/* ------------------------------------------------------------------ clones */

static void a_clone_is_independent(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 1), *copy;
	struct slu_blockio *bio;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	write_version(bio, 10, 5, 1);
	copy = slu_simdisk_clone(disk);
	assert_int_equal(slu_simdisk_unflushed(copy), 1);
	write_version(bio, 10, 5, 2);
	slu_blockio_close(bio);
	bio = open_disk(copy);
	write_version(bio, 12, 1, 3);
	slu_blockio_close(bio);
	assert_int_equal(peek_version(disk, 12), 2);
	assert_int_equal(peek_version(copy, 12), 3);
	assert_int_equal(peek_version(copy, 14), 1);
	slu_simdisk_free(disk);
	assert_int_equal(peek_version(copy, 14), 1);
	slu_simdisk_free(copy);
}

/* What is in flight when a clone is made may or may not have reached it. */
static void clone_in_flight(void *arg)
{
	struct slu_simdisk *disk = arg, *copy[40];
	struct slu_blockio *bio = open_disk(disk);
	struct request r;
	void *buf = buffer(1);
	unsigned int there = 0;

	fill(buf, 1, 9);
	submit(bio, &r, SLU_IO_WRITE, 4, 1, buf);
	for (unsigned int i = 0; i < 40; i++)
		copy[i] = slu_simdisk_clone(disk);
	slu_assert(!atomic_load(&r.ended));
	slu_assert(!finish(&r));
	for (unsigned int i = 0; i < 40; i++) {
		uint64_t block[BS / 8];

		slu_assert(!peek_version(copy[i], 4));
		if (i >= 30) { /* a mount decides it: the write did not happen */
			struct slu_blockio *mount = open_disk(copy[i]);

			write_version(mount, 4, 1, 10);
			slu_assert(!slu_blockio_flush(mount));
			slu_blockio_close(mount);
			slu_simdisk_power_cut(copy[i], i);
			slu_assert(peek_version(copy[i], 4) == 10);
			slu_simdisk_free(copy[i]);
			continue;
		}
		slu_simdisk_power_cut(copy[i], i);
		slu_simdisk_peek(copy[i], 4, block);
		slu_assert(i > 1 || !block[0]);
		there += block[0] == 9;
		slu_simdisk_free(copy[i]);
	}
	slu_assert(there > 2 && there < 28);
	slu_blockio_close(bio);
	free(buf);
}

static void a_clone_knows_what_was_in_flight(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 8);
	struct slu_sim *sim = slu_sim_new(8);

	slu_simdisk_latency(disk, SLU_NS_PER_SEC);
	assert_int_equal(slu_sim_run(sim, clone_in_flight, disk, stderr), 0);
	slu_sim_free(sim);
	slu_simdisk_free(disk);
}

/* ------------------------------------------------------------------ recordings */

#define RECORDS 700u

/* A run, with a clone after each record and the number of the last flush before it. */
static void record_run(struct slu_simdisk *disk, struct slu_simdisk **prefix, size_t *flushed)
{
	struct slu_blockio *bio = open_disk(disk);
	uint64_t x = 12345;

	write_version(bio, 3, 4, 1000); /* before the recording: taken as flushed */
	slu_simdisk_record(disk, true);
	prefix[0] = slu_simdisk_clone(disk);
	flushed[0] = 0;
	for (size_t k = 1; k <= RECORDS; k++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		flushed[k] = flushed[k - 1];
		if (x >> 60 == 0) {
			slu_assert(!slu_blockio_flush(bio));
			flushed[k] = k;
		} else {
			write_version(bio, (x >> 33) % (NBLOCKS - 8), 1 + (x >> 40) % 8, k);
		}
		prefix[k] = slu_simdisk_clone(disk);
	}
	slu_simdisk_record(disk, false);
	write_version(bio, 0, 8, 2000); /* after it: not in the log */
	slu_blockio_close(bio);
}

static void check_replay(struct slu_simdisk *disk, size_t k, uint64_t seed,
			 struct slu_simdisk *expect)
{
	struct slu_simdisk *end = slu_simdisk_replay(disk, k, seed);

	assert_true(same_contents(end, expect));
	assert_int_equal(slu_simdisk_unflushed(end), 0);
	slu_simdisk_free(end);
}

static void replay_of_k_records_is_the_disk_after_k_records(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 1), *prefix[RECORDS + 1];
	struct slu_simdisk_record rec;
	size_t flushed[RECORDS + 1];

	slu_simdisk_inline(disk, true);
	record_run(disk, prefix, flushed);
	assert_int_equal(slu_simdisk_nrecords(disk), RECORDS);
	for (size_t k = 0; k <= RECORDS; k++) {
		check_replay(disk, k, 0, prefix[k]);
		check_replay(disk, k, 1, prefix[flushed[k]]);
		if (k) {
			slu_simdisk_record_at(disk, k - 1, &rec);
			assert_int_equal(rec.op, flushed[k] == k ? SLU_IO_FLUSH : SLU_IO_WRITE);
			assert_int_equal(rec.covers, flushed[k] ? flushed[k] - 1 : 0);
		}
	}
	for (size_t i = 0; i <= RECORDS; i++) { /* back and forth */
		size_t k = i * 263 % (RECORDS + 1);

		check_replay(disk, k, i & 1, prefix[i & 1 ? flushed[k] : k]);
	}
	for (size_t k = 0; k <= RECORDS; k++)
		slu_simdisk_free(prefix[k]);
	slu_simdisk_free(disk);
}

static void replay_with_a_seed_keeps_what_was_flushed(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 1), *prefix[RECORDS + 1];
	size_t flushed[RECORDS + 1];
	unsigned int between = 0;

	slu_simdisk_inline(disk, true);
	record_run(disk, prefix, flushed);
	for (size_t k = 0; k <= RECORDS; k++) {
		struct slu_simdisk *end = slu_simdisk_replay(disk, k, k + 2);
		struct slu_simdisk *same = slu_simdisk_replay(disk, k, k + 2);

		assert_true(same_contents(end, same));
		for (uint64_t b = 0; b < NBLOCKS; b++) {
			uint64_t old = peek_version(prefix[flushed[k]], b), buf[BS / 8];

			slu_simdisk_peek(end, b, buf);
			for (unsigned int s = 0; s < BS / SECTOR; s++) {
				uint64_t v = sector_version(buf, s);

				/* The flushed version, or one written since. */
				assert_true(v == old || (v > flushed[k] && v <= k));
			}
		}
		between +=
			!same_contents(end, prefix[k]) && !same_contents(end, prefix[flushed[k]]);
		slu_simdisk_free(end);
		slu_simdisk_free(same);
	}
	assert_true(between > RECORDS / 4);
	for (size_t k = 0; k <= RECORDS; k++)
		slu_simdisk_free(prefix[k]);
	slu_simdisk_free(disk);
}

static void record_in_flight(void *arg)
{
	struct slu_simdisk *disk = arg;
	struct slu_blockio *bio = open_disk(disk);
	struct request r[8];
	void *buf = buffer(1);

	slu_simdisk_record(disk, true);
	fill(buf, 1, 1);
	for (uint64_t i = 0; i < 8; i++)
		submit(bio, &r[i], SLU_IO_WRITE, i, 1, buf);
	slu_assert(!slu_blockio_write(bio, 8, 1, buf));
	for (uint64_t i = 9; i < 16; i++)
		slu_assert(!slu_blockio_write(bio, i, 1, buf));
	for (unsigned int i = 0; i < 8; i++)
		slu_assert(!finish(&r[i]));
	slu_blockio_close(bio);
	free(buf);
}

struct inflight_seen {
	unsigned int unfinished; /* blocks that a write left which had not completed */
	unsigned int overtaken; /* writes submitted after the cut, completed before one in flight */
};

/* The disk after k of 16 records: nothing beyond them but what was in flight. */
static void check_inflight(struct slu_simdisk *disk, const struct slu_simdisk_record *rec, size_t k,
			   uint64_t seed, struct inflight_seen *seen)
{
	struct slu_simdisk *end = slu_simdisk_replay(disk, k, seed);
	uint64_t buf[BS / 8];

	for (size_t i = k; i < 16; i++) {
		for (size_t j = i + 1; j < 16; j++)
			seen->overtaken += rec[i].submitted >= k && rec[j].submitted < k;
		slu_simdisk_peek(end, rec[i].blkno, buf);
		if (!sector_version(buf, 0))
			continue;
		assert_true(seed > 1);
		assert_true(rec[i].submitted < k);
		seen->unfinished++;
	}
	slu_simdisk_free(end);
}

static void replay_knows_what_was_in_flight(void **state)
{
	struct inflight_seen seen = {0};

	for (uint64_t run = 1; run <= 10; run++) {
		struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, run);
		struct slu_sim *sim = slu_sim_new(run);
		struct slu_simdisk_record rec[16];

		/* Eight writes at once, and eight one after the other beside them. */
		slu_simdisk_latency(disk, SLU_NS_PER_MS);
		assert_int_equal(slu_sim_run(sim, record_in_flight, disk, stderr), 0);
		slu_sim_free(sim);
		assert_int_equal(slu_simdisk_nrecords(disk), 16);
		for (size_t i = 0; i < 16; i++)
			slu_simdisk_record_at(disk, i, &rec[i]);
		for (size_t k = 0; k <= 16; k++)
			for (uint64_t seed = 0; seed < 20; seed++)
				check_inflight(disk, rec, k, seed, &seen);
		slu_simdisk_free(disk);
	}
	assert_true(seen.unfinished > 100);
	assert_true(seen.overtaken > 0);
}

/* Replays from the back to the front look for the nearest stored state each time. */
static void replay_finds_its_way_backwards(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 1), *flushed[300];
	struct slu_blockio *bio;
	size_t n = 0;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	slu_simdisk_record(disk, true);
	for (uint64_t i = 0; i < 300; i++) {
		write_version(bio, i * 5 % NBLOCKS, 1, i + 1);
		write_version(bio, i * 7 % NBLOCKS, 1, i + 1001);
		assert_int_equal(slu_blockio_flush(bio), 0);
		flushed[n++] = slu_simdisk_clone(disk);
	}
	slu_blockio_close(bio);
	check_replay(disk, 900, 1, flushed[299]);
	for (size_t k = 900; k >= 3; k--)
		check_replay(disk, k, 1, flushed[k / 3 - 1]);
	for (size_t i = 0; i < n; i++)
		slu_simdisk_free(flushed[i]);
	slu_simdisk_free(disk);
}

/* A later write may reach the disk before an older one that it overlaps. */
static void a_power_cut_does_not_keep_to_the_order(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 5);
	unsigned int in_order = 0, other_order = 0;
	struct slu_blockio *bio;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	write_version(bio, 0, 2, 1);
	write_version(bio, 1, 2, 2);
	for (uint64_t seed = 2; seed < 502; seed++) {
		struct slu_simdisk *end = slu_simdisk_clone(disk);
		uint64_t buf[3][BS / 8];
		bool whole = true;

		slu_simdisk_power_cut(end, seed);
		for (uint64_t b = 0; b < 3; b++) {
			slu_simdisk_peek(end, b, buf[b]);
			for (unsigned int s = 1; s < BS / SECTOR; s++)
				whole &= sector_version(buf[b], s) == buf[b][0];
		}
		if (whole && buf[0][0] == 1 && buf[2][0] == 2) {
			in_order += buf[1][0] == 2;
			other_order += buf[1][0] == 1;
		}
		slu_simdisk_free(end);
	}
	assert_true(in_order > 25);
	assert_true(other_order > 25);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

struct order {
	struct slu_simdisk *disk;
	bool changed;
};

static void order_main(void *arg)
{
	struct order *o = arg;
	struct slu_blockio *bio = open_disk(o->disk);
	struct slu_simdisk_record rec;
	struct request r[8];
	void *buf = buffer(1);

	slu_simdisk_record(o->disk, true);
	for (uint64_t i = 0; i < 8; i++)
		submit(bio, &r[i], SLU_IO_WRITE, i, 1, buf);
	for (unsigned int i = 0; i < 8; i++)
		slu_assert(!finish(&r[i]));
	for (size_t i = 0; i < 8; i++) {
		slu_simdisk_record_at(o->disk, i, &rec);
		o->changed |= rec.blkno != i;
	}
	slu_blockio_close(bio);
	free(buf);
}

static void requests_complete_in_any_order(void **state)
{
	for (int slow = 0; slow < 2; slow++) {
		unsigned int changed = 0;

		for (uint64_t seed = 1; seed <= 10; seed++) {
			struct order o = {.disk = slu_simdisk_new(NBLOCKS, seed)};
			struct slu_sim *sim = slu_sim_new(seed);

			slu_simdisk_latency(o.disk, slow ? 100000 : 0);
			assert_int_equal(slu_sim_run(sim, order_main, &o, stderr), 0);
			changed += o.changed;
			slu_sim_free(sim);
			slu_simdisk_free(o.disk);
		}
		assert_true(changed >= 5);
	}
}

/* ------------------------------------------------------------------ faults */

/* Runs one request in the three ways there are: queued, inline, synchronous. */
enum way { QUEUED, INLINE, SYNC, WAYS };

static int run_request(struct slu_blockio *bio, enum way way, enum slu_io_op op, uint64_t blkno,
		       uint32_t nblocks, void *buf, bool *ret_in_submit)
{
	struct request r;
	int err;

	*ret_in_submit = true;
	if (way == SYNC)
		return op == SLU_IO_READ    ? slu_blockio_read(bio, blkno, nblocks, buf)
		       : op == SLU_IO_WRITE ? slu_blockio_write(bio, blkno, nblocks, buf)
					    : slu_blockio_flush(bio);
	submit(bio, &r, op, blkno, nblocks, buf);
	err = finish(&r);
	*ret_in_submit = r.ended_in_submit;
	return err;
}

struct fault_case {
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	char *buf;
	enum way way;
};

static void fault_case_init(struct fault_case *c, enum way way)
{
	c->way = way;
	c->disk = slu_simdisk_new(NBLOCKS, 9);
	slu_simdisk_inline(c->disk, way == INLINE);
	c->bio = open_disk(c->disk);
	c->buf = buffer(4);
	for (uint64_t b = 0; b < NBLOCKS; b++)
		write_version(c->bio, b, 1, 100 + b);
}

static void fault_case_fini(struct fault_case *c)
{
	slu_blockio_close(c->bio);
	slu_simdisk_free(c->disk);
	free(c->buf);
}

static int fault_run(struct fault_case *c, enum slu_io_op op, uint64_t blkno, uint32_t nblocks)
{
	bool in_submit;
	int err = run_request(c->bio, c->way, op, blkno, nblocks, c->buf, &in_submit);

	/* Success never ends within submit, unless that was asked for. */
	if (!err && c->way == QUEUED)
		assert_false(in_submit);
	return err;
}

static void submission_and_completion_fail_as_told(void **state)
{
	static const enum slu_io_op ops[] = {SLU_IO_READ, SLU_IO_WRITE, SLU_IO_FLUSH};

	for (int way = 0; way < WAYS; way++) {
		for (size_t i = 0; i < slu_array_size(ops); i++) {
			for (int submits = 0; submits < 2; submits++) {
				struct slu_simdisk_fault f = {
					.op = ops[i],
					.nth = 2,
					.kind = submits ? SLU_FAULT_SUBMIT_ERROR : SLU_FAULT_ERROR,
					.error = -ENOMEM,
				};
				struct fault_case c;
				bool in_submit;

				fault_case_init(&c, (enum way)way);
				fill(c.buf, 4, 7);
				slu_simdisk_fault(c.disk, &f);
				assert_int_equal(fault_run(&c, ops[i], 10, 2), 0);
				assert_int_equal(slu_simdisk_fault_hits(c.disk), 0);
				fill(c.buf, 4, 8);
				assert_int_equal(run_request(c.bio, c.way, ops[i], 10, 2, c.buf,
							     &in_submit),
						 -ENOMEM);
				assert_int_equal(in_submit, submits || way != QUEUED);
				assert_int_equal(slu_simdisk_fault_hits(c.disk), 1);
				assert_int_equal(slu_blockio_stats(c.bio)->errors, 1);
				assert_int_equal(peek_version(c.disk, 10),
						 ops[i] == SLU_IO_WRITE ? 7 : 110);
				/* A flush that failed is never trusted again; others heal. */
				assert_int_equal(fault_run(&c, ops[i], 10, 2),
						 ops[i] == SLU_IO_FLUSH ? -ENOMEM : 0);
				fault_case_fini(&c);
			}
		}
	}
}

static void a_short_transfer_does_its_first_half(void **state)
{
	struct slu_simdisk_fault f = {.op = SLU_IO_WRITE, .kind = SLU_FAULT_SHORT};

	for (int way = 0; way < WAYS; way++) {
		struct fault_case c;
		uint64_t block[BS / 8];

		fault_case_init(&c, (enum way)way);
		fill(c.buf, 4, 7);
		f.op = SLU_IO_WRITE;
		f.error = -ENOSPC;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 20, 3), -ENOSPC);
		assert_int_equal(peek_version(c.disk, 20), 7);
		slu_simdisk_peek(c.disk, 21, block);
		assert_int_equal(sector_version(block, 3), 7);
		assert_int_equal(sector_version(block, 4), 121);
		assert_int_equal(peek_version(c.disk, 22), 122);

		f.op = SLU_IO_READ;
		f.error = 0;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 30, 2), -EIO);
		assert_int_equal(sector_version(c.buf, 7), 130);
		assert_int_equal(sector_version(c.buf, 8), 7);
		fault_case_fini(&c);
	}
}

static void a_lost_write_is_acknowledged_and_a_lost_flush_too(void **state)
{
	struct slu_simdisk_fault f = {.kind = SLU_FAULT_LOST};

	for (int way = 0; way < WAYS; way++) {
		struct fault_case c;

		fault_case_init(&c, (enum way)way);
		fill(c.buf, 4, 7);
		f.op = SLU_IO_WRITE;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 20, 3), 0);
		assert_int_equal(peek_version(c.disk, 20), 120);
		f.op = SLU_IO_FLUSH;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_FLUSH, 0, 0), 0);
		assert_int_equal(slu_simdisk_unflushed(c.disk), NBLOCKS);
		f.op = SLU_IO_READ;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 20, 1), 0);
		assert_int_equal(sector_version(c.buf, 0), 7);
		fault_case_fini(&c);
	}
}

static void a_misdirected_request_hits_the_next_block(void **state)
{
	struct slu_simdisk_fault f = {.kind = SLU_FAULT_MISDIRECTED, .times = 2};

	for (int way = 0; way < WAYS; way++) {
		struct fault_case c;

		fault_case_init(&c, (enum way)way);
		fill(c.buf, 4, 7);
		f.op = SLU_IO_WRITE;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 20, 2), 0);
		assert_int_equal(peek_version(c.disk, 20), 120);
		assert_int_equal(peek_version(c.disk, 21), 7);
		assert_int_equal(peek_version(c.disk, 22), 7);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, NBLOCKS - 1, 1), 0);
		assert_int_equal(peek_version(c.disk, NBLOCKS - 1), 100 + NBLOCKS - 1);
		assert_int_equal(peek_version(c.disk, NBLOCKS - 2), 7);
		f.op = SLU_IO_READ;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 30, 1), 0);
		assert_int_equal(sector_version(c.buf, 0), 131);
		fault_case_fini(&c);
	}
}

static unsigned int bits_different(const void *a, const void *b, size_t n)
{
	const unsigned char *x = a, *y = b;
	unsigned int bits = 0;

	for (size_t i = 0; i < n; i++)
		bits += (unsigned int)__builtin_popcount(x[i] ^ y[i]);
	return bits;
}

static void a_bitflip_flips_one_bit(void **state)
{
	struct slu_simdisk_fault f = {.kind = SLU_FAULT_BITFLIP};

	for (int way = 0; way < WAYS; way++) {
		char *want = buffer(3), *got = buffer(3);
		struct fault_case c;

		fault_case_init(&c, (enum way)way);
		fill(want, 3, 7);
		fill(c.buf, 3, 7);
		f.op = SLU_IO_WRITE;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 20, 3), 0);
		assert_int_equal(bits_different(want, c.buf, 3 * BS), 0);
		for (uint64_t i = 0; i < 3; i++)
			slu_simdisk_peek(c.disk, 20 + i, got + i * BS);
		assert_int_equal(bits_different(want, got, 3 * BS), 1);

		write_version(c.bio, 20, 3, 7);
		f.op = SLU_IO_READ;
		slu_simdisk_fault(c.disk, &f);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 20, 3), 0);
		assert_int_equal(bits_different(want, c.buf, 3 * BS), 1);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 20, 3), 0);
		assert_int_equal(bits_different(want, c.buf, 3 * BS), 0);
		fault_case_fini(&c);
		free(want);
		free(got);
	}
}

static void a_fault_hits_its_range_and_its_number_only(void **state)
{
	struct slu_simdisk_fault f = {
		.op = SLU_IO_WRITE, .nth = 2, .times = 3, .blkno = 10, .nblocks = 5};
	struct fault_case c;
	int want[] = {0, -EIO, -EIO, -EIO, 0, 0};

	fault_case_init(&c, QUEUED);
	slu_simdisk_fault(c.disk, &f);
	for (size_t i = 0; i < slu_array_size(want); i++) {
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 8, 2), 0);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 15, 2), 0);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 10, 2), 0);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, i & 1 ? 9 : 14, 2), want[i]);
	}
	assert_int_equal(slu_simdisk_fault_hits(c.disk), 3);
	f.times = UINT64_MAX;
	f.nth = 1;
	slu_simdisk_fault(c.disk, &f);
	for (int i = 0; i < 10; i++)
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 12, 1), -EIO);
	slu_simdisk_fault(c.disk, NULL);
	assert_int_equal(fault_run(&c, SLU_IO_WRITE, 12, 1), 0);
	fault_case_fini(&c);
}

static void a_device_that_is_gone_fails_everything_until_it_is_back(void **state)
{
	for (int way = 0; way < WAYS; way++) {
		struct fault_case c;

		fault_case_init(&c, (enum way)way);
		slu_simdisk_fail(c.disk, true);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 1, 1), -EIO);
		assert_int_equal(fault_run(&c, SLU_IO_WRITE, 1, 1), -EIO);
		assert_int_equal(slu_blockio_reserve(c.bio, 0, 1), -EIO);
		assert_int_equal(slu_blockio_grow(c.bio, NBLOCKS + 1), -EIO);
		slu_simdisk_fail(c.disk, false);
		assert_int_equal(fault_run(&c, SLU_IO_READ, 1, 1), 0);
		assert_int_equal(sector_version(c.buf, 0), 101);
		assert_int_equal(fault_run(&c, SLU_IO_FLUSH, 0, 0), 0);
		fault_case_fini(&c);
	}
}

static void a_failed_flush_fails_those_that_wait_behind_it(void **state)
{
	struct slu_simdisk_fault f = {.op = SLU_IO_FLUSH, .error = -EIO};
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 2);
	struct slu_blockio *bio;
	struct request r[10];

	slu_simdisk_latency(disk, 20 * SLU_NS_PER_MS);
	slu_simdisk_fault(disk, &f);
	bio = open_disk(disk);
	for (int i = 0; i < 10; i++)
		submit(bio, &r[i], SLU_IO_FLUSH, 0, 0, NULL);
	for (int i = 0; i < 10; i++)
		assert_int_equal(finish(&r[i]), -EIO);
	assert_int_equal(slu_simdisk_fault_hits(disk), 1);
	assert_int_equal(slu_blockio_stats(bio)->errors, 10);
	slu_blockio_close(bio);
	bio = open_disk(disk); /* a new mount starts afresh */
	assert_int_equal(slu_blockio_flush(bio), 0);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

/* ------------------------------------------------------------------ the host's room */

static void a_full_host_refuses_blocks_that_nothing_backs(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 2);
	struct slu_blockio *bio;
	char *buf = buffer(4);
	bool in_submit;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	assert_true(slu_blockio_info(bio)->can_reserve);
	write_version(bio, 0, 4, 1);
	slu_simdisk_host_space(disk, 6);
	write_version(bio, 0, 4, 2);                         /* backed already */
	assert_int_equal(slu_blockio_reserve(bio, 2, 4), 0); /* takes two */
	write_version(bio, 4, 2, 3);
	write_version(bio, 10, 3, 4); /* takes three, leaves one */
	assert_int_equal(slu_blockio_write(bio, 20, 2, buf), -ENOSPC);
	assert_int_equal(slu_blockio_reserve(bio, 20, 2), -ENOSPC);
	assert_int_equal(peek_version(disk, 20), 0);
	assert_int_equal(run_request(bio, INLINE, SLU_IO_DISCARD, 10, 2, NULL, &in_submit), 0);
	assert_int_equal(slu_blockio_write(bio, 20, 3, buf), 0);
	assert_int_equal(slu_blockio_write(bio, 30, 1, buf), -ENOSPC);
	slu_simdisk_host_space(disk, 1);
	assert_int_equal(slu_blockio_write(bio, 30, 1, buf), 0);
	slu_simdisk_host_space(disk, UINT64_MAX);
	assert_int_equal(slu_blockio_write(bio, 40, 4, buf), 0);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
	free(buf);
}

static void discarded_blocks_may_come_back_or_turn_to_rubbish(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 2);
	struct slu_blockio *bio;
	unsigned int kept = 0, zero = 0, other = 0;
	bool in_submit;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	for (uint64_t b = 0; b < NBLOCKS; b++)
		write_version(bio, b, 1, 100 + b);
	assert_int_equal(run_request(bio, INLINE, SLU_IO_DISCARD, 4, 50, NULL, &in_submit), 0);
	for (uint64_t b = 0; b < NBLOCKS; b++) {
		uint64_t v = peek_version(disk, b);

		if (b < 4 || b >= 54)
			assert_int_equal(v, 100 + b);
		else if (v == 100 + b)
			kept++;
		else if (!v)
			zero++;
		else
			other++;
	}
	assert_true(kept && zero && other);
	slu_simdisk_power_cut(disk, 1);
	for (uint64_t b = 0; b < NBLOCKS; b++)
		assert_int_equal(peek_version(disk, b), 0); /* nothing was ever flushed */
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

/* ------------------------------------------------------------------ large and sparse */

static void a_sparse_disk_of_16_TiB_costs_what_is_written(void **state)
{
	uint64_t nblocks = 1ull << 32;
	struct slu_simdisk *disk = slu_simdisk_new(nblocks, 2), *copy;
	struct slu_blockio *bio;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	write_version(bio, nblocks - 1, 1, 5);
	write_version(bio, 0, 1, 6);
	write_version(bio, nblocks / 2 + 12345, 1, 7);
	assert_int_equal(slu_blockio_flush(bio), 0);
	copy = slu_simdisk_clone(disk);
	slu_simdisk_power_cut(copy, 1);
	assert_int_equal(peek_version(copy, nblocks - 1), 5);
	assert_int_equal(peek_version(copy, 0), 6);
	assert_int_equal(peek_version(copy, nblocks / 2 + 12345), 7);
	assert_int_equal(peek_version(copy, nblocks / 2), 0);
	slu_simdisk_free(copy);
	assert_int_equal(slu_blockio_grow(bio, nblocks * 4), 0);
	write_version(bio, nblocks * 4 - 1, 1, 8);
	assert_int_equal(peek_version(disk, 0), 6);
	assert_int_equal(peek_version(disk, nblocks * 4 - 1), 8);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

/* Reported, not judged: how fast cuts can be tried. */
static void replays_and_mounts_are_counted(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(NBLOCKS, 1);
	struct slu_blockio *bio;
	uint64_t start, n = 0;

	slu_simdisk_inline(disk, true);
	bio = open_disk(disk);
	slu_simdisk_record(disk, true);
	for (uint64_t i = 0; i < 1000; i++) {
		write_version(bio, i * 7 % NBLOCKS, 1, i + 1);
		if (i % 10 == 9)
			assert_int_equal(slu_blockio_flush(bio), 0);
	}
	slu_blockio_close(bio);
	start = slu_clock_ns();
	for (size_t k = 0; k <= slu_simdisk_nrecords(disk); k++, n++) {
		struct slu_simdisk *end = slu_simdisk_replay(disk, k, k + 2);

		bio = open_disk(end);
		slu_blockio_close(bio);
		slu_simdisk_free(end);
	}
	print_message("%llu replays with an open and close in %.1f ms\n", (unsigned long long)n,
		      (double)(slu_clock_ns() - start) / 1e6);
	assert_int_equal(n, 1101);
	slu_simdisk_free(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_power_cut_takes_what_was_not_flushed_and_nothing_else),
		cmocka_unit_test(one_seed_tells_one_story),
		cmocka_unit_test(a_flush_covers_only_what_had_completed_before_it),
		cmocka_unit_test(a_flush_under_way_does_not_cover_later_completions),
		cmocka_unit_test(requests_in_flight_end_with_EIO_and_the_disk_works_again),
		cmocka_unit_test(a_clone_is_independent),
		cmocka_unit_test(a_clone_knows_what_was_in_flight),
		cmocka_unit_test(replay_of_k_records_is_the_disk_after_k_records),
		cmocka_unit_test(replay_with_a_seed_keeps_what_was_flushed),
		cmocka_unit_test(replay_knows_what_was_in_flight),
		cmocka_unit_test(replay_finds_its_way_backwards),
		cmocka_unit_test(a_power_cut_does_not_keep_to_the_order),
		cmocka_unit_test(requests_complete_in_any_order),
		cmocka_unit_test(submission_and_completion_fail_as_told),
		cmocka_unit_test(a_short_transfer_does_its_first_half),
		cmocka_unit_test(a_lost_write_is_acknowledged_and_a_lost_flush_too),
		cmocka_unit_test(a_misdirected_request_hits_the_next_block),
		cmocka_unit_test(a_bitflip_flips_one_bit),
		cmocka_unit_test(a_fault_hits_its_range_and_its_number_only),
		cmocka_unit_test(a_device_that_is_gone_fails_everything_until_it_is_back),
		cmocka_unit_test(a_failed_flush_fails_those_that_wait_behind_it),
		cmocka_unit_test(a_full_host_refuses_blocks_that_nothing_backs),
		cmocka_unit_test(discarded_blocks_may_come_back_or_turn_to_rubbish),
		cmocka_unit_test(a_sparse_disk_of_16_TiB_costs_what_is_written),
		cmocka_unit_test(replays_and_mounts_are_counted),
	};

	return cmocka_run_group_tests_name("simulated disk", tests, NULL, NULL);
}
