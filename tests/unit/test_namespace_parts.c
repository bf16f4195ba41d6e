/* SPDX-License-Identifier: MIT */
/*
 * The parts that need no volume: lookup counts against a plain array, name hashes, and ACLs.
 */
#include "namespace_fixture.h"

static uint64_t seed = 5;

static uint64_t draw(uint64_t below)
{
	/* splitmix64, by Sebastiano Vigna */
	uint64_t z = seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % below;
}

#define NINOS 5000

static size_t table_bytes(const struct ns_lookups *l)
{
	size_t n = 0;

	for (int i = 0; i < NS_SHARDS; i++)
		n += l->shards[i].cap * sizeof(struct ns_lookup);
	return n;
}

static void lookup_counts_are_what_was_added_and_taken(void **state)
{
	static uint64_t want[NINOS];
	struct ns_lookups l;

	lookups_init(&l);
	for (int i = 0; i < 200000; i++) {
		/* first more come than go, then the other way round */
		uint64_t k = draw(NINOS), n = 1 + draw(3), ino = 16 + k * k;
		bool add = draw(10) < (i < 100000 ? 6u : 3u);

		if (add) {
			ok(lookups_add(&l, ino, 0, n));
			want[k] += n;
		} else {
			want[k] -= slu_min(want[k], n);
			assert_int_equal(lookups_sub(&l, ino, n), want[k]);
		}
		k = draw(NINOS);
		assert_int_equal(lookups_get(&l, 16 + k * k), want[k]);
	}
	for (uint64_t k = 0; k < NINOS; k++)
		assert_int_equal(lookups_sub(&l, 16 + k * k, UINT64_MAX), 0);
	for (int i = 0; i < NS_SHARDS; i++)
		assert_int_equal(l.shards[i].used, 0);
	/* and the memory goes with them */
	assert_true(table_bytes(&l) <= NS_SHARDS * 64 * sizeof(struct ns_lookup));
	ok(lookups_add(&l, 7, 0, UINT64_MAX));
	ok(lookups_add(&l, 7, 0, 5));
	assert_int_equal(lookups_get(&l, 7), UINT64_MAX);
	lookups_fini(&l);
}

static void a_million_lookups_cost_little(void **state)
{
	struct ns_lookups l;

	lookups_init(&l);
	for (uint64_t ino = 16; ino < 16 + 1000000; ino++)
		ok(lookups_add(&l, ino, 0, 1));
	assert_true(table_bytes(&l) <= 64u << 20);
	for (uint64_t ino = 16; ino < 16 + 1000000; ino += 999)
		assert_int_equal(lookups_get(&l, ino), 1);
	lookups_clear(&l);
	assert_int_equal(lookups_get(&l, 16), 0);
	lookups_fini(&l);
}

static void without_memory_counts_go_on_while_there_is_a_free_place(void **state)
{
	struct ns_lookups l;
	uint64_t n = 0;
	int err = 0;

	lookups_init(&l);
	slu_alloc_fail_nth(1);
	assert_int_equal(lookups_add(&l, 20, 0, 1), -ENOMEM);
	slu_alloc_fail_nth(0);
	/* the places of one shard; numbers that fall into others are not counted */
	for (uint64_t ino = 16; ino < 100000; ino++) {
		if (ino * 0x9e3779b97f4a7c15ull >> 60 != 3)
			continue;
		if (n == 0)
			ok(lookups_add(&l, ino, 0, 1));
		slu_alloc_fail_nth(1);
		err = lookups_add(&l, ino, 0, 1);
		slu_alloc_fail_nth(0);
		if (err)
			break;
		n++;
	}
	assert_int_equal(err, -ENOMEM);
	assert_int_equal(n, 63);
	lookups_fini(&l);
}

static void hashes_make_cookies_that_fit(void **state)
{
	struct slu_ns ns = {.hash_seed = 1, .hash_mask = UINT64_MAX};
	struct slu_ns other = {.hash_seed = 2, .hash_mask = UINT64_MAX};
	unsigned int same = 0;
	char name[24];

	for (int i = 0; i < 10000; i++) {
		snprintf(name, sizeof(name), "%d", i);
		uint64_t h = ns_hash(&ns, name, strlen(name));

		assert_true(h >= 1 && h < 1ull << 47);
		same += h == ns_hash(&other, name, strlen(name));
	}
	assert_int_equal(same, 0);
	ns.hash_mask = 0;
	assert_int_equal(ns_hash(&ns, "x", 1), 1);
}

static size_t put(uint8_t *blob, const unsigned int (*entries)[3], unsigned int n)
{
	slu_put_le32(blob, 2);
	for (unsigned int i = 0; i < n; i++) {
		slu_put_le16(blob + 4 + 8 * i, (uint16_t)entries[i][0]);
		slu_put_le16(blob + 6 + 8 * i, (uint16_t)entries[i][1]);
		slu_put_le32(blob + 8 + 8 * i, entries[i][2]);
	}
	return 4 + 8 * (size_t)n;
}

static void acls_and_modes(void **state)
{
	static const unsigned int minimal[3][3] = {{1, 7}, {4, 5}, {32, 1}};
	static const unsigned int masked[4][3] = {{1, 7}, {4, 5}, {16, 3}, {32, 1}};
	uint8_t blob[64] = {0};
	mode_t mode = S_IFREG | S_ISUID | 0600;

	assert_int_equal(acl_check(blob, 0), 0);
	assert_int_equal(acl_check(blob, put(blob, minimal, 0)), 0);
	assert_int_equal(acl_check(blob, put(blob, minimal, 3)), 3);
	assert_true(acl_equiv_mode(blob, 3, &mode));
	assert_int_equal(mode, S_IFREG | S_ISUID | 0751);
	assert_int_equal(acl_check(blob, put(blob, masked, 4)), 4);
	assert_false(acl_equiv_mode(blob, 4, &mode));
	assert_int_equal(mode, S_IFREG | S_ISUID | 0731);
	/* every mode and back */
	for (mode_t m = 0; m < 01000; m++) {
		mode_t back = 0;

		put(blob, minimal, 3);
		ok(acl_chmod(blob, 3, m));
		assert_true(acl_equiv_mode(blob, 3, &back));
		assert_int_equal(back, m);
		put(blob, masked, 4);
		ok(acl_chmod(blob, 4, m));
		assert_false(acl_equiv_mode(blob, 4, &back));
		assert_int_equal(back, m);
		assert_int_equal(slu_get_le16(blob + 4 + 8 + 2), 5); /* the group's own stays */
		put(blob, minimal, 3);
		back = S_IFDIR | 07000 | m;
		assert_int_equal(acl_inherit(blob, 3, &back), 0);
		assert_int_equal(back, S_IFDIR | 07000 | (m & 0751));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lookup_counts_are_what_was_added_and_taken),
		cmocka_unit_test(a_million_lookups_cost_little),
		cmocka_unit_test(without_memory_counts_go_on_while_there_is_a_free_place),
		cmocka_unit_test(hashes_make_cookies_that_fit),
		cmocka_unit_test(acls_and_modes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
