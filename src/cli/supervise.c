/*
 * supervise.c - a program that runs while a lease lasts, and no longer.
 *
 * One loop polls signals and the completion queue, and looks at the lease whenever it could have become too short: at a
 * third of its length without a renewal the program is asked to end (TERM), a margin before the end it is killed. The
 * library renews; this file only reads how much is left, which never promises more than the store does.
 *
 * The program runs in a process group of its own, so that all of it can be signalled and stopped. Its leader is reaped
 * last: until then the number of the group cannot be given to somebody else.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

/* However long the lease: asked to end 12 s before its end at the earliest, killed 2 s before it at the earliest. */
#define TERM_LEFT_MAX 12000
#define KILL_LEFT_MAX 2000

/* What the program gets between TERM and KILL once the lock is already gone. */
#define GONE_GRACE_MAX 2000

typedef enum phase {
    RUNNING,
    ENDING, /* TERM was sent, KILL follows at kill_at_ms */
    KILLED,
} phase;

typedef struct supervisor {
    verrou_lock *lock;
    verrou_queue *queue;
    const cli_guard *guard;
    on_lost on_lost;
    int64_t term_left_ms;
    int64_t kill_left_ms;
    int64_t gone_grace_ms;

    pid_t child;
    bool stopped;
    bool exited;
    int wait_status;
    cli_terminal terminal;

    phase phase;
    int64_t kill_at_ms;
    int64_t end_ms;   /* the lease's end when it was last seen live */
    int64_t guard_ms; /* when the guard acts unless it hears from us */
    bool gone;        /* the library reported the loss of the lease */
    bool loss_seen;   /* and that has been acted on */
} supervisor;

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGTSTP};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void signal_program(const supervisor *s, int signo)
{
    if (!s->exited)
        kill(-s->child, signo);
}

/* ---- the lease ---- */

static bool lease_is_live(const supervisor *s)
{
    return !s->gone && !verrou_lock_check(s->lock);
}

static void on_lease_end(void *user, const verrou_result *result)
{
    supervisor *s = user;

    if (result->status == VERROU_ELOST)
        s->gone = true;
}

static void tell_guard(supervisor *s, int64_t kill_at_ms)
{
    s->guard_ms = kill_at_ms;
    guard_tell(s->guard, s->child, kill_at_ms);
}

static void kill_program(supervisor *s)
{
    signal_program(s, SIGKILL);
    s->phase = KILLED;
}

/* Ask the program to end, and kill it at kill_at_ms or earlier if that has been decided before. A stopped program
 * cannot be asked. */
static void end_program(supervisor *s, int64_t kill_at_ms, const char *why)
{
    if (s->stopped)
        kill_at_ms = 0;
    if (s->phase == RUNNING) {
        say("lease lost: \"%s\": %s; ending the program", verrou_lock_key(s->lock), why);
        s->phase = ENDING;
        s->kill_at_ms = kill_at_ms;
        if (kill_at_ms > verrou_now_ms())
            signal_program(s, SIGTERM);
    }
    s->kill_at_ms = smaller(s->kill_at_ms, kill_at_ms);
    tell_guard(s, s->kill_at_ms + s->kill_left_ms / 2);
}

/* The lock may be somebody else's by now. Some grace, but none beyond the time that the lease would have lasted. */
static void end_for_loss(supervisor *s)
{
    int64_t now_ms = verrou_now_ms();
    int64_t grace_ms = smaller(s->gone_grace_ms, s->end_ms - s->kill_left_ms - now_ms);

    if (s->loss_seen)
        return;
    s->loss_seen = true;
    if (s->on_lost == ON_LOST_WARN) {
        say("warning: the lease of \"%s\" was lost; the program goes on without it", verrou_lock_key(s->lock));
        return;
    }
    if (s->on_lost == ON_LOST_KILL || s->phase != RUNNING)
        grace_ms = 0;
    end_program(s, now_ms + grace_ms, "the lock is not held any more");
}

/* The lease is live, but gets short: nothing has renewed it since two thirds of its length. */
static void end_in_time(supervisor *s, int64_t left_ms)
{
    int64_t limit_ms = s->on_lost == ON_LOST_KILL ? s->kill_left_ms : s->term_left_ms;

    if (s->on_lost != ON_LOST_WARN && s->phase == RUNNING && left_ms <= limit_ms)
        end_program(s, verrou_now_ms() + left_ms - s->kill_left_ms, "the lease could not be renewed");
}

