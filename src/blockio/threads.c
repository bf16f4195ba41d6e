/* SPDX-License-Identifier: MIT */
/*
 * blockio: the threads engine, for hosts where io_uring is forbidden, and the pool of workers it is
 * made of (the uring engine has a pool of one for what a ring cannot do).
 *
 * A worker takes the oldest request, does it with plain system calls, and ends it. Lock: the pool's
 * (leaf), for the queue; not held during I/O or end_io.
 */
#include "blockio_private.h"

#define IO_POOL_THREADS 4

struct io_pool {
	struct slu_mutex lock;
	struct slu_cond more;
	struct io_queue queue; /* under lock */
	unsigned int nidle;    /* workers that wait; under lock */
	bool stop;             /* under lock */
	struct image *img;
	unsigned int nthreads;
	struct slu_thread threads[];
};

static void io_pool_worker(void *arg)
{
	struct io_pool *pool = arg;
	struct slu_io *io;

	slu_mutex_lock(&pool->lock);
	for (;;) {
		io = io_queue_pop(&pool->queue);
		if (!io && pool->stop)
			break;
		if (!io) {
			pool->nidle++;
			slu_cond_wait(&pool->more, &pool->lock);
			pool->nidle--;
			continue;
		}
		slu_mutex_unlock(&pool->lock);
		blockio_complete(io, image_do(pool->img, io));
		slu_mutex_lock(&pool->lock);
	}
	slu_mutex_unlock(&pool->lock);
}

void io_pool_submit(struct io_pool *pool, struct slu_io *io)
{
	bool wake;

	slu_mutex_lock(&pool->lock);
	io_queue_push(&pool->queue, io);
	wake = pool->nidle > 0;
	slu_mutex_unlock(&pool->lock);
	/* A worker that does not wait looks at the queue before it does. */
	if (wake)
		slu_cond_signal(&pool->more);
}

void io_pool_free(struct io_pool *pool)
{
	if (!pool)
		return;
	slu_mutex_lock(&pool->lock);
	pool->stop = true;
	slu_mutex_unlock(&pool->lock);
	slu_cond_broadcast(&pool->more);
	for (unsigned int i = 0; i < pool->nthreads; i++)
		slu_thread_join(&pool->threads[i]);
	slu_assert(!pool->queue.head);
	slu_cond_fini(&pool->more);
	slu_mutex_fini(&pool->lock);
	slu_free(pool);
}

/* With fewer threads than asked for it still works; without any it does not. */
int io_pool_new(struct image *img, unsigned int nthreads, struct io_pool **ret)
{
	struct io_pool *pool = slu_zalloc(sizeof(*pool) + nthreads * sizeof(pool->threads[0]));
	int err = 0;

	if (!pool)
		return -ENOMEM;
	slu_mutex_init(&pool->lock, SLU_RANK_LEAF, 0, "blockio queue");
	slu_cond_init(&pool->more);
	pool->img = img;
	for (unsigned int i = 0; i < nthreads && !err; i++) {
		err = slu_thread_start(&pool->threads[i], "slu-io", io_pool_worker, pool);
		if (!err)
			pool->nthreads++;
	}
	if (!pool->nthreads) {
		io_pool_free(pool);
		return err;
	}
	*ret = pool;
	return 0;
}

/* ------------------------------------------------------------------ the engine */

struct threads {
	struct image img;
	struct io_pool *pool;
};

static int threads_open(const char *name, const struct slu_blockio_opts *opts,
			struct slu_blockio_info *info, void **ret_state)
{
	struct threads *t = slu_zalloc(sizeof(*t));
	unsigned int n = IO_POOL_THREADS;
	int err;

	if (!t)
		return -ENOMEM;
	if (opts->queue_depth)
		n = slu_min(n, opts->queue_depth);
	err = image_open(&t->img, name, opts, info);
	if (err)
		goto free_state;
	err = io_pool_new(&t->img, n, &t->pool);
	if (err)
		goto close_image;
	*ret_state = t;
	return 0;

close_image:
	image_close(&t->img);
free_state:
	slu_free(t);
	return err;
}

static void threads_submit(void *state, struct slu_io *io)
{
	struct threads *t = state;

	io_pool_submit(t->pool, io);
}

static int threads_rw_sync(void *state, enum slu_io_op op, uint64_t blkno, uint32_t nblocks,
			   void *buf)
{
	struct threads *t = state;

	return image_rw_sync(&t->img, op, blkno, nblocks, buf);
}

static int threads_reserve(void *state, uint64_t blkno, uint64_t nblocks)
{
	struct threads *t = state;

	return image_reserve(&t->img, blkno, nblocks);
}

static int threads_grow(void *state, uint64_t nblocks, uint64_t *ret_nblocks)
{
	struct threads *t = state;

	return image_grow(&t->img, nblocks, ret_nblocks);
}

static int threads_length(void *state, uint64_t *ret_nblocks)
{
	struct threads *t = state;

	return image_length(&t->img, ret_nblocks);
}

static int threads_used(void *state, uint64_t blkno, uint64_t *ret)
{
	struct threads *t = state;

	return image_used(&t->img, blkno, ret);
}

static void threads_close(void *state)
{
	struct threads *t = state;

	io_pool_free(t->pool);
	image_close(&t->img);
	slu_free(t);
}

const struct slu_blockio_engine threads_engine = {
	.name = "threads",
	.open = threads_open,
	.submit = threads_submit,
	.rw_sync = threads_rw_sync,
	.reserve = threads_reserve,
	.grow = threads_grow,
	.length = threads_length,
	.used = threads_used,
	.close = threads_close,
};
