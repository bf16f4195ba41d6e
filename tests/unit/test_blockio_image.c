/* SPDX-License-Identifier: MIT */
/*
 * Opening an image by name: what is refused and how, the lock and its holder, O_DIRECT and io_uring
 * where the host forbids them.
 */
#include "sluice/blockio.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BS SLU_BLOCK_SIZE

static char dir[256], image[300];

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(dir, sizeof(dir), "%s/slu-image-XXXXXX", tmp ? tmp : "/var/tmp");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	snprintf(image, sizeof(image), "%s/image", dir);
	fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 100 * BS + 17), 0);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	unlink(image);
	rmdir(dir);
	return 0;
}

static int try_open(const char *name, const struct slu_blockio_opts *opts)
{
	struct slu_blockio *bio = NULL;
	int err = slu_blockio_open(name, opts, &bio);

	if (!err)
		slu_blockio_close(bio);
	else
		assert_null(bio);
	return err;
}

/* Runs fn in a child, which exits with what it returns; fails unless that is 0. */
static void in_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ------------------------------------------------------------------ what is not an image */

static void a_missing_image_is_ENOENT(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};

	assert_int_equal(try_open("/nonexistent/image", &opts), -ENOENT);
	opts.readonly = true;
	opts.create = true;
	unlink(image);
	assert_int_equal(try_open(image, &opts), -ENOENT);
	opts.readonly = false;
	opts.create = false;
	assert_int_equal(try_open(image, &opts), -ENOENT);
}

static void a_directory_is_ENOTBLK(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};

	assert_int_equal(try_open(dir, &opts), -ENOTBLK);
	opts.readonly = true;
	assert_int_equal(try_open(dir, &opts), -ENOTBLK);
}

static void a_fifo_is_ENOTBLK_and_does_not_hang(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .readonly = true};

	unlink(image);
	assert_int_equal(mkfifo(image, 0600), 0);
	alarm(20);
	assert_int_equal(try_open(image, &opts), -ENOTBLK);
	opts.readonly = false;
	assert_int_equal(try_open(image, &opts), -ENOTBLK);
	alarm(0);
}

static void a_character_device_is_ENOTBLK(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .readonly = true};

	assert_int_equal(try_open("/dev/zero", &opts), -ENOTBLK);
}

static void an_unknown_engine_is_EINVAL(void **state)
{
	struct slu_blockio_opts opts = {.engine = "abacus"};

	assert_int_equal(try_open(image, &opts), -EINVAL);
	opts.engine = "sim"; /* without a disk */
	assert_int_equal(try_open(image, &opts), -EINVAL);
}

static int open_without_permission(void)
{
	struct slu_blockio_opts opts = {.engine = "threads"};

	if (!geteuid() && setresuid(65534, 65534, 65534))
		return 2;
	if (try_open(image, &opts) != -EACCES)
		return 3;
	opts.readonly = true;
	return try_open(image, &opts) ? 4 : 0;
}

static void an_image_that_may_only_be_read_is_EACCES_for_writing(void **state)
{
	assert_int_equal(chmod(image, 0444), 0);
	in_child(open_without_permission);
}

static void an_immutable_image_is_EACCES_for_writing(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	int fd = open(image, O_RDONLY | O_CLOEXEC), flags, none = 0, reads, writes;

	assert_true(fd >= 0);
	if (geteuid() || ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		close(fd);
		print_message("SKIPPED: needs root and a filesystem with attributes\n");
		return;
	}
	flags |= FS_IMMUTABLE_FL;
	assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &flags), 0);
	writes = try_open(image, &opts);
	opts.readonly = true;
	reads = try_open(image, &opts);
	/* Given back before anything can fail: nobody could remove the file. */
	assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &none), 0);
	close(fd);
	assert_int_equal(writes, -EACCES);
	assert_int_equal(reads, 0);
}

