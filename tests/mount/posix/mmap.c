/* SPDX-License-Identifier: MIT */
/* Mappings, O_DIRECT, read and write: four ways to the same bytes, which must agree. */
#include "posix.h"
#include <signal.h>
#include <sys/wait.h>

#define MiB (1 << 20)

static void *aligned(size_t len)
{
	void *p = NULL;

	EQ(0, posix_memalign(&p, 4096, len));
	return p;
}

static void stores_through_a_mapping_are_read_everywhere(void)
{
	uint8_t *model = malloc(MiB), *seen = malloc(MiB), *map, *map2;
	int fd = posix_create("f"), fd2;

	OK(ftruncate(fd, MiB));
	map = posix_map(fd, MiB);
	posix_fill(model, MiB, 1);
	memcpy(map, model, MiB);
	posix_read_at(fd, seen, MiB, 0);
	SAME(model, seen, MiB);
	fd2 = (int)OK(open("f", O_RDWR));
	map2 = posix_map(fd2, MiB);
	SAME(model, map2, MiB);
	posix_write_at(fd2, "written", 7, 5000);
	SAME("written", map + 5000, 7);
	memcpy(model + 5000, "written", 7);
	map2[MiB - 1] = model[MiB - 1] = 0x5a;
	OK(msync(map2, MiB, MS_SYNC));
	OK(munmap(map, MiB));
	OK(munmap(map2, MiB));
	posix_drop(fd);
	posix_read_at(fd2, seen, MiB, 0);
	SAME(model, seen, MiB);
}

static void a_mapping_is_on_disk_after_munmap_and_fsync(void)
{
	uint8_t *model = malloc(MiB), *seen = malloc(MiB), *map;
	int fd = posix_create("f");

	OK(ftruncate(fd, MiB - 100));
	map = posix_map(fd, MiB);
	posix_fill(model, MiB, 2);
	memcpy(map, model, MiB - 100);
	memset(map + MiB - 100, 0xee, 100); /* beyond the end: never to be seen in the file */
	OK(close(fd));
	OK(munmap(map, MiB));
	fd = (int)OK(open("f", O_RDWR));
	posix_drop(fd);
	posix_read_at(fd, seen, MiB - 100, 0);
	SAME(model, seen, MiB - 100);
	EQ(MiB - 100, posix_stat("f").st_size);
	OK(ftruncate(fd, MiB));
	posix_zeros(fd, MiB - 100, 100);
}

