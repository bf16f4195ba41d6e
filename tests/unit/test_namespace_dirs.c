/* SPDX-License-Identifier: MIT */
/*
 * Listing directories: cookies that stay valid while entries come and go, names with equal hashes,
 * big directories, and entries on disk that cannot be right.
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

/* One call of readdir: at most `room` entries are taken. */
struct listing {
	unsigned int room, n;
	uint64_t last;
	bool plus;
	struct {
		char name[256];
		uint64_t cookie;
		struct slu_attr attr;
	} e[300];
};

static int take(void *ctx, const char *name, size_t len, uint64_t cookie,
		const struct slu_attr *attr)
{
	struct listing *l = ctx;

	if (l->n == l->room)
		return 1;
	assert_true(len >= 1 && len <= 255);
	memcpy(l->e[l->n].name, name, len);
	l->e[l->n].name[len] = '\0';
	l->e[l->n].cookie = cookie;
	l->e[l->n].attr = *attr;
	assert_true(cookie > l->last);
	l->last = cookie;
	l->n++;
	return 0;
}

static unsigned int list(struct listing *l, uint64_t dir, uint64_t cookie, unsigned int room)
{
	l->n = 0;
	l->room = room;
	l->last = cookie;
	ok(slu_ns_readdir(fx.ns, &fx.ctx, dir, cookie, l->plus, take, l));
	return l->n;
}

static void dots_come_first(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct listing l = {.plus = true};

	mk(&fx, dir, "a", S_IFREG | 0600);
	assert_int_equal(list(&l, dir, 0, 300), 3);
	assert_string_equal(l.e[0].name, ".");
	assert_int_equal(l.e[0].attr.ino, dir);
	assert_int_equal(l.e[0].cookie, 1);
	assert_string_equal(l.e[1].name, "..");
	assert_int_equal(l.e[1].attr.ino, ROOT);
	assert_int_equal(l.e[1].attr.nlink, 3);
	assert_string_equal(l.e[2].name, "a");
	assert_int_equal(l.e[2].attr.mode, S_IFREG | 0600);
	assert_int_equal(list(&l, dir, 1, 300), 2);
	assert_string_equal(l.e[0].name, "..");
	assert_int_equal(list(&l, dir, 2, 300), 1);
	assert_int_equal(list(&l, dir, l.e[0].cookie, 300), 0);
	assert_int_equal(list(&l, dir, UINT64_MAX, 300), 0);
	/* without plus: number and type, nothing that costs a read */
	l.plus = false;
	assert_int_equal(list(&l, dir, 0, 300), 3);
	assert_int_equal(l.e[2].attr.mode, S_IFREG);
	assert_int_equal(l.e[2].attr.nlink, 0);
	/* no room at all is no error */
	assert_int_equal(list(&l, dir, 0, 0), 0);
	assert_int_equal(slu_ns_readdir(fx.ns, &fx.ctx, look(&fx, dir, "a"), 0, false, take, &l),
			 -ENOTDIR);
	/* one lookup for making it and one for finding it: listing counts none */
	assert_int_equal(lookups_get(&fx.ns->lookups, look(&fx, dir, "a")), 3);
}

static int refuse(void *ctx, const char *name, size_t len, uint64_t cookie,
		  const struct slu_attr *attr)
{
	return -ENOMEM;
}

static void the_callers_error_ends_the_listing(void **state)
{
	assert_int_equal(slu_ns_readdir(fx.ns, &fx.ctx, ROOT, 0, false, refuse, NULL), -ENOMEM);
	mk(&fx, ROOT, "a", S_IFREG);
	assert_int_equal(slu_ns_readdir(fx.ns, &fx.ctx, ROOT, 2, false, refuse, NULL), -ENOMEM);
}

