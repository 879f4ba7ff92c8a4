#!/bin/sh
# install.sh - brings the original into the build folder and writes FOLDER/peer, the program that the tests drive it with.
#
#     tests/interop/install.sh FOLDER NODE-FOLDER
#
# The packages are those of node/package-lock.json, from npm's cache or its registry; they are installed once and then kept until the lock
# file or the Node.js changes. If that is impossible, this fails and says why: an interop test that is skipped would look like one that passed.
set -eu

die()
{
    echo "interop: $*" >&2
    exit 1
}

[ $# -eq 2 ] || die "usage: install.sh FOLDER NODE-FOLDER"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
node=$(sh "$here/../../scripts/node.sh" "$2") || die "no Node.js for the original to run on"

wanted="$("$node" --version) $(cksum <"$here/node/package-lock.json")"
if [ "$(cat "$folder/installed" 2>/dev/null || true)" != "$wanted" ]; then
    command -v npm >/dev/null || die "there is no npm to install the original with"
    rm -f "$folder/installed"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$folder/"
    (cd "$folder" && npm ci --loglevel=error --prefer-offline --ignore-scripts --no-audit --no-fund </dev/null) ||
        die "npm could not install the original (@verrou/core). It needs to reach its registry once, or to have the packages in its cache"
    echo "$wanted" >"$folder/installed"
fi

# Copied, because Node.js looks for packages from where a module lies.
cp "$here"/node/*.mjs "$folder/"
printf '#!/bin/sh\nexec "%s" "%s/peer.mjs" "$@"\n' "$node" "$folder" >"$folder/peer.new"
chmod +x "$folder/peer.new"
mv "$folder/peer.new" "$folder/peer"
