/* SPDX-License-Identifier: MIT */
/*
 * Writers: what they write, the source that they write from, and what is checked of it.
 *
 * A source hands over each byte of a window once. In tail-nofault its copy takes what is there, and
 * fault_in, with no lock held, waits for one page and fetches its bytes into the source's own
 * hands: so each fault_in moves the write on to the next page at least, whatever is dropped
 * meanwhile, and a write needs no more of them than its source touches pages.
 *
 * What is checked: every byte handed over is one that its place in the source's file has had; the
 * file ends up with what was handed over, and with nothing else.
 */
#include "lab_private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ the source */

/* Where the byte at s->at lies: file position, and how many of its piece are left. */
static uint64_t source_place(const struct lab_source *s, uint64_t *ret_left)
{
	const struct slu_lab_write *w = s->w;
	bool second = s->at >= w->len[0];
	uint64_t into = second ? s->at - w->len[0] : s->at;

	*ret_left = w->len[second] - into;
	return w->src[second] + into;
}

/* Bytes have come from the window: they may be there, and go where the write says. */
static void check_delivered(struct lab_source *s, const uint8_t *bytes, size_t n)
{
	struct lab_thread *t = s->thread;
	struct lab_file *src = &t->lab->files[s->w->src_file], *dst = &t->lab->files[t->id];
	uint64_t left, from = source_place(s, &left);

	for (size_t i = 0; i < n; i++) {
		uint64_t to = s->w->pos + s->at + i;

		if (!lab_file_had(src, from + i, bytes[i]))
			lab_complain(t->lab,
				     "writer %u: byte %llu of file %u came as 0x%02x, which it "
				     "never was",
				     t->id + 1, (unsigned long long)(from + i), s->w->src_file + 1,
				     bytes[i]);
		lab_file_will_have(dst, to, bytes[i]);
		dst->shadow[to] = bytes[i];
	}
	s->at += n;
}

static size_t copy_held(struct lab_source *s, uint8_t *dst, size_t len)
{
	size_t n = slu_min((size_t)s->held_len, len);

	if (!n)
		return 0;
	memcpy(dst, s->held + s->held_off, n);
	s->held_off += (uint32_t)n;
	s->held_len -= (uint32_t)n;
	check_delivered(s, dst, n);
	return n;
}

static uint64_t source_left(const struct lab_source *s)
{
	return s->w->len[0] + s->w->len[1] - s->at;
}

static void touched(struct lab_thread *t, size_t n)
{
	pthread_mutex_lock(&t->lab->lock);
	t->lab->stats.touched += n;
	t->s.progress++;
	t->s.touching = LAB_NO_PAGE;
	pthread_mutex_unlock(&t->lab->lock);
}

/*
 * Before a touch that may wait: for the wakeups, and for the drawing. Who holds no page is in no
 * cycle and is not drawn.
 */
static void touching(struct lab_source *s, uint64_t from)
{
	struct lab_thread *t = s->thread;
	void *stack[LAB_STACK];
	int n = 0;

	if (t->lab->opts.policy != SLU_LAB_TAIL_NOFAULT)
		n = stack_take(stack, LAB_STACK, 1);
	pthread_mutex_lock(&t->lab->lock);
	t->s.touching = lab_page_id(s->w->src_file, (uint32_t)(from / LAB_PAGE));
	memcpy(t->s.stack, stack, (size_t)n * sizeof(*stack));
	t->s.nstack = n;
	pthread_mutex_unlock(&t->lab->lock);
}

/*
 * Bytes of one page of the window at most, by a copy that faults if the page is not there. 0 once
 * the lab has been broken off: what came then means nothing.
 */
static size_t copy_page_faulting(struct lab_source *s, uint8_t *dst, size_t len)
{
	struct slu_lab *lab = s->thread->lab;
	uint64_t left, from = source_place(s, &left);
	size_t n = slu_min(slu_min(left, (uint64_t)len), LAB_PAGE - from % LAB_PAGE);

	touching(s, from);
	memcpy(dst, lab->files[s->w->src_file].window + from, n);
	touched(s->thread, n);
	return atomic_load(&lab->broken) ? 0 : n;
}

/*
 * slu_write has locked the tail of this write: the page that it ends in is not uptodate and locked,
 */
