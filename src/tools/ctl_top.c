/* SPDX-License-Identifier: MIT */
/*
 * sluicectl top: what the volume does, interval by interval, as text or JSON. The live view is in
 * ctl_top_screen.c.
 */
#include "ctl_top.h"
#include "sluice/units.h"
#include <string.h>
#include <unistd.h>

#define SLOW_LEAST  7u /* lines that the slowest inodes get if there are many operations */
#define INTERVAL    2.0
#define BATCH_ROWS  1000u
#define RATE_PLACES 1000.0 /* from here on rates are whole */

static gboolean opt_batch;
static gint opt_iterations;
static gdouble opt_interval = INTERVAL;
static gchar *opt_sort;

const GOptionEntry ctl_top_options[] = {
	{"batch", 'b', 0, G_OPTION_ARG_NONE, &opt_batch,
	 "Print one interval after the other, as if stdout were no terminal", NULL},
	{"iterations", 'n', 0, G_OPTION_ARG_INT, &opt_iterations, "End after so many intervals",
	 "N"},
	{"interval", 'd', 0, G_OPTION_ARG_DOUBLE, &opt_interval,
	 "Length of an interval: 0.1 to 3600, 2 if not given", "SECONDS"},
	{"sort", 0, 0, G_OPTION_ARG_STRING, &opt_sort,
	 "Operations by rate, errors, mean, p99, load (if not given) or operation", "KEY"},
	{NULL},
};

struct operation {
	const char *name; /* the interval's */
	double rate, errors, mean, p99, load;
};

static const char *const sort_names[TOP_SORTS] = {
	[TOP_SORT_RATE] = "rate", [TOP_SORT_ERRORS] = "errors", [TOP_SORT_MEAN] = "mean",
	[TOP_SORT_P99] = "p99",   [TOP_SORT_LOAD] = "load",     [TOP_SORT_OPERATION] = "operation",
};

const char *top_sort_name(enum top_sort sort)
{
	return sort_names[sort];
}

/* ------------------------------------------------------------------ what was told */

static double number(JsonObject *o, const char *name)
{
	JsonNode *node = json_object_get_member(o, name);

	return node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_double(node) : 0;
}

static const char *text(JsonObject *o, const char *name)
{
	return json_object_get_string_member_with_default(o, name, "");
}

