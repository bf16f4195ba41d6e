/* SPDX-License-Identifier: MIT */
/*
 * What operations do to a tree of names: the rules of the namespace, as far as they decide in which
 * order operations can have happened.
 */
#include "sim.h"

static bool is_dir(struct sim_tree *t, uint64_t ino)
{
	const struct sim_node *n = sim_tree_node(t, ino);

	return n && S_ISDIR(n->mode);
}

static bool is_empty(const struct sim_tree *t, uint64_t dir)
{
	for (unsigned int i = 0; i < t->nentries; i++)
		if (t->entries[i].parent == dir)
			return false;
	return true;
}

static void link_dir(struct sim_tree *t, uint64_t dir, int by)
{
	sim_tree_node(t, dir)->nlink += (unsigned int)by;
}

static bool make(struct sim_tree *t, const struct sim_effect *e)
{
	struct sim_node *n;

	if (!is_dir(t, e->dir) || sim_tree_find(t, e->dir, e->name))
		return false;
	n = sim_tree_add_node(t, e->ino, e->mode);
	snprintf(n->target, sizeof(n->target), "%s", e->target);
	sim_tree_add_entry(t, e->dir, e->name, e->ino);
	if (S_ISDIR(e->mode))
		link_dir(t, e->dir, 1);
	return true;
}

static bool add_link(struct sim_tree *t, const struct sim_effect *e)
{
	struct sim_node *n = sim_tree_node(t, e->ino);

	if (!n || !is_dir(t, e->dir) || sim_tree_find(t, e->dir, e->name))
		return false;
	n->nlink++;
	sim_tree_add_entry(t, e->dir, e->name, e->ino);
	return true;
}

static bool lose(struct sim_tree *t, uint64_t dir, const char *name, bool must_be_dir)
{
	struct sim_entry *e = sim_tree_find(t, dir, name);

	if (!e || is_dir(t, e->ino) != must_be_dir || (must_be_dir && !is_empty(t, e->ino)))
		return false;
	if (must_be_dir)
		link_dir(t, dir, -1);
	else
		sim_tree_node(t, e->ino)->nlink--;
	sim_tree_del_entry(t, e);
	return true;
}

static bool move(struct sim_tree *t, const struct sim_effect *e)
{
	struct sim_entry *from = sim_tree_find(t, e->dir, e->name), *to;

	if (!from || !is_dir(t, e->dir2))
		return false;
	uint64_t ino = from->ino;
	bool dir = is_dir(t, ino);

	to = sim_tree_find(t, e->dir2, e->name2);
	if (to && to->ino == ino)
		return true; /* two names of one file: both stay */
	if (to && !lose(t, e->dir2, e->name2, dir))
		return false;
	/* where the entry is may have changed */
	sim_tree_del_entry(t, sim_tree_find(t, e->dir, e->name));
	sim_tree_add_entry(t, e->dir2, e->name2, ino);
	if (dir) {
		link_dir(t, e->dir, -1);
		link_dir(t, e->dir2, 1);
	}
	return true;
}

static bool exchange(struct sim_tree *t, const struct sim_effect *e)
{
	struct sim_entry *a = sim_tree_find(t, e->dir, e->name);
	struct sim_entry *b = sim_tree_find(t, e->dir2, e->name2);

	if (!a || !b)
		return false;
	uint64_t ino = a->ino;
	int by = (int)is_dir(t, b->ino) - (int)is_dir(t, ino);

	a->ino = b->ino;
	b->ino = ino;
	link_dir(t, e->dir, by);
	link_dir(t, e->dir2, -by);
	return true;
}

/* A file that has lost its last name is changed all the same, and nobody sees it. */
static bool set(struct sim_tree *t, const struct sim_effect *e)
{
	struct sim_node *n = sim_tree_node(t, e->ino);

	if (n && e->kind == SIM_MODE_SET)
		n->mode = (n->mode & S_IFMT) | e->mode;
	else if (n)
		n->attr[e->attr] = e->value;
	return true;
}

bool sim_effect_apply(struct sim_tree *t, const struct sim_effect *e)
{
	switch (e->kind) {
	case SIM_MADE:
		return make(t, e);
	case SIM_LINKED:
		return add_link(t, e);
	case SIM_LOST:
		return lose(t, e->dir, e->name, e->is_dir);
	case SIM_RENAMED:
		return move(t, e);
	case SIM_EXCHANGED:
		return exchange(t, e);
	case SIM_MODE_SET:
	case SIM_ATTR_SET:
		return set(t, e);
	default:
		return true;
	}
}
