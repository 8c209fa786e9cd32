/* Bearer tokens: who has one may use the routes of its roles.
 *
 * A token is 256 random bits, so it cannot be guessed, and a fast hash keeps it: whoever reads the
 * file learns no token. A line of the file is
 *
 *   SHA256 ROLE[,ROLE] NAME
 *
 * with 64 hexadecimal digits, roles predict, metrics or admin (which may do what the others may),
 * and the name under which the log knows the token. '#' begins a comment. */
#ifndef SERVER_TOKENS_H
#define SERVER_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "server/access/role.h"

enum {
    TOKEN_DIGEST_BYTES = 32,
    TOKEN_NAME_BYTES = 33,
    TOKEN_TEXT_BYTES = 70, /* "moed_", 64 digits, the NUL */
    TOKENS_MAX = 1024,     /* every request is compared with all of them */
};

struct token {
    uint8_t digest[TOKEN_DIGEST_BYTES];
    unsigned roles; /* a bit for each */
    char name[TOKEN_NAME_BYTES];
};

struct tokens {
    size_t count;
    struct token list[];
};

/* NULL on error, which names file and line. */
MUST_CHECK struct tokens *tokens_read(const char *path, struct error *err);

/* With the path. */
#define TOKENS_OPEN                                                                                \
    "%s can be written by its group or by all, who can give themselves any role: chmod go-w"

/* Whether others than the file's owner may write it, and so give themselves any role. */
bool tokens_are_open(const char *path);

/* The token of this text; NULL: there is none. Takes as long whichever it is. */
const struct token *tokens_find(const struct tokens *tokens, const char *text);

/* Whether both hold the same. */
bool tokens_equal(const struct tokens *a, const struct tokens *b);

bool token_may(const struct token *token, enum role role);

/* Makes a new token: its text, and its line of the file, without a newline. -1 with an error, which
 * names the option of `moed token`, if a role or the name is not valid. */
enum { TOKEN_LINE_BYTES = 160 };
MUST_CHECK int token_make(const char *roles, const char *name, char text[TOKEN_TEXT_BYTES],
                          char line[TOKEN_LINE_BYTES], struct error *err);

#endif
