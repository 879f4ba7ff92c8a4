/*
 * acquire.c - waiting for a lock in a way that a signal can end.
 *
 * The library's waits are deaf to signals, so the wait is an asynchronous call, its queue polled together with the
 * signals. A signal cancels the call; a lock that is granted all the same is given back before the command ends.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

typedef struct waiting {
    bool done;
    verrou_status status;
    verrou_info info;
    verrou_error err;
} waiting;

static void on_answer(void *user, const verrou_result *result)
{
    waiting *w = user;

    w->done = true;
    w->status = result->status;
    if (result->info)
        w->info = *result->info;
    if (result->error)
        w->err = *result->error;
}

int acquire_signal(void)
{
    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); ++i)
        if (signals_came(ending[i]))
            return ending[i];
    return 0;
}

/* Until the call is answered; returns the signal that cancelled it, or 0. */
static int wait_answer(verrou_queue *queue, waiting *w, verrou_cancel *cancel)
{
    struct pollfd fds[2] = {{verrou_queue_fd(queue), POLLIN, 0}, {signals_fd(), POLLIN, 0}};
    int signo = 0;

    while (!w->done) {
        verrou_dispatch(queue, 0);
        if (w->done)
            break;
        if (!signo) {
            signo = acquire_signal();
            if (signo) {
                verrou_cancel_fire(cancel);
                fds[1].fd = -1;
                continue;
            }
        }
        poll(fds, 2, -1);
    }
    return signo ? signo : acquire_signal();
}

/* The lock that may or may not be held: whoever reads the log can look for its owner, or release it. */
static void tell_unknown(verrou_lock *lock)
{
    char *json = NULL;

    if (verrou_lock_serialize(lock, &json, NULL))
        return;
    if (write(STDERR_FILENO, json, strlen(json)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        say("the serialised lock cannot be written: %s", strerror(errno));
    verrou_free(json);
}

static int failed(const cli_options *given, verrou_lock *lock, const waiting *w)
{
    int code;

    if (w->status == VERROU_ENOTACQUIRED)
        return fail_held(given->conflict_code, verrou_lock_key(lock), &w->info);
    code = fail_status(w->status, &w->err);
    if (w->status == VERROU_EUNKNOWN)
        tell_unknown(lock);
    return code;
}

bool give_back(verrou_lock *lock)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status = verrou_lock_release(lock, NULL, &err);

    if (!status || status == VERROU_ENOTOWNED)
        return true;
    say("warning: \"%s\" could not be given back: %s", verrou_lock_key(lock), error_text(status, &err));
    return false;
}

bool acquire_interruptibly(const cli_options *given, verrou_lock *lock, verrou_queue *queue, int *ret_code,
                           int *ret_signal)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    waiting w = {false, VERROU_OK, VERROU_INFO_INIT, VERROU_ERROR_INIT};
    verrou_status status;

    *ret_signal = 0;
    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); ++i)
        signals_catch(ending[i], false);

    options.attempts = given->attempts;
    options.delay_ms = given->delay_ms;
    options.timeout_ms = given->wait_ms;
    status = verrou_cancel_new(&options.cancel, &w.err);
    if (!status)
        status = verrou_lock_acquire_async(lock, &options, queue, on_answer, &w, &w.err);
    if (status) {
        verrou_cancel_free(options.cancel);
        *ret_code = fail_status(status, &w.err);
        return false;
    }
    *ret_signal = wait_answer(queue, &w, options.cancel);
    verrou_cancel_free(options.cancel);

    if (*ret_signal) {
        if (!w.status)
            give_back(lock);
        say("interrupted: \"%s\" is not acquired", verrou_lock_key(lock));
        *ret_code = EXIT_SIGNAL + *ret_signal;
        return false;
    }
    *ret_code = w.status ? failed(given, lock, &w) : EXIT_OK;
    return !w.status;
}
