/* SPDX-License-Identifier: MIT */
/*
 * One inode: its record on disk, its attributes in memory, and what the volume asks of it when
 * extents change.
 *
 * The record enters the store from three sides, always with the meta lock held from the making of
 * it until memory agrees: from a change of the namespace (op.c), along with a change of extents
 * (the owner's callbacks below), and alone, when only times have moved (slu_inode_sync_attr). So
 * the order of records in the store is the order of changes in memory.
 *
 * Takes the meta lock and the inode table's leaf lock. What is read from disk is checked in full
 * here.
 */
#include "namespace_private.h"

/* ------------------------------------------------------------------ the record */

int ns_bad_record(struct slu_ns *ns, uint64_t ino, const char *what)
{
	struct slu_event ev = {.kind = SLU_EVENT_NODE_CORRUPT,
			       .error = -EIO,
			       .ino = ino,
			       .text = what};

	ns_count(ns, bad_records);
	slu_event_post(&ns->opts.events, &ev);
	return -EIO;
}

static bool parse_time(const struct slu_disk_time *t, struct timespec *ret)
{
	ret->tv_sec = (time_t)(int64_t)slu_get_le64(&t->sec);
	ret->tv_nsec = (long)slu_get_le32(&t->nsec);
	return ret->tv_nsec < (long)SLU_NS_PER_SEC;
}

static void put_time(struct slu_disk_time *t, const struct timespec *ts)
{
	slu_put_le64(&t->sec, (uint64_t)(int64_t)ts->tv_sec);
	slu_put_le32(&t->nsec, (uint32_t)ts->tv_nsec);
}

static const char *check_attr(const struct slu_attr *a)
{
	bool dir = S_ISDIR(a->mode);

	switch (a->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		break;
	default:
		return "inode of no known type";
	}
	if (a->mode & ~(uint32_t)(S_IFMT | 07777))
		return "inode mode has unknown bits";
	if (a->size > INT64_MAX)
		return "inode size beyond the greatest";
	if (S_ISLNK(a->mode) && (a->size == 0 || a->size > NS_TARGET_MAX))
		return "length of a symlink's target out of bounds";
	if (a->blocks > SLU_MAX_BLOCKS || (a->blocks && !S_ISREG(a->mode)))
		return "inode owns more blocks than it can";
	if (dir ? a->parent == SLU_INO_VOLUME || a->parent > INT64_MAX : a->parent != 0)
		return "parent of an inode out of bounds";
	if (a->nlink > NS_LINK_MAX || (dir && a->nlink == 1))
		return "link count out of bounds";
	if (a->flags & ~SLU_INODE_FLAGS)
		return "inode has unknown flags";
	return NULL;
}

const char *inode_parse(const void *value, size_t len, uint64_t ino, struct slu_attr *ret)
{
	struct slu_disk_inode d;

	if (len != sizeof(d))
		return "inode record of the wrong size";
	memcpy(&d, value, sizeof(d));
	*ret = (struct slu_attr){
		.ino = ino,
		.size = slu_get_le64(&d.size),
		.blocks = slu_get_le64(&d.blocks),
		.parent = slu_get_le64(&d.parent),
		.mode = slu_get_le32(&d.mode),
		.uid = slu_get_le32(&d.uid),
		.gid = slu_get_le32(&d.gid),
		.nlink = slu_get_le32(&d.nlink),
		.rdev = slu_get_le32(&d.rdev),
		.flags = slu_get_le32(&d.flags),
		.generation = slu_get_le32(&d.generation),
		.nxattr = slu_get_le32(&d.nxattr),
	};
	if (!parse_time(&d.atime, &ret->atime) || !parse_time(&d.mtime, &ret->mtime) ||
	    !parse_time(&d.ctime, &ret->ctime) || !parse_time(&d.btime, &ret->btime))
		return "inode time out of bounds";
	return check_attr(ret);
}

