/* The directory of --state, which one process uses at a time. */
#ifndef SERVER_STATE_DIRECTORY_H
#define SERVER_STATE_DIRECTORY_H

#include "core/error.h"

/* Makes the directory if it is not there, but not those above it, and takes it. A descriptor that
 * holds it while it is open; -1 with an error. */
MUST_CHECK int state_directory_lock(const char *directory, struct error *err);

/* Whether state_directory_lock() could make it or write to it; changes nothing. Another process may
 * have it. */
MUST_CHECK int state_directory_check(const char *directory, struct error *err);

#endif
