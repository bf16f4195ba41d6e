/* SPDX-License-Identifier: MIT */
/*
 * blockio: what is the same for every engine.
 *
 * Owns struct slu_blockio: the choice of the engine, the check of every request before an engine
 * sees it, the counters, the count of requests under way that close waits for, the sharing of
 * flushes, and what waits while the image is suspended. Called by everything above blockio; calls
 * the engines.
 *
 * Locks: flush_lock and suspend_lock (leaves) around the lists of requests that wait for their turn;
 * never held across a call of an engine or of end_io. Must never wait in submit.
 */
#include "blockio_private.h"
#include <limits.h>
#include <string.h>

/* In refs: close waits. The rest of the word counts requests not ended and submits not returned. */
#define REFS_CLOSING (1u << 31)
/* In changes: none begins. The rest of the word counts those under way. */
#define CHANGES_SUSPENDED (1u << 31)

struct slu_blockio {
	const struct slu_blockio_engine *engine;
	void *state;
	struct slu_blockio_info info;
	struct slu_blockio_stats stats;
	_Atomic uint64_t *progress; /* NULL: nobody looks on */
	_Atomic uint32_t refs;
	_Atomic uint64_t expected; /* blocks that the image must have */

	/*
	 * One flush at a time goes to the engine, as flush_io, on behalf of all in flush_now. Those
	 * that arrive meanwhile collect in flush_next. flush_error is the first failure, for good.
	 */
	struct slu_mutex flush_lock;
	struct slu_io flush_io;
	struct io_queue flush_now, flush_next;
	bool flush_active;
	int flush_error;

	/*
	 * Whoever is about to change the image is counted in `changes` first, and takes that back
	 * and waits if it is suspended: so the one who suspends waits for the count alone.
	 */
	_Atomic uint32_t changes;
	struct slu_mutex suspend_lock; /* the four below */
	struct slu_cond resumed;
	struct io_queue postponed;   /* each has a reference */
	uint64_t suspended_since_ns; /* 0: it is not */
	uint64_t suspended_ns;       /* all times before */

	char fallback[400];
};

static const struct slu_blockio_engine *const engines[] = {
	&uring_engine,
	&threads_engine,
	&sim_engine,
};

/* ------------------------------------------------------------------ the count of I/O under way */

static void blockio_get(struct slu_blockio *bio)
{
	atomic_fetch_add_explicit(&bio->refs, 1, memory_order_relaxed);
}

/*
 * After the last one bio may be gone at any moment: the wake uses its address, not its contents.
 */
static void blockio_put(struct slu_blockio *bio)
{
	uint32_t old = atomic_fetch_sub_explicit(&bio->refs, 1, memory_order_acq_rel);

	if (old == (REFS_CLOSING | 1))
		slu_word_wake(&bio->refs, INT_MAX);
}

/* ------------------------------------------------------------------ changes, and their suspension */

static bool is_change(enum slu_io_op op)
{
	return op == SLU_IO_WRITE || op == SLU_IO_DISCARD;
}

static void change_end(struct slu_blockio *bio)
{
	uint32_t old = atomic_fetch_sub(&bio->changes, 1);

	if (old == (CHANGES_SUSPENDED | 1))
		slu_word_wake(&bio->changes, INT_MAX);
}

/* False: the image is suspended. */
static bool change_begin(struct slu_blockio *bio)
{
	if (!(atomic_fetch_add(&bio->changes, 1) & CHANGES_SUSPENDED))
		return true;
	change_end(bio);
	return false;
}

static void change_begin_wait(struct slu_blockio *bio)
{
	while (!change_begin(bio)) {
		slu_mutex_lock(&bio->suspend_lock);
		while (bio->suspended_since_ns)
			slu_cond_wait(&bio->resumed, &bio->suspend_lock);
		slu_mutex_unlock(&bio->suspend_lock);
	}
}

/* Begins, or keeps the request until the image is resumed: false. */
static bool change_begin_or_postpone(struct slu_blockio *bio, struct slu_io *io)
{
	bool postponed = false;

	while (!postponed && !change_begin(bio)) {
		slu_mutex_lock(&bio->suspend_lock);
		if (bio->suspended_since_ns) {
			blockio_get(bio);
			io_queue_push(&bio->postponed, io);
			postponed = true;
		}
		slu_mutex_unlock(&bio->suspend_lock);
	}
	return !postponed;
}

