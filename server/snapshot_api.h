/* POST /v2/models/{m}/routing/snapshot: writes a model's statistics to the state directory, if
 * there is one, and answers with all of them. */
#ifndef SERVER_SNAPSHOT_API_H
#define SERVER_SNAPSHOT_API_H

#include "server/api.h"

api_handler snapshot_take;

#endif
