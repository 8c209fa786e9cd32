/* Internals of the Open Inference Protocol decoders: the state of a request while it is decoded. */
#ifndef PROTO_OIP_DECODE_H
#define PROTO_OIP_DECODE_H

#include "proto/envelope.h"
#include "proto/infer.h"

/* The bytes of one input. */
struct oip_tensor {
    const char *bytes;
    size_t length;
};

struct oip_decoder {
    const struct signature *signature;
    const struct infer_limits *limits;
    struct infer_request *request;
    struct envelope envelope;
    const char *tail, *tail_end;      /* the binary data that no input has taken yet */
    const struct oip_tensor *tensors; /* instead of a tail: one for each input of the request */
    bool binary_output;               /* the default for outputs that do not say */
    struct error *err;
};

enum {
    /* Room for "input '<quoted>'". */
    OIP_WHERE_BYTES = 96,
    /* Room for a list of names or a shape in a message; longer ones are cut. */
    OIP_LISTING_BYTES = 256,
};

/* Decodes JSON whose inputs have their bytes elsewhere, each announced by 'binary_data_size'. The
 * request borrows the tensors' bytes, not the JSON. On error there is nothing to close. */
MUST_CHECK int oip_decode_with_tensors(const struct signature *signature, const struct buffer *json,
                                       const struct oip_tensor *tensors,
                                       const struct infer_limits *limits,
                                       struct infer_request *request, struct error *err);

int oip_decode_inputs(struct oip_decoder *decoder);

/* Call after the request's parameters are decoded: they set the default of `binary_data`. */
int oip_decode_outputs(struct oip_decoder *decoder);

/* For a request that lists no outputs: asks for all of the model's own. Routing has to be asked for
 * by name. */
void oip_request_all_outputs(struct oip_decoder *decoder);

#endif
