/*
 * run.c - `verrou run`: acquire, start the program with the lock in its environment, supervise it.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* ---- the program's environment ---- */

static const char *const names[] = {"VERROU_KEY",  "VERROU_OWNER", "VERROU_FENCE",
                                    "VERROU_LOCK", "VERROU_STORE", "VERROU_CONFIG"};
#define NAMES (sizeof(names) / sizeof(names[0]))

/* A copy of our environment with the variables above set; those with the value NULL stay as they are. */
static char **environment(const char *const values[NAMES])
{
    size_t count = 0, text = 0, used = 0;
    char **env = NULL;
    char *at;

    while (environ && environ[count])
        ++count;
    for (size_t i = 0; i < NAMES; ++i)
        text += values[i] ? strlen(names[i]) + strlen(values[i]) + 2 : 0;
    env = malloc((count + NAMES + 1) * sizeof(*env) + text);
    if (!env)
        return NULL;
    at = (char *)(env + count + NAMES + 1);

    for (size_t i = 0; i < count; ++i) {
        bool ours = false;
        for (size_t j = 0; j < NAMES; ++j) {
            size_t len = strlen(names[j]);
            ours |= values[j] && !strncmp(environ[i], names[j], len) && environ[i][len] == '=';
        }
        if (!ours)
            env[used++] = environ[i];
    }
    for (size_t i = 0; i < NAMES; ++i) {
        if (values[i]) {
            env[used++] = at;
            at += sprintf(at, "%s=%s", names[i], values[i]) + 1;
        }
    }
    env[used] = NULL;
    return env;
}

static int environment_for(verrou_lock *lock, const cli_store *s, char ***ret_env)
{
    verrou_error err = VERROU_ERROR_INIT;
    char fence[24];
    char *owner = NULL, *json = NULL;
    verrou_status status;
    int code = EXIT_OK;

    status = verrou_lock_owner(lock, &owner, &err);
    if (!status)
        status = verrou_lock_serialize(lock, &json, &err);
    snprintf(fence, sizeof(fence), "%" PRIu64, verrou_lock_fence(lock));
    if (status) {
        code = fail_status(status, &err);
    } else {
        *ret_env =
            environment((const char *const[]){verrou_lock_key(lock), owner, fence, json, s->env_store, s->env_config});
        if (!*ret_env)
            code = fail(EXIT_INTERNAL, "out of memory");
    }
    verrou_free(owner);
    verrou_free(json);
    return code;
}

/* ---- the command ---- */

static int acquired(const cli_options *given, const cli_store *s, verrou_lock *lock, verrou_queue *queue,
                    const cli_guard *guard)
{
    char **env = NULL;
    int code = environment_for(lock, s, &env);

    if (code)
        give_back(lock);
    else
        code = supervise(given, lock, queue, guard, given->args + 1, env);
    free(env);
    return code;
}

static int run(const cli_options *given, const cli_guard *guard, int *ret_signal)
{
    verrou_lock_options lock_options = VERROU_LOCK_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_queue *queue = NULL;
    verrou_lock *lock = NULL;
    verrou_status status;
    cli_store s;
    int code;

    code = store_open(given, NULL, &s);
    if (code)
        goto done;
    store_warn(&s);
    lock_options.ttl_ms = given->ttl_ms;
    lock_options.keep_alive = given->ttl_ms != VERROU_FOREVER;
    status = verrou_queue_new(&queue, &err);
    if (!status)
        status = verrou_lock_new(s.store, given->args[0], &lock_options, &lock, &err);
    if (status)
        code = fail_status(status, &err);
    else if (acquire_interruptibly(given, lock, queue, &code, ret_signal))
        code = acquired(given, &s, lock, queue, guard);
done:
    verrou_lock_free(lock);
    store_done(&s);
    verrou_queue_free(queue);
    return code;
}

int command_run(const cli_options *given)
{
    cli_guard guard;
    int signo = 0;
    int code;

    if (guard_start(&guard))
        return fail(EXIT_INTERNAL, "cannot start a process: %s", strerror(errno));
    code = run(given, &guard, &signo);
    guard_stop(&guard);
    if (signo)
        signals_die(signo);
    return code;
}
