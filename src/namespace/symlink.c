/* SPDX-License-Identifier: MIT */
/*
 * Reading a symlink's target: records of 1,024 bytes that never change while the inode lives, so no
 * lock is needed. (They are written in create.c and deleted in orphan.c.)
 */
#include "namespace_private.h"

struct target {
	uint8_t bytes[NS_TARGET_MAX];
	size_t len;
};

/* 1: a part that cannot be. An error would look like one of the store's, which has told of it. */
static int add_part(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct target *t = ctx;

	/* Every part but the last is full, so the part number is the place. */
	if (t->len != key->off * SLU_VALUE_MAX || len > sizeof(t->bytes) - t->len)
		return 1;
	memcpy(t->bytes + t->len, value, len);
	t->len += len;
	return 0;
}

static int read_target(struct slu_inode *inode, struct target *t)
{
	struct slu_ns *ns = inode->ns;
	struct slu_key from = SLU_KEY(inode->ino, SLU_REC_SYMLINK, 0);
	struct slu_key end = SLU_KEY(inode->ino, SLU_REC_SYMLINK, UINT64_MAX);
	struct slu_attr attr;
	int misfit = slu_store_scan(ns->store, &from, &end, add_part, t, NULL);

	if (misfit < 0)
		return misfit;
	slu_inode_attr(inode, &attr);
	if (misfit || t->len != attr.size || memchr(t->bytes, '\0', t->len))
		return ns_bad_record(ns, inode->ino, "symlink whose target does not fit its inode");
	return 0;
}

int slu_ns_readlink(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, char *buf, size_t size)
{
	struct target t = {.len = 0};
	struct slu_inode *inode;
	int err = slu_inode_get(ns, ino, &inode);

	if (err)
		return err;
	err = S_ISLNK(inode->type) ? read_target(inode, &t) : -EINVAL;
	if (!err) {
		slu_inode_touch(inode, SLU_TOUCH_ATIME);
		memcpy(buf, t.bytes, slu_min(size, t.len));
		err = (int)slu_min(size, t.len);
	}
	slu_inode_put(inode);
	return err;
}
