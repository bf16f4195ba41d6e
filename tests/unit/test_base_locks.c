/* SPDX-License-Identifier: MIT */
/* Locks, conditions, words and threads on ordinary threads; what the rank checker refuses. */
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "sluice/base.h"
#include "test_base_abort.h"

/* ------------------------------------------------------------------ helpers */

static void need_rank_checks(void)
{
#ifndef SLU_DEBUG_LOCKS
	print_message("SKIPPED: built without SLU_DEBUG_LOCKS, nothing checks lock ranks\n");
	skip();
#endif
}

/* ------------------------------------------------------------------ ranks */

static void take_store_then_inode(void) SLU_NO_TSA
{
	struct slu_mutex store;
	struct slu_rwlock inode;

	slu_mutex_init(&store, SLU_RANK_STORE, 0, "the store");
	slu_rwlock_init(&inode, SLU_RANK_INODE, 77, "an inode");
	slu_mutex_lock_at(&store, "outer.c:1");
	slu_rwlock_rdlock_at(&inode, "inner.c:2");
}

static void inverted_order_aborts_and_names_both_sites(void **state)
{
	need_rank_checks();
	expect_abort_saying(take_store_then_inode, "outer.c:1", "inner.c:2", "the store",
			    "an inode", "77");
}

static void take_inodes(uint64_t first, uint64_t second)
{
	struct slu_rwlock a, b;

	slu_rwlock_init(&a, SLU_RANK_INODE, first, "inode");
	slu_rwlock_init(&b, SLU_RANK_INODE, second, "inode");
	slu_rwlock_wrlock_at(&a, "first.c:1");
	slu_rwlock_wrlock_at(&b, "second.c:2");
	slu_rwlock_wrunlock(&a);
	slu_rwlock_wrunlock(&b);
	slu_rwlock_fini(&a);
	slu_rwlock_fini(&b);
}

static void take_inodes_9_5(void)
{
	take_inodes(9, 5);
}

static void take_inodes_5_5(void)
{
	take_inodes(5, 5);
}

static void one_rank_must_go_up_in_order(void **state)
{
	take_inodes(5, 9);
	need_rank_checks();
	expect_abort_saying(take_inodes_9_5, "first.c:1", "second.c:2");
	expect_abort_saying(take_inodes_5_5, "first.c:1", "second.c:2");
}

static void lock_twice(void) SLU_NO_TSA
{
	struct slu_mutex m;

	slu_mutex_init(&m, SLU_RANK_SPACE, 0, "space");
	slu_mutex_lock_at(&m, "once.c:1");
	slu_mutex_lock_at(&m, "twice.c:1");
}

static void a_lock_taken_twice_aborts_instead_of_hanging(void **state)
{
	need_rank_checks();
	expect_abort_saying(lock_twice, "once.c:1", "twice.c:1");
}

static int page_bits[3];

static void lock_page_after_greater(void)
{
	slu_rank_acquire(SLU_RANK_PAGE, 4, &page_bits[0], "page.c:4");
	slu_rank_acquire(SLU_RANK_PAGE, 3, &page_bits[1], "page.c:3");
}

static void lock_page_after_tried_one(void)
{
	slu_rank_acquire(SLU_RANK_PAGE, 4, &page_bits[0], "page.c:4");
	slu_rank_acquired_try(SLU_RANK_PAGE, 2, &page_bits[1], "page.c:2");
	slu_rank_acquire(SLU_RANK_PAGE, 3, &page_bits[2], "page.c:3");
}

static void page_bits_are_checked_like_locks(void **state)
{
	struct slu_mutex extents;

	slu_mutex_init(&extents, SLU_RANK_EXTENTS, 0, "extents");
	slu_rank_acquire(SLU_RANK_PAGE, 3, &page_bits[0], "a");
	slu_rank_acquire(SLU_RANK_PAGE, 4, &page_bits[1], "b");
	/* Behind a trylock the order need not be kept, but what is held still counts. */
	slu_rank_acquired_try(SLU_RANK_PAGE, 1, &page_bits[2], "c");
	slu_mutex_lock(&extents);
	slu_rank_release(&page_bits[0]);
	slu_rank_release(&page_bits[2]);
	slu_mutex_unlock(&extents);
	slu_rank_release(&page_bits[1]);
	slu_assert_no_locks("the test");
	slu_mutex_fini(&extents);

	need_rank_checks();
	expect_abort_saying(lock_page_after_greater, "page.c:4", "page.c:3");
	expect_abort_saying(lock_page_after_tried_one, "page.c:4", "page.c:3");
}

