/* SPDX-License-Identifier: MIT */
/*
 * A damaged node is EIO for what needs it, and nothing else. A volume with a tree of three levels is
 * mounted again and again, each time with another of its nodes damaged. Which records a node holds
 * comes from a walk over the sound tree, so what must work and what must not is known beforehand for
 * every name, page, attribute and target.
 */
#include "fs_rig.h"
#include "sluice/check.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define BLOCKS       65536u /* 256 MiB: more records of free space than one leaf holds */
#define SPACE_BYTES  ((uint64_t)160 * MIB)
#define NDIRS        6u
#define NFILES       8u
#define NLINKS       18u
#define BIG_EXTENTS  120u
#define TARGET_LEN   4000u
#define LARGE_XATTR  3000u
#define SMALL_XATTR  20u
#define MAX_THINGS   256u
#define MAX_RECORDS  8192u
#define MAX_NODES    512u
#define HASH_NUMBERS 65536u /* offsets that names of one hash may have */

/* A name and what it leads to. */
struct thing {
	char name[16];
	uint64_t dir, ino;
	mode_t type;
	uint32_t npages, stride; /* of a file: how many pages have data, and how far apart */
	uint32_t large;          /* bytes of user.large; 0: none */
	bool small;              /* has user.small */
};

struct record {
	struct slu_key key;
	uint64_t ino;     /* DIRENT: whose name it is */
	uint32_t part_id; /* XATTR: of its parts */
	uint32_t nblocks; /* EXTENT */
	char name[24];    /* DIRENT, XATTR */
};

struct node {
	uint64_t blkno;
	unsigned int level;
	struct slu_key lower, upper;
};

static struct {
	struct slu_simdisk *disk; /* sound, and unmounted */
	uint64_t hash_seed, next_ino, space_ino;
	struct thing things[MAX_THINGS];
	struct record records[MAX_RECORDS];
	struct node nodes[MAX_NODES];
	unsigned int nthings, nrecords, nnodes;
} volume;

/* One mount with one node damaged. */
struct run {
	struct rig rig;
	const struct node *node;
	_Atomic unsigned int told, others; /* events: that name the node; not expected */
	struct slu_check_result checked;
	unsigned int named; /* problems of the check that are this node */
	char text[256];     /* of the last problem */
};

static struct run *the_run;

#define must(cond)                                                                                \
	do {                                                                                      \
		if (!(cond))                                                                      \
			fail_msg("line %d: %s; node %llu, level %u", __LINE__, #cond,             \
				 (unsigned long long)the_run->node->blkno, the_run->node->level); \
	} while (0)

/* ------------------------------------------------------------------ the volume */

/* len: up to a page. Quickly, since each page is made anew for each node. */
static void *filled(size_t len, uint64_t seed)
{
	uint64_t *words = malloc(SLU_BLOCK_SIZE);

	for (size_t i = 0; i < SLU_BLOCK_SIZE / sizeof(*words); i++)
		words[i] = (seed << 16 | i) * 0x9e3779b97f4a7c15ull;
	assert_in_range(len, 1, SLU_BLOCK_SIZE);
	return words;
}

static void target_of(uint64_t ino, char *buf)
{
	memset(buf, 'a' + (int)(ino % 26), TARGET_LEN);
	snprintf(buf, TARGET_LEN, "%llu", (unsigned long long)ino);
	buf[strlen(buf)] = '/';
	buf[TARGET_LEN] = 0;
}

static uint64_t page_seed(uint64_t ino, uint32_t page)
{
	return ino * 1000 + page;
}

static void write_page(struct rig *r, uint64_t ino, uint32_t page)
{
	void *buf = filled(SLU_BLOCK_SIZE, page_seed(ino, page));

	write_at(r, ino, (uint64_t)page * SLU_BLOCK_SIZE, buf, SLU_BLOCK_SIZE);
	free(buf);
}

static struct thing *add_thing(uint64_t dir, const char *name, uint64_t ino, mode_t type)
{
	struct thing *t = &volume.things[volume.nthings++];

	assert_in_range(volume.nthings, 1, MAX_THINGS);
	*t = (struct thing){.dir = dir, .ino = ino, .type = type};
	snprintf(t->name, sizeof(t->name), "%s", name);
	return t;
}

static struct thing *make_node(struct rig *r, uint64_t dir, const char *name, mode_t type)
{
	struct slu_attr attr;

