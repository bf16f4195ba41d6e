/* SPDX-License-Identifier: MIT */
#include "namespace_fixture.h"

static void on_event(void *ctx, const struct slu_event *ev)
{
	struct nsfx *fx = ctx;

	atomic_fetch_add(&fx->nevents, 1);
}

static void on_reclaim_wanted(void *ctx)
{
	struct nsfx *fx = ctx;

	atomic_fetch_add(&fx->nwanted, 1);
}

static void open_bio(struct nsfx *fx)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = fx->disk, .readonly = fx->readonly};

	ok(slu_blockio_open("sim", &opts, &fx->bio));
}

static void format(struct nsfx *fx, uint64_t nblocks)
{
	struct slu_batch records;
	struct slu_format_params params = {.nblocks = nblocks,
					   .volume_id = "fedcba987654321",
					   .hash_seed = 99,
					   .records = &records,
					   .ninodes = 1};

	open_bio(fx);
	slu_batch_init(&records);
	ok(slu_ns_root_records(&records, 0, 0, 0755));
	ok(slu_store_format(fx->bio, &params));
	slu_batch_fini(&records);
	slu_blockio_close(fx->bio);
}

int nsfx_try_mount(struct nsfx *fx)
{
	struct slu_event_sink events = {.post = on_event, .ctx = fx};
	/* Commits come when a test asks for them. */
	struct slu_store_opts store_opts = {.readonly = fx->readonly,
					    .commit_interval_ns = 3600 * SLU_NS_PER_SEC,
					    .events = events};
	struct slu_cache_opts cache_opts = {.bytes = 4u << 20, .events = events};
	struct slu_writeback_opts wb_opts = {.events = events};
	int err;

	open_bio(fx);
	ok(slu_store_open(fx->bio, &store_opts, &fx->store, NULL));
	ok(slu_cache_new(&cache_opts, &fx->cache));
	ok(slu_volume_init(&fx->vol, fx->store, fx->bio, cache_opts.bytes / SLU_BLOCK_SIZE));
	fx->wb = NULL;
	if (fx->with_writeback)
		ok(slu_writeback_new(fx->cache, fx->bio, &wb_opts, &fx->wb));
	struct slu_ns_opts opts = {.store = fx->store,
				   .vol = &fx->vol,
				   .cache = fx->cache,
				   .wb = fx->wb,
				   .bio = fx->bio,
				   .readonly = fx->readonly,
				   .relatime = fx->relatime,
				   .max_idle_inodes = fx->max_idle,
				   .events = events,
				   .reclaim_wanted = on_reclaim_wanted,
				   .reclaim_ctx = fx};
	err = slu_ns_new(&opts, &fx->ns);
	if (err)
		fx->ns = NULL;
	else if (fx->hash_mask)
		fx->ns->hash_mask = fx->hash_mask;
	return err;
}

void nsfx_mount(struct nsfx *fx)
{
	ok(nsfx_try_mount(fx));
}

static void take_down(struct nsfx *fx)
{
	if (fx->wb)
		slu_writeback_free(fx->wb);
	if (fx->ns)
		slu_ns_free(fx->ns);
	slu_volume_fini(&fx->vol);
	slu_cache_free(fx->cache);
}

void nsfx_unmount(struct nsfx *fx)
{
	take_down(fx);
	slu_store_close(fx->store);
	slu_blockio_close(fx->bio);
}

void nsfx_remount(struct nsfx *fx)
{
	nsfx_unmount(fx);
	nsfx_mount(fx);
}

void nsfx_crash(struct nsfx *fx)
{
	/*
	 * Seed 1: whatever no flush has covered is gone. What is taken down after reaches no disk.
	 */
	slu_simdisk_power_cut(fx->disk, 1);
	slu_store_fail(fx->store, -EIO, "power cut");
	take_down(fx);
	slu_store_close(fx->store);
	slu_blockio_close(fx->bio);
	nsfx_mount(fx);
}

void nsfx_init(struct nsfx *fx, uint64_t nblocks)
{
	*fx = (struct nsfx){.ctx = {.uid = 1000, .gid = 1000, .umask = 022, .may_wait = true}};
	fx->disk = slu_simdisk_new(nblocks, 1);
	slu_simdisk_inline(fx->disk, true);
	format(fx, nblocks);
	nsfx_mount(fx);
}

