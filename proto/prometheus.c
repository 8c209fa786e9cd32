/* Writes the text format 0.0.4; label values are escaped and made UTF-8. */
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

/* Upper bounds are inclusive. A dozen buckets: a linear walk beats a search. */
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

void prometheus_family(struct buffer *page, const char *name, const char *type, const char *help)
{
    assert(!strpbrk(help, "\\\n")); /* ours: literals that need no escaping */
    buffer_format(page, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Appends name_suffix{labels,le="bound"}; `bound` NULL for none. */
static void append_series(struct buffer *page, const char *name, const char *suffix,
                          const struct prometheus_label *labels, size_t label_count,
                          const double *bound)
{
    assert(label_count <= PROMETHEUS_MAX_LABELS);
    buffer_format(page, "%s%s", name, suffix);
    const char *separator = "{";
    for (size_t i = 0; i < label_count; i++, separator = ",") {
        buffer_format(page, "%s%s=\"", separator, labels[i].name);
        append_escaped(page, labels[i].value);
        buffer_text(page, "\"");
    }
    if (bound) {
        buffer_format(page, "%sle=\"", separator);
        append_value(page, *bound);
        buffer_text(page, "\"");
    }
    buffer_text(page, label_count > 0 || bound ? "} " : " ");
}

void prometheus_sample(struct buffer *page, const char *name, const struct prometheus_label *labels,
                       size_t label_count, double value)
{
    append_series(page, name, "", labels, label_count, NULL);
    append_value(page, value);
    buffer_text(page, "\n");
}

void prometheus_histogram(struct buffer *page, const char *name,
                          const struct prometheus_label *labels, size_t label_count,
                          const struct histogram *histogram)
{
    uint64_t cumulative = 0;
    for (size_t i = 0; i <= histogram->bound_count; i++) {
        double bound = i < histogram->bound_count ? histogram->bounds[i] : INFINITY;
        cumulative += histogram->counts[i];
        append_series(page, name, "_bucket", labels, label_count, &bound);
        buffer_format(page, "%" PRIu64 "\n", cumulative);
    }
    append_series(page, name, "_sum", labels, label_count, NULL);
    append_value(page, histogram->sum);
    buffer_text(page, "\n");
    append_series(page, name, "_count", labels, label_count, NULL);
    buffer_format(page, "%" PRIu64 "\n", cumulative);
}
