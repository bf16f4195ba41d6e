/* SPDX-License-Identifier: MIT */
/*
 * base: the thin layer under everything.
 *
 * Every lock, wait, thread start, clock, random number and data-path allocation below `fuse` goes
 * through this header and through nothing else. On an ordinary thread the calls are pthread,
 * futex, clock_gettime, getrandom and malloc. On a thread that belongs to a `slu_sim` they are
 * steps of a scheduler that runs one task at a time and picks the next from a seed, with a clock
 * of its own, so that a whole mount can be replayed. The choice is per thread (a thread-local
 * pointer); there is no global state, and the same binary code serves both.
 *
 * Errors: 0 or a negative errno.
 */
#ifndef SLUICE_BASE_H
#define SLUICE_BASE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef __cplusplus
#error "sluice is C11"
#endif

/* ------------------------------------------------------------------ small helpers */

#define SLU_BLOCK_SHIFT 12
#define SLU_BLOCK_SIZE  (1u << SLU_BLOCK_SHIFT) /* bytes; a page, a block and a node alike */

#define slu_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
/* Constants and plain variables: one argument is evaluated twice. */
#define slu_min(a, b)     ((a) < (b) ? (a) : (b))
#define slu_max(a, b)     ((a) > (b) ? (a) : (b))
#define slu_array_size(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t slu_round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static inline uint64_t slu_round_down(uint64_t n, uint64_t to)
{
	return n / to * to;
}

/* Blocks that bytes [0, len) touch. */
static inline uint64_t slu_bytes_to_blocks(uint64_t len)
{
	return (len >> SLU_BLOCK_SHIFT) + ((len & (SLU_BLOCK_SIZE - 1)) != 0);
}

/*
 * What must hold about our own state. Always compiled in: a filesystem that goes on with a broken
 * invariant writes the damage to disk. Never used on anything that came from FUSE, from the disk
 * or from a socket.
 */
