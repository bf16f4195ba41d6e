/* SPDX-License-Identifier: MIT */
/*
 * POSIX ACLs as they come and go in extended attributes, and as they are stored: version 2 of the
 * kernel's xattr format, little-endian: a header (le32 version), then entries (le16 tag, le16 perm,
 * le32 id).
 *
 * What each function does to mode and entries is what the kernel's fs/posix_acl.c does, since a
 * FUSE filesystem with FUSE_POSIX_ACL has to do it itself. Works on the blob in place; takes no
 * locks.
 */
#include "namespace_private.h"

#define ACL_VERSION 2u
#define ACL_HEAD    4u
#define ACL_ENTRY   8u

enum {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

static uint8_t *entry(const void *blob, unsigned int i)
{
	return (uint8_t *)blob + ACL_HEAD + (size_t)i * ACL_ENTRY;
}

static unsigned int tag_of(const void *blob, unsigned int i)
{
	return slu_get_le16(entry(blob, i));
}

static unsigned int perm_of(const void *blob, unsigned int i)
{
	return slu_get_le16(entry(blob, i) + 2);
}

static void set_perm(void *blob, unsigned int i, unsigned int perm)
{
	slu_put_le16(entry(blob, i) + 2, (uint16_t)perm);
}

static uint32_t id_of(const void *blob, unsigned int i)
{
	return slu_get_le32(entry(blob, i) + 4);
}

size_t acl_size(unsigned int n)
{
	return ACL_HEAD + (size_t)n * ACL_ENTRY;
}

/* The order of tags, and what may follow what: state is the tag seen last. */
static bool tag_follows(unsigned int state, unsigned int tag)
{
	switch (tag) {
	case ACL_USER_OBJ:
		return state == 0;
	case ACL_USER:
		return state == ACL_USER_OBJ || state == ACL_USER;
	case ACL_GROUP_OBJ:
		return state == ACL_USER_OBJ || state == ACL_USER;
	case ACL_GROUP:
	case ACL_MASK:
		return state == ACL_GROUP_OBJ || state == ACL_GROUP;
	case ACL_OTHER:
		return state == ACL_GROUP_OBJ || state == ACL_GROUP || state == ACL_MASK;
	}
	return false;
}

int acl_check(const void *blob, size_t len)
{
	unsigned int state = 0, n;
	bool needs_mask = false, has_mask = false;

	if (len == 0)
		return 0;
	if (len < ACL_HEAD || (len - ACL_HEAD) % ACL_ENTRY)
		return -EINVAL;
	if (slu_get_le32(blob) != ACL_VERSION)
		return -EOPNOTSUPP;
	n = (unsigned int)((len - ACL_HEAD) / ACL_ENTRY);
	for (unsigned int i = 0; i < n; i++) {
		unsigned int tag = tag_of(blob, i);
		bool named = tag == ACL_USER || tag == ACL_GROUP;

		if (!tag_follows(state, tag) || perm_of(blob, i) > 7)
			return -EINVAL;
		if (named && id_of(blob, i) == UINT32_MAX)
			return -EINVAL;
		needs_mask |= named;
		has_mask |= tag == ACL_MASK;
		state = tag;
	}
	if (n && (state != ACL_OTHER || (needs_mask && !has_mask)))
		return -EINVAL;
	return (int)n;
}

bool acl_equiv_mode(const void *blob, unsigned int n, mode_t *mode)
{
	mode_t m = 0;
	bool equiv = true;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int perm = perm_of(blob, i);

		switch (tag_of(blob, i)) {
		case ACL_USER_OBJ:
			m |= perm << 6;
			break;
		case ACL_GROUP_OBJ:
			m |= perm << 3;
			break;
		case ACL_OTHER:
			m |= perm;
			break;
		case ACL_MASK: /* comes after the group's: what the group bits show */
			m = (m & ~(mode_t)S_IRWXG) | perm << 3;
			equiv = false;
			break;
		default:
			equiv = false;
		}
	}
	*mode = (*mode & ~(mode_t)0777) | m;
	return equiv;
}

/* The entry that the mode's group bits stand for. */
static int group_entry(const void *blob, unsigned int n)
{
	int group = -1;

	for (unsigned int i = 0; i < n; i++) {
		if (tag_of(blob, i) == ACL_MASK)
			return (int)i;
		if (tag_of(blob, i) == ACL_GROUP_OBJ)
			group = (int)i;
	}
	return group;
}

/* Neither grants what the other does not; returns what both grant. */
static mode_t cut(void *blob, unsigned int i, mode_t mode, unsigned int shift)
{
	unsigned int perm = perm_of(blob, i) & (mode >> shift) & 7;

	set_perm(blob, i, perm);
	return (mode_t)perm << shift;
}

int acl_inherit(void *blob, unsigned int n, mode_t *mode)
{
	int group = group_entry(blob, n);
	mode_t m = 0;
	bool more = false;

	if (group < 0)
		return -EIO;
	for (unsigned int i = 0; i < n; i++) {
		switch (tag_of(blob, i)) {
		case ACL_USER_OBJ:
			m |= cut(blob, i, *mode, 6);
			break;
		case ACL_OTHER:
			m |= cut(blob, i, *mode, 0);
			break;
		case ACL_GROUP_OBJ:
			break;
		default:
			more = true;
		}
	}
	m |= cut(blob, (unsigned int)group, *mode, 3);
	*mode = (*mode & ~(mode_t)0777) | m;
	return more;
}

int acl_chmod(void *blob, unsigned int n, mode_t mode)
{
	int group = group_entry(blob, n);

	if (group < 0)
		return -EIO;
	for (unsigned int i = 0; i < n; i++) {
		if (tag_of(blob, i) == ACL_USER_OBJ)
			set_perm(blob, i, mode >> 6 & 7);
		if (tag_of(blob, i) == ACL_OTHER)
			set_perm(blob, i, mode & 7);
	}
	set_perm(blob, (unsigned int)group, mode >> 3 & 7);
	return 0;
}

int acl_read(struct slu_ns *ns, uint64_t ino, const struct slu_attr *attr, const char *name,
	     uint8_t **ret, unsigned int *ret_n, struct slu_need *need)
{
	struct ns_xattr x;
	uint8_t *blob;
	int n, err;

	*ret = NULL;
	if (attr->nxattr == 0)
		return 0;
	err = xattr_find(ns, ino, name, &x, need);
	if (err || !x.found)
		return err;
	blob = slu_alloc(x.value_len);
	if (!blob)
		return -ENOMEM;
	err = xattr_read(ns, ino, &x, blob, need);
	if (err)
		goto free;
	n = acl_check(blob, x.value_len);
	if (n <= 0 || x.value_len > NS_ACL_MAX) {
		err = ns_bad_record(ns, ino, "damaged ACL");
		goto free;
	}
	*ret = blob;
	*ret_n = (unsigned int)n;
	return 0;
free:
	slu_free(blob);
	return err;
}
