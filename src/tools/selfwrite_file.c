/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_file: the file that is written into itself. Its pattern, how it is prepared, and where
 * the source of a write lies when the write begins: in memory, on disk, or some of it here and some
 * there.
 */
#include "selfwrite_private.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int file_verdict(char *reason, enum selfwrite_verdict verdict, const char *fmt, va_list ap)
{
	vsnprintf(reason, SELFWRITE_REASON, fmt, ap);
	return verdict;
}

int selfwrite_failed(char *reason, const char *fmt, ...)
{
	va_list ap;
	int verdict;

	va_start(ap, fmt);
	verdict = file_verdict(reason, SELFWRITE_FAILED, fmt, ap);
	va_end(ap);
	return verdict;
}

int selfwrite_refused(char *reason, const char *fmt, ...)
{
	va_list ap;
	int verdict;

	va_start(ap, fmt);
	verdict = file_verdict(reason, SELFWRITE_REFUSED, fmt, ap);
	va_end(ap);
	return verdict;
}

void selfwrite_step(struct selfwrite_shared *shared)
{
	atomic_fetch_add(&shared->steps, 1);
}

/* splitmix64 */
uint64_t selfwrite_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* ------------------------------------------------------------------ pages that may be gone */

static _Thread_local sigjmp_buf bus_back;
static _Thread_local volatile sig_atomic_t bus_armed;

static void file_bus(int sig)
{
	if (bus_armed)
		siglongjmp(bus_back, 1);
	signal(sig, SIG_DFL); /* not from where it is expected: dies of it on return */
}

/* Apart from sigsetjmp, so that its variables are none that siglongjmp may spoil. */
static __attribute__((noinline)) void file_touch(const uint8_t *map, size_t from, size_t to,
						 size_t step)
{
	for (size_t pos = from; pos < to; pos += step)
		(void)*(volatile const uint8_t *)(map + pos);
}

bool selfwrite_touch(const uint8_t *map, size_t from, size_t to, size_t step)
{
	if (sigsetjmp(bus_back, 1)) {
		bus_armed = 0;
		return false;
	}
	bus_armed = 1;
	file_touch(map, from, to, step);
	bus_armed = 0;
	return true;
}

/* ------------------------------------------------------------------ preparation */

int selfwrite_file_init(struct selfwrite *sw, size_t file_max)
{
	const struct sigaction bus = {.sa_handler = file_bus};
	uint64_t state = sw->seed;

	sigaction(SIGBUS, &bus, NULL);
	sw->io[0].in = sw->io[1].in = -1;
	sw->cap = slu_round_up(file_max, PAGE);
	sw->before = malloc(sw->cap);
	sw->after = malloc(sw->cap);
	if (!sw->before || !sw->after)
		return -ENOMEM;
	/*
	 * Bytes from 1 to 127, so that a zero and a byte of somebody else's (128 and more) are
	 * recognised wherever they turn up; and eight bytes in a row are nowhere else.
	 */
	for (size_t pos = 0; pos < sw->cap; pos += 8) {
		uint64_t bits = selfwrite_random(&state);

		for (size_t i = 0; i < 8; i++, bits >>= 8)
			sw->before[pos + i] = (uint8_t)(1 + (bits & 0xff) % 127);
	}
	return 0;
}

static void file_unmap(struct selfwrite *sw)
{
	if (sw->map) {
		munmap(sw->map, sw->size);
		munmap(sw->map_ro, sw->size);
	}
	sw->map = sw->map_ro = NULL;
}

void selfwrite_file_fini(struct selfwrite *sw)
{
	file_unmap(sw);
	for (int i = 0; i < 2; i++) {
		if (sw->io[i].in >= 0)
			selfwrite_io_close(&sw->io[i]);
	}
	free(sw->before);
	free(sw->after);
	free(sw->expect.may);
}

