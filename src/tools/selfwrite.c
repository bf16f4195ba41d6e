/* SPDX-License-Identifier: MIT */
/*
 * sluice-selfwrite: writes a file into itself, on any filesystem, and sees whether that hangs and
 * whether every byte is one that may be there. See selfwrite_private.h for its parts.
 */
#include "selfwrite_private.h"
#include <unistd.h>

#define TIMEOUT_DEFAULT 30 /* seconds */

static gboolean opt_version, opt_keep, opt_matrix, opt_json, opt_lab;
static gint opt_timeout = TIMEOUT_DEFAULT, opt_pages = 8, opt_threads = 1, opt_runs = 100;
static gint64 opt_seed = 1;
static gchar *opt_only, *opt_policy;

static const GOptionEntry entries[] = {
	{"matrix", 0, 0, G_OPTION_ARG_NONE, &opt_matrix,
	 "Every combination, each in a file of its own in DIR", NULL},
	{"only", 0, 0, G_OPTION_ARG_STRING, &opt_only,
	 "Matrix: only those with this name, with * and ?", "NAME"},
	{"json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "Matrix: one JSON object instead of lines",
	 NULL},
	{"lab", 0, 0, G_OPTION_ARG_NONE, &opt_lab,
	 "No file: the deadlock in this process, with --policy", NULL},
	{"policy", 0, 0, G_OPTION_ARG_STRING, &opt_policy,
	 "Lab: hold-all, tail-faulting or tail-nofault", "POLICY"},
	{"pages", 0, 0, G_OPTION_ARG_INT, &opt_pages, "Lab: of each file, 4 to 64 (default 8)",
	 "N"},
	{"threads", 0, 0, G_OPTION_ARG_INT, &opt_threads, "Lab: writers, 1 to 8 (default 1)", "N"},
	{"runs", 0, 0, G_OPTION_ARG_INT, &opt_runs, "Lab: rounds, with a seed each (default 100)",
	 "N"},
	{"seed", 0, 0, G_OPTION_ARG_INT64, &opt_seed,
	 "Matrix and lab: where random numbers start (default 1)", "N"},
	{"keep", 0, 0, G_OPTION_ARG_NONE, &opt_keep, "Do not remove a file that was made here",
	 NULL},
	{"timeout", 0, 0, G_OPTION_ARG_INT, &opt_timeout,
	 "No progress for so long is a deadlock (default 30)", "SECONDS"},
	{"version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "Show the version", NULL},
	{NULL},
};

/* Whether the options go together; prints what does not. */
static bool options_fit(int argc)
{
	if (opt_lab && (argc != 1 || opt_matrix || opt_keep))
		slu_tool_error("--lab has neither file nor directory");
	else if (!opt_lab && argc != 2)
		slu_tool_error("expected one %s; see --help", opt_matrix ? "DIR" : "FILE");
	else if (!opt_lab && opt_policy)
		slu_tool_error("--policy goes with --lab");
	else if (opt_timeout < 1 || opt_timeout > 86400)
		slu_tool_error("nonsense timeout");
	else if ((opt_only || opt_json) && !opt_matrix)
		slu_tool_error("%s goes with --matrix", opt_only ? "--only" : "--json");
	else
		return true;
	return false;
}

int main(int argc, char **argv)
{
	static const char about[] =
		"Maps FILE and writes it into itself, then checks every byte. FILE is made and\n"
		"removed; one that is there is overwritten. --lab needs neither FILE nor DIR.\n\n"
		"Exit status: 0 all is well, 1 wrong bytes or an error, 2 usage, 3 deadlock.";
	struct selfwrite_options opts = {0};
	int status;

	slu_tool_init("sluice-selfwrite");
	if (!slu_tool_options(&argc, &argv, "FILE|DIR", about, entries))
		return SELFWRITE_USAGE;
	if (opt_version)
		return slu_tool_version();
	if (!options_fit(argc))
		return SELFWRITE_USAGE;
	if (opt_lab)
		return selfwrite_lab(&(struct selfwrite_lab_options){.policy = opt_policy,
								     .pages = opt_pages,
								     .threads = opt_threads,
								     .runs = opt_runs,
								     .seed = (uint64_t)opt_seed});
	opts.timeout = (unsigned int)opt_timeout;
	opts.seed = (uint64_t)opt_seed;
	opts.keep = opt_keep;
	opts.json = opt_json;
	opts.only = opt_only;
	status = (opt_matrix ? selfwrite_matrix : selfwrite_repro)(argv[1], &opts);
	if (status == SELFWRITE_DEADLOCK) /* no cleanup that might touch the file and hang too */
		_exit(status);
	return status;
}
