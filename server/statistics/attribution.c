/* Headers are for what stands between client and server, which does not touch bodies. */
#include "server/statistics/attribution.h"

#include <strings.h>

#include "proto/annotation.h"
#include "server/compute/job.h"
#include "server/http/http.h"
#include "server/models/model.h"

static int read_statistics(const struct exchange *exchange, bool *counted, struct error *err)
{
    const char *text = exchange_header_in(exchange, "Moed-Statistics");
    *counted = !text || strcasecmp(text, "off") != 0;
    if (*counted && text && strcasecmp(text, "on") != 0)
        return error_set(err, ERROR_INVALID, "Moed-Statistics is '%.64s', expected on or off",
                         text);
    return 0;
}

static int read_headers(struct attribution *attribution, const struct exchange *exchange,
                        const char *tag, struct error *err)
{
    if (!tag)
        tag = exchange_header_in(exchange, "Moed-Tag");
    if ((tag && annotation_check_tag(tag, err) != 0) ||
        read_statistics(exchange, &attribution->counted, err) != 0)
        return -1;
    attribution->tag = attribution->counted ? tag : NULL;
    return 0;
}

int attribution_read(struct attribution *attribution, const struct exchange *exchange,
                     const char *user, struct error *err)
{
    const bool is_tag = user && annotation_check_tag(user, NULL) == 0;
    return read_headers(attribution, exchange, is_tag ? user : NULL, err);
}

size_t attribution_tag(const struct attribution *attribution, struct model *model)
{
    return attribution->tag ? tags_index(&model->stats->tags, attribution->tag) : TAG_NONE;
}

int attribute_job(struct job *job, struct error *err)
{
    struct attribution attribution;
    if (read_headers(&attribution, job->exchange, job->request.tag, err) != 0)
        return -1;
    job->counted = attribution.counted;
    job->tag_name = attribution.tag;
    return 0;
}

void attribute_accepted(struct job *job)
{
    const struct attribution attribution = {job->counted, job->tag_name};
    job->tag = attribution_tag(&attribution, job->model);
}
