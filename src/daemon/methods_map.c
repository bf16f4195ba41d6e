/* SPDX-License-Identifier: MIT */
/*
 * Map: where a file lies. In a client's thread; takes no lock.
 *
 * The descriptor may be of our own mount, so it is asked only what the kernel answers by itself. It is
 * closed before the first reply, since a client that does not read would keep the mount busy with it.
 * With its write-back cache the kernel then writes the file out to our workers and waits for them,
 * as for anybody who closes it; a client's thread is none of them.
 */
#include "daemon_private.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH 512u

/* 0, after the call has been answered: none. */
static uint64_t inode_of_fd(struct served *v, struct slu_control_call *call)
{
	int fd = slu_control_take_fd(call, "fileDescriptor"), flags;
	struct statx stx = {0};
	bool ours, readable;

	if (fd < 0)
		return 0;
	flags = fcntl(fd, F_GETFL);
	readable = flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_WRONLY;
	ours = !statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &stx) &&
	       slu_fuse_connection(stx.stx_dev_major, stx.stx_dev_minor) == v->connection;
	close(fd);
	if (ours && readable && S_ISREG(stx.stx_mode))
		return stx.stx_ino;
	if (!ours)
		slu_control_fail(call, "Failed", "that file is not on %s", v->mountpoint);
	else if (!readable)
		slu_control_fail(call, "Failed", "%s: the file is not open for reading",
				 v->mountpoint);
	else
		slu_control_fail(call, "Failed", "%s: only a regular file has a map",
				 v->mountpoint);
	return 0;
}

static uint64_t wanted_inode(struct served *v, struct slu_control_call *call)
{
	int64_t ino = 0;

	if (!slu_control_int(call, "inode", &ino))
		return 0;
	if (!ino)
		return inode_of_fd(v, call);
	if (ino > 0)
		return (uint64_t)ino;
	slu_control_fail(call, "Failed", "%s: %lld is not the number of an inode", v->mountpoint,
			 (long long)ino);
	return 0;
}

static JsonObject *describe_extent(const struct slu_iomap *m)
{
	JsonObject *o = json_object_new();

	json_object_set_int_member(o, "position", (gint64)m->pos);
	json_object_set_int_member(o, "length", (gint64)m->len);
	if (m->type != SLU_IOMAP_DELALLOC)
		json_object_set_int_member(o, "block", (gint64)m->blkno);
	json_object_set_string_member(o, "type", slu_iomap_type_name(m->type));
	return o;
}

static JsonObject *describe_batch(struct served *v, uint64_t ino, uint64_t size,
				  const struct slu_iomap *maps, int n)
{
	JsonObject *o = json_object_new();
	JsonArray *extents = json_array_new();
	struct slu_store_info info;

	slu_store_info(v->stack->fs->store, &info);
	for (int i = 0; i < n; i++)
		json_array_add_object_element(extents, describe_extent(&maps[i]));
	json_object_set_int_member(o, "inode", (gint64)ino);
	json_object_set_int_member(o, "size", (gint64)size);
	json_object_set_int_member(o, "volume", (gint64)(info.nblocks << SLU_BLOCK_SHIFT));
	json_object_set_array_member(o, "extents", extents);
	return o;
}

static void fail(struct served *v, struct slu_control_call *call, uint64_t ino, int err)
{
	if (err == -ENOENT || err == -ESTALE)
		slu_control_fail(call, "Failed", "%s: there is no inode %llu (any more)",
				 v->mountpoint, (unsigned long long)ino);
	else if (err == -EINVAL)
		slu_control_fail(call, "Failed",
				 "%s: inode %llu is not a regular file, and has no map",
				 v->mountpoint, (unsigned long long)ino);
	else
		slu_control_fail(call, "Failed", "%s: the extents of inode %llu cannot be read: %s",
				 v->mountpoint, (unsigned long long)ino, g_strerror(-err));
}

void methods_map(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	g_autofree struct slu_iomap *maps = NULL;
	uint64_t ino, pos = 0, size;
	int n;

	if (!slu_control_wants_more(call, true))
		return;
	ino = wanted_inode(v, call);
	if (!ino)
		return;
	maps = g_new(struct slu_iomap, BATCH);
	for (;;) {
		n = slu_fs_extents(v->stack->fs, ino, &pos, maps, BATCH, &size);
		if (n <= 0)
			break;
		if (!slu_control_continue(call, describe_batch(v, ino, size, maps, n)))
			return;
	}
	if (n)
		fail(v, call, ino, n);
	else
		slu_control_reply(call, describe_batch(v, ino, size, NULL, 0));
}
