#!/bin/sh
# The container image, built from the Dockerfile and run.
#
#   sh tests/image.sh [ARCHITECTURE]      amd64 or arm64; default: this machine's
#
# The build never emulates: its stage is of this machine's architecture and cross-compiles. An image for
# another is run by QEMU, where binfmt_misc knows it or else as a program in the container (qemu-user-static);
# without either it is built, looked at and not run.
#
# buildah needs neither a daemon nor a kernel that lets it make namespaces. Where no registry can be
# reached, debootstrap makes the base image, once, in build/image. Requires root. Says what it does
# and what it saw; exit status 0: all of it held.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
native=$(dpkg --print-architecture)
architecture=${1:-$native}
case $architecture in
amd64) processor=x86_64 ;;
arm64) processor=aarch64 ;;
*) echo "image: architecture $architecture; expected amd64 or arm64" >&2 && exit 2 ;;
esac
work=$root/build/image
MAX_MEGABYTES=40
START_SECONDS=120
mkdir -p "$work"

# Storage of its own, so that nothing of the user's is touched and nothing is left.
storage=$work/storage-$architecture
buildah() {
    command buildah --storage-driver vfs --root "$storage" --runroot "$storage/run" "$@"
}

say() { echo "image: $*"; }

container=
server=
cleanup() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    [ -z "$container" ] || buildah rm "$container" >/dev/null 2>&1 || true
    rm -rf "$storage"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# ---- the base of the build ----

if buildah pull --quiet docker.io/library/debian:12-slim >/dev/null 2>&1; then
    base=docker.io/library/debian:12-slim
    say "base: $base, pulled"
else
    base=localhost/debian:12
    tree=$work/debian-$native
    if [ ! -e "$tree/.complete" ]; then
        rm -rf "$tree"
        debootstrap --variant=minbase --arch="$native" bookworm "$tree" >"$work/debootstrap.log" 2>&1 ||
            { tail -n 5 "$work/debootstrap.log"; exit 1; }
        touch "$tree/.complete"
    fi
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$tree" / >/dev/null
    buildah commit --quiet "$container" "$base" >/dev/null
    buildah rm "$container" >/dev/null
    container=
    say "base: debootstrap"
fi

# ---- build ----

began=$(date +%s)
# Debian 12's buildah does not set BUILDPLATFORM, as BuildKit and newer ones do.
buildah build --isolation chroot --platform "linux/$architecture" --build-arg BUILDPLATFORM="linux/$native" \
    --build-arg BASE="$base" --tag moed . >"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log"; exit 1; }
say "built for $architecture on $native in $(($(date +%s) - began)) s"

container=$(buildah from --arch "$architecture" moed)
mount=$(buildah mount "$container")
bytes=$(du --summarize --bytes "$mount" | cut -f 1)
say "size: $((bytes / 1000000)) MB uncompressed, models included"
[ "$bytes" -le $((MAX_MEGABYTES * 1000000)) ] || { say "more than $MAX_MEGABYTES MB"; exit 1; }

# ---- what it is for ----

declared=$(buildah inspect --type image --format '{{.OCIv1.Architecture}}' moed)
machine=$(readelf --file-header "$mount/usr/bin/moed" | sed -n 's/.*Machine: *//p')
case $architecture,$declared,$machine in
amd64,amd64,*X86-64 | arm64,arm64,AArch64) ;;
*) say "declared for $declared, with a program for $machine"; exit 1 ;;
esac
say "declared for $declared, with a program for $machine"

# ---- what is not in it ----

for program in sh bash dpkg apt gcc python3 perl; do
    found=$(find "$mount" -name "$program" -type f | head -n 1)
    [ -z "$found" ] || { say "$found has no business there"; exit 1; }
done
grep -q '"libmicrohttpd12"' "$mount/usr/share/doc/moed/sbom.spdx.json" || { say "the list of packages lacks one"; exit 1; }
say "no shell, compiler or package manager; $(grep -c versionInfo "$mount/usr/share/doc/moed/sbom.spdx.json") packages listed"

# ---- run ----

# As the image says: its user, its environment, its command. Below a chroot the host's network is
# the container's, so the port is one that is free here.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
emulator=
in_container() { # COMMAND...
    # Empty without an emulator.
    # shellcheck disable=SC2086
    buildah run --isolation chroot --env MOED_PORT="$port" --env MOED_HOST=127.0.0.1 "$container" -- $emulator "$@"
}
if ! in_container /usr/bin/moed --version >/dev/null 2>"$work/run.log"; then
    [ "$architecture" != "$native" ] || { cat "$work/run.log"; exit 1; }
    program=$(command -v "qemu-$processor-static") ||
        { say "NOT RUN: binfmt_misc has no QEMU for $architecture, and there is no qemu-$processor-static (qemu-user-static)"; exit 0; }
    emulator=/$(basename "$program")
    buildah copy --quiet "$container" "$program" "$emulator" >/dev/null
    say "binfmt_misc has no QEMU for $architecture; $emulator is put in the container, not in the image"
fi
version=$(in_container /usr/bin/moed --version)
[ "$architecture" = "$native" ] || say "runs under QEMU: $version"
in_container /usr/bin/moed serve >"$work/run.log" 2>&1 &
runner=$!
waited=0
until in_container /usr/bin/moed probe >/dev/null 2>&1; do
    waited=$((waited + 1))
    if [ $waited -gt $START_SECONDS ] || ! kill -0 $runner 2>/dev/null; then
        tail -n 20 "$work/run.log"
        exit 1
    fi
    sleep 1
done
server=$(ss --no-header --listening --tcp --processes "sport = :$port" | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -n 1)
user=$(awk '/^Uid:/ {print $2}' "/proc/$server/status")
[ "$user" = 10001 ] || { say "it runs as user $user, expected 10001"; exit 1; }
say "ready by moed probe, as user $user"

# QEMU passes on neither seccomp nor Landlock, and the server says so.
sed -n 's/.*event=sandbox message="\(.*\)"$/image: the server says: \1/p' "$work/run.log"

answer=$(python3 - "$port" <<'ASK'
import json, sys, urllib.request
url = f"http://127.0.0.1:{sys.argv[1]}/v1/models/fashion-mnist:predict"
with urllib.request.urlopen(urllib.request.Request(url, open("deploy/example.json", "rb").read())) as reply:
    [row] = json.load(reply)["predictions"]
print(max(range(len(row)), key=row.__getitem__))
ASK
)
[ "$answer" = 9 ] || { say "the ankle boot was taken for class $answer"; exit 1; }
say "an ankle boot is an ankle boot"

kill -TERM "$server"
status=0
wait $runner || status=$?
server=
[ "$status" -eq 0 ] || { say "SIGTERM ended it with $status"; tail -n 5 "$work/run.log"; exit 1; }
say "SIGTERM: exit status 0"
