/* SPDX-License-Identifier: MIT */
/*
 * One power cut: the disk as it was left is checked and mounted, compared with the model, and its
 * files are made longer to see what lies behind their ends.
 */
#include "sim.h"
#include "sluice/check.h"

static void problem(void *ctx, const struct slu_problem *p)
{
	if (!p->note)
		sim_text_add(ctx, "check: %s\n", p->text);
}

static bool check(struct slu_simdisk *disk, struct sim_text *complaint)
{
	struct slu_blockio_opts open = {.engine = "sim", .sim = disk, .readonly = true};
	struct slu_check_opts opts = {.problem = problem, .ctx = complaint};
	struct slu_check_result result = {0};
	struct slu_blockio *bio;
	const char *why = NULL;
	int err = slu_blockio_open("sim", &open, &bio);

	if (!err) {
		err = slu_check(bio, &opts, &result, &why);
		slu_blockio_close(bio);
	}
	if (err)
		sim_text_add(complaint, "check: %s, %s\n", strerror(-err), why ? why : "-");
	else if (result.incomplete)
		sim_text_add(complaint, "check: incomplete\n");
	return !err && !result.problems && !result.incomplete;
}

/* ------------------------------------------------------------------ comparing */

#define EXTRA (2 * SLU_BLOCK_SIZE)

struct files {
	struct sim_found found[SIM_MAX_NODES];
	unsigned int n;
};

/* One buffer for each, kept from cut to cut. */
static uint8_t *buffer(unsigned int i)
{
	static uint8_t *buffers[SIM_MAX_NODES];

	if (!buffers[i])
		buffers[i] = malloc(SIM_MAX_SIZE + EXTRA);
	slu_assert(buffers[i]);
	return buffers[i];
}

static bool read_files(struct files *files, struct slu_fs *fs, const struct sim_tree *tree,
		       struct sim_text *complaint)
{
	files->n = 0;
	for (unsigned int i = 0; i < tree->nnodes; i++) {
		struct sim_found *f = &files->found[files->n];
		uint8_t *data = buffer(files->n);
		int err;

		if (!S_ISREG(tree->nodes[i].mode))
			continue;
		f->ino = tree->nodes[i].ino;
		f->data = data;
		err = sim_read_file(fs, f->ino, data, SIM_MAX_SIZE + EXTRA, &f->size);
		if (!err && f->size > SIM_MAX_SIZE)
			err = -EFBIG;
		if (err) {
			sim_text_add(complaint, "inode %lu cannot be read: %s\n", f->ino,
				     strerror(-err));
			return false;
		}
		files->n++;
	}
	return true;
}

/* Behind the end there is nothing but zeros, and what is before it stays. */
static bool nothing_behind(struct slu_fs *fs, const struct sim_found *f, struct sim_text *complaint)
{
	static uint8_t data[SIM_MAX_SIZE + EXTRA];
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_attr attr;
	uint64_t size, at;
	int err = slu_fs_truncate(fs, &ctx, f->ino, f->size + EXTRA, false, &attr);

	if (err == -ENOSPC)
		return true;
	if (!err)
		err = sim_read_file(fs, f->ino, data, sizeof(data), &size);
	if (err || size != f->size + EXTRA) {
		sim_text_add(complaint, "inode %lu cannot be made longer: %s\n", f->ino,
			     strerror(-err));
		return false;
	}
	for (at = f->size; at < size && !data[at]; at++)
		;
	if (at == size && !memcmp(data, f->data, f->size))
		return true;
	sim_text_add(complaint, "inode %lu: behind its end at %lu there was something at %lu\n",
		     f->ino, f->size, at);
	return false;
}

bool sim_compare(struct sim_run *run, struct slu_fs *fs, size_t record, bool grow,
		 struct sim_text *complaint)
{
	struct sim_tree tree;
	struct files files;
	struct sim_text text = {0};
	bool ok;

	if (sim_tree_read(&tree, fs, complaint))
		return false;
	sim_tree_print(&tree, &text);
	ok = read_files(&files, fs, &tree, complaint) &&
	     sim_model_allows(&run->model, record, text.s, files.found, files.n, complaint);
	sim_text_fini(&text);
	for (unsigned int i = 0; i < files.n && ok && grow; i++)
		ok = nothing_behind(fs, &files.found[i], complaint);
	return ok;
}

/* ------------------------------------------------------------------ cutting */

static bool look(struct sim_run *run, struct slu_simdisk *disk, size_t record,
		 struct sim_text *complaint)
{
	struct slu_blockio_opts open = {.engine = "sim", .sim = disk};
	struct slu_fs_opts opts = {.cache_size = 4u << 20};
	struct slu_blockio *bio;
	struct slu_fs *fs;
	const char *why = NULL;
	int err = slu_blockio_open("sim", &open, &bio);
	bool ok;

	if (!err)
		err = slu_fs_mount(bio, &opts, &fs, &why);
	if (err) {
		sim_text_add(complaint, "mount: %s, %s\n", strerror(-err), why ? why : "-");
		return false;
	}
	ok = sim_compare(run, fs, record, true, complaint);
	err = slu_fs_unmount(fs);
	if (err)
		sim_text_add(complaint, "unmount: %s\n", strerror(-err));
	return ok && !err;
}

bool sim_cut(struct sim_run *run, size_t record, uint64_t seed, struct sim_text *complaint)
{
	struct slu_simdisk *disk = slu_simdisk_replay(run->disk, record, seed);
	bool ok;

	slu_simdisk_inline(disk, true);
	ok = check(disk, complaint) && look(run, disk, record, complaint);
	/* What the next mount made of it is sound, too; not at each cut, for the time it takes. */
	if (ok && (seed >> 8) % 4 == 0)
		ok = check(disk, complaint);
	slu_simdisk_free(disk);
	return ok;
}
