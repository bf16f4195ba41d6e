/* SPDX-License-Identifier: MIT */
/*
 * mkfs.sluicefs: makes a volume of an image file or block device.
 *
 * In order: find out what is to be formatted, open it (which takes the lock, so that a mounted
 * image is out of reach), look whether anything would be lost, give old blocks back to the host,
 * format, flush. Until the third step is passed nothing of an existing image has been changed; a
 * file that was made here goes away again when anything fails.
 */
#include "sluice/content.h"
#include "sluice/fs.h"
#include "sluice/units.h"
#include "tools_private.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MKFS_DONE, MKFS_FAILED, MKFS_USAGE }; /* exit status */

#define MKFS_LOOK_BYTES     (1u << 20)   /* at the start of an image, must be zero */
#define MKFS_LOOK_MOST      (1ull << 30) /* of what a file has stored behind that */
#define MKFS_DISCARD_BLOCKS (1u << 18)   /* 1 GiB at a time */

static gchar *opt_size, *opt_label, *opt_offset, *opt_wait;
static gboolean opt_force, opt_version, opt_quiet, opt_no_discard;

/* FILENAME stands for the bytes as they are: STRING has them converted from the locale's charset. */
static const GOptionEntry entries[] = {
	{"size", 's', 0, G_OPTION_ARG_FILENAME, &opt_size,
	 "Size of the volume (10G); needed for a new image", "SIZE"},
	{"label", 'L', 0, G_OPTION_ARG_FILENAME, &opt_label, "Name of the volume, up to 63 bytes",
	 "LABEL"},
	{"offset", 0, 0, G_OPTION_ARG_FILENAME, &opt_offset,
	 "Where in IMAGE the volume starts, a multiple of 4096", "SIZE"},
	{"force", 'f', 0, G_OPTION_ARG_NONE, &opt_force,
	 "Overwrite what looks like data (never an image in use)", NULL},
	{"no-discard", 'K', 0, G_OPTION_ARG_NONE, &opt_no_discard,
	 "Do not give the old blocks back to the host", NULL},
	{"wait", 'w', 0, G_OPTION_ARG_FILENAME, &opt_wait,
	 "How long to wait for an image in use (default 5)", "SECONDS"},
	{"quiet", 'q', 0, G_OPTION_ARG_NONE, &opt_quiet, "Print nothing if all goes well", NULL},
	{"version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "Show the version", NULL},
	{NULL},
};

struct mkfs {
	const char *image;
	bool created; /* the file did not exist before */
	bool device;
	uint64_t offset;    /* bytes */
	uint64_t size;      /* bytes asked for; 0: all there is */
	uint64_t available; /* bytes from offset to the end of an existing image */
	uint64_t nblocks;   /* of the volume */
	struct slu_tool_busy busy;
	struct slu_blockio *bio;
};

/* ------------------------------------------------------------------ what is to be formatted */

/* Bytes in a block device; 0 if it does not say. */
static uint64_t mkfs_device_size(const char *image)
{
	int fd = open(image, O_RDONLY | O_CLOEXEC);
	uint64_t size = 0;

	if (fd >= 0) {
		if (ioctl(fd, BLKGETSIZE64, &size) != 0)
			size = 0;
		close(fd);
	}
	return size;
}

/* Creates the file, or learns what is there. */
static bool mkfs_find_image(struct mkfs *m)
{
	uint64_t total = 0;
	struct stat st;
	int fd;

	if (stat(m->image, &st) != 0) {
		if (errno != ENOENT) {
			slu_tool_error("%s: %s", m->image, g_strerror(errno));
			return false;
		}
		if (!m->size) {
			slu_tool_error("%s: does not exist; --size makes a new image", m->image);
			return false;
		}
		fd = open(m->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd < 0) {
			slu_tool_error("%s: %s", m->image,
				       errno == EEXIST ? "is a symbolic link to a file that does "
							 "not exist"
						       : g_strerror(errno));
			return false;
		}
		close(fd);
		m->created = true;
		return true;
	}
	m->device = S_ISBLK(st.st_mode);
	if (!m->device && !S_ISREG(st.st_mode)) {
		slu_tool_error("%s: neither a regular file nor a block device", m->image);
		return false;
	}
	total = m->device ? mkfs_device_size(m->image) : (uint64_t)st.st_size;
	m->available = total > m->offset ? total - m->offset : 0;
	return true;
}

/* How long the volume will be; the same rules for files and devices, but that only files grow. */
static bool mkfs_choose_size(struct mkfs *m)
{
	uint64_t size = m->size ? m->size : m->available;
	char want[SLU_SIZE_STR], have[SLU_SIZE_STR];

	m->nblocks = size >> SLU_BLOCK_SHIFT;
	slu_format_size(size, want);
	slu_format_size(m->available, have);
	if (m->nblocks < SLU_MIN_BLOCKS) {
		slu_tool_error("%s: %s is too small; a volume has at least 16 MiB%s", m->image,
			       want, m->size || m->device ? "" : " (--size makes the file longer)");
		return false;
	}
	if (m->nblocks > SLU_MAX_BLOCKS) {
		slu_tool_error("%s: %s is too large; a volume has at most 1 EiB", m->image, want);
		return false;
	}
	if (m->device && size > m->available) {
		slu_tool_error("%s: the device has %s, which is less than %s", m->image, have,
			       want);
		return false;
	}
	return true;
}

static bool mkfs_open(struct mkfs *m)
{
	struct slu_blockio_opts opts = {
		.create = m->size != 0, /* so that a file may end before the offset, and grows */
		.image_offset = m->offset,
		.lock = SLU_LOCK_EXCLUSIVE,
		.lock_wait_ns = m->busy.wait_ns,
		.lock_busy = slu_tool_lock_busy,
		.lock_busy_ctx = &m->busy,
	};
	char words[128];
	int err;

	if (slu_blockio_device_in_use(m->image)) {
		slu_tool_error("%s: is in use (mounted, swap, or part of another device)",
			       m->image);
		return false;
	}
	/* Where more of the file follows, what is behind the volume is not ours. */
	if (m->size && m->size < m->available)
		opts.image_size = m->nblocks << SLU_BLOCK_SHIFT;
	err = slu_blockio_open(m->image, &opts, &m->bio);
	if (err) {
		slu_tool_error("%s: %s", m->image,
			       slu_tool_open_error(err, &m->busy, words, sizeof(words)));
		return false;
	}
	return true;
}

/* ------------------------------------------------------------------ would anything be lost? */

static bool mkfs_describe(const struct mkfs *m, char *ret, size_t size)
{
	uint64_t len = slu_min(m->available, m->nblocks << SLU_BLOCK_SHIFT);

	return len && slu_content_describe(m->image, m->offset, len, ret, size);
}

/* 1: something but zeros in the blocks at blkno, at most MKFS_LOOK_BYTES; 0: zeros; or an error. */
static int mkfs_look_at(struct mkfs *m, uint64_t blkno, uint8_t *buf)
{
	uint64_t there = atomic_load(&slu_blockio_info(m->bio)->nblocks);
	uint32_t nblocks = MKFS_LOOK_BYTES >> SLU_BLOCK_SHIFT;
	int err;

	if (blkno >= there)
		return 0;
	nblocks = (uint32_t)slu_min(nblocks, there - blkno);
	err = slu_blockio_read(m->bio, blkno, nblocks, buf);
	for (size_t i = 0; i < (size_t)nblocks << SLU_BLOCK_SHIFT && !err; i++)
		err = buf[i] != 0;
	return err;
}

/*
 * The same for what a file has stored anywhere in the range of the volume. Holes cost nothing; of a
 * file that somebody has filled with zeros no more than MKFS_LOOK_MOST is read.
 */
static int mkfs_look_through(struct mkfs *m, uint8_t *buf)
{
	uint64_t end = slu_min(m->available, m->nblocks << SLU_BLOCK_SHIFT), pos = 0, seen = 0;
	int fd = open(m->image, O_RDONLY | O_CLOEXEC), err = 0;
	struct slu_progress progress;

	if (fd < 0)
		return -errno;
	slu_progress_start(&progress, stderr, "looking for data");
	while (!err && seen < MKFS_LOOK_MOST && pos < end) {
		off_t data = lseek(fd, (off_t)(m->offset + pos), SEEK_DATA);

		if (data < 0)
			break; /* only a hole follows, or the host cannot tell */
		pos = ((uint64_t)data - m->offset) & ~(uint64_t)(SLU_BLOCK_SIZE - 1);
		if (pos >= end)
			break;
		err = mkfs_look_at(m, pos >> SLU_BLOCK_SHIFT, buf);
		pos += MKFS_LOOK_BYTES;
		seen += MKFS_LOOK_BYTES;
		slu_progress_update(&progress, pos, end);
	}
	slu_progress_clear(&progress);
	close(fd);
	return err;
}

/* The superblocks may be lost and the volume still be worth something. buf: a block. */
static bool mkfs_ends_with_spare(struct mkfs *m, uint8_t *buf)
{
	uint64_t there = atomic_load(&slu_blockio_info(m->bio)->nblocks);

	return there && !slu_blockio_read(m->bio, there - 1, 1, buf) &&
	       !slu_spare_check((const struct slu_disk_super *)buf, there - 1);
}

/*
 * 1: not only zeros: in the first MiB, and for a file (where it can be had cheaply) behind it;
 * 0: zeros; or an error.
 */
static int mkfs_look(struct mkfs *m, bool *ret_sluicefs)
{
	uint8_t *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, MKFS_LOOK_BYTES);
	const struct slu_disk_super *super = (const struct slu_disk_super *)buf;
	int err;

	*ret_sluicefs = false;
	if (!buf)
		return -ENOMEM;
	memset(buf, 0, 2 * SLU_BLOCK_SIZE);
	err = mkfs_look_at(m, 0, buf);
	if (err >= 0)
		*ret_sluicefs = !memcmp(super[0].magic, SLU_MAGIC, 8) ||
				!memcmp(super[1].magic, SLU_MAGIC, 8) ||
				mkfs_ends_with_spare(m, buf);
	if (!err && !m->device)
		err = mkfs_look_through(m, buf);
	slu_free(buf);
	return err;
}

