/* A client of the moed server in C, over libcurl and jansson.
 *
 *     struct moed_client_error err = {0};
 *     struct moed_client *client = moed_client_new("http://127.0.0.1:8080", NULL, &err);
 *     char *text = client ? moed_client_routing(client, "mnist", NULL, NULL, &err) : NULL;
 *     puts(text ? text : err.text);
 *     free(text);
 *     moed_client_free(client);
 *
 * A handle keeps its connection alive and belongs to one thread at a time; make one per thread.
 * Functions return NULL or -1 on failure and fill `err`, which may be NULL. What a function takes
 * is borrowed until it returns; who frees what it gives is said beside it. curl's environment
 * variables (http_proxy, NO_PROXY) apply.
 */
#ifndef MOED_CLIENT_H
#define MOED_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOED_CLIENT_API __attribute__((visibility("default")))

/* ---- errors ---- */

enum moed_client_code {
    MOED_CLIENT_OK,
    MOED_CLIENT_INVALID,     /* an argument; nothing was sent */
    MOED_CLIENT_UNREACHABLE, /* no answer: no connection, a timeout, one that broke off */
    MOED_CLIENT_CANCELLED,   /* options.cancelled said so */
    MOED_CLIENT_REFUSED,     /* the server answered with an error; see `status` */
    MOED_CLIENT_PROTOCOL,    /* the answer is not what the protocol promises */
    MOED_CLIENT_NO_MEMORY,
};

enum { MOED_CLIENT_ERROR_BYTES = 512 };

struct moed_client_error {
    enum moed_client_code code;
    int status;                         /* of HTTP when REFUSED, otherwise 0 */
    double retry_after_seconds;         /* when the server says when to come back, otherwise 0 */
    char text[MOED_CLIENT_ERROR_BYTES]; /* what, where, and what was expected */
};

/* ---- the handle ---- */

struct moed_client;

/* Zero means the default. Strings are copied. */
struct moed_client_options {
    double timeout_seconds; /* of one call, from connecting to the answer's last byte; 60. Of a
                             * stream: without an event */
    const char *token;      /* sent as `Authorization: Bearer`; none */
    const char *tag;        /* sent as `Moed-Tag`: whose traffic this is; none */
    const char *ca_file;    /* PEM: who may have signed the server's certificate; the system's */
    bool uncounted;         /* `Moed-Statistics: off`: requests are left out of the statistics */
    bool (*cancelled)(void *context); /* asked about once a second during a call; NULL: never */
    void *context;
    size_t max_answer_bytes; /* an answer of more is not taken; 256 MiB */
};

/* `url` is http://HOST[:PORT][/PREFIX], https://, or unix:PATH of a Unix socket. Connects with the
 * first call. */
MOED_CLIENT_API struct moed_client *moed_client_new(const char *url,
                                                    const struct moed_client_options *options,
                                                    struct moed_client_error *err);
MOED_CLIENT_API void moed_client_free(struct moed_client *client);

/* ---- documents ---- */

/* The text of a document, NUL-terminated; the caller frees it with free(). */

MOED_CLIENT_API char *moed_client_server(struct moed_client *client, /* GET /v2: JSON */
                                         struct moed_client_error *err);
MOED_CLIENT_API char *moed_client_models(struct moed_client *client, /* GET /v1/models: JSON */
                                         struct moed_client_error *err);
MOED_CLIENT_API char *moed_client_metrics(struct moed_client *client, /* Prometheus text */
                                          struct moed_client_error *err);
/* GET /v2/models/{m}: JSON. `version` NULL: the newest. */
MOED_CLIENT_API char *moed_client_metadata(struct moed_client *client, const char *model,
                                           const char *version, struct moed_client_error *err);

/* What the server is asked for; NULL: not asked, the server's default holds. */
struct moed_client_routing_query {
    const char *window;  /* "1m", "5m", "1h" or "all" */
    const char *layer;   /* one layer's name */
    const char *tag;     /* what was sent under this tag */
    const char *include; /* "ranks,pairs,..." */
};

/* The routing document of a model, as proto/PROTOCOL.md describes it. `version` NULL: the newest.
 * `query` may be NULL. */
MOED_CLIENT_API char *moed_client_routing(struct moed_client *client, const char *model,
                                          const char *version,
                                          const struct moed_client_routing_query *query,
                                          struct moed_client_error *err);

/* KServe V1: `request` is the JSON of {"instances": ...}; the answer's JSON. */
MOED_CLIENT_API char *moed_client_predict(struct moed_client *client, const char *model,
                                          const char *version, const char *request,
                                          struct moed_client_error *err);

/* ---- tensors ---- */

enum moed_client_datatype {
    MOED_CLIENT_BOOL,
    MOED_CLIENT_UINT8,
    MOED_CLIENT_UINT16,
    MOED_CLIENT_UINT32,
    MOED_CLIENT_UINT64,
    MOED_CLIENT_INT8,
    MOED_CLIENT_INT16,
    MOED_CLIENT_INT32,
    MOED_CLIENT_INT64,
    MOED_CLIENT_FP16,
    MOED_CLIENT_BF16,
    MOED_CLIENT_FP32,
    MOED_CLIENT_FP64,
    MOED_CLIENT_BYTES, /* elements of a 4-byte little-endian length and so many bytes */
    MOED_CLIENT_DATATYPES,
};

