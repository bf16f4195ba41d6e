/* SPDX-License-Identifier: MIT */
/*
 * Which operations are run: at random from a seed, or every short sequence out of a list.
 */
#include "sim.h"

const char *const sim_dirs[SIM_NDIRS] = {"", "a", "b", "a/c"};
const char *const sim_names[SIM_NNAMES] = {"f", "g", "h", "i", "a", "b", "c"};
const char *const sim_attrs[SIM_NATTRS] = {"user.one", "user.two"};

enum { F, G, H, I, A, B, C };    /* names */
enum { ROOT, IN_A, IN_B, IN_C }; /* directories */
#define PG SLU_BLOCK_SIZE

static const char *const kind_names[SIM_NKINDS] = {
	[SIM_CREAT] = "creat",
	[SIM_MKDIR] = "mkdir",
	[SIM_SYMLINK] = "symlink",
	[SIM_TMPFILE] = "tmpfile",
	[SIM_LINK] = "link",
	[SIM_UNLINK] = "unlink",
	[SIM_RMDIR] = "rmdir",
	[SIM_REMOVE] = "remove",
	[SIM_RENAME] = "rename",
	[SIM_EXCHANGE] = "exchange",
	[SIM_CHMOD] = "chmod",
	[SIM_SETXATTR] = "setxattr",
	[SIM_REMOVEXATTR] = "removexattr",
	[SIM_TRUNCATE] = "truncate",
	[SIM_WRITE] = "write",
	[SIM_APPEND] = "append",
	[SIM_DIRECT] = "direct",
	[SIM_MMAP] = "mmap",
	[SIM_SEND] = "send",
	[SIM_PUNCH] = "punch",
	[SIM_ZERO] = "zero",
	[SIM_ZERO_KEEP] = "zero-keep",
	[SIM_FALLOC] = "falloc",
	[SIM_FALLOC_KEEP] = "falloc-keep",
	[SIM_WRITEBACK] = "writeback",
	[SIM_COMMIT] = "commit",
	[SIM_COMMIT_SOON] = "commit-soon",
	[SIM_KICK] = "kick",
	[SIM_FSYNC] = "fsync",
	[SIM_FDATASYNC] = "fdatasync",
	[SIM_SYNC] = "sync",
	[SIM_SLEEP] = "sleep",
	[SIM_OPEN] = "open",
	[SIM_CLOSE] = "close",
	[SIM_FILL] = "fill",
	[SIM_REMOUNT] = "remount",
	[SIM_GROW] = "grow",
	[SIM_FAULT] = "fault",
	[SIM_HOST_FULL] = "host-full",
	[SIM_GONE] = "gone",
	[SIM_HEAL] = "heal",
};

static void print_fault(const struct sim_op *op, struct sim_text *to)
{
	static const char *const ops[] = {
		[SLU_IO_READ] = "read", [SLU_IO_WRITE] = "write", [SLU_IO_FLUSH] = "flush"};
	static const char *const kinds[] = {[SLU_FAULT_ERROR] = "fails",
					    [SLU_FAULT_SUBMIT_ERROR] = "fails at once",
					    [SLU_FAULT_SHORT] = "comes short"};

	sim_text_add(to, "fault: %s %u from now%s %s", ops[op->dir], op->pos,
		     op->arg == SIM_FAULT_SUPER ? ", of superblocks," : "", kinds[op->name]);
	if (op->len == SIM_FAULT_ALWAYS)
		sim_text_add(to, ", and all that follow\n");
	else
		sim_text_add(to, ", %u of them\n", op->len);
}

void sim_op_print(const struct sim_op *op, struct sim_text *to)
{
	if (op->kind == SIM_FAULT) {
		print_fault(op, to);
		return;
	}
	bool two = op->kind == SIM_LINK || op->kind == SIM_RENAME || op->kind == SIM_EXCHANGE;

	sim_text_add(to, "%s %s/%s", kind_names[op->kind], sim_dirs[op->dir], sim_names[op->name]);
	if (two)
		sim_text_add(to, " %s/%s", sim_dirs[op->dir2], sim_names[op->name2]);
	if (op->pos || op->len)
		sim_text_add(to, " pos %u len %u arg %u", op->pos, op->len, op->arg);
	sim_text_add(to, "\n");
}

