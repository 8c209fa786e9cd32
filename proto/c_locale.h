/* The C locale, for libc calls that depend on the locale: a decimal comma must never reach the
 * wire. */
#ifndef PROTO_C_LOCALE_H
#define PROTO_C_LOCALE_H

#include <locale.h>

/* Created on first use, from any thread; lives as long as the process. */
locale_t c_locale(void);

#endif
