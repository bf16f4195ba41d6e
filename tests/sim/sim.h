/* SPDX-License-Identifier: MIT */
/*
 * The power-cut simulator: a workload runs once on the simulated disk, inside a simulation, beside
 * a model of what it has been promised; then the power fails at every record of the disk's log, in
 * several ways each, and what is left is mounted and compared with what the model allows.
 */
#ifndef SIM_H
#define SIM_H

#include "sluice/fs.h"
#include <stdarg.h>
#include <string.h>

#define SIM_VOLUME_BLOCKS SLU_MIN_BLOCKS
#define SIM_PAGES         32u /* the longest file */
#define SIM_MAX_SIZE      ((uint64_t)SIM_PAGES * SLU_BLOCK_SIZE)
#define SIM_NDIRS         4u
#define SIM_NNAMES        7u
#define SIM_NATTRS        2u
#define SIM_MAX_OPS       96u
#define SIM_MAX_FILES     (SIM_MAX_OPS + 32u) /* there ever were */

/* ------------------------------------------------------------------ text */

/* A string that grows; what people get to read, and what trees are compared by. */
struct sim_text {
	char *s;
	size_t len, size;
};
void sim_text_add(struct sim_text *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void sim_text_clear(struct sim_text *t);
void sim_text_fini(struct sim_text *t);

/* ------------------------------------------------------------------ operations */

enum sim_kind {
	SIM_CREAT,
	SIM_MKDIR,
	SIM_SYMLINK,
	SIM_TMPFILE, /* an unnamed file that gets data and then a name */
	SIM_LINK,
	SIM_UNLINK,
	SIM_RMDIR,
	SIM_REMOVE, /* unlink or rmdir, whichever fits */
	SIM_RENAME,
	SIM_EXCHANGE,
	SIM_CHMOD,
	SIM_SETXATTR,
	SIM_REMOVEXATTR,
	SIM_TRUNCATE,
	SIM_WRITE,
	SIM_APPEND,
	SIM_DIRECT, /* whole or failed, as O_DIRECT comes in */
	SIM_MMAP,   /* whole pages out of the kernel's cache, cut at the size */
	SIM_SEND,   /* an append that the kernel sends page by page and that arrives in any order */
	SIM_PUNCH,
	SIM_ZERO,
	SIM_ZERO_KEEP,
	SIM_FALLOC,
	SIM_FALLOC_KEEP,
	SIM_WRITEBACK, /* a range of one file, out of order */
	SIM_COMMIT,
	SIM_COMMIT_SOON, /* in the background, beside what follows */
	SIM_KICK,        /* writeback of everything, likewise */
	SIM_FSYNC,
	SIM_FDATASYNC,
	SIM_SYNC,
	SIM_SLEEP, /* timers fire: old pages are written, the interval of commits passes */
	SIM_OPEN,  /* held open until SIM_CLOSE */
	SIM_CLOSE,
	SIM_FILL, /* takes nearly all the space that is left */
	SIM_REMOUNT,
	SIM_FAULT,     /* requests are going to fail: which, in the fields as SIM_FAULT_* says */
	SIM_HOST_FULL, /* the host has room for no more than `len` blocks */
	SIM_GONE,      /* every request fails */
	SIM_HEAL,      /* the disk is well again; what has happened stays */
	SIM_NKINDS,
};

/* Everything is named by place, so that leaving out operations keeps the others meaningful. */
struct sim_op {
	enum sim_kind kind;
	uint8_t dir, name, dir2, name2;
	uint32_t pos, len; /* bytes; len is the mode of CHMOD */
	uint32_t arg;      /* which bytes are written, which attribute */
};

/*
 * What SIM_FAULT says: `dir` is the request (enum slu_io_op), `name` how it fails (SLU_FAULT_ERROR,
 * _SUBMIT_ERROR or _SHORT), from the `pos`-th on for `len` of them, of which `arg` SIM_FAULT_SUPER
 * counts those of superblocks only.
 */
#define SIM_FAULT_ALWAYS UINT32_MAX
#define SIM_FAULT_SUPER  1u
#define SIM_READ_FAULTS  3u /* the most of one fault in reading */

struct sim_workload {
	uint64_t seed; /* of scheduling, delays and data */
	bool sync;     /* mounted with -o sync */
	bool latency;  /* requests take their time and are reordered */
	bool unmount;  /* in the end; else the power fails before */
	struct sim_op ops[SIM_MAX_OPS];
	unsigned int nops;
};

extern const char *const sim_dirs[SIM_NDIRS];
extern const char *const sim_names[SIM_NNAMES];
extern const char *const sim_attrs[SIM_NATTRS];

/* What random workloads have besides their operations; SIM_WITH_ANY: as the seed says. */
enum sim_with { SIM_WITH_NOTHING = 0, SIM_WITH_FAULTS = 1, SIM_WITH_ANY = 4 };
void sim_random_workload(struct sim_workload *w, uint64_t seed, enum sim_with with);
/* The operations out of which all short sequences are made. */
unsigned int sim_bounded_ops(const struct sim_op **ret);
/* variant: what is made durable in between, below SIM_NVARIANTS */
#define SIM_NVARIANTS 3u
void sim_bounded_workload(struct sim_workload *w, const unsigned int *ops, unsigned int nops,
			  unsigned int variant);
void sim_op_print(const struct sim_op *op, struct sim_text *to);
void sim_pattern(uint8_t *buf, size_t len, uint64_t seed);

/* ------------------------------------------------------------------ names */

/* One inode as the namespace shows it; targets and values are what they are hashed to. */
struct sim_node {
	uint64_t ino;
	uint32_t mode, nlink;
	char target[32];
	uint64_t attr[SIM_NATTRS]; /* 0: none */
};

struct sim_entry {
	uint64_t parent, ino;
	char name[16];
};

#define SIM_MAX_NODES 64u
struct sim_tree {
	struct sim_node nodes[SIM_MAX_NODES];
	struct sim_entry entries[SIM_MAX_NODES];
	unsigned int nnodes, nentries;
};

struct sim_node *sim_tree_node(struct sim_tree *t, uint64_t ino);
struct sim_entry *sim_tree_find(struct sim_tree *t, uint64_t parent, const char *name);
struct sim_node *sim_tree_add_node(struct sim_tree *t, uint64_t ino, uint32_t mode);
void sim_tree_add_entry(struct sim_tree *t, uint64_t parent, const char *name, uint64_t ino);
void sim_tree_del_entry(struct sim_tree *t, struct sim_entry *e);
/* Drops nodes that no entry leads to, but for the root. */
void sim_tree_prune(struct sim_tree *t);
/* The same text for the same tree, whatever the order it was made in. */
void sim_tree_print(const struct sim_tree *t, struct sim_text *to);
/* What a mounted volume shows. 0 or -errno, with a complaint. */
int sim_tree_read(struct sim_tree *t, struct slu_fs *fs, struct sim_text *complaint);

/* ------------------------------------------------------------------ the model */

/*
 * Operations count from 1; 0 is how the volume was when the recording began. `op` of a version, an
 * event or a promise is the operation that made it.
 */
struct sim_version {
	unsigned int op;
	uint64_t size;
	uint8_t *page[SIM_PAGES]; /* NULL: zeros; never changed once it is here */
};

/*
 * What reached the tree in one batch and so in the order of operations: the size set, which makes
 * nothing of what was from `from` on, or whole blocks that became zeros.
 */
struct sim_event {
	enum { SIM_EVENT_SIZE, SIM_EVENT_PUNCH, SIM_EVENT_ZERO } kind;
	unsigned int op;
	uint64_t from, end;
};

/*
 * Data as of operation `op` is on disk once the first `record` records are, or in every tree in
 * which operation `with` (0: none) has happened.
 */
struct sim_promise {
	unsigned int op, with;
	size_t record;
};

struct sim_file {
	uint64_t ino;
	unsigned int last_op; /* the last that changed its record */
	struct sim_version *versions;
	struct sim_event *events;
	struct sim_promise *promises;
	unsigned int nversions, nevents, npromises;
};

struct sim_model {
	struct sim_tree tree; /* as it is now */
	unsigned int op;      /* under way */
	struct sim_file *files[SIM_MAX_FILES];
	unsigned int nfiles;
	struct {
		char *tree;   /* what sim_tree_print said after it */
		bool ordered; /* it changed a tree or a file's layout, which happens in order */
		size_t begin; /* records there were */
	} ops[SIM_MAX_OPS + 2];
	/* names as of an operation are on disk: promises of the whole tree */
	struct sim_promise *promises;
	unsigned int npromises;
	uint8_t **pages; /* all there are, to be freed */
	size_t npages;
};

void sim_model_init(struct sim_model *m);
void sim_model_fini(struct sim_model *m);
void sim_model_begin(struct sim_model *m, size_t record);
void sim_model_end(struct sim_model *m);
struct sim_file *sim_model_file(struct sim_model *m, uint64_t ino); /* made if there is none */
void sim_model_touch(struct sim_model *m, uint64_t ino);
const struct sim_version *sim_file_now(const struct sim_file *f);
/* data NULL: zeros */
void sim_model_write(struct sim_model *m, struct sim_file *f, uint64_t pos, uint64_t len,
		     const uint8_t *data);
void sim_model_clear(struct sim_model *m, struct sim_file *f, uint64_t pos, uint64_t len,
		     bool punch);
void sim_model_resize(struct sim_model *m, struct sim_file *f, uint64_t size);
/* Data and record of one file, or names and data of all. */
void sim_model_promise(struct sim_model *m, struct sim_file *f, size_t record);
void sim_model_promise_names(struct sim_model *m, unsigned int op, size_t record);
void sim_model_promise_all(struct sim_model *m, size_t record);
/* What was received for f is on disk wherever the operation under way shows. */
void sim_model_promise_with(struct sim_model *m, struct sim_file *f);

/* What one file is after a cut. */
struct sim_found {
	uint64_t ino, size;
	const uint8_t *data;
};
/*
 * Whether a tree and files are allowed after the power failed with `record` records written.
 * Otherwise the complaint says why not.
 */
bool sim_model_allows(const struct sim_model *m, size_t record, const char *tree,
		      const struct sim_found *files, unsigned int nfiles,
		      struct sim_text *complaint);

/* ------------------------------------------------------------------ running and cutting */

struct sim_run {
	const struct sim_workload *w;
	struct slu_simdisk *disk;
	struct slu_fs *fs;
	struct slu_ctx ctx;
	struct sim_model model;
	uint64_t open_ino[8], open_fh[8];
	unsigned int nopen;
	bool unwell;               /* since the last fault nothing has healed the disk */
	bool gone;                 /* SIM_GONE */
	uint64_t refused;          /* requests that have failed, in mounts that have ended */
	struct sim_text complaint; /* not empty: it went wrong before any cut */
};

/* Makes the disk fail, or heals it. */
void sim_op_fault(struct sim_run *run, const struct sim_op *op);
void sim_heal(struct sim_run *run);
/* While the model asks what there is, a device that is gone answers. */
void sim_let_read(struct sim_run *run, bool on);
/* Before a mount ends: its failed requests are counted. */
void sim_count_refused(struct sim_run *run);

/* Runs the workload; false: something was wrong already. */
bool sim_run(struct sim_run *run, const struct sim_workload *w);
void sim_run_fini(struct sim_run *run);
/*
 * In the simulation; false, with a complaint. Unmounting closes no handles. It may fail without a
 * complaint where the disk has faults, or has had one that turned the volume read-only: then
 * run->fs is NULL, and what is left is as after a power cut.
 */
bool sim_mount(struct sim_run *run);
bool sim_unmount(struct sim_run *run);
/* One operation on the mounted volume and the model. */
void sim_op_run(struct sim_run *run, const struct sim_op *op);

/* Where an operation looks. */
struct sim_place {
	uint64_t dir;
	const char *name;
	struct sim_entry *entry; /* NULL: nothing there */
	struct sim_node *node;
};
bool sim_find_place(struct sim_run *run, unsigned int dir, unsigned int name,
		    struct sim_place *ret);
/* How many records there are; 0 before the recording. */
size_t sim_records(struct sim_run *run);
void sim_write_bytes(struct sim_run *run, uint64_t ino, const struct sim_op *op, uint64_t pos,
		     uint64_t len, unsigned int flags);
void sim_op_on_file(struct sim_run *run, const struct sim_op *op);

/* Reads a file of a mounted volume; data has room for SIM_MAX_SIZE + `extra` bytes. */
int sim_read_file(struct slu_fs *fs, uint64_t ino, uint8_t *data, uint64_t room,
		  uint64_t *ret_size);
/* Compares a mounted volume with what the model allows; grow: also what lies behind the ends. */
bool sim_compare(struct sim_run *run, struct slu_fs *fs, size_t record, bool grow,
		 struct sim_text *complaint);
/* One power cut. */
bool sim_cut(struct sim_run *run, size_t record, uint64_t seed, struct sim_text *complaint);

#endif
