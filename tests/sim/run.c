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
	struct slu_fs_opts opts = {.sync = run->w->sync,
				   .cache_size = 16u << 20,
				   .max_idle_inodes = run->w->forgetful};
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
	bool excused = run->unwell;
	int err;

	/* A commit that failed on a disk that has healed since may turn the volume read-only only now. */
	(void)slu_fs_stop(run->fs);
	if (slu_store_readonly(run->fs->store) && sim_refused(run))
		excused = true;
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

/* Which thread's a file is that was there before. */
static void give_owners(struct sim_run *run)
{
	struct sim_model *m = &run->model;

	for (unsigned int i = 0; i < m->nfiles; i++) {
		m->files[i]->last = (struct sim_at){0};
		if (run->w->threads)
			m->files[i]->owner = (unsigned int)(m->files[i]->ino % SIM_NTHREADS);
	}
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
	static const struct sim_op shared[] = {
		{SIM_CREAT, 0, SIM_SHARED_NAME},
		{SIM_WRITE, 0, SIM_SHARED_NAME, .len = 8 * SLU_BLOCK_SIZE, .arg = 1003},
	};
	struct sim_task *t = &run->tasks[0];
	struct sim_place at;

	for (unsigned int i = 0; i < slu_array_size(ops); i++)
		sim_op_run(t, &ops[i]);
	for (unsigned int i = 0; i < slu_array_size(shared) && run->w->threads; i++)
		sim_op_run(t, &shared[i]);
	give_owners(run);
	if (run->w->threads && sim_find_place(t, 0, SIM_SHARED_NAME, &at))
		sim_model_share(&run->model, sim_model_file(&run->model, at.ino));
	/* twice: what was freed is free again */
	slu_fs_sync(run->fs);
	slu_fs_sync(run->fs);
}

/* With everything done, the volume shows what the model has, to the byte. */
static void compare_now(struct sim_run *run)
{
	struct sim_model *m = &run->model;
	unsigned int promises = m->npromises, last;
	struct sim_at all;

	for (unsigned int t = 0; t < SIM_NTHREADS; t++)
		all.n[t] = m->nops[t];
	/* as if all of it had just been promised */
	sim_model_promise_all(m, all, 0);
	sim_compare(run, run->fs, SIZE_MAX, false, &run->complaint);
	m->npromises = promises;
	for (unsigned int i = 0; i < m->nfiles; i++) {
		last = --m->files[i]->npromises;
		slu_assert(m->files[i]->promises[last].record == 0);
	}
}

static void finish(struct sim_run *run)
{
	struct sim_at all = sim_model_known(&run->model, 0);

	if (!run->w->unmount) {
		sim_count_refused(run);
		slu_simdisk_record(run->disk, false);
		slu_simdisk_power_cut(run->disk, 1);
		slu_fs_unmount(run->fs);
		run->fs = NULL;
		return;
	}
	for (unsigned int t = 0; t < SIM_NTHREADS; t++) {
		sim_op_close(&run->tasks[t]);
		all.n[t] = run->model.nops[t];
	}
	if (sim_unmount(run))
		sim_model_promise_all(&run->model, all, slu_simdisk_nrecords(run->disk));
}

/*
 * The threads stay close together, so that operations meet that are next to each other in the
 * workload: each begins when those before its neighbour have ended.
 */
static void wait_for_turn(struct sim_task *t, unsigned int i)
{
	struct sim_run *run = t->run;

	slu_mutex_lock(&run->turn_lock);
	while (run->w->threads && run->ndone[!t->thread] + 1 < i)
		slu_cond_wait(&run->turn, &run->turn_lock);
	slu_mutex_unlock(&run->turn_lock);
}

static void say_done(struct sim_task *t, unsigned int n)
{
	struct sim_run *run = t->run;

	slu_mutex_lock(&run->turn_lock);
	run->ndone[t->thread] = n;
	slu_cond_broadcast(&run->turn);
	slu_mutex_unlock(&run->turn_lock);
}

static unsigned int thread_of(const struct sim_run *run, const struct sim_op *op)
{
	return run->w->threads ? op->thread : 0;
}

/* The operations of one thread. */
static void task(void *arg)
{
	struct sim_task *t = arg;
	struct sim_run *run = t->run;

	for (unsigned int i = 0; i < run->w->nops && run->fs && !run->complaint.len; i++) {
		const struct sim_op *op = &run->w->ops[i];

		say_done(t, i);
		if (thread_of(run, op) != t->thread)
			continue;
		wait_for_turn(t, i);
		sim_model_begin(&run->model, t->thread, slu_simdisk_nrecords(run->disk),
				sim_op_on_names(op->kind));
		sim_op_run(t, op);
		sim_model_end(&run->model, t->thread);
	}
	say_done(t, UINT32_MAX - 1);
}

static void run_threads(struct sim_run *run)
{
	struct sim_task *other = &run->tasks[1];
	int err = 0;

	if (run->w->threads)
		err = slu_thread_start(&other->task, "sim-other", task, other);
	slu_assert(!err);
	task(&run->tasks[0]);
	if (run->w->threads)
		slu_thread_join(&other->task);
}

static void first_task(void *arg)
{
	struct sim_run *run = arg;

	format(run);
	if (!sim_mount(run))
		return;
	prepare(run);
	slu_simdisk_record(run->disk, true);
	run->recording = true;
	if (run->w->latency)
		slu_simdisk_latency(run->disk, MOST_DELAY);
	run_threads(run);
	sim_heal(run);
	if (!run->complaint.len)
		sim_model_order(&run->model, &run->complaint);
	if (!run->fs)
		return;
	if (!run->complaint.len)
		compare_now(run);
	finish(run);
}

bool sim_run(struct sim_run *run, const struct sim_workload *w)
{
	uint64_t seed = w->seed + (w->schedule << 32);
	struct slu_sim *sim = slu_sim_new(seed);
	int err;

	slu_assert(sim);
	*run = (struct sim_run){.w = w};
	for (unsigned int t = 0; t < SIM_NTHREADS; t++)
		run->tasks[t] =
			(struct sim_task){.run = run, .thread = t, .ctx = {.may_wait = true}};
	sim_model_init(&run->model);
	slu_mutex_init(&run->turn_lock, SLU_RANK_LEAF, 0, "turns");
	slu_cond_init(&run->turn);
	run->disk = slu_simdisk_new(SIM_VOLUME_BLOCKS, seed);
	slu_sim_preempt(sim, w->threads ? 4 : 16);
	slu_sim_hurry(sim, w->latency ? 512 : 0);
	err = slu_sim_run(sim, first_task, run, stderr);
	slu_assert(!err);
	slu_sim_free(sim);
	return !run->complaint.len;
}

void sim_run_fini(struct sim_run *run)
{
	slu_cond_fini(&run->turn);
	slu_mutex_fini(&run->turn_lock);
	slu_simdisk_free(run->disk);
	sim_model_fini(&run->model);
	sim_text_fini(&run->complaint);
}
