/* SPDX-License-Identifier: MIT */
/* Names: what they may be, what rename and link do, directories that change while they are read. */
#include "posix.h"
#include <dirent.h>
#include <linux/fs.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static int rename_flags(const char *from, const char *to, unsigned int flags)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(name, &st) == 0;
}

/* ------------------------------------------------------------------ names */

static void names_of_255_bytes_work_and_256_are_too_long(void)
{
	char name[257];

	memset(name, 'x', 256);
	name[256] = 0;
	FAILS(ENAMETOOLONG, open(name, O_CREAT | O_WRONLY, 0600));
	FAILS(ENAMETOOLONG, mkdir(name, 0700));
	FAILS(ENAMETOOLONG, symlink("x", name));
	FAILS(ENAMETOOLONG, lstat(name, &(struct stat){0}));
	name[255] = 0;
	posix_put(name, "long", 4);
	EQ(4, posix_stat(name).st_size);
	FAILS(ENAMETOOLONG,
	      rename_flags(name,
			   "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
			   "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
			   "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
			   "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
			   0));
	OK(unlink(name));
}

static void names_may_have_any_byte_but_nul_and_slash(void)
{
	bool seen[256] = {false};
	struct dirent *de;
	DIR *dir;

	for (int b = 1; b < 256; b++) {
		char name[4] = {(char)b, 'x', (char)b, 0};

		if (b != '/')
			posix_put(name, name, 3);
	}
	dir = opendir(".");
	CHECK(dir);
	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.' && de->d_name[1] != 'x')
			continue;
		CHECK(strlen(de->d_name) == 3 && de->d_name[0] == de->d_name[2]);
		CHECK(!seen[(uint8_t)de->d_name[0]]);
		seen[(uint8_t)de->d_name[0]] = true;
	}
	closedir(dir);
	for (int b = 1; b < 256; b++)
		EQ(b != '/', seen[b]);
}

static void names_that_share_all_but_one_bit_are_different(void)
{
	char a[] = "name-a", b[] = "name-b";

	posix_put(a, "1", 1);
	FAILS(ENOENT, lstat(b, &(struct stat){0}));
	posix_put(b, "22", 2);
	EQ(1, posix_stat(a).st_size);
	EQ(2, posix_stat(b).st_size);
}

/* ------------------------------------------------------------------ kinds of files */

static void open_says_what_is_in_the_way(void)
{
	posix_put("file", "x", 1);
	OK(mkdir("dir", 0755));
	OK(symlink("nowhere", "broken"));
	OK(symlink("loop", "loop"));
	FAILS(EEXIST, open("file", O_CREAT | O_EXCL | O_RDWR, 0600));
	FAILS(EEXIST, open("broken", O_CREAT | O_EXCL | O_RDWR, 0600));
	FAILS(ENOENT, open("broken", O_RDONLY));
	FAILS(ELOOP, open("loop", O_RDONLY));
	FAILS(ELOOP, open("broken", O_RDONLY | O_NOFOLLOW));
	FAILS(EISDIR, open("dir", O_RDWR));
	FAILS(ENOTDIR, open("file", O_RDONLY | O_DIRECTORY));
	FAILS(ENOTDIR, open("file/x", O_RDONLY));
	FAILS(ENOENT, open("dir/x/y", O_RDONLY));
	FAILS(EEXIST, mkdir("file", 0755));
	FAILS(EEXIST, mkdir("dir", 0755));
	FAILS(ENOTDIR, rmdir("file"));
	FAILS(EISDIR, unlink("dir"));
	OK(close((int)OK(open("file", O_RDWR | O_TRUNC))));
	EQ(0, posix_stat("file").st_size);
	/* Creation follows a symlink that leads nowhere. */
	OK(close((int)OK(open("broken", O_CREAT | O_WRONLY, 0600))));
	CHECK(exists("nowhere"));
}

