/* SPDX-License-Identifier: MIT */
/* sluicectl top: one interval as lines of text, and the two who show them. One thread. */
#ifndef SLUICE_CTL_TOP_H
#define SLUICE_CTL_TOP_H

#include "ctl_private.h"

enum top_sort {
	TOP_SORT_RATE,
	TOP_SORT_ERRORS,
	TOP_SORT_MEAN,
	TOP_SORT_P99,
	TOP_SORT_LOAD,
	TOP_SORT_OPERATION,
	TOP_SORTS,
};
/* "rate", …: its first letter is its key. */
const char *top_sort_name(enum top_sort sort);

struct top {
	struct ctl *c;
	double interval; /* seconds */
	int iterations;  /* 0: until somebody ends it */
	enum top_sort sort;
};

/*
 * The interval as Top has told it, in at most `rows` lines, which are freed with the array. Lines
 * that begin a table start with a capital letter and are followed by its rows.
 */
GPtrArray *top_lines(JsonObject *interval, enum top_sort sort, unsigned int rows);
/* The object in a reply of Top, borrowed; NULL: the daemon speaks of something else. */
JsonObject *top_interval(JsonObject *reply);
/* The stream has ended: a line for stderr, and the exit status. error may be NULL. */
int top_ended(const GError *error);

/* On the terminal, until q, a signal, or the end of the daemon: the exit status. */
int top_screen(struct top *t);

#endif
