/* SPDX-License-Identifier: MIT */
/*
 * The other end: for sluicectl and the mount helper, one call at a time. Belongs to one thread;
 * takes no lock.
 */
#include "control_private.h"
#include <poll.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPLY_MAX (16u << 20) /* bytes: so that a daemon gone mad does not take us along */

struct slu_control_client {
	int fd;
	pid_t pid;
	char *path;
	struct wire_buffer in;
	int send_fd;    /* goes with the next call; -1: none */
	bool streaming; /* the last reply was not the last of its stream */
};

G_DEFINE_QUARK(slu - control - error - quark, slu_control_error)

/* ------------------------------------------------------------------ where */

char *slu_control_path_of(uid_t uid, unsigned int major, unsigned int minor)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	g_autofree char *dir = NULL;

	if (uid == 0)
		dir = g_strdup("/run/sluicefs");
	else if (uid == geteuid() && runtime && *runtime == '/')
		dir = g_build_filename(runtime, "sluicefs", NULL);
	else
		dir = g_strdup_printf("/run/user/%u/sluicefs", (unsigned int)uid);
	return g_strdup_printf("%s/%u:%u", dir, major, minor);
}

char *slu_user_name(uid_t uid)
{
	const struct passwd *pw = getpwuid(uid);

	return pw ? g_strdup_printf("%s (%u)", pw->pw_name, (unsigned int)uid)
		  : g_strdup_printf("%u", (unsigned int)uid);
}

static void set_timeout(int fd, int option, uint64_t ns)
{
	struct timeval tv = {
		.tv_sec = (time_t)(ns / SLU_NS_PER_SEC),
		.tv_usec = (suseconds_t)(ns % SLU_NS_PER_SEC / 1000),
	};

	setsockopt(fd, SOL_SOCKET, option, &tv, sizeof(tv));
}

/* A descriptor, or -1 and errno. A daemon that is stopped lets a few in, and then nobody. */
static int connect_to(const char *path)
{
	struct sockaddr_un addr;
	int fd, err;

	if (!wire_address(&addr, path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	set_timeout(fd, SO_SNDTIMEO, SLU_CONTROL_CONNECT_SEC * SLU_NS_PER_SEC);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	err = errno == EAGAIN ? ETIMEDOUT : errno;
	close(fd);
	errno = err;
	return -1;
}

/* Who owns path, or the first folder above it that can be looked at. */
static uid_t owner_of(const char *path)
{
	g_autofree char *at = g_strdup(path);
	struct stat st;

	while (stat(at, &st)) {
		char *up = g_path_get_dirname(at);

		if (strcmp(up, at) == 0) {
			g_free(up);
			return 0;
		}
		g_free(at);
		at = up;
	}
	return st.st_uid;
}

static void unreachable(const char *path, int err, GError **error)
{
	g_autofree char *owner = slu_user_name(owner_of(path));

	if (err == EACCES)
		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE,
			    "%s belongs to user %s: only that user and root are answered", path,
			    owner);
	else if (err == ECONNREFUSED)
		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE,
			    "nobody listens at %s: the daemon that did has ended", path);
	else
		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE,
			    "no daemon can be reached at %s: %s", path, g_strerror(err));
}

struct slu_control_client *slu_control_connect(const char *path, uid_t uid, GError **error)
{
	struct slu_control_client *c;
	int fd = connect_to(path);
	uid_t peer_uid;
	pid_t pid;

	if (fd < 0 || !wire_peer(fd, &peer_uid, &pid)) {
		unreachable(path, errno, error);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	if (peer_uid != uid && peer_uid != 0) {
		g_autofree char *listens = slu_user_name(peer_uid), *should = slu_user_name(uid);

		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE,
			    "%s: user %s listens there and not user %s, so it is not asked", path,
			    listens, should);
		close(fd);
		return NULL;
	}
	c = g_new0(struct slu_control_client, 1);
	c->fd = fd;
	c->pid = pid;
	c->path = g_strdup(path);
	c->send_fd = -1;
	wire_buffer_init(&c->in, REPLY_MAX, 0);
	return c;
}

