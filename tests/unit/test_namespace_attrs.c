/* SPDX-License-Identifier: MIT */
/*
 * Attributes: what setattr changes and revokes, times that only memory has for a while, sizes and
 * blocks, and inode records on disk that cannot be right.
 */
#include "namespace_fixture.h"

static struct nsfx fx;

static int setup(void **state)
{
	nsfx_init(&fx, 16384);
	return 0;
}

static int teardown(void **state)
{
	nsfx_fini(&fx);
	return 0;
}

static struct slu_attr set(uint64_t ino, struct slu_attr attr, unsigned int what)
{
	struct slu_attr ret;

	ok(slu_ns_setattr(fx.ns, &fx.ctx, ino, &attr, what, &ret));
	return ret;
}

static void only_what_is_asked_for_changes(void **state)
{
	static const struct slu_attr wanted = {.mode = 04321,
					       .uid = 5,
					       .gid = 6,
					       .size = 999,
					       .nlink = 9,
					       .atime = {1, 2},
					       .mtime = {-3, 4},
					       .ctime = {5, 6},
					       .btime = {7, 8}};
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_attr before = stat_of(&fx, file), a;

	next_tick();
	a = set(file, wanted, SLU_SET_MTIME);
	assert_int_equal(a.mtime.tv_sec, -3);
	assert_int_equal(a.mtime.tv_nsec, 4);
	assert_int_equal(time_order(a.atime, before.atime), 0);
	assert_int_equal(time_order(a.ctime, before.ctime), 1);
	assert_int_equal(time_order(a.btime, before.btime), 0);
	assert_int_equal(a.mode, before.mode);
	assert_int_equal(a.uid, before.uid);
	a = set(file, wanted, SLU_SET_ATIME | SLU_SET_CTIME);
	assert_int_equal(a.atime.tv_sec, 1);
	assert_int_equal(a.ctime.tv_sec, 5);
	a = set(file, wanted, SLU_SET_MODE);
	assert_int_equal(a.mode, S_IFREG | 04321);
	assert_int_equal(a.uid, 1000);
	a = set(file, wanted, SLU_SET_ATIME_NOW | SLU_SET_MTIME_NOW);
	assert_int_equal(time_order(a.atime, a.ctime), 0);
	assert_int_equal(time_order(a.mtime, a.ctime), 0);
	assert_int_equal(a.size, 0);
	assert_int_equal(a.nlink, 1);
	nsfx_remount(&fx);
	before = stat_of(&fx, file);
	assert_memory_equal(&a, &before, sizeof(a));
	a.mtime.tv_nsec = 1000000000;
	assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a, SLU_SET_MTIME, &a), -EINVAL);
	assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file + 99, &a, SLU_SET_MODE, &a), -ENOENT);
}

static void the_type_never_changes(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct slu_attr a = set(dir, (struct slu_attr){.mode = S_IFREG | 0700}, SLU_SET_MODE);

	assert_int_equal(a.mode, S_IFDIR | 0700);
}

static void owners_that_change_revoke_privileges(void **state)
{
	static const struct {
		mode_t type, before, after;
	} table[] = {
		{S_IFREG, 06777, 00777}, {S_IFREG, 06767, 02767}, /* no group x: mandatory locks */
		{S_IFREG, 06711, 00711}, {S_IFREG, 04700, 00700}, {S_IFREG, 02710, 00710},
		{S_IFREG, 01777, 01777}, {S_IFDIR, 06777, 06777},
	};
	static const unsigned int ways[] = {SLU_SET_UID, SLU_SET_GID, SLU_SET_UID | SLU_SET_GID,
					    SLU_SET_KILL_PRIV};
	char name[24], value[20];

	for (size_t i = 0; i < slu_array_size(table); i++) {
		for (size_t w = 0; w < slu_array_size(ways); w++) {
			snprintf(name, sizeof(name), "%zu.%zu", i, w);
			uint64_t ino = mk(&fx, ROOT, name, table[i].type | 0600);
			struct slu_attr a = {.mode = table[i].before, .uid = 7, .gid = 8};

			set(ino, a, SLU_SET_MODE);
			ok(slu_ns_setxattr(fx.ns, &fx.ctx, ino, "security.capability", "caps", 4, 0,
					   false));
			ok(slu_ns_setxattr(fx.ns, &fx.ctx, ino, "user.x", "kept", 4, 0, false));
			a = set(ino, a, ways[w]);
			assert_int_equal(a.mode, table[i].type | table[i].after);
			assert_int_equal(slu_ns_getxattr(fx.ns, &fx.ctx, ino, "security.capability",
							 value, sizeof(value)),
					 table[i].type == S_IFDIR ? 4 : -ENODATA);
			assert_int_equal(a.nxattr, table[i].type == S_IFDIR ? 2 : 1);
			assert_int_equal(slu_ns_getxattr(fx.ns, &fx.ctx, ino, "user.x", value, 20),
					 4);
		}
	}
}