	assert_int_equal(slu_ns_mknod(r->fs->ns, &r->ctx, dir, name, type | 0755, 0, &attr), 0);
	return add_thing(dir, name, attr.ino, type);
}

static void set_xattr(struct rig *r, uint64_t ino, const char *name, size_t len)
{
	void *value = filled(len, ino);

	assert_int_equal(slu_ns_setxattr(r->fs->ns, &r->ctx, ino, name, value, len, 0, false), 0);
	free(value);
}

static void make_file_in(struct rig *r, uint64_t dir, const char *name, unsigned int i)
{
	struct thing *t = make_node(r, dir, name, S_IFREG);

	t->npages = t->stride = 1;
	write_page(r, t->ino, 0);
	t->small = true;
	set_xattr(r, t->ino, "user.small", SMALL_XATTR);
	t->large = i % 4 ? 0 : LARGE_XATTR;
	if (t->large)
		set_xattr(r, t->ino, "user.large", t->large);
}

/* Every other page, so that each has an extent of its own. */
static void make_big_file(struct rig *r, const char *name)
{
	struct thing *t = make_node(r, SLU_INO_ROOT, name, S_IFREG);

	t->npages = BIG_EXTENTS;
	t->stride = 2;
	for (uint32_t i = 0; i < t->npages; i++)
		write_page(r, t->ino, i * t->stride);
}

static void make_symlink(struct rig *r, uint64_t dir, const char *name)
{
	/* The number comes out of the order of creation. */
	uint64_t ino = volume.things[volume.nthings - 1].ino + 1;
	char target[TARGET_LEN + 1];
	struct slu_attr attr;

	target_of(ino, target);
	assert_int_equal(slu_ns_symlink(r->fs->ns, &r->ctx, dir, name, target, &attr), 0);
	assert_int_equal(attr.ino, ino);
	add_thing(dir, name, ino, S_IFLNK);
}

static void make_link(struct rig *r, const struct thing *t, uint64_t dir, const char *name)
{
	struct slu_attr attr;
	struct thing *other;

	assert_int_equal(slu_ns_link(r->fs->ns, &r->ctx, t->ino, dir, name, &attr), 0);
	other = &volume.things[volume.nthings++];
	*other = *t;
	other->dir = dir;
	snprintf(other->name, sizeof(other->name), "%s", name);
}

static void make_directory(struct rig *r, unsigned int number)
{
	char name[16];
	uint64_t dir;

	snprintf(name, sizeof(name), "d%u", number);
	dir = make_node(r, SLU_INO_ROOT, name, S_IFDIR)->ino;
	for (unsigned int i = 0; i < NFILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		make_file_in(r, dir, name, i);
	}
	for (unsigned int i = 0; i < NLINKS; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		make_symlink(r, dir, name);
	}
}

/* Of the files of that name, in each directory a link to the one in the directory before. */
static void link_files(struct rig *r, const char *file)
{
	const struct thing *before = NULL;
	unsigned int n = volume.nthings;

	for (unsigned int i = 0; i < n; i++) {
		if (strcmp(volume.things[i].name, file) != 0)
			continue;
		if (before)
			make_link(r, before, volume.things[i].dir, "hard");
		before = &volume.things[i];
	}
}

static void make_volume(struct rig *r)
{
	r->ctx.may_wait = true;
	r->disk = slu_simdisk_new(BLOCKS, 1);
	slu_simdisk_inline(r->disk, true);
	struct slu_blockio *bio = open_disk(r, false);

	assert_int_equal(slu_fs_format(bio, BLOCKS, "nodes", 0, 0), 0);
	slu_blockio_close(bio);
	mount_rig(r, false);
	volume.space_ino = make_node(r, SLU_INO_ROOT, "space", S_IFREG)->ino;
	assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, volume.space_ino, 0, 0, SPACE_BYTES), 0);
	for (unsigned int i = 0; i < NDIRS; i++)
		make_directory(r, i);
	make_big_file(r, "big0");
	make_big_file(r, "big1");
	link_files(r, "f0");
	assert_int_equal(slu_fs_unmount(r->fs), 0);
	volume.disk = r->disk;
}

/* ------------------------------------------------------------------ what lies where */

static void note_name(struct record *rec, const uint8_t *name, size_t len)
{
	snprintf(rec->name, sizeof(rec->name), "%.*s", (int)len, (const char *)name);
}

