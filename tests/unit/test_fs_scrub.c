/* SPDX-License-Identifier: MIT */
/*
 * Scrubbing a volume in use: a sound one is clean, every kind of damage is found and nothing else is,
 * and what is freed and used again meanwhile is not damage.
 */
#include "fs_rig.h"

#define LONG_NS  (100 * SLU_NS_PER_SEC)
#define NFILES   4000u
#define SLOWLY   (64u << 10) /* bytes a second: 16 nodes */
#define NREPORTS 64u

static _Atomic unsigned int nnodes, nsupers, nstarted, nfinished;
static uint64_t reported[NREPORTS]; /* blocks, in the order of events; the scrub's thread's */
static _Atomic unsigned int nreported;

static void on_event(void *ctx, const struct slu_event *ev)
{
	if (ev->kind == SLU_EVENT_SCRUB_STARTED)
		atomic_fetch_add(&nstarted, 1);
	if (ev->kind == SLU_EVENT_SCRUB_FINISHED)
		atomic_fetch_add(&nfinished, 1);
	if (ev->kind != SLU_EVENT_NODE_CORRUPT && ev->kind != SLU_EVENT_SUPER_CORRUPT)
		return;
	atomic_fetch_add(ev->kind == SLU_EVENT_NODE_CORRUPT ? &nnodes : &nsupers, 1);
	if (atomic_load(&nreported) < NREPORTS)
		reported[atomic_load(&nreported)] = ev->pos;
	atomic_fetch_add(&nreported, 1);
}

static void mount_with(struct rig *r, bool readonly)
{
	struct slu_fs_opts opts = {.readonly = readonly,
				   .cache_size = 24 * MIB,
				   .events = {.post = on_event}};
	const char *why = NULL;

	assert_int_equal(slu_fs_mount(open_disk(r, readonly), &opts, &r->fs, &why), 0);
	atomic_store(&nnodes, 0);
	atomic_store(&nsupers, 0);
	atomic_store(&nstarted, 0);
	atomic_store(&nfinished, 0);
	atomic_store(&nreported, 0);
}

/* A tree of three levels. */
static int setup_tree(void **state)
{
	char name[128];
	struct rig *r;

	setup_rig(state);
	r = *state;
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	mount_with(r, false);
	for (unsigned int i = 0; i < NFILES; i++) {
		snprintf(name, sizeof(name), "a-name-that-takes-some-room-in-a-node-of-the-tree.%u",
			 i);
		make_file(r, name);
	}
	assert_int_equal(slu_fs_sync(r->fs), 0);
	return 0;
}

static void wait_for_end(struct rig *r, struct slu_scrub_state *s)
{
	do {
		slu_sleep_ns(SLU_NS_PER_MS);
		slu_fs_scrub_state(r->fs, s);
	} while (s->running);
}

static void scrub(struct rig *r, struct slu_scrub_state *s)
{
	uint64_t number;

	assert_int_equal(slu_fs_scrub_start(r->fs, 0, &number), 0);
	wait_for_end(r, s);
	assert_int_equal(s->number, number);
	assert_int_equal(s->result, 0);
}

/* ------------------------------------------------------------------ the nodes on disk */

struct on_disk {
	uint64_t leaves[512], inner[32], root;
	unsigned int nleaves, ninner;
};

static int on_node(void *ctx, const struct slu_node_visit *v)
{
	struct on_disk *n = ctx;

	assert_null(v->wrong);
	if (!n->root)
		n->root = v->blkno;
	else if (v->level)
		n->inner[n->ninner++] = v->blkno;
	else
		n->leaves[n->nleaves++] = v->blkno;
	assert_true(n->nleaves < slu_array_size(n->leaves) && n->ninner < slu_array_size(n->inner));
	return 0;
}

