/*
 * first_lock.c - the smallest whole program: take a lock, work, give it back.
 *
 *     cc -o first_lock first_lock.c $(pkg-config --cflags --libs verrou)
 *     ./first_lock sqlite:/tmp/locks.db
 *
 * Run it in several terminals, or many times at once: each waits until the one before it is done.
 */
#include <stdio.h>
#include <verrou/verrou.h>

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "memory:";
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    status = verrou_store_open(address, NULL, &store, &err);
    if (status != VERROU_OK)
        goto done;
    status = verrou_lock_new(store, "account:42", NULL, &lock, &err);
    if (status != VERROU_OK)
        goto done;

    status = verrou_lock_acquire(lock, NULL, NULL, &err);
    if (status != VERROU_OK)
        goto done;
    printf("I hold %s for %lld ms, fencing token %llu\n", verrou_lock_key(lock),
           (long long)verrou_lock_remaining_ms(lock), (unsigned long long)verrou_lock_fence(lock));

    /* Anything but VERROU_OK here means that the lease ended before the work did. */
    status = verrou_lock_release(lock, NULL, &err);

done:
    if (status != VERROU_OK)
        fprintf(stderr, "first_lock: %s: %s\n", verrou_status_name(status), err.message);
    verrou_lock_free(lock);
    verrou_store_close(store);
    return status == VERROU_OK ? 0 : 1;
}
