/* SPDX-License-Identifier: MIT */
/*
 * daemon: what the files of the program share. Cold code: GLib for strings and errors, one clear
 * line for whatever goes wrong, an exit status as mount(8) has them.
 */
#ifndef SLUICE_DAEMON_PRIVATE_H
#define SLUICE_DAEMON_PRIVATE_H

#include "sluice/control.h"
#include "sluice/event.h"
#include "sluice/session.h"
#include <glib.h>
#include <limits.h>
#include <syslog.h>

/* As mount(8), whose values can be ORed; and for what it does not know, as sysexits.h. */
enum exit_status {
	STATUS_OK = 0,
	STATUS_USAGE = 1,   /* wrong words, also in a configuration */
	STATUS_SYSTEM = 2,  /* out of memory, cannot fork */
	STATUS_FAILED = 32, /* the mount, unmount or remount did not happen */
	STATUS_MISTAKE =
		STATUS_FAILED | STATUS_USAGE, /* nor will it until somebody changes something */
	STATUS_LOST = 74, /* EX_IOERR: it was mounted, and data could not be written at the end */
};

/* ------------------------------------------------------------------ options.c */

enum action {
	ACTION_MOUNT,
	ACTION_REMOUNT,
	ACTION_UNMOUNT,
	ACTION_CLEANUP, /* unmount what is dead */
	ACTION_HELP,
	ACTION_VERSION,
	ACTION_NOTHING, /* mount -f: fake */
};

/* What was said explicitly: a remount refuses what differs. */
enum given {
	GIVEN_MODE = 1u << 0, /* ro or rw */
	GIVEN_SYNC = 1u << 1,
	GIVEN_COMMIT = 1u << 2,
	GIVEN_CACHE_SIZE = 1u << 3,
	GIVEN_WRITEBACK = 1u << 4,
	GIVEN_IO = 1u << 5,
	GIVEN_IMAGE_OFFSET = 1u << 6,
	GIVEN_IMAGE_SIZE = 1u << 7,
	GIVEN_MAX_WRITE = 1u << 8,
	GIVEN_ALLOW_OTHER = 1u << 9,
	GIVEN_ATIME = 1u << 10,
	GIVEN_SUID = 1u << 11, /* suid or nosuid; and so on */
	GIVEN_DEV = 1u << 12,
	GIVEN_EXEC = 1u << 13,
	GIVEN_BUSY_POLL = 1u << 14,
};

struct daemon_opts {
	enum action action;
	char *image;      /* as given */
	char *mountpoint; /* as given; for an unmount a mount point or an image */
	bool foreground;
	bool debug;
	bool replace_stale;
	bool lazy, force; /* unmount */
	uint64_t wait_ns; /* for the image's lock */
	int ready_fd;     /* -1: none */

	/* from -o */
	uint32_t given; /* enum given */
	bool readonly;
	bool sync;
	bool nowriteback;
	bool allow_other;
	enum { ATIME_RELATIVE, ATIME_STRICT, ATIME_NEVER } atime;
	bool nosuid, nodev, noexec; /* as libfuse: nosuid and nodev unless said otherwise */
	bool nodiratime;
	uint64_t commit_ns;                /* 0: the default */
	uint64_t cache_size;               /* bytes; 0: the default */
	uint64_t image_offset, image_size; /* bytes */
	uint32_t max_write;                /* bytes; 0: the default */
	uint64_t busy_poll_ns;             /* 0: no busy polling */
	char *engine;                      /* NULL: the best that works */
	char *fsname;                      /* NULL: the image's path */
};

/* How the program was called decides which words it takes. */
enum personality { PERSONALITY_SLUICEFS, PERSONALITY_MOUNT_HELPER, PERSONALITY_UMOUNT_HELPER };
enum personality options_personality(const char *argv0);

void options_init(struct daemon_opts *o);
void options_fini(struct daemon_opts *o);
/* False: error has one line. o must be given to options_fini in any case. */
bool options_parse(struct daemon_opts *o, int argc, char **argv, GError **error);
/* One list, as after -o; blanks around its commas do not count. sloppy: unknown words are passed over. */
bool options_parse_list(struct daemon_opts *o, const char *list, bool sloppy, GError **error);
/* Whether a remount with `want` changes something that cannot be changed; names it. */
bool options_same(const struct daemon_opts *have, const struct daemon_opts *want, GError **error);
/* The kernel's own words, for the mount. */
char *options_kernel_flags(const struct daemon_opts *o);
void options_print_help(FILE *f);

