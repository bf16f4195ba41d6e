/* SPDX-License-Identifier: MIT */
/*
 * Extended attributes of every size, their limits, and POSIX ACLs: the tables say what the kernel's
 * ext4 does.
 */
#include "namespace_fixture.h"

static struct nsfx fx;

static int setup(void **state)
{
	nsfx_init(&fx, 32768);
	return 0;
}

static int teardown(void **state)
{
	nsfx_fini(&fx);
	return 0;
}

static int setx(uint64_t ino, const char *name, const void *value, size_t size, int flags)
{
	return slu_ns_setxattr(fx.ns, &fx.ctx, ino, name, value, size, flags, false);
}

static ssize_t getx(uint64_t ino, const char *name, void *value, size_t size)
{
	return slu_ns_getxattr(fx.ns, &fx.ctx, ino, name, value, size);
}

static void fill(uint8_t *buf, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(seed + i * 7 + i / 256);
}

static void values_of_every_size_replace_each_other(void **state)
{
	static const size_t sizes[] = {0,    1,    1000, 1008,  1009,  1010, 1024,
				       1025, 2048, 5000, 16383, 65535, 65536};
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint8_t *value = malloc(70000), *back = malloc(70000);
	unsigned int n = slu_array_size(sizes);

	for (unsigned int a = 0; a < n; a++) {
		for (unsigned int b = 0; b < n; b++) {
			for (unsigned int i = 0; i < 2; i++) {
				size_t len = sizes[i ? b : a];

				fill(value, len, a * 50 + b + i);
				ok(setx(file, "user.x", value, len, 0));
				assert_int_equal(getx(file, "user.x", NULL, 0), len);
				assert_int_equal(getx(file, "user.x", back, 70000), len);
				assert_memory_equal(value, back, len);
				if (len)
					assert_int_equal(getx(file, "user.x", back, len - 1),
							 len == 1 ? 1 : -ERANGE);
				assert_int_equal(stat_of(&fx, file).nxattr, 1);
			}
		}
		nsfx_remount(&fx);
		assert_int_equal(getx(file, "user.x", back, 70000), sizes[n - 1]);
		assert_memory_equal(value, back, sizes[n - 1]);
	}
	/* nothing is left of values that are gone: the record and 64 parts */
	assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_XATTR_PART), 64);
	ok(setx(file, "user.x", "small", 5, 0));
	assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_XATTR_PART), 0);
	ok(slu_ns_removexattr(fx.ns, &fx.ctx, file, "user.x"));
	assert_int_equal(nsfx_nrecords(&fx, file, 0), 1);
	assert_int_equal(stat_of(&fx, file).nxattr, 0);
	assert_int_equal(getx(file, "user.x", back, 70000), -ENODATA);
	assert_int_equal(setx(file, "user.x", value, 65537, 0), -E2BIG);
	free(value);
	free(back);
}

static void several_great_values_keep_apart(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint8_t value[4][3000], back[3000];
	char name[24];

	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 4; i++) {
			snprintf(name, sizeof(name), "user.%u", i);
			fill(value[i], 3000, i * 31 + round);
			ok(setx(file, name, value[i], 3000, 0));
		}
		snprintf(name, sizeof(name), "user.%u", round);
		ok(slu_ns_removexattr(fx.ns, &fx.ctx, file, name));
		ok(setx(file, name, value[round], 3000, 0));
		nsfx_remount(&fx);
		for (unsigned int i = 0; i < 4; i++) {
			snprintf(name, sizeof(name), "user.%u", i);
			assert_int_equal(getx(file, name, back, 3000), 3000);
			assert_memory_equal(back, value[i], 3000);
		}
	}
	assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_XATTR_PART), 12);
}

static void part_numbers_do_not_run_out(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_key key = SLU_KEY(file, SLU_REC_XATTR_PART, (uint64_t)UINT32_MAX << 8);
	uint8_t value[3000], back[3000];

	nsfx_poke(&fx, &key, "taken", 5);
	fill(value, 3000, 3);
	ok(setx(file, "user.a", value, 3000, 0));
	ok(setx(file, "user.b", value, 3000, 0));
	ok(setx(file, "user.b", value, 2000, 0));
	assert_int_equal(getx(file, "user.a", back, 3000), 3000);
	assert_memory_equal(back, value, 3000);
	assert_int_equal(getx(file, "user.b", back, 3000), 2000);
}

