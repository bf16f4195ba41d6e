/* SPDX-License-Identifier: MIT */
/* The simulator: replay from a seed, the virtual clock, deadlocks and lost wakeups found. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sluice/base.h"
#include "test_base_abort.h"

/* Runs fn in a simulation of its own; what slu_sim_run answers. Text of the report in `report`. */
static int run_reported(uint64_t seed, void (*fn)(void *), void *arg, char *report, size_t size)
{
	struct slu_sim *sim = slu_sim_new(seed);
	FILE *f = report ? fmemopen(report, size, "w") : NULL;
	int err;

	assert_non_null(sim);
	err = slu_sim_run(sim, fn, arg, f);
	if (f)
		fclose(f);
	slu_sim_free(sim);
	return err;
}

static int run(uint64_t seed, void (*fn)(void *), void *arg)
{
	return run_reported(seed, fn, arg, NULL, 0);
}

static void start(struct slu_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	int err = slu_thread_start(t, name, fn, arg);

	slu_assert(err == 0);
}

/* ------------------------------------------------------------------ replay */

enum { NWORKERS = 4, LOG_SIZE = 4096 };

/* Workers that use a bit of everything, and write down in which order. */
struct bustle {
	struct slu_mutex lock;
	struct slu_rwlock rwlock;
	struct slu_cond cond;
	_Atomic uint32_t word;
	uint64_t log[LOG_SIZE];
	unsigned int n, next_worker, shared, done;
};

static void bustle_note(struct bustle *b, uint64_t what)
{
	slu_assert(b->n < LOG_SIZE);
	b->log[b->n++] = what;
}

static void bustle_worker(void *arg)
{
	struct bustle *b = arg;
	unsigned int me;

	slu_mutex_lock(&b->lock);
	me = b->next_worker++;
	slu_mutex_unlock(&b->lock);
	for (unsigned int i = 0; i < 40; i++) {
		slu_mutex_lock(&b->lock);
		bustle_note(b, me);
		slu_cond_signal(&b->cond);
		if (i % 8 == 3)
			slu_cond_timedwait(&b->cond, &b->lock,
					   slu_clock_ns() + slu_random() % 1000);
		bustle_note(b, slu_clock_ns());
		slu_mutex_unlock(&b->lock);
		if (i % 4 == me) {
			slu_rwlock_wrlock(&b->rwlock);
			b->shared++;
			slu_rwlock_wrunlock(&b->rwlock);
		} else {
			slu_rwlock_rdlock(&b->rwlock);
			bustle_note(b, b->shared);
			slu_rwlock_rdunlock(&b->rwlock);
		}
		if (i % 16 == 5)
			slu_sleep_ns(slu_random() % 5000);
		if (i % 10 == 7)
			slu_yield();
		atomic_fetch_add(&b->word, 1);
		slu_word_wake(&b->word, 1);
		if (i % 9 == 1)
			slu_word_wait(&b->word, atomic_load(&b->word), slu_clock_ns() + 700);
	}
	slu_mutex_lock(&b->lock);
	b->done++;
	slu_cond_broadcast(&b->cond);
	slu_mutex_unlock(&b->lock);
}

static void bustle_main(void *arg)
{
	struct slu_thread threads[NWORKERS];
	struct bustle *b = arg;

	for (int i = 0; i < NWORKERS; i++)
		start(&threads[i], "worker", bustle_worker, b);
	slu_mutex_lock(&b->lock);
	while (b->done < NWORKERS)
		slu_cond_wait(&b->cond, &b->lock);
	slu_mutex_unlock(&b->lock);
	for (int i = 0; i < NWORKERS; i++)
		slu_thread_join(&threads[i]);
}

static uint64_t run_bustle(uint64_t seed, struct bustle *b)
{
	struct slu_sim *sim = slu_sim_new(seed);
	uint64_t trace;

	memset(b, 0, sizeof(*b));
	slu_mutex_init(&b->lock, SLU_RANK_LEAF, 0, "bustle");
	slu_rwlock_init(&b->rwlock, SLU_RANK_INODE, 1, "bustle");
	slu_cond_init(&b->cond);
	assert_non_null(sim);
	assert_int_equal(slu_sim_run(sim, bustle_main, b, stderr), 0);
	trace = slu_sim_trace(sim);
	assert_true(slu_sim_steps(sim) > 1000);
	assert_int_equal(slu_sim_seed(sim), seed);
	slu_sim_free(sim);
	slu_cond_fini(&b->cond);
	slu_rwlock_fini(&b->rwlock);
	slu_mutex_fini(&b->lock);
	return trace;
}

