/*
 * Job control, on a pseudo-terminal. The test plays the person at the keyboard; between it and the command stands a
 * very small shell, which starts the command as its foreground job and reports how it stops and ends.
 */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct screen {
    pid_t shell;
    int keyboard; /* the terminal's other side */
    int reports;  /* one letter each: S stopped, E exited, then a byte with the exit code; F if the terminal was not
                     given back */
    int orders;   /* one letter each: f foreground, b background */
    size_t len;
    char text[16384];
} screen;

static void report(int fd, char letter)
{
    if (write(fd, &letter, 1) != 1)
        _exit(98);
}

static void set_foreground(pid_t group)
{
    signal(SIGTTOU, SIG_IGN);
    tcsetpgrp(0, group);
    signal(SIGTTOU, SIG_DFL);
}

/* The shell: the leader of the terminal's session. */
static void shell_main(int reports, int orders, char *const *argv)
{
    pid_t job_pid;
    int status = 0;
    char order;

    default_signals();
    job_pid = fork();
    if (!job_pid) {
        setpgid(0, 0);
        set_foreground(getpid());
        close(reports);
        close(orders);
        execv(VERROU_COMMAND, argv);
        _exit(99);
    }
    setpgid(job_pid, job_pid);
    while (waitpid(job_pid, &status, WUNTRACED) == job_pid && WIFSTOPPED(status)) {
        /* A job that stops leaves the terminal to itself or to nobody; a shell takes it anyway. */
        report(reports, tcgetpgrp(0) == job_pid ? 'S' : 'F');
        set_foreground(getpid());
        if (read(orders, &order, 1) != 1)
            _exit(97);
        if (order == 'f')
            set_foreground(job_pid);
        kill(-job_pid, SIGCONT);
    }
    report(reports, tcgetpgrp(0) == job_pid || order == 'b' ? 'E' : 'F');
    report(reports, (char)(WIFEXITED(status) ? WEXITSTATUS(status) : 255));
    /* What was written stays readable only while the terminal is open: wait for the last order. */
    if (read(orders, &order, 1) != 1)
        _exit(0);
    _exit(0);
}

static screen *open_screen(const char *const *args)
{
    screen *s = calloc(1, sizeof(*s));
    char *argv[32] = {(char *)(uintptr_t)VERROU_COMMAND};
    int reports[2], orders[2];

    assert_non_null(s);
    for (int i = 0; args[i]; ++i)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    assert_int_equal(pipe(reports) | pipe(orders), 0);
    s->shell = forkpty(&s->keyboard, NULL, NULL, NULL);
    assert_true(s->shell >= 0);
    if (!s->shell) {
        close(reports[0]);
        close(orders[1]);
        shell_main(reports[1], orders[0], argv);
    }
    close(reports[1]);
    close(orders[0]);
    s->reports = reports[0];
    s->orders = orders[1];
    return s;
}

static void close_screen(screen *s)
{
    int status;

    close(s->orders);
    assert_int_equal(waitpid(s->shell, &status, 0), s->shell);
    close(s->reports);
    close(s->keyboard);
    free(s);
}

static void type(screen *s, const char *keys)
{
    assert_int_equal(write(s->keyboard, keys, strlen(keys)), strlen(keys));
}

static void order(screen *s, char letter)
{
    assert_int_equal(write(s->orders, &letter, 1), 1);
}

/* Read the screen until it shows this text, or, with text NULL, until a report comes. */
static char watch(screen *s, const char *text)
{
    int64_t deadline = wall_ms() + DEADLINE_MS;

    for (;;) {
        struct pollfd fds[2] = {{s->keyboard, POLLIN, 0}, {text ? -1 : s->reports, POLLIN, 0}};
        char letter;
        if (text && strstr(s->text, text))
            return 0;
        if (wall_ms() > deadline)
            fail_msg("waiting for \"%s\" in vain; the screen shows \"%s\"", text ? text : "a report", s->text);
        if (poll(fds, 2, 1000) <= 0)
            continue;
        if (fds[0].revents) {
            ssize_t got = read(s->keyboard, s->text + s->len, sizeof(s->text) - 1 - s->len);
            if (got > 0)
                s->len += (size_t)got;
        }
        if (fds[1].revents) {
            assert_int_equal(read(s->reports, &letter, 1), 1);
            return letter;
        }
    }
}

