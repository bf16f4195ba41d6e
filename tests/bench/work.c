/* SPDX-License-Identifier: MIT */
/*
 * bench_work WHAT DIR N: one piece of work on a mounted directory, timed here so that starting
 * processes does not count. Prints the seconds.
 *
 *	write N		one file of N MiB in writes of 1 MiB, fsync at the end
 *	read N		reads it back
 *	create N	N files of 4 KiB in folders of 1,000, then syncfs
 *	cat N		reads them all
 *	stat N		readdir and lstat of all, as find does
 *	delete N	removes them
 *	sequential64 N	writes over a file of N MiB in writes of 64 KiB, in order
 *	random64 N	the same in random order
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MiB        (1 << 20)
#define FILE_BYTES 4096
#define PER_FOLDER 1000

static char *buf;

static void work_die(const char *what, const char *name)
{
	fprintf(stderr, "bench_work: %s %s: %s\n", what, name, strerror(errno));
	exit(1);
}

static int work_open(const char *name, int flags)
{
	int fd = open(name, flags, 0644);

	if (fd < 0)
		work_die("open", name);
	return fd;
}

static void work_write(long n)
{
	int fd = work_open("large", O_WRONLY | O_CREAT | O_TRUNC);

	for (long i = 0; i < n; i++) {
		for (int done = 0; done < MiB;) {
			ssize_t got = write(fd, buf + done, (size_t)(MiB - done));

			if (got <= 0)
				work_die("write", "large");
			done += (int)got;
		}
	}
	if (fsync(fd) != 0 || close(fd) != 0)
		work_die("fsync", "large");
}

static void work_read(long n)
{
	int fd = work_open("large", O_RDONLY);
	long total = 0;
	ssize_t got;

	while ((got = read(fd, buf, MiB)) > 0)
		total += got;
	if (got < 0 || total != n * MiB)
		work_die("read", "large");
	close(fd);
}

static void work_name(char *name, size_t size, long i)
{
	snprintf(name, size, "d%04ld/f%06ld", i / PER_FOLDER, i);
}

static void work_create(long n)
{
	char name[64];
	int fd;

	for (long i = 0; i < n; i++) {
		if (i % PER_FOLDER == 0) {
			snprintf(name, sizeof(name), "d%04ld", i / PER_FOLDER);
			if (mkdir(name, 0755) != 0)
				work_die("mkdir", name);
		}
		work_name(name, sizeof(name), i);
		fd = work_open(name, O_WRONLY | O_CREAT | O_EXCL);
		if (write(fd, buf, FILE_BYTES) != FILE_BYTES || close(fd) != 0)
			work_die("write", name);
	}
	fd = work_open(".", O_RDONLY | O_DIRECTORY);
	if (syncfs(fd) != 0)
		work_die("syncfs", ".");
	close(fd);
}

static void work_cat(long n)
{
	char name[64];

	for (long i = 0; i < n; i++) {
		int fd;

		work_name(name, sizeof(name), i);
		fd = work_open(name, O_RDONLY);
		if (read(fd, buf, MiB) != FILE_BYTES)
			work_die("read", name);
		close(fd);
	}
}

static void work_stat(long n)
{
	char name[512];
	long seen = 0;

	for (long d = 0; d * PER_FOLDER < n; d++) {
		struct dirent *de;
		struct stat st;
		DIR *dir;

		snprintf(name, sizeof(name), "d%04ld", d);
		dir = opendir(name);
		if (!dir)
			work_die("opendir", name);
		while ((de = readdir(dir))) {
			if (fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
				work_die("stat", de->d_name);
			seen += S_ISREG(st.st_mode);
		}
		closedir(dir);
	}
	if (seen != n) {
		fprintf(stderr, "bench_work: %ld files found, %ld expected\n", seen, n);
		exit(1);
	}
}

static void work_delete(long n)
{
	char name[64];

	for (long i = 0; i < n; i++) {
		work_name(name, sizeof(name), i);
		if (unlink(name) != 0)
			work_die("unlink", name);
		if (i % PER_FOLDER == PER_FOLDER - 1 || i == n - 1) {
			snprintf(name, sizeof(name), "d%04ld", i / PER_FOLDER);
			if (rmdir(name) != 0)
				work_die("rmdir", name);
		}
	}
}

static void work_over(long n, bool in_order)
{
	const long piece = 64 << 10, npieces = n * (MiB / piece);
	int fd = work_open("large", O_WRONLY);
	unsigned long long random = 1;

	for (long i = 0; i < npieces; i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		off_t pos =
			(in_order ? i : (long)((random >> 33) % (unsigned long)npieces)) * piece;

		if (pwrite(fd, buf, (size_t)piece, pos) != piece)
			work_die("write", "large");
	}
	close(fd);
}

static void work_sequential64(long n)
{
	work_over(n, true);
}

static void work_random64(long n)
{
	work_over(n, false);
}

static const struct {
	const char *name;
	void (*run)(long n);
} works[] = {
	{"write", work_write},
	{"read", work_read},
	{"create", work_create},
	{"cat", work_cat},
	{"stat", work_stat},
	{"delete", work_delete},
	{"sequential64", work_sequential64},
	{"random64", work_random64},
};

int main(int argc, char **argv)
{
	struct timespec a, b;

	buf = malloc(MiB);
	if (argc != 4 || !buf) {
		fprintf(stderr, "usage: bench_work WHAT DIR N\n");
		return 2;
	}
	for (int i = 0; i < MiB; i++)
		buf[i] = (char)(i * 2654435761u >> 13);
	if (chdir(argv[2]) != 0)
		work_die("chdir", argv[2]);
	for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
		if (strcmp(works[i].name, argv[1]) != 0)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &a);
		works[i].run(atol(argv[3]));
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("%.6f\n",
		       (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
		return 0;
	}
	fprintf(stderr, "bench_work: no work \"%s\"\n", argv[1]);
	return 2;
}
