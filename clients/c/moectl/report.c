/* Judges a routing document: each finding is a rule of a few lines with its threshold beside it. */
#include "clients/c/moectl/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/figures.h"
#include "clients/c/text.h"

/* Thresholds. A finding wants both a large effect and one that is not chance. */
static const double HOT_FACTOR = 1.5;        /* times the even part */
static const double NEGLIGIBLE_FACTOR = 0.1; /* of the even part of the weight */
static const double CERTAIN_SIGMAS = 3;
static const double CHANCE = 0.001;
static const double UNDECIDED_PART = 0.9; /* of the entropy of a gate that knows nothing */
static const double UNDECIDED_ROWS = 30;  /* that a mean is of */
static const double COLLAPSED_FACTOR = 1.1;
static const double REDUNDANT_PART = 0.95; /* of the rows of one, in common with the other */
static const double DRIFT_PSI = 0.1;       /* the usual limit of "stable" */
static const double ALONE_PART = 0.8;      /* of the combine weight, as in MoedExpertCollapse */
static const double ALONE_BITS = 0.1;      /* from the reference, as there */

enum { LISTED_CHANGES = 5 };

/* ---- findings ---- */

/* Appends a finding; its text is formatted. */
static json_t *find(json_t *findings, const struct layer *layer, const char *kind,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

static json_t *find(json_t *findings, const struct layer *layer, const char *kind,
                    const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    text_keep_whole(text);
    json_t *finding =
        json_pack("{s:s, s:s, s:s}", "layer", layer->name, "kind", kind, "text", text);
    json_array_append_new(findings, finding);
    return finding;
}

static void of_expert(json_t *finding, const struct expert *expert)
{
    json_object_set_new(finding, "expert", json_integer((json_int_t)expert->index));
}

static void figure(json_t *finding, const char *key, double value)
{
    json_object_set_new(finding, key, json_real(value));
}

static unsigned long long index_of(const struct expert *expert)
{
    return (unsigned long long)expert->index;
}

/* ---- one expert ---- */

/* How many standard deviations the load lies above an even part, rows being independent. */
static double sigmas(const struct layer *layer, double load)
{
    double even = 1 / (double)layer->expert_count, rows = (double)layer->rows;
    return (load - even) / sqrt(even * (1 - even) / rows);
}

/* Who is in quarantine is not chosen, which is told of anyway. */
static bool is_in_quarantine(const struct layer *layer, json_int_t index)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(layer->json, "quarantine"), i, entry)
    {
        if (json_integer_value(json_object_get(entry, "expert")) == index)
            return true;
    }
    return false;
}

static void judge_load(json_t *findings, const struct layer *layer, const struct expert *expert)
{
    double load = expert_load(layer, expert), part = load * (double)layer->expert_count;
    bool by_weight = layer->dense && layer->weighted;
    if (part > HOT_FACTOR && sigmas(layer, load) > CERTAIN_SIGMAS) {
        json_t *finding =
            find(findings, layer, "hot",
                 "expert %llu is hot: %.1f %% of the %s, %.1f times its "
                 "even part",
                 index_of(expert), 100 * load, by_weight ? "weight" : "selections", part);
        of_expert(finding, expert);
        figure(finding, "load", load);
    } else if (by_weight && part < NEGLIGIBLE_FACTOR &&
               !is_in_quarantine(layer, (json_int_t)expert->index)) {
        json_t *finding = find(findings, layer, "negligible",
                               "expert %llu makes next to nothing of the answers: %.2f %% of the "
                               "weight",
                               index_of(expert), 100 * load);
        of_expert(finding, expert);
        figure(finding, "load", load);
    }
}

/* The probability that an expert of an even gate would be left out by so many rows. */
static double chance_of_none(const struct layer *layer)
{
    double left_out = 1 - (double)layer->top_k / (double)layer->expert_count;
    return pow(left_out, (double)layer->rows);
}

