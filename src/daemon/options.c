/* SPDX-License-Identifier: MIT */
/*
 * The words of the command line and of -o. One table says what each word does; a word that is not
 * in it, or a value that makes no sense, is one line and nothing has happened yet.
 *
 * Called by main, by the control socket (for a remount) and by tests. Pure: looks at nothing but
 * its arguments and the uid.
 */
#include "daemon_private.h"
#include "sluice/units.h"
#include <getopt.h>
#include <string.h>
#include <unistd.h>

G_DEFINE_QUARK(sluicefs - daemon - error, daemon_error)

#define DEFAULT_WAIT_NS     (5 * SLU_NS_PER_SEC)
#define MAX_COMMIT_SEC      3600u
#define CACHE_SIZE_LEAST    (16u << 20) /* a write of the largest size is reserved whole in it */
#define MAX_WAIT_SEC        86400.0
#define MAX_WRITE_LEAST     4096u
#define MAX_WRITE_MOST      (1u << 20)
#define BUSY_POLL_USEC      30u
#define BUSY_POLL_MOST_USEC 1000u

static bool complain(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static bool complain(GError **error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (error)
		*error = g_error_new_valist(DAEMON_ERROR, STATUS_USAGE, fmt, ap);
	va_end(ap);
	return false;
}

void options_init(struct daemon_opts *o)
{
	*o = (struct daemon_opts){
		.wait_ns = DEFAULT_WAIT_NS,
		.ready_fd = -1,
		.busy_poll_ns = BUSY_POLL_USEC * 1000,
		.nosuid = true,
		.nodev = true,
	};
}

void options_fini(struct daemon_opts *o)
{
	g_clear_pointer(&o->image, g_free);
	g_clear_pointer(&o->mountpoint, g_free);
	g_clear_pointer(&o->engine, g_free);
	g_clear_pointer(&o->fsname, g_free);
}

enum personality options_personality(const char *argv0)
{
	g_autofree char *name = g_path_get_basename(argv0 ? argv0 : "");

	if (g_str_has_prefix(name, "mount."))
		return PERSONALITY_MOUNT_HELPER;
	if (g_str_has_prefix(name, "umount."))
		return PERSONALITY_UMOUNT_HELPER;
	return PERSONALITY_SLUICEFS;
}

/* ------------------------------------------------------------------ -o: values */

static bool parse_whole(const char *s, uint64_t most, uint64_t *ret)
{
	return g_ascii_string_to_unsigned(s, 10, 0, most, ret, NULL);
}

static bool parse_bytes(const char *name, const char *value, uint64_t *ret, GError **error)
{
	int err = slu_parse_size(value, ret);

	if (err == -ERANGE)
		return complain(error, "%s=%s is too large", name, value);
	if (err)
		return complain(error, "%s=%s is not a size (a number, then K, M, G or T)", name,
				value);
	return true;
}

static bool set_commit(struct daemon_opts *o, const char *value, GError **error)
{
	uint64_t sec;

	if (!parse_whole(value, MAX_COMMIT_SEC, &sec))
		return complain(error, "commit=%s is not a number of seconds up to %u", value,
				MAX_COMMIT_SEC);
	o->commit_ns = sec * SLU_NS_PER_SEC; /* 0: the default, as elsewhere */
	return true;
}

static bool set_cache_size(struct daemon_opts *o, const char *value, GError **error)
{
	uint64_t size;

	if (!parse_bytes("cache_size", value, &size, error))
		return false;
	if (size < CACHE_SIZE_LEAST || size > SIZE_MAX / 2)
		return complain(error, "cache_size=%s: at least 16M", value);
	o->cache_size = size;
	return true;
}

static bool set_io(struct daemon_opts *o, const char *value, GError **error)
{
	if (strcmp(value, "uring") != 0 && strcmp(value, "threads") != 0)
		return complain(error, "io=%s: only uring and threads are known", value);
	g_free(o->engine);
	o->engine = g_strdup(value);
	return true;
}

static bool set_image_offset(struct daemon_opts *o, const char *value, GError **error)
{
	if (!parse_bytes("image_offset", value, &o->image_offset, error))
		return false;
	if (o->image_offset % SLU_BLOCK_SIZE)
		return complain(error, "image_offset=%s is not a multiple of 4096", value);
	return true;
}

static bool set_image_size(struct daemon_opts *o, const char *value, GError **error)
{
	if (!parse_bytes("image_size", value, &o->image_size, error))
		return false;
	if (!o->image_size)
		return complain(error, "image_size=%s: a volume needs more than that", value);
	return true;
}

static bool set_max_write(struct daemon_opts *o, const char *value, GError **error)
{
	uint64_t size;

	if (!parse_bytes("max_write", value, &size, error))
		return false;
	if (size < MAX_WRITE_LEAST || size > MAX_WRITE_MOST || size % SLU_BLOCK_SIZE)
		return complain(error, "max_write=%s: a multiple of 4096, from 4K to 1M", value);
	o->max_write = (uint32_t)size;
	return true;
}

static bool set_busy_poll(struct daemon_opts *o, const char *value, GError **error)
{
	uint64_t usec;

	if (!parse_whole(value, BUSY_POLL_MOST_USEC, &usec))
		return complain(error, "busy_poll=%s is not a number of microseconds up to %u",
				value, BUSY_POLL_MOST_USEC);
	o->busy_poll_ns = usec * 1000;
	return true;
}

static bool set_errors(struct daemon_opts *o, const char *value, GError **error)
{
	if (strcmp(value, "remount-ro") != 0)
		return complain(error, "errors=%s: only remount-ro is known", value);
	return true;
}

static bool set_fsname(struct daemon_opts *o, const char *value, GError **error)
{
	if (!*value)
		return complain(error, "fsname= needs a name");
	g_free(o->fsname);
	o->fsname = g_strdup(value);
	return true;
}

/* The type is how unmount and remount know a mount of ours, and mount(8) its helper. */
static bool set_subtype(struct daemon_opts *o, const char *value, GError **error)
{
	if (strcmp(value, "sluicefs") != 0)
		return complain(error, "subtype=%s: only sluicefs is possible", value);
	return true;
}

/* ------------------------------------------------------------------ -o: words */

#define FIELD(f) offsetof(struct daemon_opts, f)

enum word_kind {
	WORD_TRUE,    /* sets the bool at `field` */
	WORD_FALSE,   /* clears it */
	WORD_ATIME,   /* sets atime to `value` */
	WORD_IGNORED, /* for mount(8), fstab, systemd or the kernel */
	WORD_REMOUNT,
	WORD_VALUE, /* word=… : set() */
	WORD_IGNORED_VALUE,
};

static const struct word {
	const char *name;
	enum word_kind kind;
	uint32_t given;
	size_t field;
	int value;
	bool (*set)(struct daemon_opts *o, const char *value, GError **error);
} words[] = {
	{"ro", WORD_TRUE, GIVEN_MODE, FIELD(readonly)},
	{"rw", WORD_FALSE, GIVEN_MODE, FIELD(readonly)},
	{"sync", WORD_TRUE, GIVEN_SYNC, FIELD(sync)},
	{"async", WORD_FALSE, GIVEN_SYNC, FIELD(sync)},
	{"nowriteback", WORD_TRUE, GIVEN_WRITEBACK, FIELD(nowriteback)},
	{"writeback", WORD_FALSE, GIVEN_WRITEBACK, FIELD(nowriteback)},
	{"allow_other", WORD_TRUE, GIVEN_ALLOW_OTHER, FIELD(allow_other)},
	{"debug", WORD_TRUE, 0, FIELD(debug)},
	{"nosuid", WORD_TRUE, GIVEN_SUID, FIELD(nosuid)},
	{"suid", WORD_FALSE, GIVEN_SUID, FIELD(nosuid)},
	{"nodev", WORD_TRUE, GIVEN_DEV, FIELD(nodev)},
	{"dev", WORD_FALSE, GIVEN_DEV, FIELD(nodev)},
	{"noexec", WORD_TRUE, GIVEN_EXEC, FIELD(noexec)},
	{"exec", WORD_FALSE, GIVEN_EXEC, FIELD(noexec)},
	{"nodiratime", WORD_TRUE, 0, FIELD(nodiratime)},
	{"diratime", WORD_FALSE, 0, FIELD(nodiratime)},
	{"noatime", WORD_ATIME, GIVEN_ATIME, 0, ATIME_NEVER},
	{"relatime", WORD_ATIME, GIVEN_ATIME, 0, ATIME_RELATIVE},
	{"atime", WORD_ATIME, GIVEN_ATIME, 0, ATIME_RELATIVE},
	{"norelatime", WORD_ATIME, GIVEN_ATIME, 0, ATIME_STRICT},
	{"strictatime", WORD_ATIME, GIVEN_ATIME, 0, ATIME_STRICT},
	{"nostrictatime", WORD_ATIME, GIVEN_ATIME, 0, ATIME_RELATIVE},
	{"remount", WORD_REMOUNT},
	{"commit", WORD_VALUE, GIVEN_COMMIT, .set = set_commit},
	{"cache_size", WORD_VALUE, GIVEN_CACHE_SIZE, .set = set_cache_size},
	{"io", WORD_VALUE, GIVEN_IO, .set = set_io},
	{"image_offset", WORD_VALUE, GIVEN_IMAGE_OFFSET, .set = set_image_offset},
	{"image_size", WORD_VALUE, GIVEN_IMAGE_SIZE, .set = set_image_size},
	{"max_write", WORD_VALUE, GIVEN_MAX_WRITE, .set = set_max_write},
	{"busy_poll", WORD_VALUE, GIVEN_BUSY_POLL, .set = set_busy_poll},
	{"errors", WORD_VALUE, 0, .set = set_errors},
	{"fsname", WORD_VALUE, 0, .set = set_fsname},
	{"subtype", WORD_VALUE, 0, .set = set_subtype},
	/* always on */
	{"default_permissions", WORD_IGNORED},
	/* not for us */
	{"defaults", WORD_IGNORED},
	{"auto", WORD_IGNORED},
	{"noauto", WORD_IGNORED},
	{"user", WORD_IGNORED},
	{"nouser", WORD_IGNORED},
	{"users", WORD_IGNORED},
	{"nousers", WORD_IGNORED},
	{"owner", WORD_IGNORED},
	{"noowner", WORD_IGNORED},
	{"group", WORD_IGNORED},
	{"nogroup", WORD_IGNORED},
	{"nofail", WORD_IGNORED},
	{"_netdev", WORD_IGNORED},
	{"silent", WORD_IGNORED},
	{"loud", WORD_IGNORED},
	{"nonempty", WORD_IGNORED},
	{"user", WORD_IGNORED_VALUE},
	{"comment", WORD_IGNORED_VALUE},
	{"helper", WORD_IGNORED_VALUE},
	{"uhelper", WORD_IGNORED_VALUE},
	/* what the kernel shows of a FUSE mount; mount(8) hands it back on a remount */
	{"user_id", WORD_IGNORED_VALUE},
	{"group_id", WORD_IGNORED_VALUE},
	{"rootmode", WORD_IGNORED_VALUE},
	{"max_read", WORD_IGNORED_VALUE},
	{"blksize", WORD_IGNORED_VALUE},
};

static const struct word *find_word(const char *name, bool with_value)
{
	for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
		bool takes = words[i].kind == WORD_VALUE || words[i].kind == WORD_IGNORED_VALUE;

		if (takes == with_value && strcmp(words[i].name, name) == 0)
			return &words[i];
	}
	return NULL;
}

