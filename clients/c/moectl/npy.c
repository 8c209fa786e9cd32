/* Reads .npy as numpy.lib.format describes it: a magic string, a version, the length of a head, the
 * head (a dictionary as Python writes it), the elements. */
#include "clients/c/moectl/npy.h"

#include <stdlib.h>
#include <string.h>

enum { MAGIC_BYTES = 6, MAX_HEAD_BYTES = 1 << 16 };

static const char MAGIC[] = "\x93NUMPY";

bool npy_is(const char *data, size_t length)
{
    return length >= MAGIC_BYTES && memcmp(data, MAGIC, MAGIC_BYTES) == 0;
}

/* ---- the head ---- */

/* Where reading is, and its end. */
struct head {
    const char *at, *end;
};

static void skip_blanks(struct head *head)
{
    while (head->at < head->end && (*head->at == ' ' || *head->at == '\n'))
        head->at++;
}

static bool take(struct head *head, const char *word)
{
    size_t length = strlen(word);
    skip_blanks(head);
    if ((size_t)(head->end - head->at) < length || memcmp(head->at, word, length) != 0)
        return false;
    head->at += length;
    return true;
}

/* 'text' or "text", without escapes, into `text`. */
static bool take_string(struct head *head, char *text, size_t size)
{
    skip_blanks(head);
    if (head->at == head->end || (*head->at != '\'' && *head->at != '"'))
        return false;
    char quote = *head->at++;
    const char *begin = head->at;
    while (head->at < head->end && *head->at != quote)
        head->at++;
    size_t length = (size_t)(head->at - begin);
    if (head->at == head->end || length >= size)
        return false;
    memcpy(text, begin, length);
    text[length] = '\0';
    head->at++;
    return true;
}

static bool take_number(struct head *head, int64_t *number)
{
    skip_blanks(head);
    const char *begin = head->at;
    *number = 0;
    for (; head->at < head->end && *head->at >= '0' && *head->at <= '9'; head->at++)
        if (__builtin_mul_overflow(*number, 10, number) ||
            __builtin_add_overflow(*number, *head->at - '0', number))
            return false;
    return head->at > begin;
}

/* (2, 3), (2,) or (). */
static bool take_shape(struct head *head, struct array *array)
{
    if (!take(head, "("))
        return false;
    while (!take(head, ")")) {
        if (array->rank == MOED_CLIENT_MAX_RANK || !take_number(head, &array->dims[array->rank++]))
            return false;
        if (!take(head, ",")) {
            return take(head, ")");
        }
    }
    return true;
}

static const struct {
    const char *descr;
    enum moed_client_datatype datatype;
} DATATYPES[] = {
    {"|b1", MOED_CLIENT_UINT8},  {"|u1", MOED_CLIENT_UINT8}, {"|i1", MOED_CLIENT_INT8},
    {"<u2", MOED_CLIENT_UINT16}, {"<i2", MOED_CLIENT_INT16}, {"<f2", MOED_CLIENT_FP16},
    {"<u4", MOED_CLIENT_UINT32}, {"<i4", MOED_CLIENT_INT32}, {"<f4", MOED_CLIENT_FP32},
    {"<u8", MOED_CLIENT_UINT64}, {"<i8", MOED_CLIENT_INT64}, {"<f8", MOED_CLIENT_FP64},
};

static int set_datatype(struct array *array, const char *descr, struct moed_client_error *err)
{
    for (size_t i = 0; i < LENGTH(DATATYPES); i++) {
        if (strcmp(DATATYPES[i].descr, descr) == 0) {
            array->datatype = DATATYPES[i].datatype;
            return 0;
        }
    }
    return fail_with(err,
                     "elements of type '%.32s': expected little-endian numbers, such as '<f4' "
                     "(numpy.float32)",
                     descr);
}

/* One `'key': value` of the three. */
static int read_entry(struct head *head, struct array *array, char descr[32], bool *fortran,
                      struct moed_client_error *err)
{
    char key[32];
    bool read = take_string(head, key, sizeof key) && take(head, ":");
    if (read && strcmp(key, "descr") == 0)
        read = take_string(head, descr, 32);
    else if (read && strcmp(key, "shape") == 0)
        read = array->rank == 0 && take_shape(head, array);
    else if (read && strcmp(key, "fortran_order") == 0)
        read = (*fortran = take(head, "True")) || take(head, "False");
    else
        read = false;
    take(head, ",");
    return read ? 0
                : fail_with(err, "the head of the array is damaged, or that of a structured one");
}

static int read_head(struct head *head, struct array *array, struct moed_client_error *err)
{
    char descr[32] = "";
    bool fortran = false;
    if (!take(head, "{"))
        return fail_with(err, "the head of the array is damaged");
    while (!take(head, "}"))
        if (read_entry(head, array, descr, &fortran, err) != 0)
            return -1;
    if (fortran && array->rank > 1)
        return fail_with(err,
                         "the array is stored by columns: save numpy.ascontiguousarray() of it");
    return set_datatype(array, descr, err);
}

/* ---- the array ---- */

/* The bytes that the shape asks for; -1: more than there can be. */
static int64_t bytes_of(const struct array *array)
{
    int64_t bytes = (int64_t)moed_client_datatype_bytes(array->datatype);
    for (size_t i = 0; i < array->rank; i++)
        if (__builtin_mul_overflow(bytes, array->dims[i], &bytes))
            return -1;
    return bytes;
}

/* The length of the head and where it begins; versions 2 and 3 have four bytes for it. */
static size_t head_length(const unsigned char *data, size_t length, size_t *begin)
{
    bool wide = data[6] >= 2;
    *begin = wide ? 12 : 10;
    if (length < *begin)
        return SIZE_MAX;
    size_t head = data[8] | (size_t)data[9] << 8;
    return wide ? head | (size_t)data[10] << 16 | (size_t)data[11] << 24 : head;
}

int npy_read(const char *data, size_t length, struct array *array, struct moed_client_error *err)
{
    size_t begin;
    *array = (struct array){0};
    if (!npy_is(data, length) || length < 10 || data[6] < 1 || data[6] > 3)
        return fail_with(err, "not a .npy file of version 1 to 3");
    size_t head_bytes = head_length((const unsigned char *)data, length, &begin);
    if (head_bytes > MAX_HEAD_BYTES || head_bytes > length - begin)
        return fail_with(err, "the head of the array is longer than the file");
    struct head head = {data + begin, data + begin + head_bytes};
    if (read_head(&head, array, err) != 0)
        return -1;
    int64_t bytes = bytes_of(array);
    size_t left = length - begin - head_bytes;
    if (bytes < 0 || (uint64_t)bytes != left)
        return fail_with(err, "%zu bytes of elements, where the shape asks for %lld", left,
                         (long long)bytes);
    array->bytes = left;
    array->data = malloc(left + 1);
    if (!array->data)
        return fail_with(err, "no memory for %zu bytes", left);
    memcpy(array->data, data + begin + head_bytes, left);
    array->name = xstrdup("");
    return 0;
}

void array_close(struct array *array)
{
    free(array->name);
    free(array->data);
    *array = (struct array){0};
}
