/* SPDX-License-Identifier: MIT */
/*
 * The power-cut simulator: a workload runs once on the simulated disk, inside a simulation, beside
 * a model of what it has been promised; then the power fails at every record of the disk's log, in
 * several ways each, and what is left is mounted and compared with what the model allows.
 *
 * A workload may have faults (faults.c) and may run on two threads. Two threads meet on names
 * without restraint, and so do fsync, sync, writeback and the rest of what makes things durable; but
 * each byte and each size has one writer, which keeps the order of its values known: a file belongs
 * to the thread that made it, and in one file that both write the even pages belong to the first
 * thread and the odd ones to the second, and its size stays. What overlapped in time may have
 * happened in any order that explains what the operations returned (model.c).
 *
 * Not covered: two writers of one page or of one size, truncate or fallocate beside a write by
 * another thread, an fsync of the file whose append another thread is sending (SIM_SEND; the kernel
 * holds the inode's lock for both), a remount with two threads, silent faults.
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
#define SIM_SHARED_NAME   3u /* in the root: what both threads write */
#define SIM_NATTRS        2u
#define SIM_MAX_OPS       96u
#define SIM_MAX_FILES     (SIM_MAX_OPS + 32u) /* there ever were */
#define SIM_NTHREADS      2u

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
	SIM_GROW,      /* by `arg` blocks */
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
	uint8_t thread;    /* that does it, below SIM_NTHREADS */
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
	uint64_t seed;     /* of scheduling, delays and data */
	bool sync;         /* mounted with -o sync */
	bool latency;      /* requests take their time and are reordered */
	bool unmount;      /* in the end; else the power fails before */
	bool forgetful;    /* an inode that nobody uses leaves memory at once */
	bool threads;      /* two of them, each with its operations; else one has all */
	uint64_t schedule; /* another order of threads with the same data; 0 but for shrinking */
	struct sim_op ops[SIM_MAX_OPS];
	unsigned int nops;
};

extern const char *const sim_dirs[SIM_NDIRS];
extern const char *const sim_names[SIM_NNAMES];
extern const char *const sim_attrs[SIM_NATTRS];

/* What random workloads have besides their operations; SIM_WITH_ANY: as the seed says. */
enum sim_with { SIM_WITH_NOTHING = 0, SIM_WITH_FAULTS = 1, SIM_WITH_THREADS = 2, SIM_WITH_ANY = 4 };
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

/* ------------------------------------------------------------------ effects */

/* What one operation did to the names: in one batch, and so whole and at one time. */
struct sim_effect {
	enum {
		SIM_NO_EFFECT,
		SIM_MADE,   /* `name` in `dir` is the new inode `ino` */
		SIM_LINKED, /* and here of one that there was */
		SIM_LOST,   /* `name` in `dir` has gone; `is_dir`: it was a directory */
		SIM_RENAMED,
		SIM_EXCHANGED,
		SIM_MODE_SET,
		SIM_ATTR_SET, /* `attr` to `value`; 0: removed */
	} kind;
	uint64_t dir, dir2, ino;
	const char *name, *name2; /* of sim_names */
	uint32_t mode;
	bool is_dir;
	unsigned int attr;
	uint64_t value;
	char target[32];
};

/* False if it cannot have happened to this tree; then it may have changed in part. */
bool sim_effect_apply(struct sim_tree *t, const struct sim_effect *e);

/* ------------------------------------------------------------------ the model */

/* So many operations of each thread; each thread's count from 1. */
struct sim_at {
	unsigned int n[SIM_NTHREADS];
};

/*
 * `op` of a version, an event or a promise of a file is the operation of its owner that made it; 0
 * is how the volume was when the recording began.
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
 * which operation `with` (0: none) of `with_thread` has happened.
 */
struct sim_promise {
	unsigned int op, with, with_thread;
	size_t record;
};

/* Names as of these operations are on disk: a promise of the whole tree. */
struct sim_names_promise {
	struct sim_at at;
	size_t record;
};

struct sim_file {
	uint64_t ino;
	unsigned int owner;    /* the thread that writes it */
	struct sim_file *mate; /* the same inode's odd pages; NULL: this has all pages */
	struct sim_at last;    /* the last operations that changed its record */
	struct sim_version *versions;
	struct sim_event *events;
	struct sim_promise *promises;
	unsigned int nversions, nevents, npromises;
};

struct sim_did {
	size_t begin;         /* records there were */
	struct sim_at before; /* what had ended when it began */
	bool ended;
	bool on_names; /* it may have an effect */
	bool ordered;  /* it changed a tree or a file's layout, which happens in order */
	struct sim_effect effect;
};

/* How the names may have been at some time. */
struct sim_state {
	struct sim_at at; /* the last ordered operations in it */
	struct sim_tree tree;
	char *text; /* what sim_tree_print says */
};

struct sim_model {
	struct sim_tree base; /* when the recording began */
	struct sim_did ops[SIM_NTHREADS][SIM_MAX_OPS + 2];
	unsigned int nops[SIM_NTHREADS]; /* begun */
	struct sim_file *files[SIM_MAX_FILES];
	unsigned int nfiles;
	struct sim_names_promise *promises;
	unsigned int npromises;
	struct sim_state *states; /* none has come after one behind it */
	unsigned int nstates;
	uint8_t **pages; /* all there are, to be freed */
	size_t npages;
};

void sim_model_init(struct sim_model *m);
void sim_model_fini(struct sim_model *m);
void sim_model_begin(struct sim_model *m, unsigned int thread, size_t record, bool on_names);
void sim_model_end(struct sim_model *m, unsigned int thread);
/* The operation under way of that thread had this effect; before the recording the base has it. */
void sim_model_effect(struct sim_model *m, unsigned int thread, const struct sim_effect *e);
/*
 * Everything has ended: finds the states there may have been. False if no order of the operations
 * explains what they returned.
 */
