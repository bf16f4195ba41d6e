/* SPDX-License-Identifier: MIT */
/* Ranges against a plain array, and the pool's limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "sluice/base.h"

#define UNIVERSE   300
#define OPERATIONS 120000

/*
 * One cell per number: its value, and which call of set it is from. Sets that join have a border
 * where the value changes, the others where the call does.
 */
struct cell {
	uint64_t value, call; /* call 0: not in the set */
};

struct model {
	struct cell cells[UNIVERSE];
	bool join;
};

/* splitmix64; a fixed seed, printed with a failure by its operation's number */
static uint64_t random_state;

static uint64_t below(uint64_t n)
{
	uint64_t x = random_state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return (x ^ (x >> 31)) % n;
}

static bool model_same(const struct model *m, uint64_t a, uint64_t b)
{
	const struct cell *x = &m->cells[a], *y = &m->cells[b];

	if (!x->call || !y->call)
		return false;
	return m->join ? x->value == y->value : x->call == y->call;
}

static bool model_at_or_after(const struct model *m, uint64_t pos, struct slu_range *ret)
{
	while (pos < UNIVERSE && !m->cells[pos].call)
		pos++;
	if (pos >= UNIVERSE)
		return false;
	ret->start = pos;
	while (ret->start > 0 && model_same(m, ret->start - 1, ret->start))
		ret->start--;
	ret->end = pos + 1;
	while (ret->end < UNIVERSE && model_same(m, ret->end - 1, ret->end))
		ret->end++;
	ret->value = m->cells[pos].value;
	return true;
}

static uint64_t model_count(const struct model *m)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < UNIVERSE; i++)
		count += m->cells[i].call && (i == 0 || !model_same(m, i - 1, i));
	return count;
}

static uint64_t model_covered(const struct model *m, uint64_t start, uint64_t end)
{
	uint64_t covered = 0;

	for (uint64_t i = start; i < end && i < UNIVERSE; i++)
		covered += m->cells[i].call != 0;
	return covered;
}

static void check_equal(const struct model *m, const struct slu_ranges *s)
{
	struct slu_range want, have = {0};
	uint64_t pos = 0, count = 0;

	for (;;) {
		bool found = model_at_or_after(m, pos, &want);

		assert_int_equal(slu_ranges_at_or_after(s, pos, &have), found);
		if (!found)
			break;
		assert_int_equal(have.start, want.start);
		assert_int_equal(have.end, want.end);
		assert_int_equal(have.value, want.value);
		pos = have.end;
		count++;
	}
	assert_int_equal(s->count, count);
	assert_int_equal(s->count, model_count(m));
	assert_int_equal(s->weight, model_covered(m, 0, UNIVERSE));
	assert_int_equal(slu_ranges_empty(s), count == 0);
}

static void check_lookups(const struct model *m, const struct slu_ranges *s)
{
	uint64_t pos = below(UNIVERSE + 10), end = pos + below(UNIVERSE);
	struct slu_range want, have;
	bool found;

	found = model_at_or_after(m, pos, &want);
	assert_int_equal(slu_ranges_at_or_after(s, pos, &have), found);
	if (found)
		assert_memory_equal(&have, &want, sizeof(have));
	found = found && want.start <= pos;
	assert_int_equal(slu_ranges_find(s, pos, &have), found);
	if (found)
		assert_memory_equal(&have, &want, sizeof(have));
	assert_int_equal(slu_ranges_covered(s, pos, end), model_covered(m, pos, end));
}

static void random_operation(struct model *m, struct slu_ranges *s, uint64_t call, uint64_t limit)
{
	static const uint64_t lengths[] = {4, 16, UNIVERSE};
	uint64_t start = below(UNIVERSE), value = below(3), len = below(lengths[below(3)]);
	uint64_t end = slu_min((uint64_t)UNIVERSE, start + len);
	bool clear = below(5) < 2;
	struct model after = *m;
	int err;

	for (uint64_t i = start; i < end; i++)
		after.cells[i] = clear ? (struct cell){0} : (struct cell){value, call};
	err = clear ? slu_ranges_clear(s, start, end) : slu_ranges_set(s, start, end, value);
	if (model_count(&after) > limit) {
		assert_int_equal(err, -ENOMEM);
	} else {
		assert_int_equal(err, 0);
		*m = after;
	}
}

