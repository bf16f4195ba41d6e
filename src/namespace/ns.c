/* SPDX-License-Identifier: MIT */
/*
 * The namespace as a whole: made at mount, taken down at unmount.
 *
 * It has no thread of its own: the fs layer calls slu_ns_reclaim and slu_ns_sync_attrs from its
 * own.
 */
#include "namespace_private.h"

#define MAX_IDLE_INODES 16384u

uint64_t ns_new_ino(struct slu_ns *ns)
{
	uint64_t ino = slu_store_new_ino(ns->store);
	uint64_t next = atomic_load(&ns->next_ino);

	while (next <= ino && !atomic_compare_exchange_weak(&ns->next_ino, &next, ino + 1))
		;
	return ino;
}

static int check_root(struct slu_ns *ns)
{
	struct slu_inode *root;
	int err = slu_inode_get(ns, SLU_INO_ROOT, &root);

	if (err)
		return err == -ENOENT || err == -ESTALE
			       ? ns_bad_record(ns, SLU_INO_ROOT, "no root directory")
			       : err;
	if (!S_ISDIR(root->type))
		err = ns_bad_record(ns, SLU_INO_ROOT, "root that is no directory");
	slu_inode_put(root);
	return err;
}

/*
 * A record of a number that has yet to be handed out would become part of somebody's new file. A
 * node that cannot be read says nothing, and is no reason to refuse the volume.
 */
static int check_next_ino(struct slu_ns *ns)
{
	struct slu_key key = SLU_KEY(UINT64_MAX, UINT8_MAX, UINT64_MAX - 1), start = SLU_KEY_MIN;
	uint8_t value[SLU_VALUE_MAX];
	int err;

	if (atomic_load(&ns->readonly))
		return 0;
	err = slu_store_seek_le(ns->store, &key, &start, value, sizeof(value), NULL);
	if (err >= 0 && key.ino >= atomic_load(&ns->next_ino))
		return ns_bad_record(ns, key.ino, "inode number that was never handed out");
	return err == -ENOMEM ? err : 0;
}

static void destroy(struct slu_ns *ns)
{
	itable_fini(ns);
	lookups_fini(&ns->lookups);
	slu_mutex_fini(&ns->scan_lock);
	slu_mutex_fini(&ns->rename);
	slu_free(ns);
}

int slu_ns_new(const struct slu_ns_opts *opts, struct slu_ns **ret)
{
	struct slu_ns *ns = slu_zalloc(sizeof(*ns));
	struct slu_store_info info;
	int err;

	if (!ns)
		return -ENOMEM;
	slu_store_info(opts->store, &info);
	ns->store = opts->store;
	ns->vol = opts->vol;
	ns->cache = opts->cache;
	ns->wb = opts->wb;
	ns->bio = opts->bio;
	ns->opts = *opts;
	ns->hash_seed = info.hash_seed;
	ns->hash_mask = UINT64_MAX;
	ns->link_max = NS_LINK_MAX;
	atomic_init(&ns->readonly, opts->readonly || info.readonly);
	atomic_init(&ns->next_ino, slu_get_le64(&slu_store_super(opts->store)->next_ino));
	err = itable_init(ns, opts->max_idle_inodes ? opts->max_idle_inodes : MAX_IDLE_INODES);
	if (err) {
		slu_free(ns);
		return err;
	}
	lookups_init(&ns->lookups);
	slu_mutex_init(&ns->rename, SLU_RANK_INODE, 0, "directory renames");
	slu_mutex_init(&ns->scan_lock, SLU_RANK_LEAF, 0, "orphan scan");
	err = check_next_ino(ns);
	if (!err)
		err = orphan_scan_start(ns);
	if (!err)
		err = check_root(ns);
	if (err) {
		destroy(ns);
		return err;
	}
	*ret = ns;
	return 0;
}

#define FREE_TRIES 8u

void slu_ns_free(struct slu_ns *ns)
{
	unsigned int failures = 0;
	int more = 1;

	/* Whoever is told of work from here on would find nothing to call any more. */
	ns->opts.reclaim_wanted = NULL;
	itable_forget_handles(ns);
	if (!ns_readonly(ns))
		slu_ns_sync_attrs(ns);
	lookups_clear(&ns->lookups);
	slu_ns_reclaim_again(ns);
	/* What cannot be freed now keeps its orphan record for the next mount. */
	while (more && failures < FREE_TRIES) {
		more = slu_ns_reclaim(ns);
		if (more >= 0)
			continue;
		failures++;
		slu_ns_reclaim_again(ns);
	}
	destroy(ns);
}

void slu_ns_set_readonly(struct slu_ns *ns, bool readonly)
{
	atomic_store(&ns->readonly, readonly);
	if (!readonly)
		slu_ns_reclaim_again(ns);
}

const struct slu_ns_stats *slu_ns_stats(const struct slu_ns *ns)
{
	return &ns->stats;
}