static void the_same_seed_gives_the_same_run(void **state)
{
	static struct bustle a, b;

	for (uint64_t seed = 0; seed < 20; seed++) {
		assert_true(run_bustle(seed, &a) == run_bustle(seed, &b));
		assert_int_equal(a.n, b.n);
		assert_memory_equal(a.log, b.log, a.n * sizeof(a.log[0]));
	}
}

static void other_seeds_give_other_runs(void **state)
{
	static struct bustle a, b;
	uint64_t traces[20];

	for (uint64_t seed = 0; seed < 20; seed++) {
		traces[seed] = run_bustle(seed, &a);
		for (uint64_t i = 0; i < seed; i++)
			assert_true(traces[i] != traces[seed]);
	}
	run_bustle(1, &a);
	run_bustle(2, &b);
	assert_true(a.n != b.n || memcmp(a.log, b.log, a.n * sizeof(a.log[0])));
}

struct elsewhere {
	struct bustle bustle;
	uint64_t seed, trace;
};

static void run_elsewhere(void *arg)
{
	struct elsewhere *e = arg;

	e->trace = run_bustle(e->seed, &e->bustle);
}

static void two_simulations_at_once_do_not_disturb_each_other(void **state)
{
	static struct elsewhere e[2] = {{.seed = 11}, {.seed = 12}};
	static struct bustle alone;
	struct slu_thread threads[2];

	for (int i = 0; i < 2; i++)
		start(&threads[i], "elsewhere", run_elsewhere, &e[i]);
	for (int i = 0; i < 2; i++)
		slu_thread_join(&threads[i]);
	for (int i = 0; i < 2; i++)
		assert_true(e[i].trace == run_bustle(e[i].seed, &alone));
}

static void random_main(void *arg)
{
	uint64_t *numbers = arg;

	for (int i = 0; i < 10; i++)
		numbers[i] = slu_random();
	numbers[10] = slu_sim_below(slu_sim_current(), 1000);
}

