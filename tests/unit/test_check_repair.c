/* SPDX-License-Identifier: MIT */
/*
 * Repair: whatever single block is lost, everything that is not in it comes back; stale nodes do not;
 * and it can be interrupted at any write. That each kind of damage on its own is mended is shown by
 * test_check_damage.c.
 */
#include "check_fixture.h"
#include <stdio.h>
#include <sys/stat.h>

#define END        SLU_PROBLEM_NKINDS
#define INODES_MAX 8192
#define SPARE      (FIXTURE_BLOCKS - 1) /* block of the spare superblock */
#define NO_BLOCK   UINT64_MAX

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_new(f);
	*state = f;
	return 0;
}

/* A tree of three levels. */
static int setup_deep(void **state)
{
	struct fixture *f;
	uint64_t dir;

	setup(state);
	f = *state;
	fixture_open(f);
	dir = slu_store_new_ino(f->store);
	fixture_fill(f, dir, 3200);
	fixture_close(f);
	/* The directory itself has no record so far: a first repair, and a tree of its making. */
	fixture_expect_repaired(f);
	assert_int_equal(f->result.depth, 3);
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	free(*state);
	return 0;
}

/* ------------------------------------------------------------------ what a volume holds */

struct record {
	struct slu_key key;
	uint64_t blkno; /* of the leaf */
	size_t len;
	uint8_t value[SLU_VALUE_MAX];
};

struct contents {
	struct record *records;
	size_t n, cap;
	uint64_t *nodes; /* every block of the tree */
	size_t nnodes;
};

static int contents_visit(void *ctx, const struct slu_node_visit *v)
{
	const struct slu_disk_leaf_slot *slots = (const struct slu_disk_leaf_slot *)v->node->body;
	struct contents *c = ctx;

	assert_null(v->wrong);
	c->nodes = realloc(c->nodes, (c->nnodes + 1) * sizeof(*c->nodes));
	c->nodes[c->nnodes++] = v->blkno;
	for (unsigned int i = 0; !v->level && i < slu_get_le16(&v->node->count); i++) {
		struct record *r;

		if (c->n == c->cap) {
			c->cap = c->cap * 2 + 64;
			c->records = realloc(c->records, c->cap * sizeof(*r));
		}
		r = &c->records[c->n++];
		r->key = slu_key_get(slots[i].key);
		r->blkno = v->blkno;
		r->len = slu_get_le16(&slots[i].len);
		memcpy(r->value, (const uint8_t *)v->node + slu_get_le16(&slots[i].off), r->len);
	}
	return 0;
}

static void contents_read(struct slu_simdisk *disk, struct contents *c)
{
	const struct slu_blockio_opts bopts = {.engine = "sim", .sim = disk, .readonly = true};
	const struct slu_store_opts opts = {.readonly = true};
	struct slu_blockio *bio;
	struct slu_store *store;

	memset(c, 0, sizeof(*c));
	assert_int_equal(slu_blockio_open("sim", &bopts, &bio), 0);
	assert_int_equal(slu_store_open(bio, &opts, &store, NULL), 0);
	assert_int_equal(slu_store_walk(store, contents_visit, c), 0);
	assert_int_equal(slu_store_close(store), 0);
	slu_blockio_close(bio);
}

static void contents_free(struct contents *c)
{
	free(c->records);
	free(c->nodes);
}

