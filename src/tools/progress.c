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

void slu_progress_start_at(struct slu_progress *p, FILE *out, bool terminal, const char *title,
			   uint64_t now_ns)
{
	*p = (struct slu_progress){.out = out,
				   .terminal = terminal,
				   .title = title,
				   .start_ns = now_ns,
				   .last_ns = now_ns};
}

void slu_progress_start(struct slu_progress *p, FILE *out, const char *title)
{
	slu_progress_start_at(p, out, isatty(fileno(out)), title, slu_clock_ns());
}

static void progress_draw_bar(struct slu_progress *p, unsigned int percent)
{
	char bar[PROGRESS_WIDTH + 1];
	unsigned int full = percent * PROGRESS_WIDTH / 100;

	memset(bar, '#', full);
	memset(bar + full, '.', PROGRESS_WIDTH - full);
	bar[PROGRESS_WIDTH] = 0;
	fprintf(p->out, "\r%s [%s] %3u %%", p->title, bar, percent);
	fflush(p->out);
	p->shown = true;
}

void slu_progress_update_at(struct slu_progress *p, uint64_t done, uint64_t total, uint64_t now_ns)
{
	uint64_t since = now_ns - p->last_ns;
	unsigned int percent;

	if (p->terminal) {
		if (now_ns - p->start_ns < PROGRESS_QUIET_NS ||
		    (p->shown && since < PROGRESS_REDRAW_NS))
			return;
	} else if (since < PROGRESS_LINE_NS) {
		return;
	}
	p->last_ns = now_ns;
	/* On a damaged volume more may be done than there should be. */
	percent = total == 0 || done >= total ? 100
					      : (unsigned int)((double)done * 100 / (double)total);
	if (p->terminal) {
		progress_draw_bar(p, percent);
	} else {
		fprintf(p->out, "%s: %u %%\n", p->title, percent);
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
