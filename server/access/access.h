/* Who may ask for what. All loops share one; any thread may call.
 *
 * Health is open to all. What changes the server (the role admin) is closed unless it was opened:
 * by --admin to all, by --tokens to tokens with that role, by --admin-listen to all who reach that
 * listener. With --tokens everything but health takes a token. With --admin-listen metrics and
 * administration are answered only there. With --tls-client-ca everything but health takes a
 * certificate. */
#ifndef SERVER_ACCESS_H
#define SERVER_ACCESS_H

#include "core/error.h"
#include "server/access/rate.h"
#include "server/access/role.h"

struct exchange;
struct options;
struct tokens;

struct access {
    const struct options *options;
    struct rate requests, failures; /* of each client address */
    uv_rwlock_t lock;               /* guards the next */
    struct tokens *tokens;          /* NULL without --tokens */
};

/* Reads the tokens. -1 with an error if they cannot be read. */
MUST_CHECK int access_init(struct access *access, const struct options *options, struct error *err);
void access_close(struct access *access);

/* Reads the tokens again; puts in `count` how many there are now, and in `changed` whether they are
 * others. On error nothing changes. With --tokens only. */
MUST_CHECK int access_reload(struct access *access, size_t *count, bool *changed,
                             struct error *err);

/* 0 if the request, on the admin listener or not, may have the route. Otherwise -1 with an error;
 * headers of the answer that go with it are added. Notes the name of the token for the log. */
MUST_CHECK int access_check(struct access *access, enum role role, bool on_admin_listener,
                            struct exchange *exchange, struct error *err);

#endif
