/* SPDX-License-Identifier: MIT */
/*
 * Durability: fsync of one inode, sync of all, and the drain before a remount read-only.
 *
 * The order is always the same: file data is written out and recorded, then times that only memory
 * has, then one commit that flushes data and records together.
 */
#include "fs_private.h"

/*
 * What datasync leaves out are times. True where the size too has been recorded: not after pages
 * that had never been written were punched out below it.
 */
static bool size_recorded(struct slu_inode *inode, uint64_t *ret_txid)
{
	slu_mutex_lock(&inode->vol.iomap.lock);
	bool recorded =
		inode->type != S_IFREG || slu_aspace_synced(&inode->data) <= inode->data.disk_size;
	*ret_txid = inode->last_txid;
	slu_mutex_unlock(&inode->vol.iomap.lock);
	return recorded;
}

int fs_sync_inode(struct slu_fs *fs, struct slu_inode *inode, bool datasync)
{
	uint64_t txid;
	int err = 0;

	if (S_ISREG(inode->type) && fs->wb)
		err = slu_writeback_range(fs->wb, &inode->data, 0, UINT64_MAX);
	if (slu_mutant(FSYNC_NO_ERROR))
		err = 0;
	if (err)
		return err;
	if (!datasync || !size_recorded(inode, &txid))
		err = slu_inode_sync_attr(inode, &txid);
	if (err)
		return err;
	if (slu_mutant(FSYNC_NO_COMMIT))
		return 0;
	return slu_store_commit(fs->store, txid, !slu_mutant(FSYNC_NO_FLUSH));
}

int slu_fs_fsync(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t fh, bool datasync)
{
	struct slu_handle *handle = slu_handle_get(fs->cache, fh);
	struct slu_inode *inode;
	int err = fs_may_wait(ctx, "fsync");

	if (err)
		return err;
	err = slu_inode_get(fs->ns, ino, &inode);
	if (err)
		return err;
	/* The kernel has sent all that it had first, and lets nobody append until it has our answer. */
	slu_aspace_settle(&inode->data);
	if (!fs_readonly(fs) || slu_aspace_dirty(&inode->data))
		err = fs_sync_inode(fs, inode, datasync);
	/* An error that a retry has healed since is reported all the same, once to each handle. */
	if (handle && atomic_load(&handle->ino) == ino) {
		int recorded = slu_aspace_error_check(&inode->data, &handle->error_cursor);
		if (!err)
			err = recorded;
	}
	slu_inode_put(inode);
	return err;
}

/* What writes have passed over after `since` may still be on its way. */
static int sync_all(struct slu_fs *fs, uint64_t since)
{
	int err, attr_err, commit_err;

	if (!fs->wb) /* mounted read-only */
		return 0;
	/* First: what fills a hole from here on does not hold up the size that is promised. */
	slu_cache_settle(fs->cache, since);
	err = slu_writeback_all(fs->wb);
	if (slu_mutant(SYNC_SETTLES_ALL))
		slu_cache_settle(fs->cache, slu_cache_awaited_ns(fs->cache));
	attr_err = slu_ns_sync_attrs(fs->ns);
	commit_err = slu_store_commit(fs->store, slu_store_txid(fs->store), true);
	return err ? err : attr_err ? attr_err : commit_err;
}

int slu_fs_sync(struct slu_fs *fs)
{
	return sync_all(fs, slu_cache_awaited_ns(fs->cache));
}

int slu_fs_syncfs(struct slu_fs *fs, int (*flush)(void *ctx), void *ctx)
{
	uint64_t since = slu_cache_awaited_ns(fs->cache);
	int err = flush(ctx);

	/*
	 * What had been passed over before the flush has come, or is a hole. What the flush itself,
	 * or an append beside it, has passed over may be on its way: then the kernel has it dirty.
	 */
	if (!err && slu_cache_awaited_ns(fs->cache) > since) {
		since = slu_cache_awaited_ns(fs->cache);
		err = flush(ctx);
	}
	return err ? err : sync_all(fs, since);
}

/* Between the arrival of two requests that the kernel has sent together. */
#define OVERTAKE_NS (50 * SLU_NS_PER_MS)

int slu_fs_syncfs_flushed(struct slu_fs *fs)
{
	uint64_t since = slu_cache_awaited_ns(fs->cache);

	if (since + OVERTAKE_NS > slu_clock_ns())
		slu_sleep_ns(OVERTAKE_NS);
	return sync_all(fs, since);
}

static void allow_changes(struct slu_fs *fs, bool allow)
{
	atomic_store(&fs->p->readonly, !allow);
	fs->readonly = !allow;
	slu_ns_set_readonly(fs->ns, !allow);
}

static int set_readonly(struct slu_fs *fs, bool readonly)
{
	struct slu_store_info info;
	int err;

	if (readonly == fs_readonly(fs))
		return 0;
	if (!readonly) {
		slu_store_info(fs->store, &info);
		if (info.readonly || !fs->wb)
			return -EROFS;
		allow_changes(fs, true);
		return 0;
	}
	/* New changes are refused from here on; what was accepted goes to disk. */
	allow_changes(fs, false);
	err = slu_fs_sync(fs);
	if (err)
		allow_changes(fs, true);
	return err;
}

int slu_fs_set_readonly(struct slu_fs *fs, bool readonly)
{
	int err;

	if (!freeze_hold_off(fs))
		return -EBUSY;
	err = set_readonly(fs, readonly);
	freeze_release(fs);
	return err;
}

void slu_fs_statfs(struct slu_fs *fs, struct slu_statfs *ret)
{
	struct slu_space_stat space;
	struct slu_store_info info;

	slu_space_stat(fs->store, &space);
	slu_store_info(fs->store, &info);
	/*
	 * Inodes are records and share the space: as many as would fit if every free block were
	 * filled with the smallest of files (record, name, extent) beside one block of data.
	 */
	*ret = (struct slu_statfs){
		.blocks = space.nblocks,
		.bfree = space.free,
		.bavail = space.free,
		.files = space.ninodes + space.free,
		.ffree = space.free,
		.fsid = slu_get_le64(info.volume_id),
	};
}
