/* SPDX-License-Identifier: MIT */
/*
 * Extended attributes. A small value lies in the attribute's record behind the name, a greater one
 * in parts of 1,024 bytes. A value is replaced in one batch: greater values keep their parts'
 * numbers, so even 64 KiB over 64 KiB is a batch of 66 records.
 *
 * Reading takes the inode's rwlock shared, so that the parts belong together; changes run in the
 * frame of op.c.
 */
#include "namespace_private.h"
#include <sys/xattr.h>

#define HEAD                 ((size_t)sizeof(struct slu_disk_xattr))
#define XATTR_MAX_COLLISIONS 65536u

static unsigned int part_count(size_t len)
{
	return (unsigned int)((len + SLU_VALUE_MAX - 1) / SLU_VALUE_MAX);
}

static bool fits_inline(size_t name_len, size_t len)
{
	return HEAD + name_len + len <= SLU_VALUE_MAX;
}

unsigned int xattr_records(size_t name_len, size_t len)
{
	return 1 + (fits_inline(name_len, len) ? 0 : part_count(len));
}

unsigned int xattr_change_records(const struct ns_xattr *old, size_t name_len, size_t len)
{
	unsigned int records = xattr_records(name_len, len);

	/* A value in parts may be as short as one that would not need them. */
	return old->parts ? slu_max(records, 1 + part_count(old->value_len)) : records;
}

uint64_t xattr_bytes(size_t name_len, size_t len)
{
	return HEAD + name_len + len;
}

/* ------------------------------------------------------------------ records */

static bool parse(const void *value, size_t len, struct ns_xattr *ret, const char **name,
		  size_t *name_len)
{
	const struct slu_disk_xattr *d = value;

	if (len < HEAD || d->flags > 1 || d->name_len == 0 || len < HEAD + d->name_len)
		return false;
	*name = (const char *)value + HEAD;
	*name_len = d->name_len;
	ret->parts = d->flags == 1;
	ret->value_len = slu_get_le32(&d->value_len);
	ret->part_id = slu_get_le32(&d->part_id);
	ret->inline_len = (uint16_t)(len - HEAD - d->name_len);
	if (memchr(*name, '\0', *name_len) || ret->value_len > NS_XATTR_VALUE_MAX)
		return false;
	return ret->inline_len == (ret->parts ? 0 : ret->value_len);
}

struct find {
	const char *name;
	size_t name_len;
	struct ns_xattr *ret;
	uint32_t next; /* collision numbers below are taken */
};

static int find_xattr(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct find *f = ctx;
	const char *name;
	size_t name_len;

	if ((key->off & 0xffff) == f->next)
		f->next++;
	if (!parse(value, len, f->ret, &name, &name_len))
		return 0;
	if (name_len != f->name_len || memcmp(name, f->name, name_len) != 0)
		return 0;
	memcpy(f->ret->value, name + name_len, f->ret->inline_len);
	f->ret->found = true;
	f->ret->off = key->off;
	return 1;
}

int xattr_find(struct slu_ns *ns, uint64_t ino, const char *name, struct ns_xattr *ret,
	       struct slu_need *need)
{
	struct find f = {.name = name, .name_len = strlen(name), .ret = ret};
	uint64_t first = ns_hash(ns, name, f.name_len) << 16;
	struct slu_key from = SLU_KEY(ino, SLU_REC_XATTR, first);
	struct slu_key end = SLU_KEY(ino, SLU_REC_XATTR, first + XATTR_MAX_COLLISIONS);
	int err;

	ret->found = false;
	err = slu_store_scan(ns->store, &from, &end, find_xattr, &f, need);
	if (err < 0)
		return err;
	if (!ret->found) {
		ret->parts = false;
		ret->value_len = ret->part_id = 0;
		ret->inline_len = 0;
		ret->off = f.next < XATTR_MAX_COLLISIONS ? first | f.next : 0;
	}
	return 0;
}

static uint64_t part_off(uint32_t part_id, unsigned int n)
{
	return (uint64_t)part_id << 8 | n;
}

int xattr_read(struct slu_ns *ns, uint64_t ino, const struct ns_xattr *x, void *buf,
	       struct slu_need *need)
{
	uint8_t *at = buf;

