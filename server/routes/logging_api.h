/* The settings of the log over HTTP, as Triton has them. */
#ifndef SERVER_LOGGING_API_H
#define SERVER_LOGGING_API_H

#include "server/routes/api.h"

api_handler logging_api_get, logging_api_set;

#endif
