/*
 * The subcommands about locks and stores, each exit code of theirs, and the command line.
 */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the command line ---- */

/* Everything wrong with a command line is 64, and the message names it. */
static void usage_errors_are_64_and_named(void **state)
{
    static const struct {
        const char *args[6];
        const char *named;
    } wrong[] = {
        {{NULL}, "command is missing"},
        {{"frob"}, "\"frob\""},
        {{"--frob", "status", "k"}, "\"--frob\""},
        {{"status", "--frob=1", "k"}, "\"--frob\""},
        {{"-x", "version"}, "\"-x\""},
        {{"status"}, "status KEY"},
        {{"status", "a", "b"}, "too many"},
        {{"status", "k", "--store"}, "\"--store\" needs a value"},
        {{"status", "k", "--json=yes"}, "\"--json\" takes no value"},
        {{"status", "k", "--ttl", "1s"}, "no option \"--ttl\""},
        {{"--ttl", "1s", "acquire", "k"}, "\"--ttl\" belongs after"},
        {{"release", "--on-lost", "kill"}, "\"--on-lost\""},
        {{"acquire", "k", "--ttl", "0"}, "--ttl"},
        {{"acquire", "k", "--ttl", "-5s"}, "--ttl"},
        {{"acquire", "k", "--ttl", "soon"}, "--ttl"},
        {{"acquire", "k", "--wait", "none"}, "--wait"},
        {{"acquire", "k", "--wait", "1s", "--no-wait"}, "exclude"},
        {{"acquire", "k", "--attempts", "0"}, "--attempts"},
        {{"acquire", "k", "--attempts", "3x"}, "\"3x\""},
        {{"acquire", "k", "--retry-delay", "never"}, "--retry-delay"},
        {{"run", "k"}, "run KEY"},
        {{"run", "k", "--"}, "run KEY"},
        {{"run", "k", "--on-lost", "panic", "true"}, "\"panic\""},
        {{"run", "k", "--conflict-exit-code", "256", "true"}, "\"256\""},
        {{"acquire", "k", "--conflict-exit-code", "0"}, "--conflict-exit-code"},
        {{"run", "k", "--wai", "1s", "true"}, "\"--wai\""},
        {{"acquire", ""}, "key"},
        {{"status", "k\xff"}, "key"},
        {{"schema", "drop"}, "\"drop\""},
        {{"help", "frob"}, "\"frob\""},
        {{"extend", "{}", "0"}, "length"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
        job *j = start_list(NULL, wrong[i].args);
        int code = end(j);
        if (code != 64)
            fail_msg("exit code %d for case %zu: %s", code, i, j->err_text);
        assert_contains(j->err_text, "verrou: usage: ");
        assert_contains(j->err_text, wrong[i].named);
        assert_string_equal(j->out_text, "");
        job_free(j);
    }
}

/* Help and version are answers, not errors. */
static void help_and_version_exit_with_0(void **state)
{
    static const char *const commands[] = {"run",  "acquire", "release", "extend", "status", "force-release",
                                           "list", "init",    "schema",  "doctor", "version"};
    job *j;

    (void)state;
    j = ran(0, NULL, "version", NULL);
    assert_string_equal(j->out_text, "verrou 0.1.0\n");
    job_free(j);
    j = ran(0, NULL, "--version", NULL);
    assert_string_equal(j->out_text, "verrou 0.1.0\n");
    job_free(j);
    j = ran(0, NULL, "--help", NULL);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); ++i) {
        job *by_option = ran(0, NULL, commands[i], "--help", NULL);
        job *by_command = ran(0, NULL, "help", commands[i], NULL);
        assert_contains(j->out_text, commands[i]);
        assert_string_equal(by_option->out_text, by_command->out_text);
        assert_contains(by_option->out_text, "usage: verrou ");
        job_free(by_option);
        job_free(by_command);
    }
    job_free(j);
}