void inode_put_record(struct slu_batch *b, const struct slu_attr *a, uint64_t size)
{
	struct slu_key key = SLU_KEY(a->ino, SLU_REC_INODE, 0);
	struct slu_disk_inode d;

	slu_put_le32(&d.mode, a->mode);
	slu_put_le32(&d.uid, a->uid);
	slu_put_le32(&d.gid, a->gid);
	slu_put_le32(&d.nlink, a->nlink);
	slu_put_le64(&d.size, size);
	slu_put_le64(&d.blocks, a->blocks);
	slu_put_le64(&d.parent, a->parent);
	slu_put_le32(&d.rdev, a->rdev);
	slu_put_le32(&d.flags, a->flags);
	slu_put_le32(&d.generation, a->generation);
	slu_put_le32(&d.nxattr, a->nxattr);
	put_time(&d.atime, &a->atime);
	put_time(&d.mtime, &a->mtime);
	put_time(&d.ctime, &a->ctime);
	put_time(&d.btime, &a->btime);
	slu_batch_put(b, &key, &d, sizeof(d));
}

int inode_read_record(struct slu_ns *ns, uint64_t ino, struct slu_attr *ret, struct slu_need *need)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_INODE, 0);
	uint8_t value[SLU_VALUE_MAX];
	int len = slu_store_get(ns->store, &key, value, sizeof(value), need);

	if (len < 0)
		return len;
	const char *wrong = inode_parse(value, (size_t)len, ino, ret);
	return wrong ? ns_bad_record(ns, ino, wrong) : 0;
}

int slu_ns_root_records(struct slu_batch *b, uid_t uid, gid_t gid, mode_t mode)
{
	struct timespec now = slu_clock_realtime();
	struct slu_attr root = {
		.ino = SLU_INO_ROOT,
		.parent = SLU_INO_ROOT,
		.mode = S_IFDIR | (mode & 07777),
		.uid = uid,
		.gid = gid,
		.nlink = 2,
		.generation = 1,
		.atime = now,
		.mtime = now,
		.ctime = now,
		.btime = now,
	};

	inode_put_record(b, &root, 0);
	slu_batch_inodes(b, 1);
	return b->error;
}

/* ------------------------------------------------------------------ data beyond the size on disk */

/* Whether an inode with this record needs an orphan record of kind TRUNCATE. Meta lock held. */
static bool needs_orphan(const struct slu_inode *inode, uint32_t nlink, uint64_t size,
			 uint64_t data_end)
{
	if (slu_mutant(NO_ORPHAN))
		return nlink && inode->freeing;
	return nlink && (inode->freeing || slu_bytes_to_blocks(size) < data_end);
}

bool inode_needs_orphan(const struct slu_inode *inode, uint32_t nlink, uint64_t size)
{
	return needs_orphan(inode, nlink, size, inode->data_end);
}

static void put_orphan(struct slu_inode *inode, struct slu_batch *b, uint64_t size)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, inode->ino);
	struct slu_disk_orphan orphan = {.what = SLU_ORPHAN_TRUNCATE};

	slu_put_le64(&orphan.size, size);
	slu_batch_put(b, &key, &orphan, sizeof(orphan));
}

static void del_orphan(struct slu_inode *inode, struct slu_batch *b)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, inode->ino);

	slu_batch_del(b, &key);
}

/*
 * The record as it is to be, and the orphan record if that has to come or go along with it. Meta
 * lock held until inode_put_done, or until the batch has failed.
 */
static void inode_put(struct slu_inode *inode, struct slu_batch *b, const struct slu_attr *attr,
		      uint64_t size, uint64_t data_end)
{
	bool want = needs_orphan(inode, attr->nlink, size, data_end);

	inode->record_size = size;
	inode->record_data_end = data_end;
	inode->record_orphan = want;
	inode_put_record(b, attr, size);
	if (want && !inode->orphan_truncate)
		put_orphan(inode, b, size);
	else if (!want && inode->orphan_truncate)
		del_orphan(inode, b);
}

/* The size on disk has been recorded, as far as an inode's record has one. */
static void size_recorded(struct slu_inode *inode, uint64_t size)
{
	if (!S_ISREG(inode->type))
		return;
	inode->data.disk_size = size;
	if (slu_bytes_to_blocks(size) >= inode->data_end)
		inode->data_end = 0;
}

/*
 * The size waits for bytes on their way: stays in memory, and on the list, until they are settled.
 * Without a name nobody asks for the size any more. Meta lock held.
 */
static bool awaits(struct slu_inode *inode)
{
	return S_ISREG(inode->type) && inode->attr.nlink && slu_aspace_awaits(&inode->data);
}

