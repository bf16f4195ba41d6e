/* SPDX-License-Identifier: MIT */
/* Space: fallocate in its modes, blocks that stat and statfs count. */
#include "posix.h"
#include <linux/falloc.h>
#include <sys/statvfs.h>

#define MiB (1 << 20)
#define K   4096

/* st_blocks of a file that nobody has open. */
static long long blocks_of(const char *name)
{
	return (long long)posix_stat(name).st_blocks;
}

static int open_rw(const char *name)
{
	return (int)OK(open(name, O_RDWR));
}

static void fallocate_extends_with_zeros_and_owns_blocks(void)
{
	uint8_t buf[K];
	int fd = posix_create("f");

	posix_fill(buf, K, 1);
	posix_write_at(fd, buf, 100, 0);
	OK(fallocate(fd, 0, 0, MiB));
	EQ(MiB, posix_stat("f").st_size);
	posix_zeros(fd, 100, MiB - 100);
	OK(close(fd));
	EQ(MiB / 512, blocks_of("f"));
	/* A write into it needs no more. */
	fd = open_rw("f");
	posix_write_at(fd, buf, K, 10 * K);
	posix_write_at(fd, buf, 10, 20 * K + 100);
	OK(fsync(fd));
	posix_zeros(fd, 11 * K, 9 * K + 100);
	posix_zeros(fd, 20 * K + 110, K);
	OK(close(fd));
	EQ(MiB / 512, blocks_of("f"));
	FAILS(EINVAL, fallocate(fd = open_rw("f"), 0, 0, 0));
	FAILS(EFBIG, fallocate(fd, 0, INT64_MAX - 10, 100));
}

static void fallocate_keep_size_reserves_behind_the_end(void)
{
	int fd = posix_create("f");

	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 10 * K));
	EQ(0, posix_stat("f").st_size);
	OK(close(fd));
	EQ(10 * 8, blocks_of("f"));
	fd = open_rw("f");
	OK(ftruncate(fd, 5 * K + 1)); /* what lies beyond a new size goes */
	posix_zeros(fd, 0, 5 * K + 1);
	OK(close(fd));
	CHECK(blocks_of("f") <= 10 * 8 && blocks_of("f") >= 6 * 8);
	fd = open_rw("f");
	OK(ftruncate(fd, 0));
	OK(close(fd));
	EQ(0, blocks_of("f"));
}

static void punch_hole_gives_blocks_back_and_reads_as_zeros(void)
{
	uint8_t *buf = malloc(MiB), *seen = malloc(MiB);
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	int fd = posix_create("f");

	posix_fill(buf, MiB, 2);
	posix_write_at(fd, buf, MiB, 0);
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		off_t from = on_disk ? 50 * K + 100 : 10 * K + 10, len = 20 * K + 7;

		if (on_disk)
			posix_drop(fd);
		OK(fallocate(fd, mode, from, len));
		memset(buf + from, 0, (size_t)len);
		posix_read_at(fd, seen, MiB, 0);
		SAME(buf, seen, MiB);
		posix_drop(fd);
		posix_read_at(fd, seen, MiB, 0);
		SAME(buf, seen, MiB);
	}
	EQ(MiB, posix_stat("f").st_size);
	OK(close(fd));
	EQ((MiB / K - 2 * 19) * 8, blocks_of("f"));
	fd = open_rw("f");
	OK(fallocate(fd, mode, MiB - 10, MiB)); /* beyond the end: nothing grows */
	EQ(MiB, posix_stat("f").st_size);
	OK(fallocate(fd, mode, 0, MiB));
	OK(close(fd));
	EQ(0, blocks_of("f"));
	EQ(MiB, posix_stat("f").st_size);
}

