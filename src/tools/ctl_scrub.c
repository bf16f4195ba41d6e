/* SPDX-License-Identifier: MIT */
/*
 * sluicectl scrub: starts one, shows how far it is, and says what was found.
 */
#include "ctl_private.h"
#include <string.h>

static gchar *opt_rate;
static gboolean opt_no_wait, opt_cancel;

const GOptionEntry ctl_scrub_options[] = {
	{"rate", 'r', 0, G_OPTION_ARG_STRING, &opt_rate,
	 "How much to read in a second (default: 8M; 0: as fast as it goes)", "SIZE"},
	{"no-wait", 0, 0, G_OPTION_ARG_NONE, &opt_no_wait, "Return when it has begun", NULL},
	{"cancel", 0, 0, G_OPTION_ARG_NONE, &opt_cancel, "End the one that is under way", NULL},
	{NULL},
};

static gint64 number(JsonObject *o, const char *name)
{
	return json_object_get_int_member_with_default(o, name, 0);
}

static const char *outcome(JsonObject *scrub)
{
	return json_object_get_string_member_with_default(scrub, "outcome", "");
}

char *ctl_scrub_line(JsonObject *scrub)
{
	bool running = strcmp(outcome(scrub), "running") == 0;
	g_autofree char *when = ctl_time(
		json_object_get_double_member_with_default(scrub, running ? "started" : "ended",
							   0));
	GString *s = g_string_new(when);

	g_string_append_printf(s, "%s %s, %" G_GINT64_FORMAT, running ? " and still" : "",
			       outcome(scrub), number(scrub, "nodes"));
	if (running)
		g_string_append_printf(s, " of about %" G_GINT64_FORMAT, number(scrub, "total"));
	g_string_append(s, " nodes");
	if (number(scrub, "damaged"))
		g_string_append_printf(s, ", %" G_GINT64_FORMAT " damaged",
				       number(scrub, "damaged"));
	return g_string_free(s, FALSE);
}

/* "8M" or "8M/s". */
static bool parse_rate(uint64_t *ret)
{
	g_autofree char *size = g_str_has_suffix(opt_rate, "/s")
					? g_strndup(opt_rate, strlen(opt_rate) - 2)
					: g_strdup(opt_rate);

	return slu_tool_size("--rate", size, 0, ret);
}

/* ------------------------------------------------------------------ to its end */

struct follow {
	struct slu_progress progress;
	JsonObject *last; /* what the daemon has said last */
};

static bool on_state(void *ctx, JsonObject *reply)
{
	struct follow *f = ctx;
	JsonNode *node = json_object_get_member(reply, "scrub");

	if (!node || !JSON_NODE_HOLDS_OBJECT(node))
		return true;
	g_clear_pointer(&f->last, json_object_unref);
	f->last = json_node_dup_object(node);
	slu_progress_update(&f->progress, (uint64_t)number(f->last, "nodes"),
			    (uint64_t)number(f->last, "total"));
	return true;
}

static void print_damage(JsonObject *scrub)
{
	JsonNode *node = json_object_get_member(scrub, "damage");
	JsonArray *damage = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
	guint n = damage ? json_array_get_length(damage) : 0;

	for (guint i = 0; i < n; i++) {
		JsonObject *one = json_array_get_object_element(damage, i);

		printf("block %" G_GINT64_FORMAT ": %s\n", number(one, "block"),
		       json_object_get_string_member_with_default(one, "problem", ""));
	}
	if (number(scrub, "damaged") > (gint64)n)
		printf("and %" G_GINT64_FORMAT " more\n", number(scrub, "damaged") - (gint64)n);
}

static int show_result(const struct ctl *c, JsonObject *scrub)
{
	const char *what = outcome(scrub);

	if (c->json) {
		ctl_print_json(scrub);
	} else {
		print_damage(scrub);
		if (strcmp(what, "clean") == 0)
			printf("clean: %" G_GINT64_FORMAT " nodes were read\n",
			       number(scrub, "nodes"));
	}
	if (number(scrub, "damaged")) {
		slu_tool_error("DAMAGED: %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT
			       " nodes and superblocks; unmount and run fsck.sluicefs",
			       number(scrub, "damaged"), number(scrub, "nodes"));
		return CTL_DAMAGED;
	}
	if (strcmp(what, "clean") == 0)
		return CTL_OK;
	slu_tool_error("the scrub was %s after %" G_GINT64_FORMAT " nodes",
		       strcmp(what, "cancelled") == 0 ? what : "ended by an error",
		       number(scrub, "nodes"));
	return CTL_FAILED;
}

static int scrub_to_its_end(struct ctl *c, JsonObject *parameters)
{
	g_autoptr(GError) error = NULL;
	struct follow f = {0};
	int status = CTL_FAILED;
	bool ok;

	slu_progress_start(&f.progress, stderr, "scrubbing");
	ok = slu_control_stream(c->client, VOLUME "Scrub", parameters, on_state, &f, &error);
	slu_progress_clear(&f.progress);
	if (!ok)
		slu_tool_error("%s", error->message);
	else if (f.last)
		status = show_result(c, f.last);
	g_clear_pointer(&f.last, json_object_unref);
	return status;
}

/* ------------------------------------------------------------------ the command */

int ctl_scrub(struct ctl *c, char **args)
{
	JsonObject *parameters = json_object_new(), *reply;
	uint64_t rate;

	(void)args;
	if (opt_cancel && (opt_rate || opt_no_wait)) {
		slu_tool_error("--cancel ends a scrub, and begins none");
		json_object_unref(parameters);
		return CTL_USAGE;
	}
	if (opt_rate) {
		if (!parse_rate(&rate)) {
			json_object_unref(parameters);
			return CTL_USAGE;
		}
		json_object_set_int_member(parameters, "rate",
					   (gint64)slu_min(rate, (uint64_t)INT64_MAX));
	}
	if (!opt_cancel && !opt_no_wait)
		return scrub_to_its_end(c, parameters);
	reply = ctl_call(c, opt_cancel ? "CancelScrub" : "Scrub", parameters);
	if (!reply)
		return CTL_FAILED;
	json_object_unref(reply);
	return CTL_OK;
}
