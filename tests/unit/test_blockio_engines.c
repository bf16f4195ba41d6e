/* SPDX-License-Identifier: MIT */
/*
 * What every engine of blockio promises, run over each of them: io_uring and threads on a file,
 * with and without O_DIRECT, and on a loop device where root allows it; the simulated disk with a
 * completion thread, with delays, and inline.
 */
#include "../../src/blockio/blockio_private.h"
#include <fcntl.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NBLOCKS 4096u
#define BS      SLU_BLOCK_SIZE

struct variant {
	const char *name;
	const char *engine;
	bool buffered;
	bool loop;
	bool is_inline;
	uint64_t latency_ns;
};

static const struct variant variants[] = {
	{.name = "threads", .engine = "threads"},
	{.name = "threads-buffered", .engine = "threads", .buffered = true},
	{.name = "threads-device", .engine = "threads", .loop = true},
	{.name = "uring", .engine = "uring"},
	{.name = "uring-buffered", .engine = "uring", .buffered = true},
	{.name = "uring-device", .engine = "uring", .loop = true},
	{.name = "sim", .engine = "sim"},
	{.name = "sim-latency", .engine = "sim", .latency_ns = 100000},
	{.name = "sim-inline", .engine = "sim", .is_inline = true},
};

static const struct variant *variant; /* of the group that runs */
static char dir[256], file[300], device[64];
static struct slu_simdisk *disk;
static int loop_fd = -1;

static const char *image_name(void)
{
	return variant->loop ? device : file;
}

static bool is_file(void)
{
	return strcmp(variant->engine, "sim") && !variant->loop;
}

static struct slu_blockio_opts options(void)
{
	return (struct slu_blockio_opts){
		.engine = variant->engine,
		.buffered = variant->buffered,
		.sim = disk,
		.lock = SLU_LOCK_EXCLUSIVE,
	};
}

static struct slu_blockio *open_with(const struct slu_blockio_opts *opts)
{
	struct slu_blockio *bio = NULL;
	int err = slu_blockio_open(image_name(), opts, &bio);

	if (err)
		fail_msg("%s: open: %s", variant->name, strerror(-err));
	return bio;
}

static struct slu_blockio *open_default(void)
{
	struct slu_blockio_opts opts = options();

	return open_with(&opts);
}

/* ------------------------------------------------------------------ fixtures */

/* The device goes with its last descriptor, so that a failed test leaves none behind. */
static int loop_attach(void)
{
	struct loop_config config = {.info.lo_flags = LO_FLAGS_AUTOCLEAR};
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int err = -1;

	if (ctl < 0)
		return -1;
	config.fd = (uint32_t)open(file, O_RDWR | O_CLOEXEC);
	/* Another test may take the free device first. */
	for (int tries = 0; err && tries < 20; tries++) {
		snprintf(device, sizeof(device), "/dev/loop%d", ioctl(ctl, LOOP_CTL_GET_FREE));
		loop_fd = open(device, O_RDWR | O_CLOEXEC);
		err = ioctl(loop_fd, LOOP_CONFIGURE, &config);
		if (err)
			close(loop_fd);
	}
	close(ctl);
	close((int)config.fd);
	return err;
}

static int group_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(dir, sizeof(dir), "%s/slu-blockio-XXXXXX", tmp ? tmp : "/var/tmp");
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/image", dir);
	fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)NBLOCKS * BS), 0);
	close(fd);
	if (variant->loop && loop_attach())
		fail_msg("no loop device although it looked as if there were some");
	disk = slu_simdisk_new(NBLOCKS, 42);
	slu_simdisk_latency(disk, variant->latency_ns);
	slu_simdisk_inline(disk, variant->is_inline);
	return 0;
}

static int group_teardown(void **state)
{
	if (loop_fd >= 0) {
		close(loop_fd);
		loop_fd = -1;
	}
	slu_simdisk_free(disk);
	unlink(file);
	rmdir(dir);
	return 0;
}

/* ------------------------------------------------------------------ helpers */

static void *buffer(uint32_t nblocks)
{
	void *p = aligned_alloc(BS, (size_t)nblocks * BS);

	assert_non_null(p);
	return p;
}

/* Contents that tell block and generation. */
static void fill(void *buf, uint64_t blkno, uint32_t nblocks, uint64_t tag)
{
	uint64_t *w = buf;

	for (uint32_t i = 0; i < nblocks; i++)
		for (unsigned int j = 0; j < BS / 8; j++)
			*w++ = (blkno + i) * 0x9e3779b97f4a7c15ull ^ tag << 32 ^ j;
}

static void check(const void *buf, uint64_t blkno, uint32_t nblocks, uint64_t tag)
{
	void *want = buffer(nblocks);

	fill(want, blkno, nblocks, tag);
	if (memcmp(buf, want, (size_t)nblocks * BS))
		fail_msg("%s: block %llu and %u more, generation %llu: wrong contents",
			 variant->name, (unsigned long long)blkno, nblocks - 1,
			 (unsigned long long)tag);
	free(want);
}

struct request {
	struct slu_io io;
	struct iovec iov;
	_Atomic uint32_t *left; /* counted down by end_io */
	unsigned int ended;
};

static void request_end(struct slu_io *io)
{
	struct request *r = slu_container_of(io, struct request, io);
	_Atomic uint32_t *left = r->left;

	r->ended++;
	atomic_fetch_sub_explicit(left, 1, memory_order_release);
	slu_word_wake(left, 1 << 30);
}

static void request_init(struct request *r, enum slu_io_op op, uint64_t blkno, uint32_t nblocks,
			 void *buf, _Atomic uint32_t *left)
{
	memset(r, 0, sizeof(*r));
	r->iov = (struct iovec){buf, (size_t)nblocks * BS};
	r->io = (struct slu_io){
		.op = op,
		.blkno = blkno,
		.nblocks = nblocks,
		.iov = &r->iov,
		.niov = 1,
		.end_io = request_end,
		.result = 12345,
	};
	r->left = left;
}

