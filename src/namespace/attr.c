/* SPDX-License-Identifier: MIT */
/*
 * setattr: mode, owner, times, flags; all but the size. Each call is one batch, so mode and access
 * ACL, or owner and what a change of owner revokes, are never seen apart.
 */
#include "namespace_private.h"

struct setattr {
	struct slu_attr attr; /* a copy: the caller may pass the same struct for the result */
	unsigned int set;
};

#define SET_TIMES (SLU_SET_ATIME | SLU_SET_MTIME | SLU_SET_ATIME_NOW | SLU_SET_MTIME_NOW)

/*
 * As notify_change() has it: of all that can be asked for, an append-only file allows utimensat(2)
 * without times, which is both of them and now. A ctime is never asked for by itself. Privileges
 * for the flags themselves are the kernel's to check.
 */
static int check_flags(const struct setattr *s, uint32_t flags)
{
	unsigned int set = s->set, forbidden = SLU_SET_MODE | SLU_SET_UID | SLU_SET_GID;
	bool touch;

	if (set & SLU_SET_TIMES_PASSED)
		set &= ~(SLU_SET_MTIME | SLU_SET_MTIME_IS_NOW);
	touch = (set & SLU_SET_ATIME_NOW) && (set & (SLU_SET_MTIME_NOW | SLU_SET_MTIME_IS_NOW));
	if (!touch)
		forbidden |= SET_TIMES;
	if ((flags & (SLU_INODE_IMMUTABLE | SLU_INODE_APPEND)) && (set & forbidden))
		return -EPERM;
	if ((flags & SLU_INODE_IMMUTABLE) && (touch || (set & SLU_SET_KILL_PRIV)))
		return -EPERM;
	if ((s->set & SLU_SET_FLAGS) && (s->attr.flags & ~SLU_INODE_FLAGS))
		return -EOPNOTSUPP;
	return 0;
}

/* The access ACL says the same as the mode. */
static int chmod_acl(struct ns_op *op, uint32_t *records, uint64_t *bytes, struct slu_need *need)
{
	struct slu_attr *attr = &op->target->attr;
	struct ns_xattr old;
	uint8_t *blob;
	unsigned int n;
	int err;

	if (attr->nxattr == 0 || S_ISLNK(attr->mode))
		return 0;
	err = acl_read(op->ns, op->ino, attr, NS_ACL_ACCESS, &blob, &n, need);
	if (err || !blob)
		return err;
	err = acl_chmod(blob, n, attr->mode);
	if (err)
		err = ns_bad_record(op->ns, op->ino, "access ACL without a group entry");
	if (!err)
		err = xattr_find(op->ns, op->ino, NS_ACL_ACCESS, &old, need);
	if (!err) {
		*records += xattr_change_records(&old, strlen(NS_ACL_ACCESS), acl_size(n));
		*bytes += old.parts ? acl_size(n) : 0; /* it moves into its record */
		xattr_put(&op->batch, attr, NS_ACL_ACCESS, &old, blob, acl_size(n));
	}
	slu_free(blob);
	return err;
}

/* What may not survive a write, a truncate or a change of owner by somebody else. */
static int kill_priv(struct ns_op *op, uint32_t *records, struct slu_need *need)
{
	struct slu_attr *attr = &op->target->attr;
	struct ns_xattr caps;
	int err;

	if (S_ISDIR(attr->mode))
		return 0;
	attr->mode &= ~(uint32_t)S_ISUID;
	if (attr->mode & S_IXGRP)
		attr->mode &= ~(uint32_t)S_ISGID;
	if (attr->nxattr == 0)
		return 0;
	err = xattr_find(op->ns, op->ino, NS_XATTR_CAPS, &caps, need);
	if (err || !caps.found)
		return err;
	*records += xattr_change_records(&caps, strlen(NS_XATTR_CAPS), 0);
	xattr_del(&op->batch, attr, &caps);
	return 0;
}

static void set_times(struct ns_op *op, const struct setattr *s)
{
	struct slu_attr *attr = &op->target->attr;

	if (s->set & (SLU_SET_ATIME | SLU_SET_ATIME_NOW))
		attr->atime = s->set & SLU_SET_ATIME_NOW ? op->now : s->attr.atime;
	if (s->set & (SLU_SET_MTIME | SLU_SET_MTIME_NOW))
		attr->mtime = s->set & SLU_SET_MTIME_NOW ? op->now : s->attr.mtime;
	attr->ctime = s->set & SLU_SET_CTIME ? s->attr.ctime : op->now;
}

static int change_setattr(struct ns_op *op, struct slu_need *need)
{
	struct setattr *s = op->arg;
	struct slu_attr *attr = &op->target->attr;
	uint32_t records = 1;
	uint64_t bytes = 0;
	int err = check_flags(s, attr->flags);

	if (err)
		return err;
	if (s->set & SLU_SET_UID)
		attr->uid = s->attr.uid;
	if (s->set & SLU_SET_GID)
		attr->gid = s->attr.gid;
	if (s->set & SLU_SET_FLAGS)
		attr->flags = s->attr.flags;
	if (s->set & SLU_SET_MODE) {
		attr->mode = (attr->mode & S_IFMT) | (s->attr.mode & 07777);
		err = chmod_acl(op, &records, &bytes, need);
	}
	if (!err && (s->set & (SLU_SET_UID | SLU_SET_GID | SLU_SET_KILL_PRIV)))
		err = kill_priv(op, &records, need);
	if (!err)
		err = op_room(op, records, bytes);
	if (err)
		return err;
	/* Asked for on many writes, and hardly ever is there anything to revoke. */
	if (s->set == SLU_SET_KILL_PRIV && attr->mode == op->target->inode->attr.mode &&
	    attr->nxattr == op->target->inode->attr.nxattr)
		return 0;
	set_times(op, s);
	op->target->changed = true;
	return 0;
}

static bool time_valid(const struct timespec *ts)
{
	return ts->tv_nsec >= 0 && ts->tv_nsec < (long)SLU_NS_PER_SEC;
}

int slu_ns_setattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino,
		   const struct slu_attr *attr, unsigned int set, struct slu_attr *ret)
{
	struct setattr s = {.attr = *attr, .set = set};
	struct slu_inode *inode;
	/* No record is added and none grows: a full volume does not keep anybody from chmod. */
	struct ns_op op = {
		.ns = ns,
		.ctx = ctx,
		.ino = ino,
		.records = 1,
		.ticket_flags = SLU_TICKET_KEPT_BACK,
		.change = change_setattr,
		.arg = &s,
	};
	int err;

	if (((set & SLU_SET_ATIME) && !time_valid(&attr->atime)) ||
	    ((set & SLU_SET_MTIME) && !time_valid(&attr->mtime)) ||
	    ((set & SLU_SET_CTIME) && !time_valid(&attr->ctime)))
		return -EINVAL;
	err = slu_inode_get(ns, ino, &inode);
	if (err)
		return err;
	err = op_run(&op);
	if (!err) {
		ns_count(ns, setattrs);
		slu_inode_attr(inode, ret);
	}
	slu_inode_put(inode);
	return err;
}
