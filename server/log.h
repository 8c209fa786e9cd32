/* Structured log: one line per event on standard error, `key=value` pairs (logfmt), safe against
 * anything a client puts into a path.
 *
 *   time=2026-01-02T03:04:05.678Z level=info event=request method=POST path=/v2/... status=200 ...
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_LEVEL_COUNT };

/* LOG_LEVEL_COUNT when the name is none. */
enum log_level log_level_from_name(const char *name);
void log_set_level(enum log_level level);
int log_enabled(enum log_level level);

/* One line under construction; a stack value. A long value is cut (and ends in "..."), pairs that
 * do not fit are dropped, the line stays one line. Of a level that is not enabled nothing is built
 * and nothing written. */
struct log_line {
    char text[2048];
    size_t length;
};

void log_begin(struct log_line *line, enum log_level level, const char *event);
void log_text(struct log_line *line, const char *key, const char *value); /* quoted when needed */
void log_number(struct log_line *line, const char *key, uint64_t value);
void log_milliseconds(struct log_line *line, const char *key, uint64_t nanoseconds);
void log_end(struct log_line *line); /* one write(2) */

/* A line with one message: event=<event> message="...". */
void log_message(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
