/* SPDX-License-Identifier: MIT */
/*
 * The iomap backend in memory.
 *
 * Owns the state of every page of its inodes and the numbers of the blocks under them. Called by
 * the write path, writeback and truncate through slu_iomap_ops, in tests alone. Takes the inode's
 * lock (rank EXTENTS) and inside it the backend's (rank SPACE). Never does I/O.
 *
 * A page:		type		blkno
 *	hole		HOLE		0
 *	reserved	DELALLOC	0	counted in mem->reserved
 *	in flight	DELALLOC	!= 0	counted in mem->used, as are all below
 *	unwritten	UNWRITTEN	!= 0
 *	mapped		MAPPED		!= 0
 *
 * Everything that may fail does so in reserve: it makes the chunks of pages and the bits of the
 * blocks that allocate may hand out later.
 */
#include "sluice/mem_backend.h"
#include <string.h>

#define CHUNK_PAGES  256u
#define REMOVE_PAGES 1024u /* most pages that one call of remove empties */

enum mem_verb { VERB_MAP, VERB_RESERVE, VERB_ALLOCATE, VERB_REMOVE };

struct mem_page {
	uint64_t blkno;
	uint8_t type;  /* enum slu_iomap_type */
	uint8_t asked; /* again_once: bit per verb */
};

struct mem_chunk {
	uint64_t index; /* of the first page, / CHUNK_PAGES */
	struct mem_page pages[CHUNK_PAGES];
};

struct slu_mem_inode {
	struct slu_iomap_inode iomap; /* first */
	struct slu_mem_backend *mem;
	/* under iomap.lock */
	struct mem_chunk **chunks; /* by index */
	size_t nchunks, cap_chunks;
	uint64_t ndelalloc; /* pages */
	uint64_t disk_size;
};

static const struct slu_iomap_ops mem_ops;

static struct slu_mem_inode *mem_inode(struct slu_iomap_inode *inode)
{
	slu_assert(inode->ops == &mem_ops);
	return slu_container_of(inode, struct slu_mem_inode, iomap);
}

/* ------------------------------------------------------------------ pages */

