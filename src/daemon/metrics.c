/* SPDX-License-Identifier: MIT */
/*
 * Every counter of the stack as a list of metrics, named and typed as Prometheus wants them.
 *
 * Called in the threads of the control server; reads atomics and a moment's view of the space.
 * Takes no lock.
 */
#include "daemon_private.h"
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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

static void add_histogram(JsonArray *samples, const char *label, const char *value,
			  const struct slu_histogram *h)
{
	struct slu_histogram_view v;
	double sum = 0;

	slu_histogram_read(h, &v);
	for (unsigned int i = 0; i < SLU_HISTOGRAM_BUCKETS; i++) {
		uint64_t end_ns = slu_histogram_end_ns(i);
		char le[32] = "+Inf";

		if (end_ns != UINT64_MAX)
			g_ascii_formatd(le, sizeof(le), "%.6f", (double)end_ns / 1e9);
		sum += (double)v.buckets[i];
		if (label)
			sample(samples, "_bucket", sum, label, value, "le", le);
		else
			sample(samples, "_bucket", sum, "le", le, NULL, NULL);
	}
	sample(samples, "_sum", (double)v.total_ns / 1e9, label, value, NULL, NULL);
	sample(samples, "_count", sum, label, value, NULL, NULL);
}

static void add_requests(JsonArray *all, const struct slu_session *s)
{
	const struct slu_session_stats *stats = slu_session_stats(s);
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
		add_histogram(durations, "op", op, &stats->ops[i].took);
	}
	add_gauge(all, "requests_waiting", "Requests that have not been answered",
		  slu_session_nwaiting(s));
	add_gauge(all, "requests_parked", "Requests that wait, or may wait, off their worker",
		  slu_session_nparked(s));
	add_gauge(all, "busy_polling", "1 while one worker polls for all",
		  slu_session_busy_polls(s));
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

/* ------------------------------------------------------------------ layer by layer */

