/* SPDX-License-Identifier: MIT */
/*
 * What comes between: writeback and eviction in the middle of a write, a truncate under a run, a size
 * that overtakes the zeros before it, a reader in the middle of a punch. Neither may bytes change that
 * nobody wrote, nor may any come back.
 */
#include "fs_rig.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <semaphore.h>

#define PAGE ((uint64_t)SLU_BLOCK_SIZE)

static struct slu_inode *hold(struct rig *r, uint64_t ino)
{
	struct slu_inode *inode;

	assert_int_equal(slu_inode_get(r->fs->ns, ino, &inode), 0);
	return inode;
}

static uint64_t open_it(struct rig *r, uint64_t ino)
{
	uint64_t fh;

	assert_int_equal(slu_fs_open(r->fs, &r->ctx, ino, O_RDWR, &fh), 0);
	return fh;
}

static void sync_it(struct rig *r, uint64_t ino, uint64_t fh)
{
	assert_int_equal(slu_fs_fsync(r->fs, &r->ctx, ino, fh, false), 0);
}

static void truncate_it(struct rig *r, uint64_t ino, uint64_t size)
{
	struct slu_attr attr;

	assert_int_equal(slu_fs_truncate(r->fs, &r->ctx, ino, size, false, &attr), 0);
}

/* ------------------------------------------------------------------ in the middle of a write */

/* A source that, when it is first copied from, has the file written out and thrown out of memory. */
struct interrupted {
	struct slu_source source;
	struct rig *r;
	struct slu_inode *inode;
	const uint8_t *data;
	size_t at;
	bool once;
	sem_t go, done;
	struct slu_thread thread;
};

static void write_out_and_evict(void *arg)
{
	struct interrupted *s = arg;
	struct slu_cache *c = s->r->fs->cache;
	struct slu_frames all[300];
	unsigned int n = 0;
	struct slu_need need;

	sem_wait(&s->go);
	assert_int_equal(slu_writeback_range(s->r->fs->wb, &s->inode->data, 0, UINT64_MAX), 0);
	while (s->inode->data.npages && n < slu_array_size(all)) {
		all[n] = (struct slu_frames)SLU_FRAMES_INIT(c);
		/* A quarter of all that there is, and then by the few. */
		(void)slu_frames_claim(&all[n], n < 3 ? slu_cache_max_claim(c) : 16, 0, 0, &need);
		n++;
	}
	while (n)
		slu_frames_release(&all[--n]);
	assert_int_equal(s->inode->data.npages, 0);
	sem_post(&s->done);
}

static size_t copy_interrupted(struct slu_source *source, void *dst, size_t len)
{
	struct interrupted *s = (struct interrupted *)source;

	if (!s->once) {
		s->once = true;
		sem_post(&s->go);
		sem_wait(&s->done);
	}
	memcpy(dst, s->data + s->at, len);
	s->at += len;
	return len;
}

static int fault_none(struct slu_source *source, size_t len)
{
	return -ENODATA;
}

/* The last page is written in part; what its rest is, is asked when it has its turn. */
static void a_page_that_leaves_memory_meanwhile_keeps_its_rest(void **state)
{
	static const struct slu_source_ops ops = {copy_interrupted, fault_none};
	struct rig *r = *state;
	uint64_t ino = make_file(r, "file");
	uint8_t old[2 * PAGE], new[PAGE + 100], back[2 * PAGE];
	struct interrupted s = {.source.ops = &ops, .r = r, .data = new};
	struct slu_write_result result;

	memset(old, 'o', sizeof(old));
	memset(new, 'n', sizeof(new));
	write_at(r, ino, 0, old, sizeof(old));
	s.inode = hold(r, ino);
	sem_init(&s.go, 0, 0);
	sem_init(&s.done, 0, 0);
	assert_int_equal(slu_thread_start(&s.thread, "evict", write_out_and_evict, &s), 0);
	assert_int_equal(slu_write(&s.inode->data, &s.source, 0, sizeof(new), 0, &result, NULL), 0);
	slu_thread_join(&s.thread);
	slu_inode_put(s.inode);
	assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
	memcpy(old, new, sizeof(new));
	assert_memory_equal(back, old, sizeof(old));
	sem_destroy(&s.go);
	sem_destroy(&s.done);
}

/* ------------------------------------------------------------------ in the middle of a copy */

struct late {
	struct rig *r;
	uint64_t ino;
	unsigned int spin;
	_Atomic bool go;
	struct slu_thread thread;
};

static void write_behind(void *arg)
{
	struct late *l = arg;
	struct slu_ctx ctx = {.may_wait = true};
	struct iovec iov = {"z", 1};
	struct slu_source_buffer src;
	struct slu_write_result result;

	while (!atomic_load(&l->go))
		;
	for (volatile unsigned int i = 0; i < l->spin; i++)
		;
	slu_source_buffer_init(&src, &iov, 1);
	assert_int_equal(slu_fs_write(l->r->fs, &ctx, l->ino, UINT64_MAX, &src.source, 10 * MIB, 1,
				      SLU_WRITE_KERNEL_CACHE, false, &result),
			 0);
}