static void many_page_locks_of_one_run_fit(void **state)
{
	static char bits[1024];

	for (size_t i = 0; i < sizeof(bits); i++)
		slu_rank_acquire(SLU_RANK_PAGE, i, &bits[i], SLU_HERE);
	for (size_t i = 0; i < sizeof(bits); i++)
		slu_rank_release(&bits[i]);
	slu_assert_no_locks("the test");
}

static void wait_for_need_with_lock(void) SLU_NO_TSA
{
	struct slu_mutex m;

	slu_mutex_init(&m, SLU_RANK_STORE, 0, "the store");
	slu_mutex_lock_at(&m, "held.c:1");
	slu_assert_no_locks("a node read");
}

static void wait_for_cond_with_second_lock(void) SLU_NO_TSA
{
	struct slu_mutex a, b;
	struct slu_cond c;

	slu_mutex_init(&a, SLU_RANK_SPACE, 0, "space");
	slu_mutex_init(&b, SLU_RANK_STORE, 0, "store");
	slu_cond_init(&c);
	slu_mutex_lock_at(&a, "held.c:7");
	slu_mutex_lock(&b);
	slu_cond_timedwait_at(&c, &b, slu_clock_ns(), "waits.c:8");
}

static void wait_for_cond_without_mutex(void) SLU_NO_TSA
{
	struct slu_mutex m;
	struct slu_cond c;

	slu_mutex_init(&m, SLU_RANK_SPACE, 0, "space");
	slu_cond_init(&c);
	slu_cond_wait_at(&c, &m, "waits.c:9");
}

static void nobody(void *arg)
{
}

static void join_with_lock(void) SLU_NO_TSA
{
	struct slu_mutex m;
	struct slu_thread t;

	slu_mutex_init(&m, SLU_RANK_CONTROL, 0, "control");
	slu_thread_start(&t, "nobody", nobody, NULL);
	slu_mutex_lock_at(&m, "held.c:3");
	slu_thread_join(&t);
}

static void waiting_with_a_lock_held_aborts(void **state)
{
	need_rank_checks();
	expect_abort_saying(wait_for_need_with_lock, "a node read", "the store", "held.c:1");
	expect_abort_saying(wait_for_cond_with_second_lock, "held.c:7", "waits.c:8");
	expect_abort_saying(wait_for_cond_without_mutex, "waits.c:9");
	expect_abort_saying(join_with_lock, "control", "held.c:3");
}

static void end_with_lock(void *arg) SLU_NO_TSA
{
	static struct slu_mutex m;

	slu_mutex_init(&m, SLU_RANK_CONTROL, 0, "control");
	slu_mutex_lock_at(&m, "held.c:4");
}

static void start_one_that_ends_with_lock(void)
{
	struct slu_thread t;

	slu_thread_start(&t, "ends", end_with_lock, NULL);
	slu_thread_join(&t);
}

static void a_thread_that_ends_with_a_lock_held_aborts(void **state)
{
	need_rank_checks();
	expect_abort_saying(start_one_that_ends_with_lock, "the end of its thread", "held.c:4");
}

static void unlock_not_held(void) SLU_NO_TSA
{
	struct slu_mutex m;

	slu_mutex_init(&m, SLU_RANK_CONTROL, 0, "control");
	slu_mutex_unlock(&m);
}

static void unlocking_what_is_not_held_aborts(void **state)
{
	need_rank_checks();
	expect_abort_saying(unlock_not_held, "does not hold");
}

static void fini_held_mutex(void) SLU_NO_TSA
{
	struct slu_mutex m;

	slu_mutex_init(&m, SLU_RANK_CONTROL, 0, "control");
	slu_mutex_lock(&m);
	slu_mutex_fini(&m);
}

static void fini_held_rwlock(void) SLU_NO_TSA
{
	struct slu_rwlock l;

	slu_rwlock_init(&l, SLU_RANK_CONTROL, 0, "control");
	slu_rwlock_rdlock(&l);
	slu_rwlock_fini(&l);
}

static void destroying_a_held_lock_aborts(void **state)
{
	expect_abort_saying(fini_held_mutex, "assertion failed");
	expect_abort_saying(fini_held_rwlock, "assertion failed");
}

static void fail_assertion(void)
{
	slu_assert(1 + 1 == 3);
}

static void a_failed_assertion_says_where_in_one_line(void **state)
{
	expect_abort_saying(fail_assertion, "sluice: ", "test_base_locks.c:", "1 + 1 == 3",
			    "fail_assertion");
}

/* ------------------------------------------------------------------ mutex and rwlock */

struct counter {
	struct slu_mutex lock;
	uint64_t value;
};

