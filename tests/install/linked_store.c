/*
 * linked_store.c - a program that carries a store inside itself instead of having it loaded: it links with the static libraries and
 * registers the driver before the first address is opened. SQLite, or with -DREDIS Redis.
 */
#include <stdio.h>
#ifdef REDIS
#include <verrou/redis.h>
#define DRIVER verrou_redis_driver()
#else
#include <verrou/sqlite.h>
#define DRIVER verrou_sqlite_driver()
#endif

int main(int argc, char **argv)
{
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    int good;

    good = argc == 2 && verrou_register_driver(DRIVER, &err) == VERROU_OK &&
           verrou_store_open(argv[1], NULL, &store, &err) == VERROU_OK &&
           verrou_lock_new(store, "linked", NULL, &lock, &err) == VERROU_OK &&
           verrou_lock_acquire(lock, NULL, NULL, &err) == VERROU_OK &&
           verrou_lock_release(lock, NULL, &err) == VERROU_OK;
    if (!good)
        fprintf(stderr, "linked_store: %s\n", err.message);
    verrou_lock_free(lock);
    verrou_store_close(store);
    return good ? 0 : 1;
}
