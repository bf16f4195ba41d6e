/* SPDX-License-Identifier: MIT */
/*
 * What has lost its name: kept while somebody uses it, freed whole after, taken up again after a
 * crash, and space that comes back to the same number.
 */
#include "namespace_fixture.h"
#include "sluice/write.h"

static struct nsfx fx;

static int setup(void **state)
{
	nsfx_init(&fx, 32768);
	return 0;
}

static int setup_writing(void **state)
{
	nsfx_init(&fx, 32768);
	nsfx_unmount(&fx);
	fx.with_writeback = true;
	nsfx_mount(&fx);
	return 0;
}

static int teardown(void **state)
{
	nsfx_fini(&fx);
	return 0;
}

static unsigned int norphans(void)
{
	return nsfx_nrecords(&fx, SLU_INO_VOLUME, SLU_REC_ORPHAN);
}

static void write_at(uint64_t ino, uint64_t pos, const void *data, size_t len)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct slu_inode *inode;

	ok(slu_inode_get(fx.ns, ino, &inode));
	slu_source_buffer_init(&src, &iov, 1);
	ok(slu_write(&inode->data, &src.source, pos, len, 0, &res, NULL));
	assert_int_equal(res.done, len);
	slu_inode_put(inode);
}

static void a_file_is_freed_with_its_last_user(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	unsigned int wanted = atomic_load(&fx.nwanted);
	struct slu_inode *inode;

	give_blocks(&fx, file, 0, 10);
	ok(slu_inode_get(fx.ns, file, &inode));
	slu_inode_opened(inode);
	slu_inode_put(inode);
	ok(unlink_(&fx, ROOT, "file"));
	nsfx_reclaim(&fx);
	assert_int_equal(stat_of(&fx, file).blocks, 10);
	forget_all(&fx, file);
	nsfx_reclaim(&fx);
	assert_int_equal(stat_of(&fx, file).blocks, 10); /* still open */
	slu_inode_touch(inode, SLU_TOUCH_MTIME); /* nor do times that nobody will see keep it */
	assert_int_equal(norphans(), 1);
	assert_int_equal(atomic_load(&fx.nwanted), wanted);
	slu_inode_closed(inode);
	assert_true(atomic_load(&fx.nwanted) > wanted);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
	assert_int_equal(norphans(), 0);
	assert_int_equal(nsfx_space(&fx).data_blocks, 0);
	assert_int_equal(fx.ns->table.ninodes, 1);
}

static void a_lookup_keeps_it_as_well(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);

	assert_int_equal(look(&fx, ROOT, "file"), file);
	slu_ns_lookup_count(fx.ns, file, ROOT, 3);
	ok(unlink_(&fx, ROOT, "file"));
	slu_ns_forget(fx.ns, file, 4);
	nsfx_reclaim(&fx);
	assert_int_equal(stat_of(&fx, file).nlink, 0);
	slu_ns_forget(fx.ns, file, 1);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
	/* forgetting more than was told, or what was never told, harms nothing */
	slu_ns_forget(fx.ns, file, 1);
	slu_ns_forget(fx.ns, 999, 5);
	slu_ns_forget(fx.ns, ROOT, 1);
	assert_int_equal(stat_of(&fx, ROOT).nlink, 2);
}

/* A tree with everything in it that an inode can own; every piece of it is removed again. */
static void make_and_remove(unsigned int round)
{
	uint8_t *value = calloc(1, 65536);
	char name[24], target[3000];
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755), inos[8];
	struct slu_attr a;

	memset(target, 't', sizeof(target));
	target[2999] = '\0';
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		if (i == 0) {
			ok(slu_ns_symlink(fx.ns, &fx.ctx, dir, name, target, &a));
			inos[i] = a.ino;
			continue;
		}
		inos[i] = mk(&fx, dir, name, S_IFREG | 0644);
		/* pieces far apart: an extent each */
		for (uint64_t j = 0; j < (i == 7 ? 700u : 3u); j++)
			give_blocks(&fx, inos[i], j * 10, 2);
		for (int j = 0; j < i; j++) {
			snprintf(name, sizeof(name), "user.%d", j);
			ok(slu_ns_setxattr(fx.ns, &fx.ctx, inos[i], name, value, 9000u * j, 0,
					   false));
		}
	}
	if (round % 2)
		nsfx_remount(&fx);
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		ok(unlink_(&fx, dir, name));
		forget_all(&fx, inos[i]);
	}
	ok(rmdir_(&fx, ROOT, "dir"));
	forget_all(&fx, dir);
	free(value);
}

