/* SPDX-License-Identifier: MIT */
/* The control socket: both ends of a call and of a stream, and peers that misbehave. */
#include "sluice/control.h"
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define IDLE_NS    (200 * SLU_NS_PER_MS)
#define TIMEOUT_MS 30000

struct world {
	struct slu_control *control;
	char *path;
	_Atomic int streams;  /* handlers of Count that run */
	_Atomic bool release; /* lets Wait go */
};

/* ------------------------------------------------------------------ a service */

static void run_echo(void *ctx, struct slu_control_call *call)
{
	const char *text = slu_control_string(call, "text");
	JsonObject *o;

	(void)ctx;
	if (!text)
		return;
	if (strcmp(text, "fail") == 0) {
		slu_control_fail(call, "Failed", "it is %s", "broken");
		return;
	}
	o = json_object_new();
	json_object_set_string_member(o, "text", text);
	slu_control_reply(call, o);
}

/* 1, 2, 3 … until nobody listens any more. */
static void run_count(void *ctx, struct slu_control_call *call)
{
	struct world *w = ctx;
	bool fast = json_object_get_boolean_member_with_default(slu_control_parameters(call),
								"fast", false);

	if (!slu_control_wants_more(call, true))
		return;
	atomic_fetch_add(&w->streams, 1);
	for (int64_t i = 1;; i++) {
		JsonObject *o = json_object_new();

		json_object_set_int_member(o, "n", i);
		if (!slu_control_continue(call, o) ||
		    !slu_control_wait(call, -1, fast ? 0 : slu_clock_ns() + 2 * SLU_NS_PER_MS))
			break;
	}
	atomic_fetch_sub(&w->streams, 1);
}

static void run_wait(void *ctx, struct slu_control_call *call)
{
	struct world *w = ctx;

	while (!atomic_load(&w->release) && !slu_control_ended(call))
		slu_sleep_ns(SLU_NS_PER_MS);
	slu_control_reply(call, NULL);
}

/* The size of a file that came along. */
static void run_measure(void *ctx, struct slu_control_call *call)
{
	int fd = slu_control_take_fd(call, "fd");
	struct stat st = {0};
	JsonObject *o;

	(void)ctx;
	if (fd < 0)
		return;
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	fstat(fd, &st);
	close(fd);
	o = json_object_new();
	json_object_set_int_member(o, "size", st.st_size);
	slu_control_reply(call, o);
}

/* Leaves what came along alone. */
static void run_ignore(void *ctx, struct slu_control_call *call)
{
	(void)ctx;
	slu_control_reply(call, NULL);
}

/* {n: n} if it is from 1 to 10. */
static void run_number(void *ctx, struct slu_control_call *call)
{
	JsonObject *o;
	double n;

	(void)ctx;
	if (!slu_control_float(call, "n", 1, 10, &n))
		return;
	o = json_object_new();
	json_object_set_double_member(o, "n", n);
	slu_control_reply(call, o);
}

static const struct slu_control_method methods[] = {
	{"Measure", run_measure, .max_fds = 2},
	{"Ignore", run_ignore, .max_fds = 2},
	{"Number", run_number},
	{"Echo", run_echo},
	{"Count", run_count},
	{"Wait", run_wait},
	{NULL, NULL},
};

/* ------------------------------------------------------------------ setup */

static int setup_idle(void **state, uint64_t idle_ns)
{
	static struct slu_control_interface interface;
	static struct world w;
	struct slu_control_opts opts = {.interface = &interface, .idle_ns = idle_ns};

	w = (struct world){
		.path = g_strdup_printf("/tmp/sluice-control-%d/sub/socket", (int)getpid())};
	interface = (struct slu_control_interface){
		.name = "org.example.Test",
		.description = "interface org.example.Test\n",
		.methods = methods,
		.ctx = &w,
	};
	opts.path = w.path;
	assert_int_equal(slu_control_start(&opts, &w.control), 0);
	*state = &w;
	return 0;
}

static int setup(void **state)
{
	return setup_idle(state, 0);
}

static int setup_impatient(void **state)
{
	return setup_idle(state, IDLE_NS);
}

static int teardown(void **state)
{
	struct world *w = *state;
	g_autofree char *dir = g_path_get_dirname(w->path), *parent = g_path_get_dirname(dir);

	slu_control_stop(w->control);
	assert_int_equal(atomic_load(&w->streams), 0);
	assert_int_equal(access(w->path, F_OK), -1);
	rmdir(dir);
	rmdir(parent);
	g_free(w->path);
	return 0;
}

