/* SPDX-License-Identifier: MIT */
/*
 * Commit: nodes, flush, superblock, flush; the thread that does it; and those who wait for it.
 *
 * One thread at a time is in commit_once: the commit thread, or format and close while it does not
 * run. It holds no lock while it waits for the disk, and what it needs to write is set aside at
 * open (COMMIT_IOS requests); a commit under way waits for nobody else.
 *
 * What can fail: a node's write harms nothing yet. The transaction goes back (thaw), gets other
 * blocks and is tried again, at once a few times if the disk says EIO, then after growing delays;
 * who waits for the commit is told each time. A failed flush or superblock write is the end: what
 * the disk holds is not known any more, and the volume turns read-only.
 *
 * Flushes are shared: a flush covers all writes completed before it began, so of those who ask
 * while one is under way, one starts the next when that has ended, and the others wait for it.
 */
#include "store_private.h"

#define RETRY_AT_ONCE  3
#define RETRY_FIRST_NS (100 * SLU_NS_PER_MS)
#define RETRY_MOST_NS  (5 * SLU_NS_PER_SEC)
#define SLOW_COMMIT_NS SLU_NS_PER_SEC

/* ------------------------------------------------------------------ flush */

static uint64_t flush_started(struct slu_store *store)
{
	uint64_t started;

	slu_mutex_lock(&store->flusher.lock);
	started = store->flusher.started;
	slu_mutex_unlock(&store->flusher.lock);
	return started;
}

/* Returns when flush number `number` or a later one has ended well. */
static int flush_until(struct slu_store *store, uint64_t number)
{
	struct flusher *f = &store->flusher;
	int err;

	slu_mutex_lock(&f->lock);
	while (f->done < number && !f->error) {
		uint64_t mine;

		if (f->busy) {
			slu_cond_wait(&f->done_cond, &f->lock);
			continue;
		}
		f->busy = true;
		mine = ++f->started;
		slu_mutex_unlock(&f->lock);
		err = slu_blockio_flush(store->bio);
		if (slu_mutant(FLUSH_NO_ERROR))
			err = 0;
		if (!err)
			err = slu_store_check_image(store);
		slu_mutex_lock(&f->lock);
		f->busy = false;
		if (err)
			f->error = err;
		else
			f->done = mine;
		slu_cond_broadcast(&f->done_cond);
	}
	err = f->error;
	slu_mutex_unlock(&f->lock);
	if (err)
		slu_store_fail(store, err, "a flush of the disk has failed");
	return err;
}

int store_flush(struct slu_store *store)
{
	return flush_until(store, flush_started(store) + 1);
}

/* ------------------------------------------------------------------ writing nodes */

static void commit_end_io(struct slu_io *io)
{
	struct commit_io *cio = io->private;
	struct commit *c = &cio->store->commit;

	slu_mutex_lock(&c->io_lock);
	if (io->result) {
		struct node *n = cio->first;

		/* -ENOSPC says nothing about these blocks. It passes; so it does not hide another
		 * error. */
		for (uint32_t i = 0; i < io->nblocks; i++, n = n->next)
			n->failed = io->result != -ENOSPC;
		if (!c->io_error || c->io_error == -ENOSPC)
			c->io_error = io->result;
	}
	cio->busy = false;
	slu_cond_signal(&c->io_done);
	slu_mutex_unlock(&c->io_lock);
}

static struct commit_io *commit_io_get(struct commit *c)
{
	struct commit_io *cio = NULL;

	slu_mutex_lock(&c->io_lock);
	while (!cio) {
		for (unsigned int i = 0; i < COMMIT_IOS && !cio; i++)
			if (!c->ios[i].busy)
				cio = &c->ios[i];
		if (!cio)
			slu_cond_wait(&c->io_done, &c->io_lock);
	}
	cio->busy = true;
	slu_mutex_unlock(&c->io_lock);
	return cio;
}

static int commit_io_wait(struct commit *c)
{
	int err;

	slu_mutex_lock(&c->io_lock);
	for (unsigned int i = 0; i < COMMIT_IOS; i++)
		while (c->ios[i].busy)
			slu_cond_wait(&c->io_done, &c->io_lock);
	err = c->io_error;
	c->io_error = 0;
	slu_mutex_unlock(&c->io_lock);
	return err;
}

/*
 * Writes all nodes of the flushing list. Nobody else changes the list or the nodes on it while a
 * commit is under way: a newer copy leaves the old one in place.
 */
