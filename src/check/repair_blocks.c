/* SPDX-License-Identifier: MIT */
/*
 * What is known of each block: a few bits, in chunks that exist only where something is known. Also
 * hands out blocks for the nodes of the new tree: only such as no evidence speaks against.
 */
#include "repair_private.h"

struct repair_chunk *repair_chunk(struct repair_run *run, uint64_t number, bool make)
{
	gint64 key = (gint64)number;
	struct repair_chunk *c = g_hash_table_lookup(run->chunks, &key);

	if (!c && make) {
		c = g_new0(struct repair_chunk, 1);
		c->number = key;
		g_hash_table_add(run->chunks, c);
	}
	return c;
}

static bool blocks_bit(const uint64_t *bits, unsigned int i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

void repair_set(struct repair_run *run, enum repair_map map, uint64_t blkno, uint64_t n)
{
	while (n) {
		struct repair_chunk *c = repair_chunk(run, blkno / SLU_CHUNK_BLOCKS, true);
		unsigned int i = blkno % SLU_CHUNK_BLOCKS;

		for (; i < SLU_CHUNK_BLOCKS && n; i++, blkno++, n--)
			c->maps[map][i / 64] |= 1ull << (i % 64);
	}
}

bool repair_test(struct repair_run *run, enum repair_map map, uint64_t blkno)
{
	struct repair_chunk *c = repair_chunk(run, blkno / SLU_CHUNK_BLOCKS, false);

	return c && blocks_bit(c->maps[map], blkno % SLU_CHUNK_BLOCKS);
}

void repair_second_pass(struct repair_run *run)
{
	GHashTableIter iter;
	gpointer p;

	g_hash_table_iter_init(&iter, run->chunks);
	while (g_hash_table_iter_next(&iter, &p, NULL)) {
		struct repair_chunk *c = p;

		memcpy(c->maps[REPAIR_BUSY], c->maps[REPAIR_OWNED], sizeof(c->maps[REPAIR_BUSY]));
		memset(c->maps[REPAIR_OWNED], 0, sizeof(c->maps[REPAIR_OWNED]));
	}
}

/* ------------------------------------------------------------------ what space records prove */

void repair_space_record(struct repair_run *run, uint64_t number, const uint8_t *bits,
			 uint64_t txid)
{
	uint64_t nchunks = slu_round_up(run->nblocks, SLU_CHUNK_BLOCKS) / SLU_CHUNK_BLOCKS;
	struct repair_chunk *c;

	if (number >= nchunks) {
		run->change = true;
		return;
	}
	c = repair_chunk(run, number, true);
	c->has_record = true;
	c->record_txid = txid;
	for (unsigned int i = 0; i < REPAIR_WORDS; i++)
		c->maps[REPAIR_RECORDED][i] = slu_get_le64(bits + 8 * i);
	for (uint64_t i = run->nblocks - number * SLU_CHUNK_BLOCKS; i < SLU_CHUNK_BLOCKS; i++) {
		if (!blocks_bit(c->maps[REPAIR_RECORDED], (unsigned int)i))
			continue;
		run->change = true;
		c->maps[REPAIR_RECORDED][i / 64] &= ~(1ull << (i % 64));
	}
}

enum repair_proof repair_proof(struct repair_run *run, uint64_t blkno, uint64_t txid)
{
	uint64_t number = blkno / SLU_CHUNK_BLOCKS;
	struct repair_chunk *c = repair_chunk(run, number, false);
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE, number);

	if (!c || !c->has_record) /* a chunk without a record is free */
		return repair_in_gap(run, &key) ? REPAIR_UNKNOWN : REPAIR_FREE;
	/* It says how things were then, and nothing about what was written later. */
	if (txid > c->record_txid)
		return REPAIR_UNKNOWN;
	return blocks_bit(c->maps[REPAIR_RECORDED], blkno % SLU_CHUNK_BLOCKS) ? REPAIR_IN_USE
									      : REPAIR_FREE;
}

