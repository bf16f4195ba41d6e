/* SPDX-License-Identifier: MIT */
/*
 * What the volume does beyond the contract that all backends share: how extents join and split,
 * where blocks come to lie, fallocate and seek, and what happens when nodes are not in memory,
 * memory is short, the disk fails, or the records make no sense.
 */
#include "volume_fixture.h"

static int setup(void **state)
{
	*state = volume_fixture_new(6000);
	return 0;
}

static int setup_big(void **state)
{
	*state = volume_fixture_new(3u << 20); /* 12 GiB */
	return 0;
}

static int teardown(void **state)
{
	volume_fixture_free(*state);
	return 0;
}

static uint64_t free_blocks(struct volume_fixture *vf)
{
	return vf->fx.free_blocks(&vf->fx);
}

/* ------------------------------------------------------------------ extents join and split */

static void appended_runs_become_one_record(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap m;

	for (uint64_t i = 0; i < 100; i++) {
		dirty_pages(vf->fx.inode, i, 1);
		write_back(vf->fx.inode, i, 1, (i + 1) * PG);
	}
	assert_int_equal(volume_fixture_nextents(vf, FIXTURE_INO), 1);
	assert_int_equal(try_map(vf->fx.inode, 0, 200 * PG, &m), 0);
	assert_int_equal(m.type, SLU_IOMAP_MAPPED);
	assert_int_equal(m.len, 100 * PG);
}

/* Two runs in flight, completed in the wrong order: the one that comes last joins both sides. */
static void a_run_joins_both_neighbours(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode = vf->fx.inode;
	struct slu_iomap m[3];

	dirty_pages(inode, 0, 9);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(try_map(inode, 3 * i * PG, 3 * PG, &m[i]), 0);
		assert_int_equal(try_allocate(inode, &m[i], 3 * PG), 0);
		assert_int_equal(m[i].blkno, m[0].blkno + 3 * i);
	}
	assert_int_equal(inode->ops->complete(inode, &m[0], 0, 9 * PG), 0);
	assert_int_equal(inode->ops->complete(inode, &m[2], 0, 9 * PG), 0);
	assert_int_equal(volume_fixture_nextents(vf, FIXTURE_INO), 2);
	assert_pages(inode, 0, "MMMDDDMMMH");
	assert_int_equal(inode->ops->complete(inode, &m[1], 0, 9 * PG), 0);
	assert_int_equal(volume_fixture_nextents(vf, FIXTURE_INO), 1);
	assert_pages(inode, 0, "MMMMMMMMMH");
}

static void extents_stay_within_their_greatest_length(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t npages = SLU_EXTENT_MAX + 5000, before = free_blocks(vf), calls = 1;
	unsigned int n;

	assert_int_equal(vf->fx.unwritten(&vf->fx, 10, npages), 0);
	n = volume_fixture_nextents(vf, FIXTURE_INO);
	assert_in_range(n, 2, 400);
	vf->fx.check(&vf->fx);
	volume_fixture_remount(vf);
	vf->fx.check(&vf->fx);
	/* What one call frees is bounded by blocks too. */
	while (try_remove(vf->fx.inode, 0, UINT64_MAX, 0) == 1)
		calls++;
	assert_true(calls > 1);
	assert_int_equal(vf->fx.record.blocks, 0);
	volume_fixture_settle(vf);
	assert_int_equal(free_blocks(vf), before);
}

static void appending_after_a_remount_goes_on_where_the_file_ends(void **state)
{
	struct volume_fixture *vf = *state;

	dirty_pages(vf->fx.inode, 0, 7);
	write_back(vf->fx.inode, 0, 7, 7 * PG);
	volume_fixture_remount(vf);
	dirty_pages(vf->fx.inode, 7, 3);
	write_back(vf->fx.inode, 7, 3, 10 * PG);
	assert_int_equal(volume_fixture_nextents(vf, FIXTURE_INO), 1);
}

static void everything_is_there_after_a_remount(void **state)
{
	struct volume_fixture *vf = *state;

	assert_int_equal(vf->fx.unwritten(&vf->fx, 2, 6), 0);
	write_back(vf->fx.inode, 4, 2, 8 * PG);
	dirty_pages(vf->fx.inode, 9, 2);
	write_back(vf->fx.inode, 9, 2, 11 * PG);
	assert_pages(vf->fx.inode, 0, "HHUUMMUUHMMH");
	volume_fixture_remount(vf);
	assert_pages(vf->fx.inode, 0, "HHUUMMUUHMMH");
	vf->fx.check(&vf->fx);
}

/* ------------------------------------------------------------------ prealloc, zero_range */

static void prealloc_fills_holes_and_nothing_else(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t pos = 0, before[2], after[2];
	unsigned int calls = 0;
	int err;

	dirty_pages(vf->fx.inode, 2, 2);
	write_back(vf->fx.inode, 2, 2, 4 * PG);
	dirty_pages(vf->fx.inode, 6, 1);
	dirty_pages(vf->fx.inode, 9, 2);
	page_type(vf->fx.inode, 2, &before[0]);
	page_type(vf->fx.inode, 3, &before[1]);
	do {
		err = slu_volume_prealloc(&vf->inode, &pos, 12 * PG, 12 * PG, NULL);
		calls++;
	} while (err == 1);
	assert_int_equal(err, 0);
	assert_int_equal(calls, 1);
	assert_int_equal(pos, 12 * PG);
	assert_pages(vf->fx.inode, 0, "UUMMUUDUUDDUH");
	page_type(vf->fx.inode, 2, &after[0]);
	page_type(vf->fx.inode, 3, &after[1]);
	assert_memory_equal(before, after, sizeof(before));
	assert_int_equal(vf->fx.record.blocks, 9);
	assert_int_equal(vf->fx.record.disk_size, 12 * PG);
	/* Again: nothing to do. */
	pos = 0;
	assert_int_equal(slu_volume_prealloc(&vf->inode, &pos, 12 * PG, SLU_DISK_SIZE_KEEP, NULL),
			 0);
	assert_int_equal(vf->fx.record.blocks, 9);
	vf->fx.check(&vf->fx);
}

