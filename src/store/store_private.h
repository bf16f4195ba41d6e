/* SPDX-License-Identifier: MIT */
/*
 * store, inside: what its files share. See store.h for what the layer promises.
 *
 * Locks, outermost first:
 *	space_lock (SLU_RANK_SPACE)  chunks, reservations, what is taken and pending
 *	lock	   (SLU_RANK_STORE)  tree, node cache, both transactions, tickets, commit state
 *	flush_lock, io locks (leaf)  who flushes; what the commit thread waits for
 * Whoever changes the tree holds both: a change moves blocks, and blocks are space.
 *
 * The states of a node, and the functions that move it from one to the next:
 *
 *	FREE     -> READING	node_read_wait
 *	READING  -> CLEAN, BAD	node_read_wait, when the read has ended
 *	FREE     -> DIRTY	node_new; node_cow, as the copy of one that is FLUSHING
 *	CLEAN    -> DIRTY	node_cow
 *	DIRTY    -> FLUSHING	freeze_node
 *	FLUSHING -> CLEAN	freeze_durable
 *	FLUSHING -> DIRTY	thaw_node: the commit has failed
 *	any      -> FREE	node_give: evicted, dropped, or dead and written
 *
 * What holds in each (node_assert):
 *
 *	state	  number	 in hash  list	    contents	      memory may be given up
 *	FREE	  none		 no	  free	    nothing	      -
 *	READING	  block, txid	 yes	  none	    being filled      no
 *	BAD	  block, txid	 yes	  clean	    not believed      yes
 *	CLEAN	  block, txid	 yes	  clean	    as on disk	      yes
 *	DIRTY	  virtual, 0	 yes	  dirty	    changes in place  no
 *	FLUSHING  block, txid	 yes	  flushing  never changes     no
 *	  + dead  block, txid	 no	  flushing  never changes     when it is written
 *
 * A virtual number has its top bit set. It stands in the parent's slot for as long as the node has
 * no block, so looking up a child is the same for dirty and clean ones.
 */
#ifndef SLU_STORE_PRIVATE_H
#define SLU_STORE_PRIVATE_H

#include "sluice/store.h"

/* ------------------------------------------------------------------ node.c: inside one node */

/*
 * The least a node is filled, but for the root and the rightmost node of each level: a third.
 * Leaves in bytes of slots and values, inner nodes in slots. Splits and merges keep to it
 * (tree_change.c has the proof), and space.c promises free space by it.
 */
#define LEAF_MIN_FILL   (SLU_NODE_BODY / 3)
#define INNER_MIN_COUNT (SLU_INNER_MAX / 3)
#define LEAF_MAX_COUNT  (SLU_NODE_BODY / SLU_RECORD_OVERHEAD)

/* Where a child is: a block and the transaction that wrote it, or a virtual number and 0. */
struct node_ref {
	uint64_t number;
	uint64_t txid;
};

#define VIRTUAL_BIT (1ull << 63)

static inline bool node_ref_virtual(struct node_ref ref)
{
	return ref.number & VIRTUAL_BIT;
}

static inline unsigned int disk_count(const struct slu_disk_node *d)
{
	return slu_get_le16(&d->count);
}

static inline unsigned int disk_level(const struct slu_disk_node *d)
{
	return slu_get_le16(&d->level);
}

static inline struct slu_disk_leaf_slot *leaf_slot(const struct slu_disk_node *d, unsigned int i)
{
	return (struct slu_disk_leaf_slot *)d->body + i;
}

static inline struct slu_disk_inner_slot *inner_slot(const struct slu_disk_node *d, unsigned int i)
{
	return (struct slu_disk_inner_slot *)d->body + i;
}

static inline struct slu_key leaf_key(const struct slu_disk_node *d, unsigned int i)
{
	return slu_key_get(leaf_slot(d, i)->key);
}

static inline unsigned int leaf_len(const struct slu_disk_node *d, unsigned int i)
{
	return slu_get_le16(&leaf_slot(d, i)->len);
}

