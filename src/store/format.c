/* SPDX-License-Identifier: MIT */
/*
 * Making an empty volume: the first transaction of a store that has nothing before it.
 *
 * Called by mkfs and by tests. Uses the commit of every other transaction, in the caller's thread,
 * so that there is one way only to write nodes; then writes both superblocks clean. Until then both
 * superblocks are blank, so a crash in between leaves no half of a volume, nor half of one that was
 * there before. The spare superblock comes with the blank ones: it replaces that of an earlier
 * volume, and no superblock is ever on disk without it.
 */
#include "store_batch.h"

static int format_blank(struct slu_store *store)
{
	int err = 0;

	memset(store->super_buf, 0, sizeof(*store->super_buf));
	for (unsigned int slot = 0; slot < 2 && !err; slot++)
		err = slu_blockio_write(store->bio, slot, 1, store->super_buf);
	if (!err)
		err = super_write_spare(store, store->space.nblocks);
	return err ? err : slu_blockio_flush(store->bio);
}

/* What never changes. */
static void format_super(struct slu_disk_super *sb, const struct slu_format_params *params)
{
	memset(sb, 0, sizeof(*sb));
	memcpy(sb->magic, SLU_MAGIC, sizeof(sb->magic));
	slu_put_le32(&sb->version, SLU_FORMAT_VERSION);
	slu_put_le32(&sb->block_size, SLU_BLOCK_SIZE);
	memcpy(sb->volume_id, params->volume_id, sizeof(sb->volume_id));
	slu_put_le64(&sb->hash_seed, params->hash_seed);
	slu_put_le64(&sb->features_ro_compat, params->no_spare ? 0 : SLU_FEATURE_SPARE);
	slu_put_le64(&sb->mkfs_time, (uint64_t)slu_clock_realtime().tv_sec);
	if (params->label)
		memcpy(sb->label, params->label, strnlen(params->label, SLU_LABEL_MAX));
}

/* An empty leaf for a tree, chunk 0's record, and the caller's records. */
static int format_tree(struct slu_store *store, const struct slu_batch *records)
{
	unsigned int nops = records ? records->nops : 0;
	struct tree_op ops[SLU_BATCH_MAX_RECORDS];
	struct slu_need need;
	struct tree_plan plan;
	struct chunk *c;
	int err;

	if (records && records->error)
		return records->error;
	err = node_cache_fill(store, 1);
	if (err)
		return err;
	store->root = node_new(store, 0, tree_key_min, tree_key_max)->ref;
	err = chunk_load_locked(store, 0, &c, &need);
	if (err)
		return err;
	chunk_changed(store, c);
	if (nops) {
		batch_sort(records, ops);
		err = tree_plan(store, ops, nops, &plan, &need);
		if (!err)
			err = tree_make_ready(store, &plan, 0, 0);
		if (err)
			return err;
		tree_apply(store, ops, nops);
		stat_add(&store->space.record_bytes, (uint64_t)plan.record_bytes);
	}
	txn_touch(store);
	return 0;
}

static int format(struct slu_store *store, const struct slu_format_params *params)
{
	struct slu_disk_super *sb = &store->commit.super;
	uint64_t next_ino = SLU_INO_FIRST;
	int err;

	format_super(&store->super, params);
	err = space_init(store, params->nblocks);
	if (err)
		return err;
	store->open.id = 1;
	atomic_store(&store->open_txid, 1);
	atomic_store(&store->space.ninodes, params->ninodes);
	for (unsigned int i = 0; params->records && i < params->records->nops; i++)
		next_ino = slu_max(next_ino, params->records->ops[i].key.ino + 1);
	atomic_store(&store->next_ino, next_ino);

	slu_mutex_lock(&store->space_lock);
	slu_mutex_lock(&store->lock);
	err = format_tree(store, params->records);
	slu_mutex_unlock(&store->lock);
	slu_mutex_unlock(&store->space_lock);
	if (!err)
		err = format_blank(store);
	if (!err)
		err = commit_once(store);
	if (err)
		return err;
	slu_put_le32(&sb->state, SLU_STATE_CLEAN);
	err = super_write(store, 0, sb);
	if (!err)
		err = super_write(store, 1, sb);
	return err ? err : slu_blockio_flush(store->bio);
}

int slu_store_format(struct slu_blockio *bio, const struct slu_format_params *params)
{
	struct slu_store_opts opts = {.node_cache_bytes = 1 << 20};
	struct slu_store *store;
	int err;

	slu_assert_no_locks("formatting");
	if (params->nblocks < SLU_MIN_BLOCKS || params->nblocks > SLU_MAX_BLOCKS ||
	    params->nblocks > slu_blockio_info(bio)->nblocks)
		return -EINVAL;
	err = store_alloc(bio, &opts, &store);
	if (err)
		return err;
	err = format(store, params);
	store_free(store);
	return err;
}
