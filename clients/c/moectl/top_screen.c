/* The screen of `moectl top`: a head of three lines, then as much of the layers as fits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/moectl/layer_view.h"
#include "clients/c/moectl/top.h"
#include "clients/c/text.h"

enum { HEAD_LINES = 3 };

static const char HELP[] = "\n"
                           "  n, Tab     the next model          p   the model before\n"
                           "  w          the window: all, 1m, 5m, 1h\n"
                           "  s          experts by load, or by number\n"
                           "  Up, Down   scroll, also PgUp, PgDn, Home\n"
                           "  Space      hold the picture        r   fetch at once\n"
                           "  h, ?       this help               q   leave\n";

/* ---- rates ---- */

/* What happened between the last two snapshots; NAN: not known. */
struct rates {
    double rows, requests, failed; /* per second */
    double p50, p99;               /* seconds */
};

static double rows_of(const struct snapshot *snapshot)
{
    double rows = 0;
    for (size_t i = 0; snapshot->document && i < snapshot->document->layer_count; i++)
        rows = fmax(rows, (double)snapshot->document->layers[i].rows);
    return rows;
}

static struct rates rates_of(const struct top *top)
{
    struct rates rates = {NAN, NAN, NAN, NAN, NAN};
    const struct snapshot *now = top->now, *before = top->before;
    if (!now || !before || !now->document || !(now->time > before->time))
        return rates;
    double seconds = now->time - before->time;
    if (!top->window && before->document)
        rates.rows = fmax(rows_of(now) - rows_of(before), 0) / seconds;
    else if (now->document->seconds > 0)
        rates.rows = rows_of(now) / now->document->seconds;
    rates.requests = (now->metrics.requests - before->metrics.requests) / seconds;
    rates.failed = (now->metrics.failed - before->metrics.failed) / seconds;
    rates.p50 = metrics_percentile(&now->metrics, &before->metrics, 0.5);
    rates.p99 = metrics_percentile(&now->metrics, &before->metrics, 0.99);
    return rates;
}

/* "12.3", or "-" for what is not known. */
static void print_number(FILE *out, const char *title, double value, const char *unit)
{
    if (isnan(value))
        fprintf(out, "%s -", title);
    else
        fprintf(out, "%s %.*f%s", title, fabs(value) < 100 ? 1 : 0, value, unit);
}

/* ---- the head ---- */

static size_t position_of(const struct snapshot *snapshot)
{
    size_t i;
    json_t *name;
    json_array_foreach(snapshot->names, i, name)
    {
        if (strcmp(json_string_value(name), snapshot->model) == 0)
            return i + 1;
    }
    return 0;
}

static void print_title(const struct top *top)
{
    const struct terminal *terminal = &top->terminal;
    const struct snapshot *now = top->now;
    char *address = xchecked(text_without_password(top->settings->url)), *url = printable(address);
    char clock[16];
    time_t seconds = time(NULL);
    struct tm local;
    strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&seconds, &local));
    fprintf(terminal->out, "moectl top  %s  %s  every %g s%s\n", clock, url,
            top->settings->interval, top->paused ? "  HELD" : "");
    free(url);
    free(address);
    if (!now || !now->document) {
        fputs("waiting for the server\n", terminal->out);
        return;
    }
    terminal_paint(terminal, PAINT_BOLD);
    fputs(now->document->model, terminal->out);
    terminal_paint(terminal, PAINT_PLAIN);
    fprintf(terminal->out, " version %s  (%zu of %zu)  window %s%s\n", now->document->version,
            position_of(now), json_array_size(now->names), now->document->window,
            top->ranked ? "  by load" : "");
}

/* What is wrong, or else how much is going on. */
static void print_status(const struct top *top)
{
    const struct terminal *terminal = &top->terminal;
    struct rates rates = rates_of(top);
    if (top->now && top->now->err.code != MOED_CLIENT_OK) {
        char *text = printable(top->now->err.text);
        terminal_paint(terminal, PAINT_BAD);
        fprintf(terminal->out, "%s", text);
        terminal_paint(terminal, PAINT_PLAIN);
        free(text);
    } else {
        print_number(terminal->out, "rows", rates.rows, "/s");
        print_number(terminal->out, "  requests", rates.requests, "/s");
        print_number(terminal->out, "  not 200", rates.failed, "/s");
        print_number(terminal->out, "  p50", 1e3 * rates.p50, " ms");
        print_number(terminal->out, "  p99", 1e3 * rates.p99, " ms");
        if (top->now && !isnan(top->now->metrics.queue_rows))
            fprintf(terminal->out, "  queue %.0f rows", top->now->metrics.queue_rows);
    }
    fputc('\n', terminal->out);
}