static void judge_unused(json_t *findings, const struct layer *layer, const struct expert *expert)
{
    double chance = chance_of_none(layer);
    if (expert->selected > 0 || is_in_quarantine(layer, (json_int_t)expert->index))
        return;
    json_t *finding =
        chance < CHANCE
            ? find(findings, layer, "unused", "expert %llu was never selected", index_of(expert))
            : find(findings, layer, "unseen",
                   "expert %llu was not selected yet, but of %llu row%s, too few to say that it is "
                   "unused",
                   index_of(expert), (unsigned long long)layer->rows, ending(layer->rows));
    of_expert(finding, expert);
    figure(finding, "chance", chance);
}

/* Of labelled rows: does the expert do worse than all of them together? */
static void judge_accuracy(json_t *findings, const struct layer *layer, const struct expert *expert,
                           double overall)
{
    if (!(expert->labelled > 0) || isnan(expert->accuracy) || isnan(overall))
        return;
    double deviation = sqrt(overall * (1 - overall) / expert->labelled);
    if (!(expert->accuracy < overall - CERTAIN_SIGMAS * deviation))
        return;
    json_t *finding =
        find(findings, layer, "failing",
             "expert %llu fails: %.1f %% of %.0f labelled rows are right, of all %.1f %%",
             index_of(expert), 100 * expert->accuracy, expert->labelled, 100 * overall);
    of_expert(finding, expert);
    figure(finding, "accuracy", expert->accuracy);
}

static double overall_accuracy(const struct layer *layer)
{
    double labelled = 0, correct = 0;
    for (size_t i = 0; i < layer->expert_count; i++) {
        const struct expert *expert = &layer->experts[i];
        if (!(expert->labelled > 0) || isnan(expert->accuracy))
            continue;
        labelled += expert->labelled;
        correct += expert->labelled * expert->accuracy;
    }
    return labelled > 0 ? correct / labelled : NAN;
}

static void judge_experts(json_t *findings, const struct layer *layer)
{
    double overall = overall_accuracy(layer);
    for (size_t i = 0; i < layer->expert_count; i++) {
        judge_load(findings, layer, &layer->experts[i]);
        judge_unused(findings, layer, &layer->experts[i]);
        judge_accuracy(findings, layer, &layer->experts[i], overall);
    }
}

/* ---- one layer ---- */

/* Earlier servers had those in quarantine among them. */
static void judge_dying(json_t *findings, const struct layer *layer)
{
    size_t i;
    json_t *index;
    json_array_foreach(json_object_get(layer->json, "dying"), i, index)
    {
        if (is_in_quarantine(layer, json_integer_value(index)))
            continue;
        json_t *finding = find(findings, layer, "dying",
                               "expert %lld is dying: used in the last hour, not in its last five "
                               "minutes",
                               (long long)json_integer_value(index));
        json_object_set(finding, "expert", index);
    }
}

/* Others do its work, and nobody should wonder why. */
static void tell_quarantine(json_t *findings, const struct layer *layer)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(layer->json, "quarantine"), i, entry)
    {
        char *reason = quarantine_reason(entry);
        json_t *index = json_object_get(entry, "expert");
        json_t *finding = find(findings, layer, "quarantine", "expert %lld is in quarantine: %s",
                               (long long)json_integer_value(index), reason);
        json_object_set(finding, "expert", index);
        free(reason);
    }
}

/* How likely an even gate would give loads of so little entropy: the G test against even parts,
 * each row standing for one selection. */
static double chance_of_bits(const struct layer *layer, double bits, double most)
{
    return chi_square_tail(2 * log(2) * (double)layer->rows * (most - bits),
                           (double)layer->expert_count - 1);
}