static void inode_put_done(struct slu_inode *inode, uint64_t txid)
{
	inode->orphan_truncate = inode->record_orphan;
	inode->data_end = inode->record_data_end;
	inode->last_txid = txid;
	size_recorded(inode, inode->record_size);
	itable_attr_clean(inode);
	if (awaits(inode))
		itable_attr_dirty(inode);
}

/*
 * Whether memory knows better than the record: times, a size below which nothing is left to write,
 * or that an orphan record is needed no more.
 */
static bool record_is_old(struct slu_inode *inode)
{
	if (inode->attr_dirty)
		return true;
	if (!S_ISREG(inode->type))
		return false;
	return slu_aspace_synced(&inode->data) > inode->data.disk_size ||
	       (inode->orphan_truncate &&
		!inode_needs_orphan(inode, inode->attr.nlink, inode->data.disk_size));
}

/*
 * A change of the namespace has no room for the orphan record of data beyond the size: while there
 * is one, the size stays as it is, and is recorded with the next I/O or by sync_attr.
 */
uint64_t inode_record_size(struct slu_inode *inode, const struct slu_attr *attr)
{
	if (!S_ISREG(attr->mode))
		return attr->size;
	return inode->orphan_truncate ? inode->data.disk_size : slu_aspace_synced(&inode->data);
}

void inode_recorded(struct slu_inode *inode, uint64_t record_size)
{
	size_recorded(inode, record_size);
	itable_attr_clean(inode);
	if (record_is_old(inode) || awaits(inode))
		itable_attr_dirty(inode);
}

/* ------------------------------------------------------------------ what the volume asks */

static struct slu_inode *of_iomap(struct slu_iomap_inode *iomap)
{
	return slu_container_of(iomap, struct slu_inode, vol.iomap);
}

/*
 * The volume's verbs are told the size on disk by callers who looked some time ago and hold no lock
 * of the inode (writeback) or one that does not stop writeback (truncate). Only an explicit size
 * change moves it back, with the meta lock held; so here it never goes back, nor past what
 * applications see.
 */
static void owner_put_record(struct slu_iomap_inode *iomap, struct slu_batch *batch,
			     int64_t dblocks, uint64_t disk_size, uint64_t data_end)
{
	struct slu_inode *inode = of_iomap(iomap);
	struct slu_attr attr = inode->attr;

	disk_size = slu_max(disk_size, inode->data.disk_size);
	attr.blocks += (uint64_t)dblocks;
	inode_put(inode, batch, &attr, slu_min(disk_size, slu_aspace_size(&inode->data)),
		  slu_max(inode->data_end, data_end));
}

static void owner_record_done(struct slu_iomap_inode *iomap, int64_t dblocks, uint64_t disk_size,
			      uint64_t txid)
{
	struct slu_inode *inode = of_iomap(iomap);

	inode->attr.blocks += (uint64_t)dblocks;
	inode_put_done(inode, txid);
}

static uint64_t owner_disk_size(struct slu_iomap_inode *iomap)
{
	return of_iomap(iomap)->data.disk_size;
}

const struct slu_iomap_owner inode_iomap_owner = {
	.disk_size = owner_disk_size,
	.put_record = owner_put_record,
	.record_done = owner_record_done,
};

void inode_init(struct slu_ns *ns, struct slu_inode *inode, const struct slu_attr *attr)
{
	uint64_t size = S_ISREG(attr->mode) ? attr->size : 0;

	slu_volume_inode_init(&inode->vol, ns->vol, attr->ino, &inode_iomap_owner);
	slu_aspace_init(&inode->data, ns->cache, ns->wb, &inode->vol.iomap, &inode_aspace_owner,
			attr->ino, size, size);
	inode->attr = *attr;
	inode->type = attr->mode & S_IFMT;
}

void inode_fini(struct slu_inode *inode)
{
	slu_aspace_fini(&inode->data);
	slu_volume_inode_fini(&inode->vol);
}

/* ------------------------------------------------------------------ attributes */

