/* SPDX-License-Identifier: MIT */
/*
 * rename: plain, RENAME_NOREPLACE, RENAME_EXCHANGE.
 *
 * Two things are peculiar. A directory that changes its parent must not end up below itself: such
 * renames run one at a time (ns->rename), which makes every path up to the root stand still while
 * it is walked, since nothing else changes the parent of a directory that has entries. And a file
 * that replaces another is written out first, as far as it has been received, so that a crash shows
 * the old contents or the new ones and nothing between; if that fails the rename fails.
 */
#include "namespace_private.h"

struct rename {
	unsigned int flags;
};

static bool exchange(const struct ns_op *op)
{
	return ((const struct rename *)op->arg)->flags & RENAME_EXCHANGE;
}

/* ------------------------------------------------------------------ before the locks */

static int write_out(struct slu_ns *ns, struct slu_inode *inode)
{
	return slu_writeback_range(ns->wb, &inode->data, 0, UINT64_MAX);
}

static int wait_written(struct slu_need *need)
{
	struct slu_ns *ns = need->owner;
	struct slu_inode *inode;
	int err = slu_inode_get(ns, need->arg[0], &inode);

	if (err)
		return 0; /* gone meanwhile: the rename finds that out itself */
	err = write_out(ns, inode);
	slu_inode_put(inode);
	return err;
}

static int write_out_first(struct ns_op *op, struct slu_need *need)
{
	struct slu_inode *inode = op->child[0]->inode;

	if (slu_mutant(RENAME_NO_WAIT))
		return 0;
	if (!op->ns->wb || exchange(op) || !S_ISREG(inode->type) || !op->child[1] ||
	    op->child[1] == op->child[0] || !slu_aspace_dirty(&inode->data))
		return 0;
	if (op->ctx->may_wait) {
		/* From an earlier round; recording what is written needs room of its own. */
		slu_ticket_put(&op->ticket);
		return write_out(op->ns, inode);
	}
	*need = (struct slu_need){.wait = wait_written,
				  .what = "data of a file that replaces another",
				  .owner = op->ns,
				  .arg = {inode->ino},
				  .slow = true};
	return -EAGAIN;
}

static int parent_of(struct slu_ns *ns, uint64_t ino, uint64_t *ret, struct slu_need *need)
{
	struct slu_inode *inode = itable_peek(ns, ino);
	struct slu_attr attr;
	int err = 0;

	if (inode) {
		slu_inode_attr(inode, &attr);
		slu_inode_put(inode);
	} else {
		err = inode_read_record(ns, ino, &attr, need);
	}
	if (err)
		return err;
	if (!S_ISDIR(attr.mode))
		return ns_bad_record(ns, ino, "parent that is no directory");
	*ret = attr.parent;
	return 0;
}

/*
 * Whether `above` is dir or one of the directories over it. ns->rename held. Brent's method finds
 * the circle that a damaged volume may contain.
 */
static int is_below(struct slu_ns *ns, uint64_t dir, uint64_t above, bool *ret,
		    struct slu_need *need)
{
	uint64_t at = dir, mark = 0, steps = 0, power = 1;

	while (at != above && at != SLU_INO_ROOT) {
		int err = parent_of(ns, at, &at, need);

		if (err == -ENOENT)
			err = ns_bad_record(ns, at, "parent that does not exist");
		if (err)
			return err;
		if (at == mark)
			return ns_bad_record(ns, at, "directories that form a circle");
		if (++steps == power) {
			mark = at;
			power *= 2;
			steps = 0;
		}
	}
	*ret = at == above;
	return 0;
}

static int check_not_below(struct ns_op *op, unsigned int i, struct slu_need *need)
{
	const struct slu_inode *inode = op->child[i]->inode;
	bool below = false;
	int err;

	if (!S_ISDIR(inode->type))
		return 0;
	err = is_below(op->ns, op->dir[!i], inode->ino, &below, need);
	if (err)
		return err;
	return below ? -EINVAL : 0;
}

static bool is_dir(const struct ns_slot *slot)
{
	return slot && S_ISDIR(slot->inode->type);
}

static int check_found(const struct ns_op *op)
{
	unsigned int flags = ((const struct rename *)op->arg)->flags;

	if (!op->child[0] || (!op->child[1] && (flags & RENAME_EXCHANGE)))
		return -ENOENT;
	return op->child[1] && (flags & RENAME_NOREPLACE) ? -EEXIST : 0;
}

/* Leaves ns->rename held where it is needed: op_run gives it up. */
static int find_rename(struct ns_op *op, struct slu_need *need) SLU_NO_TSA
{
	int err = check_found(op);

	if (!err)
		err = write_out_first(op, need);
	if (err)
		return err;
	if (op->dir[0] == op->dir[1] ||
	    !(is_dir(op->child[0]) || (exchange(op) && is_dir(op->child[1]))))
		return 0;
	slu_mutex_lock(&op->ns->rename);
	op->rename_locked = true;
	err = check_not_below(op, 0, need);
	if (!err && exchange(op))
		err = check_not_below(op, 1, need);
	return err;
}

/* ------------------------------------------------------------------ under the locks */

static int check_entry(const struct ns_op *op, unsigned int i)
{
	const struct ns_slot *child = op->child[i];

	if (child->attr.flags & (SLU_INODE_IMMUTABLE | SLU_INODE_APPEND))
		return -EPERM;
	if (child->attr.nlink == 0 ||
	    (S_ISDIR(child->attr.mode) && child->attr.parent != op->dir[i]))
		return ns_bad_record(op->ns, child->attr.ino, "entry does not fit its inode");
	return 0;
}

