/* SPDX-License-Identifier: MIT */
/* The sample volume of the tests of check; see check_fixture.h. */
#include "check_fixture.h"
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define MODE_FILE    (S_IFREG | 0644)
#define MODE_DIR     (S_IFDIR | 0755)
#define MODE_SYMLINK (S_IFLNK | 0777)

/* ------------------------------------------------------------------ life */

static struct slu_blockio *open_bio(struct slu_simdisk *disk, bool readonly)
{
	const struct slu_blockio_opts opts = {.engine = "sim", .sim = disk, .readonly = readonly};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("sim", &opts, &bio), 0);
	return bio;
}

void fixture_open(struct fixture *f)
{
	const struct slu_store_opts opts = {.commit_interval_ns = 1000 * SLU_NS_PER_SEC};
	const char *why = NULL;

	f->bio = open_bio(f->disk, false);
	if (slu_store_open(f->bio, &opts, &f->store, &why))
		fail_msg("the sample volume cannot be opened: %s", why);
}

void fixture_close(struct fixture *f)
{
	assert_int_equal(slu_store_close(f->store), 0);
	slu_blockio_close(f->bio);
	f->store = NULL;
	f->bio = NULL;
}

void fixture_free(struct fixture *f)
{
	assert_null(f->store);
	slu_simdisk_free(f->disk);
}

/* ------------------------------------------------------------------ records */

void fixture_apply(struct fixture *f, struct slu_batch *b)
{
	struct slu_ticket ticket = {0};

	assert_int_equal(slu_ticket_get(f->store, &ticket, SLU_BATCH_MAX_RECORDS,
					SLU_BATCH_MAX_BYTES, 0, NULL),
			 0);
	assert_int_equal(slu_store_apply(f->store, &ticket, b, NULL, NULL), 0);
	slu_ticket_put(&ticket);
	slu_batch_fini(b);
}

void fixture_put(struct fixture *f, struct slu_key key, const void *value, size_t len)
{
	struct slu_batch b;

	slu_batch_init(&b);
	if (value)
		slu_batch_put(&b, &key, value, len);
	else
		slu_batch_del(&b, &key);
	fixture_apply(f, &b);
}

int fixture_get(struct fixture *f, struct slu_key key, void *value, size_t size)
{
	int len = slu_store_get(f->store, &key, value, size, NULL);

	if (len < 0)
		fail_msg("no record (%llu, %u, %llu)", (unsigned long long)key.ino, key.type,
			 (unsigned long long)key.off);
	return len;
}

struct slu_key fixture_name_key(uint64_t ino, uint8_t type, const char *name, uint16_t number)
{
	uint64_t h = XXH3_64bits_withSeed(name, strlen(name), FIXTURE_SEED) >> 17;

	return SLU_KEY(ino, type, (h ? h : 1) << 16 | number);
}

static size_t make_dirent(uint8_t *value, const char *name, uint64_t target, unsigned int type)
{
	struct slu_disk_dirent de = {.type = (uint8_t)(type >> 12)};

	slu_put_le64(&de.ino, target);
	memcpy(value, &de, sizeof(de));
	memcpy(value + sizeof(de), name, strlen(name));
	return sizeof(de) + strlen(name);
}

void fixture_put_dirent(struct fixture *f, uint64_t dir, const char *name, uint64_t target,
			unsigned int type)
{
	uint8_t value[300];
	size_t len = make_dirent(value, name, target, type);

	fixture_put(f, fixture_name_key(dir, SLU_REC_DIRENT, name, 0), value, len);
}

void fixture_del_dirent(struct fixture *f, uint64_t dir, const char *name)
{
	fixture_put(f, fixture_name_key(dir, SLU_REC_DIRENT, name, 0), NULL, 0);
}

void fixture_change_inode(struct fixture *f, uint64_t ino, void (*fn)(struct slu_disk_inode *di))
{
	struct slu_disk_inode di;

	fixture_get(f, SLU_KEY(ino, SLU_REC_INODE, 0), &di, sizeof(di));
	fn(&di);
	fixture_put(f, SLU_KEY(ino, SLU_REC_INODE, 0), &di, sizeof(di));
}

