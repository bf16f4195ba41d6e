/* SPDX-License-Identifier: MIT */
/*
 * Every kind of damage is found, is named as what it is, and as nothing else; and whatever a case
 * leaves behind, repair makes a sound volume of it.
 */
#include "check_fixture.h"
#include <sys/stat.h>
#include <xxhash.h>

#define END SLU_PROBLEM_NKINDS

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_new(f);
	*state = f;
	return 0;
}

/* What is no damage, and what leaves nothing to begin with. */
static bool beyond_repair(int err)
{
	return err == -EPROTONOSUPPORT || err == -EFBIG || err == -EUCLEAN || err == -EINVAL;
}

static int setup_without_spare(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_new_without_spare(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fixture_check(f);
	if (f->error || (f->kinds[SLU_PROBLEM_SUPER] == 2 && !strstr(f->texts, "enough to repair")))
		assert_true(beyond_repair(fixture_repair(f)));
	else
		fixture_expect_repaired(f);
	fixture_free(*state);
	free(*state);
	return 0;
}

/* ------------------------------------------------------------------ no damage */

static void a_sound_volume_has_no_problems(void **state)
{
	struct fixture *f = *state;

	fixture_expect(f, END);
	assert_int_equal(f->notes, 0);
	assert_false(f->result.incomplete);
	assert_true(f->result.was_clean);
	assert_int_equal(f->result.inodes, 9 + 320);
	assert_int_equal(f->result.directories, 4);
	assert_int_equal(f->result.files, 3 + 320);
	assert_int_equal(f->result.symlinks, 1);
	assert_int_equal(f->result.others, 1);
	assert_int_equal(f->result.names, 8 + 320);
	assert_int_equal(f->result.xattrs, 2);
	assert_int_equal(f->result.orphans, 2);
	assert_int_equal(f->result.data_blocks, 9);
	assert_int_equal(f->result.nblocks, FIXTURE_BLOCKS);
	assert_string_equal(f->result.label, "sample");
	assert_true(f->result.depth >= 2);
}

/* ------------------------------------------------------------------ superblocks */

static void super_flip_label(struct slu_disk_super *s)
{
	s->label[1] ^= 1;
}

static void super_flip_txid(struct slu_disk_super *s)
{
	s->txid.b[0] ^= 4;
}

static void super_zero(struct slu_disk_super *s)
{
	memset(s, 0, sizeof(*s));
}

static void super_add_inode(struct slu_disk_super *s)
{
	slu_put_le64(&s->ninodes, slu_get_le64(&s->ninodes) + 1);
}

static void super_add_counts(struct slu_disk_super *s)
{
	super_add_inode(s);
	slu_put_le64(&s->data_blocks, slu_get_le64(&s->data_blocks) + 1);
	slu_put_le64(&s->node_blocks, slu_get_le64(&s->node_blocks) - 1);
	slu_put_le64(&s->record_bytes, slu_get_le64(&s->record_bytes) + 21);
}

static void super_later(struct slu_disk_super *s)
{
	slu_put_le64(&s->txid, slu_get_le64(&s->txid) + 4);
}

static void super_garbage_at_end(struct slu_disk_super *s)
{
	s->zero[sizeof(s->zero) - 1] = 1;
}

static void super_version(struct slu_disk_super *s)
{
	slu_put_le32(&s->version, 2);
}

static void super_large(struct slu_disk_super *s)
{
	slu_put_le64(&s->nblocks, FIXTURE_BLOCKS + 1);
}

static void super_next_ino(struct slu_disk_super *s)
{
	slu_put_le64(&s->next_ino, SLU_INO_FIRST + 2);
}

/* Two commits failed and were tried again before this one. */
static void super_after_failures(struct slu_disk_super *s)
{
	slu_put_le64(&s->txid, (slu_get_le64(&s->txid) | 1) + 4);
	slu_put_le32(&s->state, 0);
}

static void super_defer_data(struct slu_disk_super *s)
{
	slu_put_le32(&s->ndeferred, 1);
	slu_put_le64(&s->deferred[0], 2000);
}

static void either_superblock_damaged_is_named(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 1, super_flip_label, false);
	fixture_expect(f, SLU_PROBLEM_SUPER, END);
	fixture_expect_text(f, "superblock 0: its checksum is wrong");
	fixture_poke_super(f, 1, super_flip_label, false);
	fixture_poke_super(f, 2, super_zero, false);
	fixture_expect(f, SLU_PROBLEM_SUPER, END);
	fixture_expect_text(f, "superblock 1: has no magic number");
	assert_false(f->result.was_clean);
}

static void both_superblocks_damaged_is_damage_and_the_spare_one_is_named(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 3, super_flip_label, false);
	fixture_expect(f, SLU_PROBLEM_SUPER, SLU_PROBLEM_SUPER, END);
	assert_true(f->result.incomplete);
	fixture_poke_super(f, 3, super_zero, false);
	fixture_expect(f, SLU_PROBLEM_SUPER, SLU_PROBLEM_SUPER, END);
	fixture_expect_text(f, "superblock 0: has no magic number");
	fixture_expect_text(f, "superblock 1: has no magic number");
	fixture_expect_text(f, "spare superblock in block 12287: is sound");
	assert_true(f->result.incomplete);
	assert_false(f->result.was_clean);
	assert_string_equal(f->result.label, "sample");
	assert_int_equal(f->result.nblocks, FIXTURE_BLOCKS);
}

