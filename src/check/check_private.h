/* SPDX-License-Identifier: MIT */
/*
 * check, inside: one struct for a run, and what its parts ask of each other.
 *
 *	check.c		the run: opens, walks, hands records to the parts, compares the counts
 *	super.c		the two superblocks and the spare one
 *	blocks.c	who owns which block
 *	inode.c		the records of one inode, as they stream by
 *	dir.c		directory entries and extended attributes: names, hashes, parts
 *	links.c		after the walk: links, orphans, reachability
 *	report.c	one line per problem
 *	repair*.c	see repair_private.h
 *
 * One thread, no locks. Memory is GLib's: a tool that runs out of it ends.
 */
#ifndef SLUICE_CHECK_PRIVATE_H
#define SLUICE_CHECK_PRIVATE_H

#include "sluice/check.h"
#include <glib.h>
#include <inttypes.h>

/* One inode, kept until the links have been compared. In order of ino. */
struct check_inode {
	uint64_t ino;
	uint64_t parent; /* directories: what the record says */
	uint64_t from;   /* directories: where their name is; 0: not seen */
	uint32_t nlink;  /* what the record says */
	uint32_t links;  /* names seen */
	uint8_t type;    /* S_IFMT >> 12 */
	uint8_t reach;   /* enum check_reach */
	bool gap;        /* records of it may be missing: a node near them is damaged */
};

enum check_reach { CHECK_UNKNOWN, CHECK_ON_THE_WAY, CHECK_REACHED, CHECK_LOST };

/* One directory entry. */
struct check_link {
	uint64_t target, dir, off;
	uint8_t type;
};

struct check_orphan {
	uint64_t ino, size;
	uint8_t what;
	bool found; /* its inode exists */
};

/* A value in parts: what has been announced and what has been seen of it. */
struct check_parts {
	uint32_t part_id, value_len, seen, next;
};

/* The inode whose records are streaming by. */
struct check_current {
	uint64_t ino; /* 0: none */
	bool has_inode, gap;
	uint32_t mode, nlink, nxattr;
	uint64_t size, blocks, parent;
	struct check_orphan *orphan; /* NULL: none */
	/* seen so far */
	uint64_t entries, subdirs, xattrs, extent_blocks, next_file_block;
	uint64_t target_bytes, target_parts;
	GArray *parts;    /* of struct check_parts */
	GPtrArray *names; /* GBytes: names with the hash last seen */
	uint64_t names_hash;
	uint8_t names_type;
};

struct check_run {
	const struct slu_check_opts *opts;
	struct slu_check_result *result;
	struct slu_blockio *bio;
	struct slu_store *store;
	struct slu_disk_super super; /* the one in use */
	unsigned int super_slot;     /* where it lies */
	uint64_t spare;              /* the spare superblock, blkno; 0: none */
	bool spare_bad;              /* it is not what belongs there */
	bool from_spare;             /* it is all there is: run->super says no more than it does */
	uint64_t nblocks, hash_seed, next_ino;
	uint64_t end; /* blocks for nodes and data lie below */
	/* the walk */
	uint64_t nodes;
	bool any_record, past_space, past_orphans;
	struct slu_key last_key;
	bool gap;        /* a damaged node since the last record */
	bool space_gap;  /* space records may be missing */
	bool orphan_gap; /* orphan records may be missing */
	struct check_current current;
	/* kept */
	GArray *inodes;  /* struct check_inode */
	GArray *links;   /* struct check_link */
	GArray *orphans; /* struct check_orphan */
	struct check_blocks *blocks;
};

/* ------------------------------------------------------------------ report.c */

void check_report(struct check_run *run, enum slu_problem_kind kind, uint64_t ino, uint64_t blkno,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void check_note(struct check_run *run, enum slu_problem_kind kind, uint64_t blkno, const char *fmt,
		...) __attribute__((format(printf, 4, 5)));
/* A name for people: in quotes, what cannot be printed as \ooo. The caller frees it. */
char *check_quote(const void *name, size_t len);

/* ------------------------------------------------------------------ super.c */

/*
 * Looks at both superblocks and the spare one. 1: one can be used, run->super is the newer such; 0:
 * none can, which has been reported, and run->from_spare says whether there is a spare one; negative
 * as slu_check.
 */
int check_supers(struct check_run *run, const char **why);

/* ------------------------------------------------------------------ blocks.c */

enum check_owner_kind { CHECK_OWNER_NODE, CHECK_OWNER_EXTENT, CHECK_OWNER_DEFERRED };

struct check_owner {
	enum check_owner_kind kind;
	uint64_t ino, file_block; /* of an extent */
};

struct check_blocks *check_blocks_new(void);
void check_blocks_free(struct check_blocks *blocks);
/* A space record: bitmap of a chunk. */
void check_blocks_record(struct check_run *run, uint64_t chunk, const uint8_t *bits);
/* Reports blocks out of range (and claims the others). */
void check_blocks_own(struct check_run *run, const struct check_owner *owner, uint64_t blkno,
		      uint64_t nblocks);
/* Whether something has been claimed twice; then a second walk names the owners. */
bool check_blocks_any_shared(const struct check_blocks *blocks);
void check_blocks_name_owner(struct check_run *run, const struct check_owner *owner, uint64_t blkno,
			     uint64_t nblocks);
/* After both walks: shared, unmarked, lost. */
void check_blocks_compare(struct check_run *run);

/* ------------------------------------------------------------------ inode.c */

void check_current_init(struct check_run *run);
void check_current_fini(struct check_run *run);
/* A record of an inode (key->ino != 0), in key order. */
void check_inode_record(struct check_run *run, const struct slu_key *key, const uint8_t *value,
			size_t len);
/* The inode's last record has been seen. */
void check_inode_end(struct check_run *run);

/* ------------------------------------------------------------------ dir.c */

void check_dirent(struct check_run *run, const struct slu_key *key, const uint8_t *value,
		  size_t len);
/* Prefixes that this filesystem takes; system. has the two ACLs alone. No NUL. */
bool check_xattr_name_ok(const char *name, size_t len);
void check_xattr(struct check_run *run, const struct slu_key *key, const uint8_t *value,
		 size_t len);
void check_xattr_part(struct check_run *run, const struct slu_key *key, const uint8_t *value,
		      size_t len);
void check_xattrs_end(struct check_run *run);

/* ------------------------------------------------------------------ links.c */

void check_orphan_record(struct check_run *run, const struct slu_key *key, const uint8_t *value,
			 size_t len);
struct check_orphan *check_find_orphan(struct check_run *run, uint64_t ino);
struct check_inode *check_find_inode(struct check_run *run, uint64_t ino);
void check_links(struct check_run *run);

#endif
