/* SPDX-License-Identifier: MIT */
/*
 * What the write path promises, case by case: out of space at every page, short at every byte,
 * errors of every I/O it makes, requests that are whole or nothing.
 */
#include "pages_rig.h"

/* ------------------------------------------------------------------ a source that is ready in
 * steps */

struct step_source {
	struct slu_source source;
	const unsigned char *data;
	size_t len, at;
	size_t ready[8]; /* after each fault_in; the last is the end, 0 ends the list */
	unsigned int step;
	int error; /* at the end of the list */
	unsigned int nfaults;
	void (*in_fault)(void *arg);
	void *arg;
};

static size_t step_copy(struct slu_source *src, void *dst, size_t len)
{
	struct step_source *s = slu_container_of(src, struct step_source, source);
	size_t n = slu_min(len, s->ready[s->step] - s->at);

	memcpy(dst, s->data + s->at, n);
	s->at += n;
	return n;
}

static int step_fault_in(struct slu_source *src, size_t len)
{
	struct step_source *s = slu_container_of(src, struct step_source, source);

	slu_assert_no_locks("a test's source");
	must(len > 0 && s->at == s->ready[s->step]);
	s->nfaults++;
	if (s->in_fault)
		s->in_fault(s->arg);
	if (!s->ready[s->step + 1])
		return s->error;
	s->step++;
	return 0;
}

static const struct slu_source_ops step_ops = {step_copy, step_fault_in};

/* ------------------------------------------------------------------ out of space */

#define NPAGES 32u

static unsigned char pattern[NPAGES * PAGE * 2], back[NPAGES * PAGE * 2];

static void check_zero_from(struct rig *r, uint64_t pos)
{
	for (uint64_t i = pos / PAGE + (pos % PAGE != 0); i < NPAGES + 4; i++)
		must_eq(slu_mem_inode_type(r->inode, i, NULL), SLU_IOMAP_HOLE);
}

/* The bytes before it are written and nothing else: no reservation, no block, no byte. */
static void no_space_at(uint64_t n, uint64_t pos, bool volume_full)
{
	struct rig_opts o = {.nblocks = volume_full && n ? n : 8192};
	uint64_t len = NPAGES * PAGE - pos,
		 fits = n * PAGE > pos ? slu_min(n * PAGE - pos, len) : 0;
	struct slu_write_result res;
	struct rig r;
	int err;

	rig_init(&r, &o);
	if (!volume_full)
		r.mem.reserve_limit_page = n;
	err = rig_write_flags(&r, pos, pattern, len, 0, &res);
	must_eq(err, fits ? 0 : -ENOSPC);
	must_eq(res.done, fits);
	must_eq(slu_aspace_size(&r.as), fits ? pos + fits : 0);
	must_eq(r.mem.reserved, fits ? n : 0);
	rig_check(&r);
	check_zero_from(&r, n * PAGE);
	r.mem.reserve_limit_page = UINT64_MAX;
	must_eq(rig_sync(&r), 0);
	must_eq(r.mem.reserved, 0);
	must_eq(r.mem.used, fits ? n : 0);
	must_eq(rig_disk_size(&r), fits ? pos + fits : 0);
	rig_drop_clean(&r);
	must_eq(rig_read(&r, 0, back, sizeof(back)), fits ? pos + fits : 0);
	for (uint64_t i = 0; i < pos && fits; i++)
		must_eq(back[i], 0);
	must(memcmp(back + pos, pattern, fits) == 0);
	must_eq(rig_fini(&r), 0);
}

static void out_of_space_at_every_page(void **state)
{
	for (uint64_t n = 0; n <= NPAGES; n++) {
		no_space_at(n, 0, false);
		no_space_at(n, 1234, false);
		if (n)
			no_space_at(n, 0, true);
	}
}