	if (!x->parts) {
		memcpy(buf, x->value, x->value_len);
		return 0;
	}
	for (unsigned int i = 0; i < part_count(x->value_len); i++) {
		struct slu_key key = SLU_KEY(ino, SLU_REC_XATTR_PART, part_off(x->part_id, i));
		size_t want =
			slu_min(x->value_len - (size_t)i * SLU_VALUE_MAX, (size_t)SLU_VALUE_MAX);
		uint8_t part[SLU_VALUE_MAX];
		int len = slu_store_get(ns->store, &key, part, sizeof(part), need);

		if (len < 0 && len != -ENOENT)
			return len;
		if (len != (int)want)
			return ns_bad_record(ns, ino, "attribute value that is incomplete");
		memcpy(at, part, want);
		at += want;
	}
	return 0;
}

int xattr_free_part_id(struct slu_ns *ns, uint64_t ino, uint32_t *ret, struct slu_need *need)
{
	struct slu_key first = SLU_KEY(ino, SLU_REC_XATTR_PART, 0);
	struct slu_key end = SLU_KEY(ino, SLU_REC_XATTR_PART, UINT64_MAX);
	struct slu_key key = end;
	uint8_t part[SLU_VALUE_MAX];
	int len = slu_store_seek_le(ns->store, &key, &first, part, sizeof(part), need);

	if (len == -ENOENT) {
		*ret = 0;
		return 0;
	}
	if (len < 0)
		return len;
	if (key.off >> 8 < UINT32_MAX) {
		*ret = (uint32_t)(key.off >> 8) + 1;
		return 0;
	}
	/* Once in four thousand million times: the first gap. */
	for (uint64_t id = 0; id < UINT32_MAX; id++) {
		key = SLU_KEY(ino, SLU_REC_XATTR_PART, id << 8);
		len = slu_store_seek_ge(ns->store, &key, &end, part, sizeof(part), need);
		if (len < 0)
			return len == -ENOENT ? -EIO : len;
		if (key.off >> 8 != id) {
			*ret = (uint32_t)id;
			return 0;
		}
	}
	return -ENOSPC;
}

static void del_parts(struct slu_batch *b, uint64_t ino, const struct ns_xattr *old,
		      unsigned int from)
{
	if (!old->found || !old->parts)
		return;
	for (unsigned int i = from; i < part_count(old->value_len); i++) {
		struct slu_key key = SLU_KEY(ino, SLU_REC_XATTR_PART, part_off(old->part_id, i));

		slu_batch_del(b, &key);
	}
}

void xattr_put(struct slu_batch *b, struct slu_attr *attr, const char *name,
	       const struct ns_xattr *old, const void *value, size_t len)
{
	struct slu_key key = SLU_KEY(attr->ino, SLU_REC_XATTR, old->off);
	size_t name_len = strlen(name);
	bool is_inline = fits_inline(name_len, len);
	unsigned int nparts = is_inline ? 0 : part_count(len);
	uint8_t record[SLU_VALUE_MAX];
	struct slu_disk_xattr *d = (struct slu_disk_xattr *)record;

	d->flags = is_inline ? 0 : 1;
	d->name_len = (uint8_t)name_len;
	slu_put_le32(&d->value_len, (uint32_t)len);
	slu_put_le32(&d->part_id, is_inline ? 0 : old->part_id);
	memcpy(record + HEAD, name, name_len);
	if (is_inline && len)
		memcpy(record + HEAD + name_len, value, len);
	slu_batch_put(b, &key, record, HEAD + name_len + (is_inline ? len : 0));
	for (unsigned int i = 0; i < nparts; i++) {
		size_t at = (size_t)i * SLU_VALUE_MAX;

		key = SLU_KEY(attr->ino, SLU_REC_XATTR_PART, part_off(old->part_id, i));
		slu_batch_put(b, &key, (const uint8_t *)value + at,
			      slu_min(len - at, (size_t)SLU_VALUE_MAX));
	}
	del_parts(b, attr->ino, old, nparts);
	if (!old->found)
		attr->nxattr++;
}

void xattr_del(struct slu_batch *b, struct slu_attr *attr, const struct ns_xattr *old)
{
	struct slu_key key = SLU_KEY(attr->ino, SLU_REC_XATTR, old->off);

	slu_batch_del(b, &key);
	del_parts(b, attr->ino, old, 0);
	if (attr->nxattr)
		attr->nxattr--;
}

/* ------------------------------------------------------------------ names */

