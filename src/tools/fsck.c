/* SPDX-License-Identifier: MIT */
/*
 * fsck.sluicefs: checks a volume and names what is wrong with it; with -y it repairs it.
 *
 * Without -y it opens the image for reading, under a shared lock, so that a volume mounted for
 * writing is never looked at while it changes; with -y for writing, under an exclusive one. A repair
 * is followed by a second check, and only that decides on the exit status. Statuses are fsck(8)'s.
 */
#include "sluice/check.h"
#include "sluice/content.h"
#include "sluice/units.h"
#include "tools_private.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#define FSCK_CLEAN       0
#define FSCK_CORRECTED   1
#define FSCK_UNCORRECTED 4
#define FSCK_ERROR       8
#define FSCK_USAGE       16
#define FSCK_CANCELLED   32

static gchar *opt_offset, *opt_size, *opt_wait;
static gboolean opt_no, opt_yes, opt_auto, opt_preen, opt_force, opt_verbose, opt_version;

/* FILENAME: bytes as they are, whatever the locale. */
static const GOptionEntry entries[] = {
	{"no", 'n', 0, G_OPTION_ARG_NONE, &opt_no, "Change nothing (the default)", NULL},
	{"yes", 'y', 0, G_OPTION_ARG_NONE, &opt_yes,
	 "Repair what is damaged; needs room for a second tree", NULL},
	{"auto", 'a', 0, G_OPTION_ARG_NONE, &opt_auto,
	 "As at boot: only if it was not unmounted cleanly", NULL},
	{"preen", 'p', 0, G_OPTION_ARG_NONE, &opt_preen, "The same as -a", NULL},
	{"force", 'f', 0, G_OPTION_ARG_NONE, &opt_force, "Look through it in any case", NULL},
	{"verbose", 'v', 0, G_OPTION_ARG_NONE, &opt_verbose,
	 "Show what was found, in numbers, and what was repaired", NULL},
	{"offset", 0, 0, G_OPTION_ARG_FILENAME, &opt_offset, "Where in IMAGE the volume starts",
	 "SIZE"},
	{"size", 's', 0, G_OPTION_ARG_FILENAME, &opt_size,
	 "How long the volume is, if both superblocks are lost", "SIZE"},
	{"wait", 'w', 0, G_OPTION_ARG_FILENAME, &opt_wait,
	 "How long to wait for an image in use (default 5)", "SECONDS"},
	{"version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "Show the version", NULL},
	{NULL},
};

static volatile sig_atomic_t fsck_cancelled;

static void fsck_on_signal(int sig)
{
	(void)sig;
	fsck_cancelled = 1;
}

struct fsck {
	const char *image;
	uint64_t offset;
	uint64_t size; /* bytes that are looked at; 0: up to the end of the image */
	struct slu_tool_busy busy;
	struct slu_blockio *bio;
	struct slu_progress progress;
};

static void fsck_problem(void *ctx, const struct slu_problem *problem)
{
	struct fsck *f = ctx;

	slu_progress_clear(&f->progress);
	printf("%s: %s%s\n", f->image, problem->note ? "note: " : "", problem->text);
}

static void fsck_did(void *ctx, const char *text, bool detail)
{
	struct fsck *f = ctx;

	if (detail && !opt_verbose)
		return;
	slu_progress_clear(&f->progress);
	printf("%s: %s%s\n", f->image, detail ? "detail: " : "repaired: ", text);
}

static int fsck_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct fsck *f = ctx;

	slu_progress_update(&f->progress, done, total);
	return fsck_cancelled;
}

/*
 * The phases of a repair, each with its part of the bar: most of the time goes into looking through
 * the volume, if that has to be.
 */
static const struct {
	const char *name;
	unsigned int to; /* percent; it begins where the one before ends */
} fsck_phases[] = {
	[SLU_REPAIR_TREE] = {"reading the tree", 30},
	[SLU_REPAIR_SEARCH] = {"searching the volume", 75},
	[SLU_REPAIR_BUILD] = {"rebuilding the tree", 85},
};
#define FSCK_CHECKED_FIRST 20u /* percent, where a repair may follow */

static int fsck_repair_progress(void *ctx, enum slu_repair_phase phase, uint64_t done,
				uint64_t total)
{
	struct fsck *f = ctx;
	unsigned int from = phase ? fsck_phases[phase - 1].to : FSCK_CHECKED_FIRST;

	slu_progress_phase(&f->progress, fsck_phases[phase].name, from, fsck_phases[phase].to);
	return fsck_progress(f, done, total);
}