static void all_space_comes_back(void **state)
{
	uint64_t free0, nodes0;

	/* once for the node cache and the like; an empty tree is one node */
	make_and_remove(0);
	nsfx_reclaim(&fx);
	nsfx_settle(&fx);
	free0 = nsfx_free_blocks(&fx);
	nodes0 = nsfx_space(&fx).data_blocks;
	assert_int_equal(nodes0, 0);
	for (unsigned int round = 0; round < 4; round++) {
		make_and_remove(round);
		nsfx_reclaim(&fx);
		nsfx_settle(&fx);
		assert_int_equal(nsfx_free_blocks(&fx), free0);
		assert_int_equal(nsfx_space(&fx).ninodes, 1);
		assert_int_equal(norphans(), 0);
	}
}

static void freeing_is_done_in_steps(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	unsigned int steps = 0;

	for (uint64_t j = 0; j < 1500; j++)
		give_blocks(&fx, file, j * 2, 1);
	ok(unlink_(&fx, ROOT, "file"));
	forget_all(&fx, file);
	while (slu_ns_reclaim(fx.ns) == 1)
		steps++;
	assert_true(steps > 2);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
}

static void unmounting_frees_what_nobody_closed(void **state)
{
	struct slu_inode *inode;
	struct slu_attr a;
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);

	give_blocks(&fx, file, 0, 5);
	ok(slu_inode_get(fx.ns, file, &inode));
	slu_inode_opened(inode);
	slu_inode_put(inode);
	ok(unlink_(&fx, ROOT, "file"));
	ok(slu_ns_tmpfile(fx.ns, &fx.ctx, ROOT, 0600, &a));
	nsfx_remount(&fx);
	assert_int_equal(norphans(), 0);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
	assert_int_equal(nsfx_space(&fx).ninodes, 1);
	assert_int_equal(nsfx_space(&fx).data_blocks, 0);
	assert_true(atomic_load(&fx.ns->scan_done));
}

static void a_crash_leaves_orphans_and_the_next_mount_frees_them(void **state)
{
	enum { N = 70 };
	uint64_t inos[N], free0;
	struct slu_inode *inode;
	struct slu_attr a;
	char name[24];

	nsfx_settle(&fx);
	nsfx_commit(&fx);
	free0 = nsfx_free_blocks(&fx);
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%d", i);
		if (i % 10 == 9) {
			ok(slu_ns_tmpfile(fx.ns, &fx.ctx, ROOT, 0600, &a));
			inos[i] = a.ino;
		} else {
			inos[i] = mk(&fx, ROOT, name, i % 10 == 8 ? S_IFDIR : S_IFREG);
		}
		if (i % 10 < 8)
			give_blocks(&fx, inos[i], 0, 3);
		if (i % 10 < 8)
			ok(unlink_(&fx, ROOT, name));
		else if (i % 10 == 8)
			ok(rmdir_(&fx, ROOT, name));
	}
	nsfx_commit(&fx);
	nsfx_crash(&fx);
	assert_int_equal(norphans(), N);
	assert_false(atomic_load(&fx.ns->scan_done));
	/* nobody knows them any more, whatever numbers are guessed */
	assert_int_equal(slu_inode_get(fx.ns, inos[3], &inode), -ESTALE);
	assert_int_equal(try_look(&fx, inos[8], "."), -ESTALE);
	/* new orphans of this mount beside them */
	uint64_t live = mk(&fx, ROOT, "live", S_IFREG | 0644);
	give_blocks(&fx, live, 0, 2);
	ok(unlink_(&fx, ROOT, "live"));
	nsfx_reclaim(&fx);
	assert_true(atomic_load(&fx.ns->scan_done));
	assert_int_equal(norphans(), 1);
	assert_int_equal(stat_of(&fx, live).blocks, 2);
	forget_all(&fx, live);
	nsfx_reclaim(&fx);
	assert_int_equal(norphans(), 0);
	assert_int_equal(nsfx_space(&fx).ninodes, 1);
	nsfx_settle(&fx);
	assert_int_equal(nsfx_free_blocks(&fx), free0);
}