static void create_and_replace_mean_it(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	struct slu_attr before, after;
	char back[8];

	assert_int_equal(setx(file, "user.x", "1", 1, XATTR_REPLACE), -ENODATA);
	ok(setx(file, "user.x", "1", 1, XATTR_CREATE));
	assert_int_equal(setx(file, "user.x", "2", 1, XATTR_CREATE), -EEXIST);
	before = stat_of(&fx, file);
	next_tick();
	ok(setx(file, "user.x", "3", 1, XATTR_REPLACE));
	after = stat_of(&fx, file);
	assert_int_equal(time_order(after.ctime, before.ctime), 1);
	assert_int_equal(time_order(after.mtime, before.mtime), 0);
	assert_int_equal(getx(file, "user.x", back, 8), 1);
	assert_int_equal(back[0], '3');
	assert_int_equal(setx(file, "user.x", "4", 1, 4), -EINVAL);
	assert_int_equal(slu_ns_removexattr(fx.ns, &fx.ctx, file, "user.y"), -ENODATA);
}

static void names_that_are_taken_and_names_that_are_not(void **state)
{
	static const struct {
		const char *name;
		int err;
	} table[] = {
		{"user.x", 0},
		{"trusted.x", 0},
		{"security.x", 0},
		{"user.", -EINVAL},
		{"trusted.", -EINVAL},
		{"system.x", -EOPNOTSUPP},
		{"x", -EOPNOTSUPP},
		{"", -EOPNOTSUPP},
		{"User.x", -EOPNOTSUPP},
		{"userx", -EOPNOTSUPP},
		{"system.posix_acl_accessx", -EOPNOTSUPP},
	};
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	char name[300], back[8];

	for (size_t i = 0; i < slu_array_size(table); i++) {
		assert_int_equal(setx(file, table[i].name, "v", 1, 0), table[i].err);
		assert_int_equal(getx(file, table[i].name, back, 8),
				 table[i].err ? table[i].err : 1);
		assert_int_equal(slu_ns_removexattr(fx.ns, &fx.ctx, file, table[i].name),
				 table[i].err);
	}
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[255] = '\0';
	ok(setx(file, name, "v", 1, 0));
	assert_int_equal(getx(file, name, back, 8), 1);
	name[255] = 'n';
	name[256] = '\0';
	assert_int_equal(setx(file, name, "v", 1, 0), -ERANGE);
	/* compared exactly */
	ok(setx(file, "user.Case", "1", 1, 0));
	assert_int_equal(getx(file, "user.case", back, 8), -ENODATA);
	assert_int_equal(getx(file, "user.Cas", back, 8), -ENODATA);
	assert_int_equal(getx(file + 100, "user.x", back, 8), -ENOENT);
}

static void lists_hold_every_name_once(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	char list[4096] = {0}, name[24];
	uint8_t seen[100] = {0};
	ssize_t len;

	assert_int_equal(slu_ns_listxattr(fx.ns, &fx.ctx, file, list, sizeof(list)), 0);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "user.%d", i);
		ok(setx(file, name, list, (size_t)i, 0));
	}
	len = slu_ns_listxattr(fx.ns, &fx.ctx, file, NULL, 0);
	assert_int_equal(len, 10 * 7 + 90 * 8);
	assert_int_equal(slu_ns_listxattr(fx.ns, &fx.ctx, file, list, (size_t)len - 1), -ERANGE);
	assert_int_equal(slu_ns_listxattr(fx.ns, &fx.ctx, file, list, (size_t)len), len);
	for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1)
		seen[atoi(list + at + 5)]++;
	for (int i = 0; i < 100; i++)
		assert_int_equal(seen[i], 1);
}

