#!/bin/sh
# The rooms: which header may be included where. Prints every line that breaks a rule. Tests may look
# into every room; a header that no rule names is free.
cd "$(dirname "$0")/../.." || exit 2
! while read -r header allowed; do
    grep -rnP "^ *# *include +[<\"]$header[>\"]" --include='*.[ch]' core proto server clients |
        grep -vE "^($allowed)[^/:]*:"
done <<'RULES' | sed 's/$/    <- not in this room/' | grep .
microhttpd\.h                         server/http\.c
uv\.h                                 server/|clients/[a-z]+/
jansson\.h                            proto/|core/config\.c|core/safetensors\.c|server/options|server/main\.c|clients/[a-z]+/
cblas\.h                              core/
\.\./core/error\.h                    proto/|server/
\.\./core/moed\.h                     server/
\.\./core/(?!error\.h|moed\.h)[^"]*   nowhere
\.\./proto/[^"]*                      server/
\.\./server/[^"]*                     nowhere
RULES
