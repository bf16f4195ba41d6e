/* SPDX-License-Identifier: MIT */
/*
 * Who may use a file's layout: any number of writers, or one truncate or fallocate.
 *
 * A truncate frees extents in several steps with every lock dropped between them, and waits for
 * pages; no write may map what is about to go. The kernel keeps the two apart for its own
 * requests, but this layer does not rely on its callers. A gate is not a lock in the sense of the
 * lock order: it is entered with no lock held and may be held across waits, like the kernel's
 * i_rwsem, and whoever would have to wait for it is parked.
 */
#include "fs_private.h"

static int wait_gate(struct slu_need *need)
{
	struct slu_fs *fs = need->owner;
	struct slu_inode *inode = (struct slu_inode *)(uintptr_t)need->arg[0];
	bool for_resize = need->arg[1];

	slu_mutex_lock(&fs->p->gate_lock);
	while (inode->resizing || (for_resize && inode->nwriting))
		slu_cond_wait(&fs->p->gate_free, &fs->p->gate_lock);
	slu_mutex_unlock(&fs->p->gate_lock);
	return 0;
}

/* A request that may not wait is only told to come back; it finds the inode itself then. */
static int come_back(struct slu_need *need)
{
	return 0;
}

int fs_may_wait(struct slu_ctx *ctx, const char *what)
{
	if (ctx->may_wait)
		return 0;
	ctx->need = (struct slu_need){.wait = come_back, .what = what, .slow = true};
	return -EAGAIN;
}

int fs_wait(struct slu_ctx *ctx, struct slu_need *need)
{
	if (need->slow && !ctx->may_wait) {
		ctx->need = *need;
		return -EAGAIN;
	}
	return slu_need_wait(need);
}

static int enter(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode, bool resize)
{
	for (;;) {
		slu_mutex_lock(&fs->p->gate_lock);
		bool busy = inode->resizing || (resize && inode->nwriting);
		if (!busy && resize)
			inode->resizing = true;
		else if (!busy)
			inode->nwriting++;
		slu_mutex_unlock(&fs->p->gate_lock);
		if (!busy)
			return 0;
		int err = fs_may_wait(ctx, "file being resized");
		if (err)
			return err;
		struct slu_need need = {.wait = wait_gate,
					.what = "file being resized",
					.owner = fs,
					.arg = {(uintptr_t)inode, resize},
					.slow = true};
		err = slu_need_wait(&need);
		if (err)
			return err;
	}
}

/* A truncate has set the size and could not free what lies beyond. */
static bool truncate_unfinished(struct slu_inode *inode)
{
	slu_mutex_lock(&inode->vol.iomap.lock);
	bool unfinished = inode->freeing;
	slu_mutex_unlock(&inode->vol.iomap.lock);
	return unfinished;
}

int gate_enter_resize(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode)
{
	int err = enter(fs, ctx, inode, true);

	if (err || !truncate_unfinished(inode))
		return err;
	/* Before the file may grow again its old blocks have to go. */
	err = fs_may_wait(ctx, "rest of a truncate");
	if (!err)
		err = slu_inode_free_extents(inode);
	if (err)
		gate_leave_resize(fs, inode);
	return err;
}

int gate_enter_write(struct slu_fs *fs, struct slu_ctx *ctx, struct slu_inode *inode)
{
	for (;;) {
		int err = enter(fs, ctx, inode, false);

		if (err || !truncate_unfinished(inode))
			return err;
		gate_leave_write(fs, inode);
		err = gate_enter_resize(fs, ctx, inode);
		if (err)
			return err;
		gate_leave_resize(fs, inode);
	}
}

void gate_leave_write(struct slu_fs *fs, struct slu_inode *inode)
{
	slu_mutex_lock(&fs->p->gate_lock);
	slu_assert(inode->nwriting > 0);
	if (--inode->nwriting == 0)
		slu_cond_broadcast(&fs->p->gate_free);
	slu_mutex_unlock(&fs->p->gate_lock);
}

void gate_leave_resize(struct slu_fs *fs, struct slu_inode *inode)
{
	slu_mutex_lock(&fs->p->gate_lock);
	slu_assert(inode->resizing);
	inode->resizing = false;
	slu_cond_broadcast(&fs->p->gate_free);
	slu_mutex_unlock(&fs->p->gate_lock);
}

void gate_open_write(struct slu_fs *fs, struct slu_inode *inode)
{
	slu_mutex_lock(&fs->p->gate_lock);
	inode->nopen_write++;
	slu_mutex_unlock(&fs->p->gate_lock);
}

bool gate_close_write(struct slu_fs *fs, struct slu_inode *inode)
{
	slu_mutex_lock(&fs->p->gate_lock);
	slu_assert(inode->nopen_write > 0);
	bool last = --inode->nopen_write == 0;
	slu_mutex_unlock(&fs->p->gate_lock);
	return last;
}

bool gate_open_for_write(struct slu_fs *fs, struct slu_inode *inode)
{
	slu_mutex_lock(&fs->p->gate_lock);
	bool open = inode->nopen_write > 0;
	slu_mutex_unlock(&fs->p->gate_lock);
	return open;
}
