/* SPDX-License-Identifier: MIT */
/*
 * The stack of a mounted volume, built in one function from the bottom up and taken down in the
 * opposite order. Nothing else in the project decides what sits on what.
 */
#include "fs_private.h"
#include <unistd.h>

#define CACHE_SIZE_DEFAULT_LEAST (64ull << 20)
#define CACHE_SIZE_DEFAULT_MOST  (512ull << 20)

/* An eighth of the machine's memory, within reason. */
static size_t default_cache_size(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
	uint64_t eighth = pages > 0 && page_size > 0 ? (uint64_t)pages * (uint64_t)page_size / 8
						     : CACHE_SIZE_DEFAULT_MOST;

	return slu_max(slu_min(eighth, CACHE_SIZE_DEFAULT_MOST), CACHE_SIZE_DEFAULT_LEAST);
}

/* Nodes get a fifth of it: they are small, and one that is missing costs a read of the disk. */
static size_t node_share(size_t cache_size)
{
	return cache_size / 5;
}

static int start_writing(struct slu_fs *fs)
{
	struct slu_writeback_opts opts = {.events = fs->p->opts.events};

	if (fs->p->opts.readonly)
		return 0;
	return slu_writeback_new(fs->cache, fs->bio, &opts, &fs->wb);
}

/* The volume itself may allow no more than reading. */
static void readonly_if_it_must(struct slu_fs *fs)
{
	struct slu_store_info info;

	slu_store_info(fs->store, &info);
	if (!info.readonly)
		return;
	fs->p->opts.readonly = true;
	fs->p->readonly = true;
	fs->readonly = true;
}

static int build(struct slu_fs *fs, const char **why)
{
	const struct slu_fs_opts *opts = &fs->p->opts;
	size_t cache_size = opts->cache_size ? opts->cache_size : default_cache_size();
	struct slu_store_opts store_opts = {
		.readonly = opts->readonly,
		.node_cache_bytes = node_share(cache_size),
		.commit_interval_ns = opts->commit_interval_ns,
		.reserve_host = true,
		.events = opts->events,
	};
	struct slu_cache_opts cache_opts = {.bytes = cache_size - node_share(cache_size),
					    .events = opts->events};
	int err;

	err = slu_store_open(fs->bio, &store_opts, &fs->store, why);
	if (err)
		return err;
	readonly_if_it_must(fs);
	*why = "not enough memory for the cache";
	err = slu_cache_new(&cache_opts, &fs->cache);
	if (err)
		goto close_store;
	err = slu_volume_init(&fs->vol, fs->store, fs->bio, cache_opts.bytes / SLU_BLOCK_SIZE);
	if (err)
		goto free_cache;
	fs->vol.events = opts->events;
	*why = "the writeback threads cannot be started";
	err = start_writing(fs);
	if (err)
		goto fini_volume;
	struct slu_ns_opts ns_opts = {
		.store = fs->store,
		.vol = &fs->vol,
		.cache = fs->cache,
		.wb = fs->wb,
		.bio = fs->bio,
		.readonly = opts->readonly,
		.relatime = opts->relatime,
		.noatime = opts->noatime,
		.nodiratime = opts->nodiratime,
		.max_idle_inodes = opts->max_idle_inodes,
		.events = opts->events,
		.reclaim_wanted = opts->readonly ? NULL : housekeep_reclaim_wanted,
		.reclaim_ctx = fs,
	};
	*why = "the root directory cannot be read, or inode numbers are damaged";
	err = slu_ns_new(&ns_opts, &fs->ns);
	if (err)
		goto free_writeback;
	*why = "the housekeeping thread cannot be started";
	err = opts->readonly ? 0 : housekeep_start(fs);
	if (err)
		goto free_ns;
	*why = NULL;
	return 0;

free_ns:
	slu_ns_free(fs->ns);
free_writeback:
	if (fs->wb)
		slu_writeback_free(fs->wb);
fini_volume:
	slu_volume_fini(&fs->vol);
free_cache:
	slu_cache_free(fs->cache);
close_store:
	slu_store_close(fs->store);
	return err;
}

