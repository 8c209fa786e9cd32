#!/bin/sh
# Formats every C file; format.sh is the check.
cd "$(dirname "$0")/../.." || exit 2
find core proto server clients tests -name '*.[ch]' -exec clang-format -i {} +
