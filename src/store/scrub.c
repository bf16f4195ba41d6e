/* SPDX-License-Identifier: MIT */
/*
 * Scrubbing: reads every node of a volume that is in use, straight from the disk, and both
 * superblocks and the spare one.
 *
 * Called by one thread at a time, with no lock held; takes lock and space_lock for a moment, never
 * across a read. Leaves the node cache alone: what is good there may be bad on disk, and that is
 * what is looked for.
 *
 * The tree moves on meanwhile, and a snapshot of it that lasted for hours would keep every freed
 * block from being used again. So the scrub has a cursor, a key up to which everything has been seen,
 * and goes down to the leaf at the cursor from the root that is durable at that moment, again for
 * each leaf; nodes on the way that it has read already, known by block and transaction, are not read
 * twice. What is in the tree from the beginning to the end is seen.
 *
 * Two commits after the root was looked up the blocks below it may have been given to others, and
 * what is read there looks damaged. So nothing is believed to be bad at once: the way down is gone
 * again with commits held back, which keeps every block in its place for these few reads. Only who
 * fails then is damaged.
 */
#include "store_private.h"

struct scrub {
	struct slu_store *store;
	const struct slu_scrub_opts *opts;
	struct slu_scrub_result *ret;
	struct slu_key cursor;
	struct slu_disk_node *nodes;              /* the way down, from the root */
	struct node_ref refs[SLU_TREE_MAX_DEPTH]; /* which they are; number 0: none */
};

#define PAUSE_POLL_NS (50 * SLU_NS_PER_MS)

/* ------------------------------------------------------------------ keeping blocks in their place */

/*
 * No commit begins from here on. idle: and none is under way. One that is may become durable, which
 * gives back only what the durable tree has not reached for a commit already. -ECANCELED: commits are
 * not held back.
 */
static int pause_commits(struct scrub *s, bool idle)
{
	struct slu_store *store = s->store;
	struct commit *c = &store->commit;
	int err = 0;

	slu_mutex_lock(&store->lock);
	c->paused = true;
	while (idle && c->running && !err) {
		/* An image that is frozen may keep it for long. */
		(void)slu_cond_timedwait(&c->done, &store->lock, slu_clock_ns() + PAUSE_POLL_NS);
		if (s->opts->cancelled(s->opts->ctx))
			err = -ECANCELED;
	}
	slu_mutex_unlock(&store->lock);
	return err;
}

static void resume_commits(struct scrub *s)
{
	struct slu_store *store = s->store;

	slu_mutex_lock(&store->lock);
	store->commit.paused = false;
	slu_cond_broadcast(&store->commit.wake);
	slu_mutex_unlock(&store->lock);
}

/* ------------------------------------------------------------------ nodes */

/* Where the durable root is, and the volume's length. */
static struct node_place_disk durable_root(struct slu_store *store, uint64_t *ret_nblocks)
{
	struct node_place_disk root = node_place_root();

	slu_mutex_lock(&store->lock);
	root.ref = store->durable_root;
	*ret_nblocks = store->durable_nblocks;
	slu_mutex_unlock(&store->lock);
	return root;
}

/* Has the node at this depth of the way. NULL, or what is wrong with it. */
static const char *scrub_read(struct scrub *s, const struct node_place_disk *at, unsigned int depth,
			      uint64_t nblocks)
{
	struct node_ref *ref = &s->refs[depth];
	const char *wrong;
	bool read;

	if (ref->number == at->ref.number && ref->txid == at->ref.txid)
		return NULL;
	*ref = (struct node_ref){0};
	wrong = node_read_disk(s->store, at, nblocks, &s->nodes[depth], &read);
	if (wrong)
		return wrong;
	*ref = at->ref;
	/* One that the cursor is in the middle of has taken the place of one that was counted. */
	if (slu_key_cmp(&at->lower, &s->cursor) >= 0)
		s->ret->nodes++;
	return NULL;
}

/* The way to the leaf at the cursor, which becomes *ret; or to what is bad before it. */
static const char *scrub_descend(struct scrub *s, struct node_place_disk *ret)
{
	uint64_t nblocks;
	const char *wrong;

	*ret = durable_root(s->store, &nblocks);
	slu_stress_point("store-scrub-root");
	for (unsigned int depth = 0;; depth++) {
		const struct slu_disk_node *d = &s->nodes[depth];

		wrong = scrub_read(s, ret, depth, nblocks);
		if (wrong || !disk_level(d))
			return wrong;
		*ret = node_place_child(d, inner_search(d, &s->cursor));
	}
}

