/* SPDX-License-Identifier: MIT */
/*
 * Reads a configuration file in the syntax of systemd's units (systemd.syntax(7)): comments, lines that
 * go on after a backslash, blanks that do not count. Values have neither quotes nor specifiers.
 *
 * Not GKeyFile, which keeps the last of several lines with the same key, and no numbers of lines.
 */
#include "sluice/config.h"
#include <string.h>

G_DEFINE_QUARK(slu - config - error - quark, slu_config_error)

#define GROUP    "Volume"
#define COMMENTS "#;"
#define BLANKS   " \t\r"
#define FILE_MAX 65536u /* bytes */

enum key { KEY_IMAGE, KEY_MOUNTPOINT, KEY_OPTIONS, KEY_COUNT };
static const char *const key_names[KEY_COUNT] = {"Image", "MountPoint", "Options"};

struct reader {
	const char *path;
	struct slu_config *config;
	bool in_group;
	unsigned int line;            /* where what is read at the moment begins */
	unsigned int seen[KEY_COUNT]; /* the line of each key's first setting; 0: none yet */
};

static bool complain(const struct reader *r, GError **error, const char *fmt, ...)
	G_GNUC_PRINTF(3, 4);

static bool complain(const struct reader *r, GError **error, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	if (r->line)
		g_set_error(error, SLU_CONFIG_ERROR, SLU_CONFIG_MISTAKE, "%s:%u: %s", r->path,
			    r->line, text);
	else
		g_set_error(error, SLU_CONFIG_ERROR, SLU_CONFIG_MISTAKE, "%s: %s", r->path, text);
	return false;
}

/* ------------------------------------------------------------------ settings */

static void free_options(void *item)
{
	struct slu_config_options *options = item;

	g_free(options->list);
	g_free(options);
}

/* Those of several lines add up; an empty one takes back what stands before it. */
static void add_options(const struct reader *r, const char *value)
{
	struct slu_config_options *options;

	if (!*value) {
		g_ptr_array_set_size(r->config->options, 0);
		return;
	}
	options = g_new(struct slu_config_options, 1);
	*options = (struct slu_config_options){.line = r->line, .list = g_strdup(value)};
	g_ptr_array_add(r->config->options, options);
}

/* A service has no folder that a name could be relative to. */
static bool set_path(const struct reader *r, enum key key, const char *value, GError **error)
{
	const char *name = key_names[key];

	if (r->seen[key])
		return complain(r, error, "%s= is there already, in line %u: one is expected", name,
				r->seen[key]);
	if (*value != '/')
		return complain(r, error, "%s=%s: an absolute path is expected", name, value);
	*(key == KEY_IMAGE ? &r->config->image : &r->config->mountpoint) = g_strdup(value);
	return true;
}

static bool take_setting(struct reader *r, const char *name, const char *value, GError **error)
{
	enum key key = 0;

	while (key < KEY_COUNT && strcmp(key_names[key], name) != 0)
		key++;
	if (key == KEY_COUNT) {
		g_autofree char *known =
			g_strjoin("=, ", key_names[KEY_IMAGE], key_names[KEY_MOUNTPOINT],
				  key_names[KEY_OPTIONS], NULL);

		return complain(r, error, "%s= is not known, only %s=", name, known);
	}
	if (key == KEY_OPTIONS)
		add_options(r, value);
	else if (!set_path(r, key, value, error))
		return false;
	if (!r->seen[key])
		r->seen[key] = r->line;
	return true;
}

/* ------------------------------------------------------------------ lines */

/* One without the lines' ends and comments; changed. */
static bool take_line(struct reader *r, char *line, GError **error)
{
	char *value;

	g_strstrip(line);
	if (!*line)
		return true;
	if (*line == '[') {
		r->in_group = strcmp(line, "[" GROUP "]") == 0;
		return r->in_group || complain(r, error, "%s is not known, only [" GROUP "]", line);
	}
	value = strchr(line, '=');
	if (!r->in_group || !value || value == line)
		return complain(r, error, "expected %s",
				r->in_group ? "Word=value, [" GROUP "] or a comment"
					    : "[" GROUP "] or a comment");
	*value++ = '\0';
	return take_setting(r, g_strchomp(line), g_strchug(value), error);
}

/* Whether it goes on in the next line: an odd number of backslashes is at its end. */
static bool goes_on(const GString *line)
{
	gsize n = 0;

	while (n < line->len && line->str[line->len - 1 - n] == '\\')
		n++;
	return n % 2;
}

static bool take_text(struct reader *r, const char *text, GError **error)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	g_autoptr(GString) whole = g_string_new(NULL);

	for (unsigned int i = 0; lines[i]; i++) {
		const char *line = lines[i] + strspn(lines[i], BLANKS);

		if (*line && strchr(COMMENTS, *line))
			continue;
		if (!whole->len)
			r->line = i + 1;
		g_string_append(whole, line);
		if (goes_on(whole)) {
			whole->str[whole->len - 1] = ' ';
			continue;
		}
		if (!take_line(r, whole->str, error))
			return false;
		g_string_truncate(whole, 0);
	}
	if (!take_line(r, whole->str, error))
		return false;
	r->line = 0;
	return true;
}

static bool check_whole(const struct reader *r, GError **error)
{
	if (!r->in_group)
		return complain(r, error, "there is no [" GROUP "] in it");
	for (enum key key = KEY_IMAGE; key <= KEY_MOUNTPOINT; key++) {
		if (!r->seen[key])
			return complain(r, error, "%s= is missing", key_names[key]);
	}
	return true;
}

/* ------------------------------------------------------------------ files */

static bool read_file(struct reader *r, GError **error)
{
	g_autoptr(GError) why = NULL;
	g_autofree char *text = NULL;
	gsize len;

	if (!g_file_get_contents(r->path, &text, &len, &why)) {
		/* GLib's message names the file. */
		g_set_error_literal(error, SLU_CONFIG_ERROR, SLU_CONFIG_UNREADABLE, why->message);
		return false;
	}
	if (len > FILE_MAX || strlen(text) != len)
		return complain(r, error, "this is not a configuration file");
	return take_text(r, text, error) && check_whole(r, error);
}

struct slu_config *slu_config_load(const char *path, GError **error)
{
	struct slu_config *c = g_new0(struct slu_config, 1);
	struct reader r = {.path = path, .config = c};

	c->options = g_ptr_array_new_with_free_func(free_options);
	if (read_file(&r, error))
		return c;
	slu_config_free(c);
	return NULL;
}

void slu_config_free(struct slu_config *c)
{
	if (!c)
		return;
	g_free(c->image);
	g_free(c->mountpoint);
	g_ptr_array_unref(c->options);
	g_free(c);
}
