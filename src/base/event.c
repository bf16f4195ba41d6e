/* SPDX-License-Identifier: MIT */
/*
 * The stream of events: from one sink to everybody who watches.
 *
 * Posted to from any thread under any lock, so it takes its own leaf and then each watcher's ring's,
 * and copies. Must never wait.
 */
#include "sluice/event.h"

static const char *const names[SLU_EVENT_KINDS] = {
	[SLU_EVENT_WRITEBACK_ERROR] = "writeback-error",
	[SLU_EVENT_DATA_LOST] = "data-lost",
	[SLU_EVENT_COMMIT_FAILED] = "commit-failed",
	[SLU_EVENT_NODE_CORRUPT] = "node-corrupt",
	[SLU_EVENT_READONLY] = "read-only",
	[SLU_EVENT_NO_SPACE] = "no-space",
	[SLU_EVENT_SLOW_COMMIT] = "slow-commit",
	[SLU_EVENT_FALLBACK] = "superblock-fallback",
	[SLU_EVENT_READ_ERROR] = "read-error",
	[SLU_EVENT_GROWN] = "grown",
	[SLU_EVENT_SUPER_CORRUPT] = "superblock-corrupt",
	[SLU_EVENT_SCRUB_STARTED] = "scrub-started",
	[SLU_EVENT_SCRUB_FINISHED] = "scrub-finished",
	[SLU_EVENT_FROZEN] = "frozen",
	[SLU_EVENT_THAWED] = "thawed",
	[SLU_EVENT_MOUNTED] = "mounted",
};

const char *slu_event_kind_name(enum slu_event_kind kind)
{
	return names[kind];
}

bool slu_event_is_critical(enum slu_event_kind kind)
{
	return kind == SLU_EVENT_DATA_LOST || kind == SLU_EVENT_READONLY;
}

void slu_event_stream_init(struct slu_event_stream *s)
{
	*s = (struct slu_event_stream){0};
	slu_mutex_init(&s->lock, SLU_RANK_LEAF, 0, "event stream");
}

void slu_event_stream_fini(struct slu_event_stream *s)
{
	slu_assert(!s->watches);
	slu_mutex_fini(&s->lock);
}

static void hand_to(struct slu_event_stream *s, struct slu_event_watch *w,
		    const struct slu_event *ev)
{
	if (!slu_ring_post(&w->ring, ev, slu_event_is_critical(ev->kind)))
		atomic_fetch_add_explicit(&s->lost, 1, memory_order_relaxed);
}

static void stream_post(void *ctx, const struct slu_event *posted)
{
	struct slu_event_stream *s = ctx;
	struct slu_event ev = *posted;

	slu_assert(ev.kind < SLU_EVENT_KINDS);
	atomic_fetch_add_explicit(&s->counts[ev.kind], 1, memory_order_relaxed);
	ev.when = slu_clock_realtime();
	slu_mutex_lock(&s->lock);
	ev.seq = ++s->seq;
	s->kept[ev.seq % SLU_EVENTS_KEPT] = ev;
	for (struct slu_event_watch *w = s->watches; w; w = w->next)
		hand_to(s, w, &ev);
	slu_mutex_unlock(&s->lock);
}

bool slu_event_stream_last(struct slu_event_stream *s, bool (*wanted)(const struct slu_event *ev),
			   struct slu_event *ret)
{
	bool found = false;

	slu_mutex_lock(&s->lock);
	for (uint64_t seq = s->seq; seq && s->seq - seq < SLU_EVENTS_KEPT && !found; seq--) {
		*ret = s->kept[seq % SLU_EVENTS_KEPT];
		found = !wanted || wanted(ret);
	}
	slu_mutex_unlock(&s->lock);
	return found;
}

struct slu_event_sink slu_event_stream_sink(struct slu_event_stream *s)
{
	return (struct slu_event_sink){.post = stream_post, .ctx = s};
}

int slu_event_watch_add(struct slu_event_stream *s, struct slu_event_watch *w, uint32_t nslots,
			uint64_t last, void (*wake)(void *ctx), void *ctx)
{
	int err = slu_ring_init(&w->ring, nslots, nslots / 4, sizeof(struct slu_event), wake, ctx);

	if (err)
		return err;
	slu_mutex_lock(&s->lock);
	last = slu_min(last, slu_min(s->seq, (uint64_t)SLU_EVENTS_KEPT));
	for (uint64_t seq = s->seq - last + 1; seq <= s->seq; seq++)
		hand_to(s, w, &s->kept[seq % SLU_EVENTS_KEPT]);
	w->next = s->watches;
	s->watches = w;
	atomic_fetch_add_explicit(&s->nwatches, 1, memory_order_relaxed);
	slu_mutex_unlock(&s->lock);
	return 0;
}

void slu_event_watch_remove(struct slu_event_stream *s, struct slu_event_watch *w)
{
	struct slu_event_watch **p;

	slu_mutex_lock(&s->lock);
	for (p = &s->watches; *p != w; p = &(*p)->next)
		slu_assert(*p);
	*p = w->next;
	atomic_fetch_sub_explicit(&s->nwatches, 1, memory_order_relaxed);
	slu_mutex_unlock(&s->lock);
	slu_ring_fini(&w->ring);
}
