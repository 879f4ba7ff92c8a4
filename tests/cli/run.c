/*
 * `verrou run`: the program's exit code, environment, signals and descriptors, and that it never outlives the lease or
 * the supervisor.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A program that says "ready", then lives until it is ended. `exec` makes it the direct child. The grandchild speaks for
 * itself: a signal to the group in the moment when a shell that blocks signals forks would miss the new child. */
#define STAY "echo ready; exec tail -f /dev/null"
#define STAY_IN_GRANDCHILD "sh -c 'echo ready; exec tail -f /dev/null'; echo survived"
#define STAY_DEAF "trap '' TERM; echo ready; while :; do tail -f /dev/null; done"

/* ---- seeing the program and its children alive ---- */

/* A pipe with a name, that the program opens for itself: the supervisor does not hold it. */
static int alive_pipe(void)
{
    unlink(path_of("alive"));
    assert_int_equal(mkfifo(path_of("alive"), 0600), 0);
    return open(path_of("alive"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static job *start_alive(const char *ttl, const char *script)
{
    char whole[512];

    snprintf(whole, sizeof(whole), "exec 7> %s; %s", path_of("alive"), script);
    return start("run", "k", "--ttl", ttl, "--", "sh", "-c", whole, NULL);
}

/* Wait until the last process that opened it is gone; closes it. */
static void wait_dead(int fd)
{
    struct pollfd end = {fd, POLLIN, 0};

    assert_int_equal(poll(&end, 1, DEADLINE_MS), 1);
    assert_true(end.revents & POLLHUP);
    close(fd);
}

/* ---- exit codes ---- */

/* The exit code is the program's, or 128 plus its signal; the lock is released in any case. */
static void exit_code_is_the_programs(void **state)
{
    (void)state;
    job_free(ran(0, NULL, "run", "k", "--", "true", NULL));
    job_free(ran(3, NULL, "run", "k", "--", "sh", "-c", "exit 3", NULL));
    job_free(ran(75, NULL, "run", "k", "--", "sh", "-c", "exit 75", NULL));
    job_free(ran(143, NULL, "run", "k", "--", "sh", "-c", "kill -TERM $$", NULL));
    job_free(ran(137, NULL, "run", "k", "--", "sh", "-c", "kill -KILL $$", NULL));
    assert_true(is_free("k"));
}

/* A program that cannot be found is 127, one that cannot be executed 126; the lock is released. */
static void program_that_cannot_run_is_126_or_127(void **state)
{
    job *j;

    (void)state;
    j = ran(127, NULL, "run", "k", "--", "no-such-program", NULL);
    assert_contains(j->err_text, "verrou: not found: no-such-program");
    job_free(j);
    assert_true(is_free("k"));
    write_file(path_of("plain"), "text");
    j = ran(126, NULL, "run", "k", "--", path_of("plain"), NULL);
    assert_contains(j->err_text, "verrou: not executable: ");
    job_free(j);
    assert_true(is_free("k"));
}

/* A code of one's own instead of 75. */
static void conflict_exit_code_replaces_75(void **state)
{
    job *lock = ran(0, NULL, "acquire", "k", NULL);
    job *j;

    (void)state;
    j = ran(0, NULL, "run", "k", "--no-wait", "--conflict-exit-code", "0", "--", "sh", "-c", "echo ran", NULL);
    assert_string_equal(j->out_text, "");
    assert_contains(j->err_text, "verrou: not acquired: ");
    job_free(j);
    job_free(ran(255, NULL, "run", "k", "--wait", "500ms", "--conflict-exit-code=255", "true", NULL));
    job_free(lock);
}

/* ---- the program's world ---- */

/* Options after the program are the program's; "--" may be left out. */
static void options_after_the_program_are_its_own(void **state)
{
    job *j = ran(0, NULL, "run", "k", "echo", "--ttl", "--", "--help", "x", NULL);

    (void)state;
    assert_string_equal(j->out_text, "--ttl -- --help x\n");
    job_free(j);
    j = ran(0, NULL, "run", "--ttl", "5s", "k", "--wait=1s", "--", "echo", "--json", NULL);
    assert_string_equal(j->out_text, "--json\n");
    job_free(j);
}

/* The program knows its lock, and can extend it from inside. */
static void environment_of_the_program(void **state)
{
    job *j;

    (void)state;
    setenv("VERROU_KEY", "stale", 1);
    setenv("COMMAND", VERROU_COMMAND, 1);
    j = ran(0, NULL, "run", "a key", "--", "sh", "-c",
            "env | grep '^VERROU_'; test \"$VERROU_FENCE\" -gt 0 && \"$COMMAND\" extend \"$VERROU_LOCK\" 1h", NULL);
    assert_contains(j->out_text, "VERROU_KEY=a key\n");
    assert_lacks(j->out_text, "stale");
    assert_contains(j->out_text, "VERROU_OWNER=");
    assert_contains(j->out_text, "VERROU_LOCK={");
    assert_contains(j->out_text, "VERROU_STORE=sqlite:");
    assert_contains(j->out_text, "\"expirationTime\"");
    job_free(j);
}

/* The standard input is the program's. */
static void input_reaches_the_program(void **state)
{
    job *j = ran(0, "hello\n", "run", "k", "cat", NULL);

    (void)state;
    assert_string_equal(j->out_text, "hello\n");
    job_free(j);
}

/* The program gets no descriptor of ours: neither pipes nor the database. */
static void no_descriptor_reaches_the_program(void **state)
{
    job *j = ran(0, NULL, "run", "k", "--", "ls", "/proc/self/fd", NULL);

    (void)state;
    /* Descriptor 3 is the folder that ls reads. */
    assert_string_equal(j->out_text, "0\n1\n2\n3\n");
    job_free(j);
}

/* With 0, 1 and 2 closed at the start, as some services have it, nothing of ours lands there. */
static void closed_standard_descriptors(void **state)
{
    redirect closed = {.closed = {true, true, true}};
    char text[4096], script[512];
    job *j;

    (void)state;
    snprintf(script, sizeof(script), "ls -l /proc/$$/fd > %s; exit 5", path_of("fds"));
    j = start_as(&closed, "run", "k", "--", "sh", "-c", script, NULL);
    assert_int_equal(end(j), 5);
    read_file(path_of("fds"), text, sizeof(text));
    assert_lacks(text, "locks.db");
    assert_contains(text, "0 -> /dev/null");
    job_free(j);
    assert_true(is_free("k"));
}

static void odd_signals(void)
{
    sigset_t mask;

    signal(SIGCHLD, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGWINCH);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

/* Dispositions and mask are passed on as they were, and none of them (SIGCHLD ignored, SIGTERM blocked) confuses the
 * supervisor. */
static void signal_state_is_passed_on(void **state)
{
    redirect odd = {.before_exec = odd_signals};
    job *j = start_as(&odd, "run", "k", "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", NULL);
    unsigned long long ignored = 1ull << (SIGCHLD - 1) | 1ull << (SIGINT - 1) | 1ull << (SIGUSR2 - 1);
    unsigned long long blocked = 1ull << (SIGTERM - 1) | 1ull << (SIGWINCH - 1);
    unsigned long long seen_blocked = 0, seen_ignored = 0;

    (void)state;
    assert_int_equal(end(j), 0);
    assert_int_equal(sscanf(j->out_text, "SigBlk:\t%llx\nSigIgn:\t%llx", &seen_blocked, &seen_ignored), 2);
    /* 32 and 33 belong to the C library: nobody can put them back to what they should be. */
    assert_int_equal(seen_blocked & ~(3ull << 31), blocked);
    assert_int_equal(seen_ignored & ~(3ull << 31), ignored);
    job_free(j);
}

/* ---- signals ---- */

/* Signals for the supervisor reach the program, which decides. */
static void signals_are_forwarded(void **state)
{
    job *j = start("run", "k", "--", "sh", "-c",
                   "trap 'echo one' USR1; trap 'echo two; exit 7' TERM; echo ready; while :; do read line; done", NULL);

    (void)state;
    wait_out(j, "ready");
    kill(j->pid, SIGUSR1);
    give(j, "\n");
    wait_out(j, "one");
    kill(j->pid, SIGTERM);
    give(j, "\n");
    assert_int_equal(end(j), 7);
    assert_contains(j->out_text, "two");
    job_free(j);
    assert_true(is_free("k"));
}

/* The whole group of the program gets them. */
static void signals_reach_grandchildren(void **state)
{
    job *j = start("run", "k", "--", "sh", "-c", STAY_IN_GRANDCHILD, NULL);

    (void)state;
    wait_out(j, "ready");
    kill(j->pid, SIGTERM);
    assert_int_equal(end(j), 143);
    job_free(j);
}

/* ---- the supervisor dies ---- */

/* A killed supervisor takes the program along, its children included: the pipe that all of them write to is closed. */
static void killed_supervisor_takes_the_program_along(void **state)
{
    static const char *const programs[] = {STAY, STAY_IN_GRANDCHILD, STAY_DEAF};

    (void)state;
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); ++i) {
        job *j = start("run", "k", "--ttl", "3s", "--", "sh", "-c", programs[i], NULL);
        wait_out(j, "ready");
        kill(j->pid, SIGKILL);
        wait_out_end(j);
        assert_lacks(j->out_text, "survived");
        assert_int_equal(end(j), -SIGKILL);
        job_free(j);
        /* Its lease frees the lock. */
        wait_free("k");
    }
}

/* Also where there is no end of the lease to watch for. */
static void killed_supervisor_without_a_limit_takes_the_program_along(void **state)
{
    static const char *const options[][2] = {{"--ttl", "none"}, {"--on-lost", "warn"}};

    (void)state;
    for (size_t i = 0; i < 2; ++i) {
        job *j = start("run", "k", options[i][0], options[i][1], "--", "sh", "-c", STAY_IN_GRANDCHILD, NULL);
        wait_out(j, "ready");
        kill(j->pid, SIGKILL);
        wait_out_end(j);
        assert_lacks(j->out_text, "survived");
        assert_int_equal(end(j), -SIGKILL);
        job_free(j);
        job_free(ran(0, NULL, "force-release", "k", NULL));
    }
}

/* ---- the lease is kept, and lost ---- */

/* The program runs longer than its lease, which is kept alive: nobody else gets in. */
static void lease_is_kept_alive(void **state)
{
    job *j = start("run", "k", "--ttl", "3s", "--", "sh", "-c", "echo ready; read line", NULL);
    int64_t first, now;
    struct sqlite3 *db;

    (void)state;
    wait_out(j, "ready");
    db = block_store("locks.db");
    first = now = expiration_in(db, "k");
    unblock_store(db);
    while (now < first + 4000) {
        db = block_store("locks.db");
        now = expiration_in(db, "k");
        unblock_store(db);
        usleep(20000); /* a pause for the supervisor, which needs the store too */
    }
    give(j, "\n");
    assert_int_equal(end(j), 0);
    job_free(j);
}

/* Somebody forces the lock open: the program is ended, and 76 tells why. */
static void forced_release_ends_the_program(void **state)
{
    static const char *const programs[] = {STAY, STAY_IN_GRANDCHILD, STAY_DEAF};

    (void)state;
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); ++i) {
        job *j = start("run", "k", "--ttl", "900ms", "--", "sh", "-c", programs[i], NULL);
        wait_out(j, "ready");
        job_free(ran(0, NULL, "force-release", "k", NULL));
        assert_int_equal(end(j), 76);
        assert_contains(j->err_text, "verrou: lease lost: ");
        assert_contains(j->err_text, "the program was ended by signal");
        assert_lacks(j->out_text, "survived");
        job_free(j);
    }
}

