/* SPDX-License-Identifier: MIT */
/*
 * What goes wrong under an operation: no memory at any of its allocations, no space, no transaction
 * room, a disk that fails. Whatever it is, the operation has happened or it has not.
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
	slu_alloc_fail_nth(0);
	nsfx_fini(&fx);
	return 0;
}

/* -------------------------------------------------------- the whole state, as a string of bytes */

struct image {
	uint8_t *bytes;
	size_t len, cap;
};

static int add_record(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct image *im = ctx;

	if (im->len + len + 32 > im->cap) {
		im->cap = im->cap * 2 + len + 4096;
		im->bytes = realloc(im->bytes, im->cap);
	}
	slu_key_put(im->bytes + im->len, key);
	memcpy(im->bytes + im->len + SLU_KEY_SIZE, value, len);
	im->len += SLU_KEY_SIZE + len;
	return 0;
}

/* Every record but those of free space. */
static struct image records(void)
{
	struct slu_key from = SLU_KEY(0, SLU_REC_ORPHAN, 0), end = SLU_KEY_MAX;
	struct image im = {0};

	ok(slu_store_scan(fx.store, &from, &end, add_record, &im, NULL));
	return im;
}

static bool same(const struct image *a, const struct image *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static uint64_t all_lookups(void)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < NS_SHARDS; i++) {
		const struct ns_shard *s = &fx.ns->lookups.shards[i];

		for (size_t j = 0; j < s->cap; j++)
			n += s->entries[j].count;
	}
	return n;
}

/* ------------------------------------------------------------------ operations */

static uint64_t dir1, dir2, file1, file2, empty, link1;
static uint8_t value[40000];

static int op_mknod(void)
{
	struct slu_attr a;

	return slu_ns_mknod(fx.ns, &fx.ctx, dir1, "new", S_IFREG | 0644, 0, &a);
}

static int op_mkdir(void)
{
	struct slu_attr a;

	/* dir2 has a default ACL */
	return slu_ns_mknod(fx.ns, &fx.ctx, dir2, "new", S_IFDIR | 0755, 0, &a);
}

static int op_symlink(void)
{
	struct slu_attr a;
	char target[3000];

	memset(target, 't', sizeof(target));
	target[2999] = '\0';
	return slu_ns_symlink(fx.ns, &fx.ctx, dir1, "new", target, &a);
}

static int op_tmpfile(void)
{
	struct slu_attr a;

	return slu_ns_tmpfile(fx.ns, &fx.ctx, dir1, 0600, &a);
}

static int op_link(void)
{
	struct slu_attr a;

	return slu_ns_link(fx.ns, &fx.ctx, file1, dir2, "new", &a);
}

static int op_unlink(void)
{
	return unlink_(&fx, dir1, "file2");
}

static int op_rmdir(void)
{
	return rmdir_(&fx, dir1, "empty");
}

static int op_rename_move(void)
{
	return rename_(&fx, dir1, "empty", dir2, "moved", 0);
}

static int op_rename_replace(void)
{
	return rename_(&fx, dir1, "file1", dir1, "file2", 0);
}

static int op_rename_exchange(void)
{
	return rename_(&fx, dir1, "file1", ROOT, "dir2", RENAME_EXCHANGE);
}

static int op_chmod(void)
{
	struct slu_attr a = {.mode = 0700};

	/* file1 has an access ACL */
	return slu_ns_setattr(fx.ns, &fx.ctx, file1, &a, SLU_SET_MODE, &a);
}

static int op_chown(void)
{
	struct slu_attr a = {.uid = 3};

	/* and capabilities */
	return slu_ns_setattr(fx.ns, &fx.ctx, file1, &a, SLU_SET_UID, &a);
}

static int op_setxattr(void)
{
	return slu_ns_setxattr(fx.ns, &fx.ctx, file1, "user.big", value, 39000, 0, false);
}

