/* SPDX-License-Identifier: MIT */
/* Entries in the journal: their fields, and that each kind of event is explained, in the same words. */
#include "daemon_private.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ------------------------------------------------------------------ fields */

static char *all_fields(const char *volume, const char *image, const struct slu_event *ev)
{
	struct journal_fields f;
	GString *all = g_string_new("\n");

	journal_fields_init(&f, LOG_ERR, volume, image, ev, ev ? "/a/b" : NULL, "a line");
	for (unsigned int i = 0; i < f.n; i++)
		g_string_append_printf(all, "%s\n", f.fields[i]);
	journal_fields_fini(&f);
	return g_string_free(all, FALSE);
}

static void assert_field(const char *all, const char *field)
{
	g_autofree char *line = g_strdup_printf("\n%s\n", field);

	if (!strstr(all, line))
		fail_msg("no %s in:%s", field, all);
}

static void a_line_says_of_which_volume_it_is(void **state)
{
	g_autofree char *before = all_fields(NULL, NULL, NULL);
	g_autofree char *after = all_fields("/mnt", "/img", NULL);

	(void)state;
	assert_string_equal(before, "\nMESSAGE=a line\nPRIORITY=3\nSYSLOG_IDENTIFIER=sluicefs\n");
	assert_string_equal(after,
			    "\nMESSAGE=/mnt: a line\nPRIORITY=3\nSYSLOG_IDENTIFIER=sluicefs\n"
			    "SLUICEFS_VOLUME=/mnt\nSLUICEFS_IMAGE=/img\n");
}

static void an_event_has_its_numbers(void **state)
{
	struct slu_event ev = {
		.kind = SLU_EVENT_DATA_LOST, .error = -EIO, .ino = 42, .pos = 4096, .len = 8192};
	g_autofree char *lost = all_fields("/mnt", "/img", &ev), *node = NULL, *thawed = NULL;

	(void)state;
	assert_field(lost, "SLUICEFS_EVENT=data-lost");
	assert_field(lost, "SLUICEFS_INODE=42");
	assert_field(lost, "SLUICEFS_PATH=/a/b");
	assert_field(lost, "SLUICEFS_POSITION=4096");
	assert_field(lost, "SLUICEFS_LENGTH=8192");
	assert_field(lost, "ERRNO=5");
	ev = (struct slu_event){.kind = SLU_EVENT_NODE_CORRUPT, .pos = 77};
	node = all_fields("/mnt", "/img", &ev);
	assert_field(node, "SLUICEFS_BLOCK=77");
	assert_null(strstr(node, "INODE"));
	assert_null(strstr(node, "ERRNO"));
	ev = (struct slu_event){.kind = SLU_EVENT_THAWED, .len = 1500000};
	thawed = all_fields("/mnt", "/img", &ev);
	assert_field(thawed, "SLUICEFS_DURATION_USEC=1500");
}

static void every_kind_fits_and_has_an_id_of_its_own(void **state)
{
	g_autoptr(GHashTable) ids = g_hash_table_new(g_str_hash, g_str_equal);

	(void)state;
	for (enum slu_event_kind kind = 0; kind < SLU_EVENT_KINDS; kind++) {
		struct slu_event ev = {.kind = kind, .error = -EIO, .ino = 1, .pos = 2, .len = 3};
		const char *id = journal_message_id(kind);
		g_autofree char *all = all_fields("/mnt", "/img", &ev);
		g_autofree char *field = g_strdup_printf("MESSAGE_ID=%s", id);

		assert_non_null(id);
		assert_int_equal(strlen(id), 32);
		assert_int_equal(strspn(id, "0123456789abcdef"), 32);
		assert_true(g_hash_table_add(ids, (char *)id));
		assert_field(all, field);
	}
}

/* ------------------------------------------------------------------ is it the journal? */

