/* SPDX-License-Identifier: MIT */
/*
 * A frozen volume: nothing changes the image, whatever its users do meanwhile; what a copy of it holds;
 * and every way in which a freeze ends.
 */
#include "fs_rig.h"
#include "sluice/check.h"
#include <fcntl.h>
#include <linux/falloc.h>

#define LONG_NS (100 * SLU_NS_PER_SEC) /* no test takes as long */

static _Atomic unsigned int nfrozen, nthawed, nexpired, nslow;

static void on_event(void *ctx, const struct slu_event *ev)
{
	if (ev->kind == SLU_EVENT_FROZEN)
		atomic_fetch_add(&nfrozen, 1);
	if (ev->kind == SLU_EVENT_THAWED)
		atomic_fetch_add(ev->error == -ETIMEDOUT ? &nexpired : &nthawed, 1);
	if (ev->kind == SLU_EVENT_SLOW_COMMIT)
		atomic_fetch_add(&nslow, 1);
}

/* As the rig, with events and early commits. */
static int setup_events(void **state)
{
	struct slu_fs_opts opts = {.cache_size = 24 * MIB,
				   .commit_interval_ns = 20 * SLU_NS_PER_MS,
				   .events = {.post = on_event}};
	const char *why = NULL;
	struct rig *r;

	setup_rig(state);
	r = *state;
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	assert_int_equal(slu_fs_mount(open_disk(r, false), &opts, &r->fs, &why), 0);
	atomic_store(&nfrozen, 0);
	atomic_store(&nthawed, 0);
	atomic_store(&nexpired, 0);
	atomic_store(&nslow, 0);
	return 0;
}

static void freeze_rig(struct rig *r)
{
	assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, LONG_NS), 0);
	slu_simdisk_record(r->disk, true);
}

/* Requests that changed the image since freeze_rig. */
static unsigned int changes(struct rig *r)
{
	struct slu_simdisk_record rec;
	unsigned int n = 0;

	for (size_t i = 0; i < slu_simdisk_nrecords(r->disk); i++) {
		slu_simdisk_record_at(r->disk, i, &rec);
		n += rec.op != SLU_IO_FLUSH;
	}
	return n;
}

static void thaw_rig(struct rig *r)
{
	uint64_t ns;

	assert_int_equal(slu_fs_thaw(r->fs, &ns), 0);
}

static void on_problem(void *ctx, const struct slu_problem *problem)
{
	print_error("fsck: %s\n", problem->text);
}

/* What somebody has who copies the image now: fsck has nothing to say, and the file is whole. */
static void check_copy(struct rig *r, const char *name, const void *data, size_t len)
{
	struct slu_check_opts opts = {.problem = on_problem};
	struct rig copy = {.disk = slu_simdisk_clone(r->disk), .ctx = {.may_wait = true}};
	struct slu_check_result result;
	struct slu_blockio *bio;
	const char *why = NULL;
	uint8_t *found = malloc(len);

	slu_simdisk_power_cut(copy.disk, 0);
	bio = open_disk(&copy, true);
	assert_int_equal(slu_check(bio, &opts, &result, &why), 0);
	slu_blockio_close(bio);
	assert_int_equal(result.problems, 0);
	assert_int_equal(result.notes, 0);
	mount_rig(&copy, false);
	assert_int_equal(read_at(&copy, find_file(&copy, name), 0, found, len), len);
	assert_memory_equal(found, data, len);
	assert_int_equal(slu_fs_unmount(copy.fs), 0);
	slu_simdisk_free(copy.disk);
	free(found);
}

/* ------------------------------------------------------------------ while it is frozen */

struct worker {
	struct rig *r;
	struct slu_thread thread;
	uint64_t ino;
	int err;
	_Atomic bool done;
};

static void fsync_main(void *arg)
{
	struct worker *w = arg;
	struct slu_ctx ctx = {.may_wait = true};

	w->err = slu_fs_fsync(w->r->fs, &ctx, w->ino, UINT64_MAX, false);
	atomic_store(&w->done, true);
}

static void start_worker(struct worker *w, struct rig *r, uint64_t ino, void (*fn)(void *))
{
	*w = (struct worker){.r = r, .ino = ino};
	assert_int_equal(slu_thread_start(&w->thread, "worker", fn, w), 0);
}

