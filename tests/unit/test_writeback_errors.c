/* SPDX-License-Identifier: MIT */
/*
 * What happens to dirty pages when writing them fails, in whichever way: they stay, can be read,
 * are tried again, and whoever asks is told.
 */
#include "pages_rig.h"

#define NPAGES 12u

static unsigned char pattern[64 * PAGE], back[64 * PAGE], many[96 * PAGE];

enum failure {
	NOTHING_FAILS,
	SUBMIT_FAILS,
	COMPLETION_FAILS,
	HALF_IS_WRITTEN,
	MAP_FAILS,
	ALLOCATE_FAILS,
	RECORD_FAILS,
	READONLY,
	NFAILURES
};

static int make_fail(struct rig *r, enum failure f, uint64_t times)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_WRITE,
					  .nth = 1,
					  .times = times,
					  .kind = SLU_FAULT_ERROR,
					  .error = -EIO};

	slu_mutex_lock(&r->mem.lock);
	r->mem.error = f == READONLY ? -EROFS : 0;
	r->mem.fail_map_nth = f == MAP_FAILS;
	r->mem.fail_allocate_nth = f == ALLOCATE_FAILS;
	r->mem.fail_complete_nth = f == RECORD_FAILS || f == READONLY;
	slu_mutex_unlock(&r->mem.lock);
	if (f == SUBMIT_FAILS)
		fault.kind = SLU_FAULT_SUBMIT_ERROR;
	if (f == HALF_IS_WRITTEN)
		fault.kind = SLU_FAULT_SHORT;
	if (f == SUBMIT_FAILS || f == COMPLETION_FAILS || f == HALF_IS_WRITTEN)
		slu_simdisk_fault(r->disk, &fault);
	else
		slu_simdisk_fault(r->disk, NULL);
	return f == NOTHING_FAILS ? 0 : f == READONLY ? -EROFS : -EIO;
}

static void check_file(struct rig *r, uint64_t npages)
{
	must_eq(rig_read(r, 0, back, npages * PAGE), npages * PAGE);
	must(memcmp(back, pattern, npages * PAGE) == 0);
}

static void failed_pages_stay_dirty_and_readable_until_a_retry_heals(void **state)
{
	for (int f = 0; f < NFAILURES; f++)
		for (int mapped = 0; mapped < 2; mapped++) {
			struct rig r;
			int want;

			rig_init(&r, &(struct rig_opts){0});
			if (mapped)
				must_eq(slu_mem_inode_set(r.inode, 0, NPAGES, SLU_IOMAP_UNWRITTEN),
					0);
			else if (f == ALLOCATE_FAILS)
				must_eq(r.mem.used, 0);
			rig_write(&r, 0, pattern, NPAGES * PAGE);
			if (mapped && f == ALLOCATE_FAILS) {
				/* There is nothing to allocate. */
				must_eq(rig_fini(&r), 0);
				continue;
			}
			want = make_fail(&r, f, 1);
			must_eq(rig_sync(&r), want);
			must_eq(slu_aspace_dirty(&r.as), want != 0);
			rig_check(&r);
			check_file(&r, NPAGES);
			if (want) {
				must_eq(slu_cache_stats(r.cache)->failed, NPAGES);
				must_eq(slu_cache_stats(r.cache)->dirty, NPAGES);
				must_eq(r.mem.reserved, mapped ? 0 : NPAGES);
				must_eq(r.mem.used, mapped ? NPAGES : 0);
				must_eq(rig_disk_size(&r), 0);
				must_eq(r.nevents, 1);
			}
			must_eq(rig_sync(&r), 0);
			must(!slu_aspace_dirty(&r.as));
			must_eq(slu_cache_stats(r.cache)->failed, 0);
			must_eq(rig_disk_size(&r), NPAGES * PAGE);
			rig_drop_clean(&r);
			check_file(&r, NPAGES);
			must_eq(rig_fini(&r), 0);
		}
}