/* Global options stand before the command, after it, or between its arguments. */
static void global_options_stand_anywhere(void **state)
{
    char store[256];

    (void)state;
    snprintf(store, sizeof(store), "--store=sqlite:%s", path_of("other.db"));
    job_free(ran(0, NULL, store, "acquire", "k", "--no-wait", NULL));
    job_free(ran(0, NULL, "status", store, "k", NULL));
    job_free(ran(0, NULL, "status", "k", "--store", store + 8, NULL));
    job_free(ran(1, NULL, "status", "k", NULL));
}

/* ---- acquire, release, extend, status ---- */

/* A lock that one process acquires can be released by another. */
static void release_takes_what_acquire_printed(void **state)
{
    job *lock, *status;

    (void)state;
    lock = ran(0, NULL, "acquire", "account:42", "--no-wait", NULL);
    assert_contains(lock->out_text, "\"key\"");
    assert_contains(lock->out_text, "account:42");
    assert_contains(lock->out_text, "\"fence\"");
    status = ran(0, NULL, "status", "account:42", NULL);
    assert_contains(status->out_text, "locked by ");
    assert_contains(status->out_text, " s left, fence ");
    job_free(status);
    job_free(ran(0, lock->out_text, "release", NULL));
    status = ran(1, NULL, "status", "account:42", NULL);
    assert_string_equal(status->out_text, "free\n");
    job_free(status);
    job_free(lock);

    lock = ran(0, NULL, "acquire", "account:42", "--no-wait", NULL);
    job_free(ran(0, NULL, "release", lock->out_text, NULL));
    job_free(lock);
    lock = ran(0, NULL, "acquire", "account:42", "--no-wait", NULL);
    job_free(ran(0, lock->out_text, "release", "-", NULL));
    job_free(lock);
    assert_true(is_free("account:42"));
}

/* A release or extend by somebody who does not hold the lock changes nothing and is 77. */
static void not_owned_is_77(void **state)
{
    job *lock = ran(0, NULL, "acquire", "k", "--no-wait", NULL);
    job *other, *failed;

    (void)state;
    job_free(ran(0, lock->out_text, "release", NULL));
    other = ran(0, NULL, "acquire", "k", "--no-wait", NULL);
    failed = ran(77, lock->out_text, "release", NULL);
    assert_contains(failed->err_text, "verrou: not owned: ");
    job_free(failed);
    job_free(ran(77, lock->out_text, "extend", NULL));
    assert_false(is_free("k"));
    job_free(ran(0, other->out_text, "release", NULL));
    job_free(lock);
    job_free(other);
}

/* A serialised lock that is malformed, missing or too long is 64. */
static void malformed_lock_is_64(void **state)
{
    char *big = malloc(70001);

    (void)state;
    assert_non_null(big);
    memset(big, ' ', 70000);
    big[70000] = '\0';
    job_free(ran(64, "nonsense", "release", NULL));
    job_free(ran(64, "{\"key\":\"k\"}", "release", NULL));
    job_free(ran(64, NULL, "release", "{\"key\":", NULL));
    job_free(ran(64, NULL, "release", "frob", NULL));
    job_free(ran(64, "[]", "extend", "1s", NULL));
    job_free(ran(64, NULL, "release", NULL));
    job_free(ran(64, big, "release", NULL));
    free(big);
}

/* extend takes lock and length in every arrangement, and prints the lock anew. */
static void extend_lets_the_lease_end_later(void **state)
{
    job *lock = ran(0, NULL, "acquire", "k", "--ttl", "1m", "--no-wait", NULL);
    job *by_input = ran(0, lock->out_text, "extend", "1h", NULL);
    job *info = ran(0, NULL, "status", "k", NULL);
    job *again;

    (void)state;
    assert_contains(info->out_text, ", 3");
    assert_contains(info->out_text, " s left");
    job_free(info);
    again = ran(0, NULL, "extend", by_input->out_text, "none", NULL);
    info = ran(0, NULL, "status", "k", NULL);
    assert_contains(info->out_text, "never expires");
    job_free(info);
    job_free(by_input);
    by_input = ran(0, again->out_text, "extend", "-", "10 minutes", NULL);
    info = ran(0, NULL, "--json", "status", "k", NULL);
    assert_lacks(info->out_text, "\"remaining_ms\":null");
    job_free(info);
    job_free(ran(0, by_input->out_text, "extend", NULL));
    job_free(ran(0, by_input->out_text, "release", NULL));
    job_free(by_input);
    job_free(again);
    job_free(lock);
}