static void wait_down_to(_Atomic uint32_t *left, uint32_t n)
{
	uint32_t now;

	while ((now = atomic_load_explicit(left, memory_order_acquire)) > n)
		(void)slu_word_wait(left, now, SLU_NO_DEADLINE);
}

/* One request, asynchronously. */
static int run_io(struct slu_blockio *bio, enum slu_io_op op, uint64_t blkno, uint32_t nblocks,
		  void *buf)
{
	_Atomic uint32_t left = 1;
	struct request r;

	request_init(&r, op, blkno, nblocks, buf, &left);
	slu_blockio_submit(bio, &r.io);
	wait_down_to(&left, 0);
	assert_int_equal(r.ended, 1);
	return r.io.result;
}

/* ------------------------------------------------------------------ the tests */

static void info_tells_what_is_open(void **state)
{
	struct slu_blockio *bio = open_default();
	const struct slu_blockio_info *info = slu_blockio_info(bio);

	assert_string_equal(info->engine, variant->engine);
	assert_int_equal(info->nblocks, NBLOCKS);
	assert_false(info->readonly);
	if (variant->buffered)
		assert_false(info->direct);
	else if (!info->direct && !disk)
		assert_non_null(info->fallback);
	assert_int_equal(info->kind, variant->loop ? SLU_IMAGE_DEVICE
				     : is_file()   ? SLU_IMAGE_FILE
						   : SLU_IMAGE_SIM);
	slu_blockio_close(bio);
}

static void what_is_written_is_read_back_after_reopening(void **state)
{
	static const struct {
		uint64_t blkno;
		uint32_t nblocks;
	} ranges[] = {{0, 1}, {1, 3}, {17, 256}, {1000, 1024}, {NBLOCKS - 1, 1}};
	struct slu_blockio *bio = open_default();
	void *buf = buffer(1024);

	for (size_t i = 0; i < slu_array_size(ranges); i++) {
		fill(buf, ranges[i].blkno, ranges[i].nblocks, i);
		if (i & 1)
			assert_int_equal(slu_blockio_write(bio, ranges[i].blkno, ranges[i].nblocks,
							   buf),
					 0);
		else
			assert_int_equal(run_io(bio, SLU_IO_WRITE, ranges[i].blkno,
						ranges[i].nblocks, buf),
					 0);
	}
	assert_int_equal(slu_blockio_flush(bio), 0);
	slu_blockio_close(bio);
	bio = open_default();
	for (size_t i = 0; i < slu_array_size(ranges); i++) {
		memset(buf, 0xee, (size_t)ranges[i].nblocks * BS);
		assert_int_equal(run_io(bio, SLU_IO_READ, ranges[i].blkno, ranges[i].nblocks, buf),
				 0);
		check(buf, ranges[i].blkno, ranges[i].nblocks, i);
		memset(buf, 0xee, (size_t)ranges[i].nblocks * BS);
		assert_int_equal(slu_blockio_read(bio, ranges[i].blkno, ranges[i].nblocks, buf), 0);
		check(buf, ranges[i].blkno, ranges[i].nblocks, i);
	}
	slu_blockio_close(bio);
	free(buf);
}

static void synchronous_helpers_take_more_than_one_request_can(void **state)
{
	struct slu_blockio *bio = open_default();
	void *buf = buffer(2500);

	fill(buf, 100, 2500, 7);
	assert_int_equal(slu_blockio_write(bio, 100, 2500, buf), 0);
	memset(buf, 0, (size_t)2500 * BS);
	assert_int_equal(slu_blockio_read(bio, 100, 2500, buf), 0);
	check(buf, 100, 2500, 7);
	slu_blockio_close(bio);
	free(buf);
}

/* Gathered from pages all over memory, in odd sizes, and scattered again. */
static void many_iovecs_are_one_transfer(void **state)
{
	struct slu_blockio *bio = open_default();
	unsigned char *mem = buffer(2048), *back = buffer(1024);
	struct iovec iov[512];
	_Atomic uint32_t left = 1;
	struct request r;
	uint32_t n = 0;
	int niov = 0;

	while (n < 1024 && niov < 512) {
		uint32_t len = slu_min(1u + (uint32_t)niov % 5, 1024 - n);

		iov[niov].iov_base = mem + ((size_t)n * 2) * BS;
		iov[niov].iov_len = (size_t)len * BS;
		fill(iov[niov].iov_base, 300 + n, len, 3);
		n += len;
		niov++;
	}
	assert_int_equal(n, 1024);
	request_init(&r, SLU_IO_WRITE, 300, n, NULL, &left);
	r.io.iov = iov;
	r.io.niov = niov;
	slu_blockio_submit(bio, &r.io);
	wait_down_to(&left, 0);
	assert_int_equal(r.io.result, 0);
	assert_int_equal(slu_blockio_read(bio, 300, n, back), 0);
	check(back, 300, n, 3);

	memset(mem, 0, (size_t)2048 * BS);
	left = 1;
	r.io.op = SLU_IO_READ;
	slu_blockio_submit(bio, &r.io);
	wait_down_to(&left, 0);
	assert_int_equal(r.io.result, 0);
	n = 0;
	for (int i = 0; i < niov; i++) {
		check(iov[i].iov_base, 300 + n, (uint32_t)(iov[i].iov_len / BS), 3);
		n += (uint32_t)(iov[i].iov_len / BS);
	}
	slu_blockio_close(bio);
	free(mem);
	free(back);
}

#define WORKERS   4
#define WINDOW    16
#define PER_ROUND 8

struct worker {
	struct slu_thread thread;
	struct slu_blockio *bio;
	uint64_t first; /* its part of the disk */
};

