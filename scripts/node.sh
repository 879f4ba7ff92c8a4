#!/bin/sh
# node.sh - prints the path of a Node.js that is new enough for the tests, or of release MAJOR: the one on PATH, or else one that npm puts into
# FOLDER.
#
#     scripts/node.sh FOLDER [MAJOR]
#
# Debian 12 has Node.js 18, the original says that it wants 20.6. The npm registry has Node.js itself as packages, whose versions and
# hashes are in scripts/node/package-lock.json and scripts/node/MAJOR/package-lock.json. What is in FOLDER already is not fetched again. Needs npm, on any Node.js.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

die()
{
    echo "node.sh: $*" >&2
    exit 1
}

wanted()
{
    "$1" -e 'const [major, minor] = process.versions.node.split(".").map(Number)
        const [, wanted = major] = process.argv
        process.exit((major > 20 || (major === 20 && minor >= 6)) && major === Number(wanted) ? 0 : 1)' $release 2>/dev/null
}

# Prints the one in $folder, if it is of the wanted version.
fetched()
{
    cmp -s "$list/package-lock.json" "$folder/installed" || return 1
    for candidate in "$folder"/node_modules/node-*/bin/node; do
        wanted "$candidate" && echo "$candidate" && return 0
    done
    return 1
}

[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: node.sh FOLDER [MAJOR]"
release=${2:-}
list=$here/node${release:+/$release}
[ -e "$list/package-lock.json" ] || die "there is no $list/package-lock.json"
what="Node.js ${release:-20.6 or later}"
found=$(command -v node || true)
if [ -n "$found" ] && wanted "$found"; then
    echo "$found"
    exit 0
fi

mkdir -p "$1"
folder=$(cd "$1" && pwd)
fetched && exit 0
command -v npm >/dev/null || die "there is no $what, and no npm to fetch one with"
echo "node.sh: fetching Node.js, because ${found:-node} is not $what, or missing" >&2
rm -f "$folder/installed"
cp "$list/package.json" "$list/package-lock.json" "$folder/"
(cd "$folder" && npm ci --loglevel=error --prefer-offline --ignore-scripts --no-audit --no-fund >&2 </dev/null) ||
    die "npm could not fetch Node.js"
cp "$list/package-lock.json" "$folder/installed"
# The packages are optional, being for one kind of machine each; so npm is content with none, whatever the reason.
fetched || die "npm fetched no Node.js: its registry cannot be reached, or has none for this system. Install $what"
