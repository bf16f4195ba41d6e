/* SPDX-License-Identifier: MIT */
/*
 * A run of repair: the superblock to begin with, what is believed, a first pass over it, the comparison of names with inodes, a
 * second pass that writes the new tree, and the switch of superblocks. Called by fsck and by tests.
 *
 * Up to the first superblock write nothing is touched that the volume as it was reaches; the write
 * goes over the superblock that does not count, and the other one follows when it is durable.
 */
#include "repair_private.h"
#include <stdarg.h>
#include <xxhash.h>

/* ------------------------------------------------------------------ telling */

static void repair_say(struct repair_run *run, bool detail, const char *fmt, va_list ap)
{
	g_autofree char *text = g_strdup_vprintf(fmt, ap);

	if (!detail)
		run->result->repairs++;
	if (run->opts->did)
		run->opts->did(run->opts->ctx, text, detail);
}

void repair_did(struct repair_run *run, const char *fmt, ...)
{
	va_list ap;

	run->change = true;
	va_start(ap, fmt);
	repair_say(run, false, fmt, ap);
	va_end(ap);
}

void repair_detail(struct repair_run *run, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	repair_say(run, true, fmt, ap);
	va_end(ap);
}

void repair_did_super(struct repair_run *run, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	repair_say(run, false, fmt, ap);
	va_end(ap);
}

void repair_phase(struct repair_run *run, enum slu_repair_phase phase, uint64_t total)
{
	run->phase = phase;
	run->done = 0;
	run->total = total;
}

int repair_step(struct repair_run *run, uint64_t n)
{
	run->done += n;
	if (run->opts->progress &&
	    run->opts->progress(run->opts->ctx, run->phase, run->done, run->total))
		return -ECANCELED;
	return 0;
}

/* ------------------------------------------------------------------ a pass */

static int repair_pass(struct repair_run *run, unsigned int pass)
{
	struct slu_disk_node *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, sizeof(*buf));
	int err = buf ? 0 : -ENOMEM;

	run->pass = pass;
	for (guint i = 0; i < run->leaves->len && !err; i++) {
		const struct repair_leaf *leaf = &g_array_index(run->leaves, struct repair_leaf, i);

		err = slu_blockio_read(run->bio, leaf->blkno, 1, buf);
		/* It was sound before: a disk that changes its mind is not to be repaired. */
		if (!err && slu_node_check(buf, run->super.volume_id, leaf->blkno, leaf->txid, 0,
					   &leaf->lower, &leaf->upper))
			err = -EIO;
		if (!err)
			repair_each_record(run, leaf, buf, repair_record);
		if (!err)
			err = repair_step(run, 1);
	}
	if (!err)
		repair_inode_end(run);
	slu_free(buf);
	return err;
}

/* ------------------------------------------------------------------ superblocks */

/* The next transaction that belongs over the superblock that does not count. */
static uint64_t repair_next_txid(const struct repair_run *run)
{
	uint64_t txid = slu_max(slu_get_le64(&run->super.txid), run->newest) + 1;

	return (txid & 1) == run->super_slot ? txid + 1 : txid;
}

static void repair_tell_counts(struct repair_run *run, const struct slu_disk_super *new)
{
	const struct slu_disk_super *old = &run->super;
	const struct {
		const char *what;
		uint64_t was, is;
	} counts[] = {
		{"blocks owned by files", slu_get_le64(&old->data_blocks),
		 slu_get_le64(&new->data_blocks)},
		/* What could not be reached was not counted. */
		{"blocks owned by nodes", slu_get_le64(&old->node_blocks),
		 run->gaps->len ? slu_get_le64(&old->node_blocks) : run->walked_nodes},
		{"bytes of records", slu_get_le64(&old->record_bytes),
		 slu_get_le64(&new->record_bytes)},
		{"inodes", slu_get_le64(&old->ninodes), slu_get_le64(&new->ninodes)},
		{"for the next inode number", slu_get_le64(&old->next_ino),
		 slu_get_le64(&new->next_ino)},
	};

	for (size_t i = 0; i < slu_array_size(counts) && !run->from_spare; i++) {
		if (counts[i].was == counts[i].is)
			continue;
		/* With a new tree the counts follow from what has been said already. */
		(run->build ? repair_detail : repair_did_super)(run,
								"the superblock counts %" PRIu64
								" %s, not %" PRIu64,
								counts[i].is, counts[i].what,
								counts[i].was);
	}
}

