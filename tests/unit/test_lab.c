/* SPDX-License-Identifier: MIT */
/* The deadlock lab: which policy meets its own lock, and that the write path never does. */
#include "sluice/lab.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 4096u

static struct slu_lab *open_lab(enum slu_lab_policy policy, uint32_t npages, uint32_t nthreads,
				uint32_t nwrites, bool adversary)
{
	struct slu_lab_opts opts = {.policy = policy,
				    .npages = npages,
				    .nthreads = nthreads,
				    .nwrites = nwrites,
				    .adversary = adversary};
	struct slu_lab *lab;
	const char *why = NULL;
	int err = slu_lab_new(&opts, &lab, &why);

	if (err)
		print_error("the lab: %s (%s)\n", why, strerror(-err));
	assert_int_equal(err, 0);
	return lab;
}

static void expect_ring(const struct slu_lab *lab, uint32_t nthreads, uint32_t page)
{
	struct slu_lab_link links[SLU_LAB_MAX_THREADS];
	uint32_t n = slu_lab_cycle(lab, links, SLU_LAB_MAX_THREADS);

	assert_int_equal(n, nthreads);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(links[i].page, page);
		assert_int_equal(links[i].file, (links[i].writer + 1) % nthreads);
		assert_int_equal(links[i].holder, links[i].file);
		assert_int_equal(links[i].holder, links[(i + 1) % n].writer);
	}
}

static void hold_all_deadlocks_in_every_round_with_the_right_cycle(void **state)
{
	for (uint32_t nthreads = 1; nthreads <= 5; nthreads++) {
		struct slu_lab *lab = open_lab(SLU_LAB_HOLD_ALL, 6, nthreads, 3, false);

		for (uint64_t seed = 0; seed < 20; seed++) {
			assert_int_equal(slu_lab_round(lab, seed), -EDEADLK);
			/* the page that was copied in full, and kept */
			expect_ring(lab, nthreads, 1);
		}
		slu_lab_free(lab);
	}
}

static void hold_all_is_safe_from_pages_that_it_has_not_locked(void **state)
{
	struct slu_lab *lab = open_lab(SLU_LAB_HOLD_ALL, 8, 1, 1, false);
	struct slu_lab_write w = {.len = {12, 12}, .pos = 2 * PAGE - 12};

	for (uint32_t page = 0; page < 8; page++) {
		/* the first page it locks is copied to before the second one is locked */
		bool deadlock = page == 1 || page == 2;

		w.src[0] = 0;
		w.src[1] = page * PAGE;
		assert_int_equal(slu_lab_round_of(lab, &w), deadlock ? -EDEADLK : 0);
	}
	slu_lab_free(lab);
}

/* The tail is page SLU_LAB_HOLE_PAGE; the second piece of the source touches pages first to last. */
static void tail_faulting_deadlocks_exactly_when_the_source_is_the_tail(void **state)
{
	struct slu_lab *lab = open_lab(SLU_LAB_TAIL_FAULTING, 8, 1, 1, false);
	const uint64_t tail = SLU_LAB_HOLE_PAGE;

	for (uint64_t src = 0; src <= 8 * PAGE - 12; src += src % PAGE == PAGE - 18 ? 3 : 6) {
		struct slu_lab_write w = {.len = {12, 12},
					  .src = {7 * PAGE, src},
					  .pos = tail * PAGE - 12};
		bool touches = src / PAGE <= tail && (src + 11) / PAGE >= tail;

		if (src % PAGE > 30 && src % PAGE < PAGE - 30)
			continue;
		assert_int_equal(slu_lab_round_of(lab, &w), touches ? -EDEADLK : 0);
		if (touches)
			expect_ring(lab, 1, (uint32_t)tail);
	}
	/* A page that is covered whole is never locked while it is copied to. */
	for (uint64_t page = 0; page < 8; page++) {
		struct slu_lab_write w = {.len = {PAGE}, .src = {page * PAGE}, .pos = tail * PAGE};

		assert_int_equal(slu_lab_round_of(lab, &w), 0);
	}
	slu_lab_free(lab);
}

static void tail_faulting_in_a_ring_of_writers(void **state)
{
	for (uint32_t nthreads = 2; nthreads <= 8; nthreads += 3) {
		struct slu_lab *lab = open_lab(SLU_LAB_TAIL_FAULTING, 4, nthreads, 3, false);

		for (uint64_t seed = 0; seed < 5; seed++) {
			assert_int_equal(slu_lab_round(lab, seed), -EDEADLK);
			expect_ring(lab, nthreads, SLU_LAB_HOLE_PAGE);
		}
		slu_lab_free(lab);
	}
}

#if defined(__SANITIZE_THREAD__) /* which is slow */
#define SLOW 8u
#else
#define SLOW 1u
#endif

static void tail_nofault_finishes_ten_thousand_rounds(void **state)
{
	for (uint32_t nthreads = 1; nthreads <= 8; nthreads++) {
		struct slu_lab *lab =
			open_lab(SLU_LAB_TAIL_NOFAULT, 4, nthreads, 2 + nthreads % 3, false);

		for (uint64_t seed = 0; seed < 1250 / SLOW; seed++) {
			int err = slu_lab_round(lab, seed);

			if (err)
				print_error("%u threads, seed %u: %s\n", nthreads, (unsigned)seed,
					    err == -EUCLEAN ? slu_lab_complaint(lab)
							    : strerror(-err));
			assert_int_equal(err, 0);
		}
		slu_lab_free(lab);
	}
}

