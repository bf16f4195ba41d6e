/* SPDX-License-Identifier: MIT */
/*
 * One operation, on the mounted volume and on the model. What the volume refuses does not happen in
 * the model; whether it should have refused it is for other tests.
 */
#include "sim.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <xxhash.h>

/* From linux/fs.h, which does not go together with sys/mount.h everywhere. */
#define EXCHANGE 2u

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

/* ------------------------------------------------------------------ names */

static bool find_dir(struct sim_run *run, unsigned int dir, uint64_t *ret)
{
	const char *path = sim_dirs[dir];
	uint64_t ino = SLU_INO_ROOT;

	for (; *path; path += strlen(path) > 1 ? 2 : 1) {
		char name[2] = {*path};
		struct sim_entry *e = sim_tree_find(&run->model.tree, ino, name);

		if (!e || !S_ISDIR(sim_tree_node(&run->model.tree, e->ino)->mode))
			return false;
		ino = e->ino;
	}
	*ret = ino;
	return true;
}

struct place {
	uint64_t dir;
	const char *name;
	struct sim_entry *entry; /* NULL: nothing there */
	struct sim_node *node;
};

static bool find_place(struct sim_run *run, unsigned int dir, unsigned int name, struct place *ret)
{
	*ret = (struct place){.name = sim_names[name]};
	if (!find_dir(run, dir, &ret->dir))
		return false;
	ret->entry = sim_tree_find(&run->model.tree, ret->dir, ret->name);
	if (ret->entry)
		ret->node = sim_tree_node(&run->model.tree, ret->entry->ino);
	return true;
}

static void forget(struct sim_run *run, uint64_t ino)
{
	slu_ns_forget(run->fs->ns, ino, 1);
}

static void link_dir(struct sim_run *run, uint64_t dir, int by)
{
	sim_tree_node(&run->model.tree, dir)->nlink += (unsigned int)by;
}

/* A new inode has appeared at a place. */
static void made(struct sim_run *run, const struct place *at, const struct slu_attr *attr)
{
	struct sim_model *m = &run->model;

	sim_tree_add_node(&m->tree, attr->ino, attr->mode);
	sim_tree_add_entry(&m->tree, at->dir, at->name, attr->ino);
	if (S_ISDIR(attr->mode))
		link_dir(run, at->dir, 1);
	sim_model_touch(m, attr->ino);
	sim_model_touch(m, at->dir);
	forget(run, attr->ino);
}

static void op_make(struct sim_run *run, const struct sim_op *op, mode_t mode)
{
	struct slu_attr attr;
	struct place at;

	if (!find_place(run, op->dir, op->name, &at))
		return;
	if (!slu_ns_mknod(run->fs->ns, &run->ctx, at.dir, at.name, mode, 0, &attr))
		made(run, &at, &attr);
}

static void op_symlink(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr;
	struct place at;
	char target[16];

	if (!find_place(run, op->dir, op->name, &at))
		return;
	snprintf(target, sizeof(target), "to-%x", op->arg & 0xffff);
	if (slu_ns_symlink(run->fs->ns, &run->ctx, at.dir, at.name, target, &attr))
		return;
	made(run, &at, &attr);
	snprintf(sim_tree_node(&run->model.tree, attr.ino)->target, 32, "%s", target);
}

static void write_bytes(struct sim_run *run, uint64_t ino, const struct sim_op *op, uint64_t pos,
			uint64_t len, unsigned int flags);

static void op_tmpfile(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr, linked;
	struct place at;

	if (!find_place(run, op->dir, op->name, &at))
		return;
	if (slu_ns_tmpfile(run->fs->ns, &run->ctx, at.dir, 0600, &attr))
		return;
	write_bytes(run, attr.ino, op, op->pos, op->len, 0);
	if (!slu_ns_link(run->fs->ns, &run->ctx, attr.ino, at.dir, at.name, &linked))
		made(run, &at, &linked);
	forget(run, attr.ino);
}