static inline void *leaf_value(const struct slu_disk_node *d, unsigned int i)
{
	return (uint8_t *)d + slu_get_le16(&leaf_slot(d, i)->off);
}

/* Bytes of the body in use. */
static inline unsigned int leaf_fill(const struct slu_disk_node *d)
{
	return disk_count(d) * SLU_RECORD_OVERHEAD + SLU_BLOCK_SIZE - slu_get_le16(&d->heap);
}

static inline struct node_ref inner_ref(const struct slu_disk_node *d, unsigned int i)
{
	return (struct node_ref){slu_get_le64(&inner_slot(d, i)->blkno),
				 slu_get_le64(&inner_slot(d, i)->txid)};
}

static inline void inner_set_ref(struct slu_disk_node *d, unsigned int i, struct node_ref ref)
{
	slu_put_le64(&inner_slot(d, i)->blkno, ref.number);
	slu_put_le64(&inner_slot(d, i)->txid, ref.txid);
}

static inline int disk_key_cmp(const uint8_t *disk_key, const struct slu_key *key)
{
	struct slu_key k = slu_key_get(disk_key);

	return slu_key_cmp(&k, key);
}

/* The upper key of child i. */
static inline const uint8_t *inner_child_upper(const struct slu_disk_node *d, unsigned int i)
{
	return i + 1 < disk_count(d) ? inner_slot(d, i + 1)->key : d->upper;
}

void disk_init(struct slu_disk_node *d, const uint8_t volume_id[16], unsigned int level,
	       const uint8_t *lower, const uint8_t *upper);
/* All but the checksum, which the commit thread may be filling in just now. */
static inline void disk_copy(struct slu_disk_node *to, const struct slu_disk_node *from)
{
	memcpy((uint8_t *)to + 8, (const uint8_t *)from + 8, sizeof(*to) - 8);
}
/* The first slot whose key is not less than *key; *ret_found: it is equal. */
unsigned int leaf_search(const struct slu_disk_node *d, const struct slu_key *key, bool *ret_found);
/* The slot of the child that *key belongs to. */
unsigned int inner_search(const struct slu_disk_node *d, const struct slu_key *key);
/* These need room; the caller has checked. */
void leaf_insert(struct slu_disk_node *d, unsigned int i, const struct slu_key *key,
		 const void *value, unsigned int len);
void leaf_delete(struct slu_disk_node *d, unsigned int i);
void inner_insert(struct slu_disk_node *d, unsigned int i, const uint8_t *key, struct node_ref ref);
void inner_delete(struct slu_disk_node *d, unsigned int i);

/* What a split adds to the records or slots of a node, at position pos. */
struct leaf_extra {
	unsigned int pos;
	const struct slu_key *key;
	const void *value;
	unsigned int len;
};
struct inner_extra {
	unsigned int pos;
	const uint8_t *key;
	struct node_ref ref;
};
enum node_cut {
	CUT_EVEN,  /* as equal as can be */
	CUT_RIGHT, /* the right one gets as little as is allowed: appends go on there */
	CUT_LAST,  /* the left one stays as full as can be: the rightmost node of its level */
	CUT_NONE,  /* all to the left: a merge */
};
/*
 * Takes all records of left and right (siblings; right may be empty) and `extra` (may be NULL) and
 * shares them out again; sets the key between the two. The outer bounds are the caller's.
 */
void leaf_share(struct slu_disk_node *left, struct slu_disk_node *right,
		const struct leaf_extra *extra, enum node_cut cut);
void inner_share(struct slu_disk_node *left, struct slu_disk_node *right,
		 const struct inner_extra *extra, enum node_cut cut);
uint64_t disk_checksum(const struct slu_disk_node *d);

/* ------------------------------------------------------------------ node_cache.c */

enum node_state {
	NODE_FREE,     /* memory for another one */
	NODE_READING,  /* on its way from the disk */
	NODE_BAD,      /* could not be read, or fails the check */
	NODE_CLEAN,    /* as it lies on disk */
	NODE_DIRTY,    /* of the open transaction, without a block */
	NODE_FLUSHING, /* of the transaction being committed */
};

