/* SPDX-License-Identifier: MIT */
/*
 * Repair, inside: one struct for a run, and what its parts ask of each other.
 *
 *	repair.c	 the run, and the switch of superblocks at its end
 *	repair_root.c	 which tree it is, where no superblock is left to say so
 *	repair_find.c	 which leaves are believed: the walk, and the scan where it cannot go on
 *	repair_blocks.c	 what is known of each block; blocks for new nodes
 *	repair_inode.c	 the records of one inode, as they stream by: keep, mend or drop
 *	repair_name.c	 the same for names and attributes
 *	repair_links.c	 names, inodes and orphans against each other; lost+found
 *	repair_build.c	 the new tree
 *
 * The believed records stream by twice, in the order of their keys. The first time the parts learn
 * what there is and say what will be done; then names are compared with inodes; the second time the
 * same decisions are made again, and what is kept goes into the new tree. So decisions on single
 * records depend on nothing but the records before them.
 *
 * One thread, no locks. Memory is GLib's: a tool that runs out of it ends.
 */
#ifndef SLUICE_REPAIR_PRIVATE_H
#define SLUICE_REPAIR_PRIVATE_H

#include "check_private.h"

/*
 * Inode numbers and transactions from here on are made up: counting from 1 nobody gets there, and
 * the store refuses a volume whose next ones are twice as large.
 */
#define REPAIR_NUMBER_MAX (UINT64_MAX / 4)

/* A leaf that is believed. In order of lower, without overlaps. */
struct repair_leaf {
	struct slu_key lower, upper;
	uint64_t blkno, txid;
	bool found; /* by the scan: nothing that is believed leads to it */
	bool stale; /* it may be older than what was lost: nothing says that its block is in use */
};

/* Keys whose nodes cannot be reached from the root. In order. */
struct repair_gap {
	struct slu_key lower, upper;
	bool leaf; /* a leaf is bad, and no inner node */
};

/* One inode. In order of ino. */
struct repair_inode {
	uint64_t ino, parent; /* parent: what the record says, of a directory */
	uint64_t from;        /* directories: where their name is; 0: nowhere */
	uint64_t from_link;   /* and the index of that name in run->links */
	uint64_t said_size;   /* what the record says */
	uint64_t size;        /* what it will say; directories: the names kept in it */
	uint64_t blocks;      /* owned */
	uint32_t nlink;       /* what the record says */
	uint32_t links;       /* names that lead here */
	uint32_t subdirs, nxattr;
	uint8_t type;  /* S_IFMT >> 12 */
	uint8_t reach; /* enum check_reach */
	bool made;     /* its record is lost, it gets a new one */
	bool drop;     /* with all its records */
};

enum repair_link_fate {
	REPAIR_LINK_KEEP,
	REPAIR_LINK_DANGLING,
	REPAIR_LINK_NO_DIR,
	REPAIR_LINK_SECOND, /* of a directory */
	REPAIR_LINK_LOOP,
	REPAIR_LINK_UNLINKED, /* of an inode that says that it has no name */
};

/* One directory entry. In order of (dir, off). */
struct repair_link {
	uint64_t target, dir, off;
	uint8_t type;
	uint8_t fate;
	bool lost_found; /* this is /lost+found */
};

struct repair_orphan {
	uint64_t ino, size;
	uint8_t what;
	bool keep;
};

/* A record that was not there. In order of key, and none of a key that is kept. */
struct repair_addition {
	struct slu_key key;
	uint16_t len;
	uint8_t value[sizeof(struct slu_disk_inode)]; /* or an entry with a short name */
};

/* The value of an attribute in parts. */
struct repair_parts {
	uint64_t off; /* of the attribute's key */
	uint32_t part_id, value_len, seen, next;
};

