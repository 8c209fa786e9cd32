/* `moectl merge`: counts of replicas add up; see merge.h for the rest. */
#include "clients/c/moectl/merge.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/merge_classes.h"
#include "clients/c/moectl/merge_exact.h"
#include "clients/c/moectl/merge_pairs.h"
#include "clients/c/moectl/merge_steps.h"
#include "clients/c/moectl/merge_values.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"

/* Members of a layer that follow from more than its counts: a reference, the time of each request.
 */
static const char *const NOT_MERGED[] = {"drift", "dying", "coverage"};
/* Members of a layer, or of its experts, that are added, element by element. */
static const char *const ADDED_OF_LAYER[] = {"rows",  "dropped", "intervened", "overflowed",
                                             "ranks", "margins", "entropies"};
static const char *const ADDED_OF_EXPERT[] = {
    "selected", "top1", "dropped", "labelled", "weight", "probability", "compute_seconds", "ranks"};
/* Members of an expert that are means over its labelled rows. */
static const char *const MEANS_OF_EXPERT[] = {"accuracy", "log_loss"};
/* Members of a layer that are means over its rows. */
static const char *const MEANS_OF_LAYER[] = {"gate_entropy_bits", "margin"};

/* ---- means ---- */

static double number(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* How many each has of what its means are over; a mean over none does not count. */
struct over {
    double into, from;
};

static struct over over(json_t *into, json_t *from, const char *key)
{
    return (struct over){number(into, key), number(from, key)};
}

static void add_means(json_t *into, json_t *from, const char *const keys[], size_t count,
                      const struct over *over)
{
    const double a = over->into, b = over->from;
    for (size_t i = 0; i < count; i++) {
        double x = number(into, keys[i]), y = number(from, keys[i]);
        double mean = !(b > 0) ? x : !(a > 0) ? y : (x * a + y * b) / (a + b);
        if (isnan(mean))
            json_object_del(into, keys[i]);
        else
            json_object_set_new(into, keys[i], json_real(mean));
    }
}

/* ---- experts and layers ---- */

static void add_idle(json_t *into, json_t *from)
{
    double a = number(into, "idle_seconds"), b = number(from, "idle_seconds");
    if (!json_object_get(into, "idle_seconds"))
        return;
    json_t *idle = isnan(a) && isnan(b) ? json_null() : json_real(fmin(a, b));
    json_object_set_new(into, "idle_seconds", idle);
}

/* Labels may have come to one replica only. */
static void count_no_labels(json_t *expert, json_t *other)
{
    if (json_object_get(other, "labelled") && !json_object_get(expert, "labelled"))
        json_object_set_new(expert, "labelled", json_integer(0));
}

static int add_expert(json_t *into, json_t *from, const struct over *weighed,
                      struct moed_client_error *err)
{
    static const char *const WEIGHT_SHARE[] = {"weight_share"};
    if (!json_equal(json_object_get(into, "index"), json_object_get(from, "index")))
        return merge_differs("index", err);
    count_no_labels(into, from);
    count_no_labels(from, into);
    const struct over labelled = over(into, from, "labelled");
    add_means(into, from, MEANS_OF_EXPERT, LENGTH(MEANS_OF_EXPERT), &labelled);
    add_means(into, from, WEIGHT_SHARE, 1, weighed);
    add_idle(into, from);
    json_object_del(into, "ece");
    return merge_members(into, from, ADDED_OF_EXPERT, LENGTH(ADDED_OF_EXPERT), err);
}

/* Rows that have a part in the weight shares. */
static double weighed(json_t *layer)
{
    const double overflowed = number(layer, "overflowed");
    return number(layer, "rows") - (isnan(overflowed) ? 0 : overflowed);
}

static int add_experts(json_t *layer, json_t *other, struct moed_client_error *err)
{
    json_t *into = json_object_get(layer, "experts"), *from = json_object_get(other, "experts");
    const struct over rows = {weighed(layer), weighed(other)};
    if (json_array_size(into) != json_array_size(from))
        return merge_differs("experts", err);
    for (size_t i = 0; i < json_array_size(into); i++)
        if (add_expert(json_array_get(into, i), json_array_get(from, i), &rows, err) != 0)
            return -1;
    return 0;
}

/* An expert that any replica routes around is listed, as that replica has it. */
static void add_quarantine(json_t *into, json_t *from)
{
    json_t *list = json_object_get(into, "quarantine"), *entry, *known;
    size_t i, j;
    json_array_foreach(json_object_get(from, "quarantine"), i, entry)
    {
        bool found = false;
        json_array_foreach(list, j, known) found =
            found || json_equal(json_object_get(known, "expert"), json_object_get(entry, "expert"));
        if (!found)
            json_array_append(list, entry);
    }
}

static int add_layer(json_t *into, json_t *from, struct moed_client_error *err)
{
    static const char *const SAME[] = {"name", "top_k"};
    for (size_t i = 0; i < LENGTH(SAME); i++)
        if (!json_equal(json_object_get(into, SAME[i]), json_object_get(from, SAME[i])))
            return merge_differs(SAME[i], err);
    const struct over rows = over(into, from, "rows");
    add_means(into, from, MEANS_OF_LAYER, LENGTH(MEANS_OF_LAYER), &rows);
    if (add_experts(into, from, err) != 0 ||
        merge_members(into, from, ADDED_OF_LAYER, LENGTH(ADDED_OF_LAYER), err) != 0 ||
        exact_add(into, from, err) != 0 || steps_add(into, from, err) != 0 ||
        classes_add(into, from, err) != 0)
        return -1;
    add_quarantine(into, from);
    return pairs_add(into, from, err);
}

/* ---- documents ---- */

static void add_tags(json_t *into, json_t *from)
{
    json_t *tags = json_object_get(into, "tags"), *tag, *known;
    size_t i, j;
    json_array_foreach(json_object_get(from, "tags"), i, tag)
    {
        bool found = false;
        json_array_foreach(tags, j, known) found = found || json_equal(known, tag);
        if (!found)
            json_array_append(tags, tag);
    }
}

int merge_add(json_t *into, json_t *from, struct moed_client_error *err)
{
    static const char *const SAME[] = {"model", "version", "window"};
    json_t *layers = json_object_get(into, "layers"), *others = json_object_get(from, "layers");
    for (size_t i = 0; i < LENGTH(SAME); i++)
        if (!json_equal(json_object_get(into, SAME[i]), json_object_get(from, SAME[i])) &&
            (json_object_get(into, SAME[i]) || json_object_get(from, SAME[i])))
            return merge_differs(SAME[i], err);
    if (json_array_size(layers) != json_array_size(others))
        return merge_differs("layers", err);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        if (add_layer(json_array_get(layers, i), json_array_get(others, i), err) != 0) {
            char place[32];
            snprintf(place, sizeof place, "layers[%zu]", i);
            fail_in(err, place);
            return -1;
        }
    }
    add_tags(into, from);
    steps_add_memory(into, from);
    double seconds = fmax(number(into, "seconds"), number(from, "seconds"));
    if (!isnan(seconds))
        json_object_set_new(into, "seconds", json_real(seconds));
    return merge_member(into, from, "rows", err);
}

