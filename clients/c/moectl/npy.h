/* Arrays of NumPy's files: .npy, and .npz, which is a zip archive of them. What is read is checked
 * against the file's length before it is believed. */
#ifndef MOECTL_NPY_H
#define MOECTL_NPY_H

#include "clients/c/moectl/support.h"

struct array {
    char *name; /* owned; of .npz without ".npy"; of .npy "" */
    enum moed_client_datatype datatype;
    size_t rank;
    int64_t dims[MOED_CLIENT_MAX_RANK];
    void *data; /* owned; row-major, little-endian */
    size_t bytes;
};

struct arrays {
    struct array *list;
    size_t count;
};

/* Whether a file begins like one of them. */
bool npy_is(const char *data, size_t length);
bool npz_is(const char *data, size_t length);

MUST_CHECK int npy_read(const char *data, size_t length, struct array *array,
                        struct moed_client_error *err);
void array_close(struct array *array);

/* Every array of the archive; what is not an array in it is an error. */
MUST_CHECK int npz_read(const char *data, size_t length, struct arrays *arrays,
                        struct moed_client_error *err);
void arrays_close(struct arrays *arrays);

#endif