static void worker_main(void *arg)
{
	struct worker *w = arg;
	unsigned char *mem = buffer(WINDOW * PER_ROUND);
	struct request r[WINDOW];

	for (uint64_t round = 0; round < 12; round++) {
		for (int op = SLU_IO_WRITE; op >= SLU_IO_READ; op--) {
			_Atomic uint32_t left = WINDOW;

			for (uint32_t i = 0; i < WINDOW; i++) {
				uint64_t blkno = w->first + (i * 5 + round) % WINDOW * PER_ROUND;
				void *buf = mem + (size_t)i * PER_ROUND * BS;

				if (op == SLU_IO_WRITE)
					fill(buf, blkno, PER_ROUND, round);
				else
					memset(buf, 0, (size_t)PER_ROUND * BS);
				request_init(&r[i], (enum slu_io_op)op, blkno, PER_ROUND, buf,
					     &left);
				slu_blockio_submit(w->bio, &r[i].io);
			}
			wait_down_to(&left, 0);
			for (uint32_t i = 0; i < WINDOW; i++) {
				slu_assert(r[i].ended == 1 && !r[i].io.result);
				if (op == SLU_IO_READ)
					check(r[i].iov.iov_base, r[i].io.blkno, PER_ROUND, round);
			}
		}
		slu_assert(!slu_blockio_flush(w->bio));
	}
	free(mem);
}

static void four_threads_at_once_do_not_mix_up_their_data(void **state)
{
	struct slu_blockio *bio = open_default();
	struct worker w[WORKERS];

	for (unsigned int i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){.bio = bio, .first = i * (NBLOCKS / WORKERS)};
		assert_int_equal(slu_thread_start(&w[i].thread, "worker", worker_main, &w[i]), 0);
	}
	for (unsigned int i = 0; i < WORKERS; i++)
		slu_thread_join(&w[i].thread);
	slu_blockio_close(bio);
}

static void flushes_submitted_together_all_end(void **state)
{
	struct slu_blockio *bio = open_default();
	_Atomic uint32_t left = 20;
	struct request r[20];

	for (int i = 0; i < 20; i++) {
		request_init(&r[i], SLU_IO_FLUSH, 0, 0, NULL, &left);
		slu_blockio_submit(bio, &r[i].io);
	}
	wait_down_to(&left, 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(r[i].ended, 1);
		assert_int_equal(r[i].io.result, 0);
	}
	assert_int_equal(slu_blockio_stats(bio)->flushes, 20);
	slu_blockio_close(bio);
}

static void beyond_the_end_is_EIO_and_never_wraps(void **state)
{
	static const uint64_t starts[] = {NBLOCKS,        NBLOCKS - 3,      UINT64_MAX,
					  UINT64_MAX - 3, (1ull << 52),     (1ull << 52) - 4,
					  1ull << 63,     INT64_MAX / 4096, UINT64_MAX / 4096};
	struct slu_blockio *bio = open_default();
	void *buf = buffer(4), *first = buffer(4);

	fill(buf, 0, 4, 99);
	assert_int_equal(slu_blockio_write(bio, 0, 4, buf), 0);
	for (size_t i = 0; i < slu_array_size(starts); i++) {
		assert_int_equal(run_io(bio, SLU_IO_READ, starts[i], 4, buf), -EIO);
		assert_int_equal(run_io(bio, SLU_IO_WRITE, starts[i], 4, buf), -EIO);
		assert_int_equal(run_io(bio, SLU_IO_DISCARD, starts[i], 4, NULL), -EIO);
		assert_int_equal(slu_blockio_read(bio, starts[i], 4, buf), -EIO);
		assert_int_equal(slu_blockio_write(bio, starts[i], 4, buf), -EIO);
		assert_int_equal(slu_blockio_reserve(bio, starts[i], 4), -EIO);
	}
	assert_int_equal(slu_blockio_read(bio, 0, 4, first), 0);
	check(first, 0, 4, 99);
	assert_int_equal(slu_blockio_info(bio)->nblocks, NBLOCKS);
	slu_blockio_close(bio);
	free(buf);
	free(first);
}

static void requests_of_a_wrong_shape_are_EINVAL(void **state)
{
	struct slu_blockio *bio = open_default();
	char *buf = buffer(SLU_IO_MAX_BLOCKS + 1);
	_Atomic uint32_t left = 1;
	struct iovec two[2] = {{buf, BS}, {buf + BS, 512}};
	struct request r;

	assert_int_equal(run_io(bio, SLU_IO_READ, 0, 0, buf), -EINVAL);
	assert_int_equal(run_io(bio, SLU_IO_DISCARD, 0, 0, NULL), -EINVAL);
	assert_int_equal(run_io(bio, SLU_IO_READ, 0, SLU_IO_MAX_BLOCKS + 1, buf), -EINVAL);
	assert_int_equal(run_io(bio, SLU_IO_READ, 0, 1, buf + 512), -EINVAL);
	assert_int_equal(run_io(bio, (enum slu_io_op)77, 0, 1, buf), -EINVAL);
	assert_int_equal(slu_blockio_read(bio, 0, 1, buf + 8), -EINVAL);
	assert_int_equal(slu_blockio_write(bio, 0, 0, buf), -EINVAL);

	request_init(&r, SLU_IO_READ, 0, 2, buf, &left);
	r.io.iov = two;
	r.io.niov = 2;
	slu_blockio_submit(bio, &r.io);
	assert_int_equal(r.io.result, -EINVAL);
	two[1].iov_len = 2 * BS; /* the sum is not nblocks */
	left = 1;
	slu_blockio_submit(bio, &r.io);
	assert_int_equal(r.io.result, -EINVAL);
	left = 1;
	r.io.niov = 0;
	slu_blockio_submit(bio, &r.io);
	assert_int_equal(r.io.result, -EINVAL);
	assert_int_equal(slu_blockio_stats(bio)->errors, 8);
	slu_blockio_close(bio);
	free(buf);
}

