/* SPDX-License-Identifier: MIT */
/*
 * Directory entries: finding a name, adding one, listing them.
 *
 * An entry is one record, keyed by the hash of the name and a collision number. The key is the
 * directory cookie too, and an entry keeps its key as long as it lives (rename over it replaces the
 * inode number in place), so a listing that goes by keys never shows an entry twice nor skips one
 * because others come and go.
 *
 * Called with no lock (need NULL: it waits for nodes) or under the inodes' locks (with need). Takes
 * none. Entries on disk that cannot be right are reported and passed over: the others stay within
 * reach.
 */
#include "namespace_private.h"
#include <xxhash.h>

#define DIRENT_HEAD ((size_t)sizeof(struct slu_disk_dirent))
_Static_assert(sizeof(struct slu_disk_dirent) == 9, "dirent size");

#define DIR_MAX_COLLISIONS 65536u

uint64_t ns_hash(const struct slu_ns *ns, const char *s, size_t len)
{
	uint64_t hash = XXH3_64bits_withSeed(s, len, ns->hash_seed) >> 17;

	hash &= ns->hash_mask;
	return hash ? hash : 1;
}

bool ns_name_is_dots(const char *s)
{
	return s[0] == '.' && (s[1] == '\0' || (s[1] == '.' && s[2] == '\0'));
}

int ns_name_init(const struct slu_ns *ns, struct ns_name *name, const char *s)
{
	size_t len = strnlen(s, NS_NAME_MAX + 1);

	if (len > NS_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || memchr(s, '/', len))
		return -EINVAL;
	*name = (struct ns_name){.s = s, .len = len, .hash = ns_hash(ns, s, len)};
	return 0;
}

static bool type_known(uint8_t type)
{
	switch ((mode_t)type << 12) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return true;
	}
	return false;
}

/* The entry in a record, its name pointing into value; false if it cannot be one. */
static bool parse_entry(const struct slu_key *key, const void *value, size_t len,
			struct ns_dirent *ret, struct ns_name *name)
{
	const struct slu_disk_dirent *d = value;

	if (len <= DIRENT_HEAD || len > DIRENT_HEAD + NS_NAME_MAX)
		return false;
	if (key->off <= UINT16_MAX || key->off > INT64_MAX)
		return false;
	*ret = (struct ns_dirent){.ino = slu_get_le64(&d->ino), .off = key->off, .type = d->type};
	name->s = (const char *)value + DIRENT_HEAD;
	name->len = len - DIRENT_HEAD;
	if (ret->ino == SLU_INO_VOLUME || ret->ino > INT64_MAX || !type_known(ret->type))
		return false;
	if (memchr(name->s, '/', name->len) || memchr(name->s, '\0', name->len))
		return false;
	return !(name->s[0] == '.' && (name->len == 1 || (name->len == 2 && name->s[1] == '.')));
}

/* ------------------------------------------------------------------ one name */

struct find {
	const struct ns_name *name;
	struct ns_dirent *ret;
	uint32_t next; /* collision numbers below are taken */
};

static int find_entry(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct find *f = ctx;
	struct ns_dirent entry;
	struct ns_name name;

	if ((key->off & 0xffff) == f->next)
		f->next++;
	if (!parse_entry(key, value, len, &entry, &name))
		return 0;
	if (name.len != f->name->len || memcmp(name.s, f->name->s, name.len) != 0)
		return 0;
	*f->ret = entry;
	return 1;
}

int dir_find(struct slu_ns *ns, uint64_t dir, const struct ns_name *name, struct ns_dirent *ret,
	     struct slu_need *need)
{
	uint64_t first = name->hash << 16;
	struct slu_key from = SLU_KEY(dir, SLU_REC_DIRENT, first);
	struct slu_key end = SLU_KEY(dir, SLU_REC_DIRENT, first + DIR_MAX_COLLISIONS);
	struct ns_dirent entry = {0};
	struct find f = {.name = name, .ret = &entry};
	int err = slu_store_scan(ns->store, &from, &end, find_entry, &f, need);

