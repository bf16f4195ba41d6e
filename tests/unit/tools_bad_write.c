/* SPDX-License-Identifier: MIT */
/*
 * A filesystem that writes wrong bytes, made of one that does not: loaded before the C library, its
 * pwritev changes what BAD_WRITE says in the BAD_WRITE_AT-th call.
 *
 *	flip	one bit of what was written
 *	before	the byte before what was written
 *	short	one byte is not written, but counted
 *	error	EIO
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* The program is built for files beyond 2 GiB, so either name may be the one it calls. */
ssize_t bad_pwritev(const char *name, int fd, const struct iovec *iov, int n, off_t pos);

ssize_t bad_pwritev(const char *name, int fd, const struct iovec *iov, int n, off_t pos)
{
	static int calls;
	ssize_t (*real)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, name);
	const char *what = getenv("BAD_WRITE"), *at = getenv("BAD_WRITE_AT");
	ssize_t done;
	char byte;

	if (!what || ++calls != atoi(at ? at : "1"))
		return real(fd, iov, n, pos);
	if (!strcmp(what, "error")) {
		errno = EIO;
		return -1;
	}
	if (!strcmp(what, "short")) {
		char old = 0;
		off_t hole = pos + 8;

		if (pread(fd, &old, 1, hole) != 1)
			abort();
		done = real(fd, iov, n, pos);
		return pwrite(fd, &old, 1, hole) == 1 ? done : -1;
	}
	done = real(fd, iov, n, pos);
	if (!strcmp(what, "before"))
		return pwrite(fd, "!", 1, pos - 1) == 1 ? done : -1;
	if (pread(fd, &byte, 1, pos + done / 2) != 1)
		abort();
	byte ^= 0x40;
	return pwrite(fd, &byte, 1, pos + done / 2) == 1 ? done : -1;
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t pos)
{
	return bad_pwritev("pwritev", fd, iov, n, pos);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t pos)
{
	return bad_pwritev("pwritev64", fd, iov, n, pos);
}
