/* Who asks: probes, monitoring, clients of the models, or who decides what is served. */
#ifndef SERVER_ROLE_H
#define SERVER_ROLE_H

enum role { ROLE_HEALTH, ROLE_METRICS, ROLE_PREDICT, ROLE_ADMIN, ROLE_COUNT };

/* "health", "metrics", "predict", "admin". */
const char *role_name(enum role role);

#endif