static void listing_in_steps_of_any_size_shows_everything_once(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct listing l = {.plus = false};
	char name[24];

	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "%d", i);
		mk(&fx, dir, name, S_IFREG | 0644);
	}
	for (unsigned int step = 1; step <= 150; step += 7) {
		uint8_t seen[150] = {0};
		uint64_t cookie = 2;
		unsigned int total = 0;

		while (list(&l, dir, cookie, step)) {
			for (unsigned int i = 0; i < l.n; i++)
				seen[atoi(l.e[i].name)]++;
			total += l.n;
			cookie = l.last;
		}
		assert_int_equal(total, 150);
		for (int i = 0; i < 150; i++)
			assert_int_equal(seen[i], 1);
	}
}

/* Adds and removes other names between the steps; those that stay are seen exactly once. */
static void cookies_hold_while_entries_come_and_go(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct listing l = {.plus = true};
	uint8_t seen[200] = {0};
	uint64_t cookie = 0, old;
	char name[256];
	int next = 0;

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "stay%d", i);
		mk(&fx, dir, name, S_IFREG | 0644);
		snprintf(name, sizeof(name), "go%d", i);
		mk(&fx, dir, name, S_IFREG | 0644);
	}
	while (list(&l, dir, cookie, 5)) {
		cookie = l.last;
		for (unsigned int i = 0; i < l.n; i++)
			if (strncmp(l.e[i].name, "stay", 4) == 0)
				seen[atoi(l.e[i].name + 4)]++;
		for (int i = 0; i < 2 && next < 200; i++, next++) {
			snprintf(name, sizeof(name), "go%d", next);
			ok(unlink_(&fx, dir, name));
			snprintf(name, sizeof(name), "come%d", next);
			mk(&fx, dir, name, S_IFREG | 0644);
			/* a replaced entry keeps its place */
			snprintf(name, sizeof(name), "stay%d", next);
			mk(&fx, ROOT, "x", S_IFREG | 0644);
			ok(rename_(&fx, ROOT, "x", dir, name, 0));
		}
		if (next % 40 == 0)
			nsfx_remount(&fx);
	}
	for (int i = 0; i < 200; i++)
		assert_int_equal(seen[i], 1);
	/* the entry a cookie came from may go: what follows is still found */
	list(&l, dir, 2, 3);
	old = l.e[1].cookie;
	snprintf(name, sizeof(name), "%s", l.e[2].name);
	ok(unlink_(&fx, dir, l.e[1].name));
	list(&l, dir, old, 1);
	assert_string_equal(l.e[0].name, name);
}

static void names_with_equal_hashes(void **state)
{
	struct listing l = {.plus = true};
	uint64_t inos[40], cookies[40];
	char name[24];

	nsfx_unmount(&fx);
	fx.hash_mask = 1; /* two hashes (0 becomes 1): one, really */
	nsfx_mount(&fx);
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "name%d", i);
		inos[i] = mk(&fx, dir, name, S_IFREG | 0644);
	}
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < 40; i++) {
			snprintf(name, sizeof(name), "name%d", i);
			assert_int_equal(look(&fx, dir, name), inos[i]);
			assert_int_equal(try_mk(&fx, dir, name, S_IFREG), -EEXIST);
		}
		assert_int_equal(try_look(&fx, dir, "name40"), -ENOENT);
		nsfx_remount(&fx);
	}
	assert_int_equal(list(&l, dir, 2, 300), 40);
	for (int i = 0; i < 40; i++)
		cookies[atoi(l.e[i].name + 4)] = l.e[i].cookie;
	/* removed ones leave gaps that new ones fill; the others keep their cookies */
	for (int i = 3; i < 40; i += 5) {
		snprintf(name, sizeof(name), "name%d", i);
		ok(unlink_(&fx, dir, name));
	}
	mk(&fx, dir, "fresh", S_IFREG | 0644);
	ok(rename_(&fx, dir, "name0", dir, "renamed", 0));
	assert_int_equal(look(&fx, dir, "renamed"), inos[0]);
	ok(rename_(&fx, dir, "name1", dir, "name2", RENAME_EXCHANGE));
	assert_int_equal(look(&fx, dir, "name1"), inos[2]);
	assert_int_equal(list(&l, dir, 2, 300), 33);
	for (unsigned int i = 0; i < l.n; i++) {
		int n = strncmp(l.e[i].name, "name", 4) ? -1 : atoi(l.e[i].name + 4);

		if (n >= 0)
			assert_int_equal(l.e[i].cookie, cookies[n]);
		if (n > 2)
			assert_int_equal(l.e[i].attr.ino, inos[n]);
	}
	fx.hash_mask = 0;
}

