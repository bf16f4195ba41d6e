/* SPDX-License-Identifier: MIT */
/*
 * The volume in a simulation: many orders of the same threads, and power cuts in the middle. Every
 * run is made from a seed; what fails prints it.
 */
#include "volume_fixture.h"

/* Asserts that abort with the seed: these run in tasks, where cmocka cannot catch anything. */
#define run_seeds(fn, nseeds)                                                    \
	do {                                                                     \
		for (uint64_t seed = 1; seed <= (nseeds); seed++) {              \
			struct slu_sim *sim = slu_sim_new(seed);                 \
			assert_non_null(sim);                                    \
			assert_int_equal(slu_sim_run(sim, fn, NULL, stderr), 0); \
			slu_sim_free(sim);                                       \
		}                                                                \
	} while (0)

/* ------------------------------------------------------------------ threads */

static void task_threads(void *arg)
{
	struct volume_fixture *vf = volume_fixture_new(6000);
	struct volume_worker workers[4];

	volume_workers_start(vf, workers, 4, 40);
	for (unsigned int i = 0; i < 4; i++) {
		slu_yield();
		vf->fx.commit(&vf->fx);
	}
	for (unsigned int i = 0; i < 4; i++)
		slu_thread_join(&workers[i].thread);
	vf->fx.check(&vf->fx);
	volume_fixture_free(vf);
}

static void threads_in_any_order_agree(void **state)
{
	run_seeds(task_threads, 60);
}

/* ------------------------------------------------------------------ power cuts */

#define CUT_PAGES 96u
#define CUT_SHOTS 512u

/* What the records say of each page: type and block. */
struct shot {
	uint64_t page[CUT_PAGES];
};

struct cut {
	struct volume_fixture *vf;
	/* Every state of the records since the last commit that has returned, that one first. */
	struct shot shots[CUT_SHOTS];
	unsigned int nshots;
};

static uint64_t below(uint64_t n)
{
	return slu_random() % n;
}

static void shot_extent(void *ctx, const struct slu_iomap *m)
{
	struct shot *shot = ctx;

	for (uint64_t i = 0; i < m->len / PG && m->type != SLU_IOMAP_DELALLOC; i++) {
		slu_assert(m->pos / PG + i < CUT_PAGES);
		shot->page[m->pos / PG + i] = (m->blkno + i) << 2 | m->type;
	}
}

static struct shot *take_shot(struct cut *c)
{
	struct shot *shot = &c->shots[c->nshots];

	slu_assert(c->nshots < CUT_SHOTS);
	memset(shot, 0, sizeof(*shot));
	volume_each_extent(&c->vf->inode, shot_extent, shot);
	return shot;
}

static void cut_write(struct cut *c, uint64_t first, uint64_t n)
{
	struct slu_iomap_inode *inode = c->vf->fx.inode;
	struct slu_iomap m;
	int err;

	dirty_pages(inode, first, n);
	if (below(4) == 0)
		return;
	err = try_map(inode, first * PG, n * PG, &m);
	if (!err && m.type == SLU_IOMAP_DELALLOC)
		err = try_allocate(inode, &m, m.len);
	slu_assert(!err);
	err = inode->ops->complete(inode, &m, below(5) ? 0 : -EIO, m.pos + m.len);
	slu_assert(!err);
}

static void cut_step(struct cut *c)
{
	struct volume_fixture *vf = c->vf;
	uint64_t first = below(CUT_PAGES), n = 1 + below(slu_min(10, CUT_PAGES - first));
	uint64_t pos = first * PG, what = below(100);
	int err = 0;

	if (what < 50)
		cut_write(c, first, n);
	else if (what < 70)
		err = try_remove(vf->fx.inode, first * PG, n * PG, SLU_DISK_SIZE_KEEP);
	else if (what < 80)
		err = slu_volume_prealloc(&vf->inode, &pos, (first + n) * PG, SLU_DISK_SIZE_KEEP,
					  NULL);
	else if (what < 90)
		err = slu_volume_zero_range(&vf->inode, &pos, (first + n) * PG, SLU_DISK_SIZE_KEEP,
					    NULL);
	else if (what < 95)
		slu_store_commit_soon(vf->store);
	/* Each of them is one batch: the pages are few. */
	slu_assert(err == 0);
	take_shot(c);
	c->nshots++;
	if (what >= 97) {
		vf->fx.commit(&vf->fx);
		c->shots[0] = c->shots[c->nshots - 1];
		c->nshots = 1;
	}
}

/* What is found is what was true at some moment since the last commit. */
static void cut_check(struct cut *c)
{
	const struct shot *found = take_shot(c);
	unsigned int i = 0;

	while (i < c->nshots && memcmp(&c->shots[i], found, sizeof(*found)))
		i++;
	slu_assert(i < c->nshots);
	c->vf->fx.check(&c->vf->fx);
	c->shots[0] = *found;
	c->nshots = 1;
}

static void task_power_cuts(void *arg)
{
	struct cut *c = calloc(1, sizeof(*c));

	c->vf = volume_fixture_new(6000);
	take_shot(c);
	c->nshots = 1;
	for (unsigned int round = 0; round < 4; round++) {
		for (uint64_t n = 20 + below(200); n; n--)
			cut_step(c);
		volume_fixture_crash(c->vf, 2 + slu_random() / 2);
		cut_check(c);
	}
	volume_fixture_free(c->vf);
	free(c);
}

static void power_cuts_leave_a_state_that_once_was(void **state)
{
	run_seeds(task_power_cuts, 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_in_any_order_agree),
		cmocka_unit_test(power_cuts_leave_a_state_that_once_was),
	};

	return cmocka_run_group_tests_name("volume, simulated", tests, NULL, NULL);
}
