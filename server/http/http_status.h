/* The HTTP status of each kind of error. */
#ifndef SERVER_HTTP_STATUS_H
#define SERVER_HTTP_STATUS_H

#include "core/error.h"

int error_http_status(enum error_code code);

#endif