/* Bytes of one element; 0 for BYTES. */
MOED_CLIENT_API size_t moed_client_datatype_bytes(enum moed_client_datatype datatype);
/* "FP32"; static. */
MOED_CLIENT_API const char *moed_client_datatype_name(enum moed_client_datatype datatype);

enum { MOED_CLIENT_MAX_RANK = 16 };

/* A view: name and data belong to whoever made it. Elements are row-major and little-endian. */
struct moed_client_tensor {
    const char *name;
    enum moed_client_datatype datatype;
    size_t rank;
    int64_t dims[MOED_CLIENT_MAX_RANK]; /* the first one counts rows; -1 in metadata: any number */
    const void *data;                   /* NULL in metadata; of answers aligned to 8 bytes */
    size_t bytes;
    size_t categories; /* in metadata: an integer input takes 0 to categories - 1; 0: none */
};

/* ---- what a model takes and gives ---- */

struct moed_client_model {
    const char *name;
    const char *const *versions;
    size_t version_count;
    const struct moed_client_tensor *inputs, *outputs; /* the routing outputs come last */
    size_t input_count, output_count;
};

/* GET /v2/models/{m}. Free with moed_client_model_free(). */
MOED_CLIENT_API const struct moed_client_model *moed_client_model(struct moed_client *client,
                                                                  const char *model,
                                                                  const char *version,
                                                                  struct moed_client_error *err);
MOED_CLIENT_API void moed_client_model_free(const struct moed_client_model *model);

/* ---- inference: Open Inference Protocol V2, binary tensors both ways ---- */

struct moed_client_output {
    const char *name;
    unsigned classification; /* n: the n largest as BYTES "value:index[:label]"; 0: the numbers */
};

struct moed_client_request {
    const char *model, *version, *id; /* version NULL: the newest; id NULL: none */
    const struct moed_client_tensor *inputs;
    size_t input_count;
    const struct moed_client_output *outputs; /* none: all but the routing */
    size_t output_count;
    const char *parameters; /* a JSON object of further request parameters; NULL: none */
};

struct moed_client_result {
    const char *model, *version, *id; /* id NULL: none */
    const struct moed_client_tensor *outputs;
    size_t output_count;
};

/* Free with moed_client_result_free(). */
MOED_CLIENT_API const struct moed_client_result *moed_client_infer(
    struct moed_client *client, const struct moed_client_request *request,
    struct moed_client_error *err);
MOED_CLIENT_API void moed_client_result_free(const struct moed_client_result *result);

/* The output of that name; NULL: there is none. */
MOED_CLIENT_API const struct moed_client_tensor *moed_client_result_output(
    const struct moed_client_result *result, const char *name);

/* ---- one exchange of HTTP: for what has no function of its own, and to send one body often ----
 */

struct moed_client_call {
    const char *method; /* "GET", "POST", "DELETE": letters, nothing else */
    char *path;         /* below the handle's URL, "/v2/health/ready"; percent-encoded: a blank, a
                         * control character or a fragment (#) is refused */
    char *body;         /* NULL: none */
    size_t length;      /* of the body */
    size_t json_length; /* sent as Inference-Header-Content-Length; 0: not sent */
};

struct moed_client_answer {
    char *body; /* NUL-terminated behind its length */
    size_t length;
    size_t json_length; /* what Inference-Header-Content-Length says; 0: absent */
    int status;
};

/* Any status but 2xx is an error. On success the caller closes the answer. */
MOED_CLIENT_API int moed_client_exchange(struct moed_client *client,
                                         const struct moed_client_call *call,
                                         struct moed_client_answer *answer,
                                         struct moed_client_error *err);
MOED_CLIENT_API void moed_client_answer_close(struct moed_client_answer *answer);

/* One server-sent event: what its `data` lines say, NUL-terminated behind its length, until the
 * function returns. False: no more of them. */
typedef bool moed_client_on_event(void *context, const char *data, size_t length);

/* An exchange whose answer is a stream of events (text/event-stream), handed on as they come, such
 * as of /v1/completions with "stream": true. Returns 0 when the stream ends or `on_event` has ended
 * it: whether it was whole, its events say (of OpenAI's API "[DONE]" is the last one). The options'
 * timeout holds for the time between two events, looked at about once a second, and
 * max_answer_bytes for one event. Any other answer is an error, and one that breaks off. */
MOED_CLIENT_API int moed_client_stream(struct moed_client *client,
                                       const struct moed_client_call *call,
                                       moed_client_on_event *on_event, void *context,
                                       struct moed_client_error *err);

/* The call that moed_client_infer() makes of a request; needs no connection. The caller closes. */
MOED_CLIENT_API int moed_client_encode(const struct moed_client_request *request,
                                       struct moed_client_call *call,
                                       struct moed_client_error *err);
MOED_CLIENT_API void moed_client_call_close(struct moed_client_call *call);

#ifdef __cplusplus
}
#endif

#endif