static int timeout_until(int64_t in_ms)
{
    return in_ms < 0 ? 0 : in_ms > INT_MAX - 1 ? INT_MAX - 1 : (int)in_ms + 1;
}

/* Act on the state of the lease; return for how long nothing else has to be done, as poll(2) wants it. */
static int watch_lease(supervisor *s)
{
    int64_t left_ms = verrou_lock_remaining_ms(s->lock);

    if (!lease_is_live(s)) {
        end_for_loss(s);
    } else if (left_ms != VERROU_FOREVER) {
        s->end_ms = verrou_now_ms() + left_ms;
        if (s->phase == RUNNING && s->on_lost != ON_LOST_WARN)
            tell_guard(s, s->end_ms - s->kill_left_ms / 2);
        end_in_time(s, left_ms);
    }
    if (s->phase == ENDING && s->kill_at_ms <= verrou_now_ms())
        kill_program(s);

    if (s->phase == ENDING)
        return timeout_until(s->kill_at_ms - verrou_now_ms());
    if (s->phase == KILLED || left_ms == VERROU_FOREVER || !lease_is_live(s))
        return -1;
    return timeout_until(left_ms - (s->on_lost == ON_LOST_TERM   ? s->term_left_ms
                                    : s->on_lost == ON_LOST_KILL ? s->kill_left_ms
                                                                 : 0));
}

/* ---- stopping and going on ---- */

/* Ask the store whether a stopped program may go on. Without an answer the local view of the lease decides. */
static bool may_go_on(supervisor *s)
{
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    int64_t left_ms = verrou_lock_remaining_ms(s->lock);
    verrou_status status;

    if (!lease_is_live(s) || left_ms <= s->kill_left_ms)
        return false;
    if (left_ms != VERROU_FOREVER)
        options.deadline_ms = verrou_now_ms() + left_ms - s->kill_left_ms;
    status = verrou_lock_extend(s->lock, VERROU_DEFAULT, &options, &err);
    if (status == VERROU_ENOTOWNED || status == VERROU_ELOST)
        s->gone = true;
    else if (status)
        say("warning: cannot renew the lease before going on: %s", error_text(status, &err));
    return lease_is_live(s);
}

static void go_on(supervisor *s)
{
    signals_forget(SIGCONT);
    if (!may_go_on(s)) {
        end_for_loss(s);
        /* Not even a TERM handler of the program may run: it would go on without the lock. */
        if (s->on_lost != ON_LOST_WARN) {
            kill_program(s);
            return;
        }
    }
    if (s->terminal.wanted && terminal_in_foreground(&s->terminal))
        terminal_give(&s->terminal, s->child);
    s->stopped = false;
    signal_program(s, SIGCONT);
}

/*
 * Stop like the program, so that whoever started us sees it. What the terminal stopped stops as a whole, the rest of a
 * pipeline included, and by the same signal, which the kernel ignores where nobody could continue us: the program then
 * goes on at once.
 */
static void stop_too(supervisor *s, int signo)
{
    bool job = s->terminal.fd >= 0 && signo != SIGSTOP;
    bool foreground = job && (s->terminal.given_to || terminal_in_foreground(&s->terminal));

    terminal_take_back(&s->terminal);
    if (!job && getpid() == 1)
        return; /* process 1 cannot stop: it waits for SIGCONT */
    if (!signals_came(SIGCONT)) {
        signals_default(SIGTSTP);
        if (foreground)
            kill(0, signo);
        else
            raise(job ? signo : SIGSTOP);
        signals_catch(SIGTSTP, true);
    }
    /* It asked for a terminal that it will never get. The kernel sends SIGHUP to such orphaned jobs. */
    if (job && signo != SIGTSTP && !signals_came(SIGCONT))
        signal_program(s, SIGHUP);
    go_on(s);
}

static void on_program_stopped(supervisor *s, int signo)
{
    s->stopped = true;
    if ((signo == SIGTTIN || signo == SIGTTOU) && !s->terminal.given_to && terminal_in_foreground(&s->terminal)) {
        s->terminal.wanted = true;
        go_on(s);
        return;
    }
    stop_too(s, signo);
}

/* ---- children ---- */

/* As process 1 everybody's orphans are ours; otherwise only the program is looked at. */
static bool next_child(const supervisor *s, siginfo_t *ret)
{
    bool first = getpid() == 1;

    memset(ret, 0, sizeof(*ret));
    return !waitid(first ? P_ALL : P_PID, first ? 0 : (id_t)s->child, ret,
                   WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT) &&
           ret->si_pid;
}

