/* SPDX-License-Identifier: MIT */
/*
 * Frames: 4 KiB of data each, counted references, and the tickets through which they are handed
 * out.
 *
 * Owns the free lists of frames and descriptors and the room for dirty pages. Called by everybody
 * who is about to fill pages, before any lock is taken. Takes frames_lock, a leaf; waits only
 * without a need and then with no lock held. Never allocates.
 *
 * There are as many descriptors as frames, and every descriptor in use owns a frame until it is
 * free again; so whoever has a free frame finds a free descriptor too.
 *
 * The free list is a stack. The frames that the kernel has set memory aside for lie at its bottom,
 * and what is pushed has been touched; so the kept-back part, which is what remains when others are
 * refused, always has memory behind it.
 */
#include "cache_private.h"
#include <string.h>

#define WAIT_NS (50 * SLU_NS_PER_MS)

int frames_init(struct slu_cache *c)
{
	uint32_t n = c->nframes;
	int err;

	c->frame_next = slu_alloc(n * sizeof(*c->frame_next));
	c->frame_refs = slu_calloc(n, sizeof(*c->frame_refs));
	if (!c->frame_next || !c->frame_refs)
		return -ENOMEM;
	slu_mutex_init(&c->frames_lock, SLU_RANK_LEAF, SLU_LEAF_FRAMES, "cache frames");
	slu_cond_init(&c->frames_cond);
	c->kept_back = slu_max(slu_min(n / 8, 320u), n / 128);
	c->dirty_limit = n / 2;
	c->dirty_max = n / 4 * 3;
	err = arena_back_frames(&c->arena, n, c->kept_back);
	if (err)
		return err;
	for (uint32_t i = 0; i < n; i++)
		c->frame_next[i] = i + 1 < n ? i + 1 : SLU_FRAME_NONE;
	/* Descriptors lie in the arena: touching all of them now would make it that large. */
	c->free_pages = SLU_PAGE_NONE;
	c->nfree_frames = c->nfree_pages = n;
	c->stats.frames = c->stats.free_frames = n;
	return 0;
}

void frames_fini(struct slu_cache *c)
{
	if (c->frames_lock.name) {
		slu_cond_fini(&c->frames_cond);
		slu_mutex_fini(&c->frames_lock);
	}
	slu_free(c->frame_next);
	slu_free(c->frame_refs);
}

uint32_t slu_cache_max_claim(const struct slu_cache *c)
{
	return slu_max((c->nframes - c->kept_back) / 4, 8u);
}

uint32_t slu_cache_dirty_limit(const struct slu_cache *c)
{
	return c->dirty_limit;
}

void *slu_frame_data(const struct slu_cache *c, uint32_t frame)
{
	slu_assert(frame < c->nframes);
	return c->arena.frames + (size_t)frame * SLU_BLOCK_SIZE;
}

/* ------------------------------------------------------------------ free lists */

static void wake_locked(struct slu_cache *c)
{
	if (atomic_load_explicit(&c->nwaiters, memory_order_relaxed)) {
		atomic_fetch_add(&c->wakes, 1);
		slu_cond_broadcast(&c->frames_cond);
	}
}

void frames_wake(struct slu_cache *c)
{
	/* A waiter counts itself before it looks, with the lock held; seq_cst orders the two. */
	if (!atomic_load(&c->nwaiters))
		return;
	slu_mutex_lock(&c->frames_lock);
	wake_locked(c);
	slu_mutex_unlock(&c->frames_lock);
}

void frames_push(struct slu_cache *c, uint32_t first, uint32_t last, uint32_t n)
{
	if (!n)
		return;
	slu_mutex_lock(&c->frames_lock);
	c->frame_next[last] = c->free_frames;
	c->free_frames = first;
	c->nfree_frames += n;
	atomic_store_explicit(&c->stats.free_frames, c->nfree_frames, memory_order_relaxed);
	wake_locked(c);
	slu_mutex_unlock(&c->frames_lock);
}

void pages_push(struct slu_cache *c, struct slu_page *page)
{
	slu_mutex_lock(&c->frames_lock);
	page->hash_next = c->free_pages;
	c->free_pages = page_number(c, page);
	c->nfree_pages++;
	slu_mutex_unlock(&c->frames_lock);
}

/* ------------------------------------------------------------------ references */

void slu_frame_get(struct slu_cache *c, uint32_t frame)
{
	uint32_t old = atomic_fetch_add_explicit(&c->frame_refs[frame], 1, memory_order_relaxed);

	slu_assert(old > 0);
}

bool frame_unref(struct slu_cache *c, uint32_t frame)
{
	uint32_t old = atomic_fetch_sub_explicit(&c->frame_refs[frame], 1, memory_order_acq_rel);

	slu_assert(old > 0);
	return old == 1;
}

