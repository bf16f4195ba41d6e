/* SPDX-License-Identifier: MIT */
/*
 * The records of one inode, as they stream by in key order: the inode record comes first, then the
 * symlink's target, extended attributes and their parts, directory entries, extents. What is seen
 * is counted in run->current and compared with the inode record when the last one has been seen.
 */
#include "check_private.h"
#include <sys/stat.h>

void check_current_init(struct check_run *run)
{
	run->current.parts = g_array_new(FALSE, FALSE, sizeof(struct check_parts));
	run->current.names = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
}

void check_current_fini(struct check_run *run)
{
	if (run->current.parts)
		g_array_unref(run->current.parts);
	if (run->current.names)
		g_ptr_array_unref(run->current.names);
}

static void inode_begin(struct check_run *run, uint64_t ino)
{
	GArray *parts = run->current.parts;
	GPtrArray *names = run->current.names;

	g_array_set_size(parts, 0);
	g_ptr_array_set_size(names, 0);
	run->current = (struct check_current){
		.ino = ino,
		.gap = run->gap,
		.parts = parts,
		.names = names,
		.orphan = check_find_orphan(run, ino),
	};
}

/* ------------------------------------------------------------------ the inode record */

static bool inode_type_known(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

static void inode_count_type(struct slu_check_result *r, uint32_t mode)
{
	r->inodes++;
	if (S_ISREG(mode))
		r->files++;
	else if (S_ISDIR(mode))
		r->directories++;
	else if (S_ISLNK(mode))
		r->symlinks++;
	else
		r->others++;
}

static void inode_check_times(struct check_run *run, uint64_t ino, const struct slu_disk_inode *di)
{
	static const char *const names[] = {"access", "modification", "change", "birth"};
	const struct slu_disk_time *times[] = {&di->atime, &di->mtime, &di->ctime, &di->btime};

	for (size_t i = 0; i < slu_array_size(times); i++) {
		if (slu_get_le32(&times[i]->nsec) >= SLU_NS_PER_SEC)
			check_report(run, SLU_PROBLEM_INODE, ino, 0,
				     "inode %" PRIu64 ": %s time has %u nanoseconds", ino, names[i],
				     slu_get_le32(&times[i]->nsec));
	}
}

static void inode_check_fields(struct check_run *run, uint64_t ino, const struct slu_disk_inode *di)
{
	uint32_t mode = slu_get_le32(&di->mode), flags = slu_get_le32(&di->flags);
	uint64_t size = slu_get_le64(&di->size), parent = slu_get_le64(&di->parent);

	if (!inode_type_known(mode) || mode & ~(uint32_t)(S_IFMT | 07777))
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": impossible mode 0%o", ino, mode);
	if (flags & ~SLU_INODE_FLAGS)
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": unknown flags 0x%x", ino,
			     flags & ~SLU_INODE_FLAGS);
	if (S_ISREG(mode) && size > INT64_MAX)
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": impossible size %" PRIu64, ino, size);
	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode) && size)
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": has a size (%" PRIu64 ") and is no file", ino,
			     size);
	if (!S_ISDIR(mode) && parent)
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": has a parent (%" PRIu64 ") and is no directory",
			     ino, parent);
	if (!S_ISCHR(mode) && !S_ISBLK(mode) && slu_get_le32(&di->rdev))
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": has a device number and is no device", ino);
	if (ino != SLU_INO_ROOT && (ino < SLU_INO_FIRST || ino >= run->next_ino))
		check_report(run, SLU_PROBLEM_INODE, ino, 0,
			     "inode %" PRIu64 ": number was never handed out (next is %" PRIu64 ")",
			     ino, run->next_ino);
	inode_check_times(run, ino, di);
}

static void inode_take(struct check_run *run, const struct slu_key *key, const uint8_t *value,
		       size_t len)
{
	struct check_current *cur = &run->current;
	struct slu_disk_inode di;

	if (len != sizeof(di) || key->off) {
		check_report(run, SLU_PROBLEM_RECORD, key->ino, 0,
			     "inode %" PRIu64 ": inode record of %zu bytes at offset %" PRIu64
			     " (expected %zu at 0)",
			     key->ino, len, key->off, sizeof(di));
		cur->gap = true; /* so that nothing is compared with what was not understood */
		return;
	}
	memcpy(&di, value, sizeof(di));
	inode_check_fields(run, key->ino, &di);
	cur->has_inode = true;
	cur->mode = slu_get_le32(&di.mode);
	cur->nlink = slu_get_le32(&di.nlink);
	cur->size = slu_get_le64(&di.size);
	cur->blocks = slu_get_le64(&di.blocks);
	cur->parent = slu_get_le64(&di.parent);
	cur->nxattr = slu_get_le32(&di.nxattr);
	inode_count_type(run->result, cur->mode);
}