static void note_tail(struct lab_source *s)
{
	struct lab_thread *t = s->thread;
	struct slu_lab *lab = t->lab;
	struct slu_aspace *as = &lab->files[t->id].as;
	uint32_t tail = (uint32_t)((s->w->pos + s->w->len[0] + s->w->len[1] - 1) / LAB_PAGE);
	struct slu_page *page = slu_page_find(as, tail);
	const uint32_t is_tail = SLU_PAGE_LOCKED, mask = SLU_PAGE_LOCKED | SLU_PAGE_UPTODATE;

	if (!page)
		return;
	if ((slu_page_state(page) & mask) == is_tail && graph_hold(t, t->id, tail) &&
	    lab->opts.policy == SLU_LAB_TAIL_FAULTING)
		lab_meet(t);
	slu_page_put(lab->cache, page);
}

size_t source_copy_faulting(struct lab_source *s, void *dst, size_t len)
{
	size_t done = 0, n;

	len = slu_min((uint64_t)len, source_left(s));
	while (done < len && (n = copy_page_faulting(s, (uint8_t *)dst + done, len - done))) {
		check_delivered(s, (uint8_t *)dst + done, n);
		done += n;
	}
	return done;
}

static size_t tail_copy_faulting(struct slu_source *src, void *dst, size_t len)
{
	struct lab_source *s = slu_container_of(src, struct lab_source, source);

	note_tail(s);
	return source_copy_faulting(s, dst, len);
}

static size_t tail_copy_nofault(struct slu_source *src, void *dst, size_t len)
{
	struct lab_source *s = slu_container_of(src, struct lab_source, source);
	struct lab_file *file = &s->thread->lab->files[s->w->src_file];
	size_t done;

	note_tail(s);
	len = slu_min((uint64_t)len, source_left(s));
	done = copy_held(s, dst, len);
	while (done < len) {
		uint64_t left, from = source_place(s, &left);
		size_t want = slu_min((uint64_t)(len - done), left);
		size_t n = window_copy_nofault((uint8_t *)dst + done, file->window + from, want);

		touched(s->thread, n);
		check_delivered(s, (uint8_t *)dst + done, n);
		done += n;
		if (n < want)
			break;
	}
	return done;
}

/* No lock is held: the copy may fault, and wait, as long as it likes. */
static int tail_fault_in(struct slu_source *src, size_t len)
{
	struct lab_source *s = slu_container_of(src, struct lab_source, source);

	slu_assert_no_locks("a page of the window");
	slu_assert(!s->held_len);
	graph_release_all(s->thread);
	if (!source_left(s) || atomic_load(&s->thread->lab->broken))
		return -ENODATA;
	s->fault_ins++;
	s->held_off = 0;
	s->held_len = (uint32_t)copy_page_faulting(s, s->held, slu_min(len, sizeof(s->held)));
	return s->held_len ? 0 : -ENODATA;
}

void source_init(struct lab_source *s, struct lab_thread *t, const struct slu_lab_write *w)
{
	static const struct slu_source_ops faulting = {.copy_nofault = tail_copy_faulting,
						       .fault_in = tail_fault_in};
	static const struct slu_source_ops nofault = {.copy_nofault = tail_copy_nofault,
						      .fault_in = tail_fault_in};

	s->source.ops = t->lab->opts.policy == SLU_LAB_TAIL_NOFAULT ? &nofault : &faulting;
	s->thread = t;
	s->w = w;
	s->at = s->fault_ins = 0;
	s->held_off = s->held_len = 0;
}

/* ------------------------------------------------------------------ one write */

static int64_t do_write(struct lab_thread *t, const struct slu_lab_write *w, struct lab_source *s)
{
	struct slu_write_result res;
	int err;

	if (t->lab->opts.policy == SLU_LAB_HOLD_ALL)
		return hold_all_write(t, w, s);
	err = slu_write(&t->lab->files[t->id].as, &s->source, w->pos, w->len[0] + w->len[1], 0,
			&res, NULL);
	graph_release_all(t);
	return err ? err : (int64_t)res.done;
}

/* What was written, and some of what lies around it. */
static void check_file(struct lab_thread *t, uint64_t pos, uint64_t end)
{
	struct slu_lab *lab = t->lab;
	struct lab_file *f = &lab->files[t->id];
	uint64_t size = lab->opts.npages * LAB_PAGE;
	uint8_t *got;

	pos = pos > LAB_PAGE ? pos - LAB_PAGE : 0;
	end = slu_min(size, end + LAB_PAGE);
	got = slu_alloc(end - pos);
	if (!got || lab_file_read(lab, f, pos, got, end - pos) != (int64_t)(end - pos)) {
		lab_complain(lab, "writer %u: cannot read its file", t->id + 1);
	} else {
		uint64_t i = 0;
		bool same = !memcmp(got, f->shadow + pos, end - pos);

		while (!same && got[i] == f->shadow[pos + i])
			i++;
		if (!same)
			lab_complain(lab,
				     "writer %u: byte %llu of its file is 0x%02x, expected 0x%02x",
				     t->id + 1, (unsigned long long)(pos + i), got[i],
				     f->shadow[pos + i]);
	}
	slu_free(got);
}

