#!/bin/sh
# Fuzzes every target, or only TARGET, for MINUTES each (default 10), and ends with a table:
#
#   sh tests/fuzz.sh [MINUTES [TARGET]]
#
# Crashes are written to build/fuzz/crashes; commit them to tests/fuzz/corpus with the fix.
# Inputs that reach new code are kept in build/fuzz/corpus, what libFuzzer says in build/fuzz/logs.
set -eu
minutes=${1:-10}
only=${2:-}
cd "$(dirname "$0")/.."

# What a log says of its run: executions, covered edges and features, inputs, the longest input's seconds.
row() {
    awk -v target="$1" '
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") edges = $(i + 1); if ($i == "ft:") features = $(i + 1)
                                              if ($i == "corp:") split($(i + 1), inputs, "/") } }
        /number_of_executed_units/ { runs = $2 }
        /slowest_unit_time_sec/ { slowest = $2 }
        /ERROR: |: runtime error: / { faults++ }
        END { printf "| %s | %s | %s | %s | %s | %s | %d |\n", target, runs, edges, features, inputs[1], slowest, faults }
    ' "build/fuzz/logs/$1"
}

# Behaviour that is undefined is a fault, as a wrong address is.
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

cmake --preset fuzz -DMOED_TESTS=ON >/dev/null
mkdir -p build/fuzz/crashes build/fuzz/logs
status=0
ran=
for source in tests/fuzz/fuzz_*.c; do
    target=$(basename "$source" .c)
    [ -z "$only" ] || [ "$only" = "$target" ] || continue
    cmake --build --preset fuzz --target "$target" >/dev/null
    corpus=build/fuzz/corpus/$target
    mkdir -p "$corpus"
    seeds=tests/fuzz/corpus/${target#fuzz_}
    [ -d "$seeds" ] || seeds=
    dictionary=tests/fuzz/${target#fuzz_}.dict
    [ -f "$dictionary" ] && dictionary=-dict=$dictionary || dictionary=
    echo "==> $target for $minutes min"
    "build/fuzz/$target" -max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="build/fuzz/crashes/$target-" \
        $dictionary "$corpus" $seeds >"build/fuzz/logs/$target" 2>&1 || status=1
    tail -n 20 "build/fuzz/logs/$target" | grep -E '^(==|stat::|SUMMARY)' || true
    ran="$ran $target"
done
echo "| target | executions | edges | features | inputs kept | slowest, s | faults |"
echo "| --- | --- | --- | --- | --- | --- | --- |"
for target in $ran; do
    row "$target"
done
exit $status
