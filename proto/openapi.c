/* Routes of one path stand together, as the format wants it. What bodies hold is
 * proto/openapi_schemas.json, which is linked into the binary as it is; FORMS says which of it a
 * path takes. */
#include "proto/openapi.h"

#include <string.h>

#include "proto/json.h"

__asm__(".section .rodata\n"
        "openapi_schemas_begin: .incbin \"" MOED_OPENAPI_SCHEMAS "\"\n"
        "openapi_schemas_end: .byte 0\n"
        ".previous\n");
extern const char openapi_schemas_begin[], openapi_schemas_end[];

static void append_member(struct buffer *body, const char *key, const char *value)
{
    buffer_format(body, "\"%s\":", key);
    json_append_string(body, value);
}

/* ---- what paths take and answer ---- */

#define JSON_TYPE "\"application/json\":{}"

/* Of paths with this end: the schema of the request's JSON, and content types of the answer. */
struct form {
    const char *end, *schema, *answers;
};

static const struct form FORMS[] = {
    {"/infer", "InferRequest", JSON_TYPE ",\"application/octet-stream\":{}"},
    {":predict", "PredictRequest", JSON_TYPE},
    {"/feedback", "FeedbackRequest", JSON_TYPE},
    {"/quarantine", "QuarantineRequest", JSON_TYPE},
    {"/index", "IndexRequest", JSON_TYPE},
    {"/load", "LoadRequest", JSON_TYPE},
    {"/unload", "LoadRequest", JSON_TYPE},
    {"/logging", "LoggingRequest", JSON_TYPE},
    {"/trace/setting", "TraceRequest", JSON_TYPE},
    {"/v1/completions", "CompletionRequest", JSON_TYPE ",\"text/event-stream\":{}"},
    {"/chat/completions", "ChatRequest", JSON_TYPE ",\"text/event-stream\":{}"},
    {"/embeddings", "EmbeddingRequest", JSON_TYPE},
    {"/tokenize", "TokenizeRequest", JSON_TYPE},
    {"/detokenize", "DetokenizeRequest", JSON_TYPE},
    {"/apply-template", "ChatRequest", JSON_TYPE},
    {"/routing/live", NULL, "\"text/event-stream\":{}"},
    {"/metrics", NULL, "\"text/plain\":{},\"application/openmetrics-text\":{}"},
    {"/start_expert_distribution_record", NULL, "\"text/plain\":{}"},
    {"/stop_expert_distribution_record", NULL, "\"text/plain\":{}"},
    {"/ui/{m}", NULL, "\"text/css\":{},\"text/javascript\":{}"},
};

static bool ends_in(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

static const struct form *form_of(const char *path)
{
    static const struct form PAGE = {"/", NULL, JSON_TYPE ",\"text/html\":{}"},
                             OTHER = {"", NULL, JSON_TYPE};
    if (strcmp(path, "/") == 0)
        return &PAGE;
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++)
        if (ends_in(path, FORMS[i].end))
            return &FORMS[i];
    return &OTHER;
}

/* ---- parameters ---- */

static const struct {
    const char *mark; /* in the path */
    const char *text;
} PARAMETERS[] = {
    {"{m}", "{\"name\":\"m\",\"in\":\"path\",\"required\":true,\"description\":\"a model's "
            "name\",\"schema\":{\"type\":\"string\"}}"},
    {"{v}", "{\"name\":\"v\",\"in\":\"path\",\"required\":true,\"description\":\"a version's "
            "number or label\",\"schema\":{\"type\":\"string\"}}"},
};

static void append_parameters(const char *path, struct buffer *body)
{
    const char *separator = "";
    buffer_text(body, "\"parameters\":[");
    for (size_t i = 0; i < sizeof PARAMETERS / sizeof *PARAMETERS; i++)
        if (strstr(path, PARAMETERS[i].mark)) {
            buffer_format(body, "%s%s", separator, PARAMETERS[i].text);
            separator = ",";
        }
    buffer_text(body, "]");
}

/* ---- operations ---- */

/* "post_v2_models_m_infer". */
static void append_operation_id(const struct openapi_route *route, struct buffer *body)
{
    buffer_format(body, "\"operationId\":\"%s", route->method);
    bool gap = true;
    for (const char *at = route->path; *at; at++) {
        bool is_word = strchr("/{}:", *at) == NULL;
        if (is_word && gap)
            buffer_text(body, "_");
        if (is_word)
            buffer_append(body, at, 1);
        gap = !is_word;
    }
    if (strcmp(route->path, "/") == 0)
        buffer_text(body, "_root");
    else if (route->path[strlen(route->path) - 1] == '/')
        buffer_text(body, "_slash");
    buffer_text(body, "\"");
}

