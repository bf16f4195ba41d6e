/* SPDX-License-Identifier: MIT */
/*
 * lab: the FUSE deadlock of 2020 in process, at will, on the project's own write path.
 *
 * Writers write files from `windows`: mappings that show a file's pages, served by userfaultfd. Who
 * touches a page of a window that is not there waits until the window's handler has brought it, and
 * the handler needs the page lock of the file's page, as the kernel's fault handler does. The three
 * policies differ in what a writer holds while it copies, and in whether its copy may fault.
 *
 * A wait-for graph is kept (writer → page → holder). A cycle is a deadlock: it is recorded, one
 * fault is answered without the lock, and everybody goes home.
 *
 * The faulty policies exist here alone. Everything else is the production code.
 */
#ifndef SLUICE_LAB_H
#define SLUICE_LAB_H

#include "sluice/write.h"
#include <stdio.h>

enum slu_lab_policy {
	SLU_LAB_HOLD_ALL,      /* every page of the request locked until all are copied; faults */
	SLU_LAB_TAIL_FAULTING, /* slu_write, with a source whose copy faults */
	SLU_LAB_TAIL_NOFAULT,  /* slu_write as it is meant */
};

#define SLU_LAB_MAX_THREADS 8u
#define SLU_LAB_MIN_PAGES   4u
#define SLU_LAB_MAX_PAGES   64u
#define SLU_LAB_MAX_WRITES  6u /* of one writer in a round */

struct slu_lab_opts {
	enum slu_lab_policy policy;
	uint32_t npages;   /* of each file */
	uint32_t nthreads; /* writers, each with a file of its own */
	uint32_t nwrites;  /* of each writer in a round */
	bool adversary;    /* a thread drops pages of the windows all the time */
	bool resident;     /* every page of the windows is there before the first write */
};

/* pwritev(2): two pieces of the window of file `src_file`, one after the other, to `pos`. */
struct slu_lab_write {
	uint32_t src_file;
	uint64_t src[2], len[2]; /* bytes; len[1] may be 0 */
	uint64_t pos;
};

struct slu_lab_stats {
	uint64_t writes, bytes;
	uint64_t touched;    /* bytes read from windows: each byte of a source once */
	uint64_t fault_ins;  /* times that a source was made ready */
	uint64_t most_tries; /* the most fault_ins that one write has needed... */
	uint64_t most_bound; /* ...and how many that one might have: one for each page touched */
	uint64_t faults;     /* messages read from userfaultfd */
	uint64_t lock_waits; /* of these: the page was locked by a writer when first looked at */
	uint64_t wakeups;    /* waiters that a resolved page has woken */
	uint64_t spurious;   /* woken, and the page was gone again: slept once more */
	uint64_t saved;      /* woken before anybody had read their message */
	uint64_t drops;      /* by the adversary */
	uint64_t reads, reads_locked, replaced, truncated; /* slu_lab_readers */
};

struct slu_lab;

/*
 * Files, windows and their handler. 0; -EINVAL (opts); or what the system refuses, with *why a line
 * that says which option or sysctl would allow it. Nothing needs a privilege.
 */
int slu_lab_new(const struct slu_lab_opts *opts, struct slu_lab **ret, const char **why);
void slu_lab_free(struct slu_lab *lab);

/*
 * Fresh files and one round of writes: the reproducer first, then random ones. The seed decides
 * which. 0: all bytes are right; -EDEADLK: a cycle, for slu_lab_draw; -EUCLEAN: wrong bytes, for
 * slu_lab_complaint; else an error of the system's. From one thread at a time.
 */
int slu_lab_round(struct slu_lab *lab, uint64_t seed);
/* The same with one write alone, by writer 0 to file 0. */
int slu_lab_round_of(struct slu_lab *lab, const struct slu_lab_write *w);
/*
 * Readers, with and without page locks, against a writer that publishes, replaces and truncates
 * pages: `nops` operations. 0, or -EUCLEAN: a page that was torn or stale.
 */
int slu_lab_readers(struct slu_lab *lab, uint64_t seed, uint32_t nreaders, uint32_t nops);

/* The index of the page that no data has been written to when a round begins: a tail there is not uptodate. */
#define SLU_LAB_HOLE_PAGE 2u

const struct slu_lab_stats *slu_lab_stats(const struct slu_lab *lab);
const char *slu_lab_complaint(const struct slu_lab *lab);

/* One writer of a cycle: what it waits for, who has that, and what it has itself. */
struct slu_lab_link {
	uint32_t writer;
	uint32_t file, page;
	uint32_t holder; /* the next link's writer */
};
/* The links of the cycle that the last round ended with; how many. */
uint32_t slu_lab_cycle(const struct slu_lab *lab, struct slu_lab_link *links, uint32_t max);
/* The cycle as a person would draw it, with what everybody holds and where it is in the code. */
void slu_lab_draw(const struct slu_lab *lab, FILE *out);

#endif
