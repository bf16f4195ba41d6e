/* SPDX-License-Identifier: MIT */
/* The slowest requests: what a watch is told, and what it costs who nobody watches. */
#include "fuse_private.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct slu_session s; /* of it only what slow.c works on */

static int setup(void **state)
{
	slow_init(&s.slow);
	*state = &s;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	slow_fini(&s.slow);
	return 0;
}

static void note(uint64_t ino, uint64_t ns)
{
	slow_note(&s.slow, ino, FUSE_READ, ns);
}

/* ends with inode 0 */
static void assert_taken(struct slu_slow_watch *w, const struct slu_slow_request *expected)
{
	struct slu_slow_request got[SLU_SLOW_MAX];
	unsigned int n = slu_session_slow_take(&s, w, got), i;

	for (i = 0; expected[i].ino; i++) {
		assert_true(i < n);
		assert_int_equal(got[i].ino, expected[i].ino);
		assert_int_equal(got[i].ns, expected[i].ns);
	}
	assert_int_equal(n, i);
}

static void of_each_inode_the_slowest_is_told_slowest_first(void **state)
{
	struct slu_slow_watch w;

	(void)state;
	slu_session_slow_watch(&s, &w);
	note(5, 100);
	note(6, 300);
	note(7, 200);
	note(5, 250);
	note(6, 10);
	note(0, 1000); /* about no inode */
	assert_taken(&w, (struct slu_slow_request[]){{6, 300, 0}, {5, 250, 0}, {7, 200, 0}, {0}});
	/* The next interval begins with nothing. */
	assert_taken(&w, (struct slu_slow_request[]){{0}});
	note(7, 1);
	assert_taken(&w, (struct slu_slow_request[]){{7, 1, 0}, {0}});
	slu_session_slow_unwatch(&s, &w);
}

static void the_operation_is_that_of_the_slowest(void **state)
{
	struct slu_slow_request got[SLU_SLOW_MAX];
	struct slu_slow_watch w;

	(void)state;
	slu_session_slow_watch(&s, &w);
	slow_note(&s.slow, 9, FUSE_READ, 50);
	slow_note(&s.slow, 9, FUSE_FSYNC, 70);
	slow_note(&s.slow, 9, FUSE_WRITE, 60);
	assert_int_equal(slu_session_slow_take(&s, &w, got), 1);
	assert_int_equal(got[0].opcode, FUSE_FSYNC);
	slu_session_slow_unwatch(&s, &w);
}

static void with_more_inodes_than_room_the_slowest_stay(void **state)
{
	struct slu_slow_request got[SLU_SLOW_MAX];
	enum { N = 10 * SLU_SLOW_MAX };
	struct slu_slow_watch w;

	(void)state;
	slu_session_slow_watch(&s, &w);
	/* In an order that is neither up nor down: 7 and N have no common divisor but 1. */
	for (uint64_t i = 1; i < N; i++)
		note(i * 7 % N, i * 7 % N);
	assert_int_equal(slu_session_slow_take(&s, &w, got), SLU_SLOW_MAX);
	for (unsigned int i = 0; i < SLU_SLOW_MAX; i++) {
		assert_int_equal(got[i].ino, N - 1 - i);
		assert_int_equal(got[i].ns, N - 1 - i);
	}
	slu_session_slow_unwatch(&s, &w);
}

static void watches_do_not_take_from_each_other(void **state)
{
	struct slu_slow_watch a, b;

	(void)state;
	slu_session_slow_watch(&s, &a);
	note(1, 10);
	slu_session_slow_watch(&s, &b);
	note(2, 20);
	assert_taken(&a, (struct slu_slow_request[]){{2, 20, 0}, {1, 10, 0}, {0}});
	note(3, 5);
	assert_taken(&b, (struct slu_slow_request[]){{2, 20, 0}, {3, 5, 0}, {0}});
	slu_session_slow_unwatch(&s, &a);
	note(4, 1);
	assert_taken(&b, (struct slu_slow_request[]){{4, 1, 0}, {0}});
	slu_session_slow_unwatch(&s, &b);
}

static uint64_t least(void)
{
	return atomic_load(&s.slow.least_ns);
}

static void what_is_in_no_table_is_let_go_at_once(void **state)
{
	struct slu_slow_watch a, b;

	(void)state;
	assert_int_equal(least(), UINT64_MAX);
	slu_session_slow_watch(&s, &a);
	assert_int_equal(least(), 0);
	for (uint64_t i = 1; i <= SLU_SLOW_MAX; i++)
		note(i, 1000 + i);
	assert_int_equal(least(), 1001);
	/* One that has just begun wants everything, until it has gone. */
	slu_session_slow_watch(&s, &b);
	assert_int_equal(least(), 0);
	slu_session_slow_unwatch(&s, &b);
	assert_int_equal(least(), 1001);
	slu_session_slow_unwatch(&s, &a);
	assert_int_equal(least(), UINT64_MAX);
}

/* ------------------------------------------------------------------ from many threads */

#define THREADS 4u
#define ROUNDS  20000u

static _Atomic unsigned int running;

static void requests(void *arg)
{
	uint64_t n = *(const uint64_t *)arg;

	for (uint64_t i = 1; i <= ROUNDS; i++)
		note(n * 100 + i % 50, i);
	atomic_fetch_sub(&running, 1);
}

static void threads_lose_nothing_that_is_slowest(void **state)
{
	struct slu_slow_request got[SLU_SLOW_MAX];
	uint64_t numbers[THREADS], most[THREADS] = {0};
	struct slu_thread threads[THREADS];
	struct slu_slow_watch w, other;

	(void)state;
	slu_session_slow_watch(&s, &w);
	atomic_store(&running, THREADS);
	for (unsigned int i = 0; i < THREADS; i++) {
		numbers[i] = i + 1;
		assert_int_equal(slu_thread_start(&threads[i], "requests", requests, &numbers[i]),
				 0);
	}
	for (bool last = false; !last;) {
		unsigned int n;

		last = !atomic_load(&running); /* nobody notes any more: what is taken now is all */
		slu_session_slow_watch(&s, &other);
		slu_session_slow_unwatch(&s, &other);
		n = slu_session_slow_take(&s, &w, got);
		for (unsigned int i = 0; i < n; i++) {
			uint64_t *m = &most[got[i].ino / 100 - 1];

			assert_true(!i || got[i].ns <= got[i - 1].ns);
			*m = slu_max(*m, got[i].ns);
		}
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		slu_thread_join(&threads[i]);
		assert_int_equal(most[i], ROUNDS);
	}
	slu_session_slow_unwatch(&s, &w);
}

#define slow(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		slow(of_each_inode_the_slowest_is_told_slowest_first),
		slow(the_operation_is_that_of_the_slowest),
		slow(with_more_inodes_than_room_the_slowest_stay),
		slow(watches_do_not_take_from_each_other),
		slow(what_is_in_no_table_is_let_go_at_once),
		slow(threads_lose_nothing_that_is_slowest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
