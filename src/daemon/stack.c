/* SPDX-License-Identifier: MIT */
/*
 * From an image's name to a mounted volume: opens, locks, checks, and falls back to reading where
 * only writing is denied. Called once by serve, before the kernel is asked to mount anything, so
 * that whatever is wrong with the image shows while nothing has happened.
 */
#include "daemon_private.h"
#include "sluice/blockio.h"
#include "sluice/content.h"
#include <string.h>
#include <sys/stat.h>

#define EXTEND_USEC 30000000u /* a start may take that much longer than its wait for the image */

struct busy {
	const char *image;
	uint64_t wait_ns;
	int pid;
	char comm[64];
};

static void tell_busy(void *ctx, int pid, const char *comm)
{
	struct busy *b = ctx;

	b->pid = pid;
	g_strlcpy(b->comm, comm, sizeof(b->comm));
	if (!b->wait_ns)
		return;
	notify_send("EXTEND_TIMEOUT_USEC=%llu\nSTATUS=Waiting for %s, which is in use\n",
		    (unsigned long long)(b->wait_ns / 1000 + EXTEND_USEC), b->image);
	if (pid)
		report(LOG_NOTICE, "%s is in use by process %d (%s); waiting up to %.3g s",
		       b->image, pid, comm, (double)b->wait_ns / 1e9);
	else
		report(LOG_NOTICE, "%s is in use; waiting up to %.3g s", b->image,
		       (double)b->wait_ns / 1e9);
}

/* " of user NAME", of a process; nothing if it has gone. */
static char *of_user(int pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d", pid), *user = NULL;
	struct stat st;

	if (!pid || stat(path, &st))
		return g_strdup("");
	user = slu_user_name(st.st_uid);
	return g_strdup_printf(" of user %s", user);
}

static void busy_error(GError **error, const char *image, const struct busy *busy)
{
	struct slu_mount_entry *e = slu_mountinfo_by_source(image);
	g_autofree char *where =
		e ? g_strdup_printf(": it is mounted on %s", e->target) : g_strdup("");
	g_autofree char *whose = of_user(busy->pid);

	if (busy->pid)
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED,
			    "%s is in use by process %d (%s)%s%s", image, busy->pid, busy->comm,
			    whose, where);
	else
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "%s is in use%s", image, where);
	slu_mount_entry_free(e);
}

static void open_error(GError **error, const struct daemon_opts *o, const char *image, int err,
		       const struct busy *busy)
{
	switch (err) {
	case -EBUSY:
		busy_error(error, image, busy);
		return;
	case -ENOSYS:
	case -EPERM:
		if (o->engine) {
			g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
				    "io=%s is not available here: %s", o->engine, strerror(-err));
			return;
		}
		break;
	case -EINVAL:
		if (o->image_offset || o->image_size) {
			g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
				    "%s: image_offset or image_size do not fit the image", image);
			return;
		}
		break;
	case -ENOTBLK:
		g_set_error(error, DAEMON_ERROR, STATUS_MISTAKE,
			    "%s is neither a file nor a block device", image);
		return;
	}
	g_set_error(error, DAEMON_ERROR,
		    err == -EACCES || err == -ENOENT ? STATUS_MISTAKE : STATUS_FAILED,
		    "%s cannot be opened: %s", image, strerror(-err));
}

static struct slu_blockio *open_image(const struct daemon_opts *o, const char *image,
				      _Atomic uint64_t *progress, bool *readonly, GError **error)
{
	struct busy busy = {.image = image, .wait_ns = o->wait_ns};
	struct slu_blockio_opts opts = {
		.engine = o->engine,
		.image_offset = o->image_offset,
		.image_size = o->image_size,
		.lock_wait_ns = o->wait_ns,
		.lock_busy = tell_busy,
		.lock_busy_ctx = &busy,
		.progress = progress,
	};
	struct slu_blockio *bio;
	int err;

	for (;;) {
		opts.readonly = *readonly;
		opts.lock = *readonly ? SLU_LOCK_SHARED : SLU_LOCK_EXCLUSIVE;
		err = slu_blockio_open(image, &opts, &bio);
		if ((err != -EACCES && err != -EROFS) || *readonly)
			break;
		*readonly = true;
	}
	if (err) {
		open_error(error, o, image, err, &busy);
		return NULL;
	}
	return bio;
}

/* What is there, or is missing, stays so; what could not be read may be read the next time. */
static void volume_error(GError **error, const struct daemon_opts *o, const char *image, int err,
			 const char *why)
{
	enum exit_status status = err == -EINVAL || err == -EPROTONOSUPPORT || err == -ENOSPC
					  ? STATUS_MISTAKE
					  : STATUS_FAILED;
	char content[128];

	if (why && err == -EIO)
		g_set_error(error, DAEMON_ERROR, status, "%s: %s (or it cannot be read)", image,
			    why);
	else if (why && err == -EINVAL &&
		 slu_content_describe(image, o->image_offset, o->image_size, content,
				      sizeof(content)))
		g_set_error(error, DAEMON_ERROR, status, "%s: %s, but %s", image, why, content);
	else if (why)
		g_set_error(error, DAEMON_ERROR, status, "%s: %s", image, why);
	else
		g_set_error(error, DAEMON_ERROR, status, "%s cannot be mounted: %s", image,
			    strerror(-err));
}

bool stack_open(struct stack *st, const struct daemon_opts *o, const char *image,
		const struct slu_event_sink *events, GError **error)
{
	struct slu_fs_opts opts = {
		.sync = o->sync,
		.relatime = o->atime == ATIME_RELATIVE,
		.noatime = o->atime == ATIME_NEVER,
		.nodiratime = o->nodiratime,
		.cache_size = o->cache_size,
		.commit_interval_ns = o->commit_ns,
		.events = *events,
	};
	const struct slu_blockio_info *info;
	struct slu_blockio *bio;
	const char *why = NULL;
	int err;

	st->readonly = o->readonly;
	bio = open_image(o, image, &st->progress, &st->readonly, error);
	if (!bio)
		return false;
	info = slu_blockio_info(bio);
	if (info->fallback)
		report(LOG_INFO, "%s", info->fallback);
	report(LOG_DEBUG, "engine %s, direct %d, %llu blocks", info->engine, info->direct,
	       (unsigned long long)atomic_load(&info->nblocks));
	opts.readonly = st->readonly;
	err = slu_fs_mount(bio, &opts, &st->fs, &why);
	if (err) {
		volume_error(error, o, image, err, why);
		slu_blockio_close(bio);
		return false;
	}
	/* Said now, so that a failure is one line. */
	if (st->readonly && !o->readonly)
		report(LOG_WARNING, "%s: no permission to write; mounting read-only", image);
	if (st->fs->readonly && !st->readonly) {
		struct slu_store_info volume;

		slu_store_info(st->fs->store, &volume);
		report(LOG_WARNING, "%s: %s; mounting read-only", image, volume.why_readonly);
		st->readonly = true;
	}
	if (!st->readonly && info->kind == SLU_IMAGE_FILE && !atomic_load(&info->can_reserve))
		report(LOG_INFO,
		       "%s: the host cannot set blocks aside, so a full host disk shows at fsync",
		       image);
	return true;
}
