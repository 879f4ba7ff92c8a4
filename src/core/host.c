/*
 * host.c - what drivers are handed of the library: see verrou_host in store.h.
 */
#include "core/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/sink.h"
#include "engine/engine.h"

static void host_op_fail(verrou_op *op, verrou_op_result result, int retriable, const char *store_code,
                         const char *format, ...)
{
    verrou_error made = VERROU_ERROR_INIT;
    va_list args;

    op->result = result;
    if (!op->error)
        op->error = verrou__malloc(sizeof(*op->error));
    if (!op->error)
        return;
    va_start(args, format);
    vsnprintf(made.message, sizeof(made.message), format, args);
    va_end(args);
    *op->error = (verrou_error)VERROU_ERROR_INIT;
    verrou_error_set(op->error, VERROU_ESTORAGE, retriable, store_code, "%s", made.message);
}

static void host_holder(verrou_op *op, const char *owner, size_t owner_len, int64_t remaining_ms, uint64_t fence)
{
    if (owner_len > VERROU_MAX_OWNER)
        owner_len = VERROU_MAX_OWNER;
    op->holder_is_owner = op->owner && owner_len == op->owner_len && memcmp(owner, op->owner, owner_len) == 0;
    op->remaining_ms = remaining_ms;
    op->fence = fence;
    verrou__free(op->holder);
    op->holder = verrou__malloc(owner_len + 1); /* NULL: the holder is not known */
    if (op->holder) {
        memcpy(op->holder, owner, owner_len);
        op->holder[owner_len] = '\0';
    }
}

const verrou_host verrou__host = {
    .version = VERROU_STORE_VERSION,
    .malloc = verrou__malloc,
    .realloc = verrou__realloc,
    .free = verrou__free,
    .now_ms = verrou_now_ms,
    .random = verrou__random64,
    .setting = verrou__url_setting,
    .duration = verrou_duration_parse,
    .fail = verrou_error_set,
    .op_fail = host_op_fail,
    .holder = host_holder,
    .list_add = verrou__sink_list_add,
    .finding = verrou__sink_finding,
    .text_add = verrou__sink_text_add,
    .log = verrou__engine_log,
    .answered = verrou__engine_answered,
};