static const struct record *contents_find(const struct contents *c, const struct slu_key *key)
{
	size_t lo = 0, hi = c->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int cmp = slu_key_cmp(&c->records[mid].key, key);

		if (!cmp)
			return &c->records[mid];
		if (cmp < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/*
 * By inode: whether some record of it lay in the block. A promise to free it counts: without it the
 * repair keeps the promise itself. The caller frees the array.
 */
static bool *contents_hits(const struct contents *c, uint64_t blkno)
{
	bool *hits = calloc(INODES_MAX, sizeof(*hits));

	for (size_t i = 0; i < c->n; i++) {
		const struct slu_key *key = &c->records[i].key;

		assert_true(key->ino < INODES_MAX);
		if (c->records[i].blkno != blkno)
			continue;
		hits[key->ino] = true;
		if (key->ino == SLU_INO_VOLUME && key->type == SLU_REC_ORPHAN)
			hits[key->off] = true;
	}
	return hits;
}

/* Everything about the inode but what names make of it. */
static bool same_inode(const struct record *a, const struct record *b)
{
	struct slu_disk_inode x, y;

	memcpy(&x, a->value, sizeof(x));
	memcpy(&y, b->value, sizeof(y));
	if (S_ISDIR(slu_get_le32(&x.mode))) {
		y.size = x.size;
		y.parent = x.parent;
	}
	y.nlink = x.nlink;
	return !memcmp(&x, &y, sizeof(x));
}

static void same_data(struct slu_simdisk *was, struct slu_simdisk *is, const struct record *r,
		      uint64_t lost)
{
	uint8_t a[SLU_BLOCK_SIZE], b[SLU_BLOCK_SIZE];
	struct slu_disk_extent de;

	memcpy(&de, r->value, sizeof(de));
	for (uint32_t i = 0; i < slu_get_le32(&de.nblocks); i++) {
		if (slu_get_le64(&de.blkno) + i == lost)
			continue;
		slu_simdisk_peek(was, slu_get_le64(&de.blkno) + i, a);
		slu_simdisk_peek(is, slu_get_le64(&de.blkno) + i, b);
		assert_memory_equal(a, b, sizeof(a));
	}
}

/* Every file that had nothing in the lost block is as it was. */
static void expect_rest(struct fixture *f, struct slu_simdisk *was, const struct contents *old,
			uint64_t lost)
{
	bool *hits = contents_hits(old, lost);
	struct contents new;

	contents_read(f->disk, &new);
	for (size_t i = 0; i < old->n; i++) {
		const struct record *r = &old->records[i], *s;
		bool same;

		if (r->key.ino == SLU_INO_VOLUME)
			continue;
		/* A name is gone with what it led to. */
		if (hits[r->key.ino] ||
		    (r->key.type == SLU_REC_DIRENT && hits[slu_get_le64(r->value)]))
			continue;
		s = contents_find(&new, &r->key);
		same = s && s->len == r->len;
		if (same && r->key.type == SLU_REC_INODE)
			same = same_inode(r, s);
		else if (same)
			same = !memcmp(r->value, s->value, r->len);
		if (!same)
			fail_msg("block %llu lost: record (%llu, %u, %llu) %s; repair said:\n%s",
				 (unsigned long long)lost, (unsigned long long)r->key.ino,
				 r->key.type, (unsigned long long)r->key.off,
				 s ? "has changed" : "is gone", f->texts);
		if (r->key.type == SLU_REC_EXTENT)
			same_data(was, f->disk, r, lost);
	}
	free(hits);
	contents_free(&new);
}

/* ------------------------------------------------------------------ one block */

enum loss { LOSS_ZERO, LOSS_BIT, LOSS_READ };

static void lose(struct fixture *f, uint64_t blkno, enum loss loss)
{
	const struct slu_simdisk_fault fault = {.op = SLU_IO_READ,
						.nth = 1,
						.times = UINT64_MAX,
						.blkno = blkno,
						.nblocks = 1,
						.kind = SLU_FAULT_ERROR};
	uint8_t block[SLU_BLOCK_SIZE];

	slu_simdisk_peek(f->disk, blkno, block);
	if (loss == LOSS_ZERO)
		memset(block, 0, sizeof(block));
	if (loss == LOSS_BIT)
		block[3000] ^= 4;
	slu_simdisk_poke(f->disk, blkno, block);
	if (loss == LOSS_READ)
		slu_simdisk_fault(f->disk, &fault);
}

/* The sample volume without a block, repaired; what was not in it must be there. */
static void try_loss(struct fixture *f, const struct contents *old, uint64_t blkno, enum loss loss)
{
	struct slu_simdisk *was = f->disk;

	f->disk = slu_simdisk_clone(was);
	slu_simdisk_inline(f->disk, true);
	lose(f, blkno, loss);
	if (loss == LOSS_READ) {
		/* The new tree keeps off the block; later writes, by the store, make it readable. */
		assert_int_equal(fixture_repair(f), 0);
		if (blkno >= 2 && blkno != SPARE)
			fixture_expect(f, END);
		slu_simdisk_fault(f->disk, NULL);
	}
	fixture_expect_repaired(f);
	expect_rest(f, was, old, blkno);
	slu_simdisk_free(f->disk);
	f->disk = was;
}

static void whatever_block_is_lost_everything_else_comes_back(void **state)
{
	struct fixture *f = *state;
	struct contents old;

	contents_read(f->disk, &old);
	for (int loss = LOSS_ZERO; loss <= LOSS_READ; loss++) {
		try_loss(f, &old, 0, loss);
		try_loss(f, &old, 1, loss);
		try_loss(f, &old, SPARE, loss);
		for (size_t i = 0; i < old.nnodes; i++)
			try_loss(f, &old, old.nodes[i], loss);
	}
	/* Data and free blocks: most of them nothing was ever written to. */
	for (uint64_t blkno = 2; blkno < FIXTURE_BLOCKS; blkno++) {
		uint8_t block[SLU_BLOCK_SIZE], zeros[SLU_BLOCK_SIZE] = {0};

		slu_simdisk_peek(f->disk, blkno, block);
		if (memcmp(block, zeros, sizeof(block)) != 0 || blkno % 512 == 0)
			try_loss(f, &old, blkno, LOSS_BIT);
	}
	contents_free(&old);
}

static void in_a_deep_tree_too(void **state)
{
	struct fixture *f = *state;
	struct contents old;

	contents_read(f->disk, &old);
	assert_true(old.nnodes > 130);
	for (size_t i = 0; i < old.nnodes; i++)
		try_loss(f, &old, old.nodes[i], LOSS_BIT);
	contents_free(&old);
}

static bool is_inner(struct fixture *f, uint64_t blkno)
{
	struct slu_disk_node node;

	slu_simdisk_peek(f->disk, blkno, &node);
	return slu_get_le16(&node.level) > 0;
}

static void with_the_root_and_one_more_node_gone_the_rest_comes_back(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *whole;
	struct contents old;

	contents_read(f->disk, &old);
	whole = f->disk;
	for (size_t i = 1; i < old.nnodes; i++) {
		f->disk = slu_simdisk_clone(whole);
		slu_simdisk_inline(f->disk, true);
		lose(f, old.nodes[0], LOSS_ZERO);
		lose(f, old.nodes[i], LOSS_ZERO);
		fixture_expect_repaired(f);
		/* Without the space records some of what is found may be older than what is lost. */
		if (is_inner(f, old.nodes[i]) || i > 2)
			expect_rest(f, whole, &old, old.nodes[i]);
		slu_simdisk_free(f->disk);
	}
	f->disk = whole;
	contents_free(&old);
}

/* ------------------------------------------------------------------ stale nodes */

static void inode_one_less(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, slu_get_le64(&di->size) - 1);
}

/* /dir/fifo goes, and what it was is still on disk, in nodes of an earlier transaction. */
static void remove_fifo(struct fixture *f)
{
	fixture_open(f);
	fixture_del_dirent(f, f->ino.dir, "fifo");
	fixture_change_inode(f, f->ino.dir, inode_one_less);
	fixture_put(f, SLU_KEY(f->ino.fifo, SLU_REC_INODE, 0), NULL, 0);
	{
		struct slu_batch b;

		slu_batch_init(&b);
		slu_batch_inodes(&b, -1);
		fixture_apply(f, &b);
	}
	fixture_close(f);
	fixture_expect(f, END);
}

static void deleted_files_stay_deleted(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *whole;
	struct contents old, new;
	struct slu_key key = SLU_KEY(f->ino.fifo, SLU_REC_INODE, 0);

	remove_fifo(f);
	contents_read(f->disk, &old);
	whole = f->disk;
	for (size_t i = 0; i < old.nnodes; i++) {
		/* The leaf of the space records: nothing is left that tells old from new. */
		if (old.nodes[i] == old.records[0].blkno)
			continue;
		f->disk = slu_simdisk_clone(whole);
		slu_simdisk_inline(f->disk, true);
		lose(f, old.nodes[i], LOSS_ZERO);
		fixture_expect_repaired(f);
		contents_read(f->disk, &new);
		if (contents_find(&new, &key))
			fail_msg("node %llu lost: the file is back; repair said:\n%s",
				 (unsigned long long)old.nodes[i], f->texts);
		contents_free(&new);
		slu_simdisk_free(f->disk);
	}
	f->disk = whole;
	contents_free(&old);
}

static uint32_t new_uid;

static void inode_uid(struct slu_disk_inode *di)
{
	slu_put_le32(&di->uid, new_uid);
}

static void inode_one_block_less(struct slu_disk_inode *di)
{
	slu_put_le64(&di->blocks, slu_get_le64(&di->blocks) - 1);
}

static void inode_one_block(struct slu_disk_inode *di)
{
	slu_put_le64(&di->blocks, 1);
	slu_put_le64(&di->size, SLU_BLOCK_SIZE);
}

/* Changes the leaf of the sample's file three times; the second time it gives a block away. */
static void give_block_away(struct fixture *f, uint64_t other)
{
	struct slu_disk_extent de;

	/* In one mount, in which no block is used again before two commits have passed. */
	fixture_open(f);
	for (new_uid = 1; new_uid <= 3; new_uid++) {
		fixture_change_inode(f, f->ino.file, inode_uid);
		if (new_uid == 3) {
			fixture_get(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3), &de, sizeof(de));
			fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3), NULL, 0);
			fixture_change_inode(f, f->ino.file, inode_one_block_less);
			fixture_put(f, SLU_KEY(other, SLU_REC_EXTENT, 0), &de, sizeof(de));
			fixture_change_inode(f, other, inode_one_block);
		}
		assert_int_equal(slu_store_commit(f->store, slu_store_txid(f->store), true), 0);
	}
	fixture_close(f);
	fixture_expect(f, END);
}

