#!/bin/sh
# Many processes transfer money between ten accounts in a plain file: without a lock, through `verrou run`, and through the C API.
# Transfers move money, so the sum of all accounts must not change. Exit code 0 if both locked runs keep it to the cent.
#
#     demo.sh [FOLDER-OF-PROGRAMS]      default: build/bin of this tree
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "${1:-$here/../../build/bin}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

file=$work/accounts
# The embedded store if it was built, or whatever VERROU_DEMO_STORE says.
store=${VERROU_DEMO_STORE:-sqlite:$work/locks.db}
accounts=10
cents_each=1000000
sum=$((accounts * cents_each))
lost=0

money() {
    cents=$1
    if [ "$cents" -lt 0 ]; then
        printf -- '-'
        cents=$((-cents))
    fi
    printf '%d.%02d' $((cents / 100)) $((cents % 100))
}

open_bank() {
    "$bin/transfer" --open "$file" $accounts $cents_each
}

# Say what became of the money, and remember a locked run that did not keep it.
compare() {
    now=$("$bin/transfer" --total "$file")
    if [ "$now" -eq $sum ]; then
        echo "   $(money $sum) before, $(money "$now") after: not a cent is missing."
    elif [ "$1" = locked ]; then
        echo "   $(money $sum) before, $(money "$now") after: THE LOCK FAILED."
        lost=1
    elif [ "$now" -lt $sum ]; then
        echo "   $(money $sum) before, $(money "$now") after: $(money $((sum - now))) have disappeared."
    else
        echo "   $(money $sum) before, $(money "$now") after: $(money $((now - sum))) came out of nowhere."
    fi
}

echo "Ten accounts in a file, $(money $sum) in all. Transfers only move money, so this sum must stay."
echo
echo "1. Without a lock: 8 processes, 50 transfers each."
open_bank
code=0
"$bin/bank" "$file" 8 50 >"$work/log" || code=$?
[ $code -eq 0 ] || [ $code -eq 2 ] || exit 1
compare unlocked
echo "   Two read the same balance, both write their result: the later one wipes out the earlier."
echo

# One clerk of the shell: each transfer is a program of its own, run under the lock.
clerk() {
    at=0
    while [ $at -lt 15 ]; do
        from=$(((at * 3 + $1) % accounts))
        to=$(((at + $1 * 7 + 1) % accounts))
        [ $from -ne $to ] || to=$(((to + 1) % accounts))
        "$bin/verrou" --store "$store" run accounts --retry-delay 10ms -- \
            "$bin/transfer" "$file" $from $to $((at * 137 + $1 * 59 + 1)) || return 1
        at=$((at + 1))
    done
}

echo "2. From the shell, through \`verrou run accounts -- transfer ...\`: 6 processes, 15 transfers each."
open_bank
pids=
for number in 1 2 3 4 5 6; do
    clerk $number &
    pids="$pids $!"
done
failed=0
for pid in $pids; do
    wait "$pid" || failed=1
done
[ $failed -eq 0 ] || echo "   A transfer failed."
compare locked
echo "   The same program as before; the lock is around it."
echo

echo "3. From C, through verrou_lock_acquire() and verrou_lock_release(): 8 processes, 50 transfers each."
open_bank
code=0
"$bin/bank" "$file" 8 50 --locked "$store" >"$work/log" || code=$?
[ $code -eq 0 ] || [ $code -eq 2 ] || failed=1
compare locked
echo "   The same code as in 1, between two calls."

[ $lost -eq 0 ] && [ $failed -eq 0 ]
