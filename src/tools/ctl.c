/* SPDX-License-Identifier: MIT */
/*
 * sluicectl: asks the daemon of a mounted volume through its control socket.
 */
#include "ctl_private.h"
#include <string.h>

static gchar *opt_mountpoint, *opt_socket;
static gboolean opt_json, opt_version;

static const GOptionEntry entries[] = {
	{"mount", 'm', 0, G_OPTION_ARG_FILENAME, &opt_mountpoint, "The volume mounted there",
	 "MOUNTPOINT"},
	{"socket", 's', 0, G_OPTION_ARG_FILENAME, &opt_socket, "The volume behind this socket",
	 "SOCKET"},
	{"json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "Answer in JSON", NULL},
	{"version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "Show the version", NULL},
	{NULL},
};

static const struct ctl_command commands[] = {
	{"status", "", "How the volume is", true, 0, ctl_status, NULL},
	{"list", "", "All volumes that are mounted", false, 0, ctl_list, NULL},
	{"top", "", "What it does at the moment, and how fast", true, 0, ctl_top, ctl_top_options},
	{"watch", "", "What happens, as it happens", true, 0, ctl_watch, NULL},
	{"metrics", "", "Every counter, in Prometheus's text format", false, 0, ctl_metrics,
	 ctl_metrics_options},
	{"sync", "", "Return when everything is on disk", true, 0, ctl_sync, NULL},
};

static char *about(void)
{
	GString *s = g_string_new("Asks the daemon of a mounted sluicefs volume. Commands:\n");

	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		g_string_append_printf(s, "  %-9s%-18s%s\n", commands[i].name,
				       commands[i].arguments, commands[i].help);
	g_string_append(s, "\nWithout -m or -s: the only volume that is mounted. "
			   "Options of a command: COMMAND --help");
	return g_string_free(s, FALSE);
}

/* ------------------------------------------------------------------ which daemon */

static struct slu_mount_entry *find_mount(const char *mountpoint)
{
	g_autofree char *path = slu_path_canonical(mountpoint);
	struct slu_mount_entry *e;

	if (!path) {
		slu_tool_error("%s: %s", mountpoint, g_strerror(errno));
		return NULL;
	}
	e = slu_mountinfo_by_target(path);
	if (e && slu_mount_entry_is_ours(e))
		return e;
	slu_tool_error("%s is not a mounted sluicefs volume", mountpoint);
	slu_mount_entry_free(e);
	return NULL;
}

static struct slu_mount_entry *only_mount(void)
{
	g_autoptr(GPtrArray) all = slu_mountinfo_ours();

	if (all->len == 1)
		return g_ptr_array_steal_index(all, 0);
	if (!all->len)
		slu_tool_error("no sluicefs volume is mounted");
	else
		slu_tool_error("%u volumes are mounted: say which with -m (see sluicectl list)",
			       all->len);
	return NULL;
}

struct slu_control_client *ctl_connect(const struct ctl *c)
{
	g_autoptr(GError) error = NULL;
	struct slu_control_client *client = NULL;
	struct slu_mount_entry *e;

	if (c->socket) {
		client = slu_control_connect(c->socket, geteuid(), &error);
	} else {
		e = c->mountpoint ? find_mount(c->mountpoint) : only_mount();
		if (!e)
			return NULL;
		client = slu_control_connect_mount(e, &error);
		slu_mount_entry_free(e);
	}
	if (!client)
		slu_tool_error("%s", error->message);
	return client;
}

char *ctl_mountpoint(const struct ctl *c)
{
	struct slu_mount_entry *e;
	char *path;

	if (c->mountpoint) {
		path = slu_path_canonical(c->mountpoint);
		return path ? path : g_canonicalize_filename(c->mountpoint, NULL);
	}
	e = only_mount();
	path = e ? g_strdup(e->target) : NULL;
	slu_mount_entry_free(e);
	return path;
}

JsonObject *ctl_call(struct ctl *c, const char *method)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *full = g_strconcat(VOLUME, method, NULL);
	JsonObject *reply = slu_control_call(c->client, full, NULL, &error);

	if (!reply)
		slu_tool_error("%s", error->message);
	return reply;
}

/* ------------------------------------------------------------------ what is printed */

void ctl_print_json(JsonObject *o)
{
	g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), o);
	g_autofree char *text = json_to_string(node, false);

	puts(text);
	fflush(stdout);
}

/* ------------------------------------------------------------------ main */

/* What follows the command: options of its own, and those that may also stand before it. */
static bool command_options(const struct ctl_command *command, int *argc, char ***argv)
{
	g_autoptr(GArray) all = g_array_new(true, true, sizeof(GOptionEntry));
	g_autofree char *arguments = g_strconcat(command->name, *command->arguments ? " " : "",
						 command->arguments, NULL);

	for (const GOptionEntry *e = command->options; e && e->long_name; e++)
		g_array_append_vals(all, e, 1);
	g_array_append_vals(all, entries, G_N_ELEMENTS(entries) - 1);
	return slu_tool_options(argc, argv, arguments, command->help,
				(const GOptionEntry *)(const void *)all->data);
}

static const struct ctl_command *find_command(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static int run(const struct ctl_command *command, char **args)
{
	struct ctl c = {.mountpoint = opt_mountpoint, .socket = opt_socket, .json = opt_json};
	int status;

	if (command->connects) {
		c.client = ctl_connect(&c);
		if (!c.client)
			return CTL_FAILED;
	}
	status = command->run(&c, args);
	slu_control_close(c.client);
	return status;
}

int main(int argc, char **argv)
{
	g_autofree char *summary = about();
	const struct ctl_command *command;

	slu_tool_init("sluicectl");
	if (!slu_tool_options_before(&argc, &argv, "COMMAND [ARGUMENT…]", summary, entries))
		return CTL_USAGE;
	if (opt_version)
		return slu_tool_version();
	if (argc < 1) {
		slu_tool_error("no command; see --help");
		return CTL_USAGE;
	}
	command = find_command(argv[0]);
	if (!command) {
		slu_tool_error("\"%s\" is not a command; see --help", argv[0]);
		return CTL_USAGE;
	}
	if (!command_options(command, &argc, &argv))
		return CTL_USAGE;
	if (opt_version)
		return slu_tool_version();
	if (opt_mountpoint && opt_socket) {
		slu_tool_error("-m and -s name the same thing twice");
		return CTL_USAGE;
	}
	if (argc - 1 != command->nargs) {
		slu_tool_error("usage: sluicectl %s%s%s", command->name,
			       *command->arguments ? " " : "", command->arguments);
		return CTL_USAGE;
	}
	return run(command, argv + 1);
}
