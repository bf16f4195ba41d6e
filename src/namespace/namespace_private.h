/* SPDX-License-Identifier: MIT */
/*
 * What the files of the namespace share: the inode table, lookup counts, names, and the frame
 * (struct ns_op) in which every change runs.
 *
 * Locks, outermost first (base.h's ranks in brackets):
 *
 *	ns->rename [inode, 0]		directories that move to another parent, one at a time
 *	inode->data.lock [inode]	exclusive for every change; ascending
 *	inode->vol.iomap.lock [extents]	"meta lock": attr and the record; ascending
 *	the store's own
 *	table->lock [leaf 64]		the inode table
 *	shard->lock [leaf 65]		lookup counts; inside the table's
 *
 * The leaf locks come after the plain leaves (order 0) because the page cache pins inodes under
 * its own.
 */
#ifndef SLUICE_NAMESPACE_PRIVATE_H
#define SLUICE_NAMESPACE_PRIVATE_H

#include "sluice/namespace.h"
#include "sluice/write.h"

#define NS_NAME_MAX        255
#define NS_TARGET_MAX      4095 /* bytes in a symlink's target: PATH_MAX without the NUL */
#define NS_LINK_MAX        0x7fffffffu
#define NS_XATTR_LIST_MAX  65536u
#define NS_XATTR_VALUE_MAX 65536u
#define NS_ACL_MAX         16384u /* two of them and the rest of a new inode must fit one batch */

#define NS_LEAF_TABLE  64
#define NS_LEAF_LOOKUP 65

#define NS_SHARDS 16

/* What a change answers when what it was based on is no longer so: begin again. */
#define NS_RESTART 1

/* ------------------------------------------------------------------ lookups.c */

struct ns_lookup {
	uint64_t ino; /* 0: free */
	uint64_t count;
	uint64_t parent; /* the directory it was found in, or moved to, last; 0: none known */
};

struct ns_shard {
	struct slu_mutex lock;
	struct ns_lookup *entries;
	size_t cap, used; /* cap: 0 or a power of two */
};

struct ns_lookups {
	struct ns_shard shards[NS_SHARDS];
	_Atomic bool lost; /* a count could not be kept: orphans wait for the end of the mount */
};

void lookups_init(struct ns_lookups *l);
void lookups_fini(struct ns_lookups *l);
/* parent: where it was found, or 0 to leave that as it is. -ENOMEM. */
int lookups_add(struct ns_lookups *l, uint64_t ino, uint64_t parent, uint64_t n);
/* Returns what is left. Taking more than there is leaves 0. */
uint64_t lookups_sub(struct ns_lookups *l, uint64_t ino, uint64_t n);
uint64_t lookups_get(struct ns_lookups *l, uint64_t ino);
uint64_t lookups_parent(struct ns_lookups *l, uint64_t ino); /* 0: not known */
/* It is in parent now, if it is known at all. */
void lookups_found(struct ns_lookups *l, uint64_t ino, uint64_t parent);
void lookups_clear(struct ns_lookups *l);

/* ------------------------------------------------------------------ itable.c */

struct ns_list {
	struct slu_inode *head, *tail;
	size_t n;
};

struct ns_table {
	struct slu_mutex lock;
	struct slu_cond changed; /* a state has changed, or an inode is gone */
	struct slu_inode **buckets;
	size_t nbuckets; /* a power of two */
	size_t ninodes, max_idle;
	size_t nreclaiming; /* in state RECLAIM */
	/*
	 * The newest last_txid and shrink_txid of inodes that have left memory: those that come back
	 * begin with them, since nothing else says which transaction has what was changed last.
	 */
	uint64_t left_txid, left_shrink_txid;
	struct ns_list idle;    /* least recently used first */
	struct ns_list reclaim; /* orphans without users */
	struct ns_list dirty;   /* attr_dirty */
};