static bool unknown_word(const char *name, bool with_value, bool sloppy, GError **error)
{
	if (sloppy)
		return true;
	if (find_word(name, !with_value))
		return complain(error,
				with_value ? "option %s takes no value"
					   : "option %s needs a value: %s=…",
				name, name);
	if (strcmp(name, "offset") == 0 || strcmp(name, "sizelimit") == 0)
		return complain(error, "option %s= is mount(8)'s own: say image_%s=", name,
				strcmp(name, "offset") == 0 ? "offset" : "size");
	return complain(error, "unknown option %s (see sluicefs --help)", name);
}

static bool apply_word(struct daemon_opts *o, const struct word *w, const char *value,
		       GError **error)
{
	bool *flag = (bool *)((char *)o + w->field);

	switch (w->kind) {
	case WORD_TRUE:
		*flag = true;
		break;
	case WORD_FALSE:
		*flag = false;
		break;
	case WORD_ATIME:
		o->atime = w->value;
		break;
	case WORD_REMOUNT:
		o->action = ACTION_REMOUNT;
		break;
	case WORD_VALUE:
		if (!w->set(o, value, error))
			return false;
		break;
	case WORD_IGNORED:
	case WORD_IGNORED_VALUE:
		break;
	}
	o->given |= w->given;
	return true;
}

