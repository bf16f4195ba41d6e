/* SPDX-License-Identifier: MIT */
/* The park: everything submitted is run once, limits hold, the end waits for all. */
#include "fuse_private.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NITEMS 500

struct world {
	struct park park;
	struct slu_mutex lock; /* the rest */
	struct slu_cond changed;
	bool gate_open; /* items wait for it */
	unsigned int started, running, most, done;
	size_t bytes, most_bytes;
	unsigned int order[NITEMS];
};

struct item {
	struct park_item item;
	struct world *w;
	unsigned int number;
};

static void run_item(struct park_item *pi)
{
	struct item *it = slu_container_of(pi, struct item, item);
	struct world *w = it->w;

	slu_mutex_lock(&w->lock);
	if (w->started < NITEMS)
		w->order[w->started] = it->number;
	w->started++;
	w->running++;
	w->bytes += pi->bytes;
	w->most = slu_max(w->most, w->running);
	w->most_bytes = slu_max(w->most_bytes, w->bytes);
	slu_cond_broadcast(&w->changed);
	while (!w->gate_open)
		slu_cond_wait(&w->changed, &w->lock);
	w->running--;
	w->bytes -= pi->bytes;
	w->done++;
	slu_cond_broadcast(&w->changed);
	slu_mutex_unlock(&w->lock);
	slu_free(it);
}

static void submit(struct world *w, unsigned int number, size_t bytes)
{
	struct item *it = slu_zalloc(sizeof(*it));

	slu_assert(it);
	*it = (struct item){.item = {.run = run_item, .bytes = bytes}, .w = w, .number = number};
	(void)park_submit(&w->park, &it->item);
}

static void world_init(struct world *w, struct park_limits limits, bool gate_open)
{
	memset(w, 0, sizeof(*w));
	slu_mutex_init(&w->lock, SLU_RANK_CONTROL, 0, "test");
	slu_cond_init(&w->changed);
	w->gate_open = gate_open;
	slu_assert(!park_init(&w->park, &limits));
}

static void world_fini(struct world *w)
{
	slu_cond_fini(&w->changed);
	slu_mutex_fini(&w->lock);
}

static void open_gate(struct world *w)
{
	slu_mutex_lock(&w->lock);
	w->gate_open = true;
	slu_cond_broadcast(&w->changed);
	slu_mutex_unlock(&w->lock);
}

static void wait_running(struct world *w, unsigned int n)
{
	slu_mutex_lock(&w->lock);
	while (w->running < n)
		slu_cond_wait(&w->changed, &w->lock);
	slu_mutex_unlock(&w->lock);
}

/* ------------------------------------------------------------------ cases */

static void one_thread_runs_items_in_order(void **state)
{
	struct world w;

	world_init(&w, (struct park_limits){NITEMS, SIZE_MAX, 1}, true);
	for (unsigned int i = 0; i < NITEMS; i++)
		submit(&w, i, 1);
	park_fini(&w.park);
	assert_int_equal(w.done, NITEMS);
	assert_int_equal(w.most, 1);
	for (unsigned int i = 0; i < NITEMS; i++)
		assert_int_equal(w.order[i], i);
	world_fini(&w);
}

static void threads_grow_to_the_limit_and_not_beyond(void **state)
{
	struct world w;

	world_init(&w, (struct park_limits){NITEMS, SIZE_MAX, 6}, false);
	for (unsigned int i = 0; i < 20; i++)
		submit(&w, i, 1);
	wait_running(&w, 6);
	slu_sleep_ns(20 * SLU_NS_PER_MS);
	assert_int_equal(w.most, 6);
	open_gate(&w);
	park_fini(&w.park);
	assert_int_equal(w.done, 20);
	world_fini(&w);
}

static void the_end_waits_for_what_is_queued(void **state)
{
	struct world w;

	world_init(&w, (struct park_limits){NITEMS, SIZE_MAX, 2}, false);
	for (unsigned int i = 0; i < 50; i++)
		submit(&w, i, 1);
	wait_running(&w, 2);
	open_gate(&w);
	park_fini(&w.park);
	assert_int_equal(w.done, 50);
	world_fini(&w);
}

static void submitter(void *arg)
{
	struct world *w = arg;

	for (unsigned int i = 0; i < 100; i++)
		submit(w, i, 10);
}

