/* Headers are for what stands between client and server, which does not touch bodies. */
#include "server/attribution.h"

#include <strings.h>

#include "proto/annotation.h"
#include "server/http.h"
#include "server/job.h"
#include "server/model.h"

static int read_statistics(const struct exchange *exchange, bool *counted, struct error *err)
{
    const char *text = exchange_header_in(exchange, "Moed-Statistics");
    *counted = !text || strcasecmp(text, "off") != 0;
    if (*counted && text && strcasecmp(text, "on") != 0)
        return error_set(err, ERROR_INVALID, "Moed-Statistics is '%.64s', expected on or off",
                         text);
    return 0;
}

int attribute_job(struct job *job, struct error *err)
{
    const char *tag = job->request.tag;
    if (!tag)
        tag = exchange_header_in(job->exchange, "Moed-Tag");
    if (tag && annotation_check_tag(tag, err) != 0)
        return -1;
    if (read_statistics(job->exchange, &job->counted, err) != 0)
        return -1;
    job->tag_name = job->counted ? tag : NULL;
    return 0;
}

void attribute_accepted(struct job *job)
{
    job->tag = job->tag_name ? tags_index(&job->model->stats->tags, job->tag_name) : TAG_NONE;
}