static void the_image_does_not_change_and_a_copy_is_whole(void **state)
{
	static uint8_t data[3 * MIB], more[MIB], found[MIB];
	struct rig *r = *state;
	uint64_t old = make_file(r, "old"), gone = make_file(r, "gone"), new;
	struct worker w;

	fill(data, sizeof(data), 1);
	fill(more, sizeof(more), 2);
	write_at(r, old, 0, data, sizeof(data));
	write_at(r, gone, 0, more, sizeof(more));
	freeze_rig(r);
	check_copy(r, "old", data, sizeof(data));

	/* Over what is there, beside it, a name that goes; and somebody who wants it on disk. */
	write_at(r, old, 4096, more, sizeof(more));
	new = make_file(r, "new");
	write_at(r, new, 0, more, sizeof(more));
	assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "gone"), 0);
	slu_ns_forget(r->fs->ns, gone, 1);
	slu_writeback_kick(r->fs->wb);
	slu_store_commit_soon(r->fs->store);
	start_worker(&w, r, new, fsync_main);
	slu_sleep_ns(300 * SLU_NS_PER_MS);
	assert_false(atomic_load(&w.done));
	assert_int_equal(changes(r), 0);
	check_copy(r, "old", data, sizeof(data));

	/* Readers see what is in memory. */
	assert_int_equal(read_at(r, old, 4096, found, sizeof(found)), sizeof(found));
	assert_memory_equal(found, more, sizeof(found));
	assert_int_equal(size_of(r, new), sizeof(more));

	thaw_rig(r);
	slu_thread_join(&w.thread);
	assert_int_equal(w.err, 0);
	assert_true(changes(r) > 0);
	memcpy(data + 4096, more, sizeof(more));
	assert_int_equal(slu_fs_sync(r->fs), 0);
	check_copy(r, "old", data, sizeof(data));
	check_copy(r, "new", more, sizeof(more));
	assert_int_equal(atomic_load(&nfrozen), 1);
	assert_int_equal(atomic_load(&nthawed), 1);
}

static void truncate_main(void *arg)
{
	struct worker *w = arg;
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_attr attr;

	w->err = slu_fs_truncate(w->r->fs, &ctx, w->ino, 5000, false, &attr);
	if (!w->err)
		w->err = slu_fs_fallocate(w->r->fs, &ctx, w->ino, 0, 0, 8 * MIB);
	if (!w->err)
		w->err = slu_fs_fallocate(w->r->fs, &ctx, w->ino,
					  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
	atomic_store(&w->done, true);
}

static void changes_of_a_layout_do_not_reach_the_image_either(void **state)
{
	static uint8_t data[MIB];
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");
	struct worker w;

	fill(data, sizeof(data), 1);
	write_at(r, ino, 0, data, sizeof(data));
	freeze_rig(r);
	write_at(r, ino, 100, data, 10000);
	start_worker(&w, r, ino, truncate_main);
	slu_sleep_ns(200 * SLU_NS_PER_MS);
	assert_int_equal(changes(r), 0);
	check_copy(r, "file", data, sizeof(data));
	thaw_rig(r);
	slu_thread_join(&w.thread);
	assert_int_equal(w.err, 0);
	assert_int_equal(size_of(r, ino), 8 * MIB);
}

static void fill_main(void *arg)
{
	static uint8_t data[MIB];
	struct worker *w = arg;
	struct rig mine = {.fs = w->r->fs, .ctx = {.may_wait = true}};
	uint64_t done;

	fill(data, sizeof(data), 3);
	for (unsigned int i = 0; i < 24 && !w->err; i++)
		w->err = try_write(&mine, w->ino, i * sizeof(data), data, sizeof(data), &done);
	atomic_store(&w->done, true);
}

static void who_finds_no_memory_waits_and_others_read_on(void **state)
{
	static uint8_t data[MIB], found[MIB];
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file"), old = make_file(r, "old");
	struct worker w;

	fill(data, sizeof(data), 1);
	write_at(r, old, 0, data, sizeof(data));
	freeze_rig(r);
	start_worker(&w, r, ino, fill_main);
	slu_sleep_ns(300 * SLU_NS_PER_MS);
	assert_false(atomic_load(&w.done));
	assert_int_equal(changes(r), 0);
	assert_int_equal(read_at(r, old, 0, found, sizeof(found)), sizeof(found));
	assert_memory_equal(found, data, sizeof(found));
	thaw_rig(r);
	slu_thread_join(&w.thread);
	assert_int_equal(w.err, 0);
	assert_int_equal(size_of(r, ino), 24 * MIB);
}

static void a_probe_neither_waits_nor_fails(void **state)
{
	struct rig *r = *state;

	freeze_rig(r);
	make_file(r, "new");
	assert_int_equal(slu_fs_probe(r->fs), 0);
	assert_int_equal(slu_fs_set_readonly(r->fs, true), -EBUSY);
	assert_int_equal(changes(r), 0);
	thaw_rig(r);
	assert_int_equal(slu_fs_probe(r->fs), 0);
	assert_true(changes(r) > 0);
	assert_int_equal(slu_fs_set_readonly(r->fs, true), 0);
	freeze_rig(r); /* there is nothing to do, and it can be copied all the same */
	thaw_rig(r);
}

/* ------------------------------------------------------------------ its end */

static void the_time_limit_thaws(void **state)
{
	uint8_t data[5000], found[sizeof(data)];
	struct rig *r = *state;
	uint64_t ino, left = 0, ns, begin = slu_clock_ns();

	fill(data, sizeof(data), 1);
	assert_false(slu_fs_frozen(r->fs, &left));
	assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, 300 * SLU_NS_PER_MS), 0);
	assert_true(slu_fs_frozen(r->fs, &left));
	assert_in_range(left, 1, 300 * SLU_NS_PER_MS);
	ino = make_file(r, "file");
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
	assert_true(slu_clock_ns() - begin >= 300 * SLU_NS_PER_MS);
	assert_false(slu_fs_frozen(r->fs, &left));
	/* Whoever thinks that it was frozen all the time is told. */
	assert_int_equal(slu_fs_thaw(r->fs, &ns), -ETIMEDOUT);
	assert_int_equal(slu_fs_thaw(r->fs, &ns), -EINVAL);
	assert_int_equal(atomic_load(&nexpired), 1);
	assert_int_equal(atomic_load(&nthawed), 0);
	check_copy(r, "file", data, sizeof(data));
	/* And again, one after the other. */
	freeze_rig(r);
	thaw_rig(r);
	assert_int_equal(slu_fs_thaw(r->fs, &ns), -EINVAL);
	assert_int_equal(read_at(r, ino, 0, found, sizeof(found)), sizeof(found));
}

