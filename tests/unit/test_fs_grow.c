/* SPDX-License-Identifier: MIT */
/* Growing a mounted volume: what it needs, what it refuses, and the power failing on the way. */
#include "fs_check.h"

#define LONGER (VOLUME_BLOCKS + 6000)

static uint8_t data[64 * 4096], back[sizeof(data)];

static int grow(struct rig *r, uint64_t nblocks, struct slu_fs_growth *ret)
{
	return slu_fs_grow(r->fs, nblocks, ret);
}

static void set_disk(struct rig *r, uint64_t nblocks)
{
	assert_int_equal(slu_blockio_grow(r->fs->bio, nblocks), 0);
}

/* fsck of a disk: nothing wrong. The size of the volume. */
static uint64_t check_disk(struct slu_simdisk *disk)
{
	return check_sound(disk).nblocks;
}

/* Takes what is left, in one file. */
static void fill_up(struct rig *r, const char *name)
{
	uint64_t ino = make_file(r, name), pos = 0, done;
	int err;

	while (!(err = try_write(r, ino, pos, data, sizeof(data), &done)))
		pos += done;
	assert_int_equal(err, -ENOSPC);
}

static void a_full_volume_that_grows_is_written_on(void **state)
{
	struct rig *r = *state;
	struct slu_fs_growth g;
	uint64_t ino, had, done;

	fill(data, sizeof(data), 1);
	fill_up(r, "full");
	ino = make_file(r, "next");
	assert_int_equal(try_write(r, ino, 0, data, sizeof(data), &done), -ENOSPC);
	had = free_blocks(r);
	assert_int_equal(grow(r, LONGER, &g), 0);
	assert_int_equal(g.from, VOLUME_BLOCKS);
	assert_int_equal(g.to, LONGER);
	assert_true(free_blocks(r) > had + 5000);
	write_at(r, ino, 0, data, sizeof(data));
	remount_rig(r);
	assert_int_equal(read_at(r, find_file(r, "next"), 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
	assert_int_equal(check_disk(r->disk), LONGER);
	assert_int_equal(grow(r, LONGER, &g), 0);
	assert_int_equal(g.from, g.to);
	assert_int_equal(grow(r, 0, &g), 0);
	assert_int_equal(g.to, LONGER);
}

static void what_cannot_be_is_refused_and_changes_nothing(void **state)
{
	struct rig *r = *state;
	struct slu_fs_growth g;

	assert_int_equal(grow(r, VOLUME_BLOCKS - 1, &g), -EINVAL);
	assert_int_equal(grow(r, SLU_MAX_BLOCKS + 1, &g), -EFBIG);
	assert_int_equal(slu_fs_set_readonly(r->fs, true), 0);
	assert_int_equal(grow(r, LONGER, &g), -EROFS);
	assert_int_equal(slu_fs_set_readonly(r->fs, false), 0);
	slu_simdisk_host_space(r->disk, 0);
	assert_int_equal(grow(r, LONGER, &g), -ENOSPC);
	assert_int_equal(g.to, VOLUME_BLOCKS);
	slu_simdisk_host_space(r->disk, UINT64_MAX);
	remount_rig(r);
	assert_int_equal(check_disk(r->disk), VOLUME_BLOCKS);
	assert_int_equal(grow(r, LONGER, &g), 0);
	remount_rig(r);
	assert_int_equal(check_disk(r->disk), LONGER);
}

static void what_lies_behind_the_volume_is_kept(void **state)
{
	struct rig *r = *state;
	struct slu_fs_growth g;

	fill(data, sizeof(data), 3);
	set_disk(r, LONGER);
	slu_simdisk_poke(r->disk, LONGER - 2, data);
	assert_int_equal(grow(r, VOLUME_BLOCKS + 2000, &g), -EEXIST);
	assert_int_equal(g.occupied, LONGER - 2);
	assert_int_equal(grow(r, 0, &g), -EEXIST);
	slu_simdisk_peek(r->disk, LONGER - 2, back);
	assert_memory_equal(back, data, 4096);
	memset(back, 0, 4096);
	slu_simdisk_poke(r->disk, LONGER - 2, back);
	assert_int_equal(grow(r, 0, &g), 0);
	assert_int_equal(g.to, LONGER);
}

/* A commit that fails is tried again; the volume is as long as it said. */
static void a_commit_that_fails_is_told_and_made_up_for(void **state)
{
	struct rig *r = *state;
	struct slu_fs_growth g;
	struct slu_simdisk_fault fault = {
		.op = SLU_IO_WRITE,
		.nth = 1,
		.times = UINT64_MAX, /* a commit of nobody's may come first */
		.blkno = 256,
		.nblocks = VOLUME_BLOCKS - 256,
		.error = -ENOSPC};

	assert_int_equal(slu_fs_sync(r->fs), 0);
	slu_simdisk_fault(r->disk, &fault);
	assert_int_equal(grow(r, LONGER, &g), -ENOSPC);
	assert_int_equal(g.to, LONGER);
	slu_simdisk_fault(r->disk, NULL);
	/* A commit that was under way may fail yet. */
	if (slu_fs_sync(r->fs))
		assert_int_equal(slu_fs_sync(r->fs), 0);
	remount_rig(r);
	assert_int_equal(check_disk(r->disk), LONGER);
}

/* What a cut has left: one size or the other, whole, and it can grow and be written all the same. */
static bool try_cut(struct rig *r, struct slu_simdisk *disk, bool again)
{
	struct rig after = {.disk = disk, .ctx.may_wait = true};
	uint64_t size = check_disk(disk), ino;
	struct slu_fs_growth g;

	assert_true(size == VOLUME_BLOCKS || size == LONGER);
	mount_rig(&after, false);
	ino = find_file(&after, "kept");
	assert_int_equal(read_at(&after, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
	if (again) {
		/* first to another size than was interrupted */
		assert_int_equal(grow(&after, LONGER + 1000, &g), 0);
		assert_int_equal(g.from, size);
		write_at(&after, make_file(&after, "new"), 0, data, sizeof(data));
	}
	assert_int_equal(slu_fs_unmount(after.fs), 0);
	assert_int_equal(check_disk(disk), again ? LONGER + 1000 : size);
	slu_simdisk_free(disk);
	return size == LONGER;
}

static void a_power_cut_leaves_one_size_or_the_other(void **state)
{
	struct rig *r = *state;
	struct slu_fs_growth g;
	uint64_t ino = make_file(r, "kept");
	unsigned int longer = 0, tried = 0;
	size_t n;

	fill(data, sizeof(data), 5);
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_sync(r->fs), 0);
	slu_simdisk_record(r->disk, true);
	assert_int_equal(grow(r, LONGER, &g), 0);
	n = slu_simdisk_nrecords(r->disk);
	for (unsigned int i = 0; i < 4; i++) {
		char name[] = {'a' + (char)i, 0};

		write_at(r, make_file(r, name), 0, data, sizeof(data));
		assert_int_equal(slu_fs_sync(r->fs), 0);
	}
	slu_simdisk_record(r->disk, false);
	for (size_t k = 0; k <= slu_simdisk_nrecords(r->disk); k += k < n ? 1 : 3) {
		for (uint64_t seed = 0; seed < 4; seed++) {
			longer += try_cut(r, slu_simdisk_replay(r->disk, k, seed), seed % 2);
			tried++;
		}
	}
	assert_true(longer > 0 && longer < tried);
}

struct writer {
	struct rig *r;
	uint64_t ino;
	struct slu_thread thread;
	_Atomic bool stop;
	uint64_t written; /* bytes */
};

static void write_until_told(void *arg)
{
	struct writer *w = arg;
	uint64_t done;

	/* A full volume is waited out: it is about to grow. */
	while (!atomic_load(&w->stop)) {
		int err = try_write(w->r, w->ino, w->written, data, sizeof(data), &done);

		slu_assert(!err || err == -ENOSPC);
		w->written += done;
		if (!err && w->written % (16 * sizeof(data)) == 0)
			err = slu_fs_fsync(w->r->fs, &w->r->ctx, w->ino, UINT64_MAX, false);
		slu_assert(!err || err == -ENOSPC);
	}
}

static void it_grows_beside_writers(void **state)
{
	struct rig *r = *state;
	struct writer w[2];
	struct slu_fs_growth g;

	fill(data, sizeof(data), 7);
	for (unsigned int i = 0; i < 2; i++) {
		w[i] = (struct writer){.r = r, .ino = make_file(r, i ? "b" : "a")};
		assert_int_equal(slu_thread_start(&w[i].thread, "writer", write_until_told, &w[i]),
				 0);
	}
	for (uint64_t n = VOLUME_BLOCKS + 700; n < 3 * VOLUME_BLOCKS; n += 1700) {
		assert_int_equal(grow(r, n, &g), 0);
		assert_int_equal(g.to, n);
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	}
	for (unsigned int i = 0; i < 2; i++) {
		atomic_store(&w[i].stop, true);
		slu_thread_join(&w[i].thread);
	}
	assert_true(w[0].written + w[1].written > 0);
	remount_rig(r);
	assert_int_equal(check_disk(r->disk), g.to);
	for (unsigned int i = 0; i < 2; i++)
		for (uint64_t pos = 0; pos < w[i].written; pos += sizeof(data)) {
			size_t n = slu_min(sizeof(data), w[i].written - pos);

			assert_int_equal(read_at(r, w[i].ino, pos, back, n), n);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_CASE(a_full_volume_that_grows_is_written_on),
		RIG_CASE(what_cannot_be_is_refused_and_changes_nothing),
		RIG_CASE(what_lies_behind_the_volume_is_kept),
		RIG_CASE(a_commit_that_fails_is_told_and_made_up_for),
		RIG_CASE(it_grows_beside_writers),
		RIG_CASE(a_power_cut_leaves_one_size_or_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
