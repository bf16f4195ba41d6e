/* SPDX-License-Identifier: MIT */
#include "sluice/mem_backend.h"
#include "volume_conformance.h"

#define NBLOCKS 5000u

struct mem_fixture {
	struct fixture fx;
	struct slu_mem_backend mem;
	struct slu_mem_inode *inode, *filler;
};

static struct mem_fixture *mem_fixture(struct fixture *fx)
{
	return slu_container_of(fx, struct mem_fixture, fx);
}

static void fx_set_max_run(struct fixture *fx, uint64_t nblocks)
{
	mem_fixture(fx)->mem.max_run = nblocks;
}

static int fx_unwritten(struct fixture *fx, uint64_t pgidx, uint64_t npages)
{
	int err = slu_mem_inode_set(mem_fixture(fx)->inode, pgidx, npages, SLU_IOMAP_UNWRITTEN);

	if (!err)
		fx->record.blocks += (int64_t)npages;
	return err;
}

static uint64_t fx_free(struct fixture *fx)
{
	const struct slu_mem_backend *mem = &mem_fixture(fx)->mem;

	return mem->total - mem->used - mem->reserved;
}

static uint64_t fx_reserved(struct fixture *fx)
{
	return mem_fixture(fx)->mem.reserved;
}

static void fx_check(struct fixture *fx)
{
	static uint8_t seen[NBLOCKS + 1];
	struct mem_fixture *mf = mem_fixture(fx);
	uint64_t n = 0, blkno;

	memset(seen, 0, sizeof(seen));
	for (uint64_t i = 0; i < 1024; i++) {
		slu_mem_inode_type(mf->inode, i, &blkno);
		if (!blkno)
			continue;
		assert_in_range(blkno, 1, NBLOCKS);
		assert_false(seen[blkno]);
		seen[blkno] = 1;
		n++;
	}
	assert_int_equal(n, mf->mem.used);
}

static int setup(void **state)
{
	struct mem_fixture *mf = calloc(1, sizeof(*mf));

	slu_mem_backend_init(&mf->mem, NBLOCKS);
	assert_int_equal(slu_mem_inode_new(&mf->mem, 17, &mf->inode), 0);
	assert_int_equal(slu_mem_inode_new(&mf->mem, 18, &mf->filler), 0);
	mf->fx = (struct fixture){
		.inode = slu_mem_inode_iomap(mf->inode),
		.filler = slu_mem_inode_iomap(mf->filler),
		.set_max_run = fx_set_max_run,
		.unwritten = fx_unwritten,
		.free_blocks = fx_free,
		.reserved_blocks = fx_reserved,
		.check = fx_check,
	};
	mf->fx.inode->owner = mf->fx.filler->owner = &fixture_owner;
	fixture_current = &mf->fx;
	*state = &mf->fx;
	return 0;
}

static int teardown(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);

	slu_mem_inode_free(mf->inode);
	slu_mem_inode_free(mf->filler);
	slu_mem_backend_fini(&mf->mem);
	free(mf);
	return 0;
}

/* Every verb once put off at each page: the suite's loops must get through all the same. */
static int setup_again_once(void **state)
{
	setup(state);
	mem_fixture(*state)->mem.again_once = true;
	return 0;
}

/* ------------------------------------------------------------------ faults on demand */