static void prealloc_is_bounded_and_goes_on_where_it_was(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t pos = 0, last = 0;
	unsigned int calls = 0;
	int err;

	/* Many holes: a page every other page. */
	for (uint64_t i = 0; i < 100; i++)
		dirty_pages(vf->fx.inode, 2 * i, 1);
	write_back(vf->fx.inode, 0, 200, 200 * PG);
	do {
		err = slu_volume_prealloc(&vf->inode, &pos, 200 * PG, SLU_DISK_SIZE_KEEP, NULL);
		assert_true(err >= 0);
		assert_true(pos > last);
		last = pos;
		calls++;
	} while (err == 1);
	assert_int_equal(pos, 200 * PG);
	assert_in_range(calls, 2, 100);
	for (uint64_t i = 0; i < 100; i++)
		assert_pages(vf->fx.inode, 2 * i, "MU");
	assert_int_equal(vf->fx.record.blocks, 200);
	assert_int_equal(vf->fx.record.disk_size, 200 * PG);
}

static void prealloc_without_space_leaves_nothing_behind(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t pos = 0, before = free_blocks(vf);

	assert_int_equal(slu_volume_prealloc(&vf->inode, &pos, 7000 * PG, 7000 * PG, NULL),
			 -ENOSPC);
	assert_int_equal(pos, 0);
	assert_int_equal(free_blocks(vf), before);
	assert_int_equal(vf->fx.record.ndone, 0);
	assert_int_equal(volume_fixture_nextents(vf, FIXTURE_INO), 0);
	/* And half of it fits. */
	assert_int_equal(slu_volume_prealloc(&vf->inode, &pos, 3000 * PG, 3000 * PG, NULL), 0);
}

static void zero_range_at_every_edge(void **state)
{
	static const char pages[] = "HMMUMMDMMH";
	struct volume_fixture *vf = *state;
	uint64_t n = sizeof(pages) - 1;

	for (uint64_t first = 0; first < n; first++)
		for (uint64_t end = first + 1; end <= n; end++) {
			char left[sizeof(pages)];
			uint64_t pos = first * PG, blocks[16], blkno;

			dirty_pages(vf->fx.inode, 1, 2);
			write_back(vf->fx.inode, 1, 2, 9 * PG);
			assert_int_equal(vf->fx.unwritten(&vf->fx, 3, 1), 0);
			dirty_pages(vf->fx.inode, 4, 2);
			write_back(vf->fx.inode, 4, 2, 9 * PG);
			dirty_pages(vf->fx.inode, 7, 2);
			write_back(vf->fx.inode, 7, 2, 9 * PG);
			dirty_pages(vf->fx.inode, 6, 1);
			assert_pages(vf->fx.inode, 0, pages);
			for (uint64_t i = 0; i < n; i++)
				page_type(vf->fx.inode, i, &blocks[i]);

			memcpy(left, pages, sizeof(pages));
			for (uint64_t i = first; i < end; i++)
				left[i] = left[i] == 'M' ? 'U' : left[i] == 'D' ? 'H' : left[i];
			assert_int_equal(slu_volume_zero_range(&vf->inode, &pos, end * PG,
							       SLU_DISK_SIZE_KEEP, NULL),
					 0);
			assert_int_equal(pos, end * PG);
			assert_pages(vf->fx.inode, 0, left);
			for (uint64_t i = 0; i < n; i++) {
				page_type(vf->fx.inode, i, &blkno);
				assert_int_equal(blkno, blocks[i]);
			}
			assert_int_equal(vf->fx.record.blocks, 7);
			assert_int_equal(vf->fx.record.disk_size, 9 * PG);
			/* The page that it was for has been dropped. */
			assert_int_equal(vf->inode.reservation.blocks, left[6] == 'D');
			remove_all(vf->fx.inode, 0, UINT64_MAX, 0);
		}
}

static void zero_range_of_many_extents_is_bounded(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t pos = 0;
	unsigned int calls = 0;
	int err;

	for (uint64_t i = 0; i < 100; i++)
		dirty_pages(vf->fx.inode, 2 * i, 1);
	write_back(vf->fx.inode, 0, 200, 200 * PG);
	do {
		err = slu_volume_zero_range(&vf->inode, &pos, 200 * PG, SLU_DISK_SIZE_KEEP, NULL);
		calls++;
	} while (err == 1);
	assert_int_equal(err, 0);
	assert_in_range(calls, 2, 100);
	for (uint64_t i = 0; i < 100; i++)
		assert_pages(vf->fx.inode, 2 * i, "UH");
}

/* Punch leaves the size to a completion that comes between. */
static void remove_with_the_size_kept_keeps_the_newest(void **state)
{
	struct volume_fixture *vf = *state;

	dirty_pages(vf->fx.inode, 0, 4);
	write_back(vf->fx.inode, 0, 4, 4 * PG);
	remove_all(vf->fx.inode, PG, PG, SLU_DISK_SIZE_KEEP);
	assert_int_equal(vf->fx.record.disk_size, 4 * PG);
	assert_pages(vf->fx.inode, 0, "MHMMH");
}

