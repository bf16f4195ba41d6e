/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_matrix: every combination that a program can choose of a way to write, the page cache
 * or O_DIRECT, where the source lies, a size, and where from and where to; and those with several
 * writers and with truncation. The cache mode is the mount's.
 */
#include "selfwrite_private.h"
#include <string.h>
#include <unistd.h>

#define SIZE_MIDDLE  (16 * PAGE)
#define SIZE_LARGE   (256 * PAGE)
#define SIZE_LARGEST (1024 * PAGE)

struct matrix_place {
	size_t src, dst;
};

/* Around the page boundaries, upward and downward; the least overlap and the most. */
static const struct matrix_place places[] = {
	{0, 0},
	{0, 1},
	{0, 2},
	{0, PAGE - 2},
	{0, PAGE - 1},
	{0, PAGE},
	{0, PAGE + 1},
	{0, PAGE + 2},
	{0, 3 * PAGE - 2},
	{0, 3 * PAGE - 1},
	{0, 3 * PAGE},
	{0, 3 * PAGE + 1},
	{0, 3 * PAGE + 2},
	{PAGE, 0},
	{PAGE, PAGE - 1},
	{PAGE, PAGE + 1},
	{PAGE, 3 * PAGE},
};

/* For sizes that take time; the first of them for the largest. */
static const struct matrix_place places_large[] = {
	{0, 3 * PAGE + 1}, {PAGE, 0}, {0, PAGE}, {0, 1}, {PAGE, PAGE - 1},
};
#define PLACES_LARGEST 2

static const size_t sizes[] = {12, PAGE - 1, PAGE, SIZE_MIDDLE, SIZE_LARGE, SIZE_LARGEST};
static const size_t race_sizes[] = {PAGE - 1, SIZE_MIDDLE, SIZE_LARGE};

static const char *const source_names[] = {
	[SELFWRITE_RESIDENT] = "resident",
	[SELFWRITE_DROPPED] = "dropped",
	[SELFWRITE_PARTLY] = "partly",
	[SELFWRITE_READONLY] = "readonly",
};

const char *selfwrite_source_name(enum selfwrite_source source)
{
	return source_names[source];
}

/* ------------------------------------------------------------------ one combination */

/* Of the smallest size the reproducer's two pieces, from two pages. */
static struct selfwrite_copy matrix_copy(const struct selfwrite_combo *combo, size_t dst)
{
	struct selfwrite_copy copy = {.nparts = 1, .dst = dst};

	copy.parts[0] = (struct selfwrite_part){combo->src, combo->len};
	if (combo->len == 12) {
		copy.parts[1] = (struct selfwrite_part){combo->src + PAGE, combo->len};
		copy.nparts = 2;
	}
	return copy;
}

/* To dst, in a file that ends with the page where the source ends. */
static int matrix_write(struct selfwrite *sw, const struct selfwrite_combo *combo, size_t dst,
			bool reread)
{
	struct selfwrite_copy copy = matrix_copy(combo, dst);
	struct selfwrite_io *io = &sw->io[combo->direct];
	int err = selfwrite_file_prepare(sw, slu_round_up(selfwrite_copy_source_end(&copy), PAGE));

	if (!err)
		err = selfwrite_expect(sw, &copy, 1);
	if (!err)
		err = selfwrite_file_source(sw, &copy, combo->source, &io->map);
	io->dsync = combo->source == SELFWRITE_DROPPED;
	if (!err)
		err = selfwrite_write(io, combo->way, &copy);
	if (!err)
		err = selfwrite_check(sw, reread);
	if (!err)
		err = selfwrite_file_restore(sw, &copy);
	else
		sw->prepared = false;
	return err;
}

static int matrix_run(struct selfwrite *sw, const void *plan, size_t i)
{
	const struct selfwrite_combo *combo = (const struct selfwrite_combo *)plan + i;
	struct selfwrite_io *io = &sw->io[combo->direct];
	int err = 0;

	if (combo->kind == SELFWRITE_RACE)
		return selfwrite_race(sw, combo);
	if (io->in < 0) {
		err = selfwrite_io_open(sw, io, combo->direct);
		if (err)
			return err;
	}
	/* What went round the page cache must be on disk and in the page cache alike. */
	if (combo->kind == SELFWRITE_ONE)
		return matrix_write(sw, combo, combo->dst,
				    combo->source == SELFWRITE_DROPPED ||
					    (combo->direct && combo->len < SIZE_LARGE));
	for (size_t off = 0; off < PAGE && !err; off++)
		err = matrix_write(sw, combo, PAGE + off, off % 256 == 255);
	return err;
}

static const char *matrix_name(const void *plan, size_t i)
{
	return ((const struct selfwrite_combo *)plan)[i].name;
}

/* ------------------------------------------------------------------ all of them */

struct matrix_plan {
	GArray *combos;
	const char *only;
};

static void matrix_add(struct matrix_plan *plan, struct selfwrite_combo combo)
{
	char what[32];

	switch (combo.kind) {
	case SELFWRITE_ONE:
		snprintf(what, sizeof(what), "%zu-%zu", combo.src, combo.dst);
		break;
	case SELFWRITE_SWEEP:
		snprintf(what, sizeof(what), "every-offset");
		break;
	case SELFWRITE_RACE:
		snprintf(what, sizeof(what), "%s%s", combo.threads > 1 ? "threads" : "",
			 !combo.truncate     ? ""
			 : combo.threads > 1 ? "-truncate"
					     : "truncate");
		break;
	}
	snprintf(combo.name, sizeof(combo.name), "%s/%s/%s/%zu/%s", selfwrite_way_name(combo.way),
		 combo.direct ? "direct" : "buffered", selfwrite_source_name(combo.source),
		 combo.len, what);
	if (!plan->only || g_pattern_match_simple(plan->only, combo.name))
		g_array_append_val(plan->combos, combo);
}

