#!/bin/sh
# compare.sh LIBRARY LIST: the exported symbols of a shared library against the checked-in list.
#
# A symbol that is new on purpose is added to the list by hand; one that is gone breaks programs and needs a new major version.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nm -D --defined-only --format=posix "$1" >"$work/nm"
# The version node itself appears as an absolute symbol (A).
awk '$2 != "A" { print sub(/@@VERROU_0$/, "", $1) ? $1 : $1 " (without the version VERROU_0)" }' "$work/nm" |
    LC_ALL=C sort >"$work/exported"
sed 's/#.*//; s/[[:space:]]*$//; /^$/d' "$2" | LC_ALL=C sort >"$work/listed"

[ -s "$work/exported" ] || { echo "$1 exports nothing" >&2; exit 1; }
if ! diff "$work/listed" "$work/exported" >"$work/diff"; then
    echo "$1 and $2 differ ('<': listed but not exported, '>': exported but not listed):" >&2
    cat "$work/diff" >&2
    exit 1
fi
