/* A sorted array with binary search: ten steps for a thousand models. */
#include "server/lanes.h"

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

struct once *lanes_of(struct lanes *lanes, struct model *model, struct error *err)
{
    size_t at = place_of(lanes, model);
    if (at < lanes->count && lanes->items[at]->model == model)
        return lanes->items[at];
    struct once *once = once_new(model, lanes->scheduler, &lanes->options, err);
    if (!once)
        return NULL;
    lanes->items = xrealloc(lanes->items, (lanes->count + 1) * sizeof(struct once *));
    memmove(&lanes->items[at + 1], &lanes->items[at], (lanes->count - at) * sizeof(struct once *));
    lanes->items[at] = once;
    lanes->count++;
    return once;
}

static void remove_lane(struct lanes *lanes, size_t at)
{
    struct lane *lane = &lanes->items[at]->lane;
    lanes->count--;
    memmove(&lanes->items[at], &lanes->items[at + 1], (lanes->count - at) * sizeof(struct once *));
    lane->kind->free(lane);
}

void lanes_serve(struct lanes *lanes, struct catalog *catalog)
{
    catalog_release(lanes->catalog);
    lanes->catalog = catalog;
    for (size_t at = lanes->count; at-- > 0;) {
        const struct lane *lane = &lanes->items[at]->lane;
        if (!lane->listed && !lane->busy && !catalog_has(catalog, lanes->items[at]->model))
            remove_lane(lanes, at);
    }
}

void lanes_on_empty(struct lane *lane, void *context)
{
    struct lanes *lanes = context;
    const struct model *model = ((struct once *)(void *)lane)->model;
    if (!catalog_has(lanes->catalog, model))
        remove_lane(lanes, place_of(lanes, model));
}

void lanes_init(struct lanes *lanes, struct scheduler *scheduler,
                const struct once_options *options, struct catalog *catalog)
{
    *lanes = (struct lanes){.scheduler = scheduler, .options = *options, .catalog = catalog};
}

void lanes_close(struct lanes *lanes)
{
    while (lanes->count > 0)
        remove_lane(lanes, lanes->count - 1);
    free(lanes->items);
    catalog_release(lanes->catalog);
    *lanes = (struct lanes){0};
}
