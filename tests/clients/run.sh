#!/bin/sh
# Real clients, unmodified, against one server on this machine; prints a table of what each did.
#
#   sh tests/clients/run.sh                all; the table is tests/clients/RESULTS.md
#   sh tests/clients/run.sh CLIENT...      only these: see `python3 tests/clients/main.py --help`
#   sh tests/clients/run.sh schemathesis   requests at random as /openapi.json describes them, minutes
#
# Installs them below build/clients, each of one version, from PyPI, npm, Go's proxy, Maven Central and Debian: about 1.3 GB.
# What cannot be installed is skipped with the reason. MOED_BINARY is the server (default
# build/release/moed). Exit status 0: none failed.
set -u

cd "$(dirname "$0")/../.." || exit 1
home=$PWD/build/clients
mkdir -p "$home/logs"

# install NAME STAMP COMMAND...: once for each STAMP, which has the versions.
install() {
    name=$1 stamp=$home/logs/$1-$2.installed
    shift 2
    [ ! -e "$stamp" ] || return 0
    echo "installing $name" >&2
    if "$@" >"$home/logs/$name.log" 2>&1; then
        touch "$stamp"
    else
        echo "$name: not installed, see $home/logs/$name.log" >&2
    fi
}

python_package() { # NAME REQUIREMENT...
    directory=$home/$1
    shift
    rm -rf "$directory"
    /usr/bin/python3 -m venv "$directory" && "$directory/bin/pip" install --quiet "$@"
}

# The program is in no later wheel; it wants two libraries that Debian and NVIDIA have.
perf_analyzer() {
    directory=$home/perf_analyzer
    rm -rf "$directory" && mkdir -p "$directory" &&
        python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.10 \
            --platform manylinux1_x86_64 --platform manylinux2014_x86_64 --dest "$directory" \
            tritonclient==2.47.0 nvidia-cuda-runtime-cu12==12.4.127 &&
        (cd "$directory" && apt-get download libb64-0d && dpkg-deb --extract libb64-0d_*.deb . &&
            for wheel in *.whl; do python3 -m zipfile --extract "$wheel" .; done &&
            mkdir lib && find . -name 'libb64.so.0d*' -exec cp {} lib ';' &&
            find . -name libcudart.so.12 -exec cp {} lib ';' &&
            cp tritonclient-2.47.0.data/data/bin/perf_analyzer . && chmod +x perf_analyzer)
}

openai_js() {
    mkdir -p "$home/openai-js" && npm install --silent --no-fund --no-audit --prefix "$home/openai-js" openai@7.59.0
}

grpcurl() {
    GOBIN=$home/go go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
}

wanted=" ${*-} "
is_wanted() { [ "$wanted" = "  " ] || case $wanted in *" $1 "*) ;; *) return 1 ;; esac }

! is_wanted kserve || install kserve 0.21.0 python_package kserve kserve==0.21.0
! is_wanted mlserver || install mlserver 1.7.1 python_package mlserver mlserver==1.7.1
! is_wanted tritonclient || install tritonclient 2.61.0 \
    python_package tritonclient 'tritonclient[http,grpc]==2.61.0'
! is_wanted openai-python || install openai-python 3.57.0 python_package openai-python openai==3.57.0 numpy==2.4.6
! is_wanted prometheus-client || install prometheus-client 0.26.0 \
    python_package prometheus-client prometheus-client==0.26.0
! is_wanted perf_analyzer || install perf_analyzer 2.47.0 perf_analyzer
! is_wanted openai-js || install openai-js 7.59.0 openai_js
if is_wanted grpc-go || is_wanted grpc-java; then
    install tritonclient 2.61.0 python_package tritonclient 'tritonclient[http,grpc]==2.61.0'
    sources="tests/clients/grpc_stubs.sh tests/clients/programs/grpc.go tests/clients/programs/Grpc.java proto/inference.proto"
    # shellcheck disable=SC2086
    install grpc "$(cat $sources | cksum | cut -d ' ' -f 1)" sh tests/clients/grpc_stubs.sh "$home"
fi
! is_wanted openapi || install openapi-spec-validator 0.9.0 \
    python_package openapi-spec-validator openapi-spec-validator==0.9.0
! is_wanted grpcurl || install grpcurl 1.9.3 grpcurl
case $wanted in *" schemathesis "*)
    install schemathesis 4.32.5 python_package schemathesis schemathesis==4.32.5 ;;
esac

exec /usr/bin/python3 tests/clients/main.py "$@"
