/* SPDX-License-Identifier: MIT */
/*
 * selfwrite: a file that is written into itself, and what must be in it afterwards.
 *
 * Two processes. The worker does the writes and may end up in a sleep that nothing ends, so it is
 * watched by its parent, which never touches the file while the worker lives. Between the two lies
 * struct selfwrite_shared. What the worker runs is a struct selfwrite_job: a list of things with
 * names, each of which ends with a verdict.
 *
 *	selfwrite.c		main and the options
 *	selfwrite_watch.c	worker and watching parent
 *	selfwrite_file.c	the file: pattern, preparation, the state of the source
 *	selfwrite_write.c	the system calls that write it into itself
 *	selfwrite_expect.c	which bytes may be where afterwards
 *	selfwrite_repro.c	the scenarios around the reproducer of 2020
 *	selfwrite_matrix.c	what --matrix runs
 *	selfwrite_race.c	its combinations with several writers or truncation
 *	selfwrite_json.c	its results as JSON
 *	selfwrite_lab.c		what --lab runs, which has no file and no second process
 */
#ifndef SLUICE_SELFWRITE_PRIVATE_H
#define SLUICE_SELFWRITE_PRIVATE_H

#include "tools_private.h"

#define PAGE              4096u
#define SELFWRITE_REASON  400
#define SELFWRITE_COPIES  4 /* concurrent writers at most */
#define SELFWRITE_SHIFTED (1u << 20)

/* How a combination, or the whole, ends. Those of the whole are exit statuses. */
enum selfwrite_verdict {
	SELFWRITE_PASSED = 0,
	SELFWRITE_FAILED = 1,
	SELFWRITE_REFUSED = 2, /* the filesystem cannot do this and says so */
	SELFWRITE_DEADLOCK = 3,
};
/* The exit status for wrong words; no whole is SELFWRITE_REFUSED. */
#define SELFWRITE_USAGE 2

/* What the command line says. */
struct selfwrite_options {
	unsigned int timeout; /* seconds */
	uint64_t seed;
	bool keep;
	bool json;
	const char *only; /* a name or a pattern with * and ?; NULL: all */
};

/* What --lab runs; numbers as they were given. */
struct selfwrite_lab_options {
	const char *policy; /* NULL: none was given */
	int pages, threads, runs;
	uint64_t seed;
};

/* SELFWRITE_PASSED, _FAILED, _USAGE or _DEADLOCK; prints what came of it. */
int selfwrite_lab(const struct selfwrite_lab_options *opts);

/* One write: file bytes [src, src + len) of each part, one after the other, to dst. */
struct selfwrite_part {
	size_t src, len;
};

struct selfwrite_copy {
	struct selfwrite_part parts[2];
	size_t nparts;
	size_t dst;
};

size_t selfwrite_copy_len(const struct selfwrite_copy *copy);
/* The end of what it reads. */
size_t selfwrite_copy_source_end(const struct selfwrite_copy *copy);
/* The byte of the source that the write puts at file position pos; SIZE_MAX outside. */
size_t selfwrite_copy_source_of(const struct selfwrite_copy *copy, size_t pos);

enum selfwrite_source {
	SELFWRITE_RESIDENT, /* in memory, in the page table, and dirty */
	SELFWRITE_DROPPED,  /* on disk only */
	SELFWRITE_PARTLY,   /* every other page in memory */
	SELFWRITE_READONLY, /* in memory, not in the page table of a mapping with PROT_READ */
};

enum selfwrite_way {
	SELFWRITE_PWRITEV,
	SELFWRITE_WRITEV,
	SELFWRITE_PWRITEV2,
	SELFWRITE_SENDFILE,
	SELFWRITE_SPLICE,
};

/* ------------------------------------------------------------------ worker and parent */

struct selfwrite_result {
	bool ran;
	uint8_t verdict;
	uint32_t ms;
	char reason[SELFWRITE_REASON];
};

/* What the processes share. Written by the worker, read by the parent. */
struct selfwrite_shared {
	_Atomic uint64_t steps;   /* moves whenever the worker has got on */
	_Atomic uint64_t where;   /* file offset of the write under way */
	_Atomic uint32_t current; /* index of the one under way */
	_Atomic int helper;       /* the process that truncates; 0: none */
	_Atomic bool helper_ready, helper_stop;
	struct selfwrite_result results[];
};

struct selfwrite;

/*
 * A list of things to run in a worker. The file is there, and only the worker has it open: whoever
 * has, waits in close(2), or in exit(2), for a filesystem that may not answer any more.
 */
struct selfwrite_job {
	const char *path;
	const struct selfwrite_options *opts;
	bool quiet;        /* no lines: somebody else reports */
	const char *again; /* how to run one alone, but for its name; NULL: there is no way */
	size_t n;
	size_t file_max; /* no file gets larger */
	const void *plan;
	const char *(*name)(const void *plan, size_t i);
	int (*run)(struct selfwrite *sw, const void *plan, size_t i);
	/* Filled in: */
	const struct selfwrite_result *results;
	unsigned int count[SELFWRITE_DEADLOCK + 1]; /* by verdict */
	double seconds;
};

/*
 * Runs everything and prints a line for each and one for all. If that is SELFWRITE_DEADLOCK, the
 * file must not be touched again: it might hang the caller as well.
 */