	if (err < 0)
		return err;
	if (err == 0)
		entry.off = f.next < DIR_MAX_COLLISIONS ? first | f.next : 0;
	*ret = entry;
	return 0;
}

int dir_empty(struct slu_ns *ns, uint64_t dir, bool *ret, struct slu_need *need)
{
	struct slu_key key = SLU_KEY(dir, SLU_REC_DIRENT, 0);
	struct slu_key end = SLU_KEY(dir, SLU_REC_DIRENT, UINT64_MAX);
	uint8_t value[SLU_VALUE_MAX];
	int len = slu_store_seek_ge(ns->store, &key, &end, value, sizeof(value), need);

	if (len < 0 && len != -ENOENT)
		return len;
	*ret = len == -ENOENT;
	return 0;
}

void dir_put_entry(struct slu_batch *b, uint64_t dir, const struct ns_name *name, uint64_t off,
		   uint64_t ino, mode_t mode)
{
	struct slu_key key = SLU_KEY(dir, SLU_REC_DIRENT, off);
	uint8_t value[sizeof(struct slu_disk_dirent) + NS_NAME_MAX];
	struct slu_disk_dirent *d = (struct slu_disk_dirent *)value;

	slu_put_le64(&d->ino, ino);
	d->type = (uint8_t)((mode & S_IFMT) >> 12);
	memcpy(value + DIRENT_HEAD, name->s, name->len);
	slu_batch_put(b, &key, value, DIRENT_HEAD + name->len);
}

/* ------------------------------------------------------------------ a name by its inode */

#define SEARCH_AT_ONCE 1024u /* entries, under the store's lock */

struct search {
	uint64_t ino;
	char *name;
	size_t len; /* 0: not found yet */
	uint64_t left;
};

static int search_entry(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct search *s = ctx;
	struct ns_dirent entry;
	struct ns_name name;

	if (s->left == 0)
		return 1;
	s->left--;
	if (!parse_entry(key, value, len, &entry, &name) || entry.ino != s->ino)
		return 0;
	memcpy(s->name, name.s, name.len);
	s->len = name.len;
	return 1;
}

int dir_name_of(struct slu_ns *ns, uint64_t dir, uint64_t ino, char name[NS_NAME_MAX],
		size_t *ret_len, uint64_t *looks, struct slu_need *need)
{
	struct slu_key from = SLU_KEY(dir, SLU_REC_DIRENT, 0);
	struct slu_key end = SLU_KEY(dir, SLU_REC_DIRENT, UINT64_MAX);
	struct search s = {.ino = ino, .name = name};
	uint64_t some;
	int more;

	do {
		some = slu_min(*looks, (uint64_t)SEARCH_AT_ONCE);
		s.left = some;
		more = slu_store_scan(ns->store, &from, &end, search_entry, &s, need);
		*looks -= some - s.left;
	} while (more == 1 && !s.len && *looks);
	if (more < 0)
		return more;
	*ret_len = s.len;
	return s.len ? 0 : -ENOENT;
}

/* ------------------------------------------------------------------ listing */

/*
 * Entries are copied out under the store's lock, a buffer at a time, and shown from there: the one
 * who gets them may call the store, and copies to the kernel's buffer.
 */
#define LIST_AT_ONCE 64u

struct list_entry {
	struct ns_dirent dirent;
	uint8_t len;
	char name[NS_NAME_MAX];
};

struct listing {
	struct slu_ns *ns;
	unsigned int n, nbad;
	struct list_entry entries[LIST_AT_ONCE];
};

static int list_entry(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct listing *l = ctx;
	struct list_entry *e;
	struct ns_name name;

	if (l->n == LIST_AT_ONCE)
		return 1;
	e = &l->entries[l->n];
	if (!parse_entry(key, value, len, &e->dirent, &name)) {
		l->nbad++;
		return 0;
	}
	e->len = (uint8_t)name.len;
	memcpy(e->name, name.s, name.len);
	l->n++;
	return 0;
}