static void note_record(const struct slu_disk_node *node, const struct slu_disk_leaf_slot *slot)
{
	struct record *rec = &volume.records[volume.nrecords++];
	const uint8_t *value = (const uint8_t *)node + slu_get_le16(&slot->off);
	const struct slu_disk_xattr *dx = (const void *)value;
	size_t len = slu_get_le16(&slot->len);

	assert_in_range(volume.nrecords, 1, MAX_RECORDS);
	*rec = (struct record){.key = slu_key_get(slot->key)};
	switch (rec->key.type) {
	case SLU_REC_DIRENT:
		rec->ino = slu_get_le64(&((const struct slu_disk_dirent *)value)->ino);
		note_name(rec, value + sizeof(struct slu_disk_dirent),
			  len - sizeof(struct slu_disk_dirent));
		break;
	case SLU_REC_XATTR:
		rec->part_id = slu_get_le32(&dx->part_id);
		note_name(rec, value + sizeof(*dx), dx->name_len);
		break;
	case SLU_REC_EXTENT:
		rec->nblocks = slu_get_le32(&((const struct slu_disk_extent *)value)->nblocks);
		break;
	}
}

static int note_node(void *ctx, const struct slu_node_visit *v)
{
	const struct slu_disk_leaf_slot *slots = (const void *)v->node->body;
	bool *root = ctx;

	assert_null(v->wrong);
	if (!*root) {
		assert_in_range(volume.nnodes, 0, MAX_NODES - 1);
		volume.nodes[volume.nnodes++] = (struct node){
			.blkno = v->blkno,
			.level = v->level,
			.lower = slu_key_get(v->node->lower),
			.upper = slu_key_get(v->node->upper),
		};
	}
	*root = false;
	for (unsigned int i = 0; v->level == 0 && i < slu_get_le16(&v->node->count); i++)
		note_record(v->node, &slots[i]);
	return 0;
}

static void walk_volume(struct rig *r)
{
	const struct slu_store_opts opts = {.readonly = true};
	struct slu_blockio *bio = open_disk(r, true);
	struct slu_store *store;
	bool root = true;

	assert_int_equal(slu_store_open(bio, &opts, &store, NULL), 0);
	volume.hash_seed = slu_get_le64(&slu_store_super(store)->hash_seed);
	volume.next_ino = slu_get_le64(&slu_store_super(store)->next_ino);
	assert_int_equal(slu_store_walk(store, note_node, &root), 0);
	assert_int_equal(slu_store_close(store), 0);
	slu_blockio_close(bio);
}

static struct slu_key hash_key(uint64_t ino, uint8_t type, const char *name)
{
	uint64_t h = XXH3_64bits_withSeed(name, strlen(name), volume.hash_seed) >> 17;

	return SLU_KEY(ino, type, (h ? h : 1) << 16);
}

