/* SPDX-License-Identifier: MIT */
/*
 * What the store's tests share: a volume on a simulated disk, records that can be told from a
 * number, a plain model of them, and a checker of everything that lies on the disk.
 */
#ifndef TEST_STORE_UTIL_H
#define TEST_STORE_UTIL_H

#include "sluice/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define REC_TEST 40

/* ------------------------------------------------------------------ a volume */

struct vol {
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	struct slu_store *store;
	struct slu_store_opts opts;
	_Atomic unsigned int corrupt, readonly, no_space, fallback, commit_failed; /* events seen */
};

/* Formats a new disk; the volume is not open yet. */
void vol_new(struct vol *v, uint64_t nblocks);
/* In an image that is longer. */
void vol_new_in(struct vol *v, uint64_t nblocks, uint64_t image_blocks);
/* As earlier versions made volumes: without a spare superblock. */
void vol_new_without_spare(struct vol *v, uint64_t nblocks);
void vol_free(struct vol *v);
void vol_open(struct vol *v);
int vol_try_open(struct vol *v, const char **why);
void vol_close(struct vol *v);
int vol_try_close(struct vol *v);
void vol_reopen(struct vol *v);
/* Throws a mount away whose disk has lost power. */
void vol_drop(struct vol *v);
void vol_commit(struct vol *v);

/* ------------------------------------------------------------------ pseudo-random numbers */

struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *r);
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

/* ------------------------------------------------------------------ the model */

/*
 * Record number id has a key that grows with id, in all its parts; `version` 0 means that it is not
 * there, others decide on its value.
 */
struct slu_key model_key(uint32_t id);
/* The value's length; fills buf (SLU_VALUE_MAX bytes). */
size_t model_value(uint32_t id, uint32_t version, uint8_t *buf);
/* The longest value of the model, at most SLU_VALUE_MAX. */
extern size_t model_longest;

/* Compares every record in the store with version[0 .. n). */
void model_check(struct slu_store *store, const uint32_t *version, uint32_t n);
/* The same without failing: true if they are equal. */
bool model_equal(struct slu_store *store, const uint32_t *version, uint32_t n);

/* ------------------------------------------------------------------ the checker */

struct disk_facts {
	uint64_t txid, leaves, nodes, record_bytes, data_blocks, depth;
	uint64_t leaf_bytes; /* of all leaves */
	unsigned int sparse; /* nodes below the least fill, root and rightmost left out */
	uint8_t *reached;    /* a byte for each block, or NULL */
};
/*
 * Opens the disk read-only and looks at everything: nodes valid, every block reached once at most,
 * space records, superblock and what is reached all agree. Fails the test if not. With keep, the
 * caller frees facts->reached.
 */
void disk_check(struct slu_simdisk *disk, struct disk_facts *ret, bool keep);

#endif
