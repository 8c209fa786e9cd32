/* One MoE layer as a table with bars: of `moectl routing` and of `moectl top`. */
#include "clients/c/moectl/layer_view.h"

#include <math.h>
#include <stdlib.h>

#include "clients/c/moectl/figures.h"

enum { FIXED_COLUMNS = 56, REFERENCE_COLUMNS = 9, LEAST_BAR = 8, MOST_BAR = 40 };

/* An expert with so many times its even part is worth a look. */
static const double BUSY_FACTOR = 2;

/* ---- one expert ---- */

/* "12.3%", right-aligned; "-" for what the document does not say. */
static void print_percent(FILE *out, double part)
{
    if (isnan(part))
        fprintf(out, "%9s", "-");
    else
        fprintf(out, "%8.1f%%", 100 * part);
}

/* Whether the checkpoint says what share each expert should have. */
static bool has_reference(const struct layer *layer)
{
    return !isnan(layer->experts[0].reference_share);
}

static enum paint paint_of(const struct layer *layer, const struct expert *expert)
{
    double part = expert_load(layer, expert) * (double)layer->expert_count;
    if (layer->rows == 0)
        return PAINT_DIM;
    if (expert->selected == 0)
        return PAINT_BAD;
    return part > BUSY_FACTOR ? PAINT_WARN : PAINT_GOOD;
}

/* Idle experts say for how long; the others leave the column empty. */
static void print_idle(FILE *out, double seconds)
{
    if (isnan(seconds) || seconds < 60)
        return;
    if (seconds < 3600)
        fprintf(out, "  idle %.0f min", seconds / 60);
    else
        fprintf(out, "  idle %.1f h", seconds / 3600);
}

static void print_expert(const struct terminal *terminal, const struct layer *layer,
                         const struct expert *expert, double largest)
{
    FILE *out = terminal->out;
    bool reference = has_reference(layer);
    int columns = terminal->columns - FIXED_COLUMNS - (reference ? REFERENCE_COLUMNS : 0);
    columns = columns < LEAST_BAR ? LEAST_BAR : columns > MOST_BAR ? MOST_BAR : columns;
    fprintf(out, "%8llu %12llu", (unsigned long long)expert->index,
            (unsigned long long)expert->selected);
    print_percent(out, expert->share);
    print_percent(out, expert->weight_share);
    print_percent(out, layer->rows ? (double)expert->top1 / (double)layer->rows : 0);
    if (reference)
        print_percent(out, expert->reference_share);
    fputs("  ", out);
    terminal_paint(terminal, paint_of(layer, expert));
    terminal_bar(terminal, largest > 0 ? expert_load(layer, expert) / largest : 0, columns);
    terminal_paint(terminal, PAINT_PLAIN);
    if (!isnan(expert->accuracy))
        fprintf(out, "  accuracy %.1f%%", 100 * expert->accuracy);
    print_idle(out, expert->idle_seconds);
    fputc('\n', out);
}

/* Indices into layer->experts in their own order; the caller frees. */
static size_t *unranked(const struct layer *layer)
{
    size_t *order = xcalloc(layer->expert_count, sizeof *order);
    for (size_t i = 0; i < layer->expert_count; i++)
        order[i] = i;
    return order;
}

static void print_experts(const struct terminal *terminal, const struct layer *layer, bool ranked)
{
    size_t *order = ranked ? layer_ranking(layer) : unranked(layer);
    double largest = 0;
    for (size_t i = 0; i < layer->expert_count; i++)
        largest = fmax(largest, expert_load(layer, &layer->experts[i]));
    for (size_t i = 0; i < layer->expert_count; i++)
        print_expert(terminal, layer, &layer->experts[order[i]], largest);
    free(order);
}

/* ---- one layer ---- */

static void print_figure(FILE *out, const char *title, double value)
{
    if (!isnan(value))
        fprintf(out, "   %s %.2f", title, value);
}

static void print_dying(FILE *out, const struct layer *layer)
{
    json_t *indices = json_object_get(layer->json, "dying");
    if (json_array_size(indices) == 0)
        return;
    fputs("  dying:", out);
    for (size_t i = 0; i < json_array_size(indices) && i < layer->expert_count; i++)
        fprintf(out, " %lld", (long long)json_integer_value(json_array_get(indices, i)));
    fputc('\n', out);
}

