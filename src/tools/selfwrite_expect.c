/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_expect: which bytes may be where after a file was written into itself.
 *
 * Outside of what was written: what was there. Inside: what the source held before or, where the
 * source was itself written, what may have been put there; and so on back. With several writers any
 * of them may have been the last at a byte, and each may have read what any other wrote. So the
 * values that a byte may have are the smallest sets that satisfy
 *
 *	may(pos) = union, over the copies that write pos, of seen(source of pos)
 *	seen(pos) = {before(pos)} and, if anybody writes pos, may(pos)
 *
 * which a few passes over the file find: where all copies go forward one upward is enough, where all
 * go backward one downward.
 */
#include "selfwrite_private.h"
#include <string.h>
#include <sys/stat.h>

static uint8_t expect_before(const struct selfwrite *sw, size_t pos)
{
	return pos < sw->expect.size ? sw->before[pos] : 0;
}

static bool expect_has(const struct selfwrite_values *set, uint8_t byte)
{
	return byte < 128 && (set->bits[byte / 64] >> (byte % 64) & 1);
}

/* Nothing if nobody writes there. */
static const struct selfwrite_values *expect_may(const struct selfwrite_expect *e, size_t pos)
{
	const struct selfwrite_values *set;

	if (pos < e->lo || pos >= e->hi)
		return NULL;
	set = &e->may[pos - e->lo];
	return set->bits[0] | set->bits[1] ? set : NULL;
}

/* Adds what the copies may put at pos; whether that was news. */
static bool expect_add(struct selfwrite *sw, size_t pos)
{
	struct selfwrite_expect *e = &sw->expect;
	struct selfwrite_values *to = &e->may[pos - e->lo], old = *to;

	for (size_t i = 0; i < e->ncopies; i++) {
		size_t src = selfwrite_copy_source_of(&e->copies[i], pos);
		const struct selfwrite_values *from;
		uint8_t byte;

		if (src == SIZE_MAX)
			continue;
		byte = expect_before(sw, src);
		to->bits[byte / 64] |= (uint64_t)1 << (byte % 64);
		from = expect_may(e, src);
		if (from) {
			to->bits[0] |= from->bits[0];
			to->bits[1] |= from->bits[1];
		}
	}
	return to->bits[0] != old.bits[0] || to->bits[1] != old.bits[1];
}

static int expect_room(struct selfwrite *sw)
{
	struct selfwrite_expect *e = &sw->expect;
	size_t n = e->hi - e->lo;

	if (n > e->cap) {
		free(e->may);
		e->cap = n;
		e->may = malloc(n * sizeof(*e->may));
		if (!e->may) {
			e->cap = 0;
			e->ncopies = 0;
			return selfwrite_failed(sw->reason, "out of memory");
		}
	}
	memset(e->may, 0, n * sizeof(*e->may));
	return 0;
}

/* Whether any part of the copies goes forward, and backward. */
static void expect_directions(const struct selfwrite_expect *e, bool *ret_up, bool *ret_down)
{
	*ret_up = *ret_down = false;
	for (size_t i = 0; i < e->ncopies; i++) {
		size_t at = e->copies[i].dst;

		for (size_t k = 0; k < e->copies[i].nparts; k++) {
			*ret_up |= e->copies[i].parts[k].src <= at;
			*ret_down |= e->copies[i].parts[k].src > at;
			at += e->copies[i].parts[k].len;
		}
	}
}

static void expect_fill(struct selfwrite *sw)
{
	const struct selfwrite_expect *e = &sw->expect;
	bool up, down, more = true;

	expect_directions(e, &up, &down);
	while (more) {
		more = false;
		for (size_t pos = e->lo; up && pos < e->hi; pos++)
			more |= expect_add(sw, pos);
		for (size_t pos = e->hi; down && pos-- > e->lo;)
			more |= expect_add(sw, pos);
		more &= up && down; /* otherwise every source was complete when it was read */
	}
}

int selfwrite_expect(struct selfwrite *sw, const struct selfwrite_copy *copies, size_t ncopies)
{
	struct selfwrite_expect *e = &sw->expect;

	e->truncated = false;
	e->kept = 0;
	if (e->size == sw->size && e->ncopies == ncopies &&
	    !memcmp(e->copies, copies, ncopies * sizeof(*copies)))
		return 0;
	memcpy(e->copies, copies, ncopies * sizeof(*copies));
	e->ncopies = ncopies;
	e->size = sw->size;
	e->lo = SIZE_MAX;
	e->hi = 0;
	for (size_t i = 0; i < ncopies; i++) {
		e->lo = slu_min(e->lo, copies[i].dst);
		e->hi = slu_max(e->hi, copies[i].dst + selfwrite_copy_len(&copies[i]));
	}
	e->end = slu_max(e->size, e->hi);
	if (expect_room(sw))
		return SELFWRITE_FAILED;
	expect_fill(sw);
	return 0;
}

/* ------------------------------------------------------------------ comparing */

#define EXPECT_SEARCH 64 /* places, where nothing depends on it */

/* One write in one piece. */
static bool expect_simple(const struct selfwrite_expect *e)
{
	return e->ncopies == 1 && e->copies[0].nparts == 1;
}

/*
 * In a long write almost any value of one byte was somewhere in the source. Where source and target
 * are aligned, eight bytes that belong together must also come from one place, which no wrong bit
 * survives.
 */