/* Not acquired is 75 and says who holds the lock, for every way to limit the wait. */
static void not_acquired_is_75_and_names_the_holder(void **state)
{
    static const char *const limits[][5] = {
        {"acquire", "k", "--no-wait"},
        {"acquire", "k", "--wait", "0"},
        /* Long enough for the request itself, whatever the machine is busy with. */
        {"acquire", "k", "--wait", "2s"},
        {"acquire", "k", "--wait=2s", "--retry-delay=10"},
        {"acquire", "k", "--attempts=2", "--retry-delay=5ms"},
        {"run", "k", "--no-wait", "--", "true"},
    };
    job *lock = ran(0, NULL, "acquire", "k", "--no-wait", NULL);
    char host[256] = "";

    (void)state;
    gethostname(host, sizeof(host) - 1);
    host[60] = '\0';
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); ++i) {
        const char *args[6] = {0};
        job *j;
        memcpy(args, limits[i], sizeof(limits[i]));
        j = start_list(NULL, args);
        assert_int_equal(end(j), 75);
        assert_contains(j->err_text, "verrou: not acquired: \"k\" is held by ");
        assert_contains(j->err_text, host);
        assert_contains(j->err_text, " left");
        assert_string_equal(j->out_text, "");
        job_free(j);
    }
    job_free(lock);
}

/* A waiting acquire gets the lock when it is released. */
static void acquire_waits_for_the_release(void **state)
{
    job *lock = ran(0, NULL, "acquire", "k", "--no-wait", NULL);
    job *waiter = start("acquire", "k", NULL);

    (void)state;
    job_free(ran(0, lock->out_text, "release", NULL));
    assert_int_equal(end(waiter), 0);
    assert_contains(waiter->out_text, "\"owner\"");
    job_free(waiter);
    job_free(lock);
}

/* A lease ends by itself. */
static void lease_ends_after_its_length(void **state)
{
    (void)state;
    job_free(ran(0, NULL, "acquire", "k", "--ttl", "300ms", "--no-wait", NULL));
    wait_free("k");
}

/* A lock that nobody could be told of is released again. */
static void output_that_cannot_be_written_releases_again(void **state)
{
    redirect full = {.file = {NULL, "/dev/full", NULL}};
    job *j = start_as(&full, "acquire", "k", NULL);

    (void)state;
    assert_int_equal(end(j), 70);
    assert_contains(j->err_text, "verrou: internal error: cannot write the output");
    assert_contains(j->err_text, "\"k\" is released again");
    job_free(j);
    assert_true(is_free("k"));
}

/* The same for an output that was closed at the start. */
static void closed_output_releases_again(void **state)
{
    redirect closed = {.closed = {false, true, false}};
    job *j = start_as(&closed, "acquire", "k", NULL);

    (void)state;
    assert_int_equal(end(j), 70);
    assert_contains(j->err_text, "verrou: internal error: cannot write the output");
    assert_contains(j->err_text, "\"k\" is released again");
    job_free(j);
    assert_true(is_free("k"));
}

/* The same for a reader that has gone away. */
static void broken_pipe_releases_again(void **state)
{
    job *lock = ran(0, NULL, "acquire", "k", "--no-wait", NULL);
    job *waiter = start("acquire", "k", NULL);

    (void)state;
    close(waiter->out);
    waiter->out = -1;
    job_free(ran(0, lock->out_text, "release", NULL));
    assert_int_equal(end(waiter), 70);
    assert_contains(waiter->err_text, "released again");
    assert_true(is_free("k"));
    job_free(waiter);
    job_free(lock);
}