/* One item of the list. */
static bool parse_item(struct daemon_opts *o, const char *item, bool sloppy, GError **error)
{
	const char *eq = strchr(item, '=');
	g_autofree char *name = eq ? g_strndup(item, (gsize)(eq - item)) : g_strdup(item);
	const struct word *w;

	if (g_str_has_prefix(name, "x-") || g_str_has_prefix(name, "X-"))
		return true;
	w = find_word(name, eq != NULL);
	if (!w)
		return unknown_word(name, eq != NULL, sloppy, error);
	return apply_word(o, w, eq ? eq + 1 : NULL, error);
}

bool options_parse_list(struct daemon_opts *o, const char *list, bool sloppy, GError **error)
{
	g_autoptr(GString) item = g_string_new(NULL);
	gsize len = 0; /* of the item, without the blanks at its end */

	for (const char *p = list;; p++) {
		/* fuse's way to have a comma in a value, or a blank at its end */
		if (*p == '\\' && p[1]) {
			g_string_append_c(item, *++p);
			len = item->len;
			continue;
		}
		if (*p && *p != ',') {
			if (!g_ascii_isspace(*p)) {
				g_string_append_c(item, *p);
				len = item->len;
			} else if (item->len) {
				g_string_append_c(item, *p);
			}
			continue;
		}
		g_string_truncate(item, len);
		if (len && !parse_item(o, item->str, sloppy, error))
			return false;
		g_string_truncate(item, len = 0);
		if (!*p)
			return true;
	}
}

