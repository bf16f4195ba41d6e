/* SPDX-License-Identifier: MIT */
/*
 * sluice-selfwrite --lab: the deadlock in process, without a mount. Runs rounds of the lab (lab.h)
 * and says what came of them.
 */
#include "selfwrite_private.h"
#include "sluice/lab.h"
#include <errno.h>
#include <string.h>

#define READERS    4u
#define READER_OPS 5000u

static const struct {
	const char *name;
	enum slu_lab_policy policy;
	const char *what;
} policies[] = {
	{"hold-all", SLU_LAB_HOLD_ALL,
	 "every page of a request locked until all are copied (the kernel's FUSE client in 2020)"},
	{"tail-faulting", SLU_LAB_TAIL_FAULTING, "only the tail locked, but the copy may fault"},
	{"tail-nofault", SLU_LAB_TAIL_NOFAULT,
	 "only the tail locked, and the copy takes what is ready"},
};

/* The options as the lab wants them; false after saying which makes no sense. */
static bool lab_options(const struct selfwrite_lab_options *o, size_t *ret_policy,
			struct slu_lab_opts *ret)
{
	size_t i = 0;

	if (!o->policy) {
		slu_tool_error("--lab needs --policy hold-all, tail-faulting or tail-nofault");
		return false;
	}
	while (i < slu_array_size(policies) && strcmp(policies[i].name, o->policy) != 0)
		i++;
	if (i == slu_array_size(policies)) {
		slu_tool_error("no policy \"%s\": hold-all, tail-faulting or tail-nofault",
			       o->policy);
		return false;
	}
	if (o->pages < (int)SLU_LAB_MIN_PAGES || o->pages > (int)SLU_LAB_MAX_PAGES) {
		slu_tool_error("--pages is from %u to %u", SLU_LAB_MIN_PAGES, SLU_LAB_MAX_PAGES);
		return false;
	}
	if (o->threads < 1 || o->threads > (int)SLU_LAB_MAX_THREADS) {
		slu_tool_error("--threads is from 1 to %u", SLU_LAB_MAX_THREADS);
		return false;
	}
	if (o->runs < 1) {
		slu_tool_error("--runs is at least 1");
		return false;
	}
	*ret_policy = i;
	*ret = (struct slu_lab_opts){.policy = policies[i].policy,
				     .npages = (uint32_t)o->pages,
				     .nthreads = (uint32_t)o->threads,
				     .nwrites = SLU_LAB_MAX_WRITES};
	return true;
}

static struct slu_lab *lab_open(const struct slu_lab_opts *opts)
{
	struct slu_lab *lab;
	const char *why;

	if (slu_lab_new(opts, &lab, &why) == 0)
		return lab;
	slu_tool_error("the lab cannot be set up: %s", why);
	return NULL;
}

static int lab_failed(const struct slu_lab *lab, int err, uint64_t seed)
{
	if (err == -EDEADLK) {
		slu_lab_draw(lab, stdout);
		printf("\ndeadlock: found in the round of seed %llu, and broken: all locks are "
		       "free again\n",
		       (unsigned long long)seed);
		return SELFWRITE_DEADLOCK;
	}
	if (err == -EUCLEAN)
		printf("FAILED  seed %llu: %s\n", (unsigned long long)seed, slu_lab_complaint(lab));
	else
		slu_tool_error("the round of seed %llu: %s", (unsigned long long)seed,
			       strerror(-err));
	return SELFWRITE_FAILED;
}

static int lab_rounds(struct slu_lab *lab, uint64_t seed, int runs)
{
	int err;

	for (int i = 0; i < runs; i++, seed++) {
		err = slu_lab_round(lab, seed);
		if (err)
			return lab_failed(lab, err, seed);
	}
	return SELFWRITE_PASSED;
}

static void lab_say(const char *what, const struct slu_lab_stats *s)
{
	printf("ok      %s: %llu writes of %llu bytes, every byte checked\n", what,
	       (unsigned long long)s->writes, (unsigned long long)s->bytes);
	printf("        source: %llu bytes touched, faulted in %llu times (the most in one write: "
	       "%llu, of %llu pages)\n",
	       (unsigned long long)s->touched, (unsigned long long)s->fault_ins,
	       (unsigned long long)s->most_tries, (unsigned long long)s->most_bound);
	printf("        waits: %llu faults, %llu of a locked page; %llu woken, %llu (%.1f %%) "
	       "without cause, %llu before their message was read\n",
	       (unsigned long long)s->faults, (unsigned long long)s->lock_waits,
	       (unsigned long long)s->wakeups, (unsigned long long)s->spurious,
	       s->wakeups ? 100.0 * (double)s->spurious / (double)s->wakeups : 0.0,
	       (unsigned long long)s->saved);
}

