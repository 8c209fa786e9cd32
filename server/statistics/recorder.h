/* SGLang's recorder of expert distributions, under its routes' names: counts between a start and a
 * stop, dumped as what its --init-expert-location reads. */
#ifndef SERVER_RECORDER_H
#define SERVER_RECORDER_H

#include "server/routes/api.h"

/* Of all models that are served. */
api_handler recorder_start, recorder_stop;

/* The selections since the start, of the model that the query names, or of the only one; then they
 * begin anew. */
api_handler recorder_dump;

#endif
