/* SPDX-License-Identifier: MIT */
/*
 * How long things took: counts in buckets that double. Added to from any thread, without a lock;
 * read while it is added to, so that the parts of one look may be apart by what was just added.
 */
#ifndef SLUICE_HISTOGRAM_H
#define SLUICE_HISTOGRAM_H

#include "sluice/base.h"

/* Bucket i counts what took up to 2^i microseconds (and more than 2^(i-1)), the last all else. */
#define SLU_HISTOGRAM_BUCKETS 24u

struct slu_histogram {
	_Atomic uint64_t total_ns;
	_Atomic uint64_t buckets[SLU_HISTOGRAM_BUCKETS];
};

/* What one held at a moment, or what was added to it in an interval. */
struct slu_histogram_view {
	uint64_t count, total_ns;
	uint64_t buckets[SLU_HISTOGRAM_BUCKETS];
};

void slu_histogram_add(struct slu_histogram *h, uint64_t ns);
void slu_histogram_read(const struct slu_histogram *h, struct slu_histogram_view *ret);
/* What was added between two looks at the same one. */
void slu_histogram_between(const struct slu_histogram_view *before,
			   const struct slu_histogram_view *after, struct slu_histogram_view *ret);
/* Where bucket i ends, in nanoseconds; UINT64_MAX: nowhere. */
uint64_t slu_histogram_end_ns(unsigned int i);
/*
 * The duration, in nanoseconds, that the part q (0 to 1) did not exceed; evenly spread within a
 * bucket, as Prometheus has it. In the last bucket: where that begins. 0: it is empty.
 */
double slu_histogram_quantile(const struct slu_histogram_view *v, double q);

#endif
