/* SPDX-License-Identifier: MIT */
/*
 * sluicectl metrics: Prometheus's text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */
#include "ctl_private.h"
#include <math.h>
#include <string.h>

/* A label's value: backslash, quote and newline are escaped. */
static void print_value(const char *s)
{
	for (; *s; s++) {
		if (*s == '\n')
			fputs("\\n", stdout);
		else if (*s == '\\' || *s == '"')
			printf("\\%c", *s);
		else
			putchar(*s);
	}
}

static void print_labels(JsonObject *labels, const char *volume)
{
	g_autoptr(GList) names = json_object_get_members(labels);

	fputs("{volume=\"", stdout);
	print_value(volume);
	putchar('"');
	for (GList *l = names; l; l = l->next) {
		printf(",%s=\"", (const char *)l->data);
		print_value(json_object_get_string_member_with_default(labels, l->data, ""));
		putchar('"');
	}
	putchar('}');
}

static void print_number(double value)
{
	if (value == floor(value) && fabs(value) < 1e15)
		printf(" %.0f\n", value);
	else
		printf(" %.9g\n", value);
}

static void print_metric(JsonObject *metric, const char *volume)
{
	const char *name = json_object_get_string_member_with_default(metric, "name", "");
	JsonArray *samples = json_object_get_array_member(metric, "samples");

	printf("# HELP %s %s\n# TYPE %s %s\n", name,
	       json_object_get_string_member_with_default(metric, "help", ""), name,
	       json_object_get_string_member_with_default(metric, "type", "untyped"));
	for (guint i = 0; samples && i < json_array_get_length(samples); i++) {
		JsonObject *sample = json_array_get_object_element(samples, i);

		printf("%s%s", name,
		       json_object_get_string_member_with_default(sample, "suffix", ""));
		print_labels(json_object_get_object_member(sample, "labels"), volume);
		print_number(json_object_get_double_member_with_default(sample, "value", 0));
	}
}

/* Where it is mounted tells volumes apart on one machine. */
static char *volume_name(struct ctl *c)
{
	JsonObject *reply = ctl_call(c, "Status", NULL);
	JsonObject *status = reply ? json_object_get_object_member(reply, "status") : NULL;
	char *name = NULL;

	if (status)
		name = g_strdup(
			json_object_get_string_member_with_default(status, "mountpoint", ""));
	g_clear_pointer(&reply, json_object_unref);
	return name;
}

int ctl_metrics(struct ctl *c, char **args)
{
	g_autofree char *volume = volume_name(c);
	JsonObject *reply = volume ? ctl_call(c, "Metrics", NULL) : NULL;
	JsonArray *metrics;

	(void)args;
	if (!reply)
		return CTL_FAILED;
	metrics = json_object_get_array_member(reply, "metrics");
	if (c->json)
		ctl_print_json(reply);
	for (guint i = 0; !c->json && metrics && i < json_array_get_length(metrics); i++)
		print_metric(json_array_get_object_element(metrics, i), volume);
	json_object_unref(reply);
	return CTL_OK;
}
