/* SPDX-License-Identifier: MIT */
/*
 * control: a Unix socket that speaks Varlink, both ends, and how a mount's socket is found.
 *
 * The protocol is that of https://varlink.org: JSON objects, each ended by a NUL; a call has
 * "method", "parameters" and "more", a reply "parameters" and "continues", or "error". The server
 * answers org.varlink.service itself, from the interface it is given.
 *
 * A call may bring open file descriptors (SCM_RIGHTS), sent with its first byte after all calls
 * before it have been answered. They are closed when it has been answered, and it is refused if its
 * method takes none.
 *
 * One daemon serves one socket, DIR/MAJOR:MINOR with the numbers of the mounted filesystem; DIR is
 * /run/sluicefs for root, $XDG_RUNTIME_DIR/sluicefs for everybody else. Mode 0600, and the peer's
 * uid is checked: root and the daemon's own user are heard.
 *
 * Errors: GError of SLU_CONTROL_ERROR with one line for the user.
 */
#ifndef SLUICE_CONTROL_H
#define SLUICE_CONTROL_H

#include "sluice/base.h"
#include <json-glib/json-glib.h>

/* ------------------------------------------------------------------ limits */

#define SLU_CONTROL_MESSAGE_MAX 65536u /* bytes of a call; replies are ours, and may be longer */
#define SLU_CONTROL_MAX_CLIENTS 32u
#define SLU_CONTROL_MAX_STREAMS 24u /* calls with "more" at a time: the others' places stay free */
#define SLU_CONTROL_MAKE_WAY_SEC \
	1u /* silent for so long, and it makes way where all places are taken */
#define SLU_CONTROL_MAX_FDS  4u  /* of one call; more, and the client is dropped */
#define SLU_CONTROL_IDLE_SEC 60u /* without a call */
#define SLU_CONTROL_SEND_SEC 10u /* for a reply to be taken; a stream waits as long as it must */
#define SLU_CONTROL_CONNECT_SEC \
	5u /* for a daemon to let a client in, to take a call, to say hello */

/* ------------------------------------------------------------------ the server */

struct slu_control;
struct slu_control_call;

struct slu_control_method {
	const char *name; /* without the interface */
	/*
	 * In the client's thread; may wait. Answers exactly once with reply or fail, after any
	 * number of slu_control_continue if the client wants more.
	 */
	void (*run)(void *ctx, struct slu_control_call *call);
	unsigned int max_fds; /* how many descriptors a call may bring */
};

struct slu_control_interface {
	const char *name;                         /* "org.sluicefs.Volume" */
	const char *description;                  /* in Varlink's own language */
	const struct slu_control_method *methods; /* ended by one without a name */
	void *ctx;
};

struct slu_control_opts {
	const char *path; /* of the socket: whoever was there before is gone */
	const struct slu_control_interface *interface;
	uint64_t idle_ns; /* 0: SLU_CONTROL_IDLE_SEC */
};

/* Starts the server's thread. Opts and interface live until stop. -errno. */
int slu_control_start(const struct slu_control_opts *opts, struct slu_control **ret);
/* Calls under way are told to end (see slu_control_stopping) and waited for. NULL is allowed. */
void slu_control_stop(struct slu_control *c);
const char *slu_control_path(const struct slu_control *c);

struct slu_control_server_stats {
	_Atomic uint64_t clients, calls, refused, dropped; /* dropped: for garbage or silence */
	_Atomic uint64_t connected;                        /* clients at this moment */
	_Atomic uint64_t received_bytes, sent_bytes;
};
const struct slu_control_server_stats *slu_control_stats(const struct slu_control *c);
/* The same, of the server that the call has come to. */
const struct slu_control_server_stats *slu_control_call_stats(const struct slu_control_call *call);

/* For a handler. Never NULL; the call's. */
JsonObject *slu_control_parameters(struct slu_control_call *call);
/* The parameter, or NULL after the call has been answered with InvalidParameter. */
const char *slu_control_string(struct slu_control_call *call, const char *name);
bool slu_control_bool(struct slu_control_call *call, const char *name, bool *ret);
/* One that may be left out: *ret is untouched then. */
bool slu_control_int(struct slu_control_call *call, const char *name, int64_t *ret);
/*
 * The descriptor that an integer parameter names, counted from 0 among those that came with the
 * call; the caller's from here on. -1 after the call has been answered with InvalidParameter.
 */
int slu_control_take_fd(struct slu_control_call *call, const char *name);
/* One that may be left out, an integer or not: *ret is untouched then. */
bool slu_control_number(struct slu_control_call *call, const char *name, double *ret);
/* One that is needed, whole or not, of at least min and at most max; else InvalidParameter. */
bool slu_control_float(struct slu_control_call *call, const char *name, double min, double max,
		       double *ret);
/* Whether the client asked for a stream. If not, and need: answered with ExpectedMore. */
bool slu_control_wants_more(struct slu_control_call *call, bool need);
/* The server stops, or the client has gone: a handler that waits should end. */
bool slu_control_ended(struct slu_control_call *call);
/*
 * Waits until fd (or -1) can be read, the deadline (0), or the end of the client or the server
 * (false).
 */
