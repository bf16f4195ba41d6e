/* SPDX-License-Identifier: MIT */
/*
 * sluicectl top on a terminal. Waits for keys, the daemon and signals at once, so that q works
 * also when the daemon hangs. Whatever ends it, the terminal is as it was before anything is said.
 */
#include "ctl_top.h"
#include <curses.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <term.h>
#include <unistd.h>
#include <wchar.h>

#define TICK_MS  1000
#define LATE_SEC 2.0 /* after which a daemon that says nothing is pointed out */

struct screen {
	struct top *t;
	SCREEN *terminal;
	int signal_fd;
	int shown;          /* intervals so far */
	JsonObject *newest; /* NULL: none yet */
	uint64_t newest_ns; /* when it came, or when the stream was asked for */
	bool quit;
	int signal; /* that ended it; 0: none */
	bool ended; /* the daemon has, with `error` perhaps */
	GError *error;
};

/* ------------------------------------------------------------------ drawing */

static double silence(const struct screen *s)
{
	return (double)(slu_clock_ns() - s->newest_ns) / (double)SLU_NS_PER_SEC;
}

/* How many bytes of a line fit in so many columns. */
static int fitting(const char *line, int room)
{
	size_t len = strlen(line), at = 0;
	mbstate_t state = {0};

	while (at < len) {
		wchar_t wc;
		size_t n = mbrtowc(&wc, line + at, len - at, &state);
		int width = n > len ? 1 : wcwidth(wc); /* n > len: no character */

		room -= MAX(width, 0);
		if (room < 0)
			break;
		if (n > len)
			state = (mbstate_t){0};
		at += n > len ? 1 : n;
	}
	return (int)at;
}

static void add(int row, const char *line)
{
	mvaddnstr(row, 0, line, fitting(line, COLS));
}

/* On the last line; a narrow terminal shows less of it. */
static void draw_foot(const struct screen *s)
{
	g_autoptr(GString) foot = g_string_new("q quit  sort by");
	double late = silence(s);
	gsize from = 0, to = 0;

	for (enum top_sort i = 0; i < TOP_SORTS; i++) {
		if (i == s->t->sort)
			from = foot->len + 1;
		g_string_append_printf(foot, " %s", top_sort_name(i));
		if (i == s->t->sort)
			to = foot->len;
	}
	if (late > s->t->interval + LATE_SEC) {
		g_string_printf(foot, "no answer for %.0f s  q quit", late);
		from = 0;
		to = foot->len;
	}
	add(LINES - 1, foot->str);
	mvchgat(LINES - 1, (int)from, (int)(to - from), A_REVERSE, 0, NULL);
}

static void draw(const struct screen *s)
{
	g_autoptr(GPtrArray) rows = NULL;
	bool heading = false;

	erase();
	if (s->newest)
		rows = top_lines(s->newest, s->t->sort, (unsigned int)MAX(LINES - 1, 0));
	else
		mvprintw(0, 0, "the first interval ends in %.1f s", s->t->interval);
	for (guint i = 0; rows && i < rows->len; i++) {
		const char *line = g_ptr_array_index(rows, i);

		if (i == 0 || heading)
			attron(A_BOLD);
		add((int)i, line);
		attroff(A_BOLD);
		heading = !*line; /* a table begins after an empty line */
	}
	draw_foot(s);
	refresh();
}

/* ------------------------------------------------------------------ what happens */

static void on_keys(struct screen *s)
{
	int key;

	while ((key = getch()) != ERR) {
		if (key == 'q' || key == 'Q')
			s->quit = true;
		if (key == '\f')
			clearok(curscr, true);
		for (enum top_sort i = 0; i < TOP_SORTS; i++)
			if (key == *top_sort_name(i))
				s->t->sort = i;
	}
}

static void on_daemon(struct screen *s)
{
	JsonObject *reply;
	int n;

	while ((n = slu_control_next(s->t->c->client, &reply, &s->error)) > 0) {
		JsonObject *interval = top_interval(reply);

		if (interval) {
			g_clear_pointer(&s->newest, json_object_unref);
			s->newest = json_object_ref(interval);
			s->newest_ns = slu_clock_ns();
			s->shown++;
		}
		json_object_unref(reply);
	}
	s->ended = n < 0;
	s->quit = s->quit || (s->t->iterations && s->shown >= s->t->iterations);
}

static void on_signal(struct screen *s)
{
	struct signalfd_siginfo info;

	if (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
		s->signal = (int)info.ssi_signo;
}

static void run(struct screen *s)
{
	struct pollfd fds[] = {
		{.fd = s->signal_fd, .events = POLLIN},
		{.fd = slu_control_fd(s->t->c->client), .events = POLLIN},
		{.fd = STDIN_FILENO, .events = POLLIN},
	};

	while (!s->quit && !s->signal && !s->ended) {
		draw(s);
		/* EINTR: the size has changed, or we were stopped; getch knows more. */
		if (poll(fds, G_N_ELEMENTS(fds), TICK_MS) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			on_signal(s);
		if (fds[1].revents)
			on_daemon(s);
		if (fds[2].revents & (POLLHUP | POLLERR | POLLNVAL)) /* the terminal has gone */
			s->quit = true;
		on_keys(s);
	}
}

/* ------------------------------------------------------------------ beginning and end */

static const int end_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static int open_signals(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < G_N_ELEMENTS(end_signals); i++)
		sigaddset(set, end_signals[i]);
	sigprocmask(SIG_BLOCK, set, NULL);
	return signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool begin(struct screen *s)
{
	int err;

	/* newterm alone would keep memory of a terminal that it does not know. */
	if (setupterm(NULL, STDOUT_FILENO, &err) == OK) {
		del_curterm(cur_term);
		s->terminal = newterm(NULL, stdout, stdin);
	}
	if (!s->terminal) {
		slu_tool_error("the terminal \"%s\" is not known here: use --batch",
			       getenv("TERM") ? getenv("TERM") : "");
		return false;
	}
	cbreak();
	noecho();
	nonl();
	nodelay(stdscr, true);
	keypad(stdscr, true);
	curs_set(0);
	return true;
}

static void end(struct screen *s)
{
	endwin();
	delscreen(s->terminal);
}

/* Ended by a signal, and seen so by who has started us. */
static void die_of(int sig, const sigset_t *blocked)
{
	signal(sig, SIG_DFL);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, blocked, NULL);
}

int top_screen(struct top *t)
{
	JsonObject *parameters = json_object_new();
	struct screen s = {.t = t, .newest_ns = slu_clock_ns()};
	int status = CTL_FAILED;
	sigset_t set;

	json_object_set_double_member(parameters, "interval", t->interval);
	s.signal_fd = open_signals(&set);
	if (s.signal_fd < 0) {
		slu_tool_error("%s", g_strerror(errno));
		json_object_unref(parameters);
	} else if (!slu_control_begin(t->c->client, VOLUME "Top", parameters, &s.error)) {
		slu_tool_error("%s", s.error->message);
	} else if (begin(&s)) {
		run(&s);
		end(&s);
		status = s.ended && !s.quit ? top_ended(s.error) : CTL_OK;
	}
	if (s.signal)
		die_of(s.signal, &set);
	if (s.signal_fd >= 0)
		close(s.signal_fd);
	g_clear_pointer(&s.newest, json_object_unref);
	g_clear_error(&s.error);
	return status;
}
