/* SPDX-License-Identifier: MIT */
/*
 * Waiting on a 32-bit word: futex(2), or the scheduler in a simulation.
 *
 * Words of the public calls live in a memfd that a successor process may map, so they are keyed by
 * their place in the file and not by an address of this process (no FUTEX_PRIVATE_FLAG). Holds no
 * lock and keeps no state.
 */
#include "base_private.h"
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

int futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns, bool shared)
{
	struct timespec until, *timeout = NULL;
	int op = FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG);

	if (deadline_ns != SLU_NO_DEADLINE) {
		until.tv_sec = (time_t)(deadline_ns / SLU_NS_PER_SEC);
		until.tv_nsec = (long)(deadline_ns % SLU_NS_PER_SEC);
		timeout = &until;
	}
	/* The BITSET form takes an absolute time on CLOCK_MONOTONIC. */
	if (syscall(SYS_futex, word, op, expected, timeout, NULL, FUTEX_BITSET_MATCH_ANY) == 0)
		return 0;
	if (errno == ETIMEDOUT)
		return -ETIMEDOUT;
	/* The word had another value, or a signal came: the caller looks again. */
	slu_assert(errno == EAGAIN || errno == EINTR);
	return 0;
}

void futex_wake(_Atomic uint32_t *word, int nwaiters, bool shared)
{
	int op = FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG);

	syscall(SYS_futex, word, op, nwaiters, NULL, NULL, 0);
}

int slu_word_wait_at(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns,
		     const char *site)
{
	if (sim_active())
		return sim_word_wait(word, expected, deadline_ns, site);
	/* Also where the word has changed already: what the waker wrote before is seen after. */
	if (atomic_load_explicit(word, memory_order_acquire) != expected)
		return 0;
	return futex_wait(word, expected, deadline_ns, true);
}

void slu_word_wake(_Atomic uint32_t *word, int nwaiters)
{
	if (nwaiters <= 0)
		return;
	if (sim_active())
		sim_word_wake(word, nwaiters);
	else
		futex_wake(word, nwaiters, true);
}
