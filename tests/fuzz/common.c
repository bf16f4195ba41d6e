/* SPDX-License-Identifier: MIT */
/* The simulation a fuzzer's input is run in, and the disk below it. */
#include "fuzz.h"

/* A run takes some 10,000; one that goes on and on is a hang that does not need a clock. */
#define MAX_STEPS 20000000u

void fuzz_simulate(uint64_t seed, unsigned int preempt, void (*fn)(void *), void *arg)
{
	struct slu_sim *sim = slu_sim_new(seed);
	int err;

	if (!sim)
		fuzz_fail("no memory for the simulation");
	slu_sim_preempt(sim, preempt);
	slu_sim_spurious(sim, preempt ? 64 : 0);
	slu_sim_limit(sim, MAX_STEPS);
	err = slu_sim_run(sim, fn, arg, stderr);
	if (err)
		fuzz_fail("the simulation ended with %d", err);
	slu_sim_free(sim);
}

struct slu_blockio *fuzz_open_disk(struct slu_simdisk *disk, bool readonly)
{
	struct slu_blockio_opts opts = {.engine = "sim", .sim = disk, .readonly = readonly};
	struct slu_blockio *bio;
	int err = slu_blockio_open("sim", &opts, &bio);

	if (err)
		fuzz_fail("the simulated disk cannot be opened: %d", err);
	return bio;
}

static void on_problem(void *ctx, const struct slu_problem *p)
{
	const bool *print = ctx;

	if (*print)
		fprintf(stderr, "%s%s: %s\n", p->note ? "(note) " : "", slu_problem_name(p->kind),
			p->text);
}

int fuzz_check(struct slu_simdisk *disk, bool print, struct slu_check_result *ret)
{
	struct slu_check_opts opts = {.problem = on_problem, .ctx = &print};
	struct slu_blockio *bio = fuzz_open_disk(disk, true);
	const char *why = NULL;
	int err;

	*ret = (struct slu_check_result){0};
	err = slu_check(bio, &opts, ret, &why);
	if (err && print)
		fprintf(stderr, "check: %d, %s\n", err, why ? why : "no reason");
	slu_blockio_close(bio);
	return err;
}
