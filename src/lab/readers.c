/* SPDX-License-Identifier: MIT */
/*
 * Readers against the write path: one thread publishes, replaces and truncates the pages of a file
 * and says what it does; others read pages, with and without page locks, and know from that what
 * they may see. A page is torn if its words differ, and stale if it shows what was replaced before
 * the reader began.
 *
 * Operations have numbers. A page of 512 times the number of the write that filled it, or zeros
 * after a truncate. For each page `begun` is the newest operation that touches it and `done` the
 * newest that has returned: a reader that finds done = d before and begun = b after may see any of
 * those from d to b and no other.
 */
#include "lab_private.h"
#include <errno.h>
#include <sched.h>
#include <string.h>

#define WORDS        (SLU_BLOCK_SIZE / sizeof(uint64_t))
#define MAX_READERS  8u
#define MOST_AT_ONCE 4u
#define PACE         20u

struct watched {
	_Atomic uint64_t begun, done;
};

struct reader_lab {
	struct slu_lab *lab;
	struct lab_file *file;
	struct watched pages[SLU_LAB_MAX_PAGES];
	/* Whether operation i is a truncate; written before anybody can see i. */
	bool *truncates;
	_Atomic bool stop;
	_Atomic uint64_t reads, reads_locked;
};

struct reader {
	struct reader_lab *rl;
	pthread_t thread;
	uint64_t random;
	bool locked; /* looks at pages with their lock, instead of reading */
};

/* ------------------------------------------------------------------ the writer */

static void mark(struct reader_lab *rl, uint64_t first, uint64_t n, uint64_t op, bool done)
{
	for (uint64_t i = first; i < first + n; i++)
		atomic_store(done ? &rl->pages[i].done : &rl->pages[i].begun, op);
}

static void write_pages(struct reader_lab *rl, uint64_t op, uint64_t *random, uint64_t *buf)
{
	uint64_t npages = rl->lab->opts.npages;
	uint64_t first = lab_random(random) % npages;
	uint64_t n = slu_min(1 + lab_random(random) % MOST_AT_ONCE, npages - first);

	for (uint64_t i = 0; i < n * WORDS; i++)
		buf[i] = op;
	mark(rl, first, n, op, false);
	if (lab_file_write(rl->file, first * LAB_PAGE, buf, n * LAB_PAGE) !=
	    (int64_t)(n * LAB_PAGE))
		lab_complain(rl->lab, "readers: operation %llu: the write failed",
			     (unsigned long long)op);
	mark(rl, first, n, op, true);
	rl->lab->stats.replaced++;
}

/* Down to a page, and up again, so that what was behind it reads as zeros. */
static void truncate_pages(struct reader_lab *rl, uint64_t op, uint64_t *random)
{
	uint64_t npages = rl->lab->opts.npages, first = lab_random(random) % npages;

	rl->truncates[op] = true;
	mark(rl, first, npages - first, op, false);
	if (lab_file_truncate(rl->lab, rl->file, first * LAB_PAGE) ||
	    lab_file_truncate(rl->lab, rl->file, npages * LAB_PAGE))
		lab_complain(rl->lab, "readers: operation %llu: the truncate failed",
			     (unsigned long long)op);
	mark(rl, first, npages - first, op, true);
	rl->lab->stats.truncated++;
}

/* ------------------------------------------------------------------ the readers */

static bool truncated_between(const struct reader_lab *rl, uint64_t from, uint64_t to)
{
	for (uint64_t op = from; op <= to; op++)
		if (rl->truncates[op])
			return true;
	return false;
}

/* words: what was seen of page `pgidx`, whole or not at all (NULL: the file ended before it). */
static void judge(struct reader_lab *rl, uint64_t pgidx, const uint64_t *words, uint64_t from,
		  uint64_t to)
{
	uint64_t seen = words ? words[0] : 0;

	for (size_t i = 1; words && i < WORDS; i++) {
		if (words[i] == seen)
			continue;
		lab_complain(rl->lab, "readers: page %llu is torn: operations %llu and %llu",
			     (unsigned long long)pgidx, (unsigned long long)seen,
			     (unsigned long long)words[i]);
		return;
	}
	if (seen ? seen >= from && seen <= to && !rl->truncates[seen]
		 : truncated_between(rl, from, to))
		return;
	lab_complain(rl->lab, "readers: page %llu shows operation %llu, expected %llu to %llu",
		     (unsigned long long)pgidx, (unsigned long long)seen, (unsigned long long)from,
		     (unsigned long long)to);
}

/*
 * Now and then others run in the middle, so that a page which changes while somebody has it does not
 * go unseen.
 */
static void copy_page(struct reader *r, uint64_t *words, const uint64_t *page)
{
	memcpy(words, page, LAB_PAGE / 2);
	if (lab_random(&r->random) % 16 == 0)
		sched_yield();
	memcpy(words + WORDS / 2, page + WORDS / 2, LAB_PAGE / 2);
}

