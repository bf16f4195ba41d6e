/* SPDX-License-Identifier: MIT */
/*
 * check: every invariant of the on-disk format, for fsck and for tests. All but slu_repair only read.
 *
 * One pass over the tree in key order with little memory: one bit per block for what is owned and
 * one for what the space records say (only for the parts of the volume in use), about 40 bytes per
 * inode and 32 per directory entry (resident: arrays grow by doubling, and the address space taken
 * may be twice that). Where a node cannot be read, what it held is missing from both sides of a
 * comparison, so comparisons that it could make false are left out and the result says that it is
 * incomplete.
 */
#ifndef SLUICE_CHECK_H
#define SLUICE_CHECK_H

#include "sluice/store.h"

enum slu_problem_kind {
	SLU_PROBLEM_SUPER,        /* one superblock: unreadable, checksum, a field out of range */
	SLU_PROBLEM_SUPER_DIFFER, /* the two superblocks contradict each other */
	SLU_PROBLEM_SPARE,        /* the spare superblock is not what belongs there */
	SLU_PROBLEM_COUNT,        /* a count of the superblock is wrong */
	SLU_PROBLEM_DEFERRED,     /* a deferred block that cannot be */
	SLU_PROBLEM_NODE,         /* a node: unreadable, checksum, order, link from its parent */
	SLU_PROBLEM_RECORD,       /* a record of a type, key or length that cannot be */
	SLU_PROBLEM_SPACE_RECORD, /* a record of free space that is malformed */
	SLU_PROBLEM_BLOCK_RANGE,  /* something owns blocks outside of the volume, or a superblock */
	SLU_PROBLEM_BLOCK_SHARED, /* a block with two owners */
	SLU_PROBLEM_BLOCK_UNMARKED, /* owned, but its bit says free */
	SLU_PROBLEM_BLOCK_LOST,     /* its bit says in use, but nothing owns it */
	SLU_PROBLEM_ROOT,           /* the root directory is missing or is none */
	SLU_PROBLEM_INODE,          /* a field of an inode record */
	SLU_PROBLEM_INODE_MISSING,  /* records of an inode that has no inode record */
	SLU_PROBLEM_NLINK,          /* link count */
	SLU_PROBLEM_UNREACHABLE,    /* an inode without a name that is no orphan */
	SLU_PROBLEM_ORPHAN,         /* an orphan record that contradicts its inode */
	SLU_PROBLEM_DIR_SIZE,       /* a directory's number of entries */
	SLU_PROBLEM_DIR_PARENT,     /* ".." is not where the directory's name is */
	SLU_PROBLEM_DIR_LINKS,      /* a directory with more than one name */
	SLU_PROBLEM_DIR_LOOP, /* directories that contain each other, out of reach from the root */
	SLU_PROBLEM_DIRENT,   /* a directory entry that is malformed, or not in a directory */
	SLU_PROBLEM_DIRENT_DANGLING, /* an entry for an inode that does not exist */
	SLU_PROBLEM_DIRENT_TYPE,     /* an entry whose type is not the inode's */
	SLU_PROBLEM_NAME,            /* a name that cannot be: NUL, slash, "." */
	SLU_PROBLEM_NAME_HASH,       /* a name under another name's key */
	SLU_PROBLEM_NAME_DUPLICATE,  /* one name twice in a directory, or one attribute twice */
	SLU_PROBLEM_EXTENT,          /* an extent that is malformed, or not in a regular file */
	SLU_PROBLEM_EXTENT_OVERLAP,  /* two extents for one block of a file */
	SLU_PROBLEM_EXTENT_BEYOND,   /* data beyond the end of a file */
	SLU_PROBLEM_BLOCKS,          /* an inode's number of blocks */
	SLU_PROBLEM_SYMLINK,         /* a symlink's target */
	SLU_PROBLEM_XATTR,           /* an extended attribute: malformed, or their number */
	SLU_PROBLEM_XATTR_PART,      /* parts of a value: missing, too many, of nothing */
	SLU_PROBLEM_NKINDS,
};

/* One short word for the kind, as in the list above. */
const char *slu_problem_name(enum slu_problem_kind kind);

struct slu_problem {
	enum slu_problem_kind kind;
	/* Not damage: what a power cut may leave behind and the next mount mends by itself. */
	bool note;
	uint64_t ino;     /* 0: of no inode */
	uint64_t blkno;   /* 0: of no block in particular */
	const char *text; /* one line with all numbers in it; printable; valid during the call */
};

