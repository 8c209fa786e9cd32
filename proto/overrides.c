/* Indices become flags of experts, so that what comes after has no list to check; the text that the
 * answer carries back is written while reading. */
#include "proto/overrides.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/json.h"
#include "proto/members.h"

/* "experts" while it is read. */
struct reader {
    struct envelope *envelope;
    const struct signature *signature;
    struct infer_overrides *overrides;
    const char *member; /* for messages: "experts", as the protocol writes it */
    const struct signature_gate *gate;
    unsigned char *experts; /* [gate->experts] */
    char where[128];        /* for messages: "experts: gate 'moe'" */
    struct buffer *text;
    struct error *err;
};

/* The gate's own index of the layer's expert; -1: it has no such expert. */
static long find_expert(const struct signature_gate *gate, double index)
{
    size_t first = 0, end = gate->experts;
    while (first < end) { /* indices ascend */
        const size_t middle = first + (end - first) / 2;
        const double there = gate->expert_index ? gate->expert_index[middle] : (double)middle;
        if (there == index)
            return (long)middle;
        if (there < index)
            first = middle + 1;
        else
            end = middle;
    }
    return -1;
}

static int refuse_expert(const struct reader *reader, const char *key, size_t at,
                         const json_t *value)
{
    const struct signature_gate *gate = reader->gate;
    if (!json_is_number(value))
        return error_set(reader->err, ERROR_INVALID, "%s: '%s'[%zu] is %s, expected an expert",
                         reader->where, key, at, member_type(value));
    if (gate->expert_index)
        return error_set(reader->err, ERROR_INVALID,
                         "%s: '%s'[%zu] is %.17g, which is none of its %zu expert%s", reader->where,
                         key, at, json_number_value(value), gate->experts, text_s(gate->experts));
    return error_set(reader->err, ERROR_INVALID,
                     "%s: '%s'[%zu] is %.17g, expected an expert from 0 to %zu", reader->where, key,
                     at, json_number_value(value), gate->experts - 1);
}

static int mark_experts(struct reader *reader, const char *key, const json_t *list,
                        unsigned char mark)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        const long expert =
            json_is_number(value) ? find_expert(reader->gate, json_number_value(value)) : -1;
        if (expert < 0)
            return refuse_expert(reader, key, i, value);
        reader->experts[expert] |= mark;
        buffer_format(reader->text, "%s%.0f", i ? "," : "", json_number_value(value));
    }
    return 0;
}

/* Refuses a list that is too long before it is parsed. */
static int check_length(const struct reader *reader, const char *key, const json_t *list)
{
    const struct envelope_literal *literal = envelope_claim(reader->envelope, list);
    const size_t entries = literal ? literal->entries : json_array_size(list);
    if (entries <= reader->gate->experts)
        return 0;
    return error_set(reader->err, ERROR_INVALID,
                     "%s: '%s' has %zu %s, and the gate has %zu expert%s", reader->where, key,
                     entries, entries == 1 ? "entry" : "entries", reader->gate->experts,
                     text_s(reader->gate->experts));
}

/* Marks the experts that a list names. Returns whether it is there; -1 with an error. */
static int read_list(struct reader *reader, const json_t *object, const char *key,
                     unsigned char mark)
{
    const json_t *value = NULL;
    if (member_list(object, reader->where, key, &value, reader->err) != 0)
        return -1;
    if (!value)
        return 0;
    if (check_length(reader, key, value) != 0)
        return -1;
    json_t *list = envelope_list(reader->envelope, (json_t *)value, reader->err);
    if (!list)
        return -1;
    buffer_format(reader->text, "\"%s\":[", key);
    int result = mark_experts(reader, key, list, mark);
    buffer_text(reader->text, "],");
    json_decref(list);
    return result == 0 ? 1 : -1;
}

/* All but the marked ones are excluded. */
static void exclude_others(struct reader *reader)
{
    for (size_t i = 0; i < reader->gate->experts; i++)
        if (!(reader->experts[i] & OVERRIDE_ONLY))
            reader->experts[i] |= OVERRIDE_EXCLUDED;
}

static int check_members(const struct reader *reader, const json_t *object)
{
    static const char *const MEMBERS[] = {"exclude", "silence", "only", "top_k"};
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof MEMBERS / sizeof *MEMBERS; i++)
            known |= strcmp(key, MEMBERS[i]) == 0;
        if (!known)
            return error_set(reader->err, ERROR_INVALID,
                             "%s: unknown member " QUOTED
                             ", expected 'exclude', 'silence', 'only' or 'top_k'",
                             reader->where, key);
    }
    return 0;
}

static int read_top_k(const struct reader *reader, const json_t *object, size_t *top_k)
{
    const size_t unset = SIZE_MAX, most = reader->gate->top_k;
    *top_k = unset;
    if (member_size(object, reader->where, "top_k", top_k, reader->err) != 0)
        return -1;
    if (*top_k == unset) {
        *top_k = 0;
        return 0;
    }
    if (*top_k < 1 || *top_k > most)
        return error_set(reader->err, ERROR_INVALID, "%s: 'top_k' is %zu, expected 1 to %zu",
                         reader->where, *top_k, most);
    buffer_format(reader->text, "\"top_k\":%zu,", *top_k);
    return 0;
}