/* ------------------------------------------------------------------ symlinks */

static void inode_take_symlink(struct check_run *run, const struct slu_key *key,
			       const uint8_t *value, size_t len)
{
	struct check_current *cur = &run->current;

	if (cur->has_inode && !S_ISLNK(cur->mode))
		check_report(run, SLU_PROBLEM_SYMLINK, key->ino, 0,
			     "inode %" PRIu64 ": has a target and is no symlink", key->ino);
	if (key->off != cur->target_parts || len == 0 ||
	    cur->target_bytes != cur->target_parts * SLU_VALUE_MAX)
		if (!cur->gap)
			check_report(run, SLU_PROBLEM_SYMLINK, key->ino, 0,
				     "inode %" PRIu64 ": part %" PRIu64
				     " of its target does not follow the one before",
				     key->ino, key->off);
	if (memchr(value, 0, len))
		check_report(run, SLU_PROBLEM_SYMLINK, key->ino, 0,
			     "inode %" PRIu64 ": NUL in its target", key->ino);
	cur->target_parts++;
	cur->target_bytes += len;
}

/* ------------------------------------------------------------------ extents */

static void inode_check_extent_end(struct check_run *run, uint64_t first, uint64_t n,
				   bool unwritten)
{
	struct check_current *cur = &run->current;
	uint64_t allowed = slu_bytes_to_blocks(cur->size);

	if (!cur->has_inode || unwritten || first + n <= allowed || run->orphan_gap)
		return;
	/* Blocks on their way to being freed. */
	if (cur->orphan && (cur->orphan->what == SLU_ORPHAN_UNLINKED ||
			    slu_bytes_to_blocks(cur->orphan->size) <= slu_max(first, allowed)))
		return;
	check_report(run, SLU_PROBLEM_EXTENT_BEYOND, cur->ino, 0,
		     "inode %" PRIu64 ": data in blocks %" PRIu64 " to %" PRIu64
		     " of a file of %" PRIu64 " bytes",
		     cur->ino, first, first + n - 1, cur->size);
}

static void inode_take_extent(struct check_run *run, const struct slu_key *key,
			      const uint8_t *value, size_t len)
{
	struct check_current *cur = &run->current;
	struct slu_disk_extent de;
	uint64_t blkno;
	uint32_t n, flags;

	if (len != sizeof(de)) {
		check_report(run, SLU_PROBLEM_EXTENT, key->ino, 0,
			     "inode %" PRIu64 ": extent record of %zu bytes (expected %zu)",
			     key->ino, len, sizeof(de));
		return;
	}
	memcpy(&de, value, sizeof(de));
	blkno = slu_get_le64(&de.blkno);
	n = slu_get_le32(&de.nblocks);
	flags = slu_get_le32(&de.flags);
	if (n == 0 || n > SLU_EXTENT_MAX || flags & ~SLU_EXTENT_UNWRITTEN ||
	    key->off > (UINT64_MAX >> SLU_BLOCK_SHIFT) - n) {
		check_report(run, SLU_PROBLEM_EXTENT, key->ino, blkno,
			     "inode %" PRIu64 ": extent at block %" PRIu64
			     " of the file: %u blocks at %" PRIu64 ", flags 0x%x",
			     key->ino, key->off, n, blkno, flags);
		return;
	}
	if (cur->has_inode && !S_ISREG(cur->mode))
		check_report(run, SLU_PROBLEM_EXTENT, key->ino, blkno,
			     "inode %" PRIu64 ": has extents and is no regular file", key->ino);
	if (key->off < cur->next_file_block)
		check_report(run, SLU_PROBLEM_EXTENT_OVERLAP, key->ino, blkno,
			     "inode %" PRIu64 ": two extents for block %" PRIu64 " of the file",
			     key->ino, key->off);
	inode_check_extent_end(run, key->off, n, flags & SLU_EXTENT_UNWRITTEN);
	cur->next_file_block = slu_max(cur->next_file_block, key->off + n);
	cur->extent_blocks += n;
	run->result->extents++;
	run->result->data_blocks += n;
	check_blocks_own(run,
			 &(struct check_owner){.kind = CHECK_OWNER_EXTENT,
					       .ino = key->ino,
					       .file_block = key->off},
			 blkno, n);
}