static void fsync_fails_as_long_as_a_page_cannot_be_written(void **state)
{
	struct rig r;
	uint64_t cursor;

	rig_init(&r, &(struct rig_opts){0});
	cursor = slu_aspace_error_sample(&r.as);
	rig_write(&r, 0, pattern, NPAGES * PAGE);
	make_fail(&r, COMPLETION_FAILS, UINT64_MAX);
	for (int i = 0; i < 4; i++)
		must_eq(rig_sync(&r), -EIO);
	must_eq(slu_aspace_error_check(&r.as, &cursor), -EIO);
	must_eq(rig_sync(&r), -EIO);
	make_fail(&r, NOTHING_FAILS, 0);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static void every_open_description_sees_an_error_once_even_if_a_retry_healed_it(void **state)
{
	struct rig r;
	uint64_t first, second, third;

	rig_init(&r, &(struct rig_opts){0});
	first = slu_aspace_error_sample(&r.as);
	second = slu_aspace_error_sample(&r.as);
	rig_write(&r, 0, pattern, PAGE);
	make_fail(&r, COMPLETION_FAILS, 1);
	must_eq(rig_sync(&r), -EIO);
	must_eq(rig_sync(&r), 0);
	third = slu_aspace_error_sample(&r.as);
	must_eq(slu_aspace_error_check(&r.as, &first), -EIO);
	must_eq(slu_aspace_error_check(&r.as, &first), 0);
	must_eq(slu_aspace_error_check(&r.as, &second), -EIO);
	must_eq(slu_aspace_error_check(&r.as, &second), 0);
	/* Opened after the error was recorded. */
	must_eq(slu_aspace_error_check(&r.as, &third), 0);
	must_eq(rig_fini(&r), 0);
}

/* One bad block among many: after some tries only the pages around it are left. */
static void a_bad_block_keeps_no_more_than_its_neighbours(void **state)
{
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, pattern, 64 * PAGE);
	must_eq(rig_sync(&r), 0);
	rig_write(&r, 0, pattern, 64 * PAGE);
	slu_simdisk_fault(r.disk, &(struct slu_simdisk_fault){.op = SLU_IO_WRITE,
							      .nth = 1,
							      .times = UINT64_MAX,
							      .blkno = 20,
							      .nblocks = 1,
							      .kind = SLU_FAULT_ERROR,
							      .error = -EIO});
	must_eq(rig_sync(&r), -EIO);
	must_eq(slu_cache_stats(r.cache)->failed, 64);
	must_eq(rig_sync(&r), -EIO);
	must(slu_cache_stats(r.cache)->failed <= 16);
	make_fail(&r, NOTHING_FAILS, 0);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

/* ------------------------------------------------------------------ by itself */

static void in_simulation(void (*fn)(void *), uint64_t seed)
{
	struct slu_sim *sim = slu_sim_new(seed);

	must(sim);
	slu_sim_limit(sim, 5000000);
	must_eq(slu_sim_run(sim, fn, &seed, stderr), 0);
	slu_sim_free(sim);
}

static void retries_main(void *arg)
{
	struct rig r;
	uint64_t start;

	rig_init(&r, &(struct rig_opts){.age_ns = SLU_NS_PER_SEC});
	rig_write(&r, 0, pattern, NPAGES * PAGE);
	make_fail(&r, COMPLETION_FAILS, 5);
	start = slu_clock_ns();
	while (slu_aspace_dirty(&r.as))
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	/* At 1 s, then after 0.1, 0.2, 0.4, 0.8 and 1.6 s. */
	must(slu_clock_ns() - start >= 4 * SLU_NS_PER_SEC);
	must(slu_clock_ns() - start < 6 * SLU_NS_PER_SEC);
	must_eq(r.nevents, 5);
	must_eq(slu_writeback_stats(r.wb)->errors, 5);
	must_eq(slu_writeback_stats(r.wb)->retries, 1);
	must_eq(rig_fini(&r), 0);
}

static void failed_pages_are_tried_again_with_growing_delays(void **state)
{
	for (uint64_t seed = 1; seed < 10; seed++)
		in_simulation(retries_main, seed);
}

static void others_main(void *arg)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_WRITE,
					  .nth = 1,
					  .times = UINT64_MAX,
					  .blkno = 1,
					  .nblocks = NPAGES,
					  .kind = SLU_FAULT_ERROR,
					  .error = -EIO};
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct rig_file f;
	struct rig r;

	rig_init(&r, &(struct rig_opts){.age_ns = 100 * SLU_NS_PER_MS, .nthreads = 1});
	rig_file_init(&r, &f, 8);
	/* The first file's blocks are 1 to NPAGES, and bad. */
	rig_write(&r, 0, pattern, NPAGES * PAGE);
	must_eq(rig_sync(&r), 0);
	rig_write(&r, 0, pattern, NPAGES * PAGE);
	slu_simdisk_fault(r.disk, &fault);
	slu_sleep_ns(SLU_NS_PER_SEC);
	must(r.nevents > 0);
	for (int i = 0; i < 5; i++) {
		uint64_t start = slu_clock_ns();
		struct iovec iov = {.iov_base = pattern, .iov_len = PAGE};

		slu_source_buffer_init(&src, &iov, 1);
		must_eq(slu_write(&f.as, &src.source, (uint64_t)i * PAGE, PAGE, 0, &res, NULL), 0);
		while (slu_aspace_dirty(&f.as))
			slu_sleep_ns(10 * SLU_NS_PER_MS);
		must(slu_clock_ns() - start < 300 * SLU_NS_PER_MS);
	}
	must(slu_aspace_dirty(&r.as));
	make_fail(&r, NOTHING_FAILS, 0);
	must_eq(rig_sync(&r), 0);
	rig_file_fini(&f);
	must_eq(rig_fini(&r), 0);
}

