/* What a request says about itself for the statistics: on whose behalf it comes, and what its rows
 * truly are. */
#ifndef PROTO_ANNOTATION_H
#define PROTO_ANNOTATION_H

#include "proto/envelope.h"
#include "proto/infer.h"

/* Classes of an output whose predictions are compared with labels. */
enum { ANNOTATION_MAX_CLASSES = 1000 };

/* The first output of one number for each of 2 to ANNOTATION_MAX_CLASSES classes; -1: none. */
int annotation_class_output(const struct signature *signature);

/* Whether a tag is 1 to 64 letters, digits, '_', '-' or '.': tags become metric labels and JSON. */
MUST_CHECK int annotation_check_tag(const char *tag, struct error *err);

/* Reads the member "tag" of `object`, which `where` names in messages. */
MUST_CHECK int annotation_read_tag(const json_t *object, const char *where,
                                   struct infer_request *request, struct error *err);

/* Reads the member "labels" of `object`, a part of the envelope: a list of one class per row, by
 * index or name; null: not known. Needs the request's rows. */
MUST_CHECK int annotation_read_labels(struct envelope *envelope, const json_t *object,
                                      struct infer_request *request, struct error *err);

/* The body of POST .../feedback: {"id": ..., "labels": [...]}. */
struct feedback_request {
    char *id;
    int32_t *labels; /* [rows] classes; -1: not known */
    size_t rows;
};

/* On error there is nothing to close. */
MUST_CHECK int feedback_request_decode(const struct signature *signature, const char *body,
                                       size_t length, struct feedback_request *request,
                                       struct error *err);
void feedback_request_close(struct feedback_request *request);

#endif