static void out_of_memory_is_ENOMEM_and_leaves_nothing_open(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .lock = SLU_LOCK_EXCLUSIVE};
	uint64_t nth, allocations;

	slu_alloc_fail_nth(0);
	assert_int_equal(try_open(image, &opts), 0);
	allocations = slu_alloc_count();
	assert_true(allocations >= 2);
	for (nth = 1; nth <= allocations; nth++) {
		struct slu_blockio *bio = NULL;
		int err;

		slu_alloc_fail_nth(nth);
		err = slu_blockio_open(image, &opts, &bio);
		slu_alloc_fail_nth(0);
		if (err) { /* the probe for O_DIRECT does without */
			assert_int_equal(err, -ENOMEM);
			assert_null(bio);
		}
		slu_blockio_close(bio);
		assert_int_equal(try_open(image, &opts), 0); /* the lock is free */
	}
}

/* ------------------------------------------------------------------ sizes */

static void put_bytes(off_t pos, const void *data, size_t len)
{
	int fd = open(image, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, data, len, pos), len);
	close(fd);
}

static void whole_blocks_count_and_a_size_cuts_them(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 100);
	slu_blockio_close(bio);

	opts.image_offset = 10 * BS;
	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 90);
	slu_blockio_close(bio);

	opts.image_size = 20 * BS;
	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 20);
	assert_int_equal(slu_blockio_grow(bio, 21), -ENOSPC);
	slu_blockio_close(bio);

	opts.image_size = 1000 * BS;
	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 90);
	assert_int_equal(slu_blockio_grow(bio, 1001), -ENOSPC);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 90);
	assert_int_equal(slu_blockio_grow(bio, 1000), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 1000);
	slu_blockio_close(bio);
}

/* The host may count more as used than was written, in units of its own, and never less. */
static void what_a_file_holds_is_found_behind_holes(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .image_offset = BS};
	char *buf = aligned_alloc(BS, BS);
	struct slu_blockio *bio;
	uint64_t found;

	(void)state;
	assert_int_equal(truncate(image, 0), 0);
	assert_int_equal(truncate(image, 1001 * BS), 0);
	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_int_equal(slu_blockio_used(bio, 0, &found), 0);
	assert_int_equal(found, UINT64_MAX);
	memset(buf, 0x5a, BS);
	assert_int_equal(slu_blockio_write(bio, 900, 1, buf), 0);
	assert_int_equal(slu_blockio_used(bio, 0, &found), 0);
	assert_in_range(found, 800, 900);
	assert_int_equal(slu_blockio_used(bio, 900, &found), 0);
	assert_int_equal(found, 900);
	assert_int_equal(slu_blockio_used(bio, 1000, &found), 0);
	assert_int_equal(found, UINT64_MAX);
	/* a part of a block, with zeros and with something else */
	assert_int_equal(truncate(image, 1001 * BS + 100), 0);
	assert_int_equal(slu_blockio_used(bio, 1000, &found), 0);
	assert_int_equal(found, UINT64_MAX);
	put_bytes(1001 * BS + 99, "x", 1);
	assert_int_equal(slu_blockio_used(bio, 1000, &found), 0);
	assert_int_equal(found, 1000);
	slu_blockio_close(bio);
	free(buf);
}

static void create_makes_an_empty_file_that_grows(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .create = true, .image_offset = BS};
	char *buf = aligned_alloc(BS, BS), *back = aligned_alloc(BS, BS);
	struct slu_blockio *bio;
	struct stat st;
	mode_t mask;

	unlink(image);
	mask = umask(027);
	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	umask(mask);
	assert_int_equal(stat(image, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 0);
	assert_int_equal(slu_blockio_grow(bio, 64), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 64);
	memset(buf, 0x5a, BS);
	assert_int_equal(slu_blockio_write(bio, 63, 1, buf), 0);
	assert_int_equal(slu_blockio_flush(bio), 0);
	assert_int_equal(slu_blockio_read(bio, 63, 1, back), 0);
	assert_memory_equal(buf, back, BS);
	slu_blockio_close(bio);
	assert_int_equal(stat(image, &st), 0);
	assert_int_equal(st.st_size, 65 * BS);
	free(buf);
	free(back);
}

