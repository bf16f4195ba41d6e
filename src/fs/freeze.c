/* SPDX-License-Identifier: MIT */
/*
 * Freezing: a moment at which the image can be copied, and that lasts.
 *
 * Owns the state of the freeze and the thread that ends it when its time is over. Called by control,
 * and at the end of the mount. Takes freeze_lock, a leaf, never across a wait for the disk.
 *
 * What is frozen is the image, in blockio, and not who changes the volume: changes go on in memory,
 * up to the limits that memory has in any case, and wait there as they wait for a slow disk. So
 * nothing can get past, whichever thread it is that writes; a freeze that nobody works against is
 * not noticed; and what a copy shows is what a power cut at that moment would have left, which is
 * what everything above is built for. See docs/design.md, Freezing.
 *
 *	NONE     -> BEGINS	slu_fs_freeze
 *	BEGINS   -> CLOSES	freeze_close, when all is on disk; or -> NONE, when it cannot be
 *	CLOSES   -> FROZEN	slu_fs_freeze, the image being suspended; or -> NONE
 *	FROZEN   -> THAWING	freeze_thaw
 *	THAWING  -> NONE	slu_fs_thaw, slu_fs_end_freezes, the timer
 */
#include "fs_private.h"

#define SPARE_BLOCKS 4096u /* 16 MiB of the host's, for what is changed while it is frozen */

static void set_state(struct slu_fs_private *p, enum freeze_state state)
{
	p->freeze_state = state;
	slu_cond_broadcast(&p->freeze_changed);
}

static void move_to(struct slu_fs *fs, enum freeze_state state)
{
	slu_mutex_lock(&fs->p->freeze_lock);
	set_state(fs->p, state);
	slu_mutex_unlock(&fs->p->freeze_lock);
}

static void call_hook(struct slu_fs *fs, bool frozen)
{
	if (fs->p->freeze_hook)
		fs->p->freeze_hook(fs->p->freeze_hook_ctx, frozen);
}

/* ------------------------------------------------------------------ thawing */

/*
 * From FROZEN to THAWING, with the lock held, which is dropped: the image is changed again. why: 0 or
 * -ETIMEDOUT. How long it was frozen.
 */
static uint64_t freeze_thaw(struct slu_fs *fs, int why) SLU_RELEASE(fs->p->freeze_lock)
{
	struct slu_fs_private *p = fs->p;
	struct slu_event ev = {.kind = SLU_EVENT_THAWED, .error = why};

	p->freeze_expired = why == -ETIMEDOUT;
	ev.len = slu_clock_ns() - p->freeze_begin_ns;
	set_state(p, FREEZE_THAWING);
	slu_mutex_unlock(&fs->p->freeze_lock);
	slu_blockio_resume(fs->bio);
	call_hook(fs, false);
	slu_event_post(&p->opts.events, &ev);
	return ev.len;
}

static void timer_main(void *arg)
{
	struct slu_fs *fs = arg;
	struct slu_fs_private *p = fs->p;

	slu_mutex_lock(&fs->p->freeze_lock);
	while (p->freeze_state == FREEZE_CLOSES)
		slu_cond_wait(&p->freeze_changed, &fs->p->freeze_lock);
	while (p->freeze_state == FREEZE_FROZEN && slu_clock_ns() < p->freeze_deadline_ns)
		(void)slu_cond_timedwait(&p->freeze_changed, &fs->p->freeze_lock,
					 p->freeze_deadline_ns);
	if (p->freeze_state != FREEZE_FROZEN) {
		slu_mutex_unlock(&fs->p->freeze_lock);
		return;
	}
	freeze_thaw(fs, -ETIMEDOUT);
	move_to(fs, FREEZE_NONE);
}

/* The lock is held, and dropped. The timer sees that it is not wanted any more. */
static uint64_t thaw_now(struct slu_fs *fs) SLU_RELEASE(fs->p->freeze_lock)
{
	uint64_t ns = freeze_thaw(fs, 0);

	slu_thread_join(&fs->p->freeze_timer);
	move_to(fs, FREEZE_NONE);
	return ns;
}

int slu_fs_thaw(struct slu_fs *fs, uint64_t *ret_ns)
{
	struct slu_fs_private *p = fs->p;
	int err;

	slu_assert_no_locks("thawing");
	slu_mutex_lock(&fs->p->freeze_lock);
	while (p->freeze_state == FREEZE_THAWING)
		slu_cond_wait(&p->freeze_changed, &fs->p->freeze_lock);
	if (p->freeze_state == FREEZE_FROZEN) {
		*ret_ns = thaw_now(fs);
		return 0;
	}
	err = p->freeze_expired ? -ETIMEDOUT : -EINVAL;
	p->freeze_expired = false;
	slu_mutex_unlock(&fs->p->freeze_lock);
	return err;
}

void slu_fs_end_freezes(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;

	slu_mutex_lock(&fs->p->freeze_lock);
	p->freeze_ended = true;
	while (p->freeze_state != FREEZE_NONE && p->freeze_state != FREEZE_FROZEN)
		slu_cond_wait(&p->freeze_changed, &fs->p->freeze_lock);
	if (p->freeze_state == FREEZE_FROZEN)
		thaw_now(fs);
	else
		slu_mutex_unlock(&fs->p->freeze_lock);
}

/* ------------------------------------------------------------------ freezing */

