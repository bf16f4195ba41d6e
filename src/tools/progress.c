/* SPDX-License-Identifier: MIT */
/*
 * The progress bar of mkfs and fsck. One thread, no locks. Writes to `out` only what the header
 * promises: a terminal gets one line that is redrawn and taken away again, anything else a line
 * every 10 s.
 */
#include "tools_private.h"
#include <string.h>
#include <unistd.h>

#define PROGRESS_QUIET_NS  (1 * SLU_NS_PER_SEC)
#define PROGRESS_REDRAW_NS (100 * SLU_NS_PER_MS)
#define PROGRESS_LINE_NS   (10 * SLU_NS_PER_SEC)
#define PROGRESS_WIDTH     40

void slu_progress_start_at(struct slu_progress *p, FILE *out, bool terminal, const char *phase,
			   uint64_t now_ns)
{
	*p = (struct slu_progress){.out = out,
				   .terminal = terminal,
				   .phase = phase,
				   .to = 100,
				   .start_ns = now_ns,
				   .last_ns = now_ns};
}

void slu_progress_start(struct slu_progress *p, FILE *out, const char *phase)
{
	slu_progress_start_at(p, out, isatty(fileno(out)), phase, slu_clock_ns());
}

void slu_progress_phase(struct slu_progress *p, const char *phase, unsigned int from,
			unsigned int to)
{
	p->phase = phase;
	p->from = from;
	p->to = to;
}

static void progress_draw_bar(struct slu_progress *p)
{
	char bar[PROGRESS_WIDTH + 1];
	unsigned int full = p->percent * PROGRESS_WIDTH / 100;

	memset(bar, '#', full);
	memset(bar + full, '.', PROGRESS_WIDTH - full);
	bar[PROGRESS_WIDTH] = 0;
	/* The name of the phase before may have been longer. */
	fprintf(p->out, "\r[%s] %3u %% %s\033[K", bar, p->percent, p->phase);
	fflush(p->out);
	p->shown = true;
}

/* On a damaged volume more may be done than there should be. */
static void progress_reach(struct slu_progress *p, uint64_t done, uint64_t total)
{
	double part = total == 0 || done >= total ? 1 : (double)done / (double)total;
	unsigned int percent = p->from + (unsigned int)(part * (p->to - p->from));

	p->percent = slu_max(p->percent, percent);
}

void slu_progress_update_at(struct slu_progress *p, uint64_t done, uint64_t total, uint64_t now_ns)
{
	uint64_t since = now_ns - p->last_ns;

	progress_reach(p, done, total);
	if (p->terminal) {
		if (now_ns - p->start_ns < PROGRESS_QUIET_NS ||
		    (p->shown && since < PROGRESS_REDRAW_NS))
			return;
	} else if (since < PROGRESS_LINE_NS) {
		return;
	}
	p->last_ns = now_ns;
	if (p->terminal) {
		progress_draw_bar(p);
	} else {
		fprintf(p->out, "%s: %u %%\n", p->phase, p->percent);
		fflush(p->out);
	}
}

void slu_progress_update(struct slu_progress *p, uint64_t done, uint64_t total)
{
	slu_progress_update_at(p, done, total, slu_clock_ns());
}

void slu_progress_clear(struct slu_progress *p)
{
	if (!p->shown)
		return;
	fprintf(p->out, "\r\033[K");
	fflush(p->out);
	p->shown = false;
}
