/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_watch: the worker that runs a job, and the parent that watches it and calls it a
 * deadlock when nothing has moved for too long. A worker that dies is replaced, so that one bad
 * end does not hide what comes after it.
 */
#include "selfwrite_private.h"
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const verdict_words[] = {"ok      ", "FAILED  ", "refused ", "DEADLOCK "};

static double watch_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------ the worker */

static void watch_report(struct selfwrite_job *job, size_t i)
{
	const struct selfwrite_result *result = &job->results[i];
	const char *name = job->name(job->plan, i);
	bool again = job->again &&
		     (result->verdict == SELFWRITE_FAILED || result->verdict == SELFWRITE_DEADLOCK);

	if (job->quiet)
		return;
	printf("%s%s%s%s", verdict_words[result->verdict], name, result->reason[0] ? ": " : "",
	       result->reason);
	if (again)
		printf("; again with: %s --only '%s'", job->again, name);
	printf("\n");
	fflush(stdout);
}

static int watch_worker(struct selfwrite_job *job, struct selfwrite_shared *shared, size_t first)
{
	struct selfwrite sw = {.path = job->path, .shared = shared, .seed = job->opts->seed};

	sw.fd = open(job->path, O_RDWR | O_CLOEXEC);
	if (sw.fd < 0) {
		slu_tool_error("%s: %s", job->path, strerror(errno));
		return SELFWRITE_FAILED;
	}
	if (selfwrite_file_init(&sw, job->file_max)) {
		fprintf(stderr, "sluice-selfwrite: out of memory\n");
		return SELFWRITE_FAILED;
	}
	for (size_t i = first; i < job->n; i++) {
		struct selfwrite_result *result = &shared->results[i];
		double start = watch_now();

		atomic_store(&shared->current, (uint32_t)i);
		atomic_store(&shared->where, 0);
		selfwrite_step(shared);
		sw.reason[0] = 0;
		result->verdict = (uint8_t)job->run(&sw, job->plan, i);
		if (result->verdict != SELFWRITE_PASSED)
			snprintf(result->reason, sizeof(result->reason), "%s", sw.reason);
		result->ms = (uint32_t)((watch_now() - start) * 1000);
		result->ran = true;
		watch_report(job, i);
	}
	selfwrite_file_fini(&sw);
	close(sw.fd);
	return SELFWRITE_PASSED;
}

/* ------------------------------------------------------------------ the parent */

/* One field of a file of /proc, or its first line. */
static void watch_proc(const char *name, const char *field, char *ret, size_t size)
{
	size_t skip = field ? strlen(field) : 0;
	char line[256];
	FILE *f;

	snprintf(ret, size, "?");
	f = fopen(name, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		if (field && strncmp(line, field, skip) != 0)
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(ret, size, "%s", line + skip + strspn(line + skip, " \t"));
		break;
	}
	fclose(f);
}

/* Adds to text where each thread of the process sleeps. */
static void watch_threads(pid_t pid, const char *what, char *text, size_t size)
{
	char dir[64], name[384], state[64], wchan[64];
	struct dirent *entry;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/task", (int)pid);
	d = opendir(dir);
	if (!d)
		return;
	while ((entry = readdir(d))) {
		size_t len = strlen(text);

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s/status", dir, entry->d_name);
		watch_proc(name, "State:", state, sizeof(state));
		snprintf(name, sizeof(name), "%s/%s/wchan", dir, entry->d_name);
		watch_proc(name, NULL, wchan, sizeof(wchan));
		snprintf(text + len, size - len, "; %s %s is in state %s, waiting in %s",
			 atoi(entry->d_name) == pid ? what : "thread", entry->d_name, state, wchan);
	}
	closedir(d);
}

static void watch_deadlocked(const struct selfwrite_job *job, struct selfwrite_shared *shared,
			     pid_t pid)
{
	struct selfwrite_result *result = &shared->results[atomic_load(&shared->current)];
	pid_t helper = atomic_load(&shared->helper);

	snprintf(result->reason, sizeof(result->reason), "the write at %llu has not moved for %u s",
		 (unsigned long long)atomic_load(&shared->where), job->opts->timeout);
	watch_threads(pid, "process", result->reason, sizeof(result->reason));
	if (helper > 0) {
		watch_threads(helper, "truncating process", result->reason, sizeof(result->reason));
		kill(helper, SIGKILL);
	}
	/* They may not even notice: nobody waits for them. */
	kill(pid, SIGKILL);
	result->ms = job->opts->timeout * 1000;
	result->verdict = SELFWRITE_DEADLOCK;
	result->ran = true;
}

