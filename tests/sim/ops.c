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

static void forget(struct sim_task *t, uint64_t ino)
{
	slu_ns_forget(t->run->fs->ns, ino, 1);
}

static bool look_up(struct sim_task *t, uint64_t dir, const char *name, struct slu_attr *ret)
{
	if (slu_ns_lookup(t->run->fs->ns, &t->ctx, dir, name, ret))
		return false;
	forget(t, ret->ino);
	return true;
}

static bool find_dir(struct sim_task *t, unsigned int dir, uint64_t *ret)
{
	const char *path = sim_dirs[dir];
	struct slu_attr attr = {.ino = SLU_INO_ROOT};

	for (; *path; path += strlen(path) > 1 ? 2 : 1) {
		char name[2] = {*path};

		if (!look_up(t, attr.ino, name, &attr) || !S_ISDIR(attr.mode))
			return false;
	}
	*ret = attr.ino;
	return true;
}

bool sim_find_place(struct sim_task *t, unsigned int dir, unsigned int name, struct sim_place *ret)
{
	struct slu_attr attr;

	*ret = (struct sim_place){.name = sim_names[name]};
	if (!find_dir(t, dir, &ret->dir))
		return false;
	ret->found = look_up(t, ret->dir, ret->name, &attr);
	if (ret->found) {
		ret->ino = attr.ino;
		ret->mode = attr.mode;
	}
	return true;
}

static void touch(struct sim_task *t, uint64_t ino)
{
	sim_model_touch(&t->run->model, t->thread, ino);
}

/* A new inode has appeared at a place. */
static void made(struct sim_task *t, const struct sim_place *at, const struct slu_attr *attr,
		 const char *target)
{
	struct sim_effect e = {.kind = SIM_MADE,
			       .dir = at->dir,
			       .name = at->name,
			       .ino = attr->ino,
			       .mode = attr->mode};

	snprintf(e.target, sizeof(e.target), "%s", target);
	sim_model_effect(&t->run->model, t->thread, &e);
	touch(t, attr->ino);
	touch(t, at->dir);
	forget(t, attr->ino);
}

static void op_make(struct sim_task *t, const struct sim_op *op)
{
	mode_t mode = op->kind == SIM_MKDIR ? S_IFDIR | 0755 : S_IFREG | 0644;
	struct slu_attr attr;
	struct sim_place at;

	if (!sim_find_place(t, op->dir, op->name, &at))
		return;
	if (!slu_ns_mknod(t->run->fs->ns, &t->ctx, at.dir, at.name, mode, 0, &attr))
		made(t, &at, &attr, "");
}

static void op_symlink(struct sim_task *t, const struct sim_op *op)
{
	struct slu_attr attr;
	struct sim_place at;
	char target[16];

	if (!sim_find_place(t, op->dir, op->name, &at))
		return;
	snprintf(target, sizeof(target), "to-%x", op->arg & 0xffff);
	if (!slu_ns_symlink(t->run->fs->ns, &t->ctx, at.dir, at.name, target, &attr))
		made(t, &at, &attr, target);
}

static void op_tmpfile(struct sim_task *t, const struct sim_op *op)
{
	struct slu_ns *ns = t->run->fs->ns;
	struct slu_attr attr, linked;
	struct sim_place at;

	if (!sim_find_place(t, op->dir, op->name, &at))
		return;
	if (slu_ns_tmpfile(ns, &t->ctx, at.dir, 0600, &attr))
		return;
	sim_write_bytes(t, sim_model_new_file(&t->run->model, attr.ino, t->thread), op, op->pos,
			op->len, 0);
	if (!slu_ns_link(ns, &t->ctx, attr.ino, at.dir, at.name, &linked))
		made(t, &at, &linked, "");
	forget(t, attr.ino);
}

static void op_link(struct sim_task *t, const struct sim_op *op)
{
	struct slu_attr attr;
	struct sim_place from, to;

	if (!sim_find_place(t, op->dir, op->name, &from) ||
	    !sim_find_place(t, op->dir2, op->name2, &to) || !from.found)
		return;
	if (slu_ns_link(t->run->fs->ns, &t->ctx, from.ino, to.dir, to.name, &attr))
		return;
	sim_model_effect(&t->run->model, t->thread,
			 &(struct sim_effect){.kind = SIM_LINKED,
					      .dir = to.dir,
					      .name = to.name,
					      .ino = from.ino});
	touch(t, from.ino);
	touch(t, to.dir);
	forget(t, from.ino);
}

/* Who else was at names may have put another inode there than the one that was seen. */
static void touch_seen(struct sim_task *t, const struct sim_place *at)
{
	if (at->found && sim_model_alone(&t->run->model, t->thread))
		touch(t, at->ino);
}

