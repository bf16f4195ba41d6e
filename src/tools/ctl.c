/* SPDX-License-Identifier: MIT */
/*
 * sluicectl: asks the daemon of a mounted volume through its control socket.
 */
#include "ctl_private.h"
#include "sluice/config.h"
#include <string.h>
#include <sys/stat.h>

static gchar *opt_mountpoint, *opt_socket, *opt_config;
static gboolean opt_json, opt_version;

static const GOptionEntry entries[] = {
	{"mount", 'm', 0, G_OPTION_ARG_FILENAME, &opt_mountpoint, "The volume mounted there",
	 "MOUNTPOINT"},
	{"socket", 's', 0, G_OPTION_ARG_FILENAME, &opt_socket, "The volume behind this socket",
	 "SOCKET"},
	{"config", 'c', 0, G_OPTION_ARG_FILENAME, &opt_config,
	 "The volume that this file describes", "FILE"},
	{"json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "Answer in JSON", NULL},
	{"version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "Show the version", NULL},
	{NULL},
};

static const struct ctl_command commands[] = {
	{"status", "", "How the volume is", true, 0, 0, NULL, ctl_status},
	{"list", "", "All volumes that are mounted", false, 0, 0, NULL, ctl_list},
	{"top", "", "What it does at the moment, and how fast", true, 0, 0, ctl_top_options,
	 ctl_top},
	{"watch", "", "What happens, as it happens", true, 0, 0, ctl_watch_options, ctl_watch},
	{"metrics", "", "Every counter, in Prometheus's text format", false, 0, 0,
	 ctl_metrics_options, ctl_metrics},
	{"sync", "", "Return when everything is on disk", true, 0, 0, NULL, ctl_sync},
	{"freeze", "", "Leave the image alone, so that it can be copied", true, 0, 0,
	 ctl_freeze_options, ctl_freeze},
	{"thaw", "", "End that", true, 0, 0, NULL, ctl_thaw},
	{"scrub", "", "Look for damage, while the volume is used", true, 0, 0, ctl_scrub_options,
	 ctl_scrub},
	{"grow", "[SIZE|+SIZE]", "Make the volume longer while it is in use", true, 0, 1, NULL,
	 ctl_grow},
	{"map", "FILE", "Where a file lies in the volume", false, 0, 1, ctl_map_options, ctl_map},
};

static char *about(void)
{
	GString *s = g_string_new(
		"Asks the daemon of a mounted volume: the only one, or as -m, -s or -c "
		"say.\nCOMMAND --help shows the options of a command. Commands:\n");

	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		g_string_append_printf(s, "%s  %-9s%-18s%s", i ? "\n" : "", commands[i].name,
				       commands[i].arguments, commands[i].help);
	return g_string_free(s, FALSE);
}

/* What follows the program's name and the options. */
static char *usage_of(const struct ctl_command *command)
{
	if (!command)
		return g_strdup("COMMAND [ARGUMENT…]");
	return g_strconcat(command->name, *command->arguments ? " " : "", command->arguments, NULL);
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

/* Where a file as in sluicefs.conf(5) has the volume mounted. */
static char *configured_mountpoint(const char *file)
{
	g_autoptr(GError) error = NULL;
	struct slu_config *config = slu_config_load(file, &error);
	char *mountpoint;

	if (!config) {
		slu_tool_error("%s", error->message);
		return NULL;
	}
	mountpoint = g_steal_pointer(&config->mountpoint);
	slu_config_free(config);
	return mountpoint;
}

static struct slu_mount_entry *the_mount(const struct ctl *c)
{
	g_autofree char *configured = NULL;

	if (!c->config)
		return c->mountpoint ? find_mount(c->mountpoint) : only_mount();
	configured = configured_mountpoint(c->config);
	return configured ? find_mount(configured) : NULL;
}

struct slu_control_client *ctl_connect_socket(const char *path, GError **error)
{
	struct slu_control_client *c;
	struct stat st;
	uid_t uid = geteuid();

	if (uid == 0 && !stat(path, &st))
		uid = st.st_uid;
	c = slu_control_connect(path, uid, error);
	if (!c || slu_control_hello(c, error))
		return c;
	g_prefix_error(error, "%s: ", path);
	slu_control_close(c);
	return NULL;
}

struct slu_control_client *ctl_connect(const struct ctl *c)
{
	g_autoptr(GError) error = NULL;
	struct slu_control_client *client = NULL;
	struct slu_mount_entry *e;

	if (c->socket) {
		client = ctl_connect_socket(c->socket, &error);
	} else {
		e = the_mount(c);
		if (!e)
			return NULL;
		client = slu_control_ask_mount(e, &error);
		slu_mount_entry_free(e);
	}
	if (!client)
		slu_tool_error("%s", error->message);
	return client;
}

char *ctl_mountpoint(const struct ctl *c)
{
	g_autofree char *configured = c->config ? configured_mountpoint(c->config) : NULL;
	const char *mountpoint = c->config ? configured : c->mountpoint;
	struct slu_mount_entry *e;
	char *path;

	if (c->config && !configured)
		return NULL;
	if (mountpoint) {
		path = slu_path_canonical(mountpoint);
		return path ? path : g_canonicalize_filename(mountpoint, NULL);
	}
	e = only_mount();
	path = e ? g_strdup(e->target) : NULL;
	slu_mount_entry_free(e);
	return path;
}

JsonObject *ctl_call(struct ctl *c, const char *method, JsonObject *parameters)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *full = g_strconcat(VOLUME, method, NULL);
	JsonObject *reply = slu_control_call(c->client, full, parameters, &error);

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

static const struct ctl_command *find_command(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

/* Whether what follows this argument is its value. */
static bool takes_value(const char *arg)
{
	for (const GOptionEntry *e = entries; e->long_name; e++) {
		if (e->arg == G_OPTION_ARG_NONE)
			continue;
		if (arg[1] == '-' ? strcmp(arg + 2, e->long_name) == 0
				  : arg[1] == e->short_name && !arg[2])
			return true;
	}
	return false;
}

/* The command decides which options there are, so it is looked for before they are parsed. */
static const struct ctl_command *first_command(int argc, char **argv)
{
	int i = 1;

	while (i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0)
		i += takes_value(argv[i]) ? 2 : 1;
	return i < argc ? find_command(argv[i]) : NULL;
}

/* The common ones and the command's; g_free. */
static GOptionEntry *all_options(const struct ctl_command *command)
{
	GArray *all = g_array_new(TRUE, TRUE, sizeof(GOptionEntry));

	g_array_append_vals(all, entries, G_N_ELEMENTS(entries) - 1);
	for (const GOptionEntry *e = command ? command->options : NULL; e && e->long_name; e++)
		g_array_append_vals(all, e, 1);
	return (GOptionEntry *)(void *)g_array_free(all, FALSE);
}

static int run(const struct ctl_command *command, char **args)
{
	struct ctl c = {.mountpoint = opt_mountpoint,
			.socket = opt_socket,
			.config = opt_config,
			.json = opt_json};
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
	const struct ctl_command *command = first_command(argc, argv);
	g_autofree char *summary = command ? g_strdup(command->help) : about();
	g_autofree char *usage = usage_of(command);
	g_autofree GOptionEntry *options = all_options(command);

	slu_tool_init("sluicectl");
	if (!slu_tool_options(&argc, &argv, usage, summary, options))
		return CTL_USAGE;
	if (opt_version)
		return slu_tool_version();
	if (!!opt_mountpoint + !!opt_socket + !!opt_config > 1) {
		slu_tool_error("-m, -s and -c: two of them name the same thing twice");
		return CTL_USAGE;
	}
	if (argc < 2) {
		slu_tool_error("no command; see --help");
		return CTL_USAGE;
	}
	command = find_command(argv[1]);
	if (!command) {
		slu_tool_error("\"%s\" is not a command; see --help", argv[1]);
		return CTL_USAGE;
	}
	if (argc - 2 < command->nargs || argc - 2 > command->nargs + command->more) {
		slu_tool_error("usage: sluicectl %s%s%s", command->name,
			       *command->arguments ? " " : "", command->arguments);
		return CTL_USAGE;
	}
	return run(command, argv + 2);
}
