/* SPDX-License-Identifier: MIT */
/*
 * A workload over the whole stack for the tests that make something go wrong in it, and what must
 * hold whatever it was. Asserts abort and say which fault it was: it all runs in a simulation, and
 * in tasks cmocka cannot catch anything.
 */
#ifndef FS_FAULTS_WORLD_H
#define FS_FAULTS_WORLD_H

#include "sluice/check.h"
#include "sluice/fs.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define NBLOCKS  4096u
#define NFILES   3u
#define NHANDLES 2u
#define FILE_MAX (120u << 10)
#define VERSIONS 4u

struct file {
	const char *name;
	bool exists;
	uint64_t ino, fh[NHANDLES];
	bool open[NHANDLES], told[NHANDLES];
	bool failed; /* an event said that its data could not be written */
	/* Contents after each write; a byte on disk is of `acked` or newer. */
	unsigned int nversions, acked;
	uint64_t size[VERSIONS];
	uint8_t data[VERSIONS][FILE_MAX];
};

enum ending { UNMOUNT, POWER_CUT, NENDINGS };

struct world {
	struct slu_simdisk *disk;
	struct slu_fs *fs;
	struct slu_ctx ctx;
	struct file files[NFILES];
	struct slu_simdisk_fault fault; /* kind of it, with nth for the request or the allocation */
	uint64_t step, gone_at; /* the device goes before this step of the workload; 0: never */
	uint64_t mount_nth;     /* the allocation that fails in mount; 0: none */
	bool kernel;            /* writes are the kernel's own write-back */
	enum ending ending;
	bool renamed, rename_acked, readonly;
	int worst; /* the last error that any operation returned */
	/* the results of a run */
	bool hit;
};

extern struct world *the_world; /* the one that runs, for messages */

#define must(cond)                                                                               \
	do {                                                                                     \
		if (!(cond)) {                                                                   \
			fprintf(stderr,                                                          \
				"%s:%d: %s; op %d kind %d nth %llu ending %d, last error %d\n",  \
				__func__, __LINE__, #cond, the_world->fault.op,                  \
				the_world->fault.kind, (unsigned long long)the_world->fault.nth, \
				the_world->ending, the_world->worst);                            \
			abort();                                                                 \
		}                                                                                \
	} while (0)

/* A formatted and mounted volume. */
void world_begin(struct world *w);
/* The mount goes, in one way or the other, and with it whatever goes wrong. */
void world_end(struct world *w);
int world_mount(struct world *w);
struct slu_blockio *world_open_disk(struct world *w, bool readonly);
/* Keeps an operation's error in mind; the error. */
int world_note(struct world *w, int err);
void world_workload(struct world *w);
void world_sync_all(struct world *w);
void world_close_all(struct world *w);
/* Reads all of a file; the length, or the error. */
int64_t world_read_file(struct world *w, uint64_t ino, uint8_t *buf);

/* As long as it is mounted, what was written can be read, whatever became of the disk. */
void world_check_memory(struct world *w);
/* What is on the disk is sound. */
void world_check(struct world *w);
/* Mounts once more and looks for all that was accepted. */
void world_check_after(struct world *w);

/* fn(w) in a simulation. */
void world_run_in_sim(void (*fn)(void *), struct world *w);

#endif
