/* Routes of one path stand together, as the format wants it. */
#include "proto/openapi.h"

#include <string.h>

#include "proto/json.h"

static void append_member(struct buffer *body, const char *key, const char *value)
{
    buffer_format(body, "\"%s\":", key);
    json_append_string(body, value);
}

static void append_parameters(const char *path, struct buffer *body)
{
    static const struct {
        const char *mark, *text;
    } PARAMETERS[] = {
        {"{m}", "{\"name\":\"m\",\"in\":\"path\",\"required\":true,\"description\":\"a model's "
                "name\",\"schema\":{\"type\":\"string\"}}"},
        {"{v}", "{\"name\":\"v\",\"in\":\"path\",\"required\":true,\"description\":\"a version's "
                "number or label\",\"schema\":{\"type\":\"string\"}}"},
    };
    const char *separator = "";
    buffer_text(body, "\"parameters\":[");
    for (size_t i = 0; i < sizeof PARAMETERS / sizeof *PARAMETERS; i++)
        if (strstr(path, PARAMETERS[i].mark)) {
            buffer_format(body, "%s%s", separator, PARAMETERS[i].text);
            separator = ",";
        }
    buffer_text(body, "]");
}

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

static void append_operation(const struct openapi_route *route, struct buffer *body)
{
    buffer_format(body, "\"%s\":{", route->method);
    append_operation_id(route, body);
    buffer_text(body, ",");
    append_member(body, "summary", route->summary);
    buffer_format(body, ",\"tags\":[\"%s\"],", route->tag);
    append_parameters(route->path, body);
    if (route->has_body)
        buffer_text(body, ",\"requestBody\":{\"content\":{\"application/json\":{},"
                          "\"application/octet-stream\":{}}}");
    buffer_text(body, ",\"responses\":{\"200\":{\"description\":\"the answer\"},"
                      "\"default\":{\"$ref\":\"#/components/responses/Error\"}}}");
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
    buffer_text(body, "},\"components\":{\"responses\":{\"Error\":{\"description\":\"what, where, "
                      "what was expected\",\"content\":{\"application/json\":{\"schema\":{"
                      "\"$ref\":\"#/components/schemas/Error\"}}}}},\"schemas\":{\"Error\":{"
                      "\"type\":\"object\",\"required\":[\"error\"],\"properties\":{\"error\":{"
                      "\"type\":\"string\"}}}}}}");
}
