/* SPDX-License-Identifier: MIT */
/*
 * What the control socket can ask of this daemon: org.sluicefs.Volume.
 *
 * Called in the threads of the control server, several at a time. Takes no lock: what is told is
 * read from where it is counted, and one remount or grow is let in at a time.
 */
#include "daemon_private.h"
#include "interface.h"
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define WATCH_SLOTS 1024u

/* {name: object}, as parameters. */
static JsonObject *wrapped(const char *name, JsonObject *object)
{
	JsonObject *outer = json_object_new();

	json_object_set_object_member(outer, name, object);
	return outer;
}

static void set_int(JsonObject *o, const char *name, uint64_t value)
{
	json_object_set_int_member(o, name, (gint64)value);
}

/* ------------------------------------------------------------------ status */

static JsonObject *describe_image(const struct served *v)
{
	const struct slu_blockio_info *info = slu_blockio_info(v->stack->fs->bio);
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "path", v->image);
	set_int(o, "offset", info->image_offset);
	json_object_set_string_member(o, "engine", info->engine);
	json_object_set_boolean_member(o, "direct", info->direct);
	return o;
}

static JsonObject *describe_space(const struct served *v)
{
	JsonObject *o = json_object_new();
	struct slu_space_stat space;
	struct slu_statfs st;

	slu_space_stat(v->stack->fs->store, &space);
	slu_fs_statfs(v->stack->fs, &st);
	set_int(o, "size", st.blocks * SLU_BLOCK_SIZE);
	set_int(o, "free", st.bfree * SLU_BLOCK_SIZE);
	set_int(o, "available", st.bavail * SLU_BLOCK_SIZE);
	set_int(o, "reserved", space.reserved * SLU_BLOCK_SIZE);
	return o;
}

static JsonObject *describe_cache(const struct served *v)
{
	const struct slu_cache_stats *stats = slu_cache_stats(v->stack->fs->cache);
	JsonObject *o = json_object_new();

	set_int(o, "size", atomic_load(&stats->frames));
	set_int(o, "used", atomic_load(&stats->frames) - atomic_load(&stats->free_frames));
	set_int(o, "dirty", atomic_load(&stats->dirty));
	set_int(o, "writeback", atomic_load(&stats->writeback));
	set_int(o, "failed", atomic_load(&stats->failed));
	return o;
}

/* A device that somebody else has mounted is not ours to find. */
static void set_kernel(JsonObject *o, const struct served *v)
{
	g_autofree char *abort_path = NULL;
	JsonObject *kernel;

	if (!v->connection)
		return;
	abort_path = g_strdup_printf("/sys/fs/fuse/connections/%u/abort", v->connection);
	kernel = json_object_new();
	set_int(kernel, "connection", v->connection);
	json_object_set_string_member(kernel, "abort", abort_path);
	json_object_set_object_member(o, "kernel", kernel);
}

static void set_frozen(JsonObject *o, struct slu_fs *fs)
{
	JsonObject *frozen;
	uint64_t left_ns;

	if (!slu_fs_frozen(fs, &left_ns))
		return;
	frozen = json_object_new();
	json_object_set_double_member(frozen, "secondsLeft", (double)left_ns / 1e9);
	json_object_set_object_member(o, "frozen", frozen);
}

