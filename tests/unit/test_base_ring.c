/* SPDX-License-Identifier: MIT */
/* The ring, and the stream of events that is made of rings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "sluice/event.h"

#define NSLOTS    8u
#define NRESERVED 2u

static unsigned int nwakes;

static void count_wake(void *ctx)
{
	(void)ctx;
	nwakes++;
}

static void make(struct slu_ring *r)
{
	nwakes = 0;
	assert_int_equal(slu_ring_init(r, NSLOTS, NRESERVED, sizeof(uint64_t), count_wake, NULL),
			 0);
}

static bool post(struct slu_ring *r, uint64_t value, bool critical)
{
	return slu_ring_post(r, &value, critical);
}

/* The next slot must be this, after so many that were lost. */
static void expect(struct slu_ring *r, uint64_t want, uint64_t want_lost)
{
	uint64_t value, lost;

	assert_true(slu_ring_take(r, &value, &lost));
	assert_int_equal(value, want);
	assert_int_equal(lost, want_lost);
}

static void expect_none(struct slu_ring *r, uint64_t want_lost)
{
	uint64_t value = 17, lost;

	assert_false(slu_ring_take(r, &value, &lost));
	assert_int_equal(value, 17);
	assert_int_equal(lost, want_lost);
}

/* ------------------------------------------------------------------ one thread */

static void distances_survive_the_wrap(void **state)
{
	(void)state;
	assert_int_equal(slu_ring_occupancy(3, UINT32_MAX - 1), 5);
	assert_true(slu_ring_full(3, UINT32_MAX - 1, 5));
	assert_false(slu_ring_full(3, UINT32_MAX - 1, 6));
	assert_true(slu_ring_empty(0, 0));
	assert_false(slu_ring_empty(0, UINT32_MAX));
}

static void slots_come_in_order_over_the_wrap_of_the_indices(void **state)
{
	struct slu_ring r;
	uint64_t next = 0;

	(void)state;
	make(&r);
	r.head = r.tail = UINT32_MAX - 20;
	for (uint64_t i = 0; i < 100;) {
		for (unsigned int n = 0; n < 1 + i % 5; n++, i++)
			assert_true(post(&r, i, false));
		while (slu_ring_used(&r))
			expect(&r, next++, 0);
	}
	assert_true(r.head < 200);
	slu_ring_fini(&r);
}

static void the_last_slots_are_for_what_is_critical(void **state)
{
	struct slu_ring r;

	(void)state;
	make(&r);
	for (uint64_t i = 0; i < NSLOTS - NRESERVED; i++)
		assert_true(post(&r, i, false));
	assert_false(post(&r, 100, false));
	assert_true(post(&r, 200, true));
	assert_false(post(&r, 101, false));
	assert_false(post(&r, 102, false));
	assert_true(post(&r, 201, true));
	assert_false(post(&r, 202, true)); /* that many were kept back, and no more */
	assert_int_equal(slu_ring_used(&r), NSLOTS);
	assert_int_equal(slu_ring_total_lost(&r), 4);

	for (uint64_t i = 0; i < NSLOTS - NRESERVED; i++)
		expect(&r, i, 0);
	expect(&r, 200, 1);
	expect(&r, 201, 2);
	expect_none(&r, 1);
	expect_none(&r, 0); /* told once */
	assert_true(post(&r, 300, false));
	expect(&r, 300, 0);
	slu_ring_fini(&r);
}

static void the_hook_is_called_when_it_stops_being_empty(void **state)
{
	struct slu_ring r;

	(void)state;
	make(&r);
	post(&r, 1, false);
	assert_int_equal(nwakes, 1);
	post(&r, 2, false);
	post(&r, 3, true);
	assert_int_equal(nwakes, 1);
	expect(&r, 1, 0);
	post(&r, 4, false);
	assert_int_equal(nwakes, 1);
	expect(&r, 2, 0);
	expect(&r, 3, 0);
	expect(&r, 4, 0);
	post(&r, 5, false);
	assert_int_equal(nwakes, 2);
	slu_ring_fini(&r);
}

