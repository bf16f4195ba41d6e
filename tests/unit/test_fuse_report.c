/* SPDX-License-Identifier: MIT */
/* Events on their way to the log: bounded, rate limited, and the grave ones never lost. */
#include "daemon_private.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static unsigned int nlines, ncritical;
static int last_priority;
static struct slu_event_stream stream;
static char last_line[512], all_lines[1 << 16];

static void collect(int priority, const char *line)
{
	nlines++;
	last_priority = priority;
	ncritical += priority == LOG_CRIT;
	g_strlcpy(last_line, line, sizeof(last_line));
	g_strlcat(all_lines, line, sizeof(all_lines));
	g_strlcat(all_lines, "\n", sizeof(all_lines));
}

static int setup(void **state)
{
	static struct report_events r;

	nlines = ncritical = 0;
	last_line[0] = all_lines[0] = '\0';
	slu_event_stream_init(&stream);
	assert_int_equal(report_events_init(&r, &stream), 0);
	r.write = collect;
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	report_events_fini(*state);
	slu_event_stream_fini(&stream);
	return 0;
}

static void post(enum slu_event_kind kind, uint64_t ino)
{
	struct slu_event_sink sink = slu_event_stream_sink(&stream);
	struct slu_event ev = {.kind = kind, .error = -EIO, .ino = ino, .pos = 4096, .len = 8192};

	slu_event_post(&sink, &ev);
}

static void an_event_becomes_a_line(void **state)
{
	struct report_events *r = *state;

	post(SLU_EVENT_WRITEBACK_ERROR, 42);
	assert_int_equal(nlines, 0); /* a sink does not log */
	report_events_flush(r);
	assert_int_equal(nlines, 1);
	assert_non_null(strstr(last_line, "inode 42"));
	assert_non_null(strstr(last_line, "4096+8192"));
	assert_non_null(strstr(last_line, strerror(EIO)));
	report_events_flush(r);
	assert_int_equal(nlines, 1);
}

/* A record is named by its inode: the place of such an event is no block. */
static void damage_is_named_by_block_or_by_inode(void **state)
{
	struct report_events *r = *state;
	struct slu_event_sink sink = slu_event_stream_sink(&stream);

	slu_event_post(&sink, &(struct slu_event){.kind = SLU_EVENT_NODE_CORRUPT, .pos = 77});
	report_events_flush(r);
	assert_non_null(strstr(last_line, "the metadata in block 77 is damaged"));
	slu_event_post(&sink, &(struct slu_event){.kind = SLU_EVENT_NODE_CORRUPT,
						  .ino = 42,
						  .pos = 4096,
						  .text = "extent records overlap"});
	report_events_flush(r);
	assert_non_null(strstr(last_line, "of inode 42 is damaged: extent records overlap"));
	assert_null(strstr(last_line, "block"));
}

/* What is no error is none in the log: that a copy is not whole, and damage, are. */
static void freezes_and_scrubs_have_the_priority_they_deserve(void **state)
{
	static const struct {
		struct slu_event ev;
		int priority;
		const char *says;
	} cases[] = {
		{{.kind = SLU_EVENT_FROZEN, .len = 60 * SLU_NS_PER_SEC},
		 LOG_NOTICE,
		 "frozen: nothing changes the image for up to 60 s"},
		{{.kind = SLU_EVENT_THAWED, .len = 1500 * SLU_NS_PER_MS},
		 LOG_NOTICE,
		 "after 1.5 s"},
		{{.kind = SLU_EVENT_THAWED, .error = -ETIMEDOUT, .len = SLU_NS_PER_SEC},
		 LOG_WARNING,
		 "after 1.0 s, by the time limit"},
		{{.kind = SLU_EVENT_SCRUB_STARTED, .len = 12}, LOG_INFO, "a scrub of 12 nodes"},
		{{.kind = SLU_EVENT_SCRUB_FINISHED, .len = 12},
		 LOG_INFO,
		 "scrubbed 12 nodes: 0 damaged"},
		{{.kind = SLU_EVENT_SCRUB_FINISHED, .len = 5, .error = -ECANCELED},
		 LOG_INFO,
		 "scrubbed 5 nodes, not all: "},
		{{.kind = SLU_EVENT_SCRUB_FINISHED, .len = 12, .pos = 3},
		 LOG_ERR,
		 "3 damaged; run fsck.sluicefs"},
		{{.kind = SLU_EVENT_SUPER_CORRUPT,
		  .error = -EIO,
		  .pos = 1,
		  .text = "cannot be read"},
		 LOG_ERR,
		 "a bad superblock in block 1 (cannot be read)"},
	};
	struct slu_event_sink sink = slu_event_stream_sink(&stream);

	for (unsigned int i = 0; i < G_N_ELEMENTS(cases); i++) {
		slu_event_post(&sink, &cases[i].ev);
		report_events_flush(*state);
		assert_non_null(strstr(last_line, cases[i].says));
		assert_int_equal(last_priority, cases[i].priority);
	}
}

