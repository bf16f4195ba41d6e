/* SPDX-License-Identifier: MIT */
/*
 * A whole stack over the simulated disk, everything but FUSE, for the tests of the fs layer. An
 * operation that has to work is asserted to.
 */
#ifndef FS_RIG_H
#define FS_RIG_H

#include "sluice/fs.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define VOLUME_BLOCKS 16384u /* 64 MiB */
#define MIB           (1u << 20)

struct rig {
	struct slu_simdisk *disk;
	struct slu_fs *fs;
	struct slu_ctx ctx;
	uint64_t commit_interval_ns; /* 0: the usual one */
};

static inline struct slu_blockio *open_disk(struct rig *r, bool readonly)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = r->disk, .readonly = readonly};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("sim", &opts, &bio), 0);
	return bio;
}

static inline void mount_rig(struct rig *r, bool readonly)
{
	struct slu_fs_opts opts = {.readonly = readonly,
				   .cache_size = 24 * MIB,
				   .commit_interval_ns = r->commit_interval_ns};
	const char *why = NULL;
	int err = slu_fs_mount(open_disk(r, readonly), &opts, &r->fs, &why);

	if (err)
		print_error("mount: %d, %s\n", err, why ? why : "no reason");
	assert_int_equal(err, 0);
}

static inline void remount_rig(struct rig *r)
{
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	mount_rig(r, false);
}

static inline int setup_rig(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct slu_blockio *bio;

	r->disk = slu_simdisk_new(VOLUME_BLOCKS, 1);
	r->ctx.may_wait = true;
	bio = open_disk(r, false);
	assert_int_equal(slu_fs_format(bio, VOLUME_BLOCKS, "test", 0, 0), 0);
	slu_blockio_close(bio);
	mount_rig(r, false);
	*state = r;
	return 0;
}

static inline int teardown_rig(void **state)
{
	struct rig *r = *state;

	if (r->fs)
		assert_int_equal(slu_fs_unmount(r->fs), 0);
	slu_simdisk_free(r->disk);
	free(r);
	return 0;
}

/* A thread that does one thing again and again, beside what is tested, until it fails or is stopped. */
struct hammer {
	struct rig *r;
	struct slu_thread thread;
	unsigned int number, rounds;
	int err;
	_Atomic bool *stop;
	int (*once)(struct hammer *h, struct slu_ctx *ctx);
};

static inline void hammer_main(void *arg)
{
	struct hammer *h = arg;
	struct slu_ctx ctx = {.may_wait = true};

	while (!atomic_load(h->stop) && !h->err) {
		h->err = h->once(h, &ctx);
		h->rounds++;
	}
}

/* For slu_fs_syncfs and slu_fs_freeze where no kernel holds anything back. */
static inline int no_kernel(void *ctx)
{
	return 0;
}

static inline uint64_t make_file(struct rig *r, const char *name)
{
	struct slu_attr attr;

	assert_int_equal(slu_ns_mknod(r->fs->ns, &r->ctx, SLU_INO_ROOT, name, S_IFREG | 0644, 0,
				      &attr),
			 0);
	return attr.ino;
}

static inline uint64_t find_file(struct rig *r, const char *name)
{
	struct slu_attr attr;

	assert_int_equal(slu_ns_lookup(r->fs->ns, &r->ctx, SLU_INO_ROOT, name, &attr), 0);
	return attr.ino;
}

static inline int try_write(struct rig *r, uint64_t ino, uint64_t pos, const void *data, size_t len,
			    uint64_t *done)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct slu_source_buffer src;
	struct slu_write_result res;
	int err;

	slu_source_buffer_init(&src, &iov, 1);
	err = slu_fs_write(r->fs, &r->ctx, ino, UINT64_MAX, &src.source, pos, len, 0, false, &res);
	*done = res.done;
	return err;
}

static inline void write_at(struct rig *r, uint64_t ino, uint64_t pos, const void *data, size_t len)
{
	uint64_t done;

	assert_int_equal(try_write(r, ino, pos, data, len, &done), 0);
	assert_int_equal(done, len);
}

/* Reads [pos, pos + len) and returns how much there was. */
static inline size_t read_at(struct rig *r, uint64_t ino, uint64_t pos, void *buf, size_t len)
{
	struct slu_read_vec vec;
	size_t n = 0;

	assert_int_equal(slu_fs_read(r->fs, &r->ctx, ino, UINT64_MAX, pos, len, false, &vec), 0);
	for (int i = 0; i < vec.niov; i++) {
		memcpy((char *)buf + n, vec.iov[i].iov_base, vec.iov[i].iov_len);
		n += vec.iov[i].iov_len;
	}
	assert_int_equal(n, vec.len);
	slu_read_done(&vec);
	return n;
}

static inline void fill(uint8_t *buf, size_t len, unsigned int seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf[i] = (uint8_t)x;
	}
}

static inline uint64_t size_of(struct rig *r, uint64_t ino)
{
	struct slu_inode *inode;
	struct slu_attr attr;

	assert_int_equal(slu_inode_get(r->fs->ns, ino, &inode), 0);
	slu_inode_attr(inode, &attr);
	slu_inode_put(inode);
	return attr.size;
}

static inline uint64_t free_blocks(struct rig *r)
{
	struct slu_statfs st;

	slu_fs_statfs(r->fs, &st);
	return st.bfree;
}

static inline uint64_t inodes_in_use(struct rig *r)
{
	struct slu_statfs st;

	slu_fs_statfs(r->fs, &st);
	return st.files - st.ffree;
}

/*
 * Frees all that can be freed, until so many blocks are free and so many inodes in use, and has it
 * committed: a thread of the fs's own may be at it too, and blocks go before their inode's record.
 */
static inline void reclaim_rig(struct rig *r, uint64_t blocks, uint64_t inodes)
{
	for (int i = 0; i < 10000; i++) {
		while (slu_ns_reclaim(r->fs->ns) > 0)
			;
		assert_int_equal(slu_fs_sync(r->fs), 0);
		if (free_blocks(r) == blocks && inodes_in_use(r) == inodes)
			break;
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	/* What is freed is used again after two commits. */
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(slu_fs_sync(r->fs), 0);
}

/* The power goes: what was not flushed is lost, as `seed` has it; then the volume is mounted again. */
static inline void cut_power(struct rig *r, uint64_t seed)
{
	struct slu_simdisk *after;

	slu_simdisk_power_cut(r->disk, seed);
	after = slu_simdisk_clone(r->disk);
	slu_simdisk_fail(r->disk, true); /* the old mount cannot touch anything any more */
	slu_fs_unmount(r->fs);
	slu_simdisk_free(r->disk);
	r->disk = after;
}

#define RIG_CASE(fn) cmocka_unit_test_setup_teardown(fn, setup_rig, teardown_rig)

#endif