static int check_name(const char *name)
{
	static const char *const prefixes[] = {"user.", NS_XATTR_TRUSTED, "security."};
	size_t len = strnlen(name, NS_NAME_MAX + 1);

	if (len > NS_NAME_MAX)
		return -ERANGE; /* as the kernel has it */
	if (strcmp(name, NS_ACL_ACCESS) == 0 || strcmp(name, NS_ACL_DEFAULT) == 0)
		return 0;
	for (size_t i = 0; i < slu_array_size(prefixes); i++) {
		size_t n = strlen(prefixes[i]);

		if (strncmp(name, prefixes[i], n) == 0)
			return name[n] ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

struct list {
	char *buf;
	size_t size, len;
	bool hide_trusted;
};

static int list_xattr(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct list *l = ctx;
	struct ns_xattr x;
	const char *name;
	size_t name_len;

	if (!parse(value, len, &x, &name, &name_len))
		return 0;
	if (l->hide_trusted && strncmp(name, NS_XATTR_TRUSTED, strlen(NS_XATTR_TRUSTED)) == 0)
		return 0;
	if (l->buf) {
		if (name_len + 1 > l->size - l->len)
			return -ERANGE;
		memcpy(l->buf + l->len, name, name_len);
		l->buf[l->len + name_len] = '\0';
	}
	l->len += name_len + 1;
	return 0;
}

static int scan_names(struct slu_ns *ns, uint64_t ino, struct list *l, struct slu_need *need)
{
	struct slu_key from = SLU_KEY(ino, SLU_REC_XATTR, 0);
	struct slu_key end = SLU_KEY(ino, SLU_REC_XATTR, UINT64_MAX);

	return slu_store_scan(ns->store, &from, &end, list_xattr, l, need);
}

/* listxattr(2) ends at 64 KiB: beyond that an attribute could be had but not found. */
static int check_list_room(struct ns_op *op, size_t name_len, struct slu_need *need)
{
	struct list l = {.len = name_len + 1};
	int err;

	if ((uint64_t)op->target->attr.nxattr + 1 <= NS_XATTR_LIST_MAX / (NS_NAME_MAX + 1))
		return 0;
	err = scan_names(op->ns, op->ino, &l, need);
	if (err < 0)
		return err;
	return l.len <= NS_XATTR_LIST_MAX ? 0 : -ENOSPC;
}

/* ------------------------------------------------------------------ set and remove */

struct change {
	const char *name;
	const void *value; /* NULL: remove */
	size_t size;
	int flags;
	bool kill_sgid;
	bool missing_is_fine; /* removing what is not there */
};

static int put_value(struct ns_op *op, const struct change *c, struct slu_need *need)
{
	size_t name_len = strlen(c->name);
	struct ns_xattr old;
	int err = xattr_find(op->ns, op->ino, c->name, &old, need);

	if (err)
		return err;
	if (old.found && (c->flags & XATTR_CREATE))
		return -EEXIST;
	if (!old.found && (c->flags & XATTR_REPLACE))
		return -ENODATA;
	if (!old.off)
		return -ENOSPC;
	if (!old.found)
		err = check_list_room(op, name_len, need);
	if (!err && !old.parts && !fits_inline(name_len, c->size))
		err = xattr_free_part_id(op->ns, op->ino, &old.part_id, need);
	if (err)
		return err;
	err = op_room(op, 1 + xattr_change_records(&old, name_len, c->size),
		      xattr_bytes(name_len, c->size));
	if (!err)
		xattr_put(&op->batch, &op->target->attr, c->name, &old, c->value, c->size);
	return err;
}

static int del_value(struct ns_op *op, const struct change *c, struct slu_need *need)
{
	struct ns_xattr old;
	int err = xattr_find(op->ns, op->ino, c->name, &old, need);

	if (err)
		return err;
	if (!old.found)
		return c->missing_is_fine ? 0 : -ENODATA;
	err = op_room(op, 1 + xattr_change_records(&old, strlen(c->name), 0), 0);
	if (!err)
		xattr_del(&op->batch, &op->target->attr, &old);
	return err;
}

/* An ACL that the mode says in full is not stored; the mode always follows the access ACL. */
static int put_acl(struct ns_op *op, struct change *c, struct slu_need *need)
{
	struct slu_attr *attr = &op->target->attr;
	bool access = strcmp(c->name, NS_ACL_ACCESS) == 0;
	int n = acl_check(c->value, c->size);
	struct change removal = *c;

	if (n < 0)
		return n;
	if (S_ISLNK(attr->mode))
		return -EOPNOTSUPP;
	if (!access && n > 0 && !S_ISDIR(attr->mode))
		return -EACCES;
	if (c->size > NS_ACL_MAX)
		return -ENOSPC;
	bool stored = n > 0;
	if (access && n > 0) {
		mode_t mode = attr->mode;

		stored = !acl_equiv_mode(c->value, (unsigned int)n, &mode);
		if (c->kill_sgid)
			mode &= ~(mode_t)S_ISGID;
		attr->mode = mode;
	}
	if (stored)
		return put_value(op, c, need);
	removal.missing_is_fine = true;
	return del_value(op, &removal, need);
}

static bool is_acl(const char *name)
{
	return strcmp(name, NS_ACL_ACCESS) == 0 || strcmp(name, NS_ACL_DEFAULT) == 0;
}

static int change_xattr(struct ns_op *op, struct slu_need *need)
{
	struct change *c = op->arg;
	struct ns_slot *target = op->target;
	int err;

	if (target->attr.flags & (SLU_INODE_IMMUTABLE | SLU_INODE_APPEND))
		return -EPERM;
	if (!c->value)
		err = del_value(op, c, need);
	else
		err = is_acl(c->name) ? put_acl(op, c, need) : put_value(op, c, need);
	if (err)
		return err;
	target->attr.ctime = op->now;
	target->changed = true;
	return 0;
}

int slu_ns_setxattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, const char *name,
		    const void *value, size_t size, int flags, bool kill_sgid)
{
	struct change c = {.name = name,
			   .value = value ? value : "",
			   .size = size,
			   .flags = flags,
			   .kill_sgid = kill_sgid};
	struct ns_op op = {.ns = ns, .ctx = ctx, .ino = ino, .arg = &c, .change = change_xattr};
	int err = check_name(name);

	if (err)
		return err;
	if (size > NS_XATTR_VALUE_MAX)
		return -E2BIG;
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	op.records = 1 + xattr_records(strlen(name), size);
	op.bytes = xattr_bytes(strlen(name), size);
	return op_run(&op);
}

int slu_ns_removexattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, const char *name)
{
	/* Taking away an ACL that is not there is no error in the kernel's own filesystems. */
	struct change c = {.name = name, .missing_is_fine = is_acl(name)};
	struct ns_op op = {
		.ns = ns,
		.ctx = ctx,
		.ino = ino,
		.arg = &c,
		.change = change_xattr,
		.records = 2,
		.ticket_flags = SLU_TICKET_KEPT_BACK,
	};
	int err = check_name(name);

	return err ? err : op_run(&op);
}

