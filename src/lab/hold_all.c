/* SPDX-License-Identifier: MIT */
/*
 * The write path of 2020: every page of the request is locked in turn and stays locked until all
 * have been copied, and the copy faults.
 *
 * So it was in the kernel's fuse_fill_write_pages until the deadlock was found in October 2020, and
 * in the lab it is nowhere else. Page locks, the cache and the inode's lock are the production
 * code's.
 */
#include "lab_private.h"
#include <errno.h>

struct held_page {
	struct slu_page *page;
	bool fresh; /* was not in the cache */
};

static void lock_page(struct lab_thread *t, struct slu_frames *fr, uint64_t pgidx,
		      struct held_page *ret)
{
	struct slu_aspace *as = &t->lab->files[t->id].as;

	ret->page = slu_page_find(as, pgidx);
	ret->fresh = !ret->page;
	if (ret->page)
		slu_page_lock(ret->page);
	else
		ret->page = slu_page_insert_locked(as, fr, pgidx);
	graph_hold(t, t->id, (uint32_t)pgidx);
}

static void unlock_pages(struct lab_thread *t, struct held_page *held, uint32_t n)
{
	struct slu_lab *lab = t->lab;

	for (uint32_t i = n; i-- > 0;) {
		if (held[i].fresh) {
			slu_page_remove_locked(&lab->files[t->id].as, held[i].page);
			continue;
		}
		slu_page_unlock(held[i].page);
		slu_page_put(lab->cache, held[i].page);
	}
	graph_release_all(t);
}

/* As fuse_fill_write_pages did it: one page after the other, none unlocked. */
static void fill_pages(struct lab_thread *t, const struct slu_lab_write *w, struct lab_source *s,
		       struct slu_frames *fr, uint8_t *buf)
{
	struct slu_lab *lab = t->lab;
	uint64_t pos = w->pos, end = w->pos + w->len[0] + w->len[1];
	struct held_page held[SLU_LAB_MAX_PAGES];
	uint32_t n = 0;

	while (pos < end && !atomic_load(&lab->broken)) {
		uint64_t len = slu_min(end - pos, LAB_PAGE - pos % LAB_PAGE);

		lock_page(t, fr, pos / LAB_PAGE, &held[n++]);
		source_copy_faulting(s, buf + (pos - w->pos), len);
		if (n == 1)
			lab_meet(t);
		pos += len;
	}
	unlock_pages(t, held, n);
}

int64_t hold_all_write(struct lab_thread *t, const struct slu_lab_write *w, struct lab_source *s)
{
	struct slu_lab *lab = t->lab;
	struct slu_aspace *as = &lab->files[t->id].as;
	struct slu_frames fr = SLU_FRAMES_INIT(lab->cache);
	uint64_t len = w->len[0] + w->len[1];
	uint8_t *buf = slu_alloc(len);
	int64_t done;

	done = buf ? slu_frames_claim(&fr, lab->opts.npages, lab->opts.npages, 0, NULL) : -ENOMEM;
	if (!done) {
		slu_rwlock_wrlock(&as->lock);
		fill_pages(t, w, s, &fr, buf);
		slu_rwlock_wrunlock(&as->lock);
	}
	slu_frames_release(&fr);
	if (!done && atomic_load(&lab->broken))
		done = -EDEADLK;
	if (!done)
		done = lab_file_write(&lab->files[t->id], w->pos, buf, len);
	slu_free(buf);
	return done;
}
