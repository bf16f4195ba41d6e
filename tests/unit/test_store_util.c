/* SPDX-License-Identifier: MIT */
#include "test_store_util.h"

/* ------------------------------------------------------------------ a volume */

static void vol_event(void *ctx, const struct slu_event *ev)
{
	struct vol *v = ctx;

	switch (ev->kind) {
	case SLU_EVENT_NODE_CORRUPT:
		v->corrupt++;
		break;
	case SLU_EVENT_COMMIT_FAILED:
		v->commit_failed++;
		break;
	case SLU_EVENT_READONLY:
		v->readonly++;
		break;
	case SLU_EVENT_NO_SPACE:
		v->no_space++;
		break;
	case SLU_EVENT_FALLBACK:
		v->fallback++;
		break;
	default:
		break;
	}
}

static struct slu_blockio *open_disk(struct slu_simdisk *disk, bool readonly)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = disk, .readonly = readonly};
	struct slu_blockio *bio;

	assert_int_equal(slu_blockio_open("sim", &opts, &bio), 0);
	return bio;
}

static void vol_make(struct vol *v, uint64_t nblocks, uint64_t image_blocks, bool no_spare)
{
	struct slu_format_params params = {.nblocks = nblocks,
					   .label = "test",
					   .volume_id = "0123456789abcde",
					   .hash_seed = 7,
					   .no_spare = no_spare};

	memset(v, 0, sizeof(*v));
	v->disk = slu_simdisk_new(image_blocks, 1);
	assert_non_null(v->disk);
	slu_simdisk_inline(v->disk, true);
	v->bio = open_disk(v->disk, false);
	assert_int_equal(slu_store_format(v->bio, &params), 0);
	slu_blockio_close(v->bio);
	v->bio = NULL;
	v->opts.events = (struct slu_event_sink){vol_event, v};
	/* Tests say when to commit. */
	v->opts.commit_interval_ns = 1000 * SLU_NS_PER_SEC;
}

void vol_new(struct vol *v, uint64_t nblocks)
{
	vol_make(v, nblocks, nblocks, false);
}

void vol_new_in(struct vol *v, uint64_t nblocks, uint64_t image_blocks)
{
	vol_make(v, nblocks, image_blocks, false);
}

void vol_new_without_spare(struct vol *v, uint64_t nblocks)
{
	vol_make(v, nblocks, nblocks, true);
}

void vol_free(struct vol *v)
{
	assert_null(v->store);
	slu_simdisk_free(v->disk);
}

int vol_try_open(struct vol *v, const char **why)
{
	int err;

	v->bio = open_disk(v->disk, v->opts.readonly);
	err = slu_store_open(v->bio, &v->opts, &v->store, why);
	if (err) {
		slu_blockio_close(v->bio);
		v->bio = NULL;
		v->store = NULL;
	}
	return err;
}

void vol_open(struct vol *v)
{
	const char *why = NULL;
	int err = vol_try_open(v, &why);

	if (err)
		fail_msg("open: %d (%s)", err, why);
}

int vol_try_close(struct vol *v)
{
	int err = slu_store_close(v->store);

	v->store = NULL;
	slu_blockio_close(v->bio);
	v->bio = NULL;
	return err;
}

void vol_close(struct vol *v)
{
	assert_int_equal(vol_try_close(v), 0);
}

void vol_reopen(struct vol *v)
{
	vol_close(v);
	vol_open(v);
}

void vol_drop(struct vol *v)
{
	slu_store_fail(v->store, -EIO, "thrown away by the test");
	vol_try_close(v);
}

void vol_commit(struct vol *v)
{
	assert_int_equal(slu_store_commit(v->store, slu_store_txid(v->store), true), 0);
}