static struct slu_control_client *client(struct world *w)
{
	g_autoptr(GError) error = NULL;
	struct slu_control_client *c = slu_control_connect(w->path, geteuid(), &error);

	if (!c)
		fail_msg("%s", error->message);
	return c;
}

static JsonObject *one(const char *name, const char *value)
{
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, name, value);
	return o;
}

static void assert_echo(struct slu_control_client *c, const char *text)
{
	g_autoptr(GError) error = NULL;
	JsonObject *o = slu_control_call(c, "org.example.Test.Echo", one("text", text), &error);

	if (!o)
		fail_msg("%s", error->message);
	assert_string_equal(json_object_get_string_member(o, "text"), text);
	json_object_unref(o);
}

/* The call must be refused with this message. */
static void assert_refused(struct slu_control_client *c, const char *method, JsonObject *parameters,
			   const char *message)
{
	g_autoptr(GError) error = NULL;

	assert_null(slu_control_call(c, method, parameters, &error));
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_REFUSED));
	assert_string_equal(error->message, message);
}

/* A socket without our client's manners. */
static int raw(struct world *w)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(addr.sun_path, w->path, sizeof(addr.sun_path));
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* The other end hangs up, without a word. */
static void assert_dropped(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;

	assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
	assert_true(recv(fd, &c, 1, 0) <= 0);
	close(fd);
}

/* ------------------------------------------------------------------ calls */

static void calls_are_answered_one_after_the_other(void **state)
{
	struct slu_control_client *a = client(*state), *b = client(*state);

	for (int i = 0; i < 20; i++) {
		assert_echo(a, "one");
		assert_echo(b, "two \"quoted\" \xc3\xa4");
	}
	assert_int_equal(slu_control_peer(a), getpid());
	slu_control_close(a);
	slu_control_close(b);
}

static void errors_say_what_is_wrong(void **state)
{
	struct slu_control_client *c = client(*state);

	assert_refused(c, "org.example.Test.Echo", one("text", "fail"), "it is broken");
	assert_refused(c, "org.example.Test.Echo", NULL, "org.varlink.service.InvalidParameter");
	assert_refused(c, "org.example.Test.Nothing", NULL, "org.varlink.service.MethodNotFound");
	assert_refused(c, "org.example.Other.Echo", NULL, "org.varlink.service.InterfaceNotFound");
	assert_refused(c, "Echo", NULL, "org.varlink.service.MethodNotFound");
	assert_refused(c, "org.example.Test.Count", NULL, "org.varlink.service.ExpectedMore");
	assert_echo(c, "still here");
	slu_control_close(c);
}

static void a_service_describes_itself(void **state)
{
	struct slu_control_client *c = client(*state);
	JsonObject *o;

	o = slu_control_call(c, "org.varlink.service.GetInfo", NULL, NULL);
	assert_non_null(o);
	assert_int_equal(json_array_get_length(json_object_get_array_member(o, "interfaces")), 2);
	assert_string_equal(json_object_get_string_member(o, "version"), SLU_VERSION);
	json_object_unref(o);
	o = slu_control_call(c, "org.varlink.service.GetInterfaceDescription",
			     one("interface", "org.example.Test"), NULL);
	assert_string_equal(json_object_get_string_member(o, "description"),
			    "interface org.example.Test\n");
	json_object_unref(o);
	o = slu_control_call(c, "org.varlink.service.GetInterfaceDescription",
			     one("interface", "org.varlink.service"), NULL);
	assert_non_null(
		strstr(json_object_get_string_member(o, "description"), "method GetInfo()"));
	json_object_unref(o);
	assert_refused(c, "org.varlink.service.GetInterfaceDescription",
		       one("interface", "org.x.Y"), "org.varlink.service.InterfaceNotFound");
	slu_control_close(c);
}

