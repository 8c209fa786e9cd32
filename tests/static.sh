#!/bin/sh
# The static binary in an empty root: it serves there, with TLS and gRPC, and stops.
#
#   sudo sh tests/static.sh
#
# Builds `cmake --preset static`. Needs libunistring-dev and openssl beside what the build needs.
set -eu

cd "$(dirname "$0")/.."
cmake --preset static >/dev/null
cmake --build --preset static --target moed >/dev/null
root=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$root"' EXIT
cp build/static/moed "$root/"
strip "$root/moed"
mkdir "$root/models"
cp -r deploy/models/fashion-mnist "$root/models/"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$root/key.pem" -out "$root/cert.pem" 2>/dev/null
echo "static: $(($(stat -c %s "$root/moed") / 1000)) kB, shared libraries: $(readelf -d "$root/moed" | grep -c NEEDED || true)"
chroot "$root" /moed serve --models /models --port 0 --grpc-port 0 --tls-cert /cert.pem --tls-key /key.pem >"$root/log" 2>&1 &
server=$!
waited=0
until url=$(sed -n 's/^listening on //p' "$root/log") && [ -n "$url" ] &&
    curl -sSf --cacert "$root/cert.pem" "$url/v2/health/ready" >/dev/null 2>&1; do
    waited=$((waited + 1))
    [ $waited -le 600 ] && kill -0 $server || { cat "$root/log"; exit 1; }
    sleep 0.1
done
curl -sSf --cacert "$root/cert.pem" "$url/v1/models/fashion-mnist:predict" -d @deploy/example.json | grep -q predictions
grep -q sandbox "$root/log"
kill -TERM $server
status=0
wait $server || status=$?
server=
[ $status -eq 0 ] || { cat "$root/log"; exit 1; }
echo "static: served over TLS in an empty root; SIGTERM: exit status 0"
