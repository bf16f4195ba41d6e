/* SPDX-License-Identifier: MIT */
/*
 * mount_load: writes to a mount and keeps a log elsewhere of what fsync promised, so that the
 * promise can be checked after the daemon has been killed.
 *
 *	mount_load run DIR LOG SECONDS NPROCS
 *	mount_load verify DIR LOG
 *	mount_load content P F G SIZE
 *
 * Each process works on files of its own. A file has generations: its content follows from
 * (process, file, generation) alone. The log gets a line before a change is begun and one after
 * fsync has returned 0, each with one write(2) in append mode:
 *
 *	b P F G SIZE w	generation G (SIZE bytes) is being written over the file in place
 *	b P F G SIZE r	or beside it, and then takes its name
 *	d P F G		and is on stable storage
 *	u P F		the file is being removed
 *	g P F		and its absence is on stable storage
 *
 * Verification goes by a file's last line. After d it is generation G whole; after g it is not there;
 * after u it is not there or the generation before whole. After b ... r it is the generation before
 * or the new one, either of them whole. After b ... w each byte is that of the generation before or
 * of the new one, and the size is one that the file has had:
 *
 * - A new generation that is no shorter only lets it grow, in whatever steps the data reaches the
 *   disk: any size from the old to the new one.
 * - A shorter one is written below the old end and then cut off, and a truncate is there or not: the
 *   old size or the new one.
 *
 * Nobody opens with O_TRUNC, so no file that was promised is ever shorter than both. Where there is
 * no generation before, or it has been removed, the file may also not be there, and grows from 0.
 *
 * Status of verify: 0 kept, 1 broken, 2 the log cannot be read. `content` writes what a file of that
 * generation holds to stdout.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NFILES    16
#define MAX_PROCS 8
#define MAX_SIZE  300000

static uint64_t load_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x * 0x2545f4914f6cdd1dull;
}

static void load_fill(uint8_t *buf, size_t len, int proc, int file, int gen)
{
	uint64_t x = ((uint64_t)(proc + 1) << 48 | (uint64_t)(file + 1) << 32 | (uint32_t)gen) *
		     0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = load_random(&x);

		memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
	}
}

static void load_name(char *buf, size_t size, const char *dir, int proc, int file,
		      const char *suffix)
{
	snprintf(buf, size, "%s/p%d/f%d%s", dir, proc, file, suffix);
}

/* ------------------------------------------------------------------ run */

static void load_log(int log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void load_log(int log, const char *fmt, ...)
{
	char line[128];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(log, line, (size_t)n) != n) {
		perror("load: log");
		_exit(2);
	}
}

static int load_root; /* the mount, or what is left of it after umount -l */

/* Whether the daemon is dead, or dies within seconds: statfs always asks it. */
static bool load_mount_dies(void)
{
	struct statfs st;

	for (int i = 0; i < 500; i++) {
		if (fstatfs(load_root, &st) && (errno == ENOTCONN || errno == ECONNABORTED))
			return true;
		usleep(10000);
	}
	return false;
}

/*
 * The mount is gone once the daemon is dead: that is how a run ends. The request that a daemon was
 * just reading when the signal met it ends with EIO, since the kernel could not copy it out
 * (fuse_dev_do_read); from a daemon that lives on, EIO is a failure.
 */
static void load_end_if_dead(const char *what)
{
	int err = errno;

	if (err == ENOTCONN || err == ECONNABORTED || err == EINTR || err == EACCES)
		_exit(0);
	if (err == EIO && load_mount_dies())
		_exit(0);
	fprintf(stderr, "load: %s: %s\n", what, strerror(err));
	_exit(2);
}

static void load_check(bool ok, const char *what)
{
	if (!ok)
		load_end_if_dead(what);
}

static void load_write(int fd, const uint8_t *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, buf + done, len - done, (off_t)done);

		load_check(n > 0, "write");
		done += (size_t)n;
	}
}

static void load_sync_dir(const char *dir, int proc)
{
	char name[4096];
	int fd;

	snprintf(name, sizeof(name), "%s/p%d", dir, proc);
	fd = open(name, O_RDONLY | O_DIRECTORY);
	load_check(fd >= 0, "open directory");
	load_check(fsync(fd) == 0, "fsync directory");
	close(fd);
}

/* A new generation: over the old one in place, or beside it and renamed. */
static void load_one(const char *dir, int log, int proc, int file, int gen, uint64_t *rnd,
		     uint8_t *buf)
{
	size_t size = (size_t)(load_random(rnd) % MAX_SIZE) + 1;
	bool rename_it = load_random(rnd) % 3 == 0;
	char name[4096], tmp[4096];
	struct stat st;
	int fd;

	load_name(name, sizeof(name), dir, proc, file, "");
	load_name(tmp, sizeof(tmp), dir, proc, file, ".new");
	load_fill(buf, size, proc, file, gen);
	load_log(log, "b %d %d %d %zu %c\n", proc, file, gen, size, rename_it ? 'r' : 'w');
	fd = open(rename_it ? tmp : name, O_RDWR | O_CREAT, 0644);
	load_check(fd >= 0, "open");
	load_write(fd, buf, size);
	/*
	 * Only to cut: with the kernel's write-back cache a size set by hand reaches the daemon
	 * before the data does, and would promise zeros where nothing has been written yet.
	 */
	load_check(fstat(fd, &st) == 0, "fstat");
	if (st.st_size > (off_t)size)
		load_check(ftruncate(fd, (off_t)size) == 0, "ftruncate");
	load_check(fsync(fd) == 0, "fsync");
	if (rename_it) {
		load_check(rename(tmp, name) == 0, "rename");
		load_sync_dir(dir, proc);
	}
	load_log(log, "d %d %d %d\n", proc, file, gen);
	close(fd);
}