static void a_read_only_image_refuses_changes_with_EROFS(void **state)
{
	struct slu_blockio_opts opts = options();
	struct slu_blockio *bio;
	void *buf = buffer(1);

	opts.readonly = true;
	opts.lock = SLU_LOCK_SHARED;
	bio = open_with(&opts);
	assert_true(slu_blockio_info(bio)->readonly);
	assert_int_equal(slu_blockio_read(bio, 0, 1, buf), 0);
	assert_int_equal(run_io(bio, SLU_IO_READ, 0, 1, buf), 0);
	assert_int_equal(slu_blockio_write(bio, 0, 1, buf), -EROFS);
	assert_int_equal(run_io(bio, SLU_IO_WRITE, 0, 1, buf), -EROFS);
	assert_int_equal(run_io(bio, SLU_IO_DISCARD, 0, 1, NULL), -EROFS);
	assert_int_equal(slu_blockio_reserve(bio, 0, 1), -EROFS);
	assert_int_equal(slu_blockio_grow(bio, NBLOCKS * 2), -EROFS);
	assert_int_equal(slu_blockio_flush(bio), 0);
	slu_blockio_close(bio);
	free(buf);
}

static void reserve_leaves_the_contents_alone(void **state)
{
	struct slu_blockio *bio = open_default();
	void *buf = buffer(8);
	int err;

	fill(buf, 2000, 8, 5);
	assert_int_equal(slu_blockio_write(bio, 2000, 8, buf), 0);
	err = slu_blockio_reserve(bio, 1990, 100);
	if (variant->loop) {
		assert_int_equal(err, -EOPNOTSUPP);
		assert_false(slu_blockio_info(bio)->can_reserve);
	} else if (slu_blockio_info(bio)->can_reserve) {
		assert_int_equal(err, 0);
	} else {
		assert_int_equal(err, -EOPNOTSUPP);
	}
	assert_int_equal(slu_blockio_read(bio, 2000, 8, buf), 0);
	check(buf, 2000, 8, 5);
	if (is_file() && !err) {
		struct stat st;

		assert_int_equal(stat(file, &st), 0);
		assert_int_equal(st.st_size, (off_t)NBLOCKS * BS);
		assert_true(st.st_blocks * 512 >= 100 * (blkcnt_t)BS);
	}
	slu_blockio_close(bio);
	free(buf);
}

static void discard_touches_nothing_beside_its_range(void **state)
{
	struct slu_blockio *bio = open_default();
	void *buf = buffer(12);

	fill(buf, 500, 12, 8);
	assert_int_equal(slu_blockio_write(bio, 500, 12, buf), 0);
	assert_int_equal(run_io(bio, SLU_IO_DISCARD, 502, 8, NULL), 0);
	assert_int_equal(slu_blockio_read(bio, 500, 12, buf), 0);
	check(buf, 500, 2, 8);
	check((char *)buf + 10 * BS, 510, 2, 8);
	fill(buf, 502, 8, 9);
	assert_int_equal(slu_blockio_write(bio, 502, 8, buf), 0);
	assert_int_equal(slu_blockio_read(bio, 502, 8, buf), 0);
	check(buf, 502, 8, 9);
	assert_int_equal(slu_blockio_stats(bio)->discards, 1);
	slu_blockio_close(bio);
	free(buf);
}

static void close_waits_for_everything_submitted(void **state)
{
	for (int round = 0; round < 10; round++) {
		struct slu_blockio_opts opts = options();
		static struct request r[100];
		_Atomic uint32_t left = 100;
		struct slu_blockio *bio;
		void *buf = buffer(4);

		opts.queue_depth = 8;
		bio = open_with(&opts);
		fill(buf, 0, 4, 1);
		for (uint32_t i = 0; i < 100; i++) {
			request_init(&r[i], i % 10 == 9 ? SLU_IO_FLUSH : SLU_IO_WRITE, i * 4, 4,
				     buf, &left);
			slu_blockio_submit(bio, &r[i].io);
		}
		slu_blockio_close(bio);
		assert_int_equal(left, 0);
		for (uint32_t i = 0; i < 100; i++) {
			assert_int_equal(r[i].ended, 1);
			assert_int_equal(r[i].io.result, 0);
		}
		free(buf);
	}
}

/* Each end submits the next, and the first a burst that no queue of the host's has room for. */
#define CHAIN 400
#define BURST 300

struct chain {
	struct request r; /* first, so that end_io finds the chain */
	struct slu_blockio *bio;
	struct request *burst;
	uint32_t links;
	_Atomic uint32_t left;
	char *buf;
};

static void chain_end(struct slu_io *io)
{
	static _Thread_local int depth;
	struct chain *c = slu_container_of(io, struct chain, r.io);
	_Atomic uint32_t *left = &c->left;

	slu_assert(!io->result);
	slu_assert(!depth++); /* an end_io does not run within another */
	if (!c->links++) {
		for (uint32_t i = 0; i < BURST; i++) {
			request_init(&c->burst[i], SLU_IO_WRITE, 1000 + i, 1, c->buf, &c->left);
			slu_blockio_submit(c->bio, &c->burst[i].io);
		}
	}
	if (c->links < CHAIN) {
		io->blkno = (io->blkno + 7) % 900;
		slu_blockio_submit(c->bio, io);
		depth--;
		return;
	}
	depth--;
	atomic_fetch_sub_explicit(left, 1, memory_order_release);
	slu_word_wake(left, 1 << 30);
}