struct slu_control_client *slu_control_connect_mount(const struct slu_mount_entry *e,
						     GError **error)
{
	uid_t uid = slu_mount_entry_uid(e);
	g_autofree char *path = slu_control_path_of(uid, e->major, e->minor);
	struct slu_control_client *c;

	if (geteuid() != 0 && geteuid() != uid) {
		g_autofree char *user = slu_user_name(uid);

		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE,
			    "%s: user %s has mounted it: only that user and root are answered",
			    e->target, user);
		return NULL;
	}
	c = slu_control_connect(path, uid, error);
	if (!c)
		g_prefix_error(error, "%s: ", e->target);
	return c;
}

struct slu_control_client *slu_control_ask_mount(const struct slu_mount_entry *e, GError **error)
{
	struct slu_control_client *c = slu_control_connect_mount(e, error);
	g_autoptr(GError) why = NULL;

	if (!c || slu_control_hello(c, &why))
		return c;
	slu_control_close(c);
	if (why->code == SLU_CONTROL_GONE)
		g_set_error(error, SLU_CONTROL_ERROR, why->code,
			    "%s: %s; to end it by force, without what is not on disk yet: "
			    "echo 1 >/sys/fs/fuse/connections/%u/abort",
			    e->target, why->message, slu_fuse_connection(e->major, e->minor));
	else
		g_set_error(error, SLU_CONTROL_ERROR, why->code, "%s: %s", e->target, why->message);
	return NULL;
}

pid_t slu_control_peer(const struct slu_control_client *c)
{
	return c->pid;
}

void slu_control_timeout(struct slu_control_client *c, uint64_t ns)
{
	set_timeout(c->fd, SO_RCVTIMEO, ns);
}

void slu_control_close(struct slu_control_client *c)
{
	if (!c)
		return;
	close(c->fd);
	slu_control_send_fd(c, -1);
	wire_buffer_fini(&c->in);
	g_free(c->path);
	g_free(c);
}

/* ------------------------------------------------------------------ calls */

static bool gone(const struct slu_control_client *c, GError **error)
{
	g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE,
		    "the daemon at %s did not answer; it may have ended", c->path);
	return false;
}

void slu_control_send_fd(struct slu_control_client *c, int fd)
{
	if (c->send_fd >= 0)
		close(c->send_fd);
	c->send_fd = fd;
}

/* Some of it, with the descriptor that is to go along; as send. */
static ssize_t send_some(struct slu_control_client *c, const char *data, size_t len)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {(char *)data, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (c->send_fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &c->send_fd, sizeof(int));
	}
	n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
	if (n > 0)
		slu_control_send_fd(c, -1);
	return n;
}

