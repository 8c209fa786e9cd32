/* Finds the answer that the labels are about, and counts them. */
#include "server/routes/feedback_api.h"

#include <stdlib.h>

#include "core/text.h"
#include "proto/annotation.h"
#include "proto/json.h"
#include "server/routes/describe.h"

/* How many of the labels are known ones. */
static size_t count_known(const struct feedback_request *request)
{
    size_t known = 0;
    for (size_t i = 0; i < request->rows; i++)
        known += request->labels[i] >= 0;
    return known;
}

/* The answer of request->id, if it has as many rows as there are labels. */
static struct remembered *find(struct feedback *feedback, const struct feedback_request *request,
                               struct error *err)
{
    size_t has;
    struct remembered *answer = feedback_take(feedback, request->id, request->rows, &has);
    if (!answer && has > 0)
        error_set(err, ERROR_INVALID,
                  "'labels' has %zu %s, the request with id '%.64s' had %zu row%s", request->rows,
                  request->rows == 1 ? "entry" : "entries", request->id, has, text_s(has));
    else if (!answer)
        error_set(err, ERROR_NOT_FOUND,
                  "no recent answer with id '%.64s' waits for labels: its model had another "
                  "version, it was long ago, or its labels have come",
                  request->id);
    return answer;
}

void feedback_receive(const struct api *api, struct exchange *exchange, const struct target *target)
{
    struct error err = ERROR_INIT;
    struct feedback_request request;
    struct remembered *answer = NULL;
    struct buffer body;
    struct model_stats *stats = target->model->stats;
    if (feedback_request_decode(&target->model->signature, exchange->body ? exchange->body : "",
                                exchange->body_length, &request, &err) == 0)
        answer = find(&stats->feedback, &request, &err);
    if (!answer) {
        feedback_request_close(&request);
        exchange_reply_error(exchange, &err);
        return;
    }
    stats_judge(&stats->loop[api->lanes->options.loop], answer->tag, &answer->rows, request.labels);
    describe_new(&body);
    buffer_text(&body, "{\"id\":");
    json_append_string(&body, request.id);
    buffer_format(&body, ",\"labelled\":%zu}", count_known(&request));
    free(answer);
    feedback_request_close(&request);
    describe_reply(exchange, 200, NULL, &body);
}