/* Owners that know less, and none at all. */
static void owners_may_do_without_some_of_it(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_owner owner = fixture_owner;
	unsigned int ndone;

	owner.disk_size = NULL;
	vf->fx.inode->owner = &owner;
	dirty_pages(vf->fx.inode, 0, 4);
	write_back(vf->fx.inode, 0, 4, 4 * PG);
	ndone = vf->fx.record.ndone;
	/* It cannot say what is recorded, so each completion is, as it was given. */
	write_back(vf->fx.inode, 0, 2, 2 * PG);
	assert_int_equal(vf->fx.record.ndone, ndone + 1);
	assert_int_equal(vf->fx.record.disk_size, 2 * PG);
	remove_all(vf->fx.inode, 3 * PG, PG, SLU_DISK_SIZE_KEEP);
	assert_int_equal(vf->fx.record.disk_size, SLU_DISK_SIZE_KEEP);
	vf->fx.inode->owner = &fixture_owner;

	ndone = vf->fx.record.ndone;
	vf->fx.filler->owner = NULL;
	dirty_pages(vf->fx.filler, 0, 2);
	write_back(vf->fx.filler, 0, 2, 2 * PG);
	write_back(vf->fx.filler, 0, 2, 3 * PG);
	assert_pages(vf->fx.filler, 0, "MMH");
	remove_all(vf->fx.filler, 0, UINT64_MAX, 0);
	vf->fx.filler->owner = &fixture_owner;
	assert_int_equal(vf->fx.record.ndone, ndone);
	assert_int_equal(vf->fx.filler_record.ndone, 0);
	remove_all(vf->fx.inode, 0, UINT64_MAX, 0);
}

static void giving_back_many_reservations_is_bounded(void **state)
{
	struct volume_fixture *vf = *state;
	unsigned int calls = 1;
	uint64_t pos = 0;
	int err;

	for (uint64_t i = 0; i < 700; i++)
		dirty_pages(vf->fx.inode, 2 * i, 1);
	while ((err = try_remove(vf->fx.inode, 0, UINT64_MAX, SLU_DISK_SIZE_KEEP)) == 1)
		calls++;
	assert_int_equal(err, 0);
	assert_in_range(calls, 2, 100);
	assert_int_equal(vf->inode.reservation.blocks, 0);

	for (uint64_t i = 0; i < 700; i++)
		dirty_pages(vf->fx.inode, 2 * i, 1);
	for (calls = 1; (err = slu_volume_zero_range(&vf->inode, &pos, 1400 * PG,
						     SLU_DISK_SIZE_KEEP, NULL)) == 1;)
		calls++;
	assert_int_equal(err, 0);
	assert_in_range(calls, 2, 100);
	assert_int_equal(vf->inode.reservation.blocks, 0);
	assert_int_equal(vf->fx.record.ndone, 0);
}

static void prealloc_of_scattered_space_is_bounded_too(void **state)
{
	struct volume_fixture *vf = *state;
	unsigned int calls = 1;
	uint64_t pos = 0;
	int err;

	vf->fx.set_max_run(&vf->fx, 1);
	while ((err = slu_volume_prealloc(&vf->inode, &pos, 100 * PG, SLU_DISK_SIZE_KEEP, NULL)) ==
	       1)
		calls++;
	assert_int_equal(err, 0);
	assert_in_range(calls, 3, 100);
	assert_true(volume_fixture_nextents(vf, FIXTURE_INO) >= 50);
	assert_int_equal(vf->fx.record.blocks, 100);
	assert_int_equal(vf->inode.reservation.blocks, 0);
	vf->fx.check(&vf->fx);
}

/* Completed in place below the size on disk, there is nothing to record. */
static void overwriting_in_place_records_nothing(void **state)
{
	struct volume_fixture *vf = *state;
	unsigned int ndone;

	dirty_pages(vf->fx.inode, 0, 4);
	write_back(vf->fx.inode, 0, 4, 4 * PG);
	ndone = vf->fx.record.ndone;
	write_back(vf->fx.inode, 0, 4, 4 * PG);
	write_back(vf->fx.inode, 0, 2, 2 * PG);
	assert_int_equal(vf->fx.record.ndone, ndone);
	assert_int_equal(vf->fx.record.disk_size, 4 * PG);
	assert_int_equal(atomic_load(&vf->vol.stats.completes_in_place), 2);
}

/* ------------------------------------------------------------------ seek, extents */

static void assert_seek(struct volume_fixture *vf, uint64_t pos, uint64_t size, bool data,
			const struct slu_ranges *dirty, uint64_t want)
{
	uint64_t found = 0;

	assert_int_equal(slu_volume_seek(&vf->inode, pos, size, data, dirty, &found), 0);
	assert_int_equal(found, want);
}

static void seek_finds_data_and_holes(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t size = 12 * PG + 100, found;

	dirty_pages(vf->fx.inode, 2, 2);
	write_back(vf->fx.inode, 2, 2, size);
	assert_int_equal(vf->fx.unwritten(&vf->fx, 4, 3), 0);
	dirty_pages(vf->fx.inode, 9, 1);
	assert_pages(vf->fx.inode, 0, "HHMMUUUHHDHHHH");

	assert_seek(vf, 0, size, true, NULL, 2 * PG);
	assert_seek(vf, 2 * PG + 7, size, true, NULL, 2 * PG + 7);
	assert_seek(vf, 2 * PG + 7, size, false, NULL, 4 * PG);
	assert_seek(vf, 5, size, false, NULL, 5);
	assert_seek(vf, 4 * PG, size, true, NULL, 9 * PG);
	assert_seek(vf, 9 * PG, size, false, NULL, 10 * PG);
	assert_int_equal(slu_volume_seek(&vf->inode, 10 * PG, size, true, NULL, &found), -ENXIO);
	assert_seek(vf, 12 * PG + 99, size, false, NULL, 12 * PG + 99);
	assert_int_equal(slu_volume_seek(&vf->inode, size, size, false, NULL, &found), -ENXIO);
	assert_int_equal(slu_volume_seek(&vf->inode, size, size, true, NULL, &found), -ENXIO);
	/* Data to the very end: the hole is the end. */
	assert_seek(vf, 3 * PG, 3 * PG + 50, false, NULL, 3 * PG + 50);
}

