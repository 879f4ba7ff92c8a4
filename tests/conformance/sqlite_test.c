/*
 * sqlite_test.c - the conformance suite on SQLite, in a file, plain and with a prefix. Nothing is registered: the
 * library finds the store by the scheme of the address.
 */
#include "folder.h"
#include <verrou/conformance.h>

static verrou_status open_sqlite(void *user, verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_open(user, NULL, ret_store, err);
}

int main(void)
{
    char folder[FOLDER_PATH], plain_url[FOLDER_PATH + 64], prefixed_url[FOLDER_PATH + 64];
    verrou_conformance plain = {sizeof plain, "sqlite", open_sqlite, plain_url, 0};
    verrou_conformance prefixed = {sizeof prefixed, "sqlite with prefix", open_sqlite, prefixed_url, 0};
    int failed;

    folder_make(folder);
    snprintf(plain_url, sizeof plain_url, "sqlite:%s/locks.db", folder);
    snprintf(prefixed_url, sizeof prefixed_url, "sqlite:%s/locks.db?prefix=app%%3A&table=other", folder);
    failed = verrou_conformance_run(&plain) + verrou_conformance_run(&prefixed);
    folder_remove(folder);
    return failed == 0 ? 0 : 1;
}
