/* SPDX-License-Identifier: MIT */
/*
 * A run of the check: superblocks, one walk over all nodes that hands each record to the part that
 * knows it, a second walk only if blocks have two owners, then the comparisons that need
 * everything. Called by fsck and by tests; never writes.
 */
#include "check_private.h"

/* ------------------------------------------------------------------ records */

static void check_volume_record(struct check_run *run, const struct slu_key *key,
				const uint8_t *value, size_t len)
{
	switch (key->type) {
	case SLU_REC_SPACE:
		if (len != SLU_CHUNK_BYTES)
			check_report(run, SLU_PROBLEM_SPACE_RECORD, 0, 0,
				     "space record %" PRIu64 " has %zu bytes (expected %u)",
				     key->off, len, SLU_CHUNK_BYTES);
		else
			check_blocks_record(run, key->off, value);
		break;
	case SLU_REC_ORPHAN:
		check_orphan_record(run, key, value, len);
		break;
	default:
		check_report(run, SLU_PROBLEM_RECORD, 0, 0,
			     "record of unknown type %u at offset %" PRIu64
			     " among the volume's own",
			     key->type, key->off);
		break;
	}
}

static void check_record(struct check_run *run, const struct slu_key *key, const uint8_t *value,
			 size_t len)
{
	struct slu_check_result *r = run->result;

	r->records++;
	/* Space records depend on where blocks lie, and are left out of what statfs is made of. */
	if (key->ino != SLU_INO_VOLUME || key->type != SLU_REC_SPACE)
		r->record_bytes += SLU_RECORD_OVERHEAD + len;
	/* A damaged node before this record may have held what comes before it. */
	if (run->gap && !run->past_space)
		run->space_gap = true;
	if (run->gap && !run->past_orphans)
		run->orphan_gap = true;
	run->past_space |= key->ino != SLU_INO_VOLUME || key->type > SLU_REC_SPACE;
	run->past_orphans |= key->ino != SLU_INO_VOLUME;
	if (key->ino == SLU_INO_VOLUME)
		check_volume_record(run, key, value, len);
	else
		check_inode_record(run, key, value, len);
	run->gap = false;
}

/* ------------------------------------------------------------------ nodes */

static void check_leaf(struct check_run *run, const struct slu_disk_node *node)
{
	const struct slu_disk_leaf_slot *slots = (const struct slu_disk_leaf_slot *)node->body;
	unsigned int n = slu_get_le16(&node->count);

	for (unsigned int i = 0; i < n; i++) {
		struct slu_key key = slu_key_get(slots[i].key);

		/* Within a node the store has checked it; across nodes it is checked here. */
		if (run->any_record && slu_key_cmp(&run->last_key, &key) >= 0)
			check_report(run, SLU_PROBLEM_NODE, key.ino, slu_get_le64(&node->blkno),
				     "node in block %" PRIu64 ": a record of inode %" PRIu64
				     " (type %u, offset %" PRIu64 ") is out of order",
				     slu_get_le64(&node->blkno), key.ino, key.type, key.off);
		run->any_record = true;
		run->last_key = key;
		check_record(run, &key, (const uint8_t *)node + slu_get_le16(&slots[i].off),
			     slu_get_le16(&slots[i].len));
	}
}

static int check_node(void *ctx, const struct slu_node_visit *v)
{
	struct check_run *run = ctx;

	run->nodes++;
	if (run->opts->progress &&
	    run->opts->progress(run->opts->ctx, run->nodes, slu_get_le64(&run->super.node_blocks)))
		return -ECANCELED;
	run->result->depth = slu_max(run->result->depth, v->level + 1);
	check_blocks_own(run, &(struct check_owner){.kind = CHECK_OWNER_NODE}, v->blkno, 1);
	run->result->node_blocks++;
	if (v->wrong || !v->node) {
		check_report(run, SLU_PROBLEM_NODE, 0, v->blkno,
			     "node in block %" PRIu64 " (level %u): %s", v->blkno, v->level,
			     v->wrong ? v->wrong : "cannot be read");
		run->gap = true;
		run->result->incomplete = true;
		return 0;
	}
	if (v->level == 0)
		check_leaf(run, v->node);
	return 0;
}

/* The second walk: who are the owners of blocks that have two? */
static int check_name_owners(void *ctx, const struct slu_node_visit *v)
{
	struct check_run *run = ctx;
	const struct slu_disk_leaf_slot *slots;

	check_blocks_name_owner(run, &(struct check_owner){.kind = CHECK_OWNER_NODE}, v->blkno, 1);
	if (v->wrong || !v->node || v->level)
		return 0;
	slots = (const struct slu_disk_leaf_slot *)v->node->body;
	for (unsigned int i = 0; i < slu_get_le16(&v->node->count); i++) {
		struct slu_key key = slu_key_get(slots[i].key);
		struct slu_disk_extent de;

		if (key.type != SLU_REC_EXTENT || slu_get_le16(&slots[i].len) != sizeof(de))
			continue;
		memcpy(&de, (const uint8_t *)v->node + slu_get_le16(&slots[i].off), sizeof(de));
		check_blocks_name_owner(run,
					&(struct check_owner){.kind = CHECK_OWNER_EXTENT,
							      .ino = key.ino,
							      .file_block = key.off},
					slu_get_le64(&de.blkno), slu_get_le32(&de.nblocks));
	}
	return 0;
}

