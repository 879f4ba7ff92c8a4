/*
 * noop_test.c - what the suite asks of a store that grants everything.
 */
#include "noop_store.h"
#include <verrou/conformance.h>

static verrou_status open_noop(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return noop_store_open(ret_store, err);
}

int main(void)
{
    verrou_conformance suite = {sizeof suite, "no-op", open_noop, NULL, VERROU_CONFORMANCE_NO_LOCKS};

    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}