static void as_many_as_a_list_can_show(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	char *list = malloc(70000), name[256];
	int i = 0, err;

	/* 128 bytes each with the NUL: 512 of them fill 64 KiB */
	for (;; i++) {
		snprintf(name, sizeof(name), "user.%0122d", i);
		err = setx(file, name, "v", 1, 0);
		if (err)
			break;
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(i, 512);
	assert_int_equal(slu_ns_listxattr(fx.ns, &fx.ctx, file, list, 70000), 65536);
	assert_int_equal(setx(file, "user.y", "v", 1, 0), -ENOSPC);
	/* what is there can still be changed, and removing makes room */
	snprintf(name, sizeof(name), "user.%0122d", 5);
	ok(setx(file, name, "w", 1, 0));
	ok(slu_ns_removexattr(fx.ns, &fx.ctx, file, name));
	ok(setx(file, "user.y", "v", 1, 0));
	free(list);
}

static void names_with_equal_hashes(void **state)
{
	char name[24], value[16];
	uint64_t file;

	nsfx_unmount(&fx);
	fx.hash_mask = 1;
	nsfx_mount(&fx);
	file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	for (int i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "user.%d", i);
		ok(setx(file, name, name, strlen(name), 0));
	}
	for (int i = 0; i < 30; i += 3) {
		snprintf(name, sizeof(name), "user.%d", i);
		ok(slu_ns_removexattr(fx.ns, &fx.ctx, file, name));
	}
	nsfx_remount(&fx);
	ok(setx(file, "user.new", "user.new", 8, 0));
	for (int i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "user.%d", i);
		if (i % 3 == 0) {
			assert_int_equal(getx(file, name, value, 16), -ENODATA);
			continue;
		}
		assert_int_equal(getx(file, name, value, 16), strlen(name));
		assert_memory_equal(value, name, strlen(name));
	}
	assert_int_equal(stat_of(&fx, file).nxattr, 21);
	fx.hash_mask = 0;
}

static void damaged_attributes_are_errors(void **state)
{
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0644);
	uint8_t value[3000], back[3000];
	struct ns_xattr x;

	fill(value, 3000, 1);
	ok(setx(file, "user.big", value, 3000, 0));
	ok(setx(file, "user.small", value, 10, 0));
	/* a part too short, a part missing */
	struct slu_key key = SLU_KEY(file, SLU_REC_XATTR_PART, 1);
	nsfx_poke(&fx, &key, value, 1000);
	assert_int_equal(getx(file, "user.big", back, 3000), -EIO);
	nsfx_poke(&fx, &key, NULL, 0);
	assert_int_equal(getx(file, "user.big", back, 3000), -EIO);
	nsfx_poke(&fx, &key, value + 1024, 1024);
	assert_int_equal(getx(file, "user.big", back, 3000), 3000);
	/* a record that lies about its lengths is no attribute */
	ok(xattr_find(fx.ns, file, "user.small", &x, NULL));
	uint8_t record[64] = {0};
	struct slu_disk_xattr *d = (struct slu_disk_xattr *)record;
	key = SLU_KEY(file, SLU_REC_XATTR, x.off);
	memcpy(record + 10, "user.small", 10);
	d->name_len = 10;
	slu_put_le32(&d->value_len, 11);
	nsfx_poke(&fx, &key, record, 30);
	assert_int_equal(getx(file, "user.small", back, 3000), -ENODATA);
	slu_put_le32(&d->value_len, 10);
	d->flags = 2;
	nsfx_poke(&fx, &key, record, 30);
	assert_int_equal(getx(file, "user.small", back, 3000), -ENODATA);
	d->flags = 0;
	d->name_len = 200;
	nsfx_poke(&fx, &key, record, 30);
	assert_int_equal(getx(file, "user.small", back, 3000), -ENODATA);
	assert_int_equal(slu_ns_listxattr(fx.ns, &fx.ctx, file, (char *)back, 3000), 9);
	nsfx_poke(&fx, &key, record, 5);
	assert_int_equal(getx(file, "user.small", back, 3000), -ENODATA);
}

/* ------------------------------------------------------------------ ACLs */

