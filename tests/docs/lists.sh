#!/bin/sh
# lists.sh LIST: a list in the documentation against what the sources say.
# shellcheck disable=SC2016 # backquotes of Markdown
set -eu
cd "$SOURCE"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# same WHAT DOCUMENTED ACTUAL: two files of words, which must hold the same words.
same()
{
    LC_ALL=C sort -u "$2" >"$work/documented"
    LC_ALL=C sort -u "$3" >"$work/actual"
    [ -s "$work/actual" ] || { echo "found no $1 in the sources" >&2; exit 1; }
    if ! diff "$work/documented" "$work/actual" >"$work/diff"; then
        echo "$1 differ ('<': documented only, '>': in the sources only):" >&2
        cat "$work/diff" >&2
        exit 1
    fi
}

case $1 in
functions)
    # Every exported function has its entry (.It Fn) in a manual page of section 3, and no page has another.
    awk '/^VERROU_API/, /;/' include/verrou/*.h | grep -oE '\bverrou_[a-z_]+\(' | tr -d '(' >"$work/a"
    sed -n 's/^\.It Fn \(verrou_[a-z_]*\).*/\1/p' docs/man/*.3 >"$work/d"
    same functions "$work/d" "$work/a"
    ;;
statuses)
    # errors.md has a row for every status, with its number.
    sed -n 's/^    X(\([A-Z]*\), \([0-9]*\), .*/VERROU_\1 \2/p' include/verrou/verrou.h >"$work/a"
    sed -n 's/^| `\(VERROU_[A-Z]*\)` | \([0-9]*\) |.*/\1 \2/p' docs/guide/errors.md >"$work/d"
    same statuses "$work/d" "$work/a"
    ;;
events)
    # logging.md has a row for every event: each string "noun.verb_phrase" of the library and its stores.
    grep -rhoE --include='*.[ch]' '"[a-z]+\.[a-z_]{3,}"' src/core src/engine src/stores | tr -d '"' >"$work/a"
    sed -n 's/^| `\([a-z]*\.[a-z_]*\)` |.*/\1/p' docs/guide/logging.md >"$work/d"
    same events "$work/d" "$work/a"
    ;;
settings)
    # stores.md and verrou-stores(7) list the settings of the library and of its stores.
    find src/core src/stores -name '*.c' -exec awk '/settings\[\] = \{/, /;/' {} + | grep -oE '"[a-z_-]+"' | tr -d '"' >"$work/a"
    sed -n '/^| `[a-z_-]*=`/ { s/^|\([^|]*\)|.*/\1/; p; }' docs/guide/stores.md | grep -oE '[a-z_-]+=' | tr -d = >"$work/d"
    same "settings in stores.md" "$work/d" "$work/a"
    sed -n 's/^\.It Cm \([a-z_-]*\)=.*/\1/p' docs/man/verrou-stores.7 >"$work/d"
    same "settings in verrou-stores(7)" "$work/d" "$work/a"
    ;;
links)
    # Every relative link leads to a file.
    for page in README.md CONTRIBUTING.md CHANGELOG.md docs/guide/*.md docs/internals/*.md src/stores/README.md; do
        grep -oE '\]\([^)#:]+[)#]' "$page" | sed 's/^](//; s/[)#]$//' | while read -r target; do
            [ -e "$(dirname "$page")/$target" ] || { echo "$page links to $target, which is not there" >&2; exit 1; }
        done
    done
    ;;
manual)
    # The manual pages are well-formed.
    mandoc -T lint -W warning docs/man/*.[1-8]
    ;;
*)
    echo "lists.sh: no list '$1'" >&2
    exit 1
    ;;
esac
