/* SPDX-License-Identifier: MIT */
/*
 * One suite for every iomap backend: each row of the contract in sluice/iomap.h as a case, and a
 * random walk against a plain array of page states. A backend's test file makes a fixture in its
 * setup and lists CONFORMANCE_TESTS.
 */
#ifndef VOLUME_CONFORMANCE_H
#define VOLUME_CONFORMANCE_H

#include "sluice/iomap.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PG SLU_BLOCK_SIZE

/* What an owner is told; the suite checks it against the blocks that it can see. */
struct fixture_record {
	int64_t blocks;
	uint64_t disk_size;
	uint64_t txid;
	unsigned int ndone;
};

struct fixture {
	/* Two empty inodes with `fixture_owner`; the second is for using space up. */
	struct slu_iomap_inode *inode, *filler;
	struct fixture_record record, filler_record;
	/*
	 * The most blocks that allocate can be made to find in one run; 0 undoes it. NULL: cannot.
	 */
	void (*set_max_run)(struct fixture *fx, uint64_t nblocks);
	/* Makes holes of `inode` UNWRITTEN. */
	int (*unwritten)(struct fixture *fx, uint64_t pgidx, uint64_t npages);
	/* MAPPED becomes UNWRITTEN, DELALLOC becomes HOLE. NULL: cannot. */
	int (*zero_range)(struct fixture *fx, uint64_t pgidx, uint64_t npages);
	/* Blocks that are neither used nor reserved, by the backend's own count. */
	uint64_t (*free_blocks)(struct fixture *fx);
	/* Blocks reserved and not taken. */
	uint64_t (*reserved_blocks)(struct fixture *fx);
	/* Adds the owner's record to a batch. NULL: the backend has no records. */
	void (*put_record)(struct fixture *fx, struct slu_iomap_inode *inode,
			   struct slu_batch *batch, int64_t blocks, uint64_t disk_size);
	/* For the random walk; NULL: there is nothing to do. remount may replace the inodes. */
	void (*commit)(struct fixture *fx);
	void (*remount)(struct fixture *fx);
	/* Checks that no block is owned twice, and whatever else the backend knows. */
	void (*check)(struct fixture *fx);
	void *private;
};

extern const struct slu_iomap_owner fixture_owner;
/* The fixture that fixture_owner's callbacks are for. */
extern struct fixture *fixture_current;

/* The verbs, with every -EAGAIN waited for. */
int try_map(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, struct slu_iomap *ret);
int try_reserve(struct slu_iomap_inode *inode, struct slu_iomap *m);
int try_allocate(struct slu_iomap_inode *inode, struct slu_iomap *m, uint64_t copied);
int try_remove(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, uint64_t disk_size);
/* The same until remove says that it is done; asserts success. */
void remove_all(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, uint64_t disk_size);
/* Maps, reserves what is a hole, page range; asserts success. */
void dirty_pages(struct slu_iomap_inode *inode, uint64_t pgidx, uint64_t npages);
/* Allocates and completes what is DELALLOC or UNWRITTEN in the range; asserts success. */
void write_back(struct slu_iomap_inode *inode, uint64_t pgidx, uint64_t npages, uint64_t disk_size);
enum slu_iomap_type page_type(struct slu_iomap_inode *inode, uint64_t pgidx, uint64_t *blkno);
void assert_pages(struct slu_iomap_inode *inode, uint64_t pgidx, const char *types);

void conform_map_of_an_empty_file_is_one_hole(void **state);
void conform_map_is_of_one_type_and_never_longer_than_asked(void **state);
void conform_reserve_turns_a_hole_into_delalloc(void **state);
void conform_reserve_on_other_types_sets_nothing_aside(void **state);
void conform_reserve_is_whole_or_nothing(void **state);
void conform_unreserve_keeps_the_block_the_copy_ends_in(void **state);
void conform_unreserve_leaves_the_pages_of_others(void **state);
void conform_allocate_gives_blocks_for_the_copied_part(void **state);
void conform_allocate_splits_where_free_space_is_split(void **state);
void conform_small_files_in_a_row_lie_in_a_row(void **state);
void conform_complete_makes_it_mapped_and_tells_the_owner(void **state);
void conform_complete_with_an_error_is_delalloc_again(void **state);
void conform_complete_never_moves_the_size_back(void **state);
void conform_complete_splits_unwritten_three_ways(void **state);
void conform_failed_write_into_unwritten_leaves_it(void **state);
void conform_remove_at_every_edge(void **state);
void conform_remove_of_many_pieces_is_bounded(void **state);
void conform_remove_reaches_the_end_of_everything(void **state);
void conform_full_volume_can_write_what_it_reserved(void **state);
void conform_random_walk_agrees_with_a_model(void **state);

#define CONFORM(name, setup, teardown) \
	cmocka_unit_test_setup_teardown(conform_##name, setup, teardown)
#define CONFORMANCE_TESTS(s, t)                                                \
	CONFORM(map_of_an_empty_file_is_one_hole, s, t),                       \
		CONFORM(map_is_of_one_type_and_never_longer_than_asked, s, t), \
		CONFORM(reserve_turns_a_hole_into_delalloc, s, t),             \
		CONFORM(reserve_on_other_types_sets_nothing_aside, s, t),      \
		CONFORM(reserve_is_whole_or_nothing, s, t),                    \
		CONFORM(unreserve_keeps_the_block_the_copy_ends_in, s, t),     \
		CONFORM(unreserve_leaves_the_pages_of_others, s, t),           \
		CONFORM(allocate_gives_blocks_for_the_copied_part, s, t),      \
		CONFORM(allocate_splits_where_free_space_is_split, s, t),      \
		CONFORM(small_files_in_a_row_lie_in_a_row, s, t),              \
		CONFORM(complete_makes_it_mapped_and_tells_the_owner, s, t),   \
		CONFORM(complete_with_an_error_is_delalloc_again, s, t),       \
		CONFORM(complete_never_moves_the_size_back, s, t),             \
		CONFORM(complete_splits_unwritten_three_ways, s, t),           \
		CONFORM(failed_write_into_unwritten_leaves_it, s, t),          \
		CONFORM(remove_at_every_edge, s, t),                           \
		CONFORM(remove_of_many_pieces_is_bounded, s, t),               \
		CONFORM(remove_reaches_the_end_of_everything, s, t),           \
		CONFORM(full_volume_can_write_what_it_reserved, s, t),         \
		CONFORM(random_walk_agrees_with_a_model, s, t)

#endif
