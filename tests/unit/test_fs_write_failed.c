/* SPDX-License-Identifier: MIT */
/*
 * Data that a write has accepted and the disk has not: what readers see while it cannot be written
 * and after it has been, what fsync says to two descriptions, what the log is told, and what a mount
 * after it finds. For pages that were new, uptodate, and overwritten whole without having been read.
 * docs/failure-model.md has the three questions; what a write does not accept is in
 * test_write_failed.c.
 */
#include "fs_rig.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define OLD_SIZE (8 * 4096u)
#define BIG_SIZE (28 * MIB) /* more than the cache */

/* Also where cmocka cannot catch it: in a hook, on any thread. */
#define must(cond)                                                                 \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

enum question { NEW_PAGES, UPTODATE_PAGES, UNREAD_PAGES, NQUESTIONS };

static const struct {
	uint64_t pos, len;
} place[NQUESTIONS] = {
	[NEW_PAGES] = {OLD_SIZE, 3 * 4096},
	[UPTODATE_PAGES] = {4096 + 100, 2 * 4096},
	[UNREAD_PAGES] = {2 * 4096, 3 * 4096},
};

struct scene {
	struct rig *r;
	enum question question;
	uint64_t ino, fh[2];
	uint8_t before[2 * OLD_SIZE], after[2 * OLD_SIZE];
	uint64_t size_before, size_after;
	_Atomic unsigned int nlooks; /* how often a hook has read the file */
	_Atomic unsigned int nerrors, nlost, nreadonly, nrefused, nfull;
	_Atomic uint64_t lost_pos, lost_end;
};

static void on_event(void *ctx, const struct slu_event *ev)
{
	struct scene *s = ctx;

	if (ev->kind == SLU_EVENT_READONLY)
		atomic_fetch_add(&s->nreadonly, 1);
	if (ev->kind == SLU_EVENT_NO_SPACE)
		atomic_fetch_add(ev->ino ? &s->nrefused : &s->nfull, 1);
	if (ev->kind != SLU_EVENT_WRITEBACK_ERROR && ev->kind != SLU_EVENT_DATA_LOST)
		return;
	must(ev->ino == s->ino && ev->error == -EIO);
	if (ev->kind == SLU_EVENT_WRITEBACK_ERROR) {
		atomic_fetch_add(&s->nerrors, 1);
		return;
	}
	if (!atomic_fetch_add(&s->nlost, 1))
		atomic_store(&s->lost_pos, ev->pos);
	atomic_store(&s->lost_end, ev->pos + ev->len);
}

static void mount_scene(struct scene *s)
{
	struct slu_fs_opts opts = {.cache_size = 24 * MIB,
				   .commit_interval_ns = 3600 * SLU_NS_PER_SEC,
				   .events = {on_event, s}};
	const char *why;

	assert_int_equal(slu_fs_mount(open_disk(s->r, false), &opts, &s->r->fs, &why), 0);
	s->ino = find_file(s->r, "f");
	for (int h = 0; h < 2; h++)
		assert_int_equal(slu_fs_open(s->r->fs, &s->r->ctx, s->ino, O_RDWR, &s->fh[h]), 0);
}

static int unmount_scene(struct scene *s)
{
	int err;

	for (int h = 0; h < 2; h++)
		slu_fs_release(s->r->fs, s->ino, s->fh[h]);
	slu_ns_forget(s->r->fs->ns, s->ino, 1);
	err = slu_fs_unmount(s->r->fs);
	s->r->fs = NULL;
	return err;
}

/* What anybody reads now. */
static void check_reads(struct scene *s, const uint8_t *want, uint64_t size)
{
	struct slu_read_vec vec;
	uint64_t n = 0;

	must(!slu_fs_read(s->r->fs, &s->r->ctx, s->ino, UINT64_MAX, 0, 2 * OLD_SIZE, false, &vec));
	must(vec.len == size);
	for (int i = 0; i < vec.niov; i++) {
		must(!memcmp(vec.iov[i].iov_base, want + n, vec.iov[i].iov_len));
		n += vec.iov[i].iov_len;
	}
	slu_read_done(&vec);
}

