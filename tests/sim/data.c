/* SPDX-License-Identifier: MIT */
/*
 * Operations on one file: its bytes, its size, its blocks, and what makes them durable.
 */
#include "sim.h"
#include <fcntl.h>
#include <linux/falloc.h>

void sim_pattern(uint8_t *buf, size_t len, uint64_t seed)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < len; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		/* no byte of it is 0: those are nobody's */
		uint64_t word = x | 0x0101010101010101ull;
		memcpy(buf + i, &word, slu_min(len - i, (size_t)8));
	}
}

/* ------------------------------------------------------------------ data */

/*
 * What is there after an operation that has failed, into t->left. Each fault in reading is good for
 * SIM_READ_FAULTS errors at most. False: nothing can be said, since the other thread has deleted it.
 */
static bool read_left(struct sim_task *t, const struct sim_file *f, uint64_t *ret_size)
{
	struct sim_run *run = t->run;
	int err = -EIO;

	sim_let_read(run, true);
	for (unsigned int i = 0; i <= SIM_READ_FAULTS && err == -EIO; i++)
		err = sim_read_file(run->fs, f->ino, t->left, sizeof(t->left), ret_size);
	sim_let_read(run, false);
	if (err && !(run->w->threads && (err == -ENOENT || err == -ESTALE)))
		sim_text_add(&run->complaint, "inode %lu cannot be read: %s\n", f->ino,
			     strerror(-err));
	return !err;
}

static bool size_left(struct sim_task *t, const struct sim_file *f, uint64_t size, uint64_t other)
{
	uint64_t old = sim_file_now(f)->size;

	if (size == old || size == other)
		return true;
	sim_text_add(&t->run->complaint,
		     "inode %lu: what failed left a size of %lu, which was %lu and would have been "
		     "%lu\n",
		     f->ino, size, old, other);
	return false;
}

/* The first byte from pos on that is not as it was, or end. */
static uint64_t first_changed(const struct sim_task *t, const struct sim_file *f, uint64_t pos,
			      uint64_t end)
{
	const struct sim_file *whole = sim_model_file(&t->run->model, f->ino);

	for (; pos < end; pos++) {
		uint64_t pgidx = pos / SLU_BLOCK_SIZE;
		const uint8_t *page = sim_file_now(f)->page[pgidx];

		/* Pages of the other thread may be changing. */
		if (sim_file_of_page(whole, pgidx) == f &&
		    t->left[pos] != (page ? page[pos % SLU_BLOCK_SIZE] : 0))
			break;
	}
	return slu_min(pos, end);
}

static bool bytes_left(struct sim_task *t, const struct sim_file *f, uint64_t pos, uint64_t end)
{
	uint64_t at = first_changed(t, f, pos, end);
	const uint8_t *page;

	if (at == end)
		return true;
	page = sim_file_now(f)->page[at / SLU_BLOCK_SIZE];
	sim_text_add(&t->run->complaint,
		     "inode %lu: what failed left byte %lu as %#x instead of %#x\n", f->ino, at,
		     t->left[at], page ? page[at % SLU_BLOCK_SIZE] : 0);
	return false;
}

/* What has failed, or its rest, has changed nothing: the file is as the model has it. */
static void expect_unchanged(struct sim_task *t, const struct sim_file *f)
{
	uint64_t size;

	if (read_left(t, f, &size) && size_left(t, f, size, sim_file_now(f)->size))
		bytes_left(t, f, 0, size);
}

/*
 * A truncate or fallocate that has failed may have set the size, or made zeros of what is in some
 * pages of [pos, end). How far it got is asked, since it is what is there now that matters from here
 * on.
 */
static void learn(struct sim_task *t, struct sim_file *f, uint64_t pos, uint64_t end,
		  uint64_t wanted)
{
	static const uint8_t zeros[SLU_BLOCK_SIZE];
	struct sim_model *m = &t->run->model;
	uint64_t old = sim_file_now(f)->size, size, to;

	if (!read_left(t, f, &size) || !size_left(t, f, size, wanted) ||
	    !bytes_left(t, f, 0, slu_min(pos, size)) || !bytes_left(t, f, end, size))
		return;
	for (end = slu_min(end, size); pos < end; pos = to) {
		to = slu_min(slu_round_down(pos, SLU_BLOCK_SIZE) + SLU_BLOCK_SIZE, end);
		if (memcmp(t->left + pos, zeros, to - pos) != 0) {
			if (!bytes_left(t, f, pos, to))
				return;
		} else if (pos < old) {
			sim_model_write(m, f, pos, slu_min(to, old) - pos, NULL);
		}
	}
	if (size != old)
		sim_model_resize(m, f, size);
}

