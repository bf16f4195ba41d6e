/* SPDX-License-Identifier: MIT */
/*
 * What the model allows after a power cut.
 *
 * There is one tree and it is committed in order, so what is found must be the names and layouts
 * as they were after some operation j of each thread, in an order in which they may have happened:
 * at least the last one promised, at most the last one begun. Data gets to blocks in its own order:
 * a sector may have any content that it had since it was last promised, but none from before an
 * operation up to j that took its place away, and none from after a later one. The size lies between
 * what it was and what writes made of it.
 */
#include "sim.h"

#define SECTOR 512u

struct limits {
	const struct sim_model *m;
	size_t record;
	struct sim_at lo, hi; /* operations: promised, begun */
	struct sim_at j;      /* the ones that are tried */
	struct sim_at next;   /* the next ones in the order, which may have happened in part */
	struct sim_text *complaint;
};

static void find_limits(struct limits *l)
{
	const struct sim_model *m = l->m;

	for (unsigned int t = 0; t < SIM_NTHREADS; t++) {
		for (unsigned int i = 0; i < m->npromises; i++)
			if (m->promises[i].record <= l->record)
				l->lo.n[t] = slu_max(l->lo.n[t], m->promises[i].at.n[t]);
		while (l->hi.n[t] < m->nops[t] && m->ops[t][l->hi.n[t] + 1].begin <= l->record)
			l->hi.n[t]++;
	}
}

static unsigned int promised(const struct limits *l, const struct sim_file *f)
{
	unsigned int op = 0;

	for (unsigned int i = 0; i < f->npromises; i++) {
		const struct sim_promise *p = &f->promises[i];

		if (p->record <= l->record || (p->with && p->with <= l->j.n[p->with_thread]))
			/* a rename shows what was written before it */
			op = slu_max(op, p->op);
	}
	return op;
}

/* The version in force after an operation. */
static unsigned int version_at(const struct sim_file *f, unsigned int op)
{
	unsigned int i = 0;

	while (i + 1 < f->nversions && f->versions[i + 1].op <= op)
		i++;
	return i;
}

/* ------------------------------------------------------------------ the size */

static bool size_allowed(const struct limits *l, const struct sim_file *f, uint64_t size)
{
	unsigned int first = promised(l, f), last = l->hi.n[f->owner];
	uint64_t least, most = 0;

	for (unsigned int i = 0; i < f->nevents; i++) {
		if (f->events[i].kind != SIM_EVENT_SIZE)
			continue;
		if (f->events[i].op <= l->j.n[f->owner])
			first = slu_max(first, f->events[i].op);
		else
			last = slu_min(last, f->events[i].op - 1);
	}
	unsigned int v = version_at(f, first);
	least = f->versions[v].size;
	do {
		most = slu_max(most, f->versions[v].size);
	} while (++v < f->nversions && f->versions[v].op <= last);
	if (size >= least && size <= most)
		return true;
	sim_text_add(l->complaint, "inode %lu: size %lu is not within %lu to %lu\n", f->ino, size,
		     least, most);
	return false;
}

/* ------------------------------------------------------------------ bytes */

struct span {
	unsigned int first, last; /* operations */
};

/* Which operations may have given the bytes [pos, end) their values; false: not the same for all. */
static bool span_of(const struct limits *l, const struct sim_file *f, unsigned int since,
		    uint64_t pos, uint64_t end, struct span *ret)
{
	*ret = (struct span){since, l->hi.n[f->owner]};
	for (unsigned int i = 0; i < f->nevents; i++) {
		const struct sim_event *e = &f->events[i];

		if (e->from >= end || e->end <= pos)
			continue;
		if (e->from > pos || e->end < end)
			return false;
		if (e->op <= l->j.n[f->owner])
			ret->first = slu_max(ret->first, e->op);
		else if (e->op <= since)
			continue; /* promised; a hole that was punched again is in no tree */
		else if (e->kind == SIM_EVENT_SIZE ||
			 (e->kind == SIM_EVENT_PUNCH && e->op != l->next.n[f->owner]))
			ret->last = slu_min(ret->last, e->op - 1);
		/*
		 * A range that was made zeros keeps its blocks, so new data may be in them already.
		 * fallocate is not one batch: the one that came next may have happened in part.
		 */
	}
	return true;
}

static bool bytes_are(const struct sim_version *v, uint64_t pos, uint64_t end, const uint8_t *data)
{
	static const uint8_t zeros[SLU_BLOCK_SIZE];
	const uint8_t *page = v->page[pos / SLU_BLOCK_SIZE];

	return v->size >= end &&
	       !memcmp(page ? page + pos % SLU_BLOCK_SIZE : zeros, data, end - pos);
}

/* All bytes from one version. */
static bool some_version_has(const struct sim_file *f, const struct span *s, uint64_t pos,
			     uint64_t end, const uint8_t *data)
{
	unsigned int oldest = version_at(f, s->first);

	for (unsigned int v = version_at(f, s->last); v + 1 > oldest; v--) {
		if (bytes_are(&f->versions[v], pos, end, data))
			return true;
		if (v == 0)
			break;
	}
	return false;
}