static void nothing_to_revoke_changes_nothing(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755);
	struct slu_attr before = stat_of(&fx, file), a;

	next_tick();
	a = set(file, before, SLU_SET_KILL_PRIV);
	assert_memory_equal(&a, &before, sizeof(a));
	/* the caller may use one struct for both */
	before.mode = 0711;
	ok(slu_ns_setattr(fx.ns, &fx.ctx, file, &before, SLU_SET_MODE, &before));
	assert_int_equal(before.mode, S_IFREG | 0711);
	assert_int_equal(before.ino, file);
}

static void touched_times_reach_the_disk_with_sync(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755), txid, before;
	struct slu_inode *inode;
	struct slu_attr a, b;

	nsfx_commit(&fx);
	ok(slu_inode_get(fx.ns, file, &inode));
	ok(slu_inode_sync_attr(inode, &before));
	assert_true(before <= slu_store_durable_txid(fx.store));
	next_tick();
	slu_inode_touch(inode, SLU_TOUCH_MTIME);
	assert_true(inode->attr_dirty);
	slu_inode_attr(inode, &a);
	ok(slu_inode_sync_attr(inode, &txid));
	assert_false(inode->attr_dirty);
	assert_true(txid > before);
	assert_int_equal(inode->refs, 1);
	ok(slu_store_commit(fx.store, txid, true));
	slu_inode_put(inode);
	nsfx_crash(&fx);
	b = stat_of(&fx, file);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(time_order(a.mtime, a.ctime), 0);
	assert_int_equal(time_order(a.mtime, a.btime), 1);
}

static void many_touched_inodes_are_written_in_steps(void **state)
{
	enum { N = 200 };
	struct slu_attr a[N], b;
	struct slu_inode *inode;
	char name[24];

	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%d", i);
		a[i].ino = mk(&fx, ROOT, name, S_IFREG | 0644);
	}
	next_tick();
	for (int i = 0; i < N; i++) {
		ok(slu_inode_get(fx.ns, a[i].ino, &inode));
		slu_inode_touch(inode, SLU_TOUCH_ATIME);
		slu_inode_touch(inode, SLU_TOUCH_CTIME);
		slu_inode_attr(inode, &a[i]);
		slu_inode_put(inode);
	}
	assert_int_equal(fx.ns->table.dirty.n, N);
	ok(slu_ns_sync_attrs(fx.ns));
	assert_int_equal(fx.ns->table.dirty.n, 0);
	nsfx_commit(&fx);
	nsfx_crash(&fx);
	for (int i = 0; i < N; i++) {
		b = stat_of(&fx, a[i].ino);
		assert_memory_equal(&a[i], &b, sizeof(b));
	}
}

static void times_that_cannot_be_written_now_are_written_later(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755);
	struct slu_inode *inode;
	struct slu_attr a, b;
	unsigned int failures = 0;

	ok(slu_inode_get(fx.ns, file, &inode));
	slu_inode_touch(inode, SLU_TOUCH_MTIME);
	slu_inode_attr(inode, &a);
	slu_inode_put(inode);
	for (uint64_t n = 1; fx.ns->table.dirty.n; n++) {
		slu_alloc_fail_nth(n);
		int err = slu_ns_sync_attrs(fx.ns);
		slu_alloc_fail_nth(0);
		assert_true(err == 0 || err == -ENOMEM);
		failures += err != 0;
		assert_int_equal(fx.ns->table.dirty.n, err != 0);
	}
	assert_true(failures > 0);
	nsfx_commit(&fx);
	nsfx_crash(&fx);
	b = stat_of(&fx, file);
	assert_memory_equal(&a, &b, sizeof(a));
}

