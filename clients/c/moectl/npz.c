/* Reads .npz: the zip archive's central directory says what is where; entries are stored or
 * deflated. Archives beyond 4 GiB (zip64) are refused. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "clients/c/moectl/npy.h"

enum {
    END_BYTES = 22,
    ENTRY_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_ENTRIES = 1024,
    MAX_NAME_BYTES = 256,
    /* A few kilobytes of zeros can be told to grow without end. */
    MAX_INFLATED_BYTES = 1 << 30,
    STORED = 0,
    DEFLATED = 8,
};

struct archive {
    const unsigned char *data;
    size_t length;
    size_t left; /* bytes that may still be inflated: many entries may share one stream */
};

struct entry {
    char name[MAX_NAME_BYTES];
    unsigned method;
    size_t packed, bytes; /* in the archive; once inflated */
    size_t begin;         /* of the local head */
};

static size_t read16(const unsigned char *at)
{
    return at[0] | (size_t)at[1] << 8;
}

static size_t read32(const unsigned char *at)
{
    return read16(at) | read16(at + 2) << 16;
}

bool npz_is(const char *data, size_t length)
{
    return length >= 4 && memcmp(data, "PK\3\4", 4) == 0;
}

static int damaged(struct moed_client_error *err)
{
    return fail_with(err, "the archive is damaged");
}

/* ---- the directory ---- */

/* The record at the archive's end, behind which a comment may stand. NULL: there is none. */
static const unsigned char *find_end(const struct archive *archive)
{
    size_t most = END_BYTES + 0xFFFF < archive->length ? END_BYTES + 0xFFFF : archive->length;
    for (size_t back = END_BYTES; back <= most; back++) {
        const unsigned char *at = archive->data + archive->length - back;
        if (memcmp(at, "PK\5\6", 4) == 0)
            return at;
    }
    return NULL;
}

/* The entry at `*at` of the directory; moves on to the next one. */
static int read_entry(const struct archive *archive, size_t *at, struct entry *entry,
                      struct moed_client_error *err)
{
    if (*at > archive->length || archive->length - *at < ENTRY_BYTES)
        return damaged(err);
    const unsigned char *record = archive->data + *at;
    size_t name = read16(record + 28), more = read16(record + 30) + read16(record + 32);
    if (memcmp(record, "PK\1\2", 4) != 0 || archive->length - *at - ENTRY_BYTES < name + more)
        return damaged(err);
    if (name >= MAX_NAME_BYTES)
        return fail_with(err, "a name of %zu bytes in the archive", name);
    *entry = (struct entry){.method = (unsigned)read16(record + 10),
                            .packed = read32(record + 20),
                            .bytes = read32(record + 24),
                            .begin = read32(record + 42)};
    memcpy(entry->name, record + ENTRY_BYTES, name);
    *at += ENTRY_BYTES + name + more;
    return 0;
}

/* ---- an entry ---- */

static int inflate_entry(const unsigned char *packed, const struct entry *entry, char *data)
{
    z_stream stream = {.next_in = (unsigned char *)packed,
                       .avail_in = (uInt)entry->packed,
                       .next_out = (unsigned char *)data,
                       .avail_out = (uInt)entry->bytes};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        return -1;
    int result = inflate(&stream, Z_FINISH);
    bool whole = result == Z_STREAM_END && stream.total_out == entry->bytes;
    inflateEnd(&stream);
    return whole ? 0 : -1;
}

/* Where the entry's bytes begin, behind a head of their own. NULL: outside the archive. */
static const unsigned char *find_packed(const struct archive *archive, const struct entry *entry)
{
    if (entry->begin > archive->length || archive->length - entry->begin < LOCAL_BYTES)
        return NULL;
    const unsigned char *local = archive->data + entry->begin;
    size_t begin = LOCAL_BYTES + read16(local + 26) + read16(local + 28);
    size_t left = archive->length - entry->begin;
    bool there = memcmp(local, "PK\3\4", 4) == 0 && begin <= left && entry->packed <= left - begin;
    return there ? local + begin : NULL;
}

/* Deflate packs at most so many bytes into one. A directory that claims more is given no memory. */
enum { DEFLATE_MOST = 1032 };

static bool may_hold(const struct entry *entry)
{
    if (entry->method == STORED)
        return entry->packed == entry->bytes;
    return entry->method == DEFLATED && entry->bytes / DEFLATE_MOST <= entry->packed;
}

/* The entry's content; the caller frees. */
static char *unpack(struct archive *archive, const struct entry *entry,
                    struct moed_client_error *err)
{
    const unsigned char *packed = find_packed(archive, entry);
    if (!packed || !may_hold(entry) || entry->bytes > archive->left) {
        fail_with(err, "it is damaged, too large or compressed in an unknown way");
        return NULL;
    }
    archive->left -= entry->bytes;
    char *data = malloc(entry->bytes + 1);
    if (!data)
        fail_with(err, "no memory for %zu bytes", entry->bytes);
    else if (entry->method == STORED)
        memcpy(data, packed, entry->bytes);
    else if (inflate_entry(packed, entry, data) != 0) {
        damaged(err);
        free(data);
        data = NULL;
    }
    return data;
}

static int read_array(struct archive *archive, const struct entry *entry, struct array *array,
                      struct moed_client_error *err)
{
    char *data = unpack(archive, entry, err);
    int result = data ? npy_read(data, entry->bytes, array, err) : -1;
    free(data);
    if (result != 0) {
        fail_in(err, entry->name);
        return -1;
    }
    free(array->name);
    array->name = xstrdup(entry->name);
    char *dot = strrchr(array->name, '.');
    if (dot && strcmp(dot, ".npy") == 0)
        *dot = '\0';
    return 0;
}

int npz_read(const char *data, size_t length, struct arrays *arrays, struct moed_client_error *err)
{
    struct archive archive = {(const unsigned char *)data, length, MAX_INFLATED_BYTES};
    *arrays = (struct arrays){0};
    const unsigned char *end = find_end(&archive);
    if (!end)
        return damaged(err);
    size_t count = read16(end + 10), at = read32(end + 16);
    if (count == 0 || count > MAX_ENTRIES)
        return fail_with(err, "%zu array%s in the archive, expected 1 to %d", count, ending(count),
                         MAX_ENTRIES);
    arrays->list = xcalloc(count, sizeof *arrays->list);
    while (arrays->count < count) {
        struct entry entry;
        if (read_entry(&archive, &at, &entry, err) != 0 ||
            read_array(&archive, &entry, &arrays->list[arrays->count], err) != 0) {
            array_close(&arrays->list[arrays->count]);
            arrays_close(arrays);
            return -1;
        }
        arrays->count++;
    }
    return 0;
}

void arrays_close(struct arrays *arrays)
{
    for (size_t i = 0; i < arrays->count; i++)
        array_close(&arrays->list[i]);
    free(arrays->list);
    *arrays = (struct arrays){0};
}
