/* SPDX-License-Identifier: MIT */
/*
 * Each order in which two operations on one page can meet, made certain by a stress point: the
 * first stops in its race window while the second runs, or tries to.
 */
#include "pages_rig.h"

static unsigned char pattern[16 * PAGE], other[16 * PAGE], back[16 * PAGE];

/* What runs in the window, once. */
struct window {
	struct rig *r;
	const char *point;
	void (*fn)(struct window *w); /* on a thread of its own */
	bool finishes;                /* inside the window; else it has to wait for the first */
	struct slu_thread thread;
	_Atomic bool entered, done;
	int64_t result;
};

static void window_thread(void *arg)
{
	struct window *w = arg;

	w->fn(w);
	atomic_store(&w->done, true);
}

static void window_hit(void *arg)
{
	struct window *w = arg;

	if (atomic_exchange(&w->entered, true))
		return;
	must_eq(slu_thread_start(&w->thread, "window", window_thread, w), 0);
	if (w->finishes) {
		while (!atomic_load(&w->done))
			slu_sleep_ns(100000);
	} else {
		slu_sleep_ns(20 * SLU_NS_PER_MS);
		must(!atomic_load(&w->done));
	}
}

static void window_open(struct window *w)
{
	must_eq(slu_stress_point_set(w->point, window_hit, w), 0);
}

static void window_close(struct window *w)
{
	must(atomic_load(&w->entered));
	slu_thread_join(&w->thread);
	must(atomic_load(&w->done));
	must_eq(slu_stress_point_set(w->point, NULL, NULL), 0);
}

static void do_truncate(struct window *w)
{
	w->result = rig_truncate(w->r, 100);
}

static void do_punch(struct window *w)
{
	w->result = rig_punch(w->r, 0, 2 * PAGE);
}

static void do_write(struct window *w)
{
	rig_write(w->r, 0, other, 4 * PAGE);
}

static void do_append(struct window *w)
{
	rig_write(w->r, 150, other, 50);
}

static void do_read(struct window *w)
{
	w->result = rig_read(w->r, 0, back, 8 * PAGE);
}

static void do_sync(struct window *w)
{
	w->result = rig_sync(w->r);
}

static void do_drop(struct window *w)
{
	slu_rwlock_wrlock(&w->r->as.lock);
	must_eq(slu_pages_drop(&w->r->as, 0, UINT64_MAX), 0);
	w->result = w->r->as.npages;
	slu_rwlock_wrunlock(&w->r->as.lock);
}

static void do_evict(struct window *w)
{
	struct slu_frames fr = SLU_FRAMES_INIT(w->r->cache);
	struct slu_need need;

	/* Evicts everything that can be. */
	(void)slu_frames_claim(&fr, 220, 0, 0, &need);
	slu_frames_release(&fr);
}

static void new_rig(struct rig *r, bool on_disk, bool cached)
{
	rig_init(r, &(struct rig_opts){.cache_bytes = 1u << 20});
	rig_write(r, 0, pattern, 8 * PAGE);
	if (on_disk)
		must_eq(rig_sync(r), 0);
	if (!cached)
		rig_drop_clean(r);
}

static void expect(struct rig *r, const unsigned char *bytes, uint64_t size)
{
	must_eq(rig_read(r, 0, back, sizeof(back)), size);
	must(memcmp(back, bytes, size) == 0);
	must_eq(rig_sync(r), 0);
	rig_check(r);
	rig_drop_clean(r);
	must_eq(rig_read(r, 0, back, sizeof(back)), size);
	must(memcmp(back, bytes, size) == 0);
	must_eq(rig_disk_size(r), size);
	must_eq(rig_fini(r), 0);
}

/* ------------------------------------------------------------------ a write under way */

static void truncate_waits_for_the_segment_and_wins(void **state)
{
	static const char *const points[] = {"write.before_publish", "write.before_finish"};

	for (size_t i = 0; i < slu_array_size(points); i++) {
		struct rig r;
		struct window w = {.r = &r, .point = points[i], .fn = do_truncate};

		new_rig(&r, true, true);
		window_open(&w);
		rig_write(&r, 0, other, 4 * PAGE);
		window_close(&w);
		must_eq(w.result, 0);
		expect(&r, other, 100);
	}
}

static void a_reader_waits_for_the_segment(void **state)
{
	struct rig r;
	struct window w = {.r = &r, .point = "write.before_finish", .fn = do_read};

	new_rig(&r, true, true);
	window_open(&w);
	rig_write(&r, 0, other, 8 * PAGE);
	window_close(&w);
	must_eq(w.result, 8 * PAGE);
	must(memcmp(back, other, 8 * PAGE) == 0);
	expect(&r, other, 8 * PAGE);
}