int itable_init(struct slu_ns *ns, size_t max_idle);
/* Every inode goes; none may be in use any more but by dirty times, which are given up. */
void itable_fini(struct slu_ns *ns);
/* Also inodes without a name that no session knows: they become orphans to be reclaimed. */
int itable_get_any(struct slu_ns *ns, uint64_t ino, struct slu_inode **ret);
/* The inode if it is in memory and alive, with a reference; NULL otherwise. Never waits. */
struct slu_inode *itable_peek(struct slu_ns *ns, uint64_t ino);
/* The directory in which it was found before it was forgotten, or 0. */
uint64_t itable_found_in(struct slu_ns *ns, uint64_t ino);
/* A new inode, in state LOADING and referenced; then either made live or dropped. */
int itable_new(struct slu_ns *ns, const struct slu_attr *attr, struct slu_inode **ret);
void itable_live(struct slu_inode *inode);
void itable_drop(struct slu_inode *inode);
/* Idle inodes beyond the limit leave memory. No lock held. */
void itable_trim(struct slu_ns *ns);
/* Meta lock held. */
void itable_set_orphan(struct slu_inode *inode, bool orphan);
/* The kernel has forgotten ino, last found in parent: an orphan may be free to go. */
void itable_forgotten(struct slu_ns *ns, uint64_t ino, uint64_t parent);
/* Meta lock held. The record on disk is, or is no longer, older than memory: times, mostly. */
void itable_attr_dirty(struct slu_inode *inode);
void itable_attr_clean(struct slu_inode *inode);
/* The oldest inode with dirty times, with a reference; it is off the list. NULL: none. */
struct slu_inode *itable_next_dirty(struct slu_ns *ns);
/*
 * The next orphan to free, in state RECLAIM and referenced; NULL: none. Then one of: gone (its
 * records are deleted), or later (alive again, and back in the queue if requeue).
 */
struct slu_inode *itable_next_reclaim(struct slu_ns *ns);
/*
 * Until nobody else has it: a pass of writeback may, that found it before its pages were dropped.
 */
void itable_reclaim_alone(struct slu_inode *inode);
void itable_reclaim_gone(struct slu_inode *inode);
void itable_reclaim_later(struct slu_inode *inode, bool requeue);
bool itable_reclaim_queued(struct slu_ns *ns);
/* Queued, or being freed by some thread right now. */
bool itable_reclaim_pending(struct slu_ns *ns);
/* Until no thread is freeing anything. No lock held. */
void itable_wait_reclaim(struct slu_ns *ns);
/*
 * Orphans that were held back by something other than their users: a read-only time, lost counts, an
 * error.
 */
void itable_queue_orphans(struct slu_ns *ns);
/* At unmount: handles that nobody will close any more. */
void itable_forget_handles(struct slu_ns *ns);

/* ------------------------------------------------------------------ inode.c */

/* Record ↔ attributes. parse: NULL, or what is wrong. */
const char *inode_parse(const void *value, size_t len, uint64_t ino, struct slu_attr *ret);
void inode_put_record(struct slu_batch *b, const struct slu_attr *attr, uint64_t size);
/* Reads the record; `need` as in store.h. -ENOENT, -EIO (and an event), -EAGAIN, … */
int inode_read_record(struct slu_ns *ns, uint64_t ino, struct slu_attr *ret, struct slu_need *need);
/*
 * The size that goes to disk with a record of the namespace's, and what is to be done once it is
 * there. Meta lock held, and the rwlock (shared will do) since before the size was asked for: in
 * the middle of a truncate there is no right answer.
 */
uint64_t inode_record_size(struct slu_inode *inode, const struct slu_attr *attr);
/*
 * Whether a crash after such a record could leave data beyond its size, which the orphan record of
 * a truncate prevents. Meta lock held.
 */
bool inode_needs_orphan(const struct slu_inode *inode, uint32_t nlink, uint64_t size);
void inode_recorded(struct slu_inode *inode, uint64_t record_size);
void inode_init(struct slu_ns *ns, struct slu_inode *inode, const struct slu_attr *attr);
void inode_fini(struct slu_inode *inode);
/* Something on disk is not what it has to be. Returns -EIO. */
int ns_bad_record(struct slu_ns *ns, uint64_t ino, const char *what);

/* ------------------------------------------------------------------ dir.c */

struct ns_name {
	const char *s;
	size_t len;
	uint64_t hash; /* of the 47 bits */
};

struct ns_dirent {
	uint64_t ino; /* 0: there is no such name */
	/* of its record; where there is none, of the record it would get (0: none left) */
	uint64_t off;
	uint8_t type;
};

uint64_t ns_hash(const struct slu_ns *ns, const char *s, size_t len);
/* -ENAMETOOLONG, -EINVAL. */
int ns_name_init(const struct slu_ns *ns, struct ns_name *name, const char *s);
bool ns_name_is_dots(const char *s);
/* 0 whether or not there is one. */
int dir_find(struct slu_ns *ns, uint64_t dir, const struct ns_name *name, struct ns_dirent *ret,
	     struct slu_need *need);
