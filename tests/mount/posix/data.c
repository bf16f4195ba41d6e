/* SPDX-License-Identifier: MIT */
/* Bytes: read, write, truncate, append, copy, and what lies in the holes. */
#include "posix.h"
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define MiB (1 << 20)

static void every_offset_and_length_reads_back(void)
{
	static const size_t edges[] = {0,    1,    511,  512,   4095,   4096,   4097,
				       8191, 8192, 8193, 65535, 131072, 1 << 20};
	const size_t n = sizeof(edges) / sizeof(edges[0]);
	uint8_t *model = calloc(1, 4 * MiB), *seen = malloc(4 * MiB), *buf = malloc(2 * MiB);
	size_t size = 0;
	uint64_t seed = 1;
	int fd = posix_create("f");

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < n; j++) {
			size_t pos = edges[i] + edges[j] / 3, len = edges[j];

			posix_fill(buf, len, seed++);
			posix_write_at(fd, buf, len, (off_t)pos);
			memcpy(model + pos, buf, len);
			if (len && pos + len > size)
				size = pos + len;
		}
	}
	EQ(size, posix_stat("f").st_size);
	posix_read_at(fd, seen, size, 0);
	SAME(model, seen, size);
	posix_drop(fd);
	posix_read_at(fd, seen, size, 0);
	SAME(model, seen, size);
	EQ(0, OK(pread(fd, seen, 10, (off_t)size)));
	EQ(1, OK(pread(fd, seen, 10, (off_t)size - 1)));
}

static void truncate_cuts_and_extends_with_zeros(void)
{
	uint8_t buf[30000], seen[30000];
	int fd = posix_create("f");

	posix_fill(buf, sizeof(buf), 7);
	posix_write_at(fd, buf, sizeof(buf), 0);
	for (int drop = 0; drop < 2; drop++) {
		if (drop)
			posix_drop(fd);
		OK(ftruncate(fd, 5000));
		EQ(5000, posix_stat("f").st_size);
		OK(ftruncate(fd, 30000));
		EQ(30000, posix_stat("f").st_size);
		posix_read_at(fd, seen, 5000, 0);
		SAME(buf, seen, 5000);
		posix_zeros(fd, 5000, 25000); /* nothing of before comes back */
		posix_drop(fd);
		posix_zeros(fd, 5000, 25000);
		posix_write_at(fd, buf, sizeof(buf), 0);
	}
	OK(ftruncate(fd, 0));
	OK(ftruncate(fd, 1));
	posix_zeros(fd, 0, 1);
	FAILS(EINVAL, ftruncate(fd, -1));
	OK(truncate("f", 12345));
	EQ(12345, posix_stat("f").st_size);
}

static void a_write_beyond_the_end_leaves_zeros_between(void)
{
	uint8_t buf[100];
	int fd = posix_create("f");

	posix_fill(buf, sizeof(buf), 3);
	posix_write_at(fd, buf, 100, 0);
	posix_write_at(fd, buf, 100, 10000);
	posix_write_at(fd, buf, 100, 3 * MiB + 17);
	for (int i = 0; i < 2; i++) {
		posix_zeros(fd, 100, 9900);
		posix_zeros(fd, 10100, 3 * MiB + 17 - 10100);
		posix_drop(fd);
	}
}

static void files_reach_16_tib_and_sizes_beyond(void)
{
	const off_t end = (off_t)16 << 40;
	uint8_t buf[8192], seen[8192];
	struct stat st;
	int fd = posix_create("f");

	posix_fill(buf, sizeof(buf), 5);
	posix_write_at(fd, buf, sizeof(buf), end - 8192);
	posix_write_at(fd, buf, sizeof(buf), end / 2 + 123);
	EQ(end, posix_stat("f").st_size);
	posix_drop(fd);
	posix_read_at(fd, seen, sizeof(seen), end - 8192);
	SAME(buf, seen, sizeof(buf));
	posix_read_at(fd, seen, sizeof(seen), end / 2 + 123);
	SAME(buf, seen, sizeof(buf));
	posix_zeros(fd, end / 4, 65536);
	OK(close(fd));
	st = posix_stat("f");
	EQ(5 * 8, st.st_blocks); /* two blocks and three */
	OK(truncate("f", INT64_MAX));
	EQ(INT64_MAX, posix_stat("f").st_size);
	fd = (int)OK(open("f", O_RDWR));
	posix_zeros(fd, INT64_MAX - 100, 100);
	CHECK(pwrite(fd, "xy", 2, INT64_MAX - 1) <= 1);
	OK(ftruncate(fd, 0));
	OK(close(fd));
	EQ(0, posix_stat("f").st_blocks);
}