static void without_a_spare_one_both_damaged_are_not_a_foreign_image(void **state)
{
	struct fixture *f = *state;

	fixture_expect(f, END);
	fixture_poke_super(f, 3, super_flip_label, false);
	fixture_expect(f, SLU_PROBLEM_SUPER, SLU_PROBLEM_SUPER, END);
	assert_true(f->result.incomplete);
	fixture_poke_super(f, 3, super_zero, false);
	fixture_check(f);
	assert_int_equal(f->error, -EINVAL);
	assert_int_equal(f->result.problems, 0);
}

static void poke_spare(struct fixture *f, void (*fn)(struct slu_disk_super *s), bool checksum)
{
	struct slu_disk_super s;

	slu_simdisk_peek(f->disk, FIXTURE_BLOCKS - 1, &s);
	fn(&s);
	if (checksum)
		slu_put_le64(&s.checksum, XXH3_64bits((const char *)&s + 8, sizeof(s) - 8));
	slu_simdisk_poke(f->disk, FIXTURE_BLOCKS - 1, &s);
}

static void super_other_volume(struct slu_disk_super *s)
{
	s->volume_id[0] ^= 1;
}

/* Whatever it says, the volume is what its superblocks say. */
static void a_spare_superblock_that_is_wrong_is_named(void **state)
{
	static const struct {
		void (*fn)(struct slu_disk_super *s);
		bool checksum;
		const char *text;
	} cases[] = {
		{super_zero, false, "has no magic number"},
		{super_flip_label, false, "its checksum is wrong"},
		{super_flip_label, true, "says something else"},
		{super_other_volume, true, "says something else"},
		{super_version, true, "does not know"},
		{super_large, true, "belongs elsewhere"},
		{super_garbage_at_end, true, "says something else"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < slu_array_size(cases); i++) {
		poke_spare(f, cases[i].fn, cases[i].checksum);
		fixture_expect(f, SLU_PROBLEM_SPARE, END);
		fixture_expect_text(f, "spare superblock in block 12287: ");
		fixture_expect_text(f, cases[i].text);
		assert_true(f->result.was_clean);
		assert_string_equal(f->result.label, "sample");
		fixture_expect_repaired(f);
		assert_int_equal(f->repaired.repairs, 1);
		assert_int_equal(f->repaired.nodes, 0);
		fixture_expect_text(f, "the spare superblock in block 12287 is written anew");
	}
}

static void a_superblock_torn_by_a_power_cut_is_a_note(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 2, super_flip_txid, false);
	fixture_expect(f, END);
	assert_int_equal(f->notes, 1);
	fixture_expect_text(f, "superblock 1: was being written");
}

static void superblocks_that_contradict_each_other_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 1, super_flip_label, true);
	fixture_expect(f, SLU_PROBLEM_SUPER_DIFFER, SLU_PROBLEM_SPARE, END);
	fixture_poke_super(f, 1, super_flip_label, true);
	fixture_poke_super(f, 1, super_add_inode, true);
	fixture_check(f);
	assert_int_equal(f->kinds[SLU_PROBLEM_SUPER_DIFFER], 1);
}

static void superblocks_far_apart_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 1, super_later, true);
	fixture_expect(f, SLU_PROBLEM_SUPER_DIFFER, END);
	fixture_expect_text(f, "do not follow each other");
}

static void superblocks_with_failed_commits_between_them_are_sound(void **state)
{
	fixture_poke_super(*state, 2, super_after_failures, true);
	fixture_expect(*state, END);
}

static void fields_of_a_superblock_are_checked(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 1, super_garbage_at_end, true);
	fixture_expect(f, SLU_PROBLEM_SUPER, END);
	fixture_expect_text(f, "other than zero");
}

static void every_count_of_the_superblock_is_compared(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 3, super_add_counts, true);
	fixture_expect(f, SLU_PROBLEM_COUNT, SLU_PROBLEM_COUNT, SLU_PROBLEM_COUNT,
		       SLU_PROBLEM_COUNT, END);
	fixture_expect_text(f, "counts 330 inodes, there are 329");
}

static void an_unknown_version_is_no_damage(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 2, super_version, true);
	fixture_check(f);
	assert_int_equal(f->error, -EPROTONOSUPPORT);
	assert_non_null(f->why);
	assert_int_equal(f->result.problems, 0);
}

static void an_image_shorter_than_its_volume_is_no_damage(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 3, super_large, true);
	fixture_check(f);
	assert_int_equal(f->error, -ENOSPC);
	assert_non_null(f->why);
}

static void an_inode_beyond_the_next_number_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 3, super_next_ino, true);
	fixture_check(f);
	/* Two of 328 numbers are below it. */
	assert_int_equal(f->kinds[SLU_PROBLEM_INODE], 328 - 2);
	fixture_expect_text(f, "never handed out (next is 18)");
}