void slu_blockio_suspend(struct slu_blockio *bio)
{
	uint32_t changes;

	slu_assert_no_locks("suspending an image");
	slu_mutex_lock(&bio->suspend_lock);
	slu_assert(!bio->suspended_since_ns);
	bio->suspended_since_ns = slu_max(slu_clock_ns(), UINT64_C(1));
	atomic_fetch_or(&bio->changes, CHANGES_SUSPENDED);
	slu_mutex_unlock(&bio->suspend_lock);
	while ((changes = atomic_load(&bio->changes)) != CHANGES_SUSPENDED)
		(void)slu_word_wait(&bio->changes, changes, SLU_NO_DEADLINE);
}

void slu_blockio_resume(struct slu_blockio *bio)
{
	struct io_queue postponed = {0};
	struct slu_io *io;

	slu_mutex_lock(&bio->suspend_lock);
	slu_assert(bio->suspended_since_ns);
	bio->suspended_ns += slu_clock_ns() - bio->suspended_since_ns;
	bio->suspended_since_ns = 0;
	atomic_fetch_and(&bio->changes, ~CHANGES_SUSPENDED);
	io_queue_splice(&postponed, &bio->postponed);
	slu_cond_broadcast(&bio->resumed);
	slu_mutex_unlock(&bio->suspend_lock);
	while ((io = io_queue_pop(&postponed))) {
		slu_blockio_submit(bio, io);
		blockio_put(bio);
	}
}

uint64_t slu_blockio_suspended_ns(struct slu_blockio *bio)
{
	uint64_t ns;

	slu_mutex_lock(&bio->suspend_lock);
	ns = bio->suspended_ns;
	if (bio->suspended_since_ns)
		ns += slu_clock_ns() - bio->suspended_since_ns;
	slu_mutex_unlock(&bio->suspend_lock);
	return ns;
}

/* ------------------------------------------------------------------ the end of a request */

static void count_end(struct slu_blockio *bio, int result)
{
	if (result < 0)
		atomic_fetch_add_explicit(&bio->stats.errors, 1, memory_order_relaxed);
	else if (bio->progress)
		atomic_fetch_add_explicit(bio->progress, 1, memory_order_relaxed);
}

void blockio_complete(struct slu_io *io, int result)
{
	struct slu_blockio *bio = (struct slu_blockio *)(uintptr_t)io->engine[BLOCKIO_SLOT_BIO];

	slu_assert(result <= 0);
	if (io != &bio->flush_io)
		count_end(bio, result);
	if (io->start_ns)
		slu_histogram_add(&bio->stats.took[io->op], slu_clock_ns() - io->start_ns);
	io->result = result;
	if (is_change(io->op))
		change_end(bio);
	slu_stress_point("blockio-complete");
	io->end_io(io);
	blockio_put(bio);
}

static void blockio_start(struct slu_blockio *bio, struct slu_io *io)
{
	io->next = NULL;
	io->start_ns = 0;
	io->engine[BLOCKIO_SLOT_BIO] = (uintptr_t)bio;
	blockio_get(bio);
}

/* ------------------------------------------------------------------ flushes */

static void complete_all(struct io_queue *q, int result)
{
	struct slu_io *io;

	while ((io = io_queue_pop(q)))
		blockio_complete(io, result);
}

/*
 * The flush under way has ended. What waited was submitted after it and so needs another one -
 * unless it failed: then nothing that was written before can be trusted to be there any more.
 */
static void flush_end_io(struct slu_io *flush_io)
{
	struct slu_blockio *bio = flush_io->private;
	struct io_queue done = {0};
	int result = flush_io->result;
	bool again;

	slu_mutex_lock(&bio->flush_lock);
	io_queue_splice(&done, &bio->flush_now);
	if (result < 0) {
		bio->flush_error = result;
		io_queue_splice(&done, &bio->flush_next);
	}
	io_queue_splice(&bio->flush_now, &bio->flush_next);
	again = bio->flush_now.head != NULL;
	bio->flush_active = again;
	slu_mutex_unlock(&bio->flush_lock);

	if (again) {
		blockio_start(bio, flush_io);
		bio->engine->submit(bio->state, flush_io);
	}
	complete_all(&done, result);
}