static void a_change_takes_touched_times_along(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755);
	struct slu_inode *inode;

	ok(slu_inode_get(fx.ns, file, &inode));
	slu_inode_touch(inode, SLU_TOUCH_ATIME);
	assert_int_equal(fx.ns->table.dirty.n, 1);
	ok(try_link(&fx, file, ROOT, "link"));
	assert_false(inode->attr_dirty);
	assert_int_equal(fx.ns->table.dirty.n, 0);
	assert_int_equal(inode->refs, 1);
	slu_inode_put(inode);
}

static struct timespec atime_after_touch(uint64_t ino, time_t atime, time_t mtime, uint32_t flags)
{
	struct slu_attr a = {.atime = {atime, 0},
			     .mtime = {mtime, 0},
			     .ctime = {mtime, 0},
			     .flags = flags};
	struct slu_inode *inode;

	set(ino, a, SLU_SET_ATIME | SLU_SET_MTIME | SLU_SET_CTIME | SLU_SET_FLAGS);
	ok(slu_inode_get(fx.ns, ino, &inode));
	slu_inode_touch(inode, SLU_TOUCH_ATIME);
	slu_inode_attr(inode, &a);
	slu_inode_put(inode);
	assert_int_equal(a.mtime.tv_sec, mtime);
	assert_int_equal(a.ctime.tv_sec, mtime);
	return a.atime;
}

static void atime_moves_by_the_rules(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755);
	time_t now = slu_clock_realtime().tv_sec;

	for (int relatime = 0; relatime < 2; relatime++) {
		nsfx_unmount(&fx);
		fx.relatime = relatime;
		nsfx_mount(&fx);
		/* newer than mtime and from today: only strict atime moves */
		assert_true((atime_after_touch(file, now - 100, now - 200, 0).tv_sec >= now) !=
			    relatime);
		assert_true(atime_after_touch(file, now - 200, now - 100, 0).tv_sec >= now);
		assert_true(atime_after_touch(file, now - 200, now - 200, 0).tv_sec >= now);
		assert_true(atime_after_touch(file, now - 90000, now - 90001, 0).tv_sec >= now);
		assert_int_equal(
			atime_after_touch(file, now - 200, now - 100, SLU_INODE_NOATIME).tv_sec,
			now - 200);
	}
}

static void blocks_and_size_follow_the_data(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755);
	struct slu_ticket t;
	struct slu_inode *inode;
	struct slu_need need;
	struct slu_attr a;

	give_blocks(&fx, file, 0, 7);
	a = stat_of(&fx, file);
	assert_int_equal(a.blocks, 7);
	assert_int_equal(a.size, 0);
	ok(slu_inode_get(fx.ns, file, &inode));
	ok(slu_ticket_get(fx.store, &t, 4, 512, 0, NULL));
	slu_rwlock_wrlock(&inode->data.lock);
	assert_int_equal(slu_inode_set_size(inode, &t, 1ull << 63, false, &need), -EFBIG);
	slu_inode_touch(inode, SLU_TOUCH_ATIME);
	assert_int_equal(fx.ns->table.dirty.n, 1);
	ok(slu_inode_set_size(inode, &t, 12345, false, &need));
	assert_int_equal(fx.ns->table.dirty.n, 0);
	slu_rwlock_wrunlock(&inode->data.lock);
	slu_ticket_put(&t);
	assert_int_equal(inode->data.disk_size, 12345);
	assert_false(inode->freeing);
	slu_inode_put(inode);
	assert_int_equal(stat_of(&fx, file).size, 12345);
	nsfx_remount(&fx);
	a = stat_of(&fx, file);
	assert_int_equal(a.blocks, 7);
	assert_int_equal(a.size, 12345);
}

static void poke_inode(uint64_t ino, const struct slu_disk_inode *d, size_t len)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_INODE, 0);

	nsfx_poke(&fx, &key, d, len);
}

