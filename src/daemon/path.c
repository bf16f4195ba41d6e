/* SPDX-License-Identifier: MIT */
/*
 * What an inode is called, for people: names may hold anything but a slash, and what is printed on a
 * terminal or in a log must not.
 *
 * Called from any thread, with no lock held.
 */
#include "daemon_private.h"
#include <limits.h>

char *path_escape(const char *path)
{
	GString *s = g_string_new(NULL);

	while (*path) {
		gunichar c = g_utf8_get_char_validated(path, -1);
		bool valid = c != (gunichar)-1 && c != (gunichar)-2;
		const char *next = valid ? g_utf8_next_char(path) : path + 1;

		if (valid && c != '\\' && !g_unichar_iscntrl(c)) {
			g_string_append_len(s, path, next - path);
			path = next;
		}
		for (; path < next; path++)
			g_string_append_printf(s, "\\%03o", (unsigned char)*path);
	}
	return g_string_free(s, FALSE);
}

char *path_of(struct slu_fs *fs, uint64_t ino, bool may_wait)
{
	char path[PATH_MAX];

	if (!ino || slu_ns_path(fs->ns, ino, may_wait, path, sizeof(path)))
		return NULL;
	return path_escape(path);
}
