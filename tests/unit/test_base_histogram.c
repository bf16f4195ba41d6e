/* SPDX-License-Identifier: MIT */
/* Histograms of durations: which bucket, what an interval holds, and quantiles. */
#include "sluice/histogram.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static unsigned int bucket_of(uint64_t ns)
{
	struct slu_histogram h = {0};
	struct slu_histogram_view v;

	slu_histogram_add(&h, ns);
	slu_histogram_read(&h, &v);
	assert_int_equal(v.count, 1);
	assert_int_equal(v.total_ns, ns);
	for (unsigned int i = 0; i < SLU_HISTOGRAM_BUCKETS; i++)
		if (v.buckets[i])
			return i;
	fail_msg("%llu ns is in no bucket", (unsigned long long)ns);
	return 0;
}

static void a_bucket_holds_what_does_not_exceed_its_end(void **state)
{
	(void)state;
	assert_int_equal(bucket_of(0), 0);
	for (unsigned int i = 0; i + 1 < SLU_HISTOGRAM_BUCKETS; i++) {
		assert_int_equal(slu_histogram_end_ns(i), 1000ull << i);
		assert_int_equal(bucket_of(slu_histogram_end_ns(i)), i);
		assert_int_equal(bucket_of(slu_histogram_end_ns(i) + 1), i + 1);
	}
	assert_int_equal(slu_histogram_end_ns(SLU_HISTOGRAM_BUCKETS - 1), UINT64_MAX);
	assert_int_equal(bucket_of(UINT64_MAX), SLU_HISTOGRAM_BUCKETS - 1);
}

static void an_interval_is_the_difference_of_two_looks(void **state)
{
	struct slu_histogram h = {0};
	struct slu_histogram_view before, after, d;

	(void)state;
	slu_histogram_add(&h, 500);
	slu_histogram_add(&h, 3000);
	slu_histogram_read(&h, &before);
	slu_histogram_add(&h, 3000);
	slu_histogram_add(&h, 100000);
	slu_histogram_read(&h, &after);
	slu_histogram_between(&before, &after, &d);
	assert_int_equal(d.count, 2);
	assert_int_equal(d.total_ns, 103000);
	assert_int_equal(d.buckets[0], 0);
	assert_int_equal(d.buckets[2], 1);
	assert_int_equal(d.buckets[7], 1);
}

static void assert_about(double got, double expected)
{
	if (got < expected * 0.999999 || got > expected * 1.000001)
		fail_msg("%f, not %f", got, expected);
}

static void quantiles_are_those_of_prometheus(void **state)
{
	struct slu_histogram_view v = {0};

	(void)state;
	assert_true(slu_histogram_quantile(&v, 0.99) == 0);
	/* 90 up to 1 us, 9 in (2, 4], 1 in (64, 128]: as histogram_quantile() computes them. */
	v.count = 100;
	v.buckets[0] = 90;
	v.buckets[2] = 9;
	v.buckets[7] = 1;
	assert_about(slu_histogram_quantile(&v, 0.45), 500);
	assert_about(slu_histogram_quantile(&v, 0.9), 1000);
	assert_about(slu_histogram_quantile(&v, 0.99), 4000);
	assert_about(slu_histogram_quantile(&v, 0.995), 96000);
	assert_about(slu_histogram_quantile(&v, 1), 128000);
	/* The last bucket has no end. */
	v = (struct slu_histogram_view){.count = 1};
	v.buckets[SLU_HISTOGRAM_BUCKETS - 1] = 1;
	assert_about(slu_histogram_quantile(&v, 0.99),
		     (double)slu_histogram_end_ns(SLU_HISTOGRAM_BUCKETS - 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bucket_holds_what_does_not_exceed_its_end),
		cmocka_unit_test(an_interval_is_the_difference_of_two_looks),
		cmocka_unit_test(quantiles_are_those_of_prometheus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