static char *uuid_text(const uint8_t id[16])
{
	GString *s = g_string_new(NULL);

	for (unsigned int i = 0; i < 16; i++)
		g_string_append_printf(s, "%s%02x",
				       i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
	return g_string_free(s, FALSE);
}

static JsonObject *describe_event(const struct served *v, const struct slu_event *ev, uint64_t lost)
{
	g_autofree char *path = path_of(v->stack->fs, ev->ino, true);
	JsonObject *o = json_object_new();
	char line[REPORT_LINE];

	report_event_line(ev, path, line, sizeof(line));
	set_int(o, "seq", ev->seq);
	json_object_set_double_member(o, "time",
				      (double)ev->when.tv_sec + (double)ev->when.tv_nsec / 1e9);
	json_object_set_string_member(o, "kind", slu_event_kind_name(ev->kind));
	json_object_set_string_member(o, "message", line);
	json_object_set_boolean_member(o, "critical", slu_event_is_critical(ev->kind));
	if (ev->ino)
		set_int(o, "inode", ev->ino);
	if (path)
		json_object_set_string_member(o, "path", path);
	if (ev->ino && ev->len) {
		set_int(o, "position", ev->pos);
		set_int(o, "length", ev->len);
	}
	if (ev->error)
		set_int(o, "errno", (uint64_t)-ev->error);
	set_int(o, "lost", lost);
	return o;
}

/* NULL: it is not. */
static const char *why_readonly(const struct served *v, const struct slu_store_info *info)
{
	if (info->why_readonly)
		return info->why_readonly;
	if (v->o->readonly)
		return "mounted with ro";
	if (v->stack->readonly)
		return "no permission to write the image";
	return v->stack->fs->readonly ? "remounted with ro" : NULL;
}

static void set_event(JsonObject *o, const char *name, const struct served *v,
		      bool (*wanted)(const struct slu_event *ev))
{
	struct slu_event ev;

	if (slu_event_stream_last(v->stream, wanted, &ev))
		json_object_set_object_member(o, name, describe_event(v, &ev, 0));
}

static void run_status(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	JsonObject *o = json_object_new(), *scrub;
	struct slu_store_info info;
	struct slu_statfs st;
	g_autofree char *uuid = NULL;
	const char *why;

	slu_store_info(v->stack->fs->store, &info);
	slu_fs_statfs(v->stack->fs, &st);
	uuid = uuid_text(info.volume_id);
	json_object_set_string_member(o, "version", SLU_VERSION);
	json_object_set_string_member(o, "mountpoint", v->mountpoint);
	json_object_set_string_member(o, "label", info.label);
	json_object_set_string_member(o, "uuid", uuid);
	json_object_set_object_member(o, "image", describe_image(v));
	json_object_set_object_member(o, "space", describe_space(v));
	set_int(o, "files", st.files - st.ffree);
	json_object_set_object_member(o, "cache", describe_cache(v));
	why = why_readonly(v, &info);
	json_object_set_boolean_member(o, "readOnly", info.readonly || v->stack->fs->readonly);
	if (why)
		json_object_set_string_member(o, "why", why);
	set_frozen(o, v->stack->fs);
	scrub = methods_describe_scrub(v->stack->fs);
	if (scrub)
		json_object_set_object_member(o, "scrub", scrub);
	set_int(o, "openFiles", slu_session_nopen(v->session));
	set_int(o, "transaction", slu_store_txid(v->stack->fs->store));
	json_object_set_double_member(o, "uptime", (double)(slu_clock_ns() - v->start_ns) / 1e9);
	set_int(o, "pid", (uint64_t)getpid());
	set_kernel(o, v);
	set_event(o, "lastEvent", v, NULL);
	set_event(o, "lastError", v, report_is_error);
	slu_control_reply(call, wrapped("status", o));
}

/* ------------------------------------------------------------------ watch */

static void wake_watcher(void *ctx)
{
	uint64_t one = 1;

	(void)!write(*(int *)ctx, &one, sizeof(one));
}

static JsonObject *only_lost(uint64_t lost)
{
	JsonObject *o = json_object_new();

	set_int(o, "seq", 0);
	json_object_set_double_member(o, "time", 0);
	json_object_set_string_member(o, "kind", "");
	json_object_set_string_member(o, "message", "events came faster than they were read");
	json_object_set_boolean_member(o, "critical", false);
	set_int(o, "lost", lost);
	return o;
}

/* What is in the ring now. False: the client has gone. */
static bool send_events(struct slu_control_call *call, const struct served *v,
			struct slu_event_watch *w)
{
	struct slu_event ev;
	uint64_t lost;

	while (slu_ring_take(&w->ring, &ev, &lost)) {
		if (!slu_control_continue(call, wrapped("event", describe_event(v, &ev, lost))))
			return false;
	}
	return !lost || slu_control_continue(call, wrapped("event", only_lost(lost)));
}

static void run_watch(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	struct slu_event_watch w;
	int64_t last = 0;
	uint64_t n;
	int fd;

	if (!slu_control_wants_more(call, true) || !slu_control_int(call, "last", &last))
		return;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0 || slu_event_watch_add(v->stream, &w, WATCH_SLOTS, (uint64_t)slu_max(last, 0),
					  wake_watcher, &fd)) {
		slu_control_fail(call, "Failed", "no memory, or no descriptor, for a watch");
		if (fd >= 0)
			close(fd);
		return;
	}
	while (slu_control_wait(call, fd, SLU_NO_DEADLINE)) {
		(void)!read(fd, &n, sizeof(n));
		if (!send_events(call, v, &w))
			break;
	}
	/* What was posted until the server was stopped is still told. */
	(void)send_events(call, v, &w);
	slu_event_watch_remove(v->stream, &w);
	close(fd);
}