/* Unmounts, finds out, and mounts again: the nodes stay where they are. */
static void find_nodes(struct rig *r, struct on_disk *n)
{
	const struct slu_store_opts opts = {.readonly = true};
	struct slu_store *store;
	struct slu_blockio *bio;
	const char *why = NULL;

	*n = (struct on_disk){0};
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	bio = open_disk(r, true);
	assert_int_equal(slu_store_open(bio, &opts, &store, &why), 0);
	assert_int_equal(slu_store_walk(store, on_node, n), 0);
	slu_store_close(store);
	slu_blockio_close(bio);
	mount_with(r, false);
	assert_true(n->nleaves > 20);
}

static void flip(struct rig *r, uint64_t blkno)
{
	static uint8_t block[SLU_BLOCK_SIZE] __attribute__((aligned(4096)));

	slu_simdisk_peek(r->disk, blkno, block);
	block[1234] ^= 0x10;
	slu_simdisk_poke(r->disk, blkno, block);
}

/* ------------------------------------------------------------------ what it finds */

static void a_sound_volume_is_read_whole_and_is_clean(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	uint64_t nodes, damaged;
	struct on_disk n;

	slu_fs_scrub_state(r->fs, &s);
	assert_int_equal(s.number, 0);
	find_nodes(r, &n);
	for (unsigned int i = 1; i <= 3; i++) {
		scrub(r, &s);
		assert_int_equal(s.number, i);
		assert_int_equal(s.damaged, 0);
		assert_int_equal(s.nodes, n.nleaves + n.ninner + 1);
		assert_int_equal(s.total, s.nodes);
		assert_true(s.end.tv_sec >= s.begin.tv_sec);
		slu_fs_scrub_counts(r->fs, &nodes, &damaged);
		assert_int_equal(nodes, i * s.nodes);
		assert_int_equal(damaged, 0);
	}
	assert_int_equal(atomic_load(&nstarted), 3);
	assert_int_equal(atomic_load(&nfinished), 3);
	assert_int_equal(atomic_load(&nreported), 0);
}

static void damaged_leaves_are_found_and_nothing_else_is(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	struct on_disk n;

	find_nodes(r, &n);
	for (unsigned int i = 0; i < NFILES; i++) { /* all are in memory, and sound there */
		char name[128];

		snprintf(name, sizeof(name), "a-name-that-takes-some-room-in-a-node-of-the-tree.%u",
			 i);
		slu_ns_forget(r->fs->ns, find_file(r, name), 1);
	}
	flip(r, n.leaves[0]);
	flip(r, n.leaves[7]);
	flip(r, n.leaves[8]);
	flip(r, n.leaves[n.nleaves - 1]);
	scrub(r, &s);
	assert_int_equal(s.damaged, 4);
	assert_int_equal(s.nodes, n.nleaves + n.ninner + 1);
	assert_int_equal(s.damage[0].blkno, n.leaves[0]);
	assert_int_equal(s.damage[1].blkno, n.leaves[7]);
	assert_int_equal(s.damage[2].blkno, n.leaves[8]);
	assert_int_equal(s.damage[3].blkno, n.leaves[n.nleaves - 1]);
	assert_string_equal(s.damage[0].wrong, "wrong checksum");
	assert_int_equal(atomic_load(&nnodes), 4);
	assert_int_equal(atomic_load(&nsupers), 0);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(reported[i], s.damage[i].blkno);
	/* Commits go on after it. */
	assert_int_equal(slu_fs_probe(r->fs), 0);
	for (unsigned int i = 0; i < 4; i++)
		flip(r, s.damage[i].blkno);
	scrub(r, &s);
	assert_int_equal(s.damaged, 0);
}