/*
 * With the space records lost too, nothing tells freed leaves from others: the newest predecessor of
 * a lost leaf is taken, as what it is. A block that has moved on since belongs to its present owner.
 */
static void a_stale_leaf_is_the_newest_there_is_and_gives_way(void **state)
{
	struct fixture *f = *state;
	struct slu_key gone = SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3);
	struct contents old, new;
	struct slu_disk_inode di;
	uint64_t other, lost[2];
	struct slu_key kept;

	contents_read(f->disk, &old);
	other = old.records[old.n - 1].key.ino;
	contents_free(&old);
	kept = SLU_KEY(other, SLU_REC_EXTENT, 0);
	give_block_away(f, other);
	contents_read(f->disk, &old);
	lost[0] = contents_find(&old, &SLU_KEY(f->ino.file, SLU_REC_INODE, 0))->blkno;
	lost[1] = contents_find(&old, &SLU_KEY(f->ino.file, SLU_REC_EXTENT, 0))->blkno;
	assert_true(lost[0] != old.records[0].blkno && lost[1] != old.records[0].blkno);
	lose(f, old.records[0].blkno, LOSS_ZERO);
	lose(f, lost[0], LOSS_ZERO);
	lose(f, lost[1], LOSS_ZERO);
	fixture_expect_repaired(f);
	fixture_expect_text(f, "may be out of date");
	contents_read(f->disk, &new);
	memcpy(&di, contents_find(&new, &SLU_KEY(f->ino.file, SLU_REC_INODE, 0))->value,
	       sizeof(di));
	assert_int_equal(slu_get_le32(&di.uid), 2);
	assert_null(contents_find(&new, &gone));
	assert_non_null(contents_find(&new, &kept));
	assert_memory_equal(contents_find(&new, &kept)->value, contents_find(&old, &kept)->value,
			    sizeof(struct slu_disk_extent));
	contents_free(&old);
	contents_free(&new);
}

