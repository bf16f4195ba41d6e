/* SPDX-License-Identifier: MIT */
/*
 * What the files of base share: the way into the simulator, the rank stack, fault counters.
 *
 * Each public function asks sim_self first. NULL means an ordinary thread: pthread, futex, libc.
 * Otherwise the sim_*() counterpart does the same by scheduling alone and never touches a real
 * lock; the sim_* members of the public lock structures are its state. They need no lock of their
 * own, since only the task with the baton runs.
 */
#ifndef SLU_BASE_PRIVATE_H
#define SLU_BASE_PRIVATE_H

#include "sluice/base.h"

/* ------------------------------------------------------------------ simulator */

/* The task this thread is, or NULL on an ordinary thread. */
extern __thread struct sim_task *sim_self;

static inline bool sim_active(void)
{
	return __builtin_expect(sim_self != NULL, 0);
}

/* A scheduling point at which the caller can go on: now and then another task goes first. */
void sim_point(void);
void sim_yield(void);
void sim_sleep_ns(uint64_t ns);
uint64_t sim_clock_ns(void);
uint64_t sim_random(void);
/* "[seed 7, task 2 "commit", at 1.000000000 s]" for messages; "" outside a simulation. */
void sim_describe(char *buf, size_t size);

void sim_mutex_lock(struct slu_mutex *m, const char *site);
bool sim_mutex_trylock(struct slu_mutex *m);
void sim_mutex_unlock(struct slu_mutex *m);
void sim_rwlock_rdlock(struct slu_rwlock *l, const char *site);
void sim_rwlock_wrlock(struct slu_rwlock *l, const char *site);
bool sim_rwlock_trywrlock(struct slu_rwlock *l);
void sim_rwlock_rdunlock(struct slu_rwlock *l);
void sim_rwlock_wrunlock(struct slu_rwlock *l);
int sim_cond_wait(struct slu_cond *c, struct slu_mutex *m, uint64_t deadline_ns, const char *site);
void sim_cond_wake(struct slu_cond *c, bool all);
bool sim_cond_idle(const struct slu_cond *c);
int sim_word_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns,
		  const char *site);
void sim_word_wake(_Atomic uint32_t *word, int nwaiters);
int sim_thread_start(struct slu_thread *t, const char *name, void (*fn)(void *), void *arg);
void sim_thread_join(struct slu_thread *t);

/* ------------------------------------------------------------------ real threads and futexes */

/* pthread_create with all signals blocked in the new thread; 0, -EAGAIN or -ENOMEM. */
int thread_create(pthread_t *thread, void *(*fn)(void *), void *arg);
/* Names the calling thread; longer names are cut at 15 bytes. */
void thread_set_name(const char *name);

/* FUTEX_WAIT until deadline_ns (CLOCK_MONOTONIC); 0 (also if spurious) or -ETIMEDOUT. */
int futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns, bool shared);
void futex_wake(_Atomic uint32_t *word, int nwaiters, bool shared);

/* ------------------------------------------------------------------ allocation faults */

struct alloc_fault {
	uint64_t count; /* allocations since slu_alloc_fail_nth */
	uint64_t nth;   /* the one to fail; 0: none */
};

struct alloc_fault *sim_alloc_fault(void);

/* ------------------------------------------------------------------ rank stack */

#ifdef SLU_DEBUG_LOCKS

/* Page locks of one writeback run may all be held at once: 1,024 and some others. */
#define RANK_MAX_HELD 1088

struct rank_held {
	const void *lock;
	const char *name; /* NULL for a lock that is a bit in a word */
	const char *site;
	uint64_t order;
	enum slu_rank rank;
};

struct rank_stack {
	unsigned int n;
	struct rank_held held[RANK_MAX_HELD];
};

/* Aborts if the calling thread may not wait for this lock now. */
void rank_check(enum slu_rank rank, uint64_t order, const char *name, const char *site);
void rank_push(enum slu_rank rank, uint64_t order, const void *lock, const char *name,
	       const char *site);
void rank_pop(const void *lock);
/* Aborts if the calling thread holds anything but `lock`, or does not hold that. */
void rank_assert_only(const void *lock, const char *what, const char *site);
const struct rank_stack *rank_stack_of_this_thread(void);
/* `page 17 (src/x.c:12)` */
void rank_format(char *buf, size_t size, const struct rank_held *held);

#else

static inline void rank_check(enum slu_rank rank, uint64_t order, const char *name,
			      const char *site)
{
}

static inline void rank_push(enum slu_rank rank, uint64_t order, const void *lock, const char *name,
			     const char *site)
{
}

static inline void rank_pop(const void *lock)
{
}

static inline void rank_assert_only(const void *lock, const char *what, const char *site)
{
}

#endif

#endif
