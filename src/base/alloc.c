/* SPDX-License-Identifier: MIT */
/*
 * Data-path allocation: malloc with a counter in front that can make one chosen call fail.
 *
 * The counter is the thread's, or the simulation's in a task, so a test that walks an operation
 * through "the 1st allocation fails, the 2nd fails, ..." does not disturb other threads. Takes no
 * lock of ours.
 */
#include "base_private.h"
#include <string.h>

static __thread struct alloc_fault thread_fault;

static struct alloc_fault *alloc_fault(void)
{
	return sim_active() ? sim_alloc_fault() : &thread_fault;
}

/* Counts one call; true if it is the one to fail. */
static bool alloc_fails(void)
{
	struct alloc_fault *fault = alloc_fault();

	fault->count++;
	if (__builtin_expect(fault->nth == 0 || fault->count != fault->nth, 1))
		return false;
	fault->nth = 0;
	return true;
}

void *slu_alloc(size_t size)
{
	/* Beyond PTRDIFF_MAX it fails in libc too; the sanitizers would rather abort. */
	if (alloc_fails() || size > PTRDIFF_MAX)
		return NULL;
	return malloc(size ? size : 1);
}

void *slu_zalloc(size_t size)
{
	return slu_calloc(1, size);
}

void *slu_calloc(size_t n, size_t size)
{
	size_t total;

	if (alloc_fails() || __builtin_mul_overflow(n, size, &total) || total > PTRDIFF_MAX)
		return NULL;
	return calloc(1, total ? total : 1);
}

void *slu_alloc_aligned(size_t align, size_t size)
{
	void *p;

	slu_assert(align && (align & (align - 1)) == 0);
	if (alloc_fails() || size > PTRDIFF_MAX)
		return NULL;
	align = slu_max(align, sizeof(void *));
	return posix_memalign(&p, align, size ? size : 1) ? NULL : p;
}

void *slu_memdup(const void *p, size_t size)
{
	void *copy = slu_alloc(size);

	if (copy && size)
		memcpy(copy, p, size);
	return copy;
}

void slu_free(void *p)
{
	free(p);
}

void slu_alloc_fail_nth(uint64_t nth)
{
	*alloc_fault() = (struct alloc_fault){.nth = nth};
}

uint64_t slu_alloc_count(void)
{
	return alloc_fault()->count;
}
