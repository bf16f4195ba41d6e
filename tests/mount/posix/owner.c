/* SPDX-License-Identifier: MIT */
/*
 * Owners and permissions: who may do what, setgid and sticky directories, setuid cleared by writes.
 */
#include "posix.h"
#include <linux/falloc.h>

static void new_files_belong_to_the_caller(void)
{
	struct stat st;

	posix_put("f", "x", 1);
	OK(mkdir("d", 0777));
	OK(symlink("x", "l"));
	st = posix_stat("f");
	EQ(geteuid(), st.st_uid);
	EQ(getegid(), st.st_gid);
	EQ(geteuid(), posix_stat("d").st_uid);
	EQ(geteuid(), posix_stat("l").st_uid);
	EQ(0755, posix_stat("d").st_mode & 07777); /* umask 022 */
	OK(mkdir("t", 01777));
	EQ(01755, posix_stat("t").st_mode & 07777);
}

static void other_makes_a_file(void *arg)
{
	posix_put(arg, "x", 1);
	EQ(POSIX_UID, posix_stat(arg).st_uid);
	EQ(POSIX_GID, posix_stat(arg).st_gid);
}

static void another_users_files_are_his(void)
{
	OK(chmod(".", 0777));
	posix_as(POSIX_UID, POSIX_GID, other_makes_a_file, (void *)"his");
}

static void setgid_directories_hand_their_group_down(void)
{
	gid_t group = geteuid() == 0 ? 1234 : getegid();

	OK(mkdir("d", 0755));
	OK(chown("d", (uid_t)-1, group));
	OK(chmod("d", 02775));
	posix_put("d/f", "x", 1);
	OK(mkdir("d/sub", 0755));
	EQ(group, posix_stat("d/f").st_gid);
	EQ(0, posix_stat("d/f").st_mode & S_ISGID);
	EQ(group, posix_stat("d/sub").st_gid);
	EQ(S_ISGID, posix_stat("d/sub").st_mode & S_ISGID);
	OK(symlink("x", "d/l"));
	EQ(group, posix_stat("d/l").st_gid);
}

/* ------------------------------------------------------------------ what is refused */

static void other_is_refused(void *arg)
{
	(void)arg;
	FAILS(EACCES, open("secret", O_RDONLY));
	FAILS(EACCES, open("readable", O_WRONLY));
	OK(close((int)OK(open("readable", O_RDONLY))));
	FAILS(EPERM, chmod("readable", 0777));
	FAILS(EPERM, chown("readable", POSIX_UID, (gid_t)-1));
	FAILS(EACCES, unlink("readable"));
	FAILS(EACCES, mkdir("new", 0700));
	FAILS(EACCES, open("closed/in", O_RDONLY));
	FAILS(EACCES, truncate("readable", 0));
	FAILS(EPERM, utimensat(AT_FDCWD, "readable",
			       (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0));
}

static void modes_keep_others_out(void)
{
	OK(chmod(".", 0755));
	posix_put("secret", "x", 1);
	OK(chmod("secret", 0600));
	posix_put("readable", "x", 1);
	OK(mkdir("closed", 0700));
	posix_put("closed/in", "x", 1);
	posix_as(POSIX_UID, POSIX_GID, other_is_refused, NULL);
}

static void other_in_sticky(void *arg)
{
	(void)arg;
	FAILS(EPERM, unlink("sticky/roots"));
	FAILS(EPERM, rename("sticky/roots", "sticky/x"));
	posix_put("sticky/his", "x", 1);
	OK(rename("sticky/his", "sticky/his2"));
	OK(unlink("sticky/his2"));
}

static void sticky_directories_protect_files_of_others(void)
{
	OK(chmod(".", 0755));
	OK(mkdir("sticky", 0777));
	OK(chmod("sticky", 01777));
	posix_put("sticky/roots", "x", 1);
	posix_as(POSIX_UID, POSIX_GID, other_in_sticky, NULL);
}

/* ------------------------------------------------------------------ setuid and setgid */

#define PRIVILEGED 06775

static void expect_mode(const char *how, mode_t expected)
{
	mode_t seen = posix_stat("prog").st_mode & 07777;

	if (seen != expected)
		posix_fail(__FILE__, __LINE__, "after %s: expected mode 0%o, got 0%o", how,
			   expected, seen);
}

/* In the caller's own file, as an ordinary user. */
static void writes_clear(void *arg)
{
	uint8_t *map;
	void *buf = NULL;
	int fd, from;

	(void)arg;
	EQ(0, posix_memalign(&buf, 4096, 4096));
	memset(buf, 'x', 4096);
	posix_put("prog", buf, 4096);
	from = posix_create("from");
	posix_write_at(from, buf, 4096, 0);

	OK(chmod("prog", PRIVILEGED));
	expect_mode("chmod", PRIVILEGED);
	fd = (int)OK(open("prog", O_RDWR));
	expect_mode("open", PRIVILEGED);
	posix_write_at(fd, "y", 1, 0);
	expect_mode("write", 0775);

	OK(chmod("prog", PRIVILEGED));
	OK(ftruncate(fd, 8192));
	expect_mode("ftruncate", 0775);

	OK(chmod("prog", PRIVILEGED));
	OK(truncate("prog", 4096));
	expect_mode("truncate", 0775);

	OK(chmod("prog", PRIVILEGED));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100));
	expect_mode("punching a hole", 0775);

	OK(chmod("prog", PRIVILEGED));
	EQ(100, OK(copy_file_range(from, &(off_t){0}, fd, &(off_t){0}, 100, 0)));
	expect_mode("copy_file_range", 0775);
	OK(close(fd));

	OK(chmod("prog", PRIVILEGED));
	fd = (int)OK(open("prog", O_RDWR | O_DIRECT));
	EQ(4096, OK(pwrite(fd, buf, 4096, 0)));
	expect_mode("a write with O_DIRECT", 0775);
	OK(close(fd));

	OK(chmod("prog", PRIVILEGED));
	OK(close((int)OK(open("prog", O_WRONLY | O_TRUNC))));
	expect_mode("open with O_TRUNC", 0775);

	/*
	 * Reading, looking and renaming leave them alone; so does a store through a mapping, as in
	 * the kernel's own filesystems.
	 */
	OK(truncate("prog", 4096));
	OK(chmod("prog", PRIVILEGED));
	fd = (int)OK(open("prog", O_RDWR));
	posix_read_at(fd, buf, 10, 0);
	map = posix_map(fd, 4096);
	CHECK(map[0] == 0);
	OK(rename("prog", "other"));
	OK(rename("other", "prog"));
	expect_mode("reading and renaming", PRIVILEGED);

	/* setgid without execution by the group is mandatory locking, once: it stays. */
	OK(chmod("prog", 02644));
	expect_mode("chmod 2644", 02644);
}

