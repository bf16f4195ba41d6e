/* SPDX-License-Identifier: MIT */
/*
 * What the files of the lab share.
 *
 *	lab.c		rounds: set up, start, end, judge
 *	file.c		a file without a filesystem, and every value that a byte of it has had
 *	window.c	a mapping of it, served by userfaultfd; the handler and the adversary
 *	writer.c	writers, the source they copy from, what is checked
 *	hold_all.c	the write path of 2020
 *	graph.c		who holds which page and who waits for it: cycles, and their drawing
 *	stack.c		names of calls
 *	readers.c	readers against publish, replace and truncate
 *
 * The lab's own locks are pthread's: its threads stand beside the code under test, as application
 * and kernel do.
 */
#ifndef SLU_LAB_PRIVATE_H
#define SLU_LAB_PRIVATE_H

#include "sluice/lab.h"
#include "sluice/mem_backend.h"
#include <pthread.h>
#include <sys/types.h>

#define LAB_PAGE  ((uint64_t)SLU_BLOCK_SIZE)
#define LAB_STACK 24

/* A page of a window as one number. */
#define LAB_NO_PAGE UINT64_MAX
static inline uint64_t lab_page_id(uint32_t file, uint32_t page)
{
	return (uint64_t)file << 32 | page;
}

/* ------------------------------------------------------------------ files */

struct lab_file {
	struct slu_mem_inode *inode;
	struct slu_aspace as;
	uint8_t *shadow; /* what it must hold; its writer's */
	/*
	 * For each byte the values that it has had in this round: seven at most, the number of them
	 * in the top byte. Added to before the bytes can be seen.
	 */
	_Atomic uint64_t *had;
	/* Both as they are when a round begins. */
	uint8_t *first;
	uint64_t *had_first;
	uint8_t *window; /* npages pages */
};

bool lab_file_had(const struct lab_file *f, uint64_t pos, uint8_t value);
void lab_file_will_have(struct lab_file *f, uint64_t pos, uint8_t value);
/* What outlives rounds. 0 or -ENOMEM; fini in either case. */
int lab_file_init(struct slu_lab *lab, uint32_t i);
void lab_file_fini(struct slu_lab *lab, uint32_t i);
/* A new file: pages of pattern, and holes. 0 or an error. */
int lab_file_begin(struct slu_lab *lab, uint32_t i);
/* Its pages and its space go. */
void lab_file_end(struct slu_lab *lab, uint32_t i);
/* Writes from memory; reads into memory. The bytes, or an error. */
int64_t lab_file_write(struct lab_file *f, uint64_t pos, const void *buf, uint64_t len);
int64_t lab_file_read(struct slu_lab *lab, struct lab_file *f, uint64_t pos, void *buf,
		      uint64_t len);
int lab_file_truncate(struct slu_lab *lab, struct lab_file *f, uint64_t size);

/* ------------------------------------------------------------------ threads and the graph */

struct lab_hold {
	uint32_t file, page;
	uint64_t step; /* of the lab: when it was locked */
};

/* What the lab knows of a writer. Under lab->lock. */
struct lab_state {
	uint32_t id;
	pid_t tid;
	uint32_t nwrite;
	struct slu_lab_write write; /* the one under way */
	struct lab_hold holds[SLU_LAB_MAX_PAGES];
	uint32_t nholds;
	bool faulting; /* its fault is pending with the handler */
	uint32_t want_file, want_page;
	uint64_t progress;      /* moves with every copy that ends */
	uint64_t last_progress; /* at its last fault */
	uint64_t last_fault;    /* lab_page_id of it, or LAB_NO_PAGE */
	uint64_t touching;      /* the same: the page that it may be waiting for */
	void *stack[LAB_STACK];
	int nstack;
};

struct lab_thread {
	struct slu_lab *lab;
	pthread_t thread;
	uint32_t id;
	uint64_t random;
	bool started;
	struct lab_state s;
};

struct slu_lab {
	struct slu_lab_opts opts;
	struct slu_simdisk *disk;
	struct slu_blockio *bio;
	struct slu_cache *cache;
	struct slu_writeback *wb;
	struct slu_mem_backend mem;
	struct lab_file files[SLU_LAB_MAX_THREADS];
	struct lab_thread threads[SLU_LAB_MAX_THREADS];
	uint32_t nthreads;                /* of this round */
	const struct slu_lab_write *only; /* one write instead of a round's; NULL: a round's */

	uint8_t *windows; /* those of all files, one after the other */
	size_t windows_len;
	int uffd, stop_fd;
	bool registered, have_handler;
	pthread_t handler;

	pthread_barrier_t meet; /* of all writers, with their first page locked */
	_Atomic bool broken;    /* a cycle was found, or a check has failed: everybody goes home */
	_Atomic bool stop_adversary;

	pthread_mutex_t lock; /* everything below, and each thread's state */
	struct slu_lab_stats stats;
	uint64_t step; /* counts locks of pages */
	int error;
	char complaint[256];
	struct slu_lab_link cycle[SLU_LAB_MAX_THREADS];
	uint32_t ncycle;
	struct lab_state in_cycle[SLU_LAB_MAX_THREADS]; /* as they were then */
};

uint64_t lab_random(uint64_t *x);
/*
 * In the first write of a round all writers wait here for each other, with a page locked: from
 * there on the race that the policy loses is certain.
 */
void lab_meet(struct lab_thread *t);
/* The first complaint of a round counts. */
void lab_complain(struct slu_lab *lab, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A page that the thread has locked, or has no more. False: that was known. */
bool graph_hold(struct lab_thread *t, uint32_t file, uint32_t page);
void graph_release_all(struct lab_thread *t);
/* Who holds it, NULL: no writer. lab->lock is held. */
struct lab_thread *graph_holder(struct slu_lab *lab, uint32_t file, uint32_t page);
/*
 * t waits for a page that somebody has locked. True if that closes a cycle, which is recorded.
 * lab->lock is held.
 */
bool graph_wait(struct lab_thread *t, uint32_t file, uint32_t page);

/* The calls of this thread, without `skip` innermost ones; how many. */
int stack_take(void **stack, int max, int skip);
void stack_print(FILE *out, void *const *stack, int n);

/* ------------------------------------------------------------------ windows, writers */

int window_init(struct slu_lab *lab, const char **why);
void window_fini(struct slu_lab *lab);
/* Takes pages out of all windows or one: the next touch faults. */
void window_drop_all(struct slu_lab *lab);
void window_drop(struct slu_lab *lab, uint32_t file, uint64_t first, uint64_t n);
void *window_adversary(void *arg);
/* Bytes of memory that are there, without a fault: 0 to len. */
size_t window_copy_nofault(void *dst, const uint8_t *src, size_t len);

struct lab_source {
	struct slu_source source; /* first */
	struct lab_thread *thread;
	const struct slu_lab_write *w;
	uint64_t at;        /* bytes handed over */
	uint8_t held[4096]; /* what fault_in has fetched */
	uint32_t held_off, held_len;
	uint64_t fault_ins;
};

void source_init(struct lab_source *s, struct lab_thread *t, const struct slu_lab_write *w);
/* What the faulty policies copy with: memcpy, which faults where a page is not there. */
size_t source_copy_faulting(struct lab_source *s, void *dst, size_t len);
/* The whole life of a writer: a round's writes, or the one that is given. */
void *writer_main(void *arg);
void writer_one(struct lab_thread *t, const struct slu_lab_write *w);

/* The bytes written; -EDEADLK when the lab was broken off, or another error. */
int64_t hold_all_write(struct lab_thread *t, const struct slu_lab_write *w, struct lab_source *s);

#endif