struct node {
	struct slu_disk_node *disk;
	struct node_ref ref;
	struct node *hash_next;
	struct node *prev, *next; /* in the list of its state */
	uint64_t used;            /* cache.reads when it was last looked at */
	enum node_state state;
	bool referenced; /* CLEAN: used since eviction last came by */
	bool dead;       /* FLUSHING: not part of the open tree any more */
	bool failed;     /* FLUSHING: its write has failed */
};

struct node_list {
	struct node *first, *last;
	size_t count;
};

struct node_slab;

struct node_cache {
	struct node **table;
	size_t mask;
	struct node_list free, clean, dirty, flushing;
	size_t ntotal; /* all of them, in any state */
	size_t limit;  /* clean ones are evicted rather than go beyond it */
	struct node_slab *slabs;
	uint64_t next_virtual;
	uint64_t reads; /* that have ended */
	struct slu_cond read_done;
};

int node_cache_init(struct node_cache *nc, size_t bytes);
void node_cache_fini(struct node_cache *nc);

/* All below: store->lock held. */

void node_list_add(struct node_list *list, struct node *n);
void node_list_del(struct node_list *list, struct node *n);
void node_hash_add(struct node_cache *nc, struct node *n);
void node_hash_del(struct node_cache *nc, struct node *n);
struct node *node_find(struct slu_store *store, struct node_ref ref);
/*
 * Makes sure that n nodes are free, by evicting clean ones beyond the limit; -ENOMEM. Evicts, so it
 * comes before anything that relies on nodes being in memory.
 */
int node_cache_fill(struct slu_store *store, size_t n);
struct node *node_take(struct slu_store *store); /* node_cache_fill has made sure of it */
void node_give(struct slu_store *store, struct node *n);
/* Asserts what must hold in the node's state; called after each transition. */
void node_assert(struct slu_store *store, const struct node *n);
/* Evicts down to the limit. */
void node_cache_trim(struct slu_store *store);

/* Where a node must be and what its parent says of it. */
struct node_place {
	struct node_ref ref;
	int level; /* -1: a root, of any level */
	const uint8_t *lower, *upper;
};
/* 0; -EAGAIN with need: it must be read; -EIO: it is bad (counted, and an event). */
int node_load(struct slu_store *store, const struct node_place *place, struct node **ret,
	      struct slu_need *need);
/*
 * The same for a node that is only useful, not necessary: NULL with 0 if it is known to be bad, and
 * with need NULL also if it is not in memory.
 */
int node_peek(struct slu_store *store, const struct node_place *place, struct node **ret,
	      struct slu_need *need);

/* Counts a damaged node, and posts an event. Leaf locks. */
void node_report(struct slu_store *store, uint64_t blkno, const char *wrong);

/* ------------------------------------------------------------------ walk.c: past the cache */

/* Where a node is on disk, and what its parent says of it. */
struct node_place_disk {
	struct node_ref ref;
	int level; /* -1: any */
	struct slu_key lower, upper;
};
/* A root's, without ref. */
struct node_place_disk node_place_root(void);
struct node_place_disk node_place_child(const struct slu_disk_node *d, unsigned int i);
/*
 * Reads one into d and checks it in full. NULL, or what is wrong; *ret_read: d has what there is. No
 * lock held.
 */
const char *node_read_disk(struct slu_store *store, const struct node_place_disk *at,
			   uint64_t nblocks, struct slu_disk_node *d, bool *ret_read);

/* ------------------------------------------------------------------ tree.c, tree_plan.c, tree_change.c */

/* From the leaf (0) to the root (top); slot[level]: of the child taken, or the record's. */
struct tree_path {
	struct node *node[SLU_TREE_MAX_DEPTH];
	unsigned int slot[SLU_TREE_MAX_DEPTH];
	unsigned int top;
	bool found; /* slot[0] is the key's record, not the place for it */
};

extern const uint8_t tree_key_min[SLU_KEY_SIZE], tree_key_max[SLU_KEY_SIZE];

/* store->lock held for all of these. */