static int check_rename(struct ns_op *op)
{
	int err = check_found(op);

	if (err)
		return err;
	/* Two names of one inode: nothing to do, and both stay; POSIX. */
	if (op->child[0] == op->child[1])
		return 0;
	for (unsigned int i = 0; i < 2; i++) {
		/* Both lose a name, but for the one that only gets one. */
		err = op_check_parent(op->parent[i], i == 0 || op->child[1]);
		if (!err && op->child[i])
			err = check_entry(op, i);
		if (err)
			return err;
	}
	return 0;
}

static int check_replace(struct ns_op *op, struct slu_need *need)
{
	const struct ns_slot *old = op->child[1];
	bool empty;
	int err;

	if (!old)
		return op->ent[1].off ? 0 : -ENOSPC;
	if (!S_ISDIR(op->child[0]->attr.mode))
		return S_ISDIR(old->attr.mode) ? -EISDIR : 0;
	if (!S_ISDIR(old->attr.mode))
		return -ENOTDIR;
	err = dir_empty(op->ns, old->attr.ino, &empty, need);
	if (err)
		return err;
	return empty ? 0 : -ENOTEMPTY;
}

static void take_dir(struct ns_slot *parent, struct ns_slot *child)
{
	if (S_ISDIR(child->attr.mode) && parent->attr.nlink > 2)
		parent->attr.nlink--;
}

/* The limit has been checked. */
static void give_dir(struct ns_slot *parent, struct ns_slot *child)
{
	if (!S_ISDIR(child->attr.mode))
		return;
	parent->attr.nlink++;
	child->attr.parent = parent->attr.ino;
}

static int check_links(struct ns_op *op)
{
	const struct ns_slot *from = op->parent[0], *to = op->parent[1];
	bool gives = is_dir(op->child[0]), gets = is_dir(op->child[1]);

	if (from == to)
		return 0;
	if (gives && !gets && to->attr.nlink >= op->ns->link_max)
		return -EMLINK;
	if (exchange(op) && gets && !gives && from->attr.nlink >= op->ns->link_max)
		return -EMLINK;
	return 0;
}

static void put_exchanged(struct ns_op *op)
{
	struct ns_slot *a = op->child[0], *b = op->child[1];

	take_dir(op->parent[0], a);
	take_dir(op->parent[1], b);
	give_dir(op->parent[1], a);
	give_dir(op->parent[0], b);
	dir_put_entry(&op->batch, op->dir[0], &op->name[0], op->ent[0].off, b->attr.ino,
		      b->attr.mode);
	dir_put_entry(&op->batch, op->dir[1], &op->name[1], op->ent[1].off, a->attr.ino,
		      a->attr.mode);
	b->attr.ctime = op->now;
	b->changed = true;
}

static void put_moved(struct ns_op *op)
{
	struct ns_slot *from = op->parent[0], *to = op->parent[1];
	struct ns_slot *child = op->child[0], *old = op->child[1];
	struct slu_key key = SLU_KEY(op->dir[0], SLU_REC_DIRENT, op->ent[0].off);

	if (old) {
		take_dir(to, old);
		op_drop_link(op, old);
	} else {
		to->attr.size++;
	}
	take_dir(from, child);
	give_dir(to, child);
	slu_batch_del(&op->batch, &key);
	if (from->attr.size)
		from->attr.size--;
	dir_put_entry(&op->batch, op->dir[1], &op->name[1], op->ent[1].off, child->attr.ino,
		      child->attr.mode);
}

static int change_rename(struct ns_op *op, struct slu_need *need)
{
	int err = check_rename(op);

	if (err || op->child[0] == op->child[1])
		return err;
	if (!exchange(op))
		err = check_replace(op, need);
	if (!err)
		err = check_links(op);
	if (err)
		return err;
	if (exchange(op))
		put_exchanged(op);
	else
		put_moved(op);
	op_touch_dir(op, op->parent[0]);
	op_touch_dir(op, op->parent[1]);
	op->child[0]->attr.ctime = op->now;
	op->child[0]->changed = true;
	return 0;
}

static void done_rename(struct ns_op *op)
{
	lookups_found(&op->ns->lookups, op->child[0]->inode->ino, op->dir[1]);
	if (exchange(op))
		lookups_found(&op->ns->lookups, op->child[1]->inode->ino, op->dir[0]);
	if (op->child[1] && op->child[1]->changed && !exchange(op))
		op_mark_orphan(op->child[1]);
}

int slu_ns_rename(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		  uint64_t newparent, const char *newname, unsigned int flags)
{
	struct rename arg = {.flags = flags};
	struct ns_op op = {
		.ns = ns,
		.ctx = ctx,
		.nnames = 2,
		.dir = {parent, newparent},
		.records = 7,
		.bytes = 2 * (sizeof(struct slu_disk_dirent) + NS_NAME_MAX) +
			 sizeof(struct slu_disk_orphan),
		.find = find_rename,
		.change = change_rename,
		.done = done_rename,
		.arg = &arg,
	};
	int err;

	if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	err = ns_name_init(ns, &op.name[0], name);
	if (!err)
		err = ns_name_init(ns, &op.name[1], newname);
	if (!err && (ns_name_is_dots(name) || ns_name_is_dots(newname)))
		err = -EBUSY;
	/* What takes no more than it gives back is possible on a full volume. */
	if (flags & RENAME_EXCHANGE || op.name[1].len <= op.name[0].len)
		op.ticket_flags = SLU_TICKET_KEPT_BACK;
	if (!err)
		err = op_run(&op);
	if (!err)
		ns_count(ns, renames);
	return err;
}
