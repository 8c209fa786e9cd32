/* Lists of layers: built in order, run in segments.
 *
 * A segment is a run of layers that treat rows alike: a task takes some rows through all of them.
 * Collective layers, which share their rows out by themselves, stand between segments. */
#include "core/layers/chain.h"

#include <stdlib.h>
#include <string.h>

#include "core/layers/ops.h"
#include "core/layers/outermost.h"
#include "core/memory.h"
#include "core/text.h"

/* ---- building ----------------------------------------------------------------------------- */

/* With the state of its op, of which a list of layers is one of the largest. */
enum { LAYER_BYTES = sizeof(struct layer) + sizeof(struct chain) };

/* Finds the kind of layers that look back as far. A window of all positions is none. */
static int find_kind(struct layer *layer, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    struct loading *loading = scope->loading;
    struct memory *memory = &layer->memory;
    if (loading->context > 0 && memory->window >= loading->context)
        memory->window = 0;
    for (memory->kind = 0; memory->kind < loading->kind_count; memory->kind++)
        if (loading->kinds[memory->kind].window == memory->window)
            return 0;
    if (loading->kind_count == MOED_MAX_KINDS)
        return config_error(node, NULL, err, "layers with more than %d different windows",
                            MOED_MAX_KINDS - 1);
    loading->kinds[loading->kind_count++].window = memory->window;
    return 0;
}

/* Finds a place in the pages of sessions for what the layer keeps of a position. */
static int place_memory(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    struct loading *loading = scope->loading;
    struct memory *memory = &layer->memory;
    if (memory->per_position == 0)
        return 0;
    if (scope->routed)
        return config_error(node, "op", err,
                            "'%s' keeps memory of a sequence, whose rows a gate or an expert does "
                            "not see one after the other",
                            layer->op->name);
    if (find_kind(layer, scope, node, err) != 0)
        return -1;
    struct moed_kind *kind = &loading->kinds[memory->kind];
    memory->position_at = kind->position_bytes;
    loading->position_bytes += memory->per_position;
    kind->position_bytes += memory->per_position;
    layer->collective = true;
    return 0;
}

/* Finds the layer's op, and reads its name. */
static int layer_begin(struct layer *layer, const struct scope *scope, struct config_node *node,
                       struct error *err)
{
    const char *op, *name;
    if (config_text(node, "op", NULL, &op, err) != 0 ||
        config_text(node, "name", "", &name, err) != 0)
        return -1;
    if (!name_is_valid(name, NAME_MAX_BYTES))
        return config_error(node, "name", err, "expected at most %d " NAME_ALPHABET,
                            NAME_MAX_BYTES);
    layer->op = op_find(op);
    if (!layer->op)
        return config_error(node, "op", err, "unknown op '%.40s'", op);
    if (layer->op->format > scope->loading->format)
        return config_error(node, "op", err, "'%s' needs \"format_version\": %d", op,
                            layer->op->format);
    layer->name = xstrdup(name);
    return 0;
}

/* No result may depend on padding. */
static int check_padding(struct layer *layer, struct config_node *node, struct error *err)
{
    enum padding padding = layer->op->padding;
    if (padding == PADDING_OWN || !layer->padded_in)
        return 0;
    layer->padded = true;
    if (padding == PADDING_KEPT || (padding == PADDING_LAST_AXIS && layer->in.rank > 1))
        return 0;
    return config_error(node, NULL, err,
                        "'%s' would see the padding of rows of different length: reduce the first "
                        "axis before, for example by mean",
                        layer->op->name);
}

static int layer_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                       const struct moed_shape *in, struct error *err)
{
    struct scope own;
    layer->in = *in;
    layer->in_elements = moed_shape_elements(in);
    if (scope_enter(&own, scope, node, err, "%s", layer->name) != 0)
        return -1;
    own.op = layer->op->name;
    own.cost = &layer->cost;
    own.padded = layer->padded_in;
    if (layer->op->build(layer, &own, node, err) != 0 || check_padding(layer, node, err) != 0)
        return -1;
    return place_memory(layer, scope, node, err);
}

static void layer_close(struct layer *layer)
{
    if (layer->op && layer->op->free)
        layer->op->free(layer);
    free(layer->state);
    free(layer->links.operands);
    free(layer->name);
}

static void chain_add(struct chain *chain, const struct layer *layer)
{
    chain->out = layer->out;
    chain->padded = layer->padded;
    chain->out_elements = layer->out_elements;
    chain->max_elements = max_size(chain->max_elements, layer->out_elements);
    chain->collective |= layer->collective;
    chain->branched |= layer->links.input != VALUE_BEFORE || layer->links.operand_count > 0;
    cost_add(&chain->cost, &layer->cost);
}

