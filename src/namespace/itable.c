/* SPDX-License-Identifier: MIT */
/*
 * The inode table: which inodes are in memory, who keeps them there, and when they leave.
 *
 *	        itable_get (no object)                    itable_trim
 *	LOADING ────────────────▶ LIVE ◀───────────────▶ (idle list) ─────────▶ DYING ─▶ gone
 *	   ▲                       │ ▲  refs 0 / > 0
 *	   │ itable_new            │ │ itable_reclaim_later
 *	                           ▼ │
 *	                        RECLAIM ──itable_reclaim_gone──▶ DYING ─▶ gone
 *
 * An object that is LOADING or DYING is in the table, so that there is never a second one of the
 * same number beside it: whoever wants the inode waits for the state to change, with no lock held.
 *
 * An orphan (no name left) is on no idle list: it stays until its last handle, lookup and request
 * are gone. Dirty pages alone do not keep it: nobody will read them. Then it is queued for
 * slu_ns_reclaim.
 *
 * Takes table->lock, a leaf; never calls the store, the cache or the volume with it held.
 */
#include "namespace_private.h"

#define ITABLE_BUCKETS 16384u

static struct ns_table *table_of(const struct slu_inode *inode)
{
	return &inode->ns->table;
}

/* ------------------------------------------------------------------ lists; lock held */

static void list_add(struct ns_list *list, struct slu_inode *inode)
{
	inode->lru_next = NULL;
	inode->lru_prev = list->tail;
	*(list->tail ? &list->tail->lru_next : &list->head) = inode;
	list->tail = inode;
	list->n++;
}

static void list_del(struct ns_list *list, struct slu_inode *inode)
{
	*(inode->lru_prev ? &inode->lru_prev->lru_next : &list->head) = inode->lru_next;
	*(inode->lru_next ? &inode->lru_next->lru_prev : &list->tail) = inode->lru_prev;
	inode->lru_next = inode->lru_prev = NULL;
	list->n--;
}

static void dirty_add(struct ns_table *t, struct slu_inode *inode)
{
	inode->dirty_listed = true;
	inode->dirty_next = NULL;
	inode->dirty_prev = t->dirty.tail;
	*(t->dirty.tail ? &t->dirty.tail->dirty_next : &t->dirty.head) = inode;
	t->dirty.tail = inode;
	t->dirty.n++;
}

static void dirty_del(struct ns_table *t, struct slu_inode *inode)
{
	*(inode->dirty_prev ? &inode->dirty_prev->dirty_next : &t->dirty.head) = inode->dirty_next;
	*(inode->dirty_next ? &inode->dirty_next->dirty_prev : &t->dirty.tail) = inode->dirty_prev;
	inode->dirty_next = inode->dirty_prev = NULL;
	inode->dirty_listed = false;
	t->dirty.n--;
}

/* ------------------------------------------------------------------ hash; lock held */

static struct slu_inode **bucket_of(struct ns_table *t, uint64_t ino)
{
	return &t->buckets[(size_t)((ino * 0x9e3779b97f4a7c15ull) >> 32) & (t->nbuckets - 1)];
}

static struct slu_inode *hash_find(struct ns_table *t, uint64_t ino)
{
	struct slu_inode *inode = *bucket_of(t, ino);

	while (inode && inode->ino != ino)
		inode = inode->hash_next;
	return inode;
}

static void hash_add(struct ns_table *t, struct slu_inode *inode)
{
	struct slu_inode **bucket = bucket_of(t, inode->ino);

	inode->hash_next = *bucket;
	*bucket = inode;
	t->ninodes++;
}

static void hash_del(struct ns_table *t, struct slu_inode *inode)
{
	struct slu_inode **at = bucket_of(t, inode->ino);

	while (*at != inode)
		at = &(*at)->hash_next;
	*at = inode->hash_next;
	t->ninodes--;
}

/* ------------------------------------------------------------------ references */

/*
 * Puts an inode where it belongs after its references or its orphan flag have changed. True: there
 * is something to reclaim that was not there before; the caller says so once the lock is dropped.
 */
static bool settle(struct ns_table *t, struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;
	bool live = inode->state == SLU_INODE_LIVE;
	bool idle = live && inode->refs == 0 && !inode->orphan;
	bool reclaim = live && inode->refs == inode->npins && inode->orphan && !ns_readonly(ns) &&
		       !atomic_load(&ns->lookups.lost) &&
		       lookups_get(&ns->lookups, inode->ino) == 0;
	bool more = false;

	if (inode->idle_listed && !idle) {
		list_del(&t->idle, inode);
		inode->idle_listed = false;
	}
	if (inode->reclaim_listed && !reclaim) {
		list_del(&t->reclaim, inode);
		inode->reclaim_listed = false;
	}
	if (idle && !inode->idle_listed) {
		list_add(&t->idle, inode);
		inode->idle_listed = true;
	}
	if (reclaim && !inode->reclaim_listed) {
		list_add(&t->reclaim, inode);
		inode->reclaim_listed = true;
		more = true;
	}
	return more;
}