/* before[from, to) to the file. */
static int file_put(struct selfwrite *sw, size_t from, size_t to)
{
	while (from < to) {
		ssize_t n = pwrite(sw->fd, sw->before + from, to - from, (off_t)from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return selfwrite_failed(sw->reason, "preparing the file: write at %zu: %s",
						from, n ? strerror(errno) : "wrote nothing");
		from += (size_t)n;
	}
	return 0;
}

int selfwrite_file_read(struct selfwrite *sw, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(sw->fd, sw->after + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return selfwrite_failed(sw->reason, "read at %zu: %s, %zu bytes expected",
						done, n ? strerror(errno) : "end of file", len);
		done += (size_t)n;
	}
	return 0;
}

/* Filesystems without shared mappings exist; the other ways to write can still be tried there. */
static int file_map(struct selfwrite *sw)
{
	void *map = mmap(NULL, sw->size, PROT_READ | PROT_WRITE, MAP_SHARED, sw->fd, 0);
	void *map_ro;

	sw->map_err = 0;
	if (map == MAP_FAILED) {
		sw->map_err = errno;
		if (sw->map_err == ENODEV)
			return 0;
		return selfwrite_failed(sw->reason, "mmap: %s", strerror(errno));
	}
	map_ro = mmap(NULL, sw->size, PROT_READ, MAP_SHARED, sw->fd, 0);
	if (map_ro == MAP_FAILED) {
		munmap(map, sw->size);
		return selfwrite_failed(sw->reason, "mmap with PROT_READ: %s", strerror(errno));
	}
	sw->map = map;
	sw->map_ro = map_ro;
	return 0;
}

int selfwrite_file_prepare(struct selfwrite *sw, size_t size)
{
	int err;

	if (sw->prepared && sw->size == size)
		return 0;
	file_unmap(sw);
	sw->prepared = false;
	if (ftruncate(sw->fd, 0) != 0)
		return selfwrite_failed(sw->reason, "truncate: %s", strerror(errno));
	sw->size = size;
	err = file_put(sw, 0, size);
	if (!err)
		err = file_map(sw);
	sw->prepared = !err;
	selfwrite_step(sw->shared);
	return err;
}

int selfwrite_file_restore(struct selfwrite *sw, const struct selfwrite_copy *copy)
{
	size_t end = copy->dst + selfwrite_copy_len(copy);
	int err;

	sw->prepared = false;
	if (end > sw->size && ftruncate(sw->fd, (off_t)sw->size) != 0)
		return selfwrite_failed(sw->reason, "truncate: %s", strerror(errno));
	err = file_put(sw, copy->dst, slu_min(end, sw->size));
	sw->prepared = !err;
	return err;
}

/* ------------------------------------------------------------------ the state of the source */

int selfwrite_file_drop(struct selfwrite *sw)
{
	int err;

	if (fsync(sw->fd) != 0)
		return selfwrite_failed(sw->reason, "fsync: %s", strerror(errno));
	if (sw->map && (madvise(sw->map, sw->size, MADV_DONTNEED) != 0 ||
			madvise(sw->map_ro, sw->size, MADV_DONTNEED) != 0))
		return selfwrite_failed(sw->reason, "madvise: %s", strerror(errno));
	err = posix_fadvise(sw->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (err)
		return selfwrite_failed(sw->reason, "posix_fadvise: %s", strerror(err));
	selfwrite_step(sw->shared);
	return 0;
}

/* Written through the mapping, with the bytes that are there already. */
static void file_dirty(struct selfwrite *sw, size_t from, size_t to)
{
	for (size_t pos = slu_round_down(from, PAGE); pos < to; pos += PAGE) {
		volatile uint8_t *byte = sw->map + pos;

		*byte = *byte;
	}
}

/* Without read-around, which would bring in what is to stay out. */
static int file_every_other(struct selfwrite *sw, size_t from, size_t to)
{
	if (selfwrite_file_drop(sw))
		return SELFWRITE_FAILED;
	if (madvise(sw->map, sw->size, MADV_RANDOM) != 0)
		return selfwrite_failed(sw->reason, "madvise: %s", strerror(errno));
	if (!selfwrite_touch(sw->map, slu_round_down(from, PAGE) + PAGE, to, 2 * PAGE))
		return selfwrite_failed(sw->reason, "SIGBUS from the mapping of the source");
	madvise(sw->map, sw->size, MADV_NORMAL);
	return 0;
}

int selfwrite_file_source(struct selfwrite *sw, const struct selfwrite_copy *copy,
			  enum selfwrite_source state, const uint8_t **ret_map)
{
	size_t from = copy->parts[0].src, to = selfwrite_copy_source_end(copy);

	*ret_map = sw->map;
	if (state == SELFWRITE_DROPPED)
		return selfwrite_file_drop(sw);
	if (!sw->map) /* refused later if the write needs it */
		return 0;
	if (state == SELFWRITE_PARTLY)
		return file_every_other(sw, from, to);
	if (state == SELFWRITE_RESIDENT) {
		file_dirty(sw, from, to);
		return 0;
	}
	*ret_map = sw->map_ro;
	if (!selfwrite_touch(sw->map_ro, slu_round_down(from, PAGE), to, PAGE))
		return selfwrite_failed(sw->reason, "SIGBUS from the mapping of the source");
	if (madvise(sw->map_ro, sw->size, MADV_DONTNEED) != 0)
		return selfwrite_failed(sw->reason, "madvise: %s", strerror(errno));
	return 0;
}
