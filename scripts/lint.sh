#!/bin/sh
# lint.sh - everything that reads the sources without running them. Prints what it finds and fails if that is anything.
# `make lint` installs the tools first.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=

check()
{
    what=$1
    shift
    echo "== $what"
    "$@" </dev/null || { failed="$failed $what;" && echo "$what: failed" >&2; }
}

files()
{
    git ls-files -- "$@"
}

# Releases of clang-format differ in what they make of the same settings.
format()
{
    case $(clang-format --version) in
    *" version 14."*) ;;
    *) echo "the layout is that of clang-format 14; this is another release" >&2 && return 1 ;;
    esac
    files '*.c' '*.h' '*.cc' | xargs clang-format --dry-run -Werror
}

merges()
{
    ! git grep -nE '^(<{7}|>{7}) '
}

shell_syntax()
{
    bad=0
    for script in .ci/run $(files '*.sh' '*.bash'); do
        case "$script $(head -n 1 "$script")" in
        *bash*) bash -n "$script" || bad=1 ;;
        *) sh -n "$script" || bad=1 ;;
        esac
    done
    return $bad
}

manual()
{
    # Dates are the day's; a message about the operating system's own list of pages says nothing about ours.
    files 'docs/man/*.[1-8]' | xargs mandoc -T lint -W warning
}

# shellcheck disable=SC2046 # a list of files
analyse()
{
    cppcheck --quiet --std=c11 --language=c --enable=warning,portability --inline-suppr --error-exitcode=1 -j "$(nproc)" \
        --suppress=missingIncludeSystem --suppress=arrayIndexThenCheck -D_GNU_SOURCE -U__cplusplus -I include -I src $(files 'src/*.c')
}

tidy()
{
    test -f build/compile_commands.json || cmake --preset release >/dev/null || return 1
    files 'src/*.c' | xargs -P "$(nproc)" -n 4 clang-tidy -p build --quiet --warnings-as-errors='*' 2>build/clang-tidy.err ||
        { grep -v 'warnings generated\|^Suppressed\|^Use -header' build/clang-tidy.err >&2; return 1; }
}

check "merges" merges
check "layout" format
check "shell syntax" shell_syntax
check "manual pages" manual
check "cppcheck" analyse
check "clang-tidy" tidy

[ -z "$failed" ] || { echo "lint:${failed%;} failed" >&2; exit 1; }
echo "lint: nothing to report"
