/*
 * guard.c - a second process that ends the program when the supervisor cannot: because it was killed, or is stopped or
 * starved while the lease runs out.
 *
 * It holds nothing but the reading end of a pipe. End of file without a farewell means that the supervisor is gone;
 * silence until the lease's end means that it cannot act. In both cases the program's whole process group is killed:
 * the parent-death signal reaches the program itself only, exists on Linux only, and says nothing of a supervisor that
 * merely stands still.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

typedef struct note {
    pid_t group;
    int64_t kill_at_ms;
} note;

/* Descriptors that the supervisor was started with would be kept open by us, a pipe's end of file among them. */
static int only_keep(int fd)
{
    int null = open("/dev/null", O_RDWR);
    long limit = sysconf(_SC_OPEN_MAX);

    if (null < 0 || dup2(fd, 3) < 0)
        return -1;
    for (int i = 0; i < 3; ++i)
        dup2(null, i);
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 34)
    if (!close_range(4, ~0u, 0))
        return 3;
#endif
    for (int i = 4; i < limit && i < 65536; ++i)
        close(i);
    return 3;
}

static int until(int64_t at_ms)
{
    int64_t left;

    if (at_ms == VERROU_FOREVER)
        return -1;
    left = at_ms - verrou_now_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void watch(int fd)
{
    note now = {0, VERROU_FOREVER};
    struct pollfd in = {fd, POLLIN, 0};

    for (;;) {
        int ready = poll(&in, 1, now.group ? until(now.kill_at_ms) : -1);
        ssize_t got = 0;
        if (ready > 0) {
            note next;
            got = read(fd, &next, sizeof(next));
            if (got == (ssize_t)sizeof(next)) {
                now = next;
                continue;
            }
            if (got < 0 && errno == EINTR)
                continue;
        }
        if (now.group && (ready > 0 || now.kill_at_ms <= verrou_now_ms())) {
            kill(-now.group, SIGKILL);
            now.kill_at_ms = VERROU_FOREVER;
        }
        if (ready > 0)
            return;
    }
}

int guard_start(cli_guard *ret)
{
    int fds[2];

    if (pipe(fds))
        return -1;
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    fcntl(fds[1], F_SETFL, O_NONBLOCK); /* a guard that is stopped must not stop us */
    ret->fd = fds[1];
    ret->pid = fork();
    if (ret->pid < 0) {
        close(fds[0]);
        close(fds[1]);
        return -1;
    }
    if (ret->pid > 0) {
        close(fds[0]);
        return 0;
    }

    /* A session of its own: no signal meant for the terminal's jobs may end it, and it must not stay in their way
     * either. */
    signals_block();
    setsid();
#ifdef __linux__
    prctl(PR_SET_NAME, "verrou-guard");
#endif
    close(fds[1]);
    fds[0] = only_keep(fds[0]);
    if (fds[0] >= 0)
        watch(fds[0]);
    _exit(0);
}

void guard_tell(const cli_guard *guard, pid_t group, int64_t kill_at_ms)
{
    note next;

    memset(&next, 0, sizeof(next));
    next.group = group;
    next.kill_at_ms = kill_at_ms;
    /* Smaller than PIPE_BUF: written whole or not at all. Without the guard the supervisor alone has to do. */
    while (write(guard->fd, &next, sizeof(next)) < 0 && errno == EINTR)
        continue;
}

void guard_stop(cli_guard *guard)
{
    guard_tell(guard, 0, VERROU_FOREVER);
    close(guard->fd);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}
