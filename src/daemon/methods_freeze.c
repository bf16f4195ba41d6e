/* SPDX-License-Identifier: MIT */
/*
 * Freeze and Thaw, of org.sluicefs.Volume. Called in the threads of the control server; takes no
 * lock.
 *
 * As with fsfreeze(8) the freeze stays when its client ends: a backup is two commands with a copy
 * between them. Against one that is forgotten there is the time limit.
 */
#include "daemon_private.h"

#define TIMEOUT_DEFAULT 60.0    /* seconds */
#define TIMEOUT_MOST    86400.0 /* the same */

static void freeze_failed(struct slu_control_call *call, const struct served *v, int err)
{
	uint64_t left_ns = 0;

	if (err == -EBUSY && slu_fs_frozen(v->stack->fs, &left_ns))
		slu_control_fail(call, "Failed",
				 "%s is frozen already, for %.0f s more: sluicectl thaw ends that",
				 v->mountpoint, (double)left_ns / 1e9);
	else if (err == -EBUSY)
		slu_control_fail(call, "Failed", "%s is being frozen by somebody else",
				 v->mountpoint);
	else if (err == -ESHUTDOWN)
		slu_control_fail(call, "Failed", "%s is being unmounted", v->mountpoint);
	else
		slu_control_fail(call, "Failed",
				 "%s is not frozen: not everything could be written: %s",
				 v->mountpoint, g_strerror(-err));
}

void methods_freeze(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	double timeout = TIMEOUT_DEFAULT;
	JsonObject *reply;
	uint64_t ns;
	int err;

	if (!slu_control_number(call, "timeout", &timeout))
		return;
	if (!(timeout > 0 && timeout <= TIMEOUT_MOST)) {
		slu_control_fail(call, "Failed",
				 "a timeout is more than 0 and at most %.0f seconds", TIMEOUT_MOST);
		return;
	}
	err = slu_fs_freeze(v->stack->fs, methods_syncfs, v, (uint64_t)(timeout * 1e9));
	if (err) {
		freeze_failed(call, v, err);
		return;
	}
	if (slu_control_ended(call)) {
		/* Nobody knows that it is frozen, and so nobody will thaw it. */
		(void)slu_fs_thaw(v->stack->fs, &ns);
		return;
	}
	reply = json_object_new();
	json_object_set_double_member(reply, "timeout", timeout);
	slu_control_reply(call, reply);
}

void methods_thaw(void *ctx, struct slu_control_call *call)
{
	const struct served *v = ctx;
	JsonObject *reply;
	uint64_t ns;
	int err = slu_fs_thaw(v->stack->fs, &ns);

	if (err == -ETIMEDOUT) {
		slu_control_fail(
			call, "Failed",
			"%s is not frozen any more, its time limit has passed: a copy that "
			"was not finished is not whole",
			v->mountpoint);
	} else if (err) {
		slu_control_fail(call, "Failed", "%s is not frozen", v->mountpoint);
	} else {
		reply = json_object_new();
		json_object_set_double_member(reply, "seconds", (double)ns / 1e9);
		slu_control_reply(call, reply);
	}
}
