/* SPDX-License-Identifier: MIT */
/*
 * What the programs share: one-line errors, options, sizes, the wait for an image, a progress bar.
 * For main threads of programs only; there is one name of the program per process.
 */
#ifndef SLUICE_TOOLS_PRIVATE_H
#define SLUICE_TOOLS_PRIVATE_H

#include "sluice/base.h"
#include <glib.h>

/* name: as it stands in front of every message. Also sets the locale. */
void slu_tool_init(const char *name);
const char *slu_tool_name(void);

/* One line on stderr: "name: text". */
void slu_tool_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for what is worth knowing and no error. */
void slu_tool_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Parses with GOption; false after an error has been printed. --help prints and exits 0. */
bool slu_tool_options(int *argc, char ***argv, const char *arguments, const char *about,
		      const GOptionEntry *entries);
/* The same up to the first word that is no option; argc and argv go on from there, as from a name. */
bool slu_tool_options_before(int *argc, char ***argv, const char *arguments, const char *about,
			     const GOptionEntry *entries);
/* Prints "name version"; 0. */
int slu_tool_version(void);

/*
 * The value of a size option in bytes; NULL gives dflt. False, with an error printed, if it is no
 * size.
 */
bool slu_tool_size(const char *option, const char *text, uint64_t dflt, uint64_t *ret);

/* "5", "0.5", "0": seconds as nanoseconds, at most a day. False, with an error printed. */
bool slu_tool_wait(const char *text, uint64_t *ret_ns);

/* For slu_blockio_opts.lock_busy, ctx is struct slu_tool_busy: says whom we wait for. */
struct slu_tool_busy {
	const char *image;
	uint64_t wait_ns;
	int pid; /* of the holder, filled in; 0: not known */
	char comm[32];
	bool called;
};
void slu_tool_lock_busy(void *ctx, int pid, const char *comm);

/* What an errno of slu_blockio_open means to the user, in words. */
const char *slu_tool_open_error(int err, const struct slu_tool_busy *busy, char *buf, size_t size);

/* ------------------------------------------------------------------ progress */

/*
 * A bar on a terminal: nothing during the first second, then one line redrawn at most 10 times a
 * second. Elsewhere a line every 10 s. Goes to stderr, so that stdout stays for results.
 *
 * One bar stands for a whole run. A phase has a part of it and a name, which stands beside the bar;
 * whatever the phases report, the bar never goes back.
 */
struct slu_progress {
	FILE *out;
	bool terminal;
	bool shown;            /* a bar stands on the terminal's last line */
	const char *phase;     /* "checking" */
	unsigned int from, to; /* the phase's part, in percent of the bar */
	unsigned int percent;  /* the most that was reported */
	uint64_t start_ns, last_ns;
};

/* The phase has all of the bar until slu_progress_phase says otherwise. */
void slu_progress_start(struct slu_progress *p, FILE *out, const char *phase);
/* As above, with the kind of output and the time given: for tests. */
void slu_progress_start_at(struct slu_progress *p, FILE *out, bool terminal, const char *phase,
			   uint64_t now_ns);
/* The phase that begins, and from where to where it fills the bar, in percent. phase: static. */
void slu_progress_phase(struct slu_progress *p, const char *phase, unsigned int from,
			unsigned int to);
void slu_progress_update(struct slu_progress *p, uint64_t done, uint64_t total);
void slu_progress_update_at(struct slu_progress *p, uint64_t done, uint64_t total, uint64_t now_ns);
/* Takes the bar away. */
void slu_progress_clear(struct slu_progress *p);

#endif