/* The inode whose records are streaming by. */
struct repair_current {
	uint64_t ino; /* 0: none */
	bool has_inode, bad_target;
	uint32_t mode; /* without has_inode: the type that its records tell, or 0 */
	uint64_t end;  /* extents with data must end here, in blocks */
	bool end_known;
	uint64_t next_file_block, target_parts, target_bytes;
	bool names_any;
	uint8_t names_type;
	uint64_t names_hash;
	GPtrArray *names;           /* GBytes: names with the hash last seen */
	GArray *parts;              /* of struct repair_parts */
	struct repair_inode entry;  /* pass 1: being filled in */
	struct repair_inode *known; /* pass 2: the entry, NULL if it has none */
	struct slu_disk_inode disk; /* has_inode: the record */
};

struct repair_run {
	const struct slu_repair_opts *opts;
	struct slu_repair_result *result;
	struct slu_blockio *bio;
	struct slu_disk_super super; /* the one in use */
	unsigned int super_slot;
	uint64_t nblocks, hash_seed, next_ino, txid;
	uint64_t spare; /* the spare superblock, blkno; 0: none */
	uint64_t end;   /* blocks for nodes and data lie below */
	bool spare_bad;
	bool from_spare; /* both superblocks are lost: `super` has no tree until it is found */
	uint64_t newest; /* transaction of any node that was seen */
	unsigned int pass;
	bool change; /* the tree has to be written anew */
	enum slu_repair_phase phase;
	uint64_t done, total; /* of the phase */
	/* what is believed */
	GArray *leaves, *gaps;
	uint64_t walked_nodes;
	GHashTable *chunks; /* number → struct repair_chunk */
	/* what it says */
	struct repair_current current;
	GArray *inodes, *links, *orphans, *additions;
	GHashTable *bad_xattrs; /* GBytes of disk keys: attributes whose parts are not all there */
	guint next_link, next_addition; /* pass 2 */
	/* what becomes of it */
	uint64_t record_bytes, data_blocks, ninodes;
	struct repair_build *build; /* NULL: nothing is written, only counted */
	bool below_too;             /* blocks before SLU_NODES_FROM are asked for as well */
};

/* ------------------------------------------------------------------ repair.c */