static void nth_call_of_each_verb_fails_once(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	struct slu_iomap_inode *inode = mf->fx.inode;
	struct slu_iomap m;

	mf->mem.fail_map_nth = 2;
	assert_int_equal(try_map(inode, 0, 4 * PG, &m), 0);
	assert_int_equal(try_map(inode, 0, 4 * PG, &m), -EIO);
	assert_int_equal(try_map(inode, 0, 4 * PG, &m), 0);

	mf->mem.fail_reserve_nth = 1;
	assert_int_equal(try_reserve(inode, &m), -ENOSPC);
	assert_pages(inode, 0, "HHHH");
	assert_int_equal(mf->mem.reserved, 0);
	mf->mem.error = -ENOMEM;
	mf->mem.fail_reserve_nth = 1;
	assert_int_equal(try_reserve(inode, &m), -ENOMEM);
	mf->mem.error = 0;
	assert_int_equal(try_reserve(inode, &m), 0);

	mf->mem.fail_allocate_nth = 1;
	assert_int_equal(try_allocate(inode, &m, 4 * PG), -EIO);
	assert_int_equal(mf->mem.reserved, 4);
	assert_int_equal(try_allocate(inode, &m, 4 * PG), 0);

	mf->mem.fail_complete_nth = 1;
	assert_int_equal(inode->ops->complete(inode, &m, 0, 4 * PG), -EIO);
	assert_pages(inode, 0, "DDDD");
	assert_int_equal(mf->mem.reserved, 4);
	assert_int_equal(mf->mem.used, 0);
	assert_int_equal(slu_mem_inode_disk_size(mf->inode), 0);
	write_back(inode, 0, 4, 4 * PG);
	assert_pages(inode, 0, "MMMM");
	assert_int_equal(slu_mem_inode_disk_size(mf->inode), 4 * PG);
}

static void reserve_limit_makes_the_nth_page_the_first_that_does_not_fit(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	struct slu_iomap m;

	for (uint64_t n = 0; n <= 32; n++) {
		mf->mem.reserve_limit_page = n;
		assert_int_equal(try_map(mf->fx.inode, 0, 32 * PG, &m), 0);
		assert_int_equal(try_reserve(mf->fx.inode, &m), n == 32 ? 0 : -ENOSPC);
		if (n == 32)
			break;
		assert_int_equal(mf->mem.reserved, 0);
		if (n) {
			m.len = n * PG;
			assert_int_equal(try_reserve(mf->fx.inode, &m), 0);
			mf->fx.inode->ops->unreserve(mf->fx.inode, &m, m.len);
		}
	}
	remove_all(mf->fx.inode, 0, UINT64_MAX, 0);
}

static void again_once_is_asked_once_a_page_and_verb(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	struct slu_iomap_inode *inode = mf->fx.inode;
	struct slu_need need;
	struct slu_iomap m;

	mf->mem.again_once = true;
	for (uint64_t page = 0; page < 3; page++) {
		assert_int_equal(inode->ops->map(inode, page * PG, PG, &m, &need), -EAGAIN);
		assert_int_equal(slu_need_wait(&need), 0);
		assert_int_equal(inode->ops->map(inode, page * PG, PG, &m, &need), 0);
		assert_int_equal(inode->ops->reserve(inode, &m, &need), -EAGAIN);
		assert_pages(inode, page, "H");
		assert_int_equal(inode->ops->reserve(inode, &m, &need), 0);
		assert_int_equal(inode->ops->allocate(inode, &m, PG, &need), -EAGAIN);
		assert_int_equal(inode->ops->allocate(inode, &m, PG, &need), 0);
		assert_int_equal(inode->ops->complete(inode, &m, 0, 0), 0);
	}
	/* No need given: it may wait, so there is nothing to be asked again for. */
	assert_int_equal(inode->ops->map(inode, 77 * PG, PG, &m, NULL), 0);
	assert_int_equal(inode->ops->remove(inode, 0, UINT64_MAX, 0, &need), -EAGAIN);
	assert_int_equal(mf->fx.record.blocks, 3);
	assert_int_equal(inode->ops->remove(inode, 0, UINT64_MAX, 0, &need), 0);
}

static void max_map_cuts_mappings(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	struct slu_iomap m;

	mf->mem.max_map = 2;
	assert_int_equal(try_map(mf->fx.inode, 10, 30 * PG, &m), 0);
	assert_int_equal(m.len, 2 * PG - 10);
}

static void delay_is_taken_on_the_clock(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	uint64_t start = slu_clock_ns();

	mf->mem.delay_ns = 2 * SLU_NS_PER_MS;
	dirty_pages(mf->fx.inode, 0, 1);
	write_back(mf->fx.inode, 0, 1, PG);
	assert_true(slu_clock_ns() - start >= 4 * SLU_NS_PER_MS);
}