static void a_deferred_block_must_be_marked_and_nobody_elses(void **state)
{
	struct fixture *f = *state;

	fixture_poke_super(f, 3, super_defer_data, true);
	fixture_expect(f, SLU_PROBLEM_BLOCK_UNMARKED, END);
	fixture_expect_text(f, "block 2000: in use, but marked free");
}

/* ------------------------------------------------------------------ nodes */

static bool any_node(const struct slu_disk_node *node)
{
	return true;
}

/* A leaf with nothing but the records of files in /many. */
static bool leaf_of_many(const struct slu_disk_node *node)
{
	const struct slu_disk_leaf_slot *slots = (const struct slu_disk_leaf_slot *)node->body;

	return slu_get_le16(&node->count) > 4 &&
	       slu_key_get(slots[0].key).ino > SLU_INO_FIRST + 20 &&
	       slu_key_get(node->upper).ino != UINT64_MAX;
}

static void node_flip_bit(struct slu_disk_node *node)
{
	node->body[1000] ^= 0x10;
}

static void node_wrong_place(struct slu_disk_node *node)
{
	slu_put_le64(&node->blkno, slu_get_le64(&node->blkno) + 1);
}

static void node_wrong_transaction(struct slu_disk_node *node)
{
	slu_put_le64(&node->txid, slu_get_le64(&node->txid) - 1);
}

static void node_swap_keys(struct slu_disk_node *node)
{
	struct slu_disk_leaf_slot *slots = (struct slu_disk_leaf_slot *)node->body, s = slots[1];

	slots[1] = slots[2];
	slots[2] = s;
}

static void a_damaged_leaf_is_named_and_nothing_is_blamed_on_its_neighbours(void **state)
{
	static const struct {
		void (*damage)(struct slu_disk_node *node);
		bool checksum;
	} cases[] = {
		{node_flip_bit, false},
		{node_wrong_place, true},
		{node_wrong_transaction, true},
		{node_swap_keys, true},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < slu_array_size(cases); i++) {
		uint64_t blkno = fixture_find_node(f, 0, leaf_of_many);
		uint8_t saved[SLU_BLOCK_SIZE];

		slu_simdisk_peek(f->disk, blkno, saved);
		fixture_poke_node(f, blkno, cases[i].damage, cases[i].checksum);
		fixture_expect(f, SLU_PROBLEM_NODE, END);
		assert_true(f->result.incomplete);
		slu_simdisk_poke(f->disk, blkno, saved);
	}
	fixture_expect(f, END);
}

static void every_single_node_is_looked_at(void **state)
{
	struct fixture *f = *state;
	unsigned int found = 0;

	/*
	 * Whatever block is not data: if flipping a bit in it matters, it is a node, and it is
	 * named.
	 */
	for (uint64_t blkno = 2; blkno < 400; blkno++) {
		uint8_t block[SLU_BLOCK_SIZE];
		char name[32];

		slu_simdisk_peek(f->disk, blkno, block);
		block[3000] ^= 1;
		slu_simdisk_poke(f->disk, blkno, block);
		fixture_check(f);
		assert_int_equal(f->error, 0);
		if (f->result.problems) {
			if (f->result.problems != 1 || f->kinds[SLU_PROBLEM_NODE] != 1)
				fail_msg("block %llu: expected one problem, a node; found:\n%s",
					 (unsigned long long)blkno, f->texts);
			if (!strstr(f->texts, "cannot be opened")) {
				snprintf(name, sizeof(name), "block %llu ",
					 (unsigned long long)blkno);
				fixture_expect_text(f, name);
			}
			found++;
		}
		block[3000] ^= 1;
		slu_simdisk_poke(f->disk, blkno, block);
	}
	fixture_expect(f, END);
	assert_int_equal(found, f->result.node_blocks);
}

static void a_damaged_root_is_named(void **state)
{
	struct fixture *f = *state;
	uint64_t blkno = 0;

	for (unsigned int level = 1; !blkno && level < 4; level++)
		blkno = fixture_find_node(f, level, any_node);
	fixture_poke_node(f, blkno, node_flip_bit, false);
	fixture_expect(f, SLU_PROBLEM_NODE, END);
	assert_true(f->result.incomplete);
}

static void a_node_that_cannot_be_read_is_named(void **state)
{
	struct fixture *f = *state;
	struct slu_simdisk_fault fault = {.op = SLU_IO_READ,
					  .nth = 1,
					  .times = UINT64_MAX,
					  .blkno = fixture_find_node(f, 0, leaf_of_many),
					  .nblocks = 1,
					  .kind = SLU_FAULT_ERROR};

	slu_simdisk_fault(f->disk, &fault);
	fixture_expect(f, SLU_PROBLEM_NODE, END);
	fixture_expect_text(f, "cannot be read");
	slu_simdisk_fault(f->disk, NULL);
}

/* ------------------------------------------------------------------ blocks */

