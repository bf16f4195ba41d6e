/* SPDX-License-Identifier: MIT */
/*
 * The simulator: one task at a time, chosen from a seed, on a clock of its own.
 *
 * Owns the tasks, which are real threads that hand a baton (a futex word each) round, so thread
 * sanitizer sees every hand-over. Called by sim_sync.c at every point where a task may be
 * preempted or has to wait, and by tests through slu_sim_*. Takes no lock: whoever has the baton
 * owns the whole simulation.
 *
 * What happens may depend on the seed and on what tasks do, and on nothing else: never on
 * addresses, thread ids, real time or the order in which real threads get to run. (Ideas:
 * FoundationDB's simulation; the random schedules of rr's chaos mode and of loom.)
 */
#include "sim_private.h"
#include <inttypes.h>
#include <sched.h>
#include <string.h>

/* The clock at the start: not 0, which code may take for "never". */
#define SIM_CLOCK_START SLU_NS_PER_SEC

#define SIM_PREEMPT_DEFAULT  4
#define SIM_SPURIOUS_DEFAULT 64
/* Where every eligible task only yields, time moves on after this many yields on average. */
#define SIM_YIELDS_TO_MOVE_TIME 16

__thread struct sim_task *sim_self;

/* ------------------------------------------------------------------ random numbers */

static uint64_t sim_next(struct slu_sim *sim)
{
	/* xoshiro256** (Blackman and Vigna, 2018) */
	uint64_t *s = sim->random;
	uint64_t x = s[1] * 5, ret = ((x << 7) | (x >> 57)) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = (s[3] << 45) | (s[3] >> 19);
	return ret;
}

static void sim_seed(struct slu_sim *sim, uint64_t seed)
{
	sim->seed = seed;
	for (int i = 0; i < 4; i++) {
		/* splitmix64, as its authors advise for the start */
		uint64_t x = seed += 0x9e3779b97f4a7c15ull;

		x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
		x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
		sim->random[i] = x ^ (x >> 31);
	}
}

uint64_t slu_sim_below(struct slu_sim *sim, uint64_t n)
{
	slu_assert(n > 0);
	/* The high half of the product; its bias of n / 2^64 is nothing here. */
	return (uint64_t)(((unsigned __int128)sim_next(sim) * n) >> 64);
}

bool sim_chance(struct slu_sim *sim, unsigned int one_in_n)
{
	return one_in_n && slu_sim_below(sim, one_in_n) == 0;
}

static void sim_trace(struct slu_sim *sim, uint64_t what)
{
	sim->trace = (sim->trace ^ what) * 0x100000001b3ull;
	sim->trace ^= sim->trace >> 29;
}

/* ------------------------------------------------------------------ baton */

static void baton_give(_Atomic uint32_t *baton)
{
	atomic_store_explicit(baton, 1, memory_order_release);
	/*
	 * From the store on, the owner may run, end and be freed: the wake may hit nothing, or
	 * another word, whose waiter then looks again.
	 */
	futex_wake(baton, 1, false);
}

static void baton_take(_Atomic uint32_t *baton)
{
	while (!atomic_load_explicit(baton, memory_order_acquire))
		futex_wait(baton, 0, SLU_NO_DEADLINE, false);
	atomic_store_explicit(baton, 0, memory_order_relaxed);
}

/* ------------------------------------------------------------------ scheduler */

static bool sim_eligible(const struct sim_task *task)
{
	switch (task->state) {
	case SIM_RUNNABLE:
	case SIM_YIELDED:
		return true;
	case SIM_MUTEX:
		return !((const struct slu_mutex *)task->addr)->sim_owner;
	case SIM_RDLOCK: {
		const struct slu_rwlock *l = task->addr;

		return !l->sim_writer && !l->sim_writers_waiting;
	}
	case SIM_WRLOCK: {
		const struct slu_rwlock *l = task->addr;

		return !l->sim_writer && !l->sim_readers;
	}
	case SIM_JOIN:
		return ((const struct sim_task *)task->addr)->state == SIM_DEAD;
	case SIM_COND:
	case SIM_WORD:
	case SIM_SLEEP:
	case SIM_DEAD:
		break;
	}
	return false;
}