static void calls_in_one_piece_are_answered_in_order(void **state)
{
	static const char calls[] =
		"{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":\"1\"}}\0"
		"{\"method\":\"org.example.Test.Echo\",\"oneway\":true,"
		"\"parameters\":{\"text\":\"2\"}}\0"
		"{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":\"3\"}}";
	static const char want[] = "{\"parameters\":{\"text\":\"1\"}}\0"
				   "{\"parameters\":{\"text\":\"3\"}}";
	char got[256];
	size_t used = 0;
	int fd = raw(*state);

	/* in pieces that end anywhere */
	for (size_t i = 0; i < sizeof(calls); i += 7)
		assert_true(send(fd, calls + i, slu_min(sizeof(calls) - i, (size_t)7), 0) > 0);
	while (used < sizeof(want)) {
		ssize_t n = recv(fd, got + used, sizeof(got) - used, 0);

		assert_true(n > 0);
		used += (size_t)n;
	}
	assert_memory_equal(got, want, sizeof(want));
	close(fd);
}

/* ------------------------------------------------------------------ streams */

static bool until_ten(void *ctx, JsonObject *reply)
{
	int64_t *last = ctx, n = json_object_get_int_member(reply, "n");

	assert_int_equal(n, *last + 1);
	*last = n;
	return n < 10;
}

static void wait_for_streams(struct world *w, int n)
{
	uint64_t deadline = slu_clock_ns() + TIMEOUT_MS * SLU_NS_PER_MS;

	while (atomic_load(&w->streams) != n) {
		assert_true(slu_clock_ns() < deadline);
		slu_sleep_ns(SLU_NS_PER_MS);
	}
}

static void a_stream_ends_with_its_reader(void **state)
{
	struct world *w = *state;
	struct slu_control_client *c = client(w);
	int64_t last = 0;

	assert_true(slu_control_stream(c, "org.example.Test.Count", NULL, until_ten, &last, NULL));
	assert_int_equal(last, 10);
	assert_int_equal(atomic_load(&w->streams), 1);
	slu_control_close(c);
	wait_for_streams(w, 0);
}

static int open_stream(struct world *w)
{
	static const char call[] = "{\"method\":\"org.example.Test.Count\",\"more\":true,"
				   "\"parameters\":{\"fast\":true}}";
	int fd = raw(w);

	assert_int_equal(send(fd, call, sizeof(call), 0), sizeof(call));
	return fd;
}

/* teardown is part of it: the server stops although they still do not read. */
static void readers_that_do_not_read_hold_up_nobody(void **state)
{
	struct world *w = *state;
	struct slu_control_client *c = client(w);

	for (int i = 1; i <= 10; i++) {
		(void)open_stream(w);
		wait_for_streams(w, i);
	}
	for (int i = 0; i < 100; i++)
		assert_echo(c, "hello");
	slu_control_close(c);
	slu_control_stop(w->control);
	w->control = NULL;
	assert_int_equal(atomic_load(&w->streams), 0);
	for (int fd = 3; fd < 64; fd++) { /* those of this test that are still open */
		struct stat st;

		if (!fstat(fd, &st) && S_ISSOCK(st.st_mode))
			close(fd);
	}
}

static void a_call_that_takes_long_holds_up_nobody(void **state)
{
	static const char call[] = "{\"method\":\"org.example.Test.Wait\"}";
	struct world *w = *state;
	struct slu_control_client *c = client(w);
	int fd = raw(w);
	char buf[64];

	assert_int_equal(send(fd, call, sizeof(call), 0), sizeof(call));
	assert_echo(c, "meanwhile");
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), -1);
	atomic_store(&w->release, true);
	assert_true(recv(fd, buf, sizeof(buf), 0) > 0);
	assert_string_equal(buf, "{\"parameters\":{}}");
	close(fd);
	slu_control_close(c);
}

static void stopping_ends_calls_that_wait(void **state)
{
	static const char call[] = "{\"method\":\"org.example.Test.Wait\"}";
	struct world *w = *state;
	int fd = raw(w);

	assert_int_equal(send(fd, call, sizeof(call), 0), sizeof(call));
	while (!atomic_load(&slu_control_stats(w->control)->calls))
		slu_sleep_ns(SLU_NS_PER_MS);
	slu_control_stop(w->control);
	w->control = NULL;
	close(fd);
}

/* ------------------------------------------------------------------ descriptors */

/* So many that this process has open; the server is in it. */
static unsigned int open_fds(void)
{
	GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
	unsigned int n = 0;

	while (g_dir_read_name(dir))
		n++;
	g_dir_close(dir);
	return n;
}

/*
 * The fewest that are seen for a while: what is just being closed is not to count. The server closes the
 * end of a client that has gone when the next one comes, at the latest: so here is a next one, and that
 * one's end counts each time.
 */
