/*
 * own_stores.c - uses the two stores of this folder, and checks what they promise: the file store keeps a second owner
 * out, also one that comes through another store handle; the no-op store lets everybody in.
 *
 *     ./own_stores FILE
 */
#include "file_store.h"
#include "noop_store.h"
#include <stdio.h>

/* Let two owners ask for one key, each through a store handle of its own, and say how many get it. */
static int ask_twice(verrou_store *first, verrou_store *second, verrou_error *err)
{
    verrou_lock *a = NULL, *b = NULL;
    int granted = -1;

    if (verrou_lock_new(first, "printer", NULL, &a, err) != VERROU_OK ||
        verrou_lock_new(second, "printer", NULL, &b, err) != VERROU_OK)
        goto done;

    granted = verrou_lock_acquire_immediately(a, NULL, err) == VERROU_OK;
    granted += verrou_lock_acquire_immediately(b, NULL, err) == VERROU_OK;
    verrou_lock_release(a, NULL, NULL);
    verrou_lock_release(b, NULL, NULL);
done:
    verrou_lock_free(a);
    verrou_lock_free(b);
    return granted;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "file_store.locks";
    verrou_store *file = NULL, *same_file = NULL, *noop = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    int by_file = -1, by_noop = -1;

    if (file_store_open(path, "prefix=office:", &file, &err) == VERROU_OK &&
        file_store_open(path, "prefix=office:", &same_file, &err) == VERROU_OK)
        by_file = ask_twice(file, same_file, &err);
    if (noop_store_open(&noop, &err) == VERROU_OK)
        by_noop = ask_twice(noop, noop, &err);
    printf("Of two owners the file store let %d in, the no-op store %d.\n", by_file, by_noop);
    if (by_file != 1 || by_noop != 2)
        fprintf(stderr, "own_stores: expected 1 and 2: %s\n", err.message);

    verrou_store_close(file);
    verrou_store_close(same_file);
    verrou_store_close(noop);
    return by_file == 1 && by_noop == 2 ? 0 : 1;
}
