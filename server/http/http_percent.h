/* Percent-encoding (RFC 3986, section 2.1) of parts of a URL. */
#ifndef SERVER_HTTP_PERCENT_H
#define SERVER_HTTP_PERCENT_H

#include <stdbool.h>
#include <stddef.h>

/* Decodes [from, to) into `text`, NUL-terminated; false if it is malformed, has a zero byte or does
 * not fit in `size` bytes. */
bool http_percent_decode(const char *from, const char *to, char *text, size_t size);

#endif