static int commit_write_nodes(struct slu_store *store)
{
	struct commit *c = &store->commit;
	struct node *n = store->cache.flushing.first;
	uint64_t nnodes = 0;

	while (n) {
		struct commit_io *cio = commit_io_get(c);
		uint32_t count = 0;

		cio->first = n;
		do {
			slu_put_le64(&n->disk->checksum, disk_checksum(n->disk));
			cio->iov[count++] = (struct iovec){n->disk, SLU_BLOCK_SIZE};
			n = n->next;
		} while (n && count < COMMIT_IO_BLOCKS &&
			 n->ref.number == cio->first->ref.number + count);
		cio->io = (struct slu_io){.op = SLU_IO_WRITE,
					  .blkno = cio->first->ref.number,
					  .nblocks = count,
					  .iov = cio->iov,
					  .niov = (int)count,
					  .end_io = commit_end_io,
					  .private = cio};
		nnodes += count;
		slu_blockio_submit(store->bio, &cio->io);
	}
	stat_add(&store->stats.commit_nodes, nnodes);
	return commit_io_wait(c);
}

/* ------------------------------------------------------------------ one commit */

static int commit_superblock(struct slu_store *store)
{
	const struct slu_disk_super *sb = &store->commit.super;
	int err = super_write(store, slu_get_le64(&sb->txid) & 1, sb);

	if (err) {
		slu_store_fail(store, err, "the superblock cannot be written");
		return err;
	}
	return store_flush(store);
}

/* 0; 1: nothing to do; -errno: *ret_again if trying again at once may help. */
static int commit_try(struct slu_store *store, bool *ret_again)
{
	int err;

	*ret_again = false;
	/* Before the nodes, which may make an image that was cut off long again. */
	err = slu_store_check_image(store);
	if (!err)
		err = freeze(store);
	if (err)
		return err;
	slu_stress_point("store-commit-frozen");
	err = commit_write_nodes(store);
	if (err) {
		if (err == -ENOSPC)
			slu_event_post(
				&store->events,
				&(struct slu_event){.kind = SLU_EVENT_NO_SPACE,
						    .error = err,
						    .text = "the host has no room for a commit"});
		thaw(store);
		*ret_again = err != -ENOSPC;
		return err;
	}
	if (!slu_mutant(NO_FLUSH))
		err = store_flush(store);
	if (!err)
		err = commit_superblock(store);
	if (err)
		return err;
	slu_stress_point("store-commit-durable");
	freeze_durable(store);
	return 0;
}

int commit_once(struct slu_store *store)
{
	uint64_t begin = slu_clock_ns() - slu_blockio_suspended_ns(store->bio), took;
	bool again = true;
	int err = 0;

	for (unsigned int i = 0; again; i++) {
		if (i)
			slu_sleep_ns(SLU_NS_PER_MS << (3 * i));
		err = commit_try(store, &again);
		if (i == RETRY_AT_ONCE)
			again = false;
	}
	if (err)
		return err < 0 ? err : 0;
	stat_add(&store->stats.commits, 1);
	took = slu_clock_ns() - slu_blockio_suspended_ns(store->bio) - begin;
	slu_histogram_add(&store->stats.commits_took, took);
	if (took > SLOW_COMMIT_NS)
		slu_event_post(&store->events,
			       &(struct slu_event){.kind = SLU_EVENT_SLOW_COMMIT, .len = took});
	return 0;
}

/* ------------------------------------------------------------------ the thread */

/* When the thread has to act, if nothing else happens; 0: now. */
static uint64_t commit_due(const struct slu_store *store)
{
	const struct commit *c = &store->commit;
	uint64_t due = SLU_NO_DEADLINE;

	if (c->paused)
		return due;
	if (c->kick)
		return 0;
	if (store->open.first_change_ns)
		due = store->open.first_change_ns + store->commit_interval_ns;
	if (c->soon || c->force)
		due = 0;
	return slu_max(due, c->retry_ns);
}

/*
 * What fails once may do so because of the place, or pass; a disk that refuses every place for so
 * long is as good as gone, and nobody is to go on believing in what only memory has. A full host
 * and a lack of memory are waited out.
 */
static void commit_failed(struct slu_store *store, int err) SLU_REQUIRES(store->lock)
{
	struct commit *c = &store->commit;
	uint64_t now = slu_clock_ns();

	c->failures++;
	c->last_error = err;
	c->delay_ns = c->delay_ns ? slu_min(c->delay_ns * 2, RETRY_MOST_NS) : RETRY_FIRST_NS;
	c->retry_ns = now + c->delay_ns;
	if (err == -ENOSPC || err == -ENOMEM) {
		c->failing_ns = 0;
		return;
	}
	if (atomic_load(&store->failed))
		return;
	slu_event_post(&store->events,
		       &(struct slu_event){.kind = SLU_EVENT_COMMIT_FAILED, .error = err});
	if (!c->failing_ns)
		c->failing_ns = now;
	else if (now - c->failing_ns >= store->give_up_ns)
		store_fail_locked(store, err, "metadata cannot be written");
}

