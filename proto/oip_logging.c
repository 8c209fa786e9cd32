/* Triton's settings are switches; errors are always logged. */
#include "proto/oip_logging.h"

#include <string.h>

#include "core/parse_json.h"
#include "proto/members.h"

enum { MAX_HEAP = 1 << 20 };

static const char *const KNOWN[] = {"log_file",  "log_info",          "log_warning",
                                    "log_error", "log_verbose_level", "log_format"};

static int check_keys(const json_t *root, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)root, key, value) {
        size_t i = 0, count = sizeof KNOWN / sizeof *KNOWN;
        while (i < count && strcmp(KNOWN[i], key) != 0)
            i++;
        if (i == count)
            return error_set(err, ERROR_INVALID, "unknown setting " QUOTED, key);
    }
    return 0;
}

static int read_settings(const json_t *root, struct oip_logging *settings, struct error *err)
{
    const char *file = "", *format = "default";
    bool errors = true;
    if (!json_is_object(root))
        return error_set(err, ERROR_INVALID, "the body is %s, expected an object",
                         member_type(root));
    if (check_keys(root, err) != 0 || member_string(root, NULL, "log_file", &file, err) != 0 ||
        member_string(root, NULL, "log_format", &format, err) != 0 ||
        member_bool(root, NULL, "log_error", &errors, err) != 0 ||
        member_bool(root, NULL, "log_info", &settings->info, err) != 0 ||
        member_bool(root, NULL, "log_warning", &settings->warning, err) != 0 ||
        member_size(root, NULL, "log_verbose_level", &settings->verbose_level, err) != 0)
        return -1;
    if (!errors || *file || strcmp(format, "default") != 0)
        return error_set(err, ERROR_INVALID,
                         "errors are always logged, to standard error, in the format of the "
                         "start: expected log_error true, log_file \"\", log_format \"default\"");
    return 0;
}

int oip_decode_logging(const char *body, size_t length, struct oip_logging *settings,
                       struct error *err)
{
    struct json_fault fault;
    struct oip_logging read = *settings;
    json_t *root = parse_json(body, length, 0, MAX_HEAP, &fault);
    if (!root)
        return member_no_tree(&fault, err);
    int result = read_settings(root, &read, err);
    json_decref(root);
    if (result == 0)
        *settings = read;
    return result;
}

void oip_logging_document(const struct oip_logging *settings, struct buffer *body)
{
    buffer_format(body,
                  "{\"log_file\":\"\",\"log_info\":%s,\"log_warning\":%s,\"log_error\":true,"
                  "\"log_verbose_level\":%zu,\"log_format\":\"default\"}",
                  settings->info ? "true" : "false", settings->warning ? "true" : "false",
                  settings->verbose_level);
}
