/* One table of whole numbers, and three members of their own. */
#include "proto/serving.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "core/text.h"
#include "proto/members.h"

enum { MAX_HEAP = 1 << 20, MAX_LABEL_BYTES = 64 };

static const uint64_t DAY_MS = 86400000;

/* ---- whole numbers ---- */

struct range {
    uint64_t minimum, maximum;
};

/* A version is at most 18 digits, as in the repository. */
static const struct range VERSIONS = {1, 999999999999999999};

/* Leaves `*number` as it is when the member is absent. */
static int read_number(const json_t *object, const char *where, const char *key, struct range range,
                       uint64_t *number, struct error *err)
{
    const json_t *member = json_object_get(object, key);
    if (!member)
        return 0;
    const json_int_t value = json_integer_value(member);
    if (!json_is_integer(member) || value < 0 || (uint64_t)value < range.minimum ||
        (uint64_t)value > range.maximum)
        return error_set(err, ERROR_INVALID, "%s%s must be a whole number from %llu to %llu", where,
                         key, (unsigned long long)range.minimum, (unsigned long long)range.maximum);
    *number = (uint64_t)value;
    return 0;
}

/* Refuses members that are not in a NULL-terminated list. */
static int check_keys(const json_t *object, const char *where, const char *const *known,
                      struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i])
            return error_set(err, ERROR_INVALID, "%sunknown key " QUOTED, where, key);
    }
    return 0;
}

static int read_limits(const json_t *limits, struct serving_limits *to, struct error *err)
{
    static const struct {
        const char *key;
        size_t offset;
        struct range range;
    } ROWS[] = {
        {"max_batch_rows", offsetof(struct serving_limits, max_batch_rows), {1, 65536}},
        {"max_queue_delay_us", offsetof(struct serving_limits, max_queue_delay_us), {0, 10000000}},
        {"max_queue_rows", offsetof(struct serving_limits, max_queue_rows), {1, 16777216}},
        {"max_request_rows", offsetof(struct serving_limits, max_request_rows), {1, 16777216}},
        {"queue_timeout_ms", offsetof(struct serving_limits, queue_timeout_ms), {1, DAY_MS}},
    };
    enum { COUNT = sizeof ROWS / sizeof *ROWS };
    const char *known[COUNT + 1] = {NULL};
    for (size_t i = 0; i < COUNT; i++) {
        known[i] = ROWS[i].key;
        uint64_t *number = (uint64_t *)(void *)((char *)to + ROWS[i].offset);
        if (read_number(limits, "limits.", ROWS[i].key, ROWS[i].range, number, err) != 0)
            return -1;
    }
    if (to->max_request_rows != SERVING_UNSET && to->max_request_rows > to->max_queue_rows)
        return error_set(err, ERROR_INVALID,
                         "limits: max_request_rows exceeds max_queue_rows: such a request could "
                         "never be queued");
    return check_keys(limits, "limits: ", known, err);
}

/* ---- versions ---- */

static int read_specific(const json_t *list, struct serving *serving, struct error *err)
{
    const size_t count = json_array_size(list);
    if (count == 0)
        return error_set(err, ERROR_INVALID,
                         "version_policy.specific must be a list of version numbers");
    serving->specific = xcalloc(count, sizeof *serving->specific);
    serving->specific_count = count;
    for (size_t i = 0; i < count; i++) {
        const json_t *version = json_array_get(list, i);
        const json_int_t number = json_integer_value(version);
        if (!json_is_integer(version) || number < 1 || (uint64_t)number > VERSIONS.maximum)
            return error_set(err, ERROR_INVALID,
                             "version_policy.specific[%zu] must be a version number from 1", i);
        serving->specific[i] = (uint64_t)number;
    }
    return 0;
}

static int read_policy(const json_t *policy, struct serving *serving, struct error *err)
{
    static const char *const KNOWN[] = {"latest", "specific", NULL};
    if (!policy || (json_is_string(policy) && strcmp(json_string_value(policy), "all") == 0))
        return 0;
    if (!json_is_object(policy) || json_object_size(policy) != 1)
        return error_set(err, ERROR_INVALID,
                         "version_policy must be \"all\", {\"latest\": N} or {\"specific\": "
                         "[VERSION, ...]}");
    if (check_keys(policy, "version_policy: ", KNOWN, err) != 0)
        return -1;
    const json_t *specific = json_object_get(policy, "specific");
    return specific
               ? read_specific(specific, serving, err)
               : read_number(policy, "version_policy.", "latest", VERSIONS, &serving->latest, err);
}

/* A label stands where a version stands in paths, and must not be taken for one. */
static int read_labels(const json_t *labels, struct serving *serving, struct error *err)
{
    const char *label;
    json_t *version;
    serving->labels = xcalloc(json_object_size(labels), sizeof *serving->labels);
    json_object_foreach ((json_t *)labels, label, version) {
        struct serving_label *next = &serving->labels[serving->label_count];
        if (!*label || (*label >= '0' && *label <= '9') || !name_is_valid(label, MAX_LABEL_BYTES))
            return error_set(err, ERROR_INVALID,
                             "labels: " QUOTED " must be at most %d " NAME_ALPHABET
                             ", and not begin with a digit",
                             label, MAX_LABEL_BYTES);
        if (read_number(labels, "labels.", label, VERSIONS, &next->version, err) != 0)
            return -1;
        next->label = xstrdup(label);
        serving->label_count++;
    }
    return 0;
}

/* ---- all of it ---- */

void serving_init(struct serving *serving)
{
    *serving = (struct serving){
        .warm_up_rows = 1,
        .limits = {SERVING_UNSET, SERVING_UNSET, SERVING_UNSET, SERVING_UNSET, SERVING_UNSET}};
}

static int read_object(const json_t *root, struct serving *serving, struct error *err)
{
    static const char *const KNOWN[] = {"version_policy", "default_version", "labels",
                                        "warm_up_rows",   "limits",          NULL};
    const json_t *limits = NULL, *labels = NULL;
    if (!json_is_object(root))
        return error_set(err, ERROR_INVALID, "expected an object, got %s", member_type(root));
    if (check_keys(root, "", KNOWN, err) != 0 ||
        read_number(root, "", "default_version", VERSIONS, &serving->default_version, err) != 0 ||
        read_number(root, "", "warm_up_rows", (struct range){1, 65536}, &serving->warm_up_rows,
                    err) != 0 ||
        read_policy(json_object_get(root, "version_policy"), serving, err) != 0 ||
        member_object(root, NULL, "limits", &limits, err) != 0 ||
        member_object(root, NULL, "labels", &labels, err) != 0)
        return -1;
    if (limits && read_limits(limits, &serving->limits, err) != 0)
        return -1;
    return labels ? read_labels(labels, serving, err) : 0;
}

int serving_parse(struct serving *serving, const char *text, size_t length, struct error *err)
{
    struct json_fault fault;
    struct serving read;
    json_t *root = parse_json(text, length, 0, MAX_HEAP, &fault);
    if (!root) {
        size_t line, column;
        json_line_and_column(text, fault.position, &line, &column);
        return error_set(err, json_fault_code(&fault), "line %zu, column %zu: %s", line, column,
                         fault.reason);
    }
    serving_init(&read);
    const int result = read_object(root, &read, err);
    json_decref(root);
    if (result == 0) {
        serving_close(serving);
        *serving = read;
    } else {
        serving_close(&read);
    }
    return result;
}

void serving_close(struct serving *serving)
{
    for (size_t i = 0; i < serving->label_count; i++)
        free(serving->labels[i].label);
    free(serving->labels);
    free(serving->specific);
    serving_init(serving);
}
