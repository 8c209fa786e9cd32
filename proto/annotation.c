/* Tags and labels are checked when they are read: whoever counts by them may trust them. */
#include "proto/annotation.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/members.h"

int annotation_check_tag(const char *tag, struct error *err)
{
    if (*tag && name_is_valid(tag, NAME_MAX_BYTES))
        return 0;
    return error_set(err, ERROR_INVALID, "tag " QUOTED ": expected 1 to %d " NAME_ALPHABET, tag,
                     NAME_MAX_BYTES);
}

int annotation_read_tag(const json_t *object, const char *where, struct infer_request *request,
                        struct error *err)
{
    const char *tag = NULL;
    if (member_string(object, where, "tag", &tag, err) != 0 ||
        (tag && annotation_check_tag(tag, err) != 0))
        return -1;
    if (tag)
        request->tag = xstrdup(tag);
    return 0;
}

/* ---- labels ---- */

int annotation_class_output(const struct signature *signature)
{
    for (size_t i = 0; i < signature->output_count; i++) {
        const struct signature_tensor *output = &signature->outputs[i];
        if (output->rank == 1 && output->elements >= 2 &&
            output->elements <= ANNOTATION_MAX_CLASSES)
            return (int)i;
    }
    return -1;
}

/* The class that an entry of "labels" names; -1 for null; -2 with an error. */
static int32_t class_of(const json_t *label, const struct signature_tensor *output, size_t row,
                        struct error *err)
{
    double number = json_number_value(label);
    if (json_is_null(label))
        return -1;
    if (json_is_number(label) && number >= 0 && number < (double)output->elements &&
        number == (double)(int32_t)number)
        return (int32_t)number;
    for (size_t i = 0; json_is_string(label) && i < output->label_count; i++)
        if (strcmp(output->labels[i], json_string_value(label)) == 0)
            return (int32_t)i;
    if (json_is_string(label))
        error_set(err, ERROR_INVALID,
                  "labels[%zu] is " QUOTED ", which is not a label of output '%s'", row,
                  json_string_value(label), output->name);
    else
        error_set(err, ERROR_INVALID,
                  "labels[%zu] is not a class of output '%s': expected an integer from 0 to %zu, "
                  "a label, or null",
                  row, output->name, output->elements - 1);
    return -2;
}

static int read_classes(const json_t *list, const struct signature_tensor *output, int32_t *labels,
                        struct error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        labels[i] = class_of(json_array_get(list, i), output, i, err);
        if (labels[i] < -1)
            return -1;
    }
    return 0;
}

/* The list `value` of the envelope as classes, [*count], the caller's to free. */
static int32_t *read_list(struct envelope *envelope, const struct signature *signature,
                          json_t *value, size_t *count, struct error *err)
{
    int index = annotation_class_output(signature);
    if (index < 0) {
        error_set(err, ERROR_INVALID,
                  "labels: model '%s' has no output of one number for each of 2 to %d classes",
                  signature->model, ANNOTATION_MAX_CLASSES);
        return NULL;
    }
    json_t *list = envelope_list(envelope, value, err);
    if (!list)
        return NULL;
    *count = json_array_size(list);
    int32_t *labels = calloc_checked(*count + 1, sizeof *labels, err);
    if (labels && read_classes(list, &signature->outputs[index], labels, err) != 0) {
        free(labels);
        labels = NULL;
    }
    json_decref(list);
    return labels;
}

int annotation_read_labels(struct envelope *envelope, const json_t *object,
                           struct infer_request *request, struct error *err)
{
    const json_t *value = NULL;
    size_t count;
    if (member_list(object, NULL, "labels", &value, err) != 0)
        return -1;
    if (!value)
        return 0;
    request->labels = read_list(envelope, request->signature, (json_t *)value, &count, err);
    if (!request->labels)
        return -1;
    if (count == request->rows)
        return 0;
    return error_set(err, ERROR_INVALID, "'labels' has %zu %s, expected %zu, one per row", count,
                     count == 1 ? "entry" : "entries", request->rows);
}

static int decode_feedback(struct envelope *envelope, const struct signature *signature,
                           struct feedback_request *request, struct error *err)
{
    const char *id = NULL;
    const json_t *value = NULL;
    if (member_string(envelope->root, NULL, "id", &id, err) != 0 ||
        member_list(envelope->root, NULL, "labels", &value, err) != 0)
        return -1;
    if (!id || !value)
        return member_missing(NULL, id ? "labels" : "id", id ? "a list" : "a string", err);
    request->id = xstrdup(id);
    request->labels = read_list(envelope, signature, (json_t *)value, &request->rows, err);
    return request->labels ? envelope_check_rest(envelope, err) : -1;
}

int feedback_request_decode(const struct signature *signature, const char *body, size_t length,
                            struct feedback_request *request, struct error *err)
{
    struct envelope envelope;
    *request = (struct feedback_request){0};
    if (envelope_init(&envelope, body, length, err) != 0)
        return -1;
    int result = decode_feedback(&envelope, signature, request, err);
    envelope_close(&envelope);
    if (result != 0)
        feedback_request_close(request);
    return result;
}

void feedback_request_close(struct feedback_request *request)
{
    free(request->id);
    free(request->labels);
    *request = (struct feedback_request){0};
}
