/* SPDX-License-Identifier: MIT */
/*
 * blockio: the simulated disk as tests see it, and what it does with one request.
 *
 * now = durable + pending, always: a completed write is applied to `now` and remembered in
 * `pending` until a flush that was submitted after its completion has completed; then it is applied
 * to `durable`. A power cut starts again from `durable`.
 *
 * Lock: disk->lock (leaf), also while data is copied; this is test equipment. end_io is called by
 * sim_engine.c, without it.
 */
#include "simdisk.h"
#include <string.h>

/* ------------------------------------------------------------------ faults */

static bool fault_matches(const struct slu_simdisk_fault *f, const struct simopen *so,
			  const struct slu_io *io)
{
	uint64_t blkno = so->offset + io->blkno;

	if (f->op != io->op)
		return false;
	if (!f->nblocks || io->op == SLU_IO_FLUSH)
		return true;
	return blkno < f->blkno + f->nblocks && f->blkno < blkno + io->nblocks;
}

static uint64_t pick_fault(struct slu_simdisk *disk, const struct simopen *so,
			   const struct slu_io *io) SLU_REQUIRES(&disk->lock)
{
	const struct slu_simdisk_fault *f = &disk->fault;
	uint64_t error = f->error ? (uint64_t)-f->error : EIO;
	uint64_t nth = slu_max(f->nth, (uint64_t)1);

	if (!disk->fault_set || !fault_matches(f, so, io))
		return 0;
	if (++disk->fault_seen < nth || disk->fault_seen - nth >= slu_max(f->times, (uint64_t)1))
		return 0;
	disk->fault_hits++;
	return (1 + (uint64_t)f->kind) | error << 8;
}

/* -1: none. */
static int fault_kind(const struct slu_io *io)
{
	return (int)(io->engine[SIM_SLOT_FAULT] & 255) - 1;
}

static int fault_error(const struct slu_io *io)
{
	return -(int)(io->engine[SIM_SLOT_FAULT] >> 8);
}

int simdisk_begin(struct slu_simdisk *disk, const struct simopen *so, struct slu_io *io)
{
	io->engine[SIM_SLOT_DUE] = slu_clock_ns();
	if (!so->inline_io)
		io->engine[SIM_SLOT_DUE] += simrng_below(&disk->rng, disk->latency_ns);
	io->engine[SIM_SLOT_FAULT] = pick_fault(disk, so, io);
	io->engine[SIM_SLOT_SUBMITTED] = disk->seq;
	return fault_kind(io) == SLU_FAULT_SUBMIT_ERROR ? fault_error(io) : 0;
}

/* ------------------------------------------------------------------ the host's room */

int simdisk_back(struct slu_simdisk *disk, uint64_t blkno, uint64_t nblocks)
{
	uint64_t need;

	if (!disk->host_limited)
		return 0;
	need = nblocks - slu_ranges_covered(&disk->backed, blkno, blkno + nblocks);
	if (need > disk->host_free)
		return -ENOSPC;
	if (need) {
		slu_assert(!slu_ranges_set(&disk->backed, blkno, blkno + nblocks, 0));
		disk->host_free -= need;
	}
	return 0;
}

static void simdisk_unback(struct slu_simdisk *disk, uint64_t blkno, uint64_t nblocks)
	SLU_REQUIRES(&disk->lock)
{
	if (!disk->host_limited)
		return;
	disk->host_free += slu_ranges_covered(&disk->backed, blkno, blkno + nblocks);
	slu_assert(!slu_ranges_clear(&disk->backed, blkno, blkno + nblocks));
}

void slu_simdisk_host_space(struct slu_simdisk *disk, uint64_t nfree)
{
	slu_mutex_lock(&disk->lock);
	if (nfree != UINT64_MAX && !disk->host_limited) {
		slu_assert(!slu_range_pool_init(&disk->backed_pool, 0, 0));
		slu_ranges_init(&disk->backed, &disk->backed_pool, true);
		for (uint64_t b = 0; simtree_next(&disk->now, &b); b++)
			slu_assert(!slu_ranges_set(&disk->backed, b, b + 1, 0));
	} else if (nfree == UINT64_MAX && disk->host_limited) {
		slu_ranges_fini(&disk->backed);
		slu_range_pool_fini(&disk->backed_pool);
	}
	disk->host_limited = nfree != UINT64_MAX;
	disk->host_free = nfree;
	slu_mutex_unlock(&disk->lock);
}

