/* SPDX-License-Identifier: MIT */
/*
 * Making, finding and removing names: what each operation answers, link counts and times as POSIX
 * has them.
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

static void an_empty_volume_has_a_root(void **state)
{
	struct slu_attr a = stat_of(&fx, ROOT);

	assert_int_equal(a.mode, S_IFDIR | 0755);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(a.size, 0);
	assert_int_equal(look(&fx, ROOT, "."), ROOT);
	assert_int_equal(look(&fx, ROOT, ".."), ROOT);
	assert_int_equal(try_look(&fx, ROOT, "nothing"), -ENOENT);
}

static void a_new_file_belongs_to_the_caller(void **state)
{
	struct slu_attr a, b;

	ok(slu_ns_mknod(fx.ns, &fx.ctx, ROOT, "file", S_IFREG | 0666, 0, &a));
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(a.uid, 1000);
	assert_int_equal(a.gid, 1000);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.size, 0);
	assert_int_equal(a.generation, 1);
	assert_int_equal(time_order(a.btime, a.mtime), 0);
	assert_true(a.ino >= SLU_INO_FIRST);
	ok(slu_ns_lookup(fx.ns, &fx.ctx, ROOT, "file", &b));
	assert_memory_equal(&a, &b, sizeof(a));
	/* one for making it, one for finding it */
	assert_int_equal(lookups_get(&fx.ns->lookups, a.ino), 2);
	assert_int_equal(try_mk(&fx, ROOT, "file", S_IFREG | 0600), -EEXIST);
	assert_int_equal(lookups_get(&fx.ns->lookups, a.ino), 2);
}

static void every_type_can_be_made_and_survives(void **state)
{
	static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	struct slu_attr before[6], after;
	char name[2] = "a";

	for (int i = 0; i < 6; i++) {
		name[0] = (char)('a' + i);
		ok(slu_ns_mknod(fx.ns, &fx.ctx, ROOT, name, types[i] | 0640, makedev(8, 300 + i),
				&before[i]));
		assert_int_equal(before[i].mode, types[i] | 0640);
	}
	assert_int_equal(before[0].rdev, 0);
	assert_int_equal(before[4].rdev, makedev(8, 304));
	assert_int_equal(before[5].rdev, makedev(8, 305));
	nsfx_remount(&fx);
	for (int i = 0; i < 6; i++) {
		name[0] = (char)('a' + i);
		ok(slu_ns_lookup(fx.ns, &fx.ctx, ROOT, name, &after));
		assert_memory_equal(&before[i], &after, sizeof(after));
	}
	assert_int_equal(stat_of(&fx, ROOT).nlink, 3);
	assert_int_equal(stat_of(&fx, ROOT).size, 6);
	assert_int_equal(try_mk(&fx, ROOT, "x", S_IFLNK | 0777), -EINVAL);
	assert_int_equal(slu_ns_mknod(fx.ns, &fx.ctx, ROOT, "x", S_IFCHR, UINT64_MAX, &after),
			 -EINVAL);
	ok(slu_ns_mknod(fx.ns, &fx.ctx, ROOT, "plain", 0600, 0, &after));
	assert_int_equal(after.mode, S_IFREG | 0600);
}

static void names_of_255_bytes_fit_and_no_longer_ones(void **state)
{
	char name[300];

	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	uint64_t ino = mk(&fx, ROOT, name, S_IFREG | 0644);
	assert_int_equal(look(&fx, ROOT, name), ino);
	name[255] = 'n';
	name[256] = '\0';
	assert_int_equal(try_look(&fx, ROOT, name), -ENAMETOOLONG);
	assert_int_equal(try_mk(&fx, ROOT, name, S_IFREG), -ENAMETOOLONG);
	assert_int_equal(unlink_(&fx, ROOT, name), -ENAMETOOLONG);
	assert_int_equal(rmdir_(&fx, ROOT, name), -ENAMETOOLONG);
	assert_int_equal(rename_(&fx, ROOT, name, ROOT, "x", 0), -ENAMETOOLONG);
	assert_int_equal(rename_(&fx, ROOT, "x", ROOT, name, 0), -ENAMETOOLONG);
	assert_int_equal(try_link(&fx, ino, ROOT, name), -ENAMETOOLONG);
}