/* ------------------------------------------------------------------ interrupted */

static void inode_more_links(struct slu_disk_inode *di)
{
	slu_put_le32(&di->nlink, slu_get_le32(&di->nlink) + 1);
}

/* Cuts the repair of the volume at every write; each time what is left is as good as before. */
static void cut_everywhere(struct fixture *f, struct slu_simdisk *was, const struct contents *old,
			   uint64_t lost, enum slu_problem_kind kind)
{
	struct slu_simdisk *recorded = f->disk;
	size_t nrecords;

	slu_simdisk_record(f->disk, true);
	assert_int_equal(fixture_repair(f), 0);
	slu_simdisk_record(f->disk, false);
	nrecords = slu_simdisk_nrecords(recorded);
	assert_true(nrecords >= 5);
	for (size_t n = 0; n <= nrecords; n++) {
		for (uint64_t seed = 0; seed < 6; seed++) {
			f->disk = slu_simdisk_replay(recorded, n, seed);
			slu_simdisk_inline(f->disk, true);
			fixture_check(f);
			assert_int_equal(f->error, 0);
			/* Either nothing has happened to it yet or it is repaired. */
			assert_int_equal(f->result.problems - f->kinds[SLU_PROBLEM_SUPER] -
						 f->kinds[SLU_PROBLEM_SUPER_DIFFER],
					 f->kinds[kind] ? 1 : 0);
			fixture_expect_repaired(f);
			expect_rest(f, was, old, lost);
			slu_simdisk_free(f->disk);
		}
	}
	f->disk = recorded;
}

static void interrupted_at_any_write_it_can_be_run_again(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *was;
	struct contents old;

	contents_read(f->disk, &old);
	was = slu_simdisk_clone(f->disk);
	lose(f, old.nodes[0], LOSS_ZERO);
	cut_everywhere(f, was, &old, old.nodes[0], SLU_PROBLEM_NODE);
	slu_simdisk_free(was);
	contents_free(&old);
}

/* The tree can be walked, and what is free is known: the present nodes must be left alone. */
static void interrupted_while_a_whole_tree_is_mended_too(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *was;
	struct contents old;

	contents_read(f->disk, &old);
	was = slu_simdisk_clone(f->disk);
	fixture_open(f);
	fixture_change_inode(f, f->ino.fifo, inode_more_links);
	fixture_close(f);
	cut_everywhere(f, was, &old, 0, SLU_PROBLEM_NLINK);
	slu_simdisk_free(was);
	contents_free(&old);
}

struct phases {
	unsigned int calls[SLU_REPAIR_BUILD + 1];
	enum slu_repair_phase phase;
	uint64_t done;
};

static int note_phase(void *ctx, enum slu_repair_phase phase, uint64_t done, uint64_t total)
{
	struct phases *p = ctx;

	assert_true(phase >= p->phase && phase <= SLU_REPAIR_BUILD);
	assert_true(done <= total);
	assert_true(phase > p->phase || done >= p->done);
	p->phase = phase;
	p->done = done;
	p->calls[phase]++;
	return 0;
}

static void progress_goes_forward_through_the_phases(void **state)
{
	struct fixture *f = *state;
	const struct slu_blockio_opts bopts = {.engine = "sim", .sim = f->disk};
	struct phases phases = {{0}};
	const struct slu_repair_opts opts = {.progress = note_phase, .ctx = &phases};
	struct slu_repair_result result;
	struct contents old;
	struct slu_blockio *bio;
	const char *why;

	contents_read(f->disk, &old);
	lose(f, old.nodes[0], LOSS_ZERO);
	contents_free(&old);
	assert_int_equal(slu_blockio_open("sim", &bopts, &bio), 0);
	assert_int_equal(slu_repair(bio, &opts, &result, &why), 0);
	slu_blockio_close(bio);
	for (size_t i = 0; i < slu_array_size(phases.calls); i++)
		assert_true(phases.calls[i]);
}

static int stop_at(void *ctx, enum slu_repair_phase phase, uint64_t done, uint64_t total)
{
	unsigned int *left = ctx;

	return --*left == 0;
}

