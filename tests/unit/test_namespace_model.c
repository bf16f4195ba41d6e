/* SPDX-License-Identifier: MIT */
/*
 * Random operations against a model in memory: a plain tree of nodes with maps from names to nodes.
 * Every result, and now and then the whole tree with all attributes, has to be the same; across
 * remounts and power cuts.
 *
 * After a power cut the volume is what it was at the last commit, so the model is saved there.
 */
#include "namespace_fixture.h"

#define MAX_NODES   400
#define MAX_ENTRIES 24
#define NNAMES      20
#define NXATTRS     4

static struct nsfx fx;

/* ------------------------------------------------------------------ the model */

struct m_entry {
	uint8_t name; /* 0: none; else index + 1 */
	uint16_t node;
};

struct m_xattr {
	uint32_t len; /* 0: none; else length + 1 */
	uint8_t seed;
};

struct m_node {
	uint64_t ino; /* 0: free */
	mode_t mode;
	uint32_t uid, gid, nlink;
	uint16_t parent;
	struct timespec mtime, ctime, atime;
	char target[16];
	struct m_xattr xattrs[NXATTRS];
	struct m_entry entries[MAX_ENTRIES];
};

struct model {
	struct m_node nodes[MAX_NODES]; /* 0: the root */
};

static struct model model, saved;
static uint64_t seed;

static uint64_t draw(uint64_t below)
{
	/* splitmix64, by Sebastiano Vigna */
	uint64_t z = seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % below;
}

static const char *name_of(uint8_t i)
{
	static char name[256];

	if (i == NNAMES) {
		memset(name, 'L', 255);
		name[255] = '\0';
	} else {
		snprintf(name, sizeof(name), "name%u", i);
	}
	return name;
}

static struct m_entry *m_find(struct m_node *dir, uint8_t name)
{
	for (int i = 0; i < MAX_ENTRIES; i++)
		if (dir->entries[i].name == name)
			return &dir->entries[i];
	return NULL;
}

static struct m_node *m_child(struct m_node *dir, uint8_t name)
{
	struct m_entry *e = m_find(dir, name);

	return e ? &model.nodes[e->node] : NULL;
}

static unsigned int m_count(const struct m_node *dir)
{
	unsigned int n = 0;

	for (int i = 0; i < MAX_ENTRIES; i++)
		n += dir->entries[i].name != 0;
	return n;
}

static unsigned int m_subdirs(const struct m_node *dir)
{
	unsigned int n = 0;

	for (int i = 0; i < MAX_ENTRIES; i++)
		n += dir->entries[i].name && S_ISDIR(model.nodes[dir->entries[i].node].mode);
	return n;
}

static void m_add(struct m_node *dir, uint8_t name, struct m_node *node)
{
	struct m_entry *e = m_find(dir, 0);

	*e = (struct m_entry){.name = name, .node = (uint16_t)(node - model.nodes)};
	if (S_ISDIR(node->mode))
		node->parent = (uint16_t)(dir - model.nodes);
}

static void m_unref(struct m_node *node)
{
	if (S_ISDIR(node->mode) || --node->nlink == 0)
		*node = (struct m_node){0};
}

static struct m_node *m_new(void)
{
	for (int i = 1; i < MAX_NODES; i++)
		if (!model.nodes[i].ino)
			return &model.nodes[i];
	return NULL;
}

static bool m_below(const struct m_node *dir, const struct m_node *above)
{
	for (;;) {
		if (dir == above)
			return true;
		if (dir == &model.nodes[0])
			return false;
		dir = &model.nodes[dir->parent];
	}
}

static struct m_node *any_node(bool dir)
{
	for (;;) {
		struct m_node *n = &model.nodes[draw(MAX_NODES)];

		if (n->ino && (!dir || S_ISDIR(n->mode)))
			return n;
		if (draw(20) == 0)
			return &model.nodes[0];
	}
}

/* ------------------------------------------------------------------ one operation each */

/* The times are the clock's: learnt from the first answer, and from then on they have to stay. */
static void learn_times(struct m_node *node, const struct slu_attr *a)
{
	node->mtime = a->mtime;
	node->ctime = a->ctime;
	node->atime = a->atime;
}

static void learn(struct m_node *node)
{
	struct slu_attr a = stat_of(&fx, node->ino);

	learn_times(node, &a);
}

