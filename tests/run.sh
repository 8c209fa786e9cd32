#!/bin/sh
# Runs every test, on a fresh Debian 12 or on any machine that has run this once.
#
#   sh tests/run.sh              all parts
#   sh tests/run.sh PART...      only these: release lint asan tsan clang aarch64 fuzz python parity quickstart
#
# Installs missing packages, builds each part in its own directory below build/ (a second run builds
# only what has changed), and ends with one line of counts. Exit status 0: nothing failed. The output
# of every command is in build/logs; if one fails, the end of its output is shown.
set -u

# Two lanes run at the same time: while tests of one wait or use a single core, the other one builds.
# A lane runs its parts in this order. Parts that use the same build directory are in the same lane.
LANE_1="release parity quickstart python clang fuzz"
LANE_2="lint tsan asan aarch64"
PARTS="$LANE_1 $LANE_2"

# Seconds for each fuzz target; tests/fuzz.sh runs them for longer.
FUZZ_SECONDS=3

# Tests that depend on the instruction set: numbers, and what reads and writes them.
NUMERIC_UNIT_TESTS='activation|attention|bfloats|combine|conv|dispatch|experts|functions|gate|gemm|golden|graph|integers|layer|lengths|math|_moe$|norm|pages|pool|projection|residual|number_list'

# Numbers of the system's calls.
SYSTEM_UNIT_TESTS='_sandbox$'

# Numbers of language models. (What reads their text is built by clang for fuzzing.)
LANGUAGE_UNIT_TESTS='^test_(families|sampler)'

# Tests with several threads; the others cannot race.
THREADED_UNIT_TESTS='team|attention|scheduler|engine|lane|sequences|forward|model|golden|graph|lengths|queue|log|repository|projection|session|stats'
THREADED_INTEGRATION_TESTS='test_access test_batching test_drain test_grpc_hostile test_loops test_mixed test_reload test_trace'

cd "$(dirname "$0")/.." || exit 1
root=$PWD
logs=$root/build/logs
mkdir -p "$logs"
. deploy/packages.sh

# Builds with other options compile much of it once more.
if [ -z "${CMAKE_C_COMPILER_LAUNCHER-}" ]; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_DIR="$root/build/ccache" CCACHE_BASEDIR="$root"
    export CCACHE_NOHASHDIR=1 CCACHE_IGNOREOPTIONS=-Werror
fi

# Debian's own Python has the numpy and PyTorch that apt installs.
python=/usr/bin/python3
# One thread per forward pass, as in the server: OpenBLAS' own threads would compete with the tests.
export OPENBLAS_NUM_THREADS=1
export PYTHONDONTWRITEBYTECODE=1
# Behaviour that is undefined ends a test, as a wrong address does.
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

# One line for each check: "PASSED FAILED SKIPPED". Both lanes append to it.
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT

# --- counting --------------------------------------------------------------------------------------

# Counters read a log and an exit status and print "PASSED FAILED SKIPPED". A command that fails
# without a failure in its log has crashed: that counts as one.

count_one() {
    if [ "$2" -eq 0 ]; then echo 1 0 0; else echo 0 1 0; fi
}