static unsigned int settled_fds(struct world *w)
{
	unsigned int least = UINT_MAX;

	slu_control_close(client(w));
	for (int i = 0; i < 50; i++) {
		least = slu_min(least, open_fds());
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	return least;
}

static void wait_for_fds(struct world *w, unsigned int n)
{
	uint64_t deadline = slu_clock_ns() + TIMEOUT_MS * SLU_NS_PER_MS;

	while (settled_fds(w) > n)
		assert_true(slu_clock_ns() < deadline);
}

static JsonObject *index_of(int64_t i)
{
	JsonObject *o = json_object_new();

	json_object_set_int_member(o, "fd", i);
	return o;
}

/* A file of 17 bytes without a name. */
static int some_file(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 17), 0);
	return fd;
}

/* Sends with n copies of fd. */
static ssize_t send_fds(int socket, const char *data, size_t len, int fd, unsigned int n)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(char *)data, len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned int i = 0; i < n; i++)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &fd, sizeof(int));
	return sendmsg(socket, &msg, MSG_NOSIGNAL);
}

static void a_descriptor_comes_with_a_call_and_is_closed(void **state)
{
	struct slu_control_client *c = client(*state);
	int fd = some_file();
	unsigned int before;

	assert_echo(c, "connected");
	before = settled_fds(*state);
	for (int i = 0; i < 50; i++) {
		JsonObject *o;

		slu_control_send_fd(c, dup(fd));
		o = slu_control_call(c, "org.example.Test.Measure", index_of(0), NULL);
		assert_non_null(o);
		assert_int_equal(json_object_get_int_member(o, "size"), 17);
		json_object_unref(o);
		/* none of an earlier call is left for this one */
		assert_refused(c, "org.example.Test.Measure", index_of(0),
			       "org.varlink.service.InvalidParameter");
		slu_control_send_fd(c, dup(fd));
		assert_refused(c, "org.example.Test.Measure", index_of(1),
			       "org.varlink.service.InvalidParameter");
		slu_control_send_fd(c, dup(fd));
		assert_refused(c, "org.example.Test.Measure", index_of(-1),
			       "org.varlink.service.InvalidParameter");
		slu_control_send_fd(c, dup(fd));
		assert_refused(c, "org.example.Test.Echo", one("text", "x"),
			       "1 descriptors came with a call that takes fewer");
		slu_control_send_fd(c, dup(fd));
		assert_refused(c, "org.varlink.service.GetInfo", NULL,
			       "1 descriptors came with a call that takes fewer");
		slu_control_send_fd(c, dup(fd));
		o = slu_control_call(c, "org.example.Test.Ignore", NULL, NULL);
		assert_non_null(o);
		json_object_unref(o);
	}
	wait_for_fds(*state, before);
	close(fd);
	slu_control_close(c);
}

static void more_descriptors_than_a_call_may_bring_are_dropped_with_the_client(void **state)
{
	static const char call[] = "{\"method\":\"org.example.Test.Ignore\"}";
	struct world *w = *state;
	int fd = some_file(), s;
	unsigned int before;

	slu_control_close(client(w));
	before = settled_fds(*state);
	/* at once */
	for (unsigned int n = SLU_CONTROL_MAX_FDS + 1; n <= 64; n += 7) {
		s = raw(w);
		assert_true(send_fds(s, call, sizeof(call), fd, n) > 0);
		assert_dropped(s);
	}
	/* one with each byte */
	s = raw(w);
	for (size_t i = 0; i < sizeof(call) - 1 && send_fds(s, call + i, 1, fd, 1) > 0; i++)
		;
	assert_dropped(s);
	/* with what is no call, and with one that never ends */
	s = raw(w);
	assert_true(send_fds(s, "{}", 3, fd, 2) > 0);
	assert_dropped(s);
	s = raw(w);
	assert_true(send_fds(s, call, 5, fd, 2) > 0);
	close(s);
	wait_for_fds(w, before);
	close(fd);
}

/* ------------------------------------------------------------------ bad manners */

static void garbage_is_dropped(void **state)
{
	static const struct {
		const char *data;
		size_t len;
	} bad[] = {
		{"hello", 6}, /* no JSON */
		{"", 1},
		{"[1]", 4},
		{"\"method\"", 9},
		{"{}", 3},
		{"{\"method\":7}", 13},
		{"{\"method\":\"a.b\",\"parameters\":[]}", 33},
	};
	struct world *w = *state;
	struct slu_control_client *c = client(w);

	for (size_t i = 0; i < slu_array_size(bad); i++) {
		int fd = raw(w);

		assert_int_equal(send(fd, bad[i].data, bad[i].len, 0), bad[i].len);
		assert_dropped(fd);
	}
	assert_int_equal(atomic_load(&slu_control_stats(w->control)->dropped), slu_array_size(bad));
	assert_echo(c, "hello");
	slu_control_close(c);
}

