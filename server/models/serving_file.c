#include "server/models/serving_file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/memory.h"
#include "server/models/model_parts.h"

bool serving_is_version(const char *name)
{
    return *name >= '1' && *name <= '9' && strlen(name) <= 18 &&
           name[strspn(name, "0123456789")] == '\0';
}

/* False: there is no such file. One that cannot be looked at now is there: without its policy other
 * versions would be served. */
static bool find(char path[PATH_MAX], const char *directory)
{
    struct stat status;
    if (snprintf(path, PATH_MAX, "%s/serving.json", directory) >= PATH_MAX)
        return false;
    return stat(path, &status) == 0 ? !S_ISDIR(status.st_mode) : !model_is_absent(errno);
}

int serving_read(struct serving *serving, const char *directory, struct error *err)
{
    char path[PATH_MAX];
    if (!find(path, directory)) {
        serving_close(serving);
        return 0;
    }
    size_t length;
    char *text = file_read(path, SERVING_MAX_BYTES, &length, err);
    const int result = text ? serving_parse(serving, text, length, err) : -1;
    if (result != 0)
        error_prefix(err, "%s", path);
    free(text);
    return result;
}

/* Versions may be links: the path is taken as it is written. */
int serving_read_for(struct serving *serving, const char *checkpoint, struct error *err)
{
    char path[PATH_MAX], *above = xstrdup(checkpoint);
    size_t end = strlen(above);
    while (end > 1 && above[end - 1] == '/')
        above[--end] = '\0';
    char *slash = strrchr(above, '/');
    const bool is_version = serving_is_version(slash ? slash + 1 : above);
    if (slash)
        slash[slash == above] = '\0'; /* "/" stays */
    const char *parent = slash ? above : ".";
    const int result =
        serving_read(serving, is_version && !find(path, checkpoint) ? parent : checkpoint, err);
    free(above);
    return result;
}