/* ------------------------------------------------------------------ remount */

#define CHANGED(mask, field, name)                                                 \
	{                                                                          \
		mask, FIELD(field), sizeof(((struct daemon_opts *)0)->field), name \
	}

bool options_same(const struct daemon_opts *have, const struct daemon_opts *want, GError **error)
{
	static const struct {
		uint32_t given;
		size_t field, size;
		const char *name;
	} fields[] = {
		CHANGED(GIVEN_SYNC, sync, "sync"),
		CHANGED(GIVEN_COMMIT, commit_ns, "commit"),
		CHANGED(GIVEN_CACHE_SIZE, cache_size, "cache_size"),
		CHANGED(GIVEN_WRITEBACK, nowriteback, "nowriteback"),
		CHANGED(GIVEN_IMAGE_OFFSET, image_offset, "image_offset"),
		CHANGED(GIVEN_IMAGE_SIZE, image_size, "image_size"),
		CHANGED(GIVEN_MAX_WRITE, max_write, "max_write"),
		CHANGED(GIVEN_BUSY_POLL, busy_poll_ns, "busy_poll"),
		CHANGED(GIVEN_ALLOW_OTHER, allow_other, "allow_other"),
		CHANGED(GIVEN_SUID, nosuid, "suid"),
		CHANGED(GIVEN_DEV, nodev, "dev"),
		CHANGED(GIVEN_EXEC, noexec, "exec"),
	};

	for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
		const char *a = (const char *)have + fields[i].field;
		const char *b = (const char *)want + fields[i].field;

		if ((want->given & fields[i].given) && memcmp(a, b, fields[i].size) != 0)
			return complain(error,
					"option %s cannot be changed by a remount, only ro "
					"and rw can",
					fields[i].name);
	}
	/* The kernel shows "relatime" for everything but noatime, and mount(8) hands that back. */
	if ((want->given & GIVEN_ATIME) &&
	    (have->atime == ATIME_NEVER) != (want->atime == ATIME_NEVER))
		return complain(error, "option noatime cannot be changed by a remount, only ro and "
				       "rw can");
	if ((want->given & GIVEN_IO) && g_strcmp0(have->engine, want->engine) != 0)
		return complain(error, "option io cannot be changed by a remount, only ro and rw "
				       "can");
	return true;
}

char *options_kernel_flags(const struct daemon_opts *o)
{
	g_autoptr(GString) flags = g_string_new(o->nosuid ? "nosuid" : "suid");

	g_string_append(flags, o->nodev ? ",nodev" : ",dev");
	if (o->noexec)
		g_string_append(flags, ",noexec");
	if (o->atime == ATIME_NEVER)
		g_string_append(flags, ",noatime");
	/* nodiratime is ours alone: libfuse does not know the word, and the daemon moves the times. */
	return g_string_free(g_steal_pointer(&flags), FALSE);
}

/* ------------------------------------------------------------------ the command line */

enum long_option {
	LONG_WAIT = 256,
	LONG_REPLACE_STALE,
	LONG_READY_FD,
	LONG_CONFIG,
	LONG_CLEANUP,
};

