/* SPDX-License-Identifier: MIT */
/* sluicectl metrics: the text, and who serves it. */
#ifndef SLUICE_CTL_METRICS_H
#define SLUICE_CTL_METRICS_H

#include "ctl_private.h"

/* Whose metrics: either a mount point, mounted at this moment or not, or a socket. */
struct metrics_target {
	const char *mountpoint, *socket;
};

#define METRICS_TIMEOUT_NS (5 * SLU_NS_PER_SEC) /* for each answer of the daemon */

/*
 * The text, the caller's, through a connection of its own; any thread. Never NULL: with error set
 * it says that the volume is not up.
 */
GString *metrics_scrape(const struct metrics_target *t, GError **error);
/* Serves them at "ADDRESS:PORT" until SIGTERM or SIGINT: the exit status. Once per process. */
int metrics_listen(const struct metrics_target *t, const char *where);

#endif
