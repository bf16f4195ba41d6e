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

/* Each fault in reading is good for SIM_READ_FAULTS errors at most. */
static int read_at_last(struct sim_run *run, uint64_t ino, uint8_t *data, uint64_t *ret_size)
{
	int err = -EIO;

	sim_let_read(run, true);
	for (unsigned int i = 0; i <= SIM_READ_FAULTS && err == -EIO; i++)
		err = sim_read_file(run->fs, ino, data, SIM_MAX_SIZE, ret_size);
	sim_let_read(run, false);
	return err;
}

/*
 * What has failed may have been done in part; how far is asked, since it is what is there now that
 * matters from here on. `resized`: the operation would have set the size in a batch, where others
 * let it follow the data.
 */
static void learn(struct sim_run *run, struct sim_file *f, bool resized)
{
	static uint8_t data[SIM_MAX_SIZE];
	uint64_t size;
	int err = read_at_last(run, f->ino, data, &size);

	if (err) {
		sim_text_add(&run->complaint, "inode %lu cannot be read: %s\n", f->ino,
			     strerror(-err));
		return;
	}
	if (resized && size != sim_file_now(f)->size)
		sim_model_resize(&run->model, f, size);
	sim_model_write(&run->model, f, 0, size, data);
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
	return run->model.op ? slu_simdisk_nrecords(run->disk) : 0;
}

void sim_write_bytes(struct sim_run *run, uint64_t ino, const struct sim_op *op, uint64_t pos,
		     uint64_t len, unsigned int flags)
{
	static uint8_t data[SIM_MAX_SIZE];
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct sim_file *f = sim_model_file(&run->model, ino);
	struct slu_source_buffer src;
	struct slu_write_result res;
	int err;

	if (!len || pos + len > SIM_MAX_SIZE)
		return;
	sim_pattern(data, len, run->w->seed ^ ((uint64_t)op->arg << 32));
	slu_source_buffer_init(&src, &iov, 1);
	err = slu_fs_write(run->fs, &run->ctx, ino, UINT64_MAX, &src.source, pos, len, flags, false,
			   &res);
	if (res.done)
		sim_model_write(&run->model, f, res.pos, res.done, data);
	else
		learn(run, f, false);
	if (!err && run->w->sync)
		sim_model_promise(&run->model, f, sim_records(run));
}

static int send_piece(struct sim_run *run, uint64_t ino, uint64_t pos, uint64_t end, uint8_t *data)
{
	const unsigned int flags =
		SLU_WRITE_KERNEL_CACHE | SLU_WRITE_KEEP_TIMES | SLU_WRITE_UNORDERED;
	struct iovec iov = {.iov_base = data, .iov_len = end - pos};
	struct slu_source_buffer src;
	struct slu_write_result res;

	slu_source_buffer_init(&src, &iov, 1);
	return slu_fs_write(run->fs, &run->ctx, ino, UINT64_MAX, &src.source, pos, end - pos, flags,
			    false, &res);
}

/*
 * The pages of an append in an order that `arg` chooses. In between, what is there is written out
 * and committed.
 */
static void op_send(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	static uint8_t data[SIM_MAX_SIZE];
	struct sim_file *f = sim_model_file(&run->model, ino);
	uint64_t size = sim_file_now(f)->size, end = size + op->len;
	uint64_t first = size / SLU_BLOCK_SIZE, n = slu_bytes_to_blocks(end) - first;
	uint32_t order = op->arg | 1;
	bool sent[SIM_PAGES] = {false};
	int err = 0;

	if (!op->len || end > SIM_MAX_SIZE)
		return;
	sim_pattern(data, op->len, run->w->seed ^ ((uint64_t)op->arg << 32));
	for (uint64_t left = n, at = order % n; left && !err; at = (at + order) % n) {
		uint64_t from = slu_max(size, (first + at) * SLU_BLOCK_SIZE);
		uint64_t to = slu_min(end, (first + at + 1) * SLU_BLOCK_SIZE);

		order = order * 1664525u + 1013904223u;
		if (sent[at])
			continue;
		sent[at] = true;
		left--;
		err = send_piece(run, ino, from, to, data + (from - size));
		if (!err && order >> 30) {
			write_out(run, ino, 0, SIM_MAX_SIZE);
			slu_store_commit(run->fs->store, slu_store_txid(run->fs->store), true);
		}
	}
	if (err)
		learn(run, f, false);
	else
		sim_model_write(&run->model, f, size, op->len, data);
}

