/* SPDX-License-Identifier: MIT */
/* Busy polling: when it begins, when it does not, and that it holds up nobody. */
#include "session_rig.h"
#include <sched.h>

#define LIMIT_NS (SLU_NS_PER_MS) /* so long that a loaded machine keeps up */

/* One that can be held up: the session logs from the worker, after the answer. */
static struct {
	struct slu_mutex lock;
	struct slu_cond changed;
	const char *at; /* a line with that waits */
	bool held;      /* one does */
} hold;

static void hold_up(void *ctx, int priority, const char *line)
{
	(void)ctx;
	(void)priority;
	slu_mutex_lock(&hold.lock);
	if (hold.at && strstr(line, hold.at)) {
		hold.held = true;
		slu_cond_broadcast(&hold.changed);
	}
	while (hold.at && strstr(line, hold.at))
		slu_cond_wait(&hold.changed, &hold.lock);
	slu_mutex_unlock(&hold.lock);
}

static void hold_at(const char *at)
{
	slu_mutex_lock(&hold.lock);
	hold.at = at;
	hold.held = false;
	slu_cond_broadcast(&hold.changed);
	slu_mutex_unlock(&hold.lock);
}

static void wait_until_held(void)
{
	slu_mutex_lock(&hold.lock);
	while (!hold.held)
		slu_cond_wait(&hold.changed, &hold.lock);
	slu_mutex_unlock(&hold.lock);
}

static int setup_with(void **state, uint64_t busy_poll_ns)
{
	static struct kernel k;
	struct slu_session_opts opts = {
		.busy_poll_ns = busy_poll_ns,
		.debug = true,
		.log = hold_up,
	};

	slu_mutex_init(&hold.lock, SLU_RANK_LEAF, 0, "hold");
	slu_cond_init(&hold.changed);
	start(&k, &opts);
	assert_int_equal(init_with(&k, 7, 45, KERNEL_FLAGS), 0);
	*state = &k;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, LIMIT_NS);
}

static int setup_off(void **state)
{
	return setup_with(state, 0);
}

static int teardown(void **state)
{
	stop(*state);
	slu_cond_fini(&hold.changed);
	slu_mutex_fini(&hold.lock);
	return 0;
}

static uint64_t nbegun(struct kernel *k)
{
	return atomic_load(&slu_session_stats(k->s)->busy_polls);
}

/* Until one worker polls for all. */
static void ask_until_polled(struct kernel *k)
{
	uint64_t deadline = slu_clock_ns() + 60 * SLU_NS_PER_SEC;
	cpu_set_t cpus;

	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	if (CPU_COUNT(&cpus) < 2)
		skip();
	while (!atomic_load(&k->s->busy.poller)) {
		assert_int_equal(ask(k, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
		assert_true(slu_clock_ns() < deadline);
	}
}

static void it_begins_with_requests_one_at_a_time_and_ends_without(void **state)
{
	struct kernel *k = *state;
	uint64_t deadline;

	for (uint64_t i = 0; i < 3; i++) {
		ask_until_polled(k);
		assert_true(nbegun(k) > i);
		deadline = slu_clock_ns() + 60 * SLU_NS_PER_SEC;
		while (atomic_load(&k->s->busy.poller)) {
			slu_sleep_ns(SLU_NS_PER_MS);
			assert_true(slu_clock_ns() < deadline);
		}
	}
}

static void a_worker_that_is_held_up_holds_up_nobody(void **state)
{
	struct kernel *k = *state;
	struct fuse_getattr_in in = {0};

	ask_until_polled(k);
	/* One of a kind: of those before, any number may still be about to be logged. */
	hold_at("GETATTR");
	assert_int_equal(ask(k, FUSE_GETATTR, 1, &in, sizeof(in), NULL, 0), 0);
	wait_until_held();
	/* The socket's time-out is what fails here. */
	for (int i = 0; i < 100; i++)
		assert_int_equal(ask(k, FUSE_GETXATTR, 1, (char[16]){"\0\0\0\0\0\0\0\0user.x"}, 16,
				     NULL, 0),
				 -ENODATA);
	hold_at(NULL);
}

static void the_session_stops_while_one_polls(void **state)
{
	struct kernel *k = *state;

	ask_until_polled(k);
	slu_session_stop(k->s);
	assert_null(atomic_load(&k->s->busy.poller));
}

static void requests_that_carry_much_are_not_polled_for(void **state)
{
	struct kernel *k = *state;
	struct fuse_read_in in = {.size = MAX_WRITE};

	for (int i = 0; i < 1000; i++)
		(void)ask(k, FUSE_READ, 1, &in, sizeof(in), NULL, 0);
	assert_int_equal(nbegun(k), 0);
}

static void it_can_be_switched_off(void **state)
{
	struct kernel *k = *state;

	for (int i = 0; i < 1000; i++)
		assert_int_equal(ask(k, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
	assert_int_equal(nbegun(k), 0);
}

#define polled(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		polled(it_begins_with_requests_one_at_a_time_and_ends_without),
		polled(a_worker_that_is_held_up_holds_up_nobody),
		polled(the_session_stops_while_one_polls),
		polled(requests_that_carry_much_are_not_polled_for),
		cmocka_unit_test_setup_teardown(it_can_be_switched_off, setup_off, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
