/* SPDX-License-Identifier: MIT */
/*
 * A file without a filesystem: one inode of the memory backend over a simulated disk, with cache
 * and writeback, and a plain byte array that says what the file must hold. For the tests of cache,
 * writeback and write. Runs on threads and inside a simulation alike.
 */
#ifndef SLU_TEST_PAGES_RIG_H
#define SLU_TEST_PAGES_RIG_H

#include "sluice/mem_backend.h"
#include "sluice/write.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/*
 * cmocka's assertions jump back into the thread that runs the test; these hold on any thread and in
 * any task, and end the process.
 */
static inline void must_failed(void)
{
	struct slu_sim *sim = slu_sim_current();

	if (sim)
		fprintf(stderr, "SLU_SEED=%" PRIu64 "\n", slu_sim_seed(sim));
	abort();
}

#define must(cond)                                                                         \
	do {                                                                               \
		if (!(cond)) {                                                             \
			fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond); \
			must_failed();                                                     \
		}                                                                          \
	} while (0)
#define must_eq(a, b)                                                                       \
	do {                                                                                \
		int64_t must_a = (int64_t)(a), must_b = (int64_t)(b);                       \
		if (must_a != must_b) {                                                     \
			fprintf(stderr, "%s:%d: %s is %" PRId64 ", not %s = %" PRId64 "\n", \
				__FILE__, __LINE__, #a, must_a, #b, must_b);                \
			must_failed();                                                      \
		}                                                                           \
	} while (0)

/* TSan is slow: what one thread does alone is tried there in larger steps. */
#if defined(__SANITIZE_THREAD__)
#define RIG_SLOW 16u
#else
#define RIG_SLOW 1u
#endif

#define PAGE ((uint64_t)SLU_BLOCK_SIZE)

struct rig_opts {
	size_t cache_bytes;  /* 0: 4 MiB */
	uint64_t nblocks;    /* of the volume; 0: 8,192 */
	uint64_t latency_ns; /* of the disk */
	uint64_t age_ns;     /* of dirty pages; 0: an hour, so that nothing is written by itself */
	unsigned int nthreads;
	bool is_inline; /* the disk answers from within submit */
};

struct rig {
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_mem_backend mem;
	struct slu_mem_inode *inode;
	struct slu_aspace as;
	_Atomic uint64_t npins;
	_Atomic uint64_t nevents, nlost; /* WRITEBACK_ERROR, DATA_LOST */
	_Atomic uint64_t lost_pos, lost_len;
};

static inline struct rig *rig_of(struct slu_aspace *as)
{
	return slu_container_of(as, struct rig, as);
}

static inline void rig_pin(struct slu_aspace *as)
{
	atomic_fetch_add(&rig_of(as)->npins, 1);
}

static inline void rig_unpin(struct slu_aspace *as)
{
	uint64_t old = atomic_fetch_sub(&rig_of(as)->npins, 1);

	must(old > 0);
}

static inline void rig_event(void *ctx, const struct slu_event *ev)
{
	struct rig *r = ctx;

	if (ev->kind == SLU_EVENT_WRITEBACK_ERROR)
		atomic_fetch_add(&r->nevents, 1);
	if (ev->kind == SLU_EVENT_DATA_LOST) {
		atomic_fetch_add(&r->nlost, 1);
		atomic_store(&r->lost_pos, ev->pos);
		atomic_fetch_add(&r->lost_len, ev->len);
	}
}

/* What the owner of an inode keeps: found from the backend's inode, which knows nothing of it. */
static struct rig *rig_all[16];

/* As an owner does it: never back, and no more than the size of the file. */
static inline void rig_record_done(struct slu_iomap_inode *inode, int64_t dblocks,
				   uint64_t disk_size, uint64_t txid)
{
	for (size_t i = 0; i < slu_array_size(rig_all); i++) {
		struct slu_aspace *as = rig_all[i] ? &rig_all[i]->as : NULL;

		if (as && as->backend == inode)
			as->disk_size =
				slu_min(slu_max(disk_size, as->disk_size), slu_aspace_size(as));
	}
}

static inline void rig_init(struct rig *r, const struct rig_opts *o)
{
	static const struct slu_aspace_owner owner = {.pin = rig_pin, .unpin = rig_unpin};
	static const struct slu_iomap_owner backend_owner = {.record_done = rig_record_done};
	uint64_t nblocks = o->nblocks ? o->nblocks : 8192;
	struct slu_blockio_opts bopts = {.lock = SLU_LOCK_NONE};
	struct slu_cache_opts copts = {.bytes = o->cache_bytes ? o->cache_bytes : 4u << 20};
	struct slu_writeback_opts wopts = {
		.nthreads = o->nthreads,
		.dirty_age_ns = o->age_ns ? o->age_ns : 3600 * SLU_NS_PER_SEC,
		.events = {.post = rig_event, .ctx = r},
	};

	memset(r, 0, sizeof(*r));
	r->disk = slu_simdisk_new(nblocks + 1, 1);
	must(r->disk);
	slu_simdisk_latency(r->disk, o->latency_ns);
	slu_simdisk_inline(r->disk, o->is_inline);
	bopts.sim = r->disk;
	must_eq(slu_blockio_open("sim", &bopts, &r->bio), 0);
	must_eq(slu_cache_new(&copts, &r->cache), 0);
	must_eq(slu_writeback_new(r->cache, r->bio, &wopts, &r->wb), 0);
	slu_mem_backend_init(&r->mem, nblocks);
	must_eq(slu_mem_inode_new(&r->mem, 7, &r->inode), 0);
	slu_aspace_init(&r->as, r->cache, r->wb, slu_mem_inode_iomap(r->inode), &owner, 7, 0, 0);
	for (size_t i = 0; i < slu_array_size(rig_all); i++) {
		if (!rig_all[i]) {
			rig_all[i] = r;
			break;
		}
	}
	r->as.backend->owner = &backend_owner;
}

/* Writeback must be at rest: nothing dirty, or too little and too young for it to have begun. */
static inline void rig_check(struct rig *r)
{
	bool reading;

	/* A reader goes on at the first page that is there, or is not, while the read still ends.
	 */
	do {
		slu_mutex_lock(&r->as.tags);
		reading = r->as.nreads;
		slu_mutex_unlock(&r->as.tags);
		if (reading)
			slu_sleep_ns(10000);
	} while (reading);
	must_eq(slu_cache_check(r->cache, stderr), 0);
}

/* Ends it; the result of the last writeback. Nothing may be left behind anywhere. */
static inline int rig_fini(struct rig *r)
{
	int err;

	err = slu_writeback_free(r->wb);
	r->as.wb = NULL;
	rig_check(r);
	must_eq(atomic_load(&r->npins), 0);
	slu_aspace_fini(&r->as);
	for (size_t i = 0; i < slu_array_size(rig_all); i++)
		if (rig_all[i] == r)
			rig_all[i] = NULL;
	must_eq(r->mem.reserved, 0);
	slu_mem_inode_free(r->inode);
	slu_mem_backend_fini(&r->mem);
	slu_cache_free(r->cache);
	slu_blockio_close(r->bio);
	slu_simdisk_free(r->disk);
	return err;
}

/* ------------------------------------------------------------------ operations */

/* The need form of slu_write, waiting as a worker would that does not park. */
static inline int rig_write_flags(struct rig *r, uint64_t pos, const void *buf, uint64_t len,
				  unsigned int flags, struct slu_write_result *ret)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
	struct slu_source_buffer src;
	struct slu_write_result part;
	struct slu_need need;
	int err;

	slu_source_buffer_init(&src, &iov, 1);
	*ret = (struct slu_write_result){0};
	do {
		err = slu_write(&r->as, &src.source, pos + ret->done, len - ret->done, flags, &part,
				&need);
		ret->done += part.done;
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}

static inline void rig_write(struct rig *r, uint64_t pos, const void *buf, uint64_t len)
{
	struct slu_write_result res;

	must_eq(rig_write_flags(r, pos, buf, len, 0, &res), 0);
	must_eq(res.done, len);
}

/* Reads and copies out; returns how many bytes, or the error. */
static inline int64_t rig_read_ahead(struct rig *r, uint64_t pos, void *buf, uint64_t len,
				     unsigned int ahead)
{
	struct slu_read_vec v;
	uint64_t done = 0;
	int err = slu_read(&r->as, r->bio, pos, len, ahead, &v);

	if (err)
		return err;
	for (int i = 0; i < v.niov; i++) {
		memcpy((char *)buf + done, v.iov[i].iov_base, v.iov[i].iov_len);
		done += v.iov[i].iov_len;
	}
	must_eq(done, v.len);
	slu_read_done(&v);
	return (int64_t)done;
}

static inline int64_t rig_read(struct rig *r, uint64_t pos, void *buf, uint64_t len)
{
	return rig_read_ahead(r, pos, buf, len, 0);
}

/* A second file on the same cache and backend, with nobody to pin it. */
struct rig_file {
	struct slu_mem_inode *inode;
	struct slu_aspace as;
};

static inline void rig_file_init(struct rig *r, struct rig_file *f, uint64_t ino)
{
	must_eq(slu_mem_inode_new(&r->mem, ino, &f->inode), 0);
	slu_aspace_init(&f->as, r->cache, r->wb, slu_mem_inode_iomap(f->inode), NULL, ino, 0, 0);
}

static inline void rig_file_fini(struct rig_file *f)
{
	slu_aspace_fini(&f->as);
	slu_mem_inode_free(f->inode);
}

/* With as->lock held for each try, as truncate and punch do. */
struct rig_cut {
	struct rig *r;
	uint64_t size;
	int err;
};

static inline int rig_set_size(void *arg, struct slu_need *need)
{
	struct rig_cut *cut = arg;

	if (!cut->err)
		slu_aspace_set_size(&cut->r->as, cut->size);
	return cut->err;
}

static inline int rig_remove_blocks(void *arg, uint64_t *pos, uint64_t end, struct slu_need *need)
{
	struct rig *r = arg;
	struct slu_iomap_inode *b = r->as.backend;
	uint64_t disk_size;
	int err = 0;

	slu_mutex_lock(&b->lock);
	disk_size = r->as.disk_size;
	slu_mutex_unlock(&b->lock);
	if (*pos >= end)
		return 0;
	do {
		err = b->ops->remove(b, *pos, end - *pos, disk_size, need);
	} while (err > 0);
	if (!err)
		*pos = end;
	return err;
}

static inline int rig_remove_pages(struct rig *r, uint64_t pos, uint64_t end)
{
	struct rig_cut cut = {.r = r, .size = pos};
	struct slu_need need;
	int err;

	do {
		slu_rwlock_wrlock(&r->as.lock);
		if (end == UINT64_MAX && pos > slu_aspace_size(&r->as)) {
			/* Another truncate came first; this one would let the file grow. */
			slu_rwlock_wrunlock(&r->as.lock);
			return 0;
		}
		if (end == UINT64_MAX)
			err = slu_pages_truncate(&r->as, r->bio, pos, rig_set_size, &cut, &need);
		else
			err = slu_pages_remove(&r->as, r->bio, &pos, &end, rig_remove_blocks, r,
					       &need);
		if (!err && end == UINT64_MAX) {
			/* Still in the same section: the blocks go with the pages. */
			struct slu_iomap_inode *b = r->as.backend;

			slu_mutex_lock(&b->lock);
			r->as.disk_size = slu_min(r->as.disk_size, pos);
			slu_mutex_unlock(&b->lock);
			pos = slu_round_up(pos, PAGE);
			err = rig_remove_blocks(r, &pos, end, NULL);
		}
		slu_rwlock_wrunlock(&r->as.lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}

static inline int rig_truncate(struct rig *r, uint64_t size)
{
	struct slu_need need;
	int err;

	do {
		slu_rwlock_wrlock(&r->as.lock);
		if (size <= slu_aspace_size(&r->as)) {
			slu_rwlock_wrunlock(&r->as.lock);
			return rig_remove_pages(r, size, UINT64_MAX);
		}
		err = slu_pages_zero_tail(&r->as, r->bio, slu_aspace_size(&r->as), &need);
		if (!err)
			slu_aspace_set_size(&r->as, size);
		slu_rwlock_wrunlock(&r->as.lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}

static inline int rig_punch(struct rig *r, uint64_t pos, uint64_t end)
{
	return rig_remove_pages(r, pos, end);
}

static inline uint64_t rig_disk_size(struct rig *r)
{
	uint64_t disk_size;

	slu_mutex_lock(&r->as.backend->lock);
	disk_size = r->as.disk_size;
	slu_mutex_unlock(&r->as.backend->lock);
	return disk_size;
}

static inline int rig_sync(struct rig *r)
{
	int err = slu_writeback_range(r->wb, &r->as, 0, UINT64_MAX);

	/* And the inode's own record, as fsync does. */
	slu_mutex_lock(&r->as.backend->lock);
	r->as.disk_size = slu_aspace_synced(&r->as);
	slu_mutex_unlock(&r->as.backend->lock);
	return err;
}

/* Throws the clean pages away, so that what is read next comes from the disk. */
static inline void rig_drop_clean(struct rig *r)
{
	slu_rwlock_wrlock(&r->as.lock);
	must(!slu_aspace_dirty(&r->as));
	must_eq(slu_pages_drop(&r->as, 0, UINT64_MAX), 0);
	slu_rwlock_wrunlock(&r->as.lock);
}

/* Bytes that tell their place and a generation. */
static inline void rig_pattern(void *buf, uint64_t pos, uint64_t len, uint32_t generation)
{
	unsigned char *p = buf;

	for (uint64_t i = 0; i < len; i++) {
		uint64_t x = (pos + i) * 0x9e3779b97f4a7c15ull + generation * 0xbf58476d1ce4e5b9ull;

		p[i] = (unsigned char)(x >> 56) | 1;
	}
}

#endif
