/* Numbers as JSON text, fast: the tensor path of the wire formats. */
#ifndef PROTO_NUMBER_H
#define PROTO_NUMBER_H

#include <stddef.h>

/* Scans one JSON number (RFC 8259 grammar: no leading '+', no leading zeros, no hex, no NaN) at the
 * start of [text, end). Returns the byte after it and stores the double nearest to it, bit for bit
 * what strtod gives in the C locale; returns NULL when there is no JSON number or when it overflows
 * a double. Never reads at or past `end`; independent of the locale. */
const char *number_scan(const char *text, const char *end, double *value);

/* Scans up to `count` such numbers from `*text` on, separated by commas and any white space.
 * Returns how many it found and moves `*text` after the last one; without any, `*text` stays. Reads
 * only within [begin, end), which contains `*text`: with a few bytes before the list, even its
 * first number takes the fast path. */
size_t number_scan_list(const char **text, const char *begin, const char *end, double *values,
                        size_t count);

/* Room for either writer below: more than any text they return, because the fast one copies blocks
 * of constant length. */
enum { NUMBER_FORMAT_BYTES = 32 };

/* Writes the shortest decimal that reads back as exactly `value` when parsed to float, as valid
 * JSON, in the notation of Python's repr: always a point or an exponent, so that readers that
 * distinguish integers from reals see a real. A value that JSON cannot hold (NaN, infinities) is
 * written as null, as JSON.stringify does. Readers that go through double get the same float for
 * every value but 7.038531e-26 and its negative, which they round twice. `text` has
 * NUMBER_FORMAT_BYTES; returns the length of the number. */
size_t number_format(char *text, float value);

/* Writes a double in the fewest digits, 15 to 17, that read back as the same value; integers have
 * no point. Uses printf: fast enough for statistics, too slow for tensors. */
size_t number_format_double(char *text, double value);

#endif