int tree_root(struct slu_store *store, struct node **ret, struct slu_need *need);
int tree_find(struct slu_store *store, const struct slu_key *key, struct tree_path *path,
	      struct slu_need *need);
struct node_place tree_child_place(const struct node *parent, unsigned int slot);
/* 0, -ENOENT, -EAGAIN, -EIO. */
int tree_get(struct slu_store *store, const struct slu_key *key, const void **ret_value,
	     unsigned int *ret_len, struct slu_need *need);

struct tree_op {
	struct slu_key key;
	const void *value;
	unsigned int len;
	bool del;
};
/* What a plan has found out about the batch. */
struct tree_plan {
	int64_t record_bytes;  /* by how much the records grow, SLU_REC_SPACE left out */
	uint64_t value_growth; /* sum over the puts of what their values grow */
	unsigned int nodes;    /* made, copied or dropped at most */
};
/*
 * Makes sure that tree_apply of these operations (sorted, distinct keys) will find every node it may
 * need in memory and every key that is to be deleted. 0, -EAGAIN, -ENOENT, -EIO.
 */
int tree_plan(struct slu_store *store, const struct tree_op *ops, unsigned int nops,
	      struct tree_plan *plan, struct slu_need *need);
/*
 * Sets aside what the planned change may use: nodes (and so many more), places for freed ranges (and
 * so many more). What the plan has just looked at is not evicted for it. -ENOMEM.
 */
int tree_make_ready(struct slu_store *store, const struct tree_plan *plan, unsigned int nodes,
		    size_t freed);
/* Both locks held since tree_plan and tree_make_ready. Cannot fail. */
void tree_apply(struct slu_store *store, const struct tree_op *ops, unsigned int nops);
/* All three for one put: space records. */
int tree_put_one(struct slu_store *store, const struct slu_key *key, const void *value,
		 unsigned int len, struct slu_need *need);
struct node *node_new(struct slu_store *store, unsigned int level, const uint8_t *lower,
		      const uint8_t *upper);
/* Gives a clean node, or one being flushed, a copy that may be changed. */
struct node *node_cow(struct slu_store *store, struct node *n, struct node *parent,
		      unsigned int slot);

/* ------------------------------------------------------------------ transactions */

/* Blocks that a transaction freed. */
struct freed_range {
	uint64_t blkno;
	uint64_t nblocks : 63;
	uint64_t is_node : 1;
};

struct freed_list {
	struct freed_range *ranges;
	size_t count, cap;
	uint64_t data_blocks; /* those that are not nodes */
};

int freed_list_reserve(struct freed_list *list, size_t n);
void freed_list_add(struct freed_list *list, uint64_t blkno, uint64_t nblocks, bool is_node);
void freed_list_fini(struct freed_list *list);

struct txn {
	uint64_t id;
	uint64_t nodes;           /* made, copied or dropped: what tickets have claimed room for */
	uint64_t first_change_ns; /* 0: nothing to commit */
	struct freed_list freed;
	size_t freed_done;     /* entries whose bits are cleared already, */
	uint64_t freed_blocks; /* and blocks of the next one */
	uint64_t freed_chunks; /* how many chunks the list may touch, roughly */
	uint64_t deferred[slu_array_size(((struct slu_disk_super *)0)->deferred)];
	unsigned int ndeferred;
	bool flushing_space; /* space records are being written: nodes' old blocks are deferred */
};

/* ------------------------------------------------------------------ space.c, chunk.c, space_host.c
 */

/*
 * The bitmaps of one chunk. `used` is what the open transaction's record says or will say; `busy`
 * adds what is taken, pending or bad. Allocation looks at busy alone.
 */
struct chunk {
	uint64_t index;
	struct chunk *hash_next;
	struct chunk *prev, *next;                 /* idle ones: least recently used first */
	struct chunk *changed_prev, *changed_next; /* those whose record must be written */
	struct chunk *home_next;                   /* nodes of this commit go here */
	uint64_t used[SLU_CHUNK_BLOCKS / 64];
	uint64_t busy[SLU_CHUNK_BLOCKS / 64];
	unsigned int nfree;   /* bits clear in busy */
	unsigned int npinned; /* blocks taken or pending: it cannot be loaded again */
	bool changed, home, idle;
	bool bad;    /* its record cannot be read: nothing is free here */
	bool backed; /* by the host */
};