static void run_against_model(bool join, uint64_t limit)
{
	struct model m[2] = {{.join = join}, {.join = join}};
	struct slu_range_pool pool;
	struct slu_ranges s[2];
	uint64_t refused = 0;

	random_state = 1;
	assert_int_equal(slu_range_pool_init(&pool, slu_min(limit, (uint64_t)8), limit), 0);
	for (int i = 0; i < 2; i++)
		slu_ranges_init(&s[i], &pool, join);
	for (uint64_t call = 1; call <= OPERATIONS; call++) {
		int i = (int)below(2);
		uint64_t left = limit ? limit - s[!i].count : UNIVERSE;
		uint64_t before = s[i].count;

		random_operation(&m[i], &s[i], call, left);
		refused += limit && s[i].count == before && before == left;
		check_equal(&m[i], &s[i]);
		check_lookups(&m[i], &s[i]);
		assert_int_equal(pool.nfree + s[0].count + s[1].count, pool.ntotal);
		assert_true(!limit || pool.ntotal <= limit);
	}
	if (limit)
		assert_true(refused > 100);
	slu_ranges_fini(&s[0]);
	assert_true(slu_ranges_empty(&s[0]));
	slu_ranges_fini(&s[1]);
	slu_range_pool_fini(&pool);
}

static void random_operations_match_an_array(void **state)
{
	run_against_model(false, 0);
}

static void random_operations_with_joining_match_an_array(void **state)
{
	run_against_model(true, 0);
}

static void at_the_limit_only_what_needs_a_node_fails_and_changes_nothing(void **state)
{
	run_against_model(false, 12);
	run_against_model(true, 12);
}

static void touching_ranges_join_only_if_asked_and_equal(void **state)
{
	struct slu_range_pool pool;
	struct slu_ranges s;
	struct slu_range r;

	assert_int_equal(slu_range_pool_init(&pool, 0, 0), 0);
	slu_ranges_init(&s, &pool, true);
	assert_int_equal(slu_ranges_set(&s, 10, 20, 1), 0);
	assert_int_equal(slu_ranges_set(&s, 30, 40, 1), 0);
	assert_int_equal(slu_ranges_set(&s, 40, 50, 2), 0);
	assert_int_equal(s.count, 3);
	assert_int_equal(slu_ranges_set(&s, 20, 30, 1), 0);
	assert_int_equal(s.count, 2);
	assert_true(slu_ranges_find(&s, 39, &r));
	assert_true(r.start == 10 && r.end == 40 && r.value == 1);
	assert_int_equal(slu_ranges_set(&s, 12, 13, 1), 0);
	assert_int_equal(s.count, 2);
	slu_ranges_fini(&s);

	slu_ranges_init(&s, &pool, false);
	assert_int_equal(slu_ranges_set(&s, 10, 20, 1), 0);
	assert_int_equal(slu_ranges_set(&s, 20, 30, 1), 0);
	assert_int_equal(s.count, 2);
	slu_ranges_fini(&s);
	slu_range_pool_fini(&pool);
}

static void the_whole_of_uint64_works(void **state)
{
	struct slu_range_pool pool;
	struct slu_ranges s;
	struct slu_range r;

	assert_int_equal(slu_range_pool_init(&pool, 0, 0), 0);
	slu_ranges_init(&s, &pool, true);
	assert_int_equal(slu_ranges_set(&s, 0, UINT64_MAX, 9), 0);
	assert_true(s.weight == UINT64_MAX);
	assert_int_equal(slu_ranges_clear(&s, 5, UINT64_MAX - 5), 0);
	assert_int_equal(s.weight, 10);
	assert_true(slu_ranges_at_or_after(&s, 5, &r));
	assert_true(r.start == UINT64_MAX - 5 && r.end == UINT64_MAX);
	assert_int_equal(slu_ranges_covered(&s, 0, UINT64_MAX), 10);
	/* Empty ranges are nothing. */
	assert_int_equal(slu_ranges_set(&s, 7, 7, 1), 0);
	assert_int_equal(slu_ranges_clear(&s, 2, 2), 0);
	assert_int_equal(slu_ranges_covered(&s, 3, 3), 0);
	assert_int_equal(s.count, 2);
	slu_ranges_fini(&s);
	slu_range_pool_fini(&pool);
}