static void symlinks_hold_up_to_4095_bytes(void)
{
	static const size_t lengths[] = {1, 60, 1023, 1024, 1025, 2048, 4095};
	char target[4097], seen[4097];

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		char name[16];

		snprintf(name, sizeof(name), "l%zu", lengths[i]);
		memset(target, 'a' + (int)i, lengths[i]);
		target[lengths[i]] = 0;
		OK(symlink(target, name));
		EQ(lengths[i], posix_stat(name).st_size);
		EQ(lengths[i], OK(readlink(name, seen, sizeof(seen))));
		SAME(target, seen, lengths[i]);
		CHECK(S_ISLNK(posix_stat(name).st_mode));
	}
	EQ(10, OK(readlink("l1024", seen, 10)));
	memset(target, 'z', 4096);
	target[4096] = 0;
	FAILS(ENAMETOOLONG, symlink(target, "too-long"));
	FAILS(EINVAL, readlink(".", seen, sizeof(seen)));
	FAILS(EEXIST, symlink("x", "l1"));
}

static void fifos_and_sockets_connect_processes(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "sock"};
	char buf[4];
	int rd, wr, server, client;

	OK(mkfifo("fifo", 0600));
	CHECK(S_ISFIFO(posix_stat("fifo").st_mode));
	rd = (int)OK(open("fifo", O_RDONLY | O_NONBLOCK));
	wr = (int)OK(open("fifo", O_WRONLY));
	EQ(4, OK(write(wr, "ping", 4)));
	EQ(4, OK(read(rd, buf, 4)));
	SAME("ping", buf, 4);
	server = (int)OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(bind(server, (struct sockaddr *)&addr, sizeof(addr)));
	CHECK(S_ISSOCK(posix_stat("sock").st_mode));
	OK(listen(server, 1));
	client = (int)OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(client, (struct sockaddr *)&addr, sizeof(addr)));
	FAILS(ENXIO, open("sock", O_RDWR));
}

static void device_nodes_keep_their_numbers(void)
{
	OK(mknod("null", S_IFCHR | 0600, makedev(1, 3)));
	OK(mknod("block", S_IFBLK | 0640, makedev(259, 1048575)));
	CHECK(S_ISCHR(posix_stat("null").st_mode));
	EQ(makedev(1, 3), posix_stat("null").st_rdev);
	CHECK(S_ISBLK(posix_stat("block").st_mode));
	EQ(makedev(259, 1048575), posix_stat("block").st_rdev);
	EQ(0, posix_stat(".").st_rdev);
}

/* ------------------------------------------------------------------ links */

static void hard_links_are_one_file(void)
{
	struct stat a, b;
	int fd;

	posix_put("a", "one", 3);
	OK(link("a", "b"));
	OK(mkdir("d", 0755));
	OK(link("a", "d/c"));
	a = posix_stat("a");
	b = posix_stat("d/c");
	EQ(a.st_ino, b.st_ino);
	EQ(3, b.st_nlink);
	fd = (int)OK(open("b", O_WRONLY | O_APPEND));
	EQ(3, OK(write(fd, "two", 3)));
	OK(close(fd));
	EQ(6, posix_stat("d/c").st_size);
	FAILS(EEXIST, link("a", "b"));
	FAILS(EPERM, link("d", "e"));
	OK(unlink("a"));
	EQ(2, posix_stat("b").st_nlink);
	OK(unlink("b"));
	EQ(1, posix_stat("d/c").st_nlink);
	OK(symlink("x", "s"));
	OK(link("s", "s2"));
	EQ(2, posix_stat("s2").st_nlink);
	CHECK(S_ISLNK(posix_stat("s2").st_mode));
}

static void directories_count_their_subdirectories(void)
{
	EQ(2, posix_stat(".").st_nlink);
	OK(mkdir("a", 0755));
	OK(mkdir("a/b", 0755));
	OK(mkdir("c", 0755));
	posix_put("file", "x", 1);
	EQ(4, posix_stat(".").st_nlink);
	EQ(3, posix_stat("a").st_nlink);
	OK(rename("a/b", "c/b"));
	EQ(2, posix_stat("a").st_nlink);
	EQ(3, posix_stat("c").st_nlink);
	EQ(posix_stat("c").st_ino, posix_stat("c/b/..").st_ino);
	OK(rmdir("c/b"));
	EQ(2, posix_stat("c").st_nlink);
	OK(rename("a", "c")); /* over an empty one */
	EQ(3, posix_stat(".").st_nlink);
}