static void out_of_space_in_a_hole_between_blocks(void **state)
{
	for (uint64_t n = 1; n < 8; n++) {
		struct slu_write_result res;
		struct rig r;

		rig_init(&r, &(struct rig_opts){0});
		rig_write(&r, 0, pattern, 16 * PAGE);
		must_eq(rig_sync(&r), 0);
		must_eq(rig_punch(&r, 4 * PAGE, 12 * PAGE), 0);
		r.mem.reserve_limit_page = 4 + n;
		must_eq(rig_write_flags(&r, PAGE, pattern + 7, 14 * PAGE, 0, &res), 0);
		must_eq(res.done, (3 + n) * PAGE);
		must_eq(r.mem.reserved, n);
		rig_check(&r);
		must_eq(rig_sync(&r), 0);
		rig_drop_clean(&r);
		must_eq(rig_read(&r, 0, back, 16 * PAGE), 16 * PAGE);
		must(memcmp(back + PAGE, pattern + 7, (3 + n) * PAGE) == 0);
		for (uint64_t i = (4 + n) * PAGE; i < 12 * PAGE; i++)
			must_eq(back[i], 0);
		must(memcmp(back + 12 * PAGE, pattern + 12 * PAGE, 4 * PAGE) == 0);
		must_eq(rig_fini(&r), 0);
	}
}

/* The kernel ignores a short count for what it writes back itself. */
static void the_kernels_own_pages_are_whole_or_nothing(void **state)
{
	for (uint64_t n = 0; n < 24; n++) {
		struct slu_write_result res;
		struct rig r;

		rig_init(&r, &(struct rig_opts){0});
		/* Blocks at 0..3 and 8..11, holes between and behind. */
		rig_write(&r, 0, pattern, 4 * PAGE);
		rig_write(&r, 8 * PAGE, pattern + 8 * PAGE, 4 * PAGE);
		must_eq(rig_sync(&r), 0);
		r.mem.reserve_limit_page = n;
		must_eq(rig_write_flags(&r, PAGE, pattern + 3, 23 * PAGE, SLU_WRITE_KERNEL_CACHE,
					&res),
			-ENOSPC);
		must_eq(res.done, 0);
		must_eq(r.mem.reserved, 0);
		must_eq(slu_aspace_size(&r.as), 12 * PAGE);
		must(!slu_aspace_dirty(&r.as));
		rig_check(&r);
		must_eq(rig_read(&r, 0, back, 12 * PAGE), 12 * PAGE);
		must(memcmp(back, pattern, 4 * PAGE) == 0);
		must(memcmp(back + 8 * PAGE, pattern + 8 * PAGE, 4 * PAGE) == 0);
		r.mem.reserve_limit_page = UINT64_MAX;
		must_eq(rig_write_flags(&r, PAGE, pattern + 3, 23 * PAGE, SLU_WRITE_KERNEL_CACHE,
					&res),
			0);
		must_eq(res.done, 23 * PAGE);
		must_eq(rig_read(&r, PAGE, back, 23 * PAGE), 23 * PAGE);
		must(memcmp(back, pattern + 3, 23 * PAGE) == 0);
		must_eq(rig_fini(&r), 0);
	}
}

/* ------------------------------------------------------------------ short copies */

enum page_state { ABSENT_HOLE, ABSENT_UNWRITTEN, ABSENT_MAPPED, CLEAN, DIRTY, NPAGE_STATES };

/* A file of 2 pages and 100 bytes whose pages are in that state. */
static void file_in_state(struct rig *r, enum page_state state, unsigned char *bytes)
{
	memset(bytes, 0, 4 * PAGE);
	if (state == ABSENT_HOLE || state == ABSENT_UNWRITTEN) {
		if (state == ABSENT_UNWRITTEN)
			must_eq(slu_mem_inode_set(r->inode, 0, 4, SLU_IOMAP_UNWRITTEN), 0);
		must_eq(rig_truncate(r, 2 * PAGE + 100), 0);
		return;
	}
	rig_pattern(bytes, 0, 2 * PAGE + 100, 9);
	rig_write(r, 0, bytes, 2 * PAGE + 100);
	if (state == DIRTY)
		return;
	must_eq(rig_sync(r), 0);
	if (state == ABSENT_MAPPED)
		rig_drop_clean(r);
}