static void end_io_may_submit_more_than_there_is_room_for(void **state)
{
	struct slu_blockio_opts opts = options();
	static struct chain c;

	opts.queue_depth = 2;
	memset(&c, 0, sizeof(c));
	c.bio = open_with(&opts);
	c.burst = calloc(BURST, sizeof(c.burst[0]));
	c.buf = buffer(1);
	fill(c.buf, 0, 1, 1);
	c.left = BURST + 1;
	request_init(&c.r, SLU_IO_WRITE, 0, 1, c.buf, &c.left);
	c.r.io.end_io = chain_end;
	slu_blockio_submit(c.bio, &c.r.io);
	wait_down_to(&c.left, 0);
	assert_int_equal(c.links, CHAIN);
	for (uint32_t i = 0; i < BURST; i++)
		assert_true(c.burst[i].ended == 1 && !c.burst[i].io.result);
	assert_int_equal(slu_blockio_stats(c.bio)->writes, CHAIN + BURST);
	slu_blockio_close(c.bio);
	free(c.burst);
	free(c.buf);
}

/* What the kernel ties to the thread that enters it must not be tied to a submitter. */
struct brief {
	struct slu_thread thread;
	struct slu_blockio *bio;
	struct request r[16];
};

static void brief_main(void *arg)
{
	struct brief *b = arg;

	for (unsigned int i = 0; i < slu_array_size(b->r); i++)
		slu_blockio_submit(b->bio, &b->r[i].io);
}

static void a_submitter_may_be_gone_before_its_requests_end(void **state)
{
	struct slu_blockio *bio = open_default();
	void *buf = buffer(256);

	fill(buf, 0, 256, 1);
	for (int round = 0; round < 5; round++) {
		_Atomic uint32_t left = 16;
		struct brief b = {.bio = bio};

		for (uint32_t i = 0; i < 16; i++)
			request_init(&b.r[i], i & 1 ? SLU_IO_WRITE : SLU_IO_FLUSH, i * 256,
				     i & 1 ? 256 : 0, buf, &left);
		assert_int_equal(slu_thread_start(&b.thread, "brief", brief_main, &b), 0);
		slu_thread_join(&b.thread);
		wait_down_to(&left, 0);
		for (uint32_t i = 0; i < 16; i++)
			assert_int_equal(b.r[i].io.result, 0);
	}
	slu_blockio_close(bio);
	free(buf);
}

static void the_volume_may_start_inside_the_image(void **state)
{
	struct slu_blockio_opts opts = options();
	struct slu_blockio *bio = open_default();
	void *buf = buffer(4);

	fill(buf, 1234, 4, 1);
	assert_int_equal(slu_blockio_write(bio, 1234, 4, buf), 0);
	slu_blockio_close(bio);

	opts.image_offset = 1235ull * BS;
	opts.image_size = 2ull * BS;
	bio = open_with(&opts);
	assert_int_equal(slu_blockio_info(bio)->nblocks, 2);
	assert_int_equal(slu_blockio_info(bio)->image_offset, opts.image_offset);
	fill(buf, 0, 2, 2);
	assert_int_equal(run_io(bio, SLU_IO_WRITE, 0, 2, buf), 0);
	assert_int_equal(slu_blockio_read(bio, 0, 2, buf), 0);
	check(buf, 0, 2, 2);
	assert_int_equal(run_io(bio, SLU_IO_READ, 1, 2, buf), -EIO);
	slu_blockio_close(bio);

	bio = open_default();
	assert_int_equal(slu_blockio_read(bio, 1234, 4, buf), 0);
	check(buf, 1234, 1, 1);
	check((char *)buf + BS, 0, 2, 2);
	check((char *)buf + 3 * BS, 1237, 1, 1);
	slu_blockio_close(bio);
	free(buf);
}

static void an_offset_beyond_the_image_is_EINVAL(void **state)
{
	struct slu_blockio_opts opts = options();
	struct slu_blockio *bio;

	opts.image_offset = (uint64_t)(NBLOCKS + 1) * BS;
	assert_int_equal(slu_blockio_open(image_name(), &opts, &bio), -EINVAL);
	opts.image_offset = 512;
	assert_int_equal(slu_blockio_open(image_name(), &opts, &bio), -EINVAL);
	opts.image_offset = UINT64_MAX - BS + 1;
	assert_int_equal(slu_blockio_open(image_name(), &opts, &bio), -EINVAL);
	opts.image_offset = 0;
	opts.image_size = 100;
	assert_int_equal(slu_blockio_open(image_name(), &opts, &bio), -EINVAL);
}

struct changer {
	struct slu_blockio *bio;
	struct slu_thread thread;
	void *buf;
	int written, reserved, grown;
	_Atomic bool done;
};

static void changer_main(void *arg)
{
	struct changer *c = arg;

	c->written = slu_blockio_write(c->bio, 20, 1, c->buf);
	c->reserved = slu_blockio_reserve(c->bio, 30, 1);
	c->grown = slu_blockio_grow(c->bio, NBLOCKS);
	atomic_store(&c->done, true);
}

