/* SPDX-License-Identifier: MIT */
/*
 * Events: what an administrator must hear of, posted from any layer under any lock. A sink must not
 * block and takes leaf locks at most. Layers below `fuse` never log; they post.
 */
#ifndef SLUICE_EVENT_H
#define SLUICE_EVENT_H

#include "sluice/base.h"

enum slu_event_kind {
	/* ino, pos, len, error: data could not be written; kept and retried */
	SLU_EVENT_WRITEBACK_ERROR,
	SLU_EVENT_DATA_LOST,     /* ino, pos, len, error: given up at unmount */
	SLU_EVENT_COMMIT_FAILED, /* error: changes could not be committed; kept and retried */
	/* ino 0: the node in block `pos` is damaged. Else: a record of ino is (text); pos: where, if known */
	SLU_EVENT_NODE_CORRUPT,
	SLU_EVENT_READONLY,    /* error: the volume has turned read-only; text says why */
	SLU_EVENT_NO_SPACE,    /* the volume, or the host under it, is full */
	SLU_EVENT_SLOW_COMMIT, /* len = nanoseconds */
	SLU_EVENT_FALLBACK,    /* mounted on the older superblock */
	SLU_EVENT_READ_ERROR,  /* ino, pos, len, error: data could not be read */
};

struct slu_event {
	enum slu_event_kind kind;
	int error; /* negative errno or 0 */
	uint64_t ino, pos, len;
	const char *text; /* static, or NULL */
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

#endif