static void write_out(struct sim_run *run, uint64_t ino, uint64_t pos, uint64_t end)
{
	struct slu_inode *inode;

	if (slu_inode_get(run->fs->ns, ino, &inode))
		return;
	slu_writeback_range(run->fs->wb, &inode->data, slu_round_down(pos, SLU_BLOCK_SIZE),
			    slu_round_up(end, SLU_BLOCK_SIZE));
	slu_inode_put(inode);
}

size_t sim_records(struct sim_run *run)
{
	return run->recording ? slu_simdisk_nrecords(run->disk) : 0;
}

/* What a write with -o sync or an fsync that returned 0 promises; last: f->last, from before it. */
static void promise(struct sim_task *t, struct sim_file *f, struct sim_at last)
{
	struct sim_model *m = &t->run->model;

	sim_model_promise(m, f, sim_model_known(m, t->thread), last, sim_records(t->run));
}

void sim_write_bytes(struct sim_task *t, struct sim_file *f, const struct sim_op *op, uint64_t pos,
		     uint64_t len, unsigned int flags)
{
	struct sim_run *run = t->run;
	struct iovec iov = {.iov_base = t->data, .iov_len = len};
	struct sim_at last = f->last;
	struct slu_source_buffer src;
	struct slu_write_result res;
	int err;

	if (!len || pos + len > SIM_MAX_SIZE)
		return;
	sim_pattern(t->data, len, run->w->seed ^ ((uint64_t)op->arg << 32));
	slu_source_buffer_init(&src, &iov, 1);
	err = slu_fs_write(run->fs, &t->ctx, f->ino, UINT64_MAX, &src.source, pos, len, flags,
			   false, &res);
	if (res.done)
		sim_model_write(&run->model, f, pos, res.done, t->data);
	if (err || res.done < len)
		expect_unchanged(t, f);
	if (res.done && res.done < len && flags & (SLU_WRITE_KERNEL_CACHE | SLU_WRITE_WHOLE))
		sim_text_add(&run->complaint, "inode %lu: %lu bytes of a write of %lu at %lu\n",
			     f->ino, res.done, len, pos);
	if (!err && run->w->sync)
		promise(t, f, last);
}

/* 0 or -errno; *ret_done: it has arrived all the same, and may not be durable with -o sync. */
static int send_piece(struct sim_task *t, uint64_t ino, uint64_t pos, uint64_t end, uint8_t *data,
		      bool *ret_done)
{
	const unsigned int flags =
		SLU_WRITE_KERNEL_CACHE | SLU_WRITE_KEEP_TIMES | SLU_WRITE_UNORDERED;
	struct iovec iov = {.iov_base = data, .iov_len = end - pos};
	struct slu_source_buffer src;
	struct slu_write_result res;
	int err;

	slu_source_buffer_init(&src, &iov, 1);
	err = slu_fs_write(t->run->fs, &t->ctx, ino, UINT64_MAX, &src.source, pos, end - pos, flags,
			   false, &res);
	*ret_done = res.done == end - pos;
	return err;
}

static void say_sent(struct sim_task *t)
{
	struct sim_run *run = t->run;

	slu_mutex_lock(&run->turn_lock);
	t->sending = 0;
	t->nsent++;
	slu_cond_broadcast(&run->turn);
	slu_mutex_unlock(&run->turn_lock);
}

