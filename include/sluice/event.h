/* SPDX-License-Identifier: MIT */
/*
 * Events: what an administrator must hear of, posted from any layer under any lock. A sink must not
 * block and takes leaf locks at most. Layers below `fuse` never log; they post.
 *
 * A stream is the sink that hands every event to whoever watches. Each watcher has a ring of its
 * own, with slots kept back for the events that must not be lost, so one that does not read costs
 * nobody anything and learns, when it does read, how much it has missed and where. The stream keeps
 * the newest ones for watchers who come later.
 */
#ifndef SLUICE_EVENT_H
#define SLUICE_EVENT_H

#include "sluice/ring.h"

enum slu_event_kind {
	/* ino, pos, len, error: data could not be written; kept and retried */
	SLU_EVENT_WRITEBACK_ERROR,
	SLU_EVENT_DATA_LOST,     /* ino, pos, len, error: given up at unmount */
	SLU_EVENT_COMMIT_FAILED, /* error: changes could not be committed; kept and retried */
	/* ino 0: the node in block `pos` is damaged. Else: a record of ino is (text); pos: where, if known */
	SLU_EVENT_NODE_CORRUPT,
	SLU_EVENT_READONLY,      /* error: the volume has turned read-only; text says why */
	SLU_EVENT_NO_SPACE,      /* the volume, or the host under it, is full */
	SLU_EVENT_SLOW_COMMIT,   /* len = nanoseconds */
	SLU_EVENT_FALLBACK,      /* mounted on the older superblock */
	SLU_EVENT_READ_ERROR,    /* ino, pos, len, error: data could not be read */
	SLU_EVENT_SUPER_CORRUPT, /* pos: the superblock in that block is damaged: text */
	SLU_EVENT_SCRUB_STARTED, /* len = about how many nodes */
	SLU_EVENT_SCRUB_FINISHED, /* len = nodes read, pos = damaged; error: 0, or why it is not whole */
	SLU_EVENT_FROZEN,         /* len = the time limit, nanoseconds */
	SLU_EVENT_THAWED,         /* len = nanoseconds; error -ETIMEDOUT: by its time limit */
	SLU_EVENT_GROWN,          /* the volume is longer: from pos bytes to len */
	SLU_EVENT_MOUNTED,        /* text = the image; pos: 1 if it can only be read, or 0 */
	SLU_EVENT_KINDS,          /* how many there are */
};
/* "writeback-error", …: how kinds are called in streams and metrics. */
const char *slu_event_kind_name(enum slu_event_kind kind);
/* What must reach everybody who listens: something is lost, or the volume has turned read-only. */
bool slu_event_is_critical(enum slu_event_kind kind);

struct slu_event {
	enum slu_event_kind kind;
	int error; /* negative errno or 0 */
	uint64_t ino, pos, len;
	const char *text; /* lives as long as the stream, or NULL */

	/* the stream's */
	uint64_t seq;         /* 1, 2, … in the order of the stream */
	struct timespec when; /* wall clock */
};

struct slu_event_sink {
	void (*post)(void *ctx, const struct slu_event *ev); /* NULL: nobody listens */
	void *ctx;
};

static inline void slu_event_post(const struct slu_event_sink *sink, const struct slu_event *ev)
{
	if (sink && sink->post)
		sink->post(sink->ctx, ev);
}

/* ------------------------------------------------------------------ streams */

struct slu_event_watch {
	struct slu_event_watch *next;
	struct slu_ring ring; /* of struct slu_event; for its watcher to take from */
};

#define SLU_EVENTS_KEPT 128u

struct slu_event_stream {
	struct slu_mutex lock; /* leaf: everything below */
	struct slu_event_watch *watches;
	uint64_t seq;
	struct slu_event kept[SLU_EVENTS_KEPT]; /* the newest; event n at n % SLU_EVENTS_KEPT */
	_Atomic uint64_t nwatches;
	_Atomic uint64_t lost; /* events that found no room in a watcher's ring */
	_Atomic uint64_t
		counts[SLU_EVENT_KINDS]; /* posted so far, whether or not somebody watched */
};

void slu_event_stream_init(struct slu_event_stream *s);
/* Nobody watches, or posts, any more. */
void slu_event_stream_fini(struct slu_event_stream *s);
/*
 * The newest event of those that are kept and wanted (NULL: any); false: there is none. wanted is
 * called under the stream's lock.
 */
bool slu_event_stream_last(struct slu_event_stream *s, bool (*wanted)(const struct slu_event *ev),
			   struct slu_event *ret);
struct slu_event_sink slu_event_stream_sink(struct slu_event_stream *s);

/*
 * nslots: a power of two; a quarter of them is kept back for critical events. The ring begins with
 * the newest `last` events of the past, or as many as are kept. wake: called under leaf locks when
 * the ring stops being empty; must not block. -ENOMEM.
 */
int slu_event_watch_add(struct slu_event_stream *s, struct slu_event_watch *w, uint32_t nslots,
			uint64_t last, void (*wake)(void *ctx), void *ctx);
/* wake is not called any more once this has returned. */
void slu_event_watch_remove(struct slu_event_stream *s, struct slu_event_watch *w);

#endif