/* The locked tail is in the cache, in a hole; nobody can see it before it is finished. */
static void nobody_sees_the_tail_before_it_is_finished(void **state)
{
	struct rig r;
	struct window w = {.r = &r, .point = "write.tail_locked", .fn = do_read};

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	must_eq(rig_truncate(&r, PAGE + 10), 0);
	window_open(&w);
	rig_write(&r, 0, other, PAGE + 10);
	window_close(&w);
	must_eq(w.result, PAGE + 10);
	must_eq(slu_cache_stats(r.cache)->tail_locks, 1);
	expect(&r, other, PAGE + 10);
}

static void writeback_and_eviction_pass_by_a_locked_tail(void **state)
{
	for (int evict = 0; evict < 2; evict++) {
		struct rig r;
		struct window w = {.r = &r,
				   .point = "write.tail_locked",
				   .fn = evict ? do_evict : do_sync,
				   .finishes = true};

		rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
		window_open(&w);
		rig_write(&r, 0, other, PAGE + 10);
		window_close(&w);
		must_eq(w.result, 0);
		expect(&r, other, PAGE + 10);
	}
}

/* Else the inode could go while eviction still has to tell it. */
static void pages_in_hand_of_eviction_stay_on_the_list(void **state)
{
	struct rig r;
	struct window w = {.r = &r, .point = "evict.in_hand", .fn = do_drop, .finishes = true};

	new_rig(&r, true, true);
	do_evict(&w); /* the second chance of those that have been read */
	rig_read(&r, 0, back, 8 * PAGE);
	window_open(&w);
	do_evict(&w);
	window_close(&w);
	must(w.result > 0);
	must_eq(r.as.npages, 0);
	expect(&r, pattern, 8 * PAGE);
}

/*
 * A truncate whose size cannot be recorded has changed nothing, and writeback, which waits for it,
 * goes on; one that works is waited for all the same, and what it has dropped is not written.
 */
static void writeback_waits_for_a_truncate(void **state)
{
	for (int fails = 0; fails < 2; fails++) {
		struct rig r;
		struct window w = {.r = &r, .point = "truncate.before_size", .fn = do_sync};
		struct rig_cut cut = {.r = &r, .size = 100, .err = fails ? -EIO : 0};
		struct slu_need need;

		new_rig(&r, true, true);
		rig_write(&r, 0, other, 8 * PAGE);
		window_open(&w);
		slu_rwlock_wrlock(&r.as.lock);
		must_eq(slu_pages_truncate(&r.as, r.bio, 100, rig_set_size, &cut, &need), cut.err);
		slu_rwlock_wrunlock(&r.as.lock);
		window_close(&w);
		must_eq(w.result, 0);
		if (fails) {
			expect(&r, other, 8 * PAGE);
		} else {
			must_eq(r.as.npages, 1);
			must_eq(rig_truncate(&r, 100), 0); /* and the blocks */
			expect(&r, other, 100);
		}
	}
}

/* Between two segments anything may happen: what comes after goes where it was to go. */
static void truncate_while_the_source_is_waited_for(void **state)
{
	struct rig r;
	struct window w = {.r = &r,
			   .point = "write.before_fault_in",
			   .fn = do_truncate,
			   .finishes = true};
	struct iovec iov = {.iov_base = other, .iov_len = 2 * PAGE};
	static unsigned char want[4 * PAGE];
	struct slu_source_buffer src;
	struct slu_write_result res;

	/* A source that ends too early is waited for as well, before that is known. */
	new_rig(&r, true, true);
	window_open(&w);
	slu_source_buffer_init(&src, &iov, 1);
	must_eq(slu_write(&r.as, &src.source, PAGE, 4 * PAGE, 0, &res, NULL), 0);
	window_close(&w);
	must_eq(res.done, 2 * PAGE);
	memcpy(want, pattern, 100);
	expect(&r, want, 100);
}

/* ------------------------------------------------------------------ writeback under way */

static void truncate_waits_for_writeback_of_what_it_frees(void **state)
{
	static const char *const points[] = {"writeback.before_submit", "writeback.before_complete",
					     "writeback.before_end", "writeback.before_frames"};

	for (size_t i = 0; i < slu_array_size(points); i++)
		for (int punch = 0; punch < 2; punch++) {
			struct rig r;
			struct window w = {.r = &r,
					   .point = points[i],
					   .fn = punch ? do_punch : do_truncate};
			static unsigned char want[8 * PAGE];

			new_rig(&r, false, true);
			window_open(&w);
			must_eq(rig_sync(&r), 0);
			window_close(&w);
			must_eq(w.result, 0);
			memcpy(want, pattern, sizeof(want));
			memset(want, 0, 2 * PAGE);
			if (punch)
				expect(&r, want, 8 * PAGE);
			else
				expect(&r, pattern, 100);
		}
}