static void any_byte_but_nul_and_slash_makes_a_name(void **state)
{
	char name[2] = {0};

	for (int c = 1; c < 256; c++) {
		name[0] = (char)c;
		if (c == '/')
			assert_int_equal(try_mk(&fx, ROOT, name, S_IFREG), -EINVAL);
		else if (c == '.')
			assert_int_equal(try_mk(&fx, ROOT, name, S_IFREG), -EEXIST);
		else
			mk(&fx, ROOT, name, S_IFREG | 0644);
	}
	assert_int_equal(stat_of(&fx, ROOT).size, 253);
	assert_int_equal(try_mk(&fx, ROOT, "", S_IFREG), -EINVAL);
	nsfx_remount(&fx);
	for (int c = 1; c < 256; c++) {
		name[0] = (char)c;
		if (c != '/' && c != '.')
			ok(try_look(&fx, ROOT, name));
	}
}

static void dots_are_found_but_never_made_or_removed(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	uint64_t sub = mk(&fx, dir, "sub", S_IFDIR | 0755);
	uint64_t file = mk(&fx, sub, "file", S_IFREG | 0644);
	struct slu_attr a;

	assert_int_equal(look(&fx, sub, ".."), dir);
	assert_int_equal(look(&fx, sub, "."), sub);
	assert_int_equal(look(&fx, file, "."), file); /* as an NFS server asks */
	assert_int_equal(try_look(&fx, file, ".."), -ENOTDIR);
	assert_int_equal(try_mk(&fx, sub, "..", S_IFDIR), -EEXIST);
	assert_int_equal(slu_ns_symlink(fx.ns, &fx.ctx, sub, ".", "x", &a), -EEXIST);
	assert_int_equal(try_link(&fx, file, sub, ".."), -EEXIST);
	assert_int_equal(unlink_(&fx, sub, "."), -EISDIR);
	assert_int_equal(rmdir_(&fx, sub, "."), -EINVAL);
	assert_int_equal(rmdir_(&fx, sub, ".."), -ENOTEMPTY);
	assert_int_equal(rename_(&fx, sub, ".", dir, "x", 0), -EBUSY);
	assert_int_equal(rename_(&fx, sub, "file", dir, "..", 0), -EBUSY);
}

static void operations_on_what_is_not_a_directory(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_attr a;

	assert_int_equal(try_look(&fx, file, "x"), -ENOTDIR);
	assert_int_equal(try_mk(&fx, file, "x", S_IFREG), -ENOTDIR);
	assert_int_equal(slu_ns_symlink(fx.ns, &fx.ctx, file, "x", "y", &a), -ENOTDIR);
	assert_int_equal(slu_ns_tmpfile(fx.ns, &fx.ctx, file, 0600, &a), -ENOTDIR);
	assert_int_equal(try_link(&fx, file, file, "x"), -ENOTDIR);
	assert_int_equal(unlink_(&fx, file, "x"), -ENOTDIR);
	assert_int_equal(rmdir_(&fx, file, "x"), -ENOTDIR);
	assert_int_equal(rename_(&fx, file, "x", ROOT, "y", 0), -ENOTDIR);
	assert_int_equal(rename_(&fx, ROOT, "file", file, "y", 0), -ENOTDIR);
}

static void numbers_that_were_used_are_stale_and_others_unknown(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_inode *inode;

	ok(unlink_(&fx, ROOT, "file"));
	forget_all(&fx, file);
	assert_int_equal(slu_inode_get(fx.ns, file, &inode), -ESTALE);
	nsfx_reclaim(&fx);
	assert_int_equal(slu_inode_get(fx.ns, file, &inode), -ESTALE);
	assert_int_equal(try_look(&fx, file, "."), -ESTALE);
	assert_int_equal(slu_inode_get(fx.ns, file + 1000, &inode), -ENOENT);
	assert_int_equal(slu_inode_get(fx.ns, 0, &inode), -ENOENT);
	assert_int_equal(slu_inode_get(fx.ns, 5, &inode), -ENOENT);
	assert_int_equal(slu_inode_get(fx.ns, UINT64_MAX, &inode), -ENOENT);
	nsfx_remount(&fx);
	assert_int_equal(slu_inode_get(fx.ns, file, &inode), -ESTALE);
}