static void count_to_10000(void *arg)
{
	struct counter *c = arg;

	for (int i = 0; i < 10000; i++) {
		slu_mutex_lock(&c->lock);
		c->value++;
		slu_mutex_unlock(&c->lock);
	}
}

static void a_mutex_keeps_others_out(void **state)
{
	struct slu_thread threads[4];
	struct counter c = {.value = 0};

	slu_mutex_init(&c.lock, SLU_RANK_LEAF, 0, "counter");
	for (int i = 0; i < 4; i++)
		assert_int_equal(slu_thread_start(&threads[i], "count", count_to_10000, &c), 0);
	for (int i = 0; i < 4; i++)
		slu_thread_join(&threads[i]);
	assert_int_equal(c.value, 40000);
	slu_mutex_fini(&c.lock);
}

static void try_mutex(void *arg) SLU_NO_TSA
{
	struct counter *c = arg;

	c->value = slu_mutex_trylock(&c->lock);
	if (c->value)
		slu_mutex_unlock(&c->lock);
}

static void trylock_fails_only_while_another_holds_it(void **state) SLU_NO_TSA
{
	struct slu_thread t;
	struct counter c = {.value = 7};

	slu_mutex_init(&c.lock, SLU_RANK_LEAF, 0, "counter");
	assert_int_equal(slu_thread_start(&t, "try", try_mutex, &c), 0);
	slu_thread_join(&t);
	assert_int_equal(c.value, 1);

	assert_true(slu_mutex_trylock(&c.lock));
	{
		/* Joined by hand: slu_thread_join under a lock is what the checker refuses. */
		assert_int_equal(slu_thread_start(&t, "try", try_mutex, &c), 0);
		pthread_join(t.thread, NULL);
	}
	slu_mutex_unlock(&c.lock);
	assert_int_equal(c.value, 0);
	slu_mutex_fini(&c.lock);
}

struct preference {
	struct slu_rwlock lock;
	_Atomic int order, writer_at, reader_at;
	_Atomic bool writer_waits;
};

static void prefer_writer(void *arg)
{
	struct preference *p = arg;

	atomic_store(&p->writer_waits, true);
	slu_rwlock_wrlock(&p->lock);
	atomic_store(&p->writer_at, atomic_fetch_add(&p->order, 1) + 1);
	slu_rwlock_wrunlock(&p->lock);
}

static void prefer_reader(void *arg)
{
	struct preference *p = arg;

	slu_rwlock_rdlock(&p->lock);
	atomic_store(&p->reader_at, atomic_fetch_add(&p->order, 1) + 1);
	slu_rwlock_rdunlock(&p->lock);
}

static void a_waiting_writer_goes_before_a_new_reader(void **state)
{
	struct preference p = {.order = 0};
	struct slu_thread writer, reader;

	slu_rwlock_init(&p.lock, SLU_RANK_INODE, 1, "inode");
	slu_rwlock_rdlock(&p.lock);
	assert_int_equal(slu_thread_start(&writer, "writer", prefer_writer, &p), 0);
	while (!atomic_load(&p.writer_waits))
		slu_yield();
	slu_sleep_ns(50 * SLU_NS_PER_MS); /* from "is about to" to "waits" */
	assert_int_equal(slu_thread_start(&reader, "reader", prefer_reader, &p), 0);
	slu_sleep_ns(50 * SLU_NS_PER_MS);
	assert_int_equal(atomic_load(&p.order), 0);
	slu_rwlock_rdunlock(&p.lock);
	slu_thread_join(&writer);
	slu_thread_join(&reader);
	assert_int_equal(p.writer_at, 1);
	assert_int_equal(p.reader_at, 2);
	slu_rwlock_fini(&p.lock);
}

static void try_write(void *arg) SLU_NO_TSA
{
	struct preference *p = arg;

	p->writer_at = slu_rwlock_trywrlock(&p->lock);
	if (p->writer_at)
		slu_rwlock_wrunlock(&p->lock);
}

static void trywrlock_fails_while_there_is_a_reader(void **state)
{
	struct preference p = {.order = 0};
	struct slu_thread t;

	slu_rwlock_init(&p.lock, SLU_RANK_INODE, 1, "inode");
	slu_rwlock_rdlock(&p.lock);
	assert_int_equal(slu_thread_start(&t, "try", try_write, &p), 0);
	pthread_join(t.thread, NULL);
	assert_int_equal(p.writer_at, 0);
	slu_rwlock_rdunlock(&p.lock);
	assert_int_equal(slu_thread_start(&t, "try", try_write, &p), 0);
	slu_thread_join(&t);
	assert_int_equal(p.writer_at, 1);
	slu_rwlock_fini(&p.lock);
}