static void cancelled_it_has_changed_nothing(void **state)
{
	struct fixture *f = *state;
	const struct slu_blockio_opts bopts = {.engine = "sim", .sim = f->disk};
	struct contents old;
	unsigned int stops = 0;

	contents_read(f->disk, &old);
	lose(f, old.nodes[0], LOSS_ZERO);
	for (unsigned int at = 1;; at += 5, stops++) {
		unsigned int left = at;
		const struct slu_repair_opts opts = {.progress = stop_at, .ctx = &left};
		struct slu_simdisk *was = slu_simdisk_clone(f->disk);
		struct slu_repair_result result;
		struct slu_blockio *bio;
		const char *why;
		int err;

		assert_int_equal(slu_blockio_open("sim", &bopts, &bio), 0);
		err = slu_repair(bio, &opts, &result, &why);
		slu_blockio_close(bio);
		for (uint64_t blkno = 0; err && blkno < 2; blkno++) {
			uint8_t a[SLU_BLOCK_SIZE], b[SLU_BLOCK_SIZE];

			slu_simdisk_peek(was, blkno, a);
			slu_simdisk_peek(f->disk, blkno, b);
			assert_memory_equal(a, b, sizeof(a));
		}
		slu_simdisk_free(was);
		if (!err)
			break;
		assert_int_equal(err, -ECANCELED);
	}
	assert_true(stops > 10);
	fixture_expect(f, END);
	contents_free(&old);
}

/* ------------------------------------------------------------------ both superblocks */

static void super_zero(struct slu_disk_super *s)
{
	memset(s, 0, sizeof(*s));
}

static void super_garbage(struct slu_disk_super *s)
{
	memset(s, 0x5a, sizeof(*s));
}

static void super_no_volume(struct slu_disk_super *s)
{
	memset(s->volume_id, 0, sizeof(s->volume_id));
}

static void (*const losses[])(struct slu_disk_super *s) = {super_zero, super_garbage,
							   super_no_volume};

/* f->disk becomes a copy. */
static struct slu_simdisk *copy_disk(struct fixture *f)
{
	struct slu_simdisk *was = f->disk;

	f->disk = slu_simdisk_clone(was);
	slu_simdisk_inline(f->disk, true);
	return was;
}

static void drop_copy(struct fixture *f, struct slu_simdisk *was)
{
	slu_simdisk_free(f->disk);
	f->disk = was;
}

static void with_both_superblocks_lost_nothing_else_is(void **state)
{
	struct fixture *f = *state;
	struct contents old, new;

	contents_read(f->disk, &old);
	for (size_t i = 0; i < slu_array_size(losses); i++) {
		struct slu_simdisk *was = copy_disk(f);
		struct slu_disk_super before, after;

		slu_simdisk_peek(f->disk, 0, &before);
		fixture_poke_super(f, 3, losses[i], false);
		fixture_expect_repaired(f);
		fixture_expect_text(f, "from the spare one in block 12287");
		assert_int_equal(f->repaired.lost_ranges, 0);
		expect_rest(f, was, &old, NO_BLOCK);
		contents_read(f->disk, &new);
		assert_int_equal(new.n, old.n);
		contents_free(&new);
		slu_simdisk_peek(f->disk, 0, &after);
		assert_memory_equal(after.volume_id, before.volume_id, sizeof(after.volume_id));
		assert_memory_equal(after.label, before.label, sizeof(after.label));
		assert_memory_equal(&after.mkfs_time, &before.mkfs_time, sizeof(after.mkfs_time));
		drop_copy(f, was);
	}
	contents_free(&old);
}

static void with_both_superblocks_and_any_node_lost_the_rest_comes_back(void **state)
{
	struct fixture *f = *state;
	struct contents old;

	contents_read(f->disk, &old);
	for (size_t i = 0; i < old.nnodes; i++) {
		struct slu_simdisk *was = copy_disk(f);
		bool inner = is_inner(f, old.nodes[i]);

		fixture_poke_super(f, 3, losses[i % slu_array_size(losses)], false);
		lose(f, old.nodes[i], i % 2 ? LOSS_BIT : LOSS_ZERO);
		fixture_expect_repaired(f);
		/* An inner node says nothing that the leaves do not. */
		if (inner)
			assert_int_equal(f->repaired.lost_ranges, 0);
		expect_rest(f, was, &old, old.nodes[i]);
		drop_copy(f, was);
	}
	contents_free(&old);
}

/* lost: the index of a node that is lost, too; or NO_BLOCK. */
static void cut_without_superblocks(struct fixture *f, uint64_t lost)
{
	struct slu_simdisk *was = slu_simdisk_clone(f->disk);
	struct contents old;

	contents_read(f->disk, &old);
	fixture_poke_super(f, 3, super_zero, false);
	if (lost != NO_BLOCK) {
		lost = old.nodes[lost];
		lose(f, lost, LOSS_ZERO);
	}
	cut_everywhere(f, was, &old, lost, SLU_PROBLEM_NODE);
	slu_simdisk_free(was);
	contents_free(&old);
}

