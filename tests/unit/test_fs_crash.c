/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of a file whose data reaches the disk in another order than it was
 * written: fsck finds nothing wrong, no byte shows up that the size does not cover, and every block
 * comes back. And of its times, with fsync and fdatasync.
 */
#include "fs_check.h"
#include <fcntl.h>
#include <linux/falloc.h>

#define PAGES 42u
#define LEFT  19u /* of them not written out yet */

static uint8_t data[PAGES * 4096], back[sizeof(data)];

/* fsck of what is on the disk: nothing wrong. Returns the number of orphan records. */
static uint64_t check_disk(struct rig *r)
{
	return check_sound(r->disk).orphans;
}

static void commit(struct rig *r)
{
	assert_int_equal(slu_store_commit(r->fs->store, slu_store_txid(r->fs->store), true), 0);
}

static struct slu_inode *get(struct rig *r, uint64_t ino)
{
	struct slu_inode *inode;

	assert_int_equal(slu_inode_get(r->fs->ns, ino, &inode), 0);
	return inode;
}

/* Writes out the pages [first, end) of a file, and no others, and commits what there is. */
static void write_out(struct rig *r, uint64_t ino, uint64_t first, uint64_t end)
{
	struct slu_inode *inode = get(r, ino);

	assert_int_equal(slu_writeback_range(r->fs->wb, &inode->data, first * 4096, end * 4096), 0);
	slu_inode_put(inode);
	commit(r);
}

/* A file of PAGES pages, of which the first LEFT are dirty and the others on disk. */
static uint64_t make_disordered(struct rig *r, const char *name)
{
	uint64_t ino = make_file(r, name);

	fill(data, sizeof(data), 77);
	commit(r);
	write_at(r, ino, 0, data, sizeof(data));
	write_out(r, ino, LEFT, PAGES);
	return ino;
}

static void all_zeros(const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], 0);
}

static void data_beyond_the_size_on_disk_is_gone_after_a_crash(void **state)
{
	struct rig *r = *state;
	uint64_t free0, ino;
	struct slu_attr attr;

	make_file(r, "file");
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(slu_fs_sync(r->fs), 0);
	free0 = free_blocks(r);
	make_disordered(r, "other");
	assert_int_equal(check_disk(r), 1);
	assert_int_equal(slu_ns_rename(r->fs->ns, &r->ctx, SLU_INO_ROOT, "other", SLU_INO_ROOT,
				       "file", 0),
			 0);
	remount_rig(r);
	assert_int_equal(check_disk(r), 0);
	ino = find_file(r, "file");
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, 0, false, &attr), 0);
	write_at(r, ino, 0, data, sizeof(data));
	write_out(r, ino, LEFT, PAGES);
	cut_power(r, 0);
	check_disk(r);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(size_of(r, ino), 0);
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, sizeof(data), false, &attr), 0);
	assert_int_equal(attr.blocks, 0);
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	all_zeros(back, sizeof(back));
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, 0, false, &attr), 0);
	reclaim_rig(r, free0, inodes_in_use(r));
	assert_int_equal(free_blocks(r), free0);
	assert_int_equal(check_disk(r), 0);
}

/* From either side, up to the middle: the record of it goes with the last page, and not before. */
static void when_the_rest_is_written_nothing_is_left_of_it(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_disordered(r, "file");

	assert_int_equal(check_disk(r), 1);
	write_out(r, ino, 0, LEFT - 1);
	assert_int_equal(check_disk(r), 1);
	write_out(r, ino, LEFT - 1, LEFT);
	assert_int_equal(check_disk(r), 0);
	cut_power(r, 1);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
}

static void preallocated_blocks_beyond_the_size_are_written_likewise(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 78);
	assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino, FALLOC_FL_KEEP_SIZE, 0,
					  sizeof(data)),
			 0);
	commit(r);
	assert_int_equal(check_disk(r), 0);
	write_at(r, ino, 0, data, sizeof(data));
	write_out(r, ino, LEFT, PAGES);
	assert_int_equal(check_disk(r), 1);
	write_out(r, ino, 0, LEFT);
	assert_int_equal(check_disk(r), 0);
	cut_power(r, 1);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
}

