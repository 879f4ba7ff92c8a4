/*
 * cli.h - what the files of the command share. The command is a user of verrou.h like any other: it includes nothing
 * else of ours.
 *
 * Every function that returns an int named "exit code" has already told stderr what went wrong.
 */
#ifndef VERROU_CLI_CLI_H
#define VERROU_CLI_CLI_H

#include "exit.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <verrou/verrou.h>

/* ---- options.c: the command line ---- */

typedef enum on_lost {
    ON_LOST_TERM, /* TERM, some grace, KILL before the lease ends */
    ON_LOST_KILL, /* KILL at once */
    ON_LOST_WARN, /* only say so */
} on_lost;

/* One bit for each option, to say which command knows which. */
#define OPTION_STORE 0x001u
#define OPTION_CONFIG 0x002u
#define OPTION_JSON 0x004u
#define OPTION_HELP 0x008u
#define OPTION_VERSION 0x010u
#define OPTION_TTL 0x020u
#define OPTION_WAIT 0x040u
#define OPTION_NO_WAIT 0x080u
#define OPTION_ATTEMPTS 0x100u
#define OPTION_RETRY_DELAY 0x200u
#define OPTION_CONFLICT 0x400u
#define OPTION_ON_LOST 0x800u
#define OPTIONS_GLOBAL (OPTION_STORE | OPTION_CONFIG | OPTION_JSON | OPTION_HELP | OPTION_VERSION)
#define OPTIONS_ACQUIRE (OPTION_TTL | OPTION_WAIT | OPTION_NO_WAIT | OPTION_ATTEMPTS | OPTION_RETRY_DELAY)

typedef struct cli_options cli_options;

/* A subcommand. `args` of them at least and at most; max_args -1: the rest of the line is a program with its arguments.
 */
typedef struct cli_command {
    const char *name;
    const char *synopsis;
    const char *summary; /* one line, for the list of commands */
    const char *text;    /* the rest of its --help */
    unsigned options;    /* OPTION_ bits beside the global ones */
    int min_args;
    int max_args;
    int (*run)(const cli_options *given);
} cli_command;

/* What the command line says. */
struct cli_options {
    const cli_command *command;
    unsigned given; /* OPTION_ bits of those that were there */
    const char *store;
    const char *config;
    bool json;
    int64_t ttl_ms; /* VERROU_DEFAULT unless given, as the next three */
    int64_t wait_ms;
    int64_t attempts;
    int64_t delay_ms;
    int conflict_code;
    on_lost on_lost;
    char **args; /* NULL-terminated; the strings are argv's */
    int arg_count;
};

/* Read the command line against a table of commands that ends with an empty entry. An exit code; free args in any case.
 */
int options_parse(int argc, char **argv, const cli_command *commands, cli_options *ret);

/* Print the lines about these options, for --help. */
void options_print(unsigned which);

/* Read a duration, or one of the words for "no end", which is VERROU_FOREVER. `what` names it in the message. An exit
 * code. */
int duration_or_forever(const char *what, const char *text, int64_t *ret_ms);

/* ---- output.c: what people and programs get to read ---- */

/* One line on stderr, "verrou: " before it; control characters in it are escaped. */
void say(const char *format, ...) VERROU_PRINTF(1, 2);

/* The same, with the name of the outcome that the exit code stands for before it. Returns the code. */
int fail(int code, const char *format, ...) VERROU_PRINTF(2, 3);

/* Say what a call of the library answered and return the exit code for it: the only place that maps one to the other.
 */
int fail_status(verrou_status status, const verrou_error *err);

/* The message of an error, or the text of its status if it has none. */
const char *error_text(verrou_status status, const verrou_error *err);

/* Control characters as \xNN, so that a key cannot steer a terminal. Never NULL unless out of memory; free it. */
char *escaped(const char *text);

/* "12.3 s", "never expires", "unknown". */
#define LEASE_TEXT 48
const char *lease_text(int64_t remaining_ms, char out[LEASE_TEXT]);

/* The part of an owner that is for people, "host:pid[:label]", or all of it if it is not one of ours. */
const char *holder_text(const char *owner);

/* "key KEY is held by HOLDER, 12.3 s left" into the message of a failed acquisition. */
int fail_held(int code, const char *key, const verrou_info *holder);

/* What verrou_store_inspect() tells, as one line of text or as a JSON object. An exit code. */
int print_info(const char *key, const verrou_info *info, bool json);

/*
 * Several locks, or several findings of a check ("ok", "warn", "FAIL"): one JSON array, or one line each as they come
 * (list NULL). After begin either end, which prints the array, or drop.
 */
int print_list_begin(bool json, void **ret_list);
int print_list_item(void *list, const char *key, const verrou_info *info);
int print_finding(void *list, const char *level, const char *subject, const char *finding);
int print_list_end(void *list);
void print_list_drop(void *list);

/* {"key": key, member: true}; key may be NULL. */
int print_done(const char *key, const char *member);

/* {member: text}. */
int print_text(const char *member, const char *text);

/* A line on stdout that must arrive: flushed, and checked. An exit code. */
int print_line(const char *text);

