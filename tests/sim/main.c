/* SPDX-License-Identifier: MIT */
/*
 * sim --cuts N --seed S [--minutes M] [--exhaustive] [--with WHAT]: see usage().
 */
#include "sim.h"
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

struct options {
	uint64_t cuts, seed, one;
	double minutes;
	bool exhaustive, only_one, pinned;
	unsigned int triples;
	enum sim_with with;
	unsigned int part, nparts;
};

static struct {
	struct options opts;
	uint64_t begin_ns, deadline_ns, shown_ns;
	uint64_t cuts, sequences, records;
	uint64_t with_faults, refused,
		with_threads; /* sequences; requests that failed; sequences */
	bool tty;
} sim;

/* What is being tried, for when the product's own assertions end the program. */
static const struct sim_workload *trying;
static size_t trying_record;
static uint64_t trying_seed;

static void usage(FILE *to)
{
	fputs("usage: sim [--cuts N] [--seed S] [--minutes M] [--exhaustive] [--triples N]\n"
	      "           [--workload SEED] [--with WHAT] [--part I/N] [--mutant N]\n"
	      "\n"
	      "Runs workloads on a simulated disk, some of whose requests may fail, cuts the "
	      "power\n"
	      "everywhere and compares what is left with what was promised.\n"
	      "\n"
	      "  --cuts N         random workloads until they have been cut N times (default "
	      "20000)\n"
	      "  --seed S         of the first workload (default 1)\n"
	      "  --minutes M      no longer than this, in processor time\n"
	      "  --exhaustive     every sequence of one and of two operations first\n"
	      "  --triples N      and N sequences of three\n"
	      "  --workload SEED  one random workload, with many cuts\n"
	      "  --with WHAT      all random workloads with faults of the disk (faults), with two\n"
	      "                   threads (threads), with both or with nothing; else their seeds\n"
	      "                   say so: every fourth has faults, every fourth two threads\n"
	      "  --part I/N       the I-th of N parts of all this, from 0, on one processor\n"
	      "  --mutant N       with one of the mistakes that are built in (SLU_MUTANTS)\n",
	      to);
}

/* The processor's time, which does not depend on what else the machine does. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * SLU_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static double seconds(void)
{
	return (double)(cpu_ns() - sim.begin_ns) / 1e9;
}

static bool time_is_up(void)
{
	return cpu_ns() >= sim.deadline_ns;
}

static void show_progress(const char *what)
{
	uint64_t now = cpu_ns();

	if (!sim.tty || now - sim.shown_ns < SLU_NS_PER_SEC / 4)
		return;
	sim.shown_ns = now;
	fprintf(stderr, "\r%s: %lu sequences, %lu cuts, %.0f/s \033[K", what, sim.sequences,
		sim.cuts, (double)sim.cuts / seconds());
}

static void print_workload(const struct sim_workload *w, FILE *to)
{
	struct sim_text text = {0};

	for (unsigned int i = 0; i < w->nops; i++) {
		sim_text_add(&text, "%3u ", i + 1);
		if (w->threads)
			sim_text_add(&text, "thread %u: ", w->ops[i].thread);
		sim_op_print(&w->ops[i], &text);
	}
	fprintf(to, "seed %lu%s%s%s%s%s\n%s", w->seed, w->sync ? ", sync" : "",
		w->latency ? ", latency" : "", w->unmount ? ", unmount" : "",
		w->forgetful ? ", forgetful" : "", w->threads ? ", two threads" : "",
		text.s ? text.s : "");
	sim_text_fini(&text);
}

static void aborted(int sig)
{
	signal(SIGABRT, SIG_DFL);
	fprintf(stderr, "\naborted at record %zu, cut seed %lu, of\n", trying_record, trying_seed);
	if (trying)
		print_workload(trying, stderr);
	raise(SIGABRT);
}

/* ------------------------------------------------------------------ one workload */

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t z = a * 0x9e3779b97f4a7c15ull + b;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return (z ^ (z >> 27)) | 2;
}

/* What a cut after the first k of n records can do to the disk. */
struct boundary {
	bool loses; /* something had not been flushed, or was on its way */
	bool last;  /* what is not flushed will be with the next record, or there is none */
};

static struct boundary boundary_at(const struct slu_simdisk *disk, size_t k, size_t n)
{
	struct slu_simdisk_record r = {0};
	struct boundary b = {.last = true};
	size_t covers = 0;

	if (k) {
		slu_simdisk_record_at(disk, k - 1, &r);
		covers = r.op == SLU_IO_FLUSH ? slu_max(r.covers, (size_t)0) : 0;
		b.loses = r.op != SLU_IO_FLUSH || covers + 1 < k;
	}
	for (size_t i = k; i < n && i < k + 64; i++) {
		slu_simdisk_record_at(disk, i, &r);
		b.last &= i > k || r.op == SLU_IO_FLUSH;
		b.loses |= r.op != SLU_IO_FLUSH && r.submitted < k;
	}
	return b;
}