/* ------------------------------------------------------------------ the descriptor */

static bool is_image(int fd)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(image, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

#define MAX_FD 64

static void descriptors_are_closed_on_exec_and_after_close(void **state)
{
	struct slu_blockio_opts opts = {.lock = SLU_LOCK_EXCLUSIVE};
	struct slu_blockio *bio;
	bool before[MAX_FD];
	int opened = 0;

	for (int fd = 0; fd < MAX_FD; fd++)
		before[fd] = fcntl(fd, F_GETFD) >= 0;
	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	for (int fd = 0; fd < MAX_FD; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags < 0 || before[fd])
			continue;
		opened++;
		assert_true(flags & FD_CLOEXEC);
		assert_false(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_APPEND) && is_image(fd));
	}
	assert_true(opened >= 1);
	slu_blockio_close(bio);
	for (int fd = 0; fd < MAX_FD; fd++)
		assert_int_equal(fcntl(fd, F_GETFD) >= 0, before[fd]);
}

static void buffered_is_not_a_fallback(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .buffered = true};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_false(slu_blockio_info(bio)->direct);
	assert_null(slu_blockio_info(bio)->fallback);
	slu_blockio_close(bio);
}

/* Either it works or there is a reason; on memory there are kernels with both. */
static void a_host_without_O_DIRECT_is_used_buffered(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	char name[64], *buf = aligned_alloc(BS, BS);
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct slu_blockio *bio;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 10 * BS), 0);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	assert_int_equal(slu_blockio_open(name, &opts, &bio), 0);
	if (slu_blockio_info(bio)->direct)
		assert_null(slu_blockio_info(bio)->fallback);
	else
		assert_non_null(strstr(slu_blockio_info(bio)->fallback, "O_DIRECT"));
	memset(buf, 0x77, BS);
	assert_int_equal(slu_blockio_write(bio, 9, 1, buf), 0);
	assert_int_equal(slu_blockio_flush(bio), 0);
	slu_blockio_close(bio);
	close(fd);
	free(buf);
}

/*
 * From here on the system call nr fails with err where its argument `arg` has the bits of `mask`.
 */
static int forbid(unsigned int nr, unsigned int arg, unsigned int mask, int err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[arg])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, mask, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {slu_array_size(filter), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static int open_where_O_DIRECT_is_refused(void)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	struct slu_blockio *bio;
	int ret = 0;

	if (forbid(SYS_fcntl, 2, O_DIRECT, EINVAL))
		return 2;
	if (slu_blockio_open(image, &opts, &bio))
		return 3;
	if (slu_blockio_info(bio)->direct || !slu_blockio_info(bio)->fallback ||
	    !strstr(slu_blockio_info(bio)->fallback, "O_DIRECT"))
		ret = 4;
	slu_blockio_close(bio);
	return ret;
}

static void a_filesystem_that_refuses_the_flag_is_used_buffered(void **state)
{
	in_child(open_where_O_DIRECT_is_refused);
}

static int open_where_direct_reads_fail(void)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	struct slu_blockio *bio;
	int ret = 0;

	/* The only preadv of an open is the probe; one iovec is a set bit in argument 2. */
	if (forbid(SYS_preadv, 2, 1, EINVAL))
		return 2;
	if (slu_blockio_open(image, &opts, &bio))
		return 3;
	if (slu_blockio_info(bio)->direct || !slu_blockio_info(bio)->fallback ||
	    !strstr(slu_blockio_info(bio)->fallback, "4,096"))
		ret = 4;
	slu_blockio_close(bio);
	return ret;
}

static void a_filesystem_that_takes_the_flag_and_fails_the_read_is_used_buffered(void **state)
{
	in_child(open_where_direct_reads_fail);
}