/* ------------------------------------------------------------------ conditions */

struct mailbox {
	struct slu_mutex lock;
	struct slu_cond changed;
	int full; /* letters in it, at most 1 */
	int taken;
};

static void take_letters(void *arg)
{
	struct mailbox *box = arg;

	for (int i = 0; i < 500; i++) {
		slu_mutex_lock(&box->lock);
		while (!box->full)
			slu_cond_wait(&box->changed, &box->lock);
		box->full--;
		box->taken++;
		slu_cond_broadcast(&box->changed);
		slu_mutex_unlock(&box->lock);
	}
}

static void conditions_hand_over_between_threads(void **state)
{
	struct slu_thread takers[2];
	struct mailbox box = {.full = 0};

	slu_mutex_init(&box.lock, SLU_RANK_LEAF, 0, "mailbox");
	slu_cond_init(&box.changed);
	for (int i = 0; i < 2; i++)
		assert_int_equal(slu_thread_start(&takers[i], "taker", take_letters, &box), 0);
	for (int i = 0; i < 1000; i++) {
		slu_mutex_lock(&box.lock);
		while (box.full)
			slu_cond_wait(&box.changed, &box.lock);
		box.full++;
		slu_cond_broadcast(&box.changed);
		slu_mutex_unlock(&box.lock);
	}
	for (int i = 0; i < 2; i++)
		slu_thread_join(&takers[i]);
	assert_int_equal(box.taken, 1000);
	slu_cond_fini(&box.changed);
	slu_mutex_fini(&box.lock);
}

static void timedwait_ends_at_its_deadline_and_not_before(void **state)
{
	uint64_t deadline = slu_clock_ns() + 60 * SLU_NS_PER_MS;
	struct slu_mutex m;
	struct slu_cond c;

	slu_mutex_init(&m, SLU_RANK_LEAF, 0, "m");
	slu_cond_init(&c);
	slu_mutex_lock(&m);
	while (slu_cond_timedwait(&c, &m, deadline) == 0)
		assert_true(slu_clock_ns() < deadline);
	assert_true(slu_clock_ns() >= deadline);
	assert_int_equal(slu_cond_timedwait(&c, &m, 0), -ETIMEDOUT);
	slu_mutex_unlock(&m);
	slu_cond_fini(&c);
	slu_mutex_fini(&m);
}

static void put_letter(void *arg)
{
	struct mailbox *box = arg;

	slu_mutex_lock(&box->lock);
	box->full = 1;
	slu_cond_signal(&box->changed);
	slu_mutex_unlock(&box->lock);
}

static void a_signal_ends_a_timedwait_early(void **state)
{
	uint64_t start = slu_clock_ns();
	struct mailbox box = {.full = 0};
	struct slu_thread t;
	int err = 0;

	slu_mutex_init(&box.lock, SLU_RANK_LEAF, 0, "mailbox");
	slu_cond_init(&box.changed);
	assert_int_equal(slu_thread_start(&t, "putter", put_letter, &box), 0);
	slu_mutex_lock(&box.lock);
	while (!box.full && !err)
		err = slu_cond_timedwait(&box.changed, &box.lock, start + 60 * SLU_NS_PER_SEC);
	slu_mutex_unlock(&box.lock);
	slu_thread_join(&t);
	assert_int_equal(err, 0);
	assert_true(slu_clock_ns() - start < 30 * SLU_NS_PER_SEC);
	slu_cond_fini(&box.changed);
	slu_mutex_fini(&box.lock);
}

/* ------------------------------------------------------------------ words */

/* A lock bit as the cache has it: bit 0 locked, bit 1 somebody waits. */
struct word_lock {
	_Atomic uint32_t word;
	uint64_t count;
};

static void word_lock_take(struct word_lock *l)
{
	uint32_t v = atomic_load(&l->word);

	for (;;) {
		if (!(v & 1)) {
			if (atomic_compare_exchange_weak(&l->word, &v, v | 1))
				return;
			continue;
		}
		if (!(v & 2) && !atomic_compare_exchange_weak(&l->word, &v, v | 2))
			continue;
		slu_word_wait(&l->word, v | 2, SLU_NO_DEADLINE);
		v = atomic_load(&l->word);
	}
}

static void word_lock_give(struct word_lock *l)
{
	if (atomic_exchange(&l->word, 0) & 2)
		slu_word_wake(&l->word, INT_MAX);
}

static void count_under_word(void *arg)
{
	struct word_lock *l = arg;

	for (int i = 0; i < 20000; i++) {
		word_lock_take(l);
		l->count++;
		word_lock_give(l);
	}
}

