/* The list is the truth; models keep a copy of what it means for them, with the number of the
 * change that it is up to. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/routing_layer.h"
#include "server/log.h"
#include "server/models/model.h"
#include "server/statistics/quarantine.h"
#include "server/statistics/state.h"
#include "server/statistics/state_file.h"

static const char FILE_NAME[] = "quarantine.json";

/* ---- the list ---- */

static bool is_of(const struct quarantine_entry *entry, const struct model *model)
{
    return strcmp(entry->model, model->name) == 0 && strcmp(entry->version, model->version) == 0;
}

static bool is_at(const struct quarantine_entry *entry, const struct model *model,
                  const char *layer, size_t expert)
{
    return entry->expert == expert && is_of(entry, model) && strcmp(entry->layer, layer) == 0;
}

/* NULL: it is not in. With the mutex held. */
static struct quarantine_entry *find(struct quarantine *quarantine, const struct model *model,
                                     const char *layer, size_t expert)
{
    for (size_t i = 0; i < quarantine->count; i++)
        if (is_at(&quarantine->entries[i], model, layer, expert))
            return &quarantine->entries[i];
    return NULL;
}

static const struct moed_gate_info *gate_of(const struct model *model, const char *layer,
                                            size_t *index)
{
    for (*index = 0; *index < model->info->gate_count; ++*index)
        if (strcmp(model->info->gates[*index].name, layer) == 0)
            return &model->info->gates[*index];
    return NULL;
}

/* ---- what it means for a model ---- */

static struct moed_intervention *copy_of(const struct moed_intervention *other,
                                         const struct moed_model_info *info)
{
    struct moed_intervention *copy = moed_intervention_new(info);
    moed_intervention_add(copy, info, other);
    return copy;
}

/* Adds an entry to what is asked, if the gates can do that. */
static int ask(struct moed_intervention **asked, const struct model *model,
               const struct quarantine_entry *entry, struct error *err)
{
    const struct moed_model_info *info = model->info;
    size_t index;
    const struct moed_gate_info *gate = gate_of(model, entry->layer, &index);
    if (!gate)
        return error_set(err, ERROR_INVALID, "model '%s' has no gate '%.64s'", model->name,
                         entry->layer);
    int32_t expert = moed_gate_find_expert(gate, (int64_t)entry->expert);
    if (expert < 0)
        return error_set(err, ERROR_INVALID, "gate '%s' has no expert %zu, but %zu expert%s",
                         gate->name, entry->expert, gate->experts, text_s(gate->experts));
    struct moed_intervention *more = copy_of(*asked, info);
    moed_intervention_exclude(more, info, index, expert);
    struct moed_intervention *finished = copy_of(more, info);
    int result = moed_intervention_finish(finished, info, err);
    moed_intervention_free(finished);
    moed_intervention_free(result == 0 ? *asked : more);
    if (result == 0)
        *asked = more;
    return result;
}

/* Everything of the model but `without`, which may be NULL. With the mutex held. */
static struct moed_intervention *ask_all(const struct quarantine *quarantine,
                                         const struct model *model,
                                         const struct quarantine_entry *without, size_t *count)
{
    struct moed_intervention *asked = moed_intervention_new(model->info);
    *count = 0;
    for (size_t i = 0; i < quarantine->count; i++) {
        const struct quarantine_entry *entry = &quarantine->entries[i];
        if (entry != without && is_of(entry, model))
            *count += ask(&asked, model, entry, NULL) == 0; /* a new version may lack it */
    }
    return asked;
}

static struct quarantined *work_out(struct quarantine *quarantine, const struct model *model)
{
    struct quarantined *now = xcalloc(1, sizeof *now);
    size_t count;
    atomic_init(&now->holders, 1);
    uv_mutex_lock(&quarantine->mutex);
    now->change = atomic_load(&quarantine->change);
    now->asked = ask_all(quarantine, model, NULL, &count);
    uv_mutex_unlock(&quarantine->mutex);
    now->rows = copy_of(now->asked, model->info);
    if (count > 0 && moed_intervention_finish(now->rows, model->info, NULL) == 0)
        return now;
    moed_intervention_free(now->asked);
    moed_intervention_free(now->rows);
    now->asked = now->rows = NULL;
    return now;
}

