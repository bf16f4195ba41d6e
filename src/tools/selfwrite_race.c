/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_race: several threads write a file into itself at the same time, or another process
 * truncates it meanwhile, or both.
 *
 * All writers of a run move bytes by the same distance, half of them up and half down: each then
 * needs pages that another is writing, in both orders, and the set of bytes that may end up at a
 * place stays small enough to tell a wrong one.
 */
#include "selfwrite_private.h"
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct race;

struct race_writer {
	struct race *race;
	pthread_t thread;
	struct selfwrite_io io;
	struct selfwrite_copy copy;
	bool first; /* syncs for all */
	int verdict;
	char reason[SELFWRITE_REASON];
};

struct race {
	struct selfwrite *sw;
	const struct selfwrite_combo *combo;
	size_t size;   /* of the file */
	size_t kept;   /* what truncation leaves */
	size_t rounds; /* writes of each writer */
	const uint8_t *map;
	uint64_t random;
	pthread_barrier_t start;
	struct race_writer writers[SELFWRITE_COPIES];
};

/* ------------------------------------------------------------------ who writes what */

static size_t race_random(struct race *race, size_t below)
{
	return (size_t)(selfwrite_random(&race->random) % below);
}

/* -2 to 2 more, but nothing where O_DIRECT wants whole pages. */
static size_t race_near(struct race *race, size_t pos)
{
	if (race->combo->direct && race->combo->len % PAGE == 0)
		return pos;
	return pos + race_random(race, 5) - 2;
}

static void race_plan(struct race *race)
{
	const struct selfwrite_combo *combo = race->combo;
	size_t pages = slu_max(combo->len / PAGE / 2, 1u), len = combo->len;
	size_t by = race_near(race, PAGE * (1 + race_random(race, pages)));
	bool up = race_random(race, 2);

	race->size = slu_round_up(len + by, PAGE);
	race->kept = race_near(race, PAGE);
	race->rounds = combo->truncate ? (8u << 20) / len : (2u << 20) / len;
	race->rounds = slu_max(slu_min(race->rounds, combo->truncate ? 64u : 16u), 4u);
	for (unsigned int i = 0; i < combo->threads; i++, up = !up) {
		struct selfwrite_copy *copy = &race->writers[i].copy;
		/* Upward from anywhere from which the source is whole. */
		size_t from = up ? race_near(race, PAGE * race_random(race, by / PAGE + 1)) : 0;

		if (from > race->size - len) /* also what went below 0 */
			from = 0;
		copy->parts[0] = (struct selfwrite_part){up ? from : by, len};
		copy->nparts = 1;
		copy->dst = up ? from + by : 0;
	}
}

/* ------------------------------------------------------------------ the writers */

