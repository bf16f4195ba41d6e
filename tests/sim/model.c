/* SPDX-License-Identifier: MIT */
/*
 * The model: what a workload has done, in which order, and what it was promised.
 *
 * Operations of one thread happened in its order, and one that had ended before another began comes
 * before it; the rest is free. So where they have got to is a count for each thread, a step from
 * there is the next operation of one of them, and every way from nothing to all that never overtakes
 * what had ended is an order in which it may have been. A step that cannot be taken, for what the
 * operation has returned, is on none of these ways. With one thread there is one way.
 */
#include "sim.h"
#include <limits.h>

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
	sim_tree_add_node(&m->base, SLU_INO_ROOT, S_IFDIR | 0755);
}

void sim_model_fini(struct sim_model *m)
{
	for (unsigned int i = 0; i < m->nstates; i++)
		free(m->states[i].text);
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
	free(m->states);
	memset(m, 0, sizeof(*m));
}

/* ------------------------------------------------------------------ operations */

static unsigned int ended(const struct sim_model *m, unsigned int thread)
{
	unsigned int n = m->nops[thread];

	return n && !m->ops[thread][n].ended ? n - 1 : n;
}

void sim_model_begin(struct sim_model *m, unsigned int thread, size_t record, bool on_names)
{
	struct sim_did *did = &m->ops[thread][m->nops[thread] + 1];

	slu_assert(m->nops[thread] + 1 < slu_array_size(m->ops[thread]));
	*did = (struct sim_did){.begin = record, .on_names = on_names};
	for (unsigned int t = 0; t < SIM_NTHREADS; t++)
		did->before.n[t] = ended(m, t);
	m->nops[thread]++;
}

void sim_model_end(struct sim_model *m, unsigned int thread)
{
	m->ops[thread][m->nops[thread]].ended = true;
}

void sim_model_effect(struct sim_model *m, unsigned int thread, const struct sim_effect *e)
{
	struct sim_did *did = &m->ops[thread][m->nops[thread]];

	if (!m->nops[thread]) {
		slu_assert(sim_effect_apply(&m->base, e));
		sim_tree_prune(&m->base);
		return;
	}
	did->effect = *e;
	did->ordered = true;
}

struct sim_at sim_model_known(const struct sim_model *m, unsigned int thread)
{
	struct sim_at at = m->ops[thread][m->nops[thread]].before;

	at.n[thread] = m->nops[thread];
	return at;
}

bool sim_model_alone(const struct sim_model *m, unsigned int thread)
{
	const struct sim_at *before = &m->ops[thread][m->nops[thread]].before;

	for (unsigned int t = 0; t < SIM_NTHREADS; t++)
		for (unsigned int i = before->n[t] + 1; i <= m->nops[t]; i++)
			if (t != thread && m->ops[t][i].on_names)
				return false;
	return true;
}

unsigned int sim_model_next(const struct sim_model *m, unsigned int thread, unsigned int op)
{
	while (++op <= m->nops[thread])
		if (m->ops[thread][op].ordered)
			return op;
	return UINT_MAX;
}

/* ------------------------------------------------------------------ orders */

/* Whether these and no others may have happened: nothing of it overtakes what had ended before. */
static bool may_be(const struct sim_model *m, const struct sim_at *at)
{
	for (unsigned int t = 0; t < SIM_NTHREADS; t++)
		for (unsigned int u = 0; u < SIM_NTHREADS; u++)
			if (sim_model_next(m, u, at->n[u]) <= m->ops[t][at->n[t]].before.n[u])
				return false;
	return true;
}

static void add_state(struct sim_model *m, const struct sim_at *at, const struct sim_tree *tree)
{
	char *text = print_tree(tree);

	for (unsigned int i = m->nstates; i-- > 0;) {
		if (memcmp(&m->states[i].at, at, sizeof(*at)) != 0)
			break;
		if (strcmp(m->states[i].text, text) != 0)
			continue;
		free(text);
		return;
	}
	ADD_ONE(m->states, m->nstates);
	m->states[m->nstates - 1] = (struct sim_state){.at = *at, .tree = *tree, .text = text};
}

static unsigned int previous(const struct sim_model *m, unsigned int thread, unsigned int op)
{
	do {
		op--;
	} while (op && !m->ops[thread][op].ordered);
	return op;
}

/* The states at `at` that the last operation of a thread leads to. */
static void step(struct sim_model *m, const struct sim_at *at, unsigned int thread)
{
	struct sim_at from = *at;

	if (!at->n[thread])
		return;
	from.n[thread] = previous(m, thread, at->n[thread]);
	for (unsigned int i = 0, n = m->nstates; i < n; i++) {
		struct sim_tree tree;

		if (memcmp(&m->states[i].at, &from, sizeof(from)) != 0)
			continue;
		tree = m->states[i].tree;
		if (!sim_effect_apply(&tree, &m->ops[thread][at->n[thread]].effect))
			continue;
		sim_tree_prune(&tree);
		add_state(m, at, &tree);
	}
}