static void directories_count_their_subdirectories(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);

	assert_int_equal(stat_of(&fx, dir).nlink, 2);
	mk(&fx, dir, "a", S_IFDIR | 0755);
	mk(&fx, dir, "b", S_IFDIR | 0755);
	mk(&fx, dir, "c", S_IFREG | 0755);
	assert_int_equal(stat_of(&fx, dir).nlink, 4);
	assert_int_equal(stat_of(&fx, dir).size, 3);
	ok(rmdir_(&fx, dir, "a"));
	assert_int_equal(stat_of(&fx, dir).nlink, 3);
	assert_int_equal(rmdir_(&fx, ROOT, "dir"), -ENOTEMPTY);
	ok(rmdir_(&fx, dir, "b"));
	ok(unlink_(&fx, dir, "c"));
	ok(rmdir_(&fx, ROOT, "dir"));
	assert_int_equal(stat_of(&fx, ROOT).nlink, 2);
	assert_int_equal(stat_of(&fx, dir).nlink, 0); /* the kernel still knows it */
	assert_int_equal(try_mk(&fx, dir, "late", S_IFREG), -ENOENT);
	assert_int_equal(try_look(&fx, dir, "late"), -ENOENT);
	assert_int_equal(try_look(&fx, dir, "."), -ESTALE);
}

static void unlink_and_rmdir_want_the_right_type(void **state)
{
	mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	mk(&fx, ROOT, "file", S_IFREG | 0755);
	assert_int_equal(unlink_(&fx, ROOT, "dir"), -EISDIR);
	assert_int_equal(rmdir_(&fx, ROOT, "file"), -ENOTDIR);
	assert_int_equal(unlink_(&fx, ROOT, "none"), -ENOENT);
	assert_int_equal(rmdir_(&fx, ROOT, "none"), -ENOENT);
}

static void times_move_as_posix_says(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct slu_attr d0 = stat_of(&fx, dir), d1, f0, f1;

	next_tick();
	uint64_t file = mk(&fx, dir, "file", S_IFREG | 0644);
	d1 = stat_of(&fx, dir);
	f0 = stat_of(&fx, file);
	assert_int_equal(time_order(d1.mtime, d0.mtime), 1);
	assert_int_equal(time_order(d1.mtime, d1.ctime), 0);
	assert_int_equal(time_order(d1.mtime, f0.mtime), 0);
	assert_int_equal(time_order(d1.atime, d0.atime), 0);
	assert_int_equal(time_order(d1.btime, d0.btime), 0);

	next_tick();
	ok(try_link(&fx, file, ROOT, "link"));
	f1 = stat_of(&fx, file);
	assert_int_equal(time_order(f1.ctime, f0.ctime), 1);
	assert_int_equal(time_order(f1.mtime, f0.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, dir).mtime, d1.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, ROOT).mtime, f1.ctime), 0);

	next_tick();
	ok(unlink_(&fx, dir, "file"));
	assert_int_equal(time_order(stat_of(&fx, file).ctime, f1.ctime), 1);
	assert_int_equal(time_order(stat_of(&fx, file).mtime, f0.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, dir).mtime, d1.mtime), 1);
}

static void hard_links(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_attr a;

	ok(slu_ns_link(fx.ns, &fx.ctx, file, dir, "second", &a));
	assert_int_equal(a.ino, file);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(look(&fx, dir, "second"), file);
	assert_int_equal(try_link(&fx, file, dir, "second"), -EEXIST);
	assert_int_equal(try_link(&fx, dir, ROOT, "dirlink"), -EPERM);
	assert_int_equal(try_link(&fx, file + 1000, ROOT, "x"), -ENOENT);
	ok(unlink_(&fx, ROOT, "file"));
	assert_int_equal(stat_of(&fx, file).nlink, 1);
	nsfx_remount(&fx);
	assert_int_equal(look(&fx, dir, "second"), file);
	ok(unlink_(&fx, dir, "second"));
	/* gone for good, though the kernel still knows it */
	assert_int_equal(stat_of(&fx, file).nlink, 0);
	assert_int_equal(try_link(&fx, file, ROOT, "again"), -ENOENT);
}

static void links_have_a_limit(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);

	fx.ns->link_max = 3;
	ok(try_link(&fx, file, ROOT, "l2"));
	ok(try_link(&fx, file, ROOT, "l3"));
	assert_int_equal(try_link(&fx, file, ROOT, "l4"), -EMLINK);
	ok(try_mk(&fx, dir, "a", S_IFDIR | 0755));
	assert_int_equal(try_mk(&fx, dir, "b", S_IFDIR | 0755), -EMLINK);
	ok(try_mk(&fx, dir, "b", S_IFREG | 0755));
	mk(&fx, ROOT, "c", S_IFREG | 0755);
	assert_int_equal(rename_(&fx, ROOT, "c", dir, "c", 0), 0);
}

