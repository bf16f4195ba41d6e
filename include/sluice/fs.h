/* SPDX-License-Identifier: MIT */
/*
 * fs: a mounted volume without FUSE. Builds the whole stack in one function, and has what concerns
 * open files: read, write, truncate, fallocate, seek, fsync, copy. The daemon, the tests and the
 * simulator all use it.
 */
#ifndef SLUICE_FS_H
#define SLUICE_FS_H

#include "sluice/namespace.h"
#include "sluice/write.h"

struct slu_fs {
	struct slu_blockio *bio;
	struct slu_store *store;
	struct slu_volume vol;
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_ns *ns;
	bool readonly;
	bool sync; /* -o sync: every write is durable when it returns */
	struct slu_fs_private *p;
};

struct slu_fs_opts {
	bool readonly;
	bool sync;
	bool relatime;   /* atime moves where somebody could tell, or once a day */
	bool noatime;    /* reading never moves it */
	bool nodiratime; /* reading a directory never moves it */
	/* bytes for pages and nodes together, at least 2 MiB; 0: chosen from the memory there is */
	size_t cache_size;
	uint64_t commit_interval_ns;
	unsigned int max_idle_inodes; /* kept in memory though nobody uses them; 0: 16,384 */
	struct slu_event_sink events;
};

/*
 * The stack, bottom to top, on an open blockio (which becomes the fs's on success). *why as in
 * slu_store_open.
 */
int slu_fs_mount(struct slu_blockio *bio, const struct slu_fs_opts *opts, struct slu_fs **ret,
		 const char **why);
/*
 * Writes everything out and commits, for the last time: nobody changes anything any more. Data that
 * cannot be written is given up, and events say so. From here on only slu_ns_path and slu_fs_unmount
 * may be called. Returns the first error.
 */
int slu_fs_stop(struct slu_fs *fs);
/*
 * Stops it if that has not been done, takes the stack down, closes the blockio. Returns the first
 * error, of stopping too; everything is freed all the same.
 */
int slu_fs_unmount(struct slu_fs *fs);

/* Formats: an empty root directory owned by uid:gid. */
int slu_fs_format(struct slu_blockio *bio, uint64_t nblocks, const char *label, uid_t uid,
		  gid_t gid);

/* statfs(2), from memory. */
struct slu_statfs {
	uint64_t blocks, bfree, bavail; /* of 4,096 bytes */
	uint64_t files, ffree;
	uint64_t fsid;
};
void slu_fs_statfs(struct slu_fs *fs, struct slu_statfs *ret);

/* ------------------------------------------------------------------ open files */

/* flags: open(2)'s. O_TRUNC truncates. *ret_fh: a handle of the table in the arena. */
int slu_fs_open(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, int flags, uint64_t *ret_fh);
/* -EBADF: fh is not an open handle of ino; nothing has changed. */
int slu_fs_release(struct slu_fs *fs, uint64_t ino, uint64_t fh);

/*
 * Results as in write.h. fh may be UINT64_MAX (none). keep_atime: O_NOATIME. kill_priv: clear setuid
 * and setgid, drop security.capability. On a mount with -o sync what was written is durable on return,
 * unless it is -EAGAIN or ret->unsynced: then the error says why (-EAGAIN: it would have to be waited
 * for), and an fsync makes up for it.
 */
int slu_fs_read(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t fh, uint64_t pos,
		uint64_t len, bool keep_atime, struct slu_read_vec *ret);
int slu_fs_write(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t fh,
		 struct slu_source *src, uint64_t pos, uint64_t len, unsigned int flags,
		 bool kill_priv, struct slu_write_result *ret);
/*
 * The error of an earlier write comes first; then data and metadata are made durable. Waits:
 * parked.
 */
int slu_fs_fsync(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t fh, bool datasync);
/* Everything that has been received: data, times, a commit. Nothing is on its way. */
int slu_fs_sync(struct slu_fs *fs);
/*
 * The same while applications go on writing. flush has the kernel's write-back cache send what it
 * holds and waits for that, as syncfs(2) does; its error ends the sync. Called once or twice, with
 * no lock held.
 */
int slu_fs_syncfs(struct slu_fs *fs, int (*flush)(void *ctx), void *ctx);
/* For the kernel's own request, which comes after its flush. May sleep for 50 ms. */
int slu_fs_syncfs_flushed(struct slu_fs *fs);
int slu_fs_truncate(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t size,
		    bool kill_priv, struct slu_attr *ret);
/* mode: FALLOC_FL_*: 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE, ZERO_RANGE|KEEP_SIZE. */
int slu_fs_fallocate(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, int mode, uint64_t pos,
		     uint64_t len);
/* whence: SEEK_DATA or SEEK_HOLE. */
int slu_fs_seek(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino, uint64_t pos, int whence,
		uint64_t *ret);
/*
 * The next extents of a file, as slu_volume_extents has them, and its size: for tools. Speaks of what
 * has been received, dirty pages included. -ENOENT, -ESTALE, -EINVAL (no file), -EIO, -ENOMEM.
 */
int slu_fs_extents(struct slu_fs *fs, uint64_t ino, uint64_t *pos, struct slu_iomap *maps,
		   unsigned int max, uint64_t *ret_size);
/*
 * Whether a handle that may write is open (a mapping keeps its file open): then a kernel with a
 * write-back cache may have data that nobody here has seen.
 */
