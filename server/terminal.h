/* The terminal in whose foreground the server was started, if a person did that: when it is closed,
 * that person is gone, and SIGHUP means what it meant before it meant "look again". */
#ifndef SERVER_TERMINAL_H
#define SERVER_TERMINAL_H

#include <stdbool.h>

/* Its descriptor, which stays the process's own; -1: the server is a service, a job in the
 * background, was started with SIGHUP ignored, or has no terminal. Before SIGHUP is caught. */
int terminal_of_start(void);

/* Whether it was there and is closed. */
bool terminal_is_gone(int terminal);

#endif
