/* SPDX-License-Identifier: MIT */
/*
 * blockio: the io_uring engine.
 *
 * One thread owns the ring: it alone fills it, enters the kernel, reaps, and calls end_io. A
 * submitter only chains its request to `incoming` and, if the ring's thread sleeps in the kernel,
 * wakes it through an eventfd that the ring polls. That costs a wake-up per burst, and buys:
 * - what the kernel ties to the submitting task (work run on its behalf at completion, interrupting
 *   its system calls; cancelling what it left behind when it exits) is tied to a thread that lives
 *   as long as the ring;
 * - a full ring needs no wait: what does not fit stays chained, also for an end_io that submits;
 * - the ring can be set up for a single issuer, the cheapest way to run completions.
 * Single reads and writes that somebody waits for do not come here at all: rw_sync is a pread.
 *
 * Lock: `lock` (leaf) around incoming, asleep and stop; not held in the kernel or in end_io. It
 * also orders the submitter's writes to the request before the ring's thread, and so before end_io.
 */
#include "blockio_private.h"
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define URING_DEPTH     64u
#define URING_MAX_DEPTH 4096u
#define URING_BATCH     32

/* After so many refusals a request is done with plain system calls. */
#define URING_MAX_RETRIES 16

/* user_data of the poll on the eventfd; no request has this address. */
#define URING_WAKE 1

enum { RING_STARTING, RING_READY, RING_FAILED };

/*
 * io->engine[]: bytes done in the low half of [0] and refusals in the high half; [1] and [2] are
 * the iovec that carries on in the middle of one of the submitter's.
 */
#define SLOT_PROGRESS 0
#define SLOT_IOVEC    1
_Static_assert(sizeof(struct iovec) <= 2 * sizeof(uint64_t), "an iovec fits in two slots");

struct uring {
	/* Shared. */
	struct slu_mutex lock;
	struct io_queue incoming;
	bool asleep; /* the ring's thread is, or is about to be, in the kernel waiting */
	bool stop;
	int wakefd;
	_Atomic uint32_t state;

	/* Set before the ring's thread takes a request. */
	struct image img;
	struct io_pool *pool; /* discards, where the ring cannot; else NULL */
	bool has_fallocate;

	/* The ring's thread alone, but for what it leaves for open. */
	struct io_uring ring;
	struct io_queue pending; /* not in the ring yet, oldest first */
	unsigned int depth, inflight;
	bool poll_armed;
	int error; /* why RING_FAILED */
	struct slu_thread thread;
};

/* ------------------------------------------------------------------ filling the ring */

static uint64_t io_done(const struct slu_io *io)
{
	return io->engine[SLOT_PROGRESS] & UINT32_MAX;
}

static void prep_rw(struct uring *u, struct io_uring_sqe *sqe, struct slu_io *io)
{
	struct iovec *rest = (struct iovec *)&io->engine[SLOT_IOVEC];
	uint64_t pos = image_pos(&u->img, io->blkno) + io_done(io);
	const struct iovec *v = rest;
	int idx, n = 1;

	if (!image_iov_rest(io->iov, io->niov, io_done(io), &idx, rest)) {
		v = io->iov + idx;
		n = io->niov - idx;
	}
	if (io->op == SLU_IO_READ)
		io_uring_prep_readv(sqe, u->img.fd, v, (unsigned int)n, pos);
	else
		io_uring_prep_writev(sqe, u->img.fd, v, (unsigned int)n, pos);
}