/* Other answers that cannot be written are 70 as well. */
static void status_that_cannot_be_written_is_70(void **state)
{
    redirect full = {.file = {NULL, "/dev/full", NULL}};
    job *j = start_as(&full, "status", "k", NULL);

    (void)state;
    assert_int_equal(end(j), 70);
    job_free(j);
}

/* A signal ends the wait, by that signal, and leaves no lock behind. */
static void signal_ends_the_wait(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    (void)state;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i) {
        job *lock = ran(0, NULL, "acquire", "k", "--no-wait", NULL);
        job *waiter = start("acquire", "k", NULL);
        char waiting[64];

        /* It waits once its handlers are there, which its status tells. */
        snprintf(waiting, sizeof(waiting), "/proc/%d/status", (int)waiter->pid);
        for (;;) {
            char text[4096];
            unsigned long long caught = 0;
            read_file(waiting, text, sizeof(text));
            sscanf(strstr(text, "SigCgt:") + 7, "%llx", &caught);
            if (caught >> (signals[i] - 1) & 1)
                break;
        }
        kill(waiter->pid, signals[i]);
        assert_int_equal(end(waiter), -signals[i]);
        assert_contains(waiter->err_text, "verrou: interrupted");
        job_free(ran(0, lock->out_text, "release", NULL));
        assert_true(is_free("k"));
        job_free(waiter);
        job_free(lock);
    }
}

/* ---- list, force-release, JSON ---- */

/* list shows what is held, filtered by prefix, and control characters in keys cannot reach the terminal. */
static void list_shows_and_escapes(void **state)
{
    job *j;

    (void)state;
    job_free(ran(0, NULL, "acquire", "b:\x1b[2J\xc2\x9b", "--no-wait", NULL));
    job_free(ran(0, NULL, "acquire", "a:1", "--no-wait", NULL));
    j = ran(0, NULL, "list", NULL);
    assert_contains(j->out_text, "a:1\t");
    assert_contains(j->out_text, "b:\\x1b[2J\\xc2\\x9b\t");
    job_free(j);
    j = ran(0, NULL, "list", "a:", NULL);
    assert_contains(j->out_text, "a:1\t");
    assert_lacks(j->out_text, "b:");
    job_free(j);
    j = ran(0, NULL, "--json", "list", NULL);
    assert_contains(j->out_text, "[{\"key\":\"a:1\",\"locked\":true,\"owner\":\"");
    assert_contains(j->out_text, "b:\\u001B[2J");
    job_free(j);
    j = ran(0, NULL, "list", "--json", "zzz", NULL);
    assert_string_equal(j->out_text, "[]\n");
    job_free(j);
}

/* force-release frees whoever holds the lock; also if nobody does. */
static void force_release_frees(void **state)
{
    (void)state;
    job_free(ran(0, NULL, "acquire", "k", "--ttl", "none", "--no-wait", NULL));
    job_free(ran(0, NULL, "force-release", "k", NULL));
    assert_true(is_free("k"));
    job_free(ran(0, NULL, "force-release", "k", NULL));
}

/* --json answers are JSON. */
static void answers_as_json(void **state)
{
    job *lock = ran(0, NULL, "acquire", "k", "--ttl", "none", "--no-wait", NULL);
    job *j = ran(0, NULL, "--json", "status", "k", NULL);

    (void)state;
    assert_contains(j->out_text, "{\"key\":\"k\",\"locked\":true,\"owner\":\"");
    assert_contains(j->out_text, "\"remaining_ms\":null,\"fence\":");
    job_free(j);
    j = ran(0, lock->out_text, "--json", "release", NULL);
    assert_string_equal(j->out_text, "{\"key\":\"k\",\"released\":true}\n");
    job_free(j);
    j = ran(1, NULL, "--json", "status", "k", NULL);
    assert_string_equal(j->out_text,
                        "{\"key\":\"k\",\"locked\":false,\"owner\":null,\"remaining_ms\":0,\"fence\":0}\n");
    job_free(j);
    j = ran(0, NULL, "--json", "version", NULL);
    assert_string_equal(j->out_text, "{\"version\":\"0.1.0\"}\n");
    job_free(j);
    j = ran(0, NULL, "--json", "doctor", NULL);
    assert_contains(j->out_text, "[{\"level\":\"ok\",\"subject\":\"store\"");
    job_free(j);
    job_free(lock);
}