uint64_t fixture_take(struct fixture *f, uint64_t nblocks, struct slu_batch *batch)
{
	struct slu_reservation r = {0};
	uint64_t blkno, got;

	assert_int_equal(slu_space_reserve(f->store, &r, nblocks, 1, NULL), 0);
	assert_int_equal(slu_space_take(f->store, &r, 0, nblocks, &blkno, &got, NULL), 0);
	assert_int_equal(got, nblocks);
	slu_space_unreserve(f->store, &r, r.blocks, r.records);
	slu_batch_own(batch, blkno, nblocks);
	return blkno;
}

/* ------------------------------------------------------------------ the sample volume */

static void put_inode(struct slu_batch *b, uint64_t ino, uint32_t mode, uint32_t nlink,
		      uint64_t size, uint64_t blocks, uint64_t parent, uint32_t nxattr)
{
	struct slu_disk_inode di = {0};
	struct slu_key key = SLU_KEY(ino, SLU_REC_INODE, 0);

	slu_put_le32(&di.mode, mode);
	slu_put_le32(&di.nlink, nlink);
	slu_put_le64(&di.size, size);
	slu_put_le64(&di.blocks, blocks);
	slu_put_le64(&di.parent, parent);
	slu_put_le32(&di.nxattr, nxattr);
	slu_put_le32(&di.generation, 1);
	slu_batch_put(b, &key, &di, sizeof(di));
}

static void put_dirent(struct slu_batch *b, uint64_t dir, const char *name, uint64_t target,
		       unsigned int type)
{
	struct slu_key key = fixture_name_key(dir, SLU_REC_DIRENT, name, 0);
	uint8_t value[300];

	slu_batch_put(b, &key, value, make_dirent(value, name, target, type));
}

static void put_extent(struct slu_batch *b, uint64_t ino, uint64_t at, uint64_t blkno, uint32_t n,
		       uint32_t flags)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_EXTENT, at);
	struct slu_disk_extent de;

	slu_put_le64(&de.blkno, blkno);
	slu_put_le32(&de.nblocks, n);
	slu_put_le32(&de.flags, flags);
	slu_batch_put(b, &key, &de, sizeof(de));
}

static void put_orphan(struct slu_batch *b, uint64_t ino, uint8_t what, uint64_t size)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, ino);
	struct slu_disk_orphan o = {.what = what};

	slu_put_le64(&o.size, size);
	slu_batch_put(b, &key, &o, sizeof(o));
}

/* One value inline, one of 2,500 bytes in three parts. */
static void put_xattrs(struct slu_batch *b, uint64_t ino)
{
	struct slu_key key = fixture_name_key(ino, SLU_REC_XATTR, "user.small", 0);
	struct slu_disk_xattr dx = {.name_len = strlen("user.small")};
	uint8_t value[SLU_VALUE_MAX] = {0};

	slu_put_le32(&dx.value_len, 5);
	memcpy(value, &dx, sizeof(dx));
	memcpy(value + sizeof(dx), "user.smallvalue", 15);
	slu_batch_put(b, &key, value, sizeof(dx) + 15);

	dx = (struct slu_disk_xattr){.flags = 1, .name_len = strlen("user.large")};
	slu_put_le32(&dx.value_len, 2500);
	slu_put_le32(&dx.part_id, 3);
	key = fixture_name_key(ino, SLU_REC_XATTR, "user.large", 0);
	memcpy(value, &dx, sizeof(dx));
	memcpy(value + sizeof(dx), "user.large", 10);
	slu_batch_put(b, &key, value, sizeof(dx) + 10);
	memset(value, 'v', sizeof(value));
	for (uint64_t part = 0; part < 3; part++) {
		key = SLU_KEY(ino, SLU_REC_XATTR_PART, 3 << 8 | part);
		slu_batch_put(b, &key, value, part < 2 ? SLU_VALUE_MAX : 2500 - 2 * SLU_VALUE_MAX);
	}
}

static void put_symlink(struct slu_batch *b, uint64_t ino)
{
	uint8_t target[SLU_VALUE_MAX];

	memset(target, 't', sizeof(target));
	put_inode(b, ino, MODE_SYMLINK, 1, 2500, 0, 0, 0);
	for (uint64_t part = 0; part < 3; part++) {
		struct slu_key key = SLU_KEY(ino, SLU_REC_SYMLINK, part);

		slu_batch_put(b, &key, target, part < 2 ? SLU_VALUE_MAX : 2500 - 2 * SLU_VALUE_MAX);
	}
}

