/* serving.json where it lies: in a model's directory, beside its versions. */
#ifndef SERVER_SERVING_FILE_H
#define SERVER_SERVING_FILE_H

#include "proto/serving.h"

/* A version is a positive integer as OIP clients write it: digits, no sign, no leading zero. */
bool serving_is_version(const char *name);

/* Reads the model's file into an initialized `serving`: back to the server's options where there is
 * none. On error it is as it was. */
MUST_CHECK int serving_read(struct serving *serving, const char *directory, struct error *err);

/* The same for a checkpoint: the directory is the model's, or that of a version of it. */
MUST_CHECK int serving_read_for(struct serving *serving, const char *checkpoint, struct error *err);

#endif