static void no_memory_leaves_nothing(void **state)
{
	struct slu_ring r;

	(void)state;
	for (uint64_t nth = 1; nth <= 2; nth++) {
		slu_alloc_fail_nth(nth);
		assert_int_equal(slu_ring_init(&r, NSLOTS, 0, 8, NULL, NULL), -ENOMEM);
	}
	slu_alloc_fail_nth(0);
}

/* ------------------------------------------------------------------ many threads */

enum { NWRITERS = 3, PER_WRITER = 60 };

/* Writers that never wait, and one reader that sleeps until it is woken. */
struct crowd {
	struct slu_ring ring;
	struct slu_mutex lock; /* a leaf inside the ring's */
	struct slu_cond woken;
	bool awake, done;
	uint64_t last[NWRITERS], nseen, nlost, per_writer;
	_Atomic uint32_t next_writer;
	struct slu_thread writers[NWRITERS], reader;
};

static void wake_reader(void *arg)
{
	struct crowd *c = arg;

	slu_mutex_lock(&c->lock);
	c->awake = true;
	slu_cond_signal(&c->woken);
	slu_mutex_unlock(&c->lock);
}

static void crowd_writer(void *arg)
{
	struct crowd *c = arg;
	uint64_t me = atomic_fetch_add(&c->next_writer, 1);

	for (uint64_t i = 1; i <= c->per_writer; i++) {
		uint64_t value = me << 32 | i;

		(void)slu_ring_post(&c->ring, &value, i % 8 == 0);
	}
}

/* What one writer wrote is seen in its order. */
static void take_all(struct crowd *c)
{
	uint64_t value, lost;

	while (slu_ring_take(&c->ring, &value, &lost)) {
		uint64_t writer = value >> 32, i = value & UINT32_MAX;

		slu_assert(writer < NWRITERS && i > c->last[writer]);
		c->last[writer] = i;
		c->nseen++;
		c->nlost += lost;
	}
	c->nlost += lost;
}

static void crowd_reader(void *arg)
{
	struct crowd *c = arg;
	bool done;

	do {
		slu_mutex_lock(&c->lock);
		while (!c->awake && !c->done)
			slu_cond_wait(&c->woken, &c->lock);
		c->awake = false;
		done = c->done;
		slu_mutex_unlock(&c->lock);
		take_all(c);
	} while (!done);
}

static void crowd_main(void *arg)
{
	struct crowd *c = arg;
	int err = slu_ring_init(&c->ring, NSLOTS, NRESERVED, sizeof(uint64_t), wake_reader, c);
	uint64_t posted = NWRITERS * c->per_writer;

	c->ring.head = c->ring.tail = UINT32_MAX - PER_WRITER;
	slu_mutex_init(&c->lock, SLU_RANK_LEAF, 2, "crowd");
	slu_cond_init(&c->woken);
	err = err ? err : slu_thread_start(&c->reader, "reader", crowd_reader, c);
	for (int i = 0; i < NWRITERS; i++)
		err = err ? err : slu_thread_start(&c->writers[i], "writer", crowd_writer, c);
	slu_assert(!err);
	for (int i = 0; i < NWRITERS; i++)
		slu_thread_join(&c->writers[i]);
	/* Nothing is posted any more: whoever was not woken for the last of it would sleep on it. */
	while (slu_ring_used(&c->ring))
		slu_sleep_ns(SLU_NS_PER_MS);
	slu_mutex_lock(&c->lock);
	c->done = true;
	slu_cond_signal(&c->woken);
	slu_mutex_unlock(&c->lock);
	slu_thread_join(&c->reader);
	slu_assert(c->nlost == slu_ring_total_lost(&c->ring));
	slu_assert(c->nseen + c->nlost == posted);
	slu_cond_fini(&c->woken);
	slu_mutex_fini(&c->lock);
	slu_ring_fini(&c->ring);
}

/* A wakeup that is lost never ends here; one without cause happens at every other wait. */
static void no_wakeup_is_lost_in_any_order(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct crowd c = {.per_writer = PER_WRITER};
		struct slu_sim *sim = slu_sim_new(seed);

		assert_non_null(sim);
		slu_sim_preempt(sim, seed % 2 ? 1 : 3);
		slu_sim_spurious(sim, seed % 3 ? 2 : 0);
		if (slu_sim_run(sim, crowd_main, &c, stderr))
			fail_msg("seed %llu", (unsigned long long)seed);
		slu_sim_free(sim);
	}
}

