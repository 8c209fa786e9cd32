#!/bin/sh
# Fuzzes every target, or only TARGET, for MINUTES each (default 10):
#
#   sh tests/fuzz.sh [MINUTES [TARGET]]
#
# Crashes are written to build/fuzz/crashes; commit them to tests/fuzz/corpus with the fix.
# Inputs that reach new code are kept in build/fuzz/corpus.
set -eu
minutes=${1:-10}
only=${2:-}
cd "$(dirname "$0")/.."
cmake --preset fuzz -DMOED_TESTS=ON >/dev/null
mkdir -p build/fuzz/crashes
status=0
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
        $dictionary "$corpus" $seeds || status=1
done
exit $status