struct chunk_cache {
	struct chunk **table;
	size_t mask;
	size_t count, limit;
	struct chunk *idle_first, *idle_last;
	struct chunk *changed_first, *changed_last;
	/* how many blocks are free in each chunk, plus 1; 0: not known; COUNT_BACKED. Two levels,
	 * the second made when first needed. */
	uint16_t **counts;
	uint64_t ncounts;
};

#define COUNTS_SHIFT 12 /* chunks in one second-level table */

struct space {
	uint64_t nblocks, nchunks; /* space_lock */
	uint64_t spare;            /* space_lock: the spare superblock, blkno; 0: none */
	_Atomic uint64_t capacity; /* what statfs may promise */
	uint64_t pool;             /* kept back: growth that is paid from beyond the capacity */
	/* written under space_lock (record_bytes and node_blocks: and store->lock), read by stat */
	_Atomic uint64_t data_blocks, node_blocks, record_bytes, ninodes;
	_Atomic uint64_t reserved, taken, pending_data;
	uint64_t ticket_bytes, kept_bytes; /* claimed by tickets, by those that are kept back */
	uint64_t reserved_records;         /* of reservations */
	uint64_t bad_blocks;               /* a write to them failed; out of use until unmount */
	uint64_t data_cursor;              /* where the next take without a goal begins, blkno */
	uint64_t node_chunk;               /* where nodes go: chunk number, */
	unsigned int node_bit;             /* and the block in it to begin with */
	struct {
		bool on;
		uint64_t free; /* blocks in chunks that the host has backed */
		uint64_t backed_chunks;
		uint64_t next; /* chunk to ask it for next */
	} host;
	struct chunk_cache chunks;
	struct chunk *homes, *homes_last;
};

int space_init(struct slu_store *store, uint64_t nblocks);
void space_fini(struct slu_store *store);
/* Sizes of everything that depends on the length; space_lock held or not yet shared. */
void space_set_size(struct slu_store *store, uint64_t nblocks);
uint64_t space_record_blocks(uint64_t bytes);
uint64_t space_max_nodes(uint64_t nblocks);
uint64_t space_claim_nodes(uint64_t nops, uint64_t nnodes, unsigned int top);
/* space_lock held. 0, -ENOSPC, or -EAGAIN with need. */
int space_admit(struct slu_store *store, uint64_t nblocks, uint64_t bytes, bool kept_back,
		uint64_t hidden_records, struct slu_need *need);
void space_need_commit(struct slu_store *store, struct slu_need *need);

/* space_lock held for all of these. */

int chunk_cache_init(struct chunk_cache *cc, uint64_t nchunks, size_t bytes);
void chunk_cache_fini(struct chunk_cache *cc);
int chunk_cache_resize(struct chunk_cache *cc, uint64_t nchunks);
struct chunk *chunk_find(struct slu_store *store, uint64_t index);
/*
 * 0, -EAGAIN (a node must be read), -ENOMEM. A chunk whose record cannot be read comes back `bad`,
 * with nothing free. Takes store->lock; chunk_load_locked is for callers that hold it.
 */
int chunk_load(struct slu_store *store, uint64_t index, struct chunk **ret, struct slu_need *need);
int chunk_load_locked(struct slu_store *store, uint64_t index, struct chunk **ret,
		      struct slu_need *need);
/* Free blocks in a chunk as far as known: UINT32_MAX if it has to be loaded to tell. */
uint32_t chunk_known_free(const struct chunk_cache *cc, uint64_t index);
void chunk_changed(struct slu_store *store, struct chunk *c);
void chunk_unchanged(struct slu_store *store, struct chunk *c);
void chunk_count(struct slu_store *store, struct chunk *c); /* nfree or the pins have changed */
/* The first run of up to want free blocks at or after bit `from`; 0 if there is none. */
unsigned int chunk_find_run(const struct chunk *c, unsigned int from, unsigned int want,
			    unsigned int *ret_bit);
