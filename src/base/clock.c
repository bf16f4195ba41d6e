/* SPDX-License-Identifier: MIT */
/*
 * Clocks, sleeping and random numbers: the kernel's, or those of the simulation this thread
 * belongs to. Keeps no state.
 */
#include "base_private.h"
#include <sys/random.h>

/* 2024-01-01 00:00:00 UTC: what the wall clock of a simulation shows when its clock shows 0. */
#define SIM_EPOCH 1704067200

uint64_t slu_clock_ns(void)
{
	struct timespec now;

	if (sim_active())
		return sim_clock_ns();
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SLU_NS_PER_SEC + (uint64_t)now.tv_nsec;
}

struct timespec slu_clock_realtime(void)
{
	struct timespec now;

	if (sim_active()) {
		uint64_t ns = sim_clock_ns();

		now.tv_sec = SIM_EPOCH + (time_t)(ns / SLU_NS_PER_SEC);
		now.tv_nsec = (long)(ns % SLU_NS_PER_SEC);
	} else {
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	}
	return now;
}

void slu_sleep_ns(uint64_t ns)
{
	struct timespec until;
	uint64_t deadline;

	if (sim_active()) {
		sim_sleep_ns(ns);
		return;
	}
	deadline = slu_clock_ns() + ns;
	until.tv_sec = (time_t)(deadline / SLU_NS_PER_SEC);
	until.tv_nsec = (long)(deadline % SLU_NS_PER_SEC);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

uint64_t slu_random(void)
{
	uint64_t n;

	if (sim_active())
		return sim_random();
	/*
	 * Up to 256 bytes come whole once the pool is ready; only the wait for that can break off.
	 */
	while (getrandom(&n, sizeof(n), 0) != sizeof(n))
		slu_assert(errno == EINTR);
	return n;
}
