#!/bin/sh
# Prints every C file that clang-format would change; apply_format.sh changes them all.
cd "$(dirname "$0")/../.." || exit 2
! find core proto server clients tests -name '*.[ch]' -print0 |
    xargs -0 -n 20 -P 2 clang-format --dry-run --Werror 2>&1 |
    sed -nE 's/^([^ ]+):[0-9]+:[0-9]+: error: .*/\1/p' | sort -u | grep .
