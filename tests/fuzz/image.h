/* SPDX-License-Identifier: MIT */
/* The parts of the image fuzzer. */
#ifndef FUZZ_IMAGE_H
#define FUZZ_IMAGE_H

#include "volume.h"

/* Looks at everything, changes everything. Whether anything was answered with EIO. */
bool image_use(struct slu_fs *fs);

#endif
