/* SPDX-License-Identifier: MIT */
/*
 * blockio: one open image file or block device, with plain system calls.
 *
 * Owns the descriptor (and with it the flock), the choice between O_DIRECT and buffered I/O, and
 * what the host can do for us (reserve, discard). Called by the uring and the threads engine, from
 * any thread; takes no locks. Every call here blocks, so none is made from a thread that completes
 * the I/O of others, but for a short last resort in uring.c.
 */
#include "blockio_private.h"
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BCACHEFS_MAGIC 0xca451a4e
#define ZFS_MAGIC      0x2fc12fc1

/* Errors of the host in the words of struct slu_io. */
static int host_error(int err)
{
	return err == EDQUOT ? -ENOSPC : -err;
}

/* ------------------------------------------------------------------ transfers */

bool image_iov_rest(const struct iovec *iov, int niov, uint64_t done, int *idx, struct iovec *rest)
{
	int i = 0;

	while (i < niov && done >= iov[i].iov_len)
		done -= iov[i++].iov_len;
	*idx = i;
	if (i == niov || !done)
		return false;
	rest->iov_base = (char *)iov[i].iov_base + done;
	rest->iov_len = iov[i].iov_len - done;
	return true;
}

int image_rw(struct image *img, bool write, const struct iovec *iov, int niov, uint64_t pos)
{
	uint64_t total = 0, done = 0;

	for (int i = 0; i < niov; i++)
		total += iov[i].iov_len;
	while (done < total) {
		struct iovec rest;
		int idx, n = 1;
		ssize_t ret;

		const struct iovec *v = &rest;
		if (!image_iov_rest(iov, niov, done, &idx, &rest)) {
			v = iov + idx;
			n = niov - idx;
		}
		if (write)
			ret = pwritev(img->fd, v, n, (off_t)(pos + done));
		else
			ret = preadv(img->fd, v, n, (off_t)(pos + done));
		if (ret > 0) {
			done += (uint64_t)ret;
			if (done < total)
				slu_stress_point("blockio-partial");
			continue;
		}
		if (!ret) { /* the image has become shorter than it was */
			if (!write)
				image_seen_cut(img);
			return -EIO;
		}
		if (errno != EINTR)
			return done && errno == EINVAL ? -EIO : host_error(errno);
	}
	return 0;
}

int image_rw_sync(struct image *img, enum slu_io_op op, uint64_t blkno, uint32_t nblocks, void *buf)
{
	struct iovec iov = {buf, (size_t)nblocks << SLU_BLOCK_SHIFT};

	return image_rw(img, op == SLU_IO_WRITE, &iov, 1, image_pos(img, blkno));
}

/*
 * A hint: what the host cannot do is no error, and a refusal of this range alone (a device with
 * large discard units) is none either.
 */
int image_discard(struct image *img, uint64_t blkno, uint64_t nblocks)
{
	uint64_t range[2] = {image_pos(img, blkno), nblocks << SLU_BLOCK_SHIFT};
	int ret;

	if (!atomic_load_explicit(&img->can_discard, memory_order_relaxed))
		return 0;
	do {
		if (img->device)
			ret = ioctl(img->fd, BLKDISCARD, range);
		else
			ret = fallocate(img->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)range[0], (off_t)range[1]);
	} while (ret && errno == EINTR);
	if (!ret || errno == EINVAL)
		return 0;
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENOTTY) {
		atomic_store_explicit(&img->can_discard, false, memory_order_relaxed);
		return 0;
	}
	return host_error(errno);
}

static int image_flush(struct image *img)
{
	int ret;

	do {
		ret = fdatasync(img->fd);
	} while (ret && errno == EINTR);
	return ret ? host_error(errno) : 0;
}

int image_do(struct image *img, const struct slu_io *io)
{
	switch (io->op) {
	case SLU_IO_READ:
	case SLU_IO_WRITE:
		return image_rw(img, io->op == SLU_IO_WRITE, io->iov, io->niov,
				image_pos(img, io->blkno));
	case SLU_IO_FLUSH:
		return image_flush(img);
	case SLU_IO_DISCARD:
		return image_discard(img, io->blkno, io->nblocks);
	}
	return -EINVAL;
}

/* ------------------------------------------------------------------ size */

/* Bytes of the whole file or device. */
static int image_size(const struct image *img, uint64_t *ret)
{
	struct stat st;

	if (img->device)
		return ioctl(img->fd, BLKGETSIZE64, ret) ? -errno : 0;
	if (fstat(img->fd, &st))
		return -errno;
	*ret = (uint64_t)st.st_size;
	return 0;
}

static uint64_t usable_blocks(const struct image *img, uint64_t size)
{
	uint64_t bytes;

	if (size > INT64_MAX)
		size = INT64_MAX;
	bytes = size > img->offset ? size - img->offset : 0;
	if (img->limit && bytes > img->limit)
		bytes = img->limit;
	return bytes >> SLU_BLOCK_SHIFT;
}

/* ------------------------------------------------------------------ O_DIRECT */

