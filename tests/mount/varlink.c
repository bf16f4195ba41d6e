/* SPDX-License-Identifier: MIT */
/*
 * mount_varlink SOCKET METHOD [PARAMETERS [REPLIES]]: calls a method of org.sluicefs.Volume and holds
 * its replies against the interface, as that daemon describes it: every field has a declared name and
 * its type, and none is missing that must be there. So must the parameters be. PARAMETERS: a JSON object. With REPLIES it asks for
 * more, and ends after so many, or, with 0, at the last. Prints the fields that it has seen a value of:
 * "Type.field", "Method().field", and "Method()" of a reply without any.
 *
 * mount_varlink SOCKET: prints all that there are.
 */
#include "sluice/control.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INTERFACE "org.sluicefs.Volume"

enum kind { BOOL, INT, FLOAT, STRING, STRUCT, NAMED, NULLABLE, ARRAY, MAP };

struct type {
	enum kind kind;
	char *name;           /* NAMED; STRUCT: what its fields are printed with */
	struct type *element; /* NULLABLE, ARRAY, MAP */
	GPtrArray *fields;    /* STRUCT: of struct field */
};

struct field {
	char *name;
	struct type *type;
};

/* Nothing of it is freed before the end. */
static GHashTable *types;   /* name: STRUCT */
static GHashTable *methods; /* name: STRUCT, of the reply */
static GHashTable *calls;   /* the same, of the parameters */
static GHashTable *seen;    /* names, as they are printed */
static bool failed;

static void fail(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

static void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	failed = true;
}

/* ------------------------------------------------------------------ the interface */

static const char *at; /* the rest of the description */

static void skip_blanks(void)
{
	while (*at && strchr(" \t\n#", *at))
		at += *at == '#' ? strcspn(at, "\n") : 1;
}

static bool next_is(const char *word)
{
	skip_blanks();
	if (!g_str_has_prefix(at, word))
		return false;
	at += strlen(word);
	return true;
}

static void must_be(const char *word)
{
	if (next_is(word))
		return;
	fprintf(stderr, "the interface: \"%s\" expected before \"%.40s\"\n", word, at);
	exit(1);
}