static void judge_gate(json_t *findings, const struct layer *layer)
{
    double *loads = xcalloc(layer->expert_count, sizeof *loads);
    for (size_t i = 0; i < layer->expert_count; i++)
        loads[i] = expert_load(layer, &layer->experts[i]);
    double bits = entropy_bits(loads, layer->expert_count), in_use = exp2(bits);
    double least = layer->dense ? 1 : (double)layer->top_k;
    double most = log2((double)layer->expert_count);
    size_t serving =
        layer->expert_count - json_array_size(json_object_get(layer->json, "quarantine"));
    free(loads);
    if (serving > layer->top_k + 1 && in_use < COLLAPSED_FACTOR * least &&
        chance_of_bits(layer, bits, most) < CHANCE)
        figure(find(findings, layer, "collapsed",
                    "the gate has collapsed: the work is that of %.2f experts of %zu", in_use,
                    layer->expert_count),
               "effective_experts", in_use);
    if (layer->gate_entropy_bits > UNDECIDED_PART * most && layer->expert_count > 1 &&
        (double)layer->rows >= UNDECIDED_ROWS)
        figure(find(findings, layer, "undecided",
                    "the gate is undecided: %.2f bits of entropy, %.2f if it knew nothing",
                    layer->gate_entropy_bits, most),
               "gate_entropy_bits", layer->gate_entropy_bits);
}

static void judge_recorded_drift(json_t *findings, const struct layer *layer, const char *against,
                                 const char *words)
{
    json_t *drift = json_object_get(json_object_get(layer->json, "drift"), against);
    double psi = json_number_value(json_object_get(drift, "psi"));
    json_t *p = json_object_get(drift, "p_value");
    if (!(psi > DRIFT_PSI) || !json_is_number(p) || json_number_value(p) > CHANCE)
        return;
    figure(find(findings, layer, "drift", "the traffic has moved against %s: PSI %.3f", words, psi),
           "psi", psi);
}

static void tell_overflowed(json_t *findings, const struct layer *layer)
{
    if (layer->overflowed > 0)
        figure(find(findings, layer, "overflowed",
                    "%llu of %llu row%s had weights beyond 2^19, which are in no figure of the "
                    "weight: inputs far from what the model was made for",
                    (unsigned long long)layer->overflowed, (unsigned long long)layer->rows,
                    ending(layer->rows)),
               "rows", (double)layer->overflowed);
}

/* With several experts for each row shares may be even while one has all the weight. */
static void judge_alone(json_t *findings, const struct layer *layer)
{
    json_t *drift = json_object_get(json_object_get(layer->json, "drift"), "reference");
    json_t *p = json_object_get(drift, "p_value");
    double bits = json_number_value(json_object_get(drift, "js_bits"));
    if (!(bits > ALONE_BITS) || !json_is_number(p) || json_number_value(p) > CHANCE)
        return;
    for (size_t i = 0; i < layer->expert_count; i++) {
        const struct expert *expert = &layer->experts[i];
        if (expert->weight_share > ALONE_PART)
            figure(find(findings, layer, "alone",
                        "expert %llu has %.1f %% of the combine weight, unlike in the reference",
                        index_of(expert), 100 * expert->weight_share),
                   "weight_share", expert->weight_share);
    }
}

/* ---- pairs ---- */

static const struct expert *by_index(const struct layer *layer, json_t *index)
{
    for (size_t i = 0; json_is_integer(index) && i < layer->expert_count; i++)
        if (layer->experts[i].index == (uint64_t)json_integer_value(index))
            return &layer->experts[i];
    return NULL;
}

static void judge_pair(json_t *findings, const struct layer *layer, json_t *pair)
{
    const struct expert *a = by_index(layer, json_array_get(pair, 0));
    const struct expert *b = by_index(layer, json_array_get(pair, 1));
    double together = json_number_value(json_array_get(pair, 2));
    if (!a || !b || !(a->chosen > 0) || !(b->chosen > 0))
        return;
    double fewer = fmin(a->chosen, b->chosen);
    double expected = a->chosen * b->chosen / layer->routed;
    if (!(together >= REDUNDANT_PART * fewer) ||
        together - expected < CERTAIN_SIGMAS * sqrt(fmax(expected, 1)))
        return;
    json_t *finding = find(findings, layer, "redundant",
                           "experts %llu and %llu go together: in %.0f %% of the rows of the rarer "
                           "one, %.1f times as often as by chance",
                           index_of(a), index_of(b), 100 * together / fewer, together / expected);
    figure(finding, "lift", together / expected);
    json_object_set_new(finding, "experts",
                        json_pack("[I, I]", (json_int_t)a->index, (json_int_t)b->index));
}