static void print_unused(FILE *out, const struct layer *layer)
{
    if (layer->unused == 0 || layer->rows == 0)
        return;
    fputs("  never selected:", out);
    for (size_t i = 0; i < layer->expert_count; i++)
        if (layer->experts[i].selected == 0)
            fprintf(out, " %llu", (unsigned long long)layer->experts[i].index);
    fputc('\n', out);
}

static void print_drift(FILE *out, const struct layer *layer, const char *against,
                        const char *words)
{
    json_t *drift = json_object_get(json_object_get(layer->json, "drift"), against);
    json_t *p = json_object_get(drift, "p_value");
    char text[CHANCE_BYTES];
    if (!json_is_object(drift))
        return;
    fprintf(out, "  drift against %s: JS %.4f bits, PSI %.3f, ", words,
            json_number_value(json_object_get(drift, "js_bits")),
            json_number_value(json_object_get(drift, "psi")));
    if (json_is_number(p))
        fprintf(out, "p %s\n", chance_text(json_number_value(p), text));
    else
        fputs("too few rows to tell\n", out);
}

static void print_quarantine(FILE *out, const struct layer *layer)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(layer->json, "quarantine"), i, entry)
    {
        char *reason = quarantine_reason(entry);
        fprintf(out, "  expert %lld is in quarantine: %s\n",
                (long long)json_integer_value(json_object_get(entry, "expert")), reason);
        free(reason);
    }
}

/* Those of nothing are no figures, and a 0 among them would read as one. */
static void print_balance(FILE *out, const struct layer *layer)
{
    if (layer->rows == 0) {
        fputs("  imbalance -   effective experts -\n  gate entropy -\n", out);
        return;
    }
    fprintf(out, "  imbalance %.2f", layer->imbalance);
    print_figure(out, "by weight", layer->weight_imbalance);
    print_figure(out, "effective experts", layer->effective_experts);
    fputc('\n', out);
    if (!isnan(layer->gate_entropy_bits))
        fprintf(out, "  gate entropy %.2f of %.2f bits   usage entropy %.2f",
                layer->gate_entropy_bits, log2((double)layer->expert_count),
                layer->usage_entropy_bits);
    print_figure(out, "margin", layer->margin);
    fputc('\n', out);
}

static void print_figures(FILE *out, const struct layer *layer)
{
    print_balance(out, layer);
    print_unused(out, layer);
    print_dying(out, layer);
    if (layer->dropped)
        fprintf(out, "  dropped for lack of capacity: %llu\n", (unsigned long long)layer->dropped);
    if (layer->overflowed)
        fprintf(out, "  with weights beyond 2^19, in no sum of weights: %llu\n",
                (unsigned long long)layer->overflowed);
    print_quarantine(out, layer);
    print_drift(out, layer, "reference", "the reference");
    print_drift(out, layer, "previous", "the window before");
}

void layer_print_size(const struct layer *layer, FILE *out)
{
    fprintf(out, "   %llu row%s, %zu of %zu expert%s serve%s a row\n",
            (unsigned long long)layer->rows, layer->rows == 1 ? "" : "s", layer->top_k,
            layer->expert_count, layer->expert_count == 1 ? "" : "s", layer->top_k == 1 ? "s" : "");
}

void layer_print(const struct terminal *terminal, const struct layer *layer, bool ranked)
{
    FILE *out = terminal->out;
    fputc('\n', out);
    terminal_paint(terminal, PAINT_BOLD);
    fputs(layer->name, out);
    terminal_paint(terminal, PAINT_PLAIN);
    layer_print_size(layer, out);
    terminal_paint(terminal, PAINT_DIM);
    fprintf(out, "%8s %12s%9s%9s%9s%*s  bar: %s\n", "expert", "selected", "share", "weight", "top1",
            has_reference(layer) ? REFERENCE_COLUMNS : 0, has_reference(layer) ? "expected" : "",
            layer->dense && layer->weighted ? "weight" : "share");
    terminal_paint(terminal, PAINT_PLAIN);
    print_experts(terminal, layer, ranked);
    print_figures(out, layer);
}
