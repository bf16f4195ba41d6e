/* SPDX-License-Identifier: MIT */
/* Attributes: times, birth times, flags of FS_IOC_SETFLAGS. */
#include "posix.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* So that the next change of a time shows. */
static void tick(void)
{
	const struct timespec nap = {.tv_nsec = 20 * 1000 * 1000};

	nanosleep(&nap, NULL);
}

static void set_times(const char *name, time_t atime, time_t mtime)
{
	const struct timespec times[2] = {{.tv_sec = atime, .tv_nsec = 111},
					  {.tv_sec = mtime, .tv_nsec = 222}};

	OK(utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW));
}

static void times_keep_every_nanosecond(void)
{
	static const struct timespec times[][2] = {
		{{1, 1}, {2, 999999999}},
		{{1600000000, 123456789}, {4102444800, 987654321}}, /* 2100 */
		{{-1, 5}, {-2208988800, 7}},                        /* 1969, 1900 */
		{{16725225600, 0}, {0, 0}},                         /* 2500 */
	};
	struct timespec omit[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 77, .tv_nsec = 7}};
	struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
	struct stat st;

	posix_put("f", "x", 1);
	OK(symlink("f", "l"));
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		OK(utimensat(AT_FDCWD, "f", times[i], 0));
		st = posix_stat("f");
		CHECK(same_time(times[i][0], st.st_atim));
		CHECK(same_time(times[i][1], st.st_mtim));
	}
	OK(utimensat(AT_FDCWD, "f", omit, 0));
	CHECK(same_time(times[3][0], posix_stat("f").st_atim));
	EQ(77, posix_stat("f").st_mtim.tv_sec);
	OK(utimensat(AT_FDCWD, "f", now, 0));
	CHECK(llabs((long long)posix_stat("f").st_atim.tv_sec - (long long)time(NULL)) < 10);
	OK(utimensat(AT_FDCWD, "l", times[0], AT_SYMLINK_NOFOLLOW));
	EQ(1, posix_stat("l").st_atim.tv_sec);
	EQ(77, posix_stat("f").st_mtim.tv_sec);
}

static void changes_move_the_times_that_they_should(void)
{
	struct stat before, after;
	int fd = posix_create("f");

	OK(mkdir("d", 0755));
	/* A write moves mtime and ctime. */
	set_times("f", 1000, 1000);
	tick();
	before = posix_stat("f");
	posix_write_at(fd, "x", 1, 0);
	OK(fsync(fd));
	after = posix_stat("f");
	CHECK(later(after.st_mtim, before.st_mtim) && later(after.st_ctim, before.st_ctim));
	/* chmod, link and setting times move ctime alone. */
	set_times("f", 1000, 1000);
	tick();
	before = posix_stat("f");
	OK(chmod("f", 0600));
	after = posix_stat("f");
	CHECK(same_time(after.st_mtim, before.st_mtim) && later(after.st_ctim, before.st_ctim));
	tick();
	OK(link("f", "d/l"));
	CHECK(later(posix_stat("f").st_ctim, after.st_ctim));
	EQ(1000, posix_stat("f").st_mtim.tv_sec);
	/* A truncate moves mtime, also to the same size with ftruncate. */
	tick();
	OK(ftruncate(fd, 10));
	CHECK(posix_stat("f").st_mtim.tv_sec > 1000);
	/* An entry made, renamed or removed moves the directory's. */
	set_times("d", 1000, 1000);
	OK(unlink("d/l"));
	CHECK(posix_stat("d").st_mtim.tv_sec > 1000);
	set_times("d", 1000, 1000);
	OK(mkdir("d/x", 0755));
	CHECK(posix_stat("d").st_mtim.tv_sec > 1000);
	set_times("d", 1000, 1000);
	set_times(".", 1000, 1000);
	OK(rename("d/x", "y"));
	CHECK(posix_stat("d").st_mtim.tv_sec > 1000);
	CHECK(posix_stat(".").st_mtim.tv_sec > 1000);
}

