/* Memory for packed weights. */
#include "core/dense/panels.h"

#include <stdlib.h>
#include <sys/mman.h>

/* The pages that large weights ask for: with them an address is translated once per two megabytes
 * instead of once per four kilobytes. Loading takes longer if memory is fragmented, because the
 * operating system then compacts it first. */
enum { HUGE_PAGE = 2 << 20 };

void *panels_new(size_t bytes)
{
    void *panels;
    bool huge = bytes >= HUGE_PAGE;
    if (posix_memalign(&panels, huge ? HUGE_PAGE : PANEL_ALIGNMENT, bytes) != 0)
        return NULL;
    if (huge)
        madvise(panels, bytes, MADV_HUGEPAGE); /* advice: without huge pages products are slower */
    return panels;
}

int panels_error(const struct tensor *tensor, struct error *err)
{
    return tensor_error(tensor, err, ERROR_INTERNAL, ": no memory for its weights");
}
