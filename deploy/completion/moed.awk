# Makes bash's completion for moed of deploy/moed.conf, which names every option of `moed serve`.
#
#   awk -f moed.awk moed.conf >moed

/^#?[a-z_]+ = / {
    sub(/^#/, "")
    name = $1
    gsub(/_/, "-", name)
    options = options " --" name
}

END {
    print "# bash completion for moed"
    print "_moed() {"
    print "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}"
    print "    if [ \"$COMP_CWORD\" -eq 1 ]; then"
    print "        COMPREPLY=($(compgen -W 'serve check-config inspect probe sample-config token help --version --help' -- \"$cur\"))"
    print "        return"
    print "    fi"
    print "    case $prev in"
    print "    --models) COMPREPLY=($(compgen -d -- \"$cur\")); return ;;"
    print "    --config) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;"
    print "    --weights) COMPREPLY=($(compgen -W 'stored int8 int4' -- \"$cur\")); return ;;"
    print "    --activations) COMPREPLY=($(compgen -W 'int8 bf16 f32' -- \"$cur\")); return ;;"
    print "    --load) COMPREPLY=($(compgen -W 'map copy' -- \"$cur\")); return ;;"
    print "    --model-control) COMPREPLY=($(compgen -W 'none poll explicit' -- \"$cur\")); return ;;"
    print "    --log-format) COMPREPLY=($(compgen -W 'logfmt json' -- \"$cur\")); return ;;"
    print "    --log-level) COMPREPLY=($(compgen -W 'error warning info debug' -- \"$cur\")); return ;;"
    print "    esac"
    print "    case ${COMP_WORDS[1]} in"
    print "    serve | check-config) COMPREPLY=($(compgen -W '--config" options " --help' -- \"$cur\")) ;;"
    print "    inspect) COMPREPLY=($(compgen -d -W '--json --check --help' -- \"$cur\")) ;;"
    print "    probe) COMPREPLY=($(compgen -W '--live --tls --host --port --timeout-ms --help' -- \"$cur\")) ;;"
    print "    help) COMPREPLY=($(compgen -W 'serve check-config inspect probe sample-config token help' -- \"$cur\")) ;;"
    print "    esac"
    print "}"
    print "complete -o filenames -F _moed moed"
}
