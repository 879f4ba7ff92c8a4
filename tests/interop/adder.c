/*
 * adder.c - our side of the test the_sum_is_exact: adder ADDRESS KEY FILE TIMES SEED adds to the sum in FILE under the lock KEY, taking and
 * giving back the lock in all the ways there are. count() in node/peer.mjs is its counterpart, line by line. Behind the sum FILE has the number
 * of times that the turn went from one kind of process to the other, and a letter for the kind that was last.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <verrou/verrou.h>

#define LEASE_MS 120000
#define SHORT_LEASE_MS 10

static uint64_t state;
static verrou_store *store;
static const char *key;

static double chance(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(state >> 33) / 2147483648.0;
}

static void must(verrou_status status, const char *what, const verrou_error *err)
{
    if (status == VERROU_OK)
        return;
    fprintf(stderr, "adder: %s: %s\n", what, err->message);
    exit(1);
}

static void must_not_fail(int failed, const char *what)
{
    if (!failed)
        return;
    fprintf(stderr, "adder: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void think(double ms)
{
    struct timespec pause = {0, (long)(ms * 1e6)};

    nanosleep(&pause, NULL);
}

static void add(const char *file)
{
    char inside[512];
    long sum = -1;
    long turns = -1;
    char last = '?';
    FILE *open_file;
    int mark;

    snprintf(inside, sizeof(inside), "%s.inside", file);
    mark = open(inside, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    must_not_fail(mark < 0, "somebody else is inside");
    close(mark);
    open_file = fopen(file, "r");
    must_not_fail(!open_file || fscanf(open_file, "%ld %ld %c", &sum, &turns, &last) != 3 || fclose(open_file),
                  "the sum cannot be read");
    think(chance() * 3);
    open_file = fopen(file, "w");
    must_not_fail(!open_file || fprintf(open_file, "%ld %ld C", sum + 1, turns + (last != 'C')) < 0 ||
                      fclose(open_file),
                  "the sum cannot be written");
    must_not_fail(unlink(inside), "the mark is gone");
}

/* NULL: on a busy machine a short lease can be over before its answer is here, again and again. */
static verrou_lock *take(int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_acquire_options waits = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_lock *lock = NULL;
    verrou_status status;

    options.ttl_ms = ttl_ms;
    waits.delay_ms = 1 + (int64_t)(chance() * 4);
    must(verrou_lock_new(store, key, &options, &lock, &err), "new", &err);
    if (chance() < 0.5)
        status = verrou_lock_acquire(lock, &waits, NULL, &err);
    else
        while ((status = verrou_lock_acquire_immediately(lock, NULL, &err)) == VERROU_ENOTACQUIRED)
            think(1 + chance() * 4);
    if (status == VERROU_ESTORAGE && ttl_ms == SHORT_LEASE_MS && strstr(err.message, "is over before")) {
        verrou_lock_free(lock);
        return NULL;
    }
    must(status, "acquire", &err);
    return lock;
}

static void release(verrou_lock *lock)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_lock *handle = NULL;
    char *json = NULL;

    if (chance() < 0.3) {
        must(verrou_lock_serialize(lock, &json, &err), "serialize", &err);
        must(verrou_lock_restore(store, json, NULL, &handle, &err), "restore", &err);
        must(verrou_lock_release(handle, NULL, &err), "release of the restored lock", &err);
    } else {
        must(verrou_lock_release(lock, NULL, &err), "release", &err);
    }
    verrou_lock_free(handle);
    verrou_free(json);
}

int main(int argc, char **argv)
{
    verrou_error err = VERROU_ERROR_INIT;

    if (argc != 6) {
        fprintf(stderr, "usage: adder ADDRESS KEY FILE TIMES SEED\n");
        return 64;
    }
    key = argv[2];
    state = (uint64_t)atoi(argv[5]);
    must(verrou_store_open(argv[1], NULL, &store, &err), "open", &err);
    for (int done = 0; done < atoi(argv[4]); done++) {
        verrou_lock *lock;

        if (chance() < 0.1)
            verrou_lock_free(take(SHORT_LEASE_MS)); /* and left to run out */
        lock = take(chance() < 0.3 ? VERROU_FOREVER : LEASE_MS);
        if (chance() < 0.2)
            must(verrou_lock_extend(lock, LEASE_MS, NULL, &err), "extend", &err);
        add(argv[3]);
        release(lock);
        verrou_lock_free(lock);
    }
    verrou_store_close(store);
    return 0;
}