static void a_lock_bit_on_a_word_keeps_others_out(void **state)
{
	struct slu_thread threads[3];
	struct word_lock l = {.word = 0};

	for (int i = 0; i < 3; i++)
		assert_int_equal(slu_thread_start(&threads[i], "word", count_under_word, &l), 0);
	for (int i = 0; i < 3; i++)
		slu_thread_join(&threads[i]);
	assert_int_equal(l.count, 60000);
}

static void a_word_that_differs_is_not_waited_for(void **state)
{
	_Atomic uint32_t word = 5;

	assert_int_equal(slu_word_wait(&word, 4, SLU_NO_DEADLINE), 0);
}

static void a_word_wait_ends_at_its_deadline(void **state)
{
	uint64_t deadline = slu_clock_ns() + 40 * SLU_NS_PER_MS;
	_Atomic uint32_t word = 5;

	while (slu_word_wait(&word, 5, deadline) == 0)
		assert_true(slu_clock_ns() < deadline);
	assert_true(slu_clock_ns() >= deadline);
}

static void words_in_shared_memory_wake_another_process(void **state)
{
	_Atomic uint32_t *word = mmap(NULL, SLU_BLOCK_SIZE, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t deadline = slu_clock_ns() + 20 * SLU_NS_PER_SEC;
	int status, err = 0;
	pid_t pid;

	assert_true(word != MAP_FAILED);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		while (atomic_load(word) == 0 && !err)
			err = slu_word_wait(word, 0, deadline);
		_exit(err ? 1 : 0);
	}
	slu_sleep_ns(30 * SLU_NS_PER_MS);
	atomic_store(word, 1);
	slu_word_wake(word, 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(slu_clock_ns() < deadline);
	munmap(word, SLU_BLOCK_SIZE);
}

/* ------------------------------------------------------------------ threads */

struct seen {
	char name[16];
	sigset_t blocked;
};

static void see_self(void *arg)
{
	struct seen *seen = arg;

	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked);
}

static void threads_have_a_name_and_block_signals(void **state)
{
	struct slu_thread t;
	struct seen seen;
	sigset_t mine;

	assert_int_equal(slu_thread_start(&t, "a name that is too long", see_self, &seen), 0);
	slu_thread_join(&t);
	slu_thread_join(&t); /* does nothing */
	assert_string_equal(seen.name, "a name that is ");
	assert_true(sigismember(&seen.blocked, SIGTERM));
	assert_true(sigismember(&seen.blocked, SIGUSR1));
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	assert_false(sigismember(&mine, SIGTERM));
}

static void a_thread_that_finds_no_memory_does_not_start(void **state)
{
	struct slu_thread t;

	slu_alloc_fail_nth(1);
	assert_int_equal(slu_thread_start(&t, "none", nobody, NULL), -ENOMEM);
	assert_false(t.started);
	slu_thread_join(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inverted_order_aborts_and_names_both_sites),
		cmocka_unit_test(one_rank_must_go_up_in_order),
		cmocka_unit_test(a_lock_taken_twice_aborts_instead_of_hanging),
		cmocka_unit_test(page_bits_are_checked_like_locks),
		cmocka_unit_test(many_page_locks_of_one_run_fit),
		cmocka_unit_test(waiting_with_a_lock_held_aborts),
		cmocka_unit_test(a_thread_that_ends_with_a_lock_held_aborts),
		cmocka_unit_test(unlocking_what_is_not_held_aborts),
		cmocka_unit_test(destroying_a_held_lock_aborts),
		cmocka_unit_test(a_failed_assertion_says_where_in_one_line),
		cmocka_unit_test(a_mutex_keeps_others_out),
		cmocka_unit_test(trylock_fails_only_while_another_holds_it),
		cmocka_unit_test(a_waiting_writer_goes_before_a_new_reader),
		cmocka_unit_test(trywrlock_fails_while_there_is_a_reader),
		cmocka_unit_test(conditions_hand_over_between_threads),
		cmocka_unit_test(timedwait_ends_at_its_deadline_and_not_before),
		cmocka_unit_test(a_signal_ends_a_timedwait_early),
		cmocka_unit_test(a_lock_bit_on_a_word_keeps_others_out),
		cmocka_unit_test(a_word_that_differs_is_not_waited_for),
		cmocka_unit_test(a_word_wait_ends_at_its_deadline),
		cmocka_unit_test(words_in_shared_memory_wake_another_process),
		cmocka_unit_test(threads_have_a_name_and_block_signals),
		cmocka_unit_test(a_thread_that_finds_no_memory_does_not_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
