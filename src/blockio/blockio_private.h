/* SPDX-License-Identifier: MIT */
/* Shared between the files of blockio; nobody else includes it. */
#ifndef SLUICE_BLOCKIO_PRIVATE_H
#define SLUICE_BLOCKIO_PRIVATE_H

#include "sluice/blockio.h"

/* io->engine[] : 0..2 belong to the engine, this one to blockio.c (the struct slu_blockio). */
#define BLOCKIO_SLOT_BIO 3

/*
 * The end of every request. Sets the result, counts, calls end_io and lets close go on. The caller
 * holds no lock and does not touch io afterwards.
 */
void blockio_complete(struct slu_io *io, int result);

extern const struct slu_blockio_engine uring_engine;
extern const struct slu_blockio_engine threads_engine;
extern const struct slu_blockio_engine sim_engine;

/* Bytes of the iovecs; they are checked and small, so it cannot overflow. */
static inline uint64_t blockio_bytes(const struct slu_io *io)
{
	return (uint64_t)io->nblocks << SLU_BLOCK_SHIFT;
}

/* A first-in first-out chain of requests through io->next. No lock of its own. */
struct io_queue {
	struct slu_io *head, *tail;
};

static inline void io_queue_push(struct io_queue *q, struct slu_io *io)
{
	io->next = NULL;
	if (q->tail)
		q->tail->next = io;
	else
		q->head = io;
	q->tail = io;
}

static inline struct slu_io *io_queue_pop(struct io_queue *q)
{
	struct slu_io *io = q->head;

	if (io) {
		q->head = io->next;
		if (!q->head)
			q->tail = NULL;
		io->next = NULL;
	}
	return io;
}

/* Moves all of `from` to the end of `to`. */
static inline void io_queue_splice(struct io_queue *to, struct io_queue *from)
{
	if (!from->head)
		return;
	if (to->tail)
		to->tail->next = from->head;
	else
		to->head = from->head;
	to->tail = from->tail;
	from->head = from->tail = NULL;
}

/* ------------------------------------------------------------------ image.c, lock.c */

/*
 * One open file or block device: what the uring and the threads engine have in common. Safe from
 * any thread; the fields do not change after open, but for `direct` in grow.
 */
struct image {
	int fd;
	int backing_fd; /* holds the lock on the file behind a loop device; -1: none */
	bool readonly;
	bool device;
	bool buffered;            /* asked for */
	bool probed;              /* whether O_DIRECT works is known */
	_Atomic bool can_discard; /* false once the host said no */
	uint64_t offset;          /* bytes in the image where the volume starts */
	uint64_t limit;           /* bytes from offset that may be used; 0: all */
	struct slu_blockio_info *info;
	char fallback[160];
};

/* Opens, locks, measures and probes; fills info (but for the engine's name). */
int image_open(struct image *img, const char *name, const struct slu_blockio_opts *opts,
	       struct slu_blockio_info *info);
void image_close(struct image *img);

/* Bytes from the start of the image file. */
static inline uint64_t image_pos(const struct image *img, uint64_t blkno)
{
	return img->offset + (blkno << SLU_BLOCK_SHIFT);
}

/* A read has found the end of the image where there was more at open. */
static inline void image_seen_cut(struct image *img)
{
	atomic_store_explicit(&img->info->cut, true, memory_order_relaxed);
}

/* These block. 0 or -errno. */
int image_do(struct image *img, const struct slu_io *io);
int image_rw(struct image *img, bool write, const struct iovec *iov, int niov, uint64_t pos);
int image_discard(struct image *img, uint64_t blkno, uint64_t nblocks);
int image_rw_sync(struct image *img, enum slu_io_op op, uint64_t blkno, uint32_t nblocks,
		  void *buf);
int image_reserve(struct image *img, uint64_t blkno, uint64_t nblocks);
int image_grow(struct image *img, uint64_t nblocks, uint64_t *ret_nblocks);
int image_length(struct image *img, uint64_t *ret_nblocks);
int image_used(struct image *img, uint64_t blkno, uint64_t *ret);

/*
 * Where to go on after `done` bytes of iov: *idx is the first iovec not finished; if it was begun,
 * *rest is what is left of it and true is returned: transfer *rest alone first.
 */
bool image_iov_rest(const struct iovec *iov, int niov, uint64_t done, int *idx, struct iovec *rest);

/* flock as opts say, on the descriptor that I/O uses. 0, -EBUSY, or flock's error. */
int image_lock(int fd, const struct slu_blockio_opts *opts);
/*
 * The same for the file behind fd, if that is a loop device that shows all of it, since it is the
 * same volume under another name. *ret_fd holds the lock; -1 where there is no such file, or it
 * cannot be opened.
 */
int image_lock_backing(int fd, const struct slu_blockio_opts *opts, int *ret_fd);

/* ------------------------------------------------------------------ threads.c */

/* Worker threads that take requests from a queue and do them one by one with image_do. */
struct io_pool;

int io_pool_new(struct image *img, unsigned int nthreads, struct io_pool **ret);
void io_pool_submit(struct io_pool *pool, struct slu_io *io);
void io_pool_free(struct io_pool *pool); /* the queue is empty; NULL is allowed */

#endif
