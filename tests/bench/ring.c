/* SPDX-License-Identifier: MIT */
/*
 * bench_ring [ROUNDS]: events a second through the ring, to a reader that is woken through an eventfd,
 * and through a GAsyncQueue, from 1 and from 4 threads, in turn; medians. They come in bursts, as from a
 * disk that fails, with the next one when the reader has caught up, so that nothing is lost. What the
 * queue gets is a copy on the heap, as its users make one.
 */
#include "sluice/event.h"
#include <glib.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PER_RUN = 400000, MAX_ROUNDS = 99, MAX_WRITERS = 4, BURST = 32 };

struct run {
	unsigned int nwriters;
	struct slu_ring ring;
	int wake_fd;
	GAsyncQueue *queue;
};

static void wake_reader(void *ctx)
{
	const struct run *run = ctx;

	if (eventfd_write(run->wake_fd, 1))
		abort();
}

static void ring_writer(void *arg)
{
	struct run *run = arg;
	struct slu_event ev = {0};

	for (unsigned int i = 0; i < PER_RUN / run->nwriters; i++) {
		ev.ino = i;
		if (!slu_ring_post(&run->ring, &ev, false))
			abort();
		while (i % BURST == BURST - 1 && slu_ring_used(&run->ring))
			sched_yield();
	}
}

static void queue_writer(void *arg)
{
	struct run *run = arg;
	struct slu_event ev = {0};

	for (unsigned int i = 0; i < PER_RUN / run->nwriters; i++) {
		ev.ino = i;
		g_async_queue_push(run->queue, slu_memdup(&ev, sizeof(ev)));
		while (i % BURST == BURST - 1 && g_async_queue_length(run->queue) > 0)
			sched_yield();
	}
}

static uint64_t read_ring(struct run *run)
{
	struct slu_event ev;
	uint64_t lost, sum = 0;
	eventfd_t woken;

	for (unsigned int n = 0; n < PER_RUN;) {
		if (slu_ring_take(&run->ring, &ev, &lost)) {
			sum += ev.ino;
			n++;
		} else if (eventfd_read(run->wake_fd, &woken)) {
			abort();
		}
	}
	return sum;
}

static uint64_t read_queue(struct run *run)
{
	uint64_t sum = 0;

	for (unsigned int n = 0; n < PER_RUN; n++) {
		struct slu_event *ev = g_async_queue_pop(run->queue);

		sum += ev->ino;
		slu_free(ev);
	}
	return sum;
}

static double once(unsigned int nwriters, bool ring)
{
	struct slu_thread writers[MAX_WRITERS];
	struct run run = {.nwriters = nwriters, .queue = g_async_queue_new()};
	uint64_t start = slu_clock_ns(), sum;
	double sec;

	run.wake_fd = eventfd(0, EFD_CLOEXEC);
	if (run.wake_fd < 0 ||
	    slu_ring_init(&run.ring, 256, 64, sizeof(struct slu_event), wake_reader, &run))
		abort();
	for (unsigned int i = 0; i < nwriters; i++) {
		if (slu_thread_start(&writers[i], "writer", ring ? ring_writer : queue_writer,
				     &run))
			abort();
	}
	sum = ring ? read_ring(&run) : read_queue(&run);
	sec = (double)(slu_clock_ns() - start) / 1e9;
	for (unsigned int i = 0; i < nwriters; i++)
		slu_thread_join(&writers[i]);
	if (sum != (uint64_t)PER_RUN * (PER_RUN / nwriters - 1) / 2)
		abort();
	slu_ring_fini(&run.ring);
	close(run.wake_fd);
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
