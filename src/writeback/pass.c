/* SPDX-License-Identifier: MIT */
/*
 * A pass: one walk over the dirty pages of one inode, from a first to a last page, forward only.
 *
 * Called by writeback threads and by slu_writeback_range, with no lock held and the inode held in
 * the queue. Owns the run slots it has taken. Several runs are in flight at a time; end_io hands a
 * run back, and the pass itself tells the backend and the cache. Takes nothing but leaf locks, and
 * none of them across I/O or a backend's verb. Never allocates.
 *
 * A run:
 *	start	slu_pages_start_writeback	DIRTY → WRITEBACK, frames referenced
 *	map	map, allocate			may be shorter than the run: the rest is next
 *	submit	slu_blockio_submit
 *	end_io	(engine)			onto the pass's list
 *	finish	complete			the record, with the size that is justified now
 *		slu_pages_end_writeback		clean; or DIRTY and ERROR
 *
 * complete() comes before WRITEBACK is cleared: who waits for the end of writeback and then looks
 * at the mapping finds MAPPED.
 *
 * A rest stays WRITEBACK until its turn comes, and never turns DIRTY again in between: an fsync
 * that finds the pages under writeback waits for that to end and does not look back.
 *
 * Ends although others dirty the pages again behind it: it never turns back. Waits in a fixed
 * direction too: for a page under writeback by another pass only after all its own runs are
 * finished, so passes cannot wait for each other in a circle.
 */
#include "writeback_private.h"
#include <string.h>

struct wb_pass {
	struct slu_writeback *wb;
	struct wb_slots *slots;
	struct slu_aspace *as;
	uint32_t inflight;
	int err;
	struct wb_run *keep;   /* its slot is wanted again when it is finished; then NULL */
	struct slu_mutex lock; /* leaf: done */
	struct slu_cond cond;
	struct wb_run *done;
	bool cut; /* the image is not what it was: nothing is written */
};

/* ------------------------------------------------------------------ slots */

int slots_init(struct wb_slots *s, unsigned int n)
{
	s->free = NULL;
	s->all = slu_calloc(n, sizeof(*s->all));
	if (!s->all)
		return -ENOMEM;
	slu_mutex_init(&s->lock, SLU_RANK_LEAF, SLU_LEAF_WRITEBACK, "writeback slots");
	slu_cond_init(&s->cond);
	for (unsigned int i = 0; i < n; i++) {
		s->all[i].next = s->free;
		s->free = &s->all[i];
	}
	return 0;
}

void slots_fini(struct wb_slots *s)
{
	if (!s->all)
		return;
	slu_cond_fini(&s->cond);
	slu_mutex_fini(&s->lock);
	slu_free(s->all);
	s->all = NULL;
}

static struct wb_run *slot_try(struct wb_slots *s)
{
	struct wb_run *run;

	slu_mutex_lock(&s->lock);
	run = s->free;
	if (run)
		s->free = run->next;
	slu_mutex_unlock(&s->lock);
	return run;
}

static void slot_put(struct wb_slots *s, struct wb_run *run)
{
	slu_mutex_lock(&s->lock);
	run->next = s->free;
	s->free = run;
	slu_cond_signal(&s->cond);
	slu_mutex_unlock(&s->lock);
}

static void slot_wait(struct wb_slots *s)
{
	slu_mutex_lock(&s->lock);
	while (!s->free)
		slu_cond_wait(&s->cond, &s->lock);
	slu_mutex_unlock(&s->lock);
}

/* ------------------------------------------------------------------ finish */

static void post_error(struct slu_writeback *wb, struct wb_run *run, struct slu_aspace *as,
		       int error)
{
	struct slu_event ev = {
		.kind = SLU_EVENT_WRITEBACK_ERROR,
		.error = error,
		.ino = as->ino,
		.pos = run->pgidx << SLU_BLOCK_SHIFT,
		.len = (uint64_t)run->n << SLU_BLOCK_SHIFT,
	};

	slu_event_post(&wb->events, &ev);
}

/*
 * The file is on disk up to disk_size now. Where the owner keeps the record it has moved this
 * itself.
 */
static void disk_size_move(struct slu_aspace *as, uint64_t disk_size)
{
	if (as->backend->owner)
		return;
	slu_mutex_lock(&as->backend->lock);
	as->disk_size = slu_max(as->disk_size, slu_min(disk_size, slu_aspace_size(as)));
	slu_mutex_unlock(&as->backend->lock);
}

