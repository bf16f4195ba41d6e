/* SPDX-License-Identifier: MIT */
/*
 * A small volume with one of everything on a simulated disk, written record by record, and ways to
 * damage it: through the store (records that no layer above would write) and behind its back (bytes
 * of a node or superblock, with the checksum made right again).
 */
#ifndef TEST_CHECK_FIXTURE_H
#define TEST_CHECK_FIXTURE_H

#include "sluice/check.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define FIXTURE_BLOCKS 12288 /* three chunks */
#define FIXTURE_SEED   7

/* What the sample volume has, beside the root directory. */
struct fixture_inodes {
	uint64_t file; /* two names; extents 0-1, 3 mapped, 10-11 unwritten; two attributes */
	uint64_t dir;  /* with sub and fifo in it */
	uint64_t sub;  /* empty directory */
	uint64_t fifo;
	uint64_t symlink; /* a target of 2,500 bytes */
	uint64_t orphan;  /* no name; one block */
	uint64_t cut;     /* being truncated: size 1 block, extents behind it not yet freed */
	uint64_t none;    /* a number handed out and not in use */
};

struct fixture {
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	struct slu_store *store; /* open between fixture_open and fixture_close */
	struct fixture_inodes ino;
	uint64_t data; /* first of the blocks of the file's first extent */
	/* the last check */
	struct slu_check_result result;
	int error;
	const char *why;
	unsigned int kinds[SLU_PROBLEM_NKINDS], notes;
	char texts[65536];
	struct slu_repair_result repaired; /* the last repair */
};

void fixture_new(struct fixture *f);
/* As earlier versions made volumes: without a spare superblock. */
void fixture_new_without_spare(struct fixture *f);
void fixture_free(struct fixture *f);

/* Changing the volume through the store; close commits. */
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
/* A batch of one: put or, with value NULL, delete. */
void fixture_put(struct fixture *f, struct slu_key key, const void *value, size_t len);
int fixture_get(struct fixture *f, struct slu_key key, void *value, size_t size);
/* The key of a name in a directory, or of an attribute. */
struct slu_key fixture_name_key(uint64_t ino, uint8_t type, const char *name, uint16_t number);
void fixture_put_dirent(struct fixture *f, uint64_t dir, const char *name, uint64_t target,
			unsigned int type);
void fixture_del_dirent(struct fixture *f, uint64_t dir, const char *name);
/* The inode record, for fn to change. */
void fixture_change_inode(struct fixture *f, uint64_t ino, void (*fn)(struct slu_disk_inode *di));
/* Takes blocks for extents that a test puts; they belong to nobody until then. */
uint64_t fixture_take(struct fixture *f, uint64_t nblocks, struct slu_batch *batch);
void fixture_apply(struct fixture *f, struct slu_batch *batch);

/* Changing it behind the store's back; the volume must be closed. */
/* The block of a node at this level that fn says yes to; fails the test if there is none. */
uint64_t fixture_find_node(struct fixture *f, unsigned int level,
			   bool (*fn)(const struct slu_disk_node *node));
/* The leaf and value of a record. fn changes the value; the checksum is made right again. */
void fixture_poke_record(struct fixture *f, struct slu_key key,
			 void (*fn)(uint8_t *value, size_t len));
void fixture_poke_node(struct fixture *f, uint64_t blkno, void (*fn)(struct slu_disk_node *node),
		       bool checksum);
void fixture_poke_super(struct fixture *f, unsigned int slots, void (*fn)(struct slu_disk_super *s),
			bool checksum);

/*
 * Checks the volume and compares what was found with the list of kinds, in any order; ended by
 * SLU_PROBLEM_NKINDS. Any difference fails the test with the texts that were printed.
 */
void fixture_check(struct fixture *f);
void fixture_expect(struct fixture *f, ...);
/* Repairs it; the lines are in f->texts. What slu_repair returns. */
int fixture_repair(struct fixture *f);
/* Repairs it, and then it must be sound, take changes, and be sound after them. */
void fixture_expect_repaired(struct fixture *f);
/* n more empty files (a multiple of 32), named by numbers from 0 on, in a directory. */
void fixture_fill(struct fixture *f, uint64_t dir, unsigned int n);
/* One of the texts contains this. */
void fixture_expect_text(const struct fixture *f, const char *text);

#endif
