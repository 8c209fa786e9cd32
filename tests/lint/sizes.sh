#!/bin/sh
# Sizes that keep code readable: prints every C function over 80 lines and every C file over 600. A
# function is what stands between a brace in the first column and its counterpart.
cd "$(dirname "$0")/../.." || exit 2
! find core proto server clients tests -name '*.[ch]' -exec awk '
    FNR == 1 { if (lines > 600) print file ": " lines " lines"; file = FILENAME; begin = 0 }
    { lines = FNR }
    /^[a-zA-Z].*\(/ && !begin { head = FNR }
    /^{/ { begin = head ? head : FNR }
    /^}/ && begin {
        if (FNR - begin + 1 > 80) print FILENAME ":" begin ": a function of " FNR - begin + 1 " lines"
        begin = head = 0
    }
    END { if (lines > 600) print file ": " lines " lines" }' {} + | grep .
