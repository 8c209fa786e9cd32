#!/bin/sh
# Puts together the root of the image: the server, the libraries that it loads, and nothing else: no
# shell, no package manager. Runs where the server was built, which is Debian.
#
#   root.sh PROGRAM ROOT [LIBRARY...]
#
# LIBRARY: one that the program loads only when asked to (libopenblas.so.0).
set -eu

program=$1
root=$2
shift 2

# A file and all that it is linked with, each at its own path.
copy_with_libraries() { # FILE
    {
        echo "$1"
        ldd "$1" | sed -n 's|.* => \(/[^ ]*\) .*|\1|p; s|^[[:space:]]*\(/[^ ]*\) .*|\1|p'
    } | while read -r file; do
        [ ! -e "$root$file" ] || continue
        mkdir -p "$root$(dirname "$file")"
        cp --dereference --preserve=mode "$file" "$root$file"
        echo "$file"
    done
}

# The Debian packages that the files named on standard input come from.
packages_of() {
    while read -r file; do
        # A library may be known by its path before /lib became a link to /usr/lib.
        real=$(readlink -f "$file")
        dpkg-query --search "$file" "$real" "${real#/usr}" 2>/dev/null | sed 's|: /.*||'
    done | sort -u
}

mkdir -p "$root/etc" "$root/tmp" "$root/usr/share/doc/moed"
chmod 1777 "$root/tmp"
echo 'moed:x:10001:10001:moed:/:/sbin/nologin' >"$root/etc/passwd"
echo 'moed:x:10001:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

files=$(mktemp)
copy_with_libraries "$program" >"$files"
for library in "$@"; do
    path=$(ldconfig -p | sed -n "s|.*$library .*=> ||p" | head -n 1)
    [ -n "$path" ] || { echo "root.sh: no $library here" >&2; exit 1; }
    copy_with_libraries "$path" >>"$files"
done

packages=$(packages_of <"$files")
for package in $packages; do
    name=${package%%:*}
    mkdir -p "$root/usr/share/doc/$name"
    cp --dereference "/usr/share/doc/$name/copyright" "$root/usr/share/doc/$name/"
done

version=$("$program" --version | sed 's/.* //')
here=$(dirname "$0")
# shellcheck disable=SC2086 # a word per package
sh "$here/sbom.sh" "$version" $packages >"$root/usr/share/doc/moed/sbom.spdx.json"
rm "$files"
