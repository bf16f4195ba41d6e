/* SPDX-License-Identifier: MIT */
/*
 * New inodes: files, directories, symlinks, device nodes, unnamed files.
 *
 * The inode object is in the table, in state LOADING, before its records are in the store, so that
 * whoever finds the new name at once waits for the object instead of loading a second one. Its
 * locks need not be taken: nobody else gets to see it before it is made live.
 */
#include "namespace_private.h"

#define SYMLINK_PART SLU_VALUE_MAX

struct create {
	mode_t mode; /* as asked for, with the type */
	dev_t rdev;
	const char *target; /* of a symlink */
	size_t target_len;
	struct slu_inode *inode;
	struct slu_attr attr;
	uint32_t records; /* without ACLs */
	uint64_t bytes;
};

/* What ext4 hands on as well. */
static uint32_t inherited_flags(uint32_t flags, mode_t mode)
{
	if (S_ISDIR(mode))
		return flags &
		       (SLU_INODE_SYNC | SLU_INODE_NODUMP | SLU_INODE_NOATIME | SLU_INODE_DIRSYNC);
	if (S_ISREG(mode))
		return flags & (SLU_INODE_SYNC | SLU_INODE_NODUMP | SLU_INODE_NOATIME);
	return flags & (SLU_INODE_NODUMP | SLU_INODE_NOATIME);
}

static void make_attr(struct ns_op *op, struct create *c)
{
	const struct slu_attr *dir = &op->parent[0]->attr;
	mode_t mode = c->mode;

	if ((dir->mode & S_ISGID) && S_ISDIR(mode))
		mode |= S_ISGID;
	c->attr = (struct slu_attr){
		.ino = c->inode->ino,
		.size = c->target_len,
		.parent = S_ISDIR(mode) ? op->dir[0] : 0,
		.mode = mode,
		.uid = op->ctx->uid,
		.gid = dir->mode & S_ISGID ? dir->gid : op->ctx->gid,
		.nlink = S_ISDIR(mode) ? 2 : 1,
		.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? (uint32_t)c->rdev : 0,
		.flags = inherited_flags(dir->flags, mode),
		.generation = 1, /* numbers are never used twice */
		.atime = op->now,
		.mtime = op->now,
		.ctime = op->now,
		.btime = op->now,
	};
	if (op->name[0].len == 0)
		c->attr.nlink = 0;
}

/* The first attributes of an inode: nothing is there to be found. */
static void put_acl(struct ns_op *op, struct create *c, const char *name, const void *blob,
		    size_t size)
{
	struct ns_xattr old = {
		.off = ns_hash(op->ns, name, strlen(name)) << 16 | c->attr.nxattr,
		.part_id = c->attr.nxattr,
	};

	xattr_put(&op->batch, &c->attr, name, &old, blob, size);
}

static int put_acls(struct ns_op *op, struct create *c, const uint8_t *dflt, unsigned int n)
{
	size_t size = acl_size(n);
	uint8_t *access = slu_memdup(dflt, size);
	mode_t mode = c->attr.mode;
	uint32_t count;
	int more, err;

	if (!access)
		return -ENOMEM;
	more = acl_inherit(access, n, &mode);
	if (more < 0) {
		err = ns_bad_record(op->ns, op->dir[0], "default ACL without a group entry");
		goto free;
	}
	count = (more ? 1 : 0) + (S_ISDIR(mode) ? 1 : 0);
	err = op_room(op, c->records + count * xattr_records(sizeof(NS_ACL_DEFAULT), size),
		      c->bytes + count * xattr_bytes(sizeof(NS_ACL_DEFAULT), size));
	if (err)
		goto free;
	c->attr.mode = mode;
	/* The collision number 0 comes first whether or not the two names collide. */
	if (more)
		put_acl(op, c, NS_ACL_ACCESS, access, size);
	if (S_ISDIR(mode))
		put_acl(op, c, NS_ACL_DEFAULT, dflt, size);
free:
	slu_free(access);
	return err;
}

/* The umask counts only where the directory has no default ACL; posix_acl(5). */
static int apply_umask_or_acl(struct ns_op *op, struct create *c, struct slu_need *need)
{
	uint8_t *dflt;
	unsigned int n;
	int err;

	if (S_ISLNK(c->mode))
		return 0;
	err = acl_read(op->ns, op->dir[0], &op->parent[0]->attr, NS_ACL_DEFAULT, &dflt, &n, need);
	if (err)
		return err;
	if (!dflt) {
		c->attr.mode &= ~(op->ctx->umask & 0777);
		return 0;
	}
	err = put_acls(op, c, dflt, n);
	slu_free(dflt);
	return err;
}