/* Of an append that has failed those pages are there that have arrived, with zeros in between. */
static void sent_in_part(struct sim_task *t, struct sim_file *f, const bool *arrived, uint64_t end)
{
	uint64_t size = sim_file_now(f)->size, first = size / SLU_BLOCK_SIZE, last = size;

	for (uint64_t pos = size; pos < end;) {
		uint64_t i = pos / SLU_BLOCK_SIZE;
		uint64_t to = slu_min((i + 1) * SLU_BLOCK_SIZE, end);

		if (arrived[i - first])
			last = to;
		else
			memset(t->data + (pos - size), 0, to - pos);
		pos = to;
	}
	if (last > size)
		sim_model_write(&t->run->model, f, size, last - size, t->data);
	expect_unchanged(t, f);
}

/*
 * The pages of an append in an order that `arg` chooses. In between, what is there is written out
 * and committed.
 */
static void op_send(struct sim_task *t, const struct sim_op *op, struct sim_file *f)
{
	struct sim_run *run = t->run;
	uint64_t size = sim_file_now(f)->size, end = size + op->len;
	uint64_t first = size / SLU_BLOCK_SIZE, n = slu_bytes_to_blocks(end) - first;
	uint32_t order = op->arg | 1;
	bool sent[SIM_PAGES] = {false}, arrived[SIM_PAGES] = {false};
	int err = 0;

	if (!op->len || end > SIM_MAX_SIZE || run->tasks[!t->thread].syncing == f->ino)
		return;
	t->sending = f->ino;
	sim_pattern(t->data, op->len, run->w->seed ^ ((uint64_t)op->arg << 32));
	for (uint64_t left = n, at = order % n; left && !err; at = (at + order) % n) {
		uint64_t from = slu_max(size, (first + at) * SLU_BLOCK_SIZE);
		uint64_t to = slu_min(end, (first + at + 1) * SLU_BLOCK_SIZE);

		order = order * 1664525u + 1013904223u;
		if (sent[at])
			continue;
		sent[at] = true;
		left--;
		err = send_piece(t, f->ino, from, to, t->data + (from - size), &arrived[at]);
		if (!err && order >> 30) {
			write_out(run, f->ino, 0, SIM_MAX_SIZE);
			slu_store_commit(run->fs->store, slu_store_txid(run->fs->store), true);
		}
	}
	say_sent(t);
	if (err)
		sent_in_part(t, f, arrived, end);
	else
		sim_model_write(&run->model, f, size, op->len, t->data);
}

static void op_mmap(struct sim_task *t, const struct sim_op *op, struct sim_file *f, uint64_t pos,
		    uint64_t end)
{
	pos = slu_round_down(pos, SLU_BLOCK_SIZE);
	end = slu_min(slu_round_up(end, SLU_BLOCK_SIZE), sim_file_now(f)->size);
	if (pos < end)
		sim_write_bytes(t, f, op, pos, end - pos, SLU_WRITE_KERNEL_CACHE);
}

/* A page of this thread's own in a file that both write, and no further than its end. */
static void op_shared(struct sim_task *t, const struct sim_op *op, struct sim_file *f)
{
	uint64_t size = sim_file_now(f)->size;
	uint64_t page = op->pos / SLU_BLOCK_SIZE % (size / (2 * SLU_BLOCK_SIZE)) * 2 + f->owner;
	uint64_t pos = page * SLU_BLOCK_SIZE + op->pos % SLU_BLOCK_SIZE;
	uint64_t end = slu_min(pos + op->len, (page + 1) * SLU_BLOCK_SIZE);

	if (op->kind == SIM_MMAP)
		op_mmap(t, op, f, pos, end);
	else if (op->kind == SIM_DIRECT)
		sim_write_bytes(t, f, op, slu_round_down(pos, 512), 512, SLU_WRITE_WHOLE);
	else if (op->kind == SIM_WRITE || op->kind == SIM_APPEND)
		sim_write_bytes(t, f, op, pos, end - pos, 0);
}

static void op_write(struct sim_task *t, const struct sim_op *op, struct sim_file *f)
{
	switch (op->kind) {
	case SIM_SEND:
		op_send(t, op, f);
		break;
	case SIM_APPEND:
		sim_write_bytes(t, f, op, sim_file_now(f)->size, op->len, 0);
		break;
	case SIM_DIRECT:
		sim_write_bytes(t, f, op, slu_round_down(op->pos, 512), slu_round_up(op->len, 512),
				SLU_WRITE_WHOLE);
		break;
	case SIM_MMAP:
		op_mmap(t, op, f, op->pos, op->pos + op->len);
		break;
	default:
		sim_write_bytes(t, f, op, op->pos, op->len, 0);
	}
}