bool sim_model_order(struct sim_model *m, struct sim_text *complaint);
/* The next ordered operation of a thread after `op`, or UINT_MAX. */
unsigned int sim_model_next(const struct sim_model *m, unsigned int thread, unsigned int op);
/* What had ended when the operation under way began, and itself. */
struct sim_at sim_model_known(const struct sim_model *m, unsigned int thread);
/* Nothing of the other threads on names overlaps the operation under way. */
bool sim_model_alone(const struct sim_model *m, unsigned int thread);

struct sim_file *sim_model_file(const struct sim_model *m, uint64_t ino); /* NULL: none yet */
struct sim_file *sim_model_new_file(struct sim_model *m, uint64_t ino, unsigned int owner);
/* Before the recording: both threads write to it from now on. */
void sim_model_share(struct sim_model *m, struct sim_file *f);
/* The one of f and its mate that has a page. */
const struct sim_file *sim_file_of_page(const struct sim_file *f, uint64_t pgidx);
void sim_model_touch(struct sim_model *m, unsigned int thread, uint64_t ino);
const struct sim_version *sim_file_now(const struct sim_file *f);
/* data NULL: zeros */
void sim_model_write(struct sim_model *m, struct sim_file *f, uint64_t pos, uint64_t len,
		     const uint8_t *data);
void sim_model_clear(struct sim_model *m, struct sim_file *f, uint64_t pos, uint64_t len,
		     bool punch);
void sim_model_resize(struct sim_model *m, struct sim_file *f, uint64_t size);
/* Data of one file as of `known`, names as of `names`; or names and data of all. */
void sim_model_promise(struct sim_model *m, struct sim_file *f, struct sim_at known,
		       struct sim_at names, size_t record);
void sim_model_promise_names(struct sim_model *m, struct sim_at names, size_t record);
void sim_model_promise_all(struct sim_model *m, struct sim_at known, size_t record);
/* What was received for f is on disk wherever that thread's operation under way shows. */
void sim_model_promise_with(struct sim_model *m, struct sim_file *f, unsigned int thread);

/* What one file is after a cut. */
struct sim_found {
	uint64_t ino, size;
	const uint8_t *data;
};
/*
 * Whether a tree and files are allowed after the power failed with `record` records written.
 * Otherwise the complaint says why not. After sim_model_order.
 */
bool sim_model_allows(const struct sim_model *m, size_t record, const char *tree,
		      const struct sim_found *files, unsigned int nfiles,
		      struct sim_text *complaint);

/* ------------------------------------------------------------------ running and cutting */

struct sim_run {
	const struct sim_workload *w;
	struct slu_simdisk *disk;
	struct slu_fs *fs;
	bool growing; /* one at a time */
	struct sim_model model;
	bool recording;
	struct slu_mutex turn_lock;       /* a leaf: ndone */
	struct slu_cond turn;             /* and an append has been sent */
	unsigned int ndone[SIM_NTHREADS]; /* so many of the workload's operations are past */
	bool unwell;                      /* since the last fault nothing has healed the disk */
	bool gone;                        /* SIM_GONE */
	uint64_t refused;                 /* requests that have failed, in mounts that have ended */
	struct sim_text complaint;        /* not empty: it went wrong before any cut */
	struct sim_task {
		struct sim_run *run;
		unsigned int thread;
		struct slu_ctx ctx;
		struct slu_thread task;
		uint64_t open_ino[8], open_fh[8];
		unsigned int nopen;
		uint64_t sending, syncing;  /* the inode that the kernel would hold locked for it */
		unsigned int nsent;         /* appends sent; turn_lock */
		uint8_t data[SIM_MAX_SIZE]; /* of the operation under way */
		uint8_t left[SIM_MAX_SIZE + 1]; /* what it has left if it failed; one more shows */
	} tasks[SIM_NTHREADS];
};

/* Makes the disk fail, or heals it. */
void sim_op_fault(struct sim_run *run, const struct sim_op *op);
void sim_heal(struct sim_run *run);
/* While the model asks what there is, a device that is gone answers. */
void sim_let_read(struct sim_run *run, bool on);
/* Requests that the disk has failed in this mount. */
uint64_t sim_refused(const struct sim_run *run);
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
void sim_op_run(struct sim_task *t, const struct sim_op *op);
bool sim_op_on_names(enum sim_kind kind);

/* Where an operation looks: what the volume answers just now. */
struct sim_place {
	uint64_t dir;
	const char *name;
	bool found;
	uint64_t ino;
	mode_t mode;
};
bool sim_find_place(struct sim_task *t, unsigned int dir, unsigned int name, struct sim_place *ret);
/* How many records there are; 0 before the recording. */
size_t sim_records(struct sim_run *run);
void sim_write_bytes(struct sim_task *t, struct sim_file *f, const struct sim_op *op, uint64_t pos,
		     uint64_t len, unsigned int flags);
void sim_op_on_file(struct sim_task *t, const struct sim_op *op);
void sim_op_close(struct sim_task *t);

/* Reads a file of a mounted volume; data has room for SIM_MAX_SIZE + `extra` bytes. */
int sim_read_file(struct slu_fs *fs, uint64_t ino, uint8_t *data, uint64_t room,
		  uint64_t *ret_size);
/* Compares a mounted volume with what the model allows; grow: also what lies behind the ends. */
bool sim_compare(struct sim_run *run, struct slu_fs *fs, size_t record, bool grow,
		 struct sim_text *complaint);
/* One power cut. */
bool sim_cut(struct sim_run *run, size_t record, uint64_t seed, struct sim_text *complaint);

#endif
