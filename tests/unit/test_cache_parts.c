/* SPDX-License-Identifier: MIT */
/*
 * The cache by itself: tickets and what is kept back, page locks, open handles, errors and their
 * cursors, and the check function, which has to find what it is there for.
 */
#include "cache_private.h"
#include "pages_rig.h"
#include <sys/wait.h>
#include <unistd.h>

static struct slu_cache *new_cache(size_t bytes)
{
	struct slu_cache *c;

	must_eq(slu_cache_new(&(struct slu_cache_opts){.bytes = bytes}, &c), 0);
	return c;
}

/* ------------------------------------------------------------------ tickets */

static void a_ticket_is_topped_up_and_given_back(void **state)
{
	struct slu_cache *c = new_cache(1u << 20);
	struct slu_frames fr = SLU_FRAMES_INIT(c);
	struct slu_need need;

	must_eq(c->stats.frames, 256);
	must_eq(slu_frames_claim(&fr, 10, 5, 0, &need), 0);
	must_eq(c->stats.free_frames, 246);
	must_eq(slu_frames_claim(&fr, 20, 3, 0, &need), 0);
	must_eq(fr.n, 20);
	must_eq(fr.dirty, 5);
	for (int i = 0; i < 20; i++) {
		uint32_t frame = slu_frames_take(&fr);

		memset(slu_frame_data(c, frame), i, SLU_BLOCK_SIZE);
		if (i % 2)
			slu_frames_return(&fr, frame);
		else
			slu_frame_put(c, frame);
		i += i % 2 && fr.n > 10;
	}
	slu_frames_release(&fr);
	must_eq(c->stats.free_frames, 256);
	must_eq(c->dirty_used, 0);
	must_eq(slu_cache_check(c, stderr), 0);
	slu_cache_free(c);
}

static void what_is_kept_back_is_for_those_that_must_not_fail(void **state)
{
	struct slu_cache *c = new_cache(1u << 20);
	struct slu_frames all = SLU_FRAMES_INIT(c), more = SLU_FRAMES_INIT(c);
	struct slu_need need = {0};
	uint32_t kept = c->kept_back;

	must(kept >= 16);
	must_eq(slu_frames_claim(&all, 256 - kept, 0, 0, &need), 0);
	must_eq(slu_frames_claim(&more, 1, 0, 0, &need), -EAGAIN);
	must(need.wait && need.slow);
	must_eq(slu_frames_claim(&more, kept, 0, SLU_FRAMES_KEPT_BACK, &need), 0);
	slu_frames_release(&more);
	must_eq(slu_frames_claim(&more, 1, 0, 0, &need), -EAGAIN);
	slu_frames_release(&all);
	must_eq(slu_need_wait(&need), 0);
	must_eq(slu_frames_claim(&more, 257 - kept, 0, 0, &need), -ENOMEM);
	must_eq(slu_frames_claim(&more, 1, 129, 0, &need), -ENOMEM);
	slu_cache_free(c);
}

static void room_for_dirty_pages_is_half_the_cache(void **state)
{
	struct slu_cache *c = new_cache(1u << 20);
	struct slu_frames a = SLU_FRAMES_INIT(c), b = SLU_FRAMES_INIT(c);
	struct slu_need need;

	must_eq(slu_frames_claim(&a, 1, 100, 0, &need), 0);
	must_eq(slu_frames_claim(&b, 1, 29, 0, &need), -EAGAIN);
	must_eq(b.n, 0);
	must_eq(slu_frames_claim(&b, 1, 28, 0, &need), 0);
	slu_frames_release(&a);
	must_eq(slu_frames_claim(&b, 1, 128, 0, &need), 0);
	slu_frames_release(&b);
	slu_cache_free(c);
}

struct waiter {
	struct slu_cache *c;
	struct slu_thread thread;
	_Atomic bool done;
};