static int open_without_uring(void)
{
	struct slu_blockio_opts opts = {.lock = SLU_LOCK_EXCLUSIVE};
	struct slu_blockio *bio;
	int ret = 0;

	if (forbid(SYS_io_uring_setup, 0, ~0u, EPERM))
		return 2;
	if (slu_blockio_open(image, &opts, &bio))
		return 3;
	if (strcmp(slu_blockio_info(bio)->engine, "threads"))
		ret = 4;
	if (!slu_blockio_info(bio)->fallback ||
	    !strstr(slu_blockio_info(bio)->fallback, "io_uring is not permitted"))
		ret = 5;
	slu_blockio_close(bio);
	if (try_open("/nonexistent/image", &opts) != -ENOENT)
		ret = 6;
	opts.engine = "uring";
	if (try_open(image, &opts) != -EPERM)
		ret = 7;
	return ret;
}

static void where_io_uring_is_forbidden_threads_do_and_say_why(void **state)
{
	in_child(open_without_uring);
}

/* ------------------------------------------------------------------ the lock */

struct busy {
	int calls, pid;
	char comm[64];
};

static void note_busy(void *ctx, int pid, const char *comm)
{
	struct busy *b = ctx;

	b->calls++;
	b->pid = pid;
	snprintf(b->comm, sizeof(b->comm), "%s", comm);
}

/*
 * A process that holds the image until it is told to let go (a byte), or is killed, and sleeps
 * `linger_ms` before it does.
 */
struct holder {
	pid_t pid;
	int tell;
};

static struct holder hold(enum slu_image_lock lock, unsigned int linger_ms)
{
	int up[2], down[2];
	struct holder h;
	char c = 0;

	assert_int_equal(pipe2(up, O_CLOEXEC), 0);
	assert_int_equal(pipe2(down, O_CLOEXEC), 0);
	h.pid = fork();
	assert_true(h.pid >= 0);
	if (!h.pid) {
		struct slu_blockio_opts opts = {.engine = "threads", .lock = lock};
		struct slu_blockio *bio;

		prctl(PR_SET_NAME, "the-holder");
		opts.readonly = lock == SLU_LOCK_SHARED;
		close(down[1]);
		if (slu_blockio_open(image, &opts, &bio))
			_exit(2);
		if (write(up[1], &c, 1) != 1 || read(down[0], &c, 1) < 0)
			_exit(3);
		usleep(linger_ms * 1000);
		slu_blockio_close(bio);
		_exit(0);
	}
	close(up[1]);
	close(down[0]);
	assert_int_equal(read(up[0], &c, 1), 1);
	close(up[0]);
	h.tell = down[1];
	return h;
}

static void let_go(struct holder *h)
{
	close(h->tell);
	h->tell = -1;
}