/* ------------------------------------------------------------------ what the disk did */

static uint64_t count_inflight(const struct slu_simdisk *disk) SLU_REQUIRES(&disk->lock)
{
	uint64_t n = 0;

	for (const struct simopen *so = disk->opens; so; so = so->next)
		for (const struct slu_io *io = so->queue.head; io && !so->cut; io = io->next)
			n += io->op == SLU_IO_WRITE || io->op == SLU_IO_DISCARD;
	return n;
}

/* Numbers a record, does it, and remembers it. Takes over the reference. */
static void simdisk_record(struct slu_simdisk *disk, struct simrec *r, uint64_t submitted)
	SLU_REQUIRES(&disk->lock)
{
	r->seq = disk->seq++;
	r->submitted = submitted;
	r->durable = disk->durable_seq;
	r->inflight = disk->log.on ? count_inflight(disk) : 0;
	simrec_apply(r, &disk->now);
	if (disk->log.on)
		simrecs_add(&disk->log.recs, simrec_get(r));
	if (r->op == SLU_IO_FLUSH)
		simrec_put(r);
	else
		simrecs_add(&disk->pending, r);
}

/* All records before seq are durable from now on. */
static void advance_durable(struct slu_simdisk *disk, uint64_t seq) SLU_REQUIRES(&disk->lock)
{
	struct simrecs *p = &disk->pending;
	size_t n = 0;

	while (n < p->n && p->v[n]->seq < seq)
		n++;
	if (n == p->n) {
		simtree_fini(&disk->durable);
		simtree_copy(&disk->durable, &disk->now);
	} else {
		for (size_t i = 0; i < n; i++)
			simrec_apply(p->v[i], &disk->durable);
	}
	simrecs_drop_first(p, n);
	disk->durable_seq = slu_max(disk->durable_seq, seq);
}

/* ------------------------------------------------------------------ one request */

/* The buffer of the i-th block: iovecs are multiples of a block. */
static void *io_block(const struct slu_io *io, uint32_t i)
{
	size_t at = (size_t)i << SLU_BLOCK_SHIFT;
	int v = 0;

	while (at >= io->iov[v].iov_len)
		at -= io->iov[v++].iov_len;
	return (char *)io->iov[v].iov_base + at;
}

/* Where a misdirected request goes. */
static uint64_t misdirect(const struct slu_simdisk *disk, uint64_t blkno, uint32_t nblocks)
	SLU_REQUIRES(&disk->lock)
{
	if (blkno + nblocks < disk->nblocks)
		return blkno + 1;
	return blkno ? blkno - 1 : blkno;
}

static void flip_bit(struct slu_simdisk *disk, unsigned char *block) SLU_REQUIRES(&disk->lock)
{
	uint64_t bit = simrng_below(&disk->rng, SLU_BLOCK_SIZE * 8);

	block[bit / 8] ^= (unsigned char)(1u << (bit % 8));
}

static int do_read(struct slu_simdisk *disk, struct slu_io *io, uint64_t blkno)
	SLU_REQUIRES(&disk->lock)
{
	int kind = fault_kind(io);
	size_t left = blockio_bytes(io);

	if (kind == SLU_FAULT_LOST)
		return 0;
	if (kind == SLU_FAULT_SHORT)
		left /= 2;
	if (kind == SLU_FAULT_MISDIRECTED)
		blkno = misdirect(disk, blkno, io->nblocks);
	for (uint32_t i = 0; left; i++) {
		size_t n = slu_min(left, (size_t)SLU_BLOCK_SIZE);

		memcpy(io_block(io, i), simblock_data(simtree_get(&disk->now, blkno + i)), n);
		left -= n;
	}
	if (kind == SLU_FAULT_BITFLIP)
		flip_bit(disk, io_block(io, (uint32_t)simrng_below(&disk->rng, io->nblocks)));
	return kind == SLU_FAULT_SHORT ? fault_error(io) : 0;
}

static struct simrec *write_record(const struct slu_io *io, uint64_t blkno, size_t bytes)
{
	struct simrec *r;

	r = simrec_new(SLU_IO_WRITE, blkno, (uint32_t)slu_bytes_to_blocks(bytes));
	for (uint32_t i = 0; i < r->nblocks; i++)
		r->blocks[i] = simblock_new(io_block(io, i));
	if (bytes % SLU_BLOCK_SIZE)
		r->mask = (1u << (bytes % SLU_BLOCK_SIZE / SIM_SECTOR)) - 1;
	return r;
}

