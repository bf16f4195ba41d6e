/* SPDX-License-Identifier: MIT */
/*
 * sluicectl: status, list, watch and sync: a reply, and how people want to see it.
 */
#include "ctl_private.h"
#include "sluice/units.h"
#include <string.h>

/* ------------------------------------------------------------------ members that may be missing */

static const char *text(JsonObject *o, const char *name)
{
	return json_object_get_string_member_with_default(o, name, "");
}

static gint64 number(JsonObject *o, const char *name)
{
	return json_object_get_int_member_with_default(o, name, 0);
}

static bool flag(JsonObject *o, const char *name)
{
	return json_object_get_boolean_member_with_default(o, name, false);
}

/* NULL: there is none. Borrowed. */
static JsonObject *inner(JsonObject *o, const char *name)
{
	JsonNode *node = json_object_get_member(o, name);

	return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static void size(char buf[SLU_SIZE_STR], gint64 bytes)
{
	slu_format_size((uint64_t)bytes, buf);
}

/* ------------------------------------------------------------------ status */

static void print_line(const char *name, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void print_line(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("%-13s", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void print_space(JsonObject *space, gint64 files)
{
	char all[SLU_SIZE_STR], available[SLU_SIZE_STR], reserved[SLU_SIZE_STR];

	size(all, number(space, "size"));
	size(available, number(space, "available"));
	size(reserved, number(space, "reserved"));
	print_line("space", "%s of %s available, %s promised to data not yet written", available,
		   all, reserved);
	print_line("files", "%" G_GINT64_FORMAT, files);
}

static void print_cache(JsonObject *cache)
{
	char all[SLU_SIZE_STR], used[SLU_SIZE_STR], dirty[SLU_SIZE_STR];

	size(all, number(cache, "size") * 4096);
	size(used, number(cache, "used") * 4096);
	size(dirty, (number(cache, "dirty") + number(cache, "writeback")) * 4096);
	print_line("cache", "%s of %s used, %s not yet written", used, all, dirty);
	if (number(cache, "failed"))
		print_line("", "%" G_GINT64_FORMAT " pages could not be written; tried again",
			   number(cache, "failed"));
}

char *ctl_duration(double seconds)
{
	long s = (long)seconds;

	if (s >= 86400)
		return g_strdup_printf("%ld d %ld h", s / 86400, s / 3600 % 24);
	if (s >= 3600)
		return g_strdup_printf("%ld h %ld min", s / 3600, s / 60 % 60);
	return g_strdup_printf("%ld min %ld s", s / 60, s % 60);
}

char *ctl_time(double seconds)
{
	g_autoptr(GDateTime) when = g_date_time_new_from_unix_local((gint64)seconds);

	return when ? g_date_time_format(when, "%F %T") : g_strdup("?");
}

static char *event_time(JsonObject *event)
{
	return ctl_time(json_object_get_double_member_with_default(event, "time", 0));
}

static void print_event_line(const char *name, JsonObject *event)
{
	g_autofree char *when = event_time(event);

	print_line(name, "%s %s", when, text(event, "message"));
}

static void print_status(JsonObject *s)
{
	JsonObject *image = inner(s, "image"), *space = inner(s, "space"),
		   *cache = inner(s, "cache"), *kernel = inner(s, "kernel"),
		   *event = inner(s, "lastEvent"), *error = inner(s, "lastError"),
		   *frozen = inner(s, "frozen"), *scrub = inner(s, "scrub");
	g_autofree char *up =
		ctl_duration(json_object_get_double_member_with_default(s, "uptime", 0));
	const char *why = text(s, "why");

	print_line("mounted on", "%s", text(s, "mountpoint"));
	if (image)
		print_line("image", "%s (%s, %s)", text(image, "path"), text(image, "engine"),
			   flag(image, "direct") ? "O_DIRECT" : "through the host's cache");
	print_line("volume", "%s%s%s", text(s, "uuid"), *text(s, "label") ? " " : "",
		   text(s, "label"));
	print_line("state", "%s%s%s", flag(s, "readOnly") ? "read-only" : "writable",
		   *why ? ": " : "", why);
	if (frozen)
		print_line("frozen", "for %.0f s more; to end it: sluicectl thaw",
			   json_object_get_double_member_with_default(frozen, "secondsLeft", 0));
	if (space)
		print_space(space, number(s, "files"));
	if (cache)
		print_cache(cache);
	print_line("open files", "%" G_GINT64_FORMAT, number(s, "openFiles"));
	print_line("up", "%s", up);
	print_line("process", "%" G_GINT64_FORMAT " (version %s)", number(s, "pid"),
		   text(s, "version"));
	if (kernel)
		print_line("connection", "%" G_GINT64_FORMAT "; to end it by force: echo 1 >%s",
			   number(kernel, "connection"), text(kernel, "abort"));
	if (scrub) {
		g_autofree char *line = ctl_scrub_line(scrub);

		print_line("last scrub", "%s", line);
	}
	if (error)
		print_event_line("last error", error);
	if (event)
		print_event_line("last event", event);
}

int ctl_status(struct ctl *c, char **args)
{
	JsonObject *reply = ctl_call(c, "Status", NULL), *status;

	(void)args;
	if (!reply)
		return CTL_FAILED;
	status = inner(reply, "status");
	if (c->json)
		ctl_print_json(status ? status : reply);
	else if (status)
		print_status(status);
	json_object_unref(reply);
	return CTL_OK;
}

/* ------------------------------------------------------------------ list */

/* What the daemon says, or why it says nothing. */
static JsonObject *describe_mount(const struct slu_mount_entry *e)
{
	g_autoptr(GError) error = NULL;
	struct slu_control_client *client = slu_control_ask_mount(e, &error);
	JsonObject *reply = NULL, *o;

	if (client) {
		/* Of many, one that waits for its disk does not keep the others from being shown. */
		slu_control_timeout(client, SLU_CONTROL_CONNECT_SEC * SLU_NS_PER_SEC);
		reply = slu_control_call(client, VOLUME "Status", NULL, &error);
	}
	slu_control_close(client);
	if (reply && inner(reply, "status")) {
		o = json_object_ref(inner(reply, "status"));
	} else {
		o = json_object_new();
		json_object_set_string_member(o, "mountpoint", e->target);
		json_object_set_string_member(o, "source", e->source);
		json_object_set_string_member(o, "error", error ? error->message : "no status");
	}
	g_clear_pointer(&reply, json_object_unref);
	return o;
}

static const char *state_of(JsonObject *status)
{
	if (flag(status, "readOnly"))
		return "read-only";
	return inner(status, "frozen") ? "frozen" : "writable";
}

static void print_row(JsonObject *o)
{
	JsonObject *space = inner(o, "space"), *image = inner(o, "image");
	char all[SLU_SIZE_STR], available[SLU_SIZE_STR];

	if (!space || !image) {
		printf("%-24s %12s %12s  %-10s %s\n", text(o, "mountpoint"), "-", "-", "no answer",
		       text(o, "source"));
		fflush(stdout); /* why comes below its row where both go to a terminal */
		slu_tool_error("%s", text(o, "error"));
		return;
	}
	size(all, number(space, "size"));
	size(available, number(space, "available"));
	printf("%-24s %12s %12s  %-10s %s\n", text(o, "mountpoint"), all, available, state_of(o),
	       text(image, "path"));
}

int ctl_list(struct ctl *c, char **args)
{
	g_autoptr(GPtrArray) all = slu_mountinfo_ours();

	(void)args;
	if (!c->json)
		printf("%-24s %12s %12s  %-10s %s\n", "MOUNTED ON", "SIZE", "AVAILABLE", "STATE",
		       "IMAGE");
	for (guint i = 0; i < all->len; i++) {
		JsonObject *o = describe_mount(g_ptr_array_index(all, i));

		if (c->json)
			ctl_print_json(o);
		else
			print_row(o);
		json_object_unref(o);
	}
	return CTL_OK;
}

/* ------------------------------------------------------------------ watch */

static gint64 watch_last;

const GOptionEntry ctl_watch_options[] = {
	{"last", 'n', 0, G_OPTION_ARG_INT64, &watch_last,
	 "Begin with the last N events, of which 128 are kept", "N"},
	{NULL},
};

static bool print_event(void *ctx, JsonObject *reply)
{
	const struct ctl *c = ctx;
	JsonObject *event = inner(reply, "event");
	g_autofree char *when = NULL;

	if (!event)
		return true;
	if (c->json) {
		ctl_print_json(event);
		return !ferror(stdout);
	}
	if (number(event, "lost"))
		printf("(%" G_GINT64_FORMAT " events came faster than they were read)\n",
		       number(event, "lost"));
	if (number(event, "seq")) {
		when = event_time(event);
		printf("%s %s%s: %s\n", when, flag(event, "critical") ? "CRITICAL " : "",
		       text(event, "kind"), text(event, "message"));
	}
	fflush(stdout);
	return !ferror(stdout);
}

int ctl_watch(struct ctl *c, char **args)
{
	g_autoptr(GError) error = NULL;
	JsonObject *parameters;

	(void)args;
	if (watch_last < 0) {
		slu_tool_error("--last: a number of events is expected");
		return CTL_USAGE;
	}
	parameters = json_object_new();
	/* A daemon of an older version takes no parameter. */
	if (watch_last)
		json_object_set_int_member(parameters, "last", watch_last);
	if (slu_control_stream(c->client, VOLUME "Watch", parameters, print_event, c, &error))
		return CTL_OK;
	/* The end of the daemon is the end of what there is to see. */
	if (g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE))
		return CTL_OK;
	slu_tool_error("%s", error->message);
	return CTL_FAILED;
}

/* ------------------------------------------------------------------ sync */

int ctl_sync(struct ctl *c, char **args)
{
	JsonObject *reply = ctl_call(c, "Sync", NULL);

	(void)args;
	if (!reply)
		return CTL_FAILED;
	json_object_unref(reply);
	return CTL_OK;
}