static void a_flood_of_one_kind_is_ten_lines(void **state)
{
	struct report_events *r = *state;

	for (unsigned int i = 0; i < 100; i++)
		post(SLU_EVENT_WRITEBACK_ERROR, i);
	report_events_flush(r);
	assert_int_equal(nlines, REPORT_PER_WINDOW);
	assert_int_equal(r->suppressed[SLU_EVENT_WRITEBACK_ERROR], 100 - REPORT_PER_WINDOW);
	post(SLU_EVENT_NODE_CORRUPT, 1); /* another kind has its own */
	report_events_flush(r);
	assert_int_equal(nlines, REPORT_PER_WINDOW + 1);
}

static void a_full_ring_keeps_room_for_lost_data(void **state)
{
	struct report_events *r = *state;

	for (unsigned int i = 0; i < 10000; i++)
		post(SLU_EVENT_WRITEBACK_ERROR, i);
	for (unsigned int i = 0; i < REPORT_RING / 4; i++)
		post(SLU_EVENT_DATA_LOST, 1000000 + i);
	report_events_flush(r);
	assert_int_equal(ncritical, REPORT_RING / 4);
	assert_non_null(strstr(all_lines, "DATA LOST: inode 1000063"));
	assert_non_null(strstr(all_lines, "events came too fast"));
}

static void the_ring_wraps(void **state)
{
	struct report_events *r = *state;

	r->watch.ring.head = r->watch.ring.tail = UINT32_MAX - 3;
	for (unsigned int i = 0; i < 8; i++)
		post(SLU_EVENT_READONLY, i);
	report_events_flush(r);
	assert_int_equal(ncritical, 8);
	assert_int_equal(r->watch.ring.head, 4);
}

static void paths_are_fit_to_be_printed(void **state)
{
	static const char *const cases[][2] = {
		{"/a/b c", "/a/b c"},
		{"/\xc3\xa4/\xe6\xb0\xb4", "/\xc3\xa4/\xe6\xb0\xb4"},
		{"/a\nb\x1b[31m\x7f", "/a\\012b\\033[31m\\177"},
		{"/back\\slash", "/back\\134slash"},
		{"/\xff\xc3(\xc3", "/\\377\\303(\\303"},
		{"/\xc2\x9b", "/\\302\\233"}, /* a control character of two bytes */
	};

	(void)state;
	for (unsigned int i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *is = path_escape(cases[i][0]);

		assert_string_equal(is, cases[i][1]);
	}
}

static void a_line_has_the_path_or_the_end_of_it(void **state)
{
	struct slu_event ev = {.kind = SLU_EVENT_DATA_LOST, .error = -EIO, .ino = 42, .len = 4096};
	char path[1024], line[REPORT_LINE];

	(void)state;
	report_event_line(&ev, "/a/b", line, sizeof(line));
	assert_non_null(strstr(line, "inode 42 (/a/b), bytes 0+4096: "));
	/* of two bytes each: none is cut in two */
	for (size_t i = 0; i < sizeof(path) - 2; i += 2)
		memcpy(path + i, "\xc3\xa4", 2);
	memcpy(path + sizeof(path) - 6, "/end", sizeof("/end"));
	path[0] = '/';
	path[1] = 'x';
	report_event_line(&ev, path, line, sizeof(line));
	assert_non_null(strstr(line, "inode 42 (...\xc3\xa4"));
	assert_non_null(strstr(line, "\xc3\xa4/end), bytes 0+4096: "));
	assert_non_null(strstr(line, strerror(EIO)));
	assert_true(g_utf8_validate(line, -1, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_event_becomes_a_line, setup, teardown),
		cmocka_unit_test_setup_teardown(damage_is_named_by_block_or_by_inode, setup,
						teardown),
		cmocka_unit_test_setup_teardown(freezes_and_scrubs_have_the_priority_they_deserve,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_flood_of_one_kind_is_ten_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_ring_keeps_room_for_lost_data, setup,
						teardown),
		cmocka_unit_test_setup_teardown(the_ring_wraps, setup, teardown),
		cmocka_unit_test(paths_are_fit_to_be_printed),
		cmocka_unit_test(a_line_has_the_path_or_the_end_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
