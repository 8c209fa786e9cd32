#!/bin/sh
# Prints every C function with more LINES or PARAMETERS and every C file with more FILE_LINES. A
# function reaches from a brace in the first column to its counterpart. on_access() has the
# parameters that libmicrohttpd gives it, on_field() and read_message() have libnghttp2's.
#
#   sh tests/lint/sizes.sh [LINES FILE_LINES PARAMETERS [ROOM]]      default: 40 500 6, every room
cd "$(dirname "$0")/../.." || exit 2
! find ${4:-core proto server clients tests} -name '*.[ch]' -exec awk \
    -v most_lines="${1:-40}" -v most_file="${2:-500}" -v most_parameters="${3:-6}" '
    function parameters(head, depth, count, i, c) {
        sub(/^[^(]*\(/, "", head)
        for (i = 1; i <= length(head); i++) {
            c = substr(head, i, 1)
            if (c == "(") depth++
            if (c == ")" && depth-- == 0) break
            if (c == "," && depth == 0) count++
        }
        return count + 1
    }
    FNR == 1 { if (lines > most_file) print file ": " lines " lines"; file = FILENAME; begin = 0; head = "" }
    { lines = FNR }
    /^[a-zA-Z].*\(/ && !begin { head = $0; begin_head = FNR; open = 1; next }
    open && !/^{/ { head = head $0; if (/;/) { head = ""; open = 0 } }
    /^{/ {
        begin = head != "" ? begin_head : FNR
        n = head != "" ? parameters(head) : 0
        if (n > most_parameters && head !~ / (on_access|on_field|read_message)\(/) print FILENAME ":" begin ": a function of " n " parameters"
        open = 0
    }
    /^}/ && begin {
        if (FNR - begin + 1 > most_lines) print FILENAME ":" begin ": a function of " FNR - begin + 1 " lines"
        begin = 0; head = ""
    }
    END { if (lines > most_file) print file ": " lines " lines" }' {} + | grep .
