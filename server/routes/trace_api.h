/* GET and POST /v2/trace/setting. */
#ifndef SERVER_TRACE_API_H
#define SERVER_TRACE_API_H

#include "server/routes/api.h"

api_handler trace_api_get, trace_api_set;

#endif