void nsfx_fini(struct nsfx *fx)
{
	nsfx_unmount(fx);
	slu_simdisk_free(fx->disk);
}

void nsfx_commit(struct nsfx *fx)
{
	ok(slu_store_commit(fx->store, slu_store_txid(fx->store), true));
}

void nsfx_reclaim(struct nsfx *fx)
{
	int more;

	do {
		more = slu_ns_reclaim(fx->ns);
	} while (more > 0);
	ok(more);
}

struct slu_space_stat nsfx_space(struct nsfx *fx)
{
	struct slu_space_stat st;

	slu_space_stat(fx->store, &st);
	return st;
}

uint64_t nsfx_free_blocks(struct nsfx *fx)
{
	return nsfx_space(fx).free;
}

void nsfx_settle(struct nsfx *fx)
{
	for (int i = 0; i < 6 && nsfx_space(fx).pending; i++) {
		struct slu_inode *root;

		/* Something must be open for a commit to move on. */
		ok(slu_inode_get(fx->ns, ROOT, &root));
		slu_inode_touch(root, SLU_TOUCH_CTIME);
		slu_inode_put(root);
		ok(slu_ns_sync_attrs(fx->ns));
		nsfx_commit(fx);
	}
	assert_int_equal(nsfx_space(fx).pending, 0);
}

struct count {
	uint8_t type;
	unsigned int n;
};

static int count_record(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct count *c = ctx;

	c->n += c->type == 0 || c->type == key->type;
	return 0;
}

unsigned int nsfx_nrecords(struct nsfx *fx, uint64_t ino, uint8_t type)
{
	struct slu_key from = SLU_KEY(ino, 0, 0), end = SLU_KEY(ino + 1, 0, 0);
	struct count c = {.type = type};

	ok(slu_store_scan(fx->store, &from, &end, count_record, &c, NULL));
	return c.n;
}

void nsfx_poke(struct nsfx *fx, const struct slu_key *key, const void *value, size_t len)
{
	struct slu_ticket t;
	struct slu_batch b;

	slu_batch_init(&b);
	if (value)
		slu_batch_put(&b, key, value, len);
	else
		slu_batch_del(&b, key);
	ok(slu_ticket_get(fx->store, &t, 1, SLU_VALUE_MAX, 0, NULL));
	ok(slu_store_apply(fx->store, &t, &b, NULL, NULL));
	slu_ticket_put(&t);
	slu_batch_fini(&b);
}

uint64_t mk(struct nsfx *fx, uint64_t parent, const char *name, mode_t mode)
{
	struct slu_attr attr;

	ok(slu_ns_mknod(fx->ns, &fx->ctx, parent, name, mode, 0, &attr));
	return attr.ino;
}

uint64_t look(struct nsfx *fx, uint64_t parent, const char *name)
{
	struct slu_attr attr;

	ok(slu_ns_lookup(fx->ns, &fx->ctx, parent, name, &attr));
	return attr.ino;
}

struct slu_attr stat_of(struct nsfx *fx, uint64_t ino)
{
	struct slu_inode *inode;
	struct slu_attr attr;

	ok(slu_inode_get(fx->ns, ino, &inode));
	slu_inode_attr(inode, &attr);
	slu_inode_put(inode);
	return attr;
}

void forget_all(struct nsfx *fx, uint64_t ino)
{
	slu_ns_forget(fx->ns, ino, UINT64_MAX);
}

int try_look(struct nsfx *fx, uint64_t parent, const char *name)
{
	struct slu_attr attr;
	int err = slu_ns_lookup(fx->ns, &fx->ctx, parent, name, &attr);

	if (!err)
		slu_ns_forget(fx->ns, attr.ino, 1);
	return err;
}

int try_mk(struct nsfx *fx, uint64_t parent, const char *name, mode_t mode)
{
	struct slu_attr attr;

	return slu_ns_mknod(fx->ns, &fx->ctx, parent, name, mode, 0, &attr);
}

