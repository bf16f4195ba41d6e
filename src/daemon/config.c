/* SPDX-License-Identifier: MIT */
/*
 * A configuration file: what else would stand on the command line, in the syntax of systemd's units
 * (sluicefs.conf(5)). GKeyFile reads it; every mistake is one line with file, line and what was
 * expected. Called by main; takes no lock.
 */
#include "daemon_private.h"
#include <string.h>
#include <sys/stat.h>

#define GROUP    "Volume"
#define FILE_MAX 65536u /* bytes */

struct config {
	const char *path;
	char *text;
	GKeyFile *keys;
};

static bool complain(const struct config *c, unsigned int line, GError **error, const char *fmt,
		     ...) __attribute__((format(printf, 4, 5)));

/* line 0: the file as a whole. */
static bool complain(const struct config *c, unsigned int line, GError **error, const char *fmt,
		     ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	if (line)
		g_set_error(error, DAEMON_ERROR, STATUS_USAGE, "%s:%u: %s", c->path, line, text);
	else
		g_set_error(error, DAEMON_ERROR, STATUS_USAGE, "%s: %s", c->path, text);
	return false;
}

/* ------------------------------------------------------------------ lines */

/* GKeyFile does not say where: the first line with which the file cannot be read any more. */
static unsigned int bad_line(const char *text)
{
	unsigned int line = 1;

	for (const char *end = text; *end; line++) {
		g_autoptr(GKeyFile) keys = g_key_file_new();

		end += strcspn(end, "\n");
		if (!g_key_file_load_from_data(keys, text, (gsize)(end - text), G_KEY_FILE_NONE,
					       NULL))
			return line;
		if (*end)
			end++;
	}
	return line;
}

/* The last line that begins with this word, as the last one counts. */
static unsigned int line_of(const char *text, const char *word)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	unsigned int found = 0;

	for (unsigned int i = 0; lines[i]; i++) {
		const char *s = lines[i] + strspn(lines[i], " \t");
		size_t len = strlen(word);

		if (strncmp(s, word, len) == 0 && (word[0] == '[' || strchr("= \t", s[len])))
			found = i + 1;
	}
	return found;
}

/* ------------------------------------------------------------------ what it says */

static bool check_groups(const struct config *c, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(c->keys, NULL);

	for (unsigned int i = 0; groups[i]; i++) {
		g_autofree char *header = g_strdup_printf("[%s]", groups[i]);

		if (strcmp(groups[i], GROUP) != 0)
			return complain(c, line_of(c->text, header), error,
					"%s is not known, only [" GROUP "]", header);
	}
	if (!groups[0])
		return complain(c, 0, error, "there is no [" GROUP "] in it");
	return true;
}

static bool check_keys(const struct config *c, GError **error)
{
	static const char *const known[] = {"Image", "MountPoint", "Options", NULL};
	g_auto(GStrv) keys = g_key_file_get_keys(c->keys, GROUP, NULL, NULL);

	for (unsigned int i = 0; keys[i]; i++) {
		if (!g_strv_contains(known, keys[i]))
			return complain(c, line_of(c->text, keys[i]), error,
					"%s= is not known; Image=, MountPoint= and Options= are",
					keys[i]);
	}
	return true;
}

/* A service has no folder that a name could be relative to. */
static char *get_path(const struct config *c, const char *key, GError **error)
{
	g_autofree char *value = g_key_file_get_value(c->keys, GROUP, key, NULL);

	if (!value || !*value) {
		complain(c, value ? line_of(c->text, key) : 0, error, "%s= is missing", key);
		return NULL;
	}
	if (*value != '/') {
		complain(c, line_of(c->text, key), error, "%s=%s: an absolute path is expected",
			 key, value);
		return NULL;
	}
	return g_steal_pointer(&value);
}

static bool get_options(const struct config *c, struct daemon_opts *o, GError **error)
{
	g_autofree char *list = g_key_file_get_value(c->keys, GROUP, "Options", NULL);
	g_autoptr(GError) why = NULL;

	if (!list || options_parse_list(o, list, false, &why))
		return true;
	return complain(c, line_of(c->text, "Options"), error, "%s", why->message);
}

static bool apply(const struct config *c, struct daemon_opts *o, GError **error)
{
	if (!check_groups(c, error) || !check_keys(c, error))
		return false;
	g_free(o->image);
	g_free(o->mountpoint);
	o->mountpoint = NULL;
	o->image = get_path(c, "Image", error);
	if (!o->image)
		return false;
	o->mountpoint = get_path(c, "MountPoint", error);
	return o->mountpoint && get_options(c, o, error);
}

bool config_load(struct daemon_opts *o, const char *path, GError **error)
{
	g_autofree char *text = NULL;
	g_autoptr(GKeyFile) keys = g_key_file_new();
	g_autoptr(GError) why = NULL;
	struct config c = {.path = path, .keys = keys};
	gsize len;

	if (!g_file_get_contents(path, &text, &len, &why)) {
		/* GLib's message names the file. */
		g_set_error_literal(error, DAEMON_ERROR, STATUS_USAGE, why->message);
		return false;
	}
	c.text = text;
	if (len > FILE_MAX || strlen(text) != len)
		return complain(&c, 0, error, "this is not a configuration file");
	if (!g_key_file_load_from_data(keys, text, len, G_KEY_FILE_NONE, NULL))
		return complain(&c, bad_line(text), error,
				"expected [" GROUP "], Word=value or a comment");
	return apply(&c, o, error);
}
