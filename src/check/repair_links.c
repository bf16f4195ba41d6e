/* SPDX-License-Identifier: MIT */
/*
 * Between the passes: names against inodes. Every name that is kept leads to an inode, every
 * directory has one name and hangs on the root, and every inode without a name goes to lost+found,
 * unless its record says that its last name was taken away.
 *
 * What has to come into being (new inode records, names in lost+found) is put into run->additions.
 */
#include "repair_private.h"
#include <sys/stat.h>

#define LINKS_DIR (S_IFDIR >> 12)
#define LINKS_REG (S_IFREG >> 12)

/* ------------------------------------------------------------------ finding */

static guint links_inode_index(const struct repair_run *run, uint64_t ino)
{
	guint lo = 0, hi = run->inodes->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;

		if (g_array_index(run->inodes, struct repair_inode, mid).ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct repair_inode *repair_find_inode(const struct repair_run *run, uint64_t ino)
{
	guint at = links_inode_index(run, ino);
	struct repair_inode *i =
		at < run->inodes->len ? &g_array_index(run->inodes, struct repair_inode, at) : NULL;

	return i && i->ino == ino ? i : NULL;
}

static struct repair_inode *links_find(const struct repair_run *run, uint64_t ino)
{
	struct repair_inode *i = repair_find_inode(run, ino);

	return i && !i->drop ? i : NULL;
}

struct repair_orphan *repair_find_orphan(const struct repair_run *run, uint64_t ino)
{
	guint lo = 0, hi = run->orphans->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;
		struct repair_orphan *o = &g_array_index(run->orphans, struct repair_orphan, mid);

		if (o->ino == ino)
			return o;
		if (o->ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static struct repair_link *links_at(const struct repair_run *run, guint64 i)
{
	return &g_array_index(run->links, struct repair_link, i);
}

/* Whether a directory has a name of this hash. */
static bool links_has_hash(const struct repair_run *run, uint64_t dir, uint64_t hash)
{
	guint lo = 0, hi = run->links->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;
		struct repair_link *l = links_at(run, mid);

		if (l->dir < dir || (l->dir == dir && l->off >> 16 < hash))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < run->links->len && links_at(run, lo)->dir == dir &&
	       links_at(run, lo)->off >> 16 == hash;
}

/* ------------------------------------------------------------------ names → inodes */

static void links_drop(struct repair_run *run, struct repair_link *l, enum repair_link_fate fate)
{
	l->fate = (uint8_t)fate;
	run->change = true;
}

static void links_uncount(struct repair_run *run, struct repair_link *l)
{
	struct repair_inode *dir = links_find(run, l->dir), *target = links_find(run, l->target);

	dir->size--;
	dir->subdirs -= target->type == LINKS_DIR;
	target->links--;
	if (target->type == LINKS_DIR)
		target->from = 0;
}

static bool links_unlinked(const struct repair_run *run, const struct repair_inode *i)
{
	const struct repair_orphan *o = repair_find_orphan(run, i->ino);

	return o && o->what == SLU_ORPHAN_UNLINKED && !i->nlink;
}

static void links_follow(struct repair_run *run, guint64 index)
{
	struct repair_link *l = links_at(run, index);
	struct repair_inode *dir = links_find(run, l->dir), *target = links_find(run, l->target);

	if (!dir || dir->type != LINKS_DIR) {
		links_drop(run, l, REPAIR_LINK_NO_DIR);
		return;
	}
	if (!target) {
		links_drop(run, l, REPAIR_LINK_DANGLING);
		return;
	}
	if (links_unlinked(run, target)) {
		links_drop(run, l, REPAIR_LINK_UNLINKED);
		return;
	}
	if (target->type == LINKS_DIR && target->from && target->from != target->parent &&
	    target->parent == l->dir && target->ino != SLU_INO_ROOT) {
		/* The other name is not where the directory says that it is. */
		struct repair_link *other = links_at(run, target->from_link);

		links_uncount(run, other);
		links_drop(run, other, REPAIR_LINK_SECOND);
	} else if (target->type == LINKS_DIR && (target->from || target->ino == SLU_INO_ROOT)) {
		links_drop(run, l, REPAIR_LINK_SECOND);
		return;
	}
	if (l->type != target->type)
		run->change = true;
	if (target->links < UINT32_MAX)
		target->links++;
	dir->size++;
	if (target->type == LINKS_DIR) {
		dir->subdirs++;
		target->from = l->dir;
		target->from_link = index;
	}
}

/* ------------------------------------------------------------------ directories → root */

/* Up from a directory until something is known; where it comes back to itself it is cut off. */
static void links_climb(struct repair_run *run, struct repair_inode *start)
{
	struct repair_inode *i = start, *loop = NULL;

	while (i && i->ino != SLU_INO_ROOT && i->reach != CHECK_REACHED) {
		if (i->reach == CHECK_ON_THE_WAY) {
			loop = i;
			break;
		}
		i->reach = CHECK_ON_THE_WAY;
		i = i->from ? links_find(run, i->from) : NULL;
	}
	/* Those at the top without a name come to lost+found: all are going to be reached. */
	for (i = start; i && i->reach == CHECK_ON_THE_WAY;) {
		i->reach = CHECK_REACHED;
		i = i->from ? links_find(run, i->from) : NULL;
	}
	if (loop) {
		struct repair_link *l = links_at(run, loop->from_link);

		links_uncount(run, l);
		links_drop(run, l, REPAIR_LINK_LOOP);
	}
}

bool repair_emit_dirent(struct repair_run *run, const struct slu_key *key, uint8_t *value,
			size_t len)
{
	static const char *const why[] = {
		[REPAIR_LINK_DANGLING] = "what it leads to is lost",
		[REPAIR_LINK_NO_DIR] = "it is in no directory",
		[REPAIR_LINK_SECOND] = "a directory has one name",
		[REPAIR_LINK_LOOP] = "the directory would contain itself",
		[REPAIR_LINK_UNLINKED] = "it was taken away",
	};
	struct repair_link *l = links_at(run, run->next_link++);
	const struct repair_inode *target = links_find(run, l->target);
	g_autofree char *name = NULL;

	slu_assert(l->dir == key->ino && l->off == key->off);
	if (l->fate == REPAIR_LINK_KEEP && value[8] == target->type)
		return true;
	name = check_quote(value + sizeof(struct slu_disk_dirent),
			   len - sizeof(struct slu_disk_dirent));
	if (l->fate == REPAIR_LINK_KEEP) {
		repair_did(run, "directory %" PRIu64 ": %s is of the type of inode %" PRIu64 ", %u",
			   l->dir, name, l->target, target->type);
		value[8] = target->type;
		return true;
	}
	repair_did(run, "directory %" PRIu64 ": %s (inode %" PRIu64 ") is dropped: %s", l->dir,
		   name, l->target, why[l->fate]);
	return false;
}

/* ------------------------------------------------------------------ additions */

static void links_add(struct repair_run *run, struct slu_key key, const void *value, size_t len)
{
	struct repair_addition a = {.key = key, .len = (uint16_t)len};

	slu_assert(len <= sizeof(a.value));
	memcpy(a.value, value, len);
	g_array_append_val(run->additions, a);
	run->change = true;
}

/* name, or name.1, name.2 …: the first whose hash the directory does not have; used: new ones. */
static void links_add_name(struct repair_run *run, struct repair_inode *dir, const char *name,
			   struct repair_inode *target, GHashTable *used)
{
	uint8_t value[sizeof(struct slu_disk_inode)];
	struct slu_disk_dirent de = {.type = target->type};
	g_autofree char *unique = g_strdup(name);
	gint64 hash = (gint64)repair_hash(run, name, strlen(name));

	for (unsigned int i = 1;
	     links_has_hash(run, dir->ino, (uint64_t)hash) || g_hash_table_contains(used, &hash);
	     i++) {
		g_free(unique);
		unique = g_strdup_printf("%s.%u", name, i);
		hash = (gint64)repair_hash(run, unique, strlen(unique));
	}
	g_hash_table_add(used, g_memdup2(&hash, sizeof(hash)));
	slu_put_le64(&de.ino, target->ino);
	memcpy(value, &de, sizeof(de));
	memcpy(value + sizeof(de), unique, strlen(unique));
	links_add(run, SLU_KEY(dir->ino, SLU_REC_DIRENT, (uint64_t)hash << 16), value,
		  sizeof(de) + strlen(unique));
	dir->size++;
	target->links = 1;
	if (target->type == LINKS_DIR) {
		dir->subdirs++;
		target->from = dir->ino;
	}
}

static uint64_t links_make_inode(struct repair_run *run, uint64_t ino)
{
	struct repair_inode i = {.ino = ino, .type = LINKS_DIR, .made = true, .nlink = 1};

	g_array_insert_val(run->inodes, links_inode_index(run, ino), i);
	run->change = true;
	return ino;
}

/* ------------------------------------------------------------------ lost+found */

static bool links_is_lost(const struct repair_inode *i)
{
	bool named = i->type == LINKS_DIR ? i->from || i->ino == SLU_INO_ROOT : i->links;

	return !i->drop && !named;
}

/* Its number. A new one gets the next number, so it is the last of the inodes. */
static uint64_t links_lost_found(struct repair_run *run, bool *ret_new)
{
	*ret_new = false;
	for (guint i = 0; i < run->links->len; i++) {
		struct repair_link *l = links_at(run, i);

		if (l->dir > SLU_INO_ROOT)
			break;
		if (l->lost_found && l->fate == REPAIR_LINK_KEEP &&
		    links_find(run, l->target)->type == LINKS_DIR)
			return l->target;
	}
	*ret_new = true;
	return links_make_inode(run, run->next_ino++);
}

/* Inodes without a name: those that are to be freed stay or go, the others are put aside. */
static bool links_sort_out(struct repair_run *run)
{
	bool any = false;

	for (guint n = 0; n < run->inodes->len; n++) {
		struct repair_inode *i = &g_array_index(run->inodes, struct repair_inode, n);

		if (!links_is_lost(i) || links_unlinked(run, i))
			continue;
		if (i->nlink || (i->type == LINKS_DIR && i->size)) {
			any = true;
			continue;
		}
		i->drop = true;
		repair_did(run, "inode %" PRIu64 ": is freed, its last name had been taken away",
			   i->ino);
	}
	return any;
}

static void links_reconnect(struct repair_run *run)
{
	GHashTable *used = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	GHashTable *used_root = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	bool new;
	uint64_t ino = links_lost_found(run, &new);
	struct repair_inode *dir = repair_find_inode(run, ino);

	if (new) {
		links_add_name(run, repair_find_inode(run, SLU_INO_ROOT), "lost+found", dir,
			       used_root);
		repair_did(run, "lost+found is made, inode %" PRIu64, ino);
	}
	for (guint n = 0; n < run->inodes->len; n++) {
		struct repair_inode *i = &g_array_index(run->inodes, struct repair_inode, n);
		char name[32];

		if (!links_is_lost(i) || links_unlinked(run, i))
			continue;
		snprintf(name, sizeof(name), "#%" PRIu64, i->ino);
		links_add_name(run, dir, name, i, used);
		run->result->reconnected++;
		repair_did(run, "inode %" PRIu64 ": has no name and is put into lost+found",
			   i->ino);
	}
	g_hash_table_unref(used);
	g_hash_table_unref(used_root);
}

/* ------------------------------------------------------------------ orphans and counts */

static void links_orphans(struct repair_run *run)
{
	for (guint n = 0; n < run->orphans->len; n++) {
		struct repair_orphan *o = &g_array_index(run->orphans, struct repair_orphan, n);
		const struct repair_inode *i = links_find(run, o->ino);

		if (o->what == SLU_ORPHAN_UNLINKED)
			o->keep = i && links_unlinked(run, i) && links_is_lost(i);
		else
			o->keep = i && i->type == LINKS_REG;
		if (!o->keep)
			repair_did(run,
				   "inode %" PRIu64
				   ": the record that it is to be freed is dropped",
				   o->ino);
	}
}

static void links_count(struct repair_run *run, const struct repair_inode *i)
{
	uint32_t nlink = i->links;

	if (i->type == LINKS_DIR) {
		uint64_t parent = i->ino == SLU_INO_ROOT ? SLU_INO_ROOT : i->from;

		if (i->from || i->ino == SLU_INO_ROOT)
			nlink = 2 + i->subdirs;
		if (i->size != i->said_size && !i->made)
			repair_did(run,
				   "directory %" PRIu64 ": has %" PRIu64 " entries, not %" PRIu64,
				   i->ino, i->size, i->said_size);
		if (parent && parent != i->parent && !i->made)
			repair_did(run,
				   "directory %" PRIu64 ": lies in %" PRIu64 ", not in %" PRIu64,
				   i->ino, parent, i->parent);
	}
	if (nlink != i->nlink && !i->made)
		repair_did(run, "inode %" PRIu64 ": has %u links, not %u", i->ino, nlink, i->nlink);
}

static gint links_by_key(gconstpointer a, gconstpointer b)
{
	const struct repair_addition *x = a, *y = b;

	return slu_key_cmp(&x->key, &y->key);
}

void repair_links(struct repair_run *run)
{
	if (!repair_find_inode(run, SLU_INO_ROOT)) {
		links_make_inode(run, SLU_INO_ROOT);
		repair_did(run, "the root directory is made anew");
	}
	for (guint i = 0; i < run->inodes->len; i++)
		run->next_ino = slu_max(run->next_ino,
					g_array_index(run->inodes, struct repair_inode, i).ino + 1);
	for (guint64 i = 0; i < run->links->len; i++)
		links_follow(run, i);
	for (guint i = 0; i < run->inodes->len; i++) {
		struct repair_inode *inode = &g_array_index(run->inodes, struct repair_inode, i);

		if (inode->type == LINKS_DIR && !inode->drop)
			links_climb(run, inode);
	}
	if (links_sort_out(run))
		links_reconnect(run);
	links_orphans(run);
	for (guint n = 0; n < run->inodes->len; n++) {
		struct repair_inode *i = &g_array_index(run->inodes, struct repair_inode, n);
		struct slu_disk_inode di;

		if (i->drop)
			continue;
		links_count(run, i);
		if (!i->made)
			continue;
		repair_fill_inode(run, i, &di);
		links_add(run, SLU_KEY(i->ino, SLU_REC_INODE, 0), &di, sizeof(di));
	}
	g_array_sort(run->additions, links_by_key);
}
