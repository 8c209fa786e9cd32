#!/bin/sh
# Every test there is, on a fresh Debian 12 or any machine that has been through this once.
#
#   sh tests/run.sh              all of it
#   sh tests/run.sh PART...      only these parts: release lint asan tsan clang aarch64 fuzz python parity quickstart
#
# Installs what is missing, builds each part in its own directory below build/ (the second run only
# builds what has changed), and closes with one line of counts. Exit status 0: nothing failed. What a
# command wrote is in build/logs; of one that failed the end is shown.
set -u

PARTS="release lint asan tsan clang aarch64 fuzz python parity quickstart"

# Each fuzz target for so long here; tests/fuzz.sh runs them for as long as one likes.
FUZZ_SECONDS=10

# What the instruction set can change: numbers, and what reads and writes them.
NUMERIC_UNIT_TESTS='activation|combine|conv|dispatch|experts|gate|gemm|golden|layer|moe|norm|pool|residual|number_list'

# The tests in which threads meet: the others have nothing to race with.
THREADED_UNIT_TESTS='team|scheduler|engine|lane|forward|model|golden|gemm|queue|log|session'
THREADED_INTEGRATION_TESTS='test_batching test_drain test_loops test_reload'

cd "$(dirname "$0")/.." || exit 1
root=$PWD
logs=$root/build/logs
mkdir -p "$logs"
. deploy/packages.sh

# Debian's own Python: it is the one that apt gives numpy and PyTorch.
python=/usr/bin/python3
# One thread per forward pass, as the server has it; OpenBLAS' own threads would only get in the way.
export OPENBLAS_NUM_THREADS=1
export PYTHONDONTWRITEBYTECODE=1

passed=0
failed=0
skipped=0

# --- counting --------------------------------------------------------------------------------------

# Counters read a log and an exit status and print "PASSED FAILED SKIPPED". A command that failed
# without a failure in its log crashed: that counts as one.

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

# A comparison with a library that may not be there: "skipped: ...".
count_oracle() {
    if grep -q '^skipped' "$1"; then echo 0 0 1; else count_one "$1" "$2"; fi
}

# --- running ---------------------------------------------------------------------------------------

part() {
    echo
    echo "==> $1: $2"
}

# check NAME COUNTER COMMAND...: runs the command into its log and counts what it tested.
check() {
    name=$1 counter=$2
    shift 2
    began=$(date +%s)
    "$@" >"$logs/$name.log" 2>&1
    status=$?
    took=$(($(date +%s) - began))
    # shellcheck disable=SC2046 # three words
    set -- $("$counter" "$logs/$name.log" "$status")
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    printf '    %-24s %5d passed %5d failed %5d skipped %5d s\n' "$name" "$1" "$2" "$3" "$took"
    [ "$2" -eq 0 ] || failure "$logs/$name.log"
}

# What a failed log says of the failures, as gcc, check, unittest and the sanitizers put it; its end.
failure() {
    echo "    ---- from $1"
    {
        grep -E '(: |^)(error|FAIL|ERROR|FAILED): |:[FE]:|\*\*\*|runtime error|Sanitizer' "$1" | head -n 30
        echo "..."
        tail -n 40 "$1"
    } | sed 's/^/    | /'
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
    failed=$((failed + 1))
    echo "    build/$preset: FAILED"
    failure "$logs/build-$preset.log"
    return 1
}

unit_tests() { # BUILD_DIRECTORY [CTEST ARGUMENT...]
    directory=$1
    shift
    $without_aslr ctest --test-dir "$directory" -j 2 --verbose "$@"
}

integration_tests() { # BINARY MODULE...
    binary=$root/$1
    shift
    (cd tests/integration && MOED_BINARY=$binary $without_aslr "$python" -m unittest -v "$@")
}

# Servers whose loops meet, beside the compute threads.
threaded_integration_tests() { # BINARY MODULE...
    MOED_TEST_LOOPS=2 integration_tests "$@"
}

# Another kernel than the best one of this machine.
generic_integration_tests() { # BINARY MODULE...
    MOED_TEST_KERNEL=generic integration_tests "$@"
}

# The programs, their manual pages and the client library, and nothing else, land where packages look
# for them.
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

# A program finds the library by its pkg-config file, and runs with it.
installed_library() { # PREFIX
    config=$(dirname "$(find "$1" -name moed-client.pc)")
    printf '%s\n' '#include <moed_client.h>' 'int main(void) {' \
        'return moed_client_new("ftp://", 0, 0) != 0; }' >"$1/program.c"
    # One word per flag.
    # shellcheck disable=SC2046
    cc "$1/program.c" -o "$1/program" $(PKG_CONFIG_PATH=$config pkg-config --cflags --libs moed-client) &&
        LD_LIBRARY_PATH=$(dirname "$config") "$1/program"
}

# All but parity, which is about numbers and takes the release build.
integration_modules() {
    (cd tests/integration && ls test_*.py) | grep -v '^test_parity' | sed 's/\.py$//'
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
    part release "what one runs, warnings as errors: unit tests, golden vectors"
    build release -DMOED_TESTS=ON || return
    check release-unit count_unit unit_tests build/release
    check release-generic count_python generic_integration_tests build/release/moed test_golden
    check install count_one installed_files build/release
}