/* End of the run of layers from `from` that one task can take together. */
static size_t segment_end(const struct chain *chain, size_t from, size_t to)
{
    if (chain->layers[from].collective)
        return from + 1;
    while (from < to && !chain->layers[from].collective)
        from++;
    return from;
}

/* The tasks of a segment are not at the same layer: among them a value of one row may not lie where
 * another row's older value is. A value that only one segment's layers see lies in each task's own
 * scratch; every other one lives from the begin of the segment that gives it to the end of the last
 * one that reads it. */
static void bound_lives(struct chain *chain)
{
    size_t *begin = xcalloc(2 * chain->count, sizeof *begin), *end = begin + chain->count;
    for (size_t from = 0, to; from < chain->count; from = to) {
        to = segment_end(chain, from, chain->count);
        for (size_t i = from; i < to; i++) {
            begin[i] = from;
            end[i] = to;
        }
    }
    for (size_t i = 0; i < chain->values.count; i++) {
        struct value *value = &chain->values.list[i];
        value->local = begin[value->defined] == begin[value->last];
        if (value->local)
            continue;
        value->defined = begin[value->defined];
        value->last = end[value->last] - 1;
    }
    free(begin);
}

static void plan_buffers(struct chain *chain)
{
    for (size_t i = 0; i < 2; i++)
        chain->task_buffers[i] = plan_floats(&chain->task, chain->max_elements);
    chain->task_named = plan_floats(&chain->task, chain->values.local_floats);
    chain->task_layers = chain->task.used;
    for (size_t i = 0; i < chain->count; i++)
        plan_passing_part(&chain->task, &chain->layers[i].plan, 1);
    for (size_t i = 0; i < 2; i++)
        chain->buffers[i] = plan_floats(&chain->plan, chain->max_elements);
    chain->tasks = plan_part(&chain->plan, &chain->task, 1);
    chain->named = plan_floats(&chain->plan, chain->values.floats);
}

/* Whether the layer reads the list's own input. */
static bool reads_input(const struct layer *layer, size_t index)
{
    bool found = index == 0 || layer->links.input == VALUE_INPUT;
    for (size_t i = 0; i < layer->links.operand_count; i++)
        found |= layer->links.operands[i] == VALUE_INPUT;
    return found;
}

/* Integers reach the layers of an input as they are or as numbers: for all that read them. */
static int check_integers(const struct chain *chain, size_t index, struct config_node *node,
                          struct error *err)
{
    const struct layer *first = &chain->layers[0], *layer = &chain->layers[index];
    if (!reads_input(layer, index) || layer->op->reads_integers == first->op->reads_integers)
        return 0;
    return config_error(node, NULL, err,
                        "'%s' and the list's first layer, '%s', cannot both read the categories",
                        layer->op->name, first->op->name);
}

/* A layer's value is what the next one reads, or has a name. */
static int check_previous(const struct chain *chain, size_t index, struct config_node *list,
                          const char *key, struct error *err)
{
    struct config_node previous;
    if (index == 0 || chain->layers[index].links.input == VALUE_BEFORE ||
        chain->layers[index - 1].links.result)
        return 0;
    if (config_item(list, key, index - 1, &previous, err) != 0)
        return -1;
    return config_error(&previous, NULL, err,
                        "no layer reads what this one gives: the next one has another \"input\"");
}

/* Builds the next layer of the list. */
static int build_next(struct chain *chain, const struct scope *list_scope, struct config_node *list,
                      const char *key, struct error *err)
{
    size_t index = chain->count;
    struct moed_shape in, operands[MAX_OPERANDS];
    struct layer *layer = &chain->layers[index];
    struct scope scope = *list_scope;
    struct config_node node;
    struct sources sources = {&chain->in, &chain->out, chain->padded_in, chain->padded, &in,
                              operands,   false};
    chain->values.layer = index;
    if (config_item(list, key, index, &node, err) != 0 ||
        layer_begin(layer, &scope, &node, err) != 0 ||
        values_link(&chain->values, layer, &scope, &node, &sources, err) != 0 ||
        check_previous(chain, index, list, key, err) != 0 ||
        (scope.categories && check_integers(chain, index, &node, err) != 0))
        return -1;
    if (!layer->op->reads_integers || !reads_input(layer, index))
        scope.categories = 0; /* what comes out of a layer is a quantity */
    scope.operands = operands;
    scope.padded_operands = sources.padded_operands;
    if (layer_build(layer, &scope, &node, &in, err) != 0 ||
        values_keep(&chain->values, layer, &scope, &node, err) != 0)
        return -1;
    return config_done(&node, err);
}

