/* A directory of a fuzzer's own: in memory, or on the disk where there is no memory file system. */
#ifndef FUZZ_DIRECTORY_H
#define FUZZ_DIRECTORY_H

#include <stdio.h>
#include <stdlib.h>

enum { FUZZ_DIRECTORY_BYTES = 32 };

static inline void make_fuzz_directory(char path[FUZZ_DIRECTORY_BYTES])
{
    snprintf(path, FUZZ_DIRECTORY_BYTES, "/dev/shm/moed-fuzz-XXXXXX");
    if (mkdtemp(path))
        return;
    snprintf(path, FUZZ_DIRECTORY_BYTES, "/tmp/moed-fuzz-XXXXXX");
    if (!mkdtemp(path))
        abort();
}

#endif
