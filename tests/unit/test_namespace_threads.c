/* SPDX-License-Identifier: MIT */
/*
 * Many at once in the same few directories: on real threads (for the thread sanitizer) and on
 * simulated ones, where each seed is another interleaving that can be run again. Every name and
 * every count has to fit together after.
 */
#include "namespace_fixture.h"
#include <malloc.h>

#define NTHREADS 4
#define NNAMES   6

static struct nsfx fx;
static uint64_t dirs[3];
static _Atomic uint64_t seed0;

struct worker {
	struct slu_thread thread;
	uint64_t seed;
	unsigned int nops;
	struct slu_ctx ctx;
};

static uint64_t draw(struct worker *w)
{
	/* splitmix64, by Sebastiano Vigna */
	uint64_t z = w->seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static const char *const names[NNAMES] = {"a", "b", "c", "d", "e", "f"};

static const char *any_name(struct worker *w)
{
	return names[draw(w) % NNAMES];
}

/* A directory to work in: one of three, or one found in them. */
static uint64_t any_dir(struct worker *w)
{
	uint64_t dir = dirs[draw(w) % 3];
	struct slu_attr a;

	if (draw(w) % 3 == 0 && slu_ns_lookup(fx.ns, &w->ctx, dir, any_name(w), &a) == 0) {
		if (S_ISDIR(a.mode))
			dir = a.ino;
		slu_ns_forget(fx.ns, a.ino, 1);
	}
	return dir;
}

/* What may come of any operation when others are at it too. */
static void check_err(int err)
{
	switch (err) {
	case 0:
	case -ENOENT:
	case -ESTALE:
	case -EEXIST:
	case -ENOTDIR:
	case -EISDIR:
	case -ENOTEMPTY:
	case -EINVAL:
	case -EPERM:
	case -ENODATA:
		return;
	default:
		fail_msg("unexpected error %d", err);
	}
}

static int count_entry(void *ctx, const char *name, size_t len, uint64_t cookie,
		       const struct slu_attr *attr)
{
	uint64_t *last = ctx;

	assert_true(cookie > *last);
	*last = cookie;
	return 0;
}

static void use_inode(struct worker *w, uint64_t dir)
{
	struct slu_inode *inode;
	struct slu_attr a;
	uint64_t txid;
	int err = slu_ns_lookup(fx.ns, &w->ctx, dir, any_name(w), &a);

	check_err(err);
	if (err)
		return;
	assert_true(a.nlink > 0);
	err = slu_inode_get(fx.ns, a.ino, &inode);
	check_err(err);
	if (!err) {
		slu_inode_opened(inode);
		slu_inode_touch(inode, SLU_TOUCH_MTIME);
		slu_inode_touch(inode, SLU_TOUCH_ATIME);
		if (draw(w) % 2)
			check_err(slu_inode_sync_attr(inode, &txid));
		slu_inode_closed(inode);
		slu_inode_put(inode);
	}
	if (draw(w) % 3 == 0)
		check_err(slu_ns_setattr(fx.ns, &w->ctx, a.ino, &a, SLU_SET_MODE, &a));
	if (draw(w) % 3 == 0)
		check_err(slu_ns_setxattr(fx.ns, &w->ctx, a.ino, "user.x", "y", 1, 0, false));
	if (draw(w) % 3 == 0)
		check_err(slu_ns_removexattr(fx.ns, &w->ctx, a.ino, "user.x"));
	slu_ns_forget(fx.ns, a.ino, 1);
}

/*
 * A file as programs replace one: written beside it, renamed over it. Or one that is gone before it
 * is on disk.
 */
static void write_and_move(struct worker *w)
{
	static const uint8_t data[9000] = {1, 2, 3};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = 1 + draw(w) % sizeof(data)};
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct slu_inode *inode;
	struct slu_attr a;
	uint64_t dir = any_dir(w);
	char name[24];
	int err;

	snprintf(name, sizeof(name), "tmp%llu", (unsigned long long)draw(w));
	err = slu_ns_mknod(fx.ns, &w->ctx, dir, name, S_IFREG | 0644, 0, &a);
	check_err(err);
	if (err)
		return;
	ok(slu_inode_get(fx.ns, a.ino, &inode));
	slu_source_buffer_init(&src, &iov, 1);
	ok(slu_write(&inode->data, &src.source, 0, iov.iov_len, 0, &res, NULL));
	slu_inode_touch(inode, SLU_TOUCH_MTIME);
	if (draw(w) % 4 == 0)
		ok(slu_writeback_range(fx.wb, &inode->data, 0, UINT64_MAX));
	slu_inode_put(inode);
	err = draw(w) % 3 ? slu_ns_rename(fx.ns, &w->ctx, dir, name, any_dir(w), any_name(w), 0)
			  : slu_ns_unlink(fx.ns, &w->ctx, dir, name);
	check_err(err);
	if (err)
		check_err(slu_ns_unlink(fx.ns, &w->ctx, dir, name));
	slu_ns_forget(fx.ns, a.ino, 1);
}