static void one_freeze_at_a_time(void **state)
{
	struct rig *r = *state;
	uint64_t ns, begin;

	assert_int_equal(slu_fs_thaw(r->fs, &ns), -EINVAL);
	begin = slu_clock_ns();
	freeze_rig(r);
	assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, LONG_NS), -EBUSY);
	slu_sleep_ns(10 * SLU_NS_PER_MS);
	assert_int_equal(slu_fs_thaw(r->fs, &ns), 0);
	assert_in_range(ns, 10 * SLU_NS_PER_MS, slu_clock_ns() - begin);
	assert_int_equal(slu_fs_thaw(r->fs, &ns), -EINVAL);
	assert_int_equal(atomic_load(&nfrozen), 1);
}

static void an_unmount_of_a_frozen_volume_loses_nothing(void **state)
{
	uint8_t data[9000], found[sizeof(data)];
	struct rig *r = *state;
	uint64_t ino;

	fill(data, sizeof(data), 1);
	freeze_rig(r);
	ino = make_file(r, "file");
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	mount_rig(r, false);
	assert_int_equal(read_at(r, find_file(r, "file"), 0, found, sizeof(found)), sizeof(found));
	assert_memory_equal(found, data, sizeof(data));
}

static void no_freeze_begins_at_the_end(void **state)
{
	struct rig *r = *state;
	uint64_t left;

	freeze_rig(r);
	slu_fs_end_freezes(r->fs);
	assert_false(slu_fs_frozen(r->fs, &left));
	assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, LONG_NS), -ESHUTDOWN);
	slu_fs_end_freezes(r->fs);
}

static void what_cannot_be_written_is_not_frozen(void **state)
{
	const struct slu_simdisk_fault all = {.op = SLU_IO_WRITE, .nth = 1, .times = UINT64_MAX};
	struct rig *r = *state;
	uint64_t left, ino = make_file(r, "file");

	write_at(r, ino, 0, "abc", 3);
	slu_simdisk_fault(r->disk, &all);
	assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, LONG_NS), -EIO);
	assert_false(slu_fs_frozen(r->fs, &left));
	slu_simdisk_fault(r->disk, NULL);
	freeze_rig(r);
	check_copy(r, "file", "abc", 3);
	thaw_rig(r);
	assert_int_equal(atomic_load(&nfrozen), 1);
}