/* The node after the last one. 0, or -ECANCELED. */
static int scrub_next(struct scrub *s)
{
	struct node_place_disk at;
	const char *wrong = scrub_descend(s, &at);

	if (wrong) {
		int err = pause_commits(s, false);

		stat_add(&s->store->stats.scrub_retries, 1);
		if (!err)
			wrong = scrub_descend(s, &at);
		resume_commits(s);
		if (err)
			return err;
	}
	if (wrong) {
		s->ret->nodes++;
		s->ret->damaged++;
		node_report(s->store, at.ref.number, wrong);
		s->opts->damaged(s->opts->ctx, at.ref.number, wrong);
	}
	s->cursor = at.upper;
	return 0;
}

static int scrub_tree(struct scrub *s)
{
	const struct slu_key end = slu_key_get(tree_key_max);
	int err = 0;

	while (!err && slu_key_cmp(&s->cursor, &end) < 0) {
		s->ret->total = stat_get(&s->store->space.node_blocks);
		if (s->opts->step(s->opts->ctx, s->ret))
			return -ECANCELED;
		err = scrub_next(s);
	}
	return err;
}

/* ------------------------------------------------------------------ superblocks */

static void super_report(struct scrub *s, uint64_t blkno, const char *wrong)
{
	s->ret->damaged++;
	slu_event_post(&s->store->events, &(struct slu_event){.kind = SLU_EVENT_SUPER_CORRUPT,
							      .error = -EIO,
							      .pos = blkno,
							      .text = wrong});
	s->opts->damaged(s->opts->ctx, blkno, wrong);
}

/* No commit is under way: the newest one's superblock is where it belongs. buf: a block. */
static const char *scrub_super(struct slu_store *store, unsigned int slot,
			       struct slu_disk_super *buf)
{
	uint64_t txid = atomic_load(&store->durable_txid);
	const char *wrong;

	if (slu_blockio_read(store->bio, slot, 1, buf))
		return "cannot be read";
	wrong = super_wrong(buf);
	if (wrong)
		return wrong;
	if (memcmp(buf->volume_id, store->super.volume_id, sizeof(buf->volume_id)))
		return "belongs to another volume";
	if (slot == (txid & 1) && slu_get_le64(&buf->txid) != txid)
		return "is not of the last commit";
	return NULL;
}

static int scrub_supers(struct scrub *s)
{
	struct slu_disk_super *buf = (struct slu_disk_super *)s->nodes;
	const char *wrong;
	int err = pause_commits(s, true);

	for (unsigned int slot = 0; slot < 2 && !err; slot++) {
		wrong = scrub_super(s->store, slot, buf);
		if (wrong)
			super_report(s, slot, wrong);
	}
	resume_commits(s);
	return err;
}

static uint64_t spare_place(struct slu_store *store, uint64_t *ret_nblocks)
{
	uint64_t spare;

	slu_mutex_lock(&store->space_lock);
	spare = store->space.spare;
	*ret_nblocks = store->space.nblocks;
	slu_mutex_unlock(&store->space_lock);
	return spare;
}

static void scrub_spare(struct scrub *s)
{
	struct slu_disk_super *buf = (struct slu_disk_super *)s->nodes, *expected = buf + 1;
	const char *wrong;
	uint64_t spare, nblocks, now;

	do {
		spare = spare_place(s->store, &nblocks);
		if (!spare)
			return;
		slu_spare_make(&s->store->super, nblocks, expected);
		wrong = NULL;
		if (slu_blockio_read(s->store->bio, spare, 1, buf))
			wrong = "cannot be read";
		else if (memcmp(buf, expected, sizeof(*buf)))
			wrong = "is not what it should be";
		/* A volume that is made longer has it elsewhere. */
	} while (wrong && spare_place(s->store, &now) != spare);
	if (wrong)
		super_report(s, spare, wrong);
}

/* ------------------------------------------------------------------ */

int slu_store_scrub(struct slu_store *store, const struct slu_scrub_opts *opts,
		    struct slu_scrub_result *ret)
{
	struct scrub s = {
		.store = store,
		.opts = opts,
		.ret = ret,
		.cursor = slu_key_get(tree_key_min),
	};
	int err;

	slu_assert_no_locks("scrubbing");
	*ret = (struct slu_scrub_result){0};
	s.nodes = slu_alloc_aligned(SLU_BLOCK_SIZE, SLU_TREE_MAX_DEPTH * sizeof(*s.nodes));
	if (!s.nodes)
		return -ENOMEM;
	err = scrub_supers(&s);
	if (!err) {
		scrub_spare(&s);
		err = scrub_tree(&s);
	}
	slu_free(s.nodes);
	return err;
}
