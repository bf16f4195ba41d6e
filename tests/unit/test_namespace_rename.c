/* SPDX-License-Identifier: MIT */
/*
 * rename in all its forms: what is replaced by what under which flags, link counts, parents, times,
 * and that no directory ends up below itself.
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

enum kind { MISSING, FILE_, LINK_, DIR_, FULL_DIR, NKINDS };

static uint64_t make_kind(uint64_t parent, const char *name, enum kind kind)
{
	struct slu_attr a;
	uint64_t ino;

	switch (kind) {
	case MISSING:
		return 0;
	case FILE_:
		return mk(&fx, parent, name, S_IFREG | 0644);
	case LINK_:
		ok(slu_ns_symlink(fx.ns, &fx.ctx, parent, name, "target", &a));
		return a.ino;
	default:
		ino = mk(&fx, parent, name, S_IFDIR | 0755);
		if (kind == FULL_DIR)
			mk(&fx, ino, "inside", S_IFREG | 0644);
		return ino;
	}
}

static bool kind_is_dir(enum kind kind)
{
	return kind == DIR_ || kind == FULL_DIR;
}

/* What rename(2) and renameat2(2) say. */
static int expected(enum kind from, enum kind to, unsigned int flags)
{
	if (from == MISSING)
		return -ENOENT;
	if (flags == RENAME_EXCHANGE)
		return to == MISSING ? -ENOENT : 0;
	if (to == MISSING)
		return 0;
	if (flags == RENAME_NOREPLACE)
		return -EEXIST;
	if (kind_is_dir(from))
		return !kind_is_dir(to) ? -ENOTDIR : to == FULL_DIR ? -ENOTEMPTY : 0;
	return kind_is_dir(to) ? -EISDIR : 0;
}

static void check_parent(uint64_t dir, uint64_t ino, enum kind kind)
{
	if (!kind_is_dir(kind))
		return;
	assert_int_equal(look(&fx, ino, ".."), dir);
	assert_int_equal(stat_of(&fx, ino).parent, dir);
}

static void one_case(enum kind from, enum kind to, unsigned int flags, bool same_dir)
{
	uint64_t d1 = mk(&fx, ROOT, "d1", S_IFDIR | 0755);
	uint64_t d2 = same_dir ? d1 : mk(&fx, ROOT, "d2", S_IFDIR | 0755);
	uint64_t a = make_kind(d1, "a", from), b = make_kind(d2, "b", to);
	int want = expected(from, to, flags);
	struct slu_attr p1, p2;
	bool exchange = flags == RENAME_EXCHANGE;
	enum kind at_a, at_b;

	assert_int_equal(rename_(&fx, d1, "a", d2, "b", flags), want);
	for (int pass = 0; pass < 2; pass++) {
		at_a = want ? from : exchange ? to : MISSING;
		at_b = want ? to : from;
		if (at_a == MISSING)
			assert_int_equal(try_look(&fx, d1, "a"), -ENOENT);
		else
			assert_int_equal(look(&fx, d1, "a"), want ? a : b);
		if (at_b == MISSING)
			assert_int_equal(try_look(&fx, d2, "b"), -ENOENT);
		else
			assert_int_equal(look(&fx, d2, "b"), want ? b : a);
		check_parent(d1, want ? a : b, at_a);
		check_parent(d2, want ? b : a, at_b);
		p1 = stat_of(&fx, d1);
		p2 = stat_of(&fx, d2);
		if (same_dir) {
			assert_int_equal(p1.size, (at_a != MISSING) + (at_b != MISSING));
			assert_int_equal(p1.nlink, 2 + kind_is_dir(at_a) + kind_is_dir(at_b));
		} else {
			assert_int_equal(p1.size, at_a != MISSING);
			assert_int_equal(p2.size, at_b != MISSING);
			assert_int_equal(p1.nlink, 2 + kind_is_dir(at_a));
			assert_int_equal(p2.nlink, 2 + kind_is_dir(at_b));
		}
		if (!want && !exchange && to != MISSING && !pass)
			assert_int_equal(stat_of(&fx, b).nlink, 0);
		if (!pass)
			nsfx_remount(&fx);
	}
}

static void clear(uint64_t dir, const char *name)
{
	struct slu_attr a;

	if (slu_ns_lookup(fx.ns, &fx.ctx, dir, name, &a))
		return;
	if (!S_ISDIR(a.mode)) {
		ok(unlink_(&fx, dir, name));
	} else {
		clear(a.ino, "a");
		clear(a.ino, "b");
		clear(a.ino, "inside");
		ok(rmdir_(&fx, dir, name));
	}
	forget_all(&fx, a.ino);
}