static void op_write(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	uint64_t size = sim_file_now(sim_model_file(&run->model, ino))->size;
	uint64_t pos = op->pos, end = pos + op->len;

	switch (op->kind) {
	case SIM_SEND:
		op_send(run, op, ino);
		break;
	case SIM_APPEND:
		sim_write_bytes(run, ino, op, size, op->len, 0);
		break;
	case SIM_DIRECT:
		pos = slu_round_down(pos, 512);
		sim_write_bytes(run, ino, op, pos, slu_round_up(op->len, 512), SLU_WRITE_WHOLE);
		break;
	case SIM_MMAP:
		pos = slu_round_down(pos, SLU_BLOCK_SIZE);
		end = slu_min(slu_round_up(end, SLU_BLOCK_SIZE), size);
		if (pos < end)
			sim_write_bytes(run, ino, op, pos, end - pos, SLU_WRITE_KERNEL_CACHE);
		break;
	default:
		sim_write_bytes(run, ino, op, pos, op->len, 0);
	}
}

static void op_truncate(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	struct sim_file *f = sim_model_file(&run->model, ino);
	uint64_t size = slu_min((uint64_t)op->pos, SIM_MAX_SIZE);
	struct slu_attr attr;

	if (slu_fs_truncate(run->fs, &run->ctx, ino, size, false, &attr))
		learn(run, f, true);
	else
		sim_model_resize(&run->model, f, size);
}

static void op_fallocate(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	static const int modes[] = {
		[SIM_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		[SIM_ZERO] = FALLOC_FL_ZERO_RANGE,
		[SIM_ZERO_KEEP] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		[SIM_FALLOC] = 0,
		[SIM_FALLOC_KEEP] = FALLOC_FL_KEEP_SIZE,
	};
	int mode = modes[op->kind];
	struct sim_file *f = sim_model_file(&run->model, ino);
	uint64_t len = slu_max(op->len, 1u), end = op->pos + len;

	if (end > SIM_MAX_SIZE)
		return;
	if (slu_fs_fallocate(run->fs, &run->ctx, ino, mode, op->pos, len)) {
		learn(run, f, true);
		return;
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		sim_model_clear(&run->model, f, op->pos, len, op->kind == SIM_PUNCH);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > sim_file_now(f)->size)
		sim_model_resize(&run->model, f, end);
}

static void op_fsync(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	if (!slu_fs_fsync(run->fs, &run->ctx, ino, UINT64_MAX, op->kind == SIM_FDATASYNC))
		sim_model_promise(&run->model, sim_model_file(&run->model, ino), sim_records(run));
}

static void op_open(struct sim_run *run, uint64_t ino)
{
	if (run->nopen == slu_array_size(run->open_fh))
		return;
	if (!slu_fs_open(run->fs, &run->ctx, ino, O_RDWR, &run->open_fh[run->nopen]))
		run->open_ino[run->nopen++] = ino;
}

void sim_op_on_file(struct sim_run *run, const struct sim_op *op)
{
	struct sim_place at;

	if (!sim_find_place(run, op->dir, op->name, &at) || !at.entry)
		return;
	if (op->kind == SIM_FSYNC || op->kind == SIM_FDATASYNC) {
		op_fsync(run, op, at.entry->ino);
		return;
	}
	if (!S_ISREG(at.node->mode))
		return;
	if (op->kind == SIM_OPEN)
		op_open(run, at.entry->ino);
	else if (op->kind == SIM_WRITEBACK)
		write_out(run, at.entry->ino, op->pos, op->pos + op->len);
	else if (op->kind == SIM_TRUNCATE)
		op_truncate(run, op, at.entry->ino);
	else if (op->kind >= SIM_PUNCH && op->kind <= SIM_FALLOC_KEEP)
		op_fallocate(run, op, at.entry->ino);
	else
		op_write(run, op, at.entry->ino);
}
