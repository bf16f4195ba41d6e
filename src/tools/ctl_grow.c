/* SPDX-License-Identifier: MIT */
/* sluicectl grow: a longer volume. */
#include "ctl_private.h"
#include "sluice/units.h"

static JsonObject *parameters(const char *arg)
{
	bool by = arg && *arg == '+';
	JsonObject *o = json_object_new();
	uint64_t size;

	if (!arg)
		return o;
	if (!slu_tool_size("grow", by ? arg + 1 : arg, 0, &size)) {
		json_object_unref(o);
		return NULL;
	}
	if (size < SLU_BLOCK_SIZE || size > INT64_MAX) {
		slu_tool_error("grow: \"%s\" is too %s", arg,
			       size < SLU_BLOCK_SIZE ? "small" : "large");
		json_object_unref(o);
		return NULL;
	}
	json_object_set_int_member(o, by ? "by" : "size", (gint64)size);
	return o;
}

int ctl_grow(struct ctl *c, char **args)
{
	char from[SLU_SIZE_STR], to[SLU_SIZE_STR];
	JsonObject *p = parameters(*args), *reply;

	if (!p)
		return CTL_USAGE;
	reply = ctl_call(c, "Grow", p);
	if (!reply)
		return CTL_FAILED;
	slu_format_size((uint64_t)json_object_get_int_member_with_default(reply, "from", 0), from);
	slu_format_size((uint64_t)json_object_get_int_member_with_default(reply, "to", 0), to);
	if (c->json)
		ctl_print_json(reply);
	else if (json_object_get_int_member_with_default(reply, "from", 0) ==
		 json_object_get_int_member_with_default(reply, "to", 0))
		printf("the volume has %s already\n", to);
	else
		printf("the volume has grown from %s to %s\n", from, to);
	json_object_unref(reply);
	return CTL_OK;
}
