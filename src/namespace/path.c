/* SPDX-License-Identifier: MIT */
/*
 * From an inode back to a path, for messages about it. Inodes do not know their names: the directory
 * is the one that the kernel found it in last, and the name what leads to it from there.
 *
 * Called by whoever tells people of an event, with no lock held; takes the store's, for a bounded
 * number of entries at a time. Posts no events itself, since it may be one of its own making that is
 * being told.
 */
#include "namespace_private.h"

#define PATH_LOOKS (256u << 10) /* directory entries looked at, at most */

static int read_parent(struct slu_ns *ns, uint64_t dir, uint64_t *ret, struct slu_need *need)
{
	struct slu_key key = SLU_KEY(dir, SLU_REC_INODE, 0);
	uint8_t value[SLU_VALUE_MAX];
	struct slu_attr attr;
	int len = slu_store_get(ns->store, &key, value, sizeof(value), need);

	if (len < 0)
		return len;
	if (inode_parse(value, (size_t)len, dir, &attr))
		return -EIO;
	*ret = attr.parent;
	return 0;
}

/* Of whatever the kernel knows, or did while it was in memory; and of every directory. */
static int parent_of(struct slu_ns *ns, uint64_t ino, uint64_t *ret, struct slu_need *need)
{
	*ret = lookups_parent(&ns->lookups, ino);
	if (!*ret)
		*ret = itable_found_in(ns, ino);
	return *ret ? 0 : read_parent(ns, ino, ret, need);
}

int slu_ns_path(struct slu_ns *ns, uint64_t ino, bool may_wait, char *buf, size_t size)
{
	struct slu_need need, *n = may_wait ? NULL : &need;
	uint64_t looks = PATH_LOOKS, dir;
	char name[NS_NAME_MAX];
	size_t at = size, len;
	int err;

	if (size < sizeof("/"))
		return -ENAMETOOLONG;
	buf[--at] = '\0';
	if (ino == SLU_INO_ROOT)
		buf[--at] = '/';
	for (; ino != SLU_INO_ROOT; ino = dir) {
		err = parent_of(ns, ino, &dir, n);
		if (!err && !dir)
			err = -ENOENT;
		if (!err)
			err = dir_name_of(ns, dir, ino, name, &len, &looks, n);
		if (err)
			return err;
		if (at < len + 1)
			return -ENAMETOOLONG;
		at -= len;
		memcpy(buf + at, name, len);
		buf[--at] = '/';
	}
	memmove(buf, buf + at, size - at);
	return 0;
}