static void seek_takes_dirty_pages_over_unwritten_for_data(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_range_pool pool;
	struct slu_ranges dirty;

	assert_int_equal(slu_range_pool_init(&pool, 4, 0), 0);
	slu_ranges_init(&dirty, &pool, true);
	assert_int_equal(slu_ranges_set(&dirty, 3, 5, 0), 0);
	assert_int_equal(vf->fx.unwritten(&vf->fx, 1, 8), 0);
	assert_seek(vf, 0, 20 * PG, true, &dirty, 3 * PG);
	assert_seek(vf, 3 * PG, 20 * PG, false, &dirty, 5 * PG);
	assert_seek(vf, PG, 20 * PG, false, &dirty, PG);
	slu_ranges_fini(&dirty);
	slu_range_pool_fini(&pool);
}

/* The next extents, at most `max`, as text. */
static void assert_extents(struct volume_fixture *vf, uint64_t *pos, unsigned int max,
			   const char *want)
{
	struct slu_iomap maps[8];
	char text[64] = "";
	int n = slu_volume_extents(&vf->inode, pos, maps, max);

	assert_true(n >= 0 && n <= (int)max);
	for (int i = 0; i < n; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%c%u+%u ",
			 "HDUM"[maps[i].type], (unsigned int)(maps[i].pos / PG),
			 (unsigned int)(maps[i].len / PG));
	assert_string_equal(text, want);
}

static void extents_are_listed_in_order(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t pos = 0;

	dirty_pages(vf->fx.inode, 2, 2);
	write_back(vf->fx.inode, 2, 2, 4 * PG);
	assert_int_equal(vf->fx.unwritten(&vf->fx, 4, 3), 0);
	dirty_pages(vf->fx.inode, 9, 1);
	assert_extents(vf, &pos, 8, "M2+2 U4+3 D9+1 ");
	assert_extents(vf, &pos, 8, "");
	pos = 0;
	assert_extents(vf, &pos, 2, "M2+2 U4+3 ");
	assert_int_equal(pos, 7 * PG);
	assert_extents(vf, &pos, 2, "D9+1 ");
	assert_extents(vf, &pos, 2, "");
	pos = 3 * PG;
	assert_extents(vf, &pos, 1, "M3+1 ");
}

/* ----------------------------------------------------------------- nodes that are not in memory */

/* Enough records that the tree has several levels and none of it is in memory after a remount. */
static void make_deep(struct volume_fixture *vf)
{
	for (uint64_t i = 0; i < 1200; i++)
		dirty_pages(vf->fx.inode, 2 * i, 1);
	write_back(vf->fx.inode, 0, 2400, 2400 * PG);
	volume_fixture_remount(vf);
}

/*
 * The verb says -EAGAIN at least once, changes nothing then, and works when what it needs is there.
 */
#define assert_again_then(call, want)                                        \
	do {                                                                 \
		struct slu_need need;                                        \
		unsigned int rounds = 0;                                     \
		int err;                                                     \
		while ((err = (call)) == -EAGAIN) {                          \
			assert_int_equal(vf->inode.delalloc.weight, weight); \
			assert_int_equal(free_blocks(vf), free);             \
			assert_int_equal(vf->fx.record.blocks, blocks);      \
			assert_int_equal(slu_need_wait(&need), 0);           \
			assert_true(++rounds < 50);                          \
		}                                                            \
		assert_int_equal(err, want);                                 \
		assert_true(rounds > 0);                                     \
	} while (0)

static void no_verb_waits_for_a_node_under_a_lock(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode;
	uint64_t weight = 0, free, blocks = 1200, pos;
	struct slu_rwlock outer;
	struct slu_iomap m;

	make_deep(vf);
	free = free_blocks(vf);
	inode = vf->fx.inode;
	assert_again_then(inode->ops->map(inode, 1000 * PG, 4 * PG, &m, &need), 0);
	assert_int_equal(m.type, SLU_IOMAP_MAPPED);

	volume_fixture_remount(vf);
	assert_again_then(inode->ops->remove(inode, 500 * PG, 3 * PG, SLU_DISK_SIZE_KEEP, &need),
			  0);
	assert_pages(inode, 499, "HHHHHM");

	blocks = vf->fx.record.blocks;
	volume_fixture_remount(vf);
	free = free_blocks(vf);
	pos = 800 * PG;
	assert_again_then(slu_volume_zero_range(&vf->inode, &pos, 803 * PG, SLU_DISK_SIZE_KEEP,
						&need),
			  0);
	assert_pages(inode, 799, "HUHUHM");

	volume_fixture_remount(vf);
	pos = 900 * PG;
	assert_again_then(slu_volume_prealloc(&vf->inode, &pos, 903 * PG, SLU_DISK_SIZE_KEEP,
					      &need),
			  0);
	assert_pages(inode, 899, "HMUMHM");

	/* allocate: for the goal of a file that was just opened, or a chunk of the bitmap. */
	volume_fixture_remount(vf);
	m = (struct slu_iomap){.pos = 1001 * PG, .len = PG, .type = SLU_IOMAP_HOLE};
	assert_int_equal(try_reserve(inode, &m), 0);
	weight = 1;
	blocks = vf->fx.record.blocks;
	free = free_blocks(vf);
	assert_again_then(inode->ops->allocate(inode, &m, PG, &need), 0);
	assert_int_equal(inode->ops->complete(inode, &m, -EIO, 0), 0);

	/* And with a need, under a lock, nothing asserts: the callers hold the inode's. */
	slu_rwlock_init(&outer, SLU_RANK_INODE, FIXTURE_INO, "inode");
	slu_rwlock_wrlock(&outer);
	for (uint64_t i = 0; i < 5; i++) {
		struct slu_need need;
		int err = inode->ops->map(inode, (100 + 500 * i) * PG, PG, &m, &need);

		if (err == -EAGAIN) {
			slu_rwlock_wrunlock(&outer);
			assert_int_equal(slu_need_wait(&need), 0);
			slu_rwlock_wrlock(&outer);
		}
	}
	slu_rwlock_wrunlock(&outer);
	slu_rwlock_fini(&outer);
	vf->fx.check(&vf->fx);
}

