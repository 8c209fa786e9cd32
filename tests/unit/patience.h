/* How long tests wait before they report a hang. No test measures speed: the slowest sanitizer on
 * the busiest machine stays far below these limits. */
#ifndef TEST_PATIENCE_H
#define TEST_PATIENCE_H

/* For one event that a test awaits, and for a whole test: check ends that without a message of the
 * test's own. */
enum { PATIENCE_SECONDS = 300, TEST_SECONDS = 600 };

#endif