static void space_clear_bit(uint8_t *value, size_t len)
{
	assert_int_equal(len, SLU_CHUNK_BYTES);
	for (size_t i = 2; i < SLU_CHUNK_BLOCKS; i++) { /* the last block in use */
		size_t bit = SLU_CHUNK_BLOCKS - 1 - i;

		if (value[bit / 8] & 1 << bit % 8) {
			value[bit / 8] &= (uint8_t) ~(1 << bit % 8);
			return;
		}
	}
	fail_msg("chunk 0 has nothing in use");
}

static void space_set_bits(uint8_t *value, size_t len)
{
	assert_int_equal(len, SLU_CHUNK_BYTES);
	value[4000 / 8] |= 0x0f;
	value[4016 / 8] |= 0x01;
}

static void a_block_in_use_but_marked_free_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_poke_record(f, SLU_KEY(0, SLU_REC_SPACE, 0), space_clear_bit);
	fixture_expect(f, SLU_PROBLEM_BLOCK_UNMARKED, END);
}

static void blocks_that_nothing_owns_are_found_as_ranges(void **state)
{
	struct fixture *f = *state;

	fixture_poke_record(f, SLU_KEY(0, SLU_REC_SPACE, 0), space_set_bits);
	fixture_expect(f, SLU_PROBLEM_BLOCK_LOST, SLU_PROBLEM_BLOCK_LOST, END);
	fixture_expect_text(f, "blocks 4000 to 4003: marked in use, but nothing owns it");
	fixture_expect_text(f, "block 4016: marked");
}

static struct slu_disk_extent extent(uint64_t blkno, uint32_t n, uint32_t flags)
{
	struct slu_disk_extent de;

	slu_put_le64(&de.blkno, blkno);
	slu_put_le32(&de.nblocks, n);
	slu_put_le32(&de.flags, flags);
	return de;
}

static void block_to_other_file(uint8_t *value, size_t len)
{
	struct slu_disk_extent de;

	memcpy(&de, value, sizeof(de));
	slu_put_le64(&de.blkno, slu_get_le64(&de.blkno) - 1);
	memcpy(value, &de, sizeof(de));
}

static void a_block_with_two_owners_is_found_and_both_are_named(void **state)
{
	struct fixture *f = *state;
	char one[64], two[64];

	/*
	 * The third block of the file becomes its second one: that has two owners, the third none.
	 */
	fixture_poke_record(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3), block_to_other_file);
	fixture_expect(f, SLU_PROBLEM_BLOCK_SHARED, SLU_PROBLEM_BLOCK_LOST, END);
	snprintf(one, sizeof(one), "inode %llu (block 1 of the file)",
		 (unsigned long long)f->ino.file);
	snprintf(two, sizeof(two), "inode %llu (block 3 of the file)",
		 (unsigned long long)f->ino.file);
	fixture_expect_text(f, one);
	fixture_expect_text(f, two);
}

static uint64_t node_block;

static void block_to_node(uint8_t *value, size_t len)
{
	slu_put_le64(value, node_block);
}

static void a_file_that_owns_a_node_is_found(void **state)
{
	struct fixture *f = *state;

	node_block = fixture_find_node(f, 0, leaf_of_many);
	fixture_poke_record(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3), block_to_node);
	fixture_expect(f, SLU_PROBLEM_BLOCK_SHARED, SLU_PROBLEM_BLOCK_LOST, END);
	fixture_expect_text(f, "a node of the tree");
}

static void block_beyond_the_end(uint8_t *value, size_t len)
{
	slu_put_le64(value, FIXTURE_BLOCKS);
}

static void block_of_superblock(uint8_t *value, size_t len)
{
	slu_put_le64(value, 1);
}

static void blocks_outside_of_the_volume_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_poke_record(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3), block_beyond_the_end);
	fixture_expect(f, SLU_PROBLEM_BLOCK_RANGE, SLU_PROBLEM_BLOCK_LOST, END);
	fixture_poke_record(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 3), block_of_superblock);
	fixture_expect(f, SLU_PROBLEM_BLOCK_RANGE, SLU_PROBLEM_BLOCK_LOST, END);
}

/* ------------------------------------------------------------------ inodes */

static void inode_mode(struct slu_disk_inode *di)
{
	slu_put_le32(&di->mode, 0170644);
}

static void inode_flags(struct slu_disk_inode *di)
{
	slu_put_le32(&di->flags, 0x80000000u);
}

static void inode_size(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, 1ull << 63);
}

static void inode_parent(struct slu_disk_inode *di)
{
	slu_put_le64(&di->parent, 1);
}

static void inode_nanoseconds(struct slu_disk_inode *di)
{
	slu_put_le32(&di->mtime.nsec, 1000000000);
}

static void inode_rdev(struct slu_disk_inode *di)
{
	slu_put_le32(&di->rdev, 5);
}

