#!/bin/sh
# The version is set in CMakeLists.txt. Prints other lines that name a different one.
cd "$(dirname "$0")/../.." || exit 2
version=$(sed -n 's/^project(moed VERSION \([0-9.]*\) .*/\1/p' CMakeLists.txt)
! grep -nE '^(version|__version__) = "' clients/python/pyproject.toml clients/python/moed/__init__.py |
    grep -vF "= \"$version\"" | sed "s/$/    <- CMakeLists.txt says $version/" | grep .
