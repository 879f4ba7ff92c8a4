#!/bin/sh
# install.sh - makes the example application (examples/adonis) run in FOLDER with AdonisJS 6 or 7: brings its packages, with our tarball in the place of
# @verrou/core by an override, and compiles it.
#
#     bindings/node/tests/adonis/install.sh 6|7 FOLDER PACKAGE-FOLDER NODE-FOLDER
#
# The tarball is the one that node/install has made in PACKAGE-FOLDER. The packages are those of 6/ or 7/package-lock.json, from npm's cache or its
# registry. They, and the addon, which is compiled for the release of Node.js that this AdonisJS wants, are kept until something of it changes.
set -eu

die()
{
    echo "AdonisJS test: $*" >&2
    exit 1
}

[ $# -eq 4 ] || die "usage: install.sh 6|7 FOLDER PACKAGE-FOLDER NODE-FOLDER"
here=$(cd "$(dirname "$0")" && pwd)
list=$here/$1
case $1 in
6) release=20 ;;
7) release=24 ;;
*) die "there is no AdonisJS $1 here" ;;
esac
mkdir -p "$2"
folder=$(cd "$2" && pwd)
tarball=$(echo "$3"/libverrou-*.tgz)
[ -e "$tarball" ] || die "there is no tarball in $3"
node=$(sh "$here/../../../../scripts/node.sh" "$4-$release" $release) || die "there is no Node.js $release to run AdonisJS $1 on"
command -v npm >/dev/null || die "there is no npm to install packages with"
PATH=$(dirname "$node"):$PATH
export PATH

wanted="$("$node" --version) $(cksum <"$tarball") $(cksum <"$list/package-lock.json")"
if [ "$(cat "$folder/installed" 2>/dev/null || true)" != "$wanted" ]; then
    rm -f "$folder/installed"
    cp "$list/package.json" "$list/package-lock.json" "$folder/"
    cp "$tarball" "$folder/libverrou.tgz"
    # Without peers: the framework names some for building and for parts that are not used here.
    (cd "$folder" && npm ci --legacy-peer-deps --loglevel=error --prefer-offline --ignore-scripts --no-audit --no-fund </dev/null) ||
        die "npm could not install the packages that the test needs. It needs to reach its registry once, or to have them in its cache"
    (cd "$folder" && npm rebuild --loglevel=error --foreground-scripts @verrou/core </dev/null >build.log 2>&1) || {
        cat "$folder/build.log" >&2
        die "the addon cannot be compiled"
    }
    echo "$wanted" >"$folder/installed"
fi

for part in adonisrc.ts app bin build commands config database start; do
    rm -rf "${folder:?}/$part"
    [ $part = build ] || cp -R "$here/../../../../examples/adonis/$part" "$folder/"
done
cp "$here/../../../../examples/adonis/tsconfig.json" "$here/types.ts" "$here/adonis.test.mjs" "$here/../stores/servers.mjs" "$folder/"
# AdonisJS 6 has app.appKey in its place.
[ "$1" != 6 ] || rm "$folder/config/encryption.ts"
(cd "$folder" && "$node" node_modules/typescript/bin/tsc) || die "the application does not compile"
cp "$folder/package.json" "$folder/build/"
printf '#!/bin/sh\ncd "%s" && PATH="%s:$PATH" && exec "%s" "$@"\n' "$folder" "$(dirname "$node")" "$node" >"$folder/node.new"
chmod +x "$folder/node.new"
mv "$folder/node.new" "$folder/node"