static void a_crash_in_the_middle_of_freeing(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);

	for (uint64_t j = 0; j < 1500; j++)
		give_blocks(&fx, file, j * 2, 1);
	ok(unlink_(&fx, ROOT, "file"));
	forget_all(&fx, file);
	assert_int_equal(slu_ns_reclaim(fx.ns), 1);
	nsfx_commit(&fx);
	unsigned int left = nsfx_nrecords(&fx, file, SLU_REC_EXTENT);
	assert_true(left > 0 && left < 1500);
	nsfx_crash(&fx);
	assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_EXTENT), left);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
	assert_int_equal(nsfx_space(&fx).data_blocks, 0);
}

static void what_is_not_committed_was_never_unlinked(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);

	nsfx_commit(&fx);
	ok(unlink_(&fx, ROOT, "file"));
	forget_all(&fx, file);
	nsfx_reclaim(&fx);
	nsfx_crash(&fx);
	assert_int_equal(look(&fx, ROOT, "file"), file);
	assert_int_equal(stat_of(&fx, file).nlink, 1);
	assert_int_equal(norphans(), 0);
}

static void stray_orphan_records(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_disk_orphan o = {.what = SLU_ORPHAN_UNLINKED};
	struct slu_key stray = SLU_KEY(0, SLU_REC_ORPHAN, 777);
	struct slu_key named = SLU_KEY(0, SLU_REC_ORPHAN, file);

	nsfx_poke(&fx, &stray, &o, sizeof(o));
	nsfx_poke(&fx, &named, &o, sizeof(o));
	nsfx_unmount(&fx);
	nsfx_mount(&fx);
	/* the one of nothing is gone with the scan; a named file is not freed, come what may */
	nsfx_reclaim(&fx);
	assert_int_equal(norphans(), 1);
	assert_int_equal(look(&fx, ROOT, "file"), file);
	/* a record of the wrong size is damage, and stays for fsck */
	nsfx_poke(&fx, &named, &o, 3);
	nsfx_remount(&fx);
	assert_int_equal(slu_ns_reclaim(fx.ns), -EIO);
	assert_int_equal(try_look(&fx, ROOT, "file"), -EIO);
}

/*
 * One request that failed: what was to be freed is freed when it is tried again, and the rest at once.
 */
static void a_passing_error_is_tried_again(void **state)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_READ, .nth = 1, .times = 1};
	static uint8_t value[60000];
	uint64_t files[40];
	char name[16];
	int err;

	for (unsigned int i = 0; i < slu_array_size(files); i++) {
		snprintf(name, sizeof(name), "%u", i);
		files[i] = mk(&fx, ROOT, name, S_IFREG | 0644);
		ok(slu_ns_setxattr(fx.ns, &fx.ctx, files[i], "user.x", value, sizeof(value), 0,
				   false));
	}
	nsfx_remount(&fx); /* so that the parts of the values are on disk alone */
	for (unsigned int i = 0; i < slu_array_size(files); i++) {
		snprintf(name, sizeof(name), "%u", i);
		look(&fx, ROOT, name);
		ok(unlink_(&fx, ROOT, name));
		forget_all(&fx, files[i]);
	}
	slu_simdisk_fault(fx.disk, &fault);
	do {
		err = slu_ns_reclaim(fx.ns);
	} while (err == 1);
	assert_int_equal(slu_simdisk_fault_hits(fx.disk), 1);
	assert_int_equal(err, -EIO);
	assert_int_equal(norphans(), 1);
	slu_simdisk_fault(fx.disk, NULL);
	assert_int_equal(slu_ns_reclaim(fx.ns), 0); /* set aside */
	slu_ns_reclaim_again(fx.ns);
	nsfx_reclaim(&fx);
	assert_int_equal(norphans(), 0);
}