static void link_somewhere(struct worker *w)
{
	struct slu_attr a, b;
	int err = slu_ns_lookup(fx.ns, &w->ctx, any_dir(w), any_name(w), &a);

	check_err(err);
	if (err)
		return;
	err = slu_ns_link(fx.ns, &w->ctx, a.ino, any_dir(w), any_name(w), &b);
	check_err(err);
	slu_ns_forget(fx.ns, a.ino, 1 + (err == 0));
}

static void one_op(struct worker *w)
{
	static const unsigned int flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	uint64_t dir = any_dir(w), last = 0;
	struct slu_attr a;
	int err;

	switch (draw(w) % (fx.with_writeback ? 15 : 12)) {
	case 0:
	case 1:
	case 2:
		err = slu_ns_mknod(fx.ns, &w->ctx, dir, any_name(w),
				   (draw(w) % 3 ? S_IFREG : S_IFDIR) | 0755, 0, &a);
		check_err(err);
		if (!err)
			slu_ns_forget(fx.ns, a.ino, 1);
		break;
	case 3:
	case 4:
		check_err(slu_ns_unlink(fx.ns, &w->ctx, dir, any_name(w)));
		break;
	case 5:
		check_err(slu_ns_rmdir(fx.ns, &w->ctx, dir, any_name(w)));
		break;
	case 6:
	case 7:
	case 8:
		check_err(slu_ns_rename(fx.ns, &w->ctx, dir, any_name(w), any_dir(w), any_name(w),
					flags[draw(w) % 4]));
		break;
	case 9:
		link_somewhere(w);
		break;
	case 10:
		check_err(slu_ns_readdir(fx.ns, &w->ctx, dir, 0, true, count_entry, &last));
		break;
	case 11:
		use_inode(w, dir);
		break;
	default:
		write_and_move(w);
	}
}

static void work(void *arg)
{
	struct worker *w = arg;

	for (unsigned int i = 0; i < w->nops; i++)
		one_op(w);
}

static _Atomic bool stop;

static void clean(void *arg)
{
	while (!atomic_load(&stop)) {
		assert_true(slu_ns_reclaim(fx.ns) >= 0);
		ok(slu_ns_sync_attrs(fx.ns));
		slu_store_commit_soon(fx.store);
		slu_sleep_ns(SLU_NS_PER_MS);
	}
}

static void run_all(unsigned int nops)
{
	struct worker workers[NTHREADS] = {0};
	struct slu_thread cleaner = {0};
	char name[24];

	fx.max_idle = 4; /* inodes come and go all the time */
	nsfx_remount(&fx);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "dir%d", i);
		dirs[i] = mk(&fx, ROOT, name, S_IFDIR | 0755);
	}
	atomic_store(&stop, false);
	ok(slu_thread_start(&cleaner, "cleaner", clean, NULL));
	for (int i = 0; i < NTHREADS; i++) {
		workers[i] = (struct worker){.seed = seed0 * 1000 + (uint64_t)i,
					     .nops = nops,
					     .ctx = fx.ctx};
		ok(slu_thread_start(&workers[i].thread, "worker", work, &workers[i]));
	}
	for (int i = 0; i < NTHREADS; i++)
		slu_thread_join(&workers[i].thread);
	atomic_store(&stop, true);
	slu_thread_join(&cleaner);
	for (int i = 0; i < 3; i++)
		forget_all(&fx, dirs[i]);
	nsfx_reclaim(&fx);
	check_tree(&fx);
	nsfx_remount(&fx);
	check_tree(&fx);
}

