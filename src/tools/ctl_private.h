/* SPDX-License-Identifier: MIT */
/*
 * sluicectl: what its files share. One client, one command, one thread.
 */
#ifndef SLUICE_CTL_PRIVATE_H
#define SLUICE_CTL_PRIVATE_H

#include "sluice/control.h"
#include "tools_private.h"

#define VOLUME "org.sluicefs.Volume."

struct ctl {
	const char *mountpoint, *socket; /* as given, or NULL */
	bool json;
	struct slu_control_client *client; /* connected, for commands that need one */
};

struct ctl_command {
	const char *name, *arguments, *help;
	bool connects; /* needs a daemon */
	int nargs;
	int (*run)(struct ctl *c, char **args); /* the exit status */
	const GOptionEntry *options;            /* of its own; NULL: none */
};

enum { CTL_OK, CTL_FAILED, CTL_USAGE };

/* The daemon that was asked for, or the only one there is. NULL after a line. */
struct slu_control_client *ctl_connect(const struct ctl *c);
/*
 * The mount point that was asked for, without links, whether or not something is mounted there; or
 * that of the only volume there is. The caller's; NULL after a line.
 */
char *ctl_mountpoint(const struct ctl *c);
/* A call without parameters; NULL after a line. */
JsonObject *ctl_call(struct ctl *c, const char *method);
/* An object in one line. */
void ctl_print_json(JsonObject *o);

extern const GOptionEntry ctl_metrics_options[], ctl_top_options[];

int ctl_status(struct ctl *c, char **args);
int ctl_list(struct ctl *c, char **args);
int ctl_watch(struct ctl *c, char **args);
int ctl_metrics(struct ctl *c, char **args);
int ctl_top(struct ctl *c, char **args);
int ctl_sync(struct ctl *c, char **args);

#endif
