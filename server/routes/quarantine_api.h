/* POST and DELETE .../routing/quarantine. */
#ifndef SERVER_QUARANTINE_API_H
#define SERVER_QUARANTINE_API_H

#include "server/routes/api.h"

api_handler quarantine_put_in;
api_handler quarantine_let_out;

#endif
