/* SPDX-License-Identifier: MIT */
/*
 * A file without a filesystem: an inode of the backend in memory with pages in the cache, and
 * beside it a plain array that says what it must hold.
 *
 * Written by one thread, read by all. Its pages stay in memory: nothing is written back, so that
 * what is locked and waited for is what the lab is about and nothing else.
 */
#include "lab_private.h"
#include <errno.h>
#include <string.h>

#define HAD_MAX 7u

bool lab_file_had(const struct lab_file *f, uint64_t pos, uint8_t value)
{
	uint64_t had = atomic_load_explicit(&f->had[pos], memory_order_relaxed);

	for (unsigned int i = 0; i < had >> 56; i++)
		if ((uint8_t)(had >> (8 * i)) == value)
			return true;
	return false;
}

void lab_file_will_have(struct lab_file *f, uint64_t pos, uint8_t value)
{
	uint64_t had = atomic_load_explicit(&f->had[pos], memory_order_relaxed);
	uint64_t n = had >> 56;

	if (lab_file_had(f, pos, value))
		return;
	slu_assert(n < HAD_MAX);
	had &= ~(0xffull << 56);
	had |= (uint64_t)value << (8 * n) | (n + 1) << 56;
	/* Seen no later than the byte itself: the page is published with a lock after this. */
	atomic_store_explicit(&f->had[pos], had, memory_order_relaxed);
}

/* A byte that tells its file and its place; 0 is what holes are made of. */
static uint8_t pattern(uint32_t file, uint64_t pos)
{
	uint64_t x = (pos + 1) * 0x9e3779b97f4a7c15ull ^ (file + 1) * 0xbf58476d1ce4e5b9ull;

	return (uint8_t)((x >> 32) * 0x94d049bbull >> 24) | 1;
}

int64_t lab_file_write(struct lab_file *f, uint64_t pos, const void *buf, uint64_t len)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
	struct slu_source_buffer src;
	struct slu_write_result res;
	int err;

	slu_source_buffer_init(&src, &iov, 1);
	err = slu_write(&f->as, &src.source, pos, len, 0, &res, NULL);
	return err ? err : (int64_t)res.done;
}

int64_t lab_file_read(struct slu_lab *lab, struct lab_file *f, uint64_t pos, void *buf,
		      uint64_t len)
{
	struct slu_read_vec v;
	uint64_t done = 0;
	int err = slu_read(&f->as, lab->bio, pos, len, 0, &v);

	if (err)
		return err;
	for (int i = 0; i < v.niov; i++) {
		memcpy((char *)buf + done, v.iov[i].iov_base, v.iov[i].iov_len);
		done += v.iov[i].iov_len;
	}
	slu_read_done(&v);
	return (int64_t)done;
}

struct cut {
	struct slu_aspace *as;
	uint64_t size;
};

static int cut_size(void *arg, struct slu_need *need)
{
	struct cut *cut = arg;

	slu_aspace_set_size(cut->as, cut->size);
	return 0;
}

/* One section: pages, size and space go together. */
static int shrink_locked(struct slu_lab *lab, struct lab_file *f, uint64_t size,
			 struct slu_need *need)
{
	struct slu_iomap_inode *b = f->as.backend;
	uint64_t from = slu_round_up(size, LAB_PAGE);
	struct cut cut = {&f->as, size};
	int err = slu_pages_truncate(&f->as, lab->bio, size, cut_size, &cut, need);

	if (err)
		return err;
	do {
		err = b->ops->remove(b, from, UINT64_MAX - from, 0, NULL);
	} while (err > 0);
	return err;
}

static int grow_locked(struct slu_lab *lab, struct lab_file *f, uint64_t size,
		       struct slu_need *need)
{
	int err = slu_pages_zero_tail(&f->as, lab->bio, slu_aspace_size(&f->as), need);

	if (!err)
		slu_aspace_set_size(&f->as, size);
	return err;
}

int lab_file_truncate(struct slu_lab *lab, struct lab_file *f, uint64_t size)
{
	struct slu_need need;
	int err;

	do {
		slu_rwlock_wrlock(&f->as.lock);
		err = size > slu_aspace_size(&f->as) ? grow_locked(lab, f, size, &need)
						     : shrink_locked(lab, f, size, &need);
		slu_rwlock_wrunlock(&f->as.lock);
	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
	return err;
}

static bool is_hole(uint32_t file, uint32_t page)
{
	return page == SLU_LAB_HOLE_PAGE || (page > SLU_LAB_HOLE_PAGE && (page + file) % 3 == 0);
}

int lab_file_init(struct slu_lab *lab, uint32_t i)
{
	struct lab_file *f = &lab->files[i];
	size_t size = lab->opts.npages * LAB_PAGE;

	f->shadow = slu_alloc(size);
	f->first = slu_alloc(size);
	f->had = slu_alloc(size * sizeof(uint64_t));
	f->had_first = slu_alloc(size * sizeof(uint64_t));
	if (!f->shadow || !f->first || !f->had || !f->had_first)
		return -ENOMEM;
	for (uint64_t pos = 0; pos < size; pos++) {
		f->first[pos] = is_hole(i, (uint32_t)(pos / LAB_PAGE)) ? 0 : pattern(i, pos);
		f->had_first[pos] = f->first[pos] | 1ull << 56;
	}
	return 0;
}

void lab_file_fini(struct slu_lab *lab, uint32_t i)
{
	struct lab_file *f = &lab->files[i];

	slu_free(f->shadow);
	slu_free(f->first);
	slu_free((void *)f->had);
	slu_free(f->had_first);
}

int lab_file_begin(struct slu_lab *lab, uint32_t i)
{
	struct lab_file *f = &lab->files[i];
	size_t size = lab->opts.npages * LAB_PAGE;
	int err = slu_mem_inode_new(&lab->mem, i + 1, &f->inode);

	if (err)
		return err;
	slu_aspace_init(&f->as, lab->cache, lab->wb, slu_mem_inode_iomap(f->inode), NULL, i + 1, 0,
			0);
	memcpy(f->shadow, f->first, size);
	memcpy((void *)f->had, f->had_first, size * sizeof(uint64_t));
	for (uint32_t page = 0; page < lab->opts.npages && !err; page++) {
		uint64_t pos = page * LAB_PAGE;

		if (!is_hole(i, page) &&
		    lab_file_write(f, pos, f->first + pos, LAB_PAGE) != (int64_t)LAB_PAGE)
			err = -EIO;
	}
	if (!err)
		err = lab_file_truncate(lab, f, size);
	if (err)
		lab_file_end(lab, i);
	return err;
}

void lab_file_end(struct slu_lab *lab, uint32_t i)
{
	struct lab_file *f = &lab->files[i];

	if (!f->inode)
		return;
	if (lab_file_truncate(lab, f, 0))
		slu_mem_inode_forget(f->inode);
	slu_aspace_fini(&f->as);
	slu_mem_inode_free(f->inode);
	f->inode = NULL;
}