static void op_link(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr;
	struct place from, to;

	if (!find_place(run, op->dir, op->name, &from) ||
	    !find_place(run, op->dir2, op->name2, &to) || !from.entry)
		return;
	uint64_t ino = from.entry->ino;

	if (slu_ns_link(run->fs->ns, &run->ctx, ino, to.dir, to.name, &attr))
		return;
	from.node->nlink++;
	sim_tree_add_entry(&run->model.tree, to.dir, to.name, ino);
	sim_model_touch(&run->model, ino);
	sim_model_touch(&run->model, to.dir);
	forget(run, ino);
}

/* A name has gone. */
static void lost(struct sim_run *run, const struct place *at)
{
	if (S_ISDIR(at->node->mode))
		link_dir(run, at->dir, -1);
	else
		at->node->nlink--;
	sim_model_touch(&run->model, at->entry->ino);
	sim_model_touch(&run->model, at->dir);
	sim_tree_del_entry(&run->model.tree, at->entry);
}

static void op_unlink(struct sim_run *run, const struct sim_op *op, bool dir)
{
	struct place at;
	int err;

	if (!find_place(run, op->dir, op->name, &at) || !at.entry)
		return;
	if (op->kind == SIM_REMOVE)
		dir = S_ISDIR(at.node->mode);
	err = dir ? slu_ns_rmdir(run->fs->ns, &run->ctx, at.dir, at.name)
		  : slu_ns_unlink(run->fs->ns, &run->ctx, at.dir, at.name);
	if (!err)
		lost(run, &at);
}

static void renamed(struct sim_run *run, const struct place *from, struct place *to)
{
	struct sim_model *m = &run->model;
	uint64_t ino = from->entry->ino;
	bool dir = S_ISDIR(from->node->mode);

	if (to->entry) {
		if (S_ISREG(from->node->mode))
			sim_model_promise_with(m, sim_model_file(m, ino));
		lost(run, to);
	}
	/* where the entry is may have changed */
	sim_tree_del_entry(&m->tree, sim_tree_find(&m->tree, from->dir, from->name));
	sim_tree_add_entry(&m->tree, to->dir, to->name, ino);
	if (dir) {
		link_dir(run, from->dir, -1);
		link_dir(run, to->dir, 1);
	}
	sim_model_touch(m, ino);
	sim_model_touch(m, from->dir);
	sim_model_touch(m, to->dir);
}

static void exchanged(struct sim_run *run, const struct place *a, const struct place *b)
{
	struct sim_model *m = &run->model;
	uint64_t ino = a->entry->ino;
	int by = (int)S_ISDIR(b->node->mode) - (int)S_ISDIR(a->node->mode);

	a->entry->ino = b->entry->ino;
	b->entry->ino = ino;
	link_dir(run, a->dir, by);
	link_dir(run, b->dir, -by);
	sim_model_touch(m, a->entry->ino);
	sim_model_touch(m, ino);
	sim_model_touch(m, a->dir);
	sim_model_touch(m, b->dir);
}

static void op_rename(struct sim_run *run, const struct sim_op *op)
{
	bool exchange = op->kind == SIM_EXCHANGE;
	struct place from, to;

	if (!find_place(run, op->dir, op->name, &from) ||
	    !find_place(run, op->dir2, op->name2, &to) || !from.entry)
		return;
	if (slu_ns_rename(run->fs->ns, &run->ctx, from.dir, from.name, to.dir, to.name,
			  exchange ? EXCHANGE : 0))
		return;
	if (to.entry && to.entry->ino == from.entry->ino)
		return; /* two names of one file: both stay */
	if (exchange)
		exchanged(run, &from, &to);
	else
		renamed(run, &from, &to);
}

/* ------------------------------------------------------------------ attributes */

static void op_chmod(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr = {.mode = op->len & 0777};
	struct place at;

	if (!find_place(run, op->dir, op->name, &at) || !at.entry)
		return;
	if (slu_ns_setattr(run->fs->ns, &run->ctx, at.entry->ino, &attr, SLU_SET_MODE, &attr))
		return;
	at.node->mode = (at.node->mode & S_IFMT) | (op->len & 0777);
	sim_model_touch(&run->model, at.entry->ino);
}