static int set_direct(struct image *img, bool on)
{
	int flags = fcntl(img->fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = on ? flags | O_DIRECT : flags & ~O_DIRECT;
	return fcntl(img->fd, F_SETFL, flags) ? -errno : 0;
}

static void no_direct(struct image *img, const char *why)
{
	(void)set_direct(img, false);
	img->info->direct = false;
	img->probed = true;
	snprintf(img->fallback, sizeof(img->fallback), "no O_DIRECT on this image: %s", why);
	img->info->fallback = img->fallback;
}

/*
 * Whether O_DIRECT works is known only after a real read: some filesystems take the flag and fail
 * the I/O, and a device with logical blocks of more than 4,096 bytes cannot take ours. An empty
 * file cannot be asked; grow asks again.
 */
static void probe_direct(struct image *img, uint64_t size)
{
	struct iovec iov = {.iov_len = SLU_BLOCK_SIZE};
	int err;

	if (img->buffered || img->probed)
		return;
	err = set_direct(img, true);
	if (err) {
		no_direct(img, "the filesystem refuses it");
		return;
	}
	img->info->direct = true;
	if (size < img->offset + SLU_BLOCK_SIZE)
		return;
	iov.iov_base = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE);
	if (!iov.iov_base)
		return; /* taken on trust; an error will be reported as one */
	err = image_rw(img, false, &iov, 1, img->offset);
	slu_free(iov.iov_base);
	/* A bad sector under the probe says nothing about O_DIRECT. */
	img->probed = true;
	if (err == -EINVAL)
		no_direct(img, "reads of 4,096 bytes are refused");
	else if (err == -EOPNOTSUPP || err == -ENOSYS)
		no_direct(img, "the filesystem does not support it");
}

/* ------------------------------------------------------------------ open and close */

/*
 * Blocks set aside by fallocate are of use only where an overwrite stays in place. What the
 * filesystem says when asked is learnt at the first reserve.
 */
static bool may_reserve(const struct image *img)
{
	struct statfs fs;
	unsigned int flags = 0;

	if (img->device || img->readonly || fstatfs(img->fd, &fs))
		return false;
	switch ((uint32_t)fs.f_type) {
	case BTRFS_SUPER_MAGIC:
	case BCACHEFS_MAGIC:
		return !ioctl(img->fd, FS_IOC_GETFLAGS, &flags) && (flags & FS_NOCOW_FL);
	case ZFS_MAGIC:
	case NILFS_SUPER_MAGIC:
		return false;
	default:
		return true;
	}
}

/* A new name is there after a power cut only if its directory was flushed. */
static int sync_parent(const char *name)
{
	char *copy = slu_memdup(name, strlen(name) + 1);
	int fd, err = 0;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	slu_free(copy);
	if (fd < 0)
		return 0; /* a directory we may write but not read: nothing to be done */
	if (fsync(fd) && errno == EIO)
		err = -EIO;
	close(fd);
	return err;
}