static void append_request(const struct form *form, struct buffer *body)
{
    buffer_format(body,
                  ",\"requestBody\":{\"content\":{\"application/json\":{\"schema\":{\"$ref\":"
                  "\"#/components/schemas/%s\"}}%s}}",
                  form->schema,
                  strcmp(form->end, "/infer") == 0 ? ",\"application/octet-stream\":{}" : "");
}

/* Any request may get these. */
static const char *const REFUSALS[] = {"400", "401", "403", "408", "413", "414",
                                       "429", "431", "500", "501", "503", "505"};

static void append_refusal(const struct openapi_route *route, const char *status,
                           struct buffer *body)
{
    /* A document says it, too, where readiness is asked for. */
    const char *response = route->tells_readiness && strcmp(status, "503") == 0 ? "NotReady"
                           : route->openai_errors                               ? "OpenAIError"
                                                                                : "Error";
    buffer_format(body, ",\"%s\":{\"$ref\":\"#/components/responses/%s\"}", status, response);
}

static void append_responses(const struct openapi_route *route, const struct form *form,
                             struct buffer *body)
{
    buffer_format(body, ",\"responses\":{\"200\":{\"description\":\"the answer\",\"content\":{%s}}",
                  form->answers);
    for (size_t i = 0; i < sizeof REFUSALS / sizeof *REFUSALS; i++)
        append_refusal(route, REFUSALS[i], body);
    if (strstr(route->path, "{m}") || (route->openai_errors && route->has_body))
        append_refusal(route, "404", body);
    if (route->has_body) {
        append_refusal(route, "415", body);
        append_refusal(route, "504", body);
    }
    buffer_text(body, "}");
}

static void append_operation(const struct openapi_route *route, struct buffer *body)
{
    const struct form *form = form_of(route->path);
    buffer_format(body, "\"%s\":{", route->method);
    append_operation_id(route, body);
    buffer_text(body, ",");
    append_member(body, "summary", route->summary);
    buffer_format(body, ",\"tags\":[\"%s\"],", route->tag);
    append_parameters(route->path, body);
    if (route->has_body)
        append_request(form, body);
    append_responses(route, form, body);
    buffer_text(body, "}");
}

static bool is_first_of_path(const struct openapi_route *routes, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (strcmp(routes[i].path, routes[index].path) == 0)
            return false;
    return true;
}

static void append_path(const struct openapi_route *routes, size_t first, size_t count,
                        struct buffer *body)
{
    const char *separator = "";
    json_append_string(body, routes[first].path);
    buffer_text(body, ":{");
    for (size_t i = first; i < count; i++)
        if (strcmp(routes[i].path, routes[first].path) == 0) {
            buffer_text(body, separator);
            append_operation(&routes[i], body);
            separator = ",";
        }
    buffer_text(body, "}");
}

static void append_response(const char *name, const char *schema, struct buffer *body)
{
    buffer_format(body,
                  "\"%s\":{\"description\":\"what, where, what was expected\",\"content\":{"
                  "\"application/json\":{\"schema\":%s}}}",
                  name, schema);
}

void openapi_document(const char *version, const struct openapi_route *routes, size_t count,
                      struct buffer *body)
{
    buffer_text(body, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"moed\",");
    append_member(body, "description",
                  "Inference with Mixture-of-Experts models, and which expert served what.");
    buffer_text(body, ",\"license\":{\"name\":\"MIT\",\"identifier\":\"MIT\"},");
    append_member(body, "version", version);
    buffer_text(body, "},\"servers\":[{\"url\":\"/\"}],\"paths\":{");
    for (size_t i = 0; i < count; i++) {
        if (!is_first_of_path(routes, i))
            continue;
        buffer_text(body, i > 0 ? "," : "");
        append_path(routes, i, count, body);
    }
    buffer_text(body, "},\"components\":{\"responses\":{");
    append_response("Error", "{\"$ref\":\"#/components/schemas/Error\"}", body);
    buffer_text(body, ",");
    append_response("OpenAIError", "{\"$ref\":\"#/components/schemas/OpenAIError\"}", body);
    buffer_text(body, ",");
    append_response("NotReady", "{\"type\":\"object\"}", body);
    buffer_text(body, "},\"schemas\":");
    buffer_append(body, openapi_schemas_begin,
                  (size_t)(openapi_schemas_end - openapi_schemas_begin));
    buffer_text(body, "}}");
}