static void say_reclaim(struct slu_ns *ns, bool more)
{
	if (more && ns->opts.reclaim_wanted)
		ns->opts.reclaim_wanted(ns->opts.reclaim_ctx);
}

static void ref(struct slu_inode *inode)
{
	inode->refs++;
	if (inode->idle_listed || inode->reclaim_listed)
		settle(table_of(inode), inode);
}

static bool unref(struct slu_inode *inode)
{
	slu_assert(inode->refs > 0);
	inode->refs--;
	if (inode->state == SLU_INODE_RECLAIM)
		slu_cond_broadcast(&table_of(inode)->changed);
	return settle(table_of(inode), inode);
}

void slu_inode_put(struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;

	slu_mutex_lock(&ns->table.lock);
	bool more = unref(inode);
	slu_mutex_unlock(&ns->table.lock);
	say_reclaim(ns, more);
}

void slu_inode_opened(struct slu_inode *inode)
{
	struct ns_table *t = table_of(inode);

	slu_mutex_lock(&t->lock);
	ref(inode);
	inode->nopen++;
	slu_mutex_unlock(&t->lock);
}

void slu_inode_closed(struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;

	slu_mutex_lock(&ns->table.lock);
	slu_assert(inode->nopen > 0);
	inode->nopen--;
	bool more = unref(inode);
	slu_mutex_unlock(&ns->table.lock);
	say_reclaim(ns, more);
}

static void pin(struct slu_aspace *as)
{
	struct slu_inode *inode = slu_container_of(as, struct slu_inode, data);
	struct ns_table *t = table_of(inode);

	slu_mutex_lock(&t->lock);
	inode->npins++;
	ref(inode);
	slu_mutex_unlock(&t->lock);
}

static void unpin(struct slu_aspace *as)
{
	struct slu_inode *inode = slu_container_of(as, struct slu_inode, data);
	struct slu_ns *ns = inode->ns;

	/*
	 * An orphan that only its dirty pages keep is queued already, so this has nothing to say,
	 * which matters because the cache may call from under a lock of its own.
	 */
	slu_mutex_lock(&ns->table.lock);
	slu_assert(inode->npins > 0);
	inode->npins--;
	unref(inode);
	slu_mutex_unlock(&ns->table.lock);
}

static int before_overwrite(struct slu_aspace *as)
{
	struct slu_inode *inode = slu_container_of(as, struct slu_inode, data);
	struct slu_store *store = inode->ns->store;
	uint64_t txid = atomic_load(&inode->shrink_txid);

	if (txid <= slu_store_durable_txid(store) || slu_mutant(NO_SHRINK_COMMIT))
		return 0;
	return slu_store_commit(store, txid, false);
}

const struct slu_aspace_owner inode_aspace_owner = {
	.pin = pin,
	.unpin = unpin,
	.before_overwrite = before_overwrite,
};

void itable_set_orphan(struct slu_inode *inode, bool orphan)
{
	struct slu_ns *ns = inode->ns;

	slu_mutex_lock(&ns->table.lock);
	inode->orphan = orphan;
	bool more = settle(&ns->table, inode);
	slu_mutex_unlock(&ns->table.lock);
	say_reclaim(ns, more);
}

void itable_forgotten(struct slu_ns *ns, uint64_t ino, uint64_t parent)
{
	bool more = false;

	slu_mutex_lock(&ns->table.lock);
	struct slu_inode *inode = hash_find(&ns->table, ino);
	if (inode && parent)
		inode->found_in = parent;
	if (inode && inode->orphan)
		more = settle(&ns->table, inode);
	slu_mutex_unlock(&ns->table.lock);
	say_reclaim(ns, more);
}

/* ------------------------------------------------------------------ coming and going */

int itable_init(struct slu_ns *ns, size_t max_idle)
{
	struct ns_table *t = &ns->table;

	*t = (struct ns_table){.nbuckets = ITABLE_BUCKETS, .max_idle = max_idle};
	t->buckets = slu_calloc(t->nbuckets, sizeof(struct slu_inode *));
	if (!t->buckets)
		return -ENOMEM;
	slu_mutex_init(&t->lock, SLU_RANK_LEAF, NS_LEAF_TABLE, "inode table");
	slu_cond_init(&t->changed);
	return 0;
}

