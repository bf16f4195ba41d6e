/* SPDX-License-Identifier: MIT */
/*
 * The short-lived parts of the program: unmount and wait, remount. Called by main; no threads, no
 * locks.
 */
#include "daemon_private.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SAY_AFTER_NS (5 * SLU_NS_PER_SEC)
#define LOCK_POLL_NS (20 * SLU_NS_PER_MS)

static struct slu_mount_entry *find_mount(const char *what)
{
	g_autofree char *path = slu_path_canonical(what);
	struct slu_mount_entry *e = NULL;

	if (path)
		e = slu_mountinfo_by_target(path);
	if (!e && path)
		e = slu_mountinfo_by_source(path);
	return e ? e : slu_mountinfo_by_source(what);
}

/* ------------------------------------------------------------------ unmount */

/* A handle on the daemon, so that its end can be waited for; -1 if it cannot be told. */
static int daemon_pidfd(const struct slu_mount_entry *e, pid_t *ret_pid)
{
	struct slu_control_client *c = slu_control_connect_mount(e, NULL);
	int fd;

	if (!c)
		return -1;
	*ret_pid = slu_control_peer(c);
	fd = (int)syscall(SYS_pidfd_open, *ret_pid, 0);
	slu_control_close(c);
	return fd;
}

static void wait_for_process(int pidfd, pid_t pid)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int n;

	n = poll(&p, 1, (int)(SAY_AFTER_NS / SLU_NS_PER_MS));
	if (n == 0)
		report(LOG_NOTICE, "waiting for process %d to write everything out", (int)pid);
	while (n == 0 || (n < 0 && errno == EINTR))
		n = poll(&p, 1, -1);
}

/* The lock is held exactly as long as the image may be written to. */
static void wait_for_lock(const char *image)
{
	uint64_t start = slu_clock_ns();
	bool said = false;
	struct stat st;
	int fd;

	if (*image != '/' || stat(image, &st) || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return;
	fd = open(image, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	while (flock(fd, LOCK_SH | LOCK_NB) && (errno == EWOULDBLOCK || errno == EINTR)) {
		if (!said && slu_clock_ns() - start > SAY_AFTER_NS) {
			report(LOG_NOTICE, "waiting until %s is written out", image);
			said = true;
		}
		slu_sleep_ns(LOCK_POLL_NS);
	}
	close(fd);
}

int helper_unmount(const struct daemon_opts *o)
{
	struct slu_mount_entry *e = find_mount(o->mountpoint);
	unsigned int flags = 0;
	int pidfd = -1, err;
	pid_t pid = 0;
	char why[256];

	if (!e || !slu_mount_entry_is_ours(e)) {
		report(LOG_ERR, e ? "%s is not a sluicefs mount" : "%s is not mounted",
		       o->mountpoint);
		slu_mount_entry_free(e);
		return STATUS_FAILED;
	}
	if (o->lazy)
		flags |= SLU_DETACH_LAZY;
	if (o->force)
		flags |= SLU_DETACH_FORCE;
	if (!slu_mount_entry_is_dead(e))
		pidfd = daemon_pidfd(e, &pid);
	err = slu_mount_detach(e->target, flags, why, sizeof(why));
	if (err)
		report(LOG_ERR, "%s%s", why,
		       err == -EBUSY ? " (files are open on it; --lazy does not wait for them)"
				     : "");
	/*
	 * After a lazy one the daemon lives as long as files are open: that is what was asked for.
	 */
	else if (!o->lazy && pidfd >= 0)
		wait_for_process(pidfd, pid);
	else if (!o->lazy)
		wait_for_lock(e->source);
	if (pidfd >= 0)
		close(pidfd);
	slu_mount_entry_free(e);
	return err ? STATUS_FAILED : STATUS_OK;
}

/* After a daemon that was killed. What is not mounted, or lives, is left alone: status 0. */
int helper_cleanup(const struct daemon_opts *o)
{
	struct slu_mount_entry *e = find_mount(o->mountpoint);
	char why[256];
	int err = 0;

	if (e && slu_mount_entry_is_ours(e) && slu_mount_entry_is_dead(e))
		err = slu_mount_detach(e->target, SLU_DETACH_LAZY, why, sizeof(why));
	if (err)
		report(LOG_ERR, "%s", why);
	slu_mount_entry_free(e);
	return err ? STATUS_FAILED : STATUS_OK;
}

/* ------------------------------------------------------------------ remount */

/* mount(2) sets all of them anew, so those that are there are said again. */
static unsigned long current_flags(const struct slu_mount_entry *e)
{
	static const struct {
		const char *word;
		unsigned long flag;
	} map[] = {
		{"nosuid", MS_NOSUID},   {"nodev", MS_NODEV},           {"noexec", MS_NOEXEC},
		{"noatime", MS_NOATIME}, {"nodiratime", MS_NODIRATIME}, {"relatime", MS_RELATIME},
	};
	unsigned long flags = 0;

	for (size_t i = 0; i < G_N_ELEMENTS(map); i++) {
		if (slu_mount_has_word(e->vfs_opts, map[i].word))
			flags |= map[i].flag;
	}
	return flags;
}

static bool kernel_remount(const struct slu_mount_entry *e, bool readonly, GError **error)
{
	unsigned long flags = MS_REMOUNT | current_flags(e) | (readonly ? MS_RDONLY : 0);

	if (!mount(e->source, e->target, e->type, flags, NULL))
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "%s cannot be remounted: %s", e->target,
		    errno == EBUSY ? "files are open for writing" : g_strerror(errno));
	return false;
}

/* parameters: taken. */
static bool call(struct slu_control_client *c, const char *method, JsonObject *parameters,
		 GError **error)
{
	JsonObject *reply = slu_control_call(c, method, parameters, error);

	if (!reply)
		return false;
	json_object_unref(reply);
	return true;
}

static bool call_check(struct slu_control_client *c, const char *list, GError **error)
{
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "options", list);
	return call(c, "org.sluicefs.Volume.CheckRemount", o, error);
}

