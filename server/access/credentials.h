/* Tokens and the certificate, which may be replaced while the server runs. */
#ifndef SERVER_CREDENTIALS_H
#define SERVER_CREDENTIALS_H

#include "server/access/access.h"
#include "server/http/http_tls.h"

/* Reads their files again and says in the log what has changed, or why those before stay. Who
 * `asked` is told, too, that they are as they were: systemd's copies of them are, whatever has
 * become of the files. */
void credentials_reload(struct access *access, struct tls *tls, bool asked);

#endif
