/* SPDX-License-Identifier: MIT */
/*
 * Faults: requests to the disk that fail while the workload runs, before the power does.
 *
 * The model knows nothing of them. An operation that returned an error has promised nothing, one
 * that returned 0 has promised what it always promises, and what was promised before holds: a fault
 * takes back nothing and excuses nothing but errors. What an operation that failed has left is asked of
 * the volume (learn, in data.c), which has to answer as long as it is mounted, and has left nothing
 * that the operation may not leave.
 *
 * Silent faults are not made: the volume has no checksums of data, and promises nothing there.
 */
#include "sim.h"

uint64_t sim_refused(const struct sim_run *run)
{
	return atomic_load(&slu_blockio_stats(run->fs->bio)->errors);
}

void sim_count_refused(struct sim_run *run)
{
	run->refused += sim_refused(run);
}

void sim_op_fault(struct sim_run *run, const struct sim_op *op)
{
	struct slu_simdisk_fault fault = {
		.op = (enum slu_io_op)op->dir,
		.kind = op->name,
		.nth = op->pos,
		.times = op->len == SIM_FAULT_ALWAYS ? UINT64_MAX : op->len,
		.nblocks = op->arg == SIM_FAULT_SUPER ? 2 : 0,
	};

	run->unwell = true;
	if (op->kind == SIM_FAULT) {
		slu_simdisk_fault(run->disk, &fault);
	} else if (op->kind == SIM_HOST_FULL) {
		slu_simdisk_host_space(run->disk, op->len);
	} else {
		run->gone = true;
		slu_simdisk_fail(run->disk, true);
	}
}

void sim_heal(struct sim_run *run)
{
	slu_simdisk_fault(run->disk, NULL);
	slu_simdisk_host_space(run->disk, UINT64_MAX);
	slu_simdisk_fail(run->disk, false);
	run->unwell = run->gone = false;
}

void sim_let_read(struct sim_run *run, bool on)
{
	if (run->gone)
		slu_simdisk_fail(run->disk, !on);
}
