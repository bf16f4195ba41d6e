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
#include <string.h>
#include <sys/file.h>
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
		if (!told)
			tell_busy(fd, opts);
		told = true;
		if (waited >= opts->lock_wait_ns)
			return -EBUSY;
		slu_sleep_ns(slu_min(delay, opts->lock_wait_ns - waited));
		delay = slu_min(delay * 2, 50 * SLU_NS_PER_MS);
	}
	return 0;
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
		FILE *f;

		if (strncmp(de->d_name, "loop", 4))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", de->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(backing, sizeof(backing), f)) {
			backing[strcspn(backing, "\n")] = '\0';
			found = !stat(backing, &file) && file.st_dev == st->st_dev &&
				file.st_ino == st->st_ino;
		}
		fclose(f);
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