static void punching_out_the_rest_lets_the_size_follow(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_disordered(r, "file");
	struct slu_attr attr;

	assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino,
					  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					  LEFT * 4096),
			 0);
	/* a change of the name space in between does not make anybody forget */
	attr.mode = 0600;
	assert_int_equal(slu_ns_setattr(r->fs->ns, &r->ctx, ino, &attr, SLU_SET_MODE, &attr), 0);
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(check_disk(r), 0);
	cut_power(r, 1);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	all_zeros(back, LEFT * 4096);
	assert_memory_equal(back + LEFT * 4096, data + LEFT * 4096, (PAGES - LEFT) * 4096);
}

static void a_truncate_into_it_takes_it_over(void **state)
{
	struct rig *r = *state;
	static const uint64_t sizes[] = {0,
					 4096 * 3 + 5,
					 LEFT * 4096,
					 4096 * (LEFT + 4) + 1,
					 PAGES * 4096,
					 PAGES * 4096 + 100};
	struct slu_attr attr;

	char name[16];
	uint64_t ino;

	for (size_t i = 0; i < slu_array_size(sizes); i++) {
		snprintf(name, sizeof(name), "file%zu", i);
		ino = make_disordered(r, name);
		assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, sizes[i], false, &attr), 0);
		commit(r);
		assert_int_equal(check_disk(r), 0);
		assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
		assert_int_equal(check_disk(r), 0);
	}
	cut_power(r, 1);
	mount_rig(r, false);
	for (size_t i = 0; i < slu_array_size(sizes); i++) {
		uint64_t n = slu_min(sizes[i], (uint64_t)sizeof(data));

		snprintf(name, sizeof(name), "file%zu", i);
		ino = find_file(r, name);
		assert_int_equal(size_of(r, ino), sizes[i]);
		assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), n);
		assert_memory_equal(back, data, n);
	}
}

static void without_a_name_it_is_freed_whole(void **state)
{
	struct rig *r = *state;
	uint64_t free0, inodes0;

	assert_int_equal(slu_fs_sync(r->fs), 0);
	free0 = free_blocks(r);
	inodes0 = inodes_in_use(r);
	make_disordered(r, "file");
	assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"), 0);
	commit(r);
	assert_int_equal(check_disk(r), 1);
	cut_power(r, 1);
	mount_rig(r, false);
	reclaim_rig(r, free0, inodes0);
	assert_int_equal(check_disk(r), 0);
	assert_int_equal(free_blocks(r), free0);
}

static void a_name_for_an_unnamed_file_keeps_the_record_of_it(void **state)
{
	struct rig *r = *state;
	struct slu_attr attr;
	uint64_t ino;

	fill(data, sizeof(data), 79);
	assert_int_equal(slu_ns_tmpfile(r->fs->ns, &r->ctx, SLU_INO_ROOT, 0600, &attr), 0);
	ino = attr.ino;
	write_at(r, ino, 0, data, sizeof(data));
	write_out(r, ino, LEFT, PAGES);
	assert_int_equal(check_disk(r), 1);
	assert_int_equal(slu_ns_link(r->fs->ns, &r->ctx, ino, SLU_INO_ROOT, "file", &attr), 0);
	commit(r);
	assert_int_equal(check_disk(r), 1);
	write_out(r, ino, 0, LEFT);
	assert_int_equal(check_disk(r), 0);
	cut_power(r, 1);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
}

/* What could not be written at unmount is lost, and its end with it. */
static void data_behind_what_is_lost_at_unmount_is_given_up(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_disordered(r, "file");
	struct slu_attr attr;

	slu_simdisk_fail(r->disk, true);
	slu_fs_unmount(r->fs);
	r->fs = NULL;
	slu_simdisk_fail(r->disk, false);
	check_disk(r);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(size_of(r, ino), 0);
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, sizeof(data), false, &attr), 0);
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	all_zeros(back, sizeof(back));
}

/* A number that was handed out for nothing is in neither superblock. */
static void a_power_cut_while_unmounting_after_a_create_that_failed_is_clean(void **state)
{
	struct rig *r = *state;
	struct slu_simdisk *disk = r->disk;
	struct slu_attr attr;

	make_file(r, "file");
	assert_int_equal(slu_fs_sync(r->fs), 0);
	slu_simdisk_record(disk, true);
	assert_int_equal(slu_ns_mknod(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file", S_IFREG | 0644, 0,
				      &attr),
			 -EEXIST);
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	r->fs = NULL;
	for (size_t k = 0; k <= slu_simdisk_nrecords(disk); k++) {
		r->disk = slu_simdisk_replay(disk, k, 0);
		check_disk(r);
		slu_simdisk_free(r->disk);
	}
	r->disk = disk;
}

/* ------------------------------------------------------------------ writes in no order */