static void load_proc(const char *dir, int log, int proc, double seconds)
{
	uint64_t rnd = ((uint64_t)time(NULL) << 20 | (uint64_t)getpid()) * 0x9e3779b97f4a7c15ull;
	uint8_t *buf = malloc(MAX_SIZE + 8);
	struct timespec start, now;
	char name[4096];

	snprintf(name, sizeof(name), "%s/p%d", dir, proc);
	load_check(mkdir(name, 0755) == 0 || errno == EEXIST, "mkdir");
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int gen = 1;; gen++) {
		int file = (int)(load_random(&rnd) % NFILES);

		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((double)(now.tv_sec - start.tv_sec) +
			    (double)(now.tv_nsec - start.tv_nsec) / 1e9 >
		    seconds)
			_exit(0);
		load_name(name, sizeof(name), dir, proc, file, "");
		if (load_random(&rnd) % 8 == 0 && access(name, F_OK) == 0) {
			load_log(log, "u %d %d\n", proc, file);
			load_check(unlink(name) == 0, "unlink");
			load_sync_dir(dir, proc);
			load_log(log, "g %d %d\n", proc, file);
		} else {
			load_one(dir, log, proc, file, gen, &rnd, buf);
		}
		/* Beside it, what nobody syncs. */
		load_name(name, sizeof(name), dir, proc, file, ".noise");
		int fd = open(name, O_WRONLY | O_CREAT | O_APPEND, 0644);
		load_check(fd >= 0 && write(fd, buf, 5000) > 0, "noise");
		close(fd);
	}
}

static int load_run(const char *dir, const char *logname, double seconds, int nprocs)
{
	int log = open(logname, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), worst = 0;

	load_root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log < 0 || load_root < 0) {
		perror(log < 0 ? logname : dir);
		return 2;
	}
	for (int p = 0; p < nprocs; p++) {
		if (fork() == 0)
			load_proc(dir, log, p, seconds);
	}
	for (int p = 0; p < nprocs; p++) {
		int status;

		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
			worst = 2;
	}
	return worst;
}

/* ------------------------------------------------------------------ verify */

struct load_file {
	char last;    /* 0: never begun */
	char how;     /* of the last b: w or r */
	bool existed; /* a generation is on stable storage */
	int gen, new_gen;
	size_t size, new_size; /* size: 0 unless existed */
};

static struct load_file files[MAX_PROCS][NFILES];

/* Returns 1 for a promise, 0 for another line, -1 for one that `run` does not write. */
static int load_read_line(const char *line)
{
	int proc, file, gen = 0, n;
	char what, how = 0;
	size_t size = 0;
	struct load_file *f;

	n = sscanf(line, "%c %d %d %d %zu %c", &what, &proc, &file, &gen, &size, &how);
	if (n < 3 || proc < 0 || proc >= MAX_PROCS || file < 0 || file >= NFILES)
		return -1;
	f = &files[proc][file];
	if (what == 'b' && n == 6 && size <= MAX_SIZE && (how == 'w' || how == 'r')) {
		f->new_gen = gen;
		f->new_size = size;
		f->how = how;
	} else if (what == 'd' && n == 4 && f->last == 'b' && gen == f->new_gen) {
		f->gen = f->new_gen;
		f->size = f->new_size;
		f->existed = true;
	} else if (what == 'g' && n == 3 && f->last == 'u') {
		f->size = 0;
		f->existed = false;
	} else if (what != 'u' || n != 3) {
		return -1;
	}
	f->last = what;
	return what == 'd' || what == 'g';
}

static int load_read_log(const char *logname)
{
	FILE *log = fopen(logname, "r");
	int promises = 0, promise = 0;
	char line[128];

	if (!log) {
		perror(logname);
		return -1;
	}
	while (promise >= 0 && fgets(line, sizeof(line), log)) {
		if (!strchr(line, '\n'))
			break; /* the last line may be cut */
		promise = load_read_line(line);
		promises += promise;
	}
	fclose(log);
	if (promise < 0) {
		fprintf(stderr, "%s: not a line of the load's: %s", logname, line);
		return -1;
	}
	return promises;
}