/* splitmix64 (public domain, Sebastiano Vigna) */
uint64_t rng_next(struct rng *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* ------------------------------------------------------------------ the model */

size_t model_longest = SLU_VALUE_MAX;

struct slu_key model_key(uint32_t id)
{
	return SLU_KEY(16 + id / 400, REC_TEST + id / 40 % 10, (uint64_t)(id % 40) << 57 | id);
}

static uint32_t model_id(const struct slu_key *key)
{
	return (uint32_t)key->off;
}

size_t model_value(uint32_t id, uint32_t version, uint8_t *buf)
{
	struct rng r = {(uint64_t)id << 32 | version};
	uint64_t kind = rng_below(&r, 10);
	size_t len;

	/* mostly short ones, some as long as can be, some empty */
	if (kind < 6)
		len = rng_below(&r, 100);
	else if (kind < 9)
		len = rng_below(&r, model_longest + 1);
	else
		len = rng_below(&r, 2) ? model_longest : 0;
	len = slu_min(len, model_longest);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t x = rng_next(&r);

		memcpy(buf + i, &x, slu_min(len - i, (size_t)8));
	}
	return len;
}

struct model_scan {
	const uint32_t *version;
	uint32_t n, next;
	bool equal;
};

static int model_see(void *ctx, const struct slu_key *key, const void *value, size_t len)
{
	struct model_scan *m = ctx;
	uint8_t buf[SLU_VALUE_MAX];
	uint32_t id = model_id(key);
	struct slu_key want = model_key(id);

	while (m->next < m->n && !m->version[m->next])
		m->next++;
	if (m->next >= m->n || id != m->next || slu_key_cmp(&want, key) ||
	    model_value(id, m->version[id], buf) != len || memcmp(buf, value, len)) {
		m->equal = false;
		return 1;
	}
	m->next++;
	return 0;
}

bool model_equal(struct slu_store *store, const uint32_t *version, uint32_t n)
{
	struct model_scan m = {version, n, 0, true};
	struct slu_key from = SLU_KEY(16, 0, 0), end = SLU_KEY(UINT64_MAX, 0, 0);
	int err = slu_store_scan(store, &from, &end, model_see, &m, NULL);

	assert_true(err >= 0);
	while (m.next < n && !version[m.next])
		m.next++;
	return m.equal && m.next == n;
}

void model_check(struct slu_store *store, const uint32_t *version, uint32_t n)
{
	assert_true(model_equal(store, version, n));
}

/* ------------------------------------------------------------------ the checker */

/* It says what belongs there, and it is the volume's last block. */
static void check_spare(struct slu_blockio *bio, const struct slu_disk_super *sb, uint64_t blkno)
{
	struct slu_disk_super *found = slu_alloc_aligned(SLU_BLOCK_SIZE, sizeof(*found)), expected;

	assert_int_equal(blkno, slu_get_le64(&sb->nblocks) - 1);
	slu_spare_make(sb, slu_get_le64(&sb->nblocks), &expected);
	assert_int_equal(slu_blockio_read(bio, blkno, 1, found), 0);
	assert_memory_equal(found, &expected, sizeof(expected));
	assert_null(slu_spare_check(found, blkno));
	slu_free(found);
}

struct disk_walk {
	struct disk_facts *f;
	const struct slu_disk_super *sb;
	uint64_t nblocks;
	uint8_t *space; /* bits that the space records set, a byte for each block */
	uint8_t *reached;
	struct slu_key last;
	bool any;
};

static void reach(struct disk_walk *w, uint64_t blkno, uint64_t n, uint8_t what)
{
	for (uint64_t i = 0; i < n; i++) {
		assert_true(blkno + i >= 2 && blkno + i < w->nblocks);
		if (w->reached[blkno + i])
			fail_msg("block %lu is reached twice (%d, %d)", blkno + i,
				 w->reached[blkno + i], what);
		w->reached[blkno + i] = what;
	}
}

static void check_record(struct disk_walk *w, const struct slu_key *key, const uint8_t *value,
			 unsigned int len)
{
	if (w->any)
		assert_true(slu_key_cmp(&w->last, key) < 0);
	w->last = *key;
	w->any = true;
	if (key->ino == SLU_INO_VOLUME && key->type == SLU_REC_SPACE) {
		assert_int_equal(len, SLU_CHUNK_BYTES);
		for (unsigned int i = 0; i < SLU_CHUNK_BLOCKS; i++) {
			uint64_t blkno = key->off * SLU_CHUNK_BLOCKS + i;
			bool set = value[i / 8] >> (i % 8) & 1;

			if (blkno < w->nblocks)
				w->space[blkno] = set;
			else
				assert_false(set);
		}
		return;
	}
	w->f->record_bytes += SLU_RECORD_OVERHEAD + len;
	if (key->type == SLU_REC_EXTENT) {
		const struct slu_disk_extent *e = (const void *)value;

		assert_int_equal(len, sizeof(*e));
		reach(w, slu_get_le64(&e->blkno), slu_get_le32(&e->nblocks), 2);
		w->f->data_blocks += slu_get_le32(&e->nblocks);
	}
}

