#!/bin/sh
# From a bare Debian 12 to predictions with their routing: installs missing packages, builds, serves
# the shipped models on a free port of this machine, classifies real images and streams text.
#
#   sh deploy/quickstart.sh          then serves until Ctrl-C
#   sh deploy/quickstart.sh --once   stops the server after the demonstration
#
# It has its own build directory, build/quickstart, and disturbs no other.
set -eu

# Loading the shipped models takes a fraction of a second; a busy machine may need longer.
START_SECONDS=30

root=$(cd "$(dirname "$0")/.." && pwd)
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

interrupted() {
    trap - EXIT
    echo
    stop_server || fail "the server ended with status $?"
    echo "The server has answered everything and stopped."
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
    if [ -x "$root/build/quickstart/moed" ]; then
        echo "  2. Build what has changed."
    else
        echo "  2. Build the server: about a minute on two idle cores."
    fi
    echo "  3. Serve the models in deploy/models; classify images, and let a language model speak: seconds."
}

compile() {
    (cd "$root" && cmake --preset release -B build/quickstart -DMOED_TESTS=OFF &&
        cmake --build build/quickstart --target moed)
}

build() {
    build_log=$root/build/quickstart.log
    mkdir -p "$root/build"
    with_progress "$build_log" compile && return
    tail -n 40 "$build_log" >&2
    fail "the build failed; its whole output is in $build_log"
}

# Starts the server and waits for the line with its address. The server runs in its own session, so
# that the terminal's Ctrl-C reaches only this script, which then stops it once.
start_server() {
    log=$(mktemp)
    setsid "$root/build/quickstart/moed" serve --models "$root/deploy/models" --port 0 \
        --log-level warning 2>"$log" &
    server=$!
    deadline=$(($(date +%s) + START_SECONDS))
    while ! url=$(sed -n 's/^listening on //p' "$log") || [ -z "$url" ]; do
        if ! kill -0 "$server" 2>/dev/null; then
            cat "$log" >&2
            fail "the server did not start"
        fi
        [ "$(date +%s)" -lt "$deadline" ] || fail "the server is not up after $START_SECONDS s"
        sleep 0.05
    done
}

show_where_to_go() {
    step "The server is at $url; some things to try"
    cat <<END
    $url/        in a browser: the dashboard, live; choose tiny-lm and talk to it
    curl $url/v1/models
    curl $url/v2/models/fashion-mnist
    curl $url/v2/models/fashion-mnist/routing
    curl $url/metrics
    curl $url/v1/models/fashion-mnist:predict -d @$root/deploy/example.json
    python3 $root/deploy/classify.py --url $url --first 4242 fashion-mnist
    python3 $root/deploy/speak.py --url $url tiny-lm "In the beginning"
    $root/build/quickstart/moed help serve
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

step "Build the server in build/quickstart"
build
echo "    $("$root/build/quickstart/moed" --version)"

step "Serve the models in deploy/models"
trap stop_server EXIT
trap interrupted INT TERM HUP
start_server
echo "    listening on $url"

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
step "Serving until Ctrl-C"
# Not 'wait' alone: a signal ends it, runs its trap, and must not be taken for the server's end.
wait "$server" || fail "the server ended with status $?: $(cat "$log")"
