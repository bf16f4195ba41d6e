/* SPDX-License-Identifier: MIT */
/*
 * Sources: buffers in pieces, pipes and sockets that are slow, end early or fail. On real threads:
 * a pipe knows nothing of a simulation.
 */
#include "pages_rig.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEN (600u * 1024)

static unsigned char pattern[LEN], back[LEN];

struct feeder {
	int fd;
	size_t len, step;
	struct slu_thread thread;
};

static void feeder_main(void *arg)
{
	struct feeder *f = arg;

	for (size_t at = 0; at < f->len;) {
		ssize_t n = write(f->fd, pattern + at, slu_min(f->step, f->len - at));

		must(n > 0);
		at += (size_t)n;
		if (f->step < LEN)
			slu_sleep_ns(200000);
	}
	close(f->fd);
}

static void open_pair(bool is_socket, int fds[2])
{
	if (is_socket)
		must_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	else
		must_eq(pipe2(fds, O_CLOEXEC), 0);
	if (is_socket) {
		/* fds[0] is read from. */
		must_eq(shutdown(fds[1], SHUT_RD), 0);
	}
}

static void feed(bool is_socket, size_t step, size_t feed_len, size_t ask, int want_err,
		 size_t want)
{
	struct slu_write_result res;
	struct slu_source_fd src;
	struct feeder f;
	struct rig r;
	int fds[2];

	rig_init(&r, &(struct rig_opts){0});
	open_pair(is_socket, fds);
	f = (struct feeder){.fd = fds[1], .len = feed_len, .step = step};
	must_eq(slu_thread_start(&f.thread, "feeder", feeder_main, &f), 0);
	slu_source_fd_init(&src, fds[0]);
	must_eq(slu_write(&r.as, &src.source, 10, ask, 0, &res, NULL), want_err);
	must_eq(res.done, want);
	slu_thread_join(&f.thread);
	close(fds[0]);
	if (want) {
		must_eq(rig_read(&r, 10, back, LEN), want);
		must(memcmp(back, pattern, want) == 0);
	}
	must_eq(rig_sync(&r), 0);
	must_eq(rig_fini(&r), 0);
}

static void a_pipe_is_read_as_it_fills(void **state)
{
	feed(false, LEN, LEN, LEN, 0, LEN);
	feed(false, 1000, 20000, 20000, 0, 20000);
	feed(false, 1, 50, 50, 0, 50);
}

static void a_socket_is_read_as_it_fills(void **state)
{
	feed(true, LEN, LEN, LEN, 0, LEN);
	feed(true, 1000, 20000, 20000, 0, 20000);
	feed(true, 1, 50, 50, 0, 50);
}

static void what_came_before_an_early_end_is_written(void **state)
{
	for (int is_socket = 0; is_socket < 2; is_socket++) {
		feed(is_socket, 3000, 10000, 20000, 0, 10000);
		feed(is_socket, LEN, 0, 5, -EIO, 0);
	}
}

static void no_more_than_was_asked_for_is_taken(void **state)
{
	struct slu_write_result res;
	struct slu_source_fd src;
	struct rig r;
	int fds[2];

	rig_init(&r, &(struct rig_opts){0});
	must_eq(pipe2(fds, O_CLOEXEC), 0);
	must_eq(write(fds[1], pattern, 9000), 9000);
	slu_source_fd_init(&src, fds[0]);
	must_eq(slu_write(&r.as, &src.source, 0, 5000, 0, &res, NULL), 0);
	must_eq(res.done, 5000);
	must_eq(read(fds[0], back, sizeof(back)), 4000);
	must(memcmp(back, pattern + 5000, 4000) == 0);
	close(fds[0]);
	close(fds[1]);
	must_eq(rig_fini(&r), 0);
}

static void an_error_of_the_source_is_the_writes(void **state)
{
	struct slu_write_result res;
	struct slu_source_fd src;
	struct rig r;
	int fds[2];

	rig_init(&r, &(struct rig_opts){0});
	must_eq(pipe2(fds, O_CLOEXEC), 0);
	/* The end that can only be written to. */
	slu_source_fd_init(&src, fds[1]);
	must_eq(slu_write(&r.as, &src.source, 0, 100, 0, &res, NULL), -EBADF);
	must_eq(res.done, 0);
	must_eq(slu_aspace_size(&r.as), 0);
	must_eq(r.mem.reserved, 0);
	close(fds[0]);
	close(fds[1]);
	must_eq(rig_fini(&r), 0);
}

static void a_buffer_in_pieces(void **state)
{
	struct iovec iov[] = {{pattern, 1},
			      {pattern + 1, 0},
			      {pattern + 1, 5000},
			      {pattern + 5001, 4999},
			      {NULL, 0}};
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct rig r;

	rig_init(&r, &(struct rig_opts){0});
	slu_source_buffer_init(&src, iov, 5);
	must_eq(slu_write(&r.as, &src.source, 4000, 9000, 0, &res, NULL), 0);
	must_eq(res.done, 9000);
	must_eq(slu_write(&r.as, &src.source, 13000, 5000, 0, &res, NULL), 0);
	must_eq(res.done, 1000);
	must_eq(slu_write(&r.as, &src.source, 14000, 5000, 0, &res, NULL), -EIO);
	must_eq(rig_read(&r, 4000, back, LEN), 10000);
	must(memcmp(back, pattern, 10000) == 0);
	must_eq(rig_fini(&r), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pipe_is_read_as_it_fills),
		cmocka_unit_test(a_socket_is_read_as_it_fills),
		cmocka_unit_test(what_came_before_an_early_end_is_written),
		cmocka_unit_test(no_more_than_was_asked_for_is_taken),
		cmocka_unit_test(an_error_of_the_source_is_the_writes),
		cmocka_unit_test(a_buffer_in_pieces),
	};

	rig_pattern(pattern, 0, sizeof(pattern), 3);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