/* ---- what follows from the sums ---- */

/* Where an expert is in the layer's list; as many as there are: nowhere. */
static size_t place_of(const struct layer *layer, json_t *index)
{
    size_t i = 0;
    while (i < layer->expert_count &&
           (json_int_t)layer->experts[i].index != json_integer_value(index))
        i++;
    return i;
}

static json_t *lifts_of(const struct layer *layer)
{
    json_t *pair, *lifts = json_array();
    size_t i;
    json_array_foreach(json_object_get(layer->json, "pairs"), i, pair)
    {
        const size_t a = place_of(layer, json_array_get(pair, 0));
        const size_t b = place_of(layer, json_array_get(pair, 1));
        const size_t n = layer->expert_count;
        const double apart =
            a < n && b < n ? layer->experts[a].chosen * layer->experts[b].chosen : 0;
        const double both = json_number_value(json_array_get(pair, 2));
        json_array_append_new(lifts, json_real(apart > 0 ? both * layer->routed / apart : 0));
    }
    return lifts;
}

/* Of the pairs in their order. They want the ranks, or what comes with the busiest experts. */
static void finish_lifts(const struct layer *layer)
{
    json_t *json = layer->json, *pairs = json_object_get(json, "pairs");
    if (!json_object_get(json, "lifts"))
        return;
    if (json_is_null(pairs))
        json_object_set_new(json, "lifts", json_null());
    else if (pairs && (json_object_get(json, "ranks") || json_object_get(json, "pairs_of")))
        json_object_set_new(json, "lifts", lifts_of(layer));
    else
        json_object_del(json, "lifts");
}