static bool send_call(struct slu_control_client *c, const char *method, JsonObject *parameters,
		      bool more, GError **error)
{
	JsonObject *call = json_object_new();
	g_autofree char *text = NULL;
	size_t len, done = 0;

	json_object_set_string_member(call, "method", method);
	if (parameters)
		json_object_set_object_member(call, "parameters", parameters);
	if (more)
		json_object_set_boolean_member(call, "more", true);
	text = wire_text(call);
	json_object_unref(call);
	len = strlen(text) + 1;
	while (done < len) {
		ssize_t n = send_some(c, text + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return true; /* it may have said why before it went */
		if (n <= 0)
			return gone(c, error);
		done += (size_t)n;
	}
	return true;
}

static JsonObject *receive_reply(struct slu_control_client *c, GError **error)
{
	const char *message;
	JsonObject *reply;

	while (!(message = wire_message(&c->in))) {
		if (wire_receive(&c->in, c->fd) <= 0) {
			gone(c, error);
			return NULL;
		}
	}
	reply = wire_parse(message);
	wire_consume(&c->in);
	if (!reply)
		g_set_error(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE,
			    "what answers at %s does not speak Varlink", c->path);
	return reply;
}

/* The message that our errors have, or what the protocol's own say. */
static bool is_error(JsonObject *reply, GError **error)
{
	const char *name = json_object_get_string_member_with_default(reply, "error", NULL);
	JsonNode *node = json_object_get_member(reply, "parameters");
	const char *message = NULL;

	if (!name)
		return false;
	if (node && JSON_NODE_HOLDS_OBJECT(node))
		message = json_object_get_string_member_with_default(json_node_get_object(node),
								     "message", NULL);
	g_set_error_literal(error, SLU_CONTROL_ERROR, SLU_CONTROL_REFUSED,
			    message ? message : name);
	return true;
}

static JsonObject *parameters_of(JsonObject *reply)
{
	JsonNode *node = json_object_get_member(reply, "parameters");

	return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_dup_object(node)
						    : json_object_new();
}

JsonObject *slu_control_call(struct slu_control_client *c, const char *method,
			     JsonObject *parameters, GError **error)
{
	JsonObject *reply = NULL, *result = NULL;

	if (send_call(c, method, parameters, false, error))
		reply = receive_reply(c, error);
	if (reply && !is_error(reply, error))
		result = parameters_of(reply);
	g_clear_pointer(&reply, json_object_unref);
	return result;
}

bool slu_control_hello(struct slu_control_client *c, GError **error)
{
	JsonObject *reply;
	GError *why = NULL;

	slu_control_timeout(c, SLU_CONTROL_CONNECT_SEC * SLU_NS_PER_SEC);
	reply = slu_control_call(c, SERVICE_INTERFACE ".GetInfo", NULL, &why);
	slu_control_timeout(c, 0);
	if (reply) {
		json_object_unref(reply);
		return true;
	}
	if (g_error_matches(why, SLU_CONTROL_ERROR, SLU_CONTROL_GONE)) {
		g_clear_error(&why);
		why = g_error_new(SLU_CONTROL_ERROR, SLU_CONTROL_GONE,
				  "process %d, which serves it, does not answer: it hangs, is "
				  "stopped, or has just ended",
				  (int)c->pid);
	}
	g_propagate_error(error, why);
	return false;
}

bool slu_control_stream(struct slu_control_client *c, const char *method, JsonObject *parameters,
			bool (*each)(void *ctx, JsonObject *reply), void *ctx, GError **error)
{
	bool more = true, ok = true;

	if (!send_call(c, method, parameters, true, error))
		return false;
	while (ok && more) {
		JsonObject *reply = receive_reply(c, error), *result;

		if (!reply)
			return false;
		ok = !is_error(reply, error);
		more = json_object_get_boolean_member_with_default(reply, "continues", false);
		if (ok) {
			result = parameters_of(reply);
			more = each(ctx, result) && more;
			json_object_unref(result);
		}
		json_object_unref(reply);
	}
	return ok;
}

bool slu_control_begin(struct slu_control_client *c, const char *method, JsonObject *parameters,
		       GError **error)
{
	c->streaming = send_call(c, method, parameters, true, error);
	return c->streaming;
}

int slu_control_fd(const struct slu_control_client *c)
{
	return c->fd;
}

int slu_control_next(struct slu_control_client *c, JsonObject **ret, GError **error)
{
	struct pollfd can_read = {.fd = c->fd, .events = POLLIN};
	JsonObject *reply;
	bool ok;

	if (!c->streaming)
		return -1;
	while (!wire_message(&c->in)) {
		if (poll(&can_read, 1, 0) <= 0)
			return 0;
		if (wire_receive(&c->in, c->fd) <= 0) {
			gone(c, error);
			return -1;
		}
	}
	reply = receive_reply(c, error);
	if (!reply)
		return -1;
	ok = !is_error(reply, error);
	c->streaming = json_object_get_boolean_member_with_default(reply, "continues", false);
	if (ok)
		*ret = parameters_of(reply);
	json_object_unref(reply);
	return ok ? 1 : -1;
}
