/* SPDX-License-Identifier: MIT */
/*
 * The cache as a whole, and address spaces: their beginning, their end, their errors.
 *
 * Called by the stack's builder and by the owner of inodes. Takes as->tags. slu_aspace_fini waits
 * for reads in flight, evictions and passes of writeback that still have the inode in hand, with no
 * lock held.
 */
#include "cache_private.h"
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#define MIN_BYTES (1u << 20)

/* ------------------------------------------------------------------ the cache */

static int hash_init(struct slu_cache *c)
{
	c->nbuckets = GROUP_PAGES * NSTRIPES;
	while (c->nbuckets < c->nframes)
		c->nbuckets *= 2;
	c->buckets = slu_alloc(c->nbuckets * sizeof(*c->buckets));
	c->owners = slu_calloc(c->nframes, sizeof(struct slu_aspace *));
	if (!c->buckets || !c->owners)
		return -ENOMEM;
	memset(c->buckets, 0xff, c->nbuckets * sizeof(*c->buckets));
	return 0;
}

int slu_cache_new(const struct slu_cache_opts *opts, struct slu_cache **ret)
{
	struct slu_cache *c;
	int err;

	if (opts->bytes < MIN_BYTES || opts->bytes / SLU_BLOCK_SIZE > UINT32_MAX / 4)
		return -EINVAL;
	c = slu_alloc_aligned(64, sizeof(*c));
	if (!c)
		return -ENOMEM;
	memset(c, 0, sizeof(*c));
	c->events = opts->events;
	c->nframes = (uint32_t)(opts->bytes / SLU_BLOCK_SIZE);
	c->arena.fd = -1;
	for (unsigned int i = 0; i < NSTRIPES; i++)
		slu_mutex_init(&c->stripes[i].lock, SLU_RANK_LEAF, SLU_LEAF_STRIPE, "cache stripe");
	slu_mutex_init(&c->handles_lock, SLU_RANK_LEAF, SLU_LEAF_FRAMES, "open handles");
	c->free_handle = UINT32_MAX;

	err = slu_range_pool_init(&c->ranges, SLU_CACHE_SPARE_RANGES, 0);
	if (err) {
		slu_free(c);
		return err;
	}
	/* Read-only and never written: one page of the kernel's, however large. */
	c->zeros = mmap(NULL, SLU_ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->zeros == MAP_FAILED) {
		c->zeros = NULL;
		err = -ENOMEM;
	}
	if (!err)
		err = arena_new(c->nframes, &c->arena);
	if (!err)
		err = hash_init(c);
	if (!err)
		err = frames_init(c);
	if (err) {
		slu_cache_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

/* Accepts what slu_cache_new left half built. */
void slu_cache_free(struct slu_cache *c)
{
	if (!c)
		return;
	slu_assert(!c->stats.pages && !c->stats.dirty && !c->stats.writeback);
	slu_assert(c->nfree_frames == c->stats.frames && c->nfree_pages == c->nfree_frames);
	slu_assert(!c->dirty_used);
	frames_fini(c);
	slu_free(c->buckets);
	slu_free(c->owners);
	arena_free(&c->arena);
	if (c->zeros)
		munmap(c->zeros, SLU_ZERO_BYTES);
	slu_range_pool_fini(&c->ranges);
	slu_mutex_fini(&c->handles_lock);
	for (unsigned int i = 0; i < NSTRIPES; i++)
		slu_mutex_fini(&c->stripes[i].lock);
	slu_free(c);
}

const struct slu_cache_stats *slu_cache_stats(const struct slu_cache *c)
{
	return &c->stats;
}

struct slu_write_stats *slu_cache_write_stats(struct slu_cache *c)
{
	return &c->write_stats;
}

const void *slu_cache_zeros(const struct slu_cache *c)
{
	return c->zeros;
}

void slu_cache_set_hooks(struct slu_cache *c, const struct slu_cache_hooks *hooks, void *ctx)
{
	c->hooks = hooks ? *hooks : (struct slu_cache_hooks){0};
	c->hooks_ctx = ctx;
}

/* ------------------------------------------------------------------ address spaces */

void slu_aspace_init(struct slu_aspace *as, struct slu_cache *cache, struct slu_writeback *wb,
		     struct slu_iomap_inode *backend, const struct slu_aspace_owner *owner,
		     uint64_t ino, uint64_t size, uint64_t disk_size)
{
	slu_assert(ino);
	memset(as, 0, sizeof(*as));
	as->cache = cache;
	as->wb = wb;
	as->backend = backend;
	as->owner = owner;
	as->ino = ino;
	slu_rwlock_init(&as->lock, SLU_RANK_INODE, ino, "inode");
	slu_aspace_set_size(as, size);
	as->disk_size = disk_size;
	slu_mutex_init(&as->tags, SLU_RANK_LEAF, SLU_LEAF_TAGS, "page tags");
	slu_cond_init(&as->wait);
	slu_ranges_init(&as->dirty, &cache->ranges, true);
	slu_ranges_init(&as->writeback, &cache->ranges, true);
	slu_ranges_init(&as->unsynced, &cache->ranges, true);
	slu_ranges_init(&as->awaited, &cache->ranges, false);
	as->synced_end = disk_size;
	as->first_page = SLU_PAGE_NONE;
	as->cut_first = UINT64_MAX;
}

void slu_aspace_fini(struct slu_aspace *as)
{
	int busy;

	slu_assert_no_locks("the end of an inode");
	if (as->cache->hooks.detach)
		as->cache->hooks.detach(as->cache->hooks_ctx, as);
	slu_mutex_lock(&as->tags);
	slu_assert(slu_ranges_empty(&as->dirty) && slu_ranges_empty(&as->writeback));
	as->nwaiters++;
	while (as->nreads)
		slu_cond_wait(&as->wait, &as->tags);
	slu_mutex_unlock(&as->tags);

	busy = slu_pages_drop(as, 0, UINT64_MAX);
	slu_assert(!busy);
	slu_mutex_lock(&as->tags);
	/* Those that eviction had in hand. */
	while (as->npages)
		slu_cond_wait(&as->wait, &as->tags);
	as->nwaiters--;
	slu_mutex_unlock(&as->tags);
	slu_ranges_fini(&as->unsynced);
	slu_ranges_fini(&as->awaited);
	slu_cond_fini(&as->wait);
	slu_mutex_fini(&as->tags);
	slu_rwlock_fini(&as->lock);
}

void slu_aspace_read_begin(struct slu_aspace *as)
{
	slu_mutex_lock(&as->tags);
	as->nreads++;
	slu_mutex_unlock(&as->tags);
}

void slu_aspace_read_end(struct slu_aspace *as)
{
	slu_mutex_lock(&as->tags);
	slu_assert(as->nreads);
	as->nreads--;
	if (as->nwaiters)
		slu_cond_broadcast(&as->wait);
	slu_mutex_unlock(&as->tags);
}

/* ------------------------------------------------------------------ errors of writeback */

uint64_t slu_aspace_error_sample(struct slu_aspace *as)
{
	uint64_t error;

	slu_mutex_lock(&as->tags);
	error = as->wb_error;
	slu_mutex_unlock(&as->tags);
	return error;
}

int slu_aspace_error_check(struct slu_aspace *as, uint64_t *cursor)
{
	uint64_t error = slu_aspace_error_sample(as);

	if (error == *cursor)
		return 0;
	*cursor = error;
	return -(int)(uint32_t)error;
}

int slu_aspace_failed(struct slu_aspace *as)
{
	struct slu_cache *c = as->cache;
	int err = 0;

	if (atomic_load_explicit(&c->stats.failed, memory_order_relaxed) <= c->nframes / 8)
		return 0;
	slu_mutex_lock(&as->tags);
	if (as->nfailed)
		err = -(int)(uint32_t)as->wb_error;
	slu_mutex_unlock(&as->tags);
	return err;
}
