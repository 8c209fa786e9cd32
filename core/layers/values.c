/* Values are found by their names only while a list is built; layers keep indices. */
#include "core/layers/values.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"

static const char INPUT[] = "input";

/* The value called `name`, as struct links says it. The latest ones are what most layers read. */
static int find(const struct values *values, const char *name, size_t *link)
{
    *link = VALUE_INPUT;
    if (strcmp(name, INPUT) == 0)
        return 0;
    for (size_t i = values->count; i > 0; i--)
        if (strcmp(values->list[i - 1].name, name) == 0) {
            *link = VALUE_FIRST + i - 1;
            return 0;
        }
    return -1;
}

/* What the layer being built reads by name, and its shape. */
static int read_value(struct values *values, const char *name, const struct sources *sources,
                      size_t *link, struct moed_shape *shape, bool *padded)
{
    if (find(values, name, link) != 0)
        return -1;
    *shape = *sources->list;
    *padded = sources->list_padded;
    if (*link < VALUE_FIRST)
        return 0;
    struct value *value = &values->list[*link - VALUE_FIRST];
    value->last = values->layer;
    *shape = value->shape;
    *padded = value->padded;
    return 0;
}

static int not_found(const struct config_node *node, const char *key, const char *name,
                     struct error *err)
{
    return config_error(node, key, err,
                        "no earlier layer of this list has the result '%.64s', and it is not "
                        "\"input\"",
                        name);
}

/* "of": the values that a layer joins to its input. */
static int link_operands(struct values *values, struct layer *layer, const struct scope *scope,
                         struct config_node *node, struct sources *sources, struct error *err)
{
    struct links *links = &layer->links;
    const char **names;
    size_t count;
    if (!config_has(node, "of"))
        return 0;
    if (config_texts(node, "of", &names, &count, err) != 0)
        return -1;
    int result = 0;
    if (count == 0 || count > MAX_OPERANDS)
        result = config_error(node, "of", err, "expected 1 to %d names", MAX_OPERANDS);
    else if (count > scope->loading->layers_left)
        result = config_error(node, "of", err,
                              "the model has more than %d layers and joined values", MAX_LAYERS);
    else
        links->operands = xcalloc(count, sizeof *links->operands);
    for (; result == 0 && links->operand_count < count; links->operand_count++) {
        size_t i = links->operand_count;
        bool padded = false;
        if (read_value(values, names[i], sources, &links->operands[i], &sources->operands[i],
                       &padded) != 0)
            result = not_found(node, "of", names[i], err);
        sources->padded_operands |= padded;
    }
    scope->loading->layers_left -= result == 0 ? count : 0;
    free(names);
    return result;
}

int values_link(struct values *values, struct layer *layer, const struct scope *scope,
                struct config_node *node, struct sources *sources, struct error *err)
{
    const char *name = "";
    *sources->in = *sources->before;
    layer->padded_in = sources->before_padded;
    if (config_since(node, 3, scope->loading->format, KEYS("input", "result"), err) != 0)
        return -1;
    if (config_has(node, "input")) {
        if (config_text(node, "input", NULL, &name, err) != 0)
            return -1;
        if (read_value(values, name, sources, &layer->links.input, sources->in,
                       &layer->padded_in) != 0)
            return not_found(node, "input", name, err);
    }
    return layer->op->joins ? link_operands(values, layer, scope, node, sources, err) : 0;
}

int values_keep(struct values *values, struct layer *layer, const struct scope *scope,
                struct config_node *node, struct error *err)
{
    const char *name;
    size_t taken;
    if (scope->loading->format < 3 || !config_has(node, "result"))
        return 0;
    if (config_text(node, "result", NULL, &name, err) != 0)
        return -1;
    if (!*name || !name_is_valid(name, NAME_MAX_BYTES))
        return config_error(node, "result", err, "expected 1 to %d " NAME_ALPHABET, NAME_MAX_BYTES);
    if (find(values, name, &taken) == 0)
        return config_error(node, "result", err,
                            taken == VALUE_INPUT ? "\"%s\" is the list's own input"
                                                 : "two layers of this list have the result '%s'",
                            name);
    if (values->count == MAX_VALUES)
        return config_error(node, "result", err, "the list has more than %d", MAX_VALUES);
    values->list = xrealloc(values->list, (values->count + 1) * sizeof *values->list);
    values->list[values->count] = (struct value){.name = name,
                                                 .shape = layer->out,
                                                 .elements = layer->out_elements,
                                                 .padded = layer->padded,
                                                 .defined = values->layer};
    layer->links.result = VALUE_FIRST + values->count++;
    return 0;
}

const struct value *values_unread(const struct values *values)
{
    for (size_t i = 0; i < values->count; i++)
        if (values->list[i].last == 0)
            return &values->list[i];
    return NULL;
}

/* Values alive at the same time, in the order of their places. */
struct alive {
    struct value *list[MAX_VALUES];
    size_t count;
};

static void forget_before(struct alive *alive, size_t layer)
{
    size_t kept = 0;
    for (size_t i = 0; i < alive->count; i++)
        if (alive->list[i]->last >= layer)
            alive->list[kept++] = alive->list[i];
    alive->count = kept;
}

/* Puts the value into the first gap that holds it. */
static void put(struct alive *alive, struct value *value)
{
    size_t at = 0;
    value->place = 0;
    while (at < alive->count && value->place + value->elements > alive->list[at]->place) {
        value->place = alive->list[at]->place + alive->list[at]->elements;
        at++;
    }
    memmove(&alive->list[at + 1], &alive->list[at], (alive->count - at) * sizeof alive->list[0]);
    alive->list[at] = value;
    alive->count++;
}

static size_t place_all(struct values *values, bool local)
{
    struct alive alive = {.count = 0};
    size_t floats = 0;
    for (size_t i = 0; i < values->count; i++) {
        struct value *value = &values->list[i];
        if (value->local != local)
            continue;
        forget_before(&alive, value->defined);
        put(&alive, value);
        floats = max_size(floats, value->place + value->elements);
    }
    return floats;
}

void values_place(struct values *values)
{
    values->floats = place_all(values, false);
    values->local_floats = place_all(values, true);
    for (size_t i = 0; i < values->count; i++)
        values->list[i].name = NULL;
}

void values_close(struct values *values)
{
    free(values->list);
    *values = (struct values){0};
}