/* A disk that is gone is not asked for every one of them. */
static void where_everything_fails_it_ends(void **state)
{
	char name[16];
	uint64_t file;

	for (unsigned int i = 0; i < 100; i++) {
		struct slu_key key;

		snprintf(name, sizeof(name), "%u", i);
		file = mk(&fx, ROOT, name, S_IFREG | 0644);
		key = SLU_KEY(file, SLU_REC_EXTENT, 1);
		nsfx_poke(&fx, &key, "nonsense", 8);
		ok(unlink_(&fx, ROOT, name));
		forget_all(&fx, file);
	}
	uint64_t bad = atomic_load(&slu_ns_stats(fx.ns)->bad_records);
	assert_int_equal(slu_ns_reclaim(fx.ns), -EIO);
	assert_in_range(atomic_load(&slu_ns_stats(fx.ns)->bad_records) - bad, 0, 40);
	assert_true(itable_reclaim_queued(fx.ns));
}

static void set_size(uint64_t ino, uint64_t size, bool orphan)
{
	struct slu_inode *inode;
	struct slu_ticket t;
	struct slu_need need;

	ok(slu_inode_get(fx.ns, ino, &inode));
	ok(slu_ticket_get(fx.store, &t, 4, 512, 0, NULL));
	slu_rwlock_wrlock(&inode->data.lock);
	ok(slu_inode_set_size(inode, &t, size, orphan, &need));
	slu_rwlock_wrunlock(&inode->data.lock);
	slu_ticket_put(&t);
	slu_inode_put(inode);
}

static void a_truncate_frees_what_lies_beyond(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_inode *inode;

	for (uint64_t j = 0; j < 600; j++)
		give_blocks(&fx, file, j * 2, 1);
	set_size(file, 600 * 8192, false);
	set_size(file, 10 * 8192 + 1, true);
	assert_int_equal(norphans(), 1);
	ok(slu_inode_get(fx.ns, file, &inode));
	assert_true(inode->freeing);
	ok(slu_inode_free_extents(inode));
	assert_false(inode->freeing);
	assert_false(inode->orphan_truncate);
	ok(slu_inode_free_extents(inode));
	slu_inode_put(inode);
	assert_int_equal(norphans(), 0);
	assert_int_equal(stat_of(&fx, file).blocks, 11);
	assert_int_equal(stat_of(&fx, file).size, 10 * 8192 + 1);
	assert_int_equal(nsfx_space(&fx).data_blocks, 11);
}

static void a_crash_in_the_middle_of_a_truncate(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint64_t other = mk(&fx, ROOT, "other", S_IFREG | 0644);

	for (int way = 0; way < 2; way++) {
		give_blocks(&fx, file, 0, 50);
		give_blocks(&fx, other, 0, 50);
		set_size(file, 50 * 4096, false);
		set_size(other, 50 * 4096, false);
		set_size(file, 4096, true);
		set_size(other, 0, true);
		nsfx_commit(&fx);
		nsfx_crash(&fx);
		assert_int_equal(norphans(), 2);
		assert_int_equal(nsfx_space(&fx).data_blocks, 100);
		if (way == 0) {
			/* whoever comes first must not find the old blocks behind the size */
			assert_int_equal(stat_of(&fx, file).blocks, 1);
			assert_int_equal(norphans(), 1);
		}
		nsfx_reclaim(&fx);
		assert_int_equal(norphans(), 0);
		assert_int_equal(stat_of(&fx, file).blocks, 1);
		assert_int_equal(stat_of(&fx, other).blocks, 0);
		assert_int_equal(stat_of(&fx, file).size, 4096);
	}
}

/* The search for what a crash left is not over before all of it has been taken up. */
static void a_truncate_that_could_not_be_ended_is_not_forgotten(void **state)
{
	uint64_t cut = mk(&fx, ROOT, "cut", S_IFREG | 0644);

	give_blocks(&fx, cut, 0, 5);
	set_size(cut, 5 * SLU_BLOCK_SIZE, false);
	set_size(cut, SLU_BLOCK_SIZE, true);
	nsfx_commit(&fx);
	nsfx_crash(&fx);
	slu_alloc_fail_nth(1);
	assert_int_equal(slu_ns_reclaim(fx.ns), -ENOMEM);
	slu_alloc_fail_nth(0);
	assert_int_equal(slu_ns_reclaim(fx.ns), 0);
	assert_int_equal(norphans(), 1);
	/* whoever wants it finds it as the truncate would have left it */
	assert_int_equal(stat_of(&fx, cut).blocks, 1);
	slu_ns_reclaim_again(fx.ns);
	nsfx_reclaim(&fx);
	assert_int_equal(norphans(), 0);
}