static void complete_reads_the_nodes_it_needs(void **state)
{
	struct volume_fixture *vf = *state;

	make_deep(vf);
	assert_int_equal(vf->fx.unwritten(&vf->fx, 1501, 1), 0);
	volume_fixture_remount(vf);
	write_back(vf->fx.inode, 1500, 3, 2400 * PG);
	assert_pages(vf->fx.inode, 1500, "MMM");
	volume_fixture_remount(vf);
	dirty_pages(vf->fx.inode, 701, 1);
	write_back(vf->fx.inode, 701, 1, 2400 * PG);
	assert_pages(vf->fx.inode, 700, "MMM");
	vf->fx.check(&vf->fx);
}

/* ------------------------------------------------------------------ the disk fails */

static void fail_reads(struct volume_fixture *vf, bool on)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_READ,
					  .nth = 1,
					  .times = UINT64_MAX,
					  .kind = SLU_FAULT_ERROR,
					  .error = -EIO};

	slu_simdisk_fault(vf->disk, on ? &fault : NULL);
}

static void nodes_that_cannot_be_read_are_an_error_and_nothing_else(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode;
	struct slu_iomap m, written;
	uint64_t pos = 1300 * PG, free, found;
	int64_t blocks;

	make_deep(vf);
	inode = vf->fx.inode;
	assert_int_equal(vf->fx.unwritten(&vf->fx, 2001, 1), 0);
	assert_int_equal(try_map(inode, 2001 * PG, PG, &written), 0);
	volume_fixture_remount(vf);
	free = free_blocks(vf);
	blocks = vf->fx.record.blocks;
	/* The first leaf and the last have been read with the records of the inodes. */
	fail_reads(vf, true);
	assert_int_equal(try_map(inode, 700 * PG, PG, &m), -EIO);
	assert_int_equal(try_remove(inode, 1000 * PG, 8 * PG, 0), -EIO);
	assert_int_equal(slu_volume_zero_range(&vf->inode, &pos, 1310 * PG, 0, NULL), -EIO);
	assert_int_equal(slu_volume_prealloc(&vf->inode, &pos, 1310 * PG, 0, NULL), -EIO);
	assert_int_equal(pos, 1300 * PG);
	assert_int_equal(slu_volume_seek(&vf->inode, 1600 * PG, 2400 * PG, true, NULL, &found),
			 -EIO);
	assert_int_equal(inode->ops->complete(inode, &written, 0, 2400 * PG), -EIO);
	fail_reads(vf, false);
	assert_int_equal(free_blocks(vf), free);
	assert_int_equal(vf->fx.record.blocks, blocks);
	volume_fixture_remount(vf);
	vf->fx.check(&vf->fx);
	assert_pages(inode, 2000, "MUM");
}

/* Whether the fault has hit, so that a later one may; some are healed by the store asking again. */
static bool fault_hit(uint64_t nth)
{
	bool hit = slu_alloc_count() >= nth;

	slu_alloc_fail_nth(0);
	return hit;
}

static void failing_to_record_gives_the_blocks_back(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode;
	unsigned int nfailed = 0;
	bool hit = true;

	make_deep(vf);
	inode = vf->fx.inode;
	for (uint64_t nth = 1; hit; nth++) {
		struct slu_iomap m;
		uint64_t free;
		int err;

		volume_fixture_remount(vf);
		dirty_pages(inode, 1001, 1);
		assert_int_equal(try_map(inode, 1001 * PG, PG, &m), 0);
		assert_int_equal(try_allocate(inode, &m, PG), 0);
		free = free_blocks(vf);
		slu_alloc_fail_nth(nth);
		err = inode->ops->complete(inode, &m, 0, 2400 * PG);
		hit = fault_hit(nth);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_int_equal(vf->inode.reservation.blocks, 1);
			assert_int_equal(vf->inode.reservation.records, 1);
			assert_int_equal(vf->fx.record.blocks, 1200);
			assert_int_equal(free_blocks(vf), free);
			assert_pages(inode, 1000, "MDM");
			nfailed++;
		} else {
			assert_pages(inode, 1000, "MMM");
			assert_int_equal(vf->fx.record.blocks, 1201);
		}
		remove_all(inode, 1001 * PG, PG, SLU_DISK_SIZE_KEEP);
	}
	assert_true(nfailed > 1);
}