static void op_unlink(struct sim_task *t, const struct sim_op *op)
{
	bool dir = op->kind == SIM_RMDIR;
	struct sim_place at;
	int err;

	if (!sim_find_place(t, op->dir, op->name, &at) || !at.found)
		return;
	if (op->kind == SIM_REMOVE)
		dir = S_ISDIR(at.mode);
	err = dir ? slu_ns_rmdir(t->run->fs->ns, &t->ctx, at.dir, at.name)
		  : slu_ns_unlink(t->run->fs->ns, &t->ctx, at.dir, at.name);
	if (err)
		return;
	sim_model_effect(&t->run->model, t->thread,
			 &(struct sim_effect){
				 .kind = SIM_LOST, .dir = at.dir, .name = at.name, .is_dir = dir});
	touch_seen(t, &at);
	touch(t, at.dir);
}

/* A file that replaces another has been written out, as far as it had been received. */
static void promise_replacing(struct sim_task *t, const struct sim_place *from,
			      const struct sim_place *to)
{
	struct sim_model *m = &t->run->model;
	struct sim_file *f = sim_model_file(m, from->ino);

	if (f && to->found && S_ISREG(from->mode) && sim_model_alone(m, t->thread))
		sim_model_promise_with(m, f, t->thread);
}

static void op_rename(struct sim_task *t, const struct sim_op *op)
{
	bool exchange = op->kind == SIM_EXCHANGE;
	struct sim_place from, to;

	if (!sim_find_place(t, op->dir, op->name, &from) ||
	    !sim_find_place(t, op->dir2, op->name2, &to) || !from.found)
		return;
	if (slu_ns_rename(t->run->fs->ns, &t->ctx, from.dir, from.name, to.dir, to.name,
			  exchange ? EXCHANGE : 0))
		return;
	sim_model_effect(&t->run->model, t->thread,
			 &(struct sim_effect){.kind = exchange ? SIM_EXCHANGED : SIM_RENAMED,
					      .dir = from.dir,
					      .name = from.name,
					      .dir2 = to.dir,
					      .name2 = to.name});
	if (to.found && to.ino == from.ino)
		return; /* two names of one file: both stay, if nobody else was there */
	if (!exchange)
		promise_replacing(t, &from, &to);
	touch_seen(t, &from);
	touch_seen(t, &to);
	touch(t, from.dir);
	touch(t, to.dir);
}

/* ------------------------------------------------------------------ attributes */

static void op_chmod(struct sim_task *t, const struct sim_op *op)
{
	struct slu_attr attr = {.mode = op->len & 0777};
	struct sim_place at;

	if (!sim_find_place(t, op->dir, op->name, &at) || !at.found)
		return;
	if (slu_ns_setattr(t->run->fs->ns, &t->ctx, at.ino, &attr, SLU_SET_MODE, &attr))
		return;
	sim_model_effect(&t->run->model, t->thread,
			 &(struct sim_effect){.kind = SIM_MODE_SET,
					      .ino = at.ino,
					      .mode = op->len & 0777});
	touch(t, at.ino);
}

static void op_xattr(struct sim_task *t, const struct sim_op *op)
{
	struct slu_ns *ns = t->run->fs->ns;
	size_t len = slu_min(op->len, 4096u);
	unsigned int i = op->arg % SIM_NATTRS;
	struct sim_effect e = {.kind = SIM_ATTR_SET, .attr = i};
	struct sim_place at;
	int err;

	if (!sim_find_place(t, op->dir, op->name, &at) || !at.found)
		return;
	e.ino = at.ino;
	if (op->kind == SIM_REMOVEXATTR) {
		err = slu_ns_removexattr(ns, &t->ctx, at.ino, sim_attrs[i]);
	} else {
		sim_pattern(t->data, len, op->arg);
		e.value = XXH3_64bits(t->data, len) | 1;
		err = slu_ns_setxattr(ns, &t->ctx, at.ino, sim_attrs[i], t->data, len, 0, false);
	}
	if (err)
		return;
	sim_model_effect(&t->run->model, t->thread, &e);
	touch(t, at.ino);
}

/* ------------------------------------------------------------------ the whole volume */

static void op_fill(struct sim_task *t, const struct sim_op *op)
{
	struct slu_fs *fs = t->run->fs;
	struct slu_statfs st;
	struct sim_place at;

	if (!sim_find_place(t, op->dir, op->name, &at) || !at.found || !S_ISREG(at.mode))
		return;
	slu_fs_statfs(fs, &st);
	if (st.bfree > op->len)
		slu_fs_fallocate(fs, &t->ctx, at.ino, FALLOC_FL_KEEP_SIZE, SIM_MAX_SIZE,
				 (st.bfree - op->len) * SLU_BLOCK_SIZE);
}

