/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_repro: the 2020 FUSE deadlock, a write whose source is a mapping of the very pages being
 * written, while the write path holds them locked. The first scenario is the reproducer that was
 * posted then; the others move it over every byte of a page, make it large, take the source out of
 * memory first and go round the page cache.
 */
#include "selfwrite_private.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------ one write */

struct repro_write {
	struct selfwrite_copy copy;
	bool drop;   /* take the file out of memory before */
	bool direct; /* O_DIRECT */
	bool reread; /* look at what is on disk too */
};

/* To a file made for it: also the blocks on disk are new. */
static int repro_one(struct selfwrite *sw, size_t size, const struct repro_write *w)
{
	struct selfwrite_io *io = &sw->io[w->direct];
	enum selfwrite_source source = w->drop ? SELFWRITE_DROPPED : SELFWRITE_RESIDENT;
	int err;

	if (io->in < 0) {
		err = selfwrite_io_open(sw, io, w->direct);
		if (err)
			return err;
	}
	sw->prepared = false;
	err = selfwrite_file_prepare(sw, size);
	if (!err)
		err = selfwrite_expect(sw, &w->copy, 1);
	if (!err)
		err = selfwrite_file_source(sw, &w->copy, source, &io->map);
	if (!err)
		err = selfwrite_write(io, SELFWRITE_PWRITEV, &w->copy);
	if (!err)
		err = selfwrite_check(sw, w->reread);
	return err;
}

/* ------------------------------------------------------------------ scenarios */

/* The reproducer: 12 bytes from each of two mapped pages, over the end of the second. */
static const struct repro_write reproducer = {.copy = {.parts = {{0, 12}, {PAGE, 12}},
						       .nparts = 2,
						       .dst = PAGE + PAGE - 12},
					      .reread = true};

/* 1 MiB shifted by one page. */
static const struct repro_write shifted = {
	.copy = {.parts = {{0, SELFWRITE_SHIFTED}}, .nparts = 1, .dst = PAGE}, .reread = true};

static int scenario_reproducer(struct selfwrite *sw)
{
	return repro_one(sw, 2 * PAGE, &reproducer);
}

static int scenario_every_offset(struct selfwrite *sw)
{
	struct repro_write w = reproducer;
	int err = 0;

	for (size_t off = 0; off < PAGE && !err; off++) {
		w.copy.dst = PAGE + off;
		w.reread = off % 256 == 255;
		err = repro_one(sw, 2 * PAGE, &w);
	}
	return err;
}

static int scenario_shifted(struct selfwrite *sw)
{
	return repro_one(sw, SELFWRITE_SHIFTED, &shifted);
}

static int scenario_dropped(struct selfwrite *sw)
{
	struct repro_write w = reproducer;
	int err;

	w.drop = true;
	err = repro_one(sw, 2 * PAGE, &w);
	for (size_t off = 0; off < PAGE && !err; off += 127) {
		w.copy.dst = PAGE + off;
		err = repro_one(sw, 2 * PAGE, &w);
	}
	return err;
}

static int scenario_shifted_dropped(struct selfwrite *sw)
{
	struct repro_write w = shifted;

	w.drop = true;
	return repro_one(sw, SELFWRITE_SHIFTED, &w);
}

static int scenario_direct(struct selfwrite *sw)
{
	struct repro_write w = reproducer;

	w.direct = true;
	return repro_one(sw, 2 * PAGE, &w);
}

static int scenario_direct_every_offset(struct selfwrite *sw)
{
	struct repro_write w = reproducer;
	int err = 0;

	w.direct = true;
	for (size_t off = 0; off < PAGE && !err; off++) {
		w.copy.dst = PAGE + off;
		w.reread = off % 256 == 255;
		err = repro_one(sw, 2 * PAGE, &w);
	}
	return err;
}

static int scenario_direct_shifted(struct selfwrite *sw)
{
	struct repro_write w = shifted;
	int err;

	w.direct = true;
	err = repro_one(sw, SELFWRITE_SHIFTED, &w);
	w.drop = true;
	return err ? err : repro_one(sw, SELFWRITE_SHIFTED, &w);
}

static const struct repro_scenario {
	const char *name;
	int (*run)(struct selfwrite *sw);
} scenarios[] = {
	{"24 bytes over the end of the second mapped page (the 2020 reproducer)",
	 scenario_reproducer},
	{"24 bytes at every byte offset of the second page", scenario_every_offset},
	{"1 MiB shifted by one page", scenario_shifted},
	{"24 bytes, source dropped from memory first", scenario_dropped},
	{"1 MiB shifted by one page, source dropped from memory first", scenario_shifted_dropped},
	{"24 bytes over the end of the second page, O_DIRECT", scenario_direct},
	{"24 bytes at every byte offset of the second page, O_DIRECT",
	 scenario_direct_every_offset},
	{"1 MiB shifted by one page, O_DIRECT", scenario_direct_shifted},
};

static const char *repro_name(const void *plan, size_t i)
{
	return scenarios[i].name;
}

static int repro_run(struct selfwrite *sw, const void *plan, size_t i)
{
	return scenarios[i].run(sw);
}

/* ------------------------------------------------------------------ the file */

/* A file of our own, or an existing one, which is overwritten; false after a message. */
static bool repro_file(const char *path, bool *ret_created)
{
	struct stat st;
	bool ok = false;
	int fd;

	*ret_created = true;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST) {
		*ret_created = false;
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (fd < 0 || fstat(fd, &st) != 0) {
		slu_tool_error("%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		slu_tool_error("%s: not a regular file", path);
	} else {
		ok = true;
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

int selfwrite_repro(const char *path, const struct selfwrite_options *opts)
{
	struct selfwrite_job job = {
		.path = path,
		.opts = opts,
		.n = slu_array_size(scenarios),
		.file_max = SELFWRITE_SHIFTED + PAGE,
		.name = repro_name,
		.run = repro_run,
	};
	bool created;
	int verdict;

	if (!repro_file(path, &created))
		return SELFWRITE_FAILED;
	verdict = selfwrite_run(&job);
	if (verdict == SELFWRITE_DEADLOCK)
		return verdict;
	if (created && !opts->keep && unlink(path) != 0) {
		slu_tool_error("%s: cannot remove it: %s", path, strerror(errno));
		verdict = SELFWRITE_FAILED;
	}
	return verdict;
}
