/*
 * bell.h - a doorbell: a pipe that holds a byte while it rings, so that poll() notices. Rung and hushed by any thread; never
 * blocks, never raises SIGPIPE (the reading end stays open as long as the writing one), is not inherited by exec. A leaf: depends on
 * nothing of ours.
 */
#ifndef VERROU_UTIL_BELL_H
#define VERROU_UTIL_BELL_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct bell {
    int read_end; /* to poll for POLLIN; -1 while closed */
    int write_end;
};
#define BELL_CLOSED \
    {               \
        -1, -1      \
    }

static inline int bell_open(struct bell *bell)
{
    int ends[2];

#ifdef __linux__
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -1;
#else
    if (pipe(ends) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
#endif
    bell->read_end = ends[0];
    bell->write_end = ends[1];
    return 0;
}

static inline void bell_close(struct bell *bell)
{
    if (bell->read_end < 0)
        return;
    close(bell->read_end);
    close(bell->write_end);
    bell->read_end = bell->write_end = -1;
}

static inline void bell_ring(const struct bell *bell)
{
    while (write(bell->write_end, "", 1) < 0 && errno == EINTR)
        ;
}

static inline void bell_hush(const struct bell *bell)
{
    char bytes[64];
    ssize_t got;

    do
        got = read(bell->read_end, bytes, sizeof(bytes));
    while (got == (ssize_t)sizeof(bytes) || (got < 0 && errno == EINTR));
}

#endif
