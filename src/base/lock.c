/* SPDX-License-Identifier: MIT */
/*
 * Mutex, rwlock and condition: pthread's on an ordinary thread, the scheduler's in a simulation,
 * with the rank checked before the wait and recorded after it.
 *
 * An error from pthread here is a broken invariant of ours (a lock destroyed while held, unlocked
 * twice), never a condition to handle, so every one is asserted.
 */
#include "base_private.h"

#define must(call)                         \
	do {                               \
		int must_err = (call);     \
		slu_assert(must_err == 0); \
	} while (0)

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / SLU_NS_PER_SEC),
				 .tv_nsec = (long)(ns % SLU_NS_PER_SEC)};
}

/* ------------------------------------------------------------------ mutex */

void slu_mutex_init(struct slu_mutex *m, enum slu_rank rank, uint64_t order, const char *name)
{
	must(pthread_mutex_init(&m->mutex, NULL));
	m->order = order;
	m->sim_owner = NULL;
	m->rank = rank;
	m->name = name;
}

void slu_mutex_fini(struct slu_mutex *m)
{
	slu_assert(!m->sim_owner);
	/* EBUSY while somebody holds it. */
	must(pthread_mutex_destroy(&m->mutex));
}

void slu_mutex_lock_at(struct slu_mutex *m, const char *site) SLU_NO_TSA
{
	rank_check(m->rank, m->order, m->name, site);
	if (sim_active())
		sim_mutex_lock(m, site);
	else
		must(pthread_mutex_lock(&m->mutex));
	rank_push(m->rank, m->order, m, m->name, site);
}

bool slu_mutex_trylock_at(struct slu_mutex *m, const char *site) SLU_NO_TSA
{
	if (sim_active()) {
		if (!sim_mutex_trylock(m))
			return false;
	} else {
		int err = pthread_mutex_trylock(&m->mutex);

		slu_assert(err == 0 || err == EBUSY);
		if (err)
			return false;
	}
	rank_push(m->rank, m->order, m, m->name, site);
	return true;
}

void slu_mutex_unlock(struct slu_mutex *m) SLU_NO_TSA
{
	rank_pop(m);
	if (sim_active())
		sim_mutex_unlock(m);
	else
		must(pthread_mutex_unlock(&m->mutex));
}

/* ------------------------------------------------------------------ rwlock */

void slu_rwlock_init(struct slu_rwlock *l, enum slu_rank rank, uint64_t order, const char *name)
{
	pthread_rwlockattr_t attr;

	must(pthread_rwlockattr_init(&attr));
	/* The one kind of glibc's in which a writer that waits stops new readers. */
	must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	must(pthread_rwlock_init(&l->rwlock, &attr));
	must(pthread_rwlockattr_destroy(&attr));
	l->order = order;
	l->sim_writer = NULL;
	l->sim_readers = 0;
	l->sim_writers_waiting = 0;
	l->rank = rank;
	l->name = name;
}

void slu_rwlock_fini(struct slu_rwlock *l)
{
	slu_assert(!l->sim_writer && !l->sim_readers && !l->sim_writers_waiting);
	/* pthread_rwlock_destroy does not tell whether it is held. */
	must(pthread_rwlock_trywrlock(&l->rwlock));
	must(pthread_rwlock_unlock(&l->rwlock));
	must(pthread_rwlock_destroy(&l->rwlock));
}

void slu_rwlock_rdlock_at(struct slu_rwlock *l, const char *site) SLU_NO_TSA
{
	rank_check(l->rank, l->order, l->name, site);
	if (sim_active())
		sim_rwlock_rdlock(l, site);
	else
		must(pthread_rwlock_rdlock(&l->rwlock));
	rank_push(l->rank, l->order, l, l->name, site);
}

void slu_rwlock_wrlock_at(struct slu_rwlock *l, const char *site) SLU_NO_TSA
{
	rank_check(l->rank, l->order, l->name, site);
	if (sim_active())
		sim_rwlock_wrlock(l, site);
	else
		must(pthread_rwlock_wrlock(&l->rwlock));
	rank_push(l->rank, l->order, l, l->name, site);
}

bool slu_rwlock_trywrlock_at(struct slu_rwlock *l, const char *site) SLU_NO_TSA
{
	if (sim_active()) {
		if (!sim_rwlock_trywrlock(l))
			return false;
	} else {
		int err = pthread_rwlock_trywrlock(&l->rwlock);

		slu_assert(err == 0 || err == EBUSY);
		if (err)
			return false;
	}
	rank_push(l->rank, l->order, l, l->name, site);
	return true;
}

void slu_rwlock_rdunlock(struct slu_rwlock *l) SLU_NO_TSA
{
	rank_pop(l);
	if (sim_active())
		sim_rwlock_rdunlock(l);
	else
		must(pthread_rwlock_unlock(&l->rwlock));
}

void slu_rwlock_wrunlock(struct slu_rwlock *l) SLU_NO_TSA
{
	rank_pop(l);
	if (sim_active())
		sim_rwlock_wrunlock(l);
	else
		must(pthread_rwlock_unlock(&l->rwlock));
}

/* ------------------------------------------------------------------ condition */

void slu_cond_init(struct slu_cond *c)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(&c->cond, &attr));
	must(pthread_condattr_destroy(&attr));
}

void slu_cond_fini(struct slu_cond *c)
{
	if (sim_active())
		slu_assert(sim_cond_idle(c));
	must(pthread_cond_destroy(&c->cond));
}

void slu_cond_wait_at(struct slu_cond *c, struct slu_mutex *m, const char *site) SLU_NO_TSA
{
	rank_assert_only(m, "a condition", site);
	if (sim_active())
		sim_cond_wait(c, m, SLU_NO_DEADLINE, site);
	else
		must(pthread_cond_wait(&c->cond, &m->mutex));
}

int slu_cond_timedwait_at(struct slu_cond *c, struct slu_mutex *m, uint64_t deadline_ns,
			  const char *site) SLU_NO_TSA
{
	struct timespec until;
	int err;

	rank_assert_only(m, "a condition", site);
	if (sim_active())
		return sim_cond_wait(c, m, deadline_ns, site);
	if (deadline_ns == SLU_NO_DEADLINE) {
		must(pthread_cond_wait(&c->cond, &m->mutex));
		return 0;
	}
	until = to_timespec(deadline_ns);
	err = pthread_cond_timedwait(&c->cond, &m->mutex, &until);
	slu_assert(err == 0 || err == ETIMEDOUT);
	return -err;
}

void slu_cond_signal(struct slu_cond *c)
{
	if (sim_active())
		sim_cond_wake(c, false);
	else
		must(pthread_cond_signal(&c->cond));
}

void slu_cond_broadcast(struct slu_cond *c)
{
	if (sim_active())
		sim_cond_wake(c, true);
	else
		must(pthread_cond_broadcast(&c->cond));
}
