/* SPDX-License-Identifier: MIT */
/* The progress bar: what it shows, and when it keeps quiet. */
#include "../../src/tools/tools_private.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SEC SLU_NS_PER_SEC
#define MS  SLU_NS_PER_MS

struct bar {
	struct slu_progress p;
	char *text;
	size_t len;
	FILE *out;
};

static void bar_start(struct bar *b, bool terminal)
{
	b->text = NULL;
	b->out = open_memstream(&b->text, &b->len);
	assert_non_null(b->out);
	slu_progress_start_at(&b->p, b->out, terminal, "checking", 1000 * SEC);
}

/* What has been printed since the last call. */
static const char *bar_update(struct bar *b, uint64_t done, uint64_t total, uint64_t ns)
{
	size_t before;

	fflush(b->out);
	before = b->len;
	slu_progress_update_at(&b->p, done, total, 1000 * SEC + ns);
	fflush(b->out);
	return b->text + before;
}

static void bar_end(struct bar *b)
{
	fclose(b->out);
	free(b->text);
}

static void a_terminal_sees_nothing_in_the_first_second(void **state)
{
	struct bar b;

	bar_start(&b, true);
	assert_string_equal(bar_update(&b, 1, 10, 0), "");
	assert_string_equal(bar_update(&b, 5, 10, 999 * MS), "");
	assert_string_not_equal(bar_update(&b, 5, 10, 1000 * MS), "");
	bar_end(&b);
}

static void a_terminal_is_redrawn_ten_times_a_second_on_one_line(void **state)
{
	struct bar b;

	bar_start(&b, true);
	assert_string_equal(bar_update(&b, 1, 4, 2 * SEC),
			    "\r[##########..............................]  25 % checking\033[K");
	assert_string_equal(bar_update(&b, 2, 4, 2 * SEC + 99 * MS), "");
	assert_string_equal(bar_update(&b, 2, 4, 2 * SEC + 100 * MS),
			    "\r[####################....................]  50 % checking\033[K");
	assert_string_equal(bar_update(&b, 3, 4, 2 * SEC + 150 * MS), "");
	bar_end(&b);
}

static void the_bar_is_taken_away_and_comes_back(void **state)
{
	struct bar b;

	bar_start(&b, true);
	slu_progress_clear(&b.p); /* nothing there yet */
	fflush(b.out);
	assert_int_equal(b.len, 0);
	bar_update(&b, 1, 4, 2 * SEC);
	slu_progress_clear(&b.p);
	fflush(b.out);
	assert_string_equal(b.text + b.len - 4, "\r\033[K");
	/* Taken away for a message: the next update draws it again at once. */
	assert_string_not_equal(bar_update(&b, 1, 4, 2 * SEC + 1), "");
	bar_end(&b);
}

static void elsewhere_there_is_a_line_every_ten_seconds(void **state)
{
	struct bar b;

	bar_start(&b, false);
	assert_string_equal(bar_update(&b, 1, 4, 2 * SEC), "");
	assert_string_equal(bar_update(&b, 1, 4, 9999 * MS), "");
	assert_string_equal(bar_update(&b, 1, 4, 10 * SEC), "checking: 25 %\n");
	assert_string_equal(bar_update(&b, 2, 4, 19 * SEC), "");
	assert_string_equal(bar_update(&b, 3, 4, 20 * SEC), "checking: 75 %\n");
	slu_progress_clear(&b.p);
	fflush(b.out);
	assert_string_equal(b.text, "checking: 25 %\nchecking: 75 %\n");
	bar_end(&b);
}

static void phases_share_one_bar(void **state)
{
	struct bar b;

	bar_start(&b, true);
	slu_progress_phase(&b.p, "searching the volume", 0, 50);
	assert_string_equal(bar_update(&b, 1, 2, 2 * SEC),
			    "\r[##########..............................]  25 % searching the "
			    "volume\033[K");
	assert_string_equal(bar_update(&b, 2, 2, 3 * SEC),
			    "\r[####################....................]  50 % searching the "
			    "volume\033[K");
	slu_progress_phase(&b.p, "checking", 50, 100);
	assert_string_equal(bar_update(&b, 1, 2, 4 * SEC),
			    "\r[##############################..........]  75 % checking\033[K");
	bar_end(&b);
}