/* ---- the store ---- */

/* init makes the table; schema print shows it; schema apply may be repeated. */
static void schema_commands_work(void **state)
{
    job *j;

    (void)state;
    job_free(ran(0, NULL, "init", NULL));
    job_free(ran(0, NULL, "init", NULL));
    job_free(ran(0, NULL, "schema", "apply", NULL));
    setenv("VERROU_STORE", "memory:", 1);
    j = ran(0, NULL, "init", NULL);
    assert_contains(j->err_text, "needs no preparation");
    job_free(j);
    j = ran(69, NULL, "schema", "print", NULL);
    assert_contains(j->err_text, "verrou: not supported by this store");
    job_free(j);
}

/* schema print shows the statements of a store that has none yet: those of the file for people who keep their schemas themselves. */
static void schema_print_shows_statements(void **state)
{
    job *j = ran(0, NULL, "schema", "print", NULL);
    char file[4096];

    (void)state;
    read_file(VERROU_SOURCE "/schema/sqlite.sql", file, sizeof file);
    assert_string_equal(j->out_text, file);
    job_free(j);
}

/* doctor finds nothing wrong with a fresh store, and warns of one that nobody else can see. */
static void doctor_reports(void **state)
{
    job *j = ran(0, NULL, "doctor", NULL);

    (void)state;
    assert_contains(j->out_text, "ok    store: sqlite:");
    assert_contains(j->out_text, "ok    sharing: ");
    assert_lacks(j->out_text, "FAIL");
    job_free(j);
    setenv("VERROU_STORE", "memory:", 1);
    j = ran(0, NULL, "doctor", NULL);
    assert_contains(j->out_text, "warn  sharing: ");
    job_free(j);
    j = ran(0, NULL, "acquire", "k", NULL);
    assert_contains(j->err_text, "warning: no other process can see the locks of memory:");
    job_free(j);
}

/* A store that cannot be reached is 69. */
static void unreachable_store_is_69(void **state)
{
    char store[256];
    job *j;

    (void)state;
    snprintf(store, sizeof(store), "sqlite:%s?timeout=300ms", path_of("missing/folder/locks.db"));
    setenv("VERROU_STORE", store, 1);
    j = ran(69, NULL, "status", "k", NULL);
    assert_contains(j->err_text, "verrou: store unavailable: ");
    job_free(j);
    job_free(ran(69, NULL, "acquire", "k", "--no-wait", NULL));
    job_free(ran(69, NULL, "doctor", NULL));
    job_free(ran(69, NULL, "run", "k", "--no-wait", "--", "true", NULL));
}

/* A database that another program keeps locked until the deadline is 69: whether somebody holds the lock is not known.
 */
static void blocked_database_is_69_not_75(void **state)
{
    struct sqlite3 *db;
    char store[256];

    (void)state;
    job_free(ran(0, NULL, "init", NULL));
    snprintf(store, sizeof(store), "sqlite:%s?timeout=200ms", path_of("locks.db"));
    setenv("VERROU_STORE", store, 1);
    db = block_store("locks.db");
    assert_int_equal(code_of("acquire", "k", "--no-wait", NULL), 69);
    assert_int_equal(code_of("acquire", "k", "--wait", "300ms", NULL), 69);
    unblock_store(db);
    assert_int_equal(code_of("acquire", "k", "--no-wait", NULL), 0);
}

/* ---- answers that only an odd store gives ---- */

