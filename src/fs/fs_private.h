/* SPDX-License-Identifier: MIT */
/* What the files of the fs layer share. */
#ifndef SLUICE_FS_PRIVATE_H
#define SLUICE_FS_PRIVATE_H

#include "sluice/fs.h"

struct slu_fs_private {
	struct slu_fs_opts opts;
	_Atomic bool readonly;          /* also fs->readonly; changes at a remount */
	_Atomic uint64_t full_noted_ns; /* when the event said last that the volume is full */

	/* stack.c: slu_fs_stop has been called, and this is what it said */
	bool stopped;
	int stop_error;

	/* gate.c */
	struct slu_mutex gate_lock; /* leaf: nopen_write, nwriting, resizing of every inode */
	struct slu_cond gate_free;

	/* housekeep.c */
	struct slu_thread housekeeper;
	struct slu_mutex house_lock; /* leaf: the four below */
	struct slu_cond house_wake;
	bool house_stop;
	bool reclaim_wanted;
	bool reclaim_room; /* somebody has no space: what has failed is tried again at once */
	/* how often reclaim has come to its end; makes waiting for room end */
	uint64_t reclaim_passes;
	struct slu_cond house_done;

	/* freeze.c */
	struct slu_mutex freeze_lock; /* leaf: the rest */
	struct slu_cond freeze_changed;
	enum freeze_state {
		FREEZE_NONE,
		FREEZE_BEGINS, /* everything is being written */
		FREEZE_CLOSES, /* nothing that has to reach the disk may begin; the image is next */
		FREEZE_FROZEN, /* until freeze_deadline_ns */
		FREEZE_THAWING, /* the image is changed again */
	} freeze_state;
	uint64_t freeze_begin_ns, freeze_deadline_ns;
	unsigned int freeze_holds; /* freeze_hold_off */
	bool freeze_expired;       /* the last one, and nobody has been told */
	bool freeze_ended;         /* no more of them */
	/* waits for the deadline; joined by who thaws before it, else by the next freeze or the end */
	struct slu_thread freeze_timer;
	void (*freeze_hook)(void *ctx, bool frozen);
	void *freeze_hook_ctx;

	/* scrub.c */
	struct slu_mutex scrub_lock; /* leaf: the rest */
	struct slu_cond scrub_changed;
	struct slu_scrub_state scrub;
	bool scrub_cancel;
	bool scrub_ended;                    /* no more of them */
	uint64_t scrub_due_ns;               /* when what has been read was to have been */
	uint64_t scrub_nodes, scrub_damaged; /* of all that have ended */
	struct slu_thread scrub_thread;
};

/*
 * gate.c: one file, many writers or one who changes its layout. No lock held; may wait as ctx says.
 */
int gate_enter_write(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode);
void gate_leave_write(struct slu_fs *fs, struct slu_inode *inode);
int gate_enter_resize(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode);
void gate_leave_resize(struct slu_fs *fs, struct slu_inode *inode);
void gate_open_write(struct slu_fs *fs, struct slu_inode *inode);
/* Whether it was the last. */
bool gate_close_write(struct slu_fs *fs, struct slu_inode *inode);
bool gate_open_for_write(struct slu_fs *fs, struct slu_inode *inode);

/* housekeep.c */
int housekeep_start(struct slu_fs *fs);
void housekeep_stop(struct slu_fs *fs);
void housekeep_reclaim_wanted(void *fs);
/*
 * After -ENOSPC: waits until space that is on its way back (deleted files, pending blocks) has come
 * back. 0: try once more. -EAGAIN: ctx may not wait.
 */
int housekeep_make_room(struct slu_fs *fs, struct slu_ctx *ctx);

/* freeze.c */
void freeze_init(struct slu_fs *fs);
void freeze_fini(struct slu_fs *fs);
/* Until freeze_release nothing is frozen; false: it is. For what must not wait for a thaw. */
bool freeze_hold_off(struct slu_fs *fs);
void freeze_release(struct slu_fs *fs);

/* scrub.c */
void scrub_init(struct slu_fs *fs);
/* Cancels one that is under way, and waits for it; none begins any more. */
void scrub_end(struct slu_fs *fs);
void scrub_fini(struct slu_fs *fs);

/* sync.c */
int fs_sync_inode(struct slu_fs *fs, struct slu_inode *inode, bool datasync);

/* resize.c: with the gate held for resize. */
int resize_to(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t size);
/* At least that size: nothing if a write has made it longer since. Enters the gate. */
int resize_grow(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, uint64_t size);

/*
 * What to do with a need: waits if it is short or if the context may wait. 0: start over. -EAGAIN
 * (ctx->need is filled in) or the wait's error: give up.
 */
int fs_wait(struct slu_ctx *ctx, struct slu_need *need);
/* For work that always waits: -EAGAIN unless the context may. */
int fs_may_wait(struct slu_ctx *ctx, const char *what);

static inline bool fs_readonly(struct slu_fs *fs)
{
	return atomic_load_explicit(&fs->p->readonly, memory_order_relaxed);
}

#endif
