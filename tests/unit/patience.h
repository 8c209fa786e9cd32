/* How long tests wait before they call something hung. These are no measure of speed: the slowest
 * sanitizer on the busiest machine stays far below them. */
#ifndef TEST_PATIENCE_H
#define TEST_PATIENCE_H

/* For what a test waits for, and for a whole test, which is ended and reported without a word of
 * its own. */
enum { PATIENCE_SECONDS = 300, TEST_SECONDS = 600 };

#endif
