/* SPDX-License-Identifier: MIT */
/* Files on a whole stack over the simulated disk: everything but FUSE. */
#include "fs_rig.h"
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* ------------------------------------------------------------------ cases */

static void a_file_is_there_after_a_remount(void **state)
{
	struct rig *r = *state;
	static uint8_t data[3 * MIB + 123], back[sizeof(data) + 10];
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 1);
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(data));
	assert_memory_equal(data, back, sizeof(data));
	remount_rig(r);
	ino = find_file(r, "file");
	assert_int_equal(size_of(r, ino), sizeof(data));
	memset(back, 0, sizeof(back));
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(data));
	assert_memory_equal(data, back, sizeof(data));
}

static void fsynced_data_survives_a_power_cut(void **state)
{
	struct rig *r = *state;
	static uint8_t data[777777], back[sizeof(data)];
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 2);
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
	cut_power(r, 7);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(data));
	assert_memory_equal(data, back, sizeof(data));
}

struct reader {
	struct rig *r;
	uint64_t ino;
	_Atomic bool stop;
	_Atomic int err;
};

static void *read_on(void *arg)
{
	struct reader *rd = arg;
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_read_vec vec;

	while (!atomic_load(&rd->stop)) {
		int err = slu_fs_read(rd->r->fs, &ctx, rd->ino, UINT64_MAX, 0, 65536, false, &vec);

		if (err)
			atomic_store(&rd->err, err);
		else
			slu_read_done(&vec);
	}
	return NULL;
}

/* Reservations without pages are none of a reader's, nor are blocks that are about to go. */
static void a_hole_is_punched_under_the_eyes_of_a_reader(void **state)
{
	struct rig *r = *state;
	static uint8_t data[65536], back[sizeof(data)], want[sizeof(data)];
	struct reader rd = {.r = r, .ino = make_file(r, "file")};
	bool same = true;
	pthread_t thread;

	fill(data, sizeof(data), 4);
	memcpy(want, data, sizeof(data));
	memset(want + 4096, 0, 57344);
	write_at(r, rd.ino, 0, data, sizeof(data));
	assert_int_equal(pthread_create(&thread, NULL, read_on, &rd), 0);
	for (unsigned int i = 0; same && !atomic_load(&rd.err) && i < 3000; i++) {
		int mode = i & 1 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

		write_at(r, rd.ino, 0, data, sizeof(data));
		if (i & 2)
			slu_fs_fsync(r->fs, &r->ctx, rd.ino, UINT64_MAX, true);
		slu_fs_fallocate(r->fs, &r->ctx, rd.ino, mode | FALLOC_FL_KEEP_SIZE, 4096, 57344);
		read_at(r, rd.ino, 0, back, sizeof(back));
		same = memcmp(want, back, sizeof(back)) == 0;
	}
	atomic_store(&rd.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&rd.err), 0);
	assert_memory_equal(want, back, sizeof(back));
}

static void truncate_down_and_up_reads_zeros(void **state)
{
	struct rig *r = *state;
	uint8_t data[20000], back[20000];
	struct slu_attr attr;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 3);
	write_at(r, ino, 0, data, sizeof(data));
	for (int synced = 0; synced < 2; synced++) {
		if (synced)
			assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
		assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, 5001, false, &attr), 0);
		assert_int_equal(attr.size, 5001);
		assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, sizeof(data), false, &attr),
				 0);
		assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
		assert_memory_equal(back, data, 5001);
		for (size_t i = 5001; i < sizeof(back); i++)
			assert_int_equal(back[i], 0);
		if (!synced)
			write_at(r, ino, 0, data, sizeof(data));
	}
	remount_rig(r);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, 5001);
	for (size_t i = 5001; i < sizeof(back); i++)
		assert_int_equal(back[i], 0);
}