static void explain(const struct limits *l, const struct sim_file *f, const struct span *s,
		    uint64_t pos, uint8_t found)
{
	sim_text_add(l->complaint,
		     "inode %lu: byte %lu is %#x; of operations %u to %u, with names as of %u, it "
		     "could be:",
		     f->ino, pos, found, s->first, s->last, l->j.n[f->owner]);
	for (unsigned int v = version_at(f, s->first);
	     v < f->nversions && (f->versions[v].op <= s->last || v == version_at(f, s->first));
	     v++) {
		const uint8_t *page = f->versions[v].page[pos / SLU_BLOCK_SIZE];

		if (f->versions[v].size > pos)
			sim_text_add(l->complaint, " %#x (%u)",
				     page ? page[pos % SLU_BLOCK_SIZE] : 0, f->versions[v].op);
	}
	sim_text_add(l->complaint, "\n");
}

/* Where an event begins or ends next after pos; end: none before it does. */
static uint64_t next_edge(const struct sim_file *f, uint64_t pos, uint64_t end)
{
	for (unsigned int i = 0; i < f->nevents; i++) {
		const struct sim_event *e = &f->events[i];

		if (e->from > pos)
			end = slu_min(end, e->from);
		if (e->end > pos)
			end = slu_min(end, e->end);
	}
	return end;
}

static void explain_part(const struct limits *l, const struct sim_file *f, const struct span *s,
			 uint64_t pos, uint64_t end, const uint8_t *data)
{
	for (uint64_t at = pos; at < end; at++) {
		if (some_version_has(f, s, at, at + 1, data + (at - pos)))
			continue;
		explain(l, f, s, at, data[at - pos]);
		return;
	}
	sim_text_add(
		l->complaint,
		"inode %lu: bytes %lu to %lu are of several of operations %u to %u, with names "
		"as of %u\n",
		f->ino, pos, end, s->first, s->last, l->j.n[f->owner]);
}

/*
 * Each sector is the page's as it was in memory at some time, and so all of one version; where an
 * event begins or ends in it, each part of it.
 */
static bool sectors_allowed(const struct limits *l, const struct sim_file *f, unsigned int since,
			    uint64_t pos, uint64_t end, const uint8_t *data)
{
	struct span s;

	for (uint64_t at = pos, to; at < end; at = to) {
		to = slu_min(slu_round_down(at, SECTOR) + SECTOR, end);
		to = next_edge(f, at, to);
		slu_assert(span_of(l, f, since, at, to, &s));
		if (some_version_has(f, &s, at, to, data + (at - pos)))
			continue;
		explain_part(l, f, &s, at, to, data + (at - pos));
		return false;
	}
	return true;
}

static bool page_allowed(const struct limits *l, const struct sim_file *f, unsigned int since,
			 uint64_t pos, uint64_t end, const uint8_t *data)
{
	struct span s;

	return (span_of(l, f, since, pos, end, &s) && some_version_has(f, &s, pos, end, data)) ||
	       sectors_allowed(l, f, since, pos, end, data);
}

static bool file_allowed(const struct limits *l, const struct sim_found *found)
{
	const struct sim_file *f = sim_model_file(l->m, found->ino);

	if (!size_allowed(l, f, found->size))
		return false;
	for (uint64_t pos = 0; pos < found->size; pos += SLU_BLOCK_SIZE) {
		uint64_t end = slu_min(pos + SLU_BLOCK_SIZE, found->size);
		const struct sim_file *of = sim_file_of_page(f, pos / SLU_BLOCK_SIZE);

		if (!page_allowed(l, of, promised(l, of), pos, end, found->data + pos))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------ all of it */

static bool files_allowed(const struct limits *l, const struct sim_found *files,
			  unsigned int nfiles)
{
	for (unsigned int i = 0; i < nfiles; i++)
		if (!file_allowed(l, &files[i]))
			return false;
	return true;
}

/* Whether the names may have been so: all that was promised is there, and nothing not yet begun. */
static bool in_limits(struct limits *l, const struct sim_state *state)
{
	l->j = state->at;
	for (unsigned int t = 0; t < SIM_NTHREADS; t++) {
		l->next.n[t] = sim_model_next(l->m, t, l->j.n[t]);
		if (l->next.n[t] <= l->lo.n[t] || l->j.n[t] > l->hi.n[t])
			return false;
	}
	return true;
}

static void explain_names(const struct limits *l, const char *tree)
{
	const struct sim_model *m = l->m;

	sim_text_add(
		l->complaint,
		"the names are as after no operation from %u, %u (promised) to %u, %u (begun, of "
		"both threads); found:\n%s",
		l->lo.n[0], l->lo.n[1], l->hi.n[0], l->hi.n[1], tree);
	for (unsigned int i = 0, shown = 0; i < m->nstates && shown < 8; i++) {
		struct limits one = *l;

		if (!in_limits(&one, &m->states[i]))
			continue;
		sim_text_add(l->complaint, "after operation %u, %u:\n%s", one.j.n[0], one.j.n[1],
			     m->states[i].text);
		shown++;
	}
}

bool sim_model_allows(const struct sim_model *m, size_t record, const char *tree,
		      const struct sim_found *files, unsigned int nfiles,
		      struct sim_text *complaint)
{
	struct limits l = {.m = m, .record = record, .complaint = complaint};
	size_t before = complaint->len;
	bool found = false;

	find_limits(&l);
	for (unsigned int i = m->nstates; i-- > 0;) {
		if (!in_limits(&l, &m->states[i]) || strcmp(tree, m->states[i].text) != 0)
			continue;
		found = true;
		if (!files_allowed(&l, files, nfiles))
			continue;
		complaint->len = before; /* of other places in the order, which it was not */
		if (complaint->s)
			complaint->s[before] = 0;
		return true;
	}
	if (!found)
		explain_names(&l, tree);
	return false;
}