static int freeze_begin(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;
	int err = 0;

	slu_mutex_lock(&p->freeze_lock);
	while (p->freeze_state == FREEZE_THAWING)
		slu_cond_wait(&p->freeze_changed, &p->freeze_lock);
	if (p->freeze_ended)
		err = -ESHUTDOWN;
	else if (p->freeze_state != FREEZE_NONE)
		err = -EBUSY;
	else
		set_state(p, FREEZE_BEGINS);
	slu_mutex_unlock(&p->freeze_lock);
	if (!err)
		slu_thread_join(&p->freeze_timer); /* of one that has expired */
	return err;
}

/*
 * What the host sets aside it sets aside in the image, and not while that is frozen. So that changes
 * can go on, some is set aside before; where there is none, who needs it waits.
 */
static void freeze_prepare(struct slu_fs *fs)
{
	struct slu_reservation r = {0};

	if (fs_readonly(fs) || slu_space_reserve(fs->store, &r, SPARE_BLOCKS, 0, NULL))
		return;
	slu_space_unreserve(fs->store, &r, SPARE_BLOCKS, 0);
}

/* Waits for those who must not meet a frozen image half-way. */
static void freeze_close(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;

	slu_mutex_lock(&p->freeze_lock);
	set_state(p, FREEZE_CLOSES);
	while (p->freeze_holds)
		slu_cond_wait(&p->freeze_changed, &p->freeze_lock);
	slu_mutex_unlock(&p->freeze_lock);
}

/* The image is suspended: what was still on its way to it when all had been written is flushed. */
static int freeze_hold(struct slu_fs *fs, uint64_t timeout_ns)
{
	struct slu_fs_private *p = fs->p;
	int err = p->opts.readonly ? 0 : slu_blockio_flush(fs->bio);

	if (!err)
		err = slu_thread_start(&p->freeze_timer, "slu-freeze", timer_main, fs);
	if (err)
		return err;
	slu_mutex_lock(&p->freeze_lock);
	p->freeze_expired = false;
	p->freeze_begin_ns = slu_clock_ns();
	p->freeze_deadline_ns = p->freeze_begin_ns + timeout_ns;
	set_state(p, FREEZE_FROZEN);
	slu_mutex_unlock(&p->freeze_lock);
	slu_event_post(&p->opts.events,
		       &(struct slu_event){.kind = SLU_EVENT_FROZEN, .len = timeout_ns});
	return 0;
}

int slu_fs_freeze(struct slu_fs *fs, int (*flush)(void *ctx), void *ctx, uint64_t timeout_ns)
{
	int err;

	slu_assert_no_locks("freezing");
	err = freeze_begin(fs);
	if (err)
		return err;
	err = slu_fs_syncfs(fs, flush, ctx);
	if (!err) {
		freeze_prepare(fs);
		freeze_close(fs);
		call_hook(fs, true);
		slu_blockio_suspend(fs->bio);
		err = freeze_hold(fs, timeout_ns);
		if (!err)
			return 0;
		slu_blockio_resume(fs->bio);
		call_hook(fs, false);
	}
	move_to(fs, FREEZE_NONE);
	return err;
}

bool slu_fs_frozen(struct slu_fs *fs, uint64_t *ret_left_ns)
{
	struct slu_fs_private *p = fs->p;
	uint64_t now = slu_clock_ns();
	bool frozen;

	slu_mutex_lock(&p->freeze_lock);
	frozen = p->freeze_state == FREEZE_FROZEN;
	if (frozen)
		*ret_left_ns = p->freeze_deadline_ns - slu_min(now, p->freeze_deadline_ns);
	slu_mutex_unlock(&p->freeze_lock);
	return frozen;
}

/* ------------------------------------------------------------------ what others need to know */

bool freeze_hold_off(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;
	bool open;

	slu_mutex_lock(&p->freeze_lock);
	open = p->freeze_state == FREEZE_NONE || p->freeze_state == FREEZE_BEGINS;
	if (open)
		p->freeze_holds++;
	slu_mutex_unlock(&p->freeze_lock);
	return open;
}

void freeze_release(struct slu_fs *fs)
{
	slu_mutex_lock(&fs->p->freeze_lock);
	fs->p->freeze_holds--;
	slu_cond_broadcast(&fs->p->freeze_changed);
	slu_mutex_unlock(&fs->p->freeze_lock);
}

int slu_fs_probe(struct slu_fs *fs)
{
	int err;

	/* One that waited for the disk in a freeze would take the volume for dead. */
	if (!freeze_hold_off(fs))
		return 0;
	err = slu_store_commit(fs->store, slu_store_txid(fs->store), true);
	freeze_release(fs);
	return err;
}

void slu_fs_set_freeze_hook(struct slu_fs *fs, void (*hook)(void *ctx, bool frozen), void *ctx)
{
	slu_mutex_lock(&fs->p->freeze_lock);
	fs->p->freeze_hook_ctx = ctx;
	fs->p->freeze_hook = hook;
	slu_mutex_unlock(&fs->p->freeze_lock);
}

/* ------------------------------------------------------------------ */

void freeze_init(struct slu_fs *fs)
{
	slu_mutex_init(&fs->p->freeze_lock, SLU_RANK_LEAF, 0, "fs freeze");
	slu_cond_init(&fs->p->freeze_changed);
}

void freeze_fini(struct slu_fs *fs)
{
	slu_thread_join(&fs->p->freeze_timer);
	slu_cond_fini(&fs->p->freeze_changed);
	slu_mutex_fini(&fs->p->freeze_lock);
}