/*
 * Each boundary with what was not flushed all kept, and where there is such a thing also lost in
 * part, `ways` times, and lost whole, once for each flush. False and a complaint for the first that
 * is not allowed.
 */
static bool try_workload(const struct sim_workload *w, unsigned int ways,
			 struct sim_text *complaint)
{
	struct sim_run run;
	bool ok;

	trying = w;
	trying_record = 0;
	ok = sim_run(&run, w);
	if (!ok)
		sim_text_add(complaint, "without a cut: %s", run.complaint.s);
	size_t n = slu_simdisk_nrecords(run.disk);

	sim.sequences++;
	sim.records += n;
	sim.with_faults += run.refused > 0;
	sim.with_threads += w->threads;
	sim.refused += run.refused;
	for (size_t k = 0; k <= n && ok; k++) {
		struct boundary b = boundary_at(run.disk, k, n);

		for (unsigned int i = 0; i < (b.loses ? ways + 2 : 1) && ok && !time_is_up(); i++) {
			if (i == 1 && !b.last)
				continue;
			trying_record = k;
			trying_seed = i < 2 ? i : mix(w->seed, k * 64 + i);
			ok = sim_cut(&run, k, trying_seed, complaint);
			sim.cuts++;
			if (!ok)
				sim_text_add(complaint, "at record %zu of %zu, cut seed %lu\n", k,
					     n, trying_seed);
		}
	}
	sim_run_fini(&run);
	trying = NULL;
	return ok;
}

/*
 * Whether it fails as well. Without an operation the threads of a simulation take other turns, so
 * with two of them several are tried.
 */
static bool fails_too(struct sim_workload *w, unsigned int ways, struct sim_text *complaint)
{
	unsigned int schedules = w->threads ? 8 : 1;

	for (unsigned int i = 0; i < schedules; i++, w->schedule++) {
		sim_text_clear(complaint);
		if (!try_workload(w, ways, complaint))
			return true;
	}
	return false;
}

/* Leaves out what is not needed for it to fail. */
static void shrink(struct sim_workload *w, unsigned int ways, struct sim_text *complaint)
{
	struct sim_workload one = *w;
	struct sim_text text = {0};
	bool smaller = true;

	one.threads = false;
	if (w->threads && fails_too(&one, ways, &text)) {
		*w = one;
		sim_text_clear(complaint);
		sim_text_add(complaint, "%s", text.s);
	}
	while (smaller) {
		smaller = false;
		for (unsigned int i = w->nops; i-- > 0;) {
			struct sim_workload less = *w;

			memmove(&less.ops[i], &less.ops[i + 1],
				(less.nops - i - 1) * sizeof(less.ops[0]));
			less.nops--;
			if (!fails_too(&less, ways, &text))
				continue;
			*w = less;
			sim_text_clear(complaint);
			sim_text_add(complaint, "%s", text.s);
			smaller = true;
		}
	}
	sim_text_fini(&text);
}

static bool run_one(const struct sim_workload *w, unsigned int ways)
{
	struct sim_text complaint = {0};
	bool ok = try_workload(w, ways, &complaint);

	if (!ok) {
		struct sim_workload small = *w;

		fprintf(stderr, "%sFAILED, workload:\n", sim.tty ? "\r\033[K" : "");
		print_workload(w, stderr);
		fprintf(stderr, "%safter %.1f s; the shortest that fails:\n", complaint.s,
			seconds());
		sim.deadline_ns = cpu_ns() + 60 * SLU_NS_PER_SEC;
		shrink(&small, slu_max(ways, 8u), &complaint);
		print_workload(&small, stderr);
		fprintf(stderr, "%s", complaint.s);
	}
	sim_text_fini(&complaint);
	return ok;
}

/* ------------------------------------------------------------------ many */

static bool run_bounded(unsigned int nops, uint64_t sample)
{
	const struct sim_op *ops;
	unsigned int n = sim_bounded_ops(&ops), at[3] = {0};
	uint64_t total = 1;
	struct sim_workload w;
	char what[32];

	for (unsigned int i = 0; i < nops; i++)
		total *= n;
	snprintf(what, sizeof(what), "sequences of %u", nops);
	for (uint64_t i = sim.opts.part; i < (sample ? sample : total); i += sim.opts.nparts) {
		uint64_t x = sample ? mix(sim.opts.seed, i) % total : i;

		for (unsigned int k = 0; k < nops; k++, x /= n)
			at[k] = (unsigned int)(x % n);
		for (unsigned int v = 0; v < SIM_NVARIANTS; v++) {
			if (time_is_up())
				return true;
			sim_bounded_workload(&w, at, nops, v);
			if (!run_one(&w, 1))
				return false;
			show_progress(what);
		}
	}
	printf("%s: %s%lu of %lu in %u variants, part %u of %u, %lu cuts so far, %.1f s\n", what,
	       sim.tty ? "\r\033[K" : "", sample ? sample : total, total, SIM_NVARIANTS,
	       sim.opts.part + 1, sim.opts.nparts, sim.cuts, seconds());
	fflush(stdout);
	return true;
}

