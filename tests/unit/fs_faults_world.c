/* SPDX-License-Identifier: MIT */
/* The workload of the tests of faults, and what must hold after it; see fs_faults_world.h. */
#include "fs_faults_world.h"

struct world *the_world;

/* ------------------------------------------------------------------ a mount */

struct slu_blockio *world_open_disk(struct world *w, bool readonly)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = w->disk, .readonly = readonly};
	struct slu_blockio *bio;

	must(slu_blockio_open("sim", &opts, &bio) == 0);
	return bio;
}

static void on_event(void *ctx, const struct slu_event *ev)
{
	struct world *w = ctx;

	if (ev->kind == SLU_EVENT_READONLY)
		w->readonly = true;
	for (unsigned int i = 0; ev->kind == SLU_EVENT_WRITEBACK_ERROR && i < NFILES; i++) {
		if (w->files[i].exists && w->files[i].ino == ev->ino)
			w->files[i].failed = true;
	}
}

int world_mount(struct world *w)
{
	struct slu_fs_opts opts = {.cache_size = 16 << 20, .events = {on_event, w}};
	struct slu_blockio *bio = world_open_disk(w, false);
	const char *why = NULL;
	int err;

	slu_alloc_fail_nth(w->mount_nth);
	err = slu_fs_mount(bio, &opts, &w->fs, &why);
	if (err) {
		must(err < 0 && why);
		slu_blockio_close(bio);
		w->fs = NULL;
	}
	return err;
}

static void on_problem(void *ctx, const struct slu_problem *p)
{
	if (!p->note)
		fprintf(stderr, "%s\n", p->text);
}

void world_check(struct world *w)
{
	struct slu_check_opts opts = {.problem = on_problem};
	struct slu_check_result result;
	struct slu_blockio *bio = world_open_disk(w, true);
	const char *why;

	must(slu_check(bio, &opts, &result, &why) == 0);
	must(!result.problems && !result.incomplete);
	slu_blockio_close(bio);
}

/* ------------------------------------------------------------------ operations */

static void next_step(struct world *w)
{
	if (++w->step == w->gone_at)
		slu_simdisk_fail(w->disk, true);
}

int world_note(struct world *w, int err)
{
	next_step(w);
	must(err <= 0 && err != -EAGAIN);
	if (err)
		w->worst = err;
	return err;
}

static void create(struct world *w, unsigned int i, const char *name)
{
	struct file *f = &w->files[i];
	struct slu_attr attr;

	f->name = name;
	if (world_note(w, slu_ns_mknod(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, S_IFREG | 0644, 0,
				       &attr)))
		return;
	f->exists = true;
	f->ino = attr.ino;
	for (unsigned int h = 0; h < NHANDLES; h++)
		f->open[h] = !world_note(w, slu_fs_open(w->fs, &w->ctx, f->ino, O_RDWR, &f->fh[h]));
}

static void write_file(struct world *w, unsigned int i, uint64_t pos, uint64_t len)
{
	struct file *f = &w->files[i];
	unsigned int v = f->nversions;
	uint8_t *data = f->data[v];
	struct iovec iov = {data + pos, len};
	struct slu_write_result res = {0};
	struct slu_source_buffer src;
	int err;

	if (!f->open[0])
		return;
	must(v < VERSIONS && pos + len <= FILE_MAX);
	memcpy(data, f->data[v - 1], FILE_MAX);
	for (uint64_t p = pos; p < pos + len; p++)
		data[p] = (uint8_t)(1 + i * 61 + v * 17 + p / 512 * 7);
	slu_source_buffer_init(&src, &iov, 1);
	err = world_note(w, slu_fs_write(w->fs, &w->ctx, f->ino, f->fh[0], &src.source, pos, len,
					 w->kernel ? SLU_WRITE_KERNEL_CACHE : 0, false, &res));
	must(res.done <= len);
	if (w->kernel)
		must(err != -ENOMEM && (err || res.done == len));
	if (res.done < len)
		memcpy(data + pos + res.done, f->data[v - 1] + pos + res.done, len - res.done);
	f->size[v] = slu_max(f->size[v - 1], res.done ? pos + res.done : 0);
	f->nversions++;
}

static void sync_file(struct world *w, unsigned int i, unsigned int h)
{
	struct file *f = &w->files[i];
	int err;

	if (!f->open[h])
		return;
	err = world_note(w, slu_fs_fsync(w->fs, &w->ctx, f->ino, f->fh[h], false));
	if (err)
		f->told[h] = true;
	else
		f->acked = f->nversions - 1;
}

void world_sync_all(struct world *w)
{
	if (world_note(w, slu_fs_sync(w->fs)))
		return;
	for (unsigned int i = 0; i < NFILES; i++)
		w->files[i].acked = w->files[i].nversions - 1;
	w->rename_acked = w->renamed;
}

void world_workload(struct world *w)
{
	struct slu_attr attr;

	create(w, 0, "a");
	write_file(w, 0, 0, 40000);
	sync_file(w, 0, 0);
	create(w, 1, "b");
	write_file(w, 1, 0, 12345);
	sync_file(w, 1, 0);
	if (w->files[1].exists && !world_note(w, slu_ns_rename(w->fs->ns, &w->ctx, SLU_INO_ROOT,
							       "b", SLU_INO_ROOT, "c", 0)))
		w->renamed = true;
	world_sync_all(w);
	write_file(w, 0, 8000, 60000);
	sync_file(w, 0, 1);
	if (!world_note(w,
			slu_ns_mknod(w->fs->ns, &w->ctx, SLU_INO_ROOT, "gone", S_IFREG, 0, &attr)))
		slu_ns_forget(w->fs->ns, attr.ino, 1);
	world_note(w, slu_ns_setxattr(w->fs->ns, &w->ctx, SLU_INO_ROOT, "user.x", "value", 5, 0,
				      false));
	world_note(w, slu_ns_unlink(w->fs->ns, &w->ctx, SLU_INO_ROOT, "gone"));
	create(w, 2, "late");
	write_file(w, 2, 0, 100000);
	write_file(w, 0, 0, 5000);
	world_sync_all(w);
	for (unsigned int i = 0; i < NFILES; i++) {
		for (unsigned int h = 0; h < NHANDLES; h++)
			sync_file(w, i, h);
	}
}