static void real_threads(bool with_writeback)
{
	nsfx_init(&fx, 16384);
	fx.with_writeback = with_writeback;
	atomic_store(&seed0, 1);
	run_all(1500);
	/* nothing is promised, dirty or owned that no file has */
	nsfx_settle(&fx);
	assert_int_equal(nsfx_space(&fx).reserved, 0);
	nsfx_fini(&fx);
}

static void real_threads_in_the_same_directories(void **state)
{
	real_threads(false);
}

static void real_threads_that_write_as_well(void **state)
{
	real_threads(true);
}

static void simulated(void *arg)
{
	nsfx_mount(&fx);
	run_all(60);
	nsfx_unmount(&fx);
}

static void simulated_threads(bool with_writeback)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		nsfx_init(&fx, 16384);
		fx.with_writeback = with_writeback;
		fx.hash_mask = seed % 3 ? 0 : 1; /* all names of one hash: places move */
		nsfx_unmount(&fx);
		/* with completions from a thread of the disk's, and without */
		slu_simdisk_inline(fx.disk, seed % 2);
		atomic_store(&seed0, seed);
		if (slu_sim_run(sim, simulated, NULL, stderr))
			fail_msg("seed %u", (unsigned int)seed);
		slu_sim_free(sim);
		slu_simdisk_free(fx.disk);
	}
}

static void simulated_threads_from_many_seeds(void **state)
{
	simulated_threads(false);
}

static void simulated_threads_that_write_as_well(void **state)
{
	simulated_threads(true);
}

/* A file is unlinked and forgotten while writeback is at it. */
static void unlink_under_writeback(void *arg)
{
	static uint8_t data[20000];
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct slu_inode *inode;
	char name[24];

	nsfx_mount(&fx);
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "%d", i);
		uint64_t ino = mk(&fx, ROOT, name, S_IFREG | 0644);

		ok(slu_inode_get(fx.ns, ino, &inode));
		slu_source_buffer_init(&src, &iov, 1);
		ok(slu_write(&inode->data, &src.source, 0, sizeof(data), 0, &res, NULL));
		slu_inode_put(inode);
		slu_writeback_kick(fx.wb);
		slu_sleep_ns(draw(&(struct worker){.seed = (uint64_t)i + seed0}) % 300000);
		ok(unlink_(&fx, ROOT, name));
		forget_all(&fx, ino);
		nsfx_reclaim(&fx);
		assert_int_equal(nsfx_nrecords(&fx, ino, 0), 0);
	}
	check_tree(&fx);
	nsfx_unmount(&fx);
}

static void files_go_while_they_are_written_out(void **state)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		nsfx_init(&fx, 8192);
		nsfx_unmount(&fx);
		fx.with_writeback = true;
		slu_simdisk_inline(fx.disk, false);
		slu_simdisk_latency(fx.disk, 200000);
		slu_sim_preempt(sim, 1);
		atomic_store(&seed0, seed);
		if (slu_sim_run(sim, unlink_under_writeback, NULL, stderr))
			fail_msg("seed %u", (unsigned int)seed);
		slu_sim_free(sim);
		slu_simdisk_free(fx.disk);
	}
}

/* ------------------------------------------------------------------ one race each */

struct racer {
	struct slu_thread thread;
	int (*fn)(void);
	int err;
};

static void race(void *arg)
{
	struct racer *r = arg;

	r->err = r->fn();
}

static int create_x(void)
{
	struct slu_ctx ctx = fx.ctx;
	struct slu_attr a;
	int err = slu_ns_mknod(fx.ns, &ctx, dirs[0], "x", S_IFREG | 0644, 0, &a);

	if (!err)
		slu_ns_forget(fx.ns, a.ino, 1);
	return err;
}

