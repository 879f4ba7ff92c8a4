/*
 * lock_store_test.c - the conformance suite on a store of five calls: the file store of the examples. Its processes
 * share it, which the five calls cannot say; a suite that promises nothing of the kind leaves that to the last part of
 * this test.
 */
#include "file_store.h"
#include "folder.h"
#include <sys/wait.h>
#include <verrou/conformance.h>

static char path[FOLDER_PATH + 16];

static verrou_status open_file(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return file_store_open(path, "prefix=files/", ret_store, err);
}

/* Add 1 to the number in a file so many times, each time under the lock. */
static int count_up(const char *counter, int rounds)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    int failed =
        open_file(NULL, &store, NULL) != VERROU_OK || verrou_lock_new(store, "count", NULL, &lock, NULL) != VERROU_OK;

    options.delay_ms = 3;
    for (int round = 0; round < rounds && !failed; round++) {
        int number = 0;
        FILE *file;

        failed = verrou_lock_acquire(lock, &options, NULL, NULL) != VERROU_OK;
        file = failed ? NULL : fopen(counter, "r+");
        failed = failed || !file || fscanf(file, "%d", &number) != 1;
        if (file) {
            rewind(file);
            failed |= fprintf(file, "%d\n", number + 1) < 0;
            failed |= fclose(file) != 0;
        }
        failed |= verrou_lock_release(lock, NULL, NULL) != VERROU_OK;
    }
    verrou_lock_free(lock);
    verrou_store_close(store);
    return failed;
}

/* Processes exclude each other. Returns the number of failures, 0 or 1. */
static int processes_count(const char *folder)
{
    enum { PROCESSES = 4, ROUNDS = 15 };
    char counter[256];
    int number = 0, failed = 0, status;
    FILE *file;

    snprintf(counter, sizeof counter, "%s/counter", folder);
    file = fopen(counter, "w");
    if (!file || fputs("0\n", file) < 0 || fclose(file) != 0)
        return 1;
    fflush(NULL);
    for (int process = 0; process < PROCESSES; process++) {
        pid_t child = fork();

        if (child == 0)
            _exit(count_up(counter, ROUNDS));
        failed |= child < 0;
    }
    for (int process = 0; process < PROCESSES; process++)
        failed |= wait(&status) < 0 || status != 0;

    file = fopen(counter, "r");
    failed |= !file || fscanf(file, "%d", &number) != 1 || number != PROCESSES * ROUNDS;
    if (file)
        fclose(file);
    if (failed)
        fprintf(stderr, "processes do not exclude each other: counted to %d of %d\n", number, PROCESSES * ROUNDS);
    return failed;
}

int main(void)
{
    char folder[FOLDER_PATH];
    verrou_conformance suite = {sizeof suite, "five calls on a file", open_file, NULL, 0};
    int failed;

    folder_make(folder);
    snprintf(path, sizeof path, "%s/locks", folder);
    failed = verrou_conformance_run(&suite) + processes_count(folder);
    folder_remove(folder);
    return failed == 0 ? 0 : 1;
}
