#!/bin/sh
# packages.sh - the one list of the Debian packages that building, testing and checking Verrou needs; installs those that are missing.
#
#     scripts/packages.sh build|test|lint|fuzz|coverage...
#
# Does nothing, and asks no network, if everything is there. Installs as root, or through sudo. On other systems it says what is needed.
set -eu

build="gcc libc6-dev make cmake pkg-config libjansson-dev libinih-dev libsqlite3-dev libhiredis-dev libssl-dev libpq-dev libmariadb-dev unixodbc-dev"
# redis-tools has the Redis server as well, under the name redis-check-rdb, which is how the tests run it. The package redis-server
# adds a system service, which would listen on port 6379 of the developer's machine from then on.
tests="g++ libcmocka-dev mandoc zlib1g-dev redis-tools openssl faketime"
# For the same reason these, and not mariadb-server.
tests="$tests mariadb-server-core mariadb-client-core"
# These two have no such part; without_services below keeps theirs from running.
tests="$tests postgresql pgbouncer"
tests="$tests odbc-postgresql odbc-mariadb libsqliteodbc"
# The original, which we are tested beside, comes from npm. With npm comes a Node.js; whether it is new enough, scripts/node.sh sees to.
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    tests="$tests nodejs npm"
fi
# The headers of Node.js, for its package, unless they came with it. Those of Debian's 18 do for all later ones: Node-API keeps.
node_prefix=$(dirname "$(dirname "$(command -v node || echo /usr/bin/node)")")
if [ ! -e "$node_prefix/include/node/node_api.h" ] && [ ! -e /usr/include/node/node_api.h ]; then
    tests="$tests libnode-dev libuv1-dev"
fi
lint="clang clang-format clang-tidy cppcheck mandoc"
fuzz="clang libclang-rt-dev"
coverage="gcovr"

die()
{
    echo "packages.sh: $*" >&2
    exit 1
}

[ $# -gt 0 ] || die "which packages? build, test, lint, fuzz or coverage"
wanted=
for group in "$@"; do
    case $group in
    build) wanted="$wanted $build" ;;
    test) wanted="$wanted $build $tests" ;;
    lint) wanted="$wanted $build $tests $lint" ;;
    fuzz) wanted="$wanted $build $tests $fuzz" ;;
    coverage) wanted="$wanted $build $tests $coverage" ;;
    *) die "no group of packages is called '$group'" ;;
    esac
done

# Elsewhere the names differ, so this does not stop the build: what is really missing, cmake will say.
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "packages.sh: this is not a Debian system. Needed, by their Debian names:$wanted" >&2
    exit 0
fi

missing=
for package in $wanted; do
    case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed*) ;;
    *) case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root, and there is no sudo. As root, run: apt-get install$missing"
    as_root=sudo
fi
echo "Installing:$missing"
# env, because sudo drops variables that are merely exported. No standard input: a question would hang an unattended run.
apt()
{
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@" </dev/null
}
# A package that is there already stays as it is: somebody may use its service. PostgreSQL's service runs the clusters of data that exist,
# and the package makes one, on port 5432, unless this file says otherwise; pgbouncer's would listen on port 6432, unless it is masked.
without_services()
{
    case " $missing " in *" postgresql "*)
        if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && [ ! -e /etc/postgresql-common/createcluster.d/verrou.conf ]; then
            $as_root mkdir -p /etc/postgresql-common/createcluster.d
            echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.d/verrou.conf >/dev/null
            echo "No PostgreSQL cluster is made: /etc/postgresql-common/createcluster.d/verrou.conf"
        fi
        ;;
    esac
    case " $missing " in *" pgbouncer "*)
        if [ ! -e /etc/systemd/system/pgbouncer.service ] && [ ! -L /etc/systemd/system/pgbouncer.service ]; then
            $as_root mkdir -p /etc/systemd/system
            $as_root ln -s /dev/null /etc/systemd/system/pgbouncer.service
            echo "pgbouncer's service is masked: systemctl unmask pgbouncer"
        fi
        ;;
    esac
}
without_services
# The lists may be absent or older than the archive: fetch them once, then again only if that turns out to be the trouble.
# shellcheck disable=SC2086 # a list of words
if ! apt install -y --no-install-recommends $missing >/dev/null 2>&1; then
    apt update
    apt install -y --no-install-recommends $missing
fi
