/* SPDX-License-Identifier: MIT */
/* fsck of what is on a rig's disk, for the tests of fs that say what a crash or a change has left. */
#ifndef SLU_TEST_FS_CHECK_H
#define SLU_TEST_FS_CHECK_H

#include "fs_rig.h"
#include "sluice/check.h"

static inline void complain(void *ctx, const struct slu_problem *p)
{
	if (!p->note)
		print_error("%s\n", p->text);
}

/* Nothing is wrong; what was found otherwise. */
static inline struct slu_check_result check_sound(struct slu_simdisk *disk)
{
	struct slu_check_opts opts = {.problem = complain};
	struct slu_simdisk *copy = slu_simdisk_clone(disk);
	struct slu_blockio_opts open = {.engine = "sim", .sim = copy, .readonly = true};
	struct slu_check_result result;
	struct slu_blockio *bio;
	const char *why = NULL;

	assert_int_equal(slu_blockio_open("sim", &open, &bio), 0);
	assert_int_equal(slu_check(bio, &opts, &result, &why), 0);
	slu_blockio_close(bio);
	slu_simdisk_free(copy);
	assert_int_equal(result.problems, 0);
	return result;
}

#endif