static void reap(struct holder *h)
{
	int status;

	if (h->tell >= 0)
		let_go(h);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

static void a_second_opener_is_told_who_holds_the_image(void **state)
{
	struct busy busy = {0};
	struct slu_blockio_opts opts = {.engine = "threads",
					.lock = SLU_LOCK_EXCLUSIVE,
					.lock_busy = note_busy,
					.lock_busy_ctx = &busy};
	int before = open(dir, O_RDONLY | O_CLOEXEC), after = open(dir, O_RDONLY | O_CLOEXEC);
	struct holder h;

	/* Locks of others on the same filesystem, older and newer than the holder's. */
	assert_int_equal(flock(before, LOCK_SH), 0);
	h = hold(SLU_LOCK_EXCLUSIVE, 0);
	assert_int_equal(flock(after, LOCK_SH), 0);
	assert_int_equal(try_open(image, &opts), -EBUSY);
	close(before);
	close(after);
	assert_int_equal(busy.calls, 1);
	assert_int_equal(busy.pid, h.pid);
	assert_string_equal(busy.comm, "the-holder");

	opts.lock_wait_ns = 100 * SLU_NS_PER_MS;
	assert_int_equal(try_open(image, &opts), -EBUSY);
	assert_int_equal(busy.calls, 2);
	reap(&h);
	assert_int_equal(try_open(image, &opts), 0);
	assert_int_equal(busy.calls, 2);
}

static void the_lock_is_waited_for(void **state)
{
	struct busy busy = {0};
	struct slu_blockio_opts opts = {.engine = "threads",
					.lock = SLU_LOCK_EXCLUSIVE,
					.lock_wait_ns = 20 * SLU_NS_PER_SEC,
					.lock_busy = note_busy,
					.lock_busy_ctx = &busy};
	struct holder h = hold(SLU_LOCK_EXCLUSIVE, 500);
	uint64_t start = slu_clock_ns();

	let_go(&h);
	assert_int_equal(try_open(image, &opts), 0);
	assert_int_equal(busy.calls, 1);
	assert_true(slu_clock_ns() - start >= 100 * SLU_NS_PER_MS);
	assert_true(slu_clock_ns() - start < 10 * SLU_NS_PER_SEC);
	reap(&h);
}

/* A daemon that has just been unmounted is no news. */
static void a_short_wait_says_nothing(void **state)
{
	struct busy busy = {0};
	struct slu_blockio_opts opts = {.engine = "threads",
					.lock = SLU_LOCK_EXCLUSIVE,
					.lock_wait_ns = 20 * SLU_NS_PER_SEC,
					.lock_busy = note_busy,
					.lock_busy_ctx = &busy};
	struct holder h = hold(SLU_LOCK_EXCLUSIVE, 20);
	uint64_t start = slu_clock_ns();

	let_go(&h);
	assert_int_equal(try_open(image, &opts), 0);
	if (slu_clock_ns() - start < 100 * SLU_NS_PER_MS) /* else the machine was busy */
		assert_int_equal(busy.calls, 0);
	reap(&h);
}

static void the_lock_ends_with_a_killed_holder(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads", .lock = SLU_LOCK_EXCLUSIVE};
	struct holder h = hold(SLU_LOCK_EXCLUSIVE, 0);
	int status;

	assert_int_equal(try_open(image, &opts), -EBUSY);
	kill(h.pid, SIGKILL);
	assert_int_equal(waitpid(h.pid, &status, 0), h.pid);
	close(h.tell);
	assert_int_equal(try_open(image, &opts), 0);
}

static void readers_share_and_a_writer_does_not(void **state)
{
	struct slu_blockio_opts shared = {.engine = "threads",
					  .readonly = true,
					  .lock = SLU_LOCK_SHARED};
	struct slu_blockio_opts exclusive = {.engine = "threads", .lock = SLU_LOCK_EXCLUSIVE};
	struct slu_blockio_opts none = {.engine = "threads", .readonly = true};
	struct holder h = hold(SLU_LOCK_SHARED, 0);

	assert_int_equal(try_open(image, &shared), 0);
	assert_int_equal(try_open(image, &exclusive), -EBUSY);
	assert_int_equal(try_open(image, &none), 0);
	reap(&h);
	h = hold(SLU_LOCK_EXCLUSIVE, 0);
	assert_int_equal(try_open(image, &shared), -EBUSY);
	assert_int_equal(try_open(image, &none), 0);
	reap(&h);
}

static void one_process_does_not_open_an_image_twice(void **state)
{
	struct busy busy = {0};
	struct slu_blockio_opts opts = {.lock = SLU_LOCK_EXCLUSIVE,
					.lock_busy = note_busy,
					.lock_busy_ctx = &busy};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open(image, &opts, &bio), 0);
	assert_int_equal(try_open(image, &opts), -EBUSY);
	assert_int_equal(busy.pid, getpid());
	assert_int_equal(busy.calls, 1); /* and not once per engine that was tried */
	slu_blockio_close(bio);
	assert_int_equal(try_open(image, &opts), 0);
}

