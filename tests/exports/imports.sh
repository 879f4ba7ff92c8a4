#!/bin/sh
# imports.sh STORE: a store's library takes nothing from libverrou but the table of functions it is handed, so that one and the same
# library works with a static and a shared libverrou.
set -eu
undefined=$(nm -D --undefined-only --format=posix "$1")
needed=$(readelf -d "$1")

if imported=$(printf '%s\n' "$undefined" | grep '^verrou_'); then
    printf '%s imports of libverrou:\n%s\n' "$1" "$imported" >&2
    exit 1
fi
if linked=$(printf '%s\n' "$needed" | grep 'NEEDED.*libverrou'); then
    printf '%s is linked with libverrou:\n%s\n' "$1" "$linked" >&2
    exit 1
fi
