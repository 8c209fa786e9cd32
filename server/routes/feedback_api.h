/* POST .../feedback: labels that come after the answer. */
#ifndef SERVER_FEEDBACK_API_H
#define SERVER_FEEDBACK_API_H

#include "server/routes/api.h"

/* Of target->model. */
api_handler feedback_receive;

#endif
