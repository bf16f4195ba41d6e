/* SPDX-License-Identifier: MIT */
/*
 * The server: a thread that accepts, and one for each client.
 *
 * Owns the socket and its clients. A client's thread reads its calls one after the other, runs each
 * and answers, so one that sends garbage, stops reading or floods has only itself to wait for; how
 * many there are, how long a call is and how long one may be silent is limited. The list of clients
 * is the accepting thread's. Takes no lock.
 */
#include "control_private.h"
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 8

struct client {
	struct client *next;
	struct slu_control *server;
	struct slu_thread thread;
	int fd;
	_Atomic uint64_t silent_ns; /* since when it has had nothing to do; 0: it has */
	_Atomic bool done;          /* the thread can be joined without a wait */
};

struct slu_control {
	struct slu_control_opts opts;
	char *path;
	int fd;      /* listens */
	int stop_fd; /* an eventfd, readable for ever once the server stops */
	_Atomic bool stopping;
	_Atomic unsigned int nstreams; /* calls with "more" that are being answered */
	struct slu_thread thread;
	struct client *clients; /* the thread's */
	unsigned int nclients;
	struct slu_control_server_stats stats;
};

struct slu_control_call {
	struct client *client;
	JsonObject *request, *parameters;
	struct wire_buffer *in; /* its descriptors are the call's */
	bool more, oneway;
	bool answered;
	bool gone; /* sending failed */
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ------------------------------------------------------------------ a call, for its handler */

JsonObject *slu_control_parameters(struct slu_control_call *call)
{
	return call->parameters;
}

/* NULL: there is none of that type. */
static JsonNode *member(JsonObject *o, const char *name, GType type)
{
	JsonNode *node = json_object_get_member(o, name);

	return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == type ? node
											     : NULL;
}

static JsonNode *parameter(struct slu_control_call *call, const char *name, GType type)
{
	JsonNode *node = member(call->parameters, name, type);

	if (!node)
		service_fail(call, "InvalidParameter", "parameter", name);
	return node;
}

const char *slu_control_string(struct slu_control_call *call, const char *name)
{
	JsonNode *node = parameter(call, name, G_TYPE_STRING);

	return node ? json_node_get_string(node) : NULL;
}

bool slu_control_bool(struct slu_control_call *call, const char *name, bool *ret)
{
	JsonNode *node = parameter(call, name, G_TYPE_BOOLEAN);

	if (node)
		*ret = json_node_get_boolean(node);
	return node != NULL;
}

bool slu_control_int(struct slu_control_call *call, const char *name, int64_t *ret)
{
	JsonNode *node = json_object_get_member(call->parameters, name);

	if (!node || JSON_NODE_HOLDS_NULL(node))
		return true;
	node = parameter(call, name, G_TYPE_INT64);
	if (node)
		*ret = json_node_get_int(node);
	return node != NULL;
}

int slu_control_take_fd(struct slu_control_call *call, const char *name)
{
	int64_t i = -1;
	int fd = -1;

	if (!slu_control_int(call, name, &i))
		return -1;
	if (i >= 0 && i < (int64_t)call->in->nfds)
		fd = call->in->fds[i];
	if (fd < 0)
		service_fail(call, "InvalidParameter", "parameter", name);
	else
		call->in->fds[i] = -1;
	return fd;
}

/* Whole or not. */
static JsonNode *number(struct slu_control_call *call, const char *name)
{
	JsonNode *node = member(call->parameters, name, G_TYPE_INT64);

	return node ? node : parameter(call, name, G_TYPE_DOUBLE);
}

bool slu_control_number(struct slu_control_call *call, const char *name, double *ret)
{
	JsonNode *node = json_object_get_member(call->parameters, name);

	if (!node || JSON_NODE_HOLDS_NULL(node))
		return true;
	node = number(call, name);
	if (node)
		*ret = json_node_get_double(node);
	return node != NULL;
}

bool slu_control_float(struct slu_control_call *call, const char *name, double min, double max,
		       double *ret)
{
	JsonNode *node = number(call, name);
	double value;

	if (!node)
		return false;
	value = json_node_get_double(node);
	if (value >= min && value <= max) {
		*ret = value;
		return true;
	}
	service_fail(call, "InvalidParameter", "parameter", name);
	return false;
}

const struct slu_control_server_stats *slu_control_call_stats(const struct slu_control_call *call)
{
	return &call->client->server->stats;
}

bool slu_control_wants_more(struct slu_control_call *call, bool need)
{
	if (!call->more && need)
		service_fail(call, "ExpectedMore", NULL, NULL);
	return call->more;
}

bool slu_control_wait(struct slu_control_call *call, int fd, uint64_t deadline_ns)
{
	struct client *c = call->client;
	struct pollfd fds[] = {
		{.fd = c->server->stop_fd, .events = POLLIN},
		{.fd = c->fd}, /* its end is always told */
		{.fd = fd, .events = POLLIN},
	};
	int timeout = -1;

	if (deadline_ns != SLU_NO_DEADLINE) {
		uint64_t now = slu_clock_ns();

		timeout = now >= deadline_ns ? 0
					     : (int)slu_min((deadline_ns - now) / SLU_NS_PER_MS + 1,
							    3600000ull);
	}
	while (poll(fds, G_N_ELEMENTS(fds), timeout) < 0) {
		if (errno != EINTR)
			return false;
	}
	return !fds[0].revents && !fds[1].revents;
}

bool slu_control_ended(struct slu_control_call *call)
{
	return call->gone || !slu_control_wait(call, -1, 0);
}

/* False: not taken in time, or the end of the client or of the server. */
static bool send_all(struct client *c, const char *data, size_t len, int timeout_ms)
{
	while (len) {
		struct pollfd fds[] = {
			{.fd = c->server->stop_fd, .events = POLLIN},
			{.fd = c->fd, .events = POLLOUT},
		};
		ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0) {
			count(&c->server->stats.sent_bytes, (uint64_t)n);
			data += n;
			len -= (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return false;
		n = poll(fds, G_N_ELEMENTS(fds), timeout_ms);
		if (n == 0 || (n > 0 && fds[0].revents))
			return false;
	}
	return true;
}

/* g_free. error NULL: none; parameters: taken, NULL for none. */
static char *reply_text(const char *error, JsonObject *parameters, bool continues)
{
	JsonObject *reply = json_object_new();
	char *text;

	if (error)
		json_object_set_string_member(reply, "error", error);
	json_object_set_object_member(reply, "parameters",
				      parameters ? parameters : json_object_new());
	if (continues)
		json_object_set_boolean_member(reply, "continues", true);
	text = wire_text(reply);
	json_object_unref(reply);
	return text;
}

/*
 * The members of a reply; parameters are taken. A stream waits for as long as its reader wants it
 * to: what comes meanwhile is in the reader's ring, or counted as lost.
 */
static void answer(struct slu_control_call *call, const char *error, JsonObject *parameters,
		   bool continues)
{
	int timeout_ms = continues ? -1 : (int)SLU_CONTROL_SEND_SEC * 1000;
	g_autofree char *text = reply_text(error, parameters, continues);

	if (!call->oneway && !call->gone)
		call->gone = !send_all(call->client, text, strlen(text) + 1, timeout_ms);
}

bool slu_control_continue(struct slu_control_call *call, JsonObject *parameters)
{
	slu_assert(call->more && !call->answered);
	answer(call, NULL, parameters, true);
	return !call->gone;
}

void slu_control_reply(struct slu_control_call *call, JsonObject *parameters)
{
	slu_assert(!call->answered);
	call->answered = true;
	answer(call, NULL, parameters, false);
}

void call_fail(struct slu_control_call *call, const char *error, JsonObject *parameters)
{
	slu_assert(!call->answered);
	call->answered = true;
	answer(call, error, parameters, false);
}

void slu_control_fail(struct slu_control_call *call, const char *name, const char *fmt, ...)
{
	const struct slu_control_interface *i = call->client->server->opts.interface;
	g_autofree char *full = g_strdup_printf("%s.%s", i->name, name);
	g_autofree char *message = NULL;
	va_list ap;

	va_start(ap, fmt);
	message = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	call_fail(call, full, wire_one_string("message", message));
}

/* ------------------------------------------------------------------ from a message to a method */

static void refuse_fds(struct slu_control_call *call)
{
	slu_control_fail(call, "Failed", "%u descriptors came with a call that takes fewer",
			 call->in->nfds);
}

static void run_method(struct slu_control_call *call, const char *full)
{
	const struct slu_control_interface *i = call->client->server->opts.interface;
	const char *dot = strrchr(full, '.');
	g_autofree char *name = dot ? g_strndup(full, (gsize)(dot - full)) : NULL;

	if (!dot) {
		service_fail(call, "MethodNotFound", "method", full);
		return;
	}
	if (strcmp(name, SERVICE_INTERFACE) == 0 && call->in->nfds) {
		refuse_fds(call);
		return;
	}
	if (strcmp(name, SERVICE_INTERFACE) == 0) {
		service_run(call, i, dot + 1);
		return;
	}
	if (strcmp(name, i->name) != 0) {
		service_fail(call, "InterfaceNotFound", "interface", name);
		return;
	}
	for (const struct slu_control_method *m = i->methods; m->name; m++) {
		if (strcmp(m->name, dot + 1) == 0) {
			if (call->in->nfds > m->max_fds)
				refuse_fds(call);
			else
				m->run(i->ctx, call);
			return;
		}
	}
	service_fail(call, "MethodNotFound", "method", full);
}

/* A stream lasts for as long as its reader likes, so it takes a place of which there are fewer. */
static void run_stream(struct slu_control_call *call, const char *full)
{
	struct slu_control *s = call->client->server;

	if (atomic_fetch_add(&s->nstreams, 1) < SLU_CONTROL_MAX_STREAMS)
		run_method(call, full);
	else
		slu_control_fail(call, "Failed",
				 "%u clients follow something already (watch, top, scrub): end one "
				 "of them",
				 SLU_CONTROL_MAX_STREAMS);
	atomic_fetch_sub(&s->nstreams, 1);
}

static bool is_set(JsonObject *o, const char *name)
{
	JsonNode *node = member(o, name, G_TYPE_BOOLEAN);

	return node && json_node_get_boolean(node);
}

/* False: the client has gone, or has sent what is no call. */
static bool serve_message(struct client *c, const char *message, struct wire_buffer *in)
{
	struct slu_control_call call = {.client = c, .request = wire_parse(message), .in = in};
	JsonNode *method, *parameters;
	bool ok = false;

	if (!call.request)
		return false;
	method = member(call.request, "method", G_TYPE_STRING);
	parameters = json_object_get_member(call.request, "parameters");
	if (method && (!parameters || JSON_NODE_HOLDS_OBJECT(parameters) ||
		       JSON_NODE_HOLDS_NULL(parameters))) {
		call.parameters = parameters && JSON_NODE_HOLDS_OBJECT(parameters)
					  ? json_object_ref(json_node_get_object(parameters))
					  : json_object_new();
		call.more = is_set(call.request, "more");
		call.oneway = is_set(call.request, "oneway");
		count(&c->server->stats.calls, 1);
		if (call.more)
			run_stream(&call, json_node_get_string(method));
		else
			run_method(&call, json_node_get_string(method));
		slu_assert(call.answered || slu_control_ended(&call));
		json_object_unref(call.parameters);
		ok = call.answered && !call.gone;
	}
	json_object_unref(call.request);
	return ok;
}

/* ------------------------------------------------------------------ a client */

/* Waits for more of a call. False: silent for too long, or the end. */
static bool wait_for_client(struct client *c)
{
	struct pollfd fds[] = {
		{.fd = c->server->stop_fd, .events = POLLIN},
		{.fd = c->fd, .events = POLLIN},
	};
	int n;

	atomic_store(&c->silent_ns, slu_clock_ns());
	do {
		n = poll(fds, G_N_ELEMENTS(fds), (int)(c->server->opts.idle_ns / SLU_NS_PER_MS));
	} while (n < 0 && errno == EINTR);
	atomic_store(&c->silent_ns, 0);
	return n > 0 && !fds[0].revents;
}

static void serve_client(struct client *c)
{
	struct wire_buffer in;
	bool dropped = false;

	wire_buffer_init(&in, SLU_CONTROL_MESSAGE_MAX, SLU_CONTROL_MAX_FDS);
	for (;;) {
		const char *message = wire_message(&in);
		size_t had;
		int n;

		if (message) {
			if (!serve_message(c, message, &in)) {
				dropped = true;
				break;
			}
			wire_consume(&in);
			continue;
		}
		if (!wait_for_client(c)) {
			dropped = true;
			break;
		}
		had = in.used;
		n = wire_receive(&in, c->fd);
		count(&c->server->stats.received_bytes, in.used - had);
		if (n <= 0) {
			dropped = n < 0;
			break;
		}
	}
	if (dropped && !atomic_load(&c->server->stopping))
		count(&c->server->stats.dropped, 1);
	wire_buffer_fini(&in);
}

static void client_main(void *arg)
{
	struct client *c = arg;

	serve_client(c);
	atomic_fetch_sub_explicit(&c->server->stats.connected, 1, memory_order_relaxed);
	/* The peer sees the end now; the number stays ours until the thread is joined. */
	shutdown(c->fd, SHUT_RDWR);
	atomic_store(&c->done, true);
}

static bool may_speak(int fd)
{
	uid_t uid;
	pid_t pid;

	return wire_peer(fd, &uid, &pid) && (uid == 0 || uid == geteuid());
}

/* Joins those that have ended, or all. */
static void reap(struct slu_control *s, bool all)
{
	struct client **p = &s->clients, *c;

	while ((c = *p)) {
		if (!all && !atomic_load(&c->done)) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		s->nclients--;
		slu_thread_join(&c->thread);
		close(c->fd);
		g_free(c);
	}
}

/* Whoever has been silent longest goes, and is waited for: its thread has nothing else to do. */
static void make_way(struct slu_control *s)
{
	uint64_t now = slu_clock_ns(), oldest = now - SLU_CONTROL_MAKE_WAY_SEC * SLU_NS_PER_SEC;
	struct client *silent = NULL;

	for (struct client *c = s->clients; c; c = c->next) {
		uint64_t since = atomic_load(&c->silent_ns);

		if (since && since <= oldest) {
			silent = c;
			oldest = since;
		}
	}
	if (!silent)
		return;
	count(&s->stats.dropped, 1);
	shutdown(silent->fd, SHUT_RDWR);
	for (int i = 0; i < 100 && !atomic_load(&silent->done); i++)
		slu_sleep_ns(SLU_NS_PER_MS);
	reap(s, false);
}

/* Says why, as an answer to whatever the client has in mind. */
static void refuse(struct slu_control *s, int fd)
{
	g_autofree char *message =
		g_strdup_printf("%u clients are connected already: end one of them",
				SLU_CONTROL_MAX_CLIENTS);
	g_autofree char *name = g_strconcat(s->opts.interface->name, ".Failed", NULL);
	g_autofree char *text = reply_text(name, wire_one_string("message", message), false);

	(void)!send(fd, text, strlen(text) + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void admit(struct slu_control *s, int fd)
{
	bool may = may_speak(fd);
	struct client *c;

	if (may && s->nclients >= SLU_CONTROL_MAX_CLIENTS)
		make_way(s);
	if (!may || s->nclients >= SLU_CONTROL_MAX_CLIENTS) {
		count(&s->stats.refused, 1);
		if (may)
			refuse(s, fd);
		close(fd);
		return;
	}
	c = g_new0(struct client, 1);
	c->server = s;
	c->fd = fd;
	count(&s->stats.connected, 1);
	if (slu_thread_start(&c->thread, "slu-client", client_main, c)) {
		atomic_fetch_sub_explicit(&s->stats.connected, 1, memory_order_relaxed);
		close(fd);
		g_free(c);
		return;
	}
	count(&s->stats.clients, 1);
	c->next = s->clients;
	s->clients = c;
	s->nclients++;
}

/* ------------------------------------------------------------------ the server */

static void server_main(void *arg)
{
	struct slu_control *s = arg;
	struct pollfd fds[] = {
		{.fd = s->stop_fd, .events = POLLIN},
		{.fd = s->fd, .events = POLLIN},
	};

	while (!atomic_load(&s->stopping)) {
		int fd;

		if (poll(fds, G_N_ELEMENTS(fds), -1) < 0 && errno != EINTR)
			break;
		if (!fds[1].revents)
			continue;
		reap(s, false);
		fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			admit(s, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			slu_sleep_ns(100 * SLU_NS_PER_MS); /* it stays readable */
	}
	reap(s, true);
}

static int listen_at(const char *path)
{
	g_autofree char *dir = g_path_get_dirname(path);
	struct sockaddr_un addr;
	int fd, err;
	mode_t old;

	if (!wire_address(&addr, path))
		return -ENAMETOOLONG;
	if (g_mkdir_with_parents(dir, 0700))
		return -errno;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* Device numbers are used again; whoever had this one is gone. */
	unlink(path);
	old = umask(0177);
	err = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, BACKLOG) ? -errno : 0;
	umask(old);
	if (!err)
		return fd;
	close(fd);
	return err;
}

static void server_free(struct slu_control *s)
{
	if (s->fd >= 0) {
		unlink(s->path);
		close(s->fd);
	}
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	g_free(s->path);
	g_free(s);
}

int slu_control_start(const struct slu_control_opts *opts, struct slu_control **ret)
{
	struct slu_control *s = g_new0(struct slu_control, 1);
	int err = 0;

	s->opts = *opts;
	if (!s->opts.idle_ns)
		s->opts.idle_ns = SLU_CONTROL_IDLE_SEC * SLU_NS_PER_SEC;
	s->path = g_strdup(opts->path);
	s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->fd = listen_at(s->path);
	if (s->fd < 0)
		err = s->fd;
	else if (s->stop_fd < 0)
		err = -errno;
	else
		err = slu_thread_start(&s->thread, "slu-control", server_main, s);
	if (err) {
		server_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void slu_control_stop(struct slu_control *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	atomic_store(&s->stopping, true);
	(void)!write(s->stop_fd, &one, sizeof(one));
	slu_thread_join(&s->thread);
	server_free(s);
}

const char *slu_control_path(const struct slu_control *s)
{
	return s->path;
}

const struct slu_control_server_stats *slu_control_stats(const struct slu_control *s)
{
	return &s->stats;
}