static void symlinks_of_every_length(void **state)
{
	static const size_t lengths[] = {1, 60, 1023, 1024, 1025, 2048, 4095};
	char target[5000], back[5000], name[24];
	struct slu_attr a;

	for (size_t i = 0; i < slu_array_size(lengths); i++) {
		for (size_t j = 0; j < lengths[i]; j++)
			target[j] = (char)('a' + (i + j) % 26);
		target[lengths[i]] = '\0';
		snprintf(name, sizeof(name), "l%zu", i);
		ok(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, name, target, &a));
		assert_int_equal(a.size, lengths[i]);
		assert_int_equal(a.mode, S_IFLNK | 0777);
		if (i % 2)
			nsfx_remount(&fx);
		assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, a.ino, back, sizeof(back)),
				 lengths[i]);
		assert_memory_equal(back, target, lengths[i]);
		/* cut to what there is room for */
		assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, a.ino, back, 1), 1);
	}
	memset(target, 'x', 4096);
	target[4096] = '\0';
	assert_int_equal(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "long", target, &a), -ENAMETOOLONG);
	assert_int_equal(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "none", "", &a), -ENOENT);
	assert_int_equal(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "l1", "x", &a), -EEXIST);
	assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, ROOT, back, 10), -EINVAL);
}

static void setgid_directories_hand_on_their_group(void **state)
{
	struct slu_attr set = {.mode = 02775, .gid = 77}, a;
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);

	ok(slu_ns_setattr(fx.ns, &fx.ctx, dir, &set, SLU_SET_GID, &a));
	ok(slu_ns_setattr(fx.ns, &fx.ctx, dir, &set, SLU_SET_MODE, &a));
	a = stat_of(&fx, mk(&fx, dir, "file", S_IFREG | 0644));
	assert_int_equal(a.gid, 77);
	assert_int_equal(a.mode, S_IFREG | 0644);
	a = stat_of(&fx, mk(&fx, dir, "sub", S_IFDIR | 0755));
	assert_int_equal(a.gid, 77);
	assert_int_equal(a.mode, S_IFDIR | 02755);
	a = stat_of(&fx, mk(&fx, ROOT, "plain", S_IFREG | 0644));
	assert_int_equal(a.gid, 1000);
}

static void the_umask_takes_permissions_and_nothing_else(void **state)
{
	struct slu_attr a;

	fx.ctx.umask = 077;
	ok(slu_ns_mknod(fx.ns, &fx.ctx, ROOT, "f", S_IFREG | 06777, 0, &a));
	assert_int_equal(a.mode, S_IFREG | 06700);
	fx.ctx.umask = 0;
	ok(slu_ns_mknod(fx.ns, &fx.ctx, ROOT, "d", S_IFDIR | 01777, 0, &a));
	assert_int_equal(a.mode, S_IFDIR | 01777);
	fx.ctx.umask = 0777;
	ok(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "l", "x", &a));
	assert_int_equal(a.mode, S_IFLNK | 0777);
}

static void an_unnamed_file_may_be_given_a_name_once(void **state)
{
	struct slu_attr a;
	struct slu_inode *inode;
	struct slu_attr root = stat_of(&fx, ROOT);

	ok(slu_ns_tmpfile(fx.ns, &fx.ctx, ROOT, 0666, &a));
	assert_int_equal(a.nlink, 0);
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(stat_of(&fx, ROOT).size, 0);
	assert_int_equal(time_order(stat_of(&fx, ROOT).mtime, root.mtime), 0);
	assert_int_equal(nsfx_nrecords(&fx, SLU_INO_VOLUME, SLU_REC_ORPHAN), 1);
	ok(slu_inode_get(fx.ns, a.ino, &inode));
	slu_inode_opened(inode);
	slu_inode_put(inode);
	nsfx_reclaim(&fx);

	ok(try_link(&fx, a.ino, ROOT, "named"));
	assert_int_equal(stat_of(&fx, a.ino).nlink, 1);
	assert_int_equal(nsfx_nrecords(&fx, SLU_INO_VOLUME, SLU_REC_ORPHAN), 0);
	ok(unlink_(&fx, ROOT, "named"));
	assert_int_equal(try_link(&fx, a.ino, ROOT, "again"), -ENOENT);
	slu_inode_closed(inode);
	forget_all(&fx, a.ino);
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_nrecords(&fx, a.ino, 0), 0);
	assert_int_equal(nsfx_nrecords(&fx, SLU_INO_VOLUME, SLU_REC_ORPHAN), 0);

	/* with a name it survives */
	ok(slu_ns_tmpfile(fx.ns, &fx.ctx, ROOT, 0666, &a));
	ok(try_link(&fx, a.ino, ROOT, "kept"));
	nsfx_remount(&fx);
	assert_int_equal(look(&fx, ROOT, "kept"), a.ino);
}

