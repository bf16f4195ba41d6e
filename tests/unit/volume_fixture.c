/* SPDX-License-Identifier: MIT */
#include "volume_fixture.h"

/* ------------------------------------------------------------------ records */

static void put_inode(struct slu_batch *b, uint64_t ino, uint64_t blocks, uint64_t disk_size)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_INODE, 0);
	struct slu_disk_inode d = {0};

	slu_put_le32(d.mode.b, 0100644);
	slu_put_le32(d.nlink.b, 1);
	slu_put_le64(d.blocks.b, blocks);
	slu_put_le64(d.size.b, disk_size);
	slu_batch_put(b, &key, &d, sizeof(d));
}

static void fx_put_record(struct fixture *fx, struct slu_iomap_inode *inode,
			  struct slu_batch *batch, int64_t blocks, uint64_t disk_size)
{
	put_inode(batch, inode->ino, (uint64_t)blocks, disk_size);
}

/* The record on disk says what the owner was told. */
static void check_record(struct volume_fixture *vf, uint64_t ino, const struct fixture_record *r)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_INODE, 0);
	struct slu_disk_inode d;

	assert_int_equal(slu_store_get(vf->store, &key, &d, sizeof(d), NULL), sizeof(d));
	assert_int_equal(slu_get_le64(d.blocks.b), r->blocks);
	assert_int_equal(slu_get_le64(d.size.b), r->disk_size);
}

static void apply_now(struct volume_fixture *vf, struct slu_batch *b)
{
	struct slu_ticket t;

	assert_int_equal(slu_ticket_get(vf->store, &t, b->nops, 4096, 0, NULL), 0);
	assert_int_equal(slu_store_apply(vf->store, &t, b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(b);
}

void volume_fixture_put_extent(struct volume_fixture *vf, uint64_t ino, uint64_t off,
			       uint64_t blkno, uint32_t nblocks, uint32_t flags, size_t len)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_EXTENT, off);
	uint8_t value[64] = {0};
	struct slu_disk_extent *d = (struct slu_disk_extent *)value;
	struct slu_batch b;

	slu_put_le64(d->blkno.b, blkno);
	slu_put_le32(d->nblocks.b, nblocks);
	slu_put_le32(d->flags.b, flags);
	slu_batch_init(&b);
	slu_batch_put(&b, &key, value, len);
	apply_now(vf, &b);
}

void volume_fixture_del_extent(struct volume_fixture *vf, uint64_t ino, uint64_t off)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_EXTENT, off);
	struct slu_batch b;

	slu_batch_init(&b);
	slu_batch_del(&b, &key);
	apply_now(vf, &b);
}

static int count_record(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	++*(unsigned int *)ctx;
	return 0;
}

unsigned int volume_fixture_nextents(struct volume_fixture *vf, uint64_t ino)
{
	struct slu_key from = SLU_KEY(ino, SLU_REC_EXTENT, 0);
	struct slu_key end = SLU_KEY(ino, SLU_REC_EXTENT, UINT64_MAX);
	unsigned int n = 0;

	assert_int_equal(slu_store_scan(vf->store, &from, &end, count_record, &n, NULL), 0);
	return n;
}

/* ------------------------------------------------------------------ what the suite asks for */

static void fx_commit(struct fixture *fx)
{
	struct volume_fixture *vf = volume_fixture(fx);

	assert_int_equal(slu_store_commit(vf->store, slu_store_txid(vf->store), true), 0);
}

void volume_fixture_settle(struct volume_fixture *vf)
{
	struct slu_space_stat st;

	for (int i = 0; i < 6; i++) {
		/* Something must be open for a commit to move on. */
		struct slu_batch b;

		slu_space_stat(vf->store, &st);
		if (!st.pending)
			return;
		slu_batch_init(&b);
		put_inode(&b, FIXTURE_INO, (uint64_t)vf->fx.record.blocks, vf->fx.record.disk_size);
		apply_now(vf, &b);
		fx_commit(&vf->fx);
	}
	assert_int_equal(st.pending, 0);
}

static uint64_t fx_free(struct fixture *fx)
{
	struct slu_space_stat st;

	slu_space_stat(volume_fixture(fx)->store, &st);
	return st.free;
}

static uint64_t fx_reserved(struct fixture *fx)
{
	struct volume_fixture *vf = volume_fixture(fx);
	struct slu_space_stat st;

	slu_space_stat(vf->store, &st);
	assert_int_equal(st.reserved, vf->inode.reservation.blocks + vf->filler.reservation.blocks);
	return st.reserved;
}

/*
 * Uses all space up, then frees runs of n blocks with a block between them. What the store keeps
 * back for itself lies in longer runs, but where it puts its nodes.
 */
