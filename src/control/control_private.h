/* SPDX-License-Identifier: MIT */
/* control: what the two ends share. */
#ifndef SLUICE_CONTROL_PRIVATE_H
#define SLUICE_CONTROL_PRIVATE_H

#include "sluice/control.h"
#include <sys/socket.h>
#include <sys/un.h>

#define SERVICE_INTERFACE "org.varlink.service"

/* False: the path does not fit. */
bool wire_address(struct sockaddr_un *addr, const char *path);
/* The uid and pid of who is at the other end. */
bool wire_peer(int fd, uid_t *ret_uid, pid_t *ret_pid);
/* As it goes over the wire, with its NUL; g_free. */
char *wire_text(JsonObject *object);

/* Bytes of messages that have come, in a buffer with a limit, and what descriptors came with them. */
struct wire_buffer {
	char *data;
	size_t used, size, max;
	int fds[SLU_CONTROL_MAX_FDS];
	unsigned int nfds, max_fds;
};
/* max_fds: how many descriptors one message may bring, at most SLU_CONTROL_MAX_FDS. */
void wire_buffer_init(struct wire_buffer *b, size_t max, unsigned int max_fds);
void wire_buffer_fini(struct wire_buffer *b);
/* The first whole message, a string in the buffer until wire_consume; NULL: none yet. */
const char *wire_message(const struct wire_buffer *b);
/* Its descriptors that nobody has taken (-1) are closed. */
void wire_consume(struct wire_buffer *b);
/*
 * What recvmsg has now. 1, 0 at the end, -errno; -EMSGSIZE: longer than max without an end, or more
 * descriptors than there may be, all of them closed.
 */
int wire_receive(struct wire_buffer *b, int fd);
/* An object, the caller's, or NULL: not JSON, or not an object. */
JsonObject *wire_parse(const char *message);

/* {name: value}, as parameters. */
JsonObject *wire_one_string(const char *name, const char *value);

/* Answers calls of org.varlink.service. */
void service_run(struct slu_control_call *call, const struct slu_control_interface *interface,
		 const char *method);
/* A standard error, with its one parameter. */
void service_fail(struct slu_control_call *call, const char *error, const char *name,
		  const char *value);
/* A reply with an error of any name. parameters: taken. */
void call_fail(struct slu_control_call *call, const char *error, JsonObject *parameters);

#endif