enum { UO = 1, U = 2, GO = 4, G = 8, M = 16, O = 32 };
struct ent {
	unsigned int tag, perm;
	uint32_t id;
};
struct acl {
	unsigned int n;
	struct ent e[8];
};

static size_t blob(const struct acl *acl, uint8_t *buf)
{
	slu_put_le32(buf, 2);
	for (unsigned int i = 0; i < acl->n; i++) {
		uint8_t *e = buf + 4 + 8 * i;

		slu_put_le16(e, (uint16_t)acl->e[i].tag);
		slu_put_le16(e + 2, (uint16_t)acl->e[i].perm);
		slu_put_le32(e + 4, acl->e[i].tag & (U | G) ? acl->e[i].id : UINT32_MAX);
	}
	return 4 + 8 * (size_t)acl->n;
}

static int set_acl(uint64_t ino, const char *name, const struct acl *acl, bool kill_sgid)
{
	uint8_t buf[128];
	size_t len = blob(acl, buf);

	return slu_ns_setxattr(fx.ns, &fx.ctx, ino, name, buf, len, 0, kill_sgid);
}

/* n 0: there is none. */
static void check_acl(uint64_t ino, const char *name, const struct acl *acl)
{
	uint8_t want[128], have[128];
	size_t len = blob(acl, want);
	ssize_t got = getx(ino, name, have, sizeof(have));

	if (acl->n == 0) {
		assert_int_equal(got, -ENODATA);
		return;
	}
	assert_int_equal(got, len);
	assert_memory_equal(want, have, len);
}

static const struct acl none = {0};

static void an_access_acl_sets_the_mode(void **state)
{
	static const struct {
		mode_t before, after;
		struct acl acl;
		bool stored, kill_sgid;
	} table[] = {
		/* says no more than a mode: is not kept */
		{0600, 0754, {3, {{UO, 7}, {GO, 5}, {O, 4}}}, false, false},
		{06777, 06754, {3, {{UO, 7}, {GO, 5}, {O, 4}}}, false, false},
		{06777, 04754, {3, {{UO, 7}, {GO, 5}, {O, 4}}}, false, true},
		/* the mask is what the group bits show */
		{0600, 0640, {4, {{UO, 6}, {GO, 6}, {M, 4}, {O, 0}}}, true, false},
		{0600, 0670, {5, {{UO, 6}, {U, 7, 1001}, {GO, 4}, {M, 7}, {O, 0}}}, true, false},
		{02600,
		 0670,
		 {6, {{UO, 6}, {U, 7, 1001}, {GO, 4}, {G, 1, 50}, {M, 7}, {O, 0}}},
		 true,
		 true},
	};
	char name[24];

	for (size_t i = 0; i < slu_array_size(table); i++) {
		snprintf(name, sizeof(name), "%zu", i);
		uint64_t ino = mk(&fx, ROOT, name, S_IFREG | 0600);
		struct slu_attr a = {.mode = table[i].before};

		ok(slu_ns_setattr(fx.ns, &fx.ctx, ino, &a, SLU_SET_MODE, &a));
		ok(set_acl(ino, NS_ACL_ACCESS, &table[i].acl, table[i].kill_sgid));
		for (int pass = 0; pass < 2; pass++) {
			assert_int_equal(stat_of(&fx, ino).mode, S_IFREG | table[i].after);
			check_acl(ino, NS_ACL_ACCESS, table[i].stored ? &table[i].acl : &none);
			assert_int_equal(stat_of(&fx, ino).nxattr, table[i].stored);
			nsfx_remount(&fx);
		}
		/* an empty one takes it away and leaves the mode */
		ok(set_acl(ino, NS_ACL_ACCESS, &none, false));
		check_acl(ino, NS_ACL_ACCESS, &none);
		assert_int_equal(stat_of(&fx, ino).mode, S_IFREG | table[i].after);
		ok(setx(ino, NS_ACL_ACCESS, NULL, 0, 0));
		ok(slu_ns_removexattr(fx.ns, &fx.ctx, ino, NS_ACL_ACCESS));
	}
}