bool sim_model_order(struct sim_model *m, struct sim_text *complaint)
{
	struct sim_at at = {0}, end = {0};

	add_state(m, &at, &m->base);
	for (; at.n[0] != UINT_MAX; at.n[0] = sim_model_next(m, 0, at.n[0])) {
		for (at.n[1] = 0; at.n[1] != UINT_MAX; at.n[1] = sim_model_next(m, 1, at.n[1])) {
			end = at;
			if (!may_be(m, &at))
				continue;
			step(m, &at, 0);
			step(m, &at, 1);
		}
	}
	if (!memcmp(&m->states[m->nstates - 1].at, &end, sizeof(end)))
		return true;
	at = m->states[m->nstates - 1].at;
	sim_text_add(complaint,
		     "no order of the operations explains that all of them worked; one leads to "
		     "operations %u and %u of the two threads and no further:\n%s",
		     at.n[0], at.n[1], m->states[m->nstates - 1].text);
	return false;
}

/* ------------------------------------------------------------------ files */

static struct sim_version *add_version(struct sim_model *m, struct sim_file *f)
{
	/* What came before the recording is history that no cut can show. */
	if (m->nops[f->owner] || !f->nversions) {
		ADD_ONE(f->versions, f->nversions);
		if (f->nversions > 1)
			f->versions[f->nversions - 1] = f->versions[f->nversions - 2];
		else
			f->versions[0] = (struct sim_version){0};
	}
	f->versions[f->nversions - 1].op = m->nops[f->owner];
	return &f->versions[f->nversions - 1];
}

static void add_event(struct sim_model *m, struct sim_file *f, int kind, uint64_t from,
		      uint64_t end)
{
	unsigned int op = m->nops[f->owner];

	if (!op)
		return;
	ADD_ONE(f->events, f->nevents);
	f->events[f->nevents - 1] =
		(struct sim_event){.kind = kind, .op = op, .from = from, .end = end};
	m->ops[f->owner][op].ordered = true;
}

struct sim_file *sim_model_file(const struct sim_model *m, uint64_t ino)
{
	for (unsigned int i = 0; i < m->nfiles; i++)
		if (m->files[i]->ino == ino)
			return m->files[i];
	return NULL;
}

struct sim_file *sim_model_new_file(struct sim_model *m, uint64_t ino, unsigned int owner)
{
	slu_assert(m->nfiles < SIM_MAX_FILES);
	struct sim_file *f = calloc(1, sizeof(*f));

	slu_assert(f);
	f->ino = ino;
	f->owner = owner;
	m->files[m->nfiles++] = f;
	add_version(m, f);
	return f;
}

void sim_model_share(struct sim_model *m, struct sim_file *f)
{
	f->owner = 0;
	f->mate = sim_model_new_file(m, f->ino, 1);
	f->mate->versions[0] = f->versions[0];
}

const struct sim_file *sim_file_of_page(const struct sim_file *f, uint64_t pgidx)
{
	return f->mate && pgidx % 2 ? f->mate : f;
}

void sim_model_touch(struct sim_model *m, unsigned int thread, uint64_t ino)
{
	struct sim_file *f = sim_model_file(m, ino);

	if (!f)
		f = sim_model_new_file(m, ino, thread);
	f->last.n[thread] = m->nops[thread];
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
	f->last.n[f->owner] = m->nops[f->owner];
}

/* ------------------------------------------------------------------ promises */

static void add_promise(struct sim_file *f, const struct sim_promise *p)
{
	ADD_ONE(f->promises, f->npromises);
	f->promises[f->npromises - 1] = *p;
}

static void promise_data(struct sim_file *f, const struct sim_at *known, size_t record)
{
	add_promise(f, &(struct sim_promise){.op = known->n[f->owner], .record = record});
}

void sim_model_promise_names(struct sim_model *m, struct sim_at names, size_t record)
{
	ADD_ONE(m->promises, m->npromises);
	m->promises[m->npromises - 1] = (struct sim_names_promise){.at = names, .record = record};
}

void sim_model_promise(struct sim_model *m, struct sim_file *f, struct sim_at known,
		       struct sim_at names, size_t record)
{
	promise_data(f, &known, record);
	if (f->mate)
		promise_data(f->mate, &known, record);
	sim_model_promise_names(m, names, record);
}

void sim_model_promise_all(struct sim_model *m, struct sim_at known, size_t record)
{
	for (unsigned int i = 0; i < m->nfiles; i++)
		promise_data(m->files[i], &known, record);
	sim_model_promise_names(m, known, record);
}

void sim_model_promise_with(struct sim_model *m, struct sim_file *f, unsigned int thread)
{
	struct sim_at known = sim_model_known(m, thread);

	for (; f; f = f->mate)
		add_promise(f, &(struct sim_promise){.op = known.n[f->owner],
						     .with = m->nops[thread],
						     .with_thread = thread,
						     .record = SIZE_MAX});
}
