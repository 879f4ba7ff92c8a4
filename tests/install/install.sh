#!/bin/sh
# install.sh TEST: one test against the installed tree. BUILD, SOURCE, CC and CMAKE come from CMakeLists.txt.
set -eu

here=$SOURCE/tests/install
tree=$BUILD/installed            # where the moved tree lies
work=$BUILD/install-test/$1
rm -rf "$work"
mkdir -p "$work"
cd "$work"
flags="-Wall -Wextra -Werror"

# Nothing but the moved tree may answer.
export PKG_CONFIG_PATH="$tree/lib/pkgconfig"
unset LD_LIBRARY_PATH VERROU_STORE LOCK_STORE 2>/dev/null || true

fail()
{
    echo "install/$test: $*" >&2
    exit 1
}
test=$1

# shellcheck disable=SC2046,SC2086 # lists of words, all through this file
case $test in
tree)
    # Each kind of file is there, and the tree still works after it was moved: nothing in it says where it was installed.
    rm -rf "$BUILD/installed-first" "$tree"
    "$CMAKE" --install "$BUILD" --prefix "$BUILD/installed-first" >install.log
    mv "$BUILD/installed-first" "$tree"
    for file in include/verrou/verrou.h include/verrou/store.h include/verrou/conformance.h \
        lib/libverrou.so lib/libverrou.so.0 lib/libverrou.a lib/pkgconfig/verrou.pc lib/pkgconfig/verrou-conformance.pc \
        lib/cmake/verrou/verrou-config.cmake bin/verrou share/man/man1/verrou.1 share/man/man3/verrou.3 \
        share/man/man5/verrou.conf.5 share/man/man7/verrou-stores.7 share/bash-completion/completions/verrou share/verrou/schema/postgres.sql; do
        [ -e "$tree/$file" ] || fail "$file was not installed"
    done
    if grep -rIl "installed-first" "$tree" >leaks; then
        fail "these files name the folder that they were installed into: $(cat leaks)"
    fi
    ;;
shared)
    # pkg-config leads to the shared library.
    $CC -std=c11 $flags -o first_lock "$SOURCE/examples/first_lock.c" $(pkg-config --cflags --libs verrou) -Wl,-rpath,"$tree/lib"
    readelf -d first_lock | grep -q 'libverrou\.so\.0' || fail "the program does not use the shared library"
    ./first_lock memory:
    ;;
static)
    # pkg-config --static names all that a program without shared libraries needs.
    $CC -std=c11 $flags -static -o first_lock "$SOURCE/examples/first_lock.c" $(pkg-config --static --cflags --libs verrou) \
        2>link.log || { cat link.log >&2; fail "static linking failed"; }
    ./first_lock memory:
    ;;
cxx)
    # The headers serve C++.
    g++ -std=c++17 $flags -o every_header "$here/every_header.cc" $(pkg-config --cflags --libs verrou) -Wl,-rpath,"$tree/lib"
    ./every_header memory:
    ;;
sqlite)
    # The installed library finds the SQLite store beside itself; a static program carries it inside.
    $CC -std=c11 $flags -o first_lock "$SOURCE/examples/first_lock.c" $(pkg-config --cflags --libs verrou) -Wl,-rpath,"$tree/lib"
    ./first_lock "sqlite:$work/locks.db"
    $CC -std=c11 $flags -static -o linked_store "$here/linked_store.c" \
        $(pkg-config --static --cflags --libs verrou-sqlite verrou) 2>link.log ||
        { cat link.log >&2; fail "static linking failed"; }
    ./linked_store "sqlite:$work/linked.db"
    [ -s "$work/linked.db" ] || fail "no database was made"
    ;;
redis)
    # The same for Redis, on a server of the test's own. redis-check-rdb is the server under another name. The store waits for it.
    server=$(command -v redis-server || command -v redis-check-rdb) || fail "there is no Redis server"
    place=$(mktemp -d) # the path of a socket has to be short
    ln -s "$server" redis-server
    ./redis-server --port 0 --unixsocket "$place/socket" --save "" --dir "$place" --logfile "$work/redis.log" >redis.out 2>&1 &
    trap 'kill $!; wait $! || true; rm -rf "$place"' EXIT
    $CC -std=c11 $flags -o first_lock "$SOURCE/examples/first_lock.c" $(pkg-config --cflags --libs verrou) -Wl,-rpath,"$tree/lib"
    ./first_lock "redis+unix://$place/socket?timeout=60s"
    $CC -std=c11 $flags -DREDIS -static -o linked_store "$here/linked_store.c" \
        $(pkg-config --static --cflags --libs verrou-redis verrou) 2>link.log ||
        { cat link.log >&2; fail "static linking failed"; }
    ./linked_store "redis+unix://$place/socket?timeout=60s"
    ;;
package)
    # find_package() leads to every library, for C and C++, shared and static.
    mkdir project
    cp "$here/project.cmake" project/CMakeLists.txt
    "$CMAKE" -S project -B out -DCMAKE_PREFIX_PATH="$tree" -DEXAMPLES="$SOURCE/examples" -DSOURCES="$here" \
        -DCMAKE_FIND_USE_SYSTEM_PACKAGE_REGISTRY=OFF >configure.log
    grep -q "verrou_DIR:PATH=$tree/" out/CMakeCache.txt || fail "another verrou was found"
    "$CMAKE" --build out >build.log || { cat build.log >&2; fail "the project does not build"; }
    for program in shared_c shared_cxx static_c; do
        out/$program memory:
    done
    out/shared_c "sqlite:$work/shared.db"
    out/linked_store "sqlite:$work/linked.db"
    out/conforming "sqlite:$work/conforming.db" >conforming.log || { tail -20 conforming.log >&2; fail "the suite failed"; }
    ;;
command)
    # The installed command finds its library without help, and the library the store.
    HOME=$work "$tree/bin/verrou" version
    HOME=$work "$tree/bin/verrou" --store memory: run key -- true
    ;;
*)
    fail "no such test"
    ;;
esac