/* ------------------------------------------------------------------ at random */

struct rng {
	uint64_t state;
};

static uint64_t below(struct rng *r, uint64_t n)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % n;
}

static const uint8_t weights[SIM_NKINDS] = {
	[SIM_CREAT] = 8,       [SIM_MKDIR] = 3,        [SIM_SYMLINK] = 2,     [SIM_TMPFILE] = 2,
	[SIM_LINK] = 4,        [SIM_UNLINK] = 5,       [SIM_RMDIR] = 1,       [SIM_REMOVE] = 2,
	[SIM_RENAME] = 10,     [SIM_EXCHANGE] = 2,     [SIM_CHMOD] = 2,       [SIM_SETXATTR] = 4,
	[SIM_REMOVEXATTR] = 2, [SIM_TRUNCATE] = 12,    [SIM_WRITE] = 20,      [SIM_APPEND] = 8,
	[SIM_DIRECT] = 6,      [SIM_MMAP] = 8,         [SIM_PUNCH] = 5,       [SIM_ZERO] = 3,
	[SIM_ZERO_KEEP] = 2,   [SIM_FALLOC] = 4,       [SIM_FALLOC_KEEP] = 4, [SIM_WRITEBACK] = 14,
	[SIM_COMMIT] = 4,      [SIM_COMMIT_SOON] = 12, [SIM_KICK] = 6,        [SIM_FSYNC] = 8,
	[SIM_FDATASYNC] = 4,   [SIM_SYNC] = 2,         [SIM_SLEEP] = 3,       [SIM_OPEN] = 2,
	[SIM_CLOSE] = 1,       [SIM_REMOUNT] = 1,      [SIM_SEND] = 6,        [SIM_GROW] = 2,
};

static enum sim_kind any_kind(struct rng *r)
{
	unsigned int sum = 0, at;

	for (unsigned int i = 0; i < SIM_NKINDS; i++)
		sum += weights[i];
	at = (unsigned int)below(r, sum);
	for (unsigned int i = 0;; i++) {
		if (at < weights[i])
			return i;
		at -= weights[i];
	}
}

/* Bytes from which an operation begins or for which it goes on: often at an edge, or beside it. */
static uint32_t any_bytes(struct rng *r, uint32_t pages)
{
	uint32_t pos = (uint32_t)below(r, pages) * PG;

	switch (below(r, 4)) {
	case 0:
		return pos;
	case 1:
		return pos + 1 + (uint32_t)below(r, 16);
	case 2:
		return pos ? pos - 1 - (uint32_t)below(r, 16) : 0;
	default:
		return pos + (uint32_t)below(r, PG);
	}
}

/* Few names and few of them often: operations are to meet. */
static uint8_t any_name(struct rng *r)
{
	return (uint8_t)(below(r, 4) ? below(r, 3) : below(r, SIM_NNAMES));
}

static uint8_t any_dir(struct rng *r)
{
	return (uint8_t)(below(r, 2) ? 0 : below(r, SIM_NDIRS));
}

static void any_op(struct sim_op *op, struct rng *r)
{
	*op = (struct sim_op){
		.kind = any_kind(r),
		.dir = any_dir(r),
		.name = any_name(r),
		.dir2 = any_dir(r),
		.name2 = any_name(r),
		.pos = any_bytes(r, SIM_PAGES * 3 / 4),
		.len = any_bytes(r, 1u << below(r, 4)),
		.arg = (uint32_t)below(r, 1u << 31),
	};
	if (op->kind == SIM_SLEEP)
		op->len = (uint32_t)below(r, 7000);
	else if (op->kind == SIM_GROW)
		op->arg = 1 + (uint32_t)below(r, 1u << below(r, 13));
	else if (op->kind == SIM_TRUNCATE && below(r, 3) == 0)
		op->pos = 0;
}

