/* Means that forget: each measurement has a weight of its own, older ones less and less. */
#include "server/compute/pace.h"

#include <math.h>

/* Of the newest batch's time; the machine's load changes within seconds. */
static const double NEW = 0.2;

/* What is remembered of rows that left, from batch to batch: some twenty of them. */
static const double KEPT = 0.95;

void pace_init(struct pace *pace, size_t most_rows, uint64_t row_ns)
{
    const double most = (double)most_rows;
    *pace = (struct pace){.most = most, .rows = most, .ns = most * (double)row_ns};
}

static void mix(double *mean, double value)
{
    *mean = *mean > 0 ? (1 - NEW) * *mean + NEW * value : value;
}

/* A batch that was small because few rows waited says nothing new. */
void pace_computed(struct pace *pace, size_t rows, uint64_t compute_ns, bool cut)
{
    if (cut) {
        mix(&pace->cut_rows, (double)rows);
        mix(&pace->cut_ns, (double)compute_ns);
    } else if ((double)rows > pace->most / 2) {
        mix(&pace->rows, (double)rows);
        mix(&pace->ns, (double)compute_ns);
    }
}

void pace_left(struct pace *pace, size_t rows, uint64_t now_ns, bool others_wait)
{
    if (pace->since_ns > 0) {
        pace->left_rows = KEPT * pace->left_rows + (double)rows;
        pace->left_ns = KEPT * pace->left_ns + (double)(now_ns - pace->since_ns);
    }
    pace->since_ns = others_wait ? now_ns : 0;
}

/* A batch takes start + rows * each: the line through what was measured. */
size_t pace_rows(const struct pace *pace, uint64_t slice_ns)
{
    const double between = pace->rows - pace->cut_rows;
    double each = pace->ns / pace->rows, start = 0;
    if (pace->cut_rows > 0 && between >= 1) {
        each = fmax((pace->ns - pace->cut_ns) / between, 0);
        start = fmax(pace->cut_ns - each * pace->cut_rows, 0);
    }
    const double fit = ((double)slice_ns - start) / each;
    const double half = start * pace->most / (2 * start + each * pace->most);
    const double rows = fmin(fmax(fit, half), pace->most);
    return rows >= 1 ? (size_t)rows : 1; /* also if a time of 0 made it no number */
}

double pace_wait_ns(const struct pace *pace, size_t rows)
{
    return pace->left_rows > 0 ? (double)rows * pace->left_ns / pace->left_rows : 0;
}

unsigned pace_retry_after(const struct pace *pace, size_t rows)
{
    enum { MOST_SECONDS = 30 };
    const double seconds = ceil(pace_wait_ns(pace, rows) / 1e9);
    return seconds < 1 ? 1 : seconds > MOST_SECONDS ? MOST_SECONDS : (unsigned)seconds;
}
