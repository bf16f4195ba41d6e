/* SPDX-License-Identifier: MIT */
/*
 * blockio: the engine for the simulated disk.
 *
 * Each mount has a completion thread that sleeps until the next request is due, does it and calls
 * end_io; in a simulation that thread is a task like others. A disk set to inline has none: submit
 * does the request, and what end_io submits meanwhile after it, one by one.
 *
 * Lock: the disk's (leaf), not held in end_io.
 */
#include "simdisk.h"
#include <string.h>

/* ------------------------------------------------------------------ the queue */

/*
 * Takes the request that is to be done now, NULL if none is; *ret_due is when to look again.
 * Without delays everything waiting is due, and the seed chooses; with them the earliest goes
 * first.
 */
static struct slu_io *take_due(struct slu_simdisk *disk, struct simopen *so, uint64_t *ret_due)
	SLU_REQUIRES(&disk->lock)
{
	struct slu_io *before_pick = NULL, *pick = NULL, *prev = NULL;
	uint64_t now = slu_clock_ns(), ties = 0;

	for (struct slu_io *io = so->queue.head; io; prev = io, io = io->next) {
		uint64_t due = slu_max(io->engine[SIM_SLOT_DUE], disk->latency_ns ? 0 : now);

		if (pick && due > *ret_due)
			continue;
		if (!pick || due < *ret_due)
			ties = 0;
		*ret_due = due;
		if (simrng_below(&disk->rng, ++ties))
			continue;
		pick = io;
		before_pick = prev;
	}
	if (!pick || *ret_due > now)
		return NULL;
	if (before_pick)
		before_pick->next = pick->next;
	else
		so->queue.head = pick->next;
	if (so->queue.tail == pick)
		so->queue.tail = before_pick;
	return pick;
}

static void sim_thread(void *arg)
{
	struct simopen *so = arg;
	struct slu_simdisk *disk = so->disk;

	slu_mutex_lock(&disk->lock);
	while (!so->stop || so->queue.head) {
		uint64_t due = SLU_NO_DEADLINE;
		struct slu_io *io = take_due(disk, so, &due);
		int result;

		if (!io) {
			(void)slu_cond_timedwait(&so->more, &disk->lock, due);
			continue;
		}
		result = simdisk_do(disk, so, io);
		slu_mutex_unlock(&disk->lock);
		blockio_complete(io, result);
		slu_mutex_lock(&disk->lock);
	}
	slu_mutex_unlock(&disk->lock);
}

/* Nothing nests: what end_io submits is queued and done by the call that is at it already. */
static void drain_inline(struct simopen *so)
{
	struct slu_simdisk *disk = so->disk;
	struct slu_io *io;

	slu_mutex_lock(&disk->lock);
	while (!so->draining && so->queue.head) {
		int result;

		so->draining = true;
		io = io_queue_pop(&so->queue);
		result = simdisk_do(disk, so, io);
		slu_mutex_unlock(&disk->lock);
		blockio_complete(io, result);
		slu_mutex_lock(&disk->lock);
		so->draining = false;
	}
	slu_mutex_unlock(&disk->lock);
}

static void sim_submit(void *state, struct slu_io *io)
{
	struct simopen *so = state;
	struct slu_simdisk *disk = so->disk;
	int err;

	slu_mutex_lock(&disk->lock);
	err = simdisk_begin(disk, so, io);
	if (!err)
		io_queue_push(&so->queue, io);
	slu_mutex_unlock(&disk->lock);
	if (err)
		blockio_complete(io, err);
	else if (so->inline_io)
		drain_inline(so);
	else
		slu_cond_signal(&so->more);
}

/*
 * In the caller's thread. A write that the power fails under is lost here, or done and unflushed:
 * between them the outcomes are those of a request in flight.
 */
static int sim_rw_sync(void *state, enum slu_io_op op, uint64_t blkno, uint32_t nblocks, void *buf)
{
	struct simopen *so = state;
	struct slu_simdisk *disk = so->disk;
	struct iovec iov = {buf, (size_t)nblocks << SLU_BLOCK_SHIFT};
	struct slu_io io = {.op = op, .blkno = blkno, .nblocks = nblocks, .iov = &iov, .niov = 1};
	uint64_t now;
	int err;

	slu_mutex_lock(&disk->lock);
	err = simdisk_begin(disk, so, &io);
	slu_mutex_unlock(&disk->lock);
	if (err)
		return err;
	now = slu_clock_ns();
	if (io.engine[SIM_SLOT_DUE] > now)
		slu_sleep_ns(io.engine[SIM_SLOT_DUE] - now);
	slu_mutex_lock(&disk->lock);
	err = simdisk_do(disk, so, &io);
	slu_mutex_unlock(&disk->lock);
	return err;
}

/* ------------------------------------------------------------------ open and close */

static bool lock_free(const struct slu_simdisk *disk, enum slu_image_lock lock)
{
	for (const struct simopen *so = disk->opens; so; so = so->next) {
		if (so->lock == SLU_LOCK_EXCLUSIVE && lock != SLU_LOCK_NONE)
			return false;
		if (so->lock == SLU_LOCK_SHARED && lock == SLU_LOCK_EXCLUSIVE)
			return false;
	}
	return true;
}