int try_link(struct nsfx *fx, uint64_t ino, uint64_t parent, const char *name)
{
	struct slu_attr attr;

	return slu_ns_link(fx->ns, &fx->ctx, ino, parent, name, &attr);
}

int rename_(struct nsfx *fx, uint64_t from, const char *name, uint64_t to, const char *newname,
	    unsigned int flags)
{
	return slu_ns_rename(fx->ns, &fx->ctx, from, name, to, newname, flags);
}

void give_blocks(struct nsfx *fx, uint64_t ino, uint64_t pgidx, uint64_t n)
{
	uint64_t pos = pgidx * SLU_BLOCK_SIZE, end = (pgidx + n) * SLU_BLOCK_SIZE;
	struct slu_inode *inode;
	int more;

	ok(slu_inode_get(fx->ns, ino, &inode));
	do {
		more = slu_volume_prealloc(&inode->vol, &pos, end, SLU_DISK_SIZE_KEEP, NULL);
	} while (more > 0);
	ok(more);
	slu_inode_put(inode);
}

struct seen {
	uint64_t ino;
	uint64_t parent; /* 0: not a directory */
	uint64_t blocks;
	uint32_t nlink;
};

struct walk {
	struct nsfx *fx;
	uint64_t dir;
	uint64_t entries, subdirs;
	struct seen *seen;
	size_t n, cap;
};

static int walk_entry(void *ctx, const char *name, size_t len, uint64_t cookie,
		      const struct slu_attr *attr)
{
	struct walk *w = ctx;

	if (cookie <= 2)
		return 0;
	assert_true(attr->nlink > 0);
	w->entries++;
	w->subdirs += S_ISDIR(attr->mode);
	if (w->n == w->cap) {
		w->cap = w->cap * 2 + 256;
		w->seen = realloc(w->seen, w->cap * sizeof(*w->seen));
	}
	if (S_ISDIR(attr->mode))
		assert_int_equal(attr->parent, w->dir);
	w->seen[w->n++] = (struct seen){.ino = attr->ino,
					.parent = S_ISDIR(attr->mode) ? w->dir : 0,
					.blocks = attr->blocks,
					.nlink = attr->nlink};
	return 0;
}

static void walk_dir(struct walk *w, uint64_t dir)
{
	struct slu_attr attr;

	w->dir = dir;
	w->entries = w->subdirs = 0;
	ok(slu_ns_readdir(w->fx->ns, &w->fx->ctx, dir, 0, true, walk_entry, w));
	attr = stat_of(w->fx, dir);
	assert_int_equal(attr.size, w->entries);
	assert_int_equal(attr.nlink, 2 + w->subdirs);
}

static int by_ino(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

uint64_t check_tree(struct nsfx *fx)
{
	struct walk w = {.fx = fx};
	uint64_t ninodes = 1, blocks = 0;

	walk_dir(&w, ROOT);
	for (size_t i = 0; i < w.n; i++)
		if (w.seen[i].parent)
			walk_dir(&w, w.seen[i].ino);
	if (w.n)
		qsort(w.seen, w.n, sizeof(*w.seen), by_ino);
	for (size_t i = 0, j; i < w.n; i = j) {
		for (j = i; j < w.n && w.seen[j].ino == w.seen[i].ino; j++)
			;
		/* a directory has one name; anything else as many as it says */
		if (w.seen[i].parent)
			assert_int_equal(j - i, 1);
		else
			assert_int_equal(w.seen[i].nlink, j - i);
		ninodes++;
		blocks += w.seen[i].blocks;
	}
	free(w.seen);
	if (nsfx_space(fx).reserved == 0)
		assert_int_equal(nsfx_space(fx).data_blocks, blocks);
	assert_int_equal(nsfx_nrecords(fx, SLU_INO_VOLUME, SLU_REC_ORPHAN), 0);
	assert_int_equal(nsfx_space(fx).ninodes, ninodes);
	return ninodes;
}

void next_tick(void)
{
	struct timespec start = slu_clock_realtime(), now;

	do {
		slu_sleep_ns(SLU_NS_PER_MS / 2);
		now = slu_clock_realtime();
	} while (!time_order(start, now));
}

int time_order(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}