/* In the thread that writes back, at a moment when it holds no lock. */
static void look(void *arg)
{
	struct scene *s = arg;

	check_reads(s, s->after, s->size_after);
	atomic_fetch_add(&s->nlooks, 1);
}

static const char *const points[] = {"writeback.before_submit", "writeback.before_complete",
				     "writeback.before_end"};

static void look_during(struct scene *s, bool on)
{
	for (size_t i = 0; i < slu_array_size(points); i++) {
		int err = slu_stress_point_set(points[i], on ? look : NULL, s);

		if (err)
			atomic_fetch_add(&s->nlooks, 1); /* built without */
	}
}

static int sync_with(struct scene *s, int h)
{
	return slu_fs_fsync(s->r->fs, &s->r->ctx, s->ino, s->fh[h], false);
}

/* So that every clean page makes way. */
static void read_big(struct scene *s)
{
	uint64_t ino = find_file(s->r, "big");
	uint8_t *buf = malloc(MIB);

	for (uint64_t pos = 0; pos < BIG_SIZE; pos += MIB)
		assert_int_equal(read_at(s->r, ino, pos, buf, MIB), MIB);
	slu_ns_forget(s->r->fs->ns, ino, 1);
	free(buf);
}

/* A file with old bytes on disk, and new ones that have just been written and accepted. */
static struct scene *scene_begin(struct rig *r, enum question q, bool big)
{
	struct scene *s = calloc(1, sizeof(*s));
	uint64_t ino = make_file(r, "f"), done;
	uint8_t *buf = malloc(MIB);

	s->r = r;
	s->question = q;
	s->size_before = OLD_SIZE;
	s->size_after = slu_max((uint64_t)OLD_SIZE, place[q].pos + place[q].len);
	fill(s->before, OLD_SIZE, 1);
	memcpy(s->after, s->before, OLD_SIZE);
	fill(s->after + place[q].pos, place[q].len, 2);
	write_at(r, ino, 0, s->before, OLD_SIZE);
	slu_ns_forget(r->fs->ns, ino, 1);
	ino = make_file(r, "big");
	fill(buf, MIB, 3);
	for (uint64_t pos = 0; big && pos < BIG_SIZE; pos += MIB)
		write_at(r, ino, pos, buf, MIB);
	slu_ns_forget(r->fs->ns, ino, 1);
	free(buf);
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	mount_scene(s);
	if (q == UPTODATE_PAGES)
		check_reads(s, s->before, s->size_before);
	assert_int_equal(try_write(r, s->ino, place[q].pos, s->after + place[q].pos, place[q].len,
				   &done),
			 0);
	assert_int_equal(done, place[q].len);
	check_reads(s, s->after, s->size_after);
	return s;
}

static void scene_end(struct scene *s, const uint8_t *want, uint64_t size)
{
	struct rig *r = s->r;

	mount_scene(s);
	check_reads(s, want, size);
	assert_int_equal(sync_with(s, 0), 0);
	assert_int_equal(unmount_scene(s), 0);
	free(s);
	mount_rig(r, false);
}

static void writes_fail(struct scene *s, uint64_t times)
{
	slu_simdisk_fault(s->r->disk, &(struct slu_simdisk_fault){.op = SLU_IO_WRITE,
								  .nth = 1,
								  .times = times,
								  .kind = SLU_FAULT_ERROR,
								  .error = -EIO});
}

/* ------------------------------------------------------------------ it heals */

