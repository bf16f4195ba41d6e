/* SPDX-License-Identifier: MIT */
/*
 * The two superblocks and the spare one. Reads them itself and believes nothing; called once at the
 * start of a run.
 *
 * The spare one is believed only where both others are lost: beside a good superblock it is compared
 * with what belongs there, byte for byte, and is wrong if it differs.
 *
 * A superblock whose checksum is wrong is either damaged or was being written when the power
 * failed. The second is no damage: the other one counts and the next mount writes this one anew.
 * They are told apart by the fields that no commit changes, which a torn write cannot have altered.
 */
#include "check_private.h"
#include <xxhash.h>

struct super_slot {
	struct slu_disk_super *block;
	bool read, magic, checksum, good;
	uint64_t txid;
};

/* Identity: from the magic to the features, and the label. */
static bool super_same_identity(const struct slu_disk_super *a, const struct slu_disk_super *b)
{
	size_t from = offsetof(struct slu_disk_super, magic);
	size_t to = offsetof(struct slu_disk_super, nblocks);

	return !memcmp((const char *)a + from, (const char *)b + from, to - from) &&
	       !memcmp(a->label, b->label, sizeof(a->label));
}

static void super_bad(struct check_run *run, struct super_slot *slot, unsigned int i,
		      const char *what)
{
	slot->good = false;
	check_report(run, SLU_PROBLEM_SUPER, 0, i, "superblock %u: %s", i, what);
}

static void super_check_deferred(struct check_run *run, struct super_slot *slot, unsigned int i)
{
	const struct slu_disk_super *s = slot->block;
	uint32_t n = slu_get_le32(&s->ndeferred);

	if (n > slu_array_size(s->deferred)) {
		super_bad(run, slot, i, "has an impossible number of deferred blocks");
		return;
	}
	for (uint32_t j = 0; j < n; j++) {
		uint64_t blkno = slu_get_le64(&s->deferred[j]);

		if (blkno < 2 || blkno >= slu_super_end(s))
			check_report(run, SLU_PROBLEM_DEFERRED, 0, blkno,
				     "superblock %u: deferred block %" PRIu64
				     " is outside of the volume",
				     i, blkno);
	}
}

/* Fields of a superblock whose checksum holds. */
static void super_check_fields(struct check_run *run, struct super_slot *slot, unsigned int i)
{
	const struct slu_disk_super *s = slot->block;
	uint64_t nblocks = slu_get_le64(&s->nblocks), root = slu_get_le64(&s->root_blkno);

	slot->good = true;
	slot->txid = slu_get_le64(&s->txid);
	if (slu_get_le32(&s->block_size) != SLU_BLOCK_SIZE)
		super_bad(run, slot, i, "has a block size other than 4096");
	if (nblocks < SLU_MIN_BLOCKS || nblocks > SLU_MAX_BLOCKS)
		super_bad(run, slot, i, "has an impossible number of blocks");
	else if (root < 2 || root >= slu_super_end(s))
		super_bad(run, slot, i, "has a root node outside of the volume");
	if (slu_get_le64(&s->root_txid) > slot->txid)
		super_bad(run, slot, i, "has a root node from a later transaction");
	if (slu_get_le64(&s->next_ino) < SLU_INO_FIRST)
		super_bad(run, slot, i, "has an impossible next inode number");
	if (slu_get_le32(&s->state) & ~SLU_STATE_CLEAN)
		super_bad(run, slot, i, "has an unknown state");
	if (!memchr(s->label, 0, sizeof(s->label)))
		super_bad(run, slot, i, "has a label without an end");
	for (size_t j = 0; j < sizeof(s->zero); j++) {
		if (s->zero[j]) {
			super_bad(run, slot, i, "has bytes other than zero at its end");
			break;
		}
	}
	super_check_deferred(run, slot, i);
}

