/* SPDX-License-Identifier: MIT */
/*
 * sluicectl metrics --listen: an HTTP server, libmicrohttpd's, that asks the daemon afresh for
 * each GET /metrics.
 *
 * The main thread waits for a signal and sends away connections that take too long; each
 * connection has a thread of libmicrohttpd's, so that a daemon that hangs or a client that is slow
 * holds up nobody else. A connection is for one request: what a scrape needs is a few
 * milliseconds, and one that is kept open would be one less for others.
 */
#include "ctl_metrics.h"
#include <microhttpd.h>
#include <netdb.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATH              "/metrics"
#define CONTENT_TYPE      "text/plain; version=0.0.4; charset=utf-8"
#define BACKLOG           16
#define CONNECTIONS       16u /* half of what the daemon's socket takes */
#define CONNECTIONS_IP    12u /* from one address */
#define REQUEST_BYTES     8192u
#define SILENCE_SEC       10u
#define CONNECTION_NS     (20 * SLU_NS_PER_SEC) /* from accept to the end, whatever is sent */
#define THREAD_STACK_SIZE (256u << 10)

struct connection {
	struct connection *next;
	int fd;
	uint64_t start_ns;
};

struct listener {
	const struct metrics_target *target;
	GMutex lock; /* the next two */
	struct connection *connections;
	char *down; /* why the last scrape has found no daemon; NULL: it has found one */
};

/* ------------------------------------------------------------------ connections */

static void on_connection(void *ctx, struct MHD_Connection *connection, void **own,
			  enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct listener *l = ctx;
	struct connection *c = *own, **p;

	g_mutex_lock(&l->lock);
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		*own = c = g_new0(struct connection, 1);
		c->fd = info->connect_fd;
		c->start_ns = slu_clock_ns();
		c->next = l->connections;
		l->connections = c;
	} else {
		for (p = &l->connections; *p != c; p = &(*p)->next)
			;
		*p = c->next;
		g_free(c);
	}
	g_mutex_unlock(&l->lock);
}

/* The descriptor is closed only after its connection has left the list. */
static void end_old_connections(struct listener *l)
{
	uint64_t now = slu_clock_ns();

	g_mutex_lock(&l->lock);
	for (struct connection *c = l->connections; c; c = c->next)
		if (now - c->start_ns > CONNECTION_NS)
			shutdown(c->fd, SHUT_RDWR);
	g_mutex_unlock(&l->lock);
}

/* ------------------------------------------------------------------ requests */

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned int status,
			     const char *type, const char *text, size_t len)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer(len, (void *)text, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result result = MHD_NO;

	if (!r)
		return MHD_NO;
	if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
	    MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES &&
	    (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
	     MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET) == MHD_YES))
		result = MHD_queue_response(connection, status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result reply_text(struct MHD_Connection *connection, unsigned int status,
				  const char *text)
{
	return reply(connection, status, "text/plain; charset=utf-8", text, strlen(text));
}

/* One line when it goes, or goes for another reason, and one when it comes back. */
static void note(struct listener *l, const GError *error)
{
	g_mutex_lock(&l->lock);
	if (error && g_strcmp0(l->down, error->message) != 0)
		slu_tool_error("%s", error->message);
	else if (!error && l->down)
		slu_tool_note("the daemon answers again");
	g_free(l->down);
	l->down = error ? g_strdup(error->message) : NULL;
	g_mutex_unlock(&l->lock);
}

static enum MHD_Result reply_metrics(struct listener *l, struct MHD_Connection *connection)
{
	g_autoptr(GError) error = NULL;
	GString *s = metrics_scrape(l->target, &error);
	enum MHD_Result result;

	note(l, error);
	result = reply(connection, MHD_HTTP_OK, CONTENT_TYPE, s->str, s->len);
	g_string_free(s, true);
	return result;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **own)
{
	if (strcmp(url, PATH) != 0)
		return reply_text(connection, MHD_HTTP_NOT_FOUND, "only " PATH " is here\n");
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
		return reply_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
				  "only GET is answered\n");
	return reply_metrics(ctx, connection);
}

