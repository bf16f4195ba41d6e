/* SPDX-License-Identifier: MIT */
/*
 * A small harness for checks on a mounted directory: what a shell cannot do.
 *
 * Each check is a function that runs in a process of its own, in an empty directory of its own that
 * is its working directory, so that one that fails, dies or hangs leaves the others alone. A failed
 * CHECK prints what was expected and what was seen and ends that process.
 */
#ifndef TESTS_MOUNT_POSIX_H
#define TESTS_MOUNT_POSIX_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define POSIX_ROOT  1u /* only as root */
#define POSIX_OTHER 2u /* needs a second user: root, on a mount with allow_other */

struct posix_check {
	const char *name; /* a sentence with underscores */
	void (*run)(void);
	unsigned int needs;
};

/* One table per file, ended by an entry without a name. */
extern const struct posix_check names_checks[], data_checks[], space_checks[], attr_checks[],
	xattr_checks[], owner_checks[], mmap_checks[];

extern bool posix_writeback; /* the mount has the kernel's write-back cache */

_Noreturn void posix_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A call that must succeed; its value. */
#define OK(call) posix_ok(__FILE__, __LINE__, #call, (long long)(call))
long long posix_ok(const char *file, int line, const char *what, long long result);

/* A call that must fail with this errno. */
#define FAILS(err, call) posix_fails(__FILE__, __LINE__, #call, (err), (long long)(call))
void posix_fails(const char *file, int line, const char *what, int err, long long result);

#define EQ(expected, seen)                                                                       \
	do {                                                                                     \
		long long e_ = (long long)(expected), s_ = (long long)(seen);                    \
		if (e_ != s_)                                                                    \
			posix_fail(__FILE__, __LINE__, "%s: expected %lld, got %lld", #seen, e_, \
				   s_);                                                          \
	} while (0)

#define CHECK(cond)                                                           \
	do {                                                                  \
		if (!(cond))                                                  \
			posix_fail(__FILE__, __LINE__, "expected %s", #cond); \
	} while (0)

#define SAME(expected, seen, len) posix_same(__FILE__, __LINE__, #seen, (expected), (seen), (len))
void posix_same(const char *file, int line, const char *what, const void *expected,
		const void *seen, size_t len);

/* ------------------------------------------------------------------ small helpers */

/* len bytes that follow from seed. */
void posix_fill(void *buf, size_t len, uint64_t seed);
int posix_create(const char *name);                            /* O_RDWR, new */
void posix_put(const char *name, const void *buf, size_t len); /* a new file with this */
void posix_write_at(int fd, const void *buf, size_t len, off_t pos);
void posix_read_at(int fd, void *buf, size_t len, off_t pos);
struct stat posix_stat(const char *name);
void *posix_map(int fd, size_t len);
/* So that the next read comes from the daemon, not from the kernel's cache. */
void posix_drop(int fd);
/* What lies in [pos, pos + len) must be zeros. */
void posix_zeros(int fd, off_t pos, off_t len);
/* Runs fn(arg) in a child as this user and group; the check fails if the child does. */
void posix_as(uid_t uid, gid_t gid, void (*fn)(void *arg), void *arg);

#define POSIX_UID 4711 /* the second user: needs no name */
#define POSIX_GID 4712

#endif