static void random_numbers_come_from_the_seed(void **state)
{
	uint64_t a[11], b[11], c[11];

	assert_int_equal(run(5, random_main, a), 0);
	assert_int_equal(run(5, random_main, b), 0);
	assert_int_equal(run(6, random_main, c), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_memory_not_equal(a, c, sizeof(a));
	assert_true(a[10] < 1000);
	assert_null(slu_sim_current());
}

static void below_is_even(void **state)
{
	struct slu_sim *sim = slu_sim_new(1);
	unsigned int hits[7] = {0};

	for (int i = 0; i < 70000; i++)
		hits[slu_sim_below(sim, 7)]++;
	for (int i = 0; i < 7; i++)
		assert_in_range(hits[i], 9500, 10500);
	slu_sim_free(sim);
}

/* ----------------------------------------------------------------- locks keep what they promise */

struct guarded {
	struct slu_mutex lock;
	struct slu_rwlock rwlock;
	int inside, readers, writers, most_readers;
	unsigned int tries_failed;
};

static void guarded_worker(void *arg) SLU_NO_TSA
{
	struct guarded *g = arg;

	for (int i = 0; i < 30; i++) {
		bool got = i % 3 != 0;

		if (got)
			slu_mutex_lock(&g->lock);
		else
			got = slu_mutex_trylock(&g->lock);
		if (got) {
			slu_assert(g->inside++ == 0);
			slu_yield();
			slu_assert(--g->inside == 0);
			slu_mutex_unlock(&g->lock);
		} else {
			g->tries_failed++;
		}
		slu_rwlock_rdlock(&g->rwlock);
		g->readers++;
		g->most_readers = slu_max(g->most_readers, g->readers);
		slu_assert(g->writers == 0);
		slu_yield();
		slu_assert(g->writers == 0);
		g->readers--;
		slu_rwlock_rdunlock(&g->rwlock);
		if (i % 2) {
			slu_rwlock_wrlock(&g->rwlock);
		} else if (!slu_rwlock_trywrlock(&g->rwlock)) {
			g->tries_failed++;
			continue;
		}
		slu_assert(g->readers == 0 && g->writers++ == 0);
		slu_yield();
		slu_assert(g->readers == 0 && --g->writers == 0);
		slu_rwlock_wrunlock(&g->rwlock);
	}
}

static void guarded_main(void *arg)
{
	struct slu_thread threads[3];

	for (int i = 0; i < 3; i++)
		start(&threads[i], "guarded", guarded_worker, arg);
	guarded_worker(arg);
	for (int i = 0; i < 3; i++)
		slu_thread_join(&threads[i]);
}

static void locks_exclude_in_every_run(void **state)
{
	struct guarded g = {0};

	slu_mutex_init(&g.lock, SLU_RANK_LEAF, 0, "guarded");
	slu_rwlock_init(&g.rwlock, SLU_RANK_INODE, 1, "guarded");
	for (uint64_t seed = 0; seed < 50; seed++)
		assert_int_equal(run_reported(seed, guarded_main, &g, NULL, 0), 0);
	/* Else the asserts above had nothing to see. */
	assert_true(g.most_readers > 1);
	assert_true(g.tries_failed > 0);
	slu_rwlock_fini(&g.rwlock);
	slu_mutex_fini(&g.lock);
}

struct preference {
	struct slu_rwlock lock;
	int order, writer_at, reader_at;
};

static void prefer_writer(void *arg)
{
	struct preference *p = arg;

	slu_rwlock_wrlock(&p->lock);
	p->writer_at = ++p->order;
	slu_rwlock_wrunlock(&p->lock);
}

static void prefer_reader(void *arg)
{
	struct preference *p = arg;

	slu_sleep_ns(1000);
	slu_rwlock_rdlock(&p->lock);
	p->reader_at = ++p->order;
	slu_rwlock_rdunlock(&p->lock);
}

static void prefer_main(void *arg)
{
	struct preference *p = arg;
	struct slu_thread threads[2];

	slu_rwlock_rdlock(&p->lock);
	start(&threads[0], "writer", prefer_writer, p);
	start(&threads[1], "reader", prefer_reader, p);
	slu_sleep_ns(2000);
	slu_rwlock_rdunlock(&p->lock);
	for (int i = 0; i < 2; i++)
		slu_thread_join(&threads[i]);
}

static void a_waiting_writer_goes_before_a_new_reader(void **state)
{
	struct preference p = {.order = 0};

	slu_rwlock_init(&p.lock, SLU_RANK_INODE, 1, "preference");
	for (uint64_t seed = 0; seed < 50; seed++) {
		p.order = 0;
		assert_int_equal(run(seed, prefer_main, &p), 0);
		assert_int_equal(p.writer_at, 1);
		assert_int_equal(p.reader_at, 2);
	}
	slu_rwlock_fini(&p.lock);
}

struct torn {
	int value;
};

static void torn_worker(void *arg)
{
	struct torn *t = arg;

	for (int i = 0; i < 5; i++) {
		int value = t->value;

		slu_stress_point("test.torn");
		t->value = value + 1;
	}
}

static void torn_main(void *arg)
{
	struct slu_thread threads[2];

	for (int i = 0; i < 2; i++)
		start(&threads[i], "torn", torn_worker, arg);
	for (int i = 0; i < 2; i++)
		slu_thread_join(&threads[i]);
}

static void a_stress_point_in_a_race_window_loses_an_update(void **state)
{
	int lost = 0, whole = 0;

#ifndef SLU_STRESS_POINTS
	print_message("SKIPPED: built without SLU_STRESS_POINTS\n");
	skip();
#endif
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct torn t = {0};

		assert_int_equal(run(seed, torn_main, &t), 0);
		lost += t.value < 10;
		whole += t.value == 10;
	}
	assert_true(lost > 0);
	assert_true(whole > 0);
}

/* ------------------------------------------------------------------ the clock */

struct sleeper {
	uint64_t ns, woke_at;
	int *order, was;
};

static void sleeper_main(void *arg)
{
	struct sleeper *s = arg;

	slu_sleep_ns(s->ns);
	s->woke_at = slu_clock_ns();
	s->was = ++*s->order;
}