static void punched_and_zeroed_ranges_read_zeros_and_keep_their_neighbours(void **state)
{
	struct rig *r = *state;
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE};
	static uint8_t data[10 * 4096], want[sizeof(data)], back[sizeof(data)];

	for (size_t m = 0; m < slu_array_size(modes); m++) {
		for (int synced = 0; synced < 2; synced++) {
			char name[16];
			snprintf(name, sizeof(name), "f%zu.%d", m, synced);
			uint64_t ino = make_file(r, name);

			fill(data, sizeof(data), (unsigned int)m);
			memcpy(want, data, sizeof(want));
			memset(want + 5000, 0, 20000);
			write_at(r, ino, 0, data, sizeof(data));
			if (synced)
				assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX,
							      false),
						 0);
			assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino, modes[m], 5000,
							  20000),
					 0);
			assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
			assert_memory_equal(back, want, sizeof(back));
			remount_rig(r);
			ino = find_file(r, name);
			memset(back, 1, sizeof(back));
			assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
			assert_memory_equal(back, want, sizeof(back));
		}
	}
}

static void preallocated_space_is_a_hole_that_cannot_run_out(void **state)
{
	struct rig *r = *state;
	static uint8_t data[MIB];
	uint64_t ino = make_file(r, "reserved"), filler = make_file(r, "filler"), pos, done = 1;

	assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino, 0, 0, 8 * MIB), 0);
	assert_int_equal(size_of(r, ino), 8 * MIB);
	assert_int_equal(slu_fs_seek(r->fs, &r->ctx, ino, 0, SEEK_DATA, &pos), -ENXIO);
	fill(data, sizeof(data), 5);
	for (pos = 0; done; pos += done)
		if (try_write(r, filler, pos, data, sizeof(data), &done))
			break;
	assert_true(pos > 32 * MIB);
	for (pos = 0; pos < 8 * MIB; pos += MIB)
		write_at(r, ino, pos, data, sizeof(data));
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
}

static void a_full_volume_gives_back_the_same_number_of_blocks(void **state)
{
	struct rig *r = *state;
	static uint8_t data[MIB];
	uint64_t before, inodes, done, pos = 0, ino;
	int err;

	assert_int_equal(slu_fs_sync(r->fs), 0);
	before = free_blocks(r);
	inodes = inodes_in_use(r);
	ino = make_file(r, "filler");
	fill(data, sizeof(data), 6);
	do {
		err = try_write(r, ino, pos, data, sizeof(data), &done);
		pos += done;
	} while (!err && done);
	assert_true(err == -ENOSPC || !done);
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
	assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "filler"), 0);
	slu_ns_forget(r->fs->ns, ino, 1);
	reclaim_rig(r, before, inodes);
	assert_int_equal(free_blocks(r), before);
	/* and all of it can be had again */
	ino = make_file(r, "again");
	uint64_t second = 0;
	do {
		err = try_write(r, ino, second, data, sizeof(data), &done);
		second += done;
	} while (!err && done);
	assert_int_equal(second, pos);
}

static void seek_finds_data_and_holes(void **state)
{
	struct rig *r = *state;
	uint8_t page[4096];
	uint64_t ino = make_file(r, "sparse"), pos;
	struct slu_attr attr;

	fill(page, sizeof(page), 8);
	write_at(r, ino, 3 * 4096, page, sizeof(page));
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, 10 * 4096, false, &attr), 0);
	assert_int_equal(slu_fs_seek(r->fs, &r->ctx, ino, 0, SEEK_DATA, &pos), 0);
	assert_int_equal(pos, 3 * 4096);
	assert_int_equal(slu_fs_seek(r->fs, &r->ctx, ino, 3 * 4096 + 7, SEEK_HOLE, &pos), 0);
	assert_int_equal(pos, 4 * 4096);
	assert_int_equal(slu_fs_seek(r->fs, &r->ctx, ino, 0, SEEK_HOLE, &pos), 0);
	assert_int_equal(pos, 0);
	assert_int_equal(slu_fs_seek(r->fs, &r->ctx, ino, 5 * 4096, SEEK_DATA, &pos), -ENXIO);
	assert_int_equal(slu_fs_seek(r->fs, &r->ctx, ino, 10 * 4096, SEEK_HOLE, &pos), -ENXIO);
}

