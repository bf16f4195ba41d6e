/* SPDX-License-Identifier: MIT */
/*
 * config: a volume as its configuration file describes it (sluicefs.conf(5)), for the daemon and for
 * sluicectl. Takes no lock.
 *
 * Errors: GError of SLU_CONFIG_ERROR with one line: file, line and what was expected.
 */
#ifndef SLUICE_CONFIG_H
#define SLUICE_CONFIG_H

#include <glib.h>
#include <stdbool.h>

GQuark slu_config_error_quark(void);
#define SLU_CONFIG_ERROR slu_config_error_quark()
enum slu_config_error {
	SLU_CONFIG_UNREADABLE,
	SLU_CONFIG_MISTAKE,
};

struct slu_config_options {
	unsigned int line; /* where it stands in the file, from 1 */
	char *list;        /* not empty; what it says is the daemon's business */
};

struct slu_config {
	char *image, *mountpoint; /* absolute paths */
	GPtrArray *options;       /* of struct slu_config_options, those that count, in order */
};

/* NULL and error. */
struct slu_config *slu_config_load(const char *path, GError **error);
void slu_config_free(struct slu_config *c); /* NULL is allowed */

#endif