static void finish_experts(const struct layer *layer)
{
    json_t *list = json_object_get(layer->json, "experts");
    for (size_t i = 0; i < layer->expert_count; i++) {
        const struct expert *expert = &layer->experts[i];
        json_t *json = json_array_get(list, i);
        json_object_set_new(json, "share", json_real(expert->share));
        if (layer->weighted)
            json_object_set_new(json, "weight_share", json_real(expert->weight_share));
    }
}

/* A figure that is not a number is one that the documents did not give the counts for. */
static void set_figure(json_t *layer, const char *key, double value)
{
    if (isnan(value))
        json_object_del(layer, key);
    else
        json_object_set_new(layer, key, json_real(value));
}

/* Of the mean of the gate's distributions, as the server computes it. */
static double usage_entropy(const struct layer *layer)
{
    double bits = 0;
    for (size_t i = 0; layer->rows > 0 && i < layer->expert_count; i++) {
        double p = layer->experts[i].probability / (double)layer->rows;
        bits -= p > 0 || isnan(p) ? p * log2(p) : 0;
    }
    return bits;
}

static void finish_layer(const struct layer *layer)
{
    set_figure(layer->json, "usage_entropy_bits", usage_entropy(layer));
    set_figure(layer->json, "imbalance", layer->imbalance);
    set_figure(layer->json, "weight_imbalance", layer->weight_imbalance);
    set_figure(layer->json, "balancedness", layer->balancedness);
    set_figure(layer->json, "cv", layer->cv);
    set_figure(layer->json, "jain", layer->jain);
    set_figure(layer->json, "effective_experts", layer->effective_experts);
    json_object_set_new(layer->json, "unused", json_integer((json_int_t)layer->unused));
    finish_experts(layer);
    finish_lifts(layer);
    classes_finish(layer->json);
    for (size_t i = 0; i < LENGTH(NOT_MERGED); i++)
        json_object_del(layer->json, NOT_MERGED[i]);
}

static bool is_calibrated(json_t *merged)
{
    json_t *layers = json_object_get(merged, "layers"), *layer;
    bool calibrated = json_object_get(json_array_get(layers, 0), "exact");
    size_t i;
    json_array_foreach(layers, i, layer) calibrated &= classes_are_calibrated(layer);
    return calibrated;
}

int merge_finish(json_t *merged, size_t documents, struct moed_client_error *err)
{
    size_t l;
    json_t *layer;
    json_array_foreach(json_object_get(merged, "layers"), l, layer) exact_finish(layer);
    char *text = json_dumps(merged, JSON_REAL_PRECISION(17));
    struct document *document = text ? document_read(text, strlen(text), "merged", err) : NULL;
    free(text);
    if (!document)
        return -1;
    for (size_t i = 0; i < document->layer_count; i++) {
        document->layers[i].json = json_array_get(json_object_get(merged, "layers"), i);
        finish_layer(&document->layers[i]);
        exact_finish(document->layers[i].json);
    }
    document_free(document);
    steps_finish_memory(merged);
    json_t *gone = json_array();
    for (size_t i = 0; i < LENGTH(NOT_MERGED); i++)
        json_array_append_new(gone, json_string(NOT_MERGED[i]));
    if (!is_calibrated(merged))
        json_array_append_new(gone, json_string("ece"));
    json_object_set_new(merged, "merged", json_integer((json_int_t)documents));
    return json_object_set_new(merged, "not_merged", gone);
}

/* ---- the command ---- */

static int add_file(json_t **merged, const char *path, struct moed_client_error *err)
{
    struct document *document = document_read_file(path, err);
    if (!document)
        return -1;
    int result = 0;
    if (!*merged)
        *merged = json_incref(document->json);
    else if ((result = merge_add(*merged, document->json, err)) != 0)
        fail_in(err, path);
    document_free(document);
    return result;
}

static int write_merged(json_t *merged, const char *path, struct moed_client_error *err)
{
    FILE *out = path ? fopen(path, "we") : stdout;
    if (!out)
        return fail_with(err, "cannot write %.300s: %s", path, strerror(errno));
    print_json(out, merged, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    return out == stdout ? 0 : finish_output(out, path, err);
}

int run_merge(const struct settings *settings, struct moed_client_error *err)
{
    json_t *merged = NULL;
    int result = 0;
    for (size_t i = 0; result == 0 && i < settings->operand_count; i++)
        result = add_file(&merged, settings->operands[i], err);
    if (result == 0)
        result = merge_finish(merged, settings->operand_count, err);
    if (result == 0)
        result = write_merged(merged, settings->output, err);
    json_decref(merged);
    return result;
}
