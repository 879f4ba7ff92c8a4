/*
 * accounts.c - reads and writes the accounts as most programs would: look, compute, write back. Two that do so at once
 * overwrite each other's result, and money appears or disappears.
 */
#include "accounts.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 24 }; /* "%06d %16lld\n" */

static int line_write(int fd, int account, long long cents)
{
    char line[LINE + 1];

    if (account < 0 || account > 999999 || snprintf(line, sizeof line, "%06d %16lld\n", account, cents) != LINE) {
        errno = ERANGE;
        return -1;
    }
    return pwrite(fd, line, LINE, (off_t)account * LINE) == LINE ? 0 : -1;
}

static int line_read(int fd, int account, long long *ret_cents)
{
    char line[LINE + 1] = "";
    ssize_t got = pread(fd, line, LINE, (off_t)account * LINE);
    char *end;

    if (got == LINE && strtol(line, &end, 10) == account && *end == ' ') {
        *ret_cents = strtoll(end, &end, 10);
        if (*end == '\n')
            return 0;
    }
    if (got >= 0)
        errno = EINVAL; /* no such account, or not our file */
    return -1;
}

int accounts_create(const char *path, int count, long long cents_each)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), failed = fd < 0;

    for (int account = 0; account < count && !failed; account++)
        failed = line_write(fd, account, cents_each) != 0;
    if (fd >= 0 && close(fd) != 0)
        failed = 1;
    return failed ? -1 : 0;
}

int accounts_total(const char *path, int *ret_count, long long *ret_total)
{
    long long total = 0, cents;
    int count = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size;

    if (fd < 0)
        return -1;
    size = lseek(fd, 0, SEEK_END);
    for (; (off_t)count * LINE < size; count++) {
        if (line_read(fd, count, &cents) != 0) {
            close(fd);
            return -1;
        }
        total += cents;
    }
    close(fd);
    *ret_count = count;
    *ret_total = total;
    return 0;
}

/*
 * Honestly: this pause is there to make the demonstration short. Without it the same happens, but one has to wait for
 * it longer: the time between reading and writing is what two processes have to meet in.
 */
static void think(void)
{
    struct timespec a_moment = {0, 500000};

    sched_yield();
    nanosleep(&a_moment, NULL);
}

int accounts_transfer(const char *path, int from, int to, long long cents)
{
    long long from_cents, to_cents;
    int fd, failed;

    if (from == to || cents < 0) {
        errno = EINVAL;
        return -1;
    }
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;

    failed = line_read(fd, from, &from_cents) != 0 || line_read(fd, to, &to_cents) != 0;
    if (!failed) {
        think();
        failed = line_write(fd, from, from_cents - cents) != 0 || line_write(fd, to, to_cents + cents) != 0;
    }
    if (close(fd) != 0)
        failed = 1;
    return failed ? -1 : 0;
}