/* The I/O of the run has ended, or could not be made. No lock is held. */
static void run_finish(struct wb_pass *p, struct wb_run *run, int result)
{
	struct slu_writeback *wb = p->wb;
	struct slu_aspace *as = p->as;
	uint64_t disk_size;

	/* One at a time for each inode, so that the size on disk never moves back. */
	queue_record_begin(wb, as);
	disk_size = slu_aspace_synced_size(as, run->pgidx, run->n, run->pages, run->size);
	slu_stress_point("writeback.before_complete");
	if (run->mapped) {
		int err = as->backend->ops->complete(as->backend, &run->map, result, disk_size);

		if (!result)
			result = err;
	}
	if (!result)
		disk_size_move(as, disk_size);
	slu_stress_point("writeback.before_end");
	slu_pages_end_writeback(as, run->pgidx, run->n, run->pages, run->frames, run->size, result);
	queue_record_end(wb, as);

	if (result) {
		if (!p->err)
			p->err = result;
		atomic_fetch_add_explicit(&wb->stats.errors, 1, memory_order_relaxed);
		post_error(wb, run, as, result);
		queue_failed(wb, as);
	} else {
		atomic_fetch_add_explicit(&wb->stats.pages, run->n, memory_order_relaxed);
		atomic_fetch_add_explicit(&wb->stats.bytes, (uint64_t)run->n << SLU_BLOCK_SHIFT,
					  memory_order_relaxed);
		queue_healed(wb, as);
	}
	if (run == p->keep)
		p->keep = NULL;
	else
		slot_put(p->slots, run);
}

static void run_end_io(struct slu_io *io)
{
	struct wb_run *run = slu_container_of(io, struct wb_run, io);
	struct wb_pass *p = run->pass;

	slu_mutex_lock(&p->lock);
	run->next = p->done;
	p->done = run;
	slu_cond_signal(&p->cond);
	slu_mutex_unlock(&p->lock);
}

/*
 * Takes the first run of the file out of those whose I/O has ended: as long as they are recorded in
 * order the size on disk moves along, and no data lies beyond it.
 */
static struct wb_run *take_first(struct wb_pass *p)
{
	struct wb_run **first = &p->done, *run;

	for (struct wb_run **at = &p->done; *at; at = &(*at)->next)
		if ((*at)->pgidx < (*first)->pgidx)
			first = at;
	run = *first;
	*first = run->next;
	return run;
}

/* Finishes one of the pass's own runs; waits for it. There is one. */
static void pass_reap(struct wb_pass *p)
{
	struct wb_run *run;

	slu_assert(p->inflight);
	slu_mutex_lock(&p->lock);
	while (!p->done)
		slu_cond_wait(&p->cond, &p->lock);
	run = take_first(p);
	slu_mutex_unlock(&p->lock);
	p->inflight--;
	run_finish(p, run, run->io.result);
}

static void pass_reap_all(struct wb_pass *p)
{
	while (p->inflight)
		pass_reap(p);
}

/* ------------------------------------------------------------------ start */

static struct wb_run *pass_slot(struct wb_pass *p)
{
	struct wb_run *run;

	while (!(run = slot_try(p->slots))) {
		if (p->inflight)
			pass_reap(p);
		else
			slot_wait(p->slots);
	}
	run->pass = p;
	run->mapped = false;
	return run;
}

/* Frames that lie next to each other become one vector. */
static void run_fill_io(struct slu_cache *c, struct wb_run *run)
{
	int niov = 0;

	for (uint32_t i = 0; i < run->n; i++) {
		if (i && run->frames[i] == run->frames[i - 1] + 1) {
			run->iov[niov - 1].iov_len += SLU_BLOCK_SIZE;
			continue;
		}
		run->iov[niov].iov_base = slu_frame_data(c, run->frames[i]);
		run->iov[niov].iov_len = SLU_BLOCK_SIZE;
		niov++;
	}
	run->io = (struct slu_io){
		.op = SLU_IO_WRITE,
		.blkno = run->map.blkno,
		.nblocks = run->n,
		.iov = run->iov,
		.niov = niov,
		.end_io = run_end_io,
	};
}

