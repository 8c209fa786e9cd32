/* Outputs are numbered: the model's own first, then two for each gate, then one more for each. */
#include "proto/oip_outputs.h"

#include <assert.h>
#include <string.h>

#include "core/text.h"
#include "proto/json.h"

size_t oip_output_count(const struct signature *signature)
{
    return signature->output_count + 2 * signature->gate_count;
}

size_t oip_output_end(const struct signature *signature)
{
    return oip_output_count(signature) + signature->gate_count;
}

static struct oip_output model_output(const struct signature *signature, size_t index)
{
    const struct signature_tensor *tensor = &signature->outputs[index];
    assert(tensor->rank < INFER_MAX_AXES);
    struct oip_output output = {
        .source = INFER_OUTPUT,
        .index = index,
        .datatype = DATATYPE_FP32,
        .name = {"", tensor->name, ""},
        .rank = tensor->rank,
        .elements = tensor->elements,
    };
    for (size_t axis = 0; axis < tensor->rank; axis++)
        output.dims[axis] = tensor->dims[axis];
    return output;
}

static struct oip_output routing_output(const struct signature *signature, size_t index,
                                        enum infer_source source)
{
    const struct signature_gate *gate = &signature->gates[index];
    static const char *const WHAT[] = {[INFER_ROUTING_EXPERTS] = ".experts",
                                       [INFER_ROUTING_WEIGHTS] = ".weights",
                                       [INFER_ROUTING_PROBABILITIES] = ".probabilities"};
    const size_t numbers =
        source == INFER_ROUTING_PROBABILITIES ? gate->experts : gate->top_k; /* of an item */
    struct oip_output output = {
        .source = source,
        .index = index,
        .datatype = source == INFER_ROUTING_EXPERTS ? DATATYPE_INT32 : DATATYPE_FP32,
        .name = {"routing.", gate->name, WHAT[source]},
        .elements = gate->items_per_row * numbers,
    };
    if (gate->items_per_row > 1)
        output.dims[output.rank++] = gate->items_per_row;
    output.dims[output.rank++] = numbers;
    return output;
}

struct oip_output oip_output_at(const struct signature *signature, size_t i)
{
    if (i < signature->output_count)
        return model_output(signature, i);
    if (i >= oip_output_count(signature))
        return routing_output(signature, i - oip_output_count(signature),
                              INFER_ROUTING_PROBABILITIES);
    size_t routing = i - signature->output_count;
    return routing_output(signature, routing / 2,
                          routing % 2 == 0 ? INFER_ROUTING_EXPERTS : INFER_ROUTING_WEIGHTS);
}

struct oip_output oip_output_of(const struct signature *signature,
                                const struct infer_output *output)
{
    return output->source == INFER_OUTPUT
               ? model_output(signature, output->index)
               : routing_output(signature, output->index, output->source);
}

bool oip_output_is_named(const struct oip_output *output, const char *name)
{
    for (int part = 0; part < 3; part++) {
        size_t bytes = strlen(output->name[part]);
        if (strncmp(name, output->name[part], bytes) != 0)
            return false;
        name += bytes;
    }
    return *name == '\0';
}

void oip_append_name(struct buffer *body, const struct oip_output *output)
{
    buffer_text(body, "{\"name\":\"");
    for (int part = 0; part < 3; part++)
        json_append_escaped(body, output->name[part]);
    buffer_text(body, "\"");
}

void oip_append_shape(struct buffer *body, const char *first, const size_t *dims, size_t rank)
{
    char text[SHAPE_TEXT_BYTES];
    buffer_text(body, text_of_shape(text, first, dims, rank, ","));
}