/* With kill there is no SIGTERM; the program's own handler does not run. */
static void on_lost_kill_does_not_ask(void **state)
{
    job *j = start("run", "k", "--ttl", "900ms", "--on-lost", "kill", "--", "sh", "-c",
                   "trap 'echo handled; exit 0' TERM; echo ready; while :; do read line; done", NULL);

    (void)state;
    wait_out(j, "ready");
    job_free(ran(0, NULL, "force-release", "k", NULL));
    while (kill(j->pid, 0) == 0 && !strstr(j->err_text, "ending"))
        wait_err(j, "ending");
    assert_int_equal(end(j), 76);
    assert_contains(j->err_text, "signal 9");
    assert_lacks(j->out_text, "handled");
    job_free(j);
}

/* With term the program may end in order. */
static void on_lost_term_asks_first(void **state)
{
    job *j = start("run", "k", "--ttl", "3s", "--on-lost", "term", "--", "sh", "-c",
                   "trap 'echo handled; exit 9' TERM; echo ready; tail -f /dev/null & wait", NULL);

    (void)state;
    wait_out(j, "ready");
    job_free(ran(0, NULL, "force-release", "k", NULL));
    assert_int_equal(end(j), 76);
    assert_contains(j->out_text, "handled");
    assert_contains(j->err_text, "the program exited with 9");
    job_free(j);
}

