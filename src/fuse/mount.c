/* SPDX-License-Identifier: MIT */
/*
 * Mounting and unmounting: the one place that uses libfuse.
 *
 * Owns the mounter process. Called by the daemon: start before there are threads, mount once,
 * detach from any thread. Takes no lock. Must never fork a process that has threads, rings or I/O
 * in flight: that is why a small one is kept for the mount, and why fusermount3 -u is spawned.
 *
 * What libfuse and fusermount3 print goes to a file in memory and comes back as one line.
 */
#define FUSE_USE_VERSION 35
#include "fuse_private.h"
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WHY_SIZE         256
#define PREOPENED_PREFIX "/dev/fd/"

extern char **environ;

struct slu_mounter {
	int sock; /* to the mounter process; -1: there is none */
	pid_t pid;
	int preopened; /* the descriptor in "/dev/fd/N", or -1 */
};

struct mount_answer {
	int err;
	char why[WHY_SIZE];
};

/* ------------------------------------------------------------------ what others print */

static int capture_open(void)
{
	return memfd_create("messages", MFD_CLOEXEC);
}

/* The lines in fd, joined; the default if there are none. Closes fd. */
static void capture_take(int fd, const char *otherwise, char *why, size_t size)
{
	char text[1024];
	size_t out = 0;
	ssize_t n;

	n = fd < 0 ? 0 : pread(fd, text, sizeof(text), 0);
	if (fd >= 0)
		close(fd);
	while (n > 0 && text[n - 1] == '\n')
		n--;
	for (ssize_t i = 0; i < n && out + 3 < size; i++) {
		if (text[i] == '\n') {
			why[out++] = ';';
			why[out++] = ' ';
		} else if ((unsigned char)text[i] >= ' ') {
			why[out++] = text[i];
		}
	}
	if (size)
		why[out] = '\0';
	if (!out)
		snprintf(why, size, "%s", otherwise);
}

/* ------------------------------------------------------------------ the mounter process */

static struct fuse_session *make_session(const struct slu_mount_opts *o, bool readonly)
{
	static const struct fuse_lowlevel_ops no_ops;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *se = NULL;
	char fsname[4096 + 8], subtype[128];
	char *opts = NULL;
	int err;

	snprintf(fsname, sizeof(fsname), "fsname=%s", o->source);
	snprintf(subtype, sizeof(subtype), "subtype=%s", o->subtype);
	err = fuse_opt_add_opt_escaped(&opts, fsname) || fuse_opt_add_opt_escaped(&opts, subtype) ||
	      fuse_opt_add_opt(&opts, "default_permissions") ||
	      (o->allow_other && fuse_opt_add_opt(&opts, "allow_other")) ||
	      (o->blkdev && fuse_opt_add_opt(&opts, "blkdev")) ||
	      (readonly && fuse_opt_add_opt(&opts, "ro")) ||
	      (o->flags && *o->flags && fuse_opt_add_opt(&opts, o->flags)) ||
	      fuse_opt_add_arg(&args, "sluicefs") || fuse_opt_add_arg(&args, "-o") ||
	      fuse_opt_add_arg(&args, opts);
	if (!err)
		se = fuse_session_new(&args, &no_ops, sizeof(no_ops), NULL);
	fuse_opt_free_args(&args);
	free(opts); /* libfuse's */
	return se;
}

static void send_answer(int sock, const struct mount_answer *answer, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)answer, sizeof(*answer)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	(void)sendmsg(sock, &msg, MSG_NOSIGNAL); /* if nobody listens, the mount ends with us */
}

/*
 * The child. libfuse's session is never used: its descriptor is handed over, and the process ends.
 */
static _Noreturn void mounter_main(int sock, const struct slu_mount_opts *opts)
{
	struct mount_answer answer = {.err = -EIO};
	struct fuse_session *se;
	int fd = -1, capture;
	char mode;

	if (recv(sock, &mode, 1, 0) != 1)
		_exit(0); /* not needed, or the daemon is gone */
	capture = capture_open();
	if (capture >= 0)
		dup2(capture, STDERR_FILENO);
	se = make_session(opts, mode == 'r');
	if (se && !fuse_session_mount(se, opts->mountpoint)) {
		fd = fuse_session_fd(se);
		answer.err = 0;
	}
	fflush(stderr);
	if (answer.err)
		capture_take(capture, "mounting failed", answer.why, sizeof(answer.why));
	send_answer(sock, &answer, fd);
	_exit(0);
}

static int preopened_fd(const char *mountpoint)
{
	char *end;
	long n;

	if (strncmp(mountpoint, PREOPENED_PREFIX, strlen(PREOPENED_PREFIX)) != 0)
		return -1;
	errno = 0;
	n = strtol(mountpoint + strlen(PREOPENED_PREFIX), &end, 10);
	return errno || *end || n < 0 || n > 1 << 20 ? -1 : (int)n;
}

