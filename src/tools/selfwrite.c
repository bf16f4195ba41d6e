/* SPDX-License-Identifier: MIT */
/*
 * sluice-selfwrite: writes a file into itself through a shared mapping, on any filesystem.
 *
 * The 2020 FUSE deadlock: a write whose source is a mapping of the very pages being written, while
 * the write path holds them locked. The first scenario is the reproducer that was posted then; the
 * others move it over every byte of a page, make it large, take the source out of memory first and
 * go round the page cache.
 *
 * Two processes. The worker does the writes and may end up in a sleep that nothing ends; so it is
 * watched by its parent, which never touches the file while the worker lives, and which calls it a
 * deadlock when the worker has not moved for 30 s.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sluice/units.h"
#include "tools_private.h"

#define PAGE            4096u
#define LARGE           (1u << 20)
#define TIMEOUT_DEFAULT 30 /* seconds */

#define EXIT_PASS     0
#define EXIT_WRONG    1
#define EXIT_DEADLOCK 3

/* What the two processes share. Written by the worker, read by the parent. */
struct selfwrite_shared {
	_Atomic uint64_t steps;    /* moves whenever the worker has got on */
	_Atomic uint64_t where;    /* file offset of the write under way */
	_Atomic uint32_t scenario; /* index of the one under way */
	_Atomic uint32_t passed, failed, refused;
};

struct selfwrite {
	const char *path;
	struct selfwrite_shared *shared;
	int fd;       /* buffered, for reading and preparing */
	uint8_t *map; /* MAP_SHARED of the source */
	size_t map_len;
	uint8_t *before, *after; /* the whole file, before and after the write */
	size_t cap;
	char reason[512]; /* of the first failure in this scenario */
};

/* One write of parts of the mapping: file bytes [src, src + len) for each, one after the other. */
struct selfwrite_part {
	size_t src, len;
};

struct selfwrite_write {
	struct selfwrite_part parts[2];
	int nparts;
	size_t dst;
	bool drop;   /* take the file out of memory before */
	bool direct; /* O_DIRECT */
	bool reread; /* look at what is on disk too */
};

static int selfwrite_fail(struct selfwrite *sw, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int selfwrite_fail(struct selfwrite *sw, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sw->reason, sizeof(sw->reason), fmt, ap);
	va_end(ap);
	return EXIT_WRONG;
}

static void selfwrite_step(struct selfwrite *sw)
{
	atomic_fetch_add(&sw->shared->steps, 1);
}

/* ------------------------------------------------------------------ the file */

/*
 * Byte of the file before the write. Any two of the first 256 pages differ at every offset, so that
 * a byte tells which page it came from.
 */
static uint8_t selfwrite_pattern(size_t pos)
{
	uint32_t h = (uint32_t)(pos % PAGE) * 2654435761u;

	return (uint8_t)((h >> 24) + pos / PAGE);
}

static int selfwrite_all(struct selfwrite *sw, bool write_it, uint8_t *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write_it ? pwrite(sw->fd, buf + done, len - done, (off_t)done)
				     : pread(sw->fd, buf + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return selfwrite_fail(sw, "%s at %zu: %s", write_it ? "write" : "read",
					      done, strerror(errno));
		if (n == 0)
			return selfwrite_fail(sw, "read at %zu: end of file, %zu bytes expected",
					      done, len);
		done += (size_t)n;
	}
	return 0;
}

/* `size` bytes of pattern, mapped; "Hello World" at the start of the first two pages. */
static int selfwrite_prepare(struct selfwrite *sw, size_t size)
{
	static const char hello[] = "Hello World";

	if (sw->map) {
		munmap(sw->map, sw->map_len);
		sw->map = NULL;
	}
	if (ftruncate(sw->fd, 0) != 0)
		return selfwrite_fail(sw, "truncate: %s", strerror(errno));
	for (size_t i = 0; i < size; i++)
		sw->before[i] = selfwrite_pattern(i);
	if (selfwrite_all(sw, true, sw->before, size))
		return EXIT_WRONG;
	sw->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, sw->fd, 0);
	if (sw->map == MAP_FAILED) {
		sw->map = NULL;
		return selfwrite_fail(sw, "mmap: %s", strerror(errno));
	}
	sw->map_len = size;
	for (size_t page = 0; page < 2; page++) {
		memcpy(sw->map + page * PAGE, hello, sizeof(hello));
		memcpy(sw->before + page * PAGE, hello, sizeof(hello));
	}
	selfwrite_step(sw);
	return 0;
}