/* Enough files in a directory of their own for a tree of two levels: /many/0 … */
void fixture_fill(struct fixture *f, uint64_t dir, unsigned int n)
{
	for (unsigned int i = 0; i < n; i += 32) {
		struct slu_batch b;

		slu_batch_init(&b);
		for (unsigned int j = i; j < i + 32; j++) {
			uint64_t ino = slu_store_new_ino(f->store);
			char name[16];

			snprintf(name, sizeof(name), "%u", j);
			put_inode(&b, ino, MODE_FILE, 1, 0, 0, 0, 0);
			put_dirent(&b, dir, name, ino, S_IFREG);
		}
		slu_batch_inodes(&b, 32);
		fixture_apply(f, &b);
	}
}

#define FIXTURE_MANY 320

static void fixture_write(struct fixture *f)
{
	struct fixture_inodes *ino = &f->ino;
	uint64_t *all[] = {&ino->file,    &ino->dir,    &ino->sub, &ino->fifo,
			   &ino->symlink, &ino->orphan, &ino->cut, &ino->none};
	uint64_t many = slu_store_new_ino(f->store), blkno;
	struct slu_batch b;

	for (size_t i = 0; i < slu_array_size(all); i++)
		*all[i] = slu_store_new_ino(f->store);
	slu_batch_init(&b);
	put_inode(&b, SLU_INO_ROOT, MODE_DIR, 4, 6, 0, SLU_INO_ROOT, 0);
	put_dirent(&b, SLU_INO_ROOT, "file", ino->file, S_IFREG);
	put_dirent(&b, SLU_INO_ROOT, "hard", ino->file, S_IFREG);
	put_dirent(&b, SLU_INO_ROOT, "dir", ino->dir, S_IFDIR);
	put_dirent(&b, SLU_INO_ROOT, "symlink", ino->symlink, S_IFLNK);
	put_dirent(&b, SLU_INO_ROOT, "cut", ino->cut, S_IFREG);
	put_dirent(&b, SLU_INO_ROOT, "many", many, S_IFDIR);
	put_inode(&b, ino->dir, MODE_DIR, 3, 2, 0, SLU_INO_ROOT, 0);
	put_dirent(&b, ino->dir, "sub", ino->sub, S_IFDIR);
	put_dirent(&b, ino->dir, "fifo", ino->fifo, S_IFIFO);
	put_inode(&b, ino->sub, MODE_DIR, 2, 0, 0, ino->dir, 0);
	put_inode(&b, ino->fifo, S_IFIFO | 0600, 1, 0, 0, 0, 0);
	put_inode(&b, many, MODE_DIR, 2, FIXTURE_MANY, 0, SLU_INO_ROOT, 0);
	put_symlink(&b, ino->symlink);

	put_inode(&b, ino->file, MODE_FILE, 2, 3 * SLU_BLOCK_SIZE + 100, 5, 0, 2);
	put_xattrs(&b, ino->file);
	f->data = blkno = fixture_take(f, 5, &b);
	put_extent(&b, ino->file, 0, blkno, 2, 0);
	put_extent(&b, ino->file, 3, blkno + 2, 1, 0);
	put_extent(&b, ino->file, 10, blkno + 3, 2, SLU_EXTENT_UNWRITTEN);

	put_inode(&b, ino->orphan, MODE_FILE, 0, 100, 1, 0, 0);
	put_extent(&b, ino->orphan, 0, fixture_take(f, 1, &b), 1, 0);
	put_orphan(&b, ino->orphan, SLU_ORPHAN_UNLINKED, 0);

	put_inode(&b, ino->cut, MODE_FILE, 1, SLU_BLOCK_SIZE, 3, 0, 0);
	blkno = fixture_take(f, 3, &b);
	put_extent(&b, ino->cut, 0, blkno, 3, 0);
	put_orphan(&b, ino->cut, SLU_ORPHAN_TRUNCATE, SLU_BLOCK_SIZE);
	slu_batch_inodes(&b, 8);
	fixture_apply(f, &b);
	fixture_fill(f, many, FIXTURE_MANY);
}