static void clock_main(void *arg)
{
	static const uint64_t hours[] = {3, 1, 2};
	uint64_t hour = 3600 * SLU_NS_PER_SEC, begin = slu_clock_ns();
	struct timespec wall = slu_clock_realtime(), later;
	struct slu_thread threads[3];
	struct sleeper sleepers[3];
	int order = 0;

	for (int i = 0; i < 3; i++) {
		sleepers[i] = (struct sleeper){.ns = hours[i] * hour, .order = &order};
		start(&threads[i], "sleeper", sleeper_main, &sleepers[i]);
	}
	/* Working does not move the clock. */
	for (int i = 0; i < 1000; i++)
		slu_stress_point("test.work");
	slu_assert(slu_clock_ns() == begin);
	for (int i = 0; i < 3; i++)
		slu_thread_join(&threads[i]);
	for (int i = 0; i < 3; i++) {
		slu_assert(sleepers[i].woke_at == begin + hours[i] * hour);
		slu_assert(sleepers[i].was == (int)hours[i]);
	}
	later = slu_clock_realtime();
	slu_assert(later.tv_sec - wall.tv_sec == 3 * 3600);
}

static void time_jumps_to_the_next_deadline_when_all_wait(void **state)
{
	uint64_t begin = slu_clock_ns();

	for (uint64_t seed = 0; seed < 20; seed++)
		assert_int_equal(run(seed, clock_main, NULL), 0);
	/* 60 hours of sleep. */
	assert_true(slu_clock_ns() - begin < 60 * SLU_NS_PER_SEC);
}

struct timed {
	struct slu_mutex lock;
	struct slu_cond cond;
	_Atomic uint32_t word;
	bool set;
};

static void timed_main(void *arg)
{
	struct timed *t = arg;
	uint64_t deadline = slu_clock_ns() + 12345;

	slu_mutex_lock(&t->lock);
	while (slu_cond_timedwait(&t->cond, &t->lock, deadline) == 0)
		slu_assert(slu_clock_ns() < deadline);
	slu_assert(slu_clock_ns() == deadline);
	slu_assert(slu_cond_timedwait(&t->cond, &t->lock, deadline) == -ETIMEDOUT);
	slu_mutex_unlock(&t->lock);

	deadline += 100;
	while (slu_word_wait(&t->word, 0, deadline) == 0)
		slu_assert(slu_clock_ns() < deadline);
	slu_assert(slu_clock_ns() == deadline);
	slu_assert(slu_word_wait(&t->word, 1, SLU_NO_DEADLINE) == 0);
}

static void timed_init(struct timed *t)
{
	*t = (struct timed){.set = false};
	slu_mutex_init(&t->lock, SLU_RANK_LEAF, 0, "timed");
	slu_cond_init(&t->cond);
}

static void timed_fini(struct timed *t)
{
	slu_cond_fini(&t->cond);
	slu_mutex_fini(&t->lock);
}

static void waits_end_exactly_at_their_deadline(void **state)
{
	struct timed t;

	timed_init(&t);
	for (uint64_t seed = 0; seed < 200; seed++)
		assert_int_equal(run(seed, timed_main, &t), 0);
	timed_fini(&t);
}

static void timed_setter(void *arg)
{
	struct timed *t = arg;

	slu_sleep_ns(1000);
	t->set = true;
}

static void yielding_main(void *arg)
{
	struct timed *t = arg;
	struct slu_thread thread;

	t->set = false;
	start(&thread, "setter", timed_setter, t);
	while (!t->set)
		slu_yield();
	slu_thread_join(&thread);
}

static void a_loop_that_yields_until_a_deadline_of_another_task_ends(void **state)
{
	struct timed t;

	timed_init(&t);
	for (uint64_t seed = 0; seed < 50; seed++)
		assert_int_equal(run(seed, yielding_main, &t), 0);
	timed_fini(&t);
}

static void spurious_main(void *arg)
{
	unsigned int *early = arg;
	_Atomic uint32_t word = 0;

	for (int i = 0; i < 1000; i++)
		*early += slu_word_wait(&word, 0, slu_clock_ns() + 10) == 0;
}

static void some_waits_end_without_cause_unless_switched_off(void **state)
{
	for (unsigned int one_in = 0; one_in <= 10; one_in += 10) {
		struct slu_sim *sim = slu_sim_new(3);
		unsigned int early = 0;

		slu_sim_spurious(sim, one_in);
		assert_int_equal(slu_sim_run(sim, spurious_main, &early, NULL), 0);
		assert_in_range(early, one_in ? 50 : 0, one_in ? 200 : 0);
		slu_sim_free(sim);
	}
}

