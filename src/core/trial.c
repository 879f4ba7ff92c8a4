/*
 * trial.c - taking, extending and releasing a lock to see whether that works: what a store says of itself, and what it can do (the rights, the
 * width of the columns, what a trigger of somebody's thinks of it) are two things.
 *
 * The key is drawn, so that nobody else has it, and as long as a key may be. If that is too long for the store, a short one is tried.
 */
#include <stdio.h>
#include <string.h>

#include "core/sink.h"
#include "core/store.h"

#define TRIAL_TTL_MS 30000
#define TRIAL_LEAST 30 /* "verrou-doctor:" and 16 digits */

/* A handle for a key of so many bytes, or the longest that the prefix leaves room for. NULL: `err` says why. */
static verrou_lock *open_lock(verrou_store *store, size_t length, verrou_error *err)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;
    char begin[TRIAL_LEAST + 1];
    char key[VERROU_MAX_KEY + 1];
    verrou_status status = VERROU_EINVAL;

    options.ttl_ms = TRIAL_TTL_MS;
    snprintf(begin, sizeof(begin), "verrou-doctor:%016llx", (unsigned long long)verrou__random64());
    memset(key, 'x', sizeof(key));
    memcpy(key, begin, TRIAL_LEAST);
    for (size_t at = length; at >= TRIAL_LEAST && status == VERROU_EINVAL; at--) {
        key[at] = '\0';
        status = verrou_lock_new(store, key, &options, &lock, err);
    }
    return lock;
}

/* What cannot be done with the lock; NULL: everything can. */
static const char *try_out(verrou_lock *lock, const verrou_call_options *options, verrou_error *err)
{
    if (verrou_lock_acquire_immediately(lock, NULL, err) != VERROU_OK)
        return "taken";
    if (verrou_lock_extend(lock, 2 * TRIAL_TTL_MS, options, err) != VERROU_OK) {
        verrou_lock_release(lock, options, NULL);
        return "extended";
    }
    return verrou_lock_release(lock, options, err) == VERROU_OK ? NULL : "released";
}

static int try_permanent(verrou_lock *lock, const verrou_call_options *options, struct verrou_sink *sink)
{
    verrou_error err = VERROU_ERROR_INIT;
    int bad = 0;

    if (verrou_lock_acquire_immediately(lock, NULL, &err) == VERROU_OK) {
        if (verrou_lock_extend(lock, VERROU_FOREVER, options, &err) != VERROU_OK)
            bad = verrou__sink_finding(sink, VERROU_WARN, "permanent leases", "a lock cannot be kept for ever: %s",
                                       err.message);
        verrou_lock_release(lock, options, NULL);
    }
    return bad;
}

bool verrou__trial(verrou_store *store, const verrou_call_options *options, struct verrou_sink *sink)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_error why_not_long = VERROU_ERROR_INIT;
    verrou_lock *lock = open_lock(store, VERROU_MAX_KEY, &err);
    const char *fault = lock ? try_out(lock, options, &err) : "made";
    int bad = 0;

    if (fault) {
        why_not_long = err;
        verrou_lock_free(lock);
        lock = open_lock(store, TRIAL_LEAST, &err);
        fault = lock ? try_out(lock, options, &err) : "made";
    }
    if (fault) {
        bad |= verrou__sink_finding(sink, VERROU_ERROR_LEVEL, "trial", "a lock cannot be %s: %s", fault, err.message);
    } else {
        if (why_not_long.message[0])
            bad |= verrou__sink_finding(sink, VERROU_WARN, "long keys", "a key of %d bytes cannot be locked: %s",
                                        VERROU_MAX_KEY, why_not_long.message);
        bad |= verrou__sink_finding(sink, VERROU_INFO, "trial", "a lock was taken, extended and released");
        bad |= try_permanent(lock, options, sink);
    }
    verrou_lock_free(lock);
    return bad == 0;
}