static void judge_pairs(json_t *findings, const struct layer *layer)
{
    size_t i;
    json_t *pair;
    if (layer->dense || layer->top_k < 2)
        return;
    json_array_foreach(json_object_get(layer->json, "pairs"), i, pair)
    {
        judge_pair(findings, layer, pair);
    }
}

/* ---- caches ---- */

/* What the server's simulation says of a cache of that size; NAN: nothing. */
static double simulated(const struct layer *layer, size_t size, const char *policy)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(layer->json, "cache"), i, entry)
    {
        json_t *rate = json_object_get(entry, policy);
        if ((size_t)json_integer_value(json_object_get(entry, "size")) == size)
            return json_is_number(rate) ? json_number_value(rate) : NAN;
    }
    return NAN;
}

static void tell_cache(json_t *findings, const struct layer *layer, size_t size, double fixed)
{
    double lru = simulated(layer, size, "lru"), lfu = simulated(layer, size, "lfu");
    double best = simulated(layer, size, "belady");
    char more[128] = "";
    if (!isnan(lru) && !isnan(lfu) && !isnan(best))
        snprintf(more, sizeof more, "; LRU %.1f %%, LFU %.1f %%, the best possible %.1f %%",
                 100 * lru, 100 * lfu, 100 * best);
    json_t *finding =
        find(findings, layer, "cache", "the %zu most used in a cache: %.1f %% of the selections%s",
             size, 100 * fixed, more);
    json_object_set_new(finding, "size", json_integer((json_int_t)size));
    figure(finding, "fixed", fixed);
}

/* Every expert of a dense gate is needed for every row: no cache helps. */
static void judge_caches(json_t *findings, const struct layer *layer, uint64_t cache)
{
    if (layer->dense)
        return;
    size_t *ranking = layer_ranking(layer), next = 1;
    double fixed = 0;
    for (size_t size = 1; size < layer->expert_count; size++) {
        fixed += layer->experts[ranking[size - 1]].share;
        if (size == next || size == cache)
            tell_cache(findings, layer, size, fixed);
        next *= size == next ? 2 : 1;
    }
    free(ranking);
}

/* ---- two documents ---- */

struct change {
    size_t expert;
    double size;
};

static int compare_changes(const void *a, const void *b)
{
    const struct change *left = a, *right = b;
    if (left->size != right->size)
        return left->size < right->size ? 1 : -1;
    return left->expert < right->expert ? -1 : left->expert > right->expert;
}

static void tell_changes(json_t *findings, const struct layer *now, const struct layer *before)
{
    struct change *changes = xcalloc(now->expert_count, sizeof *changes);
    for (size_t i = 0; i < now->expert_count; i++)
        changes[i] = (struct change){
            i, fabs(expert_load(now, &now->experts[i]) - expert_load(before, &before->experts[i]))};
    qsort(changes, now->expert_count, sizeof *changes, compare_changes);
    for (size_t i = 0; i < now->expert_count && i < LISTED_CHANGES && changes[i].size > 0; i++) {
        const struct expert *expert = &now->experts[changes[i].expert];
        double load = expert_load(now, expert);
        double earlier = expert_load(before, &before->experts[changes[i].expert]);
        json_t *finding = find(findings, now, "change", "expert %llu went from %.1f %% to %.1f %%",
                               index_of(expert), 100 * earlier, 100 * load);
        of_expert(finding, expert);
        figure(finding, "before", earlier);
        figure(finding, "load", load);
    }
    free(changes);
}

