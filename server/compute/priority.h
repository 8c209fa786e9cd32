/* Who goes first: as clients number it, for Triton's (proto/PROTOCOL.md). */
#ifndef SERVER_PRIORITY_H
#define SERVER_PRIORITY_H

enum job_priority { PRIORITY_HIGH = 1, PRIORITY_NORMAL = 2, PRIORITY_LOW = 3 };

#endif