/* NULL: it has none, or not so many. Borrowed. */
static JsonObject *element(JsonObject *o, const char *name, guint i)
{
	JsonNode *node = json_object_get_member(o, name);
	JsonArray *array = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;

	if (!array || i >= json_array_get_length(array))
		return NULL;
	node = json_array_get_element(array, i);
	return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

JsonObject *top_interval(JsonObject *reply)
{
	JsonNode *node = json_object_get_member(reply, "top");

	return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

/* ------------------------------------------------------------------ operations, sorted */

static double key_of(const struct operation *op, enum top_sort sort)
{
	switch (sort) {
	case TOP_SORT_RATE:
		return op->rate;
	case TOP_SORT_ERRORS:
		return op->errors;
	case TOP_SORT_MEAN:
		return op->mean;
	case TOP_SORT_P99:
		return op->p99;
	case TOP_SORT_LOAD:
		return op->load;
	default:
		return 0;
	}
}

static gint compare(gconstpointer pa, gconstpointer pb, gpointer data)
{
	const struct operation *a = pa, *b = pb;
	enum top_sort sort = *(const enum top_sort *)data;
	double ka = key_of(a, sort), kb = key_of(b, sort);

	return ka != kb ? (ka < kb ? 1 : -1) : strcmp(a->name, b->name);
}

static GArray *operations_of(JsonObject *interval, double seconds, enum top_sort sort)
{
	GArray *all = g_array_new(false, false, sizeof(struct operation));
	JsonObject *o;

	for (guint i = 0; (o = element(interval, "operations", i)); i++) {
		double count = number(o, "count"), total = number(o, "total");
		struct operation op = {
			.name = text(o, "operation"),
			.rate = count / seconds,
			.errors = number(o, "errors") / seconds,
			.mean = count > 0 ? total / count : 0,
			.p99 = number(o, "p99"),
			.load = total / seconds,
		};

		g_array_append_val(all, op);
	}
	g_array_sort_with_data(all, compare, &sort);
	return all;
}

/* ------------------------------------------------------------------ lines */

#define CELL 16

static const char *rate(double v, char buf[CELL])
{
	snprintf(buf, CELL, v < RATE_PLACES ? "%.1f" : "%.0f", v);
	return buf;
}

static const char *duration(double s, char buf[CELL])
{
	if (s < 999.5e-6)
		snprintf(buf, CELL, "%.0f us", s * 1e6);
	else if (s < 0.9995)
		snprintf(buf, CELL, "%.1f ms", s * 1e3);
	else
		snprintf(buf, CELL, "%.1f s", s);
	return buf;
}

static const char *size(double bytes, char buf[SLU_SIZE_STR])
{
	slu_format_size(bytes > 0 ? (uint64_t)bytes : 0, buf);
	return buf;
}

static void add(GPtrArray *lines, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Whatever a name holds, a line is one line. */
static void add(GPtrArray *lines, const char *fmt, ...)
{
	va_list ap;
	char *line;

	va_start(ap, fmt);
	line = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++)
		if (g_ascii_iscntrl(*p))
			*p = '?';
	g_ptr_array_add(lines, line);
}

static void add_head(GPtrArray *lines, JsonObject *t, double seconds, const GArray *ops)
{
	g_autoptr(GDateTime) when = g_date_time_new_from_unix_local((gint64)number(t, "time"));
	g_autofree char *clock = when ? g_date_time_format(when, "%T") : g_strdup("?");
	g_autofree char *uptime = ctl_duration(number(t, "uptime"));
	char a[SLU_SIZE_STR], b[SLU_SIZE_STR], c[SLU_SIZE_STR], x[CELL], y[CELL], z[CELL];
	double requests = 0, errors = 0;

	for (guint i = 0; i < ops->len; i++) {
		requests += g_array_index(ops, struct operation, i).rate;
		errors += g_array_index(ops, struct operation, i).errors;
	}
	add(lines, "%s: %s, up %s, the last %.1f s", text(t, "mountpoint"), clock, uptime, seconds);
	add(lines, "requests %8s/s %8s errors/s %8s parked/s %5.0f waiting %5.0f open",
	    rate(requests, x), rate(errors, y), rate(number(t, "parked") / seconds, z),
	    number(t, "waiting"), number(t, "openFiles"));
	add(lines, "volume   %10s/s read %10s/s written %8s commits/s",
	    size(number(t, "readBytes") / seconds, a), size(number(t, "writtenBytes") / seconds, b),
	    rate(number(t, "commits") / seconds, x));
	add(lines, "disk     %10s/s read %10s/s written %8s flushes/s",
	    size(number(t, "diskReadBytes") / seconds, a),
	    size(number(t, "diskWrittenBytes") / seconds, b),
	    rate(number(t, "diskFlushes") / seconds, x));
	add(lines, "memory   %10s dirty  %10s being written  %8s failed",
	    size(number(t, "dirty"), a), size(number(t, "writeback"), b),
	    size(number(t, "failed"), c));
}

static void add_operations(GPtrArray *lines, const GArray *ops, unsigned int rows)
{
	char r[CELL], e[CELL], m[CELL], p[CELL];

	if (rows < 3)
		return;
	add(lines, "%s", "");
	add(lines, "%-16s %10s %10s %10s %10s %8s", "OPERATION", "RATE/S", "ERRORS/S", "MEAN",
	    "P99", "LOAD");
	for (guint i = 0; i < ops->len && i < rows - 2; i++) {
		const struct operation *op = &g_array_index(ops, struct operation, i);

		add(lines, "%-16s %10s %10s %10s %10s %8.2f", op->name, rate(op->rate, r),
		    rate(op->errors, e), duration(op->mean, m), duration(op->p99, p), op->load);
	}
}

static void add_slowest(GPtrArray *lines, JsonObject *t, unsigned int rows)
{
	char took[CELL];
	JsonObject *o;

	if (rows < 3 || !element(t, "slowest", 0))
		return;
	add(lines, "%s", "");
	add(lines, "%-16s %10s %10s  %s", "SLOWEST", "TIME", "INODE", "PATH");
	for (guint i = 0; i < rows - 2 && (o = element(t, "slowest", i)); i++)
		add(lines, "%-16s %10s %10.0f  %s", text(o, "operation"),
		    duration(number(o, "seconds"), took), number(o, "inode"), text(o, "path"));
}

static unsigned int left(const GPtrArray *lines, unsigned int rows)
{
	return rows > lines->len ? rows - lines->len : 0;
}

GPtrArray *top_lines(JsonObject *interval, enum top_sort sort, unsigned int rows)
{
	double seconds = MAX(number(interval, "seconds"), 1e-3);
	g_autoptr(GArray) ops = operations_of(interval, seconds, sort);
	GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);
	unsigned int rest;

	add_head(lines, interval, seconds, ops);
	rest = left(lines, rows);
	if (rest > 2 * SLOW_LEAST)
		rest -= SLOW_LEAST;
	else if (rest > SLOW_LEAST)
		rest -= rest / 2;
	add_operations(lines, ops, rest);
	add_slowest(lines, interval, left(lines, rows));
	if (lines->len > rows)
		g_ptr_array_set_size(lines, (gint)rows);
	return lines;
}

/* ------------------------------------------------------------------ one after the other */

struct batch {
	const struct top *t;
	int done;
};

static bool print_interval(void *ctx, JsonObject *reply)
{
	struct batch *b = ctx;
	JsonObject *interval = top_interval(reply);

	if (interval && b->t->c->json) {
		ctl_print_json(interval);
	} else if (interval) {
		g_autoptr(GPtrArray) lines = top_lines(interval, b->t->sort, BATCH_ROWS);

		if (b->done)
			putchar('\n');
		for (guint i = 0; i < lines->len; i++)
			puts(g_ptr_array_index(lines, i));
		fflush(stdout);
	}
	b->done++;
	return !ferror(stdout) && b->done != b->t->iterations;
}

int top_ended(const GError *error)
{
	if (error && !g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE))
		slu_tool_error("%s", error->message);
	else
		slu_tool_error("the daemon has ended: the volume was unmounted, or see its log");
	return CTL_FAILED;
}

