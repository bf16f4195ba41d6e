/* SPDX-License-Identifier: MIT */
/*
 * The open-handle table in the arena.
 *
 * Owns the entries and the list of free ones. Called by open and release. Takes handles_lock, a
 * leaf. A file handle is the entry's number with its generation above, so that a number that was
 * closed is not taken for the file that has the entry now.
 */
#include "cache_private.h"
#include <string.h>

#define HANDLE_NONE UINT32_MAX /* as slu_cache_new sets it */

static uint64_t handle_number(const struct slu_cache *c, const struct slu_handle *h)
{
	return (uint64_t)h->generation << 32 | (uint32_t)(h - c->arena.handles + 1);
}

int slu_handle_new(struct slu_cache *cache, uint64_t ino, uint32_t flags, uint64_t *ret_fh)
{
	struct slu_handle *h;
	uint32_t i;

	slu_assert(ino);
	slu_mutex_lock(&cache->handles_lock);
	if (cache->free_handle != HANDLE_NONE) {
		i = cache->free_handle;
		cache->free_handle = cache->arena.handles[i].next_free;
	} else if (cache->fresh_handle < HANDLE_MAX) {
		i = cache->fresh_handle++;
	} else {
		slu_mutex_unlock(&cache->handles_lock);
		return -ENFILE;
	}
	slu_mutex_unlock(&cache->handles_lock);

	h = &cache->arena.handles[i];
	h->error_cursor = 0;
	h->flags = flags;
	h->generation = (h->generation + 1) & 0x7fffffff;
	atomic_store_explicit(&h->ino, ino, memory_order_release);
	*ret_fh = handle_number(cache, h);
	return 0;
}

struct slu_handle *slu_handle_get(struct slu_cache *cache, uint64_t fh)
{
	uint32_t i = (uint32_t)fh;
	struct slu_handle *h;

	if (i == 0 || i > HANDLE_MAX)
		return NULL;
	h = &cache->arena.handles[i - 1];
	if (!atomic_load_explicit(&h->ino, memory_order_acquire) || h->generation != fh >> 32)
		return NULL;
	return h;
}

bool slu_handle_free(struct slu_cache *cache, uint64_t fh, uint64_t ino)
{
	struct slu_handle *h;
	uint32_t i;

	slu_mutex_lock(&cache->handles_lock);
	h = slu_handle_get(cache, fh);
	if (h && atomic_load_explicit(&h->ino, memory_order_relaxed) != ino)
		h = NULL;
	if (h) {
		i = (uint32_t)(h - cache->arena.handles);
		atomic_store_explicit(&h->ino, 0, memory_order_release);
		h->next_free = cache->free_handle;
		cache->free_handle = i;
	}
	slu_mutex_unlock(&cache->handles_lock);
	return h;
}
