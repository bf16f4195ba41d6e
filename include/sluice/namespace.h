/* SPDX-License-Identifier: MIT */
/*
 * namespace: inodes and names. Lookup, create, link, rename, unlink, attributes, extended
 * attributes, ACLs, orphans; all through batches of the store. File data is reached only through
 * the inode.
 *
 * An inode object (struct slu_inode) is in memory while somebody uses it: a request, an open
 * handle, dirty pages. How often the kernel has looked an inode up is kept apart, in a few bytes
 * per inode, so that a kernel that remembers millions of inodes costs little here.
 *
 * Every operation takes a context: who asks, and whether it may wait. With may_wait false, an
 * operation that would have to wait for transaction room, cache pages or a flush returns -EAGAIN
 * with ctx->need filled in and nothing changed; the caller parks it and calls again, with may_wait
 * true, from a thread that may wait. Short reads of nodes are waited for in any case.
 *
 * Locks: inode rwlocks (in ascending inode order when there are several) → the inodes' meta locks
 * (inode->vol.iomap.lock, which protects attr and the writing of the record; ascending too) →
 * store. Names are looked up without locks first and checked again under them.
 */
#ifndef SLUICE_NAMESPACE_H
#define SLUICE_NAMESPACE_H

#include "sluice/cache.h"
#include "sluice/store.h"
#include "sluice/volume.h"
#include "sluice/writeback.h"
#include <sys/stat.h>
#include <sys/types.h>

struct slu_ns;

struct slu_ctx {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	mode_t umask;
	bool may_wait;
	struct slu_need need; /* filled in when -EAGAIN is returned */
};

/* What stat(2) and statx(2) show. */
struct slu_attr {
	uint64_t ino;
	uint64_t size;   /* bytes */
	uint64_t blocks; /* of 4,096 bytes, owned or reserved */
	uint64_t parent; /* directories */
	uint32_t mode, uid, gid, nlink;
	uint32_t rdev;  /* as makedev(3) */
	uint32_t flags; /* SLU_INODE_* */
	uint32_t generation;
	uint32_t nxattr;
	struct timespec atime, mtime, ctime, btime;
};

/* An inode object's life in the inode table; see slu_inode_get. */
enum slu_inode_state {
	SLU_INODE_LOADING, /* the record is being read or made: others wait */
	SLU_INODE_LIVE,
	SLU_INODE_RECLAIM, /* no name, no user: what it owns is being freed; get says -ESTALE */
	SLU_INODE_DYING,   /* leaves memory: others wait, then read the record anew */
};

struct slu_inode {
	struct slu_aspace data;      /* pages, size, the rwlock */
	struct slu_volume_inode vol; /* extents, the meta lock */
	struct slu_ns *ns;
	uint64_t ino;  /* never changes, like the next */
	uint32_t type; /* S_IFMT bits of the mode: read these where no lock is held */
	/* under vol.iomap.lock */
	struct slu_attr attr; /* size and blocks: see slu_inode_attr */
	uint64_t last_txid;   /* the newest transaction that has a change of this inode */
	/*
	 * Blocks: where the data that extents lead to ends, if that is beyond the size on disk; else
	 * 0. I/O completes in any order, so what lies before it may still be on its way.
	 */
	uint64_t data_end;
	/* in the record that the volume is just putting: size on disk, data_end, orphan_truncate */
	uint64_t record_size, record_data_end;
	bool record_orphan;
	/* times changed in memory only; written by fsync, complete, or with the next commit */
	bool attr_dirty;
	/*
	 * Has an orphan record of kind TRUNCATE: while `freeing`, or for data_end, so that a crash
	 * leaves nothing beyond the size. An inode without a name has the other kind instead.
	 */
	bool orphan_truncate;
	/*
	 * Extents beyond the size are being freed: no new data until done. Still set when
	 * slu_inode_free_extents has failed: then it is to be called again, with success, before
	 * anything grows the file.
	 */
	bool freeing;
	bool tmpfile; /* has never had a name: may still be linked */
	/* the inode table's, under its lock; orphan changes with vol.iomap.lock held too */
	bool orphan; /* no name left: has an orphan record and stays in memory until freed */
	bool dirty_listed, idle_listed, reclaim_listed;
	enum slu_inode_state state;
	uint32_t refs;  /* requests, open handles, pins */
	uint32_t npins; /* of these: dirty pages, times to be written */
	uint32_t nopen; /* of these: open handles */
	/* where the kernel, which has forgotten it since, found it last; 0: not known */
	uint64_t found_in;
	/* lru: idle inodes, or those to be reclaimed */
	struct slu_inode *hash_next, *lru_next, *lru_prev, *dirty_next, *dirty_prev;
	_Atomic uint64_t
		shrink_txid; /* the last truncate to within a block; see before_overwrite */
	/* the fs layer's */
	_Atomic uint64_t readahead_pos; /* where the last sequential read ended */
	/* open handles that may write; under the fs's gate lock, as the next two */
	uint32_t nopen_write;
	uint32_t nwriting; /* writes between their segments */
	bool resizing;     /* a truncate or fallocate has the file to itself */
};