/* Where the run goes. Shortens it to one mapping; 0, or the error. */
static int run_map(struct wb_pass *p, struct wb_run *run)
{
	const struct slu_aspace_owner *owner = p->as->owner;
	struct slu_iomap_inode *backend = p->as->backend;
	uint64_t pos = run->pgidx << SLU_BLOCK_SHIFT, len = (uint64_t)run->n << SLU_BLOCK_SHIFT;
	uint32_t n;
	int err;

	if (p->cut)
		return -EIO;
	err = backend->ops->map(backend, pos, len, &run->map, NULL);
	if (err)
		return err;
	/*
	 * A dirty page has blocks or a reservation; a backend that has lost them is not believed.
	 */
	if (run->map.type == SLU_IOMAP_HOLE)
		return -EIO;
	if (run->map.type == SLU_IOMAP_DELALLOC)
		err = backend->ops->allocate(backend, &run->map, run->map.len, NULL);
	else if (run->map.type == SLU_IOMAP_MAPPED && owner && owner->before_overwrite)
		err = owner->before_overwrite(p->as);
	if (err)
		return err;
	run->mapped = true;
	n = (uint32_t)(run->map.len >> SLU_BLOCK_SHIFT);
	slu_assert(run->map.pos == pos && n && n <= run->n);
	run->n = n;
	return 0;
}

/* Sends the run off, or as much of it as one mapping covers: how many pages are dealt with. */
static uint32_t run_submit(struct wb_pass *p, struct wb_run *run)
{
	uint32_t n = run->n;
	int err = run_map(p, run);

	if (err) {
		run_finish(p, run, err);
		return n;
	}
	n = run->n;
	run_fill_io(p->wb->cache, run);
	atomic_fetch_add_explicit(&p->wb->stats.runs, 1, memory_order_relaxed);
	p->inflight++;
	slu_stress_point("writeback.before_submit");
	slu_blockio_submit(p->wb->bio, &run->io);
	return n;
}

/*
 * A slot with the rest of a run that has been sent off, whose arrays still hold it. If no other is
 * free, that of the run itself, once it is finished: a pass that waited for a slot of others while
 * it holds marked pages could wait for ever.
 */
static struct wb_run *run_rest(struct wb_pass *p, struct wb_run *run, uint32_t rest)
{
	struct wb_run *next = slot_try(p->slots);
	uint32_t done = run->n;

	if (!next) {
		p->keep = next = run;
		while (p->keep)
			pass_reap(p);
	}
	memmove(next->pages, run->pages + done, rest * sizeof(struct slu_page *));
	memmove(next->frames, run->frames + done, rest * sizeof(*run->frames));
	next->pass = p;
	next->mapped = false;
	next->size = run->size;
	next->pgidx = run->pgidx + done;
	next->n = rest;
	return next;
}

/*
 * Sends off a run that has just been started, in as many parts as it takes. Returns the page after
 * it.
 */
static uint64_t pass_submit(struct wb_pass *p, struct wb_run *run)
{
	uint64_t end = run->pgidx + run->n;
	uint32_t left = run->n;

	while (left) {
		uint32_t sent = run_submit(p, run);

		left -= sent;
		if (left)
			run = run_rest(p, run, left);
	}
	return end;
}

int pass_run(struct slu_writeback *wb, struct wb_slots *slots, struct slu_aspace *as,
	     uint64_t first, uint64_t end, bool wait)
{
	struct wb_pass p = {.wb = wb, .slots = slots, .as = as, .cut = slu_blockio_is_cut(wb->bio)};
	bool started = false;

	slu_assert_no_locks("writeback");
	slu_mutex_init(&p.lock, SLU_RANK_LEAF, SLU_LEAF_WRITEBACK, "writeback pass");
	slu_cond_init(&p.cond);
	while (first < end) {
		struct wb_run *run = pass_slot(&p);

		/*
		 * Only tops up what a thousand other operations may have taken; it can do without.
		 */
		(void)slu_cache_fill_ranges(wb->cache);
		run->pgidx = first;
		run->n = slu_pages_start_writeback(as, &run->pgidx, end, SLU_IOMAP_MAX_PAGES,
						   FAILED_PAGES, wait, run->pages, run->frames,
						   &run->size);
		first = run->pgidx;
		if (run->n) {
			started = true;
			first = pass_submit(&p, run);
			continue;
		}
		slot_put(slots, run);
		if (first < end) {
			pass_reap_all(&p);
			slu_pages_wait(as, first, first + 1);
		}
	}
	pass_reap_all(&p);
	if (!started && !wait)
		queue_put_off(wb, as);
	slu_cond_fini(&p.cond);
	slu_mutex_fini(&p.lock);
	return p.err;
}
