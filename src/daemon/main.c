/* SPDX-License-Identifier: MIT */
/*
 * sluicefs, mount.fuse.sluicefs and umount.fuse.sluicefs: one program under three names.
 *
 * Parses, checks what can be checked before anything is touched, and goes to the background: the
 * parent stays until the child says that the mount can be used, and ends with its exit status.
 */
#include "daemon_private.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child prints what is wrong itself; the parent adds a line only if it could not. */
static int wait_for_child(pid_t pid, int fd)
{
	char byte;
	int status;
	ssize_t n;

	do {
		n = read(fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return byte;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return STATUS_SYSTEM;
	}
	if (WIFSIGNALED(status)) {
		report(LOG_ERR, "the daemon was ended by signal %d before it was ready",
		       WTERMSIG(status));
		return STATUS_SYSTEM;
	}
	return WEXITSTATUS(status) ? WEXITSTATUS(status) : STATUS_SYSTEM;
}

static int background(const struct daemon_opts *o, const char *image, bool device,
		      const char *mountpoint)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) || (pid = fork()) < 0) {
		report(LOG_ERR, "cannot start the daemon: %s", strerror(errno));
		return STATUS_SYSTEM;
	}
	if (pid) {
		close(fds[1]);
		return wait_for_child(pid, fds[0]);
	}
	close(fds[0]);
	return serve(o, image, device, mountpoint, fds[1]);
}

static int do_mount(struct daemon_opts *o)
{
	g_autofree char *image = NULL, *mountpoint = NULL;
	g_autoptr(GError) error = NULL;
	bool device = false;

	if (!check_cache_size(o, &error) || !check_ready_fd(o, &error) ||
	    !(image = check_image(o, &device, &error)) || !check_allow_other(o, &error) ||
	    !check_fuse_device(o, &error) || !(mountpoint = check_mountpoint(o, &error))) {
		report(LOG_ERR, "%s", error->message);
		return error->code;
	}
	if (chdir("/")) { /* everything is absolute from here on */
		report(LOG_ERR, "cannot go to /: %s", strerror(errno));
		return STATUS_SYSTEM;
	}
	if (o->foreground)
		return serve(o, image, device, mountpoint, -1);
	return background(o, image, device, mountpoint);
}

/* The lists after -o, as they were given, for the daemon to check. */
static char *collect_lists(int argc, char **argv)
{
	g_autoptr(GString) list = g_string_new(NULL);

	for (int i = 1; i < argc; i++) {
		const char *value = NULL;

		if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
			value = argv[++i];
		else if (g_str_has_prefix(argv[i], "-o"))
			value = argv[i] + 2;
		if (value)
			g_string_append_printf(list, "%s%s", list->len ? "," : "", value);
	}
	return g_string_free(g_steal_pointer(&list), FALSE);
}

static int act(struct daemon_opts *o, const char *lists)
{
	switch (o->action) {
	case ACTION_HELP:
		options_print_help(stdout);
		return STATUS_OK;
	case ACTION_VERSION:
		printf("sluicefs %s\n", SLU_VERSION);
		return STATUS_OK;
	case ACTION_UNMOUNT:
		return helper_unmount(o);
	case ACTION_CLEANUP:
		return helper_cleanup(o);
	case ACTION_REMOUNT:
		return helper_remount(o, lists);
	case ACTION_NOTHING:
		return STATUS_OK;
	case ACTION_MOUNT:
		break;
	}
	report_debug(o->debug);
	return do_mount(o);
}

/*
 * Cleaning up after a start that has failed with this very status, and so has said why: what is called
 * in ExecStopPost has it in its environment, see systemd.exec(5).
 */
static bool said_already(const struct daemon_opts *o, const GError *error)
{
	const char *code = g_getenv("EXIT_CODE"), *status = g_getenv("EXIT_STATUS");

	return o->action == ACTION_CLEANUP && !g_strcmp0(code, "exited") && status &&
	       strtol(status, NULL, 10) == error->code;
}

int main(int argc, char **argv)
{
	/* Taken before getopt reorders the arguments. */
	g_autofree char *lists = collect_lists(argc, argv);
	g_autoptr(GError) error = NULL;
	struct daemon_opts o;
	int status;

	options_init(&o);
	if (options_parse(&o, argc, argv, &error)) {
		status = act(&o, lists);
	} else {
		if (!said_already(&o, error))
			report(LOG_ERR, "%s", error->message);
		status = error->code;
	}
	options_fini(&o);
	return status;
}
