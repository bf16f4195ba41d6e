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

/* ------------------------------------------------------------------ --bench: not a test */

#define BENCH_MB 64u

static void bench_pass(struct rig *r, const char *what, char *buf, uint64_t mb, unsigned int rounds,
		       bool fresh)
{
	uint64_t best = UINT64_MAX, start;

	for (unsigned int i = 0; i < rounds; i++) {
		uint64_t ns;

		if (fresh)
			must_eq(rig_truncate(r, 0), 0);
		start = slu_clock_ns();
		for (uint64_t at = 0; at < mb; at++)
			rig_write(r, at << 20, buf, 1u << 20);
		ns = slu_clock_ns() - start;
		best = slu_min(best, ns);
	}
	printf("%-28s %6.2f GB/s (best of %u)\n", what, (double)(mb << 20) / (double)best, rounds);
}

static int bench(void)
{
	char *buf = malloc(2u << 20), *other = malloc(BENCH_MB << 20);
	uint64_t start, ns, best = UINT64_MAX;
	struct rig r;

	rig_init(&r, &(struct rig_opts){.cache_bytes = 512u << 20, .nblocks = 1u << 18});
	rig_pattern(buf, 0, 2u << 20, 1);
	for (int i = 0; i < 5; i++) {
		start = slu_clock_ns();
		for (unsigned int at = 0; at < BENCH_MB; at++)
			memcpy(other + ((size_t)at << 20), buf, 1u << 20);
		ns = slu_clock_ns() - start;
		best = slu_min(best, ns);
	}
	printf("%-28s %6.2f GB/s\n", "memcpy", (double)(BENCH_MB << 20) / (double)best);
	bench_pass(&r, "new pages", buf, BENCH_MB, 10, true);
	bench_pass(&r, "rewriting", buf, BENCH_MB, 10, false);
	best = UINT64_MAX;
	for (int i = 0; i < 10; i++) {
		start = slu_clock_ns();
		for (uint64_t at = 0; at < BENCH_MB; at++) {
			struct slu_read_vec v;

			must_eq(slu_read(&r.as, r.bio, at << 20, 1u << 20, 0, &v), 0);
			slu_read_done(&v);
		}
		best = slu_min(best, slu_clock_ns() - start);
	}
	printf("%-28s %6.2f us per MiB\n", "looking up for a read", (double)best / 1000 / BENCH_MB);
	must_eq(rig_truncate(&r, 0), 0);
	rig_fini(&r);
	free(buf);
	free(other);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--bench") == 0)
		return bench();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_small_write_is_read_back),
		cmocka_unit_test(a_large_write_is_read_back_from_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