static void impossible_records_are_refused_and_reported(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0755), dir = mk(&fx, ROOT, "dir", S_IFDIR);
	struct slu_attr a;
	uint64_t link;

	ok(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "link", "there", &a));
	link = a.ino;
	struct {
		uint64_t ino;
		size_t off, size;
		uint64_t value;
	} damage[] = {
#define F(ino, member, value)                          \
	{ino, offsetof(struct slu_disk_inode, member), \
	 sizeof(((struct slu_disk_inode *)0)->member), value}
		F(file, mode, 0755),
		F(file, mode, 0170000),
		F(file, mode, S_IFREG | 010000 | 0200000),
		F(file, size, 1ull << 63),
		F(file, blocks, SLU_MAX_BLOCKS + 1),
		F(file, parent, 1),
		F(file, nlink, 0x80000000),
		F(file, flags, 1u << 31),
		F(file, atime.nsec, 1000000000),
		F(file, mtime.nsec, 0xffffffff),
		F(file, ctime.nsec, 1000000000),
		F(file, btime.nsec, 1000000000),
		F(dir, blocks, 1),
		F(dir, parent, 0),
		F(dir, parent, 1ull << 63),
		F(dir, nlink, 1),
		F(link, size, 0),
		F(link, size, 4096),
		F(link, parent, 1),
	};
	nsfx_unmount(&fx);
	nsfx_mount(&fx);
	for (size_t i = 0; i < slu_array_size(damage); i++) {
		struct slu_key key = SLU_KEY(damage[i].ino, SLU_REC_INODE, 0);
		struct slu_disk_inode good, bad;
		struct slu_inode *inode;
		unsigned int before = atomic_load(&fx.nevents);

		assert_int_equal(slu_store_get(fx.store, &key, &good, sizeof(good), NULL),
				 sizeof(good));
		bad = good;
		for (size_t j = 0; j < damage[i].size; j++)
			((uint8_t *)&bad)[damage[i].off + j] = (uint8_t)(damage[i].value >> 8 * j);
		poke_inode(damage[i].ino, &bad, sizeof(bad));
		assert_int_equal(slu_inode_get(fx.ns, damage[i].ino, &inode), -EIO);
		assert_true(atomic_load(&fx.nevents) > before);
		poke_inode(damage[i].ino, &good, sizeof(good) - 1);
		assert_int_equal(slu_inode_get(fx.ns, damage[i].ino, &inode), -EIO);
		poke_inode(damage[i].ino, &good, sizeof(good));
		ok(slu_inode_get(fx.ns, damage[i].ino, &inode));
		slu_inode_put(inode);
		nsfx_remount(&fx);
	}
}

static void a_symlink_that_does_not_fit_its_inode(void **state)
{
	struct slu_attr a;
	char target[64];

	ok(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "link", "there", &a));
	struct slu_key key = SLU_KEY(a.ino, SLU_REC_SYMLINK, 0);

	nsfx_poke(&fx, &key, "elsewhere", 9);
	assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, a.ino, target, 64), -EIO);
	nsfx_poke(&fx, &key, "th\0re", 5);
	assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, a.ino, target, 64), -EIO);
	nsfx_poke(&fx, &key, NULL, 0);
	assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, a.ino, target, 64), -EIO);
	key.off = 1;
	nsfx_poke(&fx, &key, "there", 5);
	assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, a.ino, target, 64), -EIO);
}

static void a_volume_without_a_root_is_not_mounted(void **state)
{
	struct slu_key key = SLU_KEY(ROOT, SLU_REC_INODE, 0);
	struct slu_disk_inode root;

	assert_int_equal(slu_store_get(fx.store, &key, &root, sizeof(root), NULL), sizeof(root));
	nsfx_poke(&fx, &key, NULL, 0);
	nsfx_unmount(&fx);
	assert_int_equal(nsfx_try_mount(&fx), -EIO);
	slu_put_le32(&root.mode, S_IFREG | 0644);
	slu_put_le64(&root.parent, 0);
	nsfx_poke(&fx, &key, &root, sizeof(root));
	nsfx_unmount(&fx);
	assert_int_equal(nsfx_try_mount(&fx), -EIO);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(only_what_is_asked_for_changes),
		CASE(the_type_never_changes),
		CASE(owners_that_change_revoke_privileges),
		CASE(nothing_to_revoke_changes_nothing),
		CASE(touched_times_reach_the_disk_with_sync),
		CASE(many_touched_inodes_are_written_in_steps),
		CASE(times_that_cannot_be_written_now_are_written_later),
		CASE(a_change_takes_touched_times_along),
		CASE(atime_moves_by_the_rules),
		CASE(blocks_and_size_follow_the_data),
		CASE(impossible_records_are_refused_and_reported),
		CASE(a_symlink_that_does_not_fit_its_inode),
		CASE(a_volume_without_a_root_is_not_mounted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