struct quarantined *quarantined_now(struct model *model)
{
    struct quarantine *quarantine = model->quarantine;
    if (!quarantine || atomic_load_explicit(&quarantine->change, memory_order_acquire) == 0)
        return NULL;
    uv_mutex_lock(&model->mutex);
    struct quarantined *now = model->quarantined;
    if (!now || now->change != atomic_load(&quarantine->change)) {
        quarantined_release(now);
        now = model->quarantined = work_out(quarantine, model);
    }
    now = now->asked ? now : NULL;
    if (now)
        atomic_fetch_add(&now->holders, 1);
    uv_mutex_unlock(&model->mutex);
    return now;
}

void quarantined_release(struct quarantined *quarantined)
{
    if (!quarantined || atomic_fetch_sub(&quarantined->holders, 1) > 1)
        return;
    moed_intervention_free(quarantined->asked);
    moed_intervention_free(quarantined->rows);
    free(quarantined);
}

/* ---- changes ---- */

/* Whether the gates can do without the entry's expert, too. With the mutex held. */
static int check(const struct quarantine *quarantine, const struct model *model,
                 const struct quarantine_entry *entry, const struct quarantine_entry *known,
                 struct error *err)
{
    size_t count;
    if (!known && quarantine->count == QUARANTINE_MAX_ENTRIES)
        return error_set(err, ERROR_INVALID, "%d experts are in quarantine, and no more can be",
                         QUARANTINE_MAX_ENTRIES);
    struct moed_intervention *asked = ask_all(quarantine, model, known, &count);
    int result = ask(&asked, model, entry, err);
    moed_intervention_free(asked);
    return result;
}

int quarantine_add(struct quarantine *quarantine, const struct model *model,
                   struct quarantine_entry *entry, struct error *err)
{
    uv_mutex_lock(&quarantine->mutex);
    struct quarantine_entry *known = find(quarantine, model, entry->layer, entry->expert);
    int result = check(quarantine, model, entry, known, err);
    if (result == 0) {
        entry->model = xstrdup(model->name);
        entry->version = xstrdup(model->version);
        if (known)
            quarantine_entry_close(known);
        else
            known = &quarantine->entries[quarantine->count++];
        *known = *entry;
        *entry = (struct quarantine_entry){0};
        atomic_fetch_add(&quarantine->change, 1);
    }
    uv_mutex_unlock(&quarantine->mutex);
    return result;
}

int quarantine_remove(struct quarantine *quarantine, const struct model *model,
                      const struct quarantine_entry *entry, struct error *err)
{
    uv_mutex_lock(&quarantine->mutex);
    struct quarantine_entry *known = find(quarantine, model, entry->layer, entry->expert);
    if (known) {
        quarantine_entry_close(known);
        const size_t behind = quarantine->count - 1 - (size_t)(known - quarantine->entries);
        memmove(known, known + 1, behind * sizeof *known);
        quarantine->count--;
        atomic_fetch_add(&quarantine->change, 1);
    }
    uv_mutex_unlock(&quarantine->mutex);
    return known ? 0
                 : error_set(err, ERROR_NOT_FOUND,
                             "expert %zu of gate '%.64s' of model '%s' version %s is not in "
                             "quarantine",
                             entry->expert, entry->layer, model->name, model->version);
}

/* ---- what documents say ---- */

static bool is_at_gate(const struct quarantine_entry *entry, const struct model *model, size_t gate)
{
    return is_at(entry, model, model->info->gates[gate].name, entry->expert);
}

char *quarantine_text(struct quarantine *quarantine, const struct model *model, size_t gate)
{
    const char *separator = "";
    struct buffer text;
    size_t length;
    buffer_init(&text, QUARANTINE_MAX_FILE_BYTES);
    buffer_text(&text, "[");
    uv_mutex_lock(&quarantine->mutex);
    for (size_t i = 0; i < quarantine->count; i++)
        if (is_at_gate(&quarantine->entries[i], model, gate)) {
            buffer_text(&text, separator);
            quarantine_append_entry(&quarantine->entries[i], &text);
            separator = ",";
        }
    uv_mutex_unlock(&quarantine->mutex);
    buffer_append(&text, "]", sizeof "]");
    char *list = text.failed ? xstrdup("[]") : buffer_steal(&text, &length);
    buffer_close(&text);
    return list;
}

static void mark(const struct moed_gate_info *gate, size_t expert, bool **marks)
{
    for (size_t i = 0; i < gate->experts; i++)
        if (routing_expert_index(gate->expert_index, i) == expert) {
            *marks = *marks ? *marks : xcalloc(gate->experts, sizeof **marks);
            (*marks)[i] = true;
        }
}

