#!/bin/sh
# The benchmark: everything in one run on one machine, as tables, pictures and JSON.
#
#   sh tests/bench/run.sh [--quick] [--rounds N] [--out DIR] [--only gemm|conv|moe|http|memory]...
#
# Installs what is missing, builds build/bench, and writes DIR/results.md, results.json and *.png (DIR:
# build/bench/results). Wants an otherwise idle machine, and says so when it has none. What is measured,
# and against what, is told at the top of each bench_*.py and in results.md.
set -eu

BENCH_PACKAGES="check wrk libdnnl-dev libxsmm-dev python3-numpy python3-torch python3-fastapi python3-uvicorn
    python3-matplotlib"

bench=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$bench/../.." && pwd)
. "$root/deploy/packages.sh"
export PYTHONDONTWRITEBYTECODE=1
# One thread per contender: threads are compared nowhere, and a BLAS with its own would escape the clock.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

echo "==> packages"
# One word per package.
install_packages $BUILD_PACKAGES $BENCH_PACKAGES

echo "==> build/bench"
log=$root/build/bench.log
mkdir -p "$root/build"
if ! (cd "$root" && cmake --preset release -B build/bench -DMOED_TESTS=ON -DMOED_BENCH=ON &&
    cmake --build build/bench --target moed bench_gemm bench_model bench_ceiling) >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    exit 1
fi

echo "==> measuring"
# Debian's own Python: it is the one that apt gives PyTorch and the rest.
PYTHONPATH=$root/clients/python exec /usr/bin/python3 "$bench/main.py" "$@"
