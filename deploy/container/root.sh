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
. "$(dirname "$0")/target.sh"

# What a file is linked with, by name, and its loader, by path. ldd would run the loader, but the program may be for
# another architecture. libc also names the loader, which it finds loaded.
needed_by() { # FILE
    LC_ALL=C "$triplet-readelf" --program-headers --dynamic "$1" |
        sed -n '/NEEDED.*\[ld-linux/d; s|.*interpreter: \(.*\)]|\1|p; s|.*(NEEDED) .*\[\(.*\)]|\1|p'
}

# Where the loader would find a library.
path_of() { # NAME_OR_PATH
    for directory in "" "/lib/$triplet/" "/usr/lib/$triplet/"; do
        case $directory$1 in
        /*) [ ! -e "$directory$1" ] || { echo "$directory$1" && return; } ;;
        esac
    done
    echo "root.sh: no $1 here" >&2
    return 1
}

# A file and all that it is linked with, each at its own path. Prints what it copied.
copy_with_libraries() { # FILE
    [ ! -e "$root$1" ] || return 0
    mkdir -p "$root$(dirname "$1")"
    cp --dereference --preserve=mode "$1" "$root$1"
    echo "$1"
    needed=$(needed_by "$1")
    case $1 in
    */moed) [ -n "$needed" ] || { echo "root.sh: cannot tell what $1 is linked with" >&2 && return 1; } ;;
    esac
    for name in $needed; do
        found=$(path_of "$name")
        copy_with_libraries "$found"
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
    path=$(path_of "$library")
    copy_with_libraries "$path" >>"$files"
done

packages=$(packages_of <"$files")
for package in $packages; do
    name=${package%%:*}
    mkdir -p "$root/usr/share/doc/$name"
    cp --dereference "/usr/share/doc/$name/copyright" "$root/usr/share/doc/$name/"
done

version=$(sed -n 's/^project(moed VERSION \([0-9.]*\) .*/\1/p' CMakeLists.txt)
here=$(dirname "$0")
# shellcheck disable=SC2086 # a word per package
sh "$here/sbom.sh" "$version" $packages >"$root/usr/share/doc/moed/sbom.spdx.json"
rm "$files"