static void one_failing_inode_never_holds_up_another(void **state)
{
	for (uint64_t seed = 1; seed < 10; seed++)
		in_simulation(others_main, seed);
}

/* ------------------------------------------------------------------ two at the same time */

static struct rig_file second_file;

static void fsync_and_look(void *arg)
{
	struct rig *r = arg;

	for (int i = 0; i < 4; i++) {
		/* begins anywhere in what the other one does */
		for (uint64_t turns = slu_random() % 64; turns; turns--)
			slu_yield();
		if (!slu_writeback_range(r->wb, &r->as, 0, UINT64_MAX))
			must(!slu_aspace_dirty(&r->as));
	}
}

static void sync_and_look(void *arg)
{
	struct rig *r = arg;

	if (!slu_writeback_all(r->wb))
		must(!slu_aspace_dirty(&r->as) && !slu_aspace_dirty(&second_file.as));
}

static void at_the_same_time(struct rig *r, void (*fn)(void *))
{
	struct slu_thread other = {0};

	must_eq(slu_thread_start(&other, "other", fn, r), 0);
	fn(r);
	slu_thread_join(&other);
}

static void two_fsyncs_main(void *arg)
{
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, pattern, NPAGES * PAGE);
	make_fail(&r, COMPLETION_FAILS, 6);
	at_the_same_time(&r, fsync_and_look);
	make_fail(&r, NOTHING_FAILS, 0);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static void of_two_fsyncs_none_misses_the_error(void **state)
{
	for (uint64_t seed = 1; seed < 300; seed++)
		in_simulation(two_fsyncs_main, seed);
}