/* signo: what ended it, or 0. */
static void on_program_exit(supervisor *s, int signo)
{
    /* What is left of its group must not outlive the lease. The program is not reaped yet, so the group is still ours.
     */
    if (s->phase != RUNNING)
        kill(-s->child, SIGKILL);
    guard_tell(s->guard, 0, VERROU_FOREVER);
    s->exited = true;
    /* The guard did what we, standing still, could not. */
    if (signo == SIGKILL && s->phase == RUNNING && s->guard_ms <= verrou_now_ms())
        s->phase = KILLED;
}

static void look_at_children(supervisor *s)
{
    siginfo_t info;

    while (!s->exited && next_child(s, &info)) {
        bool ours = info.si_pid == s->child;
        int status = 0;
        if (ours && (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED))
            on_program_exit(s, info.si_code == CLD_EXITED ? 0 : info.si_status);
        if (waitpid(info.si_pid, &status, WNOHANG | WUNTRACED | WCONTINUED) <= 0 || !ours)
            continue;
        if (WIFSTOPPED(status))
            on_program_stopped(s, WSTOPSIG(status));
        else if (WIFCONTINUED(status))
            s->stopped = false;
        else
            s->wait_status = status;
    }
}

static void on_signal(supervisor *s, int signo)
{
    if (signo == SIGCHLD)
        look_at_children(s);
    else if (signo == SIGCONT && s->stopped)
        go_on(s);
    else
        signal_program(s, signo);
}

/* ---- starting ---- */

static void child_main(const supervisor *s, bool foreground, const int go[2], const int failed[2], char **argv,
                       char **envp)
{
    extern char **environ;
    char byte;
    int error;

    setpgid(0, 0);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    /* Without the byte the supervisor died before the guard knew of us. */
    close(go[1]);
    if (read(go[0], &byte, 1) != 1)
        _exit(EXIT_INTERNAL);
    if (foreground)
        tcsetpgrp(s->terminal.fd, getpid()); /* every signal is blocked, SIGTTOU included */

    signals_inherit();
    environ = envp;
    execvp(argv[0], argv);
    error = errno;
    while (write(failed[1], &error, sizeof(error)) < 0 && errno == EINTR)
        continue;
    _exit(EXIT_NOT_FOUND);
}

static int pipe_cloexec(int fds[2])
{
    if (pipe(fds))
        return -1;
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    return 0;
}

/* Start the program; 0, or the errno of what failed. It runs when this returns 0: the pipe is closed by a successful
 * exec. */
static int start(supervisor *s, char **argv, char **envp)
{
    bool foreground = s->terminal.wanted && terminal_in_foreground(&s->terminal);
    int go[2] = {-1, -1}, failed[2] = {-1, -1};
    int error = 0;
    ssize_t got;

    if (pipe_cloexec(go) || pipe_cloexec(failed)) {
        error = errno;
        goto done;
    }
    signals_block();
    s->child = fork();
    if (!s->child)
        child_main(s, foreground, go, failed, argv, envp);
    if (s->child < 0) {
        error = errno;
        signals_unblock();
        goto done;
    }
    setpgid(s->child, s->child);
    s->terminal.given_to = foreground ? s->child : 0; /* the child takes it, before it runs the program */
    tell_guard(s, VERROU_FOREVER);
    watch_lease(s); /* tells it until when */
    while (write(go[1], "", 1) < 0 && errno == EINTR)
        continue;
    signals_unblock();

    close(failed[1]);
    failed[1] = -1;
    do {
        got = read(failed[0], &error, sizeof(error));
    } while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof(error))
        error = 0;
done:
    for (int i = 0; i < 2; ++i) {
        if (go[i] >= 0)
            close(go[i]);
        if (failed[i] >= 0)
            close(failed[i]);
    }
    return error;
}

/* ---- the end ---- */

static const char *program_end(const supervisor *s, char out[64])
{
    if (WIFSIGNALED(s->wait_status))
        snprintf(out, 64, "the program was ended by signal %d", WTERMSIG(s->wait_status));
    else
        snprintf(out, 64, "the program exited with %d", WEXITSTATUS(s->wait_status));
    return out;
}