/* ------------------------------------------------------------------ metrics */

static void run_metrics(void *ctx, struct slu_control_call *call)
{
	JsonObject *o = json_object_new();

	json_object_set_array_member(o, "metrics",
				     metrics_collect(ctx, slu_control_call_stats(call)));
	slu_control_reply(call, o);
}

/* ------------------------------------------------------------------ sync, remount */

int methods_syncfs(void *served)
{
	const struct served *v = served;
	int fd = open(v->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (syncfs(fd))
		err = -errno;
	close(fd);
	return err;
}

static void run_sync(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	int err = slu_fs_syncfs(v->stack->fs, methods_syncfs, v);

	if (err)
		slu_control_fail(call, "Failed", "not everything could be written: %s",
				 g_strerror(-err));
	else
		slu_control_reply(call, NULL);
}

static void run_check_remount(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	g_autoptr(GError) error = NULL;
	const char *list = slu_control_string(call, "options");
	struct daemon_opts want;

	if (!list)
		return;
	options_init(&want);
	if (!options_parse_list(&want, list, false, &error) || !options_same(v->o, &want, &error))
		slu_control_fail(call, "Failed", "%s", error->message);
	else if (!want.readonly && v->stack->readonly)
		slu_control_fail(call, "Failed",
				 "the image was opened read-only: unmount it and mount it again");
	else
		slu_control_reply(call, NULL);
	options_fini(&want);
}

/* Draining waits, so no lock is held; two at a time would not know what they return to. */
static int change_mode(struct served *v, bool readonly)
{
	int err = 0;

	if (atomic_exchange(&v->changing, true))
		return -EBUSY;
	if (!readonly && v->stack->readonly)
		err = -EROFS;
	else if (readonly != v->readonly)
		err = slu_fs_set_readonly(v->stack->fs, readonly);
	if (!err)
		v->readonly = readonly;
	atomic_store(&v->changing, false);
	return err;
}

static void run_remount(void *ctx, struct slu_control_call *call)
{
	bool readonly;
	int err;

	if (!slu_control_bool(call, "readOnly", &readonly))
		return;
	err = change_mode(ctx, readonly);
	if (err) {
		slu_control_fail(call, "Failed", "%s",
				 err == -EBUSY
					 ? "it is frozen (sluicectl thaw ends that), or being "
					   "remounted already"
					 : g_strerror(-err));
		return;
	}
	report(LOG_INFO, "now %s", readonly ? "read-only" : "writable");
	slu_control_reply(call, NULL);
}

/* ------------------------------------------------------------------ the interface */

static const struct slu_control_method methods[] = {
	{"Status", run_status},
	{"Top", methods_top},
	{"Watch", run_watch},
	{"Metrics", run_metrics},
	{"Sync", run_sync},
	{"CheckRemount", run_check_remount},
	{"Remount", run_remount},
	{"Grow", methods_grow},
	{"Map", methods_map, .max_fds = 1},
	{"Freeze", methods_freeze},
	{"Thaw", methods_thaw},
	{"Scrub", methods_scrub},
	{"CancelScrub", methods_cancel_scrub},
	{NULL, NULL},
};

struct slu_control_interface methods_interface(struct served *v)
{
	return (struct slu_control_interface){
		.name = "org.sluicefs.Volume",
		.description = interface_description,
		.methods = methods,
		.ctx = v,
	};
}