static void failing_to_reserve_sets_nothing_aside(void **state)
{
	struct volume_fixture *vf = *state;
	unsigned int nfailed = 0;
	bool hit = true;

	for (uint64_t nth = 1; hit; nth++) {
		struct slu_iomap m = {.len = 1000 * PG};
		uint64_t free;
		int err;

		volume_fixture_remount(vf);
		free = free_blocks(vf);
		slu_alloc_fail_nth(nth);
		err = try_reserve(vf->fx.inode, &m);
		hit = fault_hit(nth);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_int_equal(m.type, SLU_IOMAP_HOLE);
			assert_int_equal(free_blocks(vf), free);
			assert_int_equal(atomic_load(&vf->vol.ndelalloc), 0);
			nfailed++;
		}
		remove_all(vf->fx.inode, 0, UINT64_MAX, SLU_DISK_SIZE_KEEP);
	}
	/* A node for each block, in slabs: after them nothing else can fail for want of one. */
	assert_true(nfailed >= 1000 / 256);
}

static void failing_to_remove_changes_nothing(void **state)
{
	struct volume_fixture *vf = *state;
	unsigned int nfailed = 0;
	bool hit = true;

	make_deep(vf);
	for (uint64_t nth = 1; hit; nth++) {
		int64_t blocks;
		int err;

		dirty_pages(vf->fx.inode, 1101, 9);
		write_back(vf->fx.inode, 1101, 9, 2400 * PG);
		blocks = vf->fx.record.blocks;
		volume_fixture_remount(vf);
		slu_alloc_fail_nth(nth);
		err = try_remove(vf->fx.inode, 1103 * PG, 3 * PG, SLU_DISK_SIZE_KEEP);
		hit = fault_hit(nth);
		assert_int_equal(vf->fx.record.blocks, err ? blocks : blocks - 3);
		assert_pages(vf->fx.inode, 1100, err ? "MMMMMMM" : "MMMHHHM");
		if (err)
			assert_int_equal(err, -ENOMEM);
		nfailed += err != 0;
	}
	assert_true(nfailed > 1);
	vf->fx.check(&vf->fx);
}

static void failing_to_preallocate_leaves_nothing_behind(void **state)
{
	struct volume_fixture *vf = *state;
	unsigned int nfailed = 0;
	bool hit = true;

	make_deep(vf);
	for (uint64_t nth = 1; hit; nth++) {
		uint64_t pos = 1101 * PG, free;
		int64_t blocks = vf->fx.record.blocks;
		int err;

		volume_fixture_remount(vf);
		free = free_blocks(vf);
		slu_alloc_fail_nth(nth);
		err = slu_volume_prealloc(&vf->inode, &pos, 1110 * PG, SLU_DISK_SIZE_KEEP, NULL);
		hit = fault_hit(nth);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_int_equal(free_blocks(vf), free);
			assert_int_equal(pos, 1101 * PG);
			assert_pages(vf->fx.inode, 1100, "MHMHMHMHMHM");
			nfailed++;
		} else {
			assert_pages(vf->fx.inode, 1100, "MUMUMUMUMUM");
		}
		for (uint64_t i = 1101; i < 1110; i += 2)
			remove_all(vf->fx.inode, i * PG, PG, SLU_DISK_SIZE_KEEP);
		assert_int_equal(vf->fx.record.blocks, blocks);
	}
	assert_true(nfailed > 1);
	vf->fx.check(&vf->fx);
}

static void a_volume_that_cannot_be_written_lets_go_of_its_reservations(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode = vf->fx.inode;
	struct slu_iomap m;

	dirty_pages(inode, 0, 2);
	write_back(inode, 0, 2, 2 * PG);
	vf->fx.commit(&vf->fx);
	dirty_pages(inode, 4, 4);
	assert_int_equal(try_map(inode, 4 * PG, 2 * PG, &m), 0);
	assert_int_equal(try_allocate(inode, &m, 2 * PG), 0);
	slu_store_fail(vf->store, -EIO, "a test says so");

	assert_int_equal(inode->ops->complete(inode, &m, 0, 6 * PG), -EROFS);
	assert_pages(inode, 0, "MMHHDDDDH");
	assert_int_equal(vf->inode.reservation.blocks, 4);
	m = (struct slu_iomap){.pos = 20 * PG, .len = PG};
	assert_int_equal(try_reserve(inode, &m), -EROFS);
	/* Dropped pages need no record. */
	assert_int_equal(try_remove(inode, 7 * PG, PG, SLU_DISK_SIZE_KEEP), 0);
	assert_pages(inode, 0, "MMHHDDDHH");
	assert_int_equal(try_remove(inode, 0, 6 * PG, SLU_DISK_SIZE_KEEP), -EROFS);
	assert_pages(inode, 0, "MMHHHHDHH");
	inode->ops->forget(inode);
	assert_int_equal(vf->inode.reservation.blocks, 0);
	assert_int_equal(vf->inode.reservation.records, 0);
	assert_pages(inode, 0, "MMHHHHHHH");

	slu_volume_inode_fini(&vf->inode);
	slu_volume_inode_fini(&vf->filler);
	slu_volume_fini(&vf->vol);
	assert_int_not_equal(slu_store_close(vf->store), 0);
	slu_blockio_close(vf->bio);
	slu_simdisk_free(vf->disk);
	free(vf);
}

/* ------------------------------------------------------------------ a full volume */

/* Reserves all there is for the filler, down to the last page; returns how many. */
static uint64_t fill_up(struct volume_fixture *vf)
{
	uint64_t pgidx = 0, npages = SLU_IOMAP_MAX_PAGES;
	struct slu_iomap m;

	while (npages) {
		assert_int_equal(try_map(vf->fx.filler, pgidx * PG, npages * PG, &m), 0);
		if (try_reserve(vf->fx.filler, &m))
			npages /= 2;
		else
			pgidx += npages;
	}
	return pgidx;
}