static void prep(struct uring *u, struct io_uring_sqe *sqe, struct slu_io *io)
{
	switch (io->op) {
	case SLU_IO_READ:
	case SLU_IO_WRITE:
		prep_rw(u, sqe, io);
		break;
	case SLU_IO_FLUSH:
		io_uring_prep_fsync(sqe, u->img.fd, IORING_FSYNC_DATASYNC);
		break;
	case SLU_IO_DISCARD:
		io_uring_prep_fallocate(sqe, u->img.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)image_pos(&u->img, io->blkno),
					(off_t)blockio_bytes(io));
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

/* Puts as much of pending into the ring as there is room for. */
static void uring_fill(struct uring *u)
{
	struct io_uring_sqe *sqe;
	struct slu_io *io;

	if (!u->poll_armed && (sqe = io_uring_get_sqe(&u->ring))) {
		io_uring_prep_poll_add(sqe, u->wakefd, POLLIN);
		io_uring_sqe_set_data(sqe, (void *)(uintptr_t)URING_WAKE);
		u->poll_armed = true;
	}
	while (u->inflight < u->depth && u->pending.head && (sqe = io_uring_get_sqe(&u->ring))) {
		io = io_queue_pop(&u->pending);
		prep(u, sqe, io);
		u->inflight++;
	}
}

/* ------------------------------------------------------------------ reaping */

static void retry(struct uring *u, struct slu_io *io)
{
	io->engine[SLOT_PROGRESS] += 1ull << 32;
	if (io->engine[SLOT_PROGRESS] >> 32 <= URING_MAX_RETRIES) {
		io_queue_push(&u->pending, io);
		return;
	}
	/* The kernel has no means to do it in the ring: slow is better than never. */
	blockio_complete(io, image_do(&u->img, io));
}

static void reap_rw(struct uring *u, struct slu_io *io, int res)
{
	if (res > 0) {
		io->engine[SLOT_PROGRESS] += (uint64_t)res;
		if (io_done(io) == blockio_bytes(io)) {
			blockio_complete(io, 0);
			return;
		}
		slu_stress_point("blockio-partial");
		io_queue_push(&u->pending, io);
	} else if (!res) { /* the image has become shorter than it was */
		if (io->op == SLU_IO_READ)
			image_seen_cut(&u->img);
		blockio_complete(io, -EIO);
	} else if (io_done(io) && res == -EINVAL) {
		blockio_complete(io, -EIO);
	} else {
		blockio_complete(io, res == -EDQUOT ? -ENOSPC : res);
	}
}

/* A hint, as in image_discard. */
static void reap_discard(struct uring *u, struct slu_io *io, int res)
{
	if (res == -EOPNOTSUPP || res == -ENOSYS)
		atomic_store_explicit(&u->img.can_discard, false, memory_order_relaxed);
	if (res == -EOPNOTSUPP || res == -ENOSYS || res == -EINVAL)
		res = 0;
	blockio_complete(io, res);
}

static void reap_one(struct uring *u, uint64_t data, int res)
{
	struct slu_io *io = (struct slu_io *)(uintptr_t)data;
	uint64_t count;

	if (data == URING_WAKE) {
		u->poll_armed = false;
		(void)!read(u->wakefd, &count, sizeof(count));
		return;
	}
	u->inflight--;
	if (res == -EAGAIN || res == -EINTR || res == -ECANCELED)
		retry(u, io);
	else if (io->op == SLU_IO_READ || io->op == SLU_IO_WRITE)
		reap_rw(u, io, res);
	else if (io->op == SLU_IO_DISCARD)
		reap_discard(u, io, res);
	else
		blockio_complete(io, res);
}

/* Entries are copied out and given back before end_io runs, which may take a while. */
static void uring_reap(struct uring *u)
{
	struct io_uring_cqe *cqes[URING_BATCH];
	uint64_t data[URING_BATCH];
	int res[URING_BATCH];
	unsigned int n;

	while ((n = io_uring_peek_batch_cqe(&u->ring, cqes, URING_BATCH))) {
		for (unsigned int i = 0; i < n; i++) {
			data[i] = cqes[i]->user_data;
			res[i] = cqes[i]->res;
		}
		io_uring_cq_advance(&u->ring, n);
		for (unsigned int i = 0; i < n; i++)
			reap_one(u, data[i], res[i]);
	}
}

/* ------------------------------------------------------------------ the ring's thread */

/*
 * What a kernel has to offer: flags of 6.1, of 5.18, none. The completion queue is twice as long as
 * the submission queue and never overflows, since inflight is bounded.
 */
static int ring_init(struct uring *u)
{
	static const unsigned int flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_SUBMIT_ALL,
		0,
	};
	int err = -EINVAL;

	for (size_t i = 0; i < slu_array_size(flags) && err == -EINVAL; i++)
		err = io_uring_queue_init(u->depth + 1, &u->ring, flags[i]);
	return err;
}

