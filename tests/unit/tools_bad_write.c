/* SPDX-License-Identifier: MIT */
/*
 * A filesystem that writes wrong bytes, made of one that does not: loaded before the C library, it
 * changes what BAD_WRITE says in the BAD_WRITE_AT-th call that writes to a file, or in all of them if
 * that is 0.
 *
 *	flip	one bit of what was written
 *	foreign	a byte inside of what was written is somebody else's
 *	first	the same for the first byte that was written
 *	before	the byte before what was written
 *	short	one byte is not written, but counted
 *	tail	the last byte is not written, but counted
 *	error	EIO
 *	hang	never returns
 *
 * And a kernel without userfaultfd (oldkernel), or one that refuses it (nouffd).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct bad_call {
	const char *what; /* NULL: all is well */
	int fd;
	off_t pos, size; /* where it writes, and the file's size before */
	size_t len;
	char hole, last; /* what was at pos + 8 and at the last byte */
};

/* 0, or -1 with errno: the call fails at once. */
static int bad_begin(struct bad_call *call, int fd, off_t pos, size_t len)
{
	static _Atomic int calls;
	const char *what = getenv("BAD_WRITE"), *at = getenv("BAD_WRITE_AT");
	int call_no = atomic_fetch_add(&calls, 1) + 1, which = atoi(at ? at : "1");
	struct stat st;

	*call = (struct bad_call){.fd = fd, .pos = pos, .len = len};
	if (!what || (which && call_no != which))
		return 0;
	call->what = what;
	if (!strcmp(what, "error")) {
		errno = EIO;
		return -1;
	}
	while (!strcmp(what, "hang"))
		pause();
	if (fstat(fd, &st) != 0)
		abort();
	call->size = st.st_size;
	if (pread(fd, &call->hole, 1, pos + 8) < 0 ||
	    pread(fd, &call->last, 1, pos + (off_t)len - 1) < 0)
		abort();
	return 0;
}

static void bad_put(struct bad_call *call, off_t pos, char byte)
{
	if (pwrite(call->fd, &byte, 1, pos) != 1)
		abort();
}

/* Returns done. */
static ssize_t bad_end(struct bad_call *call, ssize_t done)
{
	off_t middle = call->pos + done / 2, last = call->pos + (off_t)call->len - 1;
	char byte;

	if (!call->what || done <= 0)
		return done;
	if (!strcmp(call->what, "flip")) {
		if (pread(call->fd, &byte, 1, middle) != 1)
			abort();
		bad_put(call, middle, byte ^ 0x40);
	} else if (!strcmp(call->what, "foreign")) {
		bad_put(call, middle, (char)0xee);
	} else if (!strcmp(call->what, "first")) {
		bad_put(call, call->pos, (char)0xee);
	} else if (!strcmp(call->what, "before")) {
		bad_put(call, call->pos - 1, '!');
	} else if (!strcmp(call->what, "short")) {
		bad_put(call, call->pos + 8, call->hole);
	} else if (last < call->size) {
		bad_put(call, last, call->last);
	} else if (ftruncate(call->fd, last) != 0) {
		abort();
	}
	return done;
}

static size_t bad_len(const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

/* ------------------------------------------------------------------ the calls */

/* The program is built for files beyond 2 GiB, so either name may be the one it calls. */
ssize_t bad_pwritev(const char *name, int fd, const struct iovec *iov, int n, off_t pos);
ssize_t bad_pwritev2(const char *name, int fd, const struct iovec *iov, int n, off_t pos,
		     int flags);
ssize_t bad_sendfile(const char *name, int out, int in, off_t *pos, size_t len);

ssize_t bad_pwritev(const char *name, int fd, const struct iovec *iov, int n, off_t pos)
{
	ssize_t (*real)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, name);
	struct bad_call call;

	if (bad_begin(&call, fd, pos, bad_len(iov, n)))
		return -1;
	return bad_end(&call, real(fd, iov, n, pos));
}

ssize_t bad_pwritev2(const char *name, int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	ssize_t (*real)(int, const struct iovec *, int, off_t, int) = dlsym(RTLD_NEXT, name);
	struct bad_call call;

	if (bad_begin(&call, fd, pos, bad_len(iov, n)))
		return -1;
	return bad_end(&call, real(fd, iov, n, pos, flags));
}

ssize_t bad_sendfile(const char *name, int out, int in, off_t *pos, size_t len)
{
	ssize_t (*real)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, name);
	struct bad_call call;

	if (bad_begin(&call, out, lseek(out, 0, SEEK_CUR), len))
		return -1;
	return bad_end(&call, real(out, in, pos, len));
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t pos)
{
	return bad_pwritev("pwritev", fd, iov, n, pos);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t pos)
{
	return bad_pwritev("pwritev64", fd, iov, n, pos);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	return bad_pwritev2("pwritev2", fd, iov, n, pos, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t pos, int flags)
{
	return bad_pwritev2("pwritev64v2", fd, iov, n, pos, flags);
}

ssize_t sendfile(int out, int in, off_t *pos, size_t len)
{
	return bad_sendfile("sendfile", out, in, pos, len);
}

ssize_t sendfile64(int out, int in, off_t *pos, size_t len)
{
	return bad_sendfile("sendfile64", out, in, pos, len);
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
	struct bad_call call;
	off_t pos = lseek(fd, 0, SEEK_CUR);

	if (pos < 0) /* a pipe, say */
		return real(fd, iov, n);
	if (bad_begin(&call, fd, pos, bad_len(iov, n)))
		return -1;
	return bad_end(&call, real(fd, iov, n));
}

ssize_t splice(int in, off_t *in_pos, int out, off_t *out_pos, size_t len, unsigned int flags)
{
	ssize_t (*real)(int, off_t *, int, off_t *, size_t, unsigned int) =
		dlsym(RTLD_NEXT, "splice");
	struct bad_call call;

	if (!out_pos) /* into the pipe */
		return real(in, in_pos, out, out_pos, len, flags);
	if (bad_begin(&call, out, *out_pos, len))
		return -1;
	return bad_end(&call, real(in, in_pos, out, out_pos, len, flags));
}

/* Only what has no function of its own in the C library comes this way. */
long syscall(long number, ...)
{
	static long (*next)(long number, ...);
	const char *what = getenv("BAD_WRITE");
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_userfaultfd && what && !strcmp(what, "nouffd")) {
		errno = EPERM;
		return -1;
	}
	if (number == SYS_userfaultfd && what && !strcmp(what, "oldkernel")) {
		errno = ENOSYS;
		return -1;
	}
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "syscall");
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
