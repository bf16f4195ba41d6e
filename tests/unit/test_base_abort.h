/* SPDX-License-Identifier: MIT */
/* For tests of what must abort: in a child, with its stderr caught. After cmocka.h. */
#ifndef TEST_BASE_ABORT_H
#define TEST_BASE_ABORT_H

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs fn in a child; asserts that it aborts and says every one of `says` (ends with NULL). */
static inline void expect_abort(void (*fn)(void), const char *const *says)
{
	char out[4096];
	size_t len = 0;
	ssize_t n;
	int fds[2], status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while (len < sizeof(out) - 1 && (n = read(fds[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
		fail_msg("no abort (status 0x%x); it said: %s", (unsigned int)status, out);
	for (; *says; says++) {
		if (!strstr(out, *says))
			fail_msg("\"%s\" not in: %s", *says, out);
	}
}

#define expect_abort_saying(fn, ...) expect_abort(fn, (const char *const[]){__VA_ARGS__, NULL})

#endif