static void a_suspended_image_is_read_and_not_changed(void **state)
{
	struct slu_blockio *bio = open_default();
	struct changer c = {.bio = bio, .buf = buffer(1)};
	void *before = buffer(4), *after = buffer(4), *found = buffer(4);
	struct request r[3];
	_Atomic uint32_t left = 3;

	fill(before, 10, 4, 1);
	fill(after, 10, 4, 2);
	fill(c.buf, 20, 1, 3);
	assert_int_equal(slu_blockio_write(bio, 10, 4, before), 0);
	assert_int_equal(slu_blockio_suspended_ns(bio), 0);
	slu_blockio_suspend(bio);
	request_init(&r[0], SLU_IO_WRITE, 10, 4, after, &left);
	request_init(&r[1], SLU_IO_DISCARD, 100, 4, after, &left);
	request_init(&r[2], SLU_IO_WRITE, NBLOCKS, 4, after, &left); /* and what is refused */
	for (unsigned int i = 0; i < 3; i++)
		slu_blockio_submit(bio, &r[i].io);
	assert_int_equal(slu_thread_start(&c.thread, "changer", changer_main, &c), 0);
	slu_sleep_ns(100 * SLU_NS_PER_MS);
	assert_int_equal(left, 3);
	assert_false(atomic_load(&c.done));
	assert_int_equal(slu_blockio_flush(bio), 0);
	assert_int_equal(slu_blockio_read(bio, 10, 4, found), 0);
	assert_memory_equal(found, before, 4 * BS);
	assert_int_equal(run_io(bio, SLU_IO_READ, 10, 4, found), 0);
	assert_memory_equal(found, before, 4 * BS);
	slu_blockio_resume(bio);
	wait_down_to(&left, 0);
	slu_thread_join(&c.thread);
	assert_int_equal(r[0].io.result, 0);
	assert_int_equal(r[1].io.result, 0);
	assert_int_equal(r[2].io.result, -EIO);
	assert_int_equal(c.written, 0);
	assert_true(c.reserved == 0 || c.reserved == -EOPNOTSUPP);
	assert_int_equal(c.grown, 0);
	assert_int_equal(slu_blockio_read(bio, 10, 4, found), 0);
	assert_memory_equal(found, after, 4 * BS);
	assert_int_equal(slu_blockio_read(bio, 20, 1, found), 0);
	assert_memory_equal(found, c.buf, BS);
	assert_in_range(slu_blockio_suspended_ns(bio), 100 * SLU_NS_PER_MS, 60 * SLU_NS_PER_SEC);
	slu_blockio_close(bio);
	free(before);
	free(after);
	free(found);
	free(c.buf);
}

static void suspending_waits_for_what_is_under_way(void **state)
{
	struct slu_blockio *bio = open_default();
	static struct request r[50];
	void *buf = buffer(4);

	fill(buf, 0, 4, 1);
	for (unsigned int round = 0; round < 50; round++) {
		_Atomic uint32_t left = 50;
		uint32_t ended;

		for (uint32_t i = 0; i < 50; i++) {
			request_init(&r[i], SLU_IO_WRITE, i * 4, 4, buf, &left);
			slu_blockio_submit(bio, &r[i].io);
			if (i == round)
				slu_blockio_suspend(bio);
		}
		/* end_io comes a moment after; the others are not even on their way. */
		wait_down_to(&left, 49 - round);
		ended = left;
		slu_sleep_ns(SLU_NS_PER_MS);
		assert_int_equal(ended, 49 - round);
		assert_int_equal(left, ended);
		slu_blockio_resume(bio);
		wait_down_to(&left, 0);
	}
	slu_blockio_close(bio);
	free(buf);
}

static void grow_makes_files_longer_and_never_shorter(void **state)
{
	struct slu_blockio *bio = open_default();
	const struct slu_blockio_info *info = slu_blockio_info(bio);
	void *buf = buffer(1);

	assert_int_equal(slu_blockio_grow(bio, 10), 0);
	assert_int_equal(info->nblocks, NBLOCKS);
	assert_int_equal(slu_blockio_grow(bio, UINT64_MAX), -EFBIG);
	assert_int_equal(slu_blockio_grow(bio, 1ull << 52), -EFBIG);
	if (variant->loop) {
		assert_int_equal(slu_blockio_grow(bio, NBLOCKS + 5), -ENOSPC);
		assert_int_equal(info->nblocks, NBLOCKS);
	} else {
		assert_int_equal(run_io(bio, SLU_IO_READ, NBLOCKS + 4, 1, buf), -EIO);
		assert_int_equal(slu_blockio_grow(bio, NBLOCKS + 5), 0);
		assert_int_equal(info->nblocks, NBLOCKS + 5);
		assert_int_equal(run_io(bio, SLU_IO_READ, NBLOCKS + 4, 1, buf), 0);
		for (unsigned int i = 0; i < BS; i++)
			assert_int_equal(((char *)buf)[i], 0);
		fill(buf, NBLOCKS + 4, 1, 1);
		assert_int_equal(run_io(bio, SLU_IO_WRITE, NBLOCKS + 4, 1, buf), 0);
	}
	slu_blockio_close(bio);
	free(buf);
}

/* ------------------------------------------------------------------ transfers that stop short */

static void an_image_cut_short_underneath_is_EIO(void **state)
{
	struct slu_blockio *bio;
	char *buf = buffer(4);

	bio = open_default();
	fill(buf, 100, 4, 6);
	assert_int_equal(slu_blockio_write(bio, 100, 4, buf), 0);
	assert_int_equal(truncate(file, 102 * (off_t)BS), 0);
	memset(buf, 0, (size_t)4 * BS);
	assert_int_equal(run_io(bio, SLU_IO_READ, 100, 4, buf), -EIO);
	check(buf, 100, 2, 6);
	assert_int_equal(slu_blockio_read(bio, 100, 4, buf), -EIO);
	assert_int_equal(run_io(bio, SLU_IO_READ, 102, 1, buf), -EIO);
	/* Nor is it made long again, with zeros where there was data. */
	assert_true(slu_blockio_is_cut(bio));
	assert_int_equal(slu_blockio_write(bio, 110, 4, buf), -EIO);
	assert_int_equal(run_io(bio, SLU_IO_WRITE, 110, 4, buf), -EIO);
	slu_blockio_close(bio);
	assert_int_equal(truncate(file, NBLOCKS * (off_t)BS), 0);
	free(buf);
}

