/* SPDX-License-Identifier: MIT */
/*
 * A session spoken to in the kernel's own words: a socket takes the device's place, and the test
 * the kernel's. Below it is a whole volume on a simulated disk.
 */
#ifndef SESSION_RIG_H
#define SESSION_RIG_H

#include "fuse_private.h"
#include "sluice/blockio.h"
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_WRITE 65536u
#define BUF_SIZE  (1u << 17)
#define NBLOCKS   8192u
#define KERNEL_FLAGS                                                                           \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT | FUSE_BIG_WRITES |       \
	 FUSE_DONT_MASK | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS | \
	 FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2 |     \
	 FUSE_SETXATTR_EXT | FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA | FUSE_SPLICE_READ)

struct kernel {
	struct slu_simdisk *disk;
	struct slu_fs *fs;
	struct slu_session *s;
	int fd; /* our end */
	uint64_t unique;
	uint32_t uid;
	_Atomic unsigned int ended;
	char buf[BUF_SIZE]; /* the last answer */
	uint32_t len;       /* of what follows its header */
	int error;
};

static inline void on_ended(void *ctx)
{
	struct kernel *k = ctx;

	atomic_fetch_add(&k->ended, 1);
}

/* ------------------------------------------------------------------ a mount without a kernel */

static inline struct slu_blockio *open_disk(struct slu_simdisk *disk)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = disk, .lock = SLU_LOCK_EXCLUSIVE};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("sim", &opts, &bio), 0);
	return bio;
}

/* wanted says what is not as usual. */
static inline void start(struct kernel *k, const struct slu_session_opts *wanted)
{
	struct slu_fs_opts opts = {.cache_size = 16 << 20};
	struct slu_session_opts sopts = *wanted;
	struct timeval timeout = {.tv_sec = 30};
	const char *why = NULL;
	int sv[2], size = 1 << 20;
	struct slu_blockio *bio;

	memset(k, 0, sizeof(*k));
	sopts.max_write = MAX_WRITE;
	sopts.max_workers = 4;
	sopts.ended = on_ended;
	sopts.ctx = k;
	k->disk = slu_simdisk_new(NBLOCKS, 7);
	bio = open_disk(k->disk);
	assert_int_equal(slu_fs_format(bio, NBLOCKS, "test", 0, 0), 0);
	slu_blockio_close(bio);
	bio = open_disk(k->disk);
	if (slu_fs_mount(bio, &opts, &k->fs, &why))
		fail_msg("mount: %s", why ? why : "?");
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	for (int i = 0; i < 2; i++)
		setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	k->fd = sv[0];
	assert_int_equal(slu_session_new(k->fs, sv[1], &sopts, &k->s), 0);
	assert_int_equal(slu_session_start(k->s), 0);
}

static inline void stop(struct kernel *k)
{
	slu_session_stop(k->s);
	assert_int_equal(slu_fs_unmount(k->fs), 0);
	slu_session_free(k->s);
	close(k->fd);
	slu_simdisk_free(k->disk);
}

/* ------------------------------------------------------------------ requests */

static inline uint64_t post_raw(struct kernel *k, uint32_t opcode, uint64_t nodeid, const void *arg,
				size_t arglen, const void *data, size_t datalen)
{
	struct fuse_in_header h = {
		.len = (uint32_t)(sizeof(h) + arglen + datalen),
		.opcode = opcode,
		.unique = ++k->unique,
		.nodeid = nodeid,
		.uid = k->uid,
		.gid = k->uid,
		.pid = 1,
	};
	struct iovec iov[3] = {{&h, sizeof(h)}, {(void *)arg, arglen}, {(void *)data, datalen}};

	assert_int_equal(writev(k->fd, iov, 3), h.len);
	return h.unique;
}

/* The next answer; false: none within the time. */
static inline bool receive(struct kernel *k, uint64_t *ret_unique)
{
	struct fuse_out_header out;
	ssize_t n = read(k->fd, k->buf, sizeof(k->buf));

	if (n < (ssize_t)sizeof(out))
		return false;
	memcpy(&out, k->buf, sizeof(out));
	assert_int_equal(out.len, n);
	k->error = out.error;
	k->len = out.len - (uint32_t)sizeof(out);
	memmove(k->buf, k->buf + sizeof(out), k->len);
	*ret_unique = out.unique;
	return true;
}

/* 0 or the errno; the answer in k->buf. */
static inline int ask(struct kernel *k, uint32_t opcode, uint64_t nodeid, const void *arg,
		      size_t arglen, const void *data, size_t datalen)
{
	uint64_t want = post_raw(k, opcode, nodeid, arg, arglen, data, datalen), unique;

	if (!receive(k, &unique))
		fail_msg("opcode %u was not answered", opcode);
	assert_int_equal(unique, want);
	assert_true(k->error <= 0);
	return k->error;
}

static inline int ask_name(struct kernel *k, uint32_t opcode, uint64_t nodeid, const char *name)
{
	return ask(k, opcode, nodeid, name, strlen(name) + 1, NULL, 0);
}

static inline int init_with(struct kernel *k, uint32_t major, uint32_t minor, uint32_t flags)
{
	struct fuse_init_in in = {.major = major,
				  .minor = minor,
				  .max_readahead = 131072,
				  .flags = flags};

	return ask(k, FUSE_INIT, 0, &in, sizeof(in), NULL, 0);
}

#endif
