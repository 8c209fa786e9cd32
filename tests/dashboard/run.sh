#!/bin/sh
# The dashboard in a real browser: `sh tests/dashboard/run.sh`; `sh tests/dashboard/run.sh stories` is stories.py, and
# `sh tests/dashboard/run.sh pictures` pictures.py.
#
# Installs Debian's chromium and, in build/dashboard, playwright-core and axe-core; builds the server, serves the
# shipped models and one of 64 layers with 256 experts, sends traffic, opens the page at desktop and phone width in
# light and dark, tries it, and checks: no error on the console, no violation that axe finds, nothing wider than the
# window, frames within a display's. Screenshots are left in build/dashboard; look at them.
set -eu

cd "$(dirname "$0")/../.."
. deploy/packages.sh
install_packages $BUILD_PACKAGES dataset-fashion-mnist python3-numpy python3-pil chromium fonts-dejavu-core
command -v npm >/dev/null || install_packages nodejs npm
cmake --preset release >/dev/null && cmake --build --preset release --target moed moectl >/dev/null
work=$PWD/build/dashboard
mkdir -p "$work"
cp tests/dashboard/package.json tests/dashboard/*.mjs "$work/"
[ -d "$work/node_modules" ] || (cd "$work" && npm install --no-audit --no-fund >npm.log 2>&1) || { tail "$work/npm.log"; exit 1; }
if [ "${1:-}" = stories ]; then
    shift
    exec /usr/bin/python3 tests/dashboard/stories.py "$work" "$@"
fi
if [ "${1:-}" = pictures ]; then
    exec /usr/bin/python3 tests/dashboard/pictures.py "$work"
fi
PYTHONPATH=clients/python exec /usr/bin/python3 tests/dashboard/serve.py "$work"
