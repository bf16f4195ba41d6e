/* SPDX-License-Identifier: MIT */
/*
 * blockio: what the simulated disk remembers of its writes, and what a power cut makes of them.
 *
 * Records are immutable once they are in a list, shared by reference between the list of unflushed
 * writes, the recording, and clones. A record holds its data as references to the blocks that the
 * medium holds as well. Called with the disk's lock held; takes none.
 */
#include "simdisk.h"
#include <string.h>

#define SIMLOG_STRIDE     128
#define SIMLOG_LOOK_AHEAD 4096

/* ------------------------------------------------------------------ random numbers */

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
uint64_t simrng_next(struct simrng *rng)
{
	uint64_t z = (rng->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* The bias of the remainder is of no concern here. */
uint64_t simrng_below(struct simrng *rng, uint64_t n)
{
	return n ? simrng_next(rng) % n : 0;
}

/* ------------------------------------------------------------------ records */

struct simrec *simrec_new(enum slu_io_op op, uint64_t blkno, uint32_t nblocks)
{
	struct simrec *r = calloc(1, sizeof(*r) + nblocks * sizeof(r->blocks[0]));

	slu_assert(r);
	atomic_init(&r->refs, 1);
	r->op = op;
	r->blkno = blkno;
	r->nblocks = nblocks;
	r->mask = SIM_ALL;
	return r;
}

struct simrec *simrec_get(struct simrec *r)
{
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
	return r;
}

void simrec_put(struct simrec *r)
{
	if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < r->nblocks; i++)
		if (r->blocks[i] != SIM_KEEP)
			simblock_put(r->blocks[i]);
	free(r);
}

/* Sectors of the i-th block that the record changes. */
static unsigned int simrec_mask(const struct simrec *r, uint32_t i)
{
	if (r->blocks[i] == SIM_KEEP)
		return 0;
	return i + 1 == r->nblocks ? r->mask : SIM_ALL;
}

void simrec_apply(const struct simrec *r, struct simtree *t)
{
	if (r->op == SLU_IO_FLUSH)
		return;
	for (uint32_t i = 0; i < r->nblocks; i++)
		simtree_merge(t, r->blkno + i, r->blocks[i], simrec_mask(r, i));
}

/* A part of its sectors: those before a point, or any. */
static void simrec_apply_torn(const struct simrec *r, struct simtree *t, struct simrng *rng)
{
	bool prefix = simrng_next(rng) & 1;
	uint64_t keep = simrng_below(rng, (uint64_t)r->nblocks * SIM_NSECTORS + 1);

	for (uint32_t i = 0; i < r->nblocks; i++) {
		unsigned int mask = simrng_next(rng) & SIM_ALL;

		if (prefix)
			mask = keep >= SIM_NSECTORS ? SIM_ALL : (1u << keep) - 1;
		keep -= slu_min(keep, (uint64_t)SIM_NSECTORS);
		simtree_merge(t, r->blkno + i, r->blocks[i], mask & simrec_mask(r, i));
	}
}

/* ------------------------------------------------------------------ lists of records */

void simrecs_add(struct simrecs *a, struct simrec *r)
{
	if (a->n == a->size) {
		a->size = a->size ? a->size * 2 : 16;
		a->v = realloc(a->v, a->size * sizeof(a->v[0]));
		slu_assert(a->v);
	}
	a->v[a->n++] = r;
}

void simrecs_drop_first(struct simrecs *a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		simrec_put(a->v[i]);
	a->n -= n;
	if (a->n)
		memmove(a->v, a->v + n, a->n * sizeof(a->v[0]));
}

void simrecs_fini(struct simrecs *a)
{
	simrecs_drop_first(a, a->n);
	free(a->v);
	memset(a, 0, sizeof(*a));
}

/* ------------------------------------------------------------------ power cuts */

/*
 * How careless the disk is differs from cut to cut: with one chance for all of them, long lists
 * would never be kept or lost whole.
 */
void simrecs_cut(struct simrec *const *r, size_t n, struct simtree *t, uint64_t seed)
{
	static const unsigned int keep_percent[] = {0, 10, 50, 90, 100};
	static const unsigned int torn_percent[] = {0, 10, 40};
	struct simrng rng = {seed};
	unsigned int keep, torn;
	size_t *order;

	if (seed <= 1) {
		for (size_t i = 0; !seed && i < n; i++)
			simrec_apply(r[i], t);
		return;
	}
	if (!n)
		return;
	keep = keep_percent[simrng_below(&rng, slu_array_size(keep_percent))];
	torn = torn_percent[simrng_below(&rng, slu_array_size(torn_percent))];
	order = malloc(n * sizeof(order[0]));
	slu_assert(order);
	for (size_t i = 0; i < n; i++) {
		size_t j = simrng_below(&rng, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (size_t i = 0; i < n; i++) {
		if (simrng_below(&rng, 100) < torn)
			simrec_apply_torn(r[order[i]], t, &rng);
		else if (simrng_below(&rng, 100) < keep)
			simrec_apply(r[order[i]], t);
	}
	free(order);
}

/* ------------------------------------------------------------------ the recording */

void simlog_fini(struct simlog *log)
{
	simrecs_fini(&log->recs);
	for (size_t i = 0; i < log->nsnaps; i++)
		simtree_fini(&log->snaps[i]);
	free(log->snaps);
	if (log->cursor_set)
		simtree_fini(&log->cursor);
	memset(log, 0, sizeof(*log));
}

static void simlog_add_snap(struct simlog *log, const struct simtree *t)
{
	log->snaps = realloc(log->snaps, (log->nsnaps + 1) * sizeof(log->snaps[0]));
	slu_assert(log->snaps);
	simtree_copy(&log->snaps[log->nsnaps++], t);
}

void simlog_start(struct simlog *log, const struct simtree *base, uint64_t seq)
{
	simlog_fini(log);
	log->first = seq;
	log->on = true;
	simlog_add_snap(log, base);
}

/* Moves the cursor to where the first n records are applied, from the nearest place before. */
static void simlog_seek(struct simlog *log, size_t n)
{
	size_t snap = slu_min(n / SIMLOG_STRIDE, log->nsnaps - 1);

	if (!log->cursor_set || log->cursor_at > n || log->cursor_at < snap * SIMLOG_STRIDE) {
		if (log->cursor_set)
			simtree_fini(&log->cursor);
		simtree_copy(&log->cursor, &log->snaps[snap]);
		log->cursor_at = snap * SIMLOG_STRIDE;
		log->cursor_set = true;
	}
	while (log->cursor_at < n) {
		simrec_apply(log->recs.v[log->cursor_at++], &log->cursor);
		if (log->cursor_at == log->nsnaps * SIMLOG_STRIDE)
			simlog_add_snap(log, &log->cursor);
	}
}

/* Adds the writes that were under way when record n - 1 had completed; they completed later. */
static void simlog_add_inflight(const struct simlog *log, size_t n, struct simrecs *to)
{
	uint64_t left = n ? log->recs.v[n - 1]->inflight : 0;
	size_t end = slu_min(log->recs.n, n + SIMLOG_LOOK_AHEAD);

	for (size_t i = n; left && i < end; i++) {
		struct simrec *r = log->recs.v[i];

		if (r->op == SLU_IO_FLUSH || r->submitted >= log->first + n)
			continue;
		simrecs_add(to, simrec_get(r));
		left--;
	}
}

void simlog_replay(struct simlog *log, size_t n, uint64_t seed, struct simtree *ret)
{
	struct simrecs lose = {0};
	size_t durable = 0;

	if (n && log->recs.v[n - 1]->durable > log->first)
		durable = log->recs.v[n - 1]->durable - log->first;
	simlog_seek(log, durable);
	simtree_copy(ret, &log->cursor);
	for (size_t i = durable; i < n; i++)
		if (log->recs.v[i]->op != SLU_IO_FLUSH)
			simrecs_add(&lose, simrec_get(log->recs.v[i]));
	if (seed > 1)
		simlog_add_inflight(log, n, &lose);
	simrecs_cut(lose.v, lose.n, ret, seed);
	simrecs_fini(&lose);
}
