/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzers share. Each has libFuzzer's entry point; without libFuzzer replay.c calls it for
 * every file it is given, so that what was found once stays a test of every build.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "sluice/check.h"
#include "sluice/fs.h"
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must not be, whatever the input: ends the process, so that the input is kept. */
#define fuzz_fail(...)                        \
	do {                                  \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr);          \
		abort();                      \
	} while (0)

/* The input, taken from the front. Past its end there are zeros. */
struct fuzz_bytes {
	const uint8_t *p;
	size_t left;
};

static inline const uint8_t *fuzz_take(struct fuzz_bytes *in, size_t n)
{
	const uint8_t *p = in->p;

	if (n > in->left)
		return NULL;
	in->p += n;
	in->left -= n;
	return p;
}

/* Runs fn in a simulation: equal inputs give equal runs, and a deadlock or a loop has an end. */
void fuzz_simulate(uint64_t seed, unsigned int preempt, void (*fn)(void *), void *arg);
struct slu_blockio *fuzz_open_disk(struct slu_simdisk *disk, bool readonly);
/* slu_check of what is on the disk. print: every problem goes to stderr. */
int fuzz_check(struct slu_simdisk *disk, bool print, struct slu_check_result *ret);

#endif
