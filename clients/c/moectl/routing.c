/* `moectl routing`: who serves the traffic, as a table with bars, as JSON or as CSV. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/export.h"
#include "clients/c/moectl/figures.h"
#include "clients/c/moectl/run.h"
#include "clients/c/moectl/terminal.h"

enum { FIXED_COLUMNS = 56, LEAST_BAR = 8, MOST_BAR = 40 };

/* ---- one expert ---- */

/* "12.3%", right-aligned; "-" for what the document does not say. */
static void print_percent(double part)
{
    if (isnan(part))
        printf("%9s", "-");
    else
        printf("%8.1f%%", 100 * part);
}

static enum paint paint_of(const struct layer *layer, const struct expert *expert)
{
    double load = expert_load(layer, expert) * (double)layer->expert_count;
    if (layer->rows == 0)
        return PAINT_DIM;
    if (expert->selected == 0)
        return PAINT_BAD;
    return load > 2 ? PAINT_WARN : PAINT_GOOD;
}

/* Idle experts say for how long; the others leave the column empty. */
static void print_idle(double seconds)
{
    if (isnan(seconds) || seconds < 60)
        return;
    if (seconds < 3600)
        printf("  idle %.0f min", seconds / 60);
    else
        printf("  idle %.1f h", seconds / 3600);
}

static void print_expert(const struct terminal *terminal, const struct layer *layer,
                         const struct expert *expert, double largest)
{
    int columns = terminal->columns - FIXED_COLUMNS;
    columns = columns < LEAST_BAR ? LEAST_BAR : columns > MOST_BAR ? MOST_BAR : columns;
    printf("%8llu %12llu", (unsigned long long)expert->index, (unsigned long long)expert->selected);
    print_percent(expert->share);
    print_percent(expert->weight_share);
    print_percent(layer->rows ? (double)expert->top1 / (double)layer->rows : 0);
    fputs("  ", stdout);
    terminal_paint(terminal, paint_of(layer, expert));
    terminal_bar(terminal, largest > 0 ? expert_load(layer, expert) / largest : 0, columns);
    terminal_paint(terminal, PAINT_PLAIN);
    if (!isnan(expert->accuracy))
        printf("  accuracy %.1f%%", 100 * expert->accuracy);
    print_idle(expert->idle_seconds);
    putchar('\n');
}

/* ---- one layer ---- */

static void print_figure(const char *title, double value)
{
    if (!isnan(value))
        printf("   %s %.2f", title, value);
}

static void print_list(const char *title, const struct layer *layer, json_t *indices)
{
    if (json_array_size(indices) == 0)
        return;
    printf("  %s:", title);
    for (size_t i = 0; i < json_array_size(indices) && i < layer->expert_count; i++)
        printf(" %lld", (long long)json_integer_value(json_array_get(indices, i)));
    putchar('\n');
}

static void print_unused(const struct layer *layer)
{
    if (layer->unused == 0 || layer->rows == 0)
        return;
    printf("  never selected:");
    for (size_t i = 0; i < layer->expert_count; i++)
        if (layer->experts[i].selected == 0)
            printf(" %llu", (unsigned long long)layer->experts[i].index);
    putchar('\n');
}

static void print_drift(const struct layer *layer, const char *against, const char *words)
{
    json_t *drift = json_object_get(json_object_get(layer->json, "drift"), against);
    double js = json_number_value(json_object_get(drift, "js_bits"));
    json_t *p = json_object_get(drift, "p_value");
    if (!json_is_object(drift))
        return;
    printf("  drift against %s: JS %.4f bits, PSI %.3f", words, js,
           json_number_value(json_object_get(drift, "psi")));
    if (json_is_number(p))
        printf(", p %.2g", json_number_value(p));
    putchar('\n');
}

static void print_figures(const struct layer *layer)
{
    printf("  imbalance %.2f", layer->imbalance);
    print_figure("by weight", layer->weight_imbalance);
    print_figure("effective experts", layer->effective_experts);
    putchar('\n');
    if (!isnan(layer->gate_entropy_bits))
        printf("  gate entropy %.2f of %.2f bits   usage entropy %.2f", layer->gate_entropy_bits,
               log2((double)layer->expert_count), layer->usage_entropy_bits);
    print_figure("margin", layer->margin);
    putchar('\n');
    print_unused(layer);
    print_list("dying", layer, json_object_get(layer->json, "dying"));
    if (layer->dropped)
        printf("  dropped for lack of capacity: %llu\n", (unsigned long long)layer->dropped);
    print_drift(layer, "reference", "the reference");
    print_drift(layer, "previous", "the window before");
}

static void print_layer(const struct terminal *terminal, const struct layer *layer)
{
    double largest = 0;
    for (size_t i = 0; i < layer->expert_count; i++)
        largest = fmax(largest, expert_load(layer, &layer->experts[i]));
    putchar('\n');
    terminal_paint(terminal, PAINT_BOLD);
    fputs(layer->name, stdout);
    terminal_paint(terminal, PAINT_PLAIN);
    printf("   %llu rows, %zu of %zu experts serve a row\n", (unsigned long long)layer->rows,
           layer->top_k, layer->expert_count);
    terminal_paint(terminal, PAINT_DIM);
    printf("%8s %12s%9s%9s%9s  bar: %s\n", "expert", "selected", "share", "weight", "top1",
           layer->dense && layer->weighted ? "weight" : "share");
    terminal_paint(terminal, PAINT_PLAIN);
    for (size_t i = 0; i < layer->expert_count; i++)
        print_expert(terminal, layer, &layer->experts[i], largest);
    print_figures(layer);
}

static void print_table(const struct document *document)
{
    struct terminal terminal = terminal_of_output();
    printf("%s version %s, ", document->model, document->version);
    if (strcmp(document->window, "all") == 0)
        fputs("since it was loaded", stdout);
    else
        printf("the last %s", document->window);
    if (!isnan(document->seconds))
        printf(" (%.0f s)", document->seconds);
    putchar('\n');
    for (size_t i = 0; i < document->layer_count; i++)
        print_layer(&terminal, &document->layers[i]);
    if (document->layer_count == 0)
        puts("no MoE layer: nothing is routed");
}

int run_routing(const struct settings *settings, struct moed_client_error *err)
{
    if (settings->json && settings->csv) {
        fail_with(err, "--json and --csv: expected one of them");
        return EXIT_USAGE;
    }
    if (document_check_source(settings, err) != 0)
        return EXIT_USAGE;
    struct document *document = document_fetch(settings, settings->include, err);
    if (!document)
        return -1;
    if (settings->json) {
        json_dumpf(document->json, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (settings->csv)
        export_csv(document, stdout);
    else
        print_table(document);
    document_free(document);
    return EXIT_SUCCESS;
}