/*
 * Moves the clock to the next deadline and ends the waits that were for it; false: there is none.
 */
static bool sim_expire(struct slu_sim *sim)
{
	uint64_t next = SLU_NO_DEADLINE;

	for (unsigned int i = 0; i < sim->ntasks; i++)
		next = slu_min(next, sim->tasks[i]->deadline);
	if (next == SLU_NO_DEADLINE)
		return false;

	sim->clock = slu_max(sim->clock, next);
	sim_trace(sim, sim->clock);
	for (unsigned int i = 0; i < sim->ntasks; i++) {
		struct sim_task *task = sim->tasks[i];

		if (task->deadline > sim->clock)
			continue;
		task->deadline = SLU_NO_DEADLINE;
		task->timed_out = true;
		task->addr = task->state == SIM_COND ? task->mutex : NULL;
		task->state = task->state == SIM_COND ? SIM_MUTEX : SIM_RUNNABLE;
	}
	return true;
}

/*
 * The next task, or NULL if every one waits for another. `self` is who asks: if it yields, it is
 * chosen only if no other can go on.
 */
static struct sim_task *sim_pick(struct slu_sim *sim, const struct sim_task *self)
{
	if (sim_chance(sim, sim->hurry))
		sim_expire(sim);
	for (;;) {
		unsigned int eligible = 0, yielded = 0;
		const struct sim_task *skip = NULL;
		uint64_t nth;

		for (unsigned int i = 0; i < sim->ntasks; i++) {
			eligible += sim_eligible(sim->tasks[i]);
			yielded += sim->tasks[i]->state == SIM_YIELDED;
		}
		if (!eligible) {
			if (!sim_expire(sim))
				return NULL;
			continue;
		}
		/* Tasks that only spin on each other's word would keep the clock still for ever. */
		if (eligible == yielded && sim_chance(sim, SIM_YIELDS_TO_MOVE_TIME) &&
		    sim_expire(sim))
			continue;
		if (self->state == SIM_YIELDED && eligible > 1) {
			skip = self;
			eligible--;
		}
		nth = eligible > 1 ? slu_sim_below(sim, eligible) : 0;
		for (unsigned int i = 0; i < sim->ntasks; i++) {
			struct sim_task *task = sim->tasks[i];

			if (task != skip && sim_eligible(task) && nth-- == 0)
				return task;
		}
		slu_assert(!"the eligible task that was counted");
	}
}

static const char *sim_state_name(enum sim_state state)
{
	switch (state) {
	case SIM_RUNNABLE:
		return "can run";
	case SIM_YIELDED:
		return "yields";
	case SIM_MUTEX:
		return "mutex";
	case SIM_RDLOCK:
		return "rwlock, to read,";
	case SIM_WRLOCK:
		return "rwlock, to write,";
	case SIM_COND:
		return "condition";
	case SIM_WORD:
		return "word";
	case SIM_SLEEP:
		return "sleeps";
	case SIM_JOIN:
		return "end of task";
	case SIM_DEAD:
		return "has ended";
	}
	return "?";
}

/* One line for a task that is about to go on, with the state it leaves. */
static void sim_log(const struct sim_task *task)
{
	const char *site = task->state == SIM_RUNNABLE ? NULL : task->site;

	fprintf(task->sim->log, "%10" PRIu64 " %12" PRIu64 " ns  %3u %-15s %s%s%s\n",
		task->sim->steps, task->sim->clock, task->id, task->name,
		sim_state_name(task->state), site ? " " : "", site ? site : "");
}