static void a_read_only_namespace_changes_nothing(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_attr a;
	struct slu_inode *inode;
	char list[8];

	slu_ns_set_readonly(fx.ns, true);
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(try_mk(&fx, ROOT, "x", S_IFREG), -EROFS);
		assert_int_equal(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "x", "y", &a), -EROFS);
		assert_int_equal(slu_ns_tmpfile(fx.ns, &fx.ctx, ROOT, 0600, &a), -EROFS);
		assert_int_equal(try_link(&fx, file, ROOT, "x"), -EROFS);
		assert_int_equal(unlink_(&fx, ROOT, "file"), -EROFS);
		assert_int_equal(rmdir_(&fx, ROOT, "file"), -EROFS);
		assert_int_equal(rename_(&fx, ROOT, "file", ROOT, "x", 0), -EROFS);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a, SLU_SET_MODE, &a),
				 -EROFS);
		assert_int_equal(slu_ns_setxattr(fx.ns, &fx.ctx, file, "user.x", "y", 1, 0, false),
				 -EROFS);
		assert_int_equal(slu_ns_removexattr(fx.ns, &fx.ctx, file, "user.x"), -EROFS);
		ok(slu_inode_get(fx.ns, file, &inode));
		slu_inode_touch(inode, SLU_TOUCH_MTIME);
		assert_false(inode->attr_dirty);
		slu_inode_put(inode);
		assert_int_equal(look(&fx, ROOT, "file"), file);
		assert_int_equal(slu_ns_listxattr(fx.ns, &fx.ctx, file, list, 8), 0);
		nsfx_unmount(&fx);
		fx.readonly = pass == 0;
		nsfx_mount(&fx);
	}
	ok(unlink_(&fx, ROOT, "file"));
}

static void set_flags(uint64_t ino, uint32_t flags)
{
	struct slu_attr a = {.flags = flags};

	ok(slu_ns_setattr(fx.ns, &fx.ctx, ino, &a, SLU_SET_FLAGS, &a));
	assert_int_equal(a.flags, flags);
}

