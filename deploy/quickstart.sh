#!/bin/sh
# From a bare Debian 12 to predictions with their routing: installs missing packages, builds, serves
# the shipped models on this machine, classifies real images and streams text.
#
#   sh deploy/quickstart.sh          then serves until Ctrl-C, on port 8080 if that is free
#   sh deploy/quickstart.sh --once   stops the server after the demonstration; takes any free port
#
# It builds moed and moectl in build/release, as the preset does, and keeps that directory's other settings.
set -eu

# Loading the shipped models takes a fraction of a second; a busy machine may need longer.
START_SECONDS=30
# The one that README.md and the clients name.
PORT=8080

root=$(cd "$(dirname "$0")/.." && pwd)
binaries=$root/build/release
server=
log=

. "$root/deploy/packages.sh"

step() {
    echo
    echo "==> $*"
}

fail() {
    echo >&2
    echo "quickstart: $*" >&2
    exit 1
}

# On SIGTERM the server answers all accepted requests before it exits with 0.
stop_server() {
    status=0
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" || status=$?
        server=
    fi
    [ -z "$log" ] || rm -f "$log"
    return $status
}

# Says so last: where the terminal is closed or nobody reads any more, each word fails.
interrupted() {
    trap - EXIT
    trap '' PIPE
    stop_server || fail "the server ended with status $?"
    { echo && echo "The server has answered everything and stopped."; } 2>/dev/null || true
    exit 0
}

# Announces the steps before the first long one.
announce() {
    echo "moed, from here to predictions:"
    count=$(missing_packages $BUILD_PACKAGES $SHOW_PACKAGES | wc -l)
    if [ "$count" -eq 0 ]; then
        echo "  1. Packages: everything needed is installed."
    else
        [ "$count" -eq 1 ] && what="1 missing package and what it needs" ||
            what="$count missing packages and what they need"
        echo "  1. Install $what, with apt: up to 300 MB, minutes."
    fi
    if [ -x "$binaries/moed" ]; then
        echo "  2. Build what has changed."
    else
        echo "  2. Build the server and moectl: about a minute on two idle cores."
    fi
    echo "  3. Serve the models in deploy/models; classify images, and let a language model speak: seconds."
    $once || echo "  4. Serve until Ctrl-C; use another terminal meanwhile."
}

# Tests need more packages, so a new directory is without. One that is there may have them: it is not changed, but
# for moectl.
compile() {
    without=-DMOED_TESTS=OFF
    [ ! -f "$binaries/CMakeCache.txt" ] || without=
    (cd "$root" && cmake --preset release $without -DMOED_CLIENT=ON &&
        cmake --build --preset release --target moed moectl)
}

# CMake keeps whole paths: it builds nothing in the build directory of a checkout that was copied or renamed.
refuse_moved() {
    cache=$binaries/CMakeCache.txt
    [ -f "$cache" ] || return 0
    made_for=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$cache")
    [ -z "$made_for" ] || [ "$made_for" -ef "$root" ] ||
        fail "build/release was made for $made_for, and this is $root. Remove it, and run this again: rm -r $(quoted "$binaries")"
}

build() {
    refuse_moved
    build_log=$root/build/quickstart.log
    mkdir -p "$root/build"
    with_progress "$build_log" compile && return
    tail -n 40 "$build_log" >&2
    fail "the build failed; its whole output is in $build_log"
}

# The server runs in its own session, so that the terminal's Ctrl-C reaches only this script, which then stops it once.
launch() { # PORT
    setsid "$binaries/moed" serve --models "$root/deploy/models" --port "$1" --log-level warning 2>"$log" &
    server=$!
}

# Starts the server and waits for the line with its address. If another holds the port, any free one will do.
start_server() { # PORT
    log=$(mktemp)
    launch "$1"
    deadline=$(($(date +%s) + START_SECONDS))
    while ! url=$(sed -n 's/^listening on //p' "$log") || [ -z "$url" ]; do
        if ! kill -0 "$server" 2>/dev/null; then
            if [ "$1" -ne 0 ] && grep -q "Address already in use" "$log"; then
                rm -f "$log"
                start_server 0
                return
            fi
            cat "$log" >&2
            fail "the server did not start"
        fi
        [ "$(date +%s)" -lt "$deadline" ] || fail "the server is not up after $START_SECONDS s"
        sleep 0.05
    done
}

# What the README's commands have to say instead.
show_other_port() {
    echo "    Port $PORT is taken, so this is another one. README.md's commands ask port $PORT: write $url"
    echo "    instead of http://127.0.0.1:$PORT, give speak.py and classify.py --url $url, and for moectl: export MOED_URL=$url"
}

# A name as a shell reads it, whatever is in it.
quoted() {
    case $1 in
    *[!A-Za-z0-9_./-]*) printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")" ;;
    *) printf %s "$1" ;;
    esac
}

show_where_to_go() {
    step "The server is at $url; some things to try in another terminal"
    cat <<END
    $url/        in a browser: the dashboard, live; choose tiny-lm and talk to it
    cd $(quoted "$root")
    curl $url/v1/models
    curl $url/v2/models/fashion-mnist
    curl $url/v2/models/fashion-mnist/routing
    curl $url/metrics
    curl $url/v1/models/fashion-mnist:predict -d @deploy/example.json
    python3 deploy/classify.py --url $url --first 4242 fashion-mnist
    python3 deploy/speak.py --url $url tiny-lm "In the beginning"
    build/release/moectl routing fashion-mnist --url $url
    build/release/moed help serve
END
}

once=false
case ${1-} in
"") ;;
--once) once=true ;;
*) fail "unknown argument '$1'; usage: sh deploy/quickstart.sh [--once]" ;;
esac

announce
step "Packages: a compiler, the libraries, and the Fashion-MNIST images to show"
install_packages $BUILD_PACKAGES $SHOW_PACKAGES || fail "packages are missing"
echo "    all installed"

step "Build the server and moectl in build/release"
build
echo "    $("$binaries/moed" --version)"

step "Serve the models in deploy/models"
trap stop_server EXIT
trap interrupted INT TERM HUP PIPE
$once && port=0 || port=$PORT
start_server "$port"
echo "    listening on $url"
case $port,$url in
0,* | *":$PORT") ;;
*) show_other_port ;;
esac

step "Classify images from the Fashion-MNIST test set"
python3 "$root/deploy/classify.py" --url "$url" fashion-mnist fashion-mnist-attentive ||
    fail "no predictions"

step "Let a toy language model speak: three kinds of text, and the experts that wrote them"
python3 "$root/deploy/speak.py" --url "$url" tiny-lm || fail "no answer"

if $once; then
    trap - EXIT
    stop_server || fail "the server ended with status $?"
    step "The server has answered everything and stopped"
    exit 0
fi
show_where_to_go
step "Serving at $url until Ctrl-C"
# Not 'wait' alone: a signal ends it, runs its trap, and must not be taken for the server's end.
wait "$server" || fail "the server ended with status $?: $(cat "$log")"
