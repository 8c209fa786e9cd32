/* Experts in quarantine as JSON: the body that asks for one, the list that is kept in a file, and
 * what documents say of them. */
#ifndef PROTO_QUARANTINE_H
#define PROTO_QUARANTINE_H

#include <stdint.h>

#include "proto/buffer.h"

enum {
    QUARANTINE_MAX_ENTRIES = 256,
    QUARANTINE_MAX_REASON_BYTES = 512,
    QUARANTINE_MAX_FILE_BYTES = 4 << 20,
};

struct quarantine_entry {
    char *model, *version; /* NULL in a request */
    char *layer;           /* the gate's name */
    size_t expert;         /* the layer's index */
    char *reason;          /* "": none was given */
    char *by;              /* the client's address, behind "NAME at " if it had a token */
    char *request_id;
    uint64_t since; /* seconds since 1970 */
};

void quarantine_entry_close(struct quarantine_entry *entry);

/* Reads {"layer", "expert", "reason"} into an entry that has nothing else. On error there is
 * nothing to close. */
MUST_CHECK int quarantine_read_request(const char *body, size_t length,
                                       struct quarantine_entry *entry, struct error *err);

/* Appends {"expert", "reason", "by", "request_id", "since"}. */
void quarantine_append_entry(const struct quarantine_entry *entry, struct buffer *body);

/* {"version": 1, "quarantine": [...]}, entries with all members. */
void quarantine_write_list(const struct quarantine_entry *entries, size_t count,
                           struct buffer *body);

/* Fills entries [QUARANTINE_MAX_ENTRIES]. On error there is nothing to close; ERROR_UNSUPPORTED: it
 * is of a newer version. */
MUST_CHECK int quarantine_read_list(const char *text, size_t length,
                                    struct quarantine_entry *entries, size_t *count,
                                    struct error *err);

#endif