static char *name(void)
{
	size_t len;
	char *word;

	skip_blanks();
	len = strspn(at, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._");
	if (!len)
		must_be("a name");
	word = g_strndup(at, len);
	at += len;
	return word;
}

static struct type *new_type(enum kind kind, char *word, struct type *element)
{
	struct type *t = g_new(struct type, 1);

	*t = (struct type){.kind = kind, .name = word, .element = element};
	return t;
}

static struct type *parse_struct(char *owner);

static struct type *parse_type(const char *owner, const char *field)
{
	static const char *const words[] = {"bool", "int", "float", "string"};
	char *word;

	if (next_is("?"))
		return new_type(NULLABLE, NULL, parse_type(owner, field));
	if (next_is("[]"))
		return new_type(ARRAY, NULL, parse_type(owner, field));
	if (next_is("[string]"))
		return new_type(MAP, NULL, parse_type(owner, field));
	skip_blanks();
	if (*at == '(')
		return parse_struct(g_strdup_printf("%s.%s", owner, field));
	word = name();
	for (enum kind kind = BOOL; kind <= STRING; kind++) {
		if (strcmp(word, words[kind]) == 0) {
			g_free(word);
			return new_type(kind, NULL, NULL);
		}
	}
	return new_type(NAMED, word, NULL);
}

static struct type *parse_struct(char *owner)
{
	struct type *t = new_type(STRUCT, owner, NULL);

	t->fields = g_ptr_array_new();
	must_be("(");
	if (next_is(")"))
		return t;
	do {
		struct field *f = g_new(struct field, 1);

		f->name = name();
		must_be(":");
		f->type = parse_type(owner, f->name);
		g_ptr_array_add(t->fields, f);
	} while (next_is(","));
	must_be(")");
	return t;
}

static void parse_interface(const char *description)
{
	char *word;

	at = description;
	types = g_hash_table_new(g_str_hash, g_str_equal);
	methods = g_hash_table_new(g_str_hash, g_str_equal);
	calls = g_hash_table_new(g_str_hash, g_str_equal);
	must_be("interface " INTERFACE);
	for (skip_blanks(); *at; skip_blanks()) {
		if (next_is("type ")) {
			word = name();
			g_hash_table_insert(types, word, parse_struct(word));
		} else if (next_is("method ")) {
			word = name();
			g_hash_table_insert(calls, word,
					    parse_struct(g_strconcat(word, "(...)", NULL)));
			must_be("->");
			g_hash_table_insert(methods, word,
					    parse_struct(g_strconcat(word, "()", NULL)));
		} else {
			must_be("error "); /* of which the client shows no more than the message */
			at += strcspn(at, ")");
			must_be(")");
		}
	}
}

/* ------------------------------------------------------------------ values */

static void check(const struct type *t, JsonNode *value, const char *path);

static void check_struct(const struct type *t, JsonObject *o, const char *path)
{
	g_autoptr(GList) members = json_object_get_members(o);
	unsigned int known = 0;

	if (!t->fields->len)
		g_hash_table_add(seen, g_strdup(t->name));
	for (guint i = 0; i < t->fields->len; i++) {
		const struct field *f = g_ptr_array_index(t->fields, i);
		g_autofree char *inner = g_strdup_printf("%s.%s", path, f->name);
		JsonNode *value = json_object_get_member(o, f->name);

		known += value != NULL;
		if (!value || JSON_NODE_HOLDS_NULL(value)) {
			if (f->type->kind != NULLABLE)
				fail("%s is missing", inner);
			continue;
		}
		g_hash_table_add(seen, g_strdup_printf("%s.%s", t->name, f->name));
		check(f->type, value, inner);
	}
	for (GList *l = members; l && known < g_list_length(members); l = l->next) {
		bool declared = false;

		for (guint i = 0; i < t->fields->len; i++) {
			const struct field *f = g_ptr_array_index(t->fields, i);

			declared |= strcmp(f->name, l->data) == 0;
		}
		if (!declared)
			fail("%s.%s is not declared", path, (const char *)l->data);
	}
}

static void check_array(const struct type *element, JsonArray *a, const char *path)
{
	for (guint i = 0; i < json_array_get_length(a); i++) {
		g_autofree char *inner = g_strdup_printf("%s[%u]", path, i);

		check(element, json_array_get_element(a, i), inner);
	}
}

static void check_map(const struct type *element, JsonObject *o, const char *path)
{
	g_autoptr(GList) members = json_object_get_members(o);

	for (GList *l = members; l; l = l->next) {
		g_autofree char *inner = g_strdup_printf("%s[%s]", path, (const char *)l->data);

		check(element, json_object_get_member(o, l->data), inner);
	}
}

static bool holds(JsonNode *value, GType type)
{
	return JSON_NODE_HOLDS_VALUE(value) && json_node_get_value_type(value) == type;
}

/* NULL: it is of this kind, as far as can be said without looking into it. */
static const char *expected(enum kind kind, JsonNode *value)
{
	switch (kind) {
	case BOOL:
		return holds(value, G_TYPE_BOOLEAN) ? NULL : "a bool";
	case INT:
		return holds(value, G_TYPE_INT64) ? NULL : "an int";
	case FLOAT:
		return holds(value, G_TYPE_DOUBLE) ? NULL : "a float";
	case STRING:
		return holds(value, G_TYPE_STRING) ? NULL : "a string";
	case STRUCT:
	case MAP:
		return JSON_NODE_HOLDS_OBJECT(value) ? NULL : "an object";
	case ARRAY:
		return JSON_NODE_HOLDS_ARRAY(value) ? NULL : "an array";
	case NAMED:
	case NULLABLE:
		break;
	}
	return NULL;
}

static void check(const struct type *t, JsonNode *value, const char *path)
{
	const struct type *named;
	const char *what = expected(t->kind, value);

	if (what) {
		g_autofree char *text = json_to_string(value, false);

		fail("%s is %s and not %s", path, text, what);
		return;
	}
	switch (t->kind) {
	case NULLABLE:
		if (!JSON_NODE_HOLDS_NULL(value))
			check(t->element, value, path);
		break;
	case NAMED:
		named = g_hash_table_lookup(types, t->name);
		if (named)
			check(named, value, path);
		else
			fail("%s is of a type that is not declared: %s", path, t->name);
		break;
	case STRUCT:
		check_struct(t, json_node_get_object(value), path);
		break;
	case ARRAY:
		check_array(t->element, json_node_get_array(value), path);
		break;
	case MAP:
		check_map(t->element, json_node_get_object(value), path);
		break;
	case BOOL:
	case INT:
	case FLOAT:
	case STRING:
		break;
	}
}

/* ------------------------------------------------------------------ calls */

struct call {
	const struct type *reply;
	unsigned long left; /* replies; 0: all */
	unsigned int n;
};

static bool check_reply(void *ctx, JsonObject *reply)
{
	struct call *call = ctx;

	check_struct(call->reply, reply, call->reply->name);
	call->n++;
	return !call->left || --call->left;
}

static JsonObject *parse_parameters(const char *text)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonNode) node = json_from_string(text, &error);

	if (node && JSON_NODE_HOLDS_OBJECT(node))
		return json_node_dup_object(node);
	fprintf(stderr, "%s: %s\n", text, error ? error->message : "no object");
	exit(2);
}