static void two_syncs_main(void *arg)
{
	struct slu_source_buffer src;
	struct iovec iov = {.iov_base = pattern, .iov_len = 3 * PAGE};
	struct slu_write_result res;
	struct slu_need need;
	struct rig r;

	rig_init(&r, &(struct rig_opts){.latency_ns = SLU_NS_PER_MS});
	rig_file_init(&r, &second_file, 8);
	rig_write(&r, 0, pattern, NPAGES * PAGE);
	slu_source_buffer_init(&src, &iov, 1);
	must_eq(slu_write(&second_file.as, &src.source, 0, iov.iov_len, 0, &res, &need), 0);
	at_the_same_time(&r, sync_and_look);
	rig_file_fini(&second_file);
	must_eq(rig_fini(&r), 0);
}

static void of_two_syncs_none_leaves_anything_to_the_other(void **state)
{
	for (uint64_t seed = 1; seed < 300; seed++)
		in_simulation(two_syncs_main, seed);
}

/* ------------------------------------------------------------------ limits */

/* A run that a thread had under way when the fault was taken away may still fail. */
static void heal_all(struct rig *r)
{
	make_fail(r, NOTHING_FAILS, 0);
	if (slu_writeback_all(r->wb))
		must_eq(slu_writeback_all(r->wb), 0);
}

static void beyond_an_eighth_of_failed_pages_a_write_fails_at_once(void **state)
{
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct slu_need need;
	struct rig_file f;
	struct rig r;
	struct iovec iov = {.iov_base = pattern, .iov_len = PAGE};

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	rig_file_init(&r, &f, 8);
	make_fail(&r, COMPLETION_FAILS, UINT64_MAX);
	rig_write(&r, 0, pattern, 32 * PAGE);
	must_eq(rig_sync(&r), -EIO);
	/* An eighth of 256 is not too many. */
	rig_write(&r, 32 * PAGE, pattern, PAGE);
	must_eq(rig_sync(&r), -EIO);
	slu_source_buffer_init(&src, &iov, 1);
	must_eq(slu_write(&r.as, &src.source, 0, PAGE, 0, &res, &need), -EIO);
	must_eq(slu_write(&r.as, &src.source, 0, PAGE, SLU_WRITE_KERNEL_CACHE, &res, &need), -EIO);
	/* Another inode goes on. */
	must_eq(slu_write(&f.as, &src.source, 0, PAGE, 0, &res, &need), 0);
	heal_all(&r);
	rig_write(&r, 0, pattern, PAGE);
	must_eq(slu_writeback_all(r.wb), 0);
	rig_file_fini(&f);
	must_eq(rig_fini(&r), 0);
}

/* Half the cache has failed and cannot be written: the others have a quarter. */
static void failed_pages_leave_the_others_room(void **state)
{
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct rig_file f;
	struct rig r;
	struct iovec iov = {.iov_base = pattern, .iov_len = 40 * PAGE};

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	rig_file_init(&r, &f, 8);
	make_fail(&r, COMPLETION_FAILS, UINT64_MAX);
	rig_write(&r, 0, many, 96 * PAGE);
	must_eq(rig_sync(&r), -EIO);
	must(slu_cache_stats(r.cache)->failed >= 96);
	slu_source_buffer_init(&src, &iov, 1);
	must_eq(slu_write(&f.as, &src.source, 0, iov.iov_len, 0, &res, NULL), 0);
	must_eq(res.done, iov.iov_len);
	heal_all(&r);
	rig_file_fini(&f);
	must_eq(rig_fini(&r), 0);
}