static void the_simulated_disk_has_the_same_lock(void **state)
{
	struct slu_simdisk *disk = slu_simdisk_new(10, 1);
	struct busy busy = {0};
	struct slu_blockio_opts opts = {.sim = disk,
					.lock = SLU_LOCK_EXCLUSIVE,
					.lock_wait_ns = SLU_NS_PER_MS,
					.lock_busy = note_busy,
					.lock_busy_ctx = &busy};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("", &opts, &bio), 0);
	assert_int_equal(try_open("", &opts), -EBUSY);
	assert_int_equal(busy.calls, 1);
	opts.lock = SLU_LOCK_SHARED;
	assert_int_equal(try_open("", &opts), -EBUSY);
	opts.lock = SLU_LOCK_NONE;
	assert_int_equal(try_open("", &opts), 0);
	slu_blockio_close(bio);
	opts.lock = SLU_LOCK_SHARED;
	assert_int_equal(slu_blockio_open("", &opts, &bio), 0);
	assert_int_equal(try_open("", &opts), 0);
	opts.lock = SLU_LOCK_EXCLUSIVE;
	assert_int_equal(try_open("", &opts), -EBUSY);
	slu_blockio_close(bio);
	slu_simdisk_free(disk);
}

/* ------------------------------------------------------------------ devices */

static bool need_loop(void)
{
	bool ok = !geteuid() && !access("/dev/loop-control", R_OK | W_OK);

	if (!ok && getenv("CI"))
		fail_msg("CI needs loop devices");
	if (!ok)
		print_message("SKIPPED: needs root and loop devices\n");
	return ok;
}

/*
 * Attaches the image; *ret_fd holds the device until loop_detach. With autoclear it goes with its
 * last descriptor, so that a failed test leaves none behind.
 */
static void loop_attach(char *name, size_t size, bool autoclear, int *ret_fd)
{
	struct loop_config config = {.info.lo_flags = autoclear ? LO_FLAGS_AUTOCLEAR : 0};
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int err = -1;

	assert_true(ctl >= 0);
	config.fd = (uint32_t)open(image, O_RDWR | O_CLOEXEC);
	assert_true((int)config.fd >= 0);
	/* Another test may take the free device first. */
	for (int tries = 0; err && tries < 20; tries++) {
		snprintf(name, size, "/dev/loop%d", ioctl(ctl, LOOP_CTL_GET_FREE));
		*ret_fd = open(name, O_RDWR | O_CLOEXEC);
		assert_true(*ret_fd >= 0);
		err = ioctl(*ret_fd, LOOP_CONFIGURE, &config);
		if (err)
			close(*ret_fd);
	}
	assert_int_equal(err, 0);
	close(ctl);
	close((int)config.fd);
}

static void loop_detach(int fd)
{
	ioctl(fd, LOOP_CLR_FD);
	close(fd);
}

static void a_file_behind_a_loop_device_is_in_use(void **state)
{
	char name[64];
	int fd, excl;

	assert_false(slu_blockio_device_in_use(image));
	assert_false(slu_blockio_device_in_use("/nonexistent/device"));
	if (!need_loop())
		skip();
	loop_attach(name, sizeof(name), true, &fd);
	assert_true(slu_blockio_device_in_use(image));
	assert_false(slu_blockio_device_in_use(name));
	excl = open(name, O_RDONLY | O_EXCL | O_CLOEXEC); /* as a mount does */
	assert_true(excl >= 0);
	assert_true(slu_blockio_device_in_use(name));
	close(excl);
	assert_false(slu_blockio_device_in_use(name));
	loop_detach(fd);
	assert_false(slu_blockio_device_in_use(image));
}