static bool expect_aligned(const struct selfwrite_expect *e)
{
	return expect_simple(e) && !e->truncated &&
	       (e->copies[0].dst - e->copies[0].parts[0].src) % 8 == 0;
}

/*
 * Whether the eight bytes at pos come from one place, for a write in one piece. *shift: from how far
 * the eight before came, which is a good guess for these.
 */
static bool expect_word(const struct selfwrite *sw, size_t pos, size_t *shift)
{
	const struct selfwrite_copy *copy = &sw->expect.copies[0];
	size_t src = copy->parts[0].src, end = src + copy->parts[0].len;
	bool up = copy->dst > src;
	size_t by = up ? copy->dst - src : src - copy->dst;
	size_t guess = up ? pos - *shift : pos + *shift;
	size_t most = expect_aligned(&sw->expect) ? SIZE_MAX : by * EXPECT_SEARCH;
	const uint8_t *got = sw->after + pos;

	if (!by)
		return !memcmp(sw->before + pos, got, 8);
	if (*shift && guess >= src && guess + 8 <= end && !memcmp(sw->before + guess, got, 8))
		return true;
	for (size_t n = by; n <= most && (up ? pos >= src + n : pos + n + 8 <= end); n += by) {
		if (memcmp(sw->before + (up ? pos - n : pos + n), got, 8) != 0)
			continue;
		*shift = n;
		return true;
	}
	return false;
}

/* The eight bytes at pos are all written; or none is. */
static bool expect_inside(const struct selfwrite_expect *e, size_t pos)
{
	return pos >= e->lo && pos + 8 <= e->hi;
}

static bool expect_outside(const struct selfwrite_expect *e, size_t pos)
{
	return pos + 8 <= e->lo || pos >= e->hi;
}

/* Whether eight bytes are right at first sight. If not, each may still be. */
static bool expect_eight(const struct selfwrite *sw, size_t pos, size_t *shift)
{
	const struct selfwrite_expect *e = &sw->expect;

	if (expect_outside(e, pos))
		return pos + 8 <= e->size && !memcmp(sw->before + pos, sw->after + pos, 8);
	return expect_simple(e) && expect_inside(e, pos) && expect_word(sw, pos, shift);
}

static bool expect_byte(const struct selfwrite *sw, size_t pos)
{
	const struct selfwrite_expect *e = &sw->expect;
	const struct selfwrite_values *may = expect_may(e, pos);
	uint8_t got = sw->after[pos], before = expect_before(sw, pos);

	if (may ? expect_has(may, got) : got == before)
		return true;
	return e->truncated && (may || pos >= e->kept) && (got == 0 || got == before);
}

static int expect_wrong(struct selfwrite *sw, size_t pos, uint8_t got, const char *seen)
{
	if (!expect_may(&sw->expect, pos))
		return selfwrite_failed(sw->reason,
					"byte %zu, which was not written, is 0x%02x %s, "
					"expected 0x%02x",
					pos, got, seen, expect_before(sw, pos));
	return selfwrite_failed(sw->reason, "byte %zu is 0x%02x %s, %s", pos, got, seen,
				got >= 128 ? "a foreign byte: the file never held such a one"
				: got == 0
					? "a zero that nobody wrote"
					: "which neither was in its source nor was written to it");
}

/* The first `end` bytes of the file are in sw->after. */
static int expect_compare(struct selfwrite *sw, size_t end, const char *seen)
{
	const struct selfwrite_expect *e = &sw->expect;
	size_t shift = 0;

	for (size_t pos = 0; pos < end; pos += 8) {
		bool whole = pos + 8 <= end;

		if (whole && expect_eight(sw, pos, &shift))
			continue;
		for (size_t at = pos; at < end && at < pos + 8; at++) {
			if (!expect_byte(sw, at))
				return expect_wrong(sw, at, sw->after[at], seen);
		}
		if (whole && expect_aligned(e) && expect_inside(e, pos))
			return selfwrite_failed(sw->reason,
						"the eight bytes at %zu are a mixture %s: they "
						"were never together where this write read",
						pos, seen);
	}
	return 0;
}

int selfwrite_check(struct selfwrite *sw, bool reread)
{
	const struct selfwrite_expect *e = &sw->expect;
	struct stat st;
	size_t end;

	if (fstat(sw->fd, &st) != 0)
		return selfwrite_failed(sw->reason, "fstat: %s", strerror(errno));
	end = (size_t)st.st_size;
	if (end > e->end || end < (e->truncated ? e->kept : e->end))
		return selfwrite_failed(sw->reason, "the file has %zu bytes, expected %s%zu", end,
					e->truncated ? "at most " : "", e->end);
	for (int pass = 0; pass < (reread ? 2 : 1); pass++) {
		if (pass == 1 && selfwrite_file_drop(sw))
			return SELFWRITE_FAILED;
		if (selfwrite_file_read(sw, end) ||
		    expect_compare(sw, end, pass ? "when read again from disk" : "when read"))
			return SELFWRITE_FAILED;
		if (sw->map && memcmp(sw->map, sw->after, slu_min(end, sw->size)) != 0)
			return selfwrite_failed(sw->reason,
						"the mapping shows other bytes than read");
	}
	selfwrite_step(sw->shared);
	return 0;
}