static void repair_fill_super(struct repair_run *run, struct slu_disk_super *sb)
{
	*sb = run->super;
	slu_put_le64(&sb->txid, run->txid);
	slu_put_le64(&sb->next_ino, run->next_ino);
	slu_put_le64(&sb->data_blocks, run->data_blocks);
	slu_put_le64(&sb->node_blocks, run->walked_nodes);
	slu_put_le64(&sb->record_bytes, run->record_bytes);
	slu_put_le64(&sb->ninodes, run->ninodes);
	slu_put_le64(&sb->commit_time, (uint64_t)slu_clock_realtime().tv_sec);
	slu_put_le32(&sb->state, SLU_STATE_CLEAN);
	memset(sb->zero, 0, sizeof(sb->zero));
}

/* And flushes. */
static int repair_write_super(struct repair_run *run, uint64_t blkno,
			      const struct slu_disk_super *sb)
{
	struct slu_disk_super *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, sizeof(*buf));
	int err;

	if (!buf)
		return -ENOMEM;
	*buf = *sb;
	slu_put_le64(&buf->checksum, XXH3_64bits((const char *)buf + 8, sizeof(*buf) - 8));
	err = slu_blockio_write(run->bio, blkno, 1, buf);
	slu_free(buf);
	return err ? err : slu_blockio_flush(run->bio);
}

static int repair_switch(struct repair_run *run, const struct slu_disk_super *sb)
{
	int err = slu_blockio_flush(run->bio);

	if (!err)
		err = repair_write_super(run, !run->super_slot, sb);
	return err ? err : repair_write_super(run, run->super_slot, sb);
}

static int repair_write_spare(struct repair_run *run)
{
	struct slu_disk_super spare;

	slu_spare_make(&run->super, run->nblocks, &spare);
	return repair_write_super(run, run->spare, &spare);
}

/*
 * Without a superblock the nodes of a new tree could not be told from those of the old one by a
 * repair that comes after this one was interrupted. So one is written first that says which
 * transaction is the last; that no tree can be reached from it keeps the volume from being mounted.
 */
static int repair_write_first(struct repair_run *run)
{
	struct slu_disk_super sb = run->super;
	uint64_t txid = slu_get_le64(&sb.txid), blkno = 2;

	while (blkno < run->end &&
	       (repair_test(run, REPAIR_NODE, blkno) || repair_test(run, REPAIR_SOLID, blkno) ||
		repair_test(run, REPAIR_BUSY, blkno)))
		blkno++;
	if (blkno == run->end)
		return -ENOSPC;
	slu_put_le64(&sb.root_blkno, blkno);
	slu_put_le64(&sb.root_txid, txid);
	slu_put_le64(&sb.next_ino, run->next_ino);
	slu_put_le64(&sb.node_blocks, 2); /* a lost root that was no leaf */
	run->super_slot = txid & 1;
	return repair_write_super(run, run->super_slot, &sb);
}

/* ------------------------------------------------------------------ a run */

static int repair_write(struct repair_run *run, const char **why)
{
	struct slu_disk_super sb;
	uint64_t root = 0;
	int err;

	repair_second_pass(run);
	if (run->from_spare && run->change) {
		err = repair_write_first(run);
		*why = err == -ENOSPC ? "there is not enough free space for a second tree"
				      : "a superblock cannot be written";
		if (err)
			return err;
	}
	run->txid = repair_next_txid(run);
	if (run->change)
		run->build = repair_build_new(run, run->txid);
	*why = "the image cannot be read";
	repair_set(run, REPAIR_FINAL, 0, 2);
	if (run->spare)
		repair_set(run, REPAIR_FINAL, run->spare, 1);
	err = repair_pass(run, 2);
	if (err)
		return err;
	repair_emit_rest(run);
	repair_fill_super(run, &sb);
	repair_tell_counts(run, &sb);
	if (run->build) {
		err = repair_build_finish(run->build, &root, &run->result->nodes);
		*why = err == -ENOSPC ? "there is not enough free space for a second tree"
				      : "the new tree cannot be written";
		slu_put_le64(&sb.root_blkno, root);
		slu_put_le64(&sb.root_txid, run->txid);
		slu_put_le64(&sb.node_blocks, run->result->nodes);
		slu_put_le32(&sb.ndeferred, 0);
		memset(sb.deferred, 0, sizeof(sb.deferred));
		repair_detail(run, "a new tree of %" PRIu64 " nodes", run->result->nodes);
	}
	if (err)
		return err;
	*why = "the superblocks cannot be written";
	err = repair_switch(run, &sb);
	if (!err && run->spare_bad) {
		*why = "the spare superblock cannot be written; all else is repaired";
		err = repair_write_spare(run);
	}
	return err;
}