void slu_frame_put(struct slu_cache *c, uint32_t frame)
{
	if (frame_unref(c, frame))
		frames_push(c, frame, frame, 1);
}

void slu_frames_put(struct slu_cache *c, const uint32_t *frames, uint32_t n)
{
	uint32_t first = SLU_FRAME_NONE, last = SLU_FRAME_NONE, count = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (frames[i] == SLU_FRAME_NONE || !frame_unref(c, frames[i]))
			continue;
		if (!count)
			last = frames[i];
		c->frame_next[frames[i]] = first;
		first = frames[i];
		count++;
	}
	frames_push(c, first, last, count);
}

/* ------------------------------------------------------------------ tickets */

void ticket_add(struct slu_frames *fr, uint32_t frame)
{
	fr->cache->frame_next[frame] = fr->first;
	if (!fr->n++)
		fr->last = frame;
	fr->first = frame;
}

/* The reference is the caller's: it goes to the page that the frame is published in. */
uint32_t slu_frames_take(struct slu_frames *fr)
{
	struct slu_cache *c = fr->cache;
	uint32_t frame = fr->first;

	slu_assert(fr->n);
	fr->first = c->frame_next[frame];
	fr->n--;
	atomic_store_explicit(&c->frame_refs[frame], 1, memory_order_relaxed);
	return frame;
}

void slu_frames_return(struct slu_frames *fr, uint32_t frame)
{
	bool last = frame_unref(fr->cache, frame);

	slu_assert(last);
	ticket_add(fr, frame);
}

struct slu_page *ticket_page(struct slu_frames *fr)
{
	struct slu_page *page;

	slu_assert(fr->npages);
	page = page_at(fr->cache, fr->pages);
	fr->pages = page->hash_next;
	fr->npages--;
	return page;
}

/* Cuts what is missing off the free lists. frames_lock is held and there is enough. */
static void ticket_fill(struct slu_frames *fr, uint32_t n, uint32_t dirty)
{
	struct slu_cache *c = fr->cache;
	uint32_t want = n > fr->n ? n - fr->n : 0;

	for (uint32_t i = 0; i < want; i++) {
		uint32_t frame = c->free_frames;

		c->free_frames = c->frame_next[frame];
		ticket_add(fr, frame);
	}
	c->nfree_frames -= want;
	atomic_store_explicit(&c->stats.free_frames, c->nfree_frames, memory_order_relaxed);
	while (fr->npages < n) {
		uint32_t index = c->free_pages;

		slu_assert(c->nfree_pages);
		if (index != SLU_PAGE_NONE)
			c->free_pages = page_at(c, index)->hash_next;
		else
			index = c->fresh_pages++;
		c->nfree_pages--;
		page_at(c, index)->hash_next = fr->pages;
		fr->pages = index;
		fr->npages++;
	}
	if (dirty > fr->dirty) {
		atomic_fetch_add(&c->dirty_used, dirty - fr->dirty);
		fr->dirty = dirty;
	}
}

/*
 * Whether so many pages more may become dirty. Failed pages have a quarter of the cache beside the
 * half, so that one inode that cannot be written leaves the others room.
 */
static bool dirty_room(struct slu_cache *c, uint32_t more)
{
	uint64_t failed = atomic_load_explicit(&c->stats.failed, memory_order_relaxed);
	uint64_t limit =
		c->dirty_limit + slu_min(failed, (uint64_t)(c->dirty_max - c->dirty_limit));

	return atomic_load(&c->dirty_used) + (uint64_t)more <= limit;
}

/* Writing out everything that has not failed would not make room either. */
static bool dirty_hopeless(struct slu_cache *c, uint32_t more)
{
	return atomic_load_explicit(&c->stats.failed, memory_order_relaxed) + more > c->dirty_max;
}

/* One try. 0, -EAGAIN, or the error that makes waiting useless. */
static int ticket_try(struct slu_frames *fr, uint32_t n, uint32_t dirty, unsigned int flags)
{
	struct slu_cache *c = fr->cache;
	uint32_t want = n > fr->n ? n - fr->n : 0;
	uint32_t more = dirty > fr->dirty ? dirty - fr->dirty : 0;
	uint32_t kept = flags & SLU_FRAMES_KEPT_BACK ? 0 : c->kept_back;
	int err = 0;

	slu_mutex_lock(&c->frames_lock);
	if (more && !dirty_room(c, more)) {
		err = -EAGAIN;
		if (dirty_hopeless(c, more)) {
			int last = atomic_load(&c->last_error);

			err = last ? last : -EIO;
		}
	} else if ((want && c->nfree_frames < want + kept) ||
		   (n > fr->npages && c->nfree_pages < n - fr->npages)) {
		err = -EAGAIN; /* other tickets may hold more descriptors than frames */
	} else {
		ticket_fill(fr, n, dirty);
	}
	slu_mutex_unlock(&c->frames_lock);
	return err;
}