static void a_lesser_acl_replaces_a_greater_one(void **state)
{
	static const struct acl big = {5, {{UO, 6}, {U, 7, 1}, {GO, 4}, {M, 7}, {O, 0}}};
	static const struct acl small = {3, {{UO, 7}, {GO, 5}, {O, 4}}};
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0600);

	ok(set_acl(file, NS_ACL_ACCESS, &big, false));
	assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_XATTR), 1);
	ok(set_acl(file, NS_ACL_ACCESS, &small, false));
	assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_XATTR), 0);
	assert_int_equal(stat_of(&fx, file).mode, S_IFREG | 0754);
}

static void chmod_and_the_access_acl_agree(void **state)
{
	static const struct acl with_mask = {5, {{UO, 6}, {U, 7, 1}, {GO, 4}, {M, 7}, {O, 0}}};
	static const struct acl after_mask = {5, {{UO, 5}, {U, 7, 1}, {GO, 4}, {M, 1}, {O, 3}}};
	static const struct acl no_names = {4, {{UO, 6}, {GO, 4}, {M, 7}, {O, 0}}};
	static const struct acl after_no_names = {4, {{UO, 5}, {GO, 4}, {M, 1}, {O, 3}}};
	uint64_t a = mk(&fx, ROOT, "a", S_IFREG | 0600), b = mk(&fx, ROOT, "b", S_IFREG | 0600);
	struct slu_attr attr = {.mode = 0513};

	ok(set_acl(a, NS_ACL_ACCESS, &with_mask, false));
	ok(set_acl(b, NS_ACL_ACCESS, &no_names, false));
	ok(slu_ns_setattr(fx.ns, &fx.ctx, a, &attr, SLU_SET_MODE, &attr));
	assert_int_equal(attr.mode, S_IFREG | 0513);
	ok(slu_ns_setattr(fx.ns, &fx.ctx, b, &attr, SLU_SET_MODE, &attr));
	nsfx_remount(&fx);
	check_acl(a, NS_ACL_ACCESS, &after_mask);
	check_acl(b, NS_ACL_ACCESS, &after_no_names);
	assert_int_equal(stat_of(&fx, b).mode, S_IFREG | 0513);
}

static void invalid_acls_are_refused(void **state)
{
	static const struct acl bad[] = {
		{1, {{UO, 7}}},
		{2, {{UO, 7}, {GO, 7}}},
		{2, {{UO, 7}, {O, 7}}},
		{3, {{GO, 7}, {UO, 7}, {O, 7}}},
		{4, {{UO, 7}, {UO, 7}, {GO, 7}, {O, 7}}},
		{4, {{UO, 7}, {U, 7, 1}, {GO, 7}, {O, 7}}}, /* a mask is missing */
		{4, {{UO, 7}, {GO, 7}, {G, 7, 1}, {O, 7}}},
		{5, {{UO, 7}, {GO, 7}, {M, 7}, {M, 7}, {O, 7}}},
		{4, {{UO, 7}, {GO, 7}, {O, 7}, {M, 7}}},
		{4, {{UO, 7}, {GO, 7}, {O, 7}, {O, 7}}},
		{5, {{UO, 7}, {GO, 7}, {M, 7}, {G, 7, 1}, {O, 7}}},
		{3, {{UO, 8}, {GO, 7}, {O, 7}}},
		{3, {{UO, 7}, {GO, 7}, {64, 7}}},
		{5, {{UO, 7}, {U, 7, UINT32_MAX}, {GO, 7}, {M, 7}, {O, 7}}},
	};
	static const struct acl good = {3, {{UO, 7}, {GO, 5}, {O, 4}}};
	uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0600), dir = mk(&fx, ROOT, "d", S_IFDIR);
	uint8_t buf[128], *huge;
	struct slu_attr a;
	size_t len;

	for (size_t i = 0; i < slu_array_size(bad); i++) {
		assert_int_equal(set_acl(file, NS_ACL_ACCESS, &bad[i], false), -EINVAL);
		assert_int_equal(set_acl(dir, NS_ACL_DEFAULT, &bad[i], false), -EINVAL);
	}
	len = blob(&good, buf);
	assert_int_equal(setx(file, NS_ACL_ACCESS, buf, len - 1, 0), -EINVAL);
	assert_int_equal(setx(file, NS_ACL_ACCESS, buf, 3, 0), -EINVAL);
	buf[0] = 1;
	assert_int_equal(setx(file, NS_ACL_ACCESS, buf, len, 0), -EOPNOTSUPP);
	assert_int_equal(stat_of(&fx, file).mode, S_IFREG | 0600);
	/* where they do not belong */
	assert_int_equal(set_acl(file, NS_ACL_DEFAULT, &good, false), -EACCES);
	ok(set_acl(file, NS_ACL_DEFAULT, &none, false));
	ok(slu_ns_symlink(fx.ns, &fx.ctx, ROOT, "l", "x", &a));
	assert_int_equal(set_acl(a.ino, NS_ACL_ACCESS, &good, false), -EOPNOTSUPP);
	/* more entries than a new inode could be given */
	huge = calloc(1, 65536);
	slu_put_le32(huge, 2);
	for (unsigned int i = 0; i < 8000; i++) {
		uint8_t *e = huge + 4 + 8 * i;

		slu_put_le16(e, i == 0 ? UO : i == 7997 ? GO : i == 7998 ? M : i == 7999 ? O : U);
		slu_put_le16(e + 2, 7);
		slu_put_le32(e + 4, i);
	}
	assert_int_equal(setx(dir, NS_ACL_DEFAULT, huge, 4 + 8 * 8000, 0), -ENOSPC);
	free(huge);
}