static void every_kind_over_every_kind(void **state)
{
	static const unsigned int flags[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE};

	for (int from = MISSING; from < NKINDS; from++) {
		for (int to = MISSING; to < NKINDS; to++) {
			for (size_t f = 0; f < 3; f++) {
				for (int same = 0; same < 2; same++) {
					one_case((enum kind)from, (enum kind)to, flags[f], same);
					clear(ROOT, "d1");
					clear(ROOT, "d2");
				}
			}
		}
	}
	nsfx_reclaim(&fx);
	assert_int_equal(nsfx_space(&fx).ninodes, 1);
	assert_int_equal(nsfx_nrecords(&fx, SLU_INO_VOLUME, SLU_REC_ORPHAN), 0);
}

static void unknown_flags_are_refused(void **state)
{
	mk(&fx, ROOT, "a", S_IFREG | 0644);
	assert_int_equal(rename_(&fx, ROOT, "a", ROOT, "b", 4), -EINVAL); /* RENAME_WHITEOUT */
	assert_int_equal(rename_(&fx, ROOT, "a", ROOT, "b", RENAME_NOREPLACE | RENAME_EXCHANGE),
			 -EINVAL);
	ok(try_look(&fx, ROOT, "a"));
}

static void two_names_of_one_inode_both_stay(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFREG | 0644);
	struct slu_attr before, after;

	ok(try_link(&fx, a, ROOT, "b"));
	before = stat_of(&fx, a);
	ok(rename_(&fx, ROOT, "a", ROOT, "b", 0));
	ok(rename_(&fx, ROOT, "a", ROOT, "a", 0));
	ok(rename_(&fx, ROOT, "a", ROOT, "b", RENAME_EXCHANGE));
	assert_int_equal(rename_(&fx, ROOT, "a", ROOT, "b", RENAME_NOREPLACE), -EEXIST);
	after = stat_of(&fx, a);
	assert_memory_equal(&before, &after, sizeof(after));
	assert_int_equal(look(&fx, ROOT, "a"), a);
	assert_int_equal(look(&fx, ROOT, "b"), a);
}

static void a_replaced_hard_link_keeps_its_other_name(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFREG | 0644);
	uint64_t b = mk(&fx, ROOT, "b", S_IFREG | 0644);

	ok(try_link(&fx, b, ROOT, "b2"));
	ok(rename_(&fx, ROOT, "a", ROOT, "b", 0));
	assert_int_equal(look(&fx, ROOT, "b"), a);
	assert_int_equal(look(&fx, ROOT, "b2"), b);
	assert_int_equal(stat_of(&fx, b).nlink, 1);
	assert_int_equal(nsfx_nrecords(&fx, SLU_INO_VOLUME, SLU_REC_ORPHAN), 0);
}

static void no_directory_goes_below_itself(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755);
	uint64_t b = mk(&fx, a, "b", S_IFDIR | 0755);
	uint64_t c = mk(&fx, b, "c", S_IFDIR | 0755);
	uint64_t d = mk(&fx, c, "d", S_IFDIR | 0755);
	uint64_t other = mk(&fx, ROOT, "other", S_IFDIR | 0755);

	mk(&fx, ROOT, "file", S_IFREG | 0644);
	for (int cold = 0; cold < 2; cold++) {
		assert_int_equal(rename_(&fx, ROOT, "a", a, "x", 0), -EINVAL);
		assert_int_equal(rename_(&fx, ROOT, "a", b, "x", 0), -EINVAL);
		assert_int_equal(rename_(&fx, ROOT, "a", d, "x", 0), -EINVAL);
		assert_int_equal(rename_(&fx, a, "b", d, "x", 0), -EINVAL);
		/* exchanging with one's own ancestor, seen from either side */
		assert_int_equal(rename_(&fx, ROOT, "a", c, "d", RENAME_EXCHANGE), -EINVAL);
		assert_int_equal(rename_(&fx, c, "d", ROOT, "a", RENAME_EXCHANGE), -EINVAL);
		/* over one's own ancestor */
		assert_int_equal(rename_(&fx, c, "d", ROOT, "a", 0), -ENOTEMPTY);
		nsfx_remount(&fx);
	}
	/* a file may change places with a directory it is not in */
	ok(rename_(&fx, ROOT, "file", b, "c", RENAME_EXCHANGE));
	assert_int_equal(look(&fx, ROOT, "file"), c);
	assert_int_equal(stat_of(&fx, c).parent, ROOT);
	assert_int_equal(stat_of(&fx, b).nlink, 2);
	assert_int_equal(stat_of(&fx, ROOT).nlink, 5);
	/* and what was below may go above */
	ok(rename_(&fx, ROOT, "file", other, "c", 0));
	ok(rename_(&fx, ROOT, "a", d, "a", 0));
	assert_int_equal(stat_of(&fx, a).parent, d);
	assert_int_equal(rename_(&fx, ROOT, "other", a, "x", 0), -EINVAL);
}

