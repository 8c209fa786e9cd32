/* Judges answers and adds up verdicts. */
#include "proto/routing_quality.h"

#include <math.h>

/* ---- verdicts ---- */

size_t routing_predicted(const float *scores, size_t classes)
{
    size_t best = 0;
    for (size_t i = 1; i < classes; i++)
        if (scores[i] > scores[best] || (isnan(scores[best]) && !isnan(scores[i])))
            best = i;
    return best;
}

static bool are_probabilities(const float *scores, size_t classes)
{
    double sum = 0;
    for (size_t i = 0; i < classes; i++) {
        if (!(scores[i] >= 0 && scores[i] <= 1))
            return false;
        sum += (double)scores[i];
    }
    return fabs(sum - 1) < 1e-3;
}

static double exponential(float score, float most)
{
    return isnan(score) ? 0 : exp((double)score - (double)most);
}

/* The softmax of one score; `most` is the largest. */
static double softmax_of(const float *scores, size_t classes, size_t class, float most)
{
    double sum = 0;
    if (!isfinite(most)) /* an infinite score has it all */
        return scores[class] == most ? 1 : 0;
    for (size_t i = 0; i < classes; i++)
        sum += exponential(scores[i], most);
    return exponential(scores[class], most) / sum;
}

struct routing_verdict routing_judge(const float *scores, size_t classes, size_t truth)
{
    const double least = 1e-15;
    struct routing_verdict verdict = {.predicted = routing_predicted(scores, classes)};
    const float most = scores[verdict.predicted];
    double p = (double)scores[truth];
    verdict.correct = verdict.predicted == truth;
    verdict.confidence = (double)most;
    if (!are_probabilities(scores, classes)) {
        p = softmax_of(scores, classes, truth, most);
        verdict.confidence = softmax_of(scores, classes, verdict.predicted, most);
    }
    verdict.log_loss = -log(fmax(p, least));
    return verdict;
}

/* ---- counts ---- */

void routing_quality_count(struct routing_quality *quality, const struct routing_verdict *verdict)
{
    const double part = verdict->confidence * QUALITY_BINS;
    struct quality_bin *bin =
        &quality->bins[part < QUALITY_BINS - 1 ? (size_t)fmax(part, 0) : QUALITY_BINS - 1];
    quality->log_loss += moed_sum_of(verdict->log_loss);
    bin->items++;
    bin->correct += verdict->correct;
    bin->confidence += moed_sum_of(verdict->confidence);
}

void routing_quality_add(struct routing_quality *to, const struct routing_quality *from, int sign)
{
    const uint64_t factor = (uint64_t)(int64_t)sign;
    to->log_loss += sign * from->log_loss;
    for (size_t i = 0; i < QUALITY_BINS; i++) {
        to->bins[i].items += factor * from->bins[i].items;
        to->bins[i].correct += factor * from->bins[i].correct;
        to->bins[i].confidence += sign * from->bins[i].confidence;
    }
}

struct quality_figures routing_quality_figures(const struct routing_quality *quality)
{
    struct quality_figures figures = {0};
    double gaps = 0;
    for (size_t i = 0; i < QUALITY_BINS; i++) {
        const struct quality_bin *bin = &quality->bins[i];
        figures.labelled += bin->items;
        figures.correct += bin->correct;
        gaps += fabs((double)bin->correct - moed_sum_value(bin->confidence));
    }
    if (figures.labelled == 0)
        return figures;
    const double labelled = (double)figures.labelled;
    figures.accuracy = (double)figures.correct / labelled;
    figures.log_loss = moed_sum_value(quality->log_loss) / labelled;
    figures.ece = gaps / labelled;
    return figures;
}