static void fx_set_max_run(struct fixture *fx, uint64_t n)
{
	uint64_t pgidx = 0, npages = SLU_IOMAP_MAX_PAGES, blkno;
	struct slu_iomap m;

	if (!n)
		return;
	for (; npages; pgidx += npages) {
		assert_int_equal(try_map(fx->filler, pgidx * PG, npages * PG, &m), 0);
		while (npages && try_reserve(fx->filler, &m)) {
			npages /= 2;
			m.len = npages * PG;
		}
	}
	write_back(fx->filler, 0, pgidx, 0);
	for (uint64_t i = 0; i + n + 1 <= pgidx; i += n + 1) {
		page_type(fx->filler, i, &blkno);
		if (blkno >= SLU_CHUNK_BLOCKS)
			remove_all(fx->filler, i * PG, n * PG, 0);
	}
	volume_fixture_settle(volume_fixture(fx));
}

static int fx_unwritten(struct fixture *fx, uint64_t pgidx, uint64_t npages)
{
	struct volume_fixture *vf = volume_fixture(fx);
	uint64_t pos = pgidx * PG;
	int err;

	do
		err = slu_volume_prealloc(&vf->inode, &pos, (pgidx + npages) * PG,
					  SLU_DISK_SIZE_KEEP, NULL);
	while (err == 1);
	return err;
}

static int fx_zero_range(struct fixture *fx, uint64_t pgidx, uint64_t npages)
{
	struct volume_fixture *vf = volume_fixture(fx);
	uint64_t pos = pgidx * PG;
	int err;

	do
		err = slu_volume_zero_range(&vf->inode, &pos, (pgidx + npages) * PG,
					    SLU_DISK_SIZE_KEEP, NULL);
	while (err == 1);
	return err;
}

struct block_check {
	uint8_t *seen;
	uint64_t nblocks, total;
};

static void check_extent(void *ctx, const struct slu_iomap *m)
{
	struct block_check *c = ctx;

	assert_int_equal(m->pos % PG, 0);
	assert_true(m->len > 0 && m->len % PG == 0);
	if (m->type == SLU_IOMAP_DELALLOC)
		return;
	for (uint64_t i = 0; i < m->len / PG; i++) {
		assert_in_range(m->blkno + i, 2, c->nblocks - 1);
		assert_int_equal(c->seen[m->blkno + i], 0);
		c->seen[m->blkno + i] = 1;
		c->total++;
	}
}

void volume_each_extent(struct slu_volume_inode *vi,
			void (*fn)(void *ctx, const struct slu_iomap *m), void *ctx)
{
	struct slu_iomap maps[7];
	uint64_t pos = 0;
	int n;

	while ((n = slu_volume_extents(vi, &pos, maps, slu_array_size(maps))) > 0)
		for (int i = 0; i < n; i++)
			fn(ctx, &maps[i]);
	slu_assert(!n);
}

/* Every block is owned once, the store counts them all, the records say what the owners know. */
static void fx_check(struct fixture *fx)
{
	struct volume_fixture *vf = volume_fixture(fx);
	struct block_check c = {0};
	struct slu_space_stat st;
	struct slu_store_info info;

	slu_space_stat(vf->store, &st);
	slu_store_info(vf->store, &info);
	c.nblocks = info.nblocks;
	c.seen = calloc(1, c.nblocks);
	volume_each_extent(&vf->inode, check_extent, &c);
	assert_int_equal(c.total, fx->record.blocks);
	volume_each_extent(&vf->filler, check_extent, &c);
	assert_int_equal(c.total, fx->record.blocks + fx->filler_record.blocks);
	assert_int_equal(st.data_blocks, c.total);
	free(c.seen);
	check_record(vf, FIXTURE_INO, &fx->record);
	check_record(vf, FILLER_INO, &fx->filler_record);
}

/* ------------------------------------------------------------------ life */

static void sink_post(void *ctx, const struct slu_event *ev)
{
	struct volume_fixture *vf = ctx;

	vf->last_event = *ev;
	atomic_fetch_add(&vf->nevents, 1);
}

static void fixture_open(struct volume_fixture *vf)
{
	struct slu_blockio_opts bio_opts = {.engine = "sim", .sim = vf->disk};
	/* No commit but those that are asked for. */
	struct slu_store_opts opts = {.commit_interval_ns = 1000 * SLU_NS_PER_SEC,
				      .events = {sink_post, vf}};
	const char *why = NULL;
	int err;

	assert_int_equal(slu_blockio_open("sim", &bio_opts, &vf->bio), 0);
	err = slu_store_open(vf->bio, &opts, &vf->store, &why);
	if (err)
		fail_msg("the volume does not open: %d, %s", err, why);
	assert_int_equal(slu_volume_init(&vf->vol, vf->store, vf->bio, 100), 0);
	vf->vol.events = opts.events;
	slu_volume_inode_init(&vf->inode, &vf->vol, FIXTURE_INO, &fixture_owner);
	slu_volume_inode_init(&vf->filler, &vf->vol, FILLER_INO, &fixture_owner);
	vf->fx.inode = &vf->inode.iomap;
	vf->fx.filler = &vf->filler.iomap;
}

