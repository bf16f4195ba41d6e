/* SPDX-License-Identifier: MIT */
/*
 * A namespace on a volume on the simulated disk, for the namespace's tests. Nothing is stubbed: the
 * store, the volume and the page cache are the real ones.
 */
#ifndef NAMESPACE_FIXTURE_H
#define NAMESPACE_FIXTURE_H

#include "namespace_private.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cmocka.h>

#define ROOT SLU_INO_ROOT

struct nsfx {
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	struct slu_store *store;
	struct slu_volume vol;
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_ns *ns;
	struct slu_ctx ctx;
	/* how it is mounted */
	bool readonly, relatime, with_writeback;
	unsigned int max_idle;
	uint64_t hash_mask; /* 0: all */
	/* what it was told */
	_Atomic unsigned int nevents, nwanted;
};

/* A formatted and mounted volume of so many blocks. */
void nsfx_init(struct nsfx *fx, uint64_t nblocks);
void nsfx_fini(struct nsfx *fx);
void nsfx_mount(struct nsfx *fx);
int nsfx_try_mount(struct nsfx *fx);
void nsfx_unmount(struct nsfx *fx);
/* Unmount and mount. */
void nsfx_remount(struct nsfx *fx);
/* The power goes: whatever is not committed is lost; then the volume is mounted again. */
void nsfx_crash(struct nsfx *fx);
void nsfx_commit(struct nsfx *fx);
/* Frees all that can be freed. */
void nsfx_reclaim(struct nsfx *fx);
/* Commits until nothing freed is pending any more. */
void nsfx_settle(struct nsfx *fx);
struct slu_space_stat nsfx_space(struct nsfx *fx);
uint64_t nsfx_free_blocks(struct nsfx *fx);
/* Records of an inode of one type (0: all). */
unsigned int nsfx_nrecords(struct nsfx *fx, uint64_t ino, uint8_t type);
/* Puts or deletes one record behind the namespace's back. */
void nsfx_poke(struct nsfx *fx, const struct slu_key *key, const void *value, size_t len);

/*
 * Operations that have to work; they return the inode number. Lookup counts are kept as the kernel
 * would.
 */
uint64_t mk(struct nsfx *fx, uint64_t parent, const char *name, mode_t mode);
uint64_t look(struct nsfx *fx, uint64_t parent, const char *name);
struct slu_attr stat_of(struct nsfx *fx, uint64_t ino);
void forget_all(struct nsfx *fx, uint64_t ino);
/* The error of an operation whose result nobody wants. */
int try_look(struct nsfx *fx, uint64_t parent, const char *name);
int try_mk(struct nsfx *fx, uint64_t parent, const char *name, mode_t mode);
int try_link(struct nsfx *fx, uint64_t ino, uint64_t parent, const char *name);
int rename_(struct nsfx *fx, uint64_t from, const char *name, uint64_t to, const char *newname,
	    unsigned int flags);
#define unlink_(fx, parent, name) slu_ns_unlink((fx)->ns, &(fx)->ctx, parent, name)
#define rmdir_(fx, parent, name)  slu_ns_rmdir((fx)->ns, &(fx)->ctx, parent, name)
/* Gives a file n blocks (unwritten extents) from page pgidx on. */
void give_blocks(struct nsfx *fx, uint64_t ino, uint64_t pgidx, uint64_t n);
/*
 * Walks the whole tree: entries, link counts, sizes and parents agree with each other, and the
 * store has no inode besides those with a name (no orphan may be left). Returns the number of
 * inodes.
 */
uint64_t check_tree(struct nsfx *fx);
/* Until a change of a time shows: the clock of time stamps moves in ticks. */
void next_tick(void);
/* a < b, for times. */
int time_order(struct timespec a, struct timespec b);

#define ok(expr) assert_int_equal(expr, 0)

#endif
