/*
 * outcome.c - telling the outcome of a call: the lease or its holder, the error text, the log record.
 */
#include <stdio.h>

#include "engine/internal.h"

void verrou__info_copy(verrou_info *to, const verrou_info *from)
{
    size_t size;

    if (!to || to->size < sizeof(size_t))
        return;
    size = to->size < sizeof(*from) ? to->size : sizeof(*from);
    memcpy((char *)to + sizeof(size_t), (const char *)from + sizeof(size_t), size - sizeof(size_t));
}

void verrou__call_info(const verrou__call *call, verrou_info *ret_info)
{
    const char *owner = call->holder;
    int64_t expires_ms = call->holder_expires_ms;

    *ret_info = (verrou_info)VERROU_INFO_INIT;
    if (call->kind == VERROU__INSPECT && !call->locked)
        return;
    if (call->status == VERROU_OK && (call->kind == VERROU__ACQUIRE || call->kind == VERROU__EXTEND)) {
        owner = call->op.owner;
        expires_ms = call->expires_ms;
    } else if (call->kind != VERROU__INSPECT && call->status != VERROU_ENOTACQUIRED) {
        return;
    }
    ret_info->locked = 1;
    ret_info->fence = call->fence;
    ret_info->remaining_ms = expires_ms;
    if (expires_ms >= 0 && expires_ms != VERROU_FOREVER) {
        ret_info->remaining_ms = expires_ms - engine_now(call->engine);
        if (ret_info->remaining_ms < 0)
            ret_info->remaining_ms = 0;
    }
    if (owner)
        snprintf(ret_info->owner, sizeof(ret_info->owner), "%s", owner);
}

static const char *call_verb(const verrou__call *call)
{
    static const char *const verbs[] = {
        [VERROU__ACQUIRE] = "acquire",     [VERROU__RELEASE] = "release", [VERROU__EXTEND] = "extend",
        [VERROU__FORCE] = "force-release", [VERROU__INSPECT] = "inspect", [VERROU__LIST] = "list",
        [VERROU__CHECK] = "check",         [VERROU__SCHEMA] = "schema",   [VERROU__WAIT] = "wait",
    };
    return verbs[call->kind];
}

/* "held by host:pid for another 1234 ms", as far as it is known. */
static void holder_text(const verrou__call *call, char *text, size_t size)
{
    const char *owner = call->holder ? verrou__owner_public(call->holder) : NULL;
    int64_t left_ms = call->holder_expires_ms;
    size_t used;

    snprintf(text, size, "held by %s", owner ? owner : "another owner");
    used = strlen(text);
    if (left_ms == VERROU_FOREVER) {
        snprintf(text + used, size - used, ", with a lease that never expires");
    } else if (left_ms >= 0) {
        left_ms -= engine_now(call->engine);
        snprintf(text + used, size - used, ", whose lease has %lld ms left", (long long)(left_ms < 0 ? 0 : left_ms));
    }
}

void verrou__call_error(const verrou__call *call, verrou_error *ret_err)
{
    const char *key = call->op.key && call->op.key_len >= call->engine->options.prefix_len
                          ? call->op.key + call->engine->options.prefix_len
                          : "";
    char holder[VERROU_MAX_OWNER + 80];

    *ret_err = (verrou_error)VERROU_ERROR_INIT;
    ret_err->status = call->status;
    ret_err->retriable = call->status == VERROU_ENOTACQUIRED || call->status == VERROU_EUNKNOWN;
    if (call->error) {
        memcpy(ret_err->store_code, call->error->store_code, sizeof(ret_err->store_code));
        ret_err->retriable = call->error->retriable;
        memcpy(ret_err->message, call->error->message, sizeof(ret_err->message));
    } else if (call->status == VERROU_ENOTACQUIRED) {
        holder_text(call, holder, sizeof(holder));
        snprintf(ret_err->message, sizeof(ret_err->message), "%s", holder);
    } else {
        snprintf(ret_err->message, sizeof(ret_err->message), "%s", verrou_status_text(call->status));
    }
    if (call->error && call->status == VERROU_EUNKNOWN)
        verrou__error_prefix(ret_err, "the outcome is unknown");
    if (call->kind <= VERROU__INSPECT)
        verrou__error_prefix(ret_err, "%s \"%s\"", call_verb(call), key);
    else
        verrou__error_prefix(ret_err, "%s", call_verb(call));
}

void verrou__outcome_log(verrou__call *call)
{
    static const char *const done[] = {[VERROU__ACQUIRE] = "lock.acquired",
                                       [VERROU__RELEASE] = "lock.released",
                                       [VERROU__EXTEND] = "lock.extended",
                                       [VERROU__FORCE] = "lock.force_released",
                                       [VERROU__WAIT] = NULL};
    verrou__engine *engine = call->engine;
    verrou_error error;
    verrou_level level = VERROU_DEBUG;

    if (!engine->events || call->kind == VERROU__WAIT)
        return;
    if (call->status == VERROU_OK) {
        if (call->kind <= VERROU__FORCE)
            verrou__event_locked(engine, level, done[call->kind], call, NULL,
                                 call->kind == VERROU__ACQUIRE ? (int64_t)call->fence : 0);
        return;
    }
    verrou__call_error(call, &error);
    if (call->status == VERROU_EUNKNOWN || call->status == VERROU_ESTORAGE || call->status == VERROU_ENOMEM)
        level = VERROU_WARN;
    verrou__event_locked(engine, level, call->status == VERROU_ENOTACQUIRED ? "lock.not_acquired" : "call.failed", call,
                         error.message, call->status);
}