/* Wait for the end; the exit code. */
static int ended(screen *s)
{
    assert_int_equal(watch(s, NULL), 'E');
    return (unsigned char)watch(s, NULL);
}

/* Ctrl-C reaches the program, once, and the exit code is 130; the terminal is given back. */
static void interrupt_key_reaches_the_program(void **state)
{
    const char *file = path_of("ready");
    screen *s;

    (void)state;
    /* No shell in between: one that is about to start its next command may swallow the key. */
    write_file(file, "ready\n");
    s = open_screen((const char *const[]){"run", "k", "--", "tail", "-f", file, NULL});
    watch(s, "ready");
    type(s, "\x03");
    assert_int_equal(ended(s), 130);
    close_screen(s);
    assert_true(is_free("k"));
}

/* A program that handles Ctrl-C gets it once, not a second time from the supervisor. */
static void interrupt_key_arrives_once(void **state)
{
    screen *s = open_screen((const char *const[]){
        "run", "k", "--", "sh", "-c",
        "trap 'n=$((n+1)); echo got $n' INT; echo ready; read line; read line; echo sum $n", NULL});

    (void)state;
    watch(s, "ready");
    type(s, "\x03");
    watch(s, "got 1");
    type(s, "\n\n");
    watch(s, "sum 1");
    ended(s);
    close_screen(s);
}

/* Ctrl-Z stops both; in the foreground again both go on, and the program can read from the terminal. */
static void suspend_key_stops_both(void **state)
{
    screen *s = open_screen(
        (const char *const[]){"run", "k", "--", "sh", "-c", "echo ready; read line; echo read $line; exit 6", NULL});

    (void)state;
    watch(s, "ready");
    type(s, "\x1a");
    assert_int_equal(watch(s, NULL), 'S');
    order(s, 'f');
    type(s, "hello\n");
    watch(s, "read hello");
    assert_int_equal(ended(s), 6);
    close_screen(s);
}

/* In the background both go on; a read from the terminal stops both again, until they are in the foreground. */
static void background_job_stops_when_it_reads(void **state)
{
    screen *s = open_screen((const char *const[]){
        "run", "k", "--", "sh", "-c", "echo ready; kill -TSTP $$; echo went on; read line; echo read $line", NULL});

    (void)state;
    assert_int_equal(watch(s, NULL), 'S');
    order(s, 'b');
    watch(s, "went on");
    watch(s, NULL); /* stopped by SIGTTIN; the terminal is the shell's, hence F */
    order(s, 'f');
    type(s, "hello\n");
    watch(s, "read hello");
    assert_int_equal(ended(s), 0);
    close_screen(s);
}

/* In a pipeline the terminal stays with the job; a program that asks for it gets it. */
static void terminal_on_demand_in_a_pipeline(void **state)
{
    char script[512];
    screen *s;

    (void)state;
    /* The outer run makes the pipeline its job; the inner one is what is tested. */
    snprintf(script, sizeof(script), "\"%s\" run inner -- sh -c 'read line; echo read $line' | cat", VERROU_COMMAND);
    s = open_screen((const char *const[]){"run", "outer", "--", "sh", "-c", script, NULL});
    type(s, "hello\n");
    watch(s, "read hello");
    assert_int_equal(ended(s), 0);
    close_screen(s);
}

/* A lease that was lost while both were stopped: the program does not go on, and the terminal is given back. */
static void suspended_job_does_not_go_on_without_the_lease(void **state)
{
    screen *s = open_screen((const char *const[]){"run", "k", "--ttl", "2s", "--", "sh", "-c",
                                                  "echo ready; kill -TSTP $$; echo went on", NULL});

    (void)state;
    assert_int_equal(watch(s, NULL), 'S');
    job_free(ran(0, NULL, "acquire", "k", NULL));
    order(s, 'f');
    assert_int_equal(ended(s), 76);
    watch(s, "lease lost");
    assert_lacks(s->text, "went on");
    close_screen(s);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(interrupt_key_reaches_the_program),
        T(interrupt_key_arrives_once),
        T(suspend_key_stops_both),
        T(background_job_stops_when_it_reads),
        T(terminal_on_demand_in_a_pipeline),
        T(suspended_job_does_not_go_on_without_the_lease),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
