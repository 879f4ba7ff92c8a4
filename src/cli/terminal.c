/*
 * terminal.c - the terminal belongs to one process group at a time, and the program runs in a group of its own: so it
 * is handed over to the program and taken back, as a shell does with its jobs.
 *
 * Not if we are part of a pipeline (the standard output is a pipe): the others in it may need the terminal, a pager for
 * one. If the program turns out to want it, it is stopped by SIGTTIN or SIGTTOU, and gets it then.
 */
#include "cli.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* tcsetpgrp(3) from the background would stop us; with SIGTTOU blocked it is allowed. */
static void set_foreground(int fd, pid_t group)
{
    sigset_t ttou, before;

    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &before);
    tcsetpgrp(fd, group);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void terminal_open(cli_terminal *ret)
{
    struct stat out;

    ret->fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    ret->given_to = 0;
    ret->wanted = ret->fd >= 0 && isatty(STDIN_FILENO) && !(fstat(STDOUT_FILENO, &out) == 0 && S_ISFIFO(out.st_mode));
}

bool terminal_in_foreground(const cli_terminal *terminal)
{
    return terminal->fd >= 0 && tcgetpgrp(terminal->fd) == getpgrp();
}

void terminal_give(cli_terminal *terminal, pid_t group)
{
    set_foreground(terminal->fd, group);
    terminal->given_to = group;
    terminal->wanted = true;
}

void terminal_take_back(cli_terminal *terminal)
{
    if (terminal->given_to && tcgetpgrp(terminal->fd) == terminal->given_to)
        set_foreground(terminal->fd, getpgrp());
    terminal->given_to = 0;
}

void terminal_close(cli_terminal *terminal)
{
    terminal_take_back(terminal);
    if (terminal->fd >= 0)
        close(terminal->fd);
}