static void impossible_fields_of_an_inode_are_found(void **state)
{
	static void (*const changes[])(struct slu_disk_inode *) = {inode_flags, inode_size,
								   inode_parent, inode_nanoseconds,
								   inode_rdev};
	struct fixture *f = *state;

	for (size_t i = 0; i < slu_array_size(changes); i++) {
		struct slu_disk_inode saved;

		fixture_open(f);
		fixture_get(f, SLU_KEY(f->ino.file, SLU_REC_INODE, 0), &saved, sizeof(saved));
		fixture_change_inode(f, f->ino.file, changes[i]);
		fixture_close(f);
		fixture_expect(f, SLU_PROBLEM_INODE, END);
		fixture_open(f);
		fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_INODE, 0), &saved, sizeof(saved));
		fixture_close(f);
	}
	fixture_open(f);
	fixture_change_inode(f, f->ino.fifo, inode_mode);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_INODE, SLU_PROBLEM_DIRENT_TYPE, END);
}

static void inode_more_links(struct slu_disk_inode *di)
{
	slu_put_le32(&di->nlink, slu_get_le32(&di->nlink) + 1);
}

static void wrong_link_counts_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.file, inode_more_links);
	fixture_change_inode(f, f->ino.dir, inode_more_links);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NLINK, SLU_PROBLEM_NLINK, END);
	fixture_expect_text(f, "has 2 names, its record says 3");
	fixture_expect_text(f, "has 1 subdirectories, so 3 links, its record says 4");
}

static void inode_no_links(struct slu_disk_inode *di)
{
	slu_put_le32(&di->nlink, 0);
}

/* It would be one that has been removed and is still open, if it had no name. */
static void an_empty_directory_without_links_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.sub, inode_no_links);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NLINK, END);
	fixture_expect_text(f, "has 1 names, its record says 0");
	assert_int_equal(fixture_repair(f), 0);
	fixture_expect_repaired(f);
}

static void inode_more_blocks(struct slu_disk_inode *di)
{
	slu_put_le64(&di->blocks, slu_get_le64(&di->blocks) + 1);
}

static void a_wrong_number_of_blocks_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.file, inode_more_blocks);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_BLOCKS, END);
	fixture_expect_text(f, "owns 5 blocks, its record says 6");
}

static void records_without_an_inode_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.none, SLU_REC_SYMLINK, 0), "x", 1);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_INODE_MISSING, END);
}

static void records_of_unknown_types_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.file, 99, 0), "x", 1);
	fixture_put(f, SLU_KEY(0, 9, 0), "x", 1);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_RECORD, SLU_PROBLEM_RECORD, END);
}

static void an_inode_record_of_the_wrong_length_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.fifo, SLU_REC_INODE, 0), "short", 5);
	fixture_close(f);
	fixture_check(f);
	assert_int_equal(f->kinds[SLU_PROBLEM_RECORD], 1);
	assert_int_equal(f->kinds[SLU_PROBLEM_DIRENT_DANGLING], 1);
}

/* ------------------------------------------------------------------ reachability */

static void an_inode_without_a_name_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(0, SLU_REC_ORPHAN, f->ino.orphan), NULL, 0);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_UNREACHABLE, END);
}

static void a_name_without_an_inode_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_del_dirent(f, f->ino.dir, "fifo");
	fixture_put_dirent(f, f->ino.dir, "fifo", f->ino.none, S_IFIFO);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIRENT_DANGLING, SLU_PROBLEM_UNREACHABLE, END);
	fixture_expect_text(f, "\"fifo\" leads to inode");
}

static void an_entry_of_the_wrong_type_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put_dirent(f, f->ino.dir, "fifo", f->ino.fifo, S_IFREG);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIRENT_TYPE, END);
}

static void a_directory_with_two_names_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put_dirent(f, f->ino.dir, "fifo", f->ino.sub, S_IFDIR);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIR_LINKS, SLU_PROBLEM_NLINK, SLU_PROBLEM_UNREACHABLE, END);
}

static void dir_entries(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, 7);
}

static void a_wrong_number_of_entries_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.dir, dir_entries);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIR_SIZE, END);
	fixture_expect_text(f, "has 2 entries, its record says 7");
}

static void a_wrong_parent_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.sub, inode_parent);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIR_PARENT, END);
}

static uint64_t loop_parent;

static void dir_loop_parent(struct slu_disk_inode *di)
{
	slu_put_le64(&di->parent, loop_parent);
}

static void root_without_dir(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, 5);
	slu_put_le32(&di->nlink, 3);
}

static void dir_with_itself(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, 1);
	slu_put_le32(&di->nlink, 3);
}

/* /dir is taken out of the root and put into its own subdirectory. */
static void directories_that_contain_each_other_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_del_dirent(f, SLU_INO_ROOT, "dir");
	fixture_change_inode(f, SLU_INO_ROOT, root_without_dir);
	fixture_put_dirent(f, f->ino.sub, "dir", f->ino.dir, S_IFDIR);
	fixture_change_inode(f, f->ino.sub, dir_with_itself);
	loop_parent = f->ino.sub;
	fixture_change_inode(f, f->ino.dir, dir_loop_parent);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIR_LOOP, END);
}

static void a_missing_root_directory_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(SLU_INO_ROOT, SLU_REC_INODE, 0), NULL, 0);
	fixture_close(f);
	fixture_check(f);
	assert_int_equal(f->kinds[SLU_PROBLEM_ROOT], 1);
	assert_int_equal(f->kinds[SLU_PROBLEM_INODE_MISSING], 1);
	assert_int_equal(f->kinds[SLU_PROBLEM_COUNT], 1);
}