static int super_read(struct check_run *run, struct super_slot *slot, unsigned int i)
{
	struct slu_disk_super *s = slot->block;
	int err = slu_blockio_read(run->bio, i, 1, s);

	if (err) {
		check_report(run, SLU_PROBLEM_SUPER, 0, i, "superblock %u: cannot be read: %s", i,
			     g_strerror(-err));
		return 0;
	}
	slot->read = true;
	slot->magic = !memcmp(s->magic, SLU_MAGIC, sizeof(s->magic));
	slot->checksum =
		slu_get_le64(&s->checksum) == XXH3_64bits((const char *)s + 8, SLU_BLOCK_SIZE - 8);
	if (!slot->magic || !slot->checksum)
		return 0;
	/* Not damage but a volume of tomorrow. */
	if (slu_get_le32(&s->version) != SLU_FORMAT_VERSION ||
	    slu_get_le64(&s->features_incompat) & ~SLU_FEATURES_INCOMPAT ||
	    slu_get_le64(&s->features_ro_compat) & ~SLU_FEATURES_RO_COMPAT)
		return -EPROTONOSUPPORT;
	super_check_fields(run, slot, i);
	return 0;
}

/* One has no valid checksum. */
static void super_explain_invalid(struct check_run *run, struct super_slot *slot,
				  const struct super_slot *other, unsigned int i)
{
	if (!slot->read)
		return; /* said already */
	if (other->good && slot->magic && super_same_identity(slot->block, other->block))
		check_note(run, SLU_PROBLEM_SUPER, i,
			   "superblock %u: was being written when the volume was last in use; the "
			   "other one counts, and the next mount writes this one anew",
			   i);
	else
		check_report(run, SLU_PROBLEM_SUPER, 0, i, "superblock %u: %s", i,
			     slot->magic ? "its checksum is wrong" : "has no magic number");
}

/*
 * What two valid superblocks may look like beside each other. Transaction t goes to slot t & 1; a
 * clean unmount then writes its state into both, so that the two have one number. If the power
 * fails between those two writes, both may have one number with only one of them clean, and the
 * next mount gives the other slot the next number that belongs there. A commit that fails is tried
 * again under the next number of the same slot, so that the other slot keeps what is on disk; they
 * can be any odd number apart.
 */
static void super_compare(struct check_run *run, const struct super_slot *slots)
{
	const struct slu_disk_super *a = slots[0].block, *b = slots[1].block;
	int newer = slots[1].txid > slots[0].txid;
	uint64_t apart = slots[newer].txid - slots[!newer].txid;
	size_t from = offsetof(struct slu_disk_super, root_blkno);
	size_t to = offsetof(struct slu_disk_super, mkfs_time);

	if (!super_same_identity(a, b))
		check_report(run, SLU_PROBLEM_SUPER_DIFFER, 0, 0,
			     "the superblocks are of two different volumes");
	if ((apart > 2 && !(apart & 1)) || (apart && (int)(slots[newer].txid & 1) != newer))
		check_report(run, SLU_PROBLEM_SUPER_DIFFER, 0, 0,
			     "the superblocks are of transactions %" PRIu64 " and %" PRIu64
			     ", which do not follow each other",
			     slots[0].txid, slots[1].txid);
	if (!apart && (slu_get_le64(&a->nblocks) != slu_get_le64(&b->nblocks) ||
		       memcmp((const char *)a + from, (const char *)b + from, to - from) != 0))
		check_report(run, SLU_PROBLEM_SUPER_DIFFER, 0, 0,
			     "the superblocks are of one transaction, but not of one state");
}

/* Both superblocks say so, of the same transaction. */
static bool super_is_clean(const struct super_slot *slots)
{
	return slots[0].good && slots[1].good && slots[0].txid == slots[1].txid &&
	       slu_get_le32(&slots[0].block->state) & slu_get_le32(&slots[1].block->state) &
		       SLU_STATE_CLEAN;
}

static void super_result(struct check_run *run, const struct slu_disk_super *s)
{
	struct slu_check_result *r = run->result;

	run->super = *s;
	run->nblocks = slu_get_le64(&s->nblocks);
	run->spare = slu_super_spare(s, run->nblocks);
	run->end = slu_super_end(s);
	run->hash_seed = slu_get_le64(&s->hash_seed);
	run->next_ino = slu_get_le64(&s->next_ino);
	memcpy(r->volume_id, s->volume_id, sizeof(r->volume_id));
	memcpy(r->label, s->label, SLU_LABEL_MAX);
	r->nblocks = run->nblocks;
	r->data_blocks = slu_get_le64(&s->data_blocks);
	r->node_blocks = slu_get_le64(&s->node_blocks);
	r->inodes = slu_get_le64(&s->ninodes);
}

