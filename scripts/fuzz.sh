#!/bin/sh
# fuzz.sh BUILD SECONDS: run each fuzz program for so long, from its checked-in corpus. New inputs stay in BUILD/corpus; a crash
# leaves its input in the working folder and stops everything.
set -eu
build=$1
seconds=$2
found=
for program in "$build"/bin/libfuzzer_*; do
    [ -x "$program" ] || continue
    found=1
    name=${program##*/libfuzzer_}
    mkdir -p "$build/corpus/$name"
    seeds=tests/fuzz/corpus/$name
    [ -d "$seeds" ] || seeds=
    echo "== $name: $seconds s"
    # shellcheck disable=SC2086 # no seeds is no argument
    "$program" -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=0 -verbosity=0 \
        "$build/corpus/$name" $seeds
done
[ -n "$found" ] || { echo "no fuzz programs in $build/bin" >&2; exit 1; }
