/* SPDX-License-Identifier: MIT */
/*
 * The simulator's insides: sim.c has the scheduler, sim_sync.c what tasks do with locks.
 *
 * States of a task (sim_state_name prints them). Only one task at a time is running; it is
 * RUNNABLE. A task is *eligible* if it could go on at once; only eligible tasks are picked, so
 * nobody is woken in vain.
 *
 *	state     waits for           eligible when             left by
 *	RUNNABLE  its turn            always                    (picked)
 *	YIELDED   its turn, politely  always                    sim_resume
 *	MUTEX     addr, a mutex       it has no owner           sim_resume takes it
 *	RDLOCK    addr, a rwlock      no writer has or wants it sim_resume takes it
 *	WRLOCK    addr, a rwlock      nobody has it             sim_resume takes it
 *	COND      addr, a condition   never                     sim_wake_one, sim_expire: → MUTEX
 *	WORD      addr, a word        never                     sim_wake_one, sim_expire: → RUNNABLE
 *	SLEEP     the clock           never                     sim_expire: → RUNNABLE
 *	JOIN      addr, another task  that is DEAD              sim_resume
 *	DEAD      to be joined        never                     freed
 */
#ifndef SLU_SIM_PRIVATE_H
#define SLU_SIM_PRIVATE_H

#include "base_private.h"

enum sim_state {
	SIM_RUNNABLE,
	SIM_YIELDED,
	SIM_MUTEX,
	SIM_RDLOCK,
	SIM_WRLOCK,
	SIM_COND,
	SIM_WORD,
	SIM_SLEEP,
	SIM_JOIN,
	SIM_DEAD,
};

struct sim_task {
	struct slu_sim *sim;
	pthread_t thread;
	_Atomic uint32_t baton; /* 1: this task may run */
	unsigned int id;        /* from 1, in the order of their start */
	enum sim_state state;
	const void *addr;
	struct slu_mutex *mutex; /* COND: to be taken again */
	uint32_t expected;       /* WORD: for the report */
	uint64_t deadline;       /* COND, WORD, SLEEP */
	bool timed_out;
	const char *site;
	const struct rank_stack *held; /* of its thread; NULL if not checked in this build */
	void (*fn)(void *);
	void *arg;
	char name[16];
};

/* Everything in it belongs to whoever has the baton: a task, or the thread in slu_sim_run. */
struct slu_sim {
	uint64_t seed;
	uint64_t random[4]; /* xoshiro256** */
	uint64_t clock;     /* ns */
	uint64_t trace;     /* hash of every choice so far */
	uint64_t steps, max_steps;
	unsigned int preempt;    /* one in n points switches; 0: none */
	unsigned int spurious;   /* one in n waits ends at once; 0: none */
	unsigned int hurry;      /* one in n choices lets time pass first; 0: none */
	FILE *log;               /* every switch goes there; NULL: nowhere */
	struct sim_task **tasks; /* in the order of their ids */
	unsigned int ntasks, room, next_id, nlive;
	struct alloc_fault fault;
	_Atomic uint32_t baton; /* the one of the thread in slu_sim_run */
	int result;
	bool stopped; /* tasks were left where they stood */
};

/* True one time in n; never if n is 0. */
bool sim_chance(struct slu_sim *sim, unsigned int one_in_n);
/* The caller's task waits as its fields say, until it is picked again. */
void sim_wait(struct sim_task *self, enum sim_state state, const void *addr, const char *site);
int sim_task_start(struct slu_sim *sim, const char *name, void (*fn)(void *), void *arg,
		   struct sim_task **ret);
/* Waits for the thread of a task that is DEAD, and frees the task. */
void sim_task_free(struct sim_task *task);

#endif
