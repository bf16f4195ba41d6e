/* SPDX-License-Identifier: MIT */
/*
 * sluicectl freeze and thaw.
 */
#include "ctl_private.h"

static gchar *opt_timeout;

const GOptionEntry ctl_freeze_options[] = {
	{"timeout", 't', 0, G_OPTION_ARG_STRING, &opt_timeout,
	 "When it thaws by itself (default: 60)", "SECONDS"},
	{NULL},
};

int ctl_freeze(struct ctl *c, char **args)
{
	JsonObject *parameters = NULL, *reply;
	uint64_t ns;

	(void)args;
	if (opt_timeout) {
		if (!slu_tool_seconds("--timeout", opt_timeout, &ns))
			return CTL_USAGE;
		if (!ns) {
			slu_tool_error("--timeout: a volume cannot be frozen for no time");
			return CTL_USAGE;
		}
		parameters = json_object_new();
		json_object_set_double_member(parameters, "timeout", (double)ns / 1e9);
	}
	reply = ctl_call(c, "Freeze", parameters);
	if (!reply)
		return CTL_FAILED;
	if (c->json)
		ctl_print_json(reply);
	else
		printf("frozen; thaws by itself after %g s\n",
		       json_object_get_double_member_with_default(reply, "timeout", 0));
	json_object_unref(reply);
	return CTL_OK;
}

int ctl_thaw(struct ctl *c, char **args)
{
	JsonObject *reply = ctl_call(c, "Thaw", NULL);

	(void)args;
	if (!reply)
		return CTL_FAILED;
	if (c->json)
		ctl_print_json(reply);
	else
		printf("thawed after %.1f s\n",
		       json_object_get_double_member_with_default(reply, "seconds", 0));
	json_object_unref(reply);
	return CTL_OK;
}
