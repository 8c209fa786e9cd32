/* The model repository over HTTP, as Triton has it. */
#ifndef SERVER_REPOSITORY_API_H
#define SERVER_REPOSITORY_API_H

#include "server/api.h"

api_handler repository_api_index;

#endif
