/* SPDX-License-Identifier: MIT */
/*
 * Every counter of the stack as a list of metrics, named and typed as Prometheus wants them.
 *
 * Called in the threads of the control server; reads atomics and a moment's view of the space.
 * Takes no lock.
 */
#include "daemon_private.h"
#include <string.h>

/* ------------------------------------------------------------------ building */

static JsonArray *family(JsonArray *all, const char *name, const char *type, const char *help)
{
	g_autofree char *full = g_strdup_printf("sluicefs_%s", name);
	JsonArray *samples = json_array_new();
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "name", full);
	json_object_set_string_member(o, "type", type);
	json_object_set_string_member(o, "help", help);
	json_object_set_array_member(o, "samples", samples);
	json_array_add_object_element(all, o);
	return samples;
}

/* Up to two labels; NULL ends them. */
static void sample(JsonArray *samples, const char *suffix, double value, const char *label1,
		   const char *value1, const char *label2, const char *value2)
{
	JsonObject *labels = json_object_new(), *o = json_object_new();

	if (label1)
		json_object_set_string_member(labels, label1, value1);
	if (label1 && label2)
		json_object_set_string_member(labels, label2, value2);
	json_object_set_string_member(o, "suffix", suffix);
	json_object_set_object_member(o, "labels", labels);
	json_object_set_double_member(o, "value", value);
	json_array_add_object_element(samples, o);
}

static double get(const _Atomic uint64_t *counter)
{
	return (double)atomic_load_explicit(counter, memory_order_relaxed);
}

struct plain {
	const char *name, *help;
	const _Atomic uint64_t *counter;
};

static void add_counters(JsonArray *all, const struct plain *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sample(family(all, list[i].name, "counter", list[i].help), "", get(list[i].counter),
		       NULL, NULL, NULL, NULL);
}

static void add_gauge(JsonArray *all, const char *name, const char *help, double value)
{
	sample(family(all, name, "gauge", help), "", value, NULL, NULL, NULL, NULL);
}

/* ------------------------------------------------------------------ requests */

static void add_errors(JsonArray *samples, const char *op, const struct slu_op_stats *st)
{
	for (unsigned int e = 0; e < SLU_OP_ERRNOS; e++) {
		double n = get(&st->errors[e]);
		const char *name = e ? strerrorname_np((int)e) : "other";

		if (n > 0)
			sample(samples, "", n, "op", op, "errno", name ? name : "other");
	}
}

static void add_histogram(JsonArray *samples, const char *op, const struct slu_op_stats *st)
{
	double sum = 0;

	for (unsigned int i = 0; i < SLU_HISTOGRAM_BUCKETS; i++) {
		uint64_t end_ns = slu_histogram_end_ns(i);
		char le[32] = "+Inf";

		if (end_ns != UINT64_MAX)
			g_ascii_formatd(le, sizeof(le), "%.6f", (double)end_ns / 1e9);
		sum += get(&st->took.buckets[i]);
		sample(samples, "_bucket", sum, "op", op, "le", le);
	}
	sample(samples, "_sum", get(&st->took.total_ns) / 1e9, "op", op, NULL, NULL);
	sample(samples, "_count", sum, "op", op, NULL, NULL);
}

