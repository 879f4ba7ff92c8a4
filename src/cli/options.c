/*
 * options.c - the command line, read against one table that also prints the help.
 *
 * getopt_long() splits it, except that names must be given in full: if it took "--wa" for "--wait", every new option would
 * break scripts that abbreviate. Options may stand before and after the name of the command and between its arguments; the
 * first word of a program ends them, for what follows belongs to the program.
 */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct cli_option {
    unsigned bit;
    const char *name;
    const char *value; /* how its value is called, NULL if it takes none */
    const char *help;
} cli_option;

static const cli_option table[] = {
    {OPTION_STORE, "store", "URL|NAME", "the store: an address, or a name from the configuration file"},
    {OPTION_CONFIG, "config", "FILE", "the configuration file that names stores"},
    {OPTION_JSON, "json", NULL, "print answers as JSON"},
    {OPTION_HELP, "help", NULL, "print this help"},
    {OPTION_VERSION, "version", NULL, "print the version"},
    {OPTION_TTL, "ttl", "D|none", "length of the lease (default 30s); none: it never ends by itself"},
    {OPTION_WAIT, "wait", "D", "wait this long at most (default: forever); 0 is --no-wait"},
    {OPTION_NO_WAIT, "no-wait", NULL, "ask once and do not wait"},
    {OPTION_ATTEMPTS, "attempts", "N", "ask this often at most"},
    {OPTION_RETRY_DELAY, "retry-delay", "D", "longest pause between two attempts (default 250ms)"},
    {OPTION_CONFLICT, "conflict-exit-code", "N", "exit with N instead of 75 if the lock is not acquired"},
    {OPTION_ON_LOST, "on-lost", "term|kill|warn", "what happens to the program if the lease cannot be kept"},
};
#define OPTIONS (sizeof(table) / sizeof(table[0]))
#define TABLE_END (table + OPTIONS)

int duration_or_forever(const char *what, const char *text, int64_t *ret_ms)
{
    verrou_error err = VERROU_ERROR_INIT;

    if (!strcasecmp(text, "none") || !strcasecmp(text, "never") || !strcasecmp(text, "forever")) {
        *ret_ms = VERROU_FOREVER;
        return EXIT_OK;
    }
    if (verrou_duration_parse(text, ret_ms, &err))
        return fail(EXIT_USAGE, "%s: %s", what, err.message);
    return EXIT_OK;
}

static int duration(const char *what, const char *text, int64_t *ret_ms)
{
    verrou_error err = VERROU_ERROR_INIT;

    if (verrou_duration_parse(text, ret_ms, &err))
        return fail(EXIT_USAGE, "%s: %s", what, err.message);
    return EXIT_OK;
}

static int wait_limit(const char *text, int64_t *ret_ms)
{
    if (!strcasecmp(text, "forever")) {
        *ret_ms = VERROU_FOREVER;
        return EXIT_OK;
    }
    if (!strcmp(text, "0")) {
        *ret_ms = 0;
        return EXIT_OK;
    }
    return duration("--wait", text, ret_ms);
}

static int number(const char *what, const char *text, int64_t min, int64_t max, int64_t *ret)
{
    char *end = NULL;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || end == text || *end || text[0] < '0' || text[0] > '9' || value < min || value > max)
        return fail(EXIT_USAGE, "%s: \"%s\" is not a number from %lld to %lld", what, text, (long long)min,
                    (long long)max);
    *ret = value;
    return EXIT_OK;
}

static int on_lost_word(const char *text, on_lost *ret)
{
    if (!strcmp(text, "term"))
        *ret = ON_LOST_TERM;
    else if (!strcmp(text, "kill"))
        *ret = ON_LOST_KILL;
    else if (!strcmp(text, "warn"))
        *ret = ON_LOST_WARN;
    else
        return fail(EXIT_USAGE, "--on-lost: \"%s\" is none of term, kill, warn", text);
    return EXIT_OK;
}

static int set(cli_options *o, const cli_option *option, const char *value)
{
    int64_t wide = 0;
    int code;

    o->given |= option->bit;
    switch (option->bit) {
    case OPTION_STORE:
        o->store = value;
        return EXIT_OK;
    case OPTION_CONFIG:
        o->config = value;
        return EXIT_OK;
    case OPTION_JSON:
        o->json = true;
        return EXIT_OK;
    case OPTION_TTL:
        return duration_or_forever("--ttl", value, &o->ttl_ms);
    case OPTION_WAIT:
        return wait_limit(value, &o->wait_ms);
    case OPTION_NO_WAIT:
        o->wait_ms = 0;
        return EXIT_OK;
    case OPTION_ATTEMPTS:
        return number("--attempts", value, 1, VERROU_FOREVER - 1, &o->attempts);
    case OPTION_RETRY_DELAY:
        return duration("--retry-delay", value, &o->delay_ms);
    case OPTION_CONFLICT:
        code = number("--conflict-exit-code", value, 0, 255, &wide);
        o->conflict_code = (int)wide;
        return code;
    case OPTION_ON_LOST:
        return on_lost_word(value, &o->on_lost);
    default:
        return EXIT_OK;
    }
}

