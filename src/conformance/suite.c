/*
 * suite.c - verrou_conformance_run(): puts the claims of all files into one cmocka group whose tests are called "STORE:
 * CLAIM". Claims that a store's capabilities or flags rule out are reported as skipped, so that an author sees what was
 * not checked.
 */
#include "conf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct conf_claim *const files[] = {
    verrou__conf_acquire_claims, verrou__conf_release_claims, verrou__conf_extend_claims,  verrou__conf_waiting_claims,
    verrou__conf_fencing_claims, verrou__conf_handles_claims, verrou__conf_lease_claims,   verrou__conf_serial_claims,
    verrou__conf_run_claims,     verrou__conf_async_claims,   verrou__conf_listing_claims, verrou__conf_limits_claims,
    verrou__conf_races_claims,
};
#define FILE_COUNT (sizeof files / sizeof files[0])

static size_t claims_count(void)
{
    size_t count = 0;

    for (size_t file = 0; file < FILE_COUNT; file++)
        for (const struct conf_claim *claim = files[file]; claim->name; claim++)
            count++;
    return count;
}

/* Some capabilities are known only after the first connection: ask for something before looking. */
static int caps_learn(struct conf_suite *suite)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_info info = VERROU_INFO_INIT;
    verrou_store *store = NULL;
    verrou_status status;

    status = suite->given->open(suite->given->user, &store, &err);
    if (status != VERROU_OK)
        goto done;

    status = verrou_store_inspect(store, "conformance:first look", NULL, &info, &err);
    if (status != VERROU_OK)
        goto done;

    suite->caps = verrou_store_caps(store);
done:
    if (status != VERROU_OK)
        fprintf(stderr, "%s: the store cannot be used: %s: %s\n", suite->given->name, verrou_status_name(status),
                err.message);
    verrou_store_close(store);
    return status == VERROU_OK ? 0 : -1;
}

static char *test_name(const char *store, const char *claim)
{
    size_t size = strlen(store) + strlen(claim) + 3;
    char *name = malloc(size);

    if (name)
        snprintf(name, size, "%s: %s", store, claim);
    return name;
}

static int tests_fill(struct conf_suite *suite, struct CMUnitTest *tests, struct conf *confs)
{
    for (size_t file = 0, at = 0; file < FILE_COUNT; file++) {
        for (const struct conf_claim *claim = files[file]; claim->name; claim++, at++) {
            confs[at].suite = suite;
            confs[at].claim = claim;
            confs[at].number = at;
            tests[at].name = test_name(suite->given->name, claim->name);
            tests[at].test_func = verrou__conf_check;
            tests[at].setup_func = verrou__conf_begin;
            tests[at].teardown_func = verrou__conf_end;
            tests[at].initial_state = &confs[at];
            if (!tests[at].name)
                return -1;
        }
    }
    return 0;
}

int verrou_conformance_run(const verrou_conformance *given)
{
    struct conf_suite suite = {given, 0, 0, 15000};
    size_t count = claims_count();
    struct CMUnitTest *tests = calloc(count, sizeof *tests);
    struct conf *confs = calloc(count, sizeof *confs);
    int failed = (int)count;

    if (!tests || !confs || tests_fill(&suite, tests, confs) != 0) {
        fprintf(stderr, "%s: out of memory\n", given->name);
        goto done;
    }
    if (caps_learn(&suite) != 0)
        goto done;

    suite.run = ((uint64_t)getpid() << 20 ^ (uint64_t)verrou_now_ms()) & 0xffffffff;
    failed = _cmocka_run_group_tests(given->name, tests, count, NULL, NULL);
done:
    for (size_t at = 0; tests && at < count; at++)
        free((void *)(uintptr_t)tests[at].name);
    free(tests);
    free(confs);
    return failed;
}