/*
 * What ext4 makes of mkdir, open and mknod in a directory with a default ACL; the umask is 077
 * throughout.
 */
static void default_acls_are_inherited(void **state)
{
	static const struct {
		struct acl dflt;
		mode_t asked, got;
		struct acl access; /* none: the mode says it all */
	} table[] = {
		{{3, {{UO, 7}, {GO, 5}, {O, 5}}}, 0666, 0644, {0}},
		{{3, {{UO, 7}, {GO, 7}, {O, 7}}}, 0666, 0666, {0}},
		{{3, {{UO, 6}, {GO, 0}, {O, 0}}}, 0777, 0600, {0}},
		{{4, {{UO, 7}, {GO, 7}, {M, 5}, {O, 0}}},
		 0666,
		 0640,
		 {4, {{UO, 6}, {GO, 7}, {M, 4}, {O, 0}}}},
		{{5, {{UO, 7}, {U, 7, 42}, {GO, 5}, {M, 7}, {O, 5}}},
		 0644,
		 0644,
		 {5, {{UO, 6}, {U, 7, 42}, {GO, 5}, {M, 4}, {O, 4}}}},
		{{5, {{UO, 7}, {U, 7, 42}, {GO, 5}, {M, 7}, {O, 5}}},
		 0777,
		 0775,
		 {5, {{UO, 7}, {U, 7, 42}, {GO, 5}, {M, 7}, {O, 5}}}},
		{{6, {{UO, 6}, {U, 6, 42}, {GO, 4}, {G, 7, 9}, {M, 6}, {O, 0}}},
		 04711,
		 04600,
		 {6, {{UO, 6}, {U, 6, 42}, {GO, 4}, {G, 7, 9}, {M, 0}, {O, 0}}}},
	};
	static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFIFO};
	struct slu_attr a;
	char name[24];

	fx.ctx.umask = 077;
	for (size_t i = 0; i < slu_array_size(table); i++) {
		snprintf(name, sizeof(name), "%zu", i);
		uint64_t dir = mk(&fx, ROOT, name, S_IFDIR | 0700);
		mode_t got = table[i].got;

		ok(set_acl(dir, NS_ACL_DEFAULT, &table[i].dflt, false));
		assert_int_equal(stat_of(&fx, dir).mode, S_IFDIR | 0700);
		for (size_t t = 0; t < slu_array_size(types); t++) {
			snprintf(name, sizeof(name), "t%zu", t);
			uint64_t ino = mk(&fx, dir, name, types[t] | table[i].asked);

			for (int pass = 0; pass < 2; pass++) {
				a = stat_of(&fx, ino);
				assert_int_equal(a.mode, types[t] | got);
				check_acl(ino, NS_ACL_ACCESS, &table[i].access);
				check_acl(ino, NS_ACL_DEFAULT,
					  types[t] == S_IFDIR ? &table[i].dflt : &none);
				assert_int_equal(a.nxattr,
						 (table[i].access.n > 0) + (types[t] == S_IFDIR));
				nsfx_remount(&fx);
			}
		}
		ok(slu_ns_tmpfile(fx.ns, &fx.ctx, dir, table[i].asked, &a));
		assert_int_equal(a.mode, S_IFREG | got);
		check_acl(a.ino, NS_ACL_ACCESS, &table[i].access);
		ok(slu_ns_symlink(fx.ns, &fx.ctx, dir, "l", "x", &a));
		assert_int_equal(a.mode, S_IFLNK | 0777);
		assert_int_equal(a.nxattr, 0);
	}
}

