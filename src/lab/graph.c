/* SPDX-License-Identifier: MIT */
/*
 * The wait-for graph: writer → page that it waits for → writer that has locked that.
 *
 * A writer waits at one place only: in a fault on a window, which the handler cannot answer while
 * the page is locked. It is looked at each time that the handler meets such a page, so the wait
 * that closes a cycle finds it: all others in it are asleep already and stay so.
 *
 * Everything under lab->lock.
 */
#include "lab_private.h"

bool graph_hold(struct lab_thread *t, uint32_t file, uint32_t page)
{
	struct slu_lab *lab = t->lab;
	bool first;

	pthread_mutex_lock(&lab->lock);
	first = !graph_holder(lab, file, page);
	if (first) {
		slu_assert(t->s.nholds < SLU_LAB_MAX_PAGES);
		t->s.holds[t->s.nholds++] =
			(struct lab_hold){.file = file, .page = page, .step = ++lab->step};
	}
	pthread_mutex_unlock(&lab->lock);
	return first;
}

void graph_release_all(struct lab_thread *t)
{
	pthread_mutex_lock(&t->lab->lock);
	t->s.nholds = 0;
	pthread_mutex_unlock(&t->lab->lock);
}

struct lab_thread *graph_holder(struct slu_lab *lab, uint32_t file, uint32_t page)
{
	for (uint32_t i = 0; i < lab->nthreads; i++) {
		struct lab_thread *t = &lab->threads[i];

		for (uint32_t j = 0; j < t->s.nholds; j++)
			if (t->s.holds[j].file == file && t->s.holds[j].page == page)
				return t;
	}
	return NULL;
}

static void record(struct slu_lab *lab, struct lab_thread *first)
{
	struct lab_thread *t = first;

	lab->ncycle = 0;
	do {
		struct lab_thread *holder = graph_holder(lab, t->s.want_file, t->s.want_page);

		lab->in_cycle[lab->ncycle] = t->s;
		lab->cycle[lab->ncycle++] = (struct slu_lab_link){.writer = t->id,
								  .file = t->s.want_file,
								  .page = t->s.want_page,
								  .holder = holder->id};
		t = holder;
	} while (t != first);
}

bool graph_wait(struct lab_thread *t, uint32_t file, uint32_t page)
{
	struct slu_lab *lab = t->lab;
	struct lab_thread *at = t;

	t->s.faulting = true;
	t->s.want_file = file;
	t->s.want_page = page;
	/* Longer than there are threads: a cycle, but not one that t is in. */
	for (uint32_t i = 0; i <= lab->nthreads; i++) {
		at = graph_holder(lab, at->s.want_file, at->s.want_page);
		if (!at || (at != t && !at->s.faulting))
			return false;
		if (at == t) {
			record(lab, t);
			return true;
		}
	}
	return false;
}

uint32_t slu_lab_cycle(const struct slu_lab *lab, struct slu_lab_link *links, uint32_t max)
{
	for (uint32_t i = 0; i < slu_min(max, lab->ncycle); i++)
		links[i] = lab->cycle[i];
	return lab->ncycle;
}

/* ------------------------------------------------------------------ drawing */

static void draw_writer(const struct lab_state *t, FILE *out)
{
	const struct slu_lab_write *w = &t->write;

	fprintf(out, "  writer %u (thread %d), its write number %u: ", t->id + 1, (int)t->tid,
		t->nwrite);
	fprintf(out, "%llu bytes to byte %llu of file %u\n",
		(unsigned long long)(w->len[0] + w->len[1]), (unsigned long long)w->pos, t->id + 1);
	for (uint32_t i = 0; i < t->nholds; i++)
		fprintf(out, "    holds      page %u of file %u, locked since step %llu\n",
			t->holds[i].page, t->holds[i].file + 1,
			(unsigned long long)t->holds[i].step);
	fprintf(out, "    waits for  page %u of file %u, which its source shows: a page fault\n",
		t->want_page, t->want_file + 1);
	fprintf(out, "    in         ");
	stack_print(out, t->stack, t->nstack);
	fprintf(out, " > (page fault)\n");
}

static void draw_alone(const struct slu_lab_link *l, FILE *out)
{
	fprintf(out, "  writer %u ── waits for ──▶ page %u of file %u\n", l->writer + 1, l->page,
		l->file + 1);
	fprintf(out, "     ▲                          │\n");
	fprintf(out, "     └──────── held by ─────────┘\n");
}

void slu_lab_draw(const struct slu_lab *lab, FILE *out)
{
	if (!lab->ncycle) {
		fprintf(out, "no deadlock\n");
		return;
	}
	if (lab->ncycle == 1)
		fprintf(out, "deadlock: a writer waits for a page that it has locked itself\n\n");
	else
		fprintf(out, "deadlock: %u writers wait for each other\n\n", lab->ncycle);
	for (uint32_t i = 0; i < lab->ncycle; i++)
		draw_writer(&lab->in_cycle[i], out);
	fprintf(out, "\n");
	if (lab->ncycle == 1) {
		draw_alone(&lab->cycle[0], out);
		return;
	}
	for (uint32_t i = 0; i < lab->ncycle; i++) {
		const struct slu_lab_link *l = &lab->cycle[i];
		const char *side = i == 0 ? "┌▶" : i + 1 == lab->ncycle ? "└─" : "│ ";

		fprintf(out,
			"  %s writer %u ── waits for ──▶ page %u of file %u ── held by ──▶ writer "
			"%u%s\n",
			side, l->writer + 1, l->page, l->file + 1, l->holder + 1,
			i + 1 == lab->ncycle ? " ─ and so on" : "");
	}
}