/* ------------------------------------------------------------------ faults at random */

static void any_request_fault(struct sim_op *op, struct rng *r)
{
	static const uint8_t requests[] = {SLU_IO_WRITE, SLU_IO_WRITE, SLU_IO_WRITE, SLU_IO_FLUSH,
					   SLU_IO_READ};
	static const uint8_t kinds[] = {SLU_FAULT_ERROR, SLU_FAULT_SUBMIT_ERROR, SLU_FAULT_SHORT};

	*op = (struct sim_op){
		.kind = SIM_FAULT,
		.dir = requests[below(r, slu_array_size(requests))],
		.name = kinds[below(r, slu_array_size(kinds))],
		.pos = 1 + (uint32_t)below(r, 1u << below(r, 4)),
		.len = 1 + (uint32_t)below(r, SIM_READ_FAULTS),
	};
	if (op->dir == SLU_IO_WRITE && below(r, 8) == 0)
		op->arg = SIM_FAULT_SUPER;
	else if (op->dir == SLU_IO_WRITE && below(r, 3) == 0)
		op->len = SIM_FAULT_ALWAYS;
}

static void any_fault(struct sim_op *op, struct rng *r)
{
	switch (below(r, 8)) {
	case 0:
		*op = (struct sim_op){.kind = SIM_HOST_FULL, .len = (uint32_t)below(r, 24)};
		break;
	case 1:
		*op = (struct sim_op){.kind = SIM_GONE};
		break;
	default:
		any_request_fault(op, r);
	}
}

static void insert(struct sim_workload *w, unsigned int at, struct sim_op op)
{
	slu_assert(w->nops < SIM_MAX_OPS && at <= w->nops);
	memmove(&w->ops[at + 1], &w->ops[at], (w->nops - at) * sizeof(w->ops[0]));
	w->ops[at] = op;
	w->nops++;
}

/* What asks the disk for something: what is cached is not read, and not much is written by itself. */
static struct sim_op any_demand(struct rng *r, bool reading)
{
	static const uint8_t kinds[] = {SIM_FSYNC, SIM_FDATASYNC, SIM_FSYNC, SIM_SYNC};

	return (struct sim_op){
		.kind = reading ? SIM_REMOUNT : kinds[below(r, slu_array_size(kinds))],
		.dir = any_dir(r),
		.name = any_name(r),
	};
}

/* Up to three faults, most of which pass. */
static void add_faults(struct sim_workload *w, struct rng *r)
{
	for (uint64_t n = 1 + below(r, 3); n; n--) {
		unsigned int at = (unsigned int)below(r, w->nops + 1);
		struct sim_op op;

		any_fault(&op, r);
		insert(w, at, op);
		for (uint64_t demands = below(r, 3); demands; demands--) {
			at += 1 + (unsigned int)below(r, slu_min(w->nops - at, 6u));
			insert(w, at, any_demand(r, op.kind == SIM_FAULT && op.dir == SLU_IO_READ));
		}
		at += 1 + (unsigned int)below(r, w->nops - at);
		if (below(r, 4))
			insert(w, at, (struct sim_op){.kind = SIM_HEAL});
	}
}

/* ------------------------------------------------------------------ two threads at random */

static bool may_be_shared(enum sim_kind kind)
{
	return kind == SIM_WRITE || kind == SIM_DIRECT || kind == SIM_MMAP ||
	       kind == SIM_WRITEBACK || kind == SIM_FSYNC || kind == SIM_FDATASYNC;
}

/*
 * Who does what; some of it on the file that both write, and some of it twice, by both at once.
 * Nobody unmounts under the other.
 */