static void put_target(struct ns_op *op, const struct create *c)
{
	for (size_t off = 0; off < c->target_len; off += SYMLINK_PART) {
		struct slu_key key = SLU_KEY(c->inode->ino, SLU_REC_SYMLINK, off / SYMLINK_PART);

		slu_batch_put(&op->batch, &key, c->target + off,
			      slu_min(c->target_len - off, (size_t)SYMLINK_PART));
	}
}

static int check_create(struct ns_op *op, const struct create *c)
{
	struct ns_slot *dir = op->parent[0];

	if (op->child[0] && dir->attr.nlink)
		return -EEXIST;
	int err = op_check_parent(dir, false);
	if (err)
		return err;
	if (S_ISDIR(c->mode) && dir->attr.nlink >= op->ns->link_max)
		return -EMLINK;
	/* 65,536 names of one hash: not by chance. */
	return op->name[0].len && !op->ent[0].off ? -ENOSPC : 0;
}

static int change_create(struct ns_op *op, struct slu_need *need)
{
	struct create *c = op->arg;
	struct ns_slot *dir = op->parent[0];
	int err = check_create(op, c);

	if (err)
		return err;
	make_attr(op, c);
	err = apply_umask_or_acl(op, c, need);
	if (err)
		return err;
	put_target(op, c);
	inode_put_record(&op->batch, &c->attr, c->attr.size);
	slu_batch_inodes(&op->batch, 1);
	if (op->name[0].len == 0) {
		op_put_orphan(op, c->attr.ino, SLU_ORPHAN_UNLINKED, 0);
		return 0;
	}
	dir_put_entry(&op->batch, op->dir[0], &op->name[0], op->ent[0].off, c->attr.ino,
		      c->attr.mode);
	dir->attr.size++;
	if (S_ISDIR(c->mode))
		dir->attr.nlink++;
	op_touch_dir(op, dir);
	return 0;
}

static void done_create(struct ns_op *op)
{
	struct create *c = op->arg;

	c->inode->attr = c->attr;
	c->inode->last_txid = op->txid;
	c->inode->orphan = c->inode->tmpfile = c->attr.nlink == 0;
}

static int create(struct ns_op *op, struct create *c, struct slu_attr *ret)
{
	struct slu_ns *ns = op->ns;
	size_t nparts = (c->target_len + SYMLINK_PART - 1) / SYMLINK_PART;
	int err;

	if (ns_readonly(ns))
		return -EROFS;
	op->nnames = 1;
	op->arg = c;
	op->change = change_create;
	op->done = done_create;
	c->records = 3 + (uint32_t)nparts;
	c->bytes = sizeof(struct slu_disk_inode) + c->target_len + sizeof(struct slu_disk_dirent) +
		   slu_max(op->name[0].len, sizeof(struct slu_disk_orphan));
	op->records = c->records;
	op->bytes = c->bytes;

	c->attr.ino = ns_new_ino(ns);
	c->attr.mode = c->mode;
	err = lookups_add(&ns->lookups, c->attr.ino, op->nnames ? op->dir[0] : 0, 1);
	if (err)
		return err;
	err = itable_new(ns, &c->attr, &c->inode);
	if (err)
		goto forget;
	err = op_run(op);
	if (err)
		goto drop;
	ns_count(ns, creates);
	*ret = c->attr;
	itable_live(c->inode);
	slu_inode_put(c->inode);
	itable_trim(ns);
	return 0;

drop:
	itable_drop(c->inode);
forget:
	lookups_sub(&ns->lookups, c->attr.ino, 1);
	return err;
}

static int create_named(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
			struct create *c, struct slu_attr *ret)
{
	struct ns_op op = {.ns = ns, .ctx = ctx, .dir = {parent}};
	int err = ns_name_init(ns, &op.name[0], name);

	if (!err && ns_name_is_dots(name))
		err = -EEXIST;
	return err ? err : create(&op, c, ret);
}

int slu_ns_mknod(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		 mode_t mode, dev_t rdev, struct slu_attr *ret)
{
	struct create c = {.mode = mode & (S_IFMT | 07777), .rdev = rdev};

	switch (mode & S_IFMT) {
	case 0: /* mknod(2) says so */
		c.mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFCHR:
	case S_IFBLK:
		if (rdev > UINT32_MAX)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	return create_named(ns, ctx, parent, name, &c, ret);
}

int slu_ns_symlink(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, const char *name,
		   const char *target, struct slu_attr *ret)
{
	struct create c = {.mode = S_IFLNK | 0777, .target = target, .target_len = strlen(target)};

	if (c.target_len == 0)
		return -ENOENT;
	if (c.target_len > NS_TARGET_MAX)
		return -ENAMETOOLONG;
	return create_named(ns, ctx, parent, name, &c, ret);
}

int slu_ns_tmpfile(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t parent, mode_t mode,
		   struct slu_attr *ret)
{
	struct create c = {.mode = S_IFREG | (mode & 07777)};
	struct ns_op op = {.ns = ns, .ctx = ctx, .dir = {parent}};

	return create(&op, &c, ret);
}