static int check_walk(struct check_run *run)
{
	const struct check_owner deferred = {.kind = CHECK_OWNER_DEFERRED};
	uint32_t ndeferred = slu_min(slu_get_le32(&run->super.ndeferred),
				     (uint32_t)slu_array_size(run->super.deferred));
	int err = slu_store_walk(run->store, check_node, run);

	if (err < 0)
		return err;
	check_inode_end(run);
	if (run->gap && !run->past_space)
		run->space_gap = true;
	for (uint32_t i = 0; i < ndeferred; i++)
		check_blocks_own(run, &deferred, slu_get_le64(&run->super.deferred[i]), 1);
	if (check_blocks_any_shared(run->blocks)) {
		err = slu_store_walk(run->store, check_name_owners, run);
		for (uint32_t i = 0; i < ndeferred; i++)
			check_blocks_name_owner(run, &deferred,
						slu_get_le64(&run->super.deferred[i]), 1);
	}
	return err < 0 ? err : 0;
}

/* ----------------------------------------------------------------- the counts of the superblock */

static void check_counts(struct check_run *run)
{
	const struct slu_check_result *r = run->result;
	const struct slu_disk_super *s = &run->super;
	const struct {
		const char *what;
		uint64_t says, is;
	} counts[] = {
		{"blocks owned by files", slu_get_le64(&s->data_blocks), r->data_blocks},
		{"blocks owned by nodes", slu_get_le64(&s->node_blocks), r->node_blocks},
		{"bytes of records", slu_get_le64(&s->record_bytes), r->record_bytes},
		{"inodes", slu_get_le64(&s->ninodes), r->inodes},
	};

	for (size_t i = 0; i < slu_array_size(counts); i++) {
		if (counts[i].says != counts[i].is)
			check_report(run, SLU_PROBLEM_COUNT, 0, 0,
				     "the superblock counts %" PRIu64 " %s, there are %" PRIu64,
				     counts[i].says, counts[i].what, counts[i].is);
	}
}

/* ------------------------------------------------------------------ a run */

static void check_begin(struct check_run *run)
{
	struct slu_check_result *r = run->result;

	r->inodes = r->data_blocks = r->node_blocks = 0; /* counted from here on */
	run->inodes = g_array_new(FALSE, FALSE, sizeof(struct check_inode));
	run->links = g_array_new(FALSE, FALSE, sizeof(struct check_link));
	run->orphans = g_array_new(FALSE, FALSE, sizeof(struct check_orphan));
	run->blocks = check_blocks_new();
	check_current_init(run);
}

static void check_end(struct check_run *run)
{
	if (run->store)
		slu_store_close(run->store);
	if (!run->inodes)
		return;
	g_array_unref(run->inodes);
	g_array_unref(run->links);
	g_array_unref(run->orphans);
	check_blocks_free(run->blocks);
	check_current_fini(run);
}

/* 1: run->store is open; 0: damage kept it from being opened, and has been reported. */
static int check_open_store(struct check_run *run, const char **why)
{
	const struct slu_store_opts opts = {.readonly = true};
	const char *reason = NULL;
	int err = slu_store_open(run->bio, &opts, &run->store, &reason);

	if (!err)
		return 1;
	run->store = NULL;
	*why = reason ? reason : "cannot be opened";
	if (err != -EIO && err != -EINVAL)
		return err;
	check_report(run, SLU_PROBLEM_NODE, 0, slu_get_le64(&run->super.root_blkno),
		     "the tree cannot be opened: %s", *why);
	run->result->incomplete = true;
	return 0;
}

int slu_check_supers(struct slu_blockio *bio, const struct slu_check_opts *opts,
		     struct slu_check_result *ret, const char **why)
{
	struct check_run run = {.opts = opts, .result = ret, .bio = bio};
	int err;

	memset(ret, 0, sizeof(*ret));
	err = check_supers(&run, why);
	if (err > 0 && run.nblocks > atomic_load(&slu_blockio_info(bio)->nblocks)) {
		*why = "the image is shorter than the volume in it";
		return -ENOSPC;
	}
	return slu_min(err, 0);
}

int slu_check(struct slu_blockio *bio, const struct slu_check_opts *opts,
	      struct slu_check_result *ret, const char **why)
{
	struct check_run run = {.opts = opts, .result = ret, .bio = bio};
	int err;

	memset(ret, 0, sizeof(*ret));
	err = check_supers(&run, why);
	if (err > 0)
		err = check_open_store(&run, why);
	if (err <= 0)
		goto out;
	check_begin(&run);
	err = check_walk(&run);
	if (err == -ECANCELED)
		*why = "cancelled";
	else if (err)
		*why = "the image cannot be read";
	if (err)
		goto out;
	check_blocks_compare(&run);
	check_links(&run);
	if (!ret->incomplete)
		check_counts(&run);
out:
	check_end(&run);
	return err;
}
