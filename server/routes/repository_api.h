/* The model repository over HTTP, as Triton has it. */
#ifndef SERVER_REPOSITORY_API_H
#define SERVER_REPOSITORY_API_H

#include "server/routes/api.h"

/* Loading and unloading are answered when they are done, without holding the loop. */
api_handler repository_api_index, repository_api_load, repository_api_unload;

#endif
