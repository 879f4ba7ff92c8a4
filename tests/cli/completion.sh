#!/bin/bash
# Completes some command lines with the completion file given as the argument, and compares what comes out.
. "$1" || exit 1
failed=0

# check EXPECTED WORD...: the words of a line, the last one to be completed.
check()
{
    local expected=$1
    shift
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _verrou
    if [[ "${COMPREPLY[*]}" != "$expected" ]]; then
        echo "${*}: \"${COMPREPLY[*]}\" instead of \"$expected\""
        failed=1
    fi
}

check 'release' verrou rel
check 'run release' verrou --json r
check 'term kill warn' verrou run k --on-lost ''
check '--on-lost' verrou run k --on
check '' verrou acquire k --on
check 'print apply' verrou schema ''
check '--config --conflict-exit-code' verrou run --con
check '--wait' verrou --store x acquire k --w
exit $failed
