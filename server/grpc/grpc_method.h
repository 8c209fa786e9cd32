/* The methods, and the routes of HTTP that ask the same. */
#ifndef SERVER_GRPC_METHOD_H
#define SERVER_GRPC_METHOD_H

#include "proto/grpc.h"
#include "server/http/http.h"

struct grpc_method {
    const char *path;
    enum http_method method;
    const char *before, *behind; /* of a model's name and version in the route's path; if there is
                                    no name, `nameless` is the path */
    const char *nameless;        /* NULL: a name must be given */
    const struct protocol *protocol; /* of inference; NULL: the answer is a document */
    enum grpc_question question;
    enum grpc_answer answer;
};

/* NULL: there is none, or it is not implemented. */
const struct grpc_method *grpc_method_find(const char *path);

/* Room for a name and a version of the longest, all of them percent-encoded. */
enum { GRPC_PATH_BYTES = 3 * (GRPC_NAME_BYTES + GRPC_VERSION_BYTES) + 64 };

/* Writes the route's path. -1 with an error if there must be a name. */
MUST_CHECK int grpc_method_path(const struct grpc_method *method, const char *name,
                                const char *version, char path[GRPC_PATH_BYTES], struct error *err);

#endif