/* What an eligible task waited for becomes its own. */
static void sim_resume(struct sim_task *task)
{
	struct slu_mutex *m;
	struct slu_rwlock *l;

	switch (task->state) {
	case SIM_MUTEX:
		m = (struct slu_mutex *)task->addr;
		m->sim_owner = task;
		break;
	case SIM_RDLOCK:
		l = (struct slu_rwlock *)task->addr;
		l->sim_readers++;
		break;
	case SIM_WRLOCK:
		l = (struct slu_rwlock *)task->addr;
		l->sim_writers_waiting--;
		l->sim_writer = task;
		break;
	default:
		break;
	}
	if (task->sim->log)
		sim_log(task);
	task->state = SIM_RUNNABLE;
	task->addr = NULL;
	sim_trace(task->sim, task->sim->steps << 16 ^ task->id);
}

/* Ends the run with the tasks left where they are. */
static void sim_stop(struct slu_sim *sim, int result)
{
	sim->result = result;
	sim->stopped = true;
	baton_give(&sim->baton);
}

/* Hands the baton to the next task; comes back when it is self's turn again, if ever. */
static void sim_schedule(struct sim_task *self)
{
	struct slu_sim *sim = self->sim;
	struct sim_task *next = NULL;
	bool dead = self->state == SIM_DEAD;

	if (sim->nlive == 0) {
		baton_give(&sim->baton);
		return;
	}
	if (sim->max_steps && sim->steps > sim->max_steps) {
		sim_stop(sim, -ELOOP);
	} else {
		next = sim_pick(sim, self);
		if (!next)
			sim_stop(sim, -EDEADLK);
	}
	if (next)
		sim_resume(next);
	if (next == self)
		return;
	if (next)
		baton_give(&next->baton);
	/* A dead task may be freed from here on. */
	if (!dead)
		baton_take(&self->baton);
}

void sim_wait(struct sim_task *self, enum sim_state state, const void *addr, const char *site)
{
	self->state = state;
	self->addr = addr;
	self->site = site;
	self->sim->steps++;
	sim_schedule(self);
}

void sim_point(void)
{
	struct sim_task *self = sim_self;
	struct slu_sim *sim = self->sim;

	sim->steps++;
	if (sim_chance(sim, sim->preempt) || (sim->max_steps && sim->steps > sim->max_steps))
		sim_schedule(self);
}

/* ------------------------------------------------------------------ tasks */

static void *sim_task_main(void *arg)
{
	struct sim_task *self = arg;

	baton_take(&self->baton);
	sim_self = self;
	thread_set_name(self->name);
#ifdef SLU_DEBUG_LOCKS
	self->held = rank_stack_of_this_thread();
#endif
	self->fn(self->arg);
	slu_assert_no_locks("the end of its thread");

	self->sim->nlive--;
	self->state = SIM_DEAD;
	self->held = NULL;
	/* What still runs on this thread, destructors of other libraries, is no task. */
	sim_self = NULL;
	sim_schedule(self);
	return NULL;
}

int sim_task_start(struct slu_sim *sim, const char *name, void (*fn)(void *), void *arg,
		   struct sim_task **ret)
{
	struct sim_task *task;
	int err;

	if (sim->ntasks == sim->room) {
		unsigned int room = sim->room ? 2 * sim->room : 16;
		struct sim_task **tasks = realloc(sim->tasks, room * sizeof(*tasks));

		if (!tasks)
			return -ENOMEM;
		sim->tasks = tasks;
		sim->room = room;
	}
	task = calloc(1, sizeof(*task));
	if (!task)
		return -ENOMEM;
	task->sim = sim;
	task->id = ++sim->next_id;
	task->deadline = SLU_NO_DEADLINE;
	task->fn = fn;
	task->arg = arg;
	snprintf(task->name, sizeof(task->name), "%s", name);
	err = thread_create(&task->thread, sim_task_main, task);
	if (err) {
		free(task);
		return err;
	}
	sim->tasks[sim->ntasks++] = task;
	sim->nlive++;
	*ret = task;
	return 0;
}

