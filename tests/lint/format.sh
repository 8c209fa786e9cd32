#!/bin/sh
# Whether clang-format would leave the C code as it is. To make it so: clang-format -i FILE...
cd "$(dirname "$0")/../.." || exit 2
find core proto server clients tests -name '*.[ch]' -exec clang-format --dry-run --Werror {} +
