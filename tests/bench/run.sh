#!/bin/sh
# Runs all benchmarks on one machine; results are tables, pictures and JSON.
#
#   sh tests/bench/run.sh [--quick] [--rounds N] [--out DIR] [--only gemm|conv|depthwise|ops|moe|http|memory]...
#
# Installs missing packages, builds build/bench, and writes DIR/results.md, results.json and *.png (DIR:
# build/bench/results). Needs an otherwise idle machine, and warns if it is not. The top of each
# bench_*.py and results.md say what is measured and compared.
set -eu

BENCH_PACKAGES="check wrk libdnnl-dev libxsmm-dev python3-numpy python3-torch python3-fastapi python3-uvicorn
    python3-matplotlib"

bench=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$bench/../.." && pwd)
. "$root/deploy/packages.sh"
export PYTHONDONTWRITEBYTECODE=1
# One thread per contender: the clock would not see the threads of a BLAS.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

echo "==> packages"
# One word per package.
install_packages $BUILD_PACKAGES $BENCH_PACKAGES

echo "==> build/bench"
log=$root/build/bench.log
mkdir -p "$root/build"
if ! (cd "$root" && cmake --preset release -B build/bench -DMOED_TESTS=ON -DMOED_BENCH=ON &&
    cmake --build build/bench --target moed bench_gemm bench_model bench_sequence bench_ceiling) >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    exit 1
fi

echo "==> measuring"
# Debian's own Python has the PyTorch and other packages that apt installs.
PYTHONPATH=$root/clients/python exec /usr/bin/python3 "$bench/main.py" "$@"