static void wait_for_room(struct park_limits limits, unsigned int expect)
{
	struct slu_thread t;
	struct world w;

	world_init(&w, limits, false);
	assert_int_equal(slu_thread_start(&t, "submitter", submitter, &w), 0);
	wait_running(&w, expect);
	slu_sleep_ns(50 * SLU_NS_PER_MS);
	slu_mutex_lock(&w.park.lock);
	assert_int_equal(w.park.nitems, expect);
	assert_int_equal(w.park.bytes, expect * 10);
	slu_mutex_unlock(&w.park.lock);
	open_gate(&w);
	slu_thread_join(&t);
	park_fini(&w.park);
	assert_int_equal(w.done, 100);
	world_fini(&w);
}

static void submit_waits_when_there_are_too_many(void **state)
{
	wait_for_room((struct park_limits){4, SIZE_MAX, 8}, 4);
}

static void submit_waits_when_they_are_too_big(void **state)
{
	wait_for_room((struct park_limits){100, 35, 8}, 3);
}

static void while_it_is_held_there_is_room_for_more(void **state)
{
	struct slu_thread t;
	struct world w;

	world_init(&w, (struct park_limits){100, 35, 2, 200}, false);
	assert_int_equal(slu_thread_start(&t, "submitter", submitter, &w), 0);
	wait_running(&w, 2);
	slu_sleep_ns(20 * SLU_NS_PER_MS);
	/* Who waits for room already is let in, too. */
	park_hold(&w.park, true);
	for (unsigned int i = 0; i < 1000; i++) {
		slu_mutex_lock(&w.park.lock);
		size_t bytes = w.park.bytes;
		slu_mutex_unlock(&w.park.lock);
		if (bytes == 200)
			break;
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	slu_sleep_ns(20 * SLU_NS_PER_MS);
	slu_mutex_lock(&w.park.lock);
	assert_int_equal(w.park.bytes, 200);
	slu_mutex_unlock(&w.park.lock);
	park_hold(&w.park, false);
	open_gate(&w);
	slu_thread_join(&t);
	park_fini(&w.park);
	assert_int_equal(w.done, 100);
	world_fini(&w);
}

static void an_item_larger_than_the_limit_gets_in_alone(void **state)
{
	struct world w;

	world_init(&w, (struct park_limits){100, 35, 8}, true);
	for (unsigned int i = 0; i < 5; i++)
		submit(&w, i, 1000);
	park_fini(&w.park);
	assert_int_equal(w.done, 5);
	assert_int_equal(w.most_bytes, 1000);
	world_fini(&w);
}

static void without_memory_it_does_not_start(void **state)
{
	struct park p;

	slu_alloc_fail_nth(1);
	assert_int_equal(park_init(&p, &(struct park_limits){4, 4, 4}), -ENOMEM);
	slu_alloc_fail_nth(0);
}

/* Every order of steps that the seed comes up with: nothing is lost, nobody waits for ever. */
static void simulated(void *arg)
{
	struct slu_thread t[3];
	struct world *w = arg;

	world_init(w, (struct park_limits){3, 35, 2}, true);
	for (int i = 0; i < 3; i++)
		slu_assert(!slu_thread_start(&t[i], "submitter", submitter, w));
	for (int i = 0; i < 3; i++)
		slu_thread_join(&t[i]);
	park_fini(&w->park);
	world_fini(w);
}

static void no_order_of_steps_loses_an_item(void **state)
{
	struct world w;

	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		assert_non_null(sim);
		if (slu_sim_run(sim, simulated, &w, stderr))
			fail_msg("seed %llu", (unsigned long long)seed);
		assert_int_equal(w.done, 300);
		assert_true(w.most <= 2);
		slu_sim_free(sim);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_thread_runs_items_in_order),
		cmocka_unit_test(threads_grow_to_the_limit_and_not_beyond),
		cmocka_unit_test(the_end_waits_for_what_is_queued),
		cmocka_unit_test(submit_waits_when_there_are_too_many),
		cmocka_unit_test(submit_waits_when_they_are_too_big),
		cmocka_unit_test(while_it_is_held_there_is_room_for_more),
		cmocka_unit_test(an_item_larger_than_the_limit_gets_in_alone),
		cmocka_unit_test(without_memory_it_does_not_start),
		cmocka_unit_test(no_order_of_steps_loses_an_item),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
