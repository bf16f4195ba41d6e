/* SPDX-License-Identifier: MIT */
/*
 * The housekeeper: one thread per mount that does what nobody waits for. It writes time stamps that
 * only memory has into the store once per commit interval, and frees the space of files that have
 * lost their last name and their last user. A request that found no space asks it whether space is
 * on its way back.
 */
#include "fs_private.h"

/*
 * What could not be freed is tried again after a commit interval, and then after twice as long each
 * time, up to this: the disk may heal, and the host find room. What is damaged says so each time.
 */
#define RECLAIM_AGAIN_MOST_NS (600 * SLU_NS_PER_SEC)

/* Nothing that the kernel has sent is on its way for so long. */
#define AWAIT_NS (10 * SLU_NS_PER_SEC)

/* Frees everything that can be freed now; 0, or the error that keeps the rest. */
static int reclaim_all(struct slu_fs *fs)
{
	int more;

	do {
		more = slu_ns_reclaim(fs->ns);
	} while (more > 0);
	return more;
}

static void housekeeper(void *arg)
{
	struct slu_fs *fs = arg;
	struct slu_fs_private *p = fs->p;
	uint64_t interval =
		p->opts.commit_interval_ns ? p->opts.commit_interval_ns : 5 * SLU_NS_PER_SEC;
	uint64_t next_attrs = slu_clock_ns() + interval;
	uint64_t again = SLU_NO_DEADLINE, again_after = interval;

	slu_mutex_lock(&p->house_lock);
	while (!p->house_stop) {
		if (!p->reclaim_wanted && slu_clock_ns() < next_attrs) {
			slu_cond_timedwait(&p->house_wake, &p->house_lock, next_attrs);
			continue;
		}
		bool retry = slu_clock_ns() >= again || p->reclaim_room;
		bool reclaim = p->reclaim_wanted || retry;
		p->reclaim_wanted = p->reclaim_room = false;
		slu_mutex_unlock(&p->house_lock);

		if (retry)
			slu_ns_reclaim_again(fs->ns);
		if (reclaim && reclaim_all(fs)) {
			again = slu_clock_ns() + again_after;
			again_after = slu_min(2 * again_after, RECLAIM_AGAIN_MOST_NS);
		} else if (retry) {
			again = SLU_NO_DEADLINE;
			again_after = interval;
		}
		if (slu_clock_ns() >= next_attrs) {
			uint64_t now = slu_clock_ns();

			slu_cache_settle(fs->cache, slu_max(now, AWAIT_NS) - AWAIT_NS);
			slu_ns_sync_attrs(fs->ns);
			next_attrs = slu_clock_ns() + interval;
		}

		slu_mutex_lock(&p->house_lock);
		if (reclaim) {
			p->reclaim_passes++;
			slu_cond_broadcast(&p->house_done);
		}
	}
	p->reclaim_passes++;
	slu_cond_broadcast(&p->house_done);
	slu_mutex_unlock(&p->house_lock);
}

void housekeep_reclaim_wanted(void *arg)
{
	struct slu_fs *fs = arg;

	slu_mutex_lock(&fs->p->house_lock);
	fs->p->reclaim_wanted = true;
	slu_cond_signal(&fs->p->house_wake);
	slu_mutex_unlock(&fs->p->house_lock);
}

int housekeep_start(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;

	p->house_stop = false;
	p->reclaim_wanted = true; /* what the last crash left behind */
	return slu_thread_start(&p->housekeeper, "slu-house", housekeeper, fs);
}

void housekeep_stop(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;

	if (!p->housekeeper.started)
		return;
	slu_mutex_lock(&p->house_lock);
	p->house_stop = true;
	slu_cond_signal(&p->house_wake);
	slu_mutex_unlock(&p->house_lock);
	slu_thread_join(&p->housekeeper);
	p->housekeeper.started = false;
}

int housekeep_make_room(struct slu_fs *fs, struct slu_ctx *ctx)
{
	struct slu_fs_private *p = fs->p;
	int err = fs_may_wait(ctx, "space on its way back");

	if (err)
		return err;
	/*
	 * Two passes: one may have been under way and past the file that was deleted last. Whether
	 * it helped is not asked: the caller tries once more and takes that answer.
	 */
	slu_mutex_lock(&p->house_lock);
	uint64_t want = p->reclaim_passes + 2;
	while (p->reclaim_passes < want && !p->house_stop) {
		p->reclaim_wanted = p->reclaim_room = true;
		slu_cond_signal(&p->house_wake);
		slu_cond_wait(&p->house_done, &p->house_lock);
	}
	slu_mutex_unlock(&p->house_lock);
	return slu_store_commit(fs->store, slu_store_txid(fs->store), false);
}