/* Everything else that is used came with readv and writev, or before them. */
static int ring_probe(struct uring *u)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&u->ring);

	if (!probe) /* older than 5.6 */
		return 0;
	u->has_fallocate = io_uring_opcode_supported(probe, IORING_OP_FALLOCATE);
	if (!io_uring_opcode_supported(probe, IORING_OP_READV) ||
	    !io_uring_opcode_supported(probe, IORING_OP_WRITEV) ||
	    !io_uring_opcode_supported(probe, IORING_OP_FSYNC) ||
	    !io_uring_opcode_supported(probe, IORING_OP_POLL_ADD)) {
		io_uring_free_probe(probe);
		return -ENOSYS;
	}
	io_uring_free_probe(probe);
	return 0;
}

/*
 * Enters the kernel. Errors that pass (interrupted, short of memory, completions to be reaped
 * first) leave the entries in the ring for the next round; others mean that we misuse it.
 */
static void uring_enter(struct uring *u, bool wait)
{
	int ret = io_uring_submit_and_wait(&u->ring, wait ? 1 : 0);

	if (ret >= 0 || ret == -EINTR)
		return;
	slu_assert(ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM);
	slu_sleep_ns(SLU_NS_PER_MS);
}

static void uring_loop(struct uring *u)
{
	bool stop = false;

	while (!stop || u->inflight || u->pending.head) {
		bool idle;

		slu_mutex_lock(&u->lock);
		u->asleep = false;
		io_queue_splice(&u->pending, &u->incoming);
		slu_mutex_unlock(&u->lock);
		uring_fill(u);

		/* Whoever chains a request after this sees that we are asleep, and wakes us. */
		slu_mutex_lock(&u->lock);
		stop = u->stop;
		idle = !u->incoming.head && !stop;
		u->asleep = idle;
		slu_mutex_unlock(&u->lock);
		if (stop && !u->inflight)
			continue;
		uring_enter(u, idle);
		uring_reap(u);
	}
}

static void uring_thread(void *arg)
{
	struct uring *u = arg;
	int err = ring_init(u);

	if (!err) {
		err = ring_probe(u);
		if (err)
			io_uring_queue_exit(&u->ring);
	}
	u->error = err;
	atomic_store_explicit(&u->state, err ? RING_FAILED : RING_READY, memory_order_release);
	slu_word_wake(&u->state, INT_MAX);
	if (err)
		return;
	uring_loop(u);
	io_uring_queue_exit(&u->ring);
}

static void uring_wake(struct uring *u)
{
	uint64_t one = 1;

	/* Cannot fail: the count would have to reach 2^64. */
	(void)!write(u->wakefd, &one, sizeof(one));
}

/* ------------------------------------------------------------------ the engine */

static void uring_submit(void *state, struct slu_io *io)
{
	struct uring *u = state;
	bool wake;

	if (io->op == SLU_IO_DISCARD) {
		if (!atomic_load_explicit(&u->img.can_discard, memory_order_relaxed)) {
			blockio_complete(io, 0);
			return;
		}
		if (u->pool) {
			io_pool_submit(u->pool, io);
			return;
		}
	}
	io->engine[SLOT_PROGRESS] = 0;
	slu_mutex_lock(&u->lock);
	io_queue_push(&u->incoming, io);
	wake = u->asleep;
	u->asleep = false;
	slu_mutex_unlock(&u->lock);
	if (wake)
		uring_wake(u);
}

