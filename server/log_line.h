/* A log line that is being built: `key=value` pairs (logfmt) or a JSON object of the same pairs,
 * safe whatever a client puts into a path.
 *
 *   time=2026-01-02T03:04:05.678Z level=info event=request method=POST path=/v2/... status=200 ...
 */
#ifndef SERVER_LOG_LINE_H
#define SERVER_LOG_LINE_H

#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_LEVEL_COUNT };

enum log_format { LOG_LOGFMT, LOG_JSON };

/* LOG_LEVEL_COUNT for an unknown name. */
enum log_level log_level_from_name(const char *name);

/* On the caller's stack. A long value is cut and ends in "..."; pairs that do not fit are dropped.
 */
struct log_line {
    enum log_level level;
    enum log_format format;
    size_t length; /* 0: the line's level is off, and what is added is ignored */
    char text[2048];
};

void log_line_begin(struct log_line *line, enum log_format format, enum log_level level,
                    const char *event);
void log_text(struct log_line *line, const char *key, const char *value); /* quoted when needed */
void log_number(struct log_line *line, const char *key, uint64_t value);
void log_milliseconds(struct log_line *line, const char *key, uint64_t nanoseconds);

/* The end of the line, newline included. */
void log_line_end(struct log_line *line);

#endif