int slu_mounter_start(const struct slu_mount_opts *opts, struct slu_mounter **ret)
{
	struct slu_mounter *m = slu_zalloc(sizeof(*m));
	int sv[2];

	if (!m)
		return -ENOMEM;
	m->sock = -1;
	m->preopened = preopened_fd(opts->mountpoint);
	if (m->preopened >= 0) {
		*ret = m;
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv)) {
		int err = -errno;

		slu_free(m);
		return err;
	}
	fflush(NULL);
	m->pid = fork();
	if (m->pid < 0) {
		int err = -errno;

		close(sv[0]);
		close(sv[1]);
		slu_free(m);
		return err;
	}
	if (!m->pid) {
		close(sv[0]);
		mounter_main(sv[1], opts);
	}
	close(sv[1]);
	m->sock = sv[0];
	*ret = m;
	return 0;
}

static int recv_answer(int sock, struct mount_answer *answer, int *ret_fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {answer, sizeof(*answer)};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c;
	ssize_t n;

	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(*answer))
		return -EIO;
	if (answer->err)
		return answer->err;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return -EIO;
	memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	return 0;
}

int slu_mounter_mount(struct slu_mounter *m, bool readonly, int *ret_fd, char *why, size_t size)
{
	struct mount_answer answer = {0};
	char mode = readonly ? 'r' : 'w';
	int err;

	if (m->preopened >= 0) {
		*ret_fd = fcntl(m->preopened, F_DUPFD_CLOEXEC, 3);
		if (*ret_fd >= 0)
			return 0;
		snprintf(why, size, "descriptor %d is not open", m->preopened);
		return -EIO;
	}
	if (send(m->sock, &mode, 1, MSG_NOSIGNAL) != 1)
		err = -EIO;
	else
		err = recv_answer(m->sock, &answer, ret_fd);
	if (err) {
		answer.why[sizeof(answer.why) - 1] = '\0';
		snprintf(why, size, "%s", *answer.why ? answer.why : "the mounter process failed");
	}
	return err;
}

void slu_mounter_free(struct slu_mounter *m)
{
	if (!m)
		return;
	if (m->sock >= 0) {
		close(m->sock);
		while (waitpid(m->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	slu_free(m);
}

/* ------------------------------------------------------------------ unmounting */

static int spawn_and_wait(char *const argv[], int capture, int *ret_status)
{
	static const char *const dirs[] = {"", "/usr/bin/", "/bin/"};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	char path[64];
	int err = ENOENT;
	pid_t pid;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (capture >= 0)
		posix_spawn_file_actions_adddup2(&actions, capture, STDERR_FILENO);
	/* mount(8) and services may have left us with another PATH. */
	for (size_t i = 0; i < slu_array_size(dirs) && err == ENOENT; i++) {
		snprintf(path, sizeof(path), "%s%s", dirs[i], argv[0]);
		err = posix_spawnp(&pid, path, &actions, &attr, argv, environ);
	}
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		return -err;
	while (waitpid(pid, ret_status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int detach_helper(const char *mountpoint, unsigned int flags, char *why, size_t size)
{
	char *argv[6] = {"fusermount3", "-u"};
	int capture, status = 0, n = 2, err;

	if (flags & SLU_DETACH_LAZY)
		argv[n++] = "-z";
	argv[n++] = "--";
	argv[n++] = (char *)mountpoint;
	capture = capture_open();
	err = spawn_and_wait(argv, capture, &status);
	if (err) {
		snprintf(why, size, "cannot run fusermount3: %s", strerror(-err));
		if (capture >= 0)
			close(capture);
		return err;
	}
	capture_take(capture, "fusermount3 failed", why, size);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	/* Its words are all there is to go by. */
	if (strstr(why, "busy"))
		return -EBUSY;
	if (strstr(why, "not found") || strstr(why, "not mounted") || strstr(why, "Invalid"))
		return -EINVAL;
	return strstr(why, "ermission") || strstr(why, "ermitted") ? -EPERM : -EIO;
}

int slu_mount_detach(const char *mountpoint, unsigned int flags, char *why, size_t size)
{
	int mnt = UMOUNT_NOFOLLOW;
	int err;

	if (geteuid() != 0)
		return detach_helper(mountpoint, flags, why, size);
	if (flags & SLU_DETACH_LAZY)
		mnt |= MNT_DETACH;
	if (flags & SLU_DETACH_FORCE)
		mnt |= MNT_FORCE;
	if (!umount2(mountpoint, mnt))
		return 0;
	err = -errno;
	if (err == -EPERM) /* root of a user namespace that does not own the mount */
		return detach_helper(mountpoint, flags, why, size);
	snprintf(why, size, "cannot unmount %s: %s", mountpoint, strerror(-err));
	return err;
}
