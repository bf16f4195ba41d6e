/* SPDX-License-Identifier: MIT */
/*
 * mount_disk SIZE DIR: a disk with a volatile cache and a power switch, as a FUSE filesystem of its
 * own on DIR. SIZE is in MiB. It has two files:
 *
 *	disk	what was written and not fsynced is in the cache only
 *	power	"off SEED": the cache is lost, but for sectors that SEED chooses (0: none), and
 *		every request fails with EIO; "on": the disk works again, with what it had;
 *		"slow MS": every request takes that long, until "on"
 *
 * Stays in the foreground until it is unmounted.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512

static struct {
	pthread_mutex_t lock; /* protects all below */
	size_t size;
	uint8_t *now;     /* as the disk shows it */
	uint8_t *durable; /* as it is without power */
	bool *cached;     /* of each sector: the two differ */
	bool off;
	_Atomic unsigned int slow_ms;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool disk_is_switch(const char *path)
{
	return !strcmp(path, "/power");
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	memset(st, 0, sizeof(*st));
	st->st_uid = getuid();
	st->st_gid = getgid();
	st->st_nlink = 1;
	if (!strcmp(path, "/")) {
		st->st_mode = S_IFDIR | 0700;
		st->st_nlink = 2;
	} else if (!strcmp(path, "/disk")) {
		st->st_mode = S_IFREG | 0600;
		st->st_size = (off_t)disk.size;
	} else if (disk_is_switch(path)) {
		st->st_mode = S_IFREG | 0600;
	} else {
		return -ENOENT;
	}
	return 0;
}

static int disk_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off,
			struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	static const char *const names[] = {".", "..", "disk", "power"};

	(void)path, (void)off, (void)fi, (void)flags;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		fill(buf, names[i], NULL, 0, 0);
	return 0;
}

/* The kernel keeps nothing: it would be a second cache, which outlives the power. */
static int disk_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->direct_io = 1;
	return 0;
}

static int disk_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	(void)fi;
	return disk_is_switch(path) || (size_t)size == disk.size ? 0 : -EFBIG;
}

/* ------------------------------------------------------------------ the data */

/* "on" lets go those that wait. */
static void disk_be_slow(void)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (unsigned int i = 0; i < disk.slow_ms; i++)
		nanosleep(&ms, NULL);
}

static int disk_read(const char *path, char *buf, size_t len, off_t pos, struct fuse_file_info *fi)
{
	int ret;

	(void)fi;
	if (disk_is_switch(path) || (size_t)pos >= disk.size)
		return 0;
	if (len > disk.size - (size_t)pos)
		len = disk.size - (size_t)pos;
	disk_be_slow();
	pthread_mutex_lock(&disk.lock);
	ret = disk.off ? -EIO : (int)len;
	if (!disk.off)
		memcpy(buf, disk.now + pos, len);
	pthread_mutex_unlock(&disk.lock);
	return ret;
}

/* buf NULL: zeros. */
static int disk_put(const char *buf, size_t len, off_t pos)
{
	if (pos < 0 || (size_t)pos > disk.size || len > disk.size - (size_t)pos)
		return -ENOSPC;
	disk_be_slow();
	pthread_mutex_lock(&disk.lock);
	if (disk.off) {
		pthread_mutex_unlock(&disk.lock);
		return -EIO;
	}
	if (buf)
		memcpy(disk.now + pos, buf, len);
	else
		memset(disk.now + pos, 0, len);
	for (size_t s = (size_t)pos / SECTOR; s * SECTOR < (size_t)pos + len; s++)
		disk.cached[s] = true;
	pthread_mutex_unlock(&disk.lock);
	return (int)len;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	bool off;

	(void)path, (void)datasync, (void)fi;
	disk_be_slow();
	pthread_mutex_lock(&disk.lock);
	off = disk.off;
	for (size_t s = 0; s < disk.size / SECTOR && !off; s++) {
		if (!disk.cached[s])
			continue;
		memcpy(disk.durable + s * SECTOR, disk.now + s * SECTOR, SECTOR);
		disk.cached[s] = false;
	}
	pthread_mutex_unlock(&disk.lock);
	return off ? -EIO : 0;
}

static int disk_fallocate(const char *path, int mode, off_t pos, off_t len,
			  struct fuse_file_info *fi)
{
	int ret;

	(void)fi;
	if (disk_is_switch(path))
		return -EOPNOTSUPP;
	if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
		return (size_t)pos + (size_t)len > disk.size ? -ENOSPC : 0;
	ret = disk_put(NULL, (size_t)len, pos);
	return ret < 0 ? ret : 0;
}

/* ------------------------------------------------------------------ the power */

static uint64_t disk_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x * 0x2545f4914f6cdd1dull >> 32;
}

static void disk_off(uint64_t seed)
{
	size_t cached = 0, kept = 0;

	for (size_t s = 0; s < disk.size / SECTOR && !disk.off; s++) {
		bool keep = seed && disk_random(&seed) % 2;

		if (!disk.cached[s])
			continue;
		memcpy((keep ? disk.durable : disk.now) + s * SECTOR,
		       (keep ? disk.now : disk.durable) + s * SECTOR, SECTOR);
		disk.cached[s] = false;
		cached++;
		kept += keep;
	}
	disk.off = true;
	fprintf(stderr, "mount_disk: off; %zu sectors were in the cache, %zu of them are kept\n",
		cached, kept);
}

static int disk_switch(const char *word, size_t len)
{
	char line[64] = "";
	unsigned int ms;
	uint64_t seed;
	int ret = (int)len;

	memcpy(line, word, len < sizeof(line) ? len : sizeof(line) - 1);
	pthread_mutex_lock(&disk.lock);
	if (sscanf(line, "off %" SCNu64, &seed) == 1)
		disk_off(seed);
	else if (sscanf(line, "slow %u", &ms) == 1)
		disk.slow_ms = ms;
	else if (!strcmp(line, "on\n"))
		disk.off = disk.slow_ms = 0;
	else
		ret = -EINVAL;
	pthread_mutex_unlock(&disk.lock);
	return ret;
}

static int disk_write(const char *path, const char *buf, size_t len, off_t pos,
		      struct fuse_file_info *fi)
{
	(void)fi;
	return disk_is_switch(path) ? disk_switch(buf, len) : disk_put(buf, len, pos);
}

static const struct fuse_operations disk_ops = {
	.getattr = disk_getattr,
	.readdir = disk_readdir,
	.open = disk_open,
	.truncate = disk_truncate,
	.read = disk_read,
	.write = disk_write,
	.fsync = disk_fsync,
	.fallocate = disk_fallocate,
};

int main(int argc, char **argv)
{
	char *args[] = {argv[0], (char *)"-f", argc == 3 ? argv[2] : NULL, NULL};
	const int prot = PROT_READ | PROT_WRITE;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	disk.size = argc == 3 ? strtoull(argv[1], NULL, 10) << 20 : 0;
	if (!disk.size) {
		fprintf(stderr, "usage: mount_disk SIZE DIR\n");
		return 2;
	}
	disk.now = mmap(NULL, disk.size, prot, flags, -1, 0);
	disk.durable = mmap(NULL, disk.size, prot, flags, -1, 0);
	disk.cached = calloc(disk.size / SECTOR, sizeof(*disk.cached));
	if (disk.now == MAP_FAILED || disk.durable == MAP_FAILED || !disk.cached) {
		perror("mount_disk");
		return 1;
	}
	return fuse_main(3, args, &disk_ops, NULL);
}