static void writes_clear_setuid_and_setgid(void)
{
	if (geteuid() != 0) {
		writes_clear(NULL);
		return;
	}
	OK(chmod(".", 0777));
	posix_as(POSIX_UID, POSIX_GID, writes_clear, NULL);
}

/* With CAP_FSETID, as in the kernel's own filesystems. */
static void writes_of_root_keep_setuid(void)
{
	int fd = posix_create("prog"), from = posix_create("from");

	posix_write_at(from, "x", 1, 0);
	OK(ftruncate(from, 8192));
	OK(chmod("prog", PRIVILEGED));
	posix_write_at(fd, "y", 1, 0);
	OK(fsync(fd));
	expect_mode("write", PRIVILEGED);
	OK(ftruncate(fd, 100));
	OK(fallocate(fd, 0, 0, 4096));
	expect_mode("ftruncate and fallocate", PRIVILEGED);
	/* Onto data, and a hole behind the end. */
	EQ(4096, OK(copy_file_range(from, &(off_t){0}, fd, &(off_t){0}, 4096, 0)));
	EQ(4096, OK(copy_file_range(from, &(off_t){4096}, fd, &(off_t){65536}, 4096, 0)));
	expect_mode("copy_file_range", PRIVILEGED);
}

static void root_changes_owners_and_that_clears_setuid(void)
{
	posix_put("prog", "x", 1);
	OK(chmod("prog", PRIVILEGED));
	OK(chown("prog", 1234, 2345));
	EQ(1234, posix_stat("prog").st_uid);
	EQ(2345, posix_stat("prog").st_gid);
	expect_mode("chown by root", 0775);
	OK(chown("prog", (uid_t)-1, 7));
	EQ(1234, posix_stat("prog").st_uid);
	EQ(7, posix_stat("prog").st_gid);
	OK(symlink("prog", "l"));
	OK(lchown("l", 5, 6));
	EQ(5, posix_stat("l").st_uid);
	EQ(1234, posix_stat("prog").st_uid);
}

/* Not one's own group: setgid goes with chmod; one's own: it stays. */
static void other_sets_gid(void *arg)
{
	(void)arg;
	OK(chmod("foreign", 02755));
	EQ(0755, posix_stat("foreign").st_mode & 07777);
	posix_put("own", "x", 1);
	OK(chmod("own", 02755));
	EQ(02755, posix_stat("own").st_mode & 07777);
	FAILS(EPERM, chown("own", (uid_t)-1, 1));
	FAILS(EPERM, chown("own", 1, (gid_t)-1));
}

static void setgid_needs_membership(void)
{
	OK(chmod(".", 0777));
	posix_put("foreign", "x", 1);
	OK(chown("foreign", POSIX_UID, 1));
	posix_as(POSIX_UID, POSIX_GID, other_sets_gid, NULL);
}

const struct posix_check owner_checks[] = {
	{"new_files_belong_to_the_caller", new_files_belong_to_the_caller, 0},
	{"another_users_files_are_his", another_users_files_are_his, POSIX_OTHER},
	{"setgid_directories_hand_their_group_down", setgid_directories_hand_their_group_down, 0},
	{"modes_keep_others_out", modes_keep_others_out, POSIX_OTHER},
	{"sticky_directories_protect_files_of_others", sticky_directories_protect_files_of_others,
	 POSIX_OTHER},
	{"writes_clear_setuid_and_setgid", writes_clear_setuid_and_setgid, 0},
	{"writes_of_root_keep_setuid", writes_of_root_keep_setuid, POSIX_ROOT},
	{"root_changes_owners_and_that_clears_setuid", root_changes_owners_and_that_clears_setuid,
	 POSIX_ROOT},
	{"setgid_needs_membership", setgid_needs_membership, POSIX_OTHER},
	{NULL, NULL, 0},
};
