/* SPDX-License-Identifier: MIT */
/* One line per problem, handed to the caller's callback; counts them. Called by all of check. */
#include "check_private.h"
#include <stdarg.h>

static const char *const report_names[SLU_PROBLEM_NKINDS] = {
	[SLU_PROBLEM_SUPER] = "super",
	[SLU_PROBLEM_SUPER_DIFFER] = "super-differ",
	[SLU_PROBLEM_SPARE] = "spare",
	[SLU_PROBLEM_COUNT] = "count",
	[SLU_PROBLEM_DEFERRED] = "deferred",
	[SLU_PROBLEM_NODE] = "node",
	[SLU_PROBLEM_RECORD] = "record",
	[SLU_PROBLEM_SPACE_RECORD] = "space-record",
	[SLU_PROBLEM_BLOCK_RANGE] = "block-range",
	[SLU_PROBLEM_BLOCK_SHARED] = "block-shared",
	[SLU_PROBLEM_BLOCK_UNMARKED] = "block-unmarked",
	[SLU_PROBLEM_BLOCK_LOST] = "block-lost",
	[SLU_PROBLEM_ROOT] = "root",
	[SLU_PROBLEM_INODE] = "inode",
	[SLU_PROBLEM_INODE_MISSING] = "inode-missing",
	[SLU_PROBLEM_NLINK] = "nlink",
	[SLU_PROBLEM_UNREACHABLE] = "unreachable",
	[SLU_PROBLEM_ORPHAN] = "orphan",
	[SLU_PROBLEM_DIR_SIZE] = "dir-size",
	[SLU_PROBLEM_DIR_PARENT] = "dir-parent",
	[SLU_PROBLEM_DIR_LINKS] = "dir-links",
	[SLU_PROBLEM_DIR_LOOP] = "dir-loop",
	[SLU_PROBLEM_DIRENT] = "dirent",
	[SLU_PROBLEM_DIRENT_DANGLING] = "dirent-dangling",
	[SLU_PROBLEM_DIRENT_TYPE] = "dirent-type",
	[SLU_PROBLEM_NAME] = "name",
	[SLU_PROBLEM_NAME_HASH] = "name-hash",
	[SLU_PROBLEM_NAME_DUPLICATE] = "name-duplicate",
	[SLU_PROBLEM_EXTENT] = "extent",
	[SLU_PROBLEM_EXTENT_OVERLAP] = "extent-overlap",
	[SLU_PROBLEM_EXTENT_BEYOND] = "extent-beyond",
	[SLU_PROBLEM_BLOCKS] = "blocks",
	[SLU_PROBLEM_SYMLINK] = "symlink",
	[SLU_PROBLEM_XATTR] = "xattr",
	[SLU_PROBLEM_XATTR_PART] = "xattr-part",
};

const char *slu_problem_name(enum slu_problem_kind kind)
{
	return (unsigned int)kind < SLU_PROBLEM_NKINDS ? report_names[kind] : "?";
}

static void report_post(struct check_run *run, const struct slu_problem *problem)
{
	if (problem->note)
		run->result->notes++;
	else
		run->result->problems++;
	if (run->opts->problem)
		run->opts->problem(run->opts->ctx, problem);
}

void check_report(struct check_run *run, enum slu_problem_kind kind, uint64_t ino, uint64_t blkno,
		  const char *fmt, ...)
{
	va_list ap;
	g_autofree char *text = NULL;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	report_post(run,
		    &(struct slu_problem){.kind = kind, .ino = ino, .blkno = blkno, .text = text});
}

void check_note(struct check_run *run, enum slu_problem_kind kind, uint64_t blkno, const char *fmt,
		...)
{
	va_list ap;
	g_autofree char *text = NULL;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	report_post(run, &(struct slu_problem){
				 .kind = kind, .note = true, .blkno = blkno, .text = text});
}

char *check_quote(const void *name, size_t len)
{
	const uint8_t *p = name;
	GString *out = g_string_sized_new(len + 2);

	g_string_append_c(out, '"');
	for (size_t i = 0; i < len; i++) {
		if (p[i] >= 32 && p[i] < 127 && p[i] != '"' && p[i] != '\\')
			g_string_append_c(out, (char)p[i]);
		else
			g_string_append_printf(out, "\\%03o", p[i]);
	}
	g_string_append_c(out, '"');
	return g_string_free(out, FALSE);
}