/* Writes [pos, pos + len) with a source that is short after k bytes; `more` then follow, or an
 * error. */
static void short_at(struct rig *r, enum page_state state, uint64_t pos, size_t len, size_t k,
		     bool more)
{
	static unsigned char bytes[4 * PAGE], got[4 * PAGE];
	struct step_source s = {.source.ops = &step_ops,
				.data = pattern,
				.len = len,
				.error = -EFAULT};
	struct slu_write_result res;
	uint64_t size = 2 * PAGE + 100, done = more ? len : k;
	int err;

	rig_init(r, &(struct rig_opts){.cache_bytes = 1u << 20, .is_inline = true});
	file_in_state(r, state, bytes);
	s.ready[0] = k;
	s.ready[1] = more ? len : 0;
	err = slu_write(&r->as, &s.source, pos, len, 0, &res, NULL);
	must_eq(err, done ? 0 : -EFAULT);
	must_eq(res.done, done);
	must_eq(s.nfaults, k < len);
	memcpy(bytes + pos, pattern, done);
	size = done ? slu_max(size, pos + done) : size;
	must_eq(slu_aspace_size(&r->as), size);
	rig_check(r);
	must_eq(rig_read(r, 0, got, sizeof(got)), size);
	must(memcmp(got, bytes, size) == 0);
	must_eq(rig_sync(r), 0);
	rig_drop_clean(r);
	must_eq(rig_read(r, 0, got, sizeof(got)), size);
	must(memcmp(got, bytes, size) == 0);
	must_eq(rig_fini(r), 0);
}

static void truncate_in_fault(void *arg)
{
	must_eq(rig_truncate(arg, 100), 0);
}

/* Between two segments the file is cut: the rest goes where it was to go, behind a hole. */
static void a_file_cut_while_the_source_is_waited_for(void **state)
{
	for (int st = 0; st < 3; st++) {
		static unsigned char want[5 * PAGE];
		struct step_source s = {.source.ops = &step_ops, .data = pattern, .len = 4 * PAGE};
		/* On a page's edge, and in the middle of one that has to be read in for that. */
		size_t k = st ? 2 * PAGE + 77 : 2 * PAGE, kept = st ? 3 * PAGE : k + PAGE;
		struct slu_write_result res;
		struct rig r;

		rig_init(&r, &(struct rig_opts){0});
		rig_pattern(back, 0, 4 * PAGE, 8);
		rig_write(&r, 0, back, 4 * PAGE);
		must_eq(rig_sync(&r), 0);
		if (st == 2)
			rig_drop_clean(&r);
		s.ready[0] = k;
		s.ready[1] = s.len;
		s.in_fault = truncate_in_fault;
		s.arg = &r;
		memset(want, 0, sizeof(want));
		memcpy(want, back, 100);
		must_eq(slu_write(&r.as, &s.source, PAGE, 4 * PAGE, 0, &res, NULL), 0);
		must_eq(res.done, 4 * PAGE);
		/* Bytes that were published before the cut are gone; those carried over it are not.
		 */
		if (st == 2)
			memcpy(want + kept, pattern + kept - PAGE, 5 * PAGE - kept);
		else
			memcpy(want + PAGE + k, pattern + k, 4 * PAGE - k);
		rig_check(&r);
		must_eq(rig_read(&r, 0, back, sizeof(back)), 5 * PAGE);
		must(memcmp(back, want, 5 * PAGE) == 0);
		must_eq(rig_sync(&r), 0);
		rig_drop_clean(&r);
		must_eq(rig_read(&r, 0, back, sizeof(back)), 5 * PAGE);
		must(memcmp(back, want, 5 * PAGE) == 0);
		must_eq(rig_fini(&r), 0);
	}
}

static size_t next_k(size_t k)
{
	/* Every byte near the edges of the page and of what is written; every 97th between. */
	return k < 8 || (k > 4080 && k < 4110) ? k + (RIG_SLOW + 3) / 4
					       : slu_min(k + 97, k < 4081 ? 4081u : SIZE_MAX);
}