/* ------------------------------------------------------------------ results */

/* A label as the image has it, fit for a terminal. */
static char *fsck_label(const struct slu_check_result *r)
{
	g_autofree char *valid = g_utf8_make_valid(r->label, -1);
	GString *out = g_string_new(NULL);

	for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);

		g_string_append_unichar(out, g_unichar_iscntrl(c) ? '?' : c);
	}
	return g_string_free(out, FALSE);
}

static void fsck_print_numbers(const struct fsck *f, const struct slu_check_result *r)
{
	g_autofree char *label = fsck_label(r);
	const uint8_t *id = r->volume_id;

	printf("%s: volume ", f->image);
	for (size_t i = 0; i < sizeof(r->volume_id); i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
	printf("%s%s%s, %s\n", *label ? " \"" : "", label, *label ? "\"" : "",
	       r->was_clean ? "unmounted cleanly" : "not unmounted cleanly");
	printf("%12" PRIu64 " inodes: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64
	       " symlinks, %" PRIu64 " others\n",
	       r->inodes, r->files, r->directories, r->symlinks, r->others);
	printf("%12" PRIu64 " names\n", r->names);
	printf("%12" PRIu64 " extended attributes\n", r->xattrs);
	printf("%12" PRIu64 " orphans\n", r->orphans);
	printf("%12" PRIu64 " extents with %" PRIu64 " blocks\n", r->extents, r->data_blocks);
	printf("%12" PRIu64 " nodes on %u levels with %" PRIu64 " records of %" PRIu64 " bytes\n",
	       r->node_blocks, r->depth, r->records, r->record_bytes);
}

/* The last line, whatever happened. */
static int fsck_verdict(const struct fsck *f, const struct slu_check_result *r)
{
	if (r->problems) {
		printf("%s: DAMAGED: %" PRIu64 " problem%s%s%s\n", f->image, r->problems,
		       r->problems == 1 ? "" : "s",
		       r->incomplete ? "; not everything could be checked" : "",
		       opt_yes ? "" : "; -y repairs");
		return FSCK_UNCORRECTED;
	}
	printf("%s: clean, %" PRIu64 " inodes, %" PRIu64 "/%" PRIu64 " blocks\n", f->image,
	       r->inodes, r->data_blocks + r->node_blocks, r->nblocks);
	return FSCK_CLEAN;
}

/* ------------------------------------------------------------------ running */

static int fsck_open(struct fsck *f)
{
	const struct slu_blockio_opts opts = {
		.readonly = !opt_yes,
		.image_offset = f->offset,
		.image_size = f->size,
		.lock = opt_yes ? SLU_LOCK_EXCLUSIVE : SLU_LOCK_SHARED,
		.lock_wait_ns = f->busy.wait_ns,
		.lock_busy = slu_tool_lock_busy,
		.lock_busy_ctx = &f->busy,
	};
	char words[128];
	int err = slu_blockio_open(f->image, &opts, &f->bio);

	if (err)
		slu_tool_error("%s: %s", f->image,
			       slu_tool_open_error(err, &f->busy, words, sizeof(words)));
	return err;
}

static int fsck_failed(const struct fsck *f, int err, const char *what, const char *why)
{
	char content[128];

	if (err == -ECANCELED) {
		slu_tool_error("%s: cancelled", f->image);
		return FSCK_CANCELLED;
	}
	if (why && err == -EINVAL &&
	    slu_content_describe(f->image, f->offset, f->size, content, sizeof(content)))
		slu_tool_error("%s: cannot be %s: %s, but %s", f->image, what, why, content);
	else
		slu_tool_error("%s: cannot be %s: %s", f->image, what,
			       why ? why : g_strerror(-err));
	return FSCK_ERROR;
}

static int fsck_check(struct fsck *f, struct slu_check_result *result)
{
	const struct slu_check_opts opts = {.problem = fsck_problem,
					    .progress = fsck_progress,
					    .ctx = f};
	const char *why = NULL;
	int err;

	err = slu_check(f->bio, &opts, result, &why);
	slu_progress_clear(&f->progress);
	return err ? fsck_failed(f, err, "checked", why) : 0;
}

/* 0: repaired, as far as it says itself. */
static int fsck_repair(struct fsck *f)
{
	/* Whoever can write the image can read all of it anyway. */
	const struct slu_repair_opts opts = {
		.did = fsck_did,
		.progress = fsck_repair_progress,
		.ctx = f,
		.uid = geteuid(),
		.gid = getegid(),
	};
	struct slu_repair_result result;
	const char *why = NULL;
	int err;

	err = slu_repair(f->bio, &opts, &result, &why);
	slu_progress_clear(&f->progress);
	if (!err)
		return 0;
	if (err != -ENOSPC && err != -EUCLEAN)
		return fsck_failed(f, err, "repaired", why);
	slu_tool_error("%s: nothing was repaired: %s", f->image, why);
	return FSCK_UNCORRECTED;
}

/* Whether -a leaves the volume alone: it was unmounted cleanly. */
static bool fsck_quick(struct fsck *f, struct slu_check_result *result)
{
	const struct slu_check_opts opts = {.ctx = f};
	const char *why;

	if ((!opt_auto && !opt_preen) || opt_force)
		return false;
	return !slu_check_supers(f->bio, &opts, result, &why) && result->was_clean &&
	       !result->problems && !result->notes;
}

static int fsck_run(struct fsck *f)
{
	struct slu_check_result result;
	int status;

	if (fsck_quick(f, &result))
		return fsck_verdict(f, &result);
	slu_progress_start(&f->progress, stderr, "checking");
	slu_progress_phase(&f->progress, "checking", 0, opt_yes ? FSCK_CHECKED_FIRST : 100);
	status = fsck_check(f, &result);
	if (status)
		return status;
	if (!opt_yes || !result.problems) {
		if (opt_verbose)
			fsck_print_numbers(f, &result);
		return fsck_verdict(f, &result);
	}
	status = fsck_repair(f);
	if (status)
		return status;
	slu_progress_phase(&f->progress, "checking again", fsck_phases[SLU_REPAIR_BUILD].to, 100);
	status = fsck_check(f, &result);
	if (status)
		return status;
	if (opt_verbose)
		fsck_print_numbers(f, &result);
	status = fsck_verdict(f, &result);
	return status == FSCK_CLEAN ? FSCK_CORRECTED : status;
}

int main(int argc, char **argv)
{
	static const char about[] =
		"Checks every invariant of a sluicefs volume and names what is wrong; -y\n"
		"repairs it.\n\n"
		"Exit status: 0 clean, 1 repaired, 4 damaged, 8 could not be checked, 16 usage,\n"
		"32 cancelled.";
	const struct sigaction on_signal = {.sa_handler = fsck_on_signal};
	struct fsck f = {0};
	int status;

	slu_tool_init("fsck.sluicefs");
	if (!slu_tool_options(&argc, &argv, "IMAGE", about, entries))
		return FSCK_USAGE;
	if (opt_version)
		return slu_tool_version();
	if (argc != 2 || !*argv[1] || (opt_no && opt_yes)) {
		slu_tool_error(argc != 2 || !*argv[1] ? "expected one IMAGE; see --help"
						      : "-n and -y contradict each other");
		return FSCK_USAGE;
	}
	f.image = f.busy.image = argv[1];
	if (!slu_tool_size("--offset", opt_offset, 0, &f.offset) ||
	    !slu_tool_size("--size", opt_size, 0, &f.size) ||
	    !slu_tool_seconds("--wait", opt_wait ? opt_wait : "5", &f.busy.wait_ns))
		return FSCK_USAGE;
	if (f.offset % SLU_BLOCK_SIZE || f.offset > INT64_MAX) {
		slu_tool_error("--offset: must be a multiple of 4096 within the file");
		return FSCK_USAGE;
	}
	f.size -= f.size % SLU_BLOCK_SIZE; /* as mkfs does */
	if (opt_size && (!f.size || f.size > INT64_MAX - f.offset)) {
		slu_tool_error("--size: must lie within the file");
		return FSCK_USAGE;
	}
	sigaction(SIGINT, &on_signal, NULL);
	sigaction(SIGTERM, &on_signal, NULL);
	sigaction(SIGHUP, &on_signal, NULL);
	if (fsck_open(&f))
		return FSCK_ERROR;
	status = fsck_run(&f);
	slu_blockio_close(f.bio);
	if (fflush(stdout) != 0)
		status = FSCK_ERROR;
	return status;
}