/* store->lock is dropped and taken again. */
static void commit_attempt(struct slu_store *store) SLU_REQUIRES(store->lock)
{
	struct commit *c = &store->commit;
	int err;

	c->kick = c->soon = false;
	c->running = true;
	slu_mutex_unlock(&store->lock);
	err = commit_once(store);
	slu_mutex_lock(&store->lock);
	c->running = false;
	if (err) {
		commit_failed(store, err);
	} else {
		c->delay_ns = c->retry_ns = c->failing_ns = 0;
	}
	slu_cond_broadcast(&c->done);
}

void commit_main(void *arg)
{
	struct slu_store *store = arg;
	struct commit *c = &store->commit;

	slu_mutex_lock(&store->lock);
	while (!c->stop) {
		uint64_t due = atomic_load(&store->failed) ? SLU_NO_DEADLINE : commit_due(store);

		if (due == SLU_NO_DEADLINE)
			slu_cond_wait(&c->wake, &store->lock);
		else if (due > slu_clock_ns())
			slu_cond_timedwait(&c->wake, &store->lock, due);
		else
			commit_attempt(store);
	}
	slu_mutex_unlock(&store->lock);
}

/* ------------------------------------------------------------------ asking for one */

void commit_soon_locked(struct slu_store *store)
{
	if (store->commit.soon)
		return;
	store->commit.soon = true;
	slu_cond_signal(&store->commit.wake);
}

void slu_store_commit_soon(struct slu_store *store)
{
	slu_mutex_lock(&store->lock);
	if (!store_readonly(store) && commit_needed(store))
		commit_soon_locked(store);
	slu_mutex_unlock(&store->lock);
}

static int commit_wait(struct slu_store *store, uint64_t txid)
{
	struct commit *c = &store->commit;
	int failed_before = atomic_load(&store->failed), err = 0;
	uint64_t failures;

	slu_mutex_lock(&store->lock);
	if (txid >= store->open.id)
		txid = commit_needed(store) ? store->open.id : store->open.id - 1;
	failures = c->failures;
	while (atomic_load(&store->durable_txid) < txid) {
		if (c->failures != failures) {
			err = c->last_error;
			break;
		}
		if (store_readonly(store)) {
			/* Who waits for the commit that has failed is told with what. */
			err = failed_before ? 0 : atomic_load(&store->failed);
			err = err ? err : -EROFS;
			break;
		}
		if (txid > c->frozen_txid && !c->kick) {
			c->kick = true;
			slu_cond_signal(&c->wake);
		}
		slu_cond_wait(&c->done, &store->lock);
	}
	slu_mutex_unlock(&store->lock);
	return err;
}

int slu_store_commit(struct slu_store *store, uint64_t txid, bool flush)
{
	uint64_t flushes = flush_started(store);
	int err;

	slu_assert_no_locks("a commit");
	err = commit_wait(store, txid);
	if (err || !flush)
		return err;
	/* A flush of the commit's own will do, if it began after this call. */
	return store->readonly ? 0 : flush_until(store, flushes + 1);
}

/* ------------------------------------------------------------------ init */

int commit_init(struct slu_store *store)
{
	struct commit *c = &store->commit;

	slu_cond_init(&c->wake);
	slu_cond_init(&c->done);
	slu_cond_init(&c->io_done);
	slu_mutex_init(&c->io_lock, SLU_RANK_LEAF, 0, "store commit I/O");
	slu_mutex_init(&store->flusher.lock, SLU_RANK_LEAF, 0, "store flush");
	slu_cond_init(&store->flusher.done_cond);
	c->ios = slu_calloc(COMMIT_IOS, sizeof(*c->ios));
	if (!c->ios)
		return -ENOMEM;
	for (unsigned int i = 0; i < COMMIT_IOS; i++)
		c->ios[i].store = store;
	return 0;
}

void commit_fini(struct slu_store *store)
{
	struct commit *c = &store->commit;

	freed_list_fini(&c->flushing);
	freed_list_fini(&c->previous);
	slu_free(c->ios);
	slu_cond_fini(&store->flusher.done_cond);
	slu_mutex_fini(&store->flusher.lock);
	slu_mutex_fini(&c->io_lock);
	slu_cond_fini(&c->io_done);
	slu_cond_fini(&c->done);
	slu_cond_fini(&c->wake);
}
