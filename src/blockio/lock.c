/* SPDX-License-Identifier: MIT */
/*
 * blockio: who may use an image.
 *
 * The lock is a flock on the descriptor that I/O goes through, so that it lasts exactly as long as
 * I/O can: it goes with the last copy of the descriptor, also after SIGKILL. Called when an image
 * is opened, and by tools before they write to a device. Takes no locks of ours; sleeps.
 */
#include "blockio_private.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* ------------------------------------------------------------------ the holder */

/*
 * Whether process pid has this very file open. Decides where /proc/locks shows another device
 * number than stat does (btrfs, overlayfs).
 */
static bool process_has_open(int pid, const struct stat *st)
{
	char path[64];
	struct dirent *de;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (de = readdir(dir))) {
		struct stat fd;

		if (de->d_name[0] == '.' || fstatat(dirfd(dir), de->d_name, &fd, 0))
			continue;
		found = fd.st_dev == st->st_dev && fd.st_ino == st->st_ino;
	}
	closedir(dir);
	return found;
}

/* The process that took the flock, 0 if that cannot be told. */
static int lock_holder(const struct stat *st)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256];
	int holder = 0;

	if (!f)
		return 0;
	while (!holder && fgets(line, sizeof(line), f)) {
		unsigned int maj, min;
		unsigned long long ino;
		int pid;

		/* "2: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF"; waiters have a "->". */
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &maj, &min, &ino) != 4 ||
		    ino != st->st_ino || pid <= 0)
			continue;
		if (makedev(maj, min) == st->st_dev || process_has_open(pid, st))
			holder = pid;
	}
	fclose(f);
	return holder;
}

static void process_name(int pid, char *comm, size_t size)
{
	char path[64];
	FILE *f;

	comm[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(comm, (int)size, f))
		comm[strcspn(comm, "\n")] = '\0';
	fclose(f);
}

static void tell_busy(int fd, const struct slu_blockio_opts *opts)
{
	char comm[64] = "";
	struct stat st;
	int pid = 0;

	if (!opts->lock_busy)
		return;
	if (!fstat(fd, &st))
		pid = lock_holder(&st);
	if (pid)
		process_name(pid, comm, sizeof(comm));
	opts->lock_busy(opts->lock_busy_ctx, pid, comm);
}

/* ------------------------------------------------------------------ the lock */

#define TELL_AFTER_NS (100 * SLU_NS_PER_MS)

/* Polls: a flock that blocks could only be given up by a signal. */
int image_lock(int fd, const struct slu_blockio_opts *opts)
{
	int op = LOCK_NB | (opts->lock == SLU_LOCK_SHARED ? LOCK_SH : LOCK_EX);
	uint64_t start = slu_clock_ns(), delay = SLU_NS_PER_MS;
	bool told = false;

	if (opts->lock == SLU_LOCK_NONE)
		return 0;
	while (flock(fd, op)) {
		uint64_t waited = slu_clock_ns() - start;

		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return -errno;
		/* Who is about to end is not worth a line, and may be gone before it can be named. */
		if (!told && waited >= slu_min(TELL_AFTER_NS, opts->lock_wait_ns)) {
			tell_busy(fd, opts);
			told = true;
		}
		if (waited >= opts->lock_wait_ns)
			return -EBUSY;
		slu_sleep_ns(slu_min(delay, opts->lock_wait_ns - waited));
		delay = slu_min(delay * 2, 50 * SLU_NS_PER_MS);
	}
	return 0;
}

/* ------------------------------------------------------------------ loop devices */

/* A name from sysfs, without its newline. */
static bool read_name(const char *path, char *ret, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(ret, (int)size, f) != NULL;
	if (ok)
		ret[strcspn(ret, "\n")] = '\0';
	fclose(f);
	return ok;
}

/*
 * Two loop devices may show two parts of one file, each a volume of its own; so only a device that
 * shows all of its file counts. The name may mean another file here than it did for losetup.
 */
static int open_backing(int fd)
{
	struct loop_info64 info;
	char path[64], name[4096];
	struct stat st;
	int backing;

	if (fstat(fd, &st) || major(st.st_rdev) != LOOP_MAJOR ||
	    ioctl(fd, LOOP_GET_STATUS64, &info) || info.lo_offset || info.lo_sizelimit)
		return -1;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/backing_file", major(st.st_rdev),
		 minor(st.st_rdev));
	if (!read_name(path, name, sizeof(name)))
		return -1;
	backing = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (backing < 0)
		return -1;
	if (!fstat(backing, &st) && st.st_ino == info.lo_inode)
		return backing;
	close(backing);
	return -1;
}

int image_lock_backing(int fd, const struct slu_blockio_opts *opts, int *ret_fd)
{
	int backing = open_backing(fd);
	int err;

	*ret_fd = -1;
	if (backing < 0)
		return 0;
	err = image_lock(backing, opts);
	if (err)
		close(backing);
	else
		*ret_fd = backing;
	return err;
}

/* ------------------------------------------------------------------ devices in use */

/* The third field of /proc/self/mountinfo is the device of the filesystem. */
static bool device_mounted(dev_t dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &size, f) > 0) {
		unsigned int maj, min;

		if (sscanf(line, "%*d %*d %u:%u ", &maj, &min) == 2)
			found = makedev(maj, min) == dev;
	}
	free(line); /* getline's */
	fclose(f);
	return found;
}

/* Whether a loop device has this file behind it. */
static bool file_behind_loop(const struct stat *st)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *de;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (de = readdir(dir))) {
		char path[512], backing[4096];
		struct stat file;

		if (strncmp(de->d_name, "loop", 4))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", de->d_name);
		if (read_name(path, backing, sizeof(backing)))
			found = !stat(backing, &file) && file.st_dev == st->st_dev &&
				file.st_ino == st->st_ino;
	}
	closedir(dir);
	return found;
}

bool slu_blockio_device_in_use(const char *name)
{
	struct stat st;
	bool busy;
	int fd;

	if (stat(name, &st))
		return false;
	if (S_ISREG(st.st_mode))
		return file_behind_loop(&st);
	if (!S_ISBLK(st.st_mode))
		return false;
	/* On a block device, O_EXCL asks for what a mount, swap or RAID holds. */
	fd = open(name, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	busy = fd < 0 && errno == EBUSY;
	if (fd >= 0)
		close(fd);
	return busy || device_mounted(st.st_rdev);
}
