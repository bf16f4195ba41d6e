/* SPDX-License-Identifier: MIT */
/*
 * From a name to an inode, and what the kernel remembers of it.
 *
 * Names are read with no lock held. Between the entry and the inode the name may go; then the inode
 * has no link or is gone, and the name is looked up again.
 */
#include "namespace_private.h"

static int lookup_dots(struct slu_ns *ns, struct slu_inode *dir, const char *name,
		       struct slu_attr *ret)
{
	struct slu_inode *up;
	int err;

	slu_inode_attr(dir, ret);
	if (name[1] == '.') {
		if (!S_ISDIR(ret->mode))
			return -ENOTDIR;
		err = slu_inode_get(ns, ret->parent, &up);
		if (err)
			return err;
		slu_inode_attr(up, ret);
		slu_inode_put(up);
	}
	if (ret->nlink == 0)
		return -ESTALE;
	return lookups_add(&ns->lookups, ret->ino, 0, 1);
}

/* Whether the directory `child` is named in dir and says so too, looked at under dir's lock. */
static int dir_belongs(struct slu_inode *dir, const struct ns_name *name, struct slu_inode *child)
{
	struct slu_ns *ns = dir->ns;
	struct ns_dirent entry;
	struct slu_attr attr;
	struct slu_need need;
	int err;

	for (;;) {
		slu_rwlock_rdlock(&dir->data.lock);
		err = dir_find(ns, dir->ino, name, &entry, &need);
		slu_inode_attr(child, &attr);
		slu_rwlock_rdunlock(&dir->data.lock);
		if (!err)
			break;
		if (err == -EAGAIN)
			err = slu_need_wait(&need);
		if (err)
			return err;
	}
	if (entry.ino != child->ino || attr.parent == dir->ino)
		return NS_RESTART;
	return ns_bad_record(ns, child->ino, "directory in a place that is not its parent");
}

/* 0, NS_RESTART, or an error; entry is what the name was. */
static int lookup_entry(struct slu_inode *dir, const struct ns_name *name,
			const struct ns_dirent *entry, struct slu_attr *ret)
{
	struct slu_ns *ns = dir->ns;
	struct slu_inode *child;
	struct ns_dirent again;
	int err = slu_inode_get(ns, entry->ino, &child);

	if (err == -ENOENT || err == -ESTALE) {
		err = dir_find(ns, dir->ino, name, &again, NULL);
		if (err)
			return err;
		if (again.ino != entry->ino)
			return NS_RESTART;
		return ns_bad_record(ns, entry->ino, "entry of an inode that does not exist");
	}
	if (err)
		return err;
	slu_inode_attr(child, ret);
	if (ret->nlink == 0) {
		err = dir_find(ns, dir->ino, name, &again, NULL);
		if (!err)
			err = again.ino != entry->ino
				      ? NS_RESTART
				      : ns_bad_record(ns, entry->ino, "entry of an unlinked inode");
	} else if (S_ISDIR(ret->mode) && ret->parent != dir->ino) {
		err = dir_belongs(dir, name, child);
	} else {
		err = lookups_add(&ns->lookups, ret->ino, dir->ino, 1);
	}
	slu_inode_put(child);
	return err;
}

int slu_ns_lookup(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		  struct slu_attr *ret)
{
	struct slu_inode *dir;
	struct ns_name n;
	struct ns_dirent entry;
	struct slu_attr attr;
	int err = ns_name_init(ns, &n, name);

	if (err)
		return err;
	err = slu_inode_get(ns, parent, &dir);
	if (err)
		return err;
	ns_count(ns, lookups);
	if (ns_name_is_dots(name)) {
		err = lookup_dots(ns, dir, name, &attr);
		goto put;
	}
	err = -ENOTDIR;
	if (!S_ISDIR(dir->type))
		goto put;
	do {
		err = dir_find(ns, parent, &n, &entry, NULL);
		if (!err && !entry.ino) {
			err = -ENOENT;
			ns_count(ns, misses);
		}
		if (!err)
			err = lookup_entry(dir, &n, &entry, &attr);
	} while (err == NS_RESTART);
put:
	slu_inode_put(dir);
	if (!err)
		*ret = attr;
	return err;
}

void slu_ns_lookup_count(struct slu_ns *ns, uint64_t ino, uint64_t parent, uint64_t n)
{
	/* Too little memory to remember: then no orphan is freed before the end of the mount. */
	if (n && lookups_add(&ns->lookups, ino, parent, n))
		atomic_store(&ns->lookups.lost, true);
}

void slu_ns_forget(struct slu_ns *ns, uint64_t ino, uint64_t n)
{
	uint64_t parent = lookups_parent(&ns->lookups, ino);

	if (n && lookups_sub(&ns->lookups, ino, n) == 0)
		itable_forgotten(ns, ino, parent);
}
