/* SPDX-License-Identifier: MIT */
/* Configuration files: what they say, and that a mistake is one line that says where it is. */
#include "sluice/config.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATHS "[Volume]\nImage=/x\nMountPoint=/y\n"

static char *file;

static int make_file(void **state)
{
	int fd = g_file_open_tmp("sluicefs-XXXXXX.conf", &file, NULL);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	unlink(file);
	g_free(file);
	return 0;
}

static struct slu_config *load(const char *text, gssize len, GError **error)
{
	assert_true(g_file_set_contents(file, text, len, NULL));
	return slu_config_load(file, error);
}

static struct slu_config *load_ok(const char *text)
{
	g_autoptr(GError) error = NULL;
	struct slu_config *c = load(text, -1, &error);

	if (!c)
		fail_msg("\"%s\": %s", text, error->message);
	return c;
}

/* where: ":3: " or ": "; words: what follows it. */
static void load_bad(const char *text, const char *where, const char *words)
{
	g_autofree char *begin = g_strconcat(file, where, NULL);
	g_autoptr(GError) error = NULL;

	assert_null(load(text, -1, &error));
	assert_true(g_error_matches(error, SLU_CONFIG_ERROR, SLU_CONFIG_MISTAKE));
	if (!g_str_has_prefix(error->message, begin) ||
	    !strstr(error->message + strlen(begin), words))
		fail_msg("\"%s\": \"%s\" does not say \"%s%s\"", text, error->message, begin,
			 words);
	assert_null(strchr(error->message, '\n'));
}

/* lines: "4 ro|5 noatime", of the options that count. */
static void assert_options(const char *text, const char *lines)
{
	g_autofree char *whole = g_strconcat(PATHS, text, NULL);
	struct slu_config *c = load_ok(whole);
	g_autoptr(GString) seen = g_string_new(NULL);

	for (guint i = 0; i < c->options->len; i++) {
		const struct slu_config_options *options = g_ptr_array_index(c->options, i);

		g_string_append_printf(seen, "%s%u %s", i ? "|" : "", options->line, options->list);
	}
	assert_string_equal(seen->str, lines);
	slu_config_free(c);
}

static void assert_paths(const char *text, const char *image, const char *mountpoint)
{
	struct slu_config *c = load_ok(text);

	assert_string_equal(c->image, image);
	assert_string_equal(c->mountpoint, mountpoint);
	slu_config_free(c);
}

static void blanks_around_keys_and_values_do_not_count(void **state)
{
	(void)state;
	assert_paths("\t[Volume] \n \n  Image = /a b \t\nMountPoint=\t/c\\d=e \r\n", "/a b",
		     "/c\\d=e");
	assert_paths(PATHS, "/x", "/y");
	assert_paths("[Volume]\nImage=/x\nMountPoint=/y ", "/x", "/y");
	assert_options("Options= ro, noatime \n", "4 ro, noatime");
}

static void comments_and_long_lines_are_as_in_units(void **state)
{
	(void)state;
	assert_paths("# one\n ; two\n[Volume]\nImage=/a \\\n# three\n  b\nMountPoint=/#;\n",
		     "/a  b", "/#;");
	assert_options("Options=ro,\\\n\tnoatime\nOptions=sync\n", "4 ro, noatime|6 sync");
	assert_options("Options=ro\\\n", "4 ro");
	assert_options("Options=ro\\", "4 ro");
	assert_options("Options=ro\\\n# the end", "4 ro");
	/* An escaped backslash ends nothing. */
	assert_options("Options=fsname=a\\\\\nOptions=ro\n", "4 fsname=a\\\\|5 ro");
}

static void options_add_up_until_an_empty_line(void **state)
{
	(void)state;
	assert_options("", "");
	assert_options("Options=\n", "");
	assert_options("Options=ro\n#\nOptions=noatime,commit=1\n", "4 ro|6 noatime,commit=1");
	assert_options("Options=ro\nOptions= \nOptions=noatime\n", "6 noatime");
	assert_options("[Volume]\nOptions=ro\n", "5 ro");
}

static void a_path_is_there_once_and_absolute(void **state)
{
	(void)state;
	load_bad(PATHS "Image=/x\n", ":4: ", "Image= is there already, in line 2: one is expected");
	load_bad(PATHS "\n[Volume]\nMountPoint=/z\n",
		 ":6: ", "MountPoint= is there already, in line 3: one is expected");
	load_bad("[Volume]\nImage=x\nMountPoint=/y\n",
		 ":2: ", "Image=x: an absolute path is expected");
	load_bad("[Volume]\nImage=/x\nMountPoint= \n",
		 ":3: ", "MountPoint=: an absolute path is expected");
	load_bad("[Volume]\nImage=/x\n", ": ", "MountPoint= is missing");
	load_bad("[Volume]\nMountPoint=/x\nOptions=ro\n", ": ", "Image= is missing");
}

static void what_is_not_known_is_a_mistake(void **state)
{
	(void)state;
	load_bad("[Volume]\nImage=/x\nMountPiont=/y\n",
		 ":3: ", "MountPiont= is not known, only Image=, MountPoint=, Options=");
	load_bad("[Volume]\nImage[de]=/x\n", ":2: ", "Image[de]= is not known");
	load_bad("[Volume]\nimage=/x\n", ":2: ", "image= is not known");
	load_bad(PATHS "[Service]\nUser=me\n", ":4: ", "[Service] is not known, only [Volume]");
	load_bad(PATHS "[Volume\n", ":4: ", "[Volume is not known, only [Volume]");
	load_bad(PATHS "noatime\n", ":4: ", "expected Word=value, [Volume] or a comment");
	load_bad(PATHS "=/x\n", ":4: ", "expected Word=value");
	load_bad("Image=/x\n[Volume]\n", ":1: ", "expected [Volume] or a comment");
	load_bad("[Volume]\nImage=/x\\\n y\nMountPoint=z\n", ":4: ", "an absolute path");
	load_bad("# nothing\n", ": ", "there is no [Volume] in it");
	load_bad("", ": ", "there is no [Volume] in it");
}

static void what_is_no_such_file_is_said_to_be_none(void **state)
{
	g_autofree char *large = g_strnfill(70000, '#');
	g_autoptr(GError) error = NULL;

	(void)state;
	load_bad(large, ": ", "this is not a configuration file");
	assert_null(load(PATHS "\0", sizeof(PATHS), &error));
	assert_non_null(strstr(error->message, "this is not a configuration file"));
	g_clear_error(&error);
	assert_null(slu_config_load("/nowhere/at.all", &error));
	assert_true(g_error_matches(error, SLU_CONFIG_ERROR, SLU_CONFIG_UNREADABLE));
	assert_non_null(strstr(error->message, "/nowhere/at.all"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blanks_around_keys_and_values_do_not_count),
		cmocka_unit_test(comments_and_long_lines_are_as_in_units),
		cmocka_unit_test(options_add_up_until_an_empty_line),
		cmocka_unit_test(a_path_is_there_once_and_absolute),
		cmocka_unit_test(what_is_not_known_is_a_mistake),
		cmocka_unit_test(what_is_no_such_file_is_said_to_be_none),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
