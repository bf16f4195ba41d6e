/* SPDX-License-Identifier: MIT */
/*
 * org.varlink.service, which every Varlink server has: who it is and what it can be asked. Called
 * in a client's thread; takes no lock.
 */
#include "control_private.h"
#include <string.h>

static const char service_description[] =
	"# What every service can be asked.\n"
	"interface org.varlink.service\n"
	"\n"
	"method GetInfo() -> (\n"
	"  vendor: string,\n"
	"  product: string,\n"
	"  version: string,\n"
	"  url: string,\n"
	"  interfaces: []string\n"
	")\n"
	"\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error MethodNotImplemented (method: string)\n"
	"error InvalidParameter (parameter: string)\n"
	"error PermissionDenied ()\n"
	"error ExpectedMore ()\n";

void service_fail(struct slu_control_call *call, const char *error, const char *name,
		  const char *value)
{
	g_autofree char *full = g_strdup_printf(SERVICE_INTERFACE ".%s", error);

	call_fail(call, full, name ? wire_one_string(name, value) : NULL);
}

static void get_info(struct slu_control_call *call, const struct slu_control_interface *interface)
{
	JsonArray *interfaces = json_array_new();
	JsonObject *info = json_object_new();

	json_array_add_string_element(interfaces, SERVICE_INTERFACE);
	json_array_add_string_element(interfaces, interface->name);
	json_object_set_string_member(info, "vendor", "sluicefs");
	json_object_set_string_member(info, "product", "sluicefs");
	json_object_set_string_member(info, "version", SLU_VERSION);
	json_object_set_string_member(info, "url", "");
	json_object_set_array_member(info, "interfaces", interfaces);
	slu_control_reply(call, info);
}

static void get_description(struct slu_control_call *call,
			    const struct slu_control_interface *interface)
{
	const char *name = slu_control_string(call, "interface");

	if (!name)
		return;
	if (strcmp(name, SERVICE_INTERFACE) == 0)
		slu_control_reply(call, wire_one_string("description", service_description));
	else if (strcmp(name, interface->name) == 0)
		slu_control_reply(call, wire_one_string("description", interface->description));
	else
		service_fail(call, "InterfaceNotFound", "interface", name);
}

void service_run(struct slu_control_call *call, const struct slu_control_interface *interface,
		 const char *method)
{
	if (strcmp(method, "GetInfo") == 0)
		get_info(call, interface);
	else if (strcmp(method, "GetInterfaceDescription") == 0)
		get_description(call, interface);
	else
		service_fail(call, "MethodNotFound", "method", method);
}