static int check_node(void *ctx, const struct slu_node_visit *v)
{
	static const struct slu_key max = {UINT64_MAX, UINT64_MAX, UINT8_MAX};
	struct disk_walk *w = ctx;
	struct slu_key upper;
	unsigned int count;
	bool exempt;

	if (v->wrong)
		fail_msg("node %lu: %s", v->blkno, v->wrong);
	reach(w, v->blkno, 1, 1);
	w->f->nodes++;
	w->f->depth = slu_max(w->f->depth, (uint64_t)v->level + 1);
	count = slu_get_le16(&v->node->count);
	upper = slu_key_get(v->node->upper);
	/* the root and the rightmost of each level may be as empty as they like */
	exempt = !slu_key_cmp(&upper, &max);
	if (v->level) {
		w->f->sparse += !exempt && count < SLU_INNER_MAX / 3;
		return 0;
	}
	w->f->leaves++;
	for (unsigned int i = 0; i < count; i++) {
		const struct slu_disk_leaf_slot *s =
			(const struct slu_disk_leaf_slot *)v->node->body + i;
		struct slu_key key = slu_key_get(s->key);

		check_record(w, &key, (const uint8_t *)v->node + slu_get_le16(&s->off),
			     slu_get_le16(&s->len));
	}
	count = count * SLU_RECORD_OVERHEAD + SLU_BLOCK_SIZE - slu_get_le16(&v->node->heap);
	w->f->leaf_bytes += count;
	w->f->sparse += !exempt && count < SLU_NODE_BODY / 3;
	return 0;
}

void disk_check(struct slu_simdisk *disk, struct disk_facts *ret, bool keep)
{
	struct slu_blockio *bio = open_disk(disk, true);
	struct slu_store_opts opts = {.readonly = true};
	struct disk_facts facts = {0};
	struct disk_walk w = {.f = &facts};
	struct slu_store *store;
	const char *why = NULL;
	uint64_t spare;
	int err = slu_store_open(bio, &opts, &store, &why);

	if (err)
		fail_msg("check: cannot open: %d (%s)", err, why);
	w.sb = slu_store_super(store);
	w.nblocks = slu_get_le64(&w.sb->nblocks);
	w.space = calloc(1, w.nblocks);
	w.reached = calloc(1, w.nblocks);
	w.space[0] = w.space[1] = 0;
	w.reached[0] = w.reached[1] = 4;
	spare = slu_super_spare(w.sb, w.nblocks);
	if (spare) {
		w.space[spare] = 1; /* unless the record of its chunk says otherwise */
		w.reached[spare] = 4;
		check_spare(bio, w.sb, spare);
	}
	facts.txid = slu_get_le64(&w.sb->txid);
	assert_int_equal(slu_store_walk(store, check_node, &w), 0);
	for (unsigned int i = 0; i < slu_get_le32(&w.sb->ndeferred); i++)
		reach(&w, slu_get_le64(&w.sb->deferred[i]), 1, 3);
	for (uint64_t b = 0; b < w.nblocks; b++)
		if (!!w.space[b] != !!w.reached[b])
			fail_msg("block %lu: bit %d, reached as %d", b, w.space[b], w.reached[b]);
	assert_int_equal(slu_get_le64(&w.sb->node_blocks), facts.nodes);
	assert_int_equal(slu_get_le64(&w.sb->data_blocks), facts.data_blocks);
	assert_int_equal(slu_get_le64(&w.sb->record_bytes), facts.record_bytes);
	free(w.space);
	if (keep)
		facts.reached = w.reached;
	else
		free(w.reached);
	assert_int_equal(slu_store_close(store), 0);
	slu_blockio_close(bio);
	if (ret)
		*ret = facts;
}