/* Every name was read, also the last layer's. */
static int check_values(const struct chain *chain, struct config_node *list, const char *key,
                        struct error *err)
{
    const struct value *unread = values_unread(&chain->values);
    struct config_node node;
    if (!unread)
        return 0;
    if (config_item(list, key, unread->defined, &node, err) != 0)
        return -1;
    return config_error(&node, "result", err, "no later layer of this list reads '%s'",
                        unread->name);
}

void chain_init(struct chain *chain, const struct moed_shape *in)
{
    *chain = (struct chain){.in = *in, .out = *in};
    chain->in_elements = chain->out_elements = chain->max_elements = moed_shape_elements(in);
}

/* Builds all layers of the list, for which there is room. */
static int build_layers(struct chain *chain, const struct scope *scope, struct config_node *list,
                        const char *key, size_t count, struct error *err)
{
    struct scope inner = *scope;
    bool whole = inner.depth++ == 0; /* the list of a whole model, or of its input or output */
    size_t residuals = 0, before = 0;
    if (whole && residuals_count(list, key, count, &residuals, err) != 0)
        return -1;
    for (; chain->count < count; chain->count++) {
        struct layer *layer = &chain->layers[chain->count];
        inner.sensitive = whole ? residuals_are_outermost(before, residuals) : scope->sensitive;
        if (build_next(chain, &inner, list, key, err) != 0) {
            layer_close(layer);
            return -1;
        }
        before += layer->op == &op_residual;
        chain_add(chain, layer);
    }
    return check_values(chain, list, key, err);
}

int chain_build(struct chain *chain, const struct scope *scope, struct config_node *node,
                const char *key, const struct moed_shape *in, struct error *err)
{
    size_t count;
    chain_init(chain, in);
    chain->padded_in = chain->padded = scope->padded;
    if (scope->depth == MAX_LAYER_DEPTH)
        return config_error(node, key, err, "layers are nested more than %d deep", MAX_LAYER_DEPTH);
    if (config_list(node, key, &count, err) != 0)
        return -1;
    if (count > scope->loading->layers_left)
        return config_error(node, key, err, "the model has more than %d layers", MAX_LAYERS);
    scope->loading->layers_left -= count;
    if (scope_take(scope, node, "layers", count, LAYER_BYTES, err) != 0)
        return -1;
    chain->layers = calloc_checked(count, sizeof *chain->layers, err);
    if (!chain->layers)
        return -1;
    if (build_layers(chain, scope, node, key, count, err) != 0) {
        chain_close(chain);
        return -1;
    }
    if (chain->values.count)
        bound_lives(chain);
    values_place(&chain->values);
    plan_buffers(chain);
    return 0;
}

void chain_close(struct chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        layer_close(&chain->layers[i]);
    free(chain->layers);
    values_close(&chain->values);
    *chain = (struct chain){0};
}

size_t chain_find(const struct chain *chain, const char *name)
{
    for (size_t i = 0; i < chain->count; i++)
        if (*name && strcmp(chain->layers[i].name, name) == 0)
            return i;
    return chain->count;
}

/* ---- running ------------------------------------------------------------------------------ */

/* What a chain's layers read and give by name, for some of the rows that the chain was given: those
 * from `first` on. */
struct named {
    const float *input; /* [rows, in] the chain's own, of these rows */
    float *values;      /* of all rows */
    size_t total, first;
    float *local; /* of these rows, inside a task */
    size_t rows;
};

static float *value_at(const struct chain *chain, const struct named *named, size_t link)
{
    const struct value *value = &chain->values.list[link - VALUE_FIRST];
    if (value->local)
        return named->local + value->place * named->rows;
    return named->values + value->place * named->total + named->first * value->elements;
}

static const float *read_at(const struct chain *chain, const struct named *named, size_t link)
{
    return link == VALUE_INPUT ? named->input : value_at(chain, named, link);
}

/* What the layer reads, where the one before it gave `before`. */
static const float *input_of(const struct chain *chain, const struct named *named,
                             const struct layer *layer, const float *before)
{
    return layer->links.input == VALUE_BEFORE ? before : read_at(chain, named, layer->links.input);
}

/* Layers of which none is collective, over some rows: the body of every task. Layers alternate
 * between two buffers; those that can work in place do, where nobody else reads their input. */
