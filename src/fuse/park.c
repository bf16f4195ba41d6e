/* SPDX-License-Identifier: MIT */
/*
 * park: where work waits that must not keep a request worker.
 *
 * Owns the queue of parked items and the threads that run them. Called by the workers (submit) and
 * by the session's start and end. Takes one leaf lock, never while an item runs. Must never drop an
 * item: what was submitted is run, also when the session ends.
 *
 * Items are run first come, first served, so a stream of long ones cannot starve a short one.
 * Threads are started when an item finds none idle, up to the limit, and stay: a file server whose
 * clients call fsync needs as many as there are fsyncs to share one commit.
 */
#include "fuse_private.h"

static struct park_item *take(struct park *p)
{
	struct park_item *item = p->head;

	p->head = item->next;
	if (!p->head)
		p->tail = &p->head;
	p->nqueued--;
	return item;
}

static void park_thread(void *arg)
{
	struct park *p = arg;

	slu_mutex_lock(&p->lock);
	for (;;) {
		struct park_item *item;
		size_t bytes;

		if (!p->head) {
			if (p->stopping)
				break;
			p->nidle++;
			slu_cond_wait(&p->work, &p->lock);
			p->nidle--;
			continue;
		}
		item = take(p);
		bytes = item->bytes;
		slu_mutex_unlock(&p->lock);
		item->run(item); /* the item is gone */
		slu_mutex_lock(&p->lock);
		p->nitems--;
		p->bytes -= bytes;
		slu_cond_broadcast(&p->room);
	}
	slu_mutex_unlock(&p->lock);
}

/* Lock held. A thread that cannot be started is no harm: there is one, and it comes round. */
static int add_thread(struct park *p) SLU_REQUIRES(p->lock)
{
	int err = slu_thread_start(&p->threads[p->nthreads], "slu-park", park_thread, p);

	if (!err)
		p->nthreads++;
	return err;
}

int park_init(struct park *p, const struct park_limits *limits)
{
	int err = -ENOMEM;

	*p = (struct park){.limits = *limits};
	p->tail = &p->head;
	slu_mutex_init(&p->lock, SLU_RANK_LEAF, 0, "park");
	slu_cond_init(&p->work);
	slu_cond_init(&p->room);
	p->threads = slu_calloc(limits->max_threads, sizeof(*p->threads));
	if (!p->threads)
		goto fini;
	slu_mutex_lock(&p->lock);
	err = add_thread(p);
	slu_mutex_unlock(&p->lock);
	if (!err)
		return 0;
	slu_free(p->threads);
fini:
	slu_cond_fini(&p->room);
	slu_cond_fini(&p->work);
	slu_mutex_fini(&p->lock);
	return err;
}

static bool has_room(const struct park *p, size_t bytes)
{
	size_t max_bytes = p->held ? p->limits.max_bytes_held : p->limits.max_bytes;

	return !p->nitems || (p->nitems < p->limits.max_items && p->bytes + bytes <= max_bytes);
}

bool park_submit(struct park *p, struct park_item *item)
{
	bool waited = false;

	slu_assert_no_locks("park");
	item->next = NULL;
	slu_mutex_lock(&p->lock);
	while (!has_room(p, item->bytes)) {
		waited = true;
		slu_cond_wait(&p->room, &p->lock);
	}
	*p->tail = item;
	p->tail = &item->next;
	p->nitems++;
	p->nqueued++;
	p->bytes += item->bytes;
	if (p->nqueued > p->nidle && p->nthreads < p->limits.max_threads)
		(void)add_thread(p);
	slu_cond_signal(&p->work);
	slu_mutex_unlock(&p->lock);
	return waited;
}

void park_hold(struct park *p, bool held)
{
	slu_mutex_lock(&p->lock);
	p->held = held;
	slu_cond_broadcast(&p->room);
	slu_mutex_unlock(&p->lock);
}

void park_fini(struct park *p)
{
	unsigned int n;

	slu_mutex_lock(&p->lock);
	p->stopping = true;
	n = p->nthreads;
	slu_cond_broadcast(&p->work);
	slu_mutex_unlock(&p->lock);
	for (unsigned int i = 0; i < n; i++)
		slu_thread_join(&p->threads[i]);
	slu_assert(!p->head && !p->nitems && !p->bytes);
	slu_free(p->threads);
	slu_cond_fini(&p->room);
	slu_cond_fini(&p->work);
	slu_mutex_fini(&p->lock);
}