static void make(struct fixture *f, bool no_spare)
{
	struct slu_format_params params = {
		.nblocks = FIXTURE_BLOCKS,
		.label = "sample",
		.volume_id = {1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16},
		.hash_seed = FIXTURE_SEED,
		.ninodes = 1,
		.no_spare = no_spare,
	};
	struct slu_batch root;

	memset(f, 0, sizeof(*f));
	f->disk = slu_simdisk_new(FIXTURE_BLOCKS, 1);
	slu_simdisk_inline(f->disk, true);
	slu_batch_init(&root);
	put_inode(&root, SLU_INO_ROOT, MODE_DIR, 2, 0, 0, SLU_INO_ROOT, 0);
	params.records = &root;
	f->bio = open_bio(f->disk, false);
	assert_int_equal(slu_store_format(f->bio, &params), 0);
	slu_blockio_close(f->bio);
	slu_batch_fini(&root);
	fixture_open(f);
	fixture_write(f);
	fixture_close(f);
}

void fixture_new(struct fixture *f)
{
	make(f, false);
}

void fixture_new_without_spare(struct fixture *f)
{
	make(f, true);
}

/* ------------------------------------------------------------------ behind the store's back */

struct find {
	unsigned int level;
	bool (*fn)(const struct slu_disk_node *node);
	struct slu_key key; /* with fn NULL: the leaf that has this record */
	uint64_t blkno;
	unsigned int off, len;
};

static bool find_key(struct find *find, const struct slu_disk_node *node)
{
	const struct slu_disk_leaf_slot *slots = (const struct slu_disk_leaf_slot *)node->body;

	for (unsigned int i = 0; i < slu_get_le16(&node->count); i++) {
		struct slu_key key = slu_key_get(slots[i].key);

		if (slu_key_cmp(&key, &find->key) == 0) {
			find->off = slu_get_le16(&slots[i].off);
			find->len = slu_get_le16(&slots[i].len);
			return true;
		}
	}
	return false;
}

static int find_visit(void *ctx, const struct slu_node_visit *v)
{
	struct find *find = ctx;

	if (v->wrong || v->level != find->level || find->blkno)
		return 0;
	if (find->fn ? find->fn(v->node) : find_key(find, v->node))
		find->blkno = v->blkno;
	return 0;
}

static void find_node(struct fixture *f, struct find *find)
{
	const struct slu_store_opts opts = {.readonly = true};
	struct slu_blockio *bio = open_bio(f->disk, true);
	struct slu_store *store;

	assert_null(f->store);
	assert_int_equal(slu_store_open(bio, &opts, &store, NULL), 0);
	assert_int_equal(slu_store_walk(store, find_visit, find), 0);
	assert_int_equal(slu_store_close(store), 0);
	slu_blockio_close(bio);
	if (!find->blkno)
		fail_msg("the sample volume has no such node");
}

uint64_t fixture_find_node(struct fixture *f, unsigned int level,
			   bool (*fn)(const struct slu_disk_node *node))
{
	struct find find = {.level = level, .fn = fn};

	find_node(f, &find);
	return find.blkno;
}

static void node_checksum(struct slu_disk_node *node)
{
	uint64_t seed = XXH3_64bits(node->volume_id, sizeof(node->volume_id));

	slu_put_le64(&node->checksum,
		     XXH3_64bits_withSeed((const char *)node + 8, SLU_BLOCK_SIZE - 8, seed));
}

void fixture_poke_node(struct fixture *f, uint64_t blkno, void (*fn)(struct slu_disk_node *node),
		       bool checksum)
{
	struct slu_disk_node node;

	slu_simdisk_peek(f->disk, blkno, &node);
	fn(&node);
	if (checksum)
		node_checksum(&node);
	slu_simdisk_poke(f->disk, blkno, &node);
}

void fixture_poke_record(struct fixture *f, struct slu_key key,
			 void (*fn)(uint8_t *value, size_t len))
{
	struct find find = {.key = key};
	struct slu_disk_node node;

	find_node(f, &find);
	slu_simdisk_peek(f->disk, find.blkno, &node);
	fn((uint8_t *)&node + find.off, find.len);
	node_checksum(&node);
	slu_simdisk_poke(f->disk, find.blkno, &node);
}

void fixture_poke_super(struct fixture *f, unsigned int slots, void (*fn)(struct slu_disk_super *s),
			bool checksum)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct slu_disk_super s;

		if (!(slots & 1u << i))
			continue;
		slu_simdisk_peek(f->disk, i, &s);
		fn(&s);
		if (checksum)
			slu_put_le64(&s.checksum, XXH3_64bits((const char *)&s + 8, sizeof(s) - 8));
		slu_simdisk_poke(f->disk, i, &s);
	}
}

