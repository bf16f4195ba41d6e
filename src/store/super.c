/* SPDX-License-Identifier: MIT */
/*
 * The two superblocks: reading and distrusting them, choosing one, writing one; and the spare one,
 * which nothing here ever takes for a superblock: it names the way out where both are lost.
 *
 * super_read runs before the store exists, super_write in the one thread that commits. No lock is
 * held while the disk is waited for.
 */
#include "store_private.h"
#include <xxhash.h>

static uint64_t super_checksum(const struct slu_disk_super *sb)
{
	return XXH3_64bits((const uint8_t *)sb + 8, sizeof(*sb) - 8);
}

static bool super_blkno_ok(uint64_t blkno, const struct slu_disk_super *sb)
{
	return blkno >= 2 && blkno < slu_super_end(sb);
}

static const char *super_check_sizes(const struct slu_disk_super *sb)
{
	uint64_t nblocks = slu_get_le64(&sb->nblocks);
	uint64_t txid = slu_get_le64(&sb->txid), root_txid = slu_get_le64(&sb->root_txid);
	unsigned int ndeferred = slu_get_le32(&sb->ndeferred);

	if (slu_get_le32(&sb->block_size) != SLU_BLOCK_SIZE)
		return "the superblock names a block size that is not 4096";
	if (nblocks < SLU_MIN_BLOCKS || nblocks > SLU_MAX_BLOCKS)
		return "the superblock names an impossible size";
	if (!txid || txid > UINT64_MAX / 2 || !root_txid || root_txid > txid)
		return "the superblock names impossible transactions";
	if (!super_blkno_ok(slu_get_le64(&sb->root_blkno), sb))
		return "the superblock's root lies outside the volume";
	if (slu_get_le64(&sb->next_ino) < SLU_INO_FIRST ||
	    slu_get_le64(&sb->next_ino) > UINT64_MAX / 2)
		return "the superblock names an impossible inode number";
	if (slu_get_le64(&sb->data_blocks) > nblocks || slu_get_le64(&sb->node_blocks) > nblocks ||
	    slu_get_le64(&sb->record_bytes) > nblocks * SLU_BLOCK_SIZE)
		return "the superblock counts more than the volume can hold";
	if (ndeferred > slu_array_size(sb->deferred))
		return "the superblock defers too many blocks";
	for (unsigned int i = 0; i < ndeferred; i++)
		if (!super_blkno_ok(slu_get_le64(&sb->deferred[i]), sb))
			return "the superblock defers a block outside the volume";
	return NULL;
}

/* NULL, or what is wrong; *ret_err is the errno that goes with it. */
static const char *super_check(const struct slu_disk_super *sb, int *ret_err)
{
	*ret_err = -EINVAL;
	if (memcmp(sb->magic, SLU_MAGIC, sizeof(sb->magic)))
		return "not a sluicefs volume";
	*ret_err = -EIO;
	if (slu_get_le64(&sb->checksum) != super_checksum(sb))
		return "the superblock is damaged";
	*ret_err = -EPROTONOSUPPORT;
	if (slu_get_le32(&sb->version) != SLU_FORMAT_VERSION)
		return "the volume has a format version that this program does not know";
	if (slu_get_le64(&sb->features_incompat) & ~SLU_FEATURES_INCOMPAT)
		return "the volume uses features that this program does not know";
	*ret_err = -EIO;
	return super_check_sizes(sb);
}

const char *super_wrong(const struct slu_disk_super *sb)
{
	int err;

	return super_check(sb, &err);
}

/* The better of the two into *ret; both were read into sb[]. */
static int super_choose(const struct slu_disk_super *sb, const int *io_err,
			struct slu_disk_super *ret, struct super_choice *choice, const char **why)
{
	const char *wrong[2];
	uint64_t txid[2];
	int err[2];

