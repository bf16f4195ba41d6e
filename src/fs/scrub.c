/* SPDX-License-Identifier: MIT */
/*
 * Scrubbing a mounted volume: the thread that does it, how fast, and what has come of it.
 *
 * Owns one thread, from a start to its end, and the state that everybody may look at. Called by
 * control, and at the end of the mount. Takes scrub_lock, a leaf, never across I/O. The reading is
 * slu_store_scrub's.
 *
 * The rate is kept from leaf to leaf: a scrub that is behind does not catch up with more than
 * BURST_NS, and sleeps only when it is ahead by as much, not for each node.
 */
#include "fs_private.h"

#define BURST_NS (20 * SLU_NS_PER_MS)

/* How long the nodes read since the last step may take. */
static uint64_t cost_ns(const struct slu_fs_private *p, uint64_t nodes)
{
	return p->scrub.rate ? nodes * SLU_BLOCK_SIZE * SLU_NS_PER_SEC / p->scrub.rate : 0;
}

static int on_step(void *ctx, const struct slu_scrub_result *so_far)
{
	struct slu_fs *fs = ctx;
	struct slu_fs_private *p = fs->p;
	uint64_t now = slu_clock_ns();
	bool cancelled;

	slu_mutex_lock(&p->scrub_lock);
	p->scrub_due_ns = slu_max(p->scrub_due_ns, now - slu_min(now, BURST_NS)) +
			  cost_ns(p, so_far->nodes - p->scrub.nodes);
	p->scrub.nodes = so_far->nodes;
	p->scrub.total = so_far->total;
	while (!p->scrub_cancel && p->scrub_due_ns > slu_clock_ns() + BURST_NS)
		(void)slu_cond_timedwait(&p->scrub_changed, &p->scrub_lock, p->scrub_due_ns);
	cancelled = p->scrub_cancel;
	slu_mutex_unlock(&p->scrub_lock);
	return cancelled;
}

static bool on_cancelled(void *ctx)
{
	struct slu_fs *fs = ctx;
	bool cancelled;

	slu_mutex_lock(&fs->p->scrub_lock);
	cancelled = fs->p->scrub_cancel;
	slu_mutex_unlock(&fs->p->scrub_lock);
	return cancelled;
}

static void on_damaged(void *ctx, uint64_t blkno, const char *wrong)
{
	struct slu_fs *fs = ctx;
	struct slu_scrub_state *s = &fs->p->scrub;

	slu_mutex_lock(&fs->p->scrub_lock);
	if (s->damaged < slu_array_size(s->damage))
		s->damage[s->damaged] = (struct slu_scrub_damage){blkno, wrong};
	s->damaged++;
	slu_mutex_unlock(&fs->p->scrub_lock);
}

static void scrub_main(void *arg)
{
	struct slu_fs *fs = arg;
	struct slu_fs_private *p = fs->p;
	const struct slu_scrub_opts opts = {.step = on_step,
					    .cancelled = on_cancelled,
					    .damaged = on_damaged,
					    .ctx = fs};
	struct slu_scrub_result result;
	int err = slu_store_scrub(fs->store, &opts, &result);

	slu_event_post(&p->opts.events, &(struct slu_event){.kind = SLU_EVENT_SCRUB_FINISHED,
							    .error = err,
							    .pos = result.damaged,
							    .len = result.nodes});
	slu_mutex_lock(&p->scrub_lock);
	p->scrub.nodes = result.nodes;
	p->scrub.total = result.total;
	p->scrub.result = err;
	p->scrub.end = slu_clock_realtime();
	p->scrub.running = false;
	p->scrub_nodes += result.nodes;
	p->scrub_damaged += result.damaged;
	slu_cond_broadcast(&p->scrub_changed);
	slu_mutex_unlock(&p->scrub_lock);
}

