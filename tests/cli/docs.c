/*
 * Help, manual page and completion list the same commands and options.
 */
#include "harness.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const commands[] = {"run",  "acquire", "release", "extend", "status",  "force-release",
                                       "list", "init",    "schema",  "doctor", "version", "help"};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static char page[65536], completion[32768];

static int read_documents(void **state)
{
    (void)state;
    read_file(VERROU_SOURCE "/docs/man/verrou.1", page, sizeof(page));
    read_file(VERROU_SOURCE "/completions/verrou.bash", completion, sizeof(completion));
    return 0;
}

/* The next "--name" at or after *at into out; moves *at behind it. */
static bool next_option(const char **at, char *out, size_t size)
{
    size_t len = 0;

    while ((*at = strstr(*at, "--")) && !isalpha((unsigned char)(*at)[2]))
        *at += 2;
    if (!*at)
        return false;
    while (((*at)[len] == '-' || isalpha((unsigned char)(*at)[len])) && len < size - 1) {
        out[len] = (*at)[len];
        ++len;
    }
    out[len] = '\0';
    *at += len;
    return true;
}

/* Whether the text has this word, not as part of a longer one. */
static bool has_word(const char *text, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = text; (at = strstr(at, word)); ++at)
        if (!isalnum((unsigned char)at[len]) && at[len] != '-' && (at == text || (at[-1] != '-' && !isalnum(at[-1]))))
            return true;
    return false;
}

/* Every option that a --help mentions has an entry in the manual page and is completed. */
static void options_of_help_are_documented(void **state)
{
    (void)state;
    for (size_t i = 0; i < COMMANDS; ++i) {
        job *j = ran(0, NULL, commands[i], "--help", NULL);
        const char *at = j->out_text;
        char option[64], entry[80];
        int count = 0;
        while (next_option(&at, option, sizeof(option))) {
            snprintf(entry, sizeof(entry), "Fl %s", option + 1);
            if (!has_word(page, entry))
                fail_msg("%s of %s is not in the manual page", option, commands[i]);
            if (!has_word(completion, option))
                fail_msg("%s of %s is not completed", option, commands[i]);
            ++count;
        }
        assert_true(count >= 5);
        job_free(j);
    }
}

/* And the other way round: nothing is documented or completed that no help mentions. */
static void documented_options_are_in_help(void **state)
{
    char help[65536] = "", option[64];
    const char *at = completion;

    (void)state;
    for (size_t i = 0; i < COMMANDS; ++i) {
        job *j = ran(0, NULL, commands[i], "--help", NULL);
        strncat(help, j->out_text, sizeof(help) - strlen(help) - 1);
        job_free(j);
    }
    while (next_option(&at, option, sizeof(option)))
        if (!has_word(help, option))
            fail_msg("%s is completed, but not in any help", option);
    for (at = page; (at = strstr(at, "Fl -")); at += 4) {
        size_t len = 0;
        option[len++] = '-';
        while ((at[3 + len - 1] == '-' || isalpha((unsigned char)at[3 + len - 1])) && len < sizeof(option) - 1) {
            option[len] = at[3 + len - 1];
            ++len;
        }
        option[len] = '\0';
        if (len > 2 && !has_word(help, option))
            fail_msg("%s is in the manual page, but not in any help", option);
    }
}

/* The commands are in all three. */
static void commands_are_documented(void **state)
{
    job *j = ran(0, NULL, "help", NULL);

    (void)state;
    for (size_t i = 0; i < COMMANDS; ++i) {
        char entry[64];
        snprintf(entry, sizeof(entry), "It Cm %s", commands[i]);
        assert_true(has_word(j->out_text, commands[i]));
        assert_true(has_word(completion, commands[i]));
        if (!has_word(page, entry))
            fail_msg("%s is not in the manual page", commands[i]);
    }
    job_free(j);
}

/* Every exit code and environment variable of the help is in the manual page. */
static void exit_codes_are_documented(void **state)
{
    static const char *const entries[] = {"It 0",
                                          "It 1",
                                          "It 64",
                                          "It 69",
                                          "It 70",
                                          "It 75",
                                          "It 76",
                                          "It 77",
                                          "It 78",
                                          "It 126",
                                          "It 127",
                                          "It 128+",
                                          "Ev VERROU_STORE",
                                          "Ev VERROU_CONFIG",
                                          "Ev LOCK_STORE",
                                          "Ev HOME",
                                          "Ev XDG_STATE_HOME",
                                          "Ev XDG_CONFIG_HOME",
                                          "Ev VERROU_KEY",
                                          "Ev VERROU_OWNER",
                                          "Ev VERROU_FENCE",
                                          "Ev VERROU_LOCK"};

    (void)state;
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); ++i)
        assert_contains(page, entries[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(options_of_help_are_documented),
        T(documented_options_are_in_help),
        T(commands_are_documented),
        T(exit_codes_are_documented),
    };
    return cmocka_run_group_tests(tests, read_documents, NULL);
}