static void op_xattr(struct sim_run *run, const struct sim_op *op)
{
	static uint8_t value[4096];
	size_t len = slu_min(op->len, (uint32_t)sizeof(value));
	unsigned int i = op->arg % SIM_NATTRS;
	struct place at;
	int err;

	if (!find_place(run, op->dir, op->name, &at) || !at.entry)
		return;
	sim_pattern(value, len, op->arg);
	if (op->kind == SIM_REMOVEXATTR)
		err = slu_ns_removexattr(run->fs->ns, &run->ctx, at.entry->ino, sim_attrs[i]);
	else
		err = slu_ns_setxattr(run->fs->ns, &run->ctx, at.entry->ino, sim_attrs[i], value,
				      len, 0, false);
	if (err)
		return;
	at.node->attr[i] = op->kind == SIM_REMOVEXATTR ? 0 : XXH3_64bits(value, len) | 1;
	sim_model_touch(&run->model, at.entry->ino);
}

/* ------------------------------------------------------------------ data */

/*
 * What has failed may have been done in part; how far is asked, since it is what is there now that
 * matters from here on.
 */
static void learn(struct sim_run *run, struct sim_file *f)
{
	static uint8_t data[SIM_MAX_SIZE];
	uint64_t size;
	int err = sim_read_file(run->fs, f->ino, data, sizeof(data), &size);

	if (err) {
		sim_text_add(&run->complaint, "inode %lu cannot be read: %s\n", f->ino,
			     strerror(-err));
		return;
	}
	if (size != sim_file_now(f)->size)
		sim_model_resize(&run->model, f, size);
	sim_model_write(&run->model, f, 0, size, data);
}

static size_t records(struct sim_run *run)
{
	return run->model.op ? slu_simdisk_nrecords(run->disk) : 0;
}

static void write_bytes(struct sim_run *run, uint64_t ino, const struct sim_op *op, uint64_t pos,
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
		learn(run, f);
	if (!err && run->w->sync)
		sim_model_promise(&run->model, f, records(run));
}

static void op_write(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	uint64_t size = sim_file_now(sim_model_file(&run->model, ino))->size;
	uint64_t pos = op->pos, end = pos + op->len;

	switch (op->kind) {
	case SIM_APPEND:
		write_bytes(run, ino, op, size, op->len, 0);
		break;
	case SIM_DIRECT:
		pos = slu_round_down(pos, 512);
		write_bytes(run, ino, op, pos, slu_round_up(op->len, 512), SLU_WRITE_WHOLE);
		break;
	case SIM_MMAP:
		pos = slu_round_down(pos, SLU_BLOCK_SIZE);
		end = slu_min(slu_round_up(end, SLU_BLOCK_SIZE), size);
		if (pos < end)
			write_bytes(run, ino, op, pos, end - pos, SLU_WRITE_KERNEL_CACHE);
		break;
	default:
		write_bytes(run, ino, op, pos, op->len, 0);
	}
}

static void op_truncate(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	struct sim_file *f = sim_model_file(&run->model, ino);
	uint64_t size = slu_min((uint64_t)op->pos, SIM_MAX_SIZE);
	struct slu_attr attr;

	if (slu_fs_truncate(run->fs, &run->ctx, ino, size, false, &attr))
		learn(run, f);
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
		learn(run, f);
		return;
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		sim_model_clear(&run->model, f, op->pos, len, op->kind == SIM_PUNCH);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > sim_file_now(f)->size)
		sim_model_resize(&run->model, f, end);
}

static void op_writeback(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	struct slu_inode *inode;

	if (slu_inode_get(run->fs->ns, ino, &inode))
		return;
	slu_writeback_range(run->fs->wb, &inode->data, slu_round_down(op->pos, SLU_BLOCK_SIZE),
			    slu_round_up(op->pos + op->len, SLU_BLOCK_SIZE));
	slu_inode_put(inode);
}

static void op_fsync(struct sim_run *run, const struct sim_op *op, uint64_t ino)
{
	if (!slu_fs_fsync(run->fs, &run->ctx, ino, UINT64_MAX, op->kind == SIM_FDATASYNC))
		sim_model_promise(&run->model, sim_model_file(&run->model, ino), records(run));
}