static void add_threads(struct sim_workload *w, struct rng *r)
{
	w->threads = true;
	for (unsigned int i = 0; i < w->nops; i++) {
		struct sim_op *op = &w->ops[i];

		op->thread = (uint8_t)below(r, SIM_NTHREADS);
		if (op->kind == SIM_REMOUNT || (op->kind == SIM_KICK && below(r, 2)))
			op->kind = SIM_SYNC;
		if (may_be_shared(op->kind) && below(r, 3) == 0) {
			op->dir = ROOT;
			op->name = SIM_SHARED_NAME;
		}
		if (i && below(r, 4) == 0) {
			if (below(r, 4) == 0)
				op[-1].kind = SIM_SYNC;
			*op = op[-1];
			op->thread = !op->thread;
			if (op->kind != SIM_GROW) /* other bytes, not terabytes of blocks */
				op->arg = (uint32_t)below(r, 1u << 31);
		} else if (i && op->kind == SIM_SEND) {
			/* begun after what the sync has flushed, and not sent before it ends */
			op[-1].kind = SIM_SYNC;
			op[-1].thread = !op->thread;
		}
	}
}

/* As editors save: what has just been written takes the place of the old file, and is committed. */
static void add_save(struct sim_workload *w, struct rng *r)
{
	unsigned int at = 1 + (unsigned int)below(r, w->nops - 2);
	struct sim_op *rename = &w->ops[at];

	rename->kind = SIM_RENAME;
	rename[-1] = *rename;
	rename[-1].kind = below(r, 2) ? SIM_WRITE : SIM_APPEND;
	rename[1].kind = below(r, 2) ? SIM_COMMIT : SIM_COMMIT_SOON;
}

void sim_random_workload(struct sim_workload *w, uint64_t seed, enum sim_with with)
{
	struct rng r = {seed * 2654435761u};

	*w = (struct sim_workload){.seed = seed,
				   .sync = below(&r, 8) == 0,
				   .latency = below(&r, 3) != 0,
				   .unmount = below(&r, 2),
				   .forgetful = below(&r, 3) == 0};
	w->nops = 4 + (unsigned int)below(&r, 40);
	for (unsigned int i = 0; i < w->nops; i++)
		any_op(&w->ops[i], &r);
	if (below(&r, 3) == 0)
		add_save(w, &r);
	if (below(&r, 6) == 0) {
		/* hardly any room is left from here on */
		w->ops[below(&r, w->nops)] =
			(struct sim_op){.kind = SIM_FILL, .len = (uint32_t)below(&r, 40)};
	}
	if (with == SIM_WITH_ANY)
		with = (below(&r, 4) == 0 ? SIM_WITH_FAULTS : 0) |
		       (below(&r, 4) == 0 ? SIM_WITH_THREADS : 0);
	if (with & SIM_WITH_FAULTS)
		add_faults(w, &r);
	if (with & SIM_WITH_THREADS)
		add_threads(w, &r);
}

/* ------------------------------------------------------------------ every short sequence */