static void heals(struct rig *r, enum question q, bool evict)
{
	struct scene *s = scene_begin(r, q, evict);

	writes_fail(s, 1);
	look_during(s, true);
	assert_int_equal(sync_with(s, 0), -EIO);
	look_during(s, false);
	assert_true(atomic_load(&s->nlooks) >= 3);
	assert_int_equal(atomic_load(&s->nerrors), 1);
	check_reads(s, s->after, s->size_after);
	/* Whatever else makes way, the only copy stays. */
	if (evict)
		read_big(s);
	check_reads(s, s->after, s->size_after);
	/* The next try goes through; the other description is told of the first one all the same. */
	assert_int_equal(sync_with(s, 0), 0);
	assert_int_equal(sync_with(s, 1), -EIO);
	assert_int_equal(sync_with(s, 1), 0);
	assert_int_equal(atomic_load(&s->nerrors), 1);
	/* From the disk now, if the pages have made way. */
	if (evict)
		read_big(s);
	check_reads(s, s->after, s->size_after);
	assert_int_equal(unmount_scene(s), 0);
	assert_int_equal(atomic_load(&s->nlost), 0);
	scene_end(s, s->after, s->size_after);
}

static void new_pages_of_a_failed_write_are_kept_until_it_heals(void **state)
{
	heals(*state, NEW_PAGES, false);
}

static void uptodate_pages_of_a_failed_write_are_kept_until_it_heals(void **state)
{
	heals(*state, UPTODATE_PAGES, false);
}

static void unread_pages_of_a_failed_write_are_kept_until_it_heals(void **state)
{
	heals(*state, UNREAD_PAGES, false);
}

static void failed_new_pages_are_not_evicted(void **state)
{
	heals(*state, NEW_PAGES, true);
}

static void failed_uptodate_pages_are_not_evicted(void **state)
{
	heals(*state, UPTODATE_PAGES, true);
}

static void failed_unread_pages_are_not_evicted(void **state)
{
	heals(*state, UNREAD_PAGES, true);
}

/* ------------------------------------------------------------------ it never heals */

/* Nothing but the unmount lets go of it, and that says what and where. */
static void never_heals(struct rig *r, enum question q)
{
	struct scene *s = scene_begin(r, q, false);

	writes_fail(s, UINT64_MAX);
	look_during(s, true);
	for (int i = 0; i < 2; i++)
		for (int h = 0; h < 2; h++)
			assert_int_equal(sync_with(s, h), -EIO);
	check_reads(s, s->after, s->size_after);
	assert_int_equal(slu_fs_sync(r->fs), -EIO);
	look_during(s, false);
	check_reads(s, s->after, s->size_after);
	assert_true(atomic_load(&s->nerrors) >= 1);
	assert_int_equal(atomic_load(&s->nlost), 0);
	assert_int_equal(unmount_scene(s), -EIO);
	assert_int_equal(atomic_load(&s->nlost), 1);
	assert_int_equal(atomic_load(&s->lost_pos), slu_round_down(place[q].pos, 4096));
	assert_int_equal(atomic_load(&s->lost_end),
			 slu_round_up(place[q].pos + place[q].len, 4096));
	slu_simdisk_fault(r->disk, NULL);
	/* As before the write: neither a byte of it nor a larger size. */
	scene_end(s, s->before, s->size_before);
}

static void new_pages_that_are_never_written_are_named_at_unmount(void **state)
{
	never_heals(*state, NEW_PAGES);
}

static void uptodate_pages_that_are_never_written_are_named_at_unmount(void **state)
{
	never_heals(*state, UPTODATE_PAGES);
}

static void unread_pages_that_are_never_written_are_named_at_unmount(void **state)
{
	never_heals(*state, UNREAD_PAGES);
}

/* ------------------------------------------------------------------ the volume turns read-only */

/*
 * A failed flush: nothing is accepted any more, in whatever blocks it would lie; what had been can be
 * read until the unmount, and every fsync fails.
 */
