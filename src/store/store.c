/* SPDX-License-Identifier: MIT */
/*
 * Opening, closing and failing a store: the one place where its parts are put together.
 *
 * Called by whoever builds the stack, and by slu_store_fail's callers anywhere. Open and close hold
 * no lock while they wait for the disk.
 */
#include "store_private.h"

#define DEFAULT_CACHE_BYTES ((size_t)16 << 20)
#define DEFAULT_INTERVAL_NS (5 * SLU_NS_PER_SEC)
#define DEFAULT_GIVE_UP_NS  (30 * SLU_NS_PER_SEC)

/* ------------------------------------------------------------------ memory */

int store_alloc(struct slu_blockio *bio, const struct slu_store_opts *opts, struct slu_store **ret)
{
	struct slu_store *store = slu_zalloc(sizeof(*store));
	size_t bytes = opts->node_cache_bytes ? opts->node_cache_bytes : DEFAULT_CACHE_BYTES;
	int err;

	if (!store)
		return -ENOMEM;
	store->bio = bio;
	store->events = opts->events;
	store->readonly = opts->readonly;
	store->commit_interval_ns =
		opts->commit_interval_ns ? opts->commit_interval_ns : DEFAULT_INTERVAL_NS;
	store->give_up_ns = opts->give_up_ns ? opts->give_up_ns : DEFAULT_GIVE_UP_NS;
	slu_mutex_init(&store->space_lock, SLU_RANK_SPACE, 0, "store space");
	slu_mutex_init(&store->lock, SLU_RANK_STORE, 0, "store");
	err = commit_init(store);
	if (!err)
		err = node_cache_init(&store->cache, bytes);
	if (!err) {
		store->super_buf = slu_alloc_aligned(SLU_BLOCK_SIZE, sizeof(*store->super_buf));
		if (!store->super_buf)
			err = -ENOMEM;
	}
	if (err) {
		store_free(store);
		return err;
	}
	*ret = store;
	return 0;
}

void store_free(struct slu_store *store)
{
	space_fini(store);
	node_cache_fini(&store->cache);
	freed_list_fini(&store->open.freed);
	commit_fini(store);
	slu_mutex_fini(&store->lock);
	slu_mutex_fini(&store->space_lock);
	slu_free(store->super_buf);
	slu_free(store);
}

/* ------------------------------------------------------------------ open */

/* Takes over what the superblock says. */
static int open_super(struct slu_store *store, const struct slu_store_opts *opts,
		      const struct super_choice *choice)
{
	const struct slu_disk_super *sb = &store->super;
	struct space *sp = &store->space;
	unsigned int ndeferred = slu_get_le32(&sb->ndeferred);
	uint64_t txid = slu_get_le64(&sb->txid);
	int err = space_init(store, slu_get_le64(&sb->nblocks));

	if (!err)
		err = freed_list_reserve(&store->open.freed, ndeferred);
	if (err)
		return err;
	host_space_init(store, opts->reserve_host && !store->readonly);
	store->super.label[SLU_LABEL_MAX] = 0;
	store->was_clean = choice->clean;
	store->fell_back = choice->fell_back;
	if (slu_get_le64(&sb->features_ro_compat) & ~SLU_FEATURES_RO_COMPAT) {
		store->readonly = true;
		store->why_readonly = "the volume uses features that allow only reading";
	}
	atomic_store(&sp->data_blocks, slu_get_le64(&sb->data_blocks));
	atomic_store(&sp->node_blocks, slu_get_le64(&sb->node_blocks));
	atomic_store(&sp->record_bytes, slu_get_le64(&sb->record_bytes));
	atomic_store(&sp->ninodes, slu_get_le64(&sb->ninodes));
	atomic_store(&store->next_ino, slu_get_le64(&sb->next_ino));
	for (unsigned int i = 0; i < ndeferred; i++)
		freed_list_add(&store->open.freed, slu_get_le64(&sb->deferred[i]), 1, true);
	store->root.number = slu_get_le64(&sb->root_blkno);
	store->root.txid = slu_get_le64(&sb->root_txid);
	store->durable_root = store->root;
	store->durable_nblocks = slu_get_le64(&sb->nblocks);
	atomic_store(&store->durable_txid, txid);
	store->open.id = txid + 1;
	atomic_store(&store->open_txid, store->open.id);
	return 0;
}