/* A hole is copied by making the target longer, and never shorter. */
static void a_copy_cuts_nothing_off(void **state)
{
	struct rig *r = *state;
	uint64_t in = make_file(r, "in"), done;

	write_at(r, in, 2 * MIB, "i", 1);
	assert_int_equal(slu_fs_sync(r->fs), 0);
	for (unsigned int i = 0; i < 1500; i++) {
		struct late l = {.r = r, .ino = make_file(r, "out"), .spin = i * 37 % 4000};

		assert_int_equal(slu_thread_start(&l.thread, "late", write_behind, &l), 0);
		atomic_store(&l.go, true);
		assert_int_equal(slu_fs_copy_range(r->fs, &r->ctx, in, 0, l.ino, 0, 2 * MIB + 1,
						   &done),
				 0);
		slu_thread_join(&l.thread);
		assert_int_equal(size_of(r, l.ino), 10 * MIB + 1);
		assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "out"), 0);
		slu_ns_forget(r->fs->ns, l.ino, UINT64_MAX);
	}
}

/* ------------------------------------------------------------------ before a power cut */

static void commit(struct rig *r)
{
	assert_int_equal(slu_store_commit(r->fs->store, slu_store_txid(r->fs->store), true), 0);
}

/* After a cut: what lies behind `end`, if the file has it, is zeros up to where y was written. */
static void expect_zeros_behind(struct rig *r, uint64_t end)
{
	static uint8_t back[16 * PAGE];
	size_t n;

	cut_power(r, 1);
	mount_rig(r, false);
	n = read_at(r, find_file(r, "file"), 0, back, sizeof(back));
	for (size_t i = end; i < n; i++) {
		if (back[i] && back[i] != 'y')
			fail_msg("size %zu, byte %zu is %u", n, i, back[i]);
	}
}

/* 2 pages on disk, cut to 5,000 bytes. */
static uint64_t make_cut_file(struct rig *r, uint64_t *fh)
{
	static uint8_t data[2 * PAGE];
	uint64_t ino = make_file(r, "file");

	memset(data, 'a', sizeof(data));
	write_at(r, ino, 0, data, sizeof(data));
	*fh = open_it(r, ino);
	sync_it(r, ino, *fh);
	return ino;
}

/* The page with the old end is dirty by a write below it; its zeros go first all the same. */
static void zeros_before_a_new_end_go_before_the_size(void **state)
{
	struct rig *r = *state;
	uint64_t fh, ino = make_cut_file(r, &fh);
	struct slu_simdisk_fault fault = {.op = SLU_IO_WRITE,
					  .nblocks = 1,
					  .nth = 1,
					  .times = UINT64_MAX,
					  .kind = SLU_FAULT_ERROR};
	struct slu_inode *inode;
	struct slu_iomap map;

	truncate_it(r, ino, 5000);
	sync_it(r, ino, fh);
	inode = hold(r, ino);
	assert_int_equal(inode->vol.iomap.ops->map(&inode->vol.iomap, PAGE, PAGE, &map, NULL), 0);
	assert_int_equal(map.type, SLU_IOMAP_MAPPED);
	slu_inode_put(inode);
	write_at(r, ino, 4100, "x", 1);
	write_at(r, ino, 20000, "y", 1);
	fault.blkno = map.blkno;
	slu_simdisk_fault(r->disk, &fault);
	assert_int_equal(slu_fs_sync(r->fs), -EIO);
	slu_fs_release(r->fs, ino, fh);
	expect_zeros_behind(r, 5000);
}

static void write_out(void *arg)
{
	struct interrupted *s = arg;

	(void)slu_writeback_range(s->r->fs->wb, &s->inode->data, 0, UINT64_MAX);
}

struct resizing {
	struct rig *r;
	uint64_t ino;
	struct slu_thread thread;
};

static void cut_and_grow(void *arg)
{
	struct resizing *s = arg;

	truncate_it(s->r, s->ino, 5000);
	write_at(s->r, s->ino, 9000, "y", 1);
}

/* A run knows the size that was; what it has written is not the file's any more. */
static void a_truncate_under_a_run_is_not_undone(void **state)
{
	struct rig *r = *state;
	uint64_t fh, ino = make_cut_file(r, &fh);
	struct interrupted s = {.r = r, .inode = hold(r, ino)};
	struct resizing cut = {.r = r, .ino = ino};
	static uint8_t data[2 * PAGE];

	memset(data, 'b', sizeof(data));
	write_at(r, ino, 0, data, sizeof(data));
	slu_blockio_suspend(r->fs->bio); /* a slow disk */
	assert_int_equal(slu_thread_start(&s.thread, "writeback", write_out, &s), 0);
	while (!slu_pages_writeback(&s.inode->data, 0, 2))
		slu_sleep_ns(SLU_NS_PER_MS);
	assert_int_equal(slu_thread_start(&cut.thread, "truncate", cut_and_grow, &cut), 0);
	slu_sleep_ns(50 * SLU_NS_PER_MS);
	slu_blockio_resume(r->fs->bio);
	slu_thread_join(&cut.thread);
	slu_thread_join(&s.thread);
	commit(r);
	slu_inode_put(s.inode);
	slu_fs_release(r->fs, ino, fh);
	expect_zeros_behind(r, 5000);
}