# ctest --verbose with check's summaries: "100%: Checks: 12, Failures: 0, Errors: 0".
count_unit() {
    awk -v status="$2" '
        match($0, /Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/) {
            split(substr($0, RSTART, RLENGTH), n, /[^0-9]+/)
            bad += n[3] + n[4]; good += n[2] - n[3] - n[4]
        }
        /^\t *[0-9]+ - .*\(/ { broken++ }
        END { print good + 0, (status && !bad ? (broken ? broken : 1) : bad + 0), 0 }' "$1"
}

# unittest: "Ran 12 tests in 3s", "FAILED (failures=1, errors=2, skipped=3)" or "OK (skipped=3)".
count_python() {
    awk -v status="$2" '
        function number(word) { return match($0, word "=[0-9]+") ? substr($0, RSTART + length(word) + 1, RLENGTH) + 0 : 0 }
        /^Ran [0-9]+ tests? in/ { ran += $2 }
        /^(FAILED|OK)/ { bad += number("failures") + number("errors"); skipped += number("skipped") }
        END {
            if (status && !bad) bad = 1
            good = ran - bad - skipped
            print (good < 0 ? 0 : good), bad + 0, skipped + 0
        }' "$1"
}

total() { # COLUMN
    awk -v column="$1" '{ sum += $column } END { print sum + 0 }' "$counts"
}

# The table of tests/clients/main.py: a row for each client.
count_clients() {
    awk -v status="$2" '
        / passed \|$/ { good++ } / FAILED \|$/ { bad++ } / skipped: [^|]*\|$/ { skipped++ }
        END { print good + 0, (status && !bad ? 1 : bad + 0), skipped + 0 }' "$1"
}

# A comparison with a library that may be missing prints "skipped: ...".
count_oracle() {
    if grep -q '^skipped' "$1"; then echo 0 0 1; else count_one "$1" "$2"; fi
}

# --- running ---------------------------------------------------------------------------------------

part() {
    echo
    echo "==> $1: $2"
}

# check NAME COUNTER COMMAND...: runs the command, with its output in a log, and counts its tests.
check() {
    name=$1 counter=$2
    shift 2
    began=$(date +%s)
    "$@" >"$logs/$name.log" 2>&1
    status=$?
    took=$(($(date +%s) - began))
    # shellcheck disable=SC2046 # three words
    set -- $("$counter" "$logs/$name.log" "$status")
    echo "$@" >>"$counts"
    printf '    %-24s %5d passed %5d failed %5d skipped %5d s\n' "$name" "$1" "$2" "$3" "$took"
    [ "$2" -eq 0 ] || failure "$name"
}

# Shows the failures in a log, in the words of gcc, check, unittest and the sanitizers, and its end.
# Each line names its log, because the other lane prints too.
failure() { # NAME
    echo "    ---- from $logs/$1.log"
    {
        grep -E '(: |^)(error|FAIL|ERROR|FAILED): |:[FE]:|\*\*\*|runtime error|Sanitizer' "$logs/$1.log" | head -n 30
        echo "..."
        tail -n 40 "$logs/$1.log"
    } | sed "s/^/    $1 | /"
}

# build PRESET [CMAKE ARGUMENT...] [-- TARGET...]: as the preset says, warnings are errors.
build() {
    preset=$1
    shift
    began=$(date +%s)
    arguments=
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        arguments="$arguments $1"
        shift
    done
    [ $# -eq 0 ] || shift
    targets=${*:-all}
    # Neither list is quoted: one word per argument.
    if cmake --preset "$preset" -DMOED_WERROR=ON $arguments >"$logs/build-$preset.log" 2>&1 &&
        cmake --build --preset "$preset" --target $targets >>"$logs/build-$preset.log" 2>&1; then
        printf '    %-63s %5d s\n' "build/$preset" $(($(date +%s) - began))
        return 0
    fi
    echo 0 1 0 >>"$counts"
    echo "    build/$preset: FAILED"
    failure "build-$preset"
    return 1
}

unit_tests() { # BUILD_DIRECTORY [CTEST ARGUMENT...]
    directory=$1
    shift
    $without_aslr ctest --test-dir "$directory" -j 2 --verbose "$@"
}

# Every fourth golden case, where all of them take minutes.
fewer_golden_cases() { # COMMAND...
    GOLDEN_EVERY=4 "$@"
}

# Tests of a server mostly wait, so several modules run at the same time.
INTEGRATION_PROCESSES=4

integration_tests() { # BINARY MODULE...
    binary=$root/$1
    shift
    reports=$(mktemp -d)
    # The inner shell's variables, one word for $WITHOUT_ASLR's program and option each.
    # shellcheck disable=SC2016
    (
        export MOED_BINARY="$binary" PYTHON="$python" REPORTS="$reports" WITHOUT_ASLR="$without_aslr"
        cd tests/integration && printf '%s\n' "$@" | xargs -P $INTEGRATION_PROCESSES -n 1 sh -c \
            '$WITHOUT_ASLR timeout 1200 "$PYTHON" -m unittest -v "$0" >"$REPORTS/$0" 2>&1 || exit 1'
    )
    status=$?
    cat "$reports"/*
    rm -rf "$reports"
    return $status
}

# With two event loops, so that loops share state too, not only compute threads.
threaded_integration_tests() { # BINARY MODULE...
    MOED_TEST_LOOPS=2 integration_tests "$@"
}

# With the generic kernel instead of this machine's best one.
generic_integration_tests() { # BINARY MODULE...
    MOED_TEST_KERNEL=generic integration_tests "$@"
}

# What is installed: the programs, their manual pages and the client library, and nothing else.
INSTALLED="./bin/moectl ./bin/moed ./include/moed_client.h ./lib/libmoed-client.a
    ./lib/libmoed-client.so.VERSION ./lib/pkgconfig/moed-client.pc
    ./share/bash-completion/completions/moectl ./share/bash-completion/completions/moed
    ./share/man/man1/moectl.1 ./share/man/man1/moed.1 ./share/man/man5/moed.conf.5"
installed_files() { # BUILD_DIRECTORY
    prefix=$(mktemp -d)
    cmake --install "$1" --prefix "$prefix" &&
        "$prefix/bin/moed" --version &&
        "$prefix/bin/moectl" --version &&
        found=$(cd "$prefix" && find . -type f | sed -E 's|lib/[a-z0-9_]+-linux-gnu/|lib/|
            s|\.so\.[0-9.]+|.so.VERSION|' | LC_ALL=C sort) &&
        [ "$found" = "$(printf '%s\n' $INSTALLED)" ] &&
        installed_library "$prefix"
    status=$?
    echo "installed: ${found-}"
    rm -rf "$prefix"
    return $status
}

# Checks that a program finds the library through its pkg-config file and runs with it.
installed_library() { # PREFIX
    config=$(dirname "$(find "$1" -name moed-client.pc)")
    printf '%s\n' '#include <moed_client.h>' 'int main(void) {' \
        'return moed_client_new("ftp://", 0, 0) != 0; }' >"$1/program.c"
    # One word per flag.
    # shellcheck disable=SC2046
    cc "$1/program.c" -o "$1/program" $(PKG_CONFIG_PATH=$config pkg-config --cflags --libs moed-client) &&
        LD_LIBRARY_PATH=$(dirname "$config") "$1/program"
}

# These wait longest. They begin first, so that none is left alone at the end.
LONG_MODULES="test_overload test_process test_drain test_tls test_openai_life"

# All but parity, which is about numbers and takes the release build.
integration_modules() {
    printf '%s\n' $LONG_MODULES
    (cd tests/integration && ls test_*.py) | sed 's/\.py$//' |
        grep -v -e '^test_parity' $(printf ' -e ^%s$' $LONG_MODULES)
}

# Names of the files DIRECTORY/PREFIX*.c without their suffix.
targets() { # DIRECTORY PREFIX
    for source in "$1/$2"*.c; do
        [ ! -e "$source" ] || basename "$source" .c
    done
}

fuzz() { # TARGET
    mkdir -p "build/fuzz/corpus/$1"
    seeds=tests/fuzz/corpus/${1#fuzz_}
    [ -d "$seeds" ] || seeds=
    dictionary=tests/fuzz/${1#fuzz_}.dict
    [ -f "$dictionary" ] && dictionary=-dict=$dictionary || dictionary=
    "build/fuzz/$1" -max_total_time=$FUZZ_SECONDS -timeout=10 -rss_limit_mb=2048 \
        $dictionary "build/fuzz/corpus/$1" $seeds
}

# --- parts -----------------------------------------------------------------------------------------

part_release() {
    part release "the build that users run, warnings as errors: unit tests, golden vectors"
    build release -DMOED_TESTS=ON || return
    check release-unit count_unit unit_tests build/release
    check release-generic count_python generic_integration_tests build/release/moed test_golden
    check openai-client count_python openai_client_tests
    check triton-client count_python triton_client_tests
    check other-clients count_clients sh tests/clients/run.sh curl java
    check install count_one installed_files build/release
}

part_lint() {
    part lint "includes, circles, sizes, format"
    for rule in includes circles sizes format dockerfile versions; do
        check lint-$rule count_one sh tests/lint/$rule.sh
    done
}

part_asan() {
    part asan "address and undefined-behaviour sanitizers: unit and integration tests"
    build asan -DMOED_TESTS=ON -DMOED_NATIVE=ON || return
    check asan-unit count_unit fewer_golden_cases unit_tests build/asan
    check asan-integration count_python integration_tests build/asan/moed $(integration_modules)
}

part_tsan() {
    part tsan "thread sanitizer: tests with several threads"
    threaded=$(targets tests/unit test_ | grep -E "$THREADED_UNIT_TESTS")
    build tsan -DMOED_TESTS=ON -DMOED_NATIVE=ON -- moed $threaded || return
    check tsan-unit count_unit fewer_golden_cases unit_tests build/tsan --tests-regex "$THREADED_UNIT_TESTS"
    check tsan-integration count_python threaded_integration_tests build/tsan/moed $THREADED_INTEGRATION_TESTS
}

part_clang() {
    part clang "the other compiler, warnings as errors: numbers"
    compiled=$(targets tests/unit test_ | grep -E "$NUMERIC_UNIT_TESTS|$LANGUAGE_UNIT_TESTS")
    build clang -DMOED_TESTS=ON -DMOED_NATIVE=ON -- moed moectl $compiled || return
    check clang-unit count_unit unit_tests build/clang --tests-regex "$NUMERIC_UNIT_TESTS|$LANGUAGE_UNIT_TESTS"
}

# Needs arm64 packages, which some machines cannot install beside their own.
part_aarch64() {
    part aarch64 "cross-compiled, under QEMU: numbers on NEON, calls of the system"
    if ! $has_aarch64; then
        echo 0 0 1 >>"$counts"
        echo "    skipped: no arm64 packages"
        return
    fi
    of_it="$NUMERIC_UNIT_TESTS|$SYSTEM_UNIT_TESTS"
    numeric=$(targets tests/unit test_ | grep -E "$of_it")
    build aarch64 -DMOED_TESTS=ON -- moed $numeric || return
    check aarch64-unit count_unit fewer_golden_cases unit_tests build/aarch64 --tests-regex "$of_it"
}

part_fuzz() {
    part fuzz "libFuzzer on everything that reads untrusted bytes, $FUZZ_SECONDS s each"
    build fuzz -DMOED_TESTS=ON -- $(targets tests/fuzz fuzz_) || return
    for target in $(targets tests/fuzz fuzz_); do
        check "$target" count_one fuzz "$target"
    done
}

# The C engine answers exports too, with a build that exists.
python_tests() {
    for binary in build/release/moed build/asan/moed; do
        [ ! -x "$binary" ] || break
    done
    (cd clients/python && MOED_BINARY=$root/$binary "$python" -m unittest discover -v -s tests -t .)
}

# ruff and mypy come from PyPI, which needs a network.
python_lint() {
    tools=build/python-lint
    [ -x $tools/bin/mypy ] || {
        python3 -m venv $tools && $tools/bin/pip install --quiet ruff==0.17.6 mypy==2.4.1 numpy
    } || { rm -rf $tools && echo "skipped: no ruff and mypy, PyPI cannot be reached" && return; }
    tools=$root/$tools/bin
    (cd clients/python && "$tools/ruff" check . && "$tools/mypy")
}

# Python with the tokenizers library and jinja2, if PyPI can be reached; Debian has no tokenizers.
oracle_python() {
    build/oracles/bin/python -c 'import tokenizers, jinja2' 2>/dev/null || {
        "$python" -m venv build/oracles &&
            build/oracles/bin/pip install --quiet tokenizers==0.23.3 jinja2==3.1.6
    } >/dev/null 2>&1 || rm -rf build/oracles
    if [ -x build/oracles/bin/python ]; then echo build/oracles/bin/python; else echo "$python"; fi
}

# Python with OpenAI's client, if PyPI can be reached; without it the tests are skipped.
openai_python() {
    build/openai/bin/python -c 'import openai, numpy' 2>/dev/null || {
        "$python" -m venv --system-site-packages build/openai &&
            build/openai/bin/pip install --quiet openai==3.57.0
    } >/dev/null 2>&1 || rm -rf build/openai
    if [ -x build/openai/bin/python ]; then echo "$root/build/openai/bin/python"; else echo "$python"; fi
}

openai_client_tests() {
    client=$(openai_python)
    (cd tests/integration && MOED_BINARY=$root/build/release/moed "$client" -m unittest -v test_openai_client)
}

# Python with Triton's client, likewise.
triton_python() {
    build/tritonclient/bin/python -c 'import tritonclient.grpc' 2>/dev/null || {
        "$python" -m venv --system-site-packages build/tritonclient &&
            build/tritonclient/bin/pip install --quiet 'tritonclient[grpc]==2.61.0'
    } >/dev/null 2>&1 || rm -rf build/tritonclient
    if [ -x build/tritonclient/bin/python ]; then echo "$root/build/tritonclient/bin/python"; else echo "$python"; fi
}

triton_client_tests() {
    client=$(triton_python)
    (cd tests/integration && MOED_BINARY=$root/build/release/moed "$client" -m unittest -v test_grpc)
}

part_python() {
    part python "the Python package; the golden vectors match their reference"
    check python count_python python_tests
    check python-lint count_oracle python_lint
    check golden-data count_one "$python" tests/golden/generate.py --check
    build release -DMOED_TESTS=ON -- text_probe || return
    check tokenizers count_oracle "$(oracle_python)" tests/text/compare.py --step 101 --strings 200
    check templates count_oracle "$(oracle_python)" tests/text/compare_templates.py
}

part_parity() {
    part parity "every recipe's model over HTTP against PyTorch"
    build release -DMOED_TESTS=ON || return
    check parity count_python integration_tests build/release/moed test_parity test_parity_language
    grep '^parity: ' "$logs/parity.log" | sed 's/^parity: /    /'
}

part_quickstart() {
    part quickstart "the first command of the README"
    check quickstart count_one sh deploy/quickstart.sh --once
}

# --- all parts -------------------------------------------------------------------------------------

is_asked() { # PART
    case " $asked " in
    *" $1 "*) ;;
    *) return 1 ;;
    esac
}

lane() { # PART...
    for lane_part in "$@"; do
        ! is_asked "$lane_part" || "part_$lane_part"
    done
    return 0
}

# A lane that ends early fails the run: its other parts have not run.
await_lane() { # PID
    wait "$1" && return
    echo "a lane of tests ended with status $?" >&2
    echo 0 1 0 >>"$counts"
}

for name in "$@"; do
    case " $PARTS " in
    *" $name "*) ;;
    *)
        echo "unknown part '$name'; there are: $PARTS" >&2
        exit 2
        ;;
    esac
done
asked=${*:-$PARTS}

all_began=$(date +%s)
part packages "missing compilers, libraries and data"
install_packages $BUILD_PACKAGES $SHOW_PACKAGES $TEST_PACKAGES || exit 1
has_aarch64=false
if is_asked aarch64 && install_foreign_packages arm64 $AARCH64_PACKAGES; then
    has_aarch64=true
fi

# Thread sanitizer cannot map its shadow memory if the kernel randomises addresses too much.
without_aslr=
! setarch --addr-no-randomize true 2>/dev/null || without_aslr="setarch --addr-no-randomize"

# Ctrl-C does not reach background jobs: both lanes and their commands are ended here.
trap 'trap "" TERM; kill 0; exit 130' INT TERM HUP
lane $LANE_1 &
lane_1=$!
lane $LANE_2 &
lane_2=$!
await_lane $lane_1
await_lane $lane_2

passed=$(total 1) failed=$(total 2) skipped=$(total 3)
echo
echo "$(($(date +%s) - all_began)) s in all"
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
