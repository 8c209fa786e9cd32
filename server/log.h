/* The log: one line per event on standard error (server/log_line.h), which never makes its caller
 * wait.
 *
 * Between log_start() and log_stop() lines go into a bounded buffer, from which a thread of its own
 * writes them: a reader that is slow, or has stopped reading, costs lines and not service. Lines
 * that do not fit are dropped and counted; the log says how many once it can be written again.
 * Errors may use the whole buffer, all else leaves some of it free. Outside of that time (before
 * the server starts, in other commands) lines are written at once. Any thread may log. */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "server/log_line.h"

/* Lines above this level are not built and not written. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* Starts the writing thread. -1 with an error when there is none to be had. */
MUST_CHECK int log_start(struct error *err);

/* Writes what waits, for at most `patience_ms`; what is left then is lost. */
void log_stop(uint64_t patience_ms);

/* Lines dropped since the start of the process. */
uint64_t log_dropped(void);

void log_begin(struct log_line *line, enum log_level level, const char *event);
void log_end(struct log_line *line);

/* A line with one message: event=<event> message="...". */
void log_message(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line that is none of the log's own, whatever the level; `line` ends in a newline. */
void log_plain(const char *line);

#endif
