/* The handle, of which client.c makes one and exchange.c uses one. */
#ifndef CLIENT_HANDLE_H
#define CLIENT_HANDLE_H

#include <curl/curl.h>

#include "clients/c/moed_client.h"

struct moed_client {
    CURL *curl;
    char *url;                          /* as given, without a slash at its end */
    char *shown;                        /* the same for errors: without a password */
    const char *base;                   /* what URLs of requests begin with; `url` or static */
    struct curl_slist *fields;          /* sent with every request */
    struct moed_client_options options; /* strings are not read after the handle is made */
    char reason[CURL_ERROR_SIZE];
};

#endif