static void op_truncate(struct sim_task *t, const struct sim_op *op, struct sim_file *f)
{
	struct sim_run *run = t->run;
	uint64_t size = slu_min((uint64_t)op->pos, SIM_MAX_SIZE);
	struct slu_attr attr;

	if (slu_fs_truncate(run->fs, &t->ctx, f->ino, size, false, &attr))
		learn(t, f, 0, 0, size);
	else
		sim_model_resize(&run->model, f, size);
}

static void op_fallocate(struct sim_task *t, const struct sim_op *op, struct sim_file *f)
{
	static const int modes[] = {
		[SIM_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		[SIM_ZERO] = FALLOC_FL_ZERO_RANGE,
		[SIM_ZERO_KEEP] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		[SIM_FALLOC] = 0,
		[SIM_FALLOC_KEEP] = FALLOC_FL_KEEP_SIZE,
	};
	struct sim_run *run = t->run;
	int mode = modes[op->kind];
	bool clears = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	uint64_t len = slu_max(op->len, 1u), end = op->pos + len;
	uint64_t size = sim_file_now(f)->size;

	if (end > SIM_MAX_SIZE)
		return;
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		size = slu_max(size, end);
	if (slu_fs_fallocate(run->fs, &t->ctx, f->ino, mode, op->pos, len)) {
		learn(t, f, clears ? op->pos : end, end, size);
		return;
	}
	if (clears)
		sim_model_clear(&run->model, f, op->pos, len, op->kind == SIM_PUNCH);
	if (size > sim_file_now(f)->size)
		sim_model_resize(&run->model, f, size);
}

static void op_fsync(struct sim_task *t, const struct sim_op *op, uint64_t ino)
{
	/* NULL: whoever makes it has not been told that it is there, and no more is promised. */
	struct sim_file *f = sim_model_file(&t->run->model, ino);
	struct sim_at last = f ? f->last : (struct sim_at){0};

	if (t->run->tasks[!t->thread].sending == ino)
		return;
	t->syncing = ino;
	if (!slu_fs_fsync(t->run->fs, &t->ctx, ino, UINT64_MAX, op->kind == SIM_FDATASYNC) && f)
		promise(t, f, last);
	t->syncing = 0;
}

static void op_open(struct sim_task *t, uint64_t ino)
{
	if (t->nopen == slu_array_size(t->open_fh))
		return;
	if (!slu_fs_open(t->run->fs, &t->ctx, ino, O_RDWR, &t->open_fh[t->nopen]))
		t->open_ino[t->nopen++] = ino;
}

/* The bytes of a file are its owner's. */
static void op_on_bytes(struct sim_task *t, const struct sim_op *op, uint64_t ino)
{
	struct sim_file *f = sim_model_file(&t->run->model, ino);
	bool shared = f && f->mate;

	if (shared && t->thread)
		f = f->mate;
	if (!f || f->owner != t->thread)
		return;
	if (shared)
		op_shared(t, op, f);
	else if (op->kind == SIM_TRUNCATE)
		op_truncate(t, op, f);
	else if (op->kind >= SIM_PUNCH && op->kind <= SIM_FALLOC_KEEP)
		op_fallocate(t, op, f);
	else
		op_write(t, op, f);
}

void sim_op_on_file(struct sim_task *t, const struct sim_op *op)
{
	struct sim_place at;

	if (!sim_find_place(t, op->dir, op->name, &at) || !at.found)
		return;
	if (op->kind == SIM_FSYNC || op->kind == SIM_FDATASYNC)
		op_fsync(t, op, at.ino);
	else if (S_ISREG(at.mode) && op->kind == SIM_OPEN)
		op_open(t, at.ino);
	else if (S_ISREG(at.mode) && op->kind == SIM_WRITEBACK)
		write_out(t->run, at.ino, op->pos, op->pos + op->len);
	else if (S_ISREG(at.mode))
		op_on_bytes(t, op, at.ino);
}
