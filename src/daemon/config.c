/* SPDX-License-Identifier: MIT */
/*
 * A configuration file: what else would stand on the command line (sluicefs.conf(5)). Called by main;
 * takes no lock.
 */
#include "sluice/config.h"
#include "daemon_private.h"

static bool apply(const struct slu_config *c, struct daemon_opts *o, const char *path,
		  GError **error)
{
	g_free(o->image);
	o->image = g_strdup(c->image);
	g_free(o->mountpoint);
	o->mountpoint = g_strdup(c->mountpoint);
	for (guint i = 0; i < c->options->len; i++) {
		const struct slu_config_options *options = g_ptr_array_index(c->options, i);

		if (!options_parse_list(o, options->list, false, error)) {
			g_prefix_error(error, "%s:%u: ", path, options->line);
			return false;
		}
	}
	return true;
}

bool config_load(struct daemon_opts *o, const char *path, GError **error)
{
	g_autoptr(GError) why = NULL;
	struct slu_config *c = slu_config_load(path, &why);
	bool ok;

	if (!c) {
		g_set_error_literal(error, DAEMON_ERROR, STATUS_USAGE, why->message);
		return false;
	}
	ok = apply(c, o, path, error);
	slu_config_free(c);
	return ok;
}