/* With warn the program goes on; 76 all the same. */
static void on_lost_warn_only_says_so(void **state)
{
    job *j = start("run", "k", "--ttl", "900ms", "--on-lost", "warn", "--", "sh", "-c",
                   "echo ready; read line; echo finished", NULL);

    (void)state;
    wait_out(j, "ready");
    job_free(ran(0, NULL, "force-release", "k", NULL));
    wait_err(j, "warning: the lease of \"k\" was lost");
    give(j, "\n");
    assert_int_equal(end(j), 76);
    assert_contains(j->out_text, "finished");
    assert_contains(j->err_text, "the program exited with 0");
    job_free(j);
}

/* A loss that is noticed at the release only is 76 as well. */
static void loss_noticed_at_the_end_is_76(void **state)
{
    job *j = start("run", "k", "--ttl", "1h", "--", "sh", "-c", "echo ready; read line", NULL);

    (void)state;
    wait_out(j, "ready");
    job_free(ran(0, NULL, "force-release", "k", NULL));
    give(j, "\n");
    assert_int_equal(end(j), 76);
    job_free(j);
}

/*
 * The store cannot be written to any more, so the lease cannot be renewed: the program is gone before the store would
 * give the lock to somebody else. It may be deaf to SIGTERM, it may have children.
 */