static int do_write(struct slu_simdisk *disk, struct slu_io *io, uint64_t blkno)
	SLU_REQUIRES(&disk->lock)
{
	int kind = fault_kind(io);
	size_t bytes = blockio_bytes(io);
	struct simrec *r;

	if (kind == SLU_FAULT_LOST)
		return 0;
	if (kind == SLU_FAULT_SHORT)
		bytes /= 2;
	if (kind == SLU_FAULT_MISDIRECTED)
		blkno = misdirect(disk, blkno, io->nblocks);
	if (simdisk_back(disk, blkno, slu_bytes_to_blocks(bytes)))
		return -ENOSPC;
	r = write_record(io, blkno, bytes);
	if (kind == SLU_FAULT_BITFLIP)
		flip_bit(disk, r->blocks[simrng_below(&disk->rng, r->nblocks)]->data);
	simdisk_record(disk, r, io->engine[SIM_SLOT_SUBMITTED]);
	return kind == SLU_FAULT_SHORT ? fault_error(io) : 0;
}

/* Contents undefined: some blocks keep theirs, some turn to zeros, some to rubbish. */
static struct simrec *discard_record(struct simrng *rng, uint64_t blkno, uint32_t nblocks)
{
	struct simrec *r = simrec_new(SLU_IO_DISCARD, blkno, nblocks);
	struct simblock *rubbish = simblock_new(NULL);

	memset(rubbish->data, (int)(simrng_next(rng) | 1), sizeof(rubbish->data));
	for (uint32_t i = 0; i < nblocks; i++) {
		uint64_t choice = simrng_below(rng, 3);

		if (choice == 0)
			r->blocks[i] = SIM_KEEP;
		else if (choice == 1)
			r->blocks[i] = simblock_get(rubbish);
	}
	simblock_put(rubbish);
	return r;
}

static int do_discard(struct slu_simdisk *disk, struct slu_io *io, uint64_t blkno)
	SLU_REQUIRES(&disk->lock)
{
	uint32_t nblocks = io->nblocks;
	int kind = fault_kind(io);

	if (kind == SLU_FAULT_LOST)
		return 0;
	if (kind == SLU_FAULT_SHORT)
		nblocks /= 2;
	if (kind == SLU_FAULT_MISDIRECTED)
		blkno = misdirect(disk, blkno, nblocks);
	simdisk_record(disk, discard_record(&disk->rng, blkno, nblocks),
		       io->engine[SIM_SLOT_SUBMITTED]);
	simdisk_unback(disk, blkno, nblocks);
	return kind == SLU_FAULT_SHORT ? fault_error(io) : 0;
}

/* Half a flush makes the older half durable. */
static int do_flush(struct slu_simdisk *disk, struct slu_io *io) SLU_REQUIRES(&disk->lock)
{
	uint64_t covers = io->engine[SIM_SLOT_SUBMITTED];
	int kind = fault_kind(io);

	if (kind == SLU_FAULT_LOST || kind == SLU_FAULT_MISDIRECTED)
		return 0;
	if (kind == SLU_FAULT_SHORT && disk->pending.n)
		covers = slu_min(covers, disk->pending.v[disk->pending.n / 2]->seq);
	advance_durable(disk, covers);
	simdisk_record(disk, simrec_new(SLU_IO_FLUSH, 0, 0), io->engine[SIM_SLOT_SUBMITTED]);
	return kind == SLU_FAULT_SHORT ? fault_error(io) : 0;
}

int simdisk_do(struct slu_simdisk *disk, const struct simopen *so, struct slu_io *io)
{
	uint64_t blkno = so->offset + io->blkno;

	if (disk->gone || so->cut)
		return -EIO;
	if (fault_kind(io) == SLU_FAULT_ERROR)
		return fault_error(io);
	switch (io->op) {
	case SLU_IO_READ:
		return do_read(disk, io, blkno);
	case SLU_IO_WRITE:
		return do_write(disk, io, blkno);
	case SLU_IO_DISCARD:
		return do_discard(disk, io, blkno);
	case SLU_IO_FLUSH:
		return do_flush(disk, io);
	}
	return -EINVAL;
}

