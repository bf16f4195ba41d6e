/* SPDX-License-Identifier: MIT */
/* Allocation and its faults, stress points, needs, clocks and random numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sluice/base.h"
#include "test_base_abort.h"

/* ------------------------------------------------------------------ allocation */

static void each_kind_of_allocation_gives_what_it_says(void **state)
{
	static const char text[] = "text";
	unsigned char *zeros = slu_zalloc(300), *array = slu_calloc(30, 10);
	char *copy = slu_memdup(text, sizeof(text));
	void *empty = slu_alloc(0), *none = slu_memdup(NULL, 0);
	void *page = slu_alloc_aligned(4096, 8192), *byte = slu_alloc_aligned(1, 1);

	assert_non_null(empty);
	assert_non_null(none);
	assert_non_null(byte);
	assert_string_equal(copy, text);
	for (int i = 0; i < 300; i++)
		assert_true(zeros[i] == 0 && array[i] == 0);
	assert_non_null(page);
	assert_int_equal((uintptr_t)page % 4096, 0);
	memset(page, 1, 8192);
	slu_free(zeros);
	slu_free(array);
	slu_free(copy);
	slu_free(empty);
	slu_free(none);
	slu_free(page);
	slu_free(byte);
	slu_free(NULL);
}

static void sizes_that_cannot_be_give_null(void **state)
{
	volatile size_t huge = SIZE_MAX, half = SIZE_MAX / 2 + 1;

	assert_null(slu_alloc(huge));
	assert_null(slu_calloc(half, 2));
	assert_null(slu_calloc(half, 1));
	assert_null(slu_alloc_aligned(4096, huge));
}

static void the_nth_allocation_fails_once(void **state)
{
	for (uint64_t nth = 1; nth <= 6; nth++) {
		slu_alloc_fail_nth(nth);
		for (uint64_t i = 1; i <= 8; i++) {
			void *p = i % 5 == 0   ? slu_memdup("x", 1)
				  : i % 4 == 0 ? slu_alloc_aligned(64, 64)
				  : i % 3 == 0 ? slu_zalloc(1)
				  : i % 2 == 0 ? slu_calloc(1, 1)
					       : slu_alloc(1);

			assert_int_equal(p == NULL, i == nth);
			slu_free(p);
		}
		assert_int_equal(slu_alloc_count(), 8);
	}
	slu_alloc_fail_nth(0);
	assert_int_equal(slu_alloc_count(), 0);
}

static void allocate_thrice(void *arg)
{
	bool *ok = arg;

	*ok = true;
	for (int i = 0; i < 3; i++) {
		void *p = slu_alloc(1);

		*ok = *ok && p;
		slu_free(p);
	}
	*ok = *ok && slu_alloc_count() == 3;
}

static void a_fault_hits_no_other_thread(void **state)
{
	struct slu_thread t;
	bool ok = false;

	slu_alloc_fail_nth(2); /* the first is slu_thread_start's own */
	assert_int_equal(slu_thread_start(&t, "other", allocate_thrice, &ok), 0);
	slu_thread_join(&t);
	assert_true(ok);
	assert_null(slu_alloc(1));
}

/* ------------------------------------------------------------------ stress points */

static void count_hit(void *ctx)
{
	++*(int *)ctx;
}

static void move_to_other_point(void *ctx)
{
	++*(int *)ctx;
	slu_stress_point_set("test.first", NULL, NULL);
	slu_stress_point_set("test.second", count_hit, ctx);
}

static void need_stress_points(void)
{
#ifndef SLU_STRESS_POINTS
	print_message("SKIPPED: built without SLU_STRESS_POINTS\n");
	assert_int_equal(slu_stress_point_set("x", count_hit, NULL), -EOPNOTSUPP);
	skip();
#endif
}

static void a_stress_point_calls_what_hangs_on_its_name(void **state)
{
	int a = 0, b = 0;

	need_stress_points();
	slu_stress_point("test.first");
	assert_int_equal(slu_stress_point_set("test.first", count_hit, &a), 0);
	slu_stress_point("test.first");
	slu_stress_point("test.firs");
	slu_stress_point("test.first2");
	assert_int_equal(a, 1);
	assert_int_equal(slu_stress_point_set("test.first", count_hit, &b), 0);
	slu_stress_point("test.first");
	assert_int_equal(a, 1);
	assert_int_equal(b, 1);
	assert_int_equal(slu_stress_point_set("test.first", NULL, NULL), 0);
	assert_int_equal(slu_stress_point_set("test.first", NULL, NULL), 0);
	slu_stress_point("test.first");
	assert_int_equal(b, 1);
}

static void a_hook_may_set_other_points(void **state)
{
	int hits = 0;

	need_stress_points();
	assert_int_equal(slu_stress_point_set("test.first", move_to_other_point, &hits), 0);
	slu_stress_point("test.first");
	slu_stress_point("test.first");
	assert_int_equal(hits, 1);
	slu_stress_point("test.second");
	assert_int_equal(hits, 2);
	slu_stress_point_set("test.second", NULL, NULL);
}