static void unlinking_in_the_middle_of_a_truncate(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_inode *inode;

	give_blocks(&fx, file, 0, 50);
	set_size(file, 4096, true);
	ok(slu_inode_get(fx.ns, file, &inode));
	ok(unlink_(&fx, ROOT, "file"));
	assert_int_equal(norphans(), 1);
	/* the truncate goes on; the record is the unlinked file's now and stays */
	ok(slu_inode_free_extents(inode));
	assert_int_equal(norphans(), 1);
	assert_int_equal(stat_of(&fx, file).blocks, 1);
	/* a truncate of an unlinked file leaves the record as it is */
	set_size(file, 0, true);
	assert_true(inode->freeing);
	ok(slu_inode_free_extents(inode));
	assert_int_equal(norphans(), 1);
	slu_inode_put(inode);
	nsfx_commit(&fx);
	nsfx_crash(&fx);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
	assert_int_equal(norphans(), 0);
}

static void read_only_mounts_leave_orphans_alone(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint64_t cut = mk(&fx, ROOT, "cut", S_IFREG | 0644);

	give_blocks(&fx, cut, 0, 5);
	set_size(cut, 4096, true);
	ok(unlink_(&fx, ROOT, "file"));
	nsfx_commit(&fx);
	fx.readonly = true;
	nsfx_crash(&fx);
	assert_int_equal(slu_ns_reclaim(fx.ns), 0);
	assert_int_equal(try_look(&fx, file, "."), -ESTALE);
	assert_int_equal(look(&fx, ROOT, "cut"), cut);
	assert_int_equal(norphans(), 2);
	nsfx_unmount(&fx);
	fx.readonly = false;
	nsfx_mount(&fx);
	nsfx_reclaim(&fx);
	assert_int_equal(norphans(), 0);
	assert_int_equal(stat_of(&fx, cut).blocks, 1);
}

static void a_read_only_time_defers_freeing(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_inode *inode;

	ok(unlink_(&fx, ROOT, "file"));
	slu_ns_set_readonly(fx.ns, true);
	forget_all(&fx, file);
	assert_int_equal(slu_ns_reclaim(fx.ns), 0);
	assert_int_equal(norphans(), 1);
	slu_ns_set_readonly(fx.ns, false);
	nsfx_reclaim(&fx);
	assert_int_equal(norphans(), 0);
	assert_int_equal(slu_inode_get(fx.ns, file, &inode), -ESTALE);
}

static void an_orphan_that_is_damaged_waits_for_fsck(void **state)
{
	uint64_t bad = mk(&fx, ROOT, "bad", S_IFREG | 0644);
	uint64_t good = mk(&fx, ROOT, "good", S_IFREG | 0644);
	struct slu_key key = SLU_KEY(bad, SLU_REC_EXTENT, 1);

	nsfx_poke(&fx, &key, "nonsense", 8);
	ok(unlink_(&fx, ROOT, "bad"));
	ok(unlink_(&fx, ROOT, "good"));
	forget_all(&fx, bad);
	forget_all(&fx, good);
	assert_int_equal(slu_ns_reclaim(fx.ns), -EIO);
	/* the other one does not suffer, and nobody tries for ever */
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, good, 0), 0);
	assert_int_equal(norphans(), 1);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, bad, SLU_REC_INODE), 1);
}

static void dirty_pages_of_an_unlinked_file_are_dropped(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	static uint8_t data[40000];

	memset(data, 7, sizeof(data));
	write_at(file, 100, data, sizeof(data));
	assert_int_equal(stat_of(&fx, file).size, 40100);
	assert_int_equal(stat_of(&fx, file).blocks, 10); /* promised */
	ok(unlink_(&fx, ROOT, "file"));
	forget_all(&fx, file);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 0);
	assert_int_equal(atomic_load(&slu_cache_stats(fx.cache)->dirty), 0);
	assert_int_equal(atomic_load(&slu_writeback_stats(fx.wb)->pages), 0);
	assert_int_equal(nsfx_space(&fx).reserved, 0);
	assert_int_equal(nsfx_space(&fx).data_blocks, 0);
}

