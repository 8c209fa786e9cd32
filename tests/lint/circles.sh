#!/bin/sh
# Prints the files of every include circle, where a .c file and its header are one, and fails if there
# is any.
#
#   sh tests/lint/circles.sh [ROOM...]      default: core proto server clients
cd "$(dirname "$0")/../.." || exit 2
! grep -rn '^#include "' --include='*.[ch]' ${@:-core proto server clients} |
    sed -nE 's/^([^:]+)\.[ch]:[0-9]+:#include "(core|proto|server|clients)(.*)\.h".*/\1 \2\3/p' | sort -u |
    tsort 2>&1 >/dev/null | sed 's/^tsort: -: input contains a loop:$/a circle:/; s/^tsort: //' | grep .
