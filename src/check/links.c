/* SPDX-License-Identifier: MIT */
/*
 * After the walk: every name leads to an inode, every inode has as many names as it says, every
 * directory has one and hangs, over its parents, on the root. Orphans are the one exception: inodes
 * without a name that a record promises to free.
 */
#include "check_private.h"
#include <sys/stat.h>

#define LINKS_DIR (S_IFDIR >> 12)

/* ------------------------------------------------------------------ finding */

struct check_inode *check_find_inode(struct check_run *run, uint64_t ino)
{
	guint lo = 0, hi = run->inodes->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;
		struct check_inode *i = &g_array_index(run->inodes, struct check_inode, mid);

		if (i->ino == ino)
			return i;
		if (i->ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

struct check_orphan *check_find_orphan(struct check_run *run, uint64_t ino)
{
	guint lo = 0, hi = run->orphans->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;
		struct check_orphan *o = &g_array_index(run->orphans, struct check_orphan, mid);

		if (o->ino == ino)
			return o;
		if (o->ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* The entry's name in quotes, from its record; the caller frees it. */
static char *links_name(struct check_run *run, const struct check_link *l)
{
	struct slu_key key = SLU_KEY(l->dir, SLU_REC_DIRENT, l->off);
	uint8_t value[SLU_VALUE_MAX];
	int len = slu_store_get(run->store, &key, value, sizeof(value), NULL);

	if (len <= (int)sizeof(struct slu_disk_dirent))
		return g_strdup_printf("at %" PRIu64, l->off);
	return check_quote(value + sizeof(struct slu_disk_dirent),
			   (size_t)len - sizeof(struct slu_disk_dirent));
}

/* ------------------------------------------------------------------ orphans */

void check_orphan_record(struct check_run *run, const struct slu_key *key, const uint8_t *value,
			 size_t len)
{
	struct slu_disk_orphan disk;
	struct check_orphan orphan = {.ino = key->off};

	if (len != sizeof(disk)) {
		check_report(run, SLU_PROBLEM_ORPHAN, key->off, 0,
			     "orphan record of inode %" PRIu64 " has %zu bytes (expected %zu)",
			     key->off, len, sizeof(disk));
		return;
	}
	memcpy(&disk, value, sizeof(disk));
	orphan.what = disk.what;
	orphan.size = slu_get_le64(&disk.size);
	if (orphan.what != SLU_ORPHAN_UNLINKED && orphan.what != SLU_ORPHAN_TRUNCATE)
		check_report(run, SLU_PROBLEM_ORPHAN, key->off, 0,
			     "orphan record of inode %" PRIu64 " is of unknown kind %u", key->off,
			     orphan.what);
	run->result->orphans++;
	g_array_append_val(run->orphans, orphan);
}

static void links_check_orphans(struct check_run *run)
{
	for (guint i = 0; i < run->orphans->len; i++) {
		struct check_orphan *o = &g_array_index(run->orphans, struct check_orphan, i);
		struct check_inode *inode = check_find_inode(run, o->ino);

		if (!inode) {
			if (!run->result->incomplete)
				check_report(run, SLU_PROBLEM_ORPHAN, o->ino, 0,
					     "orphan record of inode %" PRIu64
					     ", which does not exist",
					     o->ino);
			continue;
		}
		o->found = true;
		if (o->what == SLU_ORPHAN_UNLINKED && inode->nlink)
			check_report(run, SLU_PROBLEM_ORPHAN, o->ino, 0,
				     "inode %" PRIu64 ": is to be freed, but has %u links", o->ino,
				     inode->nlink);
		if (o->what == SLU_ORPHAN_TRUNCATE && inode->type != S_IFREG >> 12)
			check_report(run, SLU_PROBLEM_ORPHAN, o->ino, 0,
				     "inode %" PRIu64
				     ": is to be truncated, but is no regular file",
				     o->ino);
	}
}

/* ------------------------------------------------------------------ names → inodes */

static void links_follow(struct check_run *run, const struct check_link *l)
{
	struct check_inode *target = check_find_inode(run, l->target);
	g_autofree char *name = NULL;

	if (!target) {
		if (run->result->incomplete)
			return;
		name = links_name(run, l);
		check_report(run, SLU_PROBLEM_DIRENT_DANGLING, l->dir, 0,
			     "directory %" PRIu64 ": %s leads to inode %" PRIu64
			     ", which does not exist",
			     l->dir, name, l->target);
		return;
	}
	if (target->links < UINT32_MAX)
		target->links++;
	if (target->type != l->type) {
		name = links_name(run, l);
		check_report(run, SLU_PROBLEM_DIRENT_TYPE, l->dir, 0,
			     "directory %" PRIu64 ": %s says type %u, inode %" PRIu64
			     " is of type %u",
			     l->dir, name, l->type, l->target, target->type);
	}
	if (target->type != LINKS_DIR)
		return;
	if (target->from || target->ino == SLU_INO_ROOT) {
		if (!name)
			name = links_name(run, l);
		check_report(run, SLU_PROBLEM_DIR_LINKS, l->target, 0,
			     "directory %" PRIu64
			     ": has one name too many: %s in directory %" PRIu64,
			     l->target, name, l->dir);
		return;
	}
	target->from = l->dir;
	if (target->parent != l->dir)
		check_report(run, SLU_PROBLEM_DIR_PARENT, l->target, 0,
			     "directory %" PRIu64 ": lies in directory %" PRIu64
			     ", its record says %" PRIu64,
			     l->target, l->dir, target->parent);
}

/* ------------------------------------------------------------------ inodes → root */

static void links_check_inode(struct check_run *run, const struct check_inode *i)
{
	const struct check_orphan *orphan = check_find_orphan(run, i->ino);
	bool unlinked = orphan && orphan->what == SLU_ORPHAN_UNLINKED;

	if (run->result->incomplete)
		return;
	if (i->ino == SLU_INO_ROOT) {
		if (i->parent != SLU_INO_ROOT)
			check_report(run, SLU_PROBLEM_DIR_PARENT, i->ino, 0,
				     "the root directory: its record says that it lies in %" PRIu64,
				     i->parent);
		return;
	}
	if (unlinked && i->links)
		check_report(run, SLU_PROBLEM_ORPHAN, i->ino, 0,
			     "inode %" PRIu64 ": is to be freed, but %u names lead to it", i->ino,
			     i->links);
	if (!i->links && !unlinked)
		check_report(run, SLU_PROBLEM_UNREACHABLE, i->ino, 0,
			     "inode %" PRIu64 ": cannot be reached, it has no name", i->ino);
	/* Of a directory with a name the rest of the count has been compared with what it contains. */
	if (i->links && (i->type == LINKS_DIR ? !i->nlink : i->links != i->nlink))
		check_report(run, SLU_PROBLEM_NLINK, i->ino, 0,
			     "inode %" PRIu64 ": has %u names, its record says %u", i->ino,
			     i->links, i->nlink);
}

/* Up from a directory until something is known; then the whole way shares the answer. */
static void links_climb(struct check_run *run, struct check_inode *start)
{
	struct check_inode *i = start;
	enum check_reach answer = CHECK_UNKNOWN;

	while (answer == CHECK_UNKNOWN) {
		if (i->ino == SLU_INO_ROOT || i->reach == CHECK_REACHED) {
			answer = CHECK_REACHED;
		} else if (i->reach == CHECK_LOST) {
			answer = CHECK_LOST;
		} else if (i->reach == CHECK_ON_THE_WAY) {
			check_report(run, SLU_PROBLEM_DIR_LOOP, i->ino, 0,
				     "directory %" PRIu64
				     ": contains itself and cannot be reached from the root",
				     i->ino);
			answer = CHECK_LOST;
		} else {
			struct check_inode *up = i->from ? check_find_inode(run, i->from) : NULL;

			i->reach = CHECK_ON_THE_WAY;
			if (!up)
				answer = CHECK_LOST; /* the top one has been reported as nameless */
			else
				i = up;
		}
	}
	for (i = start; i && i->reach == CHECK_ON_THE_WAY;) {
		i->reach = (uint8_t)answer;
		i = i->from ? check_find_inode(run, i->from) : NULL;
	}
}

void check_links(struct check_run *run)
{
	struct check_inode *root = check_find_inode(run, SLU_INO_ROOT);

	if (!root && !run->result->incomplete)
		check_report(run, SLU_PROBLEM_ROOT, SLU_INO_ROOT, 0, "there is no root directory");
	if (root && root->type != LINKS_DIR)
		check_report(run, SLU_PROBLEM_ROOT, SLU_INO_ROOT, 0, "the root is not a directory");
	for (guint i = 0; i < run->links->len; i++)
		links_follow(run, &g_array_index(run->links, struct check_link, i));
	links_check_orphans(run);
	for (guint i = 0; i < run->inodes->len; i++) {
		struct check_inode *inode = &g_array_index(run->inodes, struct check_inode, i);

		links_check_inode(run, inode);
		if (inode->type == LINKS_DIR)
			links_climb(run, inode);
	}
}