static int op_setxattr_small(void)
{
	return slu_ns_setxattr(fx.ns, &fx.ctx, file1, "user.new", value, 100, 0, false);
}

static int op_removexattr(void)
{
	return slu_ns_removexattr(fx.ns, &fx.ctx, file1, "user.big");
}

static const struct {
	const char *name;
	int (*fn)(void);
} changes[] = {
	{"mknod", op_mknod},
	{"mkdir", op_mkdir},
	{"symlink", op_symlink},
	{"tmpfile", op_tmpfile},
	{"link", op_link},
	{"unlink", op_unlink},
	{"rmdir", op_rmdir},
	{"rename, move", op_rename_move},
	{"rename, replace", op_rename_replace},
	{"rename, exchange", op_rename_exchange},
	{"chmod", op_chmod},
	{"chown", op_chown},
	{"setxattr", op_setxattr},
	{"setxattr, small", op_setxattr_small},
	{"removexattr", op_removexattr},
};

static void populate(void)
{
	/* u::rwx u:42:rwx g::r-x m::rwx o::r-- */
	static const uint8_t acl[] = {2,   0,   0,   0,   1,   0,   7,  0,   255, 255, 255,
				      255, 2,   0,   7,   0,   42,  0,  0,   0,   4,   0,
				      5,   0,   255, 255, 255, 255, 16, 0,   7,   0,   255,
				      255, 255, 255, 32,  0,   4,   0,  255, 255, 255, 255};

	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)(i * 31);
	dir1 = mk(&fx, ROOT, "dir1", S_IFDIR | 0755);
	dir2 = mk(&fx, ROOT, "dir2", S_IFDIR | 0755);
	file1 = mk(&fx, dir1, "file1", S_IFREG | 0755);
	file2 = mk(&fx, dir1, "file2", S_IFREG | 0755);
	empty = mk(&fx, dir1, "empty", S_IFDIR | 0755);
	ok(slu_ns_setxattr(fx.ns, &fx.ctx, dir2, NS_ACL_DEFAULT, acl, sizeof(acl), 0, false));
	ok(slu_ns_setxattr(fx.ns, &fx.ctx, file1, NS_ACL_ACCESS, acl, sizeof(acl), 0, false));
	ok(slu_ns_setxattr(fx.ns, &fx.ctx, file1, NS_XATTR_CAPS, value, 20, 0, false));
	ok(slu_ns_setxattr(fx.ns, &fx.ctx, file1, "user.big", value + 1, 30000, 0, false));
}

static void drop_state(void)
{
	nsfx_fini(&fx);
	nsfx_init(&fx, 16384);
	populate();
}

/* From a cold cache as well, so that reading inodes and nodes fails too. */
static void no_memory(const char *name, int (*fn)(void), bool cold)
{
	for (uint64_t n = 1;; n++) {
		struct image before, after;
		uint64_t lookups, count;
		int err;

		if (cold)
			nsfx_remount(&fx);
		before = records();
		lookups = all_lookups();
		if (cold)
			nsfx_remount(&fx);
		lookups = all_lookups();
		slu_alloc_fail_nth(n);
		err = fn();
		count = slu_alloc_count();
		slu_alloc_fail_nth(0);
		after = records();
		if (err == 0) {
			/*
			 * the store may get over a failure of its own; past the last one it has to
			 * work
			 */
			assert_false(same(&before, &after));
			free(before.bytes);
			free(after.bytes);
			if (count < n)
				return;
			drop_state();
			continue;
		}
		if (err != -ENOMEM)
			fail_msg("%s: allocation %u: %d", name, (unsigned int)n, err);
		if (!same(&before, &after))
			fail_msg("%s: allocation %u: changed all the same", name, (unsigned int)n);
		assert_int_equal(all_lookups(), lookups);
		assert_int_equal(fx.ns->table.nreclaiming, 0);
		free(before.bytes);
		free(after.bytes);
	}
}