static bool set_wait(struct daemon_opts *o, const char *value, GError **error)
{
	char *end;
	double sec = g_ascii_strtod(value, &end);

	if (end == value || *end || !(sec >= 0) || sec > MAX_WAIT_SEC)
		return complain(error, "--wait=%s is not a number of seconds", value);
	o->wait_ns = (uint64_t)(sec * (double)SLU_NS_PER_SEC);
	return true;
}

static bool set_ready_fd(struct daemon_opts *o, const char *value, GError **error)
{
	uint64_t fd;

	if (!parse_whole(value, INT_MAX, &fd))
		return complain(error, "--ready-fd=%s is not a file descriptor", value);
	o->ready_fd = (int)fd;
	return true;
}

/* What getopt says of a word it does not take, in one line. */
static bool bad_argument(int c, char **argv, GError **error)
{
	const char *arg = argv[optind - 1];

	if (c == ':')
		return complain(error, "option %s needs a value", arg);
	if (optopt && g_str_has_prefix(arg, "--")) /* getopt knew the name */
		return complain(error, "option %s takes no value", arg);
	if (optopt)
		return complain(error, "unknown option -%c (see sluicefs --help)", optopt);
	return complain(error, "unknown option %s (see sluicefs --help)", arg);
}

static bool take_positional(struct daemon_opts *o, int argc, char **argv, GError **error)
{
	int n = argc - optind;

	if (o->action == ACTION_HELP || o->action == ACTION_VERSION)
		return true;
	if (o->action != ACTION_UNMOUNT && o->lazy)
		return complain(error, "--lazy goes with --unmount alone");
	/* From a configuration file. */
	if (o->image) {
		if (n)
			return complain(error, "unexpected argument %s beside --config",
					argv[optind]);
		return true;
	}
	if (o->action == ACTION_UNMOUNT || o->action == ACTION_CLEANUP) {
		if (n != 1)
			return complain(error, "one mount point is needed");
		o->mountpoint = g_strdup(argv[optind]);
		return true;
	}
	if (n < 2)
		return complain(error,
				n ? "no mount point given (see sluicefs --help)"
				  : "no image and no mount point given (see sluicefs --help)");
	if (n > 2)
		return complain(error, "unexpected argument %s", argv[optind + 2]);
	o->image = g_strdup(argv[optind]);
	o->mountpoint = g_strdup(argv[optind + 1]);
	return true;
}

static bool sluicefs_option(struct daemon_opts *o, int c, char **argv, GError **error)
{
	switch (c) {
	case 'f':
		o->foreground = true;
		return true;
	case 'd':
		o->debug = true;
		return true;
	case 'o':
		return options_parse_list(o, optarg, false, error);
	case 'u':
		o->action = ACTION_UNMOUNT;
		return true;
	case 'z':
		o->lazy = true;
		return true;
	case 'h':
		o->action = ACTION_HELP;
		return true;
	case 'V':
		o->action = ACTION_VERSION;
		return true;
	case LONG_WAIT:
		return set_wait(o, optarg, error);
	case LONG_REPLACE_STALE:
		o->replace_stale = true;
		return true;
	case LONG_READY_FD:
		return set_ready_fd(o, optarg, error);
	case LONG_CONFIG:
		return config_load(o, optarg, error);
	case LONG_CLEANUP:
		o->action = ACTION_CLEANUP;
		return true;
	default:
		return bad_argument(c, argv, error);
	}
}

static bool parse_sluicefs(struct daemon_opts *o, int argc, char **argv, GError **error)
{
	static const struct option longs[] = {
		{"foreground", no_argument, NULL, 'f'},
		{"debug", no_argument, NULL, 'd'},
		{"unmount", no_argument, NULL, 'u'},
		{"lazy", no_argument, NULL, 'z'},
		{"wait", required_argument, NULL, LONG_WAIT},
		{"replace-stale", no_argument, NULL, LONG_REPLACE_STALE},
		{"ready-fd", required_argument, NULL, LONG_READY_FD},
		{"config", required_argument, NULL, LONG_CONFIG},
		{"cleanup", no_argument, NULL, LONG_CLEANUP},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, ":fdo:uzhV", longs, NULL)) != -1) {
		if (!sluicefs_option(o, c, argv, error))
			return false;
	}
	if (o->debug)
		o->foreground = true;
	return take_positional(o, argc, argv, error);
}

