/* SPDX-License-Identifier: MIT */
/*
 * What a batch is made of; opaque outside the store.
 */
#ifndef SLU_STORE_BATCH_H
#define SLU_STORE_BATCH_H

#include "store_private.h"

struct slu_batch_op {
	struct slu_key key;
	uint32_t off; /* of the value in the batch's data */
	uint16_t len;
	bool del;
};

struct slu_batch_blocks {
	uint64_t blkno, nblocks;
	bool own; /* else free */
};

/* The operations sorted by key, values pointing into the batch. ops has room for all of them. */
void batch_sort(const struct slu_batch *b, struct tree_op *ops);

#endif
