/* SPDX-License-Identifier: MIT */
/*
 * Directory entries and extended attributes: what their names may be, that each is found under its
 * own hash, that none is there twice, and that values in parts are whole. Called record by record
 * from the stream in inode.c.
 */
#include "check_private.h"
#include <linux/xattr.h>
#include <sys/stat.h>
#include <xxhash.h>

#define DIR_XATTR_VALUE_MAX 65536u
#define DIR_ACL_VERSION     2u

/*
 * The hash as the format defines it, computed here on its own rather than by the code under test.
 */
static uint64_t dir_hash(const struct check_run *run, const void *name, size_t len)
{
	uint64_t h = XXH3_64bits_withSeed(name, len, run->hash_seed) >> 17;

	return h ? h : 1;
}

/* The key must be the name's; and among names of one hash none may come twice. */
static void dir_check_key(struct check_run *run, const struct slu_key *key, const void *name,
			  size_t len, const char *what)
{
	struct check_current *cur = &run->current;
	uint64_t hash = key->off >> 16;
	GBytes *bytes;

	if (hash != dir_hash(run, name, len)) {
		g_autofree char *quoted = check_quote(name, len);

		check_report(run, SLU_PROBLEM_NAME_HASH, key->ino, 0,
			     "inode %" PRIu64 ": %s %s lies under the hash of another name",
			     key->ino, what, quoted);
	}
	if (cur->names_type != key->type || cur->names_hash != hash)
		g_ptr_array_set_size(cur->names, 0);
	cur->names_type = key->type;
	cur->names_hash = hash;
	for (guint i = 0; i < cur->names->len; i++) {
		gsize n;
		const void *other = g_bytes_get_data(cur->names->pdata[i], &n);

		if (n == len && !memcmp(other, name, len)) {
			g_autofree char *quoted = check_quote(name, len);

			check_report(run, SLU_PROBLEM_NAME_DUPLICATE, key->ino, 0,
				     "inode %" PRIu64 ": %s %s is there twice", key->ino, what,
				     quoted);
		}
	}
	bytes = g_bytes_new(name, len);
	g_ptr_array_add(cur->names, bytes);
}

/* ------------------------------------------------------------------ directory entries */