struct timer {
	struct slu_mutex lock;
	struct slu_cond cond;
	bool busy, stop;
	unsigned int in_the_middle, fired;
};

static void timer_task(void *arg)
{
	struct timer *t = arg;

	slu_mutex_lock(&t->lock);
	while (!t->stop) {
		if (slu_cond_timedwait(&t->cond, &t->lock, slu_clock_ns() + SLU_NS_PER_SEC)) {
			t->fired++;
			t->in_the_middle += t->busy;
		}
	}
	slu_mutex_unlock(&t->lock);
}

static void timer_main(void *arg)
{
	struct timer *t = arg;
	struct slu_thread thread;

	t->stop = false;
	start(&thread, "timer", timer_task, t);
	for (int i = 0; i < 50; i++) {
		t->busy = true;
		slu_mutex_lock(&t->lock);
		slu_mutex_unlock(&t->lock);
		t->busy = false;
		slu_sleep_ns(SLU_NS_PER_SEC / 4);
	}
	slu_mutex_lock(&t->lock);
	t->stop = true;
	slu_cond_signal(&t->cond);
	slu_mutex_unlock(&t->lock);
	slu_thread_join(&thread);
}

static void timers_fire_in_the_middle_of_work_only_in_a_hurry(void **state)
{
	for (unsigned int hurry = 0; hurry <= 3; hurry += 3) {
		struct timer t = {.fired = 0};

		slu_mutex_init(&t.lock, SLU_RANK_LEAF, 0, "timer");
		slu_cond_init(&t.cond);
		for (uint64_t seed = 0; seed < 20; seed++) {
			struct slu_sim *sim = slu_sim_new(seed);

			/* At a time when both are due, either may go first: keep to one of them. */
			slu_sim_preempt(sim, hurry ? 2 : 0);
			slu_sim_hurry(sim, hurry);
			assert_int_equal(slu_sim_run(sim, timer_main, &t, stderr), 0);
			slu_sim_free(sim);
		}
		assert_true(t.fired > 0);
		assert_int_equal(t.in_the_middle > 0, hurry > 0);
		slu_cond_fini(&t.cond);
		slu_mutex_fini(&t.lock);
	}
}

/* ------------------------------------------------------------------ deadlocks */

struct knot {
	struct slu_mutex lock;
	_Atomic uint32_t word;
};

static void knot_waiter(void *arg)
{
	struct knot *k = arg;

	slu_mutex_lock_at(&k->lock, "waiter.c:1");
	slu_mutex_unlock(&k->lock);
}

static void knot_main(void *arg) SLU_NO_TSA
{
	struct knot *k = arg;
	struct slu_thread thread;

	slu_mutex_lock_at(&k->lock, "holder.c:1");
	start(&thread, "the waiter", knot_waiter, k);
	/* Whoever would set the word needs the lock. */
	while (!atomic_load(&k->word))
		slu_word_wait_at(&k->word, 0, SLU_NO_DEADLINE, "holder.c:2");
}

static void a_deadlock_is_found_and_every_task_named(void **state)
{
	static struct knot k; /* the tasks stay in it */
	char report[4096] = "";
	static const char *const says[] = {
		"deadlock",       "seed 42",    "task 1 \"main\"", "holder.c:2",
		"word",           "expected 0", "\"the waiter\"",  "mutex \"the knot\"",
		"held by task 1", "waiter.c:1",
	};

	slu_mutex_init(&k.lock, SLU_RANK_LEAF, 0, "the knot");
	assert_int_equal(run_reported(42, knot_main, &k, report, sizeof(report)), -EDEADLK);
	for (size_t i = 0; i < slu_array_size(says); i++) {
		if (!strstr(report, says[i]))
			fail_msg("\"%s\" not in:\n%s", says[i], report);
	}
#ifdef SLU_DEBUG_LOCKS
	assert_non_null(strstr(report, "holds leaf 0 \"the knot\" (holder.c:1)"));
#endif
}

/*
 * One task waits for a flag that another sets; wrong: it looks at the flag before it has the lock.
 */
struct flag {
	struct slu_mutex lock;
	struct slu_cond cond;
	bool set, wrong;
};

