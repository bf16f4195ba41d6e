/* SPDX-License-Identifier: MIT */
/*
 * What the programs share: errors in one line, options, the words for what went wrong with an
 * image. Called from main threads only; prints, never exits (but for --help).
 */
#include "sluice/units.h"
#include "tools_private.h"
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *tool_name = "sluicefs";

void slu_tool_init(const char *name)
{
	tool_name = name;
	setlocale(LC_ALL, "");
	g_set_prgname(name);
}

const char *slu_tool_name(void)
{
	return tool_name;
}

static void tool_say(const char *fmt, va_list ap)
{
	char text[1024];

	vsnprintf(text, sizeof(text), fmt, ap);
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", tool_name, text);
}

void slu_tool_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tool_say(fmt, ap);
	va_end(ap);
}

void slu_tool_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tool_say(fmt, ap);
	va_end(ap);
}

/* Without the blank lines at the end, which would push the first lines off a screen. */
static _Noreturn void tool_help(GOptionContext *context)
{
	char *text = g_option_context_get_help(context, TRUE, NULL);

	puts(g_strchomp(text));
	g_free(text);
	exit(fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS);
}

bool slu_tool_options(int *argc, char ***argv, const char *arguments, const char *about,
		      const GOptionEntry *entries)
{
	GOptionContext *context = g_option_context_new(arguments);
	gboolean help = FALSE;
	/* GOption's own would have a section of its own, three lines long. */
	const GOptionEntry help_entry[] = {
		{"help", 'h', 0, G_OPTION_ARG_NONE, &help, "Show this", NULL},
		{NULL},
	};
	GError *error = NULL;
	bool ok;

	g_option_context_set_summary(context, about);
	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_add_main_entries(context, entries, NULL);
	g_option_context_add_main_entries(context, help_entry, NULL);
	ok = g_option_context_parse(context, argc, argv, &error);
	if (!ok) {
		slu_tool_error("%s; see --help", error->message);
		g_error_free(error);
	}
	if (ok && help)
		tool_help(context);
	g_option_context_free(context);
	/* "--" ends the options and stays in argv only if it was needed. */
	if (ok && *argc > 1 && !strcmp((*argv)[1], "--")) {
		memmove(*argv + 1, *argv + 2, sizeof(char *) * (size_t)(*argc - 1));
		(*argc)--;
	}
	return ok;
}

int slu_tool_version(void)
{
	printf("%s %s\n", tool_name, SLU_VERSION);
	return 0;
}

bool slu_tool_size(const char *option, const char *text, uint64_t dflt, uint64_t *ret)
{
	int err;

	if (!text) {
		*ret = dflt;
		return true;
	}
	err = slu_parse_size(text, ret);
	if (err)
		slu_tool_error("%s: \"%s\" is %s", option, text,
			       err == -ERANGE ? "too large" : "not a size (4096, 512K, 10G, 1.5T)");
	return !err;
}

bool slu_tool_seconds(const char *option, const char *text, uint64_t *ret_ns)
{
	char *end;
	double seconds = g_ascii_strtod(text, &end);

	if (end == text || *end || !(seconds >= 0 && seconds <= 86400)) {
		slu_tool_error("%s: \"%s\" is not a number of seconds (0 to 86400)", option, text);
		return false;
	}
	*ret_ns = (uint64_t)(seconds * (double)SLU_NS_PER_SEC);
	return true;
}

void slu_tool_lock_busy(void *ctx, int pid, const char *comm)
{
	struct slu_tool_busy *busy = ctx;

	busy->called = true;
	busy->pid = pid;
	snprintf(busy->comm, sizeof(busy->comm), "%s", comm ? comm : "");
	if (busy->wait_ns == 0)
		return;
	if (pid)
		slu_tool_note("%s is in use by %s (process %d); waiting up to %g s", busy->image,
			      busy->comm, pid, (double)busy->wait_ns / (double)SLU_NS_PER_SEC);
	else
		slu_tool_note("%s is in use by another program; waiting up to %g s", busy->image,
			      (double)busy->wait_ns / (double)SLU_NS_PER_SEC);
}

const char *slu_tool_open_error(int err, const struct slu_tool_busy *busy, char *buf, size_t size)
{
	switch (-err) {
	case EBUSY:
		if (busy && busy->called && busy->pid)
			snprintf(buf, size, "in use by %s (process %d), perhaps mounted",
				 busy->comm, busy->pid);
		else
			snprintf(buf, size, "in use by another program, perhaps mounted");
		break;
	case ENOTBLK:
		snprintf(buf, size, "neither a regular file nor a block device");
		break;
	case EINVAL:
		snprintf(buf, size, "ends before the offset");
		break;
	case EROFS:
		snprintf(buf, size, "cannot be opened for writing");
		break;
	default:
		snprintf(buf, size, "%s", g_strerror(-err));
		break;
	}
	return buf;
}
