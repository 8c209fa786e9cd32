/* Writes pages; label values are escaped and made UTF-8. */
#include "proto/prometheus.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/text.h"
#include "proto/number.h"

void histogram_init(struct histogram *histogram, const double *bounds, size_t bound_count)
{
    *histogram = (struct histogram){
        .bounds = bounds,
        .bound_count = bound_count,
        .counts = xcalloc(bound_count + 1, sizeof *histogram->counts),
    };
}

void histogram_close(struct histogram *histogram)
{
    free(histogram->counts);
    *histogram = (struct histogram){0};
}

/* Upper bounds are inclusive. With a dozen buckets a linear scan beats a binary search. */
void histogram_observe(struct histogram *histogram, double value)
{
    size_t bucket = 0;
    while (bucket < histogram->bound_count && !(value <= histogram->bounds[bucket]))
        bucket++;
    histogram->counts[bucket]++;
    histogram->sum += value;
}

void histogram_add(struct histogram *total, const struct histogram *histogram)
{
    for (size_t i = 0; i <= histogram->bound_count; i++)
        total->counts[i] += histogram->counts[i];
    total->sum += histogram->sum;
}

struct series {
    const char *name;
    const struct prometheus_label *labels;
    size_t label_count;
};

/* One byte that is not UTF-8 would make a scraper refuse the whole page. */
static void append_escaped(struct buffer *page, const char *text)
{
    while (*text) {
        size_t bytes = utf8_character(text);
        if (bytes == 0)
            buffer_text(page, UTF8_REPLACEMENT);
        else if (*text == '\\')
            buffer_text(page, "\\\\");
        else if (*text == '"')
            buffer_text(page, "\\\"");
        else if (*text == '\n')
            buffer_text(page, "\\n");
        else
            buffer_append(page, text, bytes);
        text += bytes > 0 ? bytes : 1;
    }
}

static void append_value(struct buffer *page, double value)
{
    char text[NUMBER_FORMAT_BYTES];
    if (isnan(value))
        buffer_text(page, "NaN");
    else if (isinf(value))
        buffer_text(page, value > 0 ? "+Inf" : "-Inf");
    else
        buffer_append(page, text, number_format_double(text, value));
}

void prometheus_family(struct prometheus_page *page, const char *name, const char *type,
                       const char *help)
{
    size_t length = strlen(name);
    assert(!strpbrk(help, "\\\n\"")); /* our own literals: they need no escaping */
    if (page->openmetrics && strcmp(type, "counter") == 0)
        length -= strlen("_total");
    buffer_format(page->body, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)length, name, help,
                  (int)length, name, type);
}

/* OpenMetrics wants a point or an exponent. */
static void append_bound(struct prometheus_page *page, double bound)
{
    buffer_text(page->body, "le=\"");
    append_value(page->body, bound);
    const bool whole = isfinite(bound) && bound == floor(bound) && fabs(bound) < 1e15;
    buffer_text(page->body, whole && page->openmetrics ? ".0\"" : "\"");
}

/* Appends name_suffix{labels,le="bound"}; `bound` NULL for none. */
static void append_series(struct prometheus_page *page, const struct series *series,
                          const char *suffix, const double *bound)
{
    assert(series->label_count <= PROMETHEUS_MAX_LABELS);
    buffer_format(page->body, "%s%s", series->name, suffix);
    const char *separator = "{";
    for (size_t i = 0; i < series->label_count; i++, separator = ",") {
        buffer_format(page->body, "%s%s=\"", separator, series->labels[i].name);
        append_escaped(page->body, series->labels[i].value);
        buffer_text(page->body, "\"");
    }
    if (bound) {
        buffer_text(page->body, separator);
        append_bound(page, *bound);
    }
    buffer_text(page->body, series->label_count > 0 || bound ? "} " : " ");
}

void prometheus_sample(struct prometheus_page *page, const char *name,
                       const struct prometheus_label *labels, size_t label_count, double value)
{
    append_series(page, &(struct series){name, labels, label_count}, "", NULL);
    append_value(page->body, value);
    buffer_text(page->body, "\n");
}

void prometheus_histogram(struct prometheus_page *page, const char *name,
                          const struct prometheus_label *labels, size_t label_count,
                          const struct histogram *histogram)
{
    const struct series series = {name, labels, label_count};
    uint64_t cumulative = 0;
    for (size_t i = 0; i <= histogram->bound_count; i++) {
        double bound = i < histogram->bound_count ? histogram->bounds[i] : INFINITY;
        cumulative += histogram->counts[i];
        append_series(page, &series, "_bucket", &bound);
        buffer_format(page->body, "%" PRIu64 "\n", cumulative);
    }
    append_series(page, &series, "_sum", NULL);
    append_value(page->body, histogram->sum);
    buffer_text(page->body, "\n");
    append_series(page, &series, "_count", NULL);
    buffer_format(page->body, "%" PRIu64 "\n", cumulative);
}

void prometheus_end(struct prometheus_page *page)
{
    if (page->openmetrics)
        buffer_text(page->body, "# EOF\n");
}

/* ---- which format ---- */

/* Prometheus names OpenMetrics only if it can read it, and then prefers it. */
bool prometheus_wants_openmetrics(const char *accept)
{
    return accept && strstr(accept, "application/openmetrics-text");
}

const char *prometheus_content_type(bool openmetrics)
{
    return openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                       : "text/plain; version=0.0.4; charset=utf-8";
}