static void add_namespace(JsonArray *all, const struct slu_ns_stats *ns)
{
	const struct plain plain[] = {
		{"inode_loads_total", "Inodes that were read from their records", &ns->loads},
		{"inode_evictions_total", "Inodes that left memory", &ns->evictions},
		{"inodes_reclaimed_total", "Deleted inodes whose space was given back",
		 &ns->reclaimed},
		{"namespace_restarts_total", "Operations that had to begin again", &ns->restarts},
	};

	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static double page_bytes(const _Atomic uint64_t *pages)
{
	return get(pages) * SLU_BLOCK_SIZE;
}

static void add_cache(JsonArray *all, const struct slu_cache_stats *c)
{
	JsonArray *states = family(all, "cache_bytes", "gauge", "Memory for pages by state");
	const struct plain plain[] = {
		{"cache_hits_total", "Pages that were found in memory", &c->hits},
		{"cache_misses_total", "Pages that had to be read", &c->misses},
		{"cache_evictions_total", "Pages that made room for others", &c->evictions},
		{"cache_waits_total", "Waits for a free frame", &c->frame_waits},
	};

	sample(states, "", page_bytes(&c->free_frames), "state", "free", NULL, NULL);
	sample(states, "", page_bytes(&c->dirty), "state", "dirty", NULL, NULL);
	sample(states, "", page_bytes(&c->writeback), "state", "writeback", NULL, NULL);
	sample(states, "", page_bytes(&c->failed), "state", "failed", NULL, NULL);
	add_gauge(all, "cache_size_bytes", "Memory that the cache has for pages",
		  page_bytes(&c->frames));
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static void add_data(JsonArray *all, const struct slu_session_stats *s,
		     const struct slu_write_stats *w)
{
	const struct plain plain[] = {
		{"read_bytes_total", "Bytes that programs, or the kernel for them, have read",
		 &s->read_bytes},
		{"writes_total", "Writes", &w->writes},
		{"write_bytes_total", "Bytes written", &w->bytes},
		{"write_short_copies_total", "Copies that met a source that was not ready",
		 &w->short_copies},
		{"write_no_space_total", "Writes that were cut short for want of space",
		 &w->no_space},
	};

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
	add_gauge(all, "writeback_inodes", "Inodes with dirty pages", get(&wb->queued));
	add_gauge(all, "writeback_retrying_inodes",
		  "Those of them that wait for their next try after an error", get(&wb->retrying));
}

static void add_store(JsonArray *all, const struct slu_store_stats *s)
{
	const struct plain plain[] = {
		{"commits_total", "Transactions that were committed", &s->commits},
		{"commit_nodes_total", "Nodes that commits wrote", &s->commit_nodes},
		{"superblock_writes_total", "Superblocks written", &s->superblock_writes},
		{"batches_total", "Batches of records that were changed", &s->applies},
		{"record_reads_total", "Records that were looked for", &s->gets},
		{"node_reads_total", "Nodes read from the disk", &s->node_reads},
		{"node_hits_total", "Nodes found in memory", &s->node_hits},
		{"corrupt_nodes_total", "Damaged nodes that were met", &s->corrupt_nodes},
		{"transaction_waits_total", "Waits for room in the open transaction",
		 &s->room_waits},
	};

	add_counters(all, plain, G_N_ELEMENTS(plain));
	add_histogram(family(all, "commit_duration_seconds", "histogram",
			     "Commits, from the freeze of a transaction until it is on disk"),
		      NULL, NULL, &s->commits_took);
	add_gauge(all, "node_cache_bytes", "Memory for nodes",
		  get(&s->cached_nodes) * SLU_BLOCK_SIZE);
}

static void add_scrubs(JsonArray *all, struct slu_fs *fs)
{
	struct slu_scrub_state last;
	uint64_t nodes, damaged;

	slu_fs_scrub_state(fs, &last);
	slu_fs_scrub_counts(fs, &nodes, &damaged);
	sample(family(all, "scrub_nodes_total", "counter", "Nodes that scrubs have read"), "",
	       (double)nodes, NULL, NULL, NULL, NULL);
	sample(family(all, "scrub_damaged_total", "counter",
		      "Damaged nodes and superblocks that scrubs have found"),
	       "", (double)damaged, NULL, NULL, NULL, NULL);
	add_gauge(all, "scrub_last_timestamp_seconds",
		  "When the last scrub ended, if it went through; 0 if not, or while one is under "
		  "way",
		  last.running || last.result ? 0 : (double)last.end.tv_sec);
}

static void add_disk(JsonArray *all, const struct slu_blockio_stats *b)
{
	static const char *const names[SLU_IO_OPS] = {
		[SLU_IO_READ] = "read",
		[SLU_IO_WRITE] = "write",
		[SLU_IO_FLUSH] = "flush",
		[SLU_IO_DISCARD] = "discard",
	};
	const struct plain plain[] = {
		{"disk_reads_total", "Reads of the image", &b->reads},
		{"disk_writes_total", "Writes of the image", &b->writes},
		{"disk_flushes_total", "Flushes of the disk", &b->flushes},
		{"disk_discards_total", "Ranges given back to the host", &b->discards},
		{"disk_errors_total", "Requests to the disk that failed", &b->errors},
	};
	JsonArray *durations = family(all, "disk_duration_seconds", "histogram",
				      "From asking the disk, or its queue, to the end");
	double begun = get(&b->reads) + get(&b->writes) + get(&b->flushes) + get(&b->discards);
	struct slu_histogram_view v;

	for (unsigned int op = 0; op < SLU_IO_OPS; op++) {
		add_histogram(durations, "op", names[op], &b->took[op]);
		slu_histogram_read(&b->took[op], &v);
		begun -= (double)v.count;
	}
	/* What ended while we looked may be missing from what has begun. */
	add_gauge(all, "disk_requests_waiting", "Requests to the disk that have not ended",
		  MAX(begun, 0));
	sample(family(all, "disk_read_bytes_total", "counter", "Bytes read from the image"), "",
	       page_bytes(&b->read_blocks), NULL, NULL, NULL, NULL);
	sample(family(all, "disk_write_bytes_total", "counter", "Bytes written to the image"), "",
	       page_bytes(&b->write_blocks), NULL, NULL, NULL, NULL);
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

static void add_space(JsonArray *all, struct slu_fs *fs)
{
	uint64_t left_ns;
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
	add_gauge(all, "pending_bytes", "What was freed and can be used after the next commits",
		  (double)space.pending * SLU_BLOCK_SIZE);
	add_gauge(all, "data_bytes", "What file data takes",
		  (double)space.data_blocks * SLU_BLOCK_SIZE);
	add_gauge(all, "metadata_bytes", "What nodes take",
		  (double)space.node_blocks * SLU_BLOCK_SIZE);
	add_gauge(all, "files", "Inodes in use", (double)space.ninodes);
	add_gauge(all, "read_only", "1 if nothing can be changed",
		  fs->readonly || slu_store_readonly(fs->store));
	add_gauge(all, "frozen", "1 while nothing may change the image",
		  slu_fs_frozen(fs, &left_ns));
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
	add_gauge(all, "event_watchers", "Readers of events, the log among them",
		  get(&stream->nwatches));
}

static void add_control(JsonArray *all, const struct slu_control_server_stats *c)
{
	const struct plain plain[] = {
		{"control_connections_total", "Clients that were let in to the control socket",
		 &c->clients},
		{"control_refused_total", "Clients that were not: too many, or not allowed",
		 &c->refused},
		{"control_dropped_total", "Clients that were sent away for garbage or silence",
		 &c->dropped},
		{"control_calls_total", "Calls through the control socket", &c->calls},
		{"control_received_bytes_total", "Bytes of calls", &c->received_bytes},
		{"control_sent_bytes_total", "Bytes of replies", &c->sent_bytes},
	};

	add_gauge(all, "control_clients", "Clients of the control socket, this one among them",
		  get(&c->connected));
	add_counters(all, plain, G_N_ELEMENTS(plain));
}

/* ------------------------------------------------------------------ the daemon */

static void add_process(JsonArray *all)
{
	g_autofree char *statm = NULL;
	struct rusage usage;
	unsigned long size, resident;

	if (!getrusage(RUSAGE_SELF, &usage))
		sample(family(all, "process_cpu_seconds_total", "counter",
			      "Processor time of the daemon"),
		       "",
		       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
		       NULL, NULL, NULL, NULL);
	if (g_file_get_contents("/proc/self/statm", &statm, NULL, NULL) &&
	    sscanf(statm, "%lu %lu", &size, &resident) == 2)
		add_gauge(all, "process_resident_memory_bytes",
			  "Memory of the daemon, its caches included",
			  (double)resident * (double)sysconf(_SC_PAGESIZE));
}

static void add_daemon(JsonArray *all, const struct served *v)
{
	const struct slu_blockio_info *info = slu_blockio_info(v->stack->fs->bio);

	sample(family(all, "info", "gauge", "Always 1"), "", 1, "version", SLU_VERSION, "engine",
	       info->engine);
	add_gauge(all, "open_files", "Files that are open", (double)slu_session_nopen(v->session));
	add_gauge(all, "uptime_seconds", "Since the mount",
		  (double)(slu_clock_ns() - v->start_ns) / 1e9);
	add_process(all);
}

JsonArray *metrics_collect(const struct served *v, const struct slu_control_server_stats *server)
{
	struct slu_fs *fs = v->stack->fs;
	JsonArray *all = json_array_new();

	add_daemon(all, v);
	add_space(all, fs);
	add_requests(all, v->session);
	add_data(all, slu_session_stats(v->session), slu_cache_write_stats(fs->cache));
	add_namespace(all, slu_ns_stats(fs->ns));
	add_cache(all, slu_cache_stats(fs->cache));
	if (fs->wb)
		add_writeback(all, slu_writeback_stats(fs->wb));
	add_store(all, slu_store_stats(fs->store));
	add_scrubs(all, fs);
	add_disk(all, slu_blockio_stats(fs->bio));
	add_events(all, v->stream);
	add_control(all, server);
	return all;
}