static void no_memory_at_any_allocation_changes_nothing(void **state)
{
	populate();
	for (size_t i = 0; i < slu_array_size(changes); i++) {
		for (int cold = 0; cold < 2; cold++) {
			no_memory(changes[i].name, changes[i].fn, cold);
			drop_state();
		}
	}
}

static int show(void *ctx, const char *name, size_t len, uint64_t cookie,
		const struct slu_attr *attr)
{
	return 0;
}

static int op_lookup(void)
{
	return try_look(&fx, dir1, "file1");
}

static int op_readdir(void)
{
	return slu_ns_readdir(fx.ns, &fx.ctx, dir1, 0, true, show, NULL);
}

static int op_getxattr(void)
{
	uint8_t buf[30000];
	ssize_t n = slu_ns_getxattr(fx.ns, &fx.ctx, file1, "user.big", buf, sizeof(buf));

	return n < 0 ? (int)n : 0;
}

static int op_listxattr(void)
{
	ssize_t n = slu_ns_listxattr(fx.ns, &fx.ctx, file1, NULL, 0);

	return n < 0 ? (int)n : 0;
}

static int op_readlink(void)
{
	char buf[10];
	int n = slu_ns_readlink(fx.ns, &fx.ctx, link1, buf, 10);

	return n < 0 ? n : 0;
}

static void no_memory_for_readers(void **state)
{
	static int (*const readers[])(void) = {op_lookup, op_readdir, op_getxattr, op_listxattr,
					       op_readlink};
	struct slu_attr a;

	populate();
	ok(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "link", "there", &a));
	link1 = a.ino;
	for (size_t i = 0; i < slu_array_size(readers); i++) {
		for (uint64_t n = 1;; n++) {
			nsfx_remount(&fx);
			slu_alloc_fail_nth(n);
			int err = readers[i]();
			bool all = slu_alloc_count() < n;
			slu_alloc_fail_nth(0);
			assert_true(err == 0 || err == -ENOMEM);
			assert_int_equal(all_lookups(), 0);
			if (all) {
				ok(err);
				break;
			}
		}
	}
}

static void no_memory_while_freeing_is_made_up_for(void **state)
{
	populate();
	for (uint64_t n = 1; n < 60; n++) {
		ok(unlink_(&fx, dir1, "file1"));
		give_blocks(&fx, file1, 0, 3);
		forget_all(&fx, file1);
		slu_alloc_fail_nth(n);
		int err = slu_ns_reclaim(fx.ns);
		slu_alloc_fail_nth(0);
		assert_true(err >= 0 || err == -ENOMEM);
		slu_ns_reclaim_again(fx.ns);
		nsfx_reclaim(&fx);
		assert_int_equal(nsfx_nrecords(&fx, file1, 0), 0);
		assert_int_equal(nsfx_nrecords(&fx, 0, SLU_REC_ORPHAN), 0);
		drop_state();
	}
}

/*
 * The node cache holds nothing and every request starts without the nodes it needs, under its locks
 * as well.
 */
static void cold_nodes_are_waited_for_without_locks(void **state)
{
	populate();
	for (size_t i = 0; i < slu_array_size(changes); i++) {
		nsfx_remount(&fx);
		fx.ctx.may_wait = false; /* short reads are waited for in any case */
		ok(changes[i].fn());
		fx.ctx.may_wait = true;
		drop_state();
	}
}

/* ------------------------------------------------------------------ space and room */

