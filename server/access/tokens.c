/* Digests come from GnuTLS, which libmicrohttpd brings along. */
#include "server/access/tokens.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

static const char *const ROLE_NAMES[ROLE_COUNT] = {[ROLE_HEALTH] = "health",
                                                   [ROLE_METRICS] = "metrics",
                                                   [ROLE_PREDICT] = "predict",
                                                   [ROLE_ADMIN] = "admin"};

const char *role_name(enum role role)
{
    return ROLE_NAMES[role];
}

bool token_may(const struct token *token, enum role role)
{
    return token->roles & (1u << role | 1u << ROLE_ADMIN);
}

/* ---- a line ---- */

static void digest_of(const char *text, uint8_t digest[TOKEN_DIGEST_BYTES])
{
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), digest) != 0)
        out_of_memory(); /* what else SHA-256 may fail for */
}

static void hex_of(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
}

static int read_digest(const char *text, uint8_t digest[TOKEN_DIGEST_BYTES], struct error *err)
{
    size_t digits = strlen(text);
    for (size_t i = 0; i < digits && digits == 2 * TOKEN_DIGEST_BYTES; i++) {
        int digit = text_hex_digit(text[i]);
        if (digit < 0)
            digits = 0;
        else
            digest[i / 2] = (uint8_t)(digest[i / 2] << 4 | digit);
    }
    return digits == 2 * TOKEN_DIGEST_BYTES
               ? 0
               : error_set(err, ERROR_INVALID,
                           "expected a SHA-256 of 64 hexadecimal digits first, as 'moed token' "
                           "prints it");
}

static bool add_role(const char *name, size_t length, unsigned *roles)
{
    for (enum role role = ROLE_METRICS; role < ROLE_COUNT; role++)
        if (strlen(ROLE_NAMES[role]) == length && memcmp(ROLE_NAMES[role], name, length) == 0) {
            *roles |= 1u << role;
            return true;
        }
    return false;
}

static int read_roles(const char *text, unsigned *roles, struct error *err)
{
    const char *list = text, *item;
    size_t length;
    bool valid = *text && text[strlen(text) - 1] != ',';
    while (valid && text_next_item(&list, &item, &length))
        valid = add_role(item, length, roles);
    return valid ? 0
                 : error_set(err, ERROR_INVALID,
                             "expected roles predict, metrics or admin with commas between, got "
                             "\"%.40s\"",
                             text);
}

static int read_name(const char *text, char name[TOKEN_NAME_BYTES], struct error *err)
{
    if (!*text || !name_is_valid(text, TOKEN_NAME_BYTES - 1))
        return error_set(err, ERROR_INVALID,
                         "expected a name of 1 to %d " NAME_ALPHABET ", got \"%.40s\"",
                         TOKEN_NAME_BYTES - 1, text);
    snprintf(name, TOKEN_NAME_BYTES, "%s", text);
    return 0;
}

/* Changes the line. */
static int read_token(char *line, struct token *token, struct error *err)
{
    static const char BLANKS[] = " \t\r\n";
    char *rest, *digest = strtok_r(line, BLANKS, &rest), *roles = strtok_r(NULL, BLANKS, &rest),
                *name = strtok_r(NULL, BLANKS, &rest), *more = strtok_r(NULL, BLANKS, &rest);
    *token = (struct token){0};
    if (!name || more)
        return error_set(err, ERROR_INVALID, "expected SHA256 ROLE[,ROLE] NAME");
    return read_digest(digest, token->digest, err) != 0 ||
                   read_roles(roles, &token->roles, err) != 0 ||
                   read_name(name, token->name, err) != 0
               ? -1
               : 0;
}

/* ---- the file ---- */

static int append_token(struct tokens **tokens, char *line, struct error *err)
{
    struct tokens *list = *tokens;
    if (list->count == TOKENS_MAX)
        return error_set(err, ERROR_INVALID, "more than %d tokens", TOKENS_MAX);
    size_t size = sizeof *list + (list->count + 1) * sizeof *list->list;
    *tokens = list = xrealloc(list, size);
    if (read_token(line, &list->list[list->count], err) != 0)
        return -1;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->list[i].name, list->list[list->count].name) == 0)
            return error_set(err, ERROR_INVALID, "the name \"%s\" is given a second time",
                             list->list[i].name);
    list->count++;
    return 0;
}

/* Cuts the text. */
static int read_lines(char *text, const char *path, struct tokens **tokens, struct error *err)
{
    size_t number = 1;
    for (char *line = text, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        line[strcspn(line, "#")] = '\0';
        if (strspn(line, " \t\r") == strlen(line) || append_token(tokens, line, err) == 0)
            continue;
        error_prefix(err, "%.200s line %zu", path, number);
        return -1;
    }
    return 0;
}

/* No pipe: it is read on the loop, again at each reload, and a pipe's writer may never come. A NUL,
 * which a crash may leave of a file's end, would hide the tokens behind it. */
static char *read_text(const char *path, struct error *err)
{
    enum { MOST_BYTES = TOKENS_MAX * 1024 };
    size_t length;
    char *text = file_read(path, MOST_BYTES, &length, err);
    if (text && memchr(text, '\0', length)) {
        error_set(err, ERROR_INVALID, "a NUL byte in it");
        free(text);
        text = NULL;
    }
    if (!text)
        error_prefix(err, "%.200s", path);
    return text;
}

struct tokens *tokens_read(const char *path, struct error *err)
{
    char *text = read_text(path, err);
    struct tokens *tokens = text ? xcalloc(1, sizeof *tokens) : NULL;
    if (text && read_lines(text, path, &tokens, err) != 0) {
        free(tokens);
        tokens = NULL;
    }
    free(text);
    return tokens;
}

bool tokens_are_open(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) &&
           (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

bool tokens_equal(const struct tokens *a, const struct tokens *b)
{
    return a->count == b->count && memcmp(a->list, b->list, a->count * sizeof *a->list) == 0;
}

/* ---- finding and making ---- */

const struct token *tokens_find(const struct tokens *tokens, const char *text)
{
    const struct token *found = NULL;
    uint8_t digest[TOKEN_DIGEST_BYTES];
    digest_of(text, digest);
    for (size_t i = 0; i < tokens->count; i++)
        if (gnutls_memcmp(digest, tokens->list[i].digest, sizeof digest) == 0)
            found = &tokens->list[i];
    return found;
}

int token_make(const char *roles, const char *name, char text[TOKEN_TEXT_BYTES],
               char line[TOKEN_LINE_BYTES], struct error *err)
{
    uint8_t bytes[32], digest[TOKEN_DIGEST_BYTES];
    char checked[TOKEN_NAME_BYTES], digits[2 * TOKEN_DIGEST_BYTES + 1];
    unsigned bits = 0;
    if (read_roles(roles, &bits, err) != 0) {
        error_prefix(err, "--role");
        return -1;
    }
    if (read_name(name, checked, err) != 0) {
        error_prefix(err, "--name");
        return -1;
    }
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return error_set(err, ERROR_INTERNAL, "cannot get random bytes: %s", strerror(errno));
    strcpy(text, "moed_");
    hex_of(bytes, sizeof bytes, text + strlen("moed_"));
    digest_of(text, digest);
    hex_of(digest, sizeof digest, digits);
    snprintf(line, TOKEN_LINE_BYTES, "%s %s %s", digits, roles, checked);
    return 0;
}