int slu_fs_mount(struct slu_blockio *bio, const struct slu_fs_opts *opts, struct slu_fs **ret,
		 const char **why)
{
	struct slu_fs *fs = slu_zalloc(sizeof(*fs));
	struct slu_fs_private *p = slu_zalloc(sizeof(*p));
	const char *ignored;
	int err = -ENOMEM;

	if (!why)
		why = &ignored;
	*why = "not enough memory";
	if (!fs || !p)
		goto free_fs;
	fs->p = p;
	fs->bio = bio;
	fs->readonly = opts->readonly;
	fs->sync = opts->sync;
	p->opts = *opts;
	p->readonly = opts->readonly;
	slu_mutex_init(&p->gate_lock, SLU_RANK_LEAF, 0, "fs gate");
	slu_cond_init(&p->gate_free);
	slu_mutex_init(&p->house_lock, SLU_RANK_LEAF, 0, "fs housekeeper");
	slu_cond_init(&p->house_wake);
	slu_cond_init(&p->house_done);
	freeze_init(fs);
	scrub_init(fs);
	err = build(fs, why);
	if (err)
		goto fini_locks;
	*ret = fs;
	return 0;

fini_locks:
	scrub_fini(fs);
	freeze_fini(fs);
	slu_cond_fini(&p->house_done);
	slu_cond_fini(&p->house_wake);
	slu_mutex_fini(&p->house_lock);
	slu_cond_fini(&p->gate_free);
	slu_mutex_fini(&p->gate_lock);
free_fs:
	slu_free(p);
	slu_free(fs);
	return err;
}

static void keep_first(int *first, int err)
{
	if (!*first)
		*first = err;
}

int slu_fs_stop(struct slu_fs *fs)
{
	int err = 0;

	if (fs->p->stopped)
		return fs->p->stop_error;
	slu_fs_end_freezes(fs);
	scrub_end(fs);
	housekeep_stop(fs);
	/* What was on its way may have failed; it is kept, and what counts is whether it is now. */
	if (slu_fs_sync(fs))
		err = slu_fs_sync(fs);
	/* The last attempt on pages that would not be written names what is lost. */
	if (fs->wb)
		keep_first(&err, slu_writeback_free(fs->wb));
	fs->wb = NULL;
	fs->p->stopped = true;
	fs->p->stop_error = err;
	return err;
}

int slu_fs_unmount(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;
	int err = slu_fs_stop(fs);

	slu_ns_free(fs->ns);
	slu_volume_fini(&fs->vol);
	slu_cache_free(fs->cache);
	keep_first(&err, slu_store_close(fs->store));
	slu_blockio_close(fs->bio);
	scrub_fini(fs);
	freeze_fini(fs);
	slu_cond_fini(&p->house_done);
	slu_cond_fini(&p->house_wake);
	slu_mutex_fini(&p->house_lock);
	slu_cond_fini(&p->gate_free);
	slu_mutex_fini(&p->gate_lock);
	slu_free(p);
	slu_free(fs);
	return err;
}

int slu_fs_format(struct slu_blockio *bio, uint64_t nblocks, const char *label, uid_t uid,
		  gid_t gid)
{
	struct slu_batch records;
	struct slu_format_params params = {
		.nblocks = nblocks,
		.label = label,
		.hash_seed = slu_random(),
		.records = &records,
		.ninodes = 1,
	};
	int err;

	slu_put_le64(params.volume_id, slu_random());
	slu_put_le64(params.volume_id + 8, slu_random());
	/* shown as a UUID: version 4, RFC 4122 */
	params.volume_id[6] = (params.volume_id[6] & 0x0f) | 0x40;
	params.volume_id[8] = (params.volume_id[8] & 0x3f) | 0x80;
	slu_batch_init(&records);
	err = slu_ns_root_records(&records, uid, gid, 0755);
	if (!err)
		err = slu_store_format(bio, &params);
	slu_batch_fini(&records);
	return err;
}