static int remove_dir(void)
{
	struct slu_ctx ctx = fx.ctx;

	return slu_ns_rmdir(fx.ns, &ctx, ROOT, "dir0");
}

static int move_0_into_1(void)
{
	struct slu_ctx ctx = fx.ctx;

	return slu_ns_rename(fx.ns, &ctx, ROOT, "dir0", dirs[1], "in", 0);
}

static int move_1_into_0(void)
{
	struct slu_ctx ctx = fx.ctx;

	return slu_ns_rename(fx.ns, &ctx, ROOT, "dir1", dirs[0], "in", 0);
}

static int (*race_fns[2])(void);
static int race_errs[2];

static void race_in_sim(void *arg)
{
	struct racer racers[2] = {{.fn = race_fns[0]}, {.fn = race_fns[1]}};
	char name[24];

	nsfx_mount(&fx);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "dir%d", i);
		dirs[i] = mk(&fx, ROOT, name, S_IFDIR | 0755);
	}
	for (int i = 0; i < 2; i++)
		ok(slu_thread_start(&racers[i].thread, "racer", race, &racers[i]));
	for (int i = 0; i < 2; i++) {
		slu_thread_join(&racers[i].thread);
		race_errs[i] = racers[i].err;
	}
	for (int i = 0; i < 2; i++)
		forget_all(&fx, dirs[i]);
	nsfx_reclaim(&fx);
	check_tree(&fx);
	nsfx_unmount(&fx);
}

/* Exactly one of two that exclude each other succeeds, whatever the order. */
static void exactly_one_wins(int (*a)(void), int (*b)(void), int err_a, int err_b)
{
	unsigned int wins_a = 0;

	race_fns[0] = a;
	race_fns[1] = b;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		nsfx_init(&fx, 4096);
		nsfx_unmount(&fx);
		ok(slu_sim_run(sim, race_in_sim, NULL, stderr));
		slu_sim_free(sim);
		slu_simdisk_free(fx.disk);
		if (race_errs[0] == 0) {
			wins_a++;
			assert_int_equal(race_errs[1], err_b);
		} else {
			assert_int_equal(race_errs[0], err_a);
			ok(race_errs[1]);
		}
	}
	/* or the seeds do not try what they are for */
	assert_in_range(wins_a, 1, 59);
}

static void a_directory_is_removed_or_gets_an_entry(void **state)
{
	exactly_one_wins(create_x, remove_dir, -ENOENT, -ENOTEMPTY);
}

static void two_directories_do_not_swallow_each_other(void **state)
{
	exactly_one_wins(move_0_into_1, move_1_into_0, -EINVAL, -EINVAL);
}

static void one_name_is_made_once(void **state)
{
	exactly_one_wins(create_x, create_x, -EEXIST, -EEXIST);
}

/* ------------------------------------------------------------------ a kernel that forgets */

#define FORGET_FILES 2000u
#define FORGET_IDLE  64u
#if defined(__SANITIZE_THREAD__) /* which is slow */
#define FORGET_ROUNDS 100u
#else
#define FORGET_ROUNDS 500u /* a million in all */
#endif

static void look_and_forget(void *arg)
{
	struct slu_attr attr[16];
	struct slu_ctx ctx = fx.ctx;
	unsigned int from = *(unsigned int *)arg;

	for (unsigned int i = 0; i < FORGET_FILES; i += slu_array_size(attr)) {
		for (unsigned int k = 0; k < slu_array_size(attr); k++) {
			char name[24];

			snprintf(name, sizeof(name), "f%u", (from + i + k) % FORGET_FILES);
			ok(slu_ns_lookup(fx.ns, &ctx, ROOT, name, &attr[k]));
		}
		for (unsigned int k = 0; k < slu_array_size(attr); k++)
			slu_ns_forget(fx.ns, attr[k].ino, 1);
	}
}