static void mtime_set_by_hand_survives_writeback(void)
{
	uint8_t buf[100000];
	int fd = posix_create("f");

	posix_fill(buf, sizeof(buf), 1);
	posix_write_at(fd, buf, sizeof(buf), 0);
	set_times("f", 3000, 4000); /* as cp -p and tar do, with the data still in memory */
	OK(close(fd));
	EQ(4000, posix_stat("f").st_mtim.tv_sec);
	fd = (int)OK(open("f", O_RDONLY));
	posix_drop(fd);
	OK(close(fd));
	EQ(4000, posix_stat("f").st_mtim.tv_sec);
	EQ(222, posix_stat("f").st_mtim.tv_nsec);
}

static void atime_moves_when_a_read_reaches_the_daemon(void)
{
	void *buf = NULL;
	int fd;

	EQ(0, posix_memalign(&buf, 4096, 4096));
	memset(buf, 'x', 4096);
	posix_put("f", buf, 4096);
	set_times("f", 1000, 2000); /* older than mtime, so that relatime moves it too */
	fd = (int)OK(open("f", O_RDONLY | O_DIRECT));
	EQ(4096, OK(pread(fd, buf, 4096, 0)));
	CHECK(posix_stat("f").st_atim.tv_sec > 1000);
	EQ(2000, posix_stat("f").st_mtim.tv_sec);
}

static void o_noatime_keeps_atime(void)
{
	char seen[5];
	int fd;

	posix_put("f", "hello", 5);
	fd = (int)OK(open("f", O_RDONLY | O_NOATIME));
	posix_drop(fd);
	set_times("f", 1000, 2000);
	posix_read_at(fd, seen, 5, 0);
	EQ(1000, posix_stat("f").st_atim.tv_sec);
}

static void stores_through_a_mapping_move_mtime(void)
{
	char buf[4096] = {0};
	struct stat before;
	uint8_t *map;
	int fd;

	posix_put("f", buf, sizeof(buf));
	fd = (int)OK(open("f", O_RDWR));
	map = posix_map(fd, sizeof(buf));
	set_times("f", 1000, 1000);
	before = posix_stat("f");
	tick();
	map[0] = 1;
	OK(msync(map, sizeof(buf), MS_SYNC));
	CHECK(posix_stat("f").st_mtim.tv_sec > 1000);
	CHECK(later(posix_stat("f").st_ctim, before.st_ctim));
	/* What cp -p does after it: the times set last are those that stay. */
	map[0] = 2;
	OK(munmap(map, sizeof(buf)));
	set_times("f", 1000, 1000);
	OK(fsync(fd));
	OK(close(fd));
	EQ(1000, posix_stat("f").st_mtim.tv_sec);
}

static void birth_time_stays(void)
{
	struct statx a, b;

	posix_put("f", "x", 1);
	OK(statx(AT_FDCWD, "f", 0, STATX_ALL, &a));
	CHECK(a.stx_mask & STATX_BTIME);
	CHECK(llabs((long long)a.stx_btime.tv_sec - (long long)time(NULL)) < 60);
	tick();
	set_times("f", 1, 2);
	OK(chmod("f", 0600));
	OK(rename("f", "g"));
	OK(statx(AT_FDCWD, "g", 0, STATX_ALL, &b));
	EQ(a.stx_btime.tv_sec, b.stx_btime.tv_sec);
	EQ(a.stx_btime.tv_nsec, b.stx_btime.tv_nsec);
	EQ(2, b.stx_mtime.tv_sec);
	EQ(a.stx_ino, b.stx_ino);
}

/* One clock: the daemon's stamp of the creation, then the kernel's of the write. */
static void nothing_is_written_before_it_was_made(void)
{
	struct timespec born;
	struct statx st;

	for (int i = 0; i < 100; i++) {
		posix_put("f", "x", 1);
		OK(statx(AT_FDCWD, "f", 0, STATX_ALL, &st));
		born = (struct timespec){st.stx_btime.tv_sec, st.stx_btime.tv_nsec};
		CHECK(!later(born, posix_stat("f").st_mtim));
		OK(unlink("f"));
	}
}