static void a_prefilled_pool_needs_no_memory(void **state)
{
	struct slu_range_pool pool;
	struct slu_ranges s;

	assert_int_equal(slu_range_pool_init(&pool, 3, 0), 0);
	slu_ranges_init(&s, &pool, false);
	slu_alloc_fail_nth(1);
	/* A range, then two more that cut it: at most two nodes each. */
	assert_int_equal(slu_ranges_set(&s, 0, 100, 1), 0);
	assert_int_equal(slu_ranges_set(&s, 40, 60, 2), 0);
	assert_int_equal(slu_alloc_count(), 0);
	assert_int_equal(slu_ranges_set(&s, 10, 20, 3), -ENOMEM);
	assert_int_equal(slu_alloc_count(), 1);
	assert_int_equal(s.count, 3);
	assert_int_equal(s.weight, 100);
	assert_int_equal(slu_range_pool_fill(&pool, 2), 0);
	slu_alloc_fail_nth(1);
	assert_int_equal(slu_ranges_set(&s, 10, 20, 3), 0);
	slu_alloc_fail_nth(0);
	assert_int_equal(s.count, 5);
	slu_ranges_fini(&s);
	slu_range_pool_fini(&pool);
}

static void a_pool_that_cannot_be_filled_is_not_made(void **state)
{
	struct slu_range_pool pool;

	assert_int_equal(slu_range_pool_init(&pool, 5, 4), -ENOMEM);
	/* In the middle, too: it takes more than one slab. */
	slu_alloc_fail_nth(3);
	assert_int_equal(slu_range_pool_init(&pool, 1000, 0), -ENOMEM);
	slu_alloc_fail_nth(0);
}

/* In ascending order a tree without balance would be a list: 10^11 steps. */
static void many_ranges_in_any_order_are_found_fast(void **state)
{
	enum { N = 300000 };
	struct slu_range_pool pool;
	struct slu_ranges s;
	struct slu_range r;

	assert_int_equal(slu_range_pool_init(&pool, 0, 0), 0);
	slu_ranges_init(&s, &pool, true);
	for (uint64_t i = 0; i < N; i++)
		assert_int_equal(slu_ranges_set(&s, i * 10, i * 10 + 5, i), 0);
	assert_int_equal(s.count, N);
	for (uint64_t i = 0; i < N; i++) {
		assert_true(slu_ranges_at_or_after(&s, i * 10 - (i ? 3 : 0), &r));
		assert_int_equal(r.value, i);
	}
	assert_int_equal(slu_ranges_covered(&s, 0, N * 10), N * 5);
	for (uint64_t i = N; i-- > 0;)
		assert_int_equal(slu_ranges_clear(&s, i * 10 + 1, i * 10 + 2), 0);
	assert_int_equal(s.count, 2 * N);
	assert_int_equal(slu_ranges_set(&s, 0, N * 10, 1), 0);
	assert_int_equal(s.count, 1);
	assert_int_equal(pool.nfree, pool.ntotal - 1);
	slu_ranges_fini(&s);
	slu_range_pool_fini(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_match_an_array),
		cmocka_unit_test(random_operations_with_joining_match_an_array),
		cmocka_unit_test(at_the_limit_only_what_needs_a_node_fails_and_changes_nothing),
		cmocka_unit_test(touching_ranges_join_only_if_asked_and_equal),
		cmocka_unit_test(the_whole_of_uint64_works),
		cmocka_unit_test(a_prefilled_pool_needs_no_memory),
		cmocka_unit_test(a_pool_that_cannot_be_filled_is_not_made),
		cmocka_unit_test(many_ranges_in_any_order_are_found_fast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