static const char *why_not(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		return "io_uring is not permitted here, using threads";
	case -ENOSYS:
		return "this kernel has no io_uring, using threads";
	case -ENOMEM:
		return "no memory for io_uring (see ulimit -l), using threads";
	default:
		return "io_uring cannot be set up, using threads";
	}
}

/* Starts the ring's thread and learns whether it has a ring. */
static int ring_start(struct uring *u)
{
	int err;

	u->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->wakefd < 0)
		return -errno;
	err = slu_thread_start(&u->thread, "slu-uring", uring_thread, u);
	if (err) {
		close(u->wakefd);
		return err;
	}
	while (atomic_load_explicit(&u->state, memory_order_acquire) == RING_STARTING)
		(void)slu_word_wait(&u->state, RING_STARTING, SLU_NO_DEADLINE);
	if (atomic_load_explicit(&u->state, memory_order_acquire) == RING_READY)
		return 0;
	slu_thread_join(&u->thread);
	close(u->wakefd);
	return u->error;
}

static void ring_stop(struct uring *u)
{
	slu_mutex_lock(&u->lock);
	u->stop = true;
	slu_mutex_unlock(&u->lock);
	uring_wake(u);
	slu_thread_join(&u->thread);
	close(u->wakefd);
}

static int uring_open(const char *name, const struct slu_blockio_opts *opts,
		      struct slu_blockio_info *info, void **ret_state)
{
	struct uring *u = slu_zalloc(sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	slu_mutex_init(&u->lock, SLU_RANK_LEAF, 0, "uring queue");
	u->depth = opts->queue_depth ? slu_min(opts->queue_depth, URING_MAX_DEPTH) : URING_DEPTH;
	err = ring_start(u);
	if (err) {
		info->fallback = why_not(err);
		goto free_state;
	}
	err = image_open(&u->img, name, opts, info);
	if (err)
		goto stop_ring;
	if (u->img.device || !u->has_fallocate) {
		err = io_pool_new(&u->img, 1, &u->pool);
		if (err)
			goto close_image;
	}
	*ret_state = u;
	return 0;

close_image:
	image_close(&u->img);
stop_ring:
	ring_stop(u);
	info->fallback = NULL;
free_state:
	slu_mutex_fini(&u->lock);
	slu_free(u);
	return err;
}

static int uring_rw_sync(void *state, enum slu_io_op op, uint64_t blkno, uint32_t nblocks,
			 void *buf)
{
	struct uring *u = state;

	return image_rw_sync(&u->img, op, blkno, nblocks, buf);
}

static int uring_reserve(void *state, uint64_t blkno, uint64_t nblocks)
{
	struct uring *u = state;

	return image_reserve(&u->img, blkno, nblocks);
}

static int uring_grow(void *state, uint64_t nblocks, uint64_t *ret_nblocks)
{
	struct uring *u = state;

	return image_grow(&u->img, nblocks, ret_nblocks);
}

static int uring_length(void *state, uint64_t *ret_nblocks)
{
	struct uring *u = state;

	return image_length(&u->img, ret_nblocks);
}

static int uring_used(void *state, uint64_t blkno, uint64_t *ret)
{
	struct uring *u = state;

	return image_used(&u->img, blkno, ret);
}

static void uring_close(void *state)
{
	struct uring *u = state;

	io_pool_free(u->pool);
	ring_stop(u);
	slu_assert(!u->incoming.head && !u->pending.head && !u->inflight);
	image_close(&u->img);
	slu_mutex_fini(&u->lock);
	slu_free(u);
}

const struct slu_blockio_engine uring_engine = {
	.name = "uring",
	.open = uring_open,
	.submit = uring_submit,
	.rw_sync = uring_rw_sync,
	.reserve = uring_reserve,
	.grow = uring_grow,
	.length = uring_length,
	.used = uring_used,
	.close = uring_close,
};