/* ------------------------------------------------------------------ orphans */

static void put_orphan(struct fixture *f, uint64_t ino, uint8_t what, size_t len)
{
	struct slu_disk_orphan o = {.what = what};

	slu_put_le64(&o.size, 0);
	fixture_put(f, SLU_KEY(0, SLU_REC_ORPHAN, ino), &o, len);
}

static void orphans_that_contradict_their_inode_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_orphan(f, f->ino.none, SLU_ORPHAN_UNLINKED, sizeof(struct slu_disk_orphan));
	put_orphan(f, f->ino.dir, SLU_ORPHAN_TRUNCATE, sizeof(struct slu_disk_orphan));
	put_orphan(f, f->ino.sub, 9, sizeof(struct slu_disk_orphan));
	put_orphan(f, f->ino.symlink, SLU_ORPHAN_UNLINKED, 3);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_ORPHAN, SLU_PROBLEM_ORPHAN, SLU_PROBLEM_ORPHAN,
		       SLU_PROBLEM_ORPHAN, END);
	fixture_expect_text(f, "which does not exist");
	fixture_expect_text(f, "is no regular file");
	fixture_expect_text(f, "unknown kind 9");
	fixture_expect_text(f, "has 3 bytes");
}

static void an_orphan_with_a_name_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_orphan(f, f->ino.fifo, SLU_ORPHAN_UNLINKED, sizeof(struct slu_disk_orphan));
	fixture_close(f);
	/* Its links, and the name that leads to it. */
	fixture_expect(f, SLU_PROBLEM_ORPHAN, SLU_PROBLEM_ORPHAN, END);
}

/* ------------------------------------------------------------------ names */

static void put_name(struct fixture *f, const char *name, size_t len, struct slu_key key)
{
	struct slu_disk_dirent de = {.type = S_IFREG >> 12};
	uint8_t value[400];

	slu_put_le64(&de.ino, f->ino.file);
	memcpy(value, &de, sizeof(de));
	memcpy(value + sizeof(de), name, len);
	fixture_put(f, key, value, sizeof(de) + len);
}

static void root_one_more(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, slu_get_le64(&di->size) + 1);
}

static void names_that_cannot_be_are_found(void **state)
{
	static const char *const bad[] = {"with/slash", ".", ".."};
	struct fixture *f = *state;

	fixture_open(f);
	for (size_t i = 0; i < slu_array_size(bad); i++) {
		put_name(f, bad[i], strlen(bad[i]),
			 fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, bad[i], 0));
		fixture_change_inode(f, SLU_INO_ROOT, root_one_more);
		fixture_change_inode(f, f->ino.file, inode_more_links);
	}
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NAME, SLU_PROBLEM_NAME, SLU_PROBLEM_NAME, END);
	fixture_expect_text(f, "\"with/slash\" is no name");
}

static void an_entry_without_a_name_or_with_too_long_a_one_is_found(void **state)
{
	struct fixture *f = *state;
	char name[256];

	memset(name, 'n', sizeof(name));
	fixture_open(f);
	put_name(f, name, 0, fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, "", 0));
	put_name(f, name, 256, fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, "long", 0));
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIRENT, SLU_PROBLEM_DIRENT, END);
}

static void a_name_under_another_hash_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_name(f, "stray", 5, fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, "elsewhere", 0));
	fixture_change_inode(f, SLU_INO_ROOT, root_one_more);
	fixture_change_inode(f, f->ino.file, inode_more_links);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NAME_HASH, END);
	fixture_expect_text(f, "name \"stray\" lies under the hash of another name");
}

static void a_name_that_is_there_twice_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_name(f, "file", 4, fixture_name_key(SLU_INO_ROOT, SLU_REC_DIRENT, "file", 5));
	fixture_change_inode(f, SLU_INO_ROOT, root_one_more);
	fixture_change_inode(f, f->ino.file, inode_more_links);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NAME_DUPLICATE, END);
}

static void entries_of_what_is_no_directory_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_name(f, "inside", 6, fixture_name_key(f->ino.fifo, SLU_REC_DIRENT, "inside", 0));
	fixture_change_inode(f, f->ino.file, inode_more_links);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_DIRENT, END);
}

/* ------------------------------------------------------------------ extents */

static void malformed_extents_are_found(void **state)
{
	struct slu_disk_extent bad[] = {extent(100, 0, 0), extent(100, SLU_EXTENT_MAX + 1, 0),
					extent(100, 1, 8)};
	struct fixture *f = *state;

	fixture_open(f);
	for (size_t i = 0; i < slu_array_size(bad); i++)
		fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 100 + i), &bad[i],
			    sizeof(bad[i]));
	fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, 200), "short", 5);
	bad[0] = extent(100, 2, 0);
	fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_EXTENT, UINT64_MAX >> SLU_BLOCK_SHIFT), &bad[0],
		    sizeof(bad[0]));
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_EXTENT, SLU_PROBLEM_EXTENT, SLU_PROBLEM_EXTENT,
		       SLU_PROBLEM_EXTENT, SLU_PROBLEM_EXTENT, END);
}