/* Until the worker has ended, or has not moved for too long. *ret_status is that of waitpid(2). */
static bool watch_wait(const struct selfwrite_job *job, struct selfwrite_shared *shared, pid_t pid,
		       int *ret_status)
{
	const struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
	uint64_t steps = 0;
	double since = watch_now();

	while (waitpid(pid, ret_status, WNOHANG) != pid) {
		if (atomic_load(&shared->steps) != steps) {
			steps = atomic_load(&shared->steps);
			since = watch_now();
		} else if (watch_now() - since > job->opts->timeout) {
			return false;
		}
		nanosleep(&nap, NULL);
	}
	return true;
}

/* Whoever truncates for a worker that has died gets a signal, too; it must not meet the next one. */
static void watch_helper_ended(struct selfwrite_shared *shared)
{
	const struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
	pid_t helper = atomic_exchange(&shared->helper, 0);

	for (int i = 0; i < 100 && helper > 0 && kill(helper, SIGKILL) == 0; i++)
		nanosleep(&nap, NULL);
}

/* A worker for the things from `first` on; returns the first that is left for another. */
static size_t watch_one_worker(struct selfwrite_job *job, struct selfwrite_shared *shared,
			       size_t first)
{
	struct selfwrite_result *result;
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		slu_tool_error("fork: %s", strerror(errno));
		return SIZE_MAX;
	}
	if (pid == 0) {
		status = watch_worker(job, shared, first);
		fflush(NULL);
		_exit(status);
	}
	if (!watch_wait(job, shared, pid, &status)) {
		watch_deadlocked(job, shared, pid);
		watch_report(job, atomic_load(&shared->current));
		return job->n;
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status) ? SIZE_MAX : job->n;
	watch_helper_ended(shared);
	result = &shared->results[atomic_load(&shared->current)];
	snprintf(result->reason, sizeof(result->reason), "the writer died of signal %d",
		 WTERMSIG(status));
	result->verdict = SELFWRITE_FAILED;
	result->ran = true;
	watch_report(job, atomic_load(&shared->current));
	return atomic_load(&shared->current) + 1;
}

static enum selfwrite_verdict watch_summary(struct selfwrite_job *job, bool broken)
{
	static const char *const words[] = {"pass", "fail", "refused", "deadlock"};
	enum selfwrite_verdict verdict;

	for (size_t i = 0; i < job->n; i++) {
		if (job->results[i].ran)
			job->count[job->results[i].verdict]++;
	}
	verdict = job->count[SELFWRITE_DEADLOCK]           ? SELFWRITE_DEADLOCK
		  : job->count[SELFWRITE_FAILED] || broken ? SELFWRITE_FAILED
							   : SELFWRITE_PASSED;
	if (job->quiet)
		return verdict;
	printf("%s: %u passed, %u failed, %u refused by the filesystem%s", words[verdict],
	       job->count[SELFWRITE_PASSED], job->count[SELFWRITE_FAILED],
	       job->count[SELFWRITE_REFUSED],
	       verdict == SELFWRITE_DEADLOCK ? ", 1 deadlocked" : "");
	if (job->again)
		printf(", in %.1f s", job->seconds);
	printf("\n");
	fflush(stdout);
	return verdict;
}

enum selfwrite_verdict selfwrite_run(struct selfwrite_job *job)
{
	size_t len = sizeof(struct selfwrite_shared) + job->n * sizeof(struct selfwrite_result);
	struct selfwrite_shared *shared;
	double start = watch_now();
	size_t next = 0;

	/* Stays mapped: the results are in it. */
	shared = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		slu_tool_error("mmap: %s", strerror(errno));
		return SELFWRITE_FAILED;
	}
	job->results = shared->results;
	while (next < job->n)
		next = watch_one_worker(job, shared, next);
	job->seconds = watch_now() - start;
	return watch_summary(job, next == SIZE_MAX);
}
