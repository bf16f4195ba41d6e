/* SPDX-License-Identifier: MIT */
/*
 * How often the kernel has been told of an inode, and where: a count and a directory per inode
 * number, and nothing else, so that a kernel that remembers millions of inodes costs 32 to 96 bytes
 * for each and not an inode object.
 *
 * Open addressing with linear probing, in shards with a leaf lock each. Removal shifts what follows
 * back, so there are no tombstones. Called by every operation that answers the kernel with an
 * inode, and by forget. Never calls anything outside base.
 */
#include "namespace_private.h"

#define LOOKUPS_MIN 64u /* entries of a shard that has any */

static uint64_t mix(uint64_t ino)
{
	return ino * 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio; the high bits are good */
}

static struct ns_shard *shard_of(struct ns_lookups *l, uint64_t ino)
{
	return &l->shards[mix(ino) >> 60];
}

static size_t home(const struct ns_shard *s, uint64_t ino)
{
	return (size_t)(mix(ino) >> 20) & (s->cap - 1);
}

void lookups_init(struct ns_lookups *l)
{
	for (size_t i = 0; i < NS_SHARDS; i++) {
		l->shards[i] = (struct ns_shard){0};
		slu_mutex_init(&l->shards[i].lock, SLU_RANK_LEAF, NS_LEAF_LOOKUP, "lookup counts");
	}
	atomic_init(&l->lost, false);
}

void lookups_fini(struct ns_lookups *l)
{
	for (size_t i = 0; i < NS_SHARDS; i++) {
		slu_free(l->shards[i].entries);
		slu_mutex_fini(&l->shards[i].lock);
	}
}

/* The entry of ino, or the free one where it would go. There is always a free one. */
static struct ns_lookup *find(const struct ns_shard *s, uint64_t ino)
{
	size_t i = home(s, ino);

	while (s->entries[i].ino != 0 && s->entries[i].ino != ino)
		i = (i + 1) & (s->cap - 1);
	return &s->entries[i];
}

static int resize(struct ns_shard *s, size_t cap)
{
	struct ns_shard grown = {.cap = cap, .used = s->used};

	grown.entries = slu_calloc(cap, sizeof(*grown.entries));
	if (!grown.entries)
		return -ENOMEM;
	for (size_t i = 0; i < s->cap; i++)
		if (s->entries[i].ino)
			*find(&grown, s->entries[i].ino) = s->entries[i];
	slu_free(s->entries);
	s->entries = grown.entries;
	s->cap = cap;
	return 0;
}

/* Grows at three quarters full; goes on beyond that without memory while one entry stays free. */
static int make_room(struct ns_shard *s)
{
	if (s->used + 1 <= s->cap / 4 * 3)
		return 0;
	if (resize(s, s->cap ? s->cap * 2 : LOOKUPS_MIN) == 0 || s->used + 1 < s->cap)
		return 0;
	return -ENOMEM;
}

int lookups_add(struct ns_lookups *l, uint64_t ino, uint64_t parent, uint64_t n)
{
	struct ns_shard *s = shard_of(l, ino);
	struct ns_lookup *e;
	int err;

	slu_mutex_lock(&s->lock);
	e = s->cap ? find(s, ino) : NULL;
	if (!e || !e->ino) {
		err = make_room(s);
		if (err)
			goto unlock;
		e = find(s, ino);
		*e = (struct ns_lookup){.ino = ino};
		s->used++;
	}
	if (parent)
		e->parent = parent;
	e->count = e->count > UINT64_MAX - n ? UINT64_MAX : e->count + n;
	err = 0;
unlock:
	slu_mutex_unlock(&s->lock);
	return err;
}

/* Takes entry i out and moves those after it that probing would no longer find. */
static void take_out(struct ns_shard *s, size_t i)
{
	size_t mask = s->cap - 1, j = i;

	for (;;) {
		j = (j + 1) & mask;
		if (!s->entries[j].ino)
			break;
		size_t want = home(s, s->entries[j].ino);
		/* j may fill the gap unless its home lies in (i, j], cyclically */
		if (((j - want) & mask) >= ((j - i) & mask)) {
			s->entries[i] = s->entries[j];
			i = j;
		}
	}
	s->entries[i] = (struct ns_lookup){0};
	s->used--;
	if (s->cap > LOOKUPS_MIN && s->used < s->cap / 8)
		resize(s, s->cap / 2); /* without memory it stays as it is */
}

uint64_t lookups_sub(struct ns_lookups *l, uint64_t ino, uint64_t n)
{
	struct ns_shard *s = shard_of(l, ino);
	uint64_t left = 0;

	slu_mutex_lock(&s->lock);
	if (s->cap) {
		struct ns_lookup *e = find(s, ino);
		if (e->ino && e->count > n)
			left = e->count -= n;
		else if (e->ino)
			take_out(s, (size_t)(e - s->entries));
	}
	slu_mutex_unlock(&s->lock);
	return left;
}

/* A copy; all zero if it is not known. */
static struct ns_lookup known(struct ns_lookups *l, uint64_t ino)
{
	struct ns_shard *s = shard_of(l, ino);
	struct ns_lookup found = {0};

	slu_mutex_lock(&s->lock);
	if (s->cap)
		found = *find(s, ino);
	slu_mutex_unlock(&s->lock);
	return found;
}

uint64_t lookups_get(struct ns_lookups *l, uint64_t ino)
{
	return known(l, ino).count;
}

uint64_t lookups_parent(struct ns_lookups *l, uint64_t ino)
{
	return known(l, ino).parent;
}

void lookups_found(struct ns_lookups *l, uint64_t ino, uint64_t parent)
{
	struct ns_shard *s = shard_of(l, ino);

	slu_mutex_lock(&s->lock);
	if (s->cap) {
		struct ns_lookup *e = find(s, ino);
		if (e->ino)
			e->parent = parent;
	}
	slu_mutex_unlock(&s->lock);
}

void lookups_clear(struct ns_lookups *l)
{
	for (size_t i = 0; i < NS_SHARDS; i++) {
		struct ns_shard *s = &l->shards[i];

		slu_mutex_lock(&s->lock);
		slu_free(s->entries);
		s->entries = NULL;
		s->cap = s->used = 0;
		slu_mutex_unlock(&s->lock);
	}
	atomic_store(&l->lost, false);
}
