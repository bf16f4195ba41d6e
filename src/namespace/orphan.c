/* SPDX-License-Identifier: MIT */
/*
 * Freeing: of inodes without a name and without users, of extents beyond a size that has been cut
 * down, and of both after a crash.
 *
 * Whatever takes longer than one batch left an orphan record in the batch that began it, so it can
 * be taken up again. Within a mount the inode table knows what is to be freed (itable.c); after a
 * crash the records are searched once, in steps, and what they name is put into the table.
 *
 * Called by a background thread, by truncate, and at unmount; waits. An inode is freed in state
 * RECLAIM, when nobody else can reach it; its rwlock is taken because the layers below ask for it.
 */
#include "namespace_private.h"

/* ------------------------------------------------------------------ extents beyond the size */

/*
 * rwlock held exclusive from the last look at the extents to the end: nobody begins another
 * truncate.
 */
static int end_truncate(struct slu_inode *inode, struct slu_ticket *t, struct slu_need *need)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, inode->ino);
	struct slu_batch batch;
	uint64_t txid;
	int err = 0;

	slu_batch_init(&batch);
	slu_mutex_lock(&inode->vol.iomap.lock);
	if (inode->orphan_truncate) {
		slu_batch_del(&batch, &key);
		err = slu_store_apply(inode->ns->store, t, &batch, &txid, need);
	}
	if (!err)
		inode->orphan_truncate = inode->freeing = false;
	slu_mutex_unlock(&inode->vol.iomap.lock);
	slu_batch_fini(&batch);
	return err;
}

static int free_step(struct slu_inode *inode, struct slu_ticket *t, struct slu_need *need)
{
	struct slu_iomap_inode *iomap = &inode->vol.iomap;
	uint64_t from = slu_round_up(slu_aspace_size(&inode->data), SLU_BLOCK_SIZE);
	int err = iomap->ops->remove(iomap, from, UINT64_MAX - from, SLU_DISK_SIZE_KEEP, need);

	return err ? err : end_truncate(inode, t, need);
}

int slu_inode_free_extents(struct slu_inode *inode)
{
	struct slu_ticket ticket = {0};
	struct slu_need need;
	int err = slu_ticket_get(inode->ns->store, &ticket, 1, 0, SLU_TICKET_KEPT_BACK, NULL);

	while (!err) {
		slu_rwlock_wrlock(&inode->data.lock);
		err = free_step(inode, &ticket, &need);
		slu_rwlock_wrunlock(&inode->data.lock);
		if (err == 0)
			break;
		if (err == 1)
			err = 0;
		else if (err == -EAGAIN)
			err = slu_need_wait(&need);
	}
	slu_ticket_put(&ticket);
	return err;
}

/* ------------------------------------------------------------------ a whole inode */

#define GATHER_MAX (SLU_BATCH_MAX_RECORDS - 8u)

struct gather {
	struct slu_key keys[GATHER_MAX];
	unsigned int n;
	bool extents; /* seen */
};

static int gather_key(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct gather *g = ctx;

	if (key->type == SLU_REC_INODE)
		return 0;
	if (key->type == SLU_REC_EXTENT)
		g->extents = true;
	if (g->extents || g->n == GATHER_MAX)
		return 1;
	g->keys[g->n++] = *key;
	return 0;
}

/* Dirty pages that nobody will read: dropped unwritten. */
static int drop_pages(struct slu_inode *inode)
{
	struct slu_need need;
	int err;

	while (slu_aspace_dirty(&inode->data)) {
		slu_rwlock_wrlock(&inode->data.lock);
		err = slu_pages_truncate(&inode->data, inode->ns->bio, 0, NULL, NULL, &need);
		slu_rwlock_wrunlock(&inode->data.lock);
		if (err == -EAGAIN)
			err = slu_need_wait(&need);
		if (err)
			return err;
	}
	return 0;
}

/* 1: there may be more. */
static int drop_extents(struct slu_inode *inode)
{
	struct slu_iomap_inode *iomap = &inode->vol.iomap;
	struct slu_need need;
	int err;

	for (;;) {
		slu_rwlock_wrlock(&inode->data.lock);
		err = iomap->ops->remove(iomap, 0, UINT64_MAX, SLU_DISK_SIZE_KEEP, &need);
		slu_rwlock_wrunlock(&inode->data.lock);
		if (err != -EAGAIN)
			return err;
		err = slu_need_wait(&need);
		if (err)
			return err;
	}
}

static bool has_extents(struct slu_inode *inode)
{
	slu_mutex_lock(&inode->vol.iomap.lock);
	bool has = inode->attr.blocks || !slu_ranges_empty(&inode->vol.delalloc);
	slu_mutex_unlock(&inode->vol.iomap.lock);
	return has;
}