void slu_inode_attr(struct slu_inode *inode, struct slu_attr *ret)
{
	slu_mutex_lock(&inode->vol.iomap.lock);
	*ret = inode->attr;
	if (S_ISREG(ret->mode)) {
		ret->size = slu_aspace_size(&inode->data);
		ret->blocks += inode->vol.delalloc.weight;
	}
	slu_mutex_unlock(&inode->vol.iomap.lock);
}

static int time_cmp(const struct timespec *a, const struct timespec *b)
{
	if (a->tv_sec != b->tv_sec)
		return a->tv_sec < b->tv_sec ? -1 : 1;
	return a->tv_nsec < b->tv_nsec ? -1 : a->tv_nsec > b->tv_nsec;
}

/* The kernel's relatime: only where somebody could tell, or once a day. */
static bool atime_moves(const struct slu_inode *inode, const struct timespec *now)
{
	const struct slu_attr *a = &inode->attr;

	if (inode->ns->opts.noatime || a->flags & SLU_INODE_NOATIME)
		return false;
	if (inode->ns->opts.nodiratime && S_ISDIR(a->mode))
		return false;
	if (!inode->ns->opts.relatime)
		return true;
	return time_cmp(&a->mtime, &a->atime) >= 0 || time_cmp(&a->ctime, &a->atime) >= 0 ||
	       now->tv_sec - a->atime.tv_sec >= 24 * 60 * 60;
}

void slu_inode_touch(struct slu_inode *inode, unsigned int what)
{
	struct timespec now = slu_clock_realtime();
	bool changed = false;

	if (ns_readonly(inode->ns))
		return;
	slu_mutex_lock(&inode->vol.iomap.lock);
	if ((what & SLU_TOUCH_ATIME) && atime_moves(inode, &now)) {
		inode->attr.atime = now;
		changed = true;
	}
	if (what & SLU_TOUCH_MTIME)
		inode->attr.mtime = now;
	if (what & (SLU_TOUCH_MTIME | SLU_TOUCH_CTIME)) {
		inode->attr.ctime = now;
		changed = true;
	}
	if (changed && !inode->attr_dirty)
		itable_attr_dirty(inode);
	slu_mutex_unlock(&inode->vol.iomap.lock);
}

void slu_inode_awaits(struct slu_inode *inode)
{
	if (!slu_aspace_awaits(&inode->data))
		return;
	slu_mutex_lock(&inode->vol.iomap.lock);
	if (awaits(inode) && !inode->attr_dirty)
		itable_attr_dirty(inode);
	slu_mutex_unlock(&inode->vol.iomap.lock);
}

/* What a ticket for it has room for: the inode's record, and an orphan record that may go. */
#define PUT_ALONE_RECORDS 2u

static int put_alone_locked(struct slu_inode *inode, struct slu_ticket *t, struct slu_batch *b,
			    struct slu_need *need)
{
	uint64_t size = inode->attr.size, txid;
	int err;

	if (!record_is_old(inode))
		return 0;
	if (S_ISREG(inode->type))
		size = slu_aspace_synced(&inode->data);
	inode_put(inode, b, &inode->attr, size, inode->data_end);
	err = slu_store_apply(inode->ns->store, t, b, &txid, need);
	if (err)
		return err;
	inode_put_done(inode, txid);
	ns_count(inode->ns, attr_writes);
	return 0;
}

static int put_alone(struct slu_inode *inode, struct slu_ticket *t, struct slu_need *need)
{
	struct slu_batch batch;
	int err;

	slu_batch_init(&batch);
	slu_rwlock_rdlock(&inode->data.lock);
	slu_mutex_lock(&inode->vol.iomap.lock);
	err = put_alone_locked(inode, t, &batch, need);
	slu_mutex_unlock(&inode->vol.iomap.lock);
	slu_rwlock_rdunlock(&inode->data.lock);
	slu_batch_fini(&batch);
	return err;
}

static int put_alone_waiting(struct slu_inode *inode, struct slu_ticket *t)
{
	struct slu_need need;
	int err;

	for (;;) {
		err = put_alone(inode, t, &need);
		if (err != -EAGAIN)
			return err;
		err = slu_need_wait(&need);
		if (err)
			return err;
	}
}

