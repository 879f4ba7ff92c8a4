/*
 * admin.c - the subcommands about a store: list, init, schema, doctor; and version.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- list ---- */

typedef struct listing {
    void *list;
    int code;
} listing;

static int on_lock(void *user, const char *key, const verrou_info *info)
{
    listing *l = user;

    l->code = print_list_item(l->list, key, info);
    return l->code;
}

int command_list(const cli_options *given)
{
    verrou_error err = VERROU_ERROR_INIT;
    listing l = {NULL, EXIT_OK};
    verrou_status status;
    cli_store s;
    int code;

    code = store_open(given, NULL, &s);
    if (!code)
        code = print_list_begin(given->json, &l.list);
    if (!code) {
        status = verrou_store_list(s.store, given->args[0], NULL, on_lock, &l, &err);
        code = status ? fail_status(status, &err) : l.code;
        if (!code)
            code = print_list_end(l.list);
        else
            print_list_drop(l.list);
    }
    store_done(&s);
    return code;
}

/* ---- init and schema ---- */

int command_init(const cli_options *given)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    cli_store s;
    int code;

    code = store_open(given, NULL, &s);
    if (!code) {
        status = verrou_store_schema_apply(s.store, NULL, &err);
        if (status == VERROU_ENOTSUP)
            say("%s needs no preparation", verrou_store_address(s.store));
        else
            code = fail_status(status, &err);
    }
    if (!code && given->json)
        code = print_done(NULL, "ready");
    store_done(&s);
    return code;
}

static int print_schema(const cli_options *given, verrou_store *store)
{
    verrou_error err = VERROU_ERROR_INIT;
    char *text = NULL;
    verrou_status status = verrou_store_schema(store, NULL, &text, &err);
    size_t len;
    int code;

    if (status)
        return fail_status(status, &err);
    if (given->json) {
        code = print_text("schema", text);
    } else {
        len = strlen(text);
        printf("%s%s", text, len && text[len - 1] != '\n' ? "\n" : "");
        code = output_end(EXIT_OK);
    }
    verrou_free(text);
    return code;
}

static int apply_schema(const cli_options *given, verrou_store *store)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status = verrou_store_schema_apply(store, NULL, &err);

    if (status)
        return fail_status(status, &err);
    return given->json ? print_done(NULL, "applied") : EXIT_OK;
}

int command_schema(const cli_options *given)
{
    bool apply = !strcmp(given->args[0], "apply");
    cli_store s;
    int code;

    if (!apply && strcmp(given->args[0], "print"))
        return fail(EXIT_USAGE, "verrou schema: \"%s\" is neither print nor apply", given->args[0]);
    code = store_open(given, NULL, &s);
    if (!code)
        code = apply ? apply_schema(given, s.store) : print_schema(given, s.store);
    store_done(&s);
    return code;
}

/* ---- doctor ---- */

typedef struct diagnosis {
    void *list; /* JSON, or NULL for text */
    bool bad;
    int code;
} diagnosis;

static void on_finding(void *user, verrou_level level, const char *subject, const char *finding)
{
    diagnosis *d = user;
    const char *word = level >= VERROU_ERROR_LEVEL ? "FAIL" : level >= VERROU_WARN ? "warn" : "ok";
    int code = print_finding(d->list, word, subject, finding);

    d->bad |= level >= VERROU_ERROR_LEVEL;
    if (code)
        d->code = code;
}

/* What can be said of every store. */
static void check_capabilities(diagnosis *d, verrou_store *store)
{
    uint32_t caps = verrou_store_caps(store);

    if (caps & VERROU_CAP_SHARED)
        on_finding(d, VERROU_INFO, "sharing", "other processes see the locks");
    else
        on_finding(d, VERROU_WARN, "sharing", "no other process can see the locks: they exclude nobody");
    if (caps & VERROU_CAP_SERVER_CLOCK)
        on_finding(d, VERROU_INFO, "clock", "the store's own clock decides when a lease ends");
    else
        on_finding(d, VERROU_WARN, "clock", "each client's clock decides when a lease ends: keep them in step");
    if (caps & VERROU_CAP_FENCE_STORED)
        on_finding(d, VERROU_INFO, "fencing", "every acquisition has a token, kept by the store");
    else if (caps & VERROU_CAP_FENCE)
        on_finding(d, VERROU_INFO, "fencing", "every acquisition has a token, taken from the clock");
    else
        on_finding(d, VERROU_WARN, "fencing", "acquisitions have no token");
    on_finding(d, VERROU_INFO, "waiting",
               caps & VERROU_CAP_PUSH ? "a release wakes waiters at once" : "waiters ask again at intervals");
}

/* A read shows whether the store can be reached at all. */
static int check_reach(diagnosis *d, verrou_store *store)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_info info = VERROU_INFO_INIT;
    verrou_status status = verrou_store_inspect(store, "verrou-doctor", NULL, &info, &err);

    if (status)
        return fail_status(status, &err);
    on_finding(d, VERROU_INFO, "store", verrou_store_address(store));
    return EXIT_OK;
}

static int diagnose(diagnosis *d, verrou_store *store)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    int code = check_reach(d, store);

    if (code)
        return code;
    check_capabilities(d, store); /* after the first contact: some are known only then */
    status = verrou_store_check(store, NULL, on_finding, d, &err);
    if (status && status != VERROU_ENOTSUP)
        return fail_status(status, &err);
    return d->code;
}

int command_doctor(const cli_options *given)
{
    diagnosis d = {NULL, false, EXIT_OK};
    cli_store s;
    int code;

    code = store_open(given, NULL, &s);
    if (!code)
        code = print_list_begin(given->json, &d.list);
    if (!code) {
        code = diagnose(&d, s.store);
        if (!code)
            code = print_list_end(d.list);
        else
            print_list_drop(d.list);
    }
    if (!code && d.bad)
        code = fail(EXIT_UNAVAILABLE, "this store is not fit for locks as it is");
    store_done(&s);
    return code;
}

/* ---- version ---- */

int command_version(const cli_options *given)
{
    if (given->json)
        return print_text("version", verrou_version());
    printf("verrou %s\n", verrou_version());
    return output_end(EXIT_OK);
}