static void leave_txids(struct ns_table *t, struct slu_inode *inode)
{
	if (slu_mutant(EVICT_TXID))
		return;
	t->left_txid = slu_max(t->left_txid, inode->last_txid);
	t->left_shrink_txid = slu_max(t->left_shrink_txid, atomic_load(&inode->shrink_txid));
}

static void take_txids(const struct ns_table *t, struct slu_inode *inode)
{
	inode->last_txid = t->left_txid;
	atomic_store(&inode->shrink_txid, t->left_shrink_txid);
}

/* The object leaves the table and memory. It is in state DYING, or nobody else has seen it. */
static void destroy(struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;

	/* Drops clean pages: before the number may be loaded again, since pages are found by it. */
	inode_fini(inode);
	slu_mutex_lock(&ns->table.lock);
	leave_txids(&ns->table, inode);
	hash_del(&ns->table, inode);
	slu_cond_broadcast(&ns->table.changed);
	slu_mutex_unlock(&ns->table.lock);
	slu_free(inode);
}

static void set_state(struct slu_inode *inode, enum slu_inode_state state)
{
	struct ns_table *t = table_of(inode);

	slu_mutex_lock(&t->lock);
	inode->state = state;
	settle(t, inode);
	slu_cond_broadcast(&t->changed);
	slu_mutex_unlock(&t->lock);
}

void itable_live(struct slu_inode *inode)
{
	set_state(inode, SLU_INODE_LIVE);
}

void itable_drop(struct slu_inode *inode)
{
	set_state(inode, SLU_INODE_DYING);
	slu_assert(inode->refs == 1 && !inode->dirty_listed);
	destroy(inode);
}

void itable_trim(struct slu_ns *ns)
{
	struct ns_table *t = &ns->table;

	for (;;) {
		slu_mutex_lock(&t->lock);
		struct slu_inode *inode = t->idle.n > t->max_idle ? t->idle.head : NULL;
		if (inode) {
			inode->state = SLU_INODE_DYING;
			settle(t, inode);
		}
		slu_mutex_unlock(&t->lock);
		if (!inode)
			return;
		destroy(inode);
		ns_count(ns, evictions);
	}
}

void itable_fini(struct slu_ns *ns)
{
	struct ns_table *t = &ns->table;

	for (size_t i = 0; i < t->nbuckets; i++) {
		while (t->buckets[i]) {
			struct slu_inode *inode = t->buckets[i];

			if (inode->dirty_listed) {
				dirty_del(t, inode);
				inode->npins--;
				inode->refs--;
			}
			slu_assert(inode->refs == 0);
			inode->state = SLU_INODE_DYING;
			settle(t, inode);
			destroy(inode);
		}
	}
	slu_cond_fini(&t->changed);
	slu_mutex_fini(&t->lock);
	slu_free(t->buckets);
}

/* ------------------------------------------------------------------ getting */

/* An object whose attributes are still to be read: the type matters to nobody yet. */
static struct slu_inode *blank(struct slu_ns *ns, uint64_t ino)
{
	struct slu_inode *inode = slu_zalloc(sizeof(*inode));

	if (!inode)
		return NULL;
	inode->ns = ns;
	inode->ino = ino;
	inode->state = SLU_INODE_LOADING;
	inode->refs = 1;
	return inode;
}

/* Reads what disk has into a blank object that is in the table, LOADING. On an error it is gone. */
static int load(struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;
	uint64_t ino = inode->ino;
	struct slu_attr attr;
	bool truncating = false;
	int err = inode_read_record(ns, ino, &attr, NULL);

	if (!err && !atomic_load(&ns->scan_done))
		err = orphan_pending_truncate(ns, ino, &truncating);
	if (err) {
		slu_mutex_lock(&ns->table.lock);
		hash_del(&ns->table, inode);
		slu_cond_broadcast(&ns->table.changed);
		slu_mutex_unlock(&ns->table.lock);
		slu_free(inode);
		return err;
	}
	inode_init(ns, inode, &attr);
	ns_count(ns, loads);
	if (truncating) {
		/*
		 * A crash left extents beyond the size: they must be gone before anybody can make
		 * the file longer. Where nothing may be written nobody can.
		 */
		inode->orphan_truncate = inode->freeing = true;
		err = ns_readonly(ns) ? 0 : slu_inode_free_extents(inode);
		if (err) {
			itable_drop(inode);
			return err;
		}
	}
	/* Of an earlier mount: the orphans of this one do not leave memory. */
	if (attr.nlink == 0)
		inode->orphan = true;
	itable_live(inode);
	return 0;
}