static void real_threads_lose_nothing(void **state)
{
	struct crowd c = {.per_writer = 20000};

	(void)state;
	crowd_main(&c);
}

/* ------------------------------------------------------------------ the stream of events */

static void send(struct slu_event_stream *s, enum slu_event_kind kind, uint64_t ino)
{
	struct slu_event_sink sink = slu_event_stream_sink(s);

	slu_event_post(&sink, &(struct slu_event){.kind = kind, .ino = ino});
}

static void every_watcher_sees_every_event(void **state)
{
	struct slu_event_stream s;
	struct slu_event_watch a, b;
	struct slu_event ev;
	uint64_t lost;

	(void)state;
	slu_event_stream_init(&s);
	send(&s, SLU_EVENT_NO_SPACE, 1); /* nobody listens; counted */
	assert_int_equal(slu_event_watch_add(&s, &a, 16, 0, NULL, NULL), 0);
	send(&s, SLU_EVENT_SLOW_COMMIT, 2);
	assert_int_equal(slu_event_watch_add(&s, &b, 16, 0, NULL, NULL), 0);
	send(&s, SLU_EVENT_NO_SPACE, 3);
	for (uint64_t seq = 2; seq <= 3; seq++) {
		assert_true(slu_ring_take(&a.ring, &ev, &lost));
		assert_int_equal(ev.ino, seq);
		assert_int_equal(ev.seq, seq);
		assert_true(ev.when.tv_sec > 1000000000);
	}
	assert_true(slu_ring_take(&b.ring, &ev, &lost));
	assert_int_equal(ev.seq, 3);
	assert_false(slu_ring_take(&b.ring, &ev, &lost));
	assert_int_equal(atomic_load(&s.counts[SLU_EVENT_NO_SPACE]), 2);
	slu_event_watch_remove(&s, &a);
	send(&s, SLU_EVENT_NO_SPACE, 4);
	assert_true(slu_ring_take(&b.ring, &ev, &lost));
	slu_event_watch_remove(&s, &b);
	slu_event_stream_fini(&s);
}

static void who_does_not_read_learns_what_it_missed(void **state)
{
	struct slu_event_stream s;
	struct slu_event_watch w;
	struct slu_event ev;
	uint64_t lost, seen = 0, missed = 0, critical = 0;

	(void)state;
	slu_event_stream_init(&s);
	assert_int_equal(slu_event_watch_add(&s, &w, 16, 0, NULL, NULL), 0);
	for (uint64_t i = 0; i < 1000; i++)
		send(&s, SLU_EVENT_WRITEBACK_ERROR, i);
	send(&s, SLU_EVENT_DATA_LOST, 1000);
	send(&s, SLU_EVENT_READONLY, 1001);
	send(&s, SLU_EVENT_READ_ERROR, 1002);
	while (slu_ring_take(&w.ring, &ev, &lost)) {
		seen++;
		missed += lost;
		critical += slu_event_is_critical(ev.kind);
		assert_int_equal(ev.seq, seen + missed); /* it is told where */
	}
	assert_int_equal(lost, 1);
	assert_int_equal(seen + missed + lost, 1003);
	assert_int_equal(critical, 2);
	slu_event_watch_remove(&s, &w);
	slu_event_stream_fini(&s);
}