static void count(struct lab_thread *t, const struct slu_lab_write *w, const struct lab_source *s)
{
	struct slu_lab_stats *stats = &t->lab->stats;
	uint64_t bound = 0;

	for (int i = 0; i < 2; i++)
		if (w->len[i])
			bound += (w->src[i] + w->len[i] - 1) / LAB_PAGE - w->src[i] / LAB_PAGE + 1;
	if (s->fault_ins > bound)
		lab_complain(t->lab, "writer %u: %llu times faulted in for %llu pages", t->id + 1,
			     (unsigned long long)s->fault_ins, (unsigned long long)bound);
	pthread_mutex_lock(&t->lab->lock);
	stats->writes++;
	stats->bytes += w->len[0] + w->len[1];
	stats->fault_ins += s->fault_ins;
	if (s->fault_ins > stats->most_tries) {
		stats->most_tries = s->fault_ins;
		stats->most_bound = bound;
	}
	pthread_mutex_unlock(&t->lab->lock);
}

void writer_one(struct lab_thread *t, const struct slu_lab_write *w)
{
	struct slu_lab *lab = t->lab;
	uint64_t len = w->len[0] + w->len[1], first = w->pos / LAB_PAGE;
	struct lab_source s;
	int64_t done;

	pthread_mutex_lock(&lab->lock);
	t->s.write = *w;
	t->s.nwrite++;
	pthread_mutex_unlock(&lab->lock);
	source_init(&s, t, w);
	done = do_write(t, w, &s);
	if (atomic_load(&lab->broken))
		return;
	if (done != (int64_t)len) {
		lab_complain(lab, "writer %u: a write of %llu bytes ended with %lld", t->id + 1,
			     (unsigned long long)len, (long long)done);
		return;
	}
	count(t, w, &s);
	check_file(t, w->pos, w->pos + len);
	/* As the kernel unmaps what is written to: now and then, so that there are old pages too. */
	if (!lab->opts.resident && lab_random(&t->random) % 2)
		window_drop(lab, t->id, first, (w->pos + len - 1) / LAB_PAGE - first + 1);
}

/* ------------------------------------------------------------------ a round's writes */

/*
 * The reproducer: 12 bytes to the end of page 1 and 12 to the beginning of page 2, a hole. Which
 * page the second 12 come from is what the policy fails at: the one that is full, or the tail.
 */
static void first_write(struct lab_thread *t, struct slu_lab_write *ret)
{
	uint32_t page = t->lab->opts.policy == SLU_LAB_HOLD_ALL ? 1 : SLU_LAB_HOLE_PAGE;

	*ret = (struct slu_lab_write){
		.src_file = (t->id + 1) % t->lab->nthreads,
		.src = {0, page * LAB_PAGE},
		.len = {12, 12},
		.pos = 2 * LAB_PAGE - 12,
	};
}

static void random_write(struct lab_thread *t, struct slu_lab_write *ret)
{
	uint64_t size = t->lab->opts.npages * LAB_PAGE, most[] = {40, 2 * LAB_PAGE, size / 2}, len;

	ret->src_file = (uint32_t)(lab_random(&t->random) % t->lab->nthreads);
	for (int i = 0; i < 2; i++) {
		ret->len[i] = 1 + lab_random(&t->random) % (most[lab_random(&t->random) % 3]);
		ret->src[i] = lab_random(&t->random) % (size - ret->len[i] + 1);
	}
	len = ret->len[0] + ret->len[1];
	ret->pos = lab_random(&t->random) % (size - len + 1);
}

void *writer_main(void *arg)
{
	struct lab_thread *t = arg;
	struct slu_lab *lab = t->lab;
	struct slu_lab_write w;

	pthread_mutex_lock(&lab->lock);
	t->s.tid = gettid();
	pthread_mutex_unlock(&lab->lock);
	for (uint32_t i = 0; i < lab->opts.nwrites && !atomic_load(&lab->broken); i++) {
		if (lab->only)
			w = *lab->only;
		else if (i == 0)
			first_write(t, &w);
		else
			random_write(t, &w);
		writer_one(t, &w);
		if (lab->only)
			break;
	}
	return NULL;
}