static void the_journal_is_known_by_device_and_inode(void **state)
{
	int fds[2];
	char name[64];
	struct stat st;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(fstat(fds[1], &st), 0);
	snprintf(name, sizeof(name), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", name, 1);
	assert_true(journal_is(fds[1]));
	close(fds[0]);
	close(fds[1]);
	assert_false(journal_is(fds[1])); /* closed */
	assert_int_equal(pipe(fds), 0);
	assert_false(journal_is(fds[1])); /* another, as after a redirection */
	setenv("JOURNAL_STREAM", "nonsense", 1);
	assert_false(journal_is(fds[1]));
	unsetenv("JOURNAL_STREAM");
	assert_false(journal_is(fds[1]));
	close(fds[0]);
	close(fds[1]);
}

/* ------------------------------------------------------------------ words */

static char *read_source(const char *name)
{
	g_autofree char *path = g_build_filename(SOURCE_DIR, name, NULL);
	char *text;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		fail_msg("%s cannot be read", path);
	return text;
}

/* In one line, without the marks of Markdown. */
static char *squeeze(const char *text)
{
	g_autoptr(GString) s = g_string_new(NULL);

	for (; *text; text++) {
		bool blank = g_ascii_isspace(*text);

		if (*text != '`' && !(blank && s->len && s->str[s->len - 1] == ' '))
			g_string_append_c(s, blank ? ' ' : *text);
	}
	return g_strdup(g_strstrip(s->str));
}

/* What stands between two strings of text; fails if it is not there exactly once. */
static char *between(const char *text, const char *begin, const char *end)
{
	const char *a = strstr(text, begin), *b;

	if (!a || strstr(a + 1, begin))
		fail_msg("not there once: %s", begin);
	a += strlen(begin);
	b = strstr(a, end);
	return b ? g_strndup(a, (gsize)(b - a)) : g_strdup(a);
}

static char *replaced(const char *text, const char *from, const char *to)
{
	g_auto(GStrv) parts = g_strsplit(text, from, -1);

	return g_strjoinv(to, parts);
}

/* As the row of the table in operations.md: "means | do" */
static char *as_a_row(const char *entry)
{
	g_autofree char *body = g_strdup(strstr(entry, "\n\n"));
	g_autofree char *words = squeeze(body);
	g_autofree char *row = replaced(words, " What to do: ", " | ");
	g_autofree char *dir = replaced(row, "@SLUICEFS_VOLUME@", "DIR");
	g_autofree char *image = replaced(dir, "@SLUICEFS_IMAGE@", "IMAGE");

	return replaced(image, "@SLUICEFS_INODE@", "N");
}

/* journalctl -x leaves a name that an entry does not have as it stands. */
static void assert_fields_there(const char *entry, enum slu_event_kind kind)
{
	struct slu_event ev = {.kind = kind, .error = -EIO, .ino = 1, .pos = 2, .len = 3};
	g_autofree char *all = all_fields("/mnt", "/img", &ev);
	g_auto(GStrv) parts = g_strsplit(entry, "@", -1);

	for (guint i = 1; parts[i] && parts[i + 1]; i += 2) {
		g_autofree char *field = g_strdup_printf("\n%s=", parts[i]);

		if (!strstr(all, field))
			fail_msg("%s has no %s", slu_event_kind_name(kind), parts[i]);
	}
}

/* As a word of its own. */
static bool names(const char *page, const char *word)
{
	g_autofree char *pattern = g_strdup_printf("[ \n]%s[ \n]", word);

	return g_regex_match_simple(pattern, page, 0, 0);
}

static void every_kind_is_explained_in_the_same_words(void **state)
{
	g_autofree char *catalog = read_source("contrib/systemd/sluicefs.catalog");
	g_autofree char *operations = read_source("docs/operations.md");
	g_autofree char *page = read_source("docs/man/sluicefs.8");
	unsigned int entries = 0;

	(void)state;
	for (enum slu_event_kind kind = 0; kind < SLU_EVENT_KINDS; kind++) {
		const char *name = slu_event_kind_name(kind);
		g_autofree char *head = g_strdup_printf("\n-- %s\n", journal_message_id(kind));
		g_autofree char *first = g_strdup_printf("\n| `%s` | ", name);
		g_autofree char *entry = between(catalog, head, "\n-- ");
		g_autofree char *row = between(operations, first, " |\n");
		g_autofree char *said = as_a_row(entry), *documented = squeeze(row);

		assert_string_equal(said, documented);
		assert_true(names(page, name));
		assert_true(g_str_has_prefix(entry, "Subject: "));
		assert_fields_there(entry, kind);
	}
	for (const char *at = catalog; (at = strstr(at, "\n-- ")); at++)
		entries++;
	assert_int_equal(entries, SLU_EVENT_KINDS); /* none of an event that is no more */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_says_of_which_volume_it_is),
		cmocka_unit_test(an_event_has_its_numbers),
		cmocka_unit_test(every_kind_fits_and_has_an_id_of_its_own),
		cmocka_unit_test(the_journal_is_known_by_device_and_inode),
		cmocka_unit_test(every_kind_is_explained_in_the_same_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