static void a_volume_that_has_turned_readonly_takes_no_more_writes(void **state)
{
	struct scene *s = scene_begin(*state, UPTODATE_PAGES, false);
	struct rig *r = s->r;
	uint64_t done;

	slu_simdisk_fault(r->disk, &(struct slu_simdisk_fault){.op = SLU_IO_FLUSH,
							       .nth = 1,
							       .times = 1,
							       .kind = SLU_FAULT_ERROR,
							       .error = -EIO});
	assert_int_equal(sync_with(s, 0), -EIO);
	assert_int_equal(atomic_load(&s->nreadonly), 1);
	check_reads(s, s->after, s->size_after);
	/* In place, in a new block, beyond the end. */
	assert_int_equal(try_write(r, s->ino, 0, "x", 1, &done), -EROFS);
	assert_int_equal(try_write(r, s->ino, 4096, s->before, 4096, &done), -EROFS);
	assert_int_equal(try_write(r, s->ino, 5 * OLD_SIZE, "x", 1, &done), -EROFS);
	check_reads(s, s->after, s->size_after);
	for (int i = 0; i < 2; i++)
		for (int h = 0; h < 2; h++)
			assert_true(sync_with(s, h) < 0);
	assert_true(unmount_scene(s) < 0);
	/* It had been written in place before the flush; nothing says so. */
	scene_end(s, s->after, s->size_after);
}

/* ------------------------------------------------------------------ the volume is full */

static int write_flags(struct scene *s, uint64_t pos, const void *data, uint64_t len,
		       unsigned int flags)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct slu_source_buffer src;
	struct slu_write_result res;

	slu_source_buffer_init(&src, &iov, 1);
	return slu_fs_write(s->r->fs, &s->r->ctx, s->ino, UINT64_MAX, &src.source, pos, len, flags,
			    false, &res);
}

/*
 * Who writes is told by the call, and the log hears now and then that the volume is full. For what
 * the kernel writes back the call is too late, and the log hears of all of it; the file is as it
 * was, for every reader.
 */
static void pages_of_the_kernel_that_are_refused_are_an_event(void **state)
{
	struct scene *s = scene_begin(*state, NEW_PAGES, false);
	struct rig *r = s->r;
	uint64_t ino = make_file(r, "filler"), at = 0, size = 4 * MIB;

	while (size >= 4096) {
		if (slu_fs_fallocate(r->fs, &r->ctx, ino, 0, at, size))
			size /= 2;
		else
			at += size;
	}
	slu_ns_forget(r->fs->ns, ino, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(write_flags(s, 2 * OLD_SIZE, s->before, 4096, 0), -ENOSPC);
	assert_int_equal(atomic_load(&s->nfull), 1);
	assert_int_equal(atomic_load(&s->nrefused), 0);
	assert_int_equal(write_flags(s, 0, s->before, 2 * OLD_SIZE, SLU_WRITE_KERNEL_CACHE),
			 -ENOSPC);
	assert_int_equal(atomic_load(&s->nrefused), 1);
	check_reads(s, s->after, s->size_after);
	for (int h = 0; h < 2; h++)
		assert_int_equal(sync_with(s, h), 0);
	assert_int_equal(unmount_scene(s), 0);
	scene_end(s, s->after, s->size_after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_CASE(new_pages_of_a_failed_write_are_kept_until_it_heals),
		RIG_CASE(uptodate_pages_of_a_failed_write_are_kept_until_it_heals),
		RIG_CASE(unread_pages_of_a_failed_write_are_kept_until_it_heals),
		RIG_CASE(failed_new_pages_are_not_evicted),
		RIG_CASE(failed_uptodate_pages_are_not_evicted),
		RIG_CASE(failed_unread_pages_are_not_evicted),
		RIG_CASE(new_pages_that_are_never_written_are_named_at_unmount),
		RIG_CASE(uptodate_pages_that_are_never_written_are_named_at_unmount),
		RIG_CASE(unread_pages_that_are_never_written_are_named_at_unmount),
		RIG_CASE(a_volume_that_has_turned_readonly_takes_no_more_writes),
		RIG_CASE(pages_of_the_kernel_that_are_refused_are_an_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
