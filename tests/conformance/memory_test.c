/*
 * memory_test.c - the conformance suite on the memory store, plain and with a prefix. Each open is a world of its own.
 */
#include <verrou/conformance.h>

static verrou_status open_memory(void *user, verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_open(user, NULL, ret_store, err);
}

static char plain_url[] = "memory:", prefixed_url[] = "memory:?prefix=app%201:";

int main(void)
{
    verrou_conformance plain = {sizeof plain, "memory", open_memory, plain_url, VERROU_CONFORMANCE_NO_STORE_STATE};
    verrou_conformance prefixed = {sizeof prefixed, "memory with prefix", open_memory, prefixed_url,
                                   VERROU_CONFORMANCE_NO_STORE_STATE};

    return verrou_conformance_run(&plain) + verrou_conformance_run(&prefixed) == 0 ? 0 : 1;
}
