/* SPDX-License-Identifier: MIT */
/*
 * selfwrite_json: the results of a matrix as one JSON object.
 */
#include "selfwrite_private.h"
#include <json-glib/json-glib.h>

static const char *const verdict_words[] = {"passed", "failed", "refused", "deadlock"};

static void json_string(JsonBuilder *b, const char *member, const char *value)
{
	json_builder_set_member_name(b, member);
	json_builder_add_string_value(b, value);
}

static void json_int(JsonBuilder *b, const char *member, uint64_t value)
{
	json_builder_set_member_name(b, member);
	json_builder_add_int_value(b, (gint64)value);
}

static void json_combo(JsonBuilder *b, const struct selfwrite_combo *combo,
		       const struct selfwrite_result *result)
{
	json_builder_begin_object(b);
	json_string(b, "name", combo->name);
	json_string(b, "way", selfwrite_way_name(combo->way));
	json_string(b, "io", combo->direct ? "direct" : "buffered");
	json_string(b, "source", selfwrite_source_name(combo->source));
	json_int(b, "size", combo->len);
	if (combo->kind == SELFWRITE_ONE) {
		json_int(b, "from", combo->src);
		json_int(b, "to", combo->dst);
	}
	json_int(b, "threads", slu_max(combo->threads, 1u));
	json_builder_set_member_name(b, "truncate");
	json_builder_add_boolean_value(b, combo->truncate);
	json_string(b, "verdict", verdict_words[result->verdict]);
	json_string(b, "reason", result->reason);
	json_int(b, "milliseconds", result->ms);
	json_builder_end_object(b);
}

void selfwrite_json(const struct selfwrite_job *job, const char *dir,
		    const struct selfwrite_combo *combos, enum selfwrite_verdict verdict)
{
	JsonBuilder *b = json_builder_new();
	JsonNode *root;
	char *text, *shown = g_filename_display_name(dir);

	json_builder_begin_object(b);
	json_string(b, "program", slu_tool_name());
	json_string(b, "version", SLU_VERSION);
	json_string(b, "directory", shown);
	json_int(b, "seed", job->opts->seed);
	json_int(b, "timeout", job->opts->timeout);
	json_string(b, "verdict", verdict_words[verdict]);
	for (size_t i = 0; i < slu_array_size(verdict_words); i++)
		json_int(b, verdict_words[i], job->count[i]);
	json_builder_set_member_name(b, "seconds");
	json_builder_add_double_value(b, job->seconds);
	json_builder_set_member_name(b, "combinations");
	json_builder_begin_array(b);
	for (size_t i = 0; i < job->n; i++) {
		if (job->results[i].ran)
			json_combo(b, &combos[i], &job->results[i]);
	}
	json_builder_end_array(b);
	json_builder_end_object(b);
	root = json_builder_get_root(b);
	text = json_to_string(root, TRUE);
	printf("%s\n", text);
	fflush(stdout);
	g_free(text);
	g_free(shown);
	json_node_unref(root);
	g_object_unref(b);
}