/* The comma behind the last member becomes the end of the object. */
static void end_object(struct buffer *text)
{
    if (!text->failed && text->data[text->length - 1] == ',')
        text->length--;
    buffer_text(text, "}");
}

static int read_gate(struct reader *reader, const json_t *object, struct infer_override *override)
{
    if (!json_is_object(object))
        return error_set(reader->err, ERROR_INVALID, "%s is %s, expected an object", reader->where,
                         member_type(object));
    buffer_text(reader->text, "{");
    if (check_members(reader, object) != 0 ||
        read_list(reader, object, "exclude", OVERRIDE_EXCLUDED) < 0 ||
        read_list(reader, object, "silence", OVERRIDE_SILENCED) < 0)
        return -1;
    int only = read_list(reader, object, "only", OVERRIDE_ONLY);
    if (only < 0 || read_top_k(reader, object, &override->top_k) != 0)
        return -1;
    if (only)
        exclude_others(reader);
    end_object(reader->text);
    return 0;
}

static const struct signature_gate *find_gate(const struct reader *reader, const char *name)
{
    const struct signature *signature = reader->signature;
    for (size_t i = 0; i < signature->gate_count; i++)
        if (strcmp(signature->gates[i].name, name) == 0)
            return &signature->gates[i];
    error_set(reader->err, ERROR_INVALID, "%s: model '%s' has no gate " QUOTED, reader->member,
              signature->model, name);
    return NULL;
}

/* There are as many overrides as gates at most: names are unique. */
static int read_gates(struct reader *reader, const json_t *object)
{
    const struct signature *signature = reader->signature;
    struct infer_overrides *overrides = reader->overrides;
    const char *name;
    json_t *value;
    overrides->items = xcalloc(signature->gate_count + 1, sizeof *overrides->items);
    buffer_text(reader->text, "{");
    json_object_foreach ((json_t *)object, name, value) {
        reader->gate = find_gate(reader, name);
        if (!reader->gate)
            return -1;
        struct infer_override *override = &overrides->items[overrides->count++];
        override->gate = (size_t)(reader->gate - signature->gates);
        reader->experts = override->experts = xcalloc(reader->gate->experts, 1);
        snprintf(reader->where, sizeof reader->where, "%s: gate " QUOTED, reader->member, name);
        json_append_string(reader->text, name);
        buffer_text(reader->text, ":");
        if (read_gate(reader, value, override) != 0)
            return -1;
        buffer_text(reader->text, ",");
    }
    end_object(reader->text);
    return 0;
}

static int read_object(struct reader *reader, const json_t *object)
{
    struct buffer text;
    size_t length;
    buffer_init(&text, ENVELOPE_MAX_BYTES);
    reader->text = &text;
    int result = read_gates(reader, object);
    buffer_append(&text, "", 1);
    if (result == 0 && text.failed)
        result = buffer_error(&text, "'experts'", "name fewer experts", reader->err);
    if (result == 0)
        reader->overrides->text = buffer_steal(&text, &length);
    buffer_close(&text);
    return result;
}

static struct reader reader_of(struct envelope *envelope, struct infer_request *request,
                               struct error *err)
{
    return (struct reader){.envelope = envelope,
                           .signature = request->signature,
                           .overrides = &request->overrides,
                           .member = "experts",
                           .err = err};
}

int overrides_read_member(struct envelope *envelope, struct infer_request *request,
                          struct error *err)
{
    const json_t *object = NULL;
    struct reader reader = reader_of(envelope, request, err);
    if (member_object(envelope->root, NULL, "experts", &object, err) != 0)
        return -1;
    return object ? read_object(&reader, object) : 0;
}

int overrides_read_parameter(const json_t *parameters, struct infer_request *request,
                             struct error *err)
{
    const char *text = NULL;
    struct envelope envelope;
    if (member_string(parameters, "parameters", "experts", &text, err) != 0)
        return -1;
    if (!text)
        return 0;
    int result = envelope_init(&envelope, text, strlen(text), err);
    if (result != 0) {
        error_prefix(err, "parameters: 'experts'");
        return -1;
    }
    struct reader reader = reader_of(&envelope, request, err);
    result = read_object(&reader, envelope.root);
    if (result == 0)
        result = envelope_check_rest(&envelope, err);
    envelope_close(&envelope);
    return result;
}

/* The object becomes text again, so that all protocols read the same way. */
int overrides_read(const json_t *object, const struct signature *signature,
                   struct infer_overrides *overrides, struct error *err)
{
    struct envelope envelope;
    char *text = json_dumps(object, JSON_COMPACT);
    if (!text)
        return error_set(err, ERROR_UNAVAILABLE, "'experts': no memory for it");
    int result = envelope_init(&envelope, text, strlen(text), err);
    if (result == 0) {
        struct reader reader = {.envelope = &envelope,
                                .signature = signature,
                                .overrides = overrides,
                                .member = "'experts'",
                                .err = err};
        result = read_object(&reader, envelope.root);
        envelope_close(&envelope);
    } else {
        error_prefix(err, "'experts'");
    }
    free(text);
    return result;
}
