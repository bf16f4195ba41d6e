/* SPDX-License-Identifier: MIT */
/* The records of the sample volume: one of everything that the format has. */
#include "volume.h"
#include <sys/stat.h>
#include <xxhash.h>

#define MODE_FILE    (S_IFREG | 0644)
#define MODE_DIR     (S_IFDIR | 0755)
#define MODE_SYMLINK (S_IFLNK | 0777)
#define NMANY        24u

/* Inode numbers. */
enum {
	INO_FILE = 16,
	INO_DIR,
	INO_SUB,
	INO_FIFO,
	INO_SYMLINK,
	INO_ORPHAN,
	INO_CUT,
	INO_ACL,
	INO_FAST,
	INO_MANY,
	INO_MANY_FIRST = 32,
};

static void add(struct records *rs, struct slu_key key, const void *value, size_t len)
{
	struct record *r = &rs->r[rs->n++];

	slu_assert(rs->n < RECORDS_MAX && len <= SLU_VALUE_MAX);
	r->key = key;
	r->chunk = -1;
	r->len = (uint16_t)len;
	memcpy(r->value, value, len);
}

static void add_inode(struct records *rs, uint64_t ino, uint32_t mode, uint32_t nlink,
		      uint64_t size, uint64_t blocks, uint64_t parent, uint32_t nxattr)
{
	struct slu_disk_inode di = {0};

	slu_put_le32(&di.mode, mode);
	slu_put_le32(&di.nlink, nlink);
	slu_put_le64(&di.size, size);
	slu_put_le64(&di.blocks, blocks);
	slu_put_le64(&di.parent, parent);
	slu_put_le32(&di.nxattr, nxattr);
	slu_put_le32(&di.generation, 1);
	add(rs, SLU_KEY(ino, SLU_REC_INODE, 0), &di, sizeof(di));
}

static struct slu_key name_key(uint64_t ino, uint8_t type, const char *name)
{
	uint64_t h = XXH3_64bits_withSeed(name, strlen(name), VOLUME_HASH_SEED) >> 17;

	return SLU_KEY(ino, type, (h ? h : 1) << 16);
}

static void add_name(struct records *rs, uint64_t dir, const char *name, uint64_t ino,
		     unsigned int type)
{
	struct slu_disk_dirent de = {.type = (uint8_t)(type >> 12)};
	uint8_t value[300];

	slu_put_le64(&de.ino, ino);
	memcpy(value, &de, sizeof(de));
	memcpy(value + sizeof(de), name, strlen(name));
	add(rs, name_key(dir, SLU_REC_DIRENT, name), value, sizeof(de) + strlen(name));
}

static void add_extent(struct records *rs, uint64_t ino, uint64_t at, uint64_t blkno, uint32_t n,
		       uint32_t flags)
{
	struct slu_disk_extent de;

	slu_put_le64(&de.blkno, blkno);
	slu_put_le32(&de.nblocks, n);
	slu_put_le32(&de.flags, flags);
	add(rs, SLU_KEY(ino, SLU_REC_EXTENT, at), &de, sizeof(de));
	for (uint64_t b = blkno; b < blkno + n; b++)
		rs->used[b / 8] |= (uint8_t)(1u << b % 8);
}

static void add_orphan(struct records *rs, uint64_t ino, uint8_t what, uint64_t size)
{
	struct slu_disk_orphan o = {.what = what};

	slu_put_le64(&o.size, size);
	add(rs, SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, ino), &o, sizeof(o));
}

static void add_xattr(struct records *rs, uint64_t ino, const char *name, const void *data,
		      size_t len)
{
	struct slu_disk_xattr dx = {.name_len = (uint8_t)strlen(name)};
	uint8_t value[SLU_VALUE_MAX];

	slu_put_le32(&dx.value_len, (uint32_t)len);
	memcpy(value, &dx, sizeof(dx));
	memcpy(value + sizeof(dx), name, dx.name_len);
	memcpy(value + sizeof(dx) + dx.name_len, data, len);
	add(rs, name_key(ino, SLU_REC_XATTR, name), value, sizeof(dx) + dx.name_len + len);
}

/* 2,500 bytes in three parts: of an attribute's value, or of a symlink's target. */
static void add_parts(struct records *rs, uint64_t ino, uint8_t type, uint64_t first)
{
	uint8_t part[SLU_VALUE_MAX];

	memset(part, 'p', sizeof(part));
	for (uint64_t i = 0; i < 3; i++)
		add(rs, SLU_KEY(ino, type, first + i), part,
		    i < 2 ? SLU_VALUE_MAX : 2500 - 2 * SLU_VALUE_MAX);
}

static void add_long_xattr(struct records *rs, uint64_t ino)
{
	static const char name[] = "user.large";
	struct slu_disk_xattr dx = {.flags = 1, .name_len = sizeof(name) - 1};
	uint8_t value[64];

	slu_put_le32(&dx.value_len, 2500);
	slu_put_le32(&dx.part_id, 3);
	memcpy(value, &dx, sizeof(dx));
	memcpy(value + sizeof(dx), name, dx.name_len);
	add(rs, name_key(ino, SLU_REC_XATTR, name), value, sizeof(dx) + dx.name_len);
	add_parts(rs, ino, SLU_REC_XATTR_PART, 3 << 8);
}