	for (unsigned int i = 0; i < 2; i++) {
		wrong[i] =
			io_err[i] ? "the superblock cannot be read" : super_check(&sb[i], &err[i]);
		if (io_err[i])
			err[i] = -EIO;
		txid[i] = slu_get_le64(&sb[i].txid);
	}
	for (unsigned int i = 0; i < 2; i++) {
		/* A newer program has been here: also if the other one looks familiar. */
		if (wrong[i] && err[i] == -EPROTONOSUPPORT) {
			*why = wrong[i];
			return err[i];
		}
	}
	if (wrong[0] && wrong[1]) {
		unsigned int i = err[0] == -EINVAL ? 1 : 0;

		*why = wrong[i];
		return err[i];
	}
	if (!wrong[0] && !wrong[1] &&
	    memcmp(sb[0].volume_id, sb[1].volume_id, sizeof(sb[0].volume_id))) {
		*why = "the two superblocks belong to different volumes";
		return -EIO;
	}
	choice->fell_back = wrong[0] || wrong[1];
	choice->slot = wrong[0] || (!wrong[1] && txid[1] > txid[0]) ? 1 : 0;
	choice->clean = !choice->fell_back && txid[0] == txid[1] &&
			slu_get_le32(&sb[0].state) == SLU_STATE_CLEAN &&
			slu_get_le32(&sb[1].state) == SLU_STATE_CLEAN;
	*ret = sb[choice->slot];
	return 0;
}

/* Whether the image ends with a spare superblock. buf: a block, aligned. */
static bool super_spare_at_end(struct slu_blockio *bio, struct slu_disk_super *buf)
{
	uint64_t last = atomic_load(&slu_blockio_info(bio)->nblocks) - 1;

	return !slu_blockio_read(bio, last, 1, buf) && !slu_spare_check(buf, last);
}

int super_read(struct slu_blockio *bio, struct slu_disk_super *ret, struct super_choice *choice,
	       const char **why)
{
	struct slu_disk_super *sb;
	int io_err[2], err;

	if (slu_blockio_info(bio)->nblocks < 2) {
		*why = "not a sluicefs volume: too short";
		return -EINVAL;
	}
	sb = slu_alloc_aligned(SLU_BLOCK_SIZE, 2 * sizeof(*sb));
	if (!sb) {
		*why = "out of memory";
		return -ENOMEM;
	}
	/* One at a time: a bad sector under one must not take the other one away. */
	for (unsigned int i = 0; i < 2; i++)
		io_err[i] = slu_blockio_read(bio, i, 1, &sb[i]);
	err = super_choose(sb, io_err, ret, choice, why);
	if ((err == -EINVAL || err == -EIO) && super_spare_at_end(bio, sb)) {
		*why = "both superblocks are lost; fsck.sluicefs -y repairs the volume from the "
		       "spare one";
		err = -EIO;
	}
	slu_free(sb);
	return err;
}

void slu_spare_make(const struct slu_disk_super *sb, uint64_t nblocks, struct slu_disk_super *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->magic, SLU_SPARE_MAGIC, sizeof(ret->magic));
	ret->version = sb->version;
	ret->block_size = sb->block_size;
	memcpy(ret->volume_id, sb->volume_id, sizeof(ret->volume_id));
	ret->hash_seed = sb->hash_seed;
	ret->features_incompat = sb->features_incompat;
	ret->features_ro_compat = sb->features_ro_compat;
	ret->features_compat = sb->features_compat;
	slu_put_le64(&ret->nblocks, nblocks);
	ret->mkfs_time = sb->mkfs_time;
	memcpy(ret->label, sb->label, sizeof(ret->label));
	slu_put_le64(&ret->checksum, super_checksum(ret));
}

const char *slu_spare_check(const struct slu_disk_super *spare, uint64_t blkno)
{
	uint64_t nblocks = slu_get_le64(&spare->nblocks);

	if (memcmp(spare->magic, SLU_SPARE_MAGIC, sizeof(spare->magic)) != 0)
		return "has no magic number";
	if (slu_get_le64(&spare->checksum) != super_checksum(spare))
		return "its checksum is wrong";
	if (slu_get_le32(&spare->version) != SLU_FORMAT_VERSION ||
	    slu_get_le64(&spare->features_incompat) & ~SLU_FEATURES_INCOMPAT ||
	    slu_get_le64(&spare->features_ro_compat) & ~SLU_FEATURES_RO_COMPAT)
		return "has a version or feature that this program does not know";
	if (slu_get_le32(&spare->block_size) != SLU_BLOCK_SIZE)
		return "has a block size other than 4096";
	if (nblocks < SLU_MIN_BLOCKS || nblocks > SLU_MAX_BLOCKS ||
	    slu_super_spare(spare, nblocks) != blkno)
		return "belongs elsewhere";
	return NULL;
}