static void put_owned_extent(struct fixture *f, uint64_t ino, uint64_t at, uint32_t n,
			     uint32_t flags)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_EXTENT, at);
	struct slu_disk_extent de;
	struct slu_batch b;

	slu_batch_init(&b);
	de = extent(fixture_take(f, n, &b), n, flags);
	slu_batch_put(&b, &key, &de, sizeof(de));
	fixture_apply(f, &b);
}

static void two_extents_for_one_place_in_a_file_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_owned_extent(f, f->ino.file, 1, 1, 0);
	fixture_change_inode(f, f->ino.file, inode_more_blocks);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_EXTENT_OVERLAP, END);
	fixture_expect_text(f, "two extents for block 1 of the file");
}

static void data_beyond_the_end_is_found_unless_it_is_unwritten(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_owned_extent(f, f->ino.file, 20, 1, SLU_EXTENT_UNWRITTEN);
	fixture_change_inode(f, f->ino.file, inode_more_blocks);
	fixture_close(f);
	fixture_expect(f, END);
	fixture_open(f);
	put_owned_extent(f, f->ino.file, 30, 1, 0);
	fixture_change_inode(f, f->ino.file, inode_more_blocks);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_EXTENT_BEYOND, END);
	/*
	 * And what a truncate has promised to free is no damage only as long as the promise stands.
	 */
	fixture_open(f);
	fixture_put(f, SLU_KEY(0, SLU_REC_ORPHAN, f->ino.cut), NULL, 0);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_EXTENT_BEYOND, SLU_PROBLEM_EXTENT_BEYOND, END);
}

static void extents_of_what_is_no_file_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_owned_extent(f, f->ino.sub, 0, 1, SLU_EXTENT_UNWRITTEN);
	fixture_change_inode(f, f->ino.sub, inode_more_blocks);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_EXTENT, END);
}

/* ------------------------------------------------------------------ symlinks */

static void symlink_size(struct slu_disk_inode *di)
{
	slu_put_le64(&di->size, 2499);
}

static void a_symlink_of_the_wrong_length_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.symlink, symlink_size);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_SYMLINK, END);
	fixture_expect_text(f, "has 2500 bytes, its record says 2499");
}

static void a_symlink_with_a_part_missing_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.symlink, SLU_REC_SYMLINK, 1), NULL, 0);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_SYMLINK, SLU_PROBLEM_SYMLINK, END);
}

static void a_nul_in_a_symlink_is_found(void **state)
{
	struct fixture *f = *state;
	char part[452];

	memset(part, 't', sizeof(part));
	part[100] = 0;
	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.symlink, SLU_REC_SYMLINK, 2), part, sizeof(part));
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_SYMLINK, END);
}

/* ------------------------------------------------------------------ extended attributes */

static void put_xattr(struct fixture *f, const char *name, uint16_t number, uint32_t value_len,
		      size_t there)
{
	struct slu_disk_xattr dx = {.name_len = (uint8_t)strlen(name)};
	uint8_t value[SLU_VALUE_MAX] = {0};

	slu_put_le32(&dx.value_len, value_len);
	memcpy(value, &dx, sizeof(dx));
	memcpy(value + sizeof(dx), name, strlen(name));
	fixture_put(f, fixture_name_key(f->ino.file, SLU_REC_XATTR, name, number), value,
		    sizeof(dx) + strlen(name) + there);
}

static void inode_more_xattrs(struct slu_disk_inode *di)
{
	slu_put_le32(&di->nxattr, slu_get_le32(&di->nxattr) + 1);
}

static void a_wrong_number_of_attributes_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_change_inode(f, f->ino.file, inode_more_xattrs);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_XATTR, END);
	fixture_expect_text(f, "has 2 extended attributes, its record says 3");
}

static void malformed_attributes_are_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_xattr(f, "user.cut", 0, 100, 99);
	put_xattr(f, "other.name", 0, 1, 1);
	put_xattr(f, "user.", 0, 1, 1);
	put_xattr(f, "system.posix_acl_access", 0, 5, 5);
	for (int i = 0; i < 4; i++)
		fixture_change_inode(f, f->ino.file, inode_more_xattrs);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_XATTR, SLU_PROBLEM_XATTR, SLU_PROBLEM_XATTR,
		       SLU_PROBLEM_XATTR, END);
	fixture_expect_text(f, "\"other.name\" is no name of an extended attribute");
	fixture_expect_text(f, "is no ACL");
}

static void an_attribute_that_is_there_twice_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	put_xattr(f, "user.small", 1, 3, 3);
	fixture_change_inode(f, f->ino.file, inode_more_xattrs);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NAME_DUPLICATE, END);
}

static void a_value_with_parts_missing_or_too_many_is_found(void **state)
{
	struct fixture *f = *state;

	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_XATTR_PART, 3 << 8 | 2), NULL, 0);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_XATTR_PART, END);
	fixture_expect_text(f, "has 2048 bytes, its attribute says 2500");
	fixture_open(f);
	fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_XATTR_PART, 3 << 8 | 3), "x", 1);
	fixture_put(f, SLU_KEY(f->ino.file, SLU_REC_XATTR_PART, 9 << 8), "x", 1);
	fixture_close(f);
	/* Out of turn, still too short, and of nothing. */
	fixture_expect(f, SLU_PROBLEM_XATTR_PART, SLU_PROBLEM_XATTR_PART, SLU_PROBLEM_XATTR_PART,
		       END);
	fixture_expect_text(f, "belongs to no extended attribute");
}