/* Every way and every source for one size and place. */
static void matrix_add_place(struct matrix_plan *plan, size_t len, struct matrix_place place)
{
	struct selfwrite_combo combo = {.len = len, .src = place.src, .dst = place.dst};

	for (combo.way = SELFWRITE_WRITEV; combo.way <= SELFWRITE_SPLICE; combo.way++) {
		for (combo.source = 0; combo.source <= SELFWRITE_READONLY; combo.source++) {
			/* One page is there or not; and a descriptor is not a mapping. */
			if (combo.source == SELFWRITE_PARTLY && len > 12 && len <= PAGE)
				continue;
			if (combo.source == SELFWRITE_READONLY && combo.way >= SELFWRITE_SENDFILE)
				continue;
			for (int direct = 0; direct < 2; direct++) {
				combo.direct = direct;
				matrix_add(plan, combo);
			}
		}
	}
}

static void matrix_add_races(struct matrix_plan *plan, struct selfwrite_combo combo, size_t len)
{
	combo.kind = SELFWRITE_RACE;
	combo.len = len;
	combo.threads = SELFWRITE_COPIES;
	matrix_add(plan, combo);
	combo.truncate = true;
	if (len == SIZE_MIDDLE)
		matrix_add(plan, combo);
	combo.threads = 1;
	matrix_add(plan, combo);
}

/* What takes longest comes last. */
static void matrix_add_rest(struct matrix_plan *plan)
{
	struct selfwrite_combo combo = {.threads = 0};

	for (combo.way = SELFWRITE_WRITEV; combo.way <= SELFWRITE_SPLICE; combo.way++) {
		for (int direct = 0; direct < 2; direct++) {
			struct selfwrite_combo sweep = {.kind = SELFWRITE_SWEEP,
							.way = combo.way,
							.direct = direct,
							.len = 12};

			matrix_add(plan, sweep);
			combo.direct = direct;
			for (size_t i = 0; i < slu_array_size(race_sizes); i++) {
				combo.source = SELFWRITE_RESIDENT;
				matrix_add_races(plan, combo, race_sizes[i]);
				combo.source = SELFWRITE_DROPPED;
				matrix_add_races(plan, combo, race_sizes[i]);
			}
		}
	}
}

static GArray *matrix_plan(const char *only)
{
	struct matrix_plan plan = {.combos =
					   g_array_new(FALSE, TRUE, sizeof(struct selfwrite_combo)),
				   .only = only};

	for (size_t i = 0; i < slu_array_size(sizes); i++) {
		bool large = sizes[i] >= SIZE_LARGE;
		const struct matrix_place *at = large ? places_large : places;
		size_t n = sizes[i] == SIZE_LARGEST ? PLACES_LARGEST
			   : large                  ? slu_array_size(places_large)
						    : slu_array_size(places);

		for (size_t k = 0; k < n; k++)
			matrix_add_place(&plan, sizes[i], at[k]);
	}
	matrix_add_rest(&plan);
	return plan.combos;
}

/* ------------------------------------------------------------------ the mode */

static int matrix_run_all(const char *dir, const char *path, const struct selfwrite_options *opts,
			  const GArray *combos)
{
	char *quoted = g_shell_quote(dir);
	char *again = g_strdup_printf("sluice-selfwrite --matrix %s --seed %lld", quoted,
				      (long long)opts->seed);
	struct selfwrite_job job = {
		.path = path,
		.opts = opts,
		.quiet = opts->json,
		.again = again,
		.n = combos->len,
		.file_max = SIZE_LARGEST + 8 * PAGE,
		.plan = combos->data,
		.name = matrix_name,
		.run = matrix_run,
	};
	int verdict = selfwrite_run(&job);

	if (opts->json)
		selfwrite_json(&job, dir, job.plan, verdict);
	g_free(quoted);
	g_free(again);
	return verdict;
}

int selfwrite_matrix(const char *dir, const struct selfwrite_options *opts)
{
	char *path = g_build_filename(dir, "sluice-selfwrite.XXXXXX", NULL);
	GArray *combos = matrix_plan(opts->only);
	int fd, verdict = SELFWRITE_FAILED;

	if (!combos->len) {
		slu_tool_error("no combination is called \"%s\"", opts->only);
		goto out;
	}
	fd = g_mkstemp(path);
	if (fd < 0) {
		slu_tool_error("%s: cannot make a file there: %s", dir, strerror(errno));
		goto out;
	}
	close(fd);
	verdict = matrix_run_all(dir, path, opts, combos);
	if (verdict == SELFWRITE_DEADLOCK) /* touching the file now might hang this process too */
		goto out;
	if (!opts->keep && unlink(path) != 0) {
		slu_tool_error("%s: cannot remove it: %s", path, strerror(errno));
		verdict = SELFWRITE_FAILED;
	}
out:
	g_array_free(combos, TRUE);
	g_free(path);
	return verdict;
}
