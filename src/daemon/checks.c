/* SPDX-License-Identifier: MIT */
/*
 * What can be known to be wrong before anything is touched, said in one line that names the remedy.
 * Called by main before there are threads; takes no lock.
 */
#include "daemon_private.h"
#include "sluice/units.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FUSE_DEVICE "/dev/fuse"
#define FUSE_CONF   "/etc/fuse.conf"

/* Of a name: what is not there, or not allowed, is so until somebody changes it. */
static enum exit_status status_of(int err)
{
	return err == ENOENT || err == ENOTDIR || err == EACCES || err == ELOOP ||
			       err == ENAMETOOLONG
		       ? STATUS_MISTAKE
		       : STATUS_FAILED;
}

bool check_preopened(const char *mountpoint)
{
	return g_str_has_prefix(mountpoint, "/dev/fd/");
}

bool check_fuse_device(const struct daemon_opts *o, GError **error)
{
	if (check_preopened(o->mountpoint)) /* there need not be another */
		return true;
	if (access(FUSE_DEVICE, R_OK | W_OK) == 0)
		return true;
	if (access(FUSE_DEVICE, F_OK) == 0) {
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
			    "no permission to open " FUSE_DEVICE
			    ": an administrator has to open it to all (chmod 666 " FUSE_DEVICE ")");
		return false;
	}
	g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
		    "there is no " FUSE_DEVICE ": load the module (modprobe fuse), or give the "
		    "container the device (--device " FUSE_DEVICE ")");
	return false;
}

static bool conf_allows_other(void)
{
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;

	if (!g_file_get_contents(FUSE_CONF, &text, NULL, NULL))
		return false;
	lines = g_strsplit(text, "\n", -1);
	for (guint i = 0; lines[i]; i++) {
		if (strcmp(g_strstrip(lines[i]), "user_allow_other") == 0)
			return true;
	}
	return false;
}

bool check_allow_other(const struct daemon_opts *o, GError **error)
{
	if (!o->allow_other || geteuid() == 0 || conf_allows_other())
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
		    "allow_other is not allowed to ordinary users here: an administrator has to "
		    "add the line user_allow_other to " FUSE_CONF);
	return false;
}

/* More would be promised now and missed under load. */
bool check_cache_size(const struct daemon_opts *o, GError **error)
{
	uint64_t have = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char want_str[SLU_SIZE_STR], have_str[SLU_SIZE_STR];

	if (o->cache_size <= have)
		return true;
	slu_format_size(o->cache_size, want_str);
	slu_format_size(have, have_str);
	g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
		    "cache_size: %s is more than the %s of memory in this machine", want_str,
		    have_str);
	return false;
}

bool check_ready_fd(const struct daemon_opts *o, GError **error)
{
	if (o->ready_fd < 0 || fcntl(o->ready_fd, F_GETFD) >= 0)
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
		    "--ready-fd=%d: there is no such open descriptor", o->ready_fd);
	return false;
}

/* ------------------------------------------------------------------ the mount point */

static bool clear_dead(const char *path, GError **error)
{
	char why[256];

	if (slu_mount_detach(path, 0, why, sizeof(why)) &&
	    slu_mount_detach(path, SLU_DETACH_LAZY, why, sizeof(why))) {
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
			    "the dead mount on %s cannot be unmounted: %s", path, why);
		return false;
	}
	return true;
}

/* As it can be typed. */
static char *quoted(const char *path)
{
	static const char plain[] = G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "/._-+:@%";

	return path[strspn(path, plain)] ? g_shell_quote(path) : g_strdup(path);
}

/* True: nothing dead lies on path (any more). */
static bool check_dead(const struct daemon_opts *o, const char *path, GError **error)
{
	for (int i = 0; i < 16; i++) { /* they can lie on top of each other */
		struct slu_mount_entry *e = slu_mountinfo_by_target(path);
		bool dead = e && slu_mount_entry_is_dead(e);

		slu_mount_entry_free(e);
		if (!dead)
			return true;
		if (!o->replace_stale) {
			g_autofree char *typed = quoted(path);

			g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
				    "%s is a dead mount (Transport endpoint is not connected): "
				    "type \"fusermount3 -u %s\", or use --replace-stale",
				    path, typed);
			return false;
		}
		if (!clear_dead(path, error))
			return false;
	}
	g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "too many dead mounts on %s", path);
	return false;
}

static void check_failed_stat(const char *path, int err, GError **error)
{
	struct slu_mount_entry *e = slu_mountinfo_by_target(path);
	g_autofree char *user = slu_user_name(e ? slu_mount_entry_uid(e) : 0);

	/* Not even root may look into somebody's mount without allow_other. */
	if (e && err == EACCES && slu_mount_entry_is_fuse(e))
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
			    "%s is in use: user %s has mounted %s there", path, user, e->source);
	else
		g_set_error(error, DAEMON_ERROR, status_of(err), "the mount point %s: %s", path,
			    g_strerror(err));
	slu_mount_entry_free(e);
}

char *check_mountpoint(const struct daemon_opts *o, GError **error)
{
	g_autofree char *path = NULL;
	struct stat st;

	if (check_preopened(o->mountpoint))
		return g_strdup(o->mountpoint);
	path = slu_path_canonical(o->mountpoint);
	if (!path) {
		if (errno == ENOENT)
			g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
				    "the mount point %s does not exist", o->mountpoint);
		else
			g_set_error(error, DAEMON_ERROR, status_of(errno), "the mount point %s: %s",
				    o->mountpoint, g_strerror(errno));
		return NULL;
	}
	if (!check_dead(o, path, error))
		return NULL;
	if (stat(path, &st)) {
		check_failed_stat(path, errno, error);
		return NULL;
	}
	if (!S_ISDIR(st.st_mode)) {
		g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
			    "the mount point %s is not a directory", path);
		return NULL;
	}
	return g_steal_pointer(&path);
}

/* ------------------------------------------------------------------ the image */

char *check_image(const struct daemon_opts *o, bool *ret_device, GError **error)
{
	g_autofree char *path = NULL;
	struct stat st;

	path = slu_path_canonical(o->image);
	if (!path || stat(path, &st)) {
		g_set_error(error, DAEMON_ERROR, status_of(errno), "%s: %s", o->image,
			    g_strerror(errno));
		return NULL;
	}
	if (S_ISDIR(st.st_mode)) {
		g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
			    "%s is a directory: the first argument is the image", path);
		return NULL;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
			    "%s is neither a file nor a block device", path);
		return NULL;
	}
	*ret_device = S_ISBLK(st.st_mode);
	return g_steal_pointer(&path);
}