static int take_option(cli_options *o, const cli_option *option, const char *value)
{
    if (!o->command && !(option->bit & OPTIONS_GLOBAL))
        return fail(EXIT_USAGE, "option \"--%s\" belongs after the name of a command", option->name);
    if (o->command && !(option->bit & (OPTIONS_GLOBAL | o->command->options)))
        return fail(EXIT_USAGE, "verrou %s has no option \"--%s\"", o->command->name, option->name);
    return set(o, option, value);
}

/* What getopt_long() could not make sense of. `text` is the argument, `option` the one that it belongs to, if any. */
static int bad_option(const char *text, const cli_option *option, bool value_missing)
{
    if (option && value_missing)
        return fail(EXIT_USAGE, "option \"--%s\" needs a value: %s", option->name, option->value);
    if (option)
        return fail(EXIT_USAGE, "option \"--%s\" takes no value", option->name);
    return fail(EXIT_USAGE, "unknown option \"%.*s\"; see verrou --help", (int)strcspn(text, "="), text);
}

/* The option whose full name this argument gives, NULL if none. */
static const cli_option *full_name(const char *text)
{
    size_t len = strcspn(text, "=");

    for (const cli_option *each = table; each < TABLE_END; ++each)
        if (len == strlen(each->name) + 2 && !strncmp(text, "--", 2) && !strncmp(text + 2, each->name, len - 2))
            return each;
    return NULL;
}

static int take_word(cli_options *o, const cli_command *commands, char *word)
{
    if (o->command) {
        o->args[o->arg_count++] = word;
        return EXIT_OK;
    }
    for (const cli_command *each = commands; each->name; ++each)
        if (!strcmp(each->name, word))
            o->command = each;
    if (!o->command)
        return fail(EXIT_USAGE, "unknown command \"%s\"; see verrou --help", word);
    return EXIT_OK;
}

static int check(const cli_options *o)
{
    const cli_command *command = o->command;

    if (o->given & (OPTION_HELP | OPTION_VERSION))
        return EXIT_OK;
    if (!command)
        return fail(EXIT_USAGE, "a command is missing; see verrou --help");
    if (o->arg_count < command->min_args || (command->max_args >= 0 && o->arg_count > command->max_args))
        return fail(EXIT_USAGE, "%s: verrou %s",
                    o->arg_count < command->min_args ? "an argument is missing" : "too many arguments",
                    command->synopsis);
    if ((o->given & OPTION_WAIT) && (o->given & OPTION_NO_WAIT))
        return fail(EXIT_USAGE, "--wait and --no-wait exclude each other");
    if (o->config && !*o->config)
        return fail(EXIT_USAGE, "--config: the name of the file is empty");
    if (o->store && !*o->store)
        return fail(EXIT_USAGE, "--store: the address is empty");
    return EXIT_OK;
}

/* The program's name has been reached: all that is left is its own. */
static bool program_begins(const cli_options *o)
{
    return o->command && o->command->max_args < 0 && o->arg_count == o->command->min_args;
}

static void getopt_table(struct option out[OPTIONS + 1])
{
    memset(out, 0, (OPTIONS + 1) * sizeof(*out));
    for (size_t i = 0; i < OPTIONS; ++i) {
        out[i].name = table[i].name;
        out[i].has_arg = table[i].value ? required_argument : no_argument;
        out[i].val = 2 + (int)i; /* 1 is for words */
    }
}

int options_parse(int argc, char **argv, const cli_command *commands, cli_options *ret)
{
    struct option long_options[OPTIONS + 1];
    int code = EXIT_OK;

    memset(ret, 0, sizeof(*ret));
    ret->ttl_ms = ret->wait_ms = ret->attempts = ret->delay_ms = VERROU_DEFAULT;
    ret->conflict_code = EXIT_NOT_ACQUIRED;
    ret->args = calloc((size_t)argc + 1, sizeof(*ret->args));
    if (!ret->args)
        return fail(EXIT_INTERNAL, "out of memory");

    getopt_table(long_options);
    opterr = 0;
    while (!code && !program_begins(ret)) {
        const char *text = optind < argc ? argv[optind] : "";
        /* '-': words are handed out in their place; ':' a missing value is told from an unknown option. */
        int got = getopt_long(argc, argv, "-:h", long_options, NULL);

        if (got == -1)
            break;
        if (got == 1)
            code = take_word(ret, commands, optarg);
        else if (got == 'h')
            ret->given |= OPTION_HELP;
        else if (got == '?' || got == ':' || full_name(text) != &table[got - 2])
            code = bad_option(text, got == '?' || got == ':' ? full_name(text) : NULL, got == ':');
        else
            code = take_option(ret, &table[got - 2], optarg);
    }
    while (!code && optind < argc)
        code = take_word(ret, commands, argv[optind++]);
    return code ? code : check(ret);
}

void options_print(unsigned which)
{
    for (const cli_option *each = table; each < TABLE_END; ++each) {
        char name[64];
        if (!(each->bit & which))
            continue;
        snprintf(name, sizeof(name), "--%s%s%s", each->name, each->value ? " " : "", each->value ? each->value : "");
        printf("  %-28s %s\n", name, each->help);
    }
}
