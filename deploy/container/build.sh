#!/bin/sh
# Builds the server for the image's architecture in a stage that runs on the build machine's own, so that nothing is
# emulated: Debian's compiler for that architecture links with that architecture's packages.
#
#   build.sh packages       installs what the build takes
#   build.sh program        builds in the current directory, installs below /usr
set -eu

. "$(dirname "$0")/target.sh"

packages() {
    [ "$architecture" = "$native" ] || dpkg --add-architecture "$architecture"
    libraries=
    for name in libc6 libmicrohttpd libgnutls28 libnghttp2 libuv1 libjansson libutf8proc libopenblas zlib1g; do
        libraries="$libraries $name-dev:$architecture"
    done
    apt-get update
    # shellcheck disable=SC2086 # a word per package
    apt-get install --yes --no-install-recommends cmake ninja-build pkg-config \
        "gcc-$(echo "$triplet" | tr _ -)" $libraries
    rm -rf /var/lib/apt/lists/*
}

program() {
    export PKG_CONFIG_LIBDIR="/usr/lib/$triplet/pkgconfig:/usr/share/pkgconfig"
    cmake --preset release -DMOED_TESTS=OFF -DMOED_CLIENT=OFF -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_SYSTEM_PROCESSOR="$processor" -DCMAKE_C_COMPILER="$triplet-gcc" -DCMAKE_LIBRARY_ARCHITECTURE="$triplet"
    cmake --build --preset release
    cmake --install build/release --prefix /usr --strip
}

"$1"