static void an_image_cut_below_what_it_must_have_is_seen_by_asking(void **state)
{
	struct slu_blockio *bio = open_default();
	char *buf = buffer(1);

	slu_blockio_expect(bio, NBLOCKS - 1);
	assert_false(slu_blockio_is_cut(bio));
	assert_int_equal(truncate(file, (NBLOCKS - 1) * (off_t)BS), 0);
	assert_false(slu_blockio_is_cut(bio));
	assert_int_equal(slu_blockio_write(bio, 1, 1, buf), 0);
	assert_int_equal(truncate(file, (NBLOCKS - 2) * (off_t)BS), 0);
	assert_true(slu_blockio_is_cut(bio));
	assert_int_equal(truncate(file, NBLOCKS * (off_t)BS), 0);
	assert_true(slu_blockio_is_cut(bio)); /* what was there is gone all the same */
	assert_int_equal(run_io(bio, SLU_IO_WRITE, 1, 1, buf), -EIO);
	assert_int_equal(slu_blockio_read(bio, 1, 1, buf), 0);
	slu_blockio_close(bio);
	free(buf);
}

/*
 * A limit on file sizes stops a write in the middle of an iovec; the engine goes on, and is told.
 */
static void a_partial_write_is_carried_on_before_it_fails(void **state)
{
	struct slu_blockio_opts opts = options();
	struct rlimit old, limit;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
	struct slu_blockio *bio;
	char *buf = buffer(8);
	struct iovec iov[2] = {{buf, 2 * BS}, {buf + 2 * BS, 6 * BS}};
	_Atomic uint32_t left = 1;
	struct request r;

	bio = open_with(&opts);
	assert_int_equal(truncate(file, 0), 0);
	assert_int_equal(truncate(file, NBLOCKS * (off_t)BS), 0);
	sigaction(SIGXFSZ, &ignore, &before);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 205 * (rlim_t)BS + (variant->buffered ? 100 : 0);
	setrlimit(RLIMIT_FSIZE, &limit);

	fill(buf, 200, 8, 4);
	request_init(&r, SLU_IO_WRITE, 200, 8, NULL, &left);
	r.io.iov = iov;
	r.io.niov = 2;
	slu_blockio_submit(bio, &r.io);
	wait_down_to(&left, 0);
	setrlimit(RLIMIT_FSIZE, &old);
	sigaction(SIGXFSZ, &before, NULL);
	assert_int_equal(r.io.result, -EFBIG);
	assert_ptr_equal(iov[1].iov_base, buf + 2 * BS);
	assert_int_equal(iov[1].iov_len, 6 * BS);
	assert_int_equal(slu_blockio_read(bio, 200, 8, buf), 0);
	check(buf, 200, 5, 4);
	for (size_t i = 6 * BS; i < 8 * BS; i++)
		assert_int_equal(buf[i], 0);
	slu_blockio_close(bio);
	free(buf);
}

#if defined(SLU_STRESS_POINTS)
/* Called where a transfer has stopped short: makes room for the rest of it. */
struct partial {
	_Atomic unsigned int hits;
	struct rlimit *limit;
	const void *data; /* of the blocks 202 to 207 */
};

static void make_room(void *ctx)
{
	struct partial *p = ctx;

	p->hits++;
	if (p->limit)
		setrlimit(RLIMIT_FSIZE, p->limit);
	if (p->data) {
		int fd = open(file, O_WRONLY | O_CLOEXEC);

		slu_assert(pwrite(fd, p->data, 6 * BS, 202 * (off_t)BS) == 6 * BS);
		close(fd);
	}
}

static void a_write_that_stops_short_is_finished(void **state)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
	struct slu_blockio *bio = open_default();
	char *buf = buffer(8);
	struct rlimit old, limit;
	struct partial p = {.limit = &old};

	for (int sync = 0; sync < 2; sync++) {
		sigaction(SIGXFSZ, &ignore, &before);
		getrlimit(RLIMIT_FSIZE, &old);
		limit = old;
		limit.rlim_cur = 205 * (rlim_t)BS + (variant->buffered ? 100 : 0);
		fill(buf, 200, 8, 20 + (uint64_t)sync);
		slu_stress_point_set("blockio-partial", make_room, &p);
		setrlimit(RLIMIT_FSIZE, &limit);
		if (sync)
			assert_int_equal(slu_blockio_write(bio, 200, 8, buf), 0);
		else
			assert_int_equal(run_io(bio, SLU_IO_WRITE, 200, 8, buf), 0);
		slu_stress_point_set("blockio-partial", NULL, NULL);
		sigaction(SIGXFSZ, &before, NULL);
		assert_int_equal(p.hits, sync + 1);
		memset(buf, 0, (size_t)8 * BS);
		assert_int_equal(slu_blockio_read(bio, 200, 8, buf), 0);
		check(buf, 200, 8, 20 + (uint64_t)sync);
	}
	slu_blockio_close(bio);
	free(buf);
}

static void a_read_that_stops_short_is_finished(void **state)
{
	struct slu_blockio *bio = open_default();
	char *buf = buffer(8), *rest = buffer(6);
	struct iovec iov[3] = {{buf, BS}, {buf + BS, 3 * BS}, {buf + 4 * BS, 4 * BS}};
	_Atomic uint32_t left = 1;
	struct partial p = {.data = rest};
	struct request r;

	fill(buf, 200, 8, 30);
	fill(rest, 202, 6, 30);
	assert_int_equal(slu_blockio_write(bio, 200, 8, buf), 0);
	assert_int_equal(truncate(file, 202 * (off_t)BS + (variant->buffered ? 100 : 0)), 0);
	memset(buf, 0, (size_t)8 * BS);
	slu_stress_point_set("blockio-partial", make_room, &p);
	request_init(&r, SLU_IO_READ, 200, 8, NULL, &left);
	r.io.iov = iov;
	r.io.niov = 3;
	slu_blockio_submit(bio, &r.io);
	wait_down_to(&left, 0);
	slu_stress_point_set("blockio-partial", NULL, NULL);
	assert_int_equal(r.io.result, 0);
	assert_true(p.hits >= 1); /* again at the end of the iovec in which it stopped */
	check(buf, 200, 8, 30);
	slu_blockio_close(bio);
	assert_int_equal(truncate(file, NBLOCKS * (off_t)BS), 0);
	free(buf);
	free(rest);
}
#endif