static void no_number_is_left_for_the_65537th_name_of_one_hash(void **state)
{
	/*
	 * Entries at every number but one, as only an attacker who knows the seed could make them.
	 */
	struct slu_key key;
	uint8_t value[32];
	struct slu_disk_dirent *d = (struct slu_disk_dirent *)value;
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755), file = mk(&fx, ROOT, "f", S_IFREG);
	struct ns_name name;
	struct slu_batch b;
	struct slu_ticket t;

	ok(ns_name_init(fx.ns, &name, "wanted"));
	slu_put_le64(&d->ino, file);
	d->type = S_IFREG >> 12;
	slu_batch_init(&b);
	for (unsigned int n = 0; n < 65536; n++) {
		snprintf((char *)value + 9, 8, "%05u", n);
		key = SLU_KEY(dir, SLU_REC_DIRENT, name.hash << 16 | n);
		slu_batch_put(&b, &key, value, 14);
		if (b.nops == 64) {
			ok(slu_ticket_get(fx.store, &t, 64, 64 * 14, 0, NULL));
			ok(slu_store_apply(fx.store, &t, &b, NULL, NULL));
			slu_ticket_put(&t);
			slu_batch_reset(&b);
		}
	}
	slu_batch_fini(&b);
	assert_int_equal(try_mk(&fx, dir, "wanted", S_IFREG), -ENOSPC);
	assert_int_equal(try_link(&fx, file, dir, "wanted"), -ENOSPC);
	assert_int_equal(rename_(&fx, ROOT, "f", dir, "wanted", 0), -ENOSPC);
	key = SLU_KEY(dir, SLU_REC_DIRENT, name.hash << 16 | 40000);
	nsfx_poke(&fx, &key, NULL, 0);
	ok(try_mk(&fx, dir, "wanted", S_IFREG));
	ok(try_look(&fx, dir, "wanted"));
}

static void put_dirent(uint64_t dir, uint64_t off, uint64_t ino, uint8_t type, const char *name,
		       size_t len)
{
	struct slu_key key = SLU_KEY(dir, SLU_REC_DIRENT, off);
	uint8_t value[600] = {0};
	struct slu_disk_dirent *d = (struct slu_disk_dirent *)value;

	slu_put_le64(&d->ino, ino);
	d->type = type;
	memcpy(value + 9, name, len);
	nsfx_poke(&fx, &key, value, 9 + len);
}

static void impossible_entries_are_passed_over_and_reported(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755), good = mk(&fx, dir, "good", S_IFREG);
	struct listing l = {.plus = true};
	char longest[300];

	memset(longest, 'x', sizeof(longest));
	put_dirent(dir, 0x10000, good, S_IFREG >> 12, "a/b", 3);
	put_dirent(dir, 0x10001, good, S_IFREG >> 12, "", 0);
	put_dirent(dir, 0x10002, good, S_IFREG >> 12, longest, 256);
	put_dirent(dir, 0x10003, good, S_IFREG >> 12, "..", 2);
	put_dirent(dir, 0x10004, good, S_IFREG >> 12, ".", 1);
	put_dirent(dir, 0x10005, good, S_IFREG >> 12, "a\0b", 3);
	put_dirent(dir, 0x10006, good, 3, "type", 4);
	put_dirent(dir, 0x10007, 0, S_IFREG >> 12, "zero", 4);
	put_dirent(dir, 7, good, S_IFREG >> 12, "cookie", 6);
	put_dirent(dir, 1ull << 63, good, S_IFREG >> 12, "high", 4);
	assert_int_equal(atomic_load(&fx.nevents), 0);
	assert_int_equal(list(&l, dir, 0, 300), 3);
	assert_string_equal(l.e[2].name, "good");
	assert_true(atomic_load(&fx.nevents) > 0);
	assert_int_equal(rmdir_(&fx, ROOT, "dir"), -ENOTEMPTY);
}

