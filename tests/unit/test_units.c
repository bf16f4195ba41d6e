/* SPDX-License-Identifier: MIT */
/* Sizes as people write them. */
#include "sluice/units.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void a_size_is_a_number_with_a_binary_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},
		{"4096", 4096},
		{"4096B", 4096},
		{"512K", 512 << 10},
		{"512k", 512 << 10},
		{"512KiB", 512 << 10},
		{"3M", 3 << 20},
		{"3MiB", 3 << 20},
		{"10G", 10ull << 30},
		{"1.5T", 3ull << 39},
		{"1.5TiB", 3ull << 39},
		{"0.5K", 512},
		{"2P", 2ull << 50},
		{"15E", 15ull << 60},
		{"18446744073709551615", UINT64_MAX},
		{"1.0009765625M", (1 << 20) + 1023}, /* nine digits count */
		{"0.3333333333333333333333333333333K", 341},
		{"007K", 7 << 10},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 12345;
		int err = slu_parse_size(cases[i].text, &bytes);

		if (err || bytes != cases[i].bytes)
			fail_msg("\"%s\": expected %llu, got %llu (%d)", cases[i].text,
				 (unsigned long long)cases[i].bytes, (unsigned long long)bytes,
				 err);
	}
}

static void what_is_no_size_is_refused_and_leaves_the_result_alone(void **state)
{
	static const char *const bad[] = {"",    " 1",   "1 ",     "-1",  "+1",   "K",
					  "1.5", "1.",   ".5G",    "1.K", "10GB", "1KB",
					  "1Ki", "1iB",  "1.5.5G", "1KK", "0x10", "1e3",
					  "1G ", "1kib", "ten",    "1.5B"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t bytes = 12345;
		int err = slu_parse_size(bad[i], &bytes);

		if (err != -EINVAL || bytes != 12345)
			fail_msg("\"%s\": expected -EINVAL, got %d and %llu", bad[i], err,
				 (unsigned long long)bytes);
	}
}

static void what_does_not_fit_64_bits_is_out_of_range(void **state)
{
	static const char *const large[] = {"16E", "18446744073709551616", "15.9999999999E99",
					    "99999P", "99999999999999999999999K"};
	uint64_t bytes = 12345;

	(void)state;
	assert_int_equal(slu_parse_size(large[0], &bytes), -ERANGE);
	assert_int_equal(slu_parse_size(large[1], &bytes), -ERANGE);
	assert_int_equal(slu_parse_size(large[2], &bytes), -EINVAL);
	assert_int_equal(slu_parse_size(large[3], &bytes), -ERANGE);
	assert_int_equal(slu_parse_size(large[4], &bytes), -ERANGE);
	assert_int_equal(bytes, 12345);
}

static void sizes_are_shown_short(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1536, "1.5 KiB"},
		{(1 << 20) - 1, "1023.9 KiB"},
		{1 << 20, "1 MiB"},
		{10ull << 30, "10 GiB"},
		{3ull << 39, "1.5 TiB"},
		{1ull << 60, "1 EiB"},
		{UINT64_MAX, "15.9 EiB"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char buf[SLU_SIZE_STR];

		slu_format_size(cases[i].bytes, buf);
		assert_string_equal(buf, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_size_is_a_number_with_a_binary_unit),
		cmocka_unit_test(what_is_no_size_is_refused_and_leaves_the_result_alone),
		cmocka_unit_test(what_does_not_fit_64_bits_is_out_of_range),
		cmocka_unit_test(sizes_are_shown_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