part_lint() {
    part lint "who includes what, circles, sizes, format"
    for rule in includes circles sizes format dockerfile versions; do
        check lint-$rule count_one sh tests/lint/$rule.sh
    done
}

part_asan() {
    part asan "address and undefined-behaviour sanitizers: unit tests, then the server from outside"
    build asan -DMOED_TESTS=ON || return
    check asan-unit count_unit unit_tests build/asan
    check asan-integration count_python integration_tests build/asan/moed $(integration_modules)
}

part_tsan() {
    part tsan "thread sanitizer: where threads meet"
    threaded=$(targets tests/unit test_ | grep -E "$THREADED_UNIT_TESTS")
    build tsan -DMOED_TESTS=ON -- moed $threaded || return
    check tsan-unit count_unit unit_tests build/tsan --tests-regex "$THREADED_UNIT_TESTS"
    check tsan-integration count_python threaded_integration_tests build/tsan/moed $THREADED_INTEGRATION_TESTS
}

part_clang() {
    part clang "the other compiler, warnings as errors: unit tests"
    build clang -DMOED_TESTS=ON || return
    check clang-unit count_unit unit_tests build/clang
}

# Where arm64 packages cannot be installed beside this machine's own there is nothing to run.
part_aarch64() {
    part aarch64 "cross-compiled, under QEMU: numbers on NEON"
    if ! install_foreign_packages arm64 $AARCH64_PACKAGES; then
        skipped=$((skipped + 1))
        echo "    skipped: no arm64 packages"
        return
    fi
    numeric=$(targets tests/unit test_ | grep -E "$NUMERIC_UNIT_TESTS")
    build aarch64 -DMOED_TESTS=ON -- moed $numeric || return
    check aarch64-unit count_unit unit_tests build/aarch64 --tests-regex "$NUMERIC_UNIT_TESTS"
}

part_fuzz() {
    part fuzz "libFuzzer on everything that reads a stranger's bytes, $FUZZ_SECONDS s each"
    build fuzz -DMOED_TESTS=ON -- $(targets tests/fuzz fuzz_) || return
    for target in $(targets tests/fuzz fuzz_); do
        check "$target" count_one fuzz "$target"
    done
}

# Exports are also answered by the C engine, of whichever build there is.
python_tests() {
    for binary in build/release/moed build/asan/moed; do
        [ ! -x "$binary" ] || break
    done
    (cd clients/python && MOED_BINARY=$root/$binary "$python" -m unittest discover -v -s tests -t .)
}

# ruff and mypy come from PyPI: without a network there are none.
python_lint() {
    tools=build/python-lint
    [ -x $tools/bin/mypy ] || {
        python3 -m venv $tools && $tools/bin/pip install --quiet ruff mypy numpy
    } || { rm -rf $tools && echo "no ruff and mypy: PyPI cannot be reached" && return; }
    tools=$root/$tools/bin
    (cd clients/python && "$tools/ruff" check . && "$tools/mypy")
}

# The tokenizers library and jinja2, where PyPI can be reached; Debian has no tokenizers.
oracle_python() {
    [ -x build/oracles/bin/python ] || {
        "$python" -m venv build/oracles &&
            build/oracles/bin/pip install --quiet tokenizers==0.23.3 jinja2==3.1.6
    } >/dev/null 2>&1 || rm -rf build/oracles
    if [ -x build/oracles/bin/python ]; then echo build/oracles/bin/python; else echo "$python"; fi
}

part_python() {
    part python "the Python package; the golden vectors are what the reference makes of their cases"
    check python count_python python_tests
    check python-lint count_one python_lint
    ! grep '^no ruff' "$logs/python-lint.log" || skipped=$((skipped + 1))
    check golden-data count_one "$python" tests/golden/generate.py --check
    build release -DMOED_TESTS=ON -- text_probe || return
    check tokenizers count_oracle "$(oracle_python)" tests/text/compare.py --step 101 --strings 200
}

part_parity() {
    part parity "every recipe's model over HTTP against PyTorch"
    build release -DMOED_TESTS=ON || return
    check parity count_python integration_tests build/release/moed test_parity
    grep '^parity: ' "$logs/parity.log" | sed 's/^parity: /    /'
}

part_quickstart() {
    part quickstart "the first command of the README"
    check quickstart count_one sh deploy/quickstart.sh --once
}

# --- all of it -------------------------------------------------------------------------------------

for name in "$@"; do
    case " $PARTS " in
    *" $name "*) ;;
    *)
        echo "unknown part '$name'; there are: $PARTS" >&2
        exit 2
        ;;
    esac
done

all_began=$(date +%s)
part packages "what is missing of compilers, libraries and data"
install_packages $BUILD_PACKAGES $SHOW_PACKAGES $TEST_PACKAGES || exit 1

# Thread sanitizer cannot map its shadow where the kernel randomises addresses a lot.
without_aslr=
! setarch --addr-no-randomize true 2>/dev/null || without_aslr="setarch --addr-no-randomize"

for name in ${*:-$PARTS}; do
    "part_$name"
done

echo
echo "$(($(date +%s) - all_began)) s in all"
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