static void read_page(struct reader *r, uint64_t pgidx)
{
	struct reader_lab *rl = r->rl;
	uint64_t words[WORDS], from = atomic_load(&rl->pages[pgidx].done);
	struct slu_read_vec v;
	int err = slu_read(&rl->file->as, rl->lab->bio, pgidx * LAB_PAGE, LAB_PAGE, 0, &v);
	/* What it may be was settled when it was looked up. */
	uint64_t to = atomic_load(&rl->pages[pgidx].begun);

	if (err || (v.len && (v.len != LAB_PAGE || v.niov != 1))) {
		lab_complain(rl->lab, "readers: reading page %llu gave %d",
			     (unsigned long long)pgidx, err);
	} else {
		if (v.len)
			copy_page(r, words, v.iov[0].iov_base);
		judge(rl, pgidx, v.len ? words : NULL, from, to);
	}
	if (!err)
		slu_read_done(&v);
	atomic_fetch_add(&rl->reads, 1);
}

/* The page itself, as a fault handler sees it. A page that is not there says nothing. */
static void look_at_page(struct reader *r, uint64_t pgidx)
{
	struct reader_lab *rl = r->rl;
	struct slu_cache *cache = rl->lab->cache;
	uint64_t words[WORDS], from = atomic_load(&rl->pages[pgidx].done);
	struct slu_page *page = slu_page_find(&rl->file->as, pgidx);
	bool valid;

	atomic_fetch_add(&rl->reads_locked, 1);
	if (!page)
		return;
	slu_page_lock(page);
	valid = (slu_page_state(page) & (SLU_PAGE_UPTODATE | SLU_PAGE_GONE)) == SLU_PAGE_UPTODATE;
	if (valid)
		copy_page(r, words, slu_frame_data(cache, atomic_load(&page->frame)));
	/* Taken out of the cache while it was looked at: then it was there when that began. */
	valid = valid && !(slu_page_state(page) & SLU_PAGE_GONE);
	slu_page_unlock(page);
	slu_page_put(cache, page);
	if (valid)
		judge(rl, pgidx, words, from, atomic_load(&rl->pages[pgidx].begun));
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	struct slu_lab *lab = r->rl->lab;

	while (!atomic_load(&r->rl->stop) && !atomic_load(&lab->broken)) {
		uint64_t pgidx = lab_random(&r->random) % lab->opts.npages;

		if (r->locked)
			look_at_page(r, pgidx);
		else
			read_page(r, pgidx);
	}
	return NULL;
}

/* ------------------------------------------------------------------ both */

/* Readers of both kinds get on too, however few processors there are. */
static void let_read(struct reader_lab *rl, uint32_t nreaders)
{
	uint64_t reads = atomic_load(&rl->reads), locked = atomic_load(&rl->reads_locked);

	while ((atomic_load(&rl->reads) == reads ||
		(nreaders > 1 && atomic_load(&rl->reads_locked) == locked)) &&
	       !atomic_load(&rl->lab->broken))
		sched_yield();
}

static int run(struct reader_lab *rl, uint64_t seed, uint32_t nreaders, uint32_t nops)
{
	uint64_t random = seed, buf[MOST_AT_ONCE * WORDS];
	struct reader readers[MAX_READERS] = {0};
	uint32_t n;
	int err = 0;

	for (n = 0; n < nreaders && !err; n++) {
		readers[n] =
			(struct reader){.rl = rl, .random = seed + n + 1, .locked = n % 2 == 1};
		err = -pthread_create(&readers[n].thread, NULL, reader_main, &readers[n]);
		if (err)
			break;
	}
	for (uint64_t op = 2; !err && op < nops + 2 && !atomic_load(&rl->lab->broken); op++) {
		if (op % PACE == 0)
			let_read(rl, nreaders);
		if (lab_random(&random) % 8)
			write_pages(rl, op, &random, buf);
		else
			truncate_pages(rl, op, &random);
	}
	atomic_store(&rl->stop, true);
	while (n-- > 0)
		pthread_join(readers[n].thread, NULL);
	return err;
}

int slu_lab_readers(struct slu_lab *lab, uint64_t seed, uint32_t nreaders, uint32_t nops)
{
	struct reader_lab *rl = slu_zalloc(sizeof(*rl));
	int err;

	if (!nreaders || nreaders > MAX_READERS)
		err = -EINVAL;
	else if (!rl || !(rl->truncates = slu_zalloc(nops + 2)))
		err = -ENOMEM;
	else
		err = lab_file_begin(lab, 0);
	if (err)
		goto out;
	lab->error = 0;
	atomic_store(&lab->broken, false);
	rl->lab = lab;
	rl->file = &lab->files[0];
	/* Operation 1: all zeros. */
	rl->truncates[1] = true;
	err = lab_file_truncate(lab, rl->file, 0);
	if (!err)
		err = lab_file_truncate(lab, rl->file, lab->opts.npages * LAB_PAGE);
	mark(rl, 0, lab->opts.npages, 1, false);
	mark(rl, 0, lab->opts.npages, 1, true);
	if (!err)
		err = run(rl, seed, nreaders, nops);
	lab_file_end(lab, 0);
	lab->stats.reads += atomic_load(&rl->reads);
	lab->stats.reads_locked += atomic_load(&rl->reads_locked);
	if (!err)
		err = lab->error;
out:
	if (rl)
		slu_free(rl->truncates);
	slu_free(rl);
	return err;
}