static void what_is_given_up_at_the_end_is_named(void **state)
{
	for (int f = 0; f < 2; f++) {
		struct rig r;

		rig_init(&r, &(struct rig_opts){0});
		rig_write(&r, 0, pattern, 4 * PAGE);
		must_eq(rig_sync(&r), 0);
		rig_write(&r, 2 * PAGE, pattern, 4 * PAGE);
		rig_write(&r, 10 * PAGE, pattern, PAGE);
		make_fail(&r, f ? COMPLETION_FAILS : SUBMIT_FAILS, UINT64_MAX);
		must_eq(slu_writeback_free(r.wb), -EIO);
		r.as.wb = NULL;
		must_eq(r.nlost, 2);
		must_eq(r.lost_pos, 10 * PAGE);
		must_eq(r.lost_len, 5 * PAGE);
		/* Reservations are back, and what was on the disk before is still there. */
		must_eq(r.mem.reserved, 0);
		must_eq(r.mem.used, 4);
		must_eq(r.npins, 0);
		rig_check(&r);
		must_eq(rig_read(&r, 0, back, 2 * PAGE), 2 * PAGE);
		must(memcmp(back, pattern, 2 * PAGE) == 0);
		must_eq(slu_writeback_new(r.cache, r.bio, &(struct slu_writeback_opts){0}, &r.wb),
			0);
		must_eq(rig_fini(&r), 0);
	}
}

/* ------------------------------------------------------------------ ranges and the size on disk */

static void a_range_is_written_and_no_more(void **state)
{
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, pattern, 20 * PAGE);
	must_eq(slu_writeback_range(r.wb, &r.as, 5 * PAGE + 1, 7 * PAGE + 1), 0);
	must_eq(slu_cache_stats(r.cache)->dirty, 17);
	for (uint64_t i = 0; i < 20; i++)
		must_eq(slu_mem_inode_type(r.inode, i, NULL),
			i >= 5 && i < 8 ? SLU_IOMAP_MAPPED : SLU_IOMAP_DELALLOC);
	/* What lies before them is not on disk. */
	must_eq(rig_disk_size(&r), 0);
	must_eq(slu_writeback_range(r.wb, &r.as, 0, 6 * PAGE), 0);
	must_eq(rig_disk_size(&r), 8 * PAGE);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_disk_size(&r), 20 * PAGE);
	must_eq(rig_fini(&r), 0);
}

/* Whoever writes a part of it again and again does not keep the rest young. */
static void what_a_range_leaves_out_gets_old_all_the_same(void **state)
{
	struct rig r;
	int round = 0;

	rig_init(&r, &(struct rig_opts){.age_ns = 200 * SLU_NS_PER_MS});
	rig_write(&r, 0, pattern, PAGE);
	while (slu_mem_inode_type(r.inode, 0, NULL) != SLU_IOMAP_MAPPED) {
		rig_write(&r, 8 * PAGE, pattern, PAGE);
		must_eq(slu_writeback_range(r.wb, &r.as, 8 * PAGE, 9 * PAGE), 0);
		slu_sleep_ns(20 * SLU_NS_PER_MS);
		must(++round < 500);
	}
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static void the_size_on_disk_waits_for_what_lies_before(void **state)
{
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	r.mem.max_run = 4;
	rig_write(&r, 0, pattern, 16 * PAGE);
	/* The second of the four runs fails. */
	slu_simdisk_fault(r.disk, &(struct slu_simdisk_fault){.op = SLU_IO_WRITE,
							      .nth = 2,
							      .times = 1,
							      .kind = SLU_FAULT_ERROR,
							      .error = -EIO});
	must_eq(slu_writeback_range(r.wb, &r.as, 0, UINT64_MAX), -EIO);
	must_eq(rig_disk_size(&r), 4 * PAGE);
	must_eq(slu_writeback_range(r.wb, &r.as, 0, UINT64_MAX), 0);
	must_eq(rig_disk_size(&r), 16 * PAGE);
	must_eq(rig_fini(&r), 0);
}

/* The hole before Y is known to the application together with Y only. */
static void the_size_on_disk_does_not_move_into_a_hole(void **state)
{
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, pattern, 100);
	rig_write(&r, 50 * PAGE + 7, pattern, 100);
	must_eq(slu_writeback_range(r.wb, &r.as, 0, PAGE), 0);
	must_eq(rig_disk_size(&r), PAGE);
	must_eq(slu_writeback_range(r.wb, &r.as, 0, UINT64_MAX), 0);
	must_eq(rig_disk_size(&r), 50 * PAGE + 107);
	must_eq(rig_fini(&r), 0);
}

