/* SPDX-License-Identifier: MIT */
/*
 * Sources: a buffer, and a pipe or socket.
 *
 * Called by the write path: copy_nofault under the inode's lock, so it never waits; fault_in with
 * no lock held. A source belongs to one request and is used by one thread at a time.
 */
#include "sluice/write.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ------------------------------------------------------------------ buffer */

static size_t buffer_copy(struct slu_source *src, void *dst, size_t len)
{
	struct slu_source_buffer *s = slu_container_of(src, struct slu_source_buffer, source);
	size_t done = 0;

	while (done < len && s->i < s->niov) {
		const struct iovec *v = &s->iov[s->i];
		size_t n = slu_min(v->iov_len - s->off, len - done);

		if (n)
			memcpy((char *)dst + done, (const char *)v->iov_base + s->off, n);
		done += n;
		s->off += n;
		if (s->off == v->iov_len) {
			s->off = 0;
			s->i++;
		}
	}
	return done;
}

/* Everything was ready: a short copy means that there is no more. */
static int buffer_fault_in(struct slu_source *src, size_t len)
{
	return -ENODATA;
}

void slu_source_buffer_init(struct slu_source_buffer *s, const struct iovec *iov, int niov)
{
	static const struct slu_source_ops ops = {.copy_nofault = buffer_copy,
						  .fault_in = buffer_fault_in};

	*s = (struct slu_source_buffer){.source.ops = &ops, .iov = iov, .niov = niov};
}

/* ------------------------------------------------------------------ pipe or socket */

static ssize_t fd_read(struct slu_source_fd *s, void *dst, size_t len)
{
	ssize_t n;

	do {
		if (s->is_socket) {
			n = recv(s->fd, dst, len, MSG_DONTWAIT);
		} else {
			struct iovec iov = {.iov_base = dst, .iov_len = len};

			n = preadv2(s->fd, &iov, 1, -1, RWF_NOWAIT);
			/*
			 * Kernels whose pipes do not know the flag: ask first, one reader, so it
			 * stays true.
			 */
			if (n < 0 && (errno == EOPNOTSUPP || errno == ESPIPE)) {
				struct pollfd p = {.fd = s->fd, .events = POLLIN};

				if (poll(&p, 1, 0) <= 0) {
					errno = EAGAIN;
					return -1;
				}
				n = read(s->fd, dst, len);
			}
		}
	} while (n < 0 && errno == EINTR);
	return n;
}

static size_t fd_copy(struct slu_source *src, void *dst, size_t len)
{
	struct slu_source_fd *s = slu_container_of(src, struct slu_source_fd, source);
	size_t done = slu_min(s->held_len, len);

	if (done) {
		memcpy(dst, s->held + s->held_off, done);
		s->held_off += done;
		s->held_len -= done;
	}
	while (done < len) {
		ssize_t n = fd_read(s, (char *)dst + done, len - done);

		/* The end and an error are fault_in's to tell. */
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done;
}

static int fd_fault_in(struct slu_source *src, size_t len)
{
	struct slu_source_fd *s = slu_container_of(src, struct slu_source_fd, source);
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	ssize_t n;

	slu_assert_no_locks("a pipe or socket");
	if (s->held_len)
		return 0;
	for (;;) {
		/* Taken over at once: what was ready might be gone when it is asked for. */
		n = fd_read(s, s->held, slu_min(len, sizeof(s->held)));
		if (n > 0) {
			s->held_off = 0;
			s->held_len = (size_t)n;
			return 0;
		}
		if (n == 0)
			return -ENODATA;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			return -errno;
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -errno;
	}
}

void slu_source_fd_init(struct slu_source_fd *s, int fd)
{
	static const struct slu_source_ops ops = {.copy_nofault = fd_copy, .fault_in = fd_fault_in};
	int type;
	socklen_t len = sizeof(type);

	memset(s, 0, sizeof(*s));
	s->source.ops = &ops;
	s->fd = fd;
	s->is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
}