static void flag_setter(void *arg)
{
	struct flag *f = arg;

	slu_mutex_lock(&f->lock);
	f->set = true;
	slu_cond_signal(&f->cond);
	slu_mutex_unlock(&f->lock);
}

static void flag_main(void *arg)
{
	struct flag *f = arg;
	struct slu_thread thread;

	f->set = false;
	start(&thread, "setter", flag_setter, f);
	if (f->wrong) {
		while (!f->set) {
			slu_mutex_lock(&f->lock);
			slu_cond_wait(&f->cond, &f->lock);
			slu_mutex_unlock(&f->lock);
		}
	} else {
		slu_mutex_lock(&f->lock);
		while (!f->set)
			slu_cond_wait(&f->cond, &f->lock);
		slu_mutex_unlock(&f->lock);
	}
	slu_thread_join(&thread);
}

static void take_in_wrong_order(void *arg) SLU_NO_TSA
{
	struct slu_mutex store, space;

	slu_mutex_init(&store, SLU_RANK_STORE, 0, "store");
	slu_mutex_init(&space, SLU_RANK_SPACE, 0, "space");
	slu_mutex_lock_at(&store, "outer.c:1");
	slu_mutex_lock_at(&space, "inner.c:2");
}

static void assert_wrongly(void *arg)
{
	slu_sleep_ns(77);
	slu_assert(!"so");
}

static void run_wrong_order(void)
{
	slu_sim_run(slu_sim_new(4711), take_in_wrong_order, NULL, NULL);
}

static void run_wrong_assertion(void)
{
	slu_sim_run(slu_sim_new(4711), assert_wrongly, NULL, NULL);
}

static void what_aborts_in_a_task_names_the_seed(void **state)
{
	expect_abort_saying(run_wrong_assertion, "seed 4711", "task 1 \"main\"", "1000000077 ns",
			    "so");
#ifdef SLU_DEBUG_LOCKS
	expect_abort_saying(run_wrong_order, "seed 4711", "outer.c:1", "inner.c:2");
#else
	(void)run_wrong_order;
#endif
}

static void the_log_has_a_line_for_every_switch(void **state)
{
	static char text[1 << 20];
	struct slu_sim *sim = slu_sim_new(1);
	FILE *f = fmemopen(text, sizeof(text), "w");
	struct flag flag = {.set = false};

	slu_mutex_init(&flag.lock, SLU_RANK_LEAF, 0, "flag");
	slu_cond_init(&flag.cond);
	slu_sim_preempt(sim, 1);
	slu_sim_log(sim, f);
	assert_int_equal(slu_sim_run(sim, flag_main, &flag, stderr), 0);
	fclose(f);
	slu_sim_free(sim);
	assert_non_null(strstr(text, "1 main "));
	assert_non_null(strstr(text, "2 setter "));
	slu_cond_fini(&flag.cond);
	slu_mutex_fini(&flag.lock);
}

static void spin_main(void *arg)
{
	for (;;)
		slu_yield();
}

static void a_limit_ends_what_spins(void **state)
{
	struct slu_sim *sim = slu_sim_new(1);

	slu_sim_limit(sim, 10000);
	assert_int_equal(slu_sim_run(sim, spin_main, NULL, NULL), -ELOOP);
	assert_in_range(slu_sim_steps(sim), 10000, 10010);
	slu_sim_free(sim);
}

static void a_deadline_anywhere_is_no_deadlock(void **state)
{
	struct timed t;

	timed_init(&t);
	assert_int_equal(run(1, timed_main, &t), 0);
	timed_fini(&t);
}

/* ------------------------------------------------------------------ lost wakeups */

static void some_seed_finds_a_lost_wakeup_and_none_blames_the_right_program(void **state)
{
	static struct flag right, wrong = {.wrong = true}; /* tasks stay in the wrong one */
	uint64_t seed;

	slu_mutex_init(&right.lock, SLU_RANK_LEAF, 0, "flag");
	slu_cond_init(&right.cond);
	for (seed = 0; seed < 1000; seed++)
		assert_int_equal(run(seed, flag_main, &right), 0);
	slu_cond_fini(&right.cond);
	slu_mutex_fini(&right.lock);

	slu_mutex_init(&wrong.lock, SLU_RANK_LEAF, 0, "flag");
	slu_cond_init(&wrong.cond);
	for (seed = 0; seed < 1000; seed++) {
		int err = run(seed, flag_main, &wrong);

		if (err) {
			assert_int_equal(err, -EDEADLK);
			break;
		}
	}
	print_message("lost wakeup found by seed %llu\n", (unsigned long long)seed);
	assert_true(seed < 1000);
}