static void a_call_without_an_end_is_dropped(void **state)
{
	struct world *w = *state;
	char chunk[4096];
	int fd = raw(w);
	size_t sent = 0;

	memset(chunk, 'x', sizeof(chunk));
	while (sent < 2 * SLU_CONTROL_MESSAGE_MAX) {
		ssize_t n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);

		if (n < 0)
			break;
		sent += (size_t)n;
	}
	assert_dropped(fd);
}

static void silence_is_dropped_and_a_stream_is_not_silence(void **state)
{
	struct world *w = *state;
	struct slu_control_client *c = client(w);
	int silent = raw(w), half = raw(w);
	int64_t last = 0;

	assert_int_equal(send(half, "{\"met", 5, 0), 5);
	assert_dropped(silent);
	assert_dropped(half);
	slu_control_close(c);
	c = client(w);
	/* ten replies take longer than the silence that is allowed, where the machine is slow */
	assert_true(slu_control_stream(c, "org.example.Test.Count", NULL, until_ten, &last, NULL));
	slu_control_close(c);
}

static void there_is_a_limit_to_clients(void **state)
{
	struct world *w = *state;
	int fds[SLU_CONTROL_MAX_CLIENTS];
	struct slu_control_client *c;
	g_autoptr(GError) error = NULL;

	for (unsigned int i = 0; i < SLU_CONTROL_MAX_CLIENTS; i++)
		fds[i] = raw(w);
	c = client(w);
	assert_false(slu_control_hello(c, &error));
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_REFUSED));
	assert_string_equal(error->message, "32 clients are connected already: end one of them");
	slu_control_close(c);
	assert_int_equal(atomic_load(&slu_control_stats(w->control)->refused), 1);
	/* Who has been silent for a while makes way. */
	slu_sleep_ns((SLU_CONTROL_MAKE_WAY_SEC * 1000 + 100) * SLU_NS_PER_MS);
	c = client(w);
	assert_true(slu_control_hello(c, NULL));
	slu_control_close(c);
	assert_int_equal(atomic_load(&slu_control_stats(w->control)->dropped), 1);
	for (unsigned int i = 0; i < SLU_CONTROL_MAX_CLIENTS; i++)
		close(fds[i]);
	/* their threads end in their own time */
	for (;;) {
		JsonObject *o;

		c = client(w);
		o = slu_control_call(c, "org.varlink.service.GetInfo", NULL, NULL);
		if (o) {
			json_object_unref(o);
			break;
		}
		slu_control_close(c);
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	slu_control_close(c);
}

static void streams_leave_room_for_calls(void **state)
{
	struct world *w = *state;
	struct slu_control_client *streams[SLU_CONTROL_MAX_STREAMS], *c = client(w);
	g_autoptr(GError) error = NULL;
	int64_t last = 0;

	for (unsigned int i = 0; i < SLU_CONTROL_MAX_STREAMS; i++) {
		streams[i] = client(w);
		assert_true(slu_control_begin(streams[i], "org.example.Test.Count", NULL, NULL));
	}
	wait_for_streams(w, SLU_CONTROL_MAX_STREAMS);
	assert_false(
		slu_control_stream(c, "org.example.Test.Count", NULL, until_ten, NULL, &error));
	assert_non_null(strstr(error->message, "24 clients follow something already"));
	assert_echo(c, "a call");
	/* One that ends gives its place back. */
	slu_control_close(streams[0]);
	wait_for_streams(w, SLU_CONTROL_MAX_STREAMS - 1);
	while (!slu_control_stream(c, "org.example.Test.Count", NULL, until_ten, &last, NULL))
		slu_sleep_ns(SLU_NS_PER_MS);
	slu_control_close(c);
	for (unsigned int i = 1; i < SLU_CONTROL_MAX_STREAMS; i++)
		slu_control_close(streams[i]);
}

/* A socket that nobody accepts from: the kernel lets in as many as its backlog holds. */
static int listen_mutely(int backlog, char **ret_path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*ret_path = g_strdup_printf("/tmp/sluice-control-%d.mute", (int)getpid());
	g_strlcpy(addr.sun_path, *ret_path, sizeof(addr.sun_path));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	return fd;
}