static void behind_a_damaged_inner_node_it_goes_on(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	struct on_disk n;

	find_nodes(r, &n);
	assert_true(n.ninner > 1);
	flip(r, n.root);
	scrub(r, &s);
	assert_int_equal(s.damaged, 1);
	assert_int_equal(s.nodes, 1);
	assert_int_equal(s.damage[0].blkno, n.root);
	flip(r, n.root);
	flip(r, n.inner[0]);
	flip(r, n.leaves[n.nleaves - 1]);
	scrub(r, &s);
	assert_int_equal(s.damaged, 2);
	assert_int_equal(s.damage[0].blkno, n.inner[0]);
	assert_int_equal(s.damage[1].blkno, n.leaves[n.nleaves - 1]);
	flip(r, n.inner[0]);
	flip(r, n.leaves[n.nleaves - 1]);
}

static void superblocks_and_the_spare_one_are_looked_at(void **state)
{
	const uint64_t blocks[] = {0, 1, VOLUME_BLOCKS - 1};
	struct rig *r = *state;
	struct slu_scrub_state s;

	for (unsigned int i = 0; i < slu_array_size(blocks); i++) {
		assert_int_equal(slu_fs_sync(r->fs), 0);
		flip(r, blocks[i]);
		scrub(r, &s);
		assert_int_equal(s.damaged, 1);
		assert_int_equal(s.damage[0].blkno, blocks[i]);
		flip(r, blocks[i]);
	}
	assert_int_equal(atomic_load(&nsupers), 3);
	assert_int_equal(atomic_load(&nnodes), 0);
	/* A superblock that was acknowledged and has not reached the disk. */
	const struct slu_simdisk_fault lost = {.op = SLU_IO_WRITE,
					       .nth = 1,
					       .times = 1,
					       .blkno = 0,
					       .nblocks = 2,
					       .kind = SLU_FAULT_LOST};

	slu_simdisk_fault(r->disk, &lost);
	make_file(r, "one more");
	assert_int_equal(slu_store_commit(r->fs->store, slu_store_txid(r->fs->store), true), 0);
	assert_int_equal(slu_simdisk_fault_hits(r->disk), 1);
	slu_simdisk_fault(r->disk, NULL);
	scrub(r, &s);
	assert_int_equal(s.damaged, 1);
	assert_string_equal(s.damage[0].wrong, "is not of the last commit");
}

static void what_cannot_be_read_is_damaged(void **state)
{
	struct slu_simdisk_fault fault = {.op = SLU_IO_READ, .nth = 1, .times = 1, .nblocks = 1};
	struct rig *r = *state;
	struct slu_scrub_state s;
	struct on_disk n;

	find_nodes(r, &n);
	fault.blkno = n.leaves[5];
	slu_simdisk_fault(r->disk, &fault);
	scrub(r, &s); /* once, and not the second time: a passing error */
	assert_int_equal(s.damaged, 0);
	assert_int_equal(slu_simdisk_fault_hits(r->disk), 1);
	fault.times = UINT64_MAX;
	slu_simdisk_fault(r->disk, &fault);
	scrub(r, &s);
	slu_simdisk_fault(r->disk, NULL);
	assert_int_equal(s.damaged, 1);
	assert_int_equal(s.damage[0].blkno, n.leaves[5]);
	assert_string_equal(s.damage[0].wrong, "cannot be read");
}

static void a_readonly_volume_is_scrubbed_too(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	struct on_disk n;

	find_nodes(r, &n);
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	mount_with(r, true);
	flip(r, n.leaves[3]);
	scrub(r, &s);
	assert_int_equal(s.damaged, 1);
	assert_int_equal(s.nodes, n.nleaves + n.ninner + 1);
	flip(r, n.leaves[3]);
}

/* ------------------------------------------------------------------ its life */

