/* SPDX-License-Identifier: MIT */
/*
 * The host's own blocks behind a sparse image: what is promised must be there when it is written.
 *
 * Nothing is known of what the host has backed before the mount, so chunks start as not backed; a
 * reservation that the free blocks of backed chunks do not cover asks the host for more (fallocate,
 * 64 MiB at a time, a chunk at a time where the host is nearly full), with no lock held, and blocks
 * are taken from backed chunks alone. Nodes are covered by a margin on top of what is reserved;
 * should they be short all the same, the commit waits for the host as described in commit.c.
 *
 * Where the host cannot do this, it is switched off. space_lock protects it all; host_busy
 * (store->lock) lets one thread at a time ask the host.
 */
#include "store_private.h"

#define REGION_CHUNKS ((64u << 20) / (SLU_CHUNK_BLOCKS * SLU_BLOCK_SIZE))

void host_space_init(struct slu_store *store, bool on)
{
	store->space.host.on = on && slu_blockio_info(store->bio)->can_reserve;
}

/* What must be there for nblocks more. */
static bool host_covered(const struct slu_store *store, uint64_t nblocks)
{
	const struct space *sp = &store->space;

	return !sp->host.on || sp->host.backed_chunks == sp->nchunks ||
	       sp->host.free >= stat_get(&sp->reserved) + nblocks + store->max_nodes;
}

/* The next run of chunks to back, from the cursor on; false if there is none. */
static bool host_pick(struct slu_store *store, uint64_t *ret_first, uint64_t *ret_n)
{
	struct space *sp = &store->space;

	for (uint64_t i = 0; i < sp->nchunks; i++) {
		uint64_t index = (sp->host.next + i) % sp->nchunks, n = 0;

		/* Full ones need no backing now; others that follow go with it. */
		if (chunk_backed(&sp->chunks, index) || chunk_known_free(&sp->chunks, index) == 0)
			continue;
		while (n < REGION_CHUNKS && index + n < sp->nchunks &&
		       !chunk_backed(&sp->chunks, index + n))
			n++;
		*ret_first = index;
		*ret_n = n;
		return true;
	}
	return false;
}

/*
 * The host has backed the chunk, as far as `end`: its free blocks may be handed out. Nothing happens
 * if the volume has grown meanwhile and the chunk with it.
 */
static int host_add(struct slu_store *store, uint64_t index, uint64_t end)
{
	uint64_t chunk_end = (index + 1) * SLU_CHUNK_BLOCKS;
	struct slu_need need;
	struct chunk *c;
	int err;

	do {
		need = (struct slu_need){0};
		slu_mutex_lock(&store->space_lock);
		if (slu_min(chunk_end, store->space.nblocks) <= end) {
			err = chunk_load(store, index, &c, &need);
			if (!err)
				err = chunk_set_backed(store, c);
		} else {
			err = 0;
		}
		slu_mutex_unlock(&store->space_lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}

static int host_back(struct slu_store *store, uint64_t first, uint64_t n)
{
	uint64_t blkno = first * SLU_CHUNK_BLOCKS, end;
	int err;

	slu_mutex_lock(&store->space_lock);
	end = slu_min((first + n) * SLU_CHUNK_BLOCKS, store->space.nblocks);
	slu_mutex_unlock(&store->space_lock);
	err = slu_blockio_reserve(store->bio, blkno, end - blkno);
	if (err == -EOPNOTSUPP) {
		slu_mutex_lock(&store->space_lock);
		store->space.host.on = false;
		slu_mutex_unlock(&store->space_lock);
		return 0;
	}
	for (uint64_t i = first; i < first + n && !err; i++)
		err = host_add(store, i, end);
	return err;
}

static int host_back_more(struct slu_store *store, uint64_t nblocks)
{
	uint64_t first = 0, n = 0;
	bool done;
	int err;

	slu_mutex_lock(&store->space_lock);
	done = host_covered(store, nblocks) || !host_pick(store, &first, &n);
	if (!done)
		store->space.host.next = first + n;
	slu_mutex_unlock(&store->space_lock);
	if (done)
		return 0;
	err = host_back(store, first, n);
	if (err == -ENOSPC && n > 1) {
		err = host_back(store, first, 1);
		slu_mutex_lock(&store->space_lock);
		store->space.host.next = first;
		slu_mutex_unlock(&store->space_lock);
	}
	if (err == -ENOSPC)
		slu_event_post(&store->events,
			       &(struct slu_event){.kind = SLU_EVENT_NO_SPACE,
						   .error = err,
						   .text = "the host has no room for the image"});
	return err;
}

static int host_wait(struct slu_need *need)
{
	struct slu_store *store = need->owner;
	int err;

	slu_mutex_lock(&store->lock);
	while (store->host_busy)
		slu_cond_wait(&store->commit.done, &store->lock);
	store->host_busy = true;
	slu_mutex_unlock(&store->lock);
	err = host_back_more(store, need->arg[0]);
	slu_mutex_lock(&store->lock);
	store->host_busy = false;
	slu_cond_broadcast(&store->commit.done);
	slu_mutex_unlock(&store->lock);
	return err;
}

int host_space_admit(struct slu_store *store, uint64_t nblocks, struct slu_need *need)
{
	uint64_t first, n;

	if (host_covered(store, nblocks))
		return 0;
	if (!host_pick(store, &first, &n)) {
		/* All that is free is backed already: what is missing is pending. */
		return 0;
	}
	need->wait = host_wait;
	need->what = "blocks of the host";
	need->owner = store;
	need->arg[0] = nblocks;
	need->slow = true;
	return -EAGAIN;
}

bool host_space_usable(const struct slu_store *store, uint64_t chunk)
{
	return !store->space.host.on || chunk_backed(&store->space.chunks, chunk);
}