/* Flush stdout: `code`, or EXIT_INTERNAL if it was 0 or 1 and something could not be written. */
int output_end(int code);

/* ---- store.c: which store ---- */

/*
 * store      Open, and to be left alone: store_done() closes it.
 * env_store  What VERROU_STORE has to be for a child process that shall use the same store; env_config likewise, NULL
 * if unneeded.
 */
typedef struct cli_store {
    verrou_store *store;
    verrou_manager *manager;
    const char *name; /* chosen by --store or VERROU_STORE among the named stores, else NULL */
    char *url;
    char *config;
    char *env_store;
    char *env_config;
} cli_store;

/*
 * Find the store: --store, --config, VERROU_STORE, VERROU_CONFIG, the configuration files, else the user's own SQLite
 * file. `lock_json` is a serialised lock whose "store" member chooses among named stores unless --store does, or NULL.
 * An exit code.
 */
int store_open(const cli_options *given, const char *lock_json, cli_store *ret);
void store_done(cli_store *store);

/* Warn of a store in which a lock excludes nobody. */
void store_warn(const cli_store *store);

/* ---- signals.c: signals as something to poll ---- */

/* Remember how the process was started (mask, dispositions), ignore SIGPIPE, make SIGCHLD ordinary. -1 if there is no
 * descriptor. */
int signals_init(void);

/* Catch this signal from now on, unless the process was started with it ignored (nohup); `always` overrides that. */
void signals_catch(int signo, bool always);

/* Give a caught signal back its default action, for stopping. signals_catch() catches it again. */
void signals_default(int signo);

/* A descriptor that is readable when signals_take() has something; the next signal that came, or 0. */
int signals_fd(void);
int signals_take(void);

/* Whether this signal has come, without taking it; and forget it. */
bool signals_came(int signo);
void signals_forget(int signo);

/* Block everything (before fork) and put the mask back. */
void signals_block(void);
void signals_unblock(void);

/* In a new process, all blocked: dispositions and mask as this process was started with. Async-signal-safe. */
void signals_inherit(void);

/* Die of this signal, as a caller expects of an interrupted program. */
_Noreturn void signals_die(int signo);

/* ---- acquire.c: waiting for a lock ---- */

/*
 * Acquire on `queue`, until the limits of the command line or until HUP, INT, QUIT or TERM. Whether the lock is held;
 * if not, *ret_code is the exit code, which may be 0 by the caller's wish, and *ret_signal the signal that ended the
 * wait, or 0. After VERROU_EUNKNOWN the serialised lock is on stderr.
 */
bool acquire_interruptibly(const cli_options *given, verrou_lock *lock, verrou_queue *queue, int *ret_code,
                           int *ret_signal);

/* Release a lock that nobody will use after all; whether it is free of this owner now. Says so if it is not. */
bool give_back(verrou_lock *lock);

/* HUP, INT, QUIT or TERM, if one has come since acquire_interruptibly() was called; else 0. */
int acquire_signal(void);

/* ---- guard.c: a second process that ends the program when the first one cannot ---- */

typedef struct cli_guard {
    pid_t pid;
    int fd;
} cli_guard;

/* Start the guard: before the library has threads. 0, or -1 with errno. */
int guard_start(cli_guard *ret);

/*
 * Tell it the process group to watch over, and when to kill it unless told otherwise by then (on the clock of
 * verrou_now_ms(), VERROU_FOREVER for never). Group 0: nothing to watch over any more.
 */
void guard_tell(const cli_guard *guard, pid_t group, int64_t kill_at_ms);

/* Let it go. */
void guard_stop(cli_guard *guard);

/* ---- terminal.c: handing the terminal to the program ---- */

typedef struct cli_terminal {
    int fd;         /* the controlling terminal, -1 if there is none */
    pid_t given_to; /* the process group that has got it from us, 0 if none */
    bool wanted;    /* the program gets it whenever we are in the foreground */
} cli_terminal;

void terminal_open(cli_terminal *ret);
bool terminal_in_foreground(const cli_terminal *terminal);
void terminal_give(cli_terminal *terminal, pid_t group);
void terminal_take_back(
    cli_terminal *terminal); /* if it is ours to take: in the foreground is the group that we gave it to */
void terminal_close(cli_terminal *terminal);

/* ---- supervise.c: a program under a lease ---- */

/*
 * Run the program argv with the environment envp while `lock`, which is held and kept alive, lasts. Releases the lock.
 * An exit code.
 */
int supervise(const cli_options *given, verrou_lock *lock, verrou_queue *queue, const cli_guard *guard, char **argv,
              char **envp);

/* ---- the subcommands ---- */
int command_run(const cli_options *given);
int command_acquire(const cli_options *given);
int command_release(const cli_options *given);
int command_extend(const cli_options *given);
int command_status(const cli_options *given);
int command_force_release(const cli_options *given);
int command_list(const cli_options *given);
int command_init(const cli_options *given);
int command_schema(const cli_options *given);
int command_doctor(const cli_options *given);
int command_version(const cli_options *given);
int command_help(const cli_options *given);

#endif
