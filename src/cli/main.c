/*
 * main.c - the table of subcommands, their help, and the way into them.
 */
#include "cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_command commands[] = {
    {"run", "run KEY [OPTION...] -- PROGRAM [ARG...]", "run a program while holding a lock",
     "Waits for the lock, runs the program and keeps the lease alive until it ends. The program finds the lock in\n"
     "VERROU_KEY, VERROU_OWNER, VERROU_FENCE, VERROU_LOCK and VERROU_STORE. The exit code is the program's, 128 plus\n"
     "the number of the signal that ended it, or one of those listed by verrou --help.\n",
     OPTIONS_ACQUIRE | OPTION_CONFLICT | OPTION_ON_LOST, 2, -1, command_run},
    {"acquire", "acquire KEY [OPTION...]", "take a lock and print it",
     "Prints the lock as JSON, for release and extend. The lease is not renewed: it ends after its length.\n",
     OPTIONS_ACQUIRE, 1, 1, command_acquire},
    {"release", "release [LOCK|-]", "give back a lock that acquire printed",
     "The lock is read from the standard input unless it is given as an argument.\n", 0, 0, 1, command_release},
    {"extend", "extend [LOCK|-] [D]", "renew a lock that acquire printed",
     "The lease then ends D from now (default: its own length; none: never). Prints the lock anew. The lock is read\n"
     "from the standard input unless it is given as an argument.\n",
     0, 0, 2, command_extend},
    {"status", "status KEY", "tell who holds a lock", "Exits with 0 if somebody holds it, with 1 if it is free.\n", 0,
     1, 1, command_status},
    {"force-release", "force-release KEY", "free a lock, whoever holds it",
     "The holder is not asked. A verrou run that holds it ends its program when it notices.\n", 0, 1, 1,
     command_force_release},
    {"list", "list [PREFIX]", "list the locks that are held",
     "One line each: key, holder, time left, fencing token. Not every store can list.\n", 0, 0, 1, command_list},
    {"init", "init", "create what the store needs", "Creates or updates the store's table; harmless if it is there.\n",
     0, 0, 0, command_init},
    {"schema", "schema {print|apply}", "show or apply the store's schema",
     "print writes the statements that apply would run.\n", 0, 1, 1, command_schema},
    {"doctor", "doctor", "check that the store is fit for locks",
     "Prints what it finds as ok, warn or FAIL; exits with 69 if there is a FAIL.\n", 0, 0, 0, command_doctor},
    {"version", "version", "print the version", "", 0, 0, 0, command_version},
    {"help", "help [COMMAND]", "print help", "", 0, 0, 1, command_help},
    {NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

static int print_overview(void)
{
    puts("usage: verrou [--store URL|NAME] [--config FILE] [--json] COMMAND\n\n"
         "Locks that programs, scripts and machines share.\n\ncommands:");
    for (const cli_command *each = commands; each->name; ++each)
        printf("  %-28s %s\n", each->synopsis && strlen(each->synopsis) <= 28 ? each->synopsis : each->name,
               each->summary);
    puts("\noptions of every command:");
    options_print(OPTIONS_GLOBAL);
    puts(
        "\nD is a duration: 250 (milliseconds), 250ms, 30s, 1.5h, \"10 minutes\".\n"
        "Without --store: VERROU_STORE, a configuration file, or else an SQLite file in the user's state directory.\n\n"
        "exit codes: 64 usage, 69 store unavailable or outcome unknown, 70 internal error, 75 not acquired,\n"
        "76 lease lost, 77 not owned, 78 configuration, 126 program not executable, 127 program not found.\n"
        "verrou help COMMAND tells more; verrou(1) tells all.");
    return output_end(EXIT_OK);
}

static int print_help(const cli_command *command)
{
    printf("usage: verrou %s\n\n%s.\n%s", command->synopsis, command->summary, command->text);
    if (command->options) {
        puts("\noptions:");
        options_print(command->options);
    }
    puts("\noptions of every command:");
    options_print(OPTIONS_GLOBAL);
    return output_end(EXIT_OK);
}

int command_help(const cli_options *given)
{
    if (!given->args[0])
        return print_overview();
    for (const cli_command *each = commands; each->name; ++each)
        if (!strcmp(each->name, given->args[0]))
            return print_help(each);
    return fail(EXIT_USAGE, "unknown command \"%s\"; see verrou --help", given->args[0]);
}

/* A service may be started with 0, 1 or 2 closed: a database connection must not land there, for messages would be
 * written into it. Standard output stays one that cannot be written to: a lock whose line is lost must not be kept. */
static int open_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR) != fd)
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    cli_options given;
    int code;

    if (open_standard_descriptors() || signals_init())
        return fail(EXIT_INTERNAL, "no descriptors are left");
    code = options_parse(argc, argv, commands, &given);
    if (!code) {
        if (given.given & OPTION_HELP)
            code = given.command ? print_help(given.command) : print_overview();
        else if (given.given & OPTION_VERSION)
            code = command_version(&given);
        else
            code = given.command->run(&given);
    }
    free(given.args);
    return code;
}