static void waiter_main(void *arg)
{
	struct waiter *w = arg;
	struct slu_frames fr = SLU_FRAMES_INIT(w->c);

	must_eq(slu_frames_claim(&fr, 100, 0, 0, NULL), 0);
	atomic_store(&w->done, true);
	slu_frames_release(&fr);
}

static void sim_claims_wait(void *arg)
{
	struct slu_cache *c = new_cache(1u << 20);
	struct slu_frames fr = SLU_FRAMES_INIT(c);
	struct slu_need need;
	struct waiter w[3];

	must_eq(slu_frames_claim(&fr, 200, 0, 0, &need), 0);
	for (int i = 0; i < 3; i++) {
		w[i] = (struct waiter){.c = c};
		must_eq(slu_thread_start(&w[i].thread, "waiter", waiter_main, &w[i]), 0);
	}
	slu_sleep_ns(SLU_NS_PER_SEC);
	for (int i = 0; i < 3; i++)
		must(!atomic_load(&w[i].done));
	must(c->stats.frame_waits > 0);
	slu_frames_release(&fr);
	for (int i = 0; i < 3; i++)
		slu_thread_join(&w[i].thread);
	slu_cache_free(c);
}

static void claims_wait_until_frames_come_back(void **state)
{
	for (uint64_t seed = 1; seed < 30; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		must(sim);
		slu_sim_limit(sim, 1000000);
		must_eq(slu_sim_run(sim, sim_claims_wait, NULL, stderr), 0);
		slu_sim_free(sim);
	}
}

/* The frames that the kernel has set memory aside for are the last to be handed out. */
static void the_kept_back_frames_have_memory_behind_them(void **state)
{
	struct slu_cache *c = new_cache(1u << 20);
	struct slu_frames fr = SLU_FRAMES_INIT(c);
	struct slu_need need;

	must_eq(slu_frames_claim(&fr, 256 - c->kept_back, 0, 0, &need), 0);
	for (uint32_t i = fr.first, n = 0; n < fr.n; n++, i = c->frame_next[i])
		must(i < 256 - c->kept_back);
	slu_frames_release(&fr);
	slu_cache_free(c);
}

static void nonsense_sizes_are_refused(void **state)
{
	struct slu_cache *c;

	must_eq(slu_cache_new(&(struct slu_cache_opts){.bytes = 0}, &c), -EINVAL);
	must_eq(slu_cache_new(&(struct slu_cache_opts){.bytes = (1u << 20) - 1}, &c), -EINVAL);
	must_eq(slu_cache_new(&(struct slu_cache_opts){.bytes = SIZE_MAX}, &c), -EINVAL);
}

static void no_memory_while_a_cache_is_made_leaves_nothing(void **state)
{
	int err = -ENOMEM;

	for (uint64_t nth = 1; err; nth += nth < 5 || nth > 4090 ? 1 : 500) {
		struct slu_cache *c;

		slu_alloc_fail_nth(nth);
		err = slu_cache_new(&(struct slu_cache_opts){.bytes = 1u << 20}, &c);
		slu_alloc_fail_nth(0);
		must(!err || err == -ENOMEM);
		if (!err)
			slu_cache_free(c);
	}
}

/* ------------------------------------------------------------------ page locks */

struct locker {
	struct slu_page *page;
	struct slu_thread thread;
	uint64_t *counter;
};

static void locker_main(void *arg)
{
	struct locker *l = arg;

	for (int i = 0; i < 200; i++) {
		slu_page_lock(l->page);
		uint64_t seen = *l->counter;

		if (i % 16 == 0)
			slu_yield();
		*l->counter = seen + 1;
		slu_page_unlock(l->page);
	}
}

