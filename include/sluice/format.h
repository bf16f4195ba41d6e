/* SPDX-License-Identifier: MIT */
/*
 * The on-disk format, version 1. Everything that lies on disk is defined here and nowhere else;
 * docs/design.md describes it in words. All integers are little-endian and unaligned-safe: read and
 * write them through slu_get_leNN / slu_put_leNN or through the typed accessors below.
 *
 *	block 0, 1	the two superblocks; transaction t is written to block t & 1
 *	the last one	the spare superblock (SLU_FEATURE_SPARE)
 *	all others	a node of the tree, a block of file data, or free
 *
 * A block is 4,096 bytes. One copy-on-write B+tree holds every record. A record has a key (inode
 * number, type, offset) and a value of at most SLU_VALUE_MAX bytes.
 */
#ifndef SLUICE_FORMAT_H
#define SLUICE_FORMAT_H

#include "sluice/base.h"
#include <endian.h>
#include <string.h>

#define SLU_MAGIC          "sluicefs"
#define SLU_FORMAT_VERSION 1u
#define SLU_LABEL_MAX      63    /* bytes, UTF-8, NUL-terminated on disk */
#define SLU_MIN_BLOCKS     4096u /* 16 MiB: the smallest volume */
#define SLU_MAX_BLOCKS     (1ull << 48)

/*
 * An unknown bit in the first refuses the volume, in the second refuses writing, in the third
 * nothing.
 */
#define SLU_FEATURES_INCOMPAT  0ull /* bit 0 is kept for copy-on-write data with checksums */
#define SLU_FEATURES_RO_COMPAT SLU_FEATURE_SPARE
#define SLU_FEATURES_COMPAT    0ull
/* The last block is a spare superblock: whoever does not know that would give it to a file. */
#define SLU_FEATURE_SPARE 1ull

/* ------------------------------------------------------------------ bytes */