static void with_both_superblocks_lost_it_can_be_interrupted_too(void **state)
{
	cut_without_superblocks(*state, NO_BLOCK);
}

static void and_the_root_it_can_be_interrupted_too(void **state)
{
	cut_without_superblocks(*state, 0);
}

/* A change in every leaf. */
static void change_all(struct fixture *f, const struct contents *c, uint32_t uid)
{
	new_uid = uid;
	for (size_t i = 0; i < c->n; i++)
		if (c->records[i].key.type == SLU_REC_INODE)
			fixture_change_inode(f, c->records[i].key.ino, inode_uid);
}

/*
 * The power fails at any moment of a commit, and then both superblocks are lost. A commit of which
 * more than half is there may be taken for one that was damaged; what is left is sound then, too.
 */
static void a_commit_under_way_is_mostly_whole_or_not_there_without_superblocks(void **state)
{
	struct fixture *f = *state;
	unsigned int olds = 0, news = 0, mixed = 0;
	struct slu_simdisk *recorded = f->disk;
	struct contents old, new, found;
	size_t nrecords;

	contents_read(f->disk, &old);
	fixture_open(f);
	slu_simdisk_record(f->disk, true);
	change_all(f, &old, 77);
	assert_int_equal(slu_store_commit(f->store, slu_store_txid(f->store), true), 0);
	slu_simdisk_record(f->disk, false);
	fixture_close(f);
	contents_read(f->disk, &new);
	nrecords = slu_simdisk_nrecords(recorded);
	for (size_t n = 0; n <= nrecords; n++) {
		for (uint64_t seed = 0; seed < 12; seed++) {
			const struct record *root;
			struct slu_disk_inode di;
			bool is_new;

			f->disk = slu_simdisk_replay(recorded, n, seed);
			slu_simdisk_inline(f->disk, true);
			fixture_poke_super(f, 3, super_zero, false);
			fixture_expect_repaired(f);
			if (f->repaired.lost_ranges) {
				assert_true(n < nrecords);
				mixed++;
				slu_simdisk_free(f->disk);
				continue;
			}
			contents_read(f->disk, &found);
			root = contents_find(&found, &SLU_KEY(SLU_INO_ROOT, SLU_REC_INODE, 0));
			memcpy(&di, root->value, sizeof(di));
			is_new = slu_get_le32(&di.uid) == 77;
			contents_free(&found);
			expect_rest(f, recorded, is_new ? &new : &old, NO_BLOCK);
			olds += !is_new;
			news += is_new;
			/* The superblock was durable: it has been promised. */
			if (n == nrecords)
				assert_true(is_new);
			slu_simdisk_free(f->disk);
		}
	}
	f->disk = recorded;
	assert_true(olds > 0 && news > 0 && mixed * 10 < olds + news);
	contents_free(&old);
	contents_free(&new);
}

static void an_older_tree_is_not_taken_for_the_newest(void **state)
{
	struct fixture *f = *state;
	struct slu_disk_inode di;
	struct contents old, new;
	uint64_t root;

	contents_read(f->disk, &old);
	fixture_open(f);
	change_all(f, &old, 77);
	fixture_close(f);
	contents_read(f->disk, &new);
	root = new.nodes[0];
	fixture_poke_super(f, 3, super_zero, false);
	lose(f, root, LOSS_ZERO);
	fixture_expect_repaired(f);
	fixture_open(f);
	fixture_get(f, SLU_KEY(f->ino.file, SLU_REC_INODE, 0), &di, sizeof(di));
	fixture_close(f);
	assert_int_equal(slu_get_le32(&di.uid), 77);
	contents_free(&old);
	contents_free(&new);
}

static void grow_image(struct fixture *f, uint64_t nblocks)
{
	const struct slu_blockio_opts opts = {.engine = "sim", .sim = f->disk};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("sim", &opts, &bio), 0);
	assert_int_equal(slu_blockio_grow(bio, nblocks), 0);
	slu_blockio_close(bio);
}

/* A spare superblock like the present one, of a volume that ends at blkno. */
static void put_spare(struct fixture *f, uint64_t blkno, uint8_t id)
{
	struct slu_disk_super s, spare;

	slu_simdisk_peek(f->disk, 0, &s);
	s.volume_id[0] = id;
	slu_spare_make(&s, blkno + 1, &spare);
	slu_simdisk_poke(f->disk, blkno, &spare);
}

static void the_spare_superblock_of_a_longer_image_is_found(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *was;
	struct contents old;

	contents_read(f->disk, &old);
	grow_image(f, FIXTURE_BLOCKS + 5000);
	was = copy_disk(f);
	fixture_poke_super(f, 3, super_zero, false);
	fixture_expect_repaired(f);
	expect_rest(f, was, &old, NO_BLOCK);
	/* Where it can be read, and no further. */
	fixture_poke_super(f, 3, super_zero, false);
	grow_image(f, FIXTURE_BLOCKS + SLU_SPARE_LOOK);
	fixture_check(f);
	assert_int_equal(f->error, -EINVAL);
	drop_copy(f, was);
	contents_free(&old);
}