static bool mkfs_may_overwrite(struct mkfs *m)
{
	char what[128] = "data (it is not all zeros)";
	bool sluicefs;
	int err;

	if (m->created || opt_force)
		return true;
	err = mkfs_look(m, &sluicefs);
	if (err < 0) {
		slu_tool_error("%s: cannot be read: %s", m->image, g_strerror(-err));
		return false;
	}
	if (sluicefs)
		snprintf(what, sizeof(what), "a sluicefs volume");
	else if (!mkfs_describe(m, what, sizeof(what)) && !err)
		return true;
	slu_tool_error("%s: contains %s; --force overwrites it", m->image, what);
	return false;
}

/* ------------------------------------------------------------------ formatting */

struct mkfs_wait {
	struct slu_mutex lock;
	struct slu_cond done_cond;
	bool done;
};

static void mkfs_end_io(struct slu_io *io)
{
	struct mkfs_wait *w = io->private;

	slu_mutex_lock(&w->lock);
	w->done = true;
	slu_cond_signal(&w->done_cond);
	slu_mutex_unlock(&w->lock);
}

/* Old blocks hold nothing any more; a host that cannot discard says so by doing nothing. */
static int mkfs_discard(struct mkfs *m)
{
	struct slu_progress progress;
	struct mkfs_wait w;
	int err = 0;

	slu_mutex_init(&w.lock, SLU_RANK_LEAF, 0, "mkfs discard");
	slu_cond_init(&w.done_cond);
	slu_progress_start(&progress, stderr, "discarding");
	for (uint64_t blkno = 0; blkno < m->nblocks && !err;) {
		struct slu_io io = {
			.op = SLU_IO_DISCARD,
			.blkno = blkno,
			.nblocks = (uint32_t)slu_min(m->nblocks - blkno, MKFS_DISCARD_BLOCKS),
			.end_io = mkfs_end_io,
			.private = &w,
		};

		w.done = false;
		slu_blockio_submit(m->bio, &io);
		slu_mutex_lock(&w.lock);
		while (!w.done)
			slu_cond_wait(&w.done_cond, &w.lock);
		slu_mutex_unlock(&w.lock);
		err = io.result;
		blkno += io.nblocks;
		slu_progress_update(&progress, blkno, m->nblocks);
	}
	slu_progress_clear(&progress);
	slu_cond_fini(&w.done_cond);
	slu_mutex_fini(&w.lock);
	return err;
}

