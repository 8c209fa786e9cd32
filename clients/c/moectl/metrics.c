/* Reads samples by name and label; the page's other lines are passed over. */
#include "clients/c/moectl/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line: name{labels} value. */
struct sample {
    const char *name, *labels, *value;
    size_t name_length, labels_length;
};

/* Label values hold no brace in what is asked for; one that does belongs to no model of ours. */
static bool read_sample(const char *line, struct sample *sample)
{
    size_t length = strcspn(line, "\n"), name = strcspn(line, "{ \n");
    if (*line == '#' || name >= length || line[name] != '{')
        return false;
    const char *end = memchr(line, '}', length);
    if (!end)
        return false;
    *sample = (struct sample){.name = line,
                              .name_length = name,
                              .labels = line + name + 1,
                              .labels_length = (size_t)(end - line) - name - 1,
                              .value = end + 1};
    return true;
}

static bool is_named(const struct sample *sample, const char *name)
{
    return strlen(name) == sample->name_length &&
           memcmp(name, sample->name, sample->name_length) == 0;
}

/* The value of a label, up to its closing quote; NULL: there is none. */
static const char *find_label(const struct sample *sample, const char *name, size_t *length)
{
    size_t name_length = strlen(name);
    const char *end = sample->labels + sample->labels_length;
    for (const char *at = sample->labels; at < end;) {
        const char *quote = memchr(at, '"', (size_t)(end - at));
        const char *close = quote ? memchr(quote + 1, '"', (size_t)(end - quote - 1)) : NULL;
        if (!close)
            return NULL;
        if ((size_t)(quote - at) == name_length + 1 && memcmp(at, name, name_length) == 0) {
            *length = (size_t)(close - quote) - 1;
            return quote + 1;
        }
        at = close + 1 + (close[1] == ',');
    }
    return NULL;
}

static bool has_label(const struct sample *sample, const char *name, const char *value)
{
    size_t length;
    const char *found = find_label(sample, name, &length);
    return found && strlen(value) == length && memcmp(found, value, length) == 0;
}

static void add(double *sum, double value)
{
    *sum = isnan(*sum) ? value : *sum + value;
}

static void add_bucket(struct metrics *metrics, const struct sample *sample, double value)
{
    size_t length, i = 0;
    const char *text = find_label(sample, "le", &length);
    double bound = text ? strtod(text, NULL) : NAN; /* "+Inf" is one */
    while (i < metrics->buckets && metrics->bounds[i] != bound)
        i++;
    if (isnan(bound) || i == METRICS_MOST_BUCKETS)
        return;
    if (i == metrics->buckets) {
        metrics->buckets++;
        metrics->bounds[i] = bound;
        metrics->below[i] = 0;
    }
    metrics->below[i] += value;
}

static void add_sample(struct metrics *metrics, const struct sample *sample)
{
    double value = strtod(sample->value, NULL);
    if (is_named(sample, "moed_requests_total")) {
        add(&metrics->requests, value);
        if (!has_label(sample, "code", "200"))
            add(&metrics->failed, value);
    } else if (is_named(sample, "moed_queue_rows"))
        add(&metrics->queue_rows, value);
    else if (is_named(sample, "moed_request_seconds_bucket"))
        add_bucket(metrics, sample, value);
}

void metrics_read(struct metrics *metrics, const char *text, const char *model)
{
    *metrics = (struct metrics){.requests = NAN, .failed = NAN, .queue_rows = NAN};
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        struct sample sample;
        if (read_sample(line, &sample) && has_label(&sample, "model", model))
            add_sample(metrics, &sample);
    }
}

double metrics_rows(const char *text, const char *model)
{
    double rows = 0;
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        struct sample sample;
        if (read_sample(line, &sample) && is_named(&sample, "moed_rows_total") &&
            has_label(&sample, "model", model))
            rows += strtod(sample.value, NULL);
    }
    return rows;
}

double metrics_percentile(const struct metrics *now, const struct metrics *before, double part)
{
    if (now->buckets == 0 || now->buckets != before->buckets)
        return NAN;
    size_t last = now->buckets - 1;
    double all = now->below[last] - before->below[last], rank = part * all, under = 0, from = 0;
    if (!(all > 0))
        return NAN;
    for (size_t i = 0; i < now->buckets; i++) {
        double below = now->below[i] - before->below[i];
        if (below >= rank && isinf(now->bounds[i]))
            return from;
        if (below >= rank)
            return from + (now->bounds[i] - from) * (rank - under) / (below - under);
        under = below;
        from = now->bounds[i];
    }
    return from;
}