/* Left behind by a longer volume, or written into a file by somebody who wants to be believed. */
static void a_spare_superblock_of_another_volume_is_not_believed(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *was;
	struct contents old;

	contents_read(f->disk, &old);
	grow_image(f, FIXTURE_BLOCKS + 5000);
	put_spare(f, FIXTURE_BLOCKS + 4999, 99);
	/* Beside good superblocks it does not count at all. */
	fixture_expect(f, END);
	was = copy_disk(f);
	lose(f, 1, LOSS_ZERO);
	fixture_expect_repaired(f);
	expect_rest(f, was, &old, NO_BLOCK);
	drop_copy(f, was);
	/* Without them nobody can tell which it is. */
	was = copy_disk(f);
	fixture_poke_super(f, 3, super_zero, false);
	fixture_check(f);
	assert_int_equal(f->error, -EINVAL);
	assert_non_null(strstr(f->why, "--size"));
	assert_int_equal(fixture_repair(f), -EINVAL);
	drop_copy(f, was);
	contents_free(&old);
}

static void a_copy_of_the_spare_superblock_elsewhere_is_none(void **state)
{
	struct fixture *f = *state;
	uint8_t block[SLU_BLOCK_SIZE];

	slu_simdisk_peek(f->disk, SPARE, block);
	slu_simdisk_poke(f->disk, f->data, block);
	fixture_expect(f, END);
	fixture_poke_super(f, 3, super_zero, false);
	lose(f, SPARE, LOSS_BIT);
	fixture_check(f);
	assert_int_equal(f->error, -EINVAL);
	assert_int_equal(fixture_repair(f), -EINVAL);
}

static void without_any_node_there_is_nothing_to_repair(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk *was;

	for (uint64_t blkno = 0; blkno < SPARE; blkno++)
		slu_simdisk_poke(f->disk, blkno, (uint8_t[SLU_BLOCK_SIZE]){0});
	was = slu_simdisk_clone(f->disk);
	fixture_expect(f, SLU_PROBLEM_SUPER, SLU_PROBLEM_SUPER, END);
	assert_int_equal(fixture_repair(f), -EUCLEAN);
	assert_non_null(strstr(f->why, "no node"));
	for (uint64_t blkno = 0; blkno < FIXTURE_BLOCKS; blkno++) {
		uint8_t a[SLU_BLOCK_SIZE], b[SLU_BLOCK_SIZE];

		slu_simdisk_peek(was, blkno, a);
		slu_simdisk_peek(f->disk, blkno, b);
		assert_memory_equal(a, b, sizeof(a));
	}
	slu_simdisk_free(was);
}

/* ------------------------------------------------------------------ writing */

static void a_superblock_alone_is_mended_without_a_new_tree(void **state)
{
	struct fixture *f = *state;

	lose(f, 1, LOSS_ZERO);
	fixture_expect_repaired(f);
	assert_int_equal(f->repaired.nodes, 0);
	assert_int_equal(f->repaired.repairs, 1);
}

static void super_huge_ino(struct slu_disk_super *s)
{
	slu_put_le64(&s->next_ino, UINT64_MAX / 2);
	slu_put_le64(&s->ninodes, 3);
}

static void super_huge_txid(struct slu_disk_super *s)
{
	slu_put_le64(&s->txid, UINT64_MAX - 1);
}

static void numbers_that_nobody_counted_up_to_are_not_taken_over(void **state)
{
	struct fixture *f = *state;
	struct slu_disk_super s;

	fixture_poke_super(f, 3, super_huge_ino, true);
	fixture_expect_repaired(f);
	slu_simdisk_peek(f->disk, 0, &s);
	assert_true(slu_get_le64(&s.next_ino) < 1000);
	fixture_poke_super(f, 3, super_huge_txid, true);
	assert_int_equal(fixture_repair(f), -EUCLEAN);
	assert_non_null(f->why);
}

static void without_room_for_a_second_tree_it_says_so_and_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct slu_disk_extent de;
	struct slu_simdisk *was;

	/* One file claims all that the volume has. */
	slu_put_le64(&de.blkno, 2);
	slu_put_le32(&de.nblocks, FIXTURE_BLOCKS - 2);
	slu_put_le32(&de.flags, SLU_EXTENT_UNWRITTEN);
	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.cut, SLU_REC_EXTENT, 5), &de, sizeof(de));
	fixture_close(f);
	was = slu_simdisk_clone(f->disk);
	assert_int_equal(fixture_repair(f), -ENOSPC);
	assert_non_null(strstr(f->why, "not enough free space"));
	for (uint64_t blkno = 0; blkno < FIXTURE_BLOCKS; blkno++) {
		uint8_t a[SLU_BLOCK_SIZE], b[SLU_BLOCK_SIZE];

		slu_simdisk_peek(was, blkno, a);
		slu_simdisk_peek(f->disk, blkno, b);
		assert_memory_equal(a, b, sizeof(a));
	}
	slu_simdisk_free(was);
}

