/*
 * custom.c - checks and error texts for stores of the caller's own. What such a store returns is not trusted to be one
 * of the statuses that its contract allows: anything else fails the request and is named, so that its author can see
 * it.
 */
#include "stores/custom/custom.h"
#include <stdarg.h>
#include <stdio.h>

verrou_status verrou__custom_check(const char *what, uint32_t version, const verrou__custom_call *calls, size_t count,
                                   verrou_error *err)
{
    if (version != VERROU_STORE_VERSION)
        return verrou__fail(err, VERROU_EINVAL, "%s: version is %u where this library knows %u", what,
                            (unsigned)version, (unsigned)VERROU_STORE_VERSION);

    for (size_t at = 0; at < count; at++)
        if (!calls[at].given)
            return verrou__fail(err, VERROU_EINVAL, "%s: the call %s is missing", what, calls[at].name);
    return VERROU_OK;
}

verrou_status verrou__custom_address(const char *settings, char **ret_url, verrou_error *err)
{
    bool some = settings != NULL && settings[0] != '\0';
    char *url = verrou__format("custom:%s%s", some ? "?" : "", some ? settings : "");

    if (!url)
        return verrou__nomem(err);
    *ret_url = url;
    return VERROU_OK;
}

/* Give the request an error of its own. Without memory it goes without text. */
static void attach(verrou_op *op, const verrou_error *err)
{
    verrou_error *copy = verrou__malloc(sizeof *copy);

    verrou__free(op->error);
    op->error = copy;
    if (copy)
        *copy = *err;
}

void verrou__custom_answer(verrou_op *op, verrou_op_result result, int retriable, const char *format, ...)
{
    verrou_error err = VERROU_ERROR_INIT;
    va_list args;

    err.status = result == VERROU_OP_UNKNOWN ? VERROU_EUNKNOWN : VERROU_ESTORAGE;
    err.retriable = retriable;
    va_start(args, format);
    vsnprintf(err.message, sizeof err.message, format, args);
    va_end(args);
    op->result = result;
    attach(op, &err);
}

void verrou__custom_failed(verrou_op *op, const char *call, bool reads, verrou_status status, const verrou_error *err)
{
    verrou_error told = *err;

    if (status != VERROU_ESTORAGE && status != VERROU_EUNKNOWN) {
        verrou__custom_answer(op, VERROU_OP_FAILED, 0, "%s returned %s, which it may not", call,
                              verrou_status_name(status));
        return;
    }

    told.status = status;
    if (told.message[0] == '\0')
        snprintf(told.message, sizeof told.message, "failed without a message");
    verrou__error_prefix(&told, "%s", call);
    if (status == VERROU_ESTORAGE)
        op->result = told.retriable ? VERROU_OP_RETRY : VERROU_OP_FAILED;
    else
        op->result = reads ? VERROU_OP_RETRY : VERROU_OP_UNKNOWN;
    attach(op, &told);
}
