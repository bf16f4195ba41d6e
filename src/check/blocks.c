/* SPDX-License-Identifier: MIT */
/*
 * Who owns which block: two bits per block, in chunks that exist only where something is in use.
 *
 * `owned` is built from what reaches a block (nodes, extents, the deferred list), `recorded` is
 * what the space records say. A block that is claimed twice is only noted; the owners' names take a
 * second walk, which is made only then.
 */
#include "check_private.h"

#define BLOCKS_SHARED_MAX 1000 /* ranges of shared blocks that are named */

struct blocks_chunk {
	gint64 number;
	uint64_t owned[SLU_CHUNK_BLOCKS / 64];
	uint64_t recorded[SLU_CHUNK_BLOCKS / 64];
	bool has_record;
};

struct blocks_shared {
	uint64_t start, end;
	struct check_owner owners[2];
	unsigned int nowners;
};

struct check_blocks {
	GHashTable *chunks; /* number → struct blocks_chunk */
	GArray *shared;     /* struct blocks_shared */
	bool shared_too_many;
};

struct check_blocks *check_blocks_new(void)
{
	struct check_blocks *b = g_new0(struct check_blocks, 1);

	b->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
	b->shared = g_array_new(FALSE, FALSE, sizeof(struct blocks_shared));
	return b;
}

void check_blocks_free(struct check_blocks *b)
{
	if (!b)
		return;
	g_hash_table_unref(b->chunks);
	g_array_unref(b->shared);
	g_free(b);
}

static struct blocks_chunk *blocks_chunk(struct check_blocks *b, uint64_t number)
{
	gint64 key = (gint64)number;
	struct blocks_chunk *c = g_hash_table_lookup(b->chunks, &key);

	if (!c) {
		c = g_new0(struct blocks_chunk, 1);
		c->number = key;
		g_hash_table_add(b->chunks, c);
	}
	return c;
}

