/* SPDX-License-Identifier: MIT */
/*
 * Running a workload once, in a simulation: threads, time and the disk's delays follow from its
 * seed.
 */
#include "sim.h"

#define MOST_DELAY (2 * SLU_NS_PER_MS)

int sim_read_file(struct slu_fs *fs, uint64_t ino, uint8_t *data, uint64_t room, uint64_t *ret_size)
{
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_read_vec vec;
	uint64_t n = 0;
	int err = slu_fs_read(fs, &ctx, ino, UINT64_MAX, 0, room, true, &vec);

	if (err)
		return err;
	for (int i = 0; i < vec.niov; i++) {
		memcpy(data + n, vec.iov[i].iov_base, vec.iov[i].iov_len);
		n += vec.iov[i].iov_len;
	}
	slu_read_done(&vec);
	*ret_size = n;
	return 0;
}

static int try_mount(struct sim_run *run, const char **why)
{
	struct slu_blockio_opts open = {.engine = "sim", .sim = run->disk};
	struct slu_fs_opts opts = {.sync = run->w->sync, .cache_size = 16u << 20};
	struct slu_blockio *bio;
	int err = slu_blockio_open("sim", &open, &bio);

	run->fs = NULL;
	if (err)
		return err;
	err = slu_fs_mount(bio, &opts, &run->fs, why);
	if (err)
		slu_blockio_close(bio);
	return err;
}

bool sim_mount(struct sim_run *run)
{
	const char *why = NULL;
	int err = try_mount(run, &why);

	if (err && run->unwell) {
		sim_heal(run);
		err = try_mount(run, &why);
	}
	if (err)
		sim_text_add(&run->complaint, "mount: %s, %s\n", strerror(-err), why ? why : "-");
	return !err;
}

bool sim_unmount(struct sim_run *run)
{
	bool excused = run->unwell || slu_store_readonly(run->fs->store);
	int err;

	sim_count_refused(run);
	err = slu_fs_unmount(run->fs);
	run->fs = NULL;
	if (err && !excused)
		sim_text_add(&run->complaint, "unmount: %s\n", strerror(-err));
	return !err;
}

static void format(struct sim_run *run)
{
	struct slu_blockio_opts open = {.engine = "sim", .sim = run->disk};
	struct slu_blockio *bio;
	int err = slu_blockio_open("sim", &open, &bio);

	slu_assert(!err);
	err = slu_fs_format(bio, SIM_VOLUME_BLOCKS, "sim", 0, 0);
	slu_assert(!err);
	slu_blockio_close(bio);
}

/* What there is before the recording begins; sim_bounded_workload builds on it. */
static void prepare(struct sim_run *run)
{
	static const struct sim_op ops[] = {
		{SIM_MKDIR, 0, 4},
		{SIM_MKDIR, 0, 5},
		{SIM_MKDIR, 1, 6},
		{SIM_CREAT, 0, 0},
		{SIM_CREAT, 1, 1},
		{SIM_CREAT, 1, 0},
		{SIM_WRITE, 0, 0, .len = 3 * SLU_BLOCK_SIZE + 100, .arg = 1001},
		{SIM_WRITE, 1, 1, .len = 2 * SLU_BLOCK_SIZE, .arg = 1002},
		{SIM_SETXATTR, 1, 1, .len = 20, .arg = 0},
	};

	for (unsigned int i = 0; i < slu_array_size(ops); i++) {
		sim_op_run(run, &ops[i]);
		sim_model_end(&run->model);
	}
	for (unsigned int i = 0; i < run->model.nfiles; i++)
		run->model.files[i]->last_op = 0;
	/* twice: what was freed is free again */
	slu_fs_sync(run->fs);
	slu_fs_sync(run->fs);
}

/* With everything done, the volume shows what the model has, to the byte. */
static void compare_now(struct sim_run *run)
{
	size_t promises = run->model.npromises, last;

	/* as if all of it had just been promised */
	sim_model_promise_all(&run->model, 0);
	sim_compare(run, run->fs, SIZE_MAX, false, &run->complaint);
	run->model.npromises = (unsigned int)promises;
	for (unsigned int i = 0; i < run->model.nfiles; i++) {
		last = --run->model.files[i]->npromises;
		slu_assert(run->model.files[i]->promises[last].record == 0);
	}
}

static void finish(struct sim_run *run)
{
	if (!run->w->unmount) {
		sim_count_refused(run);
		slu_simdisk_record(run->disk, false);
		slu_simdisk_power_cut(run->disk, 1);
		slu_fs_unmount(run->fs);
		run->fs = NULL;
		return;
	}
	sim_model_begin(&run->model, slu_simdisk_nrecords(run->disk));
	sim_op_run(run, &(struct sim_op){.kind = SIM_CLOSE});
	if (sim_unmount(run))
		sim_model_promise_all(&run->model, slu_simdisk_nrecords(run->disk));
	sim_model_end(&run->model);
}

static void task(void *arg)
{
	struct sim_run *run = arg;

	format(run);
	if (!sim_mount(run))
		return;
	prepare(run);
	slu_simdisk_record(run->disk, true);
	if (run->w->latency)
		slu_simdisk_latency(run->disk, MOST_DELAY);
	for (unsigned int i = 0; i < run->w->nops && run->fs && !run->complaint.len; i++) {
		sim_model_begin(&run->model, slu_simdisk_nrecords(run->disk));
		sim_op_run(run, &run->w->ops[i]);
		sim_model_end(&run->model);
	}
	sim_heal(run);
	if (!run->fs)
		return;
	if (!run->complaint.len)
		compare_now(run);
	finish(run);
}

bool sim_run(struct sim_run *run, const struct sim_workload *w)
{
	*run = (struct sim_run){.w = w, .ctx = {.may_wait = true}};
	struct slu_sim *sim = slu_sim_new(w->seed);
	int err;

	slu_assert(sim);
	sim_model_init(&run->model);
	run->disk = slu_simdisk_new(SIM_VOLUME_BLOCKS, w->seed);
	slu_sim_preempt(sim, 16);
	slu_sim_hurry(sim, w->latency ? 512 : 0);
	err = slu_sim_run(sim, task, run, stderr);
	slu_assert(!err);
	slu_sim_free(sim);
	return !run->complaint.len;
}

void sim_run_fini(struct sim_run *run)
{
	slu_simdisk_free(run->disk);
	sim_model_fini(&run->model);
	sim_text_fini(&run->complaint);
}