static bool call_remount(struct slu_control_client *c, bool readonly, GError **error)
{
	JsonObject *o = json_object_new();

	json_object_set_boolean_member(o, "readOnly", readonly);
	return call(c, "org.sluicefs.Volume.Remount", o, error);
}

/*
 * Read-only: the kernel first, because it writes out what it holds while the daemon still takes it;
 * then the daemon drains. Writable: the other way round.
 */
static bool remount_with(struct slu_control_client *c, const struct slu_mount_entry *e,
			 const char *list, bool readonly, GError **error)
{
	if (!call_check(c, list, error))
		return false;
	if (readonly)
		return kernel_remount(e, true, error) && call_remount(c, true, error);
	if (!call_remount(c, false, error))
		return false;
	if (kernel_remount(e, false, error))
		return true;
	(void)call_remount(c, true, NULL);
	return false;
}

static bool remount(const struct slu_mount_entry *e, const char *list, bool readonly,
		    GError **error)
{
	struct slu_control_client *c = slu_control_ask_mount(e, error);
	bool ok = c && remount_with(c, e, list, readonly, error);

	slu_control_close(c);
	return ok;
}

int helper_remount(const struct daemon_opts *o, const char *list)
{
	g_autoptr(GError) error = NULL;
	struct slu_mount_entry *e;
	bool readonly, ok;

	if (geteuid() != 0) {
		report(LOG_ERR, "only root can remount");
		return STATUS_USAGE;
	}
	e = find_mount(o->mountpoint);
	if (!e || !slu_mount_entry_is_ours(e)) {
		report(LOG_ERR, "%s is not a sluicefs mount", o->mountpoint);
		slu_mount_entry_free(e);
		return STATUS_FAILED;
	}
	/* Without ro or rw everything stays as it is, and only the check is of use. */
	readonly = o->given & GIVEN_MODE ? o->readonly : slu_mount_has_word(e->super_opts, "ro");
	ok = remount(e, list, readonly, &error);
	if (!ok)
		report(LOG_ERR, "%s", error->message);
	slu_mount_entry_free(e);
	return ok ? STATUS_OK : STATUS_FAILED;
}