static int punch(void *arg, uint64_t *pos, uint64_t end, struct slu_need *need)
{
	struct slu_inode *inode = arg;

	return slu_volume_punch(&inode->vol, pos, end, SLU_DISK_SIZE_KEEP, need);
}

static void a_size_whose_data_was_punched_out_again_is_recorded(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644), txid, pos = 0, end = 4096;
	struct slu_inode *inode;
	struct slu_need need;

	write_at(file, 0, "data", 4);
	ok(slu_inode_get(fx.ns, file, &inode));
	slu_rwlock_wrlock(&inode->data.lock);
	ok(slu_pages_remove(&inode->data, fx.bio, &pos, &end, punch, inode, &need));
	slu_rwlock_wrunlock(&inode->data.lock);
	assert_false(slu_aspace_dirty(&inode->data));
	assert_int_equal(inode->data.disk_size, 0);
	ok(slu_inode_sync_attr(inode, &txid));
	assert_int_equal(inode->data.disk_size, 4);
	slu_inode_put(inode);
	ok(slu_store_commit(fx.store, txid, true));
	nsfx_crash(&fx);
	assert_int_equal(stat_of(&fx, file).size, 4);
	assert_int_equal(stat_of(&fx, file).blocks, 0);
}

static void a_file_that_replaces_another_is_written_out_first(void **state)
{
	uint64_t old = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint64_t tmp = mk(&fx, ROOT, "tmp", S_IFREG | 0644);
	static uint8_t data[10000];
	struct slu_inode *inode;

	memset(data, 7, sizeof(data));
	write_at(tmp, 0, data, sizeof(data));
	ok(slu_inode_get(fx.ns, tmp, &inode));
	assert_true(slu_aspace_dirty(&inode->data));
	/* somebody who may not wait is told what to wait for */
	fx.ctx.may_wait = false;
	assert_int_equal(rename_(&fx, ROOT, "tmp", ROOT, "file", 0), -EAGAIN);
	assert_true(fx.ctx.need.slow);
	assert_int_equal(look(&fx, ROOT, "file"), old);
	assert_true(slu_aspace_dirty(&inode->data));
	/* nothing is written out where nothing is replaced, or nothing lost */
	ok(rename_(&fx, ROOT, "tmp", ROOT, "tmp2", 0));
	ok(rename_(&fx, ROOT, "tmp2", ROOT, "file", RENAME_EXCHANGE));
	ok(rename_(&fx, ROOT, "tmp2", ROOT, "file", RENAME_EXCHANGE));
	assert_true(slu_aspace_dirty(&inode->data));
	ok(slu_need_wait(&fx.ctx.need));
	assert_false(slu_aspace_dirty(&inode->data));
	ok(rename_(&fx, ROOT, "tmp2", ROOT, "file", 0));
	fx.ctx.may_wait = true;
	slu_inode_put(inode);
	/* once the rename is on disk so are the contents */
	nsfx_commit(&fx);
	nsfx_crash(&fx);
	assert_int_equal(look(&fx, ROOT, "file"), tmp);
	assert_int_equal(stat_of(&fx, tmp).size, sizeof(data));
	assert_int_equal(stat_of(&fx, tmp).blocks, 3);
}

static void a_rename_fails_if_writing_out_does(void **state)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_WRITE, .nth = 1, .times = UINT64_MAX};
	uint64_t old = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint64_t tmp = mk(&fx, ROOT, "tmp", S_IFREG | 0644);

	write_at(tmp, 0, "new contents", 12);
	nsfx_commit(&fx);
	slu_simdisk_fault(fx.disk, &fault);
	assert_int_equal(rename_(&fx, ROOT, "tmp", ROOT, "file", 0), -EIO);
	slu_simdisk_fault(fx.disk, NULL);
	assert_int_equal(look(&fx, ROOT, "file"), old);
	assert_int_equal(look(&fx, ROOT, "tmp"), tmp);
	ok(rename_(&fx, ROOT, "tmp", ROOT, "file", 0));
	assert_int_equal(look(&fx, ROOT, "file"), tmp);
}