/* As the kernel's write-back cache sends them: bytes [pos, end) of `data`. */
static void send_bytes(struct rig *r, uint64_t ino, uint64_t pos, uint64_t end)
{
	struct iovec iov = {data + pos, end - pos};
	const unsigned int flags =
		SLU_WRITE_KERNEL_CACHE | SLU_WRITE_KEEP_TIMES | SLU_WRITE_UNORDERED;
	struct slu_write_result res;
	struct slu_source_buffer src;

	slu_source_buffer_init(&src, &iov, 1);
	assert_int_equal(slu_fs_write(r->fs, &r->ctx, ino, UINT64_MAX, &src.source, pos,
				      iov.iov_len, flags, false, &res),
			 0);
	assert_int_equal(res.done, iov.iov_len);
}

static void send_pages(struct rig *r, uint64_t ino, uint64_t first, uint64_t end)
{
	send_bytes(r, ino, first * 4096, end * 4096);
}

/* How many pages the file has on disk, after all that is here has been written out. */
static uint64_t pages_on_disk(struct rig *r, uint64_t ino)
{
	struct slu_inode *inode;
	uint64_t size;

	write_out(r, ino, 0, PAGES);
	assert_int_equal(slu_ns_sync_attrs(r->fs->ns), 0);
	commit(r);
	check_disk(r);
	inode = get(r, ino);
	size = inode->data.disk_size;
	/* Nobody else knows the size that it has: it stays in memory. */
	assert_true(size == slu_aspace_size(&inode->data) || inode->npins);
	slu_inode_put(inode);
	assert_int_equal(size % 4096, 0);
	return size / 4096;
}

static uint64_t get_disk_size(struct rig *r, uint64_t ino)
{
	struct slu_inode *inode = get(r, ino);
	uint64_t size = inode->data.disk_size;

	slu_inode_put(inode);
	return size;
}

static void what_has_overtaken_others_waits_for_them(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 80);
	send_pages(r, ino, 5, 10);
	assert_int_equal(size_of(r, ino), 10 * 4096);
	assert_int_equal(pages_on_disk(r, ino), 0);
	send_pages(r, ino, 20, 30);
	send_pages(r, ino, 0, 5);
	assert_int_equal(pages_on_disk(r, ino), 10);
	send_pages(r, ino, 15, 20);
	assert_int_equal(pages_on_disk(r, ino), 10);
	assert_int_equal(check_disk(r), 1);
	send_pages(r, ino, 10, 14);
	assert_int_equal(pages_on_disk(r, ino), 14);
	cut_power(r, 1);
	check_disk(r);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), 14 * 4096);
	assert_memory_equal(back, data, 14 * 4096);
}

static void nothing_is_waited_for_once_all_has_come(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 81);
	for (uint64_t i = PAGES; i-- > 0;)
		send_pages(r, ino, i, i + 1);
	assert_int_equal(pages_on_disk(r, ino), PAGES);
	assert_int_equal(check_disk(r), 0);
}

static void sync_by_file(struct rig *r, uint64_t ino)
{
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, true), 0);
}

static void sync_all(struct rig *r, uint64_t ino)
{
	assert_int_equal(slu_fs_sync(r->fs), 0);
}

static void last_writer_closes(struct rig *r, uint64_t ino)
{
	uint64_t first, second;

	assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_RDWR, &first), 0);
	assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_WRONLY, &second), 0);
	slu_fs_release(r->fs, ino, first);
	assert_int_equal(pages_on_disk(r, ino), 3);
	slu_fs_release(r->fs, ino, second);
}

static void time_passes(struct rig *r, uint64_t ino)
{
	slu_cache_settle(r->fs->cache, slu_clock_ns() - SLU_NS_PER_SEC);
	assert_int_equal(pages_on_disk(r, ino), 3);
	slu_cache_settle(r->fs->cache, slu_clock_ns());
}

static void the_hole_is_filled_by_hand(struct rig *r, uint64_t ino)
{
	assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino,
					  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					  sizeof(data)),
			 0);
}