/*
 * A longer volume that began here ends with its spare superblock, which a repair of the new volume
 * would find first. What else lies behind the new volume is not ours.
 */
static int mkfs_forget_longer(struct mkfs *m)
{
	uint64_t blkno = m->available / SLU_BLOCK_SIZE - 1;
	off_t at = (off_t)(m->offset + blkno * SLU_BLOCK_SIZE);
	struct slu_disk_super spare;
	int fd = open(m->image, O_RDWR | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (pread(fd, &spare, sizeof(spare), at) == (ssize_t)sizeof(spare) &&
	    !slu_spare_check(&spare, blkno)) {
		memset(&spare, 0, sizeof(spare));
		if (pwrite(fd, &spare, sizeof(spare), at) != (ssize_t)sizeof(spare) || fsync(fd))
			err = -EIO;
	}
	close(fd);
	return err;
}

static bool mkfs_format(struct mkfs *m)
{
	uint64_t there = atomic_load(&slu_blockio_info(m->bio)->nblocks);
	int err = 0;

	if (m->nblocks < m->available / SLU_BLOCK_SIZE)
		err = mkfs_forget_longer(m);
	if (!err && there < m->nblocks)
		err = slu_blockio_grow(m->bio, m->nblocks);
	if (!err && !m->created && !opt_no_discard)
		err = mkfs_discard(m);
	if (!err)
		err = slu_fs_format(m->bio, m->nblocks, opt_label, getuid(), getgid());
	if (!err)
		err = slu_blockio_flush(m->bio);
	if (err == -EFBIG)
		slu_tool_error("%s: the filesystem it lies on has no files of that size", m->image);
	else if (err)
		slu_tool_error("%s: cannot be formatted: %s", m->image, g_strerror(-err));
	return !err;
}

/* Reads back what was written; the summary is what the image says, not what was meant. */
static bool mkfs_summary(struct mkfs *m)
{
	const struct slu_disk_super *super;
	char size[SLU_SIZE_STR], label[2 * SLU_LABEL_MAX] = "";
	uint8_t *id, *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_BLOCK_SIZE);
	int err = buf ? slu_blockio_read(m->bio, 0, 1, buf) : -ENOMEM;

	if (err || memcmp(((struct slu_disk_super *)buf)->magic, SLU_MAGIC, 8) != 0) {
		slu_tool_error("%s: cannot be read after formatting: %s", m->image,
			       g_strerror(err ? -err : EIO));
		slu_free(buf);
		return false;
	}
	super = (const struct slu_disk_super *)buf;
	id = (uint8_t *)super->volume_id;
	slu_format_size(slu_get_le64(&super->nblocks) << SLU_BLOCK_SHIFT, size);
	if (super->label[0])
		snprintf(label, sizeof(label), " \"%.*s\"", SLU_LABEL_MAX, super->label);
	if (!opt_quiet)
		printf("%s: %s sluicefs volume%s, id %02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		       "%02x%02x%02x%02x%02x%02x\n",
		       m->image, size, label, id[0], id[1], id[2], id[3], id[4], id[5], id[6],
		       id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
	slu_free(buf);
	return true;
}

/* The name of a new file is on stable storage too. */
static void mkfs_sync_folder(const char *image)
{
	g_autofree char *folder = g_path_get_dirname(image);
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return; /* not readable for us; the file itself is flushed */
	fsync(fd);
	close(fd);
}

static bool mkfs_run(struct mkfs *m)
{
	bool ok = mkfs_find_image(m);

	ok = ok && mkfs_choose_size(m) && mkfs_open(m) && mkfs_may_overwrite(m) && mkfs_format(m) &&
	     mkfs_summary(m);
	slu_blockio_close(m->bio);
	if (ok && m->created)
		mkfs_sync_folder(m->image);
	if (!ok && m->created && unlink(m->image) != 0)
		slu_tool_error("%s: cannot be removed again: %s", m->image, g_strerror(errno));
	return ok;
}

static bool mkfs_label_ok(const char *label)
{
	if (!label)
		return true;
	if (strlen(label) > SLU_LABEL_MAX || !g_utf8_validate(label, -1, NULL)) {
		slu_tool_error("--label: at most %d bytes of UTF-8", SLU_LABEL_MAX);
		return false;
	}
	for (const char *p = label; *p; p = g_utf8_next_char(p)) {
		if (g_unichar_iscntrl(g_utf8_get_char(p))) {
			slu_tool_error("--label: has a control character");
			return false;
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	static const char about[] =
		"Makes a sluicefs volume of an image file, which is created if it is missing, or\n"
		"of a block device.\n\n"
		"Exit status: 0 done, 1 nothing was done (one line says why), 2 usage.";
	struct mkfs m = {0};

	slu_tool_init("mkfs.sluicefs");
	if (!slu_tool_options(&argc, &argv, "IMAGE", about, entries))
		return MKFS_USAGE;
	if (opt_version)
		return slu_tool_version();
	if (argc != 2 || !*argv[1]) {
		slu_tool_error("expected one IMAGE; see --help");
		return MKFS_USAGE;
	}
	m.image = m.busy.image = argv[1];
	if (!slu_tool_size("--size", opt_size, 0, &m.size) ||
	    !slu_tool_size("--offset", opt_offset, 0, &m.offset) ||
	    !slu_tool_seconds("--wait", opt_wait ? opt_wait : "5", &m.busy.wait_ns) ||
	    !mkfs_label_ok(opt_label))
		return MKFS_USAGE;
	if (opt_size && !m.size) {
		slu_tool_error("--size: 0 is too small; a volume has at least 16 MiB");
		return MKFS_USAGE;
	}
	if (m.offset % SLU_BLOCK_SIZE || m.offset > INT64_MAX - m.size) {
		slu_tool_error("--offset: must be a multiple of 4096 within the file");
		return MKFS_USAGE;
	}
	return mkfs_run(&m) ? MKFS_DONE : MKFS_FAILED;
}