/* Which -ESTALE is for a number that was used once, and -ENOENT for one that never was. */
static int missing(struct slu_ns *ns, uint64_t ino)
{
	return ino >= SLU_INO_FIRST && ino < atomic_load(&ns->next_ino) ? -ESTALE : -ENOENT;
}

int itable_get_any(struct slu_ns *ns, uint64_t ino, struct slu_inode **ret)
{
	struct ns_table *t = &ns->table;
	struct slu_inode *inode, *fresh = NULL;
	int err = 0;

	slu_assert_no_locks("inode");
	/* Records may lie about numbers that the next create will take. */
	if (ino == SLU_INO_VOLUME || ino >= atomic_load(&ns->next_ino))
		return -ENOENT;
	slu_mutex_lock(&t->lock);
	for (;;) {
		inode = hash_find(t, ino);
		if (!inode && !fresh) {
			slu_mutex_unlock(&t->lock);
			fresh = blank(ns, ino);
			if (!fresh)
				return -ENOMEM;
			slu_mutex_lock(&t->lock);
			continue;
		}
		if (!inode || inode->state == SLU_INODE_LIVE || inode->state == SLU_INODE_RECLAIM)
			break;
		slu_cond_wait(&t->changed, &t->lock);
	}
	if (!inode) {
		take_txids(t, fresh);
		hash_add(t, fresh);
	} else if (inode->state == SLU_INODE_RECLAIM) {
		err = -ESTALE;
	} else {
		ref(inode);
	}
	slu_mutex_unlock(&t->lock);

	if (inode) {
		slu_free(fresh);
	} else {
		inode = fresh;
		err = load(inode);
		if (err == -ENOENT)
			err = missing(ns, ino);
		itable_trim(ns);
	}
	if (!err)
		*ret = inode;
	return err;
}

int slu_inode_get(struct slu_ns *ns, uint64_t ino, struct slu_inode **ret)
{
	struct slu_inode *inode;
	int err = itable_get_any(ns, ino, &inode);

	if (err)
		return err;
	/* An orphan that a crash left is known to nobody, whatever number they may guess. */
	slu_mutex_lock(&ns->table.lock);
	bool gone = inode->orphan && inode->nopen == 0 && inode->refs - inode->npins == 1 &&
		    lookups_get(&ns->lookups, ino) == 0 && !atomic_load(&ns->lookups.lost);
	slu_mutex_unlock(&ns->table.lock);
	if (gone) {
		slu_inode_put(inode);
		return -ESTALE;
	}
	*ret = inode;
	return 0;
}

struct slu_inode *itable_peek(struct slu_ns *ns, uint64_t ino)
{
	slu_mutex_lock(&ns->table.lock);
	struct slu_inode *inode = hash_find(&ns->table, ino);
	if (inode && inode->state == SLU_INODE_LIVE)
		ref(inode);
	else
		inode = NULL;
	slu_mutex_unlock(&ns->table.lock);
	return inode;
}

uint64_t itable_found_in(struct slu_ns *ns, uint64_t ino)
{
	slu_mutex_lock(&ns->table.lock);
	const struct slu_inode *inode = hash_find(&ns->table, ino);
	uint64_t parent = inode ? inode->found_in : 0;
	slu_mutex_unlock(&ns->table.lock);
	return parent;
}

int itable_new(struct slu_ns *ns, const struct slu_attr *attr, struct slu_inode **ret)
{
	struct slu_inode *inode = blank(ns, attr->ino), *other;

	slu_assert_no_locks("new inode");
	if (!inode)
		return -ENOMEM;
	slu_mutex_lock(&ns->table.lock);
	/*
	 * The number is new, but it can be guessed (a file handle): who does finds no record and is
	 * gone soon. A damaged volume may have one all the same.
	 */
	while ((other = hash_find(&ns->table, attr->ino)) &&
	       (other->state == SLU_INODE_LOADING || other->state == SLU_INODE_DYING))
		slu_cond_wait(&ns->table.changed, &ns->table.lock);
	if (!other)
		hash_add(&ns->table, inode);
	slu_mutex_unlock(&ns->table.lock);
	if (other) {
		slu_free(inode);
		return ns_bad_record(ns, attr->ino, "inode number that was never handed out");
	}
	inode_init(ns, inode, attr);
	*ret = inode;
	return 0;
}

/* ------------------------------------------------------------------ dirty times */