/* ------------------------------------------------------------------ where */

/* "127.0.0.1:9", "[::1]:9", "host.name:9". False after a line. */
static bool split(const char *where, char **ret_host, const char **ret_port)
{
	const char *colon = strrchr(where, ':'), *host = where;
	size_t len = colon ? (size_t)(colon - where) : 0;
	char *end = NULL;

	if (len >= 2 && where[0] == '[' && colon[-1] == ']') {
		host++;
		len -= 2;
	} else if (colon && memchr(where, ':', len)) {
		slu_tool_error("--listen: an IPv6 address stands in brackets: [::1]:9000");
		return false;
	}
	if (!len || !g_ascii_isdigit(colon[1]) || g_ascii_strtoull(colon + 1, &end, 10) > 65535 ||
	    *end) {
		slu_tool_error("--listen: \"%s\" is not ADDRESS:PORT", where);
		return false;
	}
	*ret_host = g_strndup(host, len);
	*ret_port = colon + 1;
	return true;
}

/* The descriptor, or -1 and errno. */
static int listen_on(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, err;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, BACKLOG))
		return fd;
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

/* The first of a name's addresses that can be had; -1 after a line. */
static int open_socket(const char *where, const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
			*all;
	int err = getaddrinfo(host, port, &hints, &all), fd = -1;

	if (err) {
		slu_tool_error("%s: %s", where, gai_strerror(err));
		return -1;
	}
	for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next)
		fd = listen_on(a);
	if (fd < 0)
		slu_tool_error("%s: %s", where, g_strerror(errno));
	freeaddrinfo(all);
	return fd;
}

/* With port 0 nobody knows it before. */
static void tell_where(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char host[NI_MAXHOST], port[NI_MAXSERV];
	bool v6;

	if (getsockname(fd, (struct sockaddr *)&addr, &len) ||
	    getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	v6 = strchr(host, ':');
	printf("listening on http://%s%s%s:%s" PATH "\n", v6 ? "[" : "", host, v6 ? "]" : "", port);
	fflush(stdout);
}

/* ------------------------------------------------------------------ beginning and end */

static struct MHD_Daemon *start(struct listener *l, int fd)
{
	return MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
					MHD_USE_POLL | MHD_USE_ITC,
				0, NULL, NULL, on_request, l, MHD_OPTION_LISTEN_SOCKET, fd,
				MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
				MHD_OPTION_PER_IP_CONNECTION_LIMIT, CONNECTIONS_IP,
				MHD_OPTION_CONNECTION_TIMEOUT, SILENCE_SEC,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES,
				MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_SIZE,
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, l, MHD_OPTION_END);
}

static void wait_for_end(struct listener *l, const sigset_t *set)
{
	const struct timespec tick = {.tv_sec = 1};

	while (sigtimedwait(set, NULL, &tick) < 0)
		end_old_connections(l);
}

int metrics_listen(const struct metrics_target *t, const char *where)
{
	struct listener l = {.target = t};
	g_autofree char *host = NULL;
	struct MHD_Daemon *server;
	const char *port;
	sigset_t set;
	int fd;

	if (!split(where, &host, &port))
		return CTL_USAGE;
	/* Before there are threads, which inherit it. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = open_socket(where, host, port);
	if (fd < 0)
		return CTL_FAILED;
	g_mutex_init(&l.lock);
	server = start(&l, fd);
	if (server) {
		tell_where(fd);
		wait_for_end(&l, &set);
		MHD_stop_daemon(server); /* and closes fd */
	} else {
		slu_tool_error("%s: the server cannot be started", where);
		close(fd);
	}
	g_free(l.down);
	g_mutex_clear(&l.lock);
	return server ? CTL_OK : CTL_FAILED;
}