/* One kind of round of the policy that must finish. */
static int lab_part(const char *what, struct slu_lab_opts opts, uint64_t seed, int runs)
{
	struct slu_lab *lab = lab_open(&opts);
	const struct slu_lab_stats *stats;
	int status;

	if (!lab)
		return SELFWRITE_FAILED;
	stats = slu_lab_stats(lab);
	status = lab_rounds(lab, seed, runs);
	if (status == SELFWRITE_PASSED && stats->touched != stats->bytes) {
		printf("FAILED  %s: %llu bytes touched for %llu\n", what,
		       (unsigned long long)stats->touched, (unsigned long long)stats->bytes);
		status = SELFWRITE_FAILED;
	}
	if (status == SELFWRITE_PASSED && opts.resident && stats->fault_ins) {
		printf("FAILED  %s: faulted in %llu times\n", what,
		       (unsigned long long)stats->fault_ins);
		status = SELFWRITE_FAILED;
	}
	if (status == SELFWRITE_PASSED)
		lab_say(what, stats);
	slu_lab_free(lab);
	return status;
}

static int lab_read(struct slu_lab_opts opts, uint64_t seed)
{
	struct slu_lab *lab = lab_open(&opts);
	const struct slu_lab_stats *s;
	int err;

	if (!lab)
		return SELFWRITE_FAILED;
	err = slu_lab_readers(lab, seed, READERS, READER_OPS);
	s = slu_lab_stats(lab);
	if (!err)
		printf("ok      readers: %llu pages read and %llu looked at with their lock while "
		       "%llu were replaced and %llu truncated; none torn, none stale\n",
		       (unsigned long long)s->reads, (unsigned long long)s->reads_locked,
		       (unsigned long long)s->replaced, (unsigned long long)s->truncated);
	else
		lab_failed(lab, err, seed);
	slu_lab_free(lab);
	return err ? SELFWRITE_FAILED : SELFWRITE_PASSED;
}

/* What must finish does so in every state of its source, and under every eye. */
static int lab_nofault(const struct slu_lab_opts *opts, uint64_t seed, int runs)
{
	struct slu_lab_opts resident = *opts, adversary = *opts;
	int status;

	resident.resident = true;
	adversary.adversary = true;
	status = lab_part("source in memory", resident, seed, runs);
	if (!status)
		status = lab_part("source out of memory", *opts, seed, runs);
	if (!status)
		status = lab_part("an adversary drops its pages all the time", adversary, seed,
				  runs);
	if (!status)
		status = lab_read(*opts, seed);
	printf("%s: policy tail-nofault, %d rounds each\n", status ? "fail" : "pass", runs);
	return status;
}

/* A faulty policy: the first deadlock is what it is for. */
static int lab_faulty(const struct slu_lab_opts *opts, uint64_t seed, int runs)
{
	struct slu_lab *lab = lab_open(opts);
	int status;

	if (!lab)
		return SELFWRITE_FAILED;
	status = lab_rounds(lab, seed, runs);
	if (status == SELFWRITE_PASSED)
		printf("pass: no deadlock in %d rounds\n", runs);
	slu_lab_free(lab);
	return status;
}

int selfwrite_lab(const struct selfwrite_lab_options *o)
{
	struct slu_lab_opts opts;
	size_t policy;

	if (!lab_options(o, &policy, &opts))
		return SELFWRITE_USAGE;
	printf("policy %s: %s\n%u pages, %u writer%s, seed %llu\n\n", policies[policy].name,
	       policies[policy].what, opts.npages, opts.nthreads, opts.nthreads > 1 ? "s" : "",
	       (unsigned long long)o->seed);
	fflush(stdout);
	if (opts.policy == SLU_LAB_TAIL_NOFAULT)
		return lab_nofault(&opts, o->seed, o->runs);
	return lab_faulty(&opts, o->seed, o->runs);
}