/* What an application has left out counts as a hole when nothing can be on its way any more. */
static void a_real_hole_is_one_in_the_end(void **state)
{
	static void (*const ways[])(struct rig * r,
				    uint64_t ino) = {sync_by_file, sync_all, last_writer_closes,
						     time_passes, the_hole_is_filled_by_hand};
	struct rig *r = *state;
	char name[16];

	fill(data, sizeof(data), 82);
	for (size_t i = 0; i < slu_array_size(ways); i++) {
		uint64_t ino;

		snprintf(name, sizeof(name), "file%zu", i);
		ino = make_file(r, name);
		send_pages(r, ino, 0, 3);
		send_pages(r, ino, 8, 9);
		send_pages(r, ino, 30, PAGES);
		assert_int_equal(pages_on_disk(r, ino), 3);
		ways[i](r, ino);
		assert_int_equal(pages_on_disk(r, ino), PAGES);
	}
	cut_power(r, 1);
	mount_rig(r, false);
	assert_int_equal(size_of(r, find_file(r, "file0")), sizeof(data));
	assert_int_equal(read_at(r, find_file(r, "file0"), 0, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, data, 3 * 4096);
	all_zeros(back + 3 * 4096, 5 * 4096);
	assert_memory_equal(back + 30 * 4096, data + 30 * 4096, (PAGES - 30) * 4096);
}

/* The second half of a sync, then a power cut: so many bytes of `data` are in the file. */
static void ends_with(struct rig *r, uint64_t size)
{
	uint64_t ino;

	assert_int_equal(slu_ns_sync_attrs(r->fs->ns), 0);
	commit(r);
	cut_power(r, 1);
	check_disk(r);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(size_of(r, ino), size);
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), size);
}

/* The last page is on disk and waits for those before it when it becomes dirty again. */
static void an_append_beside_a_sync_takes_nothing_back(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 83);
	send_bytes(r, ino, 4 * 4096, 4 * 4096 + 7);
	write_out(r, ino, 4, 5);
	send_pages(r, ino, 0, 4);
	send_bytes(r, ino, 4 * 4096 + 7, 5 * 4096);
	write_out(r, ino, 0, 4);
	ends_with(r, 4 * 4096 + 7);
	assert_memory_equal(back, data, 4 * 4096 + 7);
}

/* A sync has promised the hole, and what lies behind it. */
static void filling_a_hole_beside_a_sync_takes_nothing_back(void **state)
{
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 84);
	send_pages(r, ino, 4, 5);
	slu_cache_settle(r->fs->cache, slu_cache_awaited_ns(r->fs->cache));
	send_pages(r, ino, 1, 2);
	write_out(r, ino, 4, 5);
	ends_with(r, 5 * 4096);
	assert_memory_equal(back + 4 * 4096, data + 4 * 4096, 4096);
	all_zeros(back, 4 * 4096);
}

struct kernel_pages {
	struct rig *r;
	uint64_t ino, first[2], end[2]; /* sent by each flush; end 0: none */
	unsigned int nflushes;
};

static int flush_pages(void *ctx)
{
	struct kernel_pages *k = ctx;
	unsigned int n = k->nflushes++;

	assert_true(n < 2);
	if (k->end[n])
		send_pages(k->r, k->ino, k->first[n], k->end[n]);
	return 0;
}

/* What a flush has shown to be missing comes with the next one, or is a hole. */
static void a_sync_asks_again_where_something_was_overtaken(void **state)
{
	static const struct {
		uint64_t first[2], end[2], size;
		unsigned int nflushes;
	} cases[] = {
		{.end = {4, 0}, .size = 4, .nflushes = 1},
		{.first = {5, 4}, .end = {6, 5}, .size = 6, .nflushes = 2},
		{.first = {9, 8}, .end = {12, 9}, .size = 12, .nflushes = 2},
		{.first = {20, 0}, .end = {30, 0}, .size = 30, .nflushes = 2},
	};
	struct rig *r = *state;
	struct kernel_pages k = {.r = r, .ino = make_file(r, "file")};

	fill(data, sizeof(data), 85);
	for (size_t i = 0; i < slu_array_size(cases); i++) {
		k.nflushes = 0;
		memcpy(k.first, cases[i].first, sizeof(k.first));
		memcpy(k.end, cases[i].end, sizeof(k.end));
		assert_int_equal(slu_fs_syncfs(r->fs, flush_pages, &k), 0);
		assert_int_equal(k.nflushes, cases[i].nflushes);
		assert_int_equal(get_disk_size(r, k.ino), cases[i].size * 4096);
	}
	/* The kernel's own request comes after its flush. */
	send_pages(r, k.ino, 35, 40);
	assert_int_equal(slu_fs_syncfs_flushed(r->fs), 0);
	assert_int_equal(get_disk_size(r, k.ino), 40 * 4096);
}

static int flush_that_fails(void *ctx)
{
	return -EIO;
}

