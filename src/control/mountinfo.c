/* SPDX-License-Identifier: MIT */
/*
 * What is mounted, for programs that have not started threads. Takes no lock.
 */
#include "sluice/control.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void slu_mount_entry_free(struct slu_mount_entry *e)
{
	if (!e)
		return;
	g_free(e->target);
	g_free(e->source);
	g_free(e->type);
	g_free(e->vfs_opts);
	g_free(e->super_opts);
	g_free(e);
}

/* "\040" is a blank, and so on. */
static char *unescape(const char *s)
{
	char *out = g_malloc(strlen(s) + 1), *p = out;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*p++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*p++ = *s++;
		}
	}
	*p = '\0';
	return out;
}

/* 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue */
struct slu_mount_entry *slu_mountinfo_parse(const char *line)
{
	g_autofree char *copy = g_strchomp(g_strdup(line));
	g_auto(GStrv) f = g_strsplit(copy, " ", -1);
	guint n = g_strv_length(f), dash = 6;
	struct slu_mount_entry *e;
	unsigned int major, minor;

	if (n < 10 || sscanf(f[2], "%u:%u", &major, &minor) != 2)
		return NULL;
	while (dash < n && strcmp(f[dash], "-") != 0)
		dash++;
	if (dash + 3 >= n)
		return NULL;
	e = g_new0(struct slu_mount_entry, 1);
	e->major = major;
	e->minor = minor;
	e->whole = strcmp(f[3], "/") == 0;
	e->target = unescape(f[4]);
	e->vfs_opts = unescape(f[5]);
	e->type = unescape(f[dash + 1]);
	e->source = unescape(f[dash + 2]);
	e->super_opts = unescape(f[dash + 3]);
	return e;
}

bool slu_mount_has_word(const char *opts, const char *word)
{
	g_auto(GStrv) list = g_strsplit(opts, ",", -1);

	return g_strv_contains((const gchar *const *)list, word);
}

bool slu_mount_entry_is_fuse(const struct slu_mount_entry *e)
{
	return strcmp(e->type, "fuse") == 0 || strcmp(e->type, "fuseblk") == 0 ||
	       g_str_has_prefix(e->type, "fuse.") || g_str_has_prefix(e->type, "fuseblk.");
}

bool slu_mount_entry_is_ours(const struct slu_mount_entry *e)
{
	return strcmp(e->type, "fuse.sluicefs") == 0 || strcmp(e->type, "fuseblk.sluicefs") == 0;
}

uid_t slu_mount_entry_uid(const struct slu_mount_entry *e)
{
	g_auto(GStrv) list = g_strsplit(e->super_opts, ",", -1);

	for (guint i = 0; list[i]; i++) {
		if (g_str_has_prefix(list[i], "user_id="))
			return (uid_t)strtoul(list[i] + strlen("user_id="), NULL, 10);
	}
	return 0;
}

static gid_t slu_mount_entry_gid(const struct slu_mount_entry *e)
{
	g_auto(GStrv) list = g_strsplit(e->super_opts, ",", -1);

	for (guint i = 0; list[i]; i++) {
		if (g_str_has_prefix(list[i], "group_id="))
			return (gid_t)strtoul(list[i] + strlen("group_id="), NULL, 10);
	}
	return 0;
}

/* Every entry goes to `each`, which takes it, in the order of the mounts. */
static void for_each(void (*each)(void *ctx, struct slu_mount_entry *e), void *ctx)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;

	if (!f)
		return;
	while (getline(&line, &size, f) > 0) {
		struct slu_mount_entry *e = slu_mountinfo_parse(line);

		if (e)
			each(ctx, e);
	}
	free(line); /* getline's */
	fclose(f);
}

struct search {
	bool (*match)(const struct slu_mount_entry *, const char *);
	const char *what;
	struct slu_mount_entry *found;
};

/* The last entry that matches lies on top. */
static void search_one(void *ctx, struct slu_mount_entry *e)
{
	struct search *s = ctx;

	if (!s->match(e, s->what)) {
		slu_mount_entry_free(e);
		return;
	}
	slu_mount_entry_free(s->found);
	s->found = e;
}