bool slu_control_wait(struct slu_control_call *call, int fd, uint64_t deadline_ns);
/* parameters: taken; NULL for none. False: the client has gone. */
bool slu_control_continue(struct slu_control_call *call, JsonObject *parameters);
void slu_control_reply(struct slu_control_call *call, JsonObject *parameters);
/* name: within the interface, "Failed"; message: for the user, one line. */
void slu_control_fail(struct slu_control_call *call, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ------------------------------------------------------------------ the client */

GQuark slu_control_error_quark(void);
#define SLU_CONTROL_ERROR slu_control_error_quark()
enum slu_control_error {
	SLU_CONTROL_UNREACHABLE, /* nobody listens, or not who should */
	SLU_CONTROL_GONE,        /* ended in the middle of a call */
	SLU_CONTROL_REFUSED,     /* the daemon answered with an error: its message */
};

struct slu_control_client;

/* uid: who must be listening, else root. NULL and error, which says why nobody answers. */
struct slu_control_client *slu_control_connect(const char *path, uid_t uid, GError **error);
pid_t slu_control_peer(const struct slu_control_client *c);
/*
 * Whether anybody is at home: a call that waits for nothing but the server, and no longer than
 * SLU_CONTROL_CONNECT_SEC. A daemon that hangs lets clients in all the same.
 */
bool slu_control_hello(struct slu_control_client *c, GError **error);
/* How long a call may wait for its reply: GONE after that. 0, as in the beginning: for ever. */
void slu_control_timeout(struct slu_control_client *c, uint64_t ns);
void slu_control_close(struct slu_control_client *c); /* NULL is allowed */
/* method: whole name; parameters: taken, NULL for none. The reply's, the caller's; NULL and error. */
JsonObject *slu_control_call(struct slu_control_client *c, const char *method,
			     JsonObject *parameters, GError **error);
/* The next call takes fd along, which is closed here as soon as it is on its way. */
void slu_control_send_fd(struct slu_control_client *c, int fd);
/* Each reply goes to `each` until it says false, which ends the stream and the client's use. */
bool slu_control_stream(struct slu_control_client *c, const char *method, JsonObject *parameters,
			bool (*each)(void *ctx, JsonObject *reply), void *ctx, GError **error);
/*
 * The same for who has other things to wait for: asks for the stream; then, whenever fd can be
 * read, next until it says 0. next never waits: 1 and a reply, the caller's; 0: no whole one has
 * come; -1: the stream has ended, with or (error not set) without an error.
 */
bool slu_control_begin(struct slu_control_client *c, const char *method, JsonObject *parameters,
		       GError **error);
int slu_control_fd(const struct slu_control_client *c);
int slu_control_next(struct slu_control_client *c, JsonObject **ret, GError **error);

/* ------------------------------------------------------------------ what is mounted */

/*
 * From /proc/self/mountinfo: a dead FUSE mount can be seen nowhere else, since every other call
 * ends with "Transport endpoint is not connected" or "Permission denied".
 */
struct slu_mount_entry {
	unsigned int major, minor; /* of the mounted filesystem's device */
	bool whole;                /* not of a folder in it (a bind mount) */
	char *target, *source, *type;
	char *vfs_opts, *super_opts;
};

void slu_mount_entry_free(struct slu_mount_entry *e);
/* The topmost mount on a path (absolute, canonical), or NULL. */
struct slu_mount_entry *slu_mountinfo_by_target(const char *target);
/* The topmost sluicefs mount of a source. */
struct slu_mount_entry *slu_mountinfo_by_source(const char *source);
/* The last mount of a whole filesystem with this device number. */
struct slu_mount_entry *slu_mountinfo_by_device(unsigned int major, unsigned int minor);
/* All sluicefs mounts, of struct slu_mount_entry. */
GPtrArray *slu_mountinfo_ours(void);
/* A line of /proc/self/mountinfo; NULL if it is none. */
struct slu_mount_entry *slu_mountinfo_parse(const char *line);
bool slu_mount_entry_is_ours(const struct slu_mount_entry *e);
bool slu_mount_entry_is_fuse(const struct slu_mount_entry *e);
/* Whether a word is in a list of options. */
bool slu_mount_has_word(const char *opts, const char *word);
/* user_id= of the mount: who runs its daemon. */
uid_t slu_mount_entry_uid(const struct slu_mount_entry *e);
/*
 * Nobody serves it any more. Asks as the user who may, in a child: needs a process without threads.
 * One whose daemon has not answered within SLU_CONTROL_CONNECT_SEC hangs, and is not dead.
 */
bool slu_mount_entry_is_dead(const struct slu_mount_entry *e);
/* Absolute, without links; works for a dead mount point, too. NULL and errno. */
char *slu_path_canonical(const char *path);

/* The number of a FUSE connection: the kernel's own encoding of its filesystem's device number. */
static inline unsigned int slu_fuse_connection(unsigned int major, unsigned int minor)
{
	return major << 20 | minor;
}

/* "NAME (UID)", or "UID" of one without a name; g_free. */
char *slu_user_name(uid_t uid);
/* Where the daemon of user uid listens for the mount with that device number. */
char *slu_control_path_of(uid_t uid, unsigned int major, unsigned int minor);
struct slu_control_client *slu_control_connect_mount(const struct slu_mount_entry *e,
						     GError **error);
/* Hello, too: the error of a daemon that hangs says how its connection is ended by force. */
struct slu_control_client *slu_control_ask_mount(const struct slu_mount_entry *e, GError **error);

#endif