/* ------------------------------------------------------------------ the spare superblock */

/* Beside a good superblock. buf: a block. */
static void super_check_spare(struct check_run *run, struct slu_disk_super *buf)
{
	struct slu_disk_super expected;
	const char *wrong;
	int err;

	/* Whoever called says that the image is too short. */
	if (!run->spare || run->spare >= atomic_load(&slu_blockio_info(run->bio)->nblocks))
		return;
	slu_spare_make(&run->super, run->nblocks, &expected);
	err = slu_blockio_read(run->bio, run->spare, 1, buf);
	if (err)
		wrong = "cannot be read";
	else if (!memcmp(buf, &expected, sizeof(expected)))
		return;
	else
		wrong = slu_spare_check(buf, run->spare);
	run->spare_bad = true;
	check_report(run, SLU_PROBLEM_SPARE, 0, run->spare,
		     "spare superblock in block %" PRIu64 ": %s", run->spare,
		     wrong ? wrong : "says something else than the superblocks");
}

/* Both superblocks are lost. 0, or an error: then *why says it. */
static int super_use_spare(struct check_run *run, const char **why)
{
	struct slu_disk_super spare;
	uint64_t blkno;
	int err = slu_spare_find(run->bio, &spare, &blkno);

	if (err == -EEXIST)
		*why = "both superblocks are lost, and there are spare ones of several volumes; "
		       "--size says how long the right one is";
	if (err)
		return err;
	super_result(run, &spare);
	memcpy(run->super.magic, SLU_MAGIC, sizeof(run->super.magic));
	run->from_spare = true;
	return 0;
}

/* Neither superblock can be used. 0: that is damage; or it is no volume at all. */
static int super_both_lost(struct check_run *run, const struct super_slot *slots, const char **why)
{
	bool magic = slots[0].magic || slots[1].magic;
	int err = super_use_spare(run, why);

	run->result->incomplete = true;
	if (!err || err == -ENOMEM)
		return err;
	if (magic || err == -EEXIST)
		return err == -EEXIST ? -EINVAL : 0;
	*why = slots[0].read || slots[1].read ? "not a sluicefs volume" : "cannot be read";
	return slots[0].read || slots[1].read ? -EINVAL : -EIO;
}

int check_supers(struct check_run *run, const char **why)
{
	struct super_slot slots[2] = {{0}, {0}};
	uint8_t *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, 2 * SLU_BLOCK_SIZE);
	int err = 0;

	*why = "out of memory";
	if (!buf)
		return -ENOMEM;
	if (atomic_load(&slu_blockio_info(run->bio)->nblocks) < 2) {
		*why = "not a sluicefs volume: too short";
		slu_free(buf);
		return -EINVAL;
	}
	for (unsigned int i = 0; i < 2 && !err; i++) {
		slots[i].block = (struct slu_disk_super *)(buf + i * SLU_BLOCK_SIZE);
		err = super_read(run, &slots[i], i);
		*why = "a version or feature that this program does not know";
	}
	if (!err && !slots[0].good && !slots[1].good)
		err = super_both_lost(run, slots, why);
	if (err)
		goto out;
	for (unsigned int i = 0; i < 2; i++) {
		if (!slots[i].magic || !slots[i].checksum)
			super_explain_invalid(run, &slots[i], &slots[!i], i);
	}
	if (run->from_spare)
		check_note(run, SLU_PROBLEM_SPARE, run->spare,
			   "spare superblock in block %" PRIu64
			   ": is sound, and enough to repair the volume",
			   run->spare);
	if (slots[0].good && slots[1].good)
		super_compare(run, slots);
	if (slots[0].good || slots[1].good) {
		int newer = !slots[0].good || (slots[1].good && slots[1].txid > slots[0].txid);

		super_result(run, slots[newer].block);
		run->super_slot = (unsigned int)newer;
		run->result->was_clean = super_is_clean(slots);
		super_check_spare(run, slots[!newer].block);
		err = 1;
	}
out:
	slu_free(buf);
	return err;
}
