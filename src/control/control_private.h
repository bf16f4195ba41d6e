/* SPDX-License-Identifier: MIT */
/* control: what the two ends share. */
#ifndef SLUICE_CONTROL_PRIVATE_H
#define SLUICE_CONTROL_PRIVATE_H

#include "sluice/control.h"
#include <sys/un.h>

#define SERVICE_INTERFACE "org.varlink.service"

/* False: the path does not fit. */
bool wire_address(struct sockaddr_un *addr, const char *path);
/* The uid and pid of who is at the other end. */
bool wire_peer(int fd, uid_t *ret_uid, pid_t *ret_pid);
/* As it goes over the wire, with its NUL; g_free. */
char *wire_text(JsonObject *object);

/* Bytes of messages that have come, in a buffer with a limit. */
struct wire_buffer {
	char *data;
	size_t used, size, max;
};
void wire_buffer_init(struct wire_buffer *b, size_t max);
void wire_buffer_fini(struct wire_buffer *b);
/* The first whole message, a string in the buffer until wire_consume; NULL: none yet. */
const char *wire_message(const struct wire_buffer *b);
void wire_consume(struct wire_buffer *b);
/* What recv has now. 1, 0 at the end, -errno; -EMSGSIZE: longer than max without an end. */
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