bool slu_fs_open_for_write(struct slu_fs *fs, uint64_t ino);
/* Leaves setuid, setgid and security.capability to the caller, who knows for whom it is. */
int slu_fs_copy_range(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino_in, uint64_t pos_in,
		      uint64_t ino_out, uint64_t pos_out, uint64_t len, uint64_t *ret_done);

/*
 * Makes the volume longer while it is in use, to nblocks, or with 0 to all that the image has. A
 * file is made longer first; a device must be long enough. Beside it neither a second one nor
 * slu_fs_set_readonly. No lock held; waits. A crash leaves the old size or the new one.
 *
 * -EBUSY: the volume is frozen; -EROFS; -EINVAL: shorter than the volume, or longer by so little that nothing would fit; -EFBIG:
 * more than a volume, or a file of the host, can be; -ERANGE: the device, or the part of the image
 * that may be used, ends before (ret->image); -EEXIST: what lies behind the volume, at
 * ret->occupied, is not known to be free (image_size says that it is); -ENOSPC: the host has no
 * room; -EIO, -ENOMEM. Nothing of the volume has changed then (a file may have become longer, with
 * zeros), unless ret->to is not ret->from: it has its new size, and could not be committed, which is
 * tried again as every commit is.
 */
struct slu_fs_growth {
	uint64_t from, to; /* blocks of the volume, before and after */
	uint64_t image;    /* blocks of the image before, as far as it may be used */
	uint64_t occupied; /* block */
};
int slu_fs_grow(struct slu_fs *fs, uint64_t nblocks, struct slu_fs_growth *ret);

/* The running daemon drains (true) or allows (false) writing: remount. -EBUSY: the volume is frozen. */
int slu_fs_set_readonly(struct slu_fs *fs, bool readonly);

/* ------------------------------------------------------------------ freezing, for a copy of the image */

/*
 * Everything that was written before is made durable, as by slu_fs_syncfs; then nothing changes the image until
 * slu_fs_thaw, or until timeout_ns have passed: then it thaws by itself. Meanwhile reads go on, and
 * changes as far as there is memory for them; who needs the disk (fsync, a write over the limit of
 * dirty pages) waits. No lock held; waits. -EBUSY: it is frozen, or about to be; -ESHUTDOWN: it is
 * being unmounted; -EAGAIN (no thread); or what kept something from being written, and nothing is
 * frozen.
 */
int slu_fs_freeze(struct slu_fs *fs, int (*flush)(void *ctx), void *ctx, uint64_t timeout_ns);
/*
 * *ret_ns: how long it was. -EINVAL: it is not frozen; -ETIMEDOUT: no more, for its time limit has
 * passed (said once).
 */
int slu_fs_thaw(struct slu_fs *fs, uint64_t *ret_ns);
/* Whether it is; *ret_left_ns: until it thaws by itself. */
bool slu_fs_frozen(struct slu_fs *fs, uint64_t *ret_left_ns);
/* For the end: thaws, and no freeze begins any more. */
void slu_fs_end_freezes(struct slu_fs *fs);
/*
 * Told (true) before the image is frozen and (false) after it has thawed, from the threads that do
 * so, with no lock held. One at a time; NULL: none. Not while a freeze begins or ends.
 */
void slu_fs_set_freeze_hook(struct slu_fs *fs, void (*hook)(void *ctx, bool frozen), void *ctx);
/*
 * Proof that the volume works: commits what is open and flushes. While it is frozen nothing can be
 * proved, and 0 is returned; a freeze waits for probes under way.
 */
int slu_fs_probe(struct slu_fs *fs);

/* ------------------------------------------------------------------ scrubbing */

#define SLU_SCRUB_RATE   (8u << 20) /* bytes a second: the default */
#define SLU_SCRUB_DAMAGE 32u        /* so many are remembered */

struct slu_scrub_damage {
	uint64_t blkno;
	const char *wrong; /* static */
};

/* Of the scrub that is under way, or the last one since the mount. */
struct slu_scrub_state {
	bool running;
	uint64_t number; /* 1, 2, …; 0: there was none */
	uint64_t rate;   /* bytes a second; 0: without a limit */
	struct timespec begin, end;
	uint64_t nodes, total; /* read, and in the tree about now */
	uint64_t damaged;      /* nodes and superblocks; the first of them: */
	struct slu_scrub_damage damage[SLU_SCRUB_DAMAGE];
	int result; /* at its end: 0, -ECANCELED, -ENOMEM */
};

/*
 * Begins to read every node of the volume past the caches, in a thread of its own (slu_store_scrub);
 * what is damaged is an event. rate: bytes a second, 0: without a limit. No lock held. -EBUSY: one is
 * under way; -ESHUTDOWN: the volume is being unmounted; -EAGAIN, -ENOMEM.
 */
int slu_fs_scrub_start(struct slu_fs *fs, uint64_t rate, uint64_t *ret_number);
/* number: only that one; 0: whichever. Does not wait for its end. -EINVAL: it is not under way. */
int slu_fs_scrub_cancel(struct slu_fs *fs, uint64_t number);
void slu_fs_scrub_state(struct slu_fs *fs, struct slu_scrub_state *ret);
/* Since the mount, all together. */
void slu_fs_scrub_counts(struct slu_fs *fs, uint64_t *ret_nodes, uint64_t *ret_damaged);

#endif