void chunk_mark_busy(struct slu_store *store, struct chunk *c, unsigned int bit, unsigned int n);
void chunk_clear_busy(struct slu_store *store, struct chunk *c, unsigned int bit, unsigned int n);
bool chunk_backed(const struct chunk_cache *cc, uint64_t index);
int chunk_set_backed(struct slu_store *store, struct chunk *c);
void chunk_set_not_backed(struct slu_store *store, struct chunk *c);
static inline bool bitmap_get(const uint64_t *map, unsigned int bit)
{
	return map[bit / 64] >> (bit % 64) & 1;
}
void bitmap_set(uint64_t *map, unsigned int bit, unsigned int n);
void bitmap_clear(uint64_t *map, unsigned int bit, unsigned int n);
bool bitmap_all_set(const uint64_t *map, unsigned int bit, unsigned int n);
bool bitmap_all_clear(const uint64_t *map, unsigned int bit, unsigned int n);

/* Both locks held. */

/* Marks taken blocks as used. */
void space_own(struct slu_store *store, uint64_t blkno, uint64_t nblocks);
/*
 * Brings bitmaps and records up to what was freed. 0 when all is written; 1: more than `budget`
 * records would have been; -EAGAIN, -ENOMEM, -EIO.
 */
int space_flush(struct slu_store *store, unsigned int budget, struct slu_need *need);
/*
 * Chooses the chunks in which the dirty nodes will get their blocks, and has their records in dirty
 * leaves. 0: all is ready for space_take_node; 1: it changed something, space_flush again; -EAGAIN,
 * -ENOMEM, -ENOSPC, -EIO.
 */
int space_prepare_homes(struct slu_store *store, struct slu_need *need);
uint64_t space_take_node(struct slu_store *store);
void space_write_homes(struct slu_store *store);
/* The commit is durable: its homes need not be remembered. */
void space_forget_homes(struct slu_store *store);
/* The commit has failed: the node's block is free again, or out of use if it is bad. */
void space_untake_node(struct slu_store *store, uint64_t blkno, bool bad);
/* What a freed list holds may be used again. */
void space_release(struct slu_store *store, struct freed_list *list);

/* space_host.c: space_lock held. */

void host_space_init(struct slu_store *store, bool on);
/* 0, or -EAGAIN with need: the host must back more first (the wait fails with -ENOSPC if it
 * cannot). */
int host_space_admit(struct slu_store *store, uint64_t nblocks, struct slu_need *need);
/* Blocks of the chunk may be taken as far as the host is concerned. */
bool host_space_usable(const struct slu_store *store, uint64_t chunk);

/* ------------------------------------------------------------------ commit.c, freeze.c, super.c */

/*
 * Whoever changes the tree leaves that many nodes free, so that a commit, which makes new ones only
 * where space records split a node, does not depend on the allocator.
 */
#define COMMIT_NODES     32
#define COMMIT_IOS       8
#define COMMIT_IO_BLOCKS 256 /* 1 MiB in one request */

struct commit_io {
	struct slu_io io;
	struct iovec iov[COMMIT_IO_BLOCKS];
	struct node *first; /* its nodes: nblocks of the flushing list from here */
	struct slu_store *store;
	bool busy;
};

struct commit {
	struct slu_thread thread;
	struct slu_cond wake; /* the thread */
	struct slu_cond done; /* those who wait for a commit or for room */
	bool kick, soon, force, stop;
	bool running;         /* an attempt is under way */
	bool paused;          /* none begins: scrub.c */
	uint64_t frozen_txid; /* being written; 0: none */
	uint64_t failures;    /* attempts that failed */
	int last_error;
	uint64_t retry_ns; /* not before, unless kicked */
	uint64_t delay_ns;
	uint64_t failing_ns;         /* since when the disk refuses nodes; 0: it does not */
	struct slu_disk_super super; /* of the transaction being committed */
	struct freed_list flushing;  /* freed by the transaction being committed */
	struct freed_list previous;  /* freed by the one before */