/* A lock bit with a bit for waiters; wrong: unlock clears both and wakes only one. */
struct bit {
	_Atomic uint32_t word;
	uint64_t count;
	bool wrong;
};

static void bit_worker(void *arg)
{
	struct bit *b = arg;

	for (int i = 0; i < 10; i++) {
		uint32_t v = 0;

		while (!atomic_compare_exchange_strong(&b->word, &v, v | 1) || (v & 1)) {
			if (!(v & 1))
				continue;
			atomic_fetch_or(&b->word, 2);
			slu_word_wait(&b->word, 3, SLU_NO_DEADLINE);
			v = atomic_load(&b->word) & 2;
		}
		b->count++;
		slu_yield();
		if (atomic_exchange(&b->word, 0) & 2)
			slu_word_wake(&b->word, b->wrong ? 1 : INT_MAX);
	}
}

static void bit_main(void *arg)
{
	struct slu_thread threads[3];
	struct bit *b = arg;

	atomic_store(&b->word, 0);
	b->count = 0;
	for (int i = 0; i < 3; i++)
		start(&threads[i], "bit", bit_worker, b);
	for (int i = 0; i < 3; i++)
		slu_thread_join(&threads[i]);
	slu_assert(b->count == 30);
}

static void some_seed_finds_a_waiter_that_a_word_forgot(void **state)
{
	static struct bit right, wrong = {.wrong = true};
	uint64_t seed;

	for (seed = 0; seed < 300; seed++)
		assert_int_equal(run(seed, bit_main, &right), 0);
	for (seed = 0; seed < 300; seed++) {
		if (run(seed, bit_main, &wrong) == -EDEADLK)
			break;
	}
	print_message("forgotten waiter found by seed %llu\n", (unsigned long long)seed);
	assert_true(seed < 300);
}

/* ------------------------------------------------------------------ tasks */

struct tree {
	struct slu_mutex lock;
	unsigned int ended;
};

struct tree_node {
	struct tree *tree;
	int depth;
};

static void tree_task(void *arg)
{
	const struct tree_node *me = arg;
	struct tree_node child = {me->tree, me->depth - 1};
	struct slu_thread threads[2];

	if (me->depth > 0) {
		for (int i = 0; i < 2; i++)
			start(&threads[i], "tree", tree_task, &child);
		for (int i = 0; i < 2; i++)
			slu_thread_join(&threads[i]);
	}
	slu_mutex_lock(&me->tree->lock);
	me->tree->ended++;
	slu_mutex_unlock(&me->tree->lock);
}

static void tasks_start_tasks_and_join_them(void **state)
{
	struct tree tree = {.ended = 0};
	struct tree_node root = {&tree, 5};

	slu_mutex_init(&tree.lock, SLU_RANK_LEAF, 0, "tree");
	assert_int_equal(run(9, tree_task, &root), 0);
	assert_int_equal(tree.ended, 63);
	slu_mutex_fini(&tree.lock);
}

static struct slu_thread stray_thread;

static void stray_task(void *arg)
{
	slu_sleep_ns(SLU_NS_PER_SEC);
	++*(int *)arg;
}

static void stray_main(void *arg)
{
	start(&stray_thread, "stray", stray_task, arg);
}

static void a_run_lasts_until_the_last_task_ends_and_can_be_followed(void **state)
{
	struct slu_sim *sim = slu_sim_new(4);
	uint64_t trace;
	int ended = 0;

	assert_int_equal(slu_sim_run(sim, stray_main, &ended, NULL), 0);
	assert_int_equal(ended, 1);
	trace = slu_sim_trace(sim);
	assert_int_equal(slu_sim_run(sim, stray_main, &ended, NULL), 0);
	assert_int_equal(ended, 2);
	assert_true(slu_sim_trace(sim) != trace);
	slu_sim_free(sim);
	slu_sim_free(NULL);
}

static void fault_task(void *arg)
{
	void *p = slu_alloc(1);

	*(bool *)arg = p == NULL;
	slu_free(p);
}