/* The first record at or after the key; the walk has noted them in order. */
static unsigned int first_from(struct slu_key key)
{
	unsigned int lo = 0, hi = volume.nrecords;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (slu_key_cmp(&volume.records[mid].key, &key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static const struct record *find_named(uint64_t ino, uint8_t type, const char *name)
{
	for (unsigned int i = first_from(hash_key(ino, type, name)); i < volume.nrecords; i++) {
		if (!strcmp(volume.records[i].name, name))
			return &volume.records[i];
	}
	fail_msg("no record of %s in inode %llu", name, (unsigned long long)ino);
	return NULL;
}

/* The extent that has this page; NULL: a hole. */
static const struct record *find_extent(uint64_t ino, uint32_t page)
{
	unsigned int next = first_from(SLU_KEY(ino, SLU_REC_EXTENT, page + 1ull));
	const struct record *rec = next ? &volume.records[next - 1] : NULL;

	if (!rec || rec->key.ino != ino || rec->key.type != SLU_REC_EXTENT)
		return NULL;
	return page < rec->key.off + rec->nblocks ? rec : NULL;
}

static int setup_volume(void **state)
{
	struct rig r = {0};

	make_volume(&r);
	walk_volume(&r);
	return 0;
}

static int teardown_volume(void **state)
{
	slu_simdisk_free(volume.disk);
	return 0;
}

/* ------------------------------------------------------------------ what must work */

/* What an operation wants of the damaged node. */
enum needs {
	NOTHING,
	/* Perhaps to see that there is nothing more: it may fail, but not be wrong. */
	A_LOOK,
	A_RECORD,
};

static bool lost(struct slu_key key)
{
	const struct node *n = the_run->node;

	return slu_key_cmp(&n->lower, &key) <= 0 && slu_key_cmp(&key, &n->upper) < 0;
}

static enum needs more(enum needs a, enum needs b)
{
	return slu_max(a, b);
}

static enum needs needs_key(struct slu_key key)
{
	return lost(key) ? A_RECORD : NOTHING;
}

static enum needs needs_range(struct slu_key first, struct slu_key end)
{
	const struct node *n = the_run->node;

	return slu_key_cmp(&n->lower, &end) < 0 && slu_key_cmp(&first, &n->upper) < 0 ? A_LOOK
										      : NOTHING;
}

static enum needs needs_inode(uint64_t ino)
{
	return needs_key(SLU_KEY(ino, SLU_REC_INODE, 0));
}

/* All that may be under the hash of a name. */
static enum needs needs_hash(uint64_t ino, uint8_t type, const char *name)
{
	struct slu_key key = hash_key(ino, type, name);

	return needs_range(key, SLU_KEY(ino, type, key.off + HASH_NUMBERS));
}

static enum needs needs_named(uint64_t ino, uint8_t type, const char *name)
{
	return more(needs_hash(ino, type, name), needs_key(find_named(ino, type, name)->key));
}

/* A record that is to come under the hash of a name. */
static enum needs needs_place(uint64_t ino, uint8_t type, const char *name)
{
	return more(needs_hash(ino, type, name), needs_key(hash_key(ino, type, name)));
}

static enum needs needs_parts(uint64_t ino, uint8_t type, uint64_t first, size_t len)
{
	enum needs needs = NOTHING;

	for (uint64_t part = 0; part * SLU_VALUE_MAX < len; part++)
		needs = more(needs, needs_key(SLU_KEY(ino, type, first + part)));
	return needs;
}

/* Whether the operation has worked; fails the test if it should have done otherwise. */
static bool worked(enum needs needs, int64_t result)
{
	must(result >= 0 || result == -EIO);
	must(needs != NOTHING || result >= 0);
	must(needs != A_RECORD || result == -EIO);
	return result >= 0;
}

/* ------------------------------------------------------------------ reading */

static void check_name(struct run *run, const struct thing *t)
{
	enum needs needs = more(needs_inode(t->dir), needs_named(t->dir, SLU_REC_DIRENT, t->name));
	struct rig *r = &run->rig;
	struct slu_attr attr;
	int err = slu_ns_lookup(r->fs->ns, &r->ctx, t->dir, t->name, &attr);

	if (!worked(more(needs, needs_inode(t->ino)), err))
		return;
	must(attr.ino == t->ino);
	must((attr.mode & S_IFMT) == t->type);
	if (t->npages)
		must(attr.size == ((uint64_t)(t->npages - 1) * t->stride + 1) * SLU_BLOCK_SIZE);
	slu_ns_forget(r->fs->ns, t->ino, 1);
}

static enum needs needs_page(uint64_t ino, uint32_t page)
{
	const struct record *rec = find_extent(ino, page);

	if (rec)
		return more(needs_key(rec->key),
			    lost(SLU_KEY(ino, SLU_REC_EXTENT, page)) ? A_LOOK : NOTHING);
	return needs_range(SLU_KEY(ino, SLU_REC_EXTENT, 0),
			   SLU_KEY(ino, SLU_REC_EXTENT, UINT64_MAX));
}

static void check_page(struct run *run, uint64_t ino, uint32_t page)
{
	uint8_t *want = filled(SLU_BLOCK_SIZE, page_seed(ino, page));
	struct rig *r = &run->rig;
	struct slu_read_vec vec;
	enum needs needs = more(needs_inode(ino), needs_page(ino, page));
	int err = slu_fs_read(r->fs, &r->ctx, ino, UINT64_MAX, (uint64_t)page * SLU_BLOCK_SIZE,
			      SLU_BLOCK_SIZE, false, &vec);

	if (!find_extent(ino, page))
		memset(want, 0, SLU_BLOCK_SIZE);
	if (worked(needs, err)) {
		must(vec.len == SLU_BLOCK_SIZE && vec.niov == 1);
		must(!memcmp(vec.iov[0].iov_base, want, SLU_BLOCK_SIZE));
		slu_read_done(&vec);
	}
	free(want);
}

static void check_data(struct run *run, const struct thing *t)
{
	for (uint32_t page = 0; t->npages && page <= (t->npages - 1) * t->stride; page++)
		check_page(run, t->ino, page);
}

static void check_xattr(struct run *run, uint64_t ino, const char *name, uint32_t len)
{
	const struct record *rec = find_named(ino, SLU_REC_XATTR, name);
	enum needs needs = more(needs_inode(ino), needs_named(ino, SLU_REC_XATTR, name));
	uint8_t *want = filled(len, ino), *got = malloc(len);
	struct rig *r = &run->rig;
	ssize_t n = slu_ns_getxattr(r->fs->ns, &r->ctx, ino, name, got, len);

	if (len > SLU_VALUE_MAX)
		needs = more(needs, needs_parts(ino, SLU_REC_XATTR_PART,
						(uint64_t)rec->part_id << 8, len));
	if (worked(needs, n))
		must(n == (ssize_t)len && !memcmp(got, want, len));
	free(want);
	free(got);
}

static void check_symlink(struct run *run, uint64_t ino)
{
	enum needs needs = more(needs_inode(ino), needs_parts(ino, SLU_REC_SYMLINK, 0, TARGET_LEN));
	char want[TARGET_LEN + 1], got[TARGET_LEN + 1];
	struct rig *r = &run->rig;
	int n = slu_ns_readlink(r->fs->ns, &r->ctx, ino, got, sizeof(got));

	target_of(ino, want);
	if (worked(needs, n))
		must(n == (int)TARGET_LEN && !memcmp(got, want, TARGET_LEN));
}

struct listing {
	uint64_t dir;
	unsigned int n;
};

static int list_entry(void *ctx, const char *name, size_t len, uint64_t cookie,
		      const struct slu_attr *attr)
{
	struct listing *l = ctx;

	for (unsigned int i = 0; i < volume.nthings; i++) {
		const struct thing *t = &volume.things[i];

		if (t->dir != l->dir || strlen(t->name) != len || memcmp(t->name, name, len) != 0)
			continue;
		must(attr->ino == t->ino && (attr->mode & S_IFMT) == t->type);
		must((attr->nlink == 0) == lost(SLU_KEY(t->ino, SLU_REC_INODE, 0)));
		slu_ns_lookup_count(the_run->rig.fs->ns, t->ino, l->dir, 1);
		slu_ns_forget(the_run->rig.fs->ns, t->ino, 1);
		l->n++;
	}
	return 0;
}

static void check_listing(struct run *run, uint64_t dir)
{
	struct slu_key first = SLU_KEY(dir, SLU_REC_DIRENT, 0);
	struct slu_key end = SLU_KEY(dir, SLU_REC_DIRENT, UINT64_MAX);
	enum needs needs = more(needs_inode(dir), needs_range(first, end));
	struct listing l = {.dir = dir};
	struct rig *r = &run->rig;
	unsigned int all = 0;
	int err;

	for (unsigned int i = 0; i < volume.nthings; i++) {
		const struct thing *t = &volume.things[i];

		if (t->dir != dir)
			continue;
		needs = more(needs, needs_key(find_named(dir, SLU_REC_DIRENT, t->name)->key));
		all++;
	}
	err = slu_ns_readdir(r->fs->ns, &r->ctx, dir, 0, true, list_entry, &l);
	if (worked(needs, err))
		must(l.n == all);
}

static void check_thing(struct run *run, const struct thing *t)
{
	check_name(run, t);
	check_data(run, t);
	if (t->small)
		check_xattr(run, t->ino, "user.small", SMALL_XATTR);
	if (t->large)
		check_xattr(run, t->ino, "user.large", t->large);
	if (S_ISLNK(t->type))
		check_symlink(run, t->ino);
	if (S_ISDIR(t->type))
		check_listing(run, t->ino);
}

/* ------------------------------------------------------------------ changing */

static void read_back(struct run *run, uint64_t dir)
{
	uint8_t *want = filled(SLU_BLOCK_SIZE, dir), got[SLU_BLOCK_SIZE];
	struct rig *r = &run->rig;
	struct slu_attr attr;

	must(!slu_ns_lookup(r->fs->ns, &r->ctx, dir, "new", &attr));
	must(read_at(r, attr.ino, 0, got, sizeof(got)) == sizeof(got));
	must(!memcmp(got, want, sizeof(got)));
	slu_ns_forget(r->fs->ns, attr.ino, 1);
	free(want);
}

/* Whether a new file can be had in that directory; it is on disk then. */
static bool make_new(struct run *run, uint64_t dir)
{
	enum needs needs = more(needs_inode(dir), needs_place(dir, SLU_REC_DIRENT, "new"));
	uint8_t *data = filled(SLU_BLOCK_SIZE, dir);
	struct rig *r = &run->rig;
	struct slu_attr attr;
	int err = slu_ns_mknod(r->fs->ns, &r->ctx, dir, "new", S_IFREG | 0644, 0, &attr);
	bool made = worked(more(needs, needs_inode(volume.next_ino)), err);

	if (made) {
		write_at(r, attr.ino, 0, data, SLU_BLOCK_SIZE);
		must(!slu_fs_fsync(r->fs, &r->ctx, attr.ino, UINT64_MAX, false));
		slu_ns_forget(r->fs->ns, attr.ino, 1);
		read_back(run, dir);
	}
	free(data);
	return made;
}

static void add_xattr(struct run *run, uint64_t ino)
{
	enum needs needs = more(needs_inode(ino), needs_place(ino, SLU_REC_XATTR, "user.new"));
	struct rig *r = &run->rig;
	char got[8];

	/* The numbers of the parts of others are looked at. */
	needs = more(needs, needs_range(SLU_KEY(ino, SLU_REC_XATTR, 0),
					SLU_KEY(ino, SLU_REC_XATTR_PART, UINT64_MAX)));
	if (worked(needs,
		   slu_ns_setxattr(r->fs->ns, &r->ctx, ino, "user.new", "value", 5, 0, false)))
		must(slu_ns_getxattr(r->fs->ns, &r->ctx, ino, "user.new", got, sizeof(got)) == 5);
}

static void unlink_thing(struct run *run, const struct thing *t)
{
	enum needs needs = more(needs_inode(t->dir), needs_named(t->dir, SLU_REC_DIRENT, t->name));
	struct rig *r = &run->rig;
	struct slu_attr attr;

	needs = more(needs, needs_inode(t->ino));
	needs = more(needs, needs_key(SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, t->ino)));
	if (worked(needs, slu_ns_unlink(r->fs->ns, &r->ctx, t->dir, t->name)))
		must(slu_ns_lookup(r->fs->ns, &r->ctx, t->dir, t->name, &attr) == -ENOENT);
}

/* The names are taken for one run only: the volume that all begin with keeps them. */
static void change_things(struct run *run)
{
	for (unsigned int i = 0; i < volume.nthings; i++) {
		const struct thing *t = &volume.things[i];

		if (!strcmp(t->name, "f1"))
			add_xattr(run, t->ino);
		if (!strcmp(t->name, "f4") || !strcmp(t->name, "s3") || t->ino == volume.space_ino)
			unlink_thing(run, t);
	}
}

/* ------------------------------------------------------------------ one node */

/* A page is lost with its extent, and that is told too. */
static bool expected(const struct run *run, const struct slu_event *ev)
{
	switch (ev->kind) {
	case SLU_EVENT_NODE_CORRUPT:
		return ev->pos == run->node->blkno;
	case SLU_EVENT_READ_ERROR:
		return needs_page(ev->ino, (uint32_t)(ev->pos / SLU_BLOCK_SIZE)) != NOTHING;
	default:
		return ev->kind == SLU_EVENT_SLOW_COMMIT;
	}
}

static void on_event(void *ctx, const struct slu_event *ev)
{
	struct run *run = ctx;

	if (!expected(run, ev))
		run->others++;
	else if (ev->kind == SLU_EVENT_NODE_CORRUPT)
		run->told++;
}

static void on_problem(void *ctx, const struct slu_problem *p)
{
	struct run *run = ctx;

	if (!p->note && p->kind == SLU_PROBLEM_NODE && p->blkno == run->node->blkno)
		run->named++;
	snprintf(run->text, sizeof(run->text), "%s", p->text);
}

static void damage(struct run *run, unsigned int byte)
{
	uint8_t block[SLU_BLOCK_SIZE];

	slu_simdisk_peek(run->rig.disk, run->node->blkno, block);
	block[byte] ^= (uint8_t)(1u << byte % 8);
	slu_simdisk_poke(run->rig.disk, run->node->blkno, block);
}

static int mount_run(struct run *run)
{
	const struct slu_fs_opts opts = {
		.cache_size = 8 * MIB,
		.events = {.post = on_event, .ctx = run},
	};
	struct slu_blockio *bio = open_disk(&run->rig, false);
	const char *why = NULL;
	int err = slu_fs_mount(bio, &opts, &run->rig.fs, &why);

	if (err) {
		must(why);
		slu_blockio_close(bio);
	}
	return err;
}

static void check_volume(struct run *run)
{
	const struct slu_check_opts opts = {.problem = on_problem, .ctx = run};
	struct slu_blockio *bio = open_disk(&run->rig, true);
	const char *why;

	must(!slu_check(bio, &opts, &run->checked, &why));
	slu_blockio_close(bio);
	if (run->named != 1 || run->checked.problems != 1)
		fail_msg("node %llu, level %u: %llu problems, the last of them: %s",
			 (unsigned long long)run->node->blkno, run->node->level,
			 (unsigned long long)run->checked.problems, run->text);
	must(run->checked.incomplete);
}

static void use_volume(struct run *run)
{
	bool made[MAX_THINGS] = {false};

	for (unsigned int i = 0; i < volume.nthings; i++)
		check_thing(run, &volume.things[i]);
	check_listing(run, SLU_INO_ROOT);
	for (unsigned int i = 0; i < volume.nthings; i++)
		made[i] = S_ISDIR(volume.things[i].type) && make_new(run, volume.things[i].ino);
	change_things(run);
	must(!slu_fs_unmount(run->rig.fs));
	must(run->told && !run->others);
	must(!mount_run(run));
	for (unsigned int i = 0; i < volume.nthings; i++)
		if (made[i])
			read_back(run, volume.things[i].ino);
	must(!slu_fs_unmount(run->rig.fs));
}

/* Whether it could be mounted. */
static bool damage_node(const struct node *node, unsigned int byte)
{
	struct run run = {.rig.ctx.may_wait = true, .node = node};
	bool mounted;

	the_run = &run;
	run.rig.disk = slu_simdisk_clone(volume.disk);
	slu_simdisk_inline(run.rig.disk, true);
	damage(&run, byte);
	/* Nothing can be reached without the root directory. */
	mounted = worked(needs_inode(SLU_INO_ROOT), mount_run(&run));
	if (mounted)
		use_volume(&run);
	else
		must(run.told && !run.others);
	check_volume(&run);
	slu_simdisk_free(run.rig.disk);
	return mounted;
}

/* ------------------------------------------------------------------ the cases */

static void the_tree_has_every_kind_of_node(void **state)
{
	unsigned int inner = 0, space = 0;

	for (unsigned int i = 0; i < volume.nnodes; i++) {
		const struct node *n = &volume.nodes[i];

		inner += n->level > 0;
		space += n->level == 0 && n->upper.ino == SLU_INO_VOLUME &&
			 n->upper.type == SLU_REC_SPACE;
	}
	assert_in_range(inner, 2, 8);
	assert_in_range(space, 1, 8);
	assert_in_range(volume.nnodes, 100, MAX_NODES);
}

#if defined(__SANITIZE_THREAD__) /* which is slow */
#define STEP 8u
#else
#define STEP 1u
#endif

static void damage_each(unsigned int first_byte, unsigned int nbytes)
{
	unsigned int refused = 0;

	for (unsigned int i = 0; i < volume.nnodes; i += STEP)
		refused += !damage_node(&volume.nodes[i], first_byte + i * 131 % nbytes);
	/* The leaf with the root directory, and the inner node above it. */
	if (STEP == 1)
		assert_int_equal(refused, 2);
	else
		assert_in_range(refused, 0, 2);
}

static void a_bit_in_the_header_is_eio_for_what_needs_the_node(void **state)
{
	damage_each(0, offsetof(struct slu_disk_node, body));
}

static void a_bit_in_the_body_is_eio_for_what_needs_the_node(void **state)
{
	damage_each(offsetof(struct slu_disk_node, body), SLU_NODE_BODY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_tree_has_every_kind_of_node),
		cmocka_unit_test(a_bit_in_the_header_is_eio_for_what_needs_the_node),
		cmocka_unit_test(a_bit_in_the_body_is_eio_for_what_needs_the_node),
	};

	return cmocka_run_group_tests(tests, setup_volume, teardown_volume);
}