static void one_at_a_time_and_cancelled_at_once(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	uint64_t number, other, begin;

	assert_int_equal(slu_fs_scrub_cancel(r->fs, 0), -EINVAL);
	assert_int_equal(slu_fs_scrub_start(r->fs, SLOWLY, &number), 0);
	assert_int_equal(slu_fs_scrub_start(r->fs, 0, &other), -EBUSY);
	slu_sleep_ns(300 * SLU_NS_PER_MS);
	slu_fs_scrub_state(r->fs, &s);
	assert_true(s.running);
	/* 16 a second, and what it may be ahead. */
	assert_in_range(s.nodes, 1, 12);
	assert_int_equal(slu_fs_scrub_cancel(r->fs, number + 1), -EINVAL);
	begin = slu_clock_ns();
	assert_int_equal(slu_fs_scrub_cancel(r->fs, number), 0);
	wait_for_end(r, &s);
	assert_true(slu_clock_ns() - begin < SLU_NS_PER_SEC);
	assert_int_equal(s.result, -ECANCELED);
	assert_int_equal(slu_fs_scrub_cancel(r->fs, 0), -EINVAL);
	scrub(r, &s);
	assert_int_equal(s.damaged, 0);
}

static void it_keeps_to_its_rate(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	uint64_t number, begin = slu_clock_ns(), took;

	assert_int_equal(slu_fs_scrub_start(r->fs, MIB / 2, &number), 0);
	wait_for_end(r, &s);
	took = slu_clock_ns() - begin;
	assert_true(took + 100 * SLU_NS_PER_MS >=
		    s.nodes * SLU_BLOCK_SIZE * SLU_NS_PER_SEC / (MIB / 2));
}

static void an_unmount_ends_it(void **state)
{
	struct rig *r = *state;
	uint64_t number, begin;

	assert_int_equal(slu_fs_scrub_start(r->fs, SLOWLY, &number), 0);
	begin = slu_clock_ns();
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	assert_true(slu_clock_ns() - begin < 5 * SLU_NS_PER_SEC);
	mount_with(r, false);
}

static void a_frozen_volume_is_scrubbed_like_any_other(void **state)
{
	struct rig *r = *state;
	struct slu_scrub_state s;
	uint64_t number, ns;

	assert_int_equal(slu_fs_freeze(r->fs, no_kernel, NULL, LONG_NS), 0);
	scrub(r, &s);
	assert_int_equal(s.damaged, 0);
	/* Where a commit waits for the image, one can only be cancelled. */
	make_file(r, "new");
	slu_store_commit_soon(r->fs->store);
	slu_sleep_ns(100 * SLU_NS_PER_MS);
	assert_int_equal(slu_fs_scrub_start(r->fs, 0, &number), 0);
	slu_sleep_ns(100 * SLU_NS_PER_MS);
	assert_int_equal(slu_fs_scrub_cancel(r->fs, number), 0);
	wait_for_end(r, &s);
	assert_int_equal(s.result, -ECANCELED);
	assert_int_equal(slu_fs_thaw(r->fs, &ns), 0);
	scrub(r, &s);
	assert_int_equal(s.damaged, 0);
}

/* ------------------------------------------------------------------ beside others */

static int hammer_once(struct hammer *h, struct slu_ctx *ctx)
{
	struct slu_ns *ns = h->r->fs->ns;
	struct slu_attr attr;
	char name[128];
	int err;

	/* Here and there in the tree, so that all of it is written anew all the time. */
	snprintf(name, sizeof(name), "a-name-that-takes-some-room-in-a-node-of-the-tree.%u",
		 (h->number + h->rounds * 61) % NFILES);
	err = slu_ns_unlink(ns, ctx, SLU_INO_ROOT, name);
	if (!err)
		err = slu_ns_mknod(ns, ctx, SLU_INO_ROOT, name, S_IFREG | 0644, 0, &attr);
	if (err == -ENOENT || err == -EEXIST) /* the other one is at it */
		return 0;
	if (!err)
		slu_ns_forget(ns, attr.ino, 1);
	if (!err)
		err = slu_store_commit(h->r->fs->store, slu_store_txid(h->r->fs->store), true);
	return err;
}

#if defined(SLU_STRESS_POINTS)
/*
 * Between the look at the root and the reads below it so many commits that they have been through all
 * free blocks. None come where the scrub holds them back.
 */
