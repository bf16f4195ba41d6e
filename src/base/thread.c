/* SPDX-License-Identifier: MIT */
/*
 * Threads. A thread started by a task of a simulation is a task of it; any other is a plain
 * pthread. Signals are blocked in all of them, so that the main thread alone deals with them.
 */
#include "base_private.h"
#include <sched.h>
#include <signal.h>
#include <string.h>

struct thread_start {
	void (*fn)(void *);
	void *arg;
	char name[16];
};

void thread_set_name(const char *name)
{
	char cut[16];

	snprintf(cut, sizeof(cut), "%s", name);
	pthread_setname_np(pthread_self(), cut);
}

int thread_create(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	slu_assert(err != EINVAL);
	return -err;
}

/* What every thread runs, a task of a simulation too. */
static void thread_run(void *arg)
{
	struct thread_start start = *(struct thread_start *)arg;

	slu_free(arg);
	start.fn(start.arg);
	slu_assert_no_locks("the end of its thread");
}

static void *thread_main(void *arg)
{
	thread_set_name(((struct thread_start *)arg)->name);
	thread_run(arg);
	return NULL;
}

int slu_thread_start(struct slu_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	struct thread_start *start;
	int err;

	*t = (struct slu_thread){0};
	start = slu_alloc(sizeof(*start));
	if (!start)
		return -ENOMEM;
	start->fn = fn;
	start->arg = arg;
	snprintf(start->name, sizeof(start->name), "%s", name);
	if (sim_active())
		err = sim_thread_start(t, start->name, thread_run, start);
	else
		err = thread_create(&t->thread, thread_main, start);
	if (err) {
		slu_free(start);
		return err;
	}
	t->started = true;
	return 0;
}

void slu_thread_join(struct slu_thread *t)
{
	int err;

	if (!t->started)
		return;
	slu_assert_no_locks("the end of a thread");
	if (sim_active()) {
		sim_thread_join(t);
	} else {
		slu_assert(!t->sim_task);
		err = pthread_join(t->thread, NULL);
		slu_assert(err == 0);
	}
	t->started = false;
}

void slu_yield(void)
{
	if (sim_active())
		sim_yield();
	else
		sched_yield();
}