static void a_daemon_that_does_not_answer_is_not_waited_for(void **state)
{
	g_autofree char *path = NULL;
	int fd = listen_mutely(8, &path);
	struct slu_control_client *c;
	g_autoptr(GError) error = NULL;

	(void)state;
	c = slu_control_connect(path, geteuid(), NULL);
	assert_non_null(c);
	assert_false(slu_control_hello(c, &error));
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE));
	assert_non_null(strstr(error->message, "does not answer"));
	slu_control_close(c);
	close(fd);
	unlink(path);
}

static void the_socket_is_its_owners(void **state)
{
	struct world *w = *state;
	struct stat st;

	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

/* A socket that somebody else has put there is not believed. */
static void another_users_socket_is_refused(void **state)
{
	g_autoptr(GError) error = NULL;
	struct world *w = *state;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct slu_control_client *mine;
	int fds[2], status;
	pid_t pid;
	char c;

	if (geteuid() != 0)
		skip();
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/sluice-other-%d", (int)getpid());
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		close(fds[1]);
		if (setresuid(65534, 65534, 65534) ||
		    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1))
			_exit(1);
		/* ready; until the other end of the pipe closes */
		if (chmod(addr.sun_path, 0777))
			_exit(1);
		_exit(read(fds[0], &c, 1) < 0);
	}
	close(fds[0]);
	while (access(addr.sun_path, F_OK) || !g_file_test(addr.sun_path, G_FILE_TEST_EXISTS))
		slu_sleep_ns(SLU_NS_PER_MS);
	for (int i = 0; i < 1000; i++) { /* bound is not listening yet */
		g_clear_error(&error);
		assert_null(slu_control_connect(addr.sun_path, 0, &error));
		if (strstr(error->message, "65534) listens there"))
			break;
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	assert_non_null(strstr(error->message, "65534) listens there"));
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	unlink(addr.sun_path);
	mine = client(w);
	assert_echo(mine, "the right one");
	slu_control_close(mine);
}

static void nobody_there_is_one_line(void **state)
{
	g_autoptr(GError) error = NULL;

	(void)state;
	assert_null(slu_control_connect("/tmp/no/such/socket", 0, &error));
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE));
	assert_string_equal(error->message, "no daemon can be reached at /tmp/no/such/socket: No "
					    "such file or directory");
}

static JsonObject *parsed(const char *text)
{
	g_autoptr(JsonNode) node = json_from_string(text, NULL);

	assert_non_null(node);
	return json_node_dup_object(node);
}

static void numbers_are_whole_or_not_and_within_bounds(void **state)
{
	static const char *const wrong[] = {"{}",         "{\"n\":\"5\"}", "{\"n\":0.99}",
					    "{\"n\":11}", "{\"n\":null}",  "{\"n\":[5]}"};
	struct slu_control_client *c = client(*state);
	JsonObject *reply;

	for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
		g_autoptr(GError) error = NULL;

		assert_null(
			slu_control_call(c, "org.example.Test.Number", parsed(wrong[i]), &error));
		assert_string_equal(error->message, "org.varlink.service.InvalidParameter");
	}
	reply = slu_control_call(c, "org.example.Test.Number", parsed("{\"n\":1}"), NULL);
	assert_non_null(reply);
	assert_true(json_object_get_double_member(reply, "n") == 1);
	json_object_unref(reply);
	reply = slu_control_call(c, "org.example.Test.Number", parsed("{\"n\":2.5}"), NULL);
	assert_non_null(reply);
	assert_true(json_object_get_double_member(reply, "n") == 2.5);
	json_object_unref(reply);
	slu_control_close(c);
}

static void a_stream_can_be_waited_for_beside_other_things(void **state)
{
	struct world *w = *state;
	struct slu_control_client *c = client(w);
	struct pollfd p = {.fd = slu_control_fd(c), .events = POLLIN};
	g_autoptr(GError) error = NULL;
	JsonObject *reply;
	int n = 0;

	assert_true(slu_control_begin(c, "org.example.Test.Count", NULL, NULL));
	for (int64_t i = 1; i <= 5; i++) {
		while (!(n = slu_control_next(c, &reply, NULL)))
			assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
		assert_int_equal(n, 1);
		assert_int_equal(json_object_get_int_member(reply, "n"), i);
		json_object_unref(reply);
	}
	slu_control_close(c);

	/* An error is the end of it; and so is the end of the server. */
	c = client(w);
	p.fd = slu_control_fd(c);
	assert_true(slu_control_begin(c, "org.example.Test.Nothing", NULL, NULL));
	assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
	assert_int_equal(slu_control_next(c, &reply, &error), -1);
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_REFUSED));
	g_clear_error(&error);
	assert_int_equal(slu_control_next(c, &reply, &error), -1);
	assert_null(error);
	slu_control_close(c);
}