static int apply_waiting(struct slu_ns *ns, const struct slu_batch *b, uint32_t records)
{
	struct slu_ticket ticket = {0};
	struct slu_need need;
	int err = slu_ticket_get(ns->store, &ticket, records, 0, SLU_TICKET_KEPT_BACK, NULL);

	while (!err) {
		err = slu_store_apply(ns->store, &ticket, b, NULL, &need);
		if (err != -EAGAIN)
			break;
		err = slu_need_wait(&need);
	}
	slu_ticket_put(&ticket);
	return err;
}

static int gather(struct slu_inode *inode, struct gather *g)
{
	struct slu_key from = SLU_KEY(inode->ino, 0, 0), end = SLU_KEY(inode->ino + 1, 0, 0);

	g->n = 0;
	g->extents = false;
	return slu_store_scan(inode->ns->store, &from, &end, gather_key, g, NULL);
}

/* One batch of records; the one with the last of them takes the inode along. 1: there is more. */
static int drop_records(struct slu_inode *inode, struct gather *g)
{
	struct slu_batch batch;
	struct slu_key key;
	int more, err;

	more = gather(inode, g);
	if (more > 0 && g->extents && g->n == 0) {
		/* The count of blocks said that there were none. */
		err = drop_extents(inode);
		if (err)
			return err;
		more = gather(inode, g);
		if (more > 0 && g->extents)
			return ns_bad_record(inode->ns, inode->ino, "extents that do not go");
	}
	if (more < 0)
		return more;
	slu_batch_init(&batch);
	for (unsigned int i = 0; i < g->n; i++)
		slu_batch_del(&batch, &g->keys[i]);
	if (!more) {
		key = SLU_KEY(inode->ino, SLU_REC_INODE, 0);
		slu_batch_del(&batch, &key);
		key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, inode->ino);
		slu_batch_del(&batch, &key);
		slu_batch_inodes(&batch, -1);
	}
	err = apply_waiting(inode->ns, &batch, g->n + 2);
	slu_batch_fini(&batch);
	if (err == -ENOENT)
		err = ns_bad_record(inode->ns, inode->ino, "orphan without its record");
	return err ? err : more;
}

static int free_inode(struct slu_inode *inode)
{
	struct gather *g;
	int err;

	slu_mutex_lock(&inode->vol.iomap.lock);
	itable_attr_clean(inode);
	slu_mutex_unlock(&inode->vol.iomap.lock);
	err = drop_pages(inode);
	if (err)
		return err;
	itable_reclaim_alone(inode);
	err = has_extents(inode) ? drop_extents(inode) : 0;
	if (err)
		return err;
	g = slu_alloc(sizeof(*g));
	if (!g)
		return -ENOMEM;
	err = drop_records(inode, g);
	slu_free(g);
	return err;
}

/* 0, 1 if there is more of it, or an error: then it is set aside. */
static int reclaim_one(struct slu_inode *inode)
{
	int err = free_inode(inode);

	if (err == 0) {
		ns_count(inode->ns, reclaimed);
		itable_reclaim_gone(inode);
		return 0;
	}
	itable_reclaim_later(inode, err > 0);
	return err;
}

/* ------------------------------------------------------------------ after a crash */

static const struct slu_key scan_end = {.ino = SLU_INO_VOLUME, .type = SLU_REC_ORPHAN + 1};

int orphan_scan_start(struct slu_ns *ns)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, 0);
	uint8_t value[SLU_VALUE_MAX];
	int len = slu_store_seek_ge(ns->store, &key, &scan_end, value, sizeof(value), NULL);

	if (len < 0 && len != -ENOENT)
		return len;
	ns->scan_first = ns->scan_from = key;
	atomic_store(&ns->scan_done, len == -ENOENT);
	return 0;
}

int orphan_pending_truncate(struct slu_ns *ns, uint64_t ino, bool *ret)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, ino);
	struct slu_disk_orphan orphan;
	uint8_t value[SLU_VALUE_MAX];
	int len = slu_store_get(ns->store, &key, value, sizeof(value), NULL);

	if (len == -ENOENT) {
		*ret = false;
		return 0;
	}
	if (len < 0)
		return len;
	if (len != sizeof(orphan))
		return ns_bad_record(ns, ino, "orphan record of the wrong size");
	memcpy(&orphan, value, sizeof(orphan));
	*ret = orphan.what == SLU_ORPHAN_TRUNCATE;
	return 0;
}

#define SCAN_AT_ONCE 32u