static void entries_without_an_inode(void **state)
{
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755);
	struct listing l = {.plus = true};
	struct ns_name name;

	ok(ns_name_init(fx.ns, &name, "lost"));
	put_dirent(dir, name.hash << 16, 12345678, S_IFREG >> 12, "lost", 4);
	assert_int_equal(try_look(&fx, dir, "lost"), -EIO);
	assert_int_equal(unlink_(&fx, dir, "lost"), -EIO);
	assert_int_equal(rename_(&fx, dir, "lost", dir, "x", 0), -EIO);
	/* shown all the same, so that the name can be seen */
	assert_int_equal(list(&l, dir, 2, 300), 1);
	assert_int_equal(l.e[0].attr.nlink, 0);
	assert_int_equal(l.e[0].attr.ino, 12345678);
}

static void a_hundred_thousand_entries(void **state)
{
	const unsigned int n = 100000;
	uint64_t dir = mk(&fx, ROOT, "dir", S_IFDIR | 0755), cookie = 2;
	struct listing l = {.plus = false};
	uint8_t *seen = calloc(1, 2 * n);
	unsigned int total = 0;
	char name[24];

	for (unsigned int i = 0; i < n; i++) {
		struct slu_attr a;

		snprintf(name, sizeof(name), "%u", i);
		ok(slu_ns_mknod(fx.ns, &fx.ctx, dir, name, S_IFREG | 0644, 0, &a));
		forget_all(&fx, a.ino);
	}
	assert_int_equal(stat_of(&fx, dir).size, n);
	/* every tenth goes and as many come while it is listed */
	for (unsigned int round = 0; list(&l, dir, cookie, 300); round++) {
		cookie = l.last;
		total += l.n;
		for (unsigned int i = 0; i < l.n; i++)
			seen[atoi(l.e[i].name)]++;
		for (unsigned int i = round * 300; i < round * 300 + 300 && i < n; i += 10) {
			snprintf(name, sizeof(name), "%u", i);
			ok(unlink_(&fx, dir, name));
			snprintf(name, sizeof(name), "%u", n + i);
			mk(&fx, dir, name, S_IFREG | 0644);
		}
	}
	for (unsigned int i = 0; i < n; i++)
		assert_true(i % 10 == 0 ? seen[i] <= 1 : seen[i] == 1);
	for (unsigned int i = n; i < 2 * n; i++)
		assert_true(seen[i] <= 1);
	assert_int_equal(stat_of(&fx, dir).size, n);
	nsfx_remount(&fx);
	l.plus = true;
	for (cookie = 2, total = 0; list(&l, dir, cookie, 300); cookie = l.last)
		total += l.n;
	assert_int_equal(total, n);
	free(seen);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(dots_come_first),
		CASE(the_callers_error_ends_the_listing),
		CASE(listing_in_steps_of_any_size_shows_everything_once),
		CASE(cookies_hold_while_entries_come_and_go),
		CASE(names_with_equal_hashes),
		CASE(no_number_is_left_for_the_65537th_name_of_one_hash),
		CASE(impossible_entries_are_passed_over_and_reported),
		CASE(entries_without_an_inode),
		CASE(a_hundred_thousand_entries),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
