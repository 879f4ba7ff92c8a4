/*
 * custom.c - checks and error texts for stores of the caller's own. What such a store returns is not trusted to be one
 * of the statuses that its contract allows: anything else fails the request and is named, so that its author can see
 * it.
 */
#include "stores/custom/custom.h"

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

void verrou__custom_failed(verrou_op *op, const char *call, bool reads, verrou_status status, const verrou_error *err)
{
    const char *message = err->message[0] ? err->message : "failed without a message";
    verrou_op_result result = err->retriable ? VERROU_OP_RETRY : VERROU_OP_FAILED;

    if (status != VERROU_ESTORAGE && status != VERROU_EUNKNOWN) {
        verrou__host.op_fail(op, VERROU_OP_FAILED, 0, NULL, "%s returned %s, which it may not", call,
                             verrou_status_name(status));
        return;
    }
    if (status == VERROU_EUNKNOWN)
        result = reads ? VERROU_OP_RETRY : VERROU_OP_UNKNOWN;
    verrou__host.op_fail(op, result, result != VERROU_OP_FAILED, err->store_code, "%s: %s", call, message);
}
