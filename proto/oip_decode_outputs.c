/* Decodes the outputs that an Open Inference Protocol request asks for. */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "proto/members.h"
#include "proto/oip_decode.h"
#include "proto/oip_outputs.h"

static void list_outputs(const struct signature *signature, char text[OIP_LISTING_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < oip_output_count(signature) && used < OIP_LISTING_BYTES; i++) {
        struct oip_output output = oip_output_at(signature, i);
        used += (size_t)snprintf(text + used, OIP_LISTING_BYTES - used, "%s'%s%s%s'",
                                 i > 0 ? ", " : "", output.name[0], output.name[1], output.name[2]);
    }
}

static int unknown_output(struct oip_decoder *decoder, const char *name)
{
    char known[OIP_LISTING_BYTES];
    list_outputs(decoder->signature, known);
    return error_set(decoder->err, ERROR_INVALID, "unknown output " QUOTED ": model '%s' has %s",
                     name, decoder->signature->model, known);
}

void oip_request_all_outputs(struct oip_decoder *decoder)
{
    struct infer_request *request = decoder->request;
    request->output_count = decoder->signature->output_count;
    request->outputs = xcalloc(request->output_count, sizeof *request->outputs);
    for (size_t i = 0; i < request->output_count; i++)
        request->outputs[i] = (struct infer_output){
            .source = INFER_OUTPUT,
            .index = i,
            .binary = decoder->binary_output,
        };
}

static int decode_output_name(struct oip_decoder *decoder, const char *name,
                              struct infer_output *requested)
{
    const struct infer_request *request = decoder->request;
    size_t i = 0, count = oip_output_end(decoder->signature);
    struct oip_output output;
    for (; i < count; i++) {
        output = oip_output_at(decoder->signature, i);
        if (oip_output_is_named(&output, name))
            break;
    }
    if (i == count)
        return unknown_output(decoder, name);
    for (size_t other = 0; other < request->output_count; other++)
        if (request->outputs[other].source == output.source &&
            request->outputs[other].index == output.index)
            return error_set(decoder->err, ERROR_INVALID, "output " QUOTED " is listed twice",
                             name);
    requested->source = output.source;
    requested->index = output.index;
    return 0;
}

static int decode_output_parameters(struct oip_decoder *decoder, const json_t *object,
                                    const char *where, struct infer_output *requested)
{
    static const char *const NAMES[] = {"name", "parameters", NULL};
    static const char *const PARAMETERS[] = {"binary_data", "classification",
                                             "shared_memory_region", NULL};
    const json_t *parameters = NULL;
    if (member_check_spelling(object, where, NAMES, decoder->err) != 0 ||
        member_object(object, where, "parameters", &parameters, decoder->err) != 0 ||
        member_check_spelling(parameters, where, PARAMETERS, decoder->err) != 0 ||
        member_bool(parameters, where, "binary_data", &requested->binary, decoder->err) != 0 ||
        member_size(parameters, where, "classification", &requested->classification,
                    decoder->err) != 0)
        return -1;
    if (json_object_get(parameters, "shared_memory_region"))
        return error_set(decoder->err, ERROR_INVALID, "%s: shared memory is not supported", where);
    if (requested->classification > 0 && requested->source != INFER_OUTPUT)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: routing is not a classification; leave the parameter out", where);
    return 0;
}

static int decode_output(struct oip_decoder *decoder, const json_t *object, size_t position)
{
    char where[OIP_WHERE_BYTES];
    snprintf(where, sizeof where, "outputs[%zu]", position);
    if (!json_is_object(object))
        return error_set(decoder->err, ERROR_INVALID, "%s is %s, expected an object", where,
                         json_is_number(object) ? "a value" : member_type(object)); /* a stand-in */
    const char *name = NULL;
    if (member_string(object, where, "name", &name, decoder->err) != 0)
        return -1;
    if (!name)
        return member_missing(where, "name", "the name of an output", decoder->err);
    struct infer_output requested = {.binary = decoder->binary_output};
    snprintf(where, sizeof where, "output " QUOTED, name);
    if (decode_output_name(decoder, name, &requested) != 0 ||
        decode_output_parameters(decoder, object, where, &requested) != 0)
        return -1;
    decoder->request->outputs[decoder->request->output_count++] = requested;
    return 0;
}

int oip_decode_outputs(struct oip_decoder *decoder)
{
    const json_t *outputs = NULL;
    if (member_list(decoder->envelope.root, NULL, "outputs", &outputs, decoder->err) != 0)
        return -1;
    size_t count = json_array_size(outputs);
    if (count > INFER_MAX_OUTPUTS)
        return error_set(decoder->err, ERROR_INVALID,
                         "'outputs' lists %zu outputs, the limit is %d", count, INFER_MAX_OUTPUTS);
    if (count == 0) {
        oip_request_all_outputs(decoder);
        return 0;
    }
    decoder->request->outputs = xcalloc(count, sizeof *decoder->request->outputs);
    for (size_t i = 0; i < count; i++)
        if (decode_output(decoder, json_array_get(outputs, i), i) != 0)
            return -1;
    return 0;
}