/* The counts whose shares are compared: of a dense gate, rows by weight. */
static double count_of(const struct layer *layer, size_t i)
{
    return layer->dense && layer->weighted ? layer->experts[i].weight_share * (double)layer->rows
                                           : (double)layer->experts[i].selected;
}

static void compare_layers(json_t *findings, const struct layer *now, const struct layer *before)
{
    size_t n = now->expert_count;
    double *p = xcalloc(n, sizeof *p), *q = xcalloc(n, sizeof *q);
    double *a = xcalloc(n, sizeof *a), *b = xcalloc(n, sizeof *b);
    char text[CHANCE_BYTES];
    for (size_t i = 0; i < n; i++) {
        p[i] = expert_load(now, &now->experts[i]);
        q[i] = expert_load(before, &before->experts[i]);
        a[i] = count_of(now, i);
        b[i] = count_of(before, i);
    }
    double js = divergence_bits(p, q, n);
    double psi = stability_index(p, (double)now->rows, q, (double)before->rows, n);
    double chance = same_probability(a, b, n, now->dense ? 1 : (double)now->top_k);
    bool moved = psi > DRIFT_PSI && chance < CHANCE;
    json_t *finding = find(findings, now, moved ? "drift" : "stable",
                           "%s: JS %.4f bits, PSI %.3f, probability by chance %s",
                           moved ? "the traffic has moved" : "the traffic has not moved much", js,
                           psi, chance_text(chance, text));
    figure(finding, "js_bits", js);
    figure(finding, "psi", psi);
    figure(finding, "p_value", chance);
    if (moved)
        tell_changes(findings, now, before);
    free(p);
    free(q);
    free(a);
    free(b);
}

static int compare(json_t *findings, const struct document *now, const struct document *before,
                   struct moed_client_error *err)
{
    if (strcmp(now->model, before->model) != 0)
        return fail_with(
            err,
            "one document is of model '%.64s', the other of '%.64s': expected two of one model",
            before->model, now->model);
    if (now->layer_count != before->layer_count)
        return fail_with(
            err,
            "version %.32s of '%.64s' has %zu layer%s, version %.32s has %zu: there is "
            "nothing to compare",
            before->version, now->model, before->layer_count, ending(before->layer_count),
            now->version, now->layer_count);
    for (size_t i = 0; i < now->layer_count; i++) {
        const struct layer *layer = &now->layers[i], *earlier = &before->layers[i];
        if (strcmp(layer->name, earlier->name) != 0 ||
            layer->expert_count != earlier->expert_count || layer->top_k != earlier->top_k)
            return fail_with(err,
                             "layer '%.64s' of one document, %zu of %zu experts, is not layer "
                             "'%.64s' of the other, %zu of %zu",
                             earlier->name, earlier->top_k, earlier->expert_count, layer->name,
                             layer->top_k, layer->expert_count);
        if (layer->rows > 0 && earlier->rows > 0)
            compare_layers(findings, layer, earlier);
    }
    return 0;
}

json_t *report_make(const struct document *now, const struct document *before, uint64_t cache,
                    struct moed_client_error *err)
{
    json_t *findings = json_array();
    for (size_t i = 0; i < now->layer_count; i++) {
        const struct layer *layer = &now->layers[i];
        if (layer->rows == 0) {
            find(findings, layer, "idle", "no rows: nothing to say");
            continue;
        }
        tell_quarantine(findings, layer);
        tell_overflowed(findings, layer);
        judge_gate(findings, layer);
        judge_alone(findings, layer);
        judge_experts(findings, layer);
        judge_dying(findings, layer);
        judge_pairs(findings, layer);
        judge_recorded_drift(findings, layer, "reference", "the reference");
        judge_recorded_drift(findings, layer, "previous", "the window before");
        judge_caches(findings, layer, cache);
    }
    if (!before || compare(findings, now, before, err) == 0)
        return findings;
    json_decref(findings);
    return NULL;
}
