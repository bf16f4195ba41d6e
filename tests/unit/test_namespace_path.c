/* SPDX-License-Identifier: MIT */
/* From an inode back to a path: by all the ways in which the kernel comes to know one. */
#include "namespace_fixture.h"
#include <limits.h>

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

static int try_path(uint64_t ino, char buf[PATH_MAX])
{
	return slu_ns_path(fx.ns, ino, true, buf, PATH_MAX);
}

#define assert_path(ino, want)                           \
	do {                                             \
		char is_[PATH_MAX];                      \
		assert_int_equal(try_path(ino, is_), 0); \
		assert_string_equal(is_, want);          \
	} while (0)

#define assert_no_path(ino, error)                           \
	do {                                                 \
		char is_[PATH_MAX];                          \
		assert_int_equal(try_path(ino, is_), error); \
	} while (0)

static void what_is_made_has_the_path_it_was_made_at(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), b = mk(&fx, a, "b", S_IFDIR | 0755);
	uint64_t file = mk(&fx, b, "file", S_IFREG | 0644);

	mk(&fx, b, "another", S_IFREG | 0644);
	assert_path(ROOT, "/");
	assert_path(a, "/a");
	assert_path(b, "/a/b");
	assert_path(file, "/a/b/file");
	assert_no_path(999, -ENOENT);
}

static void it_goes_along_with_a_rename(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), b = mk(&fx, ROOT, "b", S_IFDIR | 0755);
	uint64_t file = mk(&fx, a, "file", S_IFREG | 0644), dir = mk(&fx, a, "dir", S_IFDIR | 0755);
	uint64_t deep = mk(&fx, dir, "deep", S_IFREG | 0644),
		 old = mk(&fx, b, "new", S_IFREG | 0644);

	ok(rename_(&fx, a, "file", b, "new", 0));
	ok(rename_(&fx, a, "dir", b, "moved", 0));
	assert_path(file, "/b/new");
	assert_path(deep, "/b/moved/deep");
	assert_no_path(old, -ENOENT);
	ok(rename_(&fx, b, "new", b, "again", 0));
	assert_path(file, "/b/again");
	ok(rename_(&fx, b, "again", ROOT, "a", RENAME_EXCHANGE));
	assert_path(file, "/a");
	assert_path(a, "/b/again");
}

static void of_several_names_it_is_one_that_there_is(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755),
		 file = mk(&fx, ROOT, "file", S_IFREG | 0644);

	ok(try_link(&fx, file, a, "link"));
	assert_path(file, "/a/link");
	assert_int_equal(look(&fx, ROOT, "file"), file);
	assert_path(file, "/file");
	ok(unlink_(&fx, ROOT, "file"));
	assert_no_path(file, -ENOENT); /* until the other name is used again */
	assert_int_equal(look(&fx, a, "link"), file);
	assert_path(file, "/a/link");
	assert_int_equal(try_link(&fx, file, ROOT, "a"), -EEXIST);
	assert_path(file, "/a/link");
	ok(unlink_(&fx, a, "link"));
	assert_no_path(file, -ENOENT);
}

static int count_it(void *ctx, const char *name, size_t len, uint64_t cookie,
		    const struct slu_attr *attr)
{
	const uint64_t *dir = ctx;

	if (cookie > 2)
		slu_ns_lookup_count(fx.ns, attr->ino, *dir, 1);
	return 0;
}

static void a_listing_tells_the_kernel_as_well(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), file = mk(&fx, a, "file", S_IFREG | 0644);

	nsfx_remount(&fx);
	assert_no_path(file, -ENOENT);
	assert_int_equal(look(&fx, ROOT, "a"), a);
	ok(slu_ns_readdir(fx.ns, &fx.ctx, a, 0, true, count_it, &a));
	assert_path(file, "/a/file");
}

/* As at the end of a mount: what is still to be written is in memory, and the kernel has gone. */
static void what_is_in_memory_is_found_after_it_was_forgotten(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), b = mk(&fx, a, "b", S_IFDIR | 0755);
	uint64_t file = mk(&fx, b, "file", S_IFREG | 0644);
	struct slu_inode *inode;

	ok(slu_inode_get(fx.ns, file, &inode));
	forget_all(&fx, file);
	forget_all(&fx, b);
	forget_all(&fx, a);
	assert_path(file, "/a/b/file");
	slu_inode_put(inode);
}