bool *quarantine_marks(struct quarantine *quarantine, const struct model *model, size_t gate)
{
    bool *marks = NULL;
    if (!quarantine || atomic_load(&quarantine->change) == 0)
        return NULL;
    uv_mutex_lock(&quarantine->mutex);
    for (size_t i = 0; i < quarantine->count; i++)
        if (is_at_gate(&quarantine->entries[i], model, gate))
            mark(&model->info->gates[gate], quarantine->entries[i].expert, &marks);
    uv_mutex_unlock(&quarantine->mutex);
    return marks;
}

/* ---- the file ---- */

int quarantine_save(struct quarantine *quarantine, struct error *err)
{
    const struct state *state = quarantine->state;
    struct buffer body;
    if (!state->directory || state->lock < 0)
        return error_set(err, ERROR_UNAVAILABLE, "there is no state directory to keep it in");
    buffer_init(&body, QUARANTINE_MAX_FILE_BYTES);
    uv_mutex_lock(&quarantine->writing);
    uv_mutex_lock(&quarantine->mutex);
    quarantine_write_list(quarantine->entries, quarantine->count, &body);
    uv_mutex_unlock(&quarantine->mutex);
    int result = body.failed ? buffer_error(&body, "quarantine.json", "it is not written", err)
                             : state_file_replace(state->directory, FILE_NAME, &body, err);
    uv_mutex_unlock(&quarantine->writing);
    buffer_close(&body);
    return result;
}

static void take(struct quarantine *quarantine, struct quarantine_entry *entries, size_t count)
{
    uv_mutex_lock(&quarantine->mutex);
    memcpy(quarantine->entries, entries, count * sizeof *entries);
    quarantine->count = count;
    atomic_store(&quarantine->change, count > 0);
    uv_mutex_unlock(&quarantine->mutex);
    if (count > 0)
        log_message(LOG_WARNING, "quarantine", "%zu expert%s in quarantine, as %s/%s says", count,
                    count == 1 ? " is" : "s are", quarantine->state->directory, FILE_NAME);
}

static void set_aside(struct state *state, const struct error *err)
{
    const bool ours = state->lock >= 0;
    const bool moved = ours && state_file_set_aside(state->directory, FILE_NAME);
    atomic_fetch_add(&state->damaged, 1);
    log_message(LOG_WARNING, "state_damaged",
                "%s; it %s renamed to %s.damaged, and no expert is "
                "in quarantine",
                err->text, moved ? "is" : "cannot be", FILE_NAME);
}

/* Reading takes no lock: files are replaced whole. */
static int restore(struct quarantine *quarantine, struct error *err)
{
    struct error own = ERROR_INIT;
    struct quarantine_entry entries[QUARANTINE_MAX_ENTRIES];
    const char *directory = quarantine->state->directory;
    size_t length, count;
    char *text = state_file_read(directory, FILE_NAME, QUARANTINE_MAX_FILE_BYTES, &length, &own);
    if (text && quarantine_read_list(text, length, entries, &count, &own) == 0)
        take(quarantine, entries, count);
    else if (text)
        error_prefix(&own, "%s/%s", directory, FILE_NAME);
    free(text);
    if (own.code == ERROR_NONE)
        return 0;
    if (!state_file_is_wrong(&own))
        return error_set(err, own.code, "%.400s: it says which experts must not serve", own.text);
    set_aside(quarantine->state, &own);
    return 0;
}

int quarantine_read(struct quarantine *quarantine, struct error *err)
{
    if (!quarantine || !atomic_load(&quarantine->unread))
        return 0;
    if (restore(quarantine, err) != 0)
        return -1;
    atomic_store(&quarantine->unread, false);
    return 0;
}

void quarantine_init(struct quarantine *quarantine, struct state *state)
{
    memset(quarantine, 0, sizeof *quarantine);
    quarantine->state = state;
    if (uv_mutex_init(&quarantine->mutex) != 0 || uv_mutex_init(&quarantine->writing) != 0)
        out_of_memory();
    atomic_init(&quarantine->unread, state->directory != NULL);
}

void quarantine_close(struct quarantine *quarantine)
{
    if (!quarantine->state)
        return; /* the start ended before */
    while (quarantine->count > 0)
        quarantine_entry_close(&quarantine->entries[--quarantine->count]);
    uv_mutex_destroy(&quarantine->mutex);
    uv_mutex_destroy(&quarantine->writing);
}
