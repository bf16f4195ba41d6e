/* SPDX-License-Identifier: MIT */
/*
 * A small door for the mount helper: both ends of it.
 *
 * The daemon listens on DIR/MAJOR:MINOR, where the numbers are those of the mounted filesystem and
 * DIR is /run/sluicefs for root and $XDG_RUNTIME_DIR/sluicefs for everybody else. Served by the
 * daemon's main thread, one connection after the other. Only root and the daemon's own user are
 * heard, and the client asks who answers. Takes no lock.
 */
#include "daemon_private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PEER_TIMEOUT_SEC 1

static char *control_dir(uid_t uid)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (uid == 0)
		return g_strdup("/run/sluicefs");
	if (uid == geteuid() && runtime && *runtime == '/')
		return g_build_filename(runtime, "sluicefs", NULL);
	return g_strdup_printf("/run/user/%u/sluicefs", (unsigned int)uid);
}

char *control_path(uid_t uid, unsigned int major, unsigned int minor)
{
	g_autofree char *dir = control_dir(uid);

	return g_strdup_printf("%s/%u:%u", dir, major, minor);
}

static bool fill_address(struct sockaddr_un *addr, const char *path)
{
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	return g_strlcpy(addr->sun_path, path, sizeof(addr->sun_path)) < sizeof(addr->sun_path);
}

static bool peer(int fd, struct ucred *ret)
{
	socklen_t len = sizeof(*ret);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len);
}

/* A message ends with its NUL. False: too long, too slow, or gone. */
static bool receive(int fd, char *buf, size_t size)
{
	size_t used = 0;

	while (used < size) {
		ssize_t n = recv(fd, buf + used, size - used, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		used += (size_t)n;
		if (memchr(buf, '\0', used))
			return true;
	}
	return false;
}

static bool send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

/* ------------------------------------------------------------------ the daemon's end */

static int listen_at(const char *path)
{
	struct sockaddr_un addr;
	int fd, saved;
	mode_t old;

	if (!fill_address(&addr, path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	/* Device numbers are used again; whoever had this one is gone. */
	unlink(path);
	old = umask(0177);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 8)) {
		saved = errno;
		close(fd);
		fd = -1;
		errno = saved;
	}
	umask(old);
	return fd;
}

void control_start(struct control *c, unsigned int major, unsigned int minor,
		   control_handler *handler, void *ctx)
{
	g_autofree char *dir = control_dir(geteuid());

	*c = (struct control){.fd = -1, .handler = handler, .ctx = ctx};
	c->path = control_path(geteuid(), major, minor);
	if (g_mkdir_with_parents(dir, 0700) == 0)
		c->fd = listen_at(c->path);
	if (c->fd < 0) {
		report(LOG_DEBUG, "no control socket at %s: %s; remount will not work", c->path,
		       strerror(errno));
		g_clear_pointer(&c->path, g_free);
	}
}

void control_serve(struct control *c)
{
	struct timeval timeout = {.tv_sec = PEER_TIMEOUT_SEC};
	g_autoptr(GString) reply = g_string_new(NULL);
	char request[CONTROL_MESSAGE_MAX];
	struct ucred cred;
	int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (peer(fd, &cred) && (cred.uid == 0 || cred.uid == geteuid()) &&
	    receive(fd, request, sizeof(request))) {
		c->handler(c->ctx, request, reply);
		(void)send_all(fd, reply->str, reply->len + 1);
	}
	close(fd);
}

void control_stop(struct control *c)
{
	if (c->fd < 0)
		return;
	unlink(c->path);
	close(c->fd);
	c->fd = -1;
	g_clear_pointer(&c->path, g_free);
}

/* ------------------------------------------------------------------ the other end */

int control_connect(const struct mount_entry *e, pid_t *ret_pid, GError **error)
{
	uid_t uid = mount_entry_uid(e);
	g_autofree char *path = control_path(uid, e->major, e->minor);
	struct sockaddr_un addr;
	struct ucred cred;
	int fd = -1;

	if (fill_address(&addr, path))
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) || !peer(fd, &cred)) {
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
			    "the daemon of %s cannot be reached at %s: %s", e->target, path,
			    g_strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (cred.uid != uid && cred.uid != 0) {
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
			    "%s is not served by the owner of the mount", path);
		close(fd);
		return -1;
	}
	*ret_pid = cred.pid;
	return fd;
}

bool control_call(int fd, const char *request, GError **error)
{
	char reply[CONTROL_MESSAGE_MAX];
	bool got;

	got = send_all(fd, request, strlen(request) + 1) && receive(fd, reply, sizeof(reply));
	close(fd);
	if (!got) {
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "the daemon did not answer");
		return false;
	}
	if (strcmp(reply, "ok") == 0)
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "%s",
		    g_str_has_prefix(reply, "error ") ? reply + strlen("error ") : reply);
	return false;
}