static void submit_flush(struct slu_blockio *bio, struct slu_io *io)
{
	bool start = false;
	int err;

	slu_mutex_lock(&bio->flush_lock);
	err = bio->flush_error;
	if (!err && bio->flush_active) {
		io_queue_push(&bio->flush_next, io);
	} else if (!err) {
		io_queue_push(&bio->flush_now, io);
		bio->flush_active = true;
		start = true;
	}
	slu_mutex_unlock(&bio->flush_lock);

	if (err) {
		blockio_complete(io, err);
	} else if (start) {
		blockio_start(bio, &bio->flush_io);
		bio->engine->submit(bio->state, &bio->flush_io);
	}
}

/* ------------------------------------------------------------------ submit */

static int check_iov(const struct slu_io *io)
{
	uint64_t sum = 0;

	if (!io->nblocks || io->nblocks > SLU_IO_MAX_BLOCKS || io->niov < 1 ||
	    io->niov > SLU_IO_MAX_IOV)
		return -EINVAL;
	for (int i = 0; i < io->niov; i++) {
		const struct iovec *v = &io->iov[i];

		if (((uintptr_t)v->iov_base | v->iov_len) & (SLU_BLOCK_SIZE - 1) || !v->iov_len ||
		    v->iov_len > blockio_bytes(io))
			return -EINVAL;
		sum += v->iov_len;
	}
	return sum == blockio_bytes(io) ? 0 : -EINVAL;
}

static int check_range(const struct slu_blockio *bio, uint64_t blkno, uint64_t nblocks)
{
	uint64_t end = atomic_load_explicit(&bio->info.nblocks, memory_order_acquire);

	return nblocks <= end && blkno <= end - nblocks ? 0 : -EIO;
}