static void who_comes_late_is_told_what_was_last(void **state)
{
	struct slu_event_stream s;
	struct slu_event_watch w;
	struct slu_event ev;
	uint64_t lost, seq;

	(void)state;
	slu_event_stream_init(&s);
	assert_false(slu_event_stream_last(&s, NULL, &ev));
	/* more than there were */
	send(&s, SLU_EVENT_MOUNTED, 1);
	assert_int_equal(slu_event_watch_add(&s, &w, 256, 10, NULL, NULL), 0);
	assert_true(slu_ring_take(&w.ring, &ev, &lost));
	assert_int_equal(ev.kind, SLU_EVENT_MOUNTED);
	assert_false(slu_ring_take(&w.ring, &ev, &lost));
	slu_event_watch_remove(&s, &w);
	/* as many as asked for, and what comes after */
	for (seq = 2; seq <= 3 * SLU_EVENTS_KEPT; seq++)
		send(&s, SLU_EVENT_NO_SPACE, seq);
	assert_int_equal(slu_event_watch_add(&s, &w, 256, 2, NULL, NULL), 0);
	send(&s, SLU_EVENT_NO_SPACE, seq);
	for (uint64_t want = seq - 2; want <= seq; want++) {
		assert_true(slu_ring_take(&w.ring, &ev, &lost));
		assert_int_equal(ev.seq, want);
		assert_int_equal(ev.ino, want);
	}
	assert_false(slu_ring_take(&w.ring, &ev, &lost));
	slu_event_watch_remove(&s, &w);
	/* no more than are kept, in order */
	assert_int_equal(slu_event_watch_add(&s, &w, 256, UINT64_MAX, NULL, NULL), 0);
	for (uint64_t want = seq - SLU_EVENTS_KEPT + 1; want <= seq; want++) {
		assert_true(slu_ring_take(&w.ring, &ev, &lost));
		assert_int_equal(ev.seq, want);
		assert_int_equal(lost, 0);
	}
	assert_false(slu_ring_take(&w.ring, &ev, &lost));
	assert_true(slu_event_stream_last(&s, NULL, &ev));
	assert_int_equal(ev.seq, seq);
	slu_event_watch_remove(&s, &w);
	slu_event_stream_fini(&s);
}

static bool is_no_space(const struct slu_event *ev)
{
	return ev->kind == SLU_EVENT_NO_SPACE;
}

static void the_last_one_that_is_wanted_is_found(void **state)
{
	struct slu_event_stream s;
	struct slu_event ev;

	(void)state;
	slu_event_stream_init(&s);
	assert_false(slu_event_stream_last(&s, is_no_space, &ev));
	for (uint64_t seq = 1; seq <= 4; seq++)
		send(&s, seq % 2 ? SLU_EVENT_NO_SPACE : SLU_EVENT_THAWED, seq);
	assert_true(slu_event_stream_last(&s, is_no_space, &ev));
	assert_int_equal(ev.seq, 3);
	/* for as long as it is kept */
	for (uint64_t seq = 5; seq < 3 + SLU_EVENTS_KEPT; seq++)
		send(&s, SLU_EVENT_THAWED, seq);
	assert_true(slu_event_stream_last(&s, is_no_space, &ev));
	assert_int_equal(ev.seq, 3);
	send(&s, SLU_EVENT_THAWED, 3 + SLU_EVENTS_KEPT);
	assert_false(slu_event_stream_last(&s, is_no_space, &ev));
	slu_event_stream_fini(&s);
}

static void every_kind_has_a_name_of_its_own(void **state)
{
	(void)state;
	for (unsigned int a = 0; a < SLU_EVENT_KINDS; a++) {
		assert_non_null(slu_event_kind_name(a));
		for (unsigned int b = 0; b < a; b++)
			assert_string_not_equal(slu_event_kind_name(a), slu_event_kind_name(b));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distances_survive_the_wrap),
		cmocka_unit_test(slots_come_in_order_over_the_wrap_of_the_indices),
		cmocka_unit_test(the_last_slots_are_for_what_is_critical),
		cmocka_unit_test(the_hook_is_called_when_it_stops_being_empty),
		cmocka_unit_test(no_memory_leaves_nothing),
		cmocka_unit_test(no_wakeup_is_lost_in_any_order),
		cmocka_unit_test(real_threads_lose_nothing),
		cmocka_unit_test(every_watcher_sees_every_event),
		cmocka_unit_test(who_does_not_read_learns_what_it_missed),
		cmocka_unit_test(who_comes_late_is_told_what_was_last),
		cmocka_unit_test(the_last_one_that_is_wanted_is_found),
		cmocka_unit_test(every_kind_has_a_name_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