static void copy_range_copies_and_keeps_holes(void **state)
{
	struct rig *r = *state;
	static uint8_t data[3 * MIB], back[3 * MIB];
	uint64_t in = make_file(r, "in"), out = make_file(r, "out"), done;
	struct slu_inode *inode;
	struct slu_attr attr;

	fill(data, sizeof(data), 9);
	memset(data + MIB, 0, MIB);
	write_at(r, in, 0, data, MIB);
	write_at(r, in, 2 * MIB, data + 2 * MIB, MIB);
	assert_int_equal(slu_fs_copy_range(r->fs, &r->ctx, in, 0, out, 0, sizeof(data) + 5, &done),
			 0);
	assert_int_equal(done, sizeof(data));
	assert_int_equal(read_at(r, out, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(data, back, sizeof(data));
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(slu_inode_get(r->fs->ns, out, &inode), 0);
	slu_inode_attr(inode, &attr);
	slu_inode_put(inode);
	assert_int_equal(attr.blocks, 2 * MIB / 4096);
	assert_int_equal(slu_fs_copy_range(r->fs, &r->ctx, in, 0, in, 4096, 8192, &done), -EINVAL);
}

static void a_read_only_mount_reads_and_refuses(void **state)
{
	struct rig *r = *state;
	uint8_t page[4096], back[4096];
	struct slu_attr attr;
	uint64_t ino = make_file(r, "file"), done, fh;

	fill(page, sizeof(page), 10);
	write_at(r, ino, 0, page, sizeof(page));
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	mount_rig(r, true);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(page, back, sizeof(page));
	assert_int_equal(try_write(r, ino, 0, page, sizeof(page), &done), -EROFS);
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, 0, false, &attr), -EROFS);
	assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_RDWR, &fh), -EROFS);
	assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_RDONLY, &fh), 0);
	slu_fs_release(r->fs, ino, fh);
}

static void an_unlinked_open_file_lives_until_it_is_closed(void **state)
{
	struct rig *r = *state;
	static uint8_t data[MIB], back[MIB];
	uint64_t before, ino, fh;

	assert_int_equal(slu_fs_sync(r->fs), 0);
	before = free_blocks(r);
	ino = make_file(r, "file");
	assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_RDWR, &fh), 0);
	fill(data, sizeof(data), 11);
	assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"), 0);
	slu_ns_forget(r->fs->ns, ino, 1);
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, fh, false), 0);
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(data, back, sizeof(data));
	slu_fs_release(r->fs, ino, fh);
	while (slu_ns_reclaim(r->fs->ns) > 0)
		;
	struct slu_inode *inode;
	int err = -EAGAIN;
	for (int i = 0; i < 1000; i++) { /* the housekeeper may be at it */
		err = slu_inode_get(r->fs->ns, ino, &inode);
		if (err)
			break;
		slu_inode_put(inode);
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	assert_int_equal(err, -ESTALE);
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(free_blocks(r), before);
}

/* Nobody asks for it: what could not be freed is freed when the disk has healed. */
static void space_comes_back_after_a_passing_error(void **state)
{
	struct rig *r = *state;
	struct slu_simdisk_fault fault = {.op = SLU_IO_READ, .nth = 1, .times = 1};
	static uint8_t value[60000];
	uint64_t ino, inodes;

	r->commit_interval_ns = 50 * SLU_NS_PER_MS;
	ino = make_file(r, "file");
	inodes = inodes_in_use(r);
	assert_int_equal(slu_ns_setxattr(r->fs->ns, &r->ctx, ino, "user.x", value, sizeof(value), 0,
					 false),
			 0);
	remount_rig(r); /* the parts of the value are on disk alone */
	assert_int_equal(find_file(r, "file"), ino);
	assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"), 0);
	slu_simdisk_fault(r->disk, &fault);
	slu_ns_forget(r->fs->ns, ino, UINT64_MAX);
	for (int i = 0; i < 30000 && inodes_in_use(r) == inodes; i++)
		slu_sleep_ns(SLU_NS_PER_MS);
	assert_int_equal(slu_simdisk_fault_hits(r->disk), 1);
	assert_int_equal(inodes_in_use(r), inodes - 1);
	slu_simdisk_fault(r->disk, NULL);
}

/*
 * A truncate to within a block zeroes the rest of its page. Until the truncate itself is on disk,
 * these zeros may not be: after a power cut the file may have its old size.
 */
