/* SPDX-License-Identifier: MIT */
/*
 * Names in directories and of attributes: which records are kept. A name that lies under the hash of
 * another one is found by nobody, one that is there twice is found once, and one that cannot be is
 * refused by the kernel: such entries go, and what only they led to is reconnected.
 */
#include "repair_private.h"
#include <sys/stat.h>
#include <xxhash.h>

#define NAME_XATTR_VALUE_MAX 65536u
#define NAME_ACL_VERSION     2u
#define NAME_LOST_FOUND      "lost+found"

uint64_t repair_hash(const struct repair_run *run, const void *name, size_t len)
{
	uint64_t h = XXH3_64bits_withSeed(name, len, run->hash_seed) >> 17;

	return h ? h : 1;
}

static bool name_drop(struct repair_run *run, const struct slu_key *key, const void *name,
		      size_t len, const char *what)
{
	if (run->pass == 1) {
		g_autofree char *quoted = check_quote(name, len);

		repair_did(run, "inode %" PRIu64 ": %s %s is dropped: %s", key->ino,
			   key->type == SLU_REC_DIRENT ? "name" : "attribute", quoted, what);
	}
	return false;
}

/* The key must be the name's; and among names of one hash none may come twice. */
static bool name_keep_key(struct repair_run *run, const struct slu_key *key, const void *name,
			  size_t len)
{
	struct repair_current *cur = &run->current;
	uint64_t hash = key->off >> 16;
	GBytes *bytes;

	if (hash != repair_hash(run, name, len))
		return name_drop(run, key, name, len, "it lies under the hash of another name");
	if (cur->names_type != key->type || cur->names_hash != hash)
		g_ptr_array_set_size(cur->names, 0);
	cur->names_type = key->type;
	cur->names_hash = hash;
	for (guint i = 0; i < cur->names->len; i++) {
		gsize n;
		const void *other = g_bytes_get_data(cur->names->pdata[i], &n);

		if (n == len && !memcmp(other, name, len))
			return name_drop(run, key, name, len, "it is there twice");
	}
	bytes = g_bytes_new(name, len);
	g_ptr_array_add(cur->names, bytes);
	return true;
}

/* ------------------------------------------------------------------ directory entries */

static bool name_ok(const uint8_t *name, size_t len)
{
	if (memchr(name, 0, len) || memchr(name, '/', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

bool repair_keep_dirent(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
			size_t len)
{
	size_t name_len = len - slu_min(len, sizeof(struct slu_disk_dirent));
	const uint8_t *name = value + sizeof(struct slu_disk_dirent);
	struct slu_disk_dirent de;
	struct repair_link link = {.dir = key->ino, .off = key->off};

	if (name_len < 1 || name_len > 255)
		return name_drop(run, key, "", 0, "malformed");
	if (!name_ok(name, name_len))
		return name_drop(run, key, name, name_len, "it is no name");
	if (!name_keep_key(run, key, name, name_len))
		return false;
	if (run->pass == 2)
		return true;
	memcpy(&de, value, sizeof(de));
	link.target = slu_get_le64(&de.ino);
	link.type = de.type;
	link.lost_found = key->ino == SLU_INO_ROOT && name_len == strlen(NAME_LOST_FOUND) &&
			  !memcmp(name, NAME_LOST_FOUND, name_len);
	g_array_append_val(run->links, link);
	return true;
}

/* ------------------------------------------------------------------ extended attributes */

/* Attributes are told apart from those whose parts were incomplete in the first pass by their key. */
static GBytes *name_key_bytes(uint64_t ino, uint64_t off)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_XATTR, off);
	uint8_t disk[SLU_KEY_SIZE];

	slu_key_put(disk, &key);
	return g_bytes_new(disk, sizeof(disk));
}

static bool name_is_bad(struct repair_run *run, const struct slu_key *key)
{
	GBytes *bytes = name_key_bytes(key->ino, key->off);
	bool bad = g_hash_table_contains(run->bad_xattrs, bytes);

	g_bytes_unref(bytes);
	return bad;
}

static struct repair_parts *name_find_parts(struct repair_run *run, uint64_t part_id)
{
	GArray *all = run->current.parts;

	for (guint i = 0; i < all->len; i++) {
		if (g_array_index(all, struct repair_parts, i).part_id == part_id)
			return &g_array_index(all, struct repair_parts, i);
	}
	return NULL;
}

bool repair_keep_xattr(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		       size_t len)
{
	const char *name = (const char *)value + sizeof(struct slu_disk_xattr);
	struct repair_parts parts = {.off = key->off};
	struct slu_disk_xattr dx = {0};

	if (len >= sizeof(dx)) {
		memcpy(&dx, value, sizeof(dx));
		parts.part_id = slu_get_le32(&dx.part_id);
		parts.value_len = slu_get_le32(&dx.value_len);
	}
	if (!dx.name_len || dx.flags > 1 || parts.value_len > NAME_XATTR_VALUE_MAX ||
	    len != sizeof(dx) + dx.name_len + (dx.flags ? 0 : (size_t)parts.value_len))
		return name_drop(run, key, "", 0, "malformed");
	if (!check_xattr_name_ok(name, dx.name_len))
		return name_drop(run, key, name, dx.name_len, "it is no name of an attribute");
	if (!strncmp(name, "system.", slu_min((size_t)dx.name_len, strlen("system."))) &&
	    !dx.flags &&
	    (parts.value_len % 8 != 4 ||
	     slu_get_le32(value + sizeof(dx) + dx.name_len) != NAME_ACL_VERSION))
		return name_drop(run, key, name, dx.name_len, "it is no ACL");
	if (dx.flags && name_find_parts(run, parts.part_id))
		return name_drop(run, key, name, dx.name_len, "its value is another one's");
	if (!name_keep_key(run, key, name, dx.name_len))
		return false;
	if (run->pass == 2 && name_is_bad(run, key))
		return false;
	if (dx.flags)
		g_array_append_val(run->current.parts, parts);
	run->current.entry.nxattr++;
	return true;
}

bool repair_keep_part(struct repair_run *run, const struct slu_key *key, const uint8_t *value,
		      size_t len)
{
	struct repair_parts *p = name_find_parts(run, key->off >> 8);

	if (!p || (key->off & 0xff) != p->next || p->seen != p->next * SLU_VALUE_MAX || !len ||
	    len > p->value_len - p->seen) {
		if (run->pass == 1)
			repair_did(run,
				   "inode %" PRIu64
				   ": a part of a value is dropped, it belongs to no attribute",
				   key->ino);
		return false;
	}
	p->next++;
	p->seen += (uint32_t)len;
	return true;
}

void repair_parts_end(struct repair_run *run)
{
	struct repair_current *cur = &run->current;

	for (guint i = 0; i < cur->parts->len; i++) {
		struct repair_parts *p = &g_array_index(cur->parts, struct repair_parts, i);

		if (p->seen == p->value_len)
			continue;
		repair_did(run,
			   "inode %" PRIu64 ": an attribute is dropped, part of its value is lost",
			   cur->ino);
		g_hash_table_add(run->bad_xattrs, name_key_bytes(cur->ino, p->off));
		cur->entry.nxattr--;
	}
}