static void add_requests(JsonArray *all, const struct slu_session_stats *stats)
{
	JsonArray *errors = family(all, "request_errors_total", "counter",
				   "Requests that were answered with an error");
	JsonArray *durations = family(all, "request_duration_seconds", "histogram",
				      "From reading a request to its answer");
	const struct plain plain[] = {
		{"requests_parked_total", "Requests that had to wait and left their worker",
		 &stats->parked},
		{"park_waits_total", "Waits of a worker for room to park in", &stats->park_waits},
		{"inline_waits_total", "Waits of a worker because there was no memory to park",
		 &stats->inline_waits},
		{"workers_started_total", "Threads that read requests", &stats->workers},
		{"busy_polls_total", "Times that one worker began to poll for all",
		 &stats->busy_polls},
	};

	for (unsigned int i = 0; i < SLU_OP_MAX; i++) {
		const char *op = slu_session_op_name(i);

		if (!op || !get(&stats->ops[i].count))
			continue;
		add_errors(errors, op, &stats->ops[i]);
		add_histogram(durations, op, &stats->ops[i]);
	}
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

/* ------------------------------------------------------------------ layer by layer */

static void add_pages(JsonArray *all, const struct slu_cache_stats *c,
		      const struct slu_write_stats *w)
{
	JsonArray *pages = family(all, "cache_pages", "gauge", "Pages of 4,096 bytes by state");
	const struct plain plain[] = {
		{"cache_hits_total", "Pages that were found in memory", &c->hits},
		{"cache_misses_total", "Pages that had to be read", &c->misses},
		{"cache_evictions_total", "Pages that made room for others", &c->evictions},
		{"cache_waits_total", "Waits for a free frame", &c->frame_waits},
		{"writes_total", "Writes", &w->writes},
		{"write_bytes_total", "Bytes written", &w->bytes},
		{"write_short_copies_total", "Copies that met a source that was not ready",
		 &w->short_copies},
		{"write_no_space_total", "Writes that were cut short for want of space",
		 &w->no_space},
	};

	sample(pages, "", get(&c->free_frames), "state", "free", NULL, NULL);
	sample(pages, "", get(&c->dirty), "state", "dirty", NULL, NULL);
	sample(pages, "", get(&c->writeback), "state", "writeback", NULL, NULL);
	sample(pages, "", get(&c->failed), "state", "failed", NULL, NULL);
	add_gauge(all, "cache_size_pages", "Pages that the cache can hold", get(&c->frames));
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static void add_writeback(JsonArray *all, const struct slu_writeback_stats *wb)
{
	const struct plain plain[] = {
		{"writeback_runs_total", "Runs of dirty pages that were written", &wb->runs},
		{"writeback_bytes_total", "Bytes written back", &wb->bytes},
		{"writeback_errors_total", "Runs that could not be written", &wb->errors},
		{"writeback_retries_total", "Runs that were tried again", &wb->retries},
	};

	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static void add_store(JsonArray *all, const struct slu_store_stats *s)
{
	const struct plain plain[] = {
		{"commits_total", "Transactions that were committed", &s->commits},
		{"commit_nodes_total", "Nodes that commits wrote", &s->commit_nodes},
		{"superblock_writes_total", "Superblocks written", &s->superblock_writes},
		{"node_reads_total", "Nodes read from the disk", &s->node_reads},
		{"node_hits_total", "Nodes found in memory", &s->node_hits},
		{"corrupt_nodes_total", "Damaged nodes that were met", &s->corrupt_nodes},
		{"transaction_waits_total", "Waits for room in the open transaction",
		 &s->room_waits},
	};

	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static void add_blockio(JsonArray *all, const struct slu_blockio_stats *b)
{
	const struct plain plain[] = {
		{"disk_reads_total", "Reads of the image", &b->reads},
		{"disk_read_blocks_total", "Blocks of 4,096 bytes read", &b->read_blocks},
		{"disk_writes_total", "Writes of the image", &b->writes},
		{"disk_write_blocks_total", "Blocks of 4,096 bytes written", &b->write_blocks},
		{"disk_flushes_total", "Flushes of the disk", &b->flushes},
		{"disk_discards_total", "Ranges given back to the host", &b->discards},
		{"disk_errors_total", "Requests to the disk that failed", &b->errors},
	};

	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static void add_space(JsonArray *all, struct slu_fs *fs)
{
	struct slu_space_stat space;
	struct slu_statfs st;

	slu_space_stat(fs->store, &space);
	slu_fs_statfs(fs, &st);
	add_gauge(all, "size_bytes", "What the volume can hold",
		  (double)st.blocks * SLU_BLOCK_SIZE);
	add_gauge(all, "free_bytes", "What is free", (double)st.bfree * SLU_BLOCK_SIZE);
	add_gauge(all, "available_bytes", "What is free and not promised to dirty pages",
		  (double)st.bavail * SLU_BLOCK_SIZE);
	add_gauge(all, "reserved_bytes", "What is promised to dirty pages",
		  (double)space.reserved * SLU_BLOCK_SIZE);
	add_gauge(all, "files", "Inodes in use", (double)space.ninodes);
	add_gauge(all, "read_only", "1 if nothing can be changed",
		  fs->readonly || slu_store_readonly(fs->store));
}

static void add_events(JsonArray *all, const struct slu_event_stream *stream)
{
	JsonArray *events = family(all, "events_total", "counter", "Events by kind");
	const struct plain plain[] = {
		{"events_lost_total", "Events that a watcher's ring had no room for",
		 &stream->lost},
	};

	for (unsigned int kind = 0; kind < SLU_EVENT_KINDS; kind++)
		sample(events, "", get(&stream->counts[kind]), "kind", slu_event_kind_name(kind),
		       NULL, NULL);
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

JsonArray *metrics_collect(const struct served *v, const struct slu_control_server_stats *server)
{
	struct slu_fs *fs = v->stack->fs;
	JsonArray *all = json_array_new();

	add_requests(all, slu_session_stats(v->session));
	add_pages(all, slu_cache_stats(fs->cache), slu_cache_write_stats(fs->cache));
	if (fs->wb)
		add_writeback(all, slu_writeback_stats(fs->wb));
	add_store(all, slu_store_stats(fs->store));
	add_blockio(all, slu_blockio_stats(fs->bio));
	add_space(all, fs);
	add_events(all, v->stream);
	add_gauge(all, "open_files", "Files that are open", (double)slu_session_nopen(v->session));
	add_gauge(all, "uptime_seconds", "Since the mount",
		  (double)(slu_clock_ns() - v->start_ns) / 1e9);
	return all;
}
