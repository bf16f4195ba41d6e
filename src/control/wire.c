/* SPDX-License-Identifier: MIT */
/*
 * Varlink's wire: JSON objects, each ended by a NUL, over a stream socket. Used by both ends, each
 * in the thread that owns the socket; takes no lock.
 */
#include "control_private.h"
#include <string.h>
#include <sys/socket.h>

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

void wire_buffer_init(struct wire_buffer *b, size_t max)
{
	*b = (struct wire_buffer){.max = max};
}

void wire_buffer_fini(struct wire_buffer *b)
{
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
}

int wire_receive(struct wire_buffer *b, int fd)
{
	ssize_t n;

	if (b->used == b->size) {
		if (b->size >= b->max)
			return -EMSGSIZE;
		b->size = b->size ? slu_min(b->size * 2, b->max) : slu_min(FIRST_SIZE, b->max);
		b->data = g_realloc(b->data, b->size);
	}
	do {
		n = recv(fd, b->data + b->used, b->size - b->used, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
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
