#!/bin/sh
# The version stands in CMakeLists.txt. Prints what else names one and differs.
cd "$(dirname "$0")/../.." || exit 2
version=$(sed -n 's/^project(moed VERSION \([0-9.]*\) .*/\1/p' CMakeLists.txt)
! grep -nE '^(version|__version__) = ' clients/python/pyproject.toml clients/python/moed/__init__.py |
    grep -vF "= \"$version\"" | sed "s/$/    <- CMakeLists.txt says $version/" | grep .
