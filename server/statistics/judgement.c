/* Only requests with labels or an id pay for any of this. */
#include "server/statistics/judgement.h"

#include "server/compute/job.h"
#include "server/models/model.h"

void judge_job(const struct job *job, size_t loop)
{
    const struct model *model = job->model;
    if (!job->first)
        return;
    const struct answered_rows rows = {
        .rows = job->request.rows,
        .classes = model_classes(model),
        .scores = job->outputs[model->class_output],
        .items_per_row = model->items_per_row,
        .first = (const int32_t *const *)job->first,
    };
    if (job->request.labels)
        stats_judge(&model->stats->loop[loop], job->tag, &rows, job->request.labels);
    else
        feedback_remember(&model->stats->feedback, job->request.id, job->tag, &rows,
                          model->info->gate_count);
}