/* On disk, and out of memory: the source's pages have to be read in again by the write itself. */
static int selfwrite_drop(struct selfwrite *sw)
{
	if (fsync(sw->fd) != 0)
		return selfwrite_fail(sw, "fsync: %s", strerror(errno));
	if (sw->map && madvise(sw->map, sw->map_len, MADV_DONTNEED) != 0)
		return selfwrite_fail(sw, "madvise: %s", strerror(errno));
	if (posix_fadvise(sw->fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
		return selfwrite_fail(sw, "posix_fadvise failed");
	selfwrite_step(sw);
	return 0;
}

/* ------------------------------------------------------------------ what must be there */

/* The byte of the source that the write puts at file position pos; SIZE_MAX outside. */
static size_t selfwrite_source_of(const struct selfwrite_write *w, size_t pos)
{
	size_t at = w->dst;

	for (int i = 0; i < w->nparts; i++) {
		if (pos >= at && pos < at + w->parts[i].len)
			return w->parts[i].src + (pos - at);
		at += w->parts[i].len;
	}
	return SIZE_MAX;
}

/*
 * Outside of what was written: as before. Inside: what the source held before the write or, where
 * the source byte was itself written by this write, what that put there; and so on back.
 */
static bool selfwrite_byte_allowed(const struct selfwrite *sw, const struct selfwrite_write *w,
				   size_t pos, size_t size, uint8_t byte)
{
	size_t src = selfwrite_source_of(w, pos);

	if (src == SIZE_MAX)
		return byte == (pos < size ? sw->before[pos] : 0);
	while (src != SIZE_MAX) {
		if (byte == sw->before[src])
			return true;
		if (src == pos)
			return false;
		pos = src;
		src = selfwrite_source_of(w, pos);
	}
	return false;
}

/*
 * In a long write almost any value of one byte was somewhere in the source. Where source and target
 * are aligned, eight bytes that belong together must also come from one place, which no wrong bit
 * survives.
 */
static bool selfwrite_word_allowed(const struct selfwrite *sw, const struct selfwrite_write *w,
				   size_t pos, const uint8_t *got)
{
	size_t src = selfwrite_source_of(w, pos);

	if (w->nparts > 1 || pos % 8 || src == SIZE_MAX || src % 8 ||
	    selfwrite_source_of(w, pos + 7) == SIZE_MAX)
		return true;
	for (; src != SIZE_MAX && src != pos; pos = src, src = selfwrite_source_of(w, pos)) {
		if (!memcmp(sw->before + src, got, 8))
			return true;
	}
	return false;
}

static int selfwrite_compare(struct selfwrite *sw, const struct selfwrite_write *w, size_t size,
			     size_t end, const uint8_t *got, const char *seen)
{
	for (size_t pos = 0; pos < end; pos++) {
		size_t src = selfwrite_source_of(w, pos);

		if (!selfwrite_byte_allowed(sw, w, pos, size, got[pos])) {
			if (src == SIZE_MAX)
				return selfwrite_fail(
					sw,
					"write at %zu: byte %zu (not written) is 0x%02x "
					"%s, expected 0x%02x",
					w->dst, pos, got[pos], seen,
					pos < size ? sw->before[pos] : 0);
			return selfwrite_fail(
				sw,
				"write at %zu: byte %zu is 0x%02x %s, expected 0x%02x "
				"(from byte %zu) or what the write itself put there",
				w->dst, pos, got[pos], seen, sw->before[src], src);
		}
		if (!selfwrite_word_allowed(sw, w, pos, got + pos))
			return selfwrite_fail(
				sw,
				"write at %zu: the eight bytes at %zu are a mixture %s, "
				"expected those from byte %zu or what the write itself "
				"put there",
				w->dst, pos, seen, src);
	}
	return 0;
}

/* Every byte, through read(2), through the mapping and, if asked for, from disk. */
static int selfwrite_check(struct selfwrite *sw, const struct selfwrite_write *w, size_t size,
			   size_t written)
{
	size_t end = slu_max(size, w->dst + written);
	struct stat st;

	if (fstat(sw->fd, &st) != 0)
		return selfwrite_fail(sw, "fstat: %s", strerror(errno));
	if ((size_t)st.st_size != end)
		return selfwrite_fail(sw, "write at %zu: the file has %zu bytes, expected %zu",
				      w->dst, (size_t)st.st_size, end);
	for (int pass = 0; pass < (w->reread ? 2 : 1); pass++) {
		if (pass == 1 && selfwrite_drop(sw))
			return EXIT_WRONG;
		if (selfwrite_all(sw, false, sw->after, end) ||
		    selfwrite_compare(sw, w, size, end, sw->after,
				      pass ? "when read again from disk" : "when read"))
			return EXIT_WRONG;
		if (memcmp(sw->map, sw->after, size) != 0)
			return selfwrite_fail(
				sw, "write at %zu: the mapping shows other bytes than read",
				w->dst);
	}
	selfwrite_step(sw);
	return 0;
}

/* ------------------------------------------------------------------ one write */

/* 0, EXIT_WRONG, or -1: this filesystem refuses O_DIRECT at such an offset (EINVAL). */
static int selfwrite_one(struct selfwrite *sw, size_t size, const struct selfwrite_write *w)
{
	struct iovec iov[2];
	size_t len = 0, done = 0;
	int fd = sw->fd, err = 0;

	if (selfwrite_prepare(sw, size) || (w->drop && selfwrite_drop(sw)))
		return EXIT_WRONG;
	for (int i = 0; i < w->nparts; i++) {
		iov[i].iov_base = sw->map + w->parts[i].src;
		iov[i].iov_len = w->parts[i].len;
		len += w->parts[i].len;
	}
	if (w->direct) {
		fd = open(sw->path, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (fd < 0 && errno == EINVAL)
			return -1;
		if (fd < 0)
			return selfwrite_fail(sw, "open with O_DIRECT: %s", strerror(errno));
	}
	atomic_store(&sw->shared->where, w->dst);
	while (done < len) {
		ssize_t n = pwritev(fd, iov, w->nparts, (off_t)(w->dst + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && w->direct && !done) {
			err = -1;
			break;
		}
		if (n <= 0) {
			err = selfwrite_fail(sw, "pwritev of %zu bytes at %zu: %s", len - done,
					     w->dst + done, n ? strerror(errno) : "wrote nothing");
			break;
		}
		done += (size_t)n;
		for (int i = 0; i < w->nparts; i++) { /* a short write goes on where it ended */
			size_t step = slu_min((size_t)n, iov[i].iov_len);

			iov[i].iov_base = (char *)iov[i].iov_base + step;
			iov[i].iov_len -= step;
			n -= (ssize_t)step;
		}
	}
	selfwrite_step(sw);
	if (fd != sw->fd)
		close(fd);
	return err ? err : selfwrite_check(sw, w, size, len);
}

/* ------------------------------------------------------------------ scenarios */

/* The reproducer: 12 bytes from each of two mapped pages, over the end of the second. */
static const struct selfwrite_write reproducer = {.parts = {{0, 12}, {PAGE, 12}},
						  .nparts = 2,
						  .dst = PAGE + PAGE - 12,
						  .reread = true};

/* 1 MiB shifted by one page. */
static const struct selfwrite_write shifted = {.parts = {{0, LARGE}},
					       .nparts = 1,
					       .dst = PAGE,
					       .reread = true};

static int scenario_reproducer(struct selfwrite *sw)
{
	return selfwrite_one(sw, 2 * PAGE, &reproducer);
}

static int scenario_every_offset(struct selfwrite *sw)
{
	struct selfwrite_write w = reproducer;
	int err = 0;

	for (size_t off = 0; off < PAGE && !err; off++) {
		w.dst = PAGE + off;
		w.reread = off % 256 == 255;
		err = selfwrite_one(sw, 2 * PAGE, &w);
	}
	return err;
}

static int scenario_shifted(struct selfwrite *sw)
{
	return selfwrite_one(sw, LARGE, &shifted);
}

static int scenario_dropped(struct selfwrite *sw)
{
	struct selfwrite_write w = reproducer;
	int err;

	w.drop = true;
	err = selfwrite_one(sw, 2 * PAGE, &w);
	for (size_t off = 0; off < PAGE && !err; off += 127) {
		w.dst = PAGE + off;
		err = selfwrite_one(sw, 2 * PAGE, &w);
	}
	return err;
}

static int scenario_shifted_dropped(struct selfwrite *sw)
{
	struct selfwrite_write w = shifted;

	w.drop = true;
	return selfwrite_one(sw, LARGE, &w);
}

static int scenario_direct(struct selfwrite *sw)
{
	struct selfwrite_write w = reproducer;

	w.direct = true;
	return selfwrite_one(sw, 2 * PAGE, &w);
}

static int scenario_direct_every_offset(struct selfwrite *sw)
{
	struct selfwrite_write w = reproducer;
	int err = 0;

	w.direct = true;
	for (size_t off = 0; off < PAGE && !err; off++) {
		w.dst = PAGE + off;
		w.reread = off % 256 == 255;
		err = selfwrite_one(sw, 2 * PAGE, &w);
	}
	return err;
}

static int scenario_direct_shifted(struct selfwrite *sw)
{
	struct selfwrite_write w = shifted;
	int err;

	w.direct = true;
	err = selfwrite_one(sw, LARGE, &w);
	w.drop = true;
	return err ? err : selfwrite_one(sw, LARGE, &w);
}

static const struct selfwrite_scenario {
	const char *name;
	int (*run)(struct selfwrite *sw);
} scenarios[] = {
	{"24 bytes over the end of the second mapped page (the 2020 reproducer)",
	 scenario_reproducer},
	{"24 bytes at every byte offset of the second page", scenario_every_offset},
	{"1 MiB shifted by one page", scenario_shifted},
	{"24 bytes, source dropped from memory first", scenario_dropped},
	{"1 MiB shifted by one page, source dropped from memory first", scenario_shifted_dropped},
	{"24 bytes over the end of the second page, O_DIRECT", scenario_direct},
	{"24 bytes at every byte offset of the second page, O_DIRECT",
	 scenario_direct_every_offset},
	{"1 MiB shifted by one page, O_DIRECT", scenario_direct_shifted},
};

/* ------------------------------------------------------------------ the worker */

static int selfwrite_worker(struct selfwrite *sw)
{
	sw->cap = LARGE + 2 * PAGE;
	sw->before = malloc(sw->cap);
	sw->after = malloc(sw->cap);
	if (!sw->before || !sw->after) {
		fprintf(stderr, "sluice-selfwrite: out of memory\n");
		return EXIT_WRONG;
	}
	for (uint32_t i = 0; i < slu_array_size(scenarios); i++) {
		int err;

		atomic_store(&sw->shared->scenario, i);
		selfwrite_step(sw);
		err = scenarios[i].run(sw);
		if (err < 0) {
			atomic_fetch_add(&sw->shared->refused, 1);
			printf("refused %s: this filesystem wants aligned O_DIRECT (EINVAL)\n",
			       scenarios[i].name);
		} else if (err) {
			atomic_fetch_add(&sw->shared->failed, 1);
			printf("FAILED  %s: %s\n", scenarios[i].name, sw->reason);
		} else {
			atomic_fetch_add(&sw->shared->passed, 1);
			printf("ok      %s\n", scenarios[i].name);
		}
		fflush(stdout);
	}
	return atomic_load(&sw->shared->failed) ? EXIT_WRONG : EXIT_PASS;
}

/* ------------------------------------------------------------------ the parent */

/* One field of /proc/PID/status, or the first line of another file there. */
static void selfwrite_proc(pid_t pid, const char *file, const char *field, char *ret, size_t size)
{
	char name[64], line[256];
	FILE *f;

	snprintf(ret, size, "?");
	snprintf(name, sizeof(name), "/proc/%d/%s", (int)pid, file);
	f = fopen(name, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		if (field && strncmp(line, field, strlen(field)) != 0)
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(ret, size, "%s",
			 line + (field ? strlen(field) + strspn(line + strlen(field), " \t") : 0));
		break;
	}
	fclose(f);
}

static int selfwrite_deadlocked(struct selfwrite_shared *shared, pid_t pid, unsigned int timeout)
{
	char state[64], wchan[64];

	selfwrite_proc(pid, "status", "State:", state, sizeof(state));
	selfwrite_proc(pid, "wchan", NULL, wchan, sizeof(wchan));
	printf("DEADLOCK %s: the write at %llu has not moved for %u s; process %d is in state %s, "
	       "waiting in %s\n",
	       scenarios[atomic_load(&shared->scenario)].name,
	       (unsigned long long)atomic_load(&shared->where), timeout, (int)pid, state, wchan);
	/* It may not even notice: nobody waits for it. */
	kill(pid, SIGKILL);
	return EXIT_DEADLOCK;
}

static int selfwrite_watch(struct selfwrite_shared *shared, pid_t pid, unsigned int timeout)
{
	const struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
	uint64_t steps = 0;
	struct timespec since, now;

	clock_gettime(CLOCK_MONOTONIC, &since);
	for (;;) {
		int status;
		pid_t ended = waitpid(pid, &status, WNOHANG);

		if (ended == pid && WIFEXITED(status))
			return WEXITSTATUS(status);
		if (ended == pid) {
			printf("FAILED  %s: the writer died of signal %d\n",
			       scenarios[atomic_load(&shared->scenario)].name, WTERMSIG(status));
			return EXIT_WRONG;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (atomic_load(&shared->steps) != steps) {
			steps = atomic_load(&shared->steps);
			since = now;
		} else if (now.tv_sec - since.tv_sec > (time_t)timeout) {
			return selfwrite_deadlocked(shared, pid, timeout);
		}
		nanosleep(&nap, NULL);
	}
}

static int selfwrite_run(const char *path, int fd, unsigned int timeout)
{
	struct selfwrite_shared *shared;
	pid_t pid;
	int status;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED) {
		slu_tool_error("mmap: %s", strerror(errno));
		return EXIT_WRONG;
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		slu_tool_error("fork: %s", strerror(errno));
		return EXIT_WRONG;
	}
	if (pid == 0) {
		struct selfwrite sw = {.path = path, .shared = shared, .fd = fd};

		status = selfwrite_worker(&sw);
		fflush(NULL);
		_exit(status);
	}
	status = selfwrite_watch(shared, pid, timeout);
	printf("%s: %u passed, %u failed, %u refused by the filesystem%s\n",
	       status == EXIT_PASS       ? "pass"
	       : status == EXIT_DEADLOCK ? "deadlock"
					 : "fail",
	       atomic_load(&shared->passed), atomic_load(&shared->failed),
	       atomic_load(&shared->refused), status == EXIT_DEADLOCK ? ", 1 deadlocked" : "");
	fflush(stdout);
	munmap(shared, sizeof(*shared));
	return status;
}

/* ------------------------------------------------------------------ options */

static gboolean opt_version, opt_keep;
static gint opt_timeout = TIMEOUT_DEFAULT;

static const GOptionEntry entries[] = {
	{"keep", 0, 0, G_OPTION_ARG_NONE, &opt_keep, "Do not remove a FILE that was made here",
	 NULL},
	{"timeout", 0, 0, G_OPTION_ARG_INT, &opt_timeout,
	 "No progress for so long is a deadlock (default 30)", "SECONDS"},
	{"version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "Show the version", NULL},
	{NULL},
};

/* A file of our own, or an existing one, which is overwritten; -1 after a message. */
static int selfwrite_open(const char *path, bool *ret_created)
{
	struct stat st;
	int fd;

	*ret_created = true;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST) {
		*ret_created = false;
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (fd < 0 || fstat(fd, &st) != 0) {
		slu_tool_error("%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		slu_tool_error("%s: not a regular file", path);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

int main(int argc, char **argv)
{
	static const char about[] =
		"Maps FILE and writes it into itself, then checks every byte. FILE is created, and "
		"removed at the end; an existing one is overwritten.\n\n"
		"Exit status: 0 all is well, 1 wrong bytes or an error, 3 deadlock.";
	const char *path;
	bool created;
	int fd, status;

	slu_tool_init("sluice-selfwrite");
	if (!slu_tool_options(&argc, &argv, "FILE", about, entries))
		return EXIT_WRONG;
	if (opt_version)
		return slu_tool_version();
	if (argc != 2 || opt_timeout < 1 || opt_timeout > 86400) {
		slu_tool_error(argc != 2 ? "expected one FILE; see --help" : "nonsense timeout");
		return EXIT_WRONG;
	}
	path = argv[1];
	fd = selfwrite_open(path, &created);
	if (fd < 0)
		return EXIT_WRONG;
	status = selfwrite_run(path, fd, (unsigned int)opt_timeout);
	if (status == EXIT_DEADLOCK) /* touching the file now might hang this process as well */
		_exit(status);
	if (created && !opt_keep && unlink(path) != 0) {
		slu_tool_error("%s: cannot remove it: %s", path, strerror(errno));
		status = EXIT_WRONG;
	}
	close(fd);
	return status;
}