static bool blocks_bit(const uint64_t *bits, unsigned int i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

/* ------------------------------------------------------------------ filling in */

void check_blocks_record(struct check_run *run, uint64_t number, const uint8_t *bits)
{
	struct blocks_chunk *c;
	uint64_t first = number * SLU_CHUNK_BLOCKS;

	if (number >= slu_round_up(run->nblocks, SLU_CHUNK_BLOCKS) / SLU_CHUNK_BLOCKS) {
		check_report(run, SLU_PROBLEM_SPACE_RECORD, 0, 0,
			     "space record %" PRIu64 " lies beyond the end of the volume", number);
		return;
	}
	c = blocks_chunk(run->blocks, number);
	c->has_record = true;
	for (unsigned int i = 0; i < slu_array_size(c->recorded); i++)
		c->recorded[i] = slu_get_le64(bits + 8 * i);
	for (unsigned int i = 0; i < SLU_CHUNK_BLOCKS; i++) {
		if (first + i < run->nblocks || !blocks_bit(c->recorded, i))
			continue;
		check_report(run, SLU_PROBLEM_SPACE_RECORD, 0, first + i,
			     "space record %" PRIu64 " marks block %" PRIu64
			     ", which is beyond the end of the volume",
			     number, first + i);
		memset(&c->recorded[i / 64 + 1], 0,
		       sizeof(c->recorded) - sizeof(uint64_t) * (i / 64 + 1));
		c->recorded[i / 64] &= (1ull << (i % 64)) - 1;
	}
}

static void blocks_share(struct check_blocks *b, uint64_t blkno)
{
	struct blocks_shared *last, new = {.start = blkno, .end = blkno + 1};

	last = b->shared->len ? &g_array_index(b->shared, struct blocks_shared, b->shared->len - 1)
			      : NULL;
	if (last && last->end == blkno)
		last->end++;
	else if (b->shared->len < BLOCKS_SHARED_MAX)
		g_array_append_val(b->shared, new);
	else
		b->shared_too_many = true;
}

static char *blocks_owner_name(const struct check_owner *o)
{
	switch (o->kind) {
	case CHECK_OWNER_NODE:
		return g_strdup("a node of the tree");
	case CHECK_OWNER_EXTENT:
		return g_strdup_printf("inode %" PRIu64 " (block %" PRIu64 " of the file)", o->ino,
				       o->file_block);
	case CHECK_OWNER_DEFERRED:
		return g_strdup("the superblock's deferred list");
	}
	return g_strdup("?");
}

void check_blocks_own(struct check_run *run, const struct check_owner *owner, uint64_t blkno,
		      uint64_t nblocks)
{
	struct check_blocks *b = run->blocks;
	uint64_t end;

	if (blkno < 2 || blkno >= run->end || nblocks > run->end - blkno) {
		g_autofree char *name = blocks_owner_name(owner);

		check_report(run, SLU_PROBLEM_BLOCK_RANGE, owner->ino, blkno,
			     "%s owns blocks %" PRIu64 " to %" PRIu64
			     ", which are not blocks for data or nodes of this volume",
			     name, blkno, blkno + nblocks - 1);
		return;
	}
	end = blkno + nblocks;
	while (blkno < end) {
		struct blocks_chunk *c = blocks_chunk(b, blkno / SLU_CHUNK_BLOCKS);
		unsigned int i = blkno % SLU_CHUNK_BLOCKS;

		for (; i < SLU_CHUNK_BLOCKS && blkno < end; i++, blkno++) {
			if (i % 64 == 0 && end - blkno >= 64 && c->owned[i / 64] == 0) {
				c->owned[i / 64] = UINT64_MAX;
				i += 63;
				blkno += 63;
			} else if (blocks_bit(c->owned, i)) {
				blocks_share(b, blkno);
			} else {
				c->owned[i / 64] |= 1ull << (i % 64);
			}
		}
	}
}

/* --------------------------------------------------------------- naming owners of shared blocks */

bool check_blocks_any_shared(const struct check_blocks *b)
{
	return b->shared->len > 0;
}

void check_blocks_name_owner(struct check_run *run, const struct check_owner *owner, uint64_t blkno,
			     uint64_t nblocks)
{
	for (guint i = 0; i < run->blocks->shared->len; i++) {
		struct blocks_shared *s =
			&g_array_index(run->blocks->shared, struct blocks_shared, i);

		if (s->nowners == 2 || blkno >= s->end || s->start >= blkno + nblocks ||
		    blkno >= run->nblocks)
			continue;
		s->owners[s->nowners] = *owner;
		if (owner->kind == CHECK_OWNER_EXTENT && s->start > blkno)
			s->owners[s->nowners].file_block += s->start - blkno;
		s->nowners++;
	}
}

static char *blocks_range_name(uint64_t start, uint64_t end)
{
	return end - start == 1 ? g_strdup_printf("block %" PRIu64, start)
				: g_strdup_printf("blocks %" PRIu64 " to %" PRIu64, start, end - 1);
}

static void blocks_report_shared(struct check_run *run)
{
	struct check_blocks *b = run->blocks;

	for (guint i = 0; i < b->shared->len; i++) {
		struct blocks_shared *s = &g_array_index(b->shared, struct blocks_shared, i);
		g_autofree char *range = blocks_range_name(s->start, s->end);
		g_autofree char *one = blocks_owner_name(&s->owners[0]);
		g_autofree char *two = blocks_owner_name(&s->owners[1]);

		if (s->nowners < 2)
			check_report(run, SLU_PROBLEM_BLOCK_SHARED, 0, s->start,
				     "%s: more than one owner", range);
		else
			check_report(run, SLU_PROBLEM_BLOCK_SHARED,
				     s->owners[0].ino ? s->owners[0].ino : s->owners[1].ino,
				     s->start, "%s: owned by %s and by %s", range, one, two);
	}
	if (b->shared_too_many)
		check_report(run, SLU_PROBLEM_BLOCK_SHARED, 0, 0,
			     "more blocks have several owners; only the first %d ranges are named",
			     BLOCKS_SHARED_MAX);
}

/* ------------------------------------------------------------------ comparing */

struct blocks_run {
	uint64_t start, end; /* [start, end); empty: none open */
	enum slu_problem_kind kind;
};

static void blocks_end_run(struct check_run *run, struct blocks_run *r)
{
	if (r->start < r->end) {
		g_autofree char *range = blocks_range_name(r->start, r->end);

		check_report(run, r->kind, 0, r->start, "%s: %s", range,
			     r->kind == SLU_PROBLEM_BLOCK_LOST
				     ? "marked in use, but nothing owns it"
				     : "in use, but marked free");
	}
	r->start = r->end = 0;
}

static void blocks_compare_chunk(struct check_run *run, const struct blocks_chunk *c,
				 struct blocks_run *r)
{
	uint64_t first = (uint64_t)c->number * SLU_CHUNK_BLOCKS;

	for (unsigned int i = 0; i < SLU_CHUNK_BLOCKS; i++) {
		bool owned = blocks_bit(c->owned, i), recorded = blocks_bit(c->recorded, i);
		enum slu_problem_kind kind =
			owned ? SLU_PROBLEM_BLOCK_UNMARKED : SLU_PROBLEM_BLOCK_LOST;

		/*
		 * What could not be read is missing on its side and proves nothing about the other.
		 */
		if (owned == recorded || (owned && run->space_gap) ||
		    (recorded && run->result->incomplete))
			continue;
		if (r->end != first + i || r->kind != kind) {
			blocks_end_run(run, r);
			*r = (struct blocks_run){.start = first + i,
						 .end = first + i,
						 .kind = kind};
		}
		r->end++;
	}
}

static gint blocks_by_number(gconstpointer a, gconstpointer b)
{
	const struct blocks_chunk *x = *(struct blocks_chunk *const *)a;
	const struct blocks_chunk *y = *(struct blocks_chunk *const *)b;

	return (x->number > y->number) - (x->number < y->number);
}

/* The superblocks own their blocks; a chunk without a record need not say so. */
static void blocks_own_super(struct check_blocks *b, uint64_t blkno)
{
	struct blocks_chunk *c = blocks_chunk(b, blkno / SLU_CHUNK_BLOCKS);
	unsigned int i = blkno % SLU_CHUNK_BLOCKS;

	c->owned[i / 64] |= 1ull << (i % 64);
	if (!c->has_record)
		c->recorded[i / 64] |= 1ull << (i % 64);
}

void check_blocks_compare(struct check_run *run)
{
	struct check_blocks *b = run->blocks;
	struct blocks_run r = {0};
	guint n;
	g_autofree struct blocks_chunk **all = NULL;

	blocks_own_super(b, 0);
	blocks_own_super(b, 1);
	if (run->spare)
		blocks_own_super(b, run->spare);
	all = (struct blocks_chunk **)g_hash_table_get_keys_as_array(b->chunks, &n);
	qsort(all, n, sizeof(all[0]), blocks_by_number);
	blocks_report_shared(run);
	for (guint i = 0; i < n; i++)
		blocks_compare_chunk(run, all[i], &r);
	blocks_end_run(run, &r);
}