/* ---- the body ---- */

static void print_body(const struct top *top)
{
    const struct document *document = top->now ? top->now->document : NULL;
    if (top->help) {
        fputs(HELP, top->terminal.out);
        return;
    }
    for (size_t i = 0; document && i < document->layer_count; i++)
        layer_print(&top->terminal, &document->layers[i], top->ranked);
    if (document && document->layer_count == 0)
        fputs("\nno MoE layer: nothing is routed\n", top->terminal.out);
}

/* Whatever `print` prints, as text; the caller frees. */
static char *printed(const struct top *top, void (*print)(const struct top *top))
{
    char *text = NULL;
    size_t length;
    struct top copy = *top;
    copy.terminal.out = open_memstream(&text, &length);
    if (!copy.terminal.out)
        return xstrdup("");
    print(&copy);
    fclose(copy.terminal.out);
    return text ? text : xstrdup("");
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* ---- the frame ---- */

/* At most `lines` lines of the text; what is left of each on the screen is erased. */
static void put_lines(FILE *out, const char *text, size_t skip, size_t lines)
{
    for (; skip > 0 && *text; skip--)
        text += strcspn(text, "\n") + 1;
    for (; lines > 0 && *text; lines--) {
        size_t length = strcspn(text, "\n");
        fprintf(out, "%.*s\033[0m\033[K%s", (int)length, text, lines > 1 ? "\r\n" : "");
        text += length + (text[length] == '\n');
    }
}

static void print_head(const struct top *top)
{
    print_title(top);
    print_status(top);
}

static void write_all(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, length);
        if (written <= 0)
            return; /* the terminal is gone: its hang-up ends us */
        bytes += written;
        length -= (size_t)written;
    }
}

void top_draw(struct top *top)
{
    size_t lines = top->terminal.lines > 0 ? (size_t)top->terminal.lines : 1;
    size_t room = lines > HEAD_LINES ? lines - HEAD_LINES : 0;
    char *head = printed(top, print_head), *body = printed(top, print_body), *frame = NULL;
    size_t body_lines = count_lines(body), most = body_lines > room ? body_lines - room : 0;
    size_t length;
    FILE *out = open_memstream(&frame, &length);
    top->scroll = top->scroll < most ? top->scroll : most;
    if (out) {
        fputs("\033[H", out);
        put_lines(out, head, 0, lines < HEAD_LINES ? lines : HEAD_LINES);
        if (room > 0)
            fputs(lines > HEAD_LINES ? "\r\n" : "", out);
        put_lines(out, body, top->scroll, room);
        fputs("\033[J", out);
        fclose(out);
        write_all(frame, length);
    }
    free(frame);
    free(head);
    free(body);
}

/* ---- without a terminal ---- */

void top_print_lines(const struct top *top, FILE *out)
{
    const struct document *document = top->now->document;
    struct rates rates = rates_of(top);
    char clock[32];
    time_t seconds = time(NULL);
    struct tm local;
    strftime(clock, sizeof clock, "%Y-%m-%dT%H:%M:%S", localtime_r(&seconds, &local));
    for (size_t i = 0; i < document->layer_count; i++) {
        const struct layer *layer = &document->layers[i];
        size_t *ranking = layer_ranking(layer);
        const struct expert *first = &layer->experts[ranking[0]];
        fprintf(out, "%s %s %s rows=%llu", clock, document->model, layer->name,
                (unsigned long long)layer->rows);
        if (!isnan(rates.rows))
            fprintf(out, " rows_per_second=%.1f", rates.rows);
        if (layer->rows > 0)
            fprintf(out, " imbalance=%.3f", layer->imbalance);
        else
            fputs(" imbalance=-", out);
        if (layer->rows > 0 && !isnan(layer->weight_imbalance))
            fprintf(out, " weight_imbalance=%.3f", layer->weight_imbalance);
        if (layer->rows > 0 && !isnan(layer->gate_entropy_bits))
            fprintf(out, " gate_entropy_bits=%.3f", layer->gate_entropy_bits);
        fprintf(out, " unused=%zu busiest=%llu load=%.4f\n", layer->unused,
                (unsigned long long)first->index, expert_load(layer, first));
        free(ranking);
    }
}
