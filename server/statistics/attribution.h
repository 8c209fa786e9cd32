/* On whose behalf a request's rows are counted, and whether: from its body and its headers. */
#ifndef SERVER_ATTRIBUTION_H
#define SERVER_ATTRIBUTION_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct exchange;
struct job;
struct model;

struct attribution {
    bool counted;
    const char *tag; /* borrowed from the body or a header; NULL: none */
};

/* Moed-Statistics and, unless the body names one, Moed-Tag. -1 with an error when one is malformed.
 * `user` is OpenAI's, which may be anything: what is no name of a tag is none. */
MUST_CHECK int attribution_read(struct attribution *attribution, const struct exchange *exchange,
                                const char *user, struct error *err);

/* The tag's index (server/statistics/tags.h). The request was accepted, and its rows will be
 * counted: its tag takes a place among the model's, which are few. What is refused takes none. */
size_t attribution_tag(const struct attribution *attribution, struct model *model);

/* The same for a job. */
MUST_CHECK int attribute_job(struct job *job, struct error *err);
void attribute_accepted(struct job *job);

#endif