void sim_task_free(struct sim_task *task)
{
	struct slu_sim *sim = task->sim;
	unsigned int i = 0;
	int err;

	slu_assert(task->state == SIM_DEAD);
	/* It has given the baton away and is on its way out. */
	err = pthread_join(task->thread, NULL);
	slu_assert(err == 0);
	while (sim->tasks[i] != task)
		i++;
	sim->ntasks--;
	memmove(&sim->tasks[i], &sim->tasks[i + 1], (sim->ntasks - i) * sizeof(*sim->tasks));
	free(task);
}

/* ------------------------------------------------------------------ report */

static void report_owner(FILE *f, const struct sim_task *owner)
{
	if (owner)
		fprintf(f, ", held by task %u \"%s\"", owner->id, owner->name);
}

static void report_wait(FILE *f, const struct sim_task *task)
{
	const struct slu_mutex *m = task->addr;
	const struct slu_rwlock *l = task->addr;
	const struct sim_task *other = task->addr;

	switch (task->state) {
	case SIM_MUTEX:
		fprintf(f, " \"%s\" %" PRIu64, m->name, m->order);
		report_owner(f, m->sim_owner);
		break;
	case SIM_RDLOCK:
	case SIM_WRLOCK:
		fprintf(f, " \"%s\" %" PRIu64, l->name, l->order);
		report_owner(f, l->sim_writer);
		if (l->sim_readers)
			fprintf(f, ", held by %u readers", l->sim_readers);
		if (l->sim_writers_waiting)
			fprintf(f, ", %u writers wait", l->sim_writers_waiting);
		break;
	case SIM_COND:
		fprintf(f, " %p under mutex \"%s\" %" PRIu64, task->addr, task->mutex->name,
			task->mutex->order);
		break;
	case SIM_WORD:
		fprintf(f, " %p, expected %" PRIu32 ", now %" PRIu32, task->addr, task->expected,
			atomic_load((const _Atomic uint32_t *)task->addr));
		break;
	case SIM_JOIN:
		fprintf(f, " %u \"%s\"", other->id, other->name);
		break;
	default:
		break;
	}
}

static void report_held(FILE *f, const struct sim_task *task)
{
#ifdef SLU_DEBUG_LOCKS
	for (unsigned int i = 0; task->held && i < task->held->n; i++) {
		char held[192];

		rank_format(held, sizeof(held), &task->held->held[i]);
		fprintf(f, "    holds %s\n", held);
	}
#endif
}

static void sim_report(const struct slu_sim *sim, FILE *f)
{
	fprintf(f, "simulation: %s, seed %" PRIu64 ", %" PRIu64 " steps, at %" PRIu64 " ns\n",
		sim->result == -EDEADLK ? "deadlock" : "too many steps", sim->seed, sim->steps,
		sim->clock);
	for (unsigned int i = 0; i < sim->ntasks; i++) {
		const struct sim_task *task = sim->tasks[i];

		if (task->state == SIM_DEAD)
			continue;
		fprintf(f, "  task %u \"%s\": %s%s", task->id, task->name,
			task->state >= SIM_MUTEX && task->state != SIM_SLEEP ? "waits for " : "",
			sim_state_name(task->state));
		report_wait(f, task);
		if (task->deadline != SLU_NO_DEADLINE)
			fprintf(f, ", until %" PRIu64 " ns", task->deadline);
		fprintf(f, task->site ? " (%s)\n" : "\n", task->site);
		report_held(f, task);
	}
	fflush(f);
}

void sim_describe(char *buf, size_t size)
{
	const struct sim_task *self = sim_self;

	buf[0] = '\0';
	if (self)
		snprintf(buf, size,
			 "[seed %" PRIu64 ", task %u \"%s\", step %" PRIu64 ", at %" PRIu64 " ns]",
			 self->sim->seed, self->id, self->name, self->sim->steps, self->sim->clock);
}

