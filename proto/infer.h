/* An inference request and its answer as plain structs: what every wire format decodes to and
 * encodes from. Nothing past this point sees JSON or HTTP.
 *
 * Decoding happens in two steps, so that numbers go straight from the body's bytes into the batch:
 * the format's decoder (oip.h, v1.h) checks everything but the numbers and records where they lie;
 * infer_reader then streams them, converted, wherever the caller wants them. The body must outlive
 * the request. */
#ifndef PROTO_INFER_H
#define PROTO_INFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "proto/buffer.h"
#include "proto/datatype.h"
#include "proto/signature.h"

/* Bounds on what a request may ask for; the server's options fill them. */
struct infer_limits {
    size_t max_rows; /* rows in one request: bounds the queue memory that one client can take */
    size_t max_response_bytes; /* bounds the buffer of an answer */
    bool non_finite;           /* binary tensors may hold NaN and infinities */
};

enum {
    /* An id is echoed in the answer and the log: longer ones are refused, not truncated. */
    INFER_MAX_ID_BYTES = 256,
    /* Nesting of request JSON: bounds the recursion of the JSON parser. Real requests need about
     * 8. */
    INFER_MAX_JSON_DEPTH = 32,
    /* Outputs listed in one request: the same output asked for a million times is an attack. */
    INFER_MAX_OUTPUTS = 64,
};

enum infer_source {
    INFER_OUTPUT,
    INFER_ROUTING_EXPERTS,
    INFER_ROUTING_WEIGHTS,
    INFER_ROUTING_PROBABILITIES
};

struct infer_output {
    enum infer_source source;
    size_t index;          /* into signature outputs (INFER_OUTPUT) or gates (INFER_ROUTING_*) */
    bool binary;           /* sent as binary tensor data */
    size_t classification; /* top-n classes as BYTES strings instead of numbers; 0: numbers */
};

/* Where one input tensor lies in the body. */
struct infer_input {
    const char *where; /* literal: what messages call the data, "data" or "instances" */
    const char *data;  /* NULL while decoding: not found yet */
    size_t length;
    const char *base;       /* the text that JSON data is part of; NULL: the request's body */
    bool binary;            /* little-endian elements; else a JSON array, brackets included */
    enum datatype datatype; /* FP32 if the format does not say */
};

/* What becomes of an expert, as bits. */
enum override_mark { OVERRIDE_EXCLUDED = 1, OVERRIDE_SILENCED = 2, OVERRIDE_ONLY = 4 };

/* What a request asks of a gate instead of its own decision (overrides.h). */
struct infer_override {
    size_t gate;            /* into signature gates */
    size_t top_k;           /* 0: not said */
    unsigned char *experts; /* [experts] marks, by the gate's own indices; those that are not among
                               the only ones are marked as excluded, too */
};

struct infer_overrides {
    struct infer_override *items; /* owned; [count] of different gates */
    size_t count;
    char *text; /* owned; the object, for the answer; NULL: the request has none */
};

struct infer_request {
    const struct signature *signature; /* borrowed */
    const char *body;                  /* borrowed; for byte positions in messages */
    char *id;                          /* owned; NULL: none */
    size_t rows;                       /* >= 1 */
    struct infer_input *inputs;   /* owned; [signature->input_count], in the signature's order */
    struct infer_output *outputs; /* owned */
    size_t output_count;
    char *tag;       /* on whose behalf; owned; NULL: none */
    int32_t *labels; /* [rows] true classes; -1: not known; owned; NULL: none */
    struct infer_overrides overrides;
    uint64_t timeout_us; /* the client's own deadline; 0: none */
    uint64_t priority;   /* 1 is the highest; 0: the default */
    bool routing;        /* V1: answer with each row's routing */
    bool probabilities;  /* V1: and with those of all experts */
    bool columns;        /* V1: came as columns, and is answered so */
    bool non_finite;     /* binary data may hold NaN and infinities */
    char **texts;        /* [signature->input_count] rows of objects, by input; owned; NULL: none */
};

void infer_overrides_close(struct infer_overrides *overrides);
void infer_request_close(struct infer_request *request);

/* The rows' numbers of one input, in order. A reader is a small value; no close. */
enum { INFER_MAX_AXES = 8 };

struct infer_reader {
    const struct infer_request *request;
    const struct infer_input *input;
    const struct signature_tensor *tensor;
    const char *cursor, *end;
    size_t elements_left;
    bool beyond_doubles; /* an integer that no double holds has come */
    /* JSON only: the open lists around the cursor. */
    size_t depth;
    struct infer_list {
        const char *start; /* its bracket */
        size_t children;   /* seen so far */
        bool lists;        /* children are lists, not numbers */
    } open[INFER_MAX_AXES];
};

void infer_reader_init(struct infer_reader *reader, const struct infer_request *request,
                       size_t input);

/* Reads the next `rows` rows into values [rows, elements]: int32_t if the input takes categories,
 * else f32. A list holds either one list per entry of its axis or all its values flat. Words and
 * null become what the input says of them. Any other count, a value that is not a number of the
 * declared datatype, one that is not a category of an input that takes categories, and trailing
 * bytes after the last row are errors; they name the input, the place and what was expected. */
MUST_CHECK int infer_reader_rows(struct infer_reader *reader, size_t rows, void *values,
                                 struct error *err);

/* The results of a request, row-major over all its rows. All borrowed. */
struct infer_result {
    const float *const *outputs; /* [signature->output_count] */
    const int32_t *const
        *routing_experts;                /* [signature->gate_count] [rows * items_per_row, top_k] */
    const float *const *routing_weights; /* the same shape */
    /* [signature->gate_count] [rows * items_per_row, experts]; NULL where nobody asked */
    const float *const *routing_probabilities;
};

#endif
