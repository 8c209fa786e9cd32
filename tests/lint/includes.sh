#!/bin/sh
# Which header may be included where. Prints every line that breaks a rule. Tests may include
# everything; headers that no rule names are allowed everywhere. Paths begin at the root.
cd "$(dirname "$0")/../.." || exit 2
! while read -r header allowed; do
    grep -rnP "^ *# *include +[<\"]$header[>\"]" --include='*.[ch]' core proto server clients |
        grep -vE "^($allowed)[^:]*:"
done <<'RULES' | sed 's/$/    <- not allowed here/' | grep .
microhttpd\.h                     server/http/http_(callbacks|mhd)\.c
gnutls/[^>]*                      server/(access/tokens|http/http_tls|probe_tls)\.c
nghttp2/[^>]*                     server/grpc/
uv\.h                             server/|clients/[a-z]+/
jansson\.h                        proto/|core/(load|family)/|core/parse_json|server/options/|server/main\.c|clients/[a-z]+/
cblas\.h                          core/dense/
utf8proc\.h                       proto/text/
proto/text/[a-z_]*_private\.h     proto/text/
proto/(?!buffer\.h|text/)[^"]*    proto/[a-z0-9_]+\.[ch]|server/
core/(error|file|half|hash|memory|text)\.h  core/|proto/|server/
core/gate_counts\.h               core/|proto/|server/
core/(moed|intervention)\.h       core/|server/
core/sampler\.h                   core/|proto/|server/
core/parse_json\.h                core/|proto/
core/(?!(error|file|gate_counts|half|hash|intervention|memory|moed|parse_json|sampler|text)\.h)[^"]*    core/
proto/[^"]*                       proto/|server/
server/[^"]*                      server/
\.\./[^"]*                        nowhere
RULES