	struct slu_mutex io_lock; /* leaf: `busy`, io_error */
	struct slu_cond io_done;
	struct commit_io *ios;
	int io_error;
};

/* Shared flushes: one at a time, each serves all who asked before it began. */
struct flusher {
	struct slu_mutex lock; /* leaf */
	struct slu_cond done_cond;
	uint64_t started, done;
	bool busy;
	int error;
};

int commit_init(struct slu_store *store);
void commit_fini(struct slu_store *store);
void commit_main(void *arg);
int commit_once(struct slu_store *store); /* no lock held; by the commit thread, format and close */
bool commit_needed(const struct slu_store *store); /* store->lock held */
void commit_soon_locked(struct slu_store *store);  /* store->lock held */
int store_flush(struct slu_store *store);
/* freeze.c. No lock held. 0: commit->super and the flushing list are ready to be written. */
int freeze(struct slu_store *store);
/* The writes have failed: the transaction goes back into the open one. */
void thaw(struct slu_store *store);
/* The superblock is on disk. */
void freeze_durable(struct slu_store *store);

/* super.c */
struct super_choice {
	unsigned int slot;
	bool clean;     /* both are valid and say the same */
	bool fell_back; /* the other one is not valid */
};
int super_read(struct slu_blockio *bio, struct slu_disk_super *ret, struct super_choice *choice,
	       const char **why);
/* NULL, or what is wrong with what was read as a superblock. */
const char *super_wrong(const struct slu_disk_super *sb);
int super_write(struct slu_store *store, unsigned int slot, const struct slu_disk_super *sb);
/* At the end of a volume of nblocks blocks. No lock held; 0 if the volume has no spare one. */
int super_write_spare(struct slu_store *store, uint64_t nblocks);
/* Fills in what changes from commit to commit. Both locks held. */
void super_fill(struct slu_store *store, struct slu_disk_super *sb);

/* ------------------------------------------------------------------ the store itself */

struct slu_store {
	struct slu_blockio *bio;
	struct slu_event_sink events;
	uint64_t commit_interval_ns;
	uint64_t give_up_ns;
	bool readonly; /* by option or feature */
	const char *why_readonly;
	bool was_clean, fell_back;
	bool started;       /* the commit thread runs */
	_Atomic int failed; /* negative errno: read-only for good */
	_Atomic(const char *) why_failed;

	struct slu_disk_super super;      /* as opened; does not change */
	struct slu_disk_super *super_buf; /* what is written, aligned */
	struct slu_store_stats stats;

	struct slu_mutex space_lock;
	struct space space;

	struct slu_mutex lock;
	struct node_ref root;
	unsigned int root_level;
	struct node_ref durable_root; /* of durable_txid, */
	uint64_t durable_nblocks;     /* and the volume's length */
	struct node_cache cache;
	struct txn open;
	uint64_t max_nodes; /* room in the open transaction and the one being committed together */
	uint64_t claims;    /* nodes that tickets have claimed */
	uint64_t ntickets;
	uint64_t barrier_nodes, barrier_until_ns; /* smaller tickets wait until then */
	uint64_t flushing_nodes; /* open.nodes of the transaction being committed */
	struct commit commit;
	struct flusher flusher;
	_Atomic uint64_t open_txid, durable_txid;
	_Atomic uint64_t next_ino;
	bool host_busy;        /* a thread is asking the host for blocks */
	bool dirty_since_open; /* a superblock was written: close has to write clean ones */
};

static inline void stat_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void stat_sub(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t stat_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline bool store_readonly(const struct slu_store *store)
{
	return store->readonly || atomic_load(&store->failed);
}

/* As slu_store_fail, with store->lock held. */
void store_fail_locked(struct slu_store *store, int error, const char *why);
/* store->lock held: something is there to commit. */
void txn_touch(struct slu_store *store);
int store_alloc(struct slu_blockio *bio, const struct slu_store_opts *opts, struct slu_store **ret);
void store_free(struct slu_store *store);

#endif