/* parameters, replies: as on the command line, or NULL. */
static void call_method(struct slu_control_client *c, const char *method, const char *parameters,
			const char *replies)
{
	g_autofree char *whole = g_strconcat(INTERFACE ".", method, NULL);
	JsonObject *object = parameters ? parse_parameters(parameters) : NULL, *reply;
	struct call call = {.reply = g_hash_table_lookup(methods, method)};
	g_autoptr(GError) error = NULL;

	if (!call.reply) {
		fail("%s() is not declared", method);
		return;
	}
	if (object)
		check_struct(g_hash_table_lookup(calls, method), object, method);
	if (replies) {
		call.left = strtoul(replies, NULL, 10);
		if (!slu_control_stream(c, whole, object, check_reply, &call, &error))
			fail("%s(): %s", method, error->message);
	} else if ((reply = slu_control_call(c, whole, object, &error))) {
		check_reply(&call, reply);
		json_object_unref(reply);
	} else {
		fail("%s(): %s", method, error->message);
	}
	if (!call.n && !failed)
		fail("%s(): no reply was looked at", method);
}

static void print_struct(const struct type *t)
{
	if (!t->fields->len)
		printf("%s\n", t->name);
	for (guint i = 0; i < t->fields->len; i++) {
		const struct field *f = g_ptr_array_index(t->fields, i);
		const struct type *inner = f->type;

		printf("%s.%s\n", t->name, f->name);
		while (inner->element)
			inner = inner->element;
		if (inner->kind == STRUCT)
			print_struct(inner);
	}
}

static void print_all(GHashTable *structs)
{
	GHashTableIter iter;
	gpointer value;

	g_hash_table_iter_init(&iter, structs);
	while (g_hash_table_iter_next(&iter, NULL, &value))
		print_struct(value);
}

static char *describe(struct slu_control_client *c, GError **error)
{
	JsonObject *parameters = json_object_new(), *reply;
	char *text;

	json_object_set_string_member(parameters, "interface", INTERFACE);
	reply = slu_control_call(c, "org.varlink.service.GetInterfaceDescription", parameters,
				 error);
	if (!reply)
		return NULL;
	text = g_strdup(json_object_get_string_member_with_default(reply, "description", ""));
	json_object_unref(reply);
	return text;
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *description = NULL;
	struct slu_control_client *c;
	GHashTableIter iter;
	gpointer key;

	if (argc < 2 || argc > 5) {
		fprintf(stderr, "usage: mount_varlink SOCKET [METHOD [PARAMETERS [REPLIES]]]\n");
		return 2;
	}
	c = slu_control_connect(argv[1], geteuid(), &error);
	if (c)
		description = describe(c, &error);
	if (!description) {
		fprintf(stderr, "%s\n", error->message);
		return 1;
	}
	parse_interface(description);
	seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	if (argc > 2) {
		call_method(c, argv[2], argc > 3 ? argv[3] : NULL, argc > 4 ? argv[4] : NULL);
	} else {
		print_all(types);
		print_all(methods);
	}
	g_hash_table_iter_init(&iter, seen);
	while (g_hash_table_iter_next(&iter, &key, NULL))
		puts(key);
	g_hash_table_unref(seen);
	slu_control_close(c);
	return failed;
}