static bool dir_name_ok(const uint8_t *name, size_t len)
{
	if (memchr(name, 0, len) || memchr(name, '/', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

void check_dirent(struct check_run *run, const struct slu_key *key, const uint8_t *value,
		  size_t len)
{
	struct check_current *cur = &run->current;
	size_t name_len = len - slu_min(len, sizeof(struct slu_disk_dirent));
	const uint8_t *name = value + sizeof(struct slu_disk_dirent);
	struct slu_disk_dirent de;
	struct check_link link;

	if (name_len < 1 || name_len > 255) {
		check_report(run, SLU_PROBLEM_DIRENT, key->ino, 0,
			     "directory %" PRIu64 ": entry of %zu bytes", key->ino, len);
		return;
	}
	if (cur->has_inode && !S_ISDIR(cur->mode))
		check_report(run, SLU_PROBLEM_DIRENT, key->ino, 0,
			     "inode %" PRIu64 ": has entries and is no directory", key->ino);
	if (!dir_name_ok(name, name_len)) {
		g_autofree char *quoted = check_quote(name, name_len);

		check_report(run, SLU_PROBLEM_NAME, key->ino, 0,
			     "directory %" PRIu64 ": %s is no name", key->ino, quoted);
	}
	dir_check_key(run, key, name, name_len, "name");
	memcpy(&de, value, sizeof(de));
	link = (struct check_link){.target = slu_get_le64(&de.ino),
				   .dir = key->ino,
				   .off = key->off,
				   .type = de.type};
	cur->entries++;
	cur->subdirs += de.type == S_IFDIR >> 12;
	run->result->names++;
	g_array_append_val(run->links, link);
}

/* ------------------------------------------------------------------ extended attributes */

bool check_xattr_name_ok(const char *name, size_t len)
{
	static const char *const prefixes[] = {XATTR_USER_PREFIX, XATTR_TRUSTED_PREFIX,
					       XATTR_SECURITY_PREFIX};
	static const char *const acls[] = {XATTR_NAME_POSIX_ACL_ACCESS,
					   XATTR_NAME_POSIX_ACL_DEFAULT};

	if (memchr(name, 0, len))
		return false;
	for (size_t i = 0; i < slu_array_size(prefixes); i++) {
		if (len > strlen(prefixes[i]) && !memcmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	}
	for (size_t i = 0; i < slu_array_size(acls); i++) {
		if (len == strlen(acls[i]) && !memcmp(name, acls[i], len))
			return true;
	}
	return false;
}

static void dir_announce_parts(struct check_run *run, const struct slu_key *key,
			       const struct check_parts *parts, const char *quoted)
{
	GArray *all = run->current.parts;

	for (guint i = 0; i < all->len; i++) {
		if (g_array_index(all, struct check_parts, i).part_id == parts->part_id) {
			check_report(run, SLU_PROBLEM_XATTR_PART, key->ino, 0,
				     "inode %" PRIu64 ": two attributes share the parts %u (%s)",
				     key->ino, parts->part_id, quoted);
			return;
		}
	}
	g_array_append_val(all, *parts);
}

void check_xattr(struct check_run *run, const struct slu_key *key, const uint8_t *value, size_t len)
{
	struct slu_disk_xattr dx;
	const char *name = (const char *)value + sizeof(dx);
	g_autofree char *quoted = NULL;
	struct check_parts parts = {0};
	bool acl;

	run->current.xattrs++;
	run->result->xattrs++;
	if (len >= sizeof(dx)) {
		memcpy(&dx, value, sizeof(dx));
		parts.part_id = slu_get_le32(&dx.part_id);
		parts.value_len = slu_get_le32(&dx.value_len);
	}
	if (len < sizeof(dx) || dx.name_len == 0 || dx.flags > 1 ||
	    parts.value_len > DIR_XATTR_VALUE_MAX ||
	    len != sizeof(dx) + dx.name_len + (dx.flags ? 0 : (size_t)parts.value_len)) {
		check_report(run, SLU_PROBLEM_XATTR, key->ino, 0,
			     "inode %" PRIu64 ": extended attribute of %zu bytes is malformed",
			     key->ino, len);
		return;
	}
	quoted = check_quote(name, dx.name_len);
	if (!check_xattr_name_ok(name, dx.name_len))
		check_report(run, SLU_PROBLEM_XATTR, key->ino, 0,
			     "inode %" PRIu64 ": %s is no name of an extended attribute", key->ino,
			     quoted);
	dir_check_key(run, key, name, dx.name_len, "attribute");
	acl = !strncmp(name, "system.", slu_min((size_t)dx.name_len, strlen("system.")));
	if (acl && !dx.flags &&
	    (parts.value_len % 8 != 4 ||
	     slu_get_le32(value + sizeof(dx) + dx.name_len) != DIR_ACL_VERSION))
		check_report(run, SLU_PROBLEM_XATTR, key->ino, 0, "inode %" PRIu64 ": %s is no ACL",
			     key->ino, quoted);
	if (dx.flags)
		dir_announce_parts(run, key, &parts, quoted);
}

void check_xattr_part(struct check_run *run, const struct slu_key *key, const uint8_t *value,
		      size_t len)
{
	GArray *all = run->current.parts;
	uint64_t part_id = key->off >> 8, n = key->off & 0xff;

	for (guint i = 0; i < all->len; i++) {
		struct check_parts *p = &g_array_index(all, struct check_parts, i);

		if (p->part_id != part_id)
			continue;
		if ((n != p->next || p->seen != p->next * SLU_VALUE_MAX || !len) &&
		    !run->current.gap)
			check_report(run, SLU_PROBLEM_XATTR_PART, key->ino, 0,
				     "inode %" PRIu64 ": part %" PRIu64 " of value %" PRIu64
				     " does not follow the one before",
				     key->ino, n, part_id);
		p->next++;
		p->seen += (uint32_t)len;
		return;
	}
	if (!run->current.gap)
		check_report(run, SLU_PROBLEM_XATTR_PART, key->ino, 0,
			     "inode %" PRIu64 ": part %" PRIu64 " of value %" PRIu64
			     ", which belongs to no extended attribute",
			     key->ino, n, part_id);
}

void check_xattrs_end(struct check_run *run)
{
	struct check_current *cur = &run->current;

	for (guint i = 0; i < cur->parts->len; i++) {
		struct check_parts *p = &g_array_index(cur->parts, struct check_parts, i);

		if (p->seen != p->value_len)
			check_report(run, SLU_PROBLEM_XATTR_PART, cur->ino, 0,
				     "inode %" PRIu64
				     ": value %u in parts has %u bytes, its attribute says %u",
				     cur->ino, p->part_id, p->seen, p->value_len);
	}
}