static void short_copies_in_every_state(void **state)
{
	struct rig r;

	for (int st = 0; st < NPAGE_STATES; st++)
		for (size_t k = 0; k <= 2 * PAGE; k = next_k(k)) {
			short_at(&r, st, 0, 2 * PAGE, k, true);
			short_at(&r, st, 0, 2 * PAGE, k, false);
		}
}

/* The long one: every byte of a page, for a page that is covered whole and must be read when it is
 * not. */
static void short_copies_at_every_byte_of_a_page(void **state)
{
	struct rig r;

	for (size_t k = 0; k <= PAGE; k += RIG_SLOW | 1) {
		short_at(&r, ABSENT_MAPPED, PAGE, PAGE, k, k % 2);
		short_at(&r, k % 3 ? CLEAN : ABSENT_HOLE, PAGE, PAGE, k, k % 2);
	}
}

static void short_copies_of_partial_pages(void **state)
{
	struct rig r;

	for (int st = 0; st < NPAGE_STATES; st++)
		for (size_t k = 0; k <= 300;
		     k += k < 5 || (k > 95 && k < 105) ? (RIG_SLOW + 3) / 4 : 13) {
			short_at(&r, st, 2 * PAGE + 50, 300, k,
				 true); /* over the end of the file */
			short_at(&r, st, 2 * PAGE + 50, 300, k, false);
			short_at(&r, st, PAGE - 100, 300, k, true); /* over the end of a page */
			short_at(&r, st, PAGE - 100, 300, k, false);
			short_at(&r, st, 2 * PAGE + 300, 300, k, true); /* behind the end */
		}
}

/* ------------------------------------------------------------------ errors of every I/O */

enum io_case { IO_SUCCESS, IO_SUBMIT_FAILS, IO_COMPLETION_FAILS, NIO_CASES };

static int set_fault(struct rig *r, enum slu_io_op op, enum io_case c)
{
	struct slu_simdisk_fault f = {
		.op = op,
		.nth = 1,
		.times = 1,
		.kind = c == IO_SUBMIT_FAILS ? SLU_FAULT_SUBMIT_ERROR : SLU_FAULT_ERROR,
		.error = -EIO,
	};

	slu_simdisk_fault(r->disk, c == IO_SUCCESS ? NULL : &f);
	return c == IO_SUCCESS ? 0 : -EIO;
}

static void a_read_that_fails_is_tried_again_by_the_next(void **state)
{
	for (int c = 0; c < NIO_CASES; c++) {
		struct rig r;
		int want;

		rig_init(&r, &(struct rig_opts){0});
		rig_write(&r, 0, pattern, 8 * PAGE);
		must_eq(rig_sync(&r), 0);
		rig_drop_clean(&r);
		want = set_fault(&r, SLU_IO_READ, c);
		must_eq(rig_read(&r, 10, back, 8 * PAGE - 10),
			want ? want : (int64_t)(8 * PAGE - 10));
		rig_check(&r);
		must_eq(rig_read(&r, 10, back, 8 * PAGE - 10), 8 * PAGE - 10);
		must(memcmp(back, pattern + 10, 8 * PAGE - 10) == 0);
		must_eq(rig_fini(&r), 0);
	}
}

static void a_partial_page_that_cannot_be_read_is_not_written(void **state)
{
	for (int c = 0; c < NIO_CASES; c++) {
		struct slu_write_result res;
		struct rig r;
		int want;

		rig_init(&r, &(struct rig_opts){0});
		rig_write(&r, 0, pattern, 2 * PAGE);
		must_eq(rig_sync(&r), 0);
		rig_drop_clean(&r);
		want = set_fault(&r, SLU_IO_READ, c);
		must_eq(rig_write_flags(&r, 100, "abc", 3, 0, &res), want);
		must_eq(res.done, want ? 0 : 3);
		must_eq(slu_aspace_dirty(&r.as), !want);
		rig_check(&r);
		must_eq(rig_read(&r, 0, back, 2 * PAGE), 2 * PAGE);
		must(memcmp(back + 100, want ? (const void *)(pattern + 100) : "abc", 3) == 0);
		must(memcmp(back + 103, pattern + 103, 2 * PAGE - 103) == 0);
		must_eq(rig_fini(&r), 0);
	}
}