/* ------------------------------------------------------------------ beside others */

/* Makes a file, writes it, now and then has it on disk, and deletes it. */
static int hammer_once(struct hammer *h, struct slu_ctx *ctx)
{
	struct rig mine = {.fs = h->r->fs, .ctx = *ctx};
	struct slu_ns *ns = h->r->fs->ns;
	uint8_t data[20000];
	struct slu_attr attr;
	uint64_t done;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "hammer%u", h->number);
	err = slu_ns_mknod(ns, ctx, SLU_INO_ROOT, name, S_IFREG | 0644, 0, &attr);
	if (err)
		return err;
	fill(data, sizeof(data), h->rounds);
	err = try_write(&mine, attr.ino, 0, data, sizeof(data), &done);
	if (!err && h->rounds % 4 == 0)
		err = slu_fs_fsync(mine.fs, ctx, attr.ino, UINT64_MAX, false);
	if (!err)
		err = slu_ns_unlink(ns, ctx, SLU_INO_ROOT, name);
	slu_ns_forget(ns, attr.ino, 1);
	return err;
}

static void freezing_beside_writers_is_whole_each_time(void **state)
{
	static uint8_t data[MIB];
	struct rig *r = *state;
	uint64_t old = make_file(r, "old"), end = slu_clock_ns() + 3 * SLU_NS_PER_SEC;
	_Atomic bool stop = false;
	struct hammer h[3];
	unsigned int n = 0;

	fill(data, sizeof(data), 1);
	write_at(r, old, 0, data, sizeof(data));
	for (unsigned int i = 0; i < slu_array_size(h); i++) {
		h[i] = (struct hammer){.r = r, .number = i, .stop = &stop, .once = hammer_once};
		assert_int_equal(slu_thread_start(&h[i].thread, "hammer", hammer_main, &h[i]), 0);
	}
	while (slu_clock_ns() < end) {
		/* Every fourth ends by itself, about when somebody wants to end it. */
		uint64_t limit = n % 4 ? LONG_NS : 20 * SLU_NS_PER_MS, ns;
		int err;

		assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, limit), 0);
		if (n % 4) {
			slu_simdisk_record(r->disk, true);
			slu_sleep_ns(10 * SLU_NS_PER_MS);
			check_copy(r, "old", data, sizeof(data));
			assert_int_equal(changes(r), 0);
			slu_simdisk_record(r->disk, false);
			thaw_rig(r);
		} else {
			slu_sleep_ns(20 * SLU_NS_PER_MS);
			err = slu_fs_thaw(r->fs, &ns);
			assert_true(!err || err == -ETIMEDOUT);
		}
		n++;
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < slu_array_size(h); i++) {
		slu_thread_join(&h[i].thread);
		assert_int_equal(h[i].err, 0);
	}
	assert_true(n > 3 && h[0].rounds > n);
	assert_int_equal(atomic_load(&nslow), 0);
	assert_int_equal(atomic_load(&nfrozen), n);
	assert_int_equal(atomic_load(&nthawed) + atomic_load(&nexpired), n);
	assert_int_equal(slu_fs_sync(r->fs), 0);
	check_copy(r, "old", data, sizeof(data));
}

#define EVENT_CASE(fn) cmocka_unit_test_setup_teardown(fn, setup_events, teardown_rig)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EVENT_CASE(the_image_does_not_change_and_a_copy_is_whole),
		EVENT_CASE(changes_of_a_layout_do_not_reach_the_image_either),
		EVENT_CASE(who_finds_no_memory_waits_and_others_read_on),
		EVENT_CASE(a_probe_neither_waits_nor_fails),
		EVENT_CASE(the_time_limit_thaws),
		EVENT_CASE(one_freeze_at_a_time),
		EVENT_CASE(an_unmount_of_a_frozen_volume_loses_nothing),
		EVENT_CASE(no_freeze_begins_at_the_end),
		EVENT_CASE(what_cannot_be_written_is_not_frozen),
		EVENT_CASE(freezing_beside_writers_is_whole_each_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