static void times_of_everybody_concerned(void **state)
{
	uint64_t d1 = mk(&fx, ROOT, "d1", S_IFDIR | 0755), d2 = mk(&fx, ROOT, "d2", S_IFDIR | 0755);
	uint64_t a = mk(&fx, d1, "a", S_IFREG | 0644), b = mk(&fx, d2, "b", S_IFREG | 0644);
	struct slu_attr a0 = stat_of(&fx, a), b0 = stat_of(&fx, b), now;

	next_tick();
	ok(rename_(&fx, d1, "a", d2, "b", RENAME_EXCHANGE));
	now = stat_of(&fx, d1);
	assert_int_equal(time_order(now.mtime, a0.ctime), 1);
	assert_int_equal(time_order(stat_of(&fx, d2).mtime, now.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, a).ctime, now.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, b).ctime, now.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, a).mtime, a0.mtime), 0);

	next_tick();
	ok(rename_(&fx, d2, "b", d1, "a", 0)); /* a back over b */
	assert_int_equal(time_order(stat_of(&fx, b).ctime, now.mtime), 1);
	assert_int_equal(time_order(stat_of(&fx, b).mtime, b0.mtime), 0);
	assert_int_equal(time_order(stat_of(&fx, a).ctime, stat_of(&fx, b).ctime), 0);
	assert_int_equal(time_order(stat_of(&fx, d1).ctime, stat_of(&fx, d2).ctime), 0);
}

static void removed_parents_take_nothing(void **state)
{
	uint64_t d = mk(&fx, ROOT, "d", S_IFDIR | 0755);

	mk(&fx, ROOT, "a", S_IFREG | 0644);
	ok(rmdir_(&fx, ROOT, "d"));
	assert_int_equal(rename_(&fx, ROOT, "a", d, "a", 0), -ENOENT);
	assert_int_equal(rename_(&fx, d, "a", ROOT, "b", 0), -ENOENT);
	ok(try_look(&fx, ROOT, "a"));
}

static void parents_may_have_only_so_many_links(void **state)
{
	uint64_t d = mk(&fx, ROOT, "d", S_IFDIR | 0755);

	mk(&fx, d, "s1", S_IFDIR | 0755);
	mk(&fx, d, "f", S_IFREG | 0644);
	mk(&fx, ROOT, "s2", S_IFDIR | 0755);
	fx.ns->link_max = 3;
	assert_int_equal(rename_(&fx, ROOT, "s2", d, "s2", 0), -EMLINK);
	assert_int_equal(rename_(&fx, ROOT, "s2", d, "f", RENAME_EXCHANGE), -EMLINK);
	assert_int_equal(rename_(&fx, d, "f", ROOT, "s2", RENAME_EXCHANGE), -EMLINK);
	ok(rename_(&fx, ROOT, "s2", d, "s1", RENAME_EXCHANGE));
	ok(rename_(&fx, ROOT, "s2", d, "s1", 0)); /* one comes, one goes */
	assert_int_equal(stat_of(&fx, d).nlink, 3);
	assert_int_equal(stat_of(&fx, ROOT).nlink, 3);
}

static int find_a(void *ctx, const char *name, size_t len, uint64_t cookie,
		  const struct slu_attr *attr)
{
	if (len == 1 && name[0] == 'a')
		*(struct slu_attr *)ctx = *attr;
	return 0;
}

static void a_circle_on_disk_is_reported_and_not_walked_for_ever(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), b = mk(&fx, a, "b", S_IFDIR | 0755);
	uint64_t c = mk(&fx, b, "c", S_IFDIR | 0755);
	struct slu_attr attr = stat_of(&fx, a);
	struct slu_batch batch;

	mk(&fx, ROOT, "x", S_IFDIR | 0755);
	/* a says that it lies in c */
	attr.parent = c;
	slu_batch_init(&batch);
	inode_put_record(&batch, &attr, attr.size);
	struct slu_ticket t;
	ok(slu_ticket_get(fx.store, &t, 1, 0, 0, NULL));
	ok(slu_store_apply(fx.store, &t, &batch, NULL, NULL));
	slu_ticket_put(&t);
	slu_batch_fini(&batch);
	nsfx_remount(&fx);
	assert_int_equal(rename_(&fx, ROOT, "x", c, "x", 0), -EIO);
	assert_true(atomic_load(&fx.nevents) > 0);
	/* nor is a where its parent says that it is */
	assert_int_equal(try_look(&fx, ROOT, "a"), -EIO);
	assert_int_equal(rmdir_(&fx, ROOT, "a"), -EIO);
	ok(slu_ns_readdir(fx.ns, &fx.ctx, ROOT, 0, true, find_a, &attr));
	assert_int_equal(attr.ino, a);
	assert_int_equal(attr.nlink, 0);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(every_kind_over_every_kind),
		CASE(unknown_flags_are_refused),
		CASE(two_names_of_one_inode_both_stay),
		CASE(a_replaced_hard_link_keeps_its_other_name),
		CASE(no_directory_goes_below_itself),
		CASE(times_of_everybody_concerned),
		CASE(removed_parents_take_nothing),
		CASE(parents_may_have_only_so_many_links),
		CASE(a_circle_on_disk_is_reported_and_not_walked_for_ever),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
