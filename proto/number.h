/* Numbers as JSON text, fast: the tensor path of the wire formats. */
#ifndef PROTO_NUMBER_H
#define PROTO_NUMBER_H

#include <stddef.h>

/* Scans one JSON number (RFC 8259 grammar: no leading '+', no leading zeros, no hex, no NaN) at the
 * start of [text, end). Returns the byte after it and stores the double nearest to it, bit for bit
 * what strtod gives in the C locale; returns NULL when there is no JSON number or when it overflows
 * a double. Never reads at or past `end`; independent of the locale. */
const char *number_scan(const char *text, const char *end, double *value);

/* Scans up to `count` such numbers from `*text` on, with commas between and any white space around
 * them. Returns how many there are and moves `*text` behind the last of them, or not at all when
 * there is none. May read anything in [begin, end), which holds `*text`, and nothing outside: a few
 * bytes before the list let it be fast from its first number on. */
size_t number_scan_list(const char **text, const char *begin, const char *end, double *values,
                        size_t count);

/* Room for either writer below: more than any text they return, because the fast one copies blocks
 * of constant length. */
enum { NUMBER_FORMAT_BYTES = 32 };

/* Writes the shortest decimal that reads back as exactly `value` when parsed to float, as valid
 * JSON, in the notation of Python's repr: always a point or an exponent, so that readers that tell
 * integers from reals see a real. A value that JSON cannot hold (NaN, infinities) is written as
 * null, as JSON.stringify does. Readers that go through double get the same float for every value
 * but 7.038531e-26 and its negative, which they round twice. `text` has NUMBER_FORMAT_BYTES;
 * returns how many of them count. */
size_t number_format(char *text, float value);

/* The same for a statistic: 15 to 17 digits, whichever reads back first; integers without a point.
 * Not for tensors: it costs a printf. */
size_t number_format_double(char *text, double value);

#endif