struct scan {
	uint64_t inos[SCAN_AT_ONCE];
	unsigned int n;
};

static int scan_orphan(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct scan *s = ctx;

	if (s->n == SCAN_AT_ONCE)
		return 1;
	s->inos[s->n++] = key->off;
	return 0;
}

/* An orphan record of nothing: the inode went, the record stayed. */
static int drop_stray(struct slu_ns *ns, uint64_t ino)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, ino);
	struct slu_attr attr;
	struct slu_batch batch;
	int err = inode_read_record(ns, ino, &attr, NULL);

	if (err != -ENOENT)
		return 0; /* being freed this moment */
	slu_batch_init(&batch);
	slu_batch_del(&batch, &key);
	err = apply_waiting(ns, &batch, 1);
	slu_batch_fini(&batch);
	return err == -ENOENT ? 0 : err;
}

/*
 * Getting the inode is nearly all: loading it finishes a truncate, and one without a link becomes
 * an orphan in the table, which the last reference queues. Those that this mount has made are there
 * already.
 */
static int take_up(struct slu_ns *ns, uint64_t ino)
{
	struct slu_inode *inode;
	struct slu_attr attr;
	bool truncate;
	int err = itable_get_any(ns, ino, &inode);

	if (err == -ENOENT || err == -ESTALE)
		return drop_stray(ns, ino);
	if (err)
		return err;
	slu_mutex_lock(&inode->vol.iomap.lock);
	truncate = inode->freeing;
	attr = inode->attr;
	slu_mutex_unlock(&inode->vol.iomap.lock);
	if (truncate) {
		err = slu_inode_free_extents(inode);
	} else if (attr.nlink) {
		/*
		 * Named, says the inode: believe it, and leave the record to fsck, unless it has
		 * just got its name.
		 */
		err = orphan_pending_truncate(ns, ino, &truncate);
	}
	slu_inode_put(inode);
	return err;
}

static void reclaim_failed(struct slu_ns *ns, int err)
{
	int none = 0;

	if (err < 0)
		atomic_compare_exchange_strong(&ns->reclaim_error, &none, err);
}

/* 1: there is more to look at. */
static int scan_step(struct slu_ns *ns)
{
	struct slu_key from;
	struct scan s = {.n = 0};
	int more, err, first = 0;

	slu_mutex_lock(&ns->scan_lock);
	bool skip = ns->scanning || atomic_load(&ns->scan_done);
	if (!skip)
		ns->scanning = true;
	from = ns->scan_from;
	slu_mutex_unlock(&ns->scan_lock);
	if (skip)
		return 0;

	more = slu_store_scan(ns->store, &from, &scan_end, scan_orphan, &s, NULL);
	for (unsigned int i = 0; i < s.n; i++) {
		err = take_up(ns, s.inos[i]);
		if (err && !first)
			first = err;
	}
	slu_mutex_lock(&ns->scan_lock);
	ns->scan_from = from;
	ns->scanning = false;
	/*
	 * One that failed leaves the search open, whatever comes after it: its inode is still to be
	 * looked at when it is loaded.
	 */
	if (more < 0 || first)
		ns->scan_failed = true;
	if (more == 0 && !ns->scan_failed)
		atomic_store(&ns->scan_done, true);
	slu_mutex_unlock(&ns->scan_lock);
	reclaim_failed(ns, first);
	return more;
}

#define RECLAIM_AT_ONCE 16u

int slu_ns_reclaim(struct slu_ns *ns)
{
	unsigned int done = 0, failed = 0;
	int err;

	if (ns_readonly(ns))
		return 0;
	while (done + failed < RECLAIM_AT_ONCE) {
		struct slu_inode *inode = itable_next_reclaim(ns);

		if (!inode)
			break;
		err = reclaim_one(inode);
		reclaim_failed(ns, err);
		if (err < 0)
			failed++;
		else
			done++;
	}
	/* One that fails keeps nobody else; where all do, it is the disk. */
	err = failed && !done ? 0 : scan_step(ns);
	if (err < 0)
		reclaim_failed(ns, err);
	if (err > 0 || (done && itable_reclaim_queued(ns)))
		return 1;
	err = atomic_exchange(&ns->reclaim_error, 0);
	return err ? err : itable_reclaim_queued(ns);
}

void slu_ns_reclaim_again(struct slu_ns *ns)
{
	slu_mutex_lock(&ns->scan_lock);
	if (ns->scan_failed && !ns->scanning) {
		ns->scan_failed = false;
		ns->scan_from = ns->scan_first;
	}
	slu_mutex_unlock(&ns->scan_lock);
	itable_queue_orphans(ns);
}
