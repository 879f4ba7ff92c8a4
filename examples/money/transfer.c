/*
 * transfer.c - move money from one account to another, once.
 *
 *     transfer FILE FROM TO CENTS                       as naively as can be
 *     transfer --locked ADDRESS FILE FROM TO CENTS      under the lock "accounts" of that store
 *     transfer --open FILE ACCOUNTS CENTS               make a bank
 *     transfer --total FILE                             count its money
 */
#include "accounts.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <verrou/verrou.h>

static int usage(void)
{
    fputs("usage: transfer [--locked ADDRESS] FILE FROM TO CENTS\n"
          "       transfer --open FILE ACCOUNTS CENTS\n"
          "       transfer --total FILE\n",
          stderr);
    return 64;
}

static int report(int failed, const char *path)
{
    if (failed)
        fprintf(stderr, "transfer: %s: %s\n", path, strerror(errno));
    return failed ? 1 : 0;
}

static int total(const char *path)
{
    long long cents = 0;
    int count = 0, failed = accounts_total(path, &count, &cents);

    if (!failed)
        printf("%lld\n", cents);
    return report(failed, path);
}

static int plain(char **argv)
{
    return report(accounts_transfer(argv[0], atoi(argv[1]), atoi(argv[2]), atoll(argv[3])), argv[0]);
}

/* The body of the lock: nobody else is between its first and its last line. */
static int body(void *user, verrou_lock *lock)
{
    (void)lock;
    return plain(user);
}

static int locked(const char *address, char **argv)
{
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    int result = 1;

    status = verrou_store_open(address, NULL, &store, &err);
    if (status == VERROU_OK)
        status = verrou_lock_new(store, "accounts", NULL, &lock, &err);
    if (status == VERROU_OK)
        status = verrou_lock_run(lock, NULL, body, argv, NULL, &result, &err);
    if (status != VERROU_OK)
        fprintf(stderr, "transfer: %s: %s\n", verrou_status_name(status), err.message);

    verrou_lock_free(lock);
    verrou_store_close(store);
    return status == VERROU_OK ? result : 1;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--open") == 0)
        return report(accounts_create(argv[2], atoi(argv[3]), atoll(argv[4])), argv[2]);
    if (argc == 3 && strcmp(argv[1], "--total") == 0)
        return total(argv[2]);
    if (argc == 7 && strcmp(argv[1], "--locked") == 0)
        return locked(argv[2], argv + 3);
    if (argc == 5 && argv[1][0] != '-')
        return plain(argv + 1);
    return usage();
}