static void zeros_behind_a_new_end_wait_for_the_truncate(void **state)
{
	struct rig *r = *state;
	uint8_t data[8192], back[8192];
	struct slu_inode *inode;
	struct slu_attr attr;
	uint64_t ino = make_file(r, "file");

	memset(data, 0xaa, sizeof(data));
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, 3000, false, &attr), 0);
	write_at(r, ino, 10, "b", 1);
	assert_int_equal(slu_inode_get(r->fs->ns, ino, &inode), 0);
	assert_int_equal(slu_writeback_range(r->fs->wb, &inode->data, 0, UINT64_MAX), 0);
	slu_inode_put(inode);

	/* The power fails now; everything that was written, flushed or not, is kept. */
	struct slu_simdisk *after = slu_simdisk_clone(r->disk);
	slu_simdisk_power_cut(after, 0);
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	slu_simdisk_free(r->disk);
	r->disk = after;
	mount_rig(r, false);
	ino = find_file(r, "file");
	size_t n = read_at(r, ino, 0, back, sizeof(back));
	assert_true(n == 3000 || n == sizeof(back));
	for (size_t i = 0; i < n; i++)
		assert_int_equal(back[i], i == 10 ? 'b' : 0xaa);
}

static void random_operations_agree_with_a_plain_array(void **state)
{
	struct rig *r = *state;
	enum { MOST = 300000 };
	static uint8_t model[MOST], buf[MOST], back[MOST];
	uint64_t x = 88172645463325252ull, ino = make_file(r, "file");
	struct slu_attr attr;
	size_t size = 0;

	memset(model, 0, sizeof(model));
	for (int i = 0; i < 4000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		size_t pos = (x >> 8) % MOST, len = 1 + (x >> 32) % 30000;
		len = slu_min(len, MOST - pos);
		switch (x % 16) {
		case 0:
			assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, pos, false, &attr),
					 0);
			if (pos < size)
				memset(model + pos, 0, size - pos);
			size = pos;
			break;
		case 1:
			assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino,
							  FALLOC_FL_PUNCH_HOLE |
								  FALLOC_FL_KEEP_SIZE,
							  pos, len),
					 0);
			memset(model + pos, 0, len);
			break;
		case 2:
			assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino, FALLOC_FL_ZERO_RANGE,
							  pos, len),
					 0);
			memset(model + pos, 0, len);
			size = slu_max(size, pos + len);
			break;
		case 3:
			assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
			break;
		case 4:
			if (i % 64 == 0) {
				remount_rig(r);
				ino = find_file(r, "file");
			}
			break;
		case 5:
		case 6:
		case 7:
			assert_int_equal(read_at(r, ino, pos, back, len),
					 pos < size ? slu_min(len, size - pos) : 0);
			if (pos < size)
				assert_memory_equal(back, model + pos, slu_min(len, size - pos));
			break;
		default:
			fill(buf, len, (unsigned int)i);
			write_at(r, ino, pos, buf, len);
			memcpy(model + pos, buf, len);
			size = slu_max(size, pos + len);
		}
		assert_int_equal(size_of(r, ino), size);
	}
	assert_int_equal(read_at(r, ino, 0, back, MOST), size);
	assert_memory_equal(back, model, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_CASE(a_file_is_there_after_a_remount),
		RIG_CASE(fsynced_data_survives_a_power_cut),
		RIG_CASE(a_hole_is_punched_under_the_eyes_of_a_reader),
		RIG_CASE(truncate_down_and_up_reads_zeros),
		RIG_CASE(punched_and_zeroed_ranges_read_zeros_and_keep_their_neighbours),
		RIG_CASE(preallocated_space_is_a_hole_that_cannot_run_out),
		RIG_CASE(a_full_volume_gives_back_the_same_number_of_blocks),
		RIG_CASE(seek_finds_data_and_holes),
		RIG_CASE(copy_range_copies_and_keeps_holes),
		RIG_CASE(a_read_only_mount_reads_and_refuses),
		RIG_CASE(an_unlinked_open_file_lives_until_it_is_closed),
		RIG_CASE(space_comes_back_after_a_passing_error),
		RIG_CASE(zeros_behind_a_new_end_wait_for_the_truncate),
		RIG_CASE(random_operations_agree_with_a_plain_array),
	};

	return cmocka_run_group_tests_name("fs files", tests, NULL, NULL);
}