/* Reads the root, as every operation will have to. */
static int open_root(struct slu_store *store)
{
	struct slu_need need = {0};
	struct node *root;
	int err;

	do {
		slu_mutex_lock(&store->lock);
		err = tree_root(store, &root, &need);
		if (!err)
			store->root_level = disk_level(root->disk);
		slu_mutex_unlock(&store->lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}

/*
 * After a crash the two superblocks reach different trees. Before any block of the older one may be
 * reused, it is replaced by the newer one under the next number.
 */
static int open_unclean(struct slu_store *store, unsigned int slot)
{
	struct slu_disk_super sb = store->super;
	uint64_t txid = slu_get_le64(&sb.txid) + 1;
	int err;

	if ((txid & 1) == slot)
		txid++;
	slu_put_le64(&sb.txid, txid);
	slu_put_le32(&sb.state, 0);
	err = super_write(store, txid & 1, &sb);
	if (!err)
		err = slu_blockio_flush(store->bio);
	if (err)
		return err;
	atomic_store(&store->durable_txid, txid);
	store->open.id = txid + 1;
	atomic_store(&store->open_txid, store->open.id);
	return 0;
}

static int check_visit(void *ctx, const struct slu_node_visit *v)
{
	return v->wrong ? -EIO : 0;
}

static int open_writable(struct slu_store *store, const struct super_choice *choice,
			 const char **why)
{
	int err;

	if (slu_blockio_info(store->bio)->readonly) {
		*why = "the image is open for reading only";
		return -EROFS;
	}
	if (store->root_level + 1 >= SLU_TREE_MAX_DEPTH) {
		/* Real ones stay far below; it must not be ours to find no room for a new root. */
		*why = "the tree is impossibly deep";
		return -EIO;
	}
	if (store->fell_back) {
		/* The newer superblock is lost; that nothing of the older tree is, is to be seen
		 * first. */
		*why = "the newer superblock is lost, and the tree of the older one is damaged";
		err = slu_store_walk(store, check_visit, NULL);
		if (err)
			return err;
	}
	if (!store->was_clean) {
		*why = "the superblock cannot be written";
		err = open_unclean(store, choice->slot);
		if (err)
			return err;
	}
	*why = "the commit thread cannot be started";
	err = slu_thread_start(&store->commit.thread, "slu-commit", commit_main, store);
	if (!err)
		store->started = true;
	return err;
}

static int store_open(struct slu_store *store, const struct slu_store_opts *opts, const char **why)
{
	struct super_choice choice = {0};
	int err = super_read(store->bio, &store->super, &choice, why);

	if (err)
		return err;
	if (slu_get_le64(&store->super.nblocks) > slu_blockio_info(store->bio)->nblocks) {
		*why = "the image is shorter than the volume in it";
		return -ENOSPC;
	}
	slu_blockio_expect(store->bio, slu_get_le64(&store->super.nblocks));
	*why = "out of memory";
	err = open_super(store, opts, &choice);
	if (err)
		return err;
	*why = "the root of the tree is damaged or cannot be read";
	err = open_root(store);
	if (!err && !store->readonly)
		err = open_writable(store, &choice, why);
	if (!err && store->fell_back)
		slu_event_post(
			&store->events,
			&(struct slu_event){.kind = SLU_EVENT_FALLBACK,
					    .text = "one of the two superblocks is damaged"});
	return err;
}

int slu_store_open(struct slu_blockio *bio, const struct slu_store_opts *opts,
		   struct slu_store **ret, const char **why)
{
	const char *reason = "out of memory";
	struct slu_store *store = NULL;
	int err;

	slu_assert_no_locks("opening a store");
	err = store_alloc(bio, opts, &store);
	if (!err)
		err = store_open(store, opts, &reason);
	if (err) {
		if (store)
			store_free(store);
		if (why)
			*why = reason;
		return err;
	}
	*ret = store;
	return 0;
}

/* ------------------------------------------------------------------ close */

/* How often a commit that fails is tried again before the volume is given up. */
#define CLOSE_TRIES 5

static int close_commit(struct slu_store *store)
{
	int err = 0;

	for (unsigned int i = 0; i < CLOSE_TRIES; i++) {
		bool needed;

		slu_mutex_lock(&store->lock);
		needed = commit_needed(store);
		slu_mutex_unlock(&store->lock);
		if (!needed)
			return 0;
		if (atomic_load(&store->failed))
			return -EROFS;
		if (i)
			slu_sleep_ns(200 * SLU_NS_PER_MS);
		err = commit_once(store);
	}
	return err;
}

/*
 * Both superblocks get the same transaction, the other slot first: one of them is whole all the
 * time. The next inode number stays what that transaction says: those handed out since were never
 * used, and power that fails between the two would leave one number with two states.
 */
static int close_clean(struct slu_store *store)
{
	struct slu_disk_super *sb = &store->commit.super;
	uint64_t txid = atomic_load(&store->durable_txid);
	int err;

	if (slu_get_le64(&sb->txid) != txid) {
		/* Nothing was committed since open_unclean. */
		*sb = store->super;
		slu_put_le64(&sb->txid, txid);
	}
	slu_put_le32(&sb->state, SLU_STATE_CLEAN);
	err = super_write(store, (txid + 1) & 1, sb);
	if (!err)
		err = store_flush(store);
	if (!err)
		err = super_write(store, txid & 1, sb);
	if (!err)
		err = store_flush(store);
	return err;
}

int slu_store_close(struct slu_store *store)
{
	int err = 0;

	slu_assert_no_locks("closing a store");
	if (store->started) {
		slu_mutex_lock(&store->lock);
		slu_assert(!store->ntickets);
		store->commit.stop = true;
		slu_cond_broadcast(&store->commit.wake);
		slu_mutex_unlock(&store->lock);
		slu_thread_join(&store->commit.thread);
		err = close_commit(store);
		if (!err && atomic_load(&store->failed))
			err = -EROFS;
		if (!err && store->dirty_since_open)
			err = close_clean(store);
	}
	store_free(store);
	return err;
}

/* ------------------------------------------------------------------ failing, and facts */

void store_fail_locked(struct slu_store *store, int error, const char *why)
{
	int none = 0;

	slu_assert(error < 0);
	if (!atomic_compare_exchange_strong(&store->failed, &none, error))
		return;
	atomic_store(&store->why_failed, why);
	slu_event_post(&store->events, &(struct slu_event){.kind = SLU_EVENT_READONLY,
							   .error = error,
							   .text = why});
	slu_cond_broadcast(&store->commit.done);
	slu_cond_broadcast(&store->commit.wake);
}

void slu_store_fail(struct slu_store *store, int error, const char *why)
{
	slu_mutex_lock(&store->lock);
	store_fail_locked(store, error, why);
	slu_mutex_unlock(&store->lock);
}

bool slu_store_readonly(const struct slu_store *store)
{
	return store_readonly(store);
}

int slu_store_check_image(struct slu_store *store)
{
	slu_assert_no_locks("measuring the image");
	if (!slu_blockio_is_cut(store->bio))
		return 0;
	slu_store_fail(store, -EIO, "the image has become shorter than the volume in it");
	return -EIO;
}

void slu_store_info(struct slu_store *store, struct slu_store_info *ret)
{
	const struct slu_disk_super *sb = &store->super;

	*ret = (struct slu_store_info){
		.hash_seed = slu_get_le64(&sb->hash_seed),
		.readonly = store_readonly(store),
		.why_readonly = store->why_readonly,
		.was_clean = store->was_clean,
		.fell_back = store->fell_back,
		.mkfs_time = slu_get_le64(&sb->mkfs_time),
	};
	if (atomic_load(&store->failed))
		ret->why_readonly = atomic_load(&store->why_failed);
	memcpy(ret->volume_id, sb->volume_id, sizeof(ret->volume_id));
	memcpy(ret->label, sb->label, SLU_LABEL_MAX);
	slu_mutex_lock(&store->space_lock);
	ret->nblocks = store->space.nblocks;
	slu_mutex_unlock(&store->space_lock);
}

const struct slu_store_stats *slu_store_stats(const struct slu_store *store)
{
	return &store->stats;
}

const struct slu_disk_super *slu_store_super(const struct slu_store *store)
{
	return &store->super;
}