static void writing_into_fallocated_space_works_on_a_full_volume(void **state)
{
	struct volume_fixture *vf = *state;
	uint64_t filled;

	assert_int_equal(vf->fx.unwritten(&vf->fx, 0, 600), 0);
	filled = fill_up(vf);
	write_back(vf->fx.filler, 0, filled, filled * PG);
	/* Each splits an extent and adds two records. */
	for (uint64_t i = 1; i < 600; i += 2)
		write_back(vf->fx.inode, i, 1, 600 * PG);
	assert_int_equal(volume_fixture_nextents(vf, FIXTURE_INO), 600);
	vf->fx.commit(&vf->fx);
	vf->fx.check(&vf->fx);
	/* And everything can be deleted. */
	remove_all(vf->fx.inode, 0, UINT64_MAX, 0);
	remove_all(vf->fx.filler, 0, UINT64_MAX, 0);
	vf->fx.commit(&vf->fx);
}

static void reserve_asks_for_a_commit_when_blocks_are_on_their_way_back(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode = vf->fx.inode;
	struct slu_iomap m = {.pos = 0, .len = 1000 * PG};
	uint64_t filled = fill_up(vf);
	struct slu_need need;
	unsigned int rounds = 0;
	int err;

	write_back(vf->fx.filler, 0, filled, filled * PG);
	vf->fx.commit(&vf->fx);
	remove_all(vf->fx.filler, 0, UINT64_MAX, 0);
	while ((err = inode->ops->reserve(inode, &m, &need)) == -EAGAIN) {
		assert_true(need.slow);
		assert_int_equal(m.type, SLU_IOMAP_HOLE);
		assert_int_equal(vf->inode.reservation.blocks, 0);
		assert_int_equal(atomic_load(&vf->vol.ndelalloc), 0);
		assert_int_equal(slu_need_wait(&need), 0);
		assert_true(++rounds < 10);
	}
	assert_int_equal(err, 0);
	assert_true(rounds > 0);
	/* The blocks are there when they are taken. */
	write_back(inode, 0, 1000, 1000 * PG);
}

/* ------------------------------------------------------------------ records that make no sense */

static void records_that_make_no_sense_are_errors(void **state)
{
	struct volume_fixture *vf = *state;
	static const struct {
		uint64_t off, blkno;
		uint32_t nblocks, flags;
		size_t len;
	} bad[] = {
		{10, 3000, 0, 0, 16},                  /* empty */
		{10, 3000, SLU_EXTENT_MAX + 1, 0, 16}, /* too long */
		{10, 3000, 4, 8, 16},                  /* unknown flag */
		{10, 1, 4, 0, 16},                     /* a superblock */
		{10, 5999, 2, 0, 16},                  /* beyond the volume */
		{10, 1ull << 60, 2, 0, 16},            /* far beyond */
		{10, UINT64_MAX, 2, 0, 16},            /* wraps */
		{10, 3000, 4, 0, 15},                  /* short */
		{10, 3000, 4, 0, 17},                  /* long */
		{10, 3000, 4, 0, 0},                   /* nothing */
	};
	struct slu_iomap_inode *inode = vf->fx.inode;
	struct slu_iomap m, before;
	uint64_t pos, found;

	assert_int_equal(vf->fx.unwritten(&vf->fx, 20, 1), 0);
	for (size_t i = 0; i < slu_array_size(bad); i++) {
		unsigned int nevents = atomic_load(&vf->nevents);

		/* A write is under way next to it when it turns bad. */
		dirty_pages(inode, 9, 1);
		assert_int_equal(try_map(inode, 9 * PG, PG, &before), 0);
		assert_int_equal(try_allocate(inode, &before, PG), 0);
		volume_fixture_put_extent(vf, FIXTURE_INO, bad[i].off, bad[i].blkno, bad[i].nblocks,
					  bad[i].flags, bad[i].len);

		assert_int_equal(try_map(inode, 8 * PG, 2 * PG, &m), 0);
		assert_int_equal(try_map(inode, 10 * PG, PG, &m), -EIO);
		assert_int_equal(try_map(inode, 12 * PG, PG, &m), -EIO);
		assert_int_equal(inode->ops->complete(inode, &before, 0, 10 * PG), -EIO);
		assert_int_equal(vf->inode.reservation.blocks, 1);
		assert_int_equal(vf->fx.record.blocks, 1);
		assert_int_equal(try_remove(inode, 0, UINT64_MAX, 0), -EIO);
		assert_int_equal(vf->inode.reservation.blocks, 0);
		pos = 0;
		assert_int_equal(slu_volume_zero_range(&vf->inode, &pos, 15 * PG, 0, NULL), -EIO);
		pos = 0;
		assert_int_equal(slu_volume_prealloc(&vf->inode, &pos, 15 * PG, 0, NULL), -EIO);
		assert_int_equal(slu_volume_seek(&vf->inode, 0, 15 * PG, false, NULL, &found),
				 -EIO);
		assert_true(atomic_load(&vf->nevents) > nevents);
		assert_int_equal(vf->last_event.kind, SLU_EVENT_NODE_CORRUPT);
		assert_int_equal(vf->last_event.ino, FIXTURE_INO);

		volume_fixture_del_extent(vf, FIXTURE_INO, bad[i].off);
		assert_pages(inode, 8, "HHHHHH");
	}
	assert_pages(inode, 19, "HUH");
}