void itable_attr_dirty(struct slu_inode *inode)
{
	struct ns_table *t = table_of(inode);

	inode->attr_dirty = true;
	slu_mutex_lock(&t->lock);
	if (!inode->dirty_listed) {
		dirty_add(t, inode);
		inode->npins++;
		ref(inode);
	}
	slu_mutex_unlock(&t->lock);
}

void itable_attr_clean(struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;

	if (!inode->attr_dirty)
		return;
	inode->attr_dirty = false;
	slu_mutex_lock(&ns->table.lock);
	if (inode->dirty_listed) {
		dirty_del(&ns->table, inode);
		inode->npins--;
		unref(inode);
	}
	slu_mutex_unlock(&ns->table.lock);
}

struct slu_inode *itable_next_dirty(struct slu_ns *ns)
{
	slu_mutex_lock(&ns->table.lock);
	struct slu_inode *inode = ns->table.dirty.head;
	if (inode) {
		/* The list's pin becomes the caller's reference. */
		dirty_del(&ns->table, inode);
		inode->npins--;
		settle(&ns->table, inode);
	}
	slu_mutex_unlock(&ns->table.lock);
	return inode;
}

/* ------------------------------------------------------------------ reclaim */

struct slu_inode *itable_next_reclaim(struct slu_ns *ns)
{
	struct ns_table *t = &ns->table;

	slu_mutex_lock(&t->lock);
	struct slu_inode *inode = t->reclaim.head;
	if (inode) {
		inode->state = SLU_INODE_RECLAIM;
		t->nreclaiming++;
		inode->refs++;
		settle(t, inode);
	}
	slu_mutex_unlock(&t->lock);
	return inode;
}

void itable_reclaim_alone(struct slu_inode *inode)
{
	struct ns_table *t = table_of(inode);

	slu_mutex_lock(&t->lock);
	while (inode->refs > 1)
		slu_cond_wait(&t->changed, &t->lock);
	slu_mutex_unlock(&t->lock);
}

void itable_reclaim_gone(struct slu_inode *inode)
{
	struct slu_ns *ns = inode->ns;

	slu_assert(inode->npins == 0);
	itable_drop(inode);
	slu_mutex_lock(&ns->table.lock);
	ns->table.nreclaiming--;
	slu_cond_broadcast(&ns->table.changed);
	slu_mutex_unlock(&ns->table.lock);
}

void itable_reclaim_later(struct slu_inode *inode, bool requeue)
{
	struct slu_ns *ns = inode->ns;
	struct ns_table *t = &ns->table;

	slu_mutex_lock(&t->lock);
	inode->state = SLU_INODE_LIVE;
	t->nreclaiming--;
	inode->refs--;
	settle(t, inode);
	if (!requeue && inode->reclaim_listed) {
		/* Cannot be freed now: out of the way, still an orphan. */
		list_del(&t->reclaim, inode);
		inode->reclaim_listed = false;
	}
	slu_cond_broadcast(&t->changed);
	slu_mutex_unlock(&t->lock);
}

bool itable_reclaim_queued(struct slu_ns *ns)
{
	slu_mutex_lock(&ns->table.lock);
	bool queued = ns->table.reclaim.head != NULL;
	slu_mutex_unlock(&ns->table.lock);
	return queued;
}

bool itable_reclaim_pending(struct slu_ns *ns)
{
	slu_mutex_lock(&ns->table.lock);
	bool pending = ns->table.reclaim.head || ns->table.nreclaiming;
	slu_mutex_unlock(&ns->table.lock);
	return pending;
}

void itable_wait_reclaim(struct slu_ns *ns)
{
	slu_mutex_lock(&ns->table.lock);
	while (ns->table.nreclaiming)
		slu_cond_wait(&ns->table.changed, &ns->table.lock);
	slu_mutex_unlock(&ns->table.lock);
}

void itable_queue_orphans(struct slu_ns *ns)
{
	struct ns_table *t = &ns->table;
	bool more = false;

	slu_mutex_lock(&t->lock);
	for (size_t i = 0; i < t->nbuckets; i++)
		for (struct slu_inode *inode = t->buckets[i]; inode; inode = inode->hash_next)
			if (inode->orphan)
				more |= settle(t, inode);
	slu_mutex_unlock(&t->lock);
	say_reclaim(ns, more);
}

void itable_forget_handles(struct slu_ns *ns)
{
	struct ns_table *t = &ns->table;

	slu_mutex_lock(&t->lock);
	for (size_t i = 0; i < t->nbuckets; i++) {
		for (struct slu_inode *inode = t->buckets[i]; inode; inode = inode->hash_next) {
			inode->refs -= inode->nopen;
			inode->nopen = 0;
			settle(t, inode);
		}
	}
	slu_mutex_unlock(&t->lock);
}