static void there_is_a_limit_of_points_and_names(void **state)
{
	char name[80];
	int hits = 0, i;

	need_stress_points();
	memset(name, 'x', sizeof(name));
	name[64] = '\0';
	assert_int_equal(slu_stress_point_set(name, count_hit, &hits), -ENAMETOOLONG);
	name[63] = '\0';
	assert_int_equal(slu_stress_point_set(name, count_hit, &hits), 0);
	slu_stress_point(name);
	assert_int_equal(hits, 1);
	assert_int_equal(slu_stress_point_set(name, NULL, NULL), 0);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "test.%d", i);
		if (slu_stress_point_set(name, count_hit, &hits))
			break;
	}
	assert_int_equal(i, 64);
	assert_int_equal(slu_stress_point_set("test.one more", count_hit, &hits), -ENOSPC);
	assert_int_equal(slu_stress_point_set("test.63", count_hit, &hits), 0);
	while (i-- > 0) {
		snprintf(name, sizeof(name), "test.%d", i);
		assert_int_equal(slu_stress_point_set(name, NULL, NULL), 0);
	}
	assert_int_equal(slu_stress_point_set("test.one more", count_hit, &hits), 0);
	assert_int_equal(slu_stress_point_set("test.one more", NULL, NULL), 0);
}

/* ------------------------------------------------------------------ needs */

static int fail_third_time(struct slu_need *need)
{
	return need->arg[0]-- == 0 ? (int)need->arg[1] : 0;
}

static void a_need_answers_what_its_wait_does(void **state)
{
	struct slu_need need = {.wait = fail_third_time, .what = "test", .arg = {2, -EIO}};

	for (int i = 0; i < 3; i++) {
		need.wait = fail_third_time;
		assert_int_equal(slu_need_wait(&need), i < 2 ? 0 : -EIO);
		/* Used up: a second wait for the same need would be a bug. */
		assert_null(need.wait);
	}
}

static void wait_for_empty_need(void)
{
	struct slu_need need = {.wait = NULL};

	slu_need_wait(&need);
}

static void a_need_that_nobody_filled_in_aborts(void **state)
{
	expect_abort_saying(wait_for_empty_need, "slu_need_wait", "assertion failed");
}

/* ------------------------------------------------------------------ clocks, random, arithmetic */

static void clocks_go_on(void **state)
{
	uint64_t start = slu_clock_ns();
	struct timespec wall = slu_clock_realtime(), now;

	slu_sleep_ns(5 * SLU_NS_PER_MS);
	assert_true(slu_clock_ns() >= start + 5 * SLU_NS_PER_MS);
	clock_gettime(CLOCK_REALTIME, &now);
	assert_true(now.tv_sec - wall.tv_sec < 60);
	assert_true(wall.tv_nsec >= 0 && wall.tv_nsec < (long)SLU_NS_PER_SEC);
}

static void random_numbers_differ(void **state)
{
	uint64_t ones = 0, zeros = 0;

	for (int i = 0; i < 100; i++) {
		uint64_t n = slu_random();

		ones |= n;
		zeros |= ~n;
	}
	assert_true(ones == UINT64_MAX && zeros == UINT64_MAX);
}

static void rounding_is_exact(void **state)
{
	assert_int_equal(slu_round_up(0, 4096), 0);
	assert_int_equal(slu_round_up(1, 4096), 4096);
	assert_int_equal(slu_round_up(4096, 4096), 4096);
	assert_int_equal(slu_round_down(4095, 4096), 0);
	assert_int_equal(slu_bytes_to_blocks(0), 0);
	assert_int_equal(slu_bytes_to_blocks(1), 1);
	assert_int_equal(slu_bytes_to_blocks(4096), 1);
	assert_int_equal(slu_bytes_to_blocks(4097), 2);
	assert_true(slu_bytes_to_blocks(UINT64_MAX) == UINT64_MAX / 4096 + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_of_allocation_gives_what_it_says),
		cmocka_unit_test(sizes_that_cannot_be_give_null),
		cmocka_unit_test(the_nth_allocation_fails_once),
		cmocka_unit_test(a_fault_hits_no_other_thread),
		cmocka_unit_test(a_stress_point_calls_what_hangs_on_its_name),
		cmocka_unit_test(a_hook_may_set_other_points),
		cmocka_unit_test(there_is_a_limit_of_points_and_names),
		cmocka_unit_test(a_need_answers_what_its_wait_does),
		cmocka_unit_test(a_need_that_nobody_filled_in_aborts),
		cmocka_unit_test(clocks_go_on),
		cmocka_unit_test(random_numbers_differ),
		cmocka_unit_test(rounding_is_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