static void a_page_behind_a_bad_block_can_be_overwritten_whole(void **state)
{
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, pattern, 2 * PAGE);
	must_eq(rig_sync(&r), 0);
	rig_drop_clean(&r);
	slu_simdisk_fault(r.disk, &(struct slu_simdisk_fault){.op = SLU_IO_READ,
							      .nth = 1,
							      .times = UINT64_MAX,
							      .kind = SLU_FAULT_ERROR,
							      .error = -EIO});
	must_eq(rig_read(&r, 0, back, PAGE), -EIO);
	rig_write(&r, 0, pattern + 5, PAGE);
	must_eq(rig_read(&r, 0, back, PAGE), PAGE);
	must(memcmp(back, pattern + 5, PAGE) == 0);
	must_eq(rig_fini(&r), 0);
}

static void a_failing_map_leaves_nothing_behind(void **state)
{
	for (uint64_t nth = 1; nth < 4; nth++) {
		struct slu_write_result res;
		struct rig r;
		int err;

		rig_init(&r, &(struct rig_opts){0});
		r.mem.max_map = 2;
		r.mem.fail_map_nth = nth;
		err = rig_write_flags(&r, 0, pattern, 8 * PAGE, 0, &res);
		must_eq(err, nth == 1 ? -EIO : 0);
		must_eq(res.done, (nth - 1) * 2 * PAGE);
		must_eq(r.mem.reserved, (nth - 1) * 2);
		rig_check(&r);
		must_eq(rig_fini(&r), 0);
	}
}

/* ------------------------------------------------------------------ allocation failures */

/* Partial pages at both ends have to be read in; the kernel's own request waits for memory instead.
 */
static void no_memory_at_any_point_of_a_write(void **state)
{
	uint64_t nfailed = 0;

	for (int kernel = 0; kernel < 2; kernel++)
		for (uint64_t nth = 1; nth < 40; nth++) {
			struct slu_write_result res;
			struct rig r;
			int err;

			rig_init(&r, &(struct rig_opts){.cache_bytes = 1u << 20});
			rig_write(&r, 0, pattern + 1, 25 * PAGE);
			must_eq(rig_sync(&r), 0);
			rig_drop_clean(&r);
			slu_alloc_fail_nth(nth);
			err = rig_write_flags(&r, 77, pattern, 20 * PAGE,
					      kernel ? SLU_WRITE_KERNEL_CACHE : 0, &res);
			slu_alloc_fail_nth(0);
			must(err == 0 || (!kernel && err == -ENOMEM));
			must(err || res.done == 20 * PAGE || (!kernel && res.done));
			nfailed += err != 0;
			rig_check(&r);
			must_eq(rig_read(&r, 77, back, 20 * PAGE), 20 * PAGE);
			must(memcmp(back, pattern, res.done) == 0);
			must_eq(rig_fini(&r), 0);
		}
	must(nfailed);
}

static void no_memory_at_any_point_of_a_read(void **state)
{
	struct rig r;
	int64_t n = 0;

	rig_init(&r, &(struct rig_opts){0});
	rig_write(&r, 0, pattern, 20 * PAGE);
	must_eq(rig_sync(&r), 0);
	for (uint64_t nth = 1; nth < 30; nth++) {
		rig_drop_clean(&r);
		slu_alloc_fail_nth(nth);
		n = rig_read_ahead(&r, 0, back, 16 * PAGE, 4);
		slu_alloc_fail_nth(0);
		must(n == -ENOMEM || n == (int64_t)(16 * PAGE));
		rig_check(&r);
	}
	must_eq(n, 16 * PAGE);
	must_eq(rig_fini(&r), 0);
}

/* ------------------------------------------------------------------ limits and positions */

