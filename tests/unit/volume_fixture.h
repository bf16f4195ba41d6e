/* SPDX-License-Identifier: MIT */
/*
 * A volume on the simulated disk with two inodes, as a fixture of the conformance suite and of the
 * volume's own tests.
 */
#ifndef VOLUME_FIXTURE_H
#define VOLUME_FIXTURE_H

#include "sluice/volume.h"
#include "volume_conformance.h"

#define FIXTURE_INO 17u
#define FILLER_INO  18u

struct volume_fixture {
	struct fixture fx;
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	struct slu_store *store;
	struct slu_volume vol;
	struct slu_volume_inode inode, filler;
	/* What the sink was told. */
	_Atomic unsigned int nevents;
	struct slu_event last_event;
};

static inline struct volume_fixture *volume_fixture(struct fixture *fx)
{
	return slu_container_of(fx, struct volume_fixture, fx);
}

/* Calls fn for each extent and delalloc range in order. */
void volume_each_extent(struct slu_volume_inode *vi,
			void (*fn)(void *ctx, const struct slu_iomap *m), void *ctx);

/* A formatted and opened volume of so many blocks. */
struct volume_fixture *volume_fixture_new(uint64_t nblocks);
/*
 * As after a power cut: throws the mount away, whatever it had in memory, and opens what is on the
 * disk; the records say what the owners know.
 */
void volume_fixture_crash(struct volume_fixture *vf, uint64_t seed);
/* Removes what the inodes have, checks that nothing is left behind, closes all. */
void volume_fixture_free(struct volume_fixture *vf);
/* Closes what there is and opens it again; the node cache is cold after. */
void volume_fixture_remount(struct volume_fixture *vf);
/* Commits until no freed block is pending any more. */
void volume_fixture_settle(struct volume_fixture *vf);
/* Puts an extent record as it stands, whatever it says. len: bytes of the value. */
void volume_fixture_put_extent(struct volume_fixture *vf, uint64_t ino, uint64_t off,
			       uint64_t blkno, uint32_t nblocks, uint32_t flags, size_t len);
void volume_fixture_del_extent(struct volume_fixture *vf, uint64_t ino, uint64_t off);
/* Extent records of an inode. */
unsigned int volume_fixture_nextents(struct volume_fixture *vf, uint64_t ino);

/*
 * Threads that write, fail to write and punch, each its own pages of a file: the last one the
 * filler's, the others all of the same inode. Started here, joined by the caller.
 */
struct volume_worker {
	struct slu_volume_inode *vi;
	uint64_t first; /* pages [first, first + 64) are its own */
	uint64_t random;
	unsigned int rounds;
	struct slu_thread thread;
};
void volume_workers_start(struct volume_fixture *vf, struct volume_worker *workers, unsigned int n,
			  unsigned int rounds);

#endif