struct slu_ns_opts {
	struct slu_store *store;
	struct slu_volume *vol;
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_blockio *bio;
	bool readonly;
	bool relatime;   /* atime is moved at most once a day unless older than mtime */
	bool noatime;    /* atime is never moved by reading */
	bool nodiratime; /* nor by reading a directory */
	unsigned int max_idle_inodes; /* 0: 16,384 */
	struct slu_event_sink events;
	/*
	 * Called (under any lock; must not block) when slu_ns_reclaim has something to do. May be
	 * NULL.
	 */
	void (*reclaim_wanted)(void *ctx);
	void *reclaim_ctx;
};

int slu_ns_new(const struct slu_ns_opts *opts, struct slu_ns **ret);
/*
 * Every handle closed or forgotten, pages written out by the caller. Inodes without a name are
 * freed for good.
 */
void slu_ns_free(struct slu_ns *ns);
/*
 * Frees what has lost its last name and its last user, and what a crash left behind (orphan
 * records), in bounded steps: 1 = more to do, 0 = nothing left, or the first error since it said
 * anything but 1. What met an error is set aside, and the rest goes on, unless everything fails.
 * Called by a background thread; waits.
 */
int slu_ns_reclaim(struct slu_ns *ns);
/* What was set aside is tried again by the next slu_ns_reclaim. */
void slu_ns_reclaim_again(struct slu_ns *ns);
/*
 * Refuses changes with -EROFS from now on, or allows them again: remount. Does not wait for those
 * under way. Times changed before are still written by slu_ns_sync_attrs.
 */
void slu_ns_set_readonly(struct slu_ns *ns, bool readonly);

struct slu_ns_stats {
	_Atomic uint64_t lookups, misses, creates, links, unlinks, renames, setattrs, readdirs,
		loads, evictions, restarts, parks, reclaimed, attr_writes, bad_records;
};
const struct slu_ns_stats *slu_ns_stats(const struct slu_ns *ns);

/* The records of an empty root directory, for slu_store_format. */
int slu_ns_root_records(struct slu_batch *b, uid_t uid, gid_t gid, mode_t mode);

/* ------------------------------------------------------------------ inodes */

/*
 * A reference to the inode object; reads the record if need be. -ENOENT, -ESTALE (freed), -EIO,
 * -ENOMEM.
 */
int slu_inode_get(struct slu_ns *ns, uint64_t ino, struct slu_inode **ret);
void slu_inode_put(struct slu_inode *inode);
/*
 * Snapshot of the attributes as stat shows them: size from data, blocks with delalloc. Takes only
 * the meta lock.
 */
void slu_inode_attr(struct slu_inode *inode, struct slu_attr *ret);
/* Flags times as changed now; in memory, cheap. atime obeys noatime and relatime. */
#define SLU_TOUCH_ATIME 1u
#define SLU_TOUCH_MTIME 2u /* and ctime */
#define SLU_TOUCH_CTIME 4u
void slu_inode_touch(struct slu_inode *inode, unsigned int what);
/*
 * Writes the record if only memory has it; *ret_txid the transaction to commit for this inode to be
 * durable. For fdatasync too: a size that no write is left to record (all beyond the size on disk
 * has been punched out again) is only recorded here.
 */
int slu_inode_sync_attr(struct slu_inode *inode, uint64_t *ret_txid);
/*
 * The same for all inodes with attr_dirty. Called every commit interval and by sync.
 */
int slu_ns_sync_attrs(struct slu_ns *ns);
/* After a write that passed over bytes: keeps the inode until the size has come to disk. */
void slu_inode_awaits(struct slu_inode *inode);

/*
 * The kernel has been told of ino n times more, as an entry of parent (0: not as one) / forgets it n
 * times. When nobody knows an orphan any more it is freed.
 */
void slu_ns_lookup_count(struct slu_ns *ns, uint64_t ino, uint64_t parent, uint64_t n);
void slu_ns_forget(struct slu_ns *ns, uint64_t ino, uint64_t n);

/* An open handle pins the inode (nopen). */
void slu_inode_opened(struct slu_inode *inode);
void slu_inode_closed(struct slu_inode *inode); /* may free an orphan's space in the background */

/* ------------------------------------------------------------------ names */

/*
 * Names: 1 to 255 bytes, any but NUL and slash; longer -ENAMETOOLONG. "." and ".." are answered by
 * lookup (NFS). All fill *ret and count one kernel lookup when they succeed (lookup, mknod,
 * symlink, link, tmpfile).
 */