static bool run_random(void)
{
	struct sim_workload w;
	uint64_t seed = sim.opts.seed + sim.opts.part, first = seed, before = sim.cuts;

	for (; sim.cuts - before < sim.opts.cuts && !time_is_up(); seed += sim.opts.nparts) {
		sim_random_workload(&w, seed, sim.opts.with);
		if (!run_one(&w, 4))
			return false;
		show_progress("random");
	}
	if (seed != first)
		printf("random workloads: seeds %lu to %lu by %u\n", first, seed - sim.opts.nparts,
		       sim.opts.nparts);
	return true;
}

static bool run_all(void)
{
	struct sim_workload w;

	if (sim.opts.only_one) {
		sim_random_workload(&w, sim.opts.one, sim.opts.with);
		return run_one(&w, 40);
	}
	if (sim.opts.exhaustive && (!run_bounded(1, 0) || !run_bounded(2, 0)))
		return false;
	if (sim.opts.triples && !run_bounded(3, sim.opts.triples))
		return false;
	return run_random();
}

static bool choose_mutant(unsigned long which)
{
#if defined(SLU_MUTANTS)
	slu_mutant_chosen = (enum slu_mutant)which;
	return which < SLU_MUTANT_END;
#else
	fprintf(stderr, "no mistakes are built in: cmake -DSLU_MUTANTS=ON\n");
	return false;
#endif
}

/*
 * Most of the time goes to threads that hand work to each other, which costs half as much on one
 * processor: each part has one of its own.
 */
static void pin(void)
{
	unsigned int left = sim.opts.part;
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all) || !CPU_COUNT(&all))
		return;
	left %= (unsigned int)CPU_COUNT(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all) || left--)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static bool choose_with(const char *what)
{
	static const struct {
		const char *name;
		enum sim_with with;
	} all[] = {{"nothing", SIM_WITH_NOTHING},
		   {"faults", SIM_WITH_FAULTS},
		   {"threads", SIM_WITH_THREADS},
		   {"both", SIM_WITH_FAULTS | SIM_WITH_THREADS}};

	for (size_t i = 0; i < slu_array_size(all); i++) {
		if (strcmp(what, all[i].name) != 0)
			continue;
		sim.opts.with = all[i].with;
		return true;
	}
	return false;
}

static bool parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"cuts", 1, NULL, 'c'},
		{"seed", 1, NULL, 's'},
		{"minutes", 1, NULL, 'm'},
		{"exhaustive", 0, NULL, 'e'},
		{"triples", 1, NULL, 't'},
		{"workload", 1, NULL, 'w'},
		{"mutant", 1, NULL, 'M'},
		{"part", 1, NULL, 'p'},
		{"with", 1, NULL, 'W'},
		{"help", 0, NULL, 'h'},
		{0},
	};
	int c;

	sim.opts = (struct options){
		.cuts = 20000, .seed = 1, .minutes = 1e6, .nparts = 1, .with = SIM_WITH_ANY};
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			sim.opts.cuts = strtoull(optarg, NULL, 0);
			break;
		case 's':
			sim.opts.seed = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			sim.opts.minutes = strtod(optarg, NULL);
			break;
		case 'e':
			sim.opts.exhaustive = true;
			break;
		case 't':
			sim.opts.triples = (unsigned int)strtoul(optarg, NULL, 0);
			break;
		case 'w':
			sim.opts.only_one = true;
			sim.opts.one = strtoull(optarg, NULL, 0);
			break;
		case 'W':
			if (!choose_with(optarg))
				return false;
			break;
		case 'p':
			if (sscanf(optarg, "%u/%u", &sim.opts.part, &sim.opts.nparts) != 2 ||
			    sim.opts.part >= sim.opts.nparts)
				return false;
			sim.opts.pinned = true;
			break;
		case 'M':
			if (!choose_mutant(strtoul(optarg, NULL, 0)))
				return false;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return false;
		}
	}
	return optind == argc;
}

int main(int argc, char **argv)
{
	bool ok;

	if (!parse(argc, argv)) {
		usage(stderr);
		return 2;
	}
	signal(SIGABRT, aborted);
	if (sim.opts.pinned)
		pin();
	sim.tty = isatty(STDERR_FILENO);
	sim.begin_ns = cpu_ns();
	sim.deadline_ns = sim.begin_ns + (uint64_t)(sim.opts.minutes * 60e9);
	ok = run_all();
	printf("%swith faults: %lu sequences, %lu requests failed; with two threads: %lu "
	       "sequences\n",
	       sim.tty ? "\r\033[K" : "", sim.with_faults, sim.refused, sim.with_threads);
	printf("%lu sequences, %lu records, %lu cuts, %.1f s, %.0f cuts/s: %s\n", sim.sequences,
	       sim.records, sim.cuts, seconds(), (double)sim.cuts / seconds(),
	       ok ? "ok" : "FAILED");
	return ok ? 0 : 1;
}
