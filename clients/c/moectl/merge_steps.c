/* Means are of integers over a count: the integers are had back by rounding, so that sums are
 * exact. */
#include "clients/c/moectl/merge_steps.h"

#include <math.h>
#include <string.h>

#include "clients/c/moectl/merge_values.h"

static const char *const PHASES[] = {"prompt", "generated"};

/* 0 if there is no such number. */
static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* ---- caches ---- */

/* Hits add up, for each replica has a cache of its own. */
static int add_cache_size(json_t *into, json_t *from, struct moed_client_error *err)
{
    static const char *const POLICIES[] = {"lru", "lfu", "belady"};
    const double a = number(into, "uses"), b = number(from, "uses");
    if (number(into, "size") != number(from, "size"))
        return merge_differs("cache", err);
    for (size_t i = 0; i < LENGTH(POLICIES); i++) {
        const double hits =
            round(number(into, POLICIES[i]) * a) + round(number(from, POLICIES[i]) * b);
        json_object_set_new(into, POLICIES[i], json_real(hits / (a + b)));
    }
    return merge_member(into, from, "uses", err);
}

static bool has_uses(const json_t *cache)
{
    return json_is_array(cache) && number(json_array_get(cache, 0), "uses") > 0;
}

/* A cache is null before the first use; servers before this one did not say how many uses. */
static int add_caches(json_t *into, json_t *from, struct moed_client_error *err)
{
    json_t *cache = json_object_get(into, "cache"), *other = json_object_get(from, "cache");
    if (json_is_null(cache) && (json_is_null(other) || has_uses(other)))
        return json_object_set(into, "cache", other);
    if (has_uses(cache) && json_is_null(other))
        return 0;
    if (!has_uses(cache) || !has_uses(other)) {
        json_object_del(into, "cache");
        return 0;
    }
    if (json_array_size(cache) != json_array_size(other))
        return merge_differs("cache", err);
    for (size_t i = 0; i < json_array_size(cache); i++)
        if (add_cache_size(json_array_get(cache, i), json_array_get(other, i), err) != 0)
            return -1;
    return 0;
}

/* ---- batches, and steps of a phase ---- */

static double sum_behind(const json_t *steps, const char *mean)
{
    return round(number(steps, mean) * number(steps, "count"));
}

static int add_steps(json_t *into, json_t *from, struct moed_client_error *err)
{
    static const char *const MEANS[] = {"mean_rows", "mean_experts"};
    const double count = number(into, "count") + number(from, "count");
    for (size_t i = 0; i < LENGTH(MEANS); i++) {
        const double sum = sum_behind(into, MEANS[i]) + sum_behind(from, MEANS[i]);
        json_object_set_new(into, MEANS[i], json_real(sum / fmax(count, 1)));
    }
    return merge_member(into, from, "count", err) == 0 ? merge_member(into, from, "experts", err)
                                                       : -1;
}

static int add_phases(json_t *into, json_t *from, struct moed_client_error *err)
{
    for (size_t i = 0; i < LENGTH(PHASES); i++) {
        json_t *phase = json_object_get(into, PHASES[i]), *other = json_object_get(from, PHASES[i]);
        if (!phase || !other)
            return merge_differs(PHASES[i], err);
        if (add_steps(phase, other, err) != 0 || add_caches(phase, other, err) != 0)
            return -1;
    }
    return 0;
}

/* Whether both have the object, which is else taken out of the first. */
static bool in_both(json_t *into, json_t *from, const char *key)
{
    const bool both =
        json_is_object(json_object_get(into, key)) && json_is_object(json_object_get(from, key));
    if (!both)
        json_object_del(into, key);
    return both;
}

int steps_add(json_t *into, json_t *from, struct moed_client_error *err)
{
    json_t *a, *b;
    if (in_both(into, from, "batches")) {
        a = json_object_get(into, "batches"), b = json_object_get(from, "batches");
        if (add_steps(a, b, err) != 0)
            return -1;
    }
    if (in_both(into, from, "phases")) {
        a = json_object_get(into, "phases"), b = json_object_get(from, "phases");
        if (number(into, "expert_bytes") != number(from, "expert_bytes"))
            return merge_differs("expert_bytes", err);
        if (add_phases(a, b, err) != 0)
            return -1;
    }
    return json_object_get(into, "cache") ? add_caches(into, from, err) : 0;
}

/* ---- memory ---- */

void steps_add_memory(json_t *into, json_t *from)
{
    const json_t *a = json_object_get(into, "memory"), *b = json_object_get(from, "memory");
    if (number(a, "shared_bytes") != number(b, "shared_bytes"))
        json_object_del(into, "memory");
}

/* As the server computes it: a step reads what is shared and every expert that is needed. */
static double bytes_per_token(json_t *merged, const char *name)
{
    json_t *layers = json_object_get(merged, "layers"), *layer;
    const json_t *first =
        json_object_get(json_object_get(json_array_get(layers, 0), "phases"), name);
    const double tokens = sum_behind(first, "mean_rows");
    double bytes =
        number(json_object_get(merged, "memory"), "shared_bytes") * number(first, "count");
    size_t i;
    json_array_foreach(layers, i, layer)
    {
        const json_t *phases = json_object_get(layer, "phases");
        bytes += number(layer, "expert_bytes") *
                 sum_behind(json_object_get(phases, name), "mean_experts");
    }
    return tokens > 0 ? bytes / tokens : 0;
}

void steps_finish_memory(json_t *merged)
{
    json_t *memory = json_object_get(merged, "memory");
    for (size_t i = 0; memory && i < LENGTH(PHASES); i++) {
        char key[40];
        snprintf(key, sizeof key, "%s_bytes_per_token", PHASES[i]);
        json_object_set_new(memory, key, json_real(bytes_per_token(merged, PHASES[i])));
    }
}