static int repair_volume(struct repair_run *run, const char **why)
{
	int err;

	*why = "the image cannot be read";
	repair_phase(run, SLU_REPAIR_TREE, slu_get_le64(&run->super.node_blocks));
	err = repair_find(run);
	if (err == -EUCLEAN)
		*why = "both superblocks are lost, and no node of the volume is left";
	if (err)
		return err;
	repair_phase(run, SLU_REPAIR_BUILD, 2ull * run->leaves->len);
	err = repair_pass(run, 1);
	if (err)
		return err;
	repair_compare_space(run);
	repair_links(run);
	run->result->inodes = run->inodes->len;
	return repair_write(run, why);
}

static int repair_open(struct repair_run *run, const char **why)
{
	static const struct slu_check_opts silent;
	struct slu_check_result result = {0};
	struct check_run check = {.opts = &silent, .result = &result, .bio = run->bio};
	int err;

	if (slu_blockio_info(run->bio)->readonly) {
		*why = "the image is open for reading only";
		return -EROFS;
	}
	err = check_supers(&check, why);
	if (err < 0)
		return err;
	if (!err && !check.from_spare) {
		*why = "both superblocks are damaged, and there is no spare one";
		return -EUCLEAN;
	}
	run->super = check.super;
	run->super_slot = check.super_slot;
	run->nblocks = check.nblocks;
	run->end = check.end;
	run->spare = check.spare;
	run->spare_bad = check.spare_bad;
	run->from_spare = check.from_spare;
	run->hash_seed = check.hash_seed;
	/* Too large is as good as lost: it is found again from the inodes that there are. */
	run->next_ino = check.next_ino <= REPAIR_NUMBER_MAX ? check.next_ino : SLU_INO_FIRST;
	run->next_ino = slu_max(run->next_ino, SLU_INO_FIRST);
	if (slu_get_le64(&run->super.txid) > REPAIR_NUMBER_MAX) {
		*why = "the superblocks name an impossible transaction";
		return -EUCLEAN;
	}
	if (run->nblocks > atomic_load(&slu_blockio_info(run->bio)->nblocks)) {
		*why = "the image is shorter than the volume in it";
		return -EFBIG;
	}
	if (run->from_spare)
		repair_did_super(
			run,
			"the superblocks are written anew, from the spare one in block %" PRIu64,
			run->spare);
	else if (result.problems > run->spare_bad)
		repair_did_super(run, "the superblocks are written anew, from superblock %u",
				 run->super_slot);
	if (run->spare_bad)
		repair_did_super(run, "the spare superblock in block %" PRIu64 " is written anew",
				 run->spare);
	return 0;
}

int slu_repair(struct slu_blockio *bio, const struct slu_repair_opts *opts,
	       struct slu_repair_result *ret, const char **why)
{
	struct repair_run run = {.opts = opts, .result = ret, .bio = bio};
	int err;

	memset(ret, 0, sizeof(*ret));
	err = repair_open(&run, why);
	if (err)
		return err;
	run.leaves = g_array_new(FALSE, FALSE, sizeof(struct repair_leaf));
	run.gaps = g_array_new(FALSE, FALSE, sizeof(struct repair_gap));
	run.inodes = g_array_new(FALSE, FALSE, sizeof(struct repair_inode));
	run.links = g_array_new(FALSE, FALSE, sizeof(struct repair_link));
	run.orphans = g_array_new(FALSE, FALSE, sizeof(struct repair_orphan));
	run.additions = g_array_new(FALSE, FALSE, sizeof(struct repair_addition));
	run.chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
	run.bad_xattrs = g_hash_table_new_full(g_bytes_hash, g_bytes_equal,
					       (GDestroyNotify)g_bytes_unref, NULL);
	run.current.parts = g_array_new(FALSE, FALSE, sizeof(struct repair_parts));
	run.current.names = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
	err = repair_volume(&run, why);
	if (err == -ECANCELED)
		*why = "cancelled";
	repair_build_free(run.build);
	g_ptr_array_unref(run.current.names);
	g_array_unref(run.current.parts);
	g_hash_table_unref(run.bad_xattrs);
	g_hash_table_unref(run.chunks);
	g_array_unref(run.additions);
	g_array_unref(run.orphans);
	g_array_unref(run.links);
	g_array_unref(run.inodes);
	g_array_unref(run.gaps);
	g_array_unref(run.leaves);
	return err;
}