static void a_sync_fails_with_the_flush(void **state)
{
	struct rig *r = *state;
	uint64_t before = slu_store_txid(r->fs->store);

	make_file(r, "file");
	assert_int_equal(slu_fs_syncfs(r->fs, flush_that_fails, NULL), -EIO);
	assert_int_equal(slu_store_txid(r->fs->store), before);
}

/*
 * Neither the list of sizes to be written nor what is awaited keeps a deleted file. It is freed when
 * the kernel has forgotten it too, and while its last extents go, bytes are still awaited.
 */
static void a_deleted_file_is_waited_for_by_nobody(void **state)
{
	struct rig *r = *state;
	uint64_t ino, fh, free0, inodes0;

	assert_int_equal(slu_fs_sync(r->fs), 0);
	free0 = free_blocks(r);
	inodes0 = inodes_in_use(r);
	fill(data, sizeof(data), 84);
	for (int while_written = 0; while_written < 2; while_written++) {
		ino = make_file(r, "file");
		assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_RDONLY, &fh), 0);
		send_pages(r, ino, 5, 10);
		if (while_written)
			assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"),
					 0);
		send_pages(r, ino, 20, 30);
		write_out(r, ino, 0, PAGES);
		if (!while_written)
			assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"),
					 0);
		assert_true(free_blocks(r) < free0);
		slu_fs_release(r->fs, ino, fh);
		slu_ns_forget(r->fs->ns, ino, 1);
		reclaim_rig(r, free0, inodes0);
		assert_int_equal(free_blocks(r), free0);
	}
	remount_rig(r);
	assert_int_equal(check_disk(r), 0);
}

/* More holes than are counted one by one. */
static void a_file_of_holes_is_whole_in_the_end(void **state)
{
	enum { N = 300 };
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");
	struct slu_attr attr;

	fill(data, sizeof(data), 83);
	for (uint64_t i = 1; i < N; i++) {
		struct iovec iov = {data, 4096};
		struct slu_write_result res;
		struct slu_source_buffer src;

		slu_source_buffer_init(&src, &iov, 1);
		assert_int_equal(slu_fs_write(r->fs, &r->ctx, ino, UINT64_MAX, &src.source,
					      i * 8192, 4096, SLU_WRITE_UNORDERED, false, &res),
				 0);
	}
	assert_int_equal(pages_on_disk(r, ino), 0);
	/* The first one is not a hole, all the others are still waited for. */
	send_pages(r, ino, 0, 2);
	assert_int_equal(pages_on_disk(r, ino), 3);
	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, N * 4096, false, &attr), 0);
	assert_int_equal(pages_on_disk(r, ino), N);
	sync_by_file(r, ino);
	assert_int_equal(check_disk(r), 0);
	cut_power(r, 1);
	mount_rig(r, false);
	ino = find_file(r, "file");
	assert_int_equal(size_of(r, ino), N * 4096);
	for (uint64_t i = 1; i < N / 2; i++) {
		assert_int_equal(read_at(r, ino, i * 8192, back, 8192), 8192);
		assert_memory_equal(back, data, 4096);
		all_zeros(back + 4096, 4096);
	}
}

