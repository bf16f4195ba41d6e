/* SPDX-License-Identifier: MIT */
/*
 * Stress points: functions that tests hang on named places in race windows.
 *
 * Owns the one table of this layer that is per process, since it belongs to a test and not to a
 * volume. Its lock is a plain mutex without a rank, held for a look-up only: a point may be hit
 * under any lock. Without a function set anywhere a point costs one relaxed load.
 */
#include "base_private.h"
#include <string.h>

#ifdef SLU_STRESS_POINTS

#define STRESS_MAX_POINTS 64

struct stress_hook {
	char name[64];
	void (*fn)(void *ctx); /* NULL: free */
	void *ctx;
};

static pthread_mutex_t stress_lock = PTHREAD_MUTEX_INITIALIZER;
static struct stress_hook stress_hooks[STRESS_MAX_POINTS]; /* under stress_lock */
static _Atomic unsigned int stress_nhooks;

static struct stress_hook *stress_find(const char *name)
{
	for (size_t i = 0; i < STRESS_MAX_POINTS; i++) {
		if (stress_hooks[i].fn && strcmp(stress_hooks[i].name, name) == 0)
			return &stress_hooks[i];
	}
	return NULL;
}

static struct stress_hook *stress_find_free(void)
{
	for (size_t i = 0; i < STRESS_MAX_POINTS; i++) {
		if (!stress_hooks[i].fn)
			return &stress_hooks[i];
	}
	return NULL;
}

void slu_stress_point_hit(const char *name)
{
	struct stress_hook hook = {.fn = NULL};
	const struct stress_hook *found;

	if (sim_active())
		sim_point();
	if (__builtin_expect(!atomic_load_explicit(&stress_nhooks, memory_order_relaxed), 1))
		return;

	pthread_mutex_lock(&stress_lock);
	found = stress_find(name);
	if (found)
		hook = *found;
	pthread_mutex_unlock(&stress_lock);

	/* Without the lock: the function is there to wait, and may set other points. */
	if (hook.fn)
		hook.fn(hook.ctx);
}

int slu_stress_point_set(const char *name, void (*fn)(void *ctx), void *ctx)
{
	struct stress_hook *hook;
	int err = 0;

	if (strlen(name) >= sizeof(hook->name))
		return -ENAMETOOLONG;

	pthread_mutex_lock(&stress_lock);
	hook = stress_find(name);
	if (!fn) {
		if (hook) {
			hook->fn = NULL;
			atomic_fetch_sub(&stress_nhooks, 1);
		}
		goto unlock;
	}
	if (!hook) {
		hook = stress_find_free();
		if (!hook) {
			err = -ENOSPC;
			goto unlock;
		}
		memcpy(hook->name, name, strlen(name) + 1);
		atomic_fetch_add(&stress_nhooks, 1);
	}
	hook->fn = fn;
	hook->ctx = ctx;
unlock:
	pthread_mutex_unlock(&stress_lock);
	return err;
}

#else

void slu_stress_point_hit(const char *name)
{
}

int slu_stress_point_set(const char *name, void (*fn)(void *ctx), void *ctx)
{
	return -EOPNOTSUPP;
}

#endif