static void run_layers(const struct chain_part *part, const struct run *run, struct named *named,
                       const float *x, float *y)
{
    const struct chain *chain = part->chain;
    size_t rows = named->rows;
    float *buffers[2] = {run_floats(run, chain->task_buffers[0], rows),
                         run_floats(run, chain->task_buffers[1], rows)};
    const float *operands[MAX_OPERANDS];
    struct run inner = run_part(run, chain->task_layers, rows);
    inner.team = NULL;
    inner.operands = operands;
    named->local = run_floats(run, chain->task_named, rows);
    const float *current = x;
    for (size_t i = part->from; i < part->to; i++) {
        const struct layer *layer = &chain->layers[i];
        const float *input = input_of(chain, named, layer, current);
        float *target = current == buffers[0] ? buffers[1] : buffers[0];
        if (i + 1 == part->to)
            target = y;
        else if (layer->links.result)
            target = value_at(chain, named, layer->links.result);
        else if (layer->op->in_place && (input == buffers[0] || input == buffers[1]))
            target = (float *)input;
        for (size_t o = 0; o < layer->links.operand_count; o++)
            operands[o] = read_at(chain, named, layer->links.operands[o]);
        layer->op->forward(layer, &inner, rows, input, target);
        current = target;
    }
}

/* A segment whose rows are shared out. */
struct segment {
    struct chain_part part;
    const struct run *run;
    struct named named;
    size_t rows, rows_per_task;
    const float *x;
    float *y;
};

static void run_segment_task(void *context, size_t index, unsigned worker)
{
    const struct segment *segment = context;
    const struct chain_part *part = &segment->part;
    const struct layer *layers = part->chain->layers;
    size_t first = index * segment->rows_per_task;
    size_t rows = segment->rows - first;
    if (rows > segment->rows_per_task)
        rows = segment->rows_per_task;
    struct run run = run_part(segment->run, part->chain->task.most, first);
    /* Without a team of its own this is already inside a task, on that task's thread. */
    run.worker = segment->run->team ? worker : segment->run->worker;
    run.lengths = run.lengths ? run.lengths + first : NULL;
    struct named named = segment->named;
    named.first = first;
    named.rows = rows;
    named.input += first * part->chain->in_elements;
    run_layers(part, &run, &named, segment->x + first * layers[part->from].in_elements,
               segment->y + first * layers[part->to - 1].out_elements);
}

static void run_segment(struct segment *segment)
{
    uint64_t macs = 0;
    for (size_t i = segment->part.from; i < segment->part.to; i++)
        macs += segment->part.chain->layers[i].cost.macs;
    struct moed_team *team = team_for(segment->run->team, macs * segment->rows);
    size_t tasks = team_size(team);
    if (tasks > segment->rows)
        tasks = 1;
    segment->rows_per_task = (segment->rows + tasks - 1) / tasks;
    tasks = (segment->rows + segment->rows_per_task - 1) / segment->rows_per_task;
    team_run(team, tasks, run_segment_task, segment);
}

/* Where layers up to `end` put what they give: y at the end, else the value's place if it has a
 * name, else the buffer that x is not in. */
static float *target_of(const struct chain_part *part, const struct named *named, size_t end,
                        float *const buffers[2], const float *x, float *y)
{
    size_t result = part->chain->layers[end - 1].links.result;
    if (end == part->to)
        return y;
    if (result)
        return value_at(part->chain, named, result);
    return x == buffers[0] ? buffers[1] : buffers[0];
}

void chain_forward_part(const struct chain_part *part, const struct run *run, size_t rows,
                        const float *x, float *y)
{
    const struct chain *chain = part->chain;
    float *buffers[2] = {run_floats(run, chain->buffers[0], rows),
                         run_floats(run, chain->buffers[1], rows)};
    const struct named named = {
        .input = x, .values = run_floats(run, chain->named, rows), .total = rows};
    struct run inner = run_part(run, chain->tasks, rows);
    size_t from = part->from;
    if (from == part->to)
        memcpy(y, x,
               rows * (from ? chain->layers[from - 1].out_elements : chain->in_elements) *
                   sizeof *y);
    while (from < part->to) {
        const struct layer *layer = &chain->layers[from];
        size_t end = segment_end(chain, from, part->to);
        const float *input = input_of(chain, &named, layer, x);
        float *target = target_of(part, &named, end, buffers, x, y);
        if (layer->collective)
            layer->op->forward(layer, &inner, rows, input, target);
        else
            run_segment(
                &(struct segment){{chain, from, end}, &inner, named, rows, rows, input, target});
        x = target;
        from = end;
    }
}

void chain_forward(const struct chain *chain, const struct run *run, size_t rows, const float *x,
                   float *y)
{
    chain_forward_part(&(struct chain_part){chain, 0, chain->count}, run, rows, x, y);
}
