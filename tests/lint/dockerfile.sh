#!/bin/sh
# Prints paths that the Dockerfile copies but the build would not find, because they do not exist or
# are not among the exceptions in .dockerignore, which excludes everything else.
cd "$(dirname "$0")/../.." || exit 2
! sed -n 's/^COPY  *//p' Dockerfile | grep -v '^--from' | while read -r line; do
    set -f
    # shellcheck disable=SC2086 # a word per file; the last one is the destination
    set -- $line
    while [ $# -gt 1 ]; do
        path=$1
        shift
        [ -e "$path" ] || echo "Dockerfile: COPY $path: no such file"
        found=
        while [ "$path" != . ]; do
            ! grep -qxF "!$path" .dockerignore || found=1
            path=$(dirname "$path")
        done
        [ -n "$found" ] || echo "Dockerfile: COPY of what .dockerignore excludes: $line"
    done
done | grep .