/*
 * Nobody has it in memory any more when it is opened to be synced: what was changed last is committed
 * all the same.
 */
static void an_inode_that_left_memory_can_be_synced(void **state)
{
	struct slu_inode *inode;
	char name[16];
	uint64_t txid;

	nsfx_unmount(&fx);
	fx.max_idle = 4;
	nsfx_mount(&fx);
	nsfx_commit(&fx);
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint64_t evictions = atomic_load(&slu_ns_stats(fx.ns)->evictions);
	for (unsigned int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "%u", i);
		mk(&fx, ROOT, name, S_IFREG | 0644);
	}
	assert_true(atomic_load(&slu_ns_stats(fx.ns)->evictions) > evictions);
	assert_null(itable_peek(fx.ns, file));
	ok(slu_inode_get(fx.ns, file, &inode));
	ok(slu_inode_sync_attr(inode, &txid));
	assert_true(txid > slu_store_durable_txid(fx.store));
	ok(slu_store_commit(fx.store, txid, true));
	slu_inode_put(inode);
	nsfx_crash(&fx);
	assert_int_equal(look(&fx, ROOT, "file"), file);
}

static void inodes_leave_memory_when_idle_and_clean(void **state)
{
	struct slu_inode *held;
	char name[24];

	nsfx_unmount(&fx);
	fx.max_idle = 10;
	nsfx_mount(&fx);
	uint64_t first = mk(&fx, ROOT, "held", S_IFREG | 0644);
	uint64_t dirty = mk(&fx, ROOT, "dirty", S_IFREG | 0644);
	write_at(dirty, 0, "data", 4);
	ok(slu_inode_get(fx.ns, first, &held));
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%d", i);
		mk(&fx, ROOT, name, S_IFREG | 0644);
	}
	assert_true(fx.ns->table.ninodes <= 13);
	assert_true(atomic_load(&fx.ns->stats.evictions) >= 80);
	assert_ptr_equal(itable_peek(fx.ns, first), held);
	slu_inode_put(held);
	slu_inode_put(held);
	/* what only memory has stays in memory */
	struct slu_inode *inode = itable_peek(fx.ns, dirty);
	assert_non_null(inode);
	assert_int_equal(slu_aspace_size(&inode->data), 4);
	ok(slu_writeback_range(fx.wb, &inode->data, 0, UINT64_MAX));
	slu_inode_put(inode);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%d", i);
		ok(try_look(&fx, ROOT, name));
	}
	assert_null(itable_peek(fx.ns, dirty));
	assert_int_equal(stat_of(&fx, dirty).size, 4);
}

int main(void)
{
#define CASE(fn)    cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define WRITING(fn) cmocka_unit_test_setup_teardown(fn, setup_writing, teardown)
	const struct CMUnitTest tests[] = {
		CASE(a_file_is_freed_with_its_last_user),
		CASE(a_lookup_keeps_it_as_well),
		CASE(all_space_comes_back),
		CASE(freeing_is_done_in_steps),
		CASE(unmounting_frees_what_nobody_closed),
		CASE(a_crash_leaves_orphans_and_the_next_mount_frees_them),
		CASE(a_crash_in_the_middle_of_freeing),
		CASE(what_is_not_committed_was_never_unlinked),
		CASE(stray_orphan_records),
		CASE(a_truncate_frees_what_lies_beyond),
		CASE(a_crash_in_the_middle_of_a_truncate),
		CASE(unlinking_in_the_middle_of_a_truncate),
		CASE(read_only_mounts_leave_orphans_alone),
		CASE(a_read_only_time_defers_freeing),
		CASE(an_orphan_that_is_damaged_waits_for_fsck),
		CASE(a_passing_error_is_tried_again),
		CASE(where_everything_fails_it_ends),
		CASE(a_truncate_that_could_not_be_ended_is_not_forgotten),
		WRITING(dirty_pages_of_an_unlinked_file_are_dropped),
		WRITING(a_size_whose_data_was_punched_out_again_is_recorded),
		WRITING(a_file_that_replaces_another_is_written_out_first),
		WRITING(a_rename_fails_if_writing_out_does),
		WRITING(inodes_leave_memory_when_idle_and_clean),
		CASE(an_inode_that_left_memory_can_be_synced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
