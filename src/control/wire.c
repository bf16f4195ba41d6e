/* SPDX-License-Identifier: MIT */
/*
 * Varlink's wire: JSON objects, each ended by a NUL, over a stream socket. Used by both ends, each
 * in the thread that owns the socket; takes no lock.
 */
#include "control_private.h"
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_SIZE 4096u

bool wire_address(struct sockaddr_un *addr, const char *path)
{
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	return g_strlcpy(addr->sun_path, path, sizeof(addr->sun_path)) < sizeof(addr->sun_path);
}

bool wire_peer(int fd, uid_t *ret_uid, pid_t *ret_pid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	*ret_uid = cred.uid;
	*ret_pid = cred.pid;
	return true;
}

/* ------------------------------------------------------------------ out */

char *wire_text(JsonObject *object)
{
	g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), object);

	return json_to_string(node, false);
}

JsonObject *wire_one_string(const char *name, const char *value)
{
	JsonObject *object = json_object_new();

	json_object_set_string_member(object, name, value);
	return object;
}

/* ------------------------------------------------------------------ in */

void wire_buffer_init(struct wire_buffer *b, size_t max, unsigned int max_fds)
{
	*b = (struct wire_buffer){.max = max, .max_fds = max_fds};
}

static void close_fds(struct wire_buffer *b)
{
	for (unsigned int i = 0; i < b->nfds; i++)
		if (b->fds[i] >= 0)
			close(b->fds[i]);
	b->nfds = 0;
}

void wire_buffer_fini(struct wire_buffer *b)
{
	close_fds(b);
	g_free(b->data);
}

const char *wire_message(const struct wire_buffer *b)
{
	return b->used && memchr(b->data, '\0', b->used) ? b->data : NULL;
}

void wire_consume(struct wire_buffer *b)
{
	size_t len = strlen(b->data) + 1;

	b->used -= len;
	memmove(b->data, b->data + len, b->used);
	close_fds(b);
}

/* Every one becomes ours, wanted or not. False: too many. */
static bool keep_fds(struct wire_buffer *b, struct msghdr *msg)
{
	bool ok = !(msg->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (b->nfds < b->max_fds) {
				b->fds[b->nfds++] = fd;
			} else {
				close(fd);
				ok = false;
			}
		}
	}
	return ok;
}

static bool make_room(struct wire_buffer *b)
{
	if (b->used < b->size)
		return true;
	if (b->size >= b->max)
		return false;
	b->size = b->size ? slu_min(b->size * 2, b->max) : slu_min(FIRST_SIZE, b->max);
	b->data = g_realloc(b->data, b->size);
	return true;
}

int wire_receive(struct wire_buffer *b, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(SLU_CONTROL_MAX_FDS * sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iovlen = 1};
	struct iovec iov;
	ssize_t n;

	if (!make_room(b))
		return -EMSGSIZE;
	iov = (struct iovec){b->data + b->used, b->size - b->used};
	do {
		msg.msg_iov = &iov;
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (!keep_fds(b, &msg)) {
		close_fds(b);
		return -EMSGSIZE;
	}
	b->used += (size_t)n;
	return n > 0;
}

JsonObject *wire_parse(const char *message)
{
	g_autoptr(JsonNode) node = json_from_string(message, NULL);

	if (!node || !JSON_NODE_HOLDS_OBJECT(node))
		return NULL;
	return json_node_dup_object(node);
}
