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
	const char *mountpoint, *socket, *config; /* as given, or NULL */
	bool json;
	struct slu_control_client *client; /* connected, for commands that need one */
};

struct ctl_command {
	const char *name, *arguments, *help;
	bool connects;               /* needs a daemon */
	int nargs, more;             /* arguments at least, and how many may follow those */
	const GOptionEntry *options; /* of its own, beside the common ones; NULL: none */
	int (*run)(struct ctl *c, char **args); /* the exit status */
};

enum { CTL_OK, CTL_FAILED, CTL_USAGE, CTL_DAMAGED = 4 };

/* The daemon that was asked for, or the only one there is. NULL after a line. */
struct slu_control_client *ctl_connect(const struct ctl *c);
/* Whoever listens there: root may ask anybody's, others those of their own. NULL and error. */
struct slu_control_client *ctl_connect_socket(const char *path, GError **error);
/*
 * The mount point that was asked for, without links, whether or not something is mounted there; or
 * that of the only volume there is. The caller's; NULL after a line.
 */
char *ctl_mountpoint(const struct ctl *c);
/* parameters: taken, NULL for none. NULL after a line. */
JsonObject *ctl_call(struct ctl *c, const char *method, JsonObject *parameters);
/* An object in one line. */
void ctl_print_json(JsonObject *o);

extern const GOptionEntry ctl_metrics_options[], ctl_top_options[], ctl_watch_options[];

int ctl_status(struct ctl *c, char **args);
int ctl_list(struct ctl *c, char **args);
int ctl_watch(struct ctl *c, char **args);
int ctl_metrics(struct ctl *c, char **args);
int ctl_top(struct ctl *c, char **args);
int ctl_sync(struct ctl *c, char **args);
int ctl_grow(struct ctl *c, char **args);

/* "3 d 2 h", "5 min 0 s"; g_free. */
char *ctl_duration(double seconds);
/* Local time, of seconds since 1970; g_free. */
char *ctl_time(double seconds);

/* ctl_scrub.c */
extern const GOptionEntry ctl_scrub_options[];
int ctl_scrub(struct ctl *c, char **args);
/* What has come of one, in a line; g_free. */
char *ctl_scrub_line(JsonObject *scrub);

/* ctl_map.c */
extern const GOptionEntry ctl_map_options[];
int ctl_map(struct ctl *c, char **args);

/* ctl_freeze.c */
extern const GOptionEntry ctl_freeze_options[];
int ctl_freeze(struct ctl *c, char **args);
int ctl_thaw(struct ctl *c, char **args);

#endif
