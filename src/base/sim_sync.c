/* SPDX-License-Identifier: MIT */
/*
 * What tasks of a simulation do with locks, conditions, words, threads and time.
 *
 * Called by lock.c, word.c, thread.c and clock.c on threads that are tasks. The sim_* members of
 * the public structures are the whole state of a lock here; the pthread object in it is not
 * touched. The caller has the baton, so nothing changes but by its own hand until it waits or
 * passes a scheduling point. Points lie before an acquisition and after a release: where another
 * thread could come between.
 */
#include "sim_private.h"

/* ------------------------------------------------------------------ mutex */

void sim_mutex_lock(struct slu_mutex *m, const char *site)
{
	sim_point();
	if (m->sim_owner)
		sim_wait(sim_self, SIM_MUTEX, m, site);
	else
		m->sim_owner = sim_self;
}

bool sim_mutex_trylock(struct slu_mutex *m)
{
	sim_point();
	if (m->sim_owner)
		return false;
	m->sim_owner = sim_self;
	return true;
}

void sim_mutex_unlock(struct slu_mutex *m)
{
	slu_assert(m->sim_owner == sim_self);
	m->sim_owner = NULL;
	sim_point();
}

/* ------------------------------------------------------------------ rwlock */

void sim_rwlock_rdlock(struct slu_rwlock *l, const char *site)
{
	sim_point();
	if (l->sim_writer || l->sim_writers_waiting)
		sim_wait(sim_self, SIM_RDLOCK, l, site);
	else
		l->sim_readers++;
}

void sim_rwlock_wrlock(struct slu_rwlock *l, const char *site)
{
	sim_point();
	if (l->sim_writer || l->sim_readers) {
		l->sim_writers_waiting++;
		sim_wait(sim_self, SIM_WRLOCK, l, site);
	} else {
		l->sim_writer = sim_self;
	}
}

bool sim_rwlock_trywrlock(struct slu_rwlock *l)
{
	sim_point();
	if (l->sim_writer || l->sim_readers)
		return false;
	l->sim_writer = sim_self;
	return true;
}

void sim_rwlock_rdunlock(struct slu_rwlock *l)
{
	slu_assert(l->sim_readers > 0);
	l->sim_readers--;
	sim_point();
}

void sim_rwlock_wrunlock(struct slu_rwlock *l)
{
	slu_assert(l->sim_writer == sim_self);
	l->sim_writer = NULL;
	sim_point();
}

/* ------------------------------------------------------------------ conditions and words */

/* Ends the wait of one task in `state` for addr, chosen from the seed; false: there is none. */
static bool sim_wake_one(struct slu_sim *sim, enum sim_state state, const void *addr)
{
	unsigned int waiters = 0;
	uint64_t nth;

	for (unsigned int i = 0; i < sim->ntasks; i++)
		waiters += sim->tasks[i]->state == state && sim->tasks[i]->addr == addr;
	if (!waiters)
		return false;
	nth = waiters > 1 ? slu_sim_below(sim, waiters) : 0;
	for (unsigned int i = 0; i < sim->ntasks; i++) {
		struct sim_task *task = sim->tasks[i];

		if (task->state != state || task->addr != addr || nth-- != 0)
			continue;
		/* From a condition it goes straight on to wait for the mutex. */
		task->addr = state == SIM_COND ? task->mutex : NULL;
		task->state = state == SIM_COND ? SIM_MUTEX : SIM_RUNNABLE;
		task->deadline = SLU_NO_DEADLINE;
		break;
	}
	return true;
}

int sim_cond_wait(struct slu_cond *c, struct slu_mutex *m, uint64_t deadline_ns, const char *site)
{
	struct sim_task *self = sim_self;
	struct slu_sim *sim = self->sim;

	slu_assert(m->sim_owner == self);
	m->sim_owner = NULL;
	self->mutex = m;
	self->timed_out = deadline_ns <= sim->clock;
	if (self->timed_out || sim_chance(sim, sim->spurious)) {
		/* No wait but the one for the mutex, in which others may go first. */
		sim_wait(self, SIM_MUTEX, m, site);
	} else {
		self->deadline = deadline_ns;
		sim_wait(self, SIM_COND, c, site);
	}
	slu_assert(m->sim_owner == self);
	return self->timed_out ? -ETIMEDOUT : 0;
}

void sim_cond_wake(struct slu_cond *c, bool all)
{
	while (sim_wake_one(sim_self->sim, SIM_COND, c) && all)
		;
	sim_point();
}

bool sim_cond_idle(const struct slu_cond *c)
{
	const struct slu_sim *sim = sim_self->sim;

	for (unsigned int i = 0; i < sim->ntasks; i++) {
		if (sim->tasks[i]->state == SIM_COND && sim->tasks[i]->addr == c)
			return false;
	}
	return true;
}

int sim_word_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns, const char *site)
{
	struct sim_task *self = sim_self;
	struct slu_sim *sim = self->sim;

	sim_point();
	if (atomic_load_explicit(word, memory_order_acquire) != expected)
		return 0;
	if (deadline_ns <= sim->clock)
		return -ETIMEDOUT;
	if (sim_chance(sim, sim->spurious))
		return 0;
	self->deadline = deadline_ns;
	self->timed_out = false;
	self->expected = expected;
	sim_wait(self, SIM_WORD, word, site);
	return self->timed_out ? -ETIMEDOUT : 0;
}

void sim_word_wake(_Atomic uint32_t *word, int nwaiters)
{
	/* Between the change of the word and the wake. */
	sim_point();
	while (nwaiters-- > 0 && sim_wake_one(sim_self->sim, SIM_WORD, word))
		;
	sim_point();
}

/* ------------------------------------------------------------------ threads and time */

int sim_thread_start(struct slu_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	struct sim_task *task;
	int err;

	err = sim_task_start(sim_self->sim, name, fn, arg, &task);
	if (err)
		return err;
	t->thread = task->thread;
	t->sim_task = task;
	/* Set by the caller too, but the new task may look before. */
	t->started = true;
	sim_point();
	return 0;
}

void sim_thread_join(struct slu_thread *t)
{
	struct sim_task *task = t->sim_task;

	slu_assert(task && task->sim == sim_self->sim && task != sim_self);
	sim_point();
	if (task->state != SIM_DEAD)
		sim_wait(sim_self, SIM_JOIN, task, NULL);
	sim_task_free(task);
	t->sim_task = NULL;
}

void sim_yield(void)
{
	sim_wait(sim_self, SIM_YIELDED, NULL, NULL);
}

void sim_sleep_ns(uint64_t ns)
{
	struct sim_task *self = sim_self;

	if (ns == 0) {
		sim_yield();
		return;
	}
	self->deadline =
		ns < SLU_NO_DEADLINE - self->sim->clock ? self->sim->clock + ns : SLU_NO_DEADLINE;
	sim_wait(self, SIM_SLEEP, NULL, NULL);
}
