/* Experts that an administrator has taken out of service, each of one gate of one version of a
 * model: rows are routed around them, whatever their requests ask for, until they are let out.
 *
 * One list serves the whole process; any thread may call. It is kept in quarantine.json of the
 * state directory, if there is one. While that cannot be read nobody knows which experts must not
 * serve, and no model is loaded. What it means for a model is worked out when the first row
 * comes after a change. A version that was replaced keeps what its gates can still do. */
#ifndef SERVER_QUARANTINE_H
#define SERVER_QUARANTINE_H

#include <stdatomic.h>
#include <uv.h>

#include "core/intervention.h"
#include "proto/quarantine.h"

struct model;
struct state;

struct quarantine {
    struct state *state;         /* where it is kept */
    atomic_uint_fast64_t change; /* number of the latest; 0: the list has been empty so far */
    uv_mutex_t mutex;            /* guards the next two */
    struct quarantine_entry entries[QUARANTINE_MAX_ENTRIES];
    size_t count;
    uv_mutex_t writing; /* one file at a time */
    atomic_bool unread; /* the file is; the list is empty until then */
};

/* What a model's rows are asked of, as long as somebody holds it. Immutable. */
struct quarantined {
    atomic_size_t holders;
    uint64_t change;
    struct moed_intervention *asked; /* to be added to what a request asks; NULL: nothing */
    struct moed_intervention *rows;  /* the same, finished: for requests that ask nothing */
};

void quarantine_init(struct quarantine *quarantine, struct state *state);
void quarantine_close(struct quarantine *quarantine);

/* Reads what is kept, once; for the thread that loads models, before each (NULL: there is no
 * quarantine). A damaged file is set aside with a warning; -1 with an error if it cannot be read,
 * or only by a newer moed. */
MUST_CHECK int quarantine_read(struct quarantine *quarantine, struct error *err);

/* Takes an expert out of service; if it is already, for this reason from now on. Takes over the
 * entry, whose model and version become those of `model`. -1 with an error if there is no such
 * expert, or the gate cannot do without it; the entry is then still the caller's. */
MUST_CHECK int quarantine_add(struct quarantine *quarantine, const struct model *model,
                              struct quarantine_entry *entry, struct error *err);

/* Lets it out. -1 with an error if it was not in. */
MUST_CHECK int quarantine_remove(struct quarantine *quarantine, const struct model *model,
                                 const struct quarantine_entry *entry, struct error *err);

/* Writes the file; may take as long as the disk does. Without a state directory it fails. */
MUST_CHECK int quarantine_save(struct quarantine *quarantine, struct error *err);

/* The list of a gate's experts in quarantine as JSON, [...]; the caller frees it. */
char *quarantine_text(struct quarantine *quarantine, const struct model *model, size_t gate);

/* Of each of the gate's experts whether it is in; NULL: none is. The caller frees it. */
bool *quarantine_marks(struct quarantine *quarantine, const struct model *model, size_t gate);

/* What holds for the model's rows now; the caller lets go of it. NULL: nothing, which costs reading
 * one number while the list has always been empty. */
struct quarantined *quarantined_now(struct model *model);
void quarantined_release(struct quarantined *quarantined); /* NULL, too */

#endif
