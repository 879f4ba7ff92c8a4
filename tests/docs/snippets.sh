#!/bin/sh
# snippets.sh PAGE: every C and shell snippet of a Markdown page does what the page says.
#
#     ```c            a whole program: compiled, run, must exit with 0
#     ```c norun      a whole program: compiled
#     ```c fragment   statements: compiled inside a function where `store`, `lock`, `err` and `status` are declared
#     ```c toplevel   functions and types: compiled
#     ```sh           run by sh -eu in a folder of its own, one for the page, with `verrou` in PATH and pkg-config leading to the library
#     ```sh norun     checked for syntax
#
# Other languages are not looked at, and unknown words after `c` or `sh` are mistakes.
set -eu
page=$1
tree=$BUILD/installed
work=$BUILD/docs-test/$(printf %s "$page" | tr / _)
rm -rf "$work"
mkdir -p "$work/home" "$work/cwd"

export HOME="$work/home" PATH="$tree/bin:$PATH" PKG_CONFIG_PATH="$tree/lib/pkgconfig" LD_LIBRARY_PATH="$tree/lib"
unset VERROU_STORE LOCK_STORE XDG_STATE_HOME XDG_CONFIG_HOME 2>/dev/null || true

# Cut the page into files named NUMBER.LINE.LANGUAGE[.MODE].
awk -v out="$work/" '
    !inside && /^```(c|sh)( .*)?$/ {
        inside = 1
        kind = substr($0, 4)
        gsub(/ +/, ".", kind)
        file = sprintf("%s%02d.%d.%s", out, ++number, NR, kind)
        printf "" > file
        next
    }
    !inside && /^```./ { other = 1; next }
    other && /^```$/ { other = 0; next }
    inside && /^```$/ { inside = 0; close(file); next }
    inside { print > file }
    END { if (inside || other) { print "a snippet is not closed" > "/dev/stderr"; exit 1 } }
' "$SOURCE/$page"

headers='#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <verrou/store.h>
#include <verrou/verrou.h>
#include <verrou/conformance.h>'
before='int snippet(verrou_store *store, verrou_lock *lock, verrou_error err, verrou_status status);
int snippet(verrou_store *store, verrou_lock *lock, verrou_error err, verrou_status status)
{
    (void)store, (void)lock, (void)err, (void)status;'

compile() # C-FILE ARGUMENT...
{
    file=$1
    shift
    $CC -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-function -Wno-unused-variable -Wno-unused-but-set-variable -Werror \
        "$file" "$@"
}

cd "$work/cwd"
for snippet in "$work"/[0-9]*; do
    [ -e "$snippet" ] || break
    name=${snippet##*/}
    kind=${name#*.*.}
    line=${name#*.}
    line=${line%%.*}
    # In a condition `set -e` counts for nothing, hence the &&.
    # shellcheck disable=SC2046 # a list of flags
    if ! (
        case $kind in
        c | c.norun)
            modules=verrou
            if grep -q 'verrou/conformance\.h' "$snippet"; then modules=verrou-conformance; fi
            cp "$snippet" "$snippet.c" &&
                compile "$snippet.c" -o "$snippet.bin" $(pkg-config --cflags --libs $modules) &&
                { [ "$kind" = c.norun ] || timeout 60 "$snippet.bin" </dev/null; }
            ;;
        c.fragment)
            { echo "$headers"; echo "$before"; echo "#line $line \"$page\""; cat "$snippet"; echo "return 0; }"; } >"$snippet.c"
            compile "$snippet.c" -c -o "$snippet.o" $(pkg-config --cflags verrou)
            ;;
        c.toplevel)
            { echo "$headers"; echo "#line $line \"$page\""; cat "$snippet"; } >"$snippet.c"
            compile "$snippet.c" -c -o "$snippet.o" $(pkg-config --cflags verrou)
            ;;
        sh)
            timeout 120 sh -eu "$snippet" </dev/null
            ;;
        sh.norun)
            sh -n "$snippet"
            ;;
        *)
            echo "'$kind' is no kind of snippet"
            exit 1
            ;;
        esac
    ) >"$work/output" 2>&1; then
        echo "$page, line $line ($kind):" >&2
        cat "$work/output" >&2
        exit 1
    fi
done