static void overlapping_records_are_errors(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode = vf->fx.inode;
	uint64_t pos = 0, found;
	struct slu_iomap m;

	volume_fixture_put_extent(vf, FIXTURE_INO, 8, 5000, 4, 0, 16);
	volume_fixture_put_extent(vf, FIXTURE_INO, 10, 5100, 1, 0, 16);
	assert_int_equal(try_map(inode, 8 * PG, 4 * PG, &m), -EIO);
	assert_int_equal(try_remove(inode, 0, UINT64_MAX, 0), -EIO);
	assert_int_equal(slu_volume_zero_range(&vf->inode, &pos, 15 * PG, 0, NULL), -EIO);
	assert_int_equal(slu_volume_prealloc(&vf->inode, &pos, 15 * PG, 0, NULL), -EIO);
	assert_int_equal(slu_volume_seek(&vf->inode, 0, 15 * PG, true, NULL, &found), -EIO);
	assert_true(atomic_load(&vf->nevents) >= 5);
	volume_fixture_del_extent(vf, FIXTURE_INO, 8);
	volume_fixture_del_extent(vf, FIXTURE_INO, 10);

	/* Beyond the last block that a position can name. */
	volume_fixture_put_extent(vf, FIXTURE_INO, (1ull << 52) - 1, 5000, 4, 0, 16);
	assert_int_equal(try_remove(inode, 0, UINT64_MAX, 0), -EIO);
	volume_fixture_del_extent(vf, FIXTURE_INO, (1ull << 52) - 1);

	/* The record appears while blocks for the same place are being written. */
	dirty_pages(inode, 9, 2);
	assert_int_equal(try_map(inode, 9 * PG, 2 * PG, &m), 0);
	assert_int_equal(try_allocate(inode, &m, 2 * PG), 0);
	volume_fixture_put_extent(vf, FIXTURE_INO, 10, 5100, 1, 0, 16);
	assert_int_equal(inode->ops->complete(inode, &m, 0, 11 * PG), -EIO);
	assert_int_equal(vf->inode.reservation.blocks, 2);
	volume_fixture_del_extent(vf, FIXTURE_INO, 10);
	write_back(inode, 9, 2, 11 * PG);
	assert_pages(inode, 8, "HMMH");
}

/* An unwritten extent that is another one when the write into it has ended. */
static void an_extent_that_changes_under_a_write_is_an_error(void **state)
{
	struct volume_fixture *vf = *state;
	struct slu_iomap_inode *inode = vf->fx.inode;
	struct slu_iomap m;

	assert_int_equal(vf->fx.unwritten(&vf->fx, 0, 4), 0);
	assert_int_equal(try_map(inode, PG, 2 * PG, &m), 0);
	volume_fixture_put_extent(vf, FIXTURE_INO, 0, m.blkno + 10, 4, SLU_EXTENT_UNWRITTEN, 16);
	assert_int_equal(inode->ops->complete(inode, &m, 0, 4 * PG), -EIO);
	volume_fixture_put_extent(vf, FIXTURE_INO, 0, m.blkno - 1, 2, SLU_EXTENT_UNWRITTEN, 16);
	assert_int_equal(inode->ops->complete(inode, &m, 0, 4 * PG), -EIO);
	volume_fixture_put_extent(vf, FIXTURE_INO, 0, m.blkno - 1, 4, SLU_EXTENT_UNWRITTEN, 16);
	assert_int_equal(inode->ops->complete(inode, &m, 0, 4 * PG), 0);
	assert_pages(inode, 0, "UMMUH");
}

/* ------------------------------------------------------------------ several threads */

static void threads_share_a_file_and_a_volume(void **state)
{
	struct volume_fixture *vf = *state;
	struct volume_worker workers[4];

	volume_workers_start(vf, workers, 4, 150);
	for (unsigned int i = 0; i < 20; i++) {
		vf->fx.commit(&vf->fx);
		slu_sleep_ns(SLU_NS_PER_MS);
	}
	for (unsigned int i = 0; i < 4; i++)
		slu_thread_join(&workers[i].thread);
	vf->fx.check(&vf->fx);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(appended_runs_become_one_record),
		CASE(a_run_joins_both_neighbours),
		cmocka_unit_test_setup_teardown(extents_stay_within_their_greatest_length,
						setup_big, teardown),
		CASE(appending_after_a_remount_goes_on_where_the_file_ends),
		CASE(everything_is_there_after_a_remount),
		CASE(prealloc_fills_holes_and_nothing_else),
		CASE(prealloc_is_bounded_and_goes_on_where_it_was),
		CASE(prealloc_without_space_leaves_nothing_behind),
		CASE(zero_range_at_every_edge),
		CASE(zero_range_of_many_extents_is_bounded),
		CASE(remove_with_the_size_kept_keeps_the_newest),
		CASE(overwriting_in_place_records_nothing),
		CASE(owners_may_do_without_some_of_it),
		CASE(giving_back_many_reservations_is_bounded),
		CASE(prealloc_of_scattered_space_is_bounded_too),
		CASE(seek_finds_data_and_holes),
		CASE(seek_takes_dirty_pages_over_unwritten_for_data),
		CASE(extents_are_listed_in_order),
		CASE(no_verb_waits_for_a_node_under_a_lock),
		CASE(complete_reads_the_nodes_it_needs),
		CASE(nodes_that_cannot_be_read_are_an_error_and_nothing_else),
		CASE(failing_to_record_gives_the_blocks_back),
		CASE(failing_to_reserve_sets_nothing_aside),
		CASE(failing_to_remove_changes_nothing),
		CASE(failing_to_preallocate_leaves_nothing_behind),
		cmocka_unit_test_setup(a_volume_that_cannot_be_written_lets_go_of_its_reservations,
				       setup),
		CASE(writing_into_fallocated_space_works_on_a_full_volume),
		CASE(reserve_asks_for_a_commit_when_blocks_are_on_their_way_back),
		CASE(records_that_make_no_sense_are_errors),
		CASE(overlapping_records_are_errors),
		CASE(an_extent_that_changes_under_a_write_is_an_error),
		CASE(threads_share_a_file_and_a_volume),
	};

	return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
