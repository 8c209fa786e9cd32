#!/bin/sh
# The Debian package: built, installed, upgraded, removed and purged in a bare Debian 12 root.
#
#   sh tests/package.sh
#
# debootstrap makes that root, once, in build/image; a copy of it is used and deleted. Requires root.
# Exit status 0: all of it held.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
architecture=$(dpkg --print-architecture)
tree=$root/build/image/debian-$architecture
log=$root/build/package.log
say() { echo "package: $*"; }
fail() { say "$*"; exit 1; }

cmake --preset release -B build/package -DMOED_TESTS=OFF >"$log" 2>&1 &&
    cmake --build build/package >>"$log" 2>&1 &&
    (cd build/package && rm -f ./*.deb && cpack -G DEB) >>"$log" 2>&1 || { tail -n 20 "$log"; exit 1; }
package=$(ls build/package/*.deb)
say "$(basename "$package"), $(stat --format %s "$package") bytes"
systemd-analyze verify --man=no build/package/debian/moed.service 2>&1 |
    grep -v 'is not executable: No such file' | grep . && fail "the unit is wrong"

if [ ! -e "$tree/.complete" ]; then
    mkdir -p "$root/build/image"
    rm -rf "$tree"
    debootstrap --variant=minbase --arch="$architecture" bookworm "$tree" >"$log" 2>&1 || { tail "$log"; exit 1; }
    touch "$tree/.complete"
fi
box=$root/build/package/box
mounted=
cleanup() {
    [ -z "$mounted" ] || umount "$box/proc"
    rm -rf "$box"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
rm -rf "$box"
cp -a "$tree" "$box"
mount -t proc proc "$box/proc" && mounted=1
cp /etc/resolv.conf "$box/etc/" 2>/dev/null || true
cp "$package" "$box/tmp/moed.deb"
inside() {
    DEBIAN_FRONTEND=noninteractive chroot "$box" "$@" >>"$log" 2>&1
}

inside apt-get update || true
inside apt-get install --yes --no-install-recommends /tmp/moed.deb || { tail -n 20 "$log"; fail "it cannot be installed"; }
inside moed --version || fail "the program does not run"
for file in /etc/moed/moed.conf /lib/systemd/system/moed.service /usr/share/bash-completion/completions/moed \
    /usr/bin/moed /usr/bin/moectl /usr/share/moed/models/clusters/config.json; do
    [ -e "$box$file" ] || fail "$file is missing"
done
[ ! -e "$box/var/lib/moed" ] || fail "something lies where the service may write"
[ -z "$(find "$box/usr/share/moed" ! -user root -o -perm /022)" ] || fail "others than root may write models"
say "installed with its libraries; $(chroot "$box" moed --version)"

# The operator's file survives an upgrade; models that an earlier package had served are told of, and stay.
echo '# changed' >>"$box/etc/moed/moed.conf"
mkdir -p "$box/var/lib/moed/models"
cp -r deploy/models/clusters "$box/var/lib/moed/models/"
inside dpkg --install /tmp/moed.deb || fail "it cannot be installed over itself"
tail -n 20 "$log" | grep -q '^moed: /var/lib/moed/models is not served' || fail "models are left in silence"
tail -n 1 "$box/etc/moed/moed.conf" | grep -q changed || fail "an upgrade replaced the configuration"
chroot "$box" moed serve --config /etc/moed/moed.conf --port 0 >"$box/tmp/log" 2>&1 &
server=$!
waited=0
until grep -q 'listening on' "$box/tmp/log"; do
    waited=$((waited + 1))
    [ $waited -lt 600 ] || { kill -KILL $server; fail "it does not start with the package's configuration"; }
    sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$box/tmp/log")
chroot "$box" moectl models --names --url "$url" | grep -qx clusters || fail "the package's models are not served"
kill -TERM $server
wait $server || fail "SIGTERM ended it with $?"
say "serves /usr/share/moed/models, keeps a changed configuration"

inside dpkg --remove moed || fail "it cannot be removed"
[ -e "$box/etc/moed/moed.conf" ] || fail "removing took the configuration"
inside dpkg --purge moed || fail "it cannot be purged"
[ ! -e "$box/etc/moed" ] || fail "purging left /etc/moed"
[ -e "$box/var/lib/moed/models/clusters" ] || fail "purging took the models"
say "removed and purged; the models stayed"