static void op_open(struct sim_run *run, uint64_t ino)
{
	if (run->nopen == slu_array_size(run->open_fh))
		return;
	if (!slu_fs_open(run->fs, &run->ctx, ino, O_RDWR, &run->open_fh[run->nopen]))
		run->open_ino[run->nopen++] = ino;
}

static void op_on_file(struct sim_run *run, const struct sim_op *op)
{
	struct place at;

	if (!find_place(run, op->dir, op->name, &at) || !at.entry)
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
		op_writeback(run, op, at.entry->ino);
	else if (op->kind == SIM_TRUNCATE)
		op_truncate(run, op, at.entry->ino);
	else if (op->kind >= SIM_PUNCH && op->kind <= SIM_FALLOC_KEEP)
		op_fallocate(run, op, at.entry->ino);
	else
		op_write(run, op, at.entry->ino);
}

/* ------------------------------------------------------------------ the whole volume */

static void op_fill(struct sim_run *run, const struct sim_op *op)
{
	struct slu_statfs st;
	struct place at;

	if (!find_place(run, op->dir, op->name, &at) || !at.entry || !S_ISREG(at.node->mode))
		return;
	slu_fs_statfs(run->fs, &st);
	if (st.bfree > op->len)
		slu_fs_fallocate(run->fs, &run->ctx, at.entry->ino, FALLOC_FL_KEEP_SIZE,
				 SIM_MAX_SIZE, (st.bfree - op->len) * SLU_BLOCK_SIZE);
}

static void op_close(struct sim_run *run)
{
	while (run->nopen) {
		run->nopen--;
		slu_fs_release(run->fs, run->open_ino[run->nopen], run->open_fh[run->nopen]);
	}
}

static void op_sync(struct sim_run *run)
{
	if (!slu_fs_sync(run->fs))
		sim_model_promise_all(&run->model, records(run));
}

static void op_commit(struct sim_run *run)
{
	struct slu_store *store = run->fs->store;

	if (!slu_store_commit(store, slu_store_txid(store), true))
		sim_model_promise_names(&run->model, run->model.op, records(run));
}

static void op_remount(struct sim_run *run)
{
	op_close(run);
	if (!sim_unmount(run) || !sim_mount(run))
		return;
	sim_model_promise_all(&run->model, records(run));
}

void sim_op_run(struct sim_run *run, const struct sim_op *op)
{
	switch (op->kind) {
	case SIM_CREAT:
		op_make(run, op, S_IFREG | 0644);
		break;
	case SIM_MKDIR:
		op_make(run, op, S_IFDIR | 0755);
		break;
	case SIM_SYMLINK:
		op_symlink(run, op);
		break;
	case SIM_TMPFILE:
		op_tmpfile(run, op);
		break;
	case SIM_LINK:
		op_link(run, op);
		break;
	case SIM_UNLINK:
		op_unlink(run, op, false);
		break;
	case SIM_RMDIR:
		op_unlink(run, op, true);
		break;
	case SIM_REMOVE:
		op_unlink(run, op, false);
		break;
	case SIM_RENAME:
	case SIM_EXCHANGE:
		op_rename(run, op);
		break;
	case SIM_CHMOD:
		op_chmod(run, op);
		break;
	case SIM_SETXATTR:
	case SIM_REMOVEXATTR:
		op_xattr(run, op);
		break;
	case SIM_COMMIT_SOON:
		slu_store_commit_soon(run->fs->store);
		break;
	case SIM_KICK:
		slu_writeback_kick(run->fs->wb);
		break;
	case SIM_COMMIT:
		op_commit(run);
		break;
	case SIM_SYNC:
		op_sync(run);
		break;
	case SIM_SLEEP:
		slu_sleep_ns(op->len * SLU_NS_PER_MS);
		break;
	case SIM_CLOSE:
		op_close(run);
		break;
	case SIM_FILL:
		op_fill(run, op);
		break;
	case SIM_REMOUNT:
		op_remount(run);
		break;
	default:
		op_on_file(run, op);
	}
}
