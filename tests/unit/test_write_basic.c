/* SPDX-License-Identifier: MIT */
#include "pages_rig.h"

static void a_small_write_is_read_back(void **state)
{
	struct rig r;
	char buf[64];

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, "hello", 5);
	assert_int_equal(slu_aspace_size(&r.as), 5);
	assert_int_equal(rig_read(&r, 0, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	rig_check(&r);
	assert_int_equal(r.mem.reserved, 1);
	assert_int_equal(rig_sync(&r), 0);
	assert_int_equal(r.mem.reserved, 0);
	assert_int_equal(r.mem.used, 1);
	assert_int_equal(slu_mem_inode_disk_size(r.inode), 5);
	rig_drop_clean(&r);
	assert_int_equal(rig_read(&r, 1, buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "ello", 4);
	assert_int_equal(rig_fini(&r), 0);
}

static void a_large_write_is_read_back_from_the_disk(void **state)
{
	static char out[3 << 20], in[3 << 20];
	struct rig r;

	rig_init(&r, &(struct rig_opts){.cache_bytes = 2u << 20});
	rig_pattern(out, 100, sizeof(out), 1);
	rig_write(&r, 100, out, sizeof(out));
	assert_int_equal(rig_sync(&r), 0);
	rig_check(&r);
	rig_drop_clean(&r);
	for (uint64_t at = 0; at < sizeof(in);) {
		int64_t n = rig_read_ahead(&r, 100 + at, in + at, 100000, 16);

		assert_true(n > 0);
		at += (uint64_t)n;
	}
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(slu_mem_inode_disk_size(r.inode), 100 + sizeof(out));
	assert_int_equal(rig_fini(&r), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_small_write_is_read_back),
		cmocka_unit_test(a_large_write_is_read_back_from_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