static void use_odd_store(const char *url)
{
    setenv("LD_LIBRARY_PATH", VERROU_ODD_FOLDER, 1);
    setenv("VERROU_STORE", url, 1);
}

/* An acquisition whose answer is lost is 69, never "not acquired"; the serialised lock goes to stderr, for whoever has
 * to look after it. */
static void unknown_outcome_is_69_and_shows_the_lock(void **state)
{
    job *j;

    (void)state;
    use_odd_store("odd:lost?timeout=200ms");
    j = ran(69, NULL, "acquire", "k", "--wait", "100ms", NULL);
    assert_contains(j->err_text, "verrou: outcome unknown: ");
    assert_contains(j->err_text, "\n{\"key\":\"k\",\"owner\":\"");
    assert_string_equal(j->out_text, "");
    job_free(j);
    j = ran(69, NULL, "run", "k", "--wait", "100ms", "--", "echo", "ran", NULL);
    assert_contains(j->err_text, "verrou: outcome unknown: ");
    assert_string_equal(j->out_text, "");
    job_free(j);
}

/* A release that fails after the program has ended does not hide the program's exit code, nor is it hidden. */
static void failed_release_keeps_the_exit_code(void **state)
{
    job *j;

    (void)state;
    use_odd_store("odd:brittle");
    j = ran(3, NULL, "run", "k", "--", "sh", "-c", "exit 3", NULL);
    assert_contains(j->err_text, "could not be released");
    assert_contains(j->err_text, "the release is refused");
    job_free(j);
}

/* Control characters in an owner do not reach the terminal, in answers as in messages. */
static void owners_are_escaped(void **state)
{
    job *j;

    (void)state;
    use_odd_store("odd:held");
    j = ran(0, NULL, "status", "k", NULL);
    assert_string_equal(j->out_text, "locked by some\\x1b[1mone, time left unknown\n"); /* and no token */
    job_free(j);
    j = ran(75, NULL, "acquire", "k", "--no-wait", NULL);
    assert_contains(j->err_text, "is held by some\\x1b[1mone, time left unknown");
    job_free(j);
}

/* What a store cannot do is 69, and said so. */
static void unsupported_is_69(void **state)
{
    job *j;

    (void)state;
    use_odd_store("odd:plain");
    j = ran(69, NULL, "list", NULL);
    assert_contains(j->err_text, "verrou: not supported by this store: ");
    job_free(j);
    job_free(ran(0, NULL, "init", NULL));
    job_free(ran(69, NULL, "schema", "apply", NULL));
}

/* A failing check is FAIL and 69. */
static void failed_check_is_69(void **state)
{
    job *j;

    (void)state;
    use_odd_store("odd:sick");
    j = ran(69, NULL, "doctor", NULL);
    assert_contains(j->out_text, "FAIL  health: the store is sick");
    job_free(j);
    use_odd_store("odd:plain");
    job_free(ran(0, NULL, "doctor", NULL));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(usage_errors_are_64_and_named),
        T(help_and_version_exit_with_0),
        T(global_options_stand_anywhere),
        T(release_takes_what_acquire_printed),
        T(not_owned_is_77),
        T(malformed_lock_is_64),
        T(extend_lets_the_lease_end_later),
        T(not_acquired_is_75_and_names_the_holder),
        T(acquire_waits_for_the_release),
        T(lease_ends_after_its_length),
        T(output_that_cannot_be_written_releases_again),
        T(closed_output_releases_again),
        T(broken_pipe_releases_again),
        T(status_that_cannot_be_written_is_70),
        T(signal_ends_the_wait),
        T(list_shows_and_escapes),
        T(force_release_frees),
        T(answers_as_json),
        T(schema_commands_work),
        T(schema_print_shows_statements),
        T(doctor_reports),
        T(unreachable_store_is_69),
        T(blocked_database_is_69_not_75),
        T(unknown_outcome_is_69_and_shows_the_lock),
        T(failed_release_keeps_the_exit_code),
        T(owners_are_escaped),
        T(unsupported_is_69),
        T(failed_check_is_69),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
