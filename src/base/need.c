/* SPDX-License-Identifier: MIT */
/*
 * Needs: what a call under a lock asked its caller to wait for once every lock is dropped.
 */
#include "base_private.h"

#if defined(SLU_MUTANTS)
enum slu_mutant slu_mutant_chosen;
#endif

int slu_need_wait(struct slu_need *need)
{
	int (*wait)(struct slu_need *) = need->wait;
	int err;

	/* -EAGAIN without a filled-in need would make the caller spin. */
	slu_assert(wait);
	slu_assert_no_locks(need->what ? need->what : "a need");
	err = wait(need);
	slu_assert(err <= 0);
	/* A need is waited for once; the next round of the caller's loop fills it in anew. */
	need->wait = NULL;
	return err;
}
