/* SPDX-License-Identifier: MIT */
/*
 * A small volume written record by record, by code that shares nothing with the store but the
 * format; and patches, small changes to it, which are a fuzzer's input. All that is not patched is
 * made to fit: checksums, the space records, the counts of the superblock.
 */
#ifndef FUZZ_VOLUME_H
#define FUZZ_VOLUME_H

#include "fuzz.h"

#define VOLUME_BLOCKS    8192u                /* two chunks */
#define IMAGE_BLOCKS     (VOLUME_BLOCKS + 64) /* there is something behind it */
#define VOLUME_HASH_SEED 7u
#define RECORD_MAX       2048u /* bytes of a value; more than the format allows */
#define RECORDS_MAX      120u  /* no more leaves than fit into one root */

struct record {
	struct slu_key key;
	int chunk; /* a space record, filled in when the nodes have their places; else -1 */
	bool gone;
	uint16_t len;
	uint8_t value[RECORD_MAX];
};

struct records {
	unsigned int n;
	struct record r[RECORDS_MAX];
	/* Blocks of the extents; nothing moves them when a patch changes an extent. */
	uint8_t used[VOLUME_BLOCKS / 8];
};

enum patch_kind {
	PATCH_VALUE,  /* bytes of a record's value */
	PATCH_KEY,    /* bytes of its key, as on disk */
	PATCH_DELETE, /* the record is left out */
	PATCH_NEW,    /* a record: key, value; `off` zeros behind it */
	PATCH_LEN,    /* its value's length becomes `off` */
	PATCH_NODE,   /* bytes of a node, the checksum made right */
	PATCH_DAMAGE, /* bytes of a node, the checksum left alone */
	PATCH_SUPER,  /* bytes of superblocks: bits 0 and 1 of idx say which */
	PATCH_COPY,   /* node `off` over node idx */
	PATCH_DEEP,   /* two inner nodes between the root and the leaves */
	/*
	 * Slot `off` of node idx, if that is an inner one, leads to node data[0]; or, if there is a
	 * data[1], to a copy of that node which lies behind the volume.
	 */
	PATCH_CHILD,
	PATCH_KINDS,
};

/* One patch of an input: this, then `len` bytes of data. */
struct patch {
	uint8_t kind; /* modulo PATCH_KINDS */
	uint8_t idx;  /* record or node, modulo their number */
	slu_le16 off;
	uint8_t len;
};

/* The sample volume's records, unpatched. */
const struct records *volume_base(void);
/* The sample volume with the input's patches, written to an empty disk of IMAGE_BLOCKS. */
void volume_write(struct slu_simdisk *disk, const uint8_t *data, size_t size);

#endif