/* Found dirty, dropped before it was marked. */
static void truncate_before_the_mark_leaves_nothing_to_write(void **state)
{
	struct rig r;
	struct window w = {.r = &r,
			   .point = "writeback.before_mark",
			   .fn = do_truncate,
			   .finishes = true};

	new_rig(&r, false, true);
	window_open(&w);
	must_eq(rig_sync(&r), 0);
	window_close(&w);
	must_eq(w.result, 0);
	expect(&r, pattern, 100);
}

static void a_page_that_is_written_again_meanwhile_stays_dirty(void **state)
{
	static const char *const points[] = {"writeback.before_mark", "writeback.before_frames",
					     "writeback.before_submit", "writeback.before_complete",
					     "writeback.before_end"};

	for (size_t i = 0; i < slu_array_size(points); i++) {
		struct rig r;
		struct window w = {.r = &r, .point = points[i], .fn = do_write, .finishes = true};
		static unsigned char want[8 * PAGE];

		new_rig(&r, false, true);
		window_open(&w);
		must_eq(slu_writeback_range(r.wb, &r.as, 0, UINT64_MAX), 0);
		window_close(&w);
		if (i)
			must_eq(slu_cache_stats(r.cache)->dirty, 4);
		memcpy(want, pattern, sizeof(want));
		memcpy(want, other, 4 * PAGE);
		expect(&r, want, 8 * PAGE);
	}
}

/* 100 bytes are being written, 50 are added behind a gap: the size on disk covers the 100. */
static void bytes_added_to_a_page_under_writeback_do_not_count(void **state)
{
	static const char *const points[] = {"writeback.before_frames", "writeback.before_submit",
					     "writeback.before_complete"};

	for (size_t i = 0; i < slu_array_size(points); i++) {
		struct rig r;
		struct window w = {.r = &r, .point = points[i], .fn = do_append, .finishes = true};
		static unsigned char want[200];

		rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
		rig_write(&r, 0, pattern, 100);
		window_open(&w);
		must_eq(slu_writeback_range(r.wb, &r.as, 0, UINT64_MAX), 0);
		window_close(&w);
		must_eq(rig_disk_size(&r), 100);
		must_eq(slu_aspace_size(&r.as), 200);
		memcpy(want, pattern, 100);
		memset(want + 100, 0, 50);
		memcpy(want + 150, other, 50);
		expect(&r, want, 200);
	}
}

static void do_sync_second_half(struct window *w)
{
	w->result = slu_writeback_range(w->r->wb, &w->r->as, 4 * PAGE, 8 * PAGE);
}

/* Each works out the size on disk from what the other has done, or one of them is forgotten. */
static void two_passes_over_a_file_record_one_after_the_other(void **state)
{
	struct rig r;
	struct window w = {.r = &r,
			   .point = "writeback.before_complete",
			   .fn = do_sync_second_half};

	new_rig(&r, false, true);
	window_open(&w);
	must_eq(slu_writeback_range(r.wb, &r.as, 0, 4 * PAGE), 0);
	window_close(&w);
	must_eq(w.result, 0);
	must_eq(rig_disk_size(&r), 8 * PAGE);
	expect(&r, pattern, 8 * PAGE);
}

/* ------------------------------------------------------------------ a read under way */

static void a_read_that_truncate_overtakes_looks_again(void **state)
{
	static const char *const points[] = {"read.before_submit", "read.before_uptodate"};

	for (size_t i = 0; i < slu_array_size(points); i++) {
		struct rig r;
		struct window w = {.r = &r, .point = points[i], .fn = do_punch, .finishes = true};
		static unsigned char want[8 * PAGE];

		new_rig(&r, true, false);
		window_open(&w);
		must_eq(rig_read(&r, 0, back, 8 * PAGE), 8 * PAGE);
		window_close(&w);
		must_eq(w.result, 0);
		memcpy(want, pattern, sizeof(want));
		memset(want, 0, 2 * PAGE);
		must(memcmp(back, want, sizeof(want)) == 0);
		expect(&r, want, 8 * PAGE);
	}
}