/* Tries, evicting as long as that gives anything. */
static int ticket_claim(struct slu_frames *fr, uint32_t n, uint32_t dirty, unsigned int flags)
{
	struct slu_cache *c = fr->cache;
	int err;

	for (;;) {
		uint32_t free, want = n + c->kept_back;

		err = ticket_try(fr, n, dirty, flags);
		if (err != -EAGAIN)
			return err;
		free = (uint32_t)atomic_load_explicit(&c->stats.free_frames, memory_order_relaxed);
		if (free >= want + n)
			return err; /* dirty pages are too many, not pages */
		if (!cache_evict(c, slu_max(want + n - free, 64u)))
			return err;
	}
}

static void kick(struct slu_cache *c)
{
	if (c->hooks.kick)
		c->hooks.kick(c->hooks_ctx);
}

/* Sleeps until something was freed or cleaned since `wakes` was read, or a while. */
static void frames_sleep(struct slu_cache *c, uint32_t wakes)
{
	uint64_t deadline = slu_clock_ns() + WAIT_NS;

	atomic_fetch_add_explicit(&c->stats.frame_waits, 1, memory_order_relaxed);
	slu_mutex_lock(&c->frames_lock);
	while (atomic_load(&c->wakes) == wakes) {
		if (slu_cond_timedwait(&c->frames_cond, &c->frames_lock, deadline))
			break;
	}
	slu_mutex_unlock(&c->frames_lock);
}

/* Waits, with no lock held, until a claim of that size succeeds; takes it. */
static int ticket_wait(struct slu_frames *fr, uint32_t n, uint32_t dirty, unsigned int flags)
{
	struct slu_cache *c = fr->cache;
	int err;

	slu_assert_no_locks("cache pages");
	atomic_fetch_add(&c->nwaiters, 1);
	for (;;) {
		uint32_t wakes = atomic_load(&c->wakes);

		err = ticket_claim(fr, n, dirty, flags);
		if (err != -EAGAIN)
			break;
		kick(c);
		frames_sleep(c, wakes);
	}
	atomic_fetch_sub(&c->nwaiters, 1);
	return err;
}

#define NEED_FLAGS_SHIFT 32

static int frames_need_wait(struct slu_need *need)
{
	struct slu_cache *c = need->owner;
	struct slu_frames fr = SLU_FRAMES_INIT(c);
	unsigned int flags = (unsigned int)(need->arg[1] >> NEED_FLAGS_SHIFT);
	int err = ticket_wait(&fr, (uint32_t)need->arg[0], (uint32_t)need->arg[1], flags);

	/*
	 * Given back: the caller claims again, with what it has. Another may be faster; then it
	 * waits again.
	 */
	slu_frames_release(&fr);
	return err;
}

int slu_frames_claim(struct slu_frames *fr, uint32_t n, uint32_t dirty, unsigned int flags,
		     struct slu_need *need)
{
	struct slu_cache *c = fr->cache;
	int err;

	if (n > c->nframes - c->kept_back || dirty > c->dirty_limit)
		return -ENOMEM;
	if (fr->n >= n && fr->npages >= n && fr->dirty >= dirty)
		return 0;
	err = ticket_claim(fr, n, dirty, flags);
	if (err != -EAGAIN)
		return err;
	kick(c);
	if (!need)
		return ticket_wait(fr, n, dirty, flags);
	*need = (struct slu_need){
		.wait = frames_need_wait,
		.what = "cache pages",
		.owner = c,
		.arg = {n, dirty | (uint64_t)flags << NEED_FLAGS_SHIFT},
		.slow = true,
	};
	return -EAGAIN;
}

void slu_frames_release(struct slu_frames *fr)
{
	struct slu_cache *c = fr->cache;
	uint32_t last = fr->pages;

	if (!fr->n && !fr->npages && !fr->dirty)
		return;
	slu_mutex_lock(&c->frames_lock);
	if (fr->n) {
		c->frame_next[fr->last] = c->free_frames;
		c->free_frames = fr->first;
		c->nfree_frames += fr->n;
		atomic_store_explicit(&c->stats.free_frames, c->nfree_frames, memory_order_relaxed);
	}
	if (fr->npages) {
		while (page_at(c, last)->hash_next != SLU_PAGE_NONE)
			last = page_at(c, last)->hash_next;
		page_at(c, last)->hash_next = c->free_pages;
		c->free_pages = fr->pages;
		c->nfree_pages += fr->npages;
	}
	atomic_fetch_sub(&c->dirty_used, fr->dirty);
	wake_locked(c);
	slu_mutex_unlock(&c->frames_lock);
	*fr = (struct slu_frames)SLU_FRAMES_INIT(c);
}
