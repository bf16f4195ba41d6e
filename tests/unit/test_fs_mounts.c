/* SPDX-License-Identifier: MIT */
/*
 * Mounted and unmounted many times in one process: no descriptor, no thread and no memory more than
 * before. An unmount in spite of an error. And an image that is cut off while it is mounted.
 */
#include "fs_rig.h"
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#define WARM_UP 50u

static char dir[256], image[300];

static unsigned int entries(const char *name)
{
	DIR *d = opendir(name);
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

struct held {
	unsigned int fds, threads;
	size_t memory; /* in use by malloc's callers; always 0 under a sanitizer, which looks itself */
};

static struct held look_at_process(void)
{
	struct held h = {
		.fds = entries("/proc/self/fd"),
		.threads = entries("/proc/self/task"),
		.memory = mallinfo2().uordblks,
	};

	return h;
}

/*
 * malloc may hand a piece of memory out with a few bytes more than were asked for, and counts those
 * too. One piece lost with each mount of an image would be 4,800 bytes. The simulated disk has a
 * piece for each block, taken and given back with every write.
 */
#define IMAGE_SLACK (1u << 10)
#define SIM_SLACK   (64u << 10) /* 69 bytes for each mount */

/* A joined thread is gone from the process, but for a moment not from /proc. */
static void expect_held(const struct held *before, size_t slack)
{
	struct held now = look_at_process();

	for (int i = 0; i < 1000 && now.threads > before->threads; i++) {
		slu_sleep_ns(SLU_NS_PER_MS);
		now = look_at_process();
	}
	assert_int_equal(now.fds, before->fds);
	assert_int_equal(now.threads, before->threads);
	assert_in_range(now.memory, 0, before->memory + slack);
}

/* ------------------------------------------------------------------ one mount */

static void mount_bio(struct rig *r, struct slu_blockio *bio)
{
	struct slu_fs_opts opts = {.cache_size = 4 * MIB};
	const char *why = NULL;

	assert_int_equal(slu_fs_mount(bio, &opts, &r->fs, &why), 0);
}

static struct slu_blockio *open_image(const char *engine)
{
	struct slu_blockio_opts opts = {.engine = engine, .lock = SLU_LOCK_EXCLUSIVE};
	struct slu_blockio *bio = NULL;
	int err = slu_blockio_open(image, &opts, &bio);

	if (err == -ENOSYS || err == -EPERM)
		return NULL; /* io_uring is not to be had here */
	assert_int_equal(err, 0);
	return bio;
}

/* Half of the files of the round before go, others come: what is on the volume stays as much. */
static void work(struct rig *r, unsigned int round)
{
	static uint8_t data[20000], back[sizeof(data)];
	char name[32];
	uint64_t ino;

	if (round) {
		snprintf(name, sizeof(name), "file%u", round - 1);
		ino = find_file(r, name);
		fill(data, sizeof(data), round - 1);
		assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(data));
		assert_memory_equal(data, back, sizeof(data));
		assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, name), 0);
		slu_ns_forget(r->fs->ns, ino, 1);
	}
	snprintf(name, sizeof(name), "file%u", round);
	ino = make_file(r, name);
	fill(data, sizeof(data), round);
	write_at(r, ino, 0, data, sizeof(data));
	if (round % 2)
		assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
	if (round % 3)
		slu_ns_forget(r->fs->ns, ino, 1); /* and else the end of the mount forgets */
}

static void many(struct rig *r, const char *engine, unsigned int rounds)
{
	struct held before = {0};

	for (unsigned int i = 0; i < rounds; i++) {
		struct slu_blockio *bio = engine ? open_image(engine) : open_disk(r, false);

		if (!bio)
			skip();
		mount_bio(r, bio);
		work(r, i);
		assert_int_equal(slu_fs_unmount(r->fs), 0);
		r->fs = NULL;
		if (i + 1 == WARM_UP)
			before = look_at_process();
	}
	expect_held(&before, engine ? IMAGE_SLACK : SIM_SLACK);
}

/* ------------------------------------------------------------------ cases */

/* The disk gets memory for all of its blocks, since it is not what is measured. */
static int setup_unmounted(void **state)
{
	uint8_t block[SLU_BLOCK_SIZE];
	struct rig *r;

	setup_rig(state);
	r = *state;
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	r->fs = NULL;
	for (uint64_t i = 0; i < VOLUME_BLOCKS; i++) {
		slu_simdisk_peek(r->disk, i, block);
		slu_simdisk_poke(r->disk, i, block);
	}
	return 0;
}

static int setup_image(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct rig *r = calloc(1, sizeof(*r));
	struct slu_blockio *bio;
	int fd;

	snprintf(dir, sizeof(dir), "%s/slu-mounts-XXXXXX", tmp ? tmp : "/var/tmp");
	assert_non_null(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/image", dir);
	fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)VOLUME_BLOCKS * SLU_BLOCK_SIZE), 0);
	close(fd);
	bio = open_image("threads");
	assert_int_equal(slu_fs_format(bio, VOLUME_BLOCKS, "test", 0, 0), 0);
	slu_blockio_close(bio);
	r->ctx.may_wait = true;
	*state = r;
	return 0;
}

static int teardown_image(void **state)
{
	unlink(image);
	rmdir(dir);
	free(*state);
	return 0;
}

#if defined(__SANITIZE_THREAD__) /* which is slow */
#define SLOW 4u
#else
#define SLOW 1u
#endif