/* As flock does it for images: look, sleep, look again. Enters so among the mounts. */
static int sim_lock(struct simopen *so, const struct slu_blockio_opts *opts)
{
	struct slu_simdisk *disk = so->disk;
	uint64_t start = slu_clock_ns();
	bool told = false;

	for (;;) {
		uint64_t waited = slu_clock_ns() - start;
		bool got;

		slu_mutex_lock(&disk->lock);
		got = lock_free(disk, opts->lock);
		if (got) {
			so->lock = opts->lock;
			so->next = disk->opens;
			disk->opens = so;
			/* What a clone was not sure of is decided by now: it did not happen. */
			simrecs_fini(&disk->loose);
		}
		slu_mutex_unlock(&disk->lock);
		if (got)
			return 0;
		if (!told && opts->lock_busy)
			opts->lock_busy(opts->lock_busy_ctx, 0, "");
		told = true;
		if (waited >= opts->lock_wait_ns)
			return -EBUSY;
		slu_sleep_ns(slu_min(10 * SLU_NS_PER_MS, opts->lock_wait_ns - waited));
	}
}

static void sim_unlock(struct simopen *so)
{
	struct simopen **at;

	slu_mutex_lock(&so->disk->lock);
	for (at = &so->disk->opens; *at != so; at = &(*at)->next)
		;
	*at = so->next;
	so->stop = true;
	slu_mutex_unlock(&so->disk->lock);
}

static uint64_t usable_blocks(const struct slu_simdisk *disk, const struct simopen *so)
	SLU_REQUIRES(&disk->lock)
{
	uint64_t n = disk->nblocks - slu_min(disk->nblocks, so->offset);

	return so->limit ? slu_min(n, so->limit) : n;
}

static int sim_open(const char *name, const struct slu_blockio_opts *opts,
		    struct slu_blockio_info *info, void **ret_state)
{
	struct slu_simdisk *disk = opts->sim;
	struct simopen *so;
	uint64_t nblocks;
	int err;

	if (!disk)
		return -EINVAL;
	so = slu_zalloc(sizeof(*so));
	if (!so)
		return -ENOMEM;
	so->disk = disk;
	so->offset = opts->image_offset >> SLU_BLOCK_SHIFT;
	so->limit = opts->image_size >> SLU_BLOCK_SHIFT;
	err = sim_lock(so, opts);
	if (err)
		goto free_state;
	slu_mutex_lock(&disk->lock);
	nblocks = usable_blocks(disk, so);
	so->inline_io = disk->inline_io;
	err = so->offset > disk->nblocks && !opts->create ? -EINVAL : 0;
	slu_mutex_unlock(&disk->lock);
	slu_cond_init(&so->more);
	if (!err && !so->inline_io)
		err = slu_thread_start(&so->thread, "slu-simdisk", sim_thread, so);
	if (err)
		goto unlock;
	info->kind = SLU_IMAGE_SIM;
	info->nblocks = nblocks;
	info->can_reserve = !opts->readonly;
	*ret_state = so;
	return 0;

unlock:
	slu_cond_fini(&so->more);
	sim_unlock(so);
free_state:
	slu_free(so);
	return err;
}

static void sim_close(void *state)
{
	struct simopen *so = state;

	sim_unlock(so);
	if (!so->inline_io) {
		slu_cond_signal(&so->more);
		slu_thread_join(&so->thread);
	}
	slu_assert(!so->queue.head);
	slu_cond_fini(&so->more);
	slu_free(so);
}

/* ------------------------------------------------------------------ space */

static int sim_reserve(void *state, uint64_t blkno, uint64_t nblocks)
{
	struct simopen *so = state;
	struct slu_simdisk *disk = so->disk;
	int err;

	slu_mutex_lock(&disk->lock);
	if (disk->gone || so->cut)
		err = -EIO;
	else
		err = simdisk_back(disk, so->offset + blkno, nblocks);
	slu_mutex_unlock(&disk->lock);
	return err;
}

static int sim_grow(void *state, uint64_t nblocks, uint64_t *ret_nblocks)
{
	struct simopen *so = state;
	struct slu_simdisk *disk = so->disk;
	int err = 0;

	if (nblocks > ((uint64_t)INT64_MAX >> SLU_BLOCK_SHIFT) - so->offset)
		return -EFBIG;
	slu_mutex_lock(&disk->lock);
	if (disk->gone || so->cut)
		err = -EIO;
	else if (so->limit && nblocks > so->limit)
		err = -ENOSPC;
	else
		disk->nblocks = slu_max(disk->nblocks, so->offset + nblocks);
	*ret_nblocks = usable_blocks(disk, so);
	slu_mutex_unlock(&disk->lock);
	return err;
}

const struct slu_blockio_engine sim_engine = {
	.name = "sim",
	.open = sim_open,
	.submit = sim_submit,
	.rw_sync = sim_rw_sync,
	.reserve = sim_reserve,
	.grow = sim_grow,
	.close = sim_close,
};
