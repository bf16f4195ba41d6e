/* SPDX-License-Identifier: MIT */
/*
 * sluicectl metrics: Prometheus's text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Served by ctl_listen.c.
 *
 * metrics_scrape is called in several threads at a time; it keeps nothing.
 */
#include "ctl_metrics.h"
#include <errno.h>
#include <math.h>
#include <string.h>

#define WHOLE_MOST 9007199254740992.0 /* 2^53: up to here a double has every whole number */

static gchar *opt_listen;

const GOptionEntry ctl_metrics_options[] = {
	{"listen", 0, 0, G_OPTION_ARG_STRING, &opt_listen,
	 "Serve them at http://ADDRESS:PORT/metrics until SIGTERM; port 0: any", "ADDRESS:PORT"},
	{NULL},
};

/* ------------------------------------------------------------------ the format */

/* Backslash and newline are escaped, and in a label's value the quote. */
static void add_escaped(GString *s, const char *text, bool quote)
{
	for (; *text; text++) {
		if (*text == '\n') {
			g_string_append(s, "\\n");
			continue;
		}
		if (*text == '\\' || (quote && *text == '"'))
			g_string_append_c(s, '\\');
		g_string_append_c(s, *text);
	}
}

static void add_labels(GString *s, JsonObject *labels, const char *volume)
{
	g_autoptr(GList) names = labels ? json_object_get_members(labels) : NULL;

	g_string_append(s, "{volume=\"");
	add_escaped(s, volume, true);
	g_string_append_c(s, '"');
	for (GList *l = names; l; l = l->next) {
		g_string_append_printf(s, ",%s=\"", (const char *)l->data);
		add_escaped(s, json_object_get_string_member_with_default(labels, l->data, ""),
			    true);
		g_string_append_c(s, '"');
	}
	g_string_append(s, "} ");
}

/* Whatever the locale says, with a point. */
static void add_number(GString *s, double value)
{
	bool whole = value == floor(value) && fabs(value) < WHOLE_MOST;
	char buf[G_ASCII_DTOSTR_BUF_SIZE];

	g_string_append(s, g_ascii_formatd(buf, sizeof(buf), whole ? "%.0f" : "%.9g", value));
	g_string_append_c(s, '\n');
}

static void add_family(GString *s, const char *name, const char *type, const char *help)
{
	g_string_append_printf(s, "# HELP %s ", name);
	add_escaped(s, help, false);
	g_string_append_printf(s, "\n# TYPE %s %s\n", name, type);
}

static void add_metric(GString *s, JsonObject *metric, const char *volume)
{
	const char *name = json_object_get_string_member_with_default(metric, "name", "");
	JsonArray *samples = json_object_get_array_member(metric, "samples");

	add_family(s, name, json_object_get_string_member_with_default(metric, "type", "untyped"),
		   json_object_get_string_member_with_default(metric, "help", ""));
	for (guint i = 0; samples && i < json_array_get_length(samples); i++) {
		JsonObject *sample = json_array_get_object_element(samples, i);

		g_string_append_printf(s, "%s%s", name,
				       json_object_get_string_member_with_default(sample, "suffix",
										  ""));
		add_labels(s, json_object_get_object_member(sample, "labels"), volume);
		add_number(s, json_object_get_double_member_with_default(sample, "value", 0));
	}
}

static void add_up(GString *s, const char *volume, bool up)
{
	add_family(s, "sluicefs_up", "gauge", "1 if the daemon has answered");
	g_string_append(s, "sluicefs_up");
	add_labels(s, NULL, volume);
	add_number(s, up);
}

/* ------------------------------------------------------------------ the daemon */

/* Where it is mounted tells volumes apart on one machine. */
static char *volume_name(struct slu_control_client *client, GError **error)
{
	JsonObject *reply = slu_control_call(client, VOLUME "Status", NULL, error);
	JsonObject *status = reply ? json_object_get_object_member(reply, "status") : NULL;
	char *name = NULL;

	if (status)
		name = g_strdup(
			json_object_get_string_member_with_default(status, "mountpoint", ""));
	else if (reply)
		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE, "the daemon has no status");
	g_clear_pointer(&reply, json_object_unref);
	return name;
}

/* NULL and error: there is nothing to tell. */
static GString *ask(struct slu_control_client *client, GError **error)
{
	g_autofree char *volume = volume_name(client, error);
	JsonObject *reply = NULL;
	JsonArray *metrics;
	GString *s;

	if (volume)
		reply = slu_control_call(client, VOLUME "Metrics", NULL, error);
	if (!reply)
		return NULL;
	s = g_string_new(NULL);
	add_up(s, volume, true);
	metrics = json_object_get_array_member(reply, "metrics");
	for (guint i = 0; metrics && i < json_array_get_length(metrics); i++)
		add_metric(s, json_array_get_object_element(metrics, i), volume);
	json_object_unref(reply);
	return s;
}

static struct slu_control_client *connect_to(const struct metrics_target *t, GError **error)
{
	struct slu_control_client *client = NULL;
	struct slu_mount_entry *e;

	if (t->socket)
		return ctl_connect_socket(t->socket, error);
	e = slu_mountinfo_by_target(t->mountpoint);
	if (e && slu_mount_entry_is_ours(e))
		client = slu_control_ask_mount(e, error);
	else
		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE,
			    "%s is not a mounted sluicefs volume", t->mountpoint);
	slu_mount_entry_free(e);
	return client;
}

GString *metrics_scrape(const struct metrics_target *t, GError **error)
{
	struct slu_control_client *client = connect_to(t, error);
	GString *s = NULL;

	if (client) {
		slu_control_timeout(client, METRICS_TIMEOUT_NS);
		s = ask(client, error);
	}
	slu_control_close(client);
	if (!s) {
		s = g_string_new(NULL);
		add_up(s, t->mountpoint ? t->mountpoint : t->socket, false);
	}
	return s;
}

/* ------------------------------------------------------------------ the command */

static int print_metrics(struct ctl *c)
{
	g_autoptr(GError) error = NULL;
	GString *s;

	c->client = ctl_connect(c);
	if (!c->client)
		return CTL_FAILED;
	if (c->json) {
		JsonObject *reply = ctl_call(c, "Metrics", NULL);

		if (!reply)
			return CTL_FAILED;
		ctl_print_json(reply);
		json_object_unref(reply);
		return CTL_OK;
	}
	s = ask(c->client, &error);
	if (!s) {
		slu_tool_error("%s", error->message);
		return CTL_FAILED;
	}
	fputs(s->str, stdout);
	g_string_free(s, true);
	if (!fflush(stdout) && !ferror(stdout))
		return CTL_OK;
	slu_tool_error("stdout: %s", g_strerror(errno)); /* half a file is worse than none */
	return CTL_FAILED;
}

static int serve_metrics(const struct ctl *c)
{
	g_autofree char *mountpoint = NULL;
	struct metrics_target t = {.socket = c->socket};

	if (c->json) {
		slu_tool_error("--json and --listen cannot be together: what is served is text");
		return CTL_USAGE;
	}
	if (!c->socket) {
		t.mountpoint = mountpoint = ctl_mountpoint(c);
		if (!mountpoint)
			return CTL_FAILED;
	}
	return metrics_listen(&t, opt_listen);
}

int ctl_metrics(struct ctl *c, char **args)
{
	(void)args;
	return opt_listen ? serve_metrics(c) : print_metrics(c);
}