static void append_goes_to_the_end_from_every_process(void)
{
	enum { WRITERS = 4, LINES = 300 };
	bool seen[WRITERS][LINES] = {{false}};
	char line[64];
	FILE *f;

	OK(close(posix_create("log")));
	fflush(stdout);
	for (int w = 0; w < WRITERS; w++) {
		if (OK(fork()) == 0) {
			int fd = (int)OK(open("log", O_WRONLY | O_APPEND));

			for (int i = 0; i < LINES; i++) {
				int n = snprintf(line, sizeof(line), "writer %d line %04d\n", w, i);

				EQ(n, OK(write(fd, line, (size_t)n)));
			}
			_exit(0);
		}
	}
	for (int w = 0; w < WRITERS; w++) {
		int status;

		OK(wait(&status));
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	EQ(WRITERS * LINES * 19, posix_stat("log").st_size);
	f = fopen("log", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		int w, i;

		EQ(2, sscanf(line, "writer %d line %d", &w, &i));
		CHECK(w >= 0 && w < WRITERS && i >= 0 && i < LINES && !seen[w][i]);
		seen[w][i] = true;
	}
	fclose(f);
	for (int w = 0; w < WRITERS; w++)
		for (int i = 0; i < LINES; i++)
			CHECK(seen[w][i]);
}

static void a_write_only_descriptor_may_change_part_of_a_page(void)
{
	char seen[12];
	int fd;

	posix_put("f", "hello world!", 12);
	fd = (int)OK(open("f", O_RDONLY));
	posix_drop(fd);
	OK(close(fd));
	fd = (int)OK(open("f", O_WRONLY));
	EQ(5, OK(pwrite(fd, "HELLO", 5, 0)));
	FAILS(EBADF, pread(fd, seen, 1, 0));
	OK(close(fd));
	fd = (int)OK(open("f", O_RDONLY));
	posix_read_at(fd, seen, 12, 0);
	SAME("HELLO world!", seen, 12);
	FAILS(EBADF, pwrite(fd, "x", 1, 0));
}

static void vectors_move_all_their_parts(void)
{
	char a[3], b[5000], c[1], all[5004];
	struct iovec in[3] = {{(void *)"abc", 3}, {b, 5000}, {(void *)"z", 1}};
	struct iovec out[3] = {{a, 3}, {all, 5000}, {c, 1}};
	int fd = posix_create("f");

	posix_fill(b, sizeof(b), 9);
	EQ(5004, OK(pwritev(fd, in, 3, 4090)));
	EQ(5004, OK(preadv(fd, out, 3, 4090)));
	SAME("abc", a, 3);
	SAME(b, all, 5000);
	SAME("z", c, 1);
	EQ(3, OK(pwritev2(fd, in, 1, 0, RWF_APPEND)));
	EQ(4090 + 5004 + 3, posix_stat("f").st_size);
	EQ(3, OK(pwritev2(fd, in, 1, 100, RWF_DSYNC)));
}

/* ------------------------------------------------------------------ copying in the kernel */

static void copy_file_range_copies_and_refuses_overlap(void)
{
	uint8_t *buf = malloc(MiB), *seen = malloc(MiB);
	off_t in = 0, out = 0;
	int from = posix_create("from"), to = posix_create("to");
	size_t done = 0;

	posix_fill(buf, MiB, 11);
	posix_write_at(from, buf, MiB, 0);
	while (done < MiB) {
		ssize_t n = OK(copy_file_range(from, &in, to, &out, MiB - done, 0));

		CHECK(n > 0);
		done += (size_t)n;
	}
	EQ(0, OK(copy_file_range(from, &in, to, &out, 100, 0))); /* at the end */
	posix_read_at(to, seen, MiB, 0);
	SAME(buf, seen, MiB);
	/* At odd offsets, onto a page that is in memory. */
	in = 1001;
	out = 5003;
	EQ(70000, OK(copy_file_range(from, &in, to, &out, 70000, 0)));
	memmove(buf + 5003, buf + 1001, 70000);
	posix_read_at(to, seen, MiB, 0);
	SAME(buf, seen, MiB);
	posix_drop(to);
	posix_read_at(to, seen, MiB, 0);
	SAME(buf, seen, MiB);
	in = 0;
	out = 4096;
	FAILS(EINVAL, copy_file_range(from, &in, from, &out, 8192, 0));
	out = 2 * MiB;
	EQ(8192, OK(copy_file_range(from, &in, from, &out, 8192, 0)));
	posix_read_at(from, buf, 8192, 0);
	posix_read_at(from, seen, 8192, 2 * MiB);
	SAME(buf, seen, 8192);
}

static void sendfile_and_splice_move_every_byte(void)
{
	uint8_t *buf = malloc(MiB), *seen = malloc(MiB);
	int from = posix_create("from"), to = posix_create("to"), pipes[2];
	off_t pos = 0;
	size_t done = 0;

	posix_fill(buf, MiB, 13);
	posix_write_at(from, buf, MiB, 0);
	while (pos < MiB)
		CHECK(OK(sendfile(to, from, &pos, (size_t)(MiB - pos))) > 0);
	posix_read_at(to, seen, MiB, 0);
	SAME(buf, seen, MiB);
	OK(pipe(pipes));
	OK(ftruncate(to, 0));
	OK(lseek(to, 77, SEEK_SET));
	OK(lseek(from, 0, SEEK_SET));
	while (done < MiB) {
		ssize_t n = OK(splice(from, NULL, pipes[1], NULL, 30000, 0));

		CHECK(n > 0);
		for (ssize_t left = n; left > 0;)
			left -= OK(splice(pipes[0], NULL, to, NULL, (size_t)left, 0));
		done += (size_t)n;
	}
	posix_read_at(to, seen, MiB, 77);
	SAME(buf, seen, MiB);
	posix_zeros(to, 0, 77);
}

/* ------------------------------------------------------------------ SEEK_HOLE, SEEK_DATA */

/* Data must never be called a hole; and the two calls must agree with each other. */
static void check_seek_covers(int fd, const uint8_t *model, off_t size)
{
	off_t pos = 0;

	while (pos < size) {
		off_t data = lseek(fd, pos, SEEK_DATA), hole;

		if (data < 0) {
			EQ(ENXIO, errno);
			data = size;
		}
		CHECK(data >= pos);
		for (off_t i = pos; i < data; i++)
			if (model[i])
				posix_fail(__FILE__, __LINE__,
					   "SEEK_DATA from %lld: expected at most %lld, where data "
					   "is, got %lld",
					   (long long)pos, (long long)i, (long long)data);
		if (data == size)
			break;
		hole = OK(lseek(fd, data, SEEK_HOLE));
		CHECK(hole > data && hole <= size);
		pos = hole;
	}
}

static void seek_data_never_skips_data_even_if_it_is_dirty(void)
{
	uint8_t *model = calloc(1, 4 * MiB), buf[10000];
	int fd = posix_create("f");

	for (unsigned int i = 0; i < 20; i++) {
		off_t pos = (off_t)((i * 7919u * 523) % (4 * MiB - sizeof(buf)));

		posix_fill(buf, sizeof(buf), i);
		posix_write_at(fd, buf, sizeof(buf), pos);
		memcpy(model + pos, buf, sizeof(buf));
		if (i % 4 == 0) {
			OK(ftruncate(fd, 4 * MiB));
			check_seek_covers(fd, model, 4 * MiB);
		}
	}
	check_seek_covers(fd, model, 4 * MiB);
	posix_drop(fd);
	check_seek_covers(fd, model, 4 * MiB);
	OK(close(fd));
	fd = (int)OK(open("f", O_RDONLY));
	check_seek_covers(fd, model, 4 * MiB);
}

/* The kernel may have grown the file in its own cache without a word to the daemon. */
static void seek_data_finds_data_that_was_never_written_out(void)
{
	uint8_t *model = calloc(1, 4 * MiB), buf[100];
	int fd = posix_create("f");

	posix_fill(buf, sizeof(buf), 1);
	posix_write_at(fd, buf, sizeof(buf), 4 * MiB - 100);
	memcpy(model + 4 * MiB - 100, buf, 100);
	check_seek_covers(fd, model, 4 * MiB);
	CHECK(OK(lseek(fd, 4 * MiB - 1, SEEK_DATA)) == 4 * MiB - 1);
	EQ(4 * MiB, OK(lseek(fd, 4 * MiB - 1, SEEK_HOLE)));
	FAILS(ENXIO, lseek(fd, 4 * MiB, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 4 * MiB, SEEK_HOLE));
}

static void holes_are_found_once_a_file_is_closed(void)
{
	uint8_t buf[8192];
	int fd = posix_create("f");

	posix_fill(buf, sizeof(buf), 1);
	posix_write_at(fd, buf, 8192, 1 * MiB);
	posix_write_at(fd, buf, 100, 2 * MiB);
	OK(ftruncate(fd, 3 * MiB));
	OK(fsync(fd));
	OK(close(fd));
	fd = (int)OK(open("f", O_RDONLY));
	EQ(MiB, OK(lseek(fd, 0, SEEK_DATA)));
	EQ(MiB + 8192, OK(lseek(fd, MiB, SEEK_HOLE)));
	EQ(MiB + 100, OK(lseek(fd, MiB + 100, SEEK_DATA)));
	EQ(2 * MiB, OK(lseek(fd, MiB + 8192, SEEK_DATA)));
	EQ(2 * MiB + 4096, OK(lseek(fd, 2 * MiB, SEEK_HOLE)));
	EQ(0, OK(lseek(fd, 0, SEEK_HOLE)));
	FAILS(ENXIO, lseek(fd, 2 * MiB + 4096, SEEK_DATA));
	EQ(2 * MiB + 4096, OK(lseek(fd, 2 * MiB + 4096, SEEK_HOLE)));
	FAILS(ENXIO, lseek(fd, 3 * MiB, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 3 * MiB, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, 5 * MiB, SEEK_HOLE));
}

/* ------------------------------------------------------------------ locks */

static void fcntl_locks_keep_processes_apart(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
	int fd = posix_create("f"), status;

	OK(fcntl(fd, F_SETLK, &lock));
	fflush(stdout);
	if (OK(fork()) == 0) {
		FAILS(EAGAIN, fcntl(fd, F_SETLK, &lock));
		lock.l_start = 20;
		OK(fcntl(fd, F_SETLK, &lock));
		_exit(0);
	}
	OK(wait(&status));
	EQ(0, status);
}

const struct posix_check data_checks[] = {
	{"every_offset_and_length_reads_back", every_offset_and_length_reads_back, 0},
	{"truncate_cuts_and_extends_with_zeros", truncate_cuts_and_extends_with_zeros, 0},
	{"a_write_beyond_the_end_leaves_zeros_between", a_write_beyond_the_end_leaves_zeros_between,
	 0},
	{"files_reach_16_tib_and_sizes_beyond", files_reach_16_tib_and_sizes_beyond, 0},
	{"append_goes_to_the_end_from_every_process", append_goes_to_the_end_from_every_process, 0},
	{"a_write_only_descriptor_may_change_part_of_a_page",
	 a_write_only_descriptor_may_change_part_of_a_page, 0},
	{"vectors_move_all_their_parts", vectors_move_all_their_parts, 0},
	{"copy_file_range_copies_and_refuses_overlap", copy_file_range_copies_and_refuses_overlap,
	 0},
	{"sendfile_and_splice_move_every_byte", sendfile_and_splice_move_every_byte, 0},
	{"seek_data_never_skips_data_even_if_it_is_dirty",
	 seek_data_never_skips_data_even_if_it_is_dirty, 0},
	{"seek_data_finds_data_that_was_never_written_out",
	 seek_data_finds_data_that_was_never_written_out, 0},
	{"holes_are_found_once_a_file_is_closed", holes_are_found_once_a_file_is_closed, 0},
	{"fcntl_locks_keep_processes_apart", fcntl_locks_keep_processes_apart, 0},
	{NULL, NULL, 0},
};
