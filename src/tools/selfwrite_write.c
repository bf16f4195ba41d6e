/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_write: the system calls that write a file into itself, and what their errors mean. A
 * short count is no error: the rest is written by further calls.
 */
#include "selfwrite_private.h"
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#define IOVECS 6 /* three for each part */

static const char *const way_names[] = {
	[SELFWRITE_PWRITEV] = "pwritev",   [SELFWRITE_WRITEV] = "writev",
	[SELFWRITE_PWRITEV2] = "pwritev2", [SELFWRITE_SENDFILE] = "sendfile",
	[SELFWRITE_SPLICE] = "splice",
};

const char *selfwrite_way_name(enum selfwrite_way way)
{
	return way_names[way];
}

/* ------------------------------------------------------------------ what is copied */

size_t selfwrite_copy_len(const struct selfwrite_copy *copy)
{
	size_t len = 0;

	for (size_t i = 0; i < copy->nparts; i++)
		len += copy->parts[i].len;
	return len;
}

size_t selfwrite_copy_source_end(const struct selfwrite_copy *copy)
{
	size_t end = 0;

	for (size_t i = 0; i < copy->nparts; i++)
		end = slu_max(end, copy->parts[i].src + copy->parts[i].len);
	return end;
}

size_t selfwrite_copy_source_of(const struct selfwrite_copy *copy, size_t pos)
{
	size_t at = copy->dst;

	for (size_t i = 0; i < copy->nparts; i++) {
		if (pos >= at && pos < at + copy->parts[i].len)
			return copy->parts[i].src + (pos - at);
		at += copy->parts[i].len;
	}
	return SIZE_MAX;
}

/* ------------------------------------------------------------------ descriptors */