static int program_code(const supervisor *s)
{
    return WIFSIGNALED(s->wait_status) ? EXIT_SIGNAL + WTERMSIG(s->wait_status) : WEXITSTATUS(s->wait_status);
}

/* Give the lock back. A store that has not answered for a while gets no more time than the lease lasts. */
static verrou_status release(supervisor *s, verrou_error *err)
{
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    int64_t left_ms = verrou_lock_remaining_ms(s->lock);

    if (!lease_is_live(s))
        return VERROU_ENOTOWNED;
    if (s->phase != RUNNING && left_ms != VERROU_FOREVER)
        options.deadline_ms = verrou_now_ms() + left_ms;
    return verrou_lock_release(s->lock, &options, err);
}

/* The program has ended: give the lock back and find the exit code. */
static int finish(supervisor *s)
{
    verrou_error err = VERROU_ERROR_INIT;
    char end[64], left[LEASE_TEXT];
    /* To be said if the release fails: after that, the handle no longer knows. */
    int64_t left_ms = verrou_lock_remaining_ms(s->lock);
    int64_t began_ms = verrou_now_ms();
    verrou_status status = release(s, &err);

    if (s->phase != RUNNING)
        return fail(EXIT_LOST, "\"%s\" could not be kept; %s", verrou_lock_key(s->lock), program_end(s, end));
    if (status == VERROU_ENOTOWNED || status == VERROU_ELOST)
        return fail(EXIT_LOST, "\"%s\" was not held until the program ended; %s", verrou_lock_key(s->lock),
                    program_end(s, end));
    /* The program was alone all the time: its exit code is the answer. The lock is in the way of others a little
     * longer. */
    if (left_ms != VERROU_FOREVER)
        left_ms -= verrou_now_ms() - began_ms;
    if (status)
        say("warning: %s, but \"%s\" could not be released (%s): %s", program_end(s, end), verrou_lock_key(s->lock),
            lease_text(left_ms > 0 ? left_ms : 0, left), error_text(status, &err));
    return program_code(s);
}

static int not_started(supervisor *s, int error, const char *program)
{
    if (s->child > 0) {
        guard_tell(s->guard, 0, VERROU_FOREVER);
        while (waitpid(s->child, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    give_back(s->lock);
    if (s->child <= 0)
        return fail(EXIT_INTERNAL, "cannot start a process: %s", strerror(error));
    return fail(error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE, "%s: %s", program, strerror(error));
}

static void prepare(supervisor *s, const cli_options *given)
{
    int64_t ttl_ms = verrou_lock_ttl_ms(s->lock);

    s->on_lost = given->on_lost;
    s->end_ms = s->guard_ms = VERROU_FOREVER;
    s->term_left_ms = smaller(ttl_ms / 3, TERM_LEFT_MAX);
    s->kill_left_ms = smaller(ttl_ms / 10, KILL_LEFT_MAX);
    s->gone_grace_ms = smaller(ttl_ms / 3, GONE_GRACE_MAX);

    for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); ++i)
        signals_catch(forwarded[i], false);
    signals_catch(SIGCONT, true);
    signals_catch(SIGCHLD, true);
    terminal_open(&s->terminal);
}

static void loop(supervisor *s)
{
    struct pollfd fds[2] = {{signals_fd(), POLLIN, 0}, {verrou_queue_fd(s->queue), POLLIN, 0}};
    int signo;

    while (!s->exited) {
        int timeout = watch_lease(s);
        poll(fds, 2, timeout);
        verrou_dispatch(s->queue, 0);
        while ((signo = signals_take()))
            on_signal(s, signo);
    }
}

int supervise(const cli_options *given, verrou_lock *lock, verrou_queue *queue, const cli_guard *guard, char **argv,
              char **envp)
{
    supervisor s = {.lock = lock, .queue = queue, .guard = guard};
    verrou_call_options no_limit = VERROU_CALL_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    int error;
    int code;

    prepare(&s, given);
    no_limit.timeout_ms = VERROU_FOREVER;
    status = verrou_lock_wait_lost_async(lock, &no_limit, queue, on_lease_end, &s, &err);
    if (status) {
        give_back(lock);
        terminal_close(&s.terminal);
        return fail_status(status, &err);
    }
    error = start(&s, argv, envp);
    if (error) {
        code = not_started(&s, error, argv[0]);
    } else {
        loop(&s);
        terminal_take_back(&s.terminal);
        code = finish(&s);
    }
    terminal_close(&s.terminal);
    return code;
}
