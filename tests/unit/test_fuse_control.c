/* SPDX-License-Identifier: MIT */
/* The control socket: both ends, and peers that misbehave. */
#include "daemon_private.h"
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* A device number that no mount has. */
#define MAJOR 4095u

struct world {
	struct control control;
	unsigned int minor;
	char last[64];
	struct slu_thread client;
	const char *request;
	bool ok;
	char message[256];
	pid_t pid;
};

static void handler(void *ctx, const char *request, GString *reply)
{
	struct world *w = ctx;

	g_strlcpy(w->last, request, sizeof(w->last));
	g_string_assign(reply, strcmp(request, "please") == 0 ? "ok" : "error no such thing");
}

static int setup(void **state)
{
	static struct world w;
	static char dir[64];

	memset(&w, 0, sizeof(w));
	w.minor = (unsigned int)getpid();
	snprintf(dir, sizeof(dir), "/tmp/sluice-control-%d", (int)getpid());
	setenv("XDG_RUNTIME_DIR", dir, 1);
	assert_int_equal(g_mkdir_with_parents(dir, 0700), 0);
	control_start(&w.control, MAJOR, w.minor, handler, &w);
	assert_true(w.control.fd >= 0);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	g_autofree char *path = g_strdup(w->control.path);
	g_autofree char *dir = g_path_get_dirname(path);

	control_stop(&w->control);
	assert_int_equal(access(path, F_OK), -1);
	if (geteuid() != 0)
		rmdir(dir);
	rmdir(getenv("XDG_RUNTIME_DIR"));
	return 0;
}

static void client(void *arg)
{
	struct world *w = arg;
	g_autofree char *opts = g_strdup_printf("rw,user_id=%u", (unsigned int)geteuid());
	struct mount_entry e = {.major = MAJOR,
				.minor = w->minor,
				.target = "/x",
				.super_opts = opts};
	g_autoptr(GError) error = NULL;
	int fd = control_connect(&e, &w->pid, &error);

	w->ok = fd >= 0 && control_call(fd, w->request, &error);
	if (error)
		g_strlcpy(w->message, error->message, sizeof(w->message));
}

static void converse(struct world *w, const char *request)
{
	struct pollfd p = {.fd = w->control.fd, .events = POLLIN};

	w->request = request;
	assert_int_equal(slu_thread_start(&w->client, "client", client, w), 0);
	assert_int_equal(poll(&p, 1, 10000), 1);
	control_serve(&w->control);
	slu_thread_join(&w->client);
}

static void a_request_is_answered(void **state)
{
	struct world *w = *state;

	converse(w, "please");
	assert_true(w->ok);
	assert_string_equal(w->last, "please");
	assert_int_equal(w->pid, getpid());
}

static void an_error_comes_back_as_its_line(void **state)
{
	struct world *w = *state;

	converse(w, "nonsense");
	assert_false(w->ok);
	assert_string_equal(w->message, "no such thing");
}

static void only_the_owner_may_connect(void **state)
{
	struct world *w = *state;
	struct stat st;

	assert_int_equal(stat(w->control.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static int raw_connect(struct world *w)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(addr.sun_path, w->control.path, sizeof(addr.sun_path));
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void a_silent_peer_does_not_hold_the_daemon(void **state)
{
	struct world *w = *state;
	uint64_t start = slu_clock_ns();
	int fd = raw_connect(w);

	control_serve(&w->control);
	assert_true(slu_clock_ns() - start < 10 * SLU_NS_PER_SEC);
	assert_string_equal(w->last, "");
	close(fd);
	converse(w, "please");
	assert_true(w->ok);
}

static void a_message_without_end_is_refused(void **state)
{
	struct world *w = *state;
	char noise[CONTROL_MESSAGE_MAX];
	int fd = raw_connect(w);

	memset(noise, 'x', sizeof(noise));
	assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
	control_serve(&w->control);
	assert_string_equal(w->last, "");
	close(fd);
}

static void nobody_there_is_an_error(void **state)
{
	struct mount_entry e = {.major = MAJOR,
				.minor = 1,
				.target = "/x",
				.super_opts = "rw,user_id=0"};
	g_autoptr(GError) error = NULL;
	pid_t pid;

	assert_int_equal(control_connect(&e, &pid, &error), -1);
	assert_non_null(strstr(error->message, "/x"));
	assert_int_equal(error->code, STATUS_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_request_is_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(an_error_comes_back_as_its_line, setup, teardown),
		cmocka_unit_test_setup_teardown(only_the_owner_may_connect, setup, teardown),
		cmocka_unit_test_setup_teardown(a_silent_peer_does_not_hold_the_daemon, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_message_without_end_is_refused, setup, teardown),
		cmocka_unit_test(nobody_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