static void do_create(void)
{
	static const mode_t types[] = {S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO};
	struct m_node *dir = any_node(true), *node = m_new();
	uint8_t name = (uint8_t)(1 + draw(NNAMES));
	mode_t mode = types[draw(6)] | (mode_t)draw(01000);
	struct slu_attr a;
	char target[16];
	int err, want = 0;

	if (!node || m_count(dir) == MAX_ENTRIES)
		return;
	if (m_child(dir, name))
		want = -EEXIST;
	if (S_ISLNK(mode)) {
		mode = S_IFLNK | 0777;
		snprintf(target, sizeof(target), "t%u", (unsigned int)draw(1000000));
		err = slu_ns_symlink(fx.ns, &fx.ctx, dir->ino, name_of(name), target, &a);
	} else {
		err = slu_ns_mknod(fx.ns, &fx.ctx, dir->ino, name_of(name), mode, 0, &a);
		mode &= ~fx.ctx.umask;
	}
	assert_int_equal(err, want);
	if (err)
		return;
	*node = (struct m_node){.ino = a.ino, .mode = mode, .uid = 1000, .gid = 1000, .nlink = 1};
	if (dir->mode & S_ISGID) {
		node->gid = dir->gid;
		node->mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	if (S_ISLNK(mode))
		memcpy(node->target, target, sizeof(target));
	m_add(dir, name, node);
	learn_times(node, &a);
	learn(dir);
	slu_ns_forget(fx.ns, a.ino, 1);
}

static void do_remove(bool dir_wanted)
{
	struct m_node *dir = any_node(true), *node;
	uint8_t name = (uint8_t)(1 + draw(NNAMES));
	uint64_t ino;
	int want = 0, err;

	node = m_child(dir, name);
	ino = node ? node->ino : 0;
	if (!node)
		want = -ENOENT;
	else if (S_ISDIR(node->mode) != dir_wanted)
		want = dir_wanted ? -ENOTDIR : -EISDIR;
	else if (dir_wanted && m_count(node))
		want = -ENOTEMPTY;
	err = dir_wanted ? rmdir_(&fx, dir->ino, name_of(name))
			 : unlink_(&fx, dir->ino, name_of(name));
	assert_int_equal(err, want);
	if (err)
		return;
	m_find(dir, name)->name = 0;
	m_unref(node);
	learn(dir);
	if (node->ino)
		learn(node);
	else
		forget_all(&fx, ino);
}

static void do_link(void)
{
	struct m_node *node = any_node(false), *dir = any_node(true);
	uint8_t name = (uint8_t)(1 + draw(NNAMES));
	int want = 0, err;

	if (m_count(dir) == MAX_ENTRIES)
		return;
	if (m_child(dir, name))
		want = -EEXIST;
	else if (S_ISDIR(node->mode))
		want = -EPERM;
	err = try_link(&fx, node->ino, dir->ino, name_of(name));
	assert_int_equal(err, want);
	if (err)
		return;
	node->nlink++;
	m_add(dir, name, node);
	learn(dir);
	learn(node);
}

static int want_rename(struct m_node *from, struct m_node *to, struct m_node *node,
		       struct m_node *old, unsigned int flags)
{
	bool exchange = flags == RENAME_EXCHANGE;

	if (!node || (exchange && !old))
		return -ENOENT;
	if (old && flags == RENAME_NOREPLACE)
		return -EEXIST;
	if (S_ISDIR(node->mode) && from != to && m_below(to, node))
		return -EINVAL;
	if (exchange && S_ISDIR(old->mode) && from != to && m_below(from, old))
		return -EINVAL;
	if (!old || exchange || old == node)
		return 0;
	if (S_ISDIR(node->mode))
		return !S_ISDIR(old->mode) ? -ENOTDIR : m_count(old) ? -ENOTEMPTY : 0;
	return S_ISDIR(old->mode) ? -EISDIR : 0;
}

static void m_rename(struct m_node *from, uint8_t a, struct m_node *to, uint8_t b,
		     unsigned int flags)
{
	struct m_node *node = m_child(from, a), *old = m_child(to, b);

	if (node == old)
		return;
	m_find(from, a)->name = 0;
	if (old)
		m_find(to, b)->name = 0;
	m_add(to, b, node);
	if (flags == RENAME_EXCHANGE) {
		m_add(from, a, old);
	} else if (old) {
		uint64_t ino = old->ino;

		m_unref(old);
		if (!old->ino)
			forget_all(&fx, ino);
	}
	learn(from);
	learn(to);
	learn(node);
	if (old && old->ino)
		learn(old);
}

static void do_rename(void)
{
	static const unsigned int flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	struct m_node *from = any_node(true), *to = any_node(true), *node, *old;
	uint8_t a = (uint8_t)(1 + draw(NNAMES)), b = (uint8_t)(1 + draw(NNAMES));
	unsigned int how = flags[draw(4)];
	char name[256];
	int err;

	node = m_child(from, a);
	old = m_child(to, b);
	if (from != to && !old && m_count(to) == MAX_ENTRIES)
		return;
	snprintf(name, sizeof(name), "%s", name_of(a));
	err = rename_(&fx, from->ino, name, to->ino, name_of(b), how);
	assert_int_equal(err, want_rename(from, to, node, old, how));
	if (!err)
		m_rename(from, a, to, b, how);
}

static void do_setattr(void)
{
	struct m_node *node = any_node(false);
	struct slu_attr a = {.mode = (mode_t)draw(010000),
			     .uid = (uid_t)draw(5),
			     .gid = (gid_t)draw(5),
			     .mtime = {(time_t)draw(1u << 31), (long)draw(1000000000)}};

	switch (draw(3)) {
	case 0:
		ok(slu_ns_setattr(fx.ns, &fx.ctx, node->ino, &a, SLU_SET_MODE, &a));
		node->mode = (node->mode & S_IFMT) | (a.mode & 07777);
		break;
	case 1:
		ok(slu_ns_setattr(fx.ns, &fx.ctx, node->ino, &a, SLU_SET_UID | SLU_SET_GID, &a));
		node->uid = a.uid;
		node->gid = a.gid;
		if (!S_ISDIR(node->mode)) {
			node->mode &= ~(mode_t)S_ISUID;
			if (node->mode & S_IXGRP)
				node->mode &= ~(mode_t)S_ISGID;
		}
		break;
	default:
		ok(slu_ns_setattr(fx.ns, &fx.ctx, node->ino, &a, SLU_SET_MTIME, &a));
		node->mtime = a.mtime;
	}
	learn_times(node, &a);
}

static void do_touch(void)
{
	struct m_node *node = any_node(false);
	struct slu_inode *inode;

	ok(slu_inode_get(fx.ns, node->ino, &inode));
	slu_inode_touch(inode, SLU_TOUCH_MTIME);
	slu_inode_put(inode);
	learn(node);
}

static void fill_value(uint8_t *value, size_t len, uint8_t from)
{
	for (size_t i = 0; i < len; i++)
		value[i] = (uint8_t)(from + i * 3 + i / 200);
}

static void do_xattr(void)
{
	static uint8_t value[6000];
	struct m_node *node = any_node(false);
	unsigned int which = (unsigned int)draw(NXATTRS);
	struct m_xattr *x = &node->xattrs[which];
	char name[24];

	snprintf(name, sizeof(name), "user.%u", which);
	if (draw(3) == 0) {
		assert_int_equal(slu_ns_removexattr(fx.ns, &fx.ctx, node->ino, name),
				 x->len ? 0 : -ENODATA);
		x->len = 0;
	} else {
		size_t len = draw(draw(4) ? 100 : sizeof(value));

		x->seed = (uint8_t)draw(256);
		x->len = (uint32_t)len + 1;
		fill_value(value, len, x->seed);
		ok(slu_ns_setxattr(fx.ns, &fx.ctx, node->ino, name, value, len, 0, false));
	}
	learn(node);
}

static void do_lookup(void)
{
	struct m_node *dir = any_node(false), *child;
	uint8_t name = (uint8_t)(1 + draw(NNAMES));
	struct slu_attr a;
	int err = slu_ns_lookup(fx.ns, &fx.ctx, dir->ino, name_of(name), &a);

	child = m_child(dir, name);
	if (!S_ISDIR(dir->mode))
		assert_int_equal(err, -ENOTDIR);
	else
		assert_int_equal(err, child ? 0 : -ENOENT);
	if (!err) {
		assert_int_equal(a.ino, child->ino);
		slu_ns_forget(fx.ns, a.ino, 1);
	}
}

/* ------------------------------------------------------------------ the whole tree */

struct listing {
	struct m_node *dir;
	unsigned int n;
};

static int check_entry(void *ctx, const char *name, size_t len, uint64_t cookie,
		       const struct slu_attr *attr)
{
	struct listing *l = ctx;
	char copy[256];

	if (cookie <= 2)
		return 0;
	memcpy(copy, name, len);
	copy[len] = '\0';
	for (uint8_t i = 1; i <= NNAMES; i++) {
		struct m_node *child = m_child(l->dir, i);

		if (strcmp(name_of(i), copy) != 0)
			continue;
		assert_non_null(child);
		assert_int_equal(attr->ino, child->ino);
		assert_int_equal(attr->mode, child->mode);
		l->n++;
		return 0;
	}
	fail_msg("%s is in no model", copy);
	return 0;
}

static void check_xattrs(const struct m_node *node, uint32_t nxattr)
{
	static uint8_t want[6000], have[6000];
	unsigned int n = 0;
	char name[24];

	for (unsigned int i = 0; i < NXATTRS; i++) {
		const struct m_xattr *x = &node->xattrs[i];
		ssize_t len;

		snprintf(name, sizeof(name), "user.%u", i);
		len = slu_ns_getxattr(fx.ns, &fx.ctx, node->ino, name, have, sizeof(have));
		if (!x->len) {
			assert_int_equal(len, -ENODATA);
			continue;
		}
		n++;
		fill_value(want, x->len - 1, x->seed);
		assert_int_equal(len, x->len - 1);
		assert_memory_equal(want, have, x->len - 1);
	}
	assert_int_equal(nxattr, n);
}

static void check_node(struct m_node *node)
{
	struct slu_attr a = stat_of(&fx, node->ino);
	char target[64];

	assert_int_equal(a.mode, node->mode);
	assert_int_equal(a.uid, node->uid);
	assert_int_equal(a.gid, node->gid);
	assert_int_equal(time_order(a.mtime, node->mtime), 0);
	assert_int_equal(time_order(a.ctime, node->ctime), 0);
	assert_int_equal(time_order(a.atime, node->atime), 0);
	check_xattrs(node, a.nxattr);
	if (S_ISDIR(node->mode)) {
		struct listing l = {.dir = node};

		assert_int_equal(a.nlink, 2 + m_subdirs(node));
		assert_int_equal(a.size, m_count(node));
		assert_int_equal(a.parent, model.nodes[node->parent].ino);
		/* no touch of atime by the check itself */
		slu_ns_set_readonly(fx.ns, true);
		ok(slu_ns_readdir(fx.ns, &fx.ctx, node->ino, 0, true, check_entry, &l));
		slu_ns_set_readonly(fx.ns, false);
		assert_int_equal(l.n, m_count(node));
		return;
	}
	assert_int_equal(a.nlink, node->nlink);
	if (!S_ISLNK(node->mode))
		return;
	slu_ns_set_readonly(fx.ns, true);
	assert_int_equal(slu_ns_readlink(fx.ns, &fx.ctx, node->ino, target, sizeof(target)),
			 strlen(node->target));
	slu_ns_set_readonly(fx.ns, false);
	assert_memory_equal(target, node->target, strlen(node->target));
}

static void check_all(void)
{
	uint64_t n = 0;

	for (int i = 0; i < MAX_NODES; i++) {
		if (model.nodes[i].ino) {
			check_node(&model.nodes[i]);
			n++;
		}
	}
	nsfx_reclaim(&fx);
	slu_ns_set_readonly(fx.ns, true);
	assert_int_equal(check_tree(&fx), n);
	slu_ns_set_readonly(fx.ns, false);
}

static void save(void)
{
	ok(slu_ns_sync_attrs(fx.ns));
	nsfx_commit(&fx);
	saved = model;
}

static void step(unsigned int i)
{
	switch (draw(20)) {
	case 0 ... 5:
		do_create();
		break;
	case 6 ... 8:
		do_remove(false);
		break;
	case 9:
		do_remove(true);
		break;
	case 10:
		do_link();
		break;
	case 11 ... 13:
		do_rename();
		break;
	case 14:
		do_setattr();
		break;
	case 15:
		do_touch();
		break;
	case 16 ... 17:
		do_xattr();
		break;
	default:
		do_lookup();
	}
	if (draw(50) == 0)
		assert_true(slu_ns_reclaim(fx.ns) >= 0);
	if (draw(200) == 0)
		save();
	if (i % 500 == 499)
		check_all();
	if (draw(1000) == 0) {
		nsfx_remount(&fx);
		saved = model;
		check_all();
	}
	if (draw(700) == 0) {
		nsfx_crash(&fx);
		model = saved;
		check_all();
	}
}

static void run(uint64_t first_seed, unsigned int nsteps, unsigned int max_idle, uint64_t hash_mask)
{
	seed = first_seed;
	nsfx_init(&fx, 32768);
	fx.max_idle = max_idle;
	fx.hash_mask = hash_mask;
	nsfx_remount(&fx);
	model = (struct model){0};
	model.nodes[0] = (struct m_node){.ino = ROOT, .mode = S_IFDIR | 0755, .nlink = 1};
	learn(&model.nodes[0]);
	save();
	for (unsigned int i = 0; i < nsteps; i++)
		step(i);
	check_all();
	nsfx_fini(&fx);
}

static void twenty_thousand_operations(void **state)
{
	run(1, 20000, 0, 0);
}

static void with_few_inodes_in_memory(void **state)
{
	run(2, 6000, 3, 0);
}

static void with_names_that_collide(void **state)
{
	run(3, 6000, 20, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(twenty_thousand_operations),
		cmocka_unit_test(with_few_inodes_in_memory),
		cmocka_unit_test(with_names_that_collide),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