int slu_ns_lookup(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		  struct slu_attr *ret);
/*
 * Regular files, directories, FIFOs, sockets, devices by the S_IFMT bits of mode. Applies umask or
 * the parent's default ACL, setgid inheritance. -EEXIST, -ENOENT (parent gone), -ENOTDIR, -ENOSPC,
 * -EMLINK, -EROFS, -EPERM (immutable parent).
 */
int slu_ns_mknod(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		 mode_t mode, dev_t rdev, struct slu_attr *ret);
int slu_ns_symlink(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		   const char *target, struct slu_attr *ret);
/* An unnamed regular file (O_TMPFILE): an orphan until linked. */
int slu_ns_tmpfile(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, mode_t mode,
		   struct slu_attr *ret);
int slu_ns_link(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, uint64_t parent,
		const char *name, struct slu_attr *ret);
int slu_ns_unlink(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name);
int slu_ns_rmdir(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name);
/*
 * flags: RENAME_NOREPLACE, RENAME_EXCHANGE; others -EINVAL. Replacing: what has been received for
 * the new file is written out first (it waits: parked), and the rename fails if that fails.
 */
int slu_ns_rename(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		  uint64_t newparent, const char *newname, unsigned int flags);
/*
 * A path of ino from the root of the volume, "/a/b", terminated, for messages: the one by which it
 * was found last, as far as it still has that. With may_wait false only what is in memory is looked
 * at (-EAGAIN: that is not enough). -ENOENT: not known, or no name left; -ENAMETOOLONG; -EIO.
 */
int slu_ns_path(struct slu_ns *ns, uint64_t ino, bool may_wait, char *buf, size_t size);
/* Returns the length; buf gets at most size bytes, not terminated. */
int slu_ns_readlink(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, char *buf, size_t size);

/*
 * Entries after cookie (0: from the start), "." (cookie 1) and ".." (cookie 2) first. fn is called
 * with no lock held; it returns 0 to go on, 1 when its buffer is full (that entry was not taken),
 * negative to end with that error. With plus, attr is filled in and the caller counts lookups for
 * those it takes (not for "." and ".."); nlink 0 in it: the attributes cannot be read, ino and type
 * are all there is. Without, attr has ino and mode's type only.
 */
typedef int slu_readdir_fn(void *ctx, const char *name, size_t len, uint64_t cookie,
			   const struct slu_attr *attr);
int slu_ns_readdir(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, uint64_t cookie, bool plus,
		   slu_readdir_fn *fn, void *fn_ctx);

/* ------------------------------------------------------------------ attributes */

/* Everything but the size. */
#define SLU_SET_MODE      1u
#define SLU_SET_UID       2u
#define SLU_SET_GID       4u
#define SLU_SET_ATIME     8u
#define SLU_SET_MTIME     16u
#define SLU_SET_CTIME     32u
#define SLU_SET_ATIME_NOW 64u
#define SLU_SET_MTIME_NOW 128u
#define SLU_SET_KILL_PRIV \
	256u /* clear setuid, and setgid where group-executable; drop security.capability */
#define SLU_SET_FLAGS 512u
/* The mtime given is the time of the call, as with SLU_SET_MTIME_NOW, by the kernel's clock. */
#define SLU_SET_MTIME_IS_NOW 1024u
/* mtime and ctime are those of changes made already: no flag of the inode forbids them any more. */
#define SLU_SET_TIMES_PASSED 2048u
int slu_ns_setattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino,
		   const struct slu_attr *attr, unsigned int set, struct slu_attr *ret);

/*
 * user., trusted., security., system.posix_acl_access and _default. flags: XATTR_CREATE,
 * XATTR_REPLACE. Values to 64 KiB. Setting an access ACL changes the mode as chmod does (kill_sgid:
 * the kernel says the caller may not keep setgid). get and list: with size 0 the length needed;
 * -ERANGE, -ENODATA, -E2BIG, -EOPNOTSUPP (other prefixes), -EPERM (immutable).
 */
int slu_ns_setxattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, const char *name,
		    const void *value, size_t size, int flags, bool kill_sgid);
ssize_t slu_ns_getxattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, const char *name,
			void *value, size_t size);
ssize_t slu_ns_listxattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, char *list,
			 size_t size);
int slu_ns_removexattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, const char *name);

/* ------------------------------------------------------------------ size, for the fs layer */

/*
 * One batch that sets the size on disk and in memory to `size` (pages have been dealt with), the
 * times, and, when extents beyond are to be freed later, the orphan record of a truncate.
 * inode->data.lock held exclusive; -EAGAIN through need.
 */
int slu_inode_set_size(struct slu_inode *inode, struct slu_ticket *t, uint64_t size,
		       bool orphan_truncate, struct slu_need *need);
/*
 * Frees what lies beyond the size in bounded steps and deletes the orphan record; waits;
 * inode->freeing is set meanwhile.
 */
int slu_inode_free_extents(struct slu_inode *inode);

#endif