/* ------------------------------------------------------------------ in the middle of a punch */

#define NPAGES 600u

struct reader {
	struct rig *r;
	uint64_t ino;
	_Atomic bool stop;
	_Atomic uint64_t nreads;
	uint64_t nfailed, nold;
	struct slu_thread thread;
};

/* What is dirty is 'd', what is punched 0; what the disk had before is neither. */
static void read_on(void *arg)
{
	struct reader *d = arg;
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_read_vec v;

	for (uint64_t i = 0; !atomic_load(&d->stop); i++) {
		int err = slu_fs_read(d->r->fs, &ctx, d->ino, UINT64_MAX, i % NPAGES * PAGE, 1,
				      false, &v);

		atomic_fetch_add(&d->nreads, 1);
		d->nfailed += err != 0;
		if (err)
			continue;
		d->nold += v.niov && *(const char *)v.iov[0].iov_base == 'o';
		slu_read_done(&v);
	}
}

static void punch_beside_a_reader(struct rig *r, int mode, bool on_disk)
{
	uint64_t ino = make_file(r, "file");
	struct reader d = {.r = r, .ino = ino};
	static uint8_t page[PAGE];
	unsigned int step = on_disk ? 1 : 2;

	for (unsigned int round = 0; round < 30; round++) {
		memset(page, 'o', sizeof(page));
		for (unsigned int i = 0; i < NPAGES && on_disk; i += 2)
			write_at(r, ino, i * PAGE, page, sizeof(page));
		if (on_disk)
			assert_int_equal(slu_fs_sync(r->fs), 0);
		memset(page, 'd', sizeof(page));
		for (unsigned int i = 0; i < NPAGES; i += step)
			write_at(r, ino, i * PAGE, page, sizeof(page));
		atomic_store(&d.stop, false);
		atomic_store(&d.nreads, 0);
		assert_int_equal(slu_thread_start(&d.thread, "reader", read_on, &d), 0);
		while (!atomic_load(&d.nreads))
			slu_sleep_ns(SLU_NS_PER_MS / 8);
		assert_int_equal(slu_fs_fallocate(r->fs, &r->ctx, ino, mode, 0, NPAGES * PAGE), 0);
		atomic_store(&d.stop, true);
		slu_thread_join(&d.thread);
	}
	assert_int_equal(d.nfailed, 0);
	assert_int_equal(d.nold, 0);
	assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"), 0);
}

static void a_reader_sees_no_half_of_a_punch(void **state)
{
	for (unsigned int on_disk = 0; on_disk < 2; on_disk++) {
		punch_beside_a_reader(*state, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, on_disk);
		punch_beside_a_reader(*state, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, on_disk);
	}
}

/* What it has not come to is what it was, as new as it was. */
static void a_punch_that_fails_has_taken_nothing_but_what_it_has_done(void **state)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	struct rig *r = *state;
	static uint8_t page[PAGE], back[NPAGES * PAGE];
	unsigned int nfailed = 0;

	for (uint64_t nth = 1; nth < 400; nth += 1 + nth / 16) {
		uint64_t ino = make_file(r, "file");
		int err;

		memset(page, 'o', sizeof(page));
		for (unsigned int i = 0; i < NPAGES; i += 2)
			write_at(r, ino, i * PAGE, page, sizeof(page));
		assert_int_equal(slu_fs_sync(r->fs), 0);
		memset(page, 'd', sizeof(page));
		for (unsigned int i = 0; i < NPAGES; i++)
			write_at(r, ino, i * PAGE, page, sizeof(page));
		slu_alloc_fail_nth(nth);
		err = slu_fs_fallocate(r->fs, &r->ctx, ino, modes[nth % 2], 0, NPAGES * PAGE);
		slu_alloc_fail_nth(0);
		assert_true(err == 0 || err == -ENOMEM);
		nfailed += err != 0;
		assert_int_equal(read_at(r, ino, 0, back, sizeof(back)), sizeof(back));
		for (size_t i = 0; i < sizeof(back); i += PAGE)
			assert_true(back[i] == 'd' ? err != 0 : back[i] == 0);
		assert_int_equal(slu_fs_sync(r->fs), 0);
		assert_int_equal(slu_ns_unlink(r->fs->ns, &r->ctx, SLU_INO_ROOT, "file"), 0);
		slu_ns_forget(r->fs->ns, ino, UINT64_MAX);
	}
	assert_true(nfailed > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_CASE(a_page_that_leaves_memory_meanwhile_keeps_its_rest),
		RIG_CASE(a_copy_cuts_nothing_off),
		RIG_CASE(zeros_before_a_new_end_go_before_the_size),
		RIG_CASE(a_truncate_under_a_run_is_not_undone),
		RIG_CASE(a_reader_sees_no_half_of_a_punch),
		RIG_CASE(a_punch_that_fails_has_taken_nothing_but_what_it_has_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