/* The page of the new end is being read: that is waited for, and what lies behind is zero after. */
static void truncate_waits_for_a_read_of_its_edge(void **state)
{
	struct rig r;
	struct window w = {.r = &r, .point = "read.before_uptodate", .fn = do_truncate};

	new_rig(&r, true, false);
	window_open(&w);
	must(rig_read(&r, 0, back, 8 * PAGE) >= 100);
	window_close(&w);
	must_eq(w.result, 0);
	must_eq(rig_truncate(&r, 2 * PAGE), 0);
	must_eq(rig_read(&r, 0, back, 2 * PAGE), 2 * PAGE);
	must(memcmp(back, pattern, 100) == 0);
	for (size_t i = 100; i < 2 * PAGE; i++)
		must_eq(back[i], 0);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static void a_write_overtakes_a_read_of_the_same_pages(void **state)
{
	static const char *const points[] = {"read.before_submit", "read.before_uptodate"};

	for (size_t i = 0; i < slu_array_size(points); i++) {
		struct rig r;
		struct window w = {.r = &r, .point = points[i], .fn = do_write, .finishes = true};
		static unsigned char want[8 * PAGE];

		new_rig(&r, true, false);
		window_open(&w);
		must_eq(rig_read(&r, 0, back, 8 * PAGE), 8 * PAGE);
		window_close(&w);
		memcpy(want, pattern, sizeof(want));
		memcpy(want, other, 4 * PAGE);
		must(memcmp(back, want, sizeof(want)) == 0);
		expect(&r, want, 8 * PAGE);
	}
}

/* A request that fails says so page by page; who reads meanwhile shares its end. */
static void wait_for_requests(struct rig *r)
{
	uint32_t n;

	do {
		slu_sleep_ns(100000);
		slu_mutex_lock(&r->as.tags);
		n = r->as.nreads;
		slu_mutex_unlock(&r->as.tags);
	} while (n);
}

/* And the read failing afterwards takes nothing away. */
static void a_write_outlives_a_read_of_the_same_pages_that_fails(void **state)
{
	struct rig r;
	struct window w = {.r = &r,
			   .point = "read.before_uptodate",
			   .fn = do_write,
			   .finishes = true};
	static unsigned char want[8 * PAGE];

	new_rig(&r, true, false);
	slu_simdisk_fault(r.disk, &(struct slu_simdisk_fault){.op = SLU_IO_READ,
							      .nth = 1,
							      .times = 1,
							      .kind = SLU_FAULT_ERROR,
							      .error = -EIO});
	window_open(&w);
	must_eq(rig_read(&r, 0, back, 8 * PAGE), -EIO);
	window_close(&w);
	wait_for_requests(&r);
	memcpy(want, pattern, sizeof(want));
	memcpy(want, other, 4 * PAGE);
	must_eq(slu_cache_stats(r.cache)->dirty, 4);
	expect(&r, want, 8 * PAGE);
}

/* The page has been read; before its frame is referenced it is replaced. */
static void a_reader_that_waited_sees_the_page_whole(void **state)
{
	struct rig r;
	struct window w = {.r = &r, .point = "read.before_frame", .fn = do_write, .finishes = true};

	new_rig(&r, true, false);
	window_open(&w);
	must_eq(rig_read(&r, 0, back, PAGE), PAGE);
	window_close(&w);
	must(memcmp(back, other, PAGE) == 0 || memcmp(back, pattern, PAGE) == 0);
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static int need_stress_points(void **state)
{
	if (slu_stress_point_set("none", NULL, NULL) == -EOPNOTSUPP) {
		print_message("this build has no stress points\n");
		exit(0);
	}
	rig_pattern(pattern, 0, sizeof(pattern), 3);
	rig_pattern(other, 0, sizeof(other), 4);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(truncate_waits_for_the_segment_and_wins),
		cmocka_unit_test(a_reader_waits_for_the_segment),
		cmocka_unit_test(nobody_sees_the_tail_before_it_is_finished),
		cmocka_unit_test(writeback_and_eviction_pass_by_a_locked_tail),
		cmocka_unit_test(pages_in_hand_of_eviction_stay_on_the_list),
		cmocka_unit_test(writeback_waits_for_a_truncate),
		cmocka_unit_test(truncate_while_the_source_is_waited_for),
		cmocka_unit_test(truncate_waits_for_writeback_of_what_it_frees),
		cmocka_unit_test(truncate_before_the_mark_leaves_nothing_to_write),
		cmocka_unit_test(a_page_that_is_written_again_meanwhile_stays_dirty),
		cmocka_unit_test(bytes_added_to_a_page_under_writeback_do_not_count),
		cmocka_unit_test(two_passes_over_a_file_record_one_after_the_other),
		cmocka_unit_test(a_read_that_truncate_overtakes_looks_again),
		cmocka_unit_test(truncate_waits_for_a_read_of_its_edge),
		cmocka_unit_test(a_write_overtakes_a_read_of_the_same_pages),
		cmocka_unit_test(a_write_outlives_a_read_of_the_same_pages_that_fails),
		cmocka_unit_test(a_reader_that_waited_sees_the_page_whole),
	};

	return cmocka_run_group_tests(tests, need_stress_points, NULL);
}
