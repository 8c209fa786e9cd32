/* A hash table whose entries are also listed by age. */
#include "server/statistics/feedback.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"

void feedback_init(struct feedback *feedback)
{
    *feedback = (struct feedback){0};
    TAILQ_INIT(&feedback->all);
    if (uv_mutex_init(&feedback->mutex) != 0)
        out_of_memory();
}

static void forget(struct feedback *feedback, struct remembered *entry)
{
    TAILQ_REMOVE(&feedback->all, entry, by_age);
    LIST_REMOVE(entry, in_bucket);
    feedback->bytes -= entry->bytes;
}

void feedback_close(struct feedback *feedback)
{
    struct remembered *entry;
    while ((entry = TAILQ_FIRST(&feedback->all))) {
        forget(feedback, entry);
        free(entry);
    }
    free(feedback->buckets);
    uv_mutex_destroy(&feedback->mutex);
}

static size_t bucket_of(const char *id)
{
    return hash_text(id) % FEEDBACK_BUCKETS;
}

/* ---- remembering ---- */

static size_t bytes_of(const char *id, const struct answered_rows *rows, size_t gate_count)
{
    size_t numbers = rows->rows * rows->classes + gate_count;
    for (size_t i = 0; i < gate_count; i++)
        numbers += rows->rows * rows->items_per_row[i];
    return sizeof(struct remembered) + gate_count * sizeof(int32_t *) + numbers * sizeof(float) +
           strlen(id) + 1;
}

static void *put(char **at, const void *bytes, size_t count)
{
    void *place = *at;
    memcpy(place, bytes, count);
    *at += count;
    return place;
}

/* Pointers first, then numbers of four bytes, then the id: each is aligned. */
static struct remembered *copy(const char *id, const struct answered_rows *rows, size_t gate_count)
{
    const size_t bytes = bytes_of(id, rows, gate_count);
    struct remembered *entry = malloc(bytes);
    if (!entry)
        return NULL;
    *entry = (struct remembered){.bytes = bytes, .rows = *rows};
    const int32_t **first = (const int32_t **)(void *)(entry + 1);
    char *at = (char *)(first + gate_count);
    for (size_t i = 0; i < gate_count; i++)
        first[i] = put(&at, rows->first[i], rows->rows * rows->items_per_row[i] * sizeof(int32_t));
    entry->rows.first = first;
    entry->rows.items_per_row =
        put(&at, rows->items_per_row, gate_count * sizeof *rows->items_per_row);
    entry->rows.scores = put(&at, rows->scores, rows->rows * rows->classes * sizeof(float));
    entry->id = put(&at, id, strlen(id) + 1);
    return entry;
}

void feedback_remember(struct feedback *feedback, const char *id, size_t tag,
                       const struct answered_rows *rows, size_t gate_count)
{
    if (bytes_of(id, rows, gate_count) > FEEDBACK_MAX_BYTES)
        return;
    struct remembered *entry = copy(id, rows, gate_count), *oldest;
    if (!entry)
        return;
    entry->tag = tag;
    uv_mutex_lock(&feedback->mutex);
    if (!feedback->buckets)
        feedback->buckets = xcalloc(FEEDBACK_BUCKETS, sizeof *feedback->buckets);
    TAILQ_INSERT_TAIL(&feedback->all, entry, by_age);
    LIST_INSERT_HEAD(&feedback->buckets[bucket_of(id)], entry, in_bucket);
    feedback->bytes += entry->bytes;
    while (feedback->bytes > FEEDBACK_MAX_BYTES && (oldest = TAILQ_FIRST(&feedback->all))) {
        forget(feedback, oldest);
        free(oldest);
    }
    uv_mutex_unlock(&feedback->mutex);
}

/* ---- taking ---- */

static struct remembered *find(const struct feedback *feedback, const char *id)
{
    struct remembered *entry = NULL;
    if (!feedback->buckets)
        return NULL;
    LIST_FOREACH(entry, &feedback->buckets[bucket_of(id)], in_bucket)
    {
        if (strcmp(entry->id, id) == 0)
            break;
    }
    return entry;
}

struct remembered *feedback_take(struct feedback *feedback, const char *id, size_t rows,
                                 size_t *has)
{
    uv_mutex_lock(&feedback->mutex);
    struct remembered *entry = find(feedback, id);
    *has = entry ? entry->rows.rows : 0;
    if (!entry)
        feedback->lost++;
    else if (*has == rows)
        forget(feedback, entry);
    else
        entry = NULL;
    uv_mutex_unlock(&feedback->mutex);
    return entry;
}

uint64_t feedback_lost(struct feedback *feedback)
{
    uv_mutex_lock(&feedback->mutex);
    const uint64_t lost = feedback->lost;
    uv_mutex_unlock(&feedback->mutex);
    return lost;
}