static struct slu_mount_entry *find(bool (*match)(const struct slu_mount_entry *, const char *),
				    const char *what)
{
	struct search s = {.match = match, .what = what};

	for_each(search_one, &s);
	return s.found;
}

static bool match_target(const struct slu_mount_entry *e, const char *target)
{
	return strcmp(e->target, target) == 0;
}

static bool match_source(const struct slu_mount_entry *e, const char *source)
{
	return slu_mount_entry_is_ours(e) && strcmp(e->source, source) == 0;
}

static bool match_device(const struct slu_mount_entry *e, const char *device)
{
	g_autofree char *its = g_strdup_printf("%u:%u", e->major, e->minor);

	return e->whole && strcmp(its, device) == 0;
}

struct slu_mount_entry *slu_mountinfo_by_device(unsigned int major, unsigned int minor)
{
	g_autofree char *device = g_strdup_printf("%u:%u", major, minor);

	return find(match_device, device);
}

struct slu_mount_entry *slu_mountinfo_by_target(const char *target)
{
	return find(match_target, target);
}

struct slu_mount_entry *slu_mountinfo_by_source(const char *source)
{
	return find(match_source, source);
}

static void collect_ours(void *ctx, struct slu_mount_entry *e)
{
	if (slu_mount_entry_is_ours(e))
		g_ptr_array_add(ctx, e);
	else
		slu_mount_entry_free(e);
}

GPtrArray *slu_mountinfo_ours(void)
{
	GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)slu_mount_entry_free);

	for_each(collect_ours, all);
	return all;
}

/* ------------------------------------------------------------------ dead or alive */

/* Past the kernel's cache, which outlives the daemon. */
static int stat_now(const char *path)
{
	struct statx stx;

	return statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) ? errno : 0;
}

/* In a child. Root may not look into a user's mount; who has become that user may. */
static int stat_as_owner(const struct slu_mount_entry *e)
{
	uid_t uid = slu_mount_entry_uid(e);
	gid_t gid = slu_mount_entry_gid(e);
	int err = stat_now(e->target);

	if (err != EACCES || geteuid() != 0)
		return err;
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return EACCES;
	return stat_now(e->target);
}

/* What the child exits with; ETIMEDOUT if it does not in time, after which it is left to itself. */
static int wait_in_time(pid_t pid)
{
	uint64_t deadline = slu_clock_ns() + SLU_CONTROL_CONNECT_SEC * SLU_NS_PER_SEC;
	int status;
	pid_t got;

	while (!(got = waitpid(pid, &status, WNOHANG)) || (got < 0 && errno == EINTR)) {
		if (slu_clock_ns() >= deadline) {
			/* Its request may have been taken by a daemon that hangs: it ends with that. */
			kill(pid, SIGKILL);
			return ETIMEDOUT;
		}
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	return got == pid && WIFEXITED(status) ? WEXITSTATUS(status) : EACCES;
}

bool slu_mount_entry_is_dead(const struct slu_mount_entry *e)
{
	pid_t pid;
	int err;

	if (!slu_mount_entry_is_fuse(e))
		return false;
	pid = fork();
	if (pid < 0)
		return false;
	if (!pid)
		_exit(stat_as_owner(e) & 0xff);
	err = wait_in_time(pid);
	return err == ENOTCONN || err == ECONNABORTED;
}

char *slu_path_canonical(const char *path)
{
	g_autofree char *dir = NULL, *base = NULL, *real_dir = NULL;
	char *real = realpath(path, NULL);
	int err = errno;

	if (real) {
		char *copy = g_strdup(real);

		free(real); /* realpath's */
		return copy;
	}
	if (err != ENOTCONN && err != EACCES && err != ECONNABORTED)
		return NULL;
	/* The last part may be a dead mount point; what leads to it is not. */
	dir = g_path_get_dirname(path);
	base = g_path_get_basename(path);
	real = realpath(dir, NULL);
	if (!real || strcmp(base, "..") == 0) {
		free(real);
		errno = err;
		return NULL;
	}
	real_dir = g_strdup(real);
	free(real);
	return g_build_filename(real_dir, base, NULL);
}