static void a_full_volume_can_be_tidied_up(void **state)
{
	char name[24];
	struct slu_attr a;
	int err, i, tries;

	populate();
	struct slu_space_stat st = nsfx_space(&fx);
	uint64_t big = mk(&fx, ROOT, "big", S_IFREG | 0644);
	struct slu_inode *inode;

	/* nearly all with data, the rest with names */
	ok(slu_inode_get(fx.ns, big, &inode));
	uint64_t pos = 0;
	do {
		err = slu_volume_prealloc(&inode->vol, &pos, (st.free - 100) * SLU_BLOCK_SIZE,
					  SLU_DISK_SIZE_KEEP, NULL);
	} while (err > 0);
	slu_inode_put(inode);
	/* a commit may give some back: until none does */
	for (i = 0, tries = 0; tries < 3;) {
		snprintf(name, sizeof(name), "%d", i);
		err = slu_ns_mknod(fx.ns, &fx.ctx, dir1, name, S_IFREG | 0644, 0, &a);
		if (err) {
			assert_int_equal(err, -ENOSPC);
			nsfx_settle(&fx);
			tries++;
			continue;
		}
		tries = 0;
		i++;
		forget_all(&fx, a.ino);
		assert_true(i < 100000);
	}
	/* a further name takes less than a file */
	for (int j = 0;; j++) {
		snprintf(name, sizeof(name), "l%d", j);
		err = try_link(&fx, file2, dir1, name);
		if (err)
			break;
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(op_mkdir(), -ENOSPC);
	assert_int_equal(op_link(), -ENOSPC);
	assert_int_equal(op_setxattr(), -ENOSPC);
	nsfx_commit(&fx);
	/* what takes nothing, and what gives back, goes on */
	ok(op_chmod());
	ok(op_chown());
	ok(rename_(&fx, dir1, "0", dir1, "X", 0));
	assert_int_equal(rename_(&fx, dir1, "X", dir1, "a longer name", 0), -ENOSPC);
	ok(rename_(&fx, dir1, "1", dir1, "X", RENAME_EXCHANGE));
	ok(rename_(&fx, dir1, "2", dir1, "1", 0)); /* over another */
	for (int j = 0; j < 2000; j++)
		ok(rename_(&fx, dir1, j % 2 ? "0" : "X", dir1, j % 2 ? "X" : "0", 0));
	ok(rename_(&fx, dir1, "1", dir1, "2", 0));
	ok(rename_(&fx, dir1, "X", dir1, "1", 0));
	ok(op_removexattr());
	ok(op_unlink());
	ok(op_rmdir());
	ok(unlink_(&fx, dir1, "1"));
	for (; i-- > 2;) {
		snprintf(name, sizeof(name), "%d", i);
		ok(unlink_(&fx, dir1, name));
	}
	ok(unlink_(&fx, ROOT, "big"));
	forget_all(&fx, big);
	nsfx_reclaim(&fx);
	nsfx_settle(&fx);
	ok(op_mknod());
	ok(op_link());
}

static void what_was_deleted_makes_room_by_itself(void **state)
{
	struct slu_inode *inode;
	uint64_t pos = 0, big;
	int err, n = 0;

	populate();
	big = mk(&fx, ROOT, "big", S_IFREG | 0644);
	ok(slu_inode_get(fx.ns, big, &inode));
	do {
		err = slu_volume_prealloc(&inode->vol, &pos, 1ull << 40, SLU_DISK_SIZE_KEEP, NULL);
	} while (err > 0);
	assert_int_equal(err, -ENOSPC);
	slu_inode_put(inode);
	/* whatever prealloc leaves: long names take most of it, short ones the rest */
	for (int width = 250; width > 0; width -= 248) {
		for (;; n++) {
			char name[256];

			snprintf(name, sizeof(name), "%0*d", width, n);
			err = try_mk(&fx, dir1, name, S_IFREG);
			if (err)
				break;
			assert_true(n < 100000);
		}
		assert_int_equal(err, -ENOSPC);
	}
	ok(unlink_(&fx, ROOT, "big"));
	forget_all(&fx, big);
	/* nobody has called slu_ns_reclaim; one who may not wait is told to come back */
	fx.ctx.may_wait = false;
	assert_int_equal(op_mknod(), -EAGAIN);
	assert_true(fx.ctx.need.slow);
	fx.ctx.may_wait = true;
	ok(op_mknod());
	assert_int_equal(nsfx_nrecords(&fx, big, 0), 0);
}

static void without_room_in_the_transaction_a_request_is_parked(void **state)
{
	static const uint32_t sizes[] = {5000, 500, 50, 5, 1};
	struct slu_ticket hog[256];
	unsigned int n = 0;
	struct slu_need need;

	populate();
	/* tickets that are never used keep the transaction full */
	for (size_t i = 0; i < slu_array_size(sizes); i++) {
		while (slu_ticket_get(fx.store, &hog[n], sizes[i], 0, 0, &need) == 0) {
			n++;
			assert_true(n < 256);
		}
	}
	fx.ctx.may_wait = false;
	for (size_t i = 0; i < slu_array_size(changes); i++) {
		struct image before = records(), after;
		uint64_t lookups = all_lookups();

		fx.ctx.need = (struct slu_need){0};
		assert_int_equal(changes[i].fn(), -EAGAIN);
		assert_true(fx.ctx.need.slow && fx.ctx.need.wait);
		after = records();
		assert_true(same(&before, &after));
		assert_int_equal(all_lookups(), lookups);
		free(after.bytes);
		free(before.bytes);
	}
	while (n-- > 0)
		slu_ticket_put(&hog[n]);
	ok(slu_need_wait(&fx.ctx.need));
	ok(op_removexattr());
	fx.ctx.may_wait = true;
}

/* ------------------------------------------------------------------ the disk */

static void a_store_that_has_failed_refuses_changes_and_can_be_left(void **state)
{
	populate();
	uint64_t gone = mk(&fx, ROOT, "gone", S_IFREG);
	struct slu_inode *inode;

	give_blocks(&fx, gone, 0, 2);
	ok(unlink_(&fx, ROOT, "gone"));
	ok(slu_inode_get(fx.ns, file1, &inode));
	slu_inode_touch(inode, SLU_TOUCH_MTIME);
	slu_store_fail(fx.store, -EIO, "test");
	for (size_t i = 0; i < slu_array_size(changes); i++)
		assert_int_equal(changes[i].fn(), -EROFS);
	uint64_t txid;
	assert_int_equal(slu_inode_sync_attr(inode, &txid), -EROFS);
	assert_int_equal(slu_ns_sync_attrs(fx.ns), -EROFS);
	slu_inode_put(inode);
	forget_all(&fx, gone);
	assert_int_equal(slu_ns_reclaim(fx.ns), -EROFS);
	ok(try_look(&fx, dir1, "file1"));
}

static void read_errors_are_passed_on(void **state)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_READ, .nth = 1, .times = UINT64_MAX};

	populate();
	for (size_t i = 0; i < slu_array_size(changes); i++) {
		nsfx_remount(&fx);
		struct image before = records(), after;

		nsfx_remount(&fx);
		for (uint64_t nth = 1; nth < 8; nth++) {
			fault.nth = nth;
			slu_simdisk_fault(fx.disk, &fault);
			int err = changes[i].fn();
			slu_simdisk_fault(fx.disk, NULL);
			if (err == 0)
				break;
			assert_int_equal(err, -EIO);
			after = records();
			assert_true(same(&before, &after));
			free(after.bytes);
		}
		free(before.bytes);
		drop_state();
	}
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(no_memory_at_any_allocation_changes_nothing),
		CASE(no_memory_for_readers),
		CASE(no_memory_while_freeing_is_made_up_for),
		CASE(cold_nodes_are_waited_for_without_locks),
		CASE(a_full_volume_can_be_tidied_up),
		CASE(what_was_deleted_makes_room_by_itself),
		CASE(without_room_in_the_transaction_a_request_is_parked),
		CASE(a_store_that_has_failed_refuses_changes_and_can_be_left),
		CASE(read_errors_are_passed_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