/* From memory if it is there, else from its record: listing does not fill the inode table. */
static void list_attr(struct slu_ns *ns, const struct ns_dirent *entry, bool plus,
		      struct slu_attr *ret)
{
	struct slu_inode *inode;
	struct slu_attr attr;

	*ret = (struct slu_attr){.ino = entry->ino, .mode = (uint32_t)entry->type << 12};
	if (!plus)
		return;
	inode = itable_peek(ns, entry->ino);
	if (inode) {
		slu_inode_attr(inode, ret);
		slu_inode_put(inode);
		return;
	}
	if (inode_read_record(ns, entry->ino, &attr, NULL) == 0)
		*ret = attr;
}

static int list_dots(struct slu_inode *dir, uint64_t cookie, bool plus, slu_readdir_fn *fn,
		     void *fn_ctx)
{
	struct slu_attr attr, up;
	int err = 0;

	slu_inode_attr(dir, &attr);
	if (cookie < 1)
		err = fn(fn_ctx, ".", 1, 1, &attr);
	if (err || cookie >= 2)
		return err;
	struct ns_dirent parent = {.ino = attr.parent, .type = S_IFDIR >> 12};
	list_attr(dir->ns, &parent, plus, &up);
	return fn(fn_ctx, "..", 2, 2, &up);
}

static int list_entries(struct slu_inode *dir, uint64_t cookie, bool plus, slu_readdir_fn *fn,
			void *fn_ctx, struct listing *l)
{
	struct slu_ns *ns = dir->ns;
	struct slu_key from = SLU_KEY(dir->ino, SLU_REC_DIRENT, cookie);
	struct slu_key end = SLU_KEY(dir->ino, SLU_REC_DIRENT, UINT64_MAX);
	struct slu_attr attr;
	int more, err;

	do {
		l->n = 0;
		more = slu_store_scan(ns->store, &from, &end, list_entry, l, NULL);
		if (more < 0)
			return more;
		for (unsigned int i = 0; i < l->n; i++) {
			struct list_entry *e = &l->entries[i];

			list_attr(ns, &e->dirent, plus, &attr);
			/*
			 * A directory is where its parent says; two places would confuse the
			 * kernel.
			 */
			if (plus && S_ISDIR(attr.mode) && attr.parent != dir->ino)
				attr.nlink = 0;
			err = fn(fn_ctx, e->name, e->len, e->dirent.off, &attr);
			if (err)
				return err;
		}
	} while (more);
	return 0;
}

int slu_ns_readdir(struct slu_ns *ns, struct slu_ctx *ctx, uint64_t ino, uint64_t cookie, bool plus,
		   slu_readdir_fn *fn, void *fn_ctx)
{
	struct slu_inode *dir;
	struct listing *l;
	int err = slu_inode_get(ns, ino, &dir);

	if (err)
		return err;
	ns_count(ns, readdirs);
	err = -ENOTDIR;
	if (!S_ISDIR(dir->type))
		goto put;
	err = -ENOMEM;
	l = slu_alloc(sizeof(*l));
	if (!l)
		goto put;
	l->ns = ns;
	l->nbad = 0;
	err = cookie < 2 ? list_dots(dir, cookie, plus, fn, fn_ctx) : 0;
	/* Cookies are those of entries that were shown: the next one is greater. */
	if (!err && cookie < INT64_MAX)
		err = list_entries(dir, slu_max(cookie, (uint64_t)2) + 1, plus, fn, fn_ctx, l);
	if (l->nbad)
		ns_bad_record(ns, ino, "directory entries that cannot be right");
	slu_free(l);
	slu_inode_touch(dir, SLU_TOUCH_ATIME);
put:
	slu_inode_put(dir);
	return err < 0 ? err : 0;
}
