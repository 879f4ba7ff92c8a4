#!/bin/sh
# install.sh - brings into FOLDER what the tests of the stores need: the clients that applications give us, the original, and the package, which
# node/install has installed from its tarball into PACKAGE-FOLDER.
#
#     bindings/node/tests/stores/install.sh FOLDER PACKAGE-FOLDER NODE-FOLDER
#
# The packages are those of package-lock.json, from npm's cache or its registry; they are installed once, and kept until that or the Node.js
# changes. better-sqlite3 is compiled here, with the headers that came with the Node.js.
set -eu

die()
{
    echo "tests of the Node.js stores: $*" >&2
    exit 1
}

[ $# -eq 3 ] || die "usage: install.sh FOLDER PACKAGE-FOLDER NODE-FOLDER"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
package=$(cd "$2/node_modules/libverrou" && pwd) || die "the package is not installed in $2"
node=$(sh "$here/../../../../scripts/node.sh" "$3") || die "there is no Node.js to test on"
command -v npm >/dev/null || die "there is no npm to install packages with"
PATH=$(dirname "$node"):$PATH
export PATH

headers=$(dirname "$(dirname "$(readlink -f "$node")")")
[ -e "$headers/include/node/node_version.h" ] || die "the headers of $node are missing: there is no $headers/include/node"

wanted="$("$node" --version) $(cksum <"$here/package-lock.json")"
if [ "$(cat "$folder/installed" 2>/dev/null || true)" != "$wanted" ]; then
    rm -f "$folder/installed"
    cp "$here/package.json" "$here/package-lock.json" "$folder/"
    (cd "$folder" && npm ci --loglevel=error --prefer-offline --ignore-scripts --no-audit --no-fund </dev/null) ||
        die "npm could not install the packages that the tests need. It needs to reach its registry once, or to have them in its cache"
    (cd "$folder" && npm_config_build_from_source=true npm_config_nodedir="$headers" \
        npm rebuild --loglevel=error --foreground-scripts better-sqlite3 </dev/null >build.log 2>&1) || {
        cat "$folder/build.log" >&2
        die "better-sqlite3 cannot be compiled"
    }
    echo "$wanted" >"$folder/installed"
fi

# Copied, because Node.js looks for packages from where a module lies.
rm -rf "$folder/node_modules/libverrou"
cp -R "$package" "$folder/node_modules/libverrou"
rm -rf "$folder/types"
cp -R "$here"/*.mjs "$here/types" "$folder/"
printf '#!/bin/sh\ncd "%s" && PATH="%s:$PATH" && exec "%s" run.mjs "$@"\n' "$folder" "$(dirname "$node")" "$node" >"$folder/run.new"
chmod +x "$folder/run.new"
mv "$folder/run.new" "$folder/run"