static int check_io(const struct slu_blockio *bio, const struct slu_io *io)
{
	int err;

	switch (io->op) {
	case SLU_IO_FLUSH:
		return 0;
	case SLU_IO_READ:
	case SLU_IO_WRITE:
		err = check_iov(io);
		if (err)
			return err;
		break;
	case SLU_IO_DISCARD:
		if (!io->nblocks)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	if (io->op != SLU_IO_READ && bio->info.readonly)
		return -EROFS;
	if (io->op == SLU_IO_WRITE && atomic_load_explicit(&bio->info.cut, memory_order_relaxed))
		return -EIO;
	return check_range(bio, io->blkno, io->nblocks);
}

static void count_op(struct slu_blockio *bio, enum slu_io_op op, uint32_t nblocks)
{
	struct slu_blockio_stats *s = &bio->stats;

	switch (op) {
	case SLU_IO_READ:
		atomic_fetch_add_explicit(&s->reads, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&s->read_blocks, nblocks, memory_order_relaxed);
		break;
	case SLU_IO_WRITE:
		atomic_fetch_add_explicit(&s->writes, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&s->write_blocks, nblocks, memory_order_relaxed);
		break;
	case SLU_IO_FLUSH:
		atomic_fetch_add_explicit(&s->flushes, 1, memory_order_relaxed);
		break;
	case SLU_IO_DISCARD:
		atomic_fetch_add_explicit(&s->discards, 1, memory_order_relaxed);
		break;
	}
}

void slu_blockio_submit(struct slu_blockio *bio, struct slu_io *io)
{
	int err;

	if (is_change(io->op) && !change_begin_or_postpone(bio, io))
		return;
	err = check_io(bio, io);
	/* The second reference is this call's own: end_io may let another thread close bio. */
	blockio_get(bio);
	blockio_start(bio, io);
	if (err) {
		blockio_complete(io, err);
	} else {
		count_op(bio, io->op, io->nblocks);
		io->start_ns = slu_clock_ns();
		if (io->op == SLU_IO_FLUSH)
			submit_flush(bio, io);
		else
			bio->engine->submit(bio->state, io);
	}
	blockio_put(bio);
}

/* ------------------------------------------------------------------ synchronous helpers */

struct sync_wait {
	struct slu_io io;
	_Atomic uint32_t done;
};

/* Once done is set the waiter's stack frame may be gone: the wake uses the address alone. */
static void sync_end_io(struct slu_io *io)
{
	struct sync_wait *w = slu_container_of(io, struct sync_wait, io);
	_Atomic uint32_t *done = &w->done;

	atomic_store_explicit(done, 1, memory_order_release);
	slu_word_wake(done, INT_MAX);
}

static int submit_and_wait(struct slu_blockio *bio, enum slu_io_op op, uint64_t blkno,
			   uint32_t nblocks, void *buf)
{
	struct iovec iov = {buf, (size_t)nblocks << SLU_BLOCK_SHIFT};
	struct sync_wait w = {
		.io = {.op = op, .blkno = blkno, .nblocks = nblocks, .iov = &iov, .niov = 1},
	};

	w.io.end_io = sync_end_io;
	slu_blockio_submit(bio, &w.io);
	while (!atomic_load_explicit(&w.done, memory_order_acquire))
		(void)slu_word_wait(&w.done, 0, SLU_NO_DEADLINE);
	return w.io.result;
}

static int rw_sync(struct slu_blockio *bio, enum slu_io_op op, uint64_t blkno, uint32_t nblocks,
		   void *buf)
{
	uint64_t start_ns;
	int err = 0;

	slu_assert_no_locks("synchronous block I/O");
	if ((uintptr_t)buf & (SLU_BLOCK_SIZE - 1) || !nblocks)
		return -EINVAL;
	if (op == SLU_IO_WRITE && bio->info.readonly)
		return -EROFS;
	if (op == SLU_IO_WRITE && atomic_load_explicit(&bio->info.cut, memory_order_relaxed))
		return -EIO;
	err = check_range(bio, blkno, nblocks);
	while (!err && nblocks) {
		uint32_t n = slu_min(nblocks, (uint32_t)SLU_IO_MAX_BLOCKS);

		if (bio->engine->rw_sync) {
			if (is_change(op))
				change_begin_wait(bio);
			count_op(bio, op, n);
			start_ns = slu_clock_ns();
			err = bio->engine->rw_sync(bio->state, op, blkno, n, buf);
			slu_histogram_add(&bio->stats.took[op], slu_clock_ns() - start_ns);
			if (is_change(op))
				change_end(bio);
			count_end(bio, err);
		} else {
			err = submit_and_wait(bio, op, blkno, n, buf);
		}
		blkno += n;
		nblocks -= n;
		buf = (char *)buf + ((size_t)n << SLU_BLOCK_SHIFT);
	}
	return err;
}

int slu_blockio_read(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks, void *buf)
{
	return rw_sync(bio, SLU_IO_READ, blkno, nblocks, buf);
}

int slu_blockio_write(struct slu_blockio *bio, uint64_t blkno, uint32_t nblocks, const void *buf)
{
	return rw_sync(bio, SLU_IO_WRITE, blkno, nblocks, (void *)buf);
}

int slu_blockio_flush(struct slu_blockio *bio)
{
	slu_assert_no_locks("flush");
	return submit_and_wait(bio, SLU_IO_FLUSH, 0, 0, NULL);
}

/* ------------------------------------------------------------------ space of the host */

int slu_blockio_reserve(struct slu_blockio *bio, uint64_t blkno, uint64_t nblocks)
{
	int err;

	slu_assert_no_locks("reserve host blocks");
	if (bio->info.readonly)
		return -EROFS;
	err = check_range(bio, blkno, nblocks);
	if (err || !nblocks)
		return err;
	if (!bio->engine->reserve) {
		err = -EOPNOTSUPP;
	} else {
		change_begin_wait(bio);
		err = bio->engine->reserve(bio->state, blkno, nblocks);
		change_end(bio);
	}
	if (err == -EOPNOTSUPP)
		atomic_store_explicit(&bio->info.can_reserve, false, memory_order_relaxed);
	return err;
}

int slu_blockio_grow(struct slu_blockio *bio, uint64_t nblocks)
{
	uint64_t now = atomic_load_explicit(&bio->info.nblocks, memory_order_relaxed);
	int err;

	slu_assert_no_locks("grow the image");
	if (bio->info.readonly)
		return -EROFS;
	change_begin_wait(bio);
	err = bio->engine->grow(bio->state, nblocks, &now);
	change_end(bio);
	atomic_store_explicit(&bio->info.nblocks, now, memory_order_release);
	return err;
}

int slu_blockio_used(struct slu_blockio *bio, uint64_t blkno, uint64_t *ret)
{
	uint64_t end = atomic_load_explicit(&bio->info.nblocks, memory_order_relaxed);

	slu_assert_no_locks("look for what the image holds");
	if (bio->engine->used)
		return bio->engine->used(bio->state, blkno, ret);
	*ret = blkno < end ? blkno : UINT64_MAX;
	return 0;
}

void slu_blockio_expect(struct slu_blockio *bio, uint64_t nblocks)
{
	atomic_store_explicit(&bio->expected, nblocks, memory_order_release);
}

bool slu_blockio_is_cut(struct slu_blockio *bio)
{
	/* Before the image is measured: it is made longer before more of it is expected. */
	uint64_t expected = atomic_load_explicit(&bio->expected, memory_order_acquire), has;

	if (atomic_load_explicit(&bio->info.cut, memory_order_relaxed))
		return true;
	/* A host that does not answer has not said that anything is lost. */
	if (!bio->engine->length || bio->engine->length(bio->state, &has) || has >= expected)
		return false;
	atomic_store_explicit(&bio->info.cut, true, memory_order_relaxed);
	return true;
}

/* ------------------------------------------------------------------ open and close */

static int open_with(struct slu_blockio *bio, const struct slu_blockio_engine *engine,
		     const char *name, const struct slu_blockio_opts *opts)
{
	memset(&bio->info, 0, sizeof(bio->info));
	bio->engine = engine;
	bio->info.engine = engine->name;
	bio->info.readonly = opts->readonly;
	bio->info.image_offset = opts->image_offset;
	bio->info.image_size = opts->image_size;
	return engine->open(name, opts, &bio->info, &bio->state);
}

/* io_uring if the host lets us; else threads, and say why. */
static int open_best(struct slu_blockio *bio, const char *name, const struct slu_blockio_opts *opts)
{
	int err = open_with(bio, &uring_engine, name, opts);

	if (!err || !bio->info.fallback)
		return err;
	snprintf(bio->fallback, sizeof(bio->fallback), "%s", bio->info.fallback);
	err = open_with(bio, &threads_engine, name, opts);
	if (!err && bio->info.fallback) {
		size_t n = strlen(bio->fallback);

		snprintf(bio->fallback + n, sizeof(bio->fallback) - n, "; %s", bio->info.fallback);
	}
	bio->info.fallback = bio->fallback;
	return err;
}

static int open_named(struct slu_blockio *bio, const char *name,
		      const struct slu_blockio_opts *opts)
{
	for (size_t i = 0; i < slu_array_size(engines); i++)
		if (!strcmp(engines[i]->name, opts->engine))
			return open_with(bio, engines[i], name, opts);
	return -EINVAL;
}

int slu_blockio_open(const char *name, const struct slu_blockio_opts *opts,
		     struct slu_blockio **ret)
{
	struct slu_blockio *bio;
	int err;

	slu_assert_no_locks("open an image");
	if (opts->image_offset % SLU_BLOCK_SIZE || opts->image_size % SLU_BLOCK_SIZE ||
	    opts->image_offset > INT64_MAX || opts->image_size > INT64_MAX)
		return -EINVAL;
	bio = slu_zalloc(sizeof(*bio));
	if (!bio)
		return -ENOMEM;
	if (opts->engine)
		err = open_named(bio, name, opts);
	else if (opts->sim)
		err = open_with(bio, &sim_engine, name, opts);
	else
		err = open_best(bio, name, opts);
	if (err) {
		slu_free(bio);
		return err;
	}
	slu_mutex_init(&bio->flush_lock, SLU_RANK_LEAF, 0, "blockio flush");
	slu_mutex_init(&bio->suspend_lock, SLU_RANK_LEAF, 0, "blockio suspend");
	slu_cond_init(&bio->resumed);
	bio->flush_io.op = SLU_IO_FLUSH;
	bio->flush_io.end_io = flush_end_io;
	bio->flush_io.private = bio;
	bio->progress = opts->progress;
	*ret = bio;
	return 0;
}

void slu_blockio_close(struct slu_blockio *bio)
{
	uint32_t refs;

	if (!bio)
		return;
	slu_assert_no_locks("close an image");
	slu_assert(!bio->suspended_since_ns);
	atomic_fetch_or_explicit(&bio->refs, REFS_CLOSING, memory_order_relaxed);
	while ((refs = atomic_load_explicit(&bio->refs, memory_order_acquire)) != REFS_CLOSING)
		(void)slu_word_wait(&bio->refs, refs, SLU_NO_DEADLINE);
	bio->engine->close(bio->state);
	slu_cond_fini(&bio->resumed);
	slu_mutex_fini(&bio->suspend_lock);
	slu_mutex_fini(&bio->flush_lock);
	slu_free(bio);
}

const struct slu_blockio_info *slu_blockio_info(const struct slu_blockio *bio)
{
	return &bio->info;
}

struct slu_blockio_stats *slu_blockio_stats(struct slu_blockio *bio)
{
	return &bio->stats;
}