/* ------------------------------------------------------------------ disks */

struct slu_simdisk *slu_simdisk_new(uint64_t nblocks, uint64_t seed)
{
	struct slu_simdisk *disk = calloc(1, sizeof(*disk));

	slu_assert(disk);
	slu_mutex_init(&disk->lock, SLU_RANK_LEAF, 0, "simulated disk");
	disk->nblocks = nblocks;
	simtree_init(&disk->now);
	simtree_init(&disk->durable);
	disk->rng.state = seed;
	return disk;
}

void slu_simdisk_free(struct slu_simdisk *disk)
{
	if (!disk)
		return;
	slu_assert(!disk->opens);
	slu_simdisk_host_space(disk, UINT64_MAX);
	simlog_fini(&disk->log);
	simrecs_fini(&disk->pending);
	simrecs_fini(&disk->loose);
	simtree_fini(&disk->now);
	simtree_fini(&disk->durable);
	slu_mutex_fini(&disk->lock);
	free(disk);
}

/* Adds the writes that wait in the queues of all mounts, with copies of their data. */
static void collect_inflight(struct slu_simdisk *disk, struct simrecs *to) SLU_REQUIRES(&disk->lock)
{
	for (struct simopen *so = disk->opens; so; so = so->next) {
		for (struct slu_io *io = so->queue.head; io && !so->cut; io = io->next) {
			uint64_t blkno = so->offset + io->blkno;

			if (io->op == SLU_IO_WRITE)
				simrecs_add(to, write_record(io, blkno, blockio_bytes(io)));
			else if (io->op == SLU_IO_DISCARD)
				simrecs_add(to, discard_record(&disk->rng, blkno, io->nblocks));
		}
	}
}

/* The locks of const disks are taken for their inner state alone. */
static struct slu_simdisk *unconst(const struct slu_simdisk *disk)
{
	return (struct slu_simdisk *)(uintptr_t)disk;
}

struct slu_simdisk *slu_simdisk_clone(const struct slu_simdisk *from)
{
	struct slu_simdisk *disk = unconst(from), *copy;

	slu_mutex_lock(&disk->lock);
	copy = slu_simdisk_new(disk->nblocks, disk->rng.state);
	simtree_copy(&copy->now, &disk->now);
	simtree_copy(&copy->durable, &disk->durable);
	for (size_t i = 0; i < disk->pending.n; i++)
		simrecs_add(&copy->pending, simrec_get(disk->pending.v[i]));
	for (size_t i = 0; i < disk->loose.n; i++)
		simrecs_add(&copy->loose, simrec_get(disk->loose.v[i]));
	collect_inflight(disk, &copy->loose);
	copy->seq = disk->seq;
	copy->durable_seq = disk->durable_seq;
	copy->latency_ns = disk->latency_ns;
	copy->inline_io = disk->inline_io;
	slu_mutex_unlock(&disk->lock);
	return copy;
}

/* ------------------------------------------------------------------ settings */

void slu_simdisk_fault(struct slu_simdisk *disk, const struct slu_simdisk_fault *fault)
{
	slu_mutex_lock(&disk->lock);
	disk->fault_set = fault != NULL;
	if (fault) {
		disk->fault = *fault;
		disk->fault_hits = 0;
	}
	disk->fault_seen = 0;
	slu_mutex_unlock(&disk->lock);
}

uint64_t slu_simdisk_fault_hits(struct slu_simdisk *disk)
{
	uint64_t hits;

	slu_mutex_lock(&disk->lock);
	hits = disk->fault_hits;
	slu_mutex_unlock(&disk->lock);
	return hits;
}

void slu_simdisk_fail(struct slu_simdisk *disk, bool gone)
{
	slu_mutex_lock(&disk->lock);
	disk->gone = gone;
	slu_mutex_unlock(&disk->lock);
}

void slu_simdisk_latency(struct slu_simdisk *disk, uint64_t max_ns)
{
	slu_mutex_lock(&disk->lock);
	disk->latency_ns = max_ns;
	slu_mutex_unlock(&disk->lock);
}

void slu_simdisk_inline(struct slu_simdisk *disk, bool on)
{
	slu_mutex_lock(&disk->lock);
	disk->inline_io = on;
	slu_mutex_unlock(&disk->lock);
}

/* ------------------------------------------------------------------ power cut and replay */