void repair_did(struct repair_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the superblocks alone are mended for: the tree can stay. */
void repair_did_super(struct repair_run *run, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void repair_detail(struct repair_run *run, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* n more blocks have been looked at. 0 or -ECANCELED. */
void repair_phase(struct repair_run *run, enum slu_repair_phase phase, uint64_t total);
int repair_step(struct repair_run *run, uint64_t n);

/* ------------------------------------------------------------------ repair_root.c */

/*
 * run->from_spare: finds the newest tree and puts it into run->super, and its leaves as
 * repair_find_leaves. -EUCLEAN: there is no node at all.
 */
int repair_find_tree(struct repair_run *run);

/* ------------------------------------------------------------------ repair_find.c */

/* From the tree of run->super: run->leaves and run->gaps, and in the maps what the walk shows. */
int repair_find_leaves(struct repair_run *run);
/* Back to before. */
void repair_forget_leaves(struct repair_run *run);
/* The leaves leave nothing open, and none is stale. */
bool repair_leaves_whole(const struct repair_run *run);
/* Calls fn for every block that may be a node and is not believed yet. */
typedef void repair_scan_fn(struct repair_run *run, void *ctx, uint64_t blkno,
			    const struct slu_disk_node *node);
int repair_scan(struct repair_run *run, repair_scan_fn *fn, void *ctx);

/* Fills run->leaves, and in the maps what the walk shows. */
int repair_find(struct repair_run *run);
bool repair_in_gap(const struct repair_run *run, const struct slu_key *key);
/* Calls fn for each record of the leaf. */
typedef void repair_record_fn(struct repair_run *run, const struct repair_leaf *leaf,
			      const struct slu_key *key, const uint8_t *value, size_t len);
void repair_each_record(struct repair_run *run, const struct repair_leaf *leaf,
			const struct slu_disk_node *node, repair_record_fn *fn);

/* ------------------------------------------------------------------ repair_blocks.c */

enum repair_map {
	REPAIR_NODE,     /* a node that is believed, or deferred: never written to */
	REPAIR_RECORDED, /* in use, says a space record */
	REPAIR_SOLID,    /* of an extent in a leaf that is not stale */
	REPAIR_OWNED,    /* of an extent kept in this pass */
	REPAIR_BUSY,     /* of an extent kept in the first pass */
	REPAIR_FINAL,    /* in use in the new tree */
	REPAIR_NMAPS,
};

#define REPAIR_WORDS (SLU_CHUNK_BLOCKS / 64)

struct repair_chunk {
	gint64 number;
	bool has_record;
	uint64_t record_txid; /* the record was true then */
	uint64_t maps[REPAIR_NMAPS][REPAIR_WORDS];
};

struct repair_chunk *repair_chunk(struct repair_run *run, uint64_t number, bool make);
void repair_set(struct repair_run *run, enum repair_map map, uint64_t blkno, uint64_t n);
bool repair_test(struct repair_run *run, enum repair_map map, uint64_t blkno);
/* REPAIR_OWNED becomes REPAIR_BUSY and is empty. */
void repair_second_pass(struct repair_run *run);
void repair_space_record(struct repair_run *run, uint64_t number, const uint8_t *bits,
			 uint64_t txid);
/* What the space records say of a node of that transaction in that block. */
enum repair_proof { REPAIR_UNKNOWN, REPAIR_IN_USE, REPAIR_FREE };
enum repair_proof repair_proof(struct repair_run *run, uint64_t blkno, uint64_t txid);
/* Sets run->change, and says so, if the space records do not tell what is in use. */
void repair_compare_space(struct repair_run *run);
/* A block that nothing uses, from *cursor on and then from the first; marks it in use. -ENOSPC. */
int repair_take_block(struct repair_run *run, uint64_t *cursor, uint64_t *ret);
/* The chunks with something in use, in order: their number; *ret is g_malloc'ed. */
size_t repair_used_chunks(struct repair_run *run, struct repair_chunk ***ret);

/* ------------------------------------------------------------------ repair_inode.c */

void repair_record(struct repair_run *run, const struct repair_leaf *leaf,
		   const struct slu_key *key, const uint8_t *value, size_t len);
/* The last record has been seen. */
void repair_inode_end(struct repair_run *run);
void repair_fill_inode(struct repair_run *run, const struct repair_inode *i,
		       struct slu_disk_inode *di);

/* ------------------------------------------------------------------ repair_name.c */

uint64_t repair_hash(const struct repair_run *run, const void *name, size_t len);
/* False: the record is to be dropped. */
bool repair_keep_dirent(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
			size_t len);
bool repair_keep_xattr(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		       size_t len);
bool repair_keep_part(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		      size_t len);
void repair_parts_end(struct repair_run *run);

/* ------------------------------------------------------------------ repair_links.c */

struct repair_inode *repair_find_inode(const struct repair_run *run, uint64_t ino);
struct repair_orphan *repair_find_orphan(const struct repair_run *run, uint64_t ino);
/* Between the passes: decides on names, orphans, link counts; makes run->additions. */
void repair_links(struct repair_run *run);
/* Pass 2: the entry as it is to be written; false: dropped, which is said. */
bool repair_emit_dirent(struct repair_run *run, const struct slu_key *key, uint8_t *value,
			size_t len);

/* ------------------------------------------------------------------ repair_build.c */

struct repair_build *repair_build_new(struct repair_run *run, uint64_t txid);
void repair_build_free(struct repair_build *b);
/* A record of the new tree, in key order; additions that come before it go before it. */
void repair_emit(struct repair_run *run, const struct slu_key *key, const void *value, size_t len);
/* All additions that are left. */
void repair_emit_rest(struct repair_run *run);
/* The space records and inner nodes. 0 or the first error of any call. */
int repair_build_finish(struct repair_build *b, uint64_t *ret_root, uint64_t *ret_nodes);

#endif