/* Every allocation fails once: -ENOMEM from reserve or map, and nothing has changed. */
static void failing_allocation_leaves_nothing_behind(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	struct slu_iomap m;
	uint64_t nth;
	int err;

	for (nth = 1;; nth++) {
		assert_int_equal(try_map(mf->fx.inode, nth * 100000 * PG, 600 * PG, &m), 0);
		slu_alloc_fail_nth(nth);
		err = try_reserve(mf->fx.inode, &m);
		slu_alloc_fail_nth(0);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(mf->mem.reserved, 0);
		assert_int_equal(m.type, SLU_IOMAP_HOLE);
		assert_int_equal(page_type(mf->fx.inode, nth * 100000, NULL), SLU_IOMAP_HOLE);
	}
	assert_true(nth > 2);
	write_back(mf->fx.inode, nth * 100000, 600, 0);
	remove_all(mf->fx.inode, 0, UINT64_MAX, 0);
}

static void freed_blocks_are_used_again_when_the_counter_has_run_out(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);

	for (unsigned int round = 0; round < 7; round++) {
		for (uint64_t page = 0; page < 1000; page++) {
			dirty_pages(mf->fx.inode, page, 1);
			write_back(mf->fx.inode, page, 1, 0);
		}
		fx_check(&mf->fx);
		remove_all(mf->fx.inode, 0, UINT64_MAX, 0);
	}
	assert_int_equal(mf->mem.used, 0);
}

/* Failed writes give numbers back while the counter moves on: the bits must keep up. */
static void failing_writes_for_ever_never_run_out(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);
	struct slu_iomap_inode *inode = mf->fx.inode;

	dirty_pages(inode, 0, 900);
	for (unsigned int round = 0; round < 50; round++) {
		struct slu_iomap m[2];

		assert_int_equal(try_map(inode, 0, 900 * PG, &m[0]), 0);
		assert_int_equal(try_allocate(inode, &m[0], m[0].len), 0);
		assert_int_equal(inode->ops->complete(inode, &m[0], -EIO, 0), 0);
		assert_int_equal(mf->mem.reserved, 900);
	}
	write_back(inode, 0, 900, 0);
	fx_check(&mf->fx);
	remove_all(inode, 0, UINT64_MAX, 0);
}

static void forgetting_gives_back_reservations_and_keeps_blocks(void **state)
{
	struct mem_fixture *mf = mem_fixture(*state);

	dirty_pages(mf->fx.inode, 0, 2);
	write_back(mf->fx.inode, 0, 2, 2 * PG);
	dirty_pages(mf->fx.inode, 1, 4);
	assert_pages(mf->fx.inode, 0, "MMDDDH");
	slu_mem_inode_forget(mf->inode);
	assert_pages(mf->fx.inode, 0, "MMHHHH");
	assert_int_equal(mf->mem.reserved, 0);
	assert_int_equal(mf->mem.used, 2);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS(setup, teardown),
		CASE(nth_call_of_each_verb_fails_once),
		CASE(reserve_limit_makes_the_nth_page_the_first_that_does_not_fit),
		CASE(again_once_is_asked_once_a_page_and_verb),
		CASE(max_map_cuts_mappings),
		CASE(delay_is_taken_on_the_clock),
		CASE(failing_allocation_leaves_nothing_behind),
		CASE(freed_blocks_are_used_again_when_the_counter_has_run_out),
		CASE(failing_writes_for_ever_never_run_out),
		CASE(forgetting_gives_back_reservations_and_keeps_blocks),
	};
	const struct CMUnitTest tests_again[] = {
		CONFORMANCE_TESTS(setup_again_once, teardown),
	};
	int failed = cmocka_run_group_tests_name("memory", tests, NULL, NULL);

	return failed + cmocka_run_group_tests_name("memory, again once", tests_again, NULL, NULL);
}