/* One that has ended is joined by the next. */
static int scrub_claim(struct slu_fs *fs, uint64_t rate, uint64_t *ret_number)
{
	struct slu_fs_private *p = fs->p;
	struct slu_space_stat space;
	int err = 0;

	slu_space_stat(fs->store, &space);
	slu_mutex_lock(&p->scrub_lock);
	if (p->scrub_ended)
		err = -ESHUTDOWN;
	else if (p->scrub.running)
		err = -EBUSY;
	if (!err) {
		p->scrub = (struct slu_scrub_state){
			.running = true,
			.number = p->scrub.number + 1,
			.rate = rate,
			.total = space.node_blocks,
			.begin = slu_clock_realtime(),
		};
		p->scrub_cancel = false;
		p->scrub_due_ns = 0;
		*ret_number = p->scrub.number;
	}
	slu_mutex_unlock(&p->scrub_lock);
	return err;
}

int slu_fs_scrub_start(struct slu_fs *fs, uint64_t rate, uint64_t *ret_number)
{
	struct slu_fs_private *p = fs->p;
	int err = scrub_claim(fs, rate, ret_number);

	if (err)
		return err;
	slu_thread_join(&p->scrub_thread);
	slu_event_post(&p->opts.events,
		       &(struct slu_event){.kind = SLU_EVENT_SCRUB_STARTED, .len = p->scrub.total});
	err = slu_thread_start(&p->scrub_thread, "slu-scrub", scrub_main, fs);
	if (!err)
		return 0;
	slu_mutex_lock(&p->scrub_lock);
	p->scrub.running = false;
	p->scrub.result = err;
	p->scrub.end = slu_clock_realtime();
	slu_cond_broadcast(&p->scrub_changed);
	slu_mutex_unlock(&p->scrub_lock);
	return err;
}

int slu_fs_scrub_cancel(struct slu_fs *fs, uint64_t number)
{
	struct slu_fs_private *p = fs->p;
	bool found;

	slu_mutex_lock(&p->scrub_lock);
	found = p->scrub.running && (!number || number == p->scrub.number);
	if (found) {
		p->scrub_cancel = true;
		slu_cond_broadcast(&p->scrub_changed);
	}
	slu_mutex_unlock(&p->scrub_lock);
	return found ? 0 : -EINVAL;
}

void slu_fs_scrub_state(struct slu_fs *fs, struct slu_scrub_state *ret)
{
	slu_mutex_lock(&fs->p->scrub_lock);
	*ret = fs->p->scrub;
	slu_mutex_unlock(&fs->p->scrub_lock);
}

void slu_fs_scrub_counts(struct slu_fs *fs, uint64_t *ret_nodes, uint64_t *ret_damaged)
{
	struct slu_fs_private *p = fs->p;

	slu_mutex_lock(&p->scrub_lock);
	*ret_nodes = p->scrub_nodes + (p->scrub.running ? p->scrub.nodes : 0);
	*ret_damaged = p->scrub_damaged + (p->scrub.running ? p->scrub.damaged : 0);
	slu_mutex_unlock(&p->scrub_lock);
}

/* ------------------------------------------------------------------ its life */

void scrub_init(struct slu_fs *fs)
{
	slu_mutex_init(&fs->p->scrub_lock, SLU_RANK_LEAF, 0, "fs scrub");
	slu_cond_init(&fs->p->scrub_changed);
}

void scrub_end(struct slu_fs *fs)
{
	struct slu_fs_private *p = fs->p;

	slu_mutex_lock(&p->scrub_lock);
	p->scrub_ended = p->scrub_cancel = true;
	slu_cond_broadcast(&p->scrub_changed);
	while (p->scrub.running)
		slu_cond_wait(&p->scrub_changed, &p->scrub_lock);
	slu_mutex_unlock(&p->scrub_lock);
	slu_thread_join(&p->scrub_thread);
}

void scrub_fini(struct slu_fs *fs)
{
	slu_cond_fini(&fs->p->scrub_changed);
	slu_mutex_fini(&fs->p->scrub_lock);
}