/* Index of the first chunk that is not below `index`. */
static size_t chunk_find(const struct slu_mem_inode *mi, uint64_t index)
{
	size_t low = 0, high = mi->nchunks;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (mi->chunks[mid]->index < index)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* NULL: a hole that nobody asked for. */
static struct mem_page *page_find(const struct slu_mem_inode *mi, uint64_t pgidx)
{
	uint64_t index = pgidx / CHUNK_PAGES;
	size_t i = chunk_find(mi, index);

	if (i == mi->nchunks || mi->chunks[i]->index != index)
		return NULL;
	return &mi->chunks[i]->pages[pgidx % CHUNK_PAGES];
}

/* Of a page that reserve has made. */
static struct mem_page *page_get(const struct slu_mem_inode *mi, uint64_t pgidx)
{
	struct mem_page *page = page_find(mi, pgidx);

	slu_assert(page);
	return page;
}

static int chunk_make(struct slu_mem_inode *mi, uint64_t index)
{
	size_t i = chunk_find(mi, index);
	struct mem_chunk *chunk;

	if (i < mi->nchunks && mi->chunks[i]->index == index)
		return 0;
	if (mi->nchunks == mi->cap_chunks) {
		size_t cap = slu_max((size_t)8, mi->cap_chunks * 2);
		struct mem_chunk **chunks = slu_calloc(cap, sizeof(struct mem_chunk *));

		if (!chunks)
			return -ENOMEM;
		if (mi->nchunks)
			memcpy(chunks, mi->chunks, mi->nchunks * sizeof(*chunks));
		slu_free(mi->chunks);
		mi->chunks = chunks;
		mi->cap_chunks = cap;
	}
	chunk = slu_zalloc(sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	chunk->index = index;
	memmove(&mi->chunks[i + 1], &mi->chunks[i], (mi->nchunks - i) * sizeof(*mi->chunks));
	mi->chunks[i] = chunk;
	mi->nchunks++;
	return 0;
}

/* Makes the pages [first, end) addressable; they are as they were, holes where they are new. */
static int pages_make(struct slu_mem_inode *mi, uint64_t first, uint64_t end)
{
	uint64_t index;
	int err = 0;

	for (index = first / CHUNK_PAGES; !err && index * CHUNK_PAGES < end; index++)
		err = chunk_make(mi, index);
	return err;
}

/* ------------------------------------------------------------------ blocks */

static bool block_in_use(const struct slu_mem_backend *mem, uint64_t blkno)
{
	return mem->in_use[blkno / 8] & (1u << blkno % 8);
}

static void block_set(struct slu_mem_backend *mem, uint64_t blkno, bool in_use)
{
	slu_assert(blkno && blkno < mem->next_blkno && block_in_use(mem, blkno) != in_use);
	if (in_use)
		mem->in_use[blkno / 8] |= 1u << blkno % 8;
	else
		mem->in_use[blkno / 8] &= ~(1u << blkno % 8);
}

/* The first block number that has no bit or does not exist. */
static uint64_t blocks_limit(const struct slu_mem_backend *mem)
{
	return slu_min(mem->total + 1, mem->in_use_blocks);
}

/*
 * Sets n blocks aside, with the bits that marking them will need. From here on, the free bits below
 * next_blkno and the numbers from there to blocks_limit are together at least mem->reserved: taking
 * lowers both sides alike, giving back raises both. mem->lock is held.
 */
static int blocks_reserve(struct slu_mem_backend *mem, uint64_t n)
{
	uint64_t want;

	if (n > mem->total - mem->used - mem->reserved)
		return -ENOSPC;
	want = slu_min(mem->next_blkno + mem->reserved + n, mem->total + 1);
	if (want > mem->in_use_blocks) {
		uint64_t have = mem->in_use_blocks;
		uint64_t cap = slu_round_up(slu_max(want, have * 2), 4096);
		uint8_t *bits = slu_zalloc(cap / 8);

		if (!bits)
			return -ENOMEM;
		if (have)
			memcpy(bits, mem->in_use, have / 8);
		slu_free(mem->in_use);
		mem->in_use = bits;
		mem->in_use_blocks = cap;
	}
	mem->reserved += n;
	return 0;
}

/* One run of up to `want` reserved blocks; fresh ones while there are any. mem->lock is held. */
static uint64_t blocks_take(struct slu_mem_backend *mem, uint64_t want, uint64_t *ret_n)
{
	uint64_t blkno, n, limit = blocks_limit(mem);

	slu_assert(want && want <= mem->reserved);
	if (mem->max_run)
		want = slu_min(want, mem->max_run);
	if (mem->next_blkno < limit) {
		blkno = mem->next_blkno;
		n = slu_min(want, limit - blkno);
		mem->next_blkno += n;
	} else {
		for (blkno = 1; block_in_use(mem, blkno); blkno++)
			slu_assert(blkno + 1 < mem->next_blkno);
		for (n = 1; n < want && blkno + n < mem->next_blkno; n++)
			if (block_in_use(mem, blkno + n))
				break;
	}
	for (uint64_t i = 0; i < n; i++)
		block_set(mem, blkno + i, true);
	mem->reserved -= n;
	mem->used += n;
	*ret_n = n;
	return blkno;
}

/* mem->lock is held. */
static void block_free(struct slu_mem_backend *mem, uint64_t blkno)
{
	block_set(mem, blkno, false);
	slu_assert(mem->used);
	mem->used--;
}

/* ------------------------------------------------------------------ faults */

/* Counts one call; the error if it is the one to fail. */
static int fault_hit(struct slu_mem_backend *mem, uint64_t *nth, int error)
{
	int err = 0;

	slu_mutex_lock(&mem->lock);
	if (*nth && --*nth == 0)
		err = mem->error ? mem->error : error;
	slu_mutex_unlock(&mem->lock);
	return err;
}

static int need_nothing(struct slu_need *need)
{
	slu_yield();
	return 0;
}

/* again_once. inode->lock is held. */
static int ask_again(struct slu_mem_inode *mi, enum mem_verb verb, uint64_t pgidx,
		     struct slu_need *need)
{
	struct mem_page *page;
	int err;

	if (!mi->mem->again_once || !need)
		return 0;
	err = pages_make(mi, pgidx, pgidx + 1);
	if (err)
		return err;
	page = page_get(mi, pgidx);
	if (page->asked & (1u << verb))
		return 0;
	page->asked |= 1u << verb;
	*need = (struct slu_need){.wait = need_nothing,
				  .what = "the memory backend, once",
				  .owner = mi->mem};
	return -EAGAIN;
}

/* ------------------------------------------------------------------ verbs */

static int mem_map(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, struct slu_iomap *ret,
		   struct slu_need *need)
{
	struct slu_mem_inode *mi = mem_inode(inode);
	uint64_t first = pos >> SLU_BLOCK_SHIFT, n = 1, most;
	const struct mem_page *page;
	struct slu_iomap m = {.pos = pos, .type = SLU_IOMAP_HOLE};
	bool in_flight;
	int err;

	slu_assert(len > 0 && len <= UINT64_MAX - pos);
	err = fault_hit(mi->mem, &mi->mem->fail_map_nth, -EIO);
	if (err)
		return err;
	slu_mutex_lock(&inode->lock);
	err = ask_again(mi, VERB_MAP, first, need);
	if (err)
		goto out;
	most = mi->mem->max_map ? slu_min(mi->mem->max_map, SLU_IOMAP_MAX_PAGES)
				: SLU_IOMAP_MAX_PAGES;
	most = slu_min(most, ((pos + len - 1) >> SLU_BLOCK_SHIFT) - first + 1);
	page = page_find(mi, first);
	if (page) {
		m.type = page->type;
		m.blkno = page->blkno;
	}
	in_flight = m.type == SLU_IOMAP_DELALLOC && m.blkno;
	for (; n < most; n++) {
		page = page_find(mi, first + n);
		if ((page ? page->type : SLU_IOMAP_HOLE) != m.type)
			break;
		if (m.type == SLU_IOMAP_DELALLOC && (page->blkno != 0) != in_flight)
			break;
		if (m.blkno && page->blkno != m.blkno + n)
			break;
	}
	/* Where blocks are in flight is nobody else's business. */
	if (in_flight)
		m.blkno = 0;
	m.len = slu_min(len, ((first + n) << SLU_BLOCK_SHIFT) - pos);
	*ret = m;
out:
	slu_mutex_unlock(&inode->lock);
	return err;
}

/* The blocks that a mapping stands for. */
static void mapping_blocks(const struct slu_iomap *m, uint64_t *ret_first, uint64_t *ret_end)
{
	slu_assert(m->len > 0 && m->len <= UINT64_MAX - m->pos);
	*ret_first = m->pos >> SLU_BLOCK_SHIFT;
	*ret_end = ((m->pos + m->len - 1) >> SLU_BLOCK_SHIFT) + 1;
}

static int mem_reserve(struct slu_iomap_inode *inode, struct slu_iomap *mapping,
		       struct slu_need *need)
{
	struct slu_mem_inode *mi = mem_inode(inode);
	struct slu_mem_backend *mem = mi->mem;
	uint64_t first, end;
	int err;

	mapping->reserved = 0;
	if (mapping->type != SLU_IOMAP_HOLE)
		return 0;
	mapping_blocks(mapping, &first, &end);
	err = fault_hit(mem, &mem->fail_reserve_nth, -ENOSPC);
	if (!err && end > mem->reserve_limit_page)
		err = -ENOSPC;
	if (err)
		return err;
	slu_mutex_lock(&inode->lock);
	err = ask_again(mi, VERB_RESERVE, first, need);
	if (!err)
		err = pages_make(mi, first, end);
	if (!err) {
		slu_mutex_lock(&mem->lock);
		err = blocks_reserve(mem, end - first);
		slu_mutex_unlock(&mem->lock);
	}
	if (!err) {
		for (uint64_t i = first; i < end; i++) {
			struct mem_page *page = page_get(mi, i);

			slu_assert(page->type == SLU_IOMAP_HOLE);
			page->type = SLU_IOMAP_DELALLOC;
		}
		mi->ndelalloc += end - first;
		mapping->type = SLU_IOMAP_DELALLOC;
		mapping->reserved = (uint32_t)(end - first);
	}
	slu_mutex_unlock(&inode->lock);
	return err;
}

/* DELALLOC without a block → HOLE. inode->lock and mem->lock are held. */
static void page_unreserve(struct slu_mem_inode *mi, struct mem_page *page)
{
	slu_assert(page->type == SLU_IOMAP_DELALLOC && !page->blkno);
	page->type = SLU_IOMAP_HOLE;
	slu_assert(mi->ndelalloc && mi->mem->reserved);
	mi->ndelalloc--;
	mi->mem->reserved--;
}

static void mem_unreserve(struct slu_iomap_inode *inode, struct slu_iomap *mapping, uint64_t rest)
{
	struct slu_mem_inode *mi = mem_inode(inode);
	uint64_t first, end, kept;

	slu_assert(rest <= mapping->len);
	if (!mapping->reserved || !rest)
		return;
	mapping_blocks(mapping, &first, &end);
	kept = mapping->len - rest;
	if (kept)
		first = ((mapping->pos + kept - 1) >> SLU_BLOCK_SHIFT) + 1;
	slu_mutex_lock(&inode->lock);
	slu_mutex_lock(&mi->mem->lock);
	for (uint64_t i = first; i < end; i++) {
		page_unreserve(mi, page_get(mi, i));
		mapping->reserved--;
	}
	slu_mutex_unlock(&mi->mem->lock);
	slu_mutex_unlock(&inode->lock);
}

static int mem_allocate(struct slu_iomap_inode *inode, struct slu_iomap *mapping, uint64_t copied,
			struct slu_need *need)
{
	struct slu_mem_inode *mi = mem_inode(inode);
	struct slu_mem_backend *mem = mi->mem;
	uint64_t first, end, blkno, n;
	struct slu_iomap part = *mapping;
	int err;

	slu_assert(mapping->type == SLU_IOMAP_DELALLOC && copied && copied <= mapping->len);
	part.len = copied;
	mapping_blocks(&part, &first, &end);
	if (mem->delay_ns)
		slu_sleep_ns(mem->delay_ns);
	err = fault_hit(mem, &mem->fail_allocate_nth, -EIO);
	if (err)
		return err;
	slu_mutex_lock(&inode->lock);
	err = ask_again(mi, VERB_ALLOCATE, first, need);
	if (err)
		goto out;
	for (uint64_t i = first; i < end; i++) {
		const struct mem_page *page = page_get(mi, i);

		slu_assert(page->type == SLU_IOMAP_DELALLOC && !page->blkno);
	}
	slu_mutex_lock(&mem->lock);
	blkno = blocks_take(mem, end - first, &n);
	slu_mutex_unlock(&mem->lock);
	for (uint64_t i = 0; i < n; i++)
		page_get(mi, first + i)->blkno = blkno + i;
	mapping->blkno = blkno;
	mapping->len = slu_min(copied, ((first + n) << SLU_BLOCK_SHIFT) - mapping->pos);
out:
	slu_mutex_unlock(&inode->lock);
	return err;
}

static void record_done(struct slu_mem_inode *mi, int64_t dblocks, uint64_t disk_size)
{
	struct slu_iomap_inode *inode = &mi->iomap;
	uint64_t txid;

	if (disk_size == SLU_DISK_SIZE_KEEP)
		disk_size = mi->disk_size;
	mi->disk_size = disk_size;
	slu_mutex_lock(&mi->mem->lock);
	txid = ++mi->mem->txid;
	slu_mutex_unlock(&mi->mem->lock);
	if (inode->owner && inode->owner->record_done)
		inode->owner->record_done(inode, dblocks, disk_size, txid);
}

/* In flight → reserved. inode->lock is held. */
static void pages_untake(struct slu_mem_inode *mi, uint64_t first, uint64_t end)
{
	slu_mutex_lock(&mi->mem->lock);
	for (uint64_t i = first; i < end; i++) {
		struct mem_page *page = page_get(mi, i);

		slu_assert(page->type == SLU_IOMAP_DELALLOC && page->blkno);
		block_free(mi->mem, page->blkno);
		mi->mem->reserved++;
		page->blkno = 0;
	}
	slu_mutex_unlock(&mi->mem->lock);
}

static int mem_complete(struct slu_iomap_inode *inode, const struct slu_iomap *mapping, int result,
			uint64_t disk_size)
{
	struct slu_mem_inode *mi = mem_inode(inode);
	uint64_t first, end;
	int64_t dblocks = 0;
	int err = 0;

	slu_assert_no_locks("complete");
	slu_assert(mapping->type != SLU_IOMAP_HOLE && mapping->blkno && result <= 0);
	mapping_blocks(mapping, &first, &end);
	if (mi->mem->delay_ns)
		slu_sleep_ns(mi->mem->delay_ns);
	if (!result)
		err = result = fault_hit(mi->mem, &mi->mem->fail_complete_nth, -EIO);

	slu_mutex_lock(&inode->lock);
	if (result && mapping->type == SLU_IOMAP_DELALLOC)
		pages_untake(mi, first, end);
	if (result)
		goto out;
	for (uint64_t i = first; i < end; i++) {
		struct mem_page *page = page_get(mi, i);

		/* MAPPED when two mappings of one block, asked for at different times, meet. */
		slu_assert(page->type == mapping->type || (page->type == SLU_IOMAP_MAPPED &&
							   mapping->type == SLU_IOMAP_UNWRITTEN));
		slu_assert(page->blkno == mapping->blkno + (i - first));
		if (page->type == SLU_IOMAP_DELALLOC) {
			mi->ndelalloc--;
			dblocks++;
		}
		page->type = SLU_IOMAP_MAPPED;
	}
	record_done(mi, dblocks, slu_max(disk_size, mi->disk_size));
out:
	slu_mutex_unlock(&inode->lock);
	return err;
}

/* Any type but in flight → HOLE; the blocks freed. inode->lock is held. */
static int64_t page_remove(struct slu_mem_inode *mi, struct mem_page *page)
{
	int64_t freed = 0;

	slu_mutex_lock(&mi->mem->lock);
	if (page->type == SLU_IOMAP_DELALLOC) {
		page_unreserve(mi, page);
	} else if (page->type != SLU_IOMAP_HOLE) {
		block_free(mi->mem, page->blkno);
		freed = 1;
	}
	slu_mutex_unlock(&mi->mem->lock);
	page->type = SLU_IOMAP_HOLE;
	page->blkno = 0;
	return freed;
}

static int mem_remove(struct slu_iomap_inode *inode, uint64_t pos, uint64_t len, uint64_t disk_size,
		      struct slu_need *need)
{
	struct slu_mem_inode *mi = mem_inode(inode);
	uint64_t first = pos >> SLU_BLOCK_SHIFT, end, work = 0;
	int64_t freed = 0;
	size_t i;
	int err;

	slu_assert(pos % SLU_BLOCK_SIZE == 0 && len <= UINT64_MAX - pos);
	slu_assert(len % SLU_BLOCK_SIZE == 0 || len == UINT64_MAX - pos);
	end = first + slu_bytes_to_blocks(len);
	slu_mutex_lock(&inode->lock);
	err = ask_again(mi, VERB_REMOVE, first, need);
	if (err)
		goto out;
	for (i = chunk_find(mi, first / CHUNK_PAGES); i < mi->nchunks && !err; i++) {
		struct mem_chunk *chunk = mi->chunks[i];

		for (uint64_t j = 0; j < CHUNK_PAGES; j++) {
			uint64_t pgidx = chunk->index * CHUNK_PAGES + j;
			struct mem_page *page = &chunk->pages[j];

			if (pgidx < first || pgidx >= end || page->type == SLU_IOMAP_HOLE)
				continue;
			if (work++ == REMOVE_PAGES) {
				err = 1;
				break;
			}
			freed += page_remove(mi, page);
		}
	}
	record_done(mi, -freed, disk_size);
out:
	slu_mutex_unlock(&inode->lock);
	return err;
}

static void mem_forget(struct slu_iomap_inode *inode)
{
	struct slu_mem_inode *mi = mem_inode(inode);

	slu_mutex_lock(&inode->lock);
	slu_mutex_lock(&mi->mem->lock);
	for (size_t i = 0; i < mi->nchunks; i++)
		for (uint64_t j = 0; j < CHUNK_PAGES; j++)
			if (mi->chunks[i]->pages[j].type == SLU_IOMAP_DELALLOC)
				page_unreserve(mi, &mi->chunks[i]->pages[j]);
	slu_mutex_unlock(&mi->mem->lock);
	slu_mutex_unlock(&inode->lock);
}

static const struct slu_iomap_ops mem_ops = {
	.map = mem_map,
	.reserve = mem_reserve,
	.unreserve = mem_unreserve,
	.allocate = mem_allocate,
	.complete = mem_complete,
	.remove = mem_remove,
	.forget = mem_forget,
};

/* ------------------------------------------------------------------ life */

void slu_mem_backend_init(struct slu_mem_backend *mem, uint64_t nblocks)
{
	*mem = (struct slu_mem_backend){.total = nblocks,
					.next_blkno = 1,
					.reserve_limit_page = UINT64_MAX};
	slu_mutex_init(&mem->lock, SLU_RANK_SPACE, 0, "memory backend");
}

void slu_mem_backend_fini(struct slu_mem_backend *mem)
{
	slu_assert(mem->reserved == 0 && mem->used == 0);
	slu_free(mem->in_use);
	slu_mutex_fini(&mem->lock);
}

int slu_mem_inode_new(struct slu_mem_backend *mem, uint64_t ino, struct slu_mem_inode **ret)
{
	struct slu_mem_inode *mi = slu_zalloc(sizeof(*mi));

	if (!mi)
		return -ENOMEM;
	mi->iomap.ops = &mem_ops;
	mi->iomap.ino = ino;
	mi->mem = mem;
	slu_mutex_init(&mi->iomap.lock, SLU_RANK_EXTENTS, ino, "extents");
	*ret = mi;
	return 0;
}

void slu_mem_inode_free(struct slu_mem_inode *mi)
{
	slu_assert(mi->ndelalloc == 0);
	for (size_t i = 0; i < mi->nchunks; i++) {
		for (uint64_t j = 0; j < CHUNK_PAGES; j++)
			page_remove(mi, &mi->chunks[i]->pages[j]);
		slu_free(mi->chunks[i]);
	}
	slu_free(mi->chunks);
	slu_mutex_fini(&mi->iomap.lock);
	slu_free(mi);
}

void slu_mem_inode_forget(struct slu_mem_inode *mi)
{
	slu_mutex_lock(&mi->iomap.lock);
	for (size_t i = 0; i < mi->nchunks; i++)
		for (uint64_t j = 0; j < CHUNK_PAGES; j++) {
			struct mem_page *page = &mi->chunks[i]->pages[j];

			if (page->type == SLU_IOMAP_DELALLOC)
				page_remove(mi, page);
		}
	slu_mutex_unlock(&mi->iomap.lock);
}

struct slu_iomap_inode *slu_mem_inode_iomap(struct slu_mem_inode *mi)
{
	return &mi->iomap;
}

enum slu_iomap_type slu_mem_inode_type(struct slu_mem_inode *mi, uint64_t pgidx, uint64_t *blkno)
{
	enum slu_iomap_type type = SLU_IOMAP_HOLE;
	const struct mem_page *page;

	slu_mutex_lock(&mi->iomap.lock);
	page = page_find(mi, pgidx);
	if (page)
		type = page->type;
	if (blkno)
		*blkno = page ? page->blkno : 0;
	slu_mutex_unlock(&mi->iomap.lock);
	return type;
}

int slu_mem_inode_set(struct slu_mem_inode *mi, uint64_t pgidx, uint64_t npages,
		      enum slu_iomap_type type)
{
	struct slu_mem_backend *mem = mi->mem;
	uint64_t blkno = 0, run = 0;
	int err;

	slu_assert(type != SLU_IOMAP_DELALLOC);
	slu_mutex_lock(&mi->iomap.lock);
	err = pages_make(mi, pgidx, pgidx + npages);
	if (!err && type != SLU_IOMAP_HOLE) {
		slu_mutex_lock(&mem->lock);
		err = blocks_reserve(mem, npages);
		slu_mutex_unlock(&mem->lock);
	}
	for (uint64_t i = 0; !err && i < npages; i++) {
		struct mem_page *page = page_get(mi, pgidx + i);

		slu_assert(page->type != SLU_IOMAP_DELALLOC);
		page_remove(mi, page);
		if (type == SLU_IOMAP_HOLE)
			continue;
		if (!run) {
			slu_mutex_lock(&mem->lock);
			blkno = blocks_take(mem, npages - i, &run);
			slu_mutex_unlock(&mem->lock);
		}
		page->type = type;
		page->blkno = blkno++;
		run--;
	}
	slu_mutex_unlock(&mi->iomap.lock);
	return err;
}

uint64_t slu_mem_inode_disk_size(struct slu_mem_inode *mi)
{
	uint64_t size;

	slu_mutex_lock(&mi->iomap.lock);
	size = mi->disk_size;
	slu_mutex_unlock(&mi->iomap.lock);
	return size;
}
