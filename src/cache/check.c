/* SPDX-License-Identifier: MIT */
/*
 * Checks: every descriptor against the hash, the lists, the ranges, the references and the
 * counters.
 *
 * Called by tests, between operations: nobody else may use the cache meanwhile. Owns nothing. What
 * it needs to count it counts from the descriptors, as a successor process would.
 */
#include "cache_private.h"
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

struct check {
	struct slu_cache *c;
	FILE *report;
	uint64_t nbad;
	uint32_t *frame_owners; /* pages that have the frame */
	uint64_t pages, dirty, writeback, failed, tagged;
};

static void __attribute__((format(printf, 2, 3))) bad(struct check *k, const char *format, ...)
{
	va_list args;

	k->nbad++;
	if (!k->report)
		return;
	va_start(args, format);
	vfprintf(k->report, format, args);
	va_end(args);
	fputc('\n', k->report);
}

const char *slu_page_state_name(uint32_t state, char *buf, size_t size)
{
	static const char *const names[] = {"locked",      "waiters",   "uptodate", "reading",
					    "dirty",       "writeback", "error",    "gone",
					    "read-failed", "accessed"};
	size_t at = 0;

	slu_assert(size);
	buf[0] = '\0';
	for (size_t i = 0; i < slu_array_size(names) && at < size; i++)
		if (state & (1u << i))
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? "|" : "",
					       names[i]);
	return buf;
}

static bool in_range(const struct slu_ranges *s, uint64_t pos)
{
	struct slu_range r;

	return slu_ranges_find(s, pos, &r);
}

/* The invariant table of enum slu_page_bit. */
static void check_state(struct check *k, const struct slu_page *page, const char *name)
{
	uint32_t state = slu_page_state(page);
	char buf[128];
	const char *wrong = NULL;

	if (state & SLU_PAGE_READING &&
	    state & (SLU_PAGE_UPTODATE | SLU_PAGE_DIRTY | SLU_PAGE_WRITEBACK))
		wrong = "READING together with data";
	else if (state & (SLU_PAGE_DIRTY | SLU_PAGE_WRITEBACK) && !(state & SLU_PAGE_UPTODATE))
		wrong = "written but not uptodate";
	else if (state & SLU_PAGE_ERROR && !(state & (SLU_PAGE_DIRTY | SLU_PAGE_WRITEBACK)))
		wrong = "ERROR on a clean page";
	else if (!(state & (SLU_PAGE_READING | SLU_PAGE_UPTODATE | SLU_PAGE_LOCKED)))
		wrong = "neither uptodate nor being read";
	if (wrong)
		bad(k, "%s: %s (%s)", name, wrong, slu_page_state_name(state, buf, sizeof(buf)));
}

static void check_page(struct check *k, struct slu_page *page)
{
	struct slu_cache *c = k->c;
	struct slu_aspace *as = c->owners[page_number(c, page)];
	uint64_t ino = atomic_load(&page->ino), pgidx = slu_page_index(page);
	uint32_t state = slu_page_state(page), frame = atomic_load(&page->frame);
	char name[64];

	snprintf(name, sizeof(name), "page %" PRIu64 " of inode %" PRIu64, pgidx, ino);
	k->pages++;
	check_state(k, page, name);
	if (hash_find(c, bucket_of(c, ino, pgidx), ino, pgidx) != page)
		bad(k, "%s: not found through the hash", name);
	if (!as || as->ino != ino) {
		bad(k, "%s: wrong owner", name);
		return;
	}
	if (!page->listed)
		bad(k, "%s: not in its inode's list", name);
	if (frame >= c->nframes || !atomic_load(&c->frame_refs[frame]))
		bad(k, "%s: frame %u is free", name, frame);
	else if (k->frame_owners[frame]++)
		bad(k, "%s: frame %u belongs to another page too", name, frame);
	if (!(state & SLU_PAGE_DIRTY) != !in_range(&as->dirty, pgidx))
		bad(k, "%s: DIRTY and the dirty ranges differ", name);
	if (!(state & SLU_PAGE_WRITEBACK) != !in_range(&as->writeback, pgidx))
		bad(k, "%s: WRITEBACK and the writeback ranges differ", name);
	k->dirty += (state & SLU_PAGE_DIRTY) != 0;
	k->writeback += (state & SLU_PAGE_WRITEBACK) != 0;
	k->failed += (state & SLU_PAGE_ERROR) != 0;
	k->tagged += (state & (SLU_PAGE_DIRTY | SLU_PAGE_WRITEBACK)) != 0;
}