static void great_acls_are_inherited_whole(void **state)
{
	/* 2,000 entries: 16,004 bytes, in 16 parts, twice */
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755), sub;
	uint8_t *acl = calloc(1, 16004), *back = malloc(16004);

	slu_put_le32(acl, 2);
	for (unsigned int i = 0; i < 2000; i++) {
		uint8_t *e = acl + 4 + 8 * i;

		slu_put_le16(e, i == 0 ? UO : i == 1997 ? GO : i == 1998 ? M : i == 1999 ? O : U);
		slu_put_le16(e + 2, 7);
		slu_put_le32(e + 4, i);
	}
	ok(setx(dir, NS_ACL_DEFAULT, acl, 16004, 0));
	sub = mk(&fx, dir, "sub", S_IFDIR | 0777);
	nsfx_remount(&fx);
	assert_int_equal(getx(sub, NS_ACL_DEFAULT, back, 16004), 16004);
	assert_memory_equal(acl, back, 16004);
	assert_int_equal(getx(sub, NS_ACL_ACCESS, back, 16004), 16004);
	assert_memory_equal(acl, back, 16004);
	free(acl);
	free(back);
}

static void default_acls_with_equal_hashes(void **state)
{
	static const struct acl dflt = {5, {{UO, 7}, {U, 7, 42}, {GO, 5}, {M, 7}, {O, 5}}};

	nsfx_unmount(&fx);
	fx.hash_mask = 1;
	nsfx_mount(&fx);
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);

	ok(set_acl(dir, NS_ACL_DEFAULT, &dflt, false));
	uint64_t sub = mk(&fx, dir, "sub", S_IFDIR | 0777);
	check_acl(sub, NS_ACL_DEFAULT, &dflt);
	check_acl(sub, NS_ACL_ACCESS, &dflt);
	assert_int_equal(stat_of(&fx, sub).nxattr, 2);
	fx.hash_mask = 0;
}

static void a_damaged_default_acl_stops_creation(void **state)
{
	static const struct acl dflt = {3, {{UO, 7}, {GO, 5}, {O, 5}}};
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct ns_xattr x;
	uint8_t record[128];
	struct slu_key key;
	int len;

	ok(set_acl(dir, NS_ACL_DEFAULT, &dflt, false));
	ok(xattr_find(fx.ns, dir, NS_ACL_DEFAULT, &x, NULL));
	key = SLU_KEY(dir, SLU_REC_XATTR, x.off);
	len = slu_store_get(fx.store, &key, record, sizeof(record), NULL);
	record[len - 8] = 99; /* the last tag */
	nsfx_poke(&fx, &key, record, (size_t)len);
	assert_int_equal(try_mk(&fx, dir, "f", S_IFREG | 0644), -EIO);
	assert_int_equal(try_look(&fx, dir, "f"), -ENOENT);
	ok(slu_ns_removexattr(fx.ns, &fx.ctx, dir, NS_ACL_DEFAULT));
	ok(try_mk(&fx, dir, "f", S_IFREG | 0644));
}