static void a_failing_write_or_flush_is_an_error_and_the_next_run_mends_it(void **state)
{
	static const enum slu_io_op ops[] = {SLU_IO_WRITE, SLU_IO_FLUSH};
	struct fixture *f = *state;
	struct contents old;

	contents_read(f->disk, &old);
	lose(f, old.nodes[0], LOSS_ZERO);
	for (size_t i = 0; i < slu_array_size(ops); i++) {
		for (uint64_t nth = 1; nth <= 3; nth++) {
			struct slu_simdisk_fault fault = {.op = ops[i], .nth = nth};
			struct slu_simdisk *was = f->disk;

			f->disk = slu_simdisk_clone(was);
			slu_simdisk_inline(f->disk, true);
			slu_simdisk_fault(f->disk, &fault);
			assert_int_equal(fixture_repair(f), -EIO);
			assert_int_equal(slu_simdisk_fault_hits(f->disk), 1);
			slu_simdisk_fault(f->disk, NULL);
			fixture_expect_repaired(f);
			slu_simdisk_free(f->disk);
			f->disk = was;
		}
	}
	contents_free(&old);
}

/* ------------------------------------------------------------------ lost+found */

static void lost_files_are_put_into_the_lost_found_that_is_there(void **state)
{
	struct fixture *f = *state;
	struct slu_disk_inode di;
	uint8_t name[300];

	fixture_open(f);
	fixture_del_dirent(f, f->ino.dir, "fifo");
	fixture_close(f);
	fixture_expect_repaired(f);
	assert_int_equal(f->repaired.reconnected, 1);
	fixture_expect_text(f, "lost+found is made");
	fixture_open(f);
	fixture_get(f, fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, "lost+found", 0), name,
		    sizeof(name));
	fixture_get(f, SLU_KEY(slu_get_le64((slu_le64 *)name), SLU_REC_INODE, 0), &di, sizeof(di));
	assert_int_equal(slu_get_le32(&di.mode), S_IFDIR | 0700);
	assert_int_equal(slu_get_le32(&di.uid), 1234);
	assert_int_equal(slu_get_le32(&di.gid), 5678);
	fixture_del_dirent(f, SLU_INO_ROOT, "dir");
	fixture_close(f);
	fixture_expect_repaired(f);
	assert_int_equal(f->repaired.reconnected, 1);
	assert_null(strstr(f->texts, "is made"));
	/* And once more: a name that is taken is not given twice. */
	fixture_open(f);
	fixture_del_dirent(f, f->ino.dir, "sub");
	fixture_close(f);
	fixture_expect_repaired(f);
	assert_int_equal(f->repaired.reconnected, 1);
}

static void a_file_called_lost_found_does_not_stop_it(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put_dirent(f, SLU_INO_ROOT, "lost+found", f->ino.file, S_IFREG);
	fixture_del_dirent(f, f->ino.dir, "fifo");
	fixture_close(f);
	fixture_expect_repaired(f);
	assert_int_equal(f->repaired.reconnected, 1);
	fixture_open(f);
	fixture_get(f, fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, "lost+found.1", 0),
		    (uint8_t[300]){0}, 300);
	fixture_close(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(whatever_block_is_lost_everything_else_comes_back),
		cmocka_unit_test_setup_teardown(in_a_deep_tree_too, setup_deep, teardown),
		TEST(with_the_root_and_one_more_node_gone_the_rest_comes_back),
		TEST(deleted_files_stay_deleted),
		TEST(a_stale_leaf_is_the_newest_there_is_and_gives_way),
		TEST(interrupted_at_any_write_it_can_be_run_again),
		TEST(interrupted_while_a_whole_tree_is_mended_too),
		TEST(cancelled_it_has_changed_nothing),
		TEST(with_both_superblocks_lost_nothing_else_is),
		TEST(with_both_superblocks_and_any_node_lost_the_rest_comes_back),
		cmocka_unit_test_setup_teardown(with_both_superblocks_lost_nothing_else_is,
						setup_deep, teardown),
		TEST(with_both_superblocks_lost_it_can_be_interrupted_too),
		TEST(and_the_root_it_can_be_interrupted_too),
		TEST(a_commit_under_way_is_mostly_whole_or_not_there_without_superblocks),
		TEST(an_older_tree_is_not_taken_for_the_newest),
		TEST(the_spare_superblock_of_a_longer_image_is_found),
		TEST(a_spare_superblock_of_another_volume_is_not_believed),
		TEST(a_copy_of_the_spare_superblock_elsewhere_is_none),
		TEST(without_any_node_there_is_nothing_to_repair),
		TEST(progress_goes_forward_through_the_phases),
		TEST(a_superblock_alone_is_mended_without_a_new_tree),
		TEST(numbers_that_nobody_counted_up_to_are_not_taken_over),
		TEST(without_room_for_a_second_tree_it_says_so_and_changes_nothing),
		TEST(a_failing_write_or_flush_is_an_error_and_the_next_run_mends_it),
		TEST(lost_files_are_put_into_the_lost_found_that_is_there),
		TEST(a_file_called_lost_found_does_not_stop_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
