/* SPDX-License-Identifier: MIT */
/*
 * Building a batch: plain memory of its owner's, no lock, no store.
 *
 * A failure sticks in b->error, so that callers add what they have to add and look once, at apply.
 * A second operation on a key takes the place of the first.
 */
#include "store_batch.h"

#define BATCH_MAX_RANGES 4096

void slu_batch_init(struct slu_batch *b)
{
	memset(b, 0, sizeof(*b));
}

void slu_batch_fini(struct slu_batch *b)
{
	slu_free(b->ops);
	slu_free(b->data);
	slu_free(b->blocks);
	memset(b, 0, sizeof(*b));
}

void slu_batch_reset(struct slu_batch *b)
{
	b->nops = 0;
	b->ndata = 0;
	b->nblocks = 0;
	b->ninodes = 0;
	b->error = 0;
}

/* Makes *array hold `cap` elements; the first `used` are kept. */
static int grow(void *array, size_t size, size_t used, size_t cap)
{
	void **p = array, *bigger = slu_calloc(cap, size);

	if (!bigger)
		return -ENOMEM;
	if (used)
		memcpy(bigger, *p, used * size);
	slu_free(*p);
	*p = bigger;
	return 0;
}

static bool batch_fail(struct slu_batch *b, int err)
{
	if (err && !b->error)
		b->error = err;
	return b->error;
}

/* The operation for key, new or to be replaced; NULL after a failure. */
static struct slu_batch_op *batch_op(struct slu_batch *b, const struct slu_key *key)
{
	static const struct slu_key max = {UINT64_MAX, UINT64_MAX, UINT8_MAX};
	struct slu_batch_op *op;

	if (b->error)
		return NULL;
	if (slu_key_cmp(key, &max) == 0) {
		batch_fail(b, -EINVAL);
		return NULL;
	}
	for (unsigned int i = b->nops; i-- > 0;)
		if (slu_key_cmp(&b->ops[i].key, key) == 0)
			return &b->ops[i];
	if (b->nops == SLU_BATCH_MAX_RECORDS) {
		batch_fail(b, -E2BIG);
		return NULL;
	}
	if (b->nops == b->cap_ops) {
		unsigned int cap = slu_max(b->cap_ops * 2, 8u);

		if (batch_fail(b, grow(&b->ops, sizeof(*b->ops), b->nops, cap)))
			return NULL;
		b->cap_ops = cap;
	}
	op = &b->ops[b->nops++];
	*op = (struct slu_batch_op){.key = *key};
	return op;
}

void slu_batch_put(struct slu_batch *b, const struct slu_key *key, const void *value, size_t len)
{
	struct slu_batch_op *op;

	if (b->error)
		return;
	if (len > SLU_VALUE_MAX || b->ndata + len > SLU_BATCH_MAX_BYTES) {
		batch_fail(b, -E2BIG);
		return;
	}
	if (b->ndata + len > b->cap_data) {
		size_t cap = slu_max(b->cap_data * 2, (size_t)512);

		while (cap < b->ndata + len)
			cap *= 2;
		if (batch_fail(b, grow(&b->data, 1, b->ndata, cap)))
			return;
		b->cap_data = cap;
	}
	op = batch_op(b, key);
	if (!op)
		return;
	op->del = false;
	op->off = (uint32_t)b->ndata;
	op->len = (uint16_t)len;
	if (len)
		memcpy(b->data + b->ndata, value, len);
	b->ndata += len;
}

void slu_batch_del(struct slu_batch *b, const struct slu_key *key)
{
	struct slu_batch_op *op = batch_op(b, key);

	if (!op)
		return;
	op->del = true;
	op->len = 0;
}

static void batch_add_blocks(struct slu_batch *b, uint64_t blkno, uint64_t nblocks, bool own)
{
	if (b->error || !nblocks)
		return;
	if (b->nblocks) {
		struct slu_batch_blocks *last = &b->blocks[b->nblocks - 1];

		if (last->own == own && last->blkno + last->nblocks == blkno) {
			last->nblocks += nblocks;
			return;
		}
	}
	if (b->nblocks == BATCH_MAX_RANGES) {
		batch_fail(b, -E2BIG);
		return;
	}
	if (b->nblocks == b->cap_blocks) {
		unsigned int cap = slu_max(b->cap_blocks * 2, 8u);

		if (batch_fail(b, grow(&b->blocks, sizeof(*b->blocks), b->nblocks, cap)))
			return;
		b->cap_blocks = cap;
	}
	b->blocks[b->nblocks++] = (struct slu_batch_blocks){blkno, nblocks, own};
}

void slu_batch_own(struct slu_batch *b, uint64_t blkno, uint64_t nblocks)
{
	batch_add_blocks(b, blkno, nblocks, true);
}

void slu_batch_free(struct slu_batch *b, uint64_t blkno, uint64_t nblocks)
{
	batch_add_blocks(b, blkno, nblocks, false);
}

void slu_batch_inodes(struct slu_batch *b, int64_t delta)
{
	b->ninodes += delta;
}

void batch_sort(const struct slu_batch *b, struct tree_op *ops)
{
	/* Batches are short, and mostly in order already. */
	for (unsigned int i = 0; i < b->nops; i++) {
		const struct slu_batch_op *op = &b->ops[i];
		unsigned int at = i;

		while (at && slu_key_cmp(&ops[at - 1].key, &op->key) > 0) {
			ops[at] = ops[at - 1];
			at--;
		}
		ops[at] = (struct tree_op){.key = op->key,
					   .value = op->len ? b->data + op->off : NULL,
					   .len = op->len,
					   .del = op->del};
	}
}
