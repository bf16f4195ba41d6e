/* SPDX-License-Identifier: MIT */
/* The pool that sets of ranges share, from several threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "sluice/base.h"

struct shared_pool {
	struct slu_range_pool pool;
	uint64_t errors;
};

static void churn(void *arg)
{
	struct shared_pool *shared = arg;
	uint64_t errors = 0;
	struct slu_ranges s;

	slu_ranges_init(&s, &shared->pool, true);
	for (uint64_t i = 0; i < 5000; i++) {
		errors += slu_ranges_set(&s, i * 7 % 1000, i * 7 % 1000 + 3, i) != 0;
		errors += slu_ranges_clear(&s, i * 13 % 1000, i * 13 % 1000 + 1) != 0;
	}
	slu_ranges_fini(&s);
	slu_mutex_lock(&shared->pool.lock);
	shared->errors += errors;
	slu_mutex_unlock(&shared->pool.lock);
}

static void a_pool_serves_several_threads(void **state)
{
	struct shared_pool shared = {.errors = 0};
	struct slu_thread threads[3];

	assert_int_equal(slu_range_pool_init(&shared.pool, 10, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(slu_thread_start(&threads[i], "churn", churn, &shared), 0);
	for (int i = 0; i < 3; i++)
		slu_thread_join(&threads[i]);
	assert_int_equal(shared.errors, 0);
	assert_int_equal(shared.pool.nfree, shared.pool.ntotal);
	slu_range_pool_fini(&shared.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_serves_several_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