/* A phase that was left out, one that counts anew, one whose end was not known. */
static void the_bar_never_goes_back(void **state)
{
	struct bar b;

	bar_start(&b, false);
	slu_progress_phase(&b.p, "searching", 20, 60);
	assert_string_equal(bar_update(&b, 1, 2, 10 * SEC), "searching: 40 %\n");
	assert_string_equal(bar_update(&b, 0, 2, 20 * SEC), "searching: 40 %\n");
	/* Not shown, and yet it was reached. */
	assert_string_equal(bar_update(&b, 2, 2, 21 * SEC), "");
	assert_string_equal(bar_update(&b, 1, 2, 30 * SEC), "searching: 60 %\n");
	slu_progress_phase(&b.p, "reading", 10, 30);
	assert_string_equal(bar_update(&b, 2, 2, 40 * SEC), "reading: 60 %\n");
	slu_progress_phase(&b.p, "checking", 80, 100);
	assert_string_equal(bar_update(&b, 0, 2, 50 * SEC), "checking: 80 %\n");
	bar_end(&b);
}

static void more_than_there_should_be_is_all_of_it(void **state)
{
	struct bar b;

	bar_start(&b, false);
	assert_string_equal(bar_update(&b, 5, 4, 10 * SEC), "checking: 100 %\n");
	bar_end(&b);
	bar_start(&b, false);
	assert_string_equal(bar_update(&b, 0, 0, 10 * SEC), "checking: 100 %\n");
	bar_end(&b);
	bar_start(&b, false);
	assert_string_equal(bar_update(&b, UINT64_MAX / 2, UINT64_MAX, 10 * SEC),
			    "checking: 50 %\n");
	bar_end(&b);
}

/* ------------------------------------------------------------------ options */

static void sizes_and_waits_are_parsed_or_refused(void **state)
{
	uint64_t value = 0;

	assert_true(slu_tool_size("--size", NULL, 77, &value));
	assert_int_equal(value, 77);
	assert_true(slu_tool_size("--size", "1M", 77, &value));
	assert_int_equal(value, 1 << 20);
	assert_false(slu_tool_size("--size", "much", 77, &value));
	assert_true(slu_tool_seconds("--wait", "0", &value));
	assert_int_equal(value, 0);
	assert_true(slu_tool_seconds("--wait", "0.5", &value));
	assert_int_equal(value, 500 * MS);
	assert_true(slu_tool_seconds("--wait", "86400", &value));
	assert_false(slu_tool_seconds("--wait", "86401", &value));
	assert_false(slu_tool_seconds("--wait", "-1", &value));
	assert_false(slu_tool_seconds("--wait", "", &value));
	assert_false(slu_tool_seconds("--wait", "5s", &value));
	assert_false(slu_tool_seconds("--wait", "nan", &value));
}

static void the_holder_of_an_image_is_named(void **state)
{
	struct slu_tool_busy busy = {.image = "x.img"};
	char words[128];

	assert_string_equal(slu_tool_open_error(-EBUSY, &busy, words, sizeof(words)),
			    "in use by another program, perhaps mounted");
	slu_tool_lock_busy(&busy, 42, "sluicefs");
	assert_string_equal(slu_tool_open_error(-EBUSY, &busy, words, sizeof(words)),
			    "in use by sluicefs (process 42), perhaps mounted");
	assert_string_equal(slu_tool_open_error(-ENOENT, &busy, words, sizeof(words)),
			    "No such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_terminal_sees_nothing_in_the_first_second),
		cmocka_unit_test(a_terminal_is_redrawn_ten_times_a_second_on_one_line),
		cmocka_unit_test(the_bar_is_taken_away_and_comes_back),
		cmocka_unit_test(elsewhere_there_is_a_line_every_ten_seconds),
		cmocka_unit_test(phases_share_one_bar),
		cmocka_unit_test(the_bar_never_goes_back),
		cmocka_unit_test(more_than_there_should_be_is_all_of_it),
		cmocka_unit_test(sizes_and_waits_are_parsed_or_refused),
		cmocka_unit_test(the_holder_of_an_image_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