static void a_call_waits_no_longer_than_its_timeout(void **state)
{
	struct world *w = *state;
	struct slu_control_client *c = client(w);
	g_autoptr(GError) error = NULL;
	uint64_t begin = slu_clock_ns();

	slu_control_timeout(c, 50 * SLU_NS_PER_MS);
	assert_null(slu_control_call(c, "org.example.Test.Wait", NULL, &error));
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_GONE));
	assert_true(slu_clock_ns() - begin >= 50 * SLU_NS_PER_MS);
	slu_control_close(c);
	atomic_store(&w->release, true);
}

/* A daemon that is stopped takes as many as its backlog holds, and then nobody. */
static void a_daemon_that_lets_nobody_in_is_not_waited_for(void **state)
{
	g_autofree char *path = NULL;
	int fd = listen_mutely(0, &path);
	struct slu_control_client *first;
	g_autoptr(GError) error = NULL;

	(void)state;
	first = slu_control_connect(path, geteuid(), NULL);
	assert_non_null(first);
	assert_null(slu_control_connect(path, geteuid(), &error));
	assert_true(g_error_matches(error, SLU_CONTROL_ERROR, SLU_CONTROL_UNREACHABLE));
	assert_non_null(strstr(error->message, "Connection timed out"));
	slu_control_close(first);
	close(fd);
	unlink(path);
}

static void what_goes_through_the_socket_is_counted(void **state)
{
	struct world *w = *state;
	const struct slu_control_server_stats *stats = slu_control_stats(w->control);
	struct slu_control_client *c = client(w);
	JsonObject *reply = slu_control_call(c, "org.example.Test.Echo", one("text", "x"), NULL);

	assert_non_null(reply);
	json_object_unref(reply);
	assert_int_equal(atomic_load(&stats->connected), 1);
	slu_control_close(c);
	/* Its thread counts when it has sent; once the thread has ended it has counted. */
	for (int i = 0; atomic_load(&stats->connected) && i < TIMEOUT_MS; i++)
		slu_sleep_ns(SLU_NS_PER_MS);
	assert_int_equal(atomic_load(&stats->connected), 0);
	assert_int_equal(atomic_load(&stats->calls), 1);
	assert_int_equal(
		atomic_load(&stats->received_bytes),
		sizeof("{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":\"x\"}}"));
	assert_int_equal(atomic_load(&stats->sent_bytes),
			 sizeof("{\"parameters\":{\"text\":\"x\"}}"));
}

#define served(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		served(calls_are_answered_one_after_the_other),
		served(errors_say_what_is_wrong),
		served(a_service_describes_itself),
		served(calls_in_one_piece_are_answered_in_order),
		served(a_stream_ends_with_its_reader),
		served(readers_that_do_not_read_hold_up_nobody),
		served(a_call_that_takes_long_holds_up_nobody),
		served(stopping_ends_calls_that_wait),
		served(a_descriptor_comes_with_a_call_and_is_closed),
		served(more_descriptors_than_a_call_may_bring_are_dropped_with_the_client),
		served(garbage_is_dropped),
		served(a_call_without_an_end_is_dropped),
		cmocka_unit_test_setup_teardown(silence_is_dropped_and_a_stream_is_not_silence,
						setup_impatient, teardown),
		served(there_is_a_limit_to_clients),
		served(streams_leave_room_for_calls),
		cmocka_unit_test(a_daemon_that_does_not_answer_is_not_waited_for),
		served(the_socket_is_its_owners),
		served(another_users_socket_is_refused),
		cmocka_unit_test(nobody_there_is_one_line),
		served(numbers_are_whole_or_not_and_within_bounds),
		served(a_stream_can_be_waited_for_beside_other_things),
		served(a_call_waits_no_longer_than_its_timeout),
		cmocka_unit_test(a_daemon_that_lets_nobody_in_is_not_waited_for),
		served(what_goes_through_the_socket_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