static size_t load_same(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

/* Where the bytes begin to be wrong; a file that is too short or too long has at == n. */
static void load_print_byte(const uint8_t *seen, size_t n, size_t at)
{
	size_t run = 0;

	while (at + run < n && seen[at + run] == seen[at])
		run++;
	if (run)
		printf("; byte %zu is 0x%02x, as are the %zu from there", at, seen[at], run);
	printf("\n");
}

/* Everything but what is written in place. 0: the file is one of the generations it may be, whole. */
static int load_verify_whole(const char *name, const struct load_file *f, const uint8_t *seen,
			     size_t n, const uint8_t *then, const uint8_t *now)
{
	size_t same_then = load_same(seen, then, n < f->size ? n : f->size);
	size_t same_now = load_same(seen, now, n < f->new_size ? n : f->new_size);
	bool may_be_new = f->last == 'b';

	if (f->existed && n == f->size && same_then == n)
		return 0;
	if (may_be_new && n == f->new_size && same_now == n)
		return 0;
	printf("%s: %zu bytes, last line '%c'; expected", name, n, f->last);
	if (f->existed)
		printf(" generation %d (%zu bytes, of which the first %zu are here)", f->gen,
		       f->size, same_then);
	if (may_be_new)
		printf("%s generation %d (%zu bytes, of which the first %zu are here)",
		       f->existed ? " or" : "", f->new_gen, f->new_size, same_now);
	load_print_byte(seen, n, may_be_new && same_now > same_then ? same_now : same_then);
	return 1;
}

static int load_verify_in_place(const char *name, const struct load_file *f, const uint8_t *seen,
				size_t n, const uint8_t *then, const uint8_t *now)
{
	bool shrinks = f->new_size < f->size;
	size_t i = 0;

	if (shrinks ? n != f->size && n != f->new_size : n < f->size || n > f->new_size) {
		printf("%s: %zu bytes; expected %zu (generation %d) %s %zu (generation %d, which "
		       "is being written)\n",
		       name, n, f->size, f->gen, shrinks ? "or" : "to", f->new_size, f->new_gen);
		return 1;
	}
	while (i < n &&
	       ((i < f->size && seen[i] == then[i]) || (i < f->new_size && seen[i] == now[i])))
		i++;
	if (i == n)
		return 0;
	printf("%s: %zu bytes; expected bytes of generation %d (%zu bytes) or %d, which is being "
	       "written (%zu bytes)",
	       name, n, f->gen, f->size, f->new_gen, f->new_size);
	load_print_byte(seen, n, i);
	return 1;
}

/* 0: as promised. */
static int load_verify_file(const char *dir, int proc, int file, const struct load_file *f)
{
	static uint8_t seen[MAX_SIZE + 8], now[MAX_SIZE + 8], then[MAX_SIZE + 8];
	char name[4096];
	ssize_t got;
	size_t n = 0;
	int fd;

	load_name(name, sizeof(name), dir, proc, file, "");
	fd = open(name, O_RDONLY);
	if (fd < 0) {
		if (errno == ENOENT && (f->last == 'u' || !f->existed))
			return 0;
		printf("%s: %s; expected generation %d, last line '%c'\n", name, strerror(errno),
		       f->gen, f->last);
		return 1;
	}
	if (f->last == 'g') {
		printf("%s: is there; expected it to be gone\n", name);
		close(fd);
		return 1;
	}
	while ((got = read(fd, seen + n, sizeof(seen) - n)) > 0)
		n += (size_t)got;
	if (got < 0)
		printf("%s: read: %s\n", name, strerror(errno));
	close(fd);
	if (got < 0)
		return 1;
	load_fill(then, MAX_SIZE, proc, file, f->gen);
	load_fill(now, MAX_SIZE, proc, file, f->new_gen);
	if (f->last == 'b' && f->how == 'w')
		return load_verify_in_place(name, f, seen, n, then, now);
	return load_verify_whole(name, f, seen, n, then, now);
}

static int load_verify(const char *dir, const char *logname)
{
	int wrong = 0, promises = load_read_log(logname);

	if (promises < 0)
		return 2;
	for (int p = 0; p < MAX_PROCS; p++)
		for (int f = 0; f < NFILES; f++)
			if (files[p][f].last)
				wrong += load_verify_file(dir, p, f, &files[p][f]);
	printf("%d promises, %d files wrong\n", promises, wrong);
	return wrong ? 1 : 0;
}

static int load_content(int proc, int file, int gen, size_t size)
{
	static uint8_t buf[MAX_SIZE + 8];

	if (size > MAX_SIZE)
		return 2;
	load_fill(buf, size, proc, file, gen);
	return fwrite(buf, 1, size, stdout) == size && !fflush(stdout) ? 0 : 2;
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "content"))
		return load_content(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]),
				    strtoul(argv[5], NULL, 10));
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 6 && !strcmp(argv[1], "run") && atoi(argv[5]) >= 1 &&
	    atoi(argv[5]) <= MAX_PROCS)
		return load_run(argv[2], argv[3], atof(argv[4]), atoi(argv[5]));
	if (argc == 4 && !strcmp(argv[1], "verify"))
		return load_verify(argv[2], argv[3]);
	fprintf(stderr, "usage: mount_load run DIR LOG SECONDS NPROCS | verify DIR LOG | content P "
			"F G SIZE\n");
	return 2;
}