static void without_waiting_memory_has_to_have_it(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), file = mk(&fx, a, "file", S_IFREG | 0644);
	char name[16], buf[PATH_MAX];

	/* More than fits into the nodes that mounting reads. */
	for (unsigned int i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		mk(&fx, a, name, S_IFREG | 0644);
	}
	ok(slu_ns_path(fx.ns, file, false, buf, sizeof(buf)));
	assert_string_equal(buf, "/a/file");
	nsfx_remount(&fx);
	slu_ns_lookup_count(fx.ns, a, ROOT, 1);
	slu_ns_lookup_count(fx.ns, file, a, 1);
	assert_int_equal(slu_ns_path(fx.ns, file, false, buf, sizeof(buf)), -EAGAIN);
	assert_path(file, "/a/file");
	ok(slu_ns_path(fx.ns, file, false, buf, sizeof(buf)));
}

static void what_does_not_fit_is_too_long(void **state)
{
	uint64_t dir = ROOT, file = mk(&fx, ROOT, "ab", S_IFREG | 0644);
	char name[NS_NAME_MAX + 1], buf[16];

	memset(name, 'n', NS_NAME_MAX);
	name[NS_NAME_MAX] = '\0';
	assert_int_equal(slu_ns_path(fx.ns, ROOT, true, buf, 1), -ENAMETOOLONG);
	ok(slu_ns_path(fx.ns, ROOT, true, buf, 2));
	assert_string_equal(buf, "/");
	assert_int_equal(slu_ns_path(fx.ns, file, true, buf, 3), -ENAMETOOLONG);
	ok(slu_ns_path(fx.ns, file, true, buf, 4));
	assert_string_equal(buf, "/ab");
	for (unsigned int i = 0; i < PATH_MAX / (NS_NAME_MAX + 1); i++)
		dir = mk(&fx, dir, name, S_IFDIR | 0755);
	assert_no_path(dir, -ENAMETOOLONG);
}

/* Damage that has a circle of directories ends, and nothing is said of it: who asks may be saying it. */
static void a_circle_ends(void **state)
{
	uint64_t a = mk(&fx, ROOT, "a", S_IFDIR | 0755), b = mk(&fx, a, "b", S_IFDIR | 0755);
	struct slu_key key = SLU_KEY(b, SLU_REC_DIRENT, 1 << 20);
	uint8_t entry[sizeof(struct slu_disk_dirent) + 1] = {0};
	unsigned int events = atomic_load(&fx.nevents);

	slu_put_le64(&((struct slu_disk_dirent *)entry)->ino, a);
	entry[offsetof(struct slu_disk_dirent, type)] = S_IFDIR >> 12;
	entry[sizeof(struct slu_disk_dirent)] = 'c';
	nsfx_poke(&fx, &key, entry, sizeof(entry));
	slu_ns_lookup_count(fx.ns, a, b, 1);
	assert_no_path(b, -ENAMETOOLONG);
	assert_int_equal(atomic_load(&fx.nevents), events);
}

static void a_directory_of_many_is_searched_so_far(void **state)
{
	char name[NS_NAME_MAX + 1];
	uint64_t ino = 0;

	for (unsigned int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		ino = mk(&fx, ROOT, name, S_IFREG | 0644);
		if (i % 500)
			continue;
		char buf[PATH_MAX];
		ok(slu_ns_path(fx.ns, ino, false, buf, sizeof(buf)));
		assert_string_equal(buf + 1, name);
	}
	/* Fewer looks than there are entries: some of them are not found, and none is wrongly. */
	unsigned int found = 0;
	for (uint64_t i = ino - 2999; i <= ino; i += 7) {
		uint64_t looks = 1500;
		size_t len;
		int err = dir_name_of(fx.ns, ROOT, i, name, &len, &looks, NULL);

		assert_true(err == 0 || (err == -ENOENT && looks == 0));
		found += err == 0;
	}
	assert_in_range(found, 100, 330);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(what_is_made_has_the_path_it_was_made_at),
		CASE(it_goes_along_with_a_rename),
		CASE(of_several_names_it_is_one_that_there_is),
		CASE(a_listing_tells_the_kernel_as_well),
		CASE(what_is_in_memory_is_found_after_it_was_forgotten),
		CASE(without_waiting_memory_has_to_have_it),
		CASE(what_does_not_fit_is_too_long),
		CASE(a_circle_ends),
		CASE(a_directory_of_many_is_searched_so_far),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