static void a_device_with_large_sectors_is_used_buffered_or_refused(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	char name[64], *buf = aligned_alloc(BS, BS), *back = aligned_alloc(BS, BS);
	struct loop_info64 autoclear = {.lo_flags = LO_FLAGS_AUTOCLEAR};
	struct slu_blockio *bio;
	int fd;

	if (!need_loop()) {
		free(buf);
		free(back);
		skip();
	}
	assert_int_equal(truncate(image, 1 << 20), 0);
	loop_attach(name, sizeof(name), false, &fd);
	if (!ioctl(fd, LOOP_SET_BLOCK_SIZE, 16384)) {
		/* The kernel takes note of the size when the device is opened afresh. */
		close(fd);
		fd = open(name, O_RDWR | O_CLOEXEC);
		assert_int_equal(ioctl(fd, LOOP_SET_STATUS64, &autoclear), 0);
		assert_int_equal(slu_blockio_open(name, &opts, &bio), 0);
		assert_false(slu_blockio_info(bio)->direct);
		assert_non_null(slu_blockio_info(bio)->fallback);
		memset(buf, 0x21, BS);
		assert_int_equal(slu_blockio_write(bio, 5, 1, buf), 0);
		assert_int_equal(slu_blockio_flush(bio), 0);
		assert_int_equal(slu_blockio_read(bio, 5, 1, back), 0);
		assert_memory_equal(buf, back, BS);
		slu_blockio_close(bio);
	} else {
		print_message("this kernel has no sectors larger than a page\n");
	}
	assert_int_equal(ioctl(fd, LOOP_SET_BLOCK_SIZE, 4096), 0);
	assert_int_equal(slu_blockio_open(name, &opts, &bio), 0);
	assert_true(slu_blockio_info(bio)->direct);
	assert_int_equal(slu_blockio_info(bio)->nblocks, (1 << 20) / BS);
	slu_blockio_close(bio);
	loop_detach(fd);
	free(buf);
	free(back);
}

static void a_device_that_grew_is_learnt(void **state)
{
	struct slu_blockio_opts opts = {.engine = "threads"};
	struct slu_blockio *bio;
	char name[64];
	int fd;

	if (!need_loop())
		skip();
	assert_int_equal(truncate(image, 100 * BS), 0);
	loop_attach(name, sizeof(name), true, &fd);
	assert_int_equal(slu_blockio_open(name, &opts, &bio), 0);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 100);
	assert_int_equal(truncate(image, 200 * BS), 0);
	assert_int_equal(ioctl(fd, LOOP_SET_CAPACITY), 0);
	assert_int_equal(slu_blockio_grow(bio, 300), -ENOSPC);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 200);
	assert_int_equal(slu_blockio_grow(bio, 200), 0);
	slu_blockio_close(bio);
	loop_detach(fd);
}

#define image_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		image_test(a_missing_image_is_ENOENT),
		image_test(a_directory_is_ENOTBLK),
		image_test(a_fifo_is_ENOTBLK_and_does_not_hang),
		image_test(a_character_device_is_ENOTBLK),
		image_test(an_unknown_engine_is_EINVAL),
		image_test(an_image_that_may_only_be_read_is_EACCES_for_writing),
		image_test(an_immutable_image_is_EACCES_for_writing),
		image_test(out_of_memory_is_ENOMEM_and_leaves_nothing_open),
		image_test(whole_blocks_count_and_a_size_cuts_them),
		image_test(what_a_file_holds_is_found_behind_holes),
		image_test(create_makes_an_empty_file_that_grows),
		image_test(descriptors_are_closed_on_exec_and_after_close),
		image_test(buffered_is_not_a_fallback),
		image_test(a_host_without_O_DIRECT_is_used_buffered),
		image_test(a_filesystem_that_refuses_the_flag_is_used_buffered),
		image_test(a_filesystem_that_takes_the_flag_and_fails_the_read_is_used_buffered),
		image_test(where_io_uring_is_forbidden_threads_do_and_say_why),
		image_test(a_second_opener_is_told_who_holds_the_image),
		image_test(the_lock_is_waited_for),
		image_test(a_short_wait_says_nothing),
		image_test(the_lock_ends_with_a_killed_holder),
		image_test(readers_share_and_a_writer_does_not),
		image_test(one_process_does_not_open_an_image_twice),
		image_test(the_simulated_disk_has_the_same_lock),
		image_test(a_file_behind_a_loop_device_is_in_use),
		image_test(a_device_with_large_sectors_is_used_buffered_or_refused),
		image_test(a_device_that_grew_is_learnt),
	};

	return cmocka_run_group_tests_name("blockio image", tests, NULL, NULL);
}
