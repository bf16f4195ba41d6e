/* SPDX-License-Identifier: MIT */
/*
 * Scrub and CancelScrub, of org.sluicefs.Volume. Called in the threads of the control server; takes
 * no lock. The scrub has a thread of its own in fs; a client that waits for it only looks at it.
 */
#include "daemon_private.h"

#define PROGRESS_NS (200 * SLU_NS_PER_MS)

static double seconds_of(struct timespec t)
{
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *outcome(const struct slu_scrub_state *s)
{
	if (s->running)
		return "running";
	if (s->result == -ECANCELED)
		return "cancelled";
	if (s->result)
		return "failed";
	return s->damaged ? "damaged" : "clean";
}

static JsonObject *describe(const struct slu_scrub_state *s)
{
	uint64_t n = slu_min(s->damaged, SLU_SCRUB_DAMAGE);
	JsonArray *damage = json_array_new();
	JsonObject *o = json_object_new();

	for (uint64_t i = 0; i < n; i++) {
		JsonObject *one = json_object_new();

		json_object_set_int_member(one, "block", (gint64)s->damage[i].blkno);
		json_object_set_string_member(one, "problem", s->damage[i].wrong);
		json_array_add_object_element(damage, one);
	}
	json_object_set_string_member(o, "outcome", outcome(s));
	json_object_set_int_member(o, "nodes", (gint64)s->nodes);
	json_object_set_int_member(o, "total", (gint64)s->total);
	json_object_set_int_member(o, "damaged", (gint64)s->damaged);
	json_object_set_array_member(o, "damage", damage);
	json_object_set_int_member(o, "rate", (gint64)s->rate);
	json_object_set_double_member(o, "started", seconds_of(s->begin));
	if (!s->running)
		json_object_set_double_member(o, "ended", seconds_of(s->end));
	return o;
}

JsonObject *methods_describe_scrub(struct slu_fs *fs)
{
	struct slu_scrub_state s;

	slu_fs_scrub_state(fs, &s);
	return s.number ? describe(&s) : NULL;
}

static JsonObject *reply_of(const struct slu_scrub_state *s)
{
	JsonObject *reply = json_object_new();

	json_object_set_object_member(reply, "scrub", describe(s));
	return reply;
}

static void start_failed(struct slu_control_call *call, const struct served *v, int err)
{
	struct slu_scrub_state s;

	slu_fs_scrub_state(v->stack->fs, &s);
	if (err == -EBUSY)
		slu_control_fail(
			call, "Failed",
			"%s is being scrubbed already (%llu of about %llu nodes): sluicectl "
			"scrub --cancel ends that",
			v->mountpoint, (unsigned long long)s.nodes, (unsigned long long)s.total);
	else
		slu_control_fail(call, "Failed", "%s cannot be scrubbed: %s", v->mountpoint,
				 err == -ESHUTDOWN ? "it is being unmounted" : g_strerror(-err));
}

/* Until it has ended. A client that has gone takes it along. */
static void follow(struct slu_control_call *call, struct slu_fs *fs, uint64_t number)
{
	struct slu_scrub_state s;

	for (;;) {
		slu_fs_scrub_state(fs, &s);
		/* Another one: that of this call ended within one wait, and another began. */
		if (s.number != number || !s.running)
			break;
		if (!slu_control_continue(call, reply_of(&s)) ||
		    !slu_control_wait(call, -1, slu_clock_ns() + PROGRESS_NS)) {
			(void)slu_fs_scrub_cancel(fs, number);
			return;
		}
	}
	if (s.number == number)
		slu_control_reply(call, reply_of(&s));
	else
		slu_control_fail(call, "Failed", "the scrub has ended, and another has begun");
}

void methods_scrub(void *ctx, struct slu_control_call *call)
{
	const struct served *v = ctx;
	struct slu_fs *fs = v->stack->fs;
	double rate = SLU_SCRUB_RATE;
	struct slu_scrub_state s;
	uint64_t number;
	int err;

	if (!slu_control_number(call, "rate", &rate))
		return;
	if (!(rate >= 0 && rate < 1e18)) {
		slu_control_fail(call, "Failed", "a rate is a number of bytes a second, or 0");
		return;
	}
	err = slu_fs_scrub_start(fs, (uint64_t)rate, &number);
	if (err) {
		start_failed(call, v, err);
		return;
	}
	if (slu_control_wants_more(call, false)) {
		follow(call, fs, number);
		return;
	}
	slu_fs_scrub_state(fs, &s);
	slu_control_reply(call, reply_of(&s));
}

void methods_cancel_scrub(void *ctx, struct slu_control_call *call)
{
	const struct served *v = ctx;

	if (slu_fs_scrub_cancel(v->stack->fs, 0))
		slu_control_fail(call, "Failed", "%s is not being scrubbed", v->mountpoint);
	else
		slu_control_reply(call, NULL);
}