/* ------------------------------------------------------------------ rename */

static void rename_replaces_files_and_empty_directories(void)
{
	posix_put("a", "new", 3);
	posix_put("b", "older", 5);
	OK(rename("a", "b"));
	CHECK(!exists("a"));
	EQ(3, posix_stat("b").st_size);
	OK(mkdir("full", 0755));
	posix_put("full/x", "x", 1);
	OK(mkdir("empty", 0755));
	FAILS(ENOTEMPTY, rename("empty", "full"));
	FAILS(ENOTEMPTY, rmdir("full"));
	FAILS(EISDIR, rename("b", "empty"));
	FAILS(ENOTDIR, rename("empty", "b"));
	OK(rename("full", "empty"));
	CHECK(exists("empty/x"));
	FAILS(EINVAL, rename("empty", "empty/inside"));
	FAILS(ENOENT, rename("missing", "b"));
	/* Two names of one file: nothing happens. */
	OK(link("b", "b2"));
	OK(rename("b", "b2"));
	CHECK(exists("b") && exists("b2"));
}

static void rename_noreplace_keeps_what_is_there(void)
{
	posix_put("a", "1", 1);
	posix_put("b", "22", 2);
	FAILS(EEXIST, rename_flags("a", "b", RENAME_NOREPLACE));
	EQ(2, posix_stat("b").st_size);
	OK(rename_flags("a", "c", RENAME_NOREPLACE));
	CHECK(!exists("a"));
	EQ(1, posix_stat("c").st_size);
}

static void rename_exchange_swaps_even_a_file_and_a_directory(void)
{
	ino_t file, dir;

	posix_put("file", "x", 1);
	OK(mkdir("sub", 0755));
	OK(mkdir("sub/dir", 0755));
	OK(mkdir("sub/dir/deep", 0755));
	file = posix_stat("file").st_ino;
	dir = posix_stat("sub/dir").st_ino;
	OK(rename_flags("file", "sub/dir", RENAME_EXCHANGE));
	EQ(dir, posix_stat("file").st_ino);
	EQ(file, posix_stat("sub/dir").st_ino);
	EQ(posix_stat(".").st_ino, posix_stat("file/..").st_ino);
	EQ(4, posix_stat(".").st_nlink);
	EQ(2, posix_stat("sub").st_nlink);
	FAILS(ENOENT, rename_flags("file", "missing", RENAME_EXCHANGE));
	FAILS(EINVAL, rename_flags("sub", "file", RENAME_EXCHANGE | RENAME_NOREPLACE));
	FAILS(EINVAL, rename_flags("file", "file/deep", RENAME_EXCHANGE));
	FAILS(EINVAL, rename_flags("sub", "x", RENAME_WHITEOUT));
}

/* ------------------------------------------------------------------ without a name */

static void a_file_without_a_name_works_until_it_is_closed(void)
{
	uint8_t buf[20000], seen[20000];
	struct stat st;
	int fd = posix_create("gone");

	posix_fill(buf, sizeof(buf), 1);
	posix_write_at(fd, buf, 5000, 0);
	OK(unlink("gone"));
	CHECK(!exists("gone"));
	OK(fstat(fd, &st));
	EQ(0, st.st_nlink);
	posix_write_at(fd, buf + 5000, sizeof(buf) - 5000, 5000);
	posix_drop(fd);
	posix_read_at(fd, seen, sizeof(seen), 0);
	SAME(buf, seen, sizeof(buf));
	OK(ftruncate(fd, 100));
	OK(fchmod(fd, 0400));
	OK(fstat(fd, &st));
	EQ(100, st.st_size);
	EQ(0400, st.st_mode & 07777);
	posix_put("gone", "other", 5); /* the name is free for another file */
	OK(fstat(fd, &st));
	EQ(100, st.st_size);
	OK(close(fd));
	EQ(5, posix_stat("gone").st_size);
}

