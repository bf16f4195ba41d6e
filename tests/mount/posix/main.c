/* SPDX-License-Identifier: MIT */
/*
 * mount_posix DIR: runs every check of the tables on the directory. Exit status 0 if all passed, 1
 * if one failed, 2 for wrong use. With --handles write|read FILE it does the two halves of the
 * check of file handles, between which the caller mounts anew.
 */
#include "posix.h"
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>

#define POSIX_TIMEOUT 120 /* seconds for one check */

bool posix_writeback;

static const struct posix_check *const tables[] = {
	names_checks, data_checks,  space_checks, attr_checks,
	xattr_checks, owner_checks, mmap_checks,
};

/* ------------------------------------------------------------------ failing */

_Noreturn void posix_fail(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	va_list ap;

	printf("    %s:%d: ", base ? base + 1 : file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

long long posix_ok(const char *file, int line, const char *what, long long result)
{
	if (result < 0)
		posix_fail(file, line, "%s: expected success, got %s", what, strerror(errno));
	return result;
}

void posix_fails(const char *file, int line, const char *what, int err, long long result)
{
	int seen = errno;

	if (result >= 0)
		posix_fail(file, line, "%s: expected \"%s\", got success (%lld)", what,
			   strerror(err), result);
	if (seen != err)
		posix_fail(file, line, "%s: expected \"%s\", got \"%s\"", what, strerror(err),
			   strerror(seen));
}

void posix_same(const char *file, int line, const char *what, const void *expected,
		const void *seen, size_t len)
{
	const uint8_t *e = expected, *s = seen;

	for (size_t i = 0; i < len; i++) {
		if (e[i] != s[i])
			posix_fail(file, line, "%s: byte %zu of %zu: expected 0x%02x, got 0x%02x",
				   what, i, len, e[i], s[i]);
	}
}

/* ------------------------------------------------------------------ helpers of the checks */

void posix_fill(void *buf, size_t len, uint64_t seed)
{
	uint8_t *p = buf;
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)((x >> 32) | 1); /* never 0, so that holes stand out */
	}
}

int posix_create(const char *name)
{
	return (int)OK(open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
}

void posix_write_at(int fd, const void *buf, size_t len, off_t pos)
{
	for (size_t done = 0; done < len;)
		done += (size_t)OK(
			pwrite(fd, (const char *)buf + done, len - done, pos + (off_t)done));
}

void posix_read_at(int fd, void *buf, size_t len, off_t pos)
{
	for (size_t done = 0; done < len;) {
		size_t n = (size_t)OK(pread(fd, (char *)buf + done, len - done, pos + (off_t)done));

		if (!n)
			posix_fail(__FILE__, __LINE__,
				   "read at %lld: end of file, %zu more bytes expected",
				   (long long)pos + (long long)done, len - done);
		done += n;
	}
}

void posix_put(const char *name, const void *buf, size_t len)
{
	int fd = posix_create(name);

	posix_write_at(fd, buf, len, 0);
	OK(close(fd));
}

struct stat posix_stat(const char *name)
{
	struct stat st;

	OK(lstat(name, &st));
	return st;
}

void *posix_map(int fd, size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		posix_fail(__FILE__, __LINE__, "mmap of %zu bytes: %s", len, strerror(errno));
	return p;
}

void posix_drop(int fd)
{
	OK(fsync(fd));
	EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
}

void posix_zeros(int fd, off_t pos, off_t len)
{
	static const uint8_t zeros[65536];
	uint8_t buf[65536];

	for (off_t done = 0; done < len;) {
		size_t n = (size_t)(len - done) < sizeof(buf) ? (size_t)(len - done) : sizeof(buf);

		posix_read_at(fd, buf, n, pos + done);
		SAME(zeros, buf, n);
		done += (off_t)n;
	}
}

void posix_as(uid_t uid, gid_t gid, void (*fn)(void *arg), void *arg)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		OK(setgroups(0, NULL));
		OK(setresgid(gid, gid, gid));
		OK(setresuid(uid, uid, uid));
		fn(arg);
		fflush(stdout);
		_exit(0);
	}
	OK(waitpid(pid, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		_exit(1); /* the child has said why */
}

/* ------------------------------------------------------------------ running one check */

/* Gives what a check has left behind back; checks need not clean up. */
static void posix_remove(const char *dir)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("rm", "rm", "-rf", "--one-file-system", dir, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

/* 0: passed. */
static int posix_run(const char *base, const struct posix_check *c)
{
	char dir[4096];
	struct timespec start, now;
	int status = 0;
	pid_t pid;

	snprintf(dir, sizeof(dir), "%s/%s", base, c->name);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		umask(022);
		if (mkdir(dir, 0755) != 0 || chdir(dir) != 0)
			posix_fail(__FILE__, __LINE__, "%s: %s", dir, strerror(errno));
		c->run();
		fflush(stdout);
		_exit(0);
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		const struct timespec nap = {.tv_nsec = 1000 * 1000};

		nanosleep(&nap, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > POSIX_TIMEOUT) {
			printf("    has not ended after %d s\n", POSIX_TIMEOUT);
			kill(pid, SIGKILL);
			return 1; /* the directory may hang as well: leave it */
		}
	}
	if (WIFSIGNALED(status))
		printf("    died of signal %d\n", WTERMSIG(status));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		posix_remove(dir);
		return 0;
	}
	return 1;
}

