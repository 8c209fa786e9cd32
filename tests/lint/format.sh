#!/bin/sh
# Prints every C file that clang-format would change; `clang-format -i FILE` changes it.
cd "$(dirname "$0")/../.." || exit 2
! find core proto server clients tests -name '*.[ch]' | sort | while read -r file; do
    clang-format --dry-run --Werror "$file" 2>/dev/null || echo "$file"
done | grep .