/* Four at a time go round the same names, each from another place. */
static void forget_rounds(unsigned int n)
{
	struct slu_thread threads[NTHREADS];
	unsigned int from[NTHREADS];

	for (; n; n -= NTHREADS) {
		for (unsigned int t = 0; t < NTHREADS; t++) {
			from[t] = FORGET_FILES / NTHREADS * t;
			threads[t] = (struct slu_thread){0};
			ok(slu_thread_start(&threads[t], "forgets", look_and_forget, &from[t]));
		}
		for (unsigned int t = 0; t < NTHREADS; t++)
			slu_thread_join(&threads[t]);
	}
}

/* Counts that are kept, and inodes in memory. */
static void expect_forgotten(void)
{
	size_t used = 0, cap = 0;

	for (size_t i = 0; i < NS_SHARDS; i++) {
		used += fx.ns->lookups.shards[i].used;
		cap += fx.ns->lookups.shards[i].cap;
	}
	assert_int_equal(used, 0);
	assert_true(cap <= NS_SHARDS * 64u);
	assert_false(atomic_load(&fx.ns->lookups.lost));
}

static void a_million_lookups_and_forgets_leave_nothing(void **state)
{
	size_t before, after;

	nsfx_init(&fx, 16384);
	fx.max_idle = FORGET_IDLE;
	nsfx_remount(&fx);
	for (unsigned int i = 0; i < FORGET_FILES; i++) {
		char name[24];

		snprintf(name, sizeof(name), "f%u", i);
		forget_all(&fx, mk(&fx, ROOT, name, S_IFREG | 0644));
	}
	nsfx_commit(&fx);
	forget_rounds(20);
	expect_forgotten();
	before = mallinfo2().uordblks;
	forget_rounds(FORGET_ROUNDS - 20);
	expect_forgotten();
	after = mallinfo2().uordblks;
	/* The inodes that stay for the next look-up are as many, but not the same. */
	assert_in_range(after, 0, before + FORGET_IDLE * sizeof(struct slu_inode));
	assert_int_equal(check_tree(&fx), FORGET_FILES + 1);
	nsfx_fini(&fx);
}

/* ------------------------------------------------------------------ guessed numbers */

static _Atomic uint64_t guess;

/* What open_by_handle_at and NFS may ask for: a number that nobody has been told. */
static void guesser(void *arg)
{
	struct slu_inode *inode;

	for (int i = 0; i < 40; i++) {
		int err = slu_inode_get(fx.ns, atomic_load(&guess), &inode);

		if (!err)
			slu_inode_put(inode);
		else
			assert_true(err == -ENOENT || err == -ESTALE);
		slu_yield();
	}
}

static void guess_in_sim(void *arg)
{
	struct slu_thread thread;

	nsfx_mount(&fx);
	atomic_store(&guess, mk(&fx, ROOT, "first", S_IFREG | 0644) + 1);
	ok(slu_thread_start(&thread, "guesser", guesser, NULL));
	for (int i = 0; i < 10; i++) {
		char name[24];

		snprintf(name, sizeof(name), "file%d", i);
		atomic_store(&guess, mk(&fx, ROOT, name, S_IFREG | 0644) + 1);
	}
	slu_thread_join(&thread);
	check_tree(&fx);
	nsfx_unmount(&fx);
}

static void a_number_may_be_asked_for_before_it_is_handed_out(void **state)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct slu_sim *sim = slu_sim_new(seed);

		nsfx_init(&fx, 4096);
		nsfx_unmount(&fx);
		ok(slu_sim_run(sim, guess_in_sim, NULL, stderr));
		slu_sim_free(sim);
		slu_simdisk_free(fx.disk);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_threads_in_the_same_directories),
		cmocka_unit_test(real_threads_that_write_as_well),
		cmocka_unit_test(simulated_threads_from_many_seeds),
		cmocka_unit_test(simulated_threads_that_write_as_well),
		cmocka_unit_test(files_go_while_they_are_written_out),
		cmocka_unit_test(a_directory_is_removed_or_gets_an_entry),
		cmocka_unit_test(two_directories_do_not_swallow_each_other),
		cmocka_unit_test(one_name_is_made_once),
		cmocka_unit_test(a_million_lookups_and_forgets_leave_nothing),
		cmocka_unit_test(a_number_may_be_asked_for_before_it_is_handed_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