static void the_rest_of_an_iovec_is_found(void **state)
{
	char base[SLU_BLOCK_SIZE * 4];
	struct iovec iov[3] = {{base, 4096}, {base, 8192}, {base, 4096}}, rest;
	int idx;

	assert_false(image_iov_rest(iov, 3, 0, &idx, &rest));
	assert_int_equal(idx, 0);
	assert_true(image_iov_rest(iov, 3, 1, &idx, &rest));
	assert_int_equal(idx, 0);
	assert_int_equal(rest.iov_len, 4095);
	assert_false(image_iov_rest(iov, 3, 4096, &idx, &rest));
	assert_int_equal(idx, 1);
	assert_true(image_iov_rest(iov, 3, 4096 + 512, &idx, &rest));
	assert_int_equal(idx, 1);
	assert_ptr_equal(rest.iov_base, base + 512);
	assert_int_equal(rest.iov_len, 8192 - 512);
	assert_true(image_iov_rest(iov, 3, 4096 + 8192 + 100, &idx, &rest));
	assert_int_equal(idx, 2);
	assert_int_equal(rest.iov_len, 4096 - 100);
	assert_false(image_iov_rest(iov, 3, 16384, &idx, &rest));
	assert_int_equal(idx, 3);
}

static void counters_count(void **state)
{
	struct slu_blockio *bio = open_default();
	struct slu_blockio_stats *s = slu_blockio_stats(bio);
	void *buf = buffer(8);

	memset(buf, 1, (size_t)8 * BS);
	assert_int_equal(slu_blockio_write(bio, 0, 8, buf), 0);
	assert_int_equal(run_io(bio, SLU_IO_WRITE, 0, 3, buf), 0);
	assert_int_equal(slu_blockio_read(bio, 0, 8, buf), 0);
	assert_int_equal(run_io(bio, SLU_IO_READ, 0, 1, buf), 0);
	assert_int_equal(slu_blockio_flush(bio), 0);
	assert_int_equal(run_io(bio, SLU_IO_READ, NBLOCKS * 2, 1, buf), -EIO);
	assert_int_equal(s->writes, 2);
	assert_int_equal(s->write_blocks, 11);
	assert_int_equal(s->reads, 2);
	assert_int_equal(s->read_blocks, 9);
	assert_int_equal(s->flushes, 1);
	assert_int_equal(s->errors, 1);
	slu_blockio_close(bio);
	free(buf);
}

/* ------------------------------------------------------------------ running them */

static bool can_loop(void)
{
	bool ok = !geteuid() && !access("/dev/loop-control", R_OK | W_OK);

	if (!ok && getenv("CI"))
		fail_msg("CI needs loop devices");
	return ok;
}

static bool can_uring(void)
{
	struct slu_blockio_opts opts = {.engine = "uring", .readonly = true};
	struct slu_blockio *bio;
	int err = slu_blockio_open("/proc/self/exe", &opts, &bio);

	if (!err)
		slu_blockio_close(bio);
	else if (getenv("CI"))
		fail_msg("CI needs io_uring");
	return !err;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(info_tells_what_is_open),
		cmocka_unit_test(what_is_written_is_read_back_after_reopening),
		cmocka_unit_test(synchronous_helpers_take_more_than_one_request_can),
		cmocka_unit_test(many_iovecs_are_one_transfer),
		cmocka_unit_test(four_threads_at_once_do_not_mix_up_their_data),
		cmocka_unit_test(flushes_submitted_together_all_end),
		cmocka_unit_test(beyond_the_end_is_EIO_and_never_wraps),
		cmocka_unit_test(requests_of_a_wrong_shape_are_EINVAL),
		cmocka_unit_test(a_read_only_image_refuses_changes_with_EROFS),
		cmocka_unit_test(reserve_leaves_the_contents_alone),
		cmocka_unit_test(discard_touches_nothing_beside_its_range),
		cmocka_unit_test(close_waits_for_everything_submitted),
		cmocka_unit_test(end_io_may_submit_more_than_there_is_room_for),
		cmocka_unit_test(a_submitter_may_be_gone_before_its_requests_end),
		cmocka_unit_test(the_volume_may_start_inside_the_image),
		cmocka_unit_test(an_offset_beyond_the_image_is_EINVAL),
		cmocka_unit_test(the_rest_of_an_iovec_is_found),
		cmocka_unit_test(counters_count),
		cmocka_unit_test(a_suspended_image_is_read_and_not_changed),
		cmocka_unit_test(suspending_waits_for_what_is_under_way),
		cmocka_unit_test(grow_makes_files_longer_and_never_shorter),
	};
	const struct CMUnitTest file_tests[] = {
		cmocka_unit_test(an_image_cut_short_underneath_is_EIO),
		cmocka_unit_test(an_image_cut_below_what_it_must_have_is_seen_by_asking),
		cmocka_unit_test(a_partial_write_is_carried_on_before_it_fails),
#if defined(SLU_STRESS_POINTS)
		cmocka_unit_test(a_write_that_stops_short_is_finished),
		cmocka_unit_test(a_read_that_stops_short_is_finished),
#endif
	};
	int failed = 0;

	for (size_t i = 0; i < slu_array_size(variants); i++) {
		variant = &variants[i];
		if ((variant->loop && !can_loop()) ||
		    (!strcmp(variant->engine, "uring") && !can_uring())) {
			print_message("SKIPPED: %s is not possible here\n", variant->name);
			continue;
		}
		failed += cmocka_run_group_tests_name(variant->name, tests, group_setup,
						      group_teardown);
		if (is_file())
			failed += cmocka_run_group_tests_name(variant->name, file_tests,
							      group_setup, group_teardown);
	}
	return failed;
}