void sim_op_close(struct sim_task *t)
{
	while (t->nopen) {
		t->nopen--;
		slu_fs_release(t->run->fs, t->open_ino[t->nopen], t->open_fh[t->nopen]);
	}
}

/* As the kernel's: what another thread has begun to append before has been sent after. */
static int flush_appends(void *ctx)
{
	struct sim_task *t = ctx, *other = &t->run->tasks[!t->thread];
	struct sim_run *run = t->run;
	unsigned int n;

	slu_mutex_lock(&run->turn_lock);
	n = other->nsent;
	while (other->sending && other->nsent == n)
		slu_cond_wait(&run->turn, &run->turn_lock);
	slu_mutex_unlock(&run->turn_lock);
	return 0;
}

static void op_sync(struct sim_task *t)
{
	struct sim_model *m = &t->run->model;

	if (!slu_fs_syncfs(t->run->fs, flush_appends, t))
		sim_model_promise_all(m, sim_model_known(m, t->thread), sim_records(t->run));
}

static void op_commit(struct sim_task *t)
{
	struct slu_store *store = t->run->fs->store;
	struct sim_model *m = &t->run->model;

	if (!slu_store_commit(store, slu_store_txid(store), true))
		sim_model_promise_names(m, sim_model_known(m, t->thread), sim_records(t->run));
}

static void op_grow(struct sim_task *t, const struct sim_op *op)
{
	struct sim_run *run = t->run;
	struct slu_fs_growth g;

	if (run->growing)
		return;
	run->growing = true;
	if (!slu_fs_grow(run->fs, 0, &g) && !slu_fs_grow(run->fs, g.to + op->arg, &g) &&
	    g.to > g.from)
		sim_model_promise_names(&run->model, sim_model_known(&run->model, t->thread),
					sim_records(run));
	run->growing = false;
}

/* With one thread only. */
static void op_remount(struct sim_task *t)
{
	struct sim_model *m = &t->run->model;

	sim_op_close(t);
	if (!sim_unmount(t->run) || !sim_mount(t->run))
		return;
	sim_model_promise_all(m, sim_model_known(m, t->thread), sim_records(t->run));
}

static bool op_on_volume(struct sim_task *t, const struct sim_op *op)
{
	struct slu_fs *fs = t->run->fs;

	switch (op->kind) {
	case SIM_COMMIT_SOON:
		slu_store_commit_soon(fs->store);
		return true;
	case SIM_KICK:
		slu_writeback_kick(fs->wb);
		return true;
	case SIM_COMMIT:
		op_commit(t);
		return true;
	case SIM_SYNC:
		op_sync(t);
		return true;
	case SIM_SLEEP:
		slu_sleep_ns(op->len * SLU_NS_PER_MS);
		return true;
	case SIM_CLOSE:
		sim_op_close(t);
		return true;
	case SIM_REMOUNT:
		op_remount(t);
		return true;
	case SIM_GROW:
		op_grow(t, op);
		return true;
	case SIM_FAULT:
	case SIM_HOST_FULL:
	case SIM_GONE:
		sim_op_fault(t->run, op);
		return true;
	case SIM_HEAL:
		sim_heal(t->run);
		return true;
	default:
		return false;
	}
}

bool sim_op_on_names(enum sim_kind kind)
{
	return kind <= SIM_REMOVEXATTR;
}

void sim_op_run(struct sim_task *t, const struct sim_op *op)
{
	static void (*const ops[SIM_NKINDS])(struct sim_task *, const struct sim_op *) = {
		[SIM_CREAT] = op_make,        [SIM_MKDIR] = op_make,    [SIM_SYMLINK] = op_symlink,
		[SIM_TMPFILE] = op_tmpfile,   [SIM_LINK] = op_link,     [SIM_UNLINK] = op_unlink,
		[SIM_RMDIR] = op_unlink,      [SIM_REMOVE] = op_unlink, [SIM_RENAME] = op_rename,
		[SIM_EXCHANGE] = op_rename,   [SIM_CHMOD] = op_chmod,   [SIM_SETXATTR] = op_xattr,
		[SIM_REMOVEXATTR] = op_xattr, [SIM_FILL] = op_fill,
	};

	if (op_on_volume(t, op))
		return;
	if (ops[op->kind])
		ops[op->kind](t, op);
	else
		sim_op_on_file(t, op);
}
