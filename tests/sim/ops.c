/* SPDX-License-Identifier: MIT */
/*
 * One operation, on the mounted volume and on the model. What the volume refuses does not happen in
 * the model; whether it should have refused it is for other tests.
 */
#include "sim.h"
#include <linux/falloc.h>
#include <xxhash.h>

/* From linux/fs.h, which does not go together with sys/mount.h everywhere. */
#define EXCHANGE 2u

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

bool sim_find_place(struct sim_run *run, unsigned int dir, unsigned int name, struct sim_place *ret)
{
	*ret = (struct sim_place){.name = sim_names[name]};
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
static void made(struct sim_run *run, const struct sim_place *at, const struct slu_attr *attr)
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

static void op_make(struct sim_run *run, const struct sim_op *op)
{
	mode_t mode = op->kind == SIM_MKDIR ? S_IFDIR | 0755 : S_IFREG | 0644;
	struct slu_attr attr;
	struct sim_place at;

	if (!sim_find_place(run, op->dir, op->name, &at))
		return;
	if (!slu_ns_mknod(run->fs->ns, &run->ctx, at.dir, at.name, mode, 0, &attr))
		made(run, &at, &attr);
}

static void op_symlink(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr;
	struct sim_place at;
	char target[16];

	if (!sim_find_place(run, op->dir, op->name, &at))
		return;
	snprintf(target, sizeof(target), "to-%x", op->arg & 0xffff);
	if (slu_ns_symlink(run->fs->ns, &run->ctx, at.dir, at.name, target, &attr))
		return;
	made(run, &at, &attr);
	snprintf(sim_tree_node(&run->model.tree, attr.ino)->target, 32, "%s", target);
}

static void op_tmpfile(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr, linked;
	struct sim_place at;

	if (!sim_find_place(run, op->dir, op->name, &at))
		return;
	if (slu_ns_tmpfile(run->fs->ns, &run->ctx, at.dir, 0600, &attr))
		return;
	sim_write_bytes(run, attr.ino, op, op->pos, op->len, 0);
	if (!slu_ns_link(run->fs->ns, &run->ctx, attr.ino, at.dir, at.name, &linked))
		made(run, &at, &linked);
	forget(run, attr.ino);
}

static void op_link(struct sim_run *run, const struct sim_op *op)
{
	struct slu_attr attr;
	struct sim_place from, to;

	if (!sim_find_place(run, op->dir, op->name, &from) ||
	    !sim_find_place(run, op->dir2, op->name2, &to) || !from.entry)
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
static void lost(struct sim_run *run, const struct sim_place *at)
{
	if (S_ISDIR(at->node->mode))
		link_dir(run, at->dir, -1);
	else
		at->node->nlink--;
	sim_model_touch(&run->model, at->entry->ino);
	sim_model_touch(&run->model, at->dir);
	sim_tree_del_entry(&run->model.tree, at->entry);
}

static void op_unlink(struct sim_run *run, const struct sim_op *op)
{
	bool dir = op->kind == SIM_RMDIR;
	struct sim_place at;
	int err;

	if (!sim_find_place(run, op->dir, op->name, &at) || !at.entry)
		return;
	if (op->kind == SIM_REMOVE)
		dir = S_ISDIR(at.node->mode);
	err = dir ? slu_ns_rmdir(run->fs->ns, &run->ctx, at.dir, at.name)
		  : slu_ns_unlink(run->fs->ns, &run->ctx, at.dir, at.name);
	if (!err)
		lost(run, &at);
}

static void renamed(struct sim_run *run, const struct sim_place *from, struct sim_place *to)
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

static void exchanged(struct sim_run *run, const struct sim_place *a, const struct sim_place *b)
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
	struct sim_place from, to;

	if (!sim_find_place(run, op->dir, op->name, &from) ||
	    !sim_find_place(run, op->dir2, op->name2, &to) || !from.entry)
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
	struct sim_place at;

	if (!sim_find_place(run, op->dir, op->name, &at) || !at.entry)
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
	struct sim_place at;
	int err;

	if (!sim_find_place(run, op->dir, op->name, &at) || !at.entry)
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

/* ------------------------------------------------------------------ the whole volume */

static void op_fill(struct sim_run *run, const struct sim_op *op)
{
	struct slu_statfs st;
	struct sim_place at;

	if (!sim_find_place(run, op->dir, op->name, &at) || !at.entry || !S_ISREG(at.node->mode))
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
		sim_model_promise_all(&run->model, sim_records(run));
}

static void op_commit(struct sim_run *run)
{
	struct slu_store *store = run->fs->store;

	if (!slu_store_commit(store, slu_store_txid(store), true))
		sim_model_promise_names(&run->model, run->model.op, sim_records(run));
}

static void op_remount(struct sim_run *run)
{
	op_close(run);
	if (!sim_unmount(run) || !sim_mount(run))
		return;
	sim_model_promise_all(&run->model, sim_records(run));
}

static bool op_on_volume(struct sim_run *run, const struct sim_op *op)
{
	switch (op->kind) {
	case SIM_COMMIT_SOON:
		slu_store_commit_soon(run->fs->store);
		return true;
	case SIM_KICK:
		slu_writeback_kick(run->fs->wb);
		return true;
	case SIM_COMMIT:
		op_commit(run);
		return true;
	case SIM_SYNC:
		op_sync(run);
		return true;
	case SIM_SLEEP:
		slu_sleep_ns(op->len * SLU_NS_PER_MS);
		return true;
	case SIM_CLOSE:
		op_close(run);
		return true;
	case SIM_REMOUNT:
		op_remount(run);
		return true;
	case SIM_FAULT:
	case SIM_HOST_FULL:
	case SIM_GONE:
		sim_op_fault(run, op);
		return true;
	case SIM_HEAL:
		sim_heal(run);
		return true;
	default:
		return false;
	}
}

void sim_op_run(struct sim_run *run, const struct sim_op *op)
{
	static void (*const ops[SIM_NKINDS])(struct sim_run *, const struct sim_op *) = {
		[SIM_CREAT] = op_make,        [SIM_MKDIR] = op_make,    [SIM_SYMLINK] = op_symlink,
		[SIM_TMPFILE] = op_tmpfile,   [SIM_LINK] = op_link,     [SIM_UNLINK] = op_unlink,
		[SIM_RMDIR] = op_unlink,      [SIM_REMOVE] = op_unlink, [SIM_RENAME] = op_rename,
		[SIM_EXCHANGE] = op_rename,   [SIM_CHMOD] = op_chmod,   [SIM_SETXATTR] = op_xattr,
		[SIM_REMOVEXATTR] = op_xattr, [SIM_FILL] = op_fill,
	};

	if (op_on_volume(run, op))
		return;
	if (ops[op->kind])
		ops[op->kind](run, op);
	else
		sim_op_on_file(run, op);
}
