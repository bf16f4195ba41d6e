/* SPDX-License-Identifier: MIT */
/*
 * A WRITE that fails, in every way it can, and who reads meanwhile and afterwards: what it did not
 * accept is never seen, and what was there before is seen and is on the disk. docs/failure-model.md
 * has the three questions; what becomes of data that was accepted is in test_fs_write_failed.c.
 */
#include "pages_rig.h"

#define NPAGES 12u /* of the file's place; its first OLD pages have bytes */
#define OLD    4u
#define BYTES  (NPAGES * PAGE)

/* What the pages are before the write: the three questions. */
enum question { NEW_PAGES, UPTODATE_PAGES, UNREAD_PAGES, NQUESTIONS };

static unsigned char before[BYTES], data[BYTES];

struct scene {
	struct rig r;
	enum question question;
	uint64_t size;     /* of the file before */
	uint64_t pos, len; /* the write */
	uint64_t upto;     /* bytes before it may be seen as written */
	struct slu_thread reader;
	_Atomic bool stop;
};

/*
 * Some moment of the write: the old bytes or, as far as they can have been accepted, the new ones.
 */
static void check_moment(struct scene *s)
{
	unsigned char got[BYTES];
	int64_t n = rig_read(&s->r, 0, got, BYTES);

	must(n >= (int64_t)s->size && n <= (int64_t)slu_max(s->size, s->upto));
	for (uint64_t i = 0; i < (uint64_t)n; i++) {
		bool is_new = i >= s->pos && i < s->upto && got[i] == data[i];

		must(is_new || got[i] == before[i]);
	}
}

static void reader_main(void *arg)
{
	struct scene *s = arg;

	while (!atomic_load(&s->stop))
		check_moment(s);
}

/* The writer stands still for a moment wherever a reader could come in between. */
static void let_readers(void *arg)
{
	slu_sleep_ns(100000);
}

static const char *const points[] = {"write.before_lock", "write.before_publish",
				     "write.tail_locked", "write.before_finish",
				     "write.before_fault_in"};

static void scene_begin(struct scene *s, enum question q, uint64_t pos, uint64_t len, uint64_t upto)
{
	memset(s, 0, sizeof(*s));
	s->question = q;
	s->pos = pos;
	s->len = len;
	s->upto = upto;
	memset(before, 0, sizeof(before));
	rig_init(&s->r, &(struct rig_opts){.cache_bytes = 1u << 20});
	if (q != NEW_PAGES) {
		s->size = OLD * PAGE;
		rig_pattern(before, 0, s->size, 9);
		rig_write(&s->r, 0, before, s->size);
		must_eq(rig_sync(&s->r), 0);
	}
	if (q == UNREAD_PAGES)
		rig_drop_clean(&s->r);
	/* Who reads would bring the pages in; the unread ones are looked at between the steps. */
	if (q != UNREAD_PAGES)
		must_eq(slu_thread_start(&s->reader, "reader", reader_main, s), 0);
	for (size_t i = 0; i < slu_array_size(points); i++)
		(void)slu_stress_point_set(points[i], let_readers, NULL);
}

/* After the write: `done` bytes of it and not one more, in memory and on the disk. */
static void scene_end(struct scene *s, uint64_t done)
{
	unsigned char want[BYTES], got[BYTES];
	uint64_t size = done ? slu_max(s->size, s->pos + done) : s->size;

	for (size_t i = 0; i < slu_array_size(points); i++)
		(void)slu_stress_point_set(points[i], NULL, NULL);
	atomic_store(&s->stop, true);
	if (s->question != UNREAD_PAGES)
		slu_thread_join(&s->reader);
	memcpy(want, before, BYTES);
	memcpy(want + s->pos, data + s->pos, done);
	rig_check(&s->r);
	must_eq(slu_aspace_size(&s->r.as), size);
	for (int i = 0; i < 2; i++) {
		must_eq(rig_read(&s->r, 0, got, BYTES), size);
		must(memcmp(got, want, size) == 0);
		/* No error was swallowed: nothing is left that could not be written. */
		must_eq(rig_sync(&s->r), 0);
		must_eq(rig_disk_size(&s->r), size);
		rig_drop_clean(&s->r);
	}
	must_eq(rig_fini(&s->r), 0);
}

/* ------------------------------------------------------------------ reservation */

/*
 * Space runs out at page n. A write that may be short is, at that page; one that is whole or nothing
 * leaves every page as it was, those too for which there was space.
 */
static void no_space_at(enum question q, uint64_t n, unsigned int flags)
{
	uint64_t pos = q == NEW_PAGES ? 0 : PAGE + 100, len = BYTES - pos - 50;
	bool whole = flags != 0;
	uint64_t fits = whole || n * PAGE <= pos ? 0 : n * PAGE - pos;
	struct slu_write_result res;
	struct scene s;
	int err;

	scene_begin(&s, q, pos, len, pos + fits);
	slu_mutex_lock(&s.r.mem.lock);
	s.r.mem.reserve_limit_page = n;
	s.r.mem.max_map = n % 2 * 2; /* several mappings, of which some have been reserved */
	slu_mutex_unlock(&s.r.mem.lock);
	err = rig_write_flags(&s.r, pos, data + pos, len, flags, &res);
	must_eq(err, fits ? 0 : -ENOSPC);
	must_eq(res.done, fits);
	must_eq(s.r.mem.reserved, !fits ? 0 : q == NEW_PAGES ? n : n - OLD);
	scene_end(&s, fits);
}

