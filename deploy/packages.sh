# Installs missing Debian packages and shows the progress of long commands; sourced by
# quickstart.sh and tests/run.sh.
#
# dpkg, never the network, says what is installed, so a second run is quick and works offline.

# To build the server and the C client, to show the server at work (quickstart.sh), and to test it all
# (tests/run.sh).
BUILD_PACKAGES="build-essential cmake ninja-build pkg-config
    libmicrohttpd-dev libgnutls28-dev libnghttp2-dev libuv1-dev libjansson-dev libutf8proc-dev libopenblas-dev libcurl4-openssl-dev zlib1g-dev"
SHOW_PACKAGES="python3 curl dataset-fashion-mnist"
TEST_PACKAGES="libprotobuf-c-dev protobuf-c-compiler ccache check clang libclang-rt-14-dev clang-format python3-numpy python3-torch prometheus"
# To build for AArch64 and run the result here.
AARCH64_PACKAGES="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    libmicrohttpd-dev:arm64 libgnutls28-dev:arm64 libnghttp2-dev:arm64 libuv1-dev:arm64 libjansson-dev:arm64 libutf8proc-dev:arm64 libopenblas-dev:arm64 zlib1g-dev:arm64 check:arm64"

# Seconds between lines of progress without a terminal.
PROGRESS_SECONDS=15

# Shows the last line of a log and the time so far: on a terminal in one line that changes, elsewhere
# as a new line now and then. Runs until it is killed or this shell has ended.
watch_log() { # LOG
    began=$(date +%s)
    next=$PROGRESS_SECONDS
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        elapsed=$(($(date +%s) - began))
        line=$(tail -n 1 "$1" | sed 's|CMakeFiles/[^/]*/||' | cut -c 1-70)
        if [ -t 1 ]; then
            printf '\r\033[K    %d:%02d  %s' $((elapsed / 60)) $((elapsed % 60)) "$line"
        elif [ "$elapsed" -ge "$next" ]; then
            printf '    %d:%02d  %s\n' $((elapsed / 60)) $((elapsed % 60)) "$line"
            next=$((elapsed + PROGRESS_SECONDS))
        fi
    done
}

# Runs a command with its output in a log, and shows its progress. The command runs in the
# foreground, so Ctrl-C ends it.
with_progress() { # LOG COMMAND...
    progress_log=$1
    shift
    : >"$progress_log"
    watch_log "$progress_log" &
    watcher=$!
    result=0
    "$@" >"$progress_log" 2>&1 || result=$?
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null || true
    [ ! -t 1 ] || printf '\r\033[K'
    return $result
}

# Prints the named packages that are not installed, one per line.
missing_packages() {
    native=$(dpkg --print-architecture)
    for package in "$@"; do
        case $package in
        *:*) wanted=${package#*:} ;;
        *) wanted=$native ;;
        esac
        dpkg-query --show --showformat '${Architecture} ${db:Status-Status}\n' "$package" 2>/dev/null |
            grep -qxE "(all|$wanted) installed" || echo "$package"
    done
}

# Sets as_root to the prefix of commands that need root.
become_root() { # WHAT_FOR
    as_root=
    [ "$(id -u)" -ne 0 ] || return 0
    if ! command -v sudo >/dev/null; then
        echo "This takes root, and there is no sudo. As root, run:" >&2
        echo "    $1" >&2
        return 1
    fi
    as_root=sudo
    sudo -v # asks for the password before progress is shown
}

update_and_install() { # PACKAGE...
    $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends "$@"
}

# Installs the named packages that are missing. Shows apt's output only if it fails.
install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "This script installs what it needs with apt, and there is no apt here. On another" >&2
        echo "system install what these Debian packages hold, and build as README.md says:" >&2
        echo "    $*" >&2
        return 1
    fi
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    become_root "apt-get update && apt-get install --yes $missing" || return 1
    echo "    apt-get install $missing"
    apt_log=$(mktemp)
    # One word per package.
    # shellcheck disable=SC2086
    if with_progress "$apt_log" update_and_install $missing; then
        rm -f "$apt_log"
        return 0
    fi
    cat "$apt_log" >&2
    rm -f "$apt_log"
    echo "apt-get could not install: $missing" >&2
    return 1
}

# Like install_packages, for another architecture, which dpkg must know first.
install_foreign_packages() { # ARCHITECTURE PACKAGE...
    architecture=$1
    shift
    [ -n "$(missing_packages "$@")" ] || return 0
    become_root "dpkg --add-architecture $architecture" &&
        $as_root dpkg --add-architecture "$architecture" &&
        install_packages "$@"
}
