/* Triton's numbers are strings. */
#include "proto/oip_trace.h"

#include <inttypes.h>
#include <string.h>

#include "core/parse_json.h"
#include "core/text.h"
#include "proto/members.h"

enum { MAX_HEAP = 1 << 20, MAX_RATE = 1000000000 };

static int read_rate(const json_t *rate, struct oip_trace *settings, struct error *err)
{
    uint64_t value;
    const char *text = json_string_value(rate);
    if (!text)
        return error_set(err, ERROR_INVALID,
                         "trace_rate is %s, expected a string of a whole number up to %d",
                         member_type(rate), MAX_RATE);
    const char *end = text_whole_number(text, &value);
    if (!end || *end || value > MAX_RATE)
        return error_set(err, ERROR_INVALID,
                         "trace_rate is " QUOTED ", expected a string of a whole number up to %d",
                         text, MAX_RATE);
    settings->rate = (unsigned)value;
    settings->off &= value == 0;
    return 0;
}

static int read_level(const json_t *levels, struct oip_trace *settings, struct error *err)
{
    const char *level = json_string_value(json_array_get(levels, 0));
    if (json_array_size(levels) != 1 || !level ||
        (strcmp(level, "OFF") != 0 && strcmp(level, "TIMESTAMPS") != 0))
        return error_set(err, ERROR_INVALID, "trace_level: expected [\"OFF\"] or [\"TIMESTAMPS\"]");
    settings->off = strcmp(level, "OFF") == 0;
    if (settings->off || settings->rate > 0 || !settings->has_collector)
        return 0; /* the last is refused by who knows what else was asked for */
    return error_set(err, ERROR_INVALID,
                     "trace_level is TIMESTAMPS, but trace_rate is 0: send a trace_rate, too");
}

static int read_settings(const json_t *root, struct oip_trace *settings, struct error *err)
{
    const char *key;
    json_t *value;
    int result = 0;
    if (!json_is_object(root))
        return error_set(err, ERROR_INVALID, "the body is %s, expected an object",
                         member_type(root));
    json_object_foreach ((json_t *)root, key, value) {
        if (strcmp(key, "trace_rate") != 0 && strcmp(key, "trace_level") != 0)
            return error_set(err, ERROR_INVALID,
                             "setting " QUOTED " cannot be changed, only trace_rate and "
                             "trace_level can",
                             key);
    }
    if ((value = json_object_get(root, "trace_rate")))
        result = read_rate(value, settings, err);
    if (result == 0 && (value = json_object_get(root, "trace_level")))
        result = read_level(value, settings, err);
    return result;
}

int oip_decode_trace(const char *body, size_t length, struct oip_trace *settings, struct error *err)
{
    struct json_fault fault;
    struct oip_trace read = *settings;
    json_t *root = parse_json(body, length, 0, MAX_HEAP, &fault);
    if (!root)
        return member_no_tree(&fault, err);
    int result = read_settings(root, &read, err);
    json_decref(root);
    if (result == 0 && !read.has_collector && !(read.off && read.rate == 0))
        return error_set(err, ERROR_INVALID,
                         "there is no collector to send traces to: start the server with "
                         "--trace-endpoint");
    if (result == 0)
        *settings = read;
    return result;
}

void oip_trace_document(const struct oip_trace *settings, struct buffer *body)
{
    buffer_format(body,
                  "{\"trace_level\":[\"%s\"],\"trace_rate\":\"%u\",\"trace_count\":\"-1\","
                  "\"log_frequency\":\"0\",\"trace_file\":\"\",\"trace_mode\":\"opentelemetry\"}",
                  settings->rate > 0 && !settings->off ? "TIMESTAMPS" : "OFF", settings->rate);
}