/* ------------------------------------------------------------------ FS_IOC_SETFLAGS */

static int get_flags(const char *name)
{
	int fd = (int)OK(open(name, O_RDONLY | O_NONBLOCK)), flags = 0;

	OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	OK(close(fd));
	return flags;
}

static int set_flags(const char *name, int flags)
{
	int fd = (int)OK(open(name, O_RDONLY | O_NONBLOCK));
	int result = ioctl(fd, FS_IOC_SETFLAGS, &flags), error = errno;

	OK(close(fd));
	errno = error;
	return result;
}

static void flags_are_kept(void)
{
	posix_put("f", "x", 1);
	OK(mkdir("d", 0755));
	EQ(0, get_flags("f"));
	OK(set_flags("f", FS_NODUMP_FL | FS_NOATIME_FL));
	EQ(FS_NODUMP_FL | FS_NOATIME_FL, get_flags("f"));
	OK(set_flags("f", 0));
	EQ(0, get_flags("f"));
	OK(set_flags("d", FS_NODUMP_FL));
	EQ(FS_NODUMP_FL, get_flags("d"));
	FAILS(EOPNOTSUPP, set_flags("f", FS_COMPR_FL));
	EQ(0, get_flags("f"));
}

static void noatime_keeps_atime(void)
{
	void *buf = NULL;
	int fd;

	EQ(0, posix_memalign(&buf, 4096, 4096));
	memset(buf, 'x', 4096);
	posix_put("f", buf, 4096);
	OK(set_flags("f", FS_NOATIME_FL));
	set_times("f", 1000, 2000);
	fd = (int)OK(open("f", O_RDONLY | O_DIRECT));
	EQ(4096, OK(pread(fd, buf, 4096, 0)));
	EQ(1000, posix_stat("f").st_atim.tv_sec);
}

static void immutable_files_change_for_nobody(void)
{
	int fd;

	posix_put("f", "x", 1);
	fd = (int)OK(open("f", O_RDWR));
	OK(mkdir("d", 0755));
	posix_put("d/in", "x", 1);
	OK(set_flags("f", FS_IMMUTABLE_FL));
	OK(set_flags("d", FS_IMMUTABLE_FL));
	EQ(FS_IMMUTABLE_FL, get_flags("f"));
	FAILS(EPERM, open("f", O_WRONLY));
	FAILS(EPERM, truncate("f", 0));
	FAILS(EPERM, unlink("f"));
	FAILS(EPERM, rename("f", "g"));
	FAILS(EPERM, link("f", "g"));
	FAILS(EPERM, chmod("f", 0600));
	FAILS(EPERM, chown("f", 1, 1));
	FAILS(EPERM, utimensat(AT_FDCWD, "f", NULL, 0));
	FAILS(EPERM, ftruncate(fd, 100));
	FAILS(EPERM, open("d/new", O_CREAT | O_WRONLY, 0600));
	FAILS(EPERM, mkdir("d/new", 0700));
	FAILS(EPERM, unlink("d/in"));
	FAILS(EPERM, rename("d/in", "in"));
	FAILS(EPERM, rmdir("d"));
	EQ(1, posix_stat("f").st_size);
	OK(set_flags("f", 0));
	OK(set_flags("d", 0));
	OK(unlink("d/in"));
	OK(unlink("f"));
}