static bool image_kind_ok(const struct stat *st)
{
	return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

/* The kernel opens such a device for writing and fails the writes. */
static bool device_is_readonly(int fd, const struct stat *st)
{
	int readonly = 0;

	return S_ISBLK(st->st_mode) && !ioctl(fd, BLKROGET, &readonly) && readonly;
}

/*
 * Looks before it opens, since opening a tape or a FIFO does something, and opens O_NONBLOCK in
 * case the name means something else by then.
 */
static int open_fd(const char *name, const struct slu_blockio_opts *opts, struct stat *st)
{
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	bool creates = false;
	int fd, err;

	flags |= opts->readonly ? O_RDONLY : O_RDWR;
	if (stat(name, st)) {
		creates = errno == ENOENT && opts->create && !opts->readonly;
		if (!creates)
			return -errno;
		flags |= O_CREAT;
	} else if (!image_kind_ok(st)) {
		return -ENOTBLK;
	}
	fd = open(name, flags, 0666);
	if (fd < 0) /* EPERM: an immutable file, or a device set read-only */
		return errno == EPERM ? -EACCES : -errno;
	if (fstat(fd, st)) {
		err = -errno;
	} else if (!image_kind_ok(st)) {
		err = -ENOTBLK;
	} else if (!opts->readonly && device_is_readonly(fd, st)) {
		err = -EROFS;
	} else if (fcntl(fd, F_SETFL, flags & ~(O_NONBLOCK | O_CREAT))) {
		err = -errno;
	} else {
		err = creates ? sync_parent(name) : 0;
		if (!err)
			return fd;
	}
	close(fd);
	return err;
}

int image_open(struct image *img, const char *name, const struct slu_blockio_opts *opts,
	       struct slu_blockio_info *info)
{
	struct stat st;
	uint64_t size = 0;
	int err;

	memset(img, 0, sizeof(*img));
	img->backing_fd = -1;
	img->fd = open_fd(name, opts, &st);
	if (img->fd < 0)
		return img->fd;
	img->readonly = opts->readonly;
	img->device = S_ISBLK(st.st_mode);
	img->buffered = opts->buffered;
	img->offset = opts->image_offset;
	img->limit = opts->image_size;
	img->info = info;
	atomic_init(&img->can_discard, true);

	/* Measured under the lock: before it, a mkfs may still be at work. */
	err = image_lock(img->fd, opts);
	if (!err && img->device)
		err = image_lock_backing(img->fd, opts, &img->backing_fd);
	if (!err)
		err = image_size(img, &size);
	if (!err && img->offset > size && !(opts->create && !img->device))
		err = -EINVAL;
	if (err) {
		image_close(img);
		return err;
	}
	info->kind = img->device ? SLU_IMAGE_DEVICE : SLU_IMAGE_FILE;
	info->readonly = img->readonly;
	info->image_offset = img->offset;
	info->can_reserve = may_reserve(img);
	info->nblocks = usable_blocks(img, size);
	probe_direct(img, size);
	return 0;
}

void image_close(struct image *img)
{
	close(img->fd);
	img->fd = -1;
	if (img->backing_fd >= 0)
		close(img->backing_fd);
	img->backing_fd = -1;
}

/* ------------------------------------------------------------------ space of the host */

int image_reserve(struct image *img, uint64_t blkno, uint64_t nblocks)
{
	int ret;

	if (img->device)
		return -EOPNOTSUPP;
	do {
		ret = fallocate(img->fd, FALLOC_FL_KEEP_SIZE, (off_t)image_pos(img, blkno),
				(off_t)(nblocks << SLU_BLOCK_SHIFT));
	} while (ret && errno == EINTR);
	if (!ret)
		return 0;
	return errno == ENOSYS ? -EOPNOTSUPP : host_error(errno);
}

/*
 * Makes the file end with block nblocks - 1, and has the host back that one, so that a full host
 * shows here. The file is as it was then.
 */
static int extend_file(struct image *img, uint64_t nblocks, uint64_t old_size)
{
	struct iovec iov = {.iov_len = SLU_BLOCK_SIZE};
	int err;

	iov.iov_base = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE);
	if (!iov.iov_base)
		return -ENOMEM;
	memset(iov.iov_base, 0, SLU_BLOCK_SIZE);
	if (ftruncate(img->fd, (off_t)image_pos(img, nblocks))) {
		err = host_error(errno);
	} else {
		probe_direct(img, image_pos(img, nblocks));
		err = image_rw(img, true, &iov, 1, image_pos(img, nblocks - 1));
		if (err)
			(void)!ftruncate(img->fd, (off_t)old_size);
	}
	slu_free(iov.iov_base);
	return err;
}

int image_grow(struct image *img, uint64_t nblocks, uint64_t *ret_nblocks)
{
	uint64_t size;
	int err;

	if (nblocks > ((uint64_t)INT64_MAX - img->offset) >> SLU_BLOCK_SHIFT)
		return -EFBIG;
	err = image_size(img, &size);
	if (err)
		return err;
	if (nblocks > usable_blocks(img, size) && !img->device &&
	    (!img->limit || nblocks <= img->limit >> SLU_BLOCK_SHIFT)) {
		err = extend_file(img, nblocks, size);
		if (err)
			return err;
		err = image_size(img, &size);
		if (err)
			return err;
	}
	probe_direct(img, size);
	*ret_nblocks = usable_blocks(img, size);
	return nblocks > *ret_nblocks ? -ENOSPC : 0;
}

int image_length(struct image *img, uint64_t *ret_nblocks)
{
	uint64_t size;
	int err;

	if (img->device) {
		*ret_nblocks = atomic_load_explicit(&img->info->nblocks, memory_order_acquire);
		return 0;
	}
	err = image_size(img, &size);
	if (!err)
		*ret_nblocks = usable_blocks(img, size);
	return err;
}

/* Whether the bytes of [pos, end), less than a block, hold anything but zeros. */
static int part_used(struct image *img, uint64_t pos, uint64_t end, bool *ret)
{
	uint8_t *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE);
	ssize_t n;
	int err = 0;

	if (!buf)
		return -ENOMEM;
	*ret = false;
	do {
		n = pread(img->fd, buf, SLU_BLOCK_SIZE, (off_t)pos);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		err = host_error(errno);
	for (ssize_t i = 0; i < slu_min(n, (ssize_t)(end - pos)); i++)
		*ret |= buf[i] != 0;
	slu_free(buf);
	return err;
}

int image_used(struct image *img, uint64_t blkno, uint64_t *ret)
{
	uint64_t pos = image_pos(img, blkno), size, nblocks;
	bool used;
	off_t data;
	int err = image_size(img, &size);

	if (err)
		return err;
	*ret = UINT64_MAX;
	if (pos >= size)
		return 0;
	nblocks = usable_blocks(img, size);
	data = img->device ? (off_t)pos : lseek(img->fd, (off_t)pos, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return 0;
	if (data < 0 && errno != EINVAL)
		return -errno;
	if (data > (off_t)pos)
		blkno = ((uint64_t)data - img->offset) >> SLU_BLOCK_SHIFT;
	if (blkno < nblocks) {
		*ret = blkno;
		return 0;
	}
	if (img->limit || !(size % SLU_BLOCK_SIZE))
		return 0;
	err = part_used(img, image_pos(img, nblocks), size, &used);
	if (!err && used)
		*ret = nblocks;
	return err;
}
