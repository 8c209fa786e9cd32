#!/bin/sh
# Prints what the Dockerfile copies but the build would not find: what is not there, or what
# .dockerignore, a list of exceptions from "everything", leaves out.
cd "$(dirname "$0")/../.." || exit 2
! sed -n 's/^COPY  *//p' Dockerfile | grep -v '^--from' | while read -r line; do
    set -f
    # shellcheck disable=SC2086 # a word per file; the last is where they go
    set -- $line
    while [ $# -gt 1 ]; do
        path=$1
        shift
        [ -e "$path" ] || echo "Dockerfile: COPY $path: not there"
        found=
        while [ "$path" != . ]; do
            ! grep -qxF "!$path" .dockerignore || found=1
            path=$(dirname "$path")
        done
        [ -n "$found" ] || echo "Dockerfile: COPY of what .dockerignore excludes: $line"
    done
done | grep .
