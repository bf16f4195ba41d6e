/* SPDX-License-Identifier: MIT */
/*
 * The records of one inode, as they stream by in key order: which are kept, and with what changes.
 * In the first pass what is kept is counted into the inode's entry; in the second pass it goes into
 * the new tree, the inode record with what has been counted.
 *
 * An inode whose record is lost gets a new one if records are left that tell its type: entries, a
 * target, extents. Nobody but root may look into it, since nothing tells who might.
 */
#include "repair_private.h"
#include <sys/stat.h>

#define FILE_BLOCKS_MAX (UINT64_MAX >> SLU_BLOCK_SHIFT)

static void inode_say(struct repair_run *run, const char *what, uint64_t is, uint64_t said)
{
	if (run->pass == 1 && is != said)
		repair_did(run, "inode %" PRIu64 ": %s is %" PRIu64 ", not %" PRIu64,
			   run->current.ino, what, is, said);
}

static void inode_drop(struct repair_run *run, const struct slu_key *key, const char *what)
{
	if (run->pass == 1)
		repair_did(run,
			   "inode %" PRIu64 ": a record (type %u, offset %" PRIu64
			   ") is dropped: %s",
			   key->ino, key->type, key->off, what);
}

/* ------------------------------------------------------------------ the inode record */

static bool inode_type_known(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

static bool inode_number_possible(uint64_t ino)
{
	return ino == SLU_INO_ROOT || (ino >= SLU_INO_FIRST && ino < REPAIR_NUMBER_MAX);
}

/* Puts fields right that say something impossible on their own; true if there were any. */
static bool inode_mend_fields(struct slu_disk_inode *di)
{
	struct slu_disk_time *times[] = {&di->atime, &di->mtime, &di->ctime, &di->btime};
	const struct slu_disk_inode before = *di;
	uint32_t mode = slu_get_le32(&di->mode) & (S_IFMT | 07777);

	slu_put_le32(&di->mode, mode);
	slu_put_le32(&di->flags, slu_get_le32(&di->flags) & SLU_INODE_FLAGS);
	if (!S_ISDIR(mode))
		slu_put_le64(&di->parent, 0);
	if (!S_ISCHR(mode) && !S_ISBLK(mode))
		slu_put_le32(&di->rdev, 0);
	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
		slu_put_le64(&di->size, 0);
	for (size_t i = 0; i < slu_array_size(times); i++) {
		if (slu_get_le32(&times[i]->nsec) >= SLU_NS_PER_SEC)
			slu_put_le32(&times[i]->nsec, 0);
	}
	return memcmp(&before, di, sizeof(before)) != 0;
}

/* Where the extents of a regular file must end, unless they wait to be freed. */
static void inode_set_end(struct repair_run *run)
{
	struct repair_current *cur = &run->current;
	const struct repair_orphan *o = repair_find_orphan(run, cur->ino);
	uint64_t size = slu_get_le64(&cur->disk.size);

	cur->end_known = size <= INT64_MAX;
	cur->end = slu_bytes_to_blocks(cur->end_known ? size : 0);
	if (o && o->what == SLU_ORPHAN_UNLINKED && !slu_get_le32(&cur->disk.nlink))
		cur->end_known = false;
	/* The promise was made for this size or a smaller one; else it is about other extents. */
	if (o && o->what == SLU_ORPHAN_TRUNCATE && slu_bytes_to_blocks(o->size) <= cur->end)
		cur->end_known = false;
}

static bool inode_take(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		       size_t len)
{
	struct repair_current *cur = &run->current;
	struct repair_inode *e = &cur->entry;

	if (len != sizeof(cur->disk) || key->off) {
		inode_drop(run, key, "malformed");
		return false;
	}
	memcpy(&cur->disk, value, len);
	cur->mode = slu_get_le32(&cur->disk.mode);
	if (!inode_type_known(cur->mode) || (cur->ino == SLU_INO_ROOT && !S_ISDIR(cur->mode))) {
		cur->mode = 0;
		inode_drop(run, key, "no such type of inode");
		return false;
	}
	if (inode_mend_fields(&cur->disk) && run->pass == 1)
		repair_did(run, "inode %" PRIu64 ": impossible fields are set to zero", cur->ino);
	cur->has_inode = true;
	cur->mode = slu_get_le32(&cur->disk.mode);
	inode_set_end(run);
	e->parent = slu_get_le64(&cur->disk.parent);
	e->said_size = slu_get_le64(&cur->disk.size);
	e->size = e->said_size > INT64_MAX ? 0 : e->said_size;
	e->nlink = slu_get_le32(&cur->disk.nlink);
	return true;
}

void repair_fill_inode(struct repair_run *run, const struct repair_inode *i,
		       struct slu_disk_inode *di)
{
	uint32_t mode = (uint32_t)i->type << 12;

	if (i->made) {
		struct slu_disk_time now = {0};

		memset(di, 0, sizeof(*di));
		slu_put_le64(&now.sec, (uint64_t)slu_clock_realtime().tv_sec);
		di->atime = di->mtime = di->ctime = di->btime = now;
		slu_put_le32(&di->generation, 1);
		slu_put_le32(&di->uid, run->opts->uid);
		slu_put_le32(&di->gid, run->opts->gid);
		slu_put_le32(&di->mode, mode | (i->ino == SLU_INO_ROOT ? 0755
						: S_ISDIR(mode)        ? 0700
						: S_ISLNK(mode)        ? 0777
								       : 0600));
	}
	slu_put_le64(&di->size, i->size);
	slu_put_le64(&di->blocks, i->blocks);
	slu_put_le32(&di->nxattr, i->nxattr);
	if (i->from || i->ino == SLU_INO_ROOT)
		slu_put_le64(&di->parent, i->ino == SLU_INO_ROOT ? SLU_INO_ROOT : i->from);
	slu_put_le32(&di->nlink, i->links);
	if (S_ISDIR(mode) && (i->from || i->ino == SLU_INO_ROOT))
		slu_put_le32(&di->nlink, 2 + i->subdirs);
}

/* ------------------------------------------------------------------ symlinks */

static bool inode_take_symlink(struct repair_run *run, const struct slu_key *key,
			       const uint8_t *value, size_t len)
{
	struct repair_current *cur = &run->current;

	/* A target with a hole leads elsewhere: worse than none. */
	if (key->off != cur->target_parts || !len || memchr(value, 0, len) ||
	    cur->target_bytes != cur->target_parts * SLU_VALUE_MAX)
		cur->bad_target = true;
	cur->target_parts++;
	cur->target_bytes += len;
	return true;
}

/* ------------------------------------------------------------------ extents */

/* Whether block i of the extent can be kept. */
static bool inode_block_ok(struct repair_run *run, const struct repair_leaf *leaf, uint64_t at,
			   uint64_t blkno, bool unwritten)
{
	struct repair_current *cur = &run->current;

	if (at < cur->next_file_block || (cur->end_known && !unwritten && at >= cur->end) ||
	    (!unwritten && at >= INT64_MAX >> SLU_BLOCK_SHIFT))
		return false;
	if (blkno < 2 || blkno >= run->end || repair_test(run, REPAIR_NODE, blkno) ||
	    repair_test(run, REPAIR_OWNED, blkno))
		return false;
	return !leaf->stale || !repair_test(run, REPAIR_SOLID, blkno);
}

static void inode_keep_piece(struct repair_run *run, uint64_t at, uint64_t blkno, uint32_t n,
			     uint32_t flags)
{
	struct repair_current *cur = &run->current;
	struct slu_key key = SLU_KEY(cur->ino, SLU_REC_EXTENT, at);
	struct slu_disk_extent de;

	repair_set(run, REPAIR_OWNED, blkno, n);
	cur->next_file_block = at + n;
	cur->entry.blocks += n;
	if (!(flags & SLU_EXTENT_UNWRITTEN) && !(cur->has_inode && cur->end_known))
		cur->entry.size = slu_max(cur->entry.size, (at + n) << SLU_BLOCK_SHIFT);
	if (run->pass == 1 || !cur->known || cur->known->drop)
		return;
	repair_set(run, REPAIR_FINAL, blkno, n);
	run->data_blocks += n;
	slu_put_le64(&de.blkno, blkno);
	slu_put_le32(&de.nblocks, n);
	slu_put_le32(&de.flags, flags);
	repair_emit(run, &key, &de, sizeof(de));
}

static void inode_take_extent(struct repair_run *run, const struct repair_leaf *leaf,
			      const struct slu_key *key, const uint8_t *value, size_t len)
{
	struct slu_disk_extent de;
	uint64_t blkno;
	uint32_t n, flags, kept = 0;

	if (len != sizeof(de)) {
		inode_drop(run, key, "malformed");
		return;
	}
	memcpy(&de, value, sizeof(de));
	blkno = slu_get_le64(&de.blkno);
	n = slu_get_le32(&de.nblocks);
	flags = slu_get_le32(&de.flags);
	if (!n || n > SLU_EXTENT_MAX || flags & ~SLU_EXTENT_UNWRITTEN ||
	    key->off > FILE_BLOCKS_MAX - n || blkno > SLU_MAX_BLOCKS) {
		inode_drop(run, key, "malformed");
		return;
	}
	for (uint32_t i = 0; i < n;) {
		uint32_t run_len = 0;

		while (i + run_len < n && inode_block_ok(run, leaf, key->off + i + run_len,
							 blkno + i + run_len, flags))
			run_len++;
		if (run_len)
			inode_keep_piece(run, key->off + i, blkno + i, run_len, flags);
		kept += run_len;
		i += run_len ? run_len : 1;
	}
	if (kept < n && run->pass == 1)
		repair_did(run,
			   "inode %" PRIu64 ": %u of the blocks from %" PRIu64
			   " of the file on are cut off: they are not its own, or beyond its end",
			   key->ino, n - kept, key->off);
}

/* ------------------------------------------------------------------ begin and end */

static void inode_begin(struct repair_run *run, uint64_t ino)
{
	struct repair_current *cur = &run->current;
	GArray *parts = cur->parts;
	GPtrArray *names = cur->names;

	g_array_set_size(parts, 0);
	g_ptr_array_set_size(names, 0);
	*cur = (struct repair_current){.ino = ino, .parts = parts, .names = names};
	cur->entry.ino = ino;
	if (run->pass == 2)
		cur->known = repair_find_inode(run, ino);
}

static void inode_end_symlink(struct repair_run *run)
{
	struct repair_current *cur = &run->current;
	struct repair_inode *e = &cur->entry;

	if (cur->bad_target || !cur->target_bytes || cur->target_bytes > 4095 ||
	    (cur->has_inode && cur->target_bytes < e->said_size)) {
		repair_did(run,
			   "inode %" PRIu64 ": a symlink is dropped, part of its target is lost",
			   cur->ino);
		e->drop = true;
		return;
	}
	if (cur->has_inode)
		inode_say(run, "size", cur->target_bytes, e->said_size);
	e->size = cur->target_bytes;
}

void repair_inode_end(struct repair_run *run)
{
	struct repair_current *cur = &run->current;
	struct repair_inode *e = &cur->entry;

	if (!cur->ino || run->pass == 2) {
		cur->ino = 0;
		return;
	}
	repair_parts_end(run);
	e->type = (uint8_t)(cur->mode >> 12);
	if (!e->type) {
		repair_did(run,
			   "inode %" PRIu64 ": its records are dropped, nothing tells its type",
			   cur->ino);
		cur->ino = 0;
		return;
	}
	e->made = !cur->has_inode;
	if (e->made) {
		e->nlink = 1;
		repair_did(run,
			   "inode %" PRIu64 ": gets a new record in place of the one that is lost",
			   cur->ino);
	} else {
		inode_say(run, "number of blocks", e->blocks, slu_get_le64(&cur->disk.blocks));
		inode_say(run, "number of attributes", e->nxattr, slu_get_le32(&cur->disk.nxattr));
	}
	if (S_ISREG(cur->mode) && !e->made && e->said_size <= INT64_MAX)
		e->size = e->said_size;
	if (S_ISREG(cur->mode) && !e->made)
		inode_say(run, "size", e->size, e->said_size);
	if (S_ISDIR(cur->mode))
		e->size = 0; /* counted with the names */
	if (S_ISLNK(cur->mode))
		inode_end_symlink(run);
	g_array_append_val(run->inodes, *e);
	cur->ino = 0;
}

/* ------------------------------------------------------------------ one record */

/* The type of inode that a record belongs to; 0: any. */
static uint32_t record_type(const struct slu_key *key)
{
	switch (key->type) {
	case SLU_REC_SYMLINK:
		return S_IFLNK;
	case SLU_REC_DIRENT:
		return S_IFDIR;
	case SLU_REC_EXTENT:
		return S_IFREG;
	default:
		return 0;
	}
}

static bool inode_keep(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		       size_t len)
{
	switch (key->type) {
	case SLU_REC_INODE:
		return inode_take(run, key, value, len);
	case SLU_REC_SYMLINK:
		return inode_take_symlink(run, key, value, len);
	case SLU_REC_XATTR:
		return repair_keep_xattr(run, key, value, len);
	case SLU_REC_XATTR_PART:
		return repair_keep_part(run, key, value, len);
	case SLU_REC_DIRENT:
		return repair_keep_dirent(run, key, value, len);
	default:
		inode_drop(run, key, "of unknown type");
		return false;
	}
}

static void inode_emit(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		       size_t len)
{
	struct repair_current *cur = &run->current;
	uint8_t copy[SLU_VALUE_MAX];

	memcpy(copy, value, len);
	/* Said and counted whether the directory stays or not: links stream by with the entries. */
	if (key->type == SLU_REC_DIRENT && !repair_emit_dirent(run, key, copy, len))
		return;
	if (!cur->known || cur->known->drop)
		return;
	if (key->type == SLU_REC_INODE) {
		repair_fill_inode(run, cur->known, &cur->disk);
		memcpy(copy, &cur->disk, sizeof(cur->disk));
	}
	repair_emit(run, key, copy, len);
}

static void volume_record(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
			  size_t len)
{
	const struct slu_disk_orphan *disk = (const struct slu_disk_orphan *)value;
	struct repair_orphan o = {.ino = key->off};
	const struct repair_orphan *known;

	if (key->type == SLU_REC_SPACE && len == SLU_CHUNK_BYTES)
		return; /* made anew */
	if (key->type != SLU_REC_ORPHAN || len != sizeof(*disk) ||
	    (disk->what != SLU_ORPHAN_UNLINKED && disk->what != SLU_ORPHAN_TRUNCATE)) {
		inode_drop(run, key, "malformed");
		return;
	}
	o.what = disk->what;
	o.size = slu_get_le64(&disk->size);
	if (run->pass == 1) {
		g_array_append_val(run->orphans, o);
		return;
	}
	known = repair_find_orphan(run, o.ino);
	if (known && known->keep)
		repair_emit(run, key, value, len);
}

void repair_record(struct repair_run *run, const struct repair_leaf *leaf,
		   const struct slu_key *key, const uint8_t *value, size_t len)
{
	struct repair_current *cur = &run->current;
	uint32_t type = record_type(key);

	if (key->ino == SLU_INO_VOLUME) {
		volume_record(run, key, value, len);
		return;
	}
	if (!inode_number_possible(key->ino)) {
		inode_drop(run, key, "no inode can have this number");
		return;
	}
	if (cur->ino != key->ino) {
		repair_inode_end(run);
		inode_begin(run, key->ino);
	}
	if (type && !cur->mode)
		cur->mode = type;
	if (type && (cur->mode & S_IFMT) != type) {
		inode_drop(run, key, "not of this type of inode");
		return;
	}
	if (key->type == SLU_REC_EXTENT)
		inode_take_extent(run, leaf, key, value, len);
	else if (inode_keep(run, key, value, len) && run->pass == 2)
		inode_emit(run, key, value, len);
}
