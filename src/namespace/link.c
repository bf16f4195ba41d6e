/* SPDX-License-Identifier: MIT */
/*
 * Further names of an inode, and taking names away: link, unlink, rmdir.
 *
 * The batch that takes the last name writes the orphan record, so that after a crash the inode is
 * still found and freed. Freeing itself is orphan.c's, when nobody uses the inode any more.
 */
#include "namespace_private.h"

/* ------------------------------------------------------------------ link */

static int check_link(struct ns_op *op)
{
	const struct ns_slot *dir = op->parent[0], *target = op->target;
	int err;

	if (op->child[0] && dir->attr.nlink)
		return -EEXIST;
	err = op_check_parent(dir, false);
	if (err)
		return err;
	if (S_ISDIR(target->attr.mode))
		return -EPERM;
	/* As in Linux: gone for good once the last name is gone, unless it never had one. */
	if (target->attr.nlink == 0 && !target->inode->tmpfile)
		return -ENOENT;
	if (target->attr.flags & (SLU_INODE_IMMUTABLE | SLU_INODE_APPEND))
		return -EPERM;
	if (target->attr.nlink >= op->ns->link_max)
		return -EMLINK;
	return op->ent[0].off ? 0 : -ENOSPC;
}

static int change_link(struct ns_op *op, struct slu_need *need)
{
	struct ns_slot *dir = op->parent[0], *target = op->target;
	int err = check_link(op);

	if (err)
		return err;
	dir_put_entry(&op->batch, op->dir[0], &op->name[0], op->ent[0].off, op->ino,
		      target->attr.mode);
	dir->attr.size++;
	op_touch_dir(op, dir);
	if (target->attr.nlink++ == 0)
		op_undo_orphan(op, target);
	target->attr.ctime = op->now;
	target->changed = true;
	return 0;
}

static void done_link(struct ns_op *op)
{
	struct slu_inode *inode = op->target->inode;

	if (!inode->tmpfile)
		return;
	inode->tmpfile = false;
	itable_set_orphan(inode, false);
}

int slu_ns_link(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, uint64_t parent,
		const char *name, struct slu_attr *ret)
{
	struct ns_op op = {
		.ns = ns,
		.ctx = ctx,
		.nnames = 1,
		.dir = {parent},
		.ino = ino,
		.records = 4,
		.change = change_link,
		.done = done_link,
	};
	struct slu_inode *inode;
	int err = ns_name_init(ns, &op.name[0], name);

	if (!err && ns_name_is_dots(name))
		err = -EEXIST;
	if (err)
		return err;
	op.bytes = sizeof(struct slu_disk_dirent) + op.name[0].len;
	err = slu_inode_get(ns, ino, &inode);
	if (err)
		return err;
	err = lookups_add(&ns->lookups, ino, 0, 1);
	if (err)
		goto put;
	err = op_run(&op);
	if (err) {
		slu_ns_forget(ns, ino, 1);
		goto put;
	}
	lookups_found(&ns->lookups, ino, parent);
	ns_count(ns, links);
	slu_inode_attr(inode, ret);
put:
	slu_inode_put(inode);
	return err;
}

/* ------------------------------------------------------------------ unlink and rmdir */

static int check_remove(struct ns_op *op, bool dir_wanted)
{
	const struct ns_slot *child = op->child[0];
	int err;

	if (!child)
		return -ENOENT;
	err = op_check_parent(op->parent[0], true);
	if (err)
		return err;
	if (S_ISDIR(child->attr.mode) != dir_wanted)
		return dir_wanted ? -ENOTDIR : -EISDIR;
	if (child->attr.flags & (SLU_INODE_IMMUTABLE | SLU_INODE_APPEND))
		return -EPERM;
	/* Named and without a link, or a directory named in two places: damage. */
	if (child->attr.nlink == 0 || (dir_wanted && child->attr.parent != op->dir[0]))
		return ns_bad_record(op->ns, child->attr.ino, "entry does not fit its inode");
	return 0;
}

static void remove_entry(struct ns_op *op)
{
	struct ns_slot *dir = op->parent[0];
	struct slu_key key = SLU_KEY(op->dir[0], SLU_REC_DIRENT, op->ent[0].off);

	slu_batch_del(&op->batch, &key);
	if (dir->attr.size)
		dir->attr.size--;
	op_touch_dir(op, dir);
	op_drop_link(op, op->child[0]);
}

static int change_unlink(struct ns_op *op, struct slu_need *need)
{
	int err = check_remove(op, false);

	if (!err)
		remove_entry(op);
	return err;
}

static int change_rmdir(struct ns_op *op, struct slu_need *need)
{
	struct ns_slot *dir = op->parent[0];
	bool empty;
	int err = check_remove(op, true);

	if (!err)
		err = dir_empty(op->ns, op->child[0]->attr.ino, &empty, need);
	if (err)
		return err;
	if (!empty)
		return -ENOTEMPTY;
	remove_entry(op);
	if (dir->attr.nlink > 2)
		dir->attr.nlink--;
	return 0;
}

static void done_remove(struct ns_op *op)
{
	op_mark_orphan(op->child[0]);
}

static int remove_name(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		       int (*change)(struct ns_op *op, struct slu_need *need))
{
	struct ns_op op = {
		.ns = ns,
		.ctx = ctx,
		.nnames = 1,
		.dir = {parent},
		.records = 4,
		.bytes = sizeof(struct slu_disk_orphan),
		.ticket_flags = SLU_TICKET_KEPT_BACK,
		.change = change,
		.done = done_remove,
	};
	int err = ns_name_init(ns, &op.name[0], name);

	if (!err)
		err = op_run(&op);
	if (!err)
		ns_count(ns, unlinks);
	return err;
}

int slu_ns_unlink(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name)
{
	if (ns_name_is_dots(name))
		return -EISDIR;
	return remove_name(ns, ctx, parent, name, change_unlink);
}

int slu_ns_rmdir(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name)
{
	if (ns_name_is_dots(name))
		return name[1] ? -ENOTEMPTY : -EINVAL;
	return remove_name(ns, ctx, parent, name, change_rmdir);
}