/* The files there are: /f of three pages and a bit, /a/g of two, /a/f empty; /a, /b, /a/c. */
static const struct sim_op bounded[] = {
	{SIM_CREAT, ROOT, H},
	{SIM_CREAT, IN_A, H},
	{SIM_MKDIR, ROOT, C},
	{SIM_MKDIR, IN_A, I},
	{SIM_SYMLINK, ROOT, H, .arg = 1},
	{SIM_TMPFILE, ROOT, H, .pos = 0, .len = PG + 10, .arg = 2},
	{SIM_FALLOC, ROOT, F, .pos = 2 * PG, .len = 4 * PG, .arg = 3},
	{SIM_FALLOC_KEEP, ROOT, F, .pos = 2 * PG, .len = 4 * PG},
	{SIM_PUNCH, ROOT, F, .pos = 100, .len = 2 * PG},
	{SIM_ZERO, ROOT, F, .pos = 2 * PG + 50, .len = 3 * PG},
	{SIM_ZERO_KEEP, ROOT, F, .pos = PG, .len = PG},
	{SIM_WRITE, ROOT, F, .pos = PG - 20, .len = PG + 40, .arg = 4},
	{SIM_WRITE, ROOT, F, .pos = 5 * PG + 7, .len = 3 * PG, .arg = 5},
	{SIM_WRITE, IN_A, F, .pos = 0, .len = 2 * PG + 5, .arg = 6},
	{SIM_APPEND, ROOT, F, .len = PG, .arg = 7},
	{SIM_APPEND, IN_A, G, .len = 300, .arg = 8},
	{SIM_DIRECT, ROOT, F, .pos = PG, .len = 2 * PG, .arg = 9},
	{SIM_DIRECT, IN_A, F, .pos = 0, .len = 4 * PG, .arg = 10},
	{SIM_MMAP, ROOT, F, .pos = 0, .len = 4 * PG, .arg = 11},
	{SIM_MMAP, IN_A, G, .pos = PG, .len = PG, .arg = 12},
	{SIM_SEND, ROOT, F, .len = 3 * PG, .arg = 17},
	{SIM_LINK, ROOT, F, IN_B, F},
	{SIM_LINK, IN_A, G, ROOT, G},
	{SIM_UNLINK, ROOT, F},
	{SIM_UNLINK, IN_A, F},
	{SIM_REMOVE, ROOT, B},
	{SIM_REMOVE, IN_A, G},
	{SIM_TRUNCATE, ROOT, F, .pos = 0},
	{SIM_TRUNCATE, ROOT, F, .pos = PG + 33},
	{SIM_TRUNCATE, ROOT, F, .pos = 6 * PG + 1},
	{SIM_TRUNCATE, IN_A, F, .pos = 3 * PG},
	{SIM_RENAME, IN_A, F, ROOT, F},
	{SIM_RENAME, ROOT, F, IN_A, G},
	{SIM_RENAME, IN_A, G, ROOT, H},
	{SIM_RENAME, ROOT, A, IN_B, A},
	{SIM_RENAME, IN_A, C, ROOT, B},
	{SIM_EXCHANGE, ROOT, F, IN_A, G},
	{SIM_CHMOD, ROOT, F, .len = 0600},
	{SIM_SETXATTR, ROOT, F, .len = 100, .arg = 14},
	{SIM_SETXATTR, IN_A, G, .len = 3000, .arg = 15},
	{SIM_REMOVEXATTR, IN_A, G, .arg = 16},
	{SIM_WRITEBACK, ROOT, F, .pos = 2 * PG, .len = 2 * PG},
	{SIM_WRITEBACK, IN_A, F, .pos = PG, .len = 8 * PG},
	{SIM_COMMIT},
	{SIM_FSYNC, ROOT, F},
	{SIM_FSYNC, ROOT, A},
	{SIM_FSYNC, IN_A, F},
	{SIM_FDATASYNC, ROOT, F},
	{SIM_FDATASYNC, IN_A, G},
	{SIM_SYNC},
};

unsigned int sim_bounded_ops(const struct sim_op **ret)
{
	*ret = bounded;
	return slu_array_size(bounded);
}

static void add(struct sim_workload *w, struct sim_op op)
{
	slu_assert(w->nops < SIM_MAX_OPS);
	w->ops[w->nops++] = op;
}

/*
 * Variants: nothing but the unmount in the end; the tree is committed after each operation without
 * its data, which follows out of order; each is followed by fsync of what it changed.
 */
void sim_bounded_workload(struct sim_workload *w, const unsigned int *ops, unsigned int nops,
			  unsigned int variant)
{
	*w = (struct sim_workload){.seed = 1, .unmount = true};
	for (unsigned int i = 0; i < nops; i++) {
		const struct sim_op *op = &bounded[ops[i]];

		w->seed = w->seed * slu_array_size(bounded) + ops[i];
		add(w, *op);
		if (variant == 1) {
			add(w, (struct sim_op){SIM_WRITEBACK, op->dir, op->name, .pos = 2 * PG,
					       .len = 3 * PG});
			add(w, (struct sim_op){SIM_COMMIT});
		} else if (variant == 2) {
			add(w,
			    (struct sim_op){i % 2 ? SIM_FDATASYNC : SIM_FSYNC, op->dir, op->name});
		}
	}
}
