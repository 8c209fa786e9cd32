# Installing Debian packages only when they are missing; sourced by quickstart.sh and tests/run.sh.
#
# What is there is asked of dpkg, never of the network, so that a second run is quick and works
# offline.

# To build the server, to show it at work (quickstart.sh), and to test it (tests/run.sh).
BUILD_PACKAGES="build-essential cmake ninja-build pkg-config
    libmicrohttpd-dev libuv1-dev libjansson-dev libopenblas-dev"
SHOW_PACKAGES="python3 curl dataset-fashion-mnist"
TEST_PACKAGES="check clang libclang-rt-14-dev clang-format python3-numpy python3-torch"

# Prints those of the named packages that are not installed, one a line.
missing_packages() {
    for package in "$@"; do
        state=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) ||
            state=unknown
        [ "$state" = installed ] || echo "$package"
    done
}

# Installs those of the named packages that are missing. apt's own output is shown only when it
# fails.
install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "This script installs what it needs with apt, and there is no apt here. On another" >&2
        echo "system install what these Debian packages hold, and build as README.md says:" >&2
        echo "    $*" >&2
        return 1
    fi
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
        if ! command -v sudo >/dev/null; then
            echo "These packages are missing, and installing them takes root. As root, run:" >&2
            echo "    apt-get update && apt-get install --yes $missing" >&2
            return 1
        fi
    fi
    echo "    apt-get install $missing"
    apt_log=$(mktemp)
    # One word per package, and no word where there is no sudo: neither may be quoted.
    if $as_root apt-get update >"$apt_log" 2>&1 &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends $missing >>"$apt_log" 2>&1; then
        rm -f "$apt_log"
        return 0
    fi
    cat "$apt_log" >&2
    rm -f "$apt_log"
    echo "apt-get could not install: $missing" >&2
    return 1
}