static int batch(const struct top *t)
{
	JsonObject *parameters = json_object_new();
	g_autoptr(GError) error = NULL;
	struct batch b = {.t = t};

	json_object_set_double_member(parameters, "interval", t->interval);
	if (!slu_control_stream(t->c->client, VOLUME "Top", parameters, print_interval, &b, &error))
		return top_ended(error);
	if (!ferror(stdout))
		return CTL_OK;
	slu_tool_error("nothing more can be written to stdout");
	return CTL_FAILED;
}

/* ------------------------------------------------------------------ the command */

static bool find_sort(const char *name, enum top_sort *ret)
{
	for (enum top_sort i = 0; i < TOP_SORTS; i++) {
		if (strcmp(sort_names[i], name) == 0) {
			*ret = i;
			return true;
		}
	}
	slu_tool_error("--sort: \"%s\" is none of rate, errors, mean, p99, load, operation", name);
	return false;
}

int ctl_top(struct ctl *c, char **args)
{
	struct top t = {
		.c = c,
		.interval = opt_interval,
		.iterations = opt_iterations,
		.sort = TOP_SORT_LOAD,
	};

	(void)args;
	if (!(opt_interval >= 0.1 && opt_interval <= 3600)) {
		slu_tool_error("--interval: 0.1 to 3600 seconds");
		return CTL_USAGE;
	}
	if (opt_iterations < 0) {
		slu_tool_error("--iterations: not below 0");
		return CTL_USAGE;
	}
	if (opt_sort && !find_sort(opt_sort, &t.sort))
		return CTL_USAGE;
	if (opt_batch || c->json || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return batch(&t);
	return top_screen(&t);
}