/* As at the beginning, as far as that goes while others are at it. */
static int race_again(struct race_writer *writer)
{
	const struct race *race = writer->race;
	const struct selfwrite_part *part = &writer->copy.parts[0];
	size_t from = slu_round_down(part->src, PAGE);

	if (race->combo->source != SELFWRITE_DROPPED) {
		if (race->map && !selfwrite_touch(race->map, from, part->src + part->len, PAGE) &&
		    !race->combo->truncate)
			return selfwrite_failed(writer->reason,
						"SIGBUS from the mapping of the source");
		return 0;
	}
	if (writer->first && fsync(writer->io.out) != 0)
		return selfwrite_failed(writer->reason, "fsync: %s", strerror(errno));
	if (race->map)
		madvise((void *)(race->map + from), part->src + part->len - from, MADV_DONTNEED);
	posix_fadvise(writer->io.out, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

static void *race_writer(void *arg)
{
	struct race_writer *writer = arg;
	const struct race *race = writer->race;

	pthread_barrier_wait(&writer->race->start);
	for (size_t round = 0; round < race->rounds && !writer->verdict; round++) {
		if (round)
			writer->verdict = race_again(writer);
		if (!writer->verdict)
			writer->verdict =
				selfwrite_write(&writer->io, race->combo->way, &writer->copy);
		selfwrite_step(race->sw->shared);
	}
	return NULL;
}

static int race_open(struct race *race)
{
	struct selfwrite *sw = race->sw;

	for (unsigned int i = 0; i < race->combo->threads; i++) {
		struct race_writer *writer = &race->writers[i];
		int err = selfwrite_io_open(sw, &writer->io, race->combo->direct);

		if (err)
			return err;
		writer->race = race;
		writer->first = i == 0;
		writer->io.truncated = race->combo->truncate;
		writer->io.map = race->map;
		writer->io.reason = writer->reason;
	}
	return 0;
}

/* All writers, until all have ended; what the first of them that had trouble says. */
static int race_write(struct race *race)
{
	unsigned int n = race->combo->threads;
	int verdict = SELFWRITE_PASSED;

	pthread_barrier_init(&race->start, NULL, n);
	for (unsigned int i = 0; i < n; i++) {
		if (pthread_create(&race->writers[i].thread, NULL, race_writer, &race->writers[i]))
			abort(); /* the others would wait for it at the barrier */
	}
	for (unsigned int i = 0; i < n; i++)
		pthread_join(race->writers[i].thread, NULL);
	pthread_barrier_destroy(&race->start);
	for (unsigned int i = 0; i < n; i++) {
		struct race_writer *writer = &race->writers[i];

		if (!writer->verdict || verdict == SELFWRITE_FAILED)
			continue;
		verdict = writer->verdict;
		memcpy(race->sw->reason, writer->reason, sizeof(race->sw->reason));
	}
	return verdict;
}

/* ------------------------------------------------------------------ who truncates */

/* The process: 0 or an errno. Ends with its parent, also if that is killed. */
static int race_truncater(struct race *race, pid_t parent)
{
	struct selfwrite_shared *shared = race->sw->shared;
	const struct timespec nap = {.tv_nsec = 50 * 1000};
	int fd = open(race->sw->path, O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0)
		return errno;
	while (!atomic_load(&shared->helper_stop) && getppid() == parent) {
		size_t to = race->kept + race_random(race, race->size - race->kept);

		if (ftruncate(fd, (off_t)to) != 0)
			return errno;
		nanosleep(&nap, NULL);
		if (ftruncate(fd, (off_t)race->size) != 0)
			return errno;
		atomic_store(&shared->helper_ready, true);
		nanosleep(&nap, NULL);
	}
	return 0;
}

/* Forked while there is one thread. */
static int race_truncater_start(struct race *race, pid_t *ret_pid)
{
	struct selfwrite_shared *shared = race->sw->shared;
	pid_t parent = getpid(), pid;

	atomic_store(&shared->helper_ready, false);
	atomic_store(&shared->helper_stop, false);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return selfwrite_failed(race->sw->reason, "fork: %s", strerror(errno));
	if (pid == 0)
		_exit(race_truncater(race, parent));
	atomic_store(&shared->helper, pid);
	*ret_pid = pid;
	return 0;
}

/* Waits until it is at work, or has failed, which its end will tell. */
static void race_truncater_wait(struct race *race, pid_t pid)
{
	const struct timespec nap = {.tv_nsec = 20 * 1000};
	siginfo_t info = {0};

	while (!atomic_load(&race->sw->shared->helper_ready) &&
	       waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && !info.si_pid)
		nanosleep(&nap, NULL);
}

static int race_truncater_stop(struct race *race, pid_t pid, int verdict)
{
	struct selfwrite_shared *shared = race->sw->shared;
	int status;

	atomic_store(&shared->helper_stop, true);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	atomic_store(&shared->helper, 0);
	if (verdict || (WIFEXITED(status) && !WEXITSTATUS(status)))
		return verdict;
	return selfwrite_failed(race->sw->reason, "truncate: %s",
				WIFEXITED(status) ? strerror(WEXITSTATUS(status)) : "killed");
}

/* ------------------------------------------------------------------ a run */

static int race_run(struct race *race)
{
	pid_t pid = 0;
	int err = 0;

	if (race->combo->truncate) {
		err = race_truncater_start(race, &pid);
		if (err)
			return err;
		race_truncater_wait(race, pid);
	}
	err = race_write(race);
	return pid ? race_truncater_stop(race, pid, err) : err;
}

static int race_check(struct race *race)
{
	struct selfwrite_copy copies[SELFWRITE_COPIES];
	struct selfwrite *sw = race->sw;
	unsigned int n = race->combo->threads;

	for (unsigned int i = 0; i < n; i++)
		copies[i] = race->writers[i].copy;
	if (selfwrite_expect(sw, copies, n))
		return SELFWRITE_FAILED;
	sw->expect.truncated = race->combo->truncate;
	sw->expect.kept = race->kept;
	return selfwrite_check(sw, true);
}

int selfwrite_race(struct selfwrite *sw, const struct selfwrite_combo *combo)
{
	struct race race = {.sw = sw, .combo = combo, .random = sw->seed ^ g_str_hash(combo->name)};
	int err;

	race_plan(&race);
	for (unsigned int i = 0; i < SELFWRITE_COPIES; i++)
		race.writers[i].io = (struct selfwrite_io){.in = -1, .out = -1, .pipe = {-1, -1}};
	sw->prepared = false;
	err = selfwrite_file_prepare(sw, race.size);
	for (unsigned int i = 0; i < combo->threads && !err; i++)
		err = selfwrite_file_source(sw, &race.writers[i].copy, combo->source, &race.map);
	if (!err)
		err = race_open(&race);
	if (!err)
		err = race_run(&race);
	if (!err)
		err = race_check(&race);
	for (unsigned int i = 0; i < SELFWRITE_COPIES; i++)
		selfwrite_io_close(&race.writers[i].io);
	sw->prepared = false;
	return err;
}
