/* A sorted array with binary search: ten steps for a thousand models. */
#include "server/compute/lanes.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* The index of the model's lane, or where it would be inserted. */
static size_t place_of(const struct lanes *lanes, const struct model *model)
{
    size_t from = 0, to = lanes->count;
    while (from < to) {
        size_t middle = (from + to) / 2;
        if ((uintptr_t)lanes->items[middle]->model < (uintptr_t)model)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static struct lane *find_lane(const struct lanes *lanes, const struct model *model)
{
    size_t at = place_of(lanes, model);
    return at < lanes->count && lanes->items[at]->model == model ? lanes->items[at] : NULL;
}

static void insert_lane(struct lanes *lanes, struct lane *lane)
{
    size_t at = place_of(lanes, lane->model);
    lanes->items = xrealloc(lanes->items, (lanes->count + 1) * sizeof(struct lane *));
    memmove(&lanes->items[at + 1], &lanes->items[at], (lanes->count - at) * sizeof(struct lane *));
    lanes->items[at] = lane;
    lanes->count++;
}

struct once *lanes_of(struct lanes *lanes, struct model *model, struct error *err)
{
    if (model_has_sequences(model)) {
        error_set(err, ERROR_INVALID,
                  "model '%s' takes sequences of tokens, not rows: ask by /v1/completions",
                  model->name);
        return NULL;
    }
    struct lane *lane = find_lane(lanes, model);
    if (lane)
        return once_of(lane);
    struct once *once = once_new(model, lanes->scheduler, &lanes->options, err);
    if (once)
        insert_lane(lanes, &once->lane);
    return once;
}

struct sequences *lanes_sequences(struct lanes *lanes, struct model *model, struct error *err)
{
    if (!model_has_sequences(model)) {
        error_set(err, ERROR_INVALID, "model '%s' is no language model", model->name);
        return NULL;
    }
    struct lane *lane = find_lane(lanes, model);
    if (lane)
        return sequences_of(lane);
    struct sequences *sequences = sequences_new(model, lanes->scheduler, &lanes->sequences, err);
    if (sequences)
        insert_lane(lanes, &sequences->lane);
    return sequences;
}

static void remove_lane(struct lanes *lanes, size_t at)
{
    struct lane *lane = lanes->items[at];
    lanes->count--;
    memmove(&lanes->items[at], &lanes->items[at + 1], (lanes->count - at) * sizeof(struct lane *));
    scheduler_leave(lanes->scheduler, lane);
    lane->kind->free(lane);
}

/* Lanes of sequences are there before they are asked: their arenas are measured, and take no memory
 * that they do not use. One that cannot be made now is tried again, and its error told, when it is
 * asked. */
static void open_sequences(struct lanes *lanes)
{
    for (size_t i = 0; i < lanes->catalog->count; i++) {
        struct model *model = lanes->catalog->models[i];
        struct error untold = ERROR_INIT;
        if (model_has_sequences(model))
            (void)!lanes_sequences(lanes, model, &untold);
    }
}

void lanes_serve(struct lanes *lanes, struct catalog *catalog)
{
    catalog_release(lanes->catalog);
    lanes->catalog = catalog;
    for (size_t at = lanes->count; at-- > 0;) {
        const struct lane *lane = lanes->items[at];
        if (!lane->listed && !lane->busy && !catalog_has(catalog, lane->model))
            remove_lane(lanes, at);
    }
    open_sequences(lanes);
}

void lanes_on_empty(struct lane *lane, void *context)
{
    struct lanes *lanes = context;
    if (!catalog_has(lanes->catalog, lane->model))
        remove_lane(lanes, place_of(lanes, lane->model));
}

void lanes_init(struct lanes *lanes, struct scheduler *scheduler,
                const struct once_options *options, const struct sequences_options *sequences,
                struct catalog *catalog)
{
    *lanes = (struct lanes){.scheduler = scheduler, .options = *options, .catalog = catalog};
    if (sequences)
        lanes->sequences = *sequences;
}

void lanes_close(struct lanes *lanes)
{
    while (lanes->count > 0)
        remove_lane(lanes, lanes->count - 1);
    free(lanes->items);
    catalog_release(lanes->catalog);
    *lanes = (struct lanes){0};
}