/* Writeback gets nowhere until the writer has had to wait for it. */
static void hold_writeback(void *ctx)
{
	_Atomic uint64_t *waits = ctx;

	while (!atomic_load(waits))
		slu_sleep_ns(100000);
}

static void dirty_pages_beyond_the_limit_wait_for_writeback(void **state)
{
	struct slu_source_buffer src;
	struct slu_write_result res = {0};
	struct slu_need need;
	struct rig r;
	struct iovec iov = {.iov_base = pattern, .iov_len = 64 * PAGE};
	static _Atomic uint64_t waits;
	uint64_t done = 0;
	int err;

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	atomic_store(&waits, 0);
	if (slu_stress_point_set("writeback.before_submit", hold_writeback, &waits))
		atomic_store(&waits, 1); /* built without: then it may wait or not */
	for (uint64_t round = 0; round < 8; round++) {
		slu_source_buffer_init(&src, &iov, 1);
		done = 0;
		do {
			err = slu_write(&r.as, &src.source, round * iov.iov_len + done,
					iov.iov_len - done, 0, &res, &need);
			done += res.done;
			must(slu_cache_stats(r.cache)->dirty <= 128);
			if (err == -EAGAIN) {
				must(need.slow);
				atomic_fetch_add(&waits, 1);
			}
		} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
		must_eq(err, 0);
		must_eq(done, iov.iov_len);
	}
	must(atomic_load(&waits));
	slu_stress_point_set("writeback.before_submit", NULL, NULL);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static void clean_pages_make_way_and_read_ones_stay_longest(void **state)
{
	const struct slu_cache_stats *stats;
	struct rig r;

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	stats = slu_cache_stats(r.cache);
	rig_write(&r, 0, pattern, 40 * PAGE);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_read(&r, 0, back, 20 * PAGE), 20 * PAGE);
	/* Much is written behind it: written once, never read. */
	for (uint64_t i = 1; i < 8; i++) {
		rig_write(&r, i * 40 * PAGE, pattern, 40 * PAGE);
		must_eq(rig_sync(&r), 0);
		must_eq(rig_read(&r, 0, back, 20 * PAGE), 20 * PAGE);
	}
	must(stats->evictions > 0);
	must_eq(stats->misses, 0);
	rig_check(&r);
	must_eq(rig_fini(&r), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failed_pages_stay_dirty_and_readable_until_a_retry_heals),
		cmocka_unit_test(fsync_fails_as_long_as_a_page_cannot_be_written),
		cmocka_unit_test(
			every_open_description_sees_an_error_once_even_if_a_retry_healed_it),
		cmocka_unit_test(a_bad_block_keeps_no_more_than_its_neighbours),
		cmocka_unit_test(failed_pages_are_tried_again_with_growing_delays),
		cmocka_unit_test(one_failing_inode_never_holds_up_another),
		cmocka_unit_test(of_two_fsyncs_none_misses_the_error),
		cmocka_unit_test(of_two_syncs_none_leaves_anything_to_the_other),
		cmocka_unit_test(beyond_an_eighth_of_failed_pages_a_write_fails_at_once),
		cmocka_unit_test(failed_pages_leave_the_others_room),
		cmocka_unit_test(what_is_given_up_at_the_end_is_named),
		cmocka_unit_test(a_range_is_written_and_no_more),
		cmocka_unit_test(what_a_range_leaves_out_gets_old_all_the_same),
		cmocka_unit_test(the_size_on_disk_waits_for_what_lies_before),
		cmocka_unit_test(the_size_on_disk_does_not_move_into_a_hole),
		cmocka_unit_test(dirty_pages_beyond_the_limit_wait_for_writeback),
		cmocka_unit_test(clean_pages_make_way_and_read_ones_stay_longest),
	};

	rig_pattern(pattern, 0, sizeof(pattern), 3);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
