// every_header.cc - the public headers from C++: all of them in one file, and a lock taken and given back.
#include <cstdio>
#include <verrou/conformance.h>
#include <verrou/redis.h>
#include <verrou/sqlite.h>
#include <verrou/store.h>
#include <verrou/verrou.h>

int main(int argc, char **argv)
{
    verrou_store *store = nullptr;
    verrou_lock *lock = nullptr;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    options.ttl_ms = 10000;

    bool good = verrou_store_open(argc > 1 ? argv[1] : "memory:", nullptr, &store, &err) == VERROU_OK &&
                verrou_lock_new(store, "from C++", &options, &lock, &err) == VERROU_OK &&
                verrou_lock_acquire(lock, nullptr, nullptr, &err) == VERROU_OK &&
                verrou_lock_release(lock, nullptr, &err) == VERROU_OK;
    if (!good)
        std::fprintf(stderr, "every_header: %s\n", err.message);
    verrou_lock_free(lock);
    verrou_store_close(store);
    return good ? 0 : 1;
}
