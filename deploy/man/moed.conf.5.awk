# Makes the manual page moed.conf(5) of deploy/moed.conf, in which every option stands under the
# paragraph that explains it.
#
#   awk -f moed.conf.5.awk moed.conf >moed.conf.5

function roff(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/-/, "\\-", text)
    sub(/^[.']/, "\\\\\\&&", text)
    return text
}

function flush_head() {
    print ".TH MOED.CONF 5 \"\" \"moed\" \"File Formats\""
    print ".SH NAME"
    print "moed.conf \\- configuration of the moed inference server"
    print ".SH DESCRIPTION"
    print "A line is"
    print ".RI \\(lq name \" = \" value \\(rq,"
    print "empty, or a comment that begins with #. Quotes around a value are optional. Every option is also a flag of"
    print ".BR \"moed serve\" \","
    print "with dashes instead of underscores (\\-\\-max\\-batch\\-rows), and an environment variable (MOED_MAX_BATCH_ROWS)."
    print "A flag overrides the environment, and that the file. An option that is given twice in the file is refused,"
    print "and so is a name that is no option."
    print ".B moed sample\\-config"
    print "prints a file of all options at their defaults."
}

NR == 1 { flush_head() }

/^# ---- .* ----$/ {
    sub(/^# ---- /, ""); sub(/ ----$/, "")
    print ".SS " roff($0)
    started = 1
    next
}

!started { next }

/^# / { text = text (text == "" ? "" : "\n") roff(substr($0, 3)); next }

# "#name = default", or "name = example" for what has none.
/^#?[a-z_]+ = / {
    sub(/^#/, "")
    name = $1
    value = $0
    sub(/^[a-z_]+ = /, "", value)
    print ".TP"
    print ".BR " name " \" = " roff(value) "\""
    print text
    text = ""
    next
}

/^$/ { text = "" }

END {
    print ".SH FILES"
    print ".TP"
    print ".I /etc/moed/moed.conf"
    print "What the service of the Debian package reads."
    print ".SH SEE ALSO"
    print ".BR moed (1)"
}
