/* `moectl routing`: who serves the traffic, as a table with bars, as JSON or as CSV. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/export.h"
#include "clients/c/moectl/layer_view.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"

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
        layer_print(&terminal, &document->layers[i], false);
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
        print_json(stdout, document->json, JSON_INDENT(2));
    } else if (settings->csv)
        export_csv(document, stdout);
    else
        print_table(document);
    document_free(document);
    return EXIT_SUCCESS;
}
