/* SPDX-License-Identifier: MIT */
/*
 * org.sluicefs.Volume.Top: what the volume does, interval by interval.
 *
 * Called in a thread of the control server, one for each who looks. Takes a look at the counters at
 * the beginning and at the end of an interval, and tells the difference; what was slowest is
 * collected by the session from the first look to the last. Takes no lock across an interval.
 */
#include "daemon_private.h"

#define INTERVAL_LEAST 0.1 /* seconds */
#define INTERVAL_MOST  3600.0

struct op_look {
	struct slu_histogram_view took;
	uint64_t errors;
};

struct look {
	uint64_t ns;
	struct op_look ops[SLU_OP_MAX];
	uint64_t parked, read_bytes, written_bytes, disk_read_blocks, disk_written_blocks,
		disk_flushes, commits;
};

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void look(const struct served *v, struct look *ret)
{
	const struct slu_session_stats *s = slu_session_stats(v->session);
	struct slu_fs *fs = v->stack->fs;
	const struct slu_blockio_stats *b = slu_blockio_stats(fs->bio);

	*ret = (struct look){
		.ns = slu_clock_ns(),
		.parked = get(&s->parked),
		.read_bytes = get(&s->read_bytes),
		.written_bytes = get(&slu_cache_write_stats(fs->cache)->bytes),
		.disk_read_blocks = get(&b->read_blocks),
		.disk_written_blocks = get(&b->write_blocks),
		.disk_flushes = get(&b->flushes),
		.commits = get(&slu_store_stats(fs->store)->commits),
	};
	for (unsigned int i = 0; i < SLU_OP_MAX; i++) {
		slu_histogram_read(&s->ops[i].took, &ret->ops[i].took);
		for (unsigned int e = 0; e < SLU_OP_ERRNOS; e++)
			ret->ops[i].errors += get(&s->ops[i].errors[e]);
	}
}

/* ------------------------------------------------------------------ what is told */

static void set_int(JsonObject *o, const char *name, uint64_t value)
{
	json_object_set_int_member(o, name, (gint64)value);
}

static double seconds(double ns)
{
	return ns / (double)SLU_NS_PER_SEC;
}

static JsonArray *describe_operations(const struct look *before, const struct look *after)
{
	JsonArray *all = json_array_new();

	for (unsigned int i = 0; i < SLU_OP_MAX; i++) {
		struct slu_histogram_view took;
		JsonObject *o;

		slu_histogram_between(&before->ops[i].took, &after->ops[i].took, &took);
		if (!took.count)
			continue;
		o = json_object_new();
		json_object_set_string_member(o, "operation", slu_session_op_name(i));
		set_int(o, "count", took.count);
		set_int(o, "errors", after->ops[i].errors - before->ops[i].errors);
		json_object_set_double_member(o, "total", seconds((double)took.total_ns));
		json_object_set_double_member(o, "p99",
					      seconds(slu_histogram_quantile(&took, 0.99)));
		json_array_add_object_element(all, o);
	}
	return all;
}

static JsonArray *describe_slowest(const struct served *v, struct slu_slow_watch *watch)
{
	struct slu_slow_request slow[SLU_SLOW_MAX];
	unsigned int n = slu_session_slow_take(v->session, watch, slow);
	JsonArray *all = json_array_new();

	for (unsigned int i = 0; i < n; i++) {
		g_autofree char *path = path_of(v->stack->fs, slow[i].ino, true);
		JsonObject *o = json_object_new();

		set_int(o, "inode", slow[i].ino);
		if (path)
			json_object_set_string_member(o, "path", path);
		json_object_set_string_member(o, "operation", slu_session_op_name(slow[i].opcode));
		json_object_set_double_member(o, "seconds", seconds((double)slow[i].ns));
		json_array_add_object_element(all, o);
	}
	return all;
}

static void set_state(JsonObject *o, const struct served *v)
{
	const struct slu_cache_stats *c = slu_cache_stats(v->stack->fs->cache);

	set_int(o, "waiting", slu_session_nwaiting(v->session));
	set_int(o, "dirty", get(&c->dirty) * SLU_BLOCK_SIZE);
	set_int(o, "writeback", get(&c->writeback) * SLU_BLOCK_SIZE);
	set_int(o, "failed", get(&c->failed) * SLU_BLOCK_SIZE);
	set_int(o, "openFiles", slu_session_nopen(v->session));
}

static JsonObject *describe(const struct served *v, const struct look *before,
			    const struct look *after, struct slu_slow_watch *watch)
{
	struct timespec now = slu_clock_realtime();
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "mountpoint", v->mountpoint);
	json_object_set_double_member(o, "time", (double)now.tv_sec + seconds((double)now.tv_nsec));
	json_object_set_double_member(o, "seconds", seconds((double)(after->ns - before->ns)));
	json_object_set_double_member(o, "uptime", seconds((double)(after->ns - v->start_ns)));
	json_object_set_array_member(o, "operations", describe_operations(before, after));
	json_object_set_array_member(o, "slowest", describe_slowest(v, watch));
	set_int(o, "parked", after->parked - before->parked);
	set_int(o, "readBytes", after->read_bytes - before->read_bytes);
	set_int(o, "writtenBytes", after->written_bytes - before->written_bytes);
	set_int(o, "diskReadBytes",
		(after->disk_read_blocks - before->disk_read_blocks) * SLU_BLOCK_SIZE);
	set_int(o, "diskWrittenBytes",
		(after->disk_written_blocks - before->disk_written_blocks) * SLU_BLOCK_SIZE);
	set_int(o, "diskFlushes", after->disk_flushes - before->disk_flushes);
	set_int(o, "commits", after->commits - before->commits);
	set_state(o, v);
	return o;
}

/* ------------------------------------------------------------------ the stream */

static bool tell(struct slu_control_call *call, JsonObject *top)
{
	JsonObject *o = json_object_new();

	json_object_set_object_member(o, "top", top);
	return slu_control_continue(call, o);
}

void methods_top(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	g_autofree struct look *before = g_new(struct look, 1), *after = g_new(struct look, 1);
	struct slu_slow_watch watch;
	uint64_t interval_ns;
	double interval;

	if (!slu_control_wants_more(call, true) ||
	    !slu_control_float(call, "interval", INTERVAL_LEAST, INTERVAL_MOST, &interval))
		return;
	interval_ns = (uint64_t)(interval * (double)SLU_NS_PER_SEC);
	slu_session_slow_watch(v->session, &watch);
	look(v, before);
	while (slu_control_wait(call, -1, before->ns + interval_ns)) {
		struct look *swap = before;

		look(v, after);
		if (!tell(call, describe(v, before, after, &watch)))
			break;
		before = after;
		after = swap;
	}
	slu_session_slow_unwatch(v->session, &watch);
}