#define slu_assert(cond)                                                        \
	do {                                                                    \
		if (__builtin_expect(!(cond), 0))                               \
			slu_assert_failed(#cond, __FILE__, __LINE__, __func__); \
	} while (0)
_Noreturn void slu_assert_failed(const char *cond, const char *file, int line, const char *func);

/*
 * Mistakes made on purpose, one at a time, for tests/sim/mutants: a simulator that does not find
 * them proves nothing. Only in a build with SLU_MUTANTS; in every other they are false when it is
 * compiled.
 */
enum slu_mutant {
	SLU_MUTANT_NO_FLUSH = 1,     /* no flush between a commit's nodes and its superblock */
	SLU_MUTANT_EARLY_REUSE,      /* blocks freed are used again before the commit is durable */
	SLU_MUTANT_SIZE_FIRST,       /* the size on disk moves past data that is not there */
	SLU_MUTANT_NO_ORPHAN,        /* no orphan record for data beyond the size on disk */
	SLU_MUTANT_NO_SHRINK_COMMIT, /* before_overwrite does nothing */
	SLU_MUTANT_RENAME_NO_WAIT,   /* a rename over a file does not wait for the new data */
	SLU_MUTANT_FSYNC_NO_COMMIT,  /* fsync returns before the commit */
	SLU_MUTANT_FSYNC_NO_FLUSH,   /* data overwritten in place is not flushed by fsync */
	SLU_MUTANT_NO_ZERO_TAIL,     /* what lies behind the end of the last block stays */
	SLU_MUTANT_NO_SETTLE,        /* a truncate does not wait for data below the size it sets */
	SLU_MUTANT_NO_AWAIT,         /* what has been overtaken is taken for a hole */
	SLU_MUTANT_FSYNC_NO_ERROR,   /* fsync returns 0 though data could not be written */
	SLU_MUTANT_FLUSH_NO_ERROR,   /* a flush that failed is taken for one that worked */
	SLU_MUTANT_NO_SECOND_LOOK,   /* a name is not looked up again under the locks */
	SLU_MUTANT_SYNCS_OVERTAKE,   /* a sync passes over what another one is still writing */
	SLU_MUTANT_SYNC_SETTLES_ALL, /* a sync takes for holes what an append has only begun to send */
	SLU_MUTANT_EVICT_TXID,       /* an inode that comes back to memory is taken for durable */
	SLU_MUTANT_END,
};
#if defined(SLU_MUTANTS)
extern enum slu_mutant slu_mutant_chosen; /* set once, before anything is mounted */
#define slu_mutant(which) (slu_mutant_chosen == SLU_MUTANT_##which)
#else
#define slu_mutant(which) false
#endif

/* ------------------------------------------------------------------ thread-safety annotations */

#if defined(__clang__)
#define SLU_TS(x) __attribute__((x))
#else
#define SLU_TS(x)
#endif
#define SLU_CAPABILITY(name)     SLU_TS(capability(name))
#define SLU_ACQUIRE(...)         SLU_TS(acquire_capability(__VA_ARGS__))
#define SLU_ACQUIRE_SHARED(...)  SLU_TS(acquire_shared_capability(__VA_ARGS__))
#define SLU_RELEASE(...)         SLU_TS(release_capability(__VA_ARGS__))
#define SLU_RELEASE_SHARED(...)  SLU_TS(release_shared_capability(__VA_ARGS__))
#define SLU_TRY_ACQUIRE(...)     SLU_TS(try_acquire_capability(__VA_ARGS__))
#define SLU_REQUIRES(...)        SLU_TS(requires_capability(__VA_ARGS__))
#define SLU_REQUIRES_SHARED(...) SLU_TS(requires_shared_capability(__VA_ARGS__))
#define SLU_NO_TSA               SLU_TS(no_thread_safety_analysis)

/* ------------------------------------------------------------------ lock ranks */

/*
 * The lock order of the whole project, outermost first. A thread may take a lock only if its
 * (rank, order) is greater than that of every lock it holds; `order` tells locks of one rank apart
 * (the inode number for inodes, the page index for pages) and is 0 where two of a kind are never
 * held together. Checked at run time where SLU_DEBUG_LOCKS is defined (the dev, asan and tsan
 * presets): a violation prints both sites and aborts.
 */
enum slu_rank {
	SLU_RANK_CONTROL = 10, /* daemon and control state */
	SLU_RANK_INODE = 20,   /* one inode's rwlock; order = inode number */
	SLU_RANK_PAGE = 30,    /* one page's lock bit; order = page index */
	SLU_RANK_EXTENTS = 40, /* one inode's delalloc and in-flight ranges */
	SLU_RANK_SPACE = 50,   /* free blocks and reservations of a volume */
	SLU_RANK_STORE = 60,   /* the tree and the open transaction */
	SLU_RANK_LEAF = 90,    /* short locks under which no other lock is taken */
};

/* A place in the source, for lock reports. */
#define SLU_STR1(x) #x
#define SLU_STR(x)  SLU_STR1(x)
#define SLU_HERE    __FILE__ ":" SLU_STR(__LINE__)

/*
 * For locks that are a bit in a word (page locks): tell the checker. No-ops in release builds.
 * acquire is called before the wait for the lock, so that a deadlock is reported instead of met;
 * acquired_try after a try that succeeded: a try never waits, so its order is not checked, but the
 * lock counts as held from then on (the trylocks below do the same).
 */
void slu_rank_acquire(enum slu_rank rank, uint64_t order, const void *lock, const char *site);
void slu_rank_acquired_try(enum slu_rank rank, uint64_t order, const void *lock, const char *site);
void slu_rank_release(const void *lock);

/*
 * Asserts, in debug builds, that this thread holds no ranked lock at all. Called at the head of
 * everything that can wait for I/O, memory, transaction room or the source.
 */
void slu_assert_no_locks(const char *what);

/* ------------------------------------------------------------------ mutex, rwlock, condition */

/*
 * Plain locks with a rank. Not recursive. init cannot fail; fini asserts that nobody holds it.
 * The members belong to base; `name` is kept, not copied. Unlocked by the thread that locked.
 */
struct SLU_CAPABILITY("mutex") slu_mutex {
	pthread_mutex_t mutex;
	uint64_t order;
	void *sim_owner; /* task that holds it, in a simulation */
	enum slu_rank rank;
	const char *name;
};

struct SLU_CAPABILITY("rwlock") slu_rwlock {
	pthread_rwlock_t rwlock;
	uint64_t order;
	void *sim_writer;
	unsigned int sim_readers, sim_writers_waiting;
	enum slu_rank rank;
	const char *name;
};

struct slu_cond {
	pthread_cond_t cond; /* CLOCK_MONOTONIC */
};

void slu_mutex_init(struct slu_mutex *m, enum slu_rank rank, uint64_t order, const char *name);
void slu_mutex_fini(struct slu_mutex *m);
void slu_mutex_lock_at(struct slu_mutex *m, const char *site) SLU_ACQUIRE(m);
bool slu_mutex_trylock_at(struct slu_mutex *m, const char *site) SLU_TRY_ACQUIRE(true, m);
void slu_mutex_unlock(struct slu_mutex *m) SLU_RELEASE(m);
#define slu_mutex_lock(m)    slu_mutex_lock_at(m, SLU_HERE)
#define slu_mutex_trylock(m) slu_mutex_trylock_at(m, SLU_HERE)

/* Writers are preferred: a stream of readers does not starve one. */
void slu_rwlock_init(struct slu_rwlock *l, enum slu_rank rank, uint64_t order, const char *name);
void slu_rwlock_fini(struct slu_rwlock *l);
void slu_rwlock_rdlock_at(struct slu_rwlock *l, const char *site) SLU_ACQUIRE_SHARED(l);
void slu_rwlock_wrlock_at(struct slu_rwlock *l, const char *site) SLU_ACQUIRE(l);
bool slu_rwlock_trywrlock_at(struct slu_rwlock *l, const char *site) SLU_TRY_ACQUIRE(true, l);
void slu_rwlock_rdunlock(struct slu_rwlock *l) SLU_RELEASE_SHARED(l);
void slu_rwlock_wrunlock(struct slu_rwlock *l) SLU_RELEASE(l);
#define slu_rwlock_rdlock(l)    slu_rwlock_rdlock_at(l, SLU_HERE)
#define slu_rwlock_wrlock(l)    slu_rwlock_wrlock_at(l, SLU_HERE)
#define slu_rwlock_trywrlock(l) slu_rwlock_trywrlock_at(l, SLU_HERE)

/*
 * Wakeups may be spurious: every caller loops on its condition. A wait may hold no ranked lock but
 * the mutex it gives up (asserted in debug builds).
 */
#define SLU_NO_DEADLINE UINT64_MAX
void slu_cond_init(struct slu_cond *c);
void slu_cond_fini(struct slu_cond *c);
void slu_cond_wait_at(struct slu_cond *c, struct slu_mutex *m, const char *site) SLU_REQUIRES(m);
/* deadline_ns on slu_clock_ns's scale; 0, or -ETIMEDOUT once it has passed. */
int slu_cond_timedwait_at(struct slu_cond *c, struct slu_mutex *m, uint64_t deadline_ns,
			  const char *site) SLU_REQUIRES(m);
void slu_cond_signal(struct slu_cond *c);
void slu_cond_broadcast(struct slu_cond *c);
#define slu_cond_wait(c, m)                   slu_cond_wait_at(c, m, SLU_HERE)
#define slu_cond_timedwait(c, m, deadline_ns) slu_cond_timedwait_at(c, m, deadline_ns, SLU_HERE)

/*
 * Waiting on a word, for lock bits and states that live in shared memory: sleeps while *word ==
 * expected, until slu_word_wake or the deadline; may return early. Returns 0 or -ETIMEDOUT.
 * wake with nwaiters = INT_MAX wakes all.
 */
int slu_word_wait_at(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns,
		     const char *site);
void slu_word_wake(_Atomic uint32_t *word, int nwaiters);
#define slu_word_wait(word, expected, deadline_ns) \
	slu_word_wait_at(word, expected, deadline_ns, SLU_HERE)

/* ------------------------------------------------------------------ threads */

struct slu_thread {
	pthread_t thread;
	void *sim_task;
	bool started;
};

/*
 * name: at most 15 bytes, shown by ps -L. Fails with -EAGAIN or -ENOMEM; signals are blocked in it.
 * Each thread is joined once, by a thread that holds no ranked lock (asserted in debug builds);
 * joining what was not started, or is joined, does nothing.
 */
int slu_thread_start(struct slu_thread *t, const char *name, void (*fn)(void *), void *arg);
void slu_thread_join(struct slu_thread *t);
/* Lets another task run, in a simulation; sched_yield elsewhere. */
void slu_yield(void);
void slu_sleep_ns(uint64_t ns);

/* ------------------------------------------------------------------ clock and random numbers */

#define SLU_NS_PER_SEC 1000000000ull
#define SLU_NS_PER_MS  1000000ull

uint64_t slu_clock_ns(void); /* monotonic */
/*
 * For time stamps of inodes: as coarse as the kernel's own, which moves on with its ticks. With the
 * write-back cache the kernel stamps writes; a finer clock here would put a creation after the
 * write that followed it, and cost a SETATTR for each new file.
 */
struct timespec slu_clock_realtime(void);
uint64_t slu_random(void); /* getrandom(2), or the simulation's seed */

/* ------------------------------------------------------------------ data-path allocation */

/*
 * May return NULL, by nature or because a fault was asked for; the caller answers -ENOMEM.
 * slu_free takes NULL. The aligned form is for I/O buffers (align: a power of two).
 */
void *slu_alloc(size_t size);
void *slu_zalloc(size_t size);
void *slu_calloc(size_t n, size_t size); /* checks the product */
void *slu_alloc_aligned(size_t align, size_t size);
void *slu_memdup(const void *p, size_t size);
void slu_free(void *p);

/*
 * Fault injection for tests, per thread or per simulation: the nth (1 = the next) allocation
 * from now fails, once; 0 switches it off. slu_alloc_count counts calls since the last setting.
 */
void slu_alloc_fail_nth(uint64_t nth);
uint64_t slu_alloc_count(void);

/* ------------------------------------------------------------------ stress points */

/*
 * A named place in a race window. In debug builds a test can hang a function on it (per process,
 * by exact name of at most 63 bytes; NULL removes it); in a simulation every point is a scheduling
 * point. In release builds a point compiles to nothing.
 *
 * set: 0, -ENAMETOOLONG, -ENOSPC (64 points have functions), -EOPNOTSUPP (release build). The
 * function is called with no lock of base held, and a call under way is not waited for: it may
 * still run after set has put another in its place.
 */
#if defined(SLU_STRESS_POINTS)
#define slu_stress_point(name) slu_stress_point_hit(name)
#else
#define slu_stress_point(name) ((void)0)
#endif
void slu_stress_point_hit(const char *name);
int slu_stress_point_set(const char *name, void (*fn)(void *ctx), void *ctx);

/* ------------------------------------------------------------------ needs */

/*
 * Under a lock nobody waits. A call that would have to wait for memory, transaction room, a node
 * read, a commit or page I/O fills in the caller's `need` and returns -EAGAIN; the caller drops
 * every lock, calls slu_need_wait and starts over.
 *
 *	do {
 *		lock;
 *		err = work(..., &need);
 *		unlock;
 *	} while (err == -EAGAIN && !(err = slu_need_wait(&need)));
 *
 * `slow` says that the wait is for memory or for a flush rather than for one short read: a request
 * worker parks such a request instead of waiting.
 */
struct slu_need {
	int (*wait)(struct slu_need *need); /* 0: try again; else the operation's error */
	const char *what;                   /* for debugging: "node read", "cache pages", … */
	void *owner;
	uint64_t arg[2];
	bool slow;
};

/* Asserts that no lock is held; 0 or the error to return. */
int slu_need_wait(struct slu_need *need);

/* ------------------------------------------------------------------ ranges */

/*
 * A set of disjoint half-open ranges of uint64_t, each with a 64-bit value, kept in order and found
 * in logarithmic time (an intrusive treap). Neighbours that touch are joined if their values are
 * equal and SLU_RANGES_JOIN was given. Nodes come from a pool that several sets may share and that
 * is filled beforehand where an insertion may not fail. No locking: the owner of the set has a
 * lock.
 */
struct slu_range {
	uint64_t start, end; /* [start, end) */
	uint64_t value;
};

struct slu_range_node;
struct slu_range_slab;
struct slu_range_pool {
	/* For the free list. After every other leaf lock, so sets may live under one of those. */
	struct slu_mutex lock;
	struct slu_range_node *free;
	struct slu_range_slab *slabs;
	uint64_t nfree, ntotal, limit;
	uint64_t random; /* priorities in the treaps */
};

struct slu_ranges {
	struct slu_range_node *root;
	struct slu_range_pool *pool;
	uint64_t count;  /* ranges */
	uint64_t weight; /* sum of their lengths */
	bool join;
};

/* limit: most nodes it may ever hold (0: no limit); prefill: nodes made now. */
int slu_range_pool_init(struct slu_range_pool *p, uint64_t prefill, uint64_t limit);
void slu_range_pool_fini(struct slu_range_pool *p);
/* Makes sure that n nodes are free, -ENOMEM if that cannot be; call it before taking locks. */
int slu_range_pool_fill(struct slu_range_pool *p, uint64_t n);

void slu_ranges_init(struct slu_ranges *s, struct slu_range_pool *pool, bool join);
void slu_ranges_fini(struct slu_ranges *s); /* gives all nodes back */
/*
 * Sets [start, end) to value, replacing what was there; takes at most two nodes. -ENOMEM leaves the
 * set as it was.
 */
int slu_ranges_set(struct slu_ranges *s, uint64_t start, uint64_t end, uint64_t value);
/* Removes [start, end); may split one range, so takes at most one node; -ENOMEM as above. */
int slu_ranges_clear(struct slu_ranges *s, uint64_t start, uint64_t end);
/* The range that contains pos or, failing that, the first one after it; false if there is none. */
bool slu_ranges_at_or_after(const struct slu_ranges *s, uint64_t pos, struct slu_range *ret);
/* The range that contains pos. */
bool slu_ranges_find(const struct slu_ranges *s, uint64_t pos, struct slu_range *ret);
/* How many of the numbers in [start, end) are in the set. */
uint64_t slu_ranges_covered(const struct slu_ranges *s, uint64_t start, uint64_t end);
static inline bool slu_ranges_empty(const struct slu_ranges *s)
{
	return !s->root;
}

/* ------------------------------------------------------------------ simulation */

/*
 * One task at a time, the next chosen from the seed at every lock, wait, wake, stress point and
 * yield. Tasks are real threads that hand a baton round. Time stands still while a task can go on,
 * and jumps to the next deadline when none can; where every task that can only yields, it moves
 * now and then too, so a loop that yields until another task's deadline has passed ends. (A loop
 * that never calls into base never ends: nobody else runs.)
 *
 * What a task does may depend on the seed alone: not on addresses, real time or other threads.
 * Locks, conditions and words may be made and destroyed outside the simulation, but while it runs
 * only its tasks may use them.
 */
struct slu_sim;

struct slu_sim *slu_sim_new(uint64_t seed); /* NULL if out of memory */
/*
 * Runs fn(arg) as the first task and returns when it and every task started from it have ended.
 * 0, or -EDEADLK if every task waits without a deadline, or -ELOOP past slu_sim_limit: the tasks
 * and what each waits for and holds go to `report` (may be NULL), and the tasks are left as they
 * are (the process is expected to end). -EAGAIN or -ENOMEM if the first task cannot be started.
 * After 0 it may be called again; clock and random numbers go on.
 */
int slu_sim_run(struct slu_sim *sim, void (*fn)(void *), void *arg, FILE *report);
/* NULL is fine. After -EDEADLK or -ELOOP the memory stays, since the tasks wait in it. */
void slu_sim_free(struct slu_sim *sim);
/* The simulation this thread belongs to, or NULL. */
struct slu_sim *slu_sim_current(void);
/*
 * Uniform below n, from the seed. Called by the current task, or by the thread that made the
 * simulation while it does not run.
 */
uint64_t slu_sim_below(struct slu_sim *sim, uint64_t n);

/*
 * How wild: at one in n points where a task could go on another is chosen nevertheless (default
 * 4; 1: at every point; 0: only where a task has to wait). One in n waits for a condition or a
 * word ends at once without cause (default 64; 0: none).
 */
void slu_sim_preempt(struct slu_sim *sim, unsigned int one_in_n);
void slu_sim_spurious(struct slu_sim *sim, unsigned int one_in_n);
/*
 * One in n choices lets the next deadline pass although tasks can go on, so that timers fire in
 * the middle of operations, as they do on a busy machine (default 0: none; time is then exact).
 */
void slu_sim_hurry(struct slu_sim *sim, unsigned int one_in_n);
/* A line for every switch: step, clock, who goes on and what it waited for. NULL: no log. */
void slu_sim_log(struct slu_sim *sim, FILE *log);
/* Ends the run with -ELOOP after so many points from now, for tests of what may spin; 0: never. */
void slu_sim_limit(struct slu_sim *sim, uint64_t max_steps);

uint64_t slu_sim_seed(const struct slu_sim *sim);
/* Points passed so far. */
uint64_t slu_sim_steps(const struct slu_sim *sim);
/* A hash of every choice so far: equal seeds give equal hashes, or something is not replayed. */
uint64_t slu_sim_trace(const struct slu_sim *sim);

#endif