/* ------------------------------------------------------------------ checking */

static void on_problem(void *ctx, const struct slu_problem *p)
{
	struct fixture *f = ctx;
	size_t n = strlen(f->texts);

	assert_true(p->kind < SLU_PROBLEM_NKINDS);
	assert_null(strchr(p->text, '\n'));
	if (p->note)
		f->notes++;
	else
		f->kinds[p->kind]++;
	snprintf(f->texts + n, sizeof(f->texts) - n, "  %s%s: %s\n", p->note ? "(note) " : "",
		 slu_problem_name(p->kind), p->text);
}

void fixture_check(struct fixture *f)
{
	const struct slu_check_opts opts = {.problem = on_problem, .ctx = f};
	struct slu_blockio *bio = open_bio(f->disk, true);
	uint64_t found = 0;

	assert_null(f->store);
	memset(f->kinds, 0, sizeof(f->kinds));
	f->texts[0] = 0;
	f->notes = 0;
	f->why = NULL;
	f->error = slu_check(bio, &opts, &f->result, &f->why);
	slu_blockio_close(bio);
	for (size_t i = 0; i < SLU_PROBLEM_NKINDS; i++)
		found += f->kinds[i];
	assert_int_equal(found, f->result.problems);
	assert_int_equal(f->notes, f->result.notes);
}

void fixture_expect(struct fixture *f, ...)
{
	unsigned int expected[SLU_PROBLEM_NKINDS] = {0};
	va_list ap;

	va_start(ap, f);
	for (int kind; (kind = va_arg(ap, int)) != SLU_PROBLEM_NKINDS;)
		expected[kind]++;
	va_end(ap);
	fixture_check(f);
	if (f->error)
		fail_msg("the check failed: %d, %s\n%s", f->error, f->why, f->texts);
	for (int i = 0; i < SLU_PROBLEM_NKINDS; i++) {
		if (expected[i] != f->kinds[i])
			fail_msg("expected %u problems of kind %s, found %u; all that was "
				 "found:\n%s",
				 expected[i], slu_problem_name(i), f->kinds[i], f->texts);
	}
}

void fixture_expect_text(const struct fixture *f, const char *text)
{
	if (!strstr(f->texts, text))
		fail_msg("expected a text with \"%s\", found:\n%s", text, f->texts);
}

/* ------------------------------------------------------------------ repairing */

static void on_repair(void *ctx, const char *text, bool detail)
{
	struct fixture *f = ctx;
	size_t n = strlen(f->texts);

	assert_null(strchr(text, '\n'));
	snprintf(f->texts + n, sizeof(f->texts) - n, "  %s%s\n", detail ? "(detail) " : "", text);
}

int fixture_repair(struct fixture *f)
{
	const struct slu_repair_opts opts = {.did = on_repair, .ctx = f, .uid = 1234, .gid = 5678};
	struct slu_blockio *bio = open_bio(f->disk, false);
	int err;

	assert_null(f->store);
	f->texts[0] = 0;
	f->why = NULL;
	err = slu_repair(bio, &opts, &f->repaired, &f->why);
	slu_blockio_close(bio);
	return err;
}

void fixture_expect_repaired(struct fixture *f)
{
	char texts[sizeof(f->texts)];
	int err = fixture_repair(f);

	if (err)
		fail_msg("the repair failed: %d, %s\n%s", err, f->why, f->texts);
	memcpy(texts, f->texts, sizeof(texts));
	fixture_check(f);
	if (f->error || f->result.problems || f->notes)
		fail_msg("after the repair:\n%s\nwhat it did:\n%s", f->texts, texts);
	assert_true(f->result.was_clean);
	/* The store takes its tree for one of its own. */
	fixture_open(f);
	fixture_put(f, SLU_KEY(SLU_INO_ROOT, SLU_REC_XATTR_PART, 1), "x", 1);
	fixture_put(f, SLU_KEY(SLU_INO_ROOT, SLU_REC_XATTR_PART, 1), NULL, 0);
	fixture_close(f);
	fixture_expect(f, SLU_PROBLEM_NKINDS);
	memcpy(f->texts, texts, sizeof(texts));
}