int slu_inode_sync_attr(struct slu_inode *inode, uint64_t *ret_txid)
{
	struct slu_ns *ns = inode->ns;
	struct slu_ticket ticket = {0};
	bool old;
	int err = 0;

	slu_mutex_lock(&inode->vol.iomap.lock);
	old = record_is_old(inode);
	slu_mutex_unlock(&inode->vol.iomap.lock);
	if (old) {
		err = slu_ticket_get(ns->store, &ticket, PUT_ALONE_RECORDS, 0, SLU_TICKET_KEPT_BACK,
				     NULL);
		if (!err)
			err = put_alone_waiting(inode, &ticket);
		slu_ticket_put(&ticket);
	}
	if (err)
		return err;
	slu_mutex_lock(&inode->vol.iomap.lock);
	*ret_txid = inode->last_txid;
	slu_mutex_unlock(&inode->vol.iomap.lock);
	return 0;
}

#define SYNC_ATTRS_AT_ONCE 64u

/* n of those on the list. */
static int sync_some(struct slu_ns *ns, size_t n)
{
	struct slu_ticket ticket = {0};
	struct slu_inode *inode;
	int err;

	/* No records are added and none grows: every inode's is there already. */
	err = slu_ticket_get(ns->store, &ticket, (uint32_t)n * PUT_ALONE_RECORDS, 0,
			     SLU_TICKET_KEPT_BACK, NULL);
	for (size_t i = 0; !err && i < n; i++) {
		inode = itable_next_dirty(ns);
		if (!inode)
			break;
		err = put_alone_waiting(inode, &ticket);
		if (err) {
			slu_mutex_lock(&inode->vol.iomap.lock);
			if (inode->attr_dirty)
				itable_attr_dirty(inode);
			slu_mutex_unlock(&inode->vol.iomap.lock);
		}
		slu_inode_put(inode);
	}
	slu_ticket_put(&ticket);
	return err;
}

int slu_ns_sync_attrs(struct slu_ns *ns)
{
	int err = 0;

	/* Those that are put back meanwhile are for the next time. */
	slu_mutex_lock(&ns->table.lock);
	size_t left = ns->table.dirty.n;
	slu_mutex_unlock(&ns->table.lock);
	while (left && !err) {
		size_t n = slu_min(left, SYNC_ATTRS_AT_ONCE);

		err = sync_some(ns, n);
		left -= n;
	}
	return err;
}

/* ------------------------------------------------------------------ size, for the fs layer */

/* Meta lock held. The orphan record of an unlinked file frees everything: it is not replaced. */
static int set_size_locked(struct slu_inode *inode, struct slu_ticket *t, uint64_t size,
			   bool orphan_truncate, struct slu_batch *b, struct slu_need *need)
{
	struct timespec now = slu_clock_realtime();
	struct slu_attr attr = inode->attr;
	bool record = orphan_truncate && attr.nlink > 0;
	uint64_t txid;
	int err;

	attr.mtime = attr.ctime = now;
	inode_put_record(b, &attr, size);
	if (record)
		put_orphan(inode, b, size);
	else if (inode->orphan_truncate)
		del_orphan(inode, b);
	err = slu_store_apply(inode->ns->store, t, b, &txid, need);
	if (err)
		return err;
	inode->attr = attr;
	inode->last_txid = txid;
	/* The block that the end lies in now is written in place, zeros behind the end and all. */
	if (size < inode->data.disk_size && size % SLU_BLOCK_SIZE)
		atomic_store(&inode->shrink_txid, txid);
	/* Beyond it, either nothing was, or all is to be freed. */
	inode->data.disk_size = size;
	inode->data_end = 0;
	inode->orphan_truncate = record;
	inode->freeing = orphan_truncate;
	itable_attr_clean(inode);
	slu_aspace_set_size(&inode->data, size);
	return 0;
}

int slu_inode_set_size(struct slu_inode *inode, struct slu_ticket *t, uint64_t size,
		       bool orphan_truncate, struct slu_need *need)
{
	struct slu_batch batch;
	int err;

	if (size > INT64_MAX)
		return -EFBIG;
	slu_batch_init(&batch);
	slu_mutex_lock(&inode->vol.iomap.lock);
	err = set_size_locked(inode, t, size, orphan_truncate, &batch, need);
	slu_mutex_unlock(&inode->vol.iomap.lock);
	slu_batch_fini(&batch);
	return err;
}