/* Once for each address space: at the first page of its list. */
static void check_aspace(struct check *k, struct slu_aspace *as)
{
	struct slu_cache *c = k->c;
	uint64_t n = 0, dirty = 0, writeback = 0, failed = 0;
	uint32_t prev = SLU_PAGE_NONE;

	for (uint32_t i = as->first_page; i != SLU_PAGE_NONE && n <= c->nframes; n++) {
		struct slu_page *page = page_at(c, i);
		uint32_t state = slu_page_state(page);

		if (c->owners[i] != as || page->list_prev != prev)
			bad(k, "inode %" PRIu64 ": broken list of pages", as->ino);
		dirty += (state & SLU_PAGE_DIRTY) != 0;
		writeback += (state & SLU_PAGE_WRITEBACK) != 0;
		failed += (state & SLU_PAGE_ERROR) != 0;
		prev = i;
		i = page->list_next;
	}
	if (n != as->npages)
		bad(k, "inode %" PRIu64 ": %" PRIu64 " pages in the list, %u counted", as->ino, n,
		    as->npages);
	if (dirty != as->dirty.weight || writeback != as->writeback.weight || failed != as->nfailed)
		bad(k, "inode %" PRIu64 ": ranges or failed pages are miscounted", as->ino);
	if (!dirty && !writeback && !slu_ranges_empty(&as->unsynced))
		bad(k, "inode %" PRIu64 ": clean, but bytes are unsynced", as->ino);
}

static void check_frames(struct check *k)
{
	struct slu_cache *c = k->c;
	uint32_t n = 0;

	for (uint32_t i = c->free_frames; i != SLU_FRAME_NONE && n <= c->nframes;
	     i = c->frame_next[i]) {
		if (atomic_load(&c->frame_refs[i]) || k->frame_owners[i])
			bad(k, "frame %u: in the free list and in use", i);
		n++;
	}
	if (n != c->nfree_frames)
		bad(k, "%u free frames, %u counted", n, c->nfree_frames);
	n = c->nframes - c->fresh_pages;
	for (uint32_t i = c->free_pages; i != SLU_PAGE_NONE && n <= c->nframes;
	     i = page_at(c, i)->hash_next)
		n++;
	if (n != c->nfree_pages)
		bad(k, "%u free descriptors, %u counted", n, c->nfree_pages);
}

static void check_counter(struct check *k, const char *name, uint64_t counted, uint64_t found)
{
	if (counted != found)
		bad(k, "%s: %" PRIu64 " found, %" PRIu64 " counted", name, found, counted);
}

int slu_cache_check(struct slu_cache *c, FILE *report)
{
	struct check k = {.c = c, .report = report};

	k.frame_owners = slu_calloc(c->nframes, sizeof(*k.frame_owners));
	if (!k.frame_owners)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->nframes; i++) {
		struct slu_page *page = page_at(c, i);

		/* Gone, but somebody still refers to it: not in the cache. */
		if (!atomic_load_explicit(&page->ino, memory_order_acquire) ||
		    slu_page_state(page) & SLU_PAGE_GONE)
			continue;
		check_page(&k, page);
		if (c->owners[i] && c->owners[i]->first_page == i)
			check_aspace(&k, c->owners[i]);
	}
	check_frames(&k);
	check_counter(&k, "pages", c->stats.pages, k.pages);
	check_counter(&k, "dirty", c->stats.dirty, k.dirty);
	check_counter(&k, "writeback", c->stats.writeback, k.writeback);
	check_counter(&k, "failed", c->stats.failed, k.failed);
	if (atomic_load(&c->dirty_used) < k.tagged)
		bad(&k, "%u pages count as dirty, %" PRIu64 " are", c->dirty_used, k.tagged);
	slu_free(k.frame_owners);
	return k.nbad ? -EUCLEAN : 0;
}

void slu_cache_print(struct slu_cache *c, FILE *out)
{
	char buf[128];

	for (uint32_t i = 0; i < c->nframes; i++) {
		struct slu_page *page = page_at(c, i);
		uint64_t ino = atomic_load_explicit(&page->ino, memory_order_acquire);
		uint32_t frame = atomic_load(&page->frame);

		if (ino)
			fprintf(out, "%" PRIu64 ":%" PRIu64 " frame %u (%u refs) refs %u %s\n", ino,
				slu_page_index(page), frame, atomic_load(&c->frame_refs[frame]),
				atomic_load(&page->refs),
				slu_page_state_name(slu_page_state(page), buf, sizeof(buf)));
	}
}