static void a_thousand_mounts_of_a_simulated_disk_leave_nothing(void **state)
{
	struct rig *r = *state;

	slu_simdisk_inline(r->disk, true);
	many(r, NULL, 1000 / SLOW);
}

static void mounts_of_an_image_with_io_uring_leave_nothing(void **state)
{
	many(*state, "uring", 240 / SLOW);
}

static void mounts_of_an_image_with_threads_leave_nothing(void **state)
{
	many(*state, "threads", 240 / SLOW);
}

static _Atomic unsigned int turned_readonly, read_errors;

static void on_event(void *ctx, const struct slu_event *ev)
{
	if (ev->kind == SLU_EVENT_READONLY && strstr(ev->text, "shorter"))
		turned_readonly++;
	if (ev->kind == SLU_EVENT_READ_ERROR)
		read_errors++;
}

static off_t image_bytes(void)
{
	struct stat st;

	assert_int_equal(stat(image, &st), 0);
	return st.st_size;
}

static void an_image_cut_off_while_mounted_promises_nothing_more(void **state)
{
	struct slu_fs_opts opts = {.cache_size = 4 * MIB, .events = {.post = on_event}};
	off_t half = (off_t)VOLUME_BLOCKS * SLU_BLOCK_SIZE / 2;
	static uint8_t data[2 * MIB];
	struct rig *r = *state;
	struct slu_blockio *bio;
	const char *why = NULL;
	struct slu_attr attr;
	uint64_t ino;

	atomic_store(&turned_readonly, 0);
	assert_int_equal(slu_fs_mount(open_image("threads"), &opts, &r->fs, &why), 0);
	ino = make_file(r, "file");
	fill(data, sizeof(data), 1);
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false), 0);
	write_at(r, ino, 100, data, sizeof(data) - 100);
	assert_int_equal(truncate(image, half), 0);
	assert_true(slu_fs_fsync(r->fs, &r->ctx, ino, UINT64_MAX, false) < 0);
	assert_true(slu_fs_sync(r->fs) < 0);
	assert_int_equal(atomic_load(&turned_readonly), 1);
	assert_int_equal(slu_ns_mknod(r->fs->ns, &r->ctx, SLU_INO_ROOT, "more", S_IFREG | 0644, 0,
				      &attr),
			 -EROFS);
	assert_true(slu_fs_unmount(r->fs) < 0);
	assert_int_equal(image_bytes(), half); /* and nothing has made it long again */

	bio = open_image("threads");
	assert_true(slu_fs_mount(bio, &opts, &r->fs, &why) < 0);
	assert_non_null(strstr(why, "shorter"));
	slu_blockio_close(bio);
	r->fs = NULL;
}

static void reading_what_was_cut_off_says_so(void **state)
{
	struct slu_fs_opts opts = {.cache_size = 4 * MIB, .events = {.post = on_event}};
	static uint8_t data[MIB];
	struct rig *r = *state;
	struct slu_read_vec vec;
	const char *why = NULL;
	uint64_t ino;

	atomic_store(&turned_readonly, 0);
	atomic_store(&read_errors, 0);
	assert_int_equal(slu_fs_mount(open_image("threads"), &opts, &r->fs, &why), 0);
	ino = make_file(r, "file");
	fill(data, sizeof(data), 1);
	write_at(r, ino, 0, data, sizeof(data));
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	assert_int_equal(slu_fs_mount(open_image("threads"), &opts, &r->fs, &why), 0);
	ino = find_file(r, "file");
	assert_int_equal(truncate(image, 0), 0);
	assert_int_equal(slu_fs_read(r->fs, &r->ctx, ino, UINT64_MAX, 0, 4096, false, &vec), -EIO);
	assert_int_equal(atomic_load(&read_errors), 1);
	assert_int_equal(atomic_load(&turned_readonly), 1);
	assert_true(slu_fs_unmount(r->fs) < 0);
	assert_int_equal(image_bytes(), 0);
	r->fs = NULL;
}

static void an_unmount_that_had_to_try_twice_has_lost_nothing(void **state)
{
	const struct slu_simdisk_fault once = {.op = SLU_IO_WRITE, .nth = 1};
	uint8_t data[9000], found[sizeof(data)];
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");

	fill(data, sizeof(data), 1);
	write_at(r, ino, 0, data, sizeof(data));
	slu_simdisk_fault(r->disk, &once);
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	assert_int_equal(slu_simdisk_fault_hits(r->disk), 1);
	mount_rig(r, false);
	assert_int_equal(read_at(r, find_file(r, "file"), 0, found, sizeof(found)), sizeof(found));
	assert_memory_equal(found, data, sizeof(data));
}

#define IMAGE_CASE(fn) cmocka_unit_test_setup_teardown(fn, setup_image, teardown_image)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_thousand_mounts_of_a_simulated_disk_leave_nothing,
						setup_unmounted, teardown_rig),
		cmocka_unit_test_setup_teardown(an_unmount_that_had_to_try_twice_has_lost_nothing,
						setup_rig, teardown_rig),
		IMAGE_CASE(mounts_of_an_image_with_io_uring_leave_nothing),
		IMAGE_CASE(mounts_of_an_image_with_threads_leave_nothing),
		IMAGE_CASE(an_image_cut_off_while_mounted_promises_nothing_more),
		IMAGE_CASE(reading_what_was_cut_off_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
