/* The locale is made once and never freed. */
#include "proto/c_locale.h"

#include <pthread.h>

static locale_t locale;

static void make_locale(void)
{
    locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

locale_t c_locale(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_locale);
    return locale;
}