static void program_ends_before_a_lease_that_cannot_be_kept(void **state)
{
    static const char *const programs[] = {STAY, STAY_IN_GRANDCHILD, STAY_DEAF};

    (void)state;
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); ++i) {
        int alive = alive_pipe();
        job *j = start_alive("6s", programs[i]);
        struct sqlite3 *db;
        int64_t expiration;
        wait_out(j, "ready");
        db = block_store("locks.db");
        expiration = expiration_in(db, "k");
        wait_dead(alive);
        assert_true(wall_ms() < expiration);
        unblock_store(db);
        assert_int_equal(end(j), 76);
        assert_contains(j->err_text, "could not be renewed");
        job_free(j);
        job_free(ran(0, NULL, "force-release", "k", NULL));
    }
}

/* ---- stopped and continued ---- */

/* Program and supervisor stop together and go on together; the lease is renewed in between. */
static void stop_and_continue_together(void **state)
{
    job *j = start("run", "k", "--", "sh", "-c", "echo ready; kill -STOP $$; echo went on", NULL);

    (void)state;
    wait_out(j, "ready");
    wait_stopped(j);
    kill(j->pid, SIGCONT);
    assert_int_equal(end(j), 0);
    assert_contains(j->out_text, "went on");
    job_free(j);

    j = start("run", "k", "--", "sh", "-c", "echo ready; read line; echo went on", NULL);
    wait_out(j, "ready");
    kill(j->pid, SIGTSTP);
    wait_stopped(j);
    kill(j->pid, SIGCONT);
    give(j, "\n");
    assert_int_equal(end(j), 0);
    assert_contains(j->out_text, "went on");
    job_free(j);
}

/* The lease ran out while both were stopped, and somebody else has the lock: the program must not go on. */
static void stopped_program_does_not_go_on_without_the_lease(void **state)
{
    job *j = start("run", "k", "--ttl", "2s", "--", "sh", "-c", "echo ready; kill -STOP $$; echo went on", NULL);
    job *other;

    (void)state;
    wait_out(j, "ready");
    wait_stopped(j);
    other = ran(0, NULL, "acquire", "k", NULL);
    kill(j->pid, SIGCONT);
    assert_int_equal(end(j), 76);
    assert_lacks(j->out_text, "went on");
    assert_false(is_free("k"));
    job_free(j);
    job_free(other);
}