/* Makes an attribute whose value is in parts though it would fit into its record. */
static void put_in_parts(uint64_t ino, const char *name, const void *value, size_t len)
{
	size_t name_len = strlen(name);
	uint8_t record[SLU_VALUE_MAX] = {0};
	struct slu_disk_xattr *d = (struct slu_disk_xattr *)record;
	struct slu_key key = SLU_KEY(ino, SLU_REC_XATTR, ns_hash(fx.ns, name, name_len) << 16);
	struct slu_key part = SLU_KEY(ino, SLU_REC_XATTR_PART, 5 << 8);

	d->flags = 1;
	d->name_len = (uint8_t)name_len;
	slu_put_le32(&d->value_len, (uint32_t)len);
	slu_put_le32(&d->part_id, 5);
	memcpy(record + sizeof(*d), name, name_len);
	nsfx_poke(&fx, &key, record, sizeof(*d) + name_len);
	nsfx_poke(&fx, &part, value, len);
}

/* The format allows it, and somebody else may have made the volume. */
static void short_values_in_parts_can_be_changed(void **state)
{
	static const struct acl acl = {5, {{UO, 6}, {U, 7, 1}, {GO, 4}, {M, 7}, {O, 0}}};
	static const struct acl after = {5, {{UO, 6}, {U, 7, 1}, {GO, 4}, {M, 4}, {O, 0}}};
	struct slu_attr attr = {.mode = 0640}, ret;
	uint8_t buf[64], caps[20] = {0};
	size_t len = blob(&acl, buf);

	for (unsigned int i = 0; i < 4; i++) {
		uint64_t file = mk(&fx, ROOT, "file", S_IFREG | 0600);

		/* so that the inode says that there are some */
		ok(setx(file, NS_ACL_ACCESS, buf, len, 0));
		ok(setx(file, NS_XATTR_CAPS, caps, sizeof(caps), 0));
		put_in_parts(file, NS_ACL_ACCESS, buf, len);
		if (i == 0) {
			ok(slu_ns_setattr(fx.ns, &fx.ctx, file, &attr, SLU_SET_MODE, &ret));
			check_acl(file, NS_ACL_ACCESS, &after);
		} else if (i == 1) {
			ok(setx(file, NS_ACL_ACCESS, buf, len, 0));
			check_acl(file, NS_ACL_ACCESS, &acl);
		} else if (i == 2) {
			ok(slu_ns_removexattr(fx.ns, &fx.ctx, file, NS_ACL_ACCESS));
			check_acl(file, NS_ACL_ACCESS, &none);
		} else {
			ok(slu_ns_removexattr(fx.ns, &fx.ctx, file, NS_ACL_ACCESS));
			put_in_parts(file, NS_XATTR_CAPS, caps, sizeof(caps));
			ok(slu_ns_setattr(fx.ns, &fx.ctx, file, &attr, SLU_SET_KILL_PRIV, &ret));
			assert_int_equal(getx(file, NS_XATTR_CAPS, NULL, 0), -ENODATA);
		}
		assert_int_equal(nsfx_nrecords(&fx, file, SLU_REC_XATTR_PART), 0);
		ok(unlink_(&fx, ROOT, "file"));
	}
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(values_of_every_size_replace_each_other),
		CASE(several_great_values_keep_apart),
		CASE(part_numbers_do_not_run_out),
		CASE(create_and_replace_mean_it),
		CASE(names_that_are_taken_and_names_that_are_not),
		CASE(lists_hold_every_name_once),
		CASE(as_many_as_a_list_can_show),
		CASE(names_with_equal_hashes),
		CASE(damaged_attributes_are_errors),
		CASE(short_values_in_parts_can_be_changed),
		CASE(an_access_acl_sets_the_mode),
		CASE(a_lesser_acl_replaces_a_greater_one),
		CASE(chmod_and_the_access_acl_agree),
		CASE(invalid_acls_are_refused),
		CASE(default_acls_are_inherited),
		CASE(great_acls_are_inherited_whole),
		CASE(default_acls_with_equal_hashes),
		CASE(a_damaged_default_acl_stops_creation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