static void let_commits_by(void *ctx)
{
	struct rig *r = ctx;
	uint64_t now = slu_store_durable_txid(r->fs->store), until = now + 1500, before;

	do {
		before = now;
		slu_sleep_ns(20 * SLU_NS_PER_MS);
		now = slu_store_durable_txid(r->fs->store);
	} while (now != before && now < until);
}
#endif

static void beside_writers(struct rig *r, uint64_t ns)
{
	uint64_t end = slu_clock_ns() + ns;
	_Atomic bool stop = false;
	struct slu_scrub_state s;
	struct hammer h[2];
	unsigned int n = 0;

	for (unsigned int i = 0; i < slu_array_size(h); i++) {
		h[i] = (struct hammer){.r = r, .number = i, .stop = &stop, .once = hammer_once};
		assert_int_equal(slu_thread_start(&h[i].thread, "hammer", hammer_main, &h[i]), 0);
	}
	while (slu_clock_ns() < end) {
		uint64_t number;

		assert_int_equal(slu_fs_scrub_start(r->fs, 0, &number), 0);
		do {
			slu_sleep_ns(SLU_NS_PER_MS);
			slu_fs_scrub_state(r->fs, &s);
		} while (s.running && slu_clock_ns() < end);
		if (s.running)
			assert_int_equal(slu_fs_scrub_cancel(r->fs, number), 0);
		wait_for_end(r, &s);
		assert_int_equal(s.damaged, 0);
		n++;
	}
	atomic_store(&stop, true);
	(void)slu_stress_point_set("store-scrub-root", NULL, NULL);
	for (unsigned int i = 0; i < slu_array_size(h); i++) {
		slu_thread_join(&h[i].thread);
		assert_int_equal(h[i].err, 0);
		assert_true(h[i].rounds > 10);
	}
	assert_true(n > 0);
	scrub(r, &s);
	assert_int_equal(s.damaged, 0);
	assert_int_equal(atomic_load(&nreported), 0);
}

static void what_is_written_meanwhile_is_not_damage(void **state)
{
	beside_writers(*state, 2 * SLU_NS_PER_SEC);
}

static void blocks_used_again_before_they_are_read_are_not_damage(void **state)
{
#if defined(SLU_STRESS_POINTS)
	struct rig *r = *state;

	static uint8_t data[MIB];
	uint64_t ino = make_file(r, "large");

	for (unsigned int i = 0; i < 40; i++)
		write_at(r, ino, i * sizeof(data), data, sizeof(data));
	assert_int_equal(slu_fs_sync(r->fs), 0);
	assert_int_equal(slu_stress_point_set("store-scrub-root", let_commits_by, r), 0);
	beside_writers(r, 10 * SLU_NS_PER_SEC);
	/* It is about these. */
	assert_true(atomic_load(&slu_store_stats(r->fs->store)->scrub_retries) > 0);
#else
	skip();
#endif
}

#define TREE_CASE(fn) cmocka_unit_test_setup_teardown(fn, setup_tree, teardown_rig)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TREE_CASE(a_sound_volume_is_read_whole_and_is_clean),
		TREE_CASE(damaged_leaves_are_found_and_nothing_else_is),
		TREE_CASE(behind_a_damaged_inner_node_it_goes_on),
		TREE_CASE(superblocks_and_the_spare_one_are_looked_at),
		TREE_CASE(what_cannot_be_read_is_damaged),
		TREE_CASE(a_readonly_volume_is_scrubbed_too),
		TREE_CASE(one_at_a_time_and_cancelled_at_once),
		TREE_CASE(it_keeps_to_its_rate),
		TREE_CASE(an_unmount_ends_it),
		TREE_CASE(a_frozen_volume_is_scrubbed_like_any_other),
		TREE_CASE(what_is_written_meanwhile_is_not_damage),
		TREE_CASE(blocks_used_again_before_they_are_read_are_not_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