/* The same after a forced release: the local view knows nothing of it, so the store is asked. */
static void stopped_program_does_not_go_on_after_a_forced_release(void **state)
{
    job *j = start("run", "k", "--ttl", "1h", "--", "sh", "-c", "echo ready; kill -STOP $$; echo went on", NULL);

    (void)state;
    wait_out(j, "ready");
    wait_stopped(j);
    job_free(ran(0, NULL, "force-release", "k", NULL));
    kill(j->pid, SIGCONT);
    assert_int_equal(end(j), 76);
    assert_lacks(j->out_text, "went on");
    job_free(j);
}

/* A supervisor that stands still cannot renew: the guard kills the program when the lease ends. */
static void stopped_supervisor_does_not_let_the_program_run_on(void **state)
{
    int alive = alive_pipe();
    job *j = start_alive("2s", STAY_IN_GRANDCHILD);

    (void)state;
    wait_out(j, "ready");
    kill(j->pid, SIGSTOP);
    wait_stopped(j);
    wait_dead(alive);
    kill(j->pid, SIGCONT);
    assert_int_equal(end(j), 76);
    assert_lacks(j->out_text, "survived");
    assert_contains(j->err_text, "signal 9");
    job_free(j);
}

/* ---- process 1 ---- */

static pid_t process_one;

static void pass_on(int signo)
{
    kill(process_one, signo);
}

/* Let a child go on as process 1 of a pid namespace; stay as its parent outside. 77: not permitted. */
static void become_process_one(void)
{
    int status = 0;

    if (unshare(CLONE_NEWPID))
        _exit(77);
    process_one = fork();
    if (!process_one) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nothing behind */
        return;
    }
    for (int i = 0; i < 3; ++i)
        close(i);
    signal(SIGTERM, pass_on);
    while (waitpid(process_one, &status, 0) < 0 && errno == EINTR)
        continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 98);
}

/* As process 1 it reaps orphans, and SIGTERM, which the kernel would ignore there, reaches the program. */
static void process_one_reaps_and_forwards(void **state)
{
    redirect one = {.before_exec = become_process_one};
    char script[1024];
    job *j;
    int code;

    (void)state;
    /* The orphan outlives its parent, since it waits for a writer that comes later. A zombie still answers to kill -0. */
    snprintf(script, sizeof(script),
             "mkfifo %s; pid=$(sh -c 'cat %s >/dev/null 2>&1 & echo $!'); echo > %s; "
             "while kill -0 $pid; do :; done 2>/dev/null; "
             "trap 'exit 4' TERM; echo ready; tail -f /dev/null & wait",
             path_of("orphan"), path_of("orphan"), path_of("orphan"));
    j = start_as(&one, "run", "k", "--", "sh", "-c", script, NULL);
    if (!wait_out_or_end(j, "ready")) {
        code = end(j);
        job_free(j);
        if (code != 77 || getenv("CI"))
            fail_msg("exit code %d", code);
        print_message("skipped: a pid namespace is not permitted here\n");
        skip();
    }
    kill(j->pid, SIGTERM);
    assert_int_equal(end(j), 4);
    job_free(j);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(exit_code_is_the_programs),
        T(program_that_cannot_run_is_126_or_127),
        T(conflict_exit_code_replaces_75),
        T(options_after_the_program_are_its_own),
        T(environment_of_the_program),
        T(input_reaches_the_program),
        T(no_descriptor_reaches_the_program),
        T(closed_standard_descriptors),
        T(signal_state_is_passed_on),
        T(signals_are_forwarded),
        T(signals_reach_grandchildren),
        T(killed_supervisor_takes_the_program_along),
        T(killed_supervisor_without_a_limit_takes_the_program_along),
        T(lease_is_kept_alive),
        T(forced_release_ends_the_program),
        T(on_lost_kill_does_not_ask),
        T(on_lost_term_asks_first),
        T(on_lost_warn_only_says_so),
        T(loss_noticed_at_the_end_is_76),
        T(program_ends_before_a_lease_that_cannot_be_kept),
        T(stop_and_continue_together),
        T(stopped_program_does_not_go_on_without_the_lease),
        T(stopped_program_does_not_go_on_after_a_forced_release),
        T(stopped_supervisor_does_not_let_the_program_run_on),
        T(process_one_reaps_and_forwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
