/* Inside of the Open Inference Protocol's decoder: a request in the making, and its parts. */
#ifndef PROTO_OIP_DECODE_H
#define PROTO_OIP_DECODE_H

#include "proto/envelope.h"
#include "proto/infer.h"

struct oip_decoder {
    const struct signature *signature;
    const struct infer_limits *limits;
    struct infer_request *request;
    struct envelope envelope;
    const char *tail, *tail_end; /* the binary data no input has taken yet */
    bool binary_output;          /* what an output is that does not say */
    struct error *err;
};

enum {
    /* Room for "input '<quoted>'". */
    OIP_WHERE_BYTES = 96,
    /* Room for a list of names or a shape in a message; longer ones are cut. */
    OIP_LISTING_BYTES = 256,
};

int oip_decode_inputs(struct oip_decoder *decoder);

/* Needs the request's parameters, for what an output is that does not say. */
int oip_decode_outputs(struct oip_decoder *decoder);

/* No outputs listed: all the model's own. Routing is answered only when asked for by name. */
void oip_request_all_outputs(struct oip_decoder *decoder);

#endif