static void append_only_files_only_grow(void)
{
	struct timespec mtime_now[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
	struct timespec mtime_given[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
	int fd;

	posix_put("f", "one", 3);
	OK(mkdir("d", 0755));
	OK(set_flags("f", FS_APPEND_FL));
	OK(set_flags("d", FS_APPEND_FL));
	FAILS(EPERM, open("f", O_WRONLY));
	FAILS(EPERM, open("f", O_WRONLY | O_APPEND | O_TRUNC));
	FAILS(EPERM, truncate("f", 1));
	FAILS(EPERM, unlink("f"));
	FAILS(EPERM, rename("f", "g"));
	fd = (int)OK(open("f", O_WRONLY | O_APPEND));
	EQ(3, OK(write(fd, "two", 3)));
	OK(fsync(fd));
	OK(close(fd));
	EQ(6, posix_stat("f").st_size);
	OK(utimensat(AT_FDCWD, "f", NULL, 0)); /* both, now, and nothing else */
	FAILS(EPERM, utimensat(AT_FDCWD, "f", mtime_now, 0));
	FAILS(EPERM, utimensat(AT_FDCWD, "f", mtime_given, 0));
	posix_put("d/new", "x", 1); /* entries may come, not go */
	FAILS(EPERM, unlink("d/new"));
	OK(set_flags("d", 0));
	OK(set_flags("f", 0));
	OK(unlink("f"));
}

/* The kernel's write-back cache knows nothing of the flags, and its times have to go somewhere. */
static void what_the_kernel_has_accepted_is_synced(void)
{
	static const int flags[] = {FS_APPEND_FL, FS_IMMUTABLE_FL};
	char seen[3];
	int fd;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		posix_put("f", "old", 3);
		fd = (int)OK(open("f", O_RDWR));
		tick();
		posix_write_at(fd, "new", 3, 0);
		OK(set_flags("f", flags[i]));
		tick();
		if (posix_writeback)
			posix_write_at(fd, "new", 3, 0);
		OK(fsync(fd));
		posix_drop(fd);
		posix_read_at(fd, seen, 3, 0);
		SAME("new", seen, 3);
		OK(close(fd));
		FAILS(EPERM, utimensat(AT_FDCWD, "f", (struct timespec[2]){{1, 0}, {1, 0}}, 0));
		OK(set_flags("f", 0));
		OK(unlink("f"));
	}
}

static void an_ordinary_user_cannot_make_files_immutable(void *arg)
{
	(void)arg;
	posix_put("mine", "x", 1);
	FAILS(EPERM, set_flags("mine", FS_IMMUTABLE_FL));
	FAILS(EPERM, set_flags("mine", FS_APPEND_FL));
	OK(set_flags("mine", FS_NODUMP_FL));
	EQ(FS_NODUMP_FL, get_flags("mine"));
}

static void immutable_is_for_root_alone(void)
{
	OK(chmod(".", 0777));
	posix_as(POSIX_UID, POSIX_GID, an_ordinary_user_cannot_make_files_immutable, NULL);
}

static void immutable_is_not_for_the_user_who_mounted(void)
{
	if (geteuid() != 0)
		an_ordinary_user_cannot_make_files_immutable(NULL);
	else
		immutable_files_change_for_nobody();
}

const struct posix_check attr_checks[] = {
	{"times_keep_every_nanosecond", times_keep_every_nanosecond, 0},
	{"changes_move_the_times_that_they_should", changes_move_the_times_that_they_should, 0},
	{"mtime_set_by_hand_survives_writeback", mtime_set_by_hand_survives_writeback, 0},
	{"atime_moves_when_a_read_reaches_the_daemon", atime_moves_when_a_read_reaches_the_daemon,
	 0},
	{"o_noatime_keeps_atime", o_noatime_keeps_atime, 0},
	{"stores_through_a_mapping_move_mtime", stores_through_a_mapping_move_mtime, 0},
	{"birth_time_stays", birth_time_stays, 0},
	{"nothing_is_written_before_it_was_made", nothing_is_written_before_it_was_made, 0},
	{"flags_are_kept", flags_are_kept, 0},
	{"noatime_keeps_atime", noatime_keeps_atime, 0},
	{"immutable_files_change_for_nobody", immutable_files_change_for_nobody, POSIX_ROOT},
	{"append_only_files_only_grow", append_only_files_only_grow, POSIX_ROOT},
	{"what_the_kernel_has_accepted_is_synced", what_the_kernel_has_accepted_is_synced,
	 POSIX_ROOT},
	{"immutable_is_for_root_alone", immutable_is_for_root_alone, POSIX_OTHER},
	{"immutable_is_not_for_the_user_who_mounted", immutable_is_not_for_the_user_who_mounted, 0},
	{NULL, NULL, 0},
};