static void fault_main(void *arg)
{
	struct slu_thread thread;
	bool failed = false;

	slu_alloc_fail_nth(3);
	slu_free(slu_alloc(1));
	start(&thread, "fault", fault_task, &failed); /* the second */
	slu_thread_join(&thread);
	slu_assert(failed);
	slu_assert(slu_alloc_count() == 3);
	slu_alloc_fail_nth(1);
	slu_assert(slu_thread_start(&thread, "none", fault_task, &failed) == -ENOMEM);
}

static void allocation_faults_count_all_tasks_of_a_simulation(void **state)
{
	slu_alloc_fail_nth(0);
	assert_int_equal(run(1, fault_main, NULL), 0);
	/* And not the thread that runs it. */
	assert_int_equal(slu_alloc_count(), 0);
}

/* ------------------------------------------------------------------ cost */

static void busy_worker(void *arg)
{
	struct guarded *g = arg;

	for (int i = 0; i < 75000; i++) {
		slu_mutex_lock(&g->lock);
		g->inside++;
		slu_mutex_unlock(&g->lock);
	}
}

static void busy_main(void *arg)
{
	struct slu_thread threads[4];

	for (int i = 0; i < 4; i++)
		start(&threads[i], "busy", busy_worker, arg);
	for (int i = 0; i < 4; i++)
		slu_thread_join(&threads[i]);
}

static void show_cost(unsigned int one_in_n)
{
	struct slu_sim *sim = slu_sim_new(1);
	struct guarded g = {0};
	uint64_t begin;

	slu_mutex_init(&g.lock, SLU_RANK_LEAF, 0, "busy");
	slu_sim_preempt(sim, one_in_n);
	begin = slu_clock_ns();
	assert_int_equal(slu_sim_run(sim, busy_main, &g, stderr), 0);
	print_message("300,000 locked sections, switching at one point in %u: %llu ms\n", one_in_n,
		      (unsigned long long)((slu_clock_ns() - begin) / SLU_NS_PER_MS));
	assert_int_equal(g.inside, 300000);
	assert_true(slu_sim_steps(sim) >= 600000);
	slu_sim_free(sim);
	slu_mutex_fini(&g.lock);
}

static void long_runs_are_possible(void **state)
{
	show_cost(0);
	show_cost(64);
	show_cost(8);
	show_cost(4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: TSan wants no thread before a fork whose child starts some. */
		cmocka_unit_test(what_aborts_in_a_task_names_the_seed),
		cmocka_unit_test(the_same_seed_gives_the_same_run),
		cmocka_unit_test(other_seeds_give_other_runs),
		cmocka_unit_test(two_simulations_at_once_do_not_disturb_each_other),
		cmocka_unit_test(random_numbers_come_from_the_seed),
		cmocka_unit_test(below_is_even),
		cmocka_unit_test(locks_exclude_in_every_run),
		cmocka_unit_test(a_waiting_writer_goes_before_a_new_reader),
		cmocka_unit_test(a_stress_point_in_a_race_window_loses_an_update),
		cmocka_unit_test(time_jumps_to_the_next_deadline_when_all_wait),
		cmocka_unit_test(waits_end_exactly_at_their_deadline),
		cmocka_unit_test(a_loop_that_yields_until_a_deadline_of_another_task_ends),
		cmocka_unit_test(some_waits_end_without_cause_unless_switched_off),
		cmocka_unit_test(timers_fire_in_the_middle_of_work_only_in_a_hurry),
		cmocka_unit_test(a_deadlock_is_found_and_every_task_named),
		cmocka_unit_test(the_log_has_a_line_for_every_switch),
		cmocka_unit_test(a_limit_ends_what_spins),
		cmocka_unit_test(a_deadline_anywhere_is_no_deadlock),
		cmocka_unit_test(some_seed_finds_a_lost_wakeup_and_none_blames_the_right_program),
		cmocka_unit_test(some_seed_finds_a_waiter_that_a_word_forgot),
		cmocka_unit_test(tasks_start_tasks_and_join_them),
		cmocka_unit_test(a_run_lasts_until_the_last_task_ends_and_can_be_followed),
		cmocka_unit_test(allocation_faults_count_all_tasks_of_a_simulation),
		cmocka_unit_test(long_runs_are_possible),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