static void zero_range_keeps_blocks_and_reads_as_zeros(void)
{
	uint8_t *buf = malloc(MiB), *seen = malloc(MiB);
	int fd = posix_create("f");

	posix_fill(buf, MiB, 3);
	posix_write_at(fd, buf, MiB, 0);
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		off_t from = on_disk ? 100 * K + 1 : 20 * K + 4000, len = 30 * K + 200;

		if (on_disk)
			posix_drop(fd);
		OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, from, len));
		memset(buf + from, 0, (size_t)len);
		posix_read_at(fd, seen, MiB, 0);
		SAME(buf, seen, MiB);
		posix_drop(fd);
		posix_read_at(fd, seen, MiB, 0);
		SAME(buf, seen, MiB);
	}
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, MiB - K, 3 * K));
	EQ(MiB, posix_stat("f").st_size);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, MiB - K, 2 * K));
	EQ(MiB + K, posix_stat("f").st_size);
	posix_zeros(fd, MiB - K, 2 * K);
	posix_read_at(fd, seen, MiB - K, 0);
	SAME(buf, seen, MiB - K);
	OK(close(fd));
	CHECK(blocks_of("f") >= (MiB + K) / 512);
}

static void other_fallocate_modes_are_refused(void)
{
	int fd = posix_create("f");

	posix_write_at(fd, "x", 1, 0);
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, K));
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, K));
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, K));
	EQ(1, posix_stat("f").st_size);
}

static void blocks_are_exact_once_a_file_is_closed(void)
{
	uint8_t *buf = malloc(MiB);
	int fd = posix_create("f");

	posix_fill(buf, MiB, 4);
	posix_write_at(fd, buf, 10 * K, 0);
	OK(close(fd));
	EQ(80, blocks_of("f"));
	fd = open_rw("f");
	posix_write_at(fd, buf, 1, 100 * K);
	OK(close(fd));
	EQ(88, blocks_of("f"));
	fd = open_rw("f");
	OK(ftruncate(fd, 3 * K + 1));
	OK(close(fd));
	EQ(32, blocks_of("f"));
	posix_put("one", "x", 1);
	EQ(8, blocks_of("one"));
	posix_put("none", "", 0);
	EQ(0, blocks_of("none"));
	EQ(4096, posix_stat("f").st_blksize);
}

static void statfs_counts_down_and_back_to_the_same_number(void)
{
	struct statvfs before, after, end;
	uint8_t *buf = malloc(MiB);
	int fd;

	posix_fill(buf, MiB, 5);
	OK(statvfs(".", &before));
	EQ(4096, before.f_bsize);
	EQ(4096, before.f_frsize);
	EQ(255, before.f_namemax);
	CHECK(before.f_bavail <= before.f_bfree && before.f_bfree < before.f_blocks);
	fd = posix_create("f");
	for (int i = 0; i < 8; i++)
		posix_write_at(fd, buf, MiB, (off_t)i * MiB);
	OK(fsync(fd));
	OK(close(fd));
	OK(statvfs(".", &after));
	CHECK(before.f_bfree - after.f_bfree >= 8 * MiB / K);
	CHECK(before.f_bfree - after.f_bfree < 8 * MiB / K + 16);
	EQ(before.f_files - before.f_ffree + 1, after.f_files - after.f_ffree);
	OK(unlink("f"));
	/*
	 * A deleted file is freed in the background, its record last, which is too small to show
	 * in the number of free blocks.
	 */
	for (int i = 0; i < 500; i++) {
		OK(statvfs(".", &end));
		if (end.f_bfree == before.f_bfree &&
		    end.f_files - end.f_ffree == before.f_files - before.f_ffree)
			break;
		usleep(10000);
	}
	EQ(before.f_bfree, end.f_bfree);
	EQ(before.f_files - before.f_ffree, end.f_files - end.f_ffree);
}

const struct posix_check space_checks[] = {
	{"fallocate_extends_with_zeros_and_owns_blocks",
	 fallocate_extends_with_zeros_and_owns_blocks, 0},
	{"fallocate_keep_size_reserves_behind_the_end", fallocate_keep_size_reserves_behind_the_end,
	 0},
	{"punch_hole_gives_blocks_back_and_reads_as_zeros",
	 punch_hole_gives_blocks_back_and_reads_as_zeros, 0},
	{"zero_range_keeps_blocks_and_reads_as_zeros", zero_range_keeps_blocks_and_reads_as_zeros,
	 0},
	{"other_fallocate_modes_are_refused", other_fallocate_modes_are_refused, 0},
	{"blocks_are_exact_once_a_file_is_closed", blocks_are_exact_once_a_file_is_closed, 0},
	{"statfs_counts_down_and_back_to_the_same_number",
	 statfs_counts_down_and_back_to_the_same_number, 0},
	{NULL, NULL, 0},
};