static void a_replaced_file_stays_what_it_was_for_who_has_it_open(void)
{
	char seen[3];
	int fd;

	posix_put("a", "old", 3);
	fd = (int)OK(open("a", O_RDWR));
	posix_put("b", "new", 3);
	OK(rename("b", "a"));
	posix_read_at(fd, seen, 3, 0);
	SAME("old", seen, 3);
	posix_write_at(fd, "mod", 3, 0);
	OK(fsync(fd));
	OK(close(fd));
	fd = (int)OK(open("a", O_RDONLY));
	posix_read_at(fd, seen, 3, 0);
	SAME("new", seen, 3);
}

static void nothing_can_be_made_in_a_removed_directory(void)
{
	struct stat st;
	int dir;

	OK(mkdir("gone", 0755));
	dir = (int)OK(open("gone", O_RDONLY | O_DIRECTORY));
	OK(rmdir("gone"));
	OK(fstat(dir, &st));
	EQ(0, st.st_nlink);
	FAILS(ENOENT, openat(dir, "x", O_CREAT | O_WRONLY, 0600));
	FAILS(ENOENT, mkdirat(dir, "x", 0700));
	FAILS(ENOENT, symlinkat("x", dir, "x"));
}

static void tmpfile_gets_a_name_from_linkat(void)
{
	char path[64], seen[5];
	struct stat st;
	int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0640));

	OK(fstat(fd, &st));
	EQ(0, st.st_nlink);
	EQ(0640, st.st_mode & 07777);
	CHECK(S_ISREG(st.st_mode));
	posix_write_at(fd, "inner", 5, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	OK(fstat(fd, &st));
	EQ(1, st.st_nlink);
	EQ(st.st_ino, posix_stat("named").st_ino);
	OK(close(fd));
	fd = (int)OK(open("named", O_RDONLY));
	posix_read_at(fd, seen, 5, 0);
	SAME("inner", seen, 5);
	OK(close(fd));
	/* With O_EXCL it never gets one. */
	fd = (int)OK(open(".", O_TMPFILE | O_EXCL | O_RDWR, 0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	FAILS(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
}

/* ------------------------------------------------------------------ reading directories */

#define MANY 3000

static void make_many(unsigned int from, unsigned int to)
{
	for (unsigned int i = from; i < to; i++) {
		char name[32];

		snprintf(name, sizeof(name), "entry-%05u", i);
		OK(close((int)OK(open(name, O_CREAT | O_EXCL | O_WRONLY, 0600))));
	}
}

static void a_directory_shows_each_entry_once(void)
{
	bool seen[MANY] = {false};
	unsigned int n = 0, dots = 0;
	struct dirent *de;
	DIR *dir;

	make_many(0, MANY);
	dir = opendir(".");
	CHECK(dir);
	while ((de = readdir(dir))) {
		unsigned int i;

		if (de->d_name[0] == '.') {
			dots++;
			continue;
		}
		EQ(1, sscanf(de->d_name, "entry-%u", &i));
		CHECK(i < MANY && !seen[i]);
		EQ(DT_REG, de->d_type);
		EQ(posix_stat(de->d_name).st_ino, de->d_ino);
		seen[i] = true;
		n++;
	}
	EQ(MANY, n);
	EQ(2, dots);
	closedir(dir);
}

static void telldir_cookies_stay_valid_while_entries_come_and_go(void)
{
	static long cookies[MANY + 3];
	static char following[MANY + 3][32];
	unsigned int n = 0;
	struct dirent *de;
	DIR *dir;

	make_many(0, MANY);
	dir = opendir(".");
	CHECK(dir);
	for (cookies[0] = telldir(dir); (de = readdir(dir)); cookies[n] = telldir(dir)) {
		snprintf(following[n], sizeof(following[n]), "%.31s", de->d_name);
		n++;
	}
	EQ(MANY + 2, n);
	/* A third goes, as many others come; the rest is found where it was. */
	for (unsigned int i = 0; i < n; i++) {
		unsigned int number;

		if (sscanf(following[i], "entry-%u", &number) == 1 && number % 3 == 0)
			OK(unlink(following[i]));
	}
	make_many(MANY, MANY + MANY / 3);
	rewinddir(dir);
	for (unsigned int i = n; i-- > 0;) {
		unsigned int number = 1, seen;
		bool dots = following[i][0] == '.';

		if (!dots)
			EQ(1, sscanf(following[i], "entry-%u", &number));
		if (number % 3 == 0)
			continue;
		seekdir(dir, cookies[i]);
		/* What was after the cookie comes first, but for new entries in between. */
		do {
			de = readdir(dir);
			if (!de)
				posix_fail(__FILE__, __LINE__,
					   "cookie %u of %u: expected \"%s\" after it, got the end",
					   i, n, following[i]);
		} while (sscanf(de->d_name, "entry-%u", &seen) == 1 && seen >= MANY);
		if (strcmp(de->d_name, following[i]) != 0)
			posix_fail(__FILE__, __LINE__,
				   "cookie %u of %u: expected \"%s\", got \"%s\"", i, n,
				   following[i], de->d_name);
	}
	closedir(dir);
}

static void deleting_while_reading_misses_nothing(void)
{
	unsigned int n = 0;
	struct dirent *de;
	DIR *dir;

	make_many(0, MANY);
	dir = opendir(".");
	CHECK(dir);
	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		OK(unlink(de->d_name));
		n++;
	}
	EQ(MANY, n);
	closedir(dir);
	OK(chdir(".."));
	OK(rmdir("deleting_while_reading_misses_nothing"));
}

const struct posix_check names_checks[] = {
	{"names_of_255_bytes_work_and_256_are_too_long",
	 names_of_255_bytes_work_and_256_are_too_long, 0},
	{"names_may_have_any_byte_but_nul_and_slash", names_may_have_any_byte_but_nul_and_slash, 0},
	{"names_that_share_all_but_one_bit_are_different",
	 names_that_share_all_but_one_bit_are_different, 0},
	{"open_says_what_is_in_the_way", open_says_what_is_in_the_way, 0},
	{"symlinks_hold_up_to_4095_bytes", symlinks_hold_up_to_4095_bytes, 0},
	{"fifos_and_sockets_connect_processes", fifos_and_sockets_connect_processes, 0},
	{"device_nodes_keep_their_numbers", device_nodes_keep_their_numbers, POSIX_ROOT},
	{"hard_links_are_one_file", hard_links_are_one_file, 0},
	{"directories_count_their_subdirectories", directories_count_their_subdirectories, 0},
	{"rename_replaces_files_and_empty_directories", rename_replaces_files_and_empty_directories,
	 0},
	{"rename_noreplace_keeps_what_is_there", rename_noreplace_keeps_what_is_there, 0},
	{"rename_exchange_swaps_even_a_file_and_a_directory",
	 rename_exchange_swaps_even_a_file_and_a_directory, 0},
	{"a_file_without_a_name_works_until_it_is_closed",
	 a_file_without_a_name_works_until_it_is_closed, 0},
	{"a_replaced_file_stays_what_it_was_for_who_has_it_open",
	 a_replaced_file_stays_what_it_was_for_who_has_it_open, 0},
	{"nothing_can_be_made_in_a_removed_directory", nothing_can_be_made_in_a_removed_directory,
	 0},
	{"tmpfile_gets_a_name_from_linkat", tmpfile_gets_a_name_from_linkat, 0},
	{"a_directory_shows_each_entry_once", a_directory_shows_each_entry_once, 0},
	{"telldir_cookies_stay_valid_while_entries_come_and_go",
	 telldir_cookies_stay_valid_while_entries_come_and_go, 0},
	{"deleting_while_reading_misses_nothing", deleting_while_reading_misses_nothing, 0},
	{NULL, NULL, 0},
};