/* ------------------------------------------------------------------ interface */

struct slu_sim *slu_sim_new(uint64_t seed)
{
	struct slu_sim *sim = calloc(1, sizeof(*sim));

	if (!sim)
		return NULL;
	sim_seed(sim, seed);
	sim->clock = SIM_CLOCK_START;
	sim->trace = 0xcbf29ce484222325ull;
	sim->preempt = SIM_PREEMPT_DEFAULT;
	sim->spurious = SIM_SPURIOUS_DEFAULT;
	return sim;
}

/*
 * Only one task runs at a time, so one processor is enough for all, and a switch on it costs a
 * third of one between two. Tasks inherit it from the first. For speed alone: errors are ignored.
 */
static int sim_start_pinned(struct slu_sim *sim, void (*fn)(void *), void *arg,
			    struct sim_task **ret_first)
{
	cpu_set_t here, before;
	int cpu = sched_getcpu(), err;
	bool pinned = false;

	if (cpu >= 0 && cpu < CPU_SETSIZE && !sched_getaffinity(0, sizeof(before), &before)) {
		CPU_ZERO(&here);
		CPU_SET(cpu, &here);
		pinned = !sched_setaffinity(0, sizeof(here), &here);
	}
	err = sim_task_start(sim, "main", fn, arg, ret_first);
	if (pinned)
		sched_setaffinity(0, sizeof(before), &before);
	return err;
}

int slu_sim_run(struct slu_sim *sim, void (*fn)(void *), void *arg, FILE *report)
{
	struct sim_task *first;
	int err;

	/* One simulation inside another would have two schedulers. */
	slu_assert(!sim_self);
	slu_assert(!sim->stopped && sim->ntasks == 0);
	err = sim_start_pinned(sim, fn, arg, &first);
	if (err)
		return err;
	sim_resume(first);
	baton_give(&first->baton);
	baton_take(&sim->baton);

	if (sim->stopped) {
		if (report)
			sim_report(sim, report);
		for (unsigned int i = 0; i < sim->ntasks; i++)
			pthread_detach(sim->tasks[i]->thread);
		return sim->result;
	}
	while (sim->ntasks)
		sim_task_free(sim->tasks[0]);
	return 0;
}

void slu_sim_free(struct slu_sim *sim)
{
	/* Tasks that were left where they are go on waiting for a baton in it. */
	if (!sim || sim->stopped)
		return;
	slu_assert(sim->ntasks == 0);
	free(sim->tasks);
	free(sim);
}

struct slu_sim *slu_sim_current(void)
{
	return sim_self ? sim_self->sim : NULL;
}

void slu_sim_preempt(struct slu_sim *sim, unsigned int one_in_n)
{
	sim->preempt = one_in_n;
}

void slu_sim_spurious(struct slu_sim *sim, unsigned int one_in_n)
{
	sim->spurious = one_in_n;
}

void slu_sim_hurry(struct slu_sim *sim, unsigned int one_in_n)
{
	sim->hurry = one_in_n;
}

void slu_sim_log(struct slu_sim *sim, FILE *log)
{
	sim->log = log;
}

void slu_sim_limit(struct slu_sim *sim, uint64_t max_steps)
{
	sim->max_steps = max_steps ? sim->steps + max_steps : 0;
}

uint64_t slu_sim_trace(const struct slu_sim *sim)
{
	return sim->trace;
}

uint64_t slu_sim_steps(const struct slu_sim *sim)
{
	return sim->steps;
}

uint64_t slu_sim_seed(const struct slu_sim *sim)
{
	return sim->seed;
}

uint64_t sim_clock_ns(void)
{
	return sim_self->sim->clock;
}

uint64_t sim_random(void)
{
	return sim_next(sim_self->sim);
}

struct alloc_fault *sim_alloc_fault(void)
{
	return &sim_self->sim->fault;
}
