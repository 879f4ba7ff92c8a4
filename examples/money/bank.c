/*
 * bank.c - many processes that transfer money at random between the accounts of one file.
 *
 *     bank FILE PROCESSES TRANSFERS                      without a lock
 *     bank FILE PROCESSES TRANSFERS --locked ADDRESS     each transfer under the lock "accounts" of that store
 *
 * It prints the money before and after; the exit code is 0 if it is the same, 2 if it is not, 1 for a failure.
 */
#include "accounts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <verrou/verrou.h>

struct bank {
    const char *path;
    const char *address; /* NULL: no lock */
    int accounts;
    int transfers;
    unsigned seed;
};

static int transfer_at_random(struct bank *bank)
{
    int from = rand_r(&bank->seed) % bank->accounts;
    int to = (from + 1 + rand_r(&bank->seed) % (bank->accounts - 1)) % bank->accounts;

    return accounts_transfer(bank->path, from, to, 1 + rand_r(&bank->seed) % 9999);
}

/* One transfer under the lock. A lease that ended too early is a failure: somebody else may have been in the accounts,
 * too. */
static int transfer_locked(struct bank *bank, verrou_lock *lock, verrou_error *err)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int failed;

    options.delay_ms = 10; /* of other processes' releases this store may not tell: look often */
    if (verrou_lock_acquire(lock, &options, NULL, err) != VERROU_OK)
        return -1;
    failed = transfer_at_random(bank);
    return verrou_lock_release(lock, NULL, err) == VERROU_OK ? failed : -1;
}

/* A process of the bank. After fork() it opens the store itself. */
static int teller(struct bank *bank)
{
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    int failed = 0;

    if (bank->address)
        failed = verrou_store_open(bank->address, NULL, &store, &err) != VERROU_OK ||
                 verrou_lock_new(store, "accounts", NULL, &lock, &err) != VERROU_OK;
    for (int at = 0; at < bank->transfers && !failed; at++)
        failed = lock ? transfer_locked(bank, lock, &err) : transfer_at_random(bank);
    if (failed)
        fprintf(stderr, "bank: a transfer failed: %s\n", err.message[0] ? err.message : "the accounts cannot be used");

    verrou_lock_free(lock);
    verrou_store_close(store);
    return failed ? 1 : 0;
}

static int tellers_run(struct bank *bank, int processes)
{
    int started = 0, failed = 0, status;

    fflush(NULL);
    for (; started < processes; started++) {
        pid_t child = fork();

        if (child == 0) {
            bank->seed = (unsigned)getpid() ^ (unsigned)time(NULL);
            exit(teller(bank));
        }
        if (child < 0)
            break;
    }
    failed = started < processes;
    while (started-- > 0)
        if (wait(&status) < 0 || status != 0)
            failed = 1;
    return failed;
}

int main(int argc, char **argv)
{
    struct bank bank = {argc > 1 ? argv[1] : "", NULL, 0, argc > 3 ? atoi(argv[3]) : 0, 0};
    long long before = 0, after = 0;
    int processes = argc > 2 ? atoi(argv[2]) : 0;

    if (argc == 6 && strcmp(argv[4], "--locked") == 0)
        bank.address = argv[5];
    if ((argc != 4 && !bank.address) || processes < 1 || bank.transfers < 1) {
        fputs("usage: bank FILE PROCESSES TRANSFERS [--locked ADDRESS]\n", stderr);
        return 1;
    }
    if (accounts_total(bank.path, &bank.accounts, &before) != 0 || bank.accounts < 2) {
        perror(bank.path);
        return 1;
    }

    if (tellers_run(&bank, processes) != 0)
        return 1;
    if (accounts_total(bank.path, &bank.accounts, &after) != 0) {
        perror(bank.path);
        return 1;
    }
    printf("%d processes, %d transfers: %lld.%02lld before, %lld.%02lld after\n", processes, processes * bank.transfers,
           before / 100, before % 100, after / 100, llabs(after % 100));
    return after == before ? 0 : 2;
}