int dir_empty(struct slu_ns *ns, uint64_t dir, bool *ret, struct slu_need *need);
/*
 * A name in dir that leads to ino, not terminated. *looks: how many entries may be looked at; what is
 * left of them. -ENOENT: none of these does.
 */
int dir_name_of(struct slu_ns *ns, uint64_t dir, uint64_t ino, char name[NS_NAME_MAX],
		size_t *ret_len, uint64_t *looks, struct slu_need *need);
void dir_put_entry(struct slu_batch *b, uint64_t dir, const struct ns_name *name, uint64_t off,
		   uint64_t ino, mode_t mode);

/* -------------------------------------------------------------- op.c: the frame of every change */

/* An inode that takes part, with a copy of its attributes to work on. */
struct ns_slot {
	struct slu_inode *inode;
	struct slu_attr attr; /* valid under the locks; written and taken over if changed */
	uint64_t record_size; /* in the record that the batch has */
	bool orphan_truncate; /* the inode's, as the batch leaves it */
	bool changed;
};

#define NS_OP_SLOTS 4 /* a rename: two parents, two entries */

struct ns_op {
	/* who and what: set by the operation */
	struct slu_ns *ns;
	struct slu_ctx *ctx;
	unsigned int nnames;
	uint64_t dir[2];
	struct ns_name name[2];
	uint64_t ino; /* an inode by number, 0: none */
	uint32_t records;
	uint64_t bytes;
	unsigned int ticket_flags;
	void *arg;
	/*
	 * find: after the inodes have been found, with no lock held: what must be done before any
	 *	is taken. May be NULL. 0, an error (-EAGAIN with need), or NS_RESTART. It may take
	 *	ns->rename and leave it to op_run to give it up (rename_locked).
	 * change: under all locks, the names being what they were: checks, fills op->batch,
	 *	changes the copies in the slots. 0, an error (-EAGAIN with need), or NS_RESTART.
	 * done: the batch has been applied; still under the locks. May be NULL.
	 */
	int (*find)(struct ns_op *op, struct slu_need *need);
	int (*change)(struct ns_op *op, struct slu_need *need);
	void (*done)(struct ns_op *op);

	/* what op_run keeps */
	struct ns_dirent ent[2];
	struct ns_slot *parent[2], *child[2], *target; /* child: NULL where there is none */
	struct ns_slot slots[NS_OP_SLOTS];
	unsigned int nslots;
	bool rename_locked; /* find took ns->rename; op_run gives it up */
	bool made_room;
	struct slu_ticket ticket;
	uint32_t got_records; /* what the ticket was taken for */
	uint64_t got_bytes;
	struct slu_batch batch;
	struct timespec now;
	uint64_t txid;
};

int op_run(struct ns_op *op);
/* The slot of an inode that takes part, or NULL. */
struct ns_slot *op_slot(struct ns_op *op, uint64_t ino);
/* Under the locks: whether the ticket covers this much in all. NS_RESTART gets one that does. */
int op_room(struct ns_op *op, uint32_t records, uint64_t bytes);
/* Parents: m/ctime. */
void op_touch_dir(struct ns_op *op, struct ns_slot *slot);
/* May names be made in it or taken from it? -ENOTDIR, -ENOENT, -EPERM. */
int op_check_parent(const struct ns_slot *parent, bool removes);
/* Takes one name off: nlink, ctime, and the orphan record if it was the last. */
void op_drop_link(struct ns_op *op, struct ns_slot *slot);
/* The first name (nlink says so) of an unnamed file: no orphan any more, or one of the other kind. */
void op_undo_orphan(struct ns_op *op, struct ns_slot *slot);
void op_put_orphan(struct ns_op *op, uint64_t ino, enum slu_orphan what, uint64_t size);
/* After apply: a slot whose last name went is an orphan from now on. */
void op_mark_orphan(struct ns_slot *slot);

/* ------------------------------------------------------------------ xattr.c, acl.c */

struct ns_xattr {
	bool found;
	uint64_t off; /* of its record, or of the record it would get (0: none left) */
	uint32_t value_len, part_id;
	bool parts;
	uint16_t inline_len; /* bytes of `value`: the whole value where it is not in parts */
	uint8_t value[SLU_VALUE_MAX];
};

