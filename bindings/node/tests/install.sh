#!/bin/sh
# install.sh - packs the package, installs the tarball into FOLDER as an application would, with the packages that the tests need, and copies
# the tests there.
#
#     bindings/node/tests/install.sh FOLDER NODE-FOLDER
#
# Nothing of the repository is used from FOLDER afterwards: what the tarball lacks is missed. The packages are those of package-lock.json, from
# npm's cache or its registry; they and the tarball are installed once, and kept until one of them, or the Node.js, changes.
set -eu

die()
{
    echo "node tests: $*" >&2
    exit 1
}

[ $# -eq 2 ] || die "usage: install.sh FOLDER NODE-FOLDER"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
node=$(sh "$here/../../../scripts/node.sh" "$2") || die "there is no Node.js to test on"
command -v npm >/dev/null || die "there is no npm to install packages with"
# The Node.js of the tests is also the one that the addon is built with.
PATH=$(dirname "$node"):$PATH
export PATH

packages="$("$node" --version) $(cksum <"$here/package-lock.json")"
if [ "$(cat "$folder/installed" 2>/dev/null || true)" != "$packages" ]; then
    rm -f "$folder/installed" "$folder/built"
    cp "$here/package.json" "$here/package-lock.json" "$folder/"
    (cd "$folder" && npm ci --loglevel=error --prefer-offline --ignore-scripts --no-audit --no-fund </dev/null) ||
        die "npm could not install the packages that the tests need. It needs to reach its registry once, or to have them in its cache"
    echo "$packages" >"$folder/installed"
fi

rm -f "$folder"/libverrou-*.tgz
(cd "$here/.." && npm pack --loglevel=error --pack-destination "$folder" >/dev/null) || die "npm pack failed"
tarball=$(echo "$folder"/libverrou-*.tgz)
built="$packages $(cksum <"$tarball")"
if [ "$(cat "$folder/built" 2>/dev/null || true)" != "$built" ]; then
    rm -rf "$folder/built" "$folder/node_modules/libverrou"
    (cd "$folder" && npm install --no-save --loglevel=error --prefer-offline --no-audit --no-fund --foreground-scripts "$tarball" \
        </dev/null >"$folder/build.log" 2>&1) || {
        cat "$folder/build.log" >&2
        die "the tarball cannot be installed"
    }
    echo "$built" >"$folder/built"
fi

rm -rf "$folder/types"
cp -R "$here"/*.mjs "$here/types" "$folder/"
printf '#!/bin/sh\ncd "%s" && PATH="%s:$PATH" && exec "%s" "$@"\n' "$folder" "$(dirname "$node")" "$node" >"$folder/node.new"
chmod +x "$folder/node.new"
mv "$folder/node.new" "$folder/node"