static inline uint16_t slu_get_le16(const void *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}
static inline uint32_t slu_get_le32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}
static inline uint64_t slu_get_le64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}
static inline void slu_put_le16(void *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}
static inline void slu_put_le32(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}
static inline void slu_put_le64(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

/* Little-endian integers as they lie on disk; byte arrays, so that structs have no padding. */
typedef struct {
	uint8_t b[2];
} slu_le16;
typedef struct {
	uint8_t b[4];
} slu_le32;
typedef struct {
	uint8_t b[8];
} slu_le64;

/* ------------------------------------------------------------------ keys */

/* Ordered by ino, then type, then off. */
struct slu_key {
	uint64_t ino;
	uint64_t off;
	uint8_t type;
};

#define SLU_KEY_SIZE 17 /* on disk: le64 ino, u8 type, le64 off */

static inline int slu_key_cmp(const struct slu_key *a, const struct slu_key *b)
{
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	if (a->type != b->type)
		return a->type < b->type ? -1 : 1;
	if (a->off != b->off)
		return a->off < b->off ? -1 : 1;
	return 0;
}

static inline void slu_key_put(uint8_t *p, const struct slu_key *k)
{
	slu_put_le64(p, k->ino);
	p[8] = k->type;
	slu_put_le64(p + 9, k->off);
}

static inline struct slu_key slu_key_get(const uint8_t *p)
{
	return (struct slu_key){.ino = slu_get_le64(p), .type = p[8], .off = slu_get_le64(p + 9)};
}

#define SLU_KEY(i, t, o) ((struct slu_key){.ino = (i), .type = (t), .off = (o)})
#define SLU_KEY_MIN      SLU_KEY(0, 0, 0)
#define SLU_KEY_MAX      SLU_KEY(UINT64_MAX, UINT8_MAX, UINT64_MAX) /* never a record's key */

/* Inode numbers. */
#define SLU_INO_VOLUME 0ull  /* owner of the volume's own records */
#define SLU_INO_ROOT   1ull  /* the root directory; also FUSE_ROOT_ID */
#define SLU_INO_FIRST  16ull /* the first one handed out; below are reserved */

/* Record types; the order is the order within an inode. */
enum slu_record_type {
	/* of SLU_INO_VOLUME */
	SLU_REC_SPACE = 1,  /* off: chunk number; value: 512-byte bitmap, bit set = block in use */
	SLU_REC_ORPHAN = 2, /* off: inode number; value: struct slu_disk_orphan */
	/* of an inode */
	SLU_REC_INODE = 16,   /* off 0; struct slu_disk_inode */
	SLU_REC_SYMLINK = 17, /* off: part number; the target's bytes, 1,024 a part */
	SLU_REC_XATTR =
		18, /* off: (name hash << 16 | collision number); slu_disk_xattr + name (+ value) */
	SLU_REC_XATTR_PART = 19, /* off: (part_id << 8 | part); value bytes, 1,024 a part */
	SLU_REC_DIRENT = 20, /* off: (name hash << 16 | collision number); slu_disk_dirent + name */
	SLU_REC_EXTENT = 21, /* off: first file block; struct slu_disk_extent */
};

#define SLU_VALUE_MAX 1024 /* bytes in one record's value */

/* ------------------------------------------------------------------ superblock */

struct slu_disk_super {
	slu_le64 checksum; /* XXH3_64bits over bytes 8 to 4095 */
	uint8_t magic[8];
	slu_le32 version;
	slu_le32 block_size;
	uint8_t volume_id[16]; /* random; also a UUID to show */
	slu_le64 hash_seed;    /* of name hashes */
	slu_le64 features_incompat, features_ro_compat, features_compat;
	slu_le64 nblocks;    /* of the volume */
	slu_le64 txid;       /* this transaction */
	slu_le64 root_blkno; /* the tree */
	slu_le64 root_txid;
	slu_le64 next_ino;    /* greater than every inode number ever used */
	slu_le64 data_blocks; /* owned by extents */
	slu_le64 node_blocks; /* owned by the tree */
	/*
	 * Sum of SLU_RECORD_OVERHEAD + value length over all records but SLU_REC_SPACE, whose
	 * number depends on the past; room for one of those per chunk is kept back from the start.
	 */
	slu_le64 record_bytes;
	slu_le64 ninodes;
	slu_le64 mkfs_time;   /* seconds */
	slu_le64 commit_time; /* seconds */
	slu_le32 state;       /* SLU_STATE_* */
	slu_le32 ndeferred;
	uint8_t label[64];
	/*
	 * Blocks that no tree reaches any more but whose bits are still set in the space records:
	 * old places of nodes that the commit itself rewrote last. The next transaction frees them.
	 */
	slu_le64 deferred[256];
	uint8_t zero[4096 - 232 - 256 * 8];
};
_Static_assert(sizeof(struct slu_disk_super) == SLU_BLOCK_SIZE, "superblock size");

#define SLU_STATE_CLEAN 1u /* unmounted cleanly; both superblocks say the same */

/*
 * The spare superblock: what mkfs writes and no commit changes, in the fields of struct
 * slu_disk_super (from version to nblocks, mkfs_time, label) under a magic of its own; all others
 * are 0. It lies in block nblocks - 1 of its volume and is no spare anywhere else.
 */
#define SLU_SPARE_MAGIC "sluspare"

/* The block of the spare superblock; 0: the volume has none. nblocks: of the volume. */
static inline uint64_t slu_super_spare(const struct slu_disk_super *sb, uint64_t nblocks)
{
	return slu_get_le64(&sb->features_ro_compat) & SLU_FEATURE_SPARE ? nblocks - 1 : 0;
}

/* Nodes and data lie in blocks from 2 on and below this one. */
static inline uint64_t slu_super_end(const struct slu_disk_super *sb)
{
	uint64_t nblocks = slu_get_le64(&sb->nblocks), spare = slu_super_spare(sb, nblocks);

	return spare ? spare : nblocks;
}

/* ------------------------------------------------------------------ nodes */

struct slu_disk_node {
	/* XXH3_64bits_withSeed over bytes 8 to 4095, seed = XXH3_64bits(volume_id) */
	slu_le64 checksum;
	uint8_t volume_id[16];
	slu_le64 blkno; /* where it lies */
	slu_le64 txid;  /* the transaction that wrote it */
	slu_le16 level; /* 0: leaf */
	slu_le16 count; /* slots */
	slu_le16 heap;  /* leaf: offset in the node of the lowest value byte; inner: 0 */
	slu_le16 reserved;
	uint8_t lower[SLU_KEY_SIZE]; /* every key here is >= lower */
	uint8_t upper[SLU_KEY_SIZE]; /* and < upper */
	uint8_t reserved2[6];
	/*
	 * leaf: slu_disk_leaf_slot[count], free space, values up to the end of the node: the value
	 * of slot 0 ends where the node ends, that of slot i ends where that of slot i - 1 begins,
	 * the last one begins at `heap`. Keys increase strictly. An empty leaf has heap 4096.
	 * inner: slu_disk_inner_slot[count], count at least 1; slot 0's key equals lower; child i
	 * has slot i's key as its lower key and slot i + 1's key (the last: this node's upper) as
	 * its upper key, level - 1 as its level, and a txid no greater than this node's. The root
	 * has the lower key SLU_KEY_MIN and the upper key SLU_KEY_MAX.
	 */
	uint8_t body[4096 - 88];
};
_Static_assert(sizeof(struct slu_disk_node) == SLU_BLOCK_SIZE, "node size");

struct slu_disk_leaf_slot {
	uint8_t key[SLU_KEY_SIZE];
	slu_le16 off; /* of the value, from the start of the node */
	slu_le16 len;
};

struct slu_disk_inner_slot {
	uint8_t key[SLU_KEY_SIZE]; /* lower key of the child */
	slu_le64 blkno;
	slu_le64 txid; /* the child's */
};

#define SLU_NODE_BODY       (4096 - 88)
#define SLU_RECORD_OVERHEAD ((unsigned int)sizeof(struct slu_disk_leaf_slot))
#define SLU_INNER_MAX       (SLU_NODE_BODY / sizeof(struct slu_disk_inner_slot))
#define SLU_TREE_MAX_DEPTH  10

/*
 * What is written over by mistake is most often the beginning of an image. Nodes that lie there would
 * go with the superblocks, so blocks below this one become nodes last.
 */
#define SLU_NODES_FROM 256u

/* ------------------------------------------------------------------ space */

/* A chunk with no record is entirely free (but for the superblocks). Bits past nblocks are 0. */
#define SLU_CHUNK_BLOCKS 4096u /* 16 MiB */
#define SLU_CHUNK_BYTES  (SLU_CHUNK_BLOCKS / 8)

/* ---------------------------------------------------------------- inodes and what hangs on them */

struct slu_disk_time {
	slu_le64 sec; /* signed */
	slu_le32 nsec;
};

struct slu_disk_inode {
	slu_le32 mode; /* S_IFMT and permissions */
	slu_le32 uid, gid;
	slu_le32 nlink;  /* directories: 2 + subdirectories */
	slu_le64 size;   /* bytes; directories: number of entries; symlinks: length of the target */
	slu_le64 blocks; /* data blocks owned by extents */
	slu_le64 parent; /* directories: inode of ".."; else 0 */
	slu_le32 rdev;
	slu_le32 flags; /* SLU_INODE_* */
	slu_le32 generation;
	slu_le32 nxattr; /* number of extended attributes */
	struct slu_disk_time atime, mtime, ctime, btime;
};

/* FS_IOC_SETFLAGS bits that are kept: the kernel's FS_IMMUTABLE_FL, FS_APPEND_FL and so on. */
#define SLU_INODE_SYNC      0x8u
#define SLU_INODE_IMMUTABLE 0x10u
#define SLU_INODE_APPEND    0x20u
#define SLU_INODE_NODUMP    0x40u
#define SLU_INODE_NOATIME   0x80u
#define SLU_INODE_DIRSYNC   0x10000u
#define SLU_INODE_FLAGS                                                               \
	(SLU_INODE_SYNC | SLU_INODE_IMMUTABLE | SLU_INODE_APPEND | SLU_INODE_NODUMP | \
	 SLU_INODE_NOATIME | SLU_INODE_DIRSYNC)

/*
 * Name hashes: h = XXH3_64bits_withSeed(name, hash_seed) >> 17, at least 1 (0 becomes 1), 47 bits;
 * the key's offset is h << 16 | n with n the first number free among names of equal hash. So the
 * offset is at least 65,536 and below 2^63: it is also the directory cookie (1 and 2 are "." and
 * "..").
 */
struct slu_disk_dirent {
	slu_le64 ino;
	/* S_IFMT >> 12, as d_type */
	uint8_t type;
	/* name follows, to the end of the value: 1 to 255 bytes, no NUL, no slash */
};

struct slu_disk_xattr {
	uint8_t flags; /* 0: the value follows the name; 1: it is in parts */
	uint8_t name_len;
	slu_le32 value_len;
	/* parts: (part_id << 8 | n) is the offset of SLU_REC_XATTR_PART record n */
	slu_le32 part_id;
	/* name (with its prefix, "user.x"), then the value if inline */
};

struct slu_disk_extent {
	slu_le64 blkno;
	slu_le32 nblocks; /* 1 to SLU_EXTENT_MAX */
	slu_le32 flags;   /* SLU_EXTENT_UNWRITTEN */
};

#define SLU_EXTENT_UNWRITTEN 1u
#define SLU_EXTENT_MAX       (1u << 20) /* blocks: 4 GiB */

struct slu_disk_orphan {
	uint8_t what; /* enum slu_orphan */
	/* SLU_ORPHAN_TRUNCATE: bytes; the inode's when this was put. It may have moved on since. */
	slu_le64 size;
};

enum slu_orphan {
	SLU_ORPHAN_UNLINKED = 1, /* no name left: free it all */
	/*
	 * Extents beyond the inode's size are to be freed: it has been truncated, or they were written
	 * before what lies between.
	 */
	SLU_ORPHAN_TRUNCATE = 2,
};

#endif
