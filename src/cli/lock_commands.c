/*
 * lock_commands.c - the subcommands about one lock: acquire, release, extend, status, force-release.
 *
 * `acquire` hands its lease to whoever reads its output. A lease that nobody was told of would only be in the way, so
 * whatever keeps the output from arriving gives the lock back.
 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCK_LIMIT 65536

static int print_lock(verrou_lock *lock)
{
    verrou_error err = VERROU_ERROR_INIT;
    char *json = NULL;
    verrou_status status = verrou_lock_serialize(lock, &json, &err);
    int code = status ? fail_status(status, &err) : print_line(json);

    verrou_free(json);
    return code;
}

/* ---- acquire ---- */

/* The lock is held: tell it, or give it back. A signal that came by then means that nobody waits for the answer. */
static int hand_over(verrou_lock *lock, int *ret_signal)
{
    int code = print_lock(lock);

    if (!code) {
        *ret_signal = acquire_signal();
        if (!*ret_signal)
            return EXIT_OK;
        code = EXIT_SIGNAL + *ret_signal;
    }
    if (give_back(lock))
        say("\"%s\" is released again", verrou_lock_key(lock));
    return code;
}

int command_acquire(const cli_options *given)
{
    verrou_lock_options lock_options = VERROU_LOCK_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_queue *queue = NULL;
    verrou_lock *lock = NULL;
    verrou_status status;
    cli_store s;
    int signo = 0;
    int code;

    code = store_open(given, NULL, &s);
    if (code)
        goto done;
    store_warn(&s);
    lock_options.ttl_ms = given->ttl_ms;
    status = verrou_queue_new(&queue, &err);
    if (!status)
        status = verrou_lock_new(s.store, given->args[0], &lock_options, &lock, &err);
    if (status) {
        code = fail_status(status, &err);
        goto done;
    }
    if (acquire_interruptibly(given, lock, queue, &code, &signo))
        code = hand_over(lock, &signo);
done:
    verrou_lock_free(lock);
    store_done(&s); /* waits for what is still being given back */
    verrou_queue_free(queue);
    if (signo)
        signals_die(signo);
    return code;
}

/* ---- release and extend: the lock comes as text ---- */

static int read_stdin(char **ret_text)
{
    char *text = malloc(LOCK_LIMIT + 2);
    size_t used = 0;
    ssize_t got = 1;

    if (!text)
        return fail(EXIT_INTERNAL, "out of memory");
    while (got && used <= LOCK_LIMIT) {
        got = read(STDIN_FILENO, text + used, LOCK_LIMIT + 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(text);
            return fail(EXIT_INTERNAL, "cannot read the lock from the standard input: %s", strerror(errno));
        }
        used += (size_t)got;
    }
    text[used] = '\0';
    if (!used || used > LOCK_LIMIT || strlen(text) != used) {
        free(text);
        return fail(EXIT_USAGE, used > LOCK_LIMIT ? "the lock on the standard input is longer than 64 KiB"
                                : used            ? "the lock on the standard input contains a zero byte"
                                       : "no lock was given, neither as an argument nor on the standard input");
    }
    *ret_text = text;
    return EXIT_OK;
}

/* `text`, or the standard input for "-" and NULL. Free the result. */
static int lock_text(const char *text, char **ret_json)
{
    if (!text || !strcmp(text, "-"))
        return read_stdin(ret_json);
    *ret_json = strdup(text);
    return *ret_json ? EXIT_OK : fail(EXIT_INTERNAL, "out of memory");
}

typedef int (*lock_action)(const cli_options *given, verrou_lock *lock, int64_t ttl_ms);

static int with_lock(const cli_options *given, const char *text, lock_action action, int64_t ttl_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_lock *lock = NULL;
    char *json = NULL;
    verrou_status status;
    cli_store s;
    int code;

    code = lock_text(text, &json);
    if (code)
        return code;
    code = store_open(given, json, &s);
    if (!code) {
        status = verrou_lock_restore(s.store, json, NULL, &lock, &err);
        code = status ? fail_status(status, &err) : action(given, lock, ttl_ms);
    }
    verrou_lock_free(lock);
    store_done(&s);
    free(json);
    return code;
}

static int do_release(const cli_options *given, verrou_lock *lock, int64_t ttl_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status = verrou_lock_release(lock, NULL, &err);

    (void)ttl_ms;
    if (status)
        return fail_status(status, &err);
    return given->json ? print_done(verrou_lock_key(lock), "released") : EXIT_OK;
}

int command_release(const cli_options *given)
{
    return with_lock(given, given->args[0], do_release, VERROU_DEFAULT);
}

static int do_extend(const cli_options *given, verrou_lock *lock, int64_t ttl_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status = verrou_lock_extend(lock, ttl_ms, NULL, &err);

    (void)given;
    return status ? fail_status(status, &err) : print_lock(lock);
}

/* A single argument is the lock if it looks like one, and otherwise how long to extend the lock on the standard input.
 */
static bool is_lock(const char *text)
{
    return !strcmp(text, "-") || text[strspn(text, " \t\r\n")] == '{';
}

int command_extend(const cli_options *given)
{
    const char *lock = given->args[0];
    const char *length = lock ? given->args[1] : NULL;
    int64_t ttl_ms = VERROU_DEFAULT;
    int code = EXIT_OK;

    /* Not quoted: the owner in it is a secret. */
    if (length && is_lock(length))
        return fail(EXIT_USAGE, "the lock comes before the new length");
    if (lock && !length && !is_lock(lock)) {
        length = lock;
        lock = NULL;
    }
    if (length)
        code = duration_or_forever("the new length", length, &ttl_ms);
    return code ? code : with_lock(given, lock, do_extend, ttl_ms);
}

/* ---- status and force-release: only the key is needed ---- */

int command_status(const cli_options *given)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_info info = VERROU_INFO_INIT;
    verrou_status status;
    cli_store s;
    int code;

    code = store_open(given, NULL, &s);
    if (!code) {
        status = verrou_store_inspect(s.store, given->args[0], NULL, &info, &err);
        code = status ? fail_status(status, &err) : print_info(given->args[0], &info, given->json);
    }
    store_done(&s);
    return code || info.locked ? code : EXIT_FREE;
}

int command_force_release(const cli_options *given)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    cli_store s;
    int code;

    code = store_open(given, NULL, &s);
    if (!code) {
        status = verrou_store_force_release(s.store, given->args[0], NULL, &err);
        if (status)
            code = fail_status(status, &err);
        else if (given->json)
            code = print_done(given->args[0], "released");
    }
    store_done(&s);
    return code;
}