static void a_mapping_beyond_the_end_raises_sigbus(void)
{
	int fd = posix_create("f"), status;
	uint8_t *map;

	posix_write_at(fd, "x", 1, 8192);
	map = posix_map(fd, 16384);
	EQ('x', map[8192]);
	EQ(0, map[8193]);
	fflush(stdout);
	if (OK(fork()) == 0) {
		signal(SIGBUS, SIG_DFL); /* a sanitizer's handler would explain it instead */
		OK(ftruncate(fd, 4096));
		_exit(map[4096]); /* a bus error, not a value */
	}
	OK(wait(&status));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

static void private_mappings_stay_private(void)
{
	char seen[5];
	uint8_t *map;
	int fd;

	posix_put("f", "hello", 5);
	fd = (int)OK(open("f", O_RDWR));
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(map != MAP_FAILED);
	memcpy(map, "HELLO", 5);
	posix_read_at(fd, seen, 5, 0);
	SAME("hello", seen, 5);
}

static void direct_reads_see_what_was_written_otherwise(void)
{
	uint8_t *model = malloc(MiB), *buf = aligned(MiB), *map;
	int fd = posix_create("f"), direct;

	posix_fill(model, MiB, 3);
	posix_write_at(fd, model, MiB, 0);
	direct = (int)OK(open("f", O_RDWR | O_DIRECT));
	posix_read_at(direct, buf, MiB, 0); /* dirty in memory until then */
	SAME(model, buf, MiB);
	map = posix_map(fd, MiB);
	posix_fill(model, 10000, 4);
	memcpy(map, model, 10000);
	posix_read_at(direct, buf, MiB, 0);
	SAME(model, buf, MiB);
}

static void direct_writes_are_seen_by_all_others(void)
{
	uint8_t *model = malloc(MiB), *buf = aligned(MiB), *seen = malloc(MiB), *map;
	int fd = posix_create("f"), direct = (int)OK(open("f", O_RDWR | O_DIRECT));

	posix_fill(model, MiB, 5);
	posix_write_at(fd, model, MiB, 0);
	map = posix_map(fd, MiB);
	SAME(model, map, MiB); /* every page is mapped and dirty */
	for (int i = 0; i < 10; i++) {
		off_t pos = i * 65536 + i * 4096;

		posix_fill(model + pos, 65536, (uint64_t)(10 + i));
		memcpy(buf, model + pos, 65536);
		posix_write_at(direct, buf, 65536, pos);
		posix_read_at(fd, seen, 65536, pos);
		SAME(model + pos, seen, 65536);
		SAME(model + pos, map + pos, 65536);
	}
	SAME(model, map, MiB);
	posix_drop(fd);
	posix_read_at(fd, seen, MiB, 0);
	SAME(model, seen, MiB);
}

static void direct_io_works_at_any_alignment(void)
{
	uint8_t *model = calloc(1, 100000), *buf = malloc(100000), *seen = malloc(100000);
	int direct = (int)OK(open("f", O_RDWR | O_CREAT | O_DIRECT, 0600));

	for (int i = 0; i < 20; i++) {
		size_t pos = (size_t)(i * 3331), len = (size_t)(1 + i * 977);

		posix_fill(buf, len, (uint64_t)i);
		posix_write_at(direct, buf, len, (off_t)pos);
		memcpy(model + pos, buf, len);
	}
	posix_read_at(direct, seen, 19 * 3331 + 1 + 19 * 977, 0);
	SAME(model, seen, 19 * 3331 + 1 + 19 * 977);
	posix_read_at(direct, seen, 501, 777);
	SAME(model + 777, seen, 501);
}

/*
 * One process stores through a mapping, another reads and writes; then everything is as both left
 * it.
 */
static void four_ways_at_once_agree(void)
{
	enum { PAGES = 64, ROUNDS = 200 };
	uint8_t *map, *buf = aligned(4096);
	int fd = posix_create("f"), direct, status;

	OK(ftruncate(fd, PAGES * 4096));
	map = posix_map(fd, PAGES * 4096);
	fflush(stdout);
	if (OK(fork()) == 0) {
		for (int r = 1; r <= ROUNDS; r++) /* even pages */
			for (int p = 0; p < PAGES; p += 2)
				memset(map + p * 4096, r, 4096);
		_exit(0);
	}
	direct = (int)OK(open("f", O_RDWR | O_DIRECT));
	for (int r = 1; r <= ROUNDS; r++) { /* odd pages */
		int p = (r * 2 + 1) % PAGES;

		memset(buf, r, 4096);
		posix_write_at(r % 2 ? fd : direct, buf, 4096, p * 4096);
		posix_read_at(r % 2 ? direct : fd, buf, 4096, p * 4096);
		for (int i = 0; i < 4096; i++)
			EQ(r & 0xff, buf[i]);
	}
	OK(wait(&status));
	EQ(0, status);
	for (int p = 0; p < PAGES; p += 2) {
		posix_read_at(p % 4 ? fd : direct, buf, 4096, p * 4096);
		for (int i = 0; i < 4096; i++)
			EQ(ROUNDS, buf[i]);
	}
}

static void truncate_takes_pages_from_mappings(void)
{
	uint8_t *map;
	int fd = posix_create("f");

	OK(ftruncate(fd, 65536));
	map = posix_map(fd, 65536);
	memset(map, 'a', 65536);
	OK(ftruncate(fd, 1000));
	OK(ftruncate(fd, 65536));
	EQ('a', map[999]);
	for (int i = 1000; i < 65536; i++)
		EQ(0, map[i]);
	posix_drop(fd);
	posix_zeros(fd, 1000, 64536);
}

static void a_program_runs_from_the_mount(void)
{
	int status;
	pid_t pid;

	EQ(0, system("cp /bin/true ./prog && chmod 755 ./prog"));
	fflush(stdout);
	pid = (pid_t)OK(fork());
	if (pid == 0) {
		execl("./prog", "prog", (char *)NULL);
		_exit(127);
	}
	OK(waitpid(pid, &status, 0));
	EQ(0, status);
	status = open("prog", O_WRONLY); /* not running any more */
	OK(status);
}

const struct posix_check mmap_checks[] = {
	{"stores_through_a_mapping_are_read_everywhere",
	 stores_through_a_mapping_are_read_everywhere, 0},
	{"a_mapping_is_on_disk_after_munmap_and_fsync", a_mapping_is_on_disk_after_munmap_and_fsync,
	 0},
	{"a_mapping_beyond_the_end_raises_sigbus", a_mapping_beyond_the_end_raises_sigbus, 0},
	{"private_mappings_stay_private", private_mappings_stay_private, 0},
	{"direct_reads_see_what_was_written_otherwise", direct_reads_see_what_was_written_otherwise,
	 0},
	{"direct_writes_are_seen_by_all_others", direct_writes_are_seen_by_all_others, 0},
	{"direct_io_works_at_any_alignment", direct_io_works_at_any_alignment, 0},
	{"four_ways_at_once_agree", four_ways_at_once_agree, 0},
	{"truncate_takes_pages_from_mappings", truncate_takes_pages_from_mappings, 0},
	{"a_program_runs_from_the_mount", a_program_runs_from_the_mount, 0},
	{NULL, NULL, 0},
};