static void immutable_and_append_only_are_enforced(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	uint64_t file = mk(&fx, dir, "file", S_IFREG | 0644);
	struct slu_attr a = {.mode = 0600};

	/* a directory nothing may change in */
	set_flags(dir, SLU_INODE_IMMUTABLE);
	assert_int_equal(try_mk(&fx, dir, "new", S_IFREG), -EPERM);
	assert_int_equal(try_mk(&fx, dir, "file", S_IFREG), -EEXIST);
	assert_int_equal(slu_ns_tmpfile(fx.ns, &fx.ctx, dir, 0600, &a), -EPERM);
	assert_int_equal(unlink_(&fx, dir, "file"), -EPERM);
	assert_int_equal(rename_(&fx, dir, "file", ROOT, "x", 0), -EPERM);
	assert_int_equal(try_link(&fx, file, dir, "x"), -EPERM);
	assert_int_equal(rename_(&fx, ROOT, "dir", ROOT, "x", 0), -EPERM);
	assert_int_equal(rmdir_(&fx, ROOT, "dir"), -EPERM);
	/* one that may grow only */
	set_flags(dir, SLU_INODE_APPEND);
	ok(try_mk(&fx, dir, "new", S_IFREG));
	ok(try_link(&fx, file, dir, "link"));
	mk(&fx, ROOT, "come", S_IFREG);
	ok(rename_(&fx, ROOT, "come", dir, "come", 0));
	mk(&fx, ROOT, "come", S_IFREG);
	assert_int_equal(rename_(&fx, ROOT, "come", dir, "come", 0), -EPERM);
	assert_int_equal(unlink_(&fx, dir, "new"), -EPERM);
	assert_int_equal(rename_(&fx, dir, "new", ROOT, "x", 0), -EPERM);
	set_flags(dir, 0);
	/* files */
	for (int i = 0; i < 2; i++) {
		set_flags(file, i ? SLU_INODE_APPEND : SLU_INODE_IMMUTABLE);
		assert_int_equal(unlink_(&fx, dir, "file"), -EPERM);
		assert_int_equal(rename_(&fx, dir, "file", ROOT, "x", 0), -EPERM);
		assert_int_equal(rename_(&fx, dir, "new", dir, "file", 0), -EPERM);
		assert_int_equal(rename_(&fx, dir, "new", dir, "file", RENAME_EXCHANGE), -EPERM);
		assert_int_equal(try_link(&fx, file, ROOT, "x"), -EPERM);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a, SLU_SET_MODE, &a),
				 -EPERM);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a, SLU_SET_UID, &a), -EPERM);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a, SLU_SET_MTIME, &a),
				 -EPERM);
		/* One time alone never; both to now where data may be appended. */
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a, SLU_SET_MTIME_NOW, &a),
				 -EPERM);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a,
						SLU_SET_ATIME_NOW | SLU_SET_MTIME_NOW, &a),
				 i ? 0 : -EPERM);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a,
						SLU_SET_ATIME_NOW | SLU_SET_MTIME |
							SLU_SET_MTIME_IS_NOW,
						&a),
				 i ? 0 : -EPERM);
		assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, file, &a,
						SLU_SET_MTIME | SLU_SET_CTIME |
							SLU_SET_TIMES_PASSED,
						&a),
				 0);
		assert_int_equal(slu_ns_setxattr(fx.ns, &fx.ctx, file, "user.x", "y", 1, 0, false),
				 -EPERM);
		assert_int_equal(slu_ns_removexattr(fx.ns, &fx.ctx, file, "user.x"), -EPERM);
	}
	set_flags(file, 0);
	nsfx_remount(&fx);
	ok(unlink_(&fx, dir, "file"));
	a.flags = 1u << 30;
	assert_int_equal(slu_ns_setattr(fx.ns, &fx.ctx, dir, &a, SLU_SET_FLAGS, &a), -EOPNOTSUPP);
}

static void new_inodes_inherit_flags_that_fit_them(void **state)
{
	const uint32_t all = SLU_INODE_SYNC | SLU_INODE_NODUMP | SLU_INODE_NOATIME |
			     SLU_INODE_DIRSYNC | SLU_INODE_APPEND;
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);

	set_flags(dir, all);
	assert_int_equal(stat_of(&fx, mk(&fx, dir, "d", S_IFDIR)).flags, all & ~SLU_INODE_APPEND);
	assert_int_equal(stat_of(&fx, mk(&fx, dir, "f", S_IFREG)).flags,
			 SLU_INODE_SYNC | SLU_INODE_NODUMP | SLU_INODE_NOATIME);
	assert_int_equal(stat_of(&fx, mk(&fx, dir, "p", S_IFIFO)).flags,
			 SLU_INODE_NODUMP | SLU_INODE_NOATIME);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(an_empty_volume_has_a_root),
		CASE(a_new_file_belongs_to_the_caller),
		CASE(every_type_can_be_made_and_survives),
		CASE(names_of_255_bytes_fit_and_no_longer_ones),
		CASE(any_byte_but_nul_and_slash_makes_a_name),
		CASE(dots_are_found_but_never_made_or_removed),
		CASE(operations_on_what_is_not_a_directory),
		CASE(numbers_that_were_used_are_stale_and_others_unknown),
		CASE(directories_count_their_subdirectories),
		CASE(unlink_and_rmdir_want_the_right_type),
		CASE(times_move_as_posix_says),
		CASE(hard_links),
		CASE(links_have_a_limit),
		CASE(symlinks_of_every_length),
		CASE(setgid_directories_hand_on_their_group),
		CASE(the_umask_takes_permissions_and_nothing_else),
		CASE(an_unnamed_file_may_be_given_a_name_once),
		CASE(a_read_only_namespace_changes_nothing),
		CASE(immutable_and_append_only_are_enforced),
		CASE(new_inodes_inherit_flags_that_fit_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
