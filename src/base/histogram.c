/* SPDX-License-Identifier: MIT */
/* Histograms of durations. Counters are atomics that order nothing; takes no lock. */
#include "sluice/histogram.h"

static unsigned int bucket_of(uint64_t ns)
{
	uint64_t usec = ns / 1000 + (ns % 1000 != 0);
	unsigned int i = usec <= 1 ? 0 : 64 - (unsigned int)__builtin_clzll(usec - 1);

	return slu_min(i, SLU_HISTOGRAM_BUCKETS - 1);
}

uint64_t slu_histogram_end_ns(unsigned int i)
{
	return i < SLU_HISTOGRAM_BUCKETS - 1 ? 1000ull << i : UINT64_MAX;
}

void slu_histogram_add(struct slu_histogram *h, uint64_t ns)
{
	atomic_fetch_add_explicit(&h->total_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->buckets[bucket_of(ns)], 1, memory_order_relaxed);
}

void slu_histogram_read(const struct slu_histogram *h, struct slu_histogram_view *ret)
{
	ret->count = 0;
	ret->total_ns = atomic_load_explicit(&h->total_ns, memory_order_relaxed);
	for (unsigned int i = 0; i < SLU_HISTOGRAM_BUCKETS; i++) {
		ret->buckets[i] = atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
		ret->count += ret->buckets[i];
	}
}

void slu_histogram_between(const struct slu_histogram_view *before,
			   const struct slu_histogram_view *after, struct slu_histogram_view *ret)
{
	ret->count = after->count - before->count;
	ret->total_ns = after->total_ns - before->total_ns;
	for (unsigned int i = 0; i < SLU_HISTOGRAM_BUCKETS; i++)
		ret->buckets[i] = after->buckets[i] - before->buckets[i];
}

double slu_histogram_quantile(const struct slu_histogram_view *v, double q)
{
	double rank = q * (double)v->count, below = 0, begin = 0;

	for (unsigned int i = 0; i < SLU_HISTOGRAM_BUCKETS - 1; i++) {
		double n = (double)v->buckets[i], end = (double)slu_histogram_end_ns(i);

		if (n > 0 && below + n >= rank)
			return begin + (end - begin) * (rank - below) / n;
		below += n;
		begin = end;
	}
	return v->count ? begin : 0;
}