/* ------------------------------------------------------------------ what must hold */

int64_t world_read_file(struct world *w, uint64_t ino, uint8_t *buf)
{
	struct slu_read_vec vec;
	uint64_t n = 0;
	int err = slu_fs_read(w->fs, &w->ctx, ino, UINT64_MAX, 0, FILE_MAX, false, &vec);

	if (err)
		return err;
	for (int i = 0; i < vec.niov; i++) {
		memcpy(buf + n, vec.iov[i].iov_base, vec.iov[i].iov_len);
		n += vec.iov[i].iov_len;
	}
	slu_read_done(&vec);
	return (int64_t)n;
}

void world_check_memory(struct world *w)
{
	uint8_t *buf = malloc(FILE_MAX);

	for (unsigned int i = 0; i < NFILES; i++) {
		struct file *f = &w->files[i];
		unsigned int v = f->nversions - 1;

		if (!f->exists)
			continue;
		must(world_read_file(w, f->ino, buf) == (int64_t)f->size[v]);
		must(!memcmp(buf, f->data[v], f->size[v]));
		for (unsigned int h = 0; h < NHANDLES; h++)
			must(!f->failed || !f->open[h] || f->told[h]);
	}
	free(buf);
}

static bool byte_ok(const struct file *f, uint64_t pos, uint8_t byte)
{
	for (unsigned int v = f->acked; v < f->nversions; v++) {
		if (pos < f->size[v] && f->data[v][pos] == byte)
			return true;
	}
	return false;
}

static void check_file(struct world *w, struct file *f, const char *name)
{
	uint8_t *buf = malloc(FILE_MAX);
	struct slu_attr attr;
	int err = slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, &attr);
	int64_t n;

	if (f->acked && err)
		fprintf(stderr, "%s: version %u was accepted, now %d\n", name, f->acked, err);
	must(!f->acked || !err);
	if (!err) {
		n = world_read_file(w, attr.ino, buf);
		must(n >= (int64_t)f->size[f->acked]);
		for (int64_t p = 0; p < n; p++)
			must(byte_ok(f, (uint64_t)p, buf[p]));
		slu_ns_forget(w->fs->ns, attr.ino, 1);
	}
	free(buf);
}

void world_check_after(struct world *w)
{
	struct slu_attr attr;
	bool moved;

	must(world_mount(w) == 0);
	moved = !slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, "c", &attr);
	if (moved)
		slu_ns_forget(w->fs->ns, attr.ino, 1);
	must(moved || !w->rename_acked);
	must(!moved || w->renamed);
	check_file(w, &w->files[0], "a");
	check_file(w, &w->files[1], moved ? "c" : "b");
	check_file(w, &w->files[2], "late");
	must(slu_fs_unmount(w->fs) == 0);
	world_check(w);
}

/* ------------------------------------------------------------------ a run */

void world_close_all(struct world *w)
{
	for (unsigned int i = 0; i < NFILES; i++) {
		struct file *f = &w->files[i];

		for (unsigned int h = 0; h < NHANDLES; h++) {
			if (f->open[h])
				slu_fs_release(w->fs, f->ino, f->fh[h]);
		}
		if (f->exists)
			slu_ns_forget(w->fs->ns, f->ino, 1);
	}
}

void world_begin(struct world *w)
{
	struct slu_blockio *bio;

	w->ctx.may_wait = true;
	for (unsigned int i = 0; i < NFILES; i++)
		w->files[i].nversions = 1;
	w->disk = slu_simdisk_new(NBLOCKS, 1);
	slu_simdisk_inline(w->disk, true);
	bio = world_open_disk(w, false);
	must(slu_fs_format(bio, NBLOCKS, "test", 0, 0) == 0);
	slu_blockio_close(bio);
	must(world_mount(w) == 0);
}

void world_end(struct world *w)
{
	struct slu_simdisk *after;
	int err;

	world_close_all(w);
	if (w->ending == UNMOUNT) {
		err = slu_fs_unmount(w->fs);
		must(!err || w->readonly || w->worst || slu_simdisk_fault_hits(w->disk));
		slu_simdisk_fault(w->disk, NULL);
		return;
	}
	slu_simdisk_fault(w->disk, NULL);
	slu_simdisk_power_cut(w->disk, 1);
	after = slu_simdisk_clone(w->disk);
	slu_simdisk_fail(w->disk, true);
	slu_fs_unmount(w->fs);
	slu_simdisk_free(w->disk);
	w->disk = after;
}

void world_run_in_sim(void (*fn)(void *), struct world *w)
{
	struct slu_sim *sim = slu_sim_new(1);

	the_world = w;
	slu_sim_preempt(sim, 0);
	slu_sim_spurious(sim, 0);
	slu_sim_limit(sim, 50000000);
	assert_int_equal(slu_sim_run(sim, fn, w, stderr), 0);
	slu_sim_free(sim);
}