/* ------------------------------------------------------------------ get and list */

static int get_locked(struct slu_inode *inode, const char *name, struct ns_xattr *x, void *value,
		      size_t size, struct slu_need *need)
{
	int err = xattr_find(inode->ns, inode->ino, name, x, need);

	if (err)
		return err;
	if (!x->found)
		return -ENODATA;
	if (size == 0)
		return 0;
	if (x->value_len > size)
		return -ERANGE;
	return xattr_read(inode->ns, inode->ino, x, value, need);
}

static uint32_t count_xattrs(struct slu_inode *inode)
{
	struct slu_attr attr;

	slu_inode_attr(inode, &attr);
	return attr.nxattr;
}

ssize_t slu_ns_getxattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, const char *name,
			void *value, size_t size)
{
	struct slu_inode *inode;
	struct slu_need need;
	struct ns_xattr x;
	int err = check_name(name);

	if (err)
		return err;
	err = slu_inode_get(ns, ino, &inode);
	if (err)
		return err;
	err = -ENODATA;
	if (count_xattrs(inode) == 0) /* asked for on every first write, and hardly ever there */
		goto put;
	for (;;) {
		slu_rwlock_rdlock(&inode->data.lock);
		err = get_locked(inode, name, &x, value, size, &need);
		slu_rwlock_rdunlock(&inode->data.lock);
		if (err != -EAGAIN)
			break;
		err = slu_need_wait(&need);
		if (err)
			break;
	}
put:
	slu_inode_put(inode);
	return err ? err : (ssize_t)x.value_len;
}

ssize_t slu_ns_listxattr(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, char *list,
			 size_t size)
{
	/*
	 * The kernel lets nobody but CAP_SYS_ADMIN read these, and leaves it to us to hide that
	 * they are there; of capabilities no more than the uid is seen here.
	 */
	struct list l = {.buf = size ? list : NULL, .size = size, .hide_trusted = ctx->uid != 0};
	struct slu_inode *inode;
	int err = slu_inode_get(ns, ino, &inode);

	if (err)
		return err;
	if (count_xattrs(inode))
		err = scan_names(ns, ino, &l, NULL);
	slu_inode_put(inode);
	return err < 0 ? err : (ssize_t)l.len;
}