static void add_files(struct records *rs)
{
	add_inode(rs, INO_FILE, MODE_FILE, 2, 3 * SLU_BLOCK_SIZE + 100, 5, 0, 2);
	add_extent(rs, INO_FILE, 0, 100, 2, 0);
	add_extent(rs, INO_FILE, 3, 102, 1, 0);
	add_extent(rs, INO_FILE, 10, 103, 2, SLU_EXTENT_UNWRITTEN);
	add_xattr(rs, INO_FILE, "user.small", "value", 5);
	add_long_xattr(rs, INO_FILE);
	add_inode(rs, INO_ORPHAN, MODE_FILE, 0, 100, 1, 0, 0);
	add_extent(rs, INO_ORPHAN, 0, 105, 1, 0);
	add_orphan(rs, INO_ORPHAN, SLU_ORPHAN_UNLINKED, 0);
	add_inode(rs, INO_CUT, MODE_FILE, 1, SLU_BLOCK_SIZE, 3, 0, 0);
	add_extent(rs, INO_CUT, 0, 106, 3, 0);
	add_orphan(rs, INO_CUT, SLU_ORPHAN_TRUNCATE, SLU_BLOCK_SIZE);
	add_inode(rs, INO_FIFO, S_IFIFO | 0600, 1, 0, 0, 0, 0);
	add_inode(rs, INO_SYMLINK, MODE_SYMLINK, 1, 2500, 0, 0, 0);
	add_parts(rs, INO_SYMLINK, SLU_REC_SYMLINK, 0);
	add_inode(rs, INO_FAST, MODE_SYMLINK, 1, 4, 0, 0, 0);
	add(rs, SLU_KEY(INO_FAST, SLU_REC_SYMLINK, 0), "file", 4);
}

static void add_dirs(struct records *rs)
{
	/* version 2; the owner, the group and others: rwx, r-x, nothing */
	static const uint8_t acl[] = {2,    0,    0, 0, 1,    0,    7,    0,    0xff, 0xff,
				      0xff, 0xff, 4, 0, 5,    0,    0xff, 0xff, 0xff, 0xff,
				      0x20, 0,    0, 0, 0xff, 0xff, 0xff, 0xff};

	add_inode(rs, SLU_INO_ROOT, MODE_DIR, 5, 8, 0, SLU_INO_ROOT, 0);
	add_name(rs, SLU_INO_ROOT, "file", INO_FILE, S_IFREG);
	add_name(rs, SLU_INO_ROOT, "hard", INO_FILE, S_IFREG);
	add_name(rs, SLU_INO_ROOT, "dir", INO_DIR, S_IFDIR);
	add_name(rs, SLU_INO_ROOT, "symlink", INO_SYMLINK, S_IFLNK);
	add_name(rs, SLU_INO_ROOT, "fast", INO_FAST, S_IFLNK);
	add_name(rs, SLU_INO_ROOT, "cut", INO_CUT, S_IFREG);
	add_name(rs, SLU_INO_ROOT, "many", INO_MANY, S_IFDIR);
	add_name(rs, SLU_INO_ROOT, "acl", INO_ACL, S_IFDIR);
	add_inode(rs, INO_DIR, MODE_DIR, 3, 2, 0, SLU_INO_ROOT, 0);
	add_name(rs, INO_DIR, "sub", INO_SUB, S_IFDIR);
	add_name(rs, INO_DIR, "fifo", INO_FIFO, S_IFIFO);
	add_inode(rs, INO_SUB, MODE_DIR, 2, 0, 0, INO_DIR, 0);
	add_inode(rs, INO_ACL, MODE_DIR, 2, 0, 0, SLU_INO_ROOT, 1);
	add_xattr(rs, INO_ACL, "system.posix_acl_default", acl, sizeof(acl));
	add_inode(rs, INO_MANY, MODE_DIR, 2, NMANY, 0, SLU_INO_ROOT, 0);
	for (unsigned int i = 0; i < NMANY; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%u", i);
		add_inode(rs, INO_MANY_FIRST + i, MODE_FILE, 1, 0, 0, 0, 0);
		add_name(rs, INO_MANY, name, INO_MANY_FIRST + i, S_IFREG);
	}
}

const struct records *volume_base(void)
{
	static struct records base;
	static const uint8_t none[SLU_CHUNK_BYTES];

	if (base.n)
		return &base;
	base.used[0] = 3; /* the superblocks */
	for (unsigned int i = 0; i < VOLUME_BLOCKS / SLU_CHUNK_BLOCKS; i++) {
		add(&base, SLU_KEY(SLU_INO_VOLUME, SLU_REC_SPACE, i), none, sizeof(none));
		base.r[i].chunk = (int)i;
	}
	add_files(&base);
	add_dirs(&base);
	return &base;
}