/* The helpers are there for mount(8) and umount(8), but people try them out. */
static const struct option helper_longs[] = {
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

/* mount(8) calls: mount.fuse.sluicefs IMAGE DIR [-sfnv] [-N NAMESPACE] [-o LIST] [-t TYPE] */
static bool parse_mount_helper(struct daemon_opts *o, int argc, char **argv, GError **error)
{
	g_autoptr(GString) list = g_string_new(NULL);
	bool sloppy = false, fake = false;
	int c;

	if (geteuid() == 0) /* as mount(8) does for every other filesystem */
		o->nosuid = o->nodev = false;
	while ((c = getopt_long(argc, argv, ":sfnvo:N:t:hV", helper_longs, NULL)) != -1) {
		switch (c) {
		case 'h':
			o->action = ACTION_HELP;
			return true;
		case 'V':
			o->action = ACTION_VERSION;
			return true;
		case 's':
			sloppy = true;
			break;
		case 'f':
			fake = true;
			break;
		case 'o':
			g_string_append_printf(list, "%s,", optarg);
			break;
		case 'n':
		case 'v':
		case 'N':
		case 't':
			break;
		default:
			return bad_argument(c, argv, error);
		}
	}
	if (!options_parse_list(o, list->str, sloppy, error))
		return false;
	if (!take_positional(o, argc, argv, error))
		return false;
	if (fake)
		o->action = ACTION_NOTHING;
	return true;
}

/* umount(8) calls: umount.fuse.sluicefs DIR [-nflvr] [-N NAMESPACE] [-t TYPE] */
static bool parse_umount_helper(struct daemon_opts *o, int argc, char **argv, GError **error)
{
	int c;

	o->action = ACTION_UNMOUNT;
	while ((c = getopt_long(argc, argv, ":nflvrdN:t:hV", helper_longs, NULL)) != -1) {
		switch (c) {
		case 'h':
			o->action = ACTION_HELP;
			return true;
		case 'V':
			o->action = ACTION_VERSION;
			return true;
		case 'f':
			o->force = true;
			break;
		case 'l':
			o->lazy = true;
			break;
		case 'n':
		case 'v':
		case 'r':
		case 'd':
		case 'N':
		case 't':
			break;
		default:
			return bad_argument(c, argv, error);
		}
	}
	return take_positional(o, argc, argv, error);
}

bool options_parse(struct daemon_opts *o, int argc, char **argv, GError **error)
{
	optind = 0; /* start over: tests parse more than once */
	opterr = 0;
	if (argc < 1)
		return complain(error, "no arguments");
	switch (options_personality(argv[0])) {
	case PERSONALITY_MOUNT_HELPER:
		return parse_mount_helper(o, argc, argv, error);
	case PERSONALITY_UMOUNT_HELPER:
		return parse_umount_helper(o, argc, argv, error);
	case PERSONALITY_SLUICEFS:
		break;
	}
	return parse_sluicefs(o, argc, argv, error);
}

void options_print_help(FILE *f)
{
	fputs("usage: sluicefs [options] IMAGE MOUNTPOINT\n"
	      "       sluicefs --unmount MOUNTPOINT\n\n"
	      "  -f, --foreground     stay in the foreground\n"
	      "  -d, --debug          the same, and log every request\n"
	      "  -u, --unmount        unmount, and return when everything is on disk\n"
	      "  -z, --lazy           with --unmount: also when files are open\n"
	      "      --wait=SECONDS   how long to wait for an image in use (5)\n"
	      "      --replace-stale  unmount a dead mount that is in the way\n"
	      "      --ready-fd=N     write READY=1 to descriptor N when mounted\n"
	      "      --config=FILE    image, mount point and options from a file\n"
	      "      --cleanup        unmount MOUNTPOINT if its daemon is dead\n"
	      "  -h, --help           show this\n"
	      "  -V, --version        show the version\n\n"
	      "  -o ro                read only            -o nowriteback   write through\n"
	      "  -o sync              every write durable  -o commit=SEC    commit interval (5)\n"
	      "  -o allow_other       let all users in     -o cache_size=SIZE\n"
	      "  -o io=uring|threads  I/O engine           -o max_write=SIZE\n"
	      "  -o busy_poll=USEC    look for the next request that long before sleeping (30)\n"
	      "  -o image_offset=SIZE where the volume starts in the image\n"
	      "  -o image_size=SIZE   and how far it may reach\n"
	      "  -o noatime|relatime|strictatime, nosuid, nodev, noexec, errors=remount-ro\n",
	      f);
}