/* config.c: image, mount point and options from a file; false: one line. */
bool config_load(struct daemon_opts *o, const char *path, GError **error);

/* Every GError of this program has the exit status as its code. */
GQuark daemon_error_quark(void);
#define DAEMON_ERROR daemon_error_quark()

/* ------------------------------------------------------------------ checks.c */

/*
 * Each: false and one line, before anything has been touched. The status is STATUS_MISTAKE unless
 * another try may find things changed.
 */
bool check_fuse_device(const struct daemon_opts *o, GError **error);
bool check_allow_other(const struct daemon_opts *o, GError **error);
bool check_cache_size(const struct daemon_opts *o, GError **error);
bool check_ready_fd(const struct daemon_opts *o, GError **error);
/* A mount point of the form /dev/fd/N: who has started us has mounted, and hands on the device. */
bool check_preopened(const char *mountpoint);
/* The canonical mount point; unmounts a dead one if that was asked for. */
char *check_mountpoint(const struct daemon_opts *o, GError **error);
/* The canonical path of the image. */
char *check_image(const struct daemon_opts *o, bool *ret_device, GError **error);

/* ------------------------------------------------------------------ report.c */

/* To stderr, or to the system's log once the program has gone to the background. */
void report(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* To the system's log from now on. */
void report_to_syslog(void);
/* What it is about; both live until the next call. Before there are threads that report. */
void report_about(const char *mountpoint, const char *image);
void report_debug(bool on);

/* The log's watch on the stream of events: they wait in its ring until the main thread logs them. */
#define REPORT_RING       256u
#define REPORT_PER_WINDOW 10u /* lines of one kind in ten seconds */

struct report_events {
	struct slu_event_stream *stream;
	struct slu_event_watch watch;
	int wake_fd; /* an eventfd that the main loop polls, or -1; set before anybody posts */
	struct slu_fs *fs; /* to ask what an inode is called; NULL: not mounted */
	bool may_wait;     /* to read that from the disk */
	/* the main thread's */
	uint64_t window_ns[SLU_EVENT_KINDS];
	uint32_t in_window[SLU_EVENT_KINDS];
	uint64_t suppressed[SLU_EVENT_KINDS];
	void (*write)(int priority, const char *line); /* tests; NULL: report() */
};

int report_events_init(struct report_events *r, struct slu_event_stream *stream); /* -ENOMEM */
void report_events_fini(struct report_events *r);
/* Logs what is waiting. Main thread. */
void report_events_flush(struct report_events *r);
/*
 * What an event says, for people; at most REPORT_LINE bytes. path: that of its inode, of which a long
 * one shows its end; NULL: there is none, or it is not known.
 */
#define REPORT_LINE 512u
void report_event_line(const struct slu_event *ev, const char *path, char *line, size_t size);
/* Whether it is logged as an error, or as worse. */
bool report_is_error(const struct slu_event *ev);

/* ------------------------------------------------------------------ path.c */

/*
 * A path with control characters, backslashes and what is not UTF-8 as \ooo, in octal: as the kernel
 * writes it in mountinfo, and so that printf %b has it back. g_free.
 */
char *path_escape(const char *path);
/* That of an inode from the volume's root: see slu_ns_path. NULL: not known, or ino is 0. g_free. */
char *path_of(struct slu_fs *fs, uint64_t ino, bool may_wait);

/* ------------------------------------------------------------------ journal.c */

/* The 128 bits, in hexadecimal, by which journalctl -x finds what an event means. */
const char *journal_message_id(enum slu_event_kind kind);
/* Whether the journal is what a descriptor leads to (JOURNAL_STREAM), or syslog(3). */
bool journal_is(int fd);
bool journal_has_syslog(void);

/* What an entry consists of: "NAME=value". */
#define JOURNAL_MAX_FIELDS 16u
struct journal_fields {
	unsigned int n;
	char *fields[JOURNAL_MAX_FIELDS];
};
/* volume, image, ev, and the path of ev's inode: NULL if there is none. */
void journal_fields_init(struct journal_fields *f, int priority, const char *volume,
			 const char *image, const struct slu_event *ev, const char *path,
			 const char *line);
void journal_fields_fini(struct journal_fields *f);
/* False: it could not be sent, or this build cannot. */
bool journal_send(int priority, const char *volume, const char *image, const struct slu_event *ev,
		  const char *path, const char *line);

/* ------------------------------------------------------------------ serve.c */

/*
 * Opens, mounts, serves, ends; the exit status. status_fd: told 0 (one byte) when the mount can be
 * used; -1 in the foreground.
 */
int serve(const struct daemon_opts *o, const char *image, bool device, const char *mountpoint,
	  int status_fd);

/* ------------------------------------------------------------------ stack.c */

/* The image, the volume on it, and what was said about them. */
struct stack {
	struct slu_fs *fs;
	bool readonly;             /* also when only reading was possible */
	_Atomic uint64_t progress; /* I/Os that went well, of this volume and the ones before */
};
bool stack_open(struct stack *st, const struct daemon_opts *o, const char *image,
		const struct slu_event_sink *events, GError **error);

/* ------------------------------------------------------------------ methods.c and its like */

/* What the control socket's methods work on. */
struct served {
	const struct daemon_opts *o;
	const char *image, *mountpoint;
	bool visible; /* the mount can be looked at from here */
	struct stack *stack;
	struct slu_session *session;
	struct slu_event_stream *stream;
	unsigned int connection; /* the kernel's number of it; 0: not known */
	uint64_t start_ns;

	_Atomic bool changing; /* a remount or a grow is under way: the next is refused */
	bool readonly;         /* now: remounts change it */
};

/* org.sluicefs.Volume on v, which lives as long as the server. */
struct slu_control_interface methods_interface(struct served *v);
/* methods_top.c */
void methods_top(void *ctx, struct slu_control_call *call);
/* An array of Metric, the caller's. server: the one that asks. */
JsonArray *metrics_collect(const struct served *v, const struct slu_control_server_stats *server);

/* What the kernel holds back is written to us. -errno. */
int methods_syncfs(void *served);

/* methods_freeze.c */
void methods_freeze(void *ctx, struct slu_control_call *call);
void methods_thaw(void *ctx, struct slu_control_call *call);

/* methods_grow.c */
void methods_grow(void *ctx, struct slu_control_call *call);

/* methods_map.c */
void methods_map(void *ctx, struct slu_control_call *call);

/* methods_scrub.c */
void methods_scrub(void *ctx, struct slu_control_call *call);
void methods_cancel_scrub(void *ctx, struct slu_control_call *call);
/* Of the last scrub; NULL: there was none. */
JsonObject *methods_describe_scrub(struct slu_fs *fs);

/* ------------------------------------------------------------------ notify.c */

/* Whether systemd, or somebody like it, wants to be told. */
bool notify_wanted(void);
/* sd_notify(3)'s words; nothing where nobody wants them. */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct notifier {
	const _Atomic uint64_t *progress;
	bool started;
	struct slu_thread thread;
	struct slu_mutex lock; /* leaf: the next five */
	struct slu_cond changed;
	const struct served *v; /* NULL: the volume is not served yet */
	bool stopping;          /* no more probes */
	bool quiet;             /* nor one under way: nothing of the volume is looked at any more */
	bool ended;
};
/*
 * Begins to ask for time, where a service manager listens, as long as *progress moves: a start that
 * has much to read is not a start that hangs. progress lives until notifier_end.
 */
void notifier_start(struct notifier *n, const _Atomic uint64_t *progress);
/* Status and probes from now on; v lives until notifier_stop. */
void notifier_serve(struct notifier *n, const struct served *v);
/* From here on it only asks for time. May be called twice, and for one that was never started. */
void notifier_stop(struct notifier *n);
void notifier_end(struct notifier *n);

/* ------------------------------------------------------------------ helpers.c */

int helper_cleanup(const struct daemon_opts *o);

int helper_unmount(const struct daemon_opts *o);
int helper_remount(const struct daemon_opts *o, const char *list);

#endif