/* ------------------------------------------------------------------ begin and end */

void check_inode_record(struct check_run *run, const struct slu_key *key, const uint8_t *value,
			size_t len)
{
	if (run->current.ino != key->ino) {
		check_inode_end(run);
		inode_begin(run, key->ino);
	} else if (run->gap) {
		run->current.gap = true;
	}
	switch (key->type) {
	case SLU_REC_INODE:
		inode_take(run, key, value, len);
		break;
	case SLU_REC_SYMLINK:
		inode_take_symlink(run, key, value, len);
		break;
	case SLU_REC_XATTR:
		check_xattr(run, key, value, len);
		break;
	case SLU_REC_XATTR_PART:
		check_xattr_part(run, key, value, len);
		break;
	case SLU_REC_DIRENT:
		check_dirent(run, key, value, len);
		break;
	case SLU_REC_EXTENT:
		inode_take_extent(run, key, value, len);
		break;
	default:
		check_report(run, SLU_PROBLEM_RECORD, key->ino, 0,
			     "inode %" PRIu64 ": record of unknown type %u", key->ino, key->type);
		break;
	}
}

static void inode_compare_directory(struct check_run *run)
{
	struct check_current *cur = &run->current;

	if (cur->entries != cur->size)
		check_report(run, SLU_PROBLEM_DIR_SIZE, cur->ino, 0,
			     "directory %" PRIu64 ": has %" PRIu64
			     " entries, its record says %" PRIu64,
			     cur->ino, cur->entries, cur->size);
	/* A removed one that is still open has no links and no entries. */
	if (cur->nlink == 0 && cur->entries == 0)
		return;
	if (cur->nlink != 2 + cur->subdirs)
		check_report(run, SLU_PROBLEM_NLINK, cur->ino, 0,
			     "directory %" PRIu64 ": has %" PRIu64 " subdirectories, so %" PRIu64
			     " links, its record says %u",
			     cur->ino, cur->subdirs, 2 + cur->subdirs, cur->nlink);
}

static void inode_compare(struct check_run *run)
{
	struct check_current *cur = &run->current;

	if (cur->extent_blocks != cur->blocks)
		check_report(run, SLU_PROBLEM_BLOCKS, cur->ino, 0,
			     "inode %" PRIu64 ": owns %" PRIu64 " blocks, its record says %" PRIu64,
			     cur->ino, cur->extent_blocks, cur->blocks);
	if (cur->xattrs != cur->nxattr)
		check_report(run, SLU_PROBLEM_XATTR, cur->ino, 0,
			     "inode %" PRIu64 ": has %" PRIu64
			     " extended attributes, its record says %u",
			     cur->ino, cur->xattrs, cur->nxattr);
	if (S_ISLNK(cur->mode) &&
	    (cur->target_bytes != cur->size || !cur->size || cur->size > 4095))
		check_report(run, SLU_PROBLEM_SYMLINK, cur->ino, 0,
			     "inode %" PRIu64 ": its target has %" PRIu64
			     " bytes, its record says %" PRIu64,
			     cur->ino, cur->target_bytes, cur->size);
	if (S_ISDIR(cur->mode))
		inode_compare_directory(run);
	check_xattrs_end(run);
}

void check_inode_end(struct check_run *run)
{
	struct check_current *cur = &run->current;
	struct check_inode entry = {
		.ino = cur->ino,
		.parent = cur->parent,
		.nlink = cur->nlink,
		.type = (uint8_t)(cur->mode >> 12),
	};

	if (!cur->ino)
		return;
	entry.gap = cur->gap = cur->gap || run->gap;
	if (!cur->has_inode) {
		if (!cur->gap)
			check_report(run, SLU_PROBLEM_INODE_MISSING, cur->ino, 0,
				     "inode %" PRIu64 ": has records but no inode record",
				     cur->ino);
	} else {
		if (!cur->gap)
			inode_compare(run);
		g_array_append_val(run->inodes, entry);
	}
	cur->ino = 0;
}
