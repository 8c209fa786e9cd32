/* What the files of the library share, and nobody else includes. Memory comes from malloc and is
 * checked: a library does not end the process of its caller. */
#ifndef CLIENT_INTERNAL_H
#define CLIENT_INTERNAL_H

#include <jansson.h>

#include "clients/c/moed_client.h"

enum {
    /* Nesting and length of JSON are bounded by jansson and by the answer. */
    CLIENT_MAX_LIST = 1 << 20,
};

/* Records the first error; returns -1. `err` may be NULL. */
int client_fail(struct moed_client_error *err, enum moed_client_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int client_no_memory(struct moed_client_error *err);

/* Makes room for `needed` bytes, by doubling; -1: no memory, and all is as it was. */
int client_grow(char **data, size_t *capacity, size_t needed);

/* "/v2/models/{model}[/versions/{version}]{suffix}", names percent-encoded. The caller frees; NULL:
 * no memory, or a name that cannot be one. */
char *client_model_path(const char *protocol, const char *model, const char *version,
                        const char *suffix, struct moed_client_error *err);

/* Parses JSON of an answer; `what` names it in the error. The caller decrefs. */
json_t *client_parse(const char *text, size_t length, const char *what,
                     struct moed_client_error *err);

/* Reads {"name", "datatype", "shape"} into `tensor`, whose name borrows from `entry`. */
int client_read_tensor(json_t *entry, const char *what, struct moed_client_tensor *tensor,
                       struct moed_client_error *err);

/* Reads the answer of an inference; fuzzed, since a server may be confused. */
const struct moed_client_result *client_read_result(const struct moed_client_answer *answer,
                                                    struct moed_client_error *err);

#endif