struct slu_check_opts {
	void (*problem)(void *ctx, const struct slu_problem *problem);
	/* Nodes so far and in all; anything but 0 ends the check with -ECANCELED. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

struct slu_check_result {
	uint64_t problems, notes; /* as many as were reported */
	bool incomplete;          /* damage kept part of the volume from being checked */
	bool was_clean;           /* unmounted cleanly */
	/* From the superblock, or the spare one. */
	uint8_t volume_id[16];
	char label[SLU_LABEL_MAX + 1];
	uint64_t nblocks;
	/* Counted. */
	uint64_t inodes, files, directories, symlinks, others;
	uint64_t names, xattrs, extents, orphans;
	uint64_t data_blocks, node_blocks, records, record_bytes;
	unsigned int depth; /* of the tree */
};

/*
 * Checks the volume on bio, which may be open for reading only. Where both superblocks are bad it
 * looks for the spare one (slu_spare_find), and checks nothing else. 0: it has been checked, and
 * ret->problems says with what result. Otherwise it could not be: -EINVAL (not a volume),
 * -EPROTONOSUPPORT (a version or feature unknown here), -ENOSPC (the image is shorter than the
 * volume), -ECANCELED, -ENOMEM, -EIO (the image cannot be read at all); *why is then a static line
 * for people. No lock held; waits for I/O.
 */
int slu_check(struct slu_blockio *bio, const struct slu_check_opts *opts,
	      struct slu_check_result *ret, const char **why);

/*
 * The superblocks alone, which takes three reads: for fsck -a on a volume that was unmounted cleanly.
 * Results as above; ret has what the newer superblock says.
 */
int slu_check_supers(struct slu_blockio *bio, const struct slu_check_opts *opts,
		     struct slu_check_result *ret, const char **why);

/* ------------------------------------------------------------------ repair */

/* In this order; a repair may leave some out. */
enum slu_repair_phase {
	SLU_REPAIR_TREE,   /* reading what the tree reaches; in nodes */
	SLU_REPAIR_SEARCH, /* looking through the volume for what it has lost; in blocks */
	SLU_REPAIR_BUILD,  /* mending the records and writing the new tree; in leaves, two passes */
};

struct slu_repair_opts {
	/*
	 * One line for each thing that is put right; detail: how it was found out, for those who
	 * want to know more. The text is valid during the call. May be NULL.
	 */
	void (*did)(void *ctx, const char *text, bool detail);
	/*
	 * So far and in all, of this phase; anything but 0 ends the repair with -ECANCELED. May be
	 * NULL.
	 */
	int (*progress)(void *ctx, enum slu_repair_phase phase, uint64_t done, uint64_t total);
	void *ctx;
	/* Whose files and directories become whose own record is lost, and lost+found. */
	uint32_t uid, gid;
};

struct slu_repair_result {
	uint64_t repairs;              /* lines that were no detail */
	uint64_t lost_ranges;          /* ranges of keys of which no valid node is left */
	uint64_t leaves, found_leaves; /* believed; of these found by looking through the volume */
	uint64_t inodes, reconnected;  /* reconnected: under lost+found */
	uint64_t nodes;                /* written; 0: the tree stayed as it was */
};

/*
 * Repairs the volume on bio, which is open for writing and locked: collects every record that can
 * be believed (docs/design.md, Repair), mends or drops what contradicts the rest, writes a new tree
 * into blocks that nothing uses, flushes, and switches the superblocks as a commit does. Until then
 * nothing that the present superblock reaches is touched, so it can be interrupted and run again.
 *
 * Memory: 110 bytes for each leaf, 80 for each inode, 32 for each directory entry, 6 bits for each
 * block of the chunks in use; where the scan looks for leaves that nothing leads to, 80 more for each
 * that it takes and 72 for each version of one that it finds. Resident, as above.
 *
 * Where both superblocks are lost it begins with the spare one, and if the tree cannot stay it writes
 * a superblock before anything else, with which it can be run again, but not mounted.
 *
 * 0: done; what is left is for slu_check to say. Otherwise nothing else has been changed but blocks
 * that nothing uses: -ENOSPC (no room for a second tree), -EUCLEAN (no superblock is left to begin
 * with, nor a spare one), -EINVAL, -EPROTONOSUPPORT (as slu_check), -EFBIG (the image is shorter than the volume),
 * -ECANCELED, -ENOMEM, -EIO, -EROFS; *why is then a static line for people. If a superblock write or
 * the last flush fails (-EIO), the volume is as it was or repaired, not in between; a spare
 * superblock that has to be written anew comes after that. No lock held.
 */
int slu_repair(struct slu_blockio *bio, const struct slu_repair_opts *opts,
	       struct slu_repair_result *ret, const char **why);

#endif