/* ---------------------------------------------------------------- file handles across a remount */

struct saved_handle {
	struct file_handle fh;
	unsigned char bytes[MAX_HANDLE_SZ];
	ino_t ino;
};

#define HANDLES 3
static const char *const handle_names[HANDLES] = {"handle.file", "handle.dir", "handle.dir/in"};

static void handles_write(const char *base, const char *state)
{
	struct saved_handle h[HANDLES];
	int fd, mount_id;

	OK(chdir(base));
	posix_put(handle_names[0], "first", 5);
	OK(mkdir(handle_names[1], 0755));
	posix_put(handle_names[2], "third", 5);
	memset(h, 0, sizeof(h));
	for (int i = 0; i < HANDLES; i++) {
		h[i].fh.handle_bytes = MAX_HANDLE_SZ;
		OK(name_to_handle_at(AT_FDCWD, handle_names[i], &h[i].fh, &mount_id, 0));
		h[i].ino = posix_stat(handle_names[i]).st_ino;
	}
	fd = (int)OK(open(state, O_WRONLY | O_CREAT | O_TRUNC, 0600));
	EQ(sizeof(h), write(fd, h, sizeof(h)));
	OK(close(fd));
}

static void handles_read(const char *base, const char *state)
{
	struct saved_handle h[HANDLES];
	struct stat st;
	char buf[6] = "";
	int fd, dir;

	fd = (int)OK(open(state, O_RDONLY));
	EQ(sizeof(h), read(fd, h, sizeof(h)));
	OK(close(fd));
	dir = (int)OK(open(base, O_RDONLY | O_DIRECTORY));
	/* Nothing has been looked up since the mount: the handle alone must lead there. */
	fd = (int)OK(open_by_handle_at(dir, &h[2].fh, O_RDONLY));
	EQ(5, read(fd, buf, 5));
	SAME("third", buf, 5);
	OK(fstat(fd, &st));
	EQ(h[2].ino, st.st_ino);
	OK(close(fd));
	fd = (int)OK(open_by_handle_at(dir, &h[1].fh, O_RDONLY | O_DIRECTORY));
	OK(fstatat(fd, "in", &st, 0));
	EQ(h[2].ino, st.st_ino);
	OK(fstatat(fd, "..", &st, 0));
	EQ(posix_stat(base).st_ino, st.st_ino);
	OK(close(fd));
	/* A handle of what has been deleted is stale, also when new files have come. */
	OK(unlinkat(dir, handle_names[0], 0));
	OK(close((int)OK(openat(dir, "handle.new", O_CREAT | O_WRONLY | O_EXCL, 0600))));
	FAILS(ESTALE, open_by_handle_at(dir, &h[0].fh, O_RDONLY));
	OK(unlinkat(dir, "handle.new", 0));
	OK(unlinkat(dir, handle_names[2], 0));
	OK(unlinkat(dir, handle_names[1], AT_REMOVEDIR));
}

/* ------------------------------------------------------------------ main */

static int posix_usage(void)
{
	fprintf(stderr, "usage: mount_posix [--nowriteback] [--other-users] [--only NAME] DIR\n"
			"       mount_posix --handles write|read FILE DIR\n"
			"       mount_posix --list\n");
	return 2;
}

int main(int argc, char **argv)
{
	const char *only = NULL, *handles = NULL, *state = NULL, *dir = NULL;
	unsigned int have = geteuid() == 0 ? POSIX_ROOT : 0, passed = 0, failed = 0, left_out = 0;
	bool list = false;

	posix_writeback = true;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--nowriteback"))
			posix_writeback = false;
		else if (!strcmp(argv[i], "--other-users"))
			have |= have & POSIX_ROOT ? POSIX_OTHER : 0;
		else if (!strcmp(argv[i], "--list"))
			list = true;
		else if (!strcmp(argv[i], "--only") && i + 1 < argc)
			only = argv[++i];
		else if (!strcmp(argv[i], "--handles") && i + 2 < argc)
			handles = argv[++i], state = argv[++i];
		else if (argv[i][0] != '-' && !dir)
			dir = argv[i];
		else
			return posix_usage();
	}
	if (!dir && !list)
		return posix_usage();
	if (handles) {
		(strcmp(handles, "write") ? handles_read : handles_write)(dir, state);
		return 0;
	}
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (const struct posix_check *c = tables[t]; c->name; c++) {
			if (only && strcmp(only, c->name) != 0)
				continue;
			if (list) {
				printf("%s\n", c->name);
			} else if (c->needs & ~have) {
				left_out++;
			} else if (posix_run(dir, c) == 0) {
				passed++;
			} else {
				printf("FAILED %s\n", c->name);
				failed++;
			}
		}
	}
	if (list)
		return 0;
	printf("%u checks passed, %u failed, %u are for root or other users\n", passed, failed,
	       left_out);
	return failed || !passed ? 1 : 0;
}
