/* The log: one line per event on standard error (server/log_line.h). Logging never makes the caller
 * wait.
 *
 * Between log_start() and log_stop() lines go into a bounded buffer, and a thread writes them: a
 * slow or halted reader costs log lines, not service. Lines that do not fit are dropped and
 * counted; the log reports how many once it can be written again. Only errors may use the last part
 * of the buffer. Before log_start() and after log_stop() lines are written at once. Any thread may
 * log. */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "server/log_line.h"

/* Lines above this level are neither built nor written. May change at any time. */
void log_set_level(enum log_level level);
enum log_level log_level(void);
bool log_enabled(enum log_level level);

void log_set_format(enum log_format format);

/* Whether standard error is systemd's journal: lines then begin with their priority ("<4>"), which
 * the journal keeps, so that `journalctl --priority warning` finds them. */
void log_detect_journal(void);

/* Starts the writing thread. -1 with an error if it cannot be started. */
MUST_CHECK int log_start(struct error *err);

/* Writes what waits, for at most `patience_ms`; the rest is lost. */
void log_stop(uint64_t patience_ms);

/* Lines dropped since the start of the process. */
uint64_t log_dropped(void);

void log_begin(struct log_line *line, enum log_level level, const char *event);
void log_end(struct log_line *line);

/* A line with one message: event=<event> message="...". */
void log_message(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The one line that scripts wait for, whatever the level: "listening on <url>", or in JSON the
 * event "listening". */
void log_listening(const char *url);

#endif