static void run_lockers(void *arg)
{
	struct rig r;
	struct locker l[4];
	uint64_t counter = 0;
	struct slu_page *page;

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	rig_write(&r, 0, "x", 1);
	page = slu_page_find(&r.as, 0);
	must(page);
	for (int i = 0; i < 4; i++) {
		l[i] = (struct locker){.page = page, .counter = &counter};
		must_eq(slu_thread_start(&l[i].thread, "locker", locker_main, &l[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		slu_thread_join(&l[i].thread);
	must_eq(counter, 800);
	must(!(slu_page_state(page) & (SLU_PAGE_LOCKED | SLU_PAGE_WAITERS)));
	slu_page_put(r.cache, page);
	must_eq(rig_fini(&r), 0);
}

static void the_page_lock_excludes(void **state)
{
	run_lockers(NULL);
	for (uint64_t seed = 1; seed < 20; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		must(sim);
		must_eq(slu_sim_run(sim, run_lockers, NULL, stderr), 0);
		slu_sim_free(sim);
	}
}

static void publish_waits_for_somebodys_page_lock(void **state)
{
	struct rig r;
	struct locker l;
	uint64_t counter = 0;
	static char buf[SLU_BLOCK_SIZE];

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	rig_write(&r, 0, buf, sizeof(buf));
	l = (struct locker){.page = slu_page_find(&r.as, 0), .counter = &counter};
	must_eq(slu_thread_start(&l.thread, "locker", locker_main, &l), 0);
	for (int i = 0; i < 200; i++)
		rig_write(&r, 0, buf, sizeof(buf));
	slu_thread_join(&l.thread);
	slu_page_put(r.cache, l.page);
	must_eq(rig_fini(&r), 0);
}

static void states_are_printed_by_name(void **state)
{
	char buf[64], tiny[8];

	assert_string_equal(slu_page_state_name(SLU_PAGE_UPTODATE | SLU_PAGE_DIRTY, buf,
						sizeof(buf)),
			    "uptodate|dirty");
	assert_string_equal(slu_page_state_name(0, buf, sizeof(buf)), "");
	assert_string_equal(slu_page_state_name(SLU_PAGE_UPTODATE, tiny, sizeof(tiny)), "uptodat");
}

/* ------------------------------------------------------------------ handles */

static void handles_are_found_by_number_and_not_after_close(void **state)
{
	struct slu_cache *c = new_cache(1u << 20);
	uint64_t a, b, again;

	must_eq(slu_handle_new(c, 5, 1, &a), 0);
	must_eq(slu_handle_new(c, 6, 2, &b), 0);
	must(a != b && a && b);
	must_eq(slu_handle_get(c, a)->ino, 5);
	must_eq(slu_handle_get(c, b)->flags, 2);
	must(!slu_handle_free(c, a, 6));
	must(slu_handle_free(c, a, 5));
	must(!slu_handle_get(c, a));
	must_eq(slu_handle_new(c, 7, 0, &again), 0);
	/* The entry is used again; the old number is not good for it. */
	must((uint32_t)again == (uint32_t)a && again != a);
	must(!slu_handle_get(c, a));
	must(!slu_handle_free(c, a, 7));
	must_eq(slu_handle_get(c, again)->ino, 7);
	must(!slu_handle_get(c, 0));
	must(!slu_handle_get(c, UINT64_MAX));
	must(!slu_handle_get(c, HANDLE_MAX + 1));
	must(slu_handle_free(c, b, 6));
	must(slu_handle_free(c, again, 7));
	slu_cache_free(c);
}

static void the_handle_table_has_an_end(void **state)
{
	struct slu_cache *c = new_cache(1u << 20);
	uint64_t fh, first = 0;

	for (uint32_t i = 0; i < HANDLE_MAX; i++) {
		must_eq(slu_handle_new(c, 1 + i, 0, &fh), 0);
		first = first ? first : fh;
	}
	must_eq(slu_handle_new(c, 1, 0, &fh), -ENFILE);
	must(slu_handle_free(c, first, 1));
	must_eq(slu_handle_new(c, 1, 0, &fh), 0);
	slu_cache_free(c);
}

/* ------------------------------------------------------------------ the check finds it */

typedef void (*damage_fn)(struct slu_cache *c, struct slu_aspace *as, struct slu_page *page);

static void d_state(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	atomic_fetch_or(&p->state, SLU_PAGE_READING);
}

static void d_error(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	atomic_fetch_and(&p->state, ~(uint32_t)SLU_PAGE_DIRTY);
	atomic_fetch_or(&p->state, SLU_PAGE_ERROR);
}

static void d_dirty_bit(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	atomic_fetch_and(&p->state, ~(uint32_t)SLU_PAGE_DIRTY);
}

static void d_dirty_range(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	must_eq(slu_ranges_clear(&as->dirty, 1, 2), 0);
}

static void d_writeback_range(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	must_eq(slu_ranges_set(&as->writeback, 1, 2, 0), 0);
}

static void d_counter(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	c->stats.dirty++;
}

static void d_pages(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	as->npages++;
}

static void d_hash(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	must(hash_remove(c, bucket_of(c, as->ino, 1), p));
}

static void d_frame(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	c->frame_refs[p->frame] = 0;
}

static void d_shared_frame(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	struct slu_page *q = slu_page_find(as, 0);

	p->frame = atomic_load(&q->frame);
	slu_page_put(c, q);
}

static void d_owner(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	c->owners[page_number(c, p)] = NULL;
}

static void d_list(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	p->list_prev = SLU_PAGE_NONE - 1;
}

static void d_free(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	c->nfree_frames++;
}

static void d_free_pages(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	c->nfree_pages--;
}

static void d_room(struct slu_cache *c, struct slu_aspace *as, struct slu_page *p)
{
	c->dirty_used -= 2;
}

/* 0: found. Ends the process: what is damaged cannot be taken down in order. */
static void damage_child(damage_fn damage)
{
	static char buf[3 * SLU_BLOCK_SIZE];
	static struct rig r;

	rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
	rig_write(&r, 0, buf, sizeof(buf));
	must_eq(slu_cache_check(r.cache, stderr), 0);
	damage(r.cache, &r.as, slu_page_find(&r.as, 1));
	_exit(slu_cache_check(r.cache, NULL) == -EUCLEAN ? 0 : 1);
}

static void the_check_finds_every_kind_of_damage(void **state)
{
	static const damage_fn damages[] = {
		d_state,   d_error, d_dirty_bit, d_dirty_range, d_writeback_range,
		d_counter, d_pages, d_hash,      d_frame,       d_shared_frame,
		d_owner,   d_list,  d_free,      d_free_pages,  d_room,
	};

	for (size_t i = 0; i < slu_array_size(damages); i++) {
		int status;
		pid_t pid = fork();

		must(pid >= 0);
		if (!pid)
			damage_child(damages[i]);
		must_eq(waitpid(pid, &status, 0), pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			fprintf(stderr, "damage %zu is not found: status %x\n", i, status);
			abort();
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ticket_is_topped_up_and_given_back),
		cmocka_unit_test(what_is_kept_back_is_for_those_that_must_not_fail),
		cmocka_unit_test(room_for_dirty_pages_is_half_the_cache),
		cmocka_unit_test(claims_wait_until_frames_come_back),
		cmocka_unit_test(the_kept_back_frames_have_memory_behind_them),
		cmocka_unit_test(nonsense_sizes_are_refused),
		cmocka_unit_test(no_memory_while_a_cache_is_made_leaves_nothing),
		cmocka_unit_test(the_page_lock_excludes),
		cmocka_unit_test(publish_waits_for_somebodys_page_lock),
		cmocka_unit_test(states_are_printed_by_name),
		cmocka_unit_test(handles_are_found_by_number_and_not_after_close),
		cmocka_unit_test(the_handle_table_has_an_end),
		cmocka_unit_test(the_check_finds_every_kind_of_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
