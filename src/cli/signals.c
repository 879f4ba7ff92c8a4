/*
 * signals.c - signals turned into a descriptor that poll(2) understands: a handler notes the number and writes a byte
 * into a pipe.
 *
 * A pipe, not signalfd(2), which only Linux has. The bytes only wake; what came is in the flags, so that a signal that
 * comes twice before it is looked at counts once, as the kernel does it.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#ifdef NSIG
#define SIGNALS NSIG
#else
#define SIGNALS 65
#endif

static int pipe_fds[2] = {-1, -1};
static volatile sig_atomic_t came[SIGNALS];
static sigset_t inherited_mask;
static struct sigaction inherited[SIGNALS];
static bool changed[SIGNALS];

static void on_signal(int signo)
{
    int saved = errno;
    ssize_t written;

    came[signo] = 1;
    written = write(pipe_fds[1], "", 1);
    (void)written; /* a full pipe wakes as well */
    errno = saved;
}

static void handle(int signo, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    if (!changed[signo])
        sigaction(signo, NULL, &inherited[signo]);
    changed[signo] = true;
    sigaction(signo, &action, NULL);
}

int signals_init(void)
{
    sigset_t none;

    if (pipe(pipe_fds))
        return -1;
    for (int i = 0; i < 2; ++i) {
        fcntl(pipe_fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(pipe_fds[i], F_SETFL, O_NONBLOCK);
    }
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &inherited_mask);
    handle(SIGPIPE, SIG_IGN);
    /* With an inherited SIG_IGN the kernel would throw away the exit status of children. */
    handle(SIGCHLD, SIG_DFL);
    return 0;
}

void signals_catch(int signo, bool always)
{
    struct sigaction now;

    if (!always && !sigaction(signo, NULL, &now) && now.sa_handler == SIG_IGN)
        return;
    handle(signo, on_signal);
}

void signals_default(int signo)
{
    handle(signo, SIG_DFL);
}

int signals_fd(void)
{
    return pipe_fds[0];
}

int signals_take(void)
{
    char bytes[64];

    for (;;) {
        for (int signo = 1; signo < SIGNALS; ++signo) {
            if (came[signo]) {
                came[signo] = 0;
                return signo;
            }
        }
        /* Look once more after emptying the pipe: a handler sets its flag before it writes. */
        if (read(pipe_fds[0], bytes, sizeof(bytes)) <= 0)
            return 0;
    }
}

bool signals_came(int signo)
{
    return came[signo];
}

void signals_forget(int signo)
{
    came[signo] = 0;
}

void signals_block(void)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

void signals_unblock(void)
{
    sigset_t none;

    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

void signals_inherit(void)
{
    for (int signo = 1; signo < SIGNALS; ++signo)
        if (changed[signo])
            sigaction(signo, &inherited[signo], NULL);
    sigprocmask(SIG_SETMASK, &inherited_mask, NULL);
}

void signals_die(int signo)
{
    signals_default(signo);
    raise(signo);
    _exit(EXIT_SIGNAL + signo); /* process 1 does not die of it */
}