/* Those that superblocks have: in use, whatever a record says or if there is none. */
static uint64_t blocks_of_supers(const struct repair_run *run, const struct repair_chunk *c,
				 unsigned int word)
{
	uint64_t first = (uint64_t)c->number * SLU_CHUNK_BLOCKS + 64ull * word;
	uint64_t bits = first == 0 ? 3 : 0;

	if (run->spare && run->spare - first < 64)
		bits |= 1ull << (run->spare - first);
	return bits;
}

void repair_compare_space(struct repair_run *run)
{
	uint64_t lost = 0, unmarked = 0;
	GHashTableIter iter;
	gpointer p;

	g_hash_table_iter_init(&iter, run->chunks);
	while (g_hash_table_iter_next(&iter, &p, NULL)) {
		struct repair_chunk *c = p;

		for (unsigned int i = 0; i < REPAIR_WORDS; i++) {
			uint64_t supers = blocks_of_supers(run, c, i);
			uint64_t used = c->maps[REPAIR_OWNED][i] | c->maps[REPAIR_NODE][i] | supers;
			uint64_t recorded = c->maps[REPAIR_RECORDED][i];

			if (!c->has_record)
				recorded |= supers;
			lost += (unsigned int)__builtin_popcountll(recorded & ~used);
			unmarked += (unsigned int)__builtin_popcountll(used & ~recorded);
		}
	}
	if (lost)
		repair_did(run, "free space: blocks that nothing owns become free: %" PRIu64, lost);
	if (unmarked)
		repair_did(run, "free space: blocks in use become marked as such: %" PRIu64,
			   unmarked);
}

/* ------------------------------------------------------------------ new blocks */

/*
 * Whether anything speaks against writing to the block. What the space records call in use and
 * nothing owns is left alone as well: what owned it may only be out of reach for the moment.
 */
static bool blocks_free(const struct repair_chunk *c, unsigned int i, bool all_walked)
{
	if (c->number == 0 && i < 2)
		return false;
	if (!all_walked && blocks_bit(c->maps[REPAIR_RECORDED], i))
		return false;
	return !(blocks_bit(c->maps[REPAIR_NODE], i) || blocks_bit(c->maps[REPAIR_SOLID], i) ||
		 blocks_bit(c->maps[REPAIR_BUSY], i) || blocks_bit(c->maps[REPAIR_FINAL], i));
}

int repair_take_block(struct repair_run *run, uint64_t *cursor, uint64_t *ret)
{
	bool all_walked = run->gaps->len == 0;

	for (;; ++*cursor) {
		struct repair_chunk *c;
		unsigned int i;

		if (*cursor == run->end && !run->below_too) {
			run->below_too = true;
			*cursor = 2;
		}
		if (*cursor >= run->end)
			return -ENOSPC;
		c = repair_chunk(run, *cursor / SLU_CHUNK_BLOCKS, true);
		i = *cursor % SLU_CHUNK_BLOCKS;
		if (!blocks_free(c, i, all_walked))
			continue;
		c->maps[REPAIR_FINAL][i / 64] |= 1ull << (i % 64);
		*ret = (*cursor)++;
		return 0;
	}
}

static gint blocks_by_number(gconstpointer a, gconstpointer b)
{
	const struct repair_chunk *x = *(struct repair_chunk *const *)a;
	const struct repair_chunk *y = *(struct repair_chunk *const *)b;

	return (x->number > y->number) - (x->number < y->number);
}

size_t repair_used_chunks(struct repair_run *run, struct repair_chunk ***ret)
{
	size_t used = 0;
	guint n;

	*ret = (struct repair_chunk **)g_hash_table_get_keys_as_array(run->chunks, &n);
	for (guint i = 0; i < n; i++) {
		const uint64_t *map = (*ret)[i]->maps[REPAIR_FINAL];
		bool any = false;

		for (unsigned int w = 0; w < REPAIR_WORDS && !any; w++)
			any = map[w];
		if (any)
			(*ret)[used++] = (*ret)[i];
	}
	qsort(*ret, used, sizeof(**ret), blocks_by_number);
	return used;
}