#define SPARE_READ 256u /* blocks at a time */

/* Backwards through n blocks from blkno on. 1: go on. */
static int spare_look(const struct slu_disk_super *blocks, uint64_t blkno, uint32_t n,
		      struct slu_disk_super *ret, uint64_t *ret_blkno)
{
	while (n--) {
		const struct slu_disk_super *sb = &blocks[n];

		if (slu_spare_check(sb, blkno + n))
			continue;
		if (*ret_blkno && memcmp(sb->volume_id, ret->volume_id, sizeof(sb->volume_id)) != 0)
			return -EEXIST;
		if (*ret_blkno) /* the same volume's, from before it was made longer */
			continue;
		*ret = *sb;
		*ret_blkno = blkno + n;
	}
	return 1;
}

int slu_spare_find(struct slu_blockio *bio, struct slu_disk_super *ret, uint64_t *ret_blkno)
{
	struct slu_disk_super *buf = slu_alloc_aligned(SLU_BLOCK_SIZE, SPARE_READ * sizeof(*buf));
	uint64_t end = atomic_load(&slu_blockio_info(bio)->nblocks);
	uint64_t least = end > SLU_SPARE_LOOK ? end - SLU_SPARE_LOOK : 0;
	int err = 1;

	if (!buf)
		return -ENOMEM;
	*ret_blkno = 0;
	while (end > least && err == 1) {
		uint32_t n = (uint32_t)slu_min(end - least, SPARE_READ);

		end -= n;
		if (!slu_blockio_read(bio, end, n, buf)) {
			err = spare_look(buf, end, n, ret, ret_blkno);
			continue;
		}
		/* One bad sector does not take the others away. */
		for (uint32_t i = n; i-- && err == 1;)
			if (!slu_blockio_read(bio, end + i, 1, buf))
				err = spare_look(buf, end + i, 1, ret, ret_blkno);
	}
	slu_free(buf);
	return err < 0 ? err : *ret_blkno ? 0 : -ENOENT;
}

int super_write_spare(struct slu_store *store, uint64_t nblocks)
{
	uint64_t blkno = slu_super_spare(&store->super, nblocks);
	struct slu_disk_super *buf;
	int err;

	if (!blkno)
		return 0;
	buf = slu_alloc_aligned(SLU_BLOCK_SIZE, sizeof(*buf));
	if (!buf)
		return -ENOMEM;
	slu_spare_make(&store->super, nblocks, buf);
	err = slu_blockio_write(store->bio, blkno, 1, buf);
	slu_free(buf);
	return err;
}

void super_fill(struct slu_store *store, struct slu_disk_super *sb)
{
	struct space *sp = &store->space;
	struct txn *txn = &store->open;

	*sb = store->super;
	slu_put_le64(&sb->nblocks, sp->nblocks);
	slu_put_le64(&sb->txid, txn->id);
	slu_put_le64(&sb->root_blkno, store->root.number);
	slu_put_le64(&sb->root_txid, store->root.txid);
	slu_put_le64(&sb->next_ino, atomic_load(&store->next_ino));
	slu_put_le64(&sb->data_blocks, stat_get(&sp->data_blocks));
	slu_put_le64(&sb->node_blocks, stat_get(&sp->node_blocks));
	slu_put_le64(&sb->record_bytes, stat_get(&sp->record_bytes));
	slu_put_le64(&sb->ninodes, stat_get(&sp->ninodes));
	slu_put_le64(&sb->commit_time, (uint64_t)slu_clock_realtime().tv_sec);
	slu_put_le32(&sb->state, 0);
	slu_put_le32(&sb->ndeferred, txn->ndeferred);
	memset(sb->deferred, 0, sizeof(sb->deferred));
	for (unsigned int i = 0; i < txn->ndeferred; i++)
		slu_put_le64(&sb->deferred[i], txn->deferred[i]);
}

int super_write(struct slu_store *store, unsigned int slot, const struct slu_disk_super *sb)
{
	struct slu_disk_super *buf = store->super_buf;

	*buf = *sb;
	slu_put_le64(&buf->checksum, super_checksum(buf));
	stat_add(&store->stats.superblock_writes, 1);
	store->dirty_since_open = true;
	return slu_blockio_write(store->bio, slot, 1, buf);
}