void slu_simdisk_power_cut(struct slu_simdisk *disk, uint64_t seed)
{
	struct simrecs lose = {0};

	slu_mutex_lock(&disk->lock);
	for (size_t i = 0; i < disk->pending.n; i++)
		simrecs_add(&lose, simrec_get(disk->pending.v[i]));
	if (seed > 1) {
		for (size_t i = 0; i < disk->loose.n; i++)
			simrecs_add(&lose, simrec_get(disk->loose.v[i]));
		collect_inflight(disk, &lose);
	}
	simrecs_cut(lose.v, lose.n, &disk->durable, seed);
	simrecs_fini(&lose);
	simtree_fini(&disk->now);
	simtree_copy(&disk->now, &disk->durable);
	simrecs_fini(&disk->pending);
	simrecs_fini(&disk->loose);
	disk->durable_seq = disk->seq;
	disk->log.on = false;
	for (struct simopen *so = disk->opens; so; so = so->next) {
		so->cut = true;
		so->lock = SLU_LOCK_NONE;
		for (struct slu_io *io = so->queue.head; io; io = io->next)
			io->engine[SIM_SLOT_DUE] = 0;
		if (!so->inline_io)
			slu_cond_signal(&so->more);
	}
	slu_mutex_unlock(&disk->lock);
}

void slu_simdisk_record(struct slu_simdisk *disk, bool on)
{
	slu_mutex_lock(&disk->lock);
	if (on)
		simlog_start(&disk->log, &disk->now, disk->seq);
	else
		disk->log.on = false;
	slu_mutex_unlock(&disk->lock);
}

size_t slu_simdisk_nrecords(const struct slu_simdisk *from)
{
	struct slu_simdisk *disk = unconst(from);
	size_t n;

	slu_mutex_lock(&disk->lock);
	n = disk->log.recs.n;
	slu_mutex_unlock(&disk->lock);
	return n;
}

void slu_simdisk_record_at(const struct slu_simdisk *from, size_t i, struct slu_simdisk_record *ret)
{
	struct slu_simdisk *disk = unconst(from);
	const struct simrec *r;

	slu_mutex_lock(&disk->lock);
	slu_assert(i < disk->log.recs.n);
	r = disk->log.recs.v[i];
	ret->op = r->op;
	ret->blkno = r->blkno;
	ret->nblocks = r->nblocks;
	ret->submitted = r->submitted > disk->log.first ? r->submitted - disk->log.first : 0;
	ret->covers = r->durable > disk->log.first ? r->durable - disk->log.first : 0;
	slu_mutex_unlock(&disk->lock);
}

struct slu_simdisk *slu_simdisk_replay(const struct slu_simdisk *from, size_t nrecords,
				       uint64_t seed)
{
	struct slu_simdisk *disk = unconst(from), *copy;

	slu_mutex_lock(&disk->lock);
	slu_assert(disk->log.nsnaps); /* nothing was recorded */
	slu_assert(nrecords <= disk->log.recs.n);
	copy = slu_simdisk_new(disk->nblocks, seed + nrecords);
	simlog_replay(&disk->log, nrecords, seed, &copy->now);
	slu_mutex_unlock(&disk->lock);
	simtree_copy(&copy->durable, &copy->now);
	copy->inline_io = disk->inline_io;
	return copy;
}

/* ------------------------------------------------------------------ direct access */

void slu_simdisk_peek(struct slu_simdisk *disk, uint64_t blkno, void *buf)
{
	slu_mutex_lock(&disk->lock);
	slu_assert(blkno < disk->nblocks);
	memcpy(buf, simblock_data(simtree_get(&disk->now, blkno)), SLU_BLOCK_SIZE);
	slu_mutex_unlock(&disk->lock);
}

void slu_simdisk_poke(struct slu_simdisk *disk, uint64_t blkno, const void *buf)
{
	struct simblock *b = simblock_new(buf);

	slu_mutex_lock(&disk->lock);
	slu_assert(blkno < disk->nblocks);
	simtree_set(&disk->now, blkno, b);
	simtree_set(&disk->durable, blkno, b);
	slu_mutex_unlock(&disk->lock);
	simblock_put(b);
}

size_t slu_simdisk_unflushed(struct slu_simdisk *disk)
{
	size_t n;

	slu_mutex_lock(&disk->lock);
	n = disk->pending.n;
	slu_mutex_unlock(&disk->lock);
	return n;
}