static void an_adversary_who_drops_pages_cannot_stop_it(void **state)
{
	for (uint32_t nthreads = 1; nthreads <= 7; nthreads += 3) {
		struct slu_lab *lab = open_lab(SLU_LAB_TAIL_NOFAULT, 12, nthreads, 6, true);
		const struct slu_lab_stats *stats = slu_lab_stats(lab);

		for (uint64_t seed = 0; seed < 50; seed++)
			assert_int_equal(slu_lab_round(lab, seed), 0);
		assert_true(stats->drops > 0);
		assert_true(stats->fault_ins > 0);
		/* each byte once all the same */
		assert_int_equal(stats->touched, stats->bytes);
		assert_true(stats->most_tries <= stats->most_bound);
		assert_true(stats->wakeups > 0);
		slu_lab_free(lab);
	}
}

static void what_is_there_is_touched_once_and_never_faulted_in(void **state)
{
	struct slu_lab_opts opts = {.policy = SLU_LAB_TAIL_NOFAULT,
				    .npages = 16,
				    .nthreads = 4,
				    .nwrites = 6,
				    .resident = true};
	const struct slu_lab_stats *stats;
	struct slu_lab *lab;
	const char *why;

	assert_int_equal(slu_lab_new(&opts, &lab, &why), 0);
	stats = slu_lab_stats(lab);
	for (uint64_t seed = 0; seed < 20; seed++)
		assert_int_equal(slu_lab_round(lab, seed), 0);
	assert_int_equal(stats->writes, 20 * 4 * 6);
	assert_int_equal(stats->touched, stats->bytes);
	assert_int_equal(stats->fault_ins, 0);
	slu_lab_free(lab);
}

static void readers_see_no_torn_and_no_stale_page(void **state)
{
	struct slu_lab *lab = open_lab(SLU_LAB_TAIL_NOFAULT, 8, 1, 1, false);
	const struct slu_lab_stats *stats = slu_lab_stats(lab);

	for (uint64_t seed = 0; seed < 3; seed++) {
		int err = slu_lab_readers(lab, seed, 4, 5000);

		if (err)
			print_error("%s\n", slu_lab_complaint(lab));
		assert_int_equal(err, 0);
	}
	assert_true(stats->reads > 100 && stats->reads_locked > 100);
	assert_int_equal(stats->replaced + stats->truncated, 15000);
	slu_lab_free(lab);
}

/* The drawing names who holds what and the functions that it happens in. */
static void the_drawing_tells_the_whole_story(void **state)
{
	struct slu_lab *lab = open_lab(SLU_LAB_TAIL_FAULTING, 4, 2, 1, false);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_int_equal(slu_lab_round(lab, 1), -EDEADLK);
	slu_lab_draw(lab, out);
	fclose(out);
	assert_non_null(strstr(text, "2 writers wait for each other"));
	assert_non_null(strstr(text, "holds      page 2 of file 1, locked since step"));
	assert_non_null(strstr(text, "holds      page 2 of file 2, locked since step"));
	assert_non_null(strstr(text, "waits for  page 2 of file 1"));
	assert_non_null(strstr(text, "slu_write > "));
	assert_non_null(strstr(text, "writer 1 ── waits for ──▶ page 2 of file 2 ── held by ──▶ "
				     "writer 2"));
	free(text);
	slu_lab_free(lab);
}

static void nonsense_is_refused(void **state)
{
	struct slu_lab_opts opts = {.npages = 4, .nthreads = 1, .nwrites = 1};
	struct slu_lab_write beyond = {.len = {4 * PAGE, 1}};
	struct slu_lab *lab = NULL;
	const char *why = NULL;

	opts.npages = SLU_LAB_MAX_PAGES + 1;
	assert_int_equal(slu_lab_new(&opts, &lab, &why), -EINVAL);
	assert_non_null(why);
	opts.npages = 4;
	opts.nthreads = SLU_LAB_MAX_THREADS + 1;
	assert_int_equal(slu_lab_new(&opts, &lab, &why), -EINVAL);
	opts.nthreads = 1;
	opts.policy = (enum slu_lab_policy)3;
	assert_int_equal(slu_lab_new(&opts, &lab, &why), -EINVAL);
	opts.policy = SLU_LAB_HOLD_ALL;
	assert_int_equal(slu_lab_new(&opts, &lab, &why), 0);
	assert_int_equal(slu_lab_round_of(lab, &beyond), -EINVAL);
	slu_lab_free(lab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hold_all_deadlocks_in_every_round_with_the_right_cycle),
		cmocka_unit_test(hold_all_is_safe_from_pages_that_it_has_not_locked),
		cmocka_unit_test(tail_faulting_deadlocks_exactly_when_the_source_is_the_tail),
		cmocka_unit_test(tail_faulting_in_a_ring_of_writers),
		cmocka_unit_test(tail_nofault_finishes_ten_thousand_rounds),
		cmocka_unit_test(an_adversary_who_drops_pages_cannot_stop_it),
		cmocka_unit_test(what_is_there_is_touched_once_and_never_faulted_in),
		cmocka_unit_test(readers_see_no_torn_and_no_stale_page),
		cmocka_unit_test(the_drawing_tells_the_whole_story),
		cmocka_unit_test(nonsense_is_refused),
	};

	return cmocka_run_group_tests_name("lab", tests, NULL, NULL);
}
