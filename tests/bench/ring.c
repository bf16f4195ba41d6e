/* SPDX-License-Identifier: MIT */
/*
 * bench_ring [ROUNDS]: slots a second through the ring and through a GAsyncQueue, from 1 and from 4
 * threads to one, in turn; medians. A slot is an event; what the queue gets is a copy on the heap,
 * as its users make one.
 */
#include "sluice/event.h"
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>

enum { PER_RUN = 400000, MAX_ROUNDS = 99, MAX_WRITERS = 4 };

struct run {
	unsigned int nwriters;
	struct slu_ring ring;
	GAsyncQueue *queue;
};

static void ring_writer(void *arg)
{
	struct run *run = arg;
	struct slu_event ev = {0};

	for (unsigned int i = 0; i < PER_RUN / run->nwriters; i++) {
		ev.ino = i;
		(void)slu_ring_push(&run->ring, &ev, SLU_NO_DEADLINE);
	}
}

static void queue_writer(void *arg)
{
	struct run *run = arg;
	struct slu_event ev = {0};

	for (unsigned int i = 0; i < PER_RUN / run->nwriters; i++) {
		ev.ino = i;
		g_async_queue_push(run->queue, slu_memdup(&ev, sizeof(ev)));
	}
}

static double once(unsigned int nwriters, bool ring)
{
	struct slu_thread writers[MAX_WRITERS];
	struct run run = {.nwriters = nwriters, .queue = g_async_queue_new()};
	uint64_t start = slu_clock_ns(), lost, sum = 0;
	struct slu_event ev;
	double sec;

	if (slu_ring_init(&run.ring, 256, 64, sizeof(ev), NULL, NULL))
		abort();
	for (unsigned int i = 0; i < nwriters; i++) {
		if (slu_thread_start(&writers[i], "writer", ring ? ring_writer : queue_writer,
				     &run))
			abort();
	}
	for (unsigned int i = 0; i < PER_RUN; i++) {
		if (ring) {
			(void)slu_ring_pull(&run.ring, &ev, &lost, SLU_NO_DEADLINE);
			sum += ev.ino;
		} else {
			struct slu_event *p = g_async_queue_pop(run.queue);

			sum += p->ino;
			slu_free(p);
		}
	}
	sec = (double)(slu_clock_ns() - start) / 1e9;
	for (unsigned int i = 0; i < nwriters; i++)
		slu_thread_join(&writers[i]);
	if (sum != (uint64_t)PER_RUN * (PER_RUN / nwriters - 1) / 2)
		abort();
	slu_ring_fini(&run.ring);
	g_async_queue_unref(run.queue);
	return PER_RUN / sec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 9;

	if (rounds < 1 || rounds > MAX_ROUNDS) {
		fprintf(stderr, "usage: bench_ring [ROUNDS]\n");
		return 2;
	}
	printf("%-10s%16s%16s%8s\n", "writers", "ring, 1/s", "queue, 1/s", "ratio");
	for (unsigned int nwriters = 1; nwriters <= MAX_WRITERS; nwriters += 3) {
		double ring[MAX_ROUNDS], queue[MAX_ROUNDS];

		for (int i = 0; i < rounds; i++) {
			ring[i] = once(nwriters, true);
			queue[i] = once(nwriters, false);
		}
		qsort(ring, (size_t)rounds, sizeof(*ring), by_value);
		qsort(queue, (size_t)rounds, sizeof(*queue), by_value);
		printf("%-10u%16.0f%16.0f%8.2f\n", nwriters, ring[rounds / 2], queue[rounds / 2],
		       ring[rounds / 2] / queue[rounds / 2]);
	}
	return 0;
}