static void attr_of(struct rig *r, uint64_t ino, struct slu_attr *ret)
{
	struct slu_inode *inode = get(r, ino);

	slu_inode_attr(inode, ret);
	slu_inode_put(inode);
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_times(const struct slu_attr *a, const struct slu_attr *b)
{
	return same_time(a->mtime, b->mtime) && same_time(a->ctime, b->ctime);
}

/* Over blocks that are there already: no record but that of the times follows from it. */
static void times_of_a_write(struct rig *r, uint64_t ino)
{
	write_at(r, ino, 0, data + 4096, 4096);
}

static void times_by_hand(struct rig *r, uint64_t ino)
{
	struct slu_attr attr = {.atime = {1000000001, 111111111}, .mtime = {1000000002, 222222222}};

	assert_int_equal(slu_ns_setattr(r->fs->ns, &r->ctx, ino, &attr,
					SLU_SET_ATIME | SLU_SET_MTIME, &attr),
			 0);
}

/* As the kernel does it that keeps the times of written files itself. */
static void times_passed_on(struct rig *r, uint64_t ino)
{
	struct slu_attr attr = {.mtime = {1000000003, 333333333}, .ctime = {1000000004, 444444444}};

	assert_int_equal(slu_ns_setattr(r->fs->ns, &r->ctx, ino, &attr,
					SLU_SET_MTIME | SLU_SET_CTIME | SLU_SET_TIMES_PASSED,
					&attr),
			 0);
}

static void (*const times_move[])(struct rig *r, uint64_t ino) = {times_of_a_write, times_by_hand,
								  times_passed_on};

/*
 * A file whose two pages and times are on disk, and then its times move. Its attributes before and
 * after that.
 */
static uint64_t make_moved(struct rig *r, size_t way, struct slu_attr *before,
			   struct slu_attr *after)
{
	char name[16];
	uint64_t ino;

	snprintf(name, sizeof(name), "file%zu", way);
	ino = make_file(r, name);
	fill(data, 2 * 4096, 86);
	write_at(r, ino, 0, data, 2 * 4096);
	assert_int_equal(slu_fs_sync(r->fs), 0);
	attr_of(r, ino, before);
	slu_sleep_ns(20 * SLU_NS_PER_MS); /* the clock of the times is a coarse one */
	times_move[way](r, ino);
	attr_of(r, ino, after);
	assert_false(same_time(before->mtime, after->mtime));
	assert_false(same_time(before->ctime, after->ctime));
	return ino;
}

static void fsync_has_the_times_on_disk(void **state)
{
	struct rig *r = *state;
	struct slu_attr before, after, now;
	char name[16];

	for (size_t way = 0; way < slu_array_size(times_move); way++) {
		uint64_t ino = make_moved(r, way, &before, &after);

		assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
		cut_power(r, 0);
		check_disk(r);
		mount_rig(r, false);
		snprintf(name, sizeof(name), "file%zu", way);
		attr_of(r, find_file(r, name), &now);
		if (!same_times(&now, &after))
			print_error(
				"way %zu: mtime %ld.%09ld, ctime %ld.%09ld after the power cut\n",
				way, (long)now.mtime.tv_sec, now.mtime.tv_nsec,
				(long)now.ctime.tv_sec, now.ctime.tv_nsec);
		assert_true(same_times(&now, &after));
		assert_true(same_time(now.atime, after.atime));
	}
}

/* Data and size are there, and the times are those of one moment. */
static void fdatasync_may_leave_the_times_out(void **state)
{
	struct rig *r = *state;
	struct slu_attr before, after, now;
	char name[16];

	for (size_t way = 0; way < slu_array_size(times_move); way++) {
		uint64_t ino = make_moved(r, way, &before, &after);

		assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, true), 0);
		cut_power(r, 0);
		check_disk(r);
		mount_rig(r, false);
		snprintf(name, sizeof(name), "file%zu", way);
		ino = find_file(r, name);
		attr_of(r, ino, &now);
		assert_true(same_times(&now, &before) || same_times(&now, &after));
		assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), 2 * 4096);
		assert_memory_equal(back, times_move[way] == times_of_a_write ? data + 4096 : data,
				    4096);
		assert_memory_equal(back + 4096, data + 4096, 4096);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_CASE(data_beyond_the_size_on_disk_is_gone_after_a_crash),
		RIG_CASE(when_the_rest_is_written_nothing_is_left_of_it),
		RIG_CASE(preallocated_blocks_beyond_the_size_are_written_likewise),
		RIG_CASE(punching_out_the_rest_lets_the_size_follow),
		RIG_CASE(a_truncate_into_it_takes_it_over),
		RIG_CASE(without_a_name_it_is_freed_whole),
		RIG_CASE(a_name_for_an_unnamed_file_keeps_the_record_of_it),
		RIG_CASE(data_behind_what_is_lost_at_unmount_is_given_up),
		RIG_CASE(a_power_cut_while_unmounting_after_a_create_that_failed_is_clean),
		RIG_CASE(what_has_overtaken_others_waits_for_them),
		RIG_CASE(nothing_is_waited_for_once_all_has_come),
		RIG_CASE(an_append_beside_a_sync_takes_nothing_back),
		RIG_CASE(filling_a_hole_beside_a_sync_takes_nothing_back),
		RIG_CASE(a_sync_asks_again_where_something_was_overtaken),
		RIG_CASE(a_sync_fails_with_the_flush),
		RIG_CASE(a_real_hole_is_one_in_the_end),
		RIG_CASE(a_deleted_file_is_waited_for_by_nobody),
		RIG_CASE(a_file_of_holes_is_whole_in_the_end),
		RIG_CASE(fsync_has_the_times_on_disk),
		RIG_CASE(fdatasync_may_leave_the_times_out),
	};

	return cmocka_run_group_tests_name("fs crash", tests, NULL, NULL);
}