static void no_space(enum question q)
{
	static const unsigned int flags[] = {0, SLU_WRITE_WHOLE, SLU_WRITE_KERNEL_CACHE};

	for (uint64_t n = q == NEW_PAGES ? 0 : OLD; n < NPAGES; n++)
		for (size_t i = 0; i < slu_array_size(flags); i++)
			no_space_at(q, n, flags[i]);
}

static void new_pages_for_which_there_is_no_space_are_never_seen(void **state)
{
	no_space(NEW_PAGES);
}

static void uptodate_pages_keep_their_bytes_without_space(void **state)
{
	no_space(UPTODATE_PAGES);
}

static void unread_pages_keep_their_bytes_without_space(void **state)
{
	no_space(UNREAD_PAGES);
}

/* ------------------------------------------------------------------ the source */

/* Gives k bytes and then fails, or fails with nothing more to come. */
struct failing_source {
	struct slu_source source;
	struct scene *scene;
	uint64_t at, k;
	int error;
};

static size_t failing_copy(struct slu_source *src, void *dst, size_t len)
{
	struct failing_source *f = slu_container_of(src, struct failing_source, source);
	size_t n = slu_min(len, f->k - f->at);

	memcpy(dst, data + f->scene->pos + f->at, n);
	f->at += n;
	return n;
}

static int failing_fault_in(struct slu_source *src, size_t len)
{
	struct failing_source *f = slu_container_of(src, struct failing_source, source);

	slu_assert_no_locks("a test's source");
	must_eq(f->at, f->k);
	check_moment(f->scene);
	return f->error;
}

static void source_fails_at(enum question q, uint64_t pos, uint64_t k, int error)
{
	static const struct slu_source_ops ops = {failing_copy, failing_fault_in};
	struct failing_source f = {.source.ops = &ops, .k = k, .error = error};
	struct slu_write_result res;
	struct scene s;
	int err;

	scene_begin(&s, q, pos, 3 * PAGE, pos + k);
	f.scene = &s;
	err = slu_write(&s.r.as, &f.source, pos, s.len, 0, &res, NULL);
	must_eq(res.done, k);
	must_eq(err, k ? 0 : error == -ENODATA ? -EIO : error);
	scene_end(&s, k);
}

static void source_fails(enum question q)
{
	static const uint64_t bytes[] = {0,
					 1,
					 99,
					 100,
					 101,
					 PAGE - 1,
					 PAGE,
					 PAGE + 1,
					 2 * PAGE - 7,
					 2 * PAGE,
					 2 * PAGE + 1000,
					 3 * PAGE - 1};

	for (size_t i = 0; i < slu_array_size(bytes); i++) {
		source_fails_at(q, 0, bytes[i], -EFAULT);
		source_fails_at(q, PAGE - 100, bytes[i], -EIO);
		source_fails_at(q, 2 * PAGE + 1, bytes[i], -ENODATA);
	}
}

static void new_pages_have_no_byte_that_the_source_did_not_give(void **state)
{
	source_fails(NEW_PAGES);
}

static void uptodate_pages_change_no_further_than_the_source_went(void **state)
{
	source_fails(UPTODATE_PAGES);
}

static void unread_pages_change_no_further_than_the_source_went(void **state)
{
	source_fails(UNREAD_PAGES);
}

/* ------------------------------------------------------------------ a page that cannot be read */

/* Pages in part at the beginning, the end, or both: none is written over what is not known. */
static void partial_pages_that_cannot_be_read_stay_as_they_are(void **state)
{
	static const struct {
		uint64_t pos, len;
	} writes[] = {{100, 50}, {100, PAGE}, {PAGE, PAGE + 10}, {PAGE + 10, 2 * PAGE}};
	static const int kinds[] = {SLU_FAULT_ERROR, SLU_FAULT_SUBMIT_ERROR};

	for (size_t i = 0; i < slu_array_size(writes); i++)
		for (size_t k = 0; k < slu_array_size(kinds); k++) {
			struct slu_write_result res;
			struct scene s;

			scene_begin(&s, UNREAD_PAGES, writes[i].pos, writes[i].len, 0);
			slu_simdisk_fault(s.r.disk, &(struct slu_simdisk_fault){.op = SLU_IO_READ,
										.nth = 1,
										.times = UINT64_MAX,
										.kind = kinds[k],
										.error = -EIO});
			must_eq(rig_write_flags(&s.r, s.pos, data + s.pos, s.len, 0, &res), -EIO);
			must_eq(res.done, 0);
			must(!slu_aspace_dirty(&s.r.as));
			slu_simdisk_fault(s.r.disk, NULL);
			check_moment(&s);
			scene_end(&s, 0);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_pages_for_which_there_is_no_space_are_never_seen),
		cmocka_unit_test(uptodate_pages_keep_their_bytes_without_space),
		cmocka_unit_test(unread_pages_keep_their_bytes_without_space),
		cmocka_unit_test(new_pages_have_no_byte_that_the_source_did_not_give),
		cmocka_unit_test(uptodate_pages_change_no_further_than_the_source_went),
		cmocka_unit_test(unread_pages_change_no_further_than_the_source_went),
		cmocka_unit_test(partial_pages_that_cannot_be_read_stay_as_they_are),
	};

	rig_pattern(data, 0, sizeof(data), 3);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
