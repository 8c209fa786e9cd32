/* Tags are checked when they are read: whoever counts by them may trust them. */
#include "proto/annotation.h"

#include "core/memory.h"
#include "core/text.h"
#include "proto/members.h"

int annotation_check_tag(const char *tag, struct error *err)
{
    if (*tag && name_is_valid(tag, NAME_MAX_BYTES))
        return 0;
    return error_set(err, ERROR_INVALID, "tag " QUOTED ": expected 1 to %d " NAME_ALPHABET, tag,
                     NAME_MAX_BYTES);
}

int annotation_read_tag(const json_t *object, const char *where, struct infer_request *request,
                        struct error *err)
{
    const char *tag = NULL;
    if (member_string(object, where, "tag", &tag, err) != 0 ||
        (tag && annotation_check_tag(tag, err) != 0))
        return -1;
    if (tag)
        request->tag = xstrdup(tag);
    return 0;
}