static void writes_near_the_largest_offset(void **state)
{
	struct slu_write_result res;
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	must_eq(rig_write_flags(&r, INT64_MAX, "x", 1, 0, &res), -EFBIG);
	must_eq(rig_write_flags(&r, UINT64_MAX - 5, "x", 1, 0, &res), -EFBIG);
	must_eq(rig_write_flags(&r, INT64_MAX - 3, "abcdef", 6, 0, &res), 0);
	must_eq(res.done, 3);
	must_eq(slu_aspace_size(&r.as), INT64_MAX);
	must_eq(rig_read(&r, INT64_MAX - 5, back, 100), 5);
	must(memcmp(back, "\0\0abc", 5) == 0);
	must_eq(rig_fini(&r), 0);
}

/* The block of the old last page holds anything beyond the size; the file that grows shows zeros.
 */
static void a_file_that_grows_shows_zeros(void **state)
{
	for (int how = 0; how < 4; how++) {
		struct rig r;

		rig_init(&r, &(struct rig_opts){0});
		rig_write(&r, 0, pattern, PAGE);
		must_eq(rig_sync(&r), 0);
		must_eq(rig_truncate(&r, 100), 0);
		if (how & 1)
			rig_drop_clean(&r);
		if (how & 2)
			must_eq(rig_truncate(&r, 3 * PAGE), 0);
		else
			rig_write(&r, 2 * PAGE, pattern, PAGE);
		must_eq(rig_read(&r, 0, back, PAGE), PAGE);
		must(memcmp(back, pattern, 100) == 0);
		for (uint64_t i = 100; i < PAGE; i++)
			must_eq(back[i], 0);
		must_eq(rig_sync(&r), 0);
		rig_drop_clean(&r);
		must_eq(rig_read(&r, 0, back, PAGE), PAGE);
		for (uint64_t i = 100; i < PAGE; i++)
			must_eq(back[i], 0);
		must_eq(rig_fini(&r), 0);
	}
}

static void holes_and_unwritten_ranges_take_no_frames(void **state)
{
	const struct slu_cache_stats *stats;
	struct slu_read_vec v;
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	stats = slu_cache_stats(r.cache);
	must_eq(slu_mem_inode_set(r.inode, 10, 10, SLU_IOMAP_UNWRITTEN), 0);
	must_eq(rig_truncate(&r, 40 * PAGE + 5), 0);
	must_eq(slu_read(&r.as, r.bio, 3, 50 * PAGE, 0, &v), 0);
	must_eq(v.len, 40 * PAGE + 2);
	must_eq(v.niov, 1);
	for (uint64_t i = 0; i < v.len; i++)
		must_eq(((char *)v.iov[0].iov_base)[i], 0);
	must_eq(stats->pages, 0);
	slu_read_done(&v);
	must_eq(stats->free_frames, stats->frames);
	must_eq(rig_fini(&r), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(out_of_space_at_every_page),
		cmocka_unit_test(out_of_space_in_a_hole_between_blocks),
		cmocka_unit_test(the_kernels_own_pages_are_whole_or_nothing),
		cmocka_unit_test(a_file_cut_while_the_source_is_waited_for),
		cmocka_unit_test(short_copies_in_every_state),
		cmocka_unit_test(short_copies_at_every_byte_of_a_page),
		cmocka_unit_test(short_copies_of_partial_pages),
		cmocka_unit_test(a_read_that_fails_is_tried_again_by_the_next),
		cmocka_unit_test(a_partial_page_that_cannot_be_read_is_not_written),
		cmocka_unit_test(a_page_behind_a_bad_block_can_be_overwritten_whole),
		cmocka_unit_test(a_failing_map_leaves_nothing_behind),
		cmocka_unit_test(no_memory_at_any_point_of_a_write),
		cmocka_unit_test(no_memory_at_any_point_of_a_read),
		cmocka_unit_test(writes_near_the_largest_offset),
		cmocka_unit_test(a_file_that_grows_shows_zeros),
		cmocka_unit_test(holes_and_unwritten_ranges_take_no_frames),
	};

	rig_pattern(pattern, 0, sizeof(pattern), 3);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
