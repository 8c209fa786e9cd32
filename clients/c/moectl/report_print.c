/* `moectl report`: findings about one document or two, layer by layer. */
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/layer_view.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/report.h"
#include "clients/c/moectl/run.h"
#include "clients/c/moectl/terminal.h"

static enum paint paint_of(const char *kind)
{
    static const char *const BAD[] = {"unused", "dying", "collapsed", "failing"};
    static const char *const WARN[] = {"hot",       "negligible", "undecided", "drift",
                                       "redundant", "alone",      "overflowed"};
    for (size_t i = 0; i < LENGTH(BAD); i++)
        if (strcmp(kind, BAD[i]) == 0)
            return PAINT_BAD;
    for (size_t i = 0; i < LENGTH(WARN); i++)
        if (strcmp(kind, WARN[i]) == 0)
            return PAINT_WARN;
    return PAINT_PLAIN;
}

static const char *text_of(json_t *finding, const char *key)
{
    return json_string_value(json_object_get(finding, key));
}

static void print_layer(const struct terminal *terminal, const struct layer *layer,
                        json_t *findings)
{
    size_t i, judged = 0;
    json_t *finding;
    terminal_paint(terminal, PAINT_BOLD);
    printf("\n%s", layer->name);
    terminal_paint(terminal, PAINT_PLAIN);
    layer_print_size(layer, stdout);
    json_array_foreach(findings, i, finding)
    {
        const char *kind = text_of(finding, "kind");
        if (strcmp(text_of(finding, "layer"), layer->name) != 0)
            continue;
        judged += paint_of(kind) != PAINT_PLAIN;
        terminal_paint(terminal, paint_of(kind));
        printf("  %-11s", kind);
        terminal_paint(terminal, PAINT_PLAIN);
        puts(text_of(finding, "text"));
    }
    if (judged == 0 && layer->rows > 0)
        puts("  nothing stands out");
}

/* `before`: what it is compared with; NULL: nothing. */
static void print_findings(const struct document *document, const struct document *before,
                           json_t *findings)
{
    struct terminal terminal = terminal_of_output();
    printf("%s version %s, window %s", document->model, document->version, document->window);
    if (before)
        printf("; before: version %s, window %s", before->version, before->window);
    putchar('\n');
    for (size_t i = 0; i < document->layer_count; i++)
        print_layer(&terminal, &document->layers[i], findings);
}

static void show_json(const struct document *document, const struct document *before,
                      json_t *findings)
{
    json_t *root = json_pack("{s:s, s:s, s:s, s:O}", "model", document->model, "version",
                             document->version, "window", document->window, "findings", findings);
    if (before)
        json_object_set_new(
            root, "before",
            json_pack("{s:s, s:s}", "version", before->version, "window", before->window));
    print_json(stdout, root, JSON_INDENT(2));
    json_decref(root);
}

static struct document *read_operand(const struct settings *settings, size_t i,
                                     struct moed_client_error *err)
{
    struct document *document = document_read_file(settings->operands[i], err);
    if (document && document_keep_layer(document, settings->layer, err) != 0) {
        document_free(document);
        return NULL;
    }
    return document;
}

/* The last document is the one that is judged, the one before it what it is compared with. */
int run_report(const struct settings *settings, struct moed_client_error *err)
{
    bool two = settings->operand_count == 2;
    struct document *before = two ? read_operand(settings, 0, err) : NULL;
    struct document *now = !two || before ? read_operand(settings, two, err) : NULL;
    json_t *findings = now ? report_make(now, before, settings->cache, err) : NULL;
    if (findings && settings->json)
        show_json(now, before, findings);
    else if (findings)
        print_findings(now, before, findings);
    json_decref(findings);
    document_free(now);
    document_free(before);
    return findings ? EXIT_SUCCESS : -1;
}
