/* The configuration file: lines of `name = value`, with comments from a '#' on. */
#ifndef SERVER_OPTIONS_FILE_H
#define SERVER_OPTIONS_FILE_H

#include "core/error.h"

struct options;

/* Sets what the file says. -1 with an error that names the file and its line. */
MUST_CHECK int options_read_file(struct options *options, const char *path, struct error *err);

#endif