static int fixture_close(struct volume_fixture *vf)
{
	int err;

	slu_volume_inode_fini(&vf->inode);
	slu_volume_inode_fini(&vf->filler);
	slu_volume_fini(&vf->vol);
	err = slu_store_close(vf->store);
	slu_blockio_close(vf->bio);
	return err;
}

void volume_fixture_remount(struct volume_fixture *vf)
{
	assert_int_equal(fixture_close(vf), 0);
	fixture_open(vf);
	/* Transaction numbers go on where they were. */
	check_record(vf, FIXTURE_INO, &vf->fx.record);
	check_record(vf, FILLER_INO, &vf->fx.filler_record);
}

static void fx_remount(struct fixture *fx)
{
	volume_fixture_remount(volume_fixture(fx));
}

static void load_record(struct volume_fixture *vf, uint64_t ino, struct fixture_record *r)
{
	struct slu_key key = SLU_KEY(ino, SLU_REC_INODE, 0);
	struct slu_disk_inode d;
	int len = slu_store_get(vf->store, &key, &d, sizeof(d), NULL);

	slu_assert(len == (int)sizeof(d));
	*r = (struct fixture_record){
		.blocks = (int64_t)slu_get_le64(d.blocks.b),
		.disk_size = slu_get_le64(d.size.b),
	};
}

void volume_fixture_crash(struct volume_fixture *vf, uint64_t seed)
{
	slu_simdisk_power_cut(vf->disk, seed);
	vf->inode.iomap.ops->forget(&vf->inode.iomap);
	vf->filler.iomap.ops->forget(&vf->filler.iomap);
	fixture_close(vf);
	fixture_open(vf);
	load_record(vf, FIXTURE_INO, &vf->fx.record);
	load_record(vf, FILLER_INO, &vf->fx.filler_record);
}

static void worker_run(void *arg)
{
	struct volume_worker *w = arg;
	struct slu_iomap_inode *inode = &w->vi->iomap;

	for (unsigned int round = 0; round < w->rounds; round++) {
		uint64_t page, n;
		struct slu_iomap m;
		int err;

		w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
		page = w->first + (w->random >> 33) % 56;
		n = 1 + (w->random >> 50) % 8;
		if ((w->random >> 40) % 4 == 0) {
			remove_all(inode, page * PG, n * PG, SLU_DISK_SIZE_KEEP);
			continue;
		}
		dirty_pages(inode, page, n);
		err = try_map(inode, page * PG, n * PG, &m);
		if (!err && m.type == SLU_IOMAP_DELALLOC)
			err = try_allocate(inode, &m, m.len);
		slu_assert(!err);
		slu_yield();
		err = inode->ops->complete(inode, &m, round % 5 ? 0 : -EIO, m.pos + m.len);
		slu_assert(!err);
	}
}

void volume_workers_start(struct volume_fixture *vf, struct volume_worker *workers, unsigned int n,
			  unsigned int rounds)
{
	for (unsigned int i = 0; i < n; i++) {
		int err;

		workers[i] = (struct volume_worker){
			.vi = i == n - 1 ? &vf->filler : &vf->inode,
			.first = 64 * i,
			.random = slu_random(),
			.rounds = rounds,
		};
		err = slu_thread_start(&workers[i].thread, "worker", worker_run, &workers[i]);
		slu_assert(!err);
	}
}

struct volume_fixture *volume_fixture_new(uint64_t nblocks)
{
	struct volume_fixture *vf = calloc(1, sizeof(*vf));
	struct slu_blockio_opts bio_opts = {.engine = "sim"};
	struct slu_format_params params = {.nblocks = nblocks,
					   .volume_id = "volume fixture",
					   .ninodes = 2};
	struct slu_batch records;

	vf->disk = bio_opts.sim = slu_simdisk_new(nblocks, 1);
	assert_non_null(vf->disk);
	assert_int_equal(slu_blockio_open("sim", &bio_opts, &vf->bio), 0);
	slu_batch_init(&records);
	put_inode(&records, FIXTURE_INO, 0, 0);
	put_inode(&records, FILLER_INO, 0, 0);
	params.records = &records;
	assert_int_equal(slu_store_format(vf->bio, &params), 0);
	slu_batch_fini(&records);
	slu_blockio_close(vf->bio);
	vf->fx = (struct fixture){
		.set_max_run = fx_set_max_run,
		.unwritten = fx_unwritten,
		.zero_range = fx_zero_range,
		.free_blocks = fx_free,
		.reserved_blocks = fx_reserved,
		.put_record = fx_put_record,
		.commit = fx_commit,
		.remount = fx_remount,
		.check = fx_check,
	};
	fixture_current = &vf->fx;
	fixture_open(vf);
	return vf;
}

void volume_fixture_free(struct volume_fixture *vf)
{
	remove_all(vf->fx.inode, 0, UINT64_MAX, 0);
	remove_all(vf->fx.filler, 0, UINT64_MAX, 0);
	fx_check(&vf->fx);
	assert_int_equal(fixture_close(vf), 0);
	slu_simdisk_free(vf->disk);
	free(vf);
}
