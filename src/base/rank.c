/* SPDX-License-Identifier: MIT */
/*
 * The run-time check of the lock order, and failed assertions.
 *
 * Owns: one stack per thread of the ranked locks it holds. Called by lock.c at every lock and
 * unlock, and by the cache for page locks. Takes no lock and never waits. Without SLU_DEBUG_LOCKS
 * only the assertion remains.
 */
#include "base_private.h"
#include <string.h>
#include <unistd.h>

/* One write(2), so that lines of several threads do not mix. */
static _Noreturn void die(const char *message)
{
	char where[96];
	char line[1024];
	int len;

	sim_describe(where, sizeof(where));
	len = snprintf(line, sizeof(line), "sluice: %s%s%s\n", message, *where ? " " : "", where);
	len = slu_min(len, (int)sizeof(line) - 1);
	line[len - 1] = '\n';
	if (write(STDERR_FILENO, line, (size_t)len) < 0) {
		/* Nobody to tell; abort says the rest. */
	}
	abort();
}

void slu_assert_failed(const char *cond, const char *file, int line, const char *func)
{
	char message[512];

	snprintf(message, sizeof(message), "%s:%d: %s: assertion failed: %s", file, line, func,
		 cond);
	die(message);
}

#ifdef SLU_DEBUG_LOCKS

static __thread struct rank_stack rank_stack;

const struct rank_stack *rank_stack_of_this_thread(void)
{
	return &rank_stack;
}

static const char *rank_name(enum slu_rank rank)
{
	switch (rank) {
	case SLU_RANK_CONTROL:
		return "control";
	case SLU_RANK_INODE:
		return "inode";
	case SLU_RANK_PAGE:
		return "page";
	case SLU_RANK_EXTENTS:
		return "extents";
	case SLU_RANK_SPACE:
		return "space";
	case SLU_RANK_STORE:
		return "store";
	case SLU_RANK_LEAF:
		return "leaf";
	}
	return "rank?";
}

void rank_format(char *buf, size_t size, const struct rank_held *held)
{
	char name[64] = "";

	if (held->name)
		snprintf(name, sizeof(name), " \"%s\"", held->name);
	snprintf(buf, size, "%s %llu%s (%s)", rank_name(held->rank),
		 (unsigned long long)held->order, name, held->site ? held->site : "?");
}

/* The greatest lock held; a trylock may have put it anywhere in the stack. */
static const struct rank_held *rank_greatest(void)
{
	const struct rank_held *greatest = NULL;

	for (unsigned int i = 0; i < rank_stack.n; i++) {
		const struct rank_held *held = &rank_stack.held[i];

		if (!greatest || held->rank > greatest->rank ||
		    (held->rank == greatest->rank && held->order >= greatest->order))
			greatest = held;
	}
	return greatest;
}

void rank_check(enum slu_rank rank, uint64_t order, const char *name, const char *site)
{
	const struct rank_held *greatest = rank_greatest();
	const struct rank_held wanted = {.name = name, .site = site, .order = order, .rank = rank};
	char have[192], want[192], message[512];

	if (!greatest || rank > greatest->rank ||
	    (rank == greatest->rank && order > greatest->order))
		return;

	rank_format(want, sizeof(want), &wanted);
	rank_format(have, sizeof(have), greatest);
	snprintf(message, sizeof(message), "lock order: wants %s while it holds %s", want, have);
	die(message);
}

void rank_push(enum slu_rank rank, uint64_t order, const void *lock, const char *name,
	       const char *site)
{
	slu_assert(rank_stack.n < RANK_MAX_HELD);
	rank_stack.held[rank_stack.n++] = (struct rank_held){
		.lock = lock, .name = name, .site = site, .order = order, .rank = rank};
}

void rank_pop(const void *lock)
{
	unsigned int i = rank_stack.n;

	while (i > 0 && rank_stack.held[i - 1].lock != lock)
		i--;
	if (i == 0) {
		char message[128];

		snprintf(message, sizeof(message),
			 "unlock: this thread does not hold the lock at %p", lock);
		die(message);
	}
	rank_stack.n--;
	memmove(&rank_stack.held[i - 1], &rank_stack.held[i],
		(rank_stack.n - (i - 1)) * sizeof(rank_stack.held[0]));
}

void rank_assert_only(const void *lock, const char *what, const char *site)
{
	char have[192], message[512];
	const struct rank_held *other = NULL;
	bool found = lock == NULL;

	for (unsigned int i = 0; i < rank_stack.n; i++) {
		if (rank_stack.held[i].lock == lock)
			found = true;
		else
			other = &rank_stack.held[i];
	}
	if (other) {
		rank_format(have, sizeof(have), other);
		snprintf(message, sizeof(message), "waits for %s (%s) while it holds %s", what,
			 site ? site : "?", have);
		die(message);
	}
	if (!found) {
		snprintf(message, sizeof(message), "waits for %s (%s) without holding its mutex",
			 what, site ? site : "?");
		die(message);
	}
}

void slu_rank_acquire(enum slu_rank rank, uint64_t order, const void *lock, const char *site)
{
	rank_check(rank, order, NULL, site);
	rank_push(rank, order, lock, NULL, site);
}

void slu_rank_acquired_try(enum slu_rank rank, uint64_t order, const void *lock, const char *site)
{
	rank_push(rank, order, lock, NULL, site);
}

void slu_rank_release(const void *lock)
{
	rank_pop(lock);
}

void slu_assert_no_locks(const char *what)
{
	if (rank_stack.n)
		rank_assert_only(NULL, what, NULL);
}

#else

void slu_rank_acquire(enum slu_rank rank, uint64_t order, const void *lock, const char *site)
{
}

void slu_rank_acquired_try(enum slu_rank rank, uint64_t order, const void *lock, const char *site)
{
}

void slu_rank_release(const void *lock)
{
}

void slu_assert_no_locks(const char *what)
{
}

#endif