#define NS_ACL_ACCESS    "system.posix_acl_access"
#define NS_ACL_DEFAULT   "system.posix_acl_default"
#define NS_XATTR_CAPS    "security.capability"
#define NS_XATTR_TRUSTED "trusted."

int xattr_find(struct slu_ns *ns, uint64_t ino, const char *name, struct ns_xattr *ret,
	       struct slu_need *need);
/* The value, of which buf has room for all. */
int xattr_read(struct slu_ns *ns, uint64_t ino, const struct ns_xattr *x, void *buf,
	       struct slu_need *need);
/*
 * Adds to the batch what sets, or deletes, the attribute; nxattr in attr follows. old is what
 * xattr_find said; where it found nothing and the value goes into parts, its part_id is one that is
 * free (xattr_free_part_id).
 */
void xattr_put(struct slu_batch *b, struct slu_attr *attr, const char *name,
	       const struct ns_xattr *old, const void *value, size_t len);
int xattr_free_part_id(struct slu_ns *ns, uint64_t ino, uint32_t *ret, struct slu_need *need);
void xattr_del(struct slu_batch *b, struct slu_attr *attr, const struct ns_xattr *old);
/* Records and bytes that a value of len bytes takes, for tickets. */
unsigned int xattr_records(size_t name_len, size_t len);
/* The same for one that takes the place of old, or, with len 0, for removing that. */
unsigned int xattr_change_records(const struct ns_xattr *old, size_t name_len, size_t len);
uint64_t xattr_bytes(size_t name_len, size_t len);

/* Entries of a checked blob, 0 for one that says nothing; -EINVAL, -EOPNOTSUPP. */
int acl_check(const void *blob, size_t len);
size_t acl_size(unsigned int n);
/* Whether the mode says it all; *mode gets the permission bits of it. */
bool acl_equiv_mode(const void *blob, unsigned int n, mode_t *mode);
/*
 * A new inode's ACL from the default one: the blob and *mode are cut down to each other. 1: more
 * than the mode.
 */
int acl_inherit(void *blob, unsigned int n, mode_t *mode);
int acl_chmod(void *blob, unsigned int n, mode_t mode);
/* Reads and checks an ACL. *ret is NULL where there is none; else free it. */
int acl_read(struct slu_ns *ns, uint64_t ino, const struct slu_attr *attr, const char *name,
	     uint8_t **ret, unsigned int *ret_n, struct slu_need *need);

/* ------------------------------------------------------------------ orphan.c */

/* At mount: whether there is anything to look for. */
int orphan_scan_start(struct slu_ns *ns);
/* Is there an orphan record of a truncate for this inode? Only asked until the scan is done. */
int orphan_pending_truncate(struct slu_ns *ns, uint64_t ino, bool *ret);

/* ------------------------------------------------------------------ ns.c */

struct slu_ns {
	struct slu_store *store;
	struct slu_volume *vol;
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_blockio *bio;
	struct slu_ns_opts opts;
	uint64_t hash_seed;
	uint64_t hash_mask; /* all ones; tests make names collide with less */
	uint32_t link_max;  /* NS_LINK_MAX; tests lower it */
	_Atomic bool readonly;
	_Atomic uint64_t next_ino; /* greater than any number used so far, as far as is known */
	struct slu_mutex rename;   /* rank INODE, order 0 */
	struct ns_table table;
	struct ns_lookups lookups;
	/* the search for what a crash left behind; by one thread at a time */
	struct slu_mutex scan_lock; /* leaf */
	bool scanning;
	struct slu_key scan_first, scan_from;
	bool scan_failed; /* since it began at the first: not all of it has been taken up */
	_Atomic bool scan_done;
	_Atomic int reclaim_error; /* the first that this pass has met */
	struct slu_ns_stats stats;
};

extern const struct slu_iomap_owner inode_iomap_owner;
extern const struct slu_aspace_owner inode_aspace_owner;

static inline bool ns_readonly(const struct slu_ns *ns)
{
	return atomic_load_explicit(&((struct slu_ns *)ns)->readonly, memory_order_relaxed);
}

uint64_t ns_new_ino(struct slu_ns *ns);
#define ns_count(ns, what) atomic_fetch_add_explicit(&(ns)->stats.what, 1, memory_order_relaxed)

#endif
