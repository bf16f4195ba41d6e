/* SPDX-License-Identifier: MIT */
/*
 * The model: what a workload has done, in which order, and what it was promised.
 */
#include "sim.h"

/* A list that grows by one. */
#define ADD_ONE(v, n)                                                         \
	do {                                                                  \
		if (!((n) & ((n)-1))) {                                       \
			(v) = realloc(v, ((n) ? 2 * (n) : 1) * sizeof(*(v))); \
			slu_assert(v);                                        \
		}                                                             \
		(n)++;                                                        \
	} while (0)

static char *print_tree(const struct sim_tree *t)
{
	struct sim_text text = {0};

	sim_tree_print(t, &text);
	return text.s;
}

void sim_model_init(struct sim_model *m)
{
	memset(m, 0, sizeof(*m));
	sim_tree_add_node(&m->tree, SLU_INO_ROOT, S_IFDIR | 0755);
	m->ops[0].tree = print_tree(&m->tree);
}

void sim_model_fini(struct sim_model *m)
{
	for (unsigned int i = 0; i <= m->op; i++)
		free(m->ops[i].tree);
	for (unsigned int i = 0; i < m->nfiles; i++) {
		free(m->files[i]->versions);
		free(m->files[i]->events);
		free(m->files[i]->promises);
		free(m->files[i]);
	}
	for (size_t i = 0; i < m->npages; i++)
		free(m->pages[i]);
	free(m->pages);
	free(m->promises);
	memset(m, 0, sizeof(*m));
}

void sim_model_begin(struct sim_model *m, size_t record)
{
	m->op++;
	slu_assert(m->op < slu_array_size(m->ops));
	m->ops[m->op].begin = record;
}

/* Before the recording begins this describes operation 0 again and again. */
void sim_model_end(struct sim_model *m)
{
	sim_tree_prune(&m->tree);
	free(m->ops[m->op].tree);
	m->ops[m->op].tree = print_tree(&m->tree);
	if (m->op && strcmp(m->ops[m->op].tree, m->ops[m->op - 1].tree) != 0)
		m->ops[m->op].ordered = true;
}

/* ------------------------------------------------------------------ files */

static struct sim_version *add_version(struct sim_model *m, struct sim_file *f)
{
	/* What came before the recording is history that no cut can show. */
	if (m->op || !f->nversions) {
		ADD_ONE(f->versions, f->nversions);
		if (f->nversions > 1)
			f->versions[f->nversions - 1] = f->versions[f->nversions - 2];
		else
			f->versions[0] = (struct sim_version){0};
	}
	f->versions[f->nversions - 1].op = m->op;
	return &f->versions[f->nversions - 1];
}

static void add_event(struct sim_model *m, struct sim_file *f, int kind, uint64_t from,
		      uint64_t end)
{
	if (!m->op)
		return;
	ADD_ONE(f->events, f->nevents);
	f->events[f->nevents - 1] =
		(struct sim_event){.kind = kind, .op = m->op, .from = from, .end = end};
	m->ops[m->op].ordered = true;
}

struct sim_file *sim_model_file(struct sim_model *m, uint64_t ino)
{
	for (unsigned int i = 0; i < m->nfiles; i++)
		if (m->files[i]->ino == ino)
			return m->files[i];
	slu_assert(m->nfiles < SIM_MAX_FILES);
	struct sim_file *f = calloc(1, sizeof(*f));

	slu_assert(f);
	f->ino = ino;
	m->files[m->nfiles++] = f;
	add_version(m, f);
	return f;
}

void sim_model_touch(struct sim_model *m, uint64_t ino)
{
	sim_model_file(m, ino)->last_op = m->op;
}

const struct sim_version *sim_file_now(const struct sim_file *f)
{
	return &f->versions[f->nversions - 1];
}

/* A page of its own for this version, with what it had. */
static uint8_t *own_page(struct sim_model *m, struct sim_version *v, uint64_t i)
{
	uint8_t *page = malloc(SLU_BLOCK_SIZE);

	slu_assert(page && i < SIM_PAGES);
	ADD_ONE(m->pages, m->npages);
	m->pages[m->npages - 1] = page;
	if (v->page[i])
		memcpy(page, v->page[i], SLU_BLOCK_SIZE);
	else
		memset(page, 0, SLU_BLOCK_SIZE);
	return v->page[i] = page;
}

static void set_bytes(struct sim_model *m, struct sim_version *v, uint64_t pos, uint64_t end,
		      const uint8_t *data)
{
	while (pos < end) {
		uint64_t i = pos / SLU_BLOCK_SIZE, off = pos % SLU_BLOCK_SIZE;
		uint64_t n = slu_min(end - pos, SLU_BLOCK_SIZE - off);

		if (data || v->page[i]) {
			uint8_t *page = own_page(m, v, i);

			if (data)
				memcpy(page + off, data, n);
			else
				memset(page + off, 0, n);
		}
		pos += n;
		data = data ? data + n : NULL;
	}
}

void sim_model_write(struct sim_model *m, struct sim_file *f, uint64_t pos, uint64_t len,
		     const uint8_t *data)
{
	struct sim_version *v = add_version(m, f);

	set_bytes(m, v, pos, pos + len, data);
	v->size = slu_max(v->size, pos + len);
}

/* Whole blocks change in the tree, edges in pages, within the size alone. */
void sim_model_clear(struct sim_model *m, struct sim_file *f, uint64_t pos, uint64_t len,
		     bool punch)
{
	struct sim_version *v = add_version(m, f);
	uint64_t from = slu_round_up(pos, SLU_BLOCK_SIZE);
	uint64_t to = slu_round_down(pos + len, SLU_BLOCK_SIZE);

	set_bytes(m, v, pos, slu_min(pos + len, SIM_MAX_SIZE), NULL);
	if (from < to)
		add_event(m, f, punch ? SIM_EVENT_PUNCH : SIM_EVENT_ZERO, from, to);
	/* Where nothing was in blocks no record changes, so none is promised by an fsync. */
}

void sim_model_resize(struct sim_model *m, struct sim_file *f, uint64_t size)
{
	struct sim_version *v = add_version(m, f);
	uint64_t from = slu_min(size, v->size);

	set_bytes(m, v, from, SIM_MAX_SIZE, NULL);
	v->size = size;
	add_event(m, f, SIM_EVENT_SIZE, from, UINT64_MAX);
	f->last_op = m->op;
}

/* ------------------------------------------------------------------ promises */

static void add_promise(struct sim_model *m, struct sim_file *f, unsigned int with, size_t record)
{
	ADD_ONE(f->promises, f->npromises);
	f->promises[f->npromises - 1] =
		(struct sim_promise){.op = m->op, .with = with, .record = record};
}

void sim_model_promise_names(struct sim_model *m, unsigned int op, size_t record)
{
	ADD_ONE(m->promises, m->npromises);
	m->promises[m->npromises - 1] = (struct sim_promise){.op = op, .record = record};
}

void sim_model_promise(struct sim_model *m, struct sim_file *f, size_t record)
{
	add_promise(m, f, 0, record);
	sim_model_promise_names(m, f->last_op, record);
}

void sim_model_promise_all(struct sim_model *m, size_t record)
{
	for (unsigned int i = 0; i < m->nfiles; i++)
		add_promise(m, m->files[i], 0, record);
	sim_model_promise_names(m, m->op, record);
}

void sim_model_promise_with(struct sim_model *m, struct sim_file *f)
{
	add_promise(m, f, m->op, SIZE_MAX);
}
