/* SPDX-License-Identifier: MIT */
/*
 * Text, and a tree of names: what the model has and what a mounted volume shows, in one form, so
 * that comparing is comparing two strings.
 */
#include "sim.h"
#include <xxhash.h>

/* ------------------------------------------------------------------ text */

void sim_text_add(struct sim_text *t, const char *format, ...)
{
	for (;;) {
		va_list args;
		int n;

		va_start(args, format);
		n = vsnprintf(t->s ? t->s + t->len : NULL, t->size - t->len, format, args);
		va_end(args);
		slu_assert(n >= 0);
		if (t->s && t->len + (size_t)n < t->size) {
			t->len += (size_t)n;
			return;
		}
		t->size = (t->size + (size_t)n + 128) * 2;
		t->s = realloc(t->s, t->size);
		slu_assert(t->s);
	}
}

void sim_text_clear(struct sim_text *t)
{
	t->len = 0;
	if (t->s)
		t->s[0] = 0;
}

void sim_text_fini(struct sim_text *t)
{
	free(t->s);
	*t = (struct sim_text){0};
}

/* ------------------------------------------------------------------ the tree */

struct sim_node *sim_tree_node(struct sim_tree *t, uint64_t ino)
{
	for (unsigned int i = 0; i < t->nnodes; i++)
		if (t->nodes[i].ino == ino)
			return &t->nodes[i];
	return NULL;
}

struct sim_entry *sim_tree_find(struct sim_tree *t, uint64_t parent, const char *name)
{
	for (unsigned int i = 0; i < t->nentries; i++)
		if (t->entries[i].parent == parent && !strcmp(t->entries[i].name, name))
			return &t->entries[i];
	return NULL;
}

struct sim_node *sim_tree_add_node(struct sim_tree *t, uint64_t ino, uint32_t mode)
{
	slu_assert(t->nnodes < SIM_MAX_NODES);
	struct sim_node *n = &t->nodes[t->nnodes++];

	*n = (struct sim_node){.ino = ino, .mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1};
	return n;
}

void sim_tree_add_entry(struct sim_tree *t, uint64_t parent, const char *name, uint64_t ino)
{
	slu_assert(t->nentries < SIM_MAX_NODES);
	struct sim_entry *e = &t->entries[t->nentries++];

	*e = (struct sim_entry){.parent = parent, .ino = ino};
	snprintf(e->name, sizeof(e->name), "%s", name);
}

void sim_tree_del_entry(struct sim_tree *t, struct sim_entry *e)
{
	*e = t->entries[--t->nentries];
}

void sim_tree_prune(struct sim_tree *t)
{
	for (unsigned int i = t->nnodes; i-- > 0;) {
		bool named = t->nodes[i].ino == SLU_INO_ROOT;

		for (unsigned int k = 0; k < t->nentries && !named; k++)
			named = t->entries[k].ino == t->nodes[i].ino;
		if (!named)
			t->nodes[i] = t->nodes[--t->nnodes];
	}
}

static int by_place(const void *a, const void *b)
{
	const struct sim_entry *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_ino(const void *a, const void *b)
{
	const struct sim_node *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

void sim_tree_print(const struct sim_tree *t, struct sim_text *to)
{
	struct sim_tree s = *t;

	qsort(s.entries, s.nentries, sizeof(s.entries[0]), by_place);
	qsort(s.nodes, s.nnodes, sizeof(s.nodes[0]), by_ino);
	for (unsigned int i = 0; i < s.nentries; i++)
		sim_text_add(to, "  in %lu: %s is %lu\n", s.entries[i].parent, s.entries[i].name,
			     s.entries[i].ino);
	for (unsigned int i = 0; i < s.nnodes; i++) {
		const struct sim_node *n = &s.nodes[i];

		sim_text_add(to, "  inode %lu: mode %o, %u links", n->ino, n->mode, n->nlink);
		if (n->target[0])
			sim_text_add(to, ", to %s", n->target);
		for (unsigned int k = 0; k < SIM_NATTRS; k++)
			if (n->attr[k])
				sim_text_add(to, ", %s %lx", sim_attrs[k], n->attr[k]);
		sim_text_add(to, "\n");
	}
}

/* ------------------------------------------------------------------ what a volume shows */

struct reading {
	struct sim_tree *tree;
	uint64_t dir;
	int err;
};

static int take_entry(void *ctx, const char *name, size_t len, uint64_t cookie,
		      const struct slu_attr *attr)
{
	struct reading *r = ctx;
	char copy[16];

	if (cookie <= 2) /* "." and ".." */
		return 0;
	if (len >= sizeof(copy) || r->tree->nentries == SIM_MAX_NODES)
		return -EOVERFLOW;
	memcpy(copy, name, len);
	copy[len] = 0;
	sim_tree_add_entry(r->tree, r->dir, copy, attr->ino);
	return 0;
}

static int read_attrs(struct sim_node *n, struct slu_fs *fs, struct slu_ctx *ctx,
		      const struct slu_attr *attr)
{
	static uint8_t value[65536];
	unsigned int found = 0;

	for (unsigned int k = 0; k < SIM_NATTRS && attr->nxattr; k++) {
		ssize_t len =
			slu_ns_getxattr(fs->ns, ctx, n->ino, sim_attrs[k], value, sizeof(value));

		if (len == -ENODATA)
			continue;
		if (len < 0)
			return (int)len;
		n->attr[k] = XXH3_64bits(value, (size_t)len) | 1;
		found++;
	}
	return found == attr->nxattr ? 0 : -EBADMSG;
}

static int read_node(struct sim_tree *t, struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino,
		     uint32_t *ret_mode)
{
	struct slu_inode *inode;
	struct slu_attr attr;
	int err = slu_inode_get(fs->ns, ino, &inode);

	if (err)
		return err;
	slu_inode_attr(inode, &attr);
	slu_inode_put(inode);
	if (t->nnodes == SIM_MAX_NODES)
		return -EOVERFLOW;
	struct sim_node *n = sim_tree_add_node(t, ino, attr.mode);
	n->nlink = attr.nlink;
	*ret_mode = attr.mode;
	if (S_ISLNK(attr.mode)) {
		int len = slu_ns_readlink(fs->ns, ctx, ino, n->target, sizeof(n->target) - 1);

		if (len < 0)
			return len;
		n->target[len] = 0;
	}
	return read_attrs(n, fs, ctx, &attr);
}

int sim_tree_read(struct sim_tree *t, struct slu_fs *fs, struct sim_text *complaint)
{
	struct slu_ctx ctx = {.may_wait = true};
	uint32_t mode;
	int err;

	t->nnodes = t->nentries = 0;
	err = read_node(t, fs, &ctx, SLU_INO_ROOT, &mode);
	for (unsigned int i = 0; !err && i < t->nnodes; i++) {
		if (!S_ISDIR(t->nodes[i].mode))
			continue;
		struct reading r = {.tree = t, .dir = t->nodes[i].ino};
		unsigned int first = t->nentries;

		err = slu_ns_readdir(fs->ns, &ctx, r.dir, 0, false, take_entry, &r);
		for (unsigned int k = first; !err && k < t->nentries; k++)
			if (!sim_tree_node(t, t->entries[k].ino))
				err = read_node(t, fs, &ctx, t->entries[k].ino, &mode);
	}
	if (err)
		sim_text_add(complaint, "the tree cannot be read: %s\n", strerror(-err));
	return err;
}