int selfwrite_io_open(struct selfwrite *sw, struct selfwrite_io *io, bool direct)
{
	*io = (struct selfwrite_io){.in = -1,
				    .out = -1,
				    .pipe = {-1, -1},
				    .direct = direct,
				    .shared = sw->shared,
				    .reason = sw->reason};
	io->out = open(sw->path, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
	if (io->out < 0 && direct && (errno == EINVAL || errno == EOPNOTSUPP))
		return selfwrite_refused(sw->reason, "open with O_DIRECT: %s", strerror(errno));
	if (io->out < 0)
		return selfwrite_failed(sw->reason, "open: %s", strerror(errno));
	io->in = open(sw->path, O_RDONLY | O_CLOEXEC);
	if (io->in < 0 || pipe2(io->pipe, O_CLOEXEC) != 0) {
		selfwrite_failed(sw->reason, "open: %s", strerror(errno));
		selfwrite_io_close(io);
		return SELFWRITE_FAILED;
	}
	/* Many pages under way at once, if an ordinary user may. */
	fcntl(io->pipe[1], F_SETPIPE_SZ, 1 << 20);
	return 0;
}

static void io_close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void selfwrite_io_close(struct selfwrite_io *io)
{
	io_close_one(&io->in);
	io_close_one(&io->out);
	io_close_one(&io->pipe[0]);
	io_close_one(&io->pipe[1]);
}

/* ------------------------------------------------------------------ errors */

/*
 * After a call that wrote nothing: whether that ends the write, and how. Who truncates takes the
 * source away, which is EFAULT from a mapping and the end of file from a descriptor.
 */
static int io_stopped(struct selfwrite_io *io, enum selfwrite_way way, ssize_t n, size_t pos,
		      size_t left)
{
	int err = n < 0 ? errno : 0;
	bool optional = io->direct || way >= SELFWRITE_PWRITEV2;

	if (io->truncated && (n == 0 || err == EFAULT))
		return SELFWRITE_PASSED;
	/* What truncation left of the source is odd, and this filesystem wants O_DIRECT aligned. */
	if (io->truncated && io->direct && err == EINVAL && io->wrote)
		return SELFWRITE_PASSED;
	if (optional && (err == EINVAL || err == EOPNOTSUPP || err == ENOSYS))
		return selfwrite_refused(io->reason, "%s%s of %zu bytes at %zu: %s", way_names[way],
					 io->direct ? " with O_DIRECT" : "", left, pos,
					 strerror(err));
	return selfwrite_failed(io->reason, "%s of %zu bytes at %zu: %s", way_names[way], left, pos,
				err ? strerror(err) : "wrote nothing");
}

/* ------------------------------------------------------------------ from a mapping */

/*
 * The parts as an iovec. A long one is cut in three: within a page, so that the second fault comes
 * inside of a page that is being filled; for O_DIRECT, which many filesystems want aligned, between
 * pages.
 */
static int io_iovec(const struct selfwrite_io *io, const struct selfwrite_copy *copy,
		    struct iovec *iov)
{
	size_t cut = io->direct ? PAGE : PAGE - 1;
	int n = 0;

	for (size_t i = 0; i < copy->nparts; i++) {
		char *from = (char *)io->map + copy->parts[i].src;
		size_t len = copy->parts[i].len;

		for (int piece = 0; piece < 2 && len > 2 * PAGE; piece++) {
			iov[n++] = (struct iovec){from, cut};
			from += cut;
			len -= cut;
		}
		iov[n++] = (struct iovec){from, len};
	}
	return n;
}

static ssize_t io_call(struct selfwrite_io *io, enum selfwrite_way way, const struct iovec *iov,
		       int n, off_t pos)
{
	if (way == SELFWRITE_PWRITEV)
		return pwritev(io->out, iov, n, pos);
	if (way == SELFWRITE_PWRITEV2)
		return pwritev2(io->out, iov, n, pos, io->dsync ? RWF_DSYNC : 0);
	if (lseek(io->out, pos, SEEK_SET) != pos)
		return -1;
	return writev(io->out, iov, n);
}

static int io_from_map(struct selfwrite_io *io, enum selfwrite_way way,
		       const struct selfwrite_copy *copy)
{
	size_t len = selfwrite_copy_len(copy), done = 0;
	struct iovec iov[IOVECS];
	int n;

	if (!io->map)
		return selfwrite_refused(io->reason, "no shared mapping of a file that is written");
	n = io_iovec(io, copy, iov);
	while (done < len) {
		ssize_t got = io_call(io, way, iov, n, (off_t)(copy->dst + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return io_stopped(io, way, got, copy->dst + done, len - done);
		io->wrote = true;
		done += (size_t)got;
		selfwrite_step(io->shared);
		for (int i = 0; i < n; i++) { /* goes on where it ended */
			size_t step = slu_min((size_t)got, iov[i].iov_len);

			iov[i].iov_base = (char *)iov[i].iov_base + step;
			iov[i].iov_len -= step;
			got -= (ssize_t)step;
		}
	}
	return SELFWRITE_PASSED;
}

/* ------------------------------------------------------------------ from a descriptor */

static ssize_t io_sendfile(struct selfwrite_io *io, off_t from, off_t to, size_t len)
{
	if (lseek(io->out, to, SEEK_SET) != to)
		return -1;
	return sendfile(io->out, io->in, &from, len);
}

/* Into the pipe, and all of that out again. The pages that lie in the pipe are the file's own. */
static ssize_t io_splice(struct selfwrite_io *io, off_t from, off_t to, size_t len)
{
	ssize_t filled = splice(io->in, &from, io->pipe[1], NULL, len, SPLICE_F_MOVE);
	ssize_t left = filled, n;

	while (left > 0) {
		n = splice(io->pipe[0], NULL, io->out, &to, (size_t)left, SPLICE_F_MOVE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int err = errno;

			/* What is left in the pipe must not be taken for a later write. */
			io_close_one(&io->pipe[0]);
			io_close_one(&io->pipe[1]);
			if (pipe2(io->pipe, O_CLOEXEC) != 0)
				return -1;
			errno = err;
			return n;
		}
		left -= n;
	}
	return filled;
}

static int io_from_file(struct selfwrite_io *io, enum selfwrite_way way,
			const struct selfwrite_copy *copy)
{
	size_t to = copy->dst;

	for (size_t i = 0; i < copy->nparts; i++) {
		size_t from = copy->parts[i].src, left = copy->parts[i].len;

		while (left) {
			ssize_t n = (way == SELFWRITE_SPLICE
					     ? io_splice
					     : io_sendfile)(io, (off_t)from, (off_t)to, left);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return io_stopped(io, way, n, to, left);
			io->wrote = true;
			from += (size_t)n;
			to += (size_t)n;
			left -= (size_t)n;
			selfwrite_step(io->shared);
		}
	}
	return SELFWRITE_PASSED;
}

int selfwrite_write(struct selfwrite_io *io, enum selfwrite_way way,
		    const struct selfwrite_copy *copy)
{
	atomic_store(&io->shared->where, copy->dst);
	if (way == SELFWRITE_SENDFILE || way == SELFWRITE_SPLICE)
		return io_from_file(io, way, copy);
	return io_from_map(io, way, copy);
}