/* ------------------------------------------------------------------ the run itself */

static int stop_at_third(void *ctx, uint64_t done, uint64_t total)
{
	unsigned int *calls = ctx;

	assert_true(done <= total);
	return ++*calls == 3;
}

static void a_check_can_be_cancelled(void **state)
{
	struct fixture *f = *state;
	const struct slu_blockio_opts bopts = {.engine = "sim", .sim = f->disk, .readonly = true};
	unsigned int calls = 0;
	const struct slu_check_opts opts = {.progress = stop_at_third, .ctx = &calls};
	struct slu_check_result result;
	struct slu_blockio *bio;
	const char *why;

	assert_int_equal(slu_blockio_open("sim", &bopts, &bio), 0);
	assert_int_equal(slu_check(bio, &opts, &result, &why), -ECANCELED);
	assert_int_equal(calls, 3);
	slu_blockio_close(bio);
}

static void every_kind_has_a_name(void **state)
{
	for (int i = 0; i < SLU_PROBLEM_NKINDS; i++)
		assert_non_null(slu_problem_name(i));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_sound_volume_has_no_problems),
		TEST(either_superblock_damaged_is_named),
		TEST(both_superblocks_damaged_is_damage_and_the_spare_one_is_named),
		cmocka_unit_test_setup_teardown(
			without_a_spare_one_both_damaged_are_not_a_foreign_image,
			setup_without_spare, teardown),
		TEST(a_spare_superblock_that_is_wrong_is_named),
		TEST(a_superblock_torn_by_a_power_cut_is_a_note),
		TEST(superblocks_that_contradict_each_other_are_found),
		TEST(superblocks_far_apart_are_found),
		TEST(superblocks_with_failed_commits_between_them_are_sound),
		TEST(fields_of_a_superblock_are_checked),
		TEST(every_count_of_the_superblock_is_compared),
		TEST(an_unknown_version_is_no_damage),
		TEST(an_image_shorter_than_its_volume_is_no_damage),
		TEST(an_inode_beyond_the_next_number_is_found),
		TEST(a_deferred_block_must_be_marked_and_nobody_elses),
		TEST(a_damaged_leaf_is_named_and_nothing_is_blamed_on_its_neighbours),
		TEST(every_single_node_is_looked_at),
		TEST(a_damaged_root_is_named),
		TEST(a_node_that_cannot_be_read_is_named),
		TEST(a_block_in_use_but_marked_free_is_found),
		TEST(blocks_that_nothing_owns_are_found_as_ranges),
		TEST(a_block_with_two_owners_is_found_and_both_are_named),
		TEST(a_file_that_owns_a_node_is_found),
		TEST(blocks_outside_of_the_volume_are_found),
		TEST(impossible_fields_of_an_inode_are_found),
		TEST(wrong_link_counts_are_found),
		TEST(an_empty_directory_without_links_is_found),
		TEST(a_wrong_number_of_blocks_is_found),
		TEST(records_without_an_inode_are_found),
		TEST(records_of_unknown_types_are_found),
		TEST(an_inode_record_of_the_wrong_length_is_found),
		TEST(an_inode_without_a_name_is_found),
		TEST(a_name_without_an_inode_is_found),
		TEST(an_entry_of_the_wrong_type_is_found),
		TEST(a_directory_with_two_names_is_found),
		TEST(a_wrong_number_of_entries_is_found),
		TEST(a_wrong_parent_is_found),
		TEST(directories_that_contain_each_other_are_found),
		TEST(a_missing_root_directory_is_found),
		TEST(orphans_that_contradict_their_inode_are_found),
		TEST(an_orphan_with_a_name_is_found),
		TEST(names_that_cannot_be_are_found),
		TEST(an_entry_without_a_name_or_with_too_long_a_one_is_found),
		TEST(a_name_under_another_hash_is_found),
		TEST(a_name_that_is_there_twice_is_found),
		TEST(entries_of_what_is_no_directory_are_found),
		TEST(malformed_extents_are_found),
		TEST(two_extents_for_one_place_in_a_file_are_found),
		TEST(data_beyond_the_end_is_found_unless_it_is_unwritten),
		TEST(extents_of_what_is_no_file_are_found),
		TEST(a_symlink_of_the_wrong_length_is_found),
		TEST(a_symlink_with_a_part_missing_is_found),
		TEST(a_nul_in_a_symlink_is_found),
		TEST(a_wrong_number_of_attributes_is_found),
		TEST(malformed_attributes_are_found),
		TEST(an_attribute_that_is_there_twice_is_found),
		TEST(a_value_with_parts_missing_or_too_many_is_found),
		TEST(a_check_can_be_cancelled),
		cmocka_unit_test(every_kind_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