enum selfwrite_verdict selfwrite_run(struct selfwrite_job *job);

/* ------------------------------------------------------------------ the file */

/* Descriptors of one writer. */
struct selfwrite_io {
	int in, out, pipe[2];
	bool direct;        /* out is O_DIRECT */
	bool truncated;     /* somebody truncates the file meanwhile */
	bool wrote;         /* a call has succeeded */
	bool dsync;         /* pwritev2 with RWF_DSYNC */
	const uint8_t *map; /* the source of writev and its like; NULL: there is no mapping */
	struct selfwrite_shared *shared;
	char *reason;
};

/* The values that a byte may have: a bit for each of 0..127. None: it was not written. */
struct selfwrite_values {
	uint64_t bits[2];
};

struct selfwrite_expect {
	struct selfwrite_copy copies[SELFWRITE_COPIES];
	size_t ncopies;
	size_t size;                  /* of the file before */
	size_t end;                   /* and after */
	size_t lo, hi;                /* nothing is written outside */
	struct selfwrite_values *may; /* of the bytes from lo on */
	size_t cap;
	bool truncated; /* zeros and unwritten bytes are in order */
	size_t kept;    /* nothing was truncated below */
};

struct selfwrite {
	const char *path;
	struct selfwrite_shared *shared;
	uint64_t seed;
	int fd;                    /* buffered, for preparing and reading */
	uint8_t *map, *map_ro;     /* MAP_SHARED of the whole file, and the same with PROT_READ */
	int map_err;               /* errno why there is none */
	size_t size;               /* of the file as prepared */
	bool prepared;             /* it holds before[0, size) */
	uint8_t *before, *after;   /* the whole file, before and after the write */
	size_t cap;                /* of both */
	struct selfwrite_io io[2]; /* buffered, O_DIRECT */
	struct selfwrite_expect expect;
	char reason[SELFWRITE_REASON]; /* of a verdict that is not SELFWRITE_PASSED */
};

/* The verdict with its reason. */
int selfwrite_failed(char *reason, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int selfwrite_refused(char *reason, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void selfwrite_step(struct selfwrite_shared *shared);
/* The next of a sequence of random numbers. */
uint64_t selfwrite_random(uint64_t *state);

/* Buffers for files up to file_max bytes, with the pattern. */
int selfwrite_file_init(struct selfwrite *sw, size_t file_max);
void selfwrite_file_fini(struct selfwrite *sw);
/* The file has `size` bytes of pattern and is mapped. Does nothing if that is so already. */
int selfwrite_file_prepare(struct selfwrite *sw, size_t size);
/* After a write that was checked: as prepared again, at the price of the bytes written. */
int selfwrite_file_restore(struct selfwrite *sw, const struct selfwrite_copy *copy);
/* On disk, and out of memory. */
int selfwrite_file_drop(struct selfwrite *sw);
int selfwrite_file_read(struct selfwrite *sw, size_t len);
/* Brings what the copy reads into that state; *ret_map is the mapping to read it from. */
int selfwrite_file_source(struct selfwrite *sw, const struct selfwrite_copy *copy,
			  enum selfwrite_source state, const uint8_t **ret_map);
/* Reads a byte of every page; false: SIGBUS, the file ends before. From any thread. */
bool selfwrite_touch(const uint8_t *map, size_t from, size_t to, size_t step);

/* ------------------------------------------------------------------ writing */

int selfwrite_io_open(struct selfwrite *sw, struct selfwrite_io *io, bool direct);
void selfwrite_io_close(struct selfwrite_io *io);
/* Whole, in as many calls as it takes; if somebody truncates the file, as much as there is. */
int selfwrite_write(struct selfwrite_io *io, enum selfwrite_way way,
		    const struct selfwrite_copy *copy);

/* ------------------------------------------------------------------ what must be there */

/* Computes what the file may hold after these copies, by several writers if there are several. */
int selfwrite_expect(struct selfwrite *sw, const struct selfwrite_copy *copies, size_t ncopies);
/* Every byte, through read(2), through the mapping and, if asked for, from disk. */
int selfwrite_check(struct selfwrite *sw, bool reread);

/* ------------------------------------------------------------------ modes of the program */

int selfwrite_repro(const char *path, const struct selfwrite_options *opts);
int selfwrite_matrix(const char *dir, const struct selfwrite_options *opts);

enum selfwrite_kind {
	SELFWRITE_ONE,   /* one write */
	SELFWRITE_SWEEP, /* to every byte of the second page, one after the other */
	SELFWRITE_RACE,  /* several writers, or one and somebody who truncates */
};

/* One combination of the matrix. */
struct selfwrite_combo {
	enum selfwrite_kind kind;
	enum selfwrite_way way;
	bool direct;
	enum selfwrite_source source;
	size_t len;
	size_t src, dst; /* of SELFWRITE_ONE */
	unsigned int threads;
	bool truncate;
	char name[64];
};

const char *selfwrite_way_name(enum selfwrite_way way);
const char *selfwrite_source_name(enum selfwrite_source source);

int selfwrite_race(struct selfwrite *sw, const struct selfwrite_combo *combo);

/* One JSON object on stdout. */
void selfwrite_json(const struct selfwrite_job *job, const char *dir,
		    const struct selfwrite_combo *combos, enum selfwrite_verdict verdict);

#endif
