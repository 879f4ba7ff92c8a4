/*
 * Which store the command works on: options, environment, configuration files, and the user's own.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A configuration with two stores, "one" being the default; returns its path. */
static const char *two_stores(const char *name)
{
    char text[512];

    snprintf(text, sizeof(text), "default = one\n[stores]\none = sqlite:%s\ntwo = sqlite:%s\n", path_of("one.db"),
             path_of("two.db"));
    write_file(path_of(name), text);
    return path_of(name);
}

static bool there(const char *name)
{
    return !access(path_of(name), F_OK);
}

/* A first-time user needs no configuration: the store is in the state directory, closed to others. */
static void nothing_configured_uses_the_state_directory(void **state)
{
    struct stat info;

    (void)state;
    unsetenv("VERROU_STORE");
    job_free(ran(0, NULL, "acquire", "k", NULL));
    assert_true(there(".local/state/verrou/locks.db"));
    assert_int_equal(stat(path_of(".local/state/verrou"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);

    setenv("XDG_STATE_HOME", path_of("state % of? #1"), 1);
    job_free(ran(1, NULL, "status", "k", NULL));
    assert_true(there("state % of? #1/verrou/locks.db"));
}

/* Without HOME there is no place for it: 78, never a guess. */
static void no_home_is_78(void **state)
{
    job *j;

    (void)state;
    unsetenv("VERROU_STORE");
    unsetenv("HOME");
    j = ran(78, NULL, "acquire", "k", NULL);
    assert_contains(j->err_text, "verrou: configuration: ");
    assert_contains(j->err_text, "HOME");
    job_free(j);
    setenv("HOME", "relative", 1);
    job_free(ran(78, NULL, "run", "k", "true", NULL));
    setenv("HOME", "", 1);
    job_free(ran(78, NULL, "status", "k", NULL));
}

/* Addresses that cannot be understood are 78 and named; a password in them is not shown. */
static void wrong_addresses_are_78(void **state)
{
    static const char *const wrong[][2] = {
        {"frob:x", "frob"},
        {"sqlite:/x?frob=1", "frob"},
        {"sqlite:/x?timeout=soon", "timeout"},
        {"frob://user:hunter2@host/", "frob"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
        job *j = ran(78, NULL, "--store", wrong[i][0], "status", "k", NULL);
        assert_contains(j->err_text, "verrou: configuration: ");
        assert_contains(j->err_text, wrong[i][1]);
        assert_lacks(j->err_text, "hunter2");
        job_free(j);
    }
}

/* A configuration that is missing, malformed or without the store asked for is 78. */
static void wrong_configurations_are_78(void **state)
{
    const char *config = two_stores("verrou.conf");
    job *j;

    (void)state;
    job_free(ran(78, NULL, "--config", path_of("missing.conf"), "status", "k", NULL));
    j = ran(78, NULL, "--config", config, "--store", "three", "status", "k", NULL);
    assert_contains(j->err_text, "three");
    job_free(j);
    setenv("LOCK_STORE", "four", 1);
    j = ran(78, NULL, "--config", config, "status", "k", NULL);
    assert_contains(j->err_text, "LOCK_STORE: there is no store \"four\"");
    job_free(j);
    unsetenv("LOCK_STORE");
    write_file(path_of("bad.conf"), "this is not a configuration\n");
    job_free(ran(78, NULL, "--config", path_of("bad.conf"), "status", "k", NULL));
    write_file(path_of("bad.conf"), "default = one\n[stores]\none = sqlite:/x?frob=1\n");
    job_free(ran(78, NULL, "--config", path_of("bad.conf"), "status", "k", NULL));
}

/* A name, in whatever variable, without a configuration file is 78: another store would exclude nobody. */
static void name_without_configuration_is_78(void **state)
{
    job *j;

    (void)state;
    j = ran(78, NULL, "--store", "one", "status", "k", NULL);
    assert_contains(j->err_text, "\"one\"");
    job_free(j);
    unsetenv("VERROU_STORE");
    setenv("LOCK_STORE", "two", 1);
    j = ran(78, NULL, "status", "k", NULL);
    assert_contains(j->err_text, "\"two\"");
    job_free(j);
}

/* A lock of a named store is not looked for elsewhere: there it would be "not owned", which is no answer. */
static void lock_of_a_named_store_without_configuration_is_78(void **state)
{
    job *lock = ran(0, NULL, "--config", two_stores("verrou.conf"), "acquire", "k", NULL);
    job *j;

    (void)state;
    unsetenv("VERROU_STORE");
    j = ran(78, lock->out_text, "release", NULL);
    assert_contains(j->err_text, "the store \"one\"");
    job_free(j);
    assert_false(there("locks.db"));
    job_free(lock);
}

/* --config is stronger than VERROU_STORE, LOCK_STORE than the file's default, --store than all. */
static void order_of_the_sources(void **state)
{
    const char *config = two_stores("verrou.conf");

    (void)state;
    job_free(ran(0, NULL, "--config", config, "init", NULL));
    assert_true(there("one.db") && !there("two.db") && !there("locks.db"));
    setenv("LOCK_STORE", "two", 1);
    job_free(ran(0, NULL, "--config", config, "acquire", "k", NULL));
    assert_true(there("two.db"));
    job_free(ran(1, NULL, "--config", config, "--store", "one", "status", "k", NULL));
    job_free(ran(0, NULL, "--config", config, "--store", "two", "status", "k", NULL));
    job_free(ran(1, NULL, "status", "k", NULL));
    assert_true(there("locks.db"));
    setenv("VERROU_STORE", "two", 1);
    setenv("VERROU_CONFIG", config, 1);
    unsetenv("LOCK_STORE");
    job_free(ran(0, NULL, "status", "k", NULL));
    unsetenv("VERROU_STORE");
    job_free(ran(1, NULL, "status", "k", NULL));
}

/* verrou.conf is found in the user's configuration directory. */
static void configuration_in_its_usual_place(void **state)
{
    (void)state;
    unsetenv("VERROU_STORE");
    assert_int_equal(mkdir(path_of(".config"), 0700), 0);
    two_stores(".config/verrou.conf");
    job_free(ran(0, NULL, "init", NULL));
    assert_true(there("one.db"));
    job_free(ran(0, NULL, "--store", "two", "init", NULL));
    assert_true(there("two.db"));
    assert_int_equal(mkdir(path_of("xdg"), 0700), 0);
    setenv("XDG_CONFIG_HOME", path_of("xdg"), 1);
    job_free(ran(0, NULL, "init", NULL));
    assert_true(there(".local/state/verrou/locks.db"));
}

/* A serialised lock says which named store it is in. */
static void lock_names_its_store(void **state)
{
    job *lock;

    (void)state;
    unsetenv("VERROU_STORE");
    setenv("VERROU_CONFIG", two_stores("verrou.conf"), 1);
    lock = ran(0, NULL, "--store", "two", "acquire", "k", NULL);
    assert_contains(lock->out_text, "\"store\"");
    job_free(ran(77, lock->out_text, "--store", "one", "release", NULL));
    job_free(ran(0, lock->out_text, "extend", "1m", NULL));
    job_free(ran(0, lock->out_text, "release", NULL));
    job_free(ran(1, NULL, "--store", "two", "status", "k", NULL));
    job_free(lock);
}

/* A command in the program uses the same store, named or not. */
static void program_sees_the_store(void **state)
{
    job *j;

    (void)state;
    setenv("COMMAND", VERROU_COMMAND, 1);
    j = ran(0, NULL, "run", "k", "--", "sh", "-c", "echo $VERROU_STORE && \"$COMMAND\" status \"$VERROU_KEY\"", NULL);
    assert_contains(j->out_text, getenv("VERROU_STORE"));
    job_free(j);
    j = ran(0, NULL, "--config", two_stores("verrou.conf"), "run", "k", "--", "sh", "-c", "echo $VERROU_STORE", NULL);
    assert_contains(j->out_text, path_of("one.db"));
    job_free(j);
    job_free(ran(0, NULL, "--config", two_stores("verrou.conf"), "--store", "two", "run", "k", "--", "sh", "-c",
                 "cd / && \"$COMMAND\" status \"$VERROU_KEY\"", NULL));
    unsetenv("VERROU_STORE");
    job_free(ran(0, NULL, "run", "k", "--", "sh", "-c", "cd / && \"$COMMAND\" status \"$VERROU_KEY\"", NULL));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(nothing_configured_uses_the_state_directory),
        T(no_home_is_78),
        T(wrong_addresses_are_78),
        T(wrong_configurations_are_78),
        T(name_without_configuration_is_78),
        T(lock_of_a_named_store_without_configuration_is_78),
        T(order_of_the_sources),
        T(configuration_in_its_usual_place),
        T(lock_names_its_store),
        T(program_sees_the_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
